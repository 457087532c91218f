"""The figure of the first page, which cannot execute code: photographs, explained while the book is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradcampp.evaluation import gallery
from gradcampp.evaluation.maps import explain
from gradcampp.networks import lite0
from gradcampp.networks.load import load
from gradcampp.results.figures import one_image, style

PHOTOGRAPHS = ("chelsea", "coffee")
PAGE = """:::{{image}} photographs.png
---
name: landing-photographs
alt: >-
  Two photographs, a cat's face and a cup of espresso, with their heatmaps by Grad-CAM, Grad-CAM+ and Grad-CAM++ at two layers
  of a network. At its last feature maps the three are alike; inside its last block that of Grad-CAM is in patches,
  while those of Grad-CAM+ and Grad-CAM++ are alike.
---
:::

What speaks for {first} and for {second}, by EfficientNet-Lite0: before the softmax, at its last feature maps
(`{head}`) and inside its last block (`{inside}`). Largest difference of the Grad-CAM++ map from that of Grad-CAM+: {differences}.
The photographs, cropped: {credit}.
"""  # no figure of Sphinx's: that would have the number 1, which is the paper's


def write(folder: Path) -> None:
    """Write ``photographs.png`` and the figure around it, ``photographs.md``, which the first page includes.

    Raises:
        InputError: if a package that brings photographs or weights is missing.
    """
    network = load(lite0.NAME)
    names = network.classes.names
    pictures = [gallery.read(name, network.preprocessing) for name in PHOTOGRAPHS]
    rows = {
        layer: [explain(replace(network, layer=layer), pixels, [], "pre")[0] for pixels in pictures]
        for layer in (lite0.LAYER, lite0.EXPANSION_LAYER)
    }
    style.save(one_image.at_layers(rows, names), folder / "photographs", ["png"])
    seen = [f"“{names[row.label]}” (score {float(row.probabilities[row.label]):.2f})" for row in rows[lite0.LAYER]]
    differences = [
        f"{max(float((row.maps['gradcam++'] - row.maps['gradcam+']).abs().max()) for row in each):.2f} at `{layer}`"
        for layer, each in rows.items()
    ]
    page = PAGE.format(
        first=seen[0],
        second=seen[1],
        head=lite0.LAYER,
        inside=lite0.EXPANSION_LAYER,
        differences=" and ".join(differences),
        credit=gallery.credit(PHOTOGRAPHS),
    )
    (folder / "photographs.md").write_text(page, "utf-8")
