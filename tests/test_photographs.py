"""Photographs of every mode, and folders of every naming."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import v2

from gradcampp.errors import InputError, Notice
from gradcampp.evaluation.folders import Photograph, list_photographs
from gradcampp.evaluation.photographs import Batch, allow_pixels, load, read_photograph
from gradcampp.networks.classes import numbered
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


def wide(*numbers: int | float, kind: str) -> np.ndarray[Any, Any]:
    """A picture whose least and largest numbers are the first and the last."""
    return np.resize(np.array(numbers), (16, 16)).astype(kind)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14)])
@pytest.mark.parametrize(("ending", "kind"), [("png", "uint16"), ("tif", "uint16"), ("tif", "int32"), ("tif", "float32")])
def test_cameras_use_a_part_of_a_wider_scale(tmp_path: Path, top: int, bits: int, ending: str, kind: str) -> None:
    """A 12-bit picture in 16 bits would be nearly black."""
    Image.fromarray(wide(0, top // 2, top, kind=kind)).save(tmp_path / f"a.{ending}")
    with pytest.warns(Notice, match=f"no number is over {top} is taken for one of {bits} bits, with {top} for white"):
        pixels = read_photograph(tmp_path / f"a.{ending}", Preprocessing(16, 16))
    assert sorted(set(pixels.flatten().tolist())) == [0, round(top // 2 * 255 / top), 255]


def test_a_full_scale_and_what_the_file_tells_need_no_word(tmp_path: Path) -> None:
    Image.fromarray(wide(0, 65535, kind="uint16")).save(tmp_path / "full.png")
    Image.fromarray(wide(0, kind="uint16")).save(tmp_path / "black.png")
    Image.fromarray(wide(0, 0.5, 1, kind="float32")).save(tmp_path / "unit.tif")
    Image.fromarray(wide(0, 1000, kind="uint16")).save(tmp_path / "told.tif", tiffinfo={281: 4095})  # MaxSampleValue
    whites = {"full.png": 255, "black.png": 0, "unit.tif": 255, "told.tif": round(1000 * 255 / 4095)}
    for name, white in whites.items():
        assert read_photograph(tmp_path / name, Preprocessing(16, 16)).max() == white


@pytest.mark.parametrize(
    ("numbers", "kind", "says"),
    [
        ((0, 0.5, np.nan), "float32", "some of its numbers are NaN or infinite"),
        ((0, np.inf), "float32", "some of its numbers are NaN or infinite"),
        ((-0.5, 0.5), "float32", "its numbers go from -0.5 to 0.5, on no scale that is known"),
        ((0, 1.3), "float32", "its numbers go from 0 to 1.3, on no scale"),
        ((0, 1e6), "float32", r"its numbers go from 0 to 1e\+06, on no scale"),
        ((-3, 100), "int32", "its numbers go from -3 to 100, on no scale"),
        ((0, 70000), "int32", "its numbers go from 0 to 70000, on no scale"),
    ],
)
def test_numbers_on_no_scale_are_refused(tmp_path: Path, numbers: tuple[float, ...], kind: str, says: str) -> None:
    Image.fromarray(wide(*numbers, kind=kind)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=says):
        read_photograph(tmp_path / "a.tif", SMALL)


def save_deep(path: Path, values: np.ndarray[Any, Any], kind: int) -> None:
    """A PNG of 16 bits a channel, which Pillow reads and does not write; kind 2 is RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("channels", "kind"), [(3, 2), (2, 4), (4, 6)])
def test_deep_colours_that_would_be_nearly_black_are_refused(tmp_path: Path, channels: int, kind: int) -> None:
    """Of 12 bits in 16, Pillow keeps the upper four."""
    for top in (255, 4095, 16383, 65535):
        values = np.stack([wide(0, top, kind="uint16")] * channels, -1)
        if kind > 2:
            values[..., -1] = 65535  # alpha
        save_deep(tmp_path / f"{top}.png", values, kind)
    for name in ("255.png", "4095.png", "16383.png"):
        for upright in (False, True):
            with pytest.raises(InputError, match="16 bits a channel, the upper two never used, would be nearly black"):
                read_photograph(tmp_path / name, SMALL, upright)
    assert read_photograph(tmp_path / "65535.png", Preprocessing(16, 16)).max() == 255


