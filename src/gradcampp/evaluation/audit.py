"""Formulas of programs and their neighbours beside eq. 13 on photographs: a run of ``evaluate`` with more columns.

Formulas compute in the float32 of the captured tensors, as the programs do, and eq. 13 in float64. Gradients are ours for all of
them: a program that differentiates a float32 softmax adds its own rounding, which is not counted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import rankdata
from torch import Tensor

from gradcampp import cam, variants
from gradcampp.cam import METHODS, SCORES, Scores, column
from gradcampp.errors import InputError
from gradcampp.evaluation import measure as measured
from gradcampp.evaluation import records
from gradcampp.evaluation.alphas import Histogram
from gradcampp.evaluation.experiment import Experiment, over_threshold
from gradcampp.evaluation.maps import BatchLimit, in_batches, insertion_and_deletion, score_explanation_maps
from gradcampp.evaluation.photographs import Batch
from gradcampp.networks.capture import Capture, Network

Weights = Callable[[Tensor, Tensor], Tensor]  # activations and gradients (B, K, H, W) to (B, K)
Maps = Callable[[Tensor, Tensor], Tensor]  # to (B, H, W)

WEIGHTS: dict[str, Weights] = {
    "eq. 13": partial(cam.weights, "gradcam++"),  # in float32: what rounding alone does
    "eq. 9": partial(variants.weights, cam.alphas_unreduced),
    "Grad-CAM+": partial(cam.weights, "gradcam+"),
    "Grad-CAM": partial(cam.weights, "gradcam"),
    **{name: partial(variants.weights, alphas) for name, alphas in variants.PROGRAMS.items() if name != "yiskw713"},
    "reduced, issue 236": partial(variants.weights, variants.reduced),
    "wrong index": partial(variants.weights, variants.wrong_index),
    "wrong power": partial(variants.weights, variants.wrong_power),
    "totti0223, 2018": partial(variants.weights, variants.totti0223),
    "XGrad-CAM": variants.xgradcam,
    "1/(2 + |s g|)": partial(variants.weights, variants.absolute),
    "1/(2 + ReLU(s g))": partial(variants.weights, variants.positive_part),
    "signed, eq. 13": partial(variants.signed_weights, cam.alphas),
    "signed, 1/(2 + |s g|)": partial(variants.signed_weights, variants.absolute),
    "neighbour's weight": lambda a, g: cam.weights("gradcam++", a, g).roll(1, 1),  # what a map unrelated to the class is like
}
MAPS: dict[str, Maps] = {
    "HiResCAM": variants.hirescam,
    "LayerCAM": variants.layercam,
    "captum": lambda a, g: torch.einsum("bk,bkhw->bhw", g.mean((2, 3)), a),  # Grad-CAM without its last ReLU, the default there
}
FORMULAS = (*WEIGHTS, *MAPS)
CANDIDATES = ("1/(2 + |s g|)", "1/(2 + ReLU(s g))", "signed, 1/(2 + |s g|)")  # for eq. 13, also at equal heat and by pixels
MEASURES = ("weights", "mean", "largest", "pearson", "spearman", "top", "score")
FURTHER = ("matched", "insertion", "deletion")  # with controls, before the softmax
EPSILONS = (1e-6, 1e-7, 1e-8)
SHARES = (*(f"{epsilon:.0e}" for epsilon in EPSILONS), "underflow", "zero", "pole")
TOP = 0.2  # share of the units that count as the hottest
ROUNDING = 1e-5  # min-max maps nowhere further apart are scored once


def name(scores: Scores, formula: str, what: str) -> str:
    """The column of a measure of one formula, ``pre/grad-cam/mean``, or of a share, ``pre//1e-06``."""
    return f"{scores}/{formula}/{what}"


COLUMNS = tuple(name(scores, formula, what) for scores in SCORES for formula in FORMULAS for what in MEASURES)
OF_UNITS = tuple(name(scores, "", what) for scores in SCORES for what in SHARES)
CONTROLS = tuple(name("pre", formula, what) for what in FURTHER for formula in CANDIDATES)


