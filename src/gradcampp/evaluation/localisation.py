"""How well a heatmap finds the things that are there: needs masks, which generated scenes have.

Every function takes one upsampled min-max map (h, w) and the masks (n, h, w) of the n instances in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gradcampp.cam import COLUMNS, MAPS, SCORES, column, upsample
from gradcampp.evaluation.maps import heatmaps
from gradcampp.networks.capture import Network, probabilities
from gradcampp.scenes.scene import Scene


def localise(network: Network, scenes: Sequence[Scene], batch_size: int) -> pd.DataFrame:
    """How well each of the six maps finds the instances in single-class scenes.

    Args:
        network: a module on the CPU whose input has the size of the scenes.
        scenes: what it sees; the class explained is the label.
        batch_size: scenes in the network together.

    Returns:
        One row for each scene and map: ``scene`` (its place in the sequence), ``instances``, ``score`` of
        the label, ``map``, and one column for each of ``localisation.METRICS``.
    """
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(scenes), batch_size), unit="batch", desc="localisation", disable=None):
        batch = scenes[start : start + batch_size]
        pixels = torch.stack([torch.from_numpy(scene.pixels).permute(2, 0, 1) for scene in batch]).float() / 255
        labels = torch.tensor([scene.label for scene in batch])
        captured = network.capture(pixels, labels)
        scores = probabilities(captured.logits).gather(1, labels[:, None])[:, 0].tolist()
        heat = upsample(heatmaps(captured).flatten(0, 1), (pixels.shape[2], pixels.shape[3])).double().numpy()
        for place, (scene, score) in enumerate(zip(batch, scores, strict=True)):
            for number, name in enumerate(COLUMNS):
                large = heat[place * len(COLUMNS) + number]
                found = {metric: measured(large, scene.masks) for metric, measured in METRICS.items()}
                rows.append({"scene": start + place, "instances": len(scene.masks), "score": score, "map": name, **found})
    return pd.DataFrame(rows)


Heat = NDArray[np.float64]


Masks = NDArray[np.bool_]


def pointing_game(heat: Heat, masks: Masks) -> float:
    """1 if the hottest pixel belongs to an instance, else 0; a constant map points nowhere.

    Source: Zhang et al. (2018), "Top-down neural attention by excitation backprop", without tolerance.
    """
    if heat.max() <= heat.min():
        return 0.0
    return float(masks.any(0).flat[int(heat.argmax())])


def energy_inside(heat: Heat, masks: Masks) -> float:
    """Share of the heat that lies on instances; 0 for a map of zeros.

    Source: Wang et al. (2020), "Score-CAM", the energy-based pointing game.
    """
    total = heat.sum()
    return float(heat[masks.any(0)].sum() / total) if total > 0 else 0.0


def best_iou(heat: Heat, masks: Masks) -> float:
    """Intersection over union of the instances and the region over a threshold, at the best threshold.

    Every value of the map is tried: pixels are taken from the hottest down, and the union is known after
    each of them.
    """
    inside = masks.any(0).ravel()
    order = np.argsort(-heat.ravel(), kind="stable")
    hits = inside[order].cumsum()  # (h w,) pixels of instances among the hottest
    unions = np.arange(1, len(order) + 1) + inside.sum() - hits
    last = np.append(np.diff(heat.ravel()[order]) != 0, True)  # a threshold takes all pixels of one value
    return float((hits / unions)[last].max())


def instance_recall(heat: Heat, masks: Masks) -> float:
    """Share of the instances whose hottest pixel is at least half as hot as the whole map's.

    This is the promise of Grad-CAM++: that a second and a third object of the class light up too.
    """
    if heat.max() <= 0:
        return 0.0
    return float(np.mean([heat[mask].max() >= heat.max() / 2 for mask in masks]))


METRICS: dict[str, Callable[[Heat, Masks], float]] = {
    "pointing_game": pointing_game,
    "energy_inside": energy_inside,
    "best_iou": best_iou,
    "instance_recall": instance_recall,
}


def bootstrap_interval(
    values: NDArray[np.float64], seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Args:
        values: one number an image, (n,).
        seed: of the resampling.
        samples: number of resamples.
        confidence: coverage, between 0 and 1.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: if there is no value.
    """
    if len(values) == 0:
        raise ValueError("expected at least one value, got none")
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each localisation metric, with its bootstrap interval.

    Args:
        rows: as ``localise`` returns it; choose the scenes before.

    Returns:
        One row for each kind of score, number of instances, metric and method: ``scores``, ``instances``,
        ``metric``, ``method``, ``n``, ``mean``, ``low``, ``high`` (95 %).
    """
    found = []
    for scores, method in MAPS:
        own = rows[rows["map"] == column(scores, method)]
        for instances, group in own.groupby("instances"):
            for metric in METRICS:
                values = group[metric].to_numpy()
                low, high = bootstrap_interval(values)
                found.append((scores, instances, metric, method, len(values), values.mean(), low, high))
    return pd.DataFrame(found, columns=["scores", "instances", "metric", "method", "n", "mean", "low", "high"])


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What Grad-CAM++ adds to Grad-CAM+ in scenes with several instances: the claim that it was made for.

    Args:
        rows: as ``localise`` returns it; choose the scenes before.

    Returns:
        One row for each kind of score and metric: mean difference scene by scene, with its 95 % bootstrap
        interval, over the scenes with two or more instances.
    """
    found = []
    several = rows[rows["instances"] > 1]
    for scores in SCORES:
        for metric in METRICS:
            wide = several.pivot(index="scene", columns="map", values=metric)
            difference = (wide[column(scores, "gradcam++")] - wide[column(scores, "gradcam+")]).to_numpy()
            low, high = bootstrap_interval(difference)
            found.append((scores, metric, len(difference), difference.mean(), low, high))
    return pd.DataFrame(found, columns=["scores", "metric", "n", "difference", "low", "high"])
