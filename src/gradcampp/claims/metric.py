"""The claims about the metric of section 4: what it rewards, and whether it can tell what it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcampp import paper
from gradcampp.cam import Scores, column
from gradcampp.claims.claim import (
    EQUIVALENCE_MARGIN,
    Finding,
    UntestedError,
    above,
    cannot_tell,
    empirical,
    empirical_of_scores,
    number,
    ratio,
    verdict,
)
from gradcampp.equivalence import control, of_run
from gradcampp.evaluation.records import Run
from gradcampp.paper import Pair
from gradcampp.performance import at_equal_heat, compared, confidence_drops, drop_and_increase, interval, summarise


@empirical_of_scores(
    "4-control",
    section="4",
    criterion=f"90 % interval of Grad-CAM++ against Grad-CAM beyond a factor of {EQUIVALENCE_MARGIN}; fails where it is within",
)
def negative_control(run: Run, scores: Scores) -> Finding:
    """A fixed factor of 1.1 can tell Grad-CAM from Grad-CAM++: it does not call them equivalent."""
    means = of_run(run.records, scores)["by image"]
    (low, high), decision = means.whole_ratio().hull(), control(means, EQUIVALENCE_MARGIN)
    told = f"Grad-CAM++ against Grad-CAM {number(math.exp(float(means.gain)))} [{number(low)}, {number(high)}], 90 %: {decision}"
    return cannot_tell(told) if decision == "cannot tell" else verdict(decision == "not equivalent", told)


@empirical_of_scores(
    "4-warmth",
    section="4",
    criterion=f"score of the whole image over that of the explanation map of Grad-CAM+: 95 % interval above 1; fails where it "
    f"reaches 1 and ends below {EQUIVALENCE_MARGIN}",
)
def warmth(run: Run, scores: Scores) -> Finding:
    """A map of ones, which points at nothing, does better than Grad-CAM+ by the paper's metric, in images over the threshold."""
    compared(run.records, scores)
    rows = run.records[["score", column(scores, "gradcam+")]].dropna()
    found = summarise(rows["score"], rows[column(scores, "gradcam+")])
    return above(found.low, found.high, 1, ratio(found), matters=EQUIVALENCE_MARGIN)


def _with_controls(run: Run, *columns: str) -> tuple[NDArray[np.float64], ...]:
    """Columns of the records in the images that have all of them, (n,) each.

    Raises:
        UntestedError: if there are fewer than two such images, as in a run that was made without controls.
    """
    rows = run.records.reindex(columns=list(columns)).dropna()
    if len(rows) < 2:
        raise UntestedError("the run was made without controls")
    return tuple(rows[name].to_numpy(np.float64) for name in columns)


@empirical_of_scores(
    "4-better-matched",
    section="4",
    table=1,
    criterion=f"95 % interval above 1; fails where it reaches 1 and ends below {EQUIVALENCE_MARGIN}",
)
def better_at_equal_heat(run: Run, scores: Scores) -> Finding:
    """Grad-CAM++ does better than Grad-CAM at equal heat: with its map raised to the power that makes both equally warm."""
    whole = compared(run.records, scores)[paper.PAIRS[0]].relative_performance
    matched, plus = (at_equal_heat(run.records, scores, method) for method in ("gradcam++", "gradcam+"))
    if matched is None or plus is None:
        raise UntestedError("the run was made without controls")
    told = f"{ratio(matched)}, and as it is {number(whole)}; Grad-CAM+ at equal heat {ratio(plus)}"
    return above(matched.low, matched.high, 1, told, matters=EQUIVALENCE_MARGIN)


@empirical(
    "2-positive-drop",
    section="4",
    criterion=f"score with the ReLU over that without it: 95 % interval above 1; fails where it reaches 1 and ends below "
    f"{EQUIVALENCE_MARGIN}",
)
def worse_without_relu(run: Run) -> Finding:
    """Positive gradients are necessary: Grad-CAM++ does worse where the negative ones are kept."""
    compared(run.records, "pre")
    kept, signed = _with_controls(run, "pre_gradcam_plusplus", "pre_signed")
    found = summarise(kept, signed)
    return above(found.low, found.high, 1, ratio(found), matters=EQUIVALENCE_MARGIN)