def measure(
    network: Network, batch: Batch, experiment: Experiment, device: str, limit: BatchLimit
) -> tuple[pa.Table, dict[Scores, Histogram]]:
    """The rows of :func:`gradcampp.evaluation.measure.measure` with the columns of an audit; arguments and errors are the same.

    Of a formula, against eq. 13 in float64: ``weights``, half the L1 distance of both when their absolute values sum to 1; of
    the coarse min-max maps the ``mean`` and ``largest`` absolute difference, ``pearson``, ``spearman`` and the part of the
    ``top`` fifth of the units that they share; ``score`` (eq. 15), computed once for maps within 1e-5. Null where it is not
    defined: no weights, a constant map. Of the units with positive gradient, the share where an epsilon exceeds the true
    denominator of eq. 9 (``1e-06``, ...); of those with a gradient, the share where its square is 0 (``underflow``) or alpha is
    beyond [-1, 1] (``pole``); of all, that without a gradient (``zero``).
    """
    table, alphas = measured.measure(network, batch, experiment, device, limit)
    scores = table["score"].to_numpy()
    over = np.flatnonzero(over_threshold(scores, experiment)).tolist()
    names = [*COLUMNS, *OF_UNITS, *CONTROLS]
    found = np.full((len(scores), len(names)), np.nan, np.float32)
    if over:
        pixels = batch.pixels[over].to(device).float().div_(255)
        labels = torch.tensor([batch.photographs[place].label for place in over], device=device)

        def captured(part: slice) -> list[Tensor]:
            own = network.capture(pixels[part], labels[part])
            return [own.activations, *own.gradients.values(), own.logits]

        activations, pre, post, logits = in_batches(captured, len(over), limit)
        capture = Capture(activations, {"pre": pre, "post": post}, logits)
        values = []
        for kind in SCORES:
            compared, maps = against_equation_13(activations, capture.gradients[kind])
            seen = [_scored(network, own, pixels[i : i + 1], labels[i : i + 1], limit) for i, own in enumerate(maps)]
            values.append(torch.cat([compared, torch.stack(seen)[..., None]], 2).flatten(1))
            if kind == "pre":
                candidates = maps[:, [FORMULAS.index(formula) for formula in CANDIDATES]]
        values += [shares(activations, capture.gradients[kind]) for kind in SCORES]
        row = torch.cat([part.cpu() for part in values], 1)
        found[over, : row.shape[1]] = row.numpy()
        if experiment["controls"]:
            wanted = torch.from_numpy(table["pre_gradcam_mean_heat"].to_numpy()[over]).to(device)
            hashes = [batch.hashes[place] for place in over]
            found[over, row.shape[1] :] = _further(network, candidates, wanted, pixels, labels, hashes, limit).cpu().numpy()
    for place, column_name in enumerate(names):
        table = table.append_column(column_name, pa.array(found[:, place], from_pandas=True))
    return table, alphas


