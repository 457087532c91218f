"""Eqs 5-13, 18 and 19 in SymPy against loops over units, on concrete scores at exact rational points."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import sympy as sp

from gradcampp.algebra import derivation

Expr = Any
SHAPE = (2, 2, 2)
UNITS = list(product(range(2), range(2), range(2)))
MAPS = derivation.feature_maps(*SHAPE)
NAMES = sp.flatten(MAPS)
POINT = dict(zip(NAMES, [sp.Rational(n, 7) for n in (3, 5, 2, 11, 4, 1, 6, 9)], strict=True))
ALPHAS = sp.Array([sp.Rational(n, 5) for n in (2, -3, 7, 1, 4, -6, 3, 8)], SHAPE)


def polynomial() -> Expr:
    """All products of two units with other coefficients, cubes and fourth powers; some gradients are negative."""
    pairs = sum((-1) ** n * (n + 1) * NAMES[a] * NAMES[b] for n, (a, b) in enumerate(product(range(8), repeat=2)))
    return pairs + sum((n + 2) * name**3 - n * name**4 for n, name in enumerate(NAMES)) + NAMES[0] ** 3 * NAMES[5] ** 2


SCORES = {
    "polynomial": polynomial(),
    "exponential": sp.exp(sum((n - 3) * name for n, name in enumerate(NAMES))),
    "product": sp.prod([name + n for n, name in enumerate(NAMES)]),
    "rational": (NAMES[0] ** 2 - NAMES[3] * NAMES[6]) / (1 + NAMES[1] ** 2 + NAMES[4] * NAMES[7] + NAMES[2] * NAMES[5]),
}
EVERY_SCORE = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
MOVING = sp.Array([(n + 1) * NAMES[n] * NAMES[(3 * n + 1) % 8] - NAMES[(n + 2) % 8] ** 2 for n in range(8)], SHAPE)


def map_sum(k: int) -> Expr:
    total = sp.Integer(0)
    for i in range(2):
        for j in range(2):
            total += MAPS[k, i, j]
    return total


def right_side_of_6(score: Expr, alphas: Expr) -> Expr:
    """Eq. 6 without its ReLU, as the paper prints it: the braces, then the bracket."""
    total = sp.Integer(0)
    for k in range(2):
        braces = sp.Integer(0)
        for a in range(2):
            for b in range(2):
                braces += alphas[k, a, b] * sp.diff(score, MAPS[k, a, b])
        total += braces * map_sum(k)
    return total


def at(expression: Expr) -> Expr:
    return sp.expand(sp.sympify(expression).doit().subs(POINT))


def same(first: Expr, second: Expr) -> bool:
    return bool(sp.simplify(at(first) - at(second)) == 0)


def test_units_are_named_as_in_the_paper_and_real() -> None:
    maps = derivation.feature_maps(2, 3, 4)
    assert maps.shape == (2, 3, 4)
    assert str(maps[1, 0, 3]) == "A^2_14"
    assert str(derivation.feature_maps(1, 1, 1, "B")[0, 0, 0]) == "B^1_11"
    assert all(name.is_real for name in sp.flatten(maps))
    assert str(derivation.constant_alphas(maps)[0, 2, 1]) == "alpha^1_32"
    assert derivation.constant_alphas(maps).shape == derivation.varying_alphas(maps).shape == (2, 3, 4)


def test_a_score_and_varying_alphas_depend_on_every_unit_and_are_real() -> None:
    value, alphas = derivation.score(MAPS), derivation.varying_alphas(MAPS)
    assert value.func.__name__ == "Y"
    for function in (value, *sp.flatten(alphas)):
        assert function.args == tuple(NAMES)
        assert function.is_real
    assert [alpha.func.__name__ for alpha in sp.flatten(alphas)] == [f"alpha^{k + 1}_{i + 1}{j + 1}" for k, i, j in UNITS]


def test_gradients_and_map_sums_are_the_loops() -> None:
    slopes = derivation.gradients(SCORES["polynomial"], MAPS)
    assert all(slopes[unit] == sp.diff(SCORES["polynomial"], MAPS[unit]) for unit in UNITS)
    assert derivation.map_sums(MAPS) == [map_sum(0), map_sum(1)]


def test_weights_are_eq_4() -> None:
    slopes, alphas = sp.Array([2, -3, 5, -7], (2, 1, 2)), sp.Array([11, 13, 17, 19], (2, 1, 2))
    assert derivation.weights(alphas, slopes) == [22, 85]


def test_equation_5_multiplies_each_weight_with_the_sum_of_its_map() -> None:
    equation = derivation.equation_5(sp.Integer(7), [sp.Integer(3), sp.Integer(-2)], sp.Array([1, 2, 4, 8], (2, 1, 2)))
    assert (equation.lhs, equation.rhs) == (7, 3 * (1 + 2) - 2 * (4 + 8))
    with pytest.raises(ValueError, match="longer|shorter"):
        derivation.equation_5(sp.Integer(7), [sp.Integer(3)], MAPS)


@EVERY_SCORE
def test_equation_6_is_the_loop(score: Expr) -> None:
    for relu in (True, False):
        expected = sp.Integer(0)
        for k, a, b in UNITS:
            slope = at(sp.diff(score, MAPS[k, a, b]))
            if slope > 0 or not relu:
                expected += ALPHAS[k, a, b] * slope * at(map_sum(k))
        equation = derivation.equation_6(score, ALPHAS, MAPS, relu)
        assert same(equation.rhs, expected)
        assert equation.lhs == score
    assert derivation.equation_6(score, ALPHAS, MAPS) == derivation.equation_6(score, ALPHAS, MAPS, relu=True)


def test_some_gradients_of_the_polynomial_are_negative() -> None:
    signs = {sp.sign(at(sp.diff(SCORES["polynomial"], name))) for name in NAMES}
    assert signs == {-1, 1}


@EVERY_SCORE
@pytest.mark.parametrize("unit", [(0, 0, 0), (1, 0, 1)])
def test_equation_7_has_the_own_channel_and_the_pure_second_derivative(score: Expr, unit: derivation.Unit) -> None:
    k, i, j = unit
    expected = map_sum(k) * ALPHAS[unit] * sp.diff(score, MAPS[unit], MAPS[unit])
    for a in range(2):
        for b in range(2):
            expected += ALPHAS[k, a, b] * sp.diff(score, MAPS[k, a, b])
    equation = derivation.equation_7(score, ALPHAS, MAPS, unit)
    assert same(equation.lhs, sp.diff(score, MAPS[k, i, j]))
    assert same(equation.rhs, expected)
    assert not same(equation.rhs, sp.diff(right_side_of_6(score, ALPHAS), MAPS[unit]))  # and that is the mistake


@EVERY_SCORE
@pytest.mark.parametrize("unit", [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)])
def test_equation_18_is_the_derivative_of_eq_6_for_constant_alphas(score: Expr, unit: derivation.Unit) -> None:
    equation = derivation.equation_18(score, ALPHAS, MAPS, unit)
    assert same(equation.lhs, sp.diff(score, MAPS[unit]))
    assert same(equation.rhs, sp.diff(right_side_of_6(score, ALPHAS), MAPS[unit]))


@EVERY_SCORE
@pytest.mark.parametrize("unit", [(0, 0, 0), (1, 1, 0)])
def test_equation_19_is_the_derivative_of_eq_6_for_alphas_that_move(score: Expr, unit: derivation.Unit) -> None:
    equation = derivation.equation_19(score, MOVING, MAPS, unit)
    truth = sp.diff(right_side_of_6(score, MOVING), MAPS[unit])
    assert same(equation.lhs, sp.diff(score, MAPS[unit]))
    assert same(equation.rhs, truth)
    assert not same(derivation.equation_18(score, MOVING, MAPS, unit).rhs, truth)


def test_equation_19_is_equation_18_where_the_alphas_are_constants() -> None:
    score = SCORES["polynomial"]
    assert derivation.equation_19(score, ALPHAS, MAPS, (0, 1, 1)) == derivation.equation_18(score, ALPHAS, MAPS, (0, 1, 1))


@pytest.mark.parametrize("unit", [(0, 0, 0), (1, 0, 1)])
def test_equations_18_and_19_hold_for_any_score_and_any_alphas_of_a_small_layer(unit: derivation.Unit) -> None:
    maps = derivation.feature_maps(2, 1, 2)
    value = derivation.score(maps)
    for alphas, right in (
        (derivation.constant_alphas(maps), derivation.equation_18),
        (derivation.varying_alphas(maps), derivation.equation_19),
    ):
        sixth = derivation.equation_6(value, alphas, maps, relu=False)
        true = derivation.differentiated(sixth, maps[unit])
        stated = right(value, alphas, maps, unit)
        assert true.lhs == stated.lhs == value.diff(maps[unit])
        assert sp.expand(true.rhs - stated.rhs) == 0


@EVERY_SCORE
@pytest.mark.parametrize("unit", [(0, 0, 0), (1, 0, 1)])
def test_the_missing_terms_are_eq_18_minus_eq_7_sorted_by_channel(score: Expr, unit: derivation.Unit) -> None:
    lost = derivation.missing_terms(score, ALPHAS, MAPS, unit)
    expected = {"own channel": sp.Integer(0), "own unit": sp.Integer(0)}
    for other in UNITS:
        term = map_sum(other[0]) * ALPHAS[other] * sp.diff(score, MAPS[unit], MAPS[other])
        if other[0] != unit[0]:
            expected["own channel"] += term
        elif other != unit:
            expected["own unit"] += term
    assert lost.keys() == expected.keys() <= derivation.ASSUMPTIONS.keys()
    assert all(same(lost[name], expected[name]) for name in expected)
    eighteenth, seventh = (
        equation(score, ALPHAS, MAPS, unit).rhs for equation in (derivation.equation_18, derivation.equation_7)
    )  # fmt: skip
    assert same(sum(lost.values()), eighteenth - seventh)


def test_equation_8_by_hand() -> None:
    """Y = x^4 y + x^2 at x = 2, y = 3 in one map: Y'' = 36 * 4 + 2 = 146, Y''' = 72 * 2 = 144, s = 5."""
    maps = derivation.feature_maps(2, 1, 2)
    x, y, other, last = sp.flatten(maps)
    score, point = x**4 * y + x**2 + other * last, {x: 2, y: 3, other: 100, last: 200}
    assert derivation.equation_8(score, maps, (0, 0, 0)).subs(point) == sp.Rational(146, 2 * 146 + 5 * 144)
    second = other**3 * x  # at unit (1, 0, 0): Y'' = 6 * 100 * 2, Y''' = 6 * 2, s = 300
    assert derivation.equation_8(second, maps, (1, 0, 0)).subs(point) == sp.Rational(1200, 2400 + 300 * 12)


