"""The eight theorems on random layers, and their checks, which wrong formulas fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import jacrev

from gradcampp import cam, paper, shrinkage, variants
from gradcampp.algebra import theorems
from gradcampp.cam import Method, min_max
from tests.loops import PROPERTY, UNIT, assert_same
from tests.test_variants import OTHER

SEEDS = st.integers(0, 2**32 - 1)
LAMBDAS = st.sampled_from([0.25, 1.0, 8.0])
RIGHT = {name: getattr(cam, name) for name in ("weights", "alphas")}


def plus_plus(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
    return cam.weights("gradcam++", activations, gradients, lam)


@pytest.mark.parametrize("number", theorems.CHECKS)
def test_every_check_holds_and_says_what_it_saw(number: int) -> None:
    found = check(number)
    assert found.holds, found.seen
    assert any(character.isdigit() for character in found.seen)
    assert theorems.TITLES[number]


def test_they_are_numbered_from_1_to_8() -> None:
    assert [*theorems.CHECKS] == [*theorems.TITLES] == [1, 2, 3, 4, 5, 6, 7, 8]


def check(number: int) -> theorems.Check:
    return theorems.CHECKS[number]()


def wrong_weights(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The library's weights, with other alphas for Grad-CAM++; lam scales the gradients, as it should (theorem 4)."""

    def weights(method: Method, activations: Tensor, gradients: Tensor, lam: float = 1.0) -> Tensor:
        if method != "gradcam++":
            return RIGHT["weights"](method, activations, gradients, lam)  # type: ignore[no-any-return]
        found = variants.weights(formula, activations, lam * gradients if lam else gradients)
        return found / lam if lam else found

    return weights


def wrong_alphas(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda activations, gradients, lam=1.0: formula(cam.activation_sums(activations), lam * gradients)


WRONG_ALPHAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "1 instead of 2": lambda s, g: 1 / (1 + s * g),
    "minus": lambda s, g: 1 / (2 - s * g),
    "factor": lambda s, g: 1.01 / (2 + s * g),
    "half of the product": lambda s, g: 1 / (2 + s * g / 2),
}


