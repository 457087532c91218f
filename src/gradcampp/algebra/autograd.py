"""Eqs 7, 18 and 19 on any differentiable score, by automatic differentiation: Appendix A checked with numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev

Score = Callable[[Tensor], Tensor]  # (K, H, W) -> ()
Alphas = Callable[[Tensor], Tensor]  # (K, H, W) -> (K, H, W)


def equation_6(score: Score, alphas: Alphas, activations: Tensor) -> Tensor:
    """Right side of eq. 6 without its ReLU, a number."""
    channel_weights = (alphas(activations) * jacrev(score)(activations)).sum((1, 2))  # (K,)
    return torch.dot(channel_weights, activations.sum((1, 2)))


def derivative_of_equation_6(score: Score, alphas: Alphas, activations: Tensor) -> Tensor:
    """Its true derivative with respect to every activation, (K, H, W)."""
    derivative: Tensor = jacrev(lambda moved: equation_6(score, alphas, moved))(activations)
    return derivative


def equation_7(score: Score, alphas: Alphas, activations: Tensor) -> Tensor:
    """The Grad-CAM++ authors' expression for it, (K, H, W)."""
    fixed, slopes, curvatures, sums = _parts(score, alphas, activations)
    return _own(fixed, slopes) + torch.einsum("k,kij,kijkij->kij", sums, fixed, curvatures)


def equation_18(score: Score, alphas: Alphas, activations: Tensor) -> Tensor:
    """The derivative if the alphas were constants, (K, H, W)."""
    fixed, slopes, curvatures, sums = _parts(score, alphas, activations)
    return _own(fixed, slopes) + torch.einsum("l,lab,kijlab->kij", sums, fixed, curvatures)


def equation_19(score: Score, alphas: Alphas, activations: Tensor) -> Tensor:
    """The derivative if the alphas move with the activations, (K, H, W)."""
    _, slopes, _, sums = _parts(score, alphas, activations)
    moving = jacrev(alphas)(activations)  # (K, H, W, K, H, W), alpha first
    return equation_18(score, alphas, activations) + torch.einsum("l,labkij,lab->kij", sums, moving, slopes)


def smooth_network(seed: int, channels: int, height: int, width: int) -> Score:
    """A random network with a smooth score: two layers of tanh, float64."""
    generator = torch.Generator().manual_seed(seed)
    units = channels * height * width
    first, second, third = (
        torch.randn(shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5
        for shape in ((16, units), (8, 16), (1, 8))
    )

    def score(activations: Tensor) -> Tensor:
        value: Tensor = (third @ (second @ (first @ activations.flatten()).tanh()).tanh())[0]
        return value

    return score


def _parts(score: Score, alphas: Alphas, activations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Alphas and gradients (K, H, W), second derivatives (K, H, W, K, H, W) and sums of the maps (K,)."""
    slopes = jacrev(score)  # twice in reverse mode: the first use of forward mode warns of something deprecated in PyTorch itself
    return alphas(activations), slopes(activations), jacrev(slopes)(activations), activations.sum((1, 2))


def _own(fixed: Tensor, slopes: Tensor) -> Tensor:
    """The sum over the unit's own channel, the same for each of its units, (K, H, W)."""
    return (fixed * slopes).sum((1, 2), keepdim=True).expand_as(slopes)
