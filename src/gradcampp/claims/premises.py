"""The premises of the derivation of Grad-CAM++, and where they lead: ours, beside section 3.1 of the paper."""

from __future__ import annotations

from functools import partial

import sympy as sp
import torch

from gradcampp import cam, variants
from gradcampp.algebra import counterexamples
from gradcampp.algebra.derivation import Expr
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import min_max
from gradcampp.claims.claim import DERIVATION, Finding, cannot_tell, claim, verdict

ours = partial(claim, role="theorem")
HALF = sp.Rational(1, 2)


@ours("2.2-open-set", section="2.2", equation=6, chapter=DERIVATION)
def open_set() -> Finding:
    """Alphas that solve eq. 6 at a point, as in section 3.1.1, need not solve its derivative there, as 3.1.2 takes them to."""
    seen = counterexamples.at_a_point()
    told = f"eq. 6 off by {seen.residual}, its derivatives by {list(map(str, seen.derivatives))}; "
    holds = seen.residual == 0 and any(seen.derivatives) and not seen.everywhere
    return verdict(holds, told + f"{len(seen.everywhere)} constants solve it everywhere")


@ours("2.2-denominator", section="2.2", equation=8, chapter=DERIVATION)
def denominator() -> Finding:
    """Where the denominator of eq. 8 is 0, no alpha solves the equation that it comes from."""
    second, factor = counterexamples.zero_denominator()
    return verdict(second != 0 and factor == 0, f"S = -2 A at A = 1: {second} = {factor} * alpha")


@ours("2.2-post-softmax", section="2.2", equation=9, chapter=DERIVATION)
def softmax_is_curved() -> Finding:
    """With the softmax score p in the place of S, eq. 9 is not eq. 8: p is not piecewise linear."""
    exact, formula = counterexamples.softmax_is_curved()
    return verdict(sp.simplify(exact - formula) != 0, f"logits A and -A at A = 1: eq. 8 {exact:.3f}, the formula {formula:.3f}")


@ours("3.1.2-contradiction", section="3.1.2", equation=6)
def contradiction() -> Finding:
    """With constant alphas, a piecewise linear S and Y = exp(S), eq. 6 on an open set says 1 = 0."""
    holds = True
    for relu in (True, False):
        asked = counterexamples.demand(constant=True, relu=relu)
        moved, units = asked.derivatives(), sp.flatten(asked.maps)
        # A sum of terms of first degree: it is made of its derivatives, which are all 0, since 1 does not move.
        made = sum(unit * slope for unit, slope in zip(units, moved, strict=True))
        free_of_units = not set(units) & set().union(*(slope.free_symbols for slope in moved))
        holds = holds and free_of_units and sp.expand(asked.quotient - made) == 0
    return verdict(holds, f"1 = sum of A * slope; each slope, as {moved[0]}, has to be 0; so 1 = 0")


@ours("3.1.2-powers", section="3.1.2", equation=6)
def only_powers() -> Finding:
    """Constant alphas and a piecewise linear S satisfy eq. 6 on an open set for powers only, with equal gradients in a map."""
    seen = counterexamples.only_powers()
    x, (rate, shift) = sp.Symbol("x", real=True), sp.symbols("m b", nonzero=True)
    ratio = sp.simplify(seen.functions / seen.functions.diff(x) - (rate * x + shift))
    bends = seen.second.replace(sp.Function("h"), lambda argument: argument**2).doit()
    holds = seen.residual == ratio == 0 and bends == 2 * sp.prod(sp.symbols("g_1 g_2", nonzero=True))
    return verdict(holds, f"Y = {seen.functions} with x = S; eq. 6 is then off by {seen.residual}")


