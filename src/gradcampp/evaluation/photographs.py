"""Photographs and their labels from disk."""

from __future__ import annotations

import os
import random
import signal
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

from gradcampp.errors import InputError
from gradcampp.files import file_hash
from gradcampp.networks.classes import Classes, of_folder
from gradcampp.networks.preprocessing import Preprocessing

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class Photograph(NamedTuple):
    """A labelled image file: path relative to the data folder (with forward slashes), and class index."""

    image: str
    label: int


class Batch(NamedTuple):  # which DataLoader knows how to bring into page-locked memory
    """Photographs that could be read, uint8 pixels (B, 3, crop, crop), SHA-256 and length in bytes of their files; bad ones.

    ``bad`` has the reason by image for those that could not be read.
    """

    photographs: list[Photograph]
    pixels: Tensor
    hashes: list[str]
    sizes: list[int]
    bad: dict[str, str]


def list_photographs(folder: Path, classes: Classes) -> list[Photograph]:
    """All photographs below the class folders of a data folder, sorted by path.

    A class folder is named by the index, the WordNet id or a name of its class. Files with other endings than those of
    images, and hidden ones, are passed over.

    Raises:
        InputError: if the folder is missing or empty, or a class folder names no class.
    """
    if not folder.is_dir():
        raise InputError(f"data {folder}: no such folder; expected one with a folder of photographs for each class")
    found: list[Photograph] = []
    for class_folder in sorted(folder.glob("[!.]*/")):
        images = _image_files(class_folder)
        label = of_folder(classes, class_folder.name) if images else 0
        found += [Photograph(path.relative_to(folder).as_posix(), label) for path in images]
    if not found:
        raise InputError(f"data {folder}: no photographs in class folders; expected {folder}/CLASS/PHOTO.jpg")
    return sorted(found, key=lambda photograph: photograph.image)


def _image_files(folder: Path) -> list[Path]:
    """Image files below a folder, through links but through no folder twice."""
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        found += [Path(parent, name) for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"photograph {str(path)!a}: the name is not UTF-8; rename it") from None
    return found


def choose(photographs: list[Photograph], limit: int | None, seed: int | None) -> list[Photograph]:
    """The first ``limit`` photographs, or with a seed a random sample of that size, in the same order."""
    if limit is None or limit >= len(photographs):
        return photographs
    indices = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(photographs)), limit))
    return [photographs[index] for index in indices]


def read_photograph(path: Path, preprocessing: Preprocessing, upright: bool = False) -> Tensor:
    """A photograph as the network sees it, before the normalisation.

    Args:
        path: an image in any format and mode that Pillow reads; 16-bit ones are scaled to 8 bits.
        upright: turn it as its EXIF orientation says. Published accuracies are measured without.

    Returns:
        uint8 (3, crop, crop).

    Raises:
        InputError: if the file is missing or no readable image.
    """
    try:
        with Image.open(path) as image:
            rgb = _to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except FileNotFoundError:
        raise InputError(f"photograph {path}: no such file") from None
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        size = path.stat().st_size if path.is_file() else None
        raise InputError(f"photograph {path}: {'empty file' if size == 0 else reason}; expected a readable image") from None
    resized = functional.resize(rgb, [preprocessing.resize], InterpolationMode(preprocessing.interpolation), antialias=True)
    pixels: Tensor = functional.pil_to_tensor(functional.center_crop(resized, [preprocessing.crop]))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB; Pillow alone would clip 16-bit greys at 255."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        full = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
        if image.mode == "F" and values.max() <= 1:
            full = 1.0
        image = Image.fromarray(np.rint(values.clip(0, full) * (255 / full)).astype(np.uint8))
    return image.convert("RGB")


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
        worker_init_fn=_ignore_interrupts,
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
    none = torch.empty(0, 3, preprocessing.crop, preprocessing.crop, dtype=torch.uint8)
    bad = {photograph.image: str(error) for photograph, error in results.items() if isinstance(error, InputError)}
    return Batch(list(good), torch.stack(pixels) if pixels else none, hashes, sizes, bad)


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # they are the parent's
