"""Tables 1 and 2 from a hand-made run, the paper's own numbers, and the comparison with what others have measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gradcampp import paper
from gradcampp.cam import Scores
from gradcampp.errors import InputError
from gradcampp.evaluation import profiles
from gradcampp.evaluation.alphas import Histogram, box, histogram
from gradcampp.evaluation.profiles import Expected
from gradcampp.performance import summaries
from gradcampp.results.tables import alphas, differences, formatted, paper_tables, readable, self_check, title
from tests.loops import UNIT

LN2 = math.log(2)
T_2 = math.sqrt(1.805 / 0.0975)  # 97.5 % point of Student's t with 2 degrees of freedom, where x / sqrt(2 + x^2) = 0.95
ROUNDED = 1e-12  # logarithms of three scores and a quantile: some ten roundings


@pytest.fixture
def records() -> pd.DataFrame:
    """Three images with all scores and one that has two of the post-softmax scores."""
    return pd.DataFrame(
        {
            "image": ["a", "b", "c", "d"],
            "pre_gradcam": [0.1, 0.2, 0.4, None],
            "pre_gradcam_plus": [0.2, 0.2, 0.4, None],
            "pre_gradcam_plusplus": [0.4, 0.2, 0.8, None],
            "post_gradcam": [0.5, 0.5, 0.5, 0.25],
            "post_gradcam_plus": [0.5, 0.5, 0.5, None],
            "post_gradcam_plusplus": [0.5, 0.5, 0.5, 0.5],
        }
    )


def test_the_paper_says_what_its_tables_print() -> None:
    table_1 = {
        ("gradcam++", "gradcam"): (1.24, 1.27),
        ("gradcam+", "gradcam"): (1.16, 1.25),
        ("gradcam++", "gradcam+"): (1.06, 1.01),
    }
    table_2 = {
        ("gradcam++", "gradcam"): (0.21, 0.64, 0.24, 0.68),
        ("gradcam+", "gradcam"): (0.15, 0.66, 0.22, 0.68),
        ("gradcam++", "gradcam+"): (0.06, 0.41, 0.01, 0.11),
    }
    assert list(paper.PAIRS) == list(table_1)
    assert len(paper.CELLS) == 6
    for pair in paper.PAIRS:
        pre, post = paper.CELLS["pre", pair], paper.CELLS["post", pair]
        assert (pre.relative_performance, post.relative_performance) == table_1[pair]
        assert (pre.mean, pre.std, post.mean, post.std) == table_2[pair]
    assert paper.IMAGES == 4219


def test_the_two_tables_of_the_paper_agree_with_each_other() -> None:
    """Table 1 is the exponential of the means of Table 2, as far as their two decimals go."""
    for entry in paper.CELLS.values():
        low, high = math.exp(entry.mean - 0.005), math.exp(entry.mean + 0.005)
        assert low - 0.005 <= entry.relative_performance <= high + 0.005


def test_rows_are_named_as_in_the_paper() -> None:
    names = [paper.pair_name(pair) for pair in paper.PAIRS]
    assert names == ["Grad-CAM++ vs Grad-CAM", "Grad-CAM+ vs Grad-CAM", "Grad-CAM++ vs Grad-CAM+"]


@pytest.mark.parametrize(
    ("pair", "mean", "std"),
    [
        (("gradcam++", "gradcam"), LN2, LN2),  # quotients 4, 1, 2
        (("gradcam+", "gradcam"), LN2 / 3, LN2 / math.sqrt(3)),  # 2, 1, 1
        (("gradcam++", "gradcam+"), 2 * LN2 / 3, LN2 / math.sqrt(3)),  # 2, 1, 2
    ],
)
def test_summaries_by_hand(records: pd.DataFrame, pair: paper.Pair, mean: float, std: float) -> None:
    found = summaries(records)["pre", pair]
    half = T_2 * std / math.sqrt(3)
    assert found.n == 3
    assert found.mean == pytest.approx(mean, rel=ROUNDED)
    assert found.std == pytest.approx(std, rel=ROUNDED)
    assert found.relative_performance == pytest.approx(math.exp(mean), rel=ROUNDED)
    assert (found.low, found.high) == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=ROUNDED)


def test_a_pair_counts_the_images_that_have_both_scores(records: pd.DataFrame) -> None:
    found = summaries(records)
    assert [found["post", pair].n for pair in paper.PAIRS] == [4, 3, 3]
    assert found["post", ("gradcam++", "gradcam")].relative_performance == pytest.approx(2**0.25, rel=ROUNDED)
    assert found["post", ("gradcam++", "gradcam+")].relative_performance == 1.0


def test_nan_counts_as_missing(records: pd.DataFrame) -> None:
    assert summaries(records.fillna(np.nan)) == summaries(records)


def test_tables_put_the_paper_beside_the_run(records: pd.DataFrame) -> None:
    found, expected = paper_tables(records), summaries(records)
    assert list(found) == ["table1", "table2"]
    kinds: tuple[Scores, ...] = ("pre", "post")
    for scores in kinds:
        runs = [expected[scores, pair] for pair in paper.PAIRS]
        theirs = [paper.CELLS[scores, pair] for pair in paper.PAIRS]
        one, two = found["table1"], found["table2"]
        assert list(one[f"{scores}_paper"]) == [entry.relative_performance for entry in theirs]
        assert list(one[f"{scores}_run"]) == [run.relative_performance for run in runs]
        assert list(one[f"{scores}_low"]) == [run.low for run in runs]
        assert list(one[f"{scores}_high"]) == [run.high for run in runs]
        assert list(two[f"{scores}_mean_paper"]) == [entry.mean for entry in theirs]
        assert list(two[f"{scores}_mean_run"]) == [run.mean for run in runs]
        assert list(two[f"{scores}_std_paper"]) == [entry.std for entry in theirs]
        assert list(two[f"{scores}_std_run"]) == [run.std for run in runs]
        for table in (one, two):
            assert list(table[f"{scores}_n"]) == [run.n for run in runs]
            assert list(table["methods"]) == [paper.pair_name(pair) for pair in paper.PAIRS]


def test_readable_tables_have_the_decimals_of_the_paper_and_one_more(records: pd.DataFrame) -> None:
    found = paper_tables(records)
    one, two = readable("table1", found["table1"]), readable("table2", found["table2"])
    # The interval by hand: 2 exp(-+4.302653 ln 2 / sqrt 3) = 0.357 and 11.190.
    assert list(one.loc[0][:3]) == ["Grad-CAM++ vs Grad-CAM", "1.24", "2.000 [0.357, 11.190]"]
    assert list(one.columns) == ["methods", "pre paper", "pre this run [95 % CI]", "post paper", "post this run [95 % CI]"]
    assert list(two.loc[0][:5]) == ["Grad-CAM++ vs Grad-CAM", "0.21", "0.693", "0.64", "0.693"]
    assert list(two.loc[2][5:]) == ["0.01", "0.000", "0.11", "0.000"]
    assert list(two.columns)[1:5] == ["pre mean paper", "pre mean run", "pre std paper", "pre std run"]


def test_titles_name_the_table_and_the_numbers_of_images(records: pd.DataFrame) -> None:
    found = paper_tables(records)
    assert title("table1", found["table1"]) == (
        "Table 1. Relative performance, paper (n = 4219) beside this run (n = 3 to 4)"
    )  # fmt: skip
    complete = paper_tables(records.dropna())
    assert title("table2", complete["table2"]).startswith("Table 2. Log relative performance, ")
    assert title("table2", complete["table2"]).endswith("beside this run (n = 3)")


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_formats_hold_the_same_cells(records: pd.DataFrame, name: str) -> None:
    table = readable(name, paper_tables(records)[name])
    expected = [list(table.columns), *table.to_numpy().tolist()]
    github = [line.strip("|").split("|") for line in formatted(table, "github").splitlines()]
    assert set("".join(github.pop(1))) <= set(":-")
    assert [[cell.strip() for cell in row] for row in github] == expected
    latex = [line.removesuffix(r"\\").split("&") for line in formatted(table, "latex").splitlines() if line.endswith(r"\\")]
    assert [[cell.strip().replace(r"\%", "%") for cell in row] for row in latex] == expected
    simple = formatted(table, "simple").splitlines()
    assert [line.split("  ")[0].strip() for line in simple if not line.startswith("-")] == [row[0] for row in expected]
    assert all(cell in line for line, row in zip([simple[0], *simple[2:]], expected, strict=True) for cell in row)


def test_latex_has_no_comment_by_accident(records: pd.DataFrame) -> None:
    text = formatted(readable("table1", paper_tables(records)["table1"]), "latex")
    assert text.startswith(r"\begin{tabular}")
    assert text.count("%") == text.count(r"\%") == 2


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_are_refused_with_advice(records: pd.DataFrame, images: int) -> None:
    with pytest.raises(
        InputError, match=rf"{images} of {images} images have the scores pre_gradcam_plusplus and pre_gradcam;.*--threshold"
    ):
        paper_tables(records.head(images))
    emptied = records.assign(post_gradcam_plus=[0.5, math.nan, math.nan, math.nan])
    with pytest.raises(InputError, match="1 of 4 images have the scores post_gradcam_plus and post_gradcam;"):
        paper_tables(emptied)


@pytest.mark.parametrize("bad", [0.0, -0.5, math.inf])
def test_scores_that_are_not_positive_numbers_are_refused_by_column(records: pd.DataFrame, bad: float) -> None:
    records.loc[1, "post_gradcam_plus"] = bad
    with pytest.raises(InputError, match="records, columns post_gradcam_plus and post_gradcam: scores: expected positive finite"):
        paper_tables(records)


def test_the_order_of_images_does_not_matter(records: pd.DataFrame) -> None:
    backwards = summaries(records[::-1])
    for key, summary in summaries(records).items():
        assert backwards[key].relative_performance == pytest.approx(summary.relative_performance, rel=16 * UNIT)
        assert backwards[key].std == pytest.approx(summary.std, rel=16 * UNIT)


def test_differences_are_summarised_without_the_images_that_have_no_bound() -> None:
    values = {"pre_difference": [0.05, 0.1, 0.3, 0.2], "pre_bound": [0.1, 0.2, 0.4, None]}
    rows = pd.DataFrame({**values, "post_difference": [None] * 4, "post_bound": [None] * 4}, dtype=float)
    table = differences(rows)
    assert list(zip(table["scores"], table["of"], strict=True)) == [
        ("pre", "difference"), ("pre", "bound"), ("post", "difference"), ("post", "bound"),
    ]  # fmt: skip
    first, second = table.iloc[0], table.iloc[1]
    assert (first["n"], first["min"], first["max"]) == (4, 0.05, 0.3)
    assert (second["n"], second["min"], second["median"], second["max"]) == (3, 0.1, 0.2, 0.4)
    assert second["quartile1"] == pytest.approx(0.15)
    assert second["quartile3"] == pytest.approx(0.3)
    assert table.iloc[2]["n"] == 0
    assert np.isnan(table.iloc[2]["median"])
    assert "0.2000" in formatted(readable("differences", table), "simple")


def test_the_table_of_alphas_has_the_box_of_figure_4() -> None:
    streams: dict[Scores, Histogram] = {
        "pre": histogram(torch.linspace(0.1, 0.9, 1001)),
        "post": histogram(torch.linspace(0.45, 0.9, 1001)),
    }
    found = alphas(streams).set_index("quantity")
    for scores, own in streams.items():
        wanted = box(own)
        assert found.loc["median", scores] == wanted.median
        assert found.loc["lower whisker", scores] == wanted.low_whisker
        assert found.loc["minimum", scores] == own.minimum
        assert found.loc["count", scores] == 1001
    assert found.loc["share from 0.4 to 0.6", "pre"] == pytest.approx(0.25, abs=0.002)  # 200 of 800 steps


PAPER = profiles.load("paper").expected


def known() -> Expected:
    assert PAPER is not None
    return PAPER


def manifest(**changes: Any) -> dict[str, Any]:
    """A run that agrees with everything that is known, but for the changes."""
    experiment = {"weights": known().weights, "threshold": changes.pop("threshold", 0.5)}
    return {"experiment": experiment, "images": 10_000, "top1": 0.5884, "top5": 0.8166, "over_threshold": 4219} | changes


def test_the_paper_profile_knows_what_was_published() -> None:
    profile = profiles.load("paper")
    assert (known().top1, known().top5, known().images) == (0.5884, 0.8166, 10_000)
    assert known().over_threshold == paper.IMAGES
    assert known().weights == profile.download["weights"].sha256
    data = profile.download["data"]
    assert data.classes * data.images_per_class == known().images


def test_a_run_that_agrees_is_said_to_agree() -> None:
    check = self_check(manifest(), known())
    assert list(check.rows["quantity"]) == ["top-1", "top-5", "over 0.5"]
    assert list(check.rows["run"]) == pytest.approx([58.84, 81.66, 42.19])
    assert not check.rows["deviates"].any()
    assert check.warnings == ()
    assert "WARNING" not in check.text
    assert check.text.count("agrees") == 3


@pytest.mark.parametrize(
    ("changes", "loud"),
    [
        ({"top1": 0.5834}, []),  # exactly 0.5 points
        ({"top1": 0.5934}, []),
        ({"top1": 0.5833}, ["top-1 is 58.33 % and 58.84 % was published, -0.51 points: suspect wrong labels"]),
        ({"top5": 0.8217}, ["top-5 is 82.17 % and 81.66 % was published, +0.51 points"]),
        ({"over_threshold": 4270}, ["over 0.5 is 42.70 % and 42.19 %"]),
        ({"over_threshold": 4269}, []),
        ({"top1": 0.001, "top5": 0.005, "over_threshold": 9}, ["top-1", "top-5", "over 0.5"]),  # folders sorted as text
    ],
)
def test_more_than_half_a_point_is_loud(changes: dict[str, Any], loud: list[str]) -> None:
    check = self_check(manifest(**changes), known())
    assert len(check.warnings) == len(loud)
    assert all(warning.startswith(start) for warning, start in zip(check.warnings, loud, strict=True))
    assert list(check.rows["quantity"][check.rows["deviates"]]) == [start.partition(" is ")[0] for start in loud]
    assert check.text.count("\nWARNING: ") == check.text.count("DEVIATES") == len(loud)


def test_the_count_is_compared_at_its_own_threshold_only() -> None:
    assert list(self_check(manifest(threshold=0.3, over_threshold=6000), known()).rows["quantity"]) == ["top-1", "top-5"]


def test_other_weights_and_parts_of_the_set_are_not_compared() -> None:
    other = manifest() | {"experiment": {"weights": "random (seed 0)", "threshold": 0.5}}
    for run, says in ((manifest(images=200), "this run has 200"), (other, "these weights (random (seed 0))")):
        check = self_check(run, known())
        assert len(check.rows) == 0
        assert check.warnings == ()
        assert check.text.startswith("Self-check: ")
        assert says in check.text
