"""A network by name, ready to be asked: built, filled with weights from disk, and never downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import VisionTransformer, WeightsEnum

from gradcampp.errors import InputError, Notice, listed
from gradcampp.files import file_hash
from gradcampp.networks import keras, lite0, mini, scores
from gradcampp.networks.capture import Network, Precision, forward
from gradcampp.networks.classes import Classes, from_file, named, numbered
from gradcampp.networks.layers import default_layer
from gradcampp.networks.layout import parse
from gradcampp.networks.preprocessing import Fit, chosen, of_module, of_weights
from gradcampp.networks.running import unwrap
from gradcampp.networks.scores import Score
from gradcampp.networks.weights import Checkpoint, classes_of_head, fill, read
from gradcampp.scenes.shapes import CLASSES

RANDOM = "random"
TIMM = "timm/"
CHANCE = 1e-3  # of the norm of outputs; memory formats and batch sizes moved them by 1e-5 at most


def load(
    model: str | nn.Module,
    layer: str | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    classes: Path | Sequence[str] | None = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    fit: Fit | None = None,
    precision: Precision = "float32",
    layout: str | None = None,
    output: str | int | None = None,
    score: Score = "softmax",
) -> Network:
    """A network with its layer, its preprocessing and the names of its classes, on the CPU in evaluation mode and float32.

    Weights lie in the memory format in which the network computes fastest.

    Args:
        model: ``mini`` for the embedded network, ``efficientnet_lite0``, a name that ``torchvision.models.get_model`` knows,
            ``timm/NAME`` where timm is installed, ``module:factory`` for a callable that returns a network, importable from
            the working directory or ``PYTHONPATH``, or a module.
        layer: name of the module whose output is explained; None finds the last feature maps before the classifier.
        weights: a ``.safetensors`` file, a checkpoint that loads with ``weights_only=True``, for ``vgg16`` Keras' own file (its
            ending is ``.h5``), or ``random``. None means what the factory or module holds, for ``mini`` the weights that ship
            with the package, and for a torchvision name the published weights where torchvision's own cache already holds
            them. A torchvision network gets as many classes as the head in the file has.
        seed: of the random weights.
        classes: their names in the order of the logits, or a text file with one a line; None takes those that the network
            or its checkpoint knows, ImageNet's for 1,000 classes, and else numbers.
        resize, crop, mean, std, interpolation, fit: of :class:`Preprocessing`, in the place of the network's own, which is
            that of the published weights in the file (known by their hash) or of timm's ``pretrained_cfg``, and else assumed.
        precision: of the network's own arithmetic.
        layout, output: as in :func:`gradcampp.networks.capture.capture`.
        score: what the outputs mean: logits of classes that exclude each other (``softmax``), of a yes or no each (``sigmoid``:
            multi-label and binary networks), or a quantity that is explained itself (``logit``: regression).

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    name = model if isinstance(model, str) else type(model).__name__
    embedded, of_timm = model == "mini", name.startswith(TIMM)
    own = not isinstance(model, str) or ":" in model
    published: list[WeightsEnum] | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module
        if embedded:
            module = mini.load() if weights is None else mini.MiniVGG()
        elif own:
            module = model if isinstance(model, nn.Module) else _from_factory(name)
        elif of_timm:
            module = _from_timm(name.removeprefix(TIMM))
        elif name == lite0.NAME:
            module = lite0.EfficientNetLite0()
        else:
            module, published = _from_torchvision(name)
    file, told, of_keras = None, None, False
    module = unwrap(module)
    if weights == RANDOM:
        identity = f"random (seed {seed})"
    elif weights is None and (embedded or own):
        identity = mini.SHA256 if embedded else f"from the factory, {_state_hash(module)}"
    else:
        if weights is None and of_timm:
            raise InputError(f"no weights for {name}: pass --weights FILE, or --weights {RANDOM}")
        file = Path(weights) if weights else lite0.weights_file() if published is None else _cached(name, published)
        of_keras = file.suffix in keras.ENDINGS
        checkpoint = keras.read(file, name) if of_keras else read(file, lite0.renamed if name == lite0.NAME else dict)
        if published is not None:
            module = _as_in_file(name, module, checkpoint)
        fill(name, module, checkpoint)
        identity, told = file_hash(file), checkpoint.classes
    module = module.float().eval()
    if of_keras:
        known = keras.PREPROCESSING
    elif published is None:
        known = {"mini": mini.PREPROCESSING, lite0.NAME: lite0.PREPROCESSING}.get(name) or of_module(module)
    else:
        sides = [each for each in published if each.transforms().crop_size[0] == getattr(module, "image_size", None)]
        known = of_weights(sides or published, *((file.name, identity) if file else ()))
        if file and getattr(module, "transform_input", None) is False:  # as the weights of torchvision's Inception expect it
            module.transform_input = True  # type: ignore[assignment]
            if known.origin.startswith("assumed"):
                warnings.warn(f"{name} transforms its input, as torchvision's weights expect: assumed", Notice, stacklevel=2)
    means, stds = mean and tuple(mean), std and tuple(std)
    preprocessing = chosen(known, resize=resize, crop=crop, mean=means, std=stds, interpolation=interpolation, fit=fit)
    blank = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    noise = torch.randn(2, *blank.shape[1:], generator=torch.Generator().manual_seed(0))
    outputs = forward(module, noise, output)
    if assumed := scores.check(outputs, score, partial(scores.last_operation, module, noise)):
        warnings.warn(assumed, Notice, stacklevel=2)
    count = outputs.shape[1]
    if isinstance(classes, Path):
        names = from_file(classes)
    elif classes or embedded:
        names = named(list(classes or CLASSES))
    else:
        names = _of_checkpoint(told, count) or numbered(count)
    if len(names) != count:
        raise InputError(f"{classes} has {len(names)} names, and the network {count} classes; expected one name a class")
    memory_format = torch.channels_last
    try:
        again = forward(module, noise[:1].contiguous(memory_format=memory_format), output)
    except InputError:  # it reshapes its maps in a way that needs them contiguous
        memory_format = torch.contiguous_format
        again = forward(module, noise[:1], output)
    if not (again - outputs[:1]).norm() <= CHANCE * outputs.norm() and outputs.isfinite().all():
        said = "gives one image other numbers at each call, or beside other images (dropout, noise, batch statistics)"
        warnings.warn(f"WARNING: the network {said}, also in evaluation mode: so will its maps be", Notice, stacklevel=2)
    given = parse(layout) if layout is not None else None
    layer = layer or default_layer(module, blank, output, given)
    network = Network(module, layer, preprocessing, names, name, identity, memory_format, precision, given, output, score)
    captured = network.capture(blank, torch.tensor([0]))  # a layer that cannot be explained fails now
    return replace(network, layout=captured.layout)


