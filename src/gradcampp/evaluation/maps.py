"""A batch of photographs: six maps of each, and their scores; one photograph explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcampp import cam, paper
from gradcampp.cam import MAPS, METHODS, SCORES, Method, Scores, explanation_map, match_heat, min_max, upsample
from gradcampp.errors import InputError
from gradcampp.networks.capture import Capture, Network
from gradcampp.networks.running import out_of_memory
from gradcampp.networks.scores import check, kinds, probabilities

STEPS = 8  # of insertion and deletion


@dataclass
class BatchLimit:
    """The largest batch that the device has not refused so far."""

    size: int


def in_batches(function: Callable[[slice], list[Tensor]], count: int, limit: BatchLimit) -> list[Tensor]:
    """Apply a function to slices of a batch of length ``count``, halving them for good when memory runs out.

    Args:
        function: maps a slice of ``range(count)`` to tensors whose first dimension is the slice's length.
        limit: length of the slices; lowered here where the device is out of memory.

    Returns:
        The function's tensors for the whole batch.

    Raises:
        InputError: if memory does not even suffice for a slice of one.
    """
    results: list[list[Tensor]] = []
    start = 0
    while start < count:
        part = slice(start, min(start + limit.size, count))
        done = _unless_out_of_memory(function, part)
        if done is not None:
            results.append(done)
            start = part.stop
        elif limit.size == 1:
            raise InputError("out of memory with a single image in the batch; choose a smaller --crop or another --device")
        else:
            limit.size = min(limit.size, part.stop - part.start) // 2 or 1
            torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    return [torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in zip(*results, strict=True)]


def _unless_out_of_memory(function: Callable[[slice], list[Tensor]], part: slice) -> list[Tensor] | None:
    """The function's result, or None: by then the failed attempt's tensors are free again."""
    try:
        return function(part)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            return None
        raise


def heatmaps(captured: Capture) -> Tensor:
    """All six maps of each photograph, min-max normalised on the coarse grid.

    Returns:
        (B, 6, H, W), in the order of ``cam.MAPS``; NaN where there is no gradient behind the softmax.
    """
    undefined = torch.full_like(captured.activations[:, 0], torch.nan)  # (B, H, W)
    maps = [
        cam.heatmap(cam.weights(method, captured.activations, captured.gradients[scores]), captured.activations)
        if scores in captured.gradients
        else undefined
        for scores, method in MAPS
    ]
    return min_max(torch.stack(maps, 1))


def matched(maps: Tensor, mean_heat: Tensor) -> tuple[Tensor, Tensor]:
    """The maps whose warmth is to be taken away, and the mean heat that they are to get: that of Grad-CAM in the same image.

    Args:
        maps: of :func:`heatmaps`, (B, 6, H, W).
        mean_heat: of the upsampled maps, (B, 6).

    Returns:
        (B, 4, H, W) and (B, 4): Grad-CAM+ and Grad-CAM++, pre and then post.
    """
    wanted = [MAPS.index((scores, method)) for scores in SCORES for method in METHODS[1:]]
    gradcam = [MAPS.index((scores, "gradcam")) for scores in SCORES for _ in METHODS[1:]]
    return maps[:, wanted], mean_heat[:, gradcam]


def signed(captured: Capture) -> Tensor:
    """Two maps of Grad-CAM++ that keep the negative gradients of the logit, min-max normalised, (B, 2, H, W).

    The first is eq. 4 without its ReLU, where alphas have poles; the second takes ``1 / (2 + s |g|)`` for them, which has none.
    """
    activations, gradients = captured.activations, captured.gradients["pre"]
    tame = gradients / (2 + cam.activation_sums(activations) * gradients.abs())
    published = cam.alphas(activations, gradients) * gradients
    return min_max(torch.stack([cam.heatmap(terms.sum((2, 3)), activations) for terms in (published, tame)], 1))


def score_explanation_maps(
    network: Network,
    maps: Tensor,
    pixels: Tensor,
    labels: Tensor,
    batch_size: int | BatchLimit,
    mean_heat: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores of each photograph seen through each of its maps.

    Args:
        network: a module on the device of the maps.
        maps: min-max normalised coarse maps, (B, M, H, W).
        pixels: in [0, 1], (B, 3, crop, crop).
        labels: class whose score is wanted, (B,) int64.
        batch_size: explanation maps that go through the network together.
        mean_heat: what :func:`gradcampp.cam.match_heat` gives the upsampled maps, (B, M); None leaves them as they are.

    Returns:
        Scores and mean heat of the upsampled maps, both (B, M) float64. Both are NaN for a map
        that is not finite, or that no power gives the mean heat.

    Source: Lerma & Lucas (2022), eq. 15 and section 4.
    """
    count = maps.shape[1]
    coarse = maps.flatten(0, 1)  # (B M, H, W)
    owners = torch.arange(len(coarse), device=maps.device) // count  # the photograph that each map belongs to

    def score(part: slice) -> list[Tensor]:
        heat = upsample(coarse[part], (pixels.shape[2], pixels.shape[3]))  # (n, crop, crop)
        if mean_heat is not None:
            heat = match_heat(heat, mean_heat.flatten()[part])
        explanations = explanation_map(heat, pixels[owners[part]])
        logits = network.logits(explanations)
        wanted = labels[owners[part], None]
        return [probabilities(logits, network.score).gather(1, wanted)[:, 0], heat.mean((1, 2)).double()]

    limit = batch_size if isinstance(batch_size, BatchLimit) else BatchLimit(batch_size)
    scores, mean_heat = in_batches(score, len(coarse), limit)
    return scores.reshape(-1, count), mean_heat.reshape(-1, count)


