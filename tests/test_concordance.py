"""The concordance: everything that the paper numbers is in it, and every link of it leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from book import build, code_of, concordance
from gradcampp import paper
from gradcampp.cam import SCORES
from gradcampp.claims import cards, ledger
from gradcampp.claims.claim import Finding
from gradcampp.claims.ledger import MATHEMATICS, Judged, Row
from gradcampp.evaluation.records import Run
from gradcampp.performance import Summary, summaries
from tests.conftest import ROOT, SECTIONS

RUN = Run(ROOT / "evidence" / "squeezenet1_0-features.12")
PAGES = build.pages(ROOT)


def judged() -> list[Judged]:
    """Every claim, as if it held: what they come to is the ledger's business."""
    row = [Row(claim, Finding("holds", "as agreed"), None) for claim in ledger.CLAIMS]
    return [{RUN.title if each.claim.kind == "empirical" else MATHEMATICS: each} for each in row]


@pytest.fixture(scope="module")
def text() -> str:
    return concordance.text(ROOT, PAGES, {RUN.title: RUN}, judged())


def part(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(table: str) -> list[str]:
    return re.split(r"^\* - ", table, flags=re.MULTILINE)[2:]


def test_every_equation_figure_table_and_section_of_the_paper_has_its_row(text: str) -> None:
    equations = [re.findall(r"\{eq\}`eq-paper-(\d+)`", row)[0] for row in rows(part(text, "Equations"))]
    assert equations == [str(number) for number in range(1, 20)]
    for title, kind, count in (("Figures", "fig", 6), ("Tables", "tab", 2)):
        found = [re.findall(rf"\{{numref\}}`{kind}-paper-(\d+)`", row)[0] for row in rows(part(text, title))]
        assert found == [str(number) for number in range(1, count + 1)]
    sections = [re.findall(r"\{ref\}`sec-paper-([a-z0-9-]+)`", row)[0] for row in rows(part(text, "Sections"))]
    wanted = [section.replace(".", "-") for section in SECTIONS]
    assert [each for each in sections if each in wanted] == wanted
    assert set(sections) - set(wanted) == {"2-2-derivation", "a", "note-2"}


def test_every_row_has_a_function_a_test_data_and_a_verdict(text: str) -> None:
    for title in ("Equations", "Figures", "Tables"):
        for row in rows(part(text, title)):
            assert "{py:obj}`" in row, row
            assert row.count("tests/test_") >= 2, row  # of a claim, and of the function
            assert re.search(r"\n  - (none, |photographs: |all runs|the run)", row), row
            assert re.search(r"\]\(#claim-[a-z0-9-]+\)", row), row


def test_an_equation_is_found_at_the_function_that_computes_it_and_in_the_chapter_that_states_it(text: str) -> None:
    for row, (number, name) in zip(rows(part(text, "Equations")), paper.WHERE.items(), strict=True):
        assert f"<gradcampp.{name}>" in row
        page = re.findall(r"\{doc\}`\.\./([^`]+)`", row)[0]
        assert f"(eq-paper-{number})" in (ROOT / f"{page}.ipynb").read_text("utf-8") or number in (10, 18, 19)


def test_every_link_leads_somewhere(text: str) -> None:
    sources = "\n".join((ROOT / f"{page}.ipynb").read_text("utf-8") for page in PAGES if page.startswith("notebooks/"))
    for label in re.findall(r"\{(?:eq|numref|ref)\}`([a-z0-9-]+)`", text):
        assert re.search(rf"\({label}\)|(?:name|label): {label}\\n", sources), label
    for page in re.findall(r"\{doc\}`\.\./([^`]+)`", text):
        assert page in PAGES
    for name in re.findall(r"\{py:obj\}`[^<]+<([\w.]+)>`", text):
        assert code_of.defined(name) == name  # a function by its own name, so that its module's page has it
        assert f"book/library/{name.removeprefix('gradcampp.').rpartition('.')[0].replace('.', '/')}" in PAGES
    anchors = {cards.name_anchor(claim) for claim in ledger.CLAIMS} | {cards.NUMBERS_ANCHOR}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    for target in re.findall(r"\{source\}`[^<]+<([^>]+)>`", text):
        file, _, test = target.partition("::")
        assert f"def {test.partition('[')[0]}" in (ROOT / file).read_text("utf-8"), target


def test_the_tables_have_the_paper_s_rows_and_columns_and_the_distance_of_each_number(text: str) -> None:
    found = summaries(RUN.records)
    for title, values in (("Table 1", ("relative_performance",)), ("Table 2", ("mean", "std"))):
        table = part(text, f"{title}, number by number")
        wide = re.findall(r'colspan="(\d+)"', table.partition("</thead>")[0])
        assert list(map(int, wide)) == [2 * len(values), len(values), len(values)]
        lines = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
        assert len(lines) == 6
        for (name, theirs), (again, own), pair in zip(lines[:3], lines[3:], paper.PAIRS, strict=True):
            assert name == again == paper.pair_name(pair)
            wanted = [getattr(paper.CELLS[scores, pair], value) for scores in SCORES for value in values]
            assert [float(cell) for cell in re.findall("<td>(.*?)</td>", theirs)] == wanted
            got = [getattr(found[scores, pair], value) for scores in SCORES for value in values]
            for cell, number, of_paper in zip(re.findall("<td>(.*?)</td>", own), got, wanted, strict=True):
                number_shown, distance = re.findall(r"^(-?[\d.,]+) \(([+-][\d.,]+)\)", cell)[0]
                assert abs(float(number_shown) - number) <= 0.005
                assert abs(float(distance) - (number - of_paper)) <= 0.005
    assert concordance.BESIDE in text
    assert "{include} concordance_caveat.md" in (ROOT / "book" / "concordance.md").read_text("utf-8").partition("\n- ")[0]
    assert "not how well the paper's number comes out again" in concordance.caveat([RUN])  # of this run nobody may think so


def test_a_distance_of_nothing_has_no_sign_of_a_negative_zero() -> None:
    summary = Summary(10, 1.0, 0.9, 1.1, -0.001, 1.0)
    assert concordance._number(summary, paper.Cell(1.0, 0.0, 0.4), "mean") == "-0.001 (-0.001)"
    assert concordance._number(summary, paper.Cell(1.24, 0.0, 0.4), "relative_performance") == "1.000 (-0.240) [0.900, 1.100]"
    nothing = Summary(10, 951.401, 0.9936, 1_029.7, -0.0001, 1.0)
    assert concordance._number(nothing, paper.Cell(1.0, 0.0, 0.4), "mean") == "0.000 (+0.000)"
    large = concordance._number(nothing, paper.Cell(1.16, 0.0, 0.4), "relative_performance")
    assert large == "951 (+950) [0.994, 1,030]"


def notebook(*sources: str) -> Mapping[str, Any]:
    return {"cells": [{"cell_type": "markdown" if text.startswith(("(", "$")) else "code", "source": text} for text in sources]}


def test_what_moves_in_the_book_moves_in_the_concordance() -> None:
    first = notebook("(sec-paper-3)=\n## § 3 Somewhere", "$$\nx\n$$ (eq-paper-7)", "y = '(eq-paper-8)'")
    second = notebook("(sec-paper-3-1)=\n## § 3.1", "(own)=\n:::{glue:figure} fig-paper-2\n---\nname: fig-paper-2\n---\n:::")
    found = concordance.places({"a": first, "b": second})
    assert {label: place.page for label, place in found.items()} == {
        "sec-paper-3": "a",
        "eq-paper-7": "a",
        "sec-paper-3-1": "b",
        "fig-paper-2": "b",
    }
    assert (found["sec-paper-3"].inside, found["sec-paper-3-1"].inside) == (["eq-paper-7"], ["fig-paper-2"])


def test_what_draws_a_figure_is_found_through_variables_loops_and_methods() -> None:
    cells = notebook(
        "%matplotlib inline\nfrom gradcampp import cam, performance",
        "from gradcampp.notebook import (\n    glue,\n    open_photographs,\n    open_run,\n)",
        "run = open_run(PROFILE, RUN)\nseen = open_photographs(PROFILE, run, ['coffee|cat'])\nother = seen.network",
        "both = performance.summaries(run.records)\nfor key, name in (('a', 'fig-paper-1'), ('b', 'fig-paper-2')):\n"
        "    glue(name, both[key].assign(x=1))",
        "def drawn(x):\n    return cam.heatmap(x, other)\nglue('fig-paper-3', cam.min_max(drawn(1)))\nglue('fig-own', 3)",
    )
    found = code_of.glued(cells, [f"fig-paper-{number}" for number in range(1, 5)])
    assert set(found) == {"fig-paper-1", "fig-paper-2", "fig-paper-3"}
    for label in ("fig-paper-1", "fig-paper-2"):
        assert found[label] == code_of.Glued("gradcampp.performance.summaries", frozenset({"open_run"}), ())
    assert found["fig-paper-3"].function == "gradcampp.cam.min_max"
    assert found["fig-paper-3"].openers == {"open_run", "open_photographs"}
    assert found["fig-paper-3"].names == ("coffee", "cat")


def test_a_test_counts_where_it_uses_a_function_itself_or_by_a_helper_or_a_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "import gradcampp\nfrom gradcampp import cam\nfrom gradcampp.cam import heatmap as heat\n"
        "def helper():\n    return heat\n"
        "def made():\n    return cam.min_max\n"
        "def test_direct():\n    assert gradcampp.weights\n"
        "def test_by_helper():\n    assert helper()\n"
        "def test_by_fixture(made):\n    assert made\n"
        "def test_of_nothing():\n    weights = heatmap = 1\n    assert weights\n",
        "utf-8",
    )
    found, file = code_of.tests_of(tmp_path), f"{tmp_path.name}/test_a.py"
    assert found["gradcampp.cam.weights"] == [f"{file}::test_direct"]
    assert found["gradcampp.cam.heatmap"] == [f"{file}::test_by_helper"]
    assert found["gradcampp.cam.min_max"] == [f"{file}::test_by_fixture"]
    assert not any("of_nothing" in test for tests in found.values() for test in tests)
