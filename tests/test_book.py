"""The sources of the book, and how it is built; the built pages are looked at in test_book_html."""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gradcampp
from book import build, library
from gradcampp import cli
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
Cell = dict[str, Any]
needs_tools = pytest.mark.skipif(
    shutil.which("jupyter-book", path=str(Path(sys.executable).parent)) is None, reason="no jupyter-book"
)


def cells(path: Path) -> list[Cell]:
    found: list[Cell] = json.loads(path.read_text("utf-8"))["cells"]
    return found


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def tags(cell: Cell) -> list[str]:
    found: list[str] = cell["metadata"].get("tags", [])
    return found


def prose() -> str:
    """Everything that a page of the book says, outside code cells."""
    pages = [path.read_text("utf-8") for path in sorted((ROOT / "book").glob("*.md"))]
    return "\n".join([*pages, *(source(cell) for path in NOTEBOOKS for cell in cells(path) if cell["cell_type"] == "markdown")])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_results_and_can_be_run_alone(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    title, setup, parameters = content["cells"][:3]
    assert source(title).startswith("# ")
    assert 'find_spec("gradcampp") is None' in source(setup)
    assert "parameters" in tags(parameters)
    assert [line.partition(" =")[0] for line in source(parameters).splitlines()] == ["PROFILE", "RUN"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_line_of_a_notebook_is_wider_than_its_page(path: Path) -> None:
    widest = {"markdown": 120, "code": 72}
    for cell in cells(path):
        for line in source(cell).splitlines():
            assert len(line) <= widest[cell["cell_type"]], line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_and_table_has_a_label_that_is_its_key_a_caption_and_figures_an_alternative_text(path: Path) -> None:
    text = "\n".join(map(source, cells(path)))
    shown = re.findall(r":::\{+glue:figure\}+ (\S+)\n---\nname: (\S+)\nalt: >-\n  ((?:.+\n)+?)---\n(\S.+)", text)
    assert len(shown) == text.count("{glue:figure}")
    for key, name, alt, caption in shown:
        assert key == name
        assert re.fullmatch(r"fig-[a-z0-9-]+", name)
        assert len(alt.split()) > 3
        assert len(caption.split()) > 3
    for name in re.findall(r"^:::\{table\}.*\n:name: (\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"tab-[a-z0-9-]+", name)
        assert f"```{{glue:md}} {name}\n" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_a_solution_with_an_assertion(path: Path) -> None:
    text = "\n".join(f"%%{cell['cell_type']}\n{source(cell)}" for cell in cells(path))
    exercises = re.findall(r"\{exercise-start\}.*\n:label: (\S+)", text)
    solutions = dict(re.findall(r"\{solution-start\} (\S+)\n(.*?)\{solution-end\}", text, re.DOTALL))
    assert set(exercises) == set(solutions)
    for label, solution in solutions.items():
        assert re.search(r"%%code(.|\n)*\bassert\b", solution), label
    for directive in re.findall(r"`{3,}\{(?:exercise|solution)-(?:start|end)\}", text):
        assert f"%%markdown\n{directive}" in text  # alone in its cell


def test_every_page_of_the_table_of_contents_exists_and_every_notebook_is_in_it() -> None:
    yaml = pytest.importorskip("yaml")
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    listed = [toc["root"], *(each["file"] for chapter in chapters for each in (chapter, *chapter.get("sections", [])))]
    assert build.pages(ROOT) == listed
    found = [path for page in listed for path in ROOT.glob(f"{page}.*") if path.suffix in (".md", ".ipynb")]
    assert len(found) == len([page for page in listed if not page.startswith(library.FOLDER)])
    assert {path for path in found if path.suffix == ".ipynb"} == set(NOTEBOOKS)


def test_equations_1_to_19_of_the_paper_are_defined_once_each() -> None:
    labels = Counter(re.findall(r"\$\$ \(eq-paper-(\d+)\)|:label: eq-paper-(\d+)", prose()))
    assert Counter({int(first or second): count for (first, second), count in labels.items()}) == Counter(range(1, 20))


def test_every_citation_is_in_the_bibliography_and_the_paper_cites_them_all() -> None:
    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text("utf-8"), re.MULTILINE))
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose()) for key in keys.split(",")}
    assert cited <= keys
    assert {"lerma2022gradcampp", "chattopadhyay2018gradcampp", "recht2019imagenet", "selvaraju2017gradcam"} <= cited


