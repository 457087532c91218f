"""Formulas that go by the name Grad-CAM++, and their neighbours: each in a line or two, from its mathematics.

Programs differ in the alphas of eq. 9, which they complete by guards of their own. All functions take activations and gradients
of one score, (B, K, H, W) each, without the factor exp(score) that some programs put in front: it is the same for every channel,
so no map sees it. They keep the guards of the programs, and their faults; :mod:`gradcampp.cam` has neither. ``s`` is the sum of a
feature map, ``g`` a gradient. Tests compare them with the installed packages where these can be imported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradcampp import cam

Alphas = Callable[[Tensor, Tensor], Tensor]
PLANE = (2, 3)


def denominators(activations: Tensor, gradients: Tensor) -> Tensor:
    """``2 g^2 + s g^3``: those of eq. 9, (B, K, H, W). An epsilon beside them is harmless where they are large."""
    return 2 * gradients**2 + cam.activation_sums(activations) * gradients**3


def authors(activations: Tensor, gradients: Tensor) -> Tensor:
    """The Grad-CAM++ authors since May 2018: the alphas of positive gradients sum to 1; 1 replaces a zero denominator."""
    below = denominators(activations, gradients)
    alphas = gradients**2 / torch.where(below == 0, 1, below)
    return _normalised(alphas, torch.where(gradients > 0, alphas, 0))


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """grad-cam (pytorch-grad-cam) 1.5: 1e-6 in the denominator, which outweighs small squares."""
    return _with_epsilon(activations, gradients, 1e-6)


def omnixai(activations: Tensor, gradients: Tensor) -> Tensor:
    """omnixai 1.3, its ``GradCAMPlus``: 1e-8 in the denominator."""
    return _with_epsilon(activations, gradients, 1e-8)


def torchcam(_activations: Tensor, gradients: Tensor) -> Tensor:
    """torchcam 0.2 to 0.5: the division acts on a copy, so that alpha is the bare square and no activation has a part in it."""
    return gradients**2


def konny(activations: Tensor, gradients: Tensor) -> Tensor:
    """1Konny, yiskw713: each activation multiplies the cube at its own unit, and they are summed after that."""
    below = 2 * gradients**2 + (activations * gradients**3).sum(PLANE, keepdim=True)
    return gradients**2 / (torch.where(below == 0, 1, below) + 1e-7)


def tf_keras_vis(activations: Tensor, gradients: Tensor) -> Tensor:
    """tf-keras-vis 0.8: all alphas of a channel sum to 1, those of negative gradients and their poles included."""
    squares = gradients**2
    alphas = squares / (denominators(activations, gradients) + (squares == 0))
    return _normalised(alphas, alphas)


def xplique(activations: Tensor, gradients: Tensor) -> Tensor:
    """xplique 1.3 and 2.0: the mean of the activations instead of their sum, and a mean over the units at the end."""
    below = 2 * gradients**2 + activations.mean(PLANE, keepdim=True) * gradients**3
    return gradients**2 / torch.where(below == 0, 1e-4, below) / gradients.shape[2:].numel()


PROGRAMS: dict[str, Alphas] = {
    "the authors' repository": authors,
    "grad-cam": grad_cam,
    "omnixai": omnixai,
    "torchcam": torchcam,
    "1Konny": konny,
    "yiskw713": konny,
    "tf-keras-vis": tf_keras_vis,
    "xplique": xplique,
}


def wrong_power(activations: Tensor, gradients: Tensor) -> Tensor:
    """A square where eq. 9 has the cube: ``1 / (2 + s)``, one alpha for a whole channel."""
    return torch.where(gradients != 0, 1 / (2 + cam.activation_sums(activations)), 0)


def wrong_index(activations: Tensor, gradients: Tensor) -> Tensor:
    """The index of 1Konny without its guards: activation and cube belong to the same unit, then they are summed."""
    below = 2 * gradients**2 + (activations * gradients**3).sum(PLANE, keepdim=True)
    return torch.where(below != 0, gradients**2 / below, 0)


def reduced(activations: Tensor, gradients: Tensor) -> Tensor:
    """A proposal of the paper's first author to grad-cam (issue 236): eq. 13 with the epsilon where it does no harm."""
    return torch.where(gradients != 0, 1 / (2 + cam.activation_sums(activations) * gradients + 1e-6), 0)


