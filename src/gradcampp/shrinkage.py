"""How Grad-CAM++ differs from Grad-CAM+: the share that each channel keeps, the difference of the maps, and bounds for a family.

Everything here needs feature maps without negative values, as a layer has after its ReLU. Grad-CAM++ is compared with the
multiple of Grad-CAM+ whose weights are half the sum of the positive gradients, which has the same min-max map as Grad-CAM+.
Throughout, r = ReLU(g), s_k is the sum of map k, and t = lam * s_k * r.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcampp import cam


def shrinkage(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The share by which each Grad-CAM++ weight falls short of half the sum of the positive gradients.

    ``delta_k = 1 - w_k / (sum r / 2)``, in the form that cancels nothing: the mean of t / (2 + t), weighted by r. A channel
    without positive gradient has no weight in either map; its share is 0.

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
    positive, terms = _terms(activations, gradients, lam)
    return _mean(terms / (2 + terms), positive, (2, 3))


def kept(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The share of its Grad-CAM+ weight that each channel keeps, ``1 - delta_k``, (B, K); 0 without a positive gradient.

    The mean of 2 / (2 + t), weighted by r: it keeps its digits where nearly nothing is left and ``1 - delta_k`` has none.

    Arguments and errors are those of :func:`shrinkage`.

    Source: ours; theorem 3 of the companion.
    """
    positive, terms = _terms(activations, gradients, lam)
    return _mean(2 / (2 + terms), positive, (2, 3))


def effective_alpha(activations: Tensor, gradients: Tensor) -> Tensor:
    """The mean of the alphas at positive gradients, each weighted by what its unit adds to the Grad-CAM+ map, r * s_k, (B,).

    Arguments, (B, K, H, W) both, and errors are those of :func:`shrinkage`; 0 for an image to which no unit adds anything.

    Source: ours; a measure for the "alpha is about 1/2" of Lerma & Lucas (2022), section 3.3.
    """
    _, terms = _terms(activations, gradients, 1.0)
    return _mean(1 / (2 + terms), terms, (1, 2, 3))


def unevenness(activations: Tensor, gradients: Tensor) -> Tensor:
    """How unevenly Grad-CAM++ shrinks the channels that matter: deviation of :func:`kept` over its mean, (B,).

    Each channel counts by what it adds to the Grad-CAM+ map; 0 means that both maps are the same, whatever the alphas are.

    Arguments, (B, K, H, W) both, and errors are those of :func:`shrinkage`.

    Source: ours.
    """
    _, terms = _terms(activations, gradients, 1.0)
    shares, added = kept(activations, gradients), terms.sum((2, 3))  # (B, K) both
    mean = _mean(shares, added, (1,))
    spread = _mean((shares - mean[:, None]) ** 2, added, (1,)).sqrt()
    return torch.where(mean > 0, spread / mean, 0)


def equation_6(activations: Tensor, gradients: Tensor) -> Tensor:
    """What eq. 6 asks to be 1 at the image, for Y = exp(S) and the alphas of eq. 13: the sum of t / (2 + t), (B,).

    Arguments, (B, K, H, W) both, and errors are those of :func:`shrinkage`.

    Source: Lerma & Lucas (2022), eq. 6 and section 3.1.4.
    """
    _, terms = _terms(activations, gradients, 1.0)
    return (terms / (2 + terms)).sum((1, 2, 3))


