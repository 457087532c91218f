"""The ledger in the book: each claim with its place, its verdict in sign and word, and its test."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gradcampp.claims import cards, ledger, overview
from gradcampp.claims.claim import CANNOT_TELL, COMPANION, DERIVATION, NOT_TESTED, Claim, Finding
from gradcampp.claims.claim import claim as decorate
from gradcampp.claims.ledger import MATHEMATICS, MEASURED, PROVED, Judged, Row
from gradcampp.claims.results import CELLS
from gradcampp.evaluation.records import Run
from tests.conftest import ROOT

A, B = "net, layer.1", "net_b, relu"


def claim(name: str = "eq-1", **more: Any) -> Claim:
    where = more if "section" in more else {"section": "2.1.1", "equation": 1, **more}
    return decorate(name, sentence="A | B holds for 2 * x_1", **where)(lambda: Finding("holds", ""))


def on(one: Claim, *verdicts: Any, evidence: str = "x = 2 | *y* < 3") -> Judged:
    """A claim with verdicts on the runs A and B, or with one that needs no run."""
    runs = [MATHEMATICS] if one.kind != "empirical" else [A, B]
    return {run: Row(one, Finding(verdict, evidence), None) for run, verdict in zip(runs, verdicts, strict=True)}


def everywhere(measured: Any = "holds") -> list[Judged]:
    """The whole ledger, judged without a computation."""
    return [on(one, "holds") for one in PROVED] + [on(one, measured, measured) for one in MEASURED]


def run(title: str, paper: bool) -> Run:
    """A run that is the paper's experiment or is not, and need not be read."""
    experiment = {"model": "vgg16", "layer": "features.29", "threshold": 0.5, "limit": None, "weights": ""}
    data = {"folder": "imagenetv2-matched-frequency-format-val" if paper else title}
    made = Run(ROOT / title)
    vars(made)["manifest"] = {"images": 10_000, "experiment": experiment, "data": data}
    return made


