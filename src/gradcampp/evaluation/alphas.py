"""Billions of alphas in a MiB: a histogram that merges exactly (paper, Figure 4).

It counts tanh(alpha - 1/2), the scale of the paper's own histogram, in fixed bins that
are fine enough for the boxplot too, with the exact minimum and maximum beside it. Counts are integers, so
merging is associative and commutative to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A bin is 7.6e-6 wide on the tanh scale, and so on the scale of alpha around 1/2. With half as many, printed digits move.
BINS = 2**18


@dataclass(frozen=True, eq=False)
class Histogram:
    """A multiset of alphas, counted in bins.

    Attributes:
        counts: (BINS,) int64, of tanh(alpha - 1/2) in equal bins over [-1, 1].
        minimum, maximum: exact; +inf and -inf where nothing has been counted.
    """

    counts: NDArray[np.int64]
    minimum: float
    maximum: float

    @property
    def count(self) -> int:
        """Number of alphas."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Box:
    """A boxplot without its outliers: quartiles, and whiskers at most 1.5 interquartile ranges beyond."""

    low_whisker: float
    first_quartile: float
    median: float
    third_quartile: float
    high_whisker: float


EMPTY = Histogram(np.zeros(BINS, np.int64), math.inf, -math.inf)


def histogram(alphas: Tensor) -> Histogram:
    """Count a tensor of alphas.

    Args:
        alphas: any shape, any floating dtype, any device; infinities fall into the outermost bins.

    Raises:
        ValueError: if an alpha is NaN.

    Source: Lerma & Lucas (2022), Figure 4.
    """
    flat = alphas.flatten()
    if not len(flat):
        return EMPTY
    low, high = torch.stack(torch.aminmax(flat)).tolist()
    if math.isnan(low) or math.isnan(high):
        raise ValueError("alphas: expected numbers, got NaN")
    squeezed = (flat.to(torch.promote_types(flat.dtype, torch.float32)) - 0.5).tanh_()
    bins = squeezed.add_(1).mul_(BINS // 2).int().clamp_(max=BINS - 1)  # (n,)
    return Histogram(torch.bincount(bins, minlength=BINS).cpu().numpy(), low, high)


def merge(first: Histogram, second: Histogram) -> Histogram:
    """The histogram of both multisets together; the order of merging never matters."""
    counts = first.counts + second.counts
    return Histogram(counts, min(first.minimum, second.minimum), max(first.maximum, second.maximum))


def positive(alphas: Histogram, count: int) -> Histogram:
    """The alphas at positive gradients, of a layer without negative activations: those below 1/2, and the rest at 1/2.

    There an alpha is between 0 and 1/2 exactly where its gradient is positive (theorem 1). Those of terms too small for
    float32 are 1/2 and cannot be told from others, so their number follows from the ``count`` of all positive gradients.
    Minimum and maximum are known to half a bin only.

    Raises:
        ValueError: if more alphas are between 0 and 1/2 than there are positive gradients.
    """
    zero, half = round((math.tanh(-0.5) + 1) * BINS / 2), BINS // 2
    counts = np.zeros(BINS, np.int64)
    counts[zero:half] = alphas.counts[zero:half]
    counts[half] = count - counts.sum()
    if counts[half] < 0:
        raise ValueError(f"expected at least {counts.sum() - counts[half]} positive gradients, got {count}")
    if not count:
        return EMPTY
    middles = _values(Histogram(counts, 0.0, 0.5))
    return Histogram(counts, float(middles[0]), float(middles[-1]))


def quantile(alphas: Histogram, probability: float) -> float:
    """The quantile as NumPy defines it (linear between order statistics), to half a bin.

    Returns:
        The quantile, off by at most 3.9e-6 around 1/2; NaN for an empty histogram.

    Raises:
        ValueError: if the probability is not between 0 and 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability: expected a number in [0, 1], got {probability}")
    if alphas.count == 0:
        return math.nan
    position = probability * (alphas.count - 1)
    low, high = _order_statistic(alphas, math.floor(position)), _order_statistic(alphas, math.ceil(position))
    return low + (high - low) * (position - math.floor(position)) if high > low else low


def box(alphas: Histogram) -> Box:
    """Quartiles and whiskers of the boxplot of Figure 4, all NaN for an empty histogram.

    The whiskers end at the outermost alpha within 1.5 interquartile ranges of the quartiles, as in matplotlib.

    Source: Lerma & Lucas (2022), Figure 4 (left).
    """
    first, median, third = (quantile(alphas, probability) for probability in (0.25, 0.5, 0.75))
    reach = 1.5 * (third - first) if third > first else 0.0
    values = _values(alphas)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    return Box(float(inside.min(initial=first)), first, median, third, float(inside.max(initial=third)))


def share(alphas: Histogram, low: float, high: float) -> float:
    """The share in [0, 1] of the alphas between two bounds, NaN for an empty histogram.

    The whole bin of the lower bound counts, that of the upper one does not.
    """
    if alphas.count == 0:
        return math.nan
    first, last = (int((math.tanh(bound - 0.5) + 1) * BINS / 2) for bound in (low, high))
    return float(alphas.counts[first:last].sum() / alphas.count)


def tanh_histogram(alphas: Histogram, bars: int = 128) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact counts of tanh(alpha - 1/2) in equal bars over [-1, 1], (bars,), and the edges between them, (bars + 1,).

    Raises:
        ValueError: if the number of bars is not a power of two, at most ``BINS``.

    Source: Lerma & Lucas (2022), Figure 4 (right).
    """
    if bars < 1 or BINS % bars:
        raise ValueError(f"bars: expected a power of two up to {BINS}, got {bars}")
    return alphas.counts.reshape(bars, -1).sum(1), np.linspace(-1, 1, bars + 1)


def _order_statistic(alphas: Histogram, rank: int) -> float:
    """The alpha with ``rank`` others below it, to half a bin; the first and the last are exact."""
    if rank == 0:
        return alphas.minimum
    if rank == alphas.count - 1:
        return alphas.maximum
    occupied = alphas.counts[alphas.counts > 0].cumsum()
    return float(_values(alphas)[np.searchsorted(occupied, rank, side="right")])


def _values(alphas: Histogram) -> NDArray[np.float64]:
    """The alphas in the middles of the occupied bins, kept within the exact extremes, (n,)."""
    squeezed = (np.flatnonzero(alphas.counts) + 0.5) / (BINS // 2) - 1
    return (0.5 + np.arctanh(squeezed)).clip(alphas.minimum, alphas.maximum)
