"""What the pages say of themselves to those who cite or link them; the built pages are looked at in test_book_html."""

from __future__ import annotations

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import ROOT

citing = pytest.importorskip("book._ext.citing", reason="the tools that build the book are not installed")
yaml = pytest.importorskip("yaml")

WORK = citing.Work("The whole: a book", ("A & B", "C. Dee"), "1.2", "2026")
ADDRESS = "https://example.org/book/notebooks/02_methods.html"


def chapter(address: str = ADDRESS, number: str = "2", title: str = 'Grad-CAM & "more" 100 %') -> Any:
    return citing.Chapter("notebooks/02_methods", title, number, "What it is <about>", address, "https://example.org/card.png")


class Head(HTMLParser):
    """The metadata of a head, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta":
            self.found.setdefault(given.get("name") or given.get("property") or "", []).append(given["content"] or "")


def test_the_entry_of_a_chapter_is_read_by_bibtex_with_all_that_is_known() -> None:
    database = pytest.importorskip("pybtex.database")
    entry = database.parse_string(citing.bibtex(chapter(), WORK), "bibtex").entries["gradcampp2026methods"]
    assert entry.type == "incollection"
    assert [str(person) for person in entry.persons["author"]] == [r"{A \& B}", "{C. Dee}"]
    fields = dict(entry.fields)
    assert fields["title"] == r'{Grad-CAM \& "more" 100 \%}'
    assert fields["booktitle"] == "{The whole: a book}"
    assert (fields["chapter"], fields["year"], fields["note"], fields["url"]) == ("2", "2026", "Version 1.2", ADDRESS)
    assert "url" not in citing.bibtex(chapter(address=""), WORK)


def test_keys_of_all_chapters_differ() -> None:
    names = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    entries = [citing.bibtex(citing.Chapter(name, "", "1", "", "", ""), WORK) for name in names]
    assert len({entry.partition(",")[0] for entry in entries}) == len(names) > 8


def test_a_head_has_what_reference_managers_and_previews_read() -> None:
    text = citing.head(chapter(), WORK)
    found = Head(text).found
    assert found["citation_title"] == found["og:title"] == ['Grad-CAM & "more" 100 %']
    assert found["citation_author"] == ["A & B", "C. Dee"]
    assert found["citation_publication_date"] == ["2026"]
    assert found["citation_inbook_title"] == ["The whole: a book"]
    assert found["citation_public_url"] == found["og:url"] == [ADDRESS]
    assert found["og:image"] == ["https://example.org/card.png"]
    assert found["description"] == found["og:description"] == ["What it is <about>"]
    (data,) = re.findall(r'<script type="application/ld\+json">(.*?)</script>', text)
    read = json.loads(data)
    assert (read["@type"], read["position"], read["isPartOf"]["name"]) == ("Chapter", "2", "The whole: a book")


def test_a_page_that_is_no_chapter_claims_no_book_and_without_an_address_none_is_made_up() -> None:
    found = Head(citing.head(chapter(address="", number=""), WORK)).found
    assert not {"citation_inbook_title", "citation_public_url", "og:url"} & set(found)
    assert "gp-cite" not in citing.foot(chapter(number=""), WORK, "")


def test_a_script_cannot_be_ended_by_a_title() -> None:
    text = citing.head(chapter(title="</script><b>"), WORK)
    assert text.count("</script>") == 1


def test_a_page_has_a_way_to_say_what_is_wrong_only_where_the_repository_is_known() -> None:
    assert "issues/new" not in citing.foot(chapter(), WORK, "")
    foot = citing.foot(chapter(), WORK, "https://github.com/someone/book")
    (link,) = re.findall(r'href="([^"]+)"', foot)
    assert link.startswith("https://github.com/someone/book/issues/new?title=Grad-CAM+%26+%22more%22+100+%25")
    assert "02_methods" in link
    assert "version+1.2" in link


def test_the_picture_of_a_link_has_the_size_that_it_says_and_room_for_the_longest_title(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    Image.new("RGB", (1500, 640), "red").save(figure)
    titles = ["Start", "A very long title of a chapter that says nearly everything that is in it, and then some"]
    for number, title in enumerate(titles):
        citing.card(title, "below", figure, tmp_path / "cards" / f"{number}.png")
        with Image.open(tmp_path / "cards" / f"{number}.png") as card:
            assert card.size == citing.SIZE
            pixels = card.convert("RGB")
        for edge in ((20, y) for y in range(0, 630, 10)):
            assert pixels.getpixel(edge) == pixels.getpixel((1180, edge[1])) == (255, 255, 255)
        red = [y for y in range(630) if pixels.getpixel((600, y)) == (254, 0, 0) or pixels.getpixel((600, y)) == (255, 0, 0)]
        assert red
        assert min(red) > 205  # below the words


def test_the_citation_files_say_what_the_package_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format asks for
    assert citation["version"] == zenodo["version"] == project["version"]
    names = [author["name"] for author in project["authors"]]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in zenodo["creators"]] == names
    assert citation["title"] == zenodo["title"]
    assert citation["keywords"] == zenodo["keywords"] == project["keywords"]
    assert citation["license"] == zenodo["license"] == project["license"].partition(" AND ")[0]
    assert "CC BY 4.0" in citation["abstract"]
    assert "CC BY 4.0" in zenodo["description"]
    paper = citation["preferred-citation"]
    bibliography = (ROOT / "book" / "references.bib").read_text("utf-8")
    assert f"eprint        = {{{paper['url'].rpartition('/')[2]}}}" in bibliography
    assert zenodo["related_identifiers"][0]["identifier"] == paper["identifiers"][0]["value"]


def test_the_book_is_cited_by_its_own_citation_file() -> None:
    work = citing.read_work(ROOT / "CITATION.cff", "2026")
    assert work.title.startswith("gradcampp: ")
    bibliography = (ROOT / "book" / "references.bib").read_text("utf-8")
    assert f"version {work.version}}}" in bibliography
    assert all(author in bibliography for author in work.authors)
