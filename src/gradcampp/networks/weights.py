"""Weights from a file into a network: wrappers and prefixes that training scripts add come off, where one way fits."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradcampp.errors import InputError, Notice, listed

States = dict[str, Tensor]
# Wrap a module or a part of it, and never name one: torch.compile, FSDP, checkpoints of activations.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
UNUSED = ("AuxLogits.", "aux1.", "aux2.")  # heads of Inception and GoogLeNet that only their training asks
NAMES = ("classes", "class_names", "class_to_idx", "idx_to_class", "id2label")
_NUMPY: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
_KINDS = {type(np.dtype(code)) for code in "?bhilBHILefd"}
# What scripts keep beside the tensors, and what runs no code: options, paths, NumPy's numbers (also as NumPy 1 called them).
HARMLESS: list[Any] = [argparse.Namespace, PosixPath, np.ndarray, np.dtype, *_NUMPY, *_KINDS]
HARMLESS += [(each, f"numpy.core.multiarray.{each.__name__}") for each in _NUMPY]


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file of weights.

    Attributes:
        path: the file.
        states: tensors by key, and these by where they are: ``""`` for the file itself, ``state_dict``, ``ema.model``.
        classes: names of the classes in the order of the logits, where the file has them.
    """

    path: Path
    states: dict[str, States]
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Way:
    """One way to make the keys of a file those of a network, and what is wrong with it; ``off`` are tensors of something else."""

    where: str
    tensors: States
    off: list[str]
    lacks: list[str]
    unknown: list[str]
    shapes: dict[str, tuple[Tensor, Tensor]]

    @property
    def faults(self) -> int:
        return len(self.lacks) + len(self.unknown) + len(self.shapes)


def read(path: Path, rename: Callable[[States], States] = dict) -> Checkpoint:
    """The tensors of a ``.safetensors`` file or of a checkpoint, and the names of its classes.

    Raises:
        InputError: if the file is missing or damaged, or needs code of its own to be read.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, {"": rename(load_file(path))})
        with torch.serialization.safe_globals(HARMLESS):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load meets damaged files with anything from KeyError to AssertionError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if "weights only" in reason.lower().replace("_", " "):  # of which torch says in many words how to run its code
            reason = "it is no checkpoint, or holds code (a whole module, TorchScript)"
        expected = "expected a .safetensors file or a checkpoint of tensors only, as of torch.save(network.state_dict(), FILE)"
        raise InputError(f"cannot read weights {path}: {reason}; {expected}") from None
    states = {where: rename(tensors) for where, tensors in _states(content)}
    if not states:
        raise InputError(f"weights {path}: expected a state dictionary of tensors, got {type(content).__name__}")
    return Checkpoint(path, states, _names(content))


def _states(content: object, where: str = "", depth: int = 3) -> Iterator[tuple[str, States]]:
    """Every mapping from keys to tensors in what a file holds, and where it is."""
    if not isinstance(content, Mapping):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield where, {".".join(part for part in key.split(".") if part not in WRAPPERS): each for key, each in tensors.items()}
    for key, value in content.items() if depth else ():
        yield from _states(value, f"{where}.{key}".removeprefix("."), depth - 1)


def _names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of classes in a checkpoint, or among the options that it keeps."""
    for place in (content, *(value for value in content.values() if isinstance(value, Mapping))):
        for key in NAMES:
            value = place.get(key)
            if isinstance(value, Mapping) and value:
                by_index = {index: name for name, index in value.items()} if isinstance(next(iter(value)), str) else dict(value)
                if not all(isinstance(index, int) for index in by_index):
                    by_index = {int(index): name for index, name in value.items() if str(index).isdigit()}  # of JSON
                value = [by_index.get(index) for index in range(len(by_index))]
            if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
                return tuple(value)
    return None


def fill(name: str, module: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the weights of a file into the network, all of them.

    Keys may stand in any dictionary of the file and behind any prefix, such as ``model.``; tensors that are not behind the
    prefix, such as those of a loss, stay out, and a notice says so.

    Raises:
        InputError: if the keys or shapes do not fit, or fit in two ways; the line names them.
    """
    ways = _ways(module, checkpoint)
    good = [way for way in ways if not way.faults]
    others = [way for way in good[1:] if any(not _same(each, good[0].tensors[key]) for key, each in way.tensors.items())]
    if others:
        names = [way.where or "its top" for way in (good[0], *others)]
        told = f"hold {name} more than once, as {listed(names, 5)}; save the one you mean in a file of its own"
        raise InputError(f"weights {checkpoint.path} {told}")
    best = good[0] if good else ways[0]
    known = module.state_dict()
    whole = [key for key, value in best.tensors.items() if known[key].is_floating_point() and not value.is_floating_point()]
    wrong = {
        "lacks": best.lacks,
        "has unknown": best.unknown,
        "is of a quantised network, with whole numbers in": whole,
        "has": [f"{key} {(*given.shape,)} instead of {(*right.shape,)}" for key, (given, right) in best.shapes.items()],
    }
    for says, keys in wrong.items():
        if keys:
            raise InputError(f"weights {checkpoint.path} do not fit {name}: the file {says} {listed(keys)}")
    if best.off:
        warnings.warn(f"weights {checkpoint.path}: left out {listed(best.off)}, which are not of {name}", Notice, stacklevel=2)
    module.load_state_dict(best.tensors, strict=False)  # keys are checked above


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)  # NaN is not equal to itself


def classes_of_head(module: nn.Module, checkpoint: Checkpoint) -> int | None:
    """The number of classes of a file that differs from the network in nothing but that, or None."""
    best = _ways(module, checkpoint)[0]
    counts = {given.shape[:1] for given, _ in best.shapes.values()}
    same = all(given.shape[1:] == right.shape[1:] for given, right in best.shapes.values())
    return counts.pop()[0] if len(counts) == 1 and same and not best.lacks and not best.unknown else None


def _ways(module: nn.Module, checkpoint: Checkpoint) -> list[_Way]:
    """Ways to make the keys of a file those of a network, the best first."""
    expected = module.state_dict()
    found = []
    for where, tensors in checkpoint.states.items():
        less = Counter(key[: len(key) - len(end)] for key in tensors for end in _ends(key) if end in expected)
        more = Counter(key[: len(key) - len(end)] for key in expected for end in _ends(key) if end in tensors)
        for prefix in {"": 0} | dict(less.most_common(5)):
            found.append(_way(expected, f"{where}.{prefix}".strip("."), tensors, prefix))
        for prefix in [prefix for prefix, _ in more.most_common(3) if prefix]:
            found.append(_way(expected, where, {prefix + key: value for key, value in tensors.items()}, ""))
    return sorted(found, key=lambda way: way.faults)


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _way(expected: Mapping[str, Tensor], where: str, tensors: States, prefix: str) -> _Way:
    """The tensors without a prefix; those that do not have it count where the network wants them, and are off else."""
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    outside = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    renamed = {key: value for key, value in outside.items() if key in expected} | inside
    absent = [key for key in expected if key not in renamed]
    unused = [head for head in UNUSED if not any(key.startswith(head) for key in renamed)]
    return _Way(
        where,
        {key: value for key, value in renamed.items() if key in expected},
        [key for key in outside if key not in expected],
        [key for key in absent if not key.endswith("num_batches_tracked") and not key.startswith(tuple(unused))],
        [key for key in inside if key not in expected],
        {key: (value, expected[key]) for key, value in renamed.items() if key in expected and value.shape != expected[key].shape},
    )
