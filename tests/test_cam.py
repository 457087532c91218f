"""Eqs 1-4, 9, 12 and 13 against loops and SymPy, and the theorems that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from random import Random

import pytest
import sympy  # type: ignore[import-untyped, unused-ignore]
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp import cam
from gradcampp.cam import METHODS, Method, min_max
from tests import loops
from tests.loops import PROPERTY, UNIT, assert_same

LAMBDAS = (0.25, 1.0, 8.0)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BAD_SHAPES = [((2, 3, 4), (2, 3, 4)), ((1, 2, 3, 4), (1, 2, 4, 3)), ((1, 2, 3, 4), (2, 3, 4)), ((1, 1, 2, 3, 4), (1, 1, 2, 3, 4))]
g, s, lam = sympy.symbols("g s lam", real=True)
REDUCED = 1 / (2 + lam * s * g)  # eq. 12 after division by g^2; eq. 13 where lam is 1
UNREDUCED = g**2 / (2 * g**2 + lam * s * g**3)  # eq. 12; eq. 9 where lam is 1


def plus_plus(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    return cam.weights("gradcam++", activations, gradients, lam)


def grad_cam_plus_halves(gradients: Tensor) -> Tensor:
    """Z/2 times the weights of Grad-CAM+, (B, K)."""
    return gradients.relu().sum((2, 3)) / 2


def test_gradcam_weights_are_eq_1() -> None:
    loops.assert_gradcam_weights(partial(cam.weights, "gradcam"))


def test_gradcam_plus_weights_are_eq_3() -> None:
    loops.assert_gradcam_plus_weights(partial(cam.weights, "gradcam+"))


@pytest.mark.parametrize("lam", LAMBDAS)
def test_gradcam_plusplus_weights_are_eq_4(lam: float) -> None:
    loops.assert_gradcam_plusplus_weights(partial(plus_plus, lam=lam), lam)


def test_gradcam_plusplus_weights_have_lam_1_unless_said() -> None:
    loops.assert_gradcam_plusplus_weights(partial(cam.weights, "gradcam++"))


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("formula", [cam.alphas, cam.alphas_unreduced])
def test_both_formulas_of_alpha_are_the_loops(formula: Callable[[Tensor, Tensor, float], Tensor], lam: float) -> None:
    loops.assert_alphas(lambda activations, gradients: formula(activations, gradients, lam), lam)


@pytest.mark.parametrize("formula", [cam.alphas, cam.alphas_unreduced])
def test_alphas_have_lam_1_unless_said(formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    loops.assert_alphas(formula)


def test_heatmap_is_eq_2() -> None:
    loops.assert_heatmap(cam.heatmap)


def test_activation_sums_are_the_loops() -> None:
    for activations, _ in loops.examples():
        expected = loops.each_map(lambda a, _: loops.total(a), activations, activations)
        assert_same(cam.activation_sums(activations), expected[:, :, None, None])


@PROPERTY
@given(st.integers(0, 2**32 - 1))
def test_weights_of_real_numbers_are_the_loops(seed: int) -> None:
    """Off the binary grid; a sum of n terms of one sign is off by n - 1 units, and no step cancels.

    Z - 1 for s, 4 for the term, Z - 1 for the sum of terms; the loops add 5 roundings of their own.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 5, 4)
    activations = torch.rand(shape, generator=generator, dtype=torch.float64)
    gradients = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = loops.each_map(loops.gradcam_plusplus_weight, activations, gradients)
    assert_same(plus_plus(activations, gradients), expected, relative=(2 * 20 + 7) * UNIT)


def test_eq_12_reduces_to_eq_13_for_every_gradient_but_zero() -> None:
    assert sympy.simplify(UNREDUCED - REDUCED) == 0
    assert UNREDUCED.subs(g, 0) is sympy.nan
    assert REDUCED.subs(g, 0) == sympy.Rational(1, 2)


def test_eq_8_gives_eq_12_for_the_exponential_of_a_piecewise_linear_score() -> None:
    a, slope, level = sympy.symbols("a slope level", real=True)
    score = sympy.exp(lam * (level + slope * a))
    second, third = sympy.diff(score, a, 2), sympy.diff(score, a, 3)
    assert sympy.simplify(second / (2 * second + s * third) - REDUCED.subs(g, slope)) == 0


