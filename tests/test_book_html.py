"""The built book in a browser, with no way out of this machine: what a reader sees on a laptop and on a phone.

Skipped where there is no Chromium on the PATH or no book: `make book` builds one, into runs/mini/book.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urldefrag, urljoin, urlparse

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

import gradcampp
from book import build
from book.explorer import export
from gradcampp import cli, paper
from gradcampp.claims import cards, ledger
from gradcampp.claims.results import CELLS
from gradcampp.evaluation import gallery
from tests.browsing import served
from tests.conftest import ROOT, SECTIONS

SITE = ROOT / "runs" / "mini" / "book" / "_build" / "html"
pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no book in runs/mini/book: make book builds it")


@dataclass(frozen=True)
class Seen:
    """A picture of a page as it is shown: ``theme`` light or dark, ``phone`` or laptop; width and height in pixels.

    ``ground`` is the colour behind it, ``changed`` what style sheets do to its colours.
    """

    theme: str
    phone: bool
    alt: str
    address: str
    width: float
    height: float
    ground: str
    changed: str


@dataclass
class Page:
    """What a browser found on a page.

    Attributes:
        title: text of its first heading.
        ids: every anchor.
        links: every address that it links to, absolute.
        html: as it stands after all scripts have run.
        complaints: console errors, failed requests, requests to elsewhere.
        figures: every picture of the content but the small ones on buttons, whose words say what they show.
        unrendered: formulas that MathJax left alone or could not read.
        formulas: how many there are.
        headings: texts of all headings.
        phone_width: how wide the page is on a phone of 390 pixels.
        scrolling: code and text of programs that scroll sideways at 1200 pixels.
    """

    title: str = ""
    html: str = ""
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    figures: list[Seen] = field(default_factory=list)
    unrendered: list[str] = field(default_factory=list)
    formulas: int = 0
    headings: list[str] = field(default_factory=list)
    phone_width: int = 0
    scrolling: list[str] = field(default_factory=list)


LOOK = """() => {
    const content = document.querySelector("article") || document.body;
    const all = (selector, within = document) => [...within.querySelectorAll(selector)];
    return {
        ids: all("[id]").map(node => node.id),
        links: all("a[href]").map(node => node.href),
        html: document.documentElement.outerHTML,
        title: (content.querySelector("h1") || {}).textContent || "",
        headings: all("h1, h2, h3, h4", content).map(node => node.textContent.replace(/#$/, "").trim()),
        formulas: all(".math", content).length,
        scrolling: all(".cell_input pre, div.highlight pre", content)
            .filter(node => node.clientWidth && node.scrollWidth > node.clientWidth).map(node => node.textContent),
        unrendered: all(".math", content).filter(node => !node.querySelector("mjx-container")).map(node => node.textContent)
            .concat(all("mjx-merror, [data-mjx-error]").map(node => node.textContent)),
    };
}"""


FIGURES = """(theme) => {
    document.documentElement.dataset.theme = theme;
    const ground = (node) => {
        const own = getComputedStyle(node).backgroundColor;
        return own !== "rgba(0, 0, 0, 0)" || !node.parentElement ? own : ground(node.parentElement);
    };
    return [...(document.querySelector("article") || document.body).querySelectorAll("img")]
        .filter(node => !node.closest("#gradcampp-explorer label, .gp-samples") && node.checkVisibility())
        .map(node => [node.alt, node.currentSrc, node.clientWidth, node.clientHeight, ground(node),
            getComputedStyle(node).filter]);
}"""


def figures(tab: Any, phone: bool) -> list[Seen]:
    """The pictures that a page shows in both themes."""
    return [Seen(theme, phone, *found) for theme in ("light", "dark") for found in tab.evaluate(FIGURES, theme)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(SITE) as found:
        yield found


def listening(page: Any, address: str) -> list[str]:
    """Let a page reach this server only, and collect everything that goes wrong on it."""
    complaints: list[str] = []

    def route(way: Any) -> None:
        if way.request.url.startswith((address, "data:", "blob:")):
            way.continue_()
        else:
            complaints.append(f"asked for {way.request.url}")
            way.abort()

    page.route("**/*", route)
    page.on("console", lambda message: complaints.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("response", lambda answer: complaints.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    return complaints


@pytest.fixture(scope="module")
def pages(address: str, browser: Any) -> dict[str, Page]:
    """Every page of the table of contents, as a browser sees it, by its path without ending."""
    found: dict[str, Page] = {}
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints = listening(tab, address)
    for name in ["index", *build.pages(ROOT)]:
        complaints.clear()
        tab.set_viewport_size({"width": 1200, "height": 900})
        tab.goto(f"{address}{name}.html", wait_until="networkidle")
        tab.wait_for_function(
            "!document.querySelector('.math') || (window.MathJax && MathJax.startup && MathJax.startup.promise)"
        )
        tab.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
        seen = tab.evaluate(LOOK)
        shown = figures(tab, phone=False)
        tab.set_viewport_size({"width": 390, "height": 844})
        width = tab.evaluate("document.documentElement.scrollWidth")
        found[name] = Page(
            title=seen["title"],
            html=seen["html"],
            ids=set(seen["ids"]),
            links=seen["links"],
            complaints=list(complaints),
            figures=shown + figures(tab, phone=True),
            unrendered=seen["unrendered"],
            formulas=seen["formulas"],
            headings=seen["headings"],
            phone_width=width,
            scrolling=seen["scrolling"],
        )
    tab.close()
    return found


def test_every_page_loads_without_a_complaint_and_without_another_host(pages: dict[str, Page]) -> None:
    assert {name: page.complaints for name, page in pages.items() if page.complaints} == {}
    assert all(page.title for page in pages.values())


def test_every_formula_is_rendered(pages: dict[str, Page]) -> None:
    assert {name: page.unrendered for name, page in pages.items() if page.unrendered} == {}
    assert pages["notebooks/02_methods"].formulas > 20
    for name, page in pages.items():
        text = re.sub(r"<(pre|script|code|mjx-container)\b.*?</\1>", "", page.html, flags=re.DOTALL)
        assert not re.search(r"\\[(\[]|\$\$|\{(?:eq|numref|glue:text|cite\S*|doc)\}`", text), name


PHOTOGRAPHS = {  # by page: the picture, and whose authors stand beside it
    "book/index": ("landing-photographs", ("Stefan van der Walt", "Rachel Michetti")),
    "notebooks/01_start": ("fig-photographs", ("Stefan van der Walt", "Rachel Michetti")),
    "notebooks/02_methods": ("fig-paper-2", ("Stefan van der Walt", "Rachel Michetti")),
    "notebooks/05_alphas": ("fig-paper-3", ("Rachel Michetti",)),
    "notebooks/06_does_it_matter": ("fig-paper-5", ("Rachel Michetti",)),
    "notebooks/07_beyond": ("fig-head-and-inside", ("Stefan van der Walt", "Rachel Michetti", "vultilion", "danielbuechele")),
    "notebooks/09_your_network": ("fig-five-lines", ("Lav Varshney",)),
}


def test_photographs_are_shown_with_title_author_and_licence(pages: dict[str, Page]) -> None:
    for name, (anchor, authors) in PHOTOGRAPHS.items():
        assert anchor in pages[name].ids, name
        text = " ".join(re.sub(r"<[^>]+>", "", pages[name].html).split())
        for author in authors:
            (own,) = [each for each in gallery.PHOTOGRAPHS.values() if each.author == author]
            assert f"{own.title} by {author}, {own.licence}, from {gallery.DISTRIBUTIONS[own.package]}" in text, name
            assert own.source in pages[name].links, name
            assert gallery.LICENCES[own.licence] in pages[name].links, name


def test_every_computed_number_of_the_prose_says_which_cell_it_is_from(pages: dict[str, Page]) -> None:
    chapters = {name: page.html for name, page in pages.items() if name.startswith("notebooks/")}
    assert all(html.count('class="pasted-text"') == html.count(" of this chapter’s notebook") > 0 for html in chapters.values())
    assert all('<details class="gp-numbers">' in html for html in chapters.values())


def test_every_figure_has_an_alternative_text_and_can_be_seen(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        counts = Counter((figure.theme, figure.phone) for figure in page.figures)
        assert len(set(counts.values())) <= 1, name
        for figure in page.figures:
            assert len(figure.alt.split()) > 3, (name, figure)
            assert min(figure.width, figure.height) > 50, (name, figure)
    assert sum(len(page.figures) for page in pages.values()) >= 4 * 20


def luminance(colours: Any) -> Any:
    """Relative luminance of WCAG 2 of colours (..., 3) in [0, 255]."""
    shares = np.asarray(colours) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_texts_of_figures_stand_out_from_a_light_and_a_dark_page_and_can_be_read_on_a_phone(pages: dict[str, Page]) -> None:
    """As large and as dark or light as WCAG asks: letters of 9 pixels, a contrast of 4.5 with what is behind the picture."""
    grounds = set()
    for name, page in pages.items():
        for figure in page.figures:
            said = (name, figure.address.rpartition("/")[2], figure.theme, figure.phone)
            assert figure.changed == "none", said
            ground = [int(share) for share in re.findall(r"\d+", figure.ground)]
            assert len(ground) == 3, said  # nothing behind it is transparent
            grounds.add((figure.theme, *ground))
            picture = Image.open(SITE / urlparse(figure.address).path.lstrip("/"))
            pixels, behind = np.asarray(picture.convert("RGBA")), luminance(ground)
            assert pixels[[0, 0, -1, -1], [0, -1, 0, -1], 3].max() == 0, said  # no box around it
            texts = json.loads(picture.getexif()[Base.ImageDescription])
            assert texts or figure.alt.startswith("Left, a photograph"), said
            for *box, size in texts:
                assert not figure.phone or size * figure.width >= 9, said
                left, top, right, bottom = (round(share * picture.width) for share in box)
                around = pixels[max(top, 0) : bottom, max(left, 0) : right]
                opaque = around[..., 3:] / 255
                letters = luminance(opaque * around[..., :3] + (1 - opaque) * ground)
                contrast = max((letters.max() + 0.05) / (behind + 0.05), (behind + 0.05) / (letters.min() + 0.05))
                assert contrast >= 4.5, (said, box)
    assert {theme for theme, *_ in grounds} == {"light", "dark"}
    assert max(luminance(ground) for theme, *ground in grounds if theme == "dark") < 0.1  # the pages are dark, then


def test_no_page_is_wider_than_a_phone(pages: dict[str, Page]) -> None:
    assert {name: page.phone_width for name, page in pages.items() if page.phone_width > 390} == {}


def test_no_code_scrolls_sideways_on_a_laptop(pages: dict[str, Page]) -> None:
    found = {name: page.scrolling for name, page in pages.items() if page.scrolling and name.startswith("notebooks/")}
    assert found == {}


def test_all_links_and_anchors_inside_the_book_lead_somewhere(pages: dict[str, Page], address: str) -> None:
    known = {f"{address}{name}.html": page.ids for name, page in pages.items()}
    missing = set()
    for name, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(urljoin(f"{address}{name}.html", link))
            if not target.startswith(address):
                continue
            if target not in known:
                file = SITE / urlparse(target).path.lstrip("/")
                if not file.is_file():
                    missing.add((name, link))
                    continue
                known[target] = set(re.findall(r'\bid="([^"]+)"', file.read_text("utf-8"))) if file.suffix == ".html" else set()
            if anchor and "=" not in anchor and anchor not in known[target]:  # with "=", a choice for the explorer
                missing.add((name, link))
    assert missing == set()


def test_equations_figures_and_tables_of_the_paper_are_there_with_their_numbers(pages: dict[str, Page]) -> None:
    everything = "\n".join(page.html for page in pages.values())
    for number in range(1, 20):
        (place,) = [page for page in pages.values() if f"eq-paper-{number}" in page.ids]
        block = place.html.partition(f'id="eq-paper-{number}"')[2]
        assert re.match(rf'.*?class="eqno">\({number}\)', block, re.DOTALL), number
    for kind, count in (("fig", 6), ("tab", 2)):
        for number in range(1, count + 1):
            assert re.search(rf'id="{kind}-paper-{number}"', everything), (kind, number)
            word = {"fig": "Figure", "tab": "Table"}[kind]
            assert re.search(rf'class="caption-number">{word} {number}\s*</span>', everything), (kind, number)


def test_the_table_of_symbols_leads_from_every_equation_to_its_function(pages: dict[str, Page]) -> None:
    symbols = pages["book/symbols"]
    for number, name in paper.WHERE.items():
        assert any(link.endswith(f"#gradcampp.{name}") for link in symbols.links), name
        assert any(link.endswith(f"#equation-eq-paper-{number}") for link in symbols.links), number


def test_the_library_starts_with_the_names_of_the_package(pages: dict[str, Page]) -> None:
    first = re.findall(r'<dt class="sig[^"]*" id="gradcampp\.(\w+)"', pages["book/library"].html)
    assert first[:2] == ["load", "capture"]
    assert set(gradcampp.__all__) - {"InputError", "__version__"} == set(first)


def test_every_command_is_in_the_reference(pages: dict[str, Page]) -> None:
    assert {"gradcampp", *cli.commands.commands} <= set(pages["book/commands"].headings)


def test_every_section_of_the_paper_has_a_heading(pages: dict[str, Page]) -> None:
    headings = [heading for page in pages.values() for heading in page.headings]
    for section in [*SECTIONS, "Appendix A"]:
        assert any(re.match(rf"§ {re.escape(section)} \S", heading) for heading in headings), section


def test_search_finds_a_word_of_the_paper(browser: Any, address: str) -> None:
    tab = browser.new_page()
    complaints = listening(tab, address)
    tab.goto(f"{address}search.html?q=underdetermined", wait_until="networkidle")
    tab.wait_for_selector("#search-results li a")
    assert "04_what_is_wrong" in " ".join(tab.eval_on_selector_all("#search-results li a", "found => found.map(a => a.href)"))
    assert complaints == []


def test_a_figure_is_dark_on_a_screen_that_asks_for_it_and_changes_with_the_page(browser: Any, address: str) -> None:
    tab = browser.new_page(color_scheme="dark")
    listening(tab, address)
    tab.goto(f"{address}notebooks/04_what_is_wrong.html", wait_until="networkidle")
    for theme, (low, high) in {"dark": (0, 60), "light": (240, 255)}.items():
        if theme == "light":
            tab.evaluate("document.documentElement.dataset.theme = 'light'")
        shot = np.asarray(Image.open(io.BytesIO(tab.locator("article figure img:visible").screenshot())).convert("L"))
        assert low <= np.median(shot) <= high  # most of this figure is ground
        assert abs(float(np.median(shot)) - float(shot[0, 0])) <= 1
    tab.close()


@pytest.fixture
def explorer(browser: Any, address: str) -> Iterator[Any]:
    """The page of the explorer in the book, at a scene whose maps move."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints = listening(tab, address)
    tab.goto(f"{address}book/explorer.html#scene=planets")
    tab.wait_for_selector('[data-part="main"]:not([hidden])')
    tab.wait_for_function("gradcamppExplorer.shown().scene === 'planets'")
    yield tab
    tab.close()
    assert complaints == []


def shown(tab: Any) -> tuple[Any, str]:
    """Constant and heatmap that the explorer shows, and what it says the constant is."""
    found = tab.evaluate("(({lam, heat}) => [String(lam), [...heat]])(gradcamppExplorer.shown())")
    return found, tab.inner_text('[data-part="lam-value"]')


def test_the_explorer_of_the_book_is_grad_cam_plus_at_0_and_plusplus_at_1(explorer: Any) -> None:
    from tests.test_explorer import CLOSE, SceneTruth

    truth = SceneTruth(next(exhibit for exhibit in export.EXHIBITS if exhibit.name == "planets"))
    for button, method in (("0: Grad-CAM+", "gradcam+"), ("1: Grad-CAM++", "gradcam++")):
        explorer.get_by_role("button", name=button, exact=True).click()
        (_, heat), _ = shown(explorer)
        wanted = truth.heat(0, "pre", "gradcam+" if method == "gradcam+" else "gradcam++").flatten().tolist()
        assert max(abs(ours - theirs) for ours, theirs in zip(heat, wanted, strict=True)) <= CLOSE
    assert truth.moved(0, "pre", "gradcam++") > 100 * CLOSE  # the two differ


def test_the_explorer_of_the_book_answers_keyboard_and_mouse(explorer: Any) -> None:
    slider = explorer.get_by_role("slider", name=re.compile("Drag"))
    slider.focus()
    seen = [shown(explorer)]
    for key in ("ArrowRight", "End", "Home"):
        explorer.keyboard.press(key)
        seen.append(shown(explorer))
    assert [lam for (lam, _), _ in (seen[2], seen[3])] == ["Infinity", "0"]
    box = slider.bounding_box()
    explorer.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.append(shown(explorer))
    for before, after in itertools.pairwise(seen):
        assert before[0][1] != after[0][1]
        assert before[1] != after[1]


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844)])
def test_the_bar_of_the_theme_does_not_cover_the_slider(explorer: Any, width: int, height: int) -> None:
    explorer.set_viewport_size({"width": width, "height": height})
    on_top = """(label) => {
      const {left, top} = label.getBoundingClientRect();
      return document.elementFromPoint(left + 5, top + 3) === label;
    }"""
    for part, block in (("#gx-alphas", "center"), ("#gx-unit", "center"), ('[data-part="weights"]', "end")):
        explorer.locator(part).evaluate("(part, block) => part.scrollIntoView({block})", block)
        explorer.wait_for_timeout(200)
        assert explorer.locator("label[for=gx-lam]").evaluate(on_top), part


