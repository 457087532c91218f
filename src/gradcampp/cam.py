"""Class activation maps, from gradients to explanation maps (paper, eqs 1-4, 9, 12, 13, 15).

Tensors in, tensors out, of any floating dtype, any device and any batch: nothing here knows a network or adds an epsilon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Method = Literal["gradcam", "gradcam+", "gradcam++"]
Scores = Literal["pre", "post"]

METHODS: tuple[Method, ...] = get_args(Method)
SCORES: tuple[Scores, ...] = get_args(Scores)
POWER_STEPS = 40  # of match_heat, at most: about eight are needed
POWER_TOLERANCE = 1e-6  # relative, of the mean heat


def column(scores: Scores, method: Method) -> str:
    """The name of a map in records and tables: ``pre_gradcam_plusplus``."""
    return f"{scores}_{method.replace('++', '_plusplus').replace('+', '_plus')}"


MAPS: tuple[tuple[Scores, Method], ...] = tuple((scores, method) for scores in SCORES for method in METHODS)
COLUMNS: tuple[str, ...] = tuple(column(scores, method) for scores, method in MAPS)


def check_shapes(activations: Tensor, gradients: Tensor) -> None:
    """Refuse feature maps and gradients, by a ValueError, that are not four-dimensional or of different shapes."""
    expected = "expected activations and gradients of one shape (B, K, H, W)"
    _expect(lambda: activations.ndim == 4 and activations.shape == gradients.shape, expected, activations, gradients)


def activation_sums(activations: Tensor) -> Tensor:
    """The sum s_k of each feature map (B, K, H, W) over its units, (B, K, 1, 1), same dtype and device.

    Raises:
        ValueError: if the shape is not four-dimensional.

    Source: the bracket of Lerma & Lucas (2022), eq. 5.
    """
    _expect(lambda: activations.ndim == 4, "activations: expected (B, K, H, W)", activations)
    return activations.sum((2, 3), keepdim=True)  # (B, K, 1, 1)


def alphas(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """Importance of every unit in Grad-CAM++: ``1 / (2 + lam * s * g)``, and 0 where g is 0.

    Near ``lam * s * g = -2`` they are unbounded (section 3.4), and at the pole itself infinite: nothing is clipped.

    Args:
        activations: feature maps after the layer's ReLU, (B, K, H, W).
        gradients: derivative of the class score with respect to them, same shape.
        lam: the constant of eq. 12; 1 is Grad-CAM++ as published.

    Returns:
        (B, K, H, W), same dtype and device.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional.

    Source: Lerma & Lucas (2022), eq. 13 (lam = 1) and eq. 12 reduced in the same way.
    """
    check_shapes(activations, gradients)
    denominators = 2 + lam * activation_sums(activations) * gradients  # (B, K, H, W)
    return torch.where(gradients != 0, 1 / denominators, 0)


def alphas_unreduced(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """The alphas as Grad-CAM++ published them: ``g^2 / (2 g^2 + lam * s * g^3)``, and 0 where g is 0.

    Equal to :func:`alphas`, whose arguments, value and errors it has, in exact arithmetic. In floating point the powers
    under- and overflow first, and the quotient is then NaN: section 3.2 of the paper, made visible.

    Source: Lerma & Lucas (2022), eq. 9 (lam = 1) and eq. 12.
    """
    check_shapes(activations, gradients)
    squares = gradients**2
    denominators = 2 * squares + lam * activation_sums(activations) * gradients**3
    return torch.where(gradients != 0, squares / denominators, 0)


def weights(method: Method, activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """Channel weights of a class activation map.

    Grad-CAM++ is summed as ``g / (2 + lam * s * g)`` over the units with positive gradient, which is
    alpha times ReLU(g) without ever forming infinity times zero.

    Args:
        method: ``gradcam`` (eq. 1), ``gradcam+`` (eq. 3) or ``gradcam++`` (eq. 4).
        activations: feature maps after the layer's ReLU, (B, K, H, W).
        gradients: derivative of the class score with respect to them, same shape.
        lam: the constant of eq. 12; 1 is Grad-CAM++ as published. Ignored by the other methods.

    Returns:
        (B, K), same dtype and device.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional, or the method is unknown.

    Source: Lerma & Lucas (2022), eqs 1, 3, 4 and 12.
    """
    check_shapes(activations, gradients)
    match method:
        case "gradcam":
            return gradients.mean((2, 3))  # (B, K)
        case "gradcam+":
            return gradients.relu().mean((2, 3))  # (B, K)
        case "gradcam++":
            denominators = 2 + lam * activation_sums(activations) * gradients
            return torch.where(gradients > 0, gradients / denominators, 0).sum((2, 3))  # (B, K)
    raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")


def heatmap(weights: Tensor, activations: Tensor) -> Tensor:
    """The coarse heatmap: ReLU of the feature maps combined by their channel weights.

    Args:
        weights: (B, K).
        activations: feature maps, (B, K, H, W).

    Returns:
        (B, H, W), same dtype and device.

    Raises:
        ValueError: if the weights do not belong to the feature maps.

    Source: Lerma & Lucas (2022), eq. 2.
    """
    expected = "expected weights (B, K) and activations (B, K, H, W)"
    _expect(lambda: activations.ndim == 4 and weights.shape == activations.shape[:2], expected, weights, activations)
    return torch.einsum("bk,bkhw->bhw", weights, activations).relu()


def min_max(heatmaps: Tensor) -> Tensor:
    """Each map stretched to [0, 1]; a constant map has no such stretching and becomes zeros.

    Args:
        heatmaps: (..., H, W). A map that is not finite has no min-max either, and holds NaN afterwards.

    Returns:
        Same shape, dtype and device.

    Raises:
        ValueError: if there are fewer than two dimensions.

    Source: the normalisation that Lerma & Lucas (2022) put before eq. 15.
    """
    _expect(lambda: heatmaps.ndim >= 2, "heatmaps: expected (..., H, W)", heatmaps)
    low, high = heatmaps.amin((-2, -1), True), heatmaps.amax((-2, -1), True)
    constant = (high == low) & high.isfinite()
    return torch.where(constant, 0, (heatmaps - low) / (high - low))


def upsample(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear enlargement to the size of the image (``align_corners=False``).

    Args:
        heatmaps: (N, H, W).
        size: height and width of the image, in pixels.

    Returns:
        (N, h, w), same dtype and device.

    Raises:
        ValueError: if the maps are not three-dimensional.

    Source: Lerma & Lucas (2022), section 2.1.1.
    """
    _expect(lambda: heatmaps.ndim == 3, "heatmaps: expected (N, H, W)", heatmaps)
    return functional.interpolate(heatmaps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def match_heat(heatmaps: Tensor, mean_heat: Tensor) -> Tensor:
    """Each map raised to the power at which its mean is the one asked for: pixels keep their order, only the warmth changes.

    Args:
        heatmaps: in [0, 1], (N, h, w).
        mean_heat: the means asked for, (N,).

    Returns:
        (N, h, w); NaN where no power gives the mean: up to the share of the pixels that are 1, and from that of those over 0.

    Raises:
        ValueError: if the maps are not three-dimensional, or there are not as many means as maps.

    Source: ours; the control of eq. 16 for warmth.
    """
    expected = "expected heatmaps (N, h, w) and mean heats (N,)"
    _expect(lambda: heatmaps.ndim == 3 and mean_heat.shape == heatmaps.shape[:1], expected, heatmaps, mean_heat)
    logs, wanted = heatmaps.double().log(), mean_heat.double()  # -inf where a map is 0, and 0 there to any power
    slopes = logs.where(logs.isfinite(), 0)
    powers, hot = torch.zeros_like(wanted), heatmaps > 0
    for _ in range(POWER_STEPS):  # Newton's on the logarithm of the mean, which is convex in the power: no step goes too far
        raised = (powers[:, None, None] * slopes).exp() * hot
        mean = raised.mean((1, 2))
        found = (mean / wanted - 1).abs() < POWER_TOLERANCE
        if found.all():
            break
        powers = powers - (mean.log() - wanted.log()) * mean / (raised * slopes).mean((1, 2))
    return raised.where((found & (powers > 0))[:, None, None], torch.nan).to(heatmaps.dtype)


def explanation_map(heatmaps: Tensor, pixels: Tensor) -> Tensor:
    """The image with the areas that contribute least to the score darkened.

    Args:
        heatmaps: min-max normalised and upsampled, (N, h, w).
        pixels: the images before the network's own normalisation, in [0, 1], (N, 3, h, w).

    Returns:
        (N, 3, h, w).

    Raises:
        ValueError: if the shapes do not belong together.

    Source: Lerma & Lucas (2022), eq. 15.
    """
    expected = "expected heatmaps (N, h, w) and pixels (N, 3, h, w)"
    _expect(lambda: pixels.ndim == 4 and heatmaps.shape == pixels[:, 0].shape, expected, heatmaps, pixels)
    return heatmaps[:, None] * pixels


def _expect(fit: Callable[[], bool], expected: str, *given: object) -> None:
    """A ValueError that says what was expected and what came, unless these are floating tensors on one device that fit."""
    tensors = [one for one in given if isinstance(one, Tensor) and one.is_floating_point()]
    if len(tensors) < len(given):
        kinds = [str(one.dtype) if isinstance(one, Tensor) else type(one).__name__ for one in given]
        raise ValueError(f"{expected}, in tensors of floating point; got {' and '.join(kinds)}")
    if len({tensor.device for tensor in tensors}) > 1:
        raise ValueError(f"{expected}, on one device; got {' and '.join(str(tensor.device) for tensor in tensors)}")
    if not fit():
        raise ValueError(f"{expected}, got {' and '.join(str(tuple(tensor.shape)) for tensor in tensors)}")
