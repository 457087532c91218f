"""A scene: its layout, its objects and its light.

Random numbers are raw PCG64 words keyed by SHA-256; pixels come only from operations that IEEE 754 rounds exactly
(+ - * / sqrt floor and comparisons), and sines of scalars are rounded to 1/4096 before use. The classes differ in shape and
texture as well as in colour, so that a network can solve them in greyscale.

Scenes are hard unless `clear` is asked for: among the objects of the scene's class lie some of other classes, smaller in sum,
every object is more or less in mist, and the light may be dim. The embedded network was trained on clear scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradcampp.scenes.drawing import SIZE, Bools, Bytes, Draw, Floats, turn
from gradcampp.scenes.grounds import foreground, ground
from gradcampp.scenes.shapes import CLASSES, SHAPES, palette

MAX_INSTANCES = 4
MIN_VISIBLE = 0.6  # of every instance; a foreground that hides more is left out
_SAMPLES = 3  # supersampling per side
_RADII = {1: (14.0, 42.0), 2: (14.0, 33.0), 3: (14.0, 28.0), 4: (14.0, 25.0)}  # pixels, by instances
_PAIR_RADII = (20.0, 33.0)
_MIST = 0.5  # least opacity of an object that is not clear
MAX_DISTRACTORS = 4
DISTRACTOR_SHARE = 0.5  # all distractors cover at most so much of what the own objects cover


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and its truth.

    Attributes:
        pixels: RGB, (SIZE, SIZE, 3) uint8.
        labels: the classes in the picture, as indices of `CLASSES`: one, or two in a pair scene.
        masks: the visible pixels of every instance, (n, SIZE, SIZE); disjoint, occluded pixels excluded.
        instance_labels: the class of every instance, (n,) int64.
        distractors: the visible pixels of every object of another class, (m, SIZE, SIZE); disjoint from
            each other and from the masks; one may be all hidden. In a pair scene there is none.
    """

    pixels: Bytes
    labels: tuple[int, ...]
    masks: Bools
    instance_labels: NDArray[np.int64]
    distractors: Bools

    @property
    def label(self) -> int:
        """The class of a single-class scene, and the first class of a pair."""
        return self.labels[0]


# --- objects and light ----------------------------------------------------------------------------------------------------


class _Thing(NamedTuple):
    """An object before it is painted: its window, there colour times coverage (h, w, 3) and coverage (h, w), and its shadow."""

    window: tuple[slice, slice]
    colour: Floats
    cover: Floats
    drop: int  # pixels that the shadow falls to the lower right

    @property
    def inside(self) -> Bools:
        """The pixels that belong to the object, (h, w)."""
        return self.cover > 0.5


def _layout(draw: Draw, n: int, radii: tuple[float, float]) -> list[tuple[float, float, float]]:
    """Centres and radii of n discs that hardly overlap, (x, y, radius) in pixels, the largest first."""
    sizes = sorted((radii[0] + (radii[1] - radii[0]) * draw.between(0, 1) for _ in range(n)), reverse=True)
    while True:
        placed: list[tuple[float, float, float]] = []
        for _ in range(60 * n + 1):
            if len(placed) == n:
                return placed
            r = sizes[len(placed)]
            x, y = draw.between(0.85 * r, SIZE - 0.85 * r), draw.between(0.85 * r, SIZE - 0.85 * r)
            if all((x - p) ** 2 + (y - q) ** 2 >= (0.92 * (r + s)) ** 2 for p, q, s in placed):
                placed.append((x, y, r))
        sizes = [max(radii[0], 0.92 * size) for size in sizes]


def _object(draw: Draw, label: int, x: float, y: float, r: float) -> _Thing:
    """One object of a class, with its centre and radius in pixels."""
    shape = SHAPES[CLASSES[label]]
    c, s = turn(draw.between(-shape.swing, shape.swing))
    flip, a, b = draw.pick((-1.0, 1.0)), draw.between(0, 1), draw.between(0, 1)
    paints = palette(draw, CLASSES[label])
    rows = slice(max(0, math.floor(y - r)), min(SIZE, math.ceil(y + r)))
    cols = slice(max(0, math.floor(x - r)), min(SIZE, math.ceil(x + r)))

    def axis(part: slice, centre: float) -> Floats:  # sample points in units of the radius
        points = np.arange(part.start * _SAMPLES, part.stop * _SAMPLES, dtype=np.float32)
        return ((points + 0.5) / _SAMPLES - centre) / r

    dy, dx = axis(rows, y)[:, None], axis(cols, x)[None, :]
    colours = paints[shape.draw((c * dx + s * dy) * flip, c * dy - s * dx, a, b)]
    samples = [colours[i::_SAMPLES, j::_SAMPLES] for i in range(_SAMPLES) for j in range(_SAMPLES)]
    mean = sum(samples[1:], samples[0]) / _SAMPLES**2  # (h, w, 4)
    my, mx = dy[1::_SAMPLES], dx[:, 1::_SAMPLES]
    dome = 1.12 - 0.3 * (mx * mx + my * my) - 0.16 * (mx + my)
    return _Thing((rows, cols), mean[..., :3] * dome[..., None], mean[..., 3], max(1, round(0.09 * r)))


def _distractors(draw: Draw, label: int, room: float) -> list[_Thing]:
    """A few small objects of other classes, anywhere; what does not fit into so many pixels is left out."""
    things = []
    for _ in range(draw.below(MAX_DISTRACTORS + 1)):
        other = (label + 1 + draw.below(len(CLASSES) - 1)) % len(CLASSES)
        thing = _object(draw, other, draw.between(0, SIZE), draw.between(0, SIZE), draw.between(9, 24))
        if thing.inside.sum() <= room:
            things.append(thing)
            room -= thing.inside.sum()
    return things


