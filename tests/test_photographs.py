"""Photographs of every mode, and folders of every naming."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import v2

from gradcampp.errors import InputError
from gradcampp.evaluation.folders import Photograph, choose, list_photographs
from gradcampp.evaluation.photographs import Batch, load, read_photograph
from gradcampp.networks.classes import imagenet, named, numbered
from gradcampp.networks.preprocessing import Preprocessing
from tests.conftest import photograph

SMALL = Preprocessing(resize=24, crop=16)


def test_a_photograph_is_resized_and_cropped_as_torchvision_publishes(tmp_path: Path) -> None:
    photograph(1, (57, 40)).save(tmp_path / "a.png")
    expected = v2.Compose([v2.Resize(24, antialias=True), v2.CenterCrop(16), v2.PILToTensor()])(Image.open(tmp_path / "a.png"))
    assert torch.equal(read_photograph(tmp_path / "a.png", SMALL), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = photograph(2).convert("L")
    wide = np.asarray(grey).astype(np.uint16) * 257
    pictures = {
        "I;16": Image.fromarray(wide),
        "I": Image.fromarray(wide.astype(np.int32)),
        "F": Image.fromarray(np.asarray(grey, np.float32) / 255),
    }
    picture = pictures.get(mode) or (photograph(2).convert(mode) if mode not in ("L", "LA", "1") else grey.convert(mode))
    ending = "tif" if mode in ("CMYK", "YCbCr", "I", "F") else "png"
    picture.save(tmp_path / f"a.{ending}")
    pixels = read_photograph(tmp_path / f"a.{ending}", SMALL)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == torch.uint8
    if mode in ("L", "LA", "I;16", "I", "F"):  # the same greys at every depth: nothing is clipped at 255
        grey.save(tmp_path / "grey.png")
        assert torch.equal(pixels, read_photograph(tmp_path / "grey.png", SMALL))


def test_adobe_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    photograph(3).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    photograph(3).save(tmp_path / "b.png")
    difference = read_photograph(tmp_path / "a.jpg", SMALL).double() - read_photograph(tmp_path / "b.png", SMALL).double()
    assert difference.abs().mean() < 6  # JPEG's own loss; inverted colours would differ by 128


def test_exif_orientation_is_honoured_only_when_asked(tmp_path: Path) -> None:
    upright = photograph(4, (30, 30))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    expected = read_photograph(tmp_path / "upright.png", SMALL)
    assert torch.equal(read_photograph(tmp_path / "turned.png", SMALL, upright=True), expected)
    assert torch.equal(read_photograph(tmp_path / "turned.png", SMALL), expected.flip(1, 2))


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    photograph(5, (300, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("not a photograph")
    (tmp_path / "empty.jpg").touch()
    for name, says in [("cut", "truncated"), ("text", "not an image"), ("empty", "empty file"), ("absent", "no such file")]:
        with pytest.raises(InputError, match=rf"photograph .*{name}\.jpg: .*{says}"):
            read_photograph(tmp_path / f"{name}.jpg", SMALL)


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_integer_folders_are_numbers_not_texts_and_rows_are_sorted_by_path(tmp_path: Path) -> None:
    root = make(
        tmp_path, "10/a.jpg", "2/b.JPEG", "2/a.png", "0/z/deep.webp", "2/notes.txt", "2/.hidden.jpg", ".git/x.jpg", "loose.jpg"
    )
    found = list_photographs(root, numbered(11))
    assert [(item.image, item.label) for item in found] == [
        ("0/z/deep.webp", 0),
        ("10/a.jpg", 10),
        ("2/a.png", 2),
        ("2/b.JPEG", 2),
    ]


def test_a_link_to_its_own_folder_is_followed_once(tmp_path: Path) -> None:
    root = make(tmp_path, "0/a.jpg")
    (root / "0" / "again").symlink_to(root / "0")
    (root / "0" / "more").symlink_to(root / "0")
    assert [item.image for item in list_photographs(root, numbered(3))] == ["0/a.jpg"]


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    root = make(tmp_path, "0/a.jpg")
    (Path(os.fsdecode(bytes(root / "0") + b"/caf\xe9.jpg"))).touch()
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        list_photographs(root, numbered(3))


def test_folders_may_be_wordnet_ids_or_names(tmp_path: Path) -> None:
    found = list_photographs(make(tmp_path, "n02123045/a.jpg", "golden_retriever/b.jpg", "7/c.jpg"), imagenet())
    assert {item.image: item.label for item in found} == {"n02123045/a.jpg": 281, "golden_retriever/b.jpg": 207, "7/c.jpg": 7}


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["3/a.jpg"], "class folder '3': class 3 is out of range: the network has 3 classes, 0 to 2"),
        (["doog/a.jpg"], r"class folder 'doog': no class 'doog'; the nearest: dog \(1\)"),
        (["0/a.txt"], "no photographs in class folders"),
        ([], "no photographs in class folders"),
    ],
)
def test_wrong_folders_are_explained(tmp_path: Path, paths: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        list_photographs(make(tmp_path, *paths), named(["cat", "dog", "fish"]))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        list_photographs(tmp_path / "absent", numbered(3))


def test_a_limit_takes_the_first_and_with_a_seed_a_sample_in_order(folder: Callable[..., Path]) -> None:
    every = list_photographs(folder(), numbered(3))
    assert choose(every, 4, None) == every[:4]
    sample = choose(every, 7, 1)
    assert len(set(sample)) == 7
    assert sample == sorted(sample, key=lambda item: item.image) == choose(every, 7, 1)
    assert len({tuple(choose(every, 7, seed)) for seed in range(5)}) > 1
    assert choose(every, 99, 1) == every == choose(every, None, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_with_the_bad_ones_named(folder: Callable[..., Path], workers: int) -> None:
    root = folder(3)
    (root / "1" / "1.png").write_text("no image")
    every = list_photographs(root, numbered(3))
    batches = list(load(root, [every[:5], every[5:]], SMALL, workers))
    assert [item for batch in batches for item in batch.photographs] == [item for item in every if item.image != "1/1.png"]
    assert list(batches[0].bad) == ["1/1.png"]
    for batch in batches:
        for item, pixels in zip(batch.photographs, batch.pixels, strict=True):
            assert torch.equal(pixels, read_photograph(root / item.image, SMALL))


def test_batches_are_pinned_by_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """DataLoader passes over types that it does not know, without a word."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = Batch([Photograph("0/a.png", 0)], torch.zeros(1, 3, 2, 2, dtype=torch.uint8), ["x"], [3], {})
    pinned = pin_memory(batch)  # type: ignore[no-untyped-call]
    assert (pinned.pixels == 1).all()
    assert (pinned.photographs, pinned.hashes, pinned.sizes, pinned.bad) == (batch.photographs, ["x"], [3], {})
