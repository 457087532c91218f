"""The claims of section 4: relative performance, and whether it differs."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import sympy as sp
import torch

from gradcampp import cam, paper
from gradcampp.algebra import counterexamples
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import SCORES, Scores, column, explanation_map, min_max
from gradcampp.claims.claim import (
    EQUIVALENCE_MARGIN,
    NOT_TESTED,
    PAPER_RUN,
    ROUNDING,
    Claim,
    Finding,
    claim,
    empirical,
    empirical_of_scores,
    is_paper,
    sharpened,
    verdict,
)
from gradcampp.evaluation.records import Run
from gradcampp.paper import Pair
from gradcampp.performance import Summary, log_relative_performance, relative_performance, summaries

PLUSPLUS_VS_PLUS = paper.PAIRS[2]


@claim("4-coefficients", section="4", kind="numeric")
def scale_free() -> Finding:
    """A constant factor in front of the weights does not matter."""
    activations, gradients = random_layer(5)
    weights = cam.weights("gradcam+", activations, gradients)
    distance = float((min_max(cam.heatmap(weights, activations)) - min_max(cam.heatmap(7.3 * weights, activations))).abs().max())
    return verdict(distance < ROUNDING, f"weights times 7.3: min-max maps differ by {distance:.1e}")


@claim("eq-15", section="4", equation=15, kind="numeric")
def eq_15() -> Finding:
    """The explanation map is the image times its min-max map, pixel by pixel."""
    heat, pixels = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]]), torch.arange(12.0).reshape(1, 3, 2, 2)
    wanted = [[[heat[0, i, j] * pixels[0, c, i, j] for j in range(2)] for i in range(2)] for c in range(3)]
    holds = bool((explanation_map(heat, pixels)[0] == torch.tensor(wanted)).all())
    return verdict(holds, "pixel by pixel, the same heat for all three channels")


@claim("note-4", section="4", footnote=4, kind="numeric", expected="sharpened")
def similar_explanations() -> Finding:
    """Similar heatmaps give similar explanation maps."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand((2, 4, 8, 8), generator=generator, dtype=torch.float64)
    pixels = torch.rand((4, 3, 8, 8), generator=generator, dtype=torch.float64)
    moved = float((explanation_map(first, pixels) - explanation_map(second, pixels)).abs().max())
    apart = float((first - second).abs().max())
    holds = moved <= apart
    return sharpened(holds, f"|E - E'| <= |L - L'| at every pixel, as pixels are in [0, 1]: {moved:.3f} <= {apart:.3f}")


@claim("eq-16", section="4", equation=16, expected="sharpened")
def eq_16_is_17() -> Finding:
    """The geometric mean of the ratios is what eq. 17 computes."""
    ratios = sp.symbols("q_1:5", positive=True)
    logs = sp.exp(sum(sp.log(q) for q in ratios) / len(ratios))
    product_first = sp.log(sp.prod(ratios) ** sp.Rational(1, 4))
    symbolic_gap = sp.simplify(sp.expand_log(sp.log(logs), force=True) - sp.expand_log(product_first, force=True))
    scores, baseline = np.array([0.9, 0.2, 0.6]), np.array([0.5, 0.4, 0.6])
    direct = float(np.prod(scores / baseline)) ** (1 / 3)
    underflow = float(np.prod(np.full(1000, 0.1)))
    return sharpened(
        symbolic_gap == 0 and math.isclose(direct, relative_performance(scores, baseline), rel_tol=ROUNDING),
        f"product {direct:.12f}, logarithms {relative_performance(scores, baseline):.12f}; "
        f"the product underflows for 1,000 ratios of 0.1 ({underflow:g})",
    )


@claim("eq-17", section="4", equation=17, kind="numeric")
def eq_17() -> Finding:
    """Relative performance is the exponential of the mean log ratio."""
    first, second = [0.9, 0.1], [0.3, 0.2]
    logs = log_relative_performance(first, second)
    wanted = math.exp((math.log(3) + math.log(0.5)) / 2)
    holds = math.isclose(relative_performance(first, second), wanted, rel_tol=ROUNDING)
    return verdict(holds, f"exp of the mean of {[round(float(v), 4) for v in logs]} = {wanted:.6f}")


