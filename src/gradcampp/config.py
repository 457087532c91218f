"""The words of the project: methods, scores, what an experiment is, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["gradcam", "gradcam+", "gradcam++"]
Scores = Literal["pre", "post"]
METHODS: tuple[Method, ...] = get_args(Method)
SCORES: tuple[Scores, ...] = get_args(Scores)
Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_METHOD_COLUMNS: dict[Method, str] = {
    "gradcam": "gradcam",
    "gradcam+": "gradcam_plus",
    "gradcam++": "gradcam_plusplus",
}
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the input of a network.

    Attributes:
        resize: length of the shorter side after the resizing, in pixels.
        crop: side of the central square that the network sees, in pixels.
        mean, std: of the three channels on the scale [0, 1]; subtracted and divided by.
        interpolation: of the resizing, ``bilinear`` or ``bicubic``.
    """

    resize: int = 256
    crop: int = 224
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; two runs with one folder must agree in all of it.

    Attributes:
        model: a torchvision name, or ``module:factory``.
        weights: SHA-256 of the weights, or how they came about.
        layer: name of the module whose output is explained.
        classes: SHA-256 of the class names, one a line; they decide the labels of named folders.
        preprocessing: how a photograph becomes an input.
        threshold: explanation maps are scored where the label's score exceeds it, in [0, 1).
        limit: number of images, or None for all.
        seed: with a limit, the seed of the random sample; None takes the first images.
        precision: of the network's own arithmetic; everything that follows from it is float32 or better.
    """

    model: str
    weights: str
    layer: str
    classes: str
    preprocessing: Preprocessing
    threshold: float = 0.5
    limit: int | None = None
    seed: int | None = None
    precision: Precision = "float32"


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; none of it changes a result beyond rounding.

    Attributes:
        batch_size: images that pass through the network together.
        workers: processes that decode photographs; 0 decodes between the batches.
        device: ``cpu`` or ``cuda``.
        skip_bad_images: leave out unreadable photographs instead of stopping at the first.
        checkpoint_seconds: shortest time between two checkpoints; long runs space them at 1 % of their age.
    """

    batch_size: int
    workers: int
    device: str
    skip_bad_images: bool = False
    checkpoint_seconds: float = 4.0


def column(scores: Scores, method: Method) -> str:
    """The name of a map in records and tables: ``pre_gradcam_plusplus``."""
    return f"{scores}_{_METHOD_COLUMNS[method]}"


MAPS: tuple[tuple[Scores, Method], ...] = tuple((scores, method) for scores in SCORES for method in METHODS)
COLUMNS: tuple[str, ...] = tuple(column(scores, method) for scores, method in MAPS)
