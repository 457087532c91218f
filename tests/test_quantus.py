"""Insertion's counterpart and localisation as the library Quantus has them, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from gradcampp import scenes
from gradcampp.cam import MAPS, upsample
from gradcampp.evaluation import localisation
from gradcampp.evaluation.maps import STEPS, heatmaps, insertion_and_deletion
from gradcampp.networks.load import load
from gradcampp.networks.scores import probabilities

quantus: Any = pytest.importorskip("quantus", reason="Quantus is not installed", exc_type=ImportError)
QUIET = {"disable_warnings": True, "display_progressbar": False, "normalise": False}


@pytest.fixture(scope="module")
def explained() -> tuple[Any, Any, Any, Any, list[scenes.Scene]]:
    """The embedded network, eight scenes with two instances, their labels and Grad-CAM+ maps."""
    network = load("mini")
    drawn = [scenes.draw(0, "gallery", index, instances=2) for index in range(8)]
    pixels = torch.stack([torch.from_numpy(scene.pixels).permute(2, 0, 1) for scene in drawn]).float() / 255
    labels = torch.tensor([scene.label for scene in drawn])
    maps = heatmaps(network.capture(pixels, labels))[:, MAPS.index(("pre", "gradcam+"))]
    return network, pixels, labels, maps, drawn


def test_deletion_is_pixel_flipping(explained: Any) -> None:
    """The same scores after each eighth of the pixels, hottest first; where a map is 0 any order will do, so it gets one."""
    network, pixels, labels, maps, _ = explained
    generator = torch.Generator().manual_seed(0)
    maps = maps + 1e-4 * torch.rand(maps.shape, generator=generator)  # no ties where a map is 0
    _, deletion = insertion_and_deletion(network, maps[:, None], pixels, labels, batch_size=8)
    inputs = normalize(pixels, list(network.preprocessing.mean), list(network.preprocessing.std))
    heat = upsample(maps, (128, 128))[:, None].double()
    flipping = quantus.PixelFlipping(features_in_step=128 * 128 // STEPS, perturb_baseline=0.0, **QUIET)
    steps = flipping(
        model=network.module, x_batch=inputs.numpy(), y_batch=labels.numpy(), a_batch=heat.numpy(), softmax=True, device="cpu"
    )
    whole = probabilities(network.logits(pixels)).gather(1, labels[:, None])
    curves = torch.cat(
        [whole, torch.tensor(np.array(steps)[:, 2::3], dtype=torch.float64)], 1
    )  # of three channels; (8, STEPS + 1)
    wanted = torch.trapezoid(curves, dx=1 / STEPS, dim=1)
    # Pixels along the border have equal heat after the enlargement, and may change in another order.
    assert (deletion[:, 0] - wanted).abs().max() < 3e-4
    assert wanted.std() > 0.01


def test_energy_inside_is_relevance_mass_accuracy_and_the_pointing_game_is_that_without_tolerance(
    explained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, pixels, labels, maps, drawn = explained
    heat = upsample(maps, (128, 128))[:, None].double().numpy()
    masks = np.stack([scene.masks.any(0)[None] for scene in drawn])
    given = {"model": network.module, "x_batch": pixels.numpy(), "y_batch": labels.numpy(), "a_batch": heat, "s_batch": masks}
    mass = quantus.RelevanceMassAccuracy(**QUIET)(**given, device="cpu")
    game = quantus.PointingGame(**QUIET)(**given, device="cpu")
    monkeypatch.setattr(localisation, "TOLERANCE", 0)
    for place, scene in enumerate(drawn):
        assert localisation.energy_inside(heat[place, 0], scene.masks) == pytest.approx(mass[place], rel=1e-9)
        assert localisation.pointing_game(heat[place, 0], scene.masks) == float(game[place])