@claim("4-arithmetic", section="4")
def arithmetic_mean() -> Finding:
    """Averaging ratios arithmetically can mislead."""
    first, second = counterexamples.arithmetic_mean_of_ratios()
    return verdict(first > 1 and second > 1, f"two images: either method beats the other by {first}; the geometric mean says 1")


@claim("4-additive", section="4", table=2, kind="numeric")
def additive() -> Finding:
    """Mean log relative performances add up over a chain of methods."""
    generator = np.random.default_rng(0)
    a, b, c = generator.uniform(0.01, 1, (3, 50))
    gap = log_relative_performance(a, c).mean() - log_relative_performance(a, b).mean() - log_relative_performance(b, c).mean()
    return verdict(abs(gap) < ROUNDING, f"A vs C = A vs B + B vs C up to {abs(gap):.1e}")


@claim("tables-rounding", section="4", table=(1, 2), kind="numeric", expected="sharpened")
def rounding() -> Finding:
    """The entries of both tables are consistent with each other."""
    rooms = []  # for unrounded numbers that round to all the entries
    for scores in SCORES:
        bounds = []
        for pair in paper.PAIRS:
            entry = paper.CELLS[scores, pair]
            low = max(math.log(entry.relative_performance - 0.005), entry.mean - 0.005)
            bounds.append((low, min(math.log(entry.relative_performance + 0.005), entry.mean + 0.005)))
        (low, high), plus, over = bounds
        rooms.append(min(high, plus[1] + over[1]) - max(low, plus[0] + over[0]))
        rooms.extend(top - bottom for bottom, top in bounds)
    return sharpened(
        min(rooms) > 0,
        f"1.16 * 1.06 = {1.16 * 1.06:.4f} is printed 1.24 and 0.22 + 0.01 as 0.24: rounding, "
        f"not a contradiction (room {min(rooms):.4f})",
    )


def _interval(summary: Summary) -> str:
    return f"{summary.relative_performance:.3f} [{summary.low:.3f}, {summary.high:.3f}], n = {summary.n}"


def _compared(run: Run, scores: Scores) -> tuple[Summary, ...]:
    """Grad-CAM++ against Grad-CAM, Grad-CAM+ against Grad-CAM, and Grad-CAM++ against Grad-CAM+."""
    found = summaries(run.records)
    return tuple(found[scores, pair] for pair in paper.PAIRS)


@empirical("4-images", section="4", criterion="within 200", command=PAPER_RUN, expected=NOT_TESTED)
def images(run: Run) -> Finding:
    """4219 of the 10,000 images score over 0.5."""
    over = run.manifest["over_threshold"]
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{over} of {run.manifest['images']} here, of another network or other images")
    return verdict(abs(over - paper.IMAGES) <= 200, f"{over} of {run.manifest['images']}, paper {paper.IMAGES}")


@empirical_of_scores("4-better", section="4", table=1, criterion="95 % interval above 1")
def better(run: Run, scores: Scores) -> Finding:
    """Grad-CAM++ does better than Grad-CAM."""
    plusplus, _, _ = _compared(run, scores)
    return verdict(plusplus.low > 1, _interval(plusplus))


@empirical_of_scores("4-plus-better", section="4", table=1, criterion="95 % interval above 1")
def plus_better(run: Run, scores: Scores) -> Finding:
    """Grad-CAM+ does better than Grad-CAM."""
    _, plus, _ = _compared(run, scores)
    return verdict(plus.low > 1, _interval(plus))


@empirical_of_scores("4-sufficient", section="4", criterion="at least half of the mean log gain, which is positive")
def sufficient(run: Run, scores: Scores) -> Finding:
    """Positive gradients alone give most of the gain over Grad-CAM."""
    plusplus, plus, _ = _compared(run, scores)
    holds = plusplus.mean > 0 and plus.mean >= plusplus.mean / 2
    return verdict(holds, f"mean log gain over Grad-CAM: {plus.mean:.3f} of {plusplus.mean:.3f}")


@empirical_of_scores(
    "4-not-better",
    section="4",
    criterion=f"95 % interval reaches below {EQUIVALENCE_MARGIN}",
    sentence=f"Grad-CAM++ does not do significantly (here: by certainly more than a factor of {EQUIVALENCE_MARGIN}) better than "
    "Grad-CAM+.",
)
def not_much_better(run: Run, scores: Scores) -> Finding:  # noqa: D103
    _, _, extra = _compared(run, scores)
    return verdict(extra.low <= EQUIVALENCE_MARGIN, _interval(extra))


