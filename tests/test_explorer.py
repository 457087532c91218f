"""The explorer: its data are the library's, its numbers in a browser are the library's, and it answers mouse and keyboard."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from book.explorer import export
from gradcampp import cam, shrinkage
from gradcampp.cam import METHODS, SCORES, Method, Scores, min_max, upsample
from gradcampp.evaluation import gallery
from gradcampp.networks import lite0
from gradcampp.networks.capture import Capture, Network, forward
from gradcampp.networks.load import load
from gradcampp.networks.scores import probabilities
from gradcampp.scenes import CLASSES, SIZE, Scene
from tests.browsing import visiting, write_page
from tests.conftest import ROOT

BOOK = ROOT / "book"
LIMIT = 400 * 1024  # bytes a scene
CLOSE = 1e-12  # float64, at most some thousand terms between 0 and 1: sums in another order differ by less
FAMILY = (0.0, 0.01, 1.0, 30.0, 1e6)
INFINITY = float("inf")


# --- the library's answer ---------------------------------------------------------------------------------------------------


class Truth:
    """A picture of the explorer and what the library computes for it, in float64.

    Attributes:
        scores: softmax scores of all classes.
        labels: the classes that it is explained for.
        captured: feature maps and gradients for each of them.
    """

    def __init__(self, network: Network, pixels: Tensor, labels: Sequence[int]) -> None:
        batch = pixels.reshape(1, *pixels.shape[-3:]).float() / 255
        preprocessing = network.preprocessing
        logits = forward(network.module, normalize(batch, list(preprocessing.mean), list(preprocessing.std)))
        self.scores = probabilities(logits)[0]
        self.size = batch.shape[-1]
        self.labels = list(labels)
        self.captured: Capture = network.capture(batch.expand(len(self.labels), -1, -1, -1), torch.tensor(self.labels))
        self.activations = self.captured.activations[:1].double()

    def gradients(self, row: int, scores: Scores) -> Tensor:
        return self.captured.gradients[scores][row : row + 1].double()

    def weights(self, row: int, scores: Scores, method: Method, lam: float = 1.0) -> Tensor:
        gradients = self.gradients(row, scores)
        if method == "gradcam++" and lam == INFINITY:
            return limit_weights(self.activations, gradients)
        return cam.weights(method, self.activations, gradients, lam)

    def heat(self, row: int, scores: Scores, method: Method, lam: float = 1.0) -> Tensor:
        return min_max(cam.heatmap(self.weights(row, scores, method, lam), self.activations))

    def large(self, row: int, scores: Scores, method: Method, lam: float = 1.0) -> Tensor:
        return upsample(self.heat(row, scores, method, lam), (self.size, self.size))[0]

    def moved(self, row: int, scores: Scores, method: Method, lam: float = 1.0) -> float:
        """The largest pixel difference from Grad-CAM+."""
        return float((self.large(row, scores, method, lam) - self.large(row, scores, "gradcam+")).abs().max())

    def difference(self, row: int, scores: Scores) -> float:
        """That of Grad-CAM++, as published, at a unit."""
        return float(shrinkage.difference(self.activations, self.gradients(row, scores)))

    def right(self, method: Method) -> float:
        """The share of the heat on the right half, for the second class before softmax."""
        heat = self.large(1, "pre", method)
        return float(heat[:, self.size // 2 :].sum() / heat.sum())


class SceneTruth(Truth):
    """A drawn scene, explained by the embedded network."""

    def __init__(self, exhibit: export.Exhibit) -> None:
        self.scene: Scene = export.draw(exhibit)
        network, pixels = load("mini"), torch.from_numpy(self.scene.pixels).permute(2, 0, 1)
        scores = probabilities(network.logits(pixels[None].float() / 255))[0]
        super().__init__(network, pixels, export.classes(self.scene, scores))

    def on_objects(self, row: int, method: Method, lam: float = 1.0, on: int | None = None) -> float:
        """The share of the heat, before softmax, on the instances of the class, or on those of another."""
        heat = self.large(row, "pre", method, lam)
        mask = torch.from_numpy(self.scene.masks[self.scene.instance_labels == self.labels[row if on is None else on]].any(0))
        return float((heat * mask).sum() / heat.sum())

    @property
    def present(self) -> range:
        return range(len(self.scene.labels))


def limit_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """lam * w_k as lam grows without bound: n_k / s_k, and 0 for a channel without activation; a loop."""
    limits = torch.zeros(1, activations.shape[1], dtype=torch.float64)
    for k in range(activations.shape[1]):
        total = float(activations[0, k].sum())
        if total > 0:
            limits[0, k] = sum(1 for g in gradients[0, k].flatten().tolist() if g > 0) / total
    return limits


@pytest.fixture(scope="module")
def scenes() -> dict[str, SceneTruth]:
    return {exhibit.name: SceneTruth(exhibit) for exhibit in export.EXHIBITS}


@pytest.fixture(scope="module")
def shots() -> dict[str, Truth]:
    networks = {layer: load(lite0.NAME, name) for layer, (name, _) in export.LAYERS.items()}
    found = {}
    for shot in export.SHOTS:
        for layer, network in networks.items():
            labels = [list(network.classes.names).index(each) for each in shot.labels]
            found[f"{shot.name}-{layer}"] = Truth(network, gallery.read(shot.picture, network.preprocessing), labels)
    return found


@pytest.fixture(scope="module")
def truths(scenes: dict[str, SceneTruth], shots: dict[str, Truth]) -> dict[str, Truth]:
    return {**scenes, **shots}


# --- the data ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the book builds it: the page's own block, its script and style, and the data."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(BOOK / "explorer", root / "explorer")
    export.write(root / "explorer")
    write_page(BOOK / "explorer.md", root)
    return root


def argument(path: Path, function: str) -> Any:
    """What a file of data hands to the page."""
    text = path.read_text("utf-8")
    start, end = f"gradcamppExplorer.{function}(", ");\n"
    assert text.startswith(start)
    assert text.endswith(end)
    return json.loads(text[len(start) : -len(end)])


def decode(array: dict[str, Any], length: int) -> list[float]:
    """The slow twin of the page's decoder."""
    mask, values = base64.b64decode(array["mask"]), base64.b64decode(array["values"])
    numbers = iter(struct.unpack(f"<{len(values) // 4}f", values))
    decoded = [next(numbers) if mask[i // 8] >> (7 - i % 8) & 1 else 0.0 for i in range(length // array["each"])]
    assert next(numbers, None) is None
    return [value for value in decoded for _ in range(array["each"])]


FLOATS = st.one_of(st.just(0.0), st.floats(width=32, allow_nan=False))


@given(st.lists(st.lists(FLOATS, min_size=4, max_size=4), min_size=1, max_size=9), st.booleans())
def test_an_array_survives_its_encoding(maps: list[list[float]], constant: bool) -> None:
    array = torch.tensor([[each[0]] * 4 if constant else each for each in maps], dtype=torch.float32).reshape(-1, 2, 2)
    found = export.encoded(array)
    assert decode(found, array.numel()) == array.flatten().tolist()
    assert found["each"] == (4 if (array == array[:, :1, :1]).all() else 1)


def test_the_same_bytes_every_time(site: Path, truths: dict[str, Truth], tmp_path: Path) -> None:
    again = export.write(tmp_path / "new" / "explorer")
    assert [path.name for path in again] == ["scenes.js", *(f"{name}.js" for name in truths)]
    for path in again:
        assert path.read_bytes() == (site / "explorer" / path.name).read_bytes(), path.name


def test_the_data_are_the_networks_own_to_the_bit_and_small(
    site: Path, truths: dict[str, Truth], scenes: dict[str, SceneTruth]
) -> None:
    listed = argument(site / "explorer" / "scenes.js", "listScenes")
    files = [f"{each['name']}-{layer}" if layer else each["name"] for each in listed for layer in each.get("layers", [""])]
    assert files == list(truths)
    for name, truth in truths.items():
        path = site / "explorer" / f"{name}.js"
        assert path.stat().st_size <= LIMIT * (4 if name.endswith("inner") else 1)
        data = argument(path, "addScene")
        maps = truth.captured.activations[0]
        assert data["shape"] == list(maps.shape)
        assert decode(data["activations"], maps.numel()) == maps.flatten().tolist()
        known = scenes[name].scene.labels if name in scenes else None
        for row, found in enumerate(data["classes"]):
            label = truth.labels[row]
            assert found["present"] == (label in known if known else None)
            assert (
                abs(found["probability"] - float(truth.scores[label])) <= 5e-7 + 1e-5 * found["probability"]
            )  # six digits; float32
            for kind in SCORES:
                gradients = truth.captured.gradients[kind][row].flatten().tolist()
                assert decode(found["gradients"][kind], maps.numel()) == gradients
        if name in scenes:
            assert [found["name"] for found in data["classes"]] == [CLASSES[label] for label in truth.labels]
            assert np.array_equal(picture(data["picture"]), scenes[name].scene.pixels)


def test_a_photograph_is_explained_for_the_two_likeliest_of_what_it_shows(shots: dict[str, Truth], site: Path) -> None:
    for shot in export.SHOTS:
        truth = shots[f"{shot.name}-head"]
        ranked = truth.scores.argsort(descending=True)[:2].tolist()
        assert truth.labels == ranked
        for layer in export.LAYERS:
            data = argument(site / "explorer" / f"{shot.name}-{layer}.js", "addScene")
            assert picture(data["picture"]).shape == (224, 224, 3)
            for one, name in zip(data["credits"], gallery.parts([shot.picture]), strict=True):
                shown = gallery.PHOTOGRAPHS[name]
                assert (one["title"], one["author"], one["licence"]) == (shown.title, shown.author, shown.licence)


def picture(png: str) -> NDArray[np.uint8]:
    """The colours of a PNG in base64, (h, w, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def test_a_scene_is_explained_for_its_classes_and_the_likeliest_other(scenes: dict[str, SceneTruth]) -> None:
    for truth in scenes.values():
        *own, other = truth.labels
        assert tuple(own) == truth.scene.labels
        assert other not in own
        rest = [float(score) for label, score in enumerate(truth.scores) if label not in own]
        assert float(truth.scores[other]) == max(rest)


@pytest.mark.parametrize(
    ("down", "right", "words"),
    [
        (0.1, 0.1, "at the upper left"),
        (0.1, 0.5, "at the top"),
        (0.5, 0.9, "at the right"),
        (0.5, 0.5, "in the middle"),
        (0.9, 0.5, "at the bottom"),
        (0.99, 0.99, "at the lower right"),
    ],
)
def test_the_description_says_where_each_instance_is(down: float, right: float, words: str) -> None:
    mask = np.zeros((2, SIZE, SIZE), np.bool_)
    mask[0, int(down * SIZE), int(right * SIZE)] = True
    mask[1, 0, 0] = True
    scene = Scene(np.zeros((SIZE, SIZE, 3), np.uint8), (3, 4), mask, np.array([3, 4]), mask[:0])
    assert export.description(scene) == f"kite {words}; snail at the upper left"


# --- what the prose of the page says ------------------------------------------------------------------------------------------


def test_each_statement_about_the_scenes_is_true_of_them(scenes: dict[str, SceneTruth]) -> None:
    published = {(name, row): truth.moved(row, "pre", "gradcam++") for name, truth in scenes.items() for row in truth.present}
    assert max(published, key=published.__getitem__)[0] == "planets"
    assert min(published, key=published.__getitem__)[0] == "mushroom"
    for truth in scenes.values():
        for row in range(len(truth.labels)):
            before, after = (truth.moved(row, scores, "gradcam++") for scores in SCORES)
            assert truth.moved(row, "pre", "gradcam") > 2 * before
            assert after < before / 2
            assert after < 0.05
            assert truth.moved(row, "pre", "gradcam++", 0.0) < CLOSE
    spread = {
        name: [truth.on_objects(row, "gradcam++", INFINITY) / truth.on_objects(row, "gradcam+") for row in truth.present]
        for name, truth in scenes.items()
    }
    assert spread["planets"][0] < spread["butterflies"][0] < 2 / 3
    assert [name for name, ratios in spread.items() if max(ratios) > 1] == ["mushroom"]
    for name in ("butterflies", "planets"):
        assert 0.85 < scenes[name].on_objects(0, "gradcam++") / scenes[name].on_objects(0, "gradcam+") < 1


def test_each_statement_about_kite_and_planet_is_true(scenes: dict[str, SceneTruth]) -> None:
    truth = scenes["kite-planet"]
    assert [CLASSES[label] for label in truth.labels[:2]] == ["kite", "planet"]
    assert 0.45 < truth.on_objects(0, "gradcam") < 0.5
    assert truth.on_objects(0, "gradcam", on=1) < 0.0005
    assert truth.on_objects(1, "gradcam", on=0) < 1 / 50
    for method in METHODS[1:]:
        assert truth.on_objects(0, method, on=1) > 1 / 10
        assert truth.on_objects(0, method) < 1 / 3
        assert truth.on_objects(1, method, on=0) > 1 / 8
    assert all(0.2 < truth.on_objects(1, method) < 0.26 for method in METHODS)


def test_each_statement_about_the_smallest_alpha_is_true(scenes: dict[str, SceneTruth]) -> None:
    truth = scenes["planets"]
    gradients = truth.gradients(0, "pre")
    alphas = cam.alphas(truth.activations, gradients)
    smallest = torch.where(gradients > 0, alphas, 1)[0]
    assert float(smallest.min()) == float(smallest[0, 5, 3]) == pytest.approx(0.1, abs=0.005)
    assert int((alphas * gradients.relu())[0, 0].argmax()) == 5 * 16 + 3


def test_each_statement_about_the_photographs_is_true(shots: dict[str, Truth]) -> None:
    assert [round(shots[name].difference(0, "pre"), 2) for name in ("cat-head", "cat-inner")] == [0.02, 0.13]
    for name, truth in shots.items():
        empty = [float(truth.heat(row, "pre", "gradcam").max()) == 0 for row in range(2)]
        assert empty == [name.endswith("inner")] * 2
    collage = shots["cat-coffee-head"]
    assert 0.85 < collage.right("gradcam") < 0.9
    assert all(0.6 < collage.right(method) < 2 / 3 for method in METHODS[1:])


# --- the browser --------------------------------------------------------------------------------------------------------------


PAGE = "book/explorer.html"
Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, host: str) -> Iterator[Open]:
    """Opens the page; at the end, no error may have been logged and no other host asked."""
    with contextlib.ExitStack() as stack:
        visits = []

        def opened(fragment: str = "", **options: Any) -> Page:
            settings = {"viewport": {"width": 1200, "height": 900}, **options}
            visits.append(stack.enter_context(visiting(browser, host, PAGE + fragment, **settings)))
            if options.get("java_script_enabled", True):
                visits[-1].page.wait_for_selector('[data-part="main"]:not([hidden])')
            return visits[-1].page

        yield opened
    assert [visit.trouble for visit in visits if visit.trouble] == []


COMPUTE = """async ([name, choices]) => {
  const scene = await gradcamppExplorer.scene(name);
  return JSON.stringify(choices.map(([label, scores, method, lam]) => {
    const choice = {label, scores, method, lam: lam ?? Infinity};
    const {weights, heat} = gradcamppExplorer.compute(scene, choice);
    return {
      weights: [...weights], heat: [...heat], large: label ? null : [...gradcamppExplorer.upsample(scene, heat)],
      alphas: [...gradcamppExplorer.alphas(scene, choice)], lost: gradcamppExplorer.shrinkage(scene, choice),
      difference: gradcamppExplorer.difference(scene, choice),
    };
  }));
}"""


def computed(page: Page, name: str, choices: Sequence[tuple[int, Scores, Method, float]]) -> list[Any]:
    """What the page's own functions give for choices of class, scores, method and lam."""
    sent = [[row, scores, method, None if lam == INFINITY else lam] for row, scores, method, lam in choices]
    found: list[Any] = json.loads(page.evaluate(COMPUTE, [name, sent]))
    return found


def test_the_browser_computes_what_the_library_computes(open_page: Open, truths: dict[str, Truth]) -> None:
    page = open_page()
    for name, truth in truths.items():
        family: list[tuple[Method, float]] = [("gradcam++", lam) for lam in (*FAMILY, INFINITY)]
        choices = [
            (row, scores, method, lam)
            for row in range(len(truth.labels))
            for scores in SCORES
            for method, lam in [*((method, 1.0) for method in METHODS[:2]), *family]
        ]
        for choice, found in zip(choices, computed(page, name, choices), strict=True):
            row, scores, method, lam = choice
            weights, heat = truth.weights(*choice)[0], truth.heat(*choice)
            assert (torch.tensor(found["weights"], dtype=torch.float64) - weights).abs().max() <= CLOSE * weights.abs().max(), (
                name,
                choice,
            )
            assert np.abs(np.array(found["heat"]) - heat.flatten().numpy()).max() <= CLOSE, (name, choice)
            if found["large"]:
                large = truth.large(*choice).flatten().numpy()
                assert np.abs(np.array(found["large"]) - large).max() <= CLOSE, (name, choice)
            if method == "gradcam++" and lam < INFINITY:
                gradients = truth.gradients(row, scores)
                alphas = cam.alphas(truth.activations, gradients, lam)[gradients > 0].sort().values.numpy()
                assert np.abs(np.array(found["alphas"]) - alphas).max() <= CLOSE
                assert found["alphas"][0] > 0
                assert found["alphas"][-1] <= 0.5


def test_the_ends_of_the_family_are_grad_cam_plus_and_its_limit(open_page: Open, truths: dict[str, Truth]) -> None:
    page = open_page()
    for name, truth in truths.items():
        choices: list[tuple[int, Scores, Method, float]] = [
            (0, "pre", "gradcam+", 1),
            *((0, "pre", "gradcam++", lam) for lam in (0, 1e13, INFINITY)),
        ]
        plus, start, far, end = computed(page, name, choices)
        units = truth.activations[0, 0].numel()
        assert np.abs(np.array(start["weights"]) - units / 2 * np.array(plus["weights"])).max() <= CLOSE * max(start["weights"])
        assert np.abs(np.array(start["heat"]) - np.array(plus["heat"])).max() <= CLOSE
        # Units with the smallest gradients get there last: 2 / (lam * s * g) is then still some 1e-5.
        assert np.abs(np.array(far["heat"]) - np.array(end["heat"])).max() <= 1e-3
        silent = cam.activation_sums(truth.activations) == 0  # a channel without activation has no term that grows
        assert set(end["alphas"]) == ({0, 0.5} if ((truth.gradients(0, "pre") > 0) & silent).any() else {0})


def test_the_exact_difference_and_what_channels_lose_are_the_librarys(open_page: Open, truths: dict[str, Truth]) -> None:
    page = open_page()
    for name, truth in truths.items():
        choices = [(row, kind, lam) for row in range(len(truth.labels)) for kind in SCORES for lam in (*FAMILY, INFINITY)]
        answers = computed(page, name, [(row, kind, "gradcam++", lam) for row, kind, lam in choices])
        for (row, kind, lam), found in zip(choices, answers, strict=True):
            gradients = truth.gradients(row, kind)
            if lam == INFINITY:
                most = (truth.heat(row, kind, "gradcam++", lam) - truth.heat(row, kind, "gradcam+")).abs().max()
                assert abs(found["difference"] - float(most)) <= CLOSE
                continue
            assert abs(found["difference"] - float(shrinkage.difference(truth.activations, gradients, lam))) <= CLOSE
            assert truth.moved(row, kind, "gradcam++", lam) <= found["difference"] + CLOSE  # enlarging adds nothing
            counts = (gradients > 0).flatten(2).any(2) & (cam.activation_sums(truth.activations)[:, :, 0, 0] > 0)
            lost = shrinkage.shrinkage(truth.activations, gradients, lam)[counts]
            assert abs(found["lost"]["least"] - float(lost.min())) <= CLOSE
            assert abs(found["lost"]["most"] - float(lost.max())) <= CLOSE


UNITS = """async ([name, choices, units]) => {
  const scene = await gradcamppExplorer.scene(name);
  return choices.map(([label, scores, method, lam]) => {
    const choice = {label, scores, method, lam: lam ?? Infinity};
    return units.map(([channel, place]) => gradcamppExplorer.unit(scene, choice, channel, place));
  });
}"""


def test_a_unit_has_the_librarys_alpha_part_and_contribution(open_page: Open, truths: dict[str, Truth]) -> None:
    page, seen = open_page(), set[str]()
    for name, truth in truths.items():
        maps = truth.activations[0].flatten(1)
        chosen = [(row, kind) for row in range(len(truth.labels)) for kind in SCORES]
        for row, kind in chosen:
            gradients = truth.gradients(row, kind)[0].flatten(1)
            alphas = cam.alphas(truth.activations, gradients.reshape(truth.activations.shape))[0].flatten(1)
            picks = [
                torch.where(gradients > 0, alphas, 1).argmin(),
                gradients.argmin(),
                maps.argmax(),
                (gradients == 0).int().argmax(),
            ]
            units = [list(divmod(int(each), maps.shape[1])) for each in picks]
            choices = [("gradcam", 1.0), ("gradcam+", 1.0), *(("gradcam++", lam) for lam in (0.0, 1.0, 30.0, INFINITY))]
            sent = [[row, kind, method, None if lam == INFINITY else lam] for method, lam in choices]
            for (method, lam), found in zip(choices, page.evaluate(UNITS, [name, sent, units]), strict=True):
                weights = truth.weights(row, kind, method, lam)[0]  # type: ignore[arg-type]
                for (k, at), unit in zip(units, found, strict=True):
                    a, g, s = float(maps[k, at]), float(gradients[k, at]), float(maps[k].sum())
                    assert (unit["a"], unit["g"]) == (a, g)
                    assert abs(unit["s"] - s) <= CLOSE * max(s, 1)
                    if method == "gradcam++" and lam < INFINITY:
                        alpha = float(
                            cam.alphas(truth.activations, gradients.reshape(truth.activations.shape), lam)[0].flatten(1)[k, at]
                        )
                        assert unit["alpha"] == pytest.approx(alpha, rel=1e-9)
                        part = alpha * max(g, 0)
                        seen.add("positive" if g > 0 else "negative" if g < 0 else "zero")
                    elif method == "gradcam++":
                        part = 1 / s if g > 0 and s > 0 else 0.0
                    else:
                        part = (g if method == "gradcam" else max(g, 0)) / maps.shape[1]
                    assert unit["part"] == pytest.approx(part, rel=1e-9)
                    assert unit["weight"] == pytest.approx(float(weights[k]), rel=1e-9, abs=1e-18)
                    assert unit["contribution"] == pytest.approx(float(weights[k]) * a, rel=1e-9, abs=1e-18)
                    total = float((weights * maps[:, at]).sum())
                    assert abs(unit["map"] - total) <= 1e-9 * float((weights * maps[:, at]).abs().sum())
    assert seen == {"positive", "negative", "zero"}


def test_the_numbers_of_a_unit_are_put_into_the_formulas(open_page: Open) -> None:
    page = open_page()

    def lines(method: str, lam: float | None, **numbers: float) -> list[str]:
        unit = {
            "a": 2,
            "g": 0.5,
            "s": 4,
            "alpha": 0.25,
            "part": 0.125,
            "weight": 0.25,
            "contribution": 0.5,
            "map": 1.5,
            "channel": 12,
        }
        said = page.evaluate(
            "([unit, method, lam]) => gradcamppUnit.formulas(unit, {method, lam: lam ?? Infinity}, 49)",
            [unit | numbers, method, lam],
        )
        return [f"{name}: {line}" for name, line in said]

    whole = "All units: w₁₂ = 0.25, of which this unit is 50 %"
    here = "Eq. 2: the channel adds w₁₂ A = 0.25 · 2 = 0.5 here; all channels: 1.5"
    assert lines("gradcam++", 1) == [
        "Eq. 9: α = g² / (2 g² + s g³) = 0.5² / (2 · 0.5² + 4 · 0.5³) = 0.25",
        "Eq. 4: this unit adds α ReLU(g) = 0.25 · 0.5 = 0.125 to w₁₂",
        whole,
        here,
    ]
    thrice = lines("gradcam++", 3, alpha=0.125, part=1.234e-7)
    assert thrice[0] == "Eq. 12: α = g² / (2 g² + λ s g³) = 0.5² / (2 · 0.5² + 3 · 4 · 0.5³) = 0.125"
    assert "= 1.234 × 10⁻⁷ to w₁₂" in thrice[1]
    assert lines("gradcam++", 1, g=0, alpha=0, part=0)[:2] == [
        "Eq. 9: is 0/0 where the gradient is 0; α is set to 0",
        "Eq. 4: ReLU(g) = 0, so this unit adds 0 to w₁₂",
    ]
    negative = lines("gradcam++", 1, g=-0.5, alpha=float("inf"), part=0, map=-1)
    assert negative[0].endswith("(−0.5)² / (2 · (−0.5)² + 4 · (−0.5)³) = ∞")
    assert negative[-1].endswith("all channels: −1; the ReLU makes that 0")
    limit = lines("gradcam++", None, alpha=0.5, part=0.25)
    assert limit[:2] == [
        "Eq. 12: λα → 1 / (s g) = 1 / (4 · 0.5) = 0.5",
        "Eq. 4: this unit adds λα ReLU(g) → 1 / s = 0.25 to λw₁₂",
    ]
    assert lines("gradcam+", 1, part=0.5 / 49)[0] == "Eq. 3: this unit adds ReLU(g) / Z = 0.5 / 49 = 0.0102 to w₁₂"
    assert lines("gradcam", 1, g=-0.5, part=-0.5 / 49)[:2] == [
        "Eq. 1: this unit adds g / Z = (−0.5) / 49 = −0.0102 to w₁₂",
        "All units: w₁₂ = 0.25",
    ]


def test_a_channel_without_activation_counts_for_nothing(open_page: Open) -> None:
    activations = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [2.0, 1.0]]])
    gradients = torch.tensor([[[3.0, 1.0], [0.0, -1.0]], [[0.5, 0.0], [0.25, -1.0]]])
    data = {
        "shape": [2, 2, 2],
        "size": 4,
        "activations": export.encoded(activations),
        "classes": [{"gradients": {"pre": export.encoded(gradients)}}],
    }
    found = open_page().evaluate(
        """(data) => {
          const scene = gradcamppExplorer.prepare(data);
          return [0, 1, Infinity].map((lam) => {
            const choice = {label: 0, scores: "pre", method: "gradcam++", lam};
            const {weights, heat} = gradcamppExplorer.compute(scene, choice);
            const {most} = gradcamppExplorer.shrinkage(scene, choice);
            return [[...weights], [...heat], most, [...gradcamppExplorer.alphas(scene, choice)]];
          });
        }""",
        data,
    )
    heat = [0.5, 0.0, 1.0, 0.5]  # the second channel alone
    assert [each[1] for each in found] == [heat, heat, heat]
    assert found[0][0] == [2, 0.375]
    assert found[1][0] == pytest.approx([2, 0.5 / 4 + 0.25 / 3], abs=CLOSE)
    assert found[2][0] == [0, 2 / 4]
    assert [each[2] for each in found] == pytest.approx([0, 1 - found[1][0][1] / 0.375, 1], abs=CLOSE)
    assert found[2][3] == [0, 0, 0.5, 0.5]
