"""A run folder. Every file in it is seen whole or not at all.

RUN/manifest.json                 the experiment, from the first moment on; counts and versions at the end
RUN/records.parquet/00012.parquet one row an image; part 12 holds photographs 12 n to 13 n - 1
RUN/alphas.parquet/00012.parquet  histograms of their alphas, a row a bin, pre and post

A part is finished when its records are there, so what is left to do is what files are missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradcampp.cam import COLUMNS, METHODS, SCORES, Scores, column
from gradcampp.errors import InputError, listed
from gradcampp.evaluation.alphas import BINS, Histogram, positive
from gradcampp.evaluation.experiment import Experiment, differing, over_threshold
from gradcampp.files import atomic_write
from gradcampp.networks import mini
from gradcampp.networks.scores import Score

DAMAGED = (OSError, pa.ArrowException, ValueError, KeyError, TypeError)  # what reading a file raises that is not whole
HEATS = tuple(f"{name}_mean_heat" for name in COLUMNS)
_OF_SHRINKAGE = ("difference", "bound", "effective_alpha", "unevenness", "equation_6")
SHRINKAGE = tuple(f"{scores}_{name}" for scores in SCORES for name in _OF_SHRINKAGE)
MATCHED = tuple(f"{column(scores, method)}_matched" for scores in SCORES for method in METHODS[1:])
SIGNED = ("pre_signed", "pre_signed_tame")
CURVES = tuple(f"{column('pre', method)}_{name}" for name in ("insertion", "deletion") for method in METHODS)
CONTROLS = (*MATCHED, *SIGNED, *CURVES)
NOT_OF_MAPS = ("alpha_", "mean_heat")  # in the names of columns that hold also where a map is empty
OF_ALPHAS = {"count": pa.int64(), "positive": pa.int64(), "min": pa.float64(), "max": pa.float64(), "max_positive": pa.float64()}
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
        *(pa.field(f"{scores}_alpha_{name}", kind) for scores in SCORES for name, kind in OF_ALPHAS.items()),
        *(pa.field(name, pa.float64()) for name in (*SHRINKAGE, *HEATS, *CONTROLS)),
    ]
)


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
        lock = (run / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write to the run folder {run}: {error.strerror}; choose another --out") from None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that decoding processes do not inherit
        except (BlockingIOError, PermissionError):
            raise InputError(f"another process is working on {run}; wait for it, or choose another --out") from None
        except OSError:  # a shared file system without locks: two runs at once waste work and spoil nothing
            pass
        if not (run / "manifest.json").exists():
            write_manifest(run, {"finished": False, "experiment": experiment})
        check(run, experiment)
        yield
    (run / ".lock").unlink(missing_ok=True)


def check(run: Path, experiment: Experiment) -> None:
    """See to it that a run is one of an experiment.

    Raises:
        InputError: if the folder is not a run, or holds another experiment; the line names the difference.
    """
    there = read_manifest(run)["experiment"]
    for key in differing(there, experiment):
        if key == "probe":
            changed = "its code, or weights that its code makes or loads, have changed"
            raise InputError(f"the network gives other numbers than that of {run}: {changed}; choose another --out")
        found, wanted = there.get(key), experiment.get(key)
        raise InputError(f"{run} holds a run with {key} = {found}, and this one has {wanted}; choose another --out")


class Told(dict[str, Any]):
    """The content of a manifest; a key that it lacks is an InputError."""

    def __missing__(self, key: str) -> Any:
        raise InputError(f"the run's manifest.json lacks {key}: an older version wrote it; repeat the command that made the run")


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        InputError: if the folder is not a run.
    """
    try:
        manifest = json.loads((run / "manifest.json").read_text("utf-8"))
        return Told({**manifest, "finished": manifest["finished"], "experiment": Told(manifest["experiment"])})
    except FileNotFoundError:
        raise InputError(f"{run} is not a run: it has no manifest.json; make one with gradcampp evaluate --out {run}") from None
    except DAMAGED as error:
        raise InputError(f"cannot read {run / 'manifest.json'}: {error}; expected what gradcampp evaluate wrote") from None


