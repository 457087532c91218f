"""Photographs become a run."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from tqdm import tqdm

from gradcampp.cam import COLUMNS, SCORES, Scores
from gradcampp.errors import InputError, Notice, listed
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import EMPTY, Histogram, merge
from gradcampp.evaluation.experiment import Experiment, differing, over_threshold
from gradcampp.evaluation.folders import Photograph
from gradcampp.evaluation.maps import BatchLimit
from gradcampp.evaluation.measure import measure
from gradcampp.evaluation.photographs import Batch, load
from gradcampp.evaluation.processes import Processes
from gradcampp.evaluation.records import Run
from gradcampp.files import file_hash, versions
from gradcampp.networks.capture import Network, computing
from gradcampp.networks.probe import move
from gradcampp.networks.running import WITHOUT_FLOAT64

OTHER = "choose another --out"
CLOCKS = 60.0  # seconds by which those of two machines with one file system may differ
Measure = Callable[[Network, Batch, Experiment, str, BatchLimit], tuple[pa.Table, dict[Scores, Histogram]]]
BATCHES = 2  # in a part: eight and a half seconds for VGG16 on two cores, where every image is explained


@dataclass(frozen=True)
class Execution:
    """Settings that change no result beyond rounding.

    Attributes:
        batch_size: images that pass through the network together.
        workers: processes that decode photographs; 0 decodes between the batches.
        device: ``cpu``, ``cuda``, or ``mps``, on which the network runs and all else on the CPU.
        skip_bad_images: leave out unreadable photographs instead of stopping at the first.
    """

    batch_size: int
    workers: int
    device: str
    skip_bad_images: bool = False


def evaluate(
    network: Network,
    photographs: list[Photograph],
    folder: Path,
    run: Path,
    experiment: Experiment,
    execution: Execution,
    processes: Processes | None = None,
    measuring: Measure | None = None,
) -> Run:
    """Evaluate a network on photographs, or finish what an interrupted run has left undone.

    Args:
        network: on any device; moved to the one asked for.
        photographs: sorted by path.
        folder: the data folder that their paths are relative to.
        run: the run folder; made where it does not exist.
        experiment: of :func:`gradcampp.evaluation.experiment.experiment_of`.
        execution: what does not change the numbers.
        processes: those that share the run, each of which makes this call; None for this one alone.
        measuring: makes rows of a batch; may add columns to those of ``records.SCHEMA``. None measures what ``evaluate`` does.

    Returns:
        The finished run, in every process.

    Raises:
        InputError: for an unusable run folder, an unreadable photograph (unless skipped) or logits that
            are not finite. Every finished part is kept.
    """
    processes = processes or Processes()
    if network.precision == "tf32" and (execution.device != "cuda" or torch.cuda.get_device_capability() < (8, 0)):
        raise InputError("--precision tf32 needs an NVIDIA GPU of 2020 or later (Ampere); choose float32")
    with contextlib.nullcontext() if processes.rank else records.opened(run, experiment):
        size = _agree(photographs, folder, run, experiment, execution, processes)
        shares = [photographs[start : start + size] for start in range(0, len(photographs), size)]
        mine = {part: share for part, share in enumerate(shares) if part % processes.size == processes.rank}
        missing = {part: share for part, share in mine.items() if not _is_whole(run, part, share)}
        if missing:
            with _explained_errors(), computing("float32", execution.device):  # everything but the network itself
                _work(network, missing, folder, run, experiment, execution, measuring or measure)
        processes.barrier()
        if processes.rank == 0:
            _finish(run, len(shares), folder, execution, processes)
        processes.barrier()
    return Run(run)


def _agree(
    photographs: list[Photograph], folder: Path, run: Path, experiment: Experiment, execution: Execution, processes: Processes
) -> int:
    """See to it that all processes, and an earlier call, mean the same run; returns the number of photographs in a part."""
    listing = "".join(f"{photograph.label}  {photograph.image}\n" for photograph in photographs)
    settings = {
        "number of photographs": len(photographs),
        "photographs and labels": hashlib.sha256(listing.encode()).hexdigest(),
        "batch size": execution.batch_size,
        "device": execution.device,
    }
    if processes.rank == 0:
        manifest = records.read_manifest(run)
        _check_photographs(photographs, folder, run, manifest, settings["photographs and labels"])
        if not manifest["finished"]:  # a smaller batch goes on with the parts that there are
            now, begun = versions(), manifest.get("versions", {})
            told = {"part": BATCHES * execution.batch_size, "versions": now, **manifest, "settings": settings}
            records.write_manifest(run, told)
            if others := [
                f"{name} {version} (now {now[name]})" for name, version in begun.items() if now.get(name, version) != version
            ]:
                message = f"{run} was begun with {', '.join(others)}; what is computed now may differ by rounding"
                warnings.warn(message, Notice, stacklevel=2)
    processes.barrier()
    here = f"process {processes.rank} (machine {platform.node()})"
    if not (run / "manifest.json").exists():
        raise InputError(f"{run} is not there for {here}; --out must be a folder that all machines share")
    manifest = records.read_manifest(run)
    if processes.rank and not manifest["finished"]:
        told = manifest["settings"] | manifest["experiment"]
        mine = settings | experiment
        for name in differing(told, mine):
            expected = "expected the same data, weights, device and options everywhere"
            raise InputError(f"{name}: {mine[name]} in {here}, and {told[name]} in process 0; {expected}")
    return int(manifest["part"])


def _check_photographs(photographs: list[Photograph], folder: Path, run: Path, manifest: dict[str, Any], listing: object) -> None:
    """See to it that a run holds no results for other photographs, and is not finished without some of these."""
    known = {photograph.image: photograph.label for photograph in photographs}
    whole = {part: found for part in records.parts(run) if (found := records.read_part(run, part)) is not None}
    for part, (images, _) in whole.items():
        for image, size in images.items():
            if image not in known:
                raise InputError(f"{run} holds results for {image}, which is not among the photographs now; {OTHER}")
            if (folder / image).stat().st_size != size:
                raise InputError(f"{folder / image} is not the file that {run} holds results for; {OTHER}")
        _check_files(records.read_files(run, part), known, folder, run)
    if manifest["finished"] and manifest["settings"]["photographs and labels"] != listing:
        added = known.keys() - {image for found in whole.values() for images in found for image in images}
        if added:
            raise InputError(f"{run} is finished and has no results for {listed(sorted(added))}; choose another --out")


def _check_files(rows: pd.DataFrame, labels: Mapping[str, int], folder: Path, run: Path) -> None:
    """See to it that photographs have the labels and the bytes that a part holds results for.

    Only those are read whose file was written or put there later than the part; the time of that (ctime) cannot be set back.
    """
    for image, label, digest, written in rows.itertuples(index=False):
        if labels[image] != label:
            raise InputError(f"{run} holds results for {image} as class {label}, and its class is now {labels[image]}; {OTHER}")
        if (folder / image).stat().st_ctime > written - CLOCKS and file_hash(folder / image) != digest:
            raise InputError(f"{folder / image} is not the file that {run} holds results for: its content has changed; {OTHER}")


def _is_whole(run: Path, part: int, share: list[Photograph]) -> bool:
    """True for a part on disk that holds these photographs; another one is removed."""
    found = records.read_part(run, part)
    if found is not None and sorted([*found[0], *found[1]]) == [photograph.image for photograph in share]:
        return True
    records.remove_part(run, part)
    return False


def _work(
    network: Network,
    missing: dict[int, list[Photograph]],
    folder: Path,
    run: Path,
    experiment: Experiment,
    execution: Execution,
    measuring: Measure,
) -> None:
    """Measure parts and write them to the run."""
    size = execution.batch_size
    batches = {part: [share[start : start + size] for start in range(0, len(share), size)] for part, share in missing.items()}
    todo = list(itertools.chain(*batches.values()))
    decoded = iter(load(folder, todo, network.preprocessing, execution.workers, pinned=execution.device == "cuda"))
    network.module.to(memory_format=network.memory_format)
    move(network, execution.device)  # while the first batches are decoded
    numbers_on = "cpu" if execution.device in WITHOUT_FLOAT64 else execution.device
    limit = BatchLimit(size)
    with tqdm(total=sum(map(len, missing.values())), unit="image", disable=None) as progress:
        for part, own in batches.items():
            tables = [records.SCHEMA.empty_table()]
            alphas = dict.fromkeys(SCORES, EMPTY)
            skipped: dict[str, str] = {}
            for _ in own:
                batch = next(decoded)
                if batch.photographs:
                    rows, counted = measuring(network, batch, experiment, numbers_on, limit)
                    tables.append(rows)
                    alphas = {scores: merge(alphas[scores], counted[scores]) for scores in SCORES}
                for reason in batch.bad.values():
                    if not execution.skip_bad_images:
                        raise InputError(f"{reason} (--skip-bad-images leaves it out)")
                    tqdm.write(f"skipped: {reason}", file=sys.stderr)
                skipped |= batch.bad
                progress.update(len(batch.photographs) + len(batch.bad))
            records.write_part(run, part, pa.concat_tables(tables, promote_options="default"), alphas, skipped)


@contextlib.contextmanager
def _explained_errors() -> Iterator[None]:
    """Errors of memory and of decoding processes, each in a line that says how to go on."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise InputError("out of memory; choose a smaller --batch-size, then go on") from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if "Terminated" in str(error):  # together with this process, which hears of it a moment later
            raise KeyboardInterrupt from None
        raise InputError(f"a process that decodes photographs was killed ({error}); choose fewer --workers, then go on") from None


