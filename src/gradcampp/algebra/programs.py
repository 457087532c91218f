"""Alphas of other programs' Grad-CAM++, one function for each formula.

All take activations and gradients of one score, (B, K, H, W) each, and return alphas of the same shape, without the factor
exp(score) that some put in front: it is the same for every channel, so no map sees it. They were read from the programs'
code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Alphas = Callable[[Tensor, Tensor], Tensor]
PLANE = (2, 3)


def denominators(activations: Tensor, gradients: Tensor) -> Tensor:
    """Those of eq. 9."""
    return 2 * gradients**2 + activations.sum(PLANE, keepdim=True) * gradients**3


def authors(activations: Tensor, gradients: Tensor) -> Tensor:
    """The Grad-CAM++ authors: the alphas of positive gradients are made to sum to 1; 1 replaces a zero denominator."""
    below = denominators(activations, gradients)
    alphas = gradients**2 / torch.where(below == 0, 1, below)
    totals = torch.where(gradients > 0, alphas, 0).sum(PLANE, keepdim=True)
    return alphas / torch.where(totals == 0, 1, totals)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """grad-cam 1.5: an epsilon in the denominator, which outweighs small squares."""
    return torch.where(gradients != 0, gradients**2 / (denominators(activations, gradients) + 1e-6), 0)


def torchcam(_activations: Tensor, gradients: Tensor) -> Tensor:
    """torchcam 0.2 to 0.5: the division acts on a copy, so that alpha is the bare square."""
    return gradients**2


def konny(activations: Tensor, gradients: Tensor) -> Tensor:
    """1Konny, yiskw713: each activation multiplies the cube at its own unit, and they are summed after that."""
    below = 2 * gradients**2 + (activations * gradients**3).sum(PLANE, keepdim=True)
    return gradients**2 / (torch.where(below == 0, 1, below) + 1e-7)


def tf_keras_vis(activations: Tensor, gradients: Tensor) -> Tensor:
    """tf-keras-vis: all alphas of a channel are made to sum to 1, those of negative gradients included."""
    below = denominators(activations, gradients)
    alphas = gradients**2 / (below + (below == 0))
    totals = alphas.sum(PLANE, keepdim=True)
    return alphas / (totals + (totals == 0))


def xplique(activations: Tensor, gradients: Tensor) -> Tensor:
    """xplique: the mean of the activations instead of their sum, and a mean over the units at the end."""
    below = 2 * gradients**2 + activations.mean(PLANE, keepdim=True) * gradients**3
    return gradients**2 / torch.where(below == 0, 1e-4, below) / gradients[0, 0].numel()


PROGRAMS: dict[str, Alphas] = {
    "the authors' repository": authors,
    "grad-cam": grad_cam,
    "torchcam": torchcam,
    "1Konny": konny,
    "yiskw713": konny,
    "tf-keras-vis": tf_keras_vis,
    "xplique": xplique,
}


def weights(alphas: Alphas, activations: Tensor, gradients: Tensor) -> Tensor:
    """Eq. 4 with a program's alphas, (B, K)."""
    return (alphas(activations, gradients) * gradients.relu()).sum(PLANE)
