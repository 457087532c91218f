"""The ledger: every verdict is computed, and would be another if the mathematics or the records were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gradcampp import cam, cli, paper
from gradcampp.algebra import derivation
from gradcampp.algebra import derivation as symbolic
from gradcampp.cam import SCORES, Scores, column
from gradcampp.claims import derivation as claims_proved
from gradcampp.claims import ledger
from gradcampp.claims.claim import NOT_TESTED, Claim, Finding
from gradcampp.claims.derivation import PROVED
from gradcampp.claims.results import MEASURED
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import Histogram, histogram
from gradcampp.evaluation.records import Run, read_run
from gradcampp.networks import mini

IMAGES = 4219
NAMES = [claim.name for claim in ledger.CLAIMS]


def correlated(generator: np.random.Generator, correlation: float) -> tuple[Any, Any]:
    """Two samples of mean 0 and deviation 1 with an exact correlation, the second one skewed."""
    first, second = generator.normal(size=IMAGES), generator.normal(size=IMAGES) + generator.exponential(size=IMAGES)
    first = (first - first.mean()) / first.std(ddof=1)
    second = second - second.mean()
    second -= first * (first @ second) / (first @ first)
    second /= second.std(ddof=1)
    return first, correlation * first + (1 - correlation**2) ** 0.5 * second


def made_up(tmp_path: Path, as_in_the_paper: bool) -> Run:
    """A run of the paper's experiment in which everything is as the paper says, or nothing is."""
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"image": [f"0/{index}.png" for index in range(IMAGES)]})
    for scores in SCORES:
        plus, over = paper.CELLS[scores, paper.PAIRS[1]], paper.CELLS[scores, paper.PAIRS[2]]
        whole = paper.CELLS[scores, paper.PAIRS[0]]
        correlation = (whole.std**2 - plus.std**2 - over.std**2) / (2 * plus.std * over.std)
        first, second = correlated(generator, correlation)
        base = np.full(IMAGES, -3.0)
        gains = (plus.mean + plus.std * first, over.mean + over.std * second)
        if not as_in_the_paper:
            gains = (-0.6 + 0.1 * first, 0.3 + (2.0 if scores == "pre" else 3.0) * second)
            gains = (gains[0], gains[1] + (0.2 if scores == "post" else 0))
        rows[column(scores, "gradcam")] = np.exp(base)
        rows[column(scores, "gradcam+")] = np.exp(base + gains[0])
        rows[column(scores, "gradcam++")] = np.exp(base + gains[0] + gains[1])
        rows[f"{scores}_alpha_min"], rows[f"{scores}_alpha_max"] = (-100.0, 50.0) if as_in_the_paper else (0.4, 0.6)
        rows[f"{scores}_alpha_max_positive"] = 0.5 if as_in_the_paper else 0.5000001
        rows[f"{scores}_certificate"] = 0.2
        rows[f"{scores}_difference"] = 0.05 if as_in_the_paper else 0.3
    values = np.r_[np.linspace(0.45, 0.55, 1000), -1398101.4, 559240.56] if as_in_the_paper else np.linspace(0.7, 0.9, 1000)
    alphas: dict[Scores, Histogram] = dict.fromkeys(SCORES, histogram(torch.tensor(values)))
    recall, pointing = (0.01, 0.8) if as_in_the_paper else (-0.01, 0.1)
    gain = {"scores": ["pre"], "metric": ["instance_recall"], "difference": [recall], "low": [recall], "high": [recall], "n": [9]}
    found = [
        {"metric": "pointing_game", "method": "gradcam", "instances": 1, "mean": pointing},
        {"metric": "instance_recall", "method": "gradcam", "instances": 1, "mean": 1.0},  # one object: nothing to compare
        {"metric": "instance_recall", "method": "gradcam++", "instances": 1, "mean": 1.0},
        {"metric": "instance_recall", "method": "gradcam", "instances": 2, "mean": 0.7},
        {"metric": "instance_recall", "method": "gradcam++", "instances": 2, "mean": 0.8},
        {"metric": "instance_recall", "method": "gradcam", "instances": 3, "mean": 0.7},
        {"metric": "instance_recall", "method": "gradcam++", "instances": 3, "mean": 0.7 + 10 * recall},
    ]
    found = [row | {"scores": "pre", "low": row["mean"], "high": row["mean"], "n": 9} for row in found]
    pd.DataFrame(gain).to_csv(tmp_path / "localisation_gain.csv")
    pd.DataFrame(found).to_csv(tmp_path / "localisation.csv")
    manifest = {
        "images": 10_000,
        "over_threshold": 4300 if as_in_the_paper else 5000,
        "data": {"folder": "imagenetv2-matched-frequency-format-val"},
        "experiment": {"model": "vgg16", "layer": "features.29", "threshold": 0.5, "limit": None, "seed": None, "weights": ""},
    }
    return Run(tmp_path / "run", rows, alphas, manifest)