def test_equation_8_solves_what_is_left_of_eq_7_differentiated_once_more() -> None:
    """Y = x^4 + y^3, where no mixed derivative is lost: Y'' = 2 alpha Y'' + s alpha Y'''."""
    maps = derivation.feature_maps(1, 1, 2)
    x, y = sp.flatten(maps)
    score = x**4 + y**3
    alphas = derivation.constant_alphas(maps)
    again = derivation.differentiated(derivation.equation_7(score, alphas, maps, (0, 0, 0)), x)
    (solution,) = sp.solve(again.lhs - again.rhs, alphas[0, 0, 0])
    assert sp.simplify(solution - derivation.equation_8(score, maps, (0, 0, 0))) == 0


@pytest.mark.parametrize(
    ("gradient", "total", "lam", "ninth", "twelfth"),
    [
        ("2", "3", "5", "1/8", "1/32"),  # 4 / (8 + 24) and 4 / (8 + 120)
        ("-1/2", "3", "1/3", "2", "2/3"),  # 1/4 / (1/2 - 3/8) and 1/4 / (1/2 - 1/8)
        ("1/3", "0", "2", "1/2", "1/2"),
    ],
)
def test_equations_9_12_and_13_by_hand(gradient: str, total: str, lam: str, ninth: str, twelfth: str) -> None:
    g, s, rate = sp.Rational(gradient), sp.Rational(total), sp.Rational(lam)
    assert derivation.equation_9(g, s) == derivation.equation_13(g, s) == sp.Rational(ninth)
    assert derivation.equation_12(g, s, rate) == sp.Rational(twelfth)


