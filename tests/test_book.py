"""The sources of the book, and how it is built; the built pages are looked at in test_book_html."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from book import build
from book import build as book
from gradcampp import cli
from gradcampp.errors import InputError
from gradcampp.evaluation import records
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
def test_every_exercise_has_a_solution_with_an_assertion(path: Path) -> None:
    text = "\n".join(f"%%{cell['cell_type']}\n{source(cell)}" for cell in cells(path))
    exercises = re.findall(r"\{exercise-start\}.*\n:label: (\S+)", text)
    solutions = dict(re.findall(r"\{solution-start\} (\S+)\n(.*?)\{solution-end\}", text, re.DOTALL))
    assert set(exercises) == set(solutions)
    for label, solution in solutions.items():
        assert re.search(r"%%code(.|\n)*\bassert\b", solution), label
    for directive in re.findall(r"`{3,}\{(?:exercise|solution)-(?:start|end)\}", text):
        assert f"%%markdown\n{directive}" in text  # alone in its cell


@needs_tools
def test_every_page_of_the_table_of_contents_exists_and_every_notebook_is_in_it() -> None:
    found = build.pages(ROOT)
    listed = re.findall(r"^\s*(?:- file|root): (\S+)", (ROOT / "book" / "_toc.yml").read_text("utf-8"), re.MULTILINE)
    assert [page.with_suffix("").as_posix() for page in found] == listed
    assert {ROOT / page for page in found if page.suffix == ".ipynb"} == set(NOTEBOOKS)


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
    done = subprocess.run([program, "book", "notebooks", "src", "tests", "README.md"], cwd=ROOT, capture_output=True, text=True)
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


def test_staging_drops_the_injected_cell_and_turns_what_is_shown_into_numbered_things(tmp_path: Path) -> None:
    executed = notebook("1 + 1")
    injected = {"cell_type": "code", "id": "i", "metadata": {"tags": ["injected-parameters"]}, "source": "RUN = 1", "outputs": []}
    executed["cells"].insert(1, injected)
    executed["metadata"]["papermill"] = {"input_path": "somewhere"}
    figure = {"kind": "figure", "label": "fig-a", "caption": "Seen.", "alt": "a dot"}
    table = {"kind": "table", "label": "tab-a", "caption": "Counted.", "body": "| a |\n|---|\n| 1 |"}
    executed["cells"][2]["outputs"] = [
        {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {"gradcampp": figure}},
        {"output_type": "stream", "name": "stdout", "text": "kept"},
        {"output_type": "display_data", "data": {"text/plain": ""}, "metadata": {"gradcampp": table}},
    ]
    kept = build.stage_notebook(executed, tmp_path / "a.ipynb")
    assert kept == {tmp_path / "a.ipynb", tmp_path / "a_files" / "fig-a.png"}
    staged = json.loads((tmp_path / "a.ipynb").read_text("utf-8"))
    assert [cell["id"] for cell in staged["cells"]] == ["c0", "c1", "fig-a", "tab-a"]
    assert [output.get("text") for output in staged["cells"][1]["outputs"]] == ["kept"]
    assert ":alt: a dot" in staged["cells"][2]["source"]
    assert "{table} Counted." in staged["cells"][3]["source"]
    assert "papermill" not in staged["metadata"]


def test_a_caption_may_have_roles_and_computed_prose_stays_as_it_is(tmp_path: Path) -> None:
    executed = notebook("1 + 1")
    table = {"kind": "table", "label": "tab-a", "caption": "By {eq}`eq-a`.", "body": "| a |\n|---|\n| 1 |"}
    prose = {"kind": "prose", "label": "said", "body": ":::{note}\nA\n:::"}
    executed["cells"][1]["outputs"] = [
        {"output_type": "display_data", "data": {"text/plain": ""}, "metadata": {"gradcampp": about}} for about in (table, prose)
    ]
    build.stage_notebook(executed, tmp_path / "a.ipynb")
    shown, said = (cell["source"] for cell in json.loads((tmp_path / "a.ipynb").read_text("utf-8"))["cells"][2:])
    fence, _, rest = shown.partition("{table}")
    assert "`" not in fence or "`" not in rest.splitlines()[0]  # else CommonMark takes it for no fence
    assert said == prose["body"]


@needs_tools
def test_another_record_changes_the_numbers_that_chapter_6_prints(tmp_path: Path) -> None:
    """The whole chapter is executed twice: tables, prose and Figure 6 come from the records, and the paper's numbers stay."""
    profile = tmp_path / "few.toml"
    profile.write_text("scenes = 6\nseed = 0\nthreshold = 0.0\n", "utf-8")
    run = tmp_path / "run"
    assert cli.main(["reproduce", "--profile", str(profile), "--out", str(run), "--workers", "0"]) == 0
    chapter = Path("notebooks/06_does_it_matter.ipynb")
    parameters = {"PROFILE": str(profile), "RUN": str(run)}

    def printed() -> dict[str, str]:
        executed = build.execute(ROOT, [chapter], tmp_path / "executed", parameters)[chapter]
        outputs = [output for cell in cells(executed) for output in cell.get("outputs", []) if "data" in output]
        found = {}
        for output in outputs:
            data, about = output["data"], output["metadata"].get("gradcampp")
            glued = output["metadata"].get("scrapbook")
            if about is not None:
                found[about["label"]] = str(data.get("image/png") or about["body"])
            elif glued is not None:
                found[glued["name"]] = str(data["application/papermill.record/text/plain"])
        return found

    before = printed()
    file = run / "run" / "records.parquet"
    rows = records.read_records(run / "run")
    rows["pre_gradcam_plusplus"] = rows["pre_gradcam_plusplus"].where(rows.index > 0, rows["pre_gradcam_plusplus"] / 7)
    rows.to_parquet(file)
    after = printed()
    changed = {name for name in before if before[name] != after[name]}
    for name in (
        "tab-paper-1",
        "tab-paper-2",
        "fig-paper-6",
        "tab-equivalence",
        "pre-ratio",
        "pre-whole",
        "pre-extra",
        "pre-std",
    ):
        assert name in changed
    assert not changed & {"tab-rounding", "fig-paper-5", "post-ratio", "post-std", "over"}


