"""Several runs beside each other and beside the paper: Tables 1 and 2 in its layout, and where the equivalence weakens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from gradcampp import equivalence, paper
from gradcampp.cam import SCORES, Method, Scores, column
from gradcampp.errors import InputError
from gradcampp.evaluation.records import Run
from gradcampp.performance import Summary, at_equal_heat, relative_performance, summaries
from gradcampp.results.figures.style import LONG
from gradcampp.results.tables import UNDEFINED

FEW = 30  # below so many images a rank correlation says nothing
TITLE = "Grad-CAM++ against Grad-CAM+: ratio of the scores with its 90 % interval; largest difference of the maps; size of s * g"
PAPER = f"the paper (n = {paper.IMAGES:,})"


def named(run: Run, records: pd.DataFrame) -> str:
    """A run as the tables call it, with the number of images that count."""
    counted = int(records[column("pre", "gradcam")].notna().sum())
    return f"{run.title} (n = {counted:,})"


def headroom(records: pd.DataFrame, scores: Scores, method: Method) -> float:
    """The relative performance against a method of one whose explanation maps all score 1.

    No method can have more; where it is near 1, the measure is at its ceiling and tells methods apart by little. NaN where it is
    undefined.
    """
    baseline = records[column(scores, method)].dropna()
    return relative_performance(np.ones(len(baseline)), baseline) if len(baseline) and (baseline > 0).all() else math.nan


def overview(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The runs at a glance: ``run``, ``images``, ``top-1``, ``over threshold``, ``empty maps`` of Grad-CAM among these,
    and the ``most`` that any method could score against Grad-CAM before the softmax, by :func:`headroom`."""
    rows = []
    for name, run in runs.items():
        records, manifest = run.records, run.manifest
        empty = int((records["pre_gradcam_mean_heat"] == 0).sum())
        most = headroom(records, "pre", "gradcam")
        rows.append((name, manifest["images"], manifest["top1"], manifest["over_threshold"], empty, most))
    return pd.DataFrame(rows, columns=["run", "images", "top-1", "over threshold", "empty maps", "most"])


def tables(runs: Mapping[str, Run], repeated: bool) -> dict[str, pd.DataFrame]:
    """Tables 1 and 2 for the paper and for each run, as people read them.

    Where the paper's own experiment is not ``repeated`` among the runs, a row says so, with the command that does it.

    Returns:
        ``table1`` and ``table2``, every cell a string. Rows: a source and a pair of methods. Columns: the kind of score, then
        for ``table1`` the relative performance with its 95 % interval, and where the run has it the same for maps of the heat of
        Grad-CAM's; for ``table2`` mean and deviation of the log relative performance.

    Source: Lerma & Lucas (2022), Tables 1 and 2.
    """
    rows = _of_paper()
    for run in runs.values():
        rows |= _of_run(run)
    if not repeated:
        rows["the paper, repeated", f"not run: `{paper.COMMAND}`"] = {}
    return {"table1": _frame(rows, "as it is", "at equal heat"), "table2": _frame(rows, "mean", "deviation")}