@empirical(
    "2-positive-necessary",
    section="4",
    criterion="without the ReLU, and with alphas that have no poles, Grad-CAM++ still loses more than half of the log that it "
    "loses with them (paired 95 % interval); fails where that is certainly less, so that the poles lose it; cannot tell where "
    "nothing is certainly lost",
    expected="fails",
)
def positive_is_necessary(run: Run) -> Finding:
    """Most of the drop of Grad-CAM++ without the ReLU comes from negative gradients, not from the poles of the alphas."""
    compared(run.records, "pre")
    whole, signed, tame = map(np.log, _with_controls(run, "pre_gradcam_plusplus", "pre_signed", "pre_signed_tame"))
    lost, without_poles = whole - signed, whole - tame
    told = "of its score with the ReLU are left: " + ", ".join(
        f"{name} {ratio(summarise(np.exp(values), np.exp(whole)))}"
        for name, values in (("without it", signed), ("without it and without poles", tame))
    )
    drop, rest = _log_interval(lost), _log_interval(without_poles - lost / 2)
    if drop[0] <= 0:
        return cannot_tell(f"{told}; nothing is certainly lost")
    told += f"; {without_poles.mean() / lost.mean():.0%} of the log that is lost is still lost without poles"
    return above(*rest, 0, told)


def _log_interval(logs: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a mean of logarithms."""
    low, high = interval(float(logs.mean()), float(logs.std(ddof=1)), logs.size)
    return math.log(low), math.log(high)


@empirical_of_scores(
    "4-drop",
    section="4",
    criterion="pairs that relative performance tells apart (95 % interval without 1) come in the same order, certainly so, by "
    "average drop and by increase; fails where one certainly comes in the other",
)
def other_metrics_agree(run: Run, scores: Scores) -> Finding:
    """Average drop and increase in confidence order the three methods as relative performance does."""
    pairs = _in_order(run, scores, lambda pair: _gains(run.records, scores, pair))
    table = drop_and_increase(run.records).set_index(["scores", "method"]).loc[scores]
    shown = (f"{paper.NAMES[method]} {table['drop'][method]:.1%} and {table['increase'][method]:.1%}" for method in paper.NAMES)
    told = [f"drop and increase: {', '.join(shown)}"]
    told += [f"{paper.pair_name(pair)} otherwise by {name}" for pair, name, _, agrees in pairs if agrees is False]
    agrees = [one.agrees for one in pairs]
    if _is_open(agrees):
        return cannot_tell(f"{told[0]}; {len(agrees)} comparisons, {agrees.count(None)} of them undecided")
    return verdict(all(agrees), "; ".join(told))


class _Compared(NamedTuple):
    """A pair of methods by another measure: the gain of the first, image by image, and whether it is one, if that is certain."""

    pair: Pair
    name: str
    gain: NDArray[np.float64]
    agrees: bool | None


def _in_order(run: Run, scores: Scores, gains: Callable[[Pair], dict[str, NDArray[np.float64]]]) -> list[_Compared]:
    """The pairs that relative performance tells apart, by other measures: in the same order, in the other, or undecided."""
    found = []
    for pair, summary in compared(run.records, scores).items():
        if summary.low <= 1 <= summary.high:
            continue
        for name, gain in gains(pair).items():
            low, high = _log_interval(gain if summary.low > 1 else -gain)
            found.append(_Compared(pair, name, gain, low > 0 or (False if high < 0 else None)))
    return found


def _is_open(agrees: list[bool | None]) -> bool:
    """True where nothing is compared, or something is undecided and nothing disagrees."""
    return not agrees or (None in agrees and False not in agrees)


def _gains(records: pd.DataFrame, scores: Scores, pair: Pair) -> dict[str, NDArray[np.float64]]:
    """By how much the first of two methods has a smaller average drop, and a larger increase, image by image."""
    names = [column(scores, method) for method in pair]
    rows = records[["score", *names]].dropna()
    own = rows["score"].to_numpy(np.float64)
    first, second = (rows[name].to_numpy(np.float64) for name in names)
    drops = confidence_drops(own, second) - confidence_drops(own, first)
    more = (first > own).astype(np.float64) - (second > own)
    return {"average drop": drops, "increase": more}


@empirical(
    "4-curves",
    section="4",
    criterion="pairs that relative performance tells apart, pre-softmax, come in the same order, certainly so, by insertion and "
    "by deletion; fails where one certainly comes in the other",
    expected="fails",
)
def curves_agree(run: Run) -> Finding:
    """Insertion and deletion, which the warmth of a map does not move, order the methods as relative performance does."""

    def gains(pair: Pair) -> dict[str, NDArray[np.float64]]:
        names = [f"{column('pre', method)}_{curve}" for curve in ("insertion", "deletion") for method in pair]
        more, less, slower, faster = _with_controls(run, *names)
        return {"insertion": more - less, "deletion": faster - slower}

    pairs = _in_order(run, "pre", gains)
    agrees = [one.agrees for one in pairs]
    told = [f"{paper.pair_name(one.pair)} {one.name} {one.gain.mean():+.4f}" for one in pairs]
    told.append(f"{len(agrees)} comparisons, {agrees.count(True)} agree, {agrees.count(False)} do not")
    return cannot_tell(", ".join(told)) if _is_open(agrees) else verdict(all(agrees), ", ".join(told))
