"""What outputs mean: scores and gradients against autograd, and networks that have a softmax or a sigmoid already."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcampp.cam import COLUMNS
from gradcampp.errors import InputError, Notice
from gradcampp.evaluation import records
from gradcampp.evaluation.arrays import save_arrays
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.maps import explain
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.classes import numbered
from gradcampp.networks.load import load
from gradcampp.networks.scores import Score, cotangents, probabilities
from gradcampp.results import report
from gradcampp.results.tables import notes
from tests.networks import Scored, scored
from tests.test_evaluate import LAYER, SMALL, network


class Ending(Scored):
    """The small network with something behind its logits."""

    def __init__(self, end: Callable[[Tensor], Tensor], classes: int = 3) -> None:
        super().__init__(classes)
        if classes == 3:
            self.load_state_dict(scored().state_dict())
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(super().forward(images))


def positive(values: Tensor) -> Tensor:
    """A quantity on a scale with a natural zero, far over 1."""
    return values.exp() + 2


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_gradients_of_a_score_are_those_of_autograd(score: Score) -> None:
    """In float64 both ways; a few operations each."""
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 3, 3, 1])
    own = probabilities(logits, score).gather(1, labels[:, None]).sum()
    pre, post = cotangents(logits.detach(), labels, score)
    torch.testing.assert_close(post, torch.autograd.grad(own, logits)[0], rtol=0, atol=1e-14)
    assert pre.tolist() == nn.functional.one_hot(labels, 5).double().tolist()


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_a_sure_score_keeps_its_gradient(score: Score) -> None:
    """Float32 has no digits of 1 - s at a logit of 30: s(1 - s) is exp(-30) up to rounding, not 0."""
    logits = torch.tensor([[30.0, 0.0]])
    post = cotangents(logits, torch.tensor([0]), score)[1]
    assert post[0, 0].item() == pytest.approx(math.exp(-30), rel=1e-6)


def test_a_logit_is_its_own_score_and_has_one_gradient() -> None:
    logits, labels = torch.tensor([[-3.0, 7.0]]), torch.tensor([1])
    assert probabilities(logits, "logit").tolist() == [[-3.0, 7.0]]
    assert cotangents(logits, labels, "logit").tolist() == [[[0.0, 1.0]]]
    assert probabilities(logits, "sigmoid")[0, 0].item() == pytest.approx(1 / (1 + math.exp(3)), rel=1e-15)


SOFTMAX, SIGMOID = "it ends in a softmax, which would be taken twice", "it ends in a sigmoid"


@pytest.mark.parametrize(
    ("end", "score", "says"),
    [
        (nn.Softmax(1), "softmax", SOFTMAX),
        (nn.Softmax(1), "sigmoid", SOFTMAX),
        (lambda y: y.reshape(-1, 3, 1).softmax(1)[..., 0].clamp(1e-6, 1 - 1e-6), "softmax", SOFTMAX),
        (lambda y: y.log_softmax(1).exp(), "softmax", SOFTMAX),
        (lambda y: 100 * y.softmax(1), "softmax", rf"lie in \[0, 100\] and sum to 100: {SOFTMAX}"),
        (lambda y: y.relu() / y.relu().sum(1, keepdim=True).clamp(1e-9), "softmax", SOFTMAX),
        (nn.Sigmoid(), "softmax", SIGMOID),
        (nn.Sigmoid(), "sigmoid", SIGMOID),
        (nn.Hardsigmoid(), "softmax", SIGMOID),
    ],
)
def test_a_second_softmax_or_sigmoid_is_refused_with_what_to_do(end: Callable[[Tensor], Tensor], score: Score, says: str) -> None:
    with pytest.raises(InputError, match=f"{says}.*logits before its.*or choose --score logit"):
        load(Ending(end).eval(), LAYER, resize=20, crop=16, score=score)


def test_one_output_needs_to_say_what_it_is() -> None:
    for classes in (1,):
        with pytest.raises(InputError, match=r"one output, and the softmax of one number is always 1; choose --score sigmoid"):
            load(Scored(classes).eval(), LAYER, resize=20, crop=16)
        with pytest.raises(InputError, match="it ends in a sigmoid"):
            load(Ending(nn.Sigmoid(), classes).eval(), LAYER, resize=20, crop=16)
    kinds: tuple[Score, ...] = ("sigmoid", "logit")
    for score in kinds:
        assert load(Scored(1).eval(), LAYER, resize=20, crop=16, score=score).score == score


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (nn.LogSoftmax(1), "ends in a log-softmax: its softmax scores are right, and what is explained before the softmax"),
        (lambda y: (y.tanh() + 1) / 2, r"outputs lie in \[0, 1\]; they are taken for logits that a softmax follows"),
    ],
)
def test_what_nobody_can_know_is_said(end: Callable[[Tensor], Tensor], says: str) -> None:
    with pytest.warns(Notice, match=says):
        load(Ending(end).eval(), LAYER, resize=20, crop=16)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("end", [nn.Identity(), nn.Tanh(), nn.Softplus()])
def test_logits_are_not_mistaken_for_probabilities(end: Callable[[Tensor], Tensor]) -> None:
    assert load(Ending(end).eval(), LAYER, resize=20, crop=16).score == "softmax"


def evaluated(folder: Path, out: Path, module: nn.Module, score: Score, threshold: float = 0.5) -> Run:
    own = replace(network(module.eval()), score=score)
    photographs = list_photographs(folder, numbered(3))
    return evaluate(own, photographs, folder, out, experiment_of(own, threshold), Execution(4, 0, "cpu"))


def test_a_multi_label_run_has_sigmoid_scores_and_their_gradients(folder: Callable[..., Path], tmp_path: Path) -> None:
    """float32 of other batches on both sides."""
    data = folder(3)
    run = evaluated(data, tmp_path / "run", scored(), "sigmoid")
    module = scored().eval()
    counted = 0
    for _, row in run.records.iterrows():
        pixels = read_photograph(data / row["image"], SMALL).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (SMALL.mean, SMALL.std))
        logits = module(((pixels - mean) / std)[None])[0].double()
        assert row["score"] == pytest.approx(logits[row["label"]].sigmoid().item(), abs=1e-5)
        if row["score"] > 0.5 and row["pre_gradcam"] > 0:
            counted += 1
            assert row["post_gradcam"] == pytest.approx(row["pre_gradcam"], abs=1e-4)  # one map: its gradient times s(1 - s)
    assert counted > 2
    assert any("s (1 - s)" in line for line in notes(run))


def test_of_a_quantity_there_is_nothing_behind_a_softmax(folder: Callable[..., Path], tmp_path: Path) -> None:
    run = evaluated(folder(3), tmp_path / "run", Ending(positive), "logit")
    rows = run.records
    assert run.manifest["experiment"]["threshold"] is None
    assert run.manifest["top1"] is None
    assert rows["score"].min() > 2
    assert rows[[name for name in COLUMNS if name.startswith("pre")]].notna().all(axis=1).sum() > 2
    assert rows[[name for name in records.SCHEMA.names if name.startswith("post")]].isna().all().all()
    assert (run.alphas["post"].count, run.alphas["pre"].count > 0) == (0, True)
    said = report.write(run, tmp_path / "report")
    table = next(line for line in said.text.splitlines() if line.startswith("Grad-CAM++ vs Grad-CAM "))
    assert table.endswith("undefined")
    assert "[" in table
    assert "post: undefined, as nothing follows the outputs (--score logit)" in said.text
    assert {path.name for path in said.files} >= {"figure4-pre.png", "figure6.png"}
    assert not (tmp_path / "report" / "figure4-post.png").exists()
    own = replace(network(), score="logit")
    explained = explain(own, torch.zeros(3, 16, 16, dtype=torch.uint8), [0], "pre")
    with np.load(save_arrays(tmp_path / "a.npz", own, [Path(__file__)], explained)) as found:
        assert {name.partition("_")[0] for name in found} == {"pre", "logits", "label", "pixels", "evidence"}
    with pytest.raises(InputError, match="so there is no post gradient; choose pre"):
        explain(replace(network(), score="logit"), torch.zeros(3, 16, 16, dtype=torch.uint8), [0], "post")


def test_a_quantity_that_is_not_over_0_has_no_ratio(folder: Callable[..., Path], tmp_path: Path) -> None:
    run = evaluated(folder(2), tmp_path / "run", scored(), "logit")
    assert (run.records["pre_gradcam"] < 0).any()
    said = report.write(run, tmp_path / "report")
    assert "Tables 1 and 2 and Figure 6 are undefined" in said.text
    assert "those that are not over 0 have no ratio" in said.text
    with pytest.raises(InputError, match="--threshold 0.3: with --score logit every image is explained; leave it out"):
        evaluated(folder(1, "other"), tmp_path / "other", scored(), "logit", 0.3)