def test_equation_13_is_equation_9_but_for_a_gradient_of_zero() -> None:
    g, s = sp.symbols("g s")
    assert sp.simplify(derivation.equation_9(g, s) - derivation.equation_13(g, s)) == 0
    assert derivation.equation_9(sp.Integer(0), s) is sp.nan
    assert derivation.equation_13(sp.Integer(0), s) == sp.Rational(1, 2)


@pytest.mark.parametrize("rate", [1, sp.Rational(3, 2)])
def test_equation_8_becomes_12_for_a_linear_logit_and_not_for_a_quadratic(rate: Expr) -> None:
    maps = derivation.feature_maps(1, 1, 2)
    x, y = sp.flatten(maps)
    linear, bent = 3 * x - 2 * y + 1, x**2 + 3 * x - 2 * y
    for logit, exact in ((linear, True), (bent, False)):
        alpha = derivation.equation_8(sp.exp(rate * logit), maps, (0, 0, 0))
        twelfth = derivation.equation_12(sp.diff(logit, x), x + y, sp.sympify(rate))
        assert (sp.simplify(alpha - twelfth) == 0) == exact


def test_equation_10_by_hand() -> None:
    equation = derivation.equation_10(sp.Array([[[2, 3], [5, 7]]]), sp.Array([[[11, 13], [17, 19]]]), sp.Integer(6))
    assert (equation.lhs, equation.rhs) == (2 * 11 + 3 * 13 + 5 * 17 + 7 * 19, 6)
    with pytest.raises(ValueError, match="longer|shorter"):
        derivation.equation_10(sp.Array([[[2, 3]]]), sp.Array([[[11]]]), sp.Integer(6))


