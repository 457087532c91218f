"""Figures 4 and 6 of the paper, and what else is drawn of a data set."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gradcampp import paper
from gradcampp.cam import METHODS, SCORES, Scores, column
from gradcampp.evaluation.alphas import Histogram, box, tanh_histogram
from gradcampp.performance import log_relative_performance
from gradcampp.results.figures.style import COLOURS, LONG, PALETTE, STYLE, compact

_LOG_TICKS = (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 4), ((1,), 8))


def localisation(rows: pd.DataFrame) -> Figure:
    """Each localisation metric by number of instances and method, with bootstrap intervals.

    Args:
        rows: as ``localisation.averages`` returns it, for one kind of score.
    """
    titles = {
        "pointing_game": "hottest pixel on an instance",
        "energy_inside": "heat inside the masks",
        "best_iou": "best intersection over union",
        "instance_recall": "instances found",
    }
    markers = {"gradcam": "o", "gradcam+": "s", "gradcam++": "^"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 5.6), layout="constrained")
        for axis, (metric, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
            for place, method in enumerate(METHODS):
                own = rows[(rows["metric"] == metric) & (rows["method"] == method)]
                centres = own["instances"] + 0.12 * (place - 1)
                spread = [own["mean"] - own["low"], own["high"] - own["mean"]]
                axis.errorbar(
                    centres, own["mean"], spread, fmt=markers[method], color=PALETTE[place], capsize=3, label=paper.NAMES[method]
                )
            axis.set(title=title, xlabel="instances of the class", ylabel="mean over scenes", ylim=(0, 1.02))
            axis.set_xticks(sorted(rows["instances"].unique()))
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        return figure


def alpha_distribution(stream: Histogram, scores: Scores) -> Figure:
    """Boxplot of the non-zero alphas of a data set, and histogram of their tanh-squeezed distance from 1/2.

    Source: Lerma & Lucas (2022), Figure 4.
    """
    quartiles = box(stream)
    counts, edges = tanh_histogram(stream)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.8])
        left.axhline(0.5, color="0.6", linewidth=1, linestyle="--", zorder=0)
        left.bxp(
            [
                {
                    "whislo": quartiles.low_whisker,
                    "q1": quartiles.first_quartile,
                    "med": quartiles.median,
                    "q3": quartiles.third_quartile,
                    "whishi": quartiles.high_whisker,
                    "label": "",
                }
            ],
            showfliers=False,
            widths=0.4,
            patch_artist=True,
            boxprops={"facecolor": COLOURS[scores]},
            medianprops={"color": "black"},
        )
        left.set(title=rf"non-zero $\alpha^k_{{ij}}$, {LONG[scores]}", xticks=[])
        left.set_xlabel(f"{stream.count:,} values\nfrom {compact(stream.minimum)} to {compact(stream.maximum)}")
        right.stairs(counts, edges, fill=True, color=COLOURS[scores])
        right.set(
            xticks=[-1, -0.5, 0, 0.5, 1],
            yscale="log",
            xlim=(-1, 1),
            ylim=(0.5, None),
            title="all of them, squeezed",
            ylabel="count",
        )
        right.set_xlabel(r"$\tanh(\alpha^k_{ij} - 1/2)$")
        return figure


def relative_performances(records: pd.DataFrame) -> Figure:
    """Boxplots of the relative performance per image, for each pair of methods, pre and post.

    Source: Lerma & Lucas (2022), Figure 6.
    """
    frames = []
    for scores in SCORES:
        for pair in paper.PAIRS:
            first, second = (column(scores, method) for method in pair)
            both = records[[first, second]].dropna()
            ratios = np.exp(log_relative_performance(both[first], both[second]))
            frames.append(
                pd.DataFrame({"ratio": ratios, "pair": paper.pair_name(pair).replace(" vs ", "\nvs "), "map": LONG[scores]})
            )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4), layout="constrained")
        axis = figure.subplots()
        axis.axhline(1, color="0.6", linewidth=1, linestyle="--", zorder=0)
        sns.boxplot(
            pd.concat(frames), x="pair", y="ratio", hue="map", ax=axis, log_scale=True, showfliers=False, width=0.6,
            palette=[COLOURS[scores] for scores in SCORES],
        )  # fmt: skip
        _plain_log_ticks(axis)
        axis.set(xlabel="", ylabel="relative performance per image")
        axis.legend(title="explanation maps", frameon=False, loc="best")
        return figure


def certificates(records: pd.DataFrame) -> Figure:
    """Each image's certificate and the largest difference that was seen, pre and post.

    Args:
        records: with columns ``pre_certificate``, ``pre_difference`` and those of post; images without are left out.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True, sharex=True)
        low = 1e-3
        for axis, scores in zip(axes, SCORES, strict=True):
            names = [f"{scores}_certificate", f"{scores}_difference"]
            both = records[names].dropna()
            both = both[(both > 0).all(axis=1)]
            low = min([low, *(both.min() / 1.5 if len(both) else [])])
            axis.scatter(both[names[0]], both[names[1]], s=6, alpha=0.35, color=COLOURS[scores], linewidths=0)
            axis.set(xscale="log", yscale="log", title=f"{LONG[scores]}, {len(both):,} images", xlabel="certificate")
        for axis in axes:
            axis.plot([low, 1], [low, 1], color="0.6", linestyle="--", linewidth=1, zorder=0)
            axis.set(xlim=(low, 1.2), ylim=(low, 1.2))
        axes[0].set_ylabel("largest difference seen")
        return figure


def _plain_log_ticks(axis: Axes) -> None:
    """A logarithmic axis of ratios marked 0.5, 1, 2, not 10^0."""
    low, high = axis.get_ylim()
    even = [[step * place for place in range(1, 201)] for step in (0.05, 0.1, 0.2, 0.5)]
    uneven = [[m * 10.0**power for power in range(-96, 97, every) for m in ms] for ms, every in _LOG_TICKS]
    for ticks in [*(grid for grid in even if low >= grid[0]), *uneven]:
        inside = [round(tick, 12) if tick > 1e-6 else tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 9:
            break
    axis.yaxis.set_major_locator(FixedLocator(inside))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
