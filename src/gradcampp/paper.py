"""The numbers that the paper prints (Lerma & Lucas 2022, Tables 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass

from gradcampp.cam import Method, Scores

Pair = tuple[Method, Method]


PAIRS: tuple[Pair, ...] = (("gradcam++", "gradcam"), ("gradcam+", "gradcam"), ("gradcam++", "gradcam+"))


NAMES: dict[Method, str] = {"gradcam": "Grad-CAM", "gradcam+": "Grad-CAM+", "gradcam++": "Grad-CAM++"}


IMAGES = 4219  # of 10,000 in ImageNetV2 MatchedFrequency, score over 0.5


EXTREMES = {-1398101.4: (-3, -22), 559240.56: (15, -23)}  # alphas printed in section 3.4: 1 / (n * 2**e) in float32


@dataclass(frozen=True)
class Cell:
    """A row of Tables 1 and 2 for one kind of score, with the two decimals that the paper gives."""

    relative_performance: float
    mean: float
    std: float


CELLS: dict[tuple[Scores, Pair], Cell] = {
    ("pre", ("gradcam++", "gradcam")): Cell(1.24, 0.21, 0.64),
    ("pre", ("gradcam+", "gradcam")): Cell(1.16, 0.15, 0.66),
    ("pre", ("gradcam++", "gradcam+")): Cell(1.06, 0.06, 0.41),
    ("post", ("gradcam++", "gradcam")): Cell(1.27, 0.24, 0.68),
    ("post", ("gradcam+", "gradcam")): Cell(1.25, 0.22, 0.68),
    ("post", ("gradcam++", "gradcam+")): Cell(1.01, 0.01, 0.11),
}


def pair_name(pair: Pair) -> str:
    """A row's title as in the paper: ``Grad-CAM++ vs Grad-CAM``."""
    return f"{NAMES[pair[0]]} vs {NAMES[pair[1]]}"