def _light(draw: Draw, clear: bool) -> Floats:
    """Brightness times a directional gradient times a vignette, (SIZE, SIZE)."""
    x = (np.arange(SIZE, dtype=np.float32)[None, :] + 0.5) / SIZE - 0.5
    c, s = turn(draw.between(0, 1))
    slope, dark = draw.between(0, 0.5), draw.between(0, 0.7 if clear else 1.3)
    return draw.between(0.75 if clear else 0.45, 1.15) * (1 + slope * (c * x + s * x.T)) * (1 - dark * (x * x + x.T * x.T))


def _compose(
    key: tuple[str | int, ...], labels: tuple[int, ...], kinds: Sequence[int], radii: tuple[float, float], clear: bool
) -> Scene:
    """Ground, shadows, objects, foreground, light and grain, in this order; refuses labels and an index out of range."""
    for label in labels:
        if not 0 <= label < len(CLASSES):
            raise ValueError(f"expected a label from 0 to {len(CLASSES) - 1}, got {label}")
    if int(key[-1]) < 0:
        raise ValueError(f"expected an index of at least 0, got {key[-1]}")
    canvas = ground(Draw(*key, "ground"))
    draw, nobody = Draw(*key, "objects"), len(kinds)
    own = [_object(draw, kind, *place) for kind, place in zip(kinds, _layout(draw, len(kinds), radii), strict=True)]
    draw = Draw(*key, "distractors")
    others = [] if clear else _distractors(draw, labels[0], DISTRACTOR_SHARE * sum(int(thing.inside.sum()) for thing in own))
    owner = np.full((SIZE, SIZE), nobody, np.int8)
    for i, thing in enumerate(others + own, -len(others)):  # the own objects stand in front
        (rows, cols), drop = thing.window, thing.drop
        opacity = 1.0 if clear else draw.between(_MIST, 1)
        cover = opacity * thing.cover[..., None]
        shade = canvas[rows.start + drop : rows.stop + drop, cols.start + drop : cols.stop + drop]
        shade *= 1 - 0.38 * cover[: shade.shape[0], : shade.shape[1]]
        canvas[thing.window] = canvas[thing.window] * (1 - cover) + opacity * thing.colour
        owner[thing.window][thing.inside] = i
    alpha, tint = foreground(Draw(*key, "foreground"))
    seen = np.where(alpha > 0.5, nobody, owner)
    if all((seen == i).sum() >= MIN_VISIBLE * (owner == i).sum() for i in range(len(kinds))):
        canvas, owner = canvas + (tint - canvas) * alpha[..., None], seen
    draw = Draw(*key, "light")
    grain = (draw.field(SIZE, SIZE) - 0.5) * draw.between(0, 0.08)
    canvas = (canvas * _light(draw, clear)[..., None] + grain[..., None]) * 255 + 0.5
    return Scene(
        pixels=np.clip(canvas, 0, 255).astype(np.uint8),
        labels=labels,
        masks=owner == np.arange(len(kinds))[:, None, None],
        instance_labels=np.array(kinds, np.int64),
        distractors=owner == np.arange(-len(others), 0)[:, None, None],
    )


def _schedule(seed: int, split: str, index: int) -> tuple[int, int]:
    """Label and number of instances of a scene: every block of 40 indices holds every combination once."""
    cycle = len(CLASSES) * MAX_INSTANCES
    block, k = divmod(index, cycle)
    order = np.argsort(Draw("schedule", seed, split, block).field(1, cycle)[0], kind="stable")
    return int(order[k]) % len(CLASSES), int(order[k]) // len(CLASSES) + 1


def label(seed: int, split: str, index: int) -> int:
    """The class that `draw` draws for these arguments, without drawing it."""
    return _schedule(seed, split, index)[0]


def draw(
    seed: int, split: str, index: int, *, label: int | None = None, instances: int | None = None, clear: bool = False
) -> Scene:
    """One to four instances of one class, among things of other classes that are smaller in sum.

    Args:
        seed: of the whole collection.
        split: a name such as "train" or "test"; splits share no scene.
        index: number of the scene in its split, from 0. Every 40 consecutive ones, counted from 0, hold each class with
            each number of instances once.
        label: a class instead of the scheduled one.
        instances: 0 to 4 instead of the scheduled number; 0 gives the same ground without any object.
        clear: the same without distractors, mist and dim light: the embedded network was trained on these.

    Returns:
        The scene; the same bytes for the same arguments, everywhere.

    Raises:
        ValueError: if an argument is out of range.
    """
    drawn, number = _schedule(seed, split, index)
    label = drawn if label is None else label
    number = number if instances is None else instances
    if not 0 <= number <= MAX_INSTANCES:
        raise ValueError(f"expected 0 to {MAX_INSTANCES} instances, got {number}")
    return _compose(("scene", seed, split, index), (label,), [label] * number, _RADII[max(1, number)], clear)


def pair(seed: int, split: str, index: int, *, labels: tuple[int, int] | None = None) -> Scene:
    """One instance each of two different classes, the paper's dog and cat, in a clear scene.

    Args:
        seed, split, index: as in `draw`; pairs share no picture with the single-class scenes.
        labels: the two classes instead of drawn ones.

    Returns:
        The scene; instance i is of class labels[i].

    Raises:
        ValueError: if the classes are equal or out of range, or the index is negative.
    """
    if labels is None:
        draw = Draw("pair labels", seed, split, index)
        first, step = draw.below(len(CLASSES)), 1 + draw.below(len(CLASSES) - 1)
        labels = first, (first + step) % len(CLASSES)
    if labels[0] == labels[1]:
        raise ValueError(f"expected two different classes, got {labels[0]} twice")
    return _compose(("pair", seed, split, index), labels, labels, _PAIR_RADII, clear=True)
