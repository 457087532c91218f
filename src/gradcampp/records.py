"""A run folder: finished parts, then the merged records, alphas and manifest. Every write is atomic.

RUN/manifest.json      the experiment, from the first moment on; counts and versions at the end
RUN/parts/<id>/        records.parquet and alphas.parquet of some finished batches; gone at the end
RUN/records.parquet    one row an image
RUN/alphas.parquet         the streams of all alphas, pre and post
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradcampp import accumulate
from gradcampp.accumulate import Stream
from gradcampp.config import COLUMNS, SCORES, Experiment, Scores
from gradcampp.errors import InputError
from gradcampp.files import written

Streams = Mapping[Scores, Stream]
Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        *(pa.field(name, pa.float64()) for name in COLUMNS),
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("label_rank", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        *(
            pa.field(f"{scores}_alpha_{name}", kind)
            for scores in SCORES
            for name, kind in (("count", pa.int64()), ("min", pa.float64()), ("max", pa.float64()))
        ),
        *(pa.field(f"{name}_mean_heat", pa.float64()) for name in COLUMNS),
    ]
)


def open_run(run: Path, experiment: Experiment) -> None:
    """Start a run in a folder, or continue the one that is there.

    Raises:
        InputError: if the folder cannot be written, is not a run, or holds another experiment; the line
            names the difference.
    """
    try:
        (run / "parts").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the run folder {run}: {error.strerror}; choose another --out") from None
    wanted = _flat(asdict(experiment))
    if (run / "manifest.json").exists():
        there = _flat(read_manifest(run)["experiment"])
        for key in wanted.keys() | there.keys():
            if there.get(key) != wanted.get(key):
                raise InputError(
                    f"{run} holds a run with {key} = {there.get(key)}, and this one has {wanted.get(key)}; choose another --out"
                )
    else:
        _write_json(run / "manifest.json", {"finished": False, "experiment": asdict(experiment)})


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        InputError: if the folder is not a run.
    """
    try:
        manifest = json.loads((run / "manifest.json").read_text("utf-8"))
        return {"finished": manifest["finished"], "experiment": manifest["experiment"], **manifest}
    except FileNotFoundError:
        raise InputError(f"{run} is not a run: it has no manifest.json; make one with gradcampp evaluate --out {run}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {run / 'manifest.json'}: {error}; expected what gradcampp evaluate wrote") from None


def finished_images(run: Path) -> list[str]:
    """The images whose rows a run already has, sorted by path."""
    tables = [pq.read_table(file, columns=["image"]) for file in _record_files(run)]
    return sorted(image for table in tables for image in table.column("image").to_pylist())


def write_part(run: Path, rows: Sequence[Row], streams: Streams) -> None:
    """Add the rows and alphas of some finished batches to a run."""
    with written(run / "parts" / uuid.uuid4().hex) as part:
        part.mkdir()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), part / "records.parquet")
        _write_streams(part / "alphas.parquet", streams)


def finish(run: Path, details: Callable[[pd.DataFrame], Mapping[str, Any]]) -> None:
    """Merge all parts into the final records and alphas, and say in the manifest that they are final.

    Args:
        run: an unfinished run with at least one part.
        details: from the merged records, what the manifest says beside the experiment.
    """
    records = pa.concat_tables([pq.read_table(file) for file in _record_files(run)]).sort_by("image").combine_chunks()
    streams: Streams = dict.fromkeys(SCORES, accumulate.EMPTY)
    for file in _record_files(run):
        added = _read_streams(file.with_name("alphas.parquet"))
        streams = {scores: accumulate.merge(streams[scores], added[scores]) for scores in SCORES}
    with written(run / "alphas.parquet") as file:
        _write_streams(file, streams)
    with written(run / "records.parquet") as file:
        pq.write_table(records, file)
    _write_json(run / "manifest.json", {**read_manifest(run), "finished": True, **details(records.to_pandas())})
    clear(run)


def clear(run: Path) -> None:
    """Remove the parts of a finished run."""
    shutil.rmtree(run / "parts", ignore_errors=True)


def read_records(run: Path) -> pd.DataFrame:
    """One row an image, sorted by path; null scores where the label's score is not over the threshold.

    Raises:
        InputError: if the run is not finished or its records cannot be read.
    """
    _check_finished(run)
    try:
        rows: pd.DataFrame = pq.read_table(run / "records.parquet", columns=SCHEMA.names).to_pandas()
        return rows
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError(f"cannot read {run / 'records.parquet'}: {error}; delete the folder and run evaluate again") from None


def read_alphas(run: Path) -> dict[Scores, Stream]:
    """The streams of the non-zero alphas of all images, pre and post.

    Raises:
        InputError: if the run is not finished or its alphas cannot be read.
    """
    _check_finished(run)
    try:
        return _read_streams(run / "alphas.parquet")
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError(f"cannot read {run / 'alphas.parquet'}: {error}; delete the folder and run evaluate again") from None


def _check_finished(run: Path) -> None:
    if not read_manifest(run)["finished"]:
        raise InputError(f"the run {run} is not finished; repeat the command that started it, and it goes on where it stopped")


def _record_files(run: Path) -> list[Path]:
    """The records of the merged run where it is finished, else of its parts."""
    if read_manifest(run)["finished"]:
        return [run / "records.parquet"]
    return sorted(path for path in (run / "parts").glob("*/records.parquet") if not path.parent.name.startswith("."))


def _write_streams(file: Path, streams: Streams) -> None:
    """Both streams without their empty bins, and their exact extremes as metadata."""
    occupied = {scores: np.flatnonzero(stream.counts) for scores, stream in streams.items()}
    table = pa.table(
        {
            "scores": np.repeat(list(occupied), [len(bins) for bins in occupied.values()]),
            "bin": np.concatenate(list(occupied.values())).astype(np.int32),
            "count": np.concatenate([streams[scores].counts[bins] for scores, bins in occupied.items()]),
        }
    )
    extremes = {scores: [stream.minimum.hex(), stream.maximum.hex()] for scores, stream in streams.items()}
    pq.write_table(table.replace_schema_metadata({"extremes": json.dumps(extremes)}), file, compression="zstd")


def _read_streams(file: Path) -> dict[Scores, Stream]:
    table = pq.read_table(file)
    extremes = json.loads((table.schema.metadata or {})[b"extremes"])
    rows = table.to_pandas()
    streams: dict[Scores, Stream] = {}
    for scores in SCORES:
        counts = np.zeros(accumulate.BINS, np.int64)
        own = rows[rows["scores"] == scores]
        counts[own["bin"]] = own["count"]
        streams[scores] = Stream(counts, *(float.fromhex(value) for value in extremes[scores]))
    return streams


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with written(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, with tuples as the lists that JSON makes of them."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
