"""Make the audits in evidence/ again: what programs call Grad-CAM++, on real photographs.

    python scripts/audits.py --data DIR --squeezenet FILE [--out DIR] [--work DIR] [--only MODEL-LAYER]

DIR and FILE are those of scripts/evidence.py; an interrupted call goes on. Only numbers are kept, to four digits.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradcampp.cam import COLUMNS
from gradcampp.errors import InputError
from gradcampp.evaluation import audit, records
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import choose, list_photographs
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.files import atomic_write
from gradcampp.networks import lite0
from gradcampp.networks.load import load
from gradcampp.results import audit as said
from gradcampp.results import tables
from scripts.evidence import PHOTOGRAPHS, ROOT, WEIGHTS

BITS = 12  # of each number that are kept after the point: 1 in 8,000
KEPT = ("image", "label", "score", "sha256", *COLUMNS, *records.HEATS, *records.CONTROLS)
RUNS = {  # network and layer: how tables and sentences call them, how many photographs, and whether candidates meet all measures
    ("squeezenet1_0", "features.12"): ("SqueezeNet", None, True),
    (lite0.NAME, lite0.LAYER): ("Lite0 (last maps)", 160, False),
    (lite0.NAME, "blocks.15"): ("Lite0 (no ReLU)", 160, True),
}


def commit() -> str:
    """The commit that is checked out."""
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def shortened(values: pa.ChunkedArray | pd.Series[float]) -> pa.Array:
    """Numbers in float32 with so many bits that four digits stay."""
    whole = values.to_numpy().astype(np.float32)
    bits = whole.view(np.int32)
    kept = ((bits + (1 << (22 - BITS))) & -(1 << (23 - BITS))).view(np.float32)
    return pa.array(np.where(np.isfinite(whole), kept, whole), from_pandas=True)


def compact(run: Path, out: Path, told: dict[str, Any]) -> None:
    """Write a finished audit as one small part, with what its manifest is to say besides."""
    rows = audit.read(run)
    table = pa.Table.from_pandas(rows[[*KEPT, *audit.COLUMNS, *audit.OF_UNITS, *audit.CONTROLS]], preserve_index=False)
    columns = [shortened(column) if pa.types.is_floating(column.type) else column for column in table.columns]
    small = pa.table(columns, names=table.column_names)
    numbers = [name for name in small.column_names if small.schema.field(name).type == pa.float32()]
    (out / "records.parquet").mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "records.parquet" / "00000.parquet") as temporary:
        split = {"use_byte_stream_split": numbers, "use_dictionary": False, "write_statistics": False}
        pq.write_table(small, temporary, compression="zstd", compression_level=19, **split)
    records.write_manifest(out, records.read_manifest(run) | {"part": len(rows)} | told)


README = """# Audit of {made[title]}: {name}

What programs call Grad-CAM++, beside eq. 13: numbers of `{experiment[model]}` at `{experiment[layer]}` on {images} photographs,
of which {over_threshold} score over {experiment[threshold]:g} for their label. Chapter 10 of the book reads them.

- **Photographs:** {made[photographs][source]}; {made[photographs][licence]}.
  Each row of the records has the SHA-256 of its file.
- **Weights:** {made[weights][source]}; {made[weights][licence]}; SHA-256 `{experiment[weights]}`.
- **Made by:** `{made[command]}` at commit `{made[commit]:.12}`.
- **Read by:** `gradcampp.evaluation.audit.read`; a column is called `scores/formula/measure`, numbers have four digits.
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
    for (model, layer), (title, limit, controls) in RUNS.items():
        name = f"{model}-{layer}"
        if only not in (None, name):
            continue
        network = load(model, layer, weights=squeezenet if model.startswith("squeezenet") else None)
        photographs = choose(list_photographs(data, network.classes), limit, 0 if limit else None)
        experiment = audit.experiment(experiment_of(network, limit=limit, seed=0 if limit else None, controls=controls))
        run = evaluate(network, photographs, data, work / name, experiment, Execution(8, 0, "cpu"), measuring=audit.measure)
        made = {
            "title": title,
            "commit": commit(),
            "command": "python scripts/audits.py --data DIR --squeezenet FILE",
            "photographs": PHOTOGRAPHS,
            "weights": WEIGHTS[model],
        }
        folder = out / f"audit-{name}"
        compact(run.folder, folder, {"made": made, "data": run.manifest["data"] | {"folder": "imagenet-sample-images"}})
        (folder / "README.md").write_text(readme(folder, name), "utf-8")
        print(folder)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"audits: {error}") from None