@pytest.mark.parametrize(
    ("tags", "says"),
    [({262: 0, 277: 1}, r"0 is white in it \(WhiteIsZero\)"), ({262: 2, 277: 3, 284: 2}, "one channel after the other")],
)
def test_deep_tiffs_that_pillow_misreads_are_refused(tmp_path: Path, tags: dict[int, int], says: str) -> None:
    """The first would be its negative, and the second noise."""
    count, size = tags[277], 16 * 16 * 2
    every = {256: 16, 257: 16, 258: 16, 259: 1, 262: tags[262], 273: 512, 277: count, 278: 16, 279: size, 284: tags.get(284, 1)}
    lists = {258: [16] * count, 273: [512 + size * plane for plane in range(count)], 279: [size] * count}
    entries, extra = b"", b""
    for tag, value in every.items():
        held = struct.pack(f"<{count}H", *lists[tag]) if tag in lists and count > 2 else struct.pack("<HH", value, 0)
        if len(held) > 4:
            held, extra = struct.pack("<I", 256 + len(extra)), extra + held
        entries += struct.pack("<HHI", tag, 3, count if tag in lists else 1) + held
    head = (b"II*\0" + struct.pack("<IH", 8, len(every)) + entries + bytes(4)).ljust(256, b"\0") + extra
    (tmp_path / "a.tif").write_bytes(head.ljust(512, b"\0") + np.arange(256 * count).astype("<u2").tobytes())
    with pytest.raises(InputError, match=says):
        read_photograph(tmp_path / "a.tif", SMALL)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P with a mask"])
def test_what_is_transparent_stands_on_white(tmp_path: Path, mode: str) -> None:
    """Pillow would uncover what happens to be below, mostly black."""
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 8, 16))
    if mode == "P":
        indexed = Image.new("P", (16, 16), 1)
        indexed.putpalette([255, 0, 0, 0, 0, 0])
        indexed.save(tmp_path / "a.png", transparency=1)
    elif mode == "P with a mask":
        picture.quantize(4).save(tmp_path / "a.png")
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    with pytest.warns(Notice, match="what is transparent stands on white"):
        pixels = read_photograph(tmp_path / "a.png", Preprocessing(16, 16))
    assert (pixels[:, :, 8:] == 255).all()
    assert (pixels[:, :, :8] == (255 if mode == "P" else 0)).all()


def test_of_several_pictures_the_first_is_taken_with_a_word(tmp_path: Path) -> None:
    frames = [Image.new("L", (16, 16), value) for value in (10, 200)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.warns(Notice, match="of a file with several pictures, the first is taken"):
            assert (read_photograph(tmp_path / name, Preprocessing(16, 16)) == 10).all()


def test_pipes_folders_and_devices_are_no_photographs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path, kind in (
        (tmp_path / "pipe.png", "pipe or device"),
        (tmp_path / "folder.png", "folder"),
        (Path("/dev/zero"), "pipe"),
    ):
        with pytest.raises(InputError, match=f"a {kind}.*; expected an image file"):
            read_photograph(path, SMALL)


def test_the_limit_of_pixels_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow's own is 89 million, and twice that is refused
    photograph(1, (40, 32)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: 1280 pixels are over the limit; --max-pixels 1280 raises it"):
        read_photograph(tmp_path / "a.png", SMALL)
    allow_pixels(1279)
    assert Image.MAX_IMAGE_PIXELS == 640  # as good as 1280
    allow_pixels(1280)
    assert read_photograph(tmp_path / "a.png", SMALL).shape == (3, 16, 16)


def test_the_plugin_for_heic_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(InputError, match="needs pip install pillow-heif"):
        read_photograph(tmp_path / "a.HEIC", SMALL)
