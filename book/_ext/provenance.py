"""Sphinx extension of the book: a number of the prose says which cell computed it.

With a mouse over it, its title does; for a keyboard, a screen reader or a phone, the page ends in a folded list of all of them,
with a link to each cell that the page shows. A list instead of a stop for the tab key at each number: a page has up to a hundred.
"""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.ext.glue.roles import PasteTextRole

LONGEST = 80  # letters of a value in the list
TITLE = "Where the numbers on this page are from"


class computed(nodes.inline):  # noqa: N801, nodes of docutils are in lower case
    """A glued value; ``glued`` is its name."""


@functools.cache
def places(path: Path) -> dict[str, int]:
    """Which cell of an executed notebook glued each value: its place, from 0, by the name of the value."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return {
        output["metadata"]["scrapbook"]["name"]: place
        for place, cell in enumerate(cells)
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    }


def said(name: str, place: int) -> str:
    """Where a value is from, in words."""
    return f"computed when this book was built: {name}, of cell {place + 1} of this chapter’s notebook"


class Computed(PasteTextRole):  # type: ignore[misc]
    """``{glue:text}`NAME```: as MyST-NB has it, with its name kept."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The value; one of another page has none of this page's cells, and stays as it is."""
        found, problems = super().run()
        name = self.text.partition(":")[0]
        env = self.document.settings.env
        if len(found) == 1 and isinstance(found[0], nodes.inline):
            text = found[0].astext()
            place = places(Path(env.doc2path(env.docname)))[name]
            found = [computed(text, text, classes=["pasted-text"], glued=name, cell=place)]
        return found, problems


def listed(values: Mapping[str, tuple[str, int]], shown: Mapping[int, str]) -> nodes.bullet_list:
    """The values of a page, by name, each with its text and cell; a link where a cell has an anchor on the page."""
    found = nodes.bullet_list()
    for name, (text, place) in values.items():
        cell = f"cell {place + 1}"
        where = nodes.reference("", cell, refid=shown[place]) if place in shown else nodes.Text(f"{cell}, not shown here")
        value = nodes.Text(f"{textwrap.shorten(text, LONGEST, placeholder=' …')}: ")
        found += nodes.list_item("", nodes.paragraph("", "", value, nodes.literal(name, name), nodes.Text(", "), where))
    return found


def _list(_app: Any, document: nodes.document) -> None:
    values = {node["glued"]: (node.astext(), node["cell"]) for node in document.findall(computed)}
    if not values:
        return
    shown = {}
    for node in document.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            shown[node["cell_index"]] = f"cell-{node['cell_index'] + 1}"
            node["ids"].append(shown[node["cell_index"]])
    top = document[0]
    top += nodes.raw("", f'<details class="gp-numbers"><summary>{TITLE}</summary>', format="html")
    top += listed(values, shown)
    top += nodes.raw("", "</details>", format="html")


def _visit(translator: Any, node: computed) -> None:
    translator.body.append(translator.starttag(node, "span", "", title=said(node["glued"], node["cell"])))


def _depart(translator: Any, _node: computed) -> None:
    translator.body.append("</span>")


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.add_node(computed, html=(_visit, _depart))
    app.add_role_to_domain("glue", "text", Computed(), override=True)
    app.connect("doctree-read", _list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
