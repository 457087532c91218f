"""Sphinx extension of the book: an edition names the other one that is published beside it, on every page.

``this_edition`` is the profile of this one, ``other_edition`` that of the other and the way to its site from this one, such as
``["paper", "paper"]`` or ``["mini", ".."]``. Both have the same pages.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

TITLES = {
    "mini": "a small network on drawn scenes",
    "paper": "the paper’s own experiment, VGG16 on 10,000 photographs",
    "paper-keras": "the paper’s own experiment, VGG16 of Keras on 10,000 photographs",
    "photographs": "EfficientNet-Lite0 on 1,000 photographs",
}


def described(profile: str) -> str:
    """An edition as a reader sees it."""
    return f"<b>{escape(profile)}</b>" + (f": {TITLES[profile]}" if profile in TITLES else "")


def banner(this: str, other: str, address: str) -> str:
    """What stands on top of a page; the address is that of the same page in the other edition."""
    return f'This is the edition {described(this)}. See this page in <a href="{escape(address)}">{described(other)}</a>.'


def _name_the_other(app: Any, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    if app.config.other_edition and "pathto" in context:
        other, way = app.config.other_edition
        pathto: Callable[..., str] = context["pathto"]
        context["theme_announcement"] = banner(app.config.this_edition, other, pathto(f"{way}/{page}.html", 1))


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("this_edition", "", "html")
    app.add_config_value("other_edition", [], "html")
    app.connect("html-page-context", _name_the_other, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
