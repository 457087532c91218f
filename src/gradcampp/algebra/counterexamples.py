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


def other_rates() -> list[Expr]:
    """Alphas of one unit with gradient 1 and sum 1, for lam = 1 and 2 in eq. 12: 1/3 and 1/4 (section 3.1.5)."""
    return [derivation.equation_12(sp.Integer(1), sp.Integer(1), sp.Integer(rate)) for rate in (1, 2)]


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


LOGIT, GRADIENT, TOTAL = sp.symbols("S g s", real=True)


def alpha_of(function: Expr) -> Expr:
    """Alpha of eq. 8 for a score that is a function of the logit, where the logit is piecewise linear.

    Args:
        function: an expression in ``LOGIT``, whose second derivative is not 0.

    Returns:
        An expression in ``LOGIT``, the unit's ``GRADIENT`` of it, and the sum ``TOTAL`` of the unit's map.
    """
    maps = derivation.feature_maps(1, 1, 2)
    (unit, other), logit = sp.flatten(maps), derivation.score(maps, "S")
    eighth = derivation.equation_8(function.subs(LOGIT, logit), maps, (0, 0, 0)).doit()
    flat = derivation.without_curvature(eighth).subs(logit.diff(unit), GRADIENT).subs(logit, LOGIT)
    return sp.simplify(flat.subs(unit, TOTAL - other))


def alphas_of_functions() -> list[tuple[Expr, Expr]]:
    """Functions of the logit, and what eq. 8 makes of each: 1 / (2 + rate * s * g), with rate = f''' / f''.

    The rate is 0 for every quadratic function: then alpha is 1/2, and Grad-CAM++ is Grad-CAM+.
    """
    n, slope, lam = sp.symbols("n c lambda", positive=True)
    functions = (
        LOGIT**2,
        LOGIT**2 / 2 + slope * LOGIT,
        LOGIT**n,
        sp.exp(LOGIT),
        sp.exp(lam * LOGIT),
        sp.exp(lam * LOGIT) + slope * LOGIT,
        sp.log(LOGIT),
        sp.log(1 + sp.exp(LOGIT)),
    )
    return [(function, 1 / (2 + rate_of(function) * TOTAL * GRADIENT)) for function in functions]


def rate_of(function: Expr) -> Expr:
    """The factor of s * g in the denominator of :func:`alpha_of`."""
    return sp.simplify((1 / alpha_of(function) - 2) / (TOTAL * GRADIENT))


def functions_of_rate(rate: Expr) -> Expr:
    """Every function of x whose rate is this constant, with three constants of integration: f''' = rate * f''."""
    x, function = sp.Symbol("x", real=True), sp.Function("f")
    return sp.dsolve(function(x).diff(x, 3) - rate * function(x).diff(x, 2), function(x)).rhs


def weights_of_square(rising: bool = True) -> tuple[list[Expr], list[Expr]]:
    """Eq. 4 for Y = S**2 / 2 + c * S and its alphas, where it rises (S + c > 0) or falls, with gradients of both signs.

    Returns:
        The weights; and half the sums of the positive gradients of S, which are Grad-CAM+ times Z / 2.
    """
    maps, slopes = derivation.feature_maps(2, 1, 2), _signed_slopes()
    growth = sp.Symbol("u", positive=True) if rising else sp.Symbol("u", negative=True)  # S + c, the derivative of Y by S
    alphas = maps.applyfunc(lambda _: alpha_of(LOGIT**2 / 2 + sp.Symbol("c") * LOGIT))
    return derivation.weights(alphas, growth * slopes), derivation.weights(alphas, slopes)


def _signed_slopes() -> Expr:
    """The gradients of a piecewise linear logit in two maps of two units, the first of each map positive, the second negative."""
    signs = ({"positive": True}, {"negative": True})
    return sp.Array([sp.Symbol(f"g^{k}_1{j}", **signs[j - 1]) for k in (1, 2) for j in (1, 2)], (2, 1, 2))


@dataclass(frozen=True)
class Demand:
    """Eq. 6 on an open set, for a piecewise linear logit and Y = exp(S), divided by Y: 1 = ``quotient``."""

    maps: Expr
    quotient: Expr  # of the right side of eq. 6 and Y, (2, 1, 2) units

    def derivatives(self) -> list[Expr]:
        """The quotient's derivative with respect to each unit, which has to be 0, since 1 does not move."""
        return [sp.simplify(self.quotient.diff(unit)) for unit in sp.flatten(self.maps)]


