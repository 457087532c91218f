"""The explorer's page: what it shows is the library's, it answers mouse and keyboard, and its lessons set it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import matplotlib
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page

from gradcampp import cam
from gradcampp.cam import Method
from gradcampp.evaluation import gallery
from tests.test_explorer import BOOK, CLOSE, PAGE, Open, SceneTruth, open_page, picture, scenes, site

__all__ = ["open_page", "scenes", "site"]


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
            exact: part("exact").textContent, fromPlus: part("from-plus").textContent,
            fromPublished: part("from-published").textContent,
            words: part("alphas-words").textContent, value: part("lam-value").textContent, said: part("summary").textContent,
          };
        }"""
    )
    return state


def settled(page: Page) -> dict[str, Any]:
    """What is shown once the words have caught up with the picture."""
    page.wait_for_timeout(350)
    return shown(page)


def test_what_is_shown_at_0_and_at_1_is_the_librarys(open_page: Open, scenes: dict[str, SceneTruth]) -> None:
    page = open_page("#scene=planets")
    page.locator('[data-part="opacity"]').fill("100")  # the map alone: its colours are then numbers
    inferno = matplotlib.colormaps["inferno"](np.linspace(0, 1, 17))[:, :3] * 255
    truth = scenes["planets"]
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
        ends = np.array([[0x2D, 0x00, 0x4B], [0xF7, 0xF7, 0xF6], [0x7F, 0x3B, 0x08]])  # of the colours, and their middle
        ten = 10 * (large - truth.large(0, "pre", "gradcam+").flatten().numpy())
        painted = picture(found["difference"]).reshape(-1, 3).astype(float)
        for sign, end in ((-1, ends[0]), (1, ends[2])):
            full = sign * ten >= 1
            assert full.any() == (wanted == "gradcam++" and sign > 0)  # a tenth, ten times, is the end of the scale
            assert (np.abs(painted[full] - end).max(initial=0)) <= 1.01
        assert np.abs(painted[np.abs(ten) < 1e-6] - ends[1]).max(initial=0) <= 1.01
        slight = np.abs(ten - 0.5) < 0.001  # a twentieth has the colour half way
        assert (np.abs(painted[slight] - [0xEE, 0x9B, 0x39]).max(initial=0)) <= 3
        moved = truth.moved(0, "pre", "gradcam++")
        assert found["exact"] == ("0.000" if wanted == "gradcam+" else f"{truth.difference(0, 'pre'):.3f}")
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


def test_each_link_of_the_lessons_sets_the_explorer(open_page: Open) -> None:
    prose = (BOOK / "explorer.md").read_text("utf-8").partition("## Lessons")[2]
    page = open_page()
    for lesson in prose.split("\n### ")[1:]:
        question, _, answer = lesson.partition("Set the explorer:")
        assert question.rstrip().endswith("?")
        assert "<details" in answer
        links = [html.unescape(each) for each in re.findall(r'href="#([^"]+)"', answer)]
        assert links
        for each in links:
            wanted = {name: values[0] for name, values in parse_qs(each, strict_parsing=True).items()}
            page.evaluate("(hash) => { location.hash = hash; }", each)
            now = "gradcamppExplorer.shown()"
            arrived = f"([name, lam]) => {now}.scene === name && String({now}.lam) === lam"
            lam = wanted["lam"].replace("inf", "Infinity")
            page.wait_for_function(arrived, arg=[wanted["scene"], lam])
            found = settled(page)
            names = ("scene", "className", "scores", "method", "lam")
            assert tuple(found[name] for name in names) == (
                wanted["scene"],
                wanted["class"],
                wanted["scores"],
                wanted["method"],
                lam,
            )
            assert found["layer"] == wanted.get("layer", found["layer"])
            unit = found["unit"] and "{channel}.{row}.{column}".format(**found["unit"])
            assert unit == wanted.get("unit")
            assert parse_qs(page.evaluate("location.hash").removeprefix("#")) == parse_qs(each)


def chosen(page: Page) -> tuple[int, int, int]:
    """Channel, row and column of the unit that the panel shows."""
    fields = page.get_by_role("group", name="One unit, in numbers").get_by_role("spinbutton")
    channel, row, column = (int(fields.nth(number).input_value()) for number in range(3))
    return channel, row, column


