"""Min-max maps, upsampling and eq. 15 against loops."""

from __future__ import annotations

import math

import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp.cam import explanation_map, match_heat, min_max, upsample
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


def warm(count: int = 6) -> Tensor:
    """Maps in [0, 1] with zeros, a single 1 in each, and values of many sizes, float64."""
    generator = torch.Generator().manual_seed(2)
    maps = min_max((torch.randn(count, 9, 7, dtype=torch.float64, generator=generator) * 3).relu())
    return maps ** torch.linspace(0.2, 4, count, dtype=torch.float64)[:, None, None]


def power_of(heat: Tensor, mean_heat: float) -> float:
    """The power at which the mean of a map is the one asked for, by bisection and secants."""
    values = [value for value in heat.flatten().tolist() if value > 0]
    zeros = heat.numel() - len(values)

    def excess(power: float) -> float:
        return math.fsum(value**power for value in values) / (len(values) + zeros) - mean_heat

    return float(scipy.optimize.brentq(excess, 1e-9, 1e5, xtol=1e-13, rtol=1e-13))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matched_maps_are_powers_that_have_the_mean_heat(share: float, dtype: torch.dtype) -> None:
    """Targets between the least possible mean, that of the single 1, and the largest, the share of what is not 0."""
    maps = warm().to(dtype)
    least, largest = 1 / maps[0].numel(), (maps > 0).double().mean((1, 2))
    wanted = least + share * (largest - least)
    found = match_heat(maps, wanted)
    assert found.dtype == dtype
    assert_same(found.double().mean((1, 2)), wanted, relative=1.1e-6)  # the tolerance, and the rounding of float32
    for heat, raised, mean_heat in zip(maps, found, wanted.tolist(), strict=True):
        power = power_of(heat.double(), mean_heat)
        # A mean that is off by 1e-6 is off by no more than ten times that in its power for these maps.
        assert_same(raised.double(), heat.double() ** power, absolute=2e-5)
        first, second = heat.flatten()[:, None], heat.flatten()[None]
        raised_first, raised_second = raised.flatten()[:, None], raised.flatten()[None]
        assert (raised_first >= raised_second)[first >= second].all()
        assert dtype == torch.float32 or (raised_first > raised_second)[first > second].all()


def test_a_map_that_has_the_heat_stays_as_it_is() -> None:
    maps = warm()
    assert_same(match_heat(maps, maps.mean((1, 2))), maps, absolute=2e-5)


def test_what_no_power_reaches_is_nan_and_leaves_its_neighbours_alone() -> None:
    maps = torch.tensor([[[0.0, 0.0], [0.5, 1.0]], [[0.25, 0.5], [0.75, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    for place, wanted in ((0, 0.0), (0, 1.0), (0, 0.6), (0, 0.5), (0, 0.2), (1, 0.0), (1, 1.0), (1, 0.2), (2, 0.0), (2, 0.3)):
        means = torch.tensor([0.4, 0.5, 0.3])
        means[place] = wanted
        found = match_heat(maps, means)
        assert found[place].isnan().all(), (place, wanted)
        for other in {0, 1} - {place}:
            assert_same(found[other].mean(), means[other], relative=2e-6)


def test_matching_treats_each_map_alone() -> None:
    maps = warm()
    wanted = torch.linspace(0.1, 0.3, len(maps), dtype=torch.float64)
    alone = torch.cat([match_heat(heat[None], mean_heat[None]) for heat, mean_heat in zip(maps, wanted, strict=True)])
    assert_same(match_heat(maps, wanted), alone, absolute=2e-5)  # a neighbour may take more steps, which come nearer


@pytest.mark.parametrize(("maps", "means"), [((4, 4), (4,)), ((2, 4, 4), (3,)), ((2, 4, 4), (2, 1)), ((1, 2, 4, 4), (1,))])
def test_matching_refuses_other_shapes(maps: tuple[int, ...], means: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected heatmaps \(N, h, w\) and mean heats \(N,\)") as caught:
        match_heat(torch.ones(maps), torch.ones(means))
    assert f"{maps} and {means}" in str(caught.value)
