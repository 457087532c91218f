"""Every page of the book against WCAG 2.1, levels A and AA, and for the order of headings, by axe-core, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browsing import chromium, served, visiting
from tests.conftest import ROOT

AXE = ROOT / "book" / "web" / "node_modules" / "axe-core" / "axe.min.js"
HTML = ROOT / "runs" / "mini" / "book" / "_build" / "html"
RULES = """axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    rules: {"heading-order": {enabled: true}, "tabindex": {enabled: true}},
    resultTypes: ["violations"],
})"""
ALIKE = ("book/library/", "genindex")  # generated pages of one making: one of a kind is read


def pages() -> list[str]:
    found = (
        path for path in HTML.rglob("*.html") if "_static" not in path.parts and "http-equiv=" not in path.read_text("utf-8")
    )
    names = sorted(path.relative_to(HTML).as_posix() for path in found)  # without those that lead to another at once
    return [name for name in names if not name.startswith(ALIKE)] + [name for name in names if name.startswith(ALIKE)][:2]


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Browser, str]]:
    if not HTML.is_dir():
        pytest.skip(f"no book in {HTML}: make book")
    if not AXE.is_file():
        pytest.skip("no axe-core: npm ci --prefix book/web")
    with served(HTML) as host, chromium() as browser:
        yield browser, host


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility(site: tuple[Browser, str], scheme: str) -> None:
    browser, host = site
    found: dict[str, list[str]] = {}
    script = AXE.read_text("utf-8")
    with visiting(browser, host, "book/index.html", color_scheme=scheme) as visit:
        for name in pages():
            visit.page.goto(host + name)
            visit.page.evaluate(script)
            for broken in visit.page.evaluate(RULES)["violations"]:
                places = [f"{node['target']}: {node['html'][:100]}" for node in broken["nodes"]]
                found.setdefault(f"{broken['id']}, {broken['help']}", []).append(f"{name}, {len(places)} times: {places[0]}")
    assert found == {}


def test_axe_finds_what_is_wrong(site: tuple[Browser, str], tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<html lang='en'><title>bad</title><p style='color: #ccc'>pale</p><button></button><h1>1</h1><h3>3</h3>"
    )
    browser, _ = site
    with served(tmp_path) as host, visiting(browser, host, "bad.html") as visit:
        visit.page.evaluate(AXE.read_text("utf-8"))
        broken = {rule["id"] for rule in visit.page.evaluate(RULES)["violations"]}
    assert {"color-contrast", "button-name", "heading-order"} <= broken
