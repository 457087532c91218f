"""Where a layer keeps its channels and its places: maps, maps with the channels last, or tokens. Shapes only."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradcampp.errors import InputError

Size = tuple[int, int]
Shape = tuple[int, ...]
FIRST, LAST, TOKENS = "channels-first", "channels-last", "tokens"
SYNTAX = f"{FIRST}, {LAST} or {TOKENS}:LEADING:ROWSxCOLUMNS, such as {TOKENS}:1:14x14"
MOST_LEADING = 16  # tokens of classes and registers: vision transformers have one to nine


@dataclass(frozen=True)
class Layout:
    """The order of the axes in the output of a layer.

    Attributes:
        axes: ``channels-first`` (B, K, H, W), ``channels-last`` (B, H, W, K) or ``tokens`` (B, N, K).
        leading: tokens of classes or registers that stand before those of the image, and are no part of the maps.
        grid: rows and columns of the tokens of the image, which are read row by row.
    """

    axes: str
    leading: int = 0
    grid: Size = (0, 0)

    def __str__(self) -> str:
        return self.axes if self.axes != TOKENS else f"{TOKENS}:{self.leading}:{self.grid[0]}x{self.grid[1]}"

    def fits(self, shape: Shape) -> bool:
        """True for the shape of an output that can be read so."""
        return len(shape) == 3 and shape[1] == self.leading + math.prod(self.grid) if self.axes == TOKENS else len(shape) == 4

    def maps(self, output: Tensor) -> Tensor:
        """The feature maps (..., K, H, W) in an output that fits, or in derivatives by it: a view, no value is changed."""
        if self.axes == TOKENS:
            output = output[..., self.leading :, :].unflatten(-2, self.grid)  # type: ignore[no-untyped-call]  # (..., H, W, K)
        return output if self.axes == FIRST else output.movedim(-1, -3)


CHANNELS_FIRST = Layout(FIRST)


def parse(text: str | Layout) -> Layout:
    """A layout from ``channels-first``, ``channels-last`` or ``tokens:1:14x14``: leading tokens left out, then rows x columns.

    Raises:
        InputError: if it is none of these.
    """
    found = re.fullmatch(rf"{FIRST}|{LAST}|{TOKENS}:(\d+):([1-9]\d*)x([1-9]\d*)", str(text))
    if not found:
        raise InputError(f"--layout {text}: expected {SYNTAX}")
    leading, rows, columns = (int(number or 0) for number in found.groups())
    return Layout(str(text).partition(":")[0], leading, (rows, columns))


def find(
    shape: Shape,
    size: Size,
    grids: Callable[[], Sequence[Size]],
    at: Callable[[Size], Shape | None],
    sure: bool = False,
) -> Layout | None:
    """The layout of an output, or None where its shapes do not tell.

    One reading that covers the image with whole squares of pixels is taken, or that has the grid of a convolution's maps. Where
    there are two or none, the network sees a picture of twice the height, and one of twice the width: the axis that grows is the
    axis of the rows, or of the columns.

    Args:
        shape: of the output, the batch first.
        size: height and width of the network's input, in pixels.
        grids: rows and columns of convolutions' outputs in the same network.
        at: the shape for an input of another size; None where the network refuses it.
        sure: of three axes, the last is known to be that of the channels.
    """
    if len(shape) == 4:
        pairs = [(Layout(FIRST), (shape[2], shape[3])), (Layout(LAST), (shape[1], shape[2]))]
        readings = [layout for layout, grid in pairs if _covers(grid, size)]
        readings = readings or [layout for layout, grid in pairs if grid in grids()]
    elif len(shape) == 3:
        known = [Layout(TOKENS, shape[1] - math.prod(grid), grid) for grid in grids()]
        readings = sorted({one for one in known if 0 <= one.leading <= MOST_LEADING}, key=lambda one: one.leading)[:1]
        if not sure and any(math.prod(one.grid) == shape[2] for one in known):  # the axes may be the other way round
            readings = []
    else:
        return None
    return readings[0] if len(readings) == 1 else _between(shape, size, at) or patches(shape, size, sure)


def _between(shape: Shape, size: Size, at: Callable[[Size], Shape | None]) -> Layout | None:
    """The layout that three sizes of input tell."""
    tall, wide = at((2 * size[0], size[1])), at((size[0], 2 * size[1]))
    if tall is None or wide is None or not len(tall) == len(wide) == len(shape):
        return None
    rows, columns = ([axis for axis in range(1, len(shape)) if other[axis] != shape[axis]] for other in (tall, wide))
    if rows == columns == [1] and tall == wide:
        places = tall[1] - shape[1]  # twice the rows: as many tokens again, but for the leading ones
        grid = (math.isqrt(places * size[0] // size[1]), math.isqrt(places * size[1] // size[0]))
        leading = shape[1] - places
        return Layout(TOKENS, leading, grid) if math.prod(grid) == places and 0 <= leading <= MOST_LEADING else None
    return {(2, 3): Layout(FIRST), (1, 2): Layout(LAST)}.get((rows[0], columns[0])) if len(rows) == len(columns) == 1 else None


def patches(shape: Shape, size: Size, sure: bool) -> Layout | None:
    """The layout of tokens that cover the image with whole squares of pixels, as many as can be.

    Unless one is sure which axis is theirs, nothing is found where the channels could be such tokens, too.
    """
    if len(shape) != 3:
        return None
    sides = [side for side in range(1, min(size) + 1) if size[0] % side == 0 == size[1] % side]
    grids = [(size[0] // side, size[1] // side) for side in sides]
    found = [
        Layout(TOKENS, shape[1] - math.prod(grid), grid) for grid in grids if 0 <= shape[1] - math.prod(grid) <= MOST_LEADING
    ]
    return found[0] if found and (sure or shape[2] not in map(math.prod, grids)) else None


def _covers(grid: Size, size: Size) -> bool:
    """True where each unit of a grid stands for a whole square of pixels, as with patches and most strides."""
    rows, columns = grid
    return (
        0 < rows <= size[0] and columns > 0 and size[0] % rows == 0 == size[1] % columns and size[0] * columns == size[1] * rows
    )
