"""The claims of section 4: relative performance, and whether it differs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch

from gradcampp import cam, paper
from gradcampp.algebra import counterexamples
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import SCORES, Scores, column, explanation_map, min_max
from gradcampp.claims.alphas import (
    SAME_MAP,
    _extremes,
    _median_half,
    _near_the_pole,
    _outliers_of_an_image,
    _same_map,
    _small_terms,
)
from gradcampp.claims.beyond import _certified, _finds_more_than_gradcam, _finds_more_than_plus, _only_tame, _points_at_the_object
from gradcampp.claims.claim import (
    ALPHAS,
    BEYOND,
    EQUIVALENCE_MARGIN,
    MATTERS,
    METHODS_CHAPTER,
    NOT_TESTED,
    PAPER_RUN,
    PLUS_VS_GRADCAM,
    PLUSPLUS_VS_GRADCAM,
    PLUSPLUS_VS_PLUS,
    ROUNDING,
    Claim,
    Finding,
    _both,
    _interval,
    _measured,
    _summary,
    is_paper,
    verdict,
)
from gradcampp.evaluation.records import Run
from gradcampp.paper import Pair
from gradcampp.performance import log_relative_performance, relative_performance


def _scale_free() -> Finding:
    activations, gradients = random_layer(5)
    weights = cam.weights("gradcam+", activations, gradients)
    distance = float((min_max(cam.heatmap(weights, activations)) - min_max(cam.heatmap(7.3 * weights, activations))).abs().max())
    return verdict(distance < ROUNDING, f"weights times 7.3: min-max maps differ by {distance:.1e}")


def _eq_15() -> Finding:
    heat, pixels = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]]), torch.arange(12.0).reshape(1, 3, 2, 2)
    wanted = [[[heat[0, i, j] * pixels[0, c, i, j] for j in range(2)] for i in range(2)] for c in range(3)]
    return verdict(
        bool((explanation_map(heat, pixels)[0] == torch.tensor(wanted)).all()),
        "pixel by pixel, the same heat for all three channels",
    )


def _similar_explanations() -> Finding:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand((2, 4, 8, 8), generator=generator, dtype=torch.float64)
    pixels = torch.rand((4, 3, 8, 8), generator=generator, dtype=torch.float64)
    moved = float((explanation_map(first, pixels) - explanation_map(second, pixels)).abs().max())
    apart = float((first - second).abs().max())
    return verdict(
        moved <= apart,
        f"|E - E'| <= |L - L'| at every pixel, as pixels are in [0, 1]: {moved:.3f} <= {apart:.3f}",
        sharpened=True,
    )


def _eq_16_is_17() -> Finding:
    ratios = sp.symbols("q_1:5", positive=True)
    logs = sp.exp(sum(sp.log(q) for q in ratios) / len(ratios))
    product_first = sp.log(sp.prod(ratios) ** sp.Rational(1, 4))
    symbolic_gap = sp.simplify(sp.expand_log(sp.log(logs), force=True) - sp.expand_log(product_first, force=True))
    scores, baseline = np.array([0.9, 0.2, 0.6]), np.array([0.5, 0.4, 0.6])
    direct = float(np.prod(scores / baseline)) ** (1 / 3)
    underflow = float(np.prod(np.full(1000, 0.1)))
    return verdict(
        symbolic_gap == 0 and math.isclose(direct, relative_performance(scores, baseline), rel_tol=ROUNDING),
        f"product {direct:.12f}, logarithms {relative_performance(scores, baseline):.12f}; "
        f"the product underflows for 1,000 ratios of 0.1 ({underflow:g})",
        sharpened=True,
    )


def _eq_17() -> Finding:
    first, second = [0.9, 0.1], [0.3, 0.2]
    logs = log_relative_performance(first, second)
    wanted = math.exp((math.log(3) + math.log(0.5)) / 2)
    return verdict(
        math.isclose(relative_performance(first, second), wanted, rel_tol=ROUNDING),
        f"exp of the mean of {[round(float(v), 4) for v in logs]} = {wanted:.6f}",
    )


def _arithmetic_mean() -> Finding:
    first, second = counterexamples.arithmetic_mean_of_ratios()
    return verdict(first > 1 and second > 1, f"two images: either method beats the other by {first}; the geometric mean says 1")


def _additive() -> Finding:
    generator = np.random.default_rng(0)
    a, b, c = generator.uniform(0.01, 1, (3, 50))
    gap = log_relative_performance(a, c).mean() - log_relative_performance(a, b).mean() - log_relative_performance(b, c).mean()
    return verdict(abs(gap) < ROUNDING, f"A vs C = A vs B + B vs C up to {abs(gap):.1e}")


def _rounding() -> Finding:
    """Whether unrounded numbers exist that round to all the entries of both tables."""
    rooms = []
    for scores in SCORES:
        bounds = []
        for pair in paper.PAIRS:
            entry = paper.CELLS[scores, pair]
            bounds.append(
                (
                    max(math.log(entry.relative_performance - 0.005), entry.mean - 0.005),
                    min(math.log(entry.relative_performance + 0.005), entry.mean + 0.005),
                )
            )
        (low, high), plus, over = bounds
        rooms.append(min(high, plus[1] + over[1]) - max(low, plus[0] + over[0]))
        rooms.extend(top - bottom for bottom, top in bounds)
    return verdict(
        min(rooms) > 0,
        f"1.16 * 1.06 = {1.16 * 1.06:.4f} is printed 1.24 and 0.22 + 0.01 as 0.24: rounding, "
        f"not a contradiction (room {min(rooms):.4f})",
        sharpened=True,
    )


def _better(scores: Scores, pair: Pair) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, pair)
        return verdict(summary.low > 1, _interval(summary))

    return check


def _equivalent(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, PLUSPLUS_VS_PLUS)
        return verdict(summary.low > 1 / EQUIVALENCE_MARGIN and summary.high < EQUIVALENCE_MARGIN, _interval(summary))

    return check


def _not_much_better(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, PLUSPLUS_VS_PLUS)
        return verdict(summary.low <= EQUIVALENCE_MARGIN, _interval(summary))

    return check


def _sufficient(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        plus, plusplus = _summary(run, scores, PLUS_VS_GRADCAM).mean, _summary(run, scores, PLUSPLUS_VS_GRADCAM).mean
        return verdict(plusplus > 0 and plus >= plusplus / 2, f"mean log gain over Grad-CAM: {plus:.3f} of {plusplus:.3f}")

    return check


def _narrowest(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        spreads = {pair: _summary(run, scores, pair).std for pair in paper.PAIRS}
        text = ", ".join(f"{paper.pair_name(pair)} {spread:.3f}" for pair, spread in spreads.items())
        return verdict(spreads[PLUSPLUS_VS_PLUS] < min(spreads[PLUSPLUS_VS_GRADCAM], spreads[PLUS_VS_GRADCAM]), text)

    return check


def _post_is_closer(run: Run) -> Finding:
    pre, post = (abs(_summary(run, scores, PLUSPLUS_VS_PLUS).mean) for scores in SCORES)
    return verdict(post < pre, f"|mean log|: pre {pre:.4f}, post {post:.1g}")


def _post_is_narrower(run: Run) -> Finding:
    pre, post = (_summary(run, scores, PLUSPLUS_VS_PLUS).std for scores in SCORES)
    return verdict(post < pre, f"std: pre {pre:.3f}, post {post:.3f}")


def _figure_6(run: Run) -> Finding:
    medians = []
    for scores in SCORES:
        names = [column(scores, method) for method in PLUSPLUS_VS_PLUS]
        both = run.records[names].dropna()
        medians.append(float(np.exp(np.median(log_relative_performance(both[names[0]], both[names[1]])))))
    return verdict(
        all(abs(median - 1) < 0.05 for median in medians), f"median ratio: pre {medians[0]:.4f}, post {medians[1]:.4f}"
    )


def _additive_run(run: Run) -> Finding:
    gaps = []
    for scores in SCORES:
        means = {pair: _summary(run, scores, pair).mean for pair in paper.PAIRS}
        gaps.append(abs(means[PLUSPLUS_VS_GRADCAM] - means[PLUS_VS_GRADCAM] - means[PLUSPLUS_VS_PLUS]))
    return verdict(max(gaps) < 1e-9, f"largest gap {max(gaps):.1e}")


def _entry(scores: Scores, pair: Pair, quantity: str) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        printed, ours = getattr(paper.CELLS[scores, pair], quantity), getattr(_summary(run, scores, pair), quantity)
        text = f"paper {printed:.2f}, this run {ours:.3f}"
        if not is_paper(run):
            return Finding(NOT_TESTED, f"{text}, of another network or other images")
        return verdict(abs(ours - printed) <= 0.05, text)

    return check


def _images(run: Run) -> Finding:
    over = run.manifest["over_threshold"]
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{over} of {run.manifest['images']} here, of another network or other images")
    return verdict(abs(over - paper.IMAGES) <= 200, f"{over} of {run.manifest['images']}, paper {paper.IMAGES}")


def _entries() -> list[Claim]:
    """One claim for each number in Tables 1 and 2."""
    claims = []
    numbers = ((1, "relative_performance", "relative performance"), (2, "mean", "mean log ratio"), (2, "std", "its deviation"))
    for table, quantity, text in numbers:
        for scores in SCORES:
            for pair in paper.PAIRS:
                printed = getattr(paper.CELLS[scores, pair], quantity)
                short = paper.pair_name(pair).lower().replace("grad-cam", "gradcam").replace(" vs ", "-")
                claims.append(
                    _measured(
                        f"table-{table}-{scores}-{quantity.partition('_')[0]}-{short}",
                        f"4, Table {table}",
                        f"{paper.pair_name(pair)}, {scores}-softmax: {text} {printed:.2f}.",
                        "within 0.05",
                        _entry(scores, pair, quantity),
                        MATTERS,
                        PAPER_RUN,
                    )
                )
    return claims


MEASURED: tuple[Claim, ...] = (
    _measured(
        "fig-1-2",
        "2.1.1, Figures 1 and 2",
        "The heatmap is hottest where the object of its class is.",
        "hottest pixel on the object in over half of the scenes with one, with its whole 95 % interval",
        _points_at_the_object,
        METHODS_CHAPTER,
        "gradcampp reproduce, which knows its scenes' masks",
    ),
    _measured(
        "2.2-instances",
        "2.2",
        "Grad-CAM++ finds several instances of an object better than Grad-CAM (a claim of its authors).",
        "recall of instances, 95 % interval above that of Grad-CAM for each number of objects from two",
        _finds_more_than_gradcam,
        BEYOND,
        "gradcampp reproduce, which knows its scenes' masks",
    ),
    _measured(
        "2.2-instances-alphas",
        "2.2",
        "Its alphas have a part in that: Grad-CAM++ finds more instances than Grad-CAM+, too.",
        "recall of instances over that of Grad-CAM+, 95 % interval above 0",
        _finds_more_than_plus,
        BEYOND,
        "gradcampp reproduce, which knows its scenes' masks",
    ),
    _measured(
        "3.2-pole",
        "3.2",
        "Denominators close to 0 do occur.",
        "an alpha over 10 in size",
        _near_the_pole,
        ALPHAS,
    ),
    *_both(
        "3.3-small",
        "3.3",
        "The second term of the denominator is usually small against 2",
        "over half below 1/2",
        _small_terms,
        ALPHAS,
    ),
    *_both(
        "fig-3-4",
        "3.3, Figures 3 and 4",
        "The non-zero alphas are nearly 1/2",
        "median within 0.01 of 1/2, quartiles within 0.1",
        _median_half,
        ALPHAS,
    ),
    *_both(
        "3.3-same-map",
        "3.3, Figure 5",
        "The map is practically that of Grad-CAM+ in most cases",
        f"no pixel differs by over {SAME_MAP} in over half of the images",
        _same_map,
        ALPHAS,
    ),
    _measured(
        "3.4-outliers",
        "3.4",
        "Single images have alphas as far out as -83.78 and 42.94.",
        "an image beyond each",
        _outliers_of_an_image,
        ALPHAS,
    ),
    _measured(
        "3.4-extremes",
        "3.4",
        "The extremes over all images are -1398101.4 and 559240.56.",
        "beyond 100,000 on both sides: the values themselves are chance",
        _extremes,
        ALPHAS,
        PAPER_RUN,
    ),
    _measured("4-images", "4", "4219 of the 10,000 images score over 0.5.", "within 200", _images, MATTERS, PAPER_RUN),
    *_both(
        "4-better",
        "4, Table 1",
        "Grad-CAM++ does better than Grad-CAM",
        "95 % interval above 1",
        lambda s: _better(s, PLUSPLUS_VS_GRADCAM),
        MATTERS,
    ),
    *_both(
        "4-plus-better",
        "4, Table 1",
        "Grad-CAM+ does better than Grad-CAM",
        "95 % interval above 1",
        lambda s: _better(s, PLUS_VS_GRADCAM),
        MATTERS,
    ),
    *_both(
        "4-sufficient",
        "4",
        "Positive gradients alone give most of the gain over Grad-CAM",
        "at least half of the mean log gain, which is positive",
        _sufficient,
        MATTERS,
    ),
    *_both(
        "4-not-better",
        "4",
        f"Grad-CAM++ does not do significantly (here: by certainly more than a factor of {EQUIVALENCE_MARGIN}) better than "
        "Grad-CAM+",
        f"95 % interval reaches below {EQUIVALENCE_MARGIN}",
        _not_much_better,
        MATTERS,
    ),
    *_both(
        "4-equivalent",
        "4 and 5",
        "Grad-CAM++ and Grad-CAM+ are practically equivalent",
        f"95 % interval of the relative performance between 1/{EQUIVALENCE_MARGIN} and {EQUIVALENCE_MARGIN}",
        _equivalent,
        MATTERS,
    ),
    *_both(
        "table-2-narrowest", "4, Table 2", "Their ratio spreads least of the three pairs", "smallest std", _narrowest, MATTERS
    ),
    _measured(
        "4-post-closer",
        "4, Table 1",
        "They are closer to each other post-softmax.",
        "smaller mean log in size",
        _post_is_closer,
        MATTERS,
    ),
    _measured(
        "4-post-narrower", "4, Table 2", "Their ratio spreads less post-softmax.", "smaller std", _post_is_narrower, MATTERS
    ),
    _measured(
        "fig-6",
        "4, Figure 6",
        "The ratios of Grad-CAM++ to Grad-CAM+ lie around 1.",
        "median within 0.05 of 1",
        _figure_6,
        MATTERS,
    ),
    _measured("4-additive-run", "4, Table 2", "The means of this run add up.", "within 1e-9", _additive_run, MATTERS),
    *_entries(),
    _measured(
        "theorem-1-run",
        "companion",
        "In this run no alpha over 1/2 reaches a weight.",
        "at most 1/2, exactly",
        _only_tame,
        BEYOND,
    ),
    _measured(
        "theorem-3-run",
        "companion",
        "In this run no pixel differs by more than its image's certificate.",
        "up to rounding (1e-9)",
        _certified,
        BEYOND,
    ),
)
