"""A batch of photographs becomes rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradcampp import cam
from gradcampp.cam import COLUMNS, METHODS, SCORES, Scores, min_max
from gradcampp.certificate import bound
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import Histogram, histogram
from gradcampp.evaluation.maps import (
    BatchLimit,
    heatmaps,
    in_batches,
    score_explanation_maps,
)
from gradcampp.evaluation.photographs import Batch, Photograph
from gradcampp.networks.capture import Capture, Network, probabilities


@dataclass(frozen=True)
class Measured:
    """The rows of a batch, and the non-zero alphas of all its photographs, counted."""

    rows: list[records.Row]
    alphas: dict[Scores, Histogram]


def measure(network: Network, batch: Batch, threshold: float, device: str, limit: BatchLimit) -> Measured:
    """Everything that a run records about a batch of photographs.

    Raises:
        InputError: if logits, activations or gradients are not finite; the line names the photograph.
    """
    pixels = batch.pixels.to(device, non_blocking=True).float().div_(255)
    labels = torch.tensor([photograph.label for photograph in batch.photographs], device=device)

    def photographs(part: slice) -> list[Tensor]:
        captured = network.capture(pixels[part], labels[part])
        return [captured.activations, *captured.gradients.values(), captured.logits]

    activations, pre, post, logits = in_batches(photographs, len(pixels), limit)
    captured = Capture(activations, {"pre": pre, "post": post}, logits)
    _check_finite(captured, batch.photographs)
    own = logits.gather(1, labels[:, None])
    scores = probabilities(logits).gather(1, labels[:, None])[:, 0]
    over = (scores > threshold).nonzero()[:, 0]
    alphas = {kind: cam.alphas(activations, captured.gradients[kind]) for kind in SCORES}
    columns: dict[str, list[Any]] = {
        "image": [photograph.image for photograph in batch.photographs],
        "label": labels.tolist(),
        "score": scores.tolist(),
        "prediction": logits.argmax(1).tolist(),
        "label_rank": (1 + (logits > own).sum(1)).tolist(),
        "sha256": batch.hashes,
        "bytes": batch.sizes,
        **{
            f"{kind}_alpha_{name}": values
            for kind in SCORES
            for name, values in _extremes(alphas[kind], captured.gradients[kind]).items()
        },
    }
    rows: list[records.Row] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if len(over):

        def explained(part: slice) -> list[Tensor]:
            chosen = _select(captured, over[part])
            return [heatmaps(chosen), _certified(chosen)]

        maps, bounds = in_batches(explained, len(over), limit)
        found, mean_heat = score_explanation_maps(network, maps, pixels[over], labels[over], limit)
        for index, row_scores, row_heat, row_bounds in zip(
            over.tolist(), found.tolist(), mean_heat.tolist(), bounds.tolist(), strict=True
        ):
            rows[index] |= {name: bound for name, bound in zip(records.BOUNDS, row_bounds, strict=True) if not math.isnan(bound)}
            for name, score, heat in zip(COLUMNS, row_scores, row_heat, strict=True):
                rows[index] |= {} if math.isnan(score) else {name: score, f"{name}_mean_heat": heat}
    return Measured(rows, {kind: histogram(alphas[kind].masked_select(captured.gradients[kind] != 0)) for kind in SCORES})


def _check_finite(captured: Capture, photographs: Sequence[Photograph]) -> None:
    every = [("logits", captured.logits), ("activations", captured.activations)]
    every += [("gradients", gradients) for gradients in captured.gradients.values()]
    finite = torch.stack([values.isfinite().flatten(1).all(1) for _, values in every], 1)  # (B, 4)
    if not finite.all():
        image, place = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"the network's {every[place][0]} for {photographs[image].image} are not finite (NaN, infinity); "
            "check the weights, --mean, --std"
        )


def _certified(captured: Capture) -> Tensor:
    """Of each photograph, how far the Grad-CAM++ and Grad-CAM+ maps may differ and do.

    Returns:
        (B, 4) float64, in the order of ``records.BOUNDS``; NaN for a photograph with a negative activation, of which the
        theorems say nothing.
    """
    covered = (captured.activations.flatten(1) >= 0).all(1)
    activations = captured.activations[covered].double()
    columns: list[Tensor] = []
    for scores in SCORES:
        gradients = captured.gradients[scores][covered].double()
        plus, plusplus = (
            min_max(cam.heatmap(cam.weights(method, activations, gradients), activations)) for method in METHODS[1:]
        )
        columns += [bound(activations, gradients), (plus - plusplus).abs().amax((1, 2))]
    bounds = activations.new_full((len(covered), len(records.BOUNDS)), torch.nan)
    bounds[covered] = torch.stack(columns, 1)
    return bounds


def _extremes(alphas: Tensor, gradients: Tensor) -> dict[str, list[Any]]:
    """Of each photograph, how many units have a gradient, and the extreme alphas among them.

    The largest is also that among the units that count, those with a positive gradient. None where there are no such units.
    """
    some, positive = gradients != 0, gradients > 0  # (B, K, H, W)
    counts = some.sum((1, 2, 3))
    low = torch.where(some, alphas, torch.inf).amin((1, 2, 3))
    high = torch.where(some, alphas, -torch.inf).amax((1, 2, 3))
    counted = torch.where(positive, alphas, -torch.inf).amax((1, 2, 3))
    table = torch.stack([values.double() for values in (counts, positive.sum((1, 2, 3)), low, high, counted)])
    numbers, positives, lows, highs, largest = table.tolist()  # at once: on a GPU each copy waits for all work before it
    return {
        "count": [int(number) for number in numbers],
        "min": [value if number else None for value, number in zip(lows, numbers, strict=True)],
        "max": [value if number else None for value, number in zip(highs, numbers, strict=True)],
        "max_positive": [value if number else None for value, number in zip(largest, positives, strict=True)],
    }


def _select(captured: Capture, indices: Tensor) -> Capture:
    gradients = {scores: values[indices] for scores, values in captured.gradients.items()}
    return Capture(captured.activations[indices], gradients, captured.logits[indices])
