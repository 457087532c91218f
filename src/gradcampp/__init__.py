"""Grad-CAM, Grad-CAM+ and Grad-CAM++: the maps, and the difference between them.

The executable companion to Lerma & Lucas (2022), "Grad-CAM++ is Equivalent to Grad-CAM With Positive Gradients" (arXiv
2205.10838). A picture, a network, and where the network looks:

>>> import torch
>>> import gradcampp
>>> from gradcampp import scenes
>>> scene = scenes.draw(0, "gallery", 0)  # or a photograph of yours
>>> pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None] / 255  # (B, 3, h, w) in [0, 1]
>>> network = gradcampp.load("mini")  # or "vgg16", or any module and the name of a layer
>>> captured = network.capture(pixels, torch.tensor([scene.label]))  # one forward pass, both gradients
>>> tuple(captured.activations.shape)  # (B, K, H, W)
(1, 96, 16, 16)
>>> w = gradcampp.weights("gradcam++", captured.activations, captured.gradients["pre"])  # eq. 4
>>> tuple(w.shape)  # (B, K)
(1, 96)
>>> heat = gradcampp.min_max(gradcampp.heatmap(w, captured.activations))  # eq. 2
>>> explanation = gradcampp.explanation_map(gradcampp.upsample(heat, pixels.shape[2:]), pixels)  # eq. 15
>>> tuple(heat.shape), tuple(explanation.shape)
((1, 16, 16), (1, 3, 128, 128))

``gradcampp.paper.WHERE`` names the function of every equation. The names below are imported when they are first used, so that
``import gradcampp`` loads nothing else.
"""

from __future__ import annotations

__all__ = [
    "InputError", "__version__", "alphas", "capture", "explanation_map", "heatmap", "load", "min_max", "relative_performance",
    "upsample", "weights",
]  # fmt: skip

_MODULES = {"InputError": "errors", "capture": "networks.capture", "load": "networks.load", "relative_performance": "performance"}

TYPE_CHECKING = False  # so that typing need not be loaded before Ctrl-C is heard
if TYPE_CHECKING:
    from gradcampp.cam import alphas, explanation_map, heatmap, min_max, upsample, weights
    from gradcampp.errors import InputError
    from gradcampp.networks.capture import capture
    from gradcampp.networks.load import load
    from gradcampp.performance import relative_performance

    __version__: str
else:  # a type checker would take every name for one of these

    def __getattr__(name: str) -> object:
        """A name of ``__all__``, from the module that has it."""
        if name not in __all__:
            raise AttributeError(f"module 'gradcampp' has no attribute {name!r}")
        from importlib import import_module, metadata

        module = None if name == "__version__" else import_module(f"gradcampp.{_MODULES.get(name, 'cam')}")
        globals()[name] = getattr(module, name) if module else metadata.version("gradcampp")
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
