"""Which layer of a network is explained when none is named."""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor, nn

from gradcampp.errors import InputError
from gradcampp.networks.capture import forward

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def default_layer(module: nn.Module, inputs: Tensor) -> str:
    """The last feature maps before the classifier, found by watching one forward pass.

    That is the last output (B, K, H, W) with more than one unit a map that comes from neither a pooling
    nor a dropout layer nor a plain container, and that is finished before the layer that makes the
    scores begins. For VGG16 it is the paper's layer, ``features.29``.

    Args:
        module: any network that ends in class logits.
        inputs: a batch of the size that the network expects, (B, 3, h, w).

    Raises:
        InputError: if the network has no such layer, or does not return class logits.
    """
    names = {child: name for name, child in module.named_modules()}
    candidates: list[tuple[str, int]] = []  # names and addresses of outputs, in the order in which they are finished
    pooled: set[int] = set()
    starts: dict[nn.Module, int] = {}  # the number of candidates at the start of each layer with weights
    scored: list[tuple[int, int]] = []  # that number and the channels, for each of these layers as it is finished
    kept: list[Tensor] = []  # keeps addresses unique

    def started(child: nn.Module, _inputs: object) -> None:
        if next(child.parameters(recurse=False), None) is not None and next(child.children(), None) is None:
            starts[child] = len(candidates)

    def finished(child: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if child in starts and output.ndim in (2, 4):
            scored.append((starts[child], output.shape[1]))
        if output.ndim != 4 or child is module:
            return
        kept.append(output)
        if isinstance(child, _POOLING):
            pooled.add(output.data_ptr())
        elif output[0, 0].numel() > 1 and type(child) is not nn.Sequential and not isinstance(child, _TRANSPARENT):
            candidates.append((names[child], output.data_ptr()))

    with ExitStack() as hooks:
        for child in names:
            hooks.enter_context(child.register_forward_hook(finished))
            hooks.enter_context(child.register_forward_pre_hook(started))
        classes = forward(module, inputs).shape[1]
    before = [count for count, channels in scored if channels == classes] or [len(candidates)]
    usable = [name for name, address in candidates[: before[-1]] if address not in pooled]
    if not usable:
        raise InputError("the network has no feature maps (B, K, H, W) before its classifier; name one with --layer")
    return usable[-1]
