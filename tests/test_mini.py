"""The embedded network: what ships, how it was trained, and that it does what its card says."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gradcampp.errors import InputError
from gradcampp.networks import load, mini
from gradcampp.networks.capture import capture
from gradcampp.networks.layers import default_layer
from gradcampp.scenes import CLASSES, SIZE
from scripts import run
from scripts.train_mini import Recipe, collect, fold_batch_norm, grey, main, probabilities, train, with_batch_norm

RESOURCES = files("gradcampp").joinpath("resources")


def test_the_weights_are_small_and_those_that_were_published(monkeypatch: pytest.MonkeyPatch) -> None:
    data = RESOURCES.joinpath("mini.safetensors").read_bytes()
    assert len(data) <= 4 * 2**20
    assert hashlib.sha256(data).hexdigest() == mini.SHA256
    assert mini.SHA256 in RESOURCES.joinpath("model_card.md").read_text("utf-8")
    monkeypatch.setattr("gradcampp.networks.mini.SHA256", "0" * 64)
    with pytest.raises(InputError, match="embedded weights are damaged"):
        mini.load()


def test_the_network_is_vgg_with_the_papers_layer_and_two_hidden_layers() -> None:
    model = load.load("mini")
    inputs = torch.zeros(1, 3, SIZE, SIZE)
    assert default_layer(model.module, inputs) == mini.LAYER
    captured = capture(model.module, mini.LAYER, inputs, torch.tensor([0]))
    assert min(captured.activations.shape[2:]) >= 14
    assert captured.logits.shape == (1, len(CLASSES))
    head = [child for child in model.module.get_submodule("classifier").children() if isinstance(child, torch.nn.Linear)]
    assert len(head) == 3  # two hidden layers and the scores
    assert model.classes.names == CLASSES


@pytest.fixture(scope="module")
def unseen() -> tuple[Tensor, Tensor]:
    return collect(0, "test", 200)


def test_it_knows_unseen_clear_scenes_also_without_colour(unseen: tuple[Tensor, Tensor]) -> None:
    pixels, labels = unseen
    scores = probabilities(mini.load(), pixels)
    assert (scores.argmax(1) == labels).double().mean() > 0.95  # the card: over 0.97 of 1,000
    assert (scores.gather(1, labels[:, None]) > 0.5).double().mean() > 0.6
    assert (probabilities(mini.load(), grey(pixels)).argmax(1) == labels).double().mean() > 0.9


def test_it_errs_on_hard_scenes_but_is_sure_of_most() -> None:
    pixels, labels = collect(0, "test", 200, clear=False)
    scores = probabilities(mini.load(), pixels)
    assert 0.8 < (scores.argmax(1) == labels).double().mean() < 0.95  # the card says more exactly, of 1,000
    assert (scores.gather(1, labels[:, None]) > 0.5).double().mean() > 0.6


def test_folding_the_batch_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    model = with_batch_norm(mini.MiniVGG())
    model(torch.randn(8, 3, SIZE, SIZE))  # moves the running statistics
    inputs = torch.randn(2, 3, SIZE, SIZE)
    # float32 through 8 convolutions in another order of operations.
    torch.testing.assert_close(fold_batch_norm(model)(inputs), model.eval()(inputs), rtol=1e-3, atol=1e-3)


def test_training_is_a_function_of_its_seed_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"scenes": 40, "epochs": 2, "guided": 1, "batch": 20}
    train(tmp_path / "straight", 1, workers=0, held_out=10, **small)
    with monkeypatch.context() as patch:
        patch.setattr("scripts.train_mini._accuracy", _after(1, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", 1, workers=0, held_out=10, **small)
    with pytest.raises(InputError, match="choose another --out"):
        train(tmp_path / "stopped", 1, workers=0, held_out=10, **{**small, "rate": 1e-4})
    train(tmp_path / "stopped", 1, workers=0, held_out=10, **small)
    first, second = (load_file(tmp_path / name / "mini.safetensors") for name in ("straight", "stopped"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    card = (tmp_path / "straight" / "model_card.md").read_text()
    assert "| 2 |" in card
    assert "top-1 accuracy" in card
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "DIR", "--epochs", "0"], "--epochs"),
        (["--out", "DIR", "--seed", "-1"], "--seed"),
        (["--out", "FILE"], "--out"),
        ([], "Missing option '--out'"),
    ],
)
def test_the_script_refuses_bad_input_in_one_line(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["scripts/train_mini.py", *arguments])
    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("train_mini: error: ")
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "DIR").exists()


def _after(count: int, error: BaseException) -> object:
    """A stand-in for the accuracy that raises after some calls."""
    calls = iter([0.5] * count)

    def accuracy(*_: object) -> float:
        for value in calls:
            return value
        raise error

    return accuracy


def test_the_recipe_is_in_the_card() -> None:
    card = RESOURCES.joinpath("model_card.md").read_text("utf-8")
    assert f'"scenes": {Recipe().scenes}' in card
    assert f'"epochs": {Recipe().epochs}' in card
