"""The derivation of Grad-CAM++ in SymPy: eqs 4-9, 12 and 13, and Appendix A put right (eqs 18, 19).

A layer of explicit size is an array of symbols, and the score an undefined function of all of them, so
that what holds here holds for every smooth score. :func:`derivation` goes the way of the Grad-CAM++ authors
and names each silent assumption where it enters, with the terms that it loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import sympy as sp

Expr = Any  # SymPy has no types
Unit = tuple[int, int, int]  # channel, row, column, counted from 0

ASSUMPTIONS = {
    "posed": "The score is the weighted sum of the pooled feature maps (eq. 5). This is demanded, not derived.",
    "no ReLU": "The ReLU of eq. 4 is left out of eq. 6 before it is differentiated, and put back afterwards.",
    "open set": "Eq. 6 holds for all activations near a picture: what holds at one point only cannot be differentiated.",
    "constant alphas": "The alphas do not change with the activations, although the result says how they do.",
    "own channel": "A unit acts on the gradients of its own channel only; the other channels' terms are lost.",
    "own unit": "Mixed second derivatives of the score, with respect to two units, vanish.",
    "denominator": "The factor of alpha, twice the second derivative plus the sum times the third, is not zero.",
    "exponential": "The score is the exponential of the logit, Y = exp(S).",
    "piecewise linear": "The logit is piecewise linear in the activations: its second and third derivatives vanish.",
    "gradient": "The derivative of the logit is not zero.",
    "any rate": "Y = exp(λ S) is as good a choice as Y = exp(S), for every positive λ.",
    "post-softmax": "The softmax score p may take the place of the logit S, as if it too were piecewise linear.",
}


@dataclass(frozen=True)
class Step:
    """A step of the derivation, whose assumption turns one expression into another."""

    equation: int  # the number of the equation that the step leads to, or whose reading it fixes
    assumption: str  # a key of ASSUMPTIONS
    left: Expr  # what both expressions stand for
    before: Expr  # the exact expression
    after: Expr  # what the authors go on with

    @property
    def lost(self) -> Expr:
        """The terms that the assumption loses; 0 where it loses nothing."""
        return sp.simplify((self.before - self.after).doit())


def feature_maps(channels: int, height: int, width: int, name: str = "A") -> Expr:
    """Activations as real symbols.

    Returns:
        Array (K, H, W); the unit in row i and column j of map k is called ``A^k_ij``, counted from 1.
    """
    shape = (channels, height, width)
    places = product(*(range(1, size + 1) for size in shape))
    return sp.Array([sp.Symbol(f"{name}^{k}_{i}{j}", real=True) for k, i, j in places], shape)


def score(maps: Expr, name: str = "Y") -> Expr:
    """A score that depends on all units of the layer in a way that nothing is known about."""
    return sp.Function(name, real=True)(*sp.flatten(maps))


def constant_alphas(maps: Expr) -> Expr:
    """An alpha for each unit, as a symbol, (K, H, W)."""
    return feature_maps(maps.shape[0], maps.shape[1], maps.shape[2], "alpha")


def varying_alphas(maps: Expr) -> Expr:
    """An alpha for each unit, as an undefined function of all activations, (K, H, W)."""
    return constant_alphas(maps).applyfunc(lambda symbol: sp.Function(symbol.name, real=True)(*sp.flatten(maps)))


def gradients(value: Expr, maps: Expr, relu: bool = False) -> Expr:
    """The derivative of a score with respect to every unit, or the ReLU of it, (K, H, W)."""
    return maps.applyfunc(lambda unit: sp.Max(value.diff(unit), 0) if relu else value.diff(unit))


def map_sums(maps: Expr) -> list[Expr]:
    """The sum s_k of each feature map."""
    return [sum(sp.flatten(maps[k])) for k in range(maps.shape[0])]


def weights(alphas: Expr, slopes: Expr) -> list[Expr]:
    """Channel weights of Grad-CAM++ from alphas and gradients, both (K, H, W); eq. 4."""
    positive = slopes.applyfunc(lambda slope: sp.Max(slope, 0))
    return [_sum_of_products(alphas[k], positive[k]) for k in range(slopes.shape[0])]


def equation_5(value: Expr, channel_weights: Sequence[Expr], maps: Expr) -> Expr:
    """The demand that weights and pooled feature maps reproduce the score."""
    return _equation(value, _sum_of_products(channel_weights, map_sums(maps)))


def equation_6(value: Expr, alphas: Expr, maps: Expr, relu: bool = True) -> Expr:
    """The equation that the alphas are to solve, with or without its ReLU."""
    return _equation(value, _sum_of_products(alphas, coefficients(value, maps, relu)))


def differentiated(equation: Expr, unit: Expr) -> Expr:
    """Both sides of an equation differentiated with respect to an activation."""
    return _equation(equation.lhs.diff(unit), sp.expand(equation.rhs.diff(unit)))


def equation_7(value: Expr, alphas: Expr, maps: Expr, unit: Unit) -> Expr:
    """The Grad-CAM++ authors' expression for the derivative of eq. 6, with the indices put right."""
    own, curvature = _derivative_terms(value, alphas, maps, unit)
    return _equation(value.diff(maps[unit]), own + curvature[unit])


