"""Checks of the eight theorems that go beyond the paper; the chapters of the book state and prove them.

Throughout, A >= 0 are the feature maps of a layer after its ReLU, g the gradients, r = ReLU(g), s_k the sum of map k,
lam > 0, and t = lam * s_k * r. SymPy does the steps that it can, and everything is tried on random tensors in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam, paper
from gradcampp.algebra import derivation
from gradcampp.shrinkage import bound, difference, order_factor, sandwich, shrinkage

ROUNDING = 1e-9  # of float64 after sums of some hundred terms, relative; the theorems themselves are exact


class Check(NamedTuple):
    """The outcome of a theorem's check, with the numbers that were seen."""

    holds: bool
    seen: str


def random_layer(seed: int, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Feature maps after a ReLU and gradients of very different sizes, (batch, 6, 5, 5) each, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    activations = normal(batch, 6, 5, 5).relu() * normal(batch, 6, 1, 1).exp()
    return activations, normal(batch, 6, 5, 5) * normal(batch, 6, 1, 1).exp()


def tame_alphas() -> Check:
    """Theorem 1: half minus alpha is t / (2 (2 + t)), and random alphas at positive gradients stay in (0, 1/2]."""
    t, scale, total = sp.Symbol("t", nonnegative=True), sp.Symbol("lambda", positive=True), sp.Symbol("s", positive=True)
    gap = sp.simplify(sp.Rational(1, 2) - 1 / (2 + t) - t / (2 * (2 + t)))
    (pole,) = sp.solve(2 + scale * total * sp.Symbol("g"), sp.Symbol("g"))
    activations, gradients = random_layer(1)
    every = cam.alphas(activations, gradients)
    low, high = map(float, every[gradients > 0].aminmax())
    wildest = float(every[gradients < 0].abs().max())
    return Check(
        gap == 0 and bool(pole.is_negative) and low > 0 and high <= 0.5 and wildest > 0.5,
        f"pole at g = {pole}; random alphas: {low:.3g} to {high:.3g} where g > 0, up to {wildest:.3g} in size where g < 0",
    )


def shrinking() -> Check:
    """Theorem 2: r / (2 + lam s r) grows, is concave, starts with slope 1/2 and never exceeds 1 / (lam s)."""
    r, scale, total = sp.Symbol("r", nonnegative=True), sp.Symbol("lambda", positive=True), sp.Symbol("s", positive=True)
    passed = sp.simplify(derivation.equation_12(r, total, scale) * r)
    slope, bend = sp.simplify(passed.diff(r)), sp.simplify(passed.diff(r, 2))
    limit = sp.limit(passed, r, sp.oo)
    grows = bool(slope.is_positive) and bool(bend.is_negative) and slope.subs(r, 0) == sp.Rational(1, 2)
    return Check(grows and limit == 1 / (scale * total), f"slope {slope}, bend {bend}, limit {limit}")


def between() -> Check:
    """Theorem 3: the Grad-CAM++ map lies in the sandwich, keeps the order that it must, and no lam exceeds the bound."""
    worst, outside, turned = 0.0, 0, 0
    for seed in range(20):
        activations, gradients = random_layer(seed)
        weights = (cam.weights(method, activations, gradients) for method in ("gradcam+", "gradcam++"))
        plus, plusplus = (cam.heatmap(of_method, activations) for of_method in weights)
        low, high = sandwich(activations, gradients)
        outside += int(((low > plusplus * (1 + ROUNDING)) | (plusplus > high * (1 + ROUNDING))).sum())
        first, second = plus.flatten(1)[:, :, None], plus.flatten(1)[:, None]  # every pair of units
        apart = first > second * order_factor(activations, gradients)[:, None, None] * (1 + ROUNDING)
        turned += int((apart & (plusplus.flatten(1)[:, :, None] <= plusplus.flatten(1)[:, None])).sum())
        every = torch.stack([difference(activations, gradients, lam) for lam in (0.1, 0.5, 1.0)])
        worst = max(worst, float((every / bound(activations, gradients)).max()))
    told = f"{outside} units outside, {turned} pairs turned round; largest difference / bound {worst:.3f}"
    return Check(outside == 0 and turned == 0 and worst <= 1 + ROUNDING, told)


def one_family() -> Check:
    """Theorem 4: both ends of the family, and logits times tau, which act as lam times tau."""
    activations, gradients = random_layer(4)
    units, sums = activations[0, 0].numel(), cam.activation_sums(activations)[..., 0, 0]
    zero, plus = (cam.weights(method, activations, gradients, 0.0) for method in ("gradcam++", "gradcam+"))
    start = relative(zero, plus * units / 2)
    large, tau, lam = 1e12, 3.0, 0.7
    limit = (gradients > 0).sum((2, 3)) / sums
    end = relative(large * cam.weights("gradcam++", activations, gradients, large), limit)
    faster = tau * cam.weights("gradcam++", activations, gradients, tau * lam)
    scaled = relative(cam.weights("gradcam++", activations, tau * gradients, lam), faster)
    return Check(
        start < ROUNDING and end < 1e-6 and scaled < ROUNDING,
        f"relative distance from Grad-CAM+ at 0: {start:.1e}, from n / s at 1e12: {end:.1e}, of tau = 3: {scaled:.1e}",
    )


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest relative distance of two tensors."""
    return float(((found - wanted).abs() / wanted.abs().clamp_min(torch.finfo(wanted.dtype).tiny)).max())


def pooled_and_linear() -> Check:
    """Theorem 5: behind average pooling and one linear layer, t is the channel's own contribution to the logit."""
    generator = torch.Generator().manual_seed(5)
    activations = torch.rand((2, 6, 4, 4), generator=generator, dtype=torch.float64, requires_grad=True)
    row = torch.randn(6, generator=generator, dtype=torch.float64)
    contributions = row * activations.mean((2, 3))  # (B, K)
    (gradients,) = torch.autograd.grad(contributions.sum(), activations)
    every = cam.alphas(activations.detach(), gradients)
    spread = float((every.amax((2, 3)) - every.amin((2, 3))).max())
    distance = relative(every[:, :, 0, 0], 1 / (2 + contributions.detach()))
    return Check(
        spread == 0 and distance < ROUNDING,
        f"alphas differ within a channel by {spread:.1e}, from 1 / (2 + contribution) by {distance:.1e}",
    )


def post_softmax() -> Check:
    """Theorem 6: the gradient of the softmax score is p (1 - p) times a difference of logit gradients."""
    unit = sp.Symbol("A", real=True)
    logits = [sp.Function(f"z_{c}", real=True)(unit) for c in range(3)]
    p = [sp.exp(logit) / sum(map(sp.exp, logits)) for logit in logits]
    others = sum(p[c] * logits[c].diff(unit) for c in (1, 2)) / (p[1] + p[2])
    exact = sp.simplify(p[0].diff(unit) - p[0] * (1 - p[0]) * (logits[0].diff(unit) - others))
    activations, gradients = random_layer(6)
    farthest = [float(shrinkage(activations, p_c * (1 - p_c) * gradients).max()) for p_c in (0.5, 0.99, 0.9999, 0.999999)]
    return Check(
        exact == 0 and farthest == sorted(farthest, reverse=True) and farthest[-1] < 1e-2,
        "largest delta for p = 0.5, 0.99, 0.9999, 0.999999: " + ", ".join(f"{value:.2g}" for value in farthest),
    )


def float32_grid() -> Check:
    """Theorem 7: near -2 the denominators are multiples of 2**-23 or 2**-22, and the paper's extremes are two of them."""
    generator = np.random.default_rng(7)
    near = (-2 + generator.uniform(-1e-3, 1e-3, 100_000)).astype(np.float32)
    sums = np.float32(2) + near
    steps = sums.astype(np.float64) * np.where(near > -2, 2.0**23, 2.0**22)
    found = [float(np.float32(1) / np.float32(place * 2.0**exponent)) for place, exponent in paper.EXTREMES.values()]
    printed = all(f"{value:.8g}" == f"{wanted:.8g}" for value, wanted in zip(found, paper.EXTREMES, strict=True))
    on_grid = bool((steps == steps.round()).all())
    return Check(on_grid and printed, f"1 / (-3 * 2**-22) = {found[0]:.8g}, 1 / (15 * 2**-23) = {found[1]:.8g} in float32")


def leftover(activations: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """The map that is constant exactly where the min-max maps of Grad-CAM++ and Grad-CAM+ are the same.

    Args:
        activations: feature maps after the layer's ReLU, (B, K, H, W), none negative.
        gradients: derivative of the class score with respect to them, same shape.

    Returns:
        ``sum_k (delta_k - d) * w_k * A^k`` with w_k half the sum of positive gradients, (B, H, W), and the only d that can
        make it constant, (B,): one minus the quotient of the two maps' ranges; 0 where the Grad-CAM+ map is constant.

    Source: ours; theorem 8 of the companion.
    """
    plus = cam.weights("gradcam+", activations, gradients) * activations[0, 0].numel() / 2  # (B, K)
    deltas = shrinkage(activations, gradients)
    before, after = (torch.einsum("bk,bkhw->bhw", each, activations) for each in (plus, (1 - deltas) * plus))
    ranges = [each.amax((1, 2)) - each.amin((1, 2)) for each in (before, after)]
    shift = torch.where(ranges[0] > 0, 1 - ranges[1] / ranges[0], 0)  # (B,)
    return torch.einsum("bk,bkhw->bhw", (deltas - shift[:, None]) * plus, activations), shift


def layer_of_same_maps(last: float) -> tuple[Tensor, Tensor]:
    """Three maps of three units, with one positive gradient each: 1, 1/3 and ``last``; with 2 the maps are the same, d = 7/8.

    The first two maps add up to a constant, and the deltas are 3/4, 1/2 and, with 2, 7/8.
    """
    activations = torch.tensor([[[[3, 1, 2]], [[1, 3, 2]], [[0, 3, 4]]]], dtype=torch.float64)
    gradients = torch.zeros_like(activations)
    gradients[0, :, 0, 0] = torch.tensor([1, 1 / 3, last], dtype=torch.float64)
    gradients[0, :, 0, 1] = -1
    return activations, gradients


def same_maps() -> Check:
    """Theorem 8: the min-max maps are the same exactly where the leftover is constant for some d < 1."""
    x, low, high, d, constant = sp.symbols("x m M d c", real=True)
    y, new_low, new_high = sp.symbols("y n N", real=True)

    def stretched(value: sp.Expr, least: sp.Expr, most: sp.Expr) -> sp.Expr:
        return (value - least) / (most - least)

    def shrunk(value: sp.Expr) -> sp.Expr:  # Grad-CAM++ where the leftover is the constant c
        return (1 - d) * value - constant

    enough = sp.simplify(stretched(shrunk(x), shrunk(low), shrunk(high)) - stretched(x, low, high))
    (plusplus,) = sp.solve(stretched(x, low, high) - stretched(y, new_low, new_high), y)
    share = 1 - (new_high - new_low) / (high - low)  # d, below 1 as both ranges are positive
    needed = sp.simplify(((1 - share) * x - plusplus).diff(x))
    layers = (layer_of_same_maps(2), layer_of_same_maps(1), *map(random_layer, range(5)))
    agree, told = True, []
    for activations, gradients in layers:
        rest, shift = leftover(activations, gradients)
        maps = [cam.heatmap(cam.weights(method, activations, gradients), activations) for method in ("gradcam+", "gradcam++")]
        halves = maps[0] * activations[0, 0].numel() / 2
        made = ((1 - shift[:, None, None]) * halves - maps[1] - rest).abs() / halves.amax((1, 2), keepdim=True)
        apart = (cam.min_max(maps[0]) - cam.min_max(maps[1])).abs().amax((1, 2))
        uneven = (rest.amax((1, 2)) - rest.amin((1, 2))) / maps[0].amax((1, 2))
        agree = agree and bool((((uneven < ROUNDING) & (shift < 1)) == (apart < ROUNDING)).all()) and bool(made.max() < ROUNDING)
        told.append((float(apart.max()), float(shift[0])))
    deltas = ", ".join(f"{value:.3f}" for value in shrinkage(*layers[0])[0].tolist())
    seen = (
        f"deltas {deltas}: maps differ by {told[0][0]:.0e} with d = {told[0][1]:.3f}; with another gradient by {told[1][0]:.3f}"
    )
    return Check(enough == 0 and needed == 0 and agree and told[0][0] < ROUNDING < told[1][0], seen)


CHECKS: dict[int, Callable[[], Check]] = dict(
    enumerate((tame_alphas, shrinking, between, one_family, pooled_and_linear, post_softmax, float32_grid, same_maps), start=1)
)
TITLES = {
    1: "Only tame alphas count",
    2: "Shrinkage",
    3: "Sandwich, order and bound",
    4: "One family",
    5: "Average pooling and one linear layer",
    6: "Post-softmax",
    7: "The extreme alphas are the float32 grid",
    8: "When the two maps are the same",
}
