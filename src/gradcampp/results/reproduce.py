"""From a profile to every table and figure of the paper: one call, resumable, no network access."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gradcampp.cam import SCORES
from gradcampp.evaluation import localisation, maps, profiles
from gradcampp.evaluation.photographs import choose, list_photographs, read_photograph
from gradcampp.evaluation.processes import Processes
from gradcampp.evaluation.profiles import Profile
from gradcampp.evaluation.records import Run, experiment_of
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.files import atomic_write
from gradcampp.networks import classes
from gradcampp.networks.capture import Network
from gradcampp.results import report, tables
from gradcampp.results.figures import data_set, one_image, style
from gradcampp.scenes import drawing, scene
from gradcampp.scenes.folder import SPLIT, draw_scenes, loader

CAPTIONS = {
    "figure1": "Figure 1. Grad-CAM from an image to its heatmap, with the network's own feature maps, gradients and weights.",
    "figure2": "Figure 2. One picture explained for two classes.",
    "figure3": "Figure 3. Non-zero alphas of one image, and the term that moves them away from 1/2.",
    "figure4-pre": "Figure 4. Non-zero alphas of all images, pre-softmax: boxplot, and histogram on the tanh scale.",
    "figure4-post": "Figure 4. Non-zero alphas of all images, post-softmax: boxplot, and histogram on the tanh scale.",
    "figure5": "Figure 5. One image, three methods.",
    "figure6": "Figure 6. Relative performance per image, for each pair of methods.",
    "localisation-pre": "Beyond the paper. How well the pre-softmax maps find the instances, whose masks are known.",
    "localisation-post": "Beyond the paper. How well the post-softmax maps find the instances, whose masks are known.",
}


def run(profile: Profile, out: Path, execution: Execution, processes: Processes | None = None) -> report.Report:
    """Evaluate, tabulate and draw everything that the paper shows, and what the scenes add.

    Args:
        profile: what to do.
        out: folder for the run, the tables, the figures and the summary page; what is finished in it stays.
        execution: how to carry it out.
        processes: those that share the evaluation; the first one does the rest. None for this one alone.

    Returns:
        Both tables as text, and the files written; nothing of either in the other processes of a world.

    Raises:
        InputError: for anything in the profile that cannot be used.
    """
    processes = processes or Processes()
    network = profiles.network(profile)
    out.mkdir(parents=True, exist_ok=True)
    generated = profile.data is None
    if processes.rank:
        processes.barrier()  # until the first has drawn the scenes
    folder = data_folder(profile, out)
    if processes.rank == 0:
        processes.barrier()
    photographs = choose(list_photographs(folder, network.classes), profile.limit, profile.seed)
    experiment = experiment_of(network, profile.threshold, profile.limit, profile.seed)
    evaluate(network, photographs, folder, out, experiment, execution, processes)
    if processes.rank:
        return report.Report("", [])
    said = report.write(Run(out), out, profile.expected)
    files = said.files + _illustrations(network, profile, Run(out))
    extra = ""
    if generated and network.preprocessing.crop == drawing.SIZE:
        extra, more = _localise(network, profile, out, execution.batch_size)
        files += more
    page = _summary(network, said, extra, [path for path in files if path.suffix == ".png"], out)
    return report.Report(said.text + ("\n" + extra if extra else ""), [page, *files], said.check)


def _illustrations(network: Network, profile: Profile, run: Run) -> list[Path]:
    """Figures 1, 2, 3 and 5, of the profile's photograph or of one that the run chooses."""
    names = network.classes.names
    network.module.cpu()
    single, couple = pictures(network, profile, run)
    pixels = single.pixels.float() / 255
    captured = network.capture(pixels[None], torch.tensor(single.labels))
    explained = maps.explain(network, single.pixels, single.labels, "pre")
    drawn = {
        "figure1": one_image.pipeline(captured, pixels, names[single.labels[0]]),
        "figure2": one_image.explanations(maps.explain(network, couple.pixels, couple.labels, "pre"), names, "pre"),
        "figure3": one_image.single_alphas(explained[0]),
        "figure5": one_image.explanations(explained, names, "pre"),
    }
    return [path for name, figure in drawn.items() for path in style.save(figure, run.folder / name, report.PICTURES)]


@dataclass(frozen=True)
class Picture:
    """A picture and the classes to explain in it: uint8 (3, crop, crop), and indices."""

    pixels: Tensor
    labels: list[int]


def data_folder(profile: Profile, out: Path) -> Path:
    """The photographs of a profile, or the scenes that are drawn in their place."""
    return profile.data or draw_scenes(out / "scenes", profile.seed or 0, profile.scenes)


