"""The claims of the paper, and ours, that are judged on the records of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from gradcampp import accumulate, paper, tables
from gradcampp.config import SCORES, Scores, column
from gradcampp.ledger import NOT_TESTED, Claim, Finding, Run, found
from gradcampp.paper import Pair
from gradcampp.statistics import Summary, log_relative_performance

ANY_RUN = "gradcampp claims --run RUN, after gradcampp reproduce or evaluate --out RUN"
PAPER_RUN = "gradcampp reproduce --profile paper, then gradcampp claims --run runs/paper"
PAPER_IMAGES = 10_000
PAPER_FOLDER = "imagenetv2-matched-frequency-format-val"
OVER, PLUS, PLUSPLUS = paper.PAIRS[0], paper.PAIRS[1], paper.PAIRS[2]  # ++ vs Grad-CAM, + vs Grad-CAM, ++ vs +
MARGIN = 1.1  # two methods whose relative performance is certainly within this factor count as equivalent
SAME = 0.1  # two min-max maps that differ by no more than this at any pixel count as practically the same
ALPHAS, MATTERS, BEYOND, METHODS_CHAPTER = "05_alphas", "06_does_it_matter", "07_beyond", "02_methods"


def is_paper(run: Run) -> bool:
    """Whether a run is the paper's own experiment: a trained VGG16 at block5_conv3, all of ImageNetV2, threshold 0.5.

    Any trained weights will do, since the paper's own are those of Keras; the photographs are known by their folder.
    """
    experiment = run.manifest["experiment"]
    if run.manifest["data"]["folder"] != PAPER_FOLDER or experiment["weights"].startswith("random"):
        return False
    wanted = {"model": "vgg16", "layer": "features.29", "threshold": 0.5, "limit": None}
    return run.manifest["images"] == PAPER_IMAGES and all(experiment.get(key) == value for key, value in wanted.items())


def _summary(run: Run, scores: Scores, pair: Pair) -> Summary:
    return tables.summaries(run.rows)[scores, pair]


def _interval(summary: Summary) -> str:
    return f"{summary.relative_performance:.3f} [{summary.low:.3f}, {summary.high:.3f}], n = {summary.n}"


def _better(scores: Scores, pair: Pair) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, pair)
        return found(summary.low > 1, _interval(summary))

    return check


def _equivalent(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, PLUSPLUS)
        return found(summary.low > 1 / MARGIN and summary.high < MARGIN, _interval(summary))

    return check


def _not_much_better(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        summary = _summary(run, scores, PLUSPLUS)
        return found(summary.low <= MARGIN, _interval(summary))

    return check


def _sufficient(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        plus, plusplus = _summary(run, scores, PLUS).mean, _summary(run, scores, OVER).mean
        return found(plusplus > 0 and plus >= plusplus / 2, f"mean log gain over Grad-CAM: {plus:.3f} of {plusplus:.3f}")

    return check


def _narrowest(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        spreads = {pair: _summary(run, scores, pair).std for pair in paper.PAIRS}
        text = ", ".join(f"{paper.pair_name(pair)} {spread:.3f}" for pair, spread in spreads.items())
        return found(spreads[PLUSPLUS] < min(spreads[OVER], spreads[PLUS]), text)

    return check


def _post_is_closer(run: Run) -> Finding:
    pre, post = (abs(_summary(run, scores, PLUSPLUS).mean) for scores in SCORES)
    return found(post < pre, f"|mean log|: pre {pre:.4f}, post {post:.1g}")


def _post_is_narrower(run: Run) -> Finding:
    pre, post = (_summary(run, scores, PLUSPLUS).std for scores in SCORES)
    return found(post < pre, f"std: pre {pre:.3f}, post {post:.3f}")


def _figure_6(run: Run) -> Finding:
    medians = []
    for scores in SCORES:
        names = [column(scores, method) for method in PLUSPLUS]
        both = run.rows[names].dropna()
        medians.append(float(np.exp(np.median(log_relative_performance(both[names[0]], both[names[1]])))))
    return found(all(abs(median - 1) < 0.05 for median in medians), f"median ratio: pre {medians[0]:.4f}, post {medians[1]:.4f}")


def _additive(run: Run) -> Finding:
    gaps = []
    for scores in SCORES:
        means = {pair: _summary(run, scores, pair).mean for pair in paper.PAIRS}
        gaps.append(abs(means[OVER] - means[PLUS] - means[PLUSPLUS]))
    return found(max(gaps) < 1e-9, f"largest gap {max(gaps):.1e}")


def _entry(scores: Scores, pair: Pair, quantity: str) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        printed, ours = getattr(paper.ENTRIES[scores, pair], quantity), getattr(_summary(run, scores, pair), quantity)
        text = f"paper {printed:.2f}, this run {ours:.3f}"
        if not is_paper(run):
            return Finding(NOT_TESTED, f"{text}, of another network or other images")
        return found(abs(ours - printed) <= 0.05, text)

    return check


def _images(run: Run) -> Finding:
    over = run.manifest["over_threshold"]
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{over} of {run.manifest['images']} here, of another network or other images")
    return found(abs(over - paper.IMAGES) <= 200, f"{over} of {run.manifest['images']}, paper {paper.IMAGES}")


def _median_half(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        box = accumulate.box(run.alphas[scores])
        holds = abs(box.median - 0.5) < 0.01 and box.first_quartile > 0.4 and box.third_quartile < 0.6
        return found(holds, f"quartiles {box.first_quartile:.4f}, {box.median:.4f}, {box.third_quartile:.4f}")

    return check


def _small_terms(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        share = accumulate.share(run.alphas[scores], 1 / (2 + 0.5), 1 / (2 - 0.5))
        return found(share > 0.5, f"{share:.1%} of the products are below 1/2 in size")

    return check


def _near_the_pole(run: Run) -> Finding:
    largest = max(abs(run.alphas["pre"].minimum), abs(run.alphas["pre"].maximum))
    return found(largest > 10, f"largest alpha {largest:.1f} in size: a denominator of {1 / largest:.1e}")


def _outliers_of_an_image(run: Run) -> Finding:
    low, high = (run.rows["pre_alpha_min"] <= -83.78).sum(), (run.rows["pre_alpha_max"] >= 42.94).sum()
    return found(bool(low and high), f"{low} images reach -83.78, {high} reach 42.94, of {len(run.rows)}")


def _extremes(run: Run) -> Finding:
    stream = run.alphas["pre"]
    text = f"from {stream.minimum:.8g} to {stream.maximum:.8g}"
    if not is_paper(run):
        return Finding(NOT_TESTED, f"{text} here, of another network or other images")
    return found(stream.minimum < -1e5 and stream.maximum > 1e5, text)


def _same_map(scores: Scores) -> Callable[[Run], Finding]:
    def check(run: Run) -> Finding:
        differences = run.rows[f"{scores}_difference"].dropna()
        if differences.empty:
            return Finding(NOT_TESTED, "no image over the threshold has non-negative activations")
        share = (differences <= SAME).mean()
        return found(
            share > 0.5, f"{share:.1%} of {len(differences)} images; median of the largest difference {differences.median():.4f}"
        )

    return check


def _only_tame(run: Run) -> Finding:
    largest = run.rows[[f"{scores}_alpha_max_positive" for scores in SCORES]].max().max()
    if run.rows["pre_certificate"].isna().all():
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return found(largest <= 0.5, f"largest alpha at a positive gradient: {largest:.9f}")


def _certified(run: Run) -> Finding:
    ratios = pd.concat([run.rows[f"{s}_difference"] / run.rows[f"{s}_certificate"] for s in SCORES]).dropna()
    medians = [run.rows[f"{s}_certificate"].median() for s in SCORES]
    if ratios.empty:
        return Finding(NOT_TESTED, "the layer has negative activations, or no image is over the threshold")
    return found(
        bool((ratios <= 1 + 1e-9).all()),
        f"difference / certificate up to {ratios.max():.3f}; median certificate pre {medians[0]:.3f}, post {medians[1]:.4f}",
    )


def _csv(run: Run, name: str) -> pd.DataFrame | None:
    """A table that ``gradcampp reproduce`` has put beside a run on scenes."""
    file: Path = run.folder.parent / name
    return pd.read_csv(file) if file.exists() else None


def _points_at_the_object(run: Run) -> Finding:
    table = _csv(run, "localisation.csv")
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    row = table[(table["metric"] == "pointing_game") & (table["method"] == "gradcam") & (table["scores"] == "pre")].iloc[0]
    return found(row["low"] > 0.5, f"its hottest pixel is on the object in {row['mean']:.1%} of {row['n']} scenes with one")


def _finds_more_than_gradcam(run: Run) -> Finding:
    table = _csv(run, "localisation.csv")
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    recall = table[(table["metric"] == "instance_recall") & (table["scores"] == "pre") & (table["instances"] > 1)]
    plusplus, gradcam = (recall[recall["method"] == method].set_index("instances") for method in ("gradcam++", "gradcam"))
    return found(
        len(gradcam) > 0 and bool((plusplus["low"] > gradcam["high"]).all()),
        "recall of Grad-CAM++ and Grad-CAM: "
        + ", ".join(f"{plusplus['mean'][n]:.3f} and {gradcam['mean'][n]:.3f} of {n} objects" for n in gradcam.index),
    )


def _finds_more_than_plus(run: Run) -> Finding:
    table = _csv(run, "localisation_gain.csv")
    if table is None:
        return Finding(NOT_TESTED, "the run has no masks that say where the objects are")
    row = table[(table["metric"] == "instance_recall") & (table["scores"] == "pre")].iloc[0]
    return found(
        row["low"] > 0,
        f"recall against Grad-CAM+ {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], n = {row['n']}",
    )


def _measured(
    name: str, place: str, claim: str, criterion: str, check: Callable[[Run], Finding], chapter: str, command: str = ANY_RUN
) -> Claim:
    return Claim(name, place, claim, "empirical", check, chapter, criterion, command)


def _both(
    name: str, place: str, claim: str, criterion: str, make: Callable[[Scores], Callable[[Run], Finding]], chapter: str
) -> list[Claim]:
    """A claim for each kind of score."""
    return [_measured(f"{name}-{s}", place, f"{claim} ({s}-softmax).", criterion, make(s), chapter) for s in SCORES]


def _entries() -> list[Claim]:
    """One claim for each number in Tables 1 and 2."""
    claims = []
    numbers = ((1, "relative_performance", "relative performance"), (2, "mean", "mean log ratio"), (2, "std", "its deviation"))
    for table, quantity, text in numbers:
        for scores in SCORES:
            for pair in paper.PAIRS:
                printed = getattr(paper.ENTRIES[scores, pair], quantity)
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
        f"no pixel differs by over {SAME} in over half of the images",
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
        lambda s: _better(s, OVER),
        MATTERS,
    ),
    *_both(
        "4-plus-better",
        "4, Table 1",
        "Grad-CAM+ does better than Grad-CAM",
        "95 % interval above 1",
        lambda s: _better(s, PLUS),
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
        f"Grad-CAM++ does not do significantly (here: by certainly more than a factor of {MARGIN}) better than Grad-CAM+",
        f"95 % interval reaches below {MARGIN}",
        _not_much_better,
        MATTERS,
    ),
    *_both(
        "4-equivalent",
        "4 and 5",
        "Grad-CAM++ and Grad-CAM+ are practically equivalent",
        f"95 % interval of the relative performance between 1/{MARGIN} and {MARGIN}",
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
    _measured("4-additive-run", "4, Table 2", "The means of this run add up.", "within 1e-9", _additive, MATTERS),
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
