"""Explanations as arrays, with the evidence of how they were made, in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradcampp import cam
from gradcampp.cam import MAPS, column
from gradcampp.evaluation.maps import Explanation
from gradcampp.files import atomic_write, file_hash, versions
from gradcampp.networks.capture import Network
from gradcampp.networks.probe import probe


def save_arrays(file: Path, network: Network, photographs: Sequence[Path], rows: Sequence[Explanation]) -> Path:
    """Write raw maps and what they are made of as an ``.npz`` that NumPy reads without pickle.

    Args:
        network: that has explained the rows, on any device.
        photographs: the file of each row.

    Returns:
        The file. Row n of each array is row n of the explanations: ``pre_gradcam`` and what other maps there are, of eqs 2, 3
        and 4 before the min-max step, (n, H, W), ``pre_gradcam_weights`` ... (n, K), ``logits`` (n, C), ``label`` (n,) and
        ``pixels`` in [0, 1], (n, channels, h, w). ``evidence`` is JSON: settings, versions, SHA-256 of photographs and weights.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for row in rows:  # one at a time: K maps of a large layer are many
        captured = network.capture(row.pixels[None], torch.tensor([row.label]))
        for scores, method in (each for each in MAPS if each[0] in captured.gradients):
            weights = cam.weights(method, captured.activations, captured.gradients[scores])
            found.setdefault(column(scores, method), []).append(cam.heatmap(weights, captured.activations))
            found.setdefault(f"{column(scores, method)}_weights", []).append(weights)
        found.setdefault("logits", []).append(captured.logits)
        found.setdefault("label", []).append(torch.tensor([row.label]))
        found.setdefault("pixels", []).append(row.pixels[None])
    evidence = {
        "rows": [
            {"photograph": str(path), "sha256": file_hash(path), "class": network.classes.names[row.label], "label": row.label}
            | {"probability": float(row.probabilities[row.label])}
            for path, row in zip(photographs, rows, strict=True)
        ],
        "model": network.name,
        "weights": network.weights,
        "layer": network.layer,
        "precision": network.precision,
        "preprocessing": network.preprocessing.settings,
        "input": str(network.preprocessing),
        "probe": probe(network),
        "device": str(next((each.device for each in network.module.parameters()), "cpu")),
        "versions": versions(),
    }
    arrays: dict[str, Any] = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    with atomic_write(file) as temporary:
        np.savez_compressed(temporary, evidence=np.array(json.dumps(evidence, indent=2)), **arrays)
    return file