@pytest.mark.parametrize("kept", [True, False])
def test_an_edition_without_solutions_holds_none_of_their_cells(tmp_path: Path, kept: bool) -> None:
    gate = "````{solution-start} ex-a\n:class: dropdown\n````"
    executed = notebook("# before", gate, "secret = 1", "# words", "````{solution-end}\n````", "after = 2")
    build.stage_notebook(executed, tmp_path / "a.ipynb", solutions=kept)
    text = (tmp_path / "a.ipynb").read_text("utf-8")
    assert ("secret" in text, "words" in text, "solution" in text) == (kept, kept, kept)
    assert "before" in text
    assert "after" in text


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/someone/gradcampp",
        "https://github.com/someone/gradcampp.git",
        "https://name:secret@github.com/someone/gradcampp.git",
        "git@github.com:someone/gradcampp.git",
        "ssh://git@github.com/someone/gradcampp.git",
    ],
)
def test_links_come_from_the_remote_without_its_password(tmp_path: Path, remote: str) -> None:
    for arguments in (["init", "--quiet"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    assert build.repository(tmp_path, None) == ("https://github.com/someone/gradcampp", "main")


def test_without_a_remote_on_github_there_are_no_links(tmp_path: Path) -> None:
    assert build.repository(tmp_path, None) == (None, "main")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert build.repository(tmp_path, None)[0] is None
    subprocess.run(["git", "remote", "add", "origin", "/somewhere/else.git"], cwd=tmp_path, check=True)
    assert build.repository(tmp_path, None)[0] is None


def test_an_address_that_is_not_one_of_github_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected an address such as https://github\.com/"):
        build.repository(tmp_path, "ftp://example.org/a")


@needs_tools
def test_launch_buttons_appear_only_with_a_repository(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for address in (None, "https://github.com/someone/gradcampp"):
        config = yaml.safe_load(build._configuration(ROOT, build.Edition("mini", tmp_path, address)))
        options = config["sphinx"]["config"]["html_theme_options"]  # the only place that the theme reads: it replaces all others
        assert options.get("repository_url") == address
        assert ("launch_buttons" in options) == (address is not None)


def test_a_package_without_the_notebooks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(book, "__file__", str(tmp_path / "site-packages" / "gradcampp" / "book.py"))
    assert cli.main(["book"]) == 2
    assert capsys.readouterr().err.startswith("gradcampp: error: no book here: ")


@needs_tools
def test_a_cell_that_fails_is_named_and_the_other_notebooks_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "book", tmp_path / "book")
    (tmp_path / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n  - chapters:\n    - file: notebooks/bad\n    - file: notebooks/good\n",
        "utf-8",
    )
    (tmp_path / "notebooks").mkdir()
    bad = notebook("# Title", "x = 1", "# why\n\nx.missing\nx")
    bad["cells"][3]["cell_type"] = "code"
    bad["cells"][3] |= {"outputs": [], "execution_count": None}
    (tmp_path / "notebooks" / "bad.ipynb").write_text(json.dumps(bad), "utf-8")
    (tmp_path / "notebooks" / "good.ipynb").write_text(json.dumps(notebook("# Title", "print(PROFILE)")), "utf-8")
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gradcampp.notebook.finished_run", lambda folder: folder)
    monkeypatch.setattr("gradcampp.notebook.check_profile", lambda profile, folder: None)
    assert cli.main(["book", "--run", str(run), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "bad.ipynb, cell 4 (x.missing): AttributeError: 'int' object has no attribute 'missing'" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "executed" / "bad.ipynb").exists()
    good = tmp_path / "out" / "executed" / "good.ipynb"
    before = good.stat().st_mtime_ns
    parameters = {"PROFILE": "mini", "RUN": str(run)}
    build.execute(tmp_path, [Path("notebooks/good.ipynb")], good.parent, parameters)
    assert good.stat().st_mtime_ns == before  # nothing has changed for it
    (run / "records.parquet").write_bytes(b"other")
    build.execute(tmp_path, [Path("notebooks/good.ipynb")], good.parent, parameters)
    assert good.stat().st_mtime_ns != before


@needs_tools
@pytest.mark.parametrize("changed", ["run", "profile"])
def test_notebooks_run_where_the_command_does_and_again_when_the_run_or_the_profile_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    folder = tmp_path / "my book"  # a name that could be taken for the folder that the book is built in
    (folder / "notebooks").mkdir(parents=True)
    page = Path("notebooks/page.ipynb")
    content = notebook("# Title", "import pathlib; print(pathlib.Path.cwd())")
    (folder / page).write_text(json.dumps(content), "utf-8")
    run, profile = folder / "book" / "run", folder / "own.toml"
    run.mkdir(parents=True)
    files = {"run": run / "records.parquet", "profile": profile}
    files["run"].write_bytes(b"one")
    profile.write_text("scenes = 6\n", "utf-8")
    monkeypatch.chdir(folder)
    parameters = {"PROFILE": str(profile), "RUN": str(run)}

    def executed() -> Path:
        return build.execute(folder, [page], Path("executed"), parameters)[page]

    made = executed()
    assert f"{folder.resolve()}\\n" in made.read_text("utf-8")
    before = made.stat().st_mtime_ns
    (run / "site").mkdir()
    (run / "site" / "index.json").write_text("{}", "utf-8")  # of a book that is built in the run: no result
    assert executed().stat().st_mtime_ns == before
    files[changed].write_bytes(b"scenes = 7\n")
    assert executed().stat().st_mtime_ns != before


def test_a_pdf_without_a_browser_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("book.build.CHROMIUM", ("no-such-browser",))
    assert cli.main(["book", "--pdf", "book.pdf"]) == 2
    assert capsys.readouterr().err.startswith("gradcampp: error: no browser to print with")
    assert list(tmp_path.iterdir()) == []


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