@pytest.mark.parametrize("expression", [REDUCED, UNREDUCED])
@pytest.mark.parametrize("formula", [cam.alphas, cam.alphas_unreduced])
def test_alphas_are_the_exact_rational_number_rounded_once(
    formula: Callable[[Tensor, Tensor, float], Tensor], expression: sympy.Expr
) -> None:
    for numerator in (-15, -3, 1, 7, 16):
        value = expression.subs({g: sympy.Rational(numerator, 16), s: sympy.Rational(45, 4), lam: sympy.Rational(3, 2)})
        activations = torch.full((1, 1, 3, 3), 1.25, dtype=torch.float64)
        gradients = torch.full((1, 1, 3, 3), numerator / 16, dtype=torch.float64)
        expected = float(Fraction(int(value.p), int(value.q)))
        assert_same(formula(activations, gradients, 1.5), torch.full_like(gradients, expected))


@PROPERTY
@given(loops.layers(), st.sampled_from(METHODS))
def test_a_batch_gives_what_its_images_give_one_by_one(layer: tuple[Tensor, Tensor], method: Method) -> None:
    activations, gradients = layer
    whole = cam.weights(method, activations, gradients)
    single = [
        cam.weights(method, one[None], other[None])[0] for one, other in zip(activations, gradients, strict=True)
    ]  # fmt: skip
    assert_same(whole, torch.stack(single), relative=activations[0, 0].numel() * UNIT)  # the order of a sum may differ
    maps = [cam.heatmap(weights[None], one[None])[0] for weights, one in zip(gradients[:, :, 0, 0], activations, strict=True)]
    assert_same(cam.heatmap(gradients[:, :, 0, 0], activations), torch.stack(maps))


