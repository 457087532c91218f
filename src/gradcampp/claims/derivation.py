"""The claims of section 3.1 and Appendix A: the derivation and what is wrong with it."""

from __future__ import annotations

import math
from itertools import starmap
from typing import Any

import sympy as sp
import torch
from sympy.core.function import AppliedUndef
from torch import Tensor

from gradcampp import cam
from gradcampp.algebra import autograd, counterexamples, derivation
from gradcampp.algebra.theorems import random_layer, relative
from gradcampp.cam import min_max
from gradcampp.claims.claim import DERIVATION, ROUNDING, Finding, claim, sharpened, verdict


def _step(equation: int, assumption: str) -> derivation.Step:
    return next(step for step in derivation.derivation() if (step.equation, step.assumption) == (equation, assumption))


@claim("eq-5-6", section="2.2", equation=(5, 6), chapter=DERIVATION)
def eq_5_6() -> Finding:
    """Eq. 4 put into eq. 5 gives eq. 6."""
    lost = _step(6, "posed").lost
    return verdict(lost == 0, f"difference of both sides: {lost}")


@claim("eq-7", section="2.2", equation=7, chapter=DERIVATION, expected="sharpened")
def eq_7() -> Finding:
    """Eq. 6 differentiates to eq. 7 only if other channels and mixed derivatives are left out."""
    maps = derivation.feature_maps(2, 1, 2)
    value, alphas = derivation.score(maps), derivation.constant_alphas(maps)
    true = derivation.differentiated(derivation.equation_6(value, alphas, maps, relu=False), maps[0, 0, 0]).rhs
    missing = derivation.missing_terms(value, alphas, maps, (0, 0, 0))
    gap = sp.expand(true - derivation.equation_7(value, alphas, maps, (0, 0, 0)).rhs)
    explained = sp.expand(gap - sum(missing.values())) == 0
    one = derivation.feature_maps(1, 1, 1)
    lone = derivation.missing_terms(derivation.score(one), derivation.constant_alphas(one), one, (0, 0, 0))
    exact = derivation.without_mixed_derivatives(gap) == sum(lone.values()) == 0
    told = f"{len(sp.Add.make_args(gap))} terms are missing, all mixed second derivatives; a layer of one unit has none"
    return sharpened(gap != 0 and explained, told, more=exact)


@claim("eq-8", section="2.2", equation=8, chapter=DERIVATION, expected="sharpened")
def eq_8() -> Finding:
    """Differentiating once more and isolating alpha gives eq. 8."""
    lost, left = (step.lost for step in derivation.derivation() if step.equation == 8)
    told = (
        f"from eq. 7 it needs that mixed derivatives vanish again; lost: {len(sp.Add.make_args(lost))} term; then alpha is eq. 8"
    )
    return sharpened(left == 0, told, more=lost != 0)


@claim("eq-9", section="2.2", equation=9, chapter=DERIVATION, expected="sharpened")
def eq_9() -> Finding:
    """With Y = exp(S), eq. 8 becomes eq. 9."""
    exponential, linear = _step(9, "exponential"), _step(9, "piecewise linear")
    agrees = sp.simplify(derivation.without_curvature(linear.before) - linear.after) == 0
    told = "Y = exp(S) alone is not enough: the second derivative of S must vanish too"
    return sharpened(exponential.lost == 0 and agrees, told, more=linear.lost != 0)


@claim("note-2", section="2.2", footnote=2, chapter=DERIVATION, kind="numeric")
def exponential_score() -> Finding:
    """exp(S) in place of S multiplies the map by exp(S), which min-max undoes; and it may overflow."""
    (activations, gradients), factor, overflow = random_layer(3), math.exp(3.0), float(torch.tensor(89.0).exp())
    alphas = cam.alphas(activations, gradients)
    maps = [cam.heatmap((alphas * (scale * gradients).relu()).sum((2, 3)), activations) for scale in (1.0, factor)]
    normalised = float((min_max(maps[0]) - min_max(maps[1])).abs().max())
    holds = relative(maps[1], factor * maps[0]) < ROUNDING and normalised < ROUNDING and math.isinf(overflow)
    return verdict(holds, f"maps differ by exp(S), min-max maps by {normalised:.1e}; in float32 exp(89) = {overflow}")


