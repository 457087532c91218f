"""The look of all figures, and their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike
from torch import Tensor

from gradcampp.cam import Scores
from gradcampp.files import atomic_write
from gradcampp.networks.scores import Score

PALETTE = sns.color_palette("colorblind")
COLOURS: dict[Scores, tuple[float, float, float]] = {"pre": PALETTE[0], "post": PALETTE[1]}
LONG: dict[Scores, str] = {"pre": "pre-softmax", "post": "post-softmax"}
BY_NAME = {LONG[scores]: colour for scores, colour in COLOURS.items()}
STYLE: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
REFERENCE: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": "--", "zorder": 0}  # a line to compare with


@contextlib.contextmanager
def canvas(width: float, height: float, parse_math: bool = True) -> Iterator[Figure]:
    """An empty figure of a size in inches, and the style while it is drawn; without mathematics, $ is a letter."""
    with mpl.rc_context({**STYLE, "text.parse_math": parse_math}):
        yield Figure(figsize=(width, height), layout="constrained")


def long(scores: Scores, score: Score) -> str:
    """The name of what is explained: ``pre-softmax``, ``post-sigmoid``; a quantity that nothing follows is the output itself."""
    return "output" if score == "logit" else f"{scores}-{score}"


def show(axis: Axes, picture: ArrayLike, **options: Any) -> None:
    """A picture (h, w), (h, w, 3) or, in grey, (h, w, 1) without ticks and frame."""
    if np.ndim(picture) == 3 and np.shape(picture)[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    axis.imshow(picture, **options)
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def ratio_ticks(axis: Axes) -> None:
    """Marks of a logarithmic vertical axis as ratios are read: 0.5, 1 and 2, not powers of ten."""
    low, high = axis.get_ylim()
    far = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
    marks = MaxNLocator(8, steps=[1, 2, 5, 10]) if high < 10 * low else far
    axis.set_yticks([tick for tick in marks.tick_values(low, high) if low <= tick <= high])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """The files of a figure, its path and each format such as ``png``; the same figure has the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the constrained layout would move a little on every drawing
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    for path, ending in zip(paths, formats, strict=True):
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
        with mpl.rc_context({"svg.hashsalt": "gradcampp"}), atomic_write(path) as temporary:
            figure.savefig(temporary, format=ending, dpi=200, metadata=undated)
    return paths


def compact(value: Tensor | float) -> str:
    """A number in four digits: ``12.35``, ``1.235e+07``."""
    return f"{float(value):,.4g}"


def wrapped(name: str) -> str:
    """A long class name on two lines."""
    spaces = [place for place, letter in enumerate(name) if letter == " "]
    if len(name) <= 16 or not spaces:
        return name
    middle = min(spaces, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"
