"""Sphinx extension of the book: ``{glue:figure}`` shows each figure for a light and a dark page, on a laptop and on a phone.

All four pictures stand in the page; book.css shows one of them. Their class ``dark-light`` keeps the theme's hands off.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from docutils import nodes
from myst_nb.ext.glue.directives import PasteFigureDirective
from myst_nb.ext.glue.utils import retrieve_glue_data


class FigureInViews(PasteFigureDirective):  # type: ignore[misc]
    """The figure of that name that a notebook glues, in its views."""

    def run(self) -> list[nodes.Node]:
        """The figure of MyST-NB with the views in the place of the one picture."""
        key = self.arguments[0]
        glued = retrieve_glue_data(self.document, key)
        views = json.loads(glued.data.pop("views"))  # of which MyST-NB would say that it does not know their kind
        figure, *more = super().run()
        for image in list(figure.findall(nodes.image)):
            shown = []
            for view, file in views.items():
                uri = glued.nb_renderer.write_file([f"{key}-{view}.webp"], base64.b64decode(file), overwrite=True)
                shown.append(nodes.image(uri=uri, alt=image["alt"], classes=["dark-light", view]))
            image.replace_self(shown)
        return [figure, *more]


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.add_directive_to_domain("glue", "figure", FigureInViews, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