@claim("3.1.1-underdetermined", section="3.1.1", expected="sharpened")
def underdetermined() -> Finding:
    """Eq. 6 is one equation for many alphas."""
    witness = counterexamples.underdetermined()
    left, first, second = witness.equation.lhs, *map(sp.flatten, witness.solutions)
    unknowns = sorted(left.free_symbols, key=str)
    solved = all(left.subs(dict(zip(unknowns, alphas, strict=True))) == witness.value for alphas in (first, second))
    lone = counterexamples.dimension(sp.Array([[[3]]]), witness.value)
    told = f"{left} = {witness.value} holds for {first} and {second}; {witness.dimension} dimension is free, of one unit {lone}"
    return sharpened(solved and first != second and witness.dimension == 1, told, more=lone == 0)


@claim("eq-10", section="3.1.1", equation=10, expected="sharpened")
def infinitely_many() -> Finding:
    """Eq. 10 has infinitely many solutions."""
    cases = (([3, 6], 5), ([0, 0], 5), ([0, 0], 0))
    free = [counterexamples.dimension(sp.Array([[row]]), sp.Integer(value)) for row, value in cases]
    told = "true where some C is not 0; if all are 0, nothing solves it (Y not 0) or everything (Y = 0)"
    return sharpened(free[0] == 1, told, more=free[1:] == [None, 2])


@claim("eq-11", section="3.1.1", equation=11)
def eq_11() -> Finding:
    """Whatever the betas, eq. 11 gives a solution."""
    witness = counterexamples.underdetermined()
    betas = sp.Array([[list(sp.symbols("beta_1 beta_2"))]])
    alphas = derivation.equation_11(witness.coefficients, betas, witness.value)
    total = sp.simplify(derivation.equation_10(witness.coefficients, alphas, witness.value).lhs)
    return verdict(total == witness.value, f"sum of C * alpha = {total} for all betas")


@claim("eq-11-general", section="3.1.1", equation=11, expected="sharpened")
def eq_11_general() -> Finding:
    """Eq. 11 gives every solution."""
    coefficients, solution, reached = counterexamples.missed_by_equation_11()
    value = derivation.equation_10(coefficients, solution, sp.Integer(0)).lhs
    missed, complete = (set(sp.flatten(found)) == {0} for found in (reached, counterexamples.reached_by_equation_11()))
    solves = derivation.equation_10(coefficients, reached, sp.Integer(0)).lhs == 0
    return sharpened(
        complete and solves,
        f"complete where Y is not 0, as exp(S) never is; where Y = 0 it gives zeros only, and misses {sp.flatten(solution)} "
        f"for C = {sp.flatten(coefficients)}",
        more=value == 0 and missed,
    )


@claim("3.1.2-constants", section="3.1.2")
def alphas_move() -> Finding:
    """The alphas depend on the activations, so they are no constants."""
    maps = derivation.feature_maps(1, 1, 2)
    gradient = derivation.score(maps, "S").diff(maps[0, 0, 0])
    slope = sp.simplify(derivation.equation_13(gradient, derivation.map_sums(maps)[0]).diff(maps[0, 0, 1]))
    flat = derivation.without_curvature(slope).subs(gradient, sp.Symbol("g"))
    return verdict(slope != 0, f"d alpha / d A = {flat} even for a piecewise linear S")


@claim("3.1.2-alpha-x", section="3.1.2")
def alpha_x() -> Finding:
    """Holding alpha constant in alpha * x = x**2 gives alpha = 2x, which is wrong."""
    witness = counterexamples.alpha_x()
    told = f"alpha = {witness.true}, but with alpha held constant {witness.treated_as_constant}"
    return verdict(witness.treated_as_constant == 2 * witness.true, told)


@claim("3.1.2-product-rule", section="3.1.2", expected="sharpened")
def product_rule() -> Finding:
    """The product rule gives a true equation that does not isolate alpha."""
    witness = counterexamples.alpha_x()
    constants = witness.general.free_symbols - witness.true.free_symbols
    left = sp.simplify(witness.general.diff(*witness.true.free_symbols) * witness.true + witness.general - 2 * witness.true)
    alpha = next(iter(witness.product_rule.atoms(AppliedUndef)))
    true = (witness.product_rule.lhs - witness.product_rule.rhs).subs(alpha, witness.true).doit() == 0
    told = f"{witness.product_rule.lhs} = {witness.product_rule.rhs} is solved by {witness.general} for every constant"
    return sharpened(true and witness.product_rule.has(sp.Derivative), told, more=left == 0 and len(constants) == 1)


