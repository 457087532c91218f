"""The experiment of a run: everything that decides its numbers, by name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradcampp.errors import InputError
from gradcampp.networks import probe
from gradcampp.networks.capture import Network
from gradcampp.networks.preprocessing import Preprocessing

# Fields that decide the numbers of a run, with what runs had that were made before the field; the others stand in the experiment
# under names of their own, or decide nothing.
_OTHERS = ("module", "name", "classes", "preprocessing", "memory_format")
DECIDING = {
    kind: {each.name: each.default for each in fields(kind) if each.compare and each.name not in _OTHERS}
    for kind in (Network, Preprocessing)
}
THRESHOLD = 0.5
Experiment = dict[str, Any]  # everything that decides the numbers of a run, by name


def experiment_of(
    network: Network, threshold: float = THRESHOLD, limit: int | None = None, seed: int | None = None, controls: bool = False
) -> Experiment:
    """Everything that decides the numbers of a run; two runs with one folder must agree in all of it.

    Args:
        network: counts by its name, weights, layer, preprocessing, what its outputs mean, the SHA-256 of its class names, and by
            what it makes of a fixed input (:func:`gradcampp.networks.probe.probe`), which a change of its code moves.
        threshold: explanation maps are scored where the label's score exceeds it, in [0, 1); of no meaning for ``logit``, a
            quantity on any scale, where those of every image are.
        limit: number of images, or None for all.
        seed: with a limit, the seed of the random sample; None takes the first images.
        controls: score the maps that check the metric itself too (``maps.matched``, ``maps.signed``), twice as many passes.
    """
    if network.score == "logit" and threshold != THRESHOLD:
        raise InputError(f"--threshold {threshold:g}: with --score logit every image is explained; leave it out")
    settings = {
        "model": network.name,
        "classes": hashlib.sha256("\n".join(network.classes.names).encode()).hexdigest(),
        **{name: getattr(network, name) for name in DECIDING[Network]},
        **{name: getattr(network.preprocessing, name) for name in DECIDING[Preprocessing]},
        "threshold": None if network.score == "logit" else threshold,
        "limit": limit,
        "seed": seed,
        "controls": controls,
        "probe": probe.probe(network),
    }
    return _as_stored(settings)


def _as_stored(settings: Mapping[str, Any]) -> Experiment:
    """Settings as a manifest gives them back."""
    return dict(json.loads(json.dumps(settings, default=str)))


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The settings in which two experiments differ, those that change the numbers most first.

    Runs of older versions have no probe, and the score and preprocessing that there was then. Probes may differ by rounding.
    """
    there = {**_as_stored({name: default for kind in DECIDING.values() for name, default in kind.items()}), **there}
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    if None in (there.get("layout"), here.get("layout")):  # found at each call, so always the same one
        keys = [key for key in keys if key != "layout"]
    same = there.get("probe") is None or probe.agrees(there["probe"], here.get("probe") or ())
    return [key for key in keys if key != "probe" or not same]


def over_threshold(scores: Any, experiment: Mapping[str, Any]) -> Any:
    """Where scores, a tensor or a column, are those of images to explain: over the threshold, or everywhere without one."""
    threshold = experiment["threshold"]
    return scores > (-math.inf if threshold is None else threshold)
