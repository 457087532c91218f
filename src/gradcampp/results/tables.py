"""Tables 1 and 2, the paper beside this run; the tables beyond the paper; and a run beside what others have measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from gradcampp import paper
from gradcampp.cam import SCORES, Scores
from gradcampp.evaluation.alphas import Histogram, box, share
from gradcampp.evaluation.profiles import Expected
from gradcampp.evaluation.records import Run
from gradcampp.networks.scores import kinds
from gradcampp.performance import SAME, UndefinedError, compared, summaries

TITLES = {
    "table1": "Table 1. Relative performance, paper (n = {paper}) beside this run (n = {run})",
    "table2": "Table 2. Log relative performance, paper (n = {paper}) beside this run (n = {run})",
    "differences": "Largest difference of the min-max maps of Grad-CAM++ and Grad-CAM+, and its bound for all lambda from 0 to 1",
    "localisation_gain": "Scenes with several instances. Mean difference of two methods, 95 % bootstrap interval",
    "competition": "Scenes with two classes. Share of heat and of hottest pixels on either object, 95 % bootstrap interval",
}
UNDEFINED = "undefined"
LEFT_OUT = {  # counts of Run.left_out, in words
    "empty": "are left out, in which Grad-CAM+ and Grad-CAM++ have an empty map (no positive gradient, or maps of one value)",
    "not finite": "are left out, in which a map or its score is not finite",
    "empty of Grad-CAM": "count in which the map of Grad-CAM alone is empty: its score there is that of a black picture",
}
OF_SCORES = {
    "sigmoid": [
        "behind a sigmoid each gradient is s (1 - s) times that before it: Grad-CAM and Grad-CAM+ have the same maps there"
    ],
    "logit": ["scores are quantities: every image is explained, and ratios mean something where 0 is no matter of convention"],
}
TOLERANCE = 0.5  # of the self-check, in percentage points


def paper_tables(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Table 1 and Table 2 as numbers.

    Returns:
        ``table1`` with the columns ``methods`` and, for pre and post, ``_paper``, ``_run``, ``_low`` and
        ``_high`` (95 % confidence interval); ``table2`` with ``_mean_paper``, ``_mean_run``, ``_std_paper``
        and ``_std_run``, and the number of images ``n`` in both.

    Source: Lerma & Lucas (2022), Tables 1 and 2.
    """
    found = summaries(records)
    names = [paper.pair_name(pair) for pair in paper.PAIRS]
    first, second = pd.DataFrame({"methods": names}), pd.DataFrame({"methods": names})
    for scores in SCORES:
        ours = pd.DataFrame([found[scores, pair] for pair in paper.PAIRS])
        theirs = pd.DataFrame([paper.CELLS[scores, pair] for pair in paper.PAIRS])
        first[f"{scores}_paper"], first[f"{scores}_run"] = theirs["relative_performance"], ours["relative_performance"]
        first[[f"{scores}_low", f"{scores}_high"]] = ours[["low", "high"]]
        for statistic in ("mean", "std"):
            second[f"{scores}_{statistic}_paper"], second[f"{scores}_{statistic}_run"] = theirs[statistic], ours[statistic]
        first[f"{scores}_n"] = second[f"{scores}_n"] = ours["n"]
    return {"table1": first, "table2": second}


def alphas(streams: Mapping[Scores, Histogram]) -> pd.DataFrame:
    """Distance of the non-zero alphas of a run from 1/2, pre and post beside each other.

    Returns:
        ``quantity``, and a column for each kind of score: quartiles, whiskers, the share within 0.1 of 1/2, extremes and the
        number of alphas.

    Source: Lerma & Lucas (2022), Figure 4 and section 3.4.
    """
    columns = {}
    for scores, stream in streams.items():
        found = box(stream)
        columns[scores] = {
            "first quartile": found.first_quartile,
            "median": found.median,
            "third quartile": found.third_quartile,
            "lower whisker": found.low_whisker,
            "upper whisker": found.high_whisker,
            "share from 0.4 to 0.6": share(stream, 0.4, 0.6),
            "minimum": stream.minimum,
            "maximum": stream.maximum,
            "count": stream.count,
        }
    return pd.DataFrame(columns).rename_axis("quantity").reset_index()


def differences(records: pd.DataFrame) -> pd.DataFrame:
    """Differences of the min-max maps of Grad-CAM++ and Grad-CAM+, and their bounds, over all images.

    Those under the threshold are left out, and of the bounds those with negative activations.

    Returns:
        One row for each kind of score and for ``difference`` and ``bound``: ``scores``, ``of``, ``n``, ``min``,
        ``quartile1``, ``median``, ``quartile3``, ``max``; NaN where no image has one.

    Source: ours; theorem 3 of the companion.
    """
    names = [(scores, name) for scores in SCORES for name in ("difference", "bound")]
    found = records[["_".join(name) for name in names]].describe().T.astype({"count": int}).drop(columns=["mean", "std"])
    found.index = pd.MultiIndex.from_tuples(names)
    return found.reset_index().set_axis(["scores", "of", "n", "min", "quartile1", "median", "quartile3", "max"], axis=1)


