"""From a coarse heatmap to the picture that the network is asked about again (paper, eq. 15)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    if heatmaps.ndim < 2:
        raise ValueError(f"heatmaps: expected (..., H, W), got {tuple(heatmaps.shape)}")
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
    if heatmaps.ndim != 3:
        raise ValueError(f"heatmaps: expected (N, H, W), got {tuple(heatmaps.shape)}")
    return functional.interpolate(heatmaps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def explanation_maps(heatmaps: Tensor, pixels: Tensor) -> Tensor:
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
    if heatmaps.ndim != 3 or pixels.ndim != 4 or heatmaps.shape != pixels[:, 0].shape:
        raise ValueError(
            f"expected heatmaps (N, h, w) and pixels (N, 3, h, w), got {tuple(heatmaps.shape)} and {tuple(pixels.shape)}"
        )
    return heatmaps[:, None] * pixels
