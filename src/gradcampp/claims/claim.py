"""A claim: a sentence, its place in the paper, what decides it, and the verdict that we stand behind.

All of it stands at the check, in one decorator::

    @claim("eq-12", section="3.1.5", equation=12)
    def eq_12() -> Finding:
        \"\"\"Y = exp(lam S) gives eq. 12.\"\"\"
        ...

The decorated name is the :class:`Claim`; its sentence is the docstring of the check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from gradcampp import paper
from gradcampp.cam import SCORES, Scores
from gradcampp.evaluation.alphas import Histogram
from gradcampp.evaluation.records import Run
from gradcampp.performance import Summary, UndefinedError

T = TypeVar("T")
Kind = Literal["proof", "numeric", "empirical"]
Role = Literal["claim", "definition", "theorem"]
Verdict = Literal["holds", "fails", "sharpened", "cannot tell", "not tested by this profile"]
CANNOT_TELL: Verdict = "cannot tell"
NOT_TESTED: Verdict = "not tested by this profile"

COMPANION = "companion"  # the section of what is ours
CHAPTERS = {  # of the book, by the first characters of a section
    "2": "02_methods",
    "3.1": "04_what_is_wrong",
    "3": "05_alphas",
    "4": "06_does_it_matter",
    "A": "04_what_is_wrong",
    COMPANION: "07_beyond",
}
DERIVATION, BEYOND = "03_derivation", CHAPTERS[COMPANION]  # where some claims of section 2.2 are treated

ROUNDING = 1e-12  # float64 against exact fractions, after a handful of operations
EQUIVALENCE_MARGIN = 1.1  # two methods whose relative performance is certainly within this factor count as equivalent

ANY_RUN = "gradcampp claims --run RUN, after gradcampp reproduce or evaluate --out RUN"
PAPER_RUN = f"{paper.COMMAND}, then gradcampp claims --run runs/paper-keras"


@dataclass(frozen=True)
class Finding:
    """The answer of a check."""

    verdict: Verdict  # computed, never written by hand
    evidence: str  # the numbers or expressions that decided, in one line


class UntestedError(Exception):
    """A run that cannot decide a claim; the reason is the evidence of ``NOT_TESTED``."""


def verdict(holds: bool, evidence: str) -> Finding:
    """A verdict from a comparison."""
    return Finding("holds" if holds else "fails", evidence)


def sharpened(holds: bool, evidence: str, *, more: bool) -> Finding:
    """A verdict where ``more``, a second computed condition, shows more than the claim, or a condition that it needs."""
    return Finding("fails" if not holds else "sharpened" if more else "holds", evidence)


def cannot_tell(evidence: str) -> Finding:
    """The verdict of a run that does have the numbers, but cannot decide: a ceiling, an interval too wide."""
    return Finding(CANNOT_TELL, evidence)


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


Numbers = int | tuple[int, ...]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper or of ours."""

    name: str  # its identity, as 3.1.1-underdetermined
    claim: str  # in our words
    check: Callable[..., Finding]  # what decides; empirical checks get a run and may raise UntestedError
    section: str | tuple[str, ...]  # of the paper, A for its appendix, or companion; the first of several is where it is listed
    kind: Kind  # how it can be decided
    chapter: str  # of the book, the file name of the notebook
    equation: Numbers = ()  # like figure, table and footnote, numbers in the paper
    figure: Numbers = ()
    table: Numbers = ()
    footnote: Numbers = ()
    theorem: int | None = None  # number of a theorem of ours
    role: Role = "claim"  # a definition holds by construction: it says what the library computes
    criterion: str = ""  # when an empirical claim holds, committed with the code
    command: str = ""  # what would test it, where the run in hand cannot
    expected: Verdict | None = "holds"  # committed, of an empirical claim for the embedded default; None where nobody has

    @property
    def listed_in(self) -> str:
        """The section under which the ledger has it."""
        return several(self.section)[0]

    @property
    def place(self) -> str:
        """Where the paper has it, as a reader says it: ``2.2, eqs 5 and 6``."""
        parts = ["Appendix A" if self.section == "A" else " and ".join(several(self.section))]
        kinds = (("eq.", self.equation), ("Figure", self.figure), ("Table", self.table), ("footnote", self.footnote))
        for word, numbers in kinds:
            if found := several(numbers):
                parts.append(f"{word if len(found) == 1 else word.rstrip('.') + 's'} {' and '.join(map(str, found))}")
        return ", ".join(parts)


