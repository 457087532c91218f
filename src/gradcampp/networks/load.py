"""A network by name, ready to be asked: built, filled with weights from disk, and never downloaded."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import WeightsEnum

from gradcampp.errors import InputError, listed
from gradcampp.files import file_hash
from gradcampp.networks import mini
from gradcampp.networks.capture import Network, Precision, Preprocessing, forward
from gradcampp.networks.classes import Classes, from_file, named, numbered
from gradcampp.networks.layers import default_layer
from gradcampp.scenes.shapes import CLASSES

RANDOM = "random"
EMBEDDED = "mini"


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
) -> Network:
    """A network with its layer, its preprocessing and the names of its classes, on the CPU in evaluation mode and float32.

    Weights lie in the memory format in which the network computes fastest.

    Args:
        model: ``mini`` for the embedded network, a name that ``torchvision.models.get_model`` knows, ``module:factory`` for
            a callable that returns a network, importable from the working directory or ``PYTHONPATH``, or a module.
        layer: name of the module whose output is explained; None finds the last feature maps before the classifier.
        weights: a ``.safetensors`` file or a checkpoint that loads with ``weights_only=True``, or ``random``. None means
            what the factory or module holds, for ``mini`` the weights that ship with the package, and for a torchvision
            name the published weights where torchvision's own cache already holds them.
        seed: of the random weights.
        classes: their names in the order of the logits, or a text file with one a line; None takes those that the network
            knows, ImageNet's for 1,000 classes, and else numbers.
        resize, crop, mean, std: in the place of the network's own preprocessing; pixels, and the scale [0, 1].
        precision: of the network's own arithmetic.

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    module: nn.Module
    if model == EMBEDDED and weights is None:
        module, identity, default, known = mini.load(), mini.SHA256, mini.PREPROCESSING, tuple(CLASSES)
    else:
        module, identity, default, known = _built(model, weights, seed)
    preprocessing = _override(default, resize, crop, mean, std)
    blank = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    count = forward(module, blank).shape[1]
    network = Network(
        module=module,
        layer=layer or default_layer(module, blank),
        preprocessing=preprocessing,
        classes=_classes(classes, known, count),
        name=model if isinstance(model, str) else type(model).__name__,
        weights=identity,
        memory_format=_fastest_format(module, blank),
        precision=precision,
    )
    module.to(memory_format=network.memory_format)
    network.capture(blank, torch.tensor([0]))  # a layer that cannot be explained fails now
    return network


def _built(
    model: str | nn.Module, weights: str | Path | None, seed: int
) -> tuple[nn.Module, str, Preprocessing, tuple[str, ...]]:
    """The module with its weights, the identity of these, its preprocessing, and the names of classes that it knows."""
    name = model if isinstance(model, str) else f"{type(model).__name__}:"  # a module is one's own, as a factory's is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, published = _untrained(model)
    file = _weight_file(name, weights, published)
    if file is not None:
        _fill(name, module, file)
        identity = file_hash(file)
    else:
        identity = f"random (seed {seed})" if weights == RANDOM else f"from the factory, {_state_hash(module)}"
    embedded = name == EMBEDDED
    return module.float().eval(), identity, mini.PREPROCESSING if embedded else _published(published), CLASSES if embedded else ()


def _untrained(model: str | nn.Module) -> tuple[nn.Module, WeightsEnum | None]:
    """The network that a name stands for, and its published weights where there are some."""
    if isinstance(model, nn.Module):
        return model, None
    if model == EMBEDDED:
        return mini.MiniVGG(), None
    return (_from_factory(model), None) if ":" in model else _from_torchvision(model)


def _from_torchvision(name: str) -> tuple[nn.Module, WeightsEnum | None]:
    known = torchvision_models.list_models(torchvision_models)  # classifiers: the others load parts from the internet
    if name.lower() not in known:
        near = listed(get_close_matches(name.lower(), known, n=5, cutoff=0.4), 5) or "none"
        raise InputError(
            f"unknown model '{name}': expected mini, a torchvision name (nearest: {near}) or module:factory for your own network"
        )
    members = list(torchvision_models.get_model_weights(name))
    # The first set of published weights: the recipe of the literature, and what the usual files hold.
    return torchvision_models.get_model(name, weights=None), members[0] if members else None


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


def _weight_file(name: str, weights: str | Path | None, published: WeightsEnum | None) -> Path | None:
    """Where the weights come from; None for those that the network was built with."""
    if weights == RANDOM or (weights is None and ":" in name):
        return None
    return Path(weights) if weights is not None else _cached(name, published)


def _fill(name: str, module: nn.Module, path: Path) -> None:
    """Load the weights of a file into the network, all of them and nothing else."""
    expected, given = module.state_dict(), _read_weights(path)
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    misshapen = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    for wrong, items in (("lacks", missing), ("has unknown", unexpected), ("has", misshapen)):
        if items:
            raise InputError(f"weights {path} do not fit {name}: the file {wrong} {listed(items)}")
    module.load_state_dict(given, strict=False)  # keys are checked above; only batch counters may be absent
    if getattr(module, "transform_input", None) is False and ":" not in name:
        setattr(module, "transform_input", True)  # noqa: B010, torchvision's Inception weights expect the input that this flag makes


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
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets damaged files with anything from KeyError to AssertionError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot read weights {path}: {reason}; expected a .safetensors file or a checkpoint of tensors only"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"weights {path}: expected a state dictionary of tensors, got {type(content).__name__}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _published(weights: WeightsEnum | None) -> Preprocessing:
    """The preprocessing that torchvision publishes beside its weights; its ImageNet values for one's own network."""
    preset: Any = weights.transforms() if weights is not None else None
    if not all(hasattr(preset, field) for field in ("resize_size", "crop_size", "mean", "std")):
        return Preprocessing()
    return Preprocessing(
        preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )


def _override(
    default: Preprocessing, resize: int | None, crop: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Preprocessing:
    """The network's own preprocessing with what the user gives in its place."""
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != 3:
            raise InputError(f"--{name} {values}: expected three numbers, one a channel")
    given = {"resize": resize, "crop": crop, "mean": mean and tuple(mean), "std": std and tuple(std)}
    chosen = replace(default, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if chosen.crop > chosen.resize:
        raise InputError(f"--crop {chosen.crop} is larger than --resize {chosen.resize}; expected a crop that fits")
    if not all(value > 0 for value in chosen.std):
        raise InputError(f"--std {chosen.std}: expected three positive numbers")
    return chosen


def _classes(given: Path | Sequence[str] | None, known: Sequence[str], count: int) -> Classes:
    """The names of the classes, one a logit."""
    if isinstance(given, Path):
        classes = from_file(given)
    elif given or known:
        classes = named(list(given or known))
    else:
        classes = numbered(count)
    if len(classes) != count:
        raise InputError(f"{given} has {len(classes)} names, and the network {count} classes; expected one name a class")
    return classes


def _fastest_format(module: nn.Module, blank: Tensor) -> torch.memory_format:
    """Channels last, unless the network reshapes its maps in a way that needs them contiguous."""
    try:
        forward(module, blank.contiguous(memory_format=torch.channels_last))
    except InputError:
        return torch.contiguous_format
    return torch.channels_last


def _state_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
