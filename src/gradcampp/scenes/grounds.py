"""What things stand on, and what stands in front of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradcampp.scenes.drawing import SIZE, Floats, _box, _disc, _Draw, _fraction, _hsv, _mix, _smooth, _turn, _wave

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
