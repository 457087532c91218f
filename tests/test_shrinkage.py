"""Shrinkage, difference, sandwich and bound against exact fractions, and on random layers in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp import cam
from gradcampp.cam import min_max, upsample
from gradcampp.shrinkage import (
    bound,
    difference,
    effective_alpha,
    equation_6,
    kept,
    order_factor,
    sandwich,
    shrinkage,
    unevenness,
)
from tests import loops
from tests.loops import PROPERTY, UNIT, assert_same

LAMBDAS = st.sampled_from([0.0, 0.25, 1.0, 8.0])
FUNCTIONS = pytest.mark.parametrize("function", [shrinkage, kept, sandwich, order_factor, bound])
SPREADS = st.sampled_from([0.0, 1.0, 3.0])  # of the logarithms of the channels' sizes


def real_layer(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Feature maps after a ReLU, with gradients of every size; float64, (B, K, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    batch, channels, height, width = (int(torch.randint(1, 6, (), generator=generator)) for _ in range(4))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sizes = (spread * normal(2, batch, channels, 1, 1)).exp()
    return normal(batch, channels, height, width).relu() * sizes[0], normal(batch, channels, height, width) * sizes[1]


@st.composite
def real_layers(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    return real_layer(draw(st.integers(0, 2**32 - 1)), draw(SPREADS))


def heat(method: Any, activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    return cam.heatmap(cam.weights(method, activations, gradients, lam), activations)


def halves_heat(activations: Tensor, gradients: Tensor) -> Tensor:
    """The multiple of the Grad-CAM+ map with the weights sum r / 2."""
    return cam.heatmap(gradients.relu().sum((2, 3)) / 2, activations)


# The definitions again, for one image in exact fractions.

Exact = list[list[Fraction]]  # of a channel, by row


def exact(values: Tensor) -> list[Exact]:
    return [[[Fraction(value) for value in row] for row in channel] for channel in values.tolist()]


def flat(channel: Exact) -> list[Fraction]:
    return [value for row in channel for value in row]


def exact_shrinkage(activations: list[Exact], gradients: list[Exact], lam: float) -> list[Fraction]:
    """1 - w / (half the sum of r), with w from eqs 4 and 12; 0 without a positive gradient."""
    result = []
    for maps, slopes in zip(activations, gradients, strict=True):
        s, positive = sum(flat(maps), Fraction(0)), [g for g in flat(slopes) if g > 0]
        weight = sum((g * g / (2 * g * g + Fraction(lam) * s * g * g * g) * g for g in positive), Fraction(0))
        result.append(1 - weight / (sum(positive, Fraction(0)) / 2) if positive else Fraction(0))
    return result


def spread_of(values: list[Fraction]) -> Fraction:
    return max(values) - min(values)


def exact_channel_heats(activations: list[Exact], gradients: list[Exact]) -> list[list[Fraction]]:
    return [
        [sum((max(g, Fraction(0)) for g in flat(slopes)), Fraction(0)) / 2 * a for a in flat(maps)]
        for maps, slopes in zip(activations, gradients, strict=True)
    ]


def combined(shares: list[Fraction], heats: list[list[Fraction]]) -> list[Fraction]:
    """A sum of the channels' heats, pixel by pixel."""
    return [
        sum((share * values[p] for share, values in zip(shares, heats, strict=True)), Fraction(0)) for p in range(len(heats[0]))
    ]


def exact_bound(deltas: list[Fraction], heats: list[list[Fraction]]) -> Fraction:
    """The bound of theorem 3 for all constants up to the one of these shares, for a map that is not constant."""
    middle = combined([Fraction(1)] * len(heats), heats)
    most = max(delta for delta, values in zip(deltas, heats, strict=True) if max(values) > 0)
    return min(most * max(middle), max(combined(deltas, heats)), spread_of(middle)) / spread_of(middle)


def exact_min_max(values: list[Fraction]) -> list[Fraction]:
    low, spread = min(values), spread_of(values)
    return [(value - low) / spread if spread else Fraction(0) for value in values]


def exact_difference(deltas: list[Fraction], heats: list[list[Fraction]]) -> Fraction:
    plus = exact_min_max(combined([Fraction(1)] * len(heats), heats))
    plusplus = exact_min_max(combined([1 - delta for delta in deltas], heats))
    return max(abs(a - b) for a, b in zip(plus, plusplus, strict=True))


