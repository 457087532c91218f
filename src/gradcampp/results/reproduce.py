"""From a profile to every table and figure of the paper: one call, resumable, no network access."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gradcampp.evaluation import localisation, maps, profiles, records
from gradcampp.evaluation.folders import at_chance
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.processes import Processes
from gradcampp.evaluation.profiles import Profile
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.files import atomic_write
from gradcampp.networks import classes
from gradcampp.networks.capture import Network
from gradcampp.results import report
from gradcampp.results.figures import one_image
from gradcampp.results.report import Report
from gradcampp.scenes import SIZE, pair
from gradcampp.scenes.folder import SPLIT, draw_scenes, loader

SCENES_PER_PAIR = 5  # a scene with two classes for so many with one


@dataclass(frozen=True)
class Picture:
    """A picture and the classes to explain in it: uint8 (3, crop, crop), and indices."""

    pixels: Tensor
    labels: list[int]


def run(profile: Profile, out: Path, execution: Execution, processes: Processes | None = None) -> Report:
    """Evaluate, tabulate and draw everything that the paper shows, and what the scenes add.

    Args:
        profile: one whose downloads are in the cache.
        out: folder for the run, the tables, the figures and the summary page; what is finished in it stays.
        execution: what does not change the numbers.
        processes: those that share the evaluation; the first one does the rest. None for this one alone.

    Returns:
        The tables as text, and the files written, the summary page first; nothing of either in the other processes.

    Raises:
        InputError: for anything in the profile that cannot be used.
    """
    processes = processes or Processes()
    network = profiles.network(profile)
    network.module.to(memory_format=network.memory_format)  # a run that is finished already is drawn as a new one
    out.mkdir(parents=True, exist_ok=True)
    if processes.rank:
        processes.barrier()  # until the first has drawn the scenes
    folder = data_folder(profile, out)
    if processes.rank == 0:
        processes.barrier()
    photographs = profiles.photographs(profile, folder, network)
    experiment = profiles.experiment(profile, network)
    masks = processes.rank == 0 and _has_masks(network, profile)
    if masks:
        with records.opened(out, experiment):  # before the run says that it is finished
            if not records.read_manifest(out)["finished"]:
                _localise(network, profile, out, execution.batch_size)
    finished = evaluate(network, photographs, folder, out, experiment, execution, processes)
    if processes.rank:
        return Report("", [])
    network.module.cpu()
    if masks:  # of a run that gradcampp evaluate has finished
        _localise(network, profile, out, execution.batch_size)
    said = report.write(finished, out, profile.expected)
    loud = [line for line in [at_chance(finished.manifest, len(network.classes))] if line]
    text = "\n".join([f"input: {network.preprocessing}", said.text, *loud])
    said = replace(said, text=text, warnings=(*said.warnings, *loud))
    said.files.extend(_illustrations(network, profile, finished))
    said.files.insert(0, report.summary(finished, said, out))
    return said


def data_folder(profile: Profile, out: Path) -> Path:
    """The photographs of a profile, or the scenes that are drawn in their place."""
    return profile.data or draw_scenes(out / "scenes", profile.seed or 0, profile.scenes)


def pictures(network: Network, profile: Profile, run: Run) -> tuple[Picture, Picture]:
    """A picture with one class for Figures 1, 3 and 5, and a picture with two classes for Figure 2.

    Network and run are those of the profile: the network on the CPU, the run finished, with an image over the threshold.
    """
    labels = wanted = [classes.find(network.classes, text) for text in profile.explain]
    if profile.photograph is not None:
        pixels = read_photograph(profile.photograph, network.preprocessing, upright=True)
    else:
        sure = run.records[run.records["score"] > profile.threshold].sort_values(["score", "image"])
        chosen = sure.iloc[len(sure) // 2]  # neither the easiest nor the hardest
        pixels = read_photograph(data_folder(profile, run.folder) / chosen["image"], network.preprocessing)
        labels = [int(chosen["label"])]
        if _has_masks(network, profile):
            both = pair(profile.seed or 0, SPLIT, 0)
            return Picture(pixels, labels), Picture(torch.from_numpy(both.pixels).permute(2, 0, 1), list(both.labels))
    best = maps.explain(network, pixels, labels, "pre")[0]
    two = best.probabilities.topk(min(2, len(best.probabilities))).indices.tolist()
    others = [index for index in two if index != best.label]
    return Picture(pixels, [best.label]), Picture(pixels, wanted or [best.label, *others[:1]])


def _has_masks(network: Network, profile: Profile) -> bool:
    """True for generated scenes that the network sees pixel for pixel, so that their masks fit."""
    return profile.data is None and network.preprocessing.resized(SIZE, SIZE) == network.preprocessing.size == (SIZE, SIZE)


def _localise(network: Network, profile: Profile, out: Path, batch_size: int) -> None:
    """Measure where the maps are hot in scenes of one class and of two, unless it is done, and keep it beside the records."""
    seed = profile.seed or 0
    pairs = range(math.ceil(profile.scenes / SCENES_PER_PAIR))
    of_one, of_two = loader(seed, range(profile.scenes)), loader(seed, pairs, pair)
    for name, measured, columns, scenes in (
        ("localisation", localisation.localise, localisation.METRICS, of_one),
        ("competition", localisation.compete, localisation.RIVALRY, of_two),
    ):
        settings = {"weights": network.weights, "seed": seed, "scenes": len(scenes), "layer": network.layer}
        path, told = out / f"{name}.parquet", json.dumps({**settings, "columns": list(columns)})
        if path.exists() and pd.read_parquet(path).attrs.get("settings") == told:
            continue
        rows = measured(network, list(scenes), batch_size)
        rows.attrs["settings"] = told
        with atomic_write(path) as temporary:
            rows.to_parquet(temporary)


def _illustrations(network: Network, profile: Profile, run: Run) -> list[Path]:
    """Figures 1, 2, 3 and 5, of the profile's photograph or of a picture that the run chooses."""
    names = network.classes.names
    single, couple = pictures(network, profile, run)
    pixels = single.pixels.float() / 255
    captured = network.capture(pixels[None], torch.tensor(single.labels))
    explained = maps.explain(network, single.pixels, single.labels, "pre")
    figures = {
        "figure1": one_image.pipeline(captured, pixels, names[single.labels[0]]),
        "figure2": one_image.explanations(maps.explain(network, couple.pixels, couple.labels, "pre"), names, "pre"),
        "figure3": one_image.single_alphas(explained[0]),
        "figure5": one_image.explanations(explained, names, "pre"),
    }
    return report.draw(figures, run.folder)
