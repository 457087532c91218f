"""The split network against plain autograd through the whole network."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import get_model

from gradcampp.cam import SCORES
from gradcampp.errors import InputError
from gradcampp.networks.capture import Network, Precision, capture, computing, forward, probabilities
from gradcampp.networks.classes import numbered
from gradcampp.networks.layers import default_layer
from gradcampp.networks.preprocessing import Preprocessing
from tests.networks import Custom, InPlace, Scored, Shared, Vector


def assert_exact(actual: Tensor, expected: Tensor) -> None:
    """Both sides are float64 and run the same operations; only the order of a few sums may differ."""
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def whole_graph(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The textbook way: keep the graph of the whole network, and the layer's last output in it."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = module.get_submodule(layer).register_forward_hook(keep)
    logits = module.eval()(inputs)
    handle.remove()
    rows = torch.arange(len(inputs))
    gradients = {
        scores: torch.autograd.grad(values[rows, labels].sum(), kept[-1], retain_graph=True)[0]
        for scores, values in {"pre": logits, "post": logits.exp() / logits.exp().sum(1, keepdim=True)}.items()
    }
    return kept[-1].detach(), gradients, logits.detach()


def made(factory: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return factory().double(), torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 2, 1, 2])


CASES = [
    pytest.param(InPlace, "layer", id="in-place ReLU behind the layer"),
    pytest.param(InPlace, "after", id="in-place ReLU as the layer"),
    pytest.param(InPlace, "trunk", id="early layer"),
    pytest.param(Shared, "conv", id="module called three times: the last call counts"),
    pytest.param(Shared, "stem", id="shared parameters and skip connection in the head"),
    pytest.param(Scored, "features", id="container"),
    pytest.param(Custom, "features", id="autograd.Function that cannot be batched"),
]


@pytest.mark.parametrize(("factory", "layer"), CASES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_capture_equals_autograd_through_the_whole_network(
    factory: Callable[[], nn.Module], layer: str, memory_format: torch.memory_format
) -> None:
    module, inputs, labels = made(factory)
    module = module.to(memory_format=memory_format)
    inputs = inputs.contiguous(memory_format=memory_format)
    activations, gradients, logits = whole_graph(module, layer, inputs, labels)
    captured = capture(module, layer, inputs, labels)
    assert_exact(captured.activations, activations)
    assert_exact(captured.logits, logits)
    for scores in SCORES:
        assert_exact(captured.gradients[scores], gradients[scores])


def test_the_gradients_are_derivatives() -> None:
    """Central differences, straight from the definition: independent of autograd."""
    module, inputs, labels = made(Scored)
    captured = capture(module, "features.4", inputs, labels)
    step, rows = 1e-6, torch.arange(len(inputs))

    def scores(change: Tensor) -> dict[str, Tensor]:
        logits = 20 * module.classifier(captured.activations + change)  # type: ignore[operator]
        return {"pre": logits[rows, labels], "post": logits.softmax(1)[rows, labels]}

    module.eval()
    for place in [(0, 0, 0), (3, 2, 1), (5, 4, 4)]:
        change = torch.zeros_like(captured.activations)
        change[:, *place] = step
        upper, lower = scores(change), scores(-change)
        for kind in SCORES:
            slope = (upper[kind] - lower[kind]) / (2 * step)
            # The error of a central difference is about 1e-16 / step = 1e-10, times the slope of the softmax.
            torch.testing.assert_close(captured.gradients[kind][:, *place], slope, rtol=1e-6, atol=1e-8)


class Raw(nn.Module):
    """The logits are the layer's own output: the gradient of a score is its derivative by the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images).flatten(1)
        return logits


def softmax_slopes(logits: list[float], label: int) -> list[float]:
    """The derivative of a softmax score by all logits, with 60 digits."""
    with decimal.localcontext(prec=60):
        exponentials = [decimal.Decimal(value).exp() for value in logits]
        p = [value / sum(exponentials) for value in exponentials]
        return [float(p[label] * ((place == label) - value)) for place, value in enumerate(p)]


