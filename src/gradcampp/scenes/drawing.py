"""Random numbers and the pens that scenes are drawn with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SIZE = 128  # pixels per side
CLEAR, INK, MAIN, SECOND, PALE, ACCENT = range(6)  # rows of a palette; a drawing is a map of these

Floats = NDArray[np.floating[Any]]  # float32 throughout
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]
_T = TypeVar("_T")


class Draw:
    """Random numbers from the raw words of PCG64, whose stream NumPy keeps for ever."""

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "big"))

    def between(self, low: float, high: float) -> float:
        """A uniform number in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self.between(0, n))

    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[self.below(len(options))]

    def field(self, rows: int, cols: int) -> Floats:
        """Uniform numbers in [0, 1), (rows, cols)."""
        words = np.asarray(self._bits.random_raw(rows * cols)) >> np.uint64(40)
        return (words.astype(np.float32) * np.float32(2.0**-24)).reshape(rows, cols)


# --- fields: functions of coordinates; a shape is where its field is negative ---------------------------------------------


def turn(turns: float) -> tuple[float, float]:
    """Cosine and sine of an angle in turns, rounded so that the last bit of libm does not matter."""
    angle = 2 * math.pi * turns
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


def disc(u: Floats, v: Floats, x: float, y: float, rx: float, ry: float | None = None) -> Floats:
    """An ellipse with its centre at (x, y)."""
    ry = rx if ry is None else ry
    p, q = (u - x) / rx, (v - y) / ry
    field: Floats = (np.sqrt(p * p + q * q) - 1) * min(rx, ry)
    return field


def box(u: Floats, v: Floats, x: float, y: float, rx: float, ry: float) -> Floats:
    """A rectangle with its centre at (x, y), and half its width and height."""
    field: Floats = np.maximum(np.abs(u - x) - rx, np.abs(v - y) - ry)
    return field


def line(u: Floats, v: Floats, start: tuple[float, float], end: tuple[float, float], width: float) -> Floats:
    """A segment with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((u - start[0]) * dx + (v - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    p, q = u - start[0] - t * dx, v - start[1] - t * dy
    return np.sqrt(p * p + q * q) - width


def odd(t: Floats) -> Bools:
    """Stripes of unit width: true where the integer part is odd."""
    half = np.floor(t) * 0.5
    odd: Bools = half != np.floor(half)
    return odd


def fraction(t: Floats) -> Floats:
    """The part after the point, in [0, 1)."""
    return t - np.floor(t)


def wave(t: Floats) -> Floats:
    """Triangle wave of period 1 in [0, 1]."""
    return np.abs(2 * fraction(t) - 1)


def smooth(t: Floats) -> Floats:
    """From 0 to 1 without a corner as t goes from 0 to 1, and constant outside."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def put(paint: Bytes, field: Floats, colour: int, edge: float = 0.07) -> Bools:
    """Paints a shape with an ink outline into `paint`, and returns its inside."""
    inside = field < -edge
    paint[field < 0] = INK
    paint[inside] = colour
    return inside


def blank(u: Floats) -> Bytes:
    """A drawing with nothing on it yet."""
    return np.zeros(u.shape, np.uint8)


# --- colours --------------------------------------------------------------------------------------------------------------


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Red, green and blue in [0, 1]; the hue in turns."""
    waves = (abs((hue + shift) % 1.0 * 6 - 3) - 1 for shift in (0.0, 2 / 3, 1 / 3))
    r, g, b = (value * (1 - saturation * (1 - min(max(wave, 0.0), 1.0))) for wave in waves)
    return r, g, b


def grey(colour: Colour) -> float:
    """Brightness in [0, 1], as greyscale pictures have it."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, t: Floats) -> Floats:
    """From the first colour where t is 0 to the second where t is 1, (..., 3)."""
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    return a + (b - a) * t[..., None]
