"""Grad-CAM, Grad-CAM+ and Grad-CAM++: what they compute, and whether the difference matters.

The executable companion to Lerma & Lucas (2022), "Grad-CAM++ is Equivalent to Grad-CAM With Positive
Gradients" (arXiv 2205.10838).
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "cam": "METHODS SCORES Method Scores activation_sums alphas alphas_unreduced explanation_map heatmap min_max "
    "upsample weights",
    "errors": "InputError",
    "networks.capture": "Capture Network Preprocessing capture",
    "networks.layers": "default_layer",
    "performance": "log_relative_performance relative_performance summarise",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is asked for: the algebra needs SymPy alone."""
    for module, names in _WHERE.items():
        if name in names.split():
            return getattr(import_module(f"gradcampp.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