def test_the_spelling() -> None:
    program = shutil.which("codespell", path=str(Path(sys.executable).parent)) or shutil.which("codespell")
    if program is None:
        pytest.skip("no codespell")
    command = [program, "--skip", "*/node_modules", "book", "notebooks", "src", "tests", "README.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def notebook(*sources: str, **kinds: list[str]) -> dict[str, Any]:
    """A small notebook; the first cell has the parameters, the others the given sources."""
    made = ['RUN = None\nPROFILE = "mini"', *sources]
    return {
        "cells": [
            {
                "cell_type": "markdown" if text.startswith(("#", "`")) else "code",
                "id": f"c{number}",
                "metadata": {} if number else {"tags": ["parameters"]},
                "source": text,
                **({} if text.startswith(("#", "`")) else {"outputs": [], "execution_count": None}),
            }
            for number, text in enumerate(made)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, **kinds},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_the_injected_cell_and_all_that_names_this_machine_is_dropped() -> None:
    executed = notebook("1 + 1")
    injected = {"cell_type": "code", "id": "i", "metadata": {"tags": ["injected-parameters"]}, "source": "RUN = 1", "outputs": []}
    executed["cells"].insert(1, injected)
    executed["metadata"]["papermill"] = {"input_path": "somewhere"}
    executed["cells"][2]["metadata"] = {"papermill": {"duration": 1}, "tags": ["hide-input"]}
    both = {"application/papermill.record/image/png": "iVBORw0KGgo=", "image/png": "iVBORw0KGgo="}
    executed["cells"][2]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": "kept"},
        {"output_type": "display_data", "data": both, "metadata": {"scrapbook": {"name": "fig-a"}}},
    ]
    staged = build.stripped(executed)
    assert [cell["id"] for cell in staged["cells"]] == ["c0", "c1"]
    assert staged["cells"][1]["metadata"] == {"tags": ["hide-input"]}
    printed, glued = staged["cells"][1]["outputs"]
    assert printed["text"] == "kept"
    assert list(glued["data"]) == ["application/papermill.record/image/png"]  # else the book shows it twice
    assert "papermill" not in staged["metadata"]
    assert "kernelspec" in staged["metadata"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A profile of six scenes, and its run."""
    folder = tmp_path_factory.mktemp("few")
    profile = folder / "few.toml"
    profile.write_text("scenes = 6\nseed = 0\nthreshold = 0.0\n", "utf-8")
    assert cli.main(["reproduce", "--profile", str(profile), "--out", str(folder / "run"), "--workers", "0"]) == 0
    return profile, folder / "run"


@needs_tools
def test_another_record_changes_the_numbers_that_chapter_6_prints(
    few: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole chapter is executed thrice: tables, prose and Figure 6 come from the records, and the paper's numbers stay."""
    profile, run = few[0], tmp_path / "run"
    shutil.copytree(few[1], run)
    shutil.copytree(ROOT / "evidence", tmp_path / "evidence")
    monkeypatch.chdir(tmp_path)
    chapter, executed = ROOT / "notebooks" / "06_does_it_matter.ipynb", tmp_path / "06.ipynb"

    def printed() -> dict[str, str]:
        assert build.execute(chapter, executed, {"PROFILE": str(profile), "RUN": str(run)}, True) is None
        outputs = [output for cell in cells(executed) for output in cell.get("outputs", []) if "data" in output]
        glued = [output for output in outputs if "scrapbook" in output["metadata"]]
        return {output["metadata"]["scrapbook"]["name"]: str(output["data"]) for output in glued}

    before = printed()
    (part,) = (run / "records.parquet").iterdir()
    rows = pd.read_parquet(part)
    rows["pre_gradcam_plusplus"] = rows["pre_gradcam_plusplus"].where(rows.index > 0, rows["pre_gradcam_plusplus"] / 7)
    rows.to_parquet(part)
    after = printed()
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"tab-paper-1", "tab-paper-2", "fig-paper-6", "tab-equivalence", "tab-metrics"}
    kept = {"tab-rounding", "fig-paper-5", "paper-share-pre", "tab-power", "tab-runs"}
    assert not changed & kept
    assert kept <= set(before)
    part = tmp_path / "evidence" / "squeezenet1_0-features.12" / "records.parquet" / "00000.parquet"
    table = pq.read_table(part)
    place = table.column_names.index("pre_gradcam_plus")
    halved = [value and value / 2 for value in table["pre_gradcam_plus"].to_pylist()]
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(halved, pa.float64())), part)
    again = printed()
    assert {name for name in after if after[name] != again[name]} >= {"tab-paper-1", "tab-paper-2", "fig-paper-6", "ahead"}


