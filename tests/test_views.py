"""Figures on pages: dark ones are light figures in other greys, and what a phone shows is stacked until it can be read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from gradcampp import paper
from gradcampp.cam import METHODS
from gradcampp.networks.classes import imagenet
from gradcampp.results.figures import comparison, one_image, views
from tests.test_comparison import made, related
from tests.test_figures import FIGURES, assert_legible, explanation, layer

WIDTH = 358  # pixels that a page leaves a figure on a phone of 390
SMALLEST = 9.0

ROWS = [explanation(281), explanation(207, 1)]
MORE: dict[str, Callable[[], Figure]] = {
    "pipeline": lambda: one_image.pipeline(layer(), torch.rand(3, 16, 16), "class"),
    "at_layers": lambda: one_image.at_layers({"relu": ROWS, "blocks.15.relu1": ROWS}, imagenet().names),
    "explanation_maps": lambda: one_image.explanation_maps(ROWS[0], dict.fromkeys(METHODS, 0.5)),
    "solutions": lambda: one_image.solutions((3, 6), 5, [(5 / 3, 0)]),
    "alpha_pole": one_image.alpha_pole,
    "runs": lambda: comparison.alpha_distributions({str(seed): made("a network", seed) for seed in range(3)}),
    "weakening": lambda: comparison.weakening(
        {f"a network, layer {seed}": related("a network", seed, 12, 1.0) for seed in range(3)}
    ),
}


def opened(file: bytes) -> tuple[NDArray[np.int64], Any]:
    picture = Image.open(io.BytesIO(file))
    return np.asarray(picture.convert("RGBA")).astype(np.int64), json.loads(picture.getexif()[Base.ImageDescription])


def test_greys_are_turned_and_colours_stay() -> None:
    greys = np.arange(256, dtype=np.uint8)
    pixels = np.repeat(greys[:, None], 3, 1)[None]
    turned = views.inverted(np.concatenate([pixels, np.full((1, 256, 1), 7, np.uint8)], -1))
    assert (turned[0, :, :3] == 255 - greys[:, None]).all()
    assert (turned[..., 3] == 7).all()
    pure = np.array([[[255, 0, 0, 255], [0, 255, 255, 255]]], np.uint8)
    assert (views.inverted(pure) == pure).all()


def test_every_colour_keeps_its_hue_and_no_channel_leaves_its_range() -> None:
    steps = np.linspace(0, 255, 18, dtype=np.int64)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    turned = views.inverted(np.concatenate([colours, np.full_like(colours[..., :1], 255)], -1).astype(np.uint8))[..., :3]
    moved = turned.astype(np.int64) - colours
    assert (moved == moved[..., :1]).all()  # all three channels alike, which a value out of range would not be
    grey = colours.max(-1) - colours.min(-1) < 64
    dark, light = grey & (colours.max(-1) < 90), grey & (colours.min(-1) > 165)
    assert turned[dark].min() > 120
    assert turned[light].max() < 135


def drawn() -> Figure:
    """A title above a picture of all greys, and its scale."""
    figure = Figure(figsize=(3, 3), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(np.linspace(0, 1, 64).reshape(8, 8), cmap="gray")
    axis.set(title="title", xticks=[], yticks=[])
    figure.colorbar(shown)
    return figure


def test_words_change_with_the_page_while_pictures_and_their_scales_keep_their_colours() -> None:
    _, found = views.views(drawn())
    (light, texts), (dark, same) = opened(found["wide-light"]), opened(found["wide-dark"])
    assert texts == same
    width = light.shape[1]
    title = max(texts, key=lambda text: text[4])  # the largest letters
    left, top, right, bottom = (round(share * width) for share in title[:4])
    letters = light[top:bottom, left:right, 3] > 250
    assert letters.any()
    assert light[top:bottom, left:right][letters][:, :3].max() < 60  # lossy files miss by some
    assert dark[top:bottom, left:right][letters][:, :3].min() > 195
    assert light[:2, :, 3].max() == dark[:2, :, 3].max() == 0  # no ground
    middle = np.s_[light.shape[0] // 3 : 2 * light.shape[0] // 3]
    opaque = (light[middle][..., 3] > 250) & (dark[middle][..., 3] > 250)
    columns = np.flatnonzero(np.all(opaque, 0))  # the picture and, right of it, the scale
    assert len(columns) > width / 3
    assert columns.max() - columns.min() > len(columns)  # there is a gap between both
    assert np.abs(light - dark)[middle][:, columns[2:-2], :3].mean() < 10


def words(figure: Figure) -> set[str]:
    """Texts that are no numbers."""
    found = {each.get_text() for each in figure.findobj(Text) if isinstance(each, Text)}
    return {text for text in found if any(map(str.isalpha, text.replace("mathdefault", "")))}


@pytest.mark.parametrize("make", [*FIGURES.values(), *MORE.values()], ids=[*FIGURES, *MORE])
def test_a_stacked_figure_can_be_read_on_a_phone(make: Callable[[], Figure]) -> None:
    figure = make()
    before = words(figure)
    views.stack(figure)
    assert figure.get_figwidth() == views.PHONE
    assert_legible(figure)
    assert before <= words(figure)
    assert min(text[4] * WIDTH for text in views.texts(figure)) >= SMALLEST


def test_stacked_maps_stand_under_the_name_of_their_method() -> None:
    figure = one_image.explanations(ROWS, imagenet().names, "pre")
    panels = [axis for axis in figure.axes if axis.images]
    views.stack(figure)
    names = ["picture", *(paper.NAMES[method] for method in METHODS)]
    assert [axis.get_title() for axis in panels] == 2 * names
    figure.draw_without_rendering()
    places = [axis.get_position() for axis in panels]
    assert [round(place.x0, 1) for place in places] == 4 * [round(places[0].x0, 1), round(places[1].x0, 1)]
    assert all(first.y0 >= second.y1 for first, second in zip(places[::2], places[2::2], strict=False))


def test_titles_of_their_own_stay_with_their_pictures() -> None:
    figure = FIGURES["family"]()
    before = [axis.get_title() for axis in figure.axes]
    views.stack(figure)
    assert [axis.get_title() for axis in figure.axes][:4] == before[:4]
    assert figure.axes[4].get_title() == before[4] != before[0]


def test_a_figure_without_panels_stays_as_it_is() -> None:
    figure = Figure(figsize=(1, 2))
    figure.text(0, 0.5, "a")
    pixels, found = views.views(figure)
    assert pixels.shape == (320, 160, 4)
    assert list(figure.get_size_inches()) == [1, 2]
    assert sorted(found) == ["narrow-dark", "narrow-light", "wide-dark", "wide-light"]
