"""What can be proved beyond the paper: seven theorems, each with its proof and a check.

Throughout, A >= 0 are the feature maps of a layer after its ReLU, g the gradients, r = ReLU(g), s_k the sum of map k,
lam > 0, and t = lam * s_k * r. Proofs are short enough to print; where SymPy can do a step, the check does it, and
everything is tried on random tensors in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam, paper
from gradcampp.algebra import derivation
from gradcampp.cam import min_max
from gradcampp.certificate import bound, sandwich, shrinkage

ROUNDING = 1e-9  # of float64 after sums of some hundred terms, relative; the theorems themselves are exact


@dataclass(frozen=True)
class Check:
    """Whether a theorem passed its check, and the numbers that were seen."""

    holds: bool
    seen: str


@dataclass(frozen=True)
class Theorem:
    """A theorem in Markdown with LaTeX, and the function that checks it."""

    number: int
    title: str
    statement: str
    proof: str
    check: Callable[[], Check]


def random_layer(seed: int, batch: int = 8, channels: int = 6, side: int = 5) -> tuple[Tensor, Tensor]:
    """Feature maps after a ReLU and gradients of very different sizes, (B, K, H, W) each, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    activations = normal(batch, channels, side, side).relu() * normal(batch, channels, 1, 1).exp()
    return activations, normal(batch, channels, side, side) * normal(batch, channels, 1, 1).exp()


def tame_alphas() -> Check:
    """Theorem 1: half minus alpha is t / (2 (2 + t)), and random alphas at positive gradients stay in (0, 1/2]."""
    t, scale, total = sp.Symbol("t", nonnegative=True), sp.Symbol("lambda", positive=True), sp.Symbol("s", positive=True)
    gap = sp.simplify(sp.Rational(1, 2) - 1 / (2 + t) - t / (2 * (2 + t)))
    (pole,) = sp.solve(2 + scale * total * sp.Symbol("g"), sp.Symbol("g"))
    activations, gradients = random_layer(1)
    every = cam.alphas(activations, gradients)
    largest, lowest = float(every[gradients > 0].max()), float(every[gradients > 0].min())
    wildest = float(every[gradients < 0].abs().max())
    return Check(
        gap == 0 and bool(pole.is_negative) and lowest > 0 and largest <= 0.5 and wildest > 0.5,
        f"pole at g = {pole}; random alphas: {lowest:.3g} to {largest:.3g} where g > 0, up to {wildest:.3g} in size where g < 0",
    )


def shrinking() -> Check:
    """Theorem 2: r / (2 + lam s r) grows, is concave, starts with slope 1/2 and never exceeds 1 / (lam s)."""
    r, scale, total = sp.Symbol("r", nonnegative=True), sp.Symbol("lambda", positive=True), sp.Symbol("s", positive=True)
    passed = sp.simplify(derivation.equation_12(r, total, scale) * r)
    slope, bend = sp.simplify(passed.diff(r)), sp.simplify(passed.diff(r, 2))
    limit = sp.limit(passed, r, sp.oo)
    holds = bool(slope.is_positive) and bool(bend.is_negative) and slope.subs(r, 0) == sp.Rational(1, 2)
    return Check(holds and limit == 1 / (scale * total), f"slope {slope}, bend {bend}, limit {limit}")


def between() -> Check:
    """Theorem 3: the Grad-CAM++ map lies in the sandwich, and the certificate is never exceeded."""
    worst, outside = 0.0, 0
    for seed in range(20):
        activations, gradients = random_layer(seed)
        plus, plusplus = maps(activations, gradients)
        low, high = sandwich(activations, gradients)
        outside += int((low > plusplus * (1 + ROUNDING)).sum() + (plusplus > high * (1 + ROUNDING)).sum())
        difference = (min_max(plusplus) - min_max(plus)).abs().amax((1, 2))
        worst = max(worst, float((difference / bound(activations, gradients)).max()))
    return Check(
        outside == 0 and worst <= 1 + ROUNDING, f"{outside} pixels outside; largest difference / certificate {worst:.3f}"
    )


