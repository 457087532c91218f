"""The ten kinds of things that scenes hold, and their colours."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gradcampp.scenes.drawing import (
    ACCENT,
    INK,
    MAIN,
    PALE,
    SECOND,
    Bytes,
    Draw,
    Floats,
    blank,
    box,
    disc,
    fraction,
    grey,
    hsv,
    line,
    odd,
    put,
    turn,
)

# --- the ten classes: (u, v) in the unit disc, v down; a and b in [0, 1) vary proportions and texture ---------------------


def _fish(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Striped, a lens with a forked tail, head to the right."""
    paint, rise = blank(u), 0.3 + 0.3 * a
    radius = math.sqrt(rise * rise + 0.64)
    body = np.maximum(disc(u, v, 0.18, rise, radius), disc(u, v, 0.18, -rise, radius))
    tail = np.maximum(np.abs(v) + 0.85 * u + 0.26, np.maximum(u + 0.4, -0.76 - u - 0.3 * np.abs(v)))
    put(paint, tail, ACCENT)
    put(paint, disc(u, np.abs(v), 0.08, radius - rise, 0.3, 0.2), ACCENT)
    inside = put(paint, body, MAIN)
    paint[inside & odd((u + 0.5 * v * v) * (4 + 1.5 * b) + 0.5) & (u < 0.5)] = SECOND
    paint[disc(u, v, 0.62, -0.08, 0.13) < 0] = PALE
    paint[disc(u, v, 0.64, -0.08, 0.07) < 0] = INK
    return paint


