"""Networks by name, and weights from disk."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import SqueezeNet1_0_Weights

from gradcampp.errors import InputError, Notice
from gradcampp.networks.load import load
from gradcampp.networks.preprocessing import Preprocessing
from tests.networks import Scored, scored

OWN = "tests.networks:scored"


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def differently() -> dict[str, Tensor]:
    torch.manual_seed(9)
    return weights_of(Scored())


@pytest.mark.parametrize(
    "wrap", [lambda given: given, lambda given: {"state_dict": given, "epoch": 3}, lambda given: {"model": given}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_load_with_the_wrappers_that_training_scripts_add(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, object]], prefix: str
) -> None:
    given = differently()
    torch.save(wrap({prefix + key: value for key, value in given.items()}), tmp_path / "w.pth")
    model = load(OWN, weights=str(tmp_path / "w.pth"))
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, given[key])
    assert model.weights == hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()


def test_safetensors_load(tmp_path: Path) -> None:
    given = differently()
    save_file(given, tmp_path / "w.safetensors")
    assert torch.equal(
        load(OWN, weights=str(tmp_path / "w.safetensors")).module.state_dict()["features.0.weight"], given["features.0.weight"]
    )


def test_a_factory_brings_its_own_weights_and_imagenets_preprocessing() -> None:
    model = load(OWN)
    assert torch.equal(model.module.state_dict()["features.0.weight"], scored().state_dict()["features.0.weight"])
    assert model.weights.startswith("from the factory, ")
    assert load("tests.networks:Scored").weights != model.weights
    assert model.preprocessing == Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not model.module.training


@pytest.mark.parametrize("precision", ["half", "double"])
def test_networks_of_other_precisions_are_asked_in_float32(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr("tests.networks.scored", lambda: getattr(scored(), precision)())
    assert {parameter.dtype for parameter in load(OWN).module.parameters()} == {torch.float32}


def test_random_weights_are_a_function_of_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (
        load("squeezenet1_1", weights="random", seed=seed).module.state_dict()["features.0.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)


def test_the_published_preprocessing_comes_with_the_name() -> None:
    assert load("mobilenet_v2", weights="random").preprocessing == Preprocessing(256, 224)
    assert load("inception_v3", weights="random").preprocessing == Preprocessing(342, 299)
    assert load("efficientnet_b0", weights="random").preprocessing.interpolation == "bicubic"


def test_published_weights_are_taken_from_torchvisions_cache_only_when_their_hash_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"no weights for squeezenet1_0: pass --weights FILE .*squeezenet1_0-b66bff10.pth"):
        load("squeezenet1_0")
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_0-b66bff10.pth"
    cached.parent.mkdir(parents=True)
    torch.save(load("squeezenet1_0", weights="random", seed=4).module.state_dict(), cached)
    with pytest.raises(InputError, match="damaged: expected a SHA-256 that starts with b66bff10"):
        load("squeezenet1_0")
    prefix = hashlib.sha256(cached.read_bytes()).hexdigest()[:8]
    right = cached.with_name(f"squeezenet1_0-{prefix}.pth")
    cached.rename(right)
    weights = SqueezeNet1_0_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(weights, "url", weights.url.replace("b66bff10", prefix))
    assert load("squeezenet1_0").weights.startswith(prefix)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "squeezenet",
            r"unknown model 'squeezenet': expected mini, efficientnet_lite0, a torchvision name \(nearest: squeezenet1_",
        ),
        ("nowhere:net", "cannot build the network 'nowhere:net': ModuleNotFoundError"),
        ("tests.networks:missing", "AttributeError"),
        ("tests.networks:nothing", r"returned str; expected a torch.nn.Module"),
        ("tests.networks:failing", "RuntimeError: no such checkpoint"),
    ],
)
def test_wrong_names_are_explained(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(name)


def test_wrong_weights_are_explained(tmp_path: Path) -> None:
    given = weights_of(Scored())

    def refused(name: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            load(OWN, weights=str(tmp_path / name))

    torch.save({key: value for key, value in given.items() if key != "features.3.bias"}, tmp_path / "missing.pth")
    refused("missing.pth", "lacks features.3.bias")
    torch.save({**given, "extra": torch.ones(1)}, tmp_path / "extra.pth")
    refused("extra.pth", "has unknown extra")
    torch.save({**given, "features.3.bias": torch.ones(7)}, tmp_path / "shape.pth")
    refused("shape.pth", r"features.3.bias \(7,\) instead of \(6,\)")
    torch.save(Scored(), tmp_path / "pickle.pth")
    refused("pickle.pth", "checkpoint of tensors only")
    torch.save([1, 2], tmp_path / "list.pth")
    refused("list.pth", "expected a state dictionary of tensors, got list")
    (tmp_path / "text.pth").write_text("hello")
    refused("text.pth", "cannot read weights")
    (tmp_path / "text.safetensors").write_text("hello")
    refused("text.safetensors", "cannot read weights")
    (tmp_path / "empty.pth").touch()
    refused("empty.pth", "cannot read weights")
    refused("absent.pth", "no such file")


def test_networks_of_timm_by_name() -> None:
    network = load("timm/resnet18", weights="random", crop=64, resize=64)
    assert (network.layer, network.name, len(network.classes)) == ("layer4.1", "timm/resnet18", 1000)
    assert network.preprocessing.interpolation == "bicubic"  # of its pretrained_cfg
    with pytest.raises(InputError, match=r"timm has no such network \(nearest: resnet18"):
        load("timm/resnet18z", weights="random")
    with pytest.raises(InputError, match="no weights for timm/resnet18: pass --weights FILE"):
        load("timm/resnet18")


class Uneven(Scored):
    """A network whose answer depends on more than the image."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.how(images))


@pytest.mark.parametrize(
    "how",
    [
        lambda x: nn.functional.dropout(x, 0.5, training=True),
        lambda x: x + torch.randn_like(x),
        nn.BatchNorm2d(3, track_running_stats=False),
        lambda x: x - x.mean(0, keepdim=True) / 2,
    ],
)
def test_a_network_that_answers_otherwise_each_time_or_in_each_batch_is_said_loudly(how: Callable[[Tensor], Tensor]) -> None:
    with pytest.warns(Notice, match="WARNING: the network gives one image other numbers at each call, or beside other images"):
        load(Uneven(how), "features.4", resize=20, crop=16)


@pytest.mark.parametrize("how", [nn.Identity(), nn.Dropout(0.5), nn.BatchNorm2d(3), lambda x: x * torch.nan, lambda x: x * 0])
def test_a_network_that_answers_the_same_has_no_such_line(how: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with contextlib.suppress(InputError):
            load(Uneven(how), "features.4", resize=20, crop=16)
    assert not [each for each in said if "at each call" in str(each.message)]


def test_a_network_in_inference_mode_says_so() -> None:
    module = scored()
    module.forward = torch.inference_mode()(module.forward)
    with pytest.raises(InputError, match=r"runs in torch\.inference_mode, which has no gradients; take that out of its forward"):
        load(module, resize=20, crop=16)
