"""A batch of photographs becomes rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from gradcampp import cam, shrinkage
from gradcampp.cam import COLUMNS, METHODS, SCORES, Scores
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import EMPTY, Histogram, histogram
from gradcampp.evaluation.experiment import Experiment, over_threshold
from gradcampp.evaluation.folders import Photograph
from gradcampp.evaluation.maps import (
    BatchLimit,
    heatmaps,
    in_batches,
    insertion_and_deletion,
    matched,
    score_explanation_maps,
    signed,
)
from gradcampp.evaluation.photographs import Batch
from gradcampp.networks.capture import Capture, Network
from gradcampp.networks.scores import check, kinds, probabilities

SAMPLE = "4"  # insertion and deletion take 54 passes an image: of the quarter whose SHA-256 comes before this


def measure(
    network: Network, batch: Batch, experiment: Experiment, device: str, limit: BatchLimit
) -> tuple[pa.Table, dict[Scores, Histogram]]:
    """Everything that a run records about a batch of photographs.

    Returns:
        Their rows, with the columns of ``records.SCHEMA``, and the non-zero alphas of all of them, counted.

    Raises:
        InputError: if logits, activations or gradients are not finite; the line names the photograph.
    """
    pixels = batch.pixels.to(device, non_blocking=True).float().div_(255)
    labels = torch.tensor([photograph.label for photograph in batch.photographs], device=device)

    def photographs(part: slice) -> list[Tensor]:
        captured = network.capture(pixels[part], labels[part])
        return [captured.activations, captured.logits, *captured.gradients.values()]

    activations, logits, *slopes = in_batches(photographs, len(pixels), limit)
    captured = Capture(activations, dict(zip(kinds(network.score), slopes, strict=True)), logits)
    _check_finite(captured, batch.photographs)
    check(logits, network.score)
    rank = 1 + (logits > logits.gather(1, labels[:, None])).sum(1)
    scores = probabilities(logits, network.score).gather(1, labels[:, None])[:, 0]
    alphas = {kind: cam.alphas(activations, gradients) for kind, gradients in captured.gradients.items()}
    numbers = {"label": labels, "score": scores, "prediction": logits.argmax(1), "label_rank": rank}
    unknown = dict.fromkeys(records.OF_ALPHAS, torch.full_like(scores, torch.nan))
    for kind in SCORES:
        extremes = _extremes(alphas[kind], captured.gradients[kind]) if kind in alphas else unknown
        numbers |= {f"{kind}_alpha_{name}": values for name, values in extremes.items()}
    explained = [*records.SHRINKAGE, *COLUMNS, *records.HEATS, *records.CONTROLS]
    table = torch.full((len(pixels), len(explained)), torch.nan, dtype=torch.float64, device=device)
    over = over_threshold(scores, experiment).nonzero()[:, 0]
    if len(over):

        def explain(part: slice) -> list[Tensor]:
            own = over[part]
            gradients = {kind: values[own] for kind, values in captured.gradients.items()}
            chosen = Capture(activations[own], gradients, logits[own])
            found = [heatmaps(chosen), _shrinkage(chosen)]
            return [*found, signed(chosen)] if experiment["controls"] else found

        maps, shrunk, *with_signs = in_batches(explain, len(over), limit)
        found, mean_heat = score_explanation_maps(network, maps, pixels[over], labels[over], limit)
        values = [shrunk, found.where(found.isfinite(), torch.nan), mean_heat.where(found.isfinite(), torch.nan)]
        if experiment["controls"]:
            hashes = [batch.hashes[index] for index in over.tolist()]
            values.append(_controls(network, maps, mean_heat, with_signs[0], pixels[over], labels[over], hashes, limit))
        row = torch.cat(values, 1)
        table[over, : row.shape[1]] = row
    numbers |= dict(zip(explained, table.T, strict=True))
    columns = torch.stack([column.double() for column in numbers.values()]).cpu().numpy()  # at once: each copy waits for a GPU
    files = {"image": [photograph.image for photograph in batch.photographs], "sha256": batch.hashes, "bytes": batch.sizes}
    rows = pd.DataFrame({**files, **dict(zip(numbers, columns, strict=True))})
    return (
        pa.Table.from_pandas(rows, records.SCHEMA, preserve_index=False).replace_schema_metadata(),  # NaN becomes null
        {
            kind: histogram(alphas[kind].masked_select(captured.gradients[kind] != 0)) if kind in alphas else EMPTY
            for kind in SCORES
        },
    )


def _controls(
    network: Network,
    maps: Tensor,
    mean_heat: Tensor,
    with_signs: Tensor,
    pixels: Tensor,
    labels: Tensor,
    hashes: Sequence[str],
    limit: BatchLimit,
) -> Tensor:
    """Scores that check the metric, of photographs with these maps, (B, 12) float64 in the order of ``records.CONTROLS``."""
    as_warm, heat = matched(maps, mean_heat)
    equal, _ = score_explanation_maps(network, as_warm, pixels, labels, limit, heat)
    negative, _ = score_explanation_maps(network, with_signs, pixels, labels, limit)
    curves = torch.full((len(maps), len(records.CURVES)), torch.nan, dtype=torch.float64, device=maps.device)
    some = [place for place, digest in enumerate(hashes) if digest < SAMPLE]
    if some:
        pre = maps[some][:, : len(METHODS)]
        curves[some] = torch.cat(insertion_and_deletion(network, pre, pixels[some], labels[some], limit), 1)
    return torch.cat([equal, negative, curves], 1)


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


def _shrinkage(captured: Capture) -> Tensor:
    """Of each photograph, how Grad-CAM++ differs from Grad-CAM+.

    Returns:
        (B, 10) float64, in the order of ``records.SHRINKAGE``; NaN for a photograph with a negative activation but in the
        differences, since the theorems say nothing of it, and where there is no gradient behind the softmax.
    """
    covered = (captured.activations.flatten(1) >= 0).all(1)
    activations = captured.activations.double()
    found: list[Tensor] = []
    for scores in SCORES:
        if scores not in captured.gradients:
            found += [torch.full_like(found[0], torch.nan)] * 5
            continue
        gradients = captured.gradients[scores].double()
        found.append(shrinkage.difference(activations, gradients))
        for measured in (shrinkage.bound, shrinkage.effective_alpha, shrinkage.unevenness, shrinkage.equation_6):
            values = torch.full_like(found[0], torch.nan)
            values[covered] = measured(activations[covered], gradients[covered])
            found.append(values)
    return torch.stack(found, 1)


def _extremes(alphas: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    """Of each photograph, how many units have a gradient and a positive one, and the extreme alphas, (B,) each.

    The largest is also that among the units that count, those with a positive gradient. NaN where there are no such units.
    """
    units = (1, 2, 3)
    some, positive = gradients != 0, gradients > 0  # (B, K, H, W)
    return {
        "count": some.sum(units),
        "positive": positive.sum(units),
        "min": alphas.where(some, torch.inf).amin(units).where(some.any(units), torch.nan),
        "max": alphas.where(some, -torch.inf).amax(units).where(some.any(units), torch.nan),
        "max_positive": alphas.where(positive, -torch.inf).amax(units).where(positive.any(units), torch.nan),
    }