def over(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=re.compile(f"^{name}"))


def test_a_unit_is_chosen_on_a_map_with_the_mouse_and_with_the_keyboard(open_page: Open, scenes: dict[str, SceneTruth]) -> None:
    page, truth = open_page("#scene=planets"), scenes["planets"]
    settled(page)
    added = truth.weights(0, "pre", "gradcam++")[0][:, None, None] * truth.activations[0]
    for name in ("Your map", "Grad-CAM\\+", "The difference"):
        button = over(page, name)
        box = button.bounding_box()
        assert box
        button.click(position={"x": box["width"] * 10.5 / 16, "y": box["height"] * 6.5 / 16})
        assert chosen(page) == (int(added[:, 6, 10].argmax()), 6, 10)  # the channel that adds most there
        button.press("ArrowUp")
        button.press("ArrowRight")
        assert chosen(page) == (int(added[:, 5, 11].argmax()), 5, 11)
    for _ in range(9):
        button.press("ArrowUp")  # not over the edge
    assert chosen(page)[1:] == (0, 11)
    assert "row 0, column 11" in (button.get_attribute("aria-label") or "")
    mark = button.locator("i").evaluate("(mark) => [mark.style.left, mark.style.top, mark.style.width]")
    assert mark == ["68.75%", "0%", "6.25%"]
    within = over(page, "Alphas of the channel")
    channel = chosen(page)[0]
    within.press("ArrowDown")
    assert chosen(page) == (channel, 1, 11)  # the same channel
    page.get_by_role("button", name="channel 36").click()
    assert chosen(page) == (36, 1, 11)
    page.get_by_role("spinbutton", name="row").fill("99")
    page.keyboard.press("Enter")
    assert chosen(page) == (36, 15, 11)
    settled(page)
    assert page.evaluate("location.hash").endswith("&unit=36.15.11")
    page.reload()
    page.wait_for_selector('[data-part="main"]:not([hidden])')
    assert chosen(page) == (36, 15, 11)
    page.get_by_role("button", name="adds most", exact=True).click()
    settled(page)
    assert "unit" not in page.evaluate("location.hash")


def test_what_the_panel_says_of_a_unit_is_the_librarys(open_page: Open, scenes: dict[str, SceneTruth]) -> None:
    page, truth = open_page("#scene=planets&lam=1&unit=0.5.3"), scenes["planets"]
    gradients = truth.gradients(0, "pre")
    alpha = float(cam.alphas(truth.activations, gradients)[0, 0, 5, 3])
    g, s, a = float(gradients[0, 0, 5, 3]), float(truth.activations[0, 0].sum()), float(truth.activations[0, 0, 5, 3])
    weight = float(truth.weights(0, "pre", "gradcam++")[0, 0])
    said = page.locator('[data-part="formulas"]').inner_text()
    for value in (alpha, g, s, a, alpha * g, weight, weight * a):
        assert f"{value:.4g}" in said
    assert said.startswith("Eq. 9")


def test_a_unit_is_chosen_on_the_plot_of_the_alphas(open_page: Open, scenes: dict[str, SceneTruth]) -> None:
    page, truth = open_page("#scene=planets"), scenes["planets"]
    settled(page)
    gradients = truth.gradients(0, "pre")[0]
    alphas = cam.alphas(truth.activations, gradients[None])[0]
    bins = torch.where(gradients > 0, (50 * alphas).floor().clamp(max=24), -1)
    parts = alphas * gradients.relu()

    def best(number: int) -> tuple[int, ...]:
        """The unit that adds most, of those in a bar."""
        at = int(torch.where(bins == number, parts, -1).argmax())
        return tuple(int(each) for each in np.unravel_index(at, parts.shape))

    button = page.get_by_role("button", name=re.compile("^Choose a bar"))
    box = button.bounding_box()
    assert box
    button.click(position={"x": box["width"] * (24 + 280 * 20.5 / 25) / 320, "y": box["height"] / 2})
    assert chosen(page) == best(20)
    button.press("ArrowLeft")
    assert chosen(page) == best(19)
    button.press("ArrowRight")
    assert chosen(page) == best(20)
    lowest = int(bins[bins >= 0].min())
    button.click(position={"x": 1, "y": 1})  # the nearest bar
    assert chosen(page) == best(lowest)
    button.press("ArrowLeft")
    assert chosen(page) == best(lowest)


