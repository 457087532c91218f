"""A run folder: finished parts, then the merged records, alphas and manifest. Every write is atomic.

RUN/manifest.json      the experiment, from the first moment on; counts and versions at the end
RUN/parts/<id>/        records.parquet and alphas.parquet of some finished batches; gone at the end
RUN/records.parquet    one row an image
RUN/alphas.parquet         the streams of all alphas, pre and post
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradcampp.cam import COLUMNS, SCORES, Scores
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import BINS, EMPTY, Stream, merge
from gradcampp.evaluation.profiles import Profile
from gradcampp.files import written
from gradcampp.networks.capture import Precision, Preprocessing
from gradcampp.networks.load import Prepared


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; two runs with one folder must agree in all of it.

    Attributes:
        model: a torchvision name, or ``module:factory``.
        weights: SHA-256 of the weights, or how they came about.
        layer: name of the module whose output is explained.
        classes: SHA-256 of the class names, one a line; they decide the labels of named folders.
        preprocessing: how a photograph becomes an input.
        threshold: explanation maps are scored where the label's score exceeds it, in [0, 1).
        limit: number of images, or None for all.
        seed: with a limit, the seed of the random sample; None takes the first images.
        precision: of the network's own arithmetic; everything that follows from it is float32 or better.
    """

    model: str
    weights: str
    layer: str
    classes: str
    preprocessing: Preprocessing
    threshold: float = 0.5
    limit: int | None = None
    seed: int | None = None
    precision: Precision = "float32"


Streams = Mapping[Scores, Stream]


Row = dict[str, Any]

_GROUP = 2**12  # rows that are sorted and written together, some 2 MiB


PATIENCE = 7.0  # seconds; the decoding processes of a killed run keep its lock for up to five

BOUNDS = tuple(f"{scores}_{name}" for scores in SCORES for name in ("certificate", "difference"))

SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        *(pa.field(name, pa.float64()) for name in COLUMNS),
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("label_rank", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        *(
            pa.field(f"{scores}_alpha_{name}", kind)
            for scores in SCORES
            for name, kind in (
                ("count", pa.int64()),
                ("min", pa.float64()),
                ("max", pa.float64()),
                ("max_positive", pa.float64()),
            )
        ),
        *(pa.field(name, pa.float64()) for name in BOUNDS),
        *(pa.field(f"{name}_mean_heat", pa.float64()) for name in COLUMNS),
    ]
)

_BINS = pa.schema([("scores", pa.string()), ("bin", pa.int32()), ("count", pa.int64())])


@contextlib.contextmanager
def opened(run: Path, experiment: Experiment) -> Iterator[None]:
    """Start a run in a folder, or continue the one that is there; no other process can do so meanwhile.

    Where the file system has no locks, another process can. That wastes work and spoils nothing: each merges
    the parts that it knows of, and parts that overlap are never merged.

    Raises:
        InputError: if the folder cannot be written, is in use, is not a run, or holds another experiment;
            the line names the difference.
    """
    _make_folder(run)
    with (run / ".lock").open("w") as lock:
        if not _locked(lock):
            raise InputError(f"another process is working on {run}; wait for it, or choose another --out")
        _claim(run, experiment)
        _remove_damaged_parts(run)
        yield


