"""Gradients are those of whatever follows the layer, by whatever way it gets hold of the layer's output; many threads may ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.testing._internal.two_tensor import TwoTensor

import gradcampp
from gradcampp.errors import InputError
from gradcampp.networks.capture import Capture, capture, forward
from gradcampp.networks.layers import default_layer
from tests.networks import FrozenBackbone, Hooked, Keeping, Scored, Shared

KEEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda output: output,
    "a view": lambda output: output.flatten(2),
    "a copy": lambda output: output.clone(),
    "what it made of it": lambda output: output.mean((2, 3)),
}
INNER: dict[str, Callable[[], nn.Module]] = {
    "with weights": lambda: nn.Conv2d(4, 4, 3),
    "nothing in it": nn.Identity,
    "in place": lambda: nn.ReLU(inplace=True),
    "a view": lambda: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (14, 14))),
}


def whole(module: nn.Module, layer: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and the derivative of the logits by it, in the graph of the whole network with nothing replaced."""
    kept: list[tuple[GradientEdge, Tensor]] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: kept.append((get_gradient_edge(output), output.detach().clone())))
    logits = module.eval()(inputs.clone().requires_grad_().clone())
    handle.remove()
    place, activations = kept[-1]
    return activations, torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), place)[0]


def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 2, 1])


def assert_whole(module: nn.Module, layer: str) -> None:
    """The same operations in float64 on both sides; only the order of a few sums may differ."""
    inputs, labels = images()
    activations, gradients = whole(module, module.get_submodule(layer), inputs, labels)
    captured = capture(module, layer, inputs, labels)
    torch.testing.assert_close(captured.activations, activations, rtol=0, atol=0)
    torch.testing.assert_close(captured.gradients["pre"], gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("keep", KEEPS)
def test_a_layer_may_keep_its_output_for_the_head(keep: str, inner: str, frozen: bool) -> None:
    torch.manual_seed(0)
    assert_whole(Keeping(KEEPS[keep], INNER[inner](), torch.tanh).double().requires_grad_(not frozen), "layer")


@pytest.mark.parametrize("inner", ["with weights", "nothing in it"])
@pytest.mark.parametrize("keep", KEEPS)
def test_also_where_the_network_then_writes_into_it(keep: str, inner: str) -> None:
    torch.manual_seed(0)
    assert_whole(Keeping(KEEPS[keep], INNER[inner](), torch.relu_).double(), "layer")


@pytest.mark.parametrize("layer", ["body.1", "body.1.1", "body.1.0"])
@pytest.mark.parametrize("keep", KEEPS)
def test_a_hook_of_the_network_may_keep_it(keep: str, layer: str) -> None:
    torch.manual_seed(0)
    assert_whole(Hooked(KEEPS[keep]).double(), layer)


def test_a_lost_path_would_be_noticed() -> None:
    """The textbook's trick, a copy in the place of the output, loses what the network keeps: here most of the gradient."""
    torch.manual_seed(0)
    module = Keeping(KEEPS["itself"], INNER["with weights"](), torch.tanh).double()
    inputs, labels = images()
    leaves: list[Tensor] = []

    def replace(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    with module.layer.register_forward_hook(replace):
        logits = module(inputs)
    lost = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), leaves[-1])[0]
    right = capture(module, "layer", inputs, labels).gradients["pre"]
    assert (lost - right).abs().mean() > 0.1 * right.abs().mean()


def test_nothing_that_the_network_keeps_stays_in_a_graph() -> None:
    inputs, labels = images()
    for keep in ("itself", "a view"):
        module = Keeping(KEEPS[keep], INNER["with weights"](), torch.tanh).double()
        capture(module, "layer", inputs, labels)
        assert keep == "a view" or not module.layer.kept.requires_grad
    assert not inputs.requires_grad
    capture(Scored().double(), "features.0", inputs, labels)  # the images are the input of this layer
    assert not inputs.requires_grad


def test_a_backbone_without_gradients_is_explained_all_the_same() -> None:
    torch.manual_seed(0)
    frozen, free = FrozenBackbone().double(), Scored().double()
    free.load_state_dict(frozen.state_dict())
    inputs, labels = images()
    found = capture(frozen, "features.4", inputs, labels).gradients["pre"]
    expected = capture(free, "features.4", inputs, labels).gradients["pre"] / 10  # twice the maps, but not 20 times the logits
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert default_layer(frozen, inputs) == "features.4"


