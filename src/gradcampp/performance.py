"""Relative performance of two methods over a data set (paper, eqs 16-17), in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from gradcampp import paper
from gradcampp.cam import MAPS, METHODS, SCORES, Method, Scores, column
from gradcampp.errors import InputError

SAME = 1e-5  # of a log ratio: what float32 leaves between two maps that are one but for a factor


class UndefinedError(InputError):
    """A comparison of methods to which a run has no answer, although its images were explained: why, in one line."""


def log_relative_performance(scores: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """Natural logarithm of the quotient of two methods' scores, image by image.

    Args:
        scores: softmax scores of the explanation maps of the first method, (n,), all positive.
        baseline: the same for the method it is compared with, (n,).

    Returns:
        (n,), float64; positive where the first method does better.

    Raises:
        ValueError: if the lengths differ or a score is not positive and finite.

    Source: Lerma & Lucas (2022), the logarithm inside eq. 17.
    """
    first, second = np.asarray(scores, np.float64), np.asarray(baseline, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"expected two vectors of one length, got shapes {first.shape} and {second.shape}")
    for name, values in (("scores", first), ("baseline", second)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name}: expected positive finite numbers")
    return np.log(first) - np.log(second)


def relative_performance(scores: ArrayLike, baseline: ArrayLike) -> float:
    """Geometric mean of the quotients of two methods' scores; 1 means no difference.

    Computed through the logarithms: the product of eq. 16 underflows for some hundred images.

    Arguments and errors are those of :func:`log_relative_performance`; to have no image is a ``ValueError`` too.

    Source: Lerma & Lucas (2022), eq. 16 by way of eq. 17.
    """
    logs = log_relative_performance(scores, baseline)
    if logs.size == 0:
        raise ValueError("expected at least one image, got none")
    return float(np.exp(logs.mean()))


@dataclass(frozen=True)
class Summary:
    """One row of Tables 1 and 2 for one kind of score.

    Attributes:
        n: number of images.
        relative_performance: eq. 16; ``low`` and ``high`` bound its confidence interval.
        mean, std: of the log relative performance; std uses n - 1 and is NaN for a single image.
    """

    n: int
    relative_performance: float
    low: float
    high: float
    mean: float
    std: float


def summarise(scores: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Summary:
    """Relative performance with its confidence interval, and mean and deviation of its logarithm.

    The interval is Student's t on the mean of the logarithms, carried through the exponential; that of a single image says
    nothing. Its coverage is ``confidence``, between 0 and 1.

    Raises:
        ValueError: if the confidence is not so, or as in :func:`relative_performance`.

    Source: Lerma & Lucas (2022), eqs 16 and 17, Tables 1 and 2.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    performance, logs = relative_performance(scores, baseline), log_relative_performance(scores, baseline)
    mean, std = float(logs.mean()), float(logs.std(ddof=1)) if logs.size > 1 else math.nan
    ends = interval(mean, std, logs.size, confidence) if logs.size > 1 else (0.0, math.inf)
    return Summary(logs.size, performance, *ends, mean, std)


