"""Streams of alphas against NumPy, matplotlib and the alphas themselves."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats
from numpy.typing import NDArray

from gradcampp import cam
from gradcampp.evaluation.alphas import (
    BINS,
    EMPTY,
    Histogram,
    box,
    histogram,
    merge,
    positive,
    quantile,
    share,
    tanh_histogram,
)
from tests.loops import PROPERTY

NEAR = 5e-5  # what Figure 4 can show; half a bin is 4e-6 at 1/2
ALPHAS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60)
AROUND_HALF = st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=60)
ANY = st.lists(st.floats(allow_nan=False, width=32), min_size=0, max_size=40)


def assert_identical(first: Histogram, second: Histogram) -> None:
    assert np.array_equal(first.counts, second.counts)
    assert (first.minimum, first.maximum) == (second.minimum, second.maximum)


def around_half(shape: str, n: int) -> NDArray[np.float64]:
    """Alphas as networks make them: most at 1/2, some far away."""
    rng = np.random.default_rng(n)
    match shape:
        case "post":
            return 0.5 + 1e-4 * rng.standard_normal(n)
        case "pre":
            return 1 / (2 + rng.standard_normal(n) * rng.exponential(0.3, n))
        case _:
            return rng.uniform(0, 1, n)


@PROPERTY
@given(ANY)
@example([math.inf, -math.inf, 0.5])
def test_count_minimum_and_maximum_are_exact(alphas: list[float]) -> None:
    found = histogram(torch.tensor(alphas))
    assert found.count == len(alphas)
    assert found.minimum == min(alphas, default=math.inf)
    assert found.maximum == max(alphas, default=-math.inf)


@PROPERTY
@given(ALPHAS, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]))
def test_quantiles_are_those_of_numpy_to_half_a_bin(alphas: list[float], probability: float) -> None:
    values = torch.tensor(alphas)
    expected = float(np.quantile(values.double().numpy(), probability))
    # Half a bin of the tanh scale, and two roundings to float32 there, stretched by the slope of its inverse. Linear
    # interpolation between order statistics takes the larger of their errors.
    slope = math.cosh(float((values.double() - 0.5).abs().max())) ** 2
    assert quantile(histogram(values), probability) == pytest.approx(expected, abs=(1 / BINS + 2 * 2**-24) * slope * (1 + 1e-4))


@pytest.mark.parametrize("shape", ["pre", "post", "uniform"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001, 50_000])
def test_the_box_is_that_of_matplotlib(shape: str, n: int) -> None:
    alphas = around_half(shape, n)
    found, expected = box(histogram(torch.from_numpy(alphas))), boxplot_stats(alphas)[0]
    assert found.first_quartile == pytest.approx(expected["q1"], abs=NEAR)
    assert found.median == pytest.approx(expected["med"], abs=NEAR)
    assert found.third_quartile == pytest.approx(expected["q3"], abs=NEAR)
    assert found.low_whisker == pytest.approx(expected["whislo"], abs=NEAR)
    assert found.high_whisker == pytest.approx(expected["whishi"], abs=NEAR)


@PROPERTY
@given(AROUND_HALF)
def test_the_whiskers_are_those_of_matplotlib_where_no_alpha_sits_on_the_fence(alphas: list[float]) -> None:
    values = torch.tensor(alphas).double()
    expected = boxplot_stats(values.numpy())[0]
    reach = 1.5 * (expected["q3"] - expected["q1"])
    fences = torch.tensor([expected["q1"] - reach, expected["q3"] + reach])
    assume(bool(((values[:, None] - fences).abs() > NEAR).all()))
    assume(bool((values <= expected["q1"]).any()) and bool((values >= expected["q3"]).any()))
    inside = values[(values > fences[0]) & (values < fences[1])]
    assume(len(inside) > 0 and bool(inside.max() >= expected["q3"]) and bool(inside.min() <= expected["q1"]))
    found = box(histogram(values))
    assert found.low_whisker == pytest.approx(expected["whislo"], abs=NEAR)
    assert found.high_whisker == pytest.approx(expected["whishi"], abs=NEAR)


def test_whiskers_end_at_the_quartiles_where_no_alpha_lies_between_them_and_the_fence() -> None:
    alphas = [0.0, 0.0, 0.0, 1.0]
    assert box(histogram(torch.tensor(alphas))).high_whisker == pytest.approx(boxplot_stats(alphas)[0]["whishi"], abs=NEAR)


def test_whiskers_do_not_leave_the_box_where_most_alphas_are_just_below_a_half() -> None:
    alphas = torch.tensor([0.1] * 10 + [0.5 - 2**-25] * 90)
    found = box(histogram(alphas))
    assert found.high_whisker >= found.third_quartile


def test_a_stream_of_infinities_has_a_box() -> None:
    assert box(histogram(torch.tensor([math.inf, math.inf]))).median == math.inf


def test_the_box_ignores_a_few_infinite_alphas() -> None:
    alphas = torch.cat([torch.linspace(0.4, 0.6, 101), torch.tensor([math.inf, -math.inf])])
    found = box(histogram(alphas))
    assert found.median == pytest.approx(0.5, abs=NEAR)
    assert found.low_whisker == pytest.approx(0.4, abs=NEAR)
    assert found.high_whisker == pytest.approx(0.6, abs=NEAR)


def test_whiskers_leave_outliers_out() -> None:
    alphas = torch.cat([torch.linspace(0.4, 0.6, 101), torch.tensor([-5.0, 9.0])])
    found = box(histogram(alphas))
    assert found.low_whisker == pytest.approx(0.4, abs=NEAR)
    assert found.high_whisker == pytest.approx(0.6, abs=NEAR)


@PROPERTY
@given(st.lists(ANY, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_is_the_same_to_the_bit_in_any_order(parts: list[list[float]], random: Random) -> None:
    streams = [histogram(torch.tensor(part)) for part in parts]
    in_turn = EMPTY
    for part in streams:
        in_turn = merge(in_turn, part)
    random.shuffle(streams)
    from_behind = streams[-1]
    for part in streams[:-1]:
        from_behind = merge(part, from_behind)
    assert_identical(in_turn, from_behind)
    assert_identical(in_turn, histogram(torch.tensor([alpha for part in parts for alpha in part])))


@PROPERTY
@given(ANY, st.randoms(use_true_random=False))
def test_the_order_of_alphas_does_not_matter(alphas: list[float], random: Random) -> None:
    shuffled = list(alphas)
    random.shuffle(shuffled)
    assert_identical(histogram(torch.tensor(shuffled)), histogram(torch.tensor(alphas)))


def test_shape_and_layout_do_not_matter() -> None:
    alphas = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert_identical(histogram(alphas.T), histogram(alphas.flatten()))
    assert_identical(histogram(torch.tensor(0.25)), histogram(torch.tensor([0.25])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_counted_as_the_number_it_holds(dtype: torch.dtype) -> None:
    alphas = torch.tensor([-1.0, 0.25, 0.375, 0.75, 2.0], dtype=dtype)  # exact in all of them, and far from edges of bins
    assert_identical(histogram(alphas), histogram(alphas.double()))


def test_an_empty_stream_merges_like_zero_and_has_no_quantiles() -> None:
    empty = histogram(torch.empty(0))
    some = histogram(torch.tensor([0.5, 0.75]))
    assert (empty.count, empty.minimum, empty.maximum) == (0, math.inf, -math.inf)
    assert_identical(merge(empty, some), some)
    assert_identical(merge(some, EMPTY), some)
    assert math.isnan(quantile(empty, 0.5))
    assert all(math.isnan(value) for value in vars(box(empty)).values())
    assert tanh_histogram(empty)[0].tolist() == [0] * 128


def test_counting_leaves_the_empty_stream_and_the_alphas_as_they_were() -> None:
    alphas = torch.tensor([0.1, 0.9], dtype=torch.float64)
    assert histogram(alphas).count == 2
    assert EMPTY.count == 0
    assert alphas.tolist() == [0.1, 0.9]


def test_infinities_fall_into_the_outermost_bins() -> None:
    counts = histogram(torch.tensor([-math.inf, math.inf, math.inf])).counts
    assert (counts[0], counts[-1], counts.sum()) == (1, 2, 3)


@pytest.mark.parametrize("alphas", [[math.nan], [0.5, math.nan, 0.5], [math.inf, math.nan]])
def test_a_nan_is_refused(alphas: list[float]) -> None:
    with pytest.raises(ValueError, match="expected numbers, got NaN"):
        histogram(torch.tensor(alphas))


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_beyond_0_and_1_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\], got"):
        quantile(histogram(torch.tensor([0.5])), probability)


@pytest.mark.parametrize("bars", [1, 2, 128, 4096])
def test_the_histogram_is_that_of_numpy(bars: int) -> None:
    alphas = around_half("pre", 20_000)
    counts, edges = tanh_histogram(histogram(torch.from_numpy(alphas)), bars)
    expected, expected_edges = np.histogram(np.tanh(alphas - 0.5), bars, (-1, 1))
    assert np.array_equal(edges, expected_edges)
    assert np.array_equal(counts, expected)
    assert counts.dtype == np.int64


def test_the_histogram_has_128_bars_unless_said_and_counts_all() -> None:
    found = histogram(torch.from_numpy(around_half("uniform", 777)))
    counts, edges = tanh_histogram(found)
    assert (len(counts), len(edges), counts.sum()) == (128, 129, 777)
    assert (edges[0], edges[64], edges[128]) == (-1, 0, 1)


def test_the_squeezed_distance_is_from_a_half() -> None:
    counts, _ = tanh_histogram(histogram(torch.tensor([0.5, 0.49, 0.51, -9.0, 9.0])), 4)
    assert counts.tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("bars", [0, -2, 3, 100, 2 * BINS])
def test_bars_that_do_not_divide_the_bins_are_refused(bars: int) -> None:
    with pytest.raises(ValueError, match=f"expected a power of two up to {BINS}, got {bars}"):
        tanh_histogram(EMPTY, bars)


def test_merging_batch_by_batch_is_counting_all_at_once_in_memory_that_does_not_grow() -> None:
    parts = [torch.from_numpy(around_half("pre", n)).float() for n in (5, 0, 300, 1)]
    merged = EMPTY
    for part in parts:
        merged = merge(merged, histogram(part))
        assert merged.counts.nbytes == EMPTY.counts.nbytes == 8 * BINS <= 2**22
    assert_identical(merged, histogram(torch.cat(parts)))


def test_the_share_between_two_bounds_is_that_of_a_count() -> None:
    alphas = torch.linspace(-1, 2, 1001, dtype=torch.float64)
    between = ((alphas > 0.3001) & (alphas < 0.7001)).double().mean()
    assert share(histogram(alphas), 0.3001, 0.7001) == between  # no value is within a bin of the bounds
    assert math.isnan(share(EMPTY, 0, 1))


def mixed_layer(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer behind a ReLU, float32: poles, dead channels, terms too small for float32, gradients of 0."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(3, 8, 5, 5, generator=generator).relu()
    sizes = torch.tensor([1, 1, 1, 1e-12, 1e-3, 0.1, 1, 10])
    gradients = torch.randn(3, 8, 5, 5, generator=generator) * sizes[:, None, None]
    activations[:, 0] = 0
    gradients[:, 1] = gradients[:, 1].relu()
    gradients[:, 2] = 0.25
    return activations, gradients


@pytest.mark.parametrize("seed", range(8))
def test_the_alphas_at_positive_gradients_are_found_among_all(seed: int) -> None:
    activations, gradients = mixed_layer(seed)
    alphas = cam.alphas(activations, gradients)
    at_positive = alphas[gradients > 0]
    assert (at_positive == 0.5).any()  # dead channels, and terms that are lost
    assert (at_positive < 0.4).any()
    assert (alphas[gradients < 0] < 0).any()
    found = positive(histogram(alphas[gradients != 0]), int((gradients > 0).sum()))
    assert found.count == len(at_positive)
    assert found.maximum == 0.5
    for probability in np.linspace(0, 1, 21):
        expected = float(np.quantile(at_positive.double().numpy(), probability))
        # Half a bin, and two roundings to float32, stretched by the slope at 0, the steepest between 0 and 1/2.
        near = (1 / BINS + 2 * 2**-24) * math.cosh(0.5) ** 2
        assert quantile(found, probability) == pytest.approx(expected, abs=near)


def test_alphas_just_below_a_half_are_not_those_at_a_half() -> None:
    below, above = 0.5 - 4 / BINS, 0.5 + 4 / BINS
    found = positive(histogram(torch.tensor([below, below, 0.5, above, -2.0, 9.0, math.inf, -math.inf])), 3)
    assert found.count == 3
    assert quantile(found, 0) == pytest.approx(below, abs=1 / BINS)
    assert quantile(found, 1) == 0.5
    assert quantile(found, 0.5) == pytest.approx(below, abs=1 / BINS)


def test_the_number_of_positive_gradients_must_fit() -> None:
    alphas = histogram(torch.tensor([0.1, 0.2, 0.7]))
    assert positive(alphas, 2).count == 2
    assert positive(histogram(torch.tensor([0.7])), 0) is EMPTY
    with pytest.raises(ValueError, match="expected at least 2 positive gradients, got 1"):
        positive(alphas, 1)
