"""The checks of test_cam and its siblings fail for wrong formulas: those of other programs, and slips of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from gradcampp import cam, variants
from gradcampp.cam import min_max, upsample
from gradcampp.performance import relative_performance
from tests import loops

PLANE = (2, 3)
DIFFERENT = "are not (close|equal)"  # in value: a wrong shape or dtype would be another message


OTHER: dict[str, variants.Alphas] = {  # alphas of other programs, a slip of one, and eq. 14
    alphas.__name__: alphas
    for alphas in (*variants.PROGRAMS.values(), variants.wrong_power, variants.wrong_index, variants.totti0223, variants.half)
}


def paper(activations: Tensor, gradients: Tensor) -> Tensor:
    """Eqs 9 and 4 written out once more, with alpha zero where the gradient is."""
    numerators = gradients.square()
    alphas = numerators / (2 * numerators + activations.sum(PLANE, keepdim=True) * gradients.pow(3))
    return (torch.where(gradients == 0, 0, alphas) * gradients.clamp(min=0)).sum(PLANE)


def sums(activations: Tensor) -> Tensor:
    return activations.sum(PLANE, keepdim=True)


def assert_same_maps(weights: loops.OfLayer) -> None:
    """The min-max maps of eq. 4, which no constant factor hides from; they are compared to three digits."""
    for activations, gradients in loops.examples()[1:2]:
        expected = loops.each_map(loops.gradcam_plusplus_weight, activations, gradients)
        found = min_max(cam.heatmap(weights(activations, gradients), activations))
        loops.assert_same(found, min_max(cam.heatmap(expected, activations)), absolute=1e-3)


@pytest.mark.parametrize("weights", [partial(cam.weights, "gradcam++"), paper])
def test_the_formula_of_the_paper_passes(weights: loops.OfLayer) -> None:
    loops.assert_gradcam_plusplus_weights(weights)
    assert_same_maps(weights)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_the_weights_of_other_programs_are_rejected(name: str) -> None:
    with pytest.raises(AssertionError, match=DIFFERENT):
        loops.assert_gradcam_plusplus_weights(partial(variants.weights, OTHER[name]))


@pytest.mark.parametrize("name", sorted(OTHER.keys() - {"grad_cam", "omnixai", "half"}))
def test_the_maps_of_most_other_programs_differ_in_more_than_a_factor(name: str) -> None:
    with pytest.raises(AssertionError, match=DIFFERENT):
        assert_same_maps(partial(variants.weights, OTHER[name]))


def layer_after_relu(constant: bool, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Random maps without negative values, and gradients that are constant within a map, as behind pooling and a linear layer."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn((2, 9, 5, 6), generator=generator, dtype=torch.float64).relu()
    gradients = torch.randn((2, 9, 1, 1) if constant else maps.shape, generator=generator, dtype=torch.float64)
    return maps, gradients.expand_as(maps).contiguous()


def apart(one: Tensor, other: Tensor) -> float:
    return (min_max(one) - min_max(other)).abs().max().item()


@pytest.mark.parametrize("constant", [True, False])
def test_neighbours_are_one_method_where_gradients_are_constant_within_a_map_and_not_elsewhere(constant: bool) -> None:
    """What chapter 10 says of HiResCAM, XGrad-CAM and LayerCAM, and of programs that divide by a sum of alphas."""
    a, g = layer_after_relu(constant)
    plain, plus = (cam.heatmap(cam.weights(method, a, g), a) for method in ("gradcam", "gradcam+"))
    pairs = [(variants.hirescam(a, g), plain), (cam.heatmap(variants.xgradcam(a, g), a), plain), (variants.layercam(a, g), plus)]
    normalised = variants.authors, variants.tf_keras_vis
    pairs += [(cam.heatmap(variants.weights(alphas, a, g), a), plus) for alphas in normalised]
    for one, other in pairs:
        assert (apart(one, other) < 1e-12) == constant
    assert apart(cam.heatmap(cam.weights("gradcam++", a, g), a), plus) > 1e-3
    assert torch.equal(variants.elementwise(a, g), variants.layercam(a, g))


def test_two_slips_of_totti0223_make_grad_cam_plus() -> None:
    a, g = layer_after_relu(constant=False)
    plus = cam.heatmap(cam.weights("gradcam+", a, g), a)
    assert apart(cam.heatmap(variants.weights(variants.totti0223, a, g), a), plus) < 1e-12
    assert apart(cam.heatmap(variants.weights(variants.wrong_power, a, g), a), plus) > 1e-3


def test_safe_replacements_are_eq_13_where_no_sum_is_negative_and_bounded_everywhere() -> None:
    a, g = layer_after_relu(constant=False)
    exact = cam.weights("gradcam++", a, g)
    for alphas in (variants.absolute, variants.positive_part):
        torch.testing.assert_close(variants.weights(alphas, a, g), exact, rtol=1e-13, atol=0)
        signed = alphas(a - 0.4, 100 * g)  # sums of both signs, near poles of eq. 13
        assert signed.min() > 0
        assert signed.max() <= 0.5
    assert cam.alphas(a - 0.4, 100 * g).abs().max() > 1
    torch.testing.assert_close(variants.weights(variants.half, a, g), cam.weights("gradcam+", a, g) * a[0, 0].numel() / 2)
    torch.testing.assert_close(variants.weights(variants.reduced, a, g), exact, rtol=1e-6, atol=0)


def test_a_logit_of_linear_pieces_has_no_second_derivative_so_that_shapleycam_is_grad_cam() -> None:
    """And a softmax has one; the Hessian times the maps by a second backward pass."""
    generator = torch.Generator().manual_seed(4)
    head = torch.nn.Sequential(torch.nn.Conv2d(9, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2), torch.nn.Flatten())
    last = torch.randn((4 * 1 * 2, 3), generator=generator, dtype=torch.float64)
    a = layer_after_relu(constant=False)[0].requires_grad_()
    logits = head.double()(a) @ last
    for score, same in ((logits[:, 0], True), (logits.softmax(1)[:, 0], False)):
        (g,) = torch.autograd.grad(score.sum(), a, create_graph=True)
        products = torch.autograd.grad((g * a.detach()).sum(), a, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
        found, weights = variants.shapleycam(g, products).detach(), cam.weights("gradcam", a, g).detach()
        assert torch.allclose(found, weights, rtol=1e-12, atol=0) == same


def test_the_same_amount_on_all_logits_moves_their_gradients_and_none_of_the_softmax() -> None:
    """The attack of Lerma & Lucas (2023); and gradients of a softmax score are those of the logit less their mean under it."""
    generator = torch.Generator().manual_seed(6)
    matrix = torch.randn((9 * 5 * 6, 4), generator=generator, dtype=torch.float64) / 20
    a = layer_after_relu(constant=False)[0].requires_grad_()
    gradients = []
    for amount in (0, 10):
        logits = a.flatten(1) @ matrix + amount * a[:, :, 0, 0].sum(1, keepdim=True)
        scores = logits[:, 0].sum(), logits.softmax(1)[:, 0].sum()
        gradients.append([torch.autograd.grad(score, a, retain_graph=True)[0] for score in scores])
    (pre, post), (moved_pre, moved_post) = gradients
    torch.testing.assert_close(post, moved_post)
    plain, moved = (cam.heatmap(cam.weights("gradcam", a, g), a).detach() for g in (pre, moved_pre))
    assert apart(plain, moved) > 0.1
    p = (a.flatten(1) @ matrix).softmax(1).detach()
    slopes = matrix.T.reshape(4, 9, 5, 6)
    less = slopes[0] - torch.einsum("bc,ckij->bkij", p, slopes)
    torch.testing.assert_close(post, p[:, :1, None, None] * less)


WRONG_EQ_1: dict[str, loops.OfLayer] = {
    "sum": lambda _, g: g.sum(PLANE),
    "sign": lambda _, g: -g.mean(PLANE),
    "factor 2": lambda _, g: 2 * g.mean(PLANE),
    "ReLU of the gradients": lambda _, g: g.relu().mean(PLANE),
    "ReLU of the mean": lambda _, g: g.mean(PLANE).relu(),
    "absolute gradients": lambda _, g: g.abs().mean(PLANE),
    "activations": lambda a, _: a.mean(PLANE),
    "rows only": lambda _, g: g.sum(PLANE) / g.shape[2],
    "mean over the batch": lambda _, g: g.mean((0, 2, 3)).expand(g.shape[:2]),
}
WRONG_EQ_3: dict[str, loops.OfLayer] = {
    "no ReLU": lambda _, g: g.mean(PLANE),
    "sum": lambda _, g: g.relu().sum(PLANE),
    "factor 1/2": lambda _, g: g.relu().mean(PLANE) / 2,
    "ReLU of the mean": lambda _, g: g.mean(PLANE).relu(),
    "mean of the positive ones": lambda _, g: g.relu().sum(PLANE) / (g > 0).sum(PLANE).clamp(min=1),
    "sign": lambda _, g: (-g).relu().mean(PLANE),
    "absolute gradients": lambda _, g: g.abs().mean(PLANE),
    "guided": lambda a, g: (g.relu() * (a > 0)).mean(PLANE),
}
WRONG_EQ_4: dict[str, loops.OfLayer] = {
    "mean": lambda a, g: (cam.alphas(a, g) * g.relu()).mean(PLANE),
    "no ReLU": lambda a, g: (cam.alphas(a, g) * g).sum(PLANE),
    "sign of the term": lambda a, g: (g.relu() / (2 - sums(a) * g)).sum(PLANE),
    "1 for 2": lambda a, g: (g.relu() / (1 + sums(a) * g)).sum(PLANE),
    "twice the term": lambda a, g: (g.relu() / (2 + 2 * sums(a) * g)).sum(PLANE),
    "mean activation": lambda a, g: (g.relu() / (2 + a.mean(PLANE, keepdim=True) * g)).sum(PLANE),
    "own activation": lambda a, g: (g.relu() / (2 + a * g)).sum(PLANE),
    "sum over all channels": lambda a, g: (g.relu() / (2 + a.sum((1, 2, 3), keepdim=True) * g)).sum(PLANE),
    "sum over the batch": lambda a, g: (g.relu() / (2 + a.sum((0, 2, 3), keepdim=True) * g)).sum(PLANE),
    "mean gradient": lambda a, g: (g.relu() / (2 + sums(a) * g.mean(PLANE, keepdim=True))).sum(PLANE),
    "epsilon": lambda a, g: (g.relu() / (2 + sums(a) * g + 1e-8)).sum(PLANE),
    "twice": lambda a, g: 2 * cam.weights("gradcam++", a, g),
    "another lam": lambda a, g: cam.weights("gradcam++", a, g, 1.001),
}
WRONG_ALPHAS: dict[str, loops.OfLayer] = {
    "a half where the gradient is 0": lambda a, g: 1 / (2 + sums(a) * g),
    "0 where the gradient is negative": lambda a, g: torch.where(g > 0, 1 / (2 + sums(a) * g), 0),
    "ReLU in the denominator": lambda a, g: torch.where(g != 0, 1 / (2 + sums(a) * g.relu()), 0),
    "sign": lambda a, g: torch.where(g != 0, 1 / (2 - sums(a) * g), 0),
    "1 for 2": lambda a, g: torch.where(g != 0, 1 / (1 + sums(a) * g), 0),
    "second powers only": lambda a, g: torch.where(g != 0, g**2 / (2 * g**2 + sums(a) * g**2), 0),
    "epsilon": lambda a, g: g**2 / (2 * g**2 + sums(a) * g**3 + 1e-12),
    "clipped": lambda a, g: cam.alphas(a, g).clamp(-1, 1),
    "another lam": lambda a, g: cam.alphas(a, g, 0.5),
}
WRONG_EQ_2: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "no ReLU": lambda w, a: (w[..., None, None] * a).sum(1),
    "mean": lambda w, a: (w[..., None, None] * a).mean(1).relu(),
    "ReLU of the weights": lambda w, a: (w.relu()[..., None, None] * a).sum(1),
    "ReLU before the sum": lambda w, a: (w[..., None, None] * a).relu().sum(1),
    "absolute": lambda w, a: (w[..., None, None] * a).sum(1).abs(),
    "sign": lambda w, a: (-w[..., None, None] * a).sum(1).relu(),
    "transposed": lambda w, a: torch.einsum("bk,bkhw->bwh", w, a).relu().reshape(len(a), *a.shape[2:]),
}
WRONG_MIN_MAX: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum only": lambda maps: maps / maps.amax((-2, -1), True),
    "epsilon": lambda maps: (maps - maps.amin((-2, -1), True)) / (maps.amax((-2, -1), True) - maps.amin((-2, -1), True) + 1e-7),
    "over the batch": lambda maps: (maps - maps.min()) / (maps.max() - maps.min()),
    "over the channels": lambda maps: (
        (maps - maps.amin((1, 2, 3), True)) / (maps.amax((1, 2, 3), True) - maps.amin((1, 2, 3), True))
    ),
    "constant maps are NaN": lambda maps: (
        (maps - maps.amin((-2, -1), True)) / (maps.amax((-2, -1), True) - maps.amin((-2, -1), True))
    ),
    "upside down": lambda maps: 1 - min_max(maps),
}
WRONG_UPSAMPLE: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "corners aligned": lambda maps, size: functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=True)[:, 0],
    "nearest": lambda maps, size: functional.interpolate(maps[:, None], size, mode="nearest")[:, 0],
    "bicubic": lambda maps, size: functional.interpolate(maps[:, None], size, mode="bicubic", align_corners=False)[:, 0],
    "width before height": lambda maps, size: upsample(maps, size[::-1]).reshape(len(maps), *size),
}
WRONG_EQ_15: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda heat, pixels: heat[:, None] + pixels,
    "inverse map": lambda heat, pixels: (1 - heat[:, None]) * pixels,
    "no map": lambda _, pixels: pixels,
    "other image": lambda heat, pixels: heat.flip(0)[:, None] * pixels,
    "square": lambda heat, pixels: heat[:, None] ** 2 * pixels,
}
WRONG_EQ_16: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "inverse": lambda first, second: relative_performance(second, first),
    "arithmetic mean": lambda first, second: float(np.mean(np.divide(first, second))),
    "quotient of means": lambda first, second: float(
        np.divide(np.sum(np.asarray(first, float)), np.sum(np.asarray(second, float)))
    ),
    "no root": lambda first, second: float(np.prod(np.divide(first, second))),
    "square root": lambda first, second: float(np.prod(np.divide(first, second)) ** 0.5),
    "decimal logarithm": lambda first, second: float(np.exp(np.mean(np.log10(np.divide(first, second))))),
    "median": lambda first, second: float(np.exp(np.median(np.log(np.divide(first, second))))),
    "logarithm": lambda first, second: float(np.log(relative_performance(first, second))),
}
CASES: list[tuple[Callable[[Any], None], dict[str, Any]]] = [
    (loops.assert_gradcam_weights, WRONG_EQ_1),
    (loops.assert_gradcam_plus_weights, WRONG_EQ_3),
    (loops.assert_gradcam_plusplus_weights, WRONG_EQ_4),
    (loops.assert_alphas, WRONG_ALPHAS),
    (loops.assert_heatmap, WRONG_EQ_2),
    (loops.assert_min_max, WRONG_MIN_MAX),
    (loops.assert_upsample, WRONG_UPSAMPLE),
    (loops.assert_explanation_maps, WRONG_EQ_15),
    (loops.assert_relative_performance, WRONG_EQ_16),
]


@pytest.mark.parametrize(
    ("check", "wrong"),
    [pytest.param(check, wrong, id=f"{check.__name__}-{name}") for check, cases in CASES for name, wrong in cases.items()],
)
def test_a_wrong_formula_is_rejected(check: Callable[[Any], None], wrong: Any) -> None:
    with pytest.raises(AssertionError, match=DIFFERENT):
        check(wrong)
