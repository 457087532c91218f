"""From a photograph to the input of a network: size, interpolation, mean and standard deviation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """From a photograph to the input of a network.

    Attributes:
        resize: length of the shorter side after the resizing, in pixels.
        crop: side of the central square that the network sees, in pixels.
        mean, std: of the three channels on the scale [0, 1]; subtracted and divided by.
        interpolation: of the resizing, ``bilinear`` or ``bicubic``.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees, in pixels."""
        return self.crop, self.crop