def test_names_are_unique_and_every_part_of_the_paper_is_there() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 30 + 7
    places = " ".join(claim.place for claim in ledger.CLAIMS)
    for number in range(1, 20):
        assert f"eq. {number}" in places or number in (5, 6), number
    assert "eqs 5 and 6" in places
    for part in (
        "3.1.1",
        "3.1.2",
        "3.1.3",
        "3.1.4",
        "3.1.5",
        "3.2",
        "3.3",
        "3.4",
        "Appendix A",
        "Table 1",
        "Table 2",
        "Figure 6",
    ):
        assert part in places, part
    entries = [claim for claim in ledger.CLAIMS if claim.name.startswith("table-") and claim.name[6:7] in "12" and claim.command]
    assert len([claim for claim in entries if "narrowest" not in claim.name]) == 18  # numbers in Tables 1 and 2


def test_nothing_is_expected_of_claims_that_do_not_exist() -> None:
    expected = ledger._expected()
    assert expected["always"].keys() == {claim.name for claim in PROVED}
    assert expected["mini"].keys() == {claim.name for claim in MEASURED}


@pytest.mark.parametrize("claim", PROVED, ids=lambda claim: claim.name)
def test_verdict(claim: Claim) -> None:
    finding = claim.check()  # type: ignore[call-arg]
    assert finding.verdict == ledger._expected()["always"][claim.name], finding.evidence
    assert finding.evidence
    assert "\n" not in finding.evidence


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.name)
def test_verdict_on_records(claim: Claim, tmp_path: Path) -> None:
    assert claim.criterion
    assert claim.command
    finding = claim.check(made_up(tmp_path, as_in_the_paper=True))  # type: ignore[call-arg]
    assert finding.verdict == "holds", finding.evidence
    if claim.name != "4-additive-run":  # true of any numbers: only wrong code breaks it
        finding = claim.check(made_up(tmp_path, as_in_the_paper=False))  # type: ignore[call-arg]
        assert finding.verdict == "fails", finding.evidence


def test_entries_of_the_paper_are_judged_on_its_own_experiment_only(tmp_path: Path) -> None:
    run = made_up(tmp_path, as_in_the_paper=True)
    for change in (
        {"model": "resnet50"},
        {"layer": "features.28"},
        {"limit": 5},
        {"threshold": 0.4},
        {"weights": "random (seed 0)"},
        {},
    ):
        manifest = {**run.manifest, "experiment": {**run.manifest["experiment"], **change}}
        if not change:
            manifest["data"] = {"folder": "my-10000-photographs"}
        other = Run(run.folder, run.rows, run.alphas, manifest)
        for entry in ledger.ledger(other):
            if (
                entry.claim.place.startswith("4, Table")
                and entry.claim.name.startswith("table-")
                and "narrowest" not in entry.claim.name
            ):
                assert entry.finding.verdict == (NOT_TESTED if entry.claim.kind == "empirical" else "sharpened"), entry.claim.name


