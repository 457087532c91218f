"""Sphinx extension of the book: ``{claims-of}`` lists the claims of the chapter that it stands in, as links to their cards."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from gradcampp.claims import cards, ledger


class ClaimsOf(SphinxDirective):
    """```` ```{claims-of} ````: the claims of this chapter, or of the one that is named, folded."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The list; a chapter without a claim is a mistake of the book."""
        chapter = self.arguments[0] if self.arguments else self.env.docname.rpartition("/")[2]
        claims = [claim for claim in ledger.CLAIMS if claim.chapter == chapter]
        if not claims:
            raise self.error(f"the ledger has no claim of chapter {chapter!r}")
        title = f"The {len(claims)} claims of this chapter, with links to their verdicts"
        text = f"````{{dropdown}} {title}\n{cards.links(claims)}\n````"
        found = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), self.env.docname), 0, found)
        return list(found.children)


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.add_directive("claims-of", ClaimsOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
