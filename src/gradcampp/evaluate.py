"""The whole chain: photographs to maps, maps to explanation maps, their scores to records."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from gradcampp import cam, data, records
from gradcampp.accumulate import Accumulator
from gradcampp.certificate import certificate
from gradcampp.config import COLUMNS, MAPS, METHODS, SCORES, Execution, Experiment, Method, Scores
from gradcampp.data import Batch, Photograph
from gradcampp.distributed import World, alone
from gradcampp.errors import InputError, listed
from gradcampp.explain import explanation_maps, min_max, upsample
from gradcampp.localisation import METRICS
from gradcampp.memory import BatchLimit, in_batches, reuse_large_blocks
from gradcampp.network import Capture, Network, capture, computing, forward, normalise, probabilities
from gradcampp.scenes import Scene


def capture_photographs(network: Network, pixels: Tensor, labels: Tensor) -> Capture:
    """Feature maps, gradients and logits of photographs.

    Args:
        network: a module on the device of the pixels.
        pixels: in [0, 1], (B, 3, crop, crop).
        labels: class to explain for each photograph, (B,) int64.

    Returns:
        All of it in float32 or better, whatever the precision of the network.
    """
    with computing(network.precision, pixels.device.type):
        captured = capture(network.module, network.layer, _inputs(network, pixels), labels)
    gradients = {scores: _single(values) for scores, values in captured.gradients.items()}
    return Capture(_single(captured.activations), gradients, _single(captured.logits))


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def heatmaps(captured: Capture) -> Tensor:
    """All six maps of each photograph, min-max normalised on the coarse grid.

    Returns:
        (B, 6, H, W), in the order of ``config.MAPS``.
    """
    maps = [
        cam.heatmap(cam.weights(method, captured.activations, captured.gradients[scores]), captured.activations)
        for scores, method in MAPS
    ]
    return min_max(torch.stack(maps, 1))


def score_explanation_maps(
    network: Network, maps: Tensor, pixels: Tensor, labels: Tensor, limit: BatchLimit
) -> tuple[Tensor, Tensor]:
    """What the network thinks of each photograph seen through each of its maps.

    Args:
        network: a module on the device of the maps.
        maps: min-max normalised coarse maps, (B, M, H, W).
        pixels: in [0, 1], (B, 3, crop, crop).
        labels: class whose softmax score is wanted, (B,) int64.
        limit: how many explanation maps go through the network together.

    Returns:
        Softmax scores and mean heat of the upsampled maps, both (B, M) float64. Both are NaN for a map
        that is not finite.

    Source: Lerma & Lucas (2022), eq. 15 and section 4.
    """
    count = maps.shape[1]
    coarse = maps.flatten(0, 1)  # (B M, H, W)
    owners = torch.arange(len(coarse), device=maps.device) // count  # the photograph that each map belongs to

    def score(part: slice) -> list[Tensor]:
        heat = upsample(coarse[part], (pixels.shape[2], pixels.shape[3]))  # (n, crop, crop)
        explanations = explanation_maps(heat, pixels[owners[part]])
        with computing(network.precision, explanations.device.type):
            logits = forward(network.module, _inputs(network, explanations))
        wanted = labels[owners[part], None]
        return [probabilities(logits).gather(1, wanted)[:, 0], heat.mean((1, 2)).double()]

    scores, mean_heat = in_batches(score, len(coarse), limit)
    return scores.reshape(-1, count), mean_heat.reshape(-1, count)


def _inputs(network: Network, pixels: Tensor) -> Tensor:
    inputs = normalise(pixels, network.preprocessing.mean, network.preprocessing.std)
    return inputs.contiguous(memory_format=network.memory_format)


@dataclass(frozen=True)
class Measured:
    """The rows of a batch, and the non-zero alphas of all its photographs as a vector."""

    rows: list[records.Row]
    alphas: Mapping[Scores, Tensor]


def measure(network: Network, batch: Batch, threshold: float, device: str, limit: BatchLimit) -> Measured:
    """Everything that a run records about a batch of photographs.

    Raises:
        InputError: if logits, activations or gradients are not finite; the line names the photograph.
    """
    pixels = batch.pixels.to(device, non_blocking=True).float().div_(255)
    labels = torch.tensor([photograph.label for photograph in batch.photographs], device=device)

    def photographs(part: slice) -> list[Tensor]:
        captured = capture_photographs(network, pixels[part], labels[part])
        return [captured.activations, *captured.gradients.values(), captured.logits]

    activations, pre, post, logits = in_batches(photographs, len(pixels), limit)
    captured = Capture(activations, {"pre": pre, "post": post}, logits)
    _check_finite(captured, batch.photographs)
    own = logits.gather(1, labels[:, None])
    scores = probabilities(logits).gather(1, labels[:, None])[:, 0]
    over = (scores > threshold).nonzero()[:, 0]
    alphas = {kind: cam.alphas(activations, captured.gradients[kind]) for kind in SCORES}
    columns: dict[str, list[Any]] = {
        "image": [photograph.image for photograph in batch.photographs],
        "label": labels.tolist(),
        "score": scores.tolist(),
        "prediction": logits.argmax(1).tolist(),
        "label_rank": (1 + (logits > own).sum(1)).tolist(),
        "sha256": batch.hashes,
        "bytes": batch.sizes,
        **{
            f"{kind}_alpha_{name}": values
            for kind in SCORES
            for name, values in _extremes(alphas[kind], captured.gradients[kind]).items()
        },
    }
    rows: list[records.Row] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if len(over):

        def explained(part: slice) -> list[Tensor]:
            chosen = _select(captured, over[part])
            return [heatmaps(chosen), _certified(chosen)]

        maps, bounds = in_batches(explained, len(over), limit)
        found, mean_heat = score_explanation_maps(network, maps, pixels[over], labels[over], limit)
        for index, row_scores, row_heat, row_bounds in zip(
            over.tolist(), found.tolist(), mean_heat.tolist(), bounds.tolist(), strict=True
        ):
            rows[index] |= {name: bound for name, bound in zip(records.BOUNDS, row_bounds, strict=True) if not math.isnan(bound)}
            for name, score, heat in zip(COLUMNS, row_scores, row_heat, strict=True):
                rows[index] |= {} if math.isnan(score) else {name: score, f"{name}_mean_heat": heat}
    return Measured(rows, {kind: alphas[kind].masked_select(captured.gradients[kind] != 0) for kind in SCORES})


def _check_finite(captured: Capture, photographs: Sequence[Photograph]) -> None:
    every = [("logits", captured.logits), ("activations", captured.activations)]
    every += [("gradients", gradients) for gradients in captured.gradients.values()]
    finite = torch.stack([values.isfinite().flatten(1).all(1) for _, values in every], 1)  # (B, 4)
    if not finite.all():
        image, place = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"the network's {every[place][0]} for {photographs[image].image} are not finite (NaN, infinity); "
            "check the weights, --mean, --std"
        )


def _certified(captured: Capture) -> Tensor:
    """Of each photograph, how far the Grad-CAM++ and Grad-CAM+ maps may differ and do.

    Returns:
        (B, 4) float64, in the order of ``records.BOUNDS``; NaN for a photograph with a negative activation, of which the
        theorems say nothing.
    """
    covered = (captured.activations.flatten(1) >= 0).all(1)
    activations = captured.activations[covered].double()
    columns: list[Tensor] = []
    for scores in SCORES:
        gradients = captured.gradients[scores][covered].double()
        plus, plusplus = (
            min_max(cam.heatmap(cam.weights(method, activations, gradients), activations)) for method in METHODS[1:]
        )
        columns += [certificate(activations, gradients), (plus - plusplus).abs().amax((1, 2))]
    bounds = activations.new_full((len(covered), len(records.BOUNDS)), torch.nan)
    bounds[covered] = torch.stack(columns, 1)
    return bounds


def _extremes(alphas: Tensor, gradients: Tensor) -> dict[str, list[Any]]:
    """Of each photograph, how many units have a gradient, and the extreme alphas among them.

    The largest is also that among the units that count, those with a positive gradient. None where there are no such units.
    """
    some, positive = gradients != 0, gradients > 0  # (B, K, H, W)
    counts = some.sum((1, 2, 3))
    low = torch.where(some, alphas, torch.inf).amin((1, 2, 3))
    high = torch.where(some, alphas, -torch.inf).amax((1, 2, 3))
    counted = torch.where(positive, alphas, -torch.inf).amax((1, 2, 3))
    table = torch.stack([values.double() for values in (counts, positive.sum((1, 2, 3)), low, high, counted)])
    numbers, positives, lows, highs, largest = table.tolist()  # at once: on a GPU each copy waits for all work before it
    return {
        "count": [int(number) for number in numbers],
        "min": [value if number else None for value, number in zip(lows, numbers, strict=True)],
        "max": [value if number else None for value, number in zip(highs, numbers, strict=True)],
        "max_positive": [value if number else None for value, number in zip(largest, positives, strict=True)],
    }


def _select(captured: Capture, indices: Tensor) -> Capture:
    gradients = {scores: values[indices] for scores, values in captured.gradients.items()}
    return Capture(captured.activations[indices], gradients, captured.logits[indices])


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
    batches = iter(data.load(folder, todo, network.preprocessing, execution.workers, pinned=execution.device == "cuda"))
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


@dataclass(frozen=True)
class Explanation:
    """A photograph explained for one class.

    Attributes:
        pixels: as the network sees it, in [0, 1], (3, crop, crop).
        label: the class.
        probabilities: softmax scores of all classes, (C,).
        maps: upsampled min-max maps by method, (crop, crop) each.
        alphas, products: the non-zero alphas and the terms s * g at the same units, (n,) each.
    """

    pixels: Tensor
    label: int
    probabilities: Tensor
    maps: dict[Method, Tensor]
    alphas: Tensor
    products: Tensor


def explain(network: Network, photograph: Tensor, labels: Sequence[int], scores: Scores) -> list[Explanation]:
    """Explain one photograph for some classes.

    Args:
        network: a module on any device.
        photograph: uint8, (3, crop, crop).
        labels: the classes; none means the one with the highest score.
        scores: explain the pre- or the post-softmax score.

    Returns:
        One explanation a class, in the order given.

    Raises:
        InputError: if the network's logits are not finite.
    """
    device = next((parameter.device for parameter in network.module.parameters()), torch.device("cpu"))
    pixels = photograph.to(device)[None].float() / 255
    with computing(network.precision, device.type):
        logits = _single(forward(network.module, _inputs(network, pixels)))
    if not logits.isfinite().all():
        raise InputError("the network's logits are not finite (NaN, infinity); check the weights, --mean, --std")
    chosen = torch.tensor(list(labels) or [int(logits.argmax())], device=device)
    captured = capture_photographs(network, pixels.expand(len(chosen), -1, -1, -1), chosen)
    kept = [index for index, (kind, _) in enumerate(MAPS) if kind == scores]
    maps = heatmaps(captured)[:, kept]  # (n, 3, H, W)
    large = upsample(maps.flatten(0, 1), (pixels.shape[2], pixels.shape[3]))  # (3 n, crop, crop)
    large = large.reshape(-1, len(kept), *large.shape[1:])
    gradients = captured.gradients[scores]
    products = cam.activation_sums(captured.activations) * gradients
    alphas = cam.alphas(captured.activations, gradients)
    return [
        Explanation(
            pixels=pixels[0].cpu(),
            label=int(label),
            probabilities=probabilities(logits)[0].cpu(),
            maps={MAPS[index][1]: heat.cpu() for index, heat in zip(kept, large[row], strict=True)},
            alphas=alphas[row][gradients[row] != 0].cpu(),
            products=products[row][gradients[row] != 0].cpu(),
        )
        for row, label in enumerate(chosen)
    ]


def localise(network: Network, scenes: Sequence[Scene], batch_size: int) -> pd.DataFrame:
    """How well each of the six maps finds the instances in single-class scenes.

    Args:
        network: a module on the CPU whose input has the size of the scenes.
        scenes: what it sees; the class explained is the label.
        batch_size: scenes in the network together.

    Returns:
        One row for each scene and map: ``scene`` (its place in the sequence), ``instances``, ``score`` of
        the label, ``map``, and one column for each of ``localisation.METRICS``.
    """
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(scenes), batch_size), unit="batch", desc="localisation", disable=None):
        batch = scenes[start : start + batch_size]
        pixels = torch.stack([torch.from_numpy(scene.pixels).permute(2, 0, 1) for scene in batch]).float() / 255
        labels = torch.tensor([scene.label for scene in batch])
        captured = capture_photographs(network, pixels, labels)
        scores = probabilities(captured.logits).gather(1, labels[:, None])[:, 0].tolist()
        heat = upsample(heatmaps(captured).flatten(0, 1), (pixels.shape[2], pixels.shape[3])).double().numpy()
        for place, (scene, score) in enumerate(zip(batch, scores, strict=True)):
            for number, name in enumerate(COLUMNS):
                large = heat[place * len(COLUMNS) + number]
                found = {metric: measured(large, scene.masks) for metric, measured in METRICS.items()}
                rows.append({"scene": start + place, "instances": len(scene.masks), "score": score, "map": name, **found})
    return pd.DataFrame(rows)