def several(given: T | tuple[T, ...]) -> tuple[T, ...]:
    """One or several, as several."""
    return given if isinstance(given, tuple) else (given,)


def claim(
    name: str, *, section: str | tuple[str, ...], kind: Kind = "proof", chapter: str = "", sentence: str = "", **more: Any
) -> Callable[[Callable[..., Finding]], Claim]:
    """Make a check the claim that it decides; arguments are those of :class:`Claim`.

    The chapter is that of the section, and the sentence the docstring of the check, where none is given.
    """
    chapter = chapter or next(found for start, found in CHAPTERS.items() if several(section)[0].startswith(start))
    return lambda check: Claim(name, sentence or " ".join((check.__doc__ or "").split()), check, section, kind, chapter, **more)


def empirical(name: str, *, criterion: str, command: str = ANY_RUN, **more: Any) -> Callable[[Callable[[Run], Finding]], Claim]:
    """Make a check of a run the claim that it decides; arguments as for :func:`claim`."""
    return claim(name, kind="empirical", criterion=criterion, command=command, **more)


def empirical_of_scores(
    name: str, post: Verdict | None = None, **more: Any
) -> Callable[[Callable[..., Finding]], tuple[Claim, ...]]:
    """Make a check the same claim for either kind of score, ``name-pre`` and ``name-post``.

    ``post`` is the expected verdict after the softmax, where it is another one than before it.
    """

    def claims(check: Callable[..., Finding]) -> tuple[Claim, ...]:
        one = empirical(name, **more)(check)
        words = {scores: f"{one.claim.removesuffix('.')} ({scores}-softmax)." for scores in SCORES}
        before, after = (
            replace(one, name=f"{name}-{scores}", claim=words[scores], check=partial(check, scores=scores)) for scores in SCORES
        )
        return before, replace(after, expected=post or one.expected)

    return claims


# A claim with numbers that only the paper's own experiment can give.
of_paper = partial(empirical, command=PAPER_RUN, expected=NOT_TESTED)


def require_paper(run: Run, seen: str) -> None:
    """Raise UntestedError, with what was seen, at a run that is not the paper's own experiment."""
    if not is_paper(run):
        raise UntestedError(f"{seen}, of another network or other images")


def require_bounds(run: Run) -> None:
    """Raise UntestedError at a run in which no image has a bound: theorems 1 and 3 say nothing of it."""
    values(run, "pre_difference")
    if run.records["pre_bound"].isna().all():
        raise UntestedError("the layer has negative activations, or no image is over the threshold")


def values(run: Run, name: str) -> pd.Series[float]:
    """A column of the records, in the images that have it; an UndefinedError where none has."""
    found = run.records[name].dropna()
    if found.empty:
        raise UndefinedError(f"no image has a {name}: its gradients are 0, its maps are empty, or there is no such score")
    return found


def alphas(run: Run, scores: Scores, positive: bool = False) -> Histogram:
    """The non-zero alphas of a run, or those at positive gradients; an UndefinedError where there are none."""
    found = (run.positive_alphas if positive else run.alphas)[scores]
    if not found.count:
        raise UndefinedError(f"{scores}: no unit has a {'positive ' if positive else ''}gradient, so that there are no alphas")
    return found


def is_paper(run: Run) -> bool:
    """True for the paper's own experiment: a trained VGG16 at block5_conv3, all of ImageNetV2, threshold 0.5.

    Any trained weights will do, since the paper's own are those of Keras; the photographs are known by their folder.
    """
    trained = not run.manifest["experiment"]["weights"].startswith("random")
    same = is_experiment(run, 10_000, model="vgg16", layer="features.29", threshold=0.5, limit=None)
    folder = run.manifest["data"]["folder"]
    return same and trained and run.score == "softmax" and bool(folder == "imagenetv2-matched-frequency-format-val")


def is_experiment(run: Run, images: int, **settings: Any) -> bool:
    """True for a run of so many images with these settings of its experiment."""
    return bool(run.manifest["images"] == images and settings.items() <= run.manifest["experiment"].items())
