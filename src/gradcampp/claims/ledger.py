"""The ledger: every claim of the paper, and our theorems, with the verdict that its check computes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from gradcampp.claims import alphas, beyond, derivation, methods, metric, premises, results
from gradcampp.claims.claim import NOT_TESTED, Claim, Finding, UntestedError, Verdict, is_experiment, several
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write
from gradcampp.networks import mini
from gradcampp.performance import summaries

# In the order of the source, and by section; those of several scores or cells are a tuple.
_MODULES = (methods, derivation, premises, alphas, results, metric, beyond)
_VALUES = (value for module in _MODULES for value in vars(module).values())
_ALL = sorted((one for value in _VALUES for one in several(value) if isinstance(one, Claim)), key=attrgetter("listed_in"))
PROVED: tuple[Claim, ...] = tuple(one for one in _ALL if one.kind != "empirical")
MEASURED: tuple[Claim, ...] = tuple(one for one in _ALL if one.kind == "empirical")
CLAIMS: tuple[Claim, ...] = (*PROVED, *MEASURED)


@dataclass(frozen=True)
class Row:
    """A row of the ledger."""

    claim: Claim
    finding: Finding
    expected: Verdict | None  # committed; None where nothing is expected of this run

    @property
    def deviates(self) -> bool:
        """True where a verdict was expected, and another one was found."""
        return self.expected is not None and self.finding.verdict != self.expected


def ledger(run: Run | None = None, claims: Iterable[Claim] = CLAIMS) -> list[Row]:
    """Check claims, the empirical ones on a run; without it they are not tested.

    Raises:
        InputError: if the run is not finished, cannot be read, or has too few images over the threshold.
    """
    if run is not None:
        summaries(run.records)  # a run that cannot be used is refused at once
    return [_row(claim, run) for claim in tqdm(list(claims), unit="claim", desc="claims", disable=None)]


def _row(claim: Claim, run: Run | None) -> Row:
    if claim.kind != "empirical":
        return Row(claim, claim.check(), claim.expected)
    if run is None:
        return Row(claim, Finding(NOT_TESTED, "no run given"), NOT_TESTED)
    try:
        finding = claim.check(run)
    except UntestedError as reason:
        finding = Finding(NOT_TESTED, str(reason))
    return Row(claim, finding, claim.expected if is_embedded_default(run) else None)


def across(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The verdict of every empirical claim on several runs: a row for each claim, by name, and a column for each run.

    Each cell is a :class:`Row`.

    Raises:
        InputError: as :func:`ledger`.
    """
    return pd.DataFrame({name: {row.claim.name: row for row in ledger(run, MEASURED)} for name, run in runs.items()})


def in_words(rows: Mapping[str, Row]) -> str:
    """The verdicts of one claim on several runs, by title, as a phrase: ``holds on A and B, fails on C``."""
    verdicts = list(dict.fromkeys(row.finding.verdict for row in rows.values()))
    phrases = []
    for verdict in verdicts:
        titles = [title for title, row in rows.items() if row.finding.verdict == verdict]
        listed = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
        phrases.append(f"{'is ' if verdict == NOT_TESTED else ''}{verdict} on {listed}")
    return ", ".join(phrases)


def is_embedded_default(run: Run) -> bool:
    """True for the run of which verdicts are committed: the embedded network on all of its scenes, nothing changed."""
    return is_experiment(run, 1000, model="mini", weights=mini.SHA256, layer=mini.LAYER, threshold=0.5, limit=None, seed=0)


def table(entries: Iterable[Row]) -> str:
    """The ledger as text."""
    lines = []
    for entry in entries:
        one, (verdict, evidence) = entry.claim, (entry.finding.verdict, entry.finding.evidence)
        words = f"{one.claim} Criterion: {one.criterion}." if one.criterion else one.claim
        told = f"{evidence}; tested by: {one.command}" if verdict == NOT_TESTED else evidence
        said = f"{verdict} (EXPECTED: {entry.expected})" if entry.deviates else verdict
        lines.append((one.name, one.place, words, one.kind, said, told))
    headers = ("claim", "place", "in our words", "kind", "verdict", "evidence")
    return tabulate(lines, headers, maxcolwidths=[26, 16, 44, None, 14, 60], disable_numparse=True)


def counts(entries: Iterable[Row]) -> dict[str, int]:
    """The number of claims by verdict."""
    verdicts = [entry.finding.verdict for entry in entries]
    return {verdict: verdicts.count(verdict) for verdict in ("holds", "sharpened", "fails", NOT_TESTED)}


def tested_by(claim: Claim) -> str:
    """The test of a claim, as pytest takes it."""
    function = "test_verdict_on_records" if claim.kind == "empirical" else "test_verdict"
    return f"tests/test_claims.py::{function}[{claim.name}]"


def write(entries: Iterable[Row], file: Path) -> None:
    """Write the ledger as JSON, a dictionary for each claim, whole or not at all."""
    content = [
        {key: getattr(entry.claim, key) for key in ("name", "place", "claim", "kind", "criterion", "command", "chapter")}
        | {"verdict": entry.finding.verdict, "evidence": entry.finding.evidence, "expected": entry.expected}
        | {"test": tested_by(entry.claim)}
        for entry in entries
    ]
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
