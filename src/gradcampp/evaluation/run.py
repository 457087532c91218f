"""Photographs become a run."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from gradcampp.cam import COLUMNS, SCORES
from gradcampp.errors import InputError, listed
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import Accumulator
from gradcampp.evaluation.maps import BatchLimit, reuse_large_blocks
from gradcampp.evaluation.measure import Measured, measure
from gradcampp.evaluation.photographs import Photograph, load
from gradcampp.evaluation.processes import World, alone
from gradcampp.evaluation.records import Experiment
from gradcampp.networks.capture import Network, computing


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; none of it changes a result beyond rounding.

    Attributes:
        batch_size: images that pass through the network together.
        workers: processes that decode photographs; 0 decodes between the batches.
        device: ``cpu`` or ``cuda``.
        skip_bad_images: leave out unreadable photographs instead of stopping at the first.
        checkpoint_seconds: shortest time between two checkpoints; long runs space them at 1 % of their age.
    """

    batch_size: int
    workers: int
    device: str
    skip_bad_images: bool = False
    checkpoint_seconds: float = 4.0


class _Checkpoint:
    """Finished batches that are not on disk yet."""

    def __init__(self, run: Path, shortest: float) -> None:
        self.run, self.shortest = run, shortest
        self.started = self.written = time.monotonic()
        self.parts: list[str] = []
        self._start()

    def _start(self) -> None:
        self.rows: list[records.Row] = []
        self.alphas = {scores: Accumulator() for scores in SCORES}
        self.whole = True

    def add(self, measured: Measured) -> None:
        """Take a batch; where an interrupt cuts this short, what is held is not written."""
        self.whole = False
        self.rows += measured.rows
        for scores, vector in measured.alphas.items():
            self.alphas[scores].add(vector)
        self.whole = True
        now = time.monotonic()
        if now - self.written >= max(self.shortest, (now - self.started) / 100):
            self.write()

    def write(self) -> None:
        """Put what is held on disk."""
        if self.rows and self.whole:
            streams = {scores: held.stream() for scores, held in self.alphas.items()}
            self.parts.append(records.write_part(self.run, self.rows, streams))
        self._start()
        self.written = time.monotonic()


def evaluate(
    network: Network,
    photographs: list[Photograph],
    folder: Path,
    run: Path,
    experiment: Experiment,
    execution: Execution,
    world: World | None = None,
) -> dict[str, Any]:
    """Evaluate a network on photographs, or finish what an interrupted run has left undone.

    Args:
        network: a module on any device; moved to the one asked for.
        photographs: what to evaluate, sorted by path.
        folder: the data folder that their paths are relative to.
        run: the run folder; made where it does not exist.
        experiment: what the numbers depend on.
        execution: how to carry it out.
        world: the processes that share the run, each of which makes this call; None for this one alone.

    Returns:
        The manifest of the finished run, in every process.

    Raises:
        InputError: for an unusable run folder, an unreadable photograph (unless skipped) or logits that
            are not finite. Whatever was finished before is kept.
    """
    world = world or alone()
    if network.precision == "tf32" and (execution.device == "cpu" or torch.cuda.get_device_capability() < (8, 0)):
        raise InputError("--precision tf32 needs an NVIDIA GPU of 2020 or later (Ampere); choose float32 or bf16")
    if world.rank:
        done = _plan_of_the_first(photographs, run, experiment, execution, world)
        with _progress(world, done) as advance:
            todo = world.share(_batches(photographs, done, execution.batch_size))
            world.say(f"finished {world.rank}", _work(network, todo, folder, run, experiment, execution, advance))
        manifest: dict[str, Any] = world.hear("manifest")  # not before: a machine that leaves early may take the store along
        return manifest
    with records.opened(run, experiment):
        done = _done(photographs, folder, run)
        settings = _settings(photographs, experiment, execution)
        world.say("plan", {"settings": settings, "done": "".join("1" if is_done else "0" for is_done in done)})
        manifest = records.read_manifest(run)
        if manifest["finished"]:
            records.clear(run)
        else:
            kept = records.parts(run)
            with _progress(world, done) as advance:
                todo = world.share(_batches(photographs, done, execution.batch_size))
                shares = [_work(network, todo, folder, run, experiment, execution, advance)]
                shares += [world.hear(f"finished {rank}", advance) for rank in range(1, world.size)]
            manifest = _merged(kept, shares, folder, run, experiment, execution)
        world.say("manifest", manifest)
    return manifest


