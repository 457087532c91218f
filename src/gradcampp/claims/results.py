"""The claims of section 4: relative performance, and whether it differs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from numpy.typing import NDArray
from scipy.stats import kurtosis, quantile_test
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from gradcampp import cam, paper
from gradcampp.algebra import counterexamples
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import SCORES, Scores, column, explanation_map, min_max
from gradcampp.claims.claim import (
    EQUIVALENCE_MARGIN,
    ROUNDING,
    Claim,
    Finding,
    above,
    below,
    cannot_tell,
    claim,
    empirical,
    empirical_of_scores,
    number,
    of_paper,
    ratio,
    require_paper,
    resampled,
    sharpened,
    verdict,
)
from gradcampp.equivalence import SHARE, Means, control, decide_both, decide_factor, is_large, of_run
from gradcampp.evaluation.records import Run
from gradcampp.paper import PAIRS, Pair
from gradcampp.performance import compared, interval, log_relative_performance, percent, relative_performance

PLUSPLUS_VS_PLUS = PAIRS[2]


@claim("4-coefficients", section="4", kind="numeric")
def scale_free() -> Finding:
    """A constant factor in front of the weights does not matter."""
    activations, gradients = random_layer(5)
    weights = cam.weights("gradcam+", activations, gradients)
    distance = float((min_max(cam.heatmap(weights, activations)) - min_max(cam.heatmap(7.3 * weights, activations))).abs().max())
    return verdict(distance < ROUNDING, f"weights times 7.3: min-max maps differ by {distance:.1e}")


@claim("eq-15", section="4", equation=15, kind="numeric", role="definition")
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
    apart = float((first - second).abs().max())

    def moved(pixels: Tensor) -> float:
        return float((explanation_map(first, pixels) - explanation_map(second, pixels)).abs().max())

    white, bright = moved(torch.ones_like(pixels)), moved(3 * torch.ones_like(pixels))
    told = f"|E - E'| <= |L - L'| at every pixel: {moved(pixels):.3f} <= {apart:.3f}"
    more = f"best possible, for a white picture has {white:.3f}; it needs pixels in [0, 1], for pixels of 3 have {bright:.3f}"
    return sharpened(moved(pixels) <= apart, f"{told}; {more}", more=white == apart < bright)


@claim("eq-16", section="4", equation=16, expected="sharpened")
def eq_16_is_17() -> Finding:
    """The geometric mean of the ratios is what eq. 17 computes."""
    ratios = sp.symbols("q_1:5", positive=True)
    symbolic, mean = sp.prod(ratios) ** sp.Rational(1, 4), sum(map(sp.log, ratios)) / 4
    scores, baseline = np.array([0.9, 0.2, 0.6]), np.array([0.5, 0.4, 0.6])
    direct, by_logs = float(np.prod(scores / baseline)) ** (1 / 3), relative_performance(scores, baseline)
    holds = sp.expand_log(sp.log(symbolic) - mean) == 0 and math.isclose(direct, by_logs, rel_tol=ROUNDING)
    product, root = float(np.prod(np.full(1000, 0.1))), relative_performance(np.full(1000, 0.1), np.ones(1000))
    more = f"for 1,000 ratios of 0.1 the product is {product:g} in float64, and by logarithms the mean is {root:.3f}"
    lost = product == 0 and math.isclose(root, 0.1, rel_tol=ROUNDING)
    return sharpened(holds, f"product {direct:.12f}, logarithms {by_logs:.12f}; {more}", more=lost)


@claim("eq-17", section="4", equation=17, kind="numeric", role="definition")
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


@claim("4-additive", section="4", table=2, kind="numeric", role="definition")
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
    whole, plus, over = (paper.CELLS["pre", pair].relative_performance for pair in PAIRS)
    total, first, second = (paper.CELLS["post", pair].mean for pair in PAIRS)
    told = f"{plus} * {over} = {plus * over:.4f} is printed {whole} and {first} + {second} as {total}"
    apart = round(plus * over, 2) != whole and round(first + second, 2) != total
    return sharpened(room > 0, f"{told}: rounding, not a contradiction (room {room:.4f})", more=apart)


def _logs(run: Run, scores: Scores, pairs: tuple[Pair, ...] = PAIRS) -> NDArray[np.float64]:
    """Log relative performance of the pairs in the images that have all scores, (len(pairs), n)."""
    compared(run.records, scores)
    rows = run.records[[column(scores, method) for method in cam.METHODS]].dropna()
    return np.array([log_relative_performance(*(rows[column(scores, method)] for method in pair)) for pair in pairs])


@of_paper("4-images", section="4", criterion="within 1.96 standard errors of a count")
def images(run: Run) -> Finding:
    """4219 of the 10,000 images score over 0.5."""
    over, count = run.manifest["over_threshold"], run.manifest["images"]
    text = f"{over} of {count}"
    require_paper(run, f"{text} here")
    room = 1.96 * (over * (1 - over / count)) ** 0.5
    return verdict(abs(over - paper.IMAGES) <= room, f"{text}, paper {paper.IMAGES}; sampling error {room:.0f}")


def _better(name: str, pair: Pair, sentence: str) -> tuple[Claim, ...]:
    """The claim that one method does better than another, for either kind of score."""

    def check(run: Run, scores: Scores) -> Finding:
        found = compared(run.records, scores)[pair]
        return above(found.low, found.high, 1, ratio(found), matters=EQUIVALENCE_MARGIN)

    said = f"95 % interval above 1; fails where it reaches 1 and ends below {EQUIVALENCE_MARGIN}"
    return empirical_of_scores(name, section="4", table=1, criterion=said, sentence=sentence)(check)


BETTER = _better("4-better", PAIRS[0], "Grad-CAM++ does better than Grad-CAM.")
PLUS_BETTER = _better("4-plus-better", PAIRS[1], "Grad-CAM+ does better than Grad-CAM.")


@empirical_of_scores("4-sufficient", section="4", criterion="at least half of the mean log gain, in a paired 95 % interval")
def sufficient(run: Run, scores: Scores) -> Finding:
    """Positive gradients alone give most of the gain over Grad-CAM."""
    whole, plus, _ = _logs(run, scores)
    rest = plus - whole / 2
    low, high = map(math.log, interval(float(rest.mean()), float(rest.std(ddof=1)), rest.size))
    gain = compared(run.records, scores)[PAIRS[0]]
    told = f"log gain {plus.mean():.3f}, of Grad-CAM++ {whole.mean():.3f}; over half of the latter by [{low:.3f}, {high:.3f}]"
    return above(low, high, 0, told) if gain.low > 1 else cannot_tell(f"{told}; the gain itself may be none")


@empirical_of_scores(
    "4-not-better",
    section="4",
    criterion=f"95 % interval below {EQUIVALENCE_MARGIN}; fails where it is above",
    sentence=f"Grad-CAM++ does not do better than Grad-CAM+ by as much as a factor of {EQUIVALENCE_MARGIN}.",
)
def not_much_better(run: Run, scores: Scores) -> Finding:
    """Significant means, here as in the chapter, that the 95 % interval excludes 1."""
    found = compared(run.records, scores)[PLUSPLUS_VS_PLUS]
    differs = "significantly" if found.low > 1 or found.high < 1 else "not significantly"
    return below(found.low, found.high, EQUIVALENCE_MARGIN, f"{ratio(found)}, {differs} different from 1")


@empirical_of_scores(
    "4-equivalent",
    section=("4", "5"),
    criterion=f"their difference is certainly less than {SHARE:.0%} of the gain over Grad-CAM (two one-sided tests at 5 %), "
    "by image, and by class where classes have several images, and where that is more than a factor of "
    f"{EQUIVALENCE_MARGIN}, certainly less than that factor, too; fails where it is certainly more",
)
def equivalent(run: Run, scores: Scores) -> Finding:
    """Grad-CAM++ and Grad-CAM+ are practically equivalent."""
    found = of_run(run.records, scores)
    decisions = {decide_both(means, EQUIVALENCE_MARGIN) for means in found.values()}
    told = "; ".join(f"{name} {_share(means)}" for name, means in found.items())
    means = found["by image"]
    factor = f"by a factor of {EQUIVALENCE_MARGIN} alone {decide_factor(means, EQUIVALENCE_MARGIN)}"
    if control(means, EQUIVALENCE_MARGIN) == "equivalent":
        factor += ", as it calls Grad-CAM and Grad-CAM++, so that it decides nothing"
    elif is_large(means, EQUIVALENCE_MARGIN):
        factor += f", and {SHARE:.0%} of the gain is a factor of {number(math.exp(SHARE * float(means.gain)))}"
    told = f"share of the gain: {told}; {factor}"
    if len(decisions) > 1 or decisions == {"cannot tell"}:
        return cannot_tell(told)
    return verdict(decisions == {"equivalent"}, told)


def _share(means: Means) -> str:
    low, high = means.share().hull()
    if math.isinf(low):
        return f"none, as a gain over Grad-CAM is not certain, n = {means.n}"
    share = number(float(means.difference / means.gain), "+")
    return f"{share} [{number(low, '+')}, {number(high, '+')}], n = {means.n}"


@empirical_of_scores(
    "4-consistent",
    section=("4", "3.3"),
    criterion=f"scores within a factor of {EQUIVALENCE_MARGIN} in 95 % of the images, by Wilson's 95 % interval",
)
def consistent(run: Run, scores: Scores) -> Finding:
    """Grad-CAM++ and Grad-CAM+ agree consistently, image by image."""
    logs = _logs(run, scores, (PLUSPLUS_VS_PLUS,))[0]
    close = int((np.abs(logs) < math.log(EQUIVALENCE_MARGIN)).sum())
    low, high = proportion_confint(close, logs.size, method="wilson")
    share, *ends = map(percent, (close / logs.size, low, high))
    return above(low, high, 0.95, f"{close} of {logs.size} images: {share} [{', '.join(ends)}]")


@empirical_of_scores("table-2-narrowest", section="4", table=2, criterion="smallest std, by a 95 % bootstrap interval")
def narrowest(run: Run, scores: Scores) -> Finding:
    """Their ratio spreads least of the three pairs."""

    def excess(whole: Any, plus: Any, over: Any, axis: int) -> Any:
        return np.std(over, axis) - np.minimum(np.std(whole, axis), np.std(plus, axis))

    logs = _logs(run, scores)
    low, high = resampled(excess, *logs)
    spreads = zip(PAIRS, logs.std(1, ddof=1), strict=True)
    text = ", ".join(f"{paper.pair_name(pair)} {spread:.3f}" for pair, spread in spreads)
    return below(low, high, 0, f"{text}; less than the others' by [{-high:.3f}, {-low:.3f}]")


def _pre_and_post(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log ratios of Grad-CAM++ and Grad-CAM+ in the images that have both, pre and post, (n,) each."""
    for scores in SCORES:
        compared(run.records, scores)
    names = [column(scores, method) for scores in SCORES for method in PLUSPLUS_VS_PLUS]
    rows = run.records[names].dropna()
    pre, post = (log_relative_performance(rows[first], rows[second]) for first, second in (names[:2], names[2:]))
    return pre, post


