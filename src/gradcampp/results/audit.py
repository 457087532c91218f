"""An audit as a table, a figure, and for each package a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp

from gradcampp.cam import SCORES, column
from gradcampp.errors import InputError
from gradcampp.evaluation import audit
from gradcampp.evaluation.records import read_manifest
from gradcampp.files import atomic_write
from gradcampp.performance import confidence_drops, percent, summarise
from gradcampp.results import report, tables
from gradcampp.results.figures.style import COLOURS, LONG, REFERENCE, canvas

FLOOR = 1e-4  # smaller differences are drawn here
MARGIN = 1e-3  # mean difference of min-max maps below which two maps are called the same: no eye and no score sees it


class Package(NamedTuple):
    """A package: its formula in an audit, what it does to eq. 9, and how to get the exact map from it."""

    formula: str
    does: str
    exact: str


PACKAGES = {
    "grad-cam (pytorch-grad-cam) 1.5": Package(
        "grad-cam",
        "adds 1e-6 to the denominator of eq. 9, which is of the size of a squared gradient",
        "subclass `GradCAMPlusPlus` and let `get_cam_weights` return `gradcampp.weights`",
    ),
    "torchcam 0.5": Package(
        "torchcam",
        "divides a copy, so that alpha is the bare square of the gradient",
        "give `extractor.hook_a[0]` and `extractor.hook_g[0]` to `gradcampp.weights`",
    ),
    "omnixai 1.3": Package("omnixai", "adds 1e-8 to that denominator", "override `GradCAMPlus._compute_weights`"),
    "tf-keras-vis 0.8": Package(
        "tf-keras-vis",
        "lets all alphas of a channel sum to 1, which undoes them where gradients are constant within a map",
        "take gradients with `tf.GradientTape` and give them to `gradcampp.weights`",
    ),
    "xplique 2.0": Package(
        "xplique",
        "takes the mean of the activations for their sum",
        "override `GradCAMPP._compute_weights`, with `tf.reduce_sum` for `tf.reduce_mean`",
    ),
    "captum 0.9": Package(
        "captum",
        "has no Grad-CAM++ and claims none; its default map is that of Grad-CAM without the last ReLU",
        "`relu_attributions=True` gives Grad-CAM; for the others take what `LayerGradCam` calls inside, as the recipe shows",
    ),
    "the authors' repository": Package(
        "the authors' repository",
        "lets the alphas of positive gradients sum to 1, which the formula of the article does not say",
        "leave the normalisation out",
    ),
    "1Konny, yiskw713": Package(
        "1Konny",
        "multiplies each activation by the cube at its own unit before it sums, and adds 1e-7",
        "sum the activations first, as their issue 2 asks for",
    ),
}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each kind of score and formula, from the rows of :func:`gradcampp.evaluation.audit.long`.

    Returns:
        ``scores``, ``formula``, ``n`` photographs with a finite map, ``undefined`` and ``empty`` maps; ``mean``, the mean over
        photographs of the mean difference of the min-max maps, with its 95 % interval ``low``, ``high`` (Student's t); medians of
        ``weights``, ``largest``, ``pearson``, ``spearman``, ``top``, and the ``worst`` of the largest differences; of those
        ``scored``, ``ratio``, the relative performance against eq. 13 (eq. 16), with ``ratio_low`` and ``ratio_high``.

    Raises:
        InputError: if fewer than two photographs score over the threshold and have a map of eq. 13.
    """
    count, mapped = (each["image"].nunique() for each in (rows, rows[rows["formula"].eq("eq. 13") & rows["mean"].notna()]))
    if mapped < 2:
        few = f"{count} photographs score over the threshold, and {mapped} of them have a map of eq. 13 that is not constant"
        raise InputError(f"{few}; an audit needs two (a lower --threshold, more photographs or another --layer)")
    found = []
    for (scores, formula), own in rows.groupby(["scores", "formula"], sort=False):
        defined = own[own["mean"].notna()]
        ends = _interval(defined["mean"])
        scored = own[own["score"].notna() & own["reference"].notna()]
        told = len(scored), *_ratio(scored, "score", "reference")
        medians = [defined[name].median() for name in ("weights", "largest", "pearson", "spearman", "top")]
        counts = len(defined), len(own) - len(defined), int(defined["pearson"].isna().sum())
        found.append((scores, formula, *counts, defined["mean"].mean(), *ends, *medians, defined["largest"].max(), *told))
    names = ["scores", "formula", "n", "undefined", "empty", "mean", "low", "high"]
    names += ["weights", "largest", "pearson", "spearman", "top", "worst", "scored", "ratio", "ratio_low", "ratio_high"]
    return pd.DataFrame(found, columns=names)


