"""Localisation: does a heatmap find the things that are there? It takes masks to know, which generated scenes have.

Every metric takes one upsampled min-max map (h, w) and the masks (n, h, w) of the n instances in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from tqdm import tqdm

from gradcampp import paper
from gradcampp.cam import COLUMNS, MAPS, SCORES, column, upsample
from gradcampp.evaluation.maps import heatmaps
from gradcampp.networks.capture import Network
from gradcampp.networks.scores import probabilities
from gradcampp.scenes import Scene

Heat = NDArray[np.float64]
Masks = NDArray[np.bool_]
TOLERANCE = 15 / 500  # of the pointing game, in longer sides of the image
RIVALRY = ("own", "other", "points_at_own", "points_at_other")


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
        labels = torch.tensor([scene.label for scene in batch])
        heats, logits = _maps(network, batch, labels)
        scores = probabilities(logits, network.score).gather(1, labels[:, None])[:, 0].tolist()
        for place, (scene, score, maps) in enumerate(zip(batch, scores, heats, strict=True), start):
            for name, heat in _defined(maps):
                found = {metric: measured(heat, scene.masks) for metric, measured in METRICS.items()}
                rows.append({"scene": place, "instances": len(scene.masks), "score": score, "map": name, **found})
    return pd.DataFrame(rows)


def compete(network: Network, pairs: Sequence[Scene], batch_size: int) -> pd.DataFrame:
    """Heat on the object that is explained and on its rival, in scenes with one object each of two classes.

    Each of the two classes is explained in turn. The network is on the CPU and its input has the size of the scenes;
    ``batch_size`` of them pass through it together, twice each.

    Returns:
        One row for each pair, explained class and map: ``pair`` (its place in the sequence), ``explained`` (0 or 1, the place of
        the class in the scene), ``score`` and ``rank`` of that class among all (1 is the highest), ``map``, and one column for
        each of ``localisation.RIVALRY``: share of the heat on the ``own`` and on the ``other`` object, and 1 where the hottest
        pixel is on it (``points_at_own``, ``points_at_other``), without a tolerance. A map of zeros has none of them.
    """
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(pairs), batch_size), unit="batch", desc="competition", disable=None):
        batch = [(pair, explained) for pair in pairs[start : start + batch_size] for explained in (0, 1)]
        labels = torch.tensor([pair.labels[explained] for pair, explained in batch])
        heats, logits = _maps(network, [pair for pair, _ in batch], labels)
        own = logits.gather(1, labels[:, None])
        scores, ranks = probabilities(logits, network.score).gather(1, labels[:, None])[:, 0], 1 + (logits > own).sum(1)
        for place, ((pair, explained), maps) in enumerate(zip(batch, heats, strict=True)):
            told = {"pair": start + place // 2, "explained": explained, "score": float(scores[place]), "rank": int(ranks[place])}
            for name, heat in _defined(maps):
                rows.append({**told, "map": name, **_rivals(heat, pair.masks[explained], pair.masks[1 - explained])})
    return pd.DataFrame(rows)


def with_heat(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`compete` but for explanations one of whose maps, of that kind of score, is empty: it has no shares."""
    before = rows["map"].str.startswith("pre")
    return rows[(rows["own"] + rows["other"] > 0).groupby([rows["pair"], rows["explained"], before]).transform("all")]


def _rivals(heat: Heat, own: Masks, other: Masks) -> dict[str, float]:
    """The measures of ``RIVALRY`` of one map, of masks (h, w)."""
    found = [energy_inside(heat, mask[None]) for mask in (own, other)]
    found += [float(heat.max() > 0 and mask.flat[int(heat.argmax())]) for mask in (own, other)]
    return dict(zip(RIVALRY, found, strict=True))


def _maps(network: Network, scenes: Sequence[Scene], labels: torch.Tensor) -> tuple[Heat, torch.Tensor]:
    """Upsampled min-max maps of scenes for one label each, (B, 6, h, w), and the network's logits, (B, C)."""
    pixels = torch.stack([torch.from_numpy(scene.pixels).permute(2, 0, 1) for scene in scenes]).float() / 255
    captured = network.capture(pixels, labels)
    large = upsample(heatmaps(captured).flatten(0, 1), (pixels.shape[2], pixels.shape[3]))  # (6 B, h, w)
    return large.double().numpy().reshape(len(scenes), len(COLUMNS), *large.shape[1:]), captured.logits


def _defined(maps: Heat) -> list[tuple[str, Heat]]:
    """The maps (6, h, w) of a scene that there are, with their names: behind no softmax there is none."""
    return [(name, heat) for name, heat in zip(COLUMNS, maps, strict=True) if np.isfinite(heat).all()]