def test_coefficients_by_hand() -> None:
    maps = derivation.feature_maps(2, 1, 2)
    a, b, c, d = sp.flatten(maps)
    point = {a: 1, b: 2, c: 3, d: 5}
    score = 2 * a - 3 * b + c * d  # gradients 2, -3, 5, 3 and sums 3, 8
    assert sp.flatten(derivation.coefficients(score, maps).subs(point)) == [6, 0, 40, 24]
    assert sp.flatten(derivation.coefficients(score, maps, relu=False).subs(point)) == [6, -9, 40, 24]


def test_equation_10_is_equation_6() -> None:
    for relu in (True, False):
        values = derivation.coefficients(SCORES["polynomial"], MAPS, relu)
        tenth = derivation.equation_10(values, ALPHAS, SCORES["polynomial"])
        sixth = derivation.equation_6(SCORES["polynomial"], ALPHAS, MAPS, relu)
        assert same(tenth.lhs, sixth.rhs)
        assert same(tenth.rhs, sixth.lhs)


def test_equation_11_by_hand_and_in_equation_10() -> None:
    values, value = sp.Array([[[3, 6]]]), sp.Integer(5)
    assert sp.flatten(derivation.equation_11(values, sp.Array([[[1, 1]]]), value)) == [sp.Rational(5, 9)] * 2
    assert sp.flatten(derivation.equation_11(values, sp.Array([[[4, -1]]]), value)) == [sp.Rational(20, 6), sp.Rational(-5, 6)]
    with pytest.raises(ValueError, match="longer|shorter"):
        derivation.equation_11(values, sp.Array([[[1]]]), value)
    symbols, betas = derivation.feature_maps(2, 1, 2, "C"), derivation.feature_maps(2, 1, 2, "beta")
    right = sp.Symbol("Y")
    equation = derivation.equation_10(symbols, derivation.equation_11(symbols, betas, right), right)
    assert sp.simplify(equation.lhs - equation.rhs) == 0


