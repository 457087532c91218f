"""A network split at one layer: one forward pass, then the gradients at that layer only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from gradcampp.cam import SCORES, Scores
from gradcampp.errors import InputError, listed
from gradcampp.networks.classes import Classes
from gradcampp.networks.preprocessing import Preprocessing

Precision = Literal["float32", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


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
        name: as the user gave it.
        weights: SHA-256 of the weight file, ``random (seed N)``, or ``from the factory`` with a hash of them.
        memory_format: of its inputs.
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
            return capture(self.module, self.layer, self._inputs(pixels), labels)

    def logits(self, pixels: Tensor) -> Tensor:
        """The logits of photographs, (B, C), in float32 or better; pixels as in :meth:`capture`.

        Raises:
            InputError: if the network does not return class logits.
        """
        with computing(self.precision, pixels.device.type):
            return _single(forward(self.module, self._inputs(pixels)))

    def _inputs(self, pixels: Tensor) -> Tensor:
        inputs: Tensor = normalize(pixels, list(self.preprocessing.mean), list(self.preprocessing.std))
        return inputs.contiguous(memory_format=self.memory_format)


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def computing(precision: Precision, device: str) -> Iterator[None]:
    """The arithmetic of a network inside the block; the settings are as before after it.

    ``float32`` is exact, also on a GPU where torch would round convolutions to TF32. ``tf32`` keeps 10
    bits after the point of the factors of convolutions and matrix products, and sums in float32; it is
    float32 on the ``device`` ``cpu``. Autocasting that surrounds the block is off in it.
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
        InputError: if the network fails, or does not return class logits.
    """
    try:
        with evaluation_mode(module), torch.no_grad():
            output = module(inputs)
    except Exception as error:  # the network is the user's code
        known = isinstance(error, InputError | torch.OutOfMemoryError | MemoryError)
        if known or "can't allocate memory" in str(error):
            raise
        size = f"{inputs.shape[1]} x {inputs.shape[2]} x {inputs.shape[3]}"
        raise InputError(f"the network fails on an input of {size} numbers: {type(error).__name__}: {error}") from error
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the network returns {shape}; expected class logits (B, C)")
    return output


def capture(module: nn.Module, layer: str, inputs: Tensor, labels: Tensor) -> Capture:
    """Feature maps, logits and both gradients of a batch in float32 or better, for hardly more than one forward pass.

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
    children = {name: child for name, child in module.named_modules() if name}
    if layer not in children:
        near = get_close_matches(layer, children, n=5, cutoff=0.3) or list(children)[-5:]
        raise InputError(f"unknown layer '{layer}'; the nearest: {listed(near, 5)}")
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

    with torch.inference_mode(False), evaluation_mode(module):  # a head with checkpoints runs again for its gradients
        with children[layer].register_forward_hook(cut):
            logits = forward(module, inputs)
        if leaf is None:
            raise InputError(f"layer '{layer}': expected an output (B, K, H, W), got {other}; choose another --layer")
        gradients = _gradients(logits, labels, leaf) if logits.requires_grad else None
    if gradients is None:
        raise InputError(f"the class scores do not depend on layer '{layer}'; choose another --layer")
    return Capture(_single(leaf.detach()), dict(zip(SCORES, _single(gradients), strict=True)), _single(logits.detach()))


def _gradients(logits: Tensor, labels: Tensor, leaf: Tensor) -> Tensor | None:
    """Derivatives of each image's own score, pre and post, in one backward pass through the head, (2, B, K, H, W).

    Images do not mix, so the derivative of a sum of scores holds that of each. The two cotangents share
    the pass, because a fully connected head costs what it takes to read its weights.
    """
    values = _single(logits.detach())
    own = nn.functional.one_hot(labels, values.shape[1]).to(values.dtype)  # (B, C)
    exponentials = (values - values.amax(1, keepdim=True)).exp()
    p = exponentials / exponentials.sum(1, keepdim=True)
    score = p.gather(1, labels[:, None])  # (B, 1)
    others = (p * (1 - own)).sum(1, keepdim=True)  # 1 - score, which keeps its digits where the score is 1 in float32
    post = score * torch.where(own == 1, others, -p)  # the derivative of a softmax score by all logits
    cotangents = torch.stack([own, post]).to(logits.dtype)  # (2, B, C)
    try:
        return torch.autograd.grad(logits, leaf, cotangents, retain_graph=True, is_grads_batched=True, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation of the head that cannot be batched, such as one's own autograd.Function
        passes = [torch.autograd.grad(logits, leaf, one, retain_graph=True, allow_unused=True)[0] for one in cotangents]
        return None if passes[0] is None else torch.stack(passes)


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
