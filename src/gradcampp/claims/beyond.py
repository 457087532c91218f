"""The theorems of this companion, and two of them in a run."""

from __future__ import annotations

from functools import partial

import pandas as pd

from gradcampp.algebra.theorems import CHECKS, TITLES
from gradcampp.cam import SCORES
from gradcampp.claims.claim import BEYOND, CHAPTERS, COMPANION, NOT_TESTED, Finding, claim, empirical, verdict
from gradcampp.evaluation.records import Run

WITH_ALPHAS = (1, 6, 7)  # theorems that stand in the chapter of section 3


def _theorem(number: int) -> Finding:
    check = CHECKS[number]()
    return verdict(check.holds, check.seen)


THEOREMS = tuple(
    claim(
        f"theorem-{number}",
        section=COMPANION,
        theorem=number,
        chapter=CHAPTERS["3"] if number in WITH_ALPHAS else BEYOND,
        sentence=f"{TITLES[number]}.",
    )(partial(_theorem, number))
    for number in CHECKS
)


@empirical("theorem-1-run", section=COMPANION, theorem=1, criterion="at most 1/2, exactly")
def only_tame(run: Run) -> Finding:
    """In this run no alpha over 1/2 reaches a weight."""
    largest = run.records[[f"{scores}_alpha_max_positive" for scores in SCORES]].max().max()
    if run.records["pre_certificate"].isna().all():
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return verdict(largest <= 0.5, f"largest alpha at a positive gradient: {largest:.9f}")


@empirical("theorem-3-run", section=COMPANION, theorem=3, criterion="up to rounding (1e-9)")
def certified(run: Run) -> Finding:
    """In this run no pixel differs by more than its image's certificate."""
    ratios = pd.concat([run.records[f"{s}_difference"] / run.records[f"{s}_certificate"] for s in SCORES]).dropna()
    medians = [run.records[f"{s}_certificate"].median() for s in SCORES]
    if ratios.empty:
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return verdict(
        bool((ratios <= 1 + 1e-9).all()),
        f"difference / certificate up to {ratios.max():.3f}; median certificate pre {medians[0]:.3f}, post {medians[1]:.4f}",
    )
