"""The options that commands share, and what they ask for: a profile, an execution, a device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from gradcampp.errors import InputError, Notice
from gradcampp.networks.preprocessing import FITS, INTERPOLATIONS

if TYPE_CHECKING:
    from gradcampp.evaluation.folders import Photograph
    from gradcampp.evaluation.processes import Processes
    from gradcampp.evaluation.profiles import Profile
    from gradcampp.evaluation.run import Execution
    from gradcampp.networks.capture import Network

# As capture, cam and folders have them, which load torch.
PRECISIONS, SCORES, ORDERS = ("float32", "tf32"), ("pre", "post"), ("index", "folder")
TF32 = "relative performance by up to 1.9 percent and standard deviations by up to 3.9 percent (two networks, H100)"
PATH, SHARE = click.Path(path_type=Path), click.FloatRange(0, 1, max_open=True)
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
SCORE = ("softmax", "sigmoid", "logit")  # as networks.scores has them
COUNT, WHOLE = click.IntRange(min=1), click.IntRange(min=0)
SEED = click.IntRange(0, 2**63 - 1)  # as large as torch takes it


def size(value: str) -> int | tuple[int, int]:
    """Pixels: the side of a square, or height and width as in ``224x320``."""
    found = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", value)
    if not found:
        raise click.BadParameter(f"{value!r} is neither a side, such as 224, nor height and width, such as 224x320")
    height, width = int(found[1]), int(found[2] or found[1])
    return height if height == width else (height, width)


def device(value: str) -> str:
    """A device as torch names it, without asking torch."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise click.BadParameter(f"{value!r} is not one of 'auto', 'cpu', 'cuda', 'cuda:1' (any number), 'mps'")
    return value


