"""A run folder. Every file in it is seen whole or not at all.

RUN/manifest.json                 the experiment, from the first moment on; counts and versions at the end
RUN/records.parquet/00012.parquet one row an image; part 12 holds photographs 12 n to 13 n - 1
RUN/alphas.parquet/00012.parquet  histograms of their alphas, pre and post

A part is finished when its records are there, so what is left to do is what files are missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from gradcampp.cam import COLUMNS, SCORES, Scores
from gradcampp.errors import InputError
from gradcampp.evaluation.alphas import BINS, EMPTY, Histogram, merge
from gradcampp.files import atomic_write
from gradcampp.networks.capture import Network, Precision, Preprocessing

Row = dict[str, Any]
HEATS = tuple(f"{name}_mean_heat" for name in COLUMNS)
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
        *(pa.field(name, pa.float64()) for name in HEATS),
    ]
)

_BINS = pa.schema([("scores", pa.string()), ("bin", pa.int32()), ("count", pa.int64())])


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


@contextlib.contextmanager
def opened(run: Path, experiment: Experiment) -> Iterator[None]:
    """Start a run in a folder, or continue the one that is there; no other process of this machine can do so meanwhile.

    Raises:
        InputError: if the folder cannot be written, is in use, is not a run, or holds another experiment;
            the line names the difference.
    """
    try:
        for folder in ("records.parquet", "alphas.parquet"):
            (run / folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the run folder {run}: {error.strerror}; choose another --out") from None
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that decoding processes do not inherit
        except (BlockingIOError, PermissionError):
            raise InputError(f"another process is working on {run}; wait for it, or choose another --out") from None
        except OSError:  # a shared file system without locks: two runs at once waste work and spoil nothing
            pass
        if not (run / "manifest.json").exists():
            write_manifest(run, {"finished": False, "experiment": asdict(experiment)})
        check(run, experiment)
        yield
    (run / ".lock").unlink(missing_ok=True)


def check(run: Path, experiment: Experiment) -> None:
    """See to it that a run is one of an experiment.

    Raises:
        InputError: if the folder is not a run, or holds another experiment; the line names the difference.
    """
    there, wanted = flat(read_manifest(run)["experiment"]), flat(asdict(experiment))
    for key in [*wanted, *sorted(there.keys() - wanted.keys())]:
        if there.get(key) != wanted.get(key):
            raise InputError(
                f"{run} holds a run with {key} = {there.get(key)}, and this one has {wanted.get(key)}; choose another --out"
            )


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


def write_manifest(run: Path, content: Mapping[str, Any]) -> None:
    """Replace the manifest of a run."""
    with atomic_write(run / "manifest.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def parts(run: Path) -> list[int]:
    """The numbers of the finished parts of a run, in order."""
    return sorted(int(file.stem) for file in (run / "records.parquet").glob("[0-9]*.parquet"))


def write_part(run: Path, part: int, rows: Sequence[Row], alphas: Mapping[Scores, Histogram], skipped: Mapping[str, str]) -> None:
    """Add a finished part to a run, its records last.

    Args:
        run: the run folder.
        part: its number.
        rows: of its photographs, in order.
        alphas: histograms of their alphas.
        skipped: why photographs of this part could not be read.
    """
    bins = {scores: np.flatnonzero(alphas[scores].counts) for scores in SCORES}
    columns = [
        pa.array(np.repeat(SCORES, [len(bins[scores]) for scores in SCORES])),
        np.concatenate([bins[scores] for scores in SCORES]).astype(np.int32),
        np.concatenate([alphas[scores].counts[bins[scores]] for scores in SCORES]),
    ]
    extremes = {scores: [alphas[scores].minimum.hex(), alphas[scores].maximum.hex()] for scores in SCORES}
    _write(_file(run, "alphas", part), pa.table(columns, schema=_BINS.with_metadata({"extremes": json.dumps(extremes)})))
    told = SCHEMA.with_metadata({"skipped": json.dumps(dict(skipped))})
    _write(_file(run, "records", part), pa.Table.from_pylist(list(rows), told))


def read_part(run: Path, part: int) -> tuple[dict[str, int], dict[str, str]] | None:
    """The images of a part with the sizes of their files in bytes, and why others were skipped; None where it is damaged.

    A power failure may leave files half on disk.
    """
    try:
        _read(_file(run, "alphas", part))
        table = _read(_file(run, "records", part), ["image", "bytes"])
        images = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return images, json.loads(table.schema.metadata[b"skipped"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def read_columns(run: Path, columns: list[str]) -> pd.DataFrame:
    """Some columns of all finished parts, one row an image, sorted by path.

    Raises:
        InputError: if a part cannot be read.
    """
    files = [str(_file(run, "records", part).absolute()) for part in parts(run)]
    try:  # absolute, and with a file system of its own, or pyarrow takes a path with a colon for an address
        table = pq.read_table(files, columns=columns, use_threads=False, filesystem=LocalFileSystem())
        rows: pd.DataFrame = table.to_pandas()
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise _unreadable(run / "records.parquet", error) from None
    return rows


def remove_part(run: Path, part: int) -> None:
    """Forget a part."""
    for kind in ("records", "alphas"):
        _file(run, kind, part).unlink(missing_ok=True)


def _file(run: Path, kind: str, part: int) -> Path:
    return run / f"{kind}.parquet" / f"{part:05d}.parquet"


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    with file.open("rb") as source:  # pyarrow takes a path with a colon for an address, and threads keep memory each
        return pq.read_table(source, columns=columns, use_threads=False)


def _write(file: Path, table: pa.Table) -> None:
    with atomic_write(file) as temporary, temporary.open("wb") as target:
        pq.write_table(table, target, compression="zstd")


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {path}: {error}; repeat the command that made the run, and it computes anew what is damaged")


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, with tuples as the lists that JSON makes of them."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found


@dataclass(frozen=True)
class Run:
    """A finished run: what ``evaluate`` or ``reproduce`` left in a folder, read when it is asked for.

    Attributes:
        folder: the run folder.
    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Experiment, counts, accuracy and versions.

        Raises:
            InputError: if the folder is not a run.
        """
        return read_manifest(self.folder)

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row an image, sorted by path; null scores where the label's score is not over the threshold.

        Raises:
            InputError: if the run is not finished or its records cannot be read.
        """
        self._check_finished()
        return read_columns(self.folder, SCHEMA.names)

    @cached_property
    def alphas(self) -> dict[Scores, Histogram]:
        """The non-zero alphas of all images, pre and post.

        Raises:
            InputError: if the run is not finished or its alphas cannot be read.
        """
        self._check_finished()
        found: dict[Scores, Histogram] = dict.fromkeys(SCORES, EMPTY)
        for part in parts(self.folder):
            file = _file(self.folder, "alphas", part)
            try:
                added = _histograms(_read(file))
            except (OSError, pa.ArrowException, ValueError, KeyError) as error:
                raise _unreadable(file, error) from None
            found = {scores: merge(found[scores], added[scores]) for scores in SCORES}
        return found

    @property
    def finished(self) -> bool:
        """True once every photograph has its row."""
        return (self.folder / "manifest.json").exists() and bool(self.manifest["finished"])

    def _check_finished(self) -> None:
        if not self.manifest["finished"]:
            raise InputError(
                f"the run {self.folder} is not finished; repeat the command that started it, and it goes on where it stopped"
            )

    @property
    def has_masks(self) -> bool:
        """True where the run knows where the objects are, as those on generated scenes do."""
        return (self.folder / "localisation.parquet").exists()

    @cached_property
    def localisation(self) -> pd.DataFrame:
        """A row for each scene and map, as :func:`gradcampp.evaluation.localisation.localise` gives them.

        Raises:
            InputError: if they cannot be read.
        """
        try:
            return pd.read_parquet(self.folder / "localisation.parquet")
        except (OSError, pa.ArrowException, ValueError) as error:
            raise _unreadable(self.folder / "localisation.parquet", error) from None


def _histograms(table: pa.Table) -> dict[Scores, Histogram]:
    extremes = json.loads(table.schema.metadata[b"extremes"])
    kinds, bins, numbers = (column.to_numpy() for column in table.columns)
    found: dict[Scores, Histogram] = {}
    for scores in SCORES:
        counts = np.zeros(BINS, np.int64)
        own = kinds == scores
        counts[bins[own]] = numbers[own]
        found[scores] = Histogram(counts, *(float.fromhex(value) for value in extremes[scores]))
    return found


def experiment_of(network: Network, threshold: float, limit: int | None, seed: int | None) -> Experiment:
    """The experiment of a network and its options."""
    return Experiment(
        model=network.name,
        weights=network.weights,
        layer=network.layer,
        classes=hashlib.sha256("\n".join(network.classes.names).encode()).hexdigest(),
        preprocessing=network.preprocessing,
        threshold=threshold,
        limit=limit,
        seed=seed,
        precision=network.precision,
    )