def test_only_its_own_page_loads_the_explorer(pages: dict[str, Page]) -> None:
    assert [name for name, page in pages.items() if re.search(r'src="[^"]*explorer\.js"', page.html)] == ["book/explorer"]


def test_every_claim_of_the_ledger_has_a_card(pages: dict[str, Page]) -> None:
    page = pages["notebooks/08_claims"]
    assert {cards.name_anchor(claim) for claim in ledger.CLAIMS} <= page.ids
    for claim in ledger.CLAIMS:
        assert ledger.tested_by(claim) in page.html or "/blob/" in page.html


def test_every_chapter_links_to_the_cards_of_its_claims(pages: dict[str, Page]) -> None:
    for claim in ledger.CLAIMS:
        anchor = cards.NUMBERS_ANCHOR if claim in CELLS else cards.name_anchor(claim)
        links = pages[f"notebooks/{claim.chapter}"].links
        assert any(link.endswith(f"/08_claims.html#{anchor}") for link in links), claim.name


def test_every_number_of_the_paper_has_its_place_function_test_and_verdict_in_the_concordance(pages: dict[str, Page]) -> None:
    page = pages["book/concordance"]
    ends = {urldefrag(link)[1] for link in page.links}
    assert {f"equation-eq-paper-{number}" for number in range(1, 20)} <= ends
    assert {f"fig-paper-{number}" for number in range(1, 7)} | {"tab-paper-1", "tab-paper-2"} <= ends
    assert {f"sec-paper-{section.replace('.', '-')}" for section in SECTIONS} <= ends
    assert {f"gradcampp.{name}" for name in paper.WHERE.values()} <= ends
    wanted = {cards.name_anchor(claim) for claim in ledger.CLAIMS if claim.equation or claim.figure}
    assert wanted <= ends
    assert "tests/test_cam.py" in page.html


