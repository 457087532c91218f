"""Generated scenes with known truth: ten kinds of things, drawn on varied ground, with exact masks.

A scene is a pure function of `(seed, split, index)`: the same bytes on every machine, in any order and from any worker.
Random numbers are raw PCG64 words keyed by SHA-256; pixels come only from operations that IEEE 754 rounds exactly
(+ - * / sqrt floor and comparisons), and sines of scalars are rounded to 1/4096 before use. The classes differ in shape and
texture as well as in colour, so that a network can solve them in greyscale.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SIZE = 128  # pixels per side
MAX_INSTANCES = 4
MIN_VISIBLE = 0.6  # of every instance; a foreground that hides more is left out
_SAMPLES = 3  # supersampling per side
_RADII = {1: (14.0, 42.0), 2: (14.0, 33.0), 3: (14.0, 28.0), 4: (14.0, 25.0)}  # pixels, by instances
_PAIR_RADII = (20.0, 33.0)

Floats = NDArray[np.floating[Any]]  # float32 throughout
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]
_T = TypeVar("_T")

CLEAR, INK, MAIN, SECOND, PALE, ACCENT = range(6)  # rows of a palette; a drawing is a map of these


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and its truth.

    Attributes:
        pixels: RGB, (SIZE, SIZE, 3) uint8.
        labels: the classes in the picture, as indices of `CLASSES`: one, or two in a pair scene.
        masks: the visible pixels of every instance, (n, SIZE, SIZE); disjoint, occluded pixels excluded.
        instance_labels: the class of every instance, (n,) int64.
    """

    pixels: Bytes
    labels: tuple[int, ...]
    masks: Bools
    instance_labels: NDArray[np.int64]

    @property
    def label(self) -> int:
        """The class of a single-class scene, and the first class of a pair."""
        return self.labels[0]


class _Draw:
    """Random numbers from the raw words of PCG64, whose stream NumPy keeps for ever."""

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "big"))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        return int(self.between(0, n))

    def pick(self, options: Sequence[_T]) -> _T:
        return options[self.below(len(options))]

    def field(self, rows: int, cols: int) -> Floats:
        """Uniform numbers in [0, 1), (rows, cols)."""
        words = np.asarray(self._bits.random_raw(rows * cols)) >> np.uint64(40)
        return (words.astype(np.float32) * np.float32(2.0**-24)).reshape(rows, cols)


# --- fields: functions of coordinates; a shape is where its field is negative ---------------------------------------------


def _turn(turns: float) -> tuple[float, float]:
    """Cosine and sine of an angle in turns, rounded so that the last bit of libm does not matter."""
    angle = 2 * math.pi * turns
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


def _disc(u: Floats, v: Floats, x: float, y: float, rx: float, ry: float | None = None) -> Floats:
    ry = rx if ry is None else ry
    p, q = (u - x) / rx, (v - y) / ry
    field: Floats = (np.sqrt(p * p + q * q) - 1) * min(rx, ry)
    return field


def _box(u: Floats, v: Floats, x: float, y: float, rx: float, ry: float) -> Floats:
    field: Floats = np.maximum(np.abs(u - x) - rx, np.abs(v - y) - ry)
    return field


