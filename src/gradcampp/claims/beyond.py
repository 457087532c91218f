"""The theorems of this companion, and two of them in a run."""

from __future__ import annotations

from functools import partial

import pandas as pd

from gradcampp.algebra.theorems import CHECKS, TITLES
from gradcampp.cam import SCORES
from gradcampp.claims.claim import BEYOND, CHAPTERS, COMPANION, Finding, claim, empirical, require_bounds, values, verdict
from gradcampp.evaluation.records import Run

WITH_ALPHAS = (1, 6, 7)  # theorems that stand in the chapter of section 3


def _theorem(number: int) -> Finding:
    return verdict(*CHECKS[number]())


THEOREMS = tuple(
    claim(
        f"theorem-{number}",
        section=COMPANION,
        theorem=number,
        chapter=CHAPTERS["3"] if number in WITH_ALPHAS else BEYOND,
        sentence=f"{title}.",
    )(partial(_theorem, number))
    for number, title in TITLES.items()
)


@empirical("theorem-1-run", section=COMPANION, theorem=1, criterion="at most 1/2, exactly")
def only_tame(run: Run) -> Finding:
    """In this run no alpha over 1/2 reaches a weight."""
    require_bounds(run)
    values(run, "pre_alpha_max_positive")
    largest = run.records[[f"{scores}_alpha_max_positive" for scores in SCORES]].max().max()
    return verdict(largest <= 0.5, f"largest alpha at a positive gradient: {largest:.9f}")


@empirical("theorem-3-run", section=COMPANION, theorem=3, criterion="up to rounding (1e-9)")
def bounded(run: Run) -> Finding:
    """In this run no pixel differs by more than the bound for all constants from 0 to 1."""
    require_bounds(run)
    ratio = pd.concat([run.records[f"{scores}_difference"] / run.records[f"{scores}_bound"] for scores in SCORES]).max()
    pre, post = (run.records[f"{scores}_bound"].median() for scores in SCORES)
    told = f"difference / bound up to {ratio:.3f}; median bound pre {pre:.3f}, post {post:.4f}"
    return verdict(not ratio > 1 + 1e-9, told)  # all maps alike have no ratio
