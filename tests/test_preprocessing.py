"""Which pixels a network gets, and how that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models import ResNet50_Weights, ViT_B_16_Weights, WeightsEnum
from torchvision.transforms import v2

from gradcampp.errors import InputError, Notice
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.networks.load import load
from gradcampp.networks.preprocessing import Preprocessing, chosen, of_module, of_weights
from tests.conftest import photograph
from tests.networks import Scored

EVERY = [(name, weights) for name in models.list_models(models) for weights in models.get_model_weights(name)]


def published(weights: WeightsEnum) -> Preprocessing:
    known = weights.transforms()
    sizes = known.resize_size[0], known.crop_size[0]
    return Preprocessing(*sizes, tuple(known.mean), tuple(known.std), known.interpolation.value)


@pytest.mark.parametrize(("name", "weights"), EVERY, ids=[str(weights) for _, weights in EVERY])
def test_every_published_file_brings_its_own_preprocessing(name: str, weights: WeightsEnum) -> None:
    """By its name, and where it was renamed by its content."""
    family, file = list(models.get_model_weights(name)), weights.url.rsplit("/", 1)[-1]
    prefix = file.rsplit("-", 1)[-1].removesuffix(".pth")
    for found in (
        of_weights(family, file, "0" * 64),
        of_weights(family, file.replace(".pth", ".safetensors"), "0" * 64),
        of_weights(family, "best.pth", prefix + "0" * (64 - len(prefix))),
    ):
        assert found == published(weights)
        assert str(weights) in found.origin
        assert not found.origin.startswith("assumed")


def test_there_are_files_whose_preprocessing_is_not_the_first_of_their_network() -> None:
    other = [weights for name, weights in EVERY if published(weights) != published(next(iter(models.get_model_weights(name))))]
    assert len(other) >= 34
    assert published(ResNet50_Weights.IMAGENET1K_V2).resize == 232
    assert published(ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1) == Preprocessing(384, 384, interpolation="bicubic")


def test_the_content_of_a_file_counts_more_than_its_name() -> None:
    family = list(ResNet50_Weights)
    assert of_weights(family, "resnet50-0676ba61.pth", "11ad3fa6" + "0" * 56).resize == 232


def test_of_an_unknown_file_the_line_says_what_was_assumed_and_what_else_there_is() -> None:
    with pytest.warns(Notice, match=r"the preprocessing for mine.safetensors is assumed, from .*IMAGENET1K_V1; .*V2 232/224"):
        line = str(of_weights(ResNet50_Weights, "mine.safetensors", "0" * 64))
    assert str(of_weights(ResNet50_Weights)) == line  # of random weights, without a word
    assert line == (
        "shorter side 256 bilinear, centre 224 x 224, RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225; assumed, "
        "from ResNet50_Weights.IMAGENET1K_V1; IMAGENET1K_V2 232/224 bilinear: give yours where it is another"
    )
    assert of_weights([]) == Preprocessing()
    assert "assumed" in str(Preprocessing())


def test_a_file_of_weights_is_recognised_when_it_is_loaded(tmp_path: Path) -> None:
    torch.save(models.resnet50(weights=None).state_dict(), tmp_path / "resnet50-11ad3fa6.pth")
    found = load("resnet50", weights=tmp_path / "resnet50-11ad3fa6.pth", crop=32, resize=32).preprocessing
    assert found == Preprocessing(32, 32)
    assert found.origin == (
        "--resize, --crop as given, the rest from ResNet50_Weights.IMAGENET1K_V2, whose hash is in the name of the file"
    )


class Timm(Scored):
    """What timm's networks bring along."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        known = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.4), "interpolation": "bicubic"}
        self.pretrained_cfg = known | {"crop_pct": 0.9, "crop_mode": "center"} | told


