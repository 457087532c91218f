"""A page of the book in a browser without a way out of this machine: its folder served, its requests and complaints kept."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from book import pdf

_HEAD = (
    "<!doctype html><html lang='en' data-content_root='../'><head><meta charset='utf-8'><title>{0}</title>"
    "<meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'></head><body>{1}</body></html>"
)


def write_page(source: Path, folder: Path) -> None:
    """The raw HTML of a page of the book alone, in FOLDER/book as in the site."""
    found = re.findall(r"```\{raw\} html\n(.*?)```", source.read_text("utf-8"), re.DOTALL)
    assert len(found) == 1
    (folder / "book").mkdir(exist_ok=True)
    (folder / "book" / f"{source.stem}.html").write_text(_HEAD.format(source.stem, found[0]), "utf-8")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served as it is."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, pdf.CHROMIUM)), None)
    if path is None:
        pytest.skip(f"no browser: expected one of {', '.join(pdf.CHROMIUM)} on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def firefox() -> Iterator[Browser]:
    """Firefox as a system installs it, with a proxy that leads nowhere for every other host.

    The test is skipped where there is none, or where this Playwright asks it for what it does not know.
    """
    path = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
    if path is None:
        pytest.skip("no firefox-esr or firefox on the PATH")
    nowhere: dict[str, str | float | bool] = {"network.proxy.type": 1, "network.proxy.no_proxies_on": "127.0.0.1"}
    nowhere |= {f"network.proxy.{kind}": "127.0.0.1" for kind in ("http", "ssl")}
    nowhere |= {f"network.proxy.{kind}_port": 9 for kind in ("http", "ssl")}
    with sync_playwright() as playwright:
        started = playwright.firefox.launch(channel="moz-firefox", executable_path=path, firefox_user_prefs=nowhere)
        try:
            started.new_context().close()
        except Error as error:
            pytest.skip(f"this Playwright does not drive Firefox {started.version}: {error.message.splitlines()[0]}")
        else:
            yield started
        finally:
            started.close()


@dataclass
class Visit:
    """A page and what it did: complaints of the console and of the network, and the requests that it made."""

    page: Page
    trouble: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    methods: set[str] = field(default_factory=set)
    transferred: int = 0


@contextmanager
def visiting(browser: Browser, host: str, path: str, **options: Any) -> Iterator[Visit]:
    """A page in a browser of its own, with an empty cache; every other host is refused."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
    visit = Visit(context.new_page())

    def guard(route: Any) -> None:
        visit.requests.append(route.request.url)
        visit.methods.add(route.request.method)
        if route.request.url.startswith((host, "data:", "blob:")):
            route.continue_()
        else:
            visit.trouble.append(f"asked for {route.request.url}")
            route.abort()

    def received(request: Any) -> None:
        sizes = request.sizes()
        visit.transferred += sizes["responseBodySize"] + sizes["responseHeadersSize"]

    context.route("**/*", guard)
    context.on("console", lambda said: visit.trouble.append(said.text) if said.type in ("error", "warning") else None)
    context.on("requestfailed", lambda request: visit.trouble.append(f"failed: {request.url}"))
    context.on("requestfinished", received)
    visit.page.on("pageerror", lambda error: visit.trouble.append(str(error)))
    visit.page.goto(host + path)
    try:
        yield visit
    finally:
        context.close()


def leave_untouched(page: Page) -> None:
    """Check an exercise of chapter 4 as it stands: not answered yet, which is not wrong; one that needs torch says so."""
    exercise = page.locator("#ex-wrong-powers")
    assert exercise.locator("details.hint:not([open])").count() == 2
    exercise.locator(".live-answer summary").click()
    exercise.get_by_text("Check", exact=True).click()
    exercise.locator(".live-state").filter(has_text="not answered yet").wait_for(timeout=300_000)
    assert exercise.locator(".live-now").inner_text().strip() == "write the body of residual"
    assert "an answer needs torch" in page.locator("#ex-wrong-wider").inner_text()
