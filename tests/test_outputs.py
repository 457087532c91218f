"""Logits in whatever a network returns, and arguments that are not what they should be: the right value or one line."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradcampp
from gradcampp import cam
from gradcampp.cli import main
from gradcampp.errors import InputError
from gradcampp.networks.capture import Network, capture
from gradcampp.networks.layers import default_layer
from gradcampp.networks.outputs import logits_of
from tests.networks import Returning, Scored


class ModelOutput(OrderedDict[str, Tensor]):
    """As Hugging Face's: a dictionary whose keys are attributes, too."""


@dataclass
class Output:
    features: Tensor
    out: Tensor
    loss: Tensor | None = None


Named = namedtuple("Named", ["logits", "aux_logits"])
Wrap = Callable[[Tensor, Tensor], object]

AUTOMATIC: dict[str, Wrap] = {
    "a tensor": lambda logits, maps: logits,
    "a tuple with maps": lambda logits, maps: (maps, logits),
    "a list of one": lambda logits, maps: [logits],
    "a dictionary": lambda logits, maps: {"features": maps.mean((2, 3)), "logits": logits},
    "torchvision's out": lambda logits, maps: {"out": logits, "aux": 2 * logits},
    "a ModelOutput": lambda logits, maps: ModelOutput(logits=logits, hidden=maps),
    "logits and auxiliary ones": lambda logits, maps: Named(logits, 2 * logits),
    "a data class": lambda logits, maps: Output(maps.mean((2, 3)), logits),
    "an object": lambda logits, maps: SimpleNamespace(scores=logits, loss=None),
    "scores of 1 x 1 maps": lambda logits, maps: logits[:, :, None, None],
}
BY_NAME: list[tuple[Wrap, str | int]] = [
    (lambda logits, maps: (maps.mean((2, 3)), logits), 1),
    (lambda logits, maps: (maps.mean((2, 3)), logits), "1"),
    (lambda logits, maps: {"embedding": maps.mean((2, 3)), "scores": logits}, "scores"),
    (lambda logits, maps: {"embedding": maps.mean((2, 3)), "scores": logits}, 1),
    (lambda logits, maps: {"logits": maps.mean((2, 3)), "calibrated": logits}, "calibrated"),
    (lambda logits, maps: Output(maps, maps.mean((2, 3)), logits), "loss"),
]


