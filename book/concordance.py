"""The concordance: what the paper numbers, where the book has it, which function and which test, which data, and how near.

Nothing of it is written by hand: places come from the notebooks, functions from ``paper.WHERE`` and from the cells that draw,
tests from the code of the tests, verdicts and distances from the ledger and the runs.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from book import code_of
from gradcampp import paper
from gradcampp.cam import SCORES
from gradcampp.claims import cards, ledger
from gradcampp.claims.claim import Claim, is_paper, several
from gradcampp.claims.claim import number as significant
from gradcampp.claims.ledger import MATHEMATICS, Judged, claim_of
from gradcampp.claims.results import CELLS
from gradcampp.evaluation import gallery
from gradcampp.evaluation.records import Run
from gradcampp.performance import Summary, summaries

PAGE = "book/concordance"
FILES = 3  # of tests that are named; those of others are counted together
COLUMNS = ":header-rows: 1\n:class: concordance\n:widths: 18 34 16 32"
LABEL = re.compile(
    r"^\((?P<section>sec-paper-[a-z0-9-]+)\)=$"
    r"|(?:\$\$ \(|:label: )(?P<equation>eq-paper-\d+)\b|^:?name: (?P<shown>(?:fig|tab)-paper-\d+)$",
    re.MULTILINE,
)
DATA = {  # what an opener of gradcampp.notebook brings; the first that a figure needs is told
    "open_photographs": "photographs: {photographs}; a profile with photographs of its own shows those",
    "open_evidence": "all runs of this edition: {runs}",
    "open_run": "the run of this edition: {run}",
}
BESIDE = "In brackets the number less the paper's, and behind it the 95 % interval."
ROLES = {"eq": "eq", "fig": "numref", "tab": "numref"}
KINDS = {"proof": "none, exact algebra", "numeric": "none, made-up numbers in float64", "empirical": "all runs of this edition"}


@dataclass
class Place:
    """Where the book has something that the paper numbers.

    Attributes:
        label: such as ``eq-paper-7``.
        page: without ending, ``notebooks/03_derivation``.
        inside: of a section, the labels of what stands in it.
    """

    label: str
    page: str
    inside: list[str] = field(default_factory=list)


def places(notebooks: Mapping[str, Mapping[str, Any]]) -> dict[str, Place]:
    """All sections, equations, figures and tables of the paper in the book, by label, in the order of the book.

    Args:
        notebooks: by page, in its order.
    """
    found: dict[str, Place] = {}
    for page, notebook in notebooks.items():
        section = None
        for cell in notebook["cells"]:
            for match in LABEL.finditer("".join(cell["source"]) if cell["cell_type"] == "markdown" else ""):
                label = next(filter(None, match.group("section", "equation", "shown")))
                found[label] = Place(label, page)
                if match["section"]:
                    section = found[label]
                elif section:
                    section.inside.append(label)
    return found


def number(label: str) -> int:
    """7 of ``eq-paper-7``."""
    return int(label.rpartition("-")[2])


def _row(*cells: str) -> str:
    return "* - " + "\n  - ".join(cell.replace("\n", "\n    ") for cell in cells)


def _table(headers: Sequence[str], rows: Iterable[str], options: str) -> str:
    return "\n".join([f"```{{list-table}}\n{options}\n", _row(*headers), *rows, "```"])


def _count(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"


def _lines(parts: Iterable[str]) -> str:
    """Several things in one cell, each in its own paragraph."""
    return "\n\n".join(dict.fromkeys(filter(None, parts))) or "—"


def _function(name: str) -> str:
    return f"{{py:obj}}`{name.removeprefix(code_of.PACKAGE + '.')} <{name}>`"


def _tested(claims: Iterable[Claim], functions: Iterable[str], tests: Mapping[str, Sequence[str]]) -> str:
    """The tests of claims, and how many tests of which files use the functions."""
    lines = [f"{{source}}`{claim.name} <{ledger.tested_by(claim)}>`" for claim in claims]
    used = {test for name in functions for test in tests.get(name, ())}
    files = Counter(test.partition("::")[0] for test in used).most_common()
    counted = [f"{count} in {{source}}`{file} <{file}>`" for file, count in files[:FILES]]
    if more := sum(count for _, count in files[FILES:]):
        counted.append(f"{more} elsewhere")
    return _lines([*lines, ", ".join(counted)])


def _near(judged: Iterable[Judged]) -> str:
    """The verdict of each claim, as a link to its card: there is what decided."""
    return _lines(f"[{claim_of(rows).name}](#{cards.name_anchor(claim_of(rows))}): {_verdict(rows)}" for rows in judged)


def _verdict(rows: Judged) -> str:
    """The verdict with what decided: the computation, or the run in hand, which is the last."""
    if MATHEMATICS in rows:
        return f"{cards.said_of(rows[MATHEMATICS])}, {cards.code(rows[MATHEMATICS].finding.evidence)}"
    title, row = list(rows.items())[-1]
    return f"{ledger.in_words(rows)}; on {title}: {cards.code(row.finding.evidence)}"


def _data(claims: Iterable[Claim]) -> str:
    return _lines(KINDS[claim.kind] for claim in claims)


def of(kind: str, wanted: int, judged: Iterable[Judged]) -> list[Judged]:
    """The claims about an ``equation``, a ``figure`` or a ``table``."""
    return [rows for rows in judged if wanted in several(getattr(claim_of(rows), kind))]


def equations(found: Mapping[str, Place], judged: Sequence[Judged], tests: Mapping[str, Sequence[str]]) -> str:
    """A row for each equation of the paper."""
    rows = []
    for wanted, name in paper.WHERE.items():
        own, function = of("equation", wanted, judged), f"{code_of.PACKAGE}.{name}"
        claims = [claim_of(each) for each in own]
        where = f"{{eq}}`eq-paper-{wanted}` in {{doc}}`../{found[f'eq-paper-{wanted}'].page}`"
        made = _lines([_function(function), _tested(claims, [code_of.defined(function)], tests)])
        rows.append(_row(where, made, _data(claims), _near(own)))
    return _table(["equation", "function, tests", "data", "how near"], rows, COLUMNS)


def shown(
    kind: str,
    found: Mapping[str, Place],
    glued: Mapping[str, code_of.Glued],
    judged: Sequence[Judged],
    tests: Mapping[str, Sequence[str]],
    runs: Sequence[Run],
) -> str:
    """A row for each figure or table of the paper."""
    rows = []
    for label in sorted((label for label in found if label.startswith(f"{kind[:3]}-paper-")), key=number):
        own = of(kind, number(label), judged)
        function, made = function_of(label, glued), glued[label]
        opener = next((name for name in DATA if name in made.openers), "")
        told = DATA.get(opener, "—").format(
            photographs=", ".join(gallery.PHOTOGRAPHS[name].title for name in made.names if name in gallery.PHOTOGRAPHS),
            runs=", ".join(run.title for run in runs),
            run=runs[-1].title,
        )
        numbers = [rows for rows in own if claim_of(rows) in CELLS]
        others = [rows for rows in own if rows not in numbers]
        near = _lines([_near(others), f"[all numbers](#{cards.NUMBERS_ANCHOR})" if numbers else ""])
        where = f"{{numref}}`{label}` in {{doc}}`../{found[label].page}`"
        tested = _tested([claim_of(each) for each in others], [function], tests)
        rows.append(_row(where, _lines([_function(function), tested]), told, near))
    return _table([kind, "function, tests", "data", "how near"], rows, COLUMNS)


def sections(
    found: Mapping[str, Place],
    glued: Mapping[str, code_of.Glued],
    judged: Sequence[Judged],
    tests: Mapping[str, Sequence[str]],
) -> str:
    """A row for each section of the paper, as often as the book treats it, in the paper's order."""
    rows = []
    for label in sorted((label for label in found if label.startswith("sec-paper-")), key=_order):
        note = re.fullmatch(r"sec-paper-note-(\d+)", label)
        own = [rows for rows in judged if label in cards.anchors(claim_of(rows))]
        own += of("footnote", int(note[1]), judged) if note else []
        claims = [claim_of(each) for each in own]
        verdicts = [row.finding.verdict for each in own for row in each.values()]
        counted = [f"{verdicts.count(verdict)} × {cards.said(verdict)}" for verdict in cards.ICONS if verdict in verdicts]
        near = f"{_count(len(own), 'claim')}, by run: {', '.join(counted)}" if own else "no claim of its own"
        inside = found[label].inside
        functions = [function_of(each, glued) for each in inside]
        number_of_tests = len({test for name in functions for test in tests.get(code_of.defined(name), ())})
        tested = [f"{_count(len(claims), 'test')} of claims"] if claims else []
        tested += [f"used by {_count(number_of_tests, 'test')}"] if functions else []
        numbered = ", ".join(f"{{{ROLES[each.partition('-')[0]]}}}`{each}`" for each in inside)
        made = _lines([numbered, *map(_function, functions), *tested])
        rows.append(_row(f"{{ref}}`{label}`", made, _data(claims), near))
    return _table(["section", "its equations, figures and tables, functions, tests", "data", "how near"], rows, COLUMNS)


