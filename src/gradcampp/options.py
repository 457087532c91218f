"""The options that commands share, and what they ask for: a profile, an execution, a device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from gradcampp.errors import InputError

if TYPE_CHECKING:
    from gradcampp.evaluation.processes import Processes
    from gradcampp.evaluation.profiles import Profile
    from gradcampp.evaluation.run import Execution

PRECISIONS, SCORES = ("float32", "tf32"), ("pre", "post")  # as capture and cam have them, which load torch
TF32 = "relative performance by up to 0.24 percent and standard deviations by up to 1.7 percent (SqueezeNet, emulated)"
PATH, SHARE = click.Path(path_type=Path), click.FloatRange(0, 1, max_open=True)
SCORE = ("softmax", "sigmoid", "logit")  # as networks.scores has them
COUNT, WHOLE = click.IntRange(min=1), click.IntRange(min=0)


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""
    return lambda command: reduce(lambda decorated, add: add(decorated), reversed(options), command)


model_options = together(
    option("--model", metavar="NAME", help="mini, efficientnet_lite0, a torchvision name or module:factory (default: mini)"),
    option("--weights", metavar="FILE", help=".safetensors, a checkpoint of tensors, or 'random' (default: torchvision's cache)"),
    option("--score", type=click.Choice(SCORE), help="softmax (default), sigmoid (multi-label, binary) or logit (regression)"),
    option("--layer", metavar="NAME", help="module to explain (default: the last feature maps before the classifier)"),
    option("--classes", type=PATH, metavar="FILE", help="class names, one a line (default: ImageNet's for 1,000 classes)"),
    option("--resize", type=COUNT, metavar="N", help="shorter side of a photograph in pixels"),
    option("--crop", type=COUNT, metavar="N", help="side of the central square that the network sees"),
    option("--mean", type=float, nargs=3, metavar="R G B", help="subtracted from the channels on the scale 0 to 1"),
    option("--std", type=float, nargs=3, metavar="R G B", help="what the channels are divided by"),
    option("--seed", type=WHOLE, metavar="N", help="of --weights random, of a sample of photographs and of scenes (default: 0)"),
    option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto"),
)

run_options = together(
    option("--threshold", type=SHARE, metavar="T", help="explain images whose label scores over T (default: 0.5)"),
    option("--limit", type=COUNT, metavar="N", help="only N images: the first, or with --seed a random sample"),
    option("--controls", is_flag=True, default=None, help="also score maps that check the metric itself: twice as many passes"),
    option("--precision", type=click.Choice(PRECISIONS), help=f"of the network (default: float32); tf32 moved {TF32}"),
    option("--batch-size", type=COUNT, metavar="N", help="images in the network together (default: 8 on a CPU, 128 on a GPU)"),
    option("--workers", type=WHOLE, metavar="N", help="processes that decode ahead (default: 0 on a CPU, up to 8 on a GPU)"),
    option("--skip-bad-images", is_flag=True, help="report and leave out unreadable photographs instead of stopping"),
)


def profile_of(start: Profile, options: dict[str, Any], processes: Processes | None) -> Profile:
    """A profile with the options that were given in the place of its own; says what a quick precision costs."""
    from gradcampp.evaluation import profiles

    profile = profiles.override(start, options)
    if profile.precision == "tf32" and not (processes and processes.rank):
        print(f"gradcampp: warning: --precision tf32 is for a quick look, not for results: it moved {TF32}", file=sys.stderr)
    return profile


def execution_of(options: dict[str, Any], processes: Processes | None) -> Execution:
    """The execution that ``run_options`` ask for, which are taken out of the options."""
    from gradcampp.evaluation.run import Execution

    batch_size, workers, device, skip = (options.pop(name) for name in ("batch_size", "workers", "device", "skip_bad_images"))
    device = choose_device(device, processes)
    cores = max(1, (os.cpu_count() or 1) // (processes.local_size if processes else 1))
    if device == "cpu":
        keep_freed_memory()
        return Execution(batch_size or 8, workers or 0, device, skip)
    return Execution(batch_size or 128, min(8, cores) if workers is None else workers, device, skip)


def choose_device(name: str, processes: Processes | None) -> str:
    """The device to use; of several CUDA devices, each process of a machine makes one its own."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if device == "cuda" and processes and processes.size > 1:
        count = torch.cuda.device_count()
        if processes.local_rank >= count:
            raise InputError(f"torchrun has started more processes than the {count} CUDA devices of this machine; choose fewer")
        torch.cuda.set_device(processes.local_rank)
    return device


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for as long as this process lives; without glibc, do nothing.

    By default it returns blocks over 32 MiB to the system, and the page faults of getting them back take a tenth (VGG16) to a
    third (SqueezeNet) of a forward pass with eight images.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block has a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap keeps up to 2 GiB that are free


def check_ending(out: Path, endings: str) -> None:
    """Refuse a file that cannot be written before the work is done."""
    if out.suffix.lower() not in endings.replace(",", "").split():
        raise InputError(f"--out {out}: expected a name that ends in {endings}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")
