"""The paper's equations again, slower: loops over Python floats, straight from the definitions.

Each ``assert_...`` function is the one check of one formula: it passes for the formula of the paper and fails for a
wrong one, which tests/test_variants.py proves with many wrong ones.

Most numbers lie on a coarse binary grid (multiples of 1/16 below 8). Their sums and products fit into the 53 bits
of a float64, so nothing is rounded before a division, and most comparisons are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike
from torch import Tensor

UNIT = 2.0**-53  # the largest relative error of one rounding to float64
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)

Map = list[list[float]]
Maps = list[list[Map]]
OfLayer = Callable[[Tensor, Tensor], Tensor]


def examples() -> list[tuple[Tensor, Tensor]]:
    """Activations and gradients of some layers on the binary grid, float64; the maps of one have a single unit."""
    shapes = [(2, 3, 4, 5), (1, 5, 7, 7), (3, 2, 1, 1), (2, 2, 6, 3)]
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(0, 9, shape, generator=generator).double() / 4,
            torch.randint(-16, 17, shape, generator=generator).double() / 16,
        )
        for shape in shapes
    ]


@st.composite
def layers(draw: st.DrawFn, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Activations and gradients of any layer on the binary grid, float64."""
    shape = (draw(st.integers(1, batch)), draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    activations = draw(arrays(np.int64, shape, elements=st.integers(0, 32)))
    gradients = draw(arrays(np.int64, shape, elements=st.integers(-16, 16)))
    return torch.from_numpy(activations).double() / 4, torch.from_numpy(gradients).double() / 16


def total(values: Map) -> float:
    return math.fsum(value for row in values for value in row)


def each_map(function: Callable[[Map, Map], float], activations: Tensor, gradients: Tensor) -> Tensor:
    """A function of one feature map and its gradients, for every channel of every image: (B, K)."""
    result = []
    for image_maps, image_gradients in zip(activations.tolist(), gradients.tolist(), strict=True):
        result.append([function(*channel) for channel in zip(image_maps, image_gradients, strict=True)])
    return torch.tensor(result, dtype=torch.float64)


def gradcam_weight(_activations: Map, gradients: Map) -> float:
    """Eq. 1."""
    units = len(gradients) * len(gradients[0])
    return 1 / units * total(gradients)


def gradcam_plus_weight(_activations: Map, gradients: Map) -> float:
    """Eq. 3."""
    units = len(gradients) * len(gradients[0])
    return 1 / units * total([[max(g, 0.0) for g in row] for row in gradients])


def alpha(activation_sum: float, g: float, lam: float) -> float:
    """Eq. 13, with the constant of eq. 12."""
    if g == 0:
        return 0.0
    denominator = 2 + lam * activation_sum * g
    return 1 / denominator if denominator else math.inf


def alpha_unreduced(activation_sum: float, g: float, lam: float) -> float:
    """Eq. 12; eq. 9 where lam is 1."""
    if g == 0:
        return 0.0
    denominator = 2 * (g * g) + lam * activation_sum * (g * g * g)
    return g * g / denominator if denominator else math.inf


def gradcam_plusplus_weight(activations: Map, gradients: Map, lam: float = 1.0) -> float:
    """Eq. 4; where the gradient is negative its ReLU is zero, whatever the alpha."""
    s = total(activations)
    return math.fsum(alpha(s, g, lam) * g for row in gradients for g in row if g > 0)


def alpha_maps(formula: Callable[[float, float, float], float], activations: Tensor, gradients: Tensor, lam: float) -> Tensor:
    """One of the two formulas of alpha at every unit."""
    result = []
    for image_maps, image_gradients in zip(activations.tolist(), gradients.tolist(), strict=True):
        channels = []
        for maps, slopes in zip(image_maps, image_gradients, strict=True):
            s = total(maps)
            channels.append([[formula(s, g, lam) for g in row] for row in slopes])
        result.append(channels)
    return torch.tensor(result, dtype=torch.float64)


def heatmap(weights: list[float], activations: list[Map]) -> Map:
    """Eq. 2 for one image."""
    height, width = len(activations[0]), len(activations[0][0])
    return [
        [max(math.fsum(w * a[i][j] for w, a in zip(weights, activations, strict=True)), 0.0) for j in range(width)]
        for i in range(height)
    ]


def min_max(values: Map) -> Map:
    """The normalisation before eq. 15 for one map; zeros where it does not exist."""
    low, high = min(map(min, values)), max(map(max, values))
    return [[(value - low) / (high - low) if high > low else 0.0 for value in row] for row in values]


def upsample(values: Map, size: tuple[int, int]) -> Map:
    """Bilinear interpolation between the centres of pixels, the outermost ones continued to the edge."""
    height, width = len(values), len(values[0])

    def place(index: int, count: int, new_count: int) -> tuple[int, int, float]:
        centre = min(max((index + 0.5) * count / new_count - 0.5, 0.0), count - 1.0)
        before = math.floor(centre)
        return before, min(before + 1, count - 1), centre - before

    result = []
    for i in range(size[0]):
        top, bottom, down = place(i, height, size[0])
        row = []
        for j in range(size[1]):
            left, right, along = place(j, width, size[1])
            upper = (1 - along) * values[top][left] + along * values[top][right]
            lower = (1 - along) * values[bottom][left] + along * values[bottom][right]
            row.append((1 - down) * upper + down * lower)
        result.append(row)
    return result


def explanation_map(heat: Map, pixels: list[Map]) -> list[Map]:
    """Eq. 15 for one image."""
    return [
        [[heat[i][j] * channel[i][j] for j in range(len(channel[0]))] for i in range(len(channel))] for channel in pixels
    ]  # fmt: skip


def relative_performance(scores: Sequence[float], baseline: Sequence[float]) -> float:
    """Eq. 16: the n-th root of the product."""
    product = 1.0
    for first, second in zip(scores, baseline, strict=True):
        product *= first / second
    return float(product ** (1 / len(scores)))


def standard_deviation(values: Sequence[float]) -> float:
    """With n - 1 in the denominator."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def assert_same(actual: Tensor, expected: Tensor, relative: float = 0.0, absolute: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=relative, atol=absolute)


def assert_gradcam_weights(weights: OfLayer) -> None:
    """Eq. 1; the sum is exact, 1/Z and the product round once each here, the division once there."""
    for activations, gradients in examples():
        assert_same(weights(activations, gradients), each_map(gradcam_weight, activations, gradients), relative=3 * UNIT)


def assert_gradcam_plus_weights(weights: OfLayer) -> None:
    """Eq. 3; roundings as for eq. 1."""
    for activations, gradients in examples():
        assert_same(weights(activations, gradients), each_map(gradcam_plus_weight, activations, gradients), relative=3 * UNIT)


def assert_gradcam_plusplus_weights(weights: OfLayer, lam: float = 1.0) -> None:
    """Eq. 4 with eq. 13; for lam on the binary grid.

    Z positive terms: three roundings each (alpha, alpha times g; a quotient), and Z - 1 additions of their sum.
    """
    for activations, gradients in examples():
        expected = each_map(lambda a, g: gradcam_plusplus_weight(a, g, lam), activations, gradients)
        assert_same(weights(activations, gradients), expected, relative=(activations[0, 0].numel() + 3) * UNIT)


def assert_alphas(alphas: OfLayer, lam: float = 1.0) -> None:
    """Eqs 9, 12 and 13; for lam on the binary grid the one rounding is that of the division, so all are the same bits."""
    for activations, gradients in examples():
        actual = alphas(activations, gradients)
        assert_same(actual, alpha_maps(alpha, activations, gradients, lam))
        assert_same(actual, alpha_maps(alpha_unreduced, activations, gradients, lam))


def assert_heatmap(heatmap_of: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Eq. 2; weights on the binary grid, so exact."""
    for activations, gradients in examples():
        weights = gradients[:, :, 0, 0]
        expected = [heatmap(*image) for image in zip(weights.tolist(), activations.tolist(), strict=True)]
        assert_same(heatmap_of(weights, activations), torch.tensor(expected, dtype=torch.float64))


def assert_min_max(normalise: Callable[[Tensor], Tensor]) -> None:
    """The one rounding is that of the division, so exact."""
    for _, gradients in examples():
        expected = [[min_max(channel) for channel in image] for image in gradients.tolist()]
        assert_same(normalise(gradients), torch.tensor(expected, dtype=torch.float64))


def assert_upsample(enlarge: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
    """Ratios of sizes are powers of two first, so exact; then any.

    A coordinate up to 7 rounds three times, hence is off by 21 units at most on either side, and a map with values
    in [-1, 1] changes by at most 2 per coordinate, on both axes: 168 units; the weighted mean adds less than 10.
    """
    for _, gradients in examples():
        maps = gradients.flatten(0, 1)
        height, width = maps.shape[1:]
        for size, absolute in (((2 * height, 8 * width), 0.0), ((3 * height + 1, 2 * width + 3), 178 * UNIT)):
            expected = torch.tensor([upsample(values, size) for values in maps.tolist()], dtype=torch.float64)
            assert_same(enlarge(maps, size), expected, absolute=absolute)


def assert_explanation_maps(explain: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Eq. 15; products on the binary grid are exact."""
    heat = torch.arange(2 * 3 * 4, dtype=torch.float64).reshape(2, 3, 4) / 32
    pixels = torch.arange(2 * 3 * 3 * 4, dtype=torch.float64).flip(0).reshape(2, 3, 3, 4) / 128
    expected = [explanation_map(*image) for image in zip(heat.tolist(), pixels.tolist(), strict=True)]
    assert_same(explain(heat, pixels), torch.tensor(expected, dtype=torch.float64))


def score_pairs() -> list[tuple[list[float], list[float]]]:
    """Scores of the explanation maps of two methods on 1, 2, 5 and 40 images, between 0.001 and 1."""
    rng = np.random.default_rng(3)
    return [(rng.uniform(1e-3, 1, n).tolist(), rng.uniform(1e-3, 1, n).tolist()) for n in (1, 2, 5, 40)]


def assert_relative_performance(performance: Callable[[ArrayLike, ArrayLike], float]) -> None:
    """Eq. 16.

    Logarithms up to 7 are off by 14 units each, their difference by 7 more, and a mean of n by 7 n more. The product
    has 2 n roundings, of which the root keeps 2; root and exponential add 2 each.
    """
    for scores, baseline in score_pairs():
        actual = torch.tensor(performance(scores, baseline), dtype=torch.float64)
        expected = torch.tensor(relative_performance(scores, baseline), dtype=torch.float64)
        assert_same(actual, expected, relative=(41 + 7 * len(scores)) * UNIT)
