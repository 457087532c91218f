"""The network of the page "Your own photograph": the library's own, with gradients in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from book.photograph import export
from gradcampp.errors import InputError
from gradcampp.networks.capture import capture
from gradcampp.networks.lite0 import INNER_LAYER, LAYER, NAME
from gradcampp.networks.load import load

LABELS = torch.tensor([281, 3, 999])


@pytest.fixture(scope="module")
def explained() -> export.Explained:
    return export.explained(load(NAME))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    coarse = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (export.CROP, export.CROP), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(("layer", "name"), [(LAYER, "head"), (INNER_LAYER, "inner")])
def test_the_closed_form_is_what_autograd_finds(explained: export.Explained, pixels: Tensor, layer: str, name: str) -> None:
    with torch.no_grad():
        outputs = dict(zip(export.OUTPUTS, explained(pixels, LABELS), strict=True))
    wanted = capture(explained.network, layer, (pixels - explained.offset) / explained.scale, LABELS)
    assert torch.equal(outputs["logits"], wanted.logits)
    assert torch.equal(outputs[name], wanted.activations)
    for scores in ("pre", "post"):
        found, gradients = outputs[f"{name}_{scores}"], wanted.gradients[scores]
        full = found[:, :, None, None].expand_as(gradients) if name == "head" else found
        close = 1e-5 * gradients.abs().amax((1, 2, 3), keepdim=True)  # float32, 1280 terms in another order
        assert ((full - gradients).abs() <= close).all()


def test_both_ends_of_the_last_relu6_stop_gradients_of_these_pictures(explained: export.Explained, pixels: Tensor) -> None:
    """Else the mask of the closed form would not be tested."""
    with torch.no_grad():
        head = explained(pixels, LABELS)[1]
    assert (head == 0).any()
    assert (head == 6).any()


def test_folding_changes_nothing_but_the_rounding(explained: export.Explained, pixels: Tensor) -> None:
    network = load(NAME)
    with torch.no_grad():
        assert (explained(pixels, LABELS)[0] - network.logits(pixels)).abs().max() < 1e-4  # of logits up to ten
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in explained.network.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.module.modules())  # a copy


def test_the_file_is_the_same_every_time_and_names_no_path(explained: export.Explained, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("lite0.onnx", "again.onnx")]
    for path in paths:
        export.write_network(explained, path)
    first, again = (path.read_bytes() for path in paths)
    assert first == again
    assert len(first) < 20e6  # each weight once
    assert b".py" not in first


def test_a_checkout_without_npms_part_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "RUNTIME", tmp_path)
    with pytest.raises(InputError, match=r"no onnxruntime-web/dist/ort\.wasm\.min\.js .*: npm ci --prefix book/web"):
        export.write(tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_samples_are_there_and_say_whose_they_are() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    offered = export.samples()
    assert len(offered) == len(export.SAMPLES)
    assert {one.path.suffix for one in offered} == {".png", ".jpg"}
    assert all("CC" in one.credit or "public domain" in one.credit.lower() for one in offered), [one.credit for one in offered]
