"""Which photographs a data folder holds, and their labels."""

from __future__ import annotations

import csv
import importlib
import os
import random
import warnings
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, get_args

from PIL import Image
from scipy.stats import binom

from gradcampp.errors import InputError, Notice, listed
from gradcampp.networks.classes import Classes, of_folder

Order = Literal["index", "folder"]
ORDERS: tuple[Order, ...] = get_args(Order)
OTHERS = ("BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF")  # data, films and drawings to Pillow
HIDDEN = (".", "__", "@", "$")  # also __MACOSX, @eaDir, $RECYCLE.BIN
HEIF = (".heic", ".heif", ".hif")  # read by a plugin of Pillow
SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val")  # the likeliest last


class Photograph(NamedTuple):
    """A labelled image file: path relative to the data folder (with forward slashes), and class index."""

    image: str
    label: int


def list_photographs(folder: Path, classes: Classes, order: Order | None = None, labels: Path | None = None) -> list[Photograph]:
    """All photographs of a data folder with their labels, sorted by path.

    A class folder is named by the index, the WordNet id or a name of its class. A notice says what is left out: hidden files
    and those in hidden folders (also ``__MACOSX`` and ``@eaDir``), images beside the class folders, and what is no image.

    Args:
        order: ``index`` reads folders of numbers as indices, ``folder`` gives the class folders, sorted as texts, the indices
            0, 1, 2 ... as torchvision's ImageFolder does. None means ``index``, with a notice where the two differ.
        labels: a table in the place of class folders, as :func:`read_labels` reads it.

    Raises:
        InputError: if the folder is missing or empty, or a class folder or a label names no class.
    """
    if not folder.is_dir():
        raise InputError(f"data {folder}: no such folder; expected one with a folder of photographs for each class")
    images, left = _images(folder)
    inside = [image for image in images if "/" in image]
    if labels is None:
        named = sorted({image.split("/")[0] for image in inside})
        label = _labels(folder, named, inside, classes, order)
        found = [Photograph(image, label[image.split("/")[0]]) for image in inside]
        left["in no class folder"] = loose = len(images) - len(inside)
        hint = f"; the {loose} beside them need --labels FILE" if loose else ""
        expected = f"no photographs in class folders; expected {folder}/CLASS/PHOTO.jpg{hint}"
    else:
        known = read_labels(labels, folder, classes)
        if absent := sorted(known.keys() - set(images)):
            raise InputError(f"labels {labels}: {listed(absent)} {'is' if len(absent) == 1 else 'are'} no photograph in {folder}")
        found = [Photograph(image, known[image]) for image in images if image in known]
        left[f"without a row in {labels}"] = len(images) - len(found)
        expected = f"no photograph has a row in {labels}"
    if not found:
        raise InputError(f"data {folder}: {expected}")
    if any(left.values()):
        told = ", ".join(f"{count} {reason}" for reason, count in left.items() if count)
        warnings.warn(f"data {folder}: {len(found)} photographs; left out: {told}", Notice, stacklevel=2)
    return sorted(found, key=lambda photograph: photograph.image)


def endings() -> set[str]:
    """Endings of the image files that Pillow reads, and its plugin for HEIF where that is installed."""
    if find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in OTHERS}


def _images(folder: Path) -> tuple[list[str], Counter[str]]:
    """Image files below a folder, through links but through no folder twice, and what else is there, counted by what it is."""
    known = endings()
    found: list[str] = []
    left: Counter[str] = Counter()
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        within = Path(parent).relative_to(folder)
        hidden = any(part.startswith(HIDDEN) for part in within.parts)
        for name in names:
            ending = Path(name).suffix.lower()
            if hidden or name.startswith("."):
                left["hidden"] += ending in known
            elif ending in HEIF and ending not in known:
                left[f"{ending} (pip install pillow-heif)"] += 1
            elif ending not in known:
                left[ending or "without an ending"] += len(within.parts) > 0  # beside the class folders may be anything
            elif Path(parent, name).is_file():
                found.append((within / name).as_posix())
            else:
                left["broken links or pipes"] += 1
    for image in found:
        try:
            image.encode()
        except UnicodeEncodeError:
            raise InputError(f"photograph {str(folder / image)!a}: the name is not UTF-8; rename it") from None
    return found, left


