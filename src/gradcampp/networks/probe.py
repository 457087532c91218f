"""A few numbers that tell one network from another, whatever its factory is called: what it answers to a fixed picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradcampp.errors import InputError
from gradcampp.networks.capture import Capture, Network
from gradcampp.networks.running import WITHOUT_FLOAT64

TOLERANCE = 1e-4  # threads, memory formats and float64 in the place of float32 moved a number by 2e-5 at most, in ten networks
ROUNDING = 1e-3  # of a tensor's norm; a wrong operation moves all of it


def probe(network: Network) -> tuple[float, ...]:
    """The answer of a network to a fixed picture: its logits, the maps of the layer, and the gradient of the first logit there.

    Of each, two weighted root mean squares: of the positive values and of the negative ones. Sums of squares cancel nothing,
    so rounding hardly moves them, and the weights differ from place to place, so an exchange of classes does.

    Args:
        network: on any device; computes in float32 whatever its precision. Values that are not finite count as 0.

    Returns:
        Six numbers of six significant digits, to be compared by :func:`agrees`.
    """
    height, width = network.preprocessing.size
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = [(2 + k) * rows + (3 - k) * columns for k in range(len(network.preprocessing.mean))]  # another one in each channel
    pixels = 0.5 + 0.5 * torch.sin(2 * math.pi * torch.stack(waves))
    captured = replace(network, precision="float32").capture(pixels[None], torch.zeros(1, dtype=torch.long))
    parts = (captured.logits, captured.activations, captured.gradients["pre"])
    return tuple(_size(sign * part) for part in parts for sign in (1, -1))


def agrees(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """True where two probes differ by rounding only, as on another machine: by 1e-4 of the larger of a tensor's two numbers."""
    if len(ours) != len(theirs):
        return False
    pairs = [(ours[i : i + 2], theirs[i : i + 2]) for i in range(0, len(ours), 2)]
    return all(math.dist(one, two) <= TOLERANCE * max(*one, *two) for one, two in pairs)


def move(network: Network, device: str) -> None:
    """Move a network to a device; one without float64 has to compute as the CPU does, since some of its operations do not.

    Raises:
        InputError: if logits, maps or gradients of two noisy pictures differ there by more than rounding.
    """
    shape = 2, network.preprocessing.channels, *network.preprocessing.size
    pixels, labels = torch.rand(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.long)
    expected = _parts(network.capture(pixels, labels)) if device in WITHOUT_FLOAT64 else []
    network.module.to(device)
    for ours, theirs in zip(_parts(network.capture(pixels, labels)) if expected else [], expected, strict=True):
        if not (ours - theirs).norm() <= ROUNDING * theirs.norm():
            raise InputError(f"--device {device}: an operation of the network gives other numbers there; choose cpu")


def _parts(captured: Capture) -> list[Tensor]:
    return [captured.logits, captured.activations, *captured.gradients.values()]


def _size(values: Tensor) -> float:
    """Root mean square of the positive values, each square with a weight of its own from 0 to 2; six significant digits."""
    flat = values.double().flatten().nan_to_num(0, 0, 0).relu()
    weights = 1 + torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return float(f"{(weights * flat**2).mean().sqrt().item():.6g}")
