"""Verdicts from intervals: one that is too wide to decide says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from gradcampp.claims.claim import Finding, cannot_tell, verdict
from gradcampp.performance import Summary


def above(low: float, high: float, value: float, evidence: str, matters: float | None = None) -> Finding:
    """Holds where an interval lies above a value, and fails where it lies below; otherwise the run cannot tell.

    With ``matters``, a larger value, it fails where the interval is not above the value and certainly below that: more images
    might find a difference, but none that matters.
    """
    if low > value or high < (value if matters is None else matters):
        return verdict(low > value, evidence)
    return cannot_tell(evidence)


def below(low: float, high: float, value: float, evidence: str) -> Finding:
    """Holds where an interval lies below a value, fails where it lies above, and cannot tell otherwise."""
    return above(-high, -low, -value, evidence)


def number(value: float, sign: str = "") -> str:
    """A number with three decimals from 0.1 to 10, and with three significant digits elsewhere; ``sign`` may be ``"+"``."""
    size = abs(value)
    places = 3 if not 0 < size < math.inf or 0.1 <= size < 10 else max(0, 2 - math.floor(math.log10(size)))
    return f"{value:{sign}z,.{places}f}"


def ratio(found: Summary) -> str:
    """A relative performance with its interval, as evidence."""
    return f"{number(found.relative_performance)} [{number(found.low)}, {number(found.high)}], n = {found.n}"


def resampled(statistic: Callable[..., Any], *columns: Any) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval, from 2,000 resamples of images.

    The statistic takes the columns, (n,) each, or resamples of them, (m, n), and the ``axis`` of the images.
    """
    options: dict[str, Any] = {"paired": True, "vectorized": True, "n_resamples": 2000, "batch": 100, "method": "percentile"}
    found = bootstrap(columns, statistic, confidence_level=0.95, rng=np.random.default_rng(0), **options)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