@claim("3.1.3", section="3.1.3", kind="numeric")
def not_equation_7() -> Finding:
    """Even for constant alphas, eq. 7 is not the derivative of eq. 6."""
    off = _residuals()
    return verdict(off[7] > 1e3 * off[18], f"on a random smooth network eq. 7 is off by {off[7]:.2g}, eq. 18 by {off[18]:.1e}")


def _residuals() -> dict[int, float]:
    """Distance of eqs 7, 18 and 19 from the true derivative of eq. 6, on a random smooth network."""
    score = autograd.smooth_network(0, 2, 2, 3)
    activations = torch.rand((2, 2, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def moving(units: Tensor) -> Tensor:
        return 1 / (2 + units.sum((1, 2), keepdim=True) * (1.3 * units).sin())

    fixed = moving(activations)
    constant, true = (autograd.derivative_of_equation_6(score, alphas, activations) for alphas in (lambda _: fixed, moving))
    stated = ((7, constant, autograd.equation_7), (18, constant, autograd.equation_18), (19, true, autograd.equation_19))
    return {number: float((wanted - given(score, moving, activations)).abs().max()) for number, wanted, given in stated}


@claim("3.1.4-unseen", section="3.1.4")
def linear_unseen() -> Finding:
    """A linear function added to Y leaves eq. 8 as it is."""
    change, _ = counterexamples.linear_part_in_general()
    witness = counterexamples.linear_added()
    (first, second), (alpha, other) = witness.scores, witness.alphas
    return verdict(change == 0 and alpha == other, f"eq. 8 changes by {change}; alpha = {alpha} for {first} and for {second}")


@claim("3.1.4-contradiction", section="3.1.4", expected="sharpened")
def linear_contradiction() -> Finding:
    """The same alphas cannot solve eq. 6 before and after."""
    before, after = counterexamples.linear_added().residuals
    _, change = counterexamples.linear_part_in_general()
    once = sp.Poly(change, sp.Symbol("C", real=True)).degree() == 1
    told = f"eq. 6 off by {before} and by {after}; at one point, one constant C could reconcile them, and no other"
    return sharpened(before == 0 and after != 0, told, more=once)


@claim("3.1.4-unsolved", section="3.1.4")
def eq_9_unsolved() -> Finding:
    """The alphas obtained need not solve the equation that defines them."""
    left, right = counterexamples.unsolved_by_equation_9()
    return verdict(left != right, f"one unit, S = A = 1: {left} on the left of eq. 6, {right} on the right")


@claim("eq-12", section="3.1.5", equation=12)
def eq_12() -> Finding:
    """Y = exp(lambda S) gives eq. 12."""
    rates = counterexamples.other_rates()
    return verdict(_step(12, "any rate").lost == 0, f"lambda = 1 and 2 give {rates[0]} and {rates[1]} for g = s = 1")


@claim("3.1.5-other", section="3.1.5", expected="sharpened")
def other_rates() -> Finding:
    """Another lambda gives other alphas."""
    g, s = sp.symbols("g s")
    first, second = sp.symbols("lambda_1 lambda_2", positive=True)
    gap = sp.factor(derivation.equation_12(g, s, first) - derivation.equation_12(g, s, second))
    alike = gap.subs(s, 0) == gap.subs(g, 0) == 0
    holds = set(sp.solve(sp.numer(gap), first)) == {second} and gap != 0
    return sharpened(holds, f"difference {gap}: 0 only where s or g is", more=alike)


@claim("eq-18", section="A", equation=18)
def eq_18() -> Finding:
    """The derivative of eq. 6 for constant alphas."""
    return _appendix(18, derivation.equation_18, derivation.constant_alphas)


@claim("eq-19", section="A", equation=19)
def eq_19() -> Finding:
    """The derivative of eq. 6 for alphas that depend on the activations."""
    return _appendix(19, derivation.equation_19, derivation.varying_alphas)


def _appendix(equation: int, stated: Any, alphas_of: Any) -> Finding:
    general, residual = derivation.appendix_of_any_size(varying=equation == 19), _residuals()[equation]
    holds = general.lhs == general.rhs and residual < 1e-10
    for maps in starmap(derivation.feature_maps, ((2, 1, 2), (1, 2, 2), (2, 2, 1))):
        value, alphas = derivation.score(maps), alphas_of(maps)
        true = derivation.differentiated(derivation.equation_6(value, alphas, maps, relu=False), maps[0, 0, 0])
        holds = holds and sp.expand(true.rhs - stated(value, alphas, maps, (0, 0, 0)).rhs) == 0
    return verdict(holds, f"symbolic K, H, W; three explicit sizes; a random smooth network in float64, residual {residual:.1e}")
