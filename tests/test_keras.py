"""VGG16 of Keras as torchvision's network: the same logits from the same photograph.

The proof takes the whole network, 138 million random weights in the layout of the file that Keras publishes, and Keras' own
ways to prepare a photograph and to compute. The published numbers themselves are not here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gradcampp.cli import main
from gradcampp.errors import InputError
from gradcampp.evaluation import download, profiles
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.profiles import Download
from gradcampp.networks import keras as ours
from gradcampp.networks.capture import Network
from gradcampp.networks.load import load
from gradcampp.results import tables
from scripts import preparations
from tests.conftest import photograph

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
LAYERS = (*ours.CONVOLUTIONS, *ours.DENSE)


class Proof(NamedTuple):
    """What Keras makes of a photograph that is neither square nor of the network's size, and our network from Keras' file.

    ``prepared`` is the input of Keras' network, (224, 224, 3), and ``logits`` its output, (1000,).
    """

    keras: Any
    prepared: np.ndarray
    logits: np.ndarray
    network: Network
    file: Path
    photograph: Path


def write(path: Path, layers: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Kernels and biases as Keras 1 laid them out, which the published file still is: ``fc1/fc1_W_1:0``."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, arrays in layers.items():
            names = [f"{layer}_W_1:0", f"{layer}_b_1:0"]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                group[name] = array
    return path


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    folder = tmp_path_factory.mktemp("keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "torch":
        pytest.skip("keras has been loaded with another backend")
    with torch.random.fork_rng(devices=[]):
        keras.utils.set_random_seed(5)
        model = keras.applications.VGG16(weights=None, classifier_activation=None)
    numbers = np.random.default_rng(5)
    layers = {}
    for layer in LAYERS:
        kernel, bias = model.get_layer(layer).weights
        bias.assign(numbers.normal(scale=0.1, size=bias.shape))
        layers[layer] = tuple(each.value.detach().numpy() for each in (kernel, bias))
    file, picture = write(folder / "vgg16.h5", layers), folder / "photograph.png"
    photograph(7).resize((301, 173)).save(picture)
    pixels = keras.utils.img_to_array(keras.utils.load_img(picture, target_size=(224, 224)))
    prepared = keras.applications.vgg16.preprocess_input(pixels[None])  # as Keras' documentation does it
    with torch.inference_mode():
        logits = model(prepared).cpu().numpy()[0]
    del model
    yield Proof(keras, prepared[0], logits, load("vgg16", weights=file), file, picture)
    file.unlink()  # 553 MB


def logits_of(network: Network, picture: Path) -> np.ndarray:
    pixels = read_photograph(picture, network.preprocessing)[None].float() / 255
    found: np.ndarray = network.logits(pixels)[0].detach().numpy()
    return found


def test_both_networks_give_the_same_logits_for_the_same_photograph(proof: Proof) -> None:
    """Sums of 25,088 products in float32, in another order: 1e-4 where the logits spread by more than 0.1."""
    assert proof.logits.std() > 0.1
    np.testing.assert_allclose(logits_of(proof.network, proof.photograph), proof.logits, rtol=0, atol=1e-4)
    bilinear = replace(proof.network, preprocessing=replace(proof.network.preprocessing, interpolation="bilinear"))
    other = logits_of(bilinear, proof.photograph)
    assert np.abs(other - proof.logits).max() > 1e-3  # that the photograph is prepared alike is part of the proof


def test_a_photograph_is_prepared_to_the_same_numbers(proof: Proof) -> None:
    preprocessing = proof.network.preprocessing
    pixels = read_photograph(proof.photograph, preprocessing).numpy().transpose(1, 2, 0) / 255
    normalised = (pixels - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(normalised[:, :, ::-1], proof.prepared, rtol=0, atol=1e-4)  # blue first in Keras


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("features.0.weight", lambda weight: weight.flip(1)),  # red first
        ("features.2.weight", lambda weight: weight.transpose(2, 3)),  # width, height
        ("classifier.0.weight", lambda weight: weight.unflatten(1, (512, 7, 7)).permute(0, 2, 3, 1).flatten(1)),  # as in the file
    ],
)
def test_a_wrong_conversion_would_be_seen(proof: Proof, key: str, wrong: Any) -> None:
    parameter = proof.network.module.get_parameter(key)
    right = parameter.data.clone()
    try:
        parameter.data = wrong(right)
        assert np.abs(logits_of(proof.network, proof.photograph) - proof.logits).max() > 1e-3
    finally:
        parameter.data = right


def test_the_names_in_the_file_of_keras_3_do_as_well(proof: Proof, tmp_path: Path) -> None:
    """They are ``fc1/kernel``; two small layers stand for all."""
    from keras.src.legacy.saving import legacy_h5_format

    small = proof.keras.Sequential([proof.keras.layers.Input((4,)), proof.keras.layers.Dense(3, name="fc2")])
    with h5py.File(tmp_path / "small.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, small)
    with h5py.File(tmp_path / "small.h5") as file:
        kernel, bias = ours._kernel_and_bias(file["fc2"])
    assert torch.equal(kernel, small.layers[0].kernel.value)
    assert torch.equal(bias, small.layers[0].bias.value)


def tiny() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All layers of the right names and kinds, one wide."""
    convolutions = {layer: (np.zeros((3, 3, 1, 1), "f4"), np.zeros(1, "f4")) for layer in ours.CONVOLUTIONS}
    return convolutions | {layer: (np.zeros((49, 1), "f4"), np.zeros(1, "f4")) for layer in ours.DENSE}


