"""The ledger across runs in HTML: the table of verdicts, the card of the printed numbers, and the form that filters both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from gradcampp import paper
from gradcampp.claims import cards
from gradcampp.claims.claim import NOT_TESTED, is_paper
from gradcampp.claims.ledger import MATHEMATICS, Judged, Row, claim_of, role, tested_by
from gradcampp.claims.results import CELLS
from gradcampp.evaluation.records import Run

PAPER = "the paper's own experiment"


def table(judged: Iterable[Judged], runs: Mapping[str, Run]) -> str:
    """The table of verdicts in MyST: every empirical claim down, the runs across, the paper's own experiment first.

    A claim links to its card. A cell has sign and word, and what decided as its title. The numbers of Tables 1 and 2 are one row.
    Where no run is the paper's own, its column says so, and a line below names the command that makes it.
    """
    own = next((title for title, run in runs.items() if is_paper(run)), None)
    columns = {f"{PAPER}: {own}" if own else PAPER: own, **{title: title for title in runs if title != own}}
    measured = [rows for rows in judged if MATHEMATICS not in rows]
    folded = [rows for rows in measured if claim_of(rows) in CELLS]
    lines = {}
    for rows in measured:
        claim = claim_of(rows)
        anchor, words, together = cards.name_anchor(claim), claim.claim, [rows]
        if claim in CELLS:
            anchor, words, together = cards.NUMBERS_ANCHOR, cards.NUMBERS, folded
        cells = "".join(_cell([each[title] for each in together] if title else []) for title in columns.values())
        lines[anchor] = f'<tr><th scope="row"><a href="#{anchor}">{escape(words)}</a></th>{cells}</tr>'
    caption = f"The {len(measured)} claims that a run decides, and what each run says."
    shown = f'<div id="claims-table">{_table(caption, ["claim", *columns], lines.values())}</div>'
    return shown if own else f"{shown}\n\n{PAPER[0].upper()}{PAPER[1:]} was not run here; `{paper.COMMAND}` makes it."


def numbers(judged: Iterable[Judged]) -> str:
    """The card of the numbers that Tables 1 and 2 print, in MyST: each has its row in a table that opens."""
    folded = [rows for rows in judged if claim_of(rows) in CELLS]
    claims, titles = [claim_of(rows) for rows in folded], list(folded[0])
    verdicts = [row.finding.verdict for rows in folded for row in rows.values()]
    criteria = " or ".join(dict.fromkeys(cards.plain(claim.criterion) for claim in claims))
    opened = _table("What the paper prints, and what each run has.", ["number, and its name", *titles], map(_number, folded))
    lines = [
        f"**{cards.NUMBERS}** *({claims[0].kind})*",
        "\n".join(f"- **{_counted([rows[title] for rows in folded])}** on {cards.plain(title)}" for title in titles),
        f"*Holds if:* {criteria}.",
        f"*Would be tested by:* {cards.code(claims[0].command)}" if NOT_TESTED in verdicts else "",
        f"*Place:* {cards.place(claims)}.",
        f"<details><summary>The {len(folded)} numbers</summary>{opened}</details>",
    ]
    body = "\n\n".join(filter(None, lines))
    return f"({cards.NUMBERS_ANCHOR})=\n````{{div}} claim {cards.colour(verdicts)}\n{body}\n````"


def filters(judged: Sequence[Judged]) -> str:
    """The form that filters the page, hidden until the script of the page, ``claims.js``, shows it."""
    claims = [claim_of(rows) for rows in judged]
    runs = next(list(rows) for rows in judged if MATHEMATICS not in rows)
    chapters = sorted({claim.chapter for claim in claims})
    fields: dict[str, dict[str, str]] = {
        "chapter": {name[:2]: f"{int(name[:2])}: {name[3:].replace('_', ' ')}" for name in chapters},
        "kind": {claim.kind: claim.kind for claim in claims},
        "role": {role(claim): role(claim) for claim in claims},
        "verdict": {cards.short(verdict): cards.said(verdict) for verdict in cards.ICONS},
        "run": {str(number): run for number, run in enumerate(runs)},
    }
    controls = ['<label>search <input type="search" name="text"></label>']
    for name, options in fields.items():
        chosen = "".join(f'<option value="{value}">{escape(words)}</option>' for value, words in options.items())
        controls.append(f'<label>{name} <select name="{name}"><option value="">all</option>{chosen}</select></label>')
    ending = '<button type="reset">show all</button> <output aria-live="polite"></output>'
    return f'<form id="claims-filter" aria-label="Filter the claims" hidden>{"".join(controls)}{ending}</form>'


def _table(name: str, heads: Iterable[str], lines: Iterable[str]) -> str:
    """A table with its name as caption, which scrolls in its own box where it is wider than a phone."""
    top = "".join(f'<th scope="col">{_breakable(head)}</th>' for head in heads)
    body = f"<caption>{name}</caption><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
    box = 'class="pst-scrollable-table-container" tabindex="0" role="region"'
    return f'<div {box} aria-label="{name}"><table class="table">{body}</table></div>'


def _breakable(name: str) -> str:
    """A name whose line may break behind its underscores and dots."""
    return escape(name).replace("_", "_<wbr>").replace(".", ".<wbr>")


def _cell(found: Sequence[Row]) -> str:
    """The verdict on one claim, or on several; none are those of a run that nobody has made."""
    if not found:
        return "<td>not run</td>"
    told = f' title="{escape(found[0].finding.evidence)}"' if len(found) == 1 else ""
    kind = cards.colour(row.finding.verdict for row in found)
    return f'<td class="{kind}"{told}>{_counted(found)}</td>'


def _counted(found: Sequence[Row]) -> str:
    """Verdicts in sign and word, and how many of each where there are several: ``✔ holds: 17, ✘ fails: 1``."""
    words = Counter(cards.said_of(row) for row in found)
    return ", ".join(word if len(found) == 1 else f"{word}: {count}" for word, count in words.items())


def _number(rows: Judged) -> str:
    """A row of the table of numbers: the claim with its name, on each run the verdict with the numbers."""
    claim = claim_of(rows)
    cells = "".join(
        f'<td class="{cards.colour([row.finding.verdict])}">{cards.said_of(row)}: {escape(row.finding.evidence)}</td>'
        for row in rows.values()
    )
    name = f'<code title="{escape(tested_by(claim))}">{escape(claim.name)}</code>'
    row = f'<tr id="{cards.name_anchor(claim)}" class="{cards.classes(rows)}">'
    return f'{row}<th scope="row">{escape(claim.claim)} {name}</th>{cells}</tr>'
