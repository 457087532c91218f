"""Your own photograph: what the page computes is what the library computes, and nothing leaves the machine."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, FileChooser, Page
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from book.photograph import export
from gradcampp import cam
from gradcampp.cam import METHODS, SCORES
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.networks.capture import Network
from gradcampp.networks.lite0 import INNER_LAYER, LAYER, NAME
from gradcampp.networks.load import load
from gradcampp.networks.scores import probabilities
from tests.browsing import Visit, visiting, write_page
from tests.conftest import ROOT, photograph

BOOK = ROOT / "book"
LAYERS = {"head": LAYER, "inner": INNER_LAYER}
CLOSE = {  # float32 in another order of summation; a map that nearly cancels magnifies it
    "head": 1e-4,
    "inner": 1e-3,  # and a unit of the head within rounding of 0 or 6 passes its gradient in one and not in the other
}
LAYER_TEXTS = ("the last ones", "behind the depthwise convolution")
PACKAGED = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "camera.png"),
}
MOST_BYTES = 40e6  # for a reader with an empty cache

pytestmark = pytest.mark.skipif(
    not all((export.RUNTIME / name).exists() for name in export.RUNTIME_FILES),
    reason="no book/web/node_modules: npm ci makes them",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the book builds it: the page's own block, its scripts and styles, and the network."""
    root = tmp_path_factory.mktemp("site")
    for name in ("explorer", "photograph"):
        shutil.copytree(BOOK / name, root / name)
    photograph(5, (320, 240)).save(root / "a-sample.png")
    export.write(root / "photograph", [export.Sample(root / "a-sample.png", "A sample", "“A sample” by a test, CC0")])
    write_page(BOOK / "photograph.md", root)
    return root


@pytest.fixture
def visit(browser: Browser, host: str) -> Iterator[Visit]:
    """The page, before a photograph is chosen; at the end nothing may have gone wrong."""
    with opening(browser, host) as opened:
        yield opened


@contextmanager
def opening(browser: Browser, host: str, fragment: str = "", **options: Any) -> Iterator[Visit]:
    with visiting(browser, host, f"book/photograph.html{fragment}", **options) as opened:
        opened.page.wait_for_selector('[data-part="drop"]:not([hidden])')
        yield opened
        assert opened.trouble == []


def choose(page: Page, file: Path) -> None:
    """Choose a photograph, and wait until every map has its score."""
    page.set_input_files('[data-part="file"]', file)
    finished(page)


def finished(page: Page) -> None:
    page.wait_for_selector('[data-part="results"][aria-busy="false"]')


def shown(page: Page) -> dict[str, Any]:
    """The state of the page; maps as lists by class, score and method."""
    found = page.evaluate(
        """() => {
          const {rows, bytes, through, scores, ...state} = gradcamppPhotograph.shown();
          const list = (line) => Object.fromEntries(Object.entries(line.maps).map(([method, {heat}]) => [method, [...heat]]));
          return JSON.stringify({
            ...state, lam: String(state.lam), scores: [...scores], bytes: [...bytes], through: Object.fromEntries(through),
            rows: rows.map((line) => ({...line, lam: String(line.lam), maps: list(line)})),
          });
        }"""
    )
    return dict(json.loads(found))


@pytest.fixture(scope="module")
def network() -> Network:
    return load(NAME)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures made on the spot, upright, lying, turned by EXIF, JPEG and PNG; and photographs that come with packages."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = {"lying.png": (640, 427), "upright.jpg": (301, 402), "turned.jpg": (500, 333), "small.png": (61, 97)}
    for seed, (name, size) in enumerate(sizes.items()):
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1  # orientation: a quarter turn
        photograph(seed, size).save(folder / name, exif=exif)
    found = [folder / name for name in sizes]
    for module, names in PACKAGED.items():
        spec = find_spec(module.partition(".")[0])
        if spec and spec.origin:
            inside = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
            found += [inside / name for name in names if (inside / name).exists()]
    return found


# --- pixels -----------------------------------------------------------------------------------------------------------------


