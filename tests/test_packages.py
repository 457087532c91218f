"""The formulas of ``gradcampp.variants`` equal the installed packages to 1e-6; a package that is not there is passed over.

Packages get float64 tensors, where rounding is far below that, except those that cast to float32 themselves. Those for TensorFlow
get activations and gradients of the networks through a score that is linear in them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcampp import cam, load, scenes, variants
from gradcampp.cam import SCORES, Scores, min_max
from gradcampp.errors import InputError
from gradcampp.evaluation import audit
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.networks.capture import Network, capture
from tests.conftest import ROOT, SHARED

TOLERANCE = 1e-6
PHOTOGRAPHS = ("235", "970")


def package(module: str, distribution: str) -> Any:
    """An installed package, whose version is printed; the test is skipped where it is missing."""
    found = pytest.importorskip(module, reason=f"{distribution} is not installed", exc_type=ImportError)
    print(f"{distribution} {importlib.metadata.version(distribution)}")
    return found


class Given(nn.Module):
    """A network whose maps are its input, and whose first logit has the gradients that are given."""

    def __init__(self, gradients: Tensor) -> None:
        super().__init__()
        self.layer = nn.ReLU()  # which changes no map, and has a node in the graph that omnixai's hooks need
        self.gradients = nn.Parameter(gradients)

    def forward(self, images: Tensor) -> Tensor:
        score = (self.layer(images) * self.gradients).sum((1, 2, 3))
        return torch.stack([score, 0 * score], 1)


class Softmax(nn.Module):
    """A network whose outputs are scores after the softmax."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.inner(images).softmax(1)
        return scores


class Case:
    """A network in float64 with its layer, inputs and labels, and what our own capture gives for them."""

    def __init__(self, module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> None:
        self.module, self.layer, self.inputs, self.labels = module, module.get_submodule(layer), inputs, labels
        found = capture(module, layer, inputs, labels)
        self.activations, self.gradients = found.activations, found.gradients["pre"]


def random_case() -> Case:
    """Random maps, as behind a ReLU, and gradients of all sizes, some of them 0."""
    generator = torch.Generator().manual_seed(5)
    shape = (2, 40, 6, 7)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
    sizes = 10 ** (6 * torch.rand(shape, generator=generator, dtype=torch.float64) - 5)
    gradients = torch.randn(shape, generator=generator, dtype=torch.float64) * sizes
    gradients[torch.rand(shape, generator=generator) < 0.2] = 0
    return Case(Given(gradients), "layer", maps, torch.zeros(2, dtype=torch.int64))


def real_case(name: str, scores: Scores, shared: Path) -> Case:
    """A network that has learned, and pictures that it knows."""
    network = real_network(name, shared)
    if name == "mini":
        drawn = [scenes.draw(0, "test", index) for index in range(3)]
        pictures = [torch.from_numpy(scene.pixels.copy()).permute(2, 0, 1) for scene in drawn]
        labels = [scene.labels[0] for scene in drawn]
    else:
        files = [next((shared / "imagenet-1000" / label).iterdir()) for label in PHOTOGRAPHS]
        pictures, labels = [read_photograph(file, network.preprocessing) for file in files], [int(x) for x in PHOTOGRAPHS]
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in _scale(network))
    inputs = (torch.stack(pictures).double() / 255 - mean) / std
    module = network.module.double()
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # type: ignore[assignment]  # omnixai's old hooks do not survive it
    after = scores == "post"
    layer = f"inner.{network.layer}" if after else network.layer
    return Case(Softmax(module) if after else module, layer, inputs, torch.tensor(labels))


def real_network(name: str, shared: Path) -> Network:
    try:
        return load(name, weights=shared / "squeezenet1_0.safetensors" if name == "squeezenet1_0" else None)
    except InputError as error:
        pytest.skip(str(error))


def _scale(network: Network) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return network.preprocessing.mean, network.preprocessing.std


NETWORKS = [(name, scores) for name in ("mini", "squeezenet1_0", "efficientnet_lite0") for scores in SCORES]


@pytest.fixture(scope="module", params=[None, *NETWORKS], ids=lambda case: "-".join(case) if case else "random")
def case(request: pytest.FixtureRequest) -> Case:
    if request.param is None:
        return random_case()
    name, scores = request.param
    if name != "mini" and not SHARED.is_dir():
        pytest.skip("no ../shared/data: the real photographs and network are not on this machine")
    return real_case(name, scores, SHARED)


def assert_same(found: Any, expected: Tensor) -> None:
    """To 1e-6 of the largest value of each photograph."""
    theirs = torch.as_tensor(np.asarray(found).copy()).double().reshape(expected.shape)
    largest = expected.double().abs().flatten(1).amax(1).clamp(min=1e-300)
    off = ((theirs - expected.double()).abs().flatten(1).amax(1) / largest).max()
    print(f"largest difference {off:.1e}")
    assert expected.abs().max() > 0
    assert off < TOLERANCE


