"""The ledger: every claim of the paper, and our theorems, with the verdict that its check computes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from gradcampp.claims import alphas, beyond, derivation, methods, metric, premises, results
from gradcampp.claims.claim import CANNOT_TELL, NOT_TESTED, Claim, Finding, Role, UntestedError, Verdict, is_experiment, several
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write
from gradcampp.networks import mini
from gradcampp.performance import UndefinedError, summaries

# In the order of the source, and by section; those of several scores or cells are a tuple.
_MODULES = (methods, derivation, premises, alphas, results, metric, beyond)
_VALUES = (value for module in _MODULES for value in vars(module).values())
_ALL = sorted((one for value in _VALUES for one in several(value) if isinstance(one, Claim)), key=attrgetter("listed_in"))
PROVED: tuple[Claim, ...] = tuple(one for one in _ALL if one.kind != "empirical")
MEASURED: tuple[Claim, ...] = tuple(one for one in _ALL if one.kind == "empirical")
CLAIMS: tuple[Claim, ...] = (*PROVED, *MEASURED)
VERDICTS: tuple[Verdict, ...] = ("holds", "sharpened", "fails", CANNOT_TELL, NOT_TESTED)  # as they are shown
MATHEMATICS = "mathematics"  # in the place of a run, where a claim needs none


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
        with suppress(UndefinedError):  # which leaves it to the claims
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
    except UndefinedError as reason:
        finding = Finding(CANNOT_TELL, str(reason))
    return Row(claim, finding, claim.expected if is_embedded_default(run) else None)


def across(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The verdict of every empirical claim on several runs: a row for each claim, by name, and a column for each run.

    Each cell is a :class:`Row`.

    Raises:
        InputError: as :func:`ledger`.
    """
    return pd.DataFrame({name: {row.claim.name: row for row in ledger(run, MEASURED)} for name, run in runs.items()})


def in_words(rows: Mapping[str, Row]) -> str:
    """The verdicts of one claim on several runs, by title, as a phrase: ``holds on A and B; on C it cannot be told``."""
    verdicts = list(dict.fromkeys(row.finding.verdict for row in rows.values()))
    said = {CANNOT_TELL: "cannot be told", NOT_TESTED: "is not tested"}
    phrases: list[str] = []
    for verdict in verdicts:
        titles = [title for title, row in rows.items() if row.finding.verdict == verdict]
        words, where = said.get(verdict, verdict), f"on {listed(titles)}"
        phrases.append(f"{where} it {words}" if phrases else f"{words} {where}")
    return "; ".join(phrases)


def listed(titles: list[str]) -> str:
    """Titles as a phrase: ``A, B and C``."""
    return " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))


Judged = Mapping[str, Row]  # one claim: its rows by run, or one row by MATHEMATICS


def judge(runs: Mapping[str, Run]) -> list[Judged]:
    """Check every claim, once where no run is needed, on each of the runs where it is.

    Raises:
        InputError: as :func:`ledger`.
    """
    proved: list[Judged] = [{MATHEMATICS: row} for row in ledger(claims=PROVED)]
    return proved + [dict(rows) for _, rows in across(runs).iterrows()]


def claim_of(rows: Judged) -> Claim:
    """The claim that the rows are about."""
    return next(iter(rows.values())).claim


def role(claim: Claim) -> Role:
    """The role that a claim is counted by: a theorem of ours also where a run repeats it."""
    return "theorem" if claim.theorem is not None else claim.role


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


def table_across(judged: Iterable[Judged]) -> str:
    """The verdicts as text, a column for what needs no run and one for each run."""
    found = list(judged)
    runs = list(dict.fromkeys(run for rows in found for run in rows))
    lines = [[claim_of(rows).name, *(rows[run].finding.verdict if run in rows else "" for run in runs)] for rows in found]
    return tabulate(lines, ["claim", *runs], maxcolwidths=[26, *[24] * len(runs)], disable_numparse=True)


def counts(entries: Iterable[Row]) -> dict[str, int]:
    """The number of claims by verdict."""
    verdicts = [entry.finding.verdict for entry in entries]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def counts_by_role(judged: Iterable[Judged]) -> pd.DataFrame:
    """Claims, definitions and theorems counted apart: a row for each role by run, a column for each verdict."""
    found = [(run, role(row.claim), row.finding.verdict) for rows in judged for run, row in rows.items()]
    frame = pd.DataFrame(found, columns=["judged on", "role", "verdict"])
    runs = frame["judged on"].unique()
    counted = frame.value_counts().unstack(fill_value=0).reindex(columns=list(VERDICTS), fill_value=0)
    return counted.reindex([key for key in itertools.product(runs, get_args(Role)) if key in counted.index])


def tested_by(claim: Claim) -> str:
    """The test of a claim, as pytest takes it."""
    function = "test_verdict_on_records" if claim.kind == "empirical" else "test_verdict"
    return f"tests/test_claims.py::{function}[{claim.name}]"


def write(entries: Iterable[Row], file: Path) -> None:
    """Write the ledger as JSON, a dictionary for each claim, whole or not at all."""
    _write([_about(entry.claim) | _found(entry) for entry in entries], file)


def write_across(judged: Iterable[Judged], file: Path) -> None:
    """Write the ledger of several runs as JSON, a dictionary for each claim with its findings, whole or not at all.

    Each finding says its run, which is null where a claim needs none.
    """
    content = []
    for rows in judged:
        findings = [{"run": None if run == MATHEMATICS else run} | _found(row) for run, row in rows.items()]
        content.append(_about(claim_of(rows)) | {"findings": findings})
    _write(content, file)


def _about(claim: Claim) -> dict[str, Any]:
    keys = ("name", "place", "claim", "kind", "criterion", "command", "chapter")
    return {key: getattr(claim, key) for key in keys} | {"role": role(claim), "test": tested_by(claim)}


def _found(row: Row) -> dict[str, Any]:
    return {"verdict": row.finding.verdict, "evidence": row.finding.evidence, "expected": row.expected}


def _write(content: list[dict[str, Any]], file: Path) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