def test_the_square_is_pillows_to_the_pixel(visit: Visit) -> None:
    sizes = [(256, 256), (224, 224), (640, 427), (427, 640), (300, 401), (257, 255), (97, 61), (31, 500), (1, 1), (2000, 1501)]
    for size in sizes:
        rng = np.random.default_rng(size[0])
        pixels: NDArray[np.uint8] = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        pixels[..., 3] = 255
        resized = functional.resize(Image.fromarray(pixels).convert("RGB"), [256], InterpolationMode.BICUBIC, antialias=True)
        wanted = np.asarray(functional.center_crop(resized, [export.CROP]))
        found = visit.page.evaluate(
            """([text, width, height]) => {
              const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
              return [...gradcamppPixels.square(bytes, width, height)];
            }""",
            [base64.b64encode(pixels.tobytes()).decode(), *size],
        )
        assert found == wanted.flatten().tolist(), size


# --- maps and scores ----------------------------------------------------------------------------------------------------------


def key(line: dict[str, Any], method: str) -> str:
    lam = line["lam"] if method == "gradcam++" else ""
    return ",".join([str(line["label"]), line["layer"], line["scores"], method, lam])


def compare(found: dict[str, Any], network: Network, pixels: Tensor) -> None:
    """What the page shows, against the library: the pixels to the bit, maps and scores as `CLOSE` says."""
    seen = torch.tensor(found["bytes"], dtype=torch.uint8).reshape(export.CROP, export.CROP, 3).permute(2, 0, 1)
    assert torch.equal(seen, pixels)
    inputs = pixels[None].float() / 255
    assert np.abs(np.array(found["scores"]) - probabilities(network.logits(inputs))[0].numpy()).max() < CLOSE["head"]
    assert len(found["rows"]) == len(SCORES) * len(found["chosen"])
    for line in found["rows"]:
        close = CLOSE[line["layer"]]
        captured = replace(network, layer=LAYERS[line["layer"]]).capture(inputs, torch.tensor([line["label"]]))
        activations, gradients = captured.activations.double(), captured.gradients[line["scores"]].double()
        large: dict[str, Tensor] = {}
        for method in METHODS:
            weights = cam.weights(method, activations, gradients, float(line["lam"]))
            heat = cam.min_max(cam.heatmap(weights, activations))
            assert np.abs(np.array(line["maps"][method]) - heat.flatten().numpy()).max() < close, (line["layer"], method)
            large[method] = cam.upsample(heat, (export.CROP, export.CROP))
            through = probabilities(network.logits(cam.explanation_map(large[method].float(), inputs)))[0, line["label"]]
            assert abs(found["through"][key(line, method)] - float(through)) < close, (line["layer"], method)
        for name, method in (("fromPlus", "gradcam++"), ("gradcamFromPlus", "gradcam")):
            assert abs(line[name] - float((large[method] - large["gradcam+"]).abs().max())) < close


def test_maps_and_scores_are_the_librarys_for_every_picture(visit: Visit, network: Network, pictures: list[Path]) -> None:
    for picture in pictures:
        choose(visit.page, picture)
        for text in LAYER_TEXTS:
            visit.page.get_by_role("radio", name=text).check()
            finished(visit.page)
            compare(shown(visit.page), network, read_photograph(picture, network.preprocessing, upright=True))
        assert visit.page.get_by_role("alert").count() == 0


def test_two_classes_at_another_lambda(visit: Visit, network: Network, pictures: list[Path]) -> None:
    page = visit.page
    choose(page, pictures[0])
    page.get_by_role("radio", name=LAYER_TEXTS[1]).check()
    page.get_by_role("checkbox").nth(1).check()
    page.get_by_role("slider", name=re.compile("Drag")).press("PageUp")
    finished(page)
    found = shown(page)
    assert (len(found["chosen"]), found["layer"]) == (2, "inner")
    assert float(found["lam"]) > 1
    compare(found, network, read_photograph(pictures[0], network.preprocessing))
    page.get_by_role("checkbox").nth(2).check()  # the first gives way
    finished(page)
    assert shown(page)["chosen"] == [found["chosen"][1], int(page.get_by_role("checkbox").nth(2).input_value())]
    page.get_by_role("button", name="0: Grad-CAM+", exact=True).click()
    finished(page)
    assert [line["fromPlus"] for line in shown(page)["rows"]] == pytest.approx([0] * 4, abs=1e-12)


# --- what the page promises -----------------------------------------------------------------------------------------------------


