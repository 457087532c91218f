"""Figures draw the numbers that they are given, legibly, and are saved to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from gradcampp import paper
from gradcampp.algebra.theorems import random_layer
from gradcampp.cam import COLUMNS, METHODS, SCORES
from gradcampp.evaluation import localisation
from gradcampp.evaluation.alphas import box, histogram, tanh_histogram
from gradcampp.evaluation.maps import Explanation
from gradcampp.networks.capture import Capture
from gradcampp.networks.classes import imagenet
from gradcampp.results.figures import data_set, one_image, style

PIXEL = 1.0  # antialiasing and hinting move an edge by less


def explanation(label: int, seed: int = 0, size: int = 32) -> Explanation:
    generator = torch.Generator().manual_seed(seed)
    products = torch.randn(500, generator=generator)
    return Explanation(
        pixels=torch.rand(3, size, size, generator=generator),
        label=label,
        probabilities=torch.linspace(0, 0.002, 1000, dtype=torch.float64),
        maps={method: torch.rand(size, size, generator=generator) for method in METHODS},
        alphas=1 / (2 + products),
        products=products,
    )


def run_records(n: int = 31) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame({name: rng.uniform(0.01, 1, n) for name in COLUMNS})


def layer() -> Capture:
    """Feature maps and gradients of one picture."""
    activations, gradients = random_layer(0, batch=1)
    return Capture(activations, {"pre": gradients, "post": gradients / 10}, torch.zeros(1, 2))


def differing(n: int = 40) -> pd.DataFrame:
    """The images of a run, of which the first has a layer with negative activations."""
    rng = np.random.default_rng(6)
    names = ("difference", "effective_alpha", "unevenness")
    frame = pd.DataFrame({f"{scores}_{name}": rng.uniform(0, 0.5, n) for scores in SCORES for name in names})
    frame.loc[0, ["pre_effective_alpha", "pre_unevenness"]] = np.nan
    return frame


def localised() -> pd.DataFrame:
    """The averages of made-up scenes."""
    rng = np.random.default_rng(7)
    keys = [(scene, 1 + scene % 4, name) for scene in range(40) for name in COLUMNS]
    rows = pd.DataFrame(keys, columns=["scene", "instances", "map"])
    return localisation.averages(rows.assign(**{metric: rng.random(len(rows)) for metric in localisation.METRICS}))


def rivals() -> pd.DataFrame:
    """The means of made-up pairs."""
    rng = np.random.default_rng(8)
    rows = pd.DataFrame([(pair, name) for pair in range(20) for name in COLUMNS], columns=["pair", "map"])
    return localisation.rivalry(rows.assign(explained=0, **{name: rng.random(len(rows)) for name in localisation.RIVALRY}))


def alphas() -> torch.Tensor:
    return explanation(0, seed=4).alphas


FIGURES: dict[str, Callable[[], Figure]] = {
    "explanations of one class": lambda: one_image.explanations([explanation(281)], imagenet().names, "pre"),
    "explanations of two classes": lambda: one_image.explanations(
        [explanation(281), explanation(207, 1)], imagenet().names, "post"
    ),
    "single_alphas": lambda: one_image.single_alphas(explanation(281)),
    "alpha_distribution": lambda: data_set.alpha_distribution(histogram(alphas()), "pre"),
    "relative_performances": lambda: data_set.relative_performances(run_records()),
    "family": lambda: one_image.family(layer(), explanation(0).pixels, (0, 0.1, 1, 100, 1e6)),
    "shrinkages": lambda: one_image.shrinkages(torch.linspace(-5, 15, 500).reshape(20, 5, 5), torch.linspace(0, 0.8, 20)),
    "differences": lambda: data_set.differences(differing()),
    "localisation": lambda: data_set.localisation(localised()[localised()["scores"] == "pre"]),
    "competition": lambda: data_set.competition(rivals()),
}


def drawn_texts(figure: Figure) -> dict[str, Bbox]:
    """The visible texts and their boxes on the canvas; ticks outside their axis are not drawn."""
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.draw_without_rendering()
    hidden: set[Text] = set()
    for axis in figure.findobj(Axis):
        assert isinstance(axis, Axis)
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high or not axis.get_visible():
                hidden |= {tick.label1, tick.label2}
    found: dict[str, Bbox] = {}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text not in hidden and text.get_visible() and text.get_text().strip():
            found[f"{text.get_text()} #{len(found)}"] = text.get_window_extent()
    return found


def assert_legible(figure: Figure) -> None:
    """Every text lies inside the figure and on no other text."""
    boxes = drawn_texts(figure)
    assert boxes
    for name, extent in boxes.items():
        assert extent.x0 >= -PIXEL, name
        assert extent.y0 >= -PIXEL, name
        assert extent.x1 <= figure.bbox.width + PIXEL, name
        assert extent.y1 <= figure.bbox.height + PIXEL, name
    names = list(boxes)
    for place, name in enumerate(names):
        for other in names[:place]:
            common = Bbox.intersection(boxes[name], boxes[other])
            assert common is None or min(common.width, common.height) <= PIXEL, f"{name!r} overlaps {other!r}"


def horizontals(axis: Axes) -> list[float]:
    """Heights of the horizontal lines of boxplots: medians and the caps of whiskers, not the reference line."""
    lines = [np.asarray(line.get_xydata()) for line in axis.lines if line.get_linestyle() != "--"]
    return [float(line[0, 1]) for line in lines if len(line) == 2 and line[0, 1] == line[1, 1] and line[0, 0] != line[1, 0]]


def references(axis: Axes) -> list[float]:
    """Heights of the dashed lines."""
    return [float(np.asarray(line.get_ydata())[0]) for line in axis.lines if line.get_linestyle() == "--"]


def boxes_of(axis: Axes) -> list[tuple[float, float]]:
    """First and third quartile of each box, from left to right."""
    edges = [
        patch.get_path().get_extents(patch.get_patch_transform())
        for patch in axis.patches
        if np.asarray(patch.get_path().vertices).size < 16
    ]
    return [(float(edge.y0), float(edge.y1)) for edge in sorted(edges, key=lambda edge: float(edge.x0)) if edge.height > 0]


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
def test_texts_are_inside_the_figure_and_do_not_overlap(make: Callable[[], Figure]) -> None:
    assert_legible(make())


def test_overlapping_and_outlying_texts_are_noticed() -> None:
    crowded, outside = Figure(), Figure()
    for place in (0.5, 0.51):
        crowded.text(place, 0.5, "label")
    outside.text(0.99, 0.5, "a long label")
    for figure in (crowded, outside):
        with pytest.raises(AssertionError, match="label"):
            assert_legible(figure)


def test_the_longest_class_names_stay_legible() -> None:
    names = imagenet().names
    longest = sorted(range(1000), key=lambda index: -len(names[index]))[:3]
    assert_legible(one_image.explanations([explanation(index, index) for index in longest], names, "pre"))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [-1398101.4, 0.5, 0.49, 559240.56]])
def test_extreme_and_few_alphas_stay_legible(values: list[float]) -> None:
    assert_legible(data_set.alpha_distribution(histogram(torch.tensor(values)), "post"))
    row = explanation(0)
    assert_legible(
        one_image.single_alphas(
            Explanation(row.pixels, 0, row.probabilities, row.maps, torch.tensor(values), torch.tensor(values))
        )
    )


def test_an_overlay_is_grey_under_the_colour_of_the_heat() -> None:
    pixels = torch.tensor([0.1, 0.2, 0.6]).reshape(3, 1, 1).expand(3, 1, 2)
    picture = one_image.overlay(pixels, torch.tensor([[0.0, 1.0]]))
    ends = np.array([colormaps["inferno"](0.0)[:3], colormaps["inferno"](1.0)[:3]])
    assert picture.shape == (1, 2, 3)
    assert picture[0] == pytest.approx(0.4 * 0.3 + 0.6 * ends, abs=1e-7)  # the pixels are float32


def test_overlays_are_colours_and_brighter_where_the_map_is_high() -> None:
    picture = one_image.overlay(torch.full((3, 1, 256), 0.5), torch.linspace(0, 1, 256)[None])
    assert 0 <= picture.min() <= picture.max() <= 1
    luminance = picture[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_explanations_show_the_photograph_and_the_map_of_each_method() -> None:
    rows = [explanation(281), explanation(207, 1)]
    figure = one_image.explanations(rows, imagenet().names, "post")
    axes, bar = figure.axes[:-1], figure.axes[-1]
    assert len(axes) == 8
    pictures = [axis.images[0].get_array() for axis in axes]
    expected: list[NDArray[np.float64]] = []
    for row in rows:
        expected.append(row.pixels.permute(1, 2, 0).numpy())
        expected += [one_image.overlay(row.pixels, row.maps[method]) for method in ("gradcam", "gradcam+", "gradcam++")]
    for picture, numbers in zip(pictures, expected, strict=True):
        assert np.array_equal(np.asarray(picture), numbers)
    assert [axis.get_title() for axis in axes] == ["picture", "Grad-CAM", "Grad-CAM+", "Grad-CAM++", "", "", "", ""]
    assert axes[0].get_ylabel() == "tabby\nscore 0.000563"
    assert axes[4].get_ylabel() == "golden retriever\nscore 0.000414"
    assert "post-softmax" in bar.get_ylabel()
    assert bar.get_ylim() == (0, 1)


def test_the_telling_maps_are_three_that_add_most_and_the_one_that_cancelling_takes_most_from() -> None:
    captured = layer()
    activations, gradients = captured.activations[0], captured.gradients["pre"][0]
    adding, taken = {}, {}
    for channel, (feature, slopes) in enumerate(zip(activations.tolist(), gradients.tolist(), strict=True)):
        flat = [slope for row in slopes for slope in row]
        total = sum(value for row in feature for value in row)
        mean = sum(flat) / len(flat)
        adding[channel] = mean * total
        taken[channel] = (sum(map(abs, flat)) / len(flat) - abs(mean)) * total
    *three, last = one_image.telling_maps(captured)
    assert three == sorted(adding, key=lambda channel: -adding[channel])[:3]
    assert last == max(taken.keys() - set(three), key=lambda channel: taken[channel])


def test_a_map_that_cancels_is_shown_though_it_adds_nothing() -> None:
    activations = torch.ones(1, 5, 1, 2)
    gradients = torch.tensor([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0], [0.5, 0.5], [-9.0, 9.0]])[None, :, None]
    captured = Capture(activations, {"pre": gradients, "post": gradients}, torch.zeros(1, 2))
    assert one_image.telling_maps(captured) == [0, 1, 2, 4]
    figure = one_image.pipeline(captured, torch.rand(3, 4, 4), "class")
    titles = [axis.get_title() for axis in figure.axes]
    assert [title for title in titles if title.startswith("k = ")] == ["k = 0", "k = 1", "k = 2", "k = 4"]
    assert "$w_k$ = 0" in titles


def test_each_layer_has_the_three_maps_of_every_picture() -> None:
    rows = {place: [explanation(281, seed), explanation(207, seed + 1)] for seed, place in enumerate(("head", "inside"))}
    figure = one_image.at_layers(rows, imagenet().names)
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert len(shown) == 2 * 7
    for line in range(2):
        assert np.array_equal(shown[line * 7], rows["head"][line].pixels.permute(1, 2, 0).numpy())
        for block, each in enumerate(rows.values()):
            for place, method in enumerate(METHODS):
                expected = one_image.overlay(each[line].pixels, each[line].maps[method])
                assert np.array_equal(shown[line * 7 + 1 + 3 * block + place], expected)
    titles = [axis.get_title().strip() for axis in figure.axes[:7]]
    assert titles == ["picture", "Grad-CAM", "head\nGrad-CAM+", "Grad-CAM++", "Grad-CAM", "inside\nGrad-CAM+", "Grad-CAM++"]
    assert figure.axes[7].get_ylabel() == "golden retriever\nscore 0.000414"


def test_explanations_have_a_row_each() -> None:
    for count in (1, 3):
        figure = one_image.explanations([explanation(index, index) for index in range(count)], imagenet().names, "pre")
        assert len(figure.axes) == 4 * count + 1


def test_single_alphas_draws_the_boxes_of_both_and_counts_them() -> None:
    row = explanation(0)
    left, right = one_image.single_alphas(row).axes
    for axis, values, reference in ((left, row.alphas, 0.5), (right, row.products, 0.0)):
        stats = boxplot_stats(values.double().numpy())[0]
        expected = [stats["whislo"], stats["med"], stats["whishi"]]
        assert sorted(horizontals(axis)) == pytest.approx(expected)
        assert boxes_of(axis) == [pytest.approx((stats["q1"], stats["q3"]))]
        assert references(axis) == [reference]
        assert f"500 units with a gradient\nfrom {float(values.min()):,.4g} to {float(values.max()):,.4g}" == axis.get_xlabel()
    assert "alpha" in left.get_title()
    assert "sum" in right.get_title()


def test_alpha_distribution_draws_the_box_and_all_bars_of_the_stream() -> None:
    found = histogram(alphas())
    figure = data_set.alpha_distribution(found, "post")
    left, right = figure.axes
    quartiles = box(found)
    assert sorted(horizontals(left)) == [quartiles.low_whisker, quartiles.median, quartiles.high_whisker]
    assert boxes_of(left) == [(quartiles.first_quartile, quartiles.third_quartile)]
    (steps,) = [patch for patch in right.patches if isinstance(patch, StepPatch)]
    counts, edges = tanh_histogram(found)
    drawn, between, _ = steps.get_data()
    assert np.array_equal(drawn, counts)
    assert np.array_equal(between, edges)
    assert right.get_yscale() == "log"
    assert right.get_ylim()[0] < 1 < counts.max() < right.get_ylim()[1]
    assert left.get_xlabel() == f"500 values\nfrom {found.minimum:,.4g} to {found.maximum:,.4g}"
    assert "post-softmax" in left.get_title()


def test_relative_performances_draws_six_boxes_of_quotients() -> None:
    records = run_records()
    (axis,) = data_set.relative_performances(records).axes
    expected = []
    for pair in (("plusplus", ""), ("plus", ""), ("plusplus", "plus")):
        for scores in SCORES:
            first, second = (f"{scores}_gradcam_{name}".rstrip("_") for name in pair)
            expected.append(boxplot_stats(np.log10(records[first] / records[second]))[0])  # seaborn's boxes on a log axis
    assert axis.get_yscale() == "log"
    medians = sorted(10 ** stats["med"] for stats in expected)
    whiskers = sorted(10 ** stats[end] for stats in expected for end in ("whislo", "whishi"))
    assert sorted(horizontals(axis)) == pytest.approx(sorted(medians + whiskers))
    assert np.array(boxes_of(axis)) == pytest.approx(np.array([[10 ** stats["q1"], 10 ** stats["q3"]] for stats in expected]))
    names = [label.get_text().replace("\n", " ") for label in axis.get_xticklabels()]
    assert names == [paper.pair_name(pair) for pair in paper.PAIRS]
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["pre-softmax", "post-softmax"]
    assert references(axis) == [1]


def test_relative_performances_leaves_out_images_without_both_scores() -> None:
    records = run_records()
    missing = records.copy()
    missing.loc[len(records)] = [np.nan if name == "pre_gradcam_plus" else 1.0 for name in COLUMNS]
    kept = data_set.relative_performances(missing).axes[0]
    without = missing.copy()
    without.loc[len(records), ["pre_gradcam", "pre_gradcam_plusplus"]] = np.nan
    assert horizontals(kept) != horizontals(data_set.relative_performances(without).axes[0])
    assert_legible(data_set.relative_performances(without))


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_ratio_ticks_are_plain_numbers(spread: float) -> None:
    records = run_records()
    records["pre_gradcam"] = 0.5 * np.exp(-spread * np.linspace(0, 1, len(records)))
    figure = data_set.relative_performances(records)
    assert_legible(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) >= 2
    assert "1" in labels or spread > 1
    assert all(float(label) > 0 for label in labels)


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure_is_saved_to_the_same_bytes(make: Callable[[], Figure], ending: str, tmp_path: Path) -> None:
    (first,) = style.save(make(), tmp_path / "first", [ending])
    (second,) = style.save(make(), tmp_path / "second", [ending])
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["explanations of one class", "single_alphas"])
def test_saving_a_figure_again_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    (first,) = style.save(figure, tmp_path / "first", ["svg"])
    (second,) = style.save(figure, tmp_path / "second", ["svg"])
    assert first.read_bytes() == second.read_bytes()


def test_other_numbers_give_other_bytes(tmp_path: Path) -> None:
    (first,) = style.save(one_image.single_alphas(explanation(0, 1)), tmp_path / "a", ["svg"])
    (second,) = style.save(one_image.single_alphas(explanation(0, 2)), tmp_path / "b", ["svg"])
    assert first.read_bytes() != second.read_bytes()


def test_files_are_named_after_the_stem_whatever_dots_it_has(tmp_path: Path) -> None:
    paths = style.save(Figure(figsize=(1, 1)), tmp_path / "figure.v2", ["png", "svg"])
    assert paths == [tmp_path / "figure.v2.png", tmp_path / "figure.v2.svg"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()


def test_the_dots_at_the_pole_are_the_alphas_that_float32_has_there() -> None:
    _, right = one_image.alpha_pole().axes
    drawn = [line for line in right.lines if len(line.get_xdata()) > 2]  # type: ignore[arg-type]
    distances = np.concatenate([np.asarray(line.get_xdata(), np.float64) / 1e6 for line in drawn])
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in drawn])
    products = (-2 + distances).astype(np.float32)
    assert (2 + products.astype(np.float64)) == pytest.approx(distances, rel=1e-9)  # float32 holds each product exactly
    assert values == pytest.approx(1 / distances, rel=1e-9)
    circled = {float(np.asarray(line.get_ydata())[0]) for line in right.lines if len(line.get_xdata()) == 1}  # type: ignore[arg-type]
    assert circled == set(paper.EXTREMES)


def test_the_family_starts_at_grad_cam_plus_and_says_how_far_it_moves() -> None:
    figure = one_image.family(layer(), torch.rand(3, 16, 16), (0, 1, 1e6))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == 3
    moved = [float(title.rpartition(" ")[2]) for title in titles]
    assert moved[0] == 0
    assert moved[0] < moved[1] < moved[2]


def test_differences_draw_each_image_by_its_alpha_and_by_its_unevenness() -> None:
    frame = differing()
    left, right = data_set.differences(frame).axes
    for place, (scores, count) in enumerate(zip(SCORES, (39, 40), strict=True)):
        own = frame.iloc[-count:]
        for axis, across in ((left, 0.5 - own[f"{scores}_effective_alpha"]), (right, own[f"{scores}_unevenness"])):
            points = np.asarray(axis.collections[place].get_offsets())
            assert points == pytest.approx(np.column_stack([across, own[f"{scores}_difference"]]))
    legend = right.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["pre-softmax", "post-softmax"]


@pytest.mark.filterwarnings("error")
def test_differences_of_no_image_leave_the_axes_empty() -> None:
    figure = data_set.differences(differing() * np.nan)
    figure.draw_without_rendering()
    assert all(len(np.asarray(points.get_offsets())) == 0 for axis in figure.axes for points in axis.collections)


def test_competition_draws_every_mean_with_its_interval() -> None:
    table = rivals()
    figure = data_set.competition(table)
    for axis, metric in zip(figure.axes, localisation.RIVALRY, strict=True):
        for bars, scores in zip(axis.containers, SCORES, strict=True):
            own = table[(table["metric"] == metric) & (table["scores"] == scores)].set_index("method").loc[list(METHODS)]
            points, _, (segments,) = bars
            assert list(points.get_ydata()) == list(own["mean"])
            ends = np.array([segment[:, 1] for segment in segments.get_segments()])
            assert ends == pytest.approx(own[["low", "high"]].to_numpy(), rel=1e-12)


def test_localisation_draws_every_mean() -> None:
    table = localised()
    table = table[table["scores"] == "post"]
    drawn = [float(y) for axis in data_set.localisation(table).axes[:-1] for bars in axis.containers for y in bars[0].get_ydata()]
    assert sorted(drawn) == sorted(table["mean"])


def test_shrinkages_draw_the_saturation_and_what_each_channel_keeps() -> None:
    products = torch.tensor([[[0.5, -1.0]], [[20.0, 1.0]], [[-3.0, 0.0]]])  # the last adds nothing
    figure = one_image.shrinkages(products, torch.tensor([0.9, 0.25, 0.0]))
    left, right = figure.axes
    straight, curved = (np.asarray(line.get_xydata()) for line in left.lines[:2])
    assert np.allclose(straight[:, 1], straight[:, 0] / 2)
    assert np.allclose(curved[:, 1], curved[:, 0] / (2 + curved[:, 0]))
    assert "67%" in left.get_xlabel()
    points = np.asarray(right.collections[0].get_offsets())
    assert points == pytest.approx(np.array([[0.5 / 21.5, 0.9], [21 / 21.5, 0.25]]))  # float32 from the tensor
    assert references(right) == pytest.approx([0.9 * 0.5 / 21.5 + 0.25 * 21 / 21.5])


def test_solutions_marks_points_that_lie_on_the_line() -> None:
    drawn = one_image.solutions((3, 6), 5, [(5 / 3, 0), (0, 5 / 6)])
    axis = drawn.axes[0]
    line = next(line for line in axis.lines if line.get_linewidth() == 2)
    assert np.allclose(3 * np.asarray(line.get_xdata()) + 6 * np.asarray(line.get_ydata()), 5, rtol=1e-12)  # float64
    assert [text.get_text() for text in axis.texts] == ["(5/3, 0)", "(0, 5/6)"]
    assert r"3\,\alpha_1 + 6\,\alpha_2 = 5" in axis.get_title()
