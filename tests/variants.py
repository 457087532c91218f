"""The weights of other programs, (B, K), from the alphas that they compute; and eqs 9 and 4 written out once more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradcampp.algebra import programs

PLANE = (2, 3)


def paper(activations: Tensor, gradients: Tensor) -> Tensor:
    """Eqs 9 and 4, with alpha zero where the gradient is."""
    numerators = gradients.square()
    alphas = numerators / (2 * numerators + activations.sum(PLANE, keepdim=True) * gradients.pow(3))
    return (torch.where(gradients == 0, 0, alphas) * gradients.clamp(min=0)).sum(PLANE)


def of(alphas: programs.Alphas) -> Callable[[Tensor, Tensor], Tensor]:
    def weights(activations: Tensor, gradients: Tensor) -> Tensor:
        return programs.weights(alphas, activations, gradients)

    weights.__name__ = alphas.__name__
    return weights


authors, grad_cam, torchcam, konny, tf_keras_vis, xplique = map(of, dict.fromkeys(programs.PROGRAMS.values()))


def constant(_activations: Tensor, gradients: Tensor) -> Tensor:
    """No program, but eq. 14: every alpha is 1/2."""
    return (gradients.relu() / 2).sum(PLANE)


WRONG = (authors, grad_cam, torchcam, konny, tf_keras_vis, xplique, constant)