def test_equation_11_refuses_betas_that_add_up_to_zero() -> None:
    with pytest.raises(ValueError, match=r"betas: expected a sum of C \* beta that is not 0"):
        derivation.equation_11(sp.Array([[[3, 6]]]), sp.Array([[[2, -1]]]), sp.Integer(5))


@pytest.fixture(scope="module")
def steps() -> list[derivation.Step]:
    return derivation.derivation()


def test_the_derivation_goes_from_6_to_9_and_on_to_13_and_12(steps: list[derivation.Step]) -> None:
    assert [(step.equation, step.assumption) for step in steps] == [
        (6, "posed"),
        (6, "no ReLU"),
        (6, "open set"),
        (6, "constant alphas"),
        (7, "own channel"),
        (7, "own unit"),
        (8, "own unit"),
        (8, "denominator"),
        (9, "exponential"),
        (9, "piecewise linear"),
        (13, "gradient"),
        (12, "any rate"),
        (9, "post-softmax"),
    ]
    assert {step.assumption for step in steps} == derivation.ASSUMPTIONS.keys()


def general() -> tuple[Expr, ...]:
    """Units a, b, c, d of two maps, Y and four moving alphas of them."""
    units = sp.symbols("A^1_11 A^1_12 A^2_11 A^2_12", real=True)
    names = ("alpha^1_11", "alpha^1_12", "alpha^2_11", "alpha^2_12")
    return units, sp.Function("Y", real=True)(*units), tuple(sp.Function(name, real=True)(*units) for name in names)


def test_each_step_loses_what_its_assumption_says(steps: list[derivation.Step]) -> None:
    (a, b, c, d), y, moving = general()
    slopes, sums = [y.diff(unit) for unit in (a, b, c, d)], [a + b, a + b, c + d, c + d]
    fixed = sp.Symbol("alpha^1_12", real=True)
    expected = [
        0,
        sum(s * alpha * (sp.Max(g, 0) - g) for s, alpha, g in zip(sums, moving, slopes, strict=True)),
        sp.Function("rho", real=True)(a, b, c, d).diff(a),
        sum(s * alpha.diff(a) * g for s, alpha, g in zip(sums, moving, slopes, strict=True)),
        (c + d) * (moving[2] * y.diff(a, c) + moving[3] * y.diff(a, d)),
        (a + b) * moving[1] * y.diff(a, b),
        fixed * y.diff(a, b),
        0,
        0,
    ]
    for step, lost in zip(steps, expected, strict=False):
        assert sp.expand((step.lost - lost).doit()) == 0, step.assumption
    assert steps[9].lost != 0  # piecewise linear: where it loses nothing is the next test
    assert steps[10].lost == steps[11].lost == 0


def test_the_lost_terms_are_the_missing_terms_and_the_moving_alphas_of_eq_19(steps: list[derivation.Step]) -> None:
    maps = derivation.feature_maps(2, 1, 2)
    value, alphas = derivation.score(maps), derivation.varying_alphas(maps)
    missing = derivation.missing_terms(value, alphas, maps, (0, 0, 0))
    assert sp.expand(steps[4].lost - missing["own channel"]) == 0
    assert sp.expand(steps[5].lost - missing["own unit"]) == 0
    nineteenth, eighteenth = (
        equation(value, alphas, maps, (0, 0, 0)).rhs for equation in (derivation.equation_19, derivation.equation_18)
    )  # fmt: skip
    assert sp.expand(steps[3].lost - (nineteenth - eighteenth)) == 0
    assert sp.expand(steps[2].after - nineteenth) == 0