class Numbers(click.Option):
    """An option of one number or more, with spaces or commas between them: as many as follow it."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: D102
        super().add_to_parser(parser, ctx)
        own = parser._long_opt[self.opts[0]]
        process = own.process

        def take(value: str, state: Any) -> None:
            while state.rargs and re.fullmatch(NUMBER, state.rargs[0]):
                value += f",{state.rargs.pop(0)}"
            process(value, state)

        own.process = take

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[float, ...] | None:  # noqa: D102
        if value is None:
            return None
        parts = [part for part in re.split(r"[\s,]+", value) if part]
        wrong = next((part for part in parts if not re.fullmatch(NUMBER, part)), None if parts else value)
        if wrong is not None:
            raise click.BadParameter(f"{wrong!r} is not a number", ctx, self)
        return tuple(map(float, parts))


def allow(_context: click.Context, _parameter: click.Parameter, count: int | None) -> None:
    """Let Pillow read larger photographs."""
    if count is not None:
        from gradcampp.evaluation.photographs import allow_pixels

        allow_pixels(count)


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""
    return lambda command: reduce(lambda decorated, add: add(decorated), reversed(options), command)


model_options = together(
    option(
        "--model",
        metavar="NAME",
        help="mini, efficientnet_lite0, a torchvision name, timm/NAME or module:factory (default: mini)",
    ),
    option("--weights", metavar="FILE", help=".safetensors, a checkpoint of tensors, or 'random' (default: torchvision's cache)"),
    option("--score", type=click.Choice(SCORE), help="softmax (default), sigmoid (multi-label, binary) or logit (regression)"),
    option("--layer", metavar="NAME", help="module to explain (default: the last feature maps before the classifier)"),
    option("--layout", metavar="LAYOUT", help="of the layer: channels-first, channels-last or tokens:1:14x14 (default: found)"),
    option("--output", metavar="KEY_OR_INDEX", help="the class logits in what the network returns (default: found)"),
    option("--classes", type=PATH, metavar="FILE", help="class names, one a line (default: ImageNet's for 1,000 classes)"),
    option("--resize", type=COUNT, metavar="N", help="shorter side of a photograph in pixels"),
    option("--crop", type=size, metavar="N", help="what the network sees: side of a square, or 224x320, height first"),
    option("--fit", type=click.Choice(FITS), help="crop the middle (default), squash, or pad with the mean colour"),
    option("--interpolation", type=click.Choice(INTERPOLATIONS), help="of the resizing (default: that of the weights)"),
    option("--mean", cls=Numbers, metavar="R G B", help="subtracted on the scale 0 to 1; one number for a grey network"),
    option("--std", cls=Numbers, metavar="R G B", help="what the channels are divided by"),
    option(
        "--max-pixels", type=COUNT, metavar="N", callback=allow, expose_value=False, help="of a photograph (default: 179 million)"
    ),
    option("--seed", type=SEED, metavar="N", help="of --weights random, of a sample of photographs and of scenes (default: 0)"),
    option("--device", type=device, metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)"),
)

run_options = together(
    option("--labels", type=PATH, metavar="FILE", help="a table of image,label, where the photographs are in no class folders"),
    option("--label-order", type=click.Choice(ORDERS), help="folders of numbers: the index, or the place as for ImageFolder"),
    option("--threshold", type=SHARE, metavar="T", help="explain images whose label scores over T (default: 0.5)"),
    option("--limit", type=COUNT, metavar="N", help="only N images: the first, or with --seed a random sample"),
    option("--controls", is_flag=True, default=None, help="also score maps that check the metric itself: twice as many passes"),
    option("--precision", type=click.Choice(PRECISIONS), help=f"of the network (default: float32); tf32 moved {TF32}"),
    option("--batch-size", type=COUNT, metavar="N", help="images in the network together (default: 8 on a CPU, 128 on a GPU)"),
    option("--workers", type=WHOLE, metavar="N", help="processes that decode ahead (default: 0 on a CPU, up to 8 on a GPU)"),
    option("--skip-bad-images", is_flag=True, help="report and leave out unreadable photographs instead of stopping"),
)


folder_options = together(
    option("--data", type=PATH, required=True, metavar="DIR", help="one folder a class, named by index, WordNet id or name"),
    option("--out", type=PATH, required=True, metavar="RUN", help="folder of the run; an interrupted one in it goes on"),
    model_options,
    run_options,
)


def profile_of(start: Profile, options: dict[str, Any], processes: Processes | None) -> Profile:
    """A profile with the options that were given in the place of its own; says what a quick precision costs."""
    from gradcampp.evaluation import profiles

    profile = profiles.override(start, options)
    if profile.precision == "tf32" and not (processes and processes.rank):
        print(f"gradcampp: warning: --precision tf32 is for a quick look, not for results: it moved {TF32}", file=sys.stderr)
    return profile


def begun(
    data: Path, options: dict[str, Any], processes: Processes | None
) -> tuple[Execution, Profile, Network, list[Photograph]]:
    """Execution, profile, network and photographs of a command on a data folder; how these are prepared is printed."""
    from gradcampp.evaluation import profiles

    execution = execution_of(options, processes)
    profile = profile_of(profiles.Profile(), options, processes)
    network = profiles.network(profile)
    print(f"input: {network.preprocessing}")
    photographs = profiles.photographs(profile, data, network)
    if options["model"] is None:
        warnings.warn(profiles.NOT_CHOSEN, Notice, stacklevel=2)
    return execution, profile, network, photographs


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
    """The kind of device to use, ``cpu``, ``cuda`` or ``mps``; one of several CUDA devices becomes that of this process.

    Of several processes on a machine, each makes one its own.
    """
    import torch

    device, _, index = name.partition(":")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps is not on this machine; choose cpu or auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this machine has no CUDA device that torch can use; choose cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count() if device == "cuda" else 0
    if index and processes and processes.size > 1:
        raise InputError(f"--device {name}: torchrun's processes take a device each; choose cuda")
    if index:
        if int(index) >= count:
            raise InputError(f"--device {name}: this machine has {count} CUDA devices, cuda:0 to cuda:{count - 1}")
        torch.cuda.set_device(int(index))
    if device == "cuda" and processes and processes.size > 1:
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


def check_inputs(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Refuse to write over a file that is read, by whatever path."""
    for path in inputs:
        if path and out.exists() and Path(path).exists() and out.samefile(path):
            raise InputError(f"the output {out} would write over {path}, which is read; choose another name")


def check_apart(out: Path, data: Path | None) -> None:
    """Refuse a run folder in the data folder, where the next run would take it for a class."""
    if data and data.exists() and any(part.exists() and part.samefile(data) for part in (out.resolve(), *out.resolve().parents)):
        raise InputError(f"--out {out} is in the data folder {data}; choose a folder outside it")


def check_ending(out: Path, endings: str, name: str = "--out") -> None:
    """Refuse a file that cannot be written before the work is done."""
    if out.suffix.lower() not in endings.replace(",", "").split():
        raise InputError(f"{name} {out}: expected a name that ends in {endings}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{name} {out}: {'a folder' if out.is_dir() else f'the folder {out.parent} does not exist'}")
