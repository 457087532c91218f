"""A network split at one layer: one forward pass, then the gradients at that layer only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gradcampp.cam import SCORES, Scores
from gradcampp.errors import InputError, listed
from gradcampp.networks.classes import Classes

Precision = Literal["float32", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """From a photograph to the input of a network.

    Attributes:
        resize: length of the shorter side after the resizing, in pixels.
        crop: side of the central square that the network sees, in pixels.
        mean, std: of the three channels on the scale [0, 1]; subtracted and divided by.
        interpolation: of the resizing, ``bilinear`` or ``bicubic``.
    """

    resize: int = 256
    crop: int = 224
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Capture:
    """Feature maps, gradients and logits of a batch.

    Attributes:
        activations: output of the layer, (B, K, H, W).
        gradients: derivative of the score of each image's class with respect to the activations, same
            shape; the score is the logit (``pre``) or the softmax probability (``post``).
        logits: (B, C).
    """

    activations: Tensor
    gradients: dict[Scores, Tensor]
    logits: Tensor


@dataclass(frozen=True)
class Network:
    """A network that is ready to be asked: its input, the layer to explain it at, its classes.

    Attributes:
        module: takes (B, 3, crop, crop), ends in class logits (B, C); on any device.
        layer: name of the module whose output is explained.
        preprocessing: how a photograph becomes its input.
        classes: the names of its classes.
        name: as the user gave it.
        weights: SHA-256 of the weight file, ``random (seed N)``, or ``from the factory`` with a hash of them.
        memory_format: of its inputs and weights.
        precision: of its own arithmetic.
    """

    module: nn.Module
    layer: str
    preprocessing: Preprocessing
    classes: Classes
    name: str
    weights: str
    memory_format: torch.memory_format = torch.contiguous_format
    precision: Precision = "float32"

    def capture(self, pixels: Tensor, labels: Tensor) -> Capture:
        """Feature maps, gradients and logits of photographs, in float32 or better.

        Args:
            pixels: in [0, 1], (B, 3, crop, crop), on the device of the module.
            labels: class to explain for each photograph, (B,) int64.

        Raises:
            InputError: as :func:`capture`.
        """
        with computing(self.precision, pixels.device.type):
            captured = capture(self.module, self.layer, self._inputs(pixels), labels)
        gradients = {scores: _single(values) for scores, values in captured.gradients.items()}
        return Capture(_single(captured.activations), gradients, _single(captured.logits))

    def logits(self, pixels: Tensor) -> Tensor:
        """The logits of photographs, (B, C), in float32 or better.

        Args:
            pixels: in [0, 1], (B, 3, crop, crop), on the device of the module.

        Raises:
            InputError: if the network does not return class logits.
        """
        with computing(self.precision, pixels.device.type):
            return _single(forward(self.module, self._inputs(pixels)))

    def _inputs(self, pixels: Tensor) -> Tensor:
        inputs = normalise(pixels, self.preprocessing.mean, self.preprocessing.std)
        return inputs.contiguous(memory_format=self.memory_format)


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def normalise(pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
    """Pixels in [0, 1] to the input of a network, (B, 3, h, w) in both cases."""
    shift, scale = pixels.new_tensor(mean), pixels.new_tensor(std)
    return (pixels - shift[:, None, None]) / scale[:, None, None]


@contextmanager
def computing(precision: Precision, device: str) -> Iterator[None]:
    """The arithmetic of a network inside the block; the settings are as before after it.

    ``float32`` is exact, also on a GPU where torch would round convolutions to TF32. ``tf32`` keeps 10
    bits after the point of the factors of convolutions and matrix products, and sums in float32; it is
    float32 on a CPU. Autocasting that surrounds the block is off in it.

    Args:
        precision: one of ``PRECISIONS``.
        device: ``cpu`` or ``cuda``.
    """
    rounded = precision == "tf32" and device == "cuda"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if rounded else "highest")
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=rounded),
            torch.autocast(device, enabled=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax in float64, where neither a tiny score nor the last bit below 1 is lost; (B, C)."""
    return logits.double().softmax(1)


def forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """The logits of a batch, (B, C), in evaluation mode and without a graph.

    Raises:
        InputError: if the network does not return class logits.
    """
    with evaluation_mode(module), torch.no_grad():
        return _logits(module, inputs)