def interval(mean: float, std: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a relative performance, as ratios.

    It follows from the mean of the logarithm and its deviation (over n - 1) in two images or more; ``confidence`` is its
    coverage, between 0 and 1.
    """
    # scipy's ttest_1samp wants the sample, which the paper does not print, and warns where two methods score alike everywhere
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * std / n**0.5
    return float(np.exp(mean - half)), float(np.exp(mean + half))


def compared(records: pd.DataFrame, scores: Scores) -> dict[paper.Pair, Summary]:
    """The entries of Tables 1 and 2 for one kind of score; a row of the records counts for a pair where it has both scores.

    Raises:
        UndefinedError: if images are explained, and fewer than two have a map, or all have one score whatever the method.
        InputError: if fewer than two images have both scores, or a score is not a positive number.

    Source: Lerma & Lucas (2022), eqs 16 and 17.
    """
    found = {}
    for pair in paper.PAIRS:
        first, second = (column(scores, method) for method in pair)
        both = records[[first, second]].dropna()
        if len(both) < 2:
            explained = records.reindex(columns=[f"{column(*each)}_mean_heat" for each in MAPS]).notna().any(axis=1).sum()
            if explained > 1:
                raise UndefinedError(
                    f"{scores}: {len(both)} of {explained} images that are explained have a map; without a positive gradient "
                    "Grad-CAM+ and Grad-CAM++ have none, and maps of 1 x 1 or a score without softmax have nothing to compare"
                )
            few = f"{len(both)} of {len(records)} images have the scores {first} and {second}"
            raise InputError(f"{few}; the tables need two or more (a lower --threshold or more images)")
        if "sha256" in records and records["sha256"][both.index].nunique() < 2:
            raise UndefinedError(f"{scores}: all {len(both)} images are copies of one photograph")
        if "score" in records and not records["score"].between(0, 1).all() and (both <= 0).any(axis=None):
            raise UndefinedError(f"{scores}: scores are quantities on any scale, and those that are not over 0 have no ratio")
        try:
            found[pair] = summarise(both[first], both[second])
        except ValueError as error:
            raise InputError(f"records, columns {first} and {second}: {error}") from None
    if all(abs(summary.mean) < SAME and summary.std < SAME for summary in found.values()):
        raise UndefinedError(
            f"{scores}: each of {len(both)} images scores the same through the maps of all three methods: nothing is compared; "
            "one output, a layer of one map, or scores of 1 do this"
        )
    return found


def summaries(records: pd.DataFrame) -> dict[tuple[Scores, paper.Pair], Summary]:
    """Every entry of Tables 1 and 2, with its confidence interval; all NaN for a kind of score that has none.

    Raises:
        UndefinedError: if neither kind has one.
        InputError: as :func:`compared`.
    """
    found: dict[tuple[Scores, paper.Pair], Summary] = {}
    reasons = []
    for scores in SCORES:
        try:
            own = compared(records, scores)
        except UndefinedError as reason:
            reasons.append(str(reason))
            counted = len(records[[column(scores, method) for method in METHODS]].dropna())
            own = dict.fromkeys(paper.PAIRS, Summary(counted, *[math.nan] * 5))
        found |= {(scores, pair): summary for pair, summary in own.items()}
    if len(reasons) == len(SCORES):
        raise UndefinedError("; ".join(reasons))
    return found


def at_equal_heat(records: pd.DataFrame, scores: Scores, method: Method) -> Summary | None:
    """A method against Grad-CAM, its map raised to the power at which it has the heat of Grad-CAM's; None without such scores."""
    first, second = f"{column(scores, method)}_matched", column(scores, "gradcam")
    both = records.reindex(columns=[first, second]).dropna()
    return summarise(both[first], both[second]) if len(both) > 1 else None


def drop_and_increase(records: pd.DataFrame) -> pd.DataFrame:
    """Average drop and increase in confidence of each method's explanation maps: what section 4 of the paper starts from.

    The drop is the mean of ``max(0, score - E) / score`` with E the score of the explanation map, and less is better; the
    increase is the share of images with E over the score, and more is better. Images count that have all scores of a kind.

    Returns:
        A row for each kind of score and method: ``scores``, ``method``, ``n``, ``drop``, ``increase``, between 0 and 1.

    Source: Chattopadhay et al. (2018), "Grad-CAM++", section 4.1.
    """
    rows = []
    for scores in SCORES:
        names = [column(scores, method) for method in METHODS]
        own = records[["score", *names]].dropna()
        for method, name in zip(METHODS, names, strict=True):
            drops = confidence_drops(own["score"], own[name])
            rows.append((scores, method, len(own), drops.mean(), (own[name] > own["score"]).mean()))
    return pd.DataFrame(rows, columns=["scores", "method", "n", "drop", "increase"])


def confidence_drops(scores: ArrayLike, explained: ArrayLike) -> NDArray[np.float64]:
    """Of each image, the part of its score that its explanation map loses, (n,): 0 where it loses none.

    Source: Chattopadhay et al. (2018), "Grad-CAM++", section 4.1.
    """
    whole, left = np.asarray(scores, np.float64), np.asarray(explained, np.float64)
    return np.maximum(0, whole - left) / whole


def percent(share: float, form: str = ".1%") -> str:
    """A share from 0 to 1 as a percentage that reads 0 or 100 only where it is that: 0.9998 is ``>99.9%``, and 1 ``100.0%``."""
    shown, step = format(share, form), 10.0 ** -(int(form[1:-1]) + 2)
    if 0 < share < 0.5 and shown == format(0, form):
        return f"<{step:{form}}"
    return f">{1 - step:{form}}" if 0.5 < share < 1 and shown == format(1, form) else shown