def test_every_page_says_what_it_is_to_those_who_cite_or_link_it(pages: dict[str, Page]) -> None:
    for name in build.pages(ROOT):
        html, chapter = pages[name].html, name.startswith("notebooks/")
        said = dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', html))
        assert said["citation_title"] == said["og:title"], name
        assert said["citation_author"], name
        assert said["og:type"] == ("article" if chapter else "website"), name
        assert (SITE / name).parent.joinpath(said["og:image"]).resolve().is_file(), name
        assert ("Cite this chapter" in html) == chapter, name
        assert "issues/new" not in html, name  # the repository of this edition is not known


def test_the_entry_of_a_chapter_can_be_copied(browser: Any, address: str) -> None:
    tab = browser.new_page()
    complaints = listening(tab, address)
    tab.goto(f"{address}notebooks/02_methods.html", wait_until="networkidle")
    tab.get_by_text("Cite this chapter").click()
    button = tab.locator(".gp-cite .copybtn")
    assert button.is_visible()
    target = button.get_attribute("data-clipboard-target")
    assert tab.inner_text(target).startswith("@incollection{gradcampp")
    tab.close()
    assert complaints == []


@pytest.mark.parametrize("width", [1200, 390])
def test_slides_turn_by_keys_and_buttons_and_fit(browser: Any, address: str, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 844})
    complaints = listening(tab, address)
    tab.goto(f"{address}slides/index.html", wait_until="networkidle")
    count = tab.locator(".slide").count()
    assert count > 12
    place = tab.locator("nav output")
    for number in range(1, count + 1):
        assert place.inner_text() == f"{number} / {count}"
        assert tab.locator(".slide:visible").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Home")
    tab.get_by_role("button", name="Next slide").click()
    assert place.inner_text() == f"2 / {count}"
    assert not tab.locator(".slide.shown .notes").is_visible()
    tab.keyboard.press("n")
    assert tab.locator(".slide.shown .notes").is_visible()
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth && image.alt)")
    assert tab.locator(".slide svg").count() > 6
    tab.close()
    assert complaints == []


def test_the_notebooks_for_students_are_offered_without_solutions(pages: dict[str, Page]) -> None:
    links = [link for link in pages["book/teach"].links if link.endswith(".ipynb") and "/teaching/" in link]
    assert len(links) == 2
    for link in links:
        text = (SITE / "teaching" / link.rpartition("/")[2]).read_text("utf-8")
        assert "NotImplementedError" in text
        assert not re.search("BEGIN (SOLUTION|HIDDEN)", text)