def test_networks_of_timm_say_it_themselves() -> None:
    found = load(Timm()).preprocessing
    assert found == Preprocessing(17, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.4), "bicubic")
    assert found.origin == "from the network's pretrained_cfg"
    assert of_module(Timm(crop_mode="squash", crop_pct=1.0)).fit == "squash"
    assert of_module(Timm(input_size=(3, 16, 24))).size == (16, 24)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"mean": (123.675, 116.28, 103.53)},
            r"--mean 123.7 116.3 103.5: .* 0 to 255: --mean 0.485 0.456 0.406$",
        ),
        ({"mean": (1.5, 0.4, 0.4)}, r"--mean 1.5 0.4 0.4: .*--mean 0.005882 "),
        ({"std": (58.395, 57.12, 57.375)}, r"--std 58.4 57.12 57.38: .*--std 0.229 0.224 0.225$"),
        ({"mean": (-0.1, 0.4, 0.4)}, "--mean -0.1 0.4 0.4: expected numbers from 0 to 1$"),
        ({"mean": (300.0, 300.0, 300.0)}, "expected numbers from 0 to 1$"),
        ({"mean": (float("nan"),) * 3}, "--mean nan nan nan: expected numbers"),
        ({"std": (0.2, 0.0, 0.2)}, "--std 0.2 0 0.2: expected positive numbers up to 1$"),
        ({"std": (float("nan"),) * 3}, "--std nan nan nan: expected positive"),
        ({"mean": (0.5,)}, "--mean has 1 numbers and --std 3; expected one a channel"),
        ({"crop": 300}, "--crop 300 is larger than --resize 256"),
        ({"crop": (300, 400)}, "--crop 300x400 is larger than --resize 256"),
        ({"resize": 300, "fit": "pad"}, "--resize is for --fit crop; with --fit pad give the size as --crop"),
        ({"interpolation": "cubic"}, "--interpolation cubic: expected one of nearest, box, bilinear"),
        ({"fit": "stretch"}, "--fit stretch: expected one of crop, squash, pad"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        chosen(Preprocessing(), **given)


def test_caffes_scale_is_accepted_where_it_is_told() -> None:
    given = {"mean": tuple(value / 255 for value in (104, 117, 123)), "std": (1 / 255,) * 3}
    assert chosen(Preprocessing(), **given).std == (1 / 255,) * 3
    assert chosen(Preprocessing(), mean=(0, 0, 0), std=(1, 1, 1)).mean == (0, 0, 0)


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_interpolations_are_pillows(tmp_path: Path, interpolation: str) -> None:
    photograph(1, (57, 40)).save(tmp_path / "a.png")
    given = Preprocessing(24, 16, interpolation=interpolation)
    resized = Image.open(tmp_path / "a.png").resize((34, 24), Image.Resampling[interpolation.upper()])
    expected = v2.functional.pil_to_tensor(v2.functional.center_crop(resized, [16, 16]))
    assert torch.equal(read_photograph(tmp_path / "a.png", given), expected)


@pytest.mark.parametrize("size", [(57, 40), (40, 57), (16, 90)])
def test_squash_pad_and_oblong_crops_keep_what_they_promise(tmp_path: Path, size: tuple[int, int]) -> None:
    """A white photograph shows what is added: only padding adds anything."""
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    for fit in ("crop", "squash"):
        assert (read_photograph(tmp_path / "a.png", Preprocessing(24, (16, 24), fit=fit)) == 255).all()
    padded = read_photograph(tmp_path / "a.png", Preprocessing(24, (16, 24), mean=(0.2, 0.4, 0.6), fit="pad"))
    assert padded.shape == (3, 16, 24)
    scale = min(24 / size[0], 16 / size[1])
    inside = (padded == 255).all(0)
    assert inside.any(0).sum() == round(size[0] * scale)
    assert inside.any(1).sum() == round(size[1] * scale)
    assert all(colour.tolist() == [51, 102, 153] for colour in padded[:, ~inside].T)


def test_squash_changes_proportions_and_nothing_else(tmp_path: Path) -> None:
    picture = photograph(1, (57, 40))
    picture.save(tmp_path / "a.png")
    expected = v2.functional.pil_to_tensor(picture.resize((24, 16), Image.Resampling.BILINEAR))
    assert torch.equal(read_photograph(tmp_path / "a.png", Preprocessing(256, (16, 24), fit="squash")), expected)


def grey() -> nn.Module:
    """A network of one channel, such as for MNIST."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_a_network_of_one_channel_gets_grey_pictures(tmp_path: Path) -> None:
    network = load(grey(), crop=16, resize=16)
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.449,), (0.226,))
    assert "grey, mean 0.449, std 0.226; --resize, --crop as given, the rest assumed" in str(network.preprocessing)
    photograph(3, (16, 16)).save(tmp_path / "a.png")
    pixels = read_photograph(tmp_path / "a.png", network.preprocessing)
    assert pixels.shape == (1, 16, 16)
    assert pixels[0].tolist() == v2.functional.pil_to_tensor(photograph(3, (16, 16)).convert("L"))[0].tolist()
    own = load(grey(), crop=16, resize=16, mean=(0.5,), std=(0.25,))
    values = pixels[None].float() / 255
    assert torch.allclose(own.logits(values), grey().eval()((values - 0.5) / 0.25), atol=1e-6)  # float32 of one layer


def test_other_channels_are_for_tensors_not_for_photographs(tmp_path: Path) -> None:
    five = nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(InputError, match="expected input.* to have 5 channels, but got 3"):
        load(five, crop=16, resize=16)
    network = load(five, crop=16, resize=16, mean=(0.5,) * 5, std=(0.5,) * 5)
    assert network.logits(torch.rand(2, 5, 16, 16)).shape == (2, 3)
    photograph(3).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="the network takes 5 channels, and a photograph has 3 or, in grey, 1"):
        read_photograph(tmp_path / "a.png", network.preprocessing)


def test_a_vision_transformer_takes_the_size_of_its_file(tmp_path: Path) -> None:
    """SWAG's are of 384 x 384 pixels: 577 positions, not 197."""
    large = models.vit_b_32(weights=None, image_size=96, num_classes=7).state_dict()
    save_file(large, tmp_path / "vit.safetensors")
    network = load("vit_b_32", "conv_proj", weights=tmp_path / "vit.safetensors", resize=96, crop=96)
    assert network.logits(torch.rand(1, 3, 96, 96)).shape == (1, 7)
