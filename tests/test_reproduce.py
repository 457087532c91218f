"""The embedded default from profile to summary page, small."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradcampp.cam import METHODS, SCORES
from gradcampp.cli import main
from gradcampp.evaluation import records
from gradcampp.evaluation.localisation import METRICS
from gradcampp.scenes import scene as scene_module
from gradcampp.scenes import shapes
from gradcampp.scenes.folder import draw_scenes
from tests.conftest import photograph

FIGURES = {"figure1", "figure2", "figure3", "figure4-pre", "figure4-post", "figure5", "figure6"}
EXTRA = {"localisation-pre", "localisation-post"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded profile on 60 scenes, with every way to a network shut."""
    out = tmp_path_factory.mktemp("reproduced")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> None:
            raise AssertionError("something wanted the network")

        patch.setattr(socket.socket, "connect", refuse)
        assert main(["reproduce", "--scenes", "60", "--out", str(out)]) == 0
    return out


def test_everything_of_the_paper_is_there(reproduced: Path) -> None:
    names = {path.name for path in reproduced.iterdir()}
    assert {f"{stem}.{ending}" for stem in FIGURES | EXTRA for ending in ("png", "svg")} <= names
    assert {"table1.csv", "table2.csv", "localisation.csv", "localisation_gain.csv", "summary.html", "run"} <= names
    page = (reproduced / "summary.html").read_text("utf-8")
    for stem in FIGURES | EXTRA:
        assert f'<a href="{stem}.svg"><img src="{stem}.png" alt="' in page
        with Image.open(reproduced / f"{stem}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # not blank
    assert "Grad-CAM++ vs Grad-CAM+" in page


def test_the_run_is_that_of_the_scenes(reproduced: Path) -> None:
    rows = records.read_records(reproduced / "run")
    assert len(rows) == 60
    for _, row in rows.iterrows():
        name, _, file = row["image"].partition("/")
        scene = scene_module.draw(0, "test", int(file.removesuffix(".png")))
        assert shapes.CLASSES[row["label"]] == name == shapes.CLASSES[scene.label]
    with Image.open(reproduced / "scenes" / "seed0-60" / row["image"]) as picture:
        assert (np.asarray(picture) == scene.pixels).all()


def test_a_second_run_reuses_what_is_done(
    reproduced: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("finished work was repeated")

    before = (reproduced / "run" / "records.parquet").stat().st_mtime_ns
    monkeypatch.setattr("gradcampp.evaluation.measure.measure", never)
    monkeypatch.setattr("gradcampp.evaluation.localisation.localise", never)
    monkeypatch.setattr("gradcampp.scenes.folder.save_scene", never)
    assert main(["reproduce", "--scenes", "60", "--out", str(reproduced)]) == 0
    assert (reproduced / "run" / "records.parquet").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "Table 1." in printed
    assert "Table 2." in printed
    assert "figure6.png" in printed
    assert "summary.html" in printed


def test_scenes_of_another_seed_or_number_are_not_mixed_with_these(
    reproduced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = (draw_scenes(tmp_path, seed, 8) for seed in (0, 1))
    for seed, folder in ((0, first), (1, other)):
        for path in folder.glob("*/*.png"):
            with Image.open(path) as picture:
                assert (np.asarray(picture) == scene_module.draw(seed, "test", int(path.stem)).pixels).all()
    assert main(["reproduce", "--scenes", "50", "--out", str(reproduced)]) == 2
    assert "is not among the photographs now" in capsys.readouterr().err


def test_localisation_is_measured_on_the_scenes_over_the_threshold(reproduced: Path) -> None:
    table = pd.read_csv(reproduced / "localisation.csv")
    rows = pd.read_parquet(reproduced / "localisation.parquet")
    sure = rows[rows["score"] > 0.5]
    assert set(table["metric"]) == set(METRICS)
    assert set(table["method"]) == set(METHODS)
    one = table[(table["scores"] == "post") & (table["metric"] == "best_iou") & (table["method"] == "gradcam++")]
    for _, row in one.iterrows():
        own = sure[(sure["map"] == "post_gradcam_plusplus") & (sure["instances"] == row["instances"])]["best_iou"]
        assert row["mean"] == pytest.approx(own.mean())
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["n"] == len(own)
    gain = pd.read_csv(reproduced / "localisation_gain.csv")
    assert list(gain["scores"].unique()) == list(SCORES)
    several = sure[sure["instances"] > 1]
    means = several.groupby("map")["instance_recall"].mean()
    expected = means["pre_gradcam_plusplus"] - means["pre_gradcam_plus"]
    row = gain[(gain["scores"] == "pre") & (gain["metric"] == "instance_recall")].iloc[0]
    assert row["difference"] == pytest.approx(expected)
    assert len(localisation.gains(sure)) == len(gain)


def test_a_profile_takes_any_network_and_folder(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(5).save(tmp_path / "p.png")
    own = ["--model", "tests.networks:scored", "--resize", "20", "--crop", "16", "--threshold", "0.3", "--data", str(folder())]
    profile = tmp_path / "own.toml"
    profile.write_text('model = "vgg16"\ndata = "photographs"\nthreshold = 0.5\n')
    reproduce = ["reproduce", "--profile", str(profile), *own]
    assert main([*reproduce, "--out", str(tmp_path / "out")]) == 0
    assert "0.3" in (tmp_path / "out" / "summary.html").read_text("utf-8")
    assert not (tmp_path / "out" / "localisation.csv").exists()
    again = ["--photograph", str(tmp_path / "p.png"), "--out", str(tmp_path / "out")]
    assert main([*reproduce, *again]) == 0
    capsys.readouterr()
    assert main([*reproduce, "--layer", "features.1", "--out", str(tmp_path / "out")]) == 2
    assert "layer = features.4, and this one has features.1" in capsys.readouterr().err


def test_a_run_that_is_not_what_it_should_be_says_so_loudly(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own.toml", tmp_path / "out"
    settings = f'model = "tests.networks:scored"\nresize = 20\ncrop = 16\nthreshold = 0.3\ndata = "{folder()}"\n'
    own.write_text(settings)
    assert main(["reproduce", "--profile", str(own), "--out", str(out)]) == 0
    assert "Self-check" not in capsys.readouterr().out
    assert not (out / "selfcheck.csv").exists()
    run = records.read_manifest(out / "run")
    for off, loud in ((0.0, []), (0.0051, ["top-1"])):
        known = {"images": 18, "top1": run["top1"] + off, "top5": run["top5"], "over_threshold": run["over_threshold"]}
        text = "".join(f"{key} = {value}\n" for key, value in known.items())
        own.write_text(f'{settings}[expected]\nweights = "{run["experiment"]["weights"]}"\nthreshold = 0.3\n{text}')
        for command in (
            ["reproduce", "--profile", str(own), "--out", str(out)],
            ["report", str(out / "run"), "--profile", str(own)],
        ):
            assert main(command) == 0
            printed = capsys.readouterr().out
            assert "Self-check of the whole set" in printed
            assert printed.count("WARNING: top-1 is") == len(loud)
        assert (out / "summary.html").read_text("utf-8").count("<strong>WARNING: top-1 is") == len(loud)
        table = pd.read_csv(out / "selfcheck.csv")
        assert list(table["quantity"][table["deviates"]]) == loud


def test_explain_needs_no_options_for_a_generated_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = str(tmp_path / "s.png")
    assert main(["scene", "--class", shapes.CLASSES[0], "--seed", "3", "--instances", "2", "--out", scene]) == 0
    assert f"2 x {shapes.CLASSES[0]}" in capsys.readouterr().out
    assert main(["explain", scene, "--out", str(tmp_path / "e.png")]) == 0
    assert f"{shapes.CLASSES[0]} (0)" in capsys.readouterr().out.splitlines()[1]
    pair = ["scene", "--class", shapes.CLASSES[1], "--class", shapes.CLASSES[2], "--out", scene]
    assert main(pair) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scene", "--class", "unicorn"], "no class 'unicorn'"),
        (["scene", "--instances", "5"], "instances"),
        (["scene", "--out", "scene.jpg"], "ends in .png"),
        (["scene", "--class", "0", "--class", "0"], "two different classes"),
        (["reproduce", "--profile", "absent"], "no profile 'absent'"),
        (["reproduce", "--profile", "mini", "--model", "vgg16"], "no weights for vgg16"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
