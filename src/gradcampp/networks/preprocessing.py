"""From a photograph to the input of a network: which pixels, which scale, and how that is known."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from gradcampp.errors import InputError, listed

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

Fit = Literal["crop", "squash", "pad"]
FITS: tuple[Fit, ...] = get_args(Fit)
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # those of Pillow
GREY = (0.449,), (0.226,)  # the means of ImageNet's three channels


@dataclass(frozen=True)
class Preprocessing:
    """From a photograph to the input of a network.

    Attributes:
        resize: length of the shorter side after the resizing, in pixels; more where an oblong crop needs more. Only ``crop``
            looks at it.
        crop: what the network sees, in pixels: side of a square, or height and width.
        mean, std: of the channels on the scale [0, 1], red, green and blue or grey; subtracted and divided by.
        interpolation: of the resizing, one of ``INTERPOLATIONS``, all with antialiasing but ``nearest``.
        fit: ``crop`` cuts the middle out of the resized photograph, ``squash`` changes its proportions, and ``pad`` fits it
            in whole and fills the rest with the mean colour.
        origin: how it is known; decides nothing.
    """

    resize: int = 256
    crop: int | tuple[int, int] = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    fit: Fit = "crop"
    origin: str = field(default="assumed, as for most networks of ImageNet", compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees, in pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @property
    def channels(self) -> int:
        """3 for red, green and blue, 1 for grey."""
        return len(self.mean)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels, by name."""
        return {name: value for name, value in asdict(self).items() if name != "origin"}

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a photograph of this size is resized, before it is cropped or padded to ``size``."""
        rows, columns = self.size
        if self.fit == "squash":
            return rows, columns
        if self.fit == "pad":
            scale = min(rows / height, columns / width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        short = max(self.resize, math.ceil(min(height, width) * max(rows / height, columns / width)))
        long = int(short * max(height, width) / min(height, width))  # as torchvision rounds
        return (short, long) if height <= width else (long, short)

    def __str__(self) -> str:
        """All of it in a line, with how it is known."""
        rows, columns = self.size
        how = {
            "crop": f"shorter side {self.resize} {self.interpolation}, centre {rows} x {columns}",
            "squash": f"squashed to {rows} x {columns} {self.interpolation}",
            "pad": f"fitted into {rows} x {columns} {self.interpolation}, the rest in the mean colour",
        }[self.fit]
        channels = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return f"{how}, {channels}, mean {_spaced(self.mean)}, std {_spaced(self.std)}; {self.origin}"


def of_weights(published: Iterable[WeightsEnum], file_name: str = "", sha256: str = "") -> Preprocessing:
    """The preprocessing that torchvision publishes beside the weights of a network.

    Which of them a file holds is told by the start of its SHA-256, which torchvision writes into the name of the file too; of
    a file that has neither, those published first are assumed.

    Args:
        published: all weights of the network.
        file_name, sha256: of the file; empty for random weights.
    """
    every = list(published)
    prefixes = {re.sub(r".*-|\..*", "", each.url.rsplit("/", 1)[-1]): each for each in every}
    for prefix, each in prefixes.items():
        if sha256.startswith(prefix):
            return _of(each, f"from {each}, whose file this is")
    for prefix, each in prefixes.items():
        if prefix in file_name:
            return _of(each, f"from {each}, whose hash is in the name of the file")
    kinds: dict[Preprocessing, list[str]] = {}
    for each in every:
        kinds.setdefault(_of(each, ""), []).append(each.name)
    if not kinds:
        return Preprocessing()
    others = [f"{' and '.join(names)} {kind.resize}/{kind.crop} {kind.interpolation}" for kind, names in [*kinds.items()][1:]]
    says = f"; {listed(others)}: give yours where it is another" if others else ""
    return _of(every[0], f"assumed, from {every[0]}{says}")


def _of(weights: WeightsEnum, origin: str) -> Preprocessing:
    known = weights.transforms()
    sizes = known.resize_size[0], known.crop_size[0]
    return Preprocessing(*sizes, tuple(known.mean), tuple(known.std), known.interpolation.value, origin=origin)


def of_module(module: nn.Module) -> Preprocessing:
    """The preprocessing that a network of timm brings along (``pretrained_cfg``), else ImageNet's for its number of channels.

    Raises:
        InputError: if the network takes other channels than grey, or red, green and blue, and does not say how.
    """
    told = getattr(module, "pretrained_cfg", None) or {}
    channels = _channels(module)
    if isinstance(told, dict) and {"input_size", "mean", "std", "interpolation", "crop_pct"} <= told.keys():
        _, rows, columns = told["input_size"]
        squashed = told.get("crop_mode") == "squash"
        known = Preprocessing(
            resize=math.floor(min(rows, columns) / told["crop_pct"]),
            crop=rows if rows == columns else (rows, columns),
            mean=tuple(told["mean"]),
            std=tuple(told["std"]),
            interpolation=told["interpolation"] if told["interpolation"] in INTERPOLATIONS else "bicubic",
            fit="squash" if squashed else "crop",
            origin="from the network's pretrained_cfg",
        )
        if known.channels == channels:
            return known
    if channels == 1:
        return Preprocessing(mean=GREY[0], std=GREY[1], origin="assumed, ImageNet's in grey")
    return Preprocessing()


def _channels(module: nn.Module) -> int:
    """Channels of the pictures, by the first convolution; 3 where that says nothing."""
    weights = (getattr(each, "weight", None) for each in module.modules() if hasattr(each, "kernel_size"))
    first = next((weight for weight in weights if weight is not None and weight.ndim == 4), None)
    return 1 if first is not None and first.shape[1] == 1 else 3


def chosen(known: Preprocessing, **given: Any) -> Preprocessing:
    """A preprocessing with what the user gives in the place of its own; None leaves it as it is.

    Raises:
        InputError: if it does not go together, or is on the scale 0 to 255.
    """
    given = {name: value for name, value in given.items() if value is not None}
    result = replace(known, **given)
    if given:
        parts = ", ".join(f"--{name}" for name in given)
        result = replace(result, origin=f"{parts} as given, the rest {known.origin}")
    if len(result.mean) != len(result.std):
        raise InputError(f"--mean has {len(result.mean)} numbers and --std {len(result.std)}; expected one a channel in both")
    if not all(0 <= value <= 1 for value in result.mean):
        raise InputError(f"--mean {_spaced(result.mean)}: expected numbers from 0 to 1{_on_scale_255('mean', result.mean)}")
    if not all(0 < value <= 1 for value in result.std):
        raise InputError(f"--std {_spaced(result.std)}: expected positive numbers up to 1{_on_scale_255('std', result.std)}")
    if result.interpolation not in INTERPOLATIONS:
        raise InputError(f"--interpolation {result.interpolation}: expected one of {', '.join(INTERPOLATIONS)}")
    if result.fit not in FITS:
        raise InputError(f"--fit {result.fit}: expected one of {', '.join(FITS)}")
    side = "x".join(map(str, dict.fromkeys(result.size)))
    if result.fit == "crop" and min(result.size) > result.resize:
        raise InputError(f"--crop {side} is larger than --resize {result.resize}; expected a crop that fits")
    if result.fit != "crop" and "resize" in given:
        raise InputError(f"--resize is for --fit crop; with --fit {result.fit} give the size as --crop")
    return result


def _spaced(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _on_scale_255(name: str, values: Sequence[float]) -> str:
    """The same numbers on the scale 0 to 1, where they look like those of the scale 0 to 255."""
    if all(0 <= value <= 255 for value in values) and max(values) > 1:
        return f", the scale of the pixels here; if these are of 0 to 255: --{name} {_spaced([value / 255 for value in values])}"
    return ""