def _interval(values: pd.Series[float]) -> tuple[float, float]:
    if len(values) < 2 or values.std() == 0:
        return (np.nan, np.nan) if len(values) < 2 else (float(values.mean()),) * 2
    found = ttest_1samp(values.to_numpy(np.float64), 0).confidence_interval(0.95)
    return float(found.low), float(found.high)


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: a row a formula, every cell a string."""
    shown = []
    for formula, own in found.groupby("formula", sort=False):
        line = {"formula": formula}
        for kind, row in own.set_index("scores").iterrows():
            line |= {
                f"{kind}: map": f"{_small(row['mean'])} [{_small(row['low'])},\u00a0{_small(row['high'])}]",
                f"{kind}: largest": _small(row["largest"]),
                f"{kind}: Spearman": f"{row['spearman']:.3f}",
                f"{kind}: top 20 %": f"{row['top']:.2f}",
                f"{kind}: score": f"{row['ratio']:.3f} [{row['ratio_low']:.3f},\u00a0{row['ratio_high']:.3f}]",
            }
        shown.append(line)
    return pd.DataFrame(shown)


def _small(value: float) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.0e}" if 0 < value < 5e-5 else f"{value:.4f}"


SHOWN = ("eq. 9", "Grad-CAM+", *dict.fromkeys(package.formula for package in PACKAGES.values()), "neighbour's weight")


def beside(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Packages in several audits: rows are an audit and a formula, columns the kind of score and a measure; strings."""
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for title, own in found.items():
        source = f"{title} (n = {own['n'].max()}; scores of {own['scored'].max()})"
        for kind, formula in ((kind, formula) for formula in SHOWN for kind in SCORES):
            row = own[(own["scores"] == kind) & (own["formula"] == formula)].iloc[0]
            rows.setdefault((source, formula), {}).update(
                {
                    (LONG[kind], "map"): f"{_small(row['mean'])} [{_small(row['low'])},\u00a0{_small(row['high'])}]",
                    (LONG[kind], "rank"): f"{row['spearman']:.3f}",
                    (LONG[kind], "top"): f"{row['top']:.0%}",
                    (LONG[kind], "score"): f"{row['ratio']:.3f} [{row['ratio_low']:.3f},\u00a0{row['ratio_high']:.3f}]",
                }
            )
    columns = [(LONG[kind], what) for kind in SCORES for what in ("map", "rank", "top", "score")]
    cells = [[values[key] for key in columns] for values in rows.values()]
    return pd.DataFrame(cells, index=pd.MultiIndex.from_tuples(list(rows)), columns=pd.MultiIndex.from_tuples(columns))


def candidates(rows: pd.DataFrame) -> pd.DataFrame:
    """Replacements for eq. 13 on all measures before the softmax, of the rows of an audit with controls.

    Returns:
        ``alpha``; ``map``, the mean difference of the min-max maps from eq. 13; ``n``, ``ratio``, ``low``, ``high``: relative
        performance against eq. 13; ``equal heat``, that of the maps when both have the heat of Grad-CAM's,
        with its interval; ``drop`` in confidence; ``insertion`` and ``deletion``. NaN where a measure is not defined.

    Source: ours; section 3.4 of Lerma & Lucas (2022) leaves a replacement to future work.
    """
    plusplus = column("pre", "gradcam++")
    named = [("eq. 13", "eq. 13", plusplus), ("1/2", "Grad-CAM+", column("pre", "gradcam+"))]
    named += [(formula, formula, "") for formula in audit.CANDIDATES]
    over, found = rows[rows["pre/eq. 13/score"].notna()], []
    for alpha, formula, known in named:  # by the columns of a run, or by those of an audit
        score, matched, insertion, deletion = (
            known + (what and f"_{what}") if known else audit.name("pre", formula, what or "score")
            for what in ("", "matched", "insertion", "deletion")
        )
        ratio, equal = _ratio(over, score, plusplus), _ratio(over, matched, f"{plusplus}_matched")
        drop = confidence_drops(over["score"], over[score].fillna(0)).mean()
        apart = over[audit.name("pre", formula, "mean")].mean()
        found.append((alpha, apart, len(over), *ratio, *equal, drop, over[insertion].mean(), over[deletion].mean()))
    names = ["alpha", "map", "n", "ratio", "low", "high", "equal heat", "heat_low", "heat_high"]
    names += ["drop", "insertion", "deletion"]
    return pd.DataFrame(found, columns=names)


def _ratio(rows: pd.DataFrame, first: str, second: str) -> tuple[float, float, float]:
    both = rows[(rows[first] > 0) & (rows[second] > 0)]
    if len(both) < 2:
        return (np.nan,) * 3
    found = summarise(both[first], both[second])
    return found.relative_performance, found.low, found.high


