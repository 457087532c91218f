"""Photographs that come with packages: where they are, whose they are, and what a network sees in them."""

from __future__ import annotations

import importlib.util
import inspect
import re
import socket
from importlib import import_module
from pathlib import Path

import pytest
import torch

from gradcampp.errors import InputError
from gradcampp.evaluation import gallery
from gradcampp.networks import lite0
from gradcampp.networks.capture import Network
from gradcampp.networks.load import load
from gradcampp.networks.preprocessing import Preprocessing

NAMES = list(gallery.PHOTOGRAPHS)
SCORES = {  # of the best class, measured with EfficientNet-Lite0; float32 kernels differ by far less than 0.001
    "chelsea": 0.395, "coffee": 0.951, "camera": 0.937, "rocket": 0.272, "china": 0.298, "flower": 0.315, "hopper": 0.244,
}  # fmt: skip
needs_packages = pytest.mark.skipif(bool(gallery.missing(NAMES)), reason=gallery.missing(NAMES))


@pytest.fixture(scope="module")
def network() -> Network:
    return load(lite0.NAME)


@needs_packages
@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_there_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a photograph asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    pixels = gallery.read(name, lite0.PREPROCESSING)
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == torch.uint8
    assert pixels.float().std() > 20  # not a blank


@needs_packages
@pytest.mark.parametrize("name", NAMES)
def test_the_network_sees_what_the_table_says(name: str, network: Network) -> None:
    scores = network.logits(gallery.read(name, network.preprocessing)[None].float() / 255).softmax(1)[0]
    assert network.classes.names[int(scores.argmax())] == gallery.PHOTOGRAPHS[name].sees
    assert abs(float(scores.max()) - SCORES[name]) < 0.001


@needs_packages
def test_three_kinds_of_cat_share_the_score_of_the_cat(network: Network) -> None:
    scores = network.logits(gallery.read("chelsea", network.preprocessing)[None].float() / 255).softmax(1)[0]
    kinds = [network.classes.names.index(kind) for kind in ("tiger cat", "Egyptian cat", "tabby")]
    assert abs(float(scores[kinds].sum()) - 0.919) < 0.001


@needs_packages
def test_licences_and_authors_are_those_that_the_packages_state() -> None:
    fetchers = import_module("skimage.data._fetchers")
    for name in ("chelsea", "coffee", "camera"):
        said = " ".join((inspect.getdoc(getattr(fetchers, name)) or "").split())
        assert gallery.PHOTOGRAPHS[name].licence.startswith("CC0")
        assert re.search(rf"CC0 by the photographer \({re.escape(gallery.PHOTOGRAPHS[name].author)}\)", said)
    rocket = gallery.PHOTOGRAPHS["rocket"]
    said = " ".join((inspect.getdoc(fetchers.rocket) or "").split())
    assert f"captured by {rocket.author} and `released in the public domain" in said
    assert rocket.source.rstrip("/") in said
    readme = (gallery.PHOTOGRAPHS["china"].path().parent / "README.txt").read_text("utf-8")
    for name in ("china", "flower"):
        (own,) = [part for part in readme.split("Image: ") if part.startswith(f"{name}.jpg")]
        photograph = gallery.PHOTOGRAPHS[name]
        assert "creativecommons.org/licenses/by/2.0" in own
        assert photograph.licence == "CC BY 2.0"
        assert photograph.source in own
        assert f"flickr.com/photos/{photograph.author}/" in own


def test_a_credit_names_title_author_licence_and_package_once_each() -> None:
    said = gallery.credit(["china|flower", "china"])
    assert said.count("[China](https://www.flickr.com/photos/danielbuechele/") == 1
    assert "[Flower](https://www.flickr.com/photos/vultilion/6056698931/) by vultilion" in said
    assert said.count("[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), from scikit-learn") == 2
    assert "SpaceX, public domain, from scikit-image" in gallery.credit(["rocket"])


@needs_packages
def test_two_side_by_side_are_the_middle_of_each() -> None:
    preprocessing = Preprocessing(64, 60)
    left, right = (gallery.read(name, preprocessing) for name in ("chelsea", "coffee"))
    both = gallery.read("chelsea|coffee", preprocessing)
    assert both.shape == left.shape
    assert torch.equal(both[:, :, :30], left[:, :, 15:45])
    assert torch.equal(both[:, :, 30:], right[:, :, 15:45])


def test_a_package_that_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "find_spec", lambda name: None if name in ("skimage", "sklearn") else object())
    assert gallery.missing(["chelsea|china", "coffee"]) == "for photographs: pip install scikit-image scikit-learn"
    assert gallery.missing(["hopper"]) == ""
    with pytest.raises(InputError, match=r"^“Coffee cup” comes with a package: pip install scikit-image$"):
        gallery.read("coffee", lite0.PREPROCESSING)


def test_another_file_in_the_place_of_a_photograph_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = importlib.util.spec_from_file_location("skimage", tmp_path / "__init__.py")
    monkeypatch.setattr(gallery, "find_spec", lambda _name: spec)
    for content in (None, b"another"):
        if content:
            (tmp_path / "data" / "coffee.png").write_bytes(content)
        with pytest.raises(InputError, match=r"coffee\.png is missing or another picture: expected the SHA-256 cc02f8ca"):
            gallery.PHOTOGRAPHS["coffee"].path()