def _finish(run: Path, count: int, folder: Path, execution: Execution, processes: Processes) -> None:
    """Say in the manifest that all parts are there, and what they hold."""
    manifest = records.read_manifest(run)
    if manifest["finished"]:
        return
    for half in run.glob("*.parquet/.*"):  # of writes that were killed
        half.unlink(missing_ok=True)
    for part in set(records.parts(run)) - set(range(count)):  # of a call with more photographs
        records.remove_part(run, part)
    if len(records.parts(run)) < count:
        raise InputError(f"{run} does not show what the other processes wrote; --out must be a folder that all machines share")
    skipped = {image: reason for part in range(count) for image, reason in (records.read_part(run, part) or ({}, {}))[1].items()}
    rows = records.read_columns(run, ["image", "sha256", "score", "label_rank", *COLUMNS, *records.HEATS])
    if not len(rows):
        raise InputError(f"data {folder}: none of the {len(skipped)} photographs can be read")
    listing = "".join(f"{digest}  {image}\n" for digest, image in zip(rows["sha256"], rows["image"], strict=True))
    over = over_threshold(rows["score"], manifest["experiment"])
    ranked = manifest["experiment"].get("score") != "logit"  # a quantity is not right or wrong
    details = {
        "images": len(rows),
        "over_threshold": int(over.sum()),
        "top1": int((rows["label_rank"] <= 1).sum()) / len(rows) if ranked else None,
        "top5": int((rows["label_rank"] <= 5).sum()) / len(rows) if ranked else None,
        "skipped": skipped,
        "constant_maps": {name: int((rows[f"{name}_mean_heat"] == 0).sum()) for name in COLUMNS},
        "undefined_maps": {name: int((over & rows[name].isna()).sum()) for name in COLUMNS},
        "data": {"folder": folder.name, "sha256": hashlib.sha256(listing.encode()).hexdigest()},
        "processes": processes.size,
        "device": torch.cuda.get_device_name() if execution.device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "batch_size": execution.batch_size,
        "versions": versions(),
    }
    records.write_manifest(run, {**manifest, "finished": True, **details})
