"""The claims of section 2: what the three methods compute, and where their maps are hot."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from operator import mul

import numpy as np
import pandas as pd
import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam
from gradcampp.algebra import derivation
from gradcampp.algebra.theorems import random_layer, relative
from gradcampp.cam import SCORES, Method, column
from gradcampp.claims.claim import BEYOND, ROUNDING, Claim, Finding, UntestedError, claim, empirical, sharpened, verdict
from gradcampp.evaluation.localisation import averages, gains
from gradcampp.evaluation.records import Run

of_scenes = partial(empirical, command="gradcampp reproduce, which knows its scenes' masks")

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

    return claim(f"eq-{equation}", section=section, equation=equation, kind="numeric", sentence=sentence)(check)


EQ_1 = _of_weights(1, "2.1.1", "gradcam", "A Grad-CAM weight is the mean of a channel's gradients.")
EQ_3 = _of_weights(3, "2.1.2", "gradcam+", "Grad-CAM+ takes the mean of the positive gradients only.")
EQ_4 = _of_weights(4, "2.2", "gradcam++", "A Grad-CAM++ weight is the sum of the positive gradients, each times its alpha.")


@claim("eq-2", section="2.1.1", equation=2, kind="numeric")
def eq_2() -> Finding:
    """The heatmap is the ReLU of the feature maps combined by their weights."""
    weights = _by_hand("gradcam")
    wanted = [max(sum(map(mul, weights, units)), 0) for units in zip(*ACTIVATIONS, strict=True)]
    computed = cam.heatmap(torch.tensor([[float(w) for w in weights]], dtype=torch.float64), _small_layer()[0])
    return verdict(computed.flatten().tolist() == list(map(float, wanted)), f"by hand ({', '.join(map(str, wanted))})")


@claim("2.2-positive", section="2.2", kind="numeric")
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
    holds = not cam.alphas(activations, gradients)[gradients == 0].any()
    limit = sp.limit(derivation.equation_13(*sp.symbols("g s")), sp.Symbol("g"), 0)
    return sharpened(holds, f"alpha = 0 by convention, though its limit is {limit}; the weight is 0 either way")


def _on_scenes(
    run: Run, table: Callable[[pd.DataFrame], pd.DataFrame], metric: str, several: bool, *methods: Method
) -> pd.DataFrame:
    """Rows of a table of localisation for pre-softmax maps of scenes with one object, or several, that score over the threshold.

    Raises:
        UntestedError: if the run has no masks, or no such scene.
    """
    if not run.has_masks:
        raise UntestedError("the run has no masks that say where the objects are")
    rows = run.localisation
    wanted = (rows["score"] > run.manifest["experiment"]["threshold"]) & ((rows["instances"] > 1) == several)
    rows = rows[wanted & rows["map"].isin([column(scores, method) for scores in SCORES for method in methods])]
    if rows.empty:
        raise UntestedError(f"no scene with {'several objects' if several else 'one object'} scores over the threshold")
    found = table(rows)
    return found[(found["metric"] == metric) & (found["scores"] == "pre")]


@of_scenes(
    "fig-1-2",
    section="2.1.1",
    figure=(1, 2),
    criterion="hottest pixel on the object in over half of the scenes with one, with its whole 95 % interval",
)
def points_at_the_object(run: Run) -> Finding:
    """The heatmap is hottest where the object of its class is."""
    row = _on_scenes(run, averages, "pointing_game", False, "gradcam").iloc[0]
    return verdict(row["low"] > 0.5, f"its hottest pixel is on the object in {row['mean']:.1%} of {row['n']} scenes with one")


@of_scenes(
    "2.2-instances",
    section="2.2",
    criterion="recall of instances, 95 % interval above that of Grad-CAM for each number of objects from two",
    chapter=BEYOND,
)
def finds_more_than_gradcam(run: Run) -> Finding:
    """Grad-CAM++ finds several instances of an object better than Grad-CAM (a claim of its authors)."""
    table = _on_scenes(run, averages, "instance_recall", True, "gradcam", "gradcam++")
    plusplus, gradcam = (table[table["method"] == method].set_index("instances") for method in ("gradcam++", "gradcam"))
    told = (f"{plusplus['mean'][n]:.3f} and {gradcam['mean'][n]:.3f} of {n} objects" for n in gradcam.index)
    return verdict(bool((plusplus["low"] > gradcam["high"]).all()), f"recall of Grad-CAM++ and Grad-CAM: {', '.join(told)}")


@of_scenes(
    "2.2-instances-alphas",
    section="2.2",
    criterion="recall of instances over that of Grad-CAM+, 95 % interval above 0",
    chapter=BEYOND,
    expected="fails",
)
def finds_more_than_plus(run: Run) -> Finding:
    """Its alphas have a part in that: Grad-CAM++ finds more instances than Grad-CAM+, too."""
    row = _on_scenes(run, gains, "instance_recall", True, "gradcam+", "gradcam++").iloc[0]
    told = f"recall against Grad-CAM+ {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], n = {row['n']}"
    return verdict(row["low"] > 0, told)
