"""A network split at one layer: one forward pass, then the gradients at that layer only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torchvision.transforms.v2.functional import normalize

from gradcampp.cam import Scores
from gradcampp.errors import InputError
from gradcampp.networks.classes import Classes
from gradcampp.networks.layers import full_name, layout_of
from gradcampp.networks.layout import CHANNELS_FIRST, TOKENS, Layout
from gradcampp.networks.outputs import Key
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.networks.running import (
    PRECISIONS,
    Precision,
    check_images,
    computing,
    evaluation_mode,
    forward,
    mark,
    out_of_memory,
    root,
    run,
    unwrap,
)
from gradcampp.networks.scores import Score, cotangents, kinds

__all__ = [
    "PRECISIONS", "Capture", "Network", "Precision", "Preprocessing", "capture", "computing", "evaluation_mode", "forward",
]  # fmt: skip


@dataclass(frozen=True)
class Capture:
    """Feature maps, gradients and logits of a batch.

    Attributes:
        activations: output of the layer as (B, K, H, W), whatever its layout. Behind a ReLU they are not negative, as the
            paper assumes; behind a normalisation or GELU, as in transformers and ConvNeXt, they have both signs.
        gradients: derivative of the score of each image's class with respect to the activations, same
            shape; the score is the logit (``pre``) or the softmax probability (``post``; none for the score ``logit``).
        logits: (B, C).
        layout: as which the layer's output was read.
    """

    activations: Tensor
    gradients: dict[Scores, Tensor]
    logits: Tensor
    layout: Layout = CHANNELS_FIRST


@dataclass(frozen=True)
class Network:
    """A network that is ready to be asked: its input, the layer to explain it at, its classes.

    Attributes:
        module: takes (B, 3, crop, crop), ends in class logits (B, C); on any device.
        layer: name of the module whose output is explained.
        name: as the user gave it.
        weights: SHA-256 of the weight file, ``random (seed N)``, or ``from the factory`` with a hash of them.
        memory_format: of its inputs.
        precision: of its own arithmetic.
        layout: of the layer's output; None finds it at each call.
        output: key or index of the logits in what the module returns; None where there is one answer.
        score: what its outputs mean, as in :mod:`gradcampp.networks.scores`.
    """

    module: nn.Module
    layer: str
    preprocessing: Preprocessing
    classes: Classes
    name: str
    weights: str
    memory_format: torch.memory_format = torch.contiguous_format
    precision: Precision = "float32"
    layout: Layout | None = None
    output: str | int | None = None
    score: Score = "softmax"

    @property
    def place(self) -> str:
        """The layer as people read it, with its layout where that is not the usual one: ``norm (tokens:1:14x14, row by row)``."""
        order = ", row by row" if self.layout and self.layout.axes == TOKENS else ""
        return self.layer if self.layout in (None, CHANNELS_FIRST) else f"{self.layer} ({self.layout}{order})"

    def capture(self, pixels: Tensor, labels: Tensor) -> Capture:
        """Feature maps, gradients and logits of photographs, in float32 or better, on the device of the pixels.

        Args:
            pixels: in [0, 1], (B, 3, crop, crop), on the CPU or the device of the module.
            labels: class to explain for each photograph, (B,) int64.

        Raises:
            InputError: as :func:`capture`, or if the pixels are on another scale.
        """
        inputs = self._inputs(pixels)
        labels = _brought(labels, inputs.device)
        with computing(self.precision, inputs.device.type):
            found = capture(self.module, self.layer, inputs, labels, self.layout, self.output, self.score)
        back = partial(Tensor.to, device=pixels.device)  # also where float64 is, which some devices do not know
        slopes = {scores: back(values) for scores, values in found.gradients.items()}
        return Capture(back(found.activations), slopes, back(found.logits), found.layout)

    def logits(self, pixels: Tensor) -> Tensor:
        """The logits of photographs, (B, C), in float32 or better; pixels and device as in :meth:`capture`.

        Raises:
            InputError: if the network does not return class logits, or the pixels are on another scale.
        """
        inputs = self._inputs(pixels)
        with computing(self.precision, inputs.device.type):
            return _single(forward(self.module, inputs, self.output)).to(pixels.device)

    def _inputs(self, pixels: Tensor) -> Tensor:
        home = next((each.device for each in chain(self.module.parameters(), self.module.buffers())), torch.device("cpu"))
        pixels = _brought(pixels, home)
        check_images(self.module, pixels, "pixels")
        low, high = pixels.min().item(), pixels.max().item()
        if low < -0.5 or high > 1.5:  # bicubic resizing and added noise go a little beyond
            raise InputError(f"pixels: expected values in [0, 1], before the normalisation; got {low:.3g} to {high:.3g}")
        inputs: Tensor = normalize(pixels, list(self.preprocessing.mean), list(self.preprocessing.std))
        return inputs.contiguous(memory_format=self.memory_format)


def _brought(values: Tensor, device: torch.device) -> Tensor:
    """Tensors of the CPU on the device; those of another device, and what is no tensor, are for others to refuse."""
    return values.to(device) if isinstance(values, Tensor) and values.device.type == "cpu" else values


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def capture(
    module: nn.Module,
    layer: str,
    inputs: Tensor,
    labels: Tensor,
    layout: str | Layout | None = None,
    output: Key | None = None,
    score: Score = "softmax",
) -> Capture:
    """Feature maps, logits and both gradients of a batch in float32 or better, for hardly more than one forward pass.

    What runs before the layer has no graph; the layer and what follows it, in whatever way it gets hold of the layer's output,
    is differentiated. Of a module that is called several times in one pass, the last call that returns maps counts. Training
    mode, gradient flags and hooks are as before when the function returns or raises; threads wait for each other.

    Args:
        module: any network that ends in class logits; wrappers of torch.compile and data parallelism are taken off.
        layer: name of one of its modules, as ``named_modules`` gives it.
        inputs: normalised images, (B, 3, h, w).
        labels: class of each image, (B,) int64.
        layout: of the layer's output: ``channels-first``, ``channels-last`` or ``tokens:LEADING:ROWSxCOLUMNS``. None finds it.
        output: key, attribute or index of the logits in what the network returns; None where there is one answer.
        score: what the outputs mean, and so what ``post`` is the gradient of; ``logit`` has none.

    Raises:
        InputError: if an argument has the wrong type, shape or device; if the layer does not exist, has no maps of more than one
            unit or does not reach the logits; or if the network does not return class logits.

    Source: Lerma & Lucas (2022), section 2.1.1; the footnote there for pre and post.
    """
    module = unwrap(module)
    check_images(module, inputs)
    layer = full_name(module, layer)
    child = module.get_submodule(layer)
    thread = threading.get_ident()
    rooted: list[Tensor] = []
    place: GradientEdge | None = None
    activations = inputs
    other = "is not used when the network runs"

    def begin(_module: nn.Module, arguments: object, keywords: object) -> None:
        """From here on everything has a graph, so that what the layer computes from its output for others has one, too."""
        if threading.get_ident() != thread:
            return
        torch.set_grad_enabled(True)  # inside a no_grad of the network's own, until that ends
        for values in _tensors((arguments, keywords)):
            if values.is_floating_point() and not values.requires_grad and id(values) not in own and root(values) is values:
                rooted.append(values)

    def reach(_module: nn.Module, _arguments: object, result: object) -> Tensor | None:
        nonlocal place, activations, other
        if threading.get_ident() != thread:
            return None
        other = f"returns {type(result).__name__}, not one tensor; name a module that does"
        if not isinstance(result, Tensor):
            return None
        if result.ndim not in (3, 4):
            other = f"returns {tuple(result.shape)}: no feature maps; name a layer before the maps are pooled or flattened"
            return None
        if not result.is_floating_point() or result.is_inference():
            other = f"returns {result.dtype}{' from inference_mode' if result.is_inference() else ''}, which has no gradients"
            return None
        result, place = mark(result)
        rooted.append(result)
        activations = result.detach().clone()  # an in-place operation behind the layer may write into it
        return result

    with torch.inference_mode(False), evaluation_mode(module), torch.enable_grad():
        own = {id(values) for values in (*module.parameters(), *module.buffers())}
        inputs = inputs.clone() if inputs.is_inference() else inputs.detach()  # the user's own tensor stays out of the graph
        try:
            with (
                child.register_forward_pre_hook(begin, prepend=True, with_kwargs=True),
                child.register_forward_hook(reach, prepend=True),
            ):
                logits = run(module, inputs, output)
            if place is None:
                raise InputError(f"layer '{layer}' {other}")
            check_labels(labels, logits)
            gradients = _gradients(logits, labels.long(), place, score) if logits.requires_grad else None
            layout = layout_of(module, layer, activations.shape, inputs, layout)  # last: it may run the network again
        finally:
            for values in rooted:  # what the network keeps of them is no part of a graph any more
                with suppress(RuntimeError):
                    values.detach_()
    if gradients is None:
        raise InputError(f"the class scores do not depend on layer '{layer}'; name a layer between the image and the scores")
    maps = layout.maps(gradients)
    if layout.axes == TOKENS and not maps[0].any() and gradients[0].any():
        raise InputError(
            f"layer '{layer}': the scores take nothing from its tokens of the image, only the {layout.leading} before them; name "
            "a layer before the last attention, such as the normalisation in front of it"
        )
    slopes = dict(zip(kinds(score), _single(maps), strict=True))
    return Capture(_single(layout.maps(activations)), slopes, _single(logits.detach()), layout)


def check_labels(labels: object, logits: Tensor) -> None:
    """Refuse labels that are not one class for each row of the logits."""
    if not isinstance(labels, Tensor):
        raise InputError(f"labels: expected a tensor (B,) of class numbers, got {type(labels).__name__}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels: expected whole numbers (int64), got {labels.dtype}")
    if labels.shape != logits.shape[:1]:
        raise InputError(f"labels: expected one for each image, ({len(logits)},), got {tuple(labels.shape)}")
    if labels.device != logits.device:
        raise InputError(f"labels: on {labels.device}, and the network on {logits.device}; move one of them")
    low, high = torch.stack(labels.cpu().aminmax()).tolist()
    if low < 0 or high >= logits.shape[1]:
        raise InputError(f"labels: from {low} to {high}, and the network has the classes 0 to {logits.shape[1] - 1}")


def _tensors(arguments: object) -> Iterator[Tensor]:
    """All tensors in what a module is called with."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, dict | list | tuple):
        for part in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from _tensors(part)


def _gradients(logits: Tensor, labels: Tensor, place: GradientEdge, score: Score) -> Tensor | None:
    """Derivatives of each image's own score, pre and post, in one backward pass through the head, (2 or 1, B, K, H, W).

    Images do not mix, so the derivative of a sum of scores holds that of each. The two cotangents share
    the pass, because a fully connected head costs what it takes to read its weights.
    """
    wanted = cotangents(_single(logits.detach()), labels, score).to(logits.dtype)  # (2 or 1, B, C)
    try:
        return torch.autograd.grad(logits, place, wanted, retain_graph=True, is_grads_batched=True, allow_unused=True)[0]
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        # an operation of the head cannot be batched, such as one's own autograd.Function
        passes = [torch.autograd.grad(logits, place, one, retain_graph=True, allow_unused=True)[0] for one in wanted]
        return None if passes[0] is None else torch.stack(passes)
