"""VGG16 with the weights that Keras publishes, which the paper used, as torchvision's network.

Both files hold the same architecture. Keras stores kernels as (height, width, in, out), flattens the last maps as (height,
width, channel), and takes blue, green and red from 0 to 255 less the means of ImageNet, undivided.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gradcampp.errors import InputError, listed
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.networks.weights import Checkpoint

ENDINGS = (".h5", ".hdf5")
NAME = "vgg16"
PREPROCESSING = Preprocessing(
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    interpolation="nearest",
    fit="squash",
    origin="Keras', as load_img(target_size) and preprocess_input of its VGG16 have it",
)
MAPS = (7, 7)  # height and width of the last maps, which the first dense layer sees
CONVOLUTIONS = {
    **{"block1_conv1": 0, "block1_conv2": 2, "block2_conv1": 5, "block2_conv2": 7},
    **{"block3_conv1": 10, "block3_conv2": 12, "block3_conv3": 14, "block4_conv1": 17, "block4_conv2": 19, "block4_conv3": 21},
    **{"block5_conv1": 24, "block5_conv2": 26, "block5_conv3": 28},
}
DENSE = {"fc1": 0, "fc2": 3, "predictions": 6}


def read(path: Path, model: str) -> Checkpoint:
    """The weights of a file of Keras' VGG16 by the keys of torchvision's, for pixels in red, green and blue.

    Args:
        path: an HDF5 file with a group for each layer, as Keras publishes it.
        model: what the weights are for; only ``vgg16`` is known.

    Raises:
        InputError: if h5py is missing, the file is missing or damaged, or it holds another network.
    """
    if model != NAME:
        raise InputError(f"weights {path}: of files of Keras only those of its VGG16 can be read, with --model {NAME}")
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError(f"weights {path}: a file of Keras needs h5py; pip install h5py") from None
    try:
        with h5py.File(path) as file:
            if absent := [layer for layer in (*CONVOLUTIONS, *DENSE) if layer not in file]:
                raise InputError(f"weights {path}: expected the layers of Keras' VGG16; it lacks {listed(absent)}")
            layers = {layer: _kernel_and_bias(file[layer]) for layer in (*CONVOLUTIONS, *DENSE)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read weights {path}: {error}; expected an HDF5 file of Keras' VGG16") from None
    return Checkpoint(path, {"": _renamed(layers)})


def _kernel_and_bias(group: object) -> tuple[Tensor, Tensor]:
    """The two arrays of a layer, which are called by its attribute."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs["weight_names"]]  # type: ignore[attr-defined]
    kernel, bias = (torch.from_numpy(group[name][()]) for name in names)  # type: ignore[index]
    return kernel, bias


def _renamed(layers: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Kernels as torchvision has them: (out, in, height, width) and (out, in)."""
    found: dict[str, Tensor] = {}
    for layer, place in CONVOLUTIONS.items():
        found[f"features.{place}.weight"] = layers[layer][0].permute(3, 2, 0, 1).contiguous()
        found[f"features.{place}.bias"] = layers[layer][1]
    for layer, place in DENSE.items():
        found[f"classifier.{place}.weight"] = layers[layer][0].T.contiguous()
        found[f"classifier.{place}.bias"] = layers[layer][1]
    found["features.0.weight"] = found["features.0.weight"].flip(1)  # blue, green, red
    first = found["classifier.0.weight"]  # (out, height x width x channel)
    found["classifier.0.weight"] = first.reshape(len(first), *MAPS, -1).permute(0, 3, 1, 2).flatten(1)
    return found