def test_each_step_starts_where_the_one_before_it_ended(steps: list[derivation.Step]) -> None:
    (a, b, *_), y, _ = general()
    g = sp.Function("S", real=True)(*y.args).diff(a)
    first = sp.Symbol("alpha^1_11", real=True)
    assert steps[1].before == steps[0].after
    remainder = sp.Function("rho", real=True)(*y.args)  # where eq. 6 holds at a point only, it holds with this elsewhere
    assert sp.expand(steps[2].before - (steps[1].after + remainder).diff(a)) == 0
    assert steps[3].before == steps[2].after
    assert steps[4].before == steps[3].after
    assert steps[5].before == steps[4].after
    constants = {alpha: sp.Symbol(alpha.func.__name__, real=True) for alpha in general()[2]}
    assert sp.expand(steps[6].before - steps[5].after.subs(constants).diff(a)) == 0
    assert sp.simplify(y.diff(a, 2) - steps[6].after.subs(first, steps[7].before)) == 0  # it solves eq. 7 differentiated
    assert steps[9].before == steps[8].after
    assert steps[10].before == steps[9].after
    assert steps[9].after == g**2 / (2 * g**2 + (a + b) * g**3)
    assert steps[10].after == 1 / (2 + (a + b) * g)
    lam = sp.Symbol("lambda", positive=True)
    faster = steps[11].before.replace(sp.Function("S", real=True), lambda a, b, c, d: 3 * a - 2 * b + c * d).doit()
    powers = [(lam * 3) ** order for order in (2, 3)]  # of exp(lam S), less the factor exp(lam S)
    assert sp.simplify(faster - powers[0] / (2 * powers[0] + (a + b) * powers[1])) == 0
    assert steps[11].after == g**2 / (2 * g**2 + lam * (a + b) * g**3)
    softmax = {sp.Function("S", real=True)(*y.args): sp.Function("p", real=True)(*y.args)}
    assert steps[12].before == steps[9].before.subs(softmax)
    assert steps[12].after == steps[9].after.subs(softmax)


def test_the_left_sides_say_what_is_rewritten(steps: list[derivation.Step]) -> None:
    (a, *_), y, _ = general()
    alpha = sp.Symbol("alpha^1_11", real=True)
    lefts = [y, y, *[y.diff(a)] * 4, y.diff(a, 2), *[alpha] * 6]
    assert [step.left for step in steps] == lefts


def replaced(expression: Expr, name: str, function: Callable[..., Expr]) -> Expr:
    return expression.replace(sp.Function(name, real=True), function).doit()


def test_the_step_to_eq_9_is_exact_for_a_linear_logit_and_not_for_a_quadratic(steps: list[derivation.Step]) -> None:
    step = steps[9]
    linear = replaced(step.before - step.after, "S", lambda a, b, c, d: 3 * a - b + 2 * c * d)
    assert sp.simplify(linear) == 0
    # S = a^2 / 2 + b, s = a + b, at a = 2, b = 1: S' = 2, S'' = 1, so alpha is 5 / (10 + 3 * 14) and not 4 / (8 + 24).
    bent = replaced(step.before, "S", lambda a, b, c, d: a**2 / 2 + b + c * d)
    point = dict(zip(sp.symbols("A^1_11 A^1_12", real=True), (2, 1), strict=True))
    assert bent.subs(point) == sp.Rational(5, 52)
    assert replaced(step.after, "S", lambda a, b, c, d: a**2 / 2 + b + c * d).subs(point) == sp.Rational(1, 8)


def test_the_factor_of_alpha_that_must_not_be_zero(steps: list[derivation.Step]) -> None:
    """Twice the second derivative and the sum times the third."""
    (a, b, *_), y, _ = general()
    factor = sp.expand(steps[6].after).coeff(sp.Symbol("alpha^1_11", real=True))
    assert sp.expand(factor - (2 * y.diff(a, 2) + (a + b) * y.diff(a, 3))) == 0
    assert sp.simplify(sp.denom(steps[7].before) / factor).is_number
    assert steps[7].lost == 0


