"""Runs beside each other and beside the paper: every cell and every box is that of its run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from matplotlib.cbook import boxplot_stats
from matplotlib.patches import StepPatch

from gradcampp import paper
from gradcampp.cam import COLUMNS, METHODS, SCORES, Scores, column
from gradcampp.evaluation.alphas import Histogram, histogram
from gradcampp.evaluation.records import Run
from gradcampp.results import comparison
from gradcampp.results.figures import comparison as figures
from tests.test_figures import assert_legible, boxes_of, references

HEADER = {"pre": "pre-softmax", "post": "post-softmax"}


def made(model: str, seed: int, count: int = 12, controls: bool = True) -> Run:
    """A run in memory with one image under the threshold, and one that no power makes as warm as Grad-CAM's map."""
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({name: generator.uniform(0.2, 1, count + 1) for name in COLUMNS})
    for scores in SCORES:
        for method in METHODS[1:]:
            rows[f"{column(scores, method)}_matched"] = generator.uniform(0.2, 1, count + 1) if controls else np.nan
            rows.loc[0, f"{column(scores, method)}_matched"] = np.nan
    rows.loc[count] = np.nan
    for name in COLUMNS:
        rows[f"{name}_mean_heat"] = np.where(np.arange(count + 1) < 3, 0.0, 0.25)
    products = torch.from_numpy(generator.normal(0, 0.3, 500))
    alphas: dict[Scores, Histogram] = {"pre": histogram(1 / (2 + products)), "post": histogram(1 / (2 + products / 10))}
    run = Run(Path(model))
    manifest = {"images": count + 1, "top1": 0.75, "over_threshold": count, "experiment": {"model": model, "layer": "last"}}
    vars(run).update(records=rows, alphas=alphas, manifest=manifest)
    return run


def runs() -> dict[str, Run]:
    return {"a": made("first", 0), "b": made("second", 1, 20), "c": made("third", 2, controls=False)}


def interval(first: pd.Series, second: pd.Series) -> str:
    """Geometric mean of the quotients with Student's interval of its logarithm, by SciPy."""
    logs = pd.Series(np.log(first / second)).dropna()
    bounds = scipy.stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    mean = math.prod((first / second).dropna()) ** (1 / len(logs))
    return f"{mean:.3f} [{math.exp(bounds.low):.3f}, {math.exp(bounds.high):.3f}]"


def plain(table: pd.DataFrame, source: str, pair: paper.Pair, scores: Scores, name: str) -> str:
    cell = str(table.loc[(source, paper.pair_name(pair)), (HEADER[scores], name)])
    return cell.replace("\u00a0", " ")


def test_each_cell_of_the_tables_is_that_of_its_run() -> None:
    found = comparison.tables(runs(), repeated=True)
    sources = {"a": "first, last (n = 12)", "b": "second, last (n = 20)", "c": "third, last (n = 12)"}
    for table in found.values():
        assert list(dict.fromkeys(source for source, _ in table.index)) == [comparison.PAPER, *sources.values()]
        assert [name for _, name in table.index] == 4 * [paper.pair_name(pair) for pair in paper.PAIRS]
        kinds = table.columns.get_level_values(0).tolist()
        assert kinds == sorted(kinds, key=list(HEADER.values()).index)  # pre, then post
    for key, run in runs().items():
        for scores in SCORES:
            for pair in paper.PAIRS:
                first, second = (run.records[column(scores, method)] for method in pair)
                place = (sources[key], pair, scores)
                assert plain(found["table1"], *place, "as it is") == interval(first, second)
                logs = np.log(first / second)
                assert plain(found["table2"], *place, "mean") == f"{logs.mean():.3f}"
                assert plain(found["table2"], *place, "deviation") == f"{logs.std():.3f}"
                equal = plain(found["table1"], *place, "at equal heat")
                if pair[1] == "gradcam" and key != "c":
                    assert equal == interval(run.records[f"{column(scores, pair[0])}_matched"], second)
                else:
                    assert equal == ""


def test_the_paper_stands_first_with_the_numbers_that_it_prints() -> None:
    found = comparison.tables({}, repeated=True)
    for (scores, pair), cell in paper.CELLS.items():
        place = (comparison.PAPER, pair, scores)
        assert plain(found["table1"], *place, "as it is") == f"{cell.relative_performance:.2f}"
        assert plain(found["table2"], *place, "mean") == f"{cell.mean:.2f}"
        assert plain(found["table2"], *place, "deviation") == f"{cell.std:.2f}"
    assert "at equal heat" not in found["table1"].columns.get_level_values(1)
    assert "4,219" in comparison.PAPER


def test_a_row_says_where_the_papers_own_experiment_is_missing_and_how_to_make_it() -> None:
    for table in comparison.tables(runs(), repeated=False).values():
        (source, name), cells = table.index[-1], table.iloc[-1]
        assert source == "the paper, repeated"
        assert name == "not run: `gradcampp reproduce --profile paper-keras`"
        assert set(cells) == {""}


def test_the_headroom_is_that_of_a_perfect_method() -> None:
    records = pd.DataFrame({"pre_gradcam": [0.5, 0.125, None], "post_gradcam_plus": [1.0, 1.0, None]})
    assert comparison.headroom(records, "pre", "gradcam") == pytest.approx(4)  # of 2 and 8
    assert comparison.headroom(records, "post", "gradcam+") == 1


def test_the_overview_counts_images_and_empty_maps() -> None:
    table = comparison.overview(runs()).set_index("run")
    assert list(table.index) == ["a", "b", "c"]
    for name, run in runs().items():
        row = table.loc[name]
        assert tuple(row[:4]) == (len(run.records), 0.75, len(run.records) - 1, 3)
        assert row["most"] == pytest.approx(math.exp(-np.log(run.records["pre_gradcam"]).mean()))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("draw", [figures.alpha_distributions, figures.relative_performances])