def totti0223(activations: Tensor, gradients: Tensor) -> Tensor:
    """totti0223 until January 2019: the wrong power, and all alphas of a channel sum to 1; eq. 3 where no gradient is 0."""
    alphas = wrong_power(activations, gradients)
    return _normalised(alphas, alphas)


def half(_activations: Tensor, gradients: Tensor) -> Tensor:
    """Eq. 14: every alpha is 1/2, which is Grad-CAM+ but for a factor."""
    return torch.where(gradients != 0, torch.full_like(gradients, 0.5), 0)


def absolute(activations: Tensor, gradients: Tensor) -> Tensor:
    """``1 / (2 + |s g|)``: eq. 13 where ``s g`` is not negative; nowhere a pole, and never outside (0, 1/2]."""
    return torch.where(gradients != 0, 1 / (2 + (cam.activation_sums(activations) * gradients).abs()), 0)


def positive_part(activations: Tensor, gradients: Tensor) -> Tensor:
    """``1 / (2 + ReLU(s g))``: eq. 13 where ``s g`` is not negative, and else 1/2, its value at 0."""
    return torch.where(gradients != 0, 1 / (2 + (cam.activation_sums(activations) * gradients).relu()), 0)


def weights(alphas: Alphas, activations: Tensor, gradients: Tensor) -> Tensor:
    """Eq. 4 with other alphas, (B, K)."""
    return (alphas(activations, gradients) * gradients.relu()).sum(PLANE)


def signed_weights(alphas: Alphas, activations: Tensor, gradients: Tensor) -> Tensor:
    """Eq. 4 without its ReLU, (B, K): negative gradients count, and the poles of eq. 13 with them."""
    return (alphas(activations, gradients) * gradients).sum(PLANE)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weights of XGrad-CAM, (B, K): the mean of a channel's gradients, weighted by its activations; 0 where these sum to 0.

    Source: Fu et al. (2020), "Axiom-based Grad-CAM", as grad-cam and torchcam compute it but for their epsilons.
    """
    sums = activations.sum(PLANE)
    return torch.where(sums != 0, (gradients * activations).sum(PLANE) / sums, 0)


def shapleycam(gradients: Tensor, products: Tensor) -> Tensor:
    """Weights of ShapleyCAM, (B, K), from the gradients and the Hessian of the score times the activations, (B, K, H, W) both.

    Behind the layer a network of convolutions, ReLUs and poolings has no second derivative of its logits: these are Grad-CAM's.

    Source: Cai (2025), "CAMs as Shapley Value-based Explainers", as grad-cam computes it.
    """
    return (gradients - products / 2).mean(PLANE)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """The map of HiResCAM, (B, H, W): activations times gradients, unit by unit.

    Source: Draelos & Carin (2020), "Use HiResCAM instead of Grad-CAM", with the ReLU that grad-cam puts behind every map.
    """
    return (gradients * activations).sum(1).relu()


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """The map of LayerCAM, (B, H, W): activations times positive gradients, unit by unit.

    Source: Jiang et al. (2021), "LayerCAM", as grad-cam and torchcam compute it.
    """
    return (gradients.relu() * activations).sum(1).relu()


def elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """The map of grad-cam's ``GradCAMElementWise``, (B, H, W): the positive ones of these products."""
    return (gradients * activations).relu().sum(1)


def _normalised(alphas: Tensor, counted: Tensor) -> Tensor:
    """Alphas over the sum of some of them in each channel; where that is 0 they stay."""
    totals = counted.sum(PLANE, keepdim=True)
    return alphas / torch.where(totals == 0, 1, totals)


def _with_epsilon(activations: Tensor, gradients: Tensor, epsilon: float) -> Tensor:
    return torch.where(gradients != 0, gradients**2 / (denominators(activations, gradients) + epsilon), 0)