def test_the_softmax_score_in_the_place_of_the_logit_by_hand(steps: list[derivation.Step]) -> None:
    """Logits a and -a: p = 1 / (1 + exp(-2 a)) has the derivatives 2 q, 4 q (1 - 2 p) and 8 q (1 - 6 q), q = p (1 - p)."""
    a, b = sp.symbols("A^1_11 A^1_12", real=True)
    at = 1 / (1 + math.exp(-2))
    q = at * (1 - at)
    first, second, third = 2 * q, 4 * q * (1 - 2 * at), 8 * q * (1 - 6 * q)
    exact = (first**2 + second) / (2 * (first**2 + second) + 1 * (first**3 + 3 * first * second + third))
    for side, wanted in ((steps[12].before, exact), (steps[12].after, 1 / (2 + first))):
        found = replaced(side, "p", lambda unit, *_: 1 / (1 + sp.exp(-2 * unit)))
        assert float(found.subs({a: 1, b: 0})) == pytest.approx(wanted, rel=1e-12)
    assert (round(exact, 3), round(1 / (2 + first), 3)) == (0.637, 0.452)


def test_the_third_derivative_of_the_logit_counts_too(steps: list[derivation.Step]) -> None:
    """S = a^3, at a = 1, b = 1: S' = 3, S'' = 6, S''' = 6: (9 + 6) / (30 + 2 (27 + 54 + 6))."""
    cubic = replaced(steps[9].before, "S", lambda a, b, c, d: a**3 + 0 * (b + c + d))
    point = dict(zip(sp.symbols("A^1_11 A^1_12", real=True), (1, 1), strict=True))
    assert cubic.subs(point) == sp.Rational(15, 204)


@pytest.mark.parametrize(("shape", "lossless"), [((1, 1, 2), "own channel"), ((2, 1, 1), "own unit")])
def test_one_map_has_no_other_channel_and_one_unit_no_other_unit(shape: tuple[int, int, int], lossless: str) -> None:
    steps = derivation.derivation(*shape)
    assert all((step.lost == 0) == (step.assumption == lossless) for step in steps[4:7])


def test_mixed_derivatives_and_curvature_are_told_from_the_rest() -> None:
    x, y = sp.symbols("x y")
    f = sp.Function("f")(x, y)
    every = f + 2 * f.diff(x) + 3 * f.diff(x, 2) + 5 * f.diff(x, y) + 7 * f.diff(x, 2, y) + 11 * f.diff(y, 3)
    assert derivation.without_mixed_derivatives(every) == f + 2 * f.diff(x) + 3 * f.diff(x, 2) + 11 * f.diff(y, 3)
    assert derivation.without_curvature(every) == f + 2 * f.diff(x)


SIZES = dict(zip(sp.symbols("K H W", integer=True, positive=True), (2, 1, 2), strict=True))
SMALL = derivation.feature_maps(2, 1, 2)
X = sp.Symbol("x", positive=True)


def instance(expression: Expr, channel: int, score: Expr, alphas: Expr) -> Expr:
    """A statement for any size, at K = 2, H = 1, W = 2 and for a score, where x is the first unit of a channel."""
    moved = {SMALL[channel - 1, 0, 0]: X}

    def unit(*numbers: Expr) -> tuple[int, ...]:
        return tuple(int(number) - 1 for number in numbers)

    explicit = expression.subs({**SIZES, sp.Symbol("k", integer=True, positive=True): channel}).doit()
    explicit = explicit.replace(sp.Function("Y'"), lambda *place: sp.diff(score, SMALL[unit(*place[:3])]).subs(moved))
    explicit = explicit.replace(sp.Function("s"), lambda other, _: sum(sp.flatten(SMALL[unit(other)])).subs(moved))
    explicit = explicit.replace(sp.Function("alpha"), lambda *place: alphas[unit(*place[:3])].subs(moved))
    return explicit.replace(lambda part: isinstance(part, sp.Indexed), lambda part: alphas[unit(*part.indices)]).doit()