def _labels(folder: Path, named: list[str], images: list[str], classes: Classes, order: Order | None) -> Mapping[str, int]:
    """The class index of each class folder that holds photographs."""
    if named and {name.lower() for name in named} <= set(SPLITS):
        likely = max(named, key=lambda name: SPLITS.index(name.lower()))
        raise InputError(f"data {folder} holds {listed(named)}, not class folders; did you mean {folder / likely}?")
    if order == "folder":
        every = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(HIDDEN))
        if len(every) != len(classes):
            said = f"{folder} has {len(every)} class folders, and the network {len(classes)} classes"
            raise InputError(f"--label-order folder: {said}; expected as many")
        for index, name in enumerate(every):
            if name in classes.names and classes.names.index(name) != index:
                said = f"folder {name} is number {index}, and the network's class {name} is {classes.names.index(name)}"
                raise InputError(f"--label-order folder: {said}; leave the option out, and names count")
        return {name: index for index, name in enumerate(every)}
    found: dict[str, int] = {}
    for name in named:
        try:
            found[name] = of_folder(classes, name)
        except InputError as error:
            deeper = all(image.count("/") > 1 for image in images if image.startswith(f"{name}/"))
            hint = "--classes FILE gives the names of the classes; --label-order folder counts the folders, as ImageFolder does"
            raise InputError(f"{error}; {f'did you mean --data {folder / name}?' if deeper else hint}") from None
    if order is None and not classes.wordnet and all(name.isdecimal() and name not in classes.names for name in named):
        texts = named if len(named) == len(classes) else sorted(map(str, range(len(classes))))
        if any(name in texts and texts.index(name) != label for name, label in found.items()):
            said = f"{listed(texts, 4)} are folders 0, 1, 2, 3 to torchvision's ImageFolder"
            warnings.warn(
                f"data {folder}: folders of numbers are read as class indices, 10 as class 10; {said}: --label-order folder "
                "if the network was trained so (--label-order index if not, and this line goes)",
                Notice,
                stacklevel=3,
            )
    return found


def read_labels(path: Path, folder: Path, classes: Classes) -> dict[str, int]:
    """Labels of a flat folder from a table: a row for each photograph, its path in the folder and its class.

    The columns are separated by a comma, a semicolon, a tab or a space; a first row of names is passed over. A class is an
    index, a WordNet id or a name.

    Raises:
        InputError: if the file is no such table, or a class is unknown; the line names the row.
    """
    if not path.is_file():
        raise InputError(f"labels {path}: no such file; expected a table of image,label")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        separator = next((each for each in ",;\t " if lines and each in lines[0]), ",")
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read labels from {path}: {error}") from None
    found: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        where = f"labels {path}, row {number}"
        if len(cells) != 2:
            said = f"{len(cells)} columns; expected image{separator}label, and quotes around what has a {separator!r}"
            raise InputError(f"{where}: {said}")
        image = PurePosixPath(cells[0].replace("\\", "/"))
        image = image.relative_to(folder.absolute()) if image.is_relative_to(folder.absolute()) else image
        try:
            label = of_folder(classes, cells[1])
        except InputError as error:
            if number == 1 and not image.suffix:  # names of the columns
                continue
            raise InputError(f"{where}: {str(error).removeprefix(f'class folder {cells[1]!r}: ')}") from None
        if found.setdefault(image.as_posix(), label) != label:
            raise InputError(f"{where}: {image} has two labels, {found[image.as_posix()]} and {label}")
    return found


def choose(photographs: list[Photograph], limit: int | None, seed: int | None) -> list[Photograph]:
    """The first ``limit`` photographs, or with a seed a random sample of that size, in the same order."""
    if limit is None or limit >= len(photographs):
        return photographs
    indices = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(photographs)), limit))
    return [photographs[index] for index in indices]


def at_chance(manifest: Mapping[str, Any], classes: int) -> str:
    """A loud line where a finished run's top-1 accuracy is no better than guessing, which explains nothing; else empty.

    That is where guessing one of the classes would be right as often, or more so, in over one of a hundred runs. Fewer than
    ten images do not tell a network that guesses from a good one.
    """
    images, right = manifest["images"], round((manifest.get("top1") or 0) * manifest["images"])
    random_weights = str(manifest["experiment"].get("weights", "")).startswith("random")
    if random_weights or not images or classes < 2 or binom.sf(right - 1, images, 1 / classes) <= 0.01:
        return ""
    check = "the order of the labels (--label-order, --labels, --classes), the preprocessing (the input line), the weights"
    found = f"top-1 {right / images:.2%} of {images} images is no better than chance, {1 / classes:.2%}"
    few = "cannot tell whether the network knows these classes, of which there are too few images: "
    return f"{few if images < 10 else 'WARNING: '}{found}; check {check}"
