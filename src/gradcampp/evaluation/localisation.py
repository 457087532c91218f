"""Localisation: does a heatmap find the things that are there? It takes masks to know, which generated scenes have.

Every metric takes one upsampled min-max map (h, w) and the masks (n, h, w) of the n instances in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from tqdm import tqdm

from gradcampp.cam import COLUMNS, MAPS, SCORES, column, upsample
from gradcampp.evaluation.maps import heatmaps
from gradcampp.networks.capture import Network, probabilities
from gradcampp.scenes import Scene

Heat = NDArray[np.float64]
Masks = NDArray[np.bool_]


def localise(network: Network, scenes: Sequence[Scene], batch_size: int) -> pd.DataFrame:
    """Every metric of each of the six maps in single-class scenes, whose class is the one explained.

    The network is on the CPU and its input has the size of the scenes; ``batch_size`` of them pass through it together.

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
        large = upsample(heatmaps(captured).flatten(0, 1), (pixels.shape[2], pixels.shape[3]))  # (6 B, h, w)
        heats = large.double().numpy().reshape(len(batch), len(COLUMNS), *large.shape[1:])  # (B, 6, h, w)
        for place, (scene, score, maps) in enumerate(zip(batch, scores, heats, strict=True), start):
            for name, heat in zip(COLUMNS, maps, strict=True):
                found = {metric: measured(heat, scene.masks) for metric, measured in METRICS.items()}
                rows.append({"scene": place, "instances": len(scene.masks), "score": score, "map": name, **found})
    return pd.DataFrame(rows)


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
    order = np.argsort(-heat.ravel())  # in any order among equals: only the last of them counts
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


METRICS = {metric.__name__: metric for metric in (pointing_game, energy_inside, best_iou, instance_recall)}


def bootstrap_intervals(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap intervals of means, 95 %, from 2,000 resamples.

    Args:
        values: a row for each mean and a column for each image, (m, n); all rows are resampled alike.

    Returns:
        Lower and upper bounds, (m,) each.

    Raises:
        ValueError: if there is no value.
    """
    if values.shape[1] == 0:
        raise ValueError("expected at least one value, got none")
    if values.shape[1] == 1:  # one image has one resample, which scipy refuses
        return values[:, 0], values[:, 0]

    def mean(resamples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        """Each mean added up in the order in which it would be alone, so that it does not depend on its neighbours."""
        return np.asarray(np.ascontiguousarray(resamples).mean(axis))

    rng = np.random.default_rng(0)
    resampled = bootstrap((values,), mean, axis=1, n_resamples=2000, batch=100, method="percentile", rng=rng)
    low, high = np.quantile(resampled.bootstrap_distribution, [(1 - 0.95) / 2, (1 + 0.95) / 2], axis=1)
    return low, high


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each localisation metric over the scenes in rows of :func:`localise`, with its bootstrap interval.

    Returns:
        One row for each kind of score, number of instances, metric and method: ``scores``, ``instances``,
        ``metric``, ``method``, ``n``, ``mean``, ``low``, ``high`` (95 %).
    """
    found = pd.concat({instances: _means(_wide(scenes)) for instances, scenes in rows.groupby("instances")}, names=["instances"])
    maps = pd.DataFrame(MAPS, columns=["scores", "method"]).assign(map=COLUMNS)
    return maps.merge(found.reset_index())[["scores", "instances", "metric", "method", "n", "mean", "low", "high"]]


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Gain of Grad-CAM++ over Grad-CAM+ in scenes with several instances: the claim that it was made for.

    Returns:
        One row for each kind of score and metric: mean difference scene by scene, with its 95 % bootstrap
        interval, over the scenes with two or more instances in rows of :func:`localise`; no rows where there are none.
    """
    several = rows[rows["instances"] > 1]
    if several.empty:
        return pd.DataFrame(columns=["scores", "metric", "n", "difference", "low", "high"])
    wide = _wide(several).swaplevel(axis=1)
    found = {s: _means(pd.DataFrame(wide[column(s, "gradcam++")] - wide[column(s, "gradcam+")])) for s in SCORES}
    return pd.concat(found, names=["scores"]).reset_index().rename(columns={"mean": "difference"})


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each scene, and a column for each metric and map."""
    return rows.pivot(index="scene", columns="map", values=list(METRICS)).rename_axis(columns=["metric", "map"])


def _means(scenes: pd.DataFrame) -> pd.DataFrame:
    """The mean of each column with its bootstrap interval: ``n``, ``mean``, ``low``, ``high``."""
    values = np.ascontiguousarray(scenes.to_numpy().T)
    low, high = bootstrap_intervals(values)
    return pd.DataFrame({"n": len(scenes), "mean": values.mean(1), "low": low, "high": high}, index=scenes.columns)
