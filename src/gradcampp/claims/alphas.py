"""The claims of sections 3.2 to 3.4: the alphas, by formula and in a run."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
import torch

from gradcampp import cam
from gradcampp.algebra import derivation
from gradcampp.algebra.theorems import THEOREMS, random_layer, relative
from gradcampp.cam import Scores
from gradcampp.claims.claim import NOT_TESTED, ROUNDING, Finding, is_paper, verdict
from gradcampp.evaluation import alphas as alphas_module
from gradcampp.evaluation.records import Run


def _zero_alphas_do_not_count() -> Finding:
    activations, gradients = random_layer(2)
    gradients = torch.where(torch.arange(5) % 2 == 0, gradients, 0)
    distances = []
    for filled in (0.0, 0.5, 1e6):
        alphas = torch.where(gradients == 0, filled, cam.alphas(activations, gradients))
        distances.append(relative((alphas * gradients.relu()).sum((2, 3)), cam.weights("gradcam++", activations, gradients)))
    return verdict(max(distances) < ROUNDING, f"alpha = 0, 1/2 or 1e6 where g = 0: weights differ by {max(distances):.1e}")


def _eq_13() -> Finding:
    g, s = sp.symbols("g s", nonzero=True)
    return verdict(sp.simplify(derivation.equation_9(g, s) - derivation.equation_13(g, s)) == 0, "eq. 9 - eq. 13 = 0 for g not 0")


def _underflow() -> Finding:
    activations = torch.ones(1, 1, 1, 2)
    gradients = torch.tensor([[[[1e-25, 1e20]]]])
    raw, reduced = cam.alphas_unreduced(activations, gradients), cam.alphas(activations, gradients)
    return verdict(
        bool(raw.isnan().all() and reduced.isfinite().all()),
        f"float32, g = 1e-25 and 1e20: eq. 9 gives {raw.flatten().tolist()}, eq. 13 {reduced.flatten().tolist()}",
    )


def _unbounded() -> Finding:
    total, slopes = 1.0, [-1.9, -1.999, -1.99999]
    values = [1 / (2 + total * slope) for slope in slopes]
    tame = THEOREMS[0].check()
    return verdict(
        values[-1] > 9e4 and tame.holds,
        f"s g = {slopes}: alpha = {[round(v) for v in values]}; where g > 0 it never exceeds 1/2",
        sharpened=True,
    )


def _interval_of_3_3() -> Finding:
    low, high = (float(derivation.equation_13(sp.Rational(bound), 1)) for bound in ("0.15", "-0.2"))
    return verdict(
        abs(low - 0.48) < 0.005 and abs(high - 0.53) < 0.005,
        f"s g in (-0.2, 0.15) gives alpha in ({low:.3f}, {high:.3f}); (0.48, 0.53) belongs to s g in "
        f"({1 / 0.53 - 2:.3f}, {1 / 0.48 - 2:.3f})",
    )


def _eq_14() -> Finding:
    t = sp.Symbol("t", nonnegative=True)
    first = sp.series(1 / (2 + t), t, 0, 2).removeO()
    check = THEOREMS[2].check()
    return verdict(
        first.subs(t, 0) == sp.Rational(1, 2) and check.holds,
        f"1 / (2 + t) = {first} + ...; exactly w = (1 - delta) times it; {check.seen}",
        sharpened=True,
    )


SAME_MAP = 0.1  # two min-max maps that differ by no more than this at any pixel count as practically the same


def _median_half(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        box = alphas_module.box(run.alphas[scores])
        holds = abs(box.median - 0.5) < 0.01 and box.first_quartile > 0.4 and box.third_quartile < 0.6
        return verdict(holds, f"quartiles {box.first_quartile:.4f}, {box.median:.4f}, {box.third_quartile:.4f}")

    return check


def _small_terms(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        share = alphas_module.share(run.alphas[scores], 1 / (2 + 0.5), 1 / (2 - 0.5))
        return verdict(share > 0.5, f"{share:.1%} of the products are below 1/2 in size")

    return check


def _near_the_pole(run: Run) -> Finding:
    largest = max(abs(run.alphas["pre"].minimum), abs(run.alphas["pre"].maximum))
    return verdict(largest > 10, f"largest alpha {largest:.1f} in size: a denominator of {1 / largest:.1e}")


def _outliers_of_an_image(run: Run) -> Finding:
    low, high = (run.records["pre_alpha_min"] <= -83.78).sum(), (run.records["pre_alpha_max"] >= 42.94).sum()
    return verdict(bool(low and high), f"{low} images reach -83.78, {high} reach 42.94, of {len(run.records)}")


def _extremes(run: Run) -> Finding:
    stream = run.alphas["pre"]
    text = f"from {stream.minimum:.8g} to {stream.maximum:.8g}"
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{text} here, of another network or other images")
    return verdict(stream.minimum < -1e5 and stream.maximum > 1e5, text)


def _same_map(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        differences = run.records[f"{scores}_difference"].dropna()
        if differences.empty:
            return Finding(NOT_TESTED, "no image over the threshold has non-negative activations")
        share = (differences <= SAME_MAP).mean()
        return verdict(
            share > 0.5, f"{share:.1%} of {len(differences)} images; median of the largest difference {differences.median():.4f}"
        )

    return check