def _line(u: Floats, v: Floats, start: tuple[float, float], end: tuple[float, float], width: float) -> Floats:
    """A segment with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((u - start[0]) * dx + (v - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    p, q = u - start[0] - t * dx, v - start[1] - t * dy
    return np.sqrt(p * p + q * q) - width


def _odd(t: Floats) -> Bools:
    """Whether the integer part is odd: stripes of unit width."""
    half = np.floor(t) * 0.5
    odd: Bools = half != np.floor(half)
    return odd


def _fraction(t: Floats) -> Floats:
    return t - np.floor(t)


def _wave(t: Floats) -> Floats:
    """Triangle wave of period 1 in [0, 1]."""
    return np.abs(2 * _fraction(t) - 1)


def _smooth(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _put(paint: Bytes, field: Floats, colour: int, edge: float = 0.07) -> Bools:
    """Paints a shape with an ink outline into `paint`, and returns its inside."""
    inside = field < -edge
    paint[field < 0] = INK
    paint[inside] = colour
    return inside


def _blank(u: Floats) -> Bytes:
    return np.zeros(u.shape, np.uint8)


# --- the ten classes: (u, v) in the unit disc, v down; a and b in [0, 1) vary proportions and texture ---------------------


def _fish(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Striped, a lens with a forked tail, head to the right."""
    paint, rise = _blank(u), 0.3 + 0.3 * a
    radius = math.sqrt(rise * rise + 0.64)
    body = np.maximum(_disc(u, v, 0.18, rise, radius), _disc(u, v, 0.18, -rise, radius))
    tail = np.maximum(np.abs(v) + 0.85 * u + 0.26, np.maximum(u + 0.4, -0.76 - u - 0.3 * np.abs(v)))
    _put(paint, tail, ACCENT)
    _put(paint, _disc(u, np.abs(v), 0.08, radius - rise, 0.3, 0.2), ACCENT)
    inside = _put(paint, body, MAIN)
    paint[inside & _odd((u + 0.5 * v * v) * (4 + 1.5 * b) + 0.5) & (u < 0.5)] = SECOND
    paint[_disc(u, v, 0.62, -0.08, 0.13) < 0] = PALE
    paint[_disc(u, v, 0.64, -0.08, 0.07) < 0] = INK
    return paint


