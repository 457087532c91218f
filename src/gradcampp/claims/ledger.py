"""The ledger: every claim of the paper, and our theorems, with the verdict that its checker computes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from tabulate import tabulate
from tqdm import tqdm

from gradcampp.claims.claim import NOT_TESTED, Claim, Finding
from gradcampp.claims.derivation import PROVED
from gradcampp.claims.results import MEASURED
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write
from gradcampp.networks import mini

CLAIMS: tuple[Claim, ...] = (*PROVED, *MEASURED)


NO_RUN = "no run given"


@dataclass(frozen=True)
class Row:
    """A row of the ledger.

    Attributes:
        claim: what is claimed, and how it is checked.
        finding: verdict and evidence.
        expected: the committed verdict; None where nothing is expected of this run.
    """

    claim: Claim
    finding: Finding
    expected: str | None

    @property
    def deviates(self) -> bool:
        """Whether the verdict is not the expected one."""
        return self.expected is not None and self.finding.verdict != self.expected


def ledger(run: Run | None = None, claims: Iterable[Claim] = CLAIMS) -> list[Row]:
    """Check every claim.

    Args:
        run: what the empirical claims are judged on; without it they are not tested.
        claims: which; all by default.

    Raises:
        InputError: if the run has too few images over the threshold.
    """
    return [_entry(claim, run) for claim in tqdm(list(claims), unit="claim", desc="claims", disable=None)]


def _entry(claim: Claim, run: Run | None) -> Row:
    if claim.kind != "empirical":
        return Row(claim, cast(Callable[[], Finding], claim.check)(), _expected()["always"][claim.name])
    if run is None:
        return Row(claim, Finding(NOT_TESTED, NO_RUN), NOT_TESTED)
    return Row(claim, cast(Callable[[Run], Finding], claim.check)(run), _expected_of(run).get(claim.name))


def _expected() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("gradcampp").joinpath("resources", "expected_claims.toml").read_text("utf-8"))


def _expected_of(run: Run) -> dict[str, str]:
    """The committed verdicts of a run: there are some for the embedded default only, with all its images."""
    experiment = run.manifest["experiment"]
    default = {"model": "mini", "weights": mini.SHA256, "layer": mini.LAYER, "threshold": 0.5, "limit": None, "seed": 0}
    embedded = run.manifest["images"] == 1000 and all(experiment.get(key) == value for key, value in default.items())
    return _expected()["mini"] if embedded else {}


def table(entries: Iterable[Row], style: str = "simple") -> str:
    """The ledger as text.

    Args:
        entries: rows of the ledger.
        style: a format of tabulate.
    """
    rows = [
        {
            "claim": entry.claim.name,
            "place": entry.claim.place,
            "in our words": entry.claim.claim + (f" Criterion: {entry.claim.criterion}." if entry.claim.criterion else ""),
            "kind": entry.claim.kind,
            "verdict": entry.finding.verdict + (f" (EXPECTED: {entry.expected})" if entry.deviates else ""),
            "evidence": _evidence(entry),
        }
        for entry in entries
    ]
    return tabulate(rows, headers="keys", tablefmt=style, maxcolwidths=[26, 16, 44, None, 14, 60], disable_numparse=True)


def _evidence(entry: Row) -> str:
    """What decided; for a claim that was not tested, what would."""
    told = f"; tested by: {entry.claim.command}" if entry.finding.verdict == NOT_TESTED else ""
    return entry.finding.evidence + told


def counts(entries: Iterable[Row]) -> dict[str, int]:
    """How many claims got each verdict."""
    verdicts = [entry.finding.verdict for entry in entries]
    return {verdict: verdicts.count(verdict) for verdict in ("holds", "sharpened", "fails", NOT_TESTED)}


def tested_by(claim: Claim) -> str:
    """The test of a claim, as pytest takes it."""
    function = "test_verdict_on_records" if claim.kind == "empirical" else "test_verdict"
    return f"tests/test_claims.py::{function}[{claim.name}]"


def rows(entries: Iterable[Row]) -> list[dict[str, Any]]:
    """The ledger as plain dictionaries, one a claim: the content of ``claims.json``."""
    return [
        {
            "name": entry.claim.name,
            "place": entry.claim.place,
            "claim": entry.claim.claim,
            "kind": entry.claim.kind,
            "criterion": entry.claim.criterion,
            "verdict": entry.finding.verdict,
            "evidence": entry.finding.evidence,
            "expected": entry.expected,
            "command": entry.claim.command,
            "chapter": entry.claim.chapter,
            "test": tested_by(entry.claim),
        }
        for entry in entries
    ]


def write(entries: Iterable[Row], file: Path) -> None:
    """Write the ledger as JSON, whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(rows(entries), indent=2, ensure_ascii=False) + "\n", "utf-8")