def capture(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> Capture:
    """Feature maps, logits and both gradients of a batch, for hardly more than one forward pass.

    The network up to the layer runs without a graph; only what follows is differentiated. Of a module
    that is called several times in one pass, the last call counts. Training mode, gradient flags and
    hooks are as before when the function returns or raises.

    Args:
        module: any network that ends in class logits.
        layer: name of one of its modules, as ``named_modules`` gives it.
        inputs: normalised images, (B, 3, h, w).
        labels: class of each image, (B,) int64.

    Raises:
        InputError: if the layer does not exist, does not return (B, K, H, W) or does not reach the
            logits, or if the network does not return class logits.

    Source: Lerma & Lucas (2022), section 2.1.1; the footnote there for pre and post.
    """
    leaf: Tensor | None = None
    other = "nothing: it is not used when the network runs"

    def cut(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        nonlocal leaf, other
        if not isinstance(output, Tensor) or output.ndim != 4:
            other = str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
            return None
        leaf = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the surrounding no_grad ends: the head alone has a graph
        return leaf.clone()  # so that an in-place operation behind the layer may write into it

    with torch.inference_mode(False), evaluation_mode(module):
        handle = find_layer(module, layer).register_forward_hook(cut)
        try:
            with torch.no_grad():
                logits = _logits(module, inputs)
        finally:
            handle.remove()
        if leaf is None:
            raise InputError(f"layer '{layer}': expected an output (B, K, H, W), got {other}; choose another --layer")
        gradients = _gradients(logits, labels, leaf, layer)
    return Capture(leaf.detach(), gradients, logits.detach())


def _gradients(logits: Tensor, labels: Tensor, leaf: Tensor, layer: str) -> dict[Scores, Tensor]:
    """Derivatives of each image's own score, pre and post, in one backward pass through the head.

    Images do not mix, so the derivative of a sum of scores holds that of each. The two cotangents share
    the pass, because a fully connected head costs what it takes to read its weights.
    """
    if not logits.requires_grad:
        raise _unreachable(layer)
    with torch.enable_grad():
        values = logits.detach().requires_grad_()
        single = torch.promote_types(logits.dtype, torch.float32)
        targets: dict[Scores, Tensor] = {"pre": values, "post": values.softmax(1, dtype=single)}
        own = [targets[scores].gather(1, labels[:, None]).sum() for scores in SCORES]
    cotangents = torch.stack([torch.autograd.grad(score, values)[0] for score in own])  # (2, B, C)
    try:
        gradients = torch.autograd.grad(logits, leaf, cotangents, retain_graph=True, is_grads_batched=True, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation of the head that cannot be batched, such as one's own autograd.Function
        passes = [torch.autograd.grad(logits, leaf, one, retain_graph=True, allow_unused=True)[0] for one in cotangents]
        gradients = None if passes[0] is None else torch.stack(passes)
    if gradients is None:
        raise _unreachable(layer)
    return dict(zip(SCORES, gradients, strict=True))


def _unreachable(layer: str) -> InputError:
    return InputError(f"the class scores do not depend on layer '{layer}'; choose another --layer")


def find_layer(module: nn.Module, layer: str) -> nn.Module:
    """A module of the network by its name.

    Raises:
        InputError: if there is none; the line lists the nearest names.
    """
    names: dict[str, nn.Module] = {name: child for name, child in module.named_modules() if name}
    if layer not in names:
        near = get_close_matches(layer, names, n=5, cutoff=0.3) or list(names)[-5:]
        raise InputError(f"unknown layer '{layer}'; the nearest: {listed(near, 5)}")
    return names[layer]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """The network in evaluation mode inside the block, and each of its modules as it was after it."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """The network's answer, or one line that says why there is none."""
    try:
        output = module(inputs)
    except (InputError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the network is the user's code
        if "can't allocate memory" in str(error):
            raise
        size = f"{inputs.shape[1]} x {inputs.shape[2]} x {inputs.shape[3]}"
        raise InputError(f"the network fails on an input of {size} numbers: {type(error).__name__}: {error}") from error
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the network returns {shape}; expected class logits (B, C)")
    return output
