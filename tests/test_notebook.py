"""What notebooks show: figures, tables and numbers, with what the book needs to know of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gradcampp import notebook
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.results import tables

Shown = list[tuple[dict[str, str], dict[str, Any]]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    found: Shown = []
    monkeypatch.setattr("gradcampp.notebook._display", lambda bundle, metadata: found.append((bundle, metadata)))
    return found


def test_a_figure_carries_its_picture_caption_and_alternative_text(shown: Shown) -> None:
    notebook.figure(Figure(figsize=(1, 1)), "fig-paper-1", 'A "caption"\n   of two lines', "an empty < square")
    (bundle, metadata), *none = shown
    assert not none
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert 'alt="an empty &lt; square"' in bundle["text/html"]
    assert metadata == {
        "gradcampp": {"kind": "figure", "label": "fig-paper-1", "caption": 'A "caption" of two lines', "alt": "an empty < square"}
    }


@pytest.mark.parametrize(
    ("label", "caption", "alt"), [("paper-1", "c", "a"), ("fig-A", "c", "a"), ("fig-a", " ", "a"), ("fig-a", "c", "")]
)
def test_a_figure_without_label_caption_or_alternative_text_is_refused(label: str, caption: str, alt: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        notebook.figure(Figure(), label, caption, alt)


@pytest.mark.usefixtures("shown")
def test_the_backend_of_the_reader_stays() -> None:
    before = matplotlib.get_backend()
    notebook.figure(Figure(figsize=(1, 1)), "fig-a", "c", "a")
    assert matplotlib.get_backend() == before


def test_a_table_formats_numbers_and_escapes_what_would_end_a_cell(shown: Shown) -> None:
    notebook.table(pd.DataFrame({"pair": ["a|b", "c"], "$w$": [1.23456, 2.0]}), "tab-a", "caption", {"$w$": ".2f"})
    ((bundle, metadata),) = shown
    lines = metadata["gradcampp"]["body"].splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["pair", "$w$"]
    assert lines[1].rstrip("|").endswith("-:")  # numbers to the right
    assert "a\\|b" in lines[2]
    assert "1.23 " in lines[2]
    assert "2.00" in bundle["text/html"]


def test_computed_prose_is_handed_to_the_book_as_it_is(shown: Shown) -> None:
    notebook.prose("self-check", ":::{note}\nA\n\nB\n:::")
    ((bundle, metadata),) = shown
    assert metadata["gradcampp"]["kind"] == "prose"
    assert metadata["gradcampp"]["body"] == bundle["text/markdown"] == ":::{note}\nA\n\nB\n:::"
    with pytest.raises(ValueError, match="expected a text"):
        notebook.prose("self-check", "")


def test_a_theorem_is_shown_in_the_words_of_the_library(shown: Shown) -> None:
    from gradcampp.algebra.theorems import THEOREMS

    stated = THEOREMS[0]
    notebook.theorem(stated, "thm-1-tame")
    body = shown[0][1]["gradcampp"]["body"]
    assert body.startswith(f"````{{prf:theorem}} {stated.title}\n:label: thm-1-tame\n")
    assert stated.proof in body
    assert "pole of {eq}`eq-paper-13` lies" in body  # equations of the paper become references
    for label in ("thm-2-tame", "tame", "thm-1"):
        with pytest.raises(ValueError, match="expected thm-1-"):
            notebook.theorem(stated, label)


def test_glue_is_what_myst_nb_reads(shown: Shown) -> None:
    notebook.glue("ratio", 1.0625, ".2f")
    ((bundle, metadata),) = shown
    assert bundle == {"application/papermill.record/text/plain": "'1.06'"}
    assert metadata == {"scrapbook": {"name": "ratio", "mime_prefix": "application/papermill.record/"}}


def test_glue_shows_its_value_where_myst_nb_pastes_it(shown: Shown) -> None:
    glue = pytest.importorskip("myst_nb.ext.glue", reason="the tools that build the book are not installed")
    variables = pytest.importorskip("myst_nb.core.variables")
    notebook.glue("ratio", "1.060")
    ((bundle, metadata),) = shown
    nodes = pytest.importorskip("nbformat.v4")
    cell = nodes.new_code_cell("", outputs=[nodes.new_output("display_data", bundle, metadata=metadata)])
    ((name, output),) = glue.extract_glue_data_cell(cell)
    assert name == "ratio"
    assert variables.format_plain_text(output["data"]["text/plain"], "s") == "1.060"  # a string, so no digit is lost


@pytest.fixture
def finished(tmp_path: Path, folder: Callable[..., Path]) -> Path:
    """A small finished run, in the place where ``gradcampp reproduce`` puts it."""
    from gradcampp.cli import main

    out = tmp_path / "runs" / "mini"
    out.mkdir(parents=True)
    data = folder(2)
    arguments = ["evaluate", "--data", str(data), "--out", str(out / "run"), "--threshold", "0", "--seed", "0"]
    assert main(arguments) == 0
    (out / "summary.html").touch()
    return out


def test_a_run_is_found_by_its_folder_or_from_a_folder_below(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = finished.parents[1] / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    for run in (None, str(finished), str(finished / "run")):
        opened = notebook.open_run("mini", run)
        assert opened.folder.resolve() == finished.resolve()
        assert len(opened.records) == 6
        assert opened.manifest["finished"]
        assert opened.alphas["pre"].count > 0
        assert opened.prepared.network.layer == "features.block4_relu3"


def test_an_interrupted_run_goes_on_before_it_is_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finished / "summary.html").unlink()
    calls: list[Path] = []
    monkeypatch.setattr("gradcampp.results.reproduce.run", lambda profile, out, execution: calls.append(out.resolve()))
    monkeypatch.chdir(finished.parents[1])
    notebook.open_run("mini")
    assert calls == [finished.resolve()]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        notebook.open_run("mini", str(tmp_path))


def test_what_evaluate_wrote_is_no_run_of_reproduce(finished: Path) -> None:
    other = finished.parent / "other"
    (finished / "run").rename(other)
    with pytest.raises(InputError, match=r"other was written by gradcampp evaluate; expected a folder that gradcampp reproduce"):
        notebook.finished_run(other)


def test_a_run_of_another_profile_is_refused(finished: Path, tmp_path: Path) -> None:
    profile = tmp_path / "own.toml"
    data = finished.parents[1] / "data"
    own = f'data = "{data}"\nthreshold = 0.0\nseed = 0\n'
    profile.write_text(own, "utf-8")
    notebook.check_profile(str(profile), finished)
    for text, problem in (
        (own.replace("0.0", "0.5"), r"has threshold = 0.5, and the run 0.0; expected the profile that"),
        (own.replace(str(data), str(tmp_path)), r"is one of the run; expected the profile that"),
        (own + 'model = "vgg99"\n', r"vgg99.*\(expected the profile that"),
    ):
        profile.write_text(text, "utf-8")
        with pytest.raises(InputError, match=problem):
            notebook.check_profile(str(profile), finished)


def test_other_tables_of_a_run_are_read_by_name(finished: Path) -> None:
    pd.DataFrame({"a": [1, 2]}).to_csv(finished / "localisation_gain.csv", index=False)
    assert list(notebook.open_run("mini", str(finished)).table("localisation_gain")["a"]) == [1, 2]


def test_a_changed_record_changes_the_table_that_a_notebook_prints(finished: Path, shown: Shown) -> None:
    """The cell of chapter 6: the records decide every number of Table 1, none is typed."""
    from gradcampp import notebook

    def printed() -> str:
        table = tables.paper_tables(notebook.open_run("mini", str(finished)).records)["table1"]
        notebook.table(tables.readable("table1", table), "tab-paper-1", "caption")
        body: str = shown.pop()[1]["gradcampp"]["body"]
        return body

    before = printed()
    rows = records.read_records(finished / "run")
    rows["pre_gradcam_plusplus"] = rows["pre_gradcam_plusplus"].where(rows.index > 0, 0.5)
    rows.to_parquet(finished / "run" / "records.parquet")
    assert printed() != before
