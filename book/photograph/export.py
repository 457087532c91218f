"""The network of the page "Your own photograph": EfficientNet-Lite0 for a browser, with gradients that need no autograd.

Weights are float32. In float16 the file is half as large (9.4 in place of 18.6 MB), but maps move by 0.002 to 0.008, and one that
nearly cancels by 0.06: more than Grad-CAM++ and Grad-CAM+ differ in many photographs.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

import gradcampp
from gradcampp.errors import InputError
from gradcampp.evaluation import gallery
from gradcampp.files import atomic_write
from gradcampp.networks.capture import Network
from gradcampp.networks.lite0 import INNER_LAYER, LAYER, NAME
from gradcampp.networks.load import load

HERE = Path(__file__).parent
RUNTIME = HERE.parent / "web" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
OUTPUTS = ("logits", "head", "head_pre", "head_post", "inner", "inner_pre", "inner_post")
OPSET = 18
CROP = 224
SAMPLES = ("chelsea", "coffee", "camera", "rocket", "china", "flower")
THUMBNAIL = 112  # pixels a side; shown at half of that


def folded(module: nn.Module) -> nn.Module:
    """A copy of EfficientNet-Lite0 with each BatchNorm folded into the convolution before it; its layers keep their names."""
    plain = copy.deepcopy(module).eval()
    for parent in [*plain.modules()]:
        children = [*parent.named_children()]
        for (name, convolution), (behind, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, behind, nn.Identity())
    return plain.requires_grad_(False)


class Explained(nn.Module):
    """Logits, and what class activation maps need of two layers: their feature maps and the derivatives of both scores.

    Attributes:
        network: of `folded`.
        offset, scale: mean and std of its preprocessing, (1, 3, 1, 1).
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("offset", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("scale", torch.tensor(std)[None, :, None, None])

    def forward(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The seven `OUTPUTS` for pixels in [0, 1], (B, 3, 224, 224), and the class to explain for each, (B,) int64.

        Gradients at the head have one value a channel, which is why they are (B, 1280); elsewhere they have the shape of
        the feature maps, (B, 1152, 7, 7).
        """
        inner, head = self._feature_maps((pixels - self.offset) / self.scale)
        fc: Any = self.network.fc
        logits = fc(head.mean((2, 3)))
        gradients = [self._head_gradient(cotangent, head) for cotangent in cotangents(logits, labels)]
        head_pre, head_post = gradients
        inner_pre, inner_post = (self._inner_gradient(gradient, head) for gradient in gradients)
        return logits, head, head_pre, head_post, inner, inner_pre, inner_post

    def _feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of `INNER_LAYER` and of `LAYER`."""
        network: Any = self.network
        x = network.relu0(network.conv_stem(x))
        for block in network.blocks[:-1]:
            x = block(x)
        last = network.blocks[-1]
        inner = last.relu1(last.depthwise_conv(last.relu0(last.expand_conv(x))))
        return inner, network.relu(network.conv_head(last.project_conv(inner)))

    def _head_gradient(self, cotangent: Tensor, head: Tensor) -> Tensor:
        """Back through the linear layer and the average of the units: one value a channel, (B, 1280)."""
        fc: Any = self.network.fc
        gradient: Tensor = cotangent @ fc.weight / (head.shape[2] * head.shape[3])
        return gradient

    def _inner_gradient(self, gradient: Tensor, head: Tensor) -> Tensor:
        """Back through the last ReLU6, which lets nothing through where it is 0 or 6, and two convolutions of 1 x 1."""
        network: Any = self.network
        masked = torch.where((head > 0) & (head < 6), gradient[:, :, None, None], 0.0)
        for convolution in (network.conv_head, network.blocks[-1].project_conv):
            masked = functional.conv2d(masked, convolution.weight.transpose(0, 1))
        return masked


def cotangents(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of each picture's own score by all logits, (B, C): of the logit, and of the softmax score.

    The second is ``p_c`` times the sum of the other p for the own class, and ``-p_c p_j`` for the others.
    """
    own = labels[:, None] == torch.arange(logits.shape[1])  # (B, C)
    p = logits.softmax(1)
    score = torch.where(own, p, 0.0).sum(1, keepdim=True)
    others = torch.where(own, 0.0, p).sum(1, keepdim=True)
    return own.to(logits.dtype), score * torch.where(own, others, -p)


def explained(network: Network) -> Explained:
    """What the page runs, for torch."""
    return Explained(folded(network.module), network.preprocessing.mean, network.preprocessing.std).eval()


def write_network(module: Explained, path: Path) -> None:
    """Write the ONNX file; any number of pictures a batch."""
    example = torch.zeros(2, 3, CROP, CROP), torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name: batch", UserWarning)  # both inputs have the same batch
        program = torch.onnx.export(
            module,
            example,
            input_names=["pixels", "labels"],
            output_names=[*OUTPUTS],
            opset_version=OPSET,
            dynamic_shapes={"pixels": {0: batch}, "labels": {0: batch}},
            optimize=False,  # it would store the transposed weights as well
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # where in the sources each operation stands, with this machine's paths
        part.ClearField("doc_string")
    path.write_bytes(model.SerializeToString())


@dataclass(frozen=True)
class Sample:
    """A photograph for a reader who has none at hand.

    Attributes:
        path: of a JPEG or PNG, which goes with the page as it is.
        title: what a reader chooses.
        credit: whose it is, and its licence.
    """

    path: Path
    title: str
    credit: str


def samples() -> list[Sample]:
    """The photographs that come with packages whose licences are stated there.

    Raises:
        InputError: if a package is missing.
    """
    chosen = [gallery.PHOTOGRAPHS[name] for name in SAMPLES]
    return [
        Sample(one.path(), one.title, f"{one.author}, {one.licence}, from {gallery.DISTRIBUTIONS[one.package]}") for one in chosen
    ]


def settings(network: Network, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the page has to know beside the network: names of classes, version, the library's names of layers, photographs."""
    return {
        "samples": [
            {"file": one.path.name, "title": one.title, "credit": one.credit, "thumbnail": thumbnail(one.path)} for one in samples
        ],
        "classes": network.classes.names,
        "version": gradcampp.__version__,
        "network": NAME,
        "layers": {"head": LAYER, "inner": INNER_LAYER},
    }


def thumbnail(path: Path) -> str:
    """The middle of a photograph, 112 pixels a side: a JPEG in base64."""
    with Image.open(path) as image:
        small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def write(folder: Path, samples: Sequence[Sample] = ()) -> list[Path]:
    """Write the network, what runs it, and what the page has to know.

    Args:
        folder: of ``photograph.js``; made where it does not exist.
        samples: photographs that the page offers.

    Returns:
        The files.

    Raises:
        InputError: if ``npm ci`` has not been run in ``book/web``.
    """
    if missing := [name for name in RUNTIME_FILES if not (RUNTIME / name).exists()]:
        raise InputError(f"no onnxruntime-web/dist/{missing[0]} in book/web/node_modules: npm ci --prefix book/web")
    folder.mkdir(parents=True, exist_ok=True)
    network = load(NAME)
    paths = [folder / "lite0.onnx", folder / "settings.js"]
    write_network(explained(network), paths[0])
    with atomic_write(paths[1]) as temporary:
        text = json.dumps(settings(network, samples), ensure_ascii=False, separators=(",", ":"))
        temporary.write_text(f"const gradcamppSettings = {text};\n", "utf-8")
    copies = [(RUNTIME / name, folder / name) for name in RUNTIME_FILES]
    copies += [(one.path, folder / "samples" / one.path.name) for one in samples]
    for source, target in copies:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    return paths + [target for _, target in copies]