def test_there_is_a_legible_panel_for_each_run(draw: object, count: int) -> None:
    chosen = {name: made(f"a rather long name {name}", seed) for seed, name in enumerate("abcd"[:count])}
    figure = draw(chosen)  # type: ignore[operator]
    drawn = [axis.get_title() for axis in figure.axes if axis.axison]
    assert drawn == [run.title for run in chosen.values()]
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == list(HEADER.values())
    assert_legible(figure)


def test_alphas_are_drawn_as_shares_of_their_own_run() -> None:
    figure = figures.alpha_distributions(runs())
    for axis, run in zip(figure.axes, runs().values(), strict=False):
        for patch, scores in zip([patch for patch in axis.patches if isinstance(patch, StepPatch)], SCORES, strict=True):
            heights, edges, _ = patch.get_data()
            assert heights.sum() == pytest.approx(1)
            low, high = np.searchsorted(edges, 0) - 8, np.searchsorted(edges, 0) + 8  # a tenth of the scale around 1/2
            counts = run.alphas[scores].counts.reshape(128, -1).sum(1)
            assert heights[low:high].sum() == pytest.approx(counts[low:high].sum() / 500)
        assert axis.get_yscale() == "log"


def test_performances_are_drawn_as_the_boxes_of_their_own_run() -> None:
    figure = figures.relative_performances(runs())
    for axis, run in zip(figure.axes, runs().values(), strict=False):
        expected = []
        for pair in paper.PAIRS:
            for scores in SCORES:
                first, second = (run.records[column(scores, method)] for method in pair)
                stats = boxplot_stats(pd.Series(np.log10(first / second)).dropna())[0]  # seaborn's boxes on a log axis
                expected.append([10 ** stats["q1"], 10 ** stats["q3"]])
        assert np.array(boxes_of(axis)) == pytest.approx(np.array(expected))
        assert references(axis) == [1]
        names = [label.get_text().replace("\n", " ") for label in axis.get_xticklabels()]
        assert names == [paper.pair_name(pair).replace("Grad-", "") for pair in paper.PAIRS]


def related(model: str, seed: int, count: int, slope: float) -> Run:
    """A run whose maps differ by a power of the size of s * g."""
    run = made(model, seed, count)
    generator = np.random.default_rng(seed)
    run.records["label"] = np.arange(count + 1)
    for scores in SCORES:
        size = generator.uniform(0.01, 0.9, count + 1)
        run.records[f"{scores}_effective_alpha"] = np.append((1 - size[:-1]) / 2, np.nan)
        run.records[f"{scores}_difference"] = np.append(size[:-1] ** slope, np.nan)
    return run


def test_where_the_equivalence_weakens_is_told_by_each_runs_own_images() -> None:
    chosen = {"rises": related("first", 0, 40, 2.0), "falls": related("second", 1, 50, -1.0), "few": related("third", 2, 20, 1.0)}
    table = comparison.weakening(chosen)
    assert list(zip(table["run"], table["scores"], strict=True)) == [(name, scores) for name in chosen for scores in SCORES]
    rows = iter(table.to_dict("records"))
    for run in chosen.values():
        for scores in SCORES:
            row = next(rows)
            logs = (np.log(run.records[f"{scores}_gradcam_plusplus"]) - np.log(run.records[f"{scores}_gradcam_plus"])).dropna()
            bounds = scipy.stats.ttest_1samp(logs, 0).confidence_interval(0.9)
            assert row["n"] == len(logs)
            assert [row["ratio"], row["low"], row["high"]] == pytest.approx(np.exp([logs.mean(), bounds.low, bounds.high]))
            size = 1 - 2 * run.records[f"{scores}_effective_alpha"].dropna()
            assert row["size"] == pytest.approx(np.median(size))
            assert row["difference"] == pytest.approx(np.median(run.records[f"{scores}_difference"].dropna()))
    assert table["rank correlation"].tolist() == pytest.approx([1, 1, -1, -1, np.nan, np.nan], nan_ok=True)


def test_a_run_that_says_nothing_is_in_the_table_without_numbers() -> None:
    run = related("first", 0, 40, 1.0)
    run.records[list(COLUMNS)] = np.nan  # no image over the threshold
    run.records["pre_effective_alpha"] = 0.5  # every map the same
    run.records["pre_difference"] = 0.0
    pre, post = comparison.weakening({"a": run}).to_dict("records")
    assert (pre["n"], pre["by share"], pre["size"], post["n"]) == (0, "cannot tell", 0, 0)
    assert math.isnan(pre["ratio"])
    assert math.isnan(pre["rank correlation"])
    assert_legible(figures.weakening({"a": run}))
    run.records[[f"{scores}_difference" for scores in SCORES]] = np.nan  # no image with a map
    assert_legible(figures.weakening({"a": run}))


def test_images_and_medians_are_drawn_where_they_are() -> None:
    chosen = {"a": related("first", 0, 40, 2.0), "b": related("second", 1, 50, 1.0)}
    figure = figures.weakening(chosen)
    (axis,) = figure.axes
    clouds, medians = axis.collections[::2], axis.collections[1::2]
    assert [collection.get_label() for collection in medians] == [f"{n}, {HEADER[s]}" for n in chosen for s in SCORES]
    for cloud, median, (run, scores) in zip(clouds, medians, [(r, s) for r in chosen.values() for s in SCORES], strict=True):
        both = comparison.sizes(run.records, scores)
        assert np.array_equal(np.asarray(cloud.get_offsets()), both.to_numpy())
        assert np.allclose(np.asarray(median.get_offsets())[0], both.median())
    assert_legible(figure)