@empirical_of_scores(
    "4-equivalent",
    section=("4", "5"),
    criterion=f"95 % interval of the relative performance between 1/{EQUIVALENCE_MARGIN} and {EQUIVALENCE_MARGIN}",
)
def equivalent(run: Run, scores: Scores) -> Finding:
    """Grad-CAM++ and Grad-CAM+ are practically equivalent."""
    _, _, extra = _compared(run, scores)
    return verdict(extra.low > 1 / EQUIVALENCE_MARGIN and extra.high < EQUIVALENCE_MARGIN, _interval(extra))


@empirical_of_scores("table-2-narrowest", section="4", table=2, criterion="smallest std")
def narrowest(run: Run, scores: Scores) -> Finding:
    """Their ratio spreads least of the three pairs."""
    spreads = [summary.std for summary in _compared(run, scores)]
    text = ", ".join(f"{paper.pair_name(pair)} {spread:.3f}" for pair, spread in zip(paper.PAIRS, spreads, strict=True))
    return verdict(spreads[2] < min(spreads[:2]), text)


@empirical("4-post-closer", section="4", table=1, criterion="smaller mean log in size")
def post_is_closer(run: Run) -> Finding:
    """They are closer to each other post-softmax."""
    pre, post = (abs(_compared(run, scores)[2].mean) for scores in SCORES)
    return verdict(post < pre, f"|mean log|: pre {pre:.4f}, post {post:.1g}")


@empirical("4-post-narrower", section="4", table=2, criterion="smaller std")
def post_is_narrower(run: Run) -> Finding:
    """Their ratio spreads less post-softmax."""
    pre, post = (_compared(run, scores)[2].std for scores in SCORES)
    return verdict(post < pre, f"std: pre {pre:.3f}, post {post:.3f}")


@empirical("fig-6", section="4", figure=6, criterion="median within 0.05 of 1")
def figure_6(run: Run) -> Finding:
    """The ratios of Grad-CAM++ to Grad-CAM+ lie around 1."""
    medians = []
    for scores in SCORES:
        names = [column(scores, method) for method in PLUSPLUS_VS_PLUS]
        both = run.records[names].dropna()
        medians.append(float(np.exp(np.median(log_relative_performance(both[names[0]], both[names[1]])))))
    return verdict(
        all(abs(median - 1) < 0.05 for median in medians), f"median ratio: pre {medians[0]:.4f}, post {medians[1]:.4f}"
    )


@empirical("4-additive-run", section="4", table=2, criterion="within 1e-9")
def additive_run(run: Run) -> Finding:
    """The means of this run add up."""
    gaps = []
    for scores in SCORES:
        whole, plus, extra = _compared(run, scores)
        gaps.append(abs(whole.mean - plus.mean - extra.mean))
    return verdict(max(gaps) < 1e-9, f"largest gap {max(gaps):.1e}")


def _cell(run: Run, scores: Scores, pair: Pair, quantity: str) -> Finding:
    printed, ours = getattr(paper.CELLS[scores, pair], quantity), getattr(summaries(run.records)[scores, pair], quantity)
    text = f"paper {printed:.2f}, this run {ours:.3f}"
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{text}, of another network or other images")
    return verdict(abs(ours - printed) <= 0.05, text)


def _claim_of_cell(table: int, scores: Scores, pair: Pair, quantity: str, words: str) -> Claim:
    named = paper.pair_name(pair)
    pair_in_name = named.lower().replace("grad-cam", "gradcam").replace(" vs ", "-")
    return empirical(
        f"table-{table}-{scores}-{quantity.partition('_')[0]}-{pair_in_name}",
        section="4",
        table=table,
        criterion="within 0.05",
        command=PAPER_RUN,
        expected=NOT_TESTED,
        sentence=f"{named}, {scores}-softmax: {words} {getattr(paper.CELLS[scores, pair], quantity):.2f}.",
    )(partial(_cell, scores=scores, pair=pair, quantity=quantity))


CELLS = tuple(
    _claim_of_cell(table, scores, pair, quantity, words)
    for table, quantity, words in (
        (1, "relative_performance", "relative performance"),
        (2, "mean", "mean log ratio"),
        (2, "std", "its deviation"),
    )
    for scores in SCORES
    for pair in paper.PAIRS
)
