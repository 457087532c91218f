"""The claims of section 3.1 and Appendix A: the derivation and what is wrong with it."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam
from gradcampp.algebra import autograd, counterexamples, derivation
from gradcampp.algebra.theorems import THEOREMS, random_layer, relative
from gradcampp.cam import min_max
from gradcampp.claims.alphas import _eq_13, _eq_14, _interval_of_3_3, _unbounded, _underflow, _zero_alphas_do_not_count
from gradcampp.claims.beyond import _theorem
from gradcampp.claims.claim import (
    ALPHAS,
    BEYOND,
    DERIVATION,
    MATTERS,
    METHODS_CHAPTER,
    ROUNDING,
    WRONG,
    Claim,
    Finding,
    _proved,
    verdict,
)
from gradcampp.claims.methods import _eq_2, _only_positive, _weights, _zero_gradient
from gradcampp.claims.results import (
    _additive,
    _arithmetic_mean,
    _eq_15,
    _eq_16_is_17,
    _eq_17,
    _rounding,
    _scale_free,
    _similar_explanations,
)


def _step(equation: int, assumption: str) -> derivation.Step:
    return next(step for step in derivation.derivation() if (step.equation, step.assumption) == (equation, assumption))


def _exact(*steps: tuple[int, str]) -> Finding:
    lost = [_step(*step).lost for step in steps]
    return verdict(all(term == 0 for term in lost), f"difference of both sides: {', '.join(map(str, lost))}")


def _eq_7() -> Finding:
    """The paper's own claim: eq. 6 does not differentiate to eq. 7."""
    maps = derivation.feature_maps(2, 1, 2)
    value, alphas = derivation.score(maps), derivation.constant_alphas(maps)
    true = derivation.differentiated(derivation.equation_6(value, alphas, maps, relu=False), maps[0, 0, 0]).rhs
    missing = derivation.missing_terms(value, alphas, maps, (0, 0, 0))
    gap = sp.expand(true - derivation.equation_7(value, alphas, maps, (0, 0, 0)).rhs)
    explained = sp.expand(gap - sum(missing.values())) == 0
    return verdict(
        gap != 0 and explained, f"{len(sp.Add.make_args(gap))} terms are missing, all mixed second derivatives", sharpened=True
    )


def _eq_8() -> Finding:
    lost = _step(8, "own unit").lost
    solved = [step.lost for step in derivation.derivation() if step.equation == 8][-1]
    return verdict(
        solved == 0 and lost != 0,
        f"from eq. 7 it needs that mixed derivatives vanish again; lost: {len(sp.Add.make_args(lost))} term; then alpha is eq. 8",
        sharpened=True,
    )


def _eq_9() -> Finding:
    exact, lost = _step(9, "exponential").lost, _step(9, "piecewise linear").lost
    flat = derivation.without_curvature(_step(9, "piecewise linear").before)
    agrees = sp.simplify(flat - _step(9, "piecewise linear").after) == 0
    return verdict(
        exact == 0 and agrees and lost != 0,
        "Y = exp(S) alone is not enough: the second derivative of S must vanish too",
        sharpened=True,
    )


def _exponential_score() -> Finding:
    activations, gradients = random_layer(3)
    factor = math.exp(3.0)
    alphas = cam.alphas(activations, gradients)
    maps = [cam.heatmap((alphas * (scale * gradients).relu()).sum((2, 3)), activations) for scale in (1.0, factor)]
    distance = relative(maps[1], factor * maps[0])
    normalised = float((min_max(maps[0]) - min_max(maps[1])).abs().max())
    overflow = float(torch.tensor(89.0).exp())
    return verdict(
        distance < ROUNDING and normalised < ROUNDING and math.isinf(overflow),
        f"maps differ by exp(S), min-max maps by {normalised:.1e}; in float32 exp(89) = {overflow}",
    )


def _underdetermined() -> Finding:
    witness = counterexamples.underdetermined()
    solved = [
        witness.equation.lhs.subs(dict(zip(_symbols(witness.equation), sp.flatten(alphas), strict=True)))
        for alphas in witness.solutions
    ]
    return verdict(
        all(value == witness.value for value in solved)
        and witness.solutions[0] != witness.solutions[1]
        and witness.dimension == 1,
        f"{witness.equation.lhs} = {witness.value} holds for "
        f"{' and '.join(str(sp.flatten(s)) for s in witness.solutions)}; {witness.dimension} dimension is free",
        sharpened=True,
    )


def _symbols(equation: Any) -> list[Any]:
    return sorted(equation.free_symbols, key=str)


