"""Tables 1 and 2, the paper beside this run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd
from tabulate import tabulate

from gradcampp import paper
from gradcampp.accumulate import Stream, box, share
from gradcampp.config import MAPS, SCORES, Scores, column
from gradcampp.errors import InputError
from gradcampp.localisation import METRICS, bootstrap_interval
from gradcampp.statistics import Summary, interval, summarise


def summaries(records: pd.DataFrame) -> dict[tuple[Scores, paper.Pair], Summary]:
    """Every entry of Tables 1 and 2, with its confidence interval.

    Args:
        records: rows of a run; a row counts for a pair where it has the scores of both maps.

    Raises:
        InputError: if fewer than two images have both scores, or a score is not a positive number.

    Source: Lerma & Lucas (2022), eqs 16 and 17.
    """
    found: dict[tuple[Scores, paper.Pair], Summary] = {}
    for scores in SCORES:
        for pair in paper.PAIRS:
            first, second = (column(scores, method) for method in pair)
            both = records[[first, second]].dropna()
            if len(both) < 2:
                raise InputError(
                    f"{len(both)} of {len(records)} images have the scores {first} and {second}; the tables need two or more "
                    "(a lower --threshold or more images)"
                )
            try:
                found[scores, pair] = summarise(both[first], both[second])
            except ValueError as error:
                raise InputError(f"records, columns {first} and {second}: {error}") from None
    return found


def tables(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
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
            ours, theirs = asdict(found[scores, pair]), paper.ENTRIES[scores, pair]
            relative[f"{scores}_paper"] = theirs.relative_performance
            relative[f"{scores}_run"] = ours["relative_performance"]
            relative |= {f"{scores}_{name}": ours[name] for name in ("low", "high")}
            logarithm[f"{scores}_mean_paper"], logarithm[f"{scores}_mean_run"] = theirs.mean, ours["mean"]
            logarithm[f"{scores}_std_paper"], logarithm[f"{scores}_std_run"] = theirs.std, ours["std"]
            relative[f"{scores}_n"] = logarithm[f"{scores}_n"] = ours["n"]
        first.append(relative)
        second.append(logarithm)
    return {"table1": pd.DataFrame(first), "table2": pd.DataFrame(second)}


def alphas(streams: Mapping[Scores, Stream]) -> pd.DataFrame:
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


def readings(records: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Grad-CAM++ against Grad-CAM+, read as a test of difference and as one of equivalence, in the paper and in this run.

    The paper prints no intervals; they follow from its number of images, its ratio and its standard deviation, in the two
    decimals that it gives.

    Args:
        records: rows of a run.
        margin: two methods whose ratio is certainly within this factor count as equivalent.

    Returns:
        ``source``, ``scores``, ``n``, ``ratio``, ``low``, ``high`` (95 %), whether the interval excludes 1 (``differs``), and
        whether it lies between 1/margin and margin (``equivalent``).

    Source: Lerma & Lucas (2022), section 4.
    """
    pair, measured = paper.PAIRS[-1], summaries(records)
    rows = []
    for scores in SCORES:
        printed, ours = paper.ENTRIES[scores, pair], measured[scores, pair]
        ends = interval(math.log(printed.relative_performance), printed.std, paper.IMAGES)
        rows.append(("paper", scores, paper.IMAGES, printed.relative_performance, *ends))
        rows.append(("this run", scores, ours.n, ours.relative_performance, ours.low, ours.high))
    found = pd.DataFrame(rows, columns=["source", "scores", "n", "ratio", "low", "high"])
    found["differs"] = (found["low"] > 1) | (found["high"] < 1)
    found["equivalent"] = (found["low"] > 1 / margin) & (found["high"] < margin)
    return found


def localisation(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each localisation metric, with its bootstrap interval.

    Args:
        rows: as ``evaluate.localise`` returns it; choose the scenes before.

    Returns:
        One row for each kind of score, number of instances, metric and method: ``scores``, ``instances``,
        ``metric``, ``method``, ``n``, ``mean``, ``low``, ``high`` (95 %).
    """
    found = []
    for scores, method in MAPS:
        own = rows[rows["map"] == column(scores, method)]
        for instances, group in own.groupby("instances"):
            for metric in METRICS:
                values = group[metric].to_numpy()
                low, high = bootstrap_interval(values)
                found.append((scores, instances, metric, method, len(values), values.mean(), low, high))
    return pd.DataFrame(found, columns=["scores", "instances", "metric", "method", "n", "mean", "low", "high"])


def localisation_gain(rows: pd.DataFrame) -> pd.DataFrame:
    """What Grad-CAM++ adds to Grad-CAM+ in scenes with several instances: the claim that it was made for.

    Args:
        rows: as ``evaluate.localise`` returns it; choose the scenes before.

    Returns:
        One row for each kind of score and metric: mean difference scene by scene, with its 95 % bootstrap
        interval, over the scenes with two or more instances.
    """
    found = []
    several = rows[rows["instances"] > 1]
    for scores in SCORES:
        for metric in METRICS:
            wide = several.pivot(index="scene", columns="map", values=metric)
            difference = (wide[column(scores, "gradcam++")] - wide[column(scores, "gradcam+")]).to_numpy()
            low, high = bootstrap_interval(difference)
            found.append((scores, metric, len(difference), difference.mean(), low, high))
    return pd.DataFrame(found, columns=["scores", "metric", "n", "difference", "low", "high"])


def readable(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as people read it: every cell a string, the interval behind its value.

    Args:
        name: ``table1`` or ``table2``.
        table: as :func:`tables` returns it.
    """
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