@empirical(
    "4-post-closer",
    section="4",
    table=1,
    criterion="smaller mean log in size, by a 95 % bootstrap interval",
    expected="cannot tell",
)
def post_is_closer(run: Run) -> Finding:
    """They are closer to each other post-softmax."""

    def excess(pre: Any, post: Any, axis: int) -> Any:
        return np.abs(post.mean(axis)) - np.abs(pre.mean(axis))

    logs = _pre_and_post(run)
    low, high = resampled(excess, *logs)
    pre, post = (abs(float(values.mean())) for values in logs)
    return below(low, high, 0, f"|mean log|: pre {pre:.4f}, post {post:.1g}; difference [{low:.4f}, {high:.4f}]")


@empirical("4-post-narrower", section="4", table=2, criterion="smaller std, by a 95 % bootstrap interval")
def post_is_narrower(run: Run) -> Finding:
    """Their ratio spreads less post-softmax."""

    def excess(pre: Any, post: Any, axis: int) -> Any:
        return np.std(post, axis) - np.std(pre, axis)

    logs = _pre_and_post(run)
    low, high = resampled(excess, *logs)
    pre, post = (float(values.std(ddof=1)) for values in logs)
    return below(low, high, 0, f"std: pre {pre:.3f}, post {post:.3f}; difference [{low:.3f}, {high:.3f}]")


