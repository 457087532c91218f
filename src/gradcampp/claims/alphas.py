"""The claims of sections 3.2 to 3.4: the alphas, by formula and in a run."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import sympy as sp
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from gradcampp import cam
from gradcampp.algebra import derivation
from gradcampp.algebra.theorems import CHECKS, random_layer, relative
from gradcampp.cam import Scores
from gradcampp.claims.claim import (
    CHAPTERS,
    COMPANION,
    ROUNDING,
    Finding,
    UntestedError,
    alphas,
    cannot_tell,
    claim,
    empirical,
    empirical_of_scores,
    of_paper,
    require_bounds,
    require_paper,
    sharpened,
    values,
    verdict,
)
from gradcampp.evaluation.alphas import box, share
from gradcampp.evaluation.records import Run
from gradcampp.performance import percent
from gradcampp.shrinkage import shrinkage

SAME_MAP = 0.1  # two min-max maps that differ by no more than this at any pixel count as practically the same


@claim("eq-13", section="3.2", equation=13)
def eq_13() -> Finding:
    """Eq. 13 equals eq. 9 wherever the gradient is not 0."""
    g, s = sp.symbols("g s", nonzero=True)
    return verdict(sp.simplify(derivation.equation_9(g, s) - derivation.equation_13(g, s)) == 0, "eq. 9 - eq. 13 = 0 for g not 0")


@claim("3.2-powers", section="3.2", kind="numeric")
def underflow() -> Finding:
    """Eq. 13 under- and overflows less than eq. 9."""
    activations, gradients = torch.ones(1, 1, 1, 2), torch.tensor([[[[1e-25, 1e20]]]])
    raw, reduced = (formula(activations, gradients).flatten() for formula in (cam.alphas_unreduced, cam.alphas))
    told = f"float32, g = 1e-25 and 1e20: eq. 9 gives {raw.tolist()}, eq. 13 {reduced.tolist()}"
    return verdict(bool(raw.isnan().all() and reduced.isfinite().all()), told)


@claim("3.2-unbounded", section="3.2", expected="sharpened")
def unbounded() -> Finding:
    """Nothing keeps the denominator away from 0."""
    slopes = [-1.9, -1.999, -1.99999]
    poles = [round(1 / (2 + slope)) for slope in slopes]
    told = f"s g = {slopes}: alpha = {poles}; where g > 0 it never exceeds 1/2"
    return sharpened(poles[-1] > 9e4, told, more=CHECKS[1]().holds)


@empirical("3.2-pole", section="3.2", criterion="an alpha over 10 in size")
def near_the_pole(run: Run) -> Finding:
    """Denominators close to 0 do occur."""
    seen = alphas(run, "pre")
    largest = max(abs(seen.minimum), abs(seen.maximum))
    return verdict(largest > 10, f"largest alpha {largest:.1f} in size: a denominator of {1 / largest:.1e}")


@claim("3.3-zeros", section="3.3", kind="numeric")
def zero_alphas_do_not_count() -> Finding:
    """Alphas at zero gradients play no role."""
    activations, gradients = random_layer(2)
    gradients = torch.where(torch.arange(5) % 2 == 0, gradients, 0)
    own, weights = cam.alphas(activations, gradients), cam.weights("gradcam++", activations, gradients)
    filled = [torch.where(gradients == 0, value, own) for value in (0.0, 0.5, 1e6)]
    distance = max(relative((every * gradients.relu()).sum((2, 3)), weights) for every in filled)
    return verdict(distance < ROUNDING, f"alpha = 0, 1/2 or 1e6 where g = 0: weights differ by {distance:.1e}")


@claim("3.3-interval", section="3.3", kind="numeric", expected="cannot tell")
def interval() -> Finding:
    """Products in (-0.2, 0.15) give alphas from 0.48 to 0.53, approximately."""
    low, high = (float(derivation.equation_13(sp.Rational(bound), 1)) for bound in ("0.15", "-0.2"))
    told = f"s g in (-0.2, 0.15) gives alpha in ({low:.3f}, {high:.3f})"
    belongs = f"(0.48, 0.53) belongs to s g in ({1 / 0.53 - 2:.3f}, {1 / 0.48 - 2:.3f})"
    fits = abs(low - 0.48) < 0.005 and abs(high - 0.53) < 0.005
    return verdict(True, told) if fits else cannot_tell(f"{told}; {belongs}; the digits may be faults of our copy")


@claim("eq-14", section="3.3", equation=14, expected="sharpened")
def eq_14() -> Finding:
    """Grad-CAM++ weights are about half the sum of the positive gradients."""
    t = sp.Symbol("t", nonnegative=True)
    first, layer = sp.series(1 / (2 + t), t, 0, 2).removeO(), random_layer(14)
    exact, deltas = (1 - shrinkage(*layer)) * layer[1].relu().sum((2, 3)) / 2, shrinkage(*layer)
    off = relative(exact, cam.weights("gradcam++", *layer))
    told = f"1 / (2 + t) = {first} + ...; exactly w = (1 - delta) times it, off by {off:.1e}, for delta up to {deltas.max():.3f}"
    return sharpened(first.subs(t, 0) == sp.Rational(1, 2), told, more=off < ROUNDING and float(deltas.max()) > ROUNDING)


@empirical_of_scores("3.3-small", section="3.3", criterion="over half below 1/2")
def small_terms(run: Run, scores: Scores) -> Finding:
    """The second term of the denominator is usually small against 2."""
    small = share(alphas(run, scores), 1 / (2 + 0.5), 1 / (2 - 0.5))
    return verdict(small > 0.5, f"{percent(small)} of the products are below 1/2 in size")


@empirical_of_scores("fig-3-4", section="3.3", figure=(3, 4), criterion="median within 0.01 of 1/2, quartiles within 0.1")
def median_half(run: Run, scores: Scores) -> Finding:
    """The non-zero alphas are nearly 1/2."""
    seen = box(alphas(run, scores))
    holds = abs(seen.median - 0.5) < 0.01 and seen.first_quartile > 0.4 and seen.third_quartile < 0.6
    return verdict(holds, f"quartiles {seen.first_quartile:.4f}, {seen.median:.4f}, {seen.third_quartile:.4f}")


@empirical_of_scores(
    "3.3-same-map", section="3.3", figure=5, criterion=f"no pixel differs by over {SAME_MAP} in over half of the images"
)
def same_map(run: Run, scores: Scores) -> Finding:
    """The map is practically that of Grad-CAM+ in most cases."""
    require_bounds(run)
    differences = values(run, f"{scores}_difference")
    same = (differences <= SAME_MAP).mean()
    told = f"{percent(same)} of {len(differences)} images; median of the largest difference {differences.median():.4f}"
    return verdict(same > 0.5, told)


@empirical_of_scores(
    "3.3-half-positive",
    section="3.3",
    criterion="quartiles of those at positive gradients within 0.1 of 1/2",
    expected="fails",
    post="holds",
)
def half_where_it_counts(run: Run, scores: Scores) -> Finding:
    """The alphas that enter a weight, those at positive gradients, are nearly 1/2."""
    require_bounds(run)
    first, median, third = astuple(box(alphas(run, scores, positive=True)))[1:4]
    return verdict(first >= 0.4, f"quartiles {first:.3f}, {median:.3f}, {third:.3f} where g > 0; theorem 1: none is over 1/2")


@empirical_of_scores(
    "3.3-half-weighted", section="3.3", criterion="within 0.1 of 1/2 in over half of the images", expected="fails", post="holds"
)
def half_by_contribution(run: Run, scores: Scores) -> Finding:
    """The alphas are nearly 1/2 in the mean over what each unit adds to the map."""
    require_bounds(run)
    found = values(run, f"{scores}_effective_alpha")
    told = f"{percent((found >= 0.4).mean())} of {len(found)} images; median {found.median():.3f}"
    return verdict((found >= 0.4).mean() > 0.5, told)


@empirical_of_scores(
    "3.3-even",
    section=COMPANION,
    chapter=CHAPTERS["3"],
    criterion="certainly (95 %) larger rank correlation with the difference of the maps than that of 1/2 - alpha",
)
def unevenness_decides(run: Run, scores: Scores) -> Finding:
    """The difference of the two maps follows the unevenness of the shrinkage more than the distance of the alphas from 1/2."""
    require_bounds(run)
    names = [f"{scores}_{name}" for name in ("difference", "unevenness", "effective_alpha")]
    rows = run.records[names].dropna()
    if len(rows) < 30:
        raise UntestedError(f"{len(rows)} images; a rank correlation takes 30")
    ranked = rows.assign(**{names[2]: -rows[names[2]]}).corr("spearman").to_numpy()
    uneven, far, p = ranked[0, 1], ranked[0, 2], _same_correlation(ranked, len(rows))
    told = f"rank correlation {uneven:.3f} with the unevenness, {far:.3f} with 1/2 - alpha, n = {len(rows)}, p = {p:.2g}"
    return verdict(bool(uneven > far), told) if p < 0.05 else cannot_tell(told)


def _same_correlation(correlations: NDArray[np.float64], n: int) -> float:
    """p of the hypothesis that a first quantity correlates alike with a second and a third, (3, 3), two-sided.

    Source: Williams (1959), as recommended by Steiger (1980), "Tests for comparing elements of a correlation matrix".
    """
    first, second, third = correlations[0, 1], correlations[0, 2], correlations[1, 2]
    spread = 2 * (n - 1) / (n - 3) * np.linalg.det(correlations) + ((first + second) / 2) ** 2 * (1 - third) ** 3
    if spread <= 0:  # the second and the third are one
        return 1.0
    t = (first - second) * math.sqrt((n - 1) * (1 + third) / spread)
    return float(2 * student.sf(abs(t), n - 3))


@empirical("3.1.4-run", section="3.1.4", chapter=CHAPTERS["3.1"], criterion="the sum within 10 % of 1 in no image")
def equation_6_unsolved(run: Run) -> Finding:
    """The alphas that are used do not solve the equation that they come from: the sum that eq. 6 asks to be 1 is not."""
    require_bounds(run)
    sums = values(run, "pre_equation_6")
    return verdict(bool(((sums - 1).abs() > 0.1).all()), f"from {sums.min():.4g} to {sums.max():.4g}, median {sums.median():.4g}")


@of_paper("3.4-outliers", section="3.4", criterion="one image beyond both")
def outliers_of_an_image(run: Run) -> Finding:
    """An image can have alphas as far out as -83.78 and 42.94."""
    alphas(run, "pre")
    far = (run.records["pre_alpha_min"] <= -83.78) & (run.records["pre_alpha_max"] >= 42.94)
    text = f"{far.sum()} of {len(run.records)} images reach both"
    require_paper(run, text)
    return verdict(bool(far.any()), text)


@of_paper("3.4-extremes", section="3.4", criterion="beyond 100,000 on both sides: the values themselves are chance")
def extremes(run: Run) -> Finding:
    """The extremes over all images are -1398101.4 and 559240.56."""
    low, high = alphas(run, "pre").minimum, alphas(run, "pre").maximum
    text = f"from {low:.8g} to {high:.8g}"
    require_paper(run, f"{text} here")
    return verdict(low < -1e5 and high > 1e5, text)
