"""The claims of section 4: relative performance, and whether it differs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
import torch

from gradcampp import cam, paper
from gradcampp.algebra import counterexamples
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import SCORES, Scores, column, explanation_map, min_max
from gradcampp.claims.claim import (
    EQUIVALENCE_MARGIN,
    ROUNDING,
    Claim,
    Finding,
    claim,
    empirical,
    empirical_of_scores,
    of_paper,
    require_paper,
    sharpened,
    verdict,
)
from gradcampp.evaluation.records import Run
from gradcampp.paper import PAIRS, Pair
from gradcampp.performance import Summary, log_relative_performance, relative_performance, summaries

PLUSPLUS_VS_PLUS = PAIRS[2]


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
    told = f"|E - E'| <= |L - L'| at every pixel, as pixels are in [0, 1]: {moved:.3f} <= {apart:.3f}"
    return sharpened(moved <= apart, told)


@claim("eq-16", section="4", equation=16, expected="sharpened")
def eq_16_is_17() -> Finding:
    """The geometric mean of the ratios is what eq. 17 computes."""
    ratios = sp.symbols("q_1:5", positive=True)
    root, mean = sp.prod(ratios) ** sp.Rational(1, 4), sum(map(sp.log, ratios)) / 4
    scores, baseline = np.array([0.9, 0.2, 0.6]), np.array([0.5, 0.4, 0.6])
    direct, by_logs = float(np.prod(scores / baseline)) ** (1 / 3), relative_performance(scores, baseline)
    holds = sp.expand_log(sp.log(root) - mean) == 0 and math.isclose(direct, by_logs, rel_tol=ROUNDING)
    underflow = f"the product underflows for 1,000 ratios of 0.1 ({np.prod(np.full(1000, 0.1)):g})"
    return sharpened(holds, f"product {direct:.12f}, logarithms {by_logs:.12f}; {underflow}")


@claim("eq-17", section="4", equation=17, kind="numeric")
def eq_17() -> Finding:
    """Relative performance is the exponential of the mean log ratio."""
    first, second = [0.9, 0.1], [0.3, 0.2]
    logs = [round(float(v), 4) for v in log_relative_performance(first, second)]
    wanted = math.exp((math.log(3) + math.log(0.5)) / 2)
    holds = math.isclose(relative_performance(first, second), wanted, rel_tol=ROUNDING)
    return verdict(holds, f"exp of the mean of {logs} = {wanted:.6f}")


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
    room = math.inf  # for unrounded numbers that round to all the entries
    for scores in SCORES:
        cells = [paper.CELLS[scores, pair] for pair in PAIRS]
        low = [max(math.log(cell.relative_performance - 0.005), cell.mean - 0.005) for cell in cells]
        high = [min(math.log(cell.relative_performance + 0.005), cell.mean + 0.005) for cell in cells]
        chain = min(high[0], high[1] + high[2]) - max(low[0], low[1] + low[2])
        room = min(room, chain, *(top - bottom for bottom, top in zip(low, high, strict=True)))
    told = f"1.16 * 1.06 = {1.16 * 1.06:.4f} is printed 1.24 and 0.22 + 0.01 as 0.24: rounding, not a contradiction"
    return sharpened(room > 0, f"{told} (room {room:.4f})")


def _compared(run: Run, scores: Scores) -> tuple[Summary, ...]:
    """Grad-CAM++ against Grad-CAM, Grad-CAM+ against Grad-CAM, and Grad-CAM++ against Grad-CAM+."""
    found = summaries(run.records)
    return tuple(found[scores, pair] for pair in PAIRS)


@of_paper("4-images", section="4", criterion="within 200")
def images(run: Run) -> Finding:
    """4219 of the 10,000 images score over 0.5."""
    over, text = run.manifest["over_threshold"], "{over_threshold} of {images}".format_map(run.manifest)
    require_paper(run, f"{text} here")
    return verdict(abs(over - paper.IMAGES) <= 200, f"{text}, paper {paper.IMAGES}")


def _of_interval(
    name: str, pair: Pair, criterion: str, holds: Callable[[Summary], bool], sentence: str, **more: Any
) -> tuple[Claim, ...]:
    """A claim about the 95 % interval of the relative performance of a pair of methods, for either kind of score."""

    def check(run: Run, scores: Scores) -> Finding:
        found = summaries(run.records)[scores, pair]
        return verdict(holds(found), f"{found.relative_performance:.3f} [{found.low:.3f}, {found.high:.3f}], n = {found.n}")

    return empirical_of_scores(name, criterion=f"95 % interval {criterion}", sentence=sentence, **{"section": "4"} | more)(check)


def _better(summary: Summary) -> bool:
    return summary.low > 1


BETTER = _of_interval("4-better", PAIRS[0], "above 1", _better, "Grad-CAM++ does better than Grad-CAM.", table=1)
PLUS_BETTER = _of_interval("4-plus-better", PAIRS[1], "above 1", _better, "Grad-CAM+ does better than Grad-CAM.", table=1)


@empirical_of_scores("4-sufficient", section="4", criterion="at least half of the mean log gain, which is positive")
def sufficient(run: Run, scores: Scores) -> Finding:
    """Positive gradients alone give most of the gain over Grad-CAM."""
    plusplus, plus, _ = _compared(run, scores)
    holds = plusplus.mean > 0 and plus.mean >= plusplus.mean / 2
    return verdict(holds, f"mean log gain over Grad-CAM: {plus.mean:.3f} of {plusplus.mean:.3f}")


NOT_MUCH_BETTER = _of_interval(
    "4-not-better",
    PLUSPLUS_VS_PLUS,
    f"reaches below {EQUIVALENCE_MARGIN}",
    lambda ours: ours.low <= EQUIVALENCE_MARGIN,
    f"Grad-CAM++ does not do significantly (here: by certainly more than a factor of {EQUIVALENCE_MARGIN}) better than "
    "Grad-CAM+.",
)
EQUIVALENT = _of_interval(
    "4-equivalent",
    PLUSPLUS_VS_PLUS,
    f"of the relative performance between 1/{EQUIVALENCE_MARGIN} and {EQUIVALENCE_MARGIN}",
    lambda ours: ours.low > 1 / EQUIVALENCE_MARGIN and ours.high < EQUIVALENCE_MARGIN,
    "Grad-CAM++ and Grad-CAM+ are practically equivalent.",
    section=("4", "5"),
)


@empirical_of_scores("table-2-narrowest", section="4", table=2, criterion="smallest std")
def narrowest(run: Run, scores: Scores) -> Finding:
    """Their ratio spreads least of the three pairs."""
    spreads = [summary.std for summary in _compared(run, scores)]
    text = ", ".join(f"{paper.pair_name(pair)} {spread:.3f}" for pair, spread in zip(PAIRS, spreads, strict=True))
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
    both = [run.records[[column(scores, method) for method in PLUSPLUS_VS_PLUS]].dropna().to_numpy().T for scores in SCORES]
    pre, post = (float(np.exp(np.median(log_relative_performance(*columns)))) for columns in both)
    return verdict(abs(pre - 1) < 0.05 and abs(post - 1) < 0.05, f"median ratio: pre {pre:.4f}, post {post:.4f}")


@empirical("4-additive-run", section="4", table=2, criterion="within 1e-9")
def additive_run(run: Run) -> Finding:
    """The means of this run add up."""
    means = [[summary.mean for summary in _compared(run, scores)] for scores in SCORES]
    gap = max(abs(whole - plus - extra) for whole, plus, extra in means)
    return verdict(gap < 1e-9, f"largest gap {gap:.1e}")


def _cell(table: int, quantity: str, words: str, scores: Scores, pair: Pair) -> Claim:
    """The claim that a run of the paper's experiment finds a number of Tables 1 and 2."""
    named, printed = paper.pair_name(pair), getattr(paper.CELLS[scores, pair], quantity)

    def check(run: Run) -> Finding:
        ours = getattr(summaries(run.records)[scores, pair], quantity)
        text = f"paper {printed:.2f}, this run {ours:.3f}"
        require_paper(run, text)
        return verdict(abs(ours - printed) <= 0.05, text)

    name = f"table-{table}-{scores}-{quantity.partition('_')[0]}-{'-'.join(pair)}"
    sentence = f"{named}, {scores}-softmax: {words} {printed:.2f}."
    return of_paper(name, section="4", table=table, criterion="within 0.05", sentence=sentence)(check)


QUANTITIES = ((1, "relative_performance", "relative performance"), (2, "mean", "mean log ratio"), (2, "std", "its deviation"))
CELLS = tuple(
    _cell(table, quantity, words, scores, pair) for table, quantity, words in QUANTITIES for scores in SCORES for pair in PAIRS
)
