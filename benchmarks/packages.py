"""The same work written with the packages that people would use instead: grad-cam, torchcam, captum.

Each is called the way its documentation shows, on a batch. What a package lacks is missing here too: captum
has Grad-CAM only, and none of the three has Grad-CAM+.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

KINDS = (False, True)  # explain the logit, or the softmax score


class Score:
    """A target of grad-cam: the logit or the softmax score of a class."""

    def __init__(self, label: int, softmax: bool) -> None:
        self.label, self.softmax = label, softmax

    def __call__(self, logits: Tensor) -> Tensor:
        return (logits.softmax(-1) if self.softmax else logits)[self.label]


def grad_cam(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> int:
    """Grad-CAM and Grad-CAM++, pre and post; returns how many maps an image gets."""
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus

    for method in (GradCAM, GradCAMPlusPlus):
        with method(module, [module.get_submodule(layer)]) as maps:
            for softmax in KINDS:
                maps(inputs, [Score(label, softmax) for label in labels.tolist()])
    return 4


def torchcam(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> int:
    """Grad-CAM and Grad-CAM++, pre and post; returns how many maps an image gets."""
    from torchcam.methods import GradCAM, GradCAMpp

    for method in (GradCAM, GradCAMpp):
        with method(module, layer) as maps:
            for softmax in KINDS:
                logits = module(inputs)
                maps(labels.tolist(), logits.softmax(1) if softmax else logits)
    return 4


def captum(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> int:
    """Grad-CAM, pre and post; returns how many maps an image gets."""
    from captum.attr import LayerGradCam

    def scores(pixels: Tensor) -> Tensor:
        return module(pixels).softmax(1)  # type: ignore[no-any-return]

    for forward in (module, scores):
        LayerGradCam(forward, module.get_submodule(layer)).attribute(inputs, labels, relu_attributions=True)
    return 2


PACKAGES: dict[str, tuple[str, Callable[[nn.Module, str, Tensor, Tensor], int]]] = {
    "grad-cam": ("pytorch_grad_cam", grad_cam),
    "torchcam": ("torchcam", torchcam),
    "captum": ("captum", captum),
}


def installed() -> dict[str, Callable[[nn.Module, str, Tensor, Tensor], int]]:
    """The packages that are there; says which are not, and how to get them."""
    there = {name: run for name, (module, run) in PACKAGES.items() if importlib.util.find_spec(module)}
    for name in PACKAGES.keys() - there.keys():
        print(f"  {name} left out: it is not installed (pip install 'gradcampp[benchmark]')")
    return there


def evaluate_with_grad_cam(
    module: nn.Module, layer: str, batches: list[tuple[Tensor, Tensor]], threshold: float
) -> dict[str, list[float]]:
    """Scores of the explanation maps of every image whose label scores over a threshold, as grad-cam's users get them.

    Its metric multiplies the normalised input, not the photograph: the same work, though not the same numbers.

    Args:
        module: a network.
        layer: what to explain.
        batches: normalised inputs (B, 3, h, w) and labels (B,), decoded already.
        threshold: of the softmax score.

    Returns:
        One list of scores for each of its four maps.
    """
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange

    change = CamMultImageConfidenceChange()
    found: dict[str, list[float]] = {}
    for inputs, labels in batches:
        with torch.no_grad():
            own = module(inputs).softmax(1).gather(1, labels[:, None])[:, 0]
        sure = own > threshold
        if not sure.any():
            continue
        targets = [Score(label, True) for label in labels[sure].tolist()]
        for method in (GradCAM, GradCAMPlusPlus):
            with method(module, [module.get_submodule(layer)]) as maps:
                for softmax in KINDS:
                    heat = maps(inputs[sure], [Score(label, softmax) for label in labels[sure].tolist()])
                    scores = change(inputs[sure], heat, targets, module, return_diff=False)
                    found.setdefault(f"{method.__name__} {softmax}", []).extend(scores.tolist())
    return found
