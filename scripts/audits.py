"""Make the audits in evidence/ again: what programs call Grad-CAM++, on real photographs.

    python -m scripts.audits --data DIR --squeezenet FILE [--out DIR] [--work DIR] [--only MODEL-LAYER]

DIR and FILE are those of scripts/evidence.py. Maps are compared on all photographs; an explanation map costs a forward pass for
each formula, and of Lite0 they are scored on a random sample. Only numbers are kept, to three digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from gradcampp.cam import COLUMNS, SCORES
from gradcampp.evaluation import audit, records
from gradcampp.evaluation.experiment import Experiment, experiment_of, over_threshold
from gradcampp.evaluation.folders import Photograph, choose, list_photographs
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.files import atomic_write, file_hash
from gradcampp.networks import lite0
from gradcampp.networks.capture import Network
from gradcampp.networks.scores import probabilities
from gradcampp.results import audit as said
from gradcampp.results import tables
from scripts import run
from scripts.evidence import PHOTOGRAPHS, ROOT, WEIGHTS, commit, load_network

BATCH = 8
BITS = 8  # of each number that are kept after the point: 1 in 500
KEPT = ("image", "label", "score", "sha256", *COLUMNS, *records.HEATS, *records.CONTROLS)
RUNS = {  # network and layer: how tables and sentences call them, how many are scored, and whether candidates meet all measures
    ("squeezenet1_0", "features.12"): ("SqueezeNet", None, True),
    (lite0.NAME, lite0.LAYER): ("Lite0 (last maps)", 160, False),
    (lite0.NAME, lite0.INNER_LAYER): ("Lite0 (depthwise)", 160, False),
    (lite0.NAME, "blocks.15"): ("Lite0 (no ReLU)", 160, True),
}


def shortened(values: pa.ChunkedArray | pd.Series[float]) -> pa.Array:
    """Numbers in float32 with so many bits that three digits stay."""
    whole = values.to_numpy().astype(np.float32)
    bits = whole.view(np.int32)
    kept = ((bits + (1 << (22 - BITS))) & -(1 << (23 - BITS))).view(np.float32)
    return pa.array(np.where(np.isfinite(whole), kept, whole), from_pandas=True)


def compared(network: Network, photographs: Sequence[Photograph], data: Path, experiment: Experiment) -> pd.DataFrame:
    """Rows of an audit without the scores of explanation maps."""
    parts = []
    for start in range(0, len(photographs), BATCH):
        batch = photographs[start : start + BATCH]
        pixels = torch.stack([read_photograph(data / each.image, network.preprocessing) for each in batch]).float() / 255
        labels = torch.tensor([each.label for each in batch])
        captured = network.capture(pixels, labels)
        scores = probabilities(captured.logits, network.score).gather(1, labels[:, None])[:, 0]
        hashes = [file_hash(data / each.image) for each in batch]
        rows = pd.DataFrame(batch, columns=["image", "label"]).assign(score=scores.numpy(), sha256=hashes)
        over = over_threshold(scores, experiment)
        pairs = [(captured.activations[over], captured.gradients[kind][over]) for kind in SCORES]
        found = [audit.against_equation_13(*pair)[0] for pair in pairs]
        values = [functional.pad(each, (0, 1), value=torch.nan).flatten(1) for each in found]
        values += [audit.shares(*pair) for pair in pairs]
        names = [*audit.COLUMNS, *audit.OF_UNITS]
        parts.append(rows.join(pd.DataFrame(torch.cat(values, 1).numpy(), rows.index[over.numpy()], names)))
    return pd.concat(parts, ignore_index=True)


def compact(run: Path, out: Path, told: dict[str, Any], further: pd.DataFrame | None = None) -> None:
    """Write a finished audit, and rows beside it, as one small part, with what its manifest is to say besides."""
    rows = pd.concat([audit.read(run), further]).sort_values("label", kind="stable")
    rows = rows.reindex(columns=[*KEPT, *audit.COLUMNS, *audit.OF_UNITS, *audit.CONTROLS])
    table = pa.Table.from_pandas(rows, preserve_index=False)
    columns = [shortened(column) if pa.types.is_floating(column.type) else column for column in table.columns]
    small = pa.table(columns, names=table.column_names)
    numbers = [name for name in small.column_names if small.schema.field(name).type == pa.float32()]
    (out / "records.parquet").mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "records.parquet" / "00000.parquet") as temporary:
        split = {"use_byte_stream_split": numbers, "use_dictionary": False, "write_statistics": False}
        pq.write_table(small, temporary, compression="zstd", compression_level=19, store_schema=False, **split)
    counts = {"part": len(rows), "images": len(rows), "over_threshold": int(rows[audit.OF_UNITS[0]].notna().sum())}
    records.write_manifest(out, records.read_manifest(run) | counts | told)


README = """# Audit of {made[title]}: {name}

