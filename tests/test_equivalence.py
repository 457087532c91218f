"""Equivalence: the intervals against one-sided t tests of paired contrasts, against loops, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, ttest_1samp

from gradcampp import paper
from gradcampp.cam import SCORES, Scores
from gradcampp.equivalence import (
    SHARE,
    Interval,
    Means,
    control,
    decide,
    decide_factor,
    decide_share,
    equivalence,
    of_classes,
    of_images,
    of_paper,
    of_run,
    rate,
    simulated,
)
from gradcampp.errors import InputError
from tests.loops import PROPERTY

Floats = NDArray[np.float64]
SIMULATED = 1e-11  # p values of contrasts near 0: a dozen roundings of numbers near 1, and SciPy's Student's t


def drawn(seed: int, n: int, gain: float, difference: float, spreads: tuple[float, float] = (0.6, 0.3)) -> tuple[Floats, Floats]:
    """Correlated log ratios."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, n))
    return gain + spreads[0] * first, difference + spreads[1] * (0.4 * first + 0.9 * second)


def by_tests(gains: Floats, differences: Floats, share: float) -> str:
    """The decision as two one-sided t tests at 5 % each, and the same in the other direction."""

    def positive(contrast: Floats) -> bool:
        return bool(ttest_1samp(contrast, 0, alternative="greater").pvalue < 0.05)

    if positive(share * gains - differences) and positive(share * gains + differences):
        return "equivalent"
    beyond = positive(differences - share * gains) or positive(-differences - share * gains)
    return "not equivalent" if positive(gains) and beyond else "cannot tell"


@PROPERTY
@given(
    st.integers(0, 1000),
    st.integers(2, 200),
    st.sampled_from([-0.4, 0.0, 0.1, 0.3, 1.0]),
    st.sampled_from([-0.3, -0.05, 0.0, 0.02, 0.05, 0.3]),
    st.sampled_from([0.05, 0.25, 0.5, 1.0]),
)
def test_the_share_decides_as_two_one_sided_tests_of_paired_contrasts(
    seed: int, n: int, gain: float, difference: float, share: float
) -> None:
    gains, differences = drawn(seed, n, gain, difference)
    assert decide_share(of_images(gains, differences), share) == by_tests(gains, differences, share)


def test_all_three_decisions_occur_in_those_samples() -> None:
    found = {by_tests(*drawn(0, 400, 0.3, difference), SHARE) for difference in (0.0, 0.08, 0.3)}
    assert found == {"equivalent", "not equivalent", "cannot tell"}


def test_at_either_end_of_the_interval_a_contrast_has_a_p_value_of_5_percent() -> None:
    gains, differences = drawn(1, 60, 0.5, 0.1)
    low, high = of_images(gains, differences).share().hull()
    assert ttest_1samp(differences - low * gains, 0, alternative="greater").pvalue == pytest.approx(0.05, abs=SIMULATED)
    assert ttest_1samp(differences - high * gains, 0, alternative="less").pvalue == pytest.approx(0.05, abs=SIMULATED)
    assert low < differences.mean() / gains.mean() < high


@pytest.mark.parametrize("gain", [-1.0, 0.0, 0.05])
def test_without_a_certain_gain_there_is_nothing_to_share(gain: float) -> None:
    means = of_images(*drawn(2, 30, gain, 0.0))
    assert means.share().hull() == (-math.inf, math.inf)
    assert decide_share(means) == "cannot tell"


def test_methods_that_score_alike_everywhere_are_equivalent() -> None:
    means = of_images(drawn(3, 50, 0.5, 0)[0], np.zeros(50))
    assert means.share().hull() == (0, 0)
    assert means.ratio().hull() == (1, 1)
    assert decide_share(means) == decide_factor(means, 1.05) == "equivalent"


def test_the_ratio_has_the_interval_of_a_t_test() -> None:
    gains, differences = drawn(4, 25, 0.5, 0.1)
    means = of_images(gains, differences)
    for confidence in (0.9, 0.95):
        for values, found in ((differences, means.ratio(confidence)), (gains, means.whole_ratio(confidence))):
            wanted = ttest_1samp(values, 0).confidence_interval(confidence)
            assert found.hull() == pytest.approx((math.exp(wanted.low), math.exp(wanted.high)), rel=1e-12)