def _ladybird(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Seen from above, head to the right, spots mirrored in the seam between the wings."""
    paint, side = _blank(u), np.abs(v)
    for x in (-0.42, -0.05, 0.32):
        paint[_line(u, side, (x, 0.4), (x + 0.4 * (x + 0.1), 0.82), 0.05) < 0] = INK
    paint[_line(u, side, (0.7, 0.1), (0.97, 0.24), 0.04) < 0] = INK
    paint[_disc(u, v, 0.6, 0, 0.3, 0.36) < 0] = INK
    paint[_disc(u, side, 0.72, 0.2, 0.1) < 0] = PALE
    inside = _put(paint, _disc(u, v, -0.1, 0, 0.74, 0.7), MAIN)
    inside &= u < 0.42 - 0.2 * side
    size = 0.13 + 0.05 * b
    spots = [(-0.45, 0.26), (0.2, 0.32), (-0.12, 0.46), (-0.1, 0.16)][: 3 if a < 0.5 else 4]
    for x, y in spots:
        paint[inside & (_disc(u, side, x, y, size) < 0)] = SECOND
    paint[(inside & (side < 0.035)) | ((paint == MAIN) & ~inside)] = INK
    return paint


def _star(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Five or six points, divided into rays from the centre: inside all lines of the star but one."""
    points = 5 if a < 0.6 else 6
    far, second, rays = np.full_like(u, -9), np.full_like(u, -9), np.zeros(u.shape, np.bool_)
    reach = _turn(1 / points)[0]
    for k in range(points):
        c, s = _turn(k / points)
        distance = c * u + s * v - reach
        second = np.maximum(second, np.minimum(far, distance))
        far = np.maximum(far, distance)
        c, s = _turn(k / points) if points == 5 else _turn((k + 0.5) / (2 * points))
        rays ^= (s * u - c * v if points == 5 else c * u + s * v) > 0
    paint = _blank(u)
    inside = _put(paint, second, MAIN, 0.05)
    paint[inside & rays] = SECOND
    if b < 0.5:
        _put(paint, _disc(u, v, 0, 0, 0.2), PALE, 0.06)
    return paint


def _kite(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Checkered, with a tail of bows."""
    paint, width = _blank(u), 0.55 + 0.15 * a
    for y, x in ((0.72, 0.1), (0.92, -0.06)):
        paint[np.maximum(np.abs(u - x) - 0.2, np.abs(v - y) - 0.5 * np.abs(u - x) - 0.03) < 0] = ACCENT
    paint[_line(u, v, (0, 0.5), (0.1, 0.72), 0.035) < 0] = INK
    paint[_line(u, v, (0.1, 0.72), (-0.08, 0.98), 0.035) < 0] = INK
    height = np.where(v < -0.35, (-0.35 - v) / 0.63, (v + 0.35) / 0.95)
    inside = _put(paint, (np.abs(u) / width + height - 1) * 0.5, MAIN, 0.055)
    scale = 3.2 + 1.2 * b
    paint[inside & (_odd(u * scale + 8) ^ _odd((v + 0.35) * scale + 8))] = SECOND
    return paint


def _snail(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A shell wound from half circles, on a foot with two stalks."""
    paint, radius, pitch = _blank(u), 0.56 + 0.08 * a, 0.15 + 0.04 * b
    paint[_line(u, v, (0.66, 0.3), (0.58, -0.22), 0.055) < 0] = INK
    paint[_line(u, v, (0.74, 0.3), (0.88, -0.18), 0.055) < 0] = INK
    paint[np.minimum(_disc(u, v, 0.58, -0.24, 0.1), _disc(u, v, 0.88, -0.2, 0.1)) < 0] = INK
    foot = np.minimum(_line(u, v, (-0.68, 0.57), (0.54, 0.53), 0.17), _line(u, v, (0.48, 0.5), (0.7, 0.24), 0.19))
    _put(paint, foot, ACCENT)
    x, y = u + 0.16, v + 0.06
    inside = _put(paint, _disc(x, y, 0, 0, radius), MAIN)
    winding = np.where(y < 0, _disc(x, y, 0, 0, 1) + 1, _disc(x, y, pitch, 0, 1) + 1 - pitch)
    paint[inside & _odd(winding / pitch + 2)] = SECOND
    return paint


def _house(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Brick walls, a tiled gable roof, a chimney, a door and a window."""
    paint, eaves, rows = _blank(u), -0.12 + 0.16 * a, 6 + 1.5 * b
    _put(paint, _box(u, v, 0.4, -0.5, 0.12, 0.32), MAIN, 0.05)
    wall = _put(paint, _box(u, v, 0, (eaves + 0.8) / 2, 0.6, (0.8 - eaves) / 2), MAIN, 0.05)
    course = (v - eaves) * rows
    joint = _fraction(u * rows * 0.45 + 0.5 * _odd(course) + 9) < 0.14
    paint[wall & (joint | (_fraction(course) < 0.24))] = SECOND
    roof = np.maximum(v - eaves, (np.abs(u) / 0.82 + (eaves - v) / (eaves + 0.9) - 1) * 0.55)
    tiles = _put(paint, roof, ACCENT, 0.055)
    paint[tiles & _odd((v + 2) * 9)] = INK
    _put(paint, _box(u, v, -0.26, 0.55, 0.16, 0.3), ACCENT, 0.05)
    _put(paint, _box(u, v, 0.26, 0.4, 0.18, 0.17), PALE, 0.05)
    paint[(np.abs(u - 0.26) < 0.025) & (np.abs(v - 0.4) < 0.15)] = INK
    return paint


def _leaf(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A pointed leaf with a rib, side veins and a stalk to the left."""
    paint, rise = _blank(u), 0.18 + 0.35 * a
    radius, side = math.sqrt(rise * rise + 0.72), np.abs(v)
    paint[_line(u, v, (-0.98, 0.1), (-0.6, 0), 0.05) < 0] = INK
    teeth = 0.05 * _fraction(u * 6)
    blade = np.maximum(_disc(u, v, 0.14, rise, radius), _disc(u, v, 0.14, -rise, radius)) + teeth
    inside = _put(paint, blade, MAIN, 0.06)
    veins = _fraction((u - 0.75 * side) * (3.2 + b) + 9) < 0.3
    paint[inside & (veins | (side < 0.045))] = SECOND
    return paint


def _butterfly(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Four wings with dark borders and eye spots, mirrored in a thin body."""
    paint, side, low = _blank(u), np.abs(u), 0.5 + 0.06 * a
    p, q = 0.8 * side - 0.6 * v, 0.6 * side + 0.8 * v  # along the upper and the lower wing
    lower = _disc(q, p, low, 0, 0.42, 0.27)
    upper = _disc(p, q, 0.52, -0.02, 0.48, 0.33)
    for wing, eye_x, eye_y, size in ((lower, 0.34, 0.44, 0.12), (upper, 0.52, -0.36, 0.15)):
        _put(paint, wing, SECOND, 0.04)
        paint[wing < -0.1] = MAIN
        paint[_disc(side, v, eye_x, eye_y, size + 0.03 * b) < 0] = PALE
        paint[_disc(side, v, eye_x, eye_y, 0.5 * size) < 0] = INK
    paint[_line(side, v, (0.02, -0.5), (0.2, -0.9), 0.035) < 0] = INK
    paint[_disc(u, v, 0, 0.02, 0.09, 0.58) < 0] = INK
    return paint


def _mushroom(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A dome with pale warts over gills and a thick stalk."""
    paint, wide, tall = _blank(u), 0.76 + 0.16 * a, 0.78 + 0.12 * b
    stalk = np.maximum(np.abs(u) - 0.2 - 0.1 * v * v, np.maximum(v - 0.9, -v))
    _put(paint, stalk, PALE)
    gills = _put(paint, np.maximum(_disc(u, v, 0, 0.02, wide - 0.06, 0.26), -v), PALE, 0.05)
    paint[gills & _odd(u * 8 + 8.5)] = ACCENT
    cap = _put(paint, np.maximum(_disc(u, v, 0, 0.02, wide, tall + 0.02), v - 0.06), MAIN)
    for x, y, size in ((0.0, -0.5, 0.17), (-0.42, -0.22, 0.14), (0.4, -0.28, 0.15), (0.02, -0.12, 0.1)):
        paint[cap & (_disc(u, v, x * wide, y * tall, size, 0.85 * size) < 0)] = SECOND
    return paint


def _planet(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A banded globe inside a flat ring; the near half of the ring passes in front."""
    paint, flat = _blank(u), 0.3 + 0.12 * a
    ring = np.maximum(_disc(u, v, 0, 0, 1, flat), -_disc(u, v, 0, 0, 0.72, 0.6 * flat))
    _put(paint, ring, PALE, 0.03)
    globe = _put(paint, _disc(u, v, 0, 0, 0.6), MAIN)
    paint[globe & _odd((v + 0.25 * u * u) * (4.2 + b) + 8)] = SECOND
    _put(paint, np.where(v > 0, ring, 1), PALE, 0.03)
    return paint


_SHAPES: dict[str, tuple[Callable[[Floats, Floats, float, float], Bytes], float]] = {
    "fish": (_fish, 0.11),  # drawing, and the largest rotation in turns
    "ladybird": (_ladybird, 0.5),
    "star": (_star, 0.5),
    "kite": (_kite, 0.15),
    "snail": (_snail, 0.06),
    "house": (_house, 0.04),
    "leaf": (_leaf, 0.5),
    "butterfly": (_butterfly, 0.5),
    "mushroom": (_mushroom, 0.08),
    "planet": (_planet, 0.5),
}
CLASSES: tuple[str, ...] = tuple(_SHAPES)
_HUES: dict[str, tuple[float, float]] = {  # of the main colour; the others take any
    "ladybird": (-0.06, 0.14),
    "house": (-0.03, 0.12),
    "leaf": (-0.02, 0.42),
    "mushroom": (-0.08, 0.12),
    "snail": (-0.02, 0.16),
}


# --- colours --------------------------------------------------------------------------------------------------------------


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    """Red, green and blue in [0, 1]; the hue in turns."""
    waves = (abs((hue + shift) % 1.0 * 6 - 3) - 1 for shift in (0.0, 2 / 3, 1 / 3))
    r, g, b = (value * (1 - saturation * (1 - min(max(wave, 0.0), 1.0))) for wave in waves)
    return r, g, b


def _grey(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _palette(draw: _Draw, name: str) -> Floats:
    """Premultiplied red, green, blue and coverage of the six paints, (6, 4); main and second differ in grey, too."""
    low, high = _HUES.get(name, (0.0, 1.0))
    main = _hsv(draw.between(low, high), draw.between(0.55, 0.95), draw.between(0.7, 0.98))
    dark = _hsv(draw.between(0, 1), 0.5, draw.between(0.06, 0.18))
    pale = _hsv(draw.between(0.05, 0.2), draw.between(0.05, 0.3), draw.between(0.88, 1))
    second = dark if _grey(main) > draw.between(0.4, 0.7) else pale
    if name in ("ladybird", "mushroom"):
        second = dark if name == "ladybird" else pale
    ink = _hsv(draw.between(0, 1), 0.45, 0.14)
    accent = _hsv(draw.between(0, 1), draw.between(0.3, 0.85), draw.between(0.5, 0.9))
    rows = [(0.0, 0.0, 0.0, 0.0)] + [(*c, 1.0) for c in (ink, main, second, pale, accent)]
    return np.array(rows, np.float32)


def _mix(first: Colour, second: Colour, t: Floats) -> Floats:
    """From the first colour where t is 0 to the second where t is 1, (..., 3)."""
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    return a + (b - a) * t[..., None]


# --- grounds: colours (SIZE, SIZE, 3) -------------------------------------------------------------------------------------

_X: Floats = np.arange(SIZE, dtype=np.float32)[None, :] / SIZE  # (1, SIZE), columns in [0, 1)
_Y: Floats = _X.T  # (SIZE, 1), rows in [0, 1)


def _noise(draw: _Draw, rows: int, cols: int) -> Floats:
    """Value noise with the given cells over the picture, (SIZE, SIZE) in [0, 1)."""

    def stretch(grid: Floats, cells: int) -> Floats:  # (cells + 1, n) -> (SIZE, n)
        t = np.arange(SIZE, dtype=np.float32) * (cells / SIZE)
        k = np.floor(t)
        i, w = k.astype(np.int64), _smooth(t - k)[:, None]
        stretched: Floats = grid[i] * (1 - w) + grid[i + 1] * w
        return stretched

    return stretch(stretch(draw.field(rows + 1, cols + 1), rows).T, cols).T


def _meadow(draw: _Draw) -> Floats:
    t = 0.3 * _noise(draw, 5, 5) + 0.4 * _noise(draw, 16, 50) + 0.3 * _noise(draw, 32, 100)
    hue = draw.between(0.2, 0.36)
    return _mix(_hsv(hue + 0.03, 0.75, 0.22), _hsv(hue - 0.03, 0.55, 0.85), t)


def _sand(draw: _Draw) -> Floats:
    dunes = _wave(draw.between(3, 7) * _Y + draw.between(-2, 2) * _X + 1.2 * _noise(draw, 4, 4))
    t = 0.55 * dunes + 0.25 * draw.field(SIZE, SIZE) + 0.2 * _noise(draw, 3, 3)
    hue = draw.between(0.06, 0.13)
    return _mix(_hsv(hue, 0.5, 0.58), _hsv(hue + 0.02, 0.3, 0.95), t)


def _sky(draw: _Draw) -> Floats:
    hue = draw.pick((0.55, 0.58, 0.62, 0.72, 0.95))
    base = _mix(_hsv(hue, 0.7, 0.75), _hsv(hue + 0.06, 0.25, 0.97), _Y + 0 * _X)
    cloud = 0.5 * _noise(draw, 5, 3) + 0.3 * _noise(draw, 12, 8) + 0.2 * _noise(draw, 30, 20)
    t = _smooth((cloud - draw.between(0.45, 0.6)) * 5)[..., None]
    return base + (np.float32(0.97) - base) * (0.85 * t)


def _water(draw: _Draw) -> Floats:
    swell = _wave(draw.between(9, 14) * _Y + 2.6 * _noise(draw, 8, 4)) * _noise(draw, 14, 7)
    hue = draw.between(0.46, 0.62)
    t = _smooth(1.3 * swell) * 0.75 + 0.25 * _noise(draw, 40, 12)
    return _mix(_hsv(hue, 0.8, 0.38), _hsv(hue - 0.03, 0.3, 0.95), t)


def _wood(draw: _Draw) -> Floats:
    planks = draw.between(3, 5)
    board = np.floor(_Y * planks)
    shade = _fraction(board * 0.618 + draw.between(0, 1))
    grain = _wave(6 * _Y * planks / 4 + 2.2 * _noise(draw, 12, 3) + 3.7 * board)
    t = 0.45 * grain + 0.3 * shade + 0.25 * _noise(draw, 90, 6)
    seam = (_fraction(_Y * planks) < 0.05) | (np.abs(_X - _fraction(board * 0.37 + 0.2)) < 0.008)
    hue = draw.between(0.04, 0.1)
    return _mix(_hsv(hue, 0.7, 0.3), _hsv(hue + 0.02, 0.5, 0.8), np.where(seam, 0, t))


def _cobbles(draw: _Draw) -> Floats:
    cells, near = 5, np.full((SIZE, SIZE), 9, np.float32)
    second, tone = near, np.zeros_like(near)
    jitter, shades = draw.field(2, cells * cells), draw.field(1, cells * cells)[0]
    for k in range(cells * cells):
        row, col = divmod(k, cells)
        dy = _Y * cells - (row + 0.15 + 0.7 * float(jitter[0, k]))
        dx = _X * cells - (col + 0.15 + 0.7 * float(jitter[1, k]))
        distance = dy * dy + dx * dx
        second = np.maximum(near, np.minimum(second, distance))
        closer = distance < near
        tone, near = np.where(closer, shades[k], tone), np.where(closer, distance, near)
    stone = _smooth((np.sqrt(second) - np.sqrt(near)) * 3)
    t = stone * (0.45 + 0.35 * tone + 0.2 * _noise(draw, 50, 50))
    return _mix(_hsv(draw.between(0, 1), 0.2, 0.2), _hsv(draw.between(0, 1), 0.16, 0.85), t)


def _bokeh(draw: _Draw) -> Floats:
    """Lights out of focus at dusk."""
    hue = draw.between(0, 1)
    out = _mix(_hsv(hue, 0.7, 0.16), _hsv(hue + 0.15, 0.55, 0.5), 0.7 * _Y + 0.3 * _noise(draw, 3, 3))
    for _ in range(14):
        radius, centre = draw.between(0.04, 0.13), (draw.between(0, 1), draw.between(0, 1))
        glow = draw.between(0.15, 0.5) * _smooth(-_disc(_X, _Y, *centre, radius) * 60)
        light = np.array(_hsv(hue + draw.between(-0.2, 0.4), 0.5, 1), np.float32)
        out = out + (light - out) * glow[..., None]
    return out


Ground = Callable[[_Draw], Floats]
_GROUNDS: tuple[Ground, ...] = (_meadow, _sand, _sky, _water, _wood, _cobbles, _bokeh)


def _ground(draw: _Draw) -> Floats:
    """A ground with clutter: plain pebbles and tiles that belong to no class, (SIZE, SIZE, 3)."""
    out = draw.pick(_GROUNDS)(draw)
    for _ in range(draw.below(9)):
        cx, cy, angle = draw.between(0, 1), draw.between(0, 1), _turn(draw.between(0, 1))
        p, q = (_X - cx) * angle[0] + (_Y - cy) * angle[1], (_Y - cy) * angle[0] - (_X - cx) * angle[1]
        shape, long = draw.pick((_disc, _box)), draw.between(0.015, 0.06)
        field = shape(p, q, 0, 0, long, long * draw.between(0.3, 1))
        colour = np.array(_hsv(draw.between(0, 1), draw.between(0, 0.7), draw.between(0.2, 0.95)), np.float32)
        out = out + (colour - out) * np.clip(0.5 - field * SIZE, 0, 1)[..., None]
    return out


# --- foregrounds: alpha (SIZE, SIZE) and colours (SIZE, SIZE, 3) ----------------------------------------------------------


def _bars(draw: _Draw) -> Floats:
    """Distance to slanted bars, in pictures."""
    gap, lean = draw.between(0.2, 0.34), draw.between(-0.3, 0.3)
    along, across = (_X, _Y) if draw.below(2) else (_Y, _X)
    return (_wave((across + lean * along + 2) / gap + draw.between(0, 1)) - draw.between(0.16, 0.24)) * (gap / 2)


def _blades(draw: _Draw) -> Floats:
    """Distance to blades of grass that rise from the lower edge."""
    out = np.full((SIZE, SIZE), 9, np.float32)
    for _ in range(6 + draw.below(8)):
        foot, bend, height = draw.between(-0.05, 1.05), draw.between(-0.5, 0.5), draw.between(0.25, 0.85)
        rise = (1 - _Y) / height
        blade = np.abs(_X - foot - bend * rise * rise * height) - draw.between(0.012, 0.03) * (1 - rise)
        out = np.minimum(out, blade)
    return out


def _foliage(draw: _Draw) -> Floats:
    """Distance to plain oval leaves that hang in from the edges."""
    out = np.full((SIZE, SIZE), 9, np.float32)
    for _ in range(5 + draw.below(8)):
        along, inward = draw.between(0, 1), draw.between(-0.02, 0.14)
        cx, cy = draw.pick(((along, inward), (along, 1 - inward), (inward, along), (1 - inward, along)))
        c, s = _turn(draw.between(0, 1))
        p, q = (_X - cx) * c + (_Y - cy) * s, (_Y - cy) * c - (_X - cx) * s
        out = np.minimum(out, _disc(p, q, 0, 0, draw.between(0.08, 0.15), draw.between(0.025, 0.05)))
    return out


def _foreground(draw: _Draw) -> tuple[Floats, Floats]:
    """What stands in front, in two scenes of five: alpha (SIZE, SIZE) and its colour (3,)."""
    if draw.between(0, 1) > 0.4:
        return np.zeros((SIZE, SIZE), np.float32), np.zeros(3, np.float32)
    kind = draw.pick((_bars, _blades, _foliage))
    alpha = np.clip(0.5 - kind(draw) * SIZE, 0, 1)
    hue = draw.between(0, 1) if kind is _bars else draw.between(0.2, 0.45)
    return alpha, np.array(_hsv(hue, draw.between(0.2, 0.7), draw.between(0.2, 0.7)), np.float32)


# --- objects and light ----------------------------------------------------------------------------------------------------


def _layout(draw: _Draw, n: int, radii: tuple[float, float]) -> list[tuple[float, float, float]]:
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


def _object(draw: _Draw, label: int, x: float, y: float, r: float) -> tuple[tuple[slice, slice], Floats, Floats]:
    """Draws one instance: its window in the picture, and there colour times coverage (h, w, 3) and coverage (h, w)."""
    name = CLASSES[label]
    shape, swing = _SHAPES[name]
    c, s = _turn(draw.between(-swing, swing))
    flip, a, b = draw.pick((-1.0, 1.0)), draw.between(0, 1), draw.between(0, 1)
    palette = _palette(draw, name)
    rows = slice(max(0, math.floor(y - r)), min(SIZE, math.ceil(y + r)))
    cols = slice(max(0, math.floor(x - r)), min(SIZE, math.ceil(x + r)))

    def axis(part: slice, centre: float) -> Floats:  # sample points in units of the radius
        points = np.arange(part.start * _SAMPLES, part.stop * _SAMPLES, dtype=np.float32)
        return ((points + 0.5) / _SAMPLES - centre) / r

    dy, dx = axis(rows, y)[:, None], axis(cols, x)[None, :]
    colours = palette[shape((c * dx + s * dy) * flip, c * dy - s * dx, a, b)]
    samples = [colours[i::_SAMPLES, j::_SAMPLES] for i in range(_SAMPLES) for j in range(_SAMPLES)]
    mean = sum(samples[1:], samples[0]) / _SAMPLES**2  # (h, w, 4)
    my, mx = dy[1::_SAMPLES], dx[:, 1::_SAMPLES]
    dome = 1.12 - 0.3 * (mx * mx + my * my) - 0.16 * (mx + my)
    return (rows, cols), mean[..., :3] * dome[..., None], mean[..., 3]


def _light(draw: _Draw) -> Floats:
    """Brightness times a directional gradient times a vignette, (SIZE, SIZE)."""
    x = (np.arange(SIZE, dtype=np.float32)[None, :] + 0.5) / SIZE - 0.5
    c, s = _turn(draw.between(0, 1))
    slope, dark = draw.between(0, 0.5), draw.between(0, 0.7)
    return draw.between(0.75, 1.15) * (1 + slope * (c * x + s * x.T)) * (1 - dark * (x * x + x.T * x.T))


def _compose(key: tuple[str | int, ...], labels: tuple[int, ...], kinds: Sequence[int], radii: tuple[float, float]) -> Scene:
    """Ground, shadows, objects, foreground, light and grain, in this order."""
    canvas = _ground(_Draw(*key, "ground"))
    owner = np.full((SIZE, SIZE), -1, np.int8)
    draw = _Draw(*key, "objects")
    for i, (label, place) in enumerate(zip(kinds, _layout(draw, len(kinds), radii), strict=True)):
        window, colour, cover = _object(draw, label, *place)
        rows, cols = window
        drop = max(1, round(0.09 * place[2]))
        shade = canvas[rows.start + drop : rows.stop + drop, cols.start + drop : cols.stop + drop]
        shade *= 1 - 0.38 * cover[: shade.shape[0], : shade.shape[1], None]
        canvas[window] = canvas[window] * (1 - cover[..., None]) + colour
        owner[window][cover > 0.5] = i
    alpha, tint = _foreground(_Draw(*key, "foreground"))
    seen = np.where(alpha > 0.5, -1, owner)
    if all((seen == i).sum() >= MIN_VISIBLE * (owner == i).sum() for i in range(len(kinds))):
        canvas, owner = canvas + (tint - canvas) * alpha[..., None], seen
    draw = _Draw(*key, "light")
    grain = (draw.field(SIZE, SIZE) - 0.5) * draw.between(0, 0.08)
    canvas = (canvas * _light(draw)[..., None] + grain[..., None]) * 255 + 0.5
    return Scene(
        pixels=np.clip(canvas, 0, 255).astype(np.uint8),
        labels=labels,
        masks=owner == np.arange(len(kinds), dtype=np.int8)[:, None, None],
        instance_labels=np.array(kinds, np.int64),
    )


def _schedule(seed: int, split: str, index: int) -> tuple[int, int]:
    """Label and number of instances of a scene: every block of 40 indices holds every combination once."""
    cycle = len(CLASSES) * MAX_INSTANCES
    block, k = divmod(index, cycle)
    order = np.argsort(_Draw("schedule", seed, split, block).field(1, cycle)[0], kind="stable")
    return int(order[k]) % len(CLASSES), int(order[k]) // len(CLASSES) + 1


def label(seed: int, split: str, index: int) -> int:
    """The class that `scene` draws for these arguments, without drawing it."""
    return _schedule(seed, split, index)[0]


def _check_label(label: int) -> int:
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"expected a label from 0 to {len(CLASSES) - 1}, got {label}")
    return label


def scene(seed: int, split: str, index: int, *, label: int | None = None, instances: int | None = None) -> Scene:
    """One to four instances of one class.

    Args:
        seed: of the whole collection.
        split: a name such as "train" or "test"; splits share no scene.
        index: number of the scene in its split, from 0. Every 40 consecutive ones, counted from 0, hold each class with
            each number of instances once.
        label: a class instead of the scheduled one.
        instances: 0 to 4 instead of the scheduled number; 0 gives the same ground without any object.

    Returns:
        The scene; the same bytes for the same arguments, everywhere.

    Raises:
        ValueError: if an argument is out of range.
    """
    if index < 0:
        raise ValueError(f"expected an index of at least 0, got {index}")
    drawn, number = _schedule(seed, split, index)
    label = drawn if label is None else _check_label(label)
    number = number if instances is None else instances
    if not 0 <= number <= MAX_INSTANCES:
        raise ValueError(f"expected 0 to {MAX_INSTANCES} instances, got {number}")
    return _compose(("scene", seed, split, index), (label,), [label] * number, _RADII[max(1, number)])


def pair(seed: int, split: str, index: int, *, labels: tuple[int, int] | None = None) -> Scene:
    """One instance each of two different classes, the paper's dog and cat.

    Args:
        seed, split, index: as in `scene`; pairs share no picture with the single-class scenes.
        labels: the two classes instead of drawn ones.

    Returns:
        The scene; instance i is of class labels[i].

    Raises:
        ValueError: if the classes are equal or out of range, or the index is negative.
    """
    if index < 0:
        raise ValueError(f"expected an index of at least 0, got {index}")
    if labels is None:
        draw = _Draw("pair labels", seed, split, index)
        first, step = draw.below(len(CLASSES)), 1 + draw.below(len(CLASSES) - 1)
        labels = first, (first + step) % len(CLASSES)
    if _check_label(labels[0]) == _check_label(labels[1]):
        raise ValueError(f"expected two different classes, got {labels[0]} twice")
    return _compose(("pair", seed, split, index), labels, labels, _PAIR_RADII)
