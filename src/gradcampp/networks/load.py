"""A network by name, ready to be asked: built, filled with weights from disk, and never downloaded."""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import WeightsEnum

from gradcampp.errors import InputError, listed
from gradcampp.files import file_hash
from gradcampp.networks import lite0, mini, scores
from gradcampp.networks.capture import Network, Precision, forward
from gradcampp.networks.classes import from_file, named, numbered
from gradcampp.networks.layers import default_layer
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.networks.scores import Score
from gradcampp.scenes.shapes import CLASSES

RANDOM = "random"


def load(
    model: str | nn.Module,
    layer: str | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    classes: Path | Sequence[str] | None = None,
    resize: int | None = None,
    crop: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: Precision = "float32",
    score: Score = "softmax",
) -> Network:
    """A network with its layer, its preprocessing and the names of its classes, on the CPU in evaluation mode and float32.

    Weights lie in the memory format in which the network computes fastest.

    Args:
        model: ``mini`` for the embedded network, ``efficientnet_lite0``, a name that ``torchvision.models.get_model`` knows,
            ``module:factory`` for a callable that returns a network, importable from the working directory or
            ``PYTHONPATH``, or a module.
        layer: name of the module whose output is explained; None finds the last feature maps before the classifier.
        weights: a ``.safetensors`` file or a checkpoint that loads with ``weights_only=True``, or ``random``. None means
            what the factory or module holds, for ``mini`` the weights that ship with the package, and for a torchvision
            name the published weights where torchvision's own cache already holds them.
        seed: of the random weights.
        classes: their names in the order of the logits, or a text file with one a line; None takes those that the network
            knows, ImageNet's for 1,000 classes, and else numbers.
        resize, crop, mean, std: in the place of the network's own preprocessing; pixels, and the scale [0, 1].
        precision: of the network's own arithmetic.
        score: what the outputs mean: logits of classes that exclude each other (``softmax``), of a yes or no each (``sigmoid``:
            multi-label and binary networks), or a quantity that is explained itself (``logit``: regression).

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    name = model if isinstance(model, str) else type(model).__name__
    embedded, own = model == "mini", not isinstance(model, str) or ":" in model
    published: WeightsEnum | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module
        if embedded:
            module = mini.load() if weights is None else mini.MiniVGG()
        elif own:
            module = model if isinstance(model, nn.Module) else _from_factory(name)
        elif name == lite0.NAME:
            module = lite0.EfficientNetLite0()
        else:
            module, published = _from_torchvision(name)
    if weights == RANDOM:
        identity = f"random (seed {seed})"
    elif weights is None and (embedded or own):
        identity = mini.SHA256 if embedded else f"from the factory, {_state_hash(module)}"
    else:
        file = Path(weights) if weights else lite0.weights_file() if name == lite0.NAME else _cached(name, published)
        _fill(name, module, file)
        identity = file_hash(file)
        if published is not None and getattr(module, "transform_input", None) is False:
            module.transform_input = True  # type: ignore[assignment]  # as the weights of torchvision's Inception expect it
    module = module.float().eval()
    default = {"mini": mini.PREPROCESSING, lite0.NAME: lite0.PREPROCESSING}.get(name, Preprocessing())
    means, stds = mean and tuple(mean), std and tuple(std)
    preprocessing = _preprocessing(default, published, resize=resize, crop=crop, mean=means, std=stds)
    blank = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    noise = torch.randn(2, *blank.shape[1:], generator=torch.Generator().manual_seed(0))
    outputs = forward(module, noise)
    if assumed := scores.check(outputs, score, partial(scores.last_operation, module, noise)):
        warnings.warn(assumed, RuntimeWarning, stacklevel=2)
    count = outputs.shape[1]
    if isinstance(classes, Path):
        names = from_file(classes)
    else:
        names = named(list(classes or CLASSES)) if classes or embedded else numbered(count)
    if len(names) != count:
        raise InputError(f"{classes} has {len(names)} names, and the network {count} classes; expected one name a class")
    memory_format = torch.channels_last
    try:
        forward(module, blank.contiguous(memory_format=memory_format))
    except InputError:  # it reshapes its maps in a way that needs them contiguous
        memory_format = torch.contiguous_format
    layer = layer or default_layer(module, blank)
    network = Network(module, layer, preprocessing, names, name, identity, memory_format, precision, score)
    network.capture(blank, torch.tensor([0]))  # a layer that cannot be explained fails now
    return network


def _from_torchvision(name: str) -> tuple[nn.Module, WeightsEnum | None]:
    known = torchvision_models.list_models(torchvision_models)  # classifiers: the others load parts from the internet
    if name.lower() not in known:
        near = listed(get_close_matches(name.lower(), known, n=5, cutoff=0.4), 5) or "none"
        raise InputError(
            f"unknown model '{name}': expected mini, {lite0.NAME}, a torchvision name (nearest: {near}) or module:factory for "
            "your own network"
        )
    # The first set of published weights: the recipe of the literature, and what the usual files hold.
    return torchvision_models.get_model(name, weights=None), next(iter(torchvision_models.get_model_weights(name)), None)


def _from_factory(name: str) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not search the working directory
    try:
        made = getattr(importlib.import_module(module_name), attribute)
        made = made if isinstance(made, nn.Module) else made()
    except Exception as error:  # the factory is the user's code: whatever it raises is news for the user
        raise InputError(f"cannot build the network '{name}': {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"'{name}' returned {type(made).__name__}; expected a torch.nn.Module")
    return made


def _fill(name: str, module: nn.Module, path: Path) -> None:
    """Load the weights of a file into the network, all of them and nothing else."""
    expected, given = module.state_dict(), _read_weights(path)
    if isinstance(module, lite0.EfficientNetLite0):
        given = lite0.renamed(given)
    shapes = [(key, tuple(given[key].shape), tuple(expected[key].shape)) for key in expected if key in given]
    wrong = {
        "lacks": [key for key in expected if key not in given and not key.endswith("num_batches_tracked")],
        "has unknown": [key for key in given if key not in expected],
        "has": [f"{key} {shape} instead of {right}" for key, shape, right in shapes if shape != right],
    }
    for says, keys in wrong.items():
        if keys:
            raise InputError(f"weights {path} do not fit {name}: the file {says} {listed(keys)}")
    module.load_state_dict(given, strict=False)  # keys are checked above; only batch counters may be absent


def _cached(name: str, published: WeightsEnum | None) -> Path:
    """The published weights in torchvision's own cache, verified by the hash in their name."""
    if published is None:
        raise InputError(f"no weights for {name}: pass --weights FILE, or --weights {RANDOM}")
    file_name = published.url.rsplit("/", 1)[-1]
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if not path.is_file():
        raise InputError(
            f"no weights for {name}: pass --weights FILE (.safetensors or .pth), or put {file_name} into {path.parent}; "
            f"--weights {RANDOM} takes random ones"
        )
    prefix = path.stem.rsplit("-", 1)[-1]
    if not file_hash(path).startswith(prefix):
        raise InputError(f"weights {path} are damaged: expected a SHA-256 that starts with {prefix}, got {file_hash(path)}")
    return path


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a weight file by key, without the wrappers that training scripts add."""
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        tensors = path.suffix == ".safetensors"
        content: Any = load_file(path) if tensors else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets damaged files with anything from KeyError to AssertionError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        expected = "expected a .safetensors file or a checkpoint of tensors only"
        raise InputError(f"cannot read weights {path}: {reason}; {expected}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"weights {path}: expected a state dictionary of tensors, got {type(content).__name__}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _preprocessing(default: Preprocessing, published: WeightsEnum | None, **given: Any) -> Preprocessing:
    """The preprocessing that torchvision publishes beside weights, or else the default, with what the user gives in its place."""
    if published is not None:
        known = published.transforms()
        sizes = known.resize_size[0], known.crop_size[0]
        default = Preprocessing(*sizes, tuple(known.mean), tuple(known.std), known.interpolation.value)
    chosen = replace(default, **{name: value for name, value in given.items() if value is not None})
    for name, values in (("mean", chosen.mean), ("std", chosen.std)):
        if len(values) != 3:
            raise InputError(f"--{name} {values}: expected three numbers, one a channel")
    if chosen.crop > chosen.resize:
        raise InputError(f"--crop {chosen.crop} is larger than --resize {chosen.resize}; expected a crop that fits")
    if not all(value > 0 for value in chosen.std):
        raise InputError(f"--std {chosen.std}: expected three positive numbers")
    return chosen


def _state_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