def assert_softmax_slopes(slopes: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Every digit of float32, of small and of large logits, for each class in turn.

    Logits are multiples of 1/16, so their differences are exact. A sum of 12 terms of one sign, an exponential (two units),
    two quotients and two products: less than 20 roundings. What is below the smallest normal number is lost.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-64, 65, (4, 12), generator=generator) / 16
    drawn[0, 3] = 6.0  # of this class the network is sure: ten times the logits leave nothing of 1 - p
    for factor, label in itertools.product((1, 2, 10), range(12)):
        logits, labels = factor * drawn, torch.full((4,), label)
        expected = torch.tensor([softmax_slopes(row.tolist(), label) for row in logits], dtype=torch.float64)
        assert (logits.softmax(1)[0, 3] == 1) == (factor == 10)
        torch.testing.assert_close(slopes(logits, labels).double(), expected, rtol=20 * 2**-24, atol=2**-126)


def test_the_slopes_of_a_softmax_score_keep_their_digits_where_the_network_is_sure() -> None:
    def slopes(logits: Tensor, labels: Tensor) -> Tensor:
        return capture(Raw(), "layer", logits[:, :, None, None], labels).gradients["post"].flatten(1)

    assert_softmax_slopes(slopes)


def test_the_textbook_formula_would_lose_them() -> None:
    def slopes(logits: Tensor, labels: Tensor) -> Tensor:
        p, own = logits.softmax(1), nn.functional.one_hot(labels, 12)
        return p * (own - p.gather(1, labels[:, None]))

    with pytest.raises(AssertionError, match="not close"):
        assert_softmax_slopes(slopes)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_each_image_has_its_own_gradient_whatever_its_batch(chosen: list[int]) -> None:
    module, inputs, labels = made(Shared)
    together = capture(module, "conv", inputs, labels)
    some = capture(module, "conv", inputs[chosen], labels[chosen])
    for scores in SCORES:
        assert_exact(some.gradients[scores], together.gradients[scores][chosen])


