"""Sphinx extension of the book: what is numbered in the paper keeps its number there.

An equation, figure or table whose label is ``eq-paper-N``, ``fig-paper-N`` or ``tab-paper-N`` is number N, without a dot,
and a theorem ``thm-N-name`` has the number N of the library. Whatever else is ours is counted by chapter: 2.1, 2.2.
Equations get their label as an anchor too, so that a link ends in ``#eq-paper-N``. ``{where}`` shows which function computes
which equation, and the caption of a ``{table}`` may be its first paragraph, which has more than one line.

The book as a single page, which is what gets printed, is drawn with the same means as the pages of the site.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from docutils.parsers.rst.directives.tables import RSTTable
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from gradcampp import paper

_PAPER = re.compile(r"(?:(?:equation-eq|fig|tab)-paper|thm)-(\d+)(?:-[a-z-]+)?")


_KINDS = ("figure", "table", "displaymath", "theorem")


def numbered(found: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The numbers of one kind of thing on one page, with the paper's own where it has one.

    Args:
        found: what Sphinx counted, by anchor in the order of the page: chapter and place.

    Returns:
        The same anchors; those of the paper are (N,), the others are counted without gaps.
    """
    result: dict[str, tuple[int, ...]] = {}
    place = 0
    for anchor, number in found.items():
        if match := _PAPER.fullmatch(anchor):
            result[anchor] = (int(match[1]),)
        else:
            place += 1
            result[anchor] = (*number[:-1], place)
    return result


def _renumber(_app: Any, env: Any) -> list[str]:
    for page, kinds in env.toc_fignumbers.items():
        env.toc_fignumbers[page] = {kind: numbered(found) if kind in _KINDS else found for kind, found in kinds.items()}
    return list(env.toc_fignumbers)


def _anchor(_app: Any, document: Any) -> None:
    """Give every labelled equation its label as an anchor, beside ``equation-LABEL``."""
    for node in document.findall(lambda node: node.tagname == "math_block" and node.get("label")):
        if node["label"] not in node["ids"]:
            node["ids"].append(node["label"])


def _source(_name: str, raw: str, text: str, _line: int, inliner: Any, *_more: Any) -> tuple[list[Any], list[Any]]:
    """A file of the repository, ``{source}`words <tests/test_cam.py::test_a>```: a link where its address is known."""
    words, _, target = text.removesuffix(">").partition(" <")
    theme = inliner.document.settings.env.config.html_theme_options
    if not theme.get("repository_url"):
        return [nodes.literal(raw, target or words)], []
    file = (target or words).partition("::")[0]
    address = f"{theme['repository_url']}/blob/{theme.get('repository_branch') or 'main'}/{file}"
    return [nodes.reference(raw, "", nodes.literal(raw, words), refuri=address)], []


class Where(SphinxDirective):
    """``{where}``: the equations of the paper, each with the function of ``paper.WHERE`` that computes it."""

    def run(self) -> list[nodes.Node]:
        """The table; a function that is not in the library's pages is a mistake of the book."""
        rows = [f"| {{eq}}`eq-paper-{number}` | {{py:obj}}`gradcampp.{name}` |" for number, name in paper.WHERE.items()]
        found = nodes.Element()
        self.state.nested_parse(StringList(["| equation | where |", "|---|---|", *rows], self.env.docname), 0, found)
        return list(found.children)


class Table(RSTTable):  # type: ignore[misc]
    """``{table}`` without an argument: the first paragraph is the caption."""

    arguments: list[str]
    content: StringList
    content_offset: int

    def run(self) -> list[nodes.Node]:
        """As docutils has it, with the caption in the place of the argument."""
        if not self.arguments and "" in self.content:
            end = self.content.index("")
            self.arguments = [" ".join(self.content[:end])]
            self.content, self.content_offset = self.content[end + 1 :], self.content_offset + end + 1
        return list(super().run())


def _literal_options(_app: Any, _context: Any, lines: list[str]) -> None:
    """Options in the help of other options are literal: typography would make a dash of their two hyphens."""
    lines[:] = [re.sub(r"(?<![\w`-])--[\w-]+", r"``\g<0>``", line) if line.startswith(" ") else line for line in lines]


def _draw_single_page(app: Any) -> None:
    """Draw a single page with what draws pages: Sphinx forgets that as soon as one extension has means for a single page only."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.add_role("source", _source)
    app.add_directive("where", Where)
    app.add_directive("table", Table, override=True)
    app.connect("builder-inited", _draw_single_page)
    app.connect("doctree-read", _anchor)
    app.connect("sphinx-click-process-options", _literal_options)
    app.connect("env-get-updated", _renumber, priority=900)  # after Sphinx has counted
    return {"parallel_read_safe": True, "parallel_write_safe": True}
