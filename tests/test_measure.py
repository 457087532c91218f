"""What a run records beside the scores: how the two methods differ, and the maps that check the metric, by slow twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from gradcampp import cam
from gradcampp.cam import SCORES, Scores, column, min_max
from gradcampp.evaluation import records
from gradcampp.evaluation.maps import matched, signed
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.networks.capture import Capture
from tests.networks import scored
from tests.test_evaluate import SMALL, Constant, run

THRESHOLD = 0.3


def seen(folder: Path, image: str) -> tuple[nn.Module, Tensor, Tensor, dict[Scores, Tensor], int]:
    """The network, a photograph, its maps and gradients (K, H, W), and its label; the graph of the head alone."""
    module = scored().eval()
    pixels, label = read_photograph(folder / image, SMALL).float() / 255, int(Path(image).parts[0])
    maps = module.features(normalised(pixels)[None]).detach().requires_grad_()  # type: ignore[operator]
    logits = 20 * module.classifier(maps)[0]  # type: ignore[operator]
    targets: dict[Scores, Tensor] = {"pre": logits[label], "post": logits.softmax(0)[label]}
    gradients = {scores: torch.autograd.grad(target, maps, retain_graph=True)[0][0] for scores, target in targets.items()}
    return module, pixels, maps.detach()[0], gradients, label


def normalised(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor(SMALL.mean)[:, None, None], torch.tensor(SMALL.std)[:, None, None]
    return (pixels - mean) / std


def slow_shrinkage(a: Tensor, g: Tensor) -> dict[str, float]:
    """Everything that is recorded of one image's maps, (K, H, W), unit by unit in Python's floats."""
    added: list[float] = []  # r * s of every unit with a positive gradient: what it adds to the map of Grad-CAM+, times two
    alphas: list[float] = []
    kept, weights, plus, plusplus = [], [], torch.zeros(a.shape[1:]).double(), torch.zeros(a.shape[1:]).double()
    lost = plus.clone()
    for maps, slopes in zip(a.double(), g.double(), strict=True):
        s = math.fsum(maps.flatten().tolist())
        positive = [slope for slope in slopes.flatten().tolist() if slope > 0]
        half, weight = math.fsum(positive) / 2, math.fsum(r / (2 + s * r) for r in positive)
        added += [r * s for r in positive]
        alphas += [1 / (2 + s * r) for r in positive]
        kept.append(weight / half if positive else 0.0)
        weights.append(half * s)
        plus, plusplus = plus + half * maps, plusplus + weight * maps
        lost = lost + (half - weight) * maps
    count = sum(weights)
    mean = sum(w * k for w, k in zip(weights, kept, strict=True)) / count if count else 0.0
    deviation = math.sqrt(sum(w * (k - mean) ** 2 for w, k in zip(weights, kept, strict=True)) / count) if count else 0.0
    stretched = [(values - values.min()) / (values.max() - values.min()) for values in (plus, plusplus)]
    largest = max((1 - k for k, w in zip(kept, weights, strict=True) if w > 0), default=0.0)
    spread = float(plus.max() - plus.min())
    return {
        "alpha_positive": len(alphas),
        "alpha_max_positive": max(alphas, default=math.nan),
        "difference": float((stretched[0] - stretched[1]).abs().max()) if spread else 0.0,
        "bound": min(largest * float(plus.max()) / spread, float(lost.max()) / spread, 1.0) if spread else float(count > 0),
        "effective_alpha": math.fsum(w * x for w, x in zip(added, alphas, strict=True)) / math.fsum(added) if count else 0.0,
        "unevenness": deviation / mean if mean else 0.0,
        "equation_6": math.fsum(t / (2 + t) for t in added),
    }


SHRINKAGE = ("difference", "bound", "effective_alpha", "unevenness", "equation_6")


def test_what_the_theorems_promise_is_recorded_as_a_slow_twin_finds_it(folder: Callable[..., Path], tmp_path: Path) -> None:
    """float32 gradients of other batches differ by 1e-5, and a minimal heat near the maximal one makes ten times that."""
    data = folder()
    rows = run(data, tmp_path / "run")
    over = rows["score"] > THRESHOLD
    assert 3 < over.sum() < len(rows)
    for _, row in rows.iterrows():
        *_, a, gradients, _ = seen(data, row["image"])
        for scores, g in gradients.items():
            expected = slow_shrinkage(a, g)
            assert row[f"{scores}_alpha_positive"] == expected["alpha_positive"]
            assert row[f"{scores}_alpha_max_positive"] == pytest.approx(expected["alpha_max_positive"], abs=1e-4, nan_ok=True)
            assert not row[f"{scores}_alpha_max_positive"] > 0.5
            for name in SHRINKAGE:
                value = expected[name] if row["score"] > THRESHOLD else math.nan
                assert row[f"{scores}_{name}"] == pytest.approx(value, rel=1e-4, abs=1e-3, nan_ok=True), (row["image"], name)
    assert (rows.loc[over, "pre_difference"] > 1e-3).any()
    assert (rows.loc[over, "pre_difference"] <= rows.loc[over, "pre_bound"] + 1e-12).all()
    for name in SHRINKAGE:  # pre and post are not mistaken for each other
        assert ((rows[f"pre_{name}"] - rows[f"post_{name}"]).abs() > 1e-3).any()


class Signed(nn.Module):
    """A ReLU, but bright photographs get some values below 0."""

    def forward(self, values: Tensor) -> Tensor:
        positive = values.relu()
        return torch.where(values.amax((1, 2, 3), keepdim=True) > 0.8, positive - 0.25, positive)


def test_of_a_photograph_with_negative_activations_only_the_difference_is_known(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = folder()
    module = scored().eval()
    layer = Signed()
    module.get_submodule("features").register_module("4", layer)
    kept: list[list[float]] = []
    layer.register_forward_hook(lambda _m, _i, output: kept.append(output.amin((1, 2, 3)).tolist()))
    rows = run(data, tmp_path / "run", module, threshold=0.0, batch_size=18)
    negative = np.array(next(values for values in kept if len(values) == 18)) < 0  # the probe has fewer photographs
    assert 0 < negative.sum() < 18
    for scores in SCORES:
        for name in SHRINKAGE[1:]:
            assert (rows[f"{scores}_{name}"].isna() == negative | records.empty(rows, scores)).all()
        assert (rows[f"{scores}_difference"].notna() == ~records.empty(rows, scores)).all()
        assert rows[f"{scores}_alpha_max_positive"].notna().all()
    assert (rows.loc[~negative, "pre_difference"] <= rows.loc[~negative, "pre_bound"] + 1e-12).all()


def test_a_photograph_without_positive_gradients_has_no_largest_alpha(folder: Callable[..., Path], tmp_path: Path) -> None:
    """The scores of the classes 1 and 2 do not depend on the photograph: none of the columns has a number then."""
    rows = run(folder(2), tmp_path / "run", Constant())
    flat = rows["label"] > 0
    assert rows.loc[flat, "pre_alpha_max_positive"].isna().all()
    assert (rows.loc[flat, "pre_alpha_positive"] == 0).all()
    assert rows.loc[~flat, "pre_alpha_max_positive"].notna().all()
    assert (rows.loc[~flat, "pre_alpha_positive"] > 0).all()
    assert records.SCHEMA.names == [*rows.columns]
    assert all(records.SCHEMA.field(f"{scores}_{name}").nullable for scores in SCORES for name in SHRINKAGE)


def score(module: nn.Module, pixels: Tensor, heat: Tensor, label: int) -> float:
    with torch.no_grad():
        return float(module(normalised(heat * pixels)[None])[0].double().softmax(0)[label])


def large(heat: Tensor) -> Tensor:
    """A coarse map (H, W) of the least value 0 and the largest 1, as large as the photograph; zeros for a constant one."""
    heat = heat.clamp(min=0)
    spread = heat.max() - heat.min()
    heat = (heat - heat.min()) / spread if spread > 0 else torch.zeros_like(heat)
    size = SMALL.size
    return torch.nn.functional.interpolate(heat[None, None].float(), size, mode="bilinear")[0, 0]


def slow_controls(module: nn.Module, pixels: Tensor, a: Tensor, gradients: dict[Scores, Tensor], label: int) -> dict[str, float]:
    """The six control scores of one photograph, one map at a time."""
    found: dict[str, float] = {}
    for scores, g in gradients.items():
        wanted = float(large((g.mean((1, 2))[:, None, None] * a).sum(0)).double().mean())
        plus = large((g.clamp(min=0).mean((1, 2))[:, None, None] * a).sum(0))
        positive, s = g.clamp(min=0), a.sum((1, 2), keepdim=True)
        plusplus = large(((positive / (2 + s * positive)).sum((1, 2))[:, None, None] * a).sum(0))
        for name, heat in (("gradcam_plus", plus), ("gradcam_plusplus", plusplus)):
            key = f"{scores}_{name}_matched"
            if not 0 < wanted < float((heat > 0).double().mean()):
                found[key] = math.nan
                continue

            def excess(power: float, heat: Tensor = heat, wanted: float = wanted) -> float:
                return float((heat.double() ** power * (heat > 0)).mean()) - wanted

            power = scipy.optimize.brentq(excess, 1e-6, 1e4, xtol=1e-12)
            found[key] = score(module, pixels, (heat.double() ** power).float(), label)
    g, s = gradients["pre"], a.sum((1, 2), keepdim=True)
    published = torch.where(g == 0, 0, g / (2 + s * g)).sum((1, 2))
    found["pre_signed"] = score(module, pixels, large((published[:, None, None] * a).sum(0)), label)
    tame = (g / (2 + s * g.abs())).sum((1, 2))
    found["pre_signed_tame"] = score(module, pixels, large((tame[:, None, None] * a).sum(0)), label)
    return found


CONTROLS = (*(column(scores, method) + "_matched" for scores in SCORES for method in ("gradcam+", "gradcam++")), *records.SIGNED)


def test_controls_are_recorded_as_a_slow_twin_finds_them(folder: Callable[..., Path], tmp_path: Path) -> None:
    """float32 on both sides, and a mean heat met to 1e-6."""
    data = folder()
    rows = run(data, tmp_path / "run", controls=True, threshold=0.001)
    assert set(CONTROLS) <= set(records.CONTROLS)
    over = rows["score"] > 0.001
    assert rows.loc[~over, list(CONTROLS)].isna().all(axis=None)
    assert rows.loc[over, list(CONTROLS)].notna().any().all()
    assert rows.loc[over, CONTROLS[0]].isna().any()  # a photograph whose Grad-CAM map is too warm for any power
    for _, row in rows[over].iterrows():
        expected = slow_controls(*seen(data, row["image"]))
        assert expected.keys() == set(CONTROLS)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=1e-4, nan_ok=True), (row["image"], name)
    for first, second in (("pre_signed", "pre_signed_tame"), (CONTROLS[0], CONTROLS[1]), (CONTROLS[0], CONTROLS[2])):
        assert ((rows[first] - rows[second]).abs() > 1e-3).any()


def test_without_controls_their_columns_are_empty_and_the_others_the_same(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    with_controls, without = run(data, tmp_path / "a", controls=True), run(data, tmp_path / "b")
    assert without[list(records.CONTROLS)].isna().all(axis=None)
    others = [name for name in without if name not in records.CONTROLS]
    pd.testing.assert_frame_equal(without[others], with_controls[others])


def test_matched_maps_get_the_heat_of_the_grad_cam_of_the_same_score() -> None:
    """Maps and heats that tell their places: 0 to 2 are Grad-CAM, + and ++ pre, 3 to 5 the same post."""
    places = torch.arange(6.0)
    maps, heat = matched(places[None, :, None, None].expand(2, 6, 2, 2), torch.stack([places, places + 10]))
    assert maps[0, :, 0, 0].tolist() == [1, 2, 4, 5]
    assert heat.tolist() == [[0, 0, 3, 3], [10, 10, 13, 13]]


def test_signed_maps_at_a_pole() -> None:
    """At s g = -2 the published alpha is infinite, and its map no map: it stays visible. Without the pole it is one."""
    activations = torch.tensor([[[[1.0, 3.0, 0.0]], [[0.5, 0.0, 0.0]]]])  # sums 4 and 1/2
    gradients = torch.tensor([[[[-0.5, 0.25, 0.0]], [[1.0, 0.0, 0.0]]]])  # s g: -2 and 1; 1/2 and 0
    published, tame = signed(Capture(activations, {"pre": gradients, "post": gradients * 0}, torch.zeros(1, 2)))[0]
    assert published.isnan().any()
    weights = [-0.5 / 4 + 0.25 / 3, 1 / 2.5]
    assert torch.allclose(tame, min_max(cam.heatmap(torch.tensor([weights]), activations))[0])
    near: Any = gradients.clone()
    near[0, 0, 0, 0] = -0.25  # the alpha is 1 there, and 1/3 without the sign
    found = signed(Capture(activations, {"pre": near, "post": near}, torch.zeros(1, 2)))[0]
    for row, weight in zip(found, (-0.25 / 1 + 0.25 / 3, -0.25 / 3 + 0.25 / 3), strict=True):
        expected = min_max(cam.heatmap(torch.tensor([[weight, 1 / 2.5]]), activations))[0]
        assert torch.allclose(row, expected)