def _infinitely_many() -> Finding:
    cases = [
        counterexamples.dimension(sp.Array([[row]]), sp.Integer(value)) for row, value in (([3, 6], 5), ([0, 0], 5), ([0, 0], 0))
    ]
    return verdict(
        cases[0] == 1 and cases[1] is None and cases[2] == 2,
        "true where some C is not 0; if all are 0, nothing solves it (Y not 0) or everything (Y = 0)",
        sharpened=True,
    )


def _eq_11_solves() -> Finding:
    witness = counterexamples.underdetermined()
    betas = sp.Array([[list(sp.symbols("beta_1 beta_2"))]])
    alphas = derivation.equation_11(witness.coefficients, betas, witness.value)
    total = sp.simplify(derivation.equation_10(witness.coefficients, alphas, witness.value).lhs)
    return verdict(total == witness.value, f"sum of C * alpha = {total} for all betas")


def _eq_11_general() -> Finding:
    coefficients, solution, reached = counterexamples.missed_by_equation_11()
    value = derivation.equation_10(coefficients, solution, sp.Integer(0)).lhs
    missed = value == 0 and set(sp.flatten(reached)) == {0}
    complete = set(sp.flatten(counterexamples.reached_by_equation_11())) == {0}
    return verdict(
        missed and complete,
        f"complete where Y is not 0, as exp(S) never is; where Y = 0 it gives zeros only, and misses {sp.flatten(solution)} "
        f"for C = {sp.flatten(coefficients)}",
        sharpened=True,
    )


def _alphas_move() -> Finding:
    maps = derivation.feature_maps(1, 1, 2)
    alpha = derivation.equation_13(derivation.score(maps, "S").diff(maps[0, 0, 0]), derivation.map_sums(maps)[0])
    slope = sp.simplify(alpha.diff(maps[0, 0, 1]))
    return verdict(
        slope != 0,
        "d alpha / d A = "
        f"{derivation.without_curvature(slope).subs(derivation.score(maps, 'S').diff(maps[0, 0, 0]), sp.Symbol('g'))} even "
        "for a piecewise linear S",
    )


def _alpha_x() -> Finding:
    witness = counterexamples.alpha_x()
    return verdict(
        witness.treated_as_constant == 2 * witness.true,
        f"alpha = {witness.true}, but with alpha held constant {witness.treated_as_constant}",
    )


def _product_rule() -> Finding:
    witness = counterexamples.alpha_x()
    constants = witness.general.free_symbols - witness.true.free_symbols
    solves = sp.simplify(witness.general.diff(*witness.true.free_symbols) * witness.true + witness.general - 2 * witness.true)
    return verdict(
        solves == 0 and len(constants) == 1,
        f"{witness.product_rule.lhs} = {witness.product_rule.rhs} is solved by {witness.general} for every constant",
        sharpened=True,
    )


def _linear_unseen() -> Finding:
    change, _ = counterexamples.linear_part_in_general()
    witness = counterexamples.linear_added()
    return verdict(
        change == 0 and witness.alphas[0] == witness.alphas[1],
        f"eq. 8 changes by {change}; alpha = {witness.alphas[0]} for {witness.scores[0]} and for {witness.scores[1]}",
    )


def _linear_contradiction() -> Finding:
    witness = counterexamples.linear_added()
    _, change = counterexamples.linear_part_in_general()
    once = sp.Poly(change, sp.Symbol("C", real=True)).degree() == 1
    return verdict(
        witness.residuals[0] == 0 and witness.residuals[1] != 0 and once,
        f"eq. 6 off by {witness.residuals[0]} and by {witness.residuals[1]}; at one point, one constant C could "
        "reconcile them, and no other",
        sharpened=True,
    )


def _eq_9_unsolved() -> Finding:
    left, right = counterexamples.unsolved_by_equation_9()
    return verdict(left != right, f"one unit, S = A = 1: {left} on the left of eq. 6, {right} on the right")


def _eq_12() -> Finding:
    rates = counterexamples.other_rates()
    exact = _step(12, "any rate").lost
    return verdict(exact == 0, f"lam = 1 and 2 give {rates[0]} and {rates[1]} for g = s = 1")


def _other_rates() -> Finding:
    g, s = sp.Symbol("g"), sp.Symbol("s")
    first, second = sp.symbols("lambda_1 lambda_2", positive=True)
    gap = sp.factor(derivation.equation_12(g, s, first) - derivation.equation_12(g, s, second))
    return verdict(
        set(sp.solve(sp.numer(gap), first)) == {second} and gap != 0, f"difference {gap}: 0 only where s or g is", sharpened=True
    )


