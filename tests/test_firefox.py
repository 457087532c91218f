"""The pages that compute, in Firefox with no other host in reach: cells, a photograph, the explorer, and the claims.

Skipped where there is no book, no Firefox, or a Playwright that does not drive it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.test_book_html import SITE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, Page

from tests.browsing import firefox, leave_untouched, served, visiting

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no book in runs/mini/book: make book builds it")
Open = Callable[[str], Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with firefox() as started:
        yield started


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page of the book; nothing may go wrong on it, and no other host be asked."""
    with ExitStack() as stack:
        host = stack.enter_context(served(SITE))
        visits = []

        def open_page(path: str) -> Page:
            visits.append(stack.enter_context(visiting(browser, host, path)))
            return visits[-1].page

        yield open_page
        assert [each for visit in visits for each in visit.trouble] == []
        assert all(request.startswith((host, "data:", "blob:")) for visit in visits for request in visit.requests)


@pytest.mark.parametrize("chapter", ["03_derivation", "04_what_is_wrong"])
def test_every_cell_is_as_printed(opened: Open, chapter: str) -> None:
    page = opened(f"notebooks/{chapter}.html")
    page.get_by_role("button", name="Run all cells").click()
    kinds = "[...document.querySelectorAll('div.cell .live-state')].map((state) => state.dataset.kind)"
    page.wait_for_function(f"{kinds}.every((kind) => kind && kind !== 'busy')", timeout=300_000)
    assert set(page.evaluate(kinds)) == {"same"}


def test_an_untouched_exercise_is_not_called_wrong_and_one_that_needs_torch_says_so(opened: Open) -> None:
    leave_untouched(opened("notebooks/04_what_is_wrong.html"))


def test_a_photograph_gets_its_maps(opened: Open) -> None:
    page = opened("book/photograph.html")
    page.get_by_role("button", name="Chelsea the cat").click()
    page.locator(".gp-maps canvas").nth(3).wait_for(timeout=120_000)
    page.get_by_text(re.compile("score 0\\.4")).nth(2).wait_for(timeout=120_000)  # of the tiger cat, for three methods


def test_the_explorer_answers_mouse_and_keyboard(opened: Open) -> None:
    page = opened("book/explorer.html#scene=planets&class=planet&scores=pre&method=gradcam%2B%2B&lam=1&unit=0.5.3")
    page.wait_for_selector('[data-part="main"]:not([hidden])')
    assert page.locator('[data-part="formulas"]').inner_text().startswith("Eq. 9")
    page.get_by_role("slider", name=re.compile("Drag")).press("Home")
    assert page.locator('[data-part="exact"]').inner_text() == "0.000"
    button = page.get_by_role("button", name=re.compile("^Your map"))
    box = button.bounding_box()
    assert box
    button.click(position={"x": box["width"] * 10.5 / 16, "y": box["height"] * 6.5 / 16})
    button.press("ArrowUp")
    fields = page.get_by_role("group", name="One unit, in numbers").get_by_role("spinbutton")
    assert [fields.nth(number).input_value() for number in (1, 2)] == ["5", "10"]
    page.get_by_role("radio", name="Photograph: a cat").check()
    page.wait_for_function("gradcamppExplorer.shown().scene === 'cat'")
    page.locator("#gx-alphas").evaluate("(part) => part.scrollIntoView({block: 'center'})")
    assert page.locator("#gx-lam").evaluate("(part) => part.getBoundingClientRect().top") > 0


def test_the_claims_are_filtered(opened: Open) -> None:
    page = opened("notebooks/08_claims.html")
    before = page.locator(".claim:visible").count()
    page.locator("#claims-filter input").first.fill("underdetermined")
    assert 0 < page.locator(".claim:visible").count() < before
