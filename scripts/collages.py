"""Measure again in evidence/ how warm a rival gets: two photographs side by side, each of whose classes is explained in turn.

    python -m scripts.collages --data DIR --squeezenet FILE [--out DIR] [--only MODEL-LAYER]

DIR and FILE are those of scripts/evidence.py. Kept are numbers, where the explained class is one of the network's two first; no
collage is written anywhere.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch

from gradcampp.evaluation import localisation
from gradcampp.evaluation.folders import Photograph, list_photographs
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.scenes import Scene
from scripts import run
from scripts.audits import shortened
from scripts.evidence import ROOT, RUNS, commit, load_network


def pairs(photographs: Sequence[Photograph]) -> list[tuple[Photograph, Photograph]]:
    """All photographs, each once, beside one of another class: as many pairs, and as random, as one seed gives."""
    mixed = random.Random(0).sample(list(photographs), len(photographs))
    found = list(zip(mixed[::2], mixed[1::2], strict=False))
    return [(one, other) for one, other in found if one.label != other.label]


def collage(pair: Sequence[Photograph], data: Path, preprocessing: Preprocessing) -> Scene:
    """The middle halves of two photographs side by side; each half of the picture is the mask of its class."""
    height, width = preprocessing.size
    middle = slice(width // 4, width // 4 + width // 2)
    halves = [read_photograph(data / each.image, preprocessing)[:, :, middle] for each in pair]
    masks = np.zeros((2, height, 2 * (width // 2)), bool)
    masks[0, :, : width // 2] = masks[1, :, width // 2 :] = True
    labels = pair[0].label, pair[1].label
    return Scene(torch.cat(halves, 2).permute(1, 2, 0).numpy(), labels, masks, np.array(labels), masks[:0])


def kept(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of explained classes among the network's two first, their numbers to three digits."""
    found = rows[rows["rank"] <= 2].reset_index(drop=True)
    for column in ("score", *localisation.RIVALRY):
        found[column] = shortened(found[column]).to_numpy(zero_copy_only=False).astype(np.float64)
    return found


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The photographs, in class folders 0 to 999.")
@click.option("--squeezenet", type=click.Path(path_type=Path), required=True, help="Weights of SqueezeNet, .safetensors.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "evidence", help="With the runs that they belong to.")
@click.option("--only", help="One of them, as squeezenet1_0-features.12.")
def main(data: Path, squeezenet: Path, out: Path, only: str | None) -> None:
    """Measure again in evidence/ how warm a rival gets."""
    at = commit()  # before the work, which may take long
    for model, layer in RUNS:
        name = f"{model}-{layer}"
        if only not in (None, name):
            continue
        network = load_network(model, layer, squeezenet)
        chosen = pairs(list_photographs(data, network.classes))
        scenes = [collage(pair, data, network.preprocessing) for pair in chosen]
        rows = kept(localisation.compete(network, scenes, 4))
        made = {"command": "python -m scripts.collages --data DIR --squeezenet FILE", "commit": at}
        told = made | {
            "pairs": len(chosen),
            "photographs": Run(out / name).manifest["data"]["sha256"],
            "weights": network.weights,
            "layer": layer,
        }
        rows.attrs["settings"] = json.dumps(told)
        with atomic_write(out / name / "competition.parquet") as temporary:
            rows.to_parquet(temporary, compression="zstd", compression_level=19)
        print(out / name / "competition.parquet")


if __name__ == "__main__":
    run(main)
