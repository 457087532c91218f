"""Devices without float64 (Apple's mps): the network runs there, and everything else on the CPU.

No such device is needed. A stand-in, called ``meta`` because torch knows that name on every machine, computes on the CPU and
fails where a number of 64 bits is made on it, or where it is handed a tensor of another device.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gradcampp.errors import InputError
from gradcampp.evaluation import maps, run
from gradcampp.evaluation.arrays import save_arrays
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.run import Execution
from gradcampp.networks import probe, running
from tests.conftest import photograph
from tests.networks import scored
from tests.test_evaluate import network

DEVICE = "meta"


class OnDevice(Tensor):
    """A tensor on the stand-in device; its numbers are in ``held``, on the CPU."""

    held: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            dtype=held.dtype,
            device=torch.device(DEVICE),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        return computed(function, arguments, named or {})


def computed(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((arguments, named)) if isinstance(each, Tensor)]
    on = any(isinstance(each, OnDevice) for each in tensors)
    if on and any(not isinstance(each, OnDevice) and each.ndim for each in tensors) and "copy_" not in str(function):
        raise RuntimeError(f"{function}: expected all tensors on one device")
    if named.get("device") is not None:
        on = torch.device(named["device"]).type == DEVICE
        named = {**named, "device": torch.device("cpu")}
    arguments, named = tree_map(lambda each: each.held if isinstance(each, OnDevice) else each, (arguments, named))
    return tree_map(lambda each: OnDevice(each) if on and isinstance(each, Tensor) else each, function(*arguments, **named))


class StandIn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        return computed(function, arguments, named or {})


class Factories(TorchFunctionMode):
    """``torch.tensor(..., device=...)`` reaches no dispatch mode."""

    def __torch_function__(self, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = dict(named or {})
        if function not in (torch.tensor, torch.as_tensor) or torch.device(named.get("device") or "cpu").type != DEVICE:
            return function(*arguments, **named)
        return function(*arguments, **named | {"device": "cpu"}).to(DEVICE)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for module in (running, probe, run):
        monkeypatch.setattr(module, "WITHOUT_FLOAT64", (DEVICE,))
    autocast = torch.autocast
    there = lambda kind, **options: contextlib.nullcontext() if kind == DEVICE else autocast(kind, **options)  # noqa: E731
    monkeypatch.setattr(torch, "autocast", there)
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    with StandIn(), Factories():  # type: ignore[no-untyped-call]
        yield DEVICE


def test_the_stand_in_refuses_what_the_device_refuses(device: str) -> None:
    there = torch.ones(2).to(device)
    assert there.device.type == device
    assert (there + there).cpu().double().tolist() == [2, 2]
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises(RuntimeError, match="one device"):
        there + torch.ones(2)


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "logit"])
def test_a_run_without_float64_is_that_of_the_cpu(folder: Callable[..., Path], tmp_path: Path, device: str, score: Any) -> None:
    data, found = folder(2), []
    for place in ("cpu", device):
        own = replace(network(), score=score)
        experiment = experiment_of(own, controls=True)
        done = run.evaluate(own, list_photographs(data, own.classes), data, tmp_path / place, experiment, Execution(4, 0, place))
        assert next(own.module.parameters()).device.type == place
        found.append(done.records.select_dtypes("number").to_numpy(float))
    assert np.isfinite(found[0]).any(0).sum() > 20
    np.testing.assert_array_equal(found[1], found[0])


def test_explanations_and_arrays_without_float64_are_those_of_the_cpu(tmp_path: Path, device: str) -> None:
    own, found = network(), []
    photograph(0).save(tmp_path / "a.png")
    for place in ("cpu", device):
        probe.move(own, place)
        rows = maps.explain(own, read_photograph(tmp_path / "a.png", own.preprocessing), [1, 2], "post")
        file = save_arrays(tmp_path / f"{place}.npz", own, [tmp_path / "a.png"] * 2, rows)
        found.append((rows, dict(np.load(file))))
    for here, there in zip(found[0][0], found[1][0], strict=True):
        assert all(torch.equal(heat, there.maps[method]) for method, heat in here.maps.items())
        assert torch.equal(here.probabilities, there.probabilities)
    evidence = [json.loads(str(arrays.pop("evidence"))) for _, arrays in found]
    assert [each.pop("device") for each in evidence] == ["cpu", device]
    assert evidence[0] == evidence[1]
    assert all(np.array_equal(values, found[1][1][name]) for name, values in found[0][1].items())


class Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1.01 if x.device.type == DEVICE else x


def test_an_operation_that_is_wrong_there_is_noticed(device: str) -> None:
    own = network(nn.Sequential(scored(), Wrong()).eval())
    with pytest.raises(InputError, match="--device meta: an operation of the network gives other numbers there; choose cpu"):
        probe.move(replace(own, layer=f"0.{own.layer}"), device)
