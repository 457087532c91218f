"""A run is its experiment: what decides its numbers is compared, and what is lost or older is said in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from gradcampp import cli
from gradcampp.errors import InputError, Notice
from gradcampp.evaluation import records
from gradcampp.evaluation.experiment import differing, experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.classes import numbered
from tests.networks import Scored, scored
from tests.test_evaluate import network, run


class Edited(Scored):
    """The weights of the small network, and other code: a factory that somebody has changed."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.load_state_dict(scored().state_dict())
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / self.temperature


def changed(run: Path, **keys: Any) -> None:
    """Another manifest: keys of the experiment, None to leave one out."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["experiment"] = {key: value for key, value in (manifest["experiment"] | keys).items() if value is not None}
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_factory_whose_code_changed_is_another_experiment(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(2)
    rows = run(data, tmp_path / "run", scored())
    with pytest.raises(
        InputError, match=r"the network gives other numbers than that of .*: its code, or weights .* choose anoth"
    ):
        run(data, tmp_path / "run", Edited(1.01).eval())
    assert len(run(data, tmp_path / "run", Edited(1 + 1e-6).eval())) == len(rows)  # rounding of another machine


def test_what_decides_the_numbers_is_in_the_experiment() -> None:
    told = experiment_of(network())
    assert told.keys() >= {"score", "probe", "layer", "weights", "interpolation", "mean", "std", "crop", "precision", "threshold"}
    others = {"score": "sigmoid", "interpolation": "bicubic", "layer": "features.3", "classes": "0", "mean": [0, 0, 0]}
    for key, value in others.items():
        assert differing(told, told | {key: value}) == [key]
    assert differing(told, told | {"probe": [1.1 * number for number in told["probe"]]}) == ["probe"]


def test_a_run_of_an_older_version_goes_on_and_reads(folder: Callable[..., Path], tmp_path: Path) -> None:
    """It says nothing of probe and score, which was the softmax then."""
    data = folder(2)
    expected = run(data, tmp_path / "run", scored())
    changed(tmp_path / "run", probe=None, score=None, interpolation=None)
    assert run(data, tmp_path / "run", scored()).equals(expected)
    assert Run(tmp_path / "run").score == "softmax"
    changed(tmp_path / "run", score="sigmoid")
    with pytest.raises(InputError, match="holds a run with score = sigmoid, and this one has softmax"):
        run(data, tmp_path / "run", scored())


@pytest.mark.parametrize("finished", [True, False])
def test_a_photograph_of_the_same_size_and_time_with_other_bytes_is_another(
    folder: Callable[..., Path], tmp_path: Path, finished: bool
) -> None:
    data = folder(2)
    run(data, tmp_path / "run", scored())
    if not finished:
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    photo = data / "1" / "0.png"
    content, times = photo.read_bytes(), (photo.stat().st_atime, photo.stat().st_mtime)
    photo.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(photo, times)
    with pytest.raises(InputError, match=r"1/0.png is not the file that .* holds results for: its content has changed"):
        run(data, tmp_path / "run", scored())
    photo.write_bytes(content)  # again what it was, though written later than the run
    assert len(run(data, tmp_path / "run", scored())) == 6


def test_another_label_for_a_photograph_is_another_run(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(2)
    run(data, tmp_path / "run", scored())
    own, photographs = network(scored().eval()), list_photographs(data, numbered(3))
    others = [photographs[0]._replace(label=2), *photographs[1:]]
    with pytest.raises(InputError, match=r"holds results for 0/0.png as class 0, and its class is now 2"):
        evaluate(own, others, data, tmp_path / "run", experiment_of(own, 0.3), Execution(4, 0, "cpu"))


def test_other_versions_are_said_and_nothing_more(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(2)
    run(data, tmp_path / "run", scored())
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest |= {"finished": False, "versions": manifest["versions"] | {"torch": "1.0"}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(Notice, match=rf"was begun with torch 1.0 \(now {torch.__version__.partition('+')[0]}"):
        assert len(run(data, tmp_path / "run", scored())) == 6


def commands(folder: Path, out: Path) -> list[list[str]]:
    """What reads a finished run."""
    return [["report", str(folder), "--out", str(out / "report")], ["claims", "--run", str(folder), "--out", str(out / "c.json")]]


def without_a_column(folder: Path) -> str:
    for file in (folder / "records.parquet").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["pre_gradcam_mean_heat", "bytes"]), file)
    return "an older version wrote it, without bytes, pre_gradcam_mean_heat; repeat the command that made the run"


def without_a_part(folder: Path) -> str:
    (folder / "records.parquet" / "00000.parquet").unlink()
    return "has 1 of 9 images: a part is lost; repeat the command that made the run"


def with_rubbish(folder: Path) -> str:
    (folder / "records.parquet" / "00000.parquet").write_bytes(b"PAR1 rubbish PAR1")
    return "repeat the command that made the run, and it computes anew what is damaged"


def as_a_file(folder: Path) -> str:
    for file in (folder / "records.parquet").iterdir():
        file.unlink()
    (folder / "records.parquet").rmdir()
    (folder / "records.parquet").write_bytes(b"")
    return "cannot read"


def without_a_key(folder: Path) -> str:
    changed(folder, threshold=None)
    return "manifest.json lacks threshold: an older version wrote it"


def with_half_a_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:40])
    return "expected what gradcampp evaluate wrote"


DAMAGES = [without_a_column, without_a_part, with_rubbish, as_a_file, with_half_a_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_older_is_one_line(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], str]
) -> None:
    data = folder(3)
    run(data, tmp_path / "run", scored(), threshold=0.1)
    says = damage(tmp_path / "run")
    for command in commands(tmp_path / "run", tmp_path):
        assert cli.main(command) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1
        assert says in told[0]


@pytest.mark.parametrize("damage", [without_a_part, without_a_column, with_rubbish])
def test_what_is_lost_is_computed_anew(folder: Callable[..., Path], tmp_path: Path, damage: Callable[[Path], str]) -> None:
    data = folder(3)
    expected = run(data, tmp_path / "run", scored())
    damage(tmp_path / "run")
    assert run(data, tmp_path / "run", scored()).equals(expected)


def test_a_key_that_a_manifest_lacks_is_one_line(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(3), tmp_path / "run", scored(), threshold=0.1)
    says = without_a_key(tmp_path / "run")
    with pytest.raises(InputError, match=says):
        _ = Run(tmp_path / "run").left_out
    with pytest.raises(InputError, match="lacks never"):
        _ = Run(tmp_path / "run").manifest["never"]


def test_a_run_folder_that_is_a_file_is_one_line(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(1)
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="cannot write to the run folder"):
        run(data, tmp_path / "run", scored())
    for command in commands(tmp_path / "run", tmp_path):
        assert cli.main(command) == 2


def test_counts_of_alphas_that_do_not_belong_to_the_records_are_one_line(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(3), tmp_path / "run", scored(), threshold=0.1)
    own = Run(tmp_path / "run")
    vars(own)["records"] = own.records.assign(pre_alpha_positive=0)
    with pytest.raises(InputError, match=r"cannot read .*alphas.parquet: expected at least"):
        _ = own.positive_alphas


def test_the_part_of_an_interrupted_run_says_what_its_photographs_were(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(3), tmp_path / "run", scored())
    found = records.read_files(tmp_path / "run", 0)
    assert list(found["image"]) == [f"{label}/{index}.png" for label in range(3) for index in range(3)][:8]
    assert list(found["label"]) == [0, 0, 0, 1, 1, 1, 2, 2]
    (tmp_path / "run" / "records.parquet" / "00000.parquet").write_bytes(b"")
    assert records.read_files(tmp_path / "run", 0).empty
