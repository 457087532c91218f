"""The explorer: its data are the library's, its numbers in a browser are the library's, and it answers mouse and keyboard."""

from __future__ import annotations

import base64
import functools
import html
import http.server
import io
import json
import re
import shutil
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from book.explorer import export
from gradcampp import cam
from gradcampp.cam import METHODS, SCORES, Method, Scores, min_max, upsample
from gradcampp.networks.capture import Capture, forward
from gradcampp.networks.load import load
from gradcampp.networks.scores import probabilities
from gradcampp.scenes import CLASSES, SIZE, Scene
from tests.conftest import ROOT

BOOK = ROOT / "book"
LIMIT = 400 * 1024  # bytes a scene
CLOSE = 1e-12  # float64, at most some thousand terms between 0 and 1: sums in another order differ by less
FAMILY = (0.0, 0.01, 1.0, 30.0, 1e6)
INFINITY = float("inf")


# --- the library's answer ---------------------------------------------------------------------------------------------------


class Truth:
    """A scene of the explorer and what the library computes for it, in float64."""

    def __init__(self, exhibit: export.Exhibit) -> None:
        self.exhibit = exhibit
        self.scene: Scene = export.draw(exhibit)
        network = load("mini")
        pixels = torch.from_numpy(self.scene.pixels).permute(2, 0, 1)[None].float() / 255
        preprocessing = network.preprocessing
        logits = forward(network.module, normalize(pixels, list(preprocessing.mean), list(preprocessing.std)))
        self.scores = probabilities(logits)[0]
        self.labels = export.classes(self.scene, self.scores)
        self.captured: Capture = network.capture(pixels.expand(len(self.labels), -1, -1, -1), torch.tensor(self.labels))
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
        return upsample(self.heat(row, scores, method, lam), (SIZE, SIZE))[0]

    def moved(self, row: int, scores: Scores, method: Method, lam: float = 1.0) -> float:
        """The largest pixel difference from Grad-CAM+."""
        return float((self.large(row, scores, method, lam) - self.large(row, scores, "gradcam+")).abs().max())

    def on_objects(self, row: int, method: Method, lam: float = 1.0) -> float:
        """The share of the heat, before softmax, on the instances of the class."""
        heat = self.large(row, "pre", method, lam)
        mask = torch.from_numpy(self.scene.masks[self.scene.instance_labels == self.labels[row]].any(0))
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
def truths() -> dict[str, Truth]:
    return {exhibit.name: Truth(exhibit) for exhibit in export.EXHIBITS}


# --- the data ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the book builds it: the page's own block, its script and style, and the data."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(BOOK / "explorer", root / "explorer")
    export.write(root / "explorer")
    page = "<!doctype html><html lang='en' data-content_root='../'><head><meta charset='utf-8'><title>explorer</title>"
    page += "<meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'></head><body>"
    (root / "book").mkdir()
    (root / "book" / "explorer.html").write_text(f"{page}{block()}</body></html>", "utf-8")
    return root


