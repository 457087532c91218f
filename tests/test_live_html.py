"""Cells that run in the page, in a browser: what Python computes there is what the book prints.

Skipped where test_book_html is: without Chromium or without a book.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browsing import leave_untouched
from tests.test_book_html import SITE, address, listening, pytestmark

__all__ = ["address", "pytestmark"]

PAGES = [("03_derivation", 24, 1), ("04_what_is_wrong", 22, 8)]  # cells that run in the page, and cells that need torch
MOST = 20e6  # bytes that the first cell may load
Open = Callable[[str], Any]


@pytest.fixture
def chapter(browser: Any, address: str) -> Iterator[Open]:
    """Opens a chapter with an empty cache; nothing may go wrong on it, and no other host be asked."""
    contexts, trouble = list[Any](), list[list[str]]()

    def opened(name: str) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 900}))
        tab = contexts[-1].new_page()
        trouble.append(listening(tab, address))
        tab.goto(f"{address}notebooks/{name}.html", wait_until="networkidle")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert [each for each in trouble if each] == []


def cells(tab: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tab.locator("#live-cells").text_content())["cells"]
    return found


def says(tab: Any, number: int, kind: str) -> str:
    """What a cell says once it is in a state."""
    wanted = f"document.querySelectorAll('div.cell .live-state')[{number}].dataset.kind === '{kind}'"
    tab.wait_for_function(wanted, timeout=120_000)
    return str(tab.locator("div.cell .live-state").nth(number).text_content())


def press(tab: Any, number: int, name: str) -> None:
    tab.locator("div.cell .live-bar:not(.live-away)").nth(number).get_by_text(name, exact=True).click()


@pytest.mark.parametrize(("name", "live", "away"), PAGES)
def test_every_cell_without_torch_runs_and_is_as_printed(chapter: Open, name: str, live: int, away: int) -> None:
    tab, loaded = chapter(name), list[int]()
    tab.context.on("response", lambda answer: loaded.append(int(answer.headers.get("content-length", 0))))
    assert tab.locator("div.cell .live-state").count() == live
    assert tab.locator(".live-away:has-text('Needs torch')").count() == tab.locator(".live-away").count() == away
    tab.get_by_role("button", name="Run all cells").click()
    assert all(says(tab, number, "same").startswith("as printed") for number in range(live))
    assert tab.locator(".live-now:visible, .live-old").count() == 0
    assert 1e6 < sum(loaded) < MOST


@pytest.mark.parametrize(("name", "live", "away"), PAGES)
def test_what_a_cell_is_compared_with_is_what_the_page_prints(chapter: Open, name: str, live: int, away: int) -> None:
    tab = chapter(name)
    shown = [cell for cell in cells(tab) if cell["shown"]]
    assert len(shown) == live + away
    for number, cell in enumerate(shown):
        place = tab.locator("div.cell:has(.cell_input)").nth(number)
        assert place.locator("pre").first.text_content().rstrip() == cell["source"].rstrip()
        if not cell["needs"]:
            printed = "".join(text for kind, text in cell["printed"] if kind == "text")
            assert "".join(place.locator(".cell_output .stream pre").all_text_contents()) == printed
            formulas = [text for kind, text in cell["printed"] if kind == "latex"]
            assert place.locator(".cell_output .text_latex mjx-container").count() == len(formulas)


def test_a_cell_that_is_changed_differs_and_is_kept_until_it_is_reset(chapter: Open) -> None:
    tab = chapter("03_derivation")
    press(tab, 2, "Run")  # the two before it run first
    assert [says(tab, number, "same").partition(",")[0] for number in range(3)] == [*["as printed"] * 2, "as printed: nothing"]
    press(tab, 1, "Edit")
    field = tab.locator("div.cell .live-source").nth(1)
    field.fill(field.input_value().replace("+ second", "- second"))
    field.press("Shift+Enter")
    assert says(tab, 1, "differs").startswith("differs from the printed output")
    now = tab.locator(".live-now:visible")
    now.locator("mjx-container").wait_for()
    assert tab.locator(".live-old").count() == 1
    assert tab.locator("div.cell .live-state").nth(2).text_content() == "a cell before it has changed: run again"
    field.fill("import torch\ntorch.rand(3)")
    field.press("Shift+Enter")
    says(tab, 1, "failed")
    assert now.inner_text().strip() == "torch does not run in the page: run this cell in Jupyter"
    tab.reload(wait_until="networkidle")
    assert tab.locator("div.cell .live-source").nth(1).input_value() == "import torch\ntorch.rand(3)"
    press(tab, 2, "Run")
    assert says(tab, 2, "failed") == "not run: a cell before it did not finish"
    press(tab, 1, "Reset")
    assert tab.evaluate("localStorage.length") == tab.evaluate(
        "Object.keys(localStorage).filter(k => !/^gradcampp-live/.test(k)).length"
    )
    press(tab, 2, "Run")
    assert says(tab, 2, "same").startswith("as printed: nothing")
    assert tab.locator(".live-now:visible, .live-old, .live-source:visible").count() == 0


def test_a_cell_without_end_is_stopped(chapter: Open) -> None:
    tab = chapter("03_derivation")
    press(tab, 0, "Edit")
    tab.locator("div.cell .live-source").first.fill("while True:\n    pass")
    tab.get_by_role("button", name="Run all cells").click()
    tab.wait_for_function("/^running/.test(document.querySelector('.live-state').textContent)", timeout=120_000)
    press(tab, 0, "Stop")
    assert says(tab, 0, "failed").startswith("stopped")
    tab.wait_for_timeout(1000)
    assert tab.locator("[data-kind='busy']").count() == 0  # and what was waiting does not start it again
    press(tab, 0, "Reset")
    press(tab, 0, "Run")
    assert says(tab, 0, "same").startswith("as printed")


def test_an_answer_is_right_nearly_right_or_wrong_and_is_kept(chapter: Open) -> None:
    tab = chapter("04_what_is_wrong")
    exercise = tab.locator("#ex-wrong-least")
    exercise.locator(".live-answer summary").click()
    field, verdict = exercise.locator(".live-source"), exercise.locator(".live-state")
    start = field.input_value()
    assert start == "C = witness.coefficients\nshortest = ...\nfrom_betas = ..."

    def graded(*lines: str) -> str:
        field.fill("\n".join([start.partition("\n")[0], *lines]))
        exercise.get_by_text("Check", exact=True).click()
        tab.wait_for_function("document.querySelector('#ex-wrong-least .live-bar').dataset.kind !== 'busy'", timeout=120_000)
        return str(verdict.text_content())

    exercise.get_by_text("Check", exact=True).click()
    verdict.filter(has_text="not answered yet").wait_for(timeout=120_000)
    assert graded("shortest = [1, 2]", "from_betas = [3, 4]") == "wrong"
    assert graded("shortest = from_betas = [1, 2]") == "nearly: some of it holds"
    assert graded("shortest = unheard_of") == "wrong"
    assert "NameError: name 'unheard_of' is not defined" in exercise.locator(".live-now").inner_text()
    assert graded("shortest = from_betas = [sp.Rational(1, 3), sp.Rational(2, 3)]") == "right"
    answered = field.input_value()
    tab.reload(wait_until="networkidle")
    assert exercise.locator(".live-answer summary").inner_text() == "Answer here, in Python (solved)"
    assert field.input_value() == answered


def test_an_untouched_exercise_is_not_called_wrong_and_one_that_needs_torch_says_so(chapter: Open) -> None:
    tab = chapter("04_what_is_wrong")
    leave_untouched(tab)
    assert tab.locator(".live-unchecked").count() == 1


def test_opened_as_a_file_the_page_says_how_to_serve_it(browser: Any) -> None:
    tab = browser.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((SITE / "notebooks" / "03_derivation.html").as_uri())
    assert "make serve" in tab.locator(".live-intro").inner_text()
    assert tab.locator("button:has-text('Run')").count() == 0
    tab.close()
    assert errors == []


def test_a_cell_that_needs_torch_says_where_to_run_it(browser: Any, address: str) -> None:
    tab = browser.new_page()
    path = f"{address}notebooks/04_what_is_wrong.html"
    tab.goto(path)
    words = tab.locator(".live-away").first
    assert words.text_content().endswith("Run it with Jupyter on your machine: download this page as a notebook.")
    links = '<a href="https://colab.research.google.com/a"></a><a href="https://mybinder.org/b"></a></body>'
    html = (SITE / "notebooks" / "04_what_is_wrong.html").read_text("utf-8").replace("</body>", links)
    tab.route(path, lambda way: way.fulfill(body=html, content_type="text/html"))
    tab.goto(path)
    assert words.text_content().endswith("Run it in Colab, Binder, or with Jupyter on your machine.")
    assert words.locator("a").evaluate_all("all => all.map(a => a.host)") == ["colab.research.google.com", "mybinder.org"]
    tab.close()


@pytest.mark.parametrize("lacking", ["JavaScript", "WebAssembly"])
def test_without_what_it_takes_the_page_reads_as_before(browser: Any, address: str, lacking: str) -> None:
    context = browser.new_context(java_script_enabled=lacking != "JavaScript")
    context.add_init_script("delete globalThis.WebAssembly")
    tab = context.new_page()
    tab.goto(f"{address}notebooks/03_derivation.html")
    assert tab.locator("#live-cells").count() == 1
    assert tab.locator(".live-intro, .live-bar, .live-source").count() == 0
    context.close()
