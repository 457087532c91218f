"""Checkpoints as training scripts leave them."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from gradcampp.errors import InputError, Notice
from gradcampp.networks.load import load
from gradcampp.networks.weights import Checkpoint, classes_of_head, fill, read
from tests.networks import Scored

State = dict[str, Tensor]


def state(seed: int = 9) -> State:
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in Scored().state_dict().items()}


def behind(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def filled(content: object, path: Path, module: nn.Module | None = None) -> State:
    torch.save(content, path)
    module = module or Scored()
    fill("net", module, read(path))
    return dict(module.state_dict())


WRAPPED: dict[str, Any] = {
    "model_state_dict": {"model_state_dict": state(), "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "model_state": {"model_state": state(), "epoch": 3},
    "net": {"net": state(), "acc": 93.1},
    "ema": {"ema": state()},
    "model_ema, with a counter": {"model_ema": behind("module.", state()) | {"n_averaged": torch.tensor(3)}},
    "state_dict_ema": {"state_dict_ema": state(), "arch": "scored"},
    "two wrappers": {"checkpoint": {"model": state()}},
    "the same tensors twice": {"model": state(), "state_dict": behind("module.", state())},
    "Lightning": {"state_dict": behind("model.", state()), "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2"},
    "Lightning with a loss": {"state_dict": behind("net.", state()) | {"loss.weight": torch.ones(3)}},
    "torch.compile": behind("_orig_mod.", state()),
    "torch.compile inside": {key.replace("features.", "features._orig_mod."): value for key, value in state().items()},
    "DataParallel of a compiled one": behind("module._orig_mod.", state()),
    "backbone.": behind("backbone.", state()),
    "encoder.": behind("model.encoder.", state()),
    "a part behind a prefix": {key.replace("features.", "backbone.features."): value for key, value in state().items()},
    "with a number that is none": state() | {"features.3.bias": torch.full((6,), math.nan)},
    "beside its tensors": {**state(), "epoch": 3},
    "options and NumPy's numbers": {"model": state(), "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)},
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_prefixes_come_off_where_one_way_fits(tmp_path: Path, content: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # of what is left out: see below
        found = filled(content, tmp_path / "w.pth")
    assert all(torch.equal(found[key], value) or found[key].isnan().all() for key, value in state().items())


def test_a_network_around_the_one_of_the_file_is_filled_too(tmp_path: Path) -> None:
    whole = nn.ModuleDict({"backbone": Scored()})
    found = filled(state(), tmp_path / "w.pth", whole)
    assert all(torch.equal(found[f"backbone.{key}"], value) for key, value in state().items())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    with pytest.warns(Notice, match=r"w.pth: left out loss.weight, which are not of net"):
        filled(WRAPPED["Lightning with a loss"], tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"state_dict": state(), "state_dict_ema": state(1)},
            "hold net more than once, as state_dict, state_dict_ema; save the one",
        ),
        (behind("student.", state()) | behind("teacher.", state(1)), "hold net more than once, as student, teacher; save"),
        ({"model": {key: value for key, value in state().items() if key != "features.3.bias"}}, "the file lacks features.3.bias"),
        ({"model": behind("model.", state()) | {"model.more": torch.ones(1)}}, "the file has unknown more"),
        (
            {key.replace("classifier.1", "head"): value for key, value in state().items()},
            r"the file lacks classifier.1.weight, classifier.1.bias",
        ),
        ({"model": state() | {"features.3.bias": torch.ones(7)}}, r"the file has features.3.bias \(7,\) instead of \(6,\)"),
        (
            {key: value.to(torch.int8) for key, value in state().items()},
            "is of a quantised network, with whole numbers in features",
        ),
        (
            nn.Linear(2, 2),
            "it is no checkpoint, or holds code .*; expected a .safetensors file or a checkpoint of tensors only, as",
        ),
        ({"epoch": 3}, "expected a state dictionary of tensors, got dict"),
    ],
)
def test_where_no_way_fits_or_two_do_the_line_names_the_keys(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        filled(content, tmp_path / "w.pth")


@pytest.mark.parametrize("name", [name for name in models.list_models(models) if not name.startswith("regnet")])  # see below
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_the_number_of_classes_is_read_off_every_kind_of_head(name: str) -> None:
    with torch.device("meta"):  # shapes without numbers, which RegNet needs while it is built
        module, tuned = models.get_model(name, weights=None), models.get_model(name, weights=None, num_classes=5)
    assert classes_of_head(module, Checkpoint(Path(), {"": behind("model.", tuned.state_dict())})) == 5
    assert classes_of_head(module, Checkpoint(Path(), {"": dict(module.state_dict())})) is None


HEADS = {"resnet18": 64, "squeezenet1_1": 64, "vit_b_32": 224, "googlenet": 64}  # and the size of a picture that is quick


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_a_fine_tuned_network_has_as_many_classes_as_its_head(tmp_path: Path, name: str) -> None:
    tuned = models.get_model(name, weights=None, num_classes=5)
    torch.save({"model": tuned.state_dict()}, tmp_path / "ft.pth")
    with pytest.warns(Notice) if name == "googlenet" else contextlib.nullcontext():
        network = load(name, weights=tmp_path / "ft.pth", resize=HEADS[name], crop=HEADS[name], layer=FIRST.get(name))
    pixels = torch.rand(1, 3, HEADS[name], HEADS[name])
    assert len(network.classes) == 5
    assert "assumed" in network.preprocessing.origin
    if name != "googlenet":  # which take other inputs with weights of torchvision
        expected = tuned.eval()(network._inputs(pixels)).detach()
        assert torch.allclose(network.logits(pixels), expected, atol=1e-5 * float(expected.abs().max()))  # memory formats


FIRST = {"vit_b_32": "conv_proj"}


def test_heads_that_only_training_asks_may_be_missing(tmp_path: Path) -> None:
    tuned = models.googlenet(weights=None, aux_logits=False, init_weights=False, num_classes=4)
    torch.save(tuned.state_dict(), tmp_path / "ft.pth")
    with pytest.warns(Notice, match="googlenet transforms its input, as torchvision's weights expect: assumed"):
        assert len(load("googlenet", weights=tmp_path / "ft.pth", resize=64, crop=64).classes) == 4


def test_another_head_is_not_a_number_of_classes(tmp_path: Path) -> None:
    tuned = models.resnet18(weights=None)
    tuned.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 3))
    torch.save(tuned.state_dict(), tmp_path / "ft.pth")
    assert classes_of_head(models.resnet18(weights=None), read(tmp_path / "ft.pth")) is None
    with pytest.raises(InputError, match="do not fit resnet18: the file lacks fc.weight, fc.bias"):
        load("resnet18", weights=tmp_path / "ft.pth")


@pytest.mark.parametrize(
    "told",
    [
        {"classes": ["cat", "dog", "fish"]},
        {"class_names": ("cat", "dog", "fish")},
        {"class_to_idx": {"fish": 2, "cat": 0, "dog": 1}},
        {"idx_to_class": {0: "cat", 2: "fish", 1: "dog"}},
        {"config": {"id2label": {"0": "cat", "1": "dog", "2": "fish"}}},
        {"hyper_parameters": {"class_names": ["cat", "dog", "fish"]}},
    ],
)
def test_class_names_of_a_checkpoint_are_the_networks(tmp_path: Path, told: dict[str, Any]) -> None:
    torch.save({"model": state(), **told}, tmp_path / "w.pth")
    assert load("tests.networks:Scored", weights=tmp_path / "w.pth", crop=16, resize=20).classes.names == ("cat", "dog", "fish")


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat", "dog", "cat"]])
def test_class_names_that_do_not_fit_are_left_out_and_said(tmp_path: Path, names: list[str]) -> None:
    torch.save({"model": state(), "classes": names}, tmp_path / "w.pth")
    with pytest.warns(Notice, match=f"the checkpoint's {len(names)} class names are not 3 different ones"):
        found = load("tests.networks:Scored", weights=tmp_path / "w.pth", crop=16, resize=20)
    assert found.classes.names == ("class 0", "class 1", "class 2")
    own = load("tests.networks:Scored", weights=tmp_path / "w.pth", crop=16, resize=20, classes=["a", "b", "c"])
    assert own.classes.names == ("a", "b", "c")


def test_the_published_weights_that_are_in_the_cache_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision itself leaves those there that are its default, which are often the second ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(models.mobilenet_v2(weights=None).state_dict(), folder / "w.pth")
    prefix = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()[:8]
    (folder / "w.pth").rename(folder / f"mobilenet_v2-{prefix}.pth")
    second = models.MobileNet_V2_Weights.IMAGENET1K_V2
    monkeypatch.setattr(second.value, "url", second.url.replace("7ebf99e0", prefix))
    network = load("mobilenet_v2")
    assert network.preprocessing.resize == 232
    assert network.preprocessing.origin == f"from {second}, whose file this is"
