"""Each witness against the derivation, checked by hand with fractions and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import sympy as sp

from gradcampp.algebra import counterexamples, derivation

Expr = Any


def fractions(array: Expr) -> list[Fraction]:
    return [Fraction(int(value.p), int(value.q)) for value in map(sp.sympify, sp.flatten(array))]


def test_underdetermined_by_hand() -> None:
    """Y = A1 + 2 A2 at (1, 2): gradients 1 and 2, sum 3, Y = 5, so 3 alpha1 + 6 alpha2 = 5."""
    found = counterexamples.underdetermined()
    first, second = sp.symbols("A^1_11 A^1_12", real=True)
    assert found.score == first + 2 * second
    assert fractions(found.coefficients) == [1 * (1 + 2), 2 * (1 + 2)] == [3, 6]
    assert found.value == 1 + 2 * 2 == 5
    one, two = sp.symbols("alpha^1_11 alpha^1_12", real=True)
    assert (found.equation.lhs, found.equation.rhs) == (3 * one + 6 * two, 5)
    assert [fractions(solution) for solution in found.solutions] == [[Fraction(5, 3), 0], [0, Fraction(5, 6)]]
    for solution in found.solutions:
        a, b = fractions(solution)
        assert 3 * a + 6 * b == 5
    assert found.dimension == 1


def test_the_two_solutions_also_weigh_units_differently_in_eq_6() -> None:
    """Both reproduce the score: (alpha1 * 1 + alpha2 * 2) * (1 + 2) = 5."""
    for a, b in ((Fraction(5, 3), Fraction(0)), (Fraction(0), Fraction(5, 6))):
        assert (a * 1 + b * 2) * (1 + 2) == 5


@pytest.mark.parametrize(
    ("coefficients", "value", "dimension"),
    [
        ([3, 6], 5, 1),
        ([3, 6], 0, 1),
        ([3, 0], 5, 1),
        ([3, 6, 1, 2], 5, 3),
        ([3], 5, 0),
        ([0, 0, 0], 0, 3),  # everything solves it
        ([0, 0, 0], 5, None),  # nothing does
    ],
)
def test_dimension_of_the_solutions(coefficients: list[int], value: int, dimension: int | None) -> None:
    row = sp.Array(coefficients, (1, 1, len(coefficients)))
    assert counterexamples.dimension(row, sp.Integer(value)) == dimension


def test_dimension_counts_the_units_of_all_maps() -> None:
    assert counterexamples.dimension(sp.Array(range(1, 13), (2, 2, 3)), sp.Integer(1)) == 11
    assert counterexamples.dimension(sp.Array([0] * 12, (2, 2, 3)), sp.Integer(0)) == 12


def test_equation_11_misses_solutions_where_the_score_is_zero() -> None:
    coefficients, solution, reached = counterexamples.missed_by_equation_11()
    c, alpha = fractions(coefficients), fractions(solution)
    assert c == [3, 6]
    assert alpha == [2, -1]
    assert c[0] * alpha[0] + c[1] * alpha[1] == 3 * 2 - 6 * 1 == 0
    assert fractions(reached) == [0, 0] != alpha


def test_equation_11_reaches_every_solution_where_the_score_is_not_zero() -> None:
    difference = counterexamples.reached_by_equation_11()
    assert difference.shape == (1, 1, 3)
    assert set(sp.flatten(difference)) == {0}
    # C = (3, 6), Y = 5 and the solution (3, -2/3): betas equal to it have C * beta = 5, and are given back.
    c, y, solution = (3, 6), 5, (Fraction(3), Fraction(-2, 3))
    total = c[0] * solution[0] + c[1] * solution[1]
    assert total == y
    assert tuple(beta * y / total for beta in solution) == solution


def test_alpha_x_by_hand() -> None:
    found = counterexamples.alpha_x()
    x = sp.Symbol("x", nonzero=True)
    alpha = sp.Function("alpha")(x)
    assert found.true == x  # x * x = x^2
    assert found.treated_as_constant == 2 * x
    for value in (Fraction(3), Fraction(-7, 2)):
        assert value * value == value**2
        assert 2 * value * value != value**2  # what they would have concluded
    assert sp.expand(found.product_rule.lhs - (alpha.diff(x) * x + alpha)) == 0
    assert found.product_rule.rhs == 2 * x


def test_every_solution_of_the_product_rule_is_x_plus_c_over_x() -> None:
    found = counterexamples.alpha_x()
    x, constant = sp.Symbol("x", nonzero=True), sp.Symbol("C1")
    assert sp.expand(found.general - (x + constant / x)) == 0
    assert found.general.subs(constant, 0) == found.true
    # By hand at x = 2, C = 3: alpha = 7/2, alpha' = 1 - 3/4, and alpha' x + alpha = 1/2 + 7/2 = 4 = 2 x.
    value, slope = Fraction(2) + Fraction(3, 2), 1 - Fraction(3, 4)
    assert slope * 2 + value == 2 * 2
    assert found.general.subs({x: 2, constant: 3}) == sp.Rational(7, 2)


def test_a_linear_function_added_by_hand() -> None:
    """Y = A^2: Y'' = 2, Y''' = 0, alpha = 2/4; eq. 6 asks for alpha Y' A = A^2, and with A more for A^2 + A + 1."""
    found = counterexamples.linear_added()
    unit = sp.Symbol("A^1_11", real=True)
    assert found.scores == (unit**2, unit**2 + unit + 1)
    assert found.alphas == (sp.Rational(1, 2), sp.Rational(1, 2))
    for value in (Fraction(1), Fraction(5, 3), Fraction(-2)):
        first = value**2 - Fraction(1, 2) * (2 * value) * value
        second = (value**2 + value + 1) - Fraction(1, 2) * (2 * value + 1) * value
        assert first == 0
        assert second == value / 2 + 1
        exact = sp.Rational(value.numerator, value.denominator)
        assert fractions([residual.subs(unit, exact) for residual in found.residuals]) == [first, second]
    assert found.residuals == (0, unit / 2 + 1)


def test_a_linear_function_added_to_any_score() -> None:
    """With lambda_u the slopes: left minus right of eq. 6 changes by sum lambda_u A_u + C - sum alpha_u lambda_u s_k."""
    eighth, sixth = counterexamples.linear_part_in_general()
    assert eighth == 0
    names = ("1_11", "1_12", "2_11", "2_12")
    units, alphas, slopes = ([sp.Symbol(f"{kind}^{name}", real=True) for name in names] for kind in ("A", "alpha", "lambda"))
    constant = sp.Symbol("C", real=True)
    sums = [units[0] + units[1]] * 2 + [units[2] + units[3]] * 2
    expected = constant + sum(
        slope * (unit - alpha * s) for slope, unit, alpha, s in zip(slopes, units, alphas, sums, strict=True)
    )
    assert sp.expand(sixth - expected) == 0
    assert len(sp.solve(sixth, constant)) == 1  # so that alphas that solved eq. 6 solve it no more, but for one C


def test_other_rates_by_hand() -> None:
    """g = s = 1: 1 / (2 + lam)."""
    assert fractions(counterexamples.other_rates()) == [Fraction(1, 2 + 1), Fraction(1, 2 + 2)]


def test_equation_9_does_not_solve_equation_6_by_hand() -> None:
    """S = A at A = 1: alpha = 1 / (2 + 1), Y = e, and alpha Y' A = e / 3."""
    left, right = counterexamples.unsolved_by_equation_9()
    assert left == sp.E
    assert right == sp.E / 3
    assert right != left


def test_an_arithmetic_mean_of_ratios_makes_both_methods_the_better_one() -> None:
    first, second = ((Fraction(1, 2), Fraction(1, 4)), (Fraction(1, 4), Fraction(1, 2)))
    forward = (first[0] / second[0] + first[1] / second[1]) / 2
    backward = (second[0] / first[0] + second[1] / first[1]) / 2
    assert forward == backward == (2 + Fraction(1, 2)) / 2 == Fraction(5, 4)
    assert fractions(counterexamples.arithmetic_mean_of_ratios()) == [forward, backward]
    assert (first[0] / second[0]) * (first[1] / second[1]) == 1  # the square of eq. 16


S, G, TOTAL = counterexamples.LOGIT, counterexamples.GRADIENT, counterexamples.TOTAL


def by_hand(second: Expr, third: Expr) -> Expr:
    """Eq. 8 with Y'' = f'' g^2 and Y''' = f''' g^3."""
    return second * G**2 / (2 * second * G**2 + TOTAL * third * G**3)


def test_which_function_gives_which_alphas() -> None:
    """f'' and f''' of each, by hand."""
    n, c, lam = sp.symbols("n c lambda", positive=True)
    p = 1 / (1 + sp.exp(-S))  # the derivative of softplus
    derivatives = {
        S**2: (2, 0),
        S**2 / 2 + c * S: (1, 0),
        S**n: (n * (n - 1) * S ** (n - 2), n * (n - 1) * (n - 2) * S ** (n - 3)),
        sp.exp(S): (sp.exp(S), sp.exp(S)),
        sp.exp(lam * S): (lam**2 * sp.exp(lam * S), lam**3 * sp.exp(lam * S)),
        sp.exp(lam * S) + c * S: (lam**2 * sp.exp(lam * S), lam**3 * sp.exp(lam * S)),
        sp.log(S): (-1 / S**2, 2 / S**3),
        sp.log(1 + sp.exp(S)): (p * (1 - p), p * (1 - p) * (1 - 2 * p)),
    }
    rows = counterexamples.alphas_of_functions()
    assert [function for function, _ in rows] == list(derivatives)
    point = {S: sp.Rational(3, 2), G: sp.Rational(-2, 5), TOTAL: 3, n: 5, c: 7, lam: sp.Rational(1, 3)}
    for function, alpha in rows:
        wanted = by_hand(*derivatives[function]).subs(point)
        assert abs(sp.N(alpha.subs(point) - wanted, 30)) < 1e-25, function
        assert abs(sp.N(counterexamples.alpha_of(function).subs(point) - wanted, 30)) < 1e-25, function
    assert [alpha for _, alpha in rows[:2]] == [sp.Rational(1, 2)] * 2  # exactly, whatever gradient and sum are
    assert all(alpha != sp.Rational(1, 2) for _, alpha in rows[2:])


def test_a_square_solves_equation_8_by_fractions() -> None:
    """S = 2 A_1 + 3 A_2 at (1, 1), Y = S^2 / 2 + S: Y'' = 4 and Y''' = 0, so alpha = 4 / 8; and the gradient is 6 * 2."""
    maps = derivation.feature_maps(1, 1, 2)
    a, b = sp.flatten(maps)
    logit = 2 * a + 3 * b
    for value in (logit**2, logit**2 / 2 + logit):
        assert derivation.equation_8(value, maps, (0, 0, 0)) == derivation.equation_8(value, maps, (0, 0, 1)) == sp.Rational(1, 2)
    assert (logit**2 / 2 + logit).diff(a).subs({a: 1, b: 1}) == (5 + 1) * 2
    assert derivation.equation_8(sp.exp(logit), maps, (0, 0, 0)).subs({a: 1, b: 1}) == sp.Rational(1, 2 + 2 * 2)


def test_the_weights_of_a_square_are_those_of_grad_cam_plus_where_it_rises_and_of_the_other_sign_where_it_falls() -> None:
    names = sp.symbols("g^1_11 g^2_11", positive=True), sp.symbols("g^1_12 g^2_12", negative=True)
    up, down = sp.Symbol("u", positive=True), sp.Symbol("u", negative=True)
    weights, plus = counterexamples.weights_of_square()
    assert plus == [g / 2 for g in names[0]]
    assert weights == [up * g / 2 for g in names[0]]
    assert counterexamples.weights_of_square(rising=False)[0] == [down * g / 2 for g in names[1]]


def test_only_quadratic_functions_and_exponentials_have_a_constant_rate() -> None:
    x, lam = sp.Symbol("x", real=True), sp.Symbol("lambda", positive=True)
    one, two, three = sp.symbols("C1 C2 C3")
    assert counterexamples.functions_of_rate(sp.Integer(0)) == one + two * x + three * x**2
    assert counterexamples.functions_of_rate(lam) == one + two * x + three * sp.exp(lam * x)
    assert counterexamples.rate_of(S**3) == 1 / S
    assert counterexamples.rate_of(5 * S**2 - 3 * S + 2) == 0


@pytest.mark.parametrize("relu", [True, False])
def test_constant_alphas_and_an_exponential_demand_that_1_is_0(relu: bool) -> None:
    """Divided by Y, eq. 6 says 1 = sum of a_k s_k; its derivative by any unit of map k says 0 = a_k."""
    asked = counterexamples.demand(constant=True, relu=relu)
    total = sp.Integer(0)
    for k in (1, 2):
        first, second = (sp.Symbol(f"alpha^{k}_1{j}", real=True) for j in (1, 2))
        rise, fall = sp.Symbol(f"g^{k}_11", positive=True), sp.Symbol(f"g^{k}_12", negative=True)
        slope = first * rise + (0 if relu else second * fall)
        assert [sp.expand(found - slope) for found in asked.derivatives()[2 * k - 2 : 2 * k]] == [0, 0]
        total += slope * sum(sp.symbols(f"A^{k}_11 A^{k}_12", real=True))
    assert sp.expand(asked.quotient - total) == 0
    zero = {alpha: 0 for alpha in asked.quotient.free_symbols if str(alpha).startswith("alpha")}
    assert asked.quotient.subs(zero) == 0  # and it has to be 1


def test_the_alphas_of_equation_13_demand_a_sum_of_1_and_every_activation_moves_it() -> None:
    asked = counterexamples.demand(constant=False)
    numbers = dict.fromkeys(sp.flatten(asked.maps), 1)  # sums 2 and 2
    rises = {sp.Symbol("g^1_11", positive=True): 1, sp.Symbol("g^2_11", positive=True): 1}  # t = 2 and 2
    assert asked.quotient.subs(numbers).subs(rises) == Fraction(2, 4) + Fraction(2, 4) == 1  # at a point, it can be
    slopes = [slope.subs(numbers).subs(rises) for slope in asked.derivatives()]
    assert slopes == [Fraction(2, 4**2)] * 4  # 2 g / (2 + t)^2: near it, it cannot
    rises[sp.Symbol("g^2_11", positive=True)] = 3  # t = 2 and 6
    assert asked.quotient.subs(numbers).subs(rises) == sp.Rational(2, 4) + sp.Rational(6, 8)
    assert not any(str(name) in ("g^1_12", "g^2_12") for name in asked.quotient.free_symbols)  # their ReLU is 0


def test_only_powers_meet_the_premises() -> None:
    found = counterexamples.only_powers()
    g_1, g_2, m, b = sp.symbols("g_1 g_2 m b", nonzero=True)
    x, constant = sp.Symbol("x", real=True), sp.Symbol("C1")
    for power, wanted in ((1, 0), (2, 2 * g_1 * g_2), (3, 6 * g_1 * g_2)):
        bent = found.second.replace(sp.Function("h"), lambda z, power=power: z**power).doit()
        at = bent.subs(dict(zip(sp.symbols("A_1 A_2", real=True), (1 / g_1, 0), strict=True)))  # where the logit is 1
        assert sp.expand(at - wanted) == 0
    assert found.functions == constant * (m * x + b) ** (1 / m)
    assert found.residual == 0


def test_a_square_of_pooled_maps_meets_the_premises_with_alphas_that_add_up_to_a_half() -> None:
    """Y = (2 s_1 + 3 s_2)^2 at s = (3, 1): Y = 81, Y' = 18 times 2 and 3; alphas (1/8, 3/8) and (1, -1/2)."""
    y, slopes, sums = 81, (36, 54), (3, 1)
    alphas = ((Fraction(1, 8), Fraction(3, 8)), (Fraction(1), Fraction(-1, 2)))
    assert sum(total * slope * sum(pair) for total, slope, pair in zip(sums, slopes, alphas, strict=True)) == y
    halves = ((Fraction(1, 2),) * 2,) * 2  # eq. 8's own: twice as much, since a map has two units
    assert sum(total * slope * sum(pair) for total, slope, pair in zip(sums, slopes, halves, strict=True)) == 2 * y


def test_what_holds_at_a_point_has_no_derivative() -> None:
    """alpha = (5/3, 0) in Y = A_1 + 2 A_2: A_1 + 2 A_2 - 5/3 (A_1 + A_2) is 0 at (1, 2), with slopes -2/3 and 1/3."""
    found = counterexamples.at_a_point()
    assert found.residual == 1 + 4 - Fraction(5, 3) * 3 == 0
    assert fractions(found.derivatives) == [1 - Fraction(5, 3), 2 - Fraction(5, 3)]
    assert found.everywhere == []  # alpha_1 + 2 alpha_2 would have to be 1 and 2


def test_a_zero_denominator_leaves_no_alpha() -> None:
    """Y = exp(-2 A) at 1: Y'' = 4 Y, and 2 Y'' + A Y''' = 8 Y - 8 Y."""
    second, factor = counterexamples.zero_denominator()
    assert second == 4 * sp.exp(-2)
    assert factor == 0


def test_the_softmax_score_is_no_piecewise_linear_logit() -> None:
    exact, formula = counterexamples.softmax_is_curved()
    assert (round(float(exact), 3), round(float(formula), 3)) == (0.637, 0.452)
