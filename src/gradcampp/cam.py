"""Class activation maps: alphas, channel weights and heatmaps (paper, eqs 1-4, 9, 12, 13).

Tensors in, tensors out: nothing here knows a network. Every function takes any floating dtype, any
device and any batch, and no function adds an epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcampp.config import METHODS, Method


def activation_sums(activations: Tensor) -> Tensor:
    """The sum s_k of each feature map over its units.

    Args:
        activations: feature maps, (B, K, H, W).

    Returns:
        (B, K, 1, 1), same dtype and device.

    Raises:
        ValueError: if the shape is not four-dimensional.

    Source: the bracket of Lerma & Lucas (2022), eq. 5.
    """
    if activations.ndim != 4:
        raise ValueError(f"activations: expected (B, K, H, W), got {tuple(activations.shape)}")
    return activations.sum((2, 3), keepdim=True)  # (B, K, 1, 1)


def alphas(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    """Importance of every unit in Grad-CAM++: ``1 / (2 + lam * s * g)``, and 0 where g is 0.

    Near ``lam * s * g = -2`` the values are as unbounded as the paper's section 3.4 says, and at the
    pole itself they are infinite: nothing is clipped.

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

    Equal to :func:`alphas` in exact arithmetic. In floating point the powers under- and overflow
    first, and the quotient is then NaN: section 3.2 of the paper, made visible.

    Args:
        activations: feature maps after the layer's ReLU, (B, K, H, W).
        gradients: derivative of the class score with respect to them, same shape.
        lam: the constant of eq. 12; 1 gives eq. 9.

    Returns:
        (B, K, H, W), same dtype and device.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional.

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
    if activations.ndim != 4 or weights.shape != activations.shape[:2]:
        raise ValueError(
            f"expected weights (B, K) and activations (B, K, H, W), got {tuple(weights.shape)} and {tuple(activations.shape)}"
        )
    return torch.einsum("bk,bkhw->bhw", weights, activations).relu()


def check_shapes(activations: Tensor, gradients: Tensor) -> None:
    """See to it that feature maps and gradients belong together.

    Raises:
        ValueError: if the shapes differ or are not four-dimensional.
    """
    if activations.ndim != 4 or activations.shape != gradients.shape:
        raise ValueError(
            f"expected activations and gradients of one shape (B, K, H, W), "
            f"got {tuple(activations.shape)} and {tuple(gradients.shape)}"
        )
