"""The ledger of claims as pages of the book show it: a card for each claim, in MyST, by section of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gradcampp.claims.claim import NOT_TESTED, Claim
from gradcampp.claims.ledger import Row, tested_by

ICONS = {"holds": "✔", "sharpened": "✚", "fails": "✘", NOT_TESTED: "○"}  # each with its word: never colour alone


COMPANION = "companion"


THEOREMS = {
    1: "thm-1-tame",
    2: "thm-2-shrinkage",
    3: "thm-3-sandwich",
    4: "thm-4-family",
    5: "thm-5-pooled",
    6: "thm-6-post-softmax",
    7: "thm-7-grid",
}  # their labels in the chapters


_KINDS = (("eqs?", "eq"), ("Figures?", "fig"), ("Tables?", "tab"))


_TWICE = {("03_derivation", "2.2"): "sec-paper-2-2-derivation"}  # the one section that two chapters share


def anchors(claim: Claim) -> list[str]:
    """The places of the book that a claim is about, the section first: ``["sec-paper-3-3", "fig-paper-3", "fig-paper-4"]``.

    A theorem of ours has one place, ``thm-3-sandwich``.
    """
    if claim.place == COMPANION:
        return [THEOREMS[int(claim.name.split("-")[1])]]
    found = [_TWICE.get((claim.chapter, name), f"sec-paper-{name.lower().replace('.', '-')}") for name in _sections(claim.place)]
    for words, kind in _KINDS:
        for numbers in re.findall(rf"\b{words}\.? (\d+(?: and \d+)?)", claim.place):
            found += [f"{kind}-paper-{number}" for number in numbers.split(" and ")]
    return found


def _sections(place: str) -> list[str]:
    """The sections that a place names: ``4 and 5`` are two."""
    return place.partition(",")[0].removeprefix("Appendix ").split(" and ")


def by_section(entries: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of the ledger by section of the paper, in its order: the appendix and what is ours last."""
    found: dict[str, list[Row]] = {}
    for entry in entries:
        found.setdefault(_sections(entry.claim.place)[0], []).append(entry)
    return {name: found[name] for name in sorted(found, key=lambda name: (name == COMPANION, name))}


def title(section: str) -> str:
    """The heading of a group of :func:`by_section`."""
    if section == COMPANION:
        return "Theorems of this companion"
    return f"Claims of {'Appendix A' if section == 'A' else f'§ {section}'}"


def name_anchor(claim: Claim) -> str:
    """The anchor of a claim's own card: ``claim-eq-7``."""
    words = claim.name.lower().replace("++", "-plusplus").replace("+", "-plus")
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", words)


def card(entry: Row) -> str:
    """One claim: verdict in sign and word, what is claimed, what decided, where the book treats it, and what tests it."""
    claim, verdict = entry.claim, entry.finding.verdict
    lines = [
        f"**{ICONS[verdict]} {verdict}**" + (f" (expected: {entry.expected})" if entry.deviates else ""),
        f"{_plain(claim.claim)} *({claim.kind})*",
    ]
    if claim.criterion:
        lines.append(f"*Holds if:* {_plain(claim.criterion)}.")
    lines.append(f"*Seen:* {_code(entry.finding.evidence)}")
    if verdict == NOT_TESTED and claim.command:
        lines.append(f"*Would be tested by:* {_code(claim.command)}")
    lines.append(
        f"*Place:* {', '.join(map(_link, anchors(claim)))}. *Name and test:* {{source}}`{claim.name} <{tested_by(claim)}>`"
    )
    body = "\n\n".join(lines)
    return f"({name_anchor(claim)})=\n````{{div}} claim claim-{verdict.split()[0]}\n{body}\n````"


def _link(anchor: str) -> str:
    role = {"eq": "eq", "fig": "numref", "tab": "numref", "sec": "ref", "thm": "prf:ref"}[anchor.partition("-")[0]]
    return f"{{{role}}}`{anchor}`"


def _plain(text: str) -> str:
    """A sentence whose own signs are not taken for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|^~])", r"\\\1", text.rstrip("."))


def _code(text: str) -> str:
    return f"``{text}``" if "`" in text else f"`{text}`"


def section(name: str, entries: Iterable[Row]) -> str:
    """A heading and the cards of a group of :func:`by_section`."""
    return "\n\n".join([f"## {title(name)}", *map(card, entries)])
