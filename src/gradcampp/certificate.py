"""Bounds on the distance of Grad-CAM++ from Grad-CAM+: shrinkage, sandwich, and a certificate for each image.

Everything here needs feature maps without negative values, as a layer has after its ReLU. Grad-CAM++ is
compared with the multiple of Grad-CAM+ whose weights are half the sum of the positive gradients, which has
the same min-max map as Grad-CAM+.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcampp import cam


def shrinkage(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The share by which each Grad-CAM++ weight falls short of half the sum of the positive gradients.

    ``delta_k = 1 - w_k / (sum r / 2)`` with r = ReLU(g), in the form that cancels nothing: the mean of
    t / (2 + t), weighted by r, with t = lam * s_k * r. A channel without positive gradient has no weight in either
    map; its share is 0.

    Args:
        activations: feature maps after the layer's ReLU, (B, K, H, W), none negative.
        gradients: derivative of the class score with respect to them, same shape.
        lam: the constant of eq. 12, not negative; 1 is Grad-CAM++ as published.

    Returns:
        (B, K), from 0 to 1, same dtype and device.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional, or an activation or lam is negative.

    Source: ours; it makes the "approximately" of Lerma & Lucas (2022), eq. 14, exact.
    """
    positive = _positive_gradients(activations, gradients, lam)  # (B, K, H, W)
    terms = lam * cam.activation_sums(activations) * positive
    total = positive.sum((2, 3))  # (B, K)
    return torch.where(total > 0, (positive * (terms / (2 + terms))).sum((2, 3)) / total, 0)


def sandwich(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Two multiples of the Grad-CAM+ map between which the Grad-CAM++ map lies at every pixel.

    Arguments, (B, K, H, W) both tensors, and errors are those of :func:`shrinkage`.

    Returns:
        ``(1 - max delta) * map`` and ``(1 - min delta) * map``, (B, H, W) each, where the extremes run over the
        channels that have a positive gradient and an activation.

    Source: ours; theorem 3 of the companion.
    """
    positive = _positive_gradients(activations, gradients, lam)
    kept = cam.weights("gradcam++", activations, gradients, lam) / (positive.sum((2, 3)) / 2)  # (B, K), 1 - delta
    heats = _heats(activations, gradients)  # (B, K, H, W)
    low, high = _extremes(kept, heats.amax((2, 3)))
    middle = heats.sum(1)  # (B, H, W)
    return low[:, None, None] * middle, high[:, None, None] * middle


def bound(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The largest possible difference of the min-max maps of Grad-CAM++ and Grad-CAM+ at any pixel.

    The smaller of two bounds, both proved in the book. *Sandwich*: with m and M the extremes of the Grad-CAM+
    map, ``(max delta - min delta) / (1 - min delta) * M / (M - m)``. *Leftovers*: shrink Grad-CAM+ by any one d; then
    Grad-CAM++ differs by a map of the channels that shrink less, and one of those that shrink more, and the bound is
    the range of the one plus the range of the other, over ``(1 - d) * (M - m)``. Bilinear upsampling keeps both.

    It speaks of the exact maps: where the Grad-CAM+ map is constant but for rounding, its min-max map is that rounding.

    Arguments, (B, K, H, W) both tensors, and errors are those of :func:`shrinkage`.

    Returns:
        (B,), from 0 (certainly the same map) to 1 (nothing is guaranteed), same dtype and device.

    Source: ours; theorem 3 of the companion.
    """
    deltas = shrinkage(activations, gradients, lam)  # (B, K)
    heats = _heats(activations, gradients)  # (B, K, H, W)
    middle = heats.sum(1)  # (B, H, W)
    largest = middle.amax((1, 2))  # (B,)
    spread = _range(middle)
    low, high = _extremes(deltas, heats.amax((2, 3)))
    sandwiched = (high - low) / (1 - low) * largest / spread
    shift = _shift(deltas, _range(heats))[:, None]  # (B, 1)
    leftovers = sum(_range(torch.einsum("bk,bkhw->bhw", (sign * (deltas - shift)).clamp_min(0), heats)) for sign in (-1, 1))
    bound = torch.fmin(torch.fmin(sandwiched, leftovers / (1 - shift[:, 0]) / spread), torch.ones_like(spread))
    return torch.where(spread > 0, bound, torch.where(largest > 0, 1, 0))  # a map of zeros is one for both methods


def _positive_gradients(activations: Tensor, gradients: Tensor, lam: float) -> Tensor:
    if not 0 <= lam < torch.inf:
        raise ValueError(f"lam: expected a number from 0 up, got {lam}")
    cam.check_shapes(activations, gradients)
    if (activations < 0).any():
        raise ValueError("activations: expected none below 0, as after a ReLU; no bound holds for the others")
    return gradients.relu()


def _heats(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel's part in the map of Grad-CAM+ (times Z / 2), (B, K, H, W)."""
    return gradients.relu().sum((2, 3), keepdim=True) / 2 * activations


def _extremes(shares: Tensor, heats: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest share of the channels that add something to the map, (B,) each; 0 where none does."""
    low = torch.where(heats > 0, shares, torch.inf).amin(1)
    high = torch.where(heats > 0, shares, -torch.inf).amax(1)
    return torch.where(low.isfinite(), low, 0), torch.where(high.isfinite(), high, 0)


def _range(maps: Tensor) -> Tensor:
    """Largest minus smallest pixel of each map, (...)."""
    return maps.amax((-2, -1)) - maps.amin((-2, -1))


def _shift(deltas: Tensor, ranges: Tensor) -> Tensor:
    """The d for which sum_k |delta_k - d| * ranges_k / (1 - d) is least, (B,); any d below 1 gives a valid bound.

    Between two neighbouring deltas the sum is a quotient of linear functions, so it is least at one of them.
    """
    ordered, order = deltas.sort(1)  # (B, K)
    sizes = ranges.gather(1, order)
    below, below_moments = sizes.cumsum(1), (sizes * ordered).cumsum(1)
    above, above_moments = below[:, -1:] - below, below_moments[:, -1:] - below_moments
    sums = ordered * below - below_moments + above_moments - ordered * above
    least = torch.where(ordered < 1, sums / (1 - ordered), torch.inf).argmin(1, keepdim=True)
    return ordered.gather(1, least)[:, 0]
