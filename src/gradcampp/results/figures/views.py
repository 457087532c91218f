"""A figure as pages show it: on a light and on a dark ground, beside a laptop's text and stacked for a phone."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

DOTS_PER_INCH = 160
PHONE = 4.2  # inches: 8 points of such a figure are 9.5 pixels of a page that is 358 wide

Pixels = NDArray[np.uint8]  # (h, w, 4): red, green, blue and how opaque


def views(figure: Figure) -> tuple[Pixels, dict[str, bytes]]:
    """A figure on transparent ground, and its WebP files for pages; it is left as it is stacked for a phone.

    The files are ``wide-light``, ``wide-dark``, ``narrow-light`` and ``narrow-dark``. Each describes its texts in Exif, as JSON:
    left, top, right and bottom of each and the size of its letters, all as shares of the figure's width.
    """
    pixels, wide = _view(figure)
    stack(figure)
    narrow = _view(figure)[1]
    return pixels, {f"{name}-{mode}": file for name, both in (("wide", wide), ("narrow", narrow)) for mode, file in both.items()}


def png(pixels: Pixels) -> bytes:
    """The file of a drawing on white ground."""
    ground = Image.new("RGBA", pixels.shape[1::-1], "white")
    buffer = io.BytesIO()
    Image.alpha_composite(ground, Image.fromarray(pixels)).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


def inverted(pixels: Pixels) -> Pixels:
    """A drawing for a dark page: greys change from dark to light and back, the less the more colour there is."""
    colours = pixels[..., :3].astype(np.int32)
    most, least = (end(end(colours[..., 0], colours[..., 1]), colours[..., 2]) for end in (np.maximum, np.minimum))
    lighter = (255 - most + least) * (255 - most - least) // 255
    return np.concatenate([(colours + lighter[..., None]).astype(np.uint8), pixels[..., 3:]], -1)


def stack(figure: Figure) -> None:
    """Rearrange a figure in the width of a phone: plots below each other, of four and more pictures in a row half as many.

    A row of pictures that is broken repeats the titles of the first row. Long texts and legends take more lines. A figure without
    a grid stays as it is.
    """
    if not (placed := [axis for axis in figure.axes if axis.get_subplotspec()]):
        return
    rows = [list(row) for _, row in itertools.groupby(placed, _rows)]
    uniform = len({len(row) for row in rows}) == 1  # else the figure is a drawing whose rows belong together
    tall = figure.get_figheight() / max(_rows(axis)[1] for axis in placed)
    lines: list[tuple[list[Axes], int]] = []  # panels, and how many the line has room for
    for row in rows:
        most = (math.ceil(len(row) / 2) if uniform and len(row) > 3 else len(row)) if row[0].images else 1
        if row[0].images and most < len(row):
            for axis, first in zip(row, rows[0], strict=True):
                axis.title.set(text=axis.get_title() or first.get_title(), fontsize=first.title.get_fontsize())
        lines += [(row[start : start + most], most) for start in range(0, len(row), most)]
    beside = any(axis.get_ylabel() for axis in placed), len(placed) < len(figure.axes)  # words on the left, a scale on the right
    room = PHONE - 0.4 * beside[0] - 0.65 * beside[1]
    heights = [_height(line[0], room / most if line[0].images else 0.7 * tall) for line, most in lines]
    columns = math.lcm(*(most for _, most in lines))
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    for place, (line, most) in enumerate(lines):
        wide = columns // most
        for column, axis in enumerate(line, most - len(line)):
            axis.set_subplotspec(grid[place, wide * column : wide * (column + 1)])
            if not axis.images:
                axis.tick_params(labelleft=True, labelbottom=True)
    for text in figure.texts:
        text.set_wrap(not text.get_rotation())
    for legend in [each for each in figure.legends if len(each.get_texts()) > 2]:
        names = [text.get_text() for text in legend.get_texts()]
        heights.append(0.2 * len(names))
        legend.remove()
        figure.legend([handle for handle in legend.legend_handles if handle], names, loc="outside lower center", frameon=False)
    figure.set_size_inches(PHONE, sum(heights))
    if layout := figure.get_layout_engine():
        layout.execute(figure)  # once before it is drawn: the constrained layout begins at the places that panels had


def _rows(axis: Axes) -> tuple[int, int]:
    spec = axis.get_subplotspec()
    return (spec.rowspan.start, spec.rowspan.stop) if spec else (0, 1)


def _height(axis: Axes, panel: float) -> float:
    """Inches of a line of panels and the words above and below them."""
    words = [text for text in (axis.get_title(), axis.get_xlabel()) if text]
    panel = panel if axis.axison or axis.images else 0.7
    return panel + 0.1 + sum(0.17 * (1 + text.count("\n")) for text in words)


def _view(figure: Figure) -> tuple[Pixels, dict[str, bytes]]:
    buffer = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)  # of the figure and of its file, so that texts are measured where they are drawn
    figure.savefig(buffer, format="rgba", dpi=DOTS_PER_INCH, transparent=True)
    pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(-1, int(figure.bbox.width), 4)
    dark = inverted(pixels)
    pictures = [axis for axis in figure.axes if axis.images or any(isinstance(each, QuadMesh) for each in axis.collections)]
    for axis in pictures:  # their colours mean something
        box = axis.get_window_extent()
        high, deep = max(0, int(len(pixels) - box.y1)), math.ceil(len(pixels) - box.y0)
        inside = np.s_[high:deep, max(0, int(box.x0)) : math.ceil(box.x1)]
        dark[inside] = pixels[inside]
    exif = Image.Exif()
    exif[Base.ImageDescription] = json.dumps(list(texts(figure)))
    files = {}
    for mode, drawn in (("light", pixels), ("dark", dark)):
        buffer = io.BytesIO()
        Image.fromarray(drawn).save(buffer, "webp", lossless=not pictures, quality=90 if pictures else 20, method=2, exif=exif)
        files[mode] = buffer.getvalue()
    return pixels, files


def texts(figure: Figure) -> Iterator[list[float]]:
    """Place and size of every text that is drawn, as :func:`views` describes them; ticks outside their axis are not drawn."""
    hidden = set()
    for axis in (each for panel in figure.axes for each in (panel.xaxis, panel.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high or not axis.axes.axison:
                hidden |= {tick.label1, tick.label2}
    width, height = figure.bbox.size
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            box = text.get_window_extent()
            sides = [side / width for side in (box.x0, height - box.y1, box.x1, height - box.y0)]
            yield [round(share, 4) for share in (*sides, float(text.get_fontsize()) / 72 / figure.get_figwidth())]