@pytest.mark.parametrize(
    ("module", "name", "wrong", "broken"),
    [
        (
            cam,
            "weights",
            lambda method, a, g, lam=1.0: g.abs().mean((2, 3)),
            {"eq-1", "eq-3", "eq-4", "2.2-positive", "theorem-4"},
        ),
        (cam, "heatmap", lambda w, a: torch.einsum("bk,bkhw->bhw", w, a) + 1, {"eq-2", "note-2"}),
        (cam, "alphas", lambda a, g, lam=1.0: 1 / (2 - a.sum((2, 3), True) * g), {"theorem-1", "theorem-5", "2.2-zero"}),
        (symbolic, "equation_13", lambda g, s: 1 / (1 + s * g), {"eq-13", "eq-9"} - {"eq-9"}),
        (symbolic, "equation_12", lambda g, s, lam: g**2 / (2 * g**2 + s * g**3), {"eq-12", "3.1.5-other"}),
        (symbolic, "equation_8", lambda value, maps, unit: value, {"eq-8", "eq-9", "3.1.4-unseen"}),
        (symbolic, "equation_7", derivation.equation_18, {"eq-7"}),
        (symbolic, "equation_18", derivation.equation_7, {"eq-18"}),
        (symbolic, "equation_19", derivation.equation_18, {"eq-19"}),
        (symbolic, "equation_11", lambda c, b, y: b, {"3.1.1-underdetermined", "eq-11", "eq-11-general"}),
        (claims_proved, "relative_performance", lambda a, b: 1.0, {"eq-16", "eq-17"}),
        (claims_proved, "explanation_maps", lambda h, p: 3 * h[:, None] * p, {"eq-15", "note-4"}),
        (claims_proved, "min_max", lambda m: m, {"4-coefficients", "note-2"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_mathematics_changes_verdicts(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, wrong: Any, broken: set[str]
) -> None:
    monkeypatch.setattr(module, name, wrong)
    for claim in PROVED:
        if claim.name in broken:
            try:
                verdict = claim.check().verdict  # type: ignore[call-arg]
            except (AttributeError, IndexError, TypeError, ValueError):
                continue  # a wrong formula may also leave nothing to compare
            assert verdict == "fails", claim.name


def test_without_a_run_empirical_claims_are_not_tested_and_say_what_would() -> None:
    entries = ledger.ledger(None, MEASURED)
    assert {entry.finding.verdict for entry in entries} == {NOT_TESTED}
    assert not any(entry.deviates for entry in entries)
    assert ledger.table(entries).count("gradcampp") >= len(entries)


def small_run(folder: Path, count: int = 24, **changes: Any) -> Path:
    """A finished run on disk with made-up scores."""
    generator = np.random.default_rng(1)
    row: dict[str, Any] = {"label": 0, "score": 0.9, "prediction": 0, "label_rank": 1, "sha256": "", "bytes": 1}
    rows = []
    for index in range(count):
        rows.append(
            row
            | {"image": f"0/{index:02}.png"}
            | {column(s, m): float(generator.uniform(0.4, 0.5)) for s in SCORES for m in ("gradcam", "gradcam+", "gradcam++")}
        )
        for s in SCORES:
            rows[-1] |= {
                f"{s}_alpha_count": 3,
                f"{s}_alpha_min": 0.4,
                f"{s}_alpha_max": 0.6,
                f"{s}_alpha_max_positive": 0.5,
                f"{s}_certificate": 0.1,
                f"{s}_difference": 0.05,
            }
    (folder / "parts").mkdir(parents=True)
    experiment = {"model": "mini", "weights": mini.SHA256, "layer": mini.LAYER, "threshold": 0.5, "limit": None, "seed": 0}
    (folder / "manifest.json").write_text(json.dumps({"finished": False, "experiment": experiment | changes}))
    part = records.write_part(folder, rows, dict.fromkeys(SCORES, histogram(torch.tensor([0.4, 0.5, 0.6]))))
    records.finish(folder, [part], lambda _: {"images": len(rows), "over_threshold": len(rows), "data": {"folder": "0"}})
    return folder


def test_the_command_prints_writes_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "out" / "run")
    assert cli.main(["claims", "--run", str(tmp_path / "out")]) == 0  # the folder of reproduce; nothing is expected of 24 images
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert [row["name"] for row in content] == NAMES
    assert all(row["evidence"] and row["verdict"] for row in content)
    assert f"wrote {tmp_path / 'out' / 'claims.json'}" in printed
    assert read_run(run).folder == run


def test_an_unexpected_verdict_ends_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Claim("eq-1", "2.1.1", "x", "numeric", lambda: Finding("fails", "0 is not 1"), "02_methods")
    monkeypatch.setattr("gradcampp.claims.ledger.CLAIMS", (wrong,))
    monkeypatch.setattr(ledger.ledger, "__defaults__", (None, (wrong,)))
    assert cli.main(["claims", "--out", str(tmp_path / "claims.json")]) == 1
    assert "eq-1: fails, expected holds: 0 is not 1" in capsys.readouterr().err
    assert json.loads((tmp_path / "claims.json").read_text())[0]["expected"] == "holds"


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claims", "--run", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_verdicts_are_expected_of_the_whole_embedded_default_only(tmp_path: Path) -> None:
    run = read_run(small_run(tmp_path / "run"))
    assert ledger._expected_of(run) == {}
    whole = Run(run.folder, run.rows, run.alphas, {**run.manifest, "images": 1000})
    assert ledger._expected_of(whole) == ledger._expected()["mini"]
    other = Run(run.folder, run.rows, run.alphas, {**whole.manifest, "experiment": {**run.manifest["experiment"], "seed": 1}})
    assert ledger._expected_of(other) == {}