What programs call Grad-CAM++, beside eq. 13: numbers of `{experiment[model]}` at `{experiment[layer]}` on {images} photographs,
of which {over_threshold} score over {experiment[threshold]:g} for their label. Explanation maps are scored on {scored}.
Chapter 10 of the book reads them.

- **Photographs:** {made[photographs][source]}; {made[photographs][licence]}.
  Each row of the records has the SHA-256 of its file.
- **Weights:** {made[weights][source]}; {made[weights][licence]}; SHA-256 `{experiment[weights]}`.
- **Made by:** `{made[command]}` at commit `{made[commit]:.12}`.
- **Read by:** `gradcampp.evaluation.audit.read`; a column is called `scores/formula/measure`, numbers have three digits.
"""


def readme(folder: Path, name: str) -> str:
    """What a stranger finds in the folder of an audit."""
    rows = audit.read(folder)
    table = tables.formatted(said.readable(said.table(audit.long(rows))), "github")
    shares = "\n".join(f"- {line}" for line in said.units(rows))
    return README.format(name=name, **records.read_manifest(folder)) + f"\n{table}\n\n{shares}\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The photographs, in class folders 0 to 999.")
@click.option("--squeezenet", type=click.Path(path_type=Path), required=True, help="Weights of SqueezeNet, .safetensors.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "evidence", help="For the records.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "runs" / "audits", help="For the runs while they go on.")
@click.option("--only", help="One of them, as squeezenet1_0-features.12.")
def main(data: Path, squeezenet: Path, out: Path, work: Path, only: str | None) -> None:
    """Make the audits in evidence/ again."""
    at = commit()  # before the work, which may take long
    for (model, layer), (title, limit, controls) in RUNS.items():
        name = f"{model}-{layer}"
        if only not in (None, name):
            continue
        network = load_network(model, layer, squeezenet)
        every = list_photographs(data, network.classes)
        sample = choose(every, limit, 0)
        experiment = audit.experiment(experiment_of(network, limit=limit, seed=0 if limit else None, controls=controls))
        run = evaluate(network, sample, data, work / name, experiment, Execution(BATCH, 0, "cpu"), measuring=audit.measure)
        others = [each for each in every if each not in set(sample)]
        further = compared(network, others, data, experiment) if others else None
        made = {
            "title": title,
            "commit": at,
            "command": "python -m scripts.audits --data DIR --squeezenet FILE",
            "photographs": PHOTOGRAPHS,
            "weights": WEIGHTS[model],
        }
        scored = f"a random sample of {limit} (seed 0)" if limit else "all of them"
        told = {"made": made, "scored": scored, "data": run.manifest["data"] | {"folder": "imagenet-sample-images"}}
        folder = out / f"audit-{name}"
        compact(run.folder, folder, told, further)
        (folder / "README.md").write_text(readme(folder, name), "utf-8")
        print(folder)


if __name__ == "__main__":
    run(main)