def asked(wrap: Wrap, output: str | int | None = None) -> tuple[Tensor, Tensor, str]:
    torch.manual_seed(0)
    module, images = Returning(wrap).double(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    captured = capture(module, "features", images, torch.tensor([2, 1]), output=output)
    return captured.logits, captured.gradients["post"], default_layer(module, images, output)


@pytest.mark.parametrize("wrap", AUTOMATIC)
def test_there_is_one_answer(wrap: str) -> None:
    for found, expected in zip(asked(AUTOMATIC[wrap]), asked(AUTOMATIC["a tensor"]), strict=True):
        assert found == expected if isinstance(found, str) else torch.equal(found, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("wrap", "output"), BY_NAME)
def test_the_user_names_it(wrap: Wrap, output: str | int) -> None:
    for found, expected in zip(asked(wrap, output), asked(AUTOMATIC["a tensor"]), strict=True):
        assert found == expected if isinstance(found, str) else torch.equal(found, expected)  # type: ignore[arg-type]


def test_load_takes_the_name_of_the_output_and_hands_it_on() -> None:
    module = Returning(lambda logits, maps: {"embedding": maps.mean((2, 3)), "scores": logits})
    with pytest.raises(InputError, match=r"dict of embedding \(2, 6\), scores \(2, 3\); name the logits with --output"):
        gradcampp.load(module)
    network = gradcampp.load(module, output="scores", crop=16, resize=16)
    assert network.logits(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert network.capture(torch.rand(2, 3, 16, 16), torch.tensor([2, 0])).logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("wrap", "output", "says"),
    [
        (
            lambda logits, maps: (logits, maps.mean((2, 3))),
            None,
            r"tuple of 0 \(2, 3\), 1 \(2, 6\); name the logits with --output",
        ),
        (lambda logits, maps: {"logits": logits}, "scores", r"--output scores: .*logits \(2, 3\)"),
        (lambda logits, maps: (logits, maps), 2, r"--output 2: .*tuple of 0 \(2, 3\), 1 \(2, 6, 6, 6\); expected a tensor"),
        (
            lambda logits, maps: {"out": maps},
            None,
            r"\(2, 6, 6, 6\), scores of every place: wrap it in a module whose forward .*mask",
        ),
        (lambda logits, maps: maps, None, "scores of every place: wrap it"),
        (lambda logits, maps: None, None, "returns NoneType; expected class logits"),
        (lambda logits, maps: {}, None, "returns dict; expected class logits"),
        (lambda logits, maps: logits.tolist(), None, "expected class logits"),
        (lambda logits, maps: logits.argmax(1), None, r"torch.int64, which is no score"),
        (lambda logits, maps: logits.argmax(1, keepdim=True), None, r"torch.int64, which is no score"),
        (lambda logits, maps: logits.sum(), None, r"returns \(\) for 2 images; expected class logits \(B, C\)"),
        (lambda logits, maps: logits[:1], None, r"returns \(1, 3\) for 2 images"),
        (lambda logits, maps: logits[0], None, r"returns \(3,\) for 2 images"),
        (lambda logits, maps: logits[:, :0], None, r"returns \(2, 0\) for 2 images"),
        (lambda logits, maps: maps.flatten(2), None, r"returns \(2, 6, 36\) for 2 images"),
    ],
)
def test_what_is_no_answer_is_said_with_keys_and_shapes(wrap: Wrap, output: str | int | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        asked(wrap, output)


def test_one_score_an_image_is_one_class() -> None:
    logits, gradients, _ = one_score(lambda logits: logits[:, 0])
    column, expected, _ = one_score(lambda logits: logits[:, :1])
    assert logits.shape == (2, 1)
    assert torch.equal(logits, column)
    assert torch.equal(gradients, expected)


def one_score(choose: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    torch.manual_seed(0)
    module, images = Returning(lambda logits, maps: choose(logits)).double(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    captured = capture(module, "features", images, torch.tensor([0, 0]))
    return captured.logits, captured.gradients["pre"], ""


def test_the_mask_of_the_documentation_works() -> None:
    class Masked(nn.Module):
        def __init__(self, net: nn.Module, mask: Tensor) -> None:
            super().__init__()
            self.net, self.mask = net, mask

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = (self.net(x)["out"] * self.mask).sum((2, 3))
            return scores

    torch.manual_seed(0)

    class Segmenting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.head(self.body(x).relu())}

    net = Segmenting()
    mask = torch.zeros(14, 14)
    mask[2:5, 3:9] = 1
    captured = capture(Masked(net, mask), "net.body", torch.randn(1, 3, 16, 16), torch.tensor([4]))
    expected = net.head.weight[4].squeeze()[:, None, None] * mask * (captured.activations[0] > 0)
    torch.testing.assert_close(captured.gradients["pre"][0], expected, rtol=1e-6, atol=1e-7)  # one product in float32


def two() -> nn.Module:
    """A factory: logits, and what they were made from."""
    return Returning(lambda logits, maps: (logits, maps.mean((2, 3))))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 2, "tuple of 0 (2, 3), 1 (2, 6); name the logits with --output KEY_OR_INDEX"),
        (["--output", "0"], 0, "layer features.4"),
        (["--output", "2"], 2, "--output 2: the network returns tuple"),
        (["--output", "0", "--layout", "nchw"], 2, "--layout nchw: expected channels-first, channels-last or tokens:LEADING"),
        (["--output", "0", "--layout", "tokens:1:4x4", "--layer", "features.4"], 2, "--layout tokens:1:4x4 does not fit"),
    ],
)
def test_the_command_line_has_both_options(
    options: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(tmp_path / "scene.png")
    assert main(["scene", "--out", picture]) == 0
    small = ["--model", "tests.test_outputs:two", "--resize", "16", "--crop", "16", "--out", str(tmp_path / "out.png")]
    assert main(["explain", picture, *small, *options]) == code
    said = "".join(capsys.readouterr())
    assert says in said
    assert "Traceback" not in said


ZEROS, LABELS = torch.zeros(2, 3, 16, 16), torch.tensor([0, 1])
ARGUMENTS: list[tuple[Any, Any, str]] = [
    (ZEROS, torch.tensor([0]), r"labels: expected one for each image, \(2,\), got \(1,\)"),
    (ZEROS, torch.tensor(0), r"labels: expected one for each image, \(2,\), got \(\)"),
    (ZEROS, torch.tensor([[0], [1]]), r"labels: expected one for each image, \(2,\), got \(2, 1\)"),
    (ZEROS, torch.tensor([0, 1, 2]), r"got \(3,\)"),
    (ZEROS, torch.tensor([0.0, 1.0]), r"labels: expected whole numbers \(int64\), got torch.float32"),
    (ZEROS, torch.tensor([True, False]), "got torch.bool"),
    (ZEROS, torch.tensor([0, 3]), "labels: from 0 to 3, and the network has the classes 0 to 2"),
    (ZEROS, torch.tensor([-1, 1]), "labels: from -1 to 1"),
    (ZEROS, [0, 1], r"labels: expected a tensor \(B,\) of class numbers, got list"),
    (ZEROS, np.array([0, 1]), "got ndarray"),
    (ZEROS, 1, "got int"),
    (ZEROS, LABELS.to("meta"), "labels: on meta, and the network on cpu"),
    (ZEROS[0], LABELS, r"expected a batch \(B, 3, h, w\) of at least one image, got \(3, 16, 16\)"),
    (ZEROS[:0], LABELS[:0], r"of at least one image, got \(0, 3, 16, 16\)"),
    (ZEROS.byte(), LABELS, "expected floating point, got torch.uint8; divide pixels of 0 to 255 by 255"),
    (ZEROS.numpy(), LABELS, r"expected a tensor \(B, 3, h, w\), got ndarray"),
    (ZEROS.tolist(), LABELS, "got list"),
    (ZEROS.to("meta"), LABELS, "on meta, and the network on cpu; move one of them"),
]


@pytest.mark.parametrize(("images", "labels", "says"), ARGUMENTS)
def test_wrong_arguments_are_one_line(images: Any, labels: Any, says: str) -> None:
    network = gradcampp.load(Scored(), resize=16, crop=16)
    asks: list[Callable[[], object]] = [
        lambda: capture(network.module, "features", images, labels),
        lambda: network.capture(images, labels),
    ]
    if not says.startswith("labels") and "got torch.bool" not in says and "got int" not in says and labels is LABELS:
        asks += [lambda: network.logits(images), lambda: default_layer(network.module, images)]
    for ask in asks:
        with pytest.raises(ValueError, match=says) as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert all(not child.training for child in network.module.modules())


def test_labels_of_any_whole_type_are_taken() -> None:
    expected = capture(Scored().eval(), "features", ZEROS, LABELS).gradients["pre"].shape
    for kind in (torch.int32, torch.uint8):
        assert capture(Scored(), "features", ZEROS, LABELS.to(kind)).gradients["pre"].shape == expected


@pytest.mark.parametrize(("factor", "shift"), [(255.0, 0.0), (4.0, -2.0)])
def test_pixels_on_another_scale_are_refused(factor: float, shift: float) -> None:
    network: Network = gradcampp.load(Scored(), resize=16, crop=16)
    pixels = torch.linspace(0, 1, 768).reshape(1, 3, 16, 16)
    assert network.logits(1.2 * pixels - 0.1).isfinite().all()  # as bicubic resizing leaves them
    for ask in (lambda: network.logits(factor * pixels + shift), lambda: network.capture(factor * pixels + shift, LABELS[:1])):
        with pytest.raises(InputError, match=r"pixels: expected values in \[0, 1\], before the normalisation; got"):
            ask()


def test_the_mathematics_says_what_it_expects() -> None:
    maps, weights = torch.rand(2, 4, 3, 3), torch.rand(2, 4)
    calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = [
        (cam.alphas, (maps, maps)),
        (lambda a, g: cam.weights("gradcam", a, g), (maps, maps)),
        (lambda a, g: cam.weights("gradcam++", a, g), (maps, maps)),
        (cam.heatmap, (weights, maps)),
        (cam.min_max, (maps,)),
    ]
    for call, right in calls:
        call(*right)
        for place in range(len(right)):
            for wrong in (right[place].numpy(), right[place].tolist(), right[place].long(), None, right[place].to("meta")):
                if len(right) == 1 and isinstance(wrong, Tensor) and wrong.is_meta:
                    continue  # alone on its device
                with pytest.raises(
                    ValueError, match=r"expected .*(\(B, K|\(\.\.\., H).*(floating point; got|on one device; got)"
                ):
                    call(*right[:place], wrong, *right[place + 1 :])


def test_a_view_of_the_networks_own_output_is_given() -> None:
    logits = torch.zeros(2, 3, requires_grad=True) * 1
    assert logits_of({"logits": logits}, 2) is logits
