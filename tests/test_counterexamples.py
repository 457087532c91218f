"""Each witness against the derivation, checked by hand with fractions and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import sympy as sp

from gradcampp.algebra import counterexamples

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
    assert fractions(counterexamples.other_rates((1, 5, 8))) == [Fraction(1, 3), Fraction(1, 7), Fraction(1, 10)]


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
