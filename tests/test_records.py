"""Parts on disk: the same records whatever the parts are, and nothing half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradcampp.cam import SCORES, Scores
from gradcampp.errors import InputError
from gradcampp.evaluation import alphas, records
from gradcampp.evaluation.alphas import Histogram
from gradcampp.evaluation.records import Run

FIELDS = [field.name for field in records.SCHEMA if not field.nullable]


def row(image: str) -> dict[str, Any]:
    """A row whose numbers belong to its image, with all that may be null left out."""
    number = sum(image.encode())
    return dict.fromkeys(FIELDS, number) | {"image": image, "sha256": image[::-1], "score": number / 7}


def table(images: list[str]) -> pa.Table:
    return pa.Table.from_pylist(list(map(row, images)), records.SCHEMA)


def written(run: Path, parts: list[list[str]]) -> Run:
    """A run with these parts."""
    for kind in ("records", "alphas"):
        (run / f"{kind}.parquet").mkdir(parents=True)
    (run / "manifest.json").write_text('{"finished": true, "experiment": {}}')
    for number, part in enumerate(parts):
        counted = {scores: alphas.histogram(torch.tensor([float(len(image)) for image in part])) for scores in SCORES}
        records.write_part(run, number, table(part), counted, {f"{number}.txt": "not an image"})
    return Run(run)


IMAGES = st.lists(st.text("ab/\u00e9\U0001f41f\uffee", min_size=1, max_size=4), min_size=1, max_size=30, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(images=IMAGES, size=st.integers(1, 40))
def test_records_do_not_depend_on_how_they_were_parted(
    images: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = sorted(images)
    folder = tmp_path_factory.mktemp("a colon: in its name")
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    several, whole = written(folder / "several", parts), written(folder / "whole", [images])
    pd.testing.assert_frame_equal(several.records, whole.records)
    pd.testing.assert_frame_equal(several.records[FIELDS], pd.DataFrame(list(map(row, images)))[FIELDS], check_dtype=False)
    for scores in SCORES:
        first, second = several.alphas[scores], whole.alphas[scores]
        assert (first.counts == second.counts).all()
        assert (first.minimum, first.maximum) == (second.minimum, second.maximum)
    assert records.parts(folder / "several") == list(range(len(parts)))
    for number, part in enumerate(parts):
        assert records.read_part(folder / "several", number) == (
            {image: sum(image.encode()) for image in part},
            {f"{number}.txt": "not an image"},
        )


def test_parts_stay_in_order_behind_the_hundred_thousandth(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [["a"]]).folder
    for number, image in ((99_999, "b"), (100_000, "c")):
        records.write_part(run, number, table([image]), dict.fromkeys(SCORES, alphas.EMPTY), {})
    assert records.parts(run) == [0, 99_999, 100_000]
    assert list(Run(run).records["image"]) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["records", "alphas"])
def test_half_a_part_is_no_part(tmp_path: Path, kind: str) -> None:
    run = written(tmp_path / "run", [["a"], ["b"]]).folder
    file = run / f"{kind}.parquet" / "00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert records.read_part(run, 0) is not None
    assert records.read_part(run, 1) is None
    records.remove_part(run, 1)
    assert records.parts(run) == [0]


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [["a"]])
    assert run.finished
    (tmp_path / "run" / "manifest.json").write_text('{"finished": false, "experiment": {}}')
    again = Run(tmp_path / "run")
    assert not again.finished
    assert not Run(tmp_path / "nowhere").finished
    for read in (lambda: again.records, lambda: again.alphas):
        with pytest.raises(InputError, match="is not finished; repeat the command that started it"):
            read()


def test_a_run_tells_the_alphas_at_positive_gradients_and_its_title(tmp_path: Path) -> None:
    counted: dict[Scores, Histogram] = {
        "pre": alphas.histogram(torch.tensor([0.1, 0.3, 0.7, -2.0])),
        "post": alphas.histogram(torch.tensor([0.5, 0.6])),
    }
    for kind in ("records", "alphas"):
        (tmp_path / f"{kind}.parquet").mkdir()
    rows = [row(image) | {"pre_alpha_positive": 2, "post_alpha_positive": 1} for image in ("a", "b")]
    records.write_part(tmp_path, 0, pa.Table.from_pylist(rows, records.SCHEMA), counted, {})
    records.write_manifest(tmp_path, {"finished": True, "experiment": {"model": "vgg16", "layer": "features.29", "seed": 0}})
    run = Run(tmp_path)
    assert run.title == "vgg16, features.29"
    assert {scores: found.count for scores, found in run.positive_alphas.items()} == {"pre": 4, "post": 2}
    assert alphas.quantile(run.positive_alphas["pre"], 0) == pytest.approx(0.1, abs=1e-5)
    assert alphas.quantile(run.positive_alphas["pre"], 0.5) == pytest.approx((0.3 + 0.5) / 2, abs=1e-5)
    assert alphas.quantile(run.positive_alphas["post"], 0) == 0.5


def test_a_folder_of_an_audit_says_that_it_is_one() -> None:
    with pytest.raises(
        InputError, match=r"audit-efficientnet_lite0-relu holds an audit, without prediction, .*; gradcampp evaluate"
    ):
        _ = Run(Path(__file__).parents[1] / "evidence" / "audit-efficientnet_lite0-relu").records