def weakening(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The distance of Grad-CAM++ from Grad-CAM+ in each run, and the size of s * g, which foretells it in part.

    By theorem 5 the alphas move away from 1/2 as s * g grows, which a temperature of the logits can bring about at will.
    The size counts here where it counts in the map: ``size`` is ``1 - 2 * alpha`` for the effective alpha of an image, the
    mean of s g / (2 + s g) over the positive gradients, each weighted by what it adds to Grad-CAM+: 0 for alphas of 1/2.

    Returns:
        A row for each run and kind of score: ``run``, ``scores``, ``n`` images over the threshold; ``ratio`` of the scores of
        Grad-CAM++ and Grad-CAM+ with ``low`` and ``high`` (90 %) and the decision ``by share`` of the gain over Grad-CAM;
        median and third quartile of the largest ``difference`` of the two min-max maps, as ``difference`` and
        ``difference 75 %``; the median ``size``; and ``rank correlation`` of size and difference over the images of the run,
        NaN where it has fewer than 30 or neither varies. NaN stands where a run says nothing.

    Source: ours; theorems 3 and 5 of the companion, and :mod:`gradcampp.equivalence`.
    """
    rows: list[dict[str, object]] = []
    for name, run in runs.items():
        for scores in SCORES:
            rows.append({"run": name, "scores": scores, **_score_ratio(run.records, scores), **_maps(run.records, scores)})
    return pd.DataFrame(rows)


def _score_ratio(records: pd.DataFrame, scores: Scores) -> dict[str, object]:
    try:
        means = equivalence.of_run(records, scores)["by image"]
    except InputError:  # too few images, or scores of 0
        return {"n": 0, "ratio": np.nan, "low": np.nan, "high": np.nan, "by share": "cannot tell"}
    low, high = means.ratio().hull()
    ratio = float(np.exp(means.difference))
    return {"n": means.n, "ratio": ratio, "low": low, "high": high, "by share": equivalence.decide_share(means)}


def sizes(records: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """The ``size`` of s * g and the ``difference`` of the two maps, for each image that has both."""
    both = records[[f"{scores}_effective_alpha", f"{scores}_difference"]].dropna().set_axis(["size", "difference"], axis=1)
    return both.assign(size=1 - 2 * both["size"])


def _maps(records: pd.DataFrame, scores: Scores) -> dict[str, object]:
    both = sizes(records, scores)
    varies = len(both) >= FEW and (both.nunique() > 1).all()
    return {
        "difference": both["difference"].median(),
        "difference 75 %": both["difference"].quantile(0.75),
        "size": both["size"].median(),
        "rank correlation": float(spearmanr(both["size"], both["difference"]).statistic) if varies else np.nan,
    }


Rows = dict[tuple[str, str], dict[tuple[str, str], str]]  # source and methods; in each the kind of score and the quantity


def _of_paper() -> Rows:
    rows: Rows = {(PAPER, paper.pair_name(pair)): {} for pair in paper.PAIRS}
    for (scores, pair), cell in paper.CELLS.items():
        found = {"as it is": cell.relative_performance, "mean": cell.mean, "deviation": cell.std}
        rows[PAPER, paper.pair_name(pair)] |= {(LONG[scores], name): f"{value:.2f}" for name, value in found.items()}
    return rows


def _of_run(run: Run) -> Rows:
    source = named(run, run.records)
    rows: Rows = {(source, paper.pair_name(pair)): {} for pair in paper.PAIRS}
    for (scores, pair), found in summaries(run.records).items():
        rows[source, paper.pair_name(pair)] |= {
            (LONG[scores], "as it is"): _with_interval(found),
            (LONG[scores], "at equal heat"): _at_equal_heat(run.records, scores, pair),
            (LONG[scores], "mean"): _number(found.mean),
            (LONG[scores], "deviation"): _number(found.std),
        }
    return rows


def _at_equal_heat(records: pd.DataFrame, scores: Scores, pair: paper.Pair) -> str:
    found = at_equal_heat(records, scores, pair[0]) if pair[1] == "gradcam" else None
    return _with_interval(found) if found else ""


def _with_interval(found: Summary) -> str:
    if math.isnan(found.mean):
        return UNDEFINED
    form = ".3f" if found.high < 100 else ",.0f"
    low, high = format(found.low, form), format(found.high, form)
    return f"{found.relative_performance:{form}} [{low},\u00a0{high}]"  # breaks before its interval only


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:z.3f}"


def _frame(rows: Rows, *quantities: str) -> pd.DataFrame:
    known = {key for cells in rows.values() for key in cells}
    columns = [(LONG[scores], quantity) for scores in SCORES for quantity in quantities if (LONG[scores], quantity) in known]
    cells = [[values.get(key, "") for key in columns] for values in rows.values()]
    index = pd.MultiIndex.from_tuples(list(rows), names=["", "methods"])
    return pd.DataFrame(cells, index=index, columns=pd.MultiIndex.from_tuples(columns))
