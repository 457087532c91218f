"""The claims of section 2: what the three methods compute."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from gradcampp import cam
from gradcampp.algebra import derivation
from gradcampp.algebra.theorems import random_layer, relative
from gradcampp.cam import Method
from gradcampp.claims.claim import ROUNDING, Finding, verdict

# Two maps of 2 x 2 units, small enough for pencil and paper.
ACTIVATIONS = ((1, 2, 0, 3), (2, 0, 1, 1))


GRADIENTS = ((1, -2, 0, 3), (-1, 2, 2, 1))


def small_layer() -> tuple[Tensor, Tensor]:
    """The layer above as tensors, (1, 2, 2, 2) each, float64."""
    return tuple(torch.tensor(values, dtype=torch.float64).reshape(1, 2, 2, 2) for values in (ACTIVATIONS, GRADIENTS))  # type: ignore[return-value]


def _by_hand(method: Method) -> list[Fraction]:
    """Weights of the small layer in exact fractions."""
    weights = []
    for maps, slopes in zip(ACTIVATIONS, GRADIENTS, strict=True):
        if method == "gradcam":
            weights.append(Fraction(sum(slopes), len(slopes)))
        elif method == "gradcam+":
            weights.append(Fraction(sum(max(slope, 0) for slope in slopes), len(slopes)))
        else:
            total = sum(maps)
            weights.append(sum((max(slope, 0) * Fraction(1, 2 + total * slope) for slope in slopes if slope), Fraction(0)))
    return weights


def _weights(method: Method) -> Finding:
    wanted = _by_hand(method)
    computed = cam.weights(method, *small_layer())[0].tolist()
    return verdict(
        bool(np.allclose(computed, [float(value) for value in wanted], rtol=ROUNDING)),
        f"by hand ({', '.join(map(str, wanted))}); library ({', '.join(f'{value:.6g}' for value in computed)})",
    )


def _eq_2() -> Finding:
    weights = _by_hand("gradcam")
    wanted = [
        max(sum((w * a for w, a in zip(weights, units, strict=True)), Fraction(0)), Fraction(0))
        for units in zip(*ACTIVATIONS, strict=True)
    ]
    activations, _ = small_layer()
    computed = cam.heatmap(torch.tensor([[float(w) for w in weights]], dtype=torch.float64), activations).flatten().tolist()
    return verdict(computed == [float(value) for value in wanted], f"by hand ({', '.join(map(str, wanted))})")


def _only_positive() -> Finding:
    activations, gradients = random_layer(0)
    changed = torch.where(gradients < 0, 3 * gradients, gradients)
    distance = relative(*(cam.weights("gradcam++", activations, values) for values in (changed, gradients)))
    return verdict(distance == 0, f"negative gradients tripled: weights differ by {distance:.1e}")


def _zero_gradient() -> Finding:
    activations, gradients = small_layer()
    at_zero = cam.alphas(activations, gradients)[gradients == 0]
    limit = sp.limit(derivation.equation_13(sp.Symbol("g"), sp.Symbol("s")), sp.Symbol("g"), 0)
    return verdict(
        bool((at_zero == 0).all()),
        f"alpha = 0 by convention, though its limit is {limit}; the weight is 0 either way",
        sharpened=True,
    )
