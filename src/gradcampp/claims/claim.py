"""What a claim is, what its checker sees, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gradcampp import paper, performance
from gradcampp.cam import SCORES, Scores
from gradcampp.evaluation.records import Run
from gradcampp.paper import Pair
from gradcampp.performance import Summary

Kind = Literal["proof", "numeric", "empirical"]


Verdict = Literal["holds", "fails", "sharpened", "not tested by this profile"]


NOT_TESTED: Verdict = "not tested by this profile"


@dataclass(frozen=True)
class Finding:
    """What a checker found.

    Attributes:
        verdict: computed, never written by hand.
        evidence: the numbers or expressions that decided, in one line.
    """

    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper or of ours.

    Attributes:
        name: its identity, as ``3.1.1-underdetermined``.
        place: where the paper has it, or ``companion``.
        claim: in our words.
        kind: how it can be decided.
        check: what decides; empirical checks get a run, the others none.
        chapter: of the book, the file name of the notebook.
        criterion: when an empirical claim holds, committed with the code.
        command: what would test it, where the run in hand cannot.
    """

    name: str
    place: str
    claim: str
    kind: Kind
    check: Callable[[], Finding] | Callable[[Run], Finding]
    chapter: str
    criterion: str = ""
    command: str = ""


def verdict(holds: bool, evidence: str, sharpened: bool = False) -> Finding:
    """A verdict from a comparison: ``sharpened`` where the claim is true and the checker shows more."""
    return Finding(("sharpened" if sharpened else "holds") if holds else "fails", evidence)


ROUNDING = 1e-12  # float64 against exact fractions, after a handful of operations


def _proved(name: str, place: str, claim: str, check: Any, chapter: str, kind: Any = "proof") -> Claim:
    return Claim(name, place, claim, kind, check, chapter)


METHODS_CHAPTER, DERIVATION, WRONG, ALPHAS, MATTERS, BEYOND = (
    "02_methods",
    "03_derivation",
    "04_what_is_wrong",
    "05_alphas",
    "06_does_it_matter",
    "07_beyond",
)

ANY_RUN = "gradcampp claims --run RUN, after gradcampp reproduce or evaluate --out RUN"


PAPER_RUN = "gradcampp reproduce --profile paper, then gradcampp claims --run runs/paper"


PAPER_IMAGES = 10_000


PAPER_FOLDER = "imagenetv2-matched-frequency-format-val"


PLUSPLUS_VS_GRADCAM, PLUS_VS_GRADCAM, PLUSPLUS_VS_PLUS = (
    paper.PAIRS[0],
    paper.PAIRS[1],
    paper.PAIRS[2],
)  # ++ vs Grad-CAM, + vs Grad-CAM, ++ vs +


EQUIVALENCE_MARGIN = 1.1  # two methods whose relative performance is certainly within this factor count as equivalent


ALPHAS, MATTERS, BEYOND, METHODS_CHAPTER = "05_alphas", "06_does_it_matter", "07_beyond", "02_methods"


def is_paper(run: Run) -> bool:
    """Whether a run is the paper's own experiment: a trained VGG16 at block5_conv3, all of ImageNetV2, threshold 0.5.

    Any trained weights will do, since the paper's own are those of Keras; the photographs are known by their folder.
    """
    experiment = run.manifest["experiment"]
    if run.manifest["data"]["folder"] != PAPER_FOLDER or experiment["weights"].startswith("random"):
        return False
    wanted = {"model": "vgg16", "layer": "features.29", "threshold": 0.5, "limit": None}
    return run.manifest["images"] == PAPER_IMAGES and all(experiment.get(key) == value for key, value in wanted.items())


def _summary(run: Run, scores: Scores, pair: Pair) -> Summary:
    return performance.summaries(run.records)[scores, pair]


def _interval(summary: Summary) -> str:
    return f"{summary.relative_performance:.3f} [{summary.low:.3f}, {summary.high:.3f}], n = {summary.n}"


def _measured(
    name: str, place: str, claim: str, criterion: str, check: Callable[[Run], Finding], chapter: str, command: str = ANY_RUN
) -> Claim:
    return Claim(name, place, claim, "empirical", check, chapter, criterion, command)


def _both(
    name: str, place: str, claim: str, criterion: str, make: Callable[[Scores], Callable[[Run], Finding]], chapter: str
) -> list[Claim]:
    """A claim for each kind of score."""
    return [_measured(f"{name}-{s}", place, f"{claim} ({s}-softmax).", criterion, make(s), chapter) for s in SCORES]