def _ladybird(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Seen from above, head to the right, spots mirrored in the seam between the wings."""
    paint, side = blank(u), np.abs(v)
    for x in (-0.42, -0.05, 0.32):
        paint[line(u, side, (x, 0.4), (x + 0.4 * (x + 0.1), 0.82), 0.05) < 0] = INK
    paint[line(u, side, (0.7, 0.1), (0.97, 0.24), 0.04) < 0] = INK
    paint[disc(u, v, 0.6, 0, 0.3, 0.36) < 0] = INK
    paint[disc(u, side, 0.72, 0.2, 0.1) < 0] = PALE
    inside = put(paint, disc(u, v, -0.1, 0, 0.74, 0.7), MAIN)
    inside &= u < 0.42 - 0.2 * side
    size = 0.13 + 0.05 * b
    spots = [(-0.45, 0.26), (0.2, 0.32), (-0.12, 0.46), (-0.1, 0.16)][: 3 if a < 0.5 else 4]
    for x, y in spots:
        paint[inside & (disc(u, side, x, y, size) < 0)] = SECOND
    paint[(inside & (side < 0.035)) | ((paint == MAIN) & ~inside)] = INK
    return paint


def _star(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Five or six points, divided into rays from the centre: inside all lines of the star but one."""
    points = 5 if a < 0.6 else 6
    far, second, rays = np.full_like(u, -9), np.full_like(u, -9), np.zeros(u.shape, np.bool_)
    reach = turn(1 / points)[0]
    for k in range(points):
        c, s = turn(k / points)
        distance = c * u + s * v - reach
        second = np.maximum(second, np.minimum(far, distance))
        far = np.maximum(far, distance)
        c, s = turn(k / points) if points == 5 else turn((k + 0.5) / (2 * points))
        rays ^= (s * u - c * v if points == 5 else c * u + s * v) > 0
    paint = blank(u)
    inside = put(paint, second, MAIN, 0.05)
    paint[inside & rays] = SECOND
    if b < 0.5:
        put(paint, disc(u, v, 0, 0, 0.2), PALE, 0.06)
    return paint


def _kite(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Checkered, with a tail of bows."""
    paint, width = blank(u), 0.55 + 0.15 * a
    for y, x in ((0.72, 0.1), (0.92, -0.06)):
        paint[np.maximum(np.abs(u - x) - 0.2, np.abs(v - y) - 0.5 * np.abs(u - x) - 0.03) < 0] = ACCENT
    paint[line(u, v, (0, 0.5), (0.1, 0.72), 0.035) < 0] = INK
    paint[line(u, v, (0.1, 0.72), (-0.08, 0.98), 0.035) < 0] = INK
    height = np.where(v < -0.35, (-0.35 - v) / 0.63, (v + 0.35) / 0.95)
    inside = put(paint, (np.abs(u) / width + height - 1) * 0.5, MAIN, 0.055)
    scale = 3.2 + 1.2 * b
    paint[inside & (odd(u * scale + 8) ^ odd((v + 0.35) * scale + 8))] = SECOND
    return paint


def _snail(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A shell wound from half circles, on a foot with two stalks."""
    paint, radius, pitch = blank(u), 0.56 + 0.08 * a, 0.15 + 0.04 * b
    paint[line(u, v, (0.66, 0.3), (0.58, -0.22), 0.055) < 0] = INK
    paint[line(u, v, (0.74, 0.3), (0.88, -0.18), 0.055) < 0] = INK
    paint[np.minimum(disc(u, v, 0.58, -0.24, 0.1), disc(u, v, 0.88, -0.2, 0.1)) < 0] = INK
    foot = np.minimum(line(u, v, (-0.68, 0.57), (0.54, 0.53), 0.17), line(u, v, (0.48, 0.5), (0.7, 0.24), 0.19))
    put(paint, foot, ACCENT)
    x, y = u + 0.16, v + 0.06
    inside = put(paint, disc(x, y, 0, 0, radius), MAIN)
    winding = np.where(y < 0, disc(x, y, 0, 0, 1) + 1, disc(x, y, pitch, 0, 1) + 1 - pitch)
    paint[inside & odd(winding / pitch + 2)] = SECOND
    return paint


def _house(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Brick walls, a tiled gable roof, a chimney, a door and a window."""
    paint, eaves, rows = blank(u), -0.12 + 0.16 * a, 6 + 1.5 * b
    put(paint, box(u, v, 0.4, -0.5, 0.12, 0.32), MAIN, 0.05)
    wall = put(paint, box(u, v, 0, (eaves + 0.8) / 2, 0.6, (0.8 - eaves) / 2), MAIN, 0.05)
    course = (v - eaves) * rows
    joint = fraction(u * rows * 0.45 + 0.5 * odd(course) + 9) < 0.14
    paint[wall & (joint | (fraction(course) < 0.24))] = SECOND
    roof = np.maximum(v - eaves, (np.abs(u) / 0.82 + (eaves - v) / (eaves + 0.9) - 1) * 0.55)
    tiles = put(paint, roof, ACCENT, 0.055)
    paint[tiles & odd((v + 2) * 9)] = INK
    put(paint, box(u, v, -0.26, 0.55, 0.16, 0.3), ACCENT, 0.05)
    put(paint, box(u, v, 0.26, 0.4, 0.18, 0.17), PALE, 0.05)
    paint[(np.abs(u - 0.26) < 0.025) & (np.abs(v - 0.4) < 0.15)] = INK
    return paint


def _leaf(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A pointed leaf with a rib, side veins and a stalk to the left."""
    paint, rise = blank(u), 0.18 + 0.35 * a
    radius, side = math.sqrt(rise * rise + 0.72), np.abs(v)
    paint[line(u, v, (-0.98, 0.1), (-0.6, 0), 0.05) < 0] = INK
    teeth = 0.05 * fraction(u * 6)
    blade = np.maximum(disc(u, v, 0.14, rise, radius), disc(u, v, 0.14, -rise, radius)) + teeth
    inside = put(paint, blade, MAIN, 0.06)
    veins = fraction((u - 0.75 * side) * (3.2 + b) + 9) < 0.3
    paint[inside & (veins | (side < 0.045))] = SECOND
    return paint


def _butterfly(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """Four wings with dark borders and eye spots, mirrored in a thin body."""
    paint, side, low = blank(u), np.abs(u), 0.5 + 0.06 * a
    p, q = 0.8 * side - 0.6 * v, 0.6 * side + 0.8 * v  # along the upper and the lower wing
    lower = disc(q, p, low, 0, 0.42, 0.27)
    upper = disc(p, q, 0.52, -0.02, 0.48, 0.33)
    for wing, eye_x, eye_y, size in ((lower, 0.34, 0.44, 0.12), (upper, 0.52, -0.36, 0.15)):
        put(paint, wing, SECOND, 0.04)
        paint[wing < -0.1] = MAIN
        paint[disc(side, v, eye_x, eye_y, size + 0.03 * b) < 0] = PALE
        paint[disc(side, v, eye_x, eye_y, 0.5 * size) < 0] = INK
    paint[line(side, v, (0.02, -0.5), (0.2, -0.9), 0.035) < 0] = INK
    paint[disc(u, v, 0, 0.02, 0.09, 0.58) < 0] = INK
    return paint


def _mushroom(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A dome with pale warts over gills and a thick stalk."""
    paint, wide, tall = blank(u), 0.76 + 0.16 * a, 0.78 + 0.12 * b
    stalk = np.maximum(np.abs(u) - 0.2 - 0.1 * v * v, np.maximum(v - 0.9, -v))
    put(paint, stalk, PALE)
    gills = put(paint, np.maximum(disc(u, v, 0, 0.02, wide - 0.06, 0.26), -v), PALE, 0.05)
    paint[gills & odd(u * 8 + 8.5)] = ACCENT
    cap = put(paint, np.maximum(disc(u, v, 0, 0.02, wide, tall + 0.02), v - 0.06), MAIN)
    for x, y, size in ((0.0, -0.5, 0.17), (-0.42, -0.22, 0.14), (0.4, -0.28, 0.15), (0.02, -0.12, 0.1)):
        paint[cap & (disc(u, v, x * wide, y * tall, size, 0.85 * size) < 0)] = SECOND
    return paint


def _planet(u: Floats, v: Floats, a: float, b: float) -> Bytes:
    """A banded globe inside a flat ring; the near half of the ring passes in front."""
    paint, flat = blank(u), 0.3 + 0.12 * a
    ring = np.maximum(disc(u, v, 0, 0, 1, flat), -disc(u, v, 0, 0, 0.72, 0.6 * flat))
    put(paint, ring, PALE, 0.03)
    globe = put(paint, disc(u, v, 0, 0, 0.6), MAIN)
    paint[globe & odd((v + 0.25 * u * u) * (4.2 + b) + 8)] = SECOND
    put(paint, np.where(v > 0, ring, 1), PALE, 0.03)
    return paint


SHAPES: dict[str, tuple[Callable[[Floats, Floats, float, float], Bytes], float]] = {
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


CLASSES: tuple[str, ...] = tuple(SHAPES)
_HUES: dict[str, tuple[float, float]] = {  # of the main colour; the others take any
    "ladybird": (-0.06, 0.14),
    "house": (-0.03, 0.12),
    "leaf": (-0.02, 0.42),
    "mushroom": (-0.08, 0.12),
    "snail": (-0.02, 0.16),
}


def palette(draw: Draw, name: str) -> Floats:
    """Premultiplied red, green, blue and coverage of the six paints, (6, 4); main and second differ in grey, too."""
    low, high = _HUES.get(name, (0.0, 1.0))
    main = hsv(draw.between(low, high), draw.between(0.55, 0.95), draw.between(0.7, 0.98))
    dark = hsv(draw.between(0, 1), 0.5, draw.between(0.06, 0.18))
    pale = hsv(draw.between(0.05, 0.2), draw.between(0.05, 0.3), draw.between(0.88, 1))
    second = dark if grey(main) > draw.between(0.4, 0.7) else pale
    if name in ("ladybird", "mushroom"):
        second = dark if name == "ladybird" else pale
    ink = hsv(draw.between(0, 1), 0.45, 0.14)
    accent = hsv(draw.between(0, 1), draw.between(0.3, 0.85), draw.between(0.5, 0.9))
    rows = [(0.0, 0.0, 0.0, 0.0)] + [(*c, 1.0) for c in (ink, main, second, pale, accent)]
    return np.array(rows, np.float32)