def function_of(label: str, glued: Mapping[str, code_of.Glued]) -> str:
    """The full name of the function that computes an equation, or draws a figure or table."""
    return f"{code_of.PACKAGE}.{paper.WHERE[number(label)]}" if label.startswith("eq") else glued[label].function


def _order(label: str) -> tuple[str, bool]:
    """Sections as the paper has them, then the appendix, then notes; a section that is treated twice as the book has it."""
    words = label.removeprefix("sec-paper-")
    return words.removesuffix("-derivation"), words.endswith("-derivation")


def table_1(runs: Sequence[Run]) -> str:
    """Table 1 in the paper's layout: the paper's rows, then those of each run with their distance from the paper's."""
    return _numbers({"relative_performance": ""}, "relative performance", runs)


def table_2(runs: Sequence[Run]) -> str:
    """Table 2 in the paper's layout."""
    return _numbers({"mean": "mean", "std": "std"}, "log relative performance", runs)


def _numbers(values: Mapping[str, str], title: str, runs: Sequence[Run]) -> str:
    """A table in HTML, whose heads span columns as the paper's do; ``values`` are those of a cell with the words above them."""
    blocks: list[tuple[str, Mapping[Any, paper.Cell | Summary]]] = [(f"the paper (n = {paper.IMAGES:,})", paper.CELLS)]
    for run in runs:
        found = summaries(run.records)
        counts = sorted({each.n for each in found.values()})
        own = ", the paper's own experiment" if is_paper(run) else ""
        blocks.append((f"{run.title} (n = {' to '.join(f'{count:,}' for count in counts)}){own}", found))
    width, last = len(SCORES) * len(values), [word for _ in SCORES for word in values.values() if word]
    above = [f'<th scope="colgroup" colspan="{len(values)}">{kind}-softmax expl. maps</th>' for kind in SCORES]
    heads = [f'<th scope="col" rowspan="{2 + bool(last)}">methods</th><th scope="colgroup" colspan="{width}">{title}</th>']
    heads += ["".join(above), *filter(None, ["".join(f'<th scope="col">{word}</th>' for word in last)])]
    rows = [f"<thead>{''.join(f'<tr>{head}</tr>' for head in heads)}</thead>"]
    for source, numbers in blocks:
        rows.append(f'<tbody><tr><th scope="rowgroup" colspan="{width + 1}">{html.escape(source)}</th></tr>')
        for pair in paper.PAIRS:
            cells = [_number(numbers[scores, pair], paper.CELLS[scores, pair], value) for scores in SCORES for value in values]
            columns = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><th scope="row">{paper.pair_name(pair)}</th>{columns}</tr>')
        rows.append("</tbody>")
    box = '<div class="pst-scrollable-table-container" tabindex="0" role="region"'
    lines = "\n".join(rows)
    return f'{box} aria-label="{title}, the paper and each run">\n<table class="table">\n{lines}\n</table>\n</div>'