def _from_torchvision(name: str) -> tuple[nn.Module, list[WeightsEnum]]:
    known = torchvision_models.list_models(torchvision_models)  # classifiers: the others load parts from the internet
    if name.lower() not in known:
        near = listed(get_close_matches(name.lower(), known, n=5, cutoff=0.4), 5) or "none"
        raise InputError(
            f"unknown model '{name}': expected mini, {lite0.NAME}, a torchvision name (nearest: {near}), {TIMM}NAME or "
            "module:factory for your own network"
        )
    return torchvision_models.get_model(name, weights=None), list(torchvision_models.get_model_weights(name))


def _from_timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f"--model {TIMM}{name}: timm is not installed; pip install timm") from None
    if not timm.is_model(name):
        near = listed(get_close_matches(name, timm.list_models(), n=5, cutoff=0.4), 5) or "none"
        raise InputError(f"unknown model '{TIMM}{name}': timm has no such network (nearest: {near})")
    module: nn.Module = timm.create_model(name, pretrained=False)
    return module


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


def _cached(name: str, published: list[WeightsEnum]) -> Path:
    """The first of the published weights that torchvision's own cache holds, verified by the hash in their name."""
    folder = Path(str(torch.hub.get_dir())) / "checkpoints"
    paths = [folder / str(each.url).rsplit("/", 1)[-1] for each in published]
    if not paths:
        raise InputError(f"no weights for {name}: pass --weights FILE, or --weights {RANDOM}")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(
            f"no weights for {name}: pass --weights FILE (.safetensors or .pth), or put {paths[0].name} into {folder}; "
            f"--weights {RANDOM} takes random ones"
        )
    prefix = path.stem.rsplit("-", 1)[-1]
    if not file_hash(path).startswith(prefix):
        raise InputError(f"weights {path} are damaged: expected a SHA-256 that starts with {prefix}, got {file_hash(path)}")
    return path


def _as_in_file(name: str, module: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """A torchvision network with as many classes, and as many patches, as the one in a file."""
    options = {}
    if isinstance(module, VisionTransformer):
        found = [state[key] for state in checkpoint.states.values() for key in state if key.endswith("encoder.pos_embedding")]
        for embedding in found[:1]:  # (1, 1 + patches, channels)
            options["image_size"] = math.isqrt(embedding.shape[1] - 1) * int(str(module.patch_size))
            module = torchvision_models.get_model(name, weights=None, **options)
    count = classes_of_head(module, checkpoint)
    return module if count is None else torchvision_models.get_model(name, weights=None, num_classes=count, **options)


def _of_checkpoint(names: tuple[str, ...] | None, count: int) -> Classes | None:
    """The class names that a checkpoint brings, where they are as many as the logits and all different."""
    if names is None:
        return None
    if len(names) == count:
        with contextlib.suppress(InputError):
            return named(list(names))
    warnings.warn(f"the checkpoint's {len(names)} class names are not {count} different ones: left out", Notice, stacklevel=2)
    return None


def _state_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
