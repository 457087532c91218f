"""The layers of a network: by name, with their layout, and the one that is explained when none is named."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import functional_call

from gradcampp.errors import InputError, listed
from gradcampp.networks.layout import CHANNELS_FIRST, SYNTAX, Layout, Shape, Size, find, parse, patches
from gradcampp.networks.outputs import Key
from gradcampp.networks.running import check_images, evaluation_mode, mark, run, shapes, unwrap

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class _Candidate:
    """An output of a module, and its place in the graph."""

    name: str
    shape: Shape
    place: GradientEdge
    pooled: bool
    widened: bool  # the last axis is not as long as that of the input


def default_layer(module: nn.Module, inputs: Tensor, output: Key | None = None, layout: str | Layout | None = None) -> str:
    """The last feature maps before the classifier, found by following the graph from the logits back.

    That is the last output of a module with more than one unit a map that

    - comes from neither a pooling nor a dropout layer nor a plain container, and holds no map for each class, by which its own
      score alone is made;
    - has gradients at its units: of a vision transformer that reads its class token, the normalisation before the last
      attention, because behind that attention the tokens of the image are not read any more;
    - is no branch: the scores reach the maps before it, of no fewer channels, through it alone. Tokens keep their width, which
      those inside an attention do not.

    For VGG16 it is the paper's layer, ``features.29``. Behind a ReLU maps are not negative, as the paper assumes; where the last
    maps come from a normalisation or GELU they have both signs.

    Args:
        module: any network that ends in class logits.
        inputs: a batch of the size that the network expects, (B, 3, h, w); its values do not count.
        output, layout: as in :func:`gradcampp.networks.capture.capture`; the layout is that of outputs which it fits.

    Raises:
        InputError: if the network has no such layer, or does not return class logits.
    """
    module = unwrap(module)
    check_images(module, inputs)
    image = _noise(1, *inputs.shape[1:]).to(inputs)
    candidates: list[_Candidate] = []
    names = {child: name for name, child in module.named_modules()}
    thread = threading.get_ident()

    def started(_child: nn.Module, _inputs: object) -> None:
        if threading.get_ident() == thread:
            torch.set_grad_enabled(True)  # inside a no_grad of the network's own, until that ends

    def finished(child: nn.Module, given: tuple[object, ...], result: object) -> Tensor | None:
        if threading.get_ident() != thread or not isinstance(result, Tensor) or not result.is_floating_point():
            return None
        if result.is_inference():
            raise InputError("the network runs in torch.inference_mode, which has no gradients; take that out of its forward")
        result, place = mark(result)
        before = given[0] if given and isinstance(given[0], Tensor) else result
        pooled = isinstance(child, _POOLING)
        if pooled or not (child is module or type(child) is nn.Sequential or isinstance(child, _TRANSPARENT)):
            candidates.append(
                _Candidate(names[child], tuple(result.shape), place, pooled, before.shape[-1:] != result.shape[-1:])
            )
        return result

    with torch.inference_mode(False), evaluation_mode(module), torch.enable_grad():
        with ExitStack() as hooks:
            for child in names:
                hooks.enter_context(child.register_forward_pre_hook(started, prepend=True))
                hooks.enter_context(child.register_forward_hook(finished, prepend=True))
            zeros = {name: values for name, values in module.named_parameters() if not (name.endswith("bias") or values.any())}
            full = {name: _noise(*values.shape).to(values) for name, values in zeros.items()}  # heads and scales often begin at 0
            logits = run(functools.partial(functional_call, module, full), image.requires_grad_().clone(), output)
        return _last(module, image, candidates, logits, parse(layout) if layout is not None else None)


def _last(module: nn.Module, image: Tensor, candidates: list[_Candidate], logits: Tensor, given: Layout | None) -> str:
    """The name of the last candidate that nothing rules out."""
    classes = logits.shape[1]
    seen = logits.detach()
    probable = bool((seen >= 0).all()) and math.isclose(float(seen.sum()), 1, rel_tol=1e-3)  # a softmax is in the network
    pair = (logits.log() if probable else logits) @ (torch.eye(classes)[0] - torch.eye(classes)[-1]).to(logits)
    mixed = logits @ _noise(classes).to(logits)  # no class's zero gradient hides a layer
    pooled = {one.place for one in candidates if one.pooled}
    size = (image.shape[2], image.shape[3])
    watched = functools.cache(lambda size: shapes(module, image, size))

    @functools.cache
    def layout(index: int) -> Layout | None:
        one = candidates[index]
        usable = one.place not in pooled and len(one.shape) in (3, 4) and one.shape[0] == 1
        return find_layout(module, one.name, one.shape, size, watched, given) if usable else None

    def slopes(score: Tensor, index: int, guess: Layout | None = None) -> Tensor:
        found = layout(index) or guess
        gradient = torch.autograd.grad(score, candidates[index].place, retain_graph=True, allow_unused=True)[0]
        return torch.zeros(1, 1, 1, 1) if gradient is None or found is None else found.maps(gradient)  # (1, K, H, W)

    @functools.cache
    def channels(index: int) -> int:
        """Of maps by which the scores have gradients, and else 0."""
        gradient = slopes(mixed, index)
        return gradient.shape[1] if gradient.any() and gradient[0, 0].numel() > 1 else 0

    def for_each_class(index: int) -> bool:
        return channels(index) == classes and not slopes(pair, index)[:, 1 : classes - 1].any()

    def branch(index: int) -> bool:
        place = candidates[index].place
        before = (i for i in reversed(range(index)) if candidates[i].place != place and channels(i) >= channels(index))
        wide = next(before, None)
        with _blocked(place):
            return wide is not None and bool(slopes(mixed, wide).any())

    later: set[str] = set()  # of a module that is called several times, the last call that returns maps counts
    for index in reversed(range(len(candidates) if logits.requires_grad else 0)):
        if candidates[index].name in later:
            continue
        if len(candidates[index].shape) in (3, 4):
            later.add(candidates[index].name)
        one = candidates[index]
        if len(one.shape) == 3 and one.widened:
            continue  # a projection inside a block of tokens
        guess = None if layout(index) else patches(one.shape, size, sure=True)
        if guess and slopes(mixed, index, guess).any():
            layout_of(module, one.name, one.shape, image)  # says what cannot be told
        if channels(index) and not for_each_class(index) and not branch(index):
            return one.name
    raise InputError("the network has no feature maps that its scores depend on; name a layer with --layer, and its --layout")


@contextmanager
def _blocked(place: GradientEdge) -> Iterator[None]:
    """No gradient passes the place inside the block."""

    def block(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        at = place.output_nr
        return tuple(one if one is None or number != at else torch.zeros_like(one) for number, one in enumerate(gradients))

    handle = place.node.register_prehook(block)
    try:
        yield
    finally:
        handle.remove()


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def full_name(module: nn.Module, layer: str) -> str:
    """The name of a layer in ``named_modules``, in which those of wrappers may be left out or added.

    Raises:
        InputError: if there is none; the line says what is near.
    """
    names = [name for name, _ in module.named_modules() if name]
    same = [name for name in names if _plain(name) == _plain(layer)]
    if same:
        return layer if layer in same else same[0]
    near = get_close_matches(layer, names, n=5, cutoff=0.3) or names[-5:]
    raise InputError(f"unknown layer '{layer}'; the nearest: {listed(near, 5)}")


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def layout_of(module: nn.Module, layer: str, shape: Shape, inputs: Tensor, given: str | Layout | None = None) -> Layout:
    """The layout of a layer's output of this shape: the given one if it fits, or the one that can only be.

    Raises:
        InputError: if the output has no feature maps of more than one unit.
    """
    says = f"layer '{layer}' returns {tuple(shape)}"
    if shape[0] != len(inputs):
        raise InputError(f"{says} for {len(inputs)} images; expected one row an image, which parts of an image are not")
    size = (inputs.shape[2], inputs.shape[3])
    watched = functools.cache(lambda size: shapes(module, inputs, size))
    found = parse(given) if given is not None else find_layout(module, layer, shape, size, watched)
    if found is None or not found.fits(shape):
        problem = f"--layout {given} does not fit" if given is not None else "which axes are rows and columns cannot be told"
        raise InputError(f"{says}: {problem}; expected --layout {SYNTAX}")
    if found.maps(torch.empty(shape, device="meta"))[0, 0].numel() < 2:
        raise InputError(f"{says}: one unit a map says nothing about places; name a layer before the maps are pooled")
    return found


@torch.no_grad()
def find_layout(
    module: nn.Module,
    layer: str,
    shape: Shape,
    size: Size,
    watched: Callable[[Size], dict[str, Shape]],
    given: Layout | None = None,
) -> Layout | None:
    """The layout of a layer's output, which a two-dimensional module of torch says itself, or the given one where that fits.

    ``watched`` gives :func:`shapes` at a size of the input.
    """
    children = dict(module.named_modules())
    kinds = {name: type(child) for name, child in children.items()}
    flat = {name for name, kind in kinds.items() if kind.__module__.startswith("torch.nn.") and kind.__name__.endswith("2d")}
    if layer in flat and len(shape) == 4:
        return CHANNELS_FIRST
    if given is not None and given.fits(shape):
        return given

    def grids() -> list[Size]:
        return [(seen[2], seen[3]) for name, seen in watched(size).items() if name in flat and len(seen) == 4]

    def at(size: Size) -> Shape | None:
        return watched(size).get(layer)

    widths = {child.normalized_shape[-1] for child in children.values() if isinstance(child, _NORMS)}  # of tokens
    sure = isinstance(children[layer], _NORMS) or (shape[-1] in widths and shape[1] not in widths)
    return find(tuple(shape), size, grids, at, sure)