def _number(ours: paper.Cell | Summary, printed: paper.Cell, value: str) -> str:
    """A number, its distance from the paper's, and the 95 % interval where it has one; the paper's own as printed."""
    own, theirs = getattr(ours, value), getattr(printed, value)
    if isinstance(ours, paper.Cell):
        return f"{own:.2f}"
    interval = f" [{_short(ours.low)}, {_short(ours.high)}]" if value == "relative_performance" else ""
    return f"{_short(own)} ({_short(own - theirs, '+')}){interval}"


def _short(value: float, sign: str = "") -> str:
    """Three decimals, or three significant digits where these are fewer."""
    return significant(value, sign) if abs(value) >= 1 else f"{value:{sign}z.3f}"


def caveat(runs: Sequence[Run]) -> str:
    """A sentence on the paper's own experiment, and which run it is: only its distances say how well that comes out again."""
    own = [run.title for run in runs if is_paper(run)]
    if own:
        return f"The paper's own experiment is here: {', '.join(own)}. Distances of the others are those of other networks."
    return (
        "No run of this edition is the paper's own experiment, so a distance says how another network on other pictures differs, "
        f"not how well the paper's number comes out again. What would: `{paper.COMMAND}`. "
        "The profile `paper` takes torchvision's VGG16 on the same photographs."
    )


def text(root: Path, pages: Iterable[str], runs: Mapping[str, Run], judged: Sequence[Judged]) -> str:
    """The tables of the page, in MyST.

    Args:
        root: of the checkout, for its notebooks and tests.
        pages: of the table of contents, without ending.
        runs: by title; the last is the run in hand.
        judged: every claim on those.
    """
    notebooks = {page: code_of.cells(path) for page in pages if (path := root / f"{page}.ipynb").exists()}
    found, listed = places(notebooks), list(runs.values())
    labels = [label for label in found if label.startswith(("fig", "tab"))]
    glued: dict[str, code_of.Glued] = {}
    for notebook in notebooks.values():
        glued |= code_of.glued(notebook, labels)
    tests = code_of.tests_of(root / "tests")
    parts = {
        "Sections": sections(found, glued, judged, tests),
        "Equations": equations(found, judged, tests),
        "Figures": shown("figure", found, glued, judged, tests, listed),
        "Tables": shown("table", found, glued, judged, tests, listed),
        "Table 1, number by number": f"{BESIDE}\n\n{table_1(listed)}",
        "Table 2, number by number": table_2(listed),
    }
    return "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items()) + "\n"


def write(root: Path, source: Path, pages: Sequence[str], folder: Path) -> None:
    """Write what the page includes, where the book has the page; the ledger is checked on all runs, which takes a minute.

    Args:
        root: of the checkout.
        source: what the site is made from.
        pages: of the table of contents.
        folder: of the run in hand.

    Raises:
        InputError: if a run cannot be read.
    """
    from gradcampp.notebook import open_evidence

    if PAGE in pages:
        runs = open_evidence(Run(folder))
        (source / "book" / "concordance_caveat.md").write_text(f"{caveat(list(runs.values()))}\n", "utf-8")
        (source / "book" / "concordance_tables.md").write_text(text(root, pages, runs, ledger.judge(runs)), "utf-8")