def pointing_game(heat: Heat, masks: Masks) -> float:
    """1 if the hottest pixel is on an instance or near one, else 0; a constant map points nowhere.

    Near is within 3 % of the longer side of the image: the tolerance of 15 pixels was chosen for photographs some 500 pixels
    wide, and a scene is smaller.

    Source: Zhang et al. (2018), "Top-down neural attention by excitation backprop", section 4.1.
    """
    if heat.max() <= heat.min():
        return 0.0
    row, col = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, cols = np.nonzero(masks.any(0))
    squares = (rows - row) ** 2 + (cols - col) ** 2  # (pixels of instances,)
    return float((squares <= (TOLERANCE * max(heat.shape)) ** 2).any())


def energy_inside(heat: Heat, masks: Masks) -> float:
    """Share of the heat that lies on instances; 0 for a map of zeros.

    Source: Wang et al. (2020), "Score-CAM", the energy-based pointing game.
    """
    total = heat.sum()
    return float(heat[masks.any(0)].sum() / total) if total > 0 else 0.0


def iou(heat: Heat, masks: Masks, threshold: float) -> float:
    """Intersection over union of the instances and the region that is at least ``threshold`` as hot as the hottest pixel.

    The threshold is fixed, for one that is chosen by the truth flatters every map; 0 for a map of zeros.

    Source: Selvaraju et al. (2017), "Grad-CAM", section 4.1, for the threshold of 15 % in weakly supervised localisation.
    """
    if heat.max() <= 0:
        return 0.0
    inside, region = masks.any(0), heat >= threshold * heat.max()
    return float((inside & region).sum() / (inside | region).sum())


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
    "iou_15": partial(iou, threshold=0.15),
    "iou_50": partial(iou, threshold=0.5),
    "instance_recall": instance_recall,
}


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
    groups = rows.groupby("instances")
    found = pd.concat({instances: _means(_wide(scenes, METRICS)) for instances, scenes in groups}, names=["instances"])
    return _by_method(found)[["scores", "instances", "metric", "method", "n", "mean", "low", "high"]]


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences of the methods in scenes with several instances, for which Grad-CAM++ was made.

    Returns:
        One row for each kind of score, pair of methods (as in Table 1) and metric: ``scores``, ``methods``, ``metric``, ``n``,
        mean ``difference`` scene by scene, ``low`` and ``high`` (95 %, bootstrap), over the scenes with two or more instances
        in rows of :func:`localise`; no rows where there are none.
    """
    return _differences(rows[rows["instances"] > 1], METRICS)


def rivalry(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each measure of :func:`compete` by method, of its rows :func:`with_heat`, with its bootstrap interval.

    The two explanations of one picture are not independent: a pair counts once, by the mean of what is there of it.

    Returns:
        ``scores``, ``metric``, ``method``, ``n`` (pairs), ``mean``, ``low``, ``high`` (95 %).
    """
    wide = _wide(with_heat(rows), RIVALRY)
    found = pd.concat([_means(wide[[name]].dropna()) for name in wide])
    return _by_method(found)[["scores", "metric", "method", "n", "mean", "low", "high"]]


def rivalry_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences of the methods pair by pair, of rows of :func:`compete` :func:`with_heat`, with columns as of :func:`gains`."""
    return _differences(with_heat(rows), RIVALRY)


def _differences(rows: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame(columns=["scores", "methods", "metric", "n", "difference", "low", "high"])
    wide = _wide(rows, metrics).swaplevel(axis=1)
    found = {
        (scores, paper.pair_name(pair)): _means(
            pd.DataFrame(wide[column(scores, pair[0])] - wide[column(scores, pair[1])]).dropna()
        )
        for scores in SCORES
        for pair in paper.PAIRS
        if {column(scores, method) for method in pair} <= set(rows["map"])
    }
    return pd.concat(found, names=["scores", "methods"]).reset_index().rename(columns={"mean": "difference"})


def _by_method(means: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(MAPS, columns=["scores", "method"]).assign(map=COLUMNS).merge(means.reset_index())


def _wide(rows: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """A row for each scene or pair of objects, and a column for each metric and map: the mean, where there are several."""
    index = "scene" if "scene" in rows else "pair"
    return rows.pivot_table(index=index, columns="map", values=list(metrics), sort=False).rename_axis(columns=["metric", "map"])


def _means(scenes: pd.DataFrame) -> pd.DataFrame:
    """The mean of each column with its bootstrap interval: ``n``, ``mean``, ``low``, ``high``."""
    values = np.ascontiguousarray(scenes.to_numpy().T)
    low, high = bootstrap_intervals(values)
    return pd.DataFrame({"n": len(scenes), "mean": values.mean(1), "low": low, "high": high}, index=scenes.columns)
