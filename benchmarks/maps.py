"""Six maps per image against a bare forward pass, and against the package grad-cam.

VGG16 with random weights on random images, everything in one run:

    python benchmarks/maps.py [--batch-size 8] [--rounds 20]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from timing import conclude, machine, side_by_side

from gradcampp import models
from gradcampp.evaluate import heatmaps
from gradcampp.network import capture


class Score:
    """A target of grad-cam: the logit or the softmax score of a class."""

    def __init__(self, label: int, softmax: bool) -> None:
        self.label, self.softmax = label, softmax

    def __call__(self, logits: Tensor) -> Tensor:
        return (logits.softmax(-1) if self.softmax else logits)[self.label]


def main() -> None:
    parser = argparse.ArgumentParser(description="Six maps per image, side by side.")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    module = models.build("vgg16", "random").module.to(memory_format=torch.channels_last)
    inputs = torch.rand(options.batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size)

    def forward() -> Tensor:
        with torch.no_grad():
            return module(inputs)  # type: ignore[no-any-return]

    def ours() -> Tensor:
        return heatmaps(capture(module, "features.29", inputs, labels))

    def grad_cam() -> None:
        for method in (GradCAM, GradCAMPlusPlus):
            with method(module, [module.get_submodule("features.29")]) as maps:
                for softmax in (False, True):
                    maps(inputs, [Score(int(label), softmax) for label in labels])

    close = side_by_side(options.rounds, forward=forward, ours=ours)
    far = side_by_side(max(1, options.rounds // 5), ours=ours, grad_cam=grad_cam)
    print(f"VGG16, 224 x 224, batch of {options.batch_size}, channels last; {machine()}")
    for what, seconds in (
        ("bare forward pass", close["forward"]),
        ("six maps, gradcampp", close["ours"]),
        ("four maps, grad-cam", far["grad_cam"]),
    ):
        print(f"  {what:22s} {1000 * median(seconds):9.1f} ms a batch")
    conclude(
        {
            "maps_over_forward": median(close["ours"]) / median(close["forward"]),
            "grad_cam_over_ours": median(far["grad_cam"]) / median(far["ours"]),
        }
    )


if __name__ == "__main__":
    main()
