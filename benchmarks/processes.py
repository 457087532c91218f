"""A run shared by several processes against the same run in one, by the clock, and whether the bytes are the same.

VGG16 with random weights on generated JPEGs, every image explained, each process with one thread:

    python benchmarks/processes.py [--processes 2] [--images 48] [--rounds 3]

The start of Python and torch is part of both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
from evaluation import jpegs
from timing import conclude, machine, side_by_side


def main() -> None:
    parser = argparse.ArgumentParser(description="Several processes against one.")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    together = ("torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}", "-m", "gradcampp")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = jpegs(scratch / "jpegs", options.images)
        runs: dict[str, list[Path]] = {"one": [], "several": []}

        def run(kind: str, *module: str) -> None:
            runs[kind].append(scratch / f"{kind}{len(runs[kind])}")
            command = [sys.executable, "-m", *module, "evaluate", "--data", str(folder), "--out", str(runs[kind][-1])]
            subprocess.run(
                [*command, "--model", options.model, "--weights", "random", "--threshold", "0", "--device", "cpu"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
            )

        seconds = side_by_side(options.rounds, one=lambda: run("one", "gradcampp"), several=lambda: run("several", *together))
        contents = {
            tuple(part.read_bytes() for part in sorted(out.glob("records.parquet/*.parquet")))
            for outs in runs.values()
            for out in outs
        }
    print(f"{options.model}, {options.images} images, one thread a process, start included; {machine()}")
    print(f"  1 process    {median(seconds['one']):8.2f} s")
    print(f"  {options.processes} processes  {median(seconds['several']):8.2f} s")
    print(f"  records.parquet {'identical' if len(contents) == 1 else 'DIFFERENT'} in all {sum(map(len, runs.values()))} runs")
    conclude({"one_over_several": median(seconds["one"]) / median(seconds["several"])})


if __name__ == "__main__":
    main()