def sentences(found: pd.DataFrame) -> dict[str, str]:
    """For each package what it does, how far that is from eq. 13 beside leaving all alphas out, and how to get the exact map."""
    far = found.set_index(["scores", "formula"])["mean"]
    told = {}
    for name, package in PACKAGES.items():
        own = [float(far[kind, package.formula]) for kind in SCORES]
        plus = [float(far[kind, "Grad-CAM+"]) for kind in SCORES]
        compared = [f" ({_beside(one, other)})" for one, other in zip(own, plus, strict=True)]
        if package.formula == "captum":  # it claims no Grad-CAM++, so that nobody would leave its alphas out
            compared = ["", ""]
        told[name] = (
            f"{package.does}; its map differs from eq. 13 by {_small(own[0])} before the softmax{compared[0]} and by "
            f"{_small(own[1])} after it{compared[1]}. The exact map: {package.exact}."
        )
    return told


def _beside(own: float, plus: float) -> str:
    if np.isnan(own / plus if own >= MARGIN else own):
        return "nothing to compare"
    if own < MARGIN:
        return "the same map"
    factor = own / plus
    if 0.9 < factor < 1.1:
        return "as far as Grad-CAM+ is"
    return f"{factor:.{0 if factor >= 10 else 2}f} times as far as Grad-CAM+ is"


def figure(found: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean difference of each formula's min-max map from that of eq. 13, with 95 % intervals; a panel for each audit by name."""
    panels = list(found.items())
    with canvas(7.4, 5.6) as drawn:
        axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, rows) in zip(axes, panels, strict=True):
            order = [name for name in audit.FORMULAS if name not in ("eq. 9",)][::-1]
            for place, kind in enumerate(SCORES):
                own = rows[rows["scores"] == kind].set_index("formula").loc[order]
                values = own["mean"].clip(lower=FLOOR)
                apart = [values - own["low"].clip(lower=FLOOR), own["high"].clip(lower=FLOOR) - values]
                where = np.arange(len(order)) + 0.16 - 0.32 * place
                look = {"color": COLOURS[kind], "label": LONG[kind], "markersize": 4, "linewidth": 1.2}
                axis.errorbar(values, where, xerr=np.maximum(apart, 0), fmt="os"[place], **look)
                axis.axvline(own.loc["Grad-CAM+", "mean"], **{**REFERENCE, "color": COLOURS[kind]})
            axis.set(xscale="log", xlim=(FLOOR / 1.5, 1), yticks=range(len(order)), yticklabels=order)
            axis.set_title(title, fontsize=9)
            axis.tick_params(labelsize=8)
            axis.grid(axis="y", color="0.92", zorder=0)
        drawn.supxlabel("mean difference of the min-max map from that of eq. 13 (at the left edge: 0.0001 or less)", fontsize=9)
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        return drawn


def write(run: Path, out: Path) -> report.Report:
    """Write table (CSV and Markdown), figure and sentences of a finished audit into a folder.

    Raises:
        InputError: if the folder holds no finished audit, or one of fewer than two photographs over the threshold.
    """
    rows, settings = audit.read(run), read_manifest(run)["experiment"]
    found = table(audit.long(rows))
    over, threshold = int(found["n"].max()), settings["threshold"]
    population = f"{settings['model']}, layer {settings['layer']}: {len(rows)} photographs, {over} over {threshold:g}"
    population += "; map: mean difference of the min-max map from eq. 13's, score: relative performance against it"
    said = [
        "\n".join(f"- {name}: it {text}" for name, text in sentences(found).items()),
        "\n".join(f"- {line}" for line in units(rows)),
    ]
    shown = readable(found)
    brief = shown[["formula", *(f"{kind}: {what}" for kind in SCORES for what in ("map", "score"))]]
    brief = brief.replace(r" \[.*", "", regex=True)  # intervals are in the file
    printed, text = (
        "\n\n".join([population, tables.formatted(table, style), *said]) + "\n"
        for table, style in ((brief, "simple"), (shown, "github"))
    )
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in (("audit.csv", found.to_csv(index=False)), ("audit.md", text)):
        with atomic_write(out / name) as temporary:
            temporary.write_text(content, "utf-8")
        files.append(out / name)
    return report.Report(printed, files + report.draw({"audit": figure({settings["model"]: found})}, out))


def units(rows: pd.DataFrame) -> list[str]:
    """Shares of units, averaged over the photographs over the threshold, a line for each kind of score."""
    lines = []
    for kind in SCORES:
        share = {what: rows[audit.name(kind, "", what)].mean() for what in audit.SHARES}
        if np.isnan(share["pole"]):
            lines.append(f"{LONG[kind]}: no unit has a gradient")
            continue
        beyond = ", ".join(f"{percent(share[f'{epsilon:.0e}'])} for {epsilon:.0e}" for epsilon in audit.EPSILONS)
        lines.append(
            f"{LONG[kind]}: of the positive gradients, an epsilon exceeds the true denominator at {beyond}; "
            f"{percent(share['zero'])} of all units have no gradient, "
            f"{percent(share['pole'])} of the others an alpha beyond [-1, 1]"
        )
    return lines