def block() -> str:
    found = re.findall(r"```\{raw\} html\n(.*?)```", (BOOK / "explorer.md").read_text("utf-8"), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def argument(path: Path, function: str) -> Any:
    """What a file of data hands to the page."""
    text = path.read_text("utf-8")
    start, end = f"gradcamppExplorer.{function}(", ");\n"
    assert text.startswith(start)
    assert text.endswith(end)
    return json.loads(text[len(start) : -len(end)])


def decode(array: dict[str, str], length: int) -> list[float]:
    """The slow twin of the page's decoder."""
    mask, values = base64.b64decode(array["mask"]), base64.b64decode(array["values"])
    numbers = iter(struct.unpack(f"<{len(values) // 4}f", values))
    decoded = [next(numbers) if mask[i // 8] >> (7 - i % 8) & 1 else 0.0 for i in range(length)]
    assert next(numbers, None) is None
    return decoded


@given(st.lists(st.one_of(st.just(0.0), st.floats(width=32, allow_nan=False)), min_size=1, max_size=40))
def test_an_array_survives_its_encoding(values: list[float]) -> None:
    array = torch.tensor(values, dtype=torch.float32)
    assert decode(export.encoded(array), len(values)) == array.tolist()


def test_the_same_bytes_every_time(site: Path, tmp_path: Path) -> None:
    again = export.write(tmp_path / "new" / "explorer")
    assert [path.name for path in again] == ["scenes.js", *(f"{exhibit.name}.js" for exhibit in export.EXHIBITS)]
    for path in again:
        assert path.read_bytes() == (site / "explorer" / path.name).read_bytes(), path.name


def test_the_data_are_the_networks_own_to_the_bit_and_small(site: Path, truths: dict[str, Truth]) -> None:
    listed = argument(site / "explorer" / "scenes.js", "listScenes")
    assert [scene["name"] for scene in listed] == list(truths)
    for name, truth in truths.items():
        path = site / "explorer" / f"{name}.js"
        assert path.stat().st_size <= LIMIT
        data = argument(path, "addScene")
        maps = truth.captured.activations[0]
        assert data["shape"] == list(maps.shape)
        assert decode(data["activations"], maps.numel()) == maps.flatten().tolist()
        for row, found in enumerate(data["classes"]):
            assert found["name"] == CLASSES[truth.labels[row]]
            assert found["present"] == (truth.labels[row] in truth.scene.labels)
            assert abs(found["probability"] - float(truth.scores[truth.labels[row]])) <= 5e-7
            for scores in SCORES:
                gradients = truth.captured.gradients[scores][row].flatten().tolist()
                assert decode(found["gradients"][scores], maps.numel()) == gradients
        assert np.array_equal(picture(data["picture"]), truth.scene.pixels)


def picture(png: str) -> NDArray[np.uint8]:
    """The colours of a PNG in base64, (h, w, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def test_a_scene_is_explained_for_its_classes_and_the_likeliest_other(truths: dict[str, Truth]) -> None:
    for truth in truths.values():
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


def test_each_statement_of_the_page_is_true_of_its_scenes(truths: dict[str, Truth]) -> None:
    published = {(name, row): truth.moved(row, "pre", "gradcam++") for name, truth in truths.items() for row in truth.present}
    assert max(published, key=published.__getitem__)[0] == "planets"
    assert min(published, key=published.__getitem__)[0] == "mushroom"
    for truth in truths.values():
        for row in range(len(truth.labels)):
            before, after = (truth.moved(row, scores, "gradcam++") for scores in SCORES)
            assert truth.moved(row, "pre", "gradcam") > 2 * before
            assert after < before / 2
            assert after < 0.05
            assert truth.moved(row, "pre", "gradcam++", 0.0) < CLOSE
    spread = {
        name: [truth.on_objects(row, "gradcam++", INFINITY) / truth.on_objects(row, "gradcam+") for row in truth.present]
        for name, truth in truths.items()
    }
    assert spread["planets"][0] < spread["butterflies"][0] < 2 / 3
    assert [name for name, ratios in spread.items() if max(ratios) > 1] == ["mushroom"]
    for name in ("butterflies", "planets"):
        assert 0.85 < truths[name].on_objects(0, "gradcam++") / truths[name].on_objects(0, "gradcam+") < 1


# --- the browser --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/book/explorer.html"
    server.shutdown()
    server.server_close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the page; at the end, no error may have been logged and no other host asked."""
    contexts, trouble = [], list[str]()

    def opened(fragment: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))

        def guard(route: Any) -> None:
            if route.request.url.startswith((address.partition("/book")[0], "data:")):
                route.continue_()
            else:
                trouble.append(f"asked for {route.request.url}")
                route.abort()

        page.route("**/*", guard)
        page.goto(address + fragment)
        if options.get("java_script_enabled", True):
            page.wait_for_selector('[data-part="main"]:not([hidden])')
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


COMPUTE = """async ([name, choices]) => {
  const scene = await gradcamppExplorer.scene(name);
  return JSON.stringify(choices.map(([label, scores, method, lam]) => {
    const choice = {label, scores, method, lam: lam ?? Infinity};
    const {weights, heat} = gradcamppExplorer.compute(scene, choice);
    return {
      weights: [...weights], heat: [...heat], large: label ? null : [...gradcamppExplorer.upsample(scene, heat)],
      alphas: [...gradcamppExplorer.alphas(scene, choice)], sandwich: gradcamppExplorer.sandwich(scene, choice),
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
        assert set(end["alphas"]) == {0}


def test_the_sandwich_holds_and_is_as_cautious_as_the_page_says(open_page: Open, truths: dict[str, Truth]) -> None:
    page = open_page()
    for name, truth in truths.items():
        for scores in SCORES:
            choices = [(row, lam) for row in range(len(truth.labels)) for lam in (*FAMILY, INFINITY)]
            answers = computed(page, name, [(row, scores, "gradcam++", lam) for row, lam in choices])
            for (row, lam), found in zip(choices, answers, strict=True):
                difference = float((truth.heat(row, scores, "gradcam++", lam) - truth.heat(row, scores, "gradcam+")).abs().max())
                bound = found["sandwich"]["bound"]
                assert difference <= bound + CLOSE
                if lam == 1:
                    assert bound > 2 * truth.moved(row, scores, "gradcam++")
                if lam < INFINITY:
                    kept = truth.weights(row, scores, "gradcam++", lam) / truth.weights(row, scores, "gradcam++", 0.0)
                    lost = 1 - kept[0][~kept[0].isnan() & (cam.activation_sums(truth.activations)[0, :, 0, 0] > 0)]
                    assert abs(found["sandwich"]["least"] - float(lost.min())) <= CLOSE
                    assert abs(found["sandwich"]["most"] - float(lost.max())) <= CLOSE


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
            const {bound} = gradcamppExplorer.sandwich(scene, choice);
            return [[...weights], [...heat], bound, [...gradcamppExplorer.alphas(scene, choice)]];
          });
        }""",
        data,
    )
    heat = [0.5, 0.0, 1.0, 0.5]  # the second channel alone
    assert [each[1] for each in found] == [heat, heat, heat]
    assert found[0][0] == [2, 0.375]
    assert found[1][0] == pytest.approx([2, 0.5 / 4 + 0.25 / 3], abs=CLOSE)
    assert found[2][0] == [0, 2 / 4]
    assert [each[2] for each in found] == pytest.approx([0, 0, 0], abs=CLOSE)
    assert found[2][3] == [0, 0, 0.5, 0.5]


def shown(page: Page) -> dict[str, Any]:
    state: dict[str, Any] = page.evaluate(
        """() => {
          const part = (name) => document.querySelector(`[data-part="${name}"]`);
          const {heat, weights, ...state} = gradcamppExplorer.shown();
          state.lam = String(state.lam);
          const png = (name) => part(name).toDataURL().split(",")[1];
          return {
            ...state, heat: [...heat], map: png("map"), difference: png("difference"), bars: part("weights").textContent,
            histogram: [...part("alphas").querySelectorAll("rect")].map((bar) => Number(bar.getAttribute("height"))),
            fromPlus: part("from-plus").textContent, fromPublished: part("from-published").textContent,
            words: part("alphas-words").textContent, value: part("lam-value").textContent, said: part("summary").textContent,
          };
        }"""
    )
    return state


def settled(page: Page) -> dict[str, Any]:
    """What is shown once the words have caught up with the picture."""
    page.wait_for_timeout(350)
    return shown(page)


def test_what_is_shown_at_0_and_at_1_is_the_librarys(open_page: Open, truths: dict[str, Truth]) -> None:
    page = open_page("#scene=planets")
    page.locator('[data-part="opacity"]').fill("100")  # the map alone: its colours are then numbers
    inferno = matplotlib.colormaps["inferno"](np.linspace(0, 1, 17))[:, :3] * 255
    truth = truths["planets"]
    for button, method in (("0: Grad-CAM+", "gradcam+"), ("1: Grad-CAM++", "gradcam++")):
        page.get_by_role("button", name=button, exact=True).click()
        found = settled(page)
        wanted: Method = "gradcam+" if method == "gradcam+" else "gradcam++"
        heat = truth.heat(0, "pre", wanted)
        assert np.abs(np.array(found["heat"]) - heat.flatten().numpy()).max() <= CLOSE
        large = truth.large(0, "pre", wanted).flatten().numpy()
        colours = np.stack([np.interp(large, np.linspace(0, 1, 17), inferno[:, channel]) for channel in range(3)], 1)
        painted = picture(found["map"]).reshape(-1, 3).astype(float)
        assert np.abs(painted - colours).max() <= 1.01  # rounding of the anchors, and of the canvas
        moved = truth.moved(0, "pre", "gradcam++")
        assert found["fromPlus"] == ("0.000" if wanted == "gradcam+" else f"{moved:.3f}")
        assert found["fromPublished"] == (f"{moved:.3f}" if wanted == "gradcam+" else "0.000")
        assert found["histogram"][-1] == max(found["histogram"]) > 0
        assert (sum(found["histogram"][:-1]) == 0) == (wanted == "gradcam+")


def test_it_answers_the_keyboard(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("slider", name=re.compile("Drag")).focus()
    seen = [settled(page)]
    for key in ("ArrowRight", "End", "Home", "PageUp"):
        page.keyboard.press(key)
        seen.append(settled(page))
        for part in ("map", "bars", "histogram", "said", "value"):
            assert seen[-1][part] != seen[-2][part], (key, part)
    assert [state["lam"] for state in (seen[0], seen[2], seen[3])] == ["1", "Infinity", "0"]
    assert seen[3]["fromPlus"] == "0.000"
    assert page.get_by_role("slider", name=re.compile("Drag")).get_attribute("aria-valuetext") == "0.056"
    page.keyboard.press("End")
    assert page.get_by_role("slider", name=re.compile("Drag")).get_attribute("aria-valuetext") == "infinity"


def test_it_answers_the_mouse(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("radio", name="Grad-CAM", exact=True).check()
    before = settled(page)
    assert before["method"] == "gradcam"
    assert "negative ones too" in before["words"]
    box = page.locator("#gx-lam").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    during = shown(page)  # at once, before the button is released
    page.mouse.move(box["x"] + box["width"] + 50, middle, steps=5)
    page.mouse.up()
    after = settled(page)
    assert (before["method"], during["method"], after["lam"]) == ("gradcam", "gradcam++", "Infinity")
    assert 100 < float(during["lam"]) < 10000
    for part in ("map", "difference", "bars", "histogram", "value", "fromPlus"):
        assert before[part] != during[part] != after[part], part
    assert before["said"] != after["said"]


def test_scene_class_scores_and_method_change_what_is_shown(open_page: Open) -> None:
    page = open_page()
    seen = [settled(page)]
    for name in ("Kite and planet", re.compile("^planet"), "after softmax", "Grad-CAM+"):
        page.get_by_role("radio", name=name, exact=isinstance(name, str)).check()
        page.wait_for_timeout(200)
        seen.append(settled(page))
        assert seen[-1]["map"] != seen[-2]["map"], name
        assert seen[-1]["said"] != seen[-2]["said"], name
    last = seen[-1]
    assert (last["scene"], last["className"], last["scores"], last["method"]) == ("kite-planet", "planet", "post", "gradcam+")
    assert last["said"].startswith("Grad-CAM+, gradients after softmax, for “planet” (57 %).")
    assert "kite at the upper left; planet at the right" in last["said"]
    page.reload()  # the address holds the choice
    page.wait_for_selector('[data-part="main"]:not([hidden])')
    assert settled(page) == last


def test_each_link_of_the_prose_sets_the_explorer(open_page: Open) -> None:
    links = [html.unescape(link) for link in re.findall(r'href="#([^"]+)"', (BOOK / "explorer.md").read_text("utf-8"))]
    assert len(links) >= 4
    page = open_page()
    for link in links:
        wanted = {name: values[0] for name, values in parse_qs(link, strict_parsing=True).items()}
        page.evaluate("(hash) => { location.hash = hash; }", link)
        page.wait_for_function("(name) => gradcamppExplorer.shown().scene === name", arg=wanted["scene"])
        found = settled(page)
        names = ("scene", "className", "scores", "method", "lam")
        lam = wanted["lam"].replace("inf", "Infinity")
        assert tuple(found[name] for name in names) == (wanted["scene"], wanted["class"], wanted["scores"], wanted["method"], lam)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scroll(open_page: Open, scheme: str) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    page.get_by_role("radio", name="Snail and leaf").check()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.evaluate("[...document.querySelectorAll('canvas, svg')].map((part) => part.getBoundingClientRect().width)")
    assert min(sizes) > 100


def test_every_control_has_a_name_and_every_group_a_legend(open_page: Open) -> None:
    page = open_page()
    for name in ("Picture", "Explain the class", "Method", "Gradients of the score"):
        group = page.get_by_role("group", name=name, exact=True)
        assert group.get_by_role("radio").count() >= 2
    for control in page.locator("#gradcampp-explorer input, #gradcampp-explorer button").all():
        name = control.evaluate("(part) => part.ariaLabel || part.labels?.[0]?.textContent || part.textContent")
        assert name.strip()
    for picture in page.locator("#gradcampp-explorer [role=img]").all():
        assert len(picture.get_attribute("aria-label") or "") > 20
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "gx-scenes"
    outline = page.evaluate("getComputedStyle(document.activeElement.closest('label')).outlineStyle")
    assert outline == "solid"


def test_without_javascript_a_sentence_says_so(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert "needs JavaScript" in page.locator("noscript").inner_text()
    assert not page.locator('[data-part="main"]').is_visible()


def test_it_works_from_disk(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "book" / "explorer.html").as_uri())
    page.wait_for_selector('[data-part="main"]:not([hidden])')
    page.get_by_role("radio", name="Four planets").check()
    page.wait_for_function("gradcamppExplorer.shown().scene === 'planets'")
    assert settled(page)["said"]
    assert errors == []
    page.close()


@pytest.mark.parametrize("missing", ["scenes.js", "planets.js"])
def test_missing_data_are_said_in_words_and_tried_again(browser: Browser, address: str, missing: str) -> None:
    page = browser.new_page()
    page.route(f"**/explorer/{missing}", lambda route: route.abort())
    page.goto(address)
    if missing == "planets.js":
        page.get_by_role("radio", name="Four planets").check()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert f"explorer/{missing} could not be loaded" in alert.inner_text()
    if missing == "planets.js":
        page.unroute(f"**/explorer/{missing}")
        page.get_by_role("radio", name="One mushroom").check()
        alert.wait_for(state="hidden")
        page.get_by_role("radio", name="Four planets").check()
        page.wait_for_function("gradcamppExplorer.shown().scene === 'planets'")
        assert not alert.is_visible()
    page.close()
