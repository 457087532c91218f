"""The whole of evaluate, decoding included, against the bare forward passes that it needs, and against grad-cam.

By default VGG16 with random weights, its sure images (a threshold of 0: all of them) and generated JPEGs
of ImageNet size; any network and folder can be given instead:

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --model squeezenet1_0 --weights W.safetensors --data PHOTOS --threshold 0.5

It runs on the GPU if there is one; there 10,000 images show the speed of a whole data set:

    python benchmarks/evaluation.py --images 10000 --rounds 1 --memory-images 0 --precision float32   # then tf32
    python benchmarks/evaluation.py --images 1000 --rounds 1 --memory-images 0 --profile              # where the time goes

There the floor is worth timing in both memory formats (--memory-format): which one is faster depends on the card.

The floor is every image once and the ones over the threshold six times more, in batches as large, in the
memory format and in the precision of evaluate, on pixels that are ready on the device. The same evaluation
written with grad-cam and its metric has four maps, not six, float32, and its photographs decoded beforehand. All run in
this process and take turns; the whole command, from the start of Python to the merged records, is timed once
more. Peak memory is measured in processes of their own, on a CPU, on 200 images and on the same files many times
over.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import normalize

sys.path.insert(0, str(Path(__file__).parent))
from packages import evaluate_with_grad_cam, installed
from timing import conclude, machine, side_by_side

from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.photographs import load
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks import load as networks
from gradcampp.networks.capture import PRECISIONS, computing
from gradcampp.networks.classes import numbered
from gradcampp.options import keep_freed_memory

READY = 8  # batches that the floor and grad-cam take turns with; all of a large data set would not fit


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


MEASURED = """
import re, sys
from gradcampp import cli
code = cli.main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""


def command(model: str, weights: str, folder: Path, out: Path, *others: str) -> int:
    """Run the command line on a folder; returns its peak resident memory in KiB, as the process itself finds it in the end.

    What the system tells a parent (``ru_maxrss``) is never less than the parent's own memory.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-c", MEASURED, "evaluate", "--data", str(folder), "--out", str(out), "--model", model),
            *([] if model == "mini" else ["--weights", weights]),
            *others,
        ],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"evaluate failed on {folder}: {done.stderr.strip()}")
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="evaluate against its forward passes.")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--memory-format", choices=("channels_last", "contiguous_format"), default="channels_last")
    parser.add_argument("--images", type=int, default=24, help="of the generated JPEGs (default: 24)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="also print where the time of one evaluate goes")
    parser.add_argument("--memory-model", default="squeezenet1_1", help="network of the memory runs (default: %(default)s)")
    parser.add_argument("--memory-images", type=int, default=200, help="0 leaves the memory runs out")
    parser.add_argument(
        "--memory-copies", type=int, nargs="+", default=[10], help="of each image, in the larger memory runs (default: 10)"
    )
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, workers = (8, 0) if device == "cpu" else (128, min(8, os.cpu_count() or 1))  # what the command line takes
    keep_freed_memory()  # as the command line does, for the floor too
    memory_format: torch.memory_format = getattr(torch, options.memory_format)
    loaded = networks.load(options.model, weights=options.weights, precision=options.precision)
    network = replace(loaded, memory_format=memory_format)
    module = network.module.to(memory_format=memory_format).to(device)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.data or jpegs(scratch / "jpegs", options.images)
        photographs = list_photographs(folder, numbered(1000))
        experiment = experiment_of(network, options.threshold, None, None)
        batches = [photographs[start : start + size] for start in range(0, len(photographs), size)]
        runs = 0

        def whole() -> Run:
            nonlocal runs
            runs += 1
            return evaluate(network, photographs, folder, scratch / f"run{runs}", experiment, Execution(size, workers, device))

        over = int((whole().records["score"] > options.threshold).sum())
        ready = [
            normalize(
                batch.pixels.to(device).float() / 255, list(network.preprocessing.mean), list(network.preprocessing.std)
            ).contiguous(memory_format=memory_format)
            for batch in load(folder, batches[:READY], network.preprocessing, 0)
        ]
        labels = [torch.tensor([photograph.label for photograph in batch], device=device) for batch in batches[:READY]]

        def floor() -> None:
            with torch.no_grad(), computing(options.precision, device):
                for place, batch in enumerate(batches):
                    module(ready[place % len(ready)][: len(batch)])
                for start in range(0, 6 * over, size):
                    module(ready[0][: min(size, 6 * over - start)])

        seconds = side_by_side(options.rounds, floor=floor, evaluate=whole)
        print(f"{options.model}, {options.precision}, {len(photographs)} images, {over} over {options.threshold:g}")
        print(f"  batches of {size}; {machine()}")
        print(f"  bare forward passes {median(seconds['floor']):8.2f} s")
        print(f"  evaluate            {median(seconds['evaluate']):8.2f} s")
        ratios = {"evaluate_over_forward": median(seconds["evaluate"]) / median(seconds["floor"])}
        start = time.perf_counter()
        chosen = ("--threshold", str(options.threshold), "--precision", options.precision, "--device", device)
        command(options.model, options.weights, folder, scratch / "command", *chosen)
        print(f"  the whole command   {time.perf_counter() - start:8.2f} s, start of Python and torch included")
        if "grad-cam" in installed() and options.precision == "float32":
            some = list(zip(ready, labels, strict=True))
            count = sum(len(own) for own in labels)

            def with_grad_cam() -> None:
                with computing("float32", device):
                    evaluate_with_grad_cam(module, network.layer, some, options.threshold)

            each = median(side_by_side(1, grad_cam=with_grad_cam)["grad_cam"]) / count
            print(f"  with grad-cam       {1000 * each:8.1f} ms an image (four maps, float32, {count} images decoded beforehand)")
            ratios["grad_cam_over_evaluate_per_image"] = each / (median(seconds["evaluate"]) / len(photographs))
        if options.profile:
            with torch.profiler.profile() as profiled:
                whole()
            print(profiled.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=25, max_name_column_width=60))
        if options.memory_images:
            few = options.data or jpegs(scratch / "few", options.memory_images)
            count = len(list_photographs(few, numbered(1000)))
            weights = options.weights if options.memory_model == options.model else "random"
            sure = ("--threshold", "0.5", "--device", "cpu")
            peaks = {count: command(options.memory_model, weights, few, scratch / "small", *sure)}
            for copies in options.memory_copies:
                many = repeated(few, scratch / f"copies{copies}", copies)
                peaks[copies * count] = command(options.memory_model, weights, many, scratch / f"large{copies}", *sure)
            sizes = ", ".join(f"{peak / 1024:.0f} MiB for {images} images" for images, peak in peaks.items())
            print(f"  peak memory, {options.memory_model}: {sizes}")
            ratios["peak_memory_ratio"] = max(peaks.values()) / peaks[count]
        conclude(ratios)


if __name__ == "__main__":
    main()
