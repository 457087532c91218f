"""Appendix A with numbers: automatic differentiation against SymPy, loops and finite differences, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor

from gradcampp.algebra import autograd, derivation
from tests.loops import assert_same

SHAPE = (3, 2, 2)
UNITS = list(product(range(3), range(2), range(2)))
SEEDS = pytest.mark.parametrize("seed", range(5))
# Every number is a sum of a few hundred terms up to about 10 in size, each with a few roundings of 1e-16.
ROUNDING = 1e-12


def layer(seed: int) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)


def constants(seed: int) -> autograd.Alphas:
    fixed = torch.rand(SHAPE, generator=torch.Generator().manual_seed(200 + seed), dtype=torch.float64) + 0.2
    return lambda _: fixed


def moving(activations: Tensor) -> Tensor:
    """Alphas that every unit moves, smooth."""
    weights = torch.linspace(0.5, 2.0, activations.numel(), dtype=activations.dtype).reshape(activations.shape)
    return (weights * activations.sin()).sum() * activations.cos() + weights * activations**2


def polynomial(a: Any) -> Any:
    """For numbers and for symbols alike; indices as in an array (3, 2, 2)."""
    return (
        a[0, 0, 0] ** 3 * a[1, 0, 1]
        + 2 * a[0, 0, 0] * a[0, 1, 1] ** 2
        - 3 * a[2, 1, 0] * a[1, 1, 1] * a[0, 0, 1]
        + a[2, 0, 0] ** 4
        - a[0, 1, 0] ** 2 * a[2, 0, 1] ** 3
        + a[1, 0, 0] * a[1, 1, 0]
        - a[2, 1, 1] ** 2
    )


def polynomial_alpha(a: Any, unit: derivation.Unit) -> Any:
    k, i, j = unit
    return (k + 1) * a[k, i, j] ** 2 + (i + 2) * a[2 - k, 1 - i, j] * a[0, 0, 0] - (j + 1) * a[1, i, 1 - j]


EQUATIONS: list[tuple[Callable[..., Tensor], Callable[..., Any]]] = [
    (autograd.equation_7, derivation.equation_7),
    (autograd.equation_18, derivation.equation_18),
    (autograd.equation_19, derivation.equation_19),
]


@pytest.mark.parametrize(("numeric", "exact"), EQUATIONS, ids=["7", "18", "19"])
def test_the_equations_are_those_of_sympy(numeric: Callable[..., Tensor], exact: Callable[..., Any]) -> None:
    maps, numbers = derivation.feature_maps(*SHAPE), layer(0)
    alphas = sp.Array([polynomial_alpha(maps, unit) for unit in UNITS], SHAPE)
    point = {maps[unit]: sp.Rational(numbers[unit].item()) for unit in UNITS}  # a float is a fraction
    expected = [float(exact(polynomial(maps), alphas, maps, unit).rhs.doit().subs(point)) for unit in UNITS]

    def torch_alphas(activations: Tensor) -> Tensor:
        return torch.stack([polynomial_alpha(activations, unit) for unit in UNITS]).reshape(SHAPE)

    found = numeric(polynomial, torch_alphas, numbers)
    assert_same(found, torch.tensor(expected, dtype=torch.float64).reshape(SHAPE), absolute=ROUNDING)


def slow_equation_6(score: autograd.Score, alphas: autograd.Alphas, activations: Tensor) -> float:
    """Loops over units; gradients by backpropagation, one unit at a time."""
    leaf = activations.clone().requires_grad_()
    slopes = torch.autograd.grad(score(leaf), leaf)[0].tolist()
    fixed, numbers = alphas(activations).tolist(), activations.tolist()
    total = 0.0
    for k in range(SHAPE[0]):
        braces = math.fsum(fixed[k][i][j] * slopes[k][i][j] for i in range(SHAPE[1]) for j in range(SHAPE[2]))
        total += braces * math.fsum(value for row in numbers[k] for value in row)
    return total


def differences(function: Callable[[Tensor], float], activations: Tensor) -> Tensor:
    """Central differences of fourth order."""
    step, result = 1e-3, torch.zeros_like(activations)
    for unit in UNITS:

        def moved(by: float, unit: derivation.Unit = unit) -> float:
            there = activations.clone()
            there[unit] += by
            return function(there)

        result[unit] = (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step)
    return result


@SEEDS
def test_equation_6_is_the_loop(seed: int) -> None:
    score, activations = autograd.smooth_network(seed, *SHAPE), layer(seed)
    for alphas in (constants(seed), moving):
        expected = slow_equation_6(score, alphas, activations)
        assert autograd.equation_6(score, alphas, activations).item() == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


@SEEDS
def test_the_derivative_of_equation_6_is_that_of_finite_differences(seed: int) -> None:
    """Fifth derivatives up to about 1e3 times 1e-12 for the step, and 1e-16 over 1e-3 for the rounding."""
    score, activations = autograd.smooth_network(seed, *SHAPE), layer(seed)
    for alphas in (constants(seed), moving):
        found = autograd.derivative_of_equation_6(score, alphas, activations)
        expected = differences(lambda there, alphas=alphas: slow_equation_6(score, alphas, there), activations)  # type: ignore[misc]
        assert_same(found, expected, absolute=1e-8)


@SEEDS
def test_equation_18_is_the_derivative_for_constant_alphas_and_equation_7_is_not(seed: int) -> None:
    score, alphas, activations = autograd.smooth_network(seed, *SHAPE), constants(seed), layer(seed)
    truth = autograd.derivative_of_equation_6(score, alphas, activations)
    assert_same(autograd.equation_18(score, alphas, activations), truth, absolute=ROUNDING)
    assert_same(autograd.equation_19(score, alphas, activations), truth, absolute=ROUNDING)
    assert float((autograd.equation_7(score, alphas, activations) - truth).abs().max()) > 1e-2


@SEEDS
def test_equation_19_is_the_derivative_for_moving_alphas_and_equation_18_is_not(seed: int) -> None:
    score, activations = autograd.smooth_network(seed, *SHAPE), layer(seed)
    truth = autograd.derivative_of_equation_6(score, moving, activations)
    assert_same(autograd.equation_19(score, moving, activations), truth, absolute=ROUNDING)
    assert float((autograd.equation_18(score, moving, activations) - truth).abs().max()) > 1e-2


def test_equation_7_is_right_where_nothing_is_lost() -> None:
    """One unit: no other channel, no other unit."""
    score = autograd.smooth_network(3, 1, 1, 1)
    activations = torch.full((1, 1, 1), 0.7, dtype=torch.float64)

    def alphas(_: Tensor) -> Tensor:
        return torch.full((1, 1, 1), 0.4, dtype=torch.float64)

    truth = autograd.derivative_of_equation_6(score, alphas, activations)
    assert_same(autograd.equation_7(score, alphas, activations), truth, absolute=ROUNDING)


def test_the_smooth_network_is_two_layers_of_tanh_with_the_weights_of_its_seed() -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = ((16, 12), (8, 16), (1, 8))
    first, second, third = (
        (torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[1])).tolist() for shape in shapes
    )
    activations = layer(4)

    def through(matrix: list[list[float]], values: list[float]) -> list[float]:
        return [math.fsum(weight * value for weight, value in zip(row, values, strict=True)) for row in matrix]

    hidden = [math.tanh(value) for value in through(first, activations.flatten().tolist())]
    expected = through(third, [math.tanh(value) for value in through(second, hidden)])[0]
    score = autograd.smooth_network(4, *SHAPE)
    assert score(activations).item() == pytest.approx(expected, rel=ROUNDING)
    assert score(activations).item() != autograd.smooth_network(5, *SHAPE)(activations).item()
