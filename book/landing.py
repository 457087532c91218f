"""The figure of the first page, which cannot execute code: photographs, explained while the book is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradcampp.evaluation import gallery
from gradcampp.evaluation.maps import explain
from gradcampp.networks import lite0
from gradcampp.networks.load import load
from gradcampp.results.figures import one_image, views

PHOTOGRAPHS = ("chelsea", "coffee")
IMAGE = """:::{{image}} photographs-{view}.webp
---
class: dark-light {view}
alt: >-
  Two photographs, a cat's face and a cup of espresso, with their heatmaps by Grad-CAM, Grad-CAM+ and Grad-CAM++ at two layers
  of a network. At its last feature maps the three are alike; behind the expansion of its last block that of Grad-CAM is in
  patches, while those of Grad-CAM+ and Grad-CAM++ are alike.
---
:::
"""  # no figure of Sphinx's: that would have the number 1, which is the paper's
PAGE = """::::{{container}}
:name: landing-photographs

{images}
::::

What speaks for {first} and for {second}, by EfficientNet-Lite0: before the softmax, at its last feature maps
(`{head}`) and in its last block behind the expansion, the first convolution there (`{inside}`).
Largest difference of the Grad-CAM++ map from that of Grad-CAM+: {differences}.
The photographs, cropped: {credit}.
"""


def write(folder: Path) -> None:
    """Write the figure for the first page in its views, and ``photographs.png`` for cards; ``photographs.md`` shows it.

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
    pixels, drawn = views.views(one_image.at_layers(rows, names))
    (folder / "photographs.png").write_bytes(views.png(pixels))
    for view, file in drawn.items():
        (folder / f"photographs-{view}.webp").write_bytes(file)
    seen = [f"“{names[row.label]}” (score {float(row.probabilities[row.label]):.3g})" for row in rows[lite0.LAYER]]
    differences = [
        f"{max(float((row.maps['gradcam++'] - row.maps['gradcam+']).abs().max()) for row in each):.2f} at `{layer}`"
        for layer, each in rows.items()
    ]
    page = PAGE.format(
        images="\n".join(IMAGE.format(view=view) for view in drawn),
        first=seen[0],
        second=seen[1],
        head=lite0.LAYER,
        inside=lite0.EXPANSION_LAYER,
        differences=" and ".join(differences),
        credit=gallery.credit(PHOTOGRAPHS),
    )
    (folder / "photographs.md").write_text(page, "utf-8")