def true_derivative(channel: int, score: Expr, alphas: Expr) -> Expr:
    """Eq. 6 without its ReLU for that layer, written out and differentiated by x."""
    right = sum(
        sum(alphas[k, 0, b] * sp.diff(score, SMALL[k, 0, b]) for b in range(2)) * (SMALL[k, 0, 0] + SMALL[k, 0, 1])
        for k in range(2)
    )
    return right.subs({SMALL[channel - 1, 0, 0]: X}).diff(X)


@pytest.mark.parametrize("varying", [False, True])
def test_the_appendix_holds_for_symbols_k_h_and_w(varying: bool) -> None:
    equation = derivation.appendix_of_any_size(varying)
    assert equation.lhs == equation.rhs
    assert len(equation.rhs.args) == (3 if varying else 2)
    a, b, c, d = sp.flatten(SMALL)
    score = a**3 * b + 2 * a * c - 5 * b * d**2 + 7 * a * d + c**2 * d
    alphas = sp.Array([a * c, b**2 - d, c * d + 3 * a, a * b * d] if varying else [2, -3, 5, 7], (2, 1, 2))
    for channel in (1, 2):
        truth = true_derivative(channel, score, alphas)
        assert sp.expand(instance(equation.rhs, channel, score, alphas) - truth) == 0
        for term in equation.rhs.args:  # no term can be left out
            assert sp.expand(instance(equation.rhs - term, channel, score, alphas) - truth) != 0


@pytest.mark.parametrize("varying", [False, True])
def test_the_appendix_without_its_kronecker_delta_is_wrong(varying: bool) -> None:
    """The sums of all maps moving with x, not only the unit's own."""
    equation = derivation.appendix_of_any_size(varying)
    k, other = sp.Symbol("k", integer=True, positive=True), sp.Symbol("l", integer=True, positive=True)
    (own,) = (term for term in equation.rhs.args if not term.has(sp.Function("s")))
    assert own.has(k)
    wrong = equation.rhs - own + sp.Sum(own.subs(k, other), (other, 1, sp.Symbol("K", integer=True, positive=True)))
    a, b, c, d = sp.flatten(SMALL)
    score, alphas = a**3 * b + 2 * a * c - 5 * b * d**2, sp.Array([2, -3, 5, 7], (2, 1, 2))
    assert wrong != equation.lhs
    assert sp.expand(instance(wrong, 1, score, alphas) - true_derivative(1, score, alphas)) != 0


def test_a_wrong_right_side_is_not_structurally_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """SymPy's equality of the two sides is no accident of how they are written: a delta left in place shows."""
    monkeypatch.setattr("gradcampp.algebra.derivation._settled", lambda expression: expression)
    for varying in (False, True):
        equation = derivation.appendix_of_any_size(varying)
        assert equation.lhs != equation.rhs
        assert equation.lhs.has(sp.KroneckerDelta)


@pytest.mark.parametrize("module", ["derivation", "counterexamples", "latex"])
def test_the_algebra_runs_where_nothing_but_sympy_is_installed(module: str) -> None:
    """As in a browser: torch, numpy, pandas and all else cannot be imported."""
    script = f"""
import importlib, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in sys.stdlib_module_names | {{"sympy", "mpmath", "gradcampp"}}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
for absent in ("torch", "numpy", "pandas"):
    assert absent not in sys.modules
    try:
        importlib.import_module(absent)
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError(absent)
importlib.import_module("gradcampp.algebra.{module}")
assert {{name for name in sys.modules if name.startswith("gradcampp")}} <= {{
    "gradcampp", "gradcampp.algebra", "gradcampp.algebra.derivation", "gradcampp.algebra.{module}"
}}
from gradcampp.algebra.derivation import derivation
print(len(derivation()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "13\n"