def maps(activations: Tensor, gradients: Tensor, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Heatmaps of Grad-CAM+ and Grad-CAM++ before their min-max, (B, H, W) each."""
    plus, plusplus = (cam.weights(method, activations, gradients, lam) for method in ("gradcam+", "gradcam++"))
    return cam.heatmap(plus, activations), cam.heatmap(plusplus, activations)


def one_family() -> Check:
    """Theorem 4: both ends of the family, and that logits times tau act as lam times tau."""
    activations, gradients = random_layer(4)
    units = activations[0, 0].numel()
    positive, sums = gradients.relu(), cam.activation_sums(activations)[..., 0, 0]
    zero = cam.weights("gradcam++", activations, gradients, 0.0)
    start = relative(zero, cam.weights("gradcam+", activations, gradients) * units / 2)
    large = 1e12
    end = relative(large * cam.weights("gradcam++", activations, gradients, large), (positive > 0).sum((2, 3)) / sums)
    tau, lam = 3.0, 0.7
    scaled = relative(
        cam.weights("gradcam++", activations, tau * gradients, lam),
        tau * cam.weights("gradcam++", activations, gradients, tau * lam),
    )
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
    wanted = 1 / (2 + contributions.detach())
    distance = relative(every[:, :, 0, 0], wanted)
    return Check(
        spread == 0 and distance < ROUNDING,
        f"alphas differ within a channel by {spread:.1e}, from 1 / (2 + contribution) by {distance:.1e}",
    )


def post_softmax() -> Check:
    """Theorem 6: the gradient of the softmax score is p (1 - p) times a difference of logit gradients."""
    logits = [sp.Function(f"z_{c}", real=True)(sp.Symbol("A", real=True)) for c in range(3)]
    unit = logits[0].args[0]
    powers = [sp.exp(logit) for logit in logits]
    p = [power / sum(powers) for power in powers]
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
    above, below = sums[near > -2].astype(np.float64) * 2.0**23, sums[near < -2].astype(np.float64) * 2.0**22
    on_grid = bool((above == above.round()).all() and (below == below.round()).all())
    found = [float(np.float32(1) / np.float32(steps * 2.0**exponent)) for steps, exponent in paper.EXTREMES.values()]
    printed = all(f"{value:.8g}" == f"{wanted:.8g}" for value, wanted in zip(found, paper.EXTREMES, strict=True))
    return Check(on_grid and printed, f"1 / (-3 * 2**-22) = {found[0]:.8g}, 1 / (15 * 2**-23) = {found[1]:.8g} in float32")


THEOREMS = (
    Theorem(
        1,
        "Only tame alphas count",
        r"Where $g > 0$, $0 < \alpha \le \tfrac12$. Every pole of eq. 13 lies at a negative gradient, where $r = 0$. So "
        r"at a layer after its ReLU no unstable alpha ever reaches a weight.",
        r"With $g > 0$ and $s_k \ge 0$ the denominator $2 + t$ is at least 2, and $\tfrac12 - \tfrac1{2+t} = "
        r"\tfrac{t}{2(2+t)} \ge 0$. The denominator is 0 only at $g = -2/(\lambda s_k) < 0$.",
        tame_alphas,
    ),
    Theorem(
        2,
        "Shrinkage",
        r"$w_k = \sum r/(2 + \lambda s_k r)$: where $s_k > 0$, each positive gradient passes through a function that grows, is "
        r"concave, starts with slope $\tfrac12$ and never reaches $1/(\lambda s_k)$.",
        r"For $f(r) = r/(2 + \lambda s r)$: $f' = 2/(2 + \lambda s r)^2 > 0$, $f'(0) = \tfrac12$, $f'' = -4\lambda s/(2 + "
        r"\lambda s r)^3 < 0$, and $f(r) \to 1/(\lambda s)$.",
        shrinking,
    ),
    Theorem(
        3,
        "Sandwich and certificate",
        r"Let $\hat w_k = \tfrac12 \sum r$, with map $\hat L$ from $m$ to $M$, a multiple of Grad-CAM+, and $\delta_k = "
        r"1 - w_k/\hat w_k$, which lies between 0 and the largest $\tfrac{t}{2+t}$ of the map. At every pixel"
        "\n\n$$\n"
        r"(1 - \max\delta)\,\hat L \le L^{++} \le (1 - \min\delta)\,\hat L"
        "\n$$\n\n"
        r"(extremes over the channels that contribute); the final ReLU does nothing. The min-max maps differ nowhere by "
        r"more than either of"
        "\n\n$$\n"
        r"\frac{\max\delta - \min\delta}{1 - \min\delta} \cdot \frac{M}{M - m}, \qquad "
        r"\frac{\operatorname{ran} E^+ + \operatorname{ran} E^-}{(1 - d)(M - m)},"
        "\n$$\n\n"
        r"the latter for any $d < 1$, with the largest minus the smallest pixel, ran, of the two maps"
        "\n\n$$\n"
        r"E^\pm = \sum_k \max(0, \pm(d - \delta_k))\,\hat w_k A^k."
        "\n$$\n\n"
        r"The smaller bound, for a well-chosen $d$, is the certificate. Bilinear upsampling keeps it.",
        r"$\delta_k$ is the mean of $t/(2+t)$ weighted by $r$. All $A^k$ and $\hat w_k$ are non-negative, so $L^{++} = "
        r"\sum (1 - \delta_k)\hat w_k A^k$ lies between the multiples. *First bound.* Divide $L^{++}$ by $1 - "
        r"\min\delta$, which min-max undoes: $y \in [\rho x, x]$ with $x = \hat L$, $\rho = \frac{1 - \max\delta}{1 - "
        r"\min\delta}$. With $a$ and $b$ the extremes of $y$, the min-max value $(y - a)/(b - a)$ falls in $a$ and in "
        r"$b$, and $a \in [\rho m, m]$, $b \in [\max(y, \rho M), M]$. Upwards: if $x \le \rho M$, it is at most $\frac{x "
        r"- \rho m}{\rho (M - m)}$, which exceeds $\frac{x-m}{M-m}$ by $\frac{x(1/\rho - 1)}{M-m} \le "
        r"\frac{M(1-\rho)}{M-m}$; if $x > \rho M$, it is at most 1, which exceeds it by $\frac{M-x}{M-m} < "
        r"\frac{M(1-\rho)}{M-m}$. Downwards: if $\rho x \ge m$, it is at least $\frac{\rho x - m}{M-m}$, short by "
        r"$\frac{x(1-\rho)}{M-m}$; else $x < m/\rho$, and $\frac{x - m}{M - m} < \frac{(m/\rho)(1-\rho)}{M-m}$, or 1 "
        r"where $m/\rho > M$; but then the bound is over 1. *Second bound.* Divide by $1 - d$ instead: $y = x + (E^+ - "
        r"E^-)/(1 - d)$. Up to a constant, which min-max undoes, $y \in [x, x + \varepsilon]$ with $\varepsilon = "
        r"(\operatorname{ran} E^+ + \operatorname{ran} E^-)/(1 - d)$. As before, the value is at most $\frac{x + "
        r"\varepsilon - m}{M-m}$ and at least $\frac{x - \varepsilon - m}{M-m}$. *A constant $y$* has no min-max, and its map "
        r"is zeros: but then $\rho M \le m$ and $M - m \le \varepsilon$, so both bounds are at least 1. *Upsampling* takes means "
        r"of pixels with the same non-negative weights in both maps, and a mean of differences is no larger than the largest.",
        between,
    ),
    Theorem(
        4,
        "One family",
        r"$\lambda \to 0$ gives Grad-CAM+ exactly, times $Z/2$. $\lambda \to \infty$ gives $\lambda w_k \to n_k/s_k$, "
        r"where $s_k > 0$, with $n_k$ the number of units with positive gradient: the sizes of the gradients drop out. Where "
        r"$g$ is the gradient of a logit, multiplying the logits by $\tau > 0$ is the same as $\lambda \to \tau\lambda$: in "
        r"general Grad-CAM++ changes under a rescaling that changes neither the predicted class nor Grad-CAM+.",
        r"At $\lambda = 0$ each summand is $r/2$. For $s_k > 0$, $\lambda r/(2 + \lambda s_k r) \to 1/s_k$ where $r > 0$. "
        r"With $\tau g$ for $g$: $\tau r/(2 + \lambda s_k \tau r)$ is $\tau$ times the summand for $\tau\lambda$, and "
        r"min-max undoes the factor.",
        one_family,
    ),
    Theorem(
        5,
        "Average pooling and one linear layer",
        r"If the logit is $\sum_k v_k\, \overline{A^k} + b$, as in ResNet or MobileNetV2, then $s_k g$ is channel $k$'s own "
        r"contribution to it, and alpha depends on $k$ alone.",
        r"$g = v_k/Z$ at every unit of map $k$, so $s_k g = v_k s_k / Z = v_k\, \overline{A^k}$.",
        pooled_and_linear,
    ),
    Theorem(
        6,
        "Post-softmax",
        r"$\partial p_c = p_c (1 - p_c)\,(\partial z_c - \overline{\partial z})$, the mean taken over the other classes "
        r"with their probabilities as weights. As $p_c \to 1$ while $A$ and the $\partial z$ stay bounded, the products "
        r"$\lambda s_k g$ tend to 0 and all alphas (where $g \ne 0$) to $\tfrac12$.",
        r"$\partial p_c = p_c(\partial z_c - \sum_j p_j \partial z_j) = p_c\big((1 - p_c)\,\partial z_c - \sum_{j \ne c} "
        r"p_j \partial z_j\big)$, and the weights $p_j$ of the other classes add up to $1 - p_c$. The difference is at "
        r"most twice the largest $|\partial z_j|$ in size, so $\lambda s_k |g|$ is at most $2 \lambda s_k\, p_c (1 - p_c) \max "
        r"|\partial z_j|$, which tends to 0.",
        post_softmax,
    ),
    Theorem(
        7,
        "The extreme alphas are the float32 grid",
        r"Near $-2$ the float32 sum $2 + t$ is a multiple of $2^{-23}$ above and of $2^{-22}$ below. The paper's two "
        r"record values are $1/(-3\cdot 2^{-22})$ and $1/(15 \cdot 2^{-23})$, divided in float32: $-1398101.375$, "
        r"printed as $-1398101.4$, and $559240.5625$, printed as $559240.56$.",
        r"Floats from 1 to 2 in size are multiples of $2^{-23}$, from 2 to 4 of $2^{-22}$, and for $t \in [-4, -1]$ the "
        r"sum $2 + t$ is computed without rounding (Sterbenz's lemma). Only the division rounds.",
        float32_grid,
    ),
)
