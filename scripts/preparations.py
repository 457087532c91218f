"""How did the paper prepare its photographs? The number of images over the threshold, for each plausible way.

    python -m scripts.preparations [--profile paper-keras] [--out runs/preparations]

The paper counts 4,219 of 10,000 images whose label VGG16 of Keras scores over 0.5, and does not say how they were brought to
224 x 224 pixels. Each way is a forward pass over all of them, a quarter of an hour or so on two cores; one that is done is not
repeated. The way that gives the paper's count is how the paper did it.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
import torch
from tqdm import tqdm

from gradcampp import paper
from gradcampp.errors import InputError
from gradcampp.evaluation import download, photographs, profiles
from gradcampp.evaluation.folders import Photograph
from gradcampp.files import atomic_write
from gradcampp.networks.capture import Network
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.networks.scores import probabilities
from gradcampp.results import tables
from scripts import run

FITS = ("squash", "crop")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
RESIZE = 256  # shorter side before the crop
ROWS = ["fit", "interpolation", "images", "over_threshold", "from_paper", "top1"]


def preparations(known: Preprocessing) -> list[Preprocessing]:
    """The ways to bring a photograph to the network's size; scale and means stay those of the network."""
    ways = itertools.product(FITS, INTERPOLATIONS)
    return [replace(known, resize=RESIZE, fit=fit, interpolation=interpolation) for fit, interpolation in ways]  # type: ignore[arg-type]


def scores(network: Network, chosen: list[Photograph], folder: Path, batch_size: int) -> pd.DataFrame:
    """Score and rank of the label of each photograph.

    Raises:
        InputError: if one cannot be read.
    """
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    rows = []
    for batch in tqdm(photographs.load(folder, batches, network.preprocessing, workers=0), disable=None):
        if batch.bad:
            raise InputError(next(iter(batch.bad.values())))
        labels = torch.tensor([photograph.label for photograph in batch.photographs])[:, None]
        logits = network.logits(batch.pixels.float() / 255)
        score = probabilities(logits).gather(1, labels)[:, 0]
        rank = 1 + (logits > logits.gather(1, labels)).sum(1)
        rows.append(pd.DataFrame({"score": score.numpy(), "rank": rank.numpy()}))
    return pd.concat(rows, ignore_index=True)


def table(network: Network, chosen: list[Photograph], folder: Path, out: Path, threshold: float, batch_size: int) -> pd.DataFrame:
    """A row a preparation, with ``ROWS`` for columns; scores are kept in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for preprocessing in preparations(network.preprocessing):
        told = repr((network.name, network.weights, preprocessing.settings, chosen))
        digest = hashlib.sha256(told.encode()).hexdigest()[:12]
        file = out / f"{preprocessing.fit}-{preprocessing.interpolation}-{digest}.parquet"
        if not file.exists():
            found = scores(replace(network, preprocessing=preprocessing), chosen, folder, batch_size)
            with atomic_write(file) as temporary:
                found.to_parquet(temporary)
        found = pd.read_parquet(file)
        over = int((found["score"] > threshold).sum())
        top1 = float((found["rank"] == 1).mean())
        rows.append([preprocessing.fit, preprocessing.interpolation, len(found), over, over - paper.IMAGES, top1])
    return pd.DataFrame(rows, columns=ROWS)


def verdict(rows: pd.DataFrame, threshold: float) -> str:
    """Which way is the paper's, or that none is."""
    nearest = rows.iloc[int(rows["from_paper"].abs().argmin())]
    way = f"{nearest['fit']}, {nearest['interpolation']}"
    if nearest["from_paper"] == 0:
        return f"{way}: the paper's {paper.IMAGES} images over {threshold:g}, so that is how the paper did it"
    off = f"{nearest['over_threshold']} images over {threshold:g}, {nearest['from_paper']:+d} from the paper's {paper.IMAGES}"
    return f"none gives the paper's {paper.IMAGES} images; nearest is {way}: {off}"


@click.command()
@click.option("--profile", default="paper-keras", metavar="NAME_OR_FILE", help="Network and photographs (default: paper-keras).")
@click.option("--out", type=click.Path(path_type=Path), default="runs/preparations", help="For scores and table.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8)
def main(profile: str, out: Path, batch_size: int) -> None:
    """Count the images over the threshold for each way to prepare a photograph."""
    chosen = download.in_cache(profiles.load(profile))
    network = profiles.network(chosen)
    if chosen.data is None:
        raise InputError(f"profile {profile} has no photographs")
    known = profiles.photographs(chosen, chosen.data, network)
    rows = table(network, known, chosen.data, out, chosen.threshold, batch_size)
    rows.to_csv(out / "preparations.csv", index=False)
    print(tables.formatted(rows, "github"))
    print(verdict(rows, chosen.threshold))


if __name__ == "__main__":
    run(main)
