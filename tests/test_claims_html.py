"""The page of the claims in a browser: filters, addresses, keyboard, and the page without its script.

Skipped where test_book_html is: without Chromium or without a book.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gradcampp.claims import cards, ledger
from gradcampp.claims.results import CELLS
from tests.test_book_html import SITE, pytestmark

__all__ = ["pytestmark"]

LEDGER = (SITE / "notebooks" / "08_claims.html").as_uri()
LEFT = """() => {
    const seen = (selector) => [...document.querySelectorAll(selector)].filter(node => node.getClientRects().length);
    return {
        cards: seen("div.claim").map(node => node.innerText),
        hidden: [...document.querySelectorAll("div.claim")].filter(node => node.hidden).map(node => node.textContent),
        rows: seen("#claims-table tbody a").map(node => node.hash.slice(1)),
        empty: seen("section:has(> h2)").filter(node => /^(Claims|Theorems) of/.test(node.querySelector("h2").textContent))
            .filter(node => ![...node.querySelectorAll("div.claim")].some(card => !card.hidden)).length,
        contents: seen(".bd-sidebar-secondary a").map(node => document.querySelector(node.hash))
            .filter(node => !node.getClientRects().length).length,
        says: document.querySelector("#claims-filter output").textContent,
    };
}"""


@pytest.fixture
def claims_page(browser: Any) -> Iterator[Any]:
    """The page of the claims, opened as a file: it needs no server."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(LEDGER)
    yield tab
    tab.close()
    assert errors == []


def test_the_claims_are_filtered_by_what_their_cards_say(claims_page: Any) -> None:
    everything = claims_page.evaluate(LEFT)
    assert everything["says"] == f"{len(ledger.CLAIMS)} of {len(ledger.CLAIMS)} claims"
    assert everything["hidden"] == []
    measured = {cards.NUMBERS_ANCHOR if one in CELLS else cards.name_anchor(one) for one in ledger.MEASURED}
    assert set(everything["rows"]) == measured
    claims_page.locator("#claims-filter").get_by_label("verdict").select_option("fails")
    left = claims_page.evaluate(LEFT)
    assert left["cards"]
    assert all("✘ fails" in text for text in left["cards"])
    assert not any("✘ fails" in text for text in left["hidden"])
    assert left["empty"] == left["contents"] == 0
    title = claims_page.locator("#claims-filter").get_by_label("run").locator("option").nth(1).inner_text()
    claims_page.locator("#claims-filter").get_by_label("run").select_option(label=title)
    on_run = claims_page.evaluate(LEFT)
    told = re.compile(rf"✘ fails( on [^:]*{re.escape(title)}.*)?:")
    assert on_run["cards"] == [text for text in left["cards"] if told.search(text)]
    claims_page.locator("#claims-filter").get_by_label("verdict").select_option("")
    claims_page.locator("#claims-filter").get_by_label("role").select_option("theorem")
    theorems = sum(ledger.role(claim) == "theorem" for claim in ledger.CLAIMS)
    assert claims_page.evaluate(LEFT)["says"] == f"{theorems} of {len(ledger.CLAIMS)} claims"


def test_a_filtered_view_is_an_address_and_a_link_to_a_hidden_claim_shows_it(claims_page: Any) -> None:
    claims_page.locator("#claims-filter").get_by_label("kind").select_option("proof")
    claims_page.locator("#claims-filter").get_by_label("search").fill("differentiates EQ. 6")
    left = claims_page.evaluate(LEFT)
    assert len(left["cards"]) == 1
    assert left["rows"] == []
    address = claims_page.url
    claims_page.goto("about:blank")
    claims_page.goto(address)
    assert claims_page.evaluate(LEFT) == left
    claims_page.evaluate("location.hash = 'claim-table-1-pre-relative-gradcam-plusplus-gradcam'")
    claims_page.wait_for_function("!location.search")
    assert claims_page.evaluate(LEFT)["hidden"] == []
    claims_page.goto(f"{LEDGER}?kind=proof#claim-4-better-pre")
    assert claims_page.evaluate(LEFT)["hidden"] == []
    claims_page.goto(f"{LEDGER}?verdict=unknown&other=1")
    assert claims_page.evaluate(LEFT)["hidden"] == []


def test_the_filters_answer_the_keyboard_and_say_when_nothing_is_left(claims_page: Any) -> None:
    claims_page.locator("#claims-filter").get_by_label("search").focus()
    claims_page.keyboard.type("no claim says this")
    claims_page.keyboard.press("Enter")
    left = claims_page.evaluate(LEFT)
    assert (left["cards"], left["rows"], left["empty"]) == ([], [], 0)
    assert left["says"] == f"0 of {len(ledger.CLAIMS)} claims"
    for name in ("chapter", "kind", "role", "verdict", "run", ""):
        claims_page.keyboard.press("Tab")
        assert claims_page.evaluate("document.activeElement.name") == name
    claims_page.keyboard.press("Space")  # show all
    assert claims_page.evaluate(LEFT)["hidden"] == []
    assert claims_page.url == LEDGER


def test_without_a_script_every_claim_is_shown_and_no_dead_control(browser: Any) -> None:
    tab = browser.new_page(java_script_enabled=False)
    tab.goto(LEDGER)
    assert not tab.locator("#claims-filter").is_visible()
    assert tab.locator("div.claim:visible").count() == tab.locator("div.claim").count() > 80
    tab.close()