def test_buffers_and_parameters_that_a_layer_is_called_with_stay_what_they_are() -> None:
    class Masked(Scored):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(1, 6, 8, 8))
            self.gate, self.scale = Gate(), nn.Parameter(torch.ones(1, 6, 1, 1))
            self.features = nn.Sequential(self.features, nn.Upsample(8))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.classifier(self.gate(self.features(images), self.mask, scale=self.scale))
            return logits

    class Gate(nn.Module):
        def forward(self, maps: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
            return maps * mask * scale

    inputs, labels = images()
    module = Masked().double()
    capture(module, "gate", inputs, labels)
    assert module.mask.grad_fn is None
    assert not module.mask.requires_grad
    assert module.scale.is_leaf
    assert module.scale.requires_grad


def test_threads_that_share_a_network_get_what_they_would_get_alone() -> None:
    """One network for all, another that shares its backbone, two precisions, layers in turn, a foreign pass in between."""
    torch.manual_seed(0)
    network = gradcampp.load("mini")
    shared, other = Scored(), Scored()
    other.features = shared.features
    shared.train()
    pixels, labels = torch.rand(12, 3, 128, 128), torch.arange(12) % 10
    small = torch.randn(12, 3, 16, 16)

    def ask(number: int) -> Capture:
        one = number % 12
        if number % 3 == 0:
            return network.capture(pixels[one : one + 1], labels[one : one + 1])
        layer = ("features.4", "features.1")[number % 2]
        return capture((shared, other)[number % 2], layer, small[one : one + 1], labels[one : one + 1] % 3)

    def foreign() -> None:
        while not done.is_set():
            with torch.no_grad():
                shared.features(small[:1])  # hooks of an explanation under way are none of its business

    alone = [ask(number) for number in range(36)]
    done = threading.Event()
    beside = threading.Thread(target=foreign)
    beside.start()
    with ThreadPoolExecutor(6) as pool:
        together = [*pool.map(ask, [*range(36)] * 5)]
    done.set()
    beside.join()
    for number, found in enumerate(together):
        expected = alone[number % 36]
        assert torch.equal(found.activations, expected.activations)
        # Sums over batched gradients may be ordered differently where threads share the cores: float32, a few additions.
        torch.testing.assert_close(found.gradients["post"], expected.gradients["post"], rtol=1e-4, atol=1e-7)
    assert all(child.training for child in shared.modules())
    assert all(parameter.requires_grad for parameter in shared.parameters())


def test_a_network_may_explain_itself_while_it_is_explained() -> None:
    """The lock is the thread's own: no deadlock."""

    class Itself(Scored):
        inner = Scored()

        def forward(self, images: Tensor) -> Tensor:
            captured = capture(self.inner, "features", images.detach().float(), torch.zeros(len(images), dtype=torch.long))
            return super().forward(images) + captured.logits.double()

    inputs, labels = images()
    assert capture(Itself().double(), "features", inputs, labels).gradients["pre"].any()


def test_compiled_and_parallel_networks_are_unwrapped() -> None:
    inputs, labels = images()
    torch.manual_seed(0)
    module = Shared().double()
    expected = capture(module, "norm", inputs, labels)
    inside = Shared().double()
    inside.load_state_dict(module.state_dict())
    inside.norm = torch.compile(inside.norm)  # type: ignore[assignment]
    for wrapped, layer in [
        (torch.compile(module), "norm"),
        (torch.compile(module), "_orig_mod.norm"),
        (nn.DataParallel(module), "norm"),
        (nn.DataParallel(module), "module.norm"),
        (torch.compile(nn.DataParallel(module)), "norm"),
        (inside, "norm"),
    ]:
        found = capture(wrapped, layer, inputs, labels)  # type: ignore[arg-type]
        torch.testing.assert_close(found.gradients["pre"], expected.gradients["pre"], rtol=1e-10, atol=1e-12)
    assert default_layer(torch.compile(module), inputs) == default_layer(module, inputs)  # type: ignore[arg-type]
    module.compile()  # in place
    torch.testing.assert_close(capture(module, "norm", inputs, labels).logits, expected.logits, rtol=1e-10, atol=1e-12)


def scripted() -> nn.Module:
    module: nn.Module = torch.jit.trace(  # type: ignore[no-untyped-call]
        Scored().eval(), torch.zeros(1, 3, 16, 16), check_trace=False
    )
    return module


def quantised() -> nn.Module:
    module: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
        nn.Sequential(Scored(), nn.Linear(3, 3)), {nn.Linear}
    )
    return module


def exported() -> nn.Module:
    module: nn.Module = torch.export.export(Scored().eval(), (torch.zeros(1, 3, 16, 16),)).module()
    return module


def of_whole_numbers() -> nn.Module:
    """As bitsandbytes keeps them."""
    module = Scored()
    module.classifier[1].weight = nn.Parameter(torch.ones(3, 6, 1, 1, dtype=torch.int8), requires_grad=False)
    return module


def packed() -> nn.Module:
    """As torchao keeps them."""
    module = Scored()
    module.classifier[1].weight = nn.Parameter(TwoTensor(torch.ones(3, 6, 1, 1), torch.ones(3, 6, 1, 1)))
    return module


def on_meta() -> nn.Module:
    return Scored().to("meta")


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (scripted, "TorchScript"),
        (exported, r"a program of torch\.export, whose layers cannot be explained; build it from its Python code"),
        (quantised, "quantised"),
        (of_whole_numbers, "quantised"),
        (packed, "quantised"),
        (on_meta, r"no weights yet.*features\.0\.weight"),
        (lazy, "no weights yet"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line_that_asks_for_no_other_layer(
    factory: Callable[[], nn.Module], says: str
) -> None:
    module = factory()
    zeros, label = torch.zeros(1, 3, 16, 16), torch.tensor([0])
    for ask in (
        lambda: capture(module, "features", zeros, label),
        lambda: default_layer(module, zeros),
        lambda: forward(module, zeros),
        lambda: gradcampp.load(module),
    ):
        with pytest.raises(InputError, match=says) as caught:
            ask()
        assert "--layer" not in str(caught.value)