def difference(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The largest difference of the min-max maps of Grad-CAM++ and Grad-CAM+ at any unit, (B,), in float64.

    Bilinear upsampling makes it no larger. Where a map is constant but for rounding, its min-max map is that rounding.

    Args:
        activations: feature maps, (B, K, H, W); negative ones are allowed.
        gradients: derivative of the class score with respect to them, same shape.
        lam: the constant of eq. 12.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional.

    Source: ours; what section 3.3 of Lerma & Lucas (2022) calls practically the same.
    """
    exact = activations.double(), gradients.double()
    plusplus, plus = (cam.weights(method, *exact, lam) for method in ("gradcam++", "gradcam+"))
    maps = [cam.min_max(cam.heatmap(weights, exact[0])) for weights in (plusplus, plus)]
    return (maps[0] - maps[1]).abs().amax((1, 2))


def sandwich(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Two multiples of the Grad-CAM+ map between which the Grad-CAM++ map lies at every pixel.

    Arguments, (B, K, H, W) both tensors, and errors are those of :func:`shrinkage`.

    Returns:
        The map times the smallest and times the largest share of :func:`kept`, (B, H, W) each, where the extremes run over the
        channels that have a positive gradient and an activation.

    Source: ours; theorem 3 of the companion.
    """
    low, high = _extremes(kept(activations, gradients, lam), _heats(activations, gradients))
    middle = _heats(activations, gradients).sum(1)  # (B, H, W)
    return low[:, None, None] * middle, high[:, None, None] * middle


def order_factor(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """Two units whose Grad-CAM+ values differ by more than this factor have the same order in Grad-CAM++, (B,), from 1 up.

    The largest over the smallest share of :func:`kept`, among the channels that add something to the map.

    Arguments, (B, K, H, W) both tensors, and errors are those of :func:`shrinkage`.

    Source: ours; theorem 3 of the companion.
    """
    low, high = _extremes(kept(activations, gradients, lam), _heats(activations, gradients))
    return torch.where(high > 0, high / low, 1)


def bound(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The largest possible difference of the min-max maps of Grad-CAM+ and Grad-CAM++, for all constants from 0 to lam at once.

    One computation of the difference settles one constant; this settles them all, and with them every rescaling of the logits
    by a factor below 1. With m and M the extremes of the Grad-CAM+ map, the smaller of ``max delta * M / (M - m)`` and
    the largest pixel of ``sum of delta_k w_k A^k`` over ``M - m``, w_k the weights of Grad-CAM+: every delta grows with lam.

    Arguments, (B, K, H, W) both tensors, and errors are those of :func:`shrinkage`.

    Returns:
        (B,), from 0 (certainly the same map) to 1 (nothing is guaranteed), same dtype and device.

    Source: ours; theorem 3 of the companion.
    """
    deltas, heats = shrinkage(activations, gradients, lam), _heats(activations, gradients)  # (B, K), (B, K, H, W)
    middle = heats.sum(1)  # (B, H, W)
    largest = middle.amax((1, 2))
    spread = largest - middle.amin((1, 2))
    lost = torch.einsum("bk,bkhw->bhw", deltas, heats).amax((1, 2))
    bound = torch.minimum(torch.minimum(_extremes(deltas, heats)[1] * largest, lost) / spread, torch.ones_like(spread))
    return torch.where(spread > 0, bound, torch.where(largest > 0, 1, 0))  # a map of zeros is one for both methods


def _terms(activations: Tensor, gradients: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """r and t, (B, K, H, W) each."""
    if not 0 <= lam < torch.inf:
        raise ValueError(f"lam: expected a number from 0 up, got {lam}")
    cam.check_shapes(activations, gradients)
    if (activations < 0).any():
        raise ValueError("activations: expected none below 0, as after a ReLU; no bound holds for the others")
    positive = gradients.relu()
    return positive, lam * cam.activation_sums(activations) * positive


def _mean(values: Tensor, weights: Tensor, over: tuple[int, ...]) -> Tensor:
    """Weighted mean; 0 where there is no weight."""
    total = weights.sum(over)
    return torch.where(total > 0, (values * weights).sum(over) / total, 0)


def _heats(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel's part in the map of Grad-CAM+ (times Z / 2), (B, K, H, W)."""
    return gradients.relu().sum((2, 3), keepdim=True) / 2 * activations


def _extremes(shares: Tensor, heats: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest share of the channels that add something to the map, (B,) each; 0 where none does."""
    adds = heats.amax((2, 3)) > 0  # (B, K)
    low = torch.where(adds, shares, torch.inf).amin(1)
    high = torch.where(adds, shares, -torch.inf).amax(1)
    return torch.where(low.isfinite(), low, 0), torch.where(high.isfinite(), high, 0)
