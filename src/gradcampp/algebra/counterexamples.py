"""Witnesses against the derivation of Grad-CAM++, small enough to check by hand (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from gradcampp.algebra import derivation
from gradcampp.algebra.derivation import Expr


@dataclass(frozen=True)
class Underdetermined:
    """Eq. 10 at one point of a layer, with solutions that differ (section 3.1.1)."""

    score: Expr  # Y as a function of the activations
    equation: Expr  # eq. 10 at the point, one linear equation
    coefficients: Expr  # C, (K, H, W)
    value: Expr  # Y at the point
    solutions: tuple[Expr, ...]  # two different solutions from eq. 11
    dimension: int | None  # of the space of solutions; None where there is none


def underdetermined() -> Underdetermined:
    """One map of two units A = (1, 2) with the score Y = A1 + 2 A2: 3 alpha1 + 6 alpha2 = 5."""
    maps = derivation.feature_maps(1, 1, 2)
    first, second = sp.flatten(maps)
    score, point = first + 2 * second, {first: 1, second: 2}
    c, value = derivation.coefficients(score, maps).subs(point), score.subs(point)
    equation = derivation.equation_10(c, derivation.constant_alphas(maps), value)
    solutions = tuple(derivation.equation_11(c, sp.Array([[betas]]), value) for betas in ([1, 0], [0, 1]))
    return Underdetermined(score, equation, c, value, solutions, dimension(c, value))


def dimension(coefficients: Expr, value: Expr) -> int | None:
    """Dimension of the space of alphas that solve eq. 10; None where there is none.

    One equation takes one dimension away, unless all coefficients are 0: then everything solves it, or nothing.
    """
    row = sp.Matrix([sp.flatten(coefficients)])
    return int(row.cols - row.rank()) if row.rank() == row.row_join(sp.Matrix([[value]])).rank() else None


def missed_by_equation_11() -> tuple[Expr, Expr, Expr]:
    """A solution of eq. 10 that eq. 11 cannot reach: C = (3, 6) and Y = 0.

    Returns:
        The coefficients; the solution (2, -1); and what eq. 11 makes of any betas, always zeros.
    """
    coefficients, betas = sp.Array([[[3, 6]]]), sp.Array([[list(sp.symbols("beta_1 beta_2"))]])
    return coefficients, sp.Array([[[2, -1]]]), derivation.equation_11(coefficients, betas, sp.Integer(0))


def reached_by_equation_11() -> Expr:
    """Eq. 11 with the betas set to a solution of eq. 10 itself, minus that solution: zeros wherever Y is not 0."""
    c, (first, second), value = sp.symbols("C_1:4", nonzero=True), sp.symbols("alpha_1:3"), sp.Symbol("Y", nonzero=True)
    solution = sp.Array([[[first, second, (value - c[0] * first - c[1] * second) / c[2]]]])
    return (derivation.equation_11(sp.Array([[c]]), solution, value) - solution).applyfunc(sp.simplify)


@dataclass(frozen=True)
class AlphaX:
    """The equation alpha * x = x**2, for x not 0 (section 3.1.2)."""

    true: Expr  # its solution
    treated_as_constant: Expr  # what differentiating both sides gives if alpha is held constant
    product_rule: Expr  # what differentiating really gives, an equation in alpha and its derivative
    general: Expr  # every solution of that, with a constant of integration; the true one among them


def alpha_x() -> AlphaX:
    """Differentiating an equation in order to isolate a factor that depends on the variable."""
    x, constant = sp.Symbol("x", nonzero=True), sp.Symbol("alpha")
    alpha = sp.Function("alpha")(x)
    ruled = sp.Eq((alpha * x).diff(x), (x**2).diff(x), evaluate=False)
    return AlphaX(
        true=sp.solve(constant * x - x**2, constant)[0],
        treated_as_constant=sp.solve((constant * x - x**2).diff(x), constant)[0],
        product_rule=ruled,
        general=sp.expand(sp.dsolve(sp.Eq(ruled.lhs, ruled.rhs), alpha).rhs),
    )


@dataclass(frozen=True)
class LinearAdded:
    """Two scores that differ by a linear function and a constant (section 3.1.4)."""

    scores: tuple[Expr, ...]  # both, as functions of the activations
    alphas: tuple[Expr, ...]  # eq. 8 for both
    residuals: tuple[Expr, ...]  # left minus right side of eq. 6 for both, with these alphas


def linear_added() -> LinearAdded:
    """One unit A with Y = A**2, and Y = A**2 + A + 1: alpha is 1/2 for both, and solves eq. 6 for the first only."""
    maps = derivation.feature_maps(1, 1, 1)
    unit = maps[0, 0, 0]
    scores = (unit**2, unit**2 + unit + 1)
    alphas = tuple(sp.simplify(derivation.equation_8(score, maps, (0, 0, 0))) for score in scores)
    given = zip(scores, alphas, strict=True)
    return LinearAdded(scores, alphas, tuple(_residual(score, sp.Array([[[alpha]]]), maps) for score, alpha in given))


def _residual(score: Expr, alphas: Expr, maps: Expr) -> Expr:
    """Left minus right side of eq. 6 without its ReLU."""
    equation = derivation.equation_6(score, alphas, maps, relu=False)
    return sp.expand((equation.lhs - equation.rhs).doit())


def linear_part_in_general() -> tuple[Expr, Expr]:
    """The change of eqs 8 and 6 where any score gets a linear function and a constant C added, in two maps of two units.

    Returns:
        The change of eq. 8 at the first unit, which is 0; and the change of left minus right side of eq. 6, which
        for given alphas is 0 for exactly one C.
    """
    maps, slopes = derivation.feature_maps(2, 1, 2), derivation.feature_maps(2, 1, 2, name="lambda")
    value, alphas = derivation.score(maps), derivation.constant_alphas(maps)
    moved = value + derivation.equation_10(slopes, maps, sp.Integer(0)).lhs + sp.Symbol("C", real=True)
    before, after = (derivation.equation_8(score, maps, (0, 0, 0)) for score in (value, moved))
    return sp.simplify(after - before), sp.expand(_residual(moved, alphas, maps) - _residual(value, alphas, maps))


def other_rates(rates: tuple[int, ...] = (1, 2)) -> list[Expr]:
    """Alphas of one unit with gradient 1 and sum 1, for different lam in eq. 12: 1/3 and 1/4 (section 3.1.5)."""
    return [derivation.equation_12(sp.Integer(1), sp.Integer(1), sp.Integer(rate)) for rate in rates]


def unsolved_by_equation_9() -> tuple[Expr, Expr]:
    """Both sides of eq. 6 for one unit A = 1 with logit S = A, score exp(S) and the alpha of eq. 9: e, and e / 3."""
    maps = derivation.feature_maps(1, 1, 1)
    unit = maps[0, 0, 0]
    alphas = sp.Array([[[derivation.equation_9(sp.Integer(1), unit)]]])
    equation = derivation.equation_6(sp.exp(unit), alphas, maps, relu=False)
    return equation.lhs.subs(unit, 1), equation.rhs.subs(unit, 1)


def arithmetic_mean_of_ratios() -> tuple[Expr, Expr]:
    """Two images on which either method scores 1/2 once and 1/4 once: both beat the other by 5/4 (section 4)."""
    half, quarter = sp.Rational(1, 2), sp.Rational(1, 4)
    (a, b), (c, d) = (half, quarter), (quarter, half)  # scores of the two methods
    return (a / c + b / d) / 2, (c / a + d / b) / 2