def _locked(lock: IO[str]) -> bool:
    """Whether no other process has the lock, or will give it back at once."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > last:
                return False
            time.sleep(0.1)
        except OSError:  # a shared file system without locks
            return True
        else:
            return True


def _make_folder(run: Path) -> None:
    try:
        (run / "parts").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the run folder {run}: {error.strerror}; choose another --out") from None


def _claim(run: Path, experiment: Experiment) -> None:
    """Write the experiment into a new run, or compare it with that of the run that is there."""
    if not (run / "manifest.json").exists():
        _write_json(run / "manifest.json", {"finished": False, "experiment": asdict(experiment)})
    elif (found := differing(run, experiment)) is not None:
        setting, there, wanted = found
        raise InputError(f"{run} holds a run with {setting} = {there}, and this one has {wanted}; choose another --out")


def differing(run: Path, experiment: Experiment) -> tuple[str, Any, Any] | None:
    """A setting in which a run is of another experiment: its name, the run's value and the other; None where all agree.

    Raises:
        InputError: if the folder is not a run.
    """
    wanted = _flat(asdict(experiment))
    later = {field.name: field.default for field in fields(Experiment) if field.default is not MISSING}
    there = {**later, **_flat(read_manifest(run)["experiment"])}  # of a version that did not have all settings yet
    for key in [*wanted, *sorted(there.keys() - wanted.keys())]:
        if there.get(key) != wanted.get(key):
            return key, there.get(key), wanted.get(key)
    return None


def _remove_damaged_parts(run: Path) -> None:
    """Forget parts that a power failure has left half on disk, what was never finished, and what is there twice."""
    seen: set[str] = set()
    for part in sorted((run / "parts").glob("*")):
        try:
            _read(part / "alphas.parquet")
            images = set(_read(part / "records.parquet")["image"].to_pylist())
            damaged = part.name.startswith(".") or not seen.isdisjoint(images)
        except (OSError, pa.ArrowException):
            damaged = True
        if damaged:
            shutil.rmtree(part, ignore_errors=True)
        else:
            seen |= images


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


def finished_images(run: Path) -> dict[str, int]:
    """The images whose rows a run already has, with the sizes of their files in bytes."""
    tables = (_read(file, ["image", "bytes"]) for file in _record_files(run))
    return {
        image: size for table in tables for image, size in zip(*(column.to_pylist() for column in table.columns), strict=True)
    }


def parts(run: Path) -> list[str]:
    """The names of the finished parts of an unfinished run."""
    return sorted(path.name for path in (run / "parts").glob("*") if not path.name.startswith("."))


def write_part(run: Path, rows: Sequence[Row], streams: Streams) -> str:
    """Add the rows and alphas of some finished batches to a run; the same ones again change nothing.

    Returns:
        The name of the part.
    """
    name = hashlib.sha256("\n".join(row["image"] for row in rows).encode()).hexdigest()
    if not (run / "parts" / name).exists():
        with written(run / "parts" / name) as part:
            part.mkdir()
            _write(part / "records.parquet", SCHEMA, [pa.Table.from_pylist(rows, SCHEMA)])
            _write_streams(part / "alphas.parquet", streams)
    return name


def appeared(path: Path, patience: float = 120.0) -> bool:
    """Whether a file or folder of another machine is there; a network file system may take a minute to show it."""
    last = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > last:
            return False
        time.sleep(0.1)
    return True


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    with file.open("rb") as source:  # pyarrow takes a path with a colon for an address, and threads keep memory each
        return pq.read_table(source, columns=columns, use_threads=False)


def _write(file: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Each table becomes a row group."""
    with file.open("wb") as target:
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        target.flush()
        os.fsync(target.fileno())


def finish(run: Path, names: Iterable[str], details: Callable[[Iterator[pd.DataFrame]], Mapping[str, Any]]) -> None:
    """Merge parts into the final records and alphas, and say in the manifest that they are final.

    Memory does not depend on the number of images: a part is read when its turn has come, and some
    thousands of sorted rows are written at a time.

    Args:
        run: an unfinished run.
        names: of its parts, one or more; together they hold each image once.
        details: from the merged records, some thousands of rows at a time, what the manifest says beside
            the experiment.
    """
    folders = [run / "parts" / name for name in sorted(set(names))]
    streams: Streams = dict.fromkeys(SCORES, EMPTY)
    for part in folders:
        added = _read_streams(part / "alphas.parquet")
        streams = {scores: merge(streams[scores], added[scores]) for scores in SCORES}
    with written(run / "alphas.parquet") as file:
        _write_streams(file, streams)
    with written(run / "records.parquet") as file:
        _write(file, SCHEMA, _in_groups(_merged([part / "records.parquet" for part in folders])))
    _write_json(run / "manifest.json", {**read_manifest(run), "finished": True, **details(_groups(run / "records.parquet"))})
    clear(run)


