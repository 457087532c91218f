"""A network run as it is: without its wrappers, in evaluation mode, one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradcampp.errors import InputError, listed
from gradcampp.networks.layout import Shape, Size
from gradcampp.networks.outputs import Key, logits_of

Precision = Literal["float32", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WITHOUT_FLOAT64 = ("mps",)  # kinds of devices

# Hooks, training flags and requires_grad belong to a module and the settings of cuDNN to the process, none of them to a thread;
# two networks may share a part. So one pass runs at a time; the thread that holds the lock may take it again.
_LOCK = threading.RLock()


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile and of data parallelism.

    Raises:
        InputError: if it is TorchScript, exported or quantised, or lacks its weights: no gradients could reach its layers.
    """
    while True:
        parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = module.module if parallel else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    kinds = [type(child) for child in module.modules()]
    script = any(issubclass(kind, torch.jit.ScriptModule) for kind in kinds)
    if script or "eval" in vars(module):  # which torch.export puts there
        said = f"the network is {'TorchScript' if script else 'a program of torch.export'}, whose layers cannot be explained"
        raise InputError(f"{said}; build it from its Python code instead")
    whole = any(not value.is_floating_point() and not value.is_complex() for value in module.parameters())  # as of bitsandbytes
    packed = any(hasattr(value, "__tensor_flatten__") for value in module.parameters())  # as of torchao
    if whole or packed or any(".quantized" in kind.__module__ and kind.__name__ != "FloatFunctional" for kind in kinds):
        raise InputError("the network is quantised, and has no gradients; explain the float network that it was made from")
    values = chain(module.named_parameters(), module.named_buffers())
    empty = [name for name, value in values if nn.parameter.is_lazy(value) or value.is_meta]
    if empty:
        raise InputError(f"the network has no weights yet (lazy or on the meta device): {listed(empty)}; load or initialise them")
    return module


def check_images(module: nn.Module, images: object, name: str = "inputs") -> None:
    """Refuse what is no batch of images on the network's device."""
    if not isinstance(images, Tensor):
        raise InputError(f"{name}: expected a tensor (B, 3, h, w), got {type(images).__name__}")
    if images.ndim != 4 or not len(images):
        raise InputError(f"{name}: expected a batch (B, 3, h, w) of at least one image, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"{name}: expected floating point, got {images.dtype}; divide pixels of 0 to 255 by 255")
    devices = {parameter.device for parameter in module.parameters()}
    if devices and images.device not in devices:
        raise InputError(f"{name}: on {images.device}, and the network on {listed(sorted(map(str, devices)))}; move one of them")


@contextmanager
def computing(precision: Precision, device: str) -> Iterator[None]:
    """The arithmetic of a network inside the block; the settings are as before after it.

    ``float32`` is exact, also on a GPU where torch would round convolutions to TF32. ``tf32`` keeps 10
    bits after the point of the factors of convolutions and matrix products, and sums in float32; it is
    float32 on the ``device`` ``cpu``. Autocasting that surrounds the block is off in it. Other threads wait: the settings are
    the process's.
    """
    rounded = precision == "tf32" and device == "cuda"
    with _LOCK:
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


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and with frozen weights inside the block, and as it was after it; other threads wait."""
    with _LOCK, torch.compiler.set_stance("force_eager"):  # compiled parts run as they were written, with hooks
        modes = {child: child.training for child in module.modules()}
        free = [parameter for parameter in module.parameters() if parameter.requires_grad]
        try:
            module.eval()
            for parameter in free:
                parameter.requires_grad_(False)
            yield
        finally:
            for child, training in modes.items():
                child.training = training
            for parameter in free:
                parameter.requires_grad_()


def run(module: Callable[[Tensor], object], inputs: Tensor, key: Key | None = None) -> Tensor:
    """The logits of a batch, (B, C), in whatever mode the network is.

    Raises:
        InputError: if the network fails, or does not return class logits.
    """
    try:
        returned = module(inputs)
    except Exception as error:  # the network is the user's code
        if isinstance(error, InputError) or out_of_memory(error):
            raise
        size = " x ".join(map(str, inputs.shape[1:]))
        raise InputError(f"the network fails on an input of {size} numbers: {type(error).__name__}: {error}") from error
    return logits_of(returned, len(inputs), key)


def out_of_memory(error: Exception) -> bool:
    """True for each of the ways in which torch says so."""
    said = ("can't allocate memory", "backend out of memory")  # on the CPU, and on a Mac's GPU
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in said)


def forward(module: nn.Module, inputs: Tensor, key: Key | None = None) -> Tensor:
    """The logits of a batch, (B, C), in evaluation mode and without a graph; ``key`` as in ``logits_of``.

    Raises:
        InputError: if the network fails, or does not return class logits.
    """
    module = unwrap(module)
    check_images(module, inputs)
    with evaluation_mode(module), torch.no_grad():
        return run(module, inputs, key)


def shapes(module: nn.Module, inputs: Tensor, size: Size) -> dict[str, Shape]:
    """The shapes of modules' outputs for the first image at another size, up to where the network refuses it."""
    seen: dict[str, Shape] = {}
    thread = threading.get_ident()

    def watcher(name: str) -> Callable[[nn.Module, object, object], None]:
        def watch(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim in (3, 4) and threading.get_ident() == thread:
                seen[name] = tuple(output.shape)

        return watch

    image = nn.functional.interpolate(inputs[:1].detach(), size)
    with evaluation_mode(module), torch.no_grad(), ExitStack() as hooks:
        for name, child in module.named_modules():
            hooks.enter_context(child.register_forward_hook(watcher(name)))
        try:
            module(image)
        except Exception:  # what it refuses is told by what is missing
            return seen
    return seen


def root(values: Tensor) -> Tensor:
    """The same values as the beginning of a graph, in the same object where that can be: whoever keeps it is in the graph, too.

    A view that may not be written into is copied.
    """
    leaf = values.detach().clone().requires_grad_()
    try:
        return values.copy_(leaf)
    except RuntimeError:
        return leaf.clone()


def mark(output: Tensor) -> tuple[Tensor, GradientEdge]:
    """A module's output in a graph, and the place in it by which scores are differentiated, whatever is written into it later."""
    if not output.requires_grad:
        output = root(output)
    place = get_gradient_edge(output)
    if output._is_view():  # writing into a view would go around its place in the graph, into a copy it does not
        try:
            torch.utils.swap_tensors(output, output.clone())  # type: ignore[no-untyped-call]
        except RuntimeError:  # others hold it too
            output = output.clone()
    return output, place