@contextmanager
def seen_by_grad_cam(case: Case, name: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A method of grad-cam after a call, and what it gave to ``get_cam_weights`` and ``get_cam_image`` and had back."""
    module = package("pytorch_grad_cam", "grad-cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    seen: dict[str, Any] = {}

    class Spy(getattr(module, name)):  # type: ignore[misc]
        def get_cam_weights(self, *arguments: Any) -> Any:
            seen["weights"] = super().get_cam_weights(*arguments)
            return seen["weights"]

        def get_cam_image(self, *arguments: Any, **options: Any) -> Any:
            seen["activations"], seen["gradients"] = arguments[3:5]
            seen["map"] = super().get_cam_image(*arguments, **options)
            return seen["map"]

    with Spy(case.module, [case.layer]) as method:
        inputs = case.inputs.clone().requires_grad_()
        method(inputs, [targets.ClassifierOutputTarget(int(label)) for label in case.labels])
        yield method, seen


def test_grad_cam_plus_plus_of_grad_cam(case: Case) -> None:
    with seen_by_grad_cam(case, "GradCAMPlusPlus") as (_, seen):
        assert_same(seen["activations"], case.activations)
        assert_same(seen["gradients"], case.gradients)
        assert_same(seen["weights"], variants.weights(variants.grad_cam, case.activations, case.gradients))


@pytest.mark.parametrize(
    ("name", "formula"),
    [("GradCAM", lambda a, g: cam.weights("gradcam", a, g)), ("XGradCAM", variants.xgradcam)],
)
def test_weights_of_neighbours_in_grad_cam(case: Case, name: str, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    """XGrad-CAM has an epsilon of 1e-7 beside the sum of a map: where that is small it moves a weight by more than rounding."""
    with seen_by_grad_cam(case, name) as (_, seen):
        expected = formula(case.activations, case.gradients)
        if name == "XGradCAM":
            sums = case.activations.sum((2, 3))
            expected = expected * sums / (sums + 1e-7)
        assert_same(seen["weights"], expected)


@pytest.mark.parametrize(
    ("name", "formula"),
    [("HiResCAM", variants.hirescam), ("LayerCAM", variants.layercam), ("GradCAMElementWise", variants.elementwise)],
)
def test_maps_of_neighbours_in_grad_cam(case: Case, name: str, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    with seen_by_grad_cam(case, name) as (_, seen):
        assert_same(np.maximum(seen["map"], 0), formula(case.activations, case.gradients))


def test_shapleycam_of_grad_cam(case: Case) -> None:
    with seen_by_grad_cam(case, "ShapleyCAM") as (_, seen):
        assert_same(seen["weights"], variants.shapleycam(case.gradients, hessian_products(case)))


def hessian_products(case: Case) -> Tensor:
    """The Hessian of each image's score by the maps, times the maps: a second backward pass."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()

    handle = case.layer.register_forward_hook(keep)
    scores = case.module(case.inputs).gather(1, case.labels[:, None]).sum()
    handle.remove()
    (slopes,) = torch.autograd.grad(scores, kept[0], create_graph=True)
    (products,) = torch.autograd.grad((slopes * kept[0].detach()).sum(), kept[0], allow_unused=True, materialize_grads=True)
    return products


def with_torchcam(case: Case, name: str) -> Tensor:
    method = getattr(package("torchcam.methods", "torchcam"), name)
    with method(case.module, case.layer) as extractor:
        scores = case.module(case.inputs.clone().requires_grad_())
        (weights,) = extractor._get_weights(case.labels.tolist(), scores)
        assert_same(extractor.hook_g[0], case.gradients)
        found: Tensor = weights.detach()
        return found


def test_grad_cam_plus_plus_of_torchcam(case: Case) -> None:
    """The activations have no part in it: the division that brings them in acts on a copy."""
    found = with_torchcam(case, "GradCAMpp")
    assert_same(found, variants.weights(variants.torchcam, case.activations, case.gradients))
    assert_same(found, (case.gradients.relu() ** 3).sum((2, 3)))


def test_xgradcam_and_layercam_of_torchcam(case: Case) -> None:
    sums = case.activations.sum((2, 3))
    expected = variants.xgradcam(case.activations, case.gradients) * sums / (sums + 1e-8)
    assert_same(with_torchcam(case, "XGradCAM"), expected)
    per_unit = with_torchcam(case, "LayerCAM")  # the weights of each unit
    assert_same((per_unit * case.activations).sum(1).relu(), variants.layercam(case.activations, case.gradients))


def test_grad_cam_plus_of_omnixai(case: Case) -> None:
    module = package("omnixai.explainers.vision.specific.gradcam.pytorch.gradcam", "omnixai")
    method = module.GradCAMPlus(case.module, case.layer, None)
    method._backward(case.module(case.inputs.clone().requires_grad_()), case.labels.tolist())
    activations, gradients = method.activations[0].numpy(), method.gradients[0].numpy()
    assert_same(gradients, case.gradients)
    found = method._compute_weights(activations, gradients)
    method._unregister_hooks()
    assert_same(found, variants.weights(variants.omnixai, case.activations, case.gradients))


@pytest.mark.parametrize("relu", [False, True])
def test_layer_grad_cam_of_captum(case: Case, relu: bool) -> None:
    """It has no Grad-CAM++. By default its map keeps negative values, which :data:`gradcampp.evaluation.audit.MAPS` has."""
    method = package("captum.attr", "captum").LayerGradCam(case.module, case.layer)
    found = method.attribute(case.inputs.clone().requires_grad_(), case.labels, relu_attributions=relu)
    ours = audit.MAPS["captum"](case.activations, case.gradients)
    weights = cam.weights("gradcam", case.activations, case.gradients)
    expected = cam.heatmap(weights, case.activations) if relu else ours
    assert_same(found.detach(), expected)


def test_grad_cam_plus_plus_of_tf_keras_vis(case: Case) -> None:
    """Its poles make the sum of a channel's alphas ill-conditioned; in float64 that costs few of the digits that are there."""
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed", exc_type=ImportError)
    method = package("tf_keras_vis.gradcam_plus_plus", "tf-keras-vis").GradcamPlusPlus
    tf.keras.backend.set_floatx("float64")
    maps, gradients = (x.permute(0, 2, 3, 1).numpy() for x in (case.activations, case.gradients))
    inputs = tf.keras.Input(maps.shape[1:])
    network = tf.keras.Model(inputs, tf.keras.layers.Activation("linear", name="maps")(inputs))
    found = method(network)(
        lambda outputs: tf.reduce_sum(outputs * gradients, axis=(1, 2, 3)) * 1.0,
        maps,
        penultimate_layer="maps",
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    weights = variants.weights(variants.tf_keras_vis, case.activations, case.gradients)
    expected = cam.heatmap(weights, case.activations)
    scale = (maps * gradients).sum((1, 2, 3))
    assert_same(np.asarray(found) / np.exp(scale)[:, None, None], expected)


def test_grad_cam_plus_plus_of_xplique(case: Case) -> None:
    """Its guard is float32, and so are the tensors that it gets: 300 units summed in that precision are good to 1e-6."""
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed", exc_type=ImportError)
    module = package("xplique.attributions.grad_cam_pp", "xplique")
    activations, gradients = case.activations.float(), case.gradients.float()
    maps, slopes = (tf.constant(x.permute(0, 2, 3, 1).numpy()) for x in (activations, gradients))
    found = module.GradCAMPP._compute_weights(slopes, maps)
    expected = variants.weights(variants.xplique, activations.double(), gradients.double())
    assert_same(np.asarray(found)[:, 0, 0], expected)


def test_zennit_has_no_class_activation_map() -> None:
    zennit = package("zennit", "zennit")
    names = [each.name for each in pkgutil.iter_modules(zennit.__path__)]
    attributors = importlib.import_module("zennit.attribution")
    assert not [name for name in [*names, *vars(attributors)] if "cam" in name.lower()]


def recipes() -> dict[str, Any]:
    """The functions that chapter 10 shows."""
    notebook = json.loads((ROOT / "notebooks" / "10_in_the_wild.ipynb").read_text("utf-8"))
    (cell,) = (each for each in notebook["cells"] if "recipe" in each["metadata"].get("tags", []))
    names: dict[str, Any] = {"torch": torch, "cam": cam, "heatmap": cam.heatmap}
    exec("".join(cell["source"]), names)
    return names


@pytest.mark.parametrize("name", ["grad_cam", "torchcam", "captum"])
def test_the_recipes_of_chapter_10_give_the_exact_map(case: Case, name: str) -> None:
    package({"grad_cam": "pytorch_grad_cam"}.get(name, name), name.replace("_", "-"))
    recipe = recipes()[f"exact_with_{name}"]
    found = recipe(case.module, case.layer, case.inputs.clone().requires_grad_(), case.labels)
    expected = cam.heatmap(cam.weights("gradcam++", case.activations, case.gradients), case.activations)
    if name != "grad_cam":
        assert_same(found, expected)
        return
    size = (case.inputs.shape[2], case.inputs.shape[3])
    small = expected.amax((1, 2)) < 1e-3  # where the 1e-7 of the package's own scaling is seen
    enlarged = min_max(cam.upsample(min_max(expected), size))
    off = (torch.from_numpy(found)[~small] - enlarged[~small]).abs()
    assert off.numel() == 0 or off.max() < 2e-3  # it is float32 from here on, and OpenCV enlarges with 11 bits