def _merged(files: list[Path]) -> Iterator[pa.Table]:
    """The rows of all files in the order of their images.

    Files whose images are far apart are never in memory together: what precedes the first image of all files
    that are still to be read is given out before the next one is read.
    """
    firsts = sorted((pc.min(_read(file, ["image"])["image"]).as_py(), file) for file in files)
    held = SCHEMA.empty_table()
    for place, (_, file) in enumerate(firsts):
        held = pa.concat_tables([held, _read(file)])
        if place + 1 < len(firsts):
            precedes = pc.less(held["image"], firsts[place + 1][0])
            ready, held = held.filter(precedes), held.filter(pc.invert(precedes))
        else:
            ready = held
        yield ready.sort_by("image")


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ``_GROUP``, and a last one with the rest, whatever the tables they come in."""
    held = SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= _GROUP:
            yield held.slice(0, _GROUP).combine_chunks()
            held = held.slice(_GROUP)
    if len(held):
        yield held.combine_chunks()


def _groups(file: Path) -> Iterator[pd.DataFrame]:
    """The rows of merged records as they were written, group by group."""
    with file.open("rb") as source:
        merged = pq.ParquetFile(source)
        for group in range(merged.num_row_groups):
            yield merged.read_row_group(group, use_threads=False).to_pandas()


def clear(run: Path) -> None:
    """Remove the parts of a finished run."""
    shutil.rmtree(run / "parts", ignore_errors=True)
    (run / ".lock").unlink(missing_ok=True)


def read_records(run: Path) -> pd.DataFrame:
    """One row an image, sorted by path; null scores where the label's score is not over the threshold.

    Raises:
        InputError: if the run is not finished or its records cannot be read.
    """
    _check_finished(run)
    try:
        rows: pd.DataFrame = _read(run / "records.parquet", SCHEMA.names).to_pandas()
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
    return [run / "parts" / name / "records.parquet" for name in parts(run)]


def _write_streams(file: Path, streams: Streams) -> None:
    """Both streams without their empty bins, and their exact extremes as metadata."""
    extremes = {scores: [stream.minimum.hex(), stream.maximum.hex()] for scores, stream in streams.items()}
    schema = _BINS.with_metadata({"extremes": json.dumps(extremes)})
    _write(file, schema, (_stream_table(scores, stream, schema) for scores, stream in streams.items()))


def _stream_table(scores: Scores, stream: Stream, schema: pa.Schema) -> pa.Table:
    bins = np.flatnonzero(stream.counts)
    return pa.table([pa.repeat(scores, len(bins)), bins.astype(np.int32), stream.counts[bins]], schema=schema)


def _read_streams(file: Path) -> dict[Scores, Stream]:
    with file.open("rb") as source:
        extremes = json.loads((pq.read_schema(source).metadata or {})[b"extremes"])
    streams: dict[Scores, Stream] = {}
    for scores in SCORES:
        with file.open("rb") as source:
            own = pq.read_table(source, columns=["bin", "count"], use_threads=False, filters=[("scores", "==", scores)])
        counts = np.zeros(BINS, np.int64)
        counts[own["bin"].to_numpy()] = own["count"].to_numpy()
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


def read_run(folder: Path) -> Run:
    """A run by its own folder, or by the folder in which ``gradcampp reproduce`` put it.

    Raises:
        InputError: if there is no finished run, or it cannot be read.
    """
    inner = folder / "run"
    run = inner if (inner / "manifest.json").exists() and not (folder / "manifest.json").exists() else folder
    return Run(run, records.read_records(run), records.read_alphas(run), records.read_manifest(run))


def experiment_of(prepared: Prepared, profile: Profile) -> Experiment:
    """What decides the numbers of a run of a profile."""
    return Experiment(
        model=prepared.model.name,
        weights=prepared.model.weights,
        layer=prepared.network.layer,
        classes=hashlib.sha256("\n".join(prepared.classes.names).encode()).hexdigest(),
        preprocessing=prepared.network.preprocessing,
        threshold=profile.threshold,
        limit=profile.limit,
        seed=profile.seed,
        precision=prepared.network.precision,
    )
