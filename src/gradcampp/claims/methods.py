"""The claims of section 2: what the three methods compute, and where their maps are hot."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from operator import mul
from typing import Any

import numpy as np
import pandas as pd
import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam, paper
from gradcampp.algebra import derivation
from gradcampp.algebra.theorems import random_layer, relative
from gradcampp.cam import METHODS, Method, column
from gradcampp.claims.claim import (
    BEYOND,
    ROUNDING,
    Claim,
    Finding,
    UntestedError,
    above,
    cannot_tell,
    claim,
    empirical,
    sharpened,
    verdict,
)
from gradcampp.evaluation.localisation import averages, gains, rivalry, rivalry_gains, with_heat
from gradcampp.evaluation.records import Run
from gradcampp.paper import PAIRS, Pair
from gradcampp.performance import percent

of_scenes = partial(empirical, command="gradcampp reproduce, which knows its scenes' masks")

CEILING = 0.99  # a mean that has no room left above it
HUNDREDTH = 0.01  # a difference of shares that matters to nobody

# Two maps of 2 x 2 units, small enough for pencil and paper.
ACTIVATIONS = ((1, 2, 0, 3), (2, 0, 1, 1))
GRADIENTS = ((1, -2, 0, 3), (-1, 2, 2, 1))


def _small_layer() -> tuple[Tensor, Tensor]:
    """The layer above as tensors, (1, 2, 2, 2) each, float64."""
    activations, gradients = (torch.tensor(v, dtype=torch.float64).reshape(1, 2, 2, 2) for v in (ACTIVATIONS, GRADIENTS))
    return activations, gradients


def _by_hand(method: Method) -> list[Fraction]:
    """Weights of the small layer in exact fractions."""

    def weight(maps: tuple[int, ...], slopes: tuple[int, ...]) -> Fraction:
        counted = [slope for slope in slopes if method == "gradcam" or slope > 0]
        alphas = [Fraction(1, 2 + sum(maps) * g) if method == "gradcam++" else Fraction(1, len(slopes)) for g in counted]
        return Fraction(sum(map(mul, alphas, counted)))

    return list(map(weight, ACTIVATIONS, GRADIENTS))


def _of_weights(equation: int, section: str, method: Method, sentence: str) -> Claim:
    """The claim that the library's weights are those by hand."""

    def check() -> Finding:
        wanted, computed = _by_hand(method), cam.weights(method, *_small_layer())[0].tolist()
        holds = bool(np.allclose(computed, list(map(float, wanted)), rtol=ROUNDING))
        shown = ", ".join(f"{value:.6g}" for value in computed)
        return verdict(holds, f"by hand ({', '.join(map(str, wanted))}); library ({shown})")

    place: dict[str, Any] = {"section": section, "equation": equation, "kind": "numeric", "role": "definition"}
    return claim(f"eq-{equation}", sentence=sentence, **place)(check)


EQ_1 = _of_weights(1, "2.1.1", "gradcam", "A Grad-CAM weight is the mean of a channel's gradients.")
EQ_3 = _of_weights(3, "2.1.2", "gradcam+", "Grad-CAM+ takes the mean of the positive gradients only.")
EQ_4 = _of_weights(4, "2.2", "gradcam++", "A Grad-CAM++ weight is the sum of the positive gradients, each times its alpha.")


@claim("eq-2", section="2.1.1", equation=2, kind="numeric", role="definition")
def eq_2() -> Finding:
    """The heatmap is the ReLU of the feature maps combined by their weights."""
    weights = _by_hand("gradcam")
    wanted = [max(sum(map(mul, weights, units)), 0) for units in zip(*ACTIVATIONS, strict=True)]
    computed = cam.heatmap(torch.tensor([[float(w) for w in weights]], dtype=torch.float64), _small_layer()[0])
    return verdict(computed.flatten().tolist() == list(map(float, wanted)), f"by hand ({', '.join(map(str, wanted))})")


@claim("2.2-positive", section="2.2", kind="numeric", role="definition")
def only_positive() -> Finding:
    """Only positive gradients enter a Grad-CAM++ weight."""
    activations, gradients = random_layer(0)
    changed = torch.where(gradients < 0, 3 * gradients, gradients)
    distance = relative(*(cam.weights("gradcam++", activations, values) for values in (changed, gradients)))
    return verdict(distance == 0, f"negative gradients tripled: weights differ by {distance:.1e}")


@claim("2.2-zero", section="2.2", kind="numeric", expected="sharpened")
def zero_gradient() -> Finding:
    """Where the gradient is 0, eq. 9 is 0/0, and alpha is set to 0."""
    activations, gradients = _small_layer()
    alphas, zero = cam.alphas(activations, gradients), gradients == 0
    limit = sp.limit(derivation.equation_13(*sp.symbols("g s")), sp.Symbol("g"), 0)
    weights = [(values * gradients.relu()).sum((2, 3)) for values in (alphas, alphas.masked_fill(zero, float(limit)))]
    told = f"alpha = 0 by convention, though its limit is {limit}; the weights are the same with either"
    return sharpened(not alphas[zero].any(), told, more=limit != 0 and torch.equal(*weights))


