"""Equivalence of Grad-CAM++ and Grad-CAM+ by two one-sided tests (TOST), in float64.

The population is that of the tables: images of this data set whose label scores over the threshold with this network. Clustered
by class it is wider, images of classes such as these; with few classes such an interval is wide, and says so.

Two margins stand side by side. The *share* compares the difference of Grad-CAM++ and Grad-CAM+ with the gain that Grad-CAM++
has over Grad-CAM in the same images, for that gain is why the method is used: a quarter of it (``SHARE``) was fixed before
these runs were judged, when the ratios of SqueezeNet and of the paper were known. Three quarters of an effect is most of it,
while half is not; and where 25 % is certainly exceeded the alphas have a part in the gain, so the margin can fail. The
*factor* is absolute. A fixed factor calls everything equivalent where nothing differs: in such a run it takes Grad-CAM for
Grad-CAM++, and then it cannot decide. Where the gain is so large that a quarter of it is more than the factor, both have to
decide: the share alone could hardly be exceeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from scipy.stats import wishart
from statsmodels.regression.linear_model import OLS

from gradcampp import paper
from gradcampp.cam import METHODS, SCORES, Scores, column
from gradcampp.performance import UndefinedError, compared, log_relative_performance

Floats = NDArray[np.float64]
Decision = Literal["equivalent", "not equivalent", "cannot tell"]
SHARE = 0.25  # of the mean log gain of Grad-CAM++ over Grad-CAM
CONFIDENCE = 0.9  # each end of such an interval is a one-sided test at 5 %


@dataclass(frozen=True)
class Interval:
    """An interval, or arrays of them."""

    low: Floats
    high: Floats

    def hull(self) -> tuple[float, float]:
        """The ends of the smallest interval that holds them all."""
        return float(self.low.min()), float(self.high.max())


@dataclass(frozen=True)
class Means:
    """Mean log gain of Grad-CAM++ over Grad-CAM, and over Grad-CAM+, in the same images; or arrays of them, of one shape.

    Attributes:
        n: number of images.
        gain: mean of log(Grad-CAM++ / Grad-CAM).
        difference: mean of log(Grad-CAM++ / Grad-CAM+).
        gain_variance, difference_variance, covariance: of these two means.
        freedom: degrees of freedom of Student's t.
    """

    n: int
    gain: Floats
    difference: Floats
    gain_variance: Floats
    difference_variance: Floats
    covariance: Floats
    freedom: int

    def ratio(self, confidence: float = CONFIDENCE) -> Interval:
        """Relative performance of Grad-CAM++ against Grad-CAM+ (eq. 16)."""
        return self._ratio(self.difference, self.difference_variance, confidence)

    def whole_ratio(self, confidence: float = CONFIDENCE) -> Interval:
        """Relative performance of Grad-CAM++ against Grad-CAM: the negative control of an absolute margin."""
        return self._ratio(self.gain, self.gain_variance, confidence)

    def share(self, confidence: float = CONFIDENCE) -> Interval:
        """The difference as a share of the gain; unbounded where the gain is not certainly positive.

        This is Fieller's interval. It holds each share s at which neither one-sided t test of the paired contrast
        ``difference - s * gain`` rejects, so that it lies between -SHARE and SHARE exactly if the means of both
        ``SHARE * gain - difference`` and ``SHARE * gain + difference`` are certainly positive: nothing estimated is put into
        the margin. Both together make the gain certainly positive; without it there is nothing to share.

        Source: Fieller (1954), "Some problems in interval estimation"; Schuirmann (1987) for the two tests.
        """
        square = student.ppf((1 + confidence) / 2, self.freedom) ** 2
        leading = self.gain**2 - square * self.gain_variance
        middle = self.gain * self.difference - square * self.covariance
        last = self.difference**2 - square * self.difference_variance
        root = np.sqrt(np.maximum(middle**2 - leading * last, 0))  # negative by rounding only, where leading is positive
        known = (self.gain > 0) & (leading > 0)
        low, high = np.full_like(leading, -np.inf), np.full_like(leading, np.inf)
        np.divide(middle - root, leading, out=low, where=known)
        np.divide(middle + root, leading, out=high, where=known)
        return Interval(low, high)

    def _ratio(self, mean: Floats, variance: Floats, confidence: float) -> Interval:
        half = student.ppf((1 + confidence) / 2, self.freedom) * np.sqrt(variance)
        return Interval(np.exp(mean - half), np.exp(mean + half))


def of_images(gains: ArrayLike, differences: ArrayLike) -> Means:
    """Means over images that are independent of each other, from log(++/Grad-CAM) and log(++/+), (n,) each, n at least 2."""
    values = np.array([gains, differences], np.float64)
    n, covariance = values.shape[1], np.cov(values)
    return _means(values, covariance[0, 0] / n, covariance[1, 1] / n, covariance[0, 1] / n, n - 1)


def _means(values: Floats, first: np.float64, second: np.float64, both: np.float64, freedom: int) -> Means:
    gain, difference, own, other, shared = map(np.asarray, (*values.mean(1), first, second, both))
    return Means(values.shape[1], gain, difference, own, other, shared, freedom)


def of_classes(gains: ArrayLike, differences: ArrayLike, classes: Sequence[int]) -> Means | None:
    """The same where images of one class may be alike, by variances that are robust to it; ``classes`` is (n,).

    Student's t has a degree of freedom less than there are classes. None where every image has a class of its own, or all
    have the same: there is nothing to group by.

    Source: Liang & Zeger (1986), with the correction for a small number of groups, as statsmodels has it.
    """
    groups = np.unique(np.asarray(classes), return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count in (1, len(groups)):
        return None
    both = np.array([gains, differences], np.float64)

    def variance(values: Floats) -> np.float64:
        fitted = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        return np.float64(fitted.cov_params()[0, 0])

    first, second, total = map(variance, (both[0], both[1], both.sum(0)))
    return _means(both, first, second, (total - first - second) / 2, count - 1)


def of_paper(scores: Scores) -> Means:
    """These means by the paper's Tables 1 and 2, (m,): every corner of the room that their rounding leaves.

    The deviations of three log ratios, of which one is the sum of the others, give the covariance. Whatever one-sided test is
    passed at all corners is passed by the unrounded numbers: its statistic is linear in the means and monotone in each deviation.

    Source: Lerma & Lucas (2022), Tables 1 and 2, n = 4219.
    """
    whole, plus, over = (paper.CELLS[scores, pair] for pair in paper.PAIRS)
    ends = [
        (
            max(cell.mean - 0.005, np.log(cell.relative_performance - 0.005)),
            min(cell.mean + 0.005, np.log(cell.relative_performance + 0.005)),
        )
        for cell in (whole, plus, over)
    ]
    means = [(end, over_end) for end in ends[1] for over_end in _between(ends[2], ends[0], end)]
    means += [(plus_end, end) for end in ends[2] for plus_end in _between(ends[1], ends[0], end)]
    spreads = product(*((cell.std - 0.005, cell.std + 0.005) for cell in (whole, plus, over)))
    corners = np.array([(b + d, d, *spread) for (b, d), spread in product(means, spreads)]).T
    gain, difference, of_whole, of_plus, of_over = corners
    covariance = (of_whole**2 + of_over**2 - of_plus**2) / 2
    n = paper.IMAGES
    return Means(n, gain, difference, of_whole**2 / n, of_over**2 / n, covariance / n, n - 1)


def _between(own: tuple[float, float], total: tuple[float, float], other: float) -> tuple[float, ...]:
    """The ends of what one summand can be, given the other and the ends of their sum; nothing where there is no such value."""
    low, high = max(own[0], total[0] - other), min(own[1], total[1] - other)
    return (low, high) if low <= high else ()


def simulated(scores: Scores, n: int, share: float, repetitions: int = 20_000) -> Means:
    """The means of many made-up runs of n images, (repetitions,), with the paper's gain and its standard deviations.

    Grad-CAM++ differs from Grad-CAM+ by exactly a ``share`` of the gain in them: at ``SHARE`` each "equivalent" is a false
    positive, and at 0 their part is the power. The logarithms are normal, of which means and covariances are drawn at once.
    """
    whole, plus, over = (paper.CELLS[scores, pair] for pair in paper.PAIRS)
    centre = np.array([whole.mean, share * whole.mean])
    both = (whole.std**2 + over.std**2 - plus.std**2) / 2
    covariance = np.array([[whole.std**2, both], [both, over.std**2]])
    rng = np.random.default_rng(0)
    gain, difference = rng.multivariate_normal(centre, covariance / n, repetitions).T
    found = np.asarray(wishart.rvs(n - 1, covariance / (n - 1) / n, repetitions, random_state=rng))  # (repetitions, 2, 2)
    return Means(n, gain, difference, found[:, 0, 0], found[:, 1, 1], found[:, 0, 1], n - 1)


def rate(means: Means) -> float:
    """Part of many runs that the share of the gain calls equivalent."""
    found = means.share()
    return float(((found.low > -SHARE) & (found.high < SHARE)).mean())


def decide(interval: Interval, low: float, high: float) -> Decision:
    """A reading of an interval: it lies between the margins, certainly beyond one of them, or cannot tell.

    Of several intervals, such as those of rounded numbers, all have to say so.
    """
    first, last = interval.hull()
    if low < first and last < high:
        return "equivalent"
    return "not equivalent" if first > high or last < low else "cannot tell"


def decide_share(means: Means, share: float = SHARE) -> Decision:
    """The decision by a share of the gain."""
    return decide(means.share(), -share, share)


def decide_factor(means: Means, factor: float) -> Decision:
    """The decision by a factor, of Grad-CAM++ and Grad-CAM+."""
    return decide(means.ratio(), 1 / factor, factor)


def is_large(means: Means, factor: float) -> bool:
    """True where the gain is certain, and ``SHARE`` of it more than the factor."""
    return bool(np.isfinite(means.share().low).all() and (SHARE * means.gain > np.log(factor)).all())


def decide_both(means: Means, factor: float) -> Decision:
    """The decision by the share of the gain, and where that is large by the factor, too."""
    by_factor = decide_factor(means, factor)
    return by_factor if by_factor != "equivalent" and is_large(means, factor) else decide_share(means)


def control(means: Means, factor: float) -> Decision:
    """The decision by the same factor of Grad-CAM++ and Grad-CAM: where it says equivalent, the factor decides nothing."""
    return decide(means.whole_ratio(), 1 / factor, factor)


def of_run(records: pd.DataFrame, scores: Scores) -> dict[str, Means]:
    """The means of a run ``by image``, and ``by class`` where classes have several images; from ``label`` and three scores.

    Raises:
        InputError: as :func:`gradcampp.performance.compared`.
    """
    compared(records, scores)
    names = [column(scores, method) for method in METHODS]
    rows = records[["label", *names]].dropna()
    if len(rows) < 2:
        raise UndefinedError(f"{len(rows)} of {len(records)} images have the scores {', '.join(names)}; this needs two or more")
    gradcam, plus, plusplus = (rows[name] for name in names)
    logs = log_relative_performance(plusplus, gradcam), log_relative_performance(plusplus, plus)
    found = {"by image": of_images(*logs), "by class": of_classes(*logs, rows["label"].tolist())}
    return {name: means for name, means in found.items() if means is not None}


def equivalence(records: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Grad-CAM++ against Grad-CAM+, read as a test of difference and as one of equivalence, in the paper and in this run.

    The paper prints no intervals; they follow from the numbers that it gives and hold whatever was rounded away.

    Args:
        records: of a run, with ``label`` and the six scores.
        margin: a factor, above 1.

    Returns:
        A row for the paper, for this run by image, and by class where classes have several images, for either kind of score
        (of this run, where :func:`of_run` is defined): ``source``, ``scores``, ``n``, ``groups`` (of independent values),
        ``ratio``, ``low``, ``high`` (90 %), ``differs`` (significantly: the 95 % interval excludes 1), ``by_factor`` (a
        decision), ``control`` (that of Grad-CAM++ against Grad-CAM: where it says equivalent, the factor cannot decide),
        ``share``, ``share_low``, ``share_high`` (90 %; infinite where the gain may be 0) and ``by_share``.

    Source: Lerma & Lucas (2022), section 4.
    """
    table = []
    for scores in SCORES:
        whole, _, over = (paper.CELLS[scores, pair] for pair in paper.PAIRS)
        rows = [("paper", over.relative_performance, over.mean / whole.mean, of_paper(scores))]
        with suppress(UndefinedError):  # the paper stands alone where this run says nothing
            for name, means in of_run(records, scores).items():
                part = float(means.difference / means.gain) if means.gain else np.nan
                rows.append((f"this run, {name}", float(np.exp(means.difference)), part, means))
        for source, ratio, part, means in rows:
            (low, high), (first, last) = means.ratio().hull(), means.ratio(0.95).hull()
            factor = decide_factor(means, margin), control(means, margin)
            own = (part, *means.share().hull(), decide_share(means))
            table.append((source, scores, means.n, means.freedom + 1, ratio, low, high, first > 1 or last < 1, *factor, *own))
    names = ["source", "scores", "n", "groups", "ratio", "low", "high", "differs", "by_factor", "control"]
    return pd.DataFrame(table, columns=[*names, "share", "share_low", "share_high", "by_share"])
