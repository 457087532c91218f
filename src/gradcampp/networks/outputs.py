"""The class logits (B, C) in what a network returns: a tensor, a tuple, a dictionary, or an object with named parts.

A network that scores every pixel is asked for a class once it is wrapped; over a mask (h, w), for instance::

    class Masked(torch.nn.Module):
        def __init__(self, net, mask): super().__init__(); self.net, self.mask = net, mask
        def forward(self, x): return (self.net(x)["out"] * self.mask).sum((2, 3))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor

from gradcampp.errors import InputError, listed

LOGITS = ("logits", "out")  # the names of Hugging Face's and torchvision's outputs
Key = str | int


def logits_of(returned: object, count: int, key: Key | None = None) -> Tensor:
    """The logits of so many images, (B, C): a view of the network's own output, in its graph.

    Args:
        returned: what the network returned.
        count: number of images, B.
        key: key, attribute or index of the logits. None takes what is called ``logits`` or ``out``, the only tensor, or the
            only tensor (B, C).

    Raises:
        InputError: if there are no class logits, or several tensors could be them; the line lists keys with their shapes.
    """
    parts = _parts(returned)
    if key is not None:
        by_index = dict(enumerate(parts.values())).get(int(key)) if str(key).isdigit() else None
        chosen = parts.get(str(key), by_index)
        if not isinstance(chosen, Tensor):
            raise InputError(f"--output {key}: the network returns {_described(returned, parts)}; expected a tensor among them")
    else:
        tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
        named = [tensors[name] for name in LOGITS if name in tensors]
        flat = [part for part in tensors.values() if part.ndim == 2 and len(part) == count]
        choice = named[:1] or (list(tensors.values()) if len(tensors) == 1 else flat)
        if len(choice) != 1:
            help = "name the logits with --output KEY_OR_INDEX" if tensors else "expected class logits (B, C)"
            raise InputError(f"the network returns {_described(returned, parts)}; {help}")
        (chosen,) = choice
    return _checked(chosen, count)


def _checked(output: Tensor, count: int) -> Tensor:
    """The output as (B, C)."""
    shape = tuple(output.shape)
    if output.ndim == 4 and shape[0] == count and shape[2] * shape[3] > 1:
        wrap = "(net(x) * mask).sum((2, 3)), or net(x).mean((2, 3))"
        raise InputError(f"the network returns {shape}, scores of every place: wrap it in a module whose forward returns {wrap}")
    if output.ndim == 4 and shape[2:] == (1, 1):
        output = output.flatten(1)
    if shape == (count,):  # one score an image
        output = output[:, None]
    if output.ndim != 2 or len(output) != count or not output.shape[1]:
        raise InputError(f"the network returns {shape} for {count} images; expected class logits (B, C)")
    if not output.is_floating_point():
        raise InputError(f"the network returns {output.dtype}, which is no score and has no gradient; expected class logits")
    return output


def _parts(returned: object) -> dict[str, object]:
    """All that a network returns, by key, field or attribute, or else by index."""
    if isinstance(returned, Mapping):
        return {str(key): part for key, part in returned.items()}
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    if isinstance(returned, list | tuple):
        return {str(index): part for index, part in enumerate(returned)}
    if is_dataclass(returned):
        return {field.name: getattr(returned, field.name) for field in fields(returned)}
    return {"0": returned} if isinstance(returned, Tensor) else dict(getattr(returned, "__dict__", {}))


def _described(returned: object, parts: Mapping[str, object]) -> str:
    """The parts with their shapes: ``logits (8, 10), features (8, 512)``."""
    said = [f"{name} {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}" for name, part in parts.items()]
    return f"{type(returned).__name__} of {listed(said, 8)}" if said else type(returned).__name__
