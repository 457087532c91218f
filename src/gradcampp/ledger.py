"""What a claim is, what its checker sees, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from gradcampp import records
from gradcampp.accumulate import Stream
from gradcampp.config import Scores

Kind = Literal["proof", "numeric", "empirical"]
Verdict = Literal["holds", "fails", "sharpened", "not tested by this profile"]
NOT_TESTED: Verdict = "not tested by this profile"


@dataclass(frozen=True)
class Run:
    """A finished run, as the checkers see it.

    Attributes:
        folder: the run folder.
        rows: its records.
        alphas: its streams of alphas.
        manifest: its experiment, counts and versions.
    """

    folder: Path
    rows: pd.DataFrame
    alphas: Mapping[Scores, Stream]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What a checker found.

    Attributes:
        verdict: computed, never written by hand.
        evidence: the numbers or expressions that decided, in one line.
    """

    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper or of ours.

    Attributes:
        name: its identity, as ``3.1.1-underdetermined``.
        place: where the paper has it, or ``companion``.
        claim: in our words.
        kind: how it can be decided.
        check: what decides; empirical checks get a run, the others none.
        chapter: of the book, the file name of the notebook.
        criterion: when an empirical claim holds, committed with the code.
        command: what would test it, where the run in hand cannot.
    """

    name: str
    place: str
    claim: str
    kind: Kind
    check: Callable[[], Finding] | Callable[[Run], Finding]
    chapter: str
    criterion: str = ""
    command: str = ""


def read_run(folder: Path) -> Run:
    """A run by its own folder, or by the folder in which ``gradcampp reproduce`` put it.

    Raises:
        InputError: if there is no finished run, or it cannot be read.
    """
    inner = folder / "run"
    run = inner if (inner / "manifest.json").exists() and not (folder / "manifest.json").exists() else folder
    return Run(run, records.read_records(run), records.read_alphas(run), records.read_manifest(run))


def found(holds: bool, evidence: str, sharpened: bool = False) -> Finding:
    """A verdict from a comparison: ``sharpened`` where the claim is true and the checker shows more."""
    return Finding(("sharpened" if sharpened else "holds") if holds else "fails", evidence)
