"""Data of the explorer page: what networks do with a few generated scenes and photographs, for a browser to compute with.

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
from gradcampp.evaluation import gallery
from gradcampp.files import atomic_write
from gradcampp.networks import lite0
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


@dataclass(frozen=True)
class Shot:
    """Photographs of the explorer, in one picture.

    Attributes:
        name: of its files and in the page's address.
        title: what a reader chooses.
        picture: its name in the gallery, as `gallery.read` takes it.
        labels: the classes that it is explained for, by name; the two likeliest.
    """

    name: str
    title: str
    picture: str
    labels: tuple[str, str]


SHOTS: tuple[Shot, ...] = (
    Shot("cat", "Photograph: a cat", "chelsea", ("tiger cat", "Egyptian cat")),
    Shot("coffee", "Photograph: coffee", "coffee", ("espresso", "cup")),
    Shot("cat-coffee", "Photographs: cat, coffee", "chelsea|coffee", ("Egyptian cat", "espresso")),
    Shot("rocket", "Photograph: a rocket", "rocket", ("missile", "projectile")),
)
LAYERS = {  # names of layers in the network, and what a reader chooses
    "head": (lite0.LAYER, "the last ones"),
    "inner": (lite0.INNER_LAYER, "behind the depthwise convolution"),
}


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
    """What the page knows of a scene explained by the embedded network, as `picture_data` gives it."""
    scene = draw(exhibit)
    scores = probabilities(network.logits(_pixels(scene.pixels)))[0]
    said = {
        "name": exhibit.name,
        "title": exhibit.title,
        "description": description(scene),
        "network": "Drawn by this book, and explained by its embedded network, which knows ten classes.",
        "credits": [],
    }
    return said | picture_data(scene.pixels, network, {label: label in scene.labels for label in classes(scene, scores)})


def shot_data(shot: Shot, layer: str, network: Network) -> dict[str, Any]:
    """What the page knows of photographs explained by EfficientNet-Lite0 at one of `LAYERS`, as `picture_data` gives it."""
    pixels = gallery.read(shot.picture, network.preprocessing).reshape(3, *network.preprocessing.size).permute(1, 2, 0)
    photographs = [gallery.PHOTOGRAPHS[name] for name in gallery.parts([shot.picture])]
    credits = [
        {
            "title": one.title,
            "author": one.author,
            "licence": one.licence,
            "address": gallery.LICENCES.get(one.licence, ""),
            "source": one.source,
            "distribution": gallery.DISTRIBUTIONS[one.package],
        }
        for one in photographs
    ]
    said = {
        "name": f"{shot.name}-{layer}",
        "title": shot.title,
        "description": ", ".join(one.title for one in photographs),
        "network": "Explained by EfficientNet-Lite0, which knows the thousand classes of ImageNet.",
        "credits": credits,
    }
    names: list[str] = list(network.classes.names)
    return said | picture_data(pixels.numpy(), network, {names.index(name): None for name in shot.labels})


def picture_data(pixels: NDArray[np.uint8], network: Network, labels: dict[int, bool | None]) -> dict[str, Any]:
    """What a network computes for a picture, ready for JSON.

    Arrays are ``{"mask": ..., "values": ..., "each": ...}``, the first two in base64: one bit a value, first value in the
    highest bit, 1 where it is other than zero; those values, float32, little-endian; and for how many units each stands.
    Units count by channel, row, column.

    Args:
        pixels: the picture as the network sees it, (size, size, 3).
        network: on the CPU.
        labels: the classes to explain, each with whether it is in the picture; None where nobody says so.

    Returns:
        ``picture`` (PNG, base64), its ``size``, ``shape`` (K, H, W), ``activations`` (an array), and ``classes``: for each
        its ``name``, ``probability``, whether it is ``present``, and its ``gradients`` (arrays by kind of score).
    """
    batch = _pixels(pixels)
    scores = probabilities(network.logits(batch))[0]
    captured = network.capture(batch.expand(len(labels), -1, -1, -1), torch.tensor([*labels]))
    return {
        "picture": _png(Image.fromarray(pixels)),
        "size": pixels.shape[0],
        "shape": list(captured.activations.shape[1:]),
        "activations": encoded(captured.activations[0]),
        "classes": [
            {
                "name": network.classes.names[label],
                "probability": round(float(scores[label]), 6),
                "present": present,
                "gradients": {kind: encoded(captured.gradients[kind][row]) for kind in SCORES},
            }
            for row, (label, present) in enumerate(labels.items())
        ],
    }


def _pixels(picture: NDArray[np.uint8]) -> Tensor:
    """A picture as a batch in [0, 1], (1, 3, h, w)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


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
    """Write the data of all pictures, and the list that the page begins with; the same bytes every time.

    Args:
        folder: of ``explorer.js``; made where it does not exist.

    Returns:
        The files: ``scenes.js``, one a scene, then one for each layer and photograph.

    Raises:
        InputError: if a package with photographs or with EfficientNet-Lite0 is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embedded = load("mini")
    pictures = [scene_data(exhibit, embedded) for exhibit in EXHIBITS]
    listing = [{"name": one["name"], "title": one["title"], "thumbnail": _thumbnail(one["picture"])} for one in pictures]
    networks = {layer: load(lite0.NAME, name) for layer, (name, _) in LAYERS.items()}
    layers = {layer: words for layer, (_, words) in LAYERS.items()}
    for shot in SHOTS:
        seen = [shot_data(shot, layer, network) for layer, network in networks.items()]
        small = _thumbnail(seen[0]["picture"])
        listing.append({"name": shot.name, "title": shot.title, "thumbnail": small, "layers": layers})
        pictures += seen
    paths = [folder / "scenes.js", *(folder / f"{one['name']}.js" for one in pictures)]
    _write_call(paths[0], "listScenes", listing)
    for path, one in zip(paths[1:], pictures, strict=True):
        _write_call(path, "addScene", one)
    return paths


def _thumbnail(png: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return _png(picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS))


def _write_call(path: Path, function: str, argument: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(f"gradcamppExplorer.{function}({json.dumps(argument, separators=(',', ':'))});\n", "utf-8")


def encoded(values: Tensor) -> dict[str, Any]:
    """An array without its zeros, as `picture_data` describes it; float32, (K, H, W).

    Where every map is constant, as gradients in front of a pooling are, it has one value a map.
    """
    constant = bool((values == values[:, :1, :1]).all())
    kept = values[:, 0, 0] if constant else values
    flat: NDArray[np.float32] = kept.contiguous().numpy().astype("<f4").ravel()
    present = flat != 0
    each = values.shape[1] * values.shape[2] if constant else 1
    return {"mask": _base64(np.packbits(present).tobytes()), "values": _base64(flat[present].tobytes()), "each": each}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
