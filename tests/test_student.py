"""What a chapter of the book gives to somebody who learns from it: an opening, key points, questions, exercises by level."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from book import build, library
from gradcampp.claims import ledger
from gradcampp.claims.claim import Finding, Verdict
from gradcampp.evaluation import gallery
from tests.test_book import NOTEBOOKS, cells, source, tags

CHAPTERS = NOTEBOOKS
LEVELS = {"Check": 5, "Practice": 15, "Project": 60}  # minutes for an exercise
of_each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def words(path: Path) -> list[str]:
    """The texts of a chapter, cell by cell."""
    return [source(cell) for cell in cells(path) if cell["cell_type"] == "markdown"]


def place(texts: list[str], heading: str) -> int:
    """The cell that begins with a heading; there is one."""
    (found,) = [number for number, text in enumerate(texts) if text.startswith(heading)]
    return found


def levels(path: Path) -> dict[str, list[str]]:
    """The labels of the exercises below each level, in the order of the page."""
    found: dict[str, list[str]] = {}
    level = ""
    texts = words(path)
    for text in texts[place(texts, "## Exercises") + 1 :]:
        if text.startswith("### "):
            level = text.splitlines()[0].removeprefix("### ")
        for label in re.findall(r"\{exercise-start\}.*\n:label: (\S+)", text):
            found.setdefault(level, []).append(label)
    return found


def minutes(path: Path) -> int:
    """The time to read a chapter up to its exercises.

    200 words a minute, and half a minute for each formula, figure, table and piece of code that is shown.
    """
    total = 0.0
    for cell in cells(path):
        text = source(cell)
        if text.startswith("## Exercises"):
            break
        if cell["cell_type"] == "markdown":
            total += sum(text.count(each) for each in ("{glue:figure}", ":::{table}")) / 2 + text.count("$$") / 4
            prose = re.sub(r"\$\$.*?\$\$|```(?:bash|toml|bibtex)\n.*?```", "", text, flags=re.DOTALL)
            total += len(re.findall(r"\w[\w'’-]*", prose)) / 200
        else:
            total += 0 if {"hide-input", "remove-cell", "hide-cell"} & set(tags(cell)) else 0.5
    return round(total)


@of_each_chapter
def test_a_chapter_opens_with_what_it_gives_what_it_needs_and_how_long_it_takes(path: Path) -> None:
    title, opening, *_ = words(path)
    assert title.startswith("# ")
    able, need, takes, *_ = opening.split("\n- ")
    assert able.startswith("- **You will be able to** ")
    assert need.startswith("**You need** ")
    told = re.match(r"\*\*It takes\*\* about (\d+) minutes to read, and about (\d+) minutes for the exercises\.", takes)
    assert told, takes
    assert abs(int(told[1]) - minutes(path)) <= 5, minutes(path)
    assert int(told[2]) == sum(LEVELS[level] * len(labels) for level, labels in levels(path).items())


@of_each_chapter
def test_a_chapter_ends_with_three_key_points_whose_numbers_are_computed(path: Path) -> None:
    texts = words(path)
    points = texts[place(texts, "## Key points")].removeprefix("## Key points\n\n- ").split("\n- ")
    assert len(points) == 3
    for point in points:
        assert point.endswith(".")
        assert len(point.split()) > 10
    glued = {name for point in points for name in re.findall(r"\{glue:text\}`([\w-]+)`", point)}
    assert len(glued) >= 3
    assert place(texts, "## Key points") < place(texts, "## Quiz") < place(texts, "## Exercises")


@of_each_chapter
def test_five_questions_have_three_options_each_and_an_answer_that_says_why_the_others_are_wrong(path: Path) -> None:
    texts = words(path)
    _, *questions = re.split(r"^\*\*Question \d\.\*\* ", texts[place(texts, "## Quiz")], flags=re.MULTILINE)
    assert len(questions) == 5
    right = []
    for number, question in enumerate(questions, start=1):
        asked, _, answer = question.partition(f'<details class="answer"><summary>Answer to question {number}</summary>\n\n')
        assert re.findall(r"^- \((\w)\) ", asked, re.MULTILINE) == ["a", "b", "c"]
        said = answer.removesuffix("\n").removesuffix("</details>").strip()
        assert answer.strip().endswith("\n\n</details>")  # a line of its own, else Markdown inside is not read
        letter = re.match(r"\((\w)\) \S", said)
        assert letter
        assert {"a", "b", "c"} <= set(re.findall(r"\((\w)\)", said)), said
        right.append(letter[1])
    assert len(set(right)) > 1


@of_each_chapter
def test_every_exercise_has_a_level_and_the_levels_rise(path: Path) -> None:
    found = levels(path)
    assert list(found) == [level for level in LEVELS if level in found]
    labels = re.findall(r"\{exercise-start\}.*\n:label: (\S+)", "\n".join(words(path)))
    assert [label for own in found.values() for label in own] == labels


def test_the_ten_lines_of_the_first_chapter_are_the_library_to_the_last_digit() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    if gallery.missing(["coffee"]):
        pytest.skip("no photograph of a cup: scikit-image is not installed")
    import torch

    code = {cell["id"]: source(cell) for cell in cells(CHAPTERS[0])}
    names: dict[str, Any] = {}
    for name in ("scratch-network", "scratch-code"):
        exec(code[name], names)
    assert "gradcampp" not in code["scratch-network"] + code["scratch-code"]
    own = names["heat"].clone()
    exec(code["scratch-library"], names)
    assert torch.equal(names["same"], own)
    assert own.detach().max() > 0
    other = torch.einsum("bk,bkij->bij", names["g"].relu().mean((2, 3)), names["A"]).relu()
    assert not torch.equal(other, own)  # of Grad-CAM+: one that would agree with anything proves nothing


def test_the_theorems_of_chapter_5_stand_in_the_order_of_their_numbers() -> None:
    numbers = re.findall(r"^:label: thm-(\d+)-", "\n".join(words(CHAPTERS[4])), re.MULTILINE)
    assert numbers == sorted(numbers)
    assert len(numbers) == 3


def test_each_figure_and_table_of_the_paper_has_its_number_alone() -> None:
    everything = "\n".join(text for path in CHAPTERS for text in words(path))
    labels = re.findall(r"^:?name: ((?:fig|tab)-paper-\S+)", everything, re.MULTILINE)
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"(fig|tab)-paper-\d", label) for label in labels)


def test_an_alternative_text_has_the_values_of_the_run() -> None:
    shown = ":::{glue:figure} fig-a\n---\nname: fig-a\nalt: >-\n  Half of {glue:text}`a-b`,\n  and {glue:text}`no`.\n---\n"
    shown += "Text: {glue:text}`a-b`."
    record = {"data": {f"{build.RECORD}text/plain": "'0.5'"}, "metadata": {"scrapbook": {"name": "a-b"}}, "output_type": "x"}
    drawn = {"data": {f"{build.RECORD}image/png": "iV"}, "metadata": {"scrapbook": {"name": "fig-a"}}, "output_type": "x"}
    code = {"cell_type": "code", "metadata": {}, "source": "", "outputs": [record, drawn]}
    notebook = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": shown}, code], "metadata": {}}
    text = build.stripped(notebook)["cells"][0]["source"]
    assert "  Half of 0.5,\n  and {glue:text}`no`.\n" in text  # one that is missing is left, and found on the page
    assert text.endswith("Text: {glue:text}`a-b`.")


def test_a_role_of_a_docstring_is_one_of_the_page() -> None:
    line = "The expressions of :mod:`gradcampp.algebra.derivation` in ``x``, by :py:func:`~gradcampp.load`."
    wanted = "The expressions of {py:mod}`gradcampp.algebra.derivation` in `x`, by {py:func}`gradcampp.load`."
    assert library.markdown(line) == wanted


def test_verdicts_read_as_a_sentence_for_every_run() -> None:
    verdicts: dict[str, Verdict] = {
        "A": "holds",
        "B": "cannot tell",
        "C": "holds",
        "D": "not tested by this profile",
        "E": "holds",
    }
    claim = ledger.CLAIMS[0]
    rows = {title: ledger.Row(claim, Finding(verdict, ""), None) for title, verdict in verdicts.items()}
    assert ledger.in_words(rows) == "holds on A, C and E; on B it cannot be told; on D it is not tested"
