"""What other programs call Grad-CAM++: one function per program, from the formulas that they run.

All return channel weights (B, K) for the gradients of one score, without the factor exp(score) that some of them
put in front: it is the same for every channel, so no map sees it.
"""

from __future__ import annotations

import torch
from torch import Tensor

PLANE = (2, 3)


def paper(activations: Tensor, gradients: Tensor) -> Tensor:
    """Eqs 9 and 4, with alpha zero where the gradient is."""
    numerators = gradients.square()
    alphas = numerators / (2 * numerators + activations.sum(PLANE, keepdim=True) * gradients.pow(3))
    return (torch.where(gradients == 0, 0, alphas) * gradients.clamp(min=0)).sum(PLANE)


def authors(activations: Tensor, gradients: Tensor) -> Tensor:
    """The Grad-CAM++ authors: the alphas of positive gradients are made to sum to 1; 1 replaces a zero denominator."""
    denominators = 2 * gradients**2 + activations.sum(PLANE, keepdim=True) * gradients**3
    alphas = gradients**2 / torch.where(denominators == 0, 1, denominators)
    totals = torch.where(gradients > 0, alphas, 0).sum(PLANE, keepdim=True)
    alphas = alphas / torch.where(totals == 0, 1, totals)
    return (alphas * gradients.relu()).sum(PLANE)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """grad-cam 1.5: an epsilon in the denominator, which outweighs small squares."""
    denominators = 2 * gradients**2 + activations.sum(PLANE, keepdim=True) * gradients**3 + 1e-6
    return (torch.where(gradients != 0, gradients**2 / denominators, 0) * gradients.relu()).sum(PLANE)


def torchcam(_activations: Tensor, gradients: Tensor) -> Tensor:
    """torchcam 0.2 to 0.5: the division acts on a copy, so that alpha is the bare square."""
    return (gradients**2 * gradients.relu()).sum(PLANE)


def konny(activations: Tensor, gradients: Tensor) -> Tensor:
    """1Konny, yiskw713: each activation multiplies the cube at its own unit, and they are summed after that."""
    denominators = 2 * gradients**2 + (activations * gradients**3).sum(PLANE, keepdim=True)
    alphas = gradients**2 / (torch.where(denominators == 0, 1, denominators) + 1e-7)
    return (alphas * gradients.relu()).sum(PLANE)


def tf_keras_vis(activations: Tensor, gradients: Tensor) -> Tensor:
    """tf-keras-vis: all alphas of a channel are made to sum to 1, those of negative gradients included."""
    denominators = 2 * gradients**2 + activations.sum(PLANE, keepdim=True) * gradients**3
    alphas = gradients**2 / (denominators + (denominators == 0))
    totals = alphas.sum(PLANE, keepdim=True)
    return (alphas / (totals + (totals == 0)) * gradients.relu()).sum(PLANE)


def xplique(activations: Tensor, gradients: Tensor) -> Tensor:
    """xplique: the mean of the activations instead of their sum, and a mean over the units at the end."""
    denominators = 2 * gradients**2 + activations.mean(PLANE, keepdim=True) * gradients**3
    alphas = gradients**2 / torch.where(denominators == 0, 1e-4, denominators)
    return (alphas * gradients.relu()).mean(PLANE)


def constant(_activations: Tensor, gradients: Tensor) -> Tensor:
    """No program, but eq. 14: every alpha is 1/2."""
    return (gradients.relu() / 2).sum(PLANE)


WRONG = (authors, grad_cam, torchcam, konny, tf_keras_vis, xplique, constant)
