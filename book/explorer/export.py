"""Data of the explorer page: what the embedded network does with a few generated scenes, for a browser to compute with.

Each file is JavaScript that hands one object to ``gradcamppExplorer``, so that a page opened from disk finds its data as well
as one that is served. Activations and gradients are float32 as the network computed them, without their zeros: the browser
computes in float64 what the library computes in float64.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gradcampp import scenes
from gradcampp.cam import SCORES
from gradcampp.files import atomic_write
from gradcampp.networks.capture import Network
from gradcampp.networks.load import load
from gradcampp.networks.scores import probabilities
from gradcampp.scenes import CLASSES, SIZE, Scene

SPLIT = "test"  # of the generated scenes: the embedded network has not been trained on these
SEED = 0
_THUMBNAIL = 56  # pixels per side


@dataclass(frozen=True)
class Exhibit:
    """A scene of the explorer.

    Attributes:
        name: of its file and in the page's address.
        title: what a reader chooses.
        pair: True for one of ``scenes.pair`` else of ``scenes.draw``.
        index: its number there.
    """

    name: str
    title: str
    pair: bool
    index: int


EXHIBITS: tuple[Exhibit, ...] = (
    Exhibit("butterflies", "Three butterflies", False, 12),
    Exhibit("planets", "Four planets", False, 16),
    Exhibit("mushroom", "One mushroom", False, 8),
    Exhibit("snail-leaf", "Snail and leaf", True, 19),
    Exhibit("kite-planet", "Kite and planet", True, 10),
)


def draw(exhibit: Exhibit) -> Scene:
    """The scene of an exhibit."""
    return scenes.pair(SEED, SPLIT, exhibit.index) if exhibit.pair else scenes.draw(SEED, SPLIT, exhibit.index, clear=True)


def classes(scene: Scene, scores: Tensor) -> list[int]:
    """The classes that a scene is explained for: those in it, then the likeliest that is not in it.

    Args:
        scene: the scene.
        scores: softmax scores of all classes, (C,).
    """
    others = [label for label in scores.argsort(descending=True).tolist() if label not in scene.labels]
    return [*scene.labels, others[0]]


def scene_data(exhibit: Exhibit, network: Network) -> dict[str, Any]:
    """All that the page knows of a scene, ready for JSON.

    Arrays are ``{"mask": ..., "values": ...}`` in base64: one bit a unit, first unit in the highest bit, 1 where the value
    is other than zero; and those values, float32, little-endian. Units count by channel, row, column.

    Args:
        exhibit: which scene.
        network: the embedded network on the CPU.

    Returns:
        ``name``, ``title``, ``description`` (what is where), ``picture`` (PNG, base64), ``size`` of the picture, ``shape``
        (K, H, W), ``activations`` (an array), and ``classes``: for each its ``name``, ``probability``, whether it is
        ``present`` in the picture, and its ``gradients`` (arrays by kind of score).
    """
    scene = draw(exhibit)
    pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].float() / 255
    scores = probabilities(network.logits(pixels))[0]
    labels = classes(scene, scores)
    captured = network.capture(pixels.expand(len(labels), -1, -1, -1), torch.tensor(labels))
    return {
        "name": exhibit.name,
        "title": exhibit.title,
        "description": description(scene),
        "picture": _png(Image.fromarray(scene.pixels)),
        "size": SIZE,
        "shape": list(captured.activations.shape[1:]),
        "activations": encoded(captured.activations[0]),
        "classes": [
            {
                "name": CLASSES[label],
                "probability": round(float(scores[label]), 6),
                "present": label in scene.labels,
                "gradients": {kind: encoded(captured.gradients[kind][row]) for kind in SCORES},
            }
            for row, label in enumerate(labels)
        ],
    }


def description(scene: Scene) -> str:
    """A scene in words, each thing with its place: ``snail at the lower right; leaf at the top``."""
    places = [
        f"{CLASSES[label]} {_place(*np.argwhere(mask).mean(0) / SIZE)}"
        for label, mask in zip(scene.instance_labels.tolist(), scene.masks, strict=True)
    ]
    return "; ".join(places)


def _place(down: float, right: float) -> str:
    """A point, in fractions of the height and the width, as one of nine places."""
    row, column = ("upper", "", "lower")[int(down * 3)], ("left", "", "right")[int(right * 3)]
    if row and column:
        return f"at the {row} {column}"
    return {"upper": "at the top", "lower": "at the bottom"}.get(row) or (f"at the {column}" if column else "in the middle")


def write(folder: Path) -> list[Path]:
    """Write the data of all scenes, and the list that the page begins with; the same bytes every time.

    Args:
        folder: of ``explorer.js``; made where it does not exist.

    Returns:
        The files: ``scenes.js``, then one a scene.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = load("mini")
    listing = []
    paths = [folder / "scenes.js"]
    for exhibit in EXHIBITS:
        scene = Image.fromarray(draw(exhibit).pixels)
        thumbnail = scene.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        listing.append({"name": exhibit.name, "title": exhibit.title, "thumbnail": _png(thumbnail)})
        paths.append(folder / f"{exhibit.name}.js")
        _write_call(paths[-1], "addScene", scene_data(exhibit, network))
    _write_call(paths[0], "listScenes", listing)
    return paths


def _write_call(path: Path, function: str, argument: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(f"gradcamppExplorer.{function}({json.dumps(argument, separators=(',', ':'))});\n", "utf-8")


def encoded(values: Tensor) -> dict[str, str]:
    """An array without its zeros, as `scene_data` describes it; float32 of any shape."""
    flat: NDArray[np.float32] = values.contiguous().numpy().astype("<f4").ravel()
    present = flat != 0
    return {"mask": _base64(np.packbits(present).tobytes()), "values": _base64(flat[present].tobytes())}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
