"""The ledger in the book: each claim with its place, its verdict in sign and word, and its test."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gradcampp.claims import cards, ledger
from gradcampp.claims.claim import COMPANION, DERIVATION, NOT_TESTED, Claim, Finding
from gradcampp.claims.claim import claim as decorate
from gradcampp.claims.ledger import PROVED, Row
from tests.conftest import ROOT


def claim(name: str = "eq-1", **more: Any) -> Claim:
    where = more if "section" in more else {"section": "2.1.1", "equation": 1, **more}
    return decorate(name, sentence="A | B holds for 2 * x_1", **where)(lambda: Finding("holds", ""))


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


def test_every_anchor_of_the_ledger_is_in_its_chapter() -> None:
    chapters = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        chapters[path.stem] = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
    everything = "\n".join(chapters.values())
    for one in ledger.CLAIMS:
        first, *others = cards.anchors(one)
        assert one.chapter in chapters
        for anchor in (first, *others):
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


@pytest.mark.parametrize("verdict", ["holds", "sharpened", "fails", NOT_TESTED])
def test_a_card_says_verdict_evidence_place_and_test(verdict: str) -> None:
    entry = Row(claim(criterion="x < 1", command="gradcampp reproduce"), Finding(verdict, "x = 2 | *y*"), None)  # type: ignore[arg-type]
    text = cards.card(entry)
    assert f"**{cards.ICONS[verdict]} {verdict}**\n" in text
    assert "A \\| B holds for 2 \\* x\\_1" in text
    assert "`x = 2 | *y*`" in text
    assert "x \\< 1" in text
    assert "{ref}`sec-paper-2-1-1`, {eq}`eq-paper-1`" in text
    assert "{source}`eq-1 <tests/test_claims.py::test_verdict[eq-1]>`" in text
    assert ("gradcampp reproduce" in text) == (verdict == NOT_TESTED)


def test_a_verdict_that_deviates_is_said() -> None:
    assert "**✔ holds** (expected: fails)" in cards.card(Row(claim(), Finding("holds", "e"), "fails"))


def test_groups_follow_the_paper_and_ours_come_last() -> None:
    entries = [Row(one, Finding("holds", "e"), None) for one in ledger.CLAIMS]
    groups = cards.by_section(entries)
    names = list(groups)
    assert names[0] == "2.1.1"
    assert names[-2:] == ["A", "companion"]
    assert names[:-2] == sorted(names[:-2], key=lambda name: [int(part) for part in name.split(".")])
    assert sum(map(len, groups.values())) == len(entries)
