"""Tables 1 and 2, the paper beside this run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from tabulate import tabulate

from gradcampp import paper
from gradcampp.cam import SCORES, Scores
from gradcampp.evaluation.alphas import Histogram, box, share
from gradcampp.evaluation.profiles import Expected
from gradcampp.performance import summaries


def paper_tables(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Table 1 and Table 2 as numbers.

    Returns:
        ``table1`` with the columns ``methods`` and, for pre and post, ``_paper``, ``_run``, ``_low`` and
        ``_high`` (95 % confidence interval); ``table2`` with ``_mean_paper``, ``_mean``, ``_std_paper``
        and ``_std``, and the number of images ``n`` in both.

    Source: Lerma & Lucas (2022), Tables 1 and 2.
    """
    found = summaries(records)
    first, second = [], []
    for pair in paper.PAIRS:
        relative: dict[str, object] = {"methods": paper.pair_name(pair)}
        logarithm: dict[str, object] = {"methods": paper.pair_name(pair)}
        for scores in SCORES:
            ours, theirs = asdict(found[scores, pair]), paper.CELLS[scores, pair]
            relative[f"{scores}_paper"] = theirs.relative_performance
            relative[f"{scores}_run"] = ours["relative_performance"]
            relative |= {f"{scores}_{name}": ours[name] for name in ("low", "high")}
            logarithm[f"{scores}_mean_paper"], logarithm[f"{scores}_mean_run"] = theirs.mean, ours["mean"]
            logarithm[f"{scores}_std_paper"], logarithm[f"{scores}_std_run"] = theirs.std, ours["std"]
            relative[f"{scores}_n"] = logarithm[f"{scores}_n"] = ours["n"]
        first.append(relative)
        second.append(logarithm)
    return {"table1": pd.DataFrame(first), "table2": pd.DataFrame(second)}


def alphas(streams: Mapping[Scores, Histogram]) -> pd.DataFrame:
    """How close to 1/2 the non-zero alphas of a data set are, pre and post beside each other.

    Args:
        streams: the alphas of a run.

    Returns:
        ``quantity``, and a column for each kind of score: quartiles, whiskers, extremes, the share within 0.1 of 1/2 and the
        number of alphas.

    Source: Lerma & Lucas (2022), Figure 4 and section 3.4.
    """
    columns: dict[str, list[object]] = {}
    for scores, stream in streams.items():
        found = box(stream)
        columns[scores] = [
            found.first_quartile,
            found.median,
            found.third_quartile,
            found.low_whisker,
            found.high_whisker,
            share(stream, 0.4, 0.6),
            stream.minimum,
            stream.maximum,
            stream.count,
        ]
    names = ["first quartile", "median", "third quartile", "lower whisker", "upper whisker", "share from 0.4 to 0.6"]
    return pd.DataFrame({"quantity": [*names, "minimum", "maximum", "count"], **columns})


def certificates(records: pd.DataFrame) -> pd.DataFrame:
    """How far the min-max maps of Grad-CAM++ and Grad-CAM+ can be from each other, and are, image by image.

    Args:
        records: rows of a run; those without a certificate (under the threshold, or negative activations) are left out.

    Returns:
        One row for each kind of score and for ``certificate`` and ``difference``: ``scores``, ``of``, ``n``, ``min``,
        ``quartile1``, ``median``, ``quartile3``, ``max``; NaN where no image has one.

    Source: ours; theorem 3 of the companion.
    """
    found = []
    for scores in SCORES:
        for name in ("certificate", "difference"):
            values = records[f"{scores}_{name}"].dropna()
            found.append((scores, name, len(values), *(values.quantile(share) for share in (0, 0.25, 0.5, 0.75, 1))))
    return pd.DataFrame(found, columns=["scores", "of", "n", "min", "quartile1", "median", "quartile3", "max"])


