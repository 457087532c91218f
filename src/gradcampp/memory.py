"""Batches as large as memory allows, and memory that is not returned only to be asked for again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcampp.errors import InputError


@dataclass
class BatchLimit:
    """The largest batch that the device has not refused so far."""

    size: int


def in_batches(function: Callable[[slice], list[Tensor]], count: int, limit: BatchLimit) -> list[Tensor]:
    """Apply a function to slices of a long batch, halving them for good when memory runs out.

    Args:
        function: maps a slice of ``range(count)`` to tensors whose first dimension is the slice's length.
        count: length of the batch.
        limit: length of the slices; lowered here where the device is out of memory.

    Returns:
        The function's tensors for the whole batch.

    Raises:
        InputError: if memory does not even suffice for a slice of one.
    """
    results: list[list[Tensor]] = []
    start = 0
    while start < count:
        part = slice(start, min(start + limit.size, count))
        done = _unless_out_of_memory(function, part)
        if done is not None:
            results.append(done)
            start = part.stop
        elif limit.size == 1:
            raise InputError("out of memory with a single image in the batch; choose a smaller --crop or another --device")
        else:
            limit.size = min(limit.size, part.stop - part.start) // 2 or 1
            torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    return [torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in zip(*results, strict=True)]


def _unless_out_of_memory(function: Callable[[slice], list[Tensor]], part: slice) -> list[Tensor] | None:
    """The function's result, or None: by then the failed attempt's tensors are free again."""
    try:
        return function(part)
    except torch.OutOfMemoryError:
        return None
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # how torch says it on the CPU
            return None
        raise


def reuse_large_blocks() -> None:
    """Tell glibc to keep freed memory; elsewhere, do nothing.

    By default it returns every block over 32 MiB to the system, and the page faults of getting it back
    take a tenth (VGG16) to a third (SqueezeNet) of a forward pass with eight images.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block has a mapping of its own
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap keeps up to 2 GiB that are free