def against_equation_13(activations: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each formula by all measures but the score, (B, F, 6) float64 on the CPU; min-max maps, (B, F, H, W)."""
    exact = activations.double()
    weights = cam.weights("gradcam++", exact, gradients.double())
    reference = cam.min_max(cam.heatmap(weights, exact))
    found, maps = [], []
    for formula in WEIGHTS.values():
        own = formula(activations, gradients)
        found.append((_unit(own.double()) - _unit(weights)).abs().sum(1) / 2)
        maps.append(cam.heatmap(own, activations))
    found += [torch.full_like(found[0], torch.nan)] * len(MAPS)
    maps += [formula(activations, gradients) for formula in MAPS.values()]
    stretched = cam.min_max(torch.stack(maps, 1))
    compared = [compare(stretched[:, place], reference) for place in range(len(FORMULAS))]
    return torch.cat([torch.stack(found, 1)[..., None].cpu(), torch.stack(compared, 1)], 2), stretched


def _scored(network: Network, maps: Tensor, pixels: Tensor, label: Tensor, limit: BatchLimit) -> Tensor:
    """Scores of the maps (F, H, W) of one photograph, (F,) on the CPU; many formulas give one map."""
    apart = (maps[:, None] - maps).abs().amax((2, 3))
    first = (apart <= ROUNDING).int().argmax(1).where(apart.diagonal() == 0, torch.arange(len(maps), device=maps.device))
    distinct, places = torch.unique(first, return_inverse=True)
    return score_explanation_maps(network, maps[None, distinct], pixels, label, limit)[0][0, places].cpu()


def _unit(weights: Tensor) -> Tensor:
    return weights / weights.abs().sum(1, keepdim=True)


def compare(maps: Tensor, reference: Tensor) -> Tensor:
    """Mean and largest absolute difference, Pearson's and Spearman's correlation, shared part of the hottest fifth.

    Args:
        maps, reference: min-max maps, (B, H, W) each.

    Returns:
        (B, 5) float64 on the CPU; NaN where a map is not finite, and from the correlations on where one is constant.
    """
    flat = [values.double().flatten(1).cpu() for values in (maps, reference)]
    apart = (flat[0] - flat[1]).abs()
    ranks = [torch.from_numpy(rankdata(values.numpy(), axis=1)) for values in flat]
    count = -(-flat[0].shape[1] // round(1 / TOP))
    hottest = [torch.zeros_like(values).scatter_(1, values.topk(count, 1).indices, 1) for values in flat]
    shared = (hottest[0] * hottest[1]).sum(1) / count
    defined = (flat[0].amax(1) > flat[0].amin(1)) & (flat[1].amax(1) > flat[1].amin(1))
    further = [torch.where(defined, values, torch.nan) for values in (_pearson(*flat), _pearson(*ranks), shared)]
    return torch.stack([apart.mean(1), apart.amax(1), *further], 1)


def _pearson(one: Tensor, other: Tensor) -> Tensor:
    first, second = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    found: Tensor = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    return found


def shares(activations: Tensor, gradients: Tensor) -> Tensor:
    """Shares of the units of each photograph, (B, 6) float64 in the order of ``SHARES``."""
    units = (1, 2, 3)
    some, positive = gradients != 0, gradients > 0
    below = variants.denominators(activations.double(), gradients.double())
    wild = cam.alphas(activations.double(), gradients.double()).abs() > 1
    found = [((below < epsilon) & positive).sum(units) / positive.sum(units) for epsilon in EPSILONS]
    found += [((gradients**2 == 0) & some).sum(units) / some.sum(units), (~some).double().mean(units)]
    return torch.stack([*found, (wild & some).sum(units) / some.sum(units)], 1).double()


def _further(
    network: Network, maps: Tensor, wanted: Tensor, pixels: Tensor, labels: Tensor, hashes: list[str], limit: BatchLimit
) -> Tensor:
    """The candidates at the heat of Grad-CAM's map, and their insertion and deletion, (B, 9) in the order of ``CONTROLS``."""
    heat = wanted[:, None].expand(-1, len(CANDIDATES))
    matched, _ = score_explanation_maps(network, maps, pixels, labels, limit, heat)
    curves = torch.full((len(maps), 2 * len(CANDIDATES)), torch.nan, dtype=torch.float64, device=maps.device)
    some = [place for place, digest in enumerate(hashes) if digest < measured.SAMPLE]
    if some:
        curves[some] = torch.cat(insertion_and_deletion(network, maps[some], pixels[some], labels[some], limit), 1)
    return torch.cat([matched, curves], 1)


def experiment(of: Experiment) -> Experiment:
    """The settings of an audit: those of a run, and the formulas, as their number and a hash of their names.

    Raises:
        InputError: for the score ``logit``, which has no softmax to be before or behind.
    """
    if of.get("score") == "logit":
        raise InputError("an audit compares formulas before and after the softmax; choose --score softmax or sigmoid")
    return of | {"audit": f"{len(FORMULAS)} formulas, {hashlib.sha256(repr(FORMULAS).encode()).hexdigest()[:8]}"}


def read(run: Path) -> pd.DataFrame:
    """All columns of a finished audit, a row for each photograph; null in comparisons with a map of eq. 13 that is constant.

    Raises:
        InputError: if the folder holds no finished audit, or a part cannot be read.
    """
    manifest = records.read_manifest(run)
    if not manifest["finished"] or "audit" not in manifest["experiment"]:
        raise InputError(f"{run} holds no finished audit; make one with gradcampp audit --out {run}")
    tables = []
    for part in records.parts(run):
        file = run / "records.parquet" / f"{part:05d}.parquet"
        try:
            with file.open("rb") as source:
                tables.append(pq.read_table(source, use_threads=False).to_pandas())
        except records.DAMAGED as error:
            raise InputError(f"cannot read {file}: {' '.join(str(error).split())}; remove it and repeat the command") from None
    rows: pd.DataFrame = pd.concat(tables, ignore_index=True)
    for scores in SCORES:
        own = [each for each in COLUMNS if each.startswith(f"{scores}/")]
        rows.loc[rows[name(scores, "eq. 13", "pearson")].isna(), own] = np.nan
    return rows


def long(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each photograph over the threshold, kind of score and formula: measures, and eq. 13's score, ``reference``."""
    over = rows[rows[name("pre", "", "zero")].notna()]
    parts = []
    for scores in SCORES:
        for formula in FORMULAS:
            own = over[[name(scores, formula, what) for what in MEASURES]].set_axis(list(MEASURES), axis=1)
            own.insert(0, "reference", over[column(scores, METHODS[2])])
            own.insert(0, "formula", formula)
            own.insert(0, "scores", scores)
            own.insert(0, "image", over["image"])
            parts.append(own)
    return pd.concat(parts, ignore_index=True)