def test_a_photograph_has_two_layers_and_says_whose_it_is(open_page: Open) -> None:
    page = open_page("#scene=rocket")
    layers = page.get_by_role("group", name="Feature maps")
    assert layers.get_by_role("radio").count() == 2
    shown_by = gallery.PHOTOGRAPHS["rocket"]
    words = page.locator(".gx-credit").inner_text()
    assert all(part in words for part in (shown_by.title, shown_by.author, shown_by.licence, "EfficientNet-Lite0"))
    assert page.locator(".gx-credit a").first.get_attribute("href") == shown_by.source
    layers.get_by_role("radio", name="behind the depthwise convolution").check()
    page.wait_for_function("gradcamppExplorer.shown().layer === 'inner'")
    page.get_by_role("radio", name="Grad-CAM", exact=True).check()
    assert "The map is zero everywhere." in settled(page)["said"]
    page.get_by_role("radio", name="Four planets").check()
    page.wait_for_function("gradcamppExplorer.shown().scene === 'planets'")
    assert layers.count() == 0
    assert "embedded network" in page.locator(".gx-credit").inner_text()


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (640, 700), (390, 844), (390, 500)])
def test_slider_and_maps_stay_in_view_and_do_not_cover_the_page(open_page: Open, width: int, height: int) -> None:
    page = open_page("#scene=planets", viewport={"width": width, "height": height})
    settled(page)
    for last in ("#gx-alphas", "#gx-unit", '[data-part="weights"] li:last-child'):
        page.locator(last).evaluate("(part) => part.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(100)
        inside = page.evaluate(
            """() => {
              const seen = (part) => {
                const {top, bottom, width, height} = part.getBoundingClientRect();
                return width > 60 && Math.min(bottom, innerHeight) - Math.max(top, 0) > 0.9 * height;
              };
              const maps = ["map", "plus", "difference"].map((name) => document.querySelector(`[data-part="${name}"]`));
              const copies = [...document.querySelectorAll(".gx-strip canvas")];
              return [seen(document.getElementById("gx-lam")), maps.every(seen) || copies.every(seen)];
            }"""
        )
        assert inside == [True, height > 544]  # a window that is lower than that keeps the slider alone
        target = page.locator(last).bounding_box()
        assert target
        over_it = page.evaluate(
            "([x, y]) => Boolean(document.elementFromPoint(x, y).closest('.gx-lam, .gx-view'))",
            [target["x"] + 5, target["y"] + 5],
        )
        assert not over_it
    covered = page.evaluate(
        """() => {
          const sticks = (part) => getComputedStyle(part.closest(".gx-lam")).position === "sticky";
          const parts = [...document.querySelectorAll(".gx-lam, .gx-strip")].filter(sticks);
          return parts.reduce((sum, part) => sum + part.getBoundingClientRect().height, 0) / innerHeight;
        }"""
    )
    assert covered < 0.4
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(100)
    assert not page.locator(".gx-strip").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scroll(open_page: Open, scheme: str) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    page.get_by_role("radio", name="Snail and leaf").check()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    parts = "[...document.querySelectorAll('canvas[role], svg')]"
    sizes = page.evaluate(f"{parts}.map((part) => part.getBoundingClientRect().width)")
    assert min(sizes) > 90


def test_every_control_has_a_name_and_every_group_a_legend(open_page: Open) -> None:
    page = open_page()
    for name in ("Picture", "Explain the class", "Method", "Gradients of the score"):
        group = page.get_by_role("group", name=name, exact=True)
        assert group.get_by_role("radio").count() >= 2
    for control in page.locator("#gradcampp-explorer input, #gradcampp-explorer button").all():
        name = control.evaluate("(part) => part.ariaLabel || part.labels?.[0]?.textContent || part.textContent")
        assert name.strip()
    for image in page.locator("#gradcampp-explorer [role=img]").all():
        assert len(image.get_attribute("aria-label") or "") > 20
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
def test_missing_data_are_said_in_words_and_tried_again(browser: Browser, host: str, missing: str) -> None:
    page = browser.new_page()
    page.route(f"**/explorer/{missing}", lambda route: route.abort())
    page.goto(host + PAGE)
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
