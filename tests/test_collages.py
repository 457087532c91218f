"""Collages of two photographs: what they show, and the numbers of them that came with the repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradcampp.errors import InputError
from gradcampp.evaluation import localisation
from gradcampp.evaluation.folders import Photograph, list_photographs
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.records import Run
from gradcampp.networks.load import load
from scripts import collages
from scripts.evidence import RUNS
from tests.conftest import ROOT, photograph
from tests.test_evaluate import SMALL

NAMES = [f"{model}-{layer}" for model, layer in RUNS]


def test_each_photograph_is_in_one_pair_of_two_classes() -> None:
    many = [Photograph(f"{label}/{place}.jpg", label) for label in range(30) for place in range(3)]
    found = collages.pairs(many)
    images = [each.image for pair in found for each in pair]
    assert len(images) == len(set(images)) > 60
    assert all(one.label != other.label for one, other in found)
    assert found == collages.pairs(many)
    assert [one.label < other.label for one, other in found].count(True) < len(found)  # no class is always on the left


def test_a_collage_is_two_middles_and_its_masks_are_halves(tmp_path: Path) -> None:
    pair = [Photograph("a.png", 2), Photograph("b.png", 7)]
    for seed, each in enumerate(pair):
        photograph(seed).save(tmp_path / each.image)
    scene = collages.collage(pair, tmp_path, SMALL)
    height, width = SMALL.size
    whole = [read_photograph(tmp_path / each.image, SMALL).permute(1, 2, 0) for each in pair]
    half, start = width // 2, width // 4
    for place, (labelled, full) in enumerate(zip((2, 7), whole, strict=True)):
        columns = slice(place * half, (place + 1) * half)
        assert torch.equal(torch.from_numpy(scene.pixels[:, columns]), full[:, start : start + half])
        assert scene.masks[place, :, columns].all()
        assert scene.masks[place].sum() == height * half
        assert scene.labels[place] == labelled


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_numbers_say_where_they_come_from(name: str) -> None:
    run = Run(ROOT / "evidence" / name)
    rows = run.competition
    assert rows is not None
    told = json.loads(rows.attrs["settings"])
    assert (told["photographs"], told["weights"]) == (run.manifest["data"]["sha256"], run.manifest["experiment"]["weights"])
    assert told["layer"] == run.manifest["experiment"]["layer"]
    assert told["pairs"] == 500
    assert rows["pair"].nunique() >= 200
    assert (rows["rank"] <= 2).all()
    whole = rows["own"] + rows["other"]
    assert (whole.between(0.995, 1.005) | whole.eq(0)).all()  # halves leave nothing out; an empty map has no heat
    plus = localisation.rivalry_gains(rows).set_index(["scores", "methods", "metric"])["low"]
    assert plus["pre", "Grad-CAM+ vs Grad-CAM", "other"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_two_collages_give_the_committed_rows(shared: Path, name: str) -> None:
    """Scores and shares by 4e-3: half of that is what three digits leave out."""
    model, layer = name.split("-", 1)
    weights = shared / f"{model}.safetensors" if model.startswith("squeezenet") else None
    try:
        network = load(model, layer, weights=weights)
    except InputError as error:
        pytest.skip(str(error))
    committed = Run(ROOT / "evidence" / name).competition
    assert committed is not None
    chosen = collages.pairs(list_photographs(shared / "imagenet-1000", network.classes))
    places = committed["pair"].unique()[[0, -1]]
    scenes = [collages.collage(chosen[place], shared / "imagenet-1000", network.preprocessing) for place in places]
    found = collages.kept(localisation.compete(network, scenes, 2))
    expected = committed[committed["pair"].isin(places)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[["explained", "rank", "map"]], expected[["explained", "rank", "map"]])
    columns = ["score", *localisation.RIVALRY]
    np.testing.assert_allclose(found[columns], expected[columns], atol=4e-3)