def test_nothing_leaves_the_machine_and_the_network_comes_once(visit: Visit, pictures: list[Path]) -> None:
    choose(visit.page, pictures[0])
    fetched = [request for request in visit.requests if not request.startswith(("blob:", "data:"))]
    assert 20e6 < visit.transferred < MOST_BYTES
    choose(visit.page, pictures[1])
    assert [request for request in visit.requests if not request.startswith(("blob:", "data:"))] == fetched
    assert len(fetched) == len(set(fetched))
    assert visit.methods == {"GET"}


BAD = {
    "note.jpg": (b"this is a text", "note.jpg is not a picture that this browser can read"),
    "empty.png": (b"", "empty.png is empty"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "photo.heic is a HEIC file, which this browser cannot read"),
    "scan.tif": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "scan.tif is a TIFF file, which this browser cannot read"),
}


def test_a_file_that_cannot_be_used_is_refused_in_one_line(visit: Visit, tmp_path: Path) -> None:
    said = {name: words for name, (_, words) in BAD.items()}
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    Image.new("1", (8000, 6250)).save(tmp_path / "large.png")
    said["large.png"] = "large.png has 50 megapixels (8000 × 6250); at most 40 are read"
    photograph(1).save(tmp_path / "good.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:25])
    said["half.png"] = "half.png is damaged: the browser cannot read it as PNG"
    alert = visit.page.get_by_role("alert")
    for name, words in said.items():
        visit.page.set_input_files('[data-part="file"]', tmp_path / name)
        visit.page.get_by_text(words).wait_for()
        assert "\n" not in alert.inner_text()
        assert not visit.page.locator('[data-part="main"]').is_visible()
    choose(visit.page, tmp_path / "good.png")  # the page goes on
    assert not alert.is_visible()
    visit.page.set_input_files('[data-part="file"]', tmp_path / "note.jpg")
    visit.page.get_by_text(said["note.jpg"]).wait_for()
    finished(visit.page)  # the one before stays, and can be saved
    assert len(shown(visit.page)["rows"]) == 2


def test_of_a_gif_the_first_frame_and_below_what_is_transparent_white(visit: Visit, network: Network, tmp_path: Path) -> None:
    first, second = (photograph(seed, (300, 240)).quantize(16) for seed in (3, 4))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second], duration=50, loop=0)
    choose(visit.page, tmp_path / "moving.gif")
    assert "Of a GIF the first frame is explained." in visit.page.get_by_role("status").inner_text()
    first.convert("RGB").save(tmp_path / "first.png")
    found = shown(visit.page)
    compare(found, network, read_photograph(tmp_path / "first.png", network.preprocessing))
    Image.new("RGBA", (300, 300), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    choose(visit.page, tmp_path / "clear.png")
    assert set(shown(visit.page)["bytes"]) == {255}


def test_a_dropped_file_is_opened(visit: Visit, pictures: list[Path]) -> None:
    text = base64.b64encode(pictures[0].read_bytes()).decode()
    visit.page.evaluate(
        """(text) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], "dropped.png"));
          const event = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
          document.querySelector('[data-part="drop"]').dispatchEvent(event);
        }""",
        text,
    )
    finished(visit.page)
    assert visit.page.get_by_role("status").inner_text().startswith("dropped.png: ")


def test_a_sample_is_opened_and_says_whose_it_is(visit: Visit, site: Path, network: Network) -> None:
    visit.page.get_by_role("button", name="A sample").click()
    finished(visit.page)
    compare(shown(visit.page), network, read_photograph(site / "a-sample.png", network.preprocessing))
    assert visit.page.get_by_text("“A sample” by a test, CC0").is_visible()


def test_by_keyboard_alone(visit: Visit, pictures: list[Path]) -> None:
    page = visit.page
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.part") == "file"
    for _ in range(20):  # Chromium drops a dialog that is asked for before it has heard that somebody listens
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files(pictures[0])
    finished(page)
    before = shown(page)
    page.get_by_role("checkbox").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    finished(page)
    assert len(shown(page)["chosen"]) == 2
    page.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowRight")
    finished(page)
    assert (before["layer"], shown(page)["layer"]) == ("head", "inner")
    slider = page.get_by_role("slider", name=re.compile("Drag"))
    slider.focus()
    page.keyboard.press("End")
    finished(page)
    assert shown(page)["lam"] == "Infinity"
    assert slider.get_attribute("aria-valuetext") == "infinity"


def test_everything_has_a_name_for_a_screen_reader(visit: Visit, pictures: list[Path]) -> None:
    page = visit.page
    choose(page, pictures[0])
    for control in page.locator(".gp input, .gp button").all():
        name = control.evaluate("(part) => part.ariaLabel || part.labels?.[0]?.textContent || part.textContent")
        assert name.strip()
    labels = [canvas.get_attribute("aria-label") or "" for canvas in page.locator(".gp canvas").all()]
    assert len(labels) == 9
    assert len(set(labels)) == 9
    assert sum("hottest" in label or "zero everywhere" in label for label in labels) == 6
    assert page.get_by_role("group", name=re.compile("gradients before the softmax")).count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scroll(browser: Browser, host: str, pictures: list[Path], scheme: str) -> None:
    with opening(browser, host, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True) as visit:
        choose(visit.page, pictures[0])
        visit.page.get_by_role("checkbox").nth(1).check()
        finished(visit.page)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        widths = visit.page.evaluate(
            "[...document.querySelectorAll('.gp canvas')].map((one) => one.getBoundingClientRect().width)"
        )
        assert min(widths) > 120


def test_the_link_restores_the_settings_and_not_the_photograph(browser: Browser, host: str, pictures: list[Path]) -> None:
    with opening(browser, host, "#layer=inner&lam=inf&classes=281-7", permissions=["clipboard-write", "clipboard-read"]) as visit:
        assert not visit.page.locator('[data-part="main"]').is_visible()
        choose(visit.page, pictures[0])
        found = shown(visit.page)
        assert (found["layer"], found["lam"], found["chosen"]) == ("inner", "Infinity", [281, 7])
        visit.page.get_by_role("button", name="1: Grad-CAM++", exact=True).click()
        finished(visit.page)
        visit.page.get_by_role("button", name="Copy link to these settings").click()
        visit.page.get_by_text("The link is copied").wait_for()
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        assert copied == f"{host}book/photograph.html#layer=inner&lam=1&classes=281-7"


def test_what_is_saved_is_a_picture_of_maps_and_words(visit: Visit, pictures: list[Path]) -> None:
    choose(visit.page, pictures[0])
    written = visit.page.evaluate_handle(
        """() => {
          const said = [], write = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (...rest) { said.push(rest[0]); write.apply(this, rest); };
          return said;
        }"""
    )
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Save as a picture").click()
    image = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert (image.format, image.width) == ("PNG", 976)
    said = "\n".join(written.json_value())
    found = shown(visit.page)
    for line in found["rows"]:
        for method in METHODS:
            assert f"score {found['through'][key(line, method)]:.4f}" in said
    for words in (f"at {LAYER}, λ = 1", "gradcampp 0", "arXiv:2205.10838", "gradients after the softmax"):
        assert words in said
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 1000


def test_without_javascript_or_from_a_file_a_sentence_says_so(browser: Browser, host: str, site: Path) -> None:
    with visiting(browser, host, "book/photograph.html", java_script_enabled=False) as visit:
        assert "needs JavaScript" in visit.page.locator("noscript").inner_text()
        assert not visit.page.locator('[data-part="drop"]').is_visible()
    with visiting(browser, site.as_uri() + "/", "book/photograph.html") as visit:
        alert = visit.page.get_by_role("alert")
        alert.wait_for()
        assert "python -m http.server" in alert.inner_text()
        assert not visit.page.locator('[data-part="drop"]').is_visible()


def test_a_network_that_is_missing_is_said_in_words(browser: Browser, host: str, pictures: list[Path]) -> None:
    with visiting(browser, host, "book/photograph.html") as visit:
        visit.page.context.route("**/lite0.onnx", lambda route: route.abort())
        visit.page.set_input_files('[data-part="file"]', pictures[0])
        alert = visit.page.get_by_role("alert")
        alert.wait_for()
        assert "network could not be loaded" in alert.inner_text()
        visit.page.context.unroute("**/lite0.onnx")
        choose(visit.page, pictures[0])  # tried again
        assert not alert.is_visible()
