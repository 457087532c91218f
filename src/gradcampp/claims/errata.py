"""Mistakes and gaps in the paper itself, each with evidence that is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from gradcampp import paper
from gradcampp.algebra import counterexamples, derivation


@dataclass(frozen=True)
class Erratum:
    """What the paper prints, what it should be, and why.

    Attributes:
        place: where.
        printed: what is there, in LaTeX or words.
        correct: what should be there.
        weight: ``misprint``, ``gap`` (a condition is missing), ``loose`` (numbers that fit only roughly) or ``rounding``; none
            changes a conclusion of the paper.
        evidence: computes a line that shows it, and whether it does.
    """

    place: str
    printed: str
    correct: str
    weight: str
    evidence: Callable[[], tuple[bool, str]]


def _indices_of_eq_7() -> tuple[bool, str]:
    """In a layer with more channels than rows, a channel is no row."""
    channels, height, width = 3, 1, 1
    units = [(k, i, j) for k in range(channels) for i in range(height) for j in range(width)]
    outside = [(k, j, k) for k, _, j in units if not (j < height and k < width)]
    return bool(outside), f"with 3 maps of 1 x 1 units, A^k_jk asks for {len(outside)} of {len(units)} units that do not exist"


def _assumption_2() -> tuple[bool, str]:
    """The derivative that the proof uses is that of A^l_uv, and it is 1 exactly where all three indices agree."""
    maps = derivation.feature_maps(2, 1, 2)
    pairs = [(k, other, j, v) for k in range(2) for other in range(2) for j in range(2) for v in range(2)]
    right = all(maps[k, 0, v].diff(maps[other, 0, j]) == int(k == other and j == v) for k, other, j, v in pairs)
    return (
        right,
        "the printed numerator has no u and v, on which its condition depends; with A^l_uv it holds for all 16 pairs of units",
    )


def _assumption_3() -> tuple[bool, str]:
    """Alphas that depend on other units only satisfy the printed condition and still add a term."""
    maps = derivation.feature_maps(1, 1, 2)
    value, (first, second) = derivation.score(maps), sp.flatten(maps)
    alphas = sp.Array([[[sp.Function("f")(second), sp.Function("f")(first)]]])
    printed = all(alphas[0, 0, j].diff(maps[0, 0, j]) == 0 for j in range(2))
    unit = (0, 0, 0)
    extra = sp.expand(
        derivation.equation_19(value, alphas, maps, unit).rhs - derivation.equation_18(value, alphas, maps, unit).rhs
    )
    return printed and extra != 0, "alpha_1 = f(A_2), alpha_2 = f(A_1) meets the printed condition, but adds a term to eq. 18"


def _no_condition() -> tuple[bool, str]:
    none = counterexamples.dimension(sp.Array([[[0, 0]]]), sp.Integer(5))
    every = counterexamples.dimension(sp.Array([[[0, 0]]]), sp.Integer(0))
    return (
        none is None and every == 2,
        "where no gradient is positive, all C are 0: then eq. 10 has no solution, or Y = 0 and any alphas solve it",
    )


def _missed() -> tuple[bool, str]:
    coefficients, solution, reached = counterexamples.missed_by_equation_11()
    value = derivation.equation_10(coefficients, solution, sp.Integer(0)).lhs
    missed = value == 0 and set(sp.flatten(reached)) == {0}
    return (
        missed,
        f"C = {sp.flatten(coefficients)}, Y = 0: {sp.flatten(solution)} is a solution, eq. 11 gives {sp.flatten(reached)}",
    )


def _one_unknown() -> tuple[bool, str]:
    left = counterexamples.dimension(sp.Array([[[3]]]), sp.Integer(5))
    return left == 0, f"one channel of one unit with C = 3: {left} dimensions are free, alpha = 5/3"


def _coincidence() -> tuple[bool, str]:
    _, change = counterexamples.linear_part_in_general()
    constant = sp.Symbol("C", real=True)
    solutions = sp.solve(change, constant)
    return len(
        solutions
    ) == 1, f"at a given point the constant that reconciles both equations is unique, but exists ({len(solutions)} solution)"


def _intervals() -> tuple[bool, str]:
    ends = [float(derivation.equation_13(sp.Rational(text), 1)) for text in ("0.15", "-0.2")]
    back = [1 / alpha - 2 for alpha in (0.53, 0.48)]
    apart = abs(ends[1] - 0.53) > 0.02
    return (
        apart,
        f"eq. 13 takes (-0.2, 0.15) to ({ends[0]:.3f}, {ends[1]:.3f}), and (0.48, 0.53) back to ({back[0]:.3f}, {back[1]:.3f})",
    )


def _products_of_table_1() -> tuple[bool, str]:
    plus, over = (paper.CELLS["pre", pair].relative_performance for pair in paper.PAIRS[1:])
    whole = paper.CELLS["pre", paper.PAIRS[0]].relative_performance
    low, high = (plus - 0.005) * (over - 0.005), (plus + 0.005) * (over + 0.005)
    consistent = low < whole + 0.005 and high > whole - 0.005
    return round(
        plus * over, 2
    ) != whole and consistent, f"{plus} * {over} = {plus * over:.4f}; unrounded it may be {low:.3f} to {high:.3f}"


def _sums_of_table_2() -> tuple[bool, str]:
    plus, over = (paper.CELLS["post", pair].mean for pair in paper.PAIRS[1:])
    whole = paper.CELLS["post", paper.PAIRS[0]].mean
    return not math.isclose(plus + over, whole) and abs(
        plus + over - whole
    ) < 0.015, f"{plus} + {over} = {plus + over:.2f}, printed {whole}"


def _arxiv_number() -> tuple[bool, str]:
    printed = "14091556"
    return "." not in printed and len(printed) == 8, "arXiv numbers of 2014 have a point after the year and month: 1409.1556"


ERRATA = (
    Erratum(
        "2.2, eq. 7",
        r"$\partial Y^c / \partial A^k_{jk}$, twice",
        r"$\partial Y^c / \partial A^k_{ij}$",
        "misprint",
        _indices_of_eq_7,
    ),
    Erratum(
        "Appendix A, assumption 2",
        r"$\partial A^l_{ij} / \partial A^k_{ij} = 1$ if $(i,j,k) = (u,v,l)$",
        r"$\partial A^l_{uv} / \partial A^k_{ij}$",
        "misprint",
        _assumption_2,
    ),
    Erratum(
        "Appendix A, assumption 3",
        r"$\partial \alpha^{lc}_{ij} / \partial A^k_{ij} = 0$",
        r"$\partial \alpha^{lc}_{ab} / \partial A^k_{ij} = 0$ for all $a, b$",
        "misprint",
        _assumption_3,
    ),
    Erratum(
        "3.1.1, eq. 10",
        "infinitely many solutions",
        r"if some $C^k_{ab} \ne 0$ and there are two or more units",
        "gap",
        _no_condition,
    ),
    Erratum(
        "3.1.1, eq. 11",
        "a general set of solutions",
        r"of all solutions if $Y^c \ne 0$; where $Y^c = 0$ it misses all but zero",
        "gap",
        _missed,
    ),
    Erratum("3.1.1", "more unknowns than equations", "unless the layer has a single unit", "gap", _one_unknown),
    Erratum(
        "3.1.4", "cannot solve both equations", "for more than one value of the constant C at a given point", "gap", _coincidence
    ),
    Erratum(
        "3.3",
        r"products mostly in $(-0.2, 0.15)$, and the resulting alphas about 0.48 to 0.53",
        r"these products give alphas from 0.465 to 0.556",
        "loose",
        _intervals,
    ),
    Erratum(
        "4, Table 1",
        r"1.16, 1.06 and 1.24, pre-softmax",
        "the rounded factors multiply to 1.23; unrounded ones may give 1.24",
        "rounding",
        _products_of_table_1,
    ),
    Erratum(
        "4, Table 2",
        r"0.22, 0.01 and 0.24, post-softmax",
        "the rounded means add up to 0.23; unrounded ones may give 0.24",
        "rounding",
        _sums_of_table_2,
    ),
    Erratum("References, [4]", "arXiv:14091556", "arXiv:1409.1556", "misprint", _arxiv_number),
)
