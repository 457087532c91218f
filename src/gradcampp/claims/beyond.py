"""The theorems of this companion, and what a run and masks say about them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from gradcampp.algebra.theorems import THEOREMS
from gradcampp.cam import SCORES
from gradcampp.claims.claim import NOT_TESTED, Finding, verdict
from gradcampp.evaluation.localisation import averages, gains
from gradcampp.evaluation.records import Run


def _theorem(number: int) -> Finding:
    check = THEOREMS[number - 1].check()
    return verdict(check.holds, check.seen)


def _only_tame(run: Run) -> Finding:
    largest = run.records[[f"{scores}_alpha_max_positive" for scores in SCORES]].max().max()
    if run.records["pre_certificate"].isna().all():
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return verdict(largest <= 0.5, f"largest alpha at a positive gradient: {largest:.9f}")


def _certified(run: Run) -> Finding:
    ratios = pd.concat([run.records[f"{s}_difference"] / run.records[f"{s}_certificate"] for s in SCORES]).dropna()
    medians = [run.records[f"{s}_certificate"].median() for s in SCORES]
    if ratios.empty:
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return verdict(
        bool((ratios <= 1 + 1e-9).all()),
        f"difference / certificate up to {ratios.max():.3f}; median certificate pre {medians[0]:.3f}, post {medians[1]:.4f}",
    )


def _on_scenes(run: Run, table: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame | None:
    """A table of localisation over the scenes whose label scores over the threshold; None for a run without masks."""
    if not run.has_masks:
        return None
    rows = run.localisation
    return table(rows[rows["score"] > run.manifest["experiment"]["threshold"]])


def _points_at_the_object(run: Run) -> Finding:
    table = _on_scenes(run, averages)
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    row = table[(table["metric"] == "pointing_game") & (table["method"] == "gradcam") & (table["scores"] == "pre")].iloc[0]
    return verdict(row["low"] > 0.5, f"its hottest pixel is on the object in {row['mean']:.1%} of {row['n']} scenes with one")


def _finds_more_than_gradcam(run: Run) -> Finding:
    table = _on_scenes(run, averages)
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    recall = table[(table["metric"] == "instance_recall") & (table["scores"] == "pre") & (table["instances"] > 1)]
    plusplus, gradcam = (recall[recall["method"] == method].set_index("instances") for method in ("gradcam++", "gradcam"))
    return verdict(
        len(gradcam) > 0 and bool((plusplus["low"] > gradcam["high"]).all()),
        "recall of Grad-CAM++ and Grad-CAM: "
        + ", ".join(f"{plusplus['mean'][n]:.3f} and {gradcam['mean'][n]:.3f} of {n} objects" for n in gradcam.index),
    )


def _finds_more_than_plus(run: Run) -> Finding:
    table = _on_scenes(run, gains)
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    row = table[(table["metric"] == "instance_recall") & (table["scores"] == "pre")].iloc[0]
    return verdict(
        row["low"] > 0,
        f"recall against Grad-CAM+ {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], n = {row['n']}",
    )
