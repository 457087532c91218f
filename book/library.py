"""The reference of the library: a page for each module that the table of contents names, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = "book/library/"
PAGE = "# {0}\n\n```{{eval-rst}}\n.. automodule:: gradcampp.{0}\n   :members:\n   :member-order: bysource\n```\n"


def write(source: Path, pages: Sequence[str]) -> None:
    """Write the pages below ``book/library/``, and the list of them at the end of ``book/library.md``.

    Args:
        source: what the site is made from.
        pages: of the table of contents, as paths without ending.
    """
    lines = []
    for page in pages:
        if page.startswith(FOLDER):
            module = page.removeprefix(FOLDER).replace("/", ".")
            said = inspect.getdoc(importlib.import_module(f"gradcampp.{module}")) or ""
            lines.append(f"- {{py:mod}}`{module} <gradcampp.{module}>`: {markdown(said.partition(chr(10))[0])}\n")
            path = source / f"{page}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAGE.format(module), "utf-8")
    if lines:
        with (source / "book" / "library.md").open("a", encoding="utf-8") as library:
            library.writelines(["\n## Every module\n\n", *lines])


def markdown(line: str) -> str:
    """A line of a docstring, whose roles such as ``:mod:`` are those of reStructuredText, for a page of Markdown."""
    return re.sub(r":(?:py:)?(\w+):`~?([^`]+)`", r"{py:\1}`\2`", line).replace("``", "`")