@pytest.mark.parametrize(
    ("where", "place", "wanted"),
    [
        ({"section": "2.2"}, "2.2", ["sec-paper-2-2"]),
        ({"section": "3.1.1", "equation": 10}, "3.1.1, eq. 10", ["sec-paper-3-1-1", "eq-paper-10"]),
        ({"section": "2.2", "equation": (5, 6)}, "2.2, eqs 5 and 6", ["sec-paper-2-2", "eq-paper-5", "eq-paper-6"]),
        ({"section": "3.3", "figure": (3, 4)}, "3.3, Figures 3 and 4", ["sec-paper-3-3", "fig-paper-3", "fig-paper-4"]),
        ({"section": "4", "table": 2}, "4, Table 2", ["sec-paper-4", "tab-paper-2"]),
        ({"section": ("4", "5")}, "4 and 5", ["sec-paper-4", "sec-paper-5"]),
        ({"section": "4", "footnote": 4}, "4, footnote 4", ["sec-paper-4"]),
        ({"section": "A", "equation": 19}, "Appendix A, eq. 19", ["sec-paper-a", "eq-paper-19"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_place_of_the_paper_is_text_and_anchors(where: dict[str, Any], place: str, wanted: list[str]) -> None:
    assert claim(**where).place == place
    assert cards.anchors(claim(**where)) == wanted


def test_a_section_that_two_chapters_share_and_a_theorem_find_their_own() -> None:
    assert cards.anchors(claim(section="2.2", equation=7, chapter=DERIVATION))[0] == "sec-paper-2-2-derivation"
    assert cards.anchors(claim("theorem-3-run", section=COMPANION, theorem=3)) == ["thm-3-sandwich"]
    ours = claim("ours", section=COMPANION, chapter="05_alphas")
    assert cards.anchors(ours) == []
    assert "*Place:* {doc}`05_alphas`." in cards.card(on(ours, "holds"))


def test_every_anchor_of_the_ledger_is_in_its_chapter() -> None:
    chapters = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        chapters[path.stem] = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
    everything = "\n".join(chapters.values())
    for one in ledger.CLAIMS:
        assert one.chapter in chapters
        for anchor in cards.anchors(one):
            assert re.search(rf'\({anchor}\)=|\$\$ \({anchor}\)|"{anchor}\b|:(label|name): {anchor}\b', everything), (
                one.name,
                anchor,
            )


def test_every_claim_is_tested_where_the_ledger_says() -> None:
    source = (ROOT / "tests" / "test_claims.py").read_text("utf-8")
    for one in ledger.CLAIMS:
        file, _, function = ledger.tested_by(one).partition("::")
        function = function.partition("[")[0]
        group = {"test_verdict": "PROVED", "test_verdict_on_records": "MEASURED"}[function]
        assert file == "tests/test_claims.py"
        assert f'@pytest.mark.parametrize("claim", {group}, ids=lambda claim: claim.name)\ndef {function}(' in source
        assert (one in PROVED) == (group == "PROVED")


def test_names_become_anchors_that_differ() -> None:
    found = [cards.name_anchor(one) for one in ledger.CLAIMS]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"claim-[a-z0-9-]+", anchor) for anchor in found)


@pytest.mark.parametrize("verdict", ["holds", "sharpened", "fails", CANNOT_TELL, NOT_TESTED])
def test_a_card_says_the_claim_then_verdict_criterion_place_and_test(verdict: Any) -> None:
    text = cards.card(on(claim(criterion="x < 1", command="gradcampp reproduce"), verdict))
    parts = [
        "(claim-eq-1)=\n````{div} claim claim-",
        "**A \\| B holds for 2 \\* x\\_1.** *(proof)*",
        f"**{cards.ICONS[verdict]} {verdict.removesuffix(' by this profile')}:** `x = 2 | *y* < 3`",
        "x \\< 1",
        *(["gradcampp reproduce"] if verdict == NOT_TESTED else []),
        "{ref}`sec-paper-2-1-1`, {eq}`eq-paper-1`",
        "{source}`eq-1 <tests/test_claims.py::test_verdict[eq-1]>`",
    ]
    places = [text.find(part) for part in parts]
    assert min(places) == 0
    assert places == sorted(places)
    assert verdict == NOT_TESTED or "gradcampp reproduce" not in text


def test_a_card_has_a_verdict_for_each_run_and_says_once_what_is_the_same() -> None:
    one = claim(kind="empirical")
    differ, same = cards.card(on(one, "holds", "fails")), cards.card(on(one, "fails", "fails"))
    assert "- **✔ holds** on net, layer.1: `x = 2" in differ
    assert "- **✘ fails** on net\\_b, relu: `x = 2" in differ
    assert same.count("✘ fails") == 1
    assert "on net, layer.1; net\\_b, relu: `" in same
    assert ("claim-mixed" in differ, "claim-fails" in same) == (True, True)
    assert "claim-holds " in cards.card(on(one, NOT_TESTED, "holds"))  # the runs that tested it agree


def test_a_verdict_that_deviates_is_said() -> None:
    assert "**✔ holds (expected: fails):**" in cards.card({MATHEMATICS: Row(claim(), Finding("holds", "e"), "fails")})


def test_what_the_filters_ask_is_in_the_classes() -> None:
    assert cards.classes(on(claim(), CANNOT_TELL)) == "claim-entry chapter-02 kind-proof role-claim on-cannot"
    theorem = claim(section=COMPANION, theorem=3, kind="empirical", chapter="07_beyond")
    assert cards.classes(on(theorem, "fails", NOT_TESTED)) == (
        "claim-entry chapter-07 kind-empirical role-theorem on0-fails on1-not"
    )
    assert "role-definition" in cards.classes(on(claim(role="definition"), "holds"))
    assert len({cards.short(verdict) for verdict in ledger.VERDICTS}) == len(cards.ICONS) == len(ledger.VERDICTS)


def test_groups_follow_the_paper_and_ours_come_last() -> None:
    groups = cards.by_section(everywhere())
    names = list(groups)
    assert names[0] == "2.1.1"
    assert names[-2:] == ["A", "companion"]
    assert names[:-2] == sorted(names[:-2], key=lambda name: [int(part) for part in name.split(".")])
    assert sum(map(len, groups.values())) == len(ledger.CLAIMS)
    shown = "\n".join("".join(cell["source"]) for cell in chapters()["08_claims"])
    assert set(re.findall(r"\{glue:md\} claims-([\dA.]+|companion)\n", shown)) == set(names)


def chapters() -> dict[str, list[dict[str, Any]]]:
    return {path.stem: json.loads(path.read_text("utf-8"))["cells"] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def test_a_chapter_lists_its_claims_before_its_exercises() -> None:
    for chapter, cells in chapters().items():
        texts = ["".join(cell["source"]) for cell in cells]
        count = texts.count("```{claims-of}\n```")
        assert count == (chapter in {one.chapter for one in ledger.CLAIMS}), chapter
        assert not count or texts.index("```{claims-of}\n```") < texts.index("## Exercises")


def test_a_list_of_claims_links_to_every_card_once() -> None:
    assert cards.links([claim("a_1"), claim("b")]) == (
        "- [A \\| B holds for 2 \\* x\\_1](#claim-a-1)\n- [A \\| B holds for 2 \\* x\\_1](#claim-b)"
    )
    assert cards.links(CELLS) == f"- [{cards.NUMBERS.rstrip('.')}](#{cards.NUMBERS_ANCHOR})"


def rows_of(table: str) -> dict[str, list[str]]:
    """The cells of the table of verdicts, by anchor."""
    found = re.findall(r'<tr><th scope="row"><a href="#(\S+)">(.*?)</tr>', table)
    return {anchor: re.findall(r"<td[^>]*>([^<]*)</td>", cells) for anchor, cells in found}


def test_the_table_has_every_empirical_claim_every_run_and_the_command_for_the_papers_own() -> None:
    runs = {A: run(A, paper=False), B: run(B, paper=False)}
    text = overview.table(everywhere("fails"), runs)
    rows = rows_of(text)
    assert set(rows) == {cards.name_anchor(one) for one in MEASURED if one not in CELLS} | {cards.NUMBERS_ANCHOR}
    assert rows["claim-4-better-pre"] == ["not run", "✘ fails", "✘ fails"]
    assert rows[cards.NUMBERS_ANCHOR] == ["not run", "✘ fails: 18", "✘ fails: 18"]
    assert text.count("gradcampp reproduce --profile paper-keras") == 1
    assert 'title="x = 2 | *y* &lt; 3"' in text


def test_a_run_of_the_papers_own_takes_the_place_of_the_empty_column() -> None:
    judged = [on(one, "holds", "fails") if one in MEASURED else on(one, "holds") for one in ledger.CLAIMS]
    text = overview.table(judged, {A: run(A, paper=False), B: run(B, paper=True)})
    assert rows_of(text)["claim-4-better-pre"] == ["✘ fails", "✔ holds"]  # B comes first
    assert rows_of(text)[cards.NUMBERS_ANCHOR] == ["✘ fails: 18", "✔ holds: 18"]
    assert "not run" not in text
    assert "gradcampp reproduce" not in text


def test_the_numbers_of_the_tables_are_one_card_with_a_row_for_each() -> None:
    judged = everywhere(NOT_TESTED)
    text = overview.numbers(judged)
    section = cards.cards(cards.by_section(judged)["4"], text)
    assert section.count(text) == 1
    rows = re.findall(r'<tr id="([^"]+)" class="claim-entry ([^"]+)">(.*?)</tr>', text)
    assert [anchor for anchor, _, _ in rows] == [cards.name_anchor(one) for one in CELLS]
    for one, (_, kinds, cells) in zip(CELLS, rows, strict=True):
        assert kinds == "chapter-06 kind-empirical role-claim on0-not on1-not"
        assert cells.count("○ not tested: x = 2 | *y* &lt; 3") == 2
        assert ledger.tested_by(one) in cells
    assert f"- **○ not tested: 18** on {A}\n" in text
    assert CELLS[0].command in text
    assert not re.search(r"\n\n.*</", text.partition("<details>")[2])  # a blank line would end the HTML


def test_the_form_offers_what_the_ledger_has_and_is_hidden_until_it_works() -> None:
    text = overview.filters(everywhere())
    assert re.match(r'<form id="claims-filter" [^>]*\bhidden>', text)
    choices = {
        name: re.findall(r'value="([^"]+)"', body) for name, body in re.findall(r'<select name="(\w+)">(.*?)</select>', text)
    }
    asked = {word for rows in everywhere() for word in cards.classes(rows).split()}
    for name in ("chapter", "kind", "role"):
        assert {f"{name}-{value}" for value in choices[name]} == {word for word in asked if word.startswith(f"{name}-")}
    assert choices["verdict"] == ["holds", "sharpened", "fails", "cannot", "not"]
    assert choices["run"] == ["0", "1"]
    assert text.count("<label>") == len(choices) + 1
