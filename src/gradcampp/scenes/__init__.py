"""Generated scenes with known truth: ten kinds of things, drawn on varied ground, with exact masks.

A scene is a pure function of ``(seed, split, index)``: the same bytes on every machine, in any order and from any worker.
In most lie things of other classes too, in mist and dim light; ``clear=True`` leaves these out.
"""

from gradcampp.scenes.drawing import SIZE
from gradcampp.scenes.scene import Scene, draw, label, pair
from gradcampp.scenes.shapes import CLASSES

__all__ = ["CLASSES", "SIZE", "Scene", "draw", "label", "pair"]
