"""Eqs 16 and 17, and the numbers of Tables 1 and 2, against loops and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from gradcampp.cam import METHODS, SCORES, column
from gradcampp.performance import (
    confidence_drops,
    drop_and_increase,
    log_relative_performance,
    percent,
    relative_performance,
    summarise,
)
from tests import loops
from tests.loops import PROPERTY, UNIT

SCORE = st.floats(1e-3, 1)
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=30)
TRIPLES = st.lists(st.tuples(SCORE, SCORE, SCORE), min_size=2, max_size=30)
Scores = list[tuple[float, ...]]


def columns(rows: Scores) -> tuple[list[float], ...]:
    return tuple([list(column) for column in zip(*rows, strict=True)])


def test_relative_performance_is_the_root_of_the_product() -> None:
    loops.assert_relative_performance(relative_performance)


@PROPERTY
@given(PAIRS)
def test_eq_17_equals_eq_16(rows: Scores) -> None:
    scores, baseline = columns(rows)
    expected = loops.relative_performance(scores, baseline)
    # As in loops.assert_relative_performance.
    assert math.isclose(relative_performance(scores, baseline), expected, rel_tol=(41 + 7 * len(rows)) * UNIT)


def test_relative_performance_by_hand() -> None:
    assert relative_performance([0.8, 0.9], [0.2, 0.9]) == pytest.approx(2.0, rel=8 * UNIT)
    assert relative_performance([0.1], [0.4]) == pytest.approx(0.25, rel=8 * UNIT)


def test_log_relative_performance_is_the_natural_logarithm_of_the_quotient() -> None:
    logs = log_relative_performance([math.e, 1.0, 0.5], [1.0, math.e, 0.5])
    assert logs.dtype == np.float64
    assert logs.tolist() == pytest.approx([1.0, -1.0, 0.0], abs=2 * UNIT)


@PROPERTY
@given(PAIRS)
def test_the_inverse_comparison_has_the_inverse_performance(rows: Scores) -> None:
    scores, baseline = columns(rows)
    product = relative_performance(scores, baseline) * relative_performance(baseline, scores)
    assert product == pytest.approx(1.0, rel=5 * UNIT)  # logarithms differ in sign only; two exponentials, one product


@PROPERTY
@given(TRIPLES)
def test_means_of_logarithms_add_up_and_performances_multiply(rows: Scores) -> None:
    """Grad-CAM++ vs Grad-CAM is Grad-CAM++ vs Grad-CAM+ plus Grad-CAM+ vs Grad-CAM."""
    plus_plus, plus, plain = columns(rows)
    whole, first, second = summarise(plus_plus, plain), summarise(plus_plus, plus), summarise(plus, plain)
    # Logarithms up to 7: each of three differences rounds by 7 units, each of three means by 7 n.
    absolute = 21 * (len(rows) + 1) * UNIT
    assert whole.mean == pytest.approx(first.mean + second.mean, abs=absolute)
    product = first.relative_performance * second.relative_performance
    assert whole.relative_performance == pytest.approx(product, rel=absolute + 8 * UNIT)


@PROPERTY
@given(PAIRS)
def test_summaries_are_the_loops(rows: Scores) -> None:
    scores, baseline = columns(rows)
    logs = [math.log(first) - math.log(second) for first, second in rows]
    summary = summarise(scores, baseline)
    absolute = (35 + 7 * len(rows)) * UNIT  # of a logarithm and of their mean, as in loops.assert_relative_performance
    assert summary.n == len(rows)
    assert summary.mean == pytest.approx(math.fsum(logs) / len(logs), abs=absolute)
    assert summary.relative_performance == pytest.approx(math.exp(summary.mean), rel=4 * UNIT)
    # The deviation is a length: it moves no more than the largest deviation times sqrt(n / (n - 1)), and rounds n times.
    assert summary.std == pytest.approx(loops.standard_deviation(logs), rel=(len(logs) + 8) * UNIT, abs=4 * absolute)


def test_the_deviation_divides_by_n_minus_1() -> None:
    summary = summarise([math.e, 1.0, 1.0], [1.0, 1.0, math.e])  # logarithms 1, 0, -1
    assert summary.std == pytest.approx(1.0, rel=4 * UNIT)
    assert summary.mean == pytest.approx(0.0, abs=UNIT)


@pytest.mark.parametrize("n", [2, 3, 10, 400])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_that_of_a_t_test_on_the_logarithms(n: int, confidence: float) -> None:
    rng = np.random.default_rng(n)
    scores, baseline = rng.uniform(1e-3, 1, (2, n))
    expected = ttest_1samp(np.log(scores / baseline), 0).confidence_interval(confidence)
    summary = summarise(scores, baseline, confidence)
    # SciPy's quantile of Student's t is good to about 1e-14 and is at most 64 (n = 2, 99 %) here, a deviation at most 5.
    assert summary.low == pytest.approx(math.exp(expected.low), rel=1e-11)
    assert summary.high == pytest.approx(math.exp(expected.high), rel=1e-11)


def test_the_interval_covers_95_percent_unless_said() -> None:
    scores, baseline = loops.score_pairs()[2]
    assert summarise(scores, baseline) == summarise(scores, baseline, 0.95)


def test_95_of_100_intervals_contain_the_truth() -> None:
    rng = np.random.default_rng(0)
    logs = rng.normal(0.06, 0.41, (1000, 12))
    summaries = [summarise(np.exp(sample), np.ones(12)) for sample in logs]
    covered = sum(summary.low <= math.exp(0.06) <= summary.high for summary in summaries)
    assert abs(covered - 950) <= 4 * math.sqrt(1000 * 0.95 * 0.05)  # four standard deviations of a binomial count


def test_one_image_has_no_deviation_and_an_interval_that_says_nothing() -> None:
    summary = summarise([0.5], [0.25])
    assert (summary.n, summary.low, summary.high) == (1, 0.0, math.inf)
    assert summary.relative_performance == pytest.approx(2.0, rel=4 * UNIT)
    assert math.isnan(summary.std)


def test_equal_scores_have_performance_1_exactly() -> None:
    scores = loops.score_pairs()[3][0]
    summary = summarise(scores, scores)
    assert (summary.relative_performance, summary.low, summary.high, summary.mean, summary.std) == (1, 1, 1, 0, 0)


def test_thousands_of_tiny_scores_do_not_underflow() -> None:
    scores, baseline = np.full(5000, 3e-300), np.full(5000, 1e-300)
    assert np.prod(scores) == 0.0
    # Logarithms near -690: 3 units of 1024 each, and pairwise summation of 5000 equal numbers adds less than 20.
    assert relative_performance(scores, baseline) == pytest.approx(3.0, rel=4096 * UNIT)


def test_the_smallest_positive_score_is_a_score() -> None:
    assert relative_performance([5e-324], [1e-323]) == pytest.approx(0.5, rel=4096 * UNIT)


def test_float32_scores_are_compared_in_float64() -> None:
    scores, baseline = np.array([0.7, 1e-30], np.float32), np.array([0.3, 1e-38], np.float32)
    expected = relative_performance(scores.astype(float).tolist(), baseline.astype(float).tolist())
    assert relative_performance(scores, baseline) == expected


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_scores_that_are_not_positive_numbers_are_refused(bad: float, which: int) -> None:
    vectors = [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    vectors[which][1] = bad
    for function in (log_relative_performance, relative_performance, summarise):
        with pytest.raises(ValueError, match=f"{('scores', 'baseline')[which]}: expected positive finite numbers"):
            function(vectors[0], vectors[1])


@pytest.mark.parametrize(("scores", "baseline"), [([0.5, 0.5], [0.5]), ([[0.5]], [[0.5]]), (0.5, 0.5)])
def test_other_than_two_vectors_of_one_length_are_refused(scores: object, baseline: object) -> None:
    first, second = np.asarray(scores, float), np.asarray(baseline, float)
    with pytest.raises(ValueError, match="expected two vectors of one length, got shapes") as caught:
        log_relative_performance(first, second)
    assert f"{first.shape} and {second.shape}" in str(caught.value)


def test_no_image_is_refused() -> None:
    for function in (relative_performance, summarise):
        with pytest.raises(ValueError, match="expected at least one image, got none"):
            function([], [])


@pytest.mark.parametrize("confidence", [-0.5, 0.0, 1.0, 1.5, math.nan])
def test_a_confidence_that_is_no_coverage_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"confidence: expected a number between 0 and 1, got {confidence}"):
        summarise([0.5, 0.25], [0.5, 0.5], confidence)


def test_drop_and_increase_are_those_of_a_loop_over_images() -> None:
    rng = np.random.default_rng(0)
    names = [column(scores, method) for scores in SCORES for method in METHODS]
    records = pd.DataFrame({name: rng.uniform(0.01, 1, 40) for name in ["score", *names]})
    records.loc[3, "pre_gradcam"] = np.nan  # leaves the image out of all pre-softmax rows
    found = drop_and_increase(records).set_index(["scores", "method"])
    for scores in SCORES:
        kept = [row for index, row in records.iterrows() if scores == "post" or index != 3]
        for method in METHODS:
            drop = more = 0.0
            for row in kept:
                explained = row[column(scores, method)]
                drop += max(0.0, row["score"] - explained) / row["score"]
                more += explained > row["score"]
            assert found.loc[(scores, method), "n"] == len(kept)
            assert found.loc[(scores, method), "drop"] == pytest.approx(drop / len(kept), rel=1e-12)
            assert found.loc[(scores, method), "increase"] == more / len(kept)


def test_a_score_that_stays_the_same_is_no_increase() -> None:
    names = [column(scores, method) for scores in SCORES for method in METHODS]
    records = pd.DataFrame({name: [0.5, 0.25] for name in ["score", *names]})
    assert drop_and_increase(records)[["drop", "increase"]].to_numpy().tolist() == [[0, 0]] * 6


def test_the_drop_of_a_map_that_helps_is_none() -> None:
    assert confidence_drops([0.8, 0.5, 0.5], [0.2, 0.5, 0.9]).tolist() == pytest.approx([0.75, 0.0, 0.0], rel=4 * UNIT)


@pytest.mark.parametrize(
    ("share", "form", "shown"),
    [
        (1, ".1%", "100.0%"),
        (0.9998, ".1%", ">99.9%"),
        (0.9994, ".1%", "99.9%"),
        (0.998, ".0%", ">99%"),
        (0, ".0%", "0%"),
        (2e-4, ".1%", "<0.1%"),
        (np.float32(0.99999), ".2%", ">99.99%"),
        (-2e-4, ".0%", "-0%"),
        (1.0002, ".1%", "100.0%"),
    ],
)
def test_only_all_is_100_percent_and_only_none_is_0(share: float, form: str, shown: str) -> None:
    assert percent(share, form) == shown