@empirical("fig-6", section="4", figure=6, criterion="95 % interval of the median within 0.05 of 1; fails where it is outside")
def figure_6(run: Run) -> Finding:
    """The ratios of Grad-CAM++ to Grad-CAM+ lie around 1."""
    texts, inside, outside = [], [], []
    for scores, logs in zip(SCORES, _pre_and_post(run), strict=True):
        ratios = np.exp(logs)
        ends: Any = quantile_test(ratios, p=0.5).confidence_interval(0.95)  # of ranks: exact for any distribution
        low, high = ends
        texts.append(f"{scores} {np.median(ratios):.4f} [{low:.4f}, {high:.4f}]")
        inside.append(low > 0.95 and high < 1.05)
        outside.append(low > 1.05 or high < 0.95)
    told = f"median ratio: {', '.join(texts)}"
    return verdict(all(inside), told) if all(inside) or any(outside) else cannot_tell(told)


@empirical("4-additive-run", section="4", table=2, criterion="within 1e-9", role="definition")
def additive_run(run: Run) -> Finding:
    """The means of this run add up."""
    means = [[summary.mean for summary in compared(run.records, scores).values()] for scores in SCORES]
    gap = max(abs(whole - plus - extra) for whole, plus, extra in means)
    return verdict(gap < 1e-9, f"largest gap {gap:.1e}")


