"""Parts merge into the same records whatever the parts are, and without being in memory together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradcampp.cam import SCORES
from gradcampp.evaluation import alphas, records

FIELDS = [field.name for field in records.SCHEMA if not field.nullable]


def row(image: str) -> records.Row:
    """A row whose numbers belong to its image, with all that may be null left out."""
    number = sum(image.encode())
    return dict.fromkeys(FIELDS, number) | {"image": image, "sha256": image[::-1], "score": number / 7}


def merged(run: Path, parts: list[list[str]]) -> tuple[bytes, list[int]]:
    """The records of a run with these parts, and how many rows the manifest saw at a time."""
    (run / "parts").mkdir(parents=True)
    (run / "manifest.json").write_text('{"finished": false, "experiment": {}}')
    names = [records.write_part(run, [row(image) for image in part], dict.fromkeys(SCORES, alphas.EMPTY)) for part in parts]
    seen: list[int] = []

    def details(groups: Iterator[pd.DataFrame]) -> dict[str, object]:
        seen.extend(len(rows) for rows in groups)
        return {}

    records.finish(run, names, details)
    return (run / "records.parquet").read_bytes(), seen


IMAGES = st.lists(st.text("ab/\u00e9\U0001f41f\uffee", min_size=1, max_size=4), min_size=1, max_size=30, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(images=IMAGES, owners=st.lists(st.integers(0, 5), min_size=30, max_size=30), group=st.integers(1, 40))
def test_records_do_not_depend_on_how_they_were_parted(
    images: list[str], owners: list[int], group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parted = [[image for image, owner in zip(images, owners, strict=False) if owner == number] for number in range(6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradcampp.evaluation.records._GROUP", group)
        folder = tmp_path_factory.mktemp("run")
        several, seen = merged(folder / "several", [part for part in parted if part])
        whole, _ = merged(folder / "whole", [images])
    assert several == whole
    assert seen == [group] * (len(images) // group) + [len(images) % group] * (len(images) % group > 0)
    rows = records.read_records(folder / "several")
    pd.testing.assert_frame_equal(rows[FIELDS], pd.DataFrame([row(image) for image in sorted(images)])[FIELDS], check_dtype=False)


def test_parts_that_follow_each_other_are_in_memory_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is flat in the number of images because a part is read only when the one before has been written."""
    events: list[str] = []
    read, write = records._read, pq.ParquetWriter.write_table

    def reading(file: Path, columns: list[str] | None = None) -> object:
        if columns is None and file.name == "records.parquet":
            events.append("read")
        return read(file, columns)

    def writing(writer: pq.ParquetWriter, table: object) -> None:
        events.append("write")
        write(writer, table)

    parts = [[f"{part}/{number}" for number in range(4)] for part in range(5)]
    monkeypatch.setattr("gradcampp.evaluation.records._GROUP", 4)
    monkeypatch.setattr("gradcampp.evaluation.records._read", reading)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", writing)
    merged(tmp_path / "run", parts)
    assert "".join(event[0] for event in events).endswith("rwrwrwrwrw")
