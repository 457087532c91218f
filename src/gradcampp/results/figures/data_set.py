"""Figures 4 and 6 of the paper, and what else is drawn of a data set."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gradcampp import paper
from gradcampp.cam import METHODS, SCORES, Scores, column
from gradcampp.evaluation.alphas import Histogram, box, tanh_histogram
from gradcampp.networks.scores import Score
from gradcampp.performance import UndefinedError, compared, log_relative_performance
from gradcampp.results.figures.style import COLOURS, LONG, PALETTE, REFERENCE, canvas, compact, long, ratio_ticks

_METRICS = {
    "pointing_game": "hottest pixel on or near one",
    "energy_inside": "heat inside the masks",
    "instance_recall": "instances found",
    "iou_15": "overlap, from 15 % heat",
    "iou_50": "overlap, from 50 % heat",
}
_RIVALRY = {
    "own": "heat on the explained object",
    "other": "heat on the other object",
    "points_at_own": "hottest pixel on the explained",
    "points_at_other": "hottest pixel on the other",
}


def localisation(rows: pd.DataFrame) -> Figure:
    """Each metric by number of instances and method, from ``localisation.averages`` for one kind of score."""
    with canvas(8.5, 5.6) as figure:
        *axes, corner = figure.subplots(2, 3).flat
        for axis, (metric, title) in zip(axes, _METRICS.items(), strict=True):
            for place, (method, marker) in enumerate(zip(METHODS, "os^", strict=True)):
                own = rows[(rows["metric"] == metric) & (rows["method"] == method)]
                centres = own["instances"] + 0.12 * (place - 1)
                spread = [own["mean"] - own["low"], own["high"] - own["mean"]]
                look: dict[str, Any] = {"fmt": marker, "color": PALETTE[place], "capsize": 3, "label": paper.NAMES[method]}
                axis.errorbar(centres, own["mean"], spread, **look)
            axis.set(title=title, xlabel="instances of the class", ylabel="mean over scenes", ylim=(0, 1.02))
            axis.set_xticks(sorted(rows["instances"].unique()))
        corner.axis("off")
        corner.legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
        return figure


def competition(rows: pd.DataFrame) -> Figure:
    """Heat on the object that is explained and on its rival, by method, from ``localisation.rivalry``; pre and post."""
    with canvas(7.5, 4.6) as figure:
        axes = figure.subplots(2, 2, sharex=True).flat
        for axis, (metric, title) in zip(axes, _RIVALRY.items(), strict=True):
            for place, scores in enumerate(kind for kind in SCORES if (rows["scores"] == kind).any()):
                own = rows[(rows["metric"] == metric) & (rows["scores"] == scores)].set_index("method").loc[list(METHODS)]
                spread = [own["mean"] - own["low"], own["high"] - own["mean"]]
                look: dict[str, Any] = {"fmt": "os"[place], "color": COLOURS[scores], "capsize": 3, "label": LONG[scores]}
                axis.errorbar(np.arange(len(own)) + 0.2 * place - 0.1, own["mean"], spread, **look)
            axis.set(title=title, ylim=(0, None), xlim=(-0.5, 2.5))
            axis.set_xticks(range(len(METHODS)), [paper.NAMES[method] for method in METHODS])
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        return figure


def alpha_distribution(stream: Histogram, scores: Scores, score: Score = "softmax") -> Figure:
    """Boxplot of the non-zero alphas of a data set, and histogram of their tanh-squeezed distance from 1/2.

    Source: Lerma & Lucas (2022), Figure 4.
    """
    found = box(stream)
    counts, edges = tanh_histogram(stream)
    with canvas(7, 3.3) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.8])
        left.axhline(0.5, **REFERENCE)
        drawn = dict(zip(("whislo", "q1", "med", "q3", "whishi"), astuple(found), strict=True)) | {"label": ""}
        colours: dict[str, Any] = {"boxprops": {"facecolor": COLOURS[scores]}, "medianprops": {"color": "black"}}
        left.bxp([drawn], showfliers=False, widths=0.4, patch_artist=True, **colours)
        left.set(title=rf"non-zero $\alpha^k_{{ij}}$, {long(scores, score)}", xticks=[])
        left.set_xlabel(f"{stream.count:,} values\nfrom {compact(stream.minimum)} to {compact(stream.maximum)}")
        right.stairs(counts, edges, fill=True, color=COLOURS[scores])
        right.set(xticks=[-1, -0.5, 0, 0.5, 1], yscale="log", xlim=(-1, 1), ylim=(0.5, None))
        right.set(title="all of them, squeezed", xlabel=r"$\tanh(\alpha^k_{ij} - 1/2)$", ylabel="count")
        return figure


def ratios(records: pd.DataFrame) -> pd.DataFrame:
    """The relative performance of each image: ``ratio``, ``pair`` of methods as in Table 1, and kind of ``map``.

    Without the kinds of score for which it is undefined in these records.
    """
    frames = [pd.DataFrame({"ratio": [], "pair": [], "map": []}, dtype=object)]
    for scores, pair in paper.CELLS:
        try:
            compared(records, scores)
        except UndefinedError:
            continue
        first, second = (column(scores, method) for method in pair)
        both = records[[first, second]].dropna()
        found = np.exp(log_relative_performance(both[first], both[second]))
        frames.append(pd.DataFrame({"ratio": found, "pair": paper.pair_name(pair), "map": LONG[scores]}))
    return pd.concat(frames[1:] or frames)


def relative_performances(records: pd.DataFrame, score: Score = "softmax") -> Figure:
    """Boxplots of the relative performance per image, for each pair of methods, pre and post.

    Source: Lerma & Lucas (2022), Figure 6.
    """
    rows = ratios(records)
    rows["pair"] = rows["pair"].str.replace(" vs ", "\nvs ")
    rows["map"] = rows["map"].map({LONG[scores]: long(scores, score) for scores in SCORES})
    colours = {long(scores, score): colour for scores, colour in COLOURS.items()}
    with canvas(6.5, 4) as figure:
        axis = figure.subplots()
        axis.axhline(1, **REFERENCE)
        look: dict[str, Any] = {"log_scale": True, "showfliers": False, "width": 0.6, "palette": colours}
        sns.boxplot(rows, x="pair", y="ratio", hue="map", ax=axis, **look)
        ratio_ticks(axis)
        axis.set(xlabel="", ylabel="relative performance per image")
        axis.legend(title="explanation maps", frameon=False, loc="best")
        return figure


def differences(records: pd.DataFrame) -> Figure:
    """Difference of the maps of Grad-CAM++ and Grad-CAM+ by the distance of the alphas from 1/2, and by the unevenness.

    Each image is a point, pre and post; images without (negative activations) are left out.
    """
    with canvas(7, 3.5) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for scores in SCORES:
            found = records[[f"{scores}_{name}" for name in ("difference", "effective_alpha", "unevenness")]].dropna()
            difference, alpha, uneven = (found[name] for name in found)
            look: dict[str, Any] = {"s": 6, "alpha": 0.35, "color": COLOURS[scores], "linewidths": 0, "label": LONG[scores]}
            left.scatter(0.5 - alpha, difference, **look)
            right.scatter(uneven, difference, **look)
        left.set(xlabel=r"$1/2 - \alpha$, mean by contribution", ylabel="largest difference of the maps")
        right.set(xlabel="unevenness of the shrinkage")
        right.legend(frameon=False, markerscale=3)
        return figure
