"""Fetch the 1,000 photographs of the evidence, once: 109 MB from GitHub, each file checked by the SHA-256 in the records.

    python -m scripts.photographs --out DIR [--clone DIR]

Writes DIR/CLASS/FILE. Files that are there and right stay, and with --clone they are copied from a clone of
github.com/EliSchwartz/imagenet-sample-images instead. The photographs are for research only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from tqdm import tqdm

from gradcampp.errors import InputError
from gradcampp.evaluation.download import fetch
from gradcampp.evaluation.profiles import Download
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write, file_hash
from scripts import run

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "evidence" / "efficientnet_lite0-relu"
ADDRESS = "https://raw.githubusercontent.com/EliSchwartz/imagenet-sample-images/bc69043e2862758a1906c6a24a792bb28c6bb2ff"


def gather(out: Path, clone: Path | None, address: str = ADDRESS) -> None:
    """Put every photograph of the records into its class folder.

    Raises:
        InputError: if a photograph cannot be had, or is not the one of the records.
    """
    rows = Run(RECORDS).records[["image", "sha256", "bytes"]]
    for image, sha256, size in tqdm(list(rows.itertuples(index=False)), unit="photograph", disable=None):
        target, name = out / image, Path(image).name
        if target.is_file() and file_hash(target) == sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if clone is None:
            fetch([Download(f"{address}/{name}", int(size), sha256)], out)[0].replace(target)
            continue
        if not (clone / name).is_file() or file_hash(clone / name) != sha256:
            raise InputError(f"{clone / name} is not the photograph of the records; expected SHA-256 {sha256}")
        with atomic_write(target) as temporary:
            shutil.copyfile(clone / name, temporary)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("imagenet-sample-images"), show_default=True)
@click.option("--clone", type=click.Path(path_type=Path, exists=True), help="A clone of the repository, instead of the network.")
def main(out: Path, clone: Path | None) -> None:
    """Fetch the 1,000 photographs of the evidence."""
    gather(out, clone)
    print(f"{out}; now: gradcampp reproduce --profile photographs --data {out}")


if __name__ == "__main__":
    run(main)
