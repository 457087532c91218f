"""The look of all figures, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from gradcampp.cam import Scores
from gradcampp.files import atomic_write

PALETTE = sns.color_palette("colorblind")
COLOURS: dict[Scores, tuple[float, float, float]] = {"pre": PALETTE[0], "post": PALETTE[1]}
LONG: dict[Scores, str] = {"pre": "pre-softmax", "post": "post-softmax"}
STYLE: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure in some formats, byte for byte the same for the same figure.

    Args:
        figure: what to write.
        stem: the path without its ending.
        formats: endings such as ``png`` and ``svg``.

    Returns:
        The paths, in the order of the formats.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the constrained layout would move a little on every drawing
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    for path, ending in zip(paths, formats, strict=True):
        undated = {"Date": None} if ending == "svg" else {"CreationDate": None} if ending == "pdf" else None
        with mpl.rc_context({"svg.hashsalt": "gradcampp"}), atomic_write(path) as temporary:
            figure.savefig(temporary, format=ending, dpi=200, metadata=undated)
    return paths


def compact(value: Tensor | float) -> str:
    """A number in four digits: ``12.35``, ``1.235e+07``."""
    return f"{float(value):,.4g}"


def wrapped(name: str) -> str:
    """A long class name on two lines."""
    if len(name) <= 16 or " " not in name:
        return name
    spaces = [place for place, letter in enumerate(name) if letter == " "]
    middle = min(spaces, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"
