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
from gradcampp.evaluation import localisation, records
from gradcampp.evaluation.localisation import METRICS
from gradcampp.evaluation.records import Run
from gradcampp.results import report
from gradcampp.scenes import CLASSES, draw
from gradcampp.scenes.folder import draw_scenes
from tests.conftest import photograph

FIGURES = {"figure1", "figure2", "figure3", "figure4-pre", "figure4-post", "figure5", "figure6"}
EXTRA = {"localisation-pre", "localisation-post", "competition"}


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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not written, which takes most of the time of a small run; the whole run above has them all."""
    monkeypatch.setattr(report, "draw", lambda *_: [])


def test_everything_of_the_paper_is_there(reproduced: Path) -> None:
    names = {path.name for path in reproduced.iterdir()}
    assert {f"{stem}.{ending}" for stem in FIGURES | EXTRA for ending in ("png", "svg")} <= names
    assert {
        "table1.csv",
        "table2.csv",
        "localisation.csv",
        "localisation_gain.csv",
        "competition.csv",
        "summary.html",
        "manifest.json",
    } <= names
    page = (reproduced / "summary.html").read_text("utf-8")
    for stem in FIGURES | EXTRA:
        assert f'<a href="{stem}.svg"><img src="{stem}.png" alt="' in page
        with Image.open(reproduced / f"{stem}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # not blank
    assert "Grad-CAM++ vs Grad-CAM+" in page


def test_the_run_is_that_of_the_scenes(reproduced: Path) -> None:
    rows = Run(reproduced).records
    assert len(rows) == 60
    for _, row in rows.iterrows():
        name, _, file = row["image"].partition("/")
        scene = draw(0, "test", int(file.removesuffix(".png")))
        assert CLASSES[row["label"]] == name == CLASSES[scene.label]
    with Image.open(reproduced / "scenes" / "seed0-60" / row["image"]) as picture:
        assert (np.asarray(picture) == scene.pixels).all()


def test_a_second_run_reuses_what_is_done(
    reproduced: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("finished work was repeated")

    parts = list((reproduced / "records.parquet").iterdir())
    before = [path.stat().st_mtime_ns for path in parts]
    drawn = {name: (reproduced / f"{name}.png").read_bytes() for name in FIGURES | EXTRA}
    monkeypatch.setattr("gradcampp.evaluation.run.measure", never)
    monkeypatch.setattr("gradcampp.evaluation.localisation.localise", never)
    monkeypatch.setattr("gradcampp.evaluation.localisation.compete", never)
    monkeypatch.setattr("gradcampp.scenes.folder.save_scene", never)
    assert main(["reproduce", "--scenes", "60", "--out", str(reproduced)]) == 0
    assert [path.stat().st_mtime_ns for path in parts] == before
    assert {name: (reproduced / f"{name}.png").read_bytes() for name in FIGURES | EXTRA} == drawn
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
                assert (np.asarray(picture) == draw(seed, "test", int(path.stem)).pixels).all()
    measured = (reproduced / "localisation.parquet").read_bytes()
    for options, says in (
        (["--scenes", "50"], "is not among the photographs now"),
        (["--scenes", "70"], "is finished and has no results for"),
        (["--scenes", "60", "--layer", "features.block3_relu1"], "and this one has features.block3_relu1"),
    ):
        assert main(["reproduce", *options, "--out", str(reproduced)]) == 2
        assert says in capsys.readouterr().err
        assert (reproduced / "localisation.parquet").read_bytes() == measured


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_says_it_is_finished_has_its_localisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> None:
            assert Run(tmp_path).has_masks
            assert not Run(tmp_path).finished
            raise KeyboardInterrupt

        patch.setattr("gradcampp.evaluation.run.measure", interrupted)
        assert main(["reproduce", "--scenes", "8", "--out", str(tmp_path)]) == 130
    assert Run(tmp_path).has_masks
    assert not Run(tmp_path).finished
    assert main(["reproduce", "--scenes", "8", "--out", str(tmp_path)]) == 0
    assert Run(tmp_path).finished
    assert set(Run(tmp_path).localisation["scene"]) == set(range(8))


def test_a_run_that_evaluate_has_finished_gets_its_localisation(tmp_path: Path) -> None:
    scenes, out = draw_scenes(tmp_path / "out" / "scenes", 0, 8), tmp_path / "out"
    assert main(["evaluate", "--data", str(scenes), "--seed", "0", "--controls", "--out", str(out)]) == 0
    assert not Run(out).has_masks
    assert main(["reproduce", "--scenes", "8", "--out", str(out)]) == 0
    assert Run(out).has_masks
    assert (out / "localisation-pre.png").exists()


def test_a_report_says_what_reproduce_has_said(reproduced: Path, tmp_path: Path) -> None:
    files = report.write(Run(reproduced), tmp_path).files
    assert {path.stem for path in files if path.suffix == ".png"} == EXTRA | {"figure4-pre", "figure4-post", "figure6"}
    for path in files:
        assert path.read_bytes() == (reproduced / path.name).read_bytes()


def test_the_page_shows_the_characters_of_a_text_and_nothing_else(reproduced: Path, tmp_path: Path) -> None:
    said = report.Report("a <b> & c", [tmp_path / "figure6.png", tmp_path / "other.png"], ("<i>",))
    page = report.summary(Run(reproduced), said, tmp_path).read_text("utf-8")
    assert "<pre>a &lt;b&gt; &amp; c</pre>" in page
    assert "<strong>WARNING: &lt;i&gt;</strong>" in page
    assert page.count("<img") == 1


def test_localisation_is_measured_on_the_scenes_over_the_threshold(reproduced: Path) -> None:
    table = pd.read_csv(reproduced / "localisation.csv")
    rows = pd.read_parquet(reproduced / "localisation.parquet")
    sure = rows[rows["score"] > 0.5]
    assert set(table["metric"]) == set(METRICS)
    assert set(table["method"]) == set(METHODS)
    one = table[(table["scores"] == "post") & (table["metric"] == "iou_15") & (table["method"] == "gradcam++")]
    for _, row in one.iterrows():
        own = sure[(sure["map"] == "post_gradcam_plusplus") & (sure["instances"] == row["instances"])]["iou_15"]
        assert row["mean"] == pytest.approx(own.mean())
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["n"] == len(own)
    gain = pd.read_csv(reproduced / "localisation_gain.csv")
    assert list(gain["scores"].unique()) == list(SCORES)
    several = sure[sure["instances"] > 1]
    means = several.groupby("map")["instance_recall"].mean()
    expected = means["pre_gradcam_plusplus"] - means["pre_gradcam_plus"]
    last = gain["methods"] == "Grad-CAM++ vs Grad-CAM+"
    row = gain[(gain["scores"] == "pre") & (gain["metric"] == "instance_recall") & last].iloc[0]
    assert row["difference"] == pytest.approx(expected)
    assert len(localisation.gains(sure)) == len(gain)


def test_the_competition_is_measured_on_a_pair_for_five_scenes(reproduced: Path) -> None:
    rows = pd.read_parquet(reproduced / "competition.parquet")
    assert set(rows["pair"]) == set(range(12))
    table = pd.read_csv(reproduced / "competition.csv")
    assert set(table["n"]) == {12}
    one = table[(table["scores"] == "pre") & (table["metric"] == "other")].set_index("method")["mean"]
    for method, name in (("gradcam", "pre_gradcam"), ("gradcam+", "pre_gradcam_plus")):
        assert one[method] == pytest.approx(rows[rows["map"] == name]["other"].mean())


@pytest.mark.usefixtures("undrawn")
def test_any_network_and_folder_will_do(folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(5).save(tmp_path / "p.png")
    own = ["--model", "tests.networks:scored", "--resize", "20", "--crop", "16", "--threshold", "0.3", "--data", str(folder())]
    assert main(["reproduce", *own, "--out", str(tmp_path / "out")]) == 0
    assert "0.3" in (tmp_path / "out" / "summary.html").read_text("utf-8")
    assert not (tmp_path / "out" / "localisation.csv").exists()
    again = ["--photograph", str(tmp_path / "p.png"), "--out", str(tmp_path / "out")]
    assert main(["reproduce", *own, *again]) == 0
    capsys.readouterr()
    assert main(["reproduce", *own, "--layer", "features.1", "--out", str(tmp_path / "out")]) == 2
    assert "layer = features.4, and this one has features.1" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_not_what_it_should_be_says_so_loudly(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "own.toml", tmp_path / "out"
    settings = f'model = "tests.networks:scored"\nresize = 20\ncrop = 16\nthreshold = 0.3\ndata = "{folder()}"\n'
    own.write_text(settings)
    assert main(["reproduce", "--profile", str(own), "--out", str(out)]) == 0
    assert "Self-check" not in capsys.readouterr().out
    assert not (out / "selfcheck.csv").exists()
    run = records.read_manifest(out)
    for off, loud in ((0.0, []), (0.0051, ["top-1"])):
        known = {"images": 18, "top1": run["top1"] + off, "top5": run["top5"], "over_threshold": run["over_threshold"]}
        text = "".join(f"{key} = {value}\n" for key, value in known.items())
        own.write_text(f'{settings}[expected]\nweights = "{run["experiment"]["weights"]}"\nthreshold = 0.3\n{text}')
        for command in (
            ["reproduce", "--profile", str(own), "--out", str(out)],
            ["report", str(out), "--profile", str(own)],
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
    assert main(["scene", "--class", CLASSES[0], "--seed", "3", "--instances", "2", "--out", scene]) == 0
    assert f"2 x {CLASSES[0]}" in capsys.readouterr().out
    assert main(["explain", scene, "--out", str(tmp_path / "e.png")]) == 0
    assert f"{CLASSES[0]} (0)" in capsys.readouterr().out.splitlines()[1]
    pair = ["scene", "--class", CLASSES[1], "--class", CLASSES[2], "--out", scene]
    assert main(pair) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scene", "--class", "unicorn"], "no class 'unicorn'"),
        (["scene", "--instances", "5"], "instances"),
        (["scene", "--out", "scene.jpg"], "ends in .png"),
        (["scene", "--class", "0", "--class", "0"], "two different classes"),
        (["reproduce", "--profile", "absent"], "no profile 'absent'"),
        (["reproduce", "--model", "vgg16"], "no weights for vgg16"),
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