def _appendix(equation: int) -> Finding:
    varying = equation == 19
    general = derivation.appendix_of_any_size(varying)
    explicit = []
    for shape in ((2, 1, 2), (1, 2, 2), (2, 2, 1)):
        maps = derivation.feature_maps(*shape)
        value, alphas = derivation.score(maps), (derivation.varying_alphas if varying else derivation.constant_alphas)(maps)
        true = derivation.differentiated(derivation.equation_6(value, alphas, maps, relu=False), maps[0, 0, 0])
        stated = (derivation.equation_19 if varying else derivation.equation_18)(value, alphas, maps, (0, 0, 0))
        explicit.append(sp.expand(true.rhs - stated.rhs))
    residual = _residuals()[equation]
    return verdict(
        general.lhs == general.rhs and not any(explicit) and residual < 1e-10,
        f"symbolic K, H, W; three explicit sizes; a random smooth network in float64, residual {residual:.1e}",
    )


def _residuals() -> dict[int, float]:
    """How far eqs 7, 18 and 19 are from the true derivative of eq. 6, on a random smooth network."""
    score = autograd.smooth_network(0, 2, 2, 3)
    activations = torch.rand((2, 2, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def moving(units: Tensor) -> Tensor:
        return 1 / (2 + units.sum((1, 2), keepdim=True) * (1.3 * units).sin())

    fixed = moving(activations)
    constant = autograd.derivative_of_equation_6(score, lambda _: fixed, activations)
    true = autograd.derivative_of_equation_6(score, moving, activations)
    return {
        7: float((constant - autograd.equation_7(score, moving, activations)).abs().max()),
        18: float((constant - autograd.equation_18(score, moving, activations)).abs().max()),
        19: float((true - autograd.equation_19(score, moving, activations)).abs().max()),
    }


def _not_equation_7() -> Finding:
    residuals = _residuals()
    return verdict(
        residuals[7] > 1e3 * residuals[18],
        f"on a random smooth network eq. 7 is off by {residuals[7]:.2g}, eq. 18 by {residuals[18]:.1e}",
    )


PROVED: tuple[Claim, ...] = (
    _proved(
        "eq-1",
        "2.1.1, eq. 1",
        "A Grad-CAM weight is the mean of a channel's gradients.",
        lambda: _weights("gradcam"),
        METHODS_CHAPTER,
        "numeric",
    ),
    _proved(
        "eq-2",
        "2.1.1, eq. 2",
        "The heatmap is the ReLU of the feature maps combined by their weights.",
        _eq_2,
        METHODS_CHAPTER,
        "numeric",
    ),
    _proved(
        "eq-3",
        "2.1.2, eq. 3",
        "Grad-CAM+ takes the mean of the positive gradients only.",
        lambda: _weights("gradcam+"),
        METHODS_CHAPTER,
        "numeric",
    ),
    _proved(
        "eq-4",
        "2.2, eq. 4",
        "A Grad-CAM++ weight is the sum of the positive gradients, each times its alpha.",
        lambda: _weights("gradcam++"),
        METHODS_CHAPTER,
        "numeric",
    ),
    _proved(
        "2.2-positive", "2.2", "Only positive gradients enter a Grad-CAM++ weight.", _only_positive, METHODS_CHAPTER, "numeric"
    ),
    _proved("eq-5-6", "2.2, eqs 5 and 6", "Eq. 4 put into eq. 5 gives eq. 6.", lambda: _exact((6, "posed")), DERIVATION),
    _proved(
        "eq-7",
        "2.2, eq. 7",
        "Eq. 6 differentiates to eq. 7 only if other channels and mixed derivatives are left out.",
        _eq_7,
        DERIVATION,
    ),
    _proved("eq-8", "2.2, eq. 8", "Differentiating once more and isolating alpha gives eq. 8.", _eq_8, DERIVATION),
    _proved("eq-9", "2.2, eq. 9", "With Y = exp(S), eq. 8 becomes eq. 9.", _eq_9, DERIVATION),
    _proved(
        "2.2-zero",
        "2.2",
        "Where the gradient is 0, eq. 9 is 0/0, and alpha is set to 0.",
        _zero_gradient,
        METHODS_CHAPTER,
        "numeric",
    ),
    _proved(
        "note-2",
        "2.2, footnote 2",
        "exp(S) in place of S multiplies the map by exp(S), which min-max undoes; and it may overflow.",
        _exponential_score,
        DERIVATION,
        "numeric",
    ),
    _proved("3.1.1-underdetermined", "3.1.1", "Eq. 6 is one equation for many alphas.", _underdetermined, WRONG),
    _proved("eq-10", "3.1.1, eq. 10", "Eq. 10 has infinitely many solutions.", _infinitely_many, WRONG),
    _proved("eq-11", "3.1.1, eq. 11", "Whatever the betas, eq. 11 gives a solution.", _eq_11_solves, WRONG),
    _proved("eq-11-general", "3.1.1, eq. 11", "Eq. 11 gives every solution.", _eq_11_general, WRONG),
    _proved("3.1.2-constants", "3.1.2", "The alphas depend on the activations, so they are no constants.", _alphas_move, WRONG),
    _proved(
        "3.1.2-alpha-x", "3.1.2", "Holding alpha constant in alpha * x = x**2 gives alpha = 2x, which is wrong.", _alpha_x, WRONG
    ),
    _proved(
        "3.1.2-product-rule", "3.1.2", "The product rule gives a true equation that does not isolate alpha.", _product_rule, WRONG
    ),
    _proved(
        "3.1.3", "3.1.3", "Even for constant alphas, eq. 7 is not the derivative of eq. 6.", _not_equation_7, WRONG, "numeric"
    ),
    _proved("3.1.4-unseen", "3.1.4", "A linear function added to Y leaves eq. 8 as it is.", _linear_unseen, WRONG),
    _proved("3.1.4-contradiction", "3.1.4", "The same alphas cannot solve eq. 6 before and after.", _linear_contradiction, WRONG),
    _proved(
        "3.1.4-unsolved", "3.1.4", "The alphas obtained need not solve the equation that defines them.", _eq_9_unsolved, WRONG
    ),
    _proved("eq-12", "3.1.5, eq. 12", "Y = exp(lam S) gives eq. 12.", _eq_12, WRONG),
    _proved("3.1.5-other", "3.1.5", "Another lam gives other alphas.", _other_rates, WRONG),
    _proved("eq-13", "3.2, eq. 13", "Eq. 13 equals eq. 9 wherever the gradient is not 0.", _eq_13, ALPHAS),
    _proved("3.2-powers", "3.2", "Eq. 13 under- and overflows less than eq. 9.", _underflow, ALPHAS, "numeric"),
    _proved("3.2-unbounded", "3.2", "Nothing keeps the denominator away from 0.", _unbounded, ALPHAS),
    _proved("3.3-zeros", "3.3", "Alphas at zero gradients play no role.", _zero_alphas_do_not_count, ALPHAS, "numeric"),
    _proved(
        "3.3-interval",
        "3.3",
        "Products in (-0.2, 0.15) give alphas from 0.48 to 0.53, approximately.",
        _interval_of_3_3,
        ALPHAS,
        "numeric",
    ),
    _proved("eq-14", "3.3, eq. 14", "Grad-CAM++ weights are about half the sum of the positive gradients.", _eq_14, ALPHAS),
    _proved("4-coefficients", "4", "A constant factor in front of the weights does not matter.", _scale_free, MATTERS, "numeric"),
    _proved(
        "eq-15",
        "4, eq. 15",
        "The explanation map is the image times its min-max map, pixel by pixel.",
        _eq_15,
        MATTERS,
        "numeric",
    ),
    _proved(
        "note-4", "4, footnote 4", "Similar heatmaps give similar explanation maps.", _similar_explanations, MATTERS, "numeric"
    ),
    _proved("eq-16", "4, eq. 16", "The geometric mean of the ratios is what eq. 17 computes.", _eq_16_is_17, MATTERS),
    _proved("eq-17", "4, eq. 17", "Relative performance is the exponential of the mean log ratio.", _eq_17, MATTERS, "numeric"),
    _proved("4-arithmetic", "4", "Averaging ratios arithmetically can mislead.", _arithmetic_mean, MATTERS),
    _proved(
        "4-additive",
        "4, Table 2",
        "Mean log relative performances add up over a chain of methods.",
        _additive,
        MATTERS,
        "numeric",
    ),
    _proved(
        "tables-rounding",
        "4, Tables 1 and 2",
        "The entries of both tables are consistent with each other.",
        _rounding,
        MATTERS,
        "numeric",
    ),
    _proved("eq-18", "Appendix A, eq. 18", "The derivative of eq. 6 for constant alphas.", lambda: _appendix(18), WRONG),
    _proved(
        "eq-19",
        "Appendix A, eq. 19",
        "The derivative of eq. 6 for alphas that depend on the activations.",
        lambda: _appendix(19),
        WRONG,
    ),
    *(
        _proved(
            f"theorem-{theorem.number}",
            "companion",
            theorem.title + ".",
            lambda number=theorem.number: _theorem(number),
            ALPHAS if theorem.number in (1, 6, 7) else BEYOND,
        )
        for theorem in THEOREMS
    ),
)