def readable(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as people read it: every cell a string, the interval behind its value.

    Args:
        name: ``table1``, ``table2`` or ``certificates``.
        table: as :func:`tables` or :func:`certificates` returns it.
    """
    if name == "certificates":
        return table.map(lambda value: f"{value:.4f}" if isinstance(value, float) else str(value))
    columns: dict[str, list[str]] = {"methods": list(table["methods"])}
    for scores in SCORES:
        if name == "table1":
            columns[f"{scores} paper"] = [f"{value:.2f}" for value in table[f"{scores}_paper"]]
            columns[f"{scores} this run [95 % CI]"] = [
                f"{row[f'{scores}_run']:.3f} [{row[f'{scores}_low']:.3f}, {row[f'{scores}_high']:.3f}]"
                for _, row in table.iterrows()
            ]
        else:
            for statistic in ("mean", "std"):
                columns[f"{scores} {statistic} paper"] = [f"{value:.2f}" for value in table[f"{scores}_{statistic}_paper"]]
                columns[f"{scores} {statistic} run"] = [f"{value:.3f}" for value in table[f"{scores}_{statistic}_run"]]
    return pd.DataFrame(columns)


def title(name: str, table: pd.DataFrame) -> str:
    """A one-line caption: what the table shows, and of how many images."""
    if name == "certificates":
        return "Certificates. Largest difference of the min-max maps of Grad-CAM++ and Grad-CAM+: guaranteed, and observed"
    what = {"table1": "Table 1. Relative performance", "table2": "Table 2. Log relative performance"}[name]
    counts = sorted({int(count) for scores in SCORES for count in table[f"{scores}_n"]})
    return f"{what}, paper (n = {paper.IMAGES}) beside this run (n = {' to '.join(map(str, counts))})"


def formatted(table: pd.DataFrame, style: str) -> str:
    """A readable table as text.

    Args:
        table: as :func:`readable` returns it.
        style: a format of tabulate: ``simple`` for a terminal, ``github`` for Markdown, ``latex``.
    """
    return tabulate(table.to_dict("list"), headers="keys", tablefmt=style, disable_numparse=True, stralign="left")


TOLERANCE = 0.5  # percentage points


@dataclass(frozen=True)
class SelfCheck:
    """What a self-check found.

    Attributes:
        rows: ``quantity``, ``expected`` and ``run`` in percent of the images, ``difference`` in percentage
            points, and whether it ``deviates``; no rows where the run cannot be compared.
        warnings: one line for each row that deviates.
        note: why the run cannot be compared, or None.
    """

    rows: pd.DataFrame
    warnings: tuple[str, ...]
    note: str | None

    @property
    def text(self) -> str:
        """For a terminal: the rows or the note, the warnings last."""
        if self.note is not None:
            return f"Self-check: {self.note}\n"
        shown = self.rows.assign(
            expected=[f"{value:.2f} %" for value in self.rows["expected"]],
            run=[f"{value:.2f} %" for value in self.rows["run"]],
            difference=[f"{value:+.2f}" for value in self.rows["difference"]],
            deviates=["DEVIATES" if value else "agrees" for value in self.rows["deviates"]],
        )
        table = tabulate(shown.to_dict("list"), headers="keys", tablefmt="simple", disable_numparse=True)
        warnings = "".join(f"\nWARNING: {line}" for line in self.warnings)
        return f"Self-check of the whole set, in percent of the images\n\n{table}\n{warnings}\n"


def self_check(manifest: Mapping[str, Any], expected: Expected) -> SelfCheck:
    """Compare the accuracy of a finished run, and its number of images over the threshold, with known values.

    Args:
        manifest: of a finished run.
        expected: the known values; they hold for their weights and for the whole set only.

    Returns:
        Rows that deviate by more than 0.5 percentage points come with a warning that says what to suspect.
    """
    columns = ["quantity", "expected", "run", "difference", "deviates"]
    note = _not_comparable(manifest, expected)
    if note is not None:
        return SelfCheck(pd.DataFrame(columns=columns), (), note)
    counted = manifest["experiment"]["threshold"] == expected.threshold
    rows, warnings = [], []
    for quantity, known, found, suspect in (
        ("top-1", expected.top1, manifest["top1"], "suspect wrong labels or another preprocessing"),
        ("top-5", expected.top5, manifest["top5"], "suspect wrong labels or another preprocessing"),
        (
            f"over {expected.threshold:g}",
            expected.over_threshold / expected.images,
            manifest["over_threshold"] / manifest["images"],
            "other weights or another preprocessing than the published run's move it; if top-1 and top-5 agree, that is why",
        ),
    )[: 3 if counted else 2]:
        difference = round(100 * (found - known), 6)
        deviates = abs(difference) > TOLERANCE
        rows.append((quantity, 100 * known, 100 * found, difference, deviates))
        if deviates:
            warnings.append(
                f"{quantity} is {100 * found:.2f} % and {100 * known:.2f} % was published, {difference:+.2f} points: {suspect}"
            )
    return SelfCheck(pd.DataFrame(rows, columns=columns), tuple(warnings), None)


def _not_comparable(manifest: Mapping[str, Any], expected: Expected) -> str | None:
    if manifest["experiment"]["weights"] != expected.weights:
        return f"nothing is published for these weights ({manifest['experiment']['weights']})"
    if manifest["images"] != expected.images:
        return f"the published values are of {expected.images} images, and this run has {manifest['images']}"
    return None