@pytest.mark.parametrize("kept", [True, False])
def test_an_edition_without_solutions_holds_none_of_their_cells(kept: bool) -> None:
    gate = "````{solution-start} ex-a\n:class: dropdown\n````"
    executed = notebook("# before", gate, "secret = 1", "# words", "````{solution-end}\n````", "after = 2")
    text = json.dumps(build.stripped(executed, solutions=kept))
    assert ("secret" in text, "words" in text, "solution" in text) == (kept, kept, kept)
    assert "before" in text
    assert "after" in text


def test_what_a_cell_prints_stands_together_however_it_was_cut() -> None:
    pieces = [{"output_type": "stream", "name": "stdout", "text": text} for text in ("alpha =", [" x\n", "y"])]
    between = {"output_type": "display_data", "data": {}, "metadata": {}}
    error = {"output_type": "stream", "name": "stderr", "text": "!"}
    cell = {"cell_type": "code", "source": "print()", "metadata": {}, "outputs": [*pieces, error, between, *pieces]}
    (kept,) = build.stripped({"cells": [cell], "metadata": {}})["cells"]
    assert [output.get("text") for output in kept["outputs"]] == ["alpha = x\ny", "!", None, "alpha = x\ny"]


def test_an_address_that_is_not_one_of_github_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--repository", "ftp://example.org/a"]) == 2
    assert "expected an address such as https://github.com/" in capsys.readouterr().err


@needs_tools
def test_launch_buttons_appear_only_with_a_repository(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for address in (None, "https://github.com/someone/gradcampp"):
        build.stage(ROOT, tmp_path / "source", address)
        config = yaml.safe_load((tmp_path / "source" / "_config.yml").read_text("utf-8"))
        options = config["sphinx"]["config"]["html_theme_options"]  # the only place that the theme reads: it replaces all others
        assert options.get("repository_url") == address
        assert ("launch_buttons" in options) == (address is not None)


def checkout(folder: Path, **notebooks: dict[str, Any]) -> Path:
    """A book of these notebooks and the first page."""
    shutil.copytree(ROOT / "book", folder / "book")
    chapters = "".join(f"    - file: notebooks/{name}\n" for name in notebooks)
    toc = f"format: jb-book\nroot: book/index\nparts:\n  - chapters:\n{chapters}"
    (folder / "book" / "_toc.yml").write_text(toc, "utf-8")
    (folder / "notebooks").mkdir()
    for name, content in notebooks.items():
        (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content), "utf-8")
    return folder


