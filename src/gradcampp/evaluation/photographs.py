"""Photographs from disk, as a network sees them."""

from __future__ import annotations

import os
import re
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, functional

from gradcampp.errors import InputError, Notice
from gradcampp.evaluation import folders
from gradcampp.evaluation.folders import HEIF, Photograph, endings
from gradcampp.files import file_hash
from gradcampp.networks.preprocessing import Preprocessing

DEPTHS = (8, 10, 12, 14, 16)  # bits of what cameras and scanners write into wider numbers


class Batch(NamedTuple):  # which DataLoader knows how to bring into page-locked memory
    """Photographs that could be read, uint8 pixels (B, channels, h, w), SHA-256 and length in bytes of their files; bad ones.

    ``bad`` has the reason by image for those that could not be read.
    """

    photographs: list[folders.Photograph]
    pixels: Tensor
    hashes: list[str]
    sizes: list[int]
    bad: dict[str, str]


def allow_pixels(count: int) -> None:
    """Let Pillow read photographs of up to so many pixels in this process, and in those that :func:`load` starts."""
    Image.MAX_IMAGE_PIXELS = (count + 1) // 2  # Pillow refuses twice as many


def read_photograph(path: Path, preprocessing: Preprocessing, upright: bool = False) -> Tensor:
    """A photograph as the network sees it, before the normalisation.

    What a file does not tell is assumed, with a notice: which part of a wider scale its numbers fill, that what is
    transparent stands on white, and that of several pictures the first is meant.

    Args:
        path: an image in any format and mode that Pillow reads; deeper ones are scaled to 8 bits.
        upright: turn it as its EXIF orientation says. Published accuracies are measured without.

    Returns:
        uint8 (channels, h, w).

    Raises:
        InputError: if the file is missing or no readable image, or if its numbers are on no known scale.
    """
    if preprocessing.channels not in (1, 3):
        said = f"the network takes {preprocessing.channels} channels"
        raise InputError(f"photograph {path}: {said}, and a photograph has 3 or, in grey, 1; call the library with tensors")
    if path.exists() and not path.is_file():
        raise InputError(f"photograph {path}: a {'folder' if path.is_dir() else 'pipe or device'}; expected an image file")
    plugin = path.suffix.lower() in HEIF and path.suffix.lower() not in endings()
    try:
        with Image.open(path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":  # of telephones, which means one picture
                warnings.warn("of a file with several pictures, the first is taken", Notice, stacklevel=2)
            _check_tiff(image)
            told = _top(image), len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)  # lost in copies
            turned = ImageOps.exif_transpose(image) if upright else image
            converted = _to_mode(turned, "RGB" if preprocessing.channels == 3 else "L", *told)
    except FileNotFoundError:
        raise InputError(f"photograph {path}: no such file") from None
    except Image.DecompressionBombError as error:
        count = int(re.findall(r"\d+", str(error))[0])
        raise InputError(f"photograph {path}: {count} pixels are over the limit; --max-pixels {count} raises it") from None
    except Notice:
        raise
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        unknown = "needs pip install pillow-heif" if plugin else "not an image"
        reason = unknown if isinstance(error, UnidentifiedImageError) else str(error)
        size = path.stat().st_size if path.is_file() else None
        raise InputError(f"photograph {path}: {'empty file' if size == 0 else reason}; expected a readable image") from None
    wanted = list(preprocessing.resized(converted.height, converted.width))
    resized = functional.resize(converted, wanted, InterpolationMode(preprocessing.interpolation), antialias=True)
    if preprocessing.fit == "pad":
        mean = tuple(round(255 * value) for value in preprocessing.mean)
        (rows, columns), whole = preprocessing.size, resized
        resized = Image.new(whole.mode, (columns, rows), mean if len(mean) > 1 else mean[0])
        resized.paste(whole, ((columns - whole.width) // 2, (rows - whole.height) // 2))
    pixels: Tensor = functional.pil_to_tensor(functional.center_crop(resized, list(preprocessing.size)))
    return pixels


def _check_tiff(image: Image.Image) -> None:
    """Refuse TIFFs of more than 8 bits that Pillow reads without a word as something else."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(262) == 0 and max(tags.get(258, (1,))) > 8:  # PhotometricInterpretation, BitsPerSample
        raise ValueError("0 is white in it (WhiteIsZero), and it would be inverted; save it with 0 for black")
    if tags.get(284) == 2 and max(tags[258]) > 8 and str(getattr(image, "tile", ["raw"])[0][0]) == "raw":  # PlanarConfiguration
        raise ValueError("16 bits a channel, one channel after the other, would be misread; save it with 8 bits a channel")


def _top(image: Image.Image) -> float | None:
    """The number of white that a TIFF names (MaxSampleValue), or that follows from its bits; None where it says 16 or nothing."""
    tags = getattr(image, "tag_v2", {})
    bits = tags[258][0] if 258 in tags else 16  # BitsPerSample
    named = tags.get(281, 2**bits - 1)
    top = float(min(np.atleast_1d(named)))
    return top if top < 65535 else None


def _to_mode(image: Image.Image, mode: str, top: float | None, deep: bool) -> Image.Image:
    """Any picture with 8 bits in RGB or grey (L); Pillow alone would clip 16-bit greys at 255, and uncover what is transparent.

    ``top`` is the number of white of a grey one where that is known; of ``deep`` ones Pillow has kept the upper 8 of 16 bits.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image, top)
    elif deep and np.asarray(image.convert("RGB")).max() < 64:
        raise ValueError("16 bits a channel, the upper two never used, would be nearly black; save it with 8 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            warnings.warn("what is transparent stands on white", Notice, stacklevel=2)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _to_eight_bits(image: Image.Image, top: float | None) -> Image.Image:
    """Numbers of a wider scale as 8-bit grey; where ``top`` is unknown, they fill the least of ``DEPTHS`` that holds them.

    Floats up to 1 are on the scale 0 to 1.
    """
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite(values).all():
        raise ValueError("some of its numbers are NaN or infinite")
    bits = next((bits for bits in DEPTHS if high < 2**bits), None)
    if low < 0 or bits is None or (image.mode == "F" and 1 < high < 16):
        raise ValueError(f"its numbers go from {low:g} to {high:g}, on no scale that is known: 0 to 1, or up to 16 bits")
    if image.mode == "F" and high <= 1:
        top = 1.0
    elif top is None or high > top:
        top = 2.0**bits - 1
        if bits < 16 and high > 0:
            said = f"a grey picture of which no number is over {top:g} is taken for one of {bits} bits, with {top:g} for white"
            warnings.warn(said, Notice, stacklevel=2)
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def load(
    folder: Path, batches: Sequence[list[Photograph]], preprocessing: Preprocessing, workers: int, pinned: bool = False
) -> DataLoader[Batch]:
    """Decode batches of photographs below the data folder in so many worker processes, in the order given.

    With 0 workers they are decoded between the batches, in as many threads as there are cores. A GPU copies pinned ones fast.
    """
    return DataLoader(
        batches,  # type: ignore[arg-type]  # any sequence will do
        batch_size=None,
        collate_fn=partial(_decode, folder, preprocessing, 1 if workers else os.cpu_count() or 1),
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=partial(_start_worker, Image.MAX_IMAGE_PIXELS),
    )


def _decode(folder: Path, preprocessing: Preprocessing, threads: int, photographs: list[Photograph]) -> Batch:
    """A batch of what could be read; a worker decodes, crops and stacks it whole."""

    def read(photograph: Photograph) -> tuple[Tensor, str, int] | InputError:
        path = folder / photograph.image
        try:
            return read_photograph(path, preprocessing), file_hash(path), path.stat().st_size
        except InputError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        results = dict(zip(photographs, pool.map(read, photographs), strict=True))
    good = {photograph: found for photograph, found in results.items() if not isinstance(found, InputError)}
    pixels, hashes, sizes = map(list, zip(*good.values(), strict=True)) if good else ([], [], [])
    none = torch.empty(0, preprocessing.channels, *preprocessing.size, dtype=torch.uint8)
    bad = {photograph.image: str(error) for photograph, error in results.items() if isinstance(error, InputError)}
    return Batch(list(good), torch.stack(pixels) if pixels else none, hashes, sizes, bad)


def _start_worker(pixels: int | None, _worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # they are the parent's
    Image.MAX_IMAGE_PIXELS = pixels