@PROPERTY
@given(loops.layers(), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_channels_may_be_permuted(layer: tuple[Tensor, Tensor], method: Method, random: Random) -> None:
    activations, gradients = layer
    order = list(range(activations.shape[1]))
    random.shuffle(order)
    weights = cam.weights(method, activations, gradients)
    permuted = cam.weights(method, activations[:, order], gradients[:, order])
    assert_same(permuted, weights[:, order], relative=activations[0, 0].numel() * UNIT)
    coefficients = gradients[:, :, 0, 0]
    assert_same(cam.heatmap(coefficients[:, order], activations[:, order]), cam.heatmap(coefficients, activations))


@PROPERTY
@given(loops.layers(), st.sampled_from(METHODS))
def test_the_memory_layout_does_not_matter(layer: tuple[Tensor, Tensor], method: Method) -> None:
    activations, gradients = layer
    last, slopes = (values.contiguous(memory_format=torch.channels_last) for values in layer)
    expected = cam.weights(method, activations, gradients)
    assert_same(cam.weights(method, last, slopes), expected, relative=activations[0, 0].numel() * UNIT)
    assert_same(cam.alphas(last, slopes), cam.alphas(activations, gradients))


@PROPERTY
@given(loops.layers(), st.sampled_from(LAMBDAS))
def test_theorem_1_where_the_gradient_is_positive_alpha_is_at_most_a_half(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    tame = cam.alphas(activations, gradients, lam)[gradients > 0]
    assert ((tame > 0) & (tame <= 0.5)).all()


@PROPERTY
@given(loops.layers(), st.sampled_from(LAMBDAS))
def test_theorem_3_gradcam_plusplus_lies_between_two_multiples_of_gradcam_plus(layer: tuple[Tensor, Tensor], lam: float) -> None:
    activations, gradients = layer
    weights, halves = plus_plus(activations, gradients, lam), grad_cam_plus_halves(gradients)
    products = (lam * cam.activation_sums(activations) * gradients.relu()).amax((2, 3))  # (B, K), the largest t
    # The weights carry Z roundings, the maps K more, and the bounds a few.
    slack = (activations[0].numel() + 8) * UNIT
    for image in range(len(activations)):
        used = halves[image] > 0
        assume(bool(used.any()))
        delta = 1 - weights[image, used] / halves[image, used]
        largest = products[image, used]
        assert (delta >= -slack).all()
        assert (delta <= largest / (2 + largest) + slack).all()
        heat = cam.heatmap(weights[image : image + 1], activations[image : image + 1])
        plus = cam.heatmap(halves[image : image + 1], activations[image : image + 1])
        assert (heat <= (1 - delta.min() + slack) * plus).all()
        assert (heat >= (1 - delta.max() - slack) * plus).all()


@PROPERTY
@given(loops.layers(), st.sampled_from(["gradcam+", "gradcam++"]))
def test_the_last_relu_does_nothing_where_activations_are_not_negative(layer: tuple[Tensor, Tensor], method: Method) -> None:
    activations, gradients = layer
    weights = cam.weights(method, activations, gradients)
    combined = (weights[:, :, None, None] * activations).sum(1)
    # Another order of K terms of one sign, each a product: K roundings on either side.
    assert_same(cam.heatmap(weights, activations), combined, relative=2 * activations.shape[1] * UNIT)


@PROPERTY
@given(loops.layers())
def test_theorem_4_lam_0_is_gradcam_plus_times_half_the_units(layer: tuple[Tensor, Tensor]) -> None:
    activations, gradients = layer
    units = activations[0, 0].numel()
    plus = cam.weights("gradcam+", activations, gradients)
    assert_same(plus_plus(activations, gradients, 0.0), plus * units / 2, relative=2 * UNIT)  # the mean, and undoing it


@PROPERTY
@given(loops.layers(), st.integers(10, 40))
def test_theorem_4_a_small_lam_is_as_near_to_gradcam_plus_as_its_shrinkage(layer: tuple[Tensor, Tensor], power: int) -> None:
    activations, gradients = layer
    largest = 2.0**-power * float((cam.activation_sums(activations) * gradients.relu()).max())
    relative = largest / (2 + largest) + (activations[0, 0].numel() + 3) * UNIT
    assert_same(plus_plus(activations, gradients, 2.0**-power), grad_cam_plus_halves(gradients), relative=relative)


@PROPERTY
@given(loops.layers(), st.integers(20, 40))
def test_theorem_4_a_large_lam_counts_positive_gradients(layer: tuple[Tensor, Tensor], power: int) -> None:
    activations, gradients = layer
    sums = cam.activation_sums(activations)[:, :, 0, 0]
    assume(bool((sums > 0).all()))
    expected = (gradients > 0).sum((2, 3)) / sums
    # lam w = n/s (1 - 2/(2 + lam s g)), and on the grid s >= 1/4 and g >= 1/16.
    relative = 2.0 ** (1 - power) * 64 + (activations[0, 0].numel() + 4) * UNIT
    assert_same(2.0**power * plus_plus(activations, gradients, 2.0**power), expected, relative=relative)


@PROPERTY
@given(loops.layers(), st.sampled_from([0.125, 0.5, 4.0, 32.0]))
def test_theorem_4_rescaled_logits_are_another_lam(layer: tuple[Tensor, Tensor], tau: float) -> None:
    activations, gradients = layer
    rescaled = plus_plus(activations, tau * gradients)
    assert_same(rescaled, tau * plus_plus(activations, gradients, tau))  # a power of 2 never rounds
    assert_same(cam.alphas(activations, tau * gradients), cam.alphas(activations, gradients, tau))


def test_rescaled_logits_change_the_map_of_gradcam_plusplus_and_no_other() -> None:
    activations, gradients = loops.examples()[1]

    def heat(method: Method, tau: float) -> Tensor:
        return min_max(cam.heatmap(cam.weights(method, activations, tau * gradients), activations))

    for method in ("gradcam", "gradcam+"):
        assert_same(heat(method, 0.125), heat(method, 1.0))
    assert float((heat("gradcam++", 0.125) - heat("gradcam++", 1.0)).abs().max()) > 0.01


def test_theorem_7_the_record_alphas_of_the_paper_are_the_nearest_float32_numbers_to_the_pole() -> None:
    activations = torch.ones(1, 1, 1, 1)
    gradients = torch.tensor([-2 - 3 * 2.0**-22, -2 + 15 * 2.0**-23]).reshape(2, 1, 1, 1)
    records = cam.alphas(activations.expand(2, 1, 1, 1), gradients).flatten().tolist()
    assert records == [pytest.approx(-1398101.4, abs=0.05), pytest.approx(559240.56, abs=0.05)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_is_kept_and_the_numbers_are_as_good_as_it_allows(dtype: torch.dtype) -> None:
    activations, gradients = (values.to(dtype) for values in loops.examples()[0])
    twins = loops.examples()[0]
    # Inputs are exact in every dtype; the sums, products and denominators below 64 round at most 20 times.
    relative = 20 * torch.finfo(dtype).eps
    for method in METHODS:
        weights = cam.weights(method, activations, gradients)
        assert weights.dtype == dtype
        scale = float(cam.weights(method, *twins).abs().max())
        assert_same(weights.double(), cam.weights(method, *twins), absolute=relative * scale)
    assert cam.activation_sums(activations).dtype == dtype
    assert cam.heatmap(gradients[:, :, 0, 0], activations).dtype == dtype
    for formula in (cam.alphas, cam.alphas_unreduced):
        positive = formula(activations, gradients.abs())
        assert positive.dtype == dtype
        assert_same(positive.double(), cam.alphas(twins[0], twins[1].abs()), relative=relative)


def test_zero_gradients_have_alphas_and_weights_of_zero() -> None:
    activations, zeros = torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    for formula in (cam.alphas, cam.alphas_unreduced):
        assert_same(formula(activations, zeros), zeros)
    for method in METHODS:
        assert_same(cam.weights(method, activations, zeros), torch.zeros(2, 3))


def test_dead_feature_maps_have_alphas_of_a_half() -> None:
    gradients = torch.tensor([-3.0, 0.0, 5.0]).reshape(1, 1, 1, 3)
    assert_same(cam.alphas(torch.zeros(1, 1, 1, 3), gradients), torch.tensor([0.5, 0.0, 0.5]).reshape(1, 1, 1, 3))
    assert_same(plus_plus(torch.zeros(1, 1, 1, 3), gradients), torch.tensor([[2.5]]))


def test_at_the_pole_alpha_is_infinite_and_the_weight_is_not() -> None:
    activations = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    gradients = torch.tensor([-0.5, 1.0]).reshape(1, 1, 1, 2)  # s g = -2 and 4
    assert cam.alphas(activations, gradients).flatten().tolist() == [float("inf"), pytest.approx(1 / 6)]
    assert float(plus_plus(activations, gradients)) == pytest.approx(1 / 6)


def test_a_pole_at_a_positive_gradient_reaches_the_weight() -> None:
    activations, gradients = torch.full((1, 1, 1, 1), -2.0), torch.ones(1, 1, 1, 1)
    assert float(plus_plus(activations, gradients)) == float("inf")


def test_an_infinite_sum_spoils_no_unit_whose_gradient_is_zero() -> None:
    activations = torch.tensor([60000.0, 60000.0]).half().reshape(1, 1, 1, 2)  # the sum overflows
    gradients = torch.tensor([0.0, 1.0]).half().reshape(1, 1, 1, 2)
    assert_same(cam.alphas(activations, gradients), torch.zeros_like(gradients))
    assert_same(plus_plus(activations, gradients), torch.zeros(1, 1).half())


@pytest.mark.parametrize("gradient", [1e-25, 1e25])
def test_the_unreduced_formula_is_nan_where_its_powers_under_and_overflow(gradient: float) -> None:
    activations, gradients = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), gradient)
    assert cam.alphas_unreduced(activations, gradients).isnan().all()
    expected = 1 / (2 + gradient)
    assert float(cam.alphas(activations, gradients)) == pytest.approx(expected)


@pytest.mark.parametrize(("first", "second"), BAD_SHAPES)
def test_bad_shapes_are_refused_with_expected_and_actual(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    activations, gradients = torch.ones(first), torch.ones(second)
    functions: list[loops.OfLayer] = [cam.alphas, cam.alphas_unreduced, *(partial(cam.weights, method) for method in METHODS)]
    for function in functions:
        with pytest.raises(ValueError, match="expected") as caught:
            function(activations, gradients)
        assert "(B, K, H, W)" in str(caught.value)
        assert f"got {first} and {second}" in str(caught.value)


def test_activation_sums_refuse_other_than_four_dimensions() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, K, H, W\), got \(3, 4, 5\)"):
        cam.activation_sums(torch.ones(3, 4, 5))


@pytest.mark.parametrize(("weights", "activations"), [((2, 3), (2, 4, 5, 5)), ((3,), (1, 3, 5, 5)), ((2, 3), (2, 3, 5))])
def test_heatmap_refuses_weights_of_other_feature_maps(weights: tuple[int, ...], activations: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected weights") as caught:
        cam.heatmap(torch.ones(weights), torch.ones(activations))
    assert f"{weights} and {activations}" in str(caught.value)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    method: Method = "scorecam"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"expected one of gradcam, gradcam\+, gradcam\+\+, got 'scorecam'"):
        cam.weights(method, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))


@PROPERTY
@given(loops.layers(), st.sampled_from([2.0**-40, 0.25, 2.0**30]))
def test_footnote_2_a_factor_of_the_score_is_lost_in_the_min_max_map(layer: tuple[Tensor, Tensor], factor: float) -> None:
    activations, gradients = layer
    weights = cam.weights("gradcam+", activations, gradients)
    assert_same(min_max(cam.heatmap(factor * weights, activations)), min_max(cam.heatmap(weights, activations)))
