"""Six maps per image against a bare forward pass, and against grad-cam, torchcam and captum.

VGG16 with random weights on random images, on the GPU if there is one, everything in one run:

    python benchmarks/maps.py [--batch-size 8] [--rounds 20]

Freed memory is kept, as the command line does: what ran before must not change how fast the floor is. Our surplus is
nearly all in the fully connected layers, whose 411 MB of weights one backward pass goes through for both scores
whatever the batch: the larger the batch, the less it weighs.

The packages are compared by the time for one map, because each has other methods.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from packages import installed
from timing import conclude, machine, side_by_side

from gradcampp.evaluation.maps import heatmaps
from gradcampp.networks.capture import capture, computing
from gradcampp.networks.load import load
from gradcampp.options import keep_freed_memory

LAYER = "features.29"


def main() -> None:
    parser = argparse.ArgumentParser(description="Six maps per image, side by side.")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--without-packages", action="store_true", help="only the bare forward pass and ours")
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = load("vgg16", LAYER, weights="random").module.to(device).to(memory_format=torch.channels_last)
    inputs = torch.rand(options.batch_size, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=device)

    def forward() -> Tensor:
        with torch.no_grad():
            return module(inputs)  # type: ignore[no-any-return]

    def ours() -> Tensor:
        return heatmaps(capture(module, LAYER, inputs, labels))

    print(f"VGG16, 224 x 224, batch of {options.batch_size}, channels last, float32; {machine()}")
    others = {} if options.without_packages else installed()
    with computing("float32", device):
        counts = {name: run(module, LAYER, inputs, labels) for name, run in others.items()}
        contestants = {name: partial(run, module, LAYER, inputs, labels) for name, run in others.items()}
        close = side_by_side(options.rounds, forward=forward, ours=ours)
        far = side_by_side(max(1, options.rounds // 5), ours=ours, **contestants)
    print(f"  bare forward pass   {1000 * median(close['forward']):9.1f} ms a batch")
    ratios = {"maps_over_forward": median(close["ours"]) / median(close["forward"])}
    for name, maps in {"ours": 6, **counts}.items():
        seconds = median(far[name])
        speed = maps * options.batch_size / seconds
        print(f"  {name:9s} {maps} maps    {1000 * seconds:9.1f} ms a batch, {speed:9.1f} maps a second")
        if name != "ours":
            ratios[f"{name.replace('-', '_')}_over_ours_per_map"] = seconds / maps / (median(far["ours"]) / 6)
    conclude(ratios)


if __name__ == "__main__":
    main()