def _error(quantity: str, logs: NDArray[np.float64]) -> float:
    """Standard error of an entry of Tables 1 and 2; that of a deviation holds for any distribution with a fourth moment."""
    n, spread = logs.size, float(logs.std(ddof=1))
    if quantity == "std":
        return spread * math.sqrt((float(kurtosis(logs, fisher=False)) - 1) / (4 * n))
    return spread / math.sqrt(n) * (math.exp(float(logs.mean())) if quantity == "relative_performance" else 1)


def _cell(table: int, quantity: str, words: str, scores: Scores, pair: Pair) -> Claim:
    """The claim that a run of the paper's experiment finds a number of Tables 1 and 2."""
    named, printed = paper.pair_name(pair), getattr(paper.CELLS[scores, pair], quantity)

    def check(run: Run) -> Finding:
        ours = getattr(compared(run.records, scores)[pair], quantity)
        room = 0.005 + 1.96 * _error(quantity, _logs(run, scores, (pair,))[0])
        text = f"paper {printed:.2f}, this run {ours:z.3f}, room {room:.3f}"
        require_paper(run, text)
        return verdict(abs(ours - printed) <= room, text)

    name = f"table-{table}-{scores}-{quantity.partition('_')[0]}-{'-'.join(pair)}"
    sentence = f"{named}, {scores}-softmax: {words} {printed:.2f}."
    criterion = "within half a unit of the last digit and 1.96 standard errors of this run"
    return of_paper(name, section="4", table=table, criterion=criterion, sentence=sentence)(check)


QUANTITIES = ((1, "relative_performance", "relative performance"), (2, "mean", "mean log ratio"), (2, "std", "its deviation"))
CELLS = tuple(
    _cell(table, quantity, words, scores, pair) for table, quantity, words in QUANTITIES for scores in SCORES for pair in PAIRS
)
