"""How far each precision moves every entry of Tables 1 and 2 from float32.

The same photographs through the same network, once in each precision, everything in one run:

    python benchmarks/precision.py
    python benchmarks/precision.py --model squeezenet1_0 --weights W.safetensors --layer features.12 --data PHOTOS

By default the embedded network on generated scenes. TF32 is measured where there is a GPU that has it. Without
one it is emulated: the factors of every convolution and matrix product, forward and backward, rounded to the
10 bits that TF32 keeps of them, and everything else in float32. Changes are relative to the entry; those of
the mean, a logarithm, are differences, which say how far the relative performance moves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from timing import conclude, machine

from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.capture import PRECISIONS, Network, Precision
from gradcampp.networks.load import load
from gradcampp.performance import summaries
from gradcampp.scenes.folder import draw_scenes

THRESHOLD = 0.5
ENTRIES = ("relative_performance", "mean", "std")


def to_tf32(values: Tensor) -> Tensor:
    """Rounded to 10 bits after the point, to nearest with ties to even; hardware may differ in ties."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class Rounded(torch.autograd.Function):
    """A factor of a product, on its way forward (an input) or backward (the gradient of an output)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, is_input: bool) -> Tensor:
        return to_tf32(values) if is_input else values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.is_input = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return (gradients[0] if ctx.is_input else to_tf32(gradients[0])), None


@contextmanager
def emulated_tf32(module: nn.Module) -> Iterator[None]:
    """The module with the arithmetic of TF32 inside the block."""
    products = [child for child in module.modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    exact = [child.weight.data for child in products]
    handles = [child.register_forward_pre_hook(lambda _m, inputs: Rounded.apply(inputs[0], True)) for child in products]
    handles += [child.register_forward_hook(lambda _m, _i, output: Rounded.apply(output, False)) for child in products]
    for child in products:
        child.weight.data = to_tf32(child.weight.data)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for child, weight in zip(products, exact, strict=True):
            child.weight.data = weight


def records(loaded: Network, folder: Path, out: Path, precision: Precision, device: str) -> pd.DataFrame:
    """Rows of a run in a precision."""
    emulate = precision == "tf32" and device == "cpu"
    network = replace(loaded, precision="float32" if emulate else precision)
    experiment = experiment_of(network, THRESHOLD) | {"precision": precision}
    photographs = list_photographs(folder, network.classes)
    execution = Execution(8 if device == "cpu" else 128, 0, device)
    if emulate:
        with emulated_tf32(network.module):
            return evaluate(network, photographs, folder, out, experiment, execution).records
    return evaluate(network, photographs, folder, out, experiment, execution).records


def main() -> None:
    parser = argparse.ArgumentParser(description="Every table entry in each precision.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--weights")
    parser.add_argument("--layer")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--scenes", type=int, default=1000, help="generated where there is no --data (default: 1000)")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load(options.model, options.layer, weights=options.weights)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or draw_scenes(Path(scratch) / "scenes", 0, options.scenes)
        rows = {name: records(network, folder, Path(scratch) / name, name, device) for name in PRECISIONS}
    over = {name: int((own["score"] > THRESHOLD).sum()) for name, own in rows.items()}
    print(f"{options.model}, {len(rows['float32'])} images, over {THRESHOLD:g}: {over}; {device}, {machine()}")
    entries = {name: summaries(own) for name, own in rows.items()}
    worst = dict.fromkeys(PRECISIONS[1:], 0.0)
    for entry in ENTRIES:
        for (scores, (first, second)), exact in entries["float32"].items():
            value = getattr(exact, entry)
            line = f"  {scores:4s} {first:9s} vs {second:8s} {entry:20s} {value:+9.4f}"
            for name in worst:
                found = getattr(entries[name][scores, (first, second)], entry)
                change = found - value if entry == "mean" else found / value - 1  # a mean is a logarithm, and may be 0
                worst[name] = max(worst[name], abs(change))
                line += f"   {name} {found:+9.4f} ({change:+8.3%})"
            print(line)
    conclude({f"{name}_largest_change_percent": 100 * change for name, change in worst.items()})


if __name__ == "__main__":
    main()
