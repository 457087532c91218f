"""Grad-CAM, Grad-CAM+ and Grad-CAM++: what they compute, and whether the difference matters.

The executable companion to Lerma & Lucas (2022), "Grad-CAM++ is Equivalent to Grad-CAM With Positive
Gradients" (arXiv 2205.10838).
"""

from gradcampp.cam import (
    METHODS,
    SCORES,
    Method,
    Scores,
    activation_sums,
    alphas,
    alphas_unreduced,
    explanation_map,
    heatmap,
    min_max,
    upsample,
    weights,
)
from gradcampp.errors import InputError
from gradcampp.networks.capture import Capture, Network, Preprocessing, capture
from gradcampp.networks.layers import default_layer
from gradcampp.performance import log_relative_performance, relative_performance, summarise

__all__ = [
    "METHODS",
    "SCORES",
    "Capture",
    "InputError",
    "Method",
    "Network",
    "Preprocessing",
    "Scores",
    "activation_sums",
    "alphas",
    "alphas_unreduced",
    "capture",
    "default_layer",
    "explanation_map",
    "heatmap",
    "log_relative_performance",
    "min_max",
    "relative_performance",
    "summarise",
    "upsample",
    "weights",
]