def equation_8(value: Expr, maps: Expr, unit: Unit) -> Expr:
    """Their solution: alpha from the second and third derivatives of the score."""
    second, third = (value.diff(maps[unit], order) for order in (2, 3))
    return second / (2 * second + map_sums(maps)[unit[0]] * third)


def equation_9(gradient: Expr, total: Expr) -> Expr:
    """Alpha as published, from a unit's gradient and the sum of its feature map."""
    return gradient**2 / (2 * gradient**2 + total * gradient**3)


def equation_10(coefficients: Expr, alphas: Expr, value: Expr) -> Expr:
    """Eq. 6 as the one linear equation in the alphas that it is."""
    return _equation(_sum_of_products(coefficients, alphas), value)


def coefficients(value: Expr, maps: Expr, relu: bool = True) -> Expr:
    """The coefficients C of eq. 10, (K, H, W)."""
    return sp.Array([slopes * total for slopes, total in zip(gradients(value, maps, relu), map_sums(maps), strict=True)])


def equation_11(coefficients: Expr, betas: Expr, value: Expr) -> Expr:
    """A solution of eq. 10 for each choice of betas.

    Raises:
        ValueError: if the sum of coefficients times betas is zero.
    """
    total = equation_10(coefficients, betas, value).lhs
    if total.is_zero:
        raise ValueError("betas: expected a sum of C * beta that is not 0")
    return betas.applyfunc(lambda beta: beta * value / total)


def equation_12(gradient: Expr, total: Expr, lam: Expr) -> Expr:
    """Alpha where the score is taken for exp(lam S)."""
    return gradient**2 / (2 * gradient**2 + lam * total * gradient**3)


def equation_13(gradient: Expr, total: Expr) -> Expr:
    """Eq. 9 divided by the square of the gradient."""
    return 1 / (2 + total * gradient)


def equation_18(value: Expr, alphas: Expr, maps: Expr, unit: Unit) -> Expr:
    """The derivative of eq. 6 (without ReLU) for constant alphas."""
    own, curvature = _derivative_terms(value, alphas, maps, unit)
    return _equation(value.diff(maps[unit]), own + sum(curvature.values()))


def equation_19(value: Expr, alphas: Expr, maps: Expr, unit: Unit) -> Expr:
    """The derivative of eq. 6 (without ReLU) for alphas that depend on the activations."""
    constant = equation_18(value, alphas, maps, unit)
    return _equation(constant.lhs, constant.rhs + equation_6(value, alphas.diff(maps[unit]), maps, relu=False).rhs)


def missing_terms(value: Expr, alphas: Expr, maps: Expr, unit: Unit) -> dict[str, Expr]:
    """The terms that eq. 18 has and eq. 7 has not.

    Returns:
        The terms of the other channels (``own channel``) and the mixed derivatives in the unit's own map
        (``own unit``), by the assumption that loses them.
    """
    _, curvature = _derivative_terms(value, alphas, maps, unit)
    own_channel = sum(term for other, term in curvature.items() if other[0] != unit[0])
    return {"own channel": own_channel, "own unit": sum(curvature.values()) - own_channel - curvature[unit]}


def _derivative_terms(value: Expr, alphas: Expr, maps: Expr, unit: Unit) -> tuple[Expr, dict[tuple[int, ...], Expr]]:
    """Eq. 6 differentiated for constant alphas: the term of the unit's own map, and by unit those with a second derivative."""
    k, totals, slope = unit[0], map_sums(maps), value.diff(maps[unit])
    own = _sum_of_products(alphas[k], gradients(value, maps)[k])
    return own, {other: totals[other[0]] * alphas[other] * slope.diff(maps[other]) for other in product(*map(range, maps.shape))}


