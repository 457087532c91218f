"""Several runs in one figure: Figures 4 and 6 of the paper, a panel each; and where the equivalence weakens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

from gradcampp.cam import SCORES, Scores
from gradcampp.evaluation.alphas import tanh_histogram
from gradcampp.evaluation.records import Run
from gradcampp.results.comparison import sizes
from gradcampp.results.figures.data_set import ratios
from gradcampp.results.figures.style import BY_NAME, COLOURS, LONG, REFERENCE, canvas, ratio_ticks

COLUMNS = 2


def alpha_distributions(runs: Mapping[str, Run]) -> Figure:
    """Histograms of the tanh-squeezed distance of the non-zero alphas from 1/2, pre and post.

    Source: Lerma & Lucas (2022), Figure 4.
    """
    rows = math.ceil(len(runs) / COLUMNS)
    with canvas(7, 2.1 * rows + 0.7) as figure:
        axes = figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).ravel()
        for axis, run in zip(axes, runs.values(), strict=False):
            for scores in (kind for kind in SCORES if run.alphas[kind].count):
                counts, edges = tanh_histogram(run.alphas[scores])
                axis.stairs(counts / counts.sum(), edges, fill=True, alpha=0.6, color=COLOURS[scores], label=LONG[scores])
            axis.set(yscale="log", xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1], title=run.title)
        for axis in axes[len(runs) :]:
            axis.set_axis_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        figure.supylabel(r"share of the alphas, by $\tanh(\alpha^k_{ij} - 1/2)$", fontsize=10)
        return figure


def relative_performances(runs: Mapping[str, Run]) -> Figure:
    """Boxplots of the relative performance per image, for each pair of methods, pre and post, without outliers.

    Source: Lerma & Lucas (2022), Figure 6.
    """
    lines = math.ceil(len(runs) / COLUMNS)
    with canvas(7, 2.6 * lines + 0.4) as figure:
        axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
        for axis, run in zip(axes, runs.values(), strict=False):
            axis.axhline(1, **REFERENCE)
            look: dict[str, Any] = {"log_scale": True, "showfliers": False, "width": 0.6, "palette": BY_NAME}
            rows = ratios(run.records)
            rows["pair"] = rows["pair"].str.replace("Grad-", "").str.replace(" vs ", " vs\n")
            axis.set(xlabel="", ylabel="", title=run.title)
            if rows.empty:
                axis.text(0.5, 0.5, "undefined", ha="center", transform=axis.transAxes)
                continue
            sns.boxplot(rows, x="pair", y="ratio", hue="map", ax=axis, **look)
            axis.set(xlabel="", ylabel="")
            ratio_ticks(axis)
            axis.tick_params(axis="x", labelsize=8)
            axis.get_legend().remove()
        for axis in axes[len(runs) :]:
            axis.set_axis_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        figure.supylabel("relative performance per image", fontsize=10)
        return figure


def weakening(runs: Mapping[str, Run]) -> Figure:
    """Size of s * g against the difference of the maps of Grad-CAM++ and Grad-CAM+: every image, and the median of each run.

    Images whose size or difference is 0 have no place on the logarithmic axes, and a run of such images has no mark.

    Source: ours; the columns ``size`` and ``difference`` of :func:`gradcampp.results.comparison.weakening`.
    """
    markers: dict[Scores, str] = {"pre": "o", "post": "^"}
    with canvas(7, 4 + 0.2 * len(runs)) as figure:
        axis = figure.subplots()
        for (name, run), colour in zip(runs.items(), sns.color_palette("colorblind", len(runs)), strict=True):
            for scores, marker in markers.items():
                both = sizes(run.records, scores)
                axis.scatter(both["size"], both["difference"], s=4, color=colour, alpha=0.25, linewidths=0, marker=marker)
                middle = both.median().where(lambda value: value > 0)
                median: dict[str, Any] = {"marker": marker, "s": 70, "edgecolors": "black", "zorder": 3}
                axis.scatter(middle["size"], middle["difference"], color=colour, label=f"{name}, {LONG[scores]}", **median)
        if not axis.dataLim.get_points()[1].max() > 0:
            axis.set(xlim=(1e-3, 1), ylim=(1e-3, 1))  # nothing to see, and no end of an axis to be found
        axis.set(xscale="log", yscale="log", xlabel=r"size of $s\,g$: $1 - 2\alpha$ where it counts in the map")
        axis.set_ylabel("largest difference of the maps")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return figure
