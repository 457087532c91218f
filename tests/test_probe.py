"""A probe notices what a factory's name hides, and does not notice rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gradcampp.networks.load import load
from gradcampp.networks.probe import agrees, probe
from tests.networks import Scored, scored


class Changed(Scored):
    """The same weights, and something else in the code."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.load_state_dict(scored().state_dict())
        self.what = what

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images if self.what != "input" else images.flip(1))
        if self.what == "gradient":  # the same values, half the derivative
            maps = maps.detach() + 0.5 * (maps - maps.detach())
        logits: Tensor = 20 * self.classifier(maps)
        return logits[:, [1, 0, 2]] if self.what == "order" else logits * 0.99 if self.what == "temperature" else logits


def of(module: nn.Module, layer: str = "features.4") -> tuple[float, ...]:
    return probe(load(module, layer, resize=20, crop=16))


@pytest.mark.parametrize("what", ["input", "order", "temperature", "gradient"])
def test_what_the_code_changes_is_noticed(what: str) -> None:
    assert not agrees(of(Changed(what)), of(scored()))


def test_another_layer_and_other_weights_are_noticed() -> None:
    assert not agrees(of(scored(), "features.3"), of(scored()))
    torch.manual_seed(1)
    assert not agrees(of(Scored()), of(scored()))
    assert not agrees(of(scored())[:4], of(scored()))


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_rounding_is_not(name: str) -> None:
    """float64 is further from float32 than one float32 is from another."""
    network = load(name, weights="random", resize=64, crop=64)
    exact = replace(network, module=Doubled(network.module.double()), layer=f"inner.{network.layer}")
    assert agrees(probe(exact), probe(load(name, weights="random", resize=64, crop=64)))


class Doubled(nn.Module):
    """A network that computes in float64."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.double())
        return logits


def test_a_probe_is_short_finite_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(of(scored())) == 6
    assert of(scored()) == of(scored())
    monkeypatch.setattr(Scored, "forward", lambda self, images: self.classifier(self.features(images)) * torch.nan)
    assert of(scored())[:2] == (0, 0)  # so that a run names the photograph, not the probe