@PROPERTY
@given(loops.layers(), LAMBDAS)
def test_shrinkage_is_the_definition(layer: tuple[Tensor, Tensor], lam: float) -> None:
    """On the binary grid t is exact; the rest are Z + 4 roundings of positive terms in each of two sums and a quotient."""
    activations, gradients = layer
    expected = [exact_shrinkage(exact(a), exact(g), lam) for a, g in zip(activations, gradients, strict=True)]
    wanted = torch.tensor([[float(delta) for delta in deltas] for deltas in expected], dtype=torch.float64)
    assert_same(shrinkage(activations, gradients, lam), wanted, relative=2 * (activations[0, 0].numel() + 4) * UNIT)


def test_lam_is_1_unless_said() -> None:
    for activations, gradients in loops.examples():
        assert_same(shrinkage(activations, gradients), shrinkage(activations, gradients, 1.0))
        assert_same(bound(activations, gradients), bound(activations, gradients, 1.0))
        assert_same(sandwich(activations, gradients)[0], sandwich(activations, gradients, 1.0)[0])
        assert (shrinkage(activations, gradients, 2.0) >= shrinkage(activations, gradients)).all()
        assert (shrinkage(activations, gradients, 2.0) > shrinkage(activations, gradients)).any()


@PROPERTY
@given(real_layers(), LAMBDAS)
def test_shrinkage_is_between_zero_and_that_of_the_largest_term(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    largest = (lam * cam.activation_sums(activations) * gradients.relu()).amax((2, 3))
    deltas = shrinkage(activations, gradients, lam)
    assert (deltas >= 0).all()
    # A weighted mean of Z terms is off by 2 (Z + 2) roundings.
    assert (deltas <= largest / (2 + largest) * (1 + 2 * (activations[0, 0].numel() + 2) * UNIT)).all()
    assert (deltas < 1).all()


@PROPERTY
@given(real_layers(), LAMBDAS)
def test_the_map_of_gradcam_plusplus_lies_in_the_sandwich_at_every_pixel(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    low, high = sandwich(activations, gradients, lam)
    inside = heat("gradcam++", activations, gradients, lam)
    slack = (activations.shape[1] + 4) * 2 * UNIT  # K products and sums of one sign, on either side
    assert (low * (1 - slack) <= inside).all()
    assert (inside <= high * (1 + slack)).all()


@PROPERTY
@given(loops.layers(), LAMBDAS)
def test_the_sandwich_is_made_of_the_extreme_shares_of_the_channels_that_add_something(
    layer: tuple[Tensor, Tensor], lam: float
) -> None:
    activations, gradients = layer
    middle = halves_heat(activations, gradients)
    expected: tuple[list[float], list[float]] = ([], [])
    for a, g in zip(activations, gradients, strict=True):
        deltas, heats = exact_shrinkage(exact(a), exact(g), lam), exact_channel_heats(exact(a), exact(g))
        kept = [1 - delta for delta, values in zip(deltas, heats, strict=True) if max(values) > 0] or [Fraction(0)]
        expected[0].append(float(min(kept)))
        expected[1].append(float(max(kept)))
    relative = (activations[0].numel() + 8) * UNIT
    for found, shares in zip(sandwich(activations, gradients, lam), expected, strict=True):
        factors = torch.tensor(shares, dtype=torch.float64)[:, None, None]
        assert_same(found, factors * middle, relative=relative)


@PROPERTY
@given(loops.layers(), LAMBDAS)
def test_the_bound_is_the_definition_and_holds_exactly_for_every_smaller_lam(layer: tuple[Tensor, Tensor], lam: float) -> None:
    """The theorem in fractions, where nothing is rounded; then the float64 numbers against the fractions.

    On the binary grid heats are exact. A delta is off by at most 100 units, and M / (M - m) multiplies that.
    """
    activations, gradients = layer
    found, exactly = bound(activations, gradients, lam).tolist(), difference(activations, gradients, lam).tolist()
    for a, g, value, seen in zip(activations, gradients, found, exactly, strict=True):
        heats = exact_channel_heats(exact(a), exact(g))
        middle = combined([Fraction(1)] * len(heats), heats)
        if not spread_of(middle):
            assert value == (1 if max(middle) else 0)
            continue
        deltas = exact_shrinkage(exact(a), exact(g), lam)
        expected, absolute = exact_bound(deltas, heats), 100 * UNIT * (1 + float(max(middle) / spread_of(middle)))
        assert abs(value - float(expected)) <= absolute
        for part in (0, Fraction(1, 8), Fraction(1, 2), 1):
            assert exact_difference(exact_shrinkage(exact(a), exact(g), float(lam * part)), heats) <= expected
        true = exact_difference(deltas, heats)
        # A min-max map divides by its range, which for Grad-CAM++ is at least 1/513 of that of Grad-CAM+, or the map is constant.
        spread = spread_of(combined([1 - delta for delta in deltas], heats))
        if spread:
            assert abs(seen - float(true)) <= 1000 * UNIT * (1 + float(max(middle) / spread))


def rounding(activations: Tensor, gradients: Tensor) -> Tensor:
    """What float64 can add to a difference of two min-max maps, (B,).

    A map of K Z positive terms is off by K + 2 Z + 8 units of its largest pixel M, the weights included, and the min-max of
    either divides by a range: M - m for Grad-CAM+. That of Grad-CAM++ is smaller by 1 - max delta at most, but where it is
    much smaller than (1 - max delta) M the bound is near 1 too. So M / (M - m), over 1 - max delta, times 4.
    """
    middle = halves_heat(activations, gradients)
    spread = middle.amax((1, 2)) - middle.amin((1, 2))
    units = activations.shape[1] + 2 * activations[0, 0].numel() + 8
    worst = 1 - shrinkage(activations, gradients).amax(1)
    return torch.where(spread > 0, 4 * units * UNIT * middle.amax((1, 2)) / spread / worst, 0)


@PROPERTY
@given(st.one_of(real_layers(), loops.layers()), st.sampled_from([(7, 9), (16, 16), (1, 1), (3, 20)]), st.floats(0, 1))
def test_the_bound_is_never_smaller_than_the_difference_for_any_lam_from_0_to_1(
    layer: tuple[Tensor, Tensor], size: tuple[int, int], lam: float
) -> None:
    activations, gradients = layer
    plus, plusplus = (min_max(heat(method, activations, gradients, lam)) for method in ("gradcam+", "gradcam++"))
    allowed = bound(activations, gradients) + rounding(activations, gradients)
    seen = (plus - plusplus).abs().amax((1, 2))
    assert (seen <= allowed).all()
    assert_same(difference(activations, gradients, lam), seen)
    larger = (upsample(plus, size) - upsample(plusplus, size)).abs().amax((1, 2))
    assert (larger <= allowed).all()


def test_the_difference_of_float32_maps_is_computed_in_float64() -> None:
    """Two one-hot maps, nearly all of both weights gone: 1 - delta has no digit left in float32, and the maps differ by 0.3."""
    activations = torch.eye(3)[:2, None].reshape(1, 2, 1, 3)
    gradients = torch.tensor([1.4e7, 2e7])[None, :, None, None].expand(1, 2, 1, 3)
    maps = [[float(w) for w in (1.4, 2)], [1 / (2 / 1.4e7 + 1), 1 / (2 / 2e7 + 1)]]  # up to a factor
    wanted = abs(maps[0][0] / maps[0][1] - maps[1][0] / maps[1][1])
    assert wanted == pytest.approx(0.3, abs=1e-3)
    assert difference(activations, gradients).item() == pytest.approx(wanted, rel=1e-6)
    assert difference(activations, gradients).dtype == torch.float64
    assert bound(activations, gradients).item() >= wanted
    assert order_factor(activations, gradients).item() == pytest.approx(2 / 1.4, rel=1e-6)


@PROPERTY
@given(st.one_of(real_layers(), loops.layers()), LAMBDAS)
def test_units_that_differ_by_more_than_the_order_factor_keep_their_order(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    factor = order_factor(activations, gradients, lam)
    assert (factor >= 1).all()
    plus, plusplus = (heat(method, activations, gradients, lam).flatten(1) for method in ("gradcam+", "gradcam++"))
    slack = 1 + 4 * (activations.shape[1] + 8) * UNIT
    apart = plus[:, :, None] > plus[:, None] * factor[:, None, None] * slack
    assert (plusplus[:, :, None] > plusplus[:, None])[apart].all()


def test_the_order_factor_is_reached() -> None:
    """In TIGHT the channels keep 4/5 and 2/5: a unit that is twice as hot in Grad-CAM+ is exactly as hot in Grad-CAM++."""
    assert order_factor(*TIGHT).item() == pytest.approx(2, rel=1e-14)
    plus, plusplus = (heat(method, *TIGHT)[0, 0] for method in ("gradcam+", "gradcam++"))
    assert plus[1] / plus[0] == pytest.approx(2, rel=1e-14)
    assert plusplus[1] / plusplus[0] == pytest.approx(1, rel=1e-14)


@PROPERTY
@given(real_layers(), LAMBDAS)
def test_what_a_channel_keeps_is_its_weight_over_that_of_gradcam_plus(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    half = gradients.relu().sum((2, 3)) / 2
    wanted = torch.where(half > 0, cam.weights("gradcam++", activations, gradients, lam) / half, 0)
    assert_same(kept(activations, gradients, lam), wanted, relative=4 * (activations[0, 0].numel() + 4) * UNIT)
    lost = torch.where(half > 0, 1 - kept(activations, gradients, lam), 0)
    assert_same(shrinkage(activations, gradients, lam), lost, absolute=4 * (activations[0, 0].numel() + 4) * UNIT)


@PROPERTY
@given(real_layers())
def test_the_numbers_of_an_image_are_those_of_loops_over_its_units(layer: tuple[Tensor, Tensor]) -> None:
    """Positive terms in sums of K Z at most, so relative to some roundings for each; a deviation loses half of the digits."""
    activations, gradients = layer
    found = [function(activations, gradients).tolist() for function in (effective_alpha, equation_6, unevenness)]
    for image, (a, g) in enumerate(zip(activations, gradients, strict=True)):
        weighted = total = left = 0.0
        shares: list[tuple[float, float]] = []
        for maps, slopes in zip(a, g, strict=True):
            s, added, remaining, size = float(maps.sum()), 0.0, 0.0, 0.0
            for r in slopes.relu().flatten().tolist():
                weighted, total, left = weighted + s * r / (2 + s * r), total + s * r, left + s * r / (2 + s * r)
                added, remaining, size = added + s * r, remaining + 2 * r / (2 + s * r), size + r
            shares.append((added, remaining / size if size else 0.0))
        assert found[0][image] == pytest.approx(weighted / total if total else 0, rel=1e-12)
        assert found[1][image] == pytest.approx(left, rel=1e-12)
        mean = sum(added * share for added, share in shares) / total if total else 0
        square = sum(added * (share - mean) ** 2 for added, share in shares) / total if total else 0
        assert found[2][image] == pytest.approx(math.sqrt(square) / mean if mean else 0, rel=1e-6, abs=1e-7)


@PROPERTY
@given(real_layers())
def test_a_batch_gives_what_its_images_give_one_by_one(layer: tuple[Tensor, Tensor]) -> None:
    """Sums may be in another order; M / (M - m) and 1 / (1 - max delta) multiply that, as above."""
    activations, gradients = layer
    slack = rounding(activations, gradients)
    whole = bound(activations, gradients)
    for index, (a, g) in enumerate(zip(activations, gradients, strict=True)):
        assert abs(float(bound(a[None], g[None])[0] - whole[index])) <= float(slack[index])
        assert_same(shrinkage(a[None], g[None])[0], shrinkage(activations, gradients)[index], relative=100 * UNIT)


@PROPERTY
@given(real_layers(), st.sampled_from([2.0**-30, 0.25, 2.0**20]))
def test_activations_times_c_and_gradients_over_c_change_nothing(layer: tuple[Tensor, Tensor], c: float) -> None:
    """A power of two never rounds."""
    activations, gradients = layer
    assert_same(shrinkage(c * activations, gradients / c), shrinkage(activations, gradients))
    assert_same(bound(c * activations, gradients / c), bound(activations, gradients))
    for scaled, plain in zip(sandwich(c * activations, gradients / c), sandwich(activations, gradients), strict=True):
        assert_same(scaled, plain)


@PROPERTY
@given(real_layers(), st.sampled_from([0.125, 4.0]))
def test_gradients_times_tau_are_lam_times_tau(layer: tuple[Tensor, Tensor], tau: float) -> None:
    activations, gradients = layer
    assert_same(shrinkage(activations, tau * gradients), shrinkage(activations, gradients, tau))
    assert_same(bound(activations, tau * gradients), bound(activations, gradients, tau))


@PROPERTY
@given(real_layers())
def test_lam_0_shrinks_nothing_and_gives_the_same_map(layer: tuple[Tensor, Tensor]) -> None:
    activations, gradients = layer
    constant = halves_heat(activations, gradients).flatten(1)
    nothing = (constant.amax(1) > 0) & (constant.amax(1) == constant.amin(1))  # no min-max, no promise
    assert (shrinkage(activations, gradients, 0.0) == 0).all()
    assert_same(bound(activations, gradients, 0.0), nothing.double())


@PROPERTY
@given(st.integers(0, 2**32 - 1))
def test_one_channel_alone_gives_the_same_map(seed: int) -> None:
    activations, gradients = real_layer(seed, 1.0)
    activations[0, 0, 0, 0] = 0.0
    activations, gradients = activations[:1, :1], gradients[:1, :1]
    assert difference(activations, gradients).item() <= 4 * UNIT
    assert unevenness(activations, gradients).item() <= 4 * UNIT
    assert order_factor(activations, gradients).item() == 1
    low, high = sandwich(activations, gradients)
    assert_same(low, high)


def of_channels(*channels: tuple[list[float], list[float]]) -> tuple[Tensor, Tensor]:
    """A layer (1, K, 1, W) from activations and gradients of each channel."""
    values = torch.tensor(channels, dtype=torch.float64)  # (K, 2, W)
    return values[None, :, 0, None], values[None, :, 1, None]


TIGHT = of_channels(([0.5, 0, 0, 0], [1, 1, 1, 0]), ([0, 3, 0, 0], [0, 1, 0, 0]))
LIFTED = of_channels(([0.5, 0, 0, 0], [1, 1, 1, 0]), ([0, 3, 0, 0], [0, 1, 0, 0]), ([1.0] * 4, [0.125] * 4))
BROAD = of_channels(
    ([0.5, *[0.0] * 15], [1.0] * 16),
    ([0, 2, *[0.0] * 14], [1.0] * 4 + [0.0] * 12),
    ([0, 0, 2, *[0.0] * 13], [-1.0] * 12 + [1.0] * 4),
    ([0, 0, 0, 8, *[0.0] * 12], [1.0] + [0.0] * 15),
)
CONSTANT = of_channels(([1.0, 1.0, 1.0], [2.0, -1.0, 0.0]), ([0.0, 3.0, 1.0], [0.0, 1.0, 0.0]))


def observed(layer: tuple[Tensor, Tensor]) -> float:
    return float((min_max(heat("gradcam+", *layer)) - min_max(heat("gradcam++", *layer))).abs().max())


def test_bound_and_difference_by_hand() -> None:
    """t = 1/2 at three units and t = 3 at one: deltas 1/5 and 3/5, heats 3/4 and 3/2, so maps (1/2, 1, 0, 0), (1, 1, 0, 0)."""
    assert_same(shrinkage(*TIGHT), torch.tensor([[0.2, 0.6]], dtype=torch.float64), relative=4 * UNIT)
    assert_same(min_max(heat("gradcam+", *TIGHT))[0, 0], torch.tensor([0.5, 1, 0, 0], dtype=torch.float64), absolute=4 * UNIT)
    assert_same(min_max(heat("gradcam++", *TIGHT))[0, 0], torch.tensor([1.0, 1, 0, 0], dtype=torch.float64), absolute=4 * UNIT)
    assert difference(*TIGHT).item() == pytest.approx(0.5, rel=1e-14)
    assert bound(*TIGHT).item() == pytest.approx(0.6, rel=1e-14)
    low, high = sandwich(*TIGHT)
    assert_same(low[0, 0], torch.tensor([0.3, 0.6, 0, 0], dtype=torch.float64), relative=8 * UNIT)
    assert_same(high[0, 0], torch.tensor([0.6, 1.2, 0, 0], dtype=torch.float64), relative=8 * UNIT)


REACHED = of_channels(([0.25, 0.5], [1.0, 1.0]), ([0, 0.5], [0, 4.0]))  # the coldest unit keeps all, the hottest loses most


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, g: bound(a, g) / 2,
        lambda a, g: bound(a, g) * 0.95,
        lambda a, g: bound(a, g / 2),
        lambda a, g: bound(a, g, 0.5),
        lambda a, g: bound(a, g) ** 2,
    ],
    ids=["half", "95 %", "half the gradients", "half of lam", "square"],
)
def test_a_wrong_bound_is_exceeded(wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
    layers = [real_layer(seed, 1.0) for seed in range(600)]
    assert any(bool((difference(*layer) > wrong(*layer) + 1e-9).any()) for layer in layers)


def test_some_random_layers_all_but_reach_the_bound() -> None:
    ratios = []
    for seed in range(600):
        activations, gradients = real_layer(seed, 1.0)
        guaranteed = bound(activations, gradients)
        ratios += (difference(activations, gradients) / guaranteed)[(guaranteed > 1e-9) & (guaranteed < 1)].tolist()
    assert len(ratios) > 200
    assert 0.9 < max(ratios) <= 1 + 1e-9


def test_channels_that_add_nothing_do_not_count() -> None:
    """A dead map with a positive gradient, and a map without any positive gradient, leave sandwich and bound alone."""
    activations, gradients = TIGHT
    dead, silent = torch.zeros(1, 1, 1, 4), torch.full((1, 1, 1, 4), 7.0)
    more = torch.cat([activations, dead, silent], 1).double(), torch.cat([gradients, silent, -silent], 1).double()
    assert_same(bound(*more), bound(activations, gradients))
    for found, expected in zip(sandwich(*more), sandwich(activations, gradients), strict=True):
        assert_same(found, expected)
    assert shrinkage(*more)[0, 2:].tolist() == [0, 0]


def test_maps_of_zeros_are_the_same_and_constant_maps_have_no_promise() -> None:
    ones, zeros = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    for activations, gradients in ((zeros, ones), (ones, zeros), (ones, -ones)):
        assert bound(activations, gradients).tolist() == [0]
        assert [float(part.abs().max()) for part in sandwich(activations, gradients)] == [0, 0]
    assert bound(ones, ones).tolist() == [1]
    # Why: two channels that add up to a constant for Grad-CAM+, but not for Grad-CAM++.
    layer = of_channels(([1, 0], [2, 2]), ([0, 1], [4, 0]))
    assert observed(layer) == 1 == bound(*layer).item()


def test_a_constant_map_of_gradcam_plusplus_alone_has_no_promise() -> None:
    """Weights of 2/5 for both units by Grad-CAM++, of 2/3 and 1/2 (times 2 / Z) by Grad-CAM+: one map is constant, one is not."""
    activations = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    gradients = torch.tensor([[[[4 / 3, 0.0]], [[0.5, 0.5]]]], dtype=torch.float64)
    plusplus = cam.heatmap(cam.weights("gradcam++", activations, gradients), activations)
    assert torch.allclose(plusplus, torch.full_like(plusplus, 0.4), rtol=1e-15)
    assert bound(activations, gradients).item() == 1


def test_the_bound_is_never_over_1() -> None:
    near = of_channels(([1.01, 0], [2, 2]), ([0, 1], [4, 0]))
    assert bound(*near).item() == 1


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_sizes_give_a_promise_that_is_true(scale: float) -> None:
    """t over- or underflows: every share is 1 or 0."""
    activations, gradients = TIGHT
    share = shrinkage(activations, scale * gradients)
    assert share.flatten().tolist() == ([1.0, 1.0] if scale > 1 else [pytest.approx(0, abs=1e-190)] * 2)
    assert bound(activations, scale * gradients).item() == (1 if scale > 1 else pytest.approx(0, abs=1e-190))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    activations, gradients = (values.to(dtype) for values in TIGHT)
    numbers = (shrinkage, kept, order_factor, bound, effective_alpha, unevenness, equation_6)
    every = [*(number(activations, gradients) for number in numbers), *sandwich(activations, gradients)]
    assert {values.dtype for values in every} == {dtype}
    assert bound(activations, gradients).item() == pytest.approx(0.6, rel=10 * torch.finfo(dtype).eps)


@FUNCTIONS
def test_a_negative_activation_is_refused(function: Callable[..., Any]) -> None:
    activations = torch.ones(2, 1, 2, 2)
    activations[1, 0, 1, 0] = -1e-30
    with pytest.raises(ValueError, match=r"activations: expected none below 0, as after a ReLU"):
        function(activations, torch.ones(2, 1, 2, 2))


@FUNCTIONS
@pytest.mark.parametrize("lam", [-1.0, -1e-12, math.nan, math.inf])
def test_a_lam_that_is_no_number_from_0_up_is_refused(function: Callable[..., Any], lam: float) -> None:
    with pytest.raises(ValueError, match=rf"lam: expected a number from 0 up, got {lam}"):
        function(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), lam)


@FUNCTIONS
@pytest.mark.parametrize(("first", "second"), [((2, 3, 4), (2, 3, 4)), ((1, 2, 3, 4), (1, 2, 4, 3)), ((1, 2, 3, 4), (2, 3, 4))])
def test_bad_shapes_are_refused_with_expected_and_actual(
    function: Callable[..., Any], first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"expected activations and gradients of one shape \(B, K, H, W\)") as caught:
        function(torch.ones(first), torch.ones(second))
    assert f"{first} and {second}" in str(caught.value)