def state(module: nn.Module) -> list[object]:
    modes = [child.training for child in module.modules()]
    flags = [(parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    hooks = [(len(child._forward_hooks), len(child._forward_pre_hooks)) for child in module.modules()]
    return [modes, flags, hooks, torch.is_grad_enabled()]


@pytest.mark.parametrize("layer", ["layer", "missing", "head"])
def test_modes_flags_and_hooks_are_as_before_also_after_an_exception(layer: str) -> None:
    module, inputs, labels = made(InPlace)
    module.train()
    module.get_submodule("head").eval()
    for parameter in module.get_submodule("trunk").parameters():
        parameter.requires_grad_(False)
    before = state(module)
    if layer == "layer":
        capture(module, layer, inputs, labels)
    else:
        with pytest.raises(InputError):
            capture(module, layer, inputs, labels)
    default_layer(module, inputs)
    assert state(module) == before


def test_dropout_and_batch_normalisation_are_in_evaluation_mode() -> None:
    module, inputs, labels = made(InPlace)
    module.train()
    torch.testing.assert_close(capture(module, "layer", inputs, labels).logits, forward(module, inputs), rtol=0, atol=0)


def test_a_frozen_network_still_has_gradients() -> None:
    module, inputs, labels = made(Scored)
    free = capture(module, "features", inputs, labels).gradients["post"]
    frozen = capture(module.requires_grad_(False), "features", inputs, labels).gradients["post"]
    torch.testing.assert_close(frozen, free, rtol=0, atol=0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_capture_works_where_gradients_are_switched_off(context: Callable[[], object]) -> None:
    module, inputs, labels = made(Scored)
    expected = capture(module, "features", inputs, labels).gradients["pre"]
    with context():  # type: ignore[attr-defined]
        torch.testing.assert_close(capture(module, "features", inputs, labels).gradients["pre"], expected, rtol=0, atol=0)


def test_networks_in_half_precision_are_captured_in_float32_also_where_gradients_are_switched_off() -> None:
    module, inputs, labels = made(Scored)
    with torch.no_grad():
        captured = capture(module.bfloat16(), "features", inputs.bfloat16(), labels)
    assert {part.dtype for part in (captured.activations, captured.logits, *captured.gradients.values())} == {torch.float32}
    assert all(gradients.abs().sum() > 0 for gradients in captured.gradients.values())


@pytest.mark.parametrize(
    ("factory", "layer", "says"),
    [
        (InPlace, "laier", "unknown layer 'laier'; the nearest: layer"),
        (InPlace, "head", r"layer 'head': expected an output \(B, K, H, W\), got \(4, 3\)"),
        (Vector, "features", r"the network returns \(3,\); expected class logits \(B, C\)"),
    ],
)
def test_wrong_layers_and_networks_are_named(factory: Callable[[], nn.Module], layer: str, says: str) -> None:
    module, inputs, labels = made(factory)
    with pytest.raises(InputError, match=says):
        capture(module, layer, inputs, labels)


def test_a_layer_beside_the_path_to_the_scores_is_refused() -> None:
    class Beside(Scored):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Conv2d(3, 2, 1)
            self.side = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            self.side(images)
            return super().forward(images)

    module, inputs, labels = made(Beside)
    with pytest.raises(InputError, match="'side'.*do not depend|do not depend on layer 'side'"):
        capture(module, "side", inputs, labels)
    with pytest.raises(InputError, match="layer 'unused': .*not used"):
        capture(module, "unused", inputs, labels)


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("vgg16", "features.29", 224),  # the paper's layer, Keras block5_conv3 with its ReLU
        ("squeezenet1_0", "features.12", 224),
        ("alexnet", "features.11", 224),
        ("resnet18", "layer4.1", 64),
        ("mobilenet_v3_small", "features.12", 64),
        ("densenet121", "features.norm5", 64),
        ("convnext_tiny", "features.7.2", 64),
        ("shufflenet_v2_x0_5", "conv5.2", 64),
        ("swin_t", "permute", 64),
    ],
)
def test_the_last_feature_maps_are_found_by_looking(name: str, layer: str, size: int) -> None:
    options = {"init_weights": False} if name == "vgg16" else {}
    assert default_layer(get_model(name, weights=None, **options), torch.zeros(1, 3, size, size)) == layer


def test_last_feature_maps_of_networks_of_ones_own() -> None:
    assert default_layer(Scored(), torch.zeros(1, 3, 16, 16)) == "features.4"
    assert default_layer(InPlace(), torch.zeros(1, 3, 16, 16)) == "after"
    with pytest.raises(InputError, match="no feature maps"):
        default_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.zeros(1, 3, 4, 4))


def test_the_normalisation_and_probabilities_by_hand() -> None:
    pixels = torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64)[None, :, None, None]
    expected = torch.tensor([(0.5 - 0.1) / 2, (0.25 - 0.2) / 4, (1 - 0.3) / 5], dtype=torch.float64)
    network = Network(nn.Flatten(), "", Preprocessing(1, 1, (0.1, 0.2, 0.3), (2, 4, 5)), numbered(3), "flat", "none")
    assert_exact(network.logits(pixels).flatten(), expected)
    # A score that float32 cannot hold: exp(-200).
    assert probabilities(torch.tensor([[0.0, 200.0]]))[0, 0].item() == pytest.approx(1.3838965267367376e-87, rel=1e-9)


@pytest.mark.parametrize(("precision", "device"), [("float32", "cpu"), ("tf32", "cpu"), ("float32", "cuda"), ("tf32", "cuda")])
def test_a_precision_holds_inside_its_block_only(precision: Precision, device: str) -> None:
    def flags() -> tuple[object, ...]:
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.enabled,
            torch.is_autocast_enabled("cpu"),
        )

    def failing() -> None:
        with computing(precision, device):
            inside.append(flags())
            raise KeyError

    before, inside, rounded = flags(), list[tuple[object, ...]](), precision == "tf32" and device == "cuda"
    with pytest.raises(KeyError):
        failing()
    assert inside == [("high" if rounded else "highest", rounded, True, False)]  # cudnn.flags alone switches cuDNN off
    assert flags() == before
