"""Verdicts from intervals: one that is too wide to decide says so."""

from __future__ import annotations

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


def ratio(found: Summary) -> str:
    """A relative performance with its interval, as evidence."""
    return f"{found.relative_performance:.3f} [{found.low:.3f}, {found.high:.3f}], n = {found.n}"


def resampled(statistic: Callable[..., Any], *columns: Any) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval, from 2,000 resamples of images.

    The statistic takes the columns, (n,) each, or resamples of them, (m, n), and the ``axis`` of the images.
    """
    options: dict[str, Any] = {"paired": True, "vectorized": True, "n_resamples": 2000, "batch": 100, "method": "percentile"}
    found = bootstrap(columns, statistic, confidence_level=0.95, rng=np.random.default_rng(0), **options)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
