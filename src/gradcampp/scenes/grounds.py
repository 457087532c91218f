"""The ground that things stand on, and the foreground before them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradcampp.scenes.drawing import SIZE, Draw, Floats, box, disc, fraction, hsv, mix, smooth, turn, wave

# --- grounds: colours (SIZE, SIZE, 3) -------------------------------------------------------------------------------------

_X: Floats = np.arange(SIZE, dtype=np.float32)[None, :] / SIZE  # (1, SIZE), columns in [0, 1)
_Y: Floats = _X.T  # (SIZE, 1), rows in [0, 1)


def _noise(draw: Draw, rows: int, cols: int) -> Floats:
    """Value noise with the given cells over the picture, (SIZE, SIZE) in [0, 1)."""

    def stretch(grid: Floats, cells: int) -> Floats:  # (cells + 1, n) -> (SIZE, n)
        t = np.arange(SIZE, dtype=np.float32) * (cells / SIZE)
        k = np.floor(t)
        i, w = k.astype(np.int64), smooth(t - k)[:, None]
        stretched: Floats = grid[i] * (1 - w) + grid[i + 1] * w
        return stretched

    return stretch(stretch(draw.field(rows + 1, cols + 1), rows).T, cols).T


def _meadow(draw: Draw) -> Floats:
    t = 0.3 * _noise(draw, 5, 5) + 0.4 * _noise(draw, 16, 50) + 0.3 * _noise(draw, 32, 100)
    hue = draw.between(0.2, 0.36)
    return mix(hsv(hue + 0.03, 0.75, 0.22), hsv(hue - 0.03, 0.55, 0.85), t)


def _sand(draw: Draw) -> Floats:
    dunes = wave(draw.between(3, 7) * _Y + draw.between(-2, 2) * _X + 1.2 * _noise(draw, 4, 4))
    t = 0.55 * dunes + 0.25 * draw.field(SIZE, SIZE) + 0.2 * _noise(draw, 3, 3)
    hue = draw.between(0.06, 0.13)
    return mix(hsv(hue, 0.5, 0.58), hsv(hue + 0.02, 0.3, 0.95), t)


def _sky(draw: Draw) -> Floats:
    hue = draw.pick((0.55, 0.58, 0.62, 0.72, 0.95))
    base = mix(hsv(hue, 0.7, 0.75), hsv(hue + 0.06, 0.25, 0.97), _Y + 0 * _X)
    cloud = 0.5 * _noise(draw, 5, 3) + 0.3 * _noise(draw, 12, 8) + 0.2 * _noise(draw, 30, 20)
    t = smooth((cloud - draw.between(0.45, 0.6)) * 5)[..., None]
    return base + (np.float32(0.97) - base) * (0.85 * t)


def _water(draw: Draw) -> Floats:
    swell = wave(draw.between(9, 14) * _Y + 2.6 * _noise(draw, 8, 4)) * _noise(draw, 14, 7)
    hue = draw.between(0.46, 0.62)
    t = smooth(1.3 * swell) * 0.75 + 0.25 * _noise(draw, 40, 12)
    return mix(hsv(hue, 0.8, 0.38), hsv(hue - 0.03, 0.3, 0.95), t)


def _wood(draw: Draw) -> Floats:
    planks = draw.between(3, 5)
    board = np.floor(_Y * planks)
    shade = fraction(board * 0.618 + draw.between(0, 1))
    grain = wave(6 * _Y * planks / 4 + 2.2 * _noise(draw, 12, 3) + 3.7 * board)
    t = 0.45 * grain + 0.3 * shade + 0.25 * _noise(draw, 90, 6)
    seam = (fraction(_Y * planks) < 0.05) | (np.abs(_X - fraction(board * 0.37 + 0.2)) < 0.008)
    hue = draw.between(0.04, 0.1)
    return mix(hsv(hue, 0.7, 0.3), hsv(hue + 0.02, 0.5, 0.8), np.where(seam, 0, t))


def _cobbles(draw: Draw) -> Floats:
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
    stone = smooth((np.sqrt(second) - np.sqrt(near)) * 3)
    t = stone * (0.45 + 0.35 * tone + 0.2 * _noise(draw, 50, 50))
    return mix(hsv(draw.between(0, 1), 0.2, 0.2), hsv(draw.between(0, 1), 0.16, 0.85), t)


def _bokeh(draw: Draw) -> Floats:
    """Lights out of focus at dusk."""
    hue = draw.between(0, 1)
    out = mix(hsv(hue, 0.7, 0.16), hsv(hue + 0.15, 0.55, 0.5), 0.7 * _Y + 0.3 * _noise(draw, 3, 3))
    for _ in range(14):
        radius, centre = draw.between(0.04, 0.13), (draw.between(0, 1), draw.between(0, 1))
        glow = draw.between(0.15, 0.5) * smooth(-disc(_X, _Y, *centre, radius) * 60)
        light = np.array(hsv(hue + draw.between(-0.2, 0.4), 0.5, 1), np.float32)
        out = out + (light - out) * glow[..., None]
    return out


Ground = Callable[[Draw], Floats]
GROUNDS: tuple[Ground, ...] = (_meadow, _sand, _sky, _water, _wood, _cobbles, _bokeh)


def ground(draw: Draw) -> Floats:
    """A ground with clutter: plain pebbles and tiles that belong to no class, (SIZE, SIZE, 3)."""
    out = draw.pick(GROUNDS)(draw)
    for _ in range(draw.below(9)):
        cx, cy, angle = draw.between(0, 1), draw.between(0, 1), turn(draw.between(0, 1))
        p, q = (_X - cx) * angle[0] + (_Y - cy) * angle[1], (_Y - cy) * angle[0] - (_X - cx) * angle[1]
        shape, long = draw.pick((disc, box)), draw.between(0.015, 0.06)
        field = shape(p, q, 0, 0, long, long * draw.between(0.3, 1))
        colour = np.array(hsv(draw.between(0, 1), draw.between(0, 0.7), draw.between(0.2, 0.95)), np.float32)
        out = out + (colour - out) * np.clip(0.5 - field * SIZE, 0, 1)[..., None]
    return out


# --- foregrounds: alpha (SIZE, SIZE) and colours (SIZE, SIZE, 3) ----------------------------------------------------------


def _bars(draw: Draw) -> Floats:
    """Distance to slanted bars, in pictures."""
    gap, lean = draw.between(0.2, 0.34), draw.between(-0.3, 0.3)
    along, across = (_X, _Y) if draw.below(2) else (_Y, _X)
    return (wave((across + lean * along + 2) / gap + draw.between(0, 1)) - draw.between(0.16, 0.24)) * (gap / 2)


def _blades(draw: Draw) -> Floats:
    """Distance to blades of grass that rise from the lower edge."""
    out = np.full((SIZE, SIZE), 9, np.float32)
    for _ in range(6 + draw.below(8)):
        foot, bend, height = draw.between(-0.05, 1.05), draw.between(-0.5, 0.5), draw.between(0.25, 0.85)
        rise = (1 - _Y) / height
        blade = np.abs(_X - foot - bend * rise * rise * height) - draw.between(0.012, 0.03) * (1 - rise)
        out = np.minimum(out, blade)
    return out


def _foliage(draw: Draw) -> Floats:
    """Distance to plain oval leaves that hang in from the edges."""
    out = np.full((SIZE, SIZE), 9, np.float32)
    for _ in range(5 + draw.below(8)):
        along, inward = draw.between(0, 1), draw.between(-0.02, 0.14)
        cx, cy = draw.pick(((along, inward), (along, 1 - inward), (inward, along), (1 - inward, along)))
        c, s = turn(draw.between(0, 1))
        p, q = (_X - cx) * c + (_Y - cy) * s, (_Y - cy) * c - (_X - cx) * s
        out = np.minimum(out, disc(p, q, 0, 0, draw.between(0.08, 0.15), draw.between(0.025, 0.05)))
    return out


def foreground(draw: Draw) -> tuple[Floats, Floats]:
    """Bars, blades or leaves before the things, in two scenes of five: alpha (SIZE, SIZE) and its colour (3,)."""
    if draw.between(0, 1) > 0.4:
        return np.zeros((SIZE, SIZE), np.float32), np.zeros(3, np.float32)
    kind = draw.pick((_bars, _blades, _foliage))
    alpha = np.clip(0.5 - kind(draw) * SIZE, 0, 1)
    hue = draw.between(0, 1) if kind is _bars else draw.between(0.2, 0.45)
    return alpha, np.array(hsv(hue, draw.between(0.2, 0.7), draw.between(0.2, 0.7)), np.float32)
