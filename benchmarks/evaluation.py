"""The whole of evaluate, decoding included, against the bare forward passes that it needs.

By default VGG16 with random weights, its sure images (a threshold of 0: all of them) and generated JPEGs
of ImageNet size; any network and folder can be given instead:

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --model squeezenet1_0 --weights W.safetensors --data PHOTOS --threshold 0.5

The floor is every image once and the ones over the threshold six times more, in batches as large and in the
memory format of evaluate, on pixels that are ready in memory. Both run in this process and take turns.
Peak memory is measured in processes of their own, on 200 images and on the same files ten times over.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from timing import conclude, machine, side_by_side

from gradcampp import data, models
from gradcampp.classes import numbered
from gradcampp.config import Execution, Experiment
from gradcampp.evaluate import evaluate
from gradcampp.memory import reuse_large_blocks
from gradcampp.network import Network, default_layer, normalise
from gradcampp.records import read_records

BATCH, WORKERS = 8, 0  # what the command line takes on a CPU


def jpegs(folder: Path, count: int) -> Path:
    """Photograph-like JPEGs of 500 x 375 pixels: coarse colours, fine noise, about 60 KiB each."""
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, np.int16) + rng.integers(-16, 17, (375, 500, 1), dtype=np.int16)
        (folder / str(index % 10)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / str(index % 10) / f"{index}.jpg", quality=90)
    return folder


def repeated(folder: Path, target: Path, times: int) -> Path:
    """The same files over and over, as links."""
    for path in sorted(folder.glob("*/*")):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            (target / path.parent.name / f"{copy}-{path.name}").symlink_to(path.resolve())
    return target


def peak_memory(options: argparse.Namespace, folder: Path, out: Path) -> int:
    """Peak resident memory of the command line on a folder, in KiB."""
    weights = ["--weights", options.weights]
    command = [
        sys.executable,
        "-m",
        "gradcampp",
        "evaluate",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--model",
        options.memory_model,
    ]
    process = subprocess.Popen(
        [*command, *(weights if options.memory_model == options.model else ["--weights", "random"]), "--threshold", "0.5"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"evaluate failed on {folder}")
    return usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description="evaluate against its forward passes.")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--images", type=int, default=24, help="of the generated JPEGs (default: 24)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-model", default="squeezenet1_1", help="network of the memory runs (default: %(default)s)")
    parser.add_argument("--memory-images", type=int, default=200, help="0 leaves the memory runs out")
    parser.add_argument("--memory-copies", type=int, default=10, help="of each image, in the larger memory run (default: 10)")
    options = parser.parse_args()
    reuse_large_blocks()  # as evaluate does, for the floor too
    model = models.build(options.model, options.weights)
    module = model.module.to(memory_format=torch.channels_last)
    side = model.preprocessing.crop
    layer = default_layer(module, torch.zeros(1, 3, side, side))
    network = Network(module, layer, model.preprocessing, torch.channels_last)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.data or jpegs(scratch / "jpegs", options.images)
        photographs = data.list_photographs(folder, numbered(1000))
        experiment = Experiment(options.model, options.weights, layer, "ImageNet", model.preprocessing, options.threshold)
        execution = Execution(BATCH, WORKERS, "cpu")
        batches = [photographs[start : start + BATCH] for start in range(0, len(photographs), BATCH)]
        runs = 0

        def whole() -> Path:
            nonlocal runs
            runs += 1
            evaluate(network, photographs, folder, scratch / f"run{runs}", experiment, execution)
            return scratch / f"run{runs}"

        over = int((read_records(whole())["score"] > options.threshold).sum())
        ready = [
            normalise(batch.pixels.float() / 255, model.preprocessing.mean, model.preprocessing.std).contiguous(
                memory_format=torch.channels_last
            )
            for batch in data.load(folder, batches, model.preprocessing, 0)
        ]

        def floor() -> None:
            with torch.no_grad():
                for inputs in ready:
                    module(inputs)
                for start in range(0, 6 * over, BATCH):
                    module(ready[0][: min(BATCH, 6 * over - start)])

        seconds = side_by_side(options.rounds, floor=floor, evaluate=whole)
        print(f"{options.model}, {len(photographs)} images, {over} over {options.threshold:g}, batches of {BATCH}; {machine()}")
        print(f"  bare forward passes {median(seconds['floor']):8.2f} s")
        print(f"  evaluate            {median(seconds['evaluate']):8.2f} s")
        ratios = {"evaluate_over_forward": median(seconds["evaluate"]) / median(seconds["floor"])}
        if options.memory_images:
            few = options.data or jpegs(scratch / "few", options.memory_images)
            small = peak_memory(options, few, scratch / "small")
            large = peak_memory(options, repeated(few, scratch / "many", options.memory_copies), scratch / "large")
            count = len(data.list_photographs(few, numbered(1000)))
            print(
                f"  peak memory         {small / 1024:8.0f} MiB for {count} images, {large / 1024:.0f} MiB for {options.memory_copies * count}"
            )
            ratios["peak_memory_ratio"] = large / small
        print(f"  this process        {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MiB at its peak")
        conclude(ratios)


if __name__ == "__main__":
    main()