def test_a_fixed_factor_calls_grad_cam_equivalent_where_nothing_differs_and_a_share_cannot() -> None:
    gains, _ = drawn(5, 1000, 0.05, 0.0, (0.2, 0.1))  # 5 %, certainly
    means = of_images(gains, gains)  # Grad-CAM in the place of Grad-CAM+
    assert control(means, 1.1) == decide_factor(means, 1.1) == "equivalent"
    assert decide_share(means) == "not equivalent"
    assert means.share().hull() == pytest.approx((1, 1), rel=1e-12)


def test_an_interval_is_read_by_both_of_its_ends() -> None:
    cases = {(0.1, 0.2): "equivalent", (0.1, 0.3): "cannot tell", (0.3, 0.4): "not equivalent", (-0.4, -0.3): "not equivalent"}
    for (low, high), wanted in cases.items():
        assert decide(Interval(np.array(low), np.array(high)), -0.25, 0.25) == wanted
    both = Interval(np.array([0.1, 0.3]), np.array([0.2, 0.4]))  # one says equivalent, the other not
    assert decide(both, -0.25, 0.25) == "cannot tell"


# --- classes ----------------------------------------------------------------------------------------------------------------


def test_balanced_classes_are_a_t_test_of_their_means() -> None:
    gains, differences = drawn(6, 120, 0.5, 0.1)
    clustered = of_classes(gains, differences, [index % 12 for index in range(120)])
    means = of_images(gains.reshape(10, 12).mean(0), differences.reshape(10, 12).mean(0))
    assert clustered is not None
    assert (clustered.n, clustered.freedom) == (120, 11)
    for confidence in (0.9, 0.95):
        assert clustered.ratio(confidence).hull() == pytest.approx(means.ratio(confidence).hull(), rel=1e-12)
        assert clustered.share(confidence).hull() == pytest.approx(means.share(confidence).hull(), rel=1e-9)


def test_unbalanced_classes_equal_a_loop_over_them() -> None:
    gains, differences = drawn(7, 40, 0.5, 0.1)
    classes = [int(index**0.5) for index in range(40)]  # 0 to 6, ever larger
    found = of_classes(gains, differences, classes)
    assert found is not None
    sums = []
    for label in sorted(set(classes)):
        own = [index for index in range(40) if classes[index] == label]
        sums.append([sum(values[index] - values.mean() for index in own) for values in (gains, differences)])
    count = len(sums)
    assert found.freedom == count - 1
    entries = [(found.gain_variance, 0, 0), (found.difference_variance, 1, 1), (found.covariance, 0, 1)]
    for entry, first, second in entries:
        wanted = sum(row[first] * row[second] for row in sums) / 40**2 * count / (count - 1)
        assert float(entry) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("classes", [range(20), [3] * 20], ids=["one image each", "one class"])
def test_there_is_nothing_to_group_by_with_one_image_a_class_or_one_class(classes: list[int]) -> None:
    assert of_classes(*drawn(8, 20, 0.5, 0.1), list(classes)) is None


# --- the paper's own tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", SCORES)
def test_the_corners_of_the_papers_rounding_hold_whatever_rounds_to_its_entries(scores: Scores) -> None:
    whole, plus, over = (paper.CELLS[scores, pair] for pair in paper.PAIRS)
    corners = of_paper(scores)
    low, high = corners.share().hull()
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(4000):
        b, d = (cell.mean + rng.uniform(-0.005, 0.005) for cell in (plus, over))
        entries = zip((b + d, b, d), (whole, plus, over), strict=True)
        if not all(round(m, 2) == c.mean and round(math.exp(m), 2) == c.relative_performance for m, c in entries):
            continue
        spreads = [cell.std + rng.uniform(-0.005, 0.005) for cell in (whole, plus, over)]
        variances = [spread**2 for spread in spreads]
        covariance = (variances[0] + variances[2] - variances[1]) / 2
        gain, difference, first, second, both = map(np.asarray, (b + d, d, variances[0], variances[2], covariance))
        inside = Means(4219, gain, difference, first / 4219, second / 4219, both / 4219, 4218).share().hull()
        assert low <= inside[0] < inside[1] <= high
        tried += 1
    assert tried > 20


