"""The numbers that the paper prints (Lerma & Lucas 2022, Tables 1 and 2), and where each of its equations is computed."""

from __future__ import annotations

from dataclasses import dataclass

from gradcampp.cam import Method, Scores

Pair = tuple[Method, Method]
PAIRS: tuple[Pair, ...] = (("gradcam++", "gradcam"), ("gradcam+", "gradcam"), ("gradcam++", "gradcam+"))
NAMES: dict[Method, str] = {"gradcam": "Grad-CAM", "gradcam+": "Grad-CAM+", "gradcam++": "Grad-CAM++"}
COMMAND = "gradcampp reproduce --profile paper-keras"  # the paper's own experiment
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


WHERE: dict[int, str] = {  # equation -> module and function
    1: "cam.weights",
    2: "cam.heatmap",
    3: "cam.weights",
    4: "cam.weights",
    5: "algebra.derivation.equation_5",
    6: "algebra.derivation.equation_6",
    7: "algebra.derivation.equation_7",
    8: "algebra.derivation.equation_8",
    9: "cam.alphas_unreduced",
    10: "algebra.derivation.equation_10",
    11: "algebra.derivation.equation_11",
    12: "cam.alphas",
    13: "cam.alphas",
    14: "shrinkage.shrinkage",
    15: "cam.explanation_map",
    16: "performance.relative_performance",
    17: "performance.log_relative_performance",
    18: "algebra.derivation.equation_18",
    19: "algebra.derivation.equation_19",
}
