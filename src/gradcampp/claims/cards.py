"""The ledger of claims as pages of the book show it: a card for each claim, in MyST, by section of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from gradcampp.claims.claim import DERIVATION, NOT_TESTED, Claim, several
from gradcampp.claims.ledger import Row, tested_by

ICONS = {"holds": "✔", "sharpened": "✚", "fails": "✘", NOT_TESTED: "○"}  # each with its word: never colour alone

THEOREMS = (  # labels in the chapters
    "1-tame", "2-shrinkage", "3-sandwich", "4-family", "5-pooled", "6-post-softmax", "7-grid", "8-identical",
)  # fmt: skip


def anchors(claim: Claim) -> list[str]:
    """The places of the book that a claim is about, the section first: ``["sec-paper-3-3", "fig-paper-3", "fig-paper-4"]``.

    A theorem of ours has one place, ``thm-3-sandwich``.
    """
    if claim.theorem is not None:
        return [f"thm-{THEOREMS[claim.theorem - 1]}"]
    found = [f"sec-paper-{section.lower().replace('.', '-')}" for section in several(claim.section)]
    if claim.chapter == DERIVATION:  # the one chapter that shares a section, 2.2, with another
        found[0] += "-derivation"
    for kind, numbers in (("eq", claim.equation), ("fig", claim.figure), ("tab", claim.table)):
        found += [f"{kind}-paper-{number}" for number in several(numbers)]
    return found


def by_section(entries: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of the ledger by section of the paper, in its order: the appendix and what is ours last."""
    listed_in = attrgetter("claim.listed_in")
    return {name: list(group) for name, group in groupby(sorted(entries, key=listed_in), key=listed_in)}


def name_anchor(claim: Claim) -> str:
    """The anchor of a claim's own card: ``claim-eq-7``."""
    words = claim.name.lower().replace("++", "-plusplus").replace("+", "-plus")
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", words)


def card(entry: Row) -> str:
    """One claim: verdict in sign and word, the claim itself, what decided, where the book treats it, and what tests it."""
    claim, verdict = entry.claim, entry.finding.verdict
    place = ", ".join(map(_link, anchors(claim)))
    lines = [
        f"**{ICONS[verdict]} {verdict}**" + (f" (expected: {entry.expected})" if entry.deviates else ""),
        f"{_plain(claim.claim)} *({claim.kind})*",
        f"*Holds if:* {_plain(claim.criterion)}." if claim.criterion else "",
        f"*Seen:* {_code(entry.finding.evidence)}",
        f"*Would be tested by:* {_code(claim.command)}" if verdict == NOT_TESTED and claim.command else "",
        f"*Place:* {place}. *Name and test:* {{source}}`{claim.name} <{tested_by(claim)}>`",
    ]
    body = "\n\n".join(filter(None, lines))
    return f"({name_anchor(claim)})=\n````{{div}} claim claim-{verdict.split()[0]}\n{body}\n````"


def _link(anchor: str) -> str:
    role = {"eq": "eq", "fig": "numref", "tab": "numref", "sec": "ref", "thm": "prf:ref"}[anchor.partition("-")[0]]
    return f"{{{role}}}`{anchor}`"


def _plain(text: str) -> str:
    """A sentence whose own signs are not taken for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|^~])", r"\\\1", text.rstrip("."))


def _code(text: str) -> str:
    return f"``{text}``" if "`" in text else f"`{text}`"
