"""Sphinx extension of the book: every page says who wrote it and what it is, and every chapter how to cite it.

The heads of the pages have what reference managers read (Highwire's ``citation_*`` and schema.org), and what a link to the page
shows elsewhere (Open Graph), with a picture that is drawn here. A chapter ends with its BibTeX entry, which has a copy button.
A page ends with a link to say what is wrong with it, where the repository of the book is known.

Title, authors and version come from ``CITATION.cff``, the year from the copyright of the book. Where ``html_baseurl`` has the
address of the site, it becomes part of all of these; without it, links are relative.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from docutils import nodes
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

CITATION = Path(__file__).resolve().parents[2] / "CITATION.cff"
LICENCE = "https://creativecommons.org/licenses/by/4.0/"
SIZE = (1200, 630)  # of the picture of a link, as Open Graph's readers want it
ALTERNATIVE = "A photograph and the heatmaps of Grad-CAM, Grad-CAM+ and Grad-CAM++ beside each other"
LONGEST = 200  # characters of a description


@dataclass(frozen=True)
class Work:
    """The book as others cite it."""

    title: str
    authors: tuple[str, ...]
    version: str
    year: str


@dataclass(frozen=True)
class Chapter:
    """A page of the book; ``number`` is empty where it is no chapter."""

    name: str  # such as notebooks/02_methods
    title: str
    number: str
    description: str
    address: str  # of the page, or empty
    picture: str  # address of the picture of a link


def read_work(citation: Path, year: str) -> Work:
    """The book from its ``CITATION.cff``."""
    found = yaml.safe_load(citation.read_text("utf-8"))
    return Work(found["title"], tuple(author["name"] for author in found["authors"]), str(found["version"]), year)


def plain(text: str) -> str:
    """LaTeX that prints a text as it is."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def bibtex(chapter: Chapter, work: Work) -> str:
    """The entry of a chapter; its key is that of the book with the chapter's name: ``gradcampp2026methods``."""
    name = re.sub(r"[^a-z]", "", chapter.name.rpartition("/")[2])
    authors = " and ".join(f"{{{plain(author)}}}" for author in work.authors)
    fields = {
        "author": authors,
        "title": f"{{{plain(chapter.title)}}}",
        "booktitle": f"{{{plain(work.title)}}}",
        "chapter": chapter.number,
        "publisher": authors,
        "year": work.year,
        "note": f"Version {work.version}",
    }
    if chapter.address:
        fields["url"] = chapter.address
    lines = "".join(f"  {key:9} = {{{value}}},\n" for key, value in fields.items())
    return f"@incollection{{gradcampp{work.year}{name},\n{lines}}}"


def head(chapter: Chapter, work: Work) -> str:
    """What the head of a page says of it, as HTML."""
    highwire = [("citation_title", chapter.title), *(("citation_author", author) for author in work.authors)]
    highwire += [("citation_publication_date", work.year), ("citation_language", "en")]
    highwire += [("citation_inbook_title", work.title)] if chapter.number else []
    highwire += [("citation_public_url", chapter.address)] if chapter.address else []
    graph = {
        "og:title": chapter.title,
        "og:type": "article" if chapter.number else "website",
        "og:site_name": work.title,
        "og:description": chapter.description,
        "og:image": chapter.picture,
        "og:image:width": str(SIZE[0]),
        "og:image:height": str(SIZE[1]),
        "og:image:alt": ALTERNATIVE,
        "og:url": chapter.address,
    }
    named = [*highwire, ("description", chapter.description), ("twitter:card", "summary_large_image")]
    lines = [f'<meta name="{name}" content="{html.escape(value)}">' for name, value in named if value]
    lines += [f'<meta property="{name}" content="{html.escape(value)}">' for name, value in graph.items() if value]
    data = json.dumps(schema(chapter, work), ensure_ascii=False).replace("</", "<\\/")
    return "\n".join([*lines, f'<script type="application/ld+json">{data}</script>'])


def schema(chapter: Chapter, work: Work) -> dict[str, Any]:
    """The page in the words of schema.org."""
    authors = [{"@type": "Organization", "name": author} for author in work.authors]
    book = {"@type": "Book", "name": work.title, "author": authors, "bookEdition": work.version, "datePublished": work.year}
    page: dict[str, Any] = {"@context": "https://schema.org", "@type": "Chapter" if chapter.number else "WebPage"}
    page |= {"name": chapter.title, "author": authors, "datePublished": work.year, "inLanguage": "en", "license": LICENCE}
    page |= {"description": chapter.description, "image": chapter.picture, "url": chapter.address}
    page |= {"position": chapter.number, "isPartOf": book}
    return {name: value for name, value in page.items() if value}