def demand(constant: bool, relu: bool = True) -> Demand:
    """Eq. 6 where its premises hold, with constant alphas or with those of eq. 13."""
    maps, slopes = derivation.feature_maps(2, 1, 2), _signed_slopes()
    logit = derivation.equation_10(slopes, maps, sp.Integer(0)).lhs + sp.Symbol("S_0", real=True)
    sums = derivation.map_sums(maps)
    alphas = derivation.constant_alphas(maps)
    if not constant:
        alphas = sp.Array([[derivation.equation_13(slope, sums[k]) for slope in sp.flatten(slopes[k])] for k in (0, 1)])
        alphas = alphas.reshape(2, 1, 2)
    sixth = derivation.equation_6(sp.exp(logit), alphas, maps, relu)
    return Demand(maps, sp.expand(sixth.rhs / sixth.lhs))


@dataclass(frozen=True)
class OnlyPowers:
    """Eq. 6 on an open set for constant alphas and a piecewise linear logit, where Y = f(S) is any function.

    Divided by f'(S), it says h(S) = sum of a_k s_k, where h = f / f' and a_k is the sum of alpha * gradient over map k.
    Differentiated by two units it says h''(S) times their gradients = 0, so that h is linear in S, or S does not move.
    """

    second: Expr  # derivative of h(S) by two units, where S has gradients g_1 and g_2 at them
    functions: Expr  # every f with f / f' = m S + b, for m not 0: powers
    residual: Expr  # left minus right side of eq. 6 for such a power, where gradients are equal in each map; 0


def only_powers() -> OnlyPowers:
    """Which scores meet the premises: powers of sum g_k s_k, with alphas that sum to one over the exponent in each map."""
    x, one, two = sp.symbols("x A_1 A_2", real=True)
    first, second, rate, shift = sp.symbols("g_1 g_2 m b", nonzero=True)
    moved = sp.Function("h")(first * one + second * two).diff(one, two).doit()
    function = sp.Function("f")
    powers = sp.dsolve(function(x) - (rate * x + shift) * function(x).diff(x), function(x)).rhs.rewrite(sp.Pow)
    maps, exponent = derivation.feature_maps(2, 1, 2), sp.Symbol("n", positive=True)
    gradients = sp.symbols("g^1 g^2", positive=True)
    score = sum(slope * total for slope, total in zip(gradients, derivation.map_sums(maps), strict=True)) ** exponent
    free = sp.symbols("beta_1 beta_2", real=True)  # of each map's two alphas the first, whatever it is
    alphas = sp.Array([[[beta, 1 / exponent - beta]] for beta in free])
    return OnlyPowers(moved, powers, sp.simplify(_residual(score, alphas, maps)))


@dataclass(frozen=True)
class AtAPoint:
    """The solution (5/3, 0) of section 3.1.1, held constant: eq. 6 holds at the point, and its derivative does not."""

    residual: Expr  # left minus right side of eq. 6 at the point; 0
    derivatives: tuple[Expr, ...]  # of left minus right side, by each unit, at the point
    everywhere: list[Expr]  # constant alphas for which eq. 6 holds at every point: none


def at_a_point() -> AtAPoint:
    """Two readings of eq. 6 in one layer: numbers that solve it at a point, and functions that it takes to differentiate it."""
    witness = underdetermined()
    maps = derivation.feature_maps(1, 1, 2)
    units, unknown = sp.flatten(maps), derivation.constant_alphas(maps)
    point = dict(zip(units, (1, 2), strict=True))
    gap = _residual(witness.score, witness.solutions[0], maps)
    identity = sp.Poly(_residual(witness.score, unknown, maps), *units)
    return AtAPoint(
        gap.subs(point),
        tuple(gap.diff(unit).subs(point) for unit in units),
        sp.solve(identity.coeffs(), sp.flatten(unknown), dict=True),
    )


def zero_denominator() -> tuple[Expr, Expr]:
    """One unit A = 1 with S = -2 A and Y = exp(S): the second derivative of Y, and the factor of alpha that is to equal it; 0."""
    maps = derivation.feature_maps(1, 1, 1)
    unit = maps[0, 0, 0]
    value = sp.exp(-2 * unit)
    alpha = derivation.constant_alphas(maps)
    again = derivation.differentiated(derivation.equation_7(value, alpha, maps, (0, 0, 0)), unit)
    return again.lhs.subs(unit, 1), sp.simplify(again.rhs.diff(alpha[0, 0, 0]).subs(unit, 1))


def softmax_is_curved() -> tuple[Expr, Expr]:
    """One unit A = 1 with the logits A and -A of two classes, the first one's softmax score p in the place of S.

    Returns:
        Alpha by eq. 8 for Y = exp(p), some 0.637; and by eq. 13 with the gradient of p, some 0.452.
    """
    maps = derivation.feature_maps(1, 1, 1)
    unit = maps[0, 0, 0]
    p = sp.exp(unit) / (sp.exp(unit) + sp.exp(-unit))
    exact = derivation.equation_8(sp.exp(p), maps, (0, 0, 0))
    return sp.simplify(exact.subs(unit, 1)), sp.simplify(derivation.equation_13(p.diff(unit), unit).subs(unit, 1))