def pictures(network: Network, profile: Profile, run: Run) -> tuple[Picture, Picture]:
    """A picture with one class for Figures 1, 3 and 5, and a picture with two classes for Figure 2.

    Args:
        network: of the profile.
        profile: what was run.
        run: the finished run.
    """
    wanted = [classes.find(network.classes, text) for text in profile.explain]
    if profile.photograph is not None:
        photograph = read_photograph(profile.photograph, network.preprocessing, upright=True)
        best = maps.explain(network, photograph, wanted, "pre")[0]
        two = best.probabilities.topk(min(2, len(best.probabilities))).indices.tolist()
        return Picture(photograph, [best.label]), Picture(photograph, wanted or two)
    sure = run.records[run.records["score"] > profile.threshold].sort_values(["score", "image"])
    chosen = sure.iloc[len(sure) // 2]  # neither the easiest nor the hardest
    folder = data_folder(profile, run.folder)
    single = Picture(read_photograph(folder / chosen["image"], network.preprocessing), [int(chosen["label"])])
    if profile.data is None and network.preprocessing.crop == drawing.SIZE:
        pair = scene.pair(profile.seed or 0, SPLIT, 0)
        return single, Picture(torch.from_numpy(pair.pixels).permute(2, 0, 1), list(pair.labels))
    best = maps.explain(network, single.pixels, single.labels, "pre")[0]
    two = best.probabilities.topk(min(2, len(best.probabilities))).indices.tolist()
    others = [index for index in two if index != best.label]
    return single, Picture(single.pixels, wanted or [best.label, *others[:1]])


def _localise(network: Network, profile: Profile, out: Path, batch_size: int) -> tuple[str, list[Path]]:
    """Whether the maps find the instances: tables, a figure for each kind of score, and the answer in words."""
    seed = profile.seed or 0
    path = out / "localisation.parquet"
    settings = json.dumps({"weights": network.weights, "seed": seed, "scenes": profile.scenes, "layer": network.layer})
    rows = pd.read_parquet(path) if path.exists() else pd.DataFrame()
    if rows.attrs.get("settings") != settings:
        rows = localisation.localise(network, list(loader(seed, range(profile.scenes))), batch_size)
        rows.attrs["settings"] = settings
        with atomic_write(path) as temporary:
            rows.to_parquet(temporary)
    rows = rows[rows["score"] > profile.threshold]
    table, gain = localisation.averages(rows), localisation.gains(rows)
    files = []
    for name, content in (("localisation", table), ("localisation_gain", gain)):
        files.append(out / f"{name}.csv")
        with atomic_write(files[-1]) as temporary:
            content.to_csv(temporary, index=False)
    for scores in SCORES:
        figure = data_set.localisation(table[table["scores"] == scores])
        files += style.save(figure, out / f"localisation-{scores}", report.PICTURES)
    title = "Does Grad-CAM++ find several instances better than Grad-CAM+? Difference of the means, 95 % bootstrap interval"
    shown = gain.assign(**{name: [f"{value:+.4f}" for value in gain[name]] for name in ("difference", "low", "high")})
    return f"{title}\n\n{tables.formatted(shown, 'simple')}\n", files


def _summary(network: Network, said: report.Report, extra: str, pictures: Iterable[Path], out: Path) -> Path:
    """A page with both tables and all figures, to open in a browser."""
    manifest = Run(out).manifest
    facts = (
        f"{manifest['images']} images, {manifest['over_threshold']} over {manifest['experiment']['threshold']:g}; "
        f"top-1 {manifest['top1']:.2%}; network {network.name}, layer {network.layer}"
    )
    shown = "\n".join(
        f'<figure><a href="{path.stem}.svg"><img src="{path.name}" alt="{CAPTIONS[path.stem]}" loading="lazy"></a>'
        f"<figcaption>{CAPTIONS[path.stem]}</figcaption></figure>"
        for path in sorted(pictures)
    )
    suspicious = said.check.warnings if said.check else ()
    warnings = "".join(f"<p><strong>WARNING: {html.escape(line)}</strong></p>\n" for line in suspicious)
    path = out / "summary.html"
    with atomic_write(path) as temporary:
        temporary.write_text(
            f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>gradcampp: summary of a run</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}}
pre{{overflow-x:auto}}
strong{{background:#b00;color:#fff;padding:.2em .4em}}img{{max-width:100%;height:auto}}figure{{margin:1.5rem 0}}</style></head>
<body><h1>Grad-CAM, Grad-CAM+ and Grad-CAM++</h1>
<p>{html.escape(facts)}. The paper's values come from VGG16 on ImageNetV2; another network and other images answer the same
question with other numbers.</p>
{warnings}<pre>{html.escape(said.text)}</pre>
<pre>{html.escape(extra)}</pre>
{shown}
</body></html>
""",
            "utf-8",
        )
    return path