def readable(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table of a name in ``TITLES`` as people read it: every cell a string, the interval behind its value."""
    form = {"differences": "z.4f", "localisation_gain": "+z.4f", "competition": "z.4f"}.get(name, "z.3f")
    cells = table.map(lambda value: f"{value:{form}}" if isinstance(value, float) else str(value)).mask(table.isna(), UNDEFINED)
    if name not in ("table1", "table2"):
        return cells
    cells = cells.assign(**table.filter(like="_paper").map("{:.2f}".format))
    if name == "table1":
        for scores in SCORES:
            ends = " [" + cells[f"{scores}_low"] + ", " + cells[f"{scores}_high"] + "]"
            cells[f"{scores}_run"] += ends.where(table[f"{scores}_run"].notna(), "")
        cells = cells.rename(columns=lambda column: column.replace("_run", " this run [95 % CI]"))
    return cells.filter(regex="methods|paper|run").rename(columns=lambda column: column.replace("_", " "))


def title(name: str, table: pd.DataFrame) -> str:
    """A one-line caption; that of Tables 1 and 2 says of how many images."""
    counts = sorted(set(table.filter(regex="_n$").to_numpy().ravel()) - {0})  # 0: undefined
    return TITLES[name].format(paper=paper.IMAGES, run=" to ".join(map(str, counts)))


def notes(run: Run) -> list[str]:
    """Of Tables 1 and 2 of a run, a line each: images that do not count, scores that are none, methods that agree."""
    copies = int(run.records["sha256"].duplicated().sum())
    lines = [f"{copies} photographs are copies of others, and the intervals take them for independent"] if copies else []
    for scores, count in run.left_out.items():
        if scores not in kinds(run.score):
            lines.append(f"{scores}: undefined, as nothing follows the outputs (--score {run.score})")
            continue
        lines += [
            f"{scores}: {count[why]} of {count['explained']} images {words}" for why, words in LEFT_OUT.items() if count[why]
        ]
        try:
            found = compared(run.records, scores)
        except UndefinedError as reason:
            lines.append(str(reason))
            continue
        same = [paper.pair_name(pair) for pair, each in found.items() if each.std < SAME > abs(each.mean)]
        lines += [f"{scores}: {pair}: one score in every image, as of maps that are one by construction" for pair in same]
    return lines + OF_SCORES.get(run.score, [])


def formatted(table: pd.DataFrame, style: str) -> str:
    """A readable table as text in a style of tabulate: ``simple`` for a terminal, ``github`` for Markdown, ``latex``."""
    return table.to_markdown(index=False, tablefmt=style, disable_numparse=True, stralign="left")


class SelfCheck(NamedTuple):
    """A run beside what others have measured: as a table, a line for each row that deviates, and all of it for a terminal.

    The table has ``quantity``, ``expected`` and ``run`` in percent of the images, ``difference`` in percentage points, and
    whether it ``deviates``; no rows where the run cannot be compared.
    """

    rows: pd.DataFrame
    warnings: tuple[str, ...]
    text: str


def self_check(manifest: Mapping[str, Any], expected: Expected) -> SelfCheck:
    """Compare the accuracy of a finished run, and its number of images over the threshold, with known values.

    They hold for their weights and for the whole set only. A row that deviates by more than 0.5 percentage points comes with a
    warning that says what to suspect.
    """
    columns = ["quantity", "expected", "run", "difference", "deviates"]
    weights, images, note = manifest["experiment"]["weights"], manifest["images"], ""
    if expected.weights not in (None, weights):
        note = f"nothing is published for these weights ({weights})"
    elif images != expected.images:
        note = f"the published values are of {expected.images} images, and this run has {images}"
    if note:
        return SelfCheck(pd.DataFrame(columns=columns), (), f"Self-check: {note}\n")
    labels = "suspect wrong labels or another preprocessing"
    weighty = "other weights or another preprocessing than the published run's move it; if top-1 and top-5 agree, that is why"
    accuracies = (("top-1", expected.top1, manifest["top1"]), ("top-5", expected.top5, manifest["top5"]))
    compared = [(name, known, found, labels) for name, known, found in accuracies if known is not None]
    if manifest["experiment"]["threshold"] == expected.threshold:
        shares = (expected.over_threshold / images, manifest["over_threshold"] / images)
        compared.append((f"over {expected.threshold:g}", *shares, weighty))
    rows = pd.DataFrame(compared, columns=["quantity", "expected", "run", "suspect"])
    rows[["expected", "run"]] *= 100
    rows["difference"] = (rows["run"] - rows["expected"]).round(6)
    rows["deviates"] = rows["difference"].abs() > TOLERANCE
    shown = rows[columns].assign(
        **rows[["expected", "run"]].map("{:.2f} %".format),
        difference=rows["difference"].map("{:+.2f}".format),
        deviates=rows["deviates"].map({True: "DEVIATES", False: "agrees"}),
    )
    said = shown["quantity"] + " is " + shown["run"] + " and " + shown["expected"] + " was published, " + shown["difference"]
    warnings = tuple((said + " points: " + rows["suspect"])[rows["deviates"]])
    lines = "".join(f"\nWARNING: {line}" for line in warnings)
    text = f"Self-check of the whole set, in percent of the images\n\n{formatted(shown, 'simple')}\n{lines}\n"
    return SelfCheck(rows[columns], warnings, text)
