"""Networks by name: built, filled with weights from disk, and never downloaded."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import WeightsEnum

from gradcampp.errors import InputError, listed
from gradcampp.evaluation import download, maps
from gradcampp.evaluation.profiles import Profile
from gradcampp.files import file_hash
from gradcampp.networks import capture, layers, load, mini
from gradcampp.networks.capture import PRECISIONS, Network, Precision, Preprocessing
from gradcampp.networks.classes import Classes, from_file, named, numbered
from gradcampp.scenes.shapes import CLASSES

RANDOM = "random"


EMBEDDED = "mini"


@dataclass(frozen=True)
class Model:
    """A network in float32 and evaluation mode with everything needed to feed it.

    Attributes:
        name: as the user gave it.
        module: takes (B, 3, crop, crop), ends in class logits (B, C).
        weights: SHA-256 of the weight file, ``random (seed N)``, or ``from the factory`` with a hash of them.
        preprocessing: how a photograph becomes its input.
        classes: the names of its classes, where it knows them.
    """

    name: str
    module: nn.Module
    weights: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()


def build(name: str, weights: str | None = None, seed: int = 0) -> Model:
    """Build a network and load its weights from disk.

    Args:
        name: ``mini`` for the embedded network, a name that ``torchvision.models.get_model`` knows, or
            ``module:factory`` for a callable that returns a network, importable from the working
            directory or ``PYTHONPATH``.
        weights: a ``.safetensors`` file or a checkpoint that loads with ``weights_only=True``, or
            ``random``. None means what the factory returns, for ``mini`` the weights that ship with the
            package, and for a torchvision name the published weights where torchvision's own cache
            already holds them.
        seed: of the random weights.

    Returns:
        The network on the CPU, in float32 and evaluation mode.

    Raises:
        InputError: if the name, the factory or the weights are not usable.
    """
    if name == EMBEDDED and weights is None:
        return Model(name, mini.load(), mini.SHA256, mini.PREPROCESSING, CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, published = _untrained(name)
    file = _weight_file(name, weights, published)
    if file is not None:
        _fill(name, module, file)
        identity = file_hash(file)
    else:
        identity = f"random (seed {seed})" if weights == RANDOM else f"from the factory, {_state_hash(module)}"
    return Model(
        name=name,
        module=module.float().eval(),
        weights=identity,
        preprocessing=mini.PREPROCESSING if name == EMBEDDED else _preprocessing(published),
        classes=CLASSES if name == EMBEDDED else (),
    )


def _untrained(name: str) -> tuple[nn.Module, WeightsEnum | None]:
    """The network that a name stands for, and its published weights where there are some."""
    if name == EMBEDDED:
        return mini.MiniVGG(), None
    return (_from_factory(name), None) if ":" in name else _from_torchvision(name)


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


def _weight_file(name: str, weights: str | None, published: WeightsEnum | None) -> Path | None:
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


def _preprocessing(published: WeightsEnum | None) -> Preprocessing:
    """What torchvision publishes beside its weights; its ImageNet values for one's own network."""
    preset: Any = published.transforms() if published is not None else None
    if not all(hasattr(preset, field) for field in ("resize_size", "crop_size", "mean", "std")):
        return Preprocessing()
    return Preprocessing(
        preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )


def _state_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be asked.

    Attributes:
        model: as built, with the identity of its weights.
        network: the module with its layer and preprocessing.
        classes: the names of its classes.
    """

    model: load.Model
    network: Network
    classes: Classes


def prepare(profile: Profile) -> Prepared:
    """Build the network of a profile, find its layer and the names of its classes.

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    profile = download.located(profile)
    model = load.build(profile.model, profile.weights, profile.seed or 0)
    preprocessing = _overridden(profile, model.preprocessing)
    blank = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    count = capture.forward(model.module, blank).shape[1]
    layer = profile.layer or layers.default_layer(model.module, blank)
    net = Network(model.module, layer, preprocessing, _fastest_format(model.module, blank), _precision(profile))
    maps.capture_photographs(net, blank, torch.tensor([0]))  # a layer that cannot be explained fails now
    return Prepared(model, net, _classes(profile, model, count))


def _fastest_format(module: nn.Module, blank: Tensor) -> torch.memory_format:
    """Channels last, unless the network reshapes its maps in a way that needs them contiguous."""
    try:
        capture.forward(module, blank.contiguous(memory_format=torch.channels_last))
    except InputError:
        return torch.contiguous_format
    return torch.channels_last


def _precision(profile: Profile) -> Precision:
    for known in PRECISIONS:
        if profile.precision == known:
            return known
    raise InputError(f"precision '{profile.precision}': expected {', '.join(PRECISIONS)}")


def _overridden(profile: Profile, default: Preprocessing) -> Preprocessing:
    """The network's own preprocessing with what the profile overrides."""
    for name in ("mean", "std"):
        values = getattr(profile, name)
        if values is not None and len(values) != 3:
            raise InputError(f"--{name} {values}: expected three numbers, one a channel")
    mean, std = profile.mean or default.mean, profile.std or default.std
    chosen = Preprocessing(
        resize=profile.resize or default.resize,
        crop=profile.crop or default.crop,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        interpolation=default.interpolation,
    )
    if chosen.crop > chosen.resize:
        raise InputError(f"--crop {chosen.crop} is larger than --resize {chosen.resize}; expected a crop that fits")
    if not all(value > 0 for value in chosen.std):
        raise InputError(f"--std {chosen.std}: expected three positive numbers")
    return chosen


def _classes(profile: Profile, model: load.Model, count: int) -> Classes:
    if profile.classes is not None:
        classes = from_file(profile.classes)
    elif model.classes:
        classes = named(list(model.classes))
    else:
        classes = numbered(count)
    if len(classes) != count:
        raise InputError(
            f"{profile.classes} has {len(classes)} names, and the network {count} classes; expected one name a class"
        )
    return classes