def _on_scenes(run: Run, several: bool, *methods: Method) -> pd.DataFrame:
    """Rows of localisation for pre-softmax maps of scenes with one object, or several, that score over the threshold.

    Raises:
        UntestedError: if the run has no masks, or no such scene.
    """
    if not run.has_masks:
        raise UntestedError("the run has no masks that say where the objects are")
    rows = run.localisation
    wanted = (rows["score"] > run.manifest["experiment"]["threshold"]) & ((rows["instances"] > 1) == several)
    found: pd.DataFrame = rows[wanted & rows["map"].isin([column("pre", method) for method in methods])]
    if found.empty:
        raise UntestedError(f"no scene with {'several objects' if several else 'one object'} scores over the threshold")
    return found


@of_scenes(
    "fig-1-2",
    section="2.1.1",
    figure=(1, 2),
    criterion="hottest pixel on the object, or within 3 % of the image's side, in over half of the scenes with one, with its "
    "whole 95 % interval; fails where it lies below half",
)
def points_at_the_object(run: Run) -> Finding:
    """The heatmap is hottest where the object of its class is."""
    table = averages(_on_scenes(run, False, "gradcam"))
    row = table[table["metric"] == "pointing_game"].iloc[0]
    low, high = percent(row["low"]), percent(row["high"])
    told = f"its hottest pixel is on the object in {percent(row['mean'])} [{low}, {high}]"
    return above(row["low"], row["high"], 0.5, f"{told} of {row['n']} scenes with one")


def _finds_more(run: Run, pair: Pair) -> Finding:
    """The finding that the first of two methods finds more instances than the second."""
    rows = _on_scenes(run, True, *pair)
    means = rows.groupby("map")["instance_recall"].mean()
    first, second = (float(means[column("pre", method)]) for method in pair)
    row = gains(rows).query("metric == 'instance_recall'").iloc[0]
    told = f"recall {first:.4f} and {second:.4f}, difference {row['difference']:+z.4f} [{row['low']:+z.4f}, {row['high']:+z.4f}]"
    told = f"{told}, n = {row['n']}"
    if min(first, second) >= CEILING:
        return cannot_tell(f"{told}: both at the ceiling, {CEILING} or more")
    return above(row["low"], row["high"], 0, told, matters=HUNDREDTH)


RECALL = f"recall of instances, scene by scene: 95 % interval of the difference above 0; fails where it ends below {HUNDREDTH}"


@of_scenes("2.2-instances", section="2.2", criterion=RECALL, chapter=BEYOND)
def finds_more_than_gradcam(run: Run) -> Finding:
    """Grad-CAM++ finds several instances of an object better than Grad-CAM (a claim of its authors)."""
    return _finds_more(run, PAIRS[0])


@of_scenes("2.2-instances-alphas", section="2.2", criterion=RECALL, chapter=BEYOND, expected="fails")
def finds_more_than_plus(run: Run) -> Finding:
    """Its alphas have a part in that: Grad-CAM++ finds more instances than Grad-CAM+, too."""
    return _finds_more(run, PAIRS[2])


def _gained(row: pd.Series[Any]) -> str:
    return f"{row['difference']:+z.3f} [{row['low']:+z.3f}, {row['high']:+z.3f}]"


@of_scenes(
    "beyond-other-class",
    section="2.1.2",
    chapter=BEYOND,
    criterion="share of the heat on the other object (in collages: on the other half), Grad-CAM+ less Grad-CAM, where the "
    "explained class is one of the network's two first: 95 % interval above 0, pair by pair; fails where it ends below "
    f"{HUNDREDTH}",
)
def heats_the_other_class(run: Run) -> Finding:
    """Dropping negative gradients puts more heat on an object of a competing class."""
    rows = run.competition
    if rows is None:
        raise UntestedError("the run has no scenes with two classes")
    seen = rows[(rows["rank"] <= 2) & rows["map"].isin([column("pre", method) for method in METHODS])]
    every, seen = len(seen), with_heat(seen)
    if seen.empty:
        raise UntestedError("in no scene with two classes is the explained class one of the network's two first, with maps of it")
    means, gained = rivalry(seen).set_index(["metric", "method"])["mean"], rivalry_gains(seen)
    on, at = (", ".join(percent(means[metric, method]) for method in METHODS) for metric in ("other", "points_at_other"))
    row, hottest, of_plusplus = (
        gained[(gained["methods"] == paper.pair_name(pair)) & (gained["metric"] == metric)].iloc[0]
        for pair, metric in ((PAIRS[1], "other"), (PAIRS[1], "points_at_other"), (PAIRS[0], "points_at_other"))
    )
    told = f"on the other object {on} of the heat (Grad-CAM, Grad-CAM+, Grad-CAM++), Grad-CAM+ less Grad-CAM {_gained(row)}, in "
    told += f"{row['n']} {'drawn pairs' if run.has_masks else 'collages of two photographs'}; the hottest pixel in {at}, less "
    told += f"Grad-CAM {_gained(hottest)} and {_gained(of_plusplus)}"
    told += f"; {(every - len(seen)) // len(METHODS)} explanations with an empty map are left out" if every > len(seen) else ""
    return above(row["low"], row["high"], 0, told, matters=HUNDREDTH)