@ours("3.1.4-demand", section="3.1.4", equation=(6, 13))
def demand() -> Finding:
    """With Y = exp(S) and the alphas of eq. 13, eq. 6 asks that t / (2 + t) sum to 1 over g > 0; on no open set can it."""
    asked, t = counterexamples.demand(constant=False), sp.Symbol("t", positive=True)
    share, wanted, grows = t / (2 + t), sp.Integer(0), True
    for k in (0, 1):  # of each map's two units the first has a positive gradient
        g, total = sp.Symbol(f"g^{k + 1}_11", positive=True), sum(sp.flatten(asked.maps[k]))
        wanted += share.subs(t, total * g)
        moved = asked.quotient.diff(asked.maps[k, 0, 0])
        grows = grows and sp.simplify(moved - 2 * g / (2 + total * g) ** 2) == 0  # never 0
    alone, pair = bool(sp.simplify(1 - share).is_positive), 2 * share.subs(t, 2)
    holds = sp.simplify(asked.quotient - wanted) == 0 and grows and alone and pair == 1
    return verdict(holds, f"two units with t = 2 give {pair}, one unit never does; every activation moves the sum")


@ours("3.1.5-square", section="3.1.5", equation=8)
def square() -> Finding:
    """For Y = S^2, or S^2 / 2 + c S, where it increases, the derivation of Grad-CAM++ ends in alpha = 1/2: in Grad-CAM+."""
    s, c = counterexamples.LOGIT, sp.Symbol("c")
    found = [counterexamples.alpha_of(function) for function in (s**2, s**2 / 2 + c * s)]
    weights, plus = counterexamples.weights_of_square()
    factors = {sp.simplify(one / other) for one, other in zip(weights, plus, strict=True)}
    falling = counterexamples.weights_of_square(rising=False)[0]
    holds = found == [HALF, HALF] and factors == {sp.Symbol("u", positive=True)} and falling != weights
    return verdict(holds, f"alpha = {found[0]} and {found[1]}; every weight is S + c times that of Grad-CAM+ (times Z / 2)")


@ours("3.1.5-functions", section="3.1.5", equation=8)
def functions() -> Finding:
    """Alpha is 1 / (2 + rate s g) with rate = f''' / f'': the logit drops out for quadratic functions and exponentials only."""
    x, s = sp.Symbol("x", real=True), counterexamples.LOGIT
    lam = sp.Symbol("lambda", positive=True)
    quadratic, exponential = map(counterexamples.functions_of_rate, (sp.Integer(0), lam))
    as_derived = all(
        _alike(counterexamples.alpha_of(function), alpha)
        and _alike(counterexamples.rate_of(function), function.diff(s, 3) / function.diff(s, 2))
        for function, alpha in counterexamples.alphas_of_functions()
    )
    holds = as_derived and quadratic.diff(x, 3) == 0 and sp.simplify(exponential.diff(x, 3) - lam * exponential.diff(x, 2)) == 0
    return verdict(holds, f"rate 0: f = {quadratic}; rate lambda: f = {exponential}, with x = S")


def _alike(one: Expr, other: Expr) -> bool:
    return bool(sp.simplify((one - other).rewrite(sp.exp)) == 0)


@claim("3.2-most", section="3.2", equation=9, kind="numeric", expected="cannot tell")
def most_implementations() -> Finding:
    """Most implementations that the authors have found use eq. 9 (here: eight programs that we read)."""
    activations, gradients = random_layer(9)
    gradients = 1e4 * (gradients + gradients.sign())  # so large that no epsilon counts: guards are forgiven
    ninth, positive = cam.alphas(activations, gradients), gradients > 0
    heat = min_max(cam.heatmap(cam.weights("gradcam++", activations, gradients), activations))
    same, up_to_factors = [], []
    for name, alphas in variants.PROGRAMS.items():
        found = min_max(cam.heatmap(variants.weights(alphas, activations, gradients), activations))
        same += [name] if (found - heat).abs().max() < 1e-9 else []
        ratio = alphas(activations, gradients) / ninth
        low, high = (torch.where(positive, ratio, end) for end in (torch.inf, -torch.inf))
        spread = high.amax((2, 3)) / low.amin((2, 3)) - 1
        up_to_factors += [name] if spread[positive.any(3).any(2)].max() < 1e-9 else []
    count, listed = len(variants.PROGRAMS), ", ".join(up_to_factors)
    told = f"of {count} programs {len(same)} give its map ({', '.join(same)}), {len(up_to_factors)} its alphas up to a factor "
    told += f"per channel ({listed}), guards forgiven; the paper does not list those that it found"
    return verdict(True, told) if 2 * len(up_to_factors) > count else cannot_tell(told)  # ours are not those of the authors
