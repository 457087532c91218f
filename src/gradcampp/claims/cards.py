"""The ledger of claims as pages of the book show it: a card for each claim, in MyST, by section of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, groupby

from gradcampp.claims.claim import CANNOT_TELL, COMPANION, DERIVATION, NOT_TESTED, Claim, Verdict, several
from gradcampp.claims.ledger import MATHEMATICS, Judged, Row, claim_of, role, tested_by
from gradcampp.claims.results import CELLS

# Each with its word: never colour alone.
ICONS: dict[Verdict, str] = {"holds": "✔", "sharpened": "✚", "fails": "✘", CANNOT_TELL: "?", NOT_TESTED: "○"}

THEOREMS = (  # labels in the chapters
    "1-tame", "2-shrinkage", "3-sandwich", "4-family", "5-pooled", "6-post-softmax", "7-grid", "8-identical",
)  # fmt: skip
NUMBERS, NUMBERS_ANCHOR = "Each of the numbers of Tables 1 and 2 comes out again.", "claim-numbers-of-the-tables"


def anchors(claim: Claim) -> list[str]:
    """The places of the book that a claim is about, the section first: ``["sec-paper-3-3", "fig-paper-3", "fig-paper-4"]``.

    A theorem of ours has one place, ``thm-3-sandwich``; another claim of ours has no more than its chapter.
    """
    if claim.theorem is not None:
        return [f"thm-{THEOREMS[claim.theorem - 1]}"]
    if claim.section == COMPANION:
        return []
    found = [f"sec-paper-{section.lower().replace('.', '-')}" for section in several(claim.section)]
    if claim.chapter == DERIVATION:  # the one chapter that shares a section, 2.2, with another
        found[0] += "-derivation"
    for kind, numbers in (("eq", claim.equation), ("fig", claim.figure), ("tab", claim.table)):
        found += [f"{kind}-paper-{number}" for number in several(numbers)]
    return found


def by_section(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    """The claims of the ledger by section of the paper, in its order: the appendix and what is ours last."""

    def listed_in(rows: Judged) -> str:
        return claim_of(rows).listed_in

    return {name: list(group) for name, group in groupby(sorted(judged, key=listed_in), key=listed_in)}


def name_anchor(claim: Claim) -> str:
    """The anchor of a claim's own card, or of its row among the numbers of the tables: ``claim-eq-7``."""
    words = claim.name.lower().replace("++", "-plusplus").replace("+", "-plus")
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", words)


def links(claims: Iterable[Claim]) -> str:
    """A list of claims in MyST, each a link to its card; the numbers of the tables are one."""
    found = {}
    for claim in claims:
        anchor, words = (NUMBERS_ANCHOR, NUMBERS) if claim in CELLS else (name_anchor(claim), claim.claim)
        found[anchor] = f"- [{plain(words)}](#{anchor})"
    return "\n".join(found.values())


def said(verdict: Verdict) -> str:
    """A verdict in sign and word: ``✔ holds``."""
    return f"{ICONS[verdict]} {verdict.removesuffix(' by this profile')}"


def said_of(row: Row) -> str:
    """A verdict as :func:`said`, and the one that was expected where it deviates."""
    return said(row.finding.verdict) + (f" (expected: {row.expected})" if row.deviates else "")


def classes(rows: Judged) -> str:
    """The classes by which the page filters a claim: chapter, kind, role, and each verdict with its run's number.

    ``claim-entry chapter-06 kind-empirical role-claim on0-holds on1-fails``; ``on-holds`` where no run is needed.
    """
    claim = claim_of(rows)
    found = ["claim-entry", f"chapter-{claim.chapter[:2]}", f"kind-{claim.kind}", f"role-{role(claim)}"]
    for number, (run, row) in enumerate(rows.items()):
        found.append(f"on{'' if run == MATHEMATICS else number}-{short(row.finding.verdict)}")
    return " ".join(found)


def short(verdict: Verdict) -> str:
    """The first word of a verdict, which tells it from the others."""
    return verdict.partition(" ")[0]


def colour(verdicts: Iterable[Verdict]) -> str:
    """The class that colours a card: of its verdict, or of none where runs that tested it disagree."""
    found = set(verdicts)
    tested = found - {NOT_TESTED} or found
    return f"claim-{short(tested.pop())}" if len(tested) == 1 else "claim-mixed"


def cards(group: Iterable[Judged], numbers: str) -> str:
    """The cards of a section; ``numbers`` is the card in which the numbers of the tables are folded."""
    shown = {numbers if claim_of(rows) in CELLS else card(rows): None for rows in group}
    return "\n\n".join(shown)


def card(rows: Judged) -> str:
    """One claim: the claim itself, its verdicts with what decided, the criterion, where the book treats it, what tests it."""
    claim, verdicts = claim_of(rows), [row.finding.verdict for row in rows.values()]
    lines = [
        f"**{plain(claim.claim)}.** *({', '.join(_kinds(claim))})*",
        _verdicts(rows),
        f"*Holds if:* {plain(claim.criterion)}." if claim.criterion else "",
        f"*Would be tested by:* {code(claim.command)}" if NOT_TESTED in verdicts and claim.command else "",
        f"*Place:* {place([claim])}. *Name and test:* {{source}}`{claim.name} <{tested_by(claim)}>`",
    ]
    body = "\n\n".join(filter(None, lines))
    return f"({name_anchor(claim)})=\n````{{div}} claim {colour(verdicts)} {classes(rows)}\n{body}\n````"


def _kinds(claim: Claim) -> list[str]:
    return [claim.kind] if role(claim) == "claim" else [role(claim), claim.kind]


def _verdicts(rows: Judged) -> str:
    """The verdicts of a claim, those that are the same for the same reason on several runs together."""
    runs: dict[tuple[str, str], list[str]] = {}
    for run, row in rows.items():
        runs.setdefault((said_of(row), row.finding.evidence), []).append(run)
    if MATHEMATICS in rows:
        ((word, evidence),) = runs
        return f"**{word}:** {code(evidence)}"
    return "\n".join(f"- **{word}** on {plain('; '.join(names))}: {code(evidence)}" for (word, evidence), names in runs.items())


def place(claims: Iterable[Claim]) -> str:
    """Where the book treats claims, as links."""
    found = [list(map(_link, anchors(claim))) or [f"{{doc}}`{claim.chapter}`"] for claim in claims]
    return ", ".join(dict.fromkeys(chain.from_iterable(found)))


def plain(text: str) -> str:
    """A sentence whose own signs are not taken for Markdown, without its full stop; lambda is its letter, as in the chapters."""
    return re.sub(r"([\\`*_{}\[\]<>$|^~])", r"\\\1", text.rstrip(".")).replace("lambda", "λ")


def code(text: str) -> str:
    """Text as code, also where it has a backtick."""
    return f"``{text}``" if "`" in text else f"`{text}`"


def _link(anchor: str) -> str:
    role = {"eq": "eq", "fig": "numref", "tab": "numref", "sec": "ref", "thm": "prf:ref"}[anchor.partition("-")[0]]
    return f"{{{role}}}`{anchor}`"