def test_the_papers_tables_say_equivalent_after_the_softmax_and_leave_it_open_before() -> None:
    pre, post = of_paper("pre"), of_paper("post")
    assert decide_share(post) == "equivalent"
    assert decide_share(pre) == "cannot tell"
    assert decide_share(pre, 0.4) == "equivalent"
    assert decide_share(pre, 0.2) == "not equivalent"
    assert decide_factor(pre, 1.1) == decide_factor(post, 1.1) == "equivalent"
    assert decide_factor(pre, 1.05) == "cannot tell"
    assert control(pre, 1.1) == control(post, 1.1) == "not equivalent"


# --- simulation -------------------------------------------------------------------------------------------------------------

REPETITIONS = 20_000
MOST = binom.ppf(1 - 1e-4, REPETITIONS, 0.05) / REPETITIONS  # a test at 5 % exceeds this once in 10,000 simulations


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("n", [100, 1000, 4219])
def test_at_the_margin_at_most_5_percent_are_called_equivalent(scores: Scores, n: int) -> None:
    for share in (-SHARE, SHARE):
        assert rate(simulated(scores, n, share, REPETITIONS)) <= MOST
    assert rate(simulated(scores, n, 1.5 * SHARE, REPETITIONS)) <= MOST


@pytest.mark.parametrize(("scores", "powers"), [("pre", (0.016, 0.957, 1.0)), ("post", (0.829, 1.0, 1.0))])
def test_more_images_have_more_power(scores: Scores, powers: tuple[float, ...]) -> None:
    """The numbers of the book, with four standard errors of a simulation for another version of NumPy."""
    for n, power in zip((100, 1000, 4219), powers, strict=True):
        room = 4 * math.sqrt(0.25 / REPETITIONS)
        assert rate(simulated(scores, n, 0.0, REPETITIONS)) == pytest.approx(power, abs=room)


def test_means_and_covariances_are_drawn_as_those_of_samples() -> None:
    """The statistics of 4,000 samples of 50, against 4,000 drawn at once: their quartiles agree."""
    whole, plus, over = (paper.CELLS["pre", pair] for pair in paper.PAIRS)
    both = (whole.std**2 + over.std**2 - plus.std**2) / 2
    rng = np.random.default_rng(0)
    centre, covariance = [whole.mean, 0.1 * whole.mean], [[whole.std**2, both], [both, over.std**2]]
    samples = rng.multivariate_normal(centre, covariance, (4000, 50))
    found = simulated("pre", 50, 0.1, 4000)
    singles = [of_images(*sample.T) for sample in samples]
    for name in ("gain", "difference", "gain_variance", "difference_variance", "covariance"):
        drawn_at_once, one_by_one = getattr(found, name), np.array([getattr(means, name) for means in singles])
        quartiles = np.quantile(one_by_one, [0.25, 0.5, 0.75])
        room = 0.12 * (quartiles[2] - quartiles[0])  # a quartile of 4,000 has an error of 0.016 of them, twice, four times
        assert np.quantile(drawn_at_once, [0.25, 0.5, 0.75]) == pytest.approx(quartiles, abs=room)


def test_skewed_logarithms_hardly_make_it_liberal() -> None:
    """Log ratios have long tails: here shifted exponentials, 1,000 images, exactly at the margin (5.5 % of 10,000 such runs)."""
    rng = np.random.default_rng(1)
    runs = 2000
    first, second = rng.exponential(size=(2, runs, 1000)) - 1
    gains = 0.213 + 0.64 * first
    differences = SHARE * 0.213 + 0.41 * (0.4 * first + 0.9 * second)
    called = sum(decide_share(of_images(*logs)) == "equivalent" for logs in zip(gains, differences, strict=True))
    assert called <= binom.ppf(1 - 1e-4, runs, 0.05)
    assert decide_share(of_images(gains[0], differences[0] - SHARE * 0.213)) == "equivalent"


