"""Print the book, built as a single page, with a headless Chromium: Jupyter Book's own printer loads no fonts of formulas."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading
from pathlib import Path

from gradcampp.errors import InputError
from gradcampp.files import atomic_write

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def find_browser() -> str:
    """The program that prints.

    Raises:
        InputError: if there is none.
    """
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise InputError(f"no browser to print with: expected one of {', '.join(CHROMIUM)} on the PATH; install Chromium")
    return browser


def printable(page: str, name: str, address: str) -> str:
    """A page whose links to itself, by its name, stay inside; others lead to the site at an address, without one nowhere."""
    page = page.replace(f' href="{name}#', ' href="#')
    return re.sub(r'(<a [^>]*?)href="\.\./([^"]*)"', rf'\1href="{address}\2"' if address else r"\1", page)


def print_site(browser: str, site: Path, target: Path, address: str) -> None:
    """Print a site of one page to a PDF file; ``address`` is that of the book on the web, or empty.

    Raises:
        InputError: if the browser does not print.
    """
    whole = max(site.glob("**/index.html"), key=lambda path: path.stat().st_size)  # the other one redirects
    page = printable(whole.read_text("utf-8"), str(whole.relative_to(site)), f"{address.rstrip('/')}/" if address else "")
    (site / "whole.html").write_text(page, "utf-8")  # its links to pictures and scripts start from the root
    handler = functools.partial(_Quiet, directory=str(site))  # from a file, a browser loads no fonts of formulas
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, atomic_write(target) as temporary:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            "--generate-pdf-document-outline",
        ]
        command += ["--virtual-time-budget=120000", f"--print-to-pdf={temporary.resolve()}"]
        printed = f"http://127.0.0.1:{server.server_port}/whole.html"
        done = subprocess.run([*command, printed], capture_output=True, text=True, check=False)
        server.shutdown()
        if not temporary.exists():
            raise InputError(f"{browser} did not print the book: {' '.join(done.stderr.split())[-300:]}")
