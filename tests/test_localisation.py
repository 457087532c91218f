"""Localisation metrics against loops over pixels and against maps whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gradcampp import cam
from gradcampp.cam import COLUMNS
from gradcampp.evaluation.localisation import (
    METRICS,
    RIVALRY,
    averages,
    bootstrap_intervals,
    compete,
    energy_inside,
    gains,
    instance_recall,
    iou,
    pointing_game,
    rivalry,
    rivalry_gains,
    with_heat,
)
from gradcampp.evaluation.maps import heatmaps
from gradcampp.networks.load import load
from gradcampp.paper import PAIRS, pair_name
from gradcampp.scenes import pair

LEVELS = arrays(np.float64, (4, 5), elements=st.integers(0, 4).map(lambda level: level / 4))
MASKS = arrays(np.bool_, (2, 4, 5)).filter(lambda masks: bool(masks.any((1, 2)).all()))


@given(LEVELS, MASKS, st.sampled_from([0.15, 0.5]))
def test_the_overlap_equals_a_loop_over_pixels(heat: NDArray[np.float64], masks: NDArray[np.bool_], threshold: float) -> None:
    union = masks[0] | masks[1]
    both = either = 0
    for row in range(4):
        for col in range(5):
            over, inside = heat[row, col] >= threshold * heat.max(), bool(union[row, col])
            both += over and inside
            either += over or inside
    assert iou(heat, masks, threshold) == (pytest.approx(both / either, rel=1e-12) if heat.max() > 0 else 0)


@given(LEVELS, MASKS)
def test_energy_and_recall_equal_loops_over_pixels(heat: NDArray[np.float64], masks: NDArray[np.bool_]) -> None:
    inside = sum(heat[y, x] for y in range(4) for x in range(5) if masks[0][y, x] or masks[1][y, x])
    total = sum(heat[y, x] for y in range(4) for x in range(5))
    assert energy_inside(heat, masks) == pytest.approx(inside / total if total else 0, rel=1e-12)
    found = [any(heat[y, x] >= heat.max() / 2 for y in range(4) for x in range(5) if mask[y, x]) for mask in masks]
    assert instance_recall(heat, masks) == (sum(found) / 2 if heat.max() > 0 else 0)


def test_the_pointing_game_asks_where_the_hottest_pixel_is() -> None:
    masks = np.zeros((2, 3, 3), bool)
    masks[0, 0, 0] = masks[1, 2, 2] = True
    heat = np.zeros((3, 3))
    heat[2, 2] = 1
    assert pointing_game(heat, masks) == 1
    heat[1, 1] = 2
    assert pointing_game(heat, masks) == 0
    assert pointing_game(np.ones((3, 3)), masks) == 0  # a constant map points nowhere


@pytest.mark.parametrize("row", range(12))
@pytest.mark.parametrize("col", range(12))
def test_the_pointing_game_has_a_tolerance_of_15_pixels_in_500(row: int, col: int) -> None:
    masks, heat = np.zeros((1, 100, 200), bool), np.zeros((100, 200))
    masks[0, 5, 5], heat[row, col] = True, 1
    assert pointing_game(heat, masks) == (math.hypot(row - 5, col - 5) <= 15 * 200 / 500)


def test_a_perfect_map_is_perfect_and_a_black_one_finds_nothing() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2, :2] = masks[1, 3, 3] = True
    assert [metric(masks.any(0).astype(float), masks) for metric in METRICS.values()] == [1, 1, 1, 1, 1]
    assert [metric(np.zeros((4, 4)), masks) for metric in METRICS.values()] == [0, 0, 0, 0, 0]
    one = masks[0].astype(float)
    assert instance_recall(one, masks) == 0.5  # the second instance is missed


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    (low,), (high,) = bootstrap_intervals(values[None])
    half = 1.96 * values.std(ddof=1) / 20
    # The Monte Carlo error of a 2.5 % quantile of 2,000 resamples is about 0.06 standard errors of the mean (0.1).
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert [float(bound[0]) for bound in bootstrap_intervals(values[None])] == [low, high]
    assert [float(bound[0]) for bound in bootstrap_intervals(np.ones((1, 5)))] == [1, 1]
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_intervals(np.ones((1, 0)))


@pytest.mark.parametrize("images", [1, 2, 250])
def test_an_interval_does_not_depend_on_what_is_resampled_with_it(images: int) -> None:
    values = np.random.default_rng(2).normal(0, 1, (5, images))
    low, high = bootstrap_intervals(values)
    rng = np.random.default_rng(0)
    picked = [rng.integers(0, images, images) for _ in range(2000)]
    for row, *ends in zip(values, low, high, strict=True):
        means = [row[places].mean() for places in picked]
        assert ends == np.quantile(means, [(1 - 0.95) / 2, (1 + 0.95) / 2]).tolist()


def test_averages_and_gains_are_those_of_pandas_one_map_and_metric_at_a_time() -> None:
    rng = np.random.default_rng(3)
    scenes = [(scene, 1 + scene % 3, name) for scene in range(30) for name in COLUMNS]
    rows = pd.DataFrame(scenes, columns=["scene", "instances", "map"]).assign(
        **{name: rng.random(len(scenes)) for name in METRICS}
    )
    table = averages(rows)
    assert len(table) == len(COLUMNS) * len(METRICS) * rows["instances"].nunique()
    for _, row in table.iterrows():
        own = rows[(rows["map"] == cam.column(row["scores"], row["method"])) & (rows["instances"] == row["instances"])][
            row["metric"]
        ]
        assert row["n"] == len(own)
        assert row["mean"] == pytest.approx(own.mean(), rel=1e-12)
        assert row["low"] < row["mean"] < row["high"]
    several = rows[rows["instances"] > 1]
    assert len(gains(rows)) == 2 * len(PAIRS) * len(METRICS)
    for _, row in gains(rows).iterrows():
        wide = several.pivot(index="scene", columns="map", values=row["metric"])
        (pair,) = (pair for pair in PAIRS if pair_name(pair) == row["methods"])
        gain = wide[cam.column(row["scores"], pair[0])] - wide[cam.column(row["scores"], pair[1])]
        assert row["n"] == len(gain)
        assert row["difference"] == pytest.approx(gain.mean(), rel=1e-12)
        assert row["low"] < row["difference"] < row["high"]
    assert len(gains(rows[rows["instances"] == 1])) == 0


def test_heat_on_two_objects_is_that_of_their_masks() -> None:
    network, drawn = load("mini"), [pair(0, "test", index) for index in range(3)]
    rows = compete(network, drawn, 2)
    assert len(rows) == 3 * 2 * len(COLUMNS)
    found = rows.set_index(["pair", "explained", "map"])
    for place, scene in enumerate(drawn):
        pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1).float()[None] / 255
        for explained, label in enumerate(scene.labels):
            captured = network.capture(pixels, torch.tensor([label]))
            large = cam.upsample(heatmaps(captured)[0], (128, 128)).double().numpy()
            own, other = scene.masks[explained], scene.masks[1 - explained]
            scores = captured.logits[0].double().softmax(0).tolist()
            for name, heat in zip(COLUMNS, large, strict=True):
                row = found.xs((place, explained, name))
                hottest = np.unravel_index(heat.argmax(), heat.shape)
                # a batch of four and one alone differ by float32 rounding, in maps between 0 and 1
                assert row["own"] == pytest.approx(heat[own].sum() / heat.sum(), abs=1e-4)
                assert row["other"] == pytest.approx(heat[other].sum() / heat.sum(), abs=1e-4)
                assert (row["points_at_own"], row["points_at_other"]) == (own[hottest], other[hottest])
                assert row["score"] == pytest.approx(scores[label], abs=1e-5)
                assert row["rank"] == 1 + sum(score > scores[label] for score in scores)


def test_an_empty_map_has_no_share_and_its_explanation_is_left_out_of_all_methods() -> None:
    """Counted as a share of 0, an empty map of Grad-CAM would keep a rival coldest."""
    rng = np.random.default_rng(5)
    keys = [(place, explained, name) for place in range(12) for explained in (0, 1) for name in COLUMNS]
    rows = pd.DataFrame(keys, columns=["pair", "explained", "map"]).assign(**{name: rng.random(len(keys)) for name in RIVALRY})
    empty = (rows["map"] == "pre_gradcam") & ((rows["pair"] == 3) | ((rows["pair"] == 5) & (rows["explained"] == 0)))
    rows.loc[empty, list(RIVALRY)] = 0.0
    gone = rows["map"].str.startswith("pre") & ((rows["pair"] == 3) | ((rows["pair"] == 5) & (rows["explained"] == 0)))
    pd.testing.assert_frame_equal(with_heat(rows), rows[~gone])
    for found in (rivalry(rows), rivalry_gains(rows)):
        assert found.groupby("scores")["n"].unique().map(list).to_dict() == {"pre": [11], "post": [12]}
        assert found.notna().all().all()
    pd.testing.assert_frame_equal(rivalry_gains(rows), rivalry_gains(rows[~gone]))
    assert with_heat(rows[empty]).empty


def test_a_pair_counts_once_however_often_it_is_explained() -> None:
    rng = np.random.default_rng(4)
    keys = [(place, explained, name) for place in range(15) for explained in (0, 1) for name in COLUMNS]
    rows = pd.DataFrame(keys, columns=["pair", "explained", "map"]).assign(**{name: rng.random(len(keys)) for name in RIVALRY})
    rows = rows[(rows["pair"] != 3) | (rows["explained"] == 1)]  # one explanation of it alone
    table, gained = rivalry(rows), rivalry_gains(rows)
    assert set(table["n"]) == set(gained["n"]) == {15}
    for _, row in table.iterrows():
        own = rows[rows["map"] == cam.column(row["scores"], row["method"])].groupby("pair")[row["metric"]].mean()
        assert row["mean"] == pytest.approx(own.mean(), rel=1e-12)
        assert row["low"] < row["mean"] < row["high"]
    means = table.set_index(["scores", "metric", "method"])["mean"]
    for _, row in gained.iterrows():
        (first, second) = next(pair for pair in PAIRS if pair_name(pair) == row["methods"])
        wanted = means[row["scores"], row["metric"], first] - means[row["scores"], row["metric"], second]
        assert row["difference"] == pytest.approx(wanted, rel=1e-9)