def test_where_classes_are_alike_only_the_clustered_test_keeps_its_level() -> None:
    """40 classes with 10 images each and an effect of the class on both ratios, at the margin."""
    rng = np.random.default_rng(2)
    runs, groups, images = 2000, 40, 10

    def correlated(size: tuple[int, ...], spreads: tuple[float, float]) -> Floats:
        first, second = rng.normal(size=(2, *size))
        return np.array([spreads[0] * first, spreads[1] * (0.4 * first + 0.9 * second)])

    effects = correlated((runs, groups, 1), (0.3, 0.1))
    logs = effects + correlated((runs, groups, images), (0.3, 0.1))
    logs += np.array([0.6, SHARE * 0.6]).reshape(2, 1, 1, 1)

    def means(values: Floats) -> Means:
        """Of many samples at once, (2, runs, n)."""
        n, centre = values.shape[2], values.mean(2)
        apart = values - centre[:, :, None]
        first, second, both = ((apart[i] * apart[j]).sum(1) / (n - 1) / n for i, j in ((0, 0), (1, 1), (0, 1)))
        return Means(n, centre[0], centre[1], first, second, both, n - 1)

    by_image, by_class = means(logs.reshape(2, runs, -1)), means(logs.mean(3))
    classes = np.repeat(range(groups), images).tolist()
    one = of_classes(logs[0, 0].ravel(), logs[1, 0].ravel(), classes)
    assert one is not None
    assert one.share().hull() == pytest.approx((by_class.share().low[0], by_class.share().high[0]), rel=1e-9)
    bound = binom.ppf(1 - 1e-4, runs, 0.05) / runs
    assert rate(by_class) <= bound
    assert rate(by_image) > 2 * bound


# --- a run ------------------------------------------------------------------------------------------------------------------


def run_records(n: int = 60, classes: int = 6) -> pd.DataFrame:
    rows = pd.DataFrame({"label": [index % classes for index in range(n)]})
    for seed, scores in enumerate(SCORES):
        gains, differences = drawn(seed + 10, n, 0.6, 0.05)
        rows[f"{scores}_gradcam"] = 0.05
        rows[f"{scores}_gradcam_plusplus"] = 0.05 * np.exp(gains)
        rows[f"{scores}_gradcam_plus"] = 0.05 * np.exp(gains - differences)
    return rows


def test_the_table_has_the_paper_and_the_run_both_ways() -> None:
    records = run_records()
    records.loc[60] = [0, *[None, 0.1, 0.1], *[0.1, 0.1, 0.1]]  # an image without one of the scores
    found = equivalence(records, 1.1)
    assert list(found["source"]) == ["paper", "this run, by image", "this run, by class"] * 2
    assert list(found["n"]) == [4219, 60, 60, 4219, 61, 61]
    assert list(found["groups"]) == [4219, 60, 6, 4219, 61, 6]
    for _, row in found.iterrows():
        assert row["low"] < row["ratio"] < row["high"]
        assert row["share_low"] < row["share"] < row["share_high"]
    own = records.dropna()
    means = of_run(records, "pre")["by image"]
    differences = np.log((own["pre_gradcam_plusplus"] / own["pre_gradcam_plus"]).to_numpy())
    ends = ttest_1samp(differences, 0).confidence_interval(0.9)
    assert tuple(found.loc[1, ["low", "high"]]) == pytest.approx((math.exp(ends.low), math.exp(ends.high)), rel=1e-12)
    assert found.loc[1, "by_share"] == decide_share(means)
    assert found.loc[1, "by_factor"] == decide_factor(means, 1.1)
    assert found.loc[1, "control"] == "not equivalent"
    p = ttest_1samp(differences, 0).pvalue
    assert found.loc[1, "differs"] == (p < 0.05)
    assert found.loc[[0, 3], "differs"].all()  # 1.06 and 1.01, of 4,219 images


def test_a_run_with_one_image_a_class_has_no_row_by_class() -> None:
    assert list(equivalence(run_records(30, 30), 1.1)["source"]) == ["paper", "this run, by image"] * 2


def test_too_few_images_and_impossible_scores_are_one_line() -> None:
    records = run_records(1)
    with pytest.raises(InputError, match="1 of 1 images have the scores pre_gradcam_plusplus and pre_gradcam.*two or more"):
        equivalence(records, 1.1)
    records = run_records(5)
    records.loc[2, "post_gradcam"] = 0.0
    with pytest.raises(InputError, match="records, columns post_gradcam_plusplus and post_gradcam: .*expected positive finite"):
        equivalence(records, 1.1)
