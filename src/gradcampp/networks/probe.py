"""A few numbers that tell one network from another, whatever its factory is called: what it answers to a fixed picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradcampp.networks.capture import Network, computing

TOLERANCE = 1e-4  # threads, memory formats and float64 in the place of float32 moved a number by 2e-5 at most, in ten networks


def probe(network: Network) -> tuple[float, ...]:
    """What a network makes of a fixed picture: its logits, the maps of the layer, and the gradient of the first logit there.

    Of each, two weighted root mean squares: of the positive values and of the negative ones. Sums of squares cancel nothing,
    so rounding hardly moves them, and the weights differ from place to place, so an exchange of classes does.

    Args:
        network: on any device; computes in float32 whatever its precision. Values that are not finite count as 0.

    Returns:
        Six numbers of six significant digits, to be compared by :func:`agrees`.
    """
    device = next((tensor.device for tensor in network.module.state_dict().values()), torch.device("cpu"))
    height, width = network.preprocessing.size
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = [(2 + k) * rows + (3 - k) * columns for k in range(len(network.preprocessing.mean))]  # another one in each channel
    pixels = 0.5 + 0.5 * torch.sin(2 * math.pi * torch.stack(waves))
    with computing("float32", device.type):
        captured = network.capture(pixels[None].to(device), torch.zeros(1, dtype=torch.long, device=device))
    parts = (captured.logits, captured.activations, captured.gradients["pre"])
    return tuple(_size(sign * part) for part in parts for sign in (1, -1))


def agrees(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """True where two probes differ by rounding only, as on another machine: by 1e-4 of the larger of a tensor's two numbers."""
    if len(ours) != len(theirs):
        return False
    pairs = [(ours[i : i + 2], theirs[i : i + 2]) for i in range(0, len(ours), 2)]
    return all(math.dist(one, two) <= TOLERANCE * max(*one, *two) for one, two in pairs)


def _size(values: Tensor) -> float:
    """Root mean square of the positive values, each square with a weight of its own from 0 to 2; six significant digits."""
    flat = values.detach().double().cpu().flatten().nan_to_num(0, 0, 0).relu()
    weights = 1 + torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return float(f"{(weights * flat**2).mean().sqrt().item():.6g}")