@pytest.mark.parametrize("formula", [WRONG_ALPHAS[name] for name in ("1 instead of 2", "minus", "factor")])
def test_the_check_of_theorem_1_fails_for_wrong_alphas(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.cam.alphas", wrong_alphas(formula))
    assert not check(1).holds


@pytest.mark.parametrize(
    "wrong",
    [
        lambda g, s, lam: 1 / (1 + lam * s * g),
        lambda g, s, lam: 1 / (2 - lam * s * g),
        lambda _, s, lam: 1 / (2 + lam * s),
        lambda g, s, lam: 1 / (2 + lam * s * g**2),
        lambda g, s, _: 1 / (2 + s * g),
    ],
    ids=["1 instead of 2", "minus", "no gradient", "square", "no lam"],
)
def test_the_check_of_theorem_2_fails_for_another_equation_12(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.algebra.derivation.equation_12", wrong)
    assert not check(2).holds


@pytest.mark.parametrize("factor", [0.5, 0.8])
def test_the_check_of_theorem_3_fails_for_a_smaller_bound(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theorems, "bound", lambda a, g: factor * shrinkage.bound(a, g))
    assert not check(3).holds


def test_the_check_of_theorem_3_fails_for_a_narrower_sandwich(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrower(activations: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        low, high = shrinkage.sandwich(activations, gradients)
        return low + 0.05 * (high - low), high

    monkeypatch.setattr(theorems, "sandwich", narrower)
    assert not check(3).holds


@pytest.mark.parametrize("formula", [variants.authors, variants.torchcam, variants.konny, variants.tf_keras_vis])
def test_the_check_of_theorem_3_fails_for_other_programs(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.cam.weights", wrong_weights(formula))
    assert not check(3).holds


@pytest.mark.parametrize("formula", OTHER.values(), ids=OTHER.keys())
def test_the_check_of_theorem_4_fails_for_other_programs(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.cam.weights", wrong_weights(formula))
    assert not check(4).holds


@pytest.mark.parametrize("formula", WRONG_ALPHAS.values(), ids=WRONG_ALPHAS.keys())
def test_the_check_of_theorem_5_fails_for_wrong_alphas(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.cam.alphas", wrong_alphas(formula))
    assert not check(5).holds


def test_the_check_of_theorem_6_fails_for_a_shrinkage_that_does_not_see_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theorems, "shrinkage", lambda a, g: shrinkage.shrinkage(a, g / g.abs().amax()))
    assert not check(6).holds


@pytest.mark.parametrize("place", [(-3, -23), (3, -22), (-2, -22), (15, -22), (16, -23)])
def test_the_check_of_theorem_7_fails_for_other_places_on_the_grid(
    place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place[0] < 10
    value = -1398101.4 if first else 559240.56
    monkeypatch.setattr("gradcampp.paper.EXTREMES", {**paper.EXTREMES, value: place})
    assert not check(7).holds


@pytest.mark.parametrize("formula", [variants.authors, variants.torchcam, variants.konny, variants.xplique])
def test_the_check_of_theorem_8_fails_for_other_programs(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcampp.cam.weights", wrong_weights(formula))
    assert not check(8).holds


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, g: shrinkage.shrinkage(a, g) / 2,
        lambda a, g: shrinkage.shrinkage(a, g) ** 2,
        lambda a, g: shrinkage.shrinkage(a, g).mean(1, keepdim=True).expand(g.shape[:2]),
    ],
    ids=["half", "square", "mean"],
)
def test_the_check_of_theorem_8_fails_for_another_shrinkage(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theorems, "shrinkage", wrong)
    assert not check(8).holds


@PROPERTY
@given(SEEDS, LAMBDAS)
def test_theorem_1_poles_lie_where_the_gradient_is_negative(seed: int, lam: float) -> None:
    activations, gradients = theorems.random_layer(seed)
    alphas = cam.alphas(activations, gradients, lam)
    assert (alphas[gradients > 0] > 0).all()
    assert (alphas[gradients > 0] <= 0.5).all()
    assert (gradients[(alphas < 0) | (alphas > 0.5)] < 0).all()
    # At the negative gradient -2 / (lam s) itself alpha is infinite, or as large as a rounding of 2 leaves it.
    sums = cam.activation_sums(activations)
    poles = torch.where(sums > 0, -2 / (lam * sums), -1).expand_as(gradients)
    at_pole = cam.alphas(activations, poles, lam)
    assert (at_pole.abs()[(sums > 0).expand_as(at_pole)] > 1e14).all()
    assert_same(plus_plus(activations, poles, lam), torch.zeros(activations.shape[:2], dtype=torch.float64))


@PROPERTY
@given(st.floats(2.0**-10, 2.0**10), st.floats(2.0**-10, 2.0**10), st.floats(2.0**-10, 2.0**10), st.floats(0.01, 0.99))
def test_theorem_2_each_gradient_passes_through_a_growing_concave_bounded_function(
    total: float, low: float, step: float, share: float
) -> None:
    def passed(values: list[float]) -> list[float]:
        gradients = torch.tensor(values, dtype=torch.float64)[:, None, None, None]
        return plus_plus(torch.full_like(gradients, total), gradients)[:, 0].tolist()

    high = low + step
    middle = low + share * step
    at_low, at_middle, at_high = passed([low, middle, high])
    slack = 8 * UNIT * at_high  # a product, a sum, a quotient and the mean of the test
    assert at_low <= at_middle + slack
    assert at_middle <= at_high + slack
    assert at_middle >= (1 - share) * at_low + share * at_high - slack
    assert at_high <= min(1 / total, high / 2) * (1 + 8 * UNIT)
    tiny = 2.0**-60 / total
    assert passed([tiny])[0] / tiny == pytest.approx(0.5, rel=8 * UNIT)
    huge = 2.0**60 / total
    assert passed([huge])[0] == pytest.approx(1 / total, rel=8 * UNIT)


@PROPERTY
@given(SEEDS)
def test_theorem_3_on_the_layers_of_the_check(seed: int) -> None:
    """K Z = 150 terms of one sign; ranges of these maps are within 1e3 of their maxima."""
    activations, gradients = theorems.random_layer(seed)
    plus = cam.heatmap(cam.weights("gradcam+", activations, gradients), activations)
    plusplus = cam.heatmap(plus_plus(activations, gradients), activations)
    low, high = shrinkage.sandwich(activations, gradients)
    assert (low <= plusplus * (1 + 1e-12)).all()
    assert (plusplus <= high * (1 + 1e-12)).all()
    difference = (min_max(plus) - min_max(plusplus)).abs().amax((1, 2))
    assert (difference <= shrinkage.bound(activations, gradients) + 1e-12).all()


@PROPERTY
@given(SEEDS, st.floats(0.01, 100), LAMBDAS)
def test_theorem_4_rescaled_logits_are_another_lam(seed: int, tau: float, lam: float) -> None:
    activations, gradients = theorems.random_layer(seed)
    wanted = tau * plus_plus(activations, gradients, tau * lam)
    assert_same(plus_plus(activations, tau * gradients, lam), wanted, relative=100 * UNIT)  # Z = 25 positive terms
    zero = plus_plus(activations, gradients, 0.0)
    units = activations[0, 0].numel()
    assert_same(zero, units / 2 * cam.weights("gradcam+", activations, gradients), relative=100 * UNIT)
    # lam / (2 / r + lam s) is 1 / s less a share of 2 / (lam s r), the smallest r here far above 1e-9.
    counted = (gradients > 0).sum((2, 3)) / cam.activation_sums(activations)[..., 0, 0]
    assert_same(1e20 * plus_plus(activations, gradients, 1e20), counted, relative=1e-6)


@PROPERTY
@given(SEEDS)
def test_theorem_5_on_a_network_that_pools_and_ends_with_a_linear_layer(seed: int) -> None:
    """Also with a bias and with several classes, as a module; contributions plus the bias are the logit."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).double()
    linear: Any = head[2]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    activations = torch.rand((2, 5, 3, 4), generator=generator, dtype=torch.float64, requires_grad=True)
    logits = head(activations)[:, 1]
    (gradients,) = torch.autograd.grad(logits.sum(), activations)
    contributions = (cam.activation_sums(activations) * gradients).detach()  # (2, 5, 3, 4)
    means = activations.detach().mean((2, 3))
    assert_same(contributions.mean((2, 3)), linear.weight[1].detach() * means, absolute=1e-14, relative=1e-14)
    assert_same(contributions[..., 0, 0].sum(1) + linear.bias[1].detach(), logits.detach(), absolute=1e-13)
    alphas = cam.alphas(activations.detach(), gradients)
    assert (alphas == alphas[..., :1, :1]).all()


@PROPERTY
@given(SEEDS)
def test_theorem_6_on_random_logits(seed: int) -> None:
    """The Jacobian of a softmax by autograd, against p (1 - p) times the difference; numbers up to 10, exact to 1e-14."""
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(4, 6, generator=generator, dtype=torch.float64)  # of four logits, by six activations
    point = torch.randn(6, generator=generator, dtype=torch.float64)
    jacobian = jacrev(lambda a: (slopes @ a).softmax(0))(point)
    p = (slopes @ point).softmax(0)
    for c in range(4):
        others = [j for j in range(4) if j != c]
        mean = sum(p[j] * slopes[j] for j in others) / sum(p[j] for j in others)
        assert_same(jacobian[c], p[c] * (1 - p[c]) * (slopes[c] - mean), absolute=1e-14)


@PROPERTY
@given(SEEDS)
def test_theorem_6_the_alphas_tend_to_a_half_with_certainty(seed: int) -> None:
    activations, gradients = theorems.random_layer(seed)
    largest = float((cam.activation_sums(activations) * gradients.relu()).max())
    for power in range(0, 50, 10):
        factor = 2.0**-power * 0.25  # p (1 - p)
        alphas = cam.alphas(activations, factor * gradients)[gradients > 0]
        t = factor * largest
        assert float((0.5 - alphas).max()) <= t / (2 * (2 + t)) + 2 * UNIT
        assert float(shrinkage.shrinkage(activations, factor * gradients).max()) <= t / (2 + t) * (1 + 100 * UNIT)


@PROPERTY
@given(st.integers(-(2**20), 2**20))
def test_theorem_7_every_float32_near_minus_2_leaves_a_multiple_of_the_grid(steps: int) -> None:
    """The neighbours of -2: 2**-23 apart towards 0, and twice that away from it."""
    near = np.float32(-2)
    exact = -2 + steps * (2.0**-23 if steps > 0 else 2.0**-22)
    assert float(np.float32(exact)) == exact  # such a float32 exists
    total = np.float32(2) + np.float32(exact)
    assert float(total) == exact + 2  # and the sum is not rounded
    assert float(np.nextafter(near, np.float32(0)) - near) == 2.0**-23
    assert float(near - np.nextafter(near, np.float32(-3))) == 2.0**-22
    if steps:
        alpha = cam.alphas(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), exact)).item()
        assert alpha == float(np.float32(1) / total)


def test_theorem_7_the_records_of_the_paper() -> None:
    by_hand = [-(2**22) / 3, 2**23 / 15]
    assert by_hand == [pytest.approx(-1398101.4, abs=0.07), pytest.approx(559240.56, abs=0.04)]  # half a float32 step
    for value, (steps, exponent) in paper.EXTREMES.items():
        exact = 1 / (steps * 2.0**exponent)
        assert f"{np.float32(exact):.8g}" == f"{value:.8g}"
        assert math.copysign(1, steps) == math.copysign(1, value)


Fractions = list[Fraction]


def exact_maps(activations: list[Fractions], slopes: list[Fractions]) -> tuple[Fractions, Fractions, Fractions, Fractions]:
    """Half the positive gradients, shares, and the maps of Grad-CAM+ and Grad-CAM++, from the definitions, in fractions."""
    halves, weights = [], []
    for row, slope in zip(activations, slopes, strict=True):
        positive = [max(g, Fraction(0)) for g in slope]
        halves.append(sum(positive, Fraction(0)) / 2)
        weights.append(sum((r / (2 + sum(row) * r) for r in positive), Fraction(0)))
    deltas = [1 - w / half for w, half in zip(weights, halves, strict=True)]
    plus, plusplus = (
        [sum((w * row[j] for w, row in zip(each, activations, strict=True)), Fraction(0)) for j in range(len(activations[0]))]
        for each in (halves, weights)
    )
    return halves, deltas, plus, plusplus


def stretched(values: Fractions) -> Fractions:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else Fraction(0) for value in values]


def test_theorem_8_by_hand_the_maps_are_the_same_although_the_channels_shrink_differently() -> None:
    """Deltas 3/4, 1/2 and 7/8, d = 7/8: the leftover is -1/4 everywhere, and both maps are (0, 7/11, 1)."""
    activations = [[Fraction(value) for value in row] for row in ((3, 1, 2), (1, 3, 2), (0, 3, 4))]
    slopes = [[Fraction(value), Fraction(-1), Fraction(0)] for value in (Fraction(1), Fraction(1, 3), Fraction(2))]
    halves, deltas, plus, plusplus = exact_maps(activations, slopes)
    assert deltas == [Fraction(3, 4), Fraction(1, 2), Fraction(7, 8)]
    d = Fraction(7, 8)
    rest = [sum((deltas[k] - d) * halves[k] * activations[k][j] for k in range(3)) for j in range(3)]
    assert rest == [Fraction(-1, 4)] * 3
    assert stretched(plus) == stretched(plusplus) == [0, Fraction(7, 11), 1]
    found, shift = theorems.leftover(*theorems.layer_of_same_maps(2))
    assert_same(found[0, 0], torch.tensor([float(value) for value in rest], dtype=torch.float64), absolute=1e-15)
    assert float(shift) == pytest.approx(float(d), rel=1e-14)
    slopes[2][0] = Fraction(1)  # another gradient, and the same maps do not come out
    *_, plus, plusplus = exact_maps(activations, slopes)
    assert stretched(plus) == [0, Fraction(1, 2), 1]
    assert stretched(plusplus) == [0, Fraction(18, 29), 1]


@PROPERTY
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 9), SEEDS)
def test_theorem_8_both_directions_in_exact_fractions(first: int, more: int, factor: int, seed: int) -> None:
    """Maps 1 and 2 add up to a constant, so that one d serves both; map 3 joins them with exactly one gradient."""
    generator = np.random.default_rng(seed)
    moved = [Fraction(int(value)) for value in generator.integers(-4, 5, 4)]
    moved.append(-sum(moved, Fraction(0)))
    base = max(map(abs, moved)) + 1
    third = [Fraction(int(value)) for value in generator.integers(0, 5, 5) + np.eye(5, dtype=int)[0]]
    activations = [[base + value for value in moved], [base - value for value in moved], third]

    def layer(last: Fraction) -> tuple[Fractions, Fractions, Fractions, Fractions]:
        slopes = (Fraction(first, 3), Fraction(first + more, 3), last)
        return exact_maps(activations, [[g, *[Fraction(0)] * 4] for g in slopes])

    halves, deltas, *_ = layer(Fraction(1))
    d = (deltas[0] * halves[0] - deltas[1] * halves[1]) / (halves[0] - halves[1])
    assert 0 < d < 1  # of two maps with the same sum, w grows with the gradient, by less than half of it
    joining = 2 * d / (1 - d) / sum(third)
    for last in (joining, joining * factor):
        halves, deltas, plus, plusplus = layer(last)
        assert deltas[0] != deltas[1]
        before, after = (max(each) - min(each) for each in (plus, plusplus))
        only = 1 - after / before if before else Fraction(0)  # no other d can do
        rest = {sum((deltas[k] - only) * halves[k] * activations[k][j] for k in range(3)) for j in range(5)}
        assert (stretched(plus) == stretched(plusplus)) == (len(rest) == 1 and only < 1)
        if last == joining:
            assert len(rest) == 1


def test_theorem_8_independent_maps_are_the_same_only_where_all_channels_shrink_alike() -> None:
    """Three maps that are independent of each other and of the constant map: then all deltas are d."""
    activations = torch.tensor([[[[4, 0, 0, 0]], [[0, 2, 0, 0]], [[0, 0, 1, 0]]]], dtype=torch.float64)
    gradients = torch.zeros_like(activations)
    for last, same in ((4.0, True), (3.0, False)):
        gradients[0, :, 0, 0] = torch.tensor([1.0, 2.0, last], dtype=torch.float64)  # t = 4, 4 and last
        plus, plusplus = maps_of(activations, gradients)
        rest, _ = theorems.leftover(activations, gradients)
        assert (float((plus - plusplus).abs().max()) < 1e-14) == same
        assert (float(rest.amax() - rest.amin()) < 1e-14) == same


def test_a_constant_map_of_grad_cam_plus_is_that_of_grad_cam_plus_plus_only_if_that_is_constant() -> None:
    activations = torch.tensor([[[[2, 0]], [[0, 2]]]], dtype=torch.float64)
    gradients = torch.tensor([[[[1, 1]], [[2, 0]]]], dtype=torch.float64)  # weights 1 and 1, then 1/2 and 1/3
    plus, plusplus = maps_of(activations, gradients)
    assert plus.tolist() == [[[0, 0]]]
    assert plusplus.tolist() == [[[1, 0]]]
    rest, shift = theorems.leftover(activations, gradients)
    assert float(shift) == 0
    assert float(rest.amax() - rest.amin()) > 0.1


def maps_of(activations: Tensor, gradients: Tensor) -> list[Tensor]:
    """The min-max maps of Grad-CAM+ and Grad-CAM++."""
    methods: tuple[Method, ...] = ("gradcam+", "gradcam++")
    return [min_max(cam.heatmap(cam.weights(method, activations, gradients), activations)) for method in methods]


def test_relative_distance_is_the_largest_of_all() -> None:
    found, wanted = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 4.0, 0.0])
    assert theorems.relative(found, wanted) == 0.25
    assert theorems.relative(wanted, found) == pytest.approx(1 / 3)
    assert theorems.relative(torch.tensor([1.0]), torch.tensor([0.0])) > 1e30