@pytest.mark.parametrize(
    ("model", "name", "says"),
    [
        ("vgg19", "tiny.h5", "only those of its VGG16 can be read, with --model vgg16"),
        ("vgg16", "absent.h5", "no such file"),
        ("vgg16", "text.h5", "cannot read weights"),
        ("vgg16", "notop.h5", "it lacks fc1, fc2, predictions"),
        ("vgg16", "tiny.h5", "do not fit vgg16: the file has features.0.weight (1, 1, 3, 3) instead of (64, 3, 3, 3)"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, name: str, says: str) -> None:
    write(tmp_path / "tiny.h5", tiny())
    write(tmp_path / "notop.h5", {layer: arrays for layer, arrays in tiny().items() if layer not in ours.DENSE})
    (tmp_path / "text.h5").write_text("no weights")
    photograph(1).save(tmp_path / "p.png")
    command = ["explain", str(tmp_path / "p.png"), "--model", model, "--weights", str(tmp_path / name)]
    assert main([*command, "--out", str(tmp_path / "out.png")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_without_h5py_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.h5", tiny())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py"):
        ours.read(path, "vgg16")


def test_each_way_to_prepare_a_photograph_is_counted(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Pillow alone, on a small network; photographs are not square, so that every way gives another picture."""
    data, own = folder(), tmp_path / "own.toml"
    for file in data.rglob("*.*"):
        with Image.open(file) as image:
            image.convert("RGB").resize((311, 401 if "1" in file.name else 257)).save(file)
    own.write_text(f'model = "tests.networks:scored"\nresize = 256\ncrop = 224\nthreshold = 0.3\ndata = "{data}"\n')
    command = ["--profile", str(own), "--out", str(tmp_path / "out")]
    preparations.main(command, standalone_mode=False)
    found = pd.read_csv(tmp_path / "out" / "preparations.csv")
    network = load("tests.networks:scored")
    expected = []
    for fit, interpolation in zip(found["fit"], found["interpolation"], strict=True):
        kind, over, scores = Image.Resampling[interpolation.upper()], 0, []
        for file in sorted(data.rglob("*.*")):
            with Image.open(file) as image:
                if fit == "squash":
                    seen = image.resize((224, 224), kind)
                else:
                    scale = 256 / min(image.size)
                    larger = image.resize((int(image.width * scale), int(image.height * scale)), kind)
                    left, top = round((larger.width - 224) / 2), round((larger.height - 224) / 2)
                    seen = larger.crop((left, top, left + 224, top + 224))
            pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].float() / 255
            scores.append(float(network.logits(pixels).softmax(1)[0, int(file.parent.name)]))
            over += scores[-1] > 0.3
        expected.append((over, tuple(scores)))
    assert [over for over, _ in expected] == list(found["over_threshold"])
    assert len(set(expected)) == len(found) == 6
    assert list(found["from_paper"]) == list(found["over_threshold"] - 4219)
    assert "none gives the paper's 4219 images; nearest is" in capsys.readouterr().out
    monkeypatch.setattr(preparations, "scores", None)
    preparations.main(command, standalone_mode=False)  # what is done is not repeated
    assert pd.read_csv(tmp_path / "out" / "preparations.csv").equals(found)


def test_the_way_that_gives_the_papers_count_is_named() -> None:
    rows = pd.DataFrame(
        [["squash", "nearest", 10, 4219, 0, 0.5], ["crop", "bicubic", 10, 4220, 1, 0.5]], columns=preparations.ROWS
    )
    assert preparations.verdict(rows, 0.5).startswith("squash, nearest: the paper's 4219 images over 0.5")
    assert "nearest is crop, bicubic: 4220 images over 0.5, +1" in preparations.verdict(rows[1:], 0.5)


def test_the_count_of_the_paper_alone_is_compared_where_nothing_else_is_known() -> None:
    expected = profiles.load("paper-keras").expected
    assert expected is not None
    run = {"experiment": {"weights": "any", "threshold": 0.5}, "images": 10_000, "top1": 0.5, "top5": 0.7, "over_threshold": 4219}
    check = tables.self_check(run, expected)
    assert list(check.rows["quantity"]) == ["over 0.5"]
    assert not check.rows["deviates"].any()
    assert check.warnings == ()


def test_the_profile_is_the_paper_on_the_network_of_keras() -> None:
    paper, keras = profiles.load("paper"), profiles.load("paper-keras")
    assert keras.download["weights"].md5 == "64373286793e3c8b2b4e3219cbf3544b"
    assert keras.download["weights"].file.endswith(".h5")
    assert (keras.model, keras.layer, keras.threshold) == (paper.model, paper.layer, paper.threshold)
    for key in ("data", "photograph"):
        assert keras.download[key] == paper.download[key]


def test_an_md5_is_checked_where_its_publisher_states_nothing_else(tmp_path: Path) -> None:
    wanted = Download("http://host/w.h5", 3, md5="acbd18db4cc2f85cedef654fccc4a4d8")
    (tmp_path / "w.h5").write_text("foo")
    assert download.problem(wanted, tmp_path) is None
    (tmp_path / "w.h5").write_text("fop")
    assert "with MD5" in str(download.problem(wanted, tmp_path))
    assert "expected 3 bytes with acbd18db" in str(download.problem(wanted, tmp_path))
