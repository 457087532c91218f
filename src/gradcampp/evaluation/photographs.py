"""Photographs and their labels from disk."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode, functional

from gradcampp.errors import InputError
from gradcampp.files import file_hash
from gradcampp.networks.capture import Preprocessing
from gradcampp.networks.classes import Classes, of_folder

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A labelled image file: path relative to the data folder (with forward slashes), and class index."""

    image: str
    label: int


@dataclass(frozen=True)
class Batch:
    """Photographs that could be read, and the reasons why the others could not.

    Attributes:
        photographs: those that could be read.
        pixels: theirs, uint8 (B, 3, crop, crop).
        hashes, sizes: SHA-256 and length in bytes of their files.
        bad: reason by image for the unreadable ones.
    """

    photographs: list[Photograph]
    pixels: Tensor
    hashes: list[str]
    sizes: list[int]
    bad: dict[str, str]

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, which a GPU copies while it computes; DataLoader calls this by its name."""
        return replace(self, pixels=self.pixels.pin_memory())


def list_photographs(folder: Path, classes: Classes) -> list[Photograph]:
    """All photographs below the class folders of a data folder, sorted by path.

    Args:
        folder: holds one folder a class, named by its index, its WordNet id or its name. Files with
            other endings than those of images, and hidden ones, are passed over.
        classes: of the network that will see them.

    Raises:
        InputError: if the folder is missing or empty, or a class folder names no class.
    """
    if not folder.is_dir():
        raise InputError(f"data {folder}: no such folder; expected one with a folder of photographs for each class")
    class_folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    images = {path.name: _image_files(path) for path in class_folders}
    labels = {name: of_folder(classes, name) for name, own in images.items() if own}
    found = [Photograph(path.relative_to(folder).as_posix(), labels[name]) for name, own in images.items() for path in own]
    if not found:
        raise InputError(f"data {folder}: no photographs in class folders; expected {folder}/CLASS/PHOTO.jpg")
    return sorted(found, key=lambda photograph: photograph.image)


def _image_files(folder: Path) -> list[Path]:
    """Image files below a folder, through links but through no folder twice."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = Path(parent).stat()
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
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
        preprocessing: shorter side and central crop.
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
        full = 255.0 if values.max() <= 255 else 65535.0
        if image.mode.startswith("I;16"):
            full = 65535.0
        elif image.mode == "F" and values.max() <= 1:
            full = 1.0
        image = Image.fromarray(np.rint(values.clip(0, full) * (255 / full)).astype(np.uint8))
    return image.convert("RGB")


class _Batches(Dataset[Batch]):
    """Whole batches, so that a worker decodes, crops and stacks one at a time."""

    def __init__(self, folder: Path, batches: Sequence[list[Photograph]], preprocessing: Preprocessing, threads: int) -> None:
        self.folder, self.batches, self.preprocessing, self.threads = folder, batches, preprocessing, threads

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        with ThreadPoolExecutor(self.threads) as pool:
            results = dict(zip(self.batches[index], pool.map(self._read, self.batches[index]), strict=True))
        good = {photograph: read for photograph, read in results.items() if not isinstance(read, str)}
        none = torch.empty(0, 3, self.preprocessing.crop, self.preprocessing.crop, dtype=torch.uint8)
        return Batch(
            photographs=list(good),
            pixels=torch.stack([pixels for pixels, _, _ in good.values()]) if good else none,
            hashes=[digest for _, digest, _ in good.values()],
            sizes=[size for _, _, size in good.values()],
            bad={photograph.image: reason for photograph, reason in results.items() if isinstance(reason, str)},
        )

    def _read(self, photograph: Photograph) -> tuple[Tensor, str, int] | str:
        """Pixels, hash and length of a photograph, or the reason why it cannot be read."""
        path = self.folder / photograph.image
        try:
            return read_photograph(path, self.preprocessing), file_hash(path), path.stat().st_size
        except InputError as error:
            return str(error)


def load(
    folder: Path, batches: Sequence[list[Photograph]], preprocessing: Preprocessing, workers: int, pinned: bool = False
) -> DataLoader[Batch]:
    """Decode batches of photographs in worker processes, in the order given.

    Args:
        folder: the data folder.
        batches: what belongs together.
        preprocessing: shorter side and central crop.
        workers: number of processes; 0 decodes between the batches, in as many threads as there are cores.
        pinned: for a fast copy to a GPU.
    """
    return DataLoader(
        _Batches(folder, batches, preprocessing, threads=1 if workers else os.cpu_count() or 1),
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_interrupts_to_the_parent,
    )


def _leave_interrupts_to_the_parent(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