@needs_tools
def test_a_cell_that_fails_is_named_and_the_other_notebooks_are_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = notebook("# Title", "x = 1", "# why\n\nx.missing\nx")
    bad["cells"][3]["cell_type"] = "code"
    bad["cells"][3] |= {"outputs": [], "execution_count": None}
    folder = tmp_path / "my book"  # a name that could be taken for the folder that the book is built in
    root = checkout(folder, bad=bad, good=notebook("# Title", "import pathlib; print(PROFILE, pathlib.Path.cwd())"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(build, "finished_run", lambda profile, run: run)
    assert build.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")], root) == 1
    said = capsys.readouterr().err
    assert "bad.ipynb, cell 4 (x.missing): AttributeError: 'int' object has no attribute 'missing'" in said
    assert "Traceback" not in said
    made = tmp_path / "out" / "source" / "notebooks"
    assert not (made / "bad.ipynb").exists()
    assert f"mini {folder.resolve()}" in (made / "good.ipynb").read_text("utf-8")  # notebooks run where the command does


@needs_tools
def test_a_warning_is_a_mistake_of_the_book_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(tmp_path, page=notebook("# Title\n\n{ref}`nowhere`"))
    (tmp_path / "book" / "index.md").write_text("# First\n", "utf-8")
    monkeypatch.setattr(build, "finished_run", lambda profile, run: run)
    assert build.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")], root) == 1
    assert re.search(r"notebooks/page\.ipynb:\d+: WARNING: undefined label: 'nowhere'", capsys.readouterr().err)


def test_a_run_of_another_profile_is_refused(few: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, run = few
    assert build.finished_run(str(own), run) == run
    for text in ("scenes = 7\n", "threshold = 0.25\n", 'model = "vgg99"\n', "no = 1\n"):
        profile, key = tmp_path / "other.toml", text.partition(" ")[0]
        kept = [line for line in own.read_text("utf-8").splitlines(keepends=True) if not line.startswith(key)]
        profile.write_text("".join(kept) + text, "utf-8")
        capsys.readouterr()
        assert build.main(["--profile", str(profile), "--run", str(run), "--out", str(tmp_path / "out")]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith("build.py: error: ")
        assert key in said or "vgg99" in said or "seed0-7" in said


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--run", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_a_pdf_without_a_browser_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("book.pdf.CHROMIUM", ("no-such-browser",))
    assert build.main(["--pdf", "book.pdf"]) == 2
    assert capsys.readouterr().err.startswith("build.py: error: no browser to print with")
    assert list(tmp_path.iterdir()) == []


def test_every_public_module_has_a_page_and_the_list_of_them_says_what_it_is(tmp_path: Path) -> None:
    listed = {page for page in build.pages(ROOT) if page.startswith(library.FOLDER)}
    modules = {module.name for module in pkgutil.walk_packages(gradcampp.__path__, "gradcampp.")}
    packages = {module.name for module in pkgutil.walk_packages(gradcampp.__path__, "gradcampp.") if module.ispkg}
    named = {f"gradcampp.{page.removeprefix(library.FOLDER).replace('/', '.')}" for page in listed}
    assert modules - packages - {"gradcampp.__main__"} <= named
    assert named <= modules
    (tmp_path / "book").mkdir()
    library.write(tmp_path, build.pages(ROOT))
    assert "`cam <gradcampp.cam>`: " in (tmp_path / "book" / "library.md").read_text("utf-8")
    for page in listed:
        assert "automodule:: gradcampp." in (tmp_path / f"{page}.md").read_text("utf-8")


def test_binder_has_what_the_package_needs_and_nothing_to_build_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {"pytorch-cpu" if name == "torch" else name for name in map(requirement_name, project["dependencies"])}
    text = (ROOT / "binder" / "environment.yml").read_text("utf-8").partition("\ndependencies:\n")[2]
    given = {requirement_name(line) for line in re.findall(r"^  - (\S+)", text, re.MULTILINE)}
    assert {"matplotlib" if name == "matplotlib-base" else name for name in given} - wanted == {
        "python", "pip", "ipykernel", "jupyterlab"
    }  # fmt: skip
    assert wanted <= {"matplotlib" if name == "matplotlib-base" else name for name in given}


def requirement_name(line: str) -> str:
    return re.split(r"[<>=!~]", line)[0]


def test_a_number_says_which_cell_computed_it_and_links_there_where_the_page_shows_it(tmp_path: Path) -> None:
    provenance = pytest.importorskip("book._ext.provenance", reason="the tools that build the book are not installed")
    executed = notebook("# Text", "1 + 1", "2 + 2")
    for place, name in ((2, "low"), (3, "high")):
        output = {"output_type": "display_data", "data": {}, "metadata": {"scrapbook": {"name": name}}}
        executed["cells"][place]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2"}, output]
    (tmp_path / "a.ipynb").write_text(json.dumps(executed), "utf-8")
    assert provenance.places(tmp_path / "a.ipynb") == {"low": 2, "high": 3}
    assert provenance.said("low", 2) == "computed when this book was built: low, of cell 3 of this chapter’s notebook"
    found = provenance.listed({"low": ("0.1", 2), "high": ("0.2 " * 40, 3)}, {2: "cell-3"})
    first, second = (item.astext() for item in found)
    assert first == "0.1: low, cell 3"
    assert [node["refid"] for node in found.findall(lambda node: "refid" in getattr(node, "attributes", {}))] == ["cell-3"]
    assert second.endswith(" …: high, cell 4, not shown here")