def _work(
    network: Network,
    todo: list[list[Photograph]],
    folder: Path,
    run: Path,
    experiment: Experiment,
    execution: Execution,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Measure batches and write them to the run; returns ``parts``, their names, and ``skipped``, reasons by image."""
    skipped: dict[str, str] = {}
    if not todo:
        return {"parts": [], "skipped": skipped}
    if execution.device == "cpu":
        reuse_large_blocks()
    batches = iter(load(folder, todo, network.preprocessing, execution.workers, pinned=execution.device == "cuda"))
    network.module.to(execution.device).to(memory_format=network.memory_format)  # while the first batches are decoded
    limit = BatchLimit(execution.batch_size)
    checkpoint = _Checkpoint(run, execution.checkpoint_seconds)
    with computing("float32", execution.device):  # everything but the network itself
        try:
            for batch in batches:
                if batch.photographs:
                    checkpoint.add(measure(network, batch, experiment.threshold, execution.device, limit))
                for image, reason in batch.bad.items():
                    if not execution.skip_bad_images:
                        raise InputError(f"{reason} (--skip-bad-images leaves it out)")
                    tqdm.write(f"skipped: {reason}", file=sys.stderr)
                    skipped[image] = reason
                advance(len(batch.photographs) + len(batch.bad))
        except (torch.OutOfMemoryError, MemoryError):
            raise InputError("out of memory; choose a smaller --batch-size, then go on") from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            if "Terminated" in str(error):  # together with this process, which hears of it a moment later
                raise KeyboardInterrupt from None
            raise InputError(
                f"a process that decodes photographs was killed ({error}); choose fewer --workers, then go on"
            ) from None
        finally:
            checkpoint.write()
    return {"parts": checkpoint.parts, "skipped": skipped}


def _merged(
    kept: list[str], shares: list[dict[str, Any]], folder: Path, run: Path, experiment: Experiment, execution: Execution
) -> dict[str, Any]:
    """The manifest of a run after the parts that were kept and those of all processes have been merged."""
    names = [*kept, *(name for share in shares for name in share["parts"])]
    skipped = {image: reason for share in shares for image, reason in share["skipped"].items()}
    if not names:
        raise InputError(f"data {folder}: none of the {len(skipped)} photographs can be read")
    if not all(records.appeared(run / "parts" / name) for name in names):
        raise InputError(f"{run} does not show what the other processes wrote; --out must be a folder that all machines share")
    records.finish(
        run, names, lambda groups: _details(groups, experiment, execution, folder, skipped) | {"processes": len(shares)}
    )
    return records.read_manifest(run)


def _settings(photographs: list[Photograph], experiment: Experiment, execution: Execution) -> dict[str, Any]:
    """What has to be the same in all processes that share a run, as JSON gives it back."""
    listing = "".join(f"{photograph.label}  {photograph.image}\n" for photograph in photographs)
    settings = {
        "number of photographs": len(photographs),
        "photographs and labels": hashlib.sha256(listing.encode()).hexdigest(),
        "batch size": execution.batch_size,
        "device": execution.device,
        **asdict(experiment),
    }
    return dict(json.loads(json.dumps(settings)))


def _plan_of_the_first(
    photographs: list[Photograph], run: Path, experiment: Experiment, execution: Execution, world: World
) -> list[bool]:
    """Which photographs need no more work, as the process with rank 0 found them when it opened the run.

    All have to know the same: who looked later would see parts that the others have added meanwhile.
    """
    plan = world.hear("plan")
    for name, value in _settings(photographs, experiment, execution).items():
        if plan["settings"][name] != value:
            raise InputError(
                f"{name}: {value} in process {world.rank} (machine {platform.node()}), and {plan['settings'][name]} in "
                "process 0; expected the same data, weights, device and options everywhere"
            )
    if not records.appeared(run / "manifest.json"):
        raise InputError(
            f"{run} is not there for process {world.rank} (machine {platform.node()}); "
            "--out must be a folder that all machines share"
        )
    return [is_done == "1" for is_done in plan["done"]]


@contextlib.contextmanager
def _progress(world: World, done: list[bool]) -> Iterator[Callable[..., None]]:
    """What advances the progress of all processes by a number of images; the first one draws it."""
    before = sum(done)
    with tqdm(total=len(done), initial=before, unit="image", disable=None if world.rank == 0 else True) as bar:

        def advance(images: int = 0) -> None:
            bar.update(before + world.add("images", images) - bar.n)

        yield advance


def _done(photographs: list[Photograph], folder: Path, run: Path) -> list[bool]:
    """Which photographs need no more work.

    Raises:
        InputError: if the run has results for other photographs, or is finished without some of these.
    """
    sizes, known = records.finished_images(run), {photograph.image for photograph in photographs}
    for image, size in sizes.items():
        if image in known and (folder / image).stat().st_size != size:
            raise InputError(f"{folder / image} is not the file that {run} holds results for; choose another --out")
        if image not in known:
            raise InputError(f"{run} holds results for {image}, which is not among the photographs now; choose another --out")
    manifest = records.read_manifest(run)
    if manifest["finished"]:
        added = known - sizes.keys() - manifest["skipped"].keys()
        if added:
            raise InputError(f"{run} is finished and has no results for {listed(sorted(added))}; choose another --out")
        return [True] * len(photographs)
    return [photograph.image in sizes for photograph in photographs]


def _batches(photographs: list[Photograph], done: list[bool], batch_size: int) -> list[list[Photograph]]:
    """What is left to do, in batches whose limits depend neither on what is done already nor on who does it.

    So interrupted runs, and runs shared by any number of processes, compute the same batches, hence the same bits.
    """
    starts = range(0, len(photographs), batch_size)
    left = [[photographs[i] for i in range(start, min(start + batch_size, len(done))) if not done[i]] for start in starts]
    return [batch for batch in left if batch]


def _details(
    groups: Iterable[pd.DataFrame], experiment: Experiment, execution: Execution, folder: Path, skipped: Mapping[str, str]
) -> dict[str, Any]:
    """What a manifest says of a finished run, from its records some thousands of rows at a time."""
    listing = hashlib.sha256()
    counts: Counter[str] = Counter()
    constant, undefined = (Counter(dict.fromkeys(COLUMNS, 0)) for _ in range(2))
    for rows in groups:
        listing.update(
            "".join(f"{digest}  {image}\n" for digest, image in zip(rows["sha256"], rows["image"], strict=True)).encode()
        )
        over = rows["score"] > experiment.threshold
        ranks = rows["label_rank"]
        counts.update(images=len(rows), over=int(over.sum()), first=int((ranks <= 1).sum()), five=int((ranks <= 5).sum()))
        constant.update({name: int((rows[f"{name}_mean_heat"] == 0).sum()) for name in COLUMNS})
        undefined.update({name: int((over & rows[name].isna()).sum()) for name in COLUMNS})
    return {
        "images": counts["images"],
        "over_threshold": counts["over"],
        "top1": counts["first"] / counts["images"],
        "top5": counts["five"] / counts["images"],
        "skipped": dict(skipped),
        "constant_maps": dict(constant),
        "undefined_maps": dict(undefined),
        "data": {"folder": folder.name, "sha256": listing.hexdigest()},
        "device": torch.cuda.get_device_name() if execution.device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "batch_size": execution.batch_size,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("gradcampp", "torch", "torchvision", "numpy", "pillow")},
        },
    }