def insertion_and_deletion(
    network: Network, maps: Tensor, pixels: Tensor, labels: Tensor, batch_size: int | BatchLimit
) -> tuple[Tensor, Tensor]:
    """Areas under the score while pixels come or go, those that each map makes hottest first.

    An eighth of the pixels changes at a time, and what is not there has the mean colour of the network's preprocessing; pixels
    of one value, as where a map is 0, change in any order. A good map has a large insertion and a small deletion.

    Args:
        network, pixels, labels, batch_size: as in :func:`score_explanation_maps`.
        maps: min-max normalised coarse maps, (B, M, H, W).

    Returns:
        Insertion and deletion by the trapezoidal rule, from 0 to 1, both (B, M) float64.

    Source: Petsiuk et al. (2018), "RISE", with another baseline and fewer steps.
    """
    size = (pixels.shape[2], pixels.shape[3])
    order = upsample(maps.flatten(0, 1), size).flatten(1).argsort(stable=True, dim=1, descending=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    hottest = ranks.reshape(-1, 1, *size) * STEPS // order.shape[1]  # (B M, 1, h, w), the step in which a pixel changes
    blank = torch.tensor(network.preprocessing.mean, device=pixels.device)[:, None, None]
    owners = torch.arange(len(hottest), device=maps.device) // maps.shape[1]
    areas = torch.zeros(2, len(hottest), dtype=torch.float64, device=maps.device)
    for step in range(STEPS + 1):
        weight = (0.5 if step in (0, STEPS) else 1.0) / STEPS
        for place, there in enumerate((hottest < step, hottest >= step)):

            def score(part: slice, there: Tensor = there) -> list[Tensor]:
                logits = network.logits(torch.where(there[part], pixels[owners[part]], blank))
                return [probabilities(logits, network.score).gather(1, labels[owners[part], None])[:, 0]]

            limit = batch_size if isinstance(batch_size, BatchLimit) else BatchLimit(batch_size)
            areas[place] += weight * in_batches(score, len(hottest), limit)[0]
    insertion, deletion = areas.reshape(2, *maps.shape[:2])
    return insertion, deletion


@dataclass(frozen=True)
class Explanation:
    """A photograph explained for one class.

    Attributes:
        pixels: as the network sees it, in [0, 1], (3, crop, crop).
        label: the class.
        probabilities: scores of all classes, (C,).
        maps: upsampled min-max maps by method, (crop, crop) each; zeros where a map is empty.
        alphas, products: the non-zero alphas and the terms s * g at the same units, (n,) each.
    """

    pixels: Tensor
    label: int
    probabilities: Tensor
    maps: dict[Method, Tensor]
    alphas: Tensor
    products: Tensor

    @property
    def empty(self) -> list[Method]:
        """The methods that have no map here, because nothing in the layer adds to the score, or because all of it adds alike."""
        return [method for method, heat in self.maps.items() if not heat.any()]


def without_maps(row: Explanation, name: str) -> str:
    """A line that says which methods have no map of a class, and why."""
    why = "nothing in the layer adds to it, or all of it alike" if len(row.alphas) else "its gradients are 0 everywhere"
    return f"the map of {', '.join(paper.NAMES[method] for method in row.empty)} for {name} is empty: {why}"


def explain(network: Network, photograph: Tensor, labels: Sequence[int], scores: Scores) -> list[Explanation]:
    """Explain the pre- or the post-softmax score of one photograph, uint8 (3, crop, crop), for some classes.

    Returns:
        One explanation for each label, in their order; without labels, that of the class with the highest score.

    Raises:
        InputError: if the network's logits are not finite, or it has no such score.
    """
    if scores not in kinds(network.score):
        raise InputError(f"--score {network.score}: nothing follows the outputs, so there is no {scores} gradient; choose pre")
    pixels = photograph[None].float() / 255
    logits = network.logits(pixels)
    if not logits.isfinite().all():
        raise InputError("the network's logits are not finite (NaN, infinity); check the weights, --mean, --std")
    check(logits, network.score)
    chosen = torch.tensor(list(labels) or [int(logits.argmax())])
    captured = network.capture(pixels.expand(len(chosen), -1, -1, -1), chosen)
    kept = [index for index, (kind, _) in enumerate(MAPS) if kind == scores]
    maps = heatmaps(captured)[:, kept]  # (n, 3, H, W)
    large = upsample(maps.flatten(0, 1), (pixels.shape[2], pixels.shape[3]))  # (3 n, crop, crop)
    large = large.reshape(-1, len(kept), *large.shape[1:])
    gradients = captured.gradients[scores]
    products = cam.activation_sums(captured.activations) * gradients
    alphas = cam.alphas(captured.activations, gradients)
    return [
        Explanation(
            pixels=pixels[0],
            label=int(label),
            probabilities=probabilities(logits, network.score)[0],
            maps={MAPS[index][1]: heat for index, heat in zip(kept, large[row], strict=True)},
            alphas=alphas[row][gradients[row] != 0],
            products=products[row][gradients[row] != 0],
        )
        for row, label in enumerate(chosen)
    ]