def derivation(channels: int = 2, height: int = 1, width: int = 2) -> list[Step]:
    """From eq. 5 to eqs 9, 13 and 12 as the Grad-CAM++ authors went, for the first unit of a small layer.

    Eq. 6 differentiated is first eq. 19, where it holds near the point (else its remainder rho, zero at the point, adds its own
    derivative), and then eq. 18, where the alphas are constants. Both are ways to read eq. 6, and stand in its row.
    """
    maps, unit = feature_maps(channels, height, width), (0, 0, 0)
    value, logit, softmax, at, total = score(maps), score(maps, "S"), score(maps, "p"), maps[0, 0, 0], map_sums(maps)[0]
    moving, fixed = varying_alphas(maps), constant_alphas(maps)
    posed = equation_5(value, weights(moving, gradients(value, maps)), maps)
    with_relu, without_relu = (equation_6(value, moving, maps, relu) for relu in (True, False))
    product_rule, remainder = differentiated(without_relu, at).rhs, score(maps, "rho")
    frozen, seventh = equation_18(value, moving, maps, unit), equation_7(value, moving, maps, unit)
    own_channel = frozen.rhs - missing_terms(value, moving, maps, unit)["own channel"]
    again = differentiated(equation_7(value, fixed, maps, unit), at)
    unmixed = without_mixed_derivatives(again.rhs)
    lam = sp.Symbol("lambda", positive=True)
    g, curved = logit.diff(at), _exponential(logit, at, total)
    faster = without_curvature(equation_8(sp.exp(lam * logit), maps, unit).doit())
    return [
        Step(6, "posed", value, posed.rhs, with_relu.rhs),
        Step(6, "no ReLU", value, with_relu.rhs, without_relu.rhs),
        Step(6, "open set", value.diff(at), product_rule + remainder.diff(at), product_rule),
        Step(6, "constant alphas", value.diff(at), product_rule, frozen.rhs),
        Step(7, "own channel", value.diff(at), frozen.rhs, own_channel),
        Step(7, "own unit", value.diff(at), own_channel, seventh.rhs),
        Step(8, "own unit", again.lhs, again.rhs, unmixed),
        Step(8, "denominator", fixed[unit], sp.solve(sp.Eq(again.lhs, unmixed), fixed[unit])[0], equation_8(value, maps, unit)),
        Step(9, "exponential", fixed[unit], equation_8(sp.exp(logit), maps, unit), curved),
        Step(9, "piecewise linear", fixed[unit], curved, equation_9(g, total)),
        Step(13, "gradient", fixed[unit], equation_9(g, total), equation_13(g, total)),
        Step(12, "any rate", fixed[unit], faster, equation_12(g, total, lam)),
        Step(9, "post-softmax", fixed[unit], _exponential(softmax, at, total), equation_9(softmax.diff(at), total)),
    ]


def _exponential(logit: Expr, unit: Expr, total: Expr) -> Expr:
    """Eq. 8 for Y = exp(S) and any S, by the chain rule."""
    first, second, third = (logit.diff(unit, order) for order in (1, 2, 3))
    return (first**2 + second) / (2 * (first**2 + second) + total * (first**3 + 3 * first * second + third))


def without_mixed_derivatives(expression: Expr) -> Expr:
    """An expression in which derivatives with respect to more than one activation are 0."""
    return expression.replace(lambda part: isinstance(part, sp.Derivative) and len(part.variable_count) > 1, lambda _: 0)


def without_curvature(expression: Expr) -> Expr:
    """An expression in which all derivatives of second and higher order are 0."""
    return expression.replace(lambda part: isinstance(part, sp.Derivative) and part.derivative_count > 1, lambda _: 0)


def appendix_of_any_size(varying: bool) -> Expr:
    """Eq. 18, or with varying alphas eq. 19, for K maps of H x W units with symbols for K, H and W.

    A partial derivative moves one activation x = A^k_ij and holds all others. So the gradients Y'(l, a, b, x), the
    sums s(l, x) and the alphas are undefined functions of x, and the only fact about the sums is that s(l, x) moves as x
    where l = k, and else not at all. That fact is computed from the sums of the feature maps.

    Returns:
        The derivative of the right side of eq. 6 as SymPy finds it, equal to the right side as the paper has it.
    """
    channels, height, width, k, i, j = sp.symbols("K H W k i j", integer=True, positive=True)
    other, a, b = unit = sp.symbols("l a b", integer=True, positive=True)
    x = sp.Symbol("x", positive=True)
    slope, total = sp.Function("Y'")(*unit, x), sp.Function("s")(other, x)
    alpha = sp.Function("alpha")(*unit, x) if varying else sp.IndexedBase("alpha")[unit]
    every, *of_map = (other, 1, channels), (a, 1, height), (b, 1, width)
    weight, activations = sp.Sum(alpha * slope, *of_map), sp.IndexedBase("A")
    moved = sp.Sum(activations[unit], *of_map).diff(activations[k, i, j]).doit()  # a map's sum, by one of all activations
    moved = moved.replace(lambda part: isinstance(part, sp.Piecewise), lambda part: part.args[0][0])  # the unit is in its map
    derived = sp.Sum(weight * total, every).diff(x).replace(total.diff(x), moved)
    stated = weight.subs(other, k) + sp.Sum(total * sp.Sum(alpha * slope.diff(x), *of_map), every)
    if varying:
        stated += sp.Sum(total * sp.Sum(alpha.diff(x) * slope, *of_map), every)
    return _equation(_settled(derived), _settled(stated))


def _settled(expression: Expr) -> Expr:
    """Sums of sums split into their terms, and sums over a Kronecker delta carried out."""
    split = expression.replace(
        lambda part: isinstance(part, sp.Sum) and isinstance(sp.expand(part.function), sp.Add),
        lambda part: sp.Add(*(sp.Sum(term, *part.limits) for term in sp.expand(part.function).args)),
    )
    return split.replace(
        lambda part: isinstance(part, sp.Sum) and part.function.has(sp.KroneckerDelta),
        lambda part: part.doit(deep=False).args[0][0],
    )


def _sum_of_products(first: Expr, second: Expr) -> Expr:
    return sum(one * other for one, other in zip(sp.flatten(first), sp.flatten(second), strict=True))


def _equation(left: Expr, right: Expr) -> Expr:
    return sp.Eq(left, right, evaluate=False)
