"""Min-max maps, upsampling and eq. 15 against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp.cam import explanation_map, min_max, upsample
from tests import loops
from tests.loops import PROPERTY, UNIT, assert_same

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def test_min_max_is_the_loops() -> None:
    loops.assert_min_max(min_max)


def test_upsample_is_bilinear_between_the_centres_of_pixels() -> None:
    loops.assert_upsample(upsample)


def test_explanation_maps_are_eq_15() -> None:
    loops.assert_explanation_maps(explanation_map)


@PROPERTY
@given(loops.layers())
def test_a_min_max_map_reaches_0_and_1_and_nothing_beyond(layer: tuple[Tensor, Tensor]) -> None:
    maps = layer[1]
    low, high = min_max(maps).amin((2, 3)), min_max(maps).amax((2, 3))
    assert_same(low, torch.zeros_like(low))
    assert_same(high, (maps.amax((2, 3)) > maps.amin((2, 3))).double())


@PROPERTY
@given(loops.layers(), st.sampled_from([2.0**-900, 0.5, 2.0**900]), st.integers(-8, 8))
def test_min_max_ignores_a_positive_factor_and_a_shift(layer: tuple[Tensor, Tensor], factor: float, shift: int) -> None:
    maps = layer[1]
    assert_same(min_max(factor * (maps + shift)), min_max(maps))


@PROPERTY
@given(loops.layers())
def test_min_max_treats_each_map_alone(layer: tuple[Tensor, Tensor]) -> None:
    maps = layer[1].flatten(0, 1)
    assert_same(min_max(maps), torch.stack([min_max(one) for one in maps]))


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0, 1e-30])
def test_a_constant_map_becomes_zeros_and_leaves_its_neighbours_alone(value: float) -> None:
    maps = torch.tensor([[[value, value]], [[1.0, 3.0]]])
    assert_same(min_max(maps), torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))


@pytest.mark.parametrize(
    "bad",
    [float("inf"), float("nan")],
)
def test_a_map_that_is_not_finite_stays_visible(bad: float) -> None:
    assert min_max(torch.tensor([[[1.0, bad, 0.0]]])).isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    maps = loops.examples()[0][1].flatten(0, 1).to(dtype)
    assert min_max(maps).dtype == dtype
    assert upsample(maps, (8, 10)).dtype == dtype
    assert explanation_map(maps, torch.ones(6, 3, 4, 5, dtype=dtype)).dtype == dtype
    absolute = 4 * torch.finfo(dtype).eps  # a quotient of exact numbers, then three means of two numbers up to 1
    assert_same(min_max(maps).double(), min_max(maps.double()), absolute=absolute)
    assert_same(upsample(maps, (8, 10)).double(), upsample(maps.double(), (8, 10)), absolute=absolute)


@PROPERTY
@given(loops.layers(), st.integers(1, 9), st.integers(1, 9))
def test_upsampling_stays_between_the_extremes_of_the_map(layer: tuple[Tensor, Tensor], height: int, width: int) -> None:
    maps = layer[1].flatten(0, 1)
    large = upsample(maps, (height, width))
    assert large.shape == (len(maps), height, width)
    assert (large.amax((1, 2)) <= maps.amax((1, 2)) + 8 * UNIT).all()  # weights of a mean add up to 1, up to rounding
    assert (large.amin((1, 2)) >= maps.amin((1, 2)) - 8 * UNIT).all()


@PROPERTY
@given(loops.layers())
def test_upsampling_to_the_same_size_changes_nothing(layer: tuple[Tensor, Tensor]) -> None:
    maps = layer[1].flatten(0, 1)
    assert_same(upsample(maps, (maps.shape[1], maps.shape[2])), maps)


@PROPERTY
@given(loops.layers())
def test_upsampling_by_a_power_of_2_keeps_the_mean_of_a_map_with_flat_borders(layer: tuple[Tensor, Tensor]) -> None:
    maps = torch.nn.functional.pad(layer[1].flatten(0, 1), (1, 1, 1, 1))
    large = upsample(maps, (4 * maps.shape[1], 4 * maps.shape[2]))
    assert_same(large.mean((1, 2)), maps.mean((1, 2)), relative=2 * UNIT, absolute=UNIT)  # exact sums, two divisions


def test_each_image_is_darkened_by_its_own_map() -> None:
    heat = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1)
    pixels = torch.tensor([0.5, 0.25, 1.0]).reshape(1, 3, 1, 1).expand(3, 3, 1, 1)
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.125, 0.0625, 0.25], [0.5, 0.25, 1.0]])
    assert_same(explanation_map(heat, pixels).flatten(1), expected)


def test_min_max_refuses_vectors() -> None:
    with pytest.raises(ValueError, match=r"expected \(\.\.\., H, W\), got \(4,\)"):
        min_max(torch.ones(4))


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4)])
def test_upsample_refuses_other_than_three_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, H, W\), got") as caught:
        upsample(torch.ones(shape), (8, 8))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    ("heat", "pixels"), [((1, 4, 5), (1, 3, 5, 4)), ((2, 4, 4), (1, 3, 4, 4)), ((4, 4), (1, 3, 4, 4)), ((1, 4, 4), (3, 4, 4))]
)
def test_explanation_maps_refuse_other_shapes(heat: tuple[int, ...], pixels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected heatmaps \(N, h, w\) and pixels \(N, 3, h, w\)") as caught:
        explanation_map(torch.ones(heat), torch.ones(pixels))
    assert f"{heat} and {pixels}" in str(caught.value)