def write_manifest(run: Path, content: Mapping[str, Any]) -> None:
    """Replace the manifest of a run."""
    with atomic_write(run / "manifest.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def parts(run: Path) -> list[int]:
    """The numbers of the finished parts of a run, in order."""
    return sorted(int(file.stem) for file in (run / "records.parquet").glob("[0-9]*.parquet"))


def write_part(run: Path, part: int, rows: pa.Table, alphas: Mapping[Scores, Histogram], skipped: Mapping[str, str]) -> None:
    """Add a finished part to a run, its records last.

    ``rows`` are those of its photographs in order, with the columns of ``SCHEMA``, ``alphas`` the histograms of theirs;
    ``skipped`` says why others could not be read.
    """
    extremes = {scores: [alphas[scores].minimum, alphas[scores].maximum] for scores in SCORES}
    columns = {scores: alphas[scores].counts for scores in SCORES}
    counted = pa.table(columns, metadata={"extremes": json.dumps(extremes)})
    told = rows.replace_schema_metadata({"skipped": json.dumps(dict(skipped))})
    for kind, table in (("alphas", counted), ("records", told)):
        with atomic_write(_file(run, kind, part)) as temporary, temporary.open("wb") as target:
            pq.write_table(table, target, compression="zstd")


def read_part(run: Path, part: int) -> tuple[dict[str, int], dict[str, str]] | None:
    """The images of a part with the sizes of their files in bytes, and why others were skipped; None where it is damaged.

    A power failure may leave files half on disk, and an older version wrote fewer columns.
    """
    try:
        _read(_file(run, "alphas", part), SCORES)
        table = _read(_file(run, "records", part), ["image", "bytes"], whole=SCHEMA.names)
        images = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return images, json.loads(table.schema.metadata[b"skipped"])
    except DAMAGED:
        return None


def read_files(run: Path, part: int) -> pd.DataFrame:
    """Photographs of a part, ``image``, ``label``, ``sha256``, and when it was ``written`` (s); none where it is damaged."""
    columns, file = ["image", "label", "sha256"], _file(run, "records", part)
    try:
        found: pd.DataFrame = _read(file, columns).to_pandas()[columns].assign(written=file.stat().st_mtime)
    except DAMAGED:
        found = pd.DataFrame(columns=[*columns, "written"])
    return found


def remove_part(run: Path, part: int) -> None:
    """Forget a part."""
    for kind in ("records", "alphas"):
        _file(run, kind, part).unlink(missing_ok=True)


def read_columns(run: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of all finished parts, one row an image, sorted by path.

    Raises:
        InputError: if a part cannot be read, or lacks a column.
    """
    with _readable(run / "records.parquet"):
        wanted = pa.schema([SCHEMA.field(name) for name in columns])  # a part that somebody wrote again may have others
        tables = [_read(_file(run, "records", part), columns).cast(wanted) for part in parts(run)]
        rows: pd.DataFrame = pa.concat_tables(tables).to_pandas()  # pyarrow's own way keeps what each file says of itself
    return rows


def empty(rows: pd.DataFrame, scores: Scores) -> pd.Series[bool]:
    """Where the maps of Grad-CAM+ and Grad-CAM++ are both zeros."""
    return (rows[[f"{column(scores, method)}_mean_heat" for method in METHODS[1:]]] == 0).all(axis=1)


def _file(run: Path, kind: str, part: int) -> Path:
    return run / f"{kind}.parquet" / f"{part:05d}.parquet"


def _read(file: Path, columns: Sequence[str], whole: Sequence[str] = ()) -> pa.Table:
    """Some columns of a file that has these and those that make it ``whole``."""
    with file.open("rb") as source:
        there = pq.read_schema(source).names
        if lacking := [name for name in (*columns, *whole) if name not in there]:
            if any("/" in name for name in there):  # as in evidence/, where only those that an audit reports are kept
                said = f"holds an audit, without {listed(lacking)}; gradcampp evaluate makes what compare, report and claims read"
                raise InputError(f"{file.parent.parent} {said}")
            raise ValueError(f"an older version wrote it, without {listed(lacking)}")
        source.seek(0)  # pyarrow takes a path with a colon for an address, and threads keep memory each
        return pq.read_table(source, columns=list(columns), use_threads=False)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        advice = "repeat the command that made the run, and it computes anew what is damaged"
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}; {advice}") from None


@dataclass(frozen=True)
class Run:
    """A finished run: what ``evaluate`` or ``reproduce`` left in a folder, read when it is asked for.

    Reading raises ``InputError`` if the folder is not a run, the run is not finished, or a file is damaged.

    Attributes:
        folder: the run folder.
    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Experiment, counts, accuracy and versions."""
        return read_manifest(self.folder)

    @property
    def title(self) -> str:
        """The name that its maker gave it (``made``, ``title``), or network and layer: ``vgg16, features.29``."""
        layer = self.manifest["experiment"]["layer"]
        default = "mini" if layer == mini.LAYER else "{model}, {layer}".format_map(self.manifest["experiment"])
        return str(self.manifest.get("made", {}).get("title", default))

    @property
    def score(self) -> Score:
        """The meaning of its network's outputs; older versions knew the softmax only."""
        kind: Score = self.manifest["experiment"].get("score", "softmax")
        return kind

    @property
    def finished(self) -> bool:
        """True once every photograph has its row."""
        return (self.folder / "manifest.json").exists() and bool(self.manifest["finished"])

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row an image, sorted by path; null scores where the label's score is not over the threshold, or maps are empty.

        Where Grad-CAM+ and Grad-CAM++ both have an empty map (no unit with a positive gradient adds to it), their explanation
        maps are black, and what they score says nothing of either: that image has no scores before, or behind, the softmax.
        """
        self._check_finished()
        rows = read_columns(self.folder, SCHEMA.names)
        if len(rows) != self.manifest.get("images", len(rows)):
            found = f"{self.folder / 'records.parquet'} has {len(rows)} of {self.manifest['images']} images"
            raise InputError(f"{found}: a part is lost; repeat the command that made the run, and it computes that anew")
        for scores in SCORES:
            of_maps = [name for name in SCHEMA.names if name.startswith(scores) and not any(part in name for part in NOT_OF_MAPS)]
            rows.loc[empty(rows, scores), of_maps] = math.nan
        return rows

    @cached_property
    def alphas(self) -> dict[Scores, Histogram]:
        """The non-zero alphas of all images, pre and post."""
        self._check_finished()
        counts = {scores: np.zeros(BINS, np.int64) for scores in SCORES}
        ends: dict[Scores, list[float]] = {scores: [math.inf, -math.inf] for scores in SCORES}
        for part in parts(self.folder):
            file = _file(self.folder, "alphas", part)
            with _readable(file):
                table = _read(file, SCORES)
                extremes = json.loads(table.schema.metadata[b"extremes"])
            for scores in SCORES:
                counts[scores] += table[scores].to_numpy()
                low, high = extremes[scores]
                ends[scores] = [min(ends[scores][0], low), max(ends[scores][1], high)]
        return {scores: Histogram(counts[scores], *ends[scores]) for scores in SCORES}

    @cached_property
    def positive_alphas(self) -> dict[Scores, Histogram]:
        """Those of them that count, at positive gradients; for layers without negative activations."""
        with _readable(self.folder / "alphas.parquet"):
            counts = {scores: int(self.records[f"{scores}_alpha_positive"].sum()) for scores in SCORES}
            return {scores: positive(self.alphas[scores], count) for scores, count in counts.items()}

    @property
    def left_out(self) -> dict[Scores, dict[str, int]]:
        """Images that are explained and do not count, by the reason, and those with an empty map of Grad-CAM alone, which do."""
        found = {}
        for scores in SCORES:
            explained = self.records[over_threshold(self.records["score"], self.manifest["experiment"])]
            names = [column(scores, method) for method in METHODS]
            none = empty(explained, scores)
            found[scores] = {
                "empty": int(none.sum()),
                "not finite": int((explained[names].isna().any(axis=1) & ~none).sum()),
                "empty of Grad-CAM": int(((explained[f"{names[0]}_mean_heat"] == 0) & ~none).sum()),
                "explained": len(explained),
            }
        return found

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
        return self._table("localisation")

    @cached_property
    def competition(self) -> pd.DataFrame | None:
        """Rows of :func:`gradcampp.evaluation.localisation.compete`, or None where the run has none.

        Raises:
            InputError: if they cannot be read.
        """
        return self._table("competition") if (self.folder / "competition.parquet").exists() else None

    def _table(self, name: str) -> pd.DataFrame:
        with _readable(self.folder / f"{name}.parquet"):
            return pd.read_parquet(self.folder / f"{name}.parquet")

    def _check_finished(self) -> None:
        if not self.manifest["finished"]:
            advice = "repeat the command that started it, and it goes on where it stopped"
            raise InputError(f"the run {self.folder} is not finished; {advice}")