def foot(chapter: Chapter, work: Work, repository: str) -> str:
    """What a page ends with, as HTML: the entry of a chapter, and the way to say what is wrong."""
    parts = []
    if chapter.number:
        entry = html.escape(bibtex(chapter, work))
        box = f'<div class="highlight-bibtex notranslate"><div class="highlight"><pre>{entry}\n</pre></div></div>'
        parts.append(f'<details class="gp-cite" id="cite-this-chapter"><summary>Cite this chapter</summary>{box}</details>')
    if repository:
        about = {"title": f"{chapter.title}: ", "body": f"Page {chapter.name}, version {work.version}\n\n"}
        link = html.escape(f"{repository}/issues/new?{urlencode(about)}")
        parts.append(f'<p class="gp-feedback">Wrong or unclear? <a href="{link}">Say what is, on this page</a>.</p>')
    return "".join(parts)


def describe(document: Any, longest: int = LONGEST) -> str:
    """The first paragraph of a page, cut at the end of a word."""
    paragraphs = (
        node.astext() for section in document.findall(nodes.section) for node in section if isinstance(node, nodes.paragraph)
    )
    return textwrap.shorten(next(paragraphs, ""), longest, placeholder=" …")


def card(title: str, below: str, figure: Path, target: Path) -> None:
    """Draw the picture of a link: the title of a page, a line below it, and a figure of the book."""
    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    path = font_manager.findfont("DejaVu Sans")  # comes with matplotlib
    with Image.open(figure) as opened:
        shown = opened.convert("RGB")
        shown.thumbnail((SIZE[0] - 120, 380))
        picture.paste(shown, ((SIZE[0] - shown.width) // 2, SIZE[1] - shown.height - 40))
    for size in range(56, 20, -2):  # the largest that fits two lines
        font = ImageFont.truetype(path, size)
        lines = textwrap.wrap(title, max(10, int((SIZE[0] - 120) / (0.62 * size))))
        if len(lines) <= 2 and all(pen.textlength(line, font) <= SIZE[0] - 120 for line in lines):
            break
    pen.multiline_text((60, 36), "\n".join(lines), "black", font, spacing=8)
    pen.text((60, 176), below, "#444", ImageFont.truetype(path, 24))
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256).save(target, optimize=True)  # a third of the size


def _chapter(app: Any, name: str, description: str, relative: str) -> Chapter:
    numbers = app.env.toc_secnumbers.get(name, {}).get("", ())
    base = app.config.html_baseurl
    if base and not base.endswith("/"):
        base += "/"
    image = f"_static/cards/{Path(name).name if numbers else 'book'}.png"
    picture = f"{base}{image}" if base else f"{relative}{image}"
    address = f"{base}{app.builder.get_target_uri(name)}" if base else ""
    return Chapter(name, app.env.titles[name].astext(), ".".join(map(str, numbers)), description, address, picture)


def _work(app: Any) -> Work:
    return read_work(CITATION, app.config.copyright)


def _context(app: Any, name: str, _template: str, context: dict[str, Any], document: Any) -> None:
    if app.builder.name != "html" or document is None:
        return
    work = _work(app)
    chapter = _chapter(app, name, describe(document), "../" * name.count("/"))
    context["metatags"] = context.get("metatags", "") + head(chapter, work) + "\n"
    context["body"] += foot(chapter, work, app.config.html_theme_options.get("repository_url") or "")


def _cards(app: Any, error: Exception | None) -> None:
    figure = Path(app.srcdir) / "book" / "photographs.png"
    if error or app.builder.name != "html" or not figure.exists():
        return
    work, folder = _work(app), Path(app.outdir) / "_static" / "cards"
    card(app.config.html_title, work.title.partition(":")[2].strip(), figure, folder / "book.png")
    for name, title in app.env.titles.items():
        if number := app.env.toc_secnumbers.get(name, {}).get("", ()):
            below = f"{app.config.html_title}, chapter {'.'.join(map(str, number))}"
            card(title.astext(), below, figure, folder / f"{Path(name).name}.png")


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls to load the extension."""
    app.connect("html-page-context", _context)
    app.connect("build-finished", _cards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
