"""Figures 1, 2, 3 and 5 of the paper, and what else is drawn of one picture or a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from gradcampp import paper
from gradcampp.cam import METHODS, Method, Scores, heatmap, min_max, upsample, weights
from gradcampp.evaluation.maps import Explanation
from gradcampp.networks.capture import Capture
from gradcampp.networks.scores import Score
from gradcampp.results.figures.style import PALETTE, REFERENCE, canvas, compact, long, show, wrapped


def overlay(pixels: Tensor, heat: Tensor) -> NDArray[np.float64]:
    """A picture (3, h, w) in grey under its heatmap (h, w), warmer where the map is high: RGB (h, w, 3), all in [0, 1]."""
    grey = pixels.double().mean(0).numpy()[..., None]  # (h, w, 1)
    colours = np.asarray(colormaps["inferno"](heat.double().numpy()))[..., :3]  # (h, w, 3)
    return 0.4 * grey + 0.6 * colours


def telling_maps(captured: Capture) -> list[int]:
    """Of one picture and its logit, the three feature maps that add most, and that from which cancelling gradients take most.

    They take the difference between the mean size of a map's gradients and the size of their mean, times the map.
    """
    weight, sums = captured.gradients["pre"][0].mean((1, 2)), captured.activations[0].sum((1, 2))  # (K,) each
    cancelled = (captured.gradients["pre"][0].abs().mean((1, 2)) - weight.abs()) * sums
    adding = (weight * sums).topk(min(3, len(weight))).indices.tolist()
    others = [channel for channel in cancelled.argsort(descending=True).tolist() if channel not in adding]
    return [*adding, *others[:1]]


def pipeline(captured: Capture, pixels: Tensor, class_name: str) -> Figure:
    """Grad-CAM from one picture to its heatmap, drawn from the network's own numbers for the logit of a class.

    Args:
        captured: that picture alone.
        pixels: in [0, 1], (3, h, w).

    Shown are those of :func:`telling_maps`.

    Source: Lerma & Lucas (2022), Figure 1.
    """
    activations, gradients = captured.activations, captured.gradients["pre"]
    weight = weights("gradcam", activations, gradients)[0]  # (K,)
    parts = weight[:, None, None] * activations[0]  # (K, H, W)
    strongest = telling_maps(captured)
    coarse = min_max(heatmap(weight[None], activations))  # (1, H, W)
    heat = upsample(coarse, (pixels.shape[1], pixels.shape[2]))[0]
    with canvas(8, 4) as figure:
        grid = figure.add_gridspec(3, len(strongest) + 3, width_ratios=[1.5, *[1] * len(strongest), 1.2, 1.5])
        photo = figure.add_subplot(grid[:, 0])
        show(photo, pixels.permute(1, 2, 0).numpy())
        photo.set_title(f"image\n“{class_name}”", parse_math=False)
        names = ("feature\nmaps $A^k$", "gradients\n" r"$\partial y/\partial A^k$", "$w_k A^k$")
        for row, (name, values) in enumerate(zip(names, (activations[0], gradients[0], parts), strict=True)):
            top = float(values[strongest].abs().max()) or 1.0
            colours, low = ("PuOr_r", -top) if row else ("viridis", 0.0)
            for place, channel in enumerate(strongest):
                axis = figure.add_subplot(grid[row, 1 + place])
                show(axis, values[channel].double().numpy(), cmap=colours, vmin=low, vmax=top)
                if place == 0:
                    axis.set_ylabel(name)
                if row == 0:
                    axis.set_title(f"k = {channel}")
                if row == 1:
                    axis.set_title(f"$w_k$ = {float(weight[channel]):.2g}", fontsize=9)
        combined, result = (figure.add_subplot(grid[:, place]) for place in (-2, -1))
        show(combined, parts.sum(0).relu().double().numpy(), cmap="inferno")
        combined.set_title("ReLU of\n" + r"$\sum_k w_k A^k$")
        show(result, overlay(pixels, heat))
        result.set_title("upsampled, on\nthe image")
        return figure


def solutions(coefficients: tuple[float, float], value: float, marked: Sequence[tuple[float, float]]) -> Figure:
    """All alphas of two units that solve eq. 10: a line, with some of its points marked.

    ``value`` is the right side of the equation; the second coefficient is not 0.

    Source: Lerma & Lucas (2022), section 3.1.1.
    """
    first, second = coefficients
    ends = np.array([-1.5, 3.0])
    with canvas(5.5, 3.6) as figure:
        axis = figure.add_subplot()
        axis.axhline(0, color="0.8", linewidth=1, zorder=0)
        axis.axvline(0, color="0.8", linewidth=1, zorder=0)
        axis.plot(ends, (value - first * ends) / second, color=PALETTE[0], linewidth=2)
        for alphas in marked:
            axis.plot(*alphas, "o", color=PALETTE[1])
            text = ", ".join(str(Fraction(alpha).limit_denominator(1000)) for alpha in alphas)
            axis.annotate(f"({text})", alphas, xytext=(6, 6), textcoords="offset points")
        axis.set(xlabel=r"$\alpha_1$", ylabel=r"$\alpha_2$", xlim=tuple(ends))
        axis.set_title(rf"${first:g}\,\alpha_1 + {second:g}\,\alpha_2 = {value:g}$")
        return figure


def explanations(rows: Sequence[Explanation], names: Sequence[str], scores: Scores, score: Score = "softmax") -> Figure:
    """Each row a picture and a class, each column a method; class names are in the order of the logits.

    Source: Lerma & Lucas (2022), Figure 5; with several rows of one picture, Figure 2.
    """
    with canvas(7, 1.6 * len(rows) + 0.45, parse_math=False) as figure:  # a class may be called $
        axes = figure.subplots(len(rows), 1 + len(METHODS), squeeze=False)
        for place, row in enumerate(rows):
            pictures = [row.pixels.permute(1, 2, 0).numpy(), *(overlay(row.pixels, row.maps[method]) for method in METHODS)]
            for axis, picture in zip(axes[place], pictures, strict=True):
                show(axis, picture)
            for method in row.empty:
                where = axes[place, 1 + METHODS.index(method)]
                where.text(0.5, 0.5, "empty", color="white", ha="center", va="center", transform=where.transAxes)
            axes[place, 0].set_ylabel(f"{wrapped(names[row.label])}\nscore {float(row.probabilities[row.label]):.3g}")
        for axis, title in zip(axes[0], ["picture", *(paper.NAMES[method] for method in METHODS)], strict=True):
            axis.set_title(title)
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "inferno")
        figure.colorbar(scale, ax=axes[:, -1], ticks=[0, 0.5, 1], label=f"heatmap, {long(scores, score)}", shrink=0.8)
        return figure


def at_layers(rows: Mapping[str, Sequence[Explanation]], names: Sequence[str]) -> Figure:
    """Each row a picture, each three columns the methods at a layer; class names are in the order of the logits.

    Args:
        rows: explanations of the same pictures and classes by layer.
        names: of the classes.
    """
    first = next(iter(rows.values()))
    with canvas(8, 1.15 * len(first) + 0.6, parse_math=False) as figure:
        axes = figure.subplots(len(first), 1 + len(METHODS) * len(rows), squeeze=False)
        axes[0, 0].set_title("picture", fontsize=9)
        for place, row in enumerate(first):
            show(axes[place, 0], row.pixels.permute(1, 2, 0).numpy())
            label = f"{wrapped(names[row.label])}\nscore {float(row.probabilities[row.label]):.3g}"
            axes[place, 0].set_ylabel(label, fontsize=8)
        for number, (layer, each) in enumerate(rows.items()):
            for column, method in enumerate(METHODS, 1 + number * len(METHODS)):
                middle = METHODS.index(method) == len(METHODS) // 2
                axes[0, column].set_title(f"{layer if middle else ''}\n{paper.NAMES[method]}", fontsize=9)
                for axis, row in zip(axes[:, column], each, strict=True):
                    show(axis, overlay(row.pixels, row.maps[method]))
        return figure


def explanation_maps(row: Explanation, scores: Mapping[Method, float]) -> Figure:
    """A picture as the network sees it through each method's map, with the score of each such explanation map.

    Source: Lerma & Lucas (2022), eq. 15.
    """
    with canvas(6, 2.4) as figure:
        for axis, (method, score) in zip(figure.subplots(1, len(scores)), scores.items(), strict=True):
            show(axis, (row.maps[method] * row.pixels).permute(1, 2, 0).numpy())
            axis.set(title=paper.NAMES[method], xlabel=f"$O^c$ = {score:.3g}")
        return figure


def single_alphas(row: Explanation) -> Figure:
    """Boxplots of the non-zero alphas of one picture, and of the term that moves them away from 1/2.

    Source: Lerma & Lucas (2022), Figure 3.
    """
    with canvas(6, 3.4) as figure:
        titles = (r"$\alpha^k_{ij}$", r"$\sum_{ab} A^k_{ab}\,(\partial S/\partial A^k_{ij})$")
        shown = zip(figure.subplots(1, 2), (row.alphas, row.products), titles, (0.5, 0.0), strict=True)
        for axis, values, title, reference in shown:
            axis.axhline(reference, **REFERENCE)
            sns.boxplot(y=values.double().numpy(), ax=axis, color=PALETTE[0], width=0.4, showfliers=False)
            counted = f"{values.numel():,} units with a gradient\nfrom {compact(values.min())} to {compact(values.max())}"
            axis.set(title=title, xlabel=counted, ylabel="")
        return figure


def alpha_pole() -> Figure:
    """The alpha as a function of its product, and the values that float32 has for it next to the pole.

    Source: Lerma & Lucas (2022), eq. 13 and section 3.4; theorems 1 and 7 of the companion.
    """
    with canvas(7, 3.3) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
        left.axvspan(0, 3, color=PALETTE[2], alpha=0.15, linewidth=0)
        left.axhline(0.5, **REFERENCE)
        left.axvline(-2, color="0.6", linewidth=1, linestyle=":", zorder=0)
        for side in (np.linspace(-5, -2.05, 200), np.linspace(-1.95, 3, 400)):
            left.plot(side, 1 / (2 + side), color=PALETTE[0])
        left.annotate("positive gradients:\nonly these count", (1.5, 2), ha="center", fontsize=9)
        left.set(xlim=(-5, 3), ylim=(-4, 4), xticks=[-4, -2, 0, 2], xlabel=r"$s_k\,g$", title=r"$\alpha = 1/(2 + s_k\,g)$")
        above, below = np.arange(1, 25) * 2.0**-23, -np.arange(1, 13) * 2.0**-22
        right.axhline(0, color="0.6", linewidth=1, zorder=0)
        for distances in (below, above):
            right.plot(distances * 1e6, 1 / distances, "o", color=PALETTE[0], markersize=3)
        for value, (steps, exponent) in paper.EXTREMES.items():
            place, negative = steps * 2.0**exponent * 1e6, value < 0
            right.plot(place, value, "o", color=PALETTE[3], markersize=7, markerfacecolor="none")
            right.annotate(
                f"{value}", (place, value), (-12, -8) if negative else (0, 10), textcoords="offset points", fontsize=9,
                ha="right" if negative else "center", va="top" if negative else "bottom",
            )  # fmt: skip
        right.set_yscale("symlog", linthresh=1e5)
        right.set(ylim=(-3e7, 3e7), yticks=[-1e7, -1e6, -1e5, 0, 1e5, 1e6, 1e7])
        right.set(xlabel=r"distance of $s_k\,g$ from $-2$, in millionths", title="its values in float32")
        return figure


def family(captured: Capture, pixels: Tensor, lams: Sequence[float]) -> Figure:
    """One picture's logit under Grad-CAM++ with several constants lam, and how far each map is from that of Grad-CAM+.

    Args:
        captured: feature maps and gradients of that picture alone, after a ReLU.
        pixels: in [0, 1], (3, h, w).
        lams: the constants of eq. 12, from 0 up.
    """
    activations, gradients = captured.activations.double(), captured.gradients["pre"].double()
    plus = min_max(heatmap(weights("gradcam+", activations, gradients), activations))[0]
    columns, rows = min(4, len(lams)), math.ceil(len(lams) / 4)
    with canvas(7, 2.15 * rows + 0.1) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.set_axis_off()
        for axis, lam in zip(axes, lams, strict=False):
            heat = min_max(heatmap(weights("gradcam++", activations, gradients, lam), activations))
            axis.imshow(overlay(pixels, upsample(heat, (pixels.shape[1], pixels.shape[2]))[0]))
            moved = float((heat[0] - plus).abs().max())
            axis.set_title(rf"$\lambda$ = {lam:,.12g}" "\n" f"difference {moved:.3f}", fontsize=9)
        return figure


def shrinkages(products: Tensor, kept: Tensor) -> Figure:
    """A positive gradient before and after Grad-CAM++, and what channels keep by what they add to the map of Grad-CAM+.

    ``products`` are s * g of one image, (K, H, W), and ``kept`` the share of its weight that each channel keeps, (K,).
    """
    terms = np.linspace(0, 12, 200)
    with canvas(7, 2.9) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(terms, terms / 2, color="0.6", linestyle="--", label="half of it: Grad-CAM+")
        left.plot(terms, terms / (2 + terms), color=PALETTE[0], label="Grad-CAM++")
        positive = products[products > 0].double()
        inside = float((positive <= terms[-1]).double().mean())
        sns.rugplot(positive[positive <= terms[-1]].numpy()[:2000], ax=left, color=PALETTE[1], height=0.04)
        left.set(xlim=(0, terms[-1]), ylim=(0, 2), ylabel="what is summed")
        left.set_xlabel(rf"$t = \lambda\, s_k\, r$" "\n" f"(marks: the picture's own, {inside:.0%} of them)")
        left.legend(frameon=False, loc="upper right")
        added = products.relu().sum((1, 2)).double()  # (K,)
        shares = added / added.sum()
        right.scatter(shares[added > 0], kept[added > 0], s=10, color=PALETTE[0], alpha=0.6, linewidths=0)
        right.axhline(float((shares * kept).sum()), **REFERENCE)
        right.set(xscale="log", ylim=(0, 1.02), xlabel="channel's share of the Grad-CAM+ map", ylabel=r"kept, $1 - \delta_k$")
        return figure
