"""Slips and gaps in the paper itself that the mathematics shows, each with evidence that is computed here or by a claim.

Apart from them stands what is merely loose, and what may be a fault of our copy of the paper, a machine transcription: no
erratum either, and no verdict hangs on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import geometric_mean
from typing import NamedTuple

import sympy as sp

from gradcampp import paper
from gradcampp.algebra import counterexamples, derivation
from gradcampp.claims.alphas import interval
from gradcampp.claims.claim import Claim
from gradcampp.claims.derivation import eq_11_general, infinitely_many, linear_contradiction
from gradcampp.performance import relative_performance

Evidence = Callable[[], tuple[bool, str]]


class Erratum(NamedTuple):
    """A passage of the paper, or of our copy, what it should be, and why; none changes a conclusion of the paper."""

    place: str
    printed: str  # what is there, in LaTeX or words
    correct: str  # what should be there
    weight: str  # slip (of words), gap (a condition is missing); loose (numbers that fit roughly), rounding; copy
    evidence: Evidence  # computes whether it is one, and a line that shows it


def erratum(place: str, printed: str, correct: str, weight: str) -> Callable[[Evidence], Erratum]:
    """Make evidence the erratum that it shows."""
    return partial(Erratum, place, printed, correct, weight)


def _of(claim: Claim) -> Evidence:
    """The evidence of a claim that is not true as it stands; shown where its verdict is the committed one."""

    def evidence() -> tuple[bool, str]:
        finding = claim.check()
        return finding.verdict == claim.expected, finding.evidence

    return evidence


@erratum("2.2, eq. 7", r"$\partial Y^c / \partial A^k_{jk}$, twice", r"$\partial Y^c / \partial A^k_{ij}$", "copy")
def _indices_of_eq_7() -> tuple[bool, str]:
    """In a layer with more channels than columns, a channel is no column."""
    outside = sum(k >= 1 for k in range(3))
    return outside > 0, f"with 3 maps of 1 x 1 units, A^k_jk asks for {outside} of 3 units that do not exist"


@erratum(
    "Appendix A, assumption 2",
    r"$\partial A^l_{ij} / \partial A^k_{ij} = 1$ if $(i,j,k) = (u,v,l)$",
    r"$\partial A^l_{uv} / \partial A^k_{ij}$",
    "copy",
)
def _assumption_2() -> tuple[bool, str]:
    """The derivative that the proof uses is that of A^l_uv, and it is 1 exactly where all three indices agree."""
    maps = derivation.feature_maps(2, 1, 2)
    pairs = product(product(range(2), range(1), range(2)), repeat=2)
    right = all(maps[one].diff(maps[other]) == int(one == other) for one, other in pairs)
    seen = "the printed numerator has no u and v, on which its condition depends; with A^l_uv it holds for all 16 pairs of units"
    return right, seen


@erratum(
    "Appendix A, assumption 3",
    r"$\partial \alpha^{lc}_{ij} / \partial A^k_{ij} = 0$",
    r"$\partial \alpha^{lc}_{ab} / \partial A^k_{ij} = 0$ for all $a, b$",
    "copy",
)
def _assumption_3() -> tuple[bool, str]:
    """Alphas that depend on other units only satisfy the printed condition and still add a term."""
    maps, unit = derivation.feature_maps(1, 1, 2), (0, 0, 0)
    value, (first, second) = derivation.score(maps), sp.flatten(maps)
    alphas = sp.Array([[[sp.Function("f")(second), sp.Function("f")(first)]]])
    printed = all(alphas[0, 0, j].diff(maps[0, 0, j]) == 0 for j in range(2))
    added = derivation.equation_19(value, alphas, maps, unit).rhs - derivation.equation_18(value, alphas, maps, unit).rhs
    seen = "alpha_1 = f(A_2), alpha_2 = f(A_1) meets the printed condition, but adds a term to eq. 18"
    return printed and sp.expand(added) != 0, seen


_no_condition = erratum(
    "3.1.1, eq. 10", "infinitely many solutions", r"if some $C^k_{ab} \ne 0$ and there are two or more units", "gap"
)(_of(infinitely_many))

_missed = erratum(
    "3.1.1, eq. 11",
    "a general set of solutions",
    r"of all solutions if $Y^c \ne 0$; where $Y^c = 0$ it misses all but zero",
    "gap",
)(_of(eq_11_general))


@erratum("3.1.1", "more unknowns than equations", "unless the layer has a single unit", "gap")
def _one_unknown() -> tuple[bool, str]:
    left = counterexamples.dimension(sp.Array([[[3]]]), sp.Integer(5))
    return left == 0, f"one channel of one unit with C = 3: {left} dimensions are free, alpha = 5/3"


_coincidence = erratum(
    "3.1.4", "cannot solve both equations", "for more than one value of the constant C at a given point", "gap"
)(_of(linear_contradiction))

_intervals = erratum(
    "3.3",
    r"products mostly in $(-0.2, 0.15)$, and the resulting alphas about 0.48 to 0.53",
    r"these products give alphas from 0.465 to 0.556",
    "loose",
)(_of(interval))


@erratum(
    "4, Table 1",
    "1.16, 1.06 and 1.24, pre-softmax",
    "the rounded factors multiply to 1.23; unrounded ones may give 1.24",
    "rounding",
)
def _products_of_table_1() -> tuple[bool, str]:
    whole, plus, over = (paper.CELLS["pre", pair].relative_performance for pair in paper.PAIRS)
    low, high = (plus - 0.005) * (over - 0.005), (plus + 0.005) * (over + 0.005)
    shown = round(plus * over, 2) != whole and low < whole + 0.005 and high > whole - 0.005
    return shown, f"{plus} * {over} = {plus * over:.4f}; unrounded it may be {low:.3f} to {high:.3f}"


@erratum(
    "4, Table 2",
    "0.22, 0.01 and 0.24, post-softmax",
    "the rounded means add up to 0.23; unrounded ones may give 0.24",
    "rounding",
)
def _sums_of_table_2() -> tuple[bool, str]:
    whole, plus, over = (paper.CELLS["post", pair].mean for pair in paper.PAIRS)
    shown = not math.isclose(plus + over, whole) and abs(plus + over - whole) < 0.015
    return shown, f"{plus} + {over} = {plus + over:.2f}, printed {whole}"


@erratum("References, [4]", "arXiv:14091556", "arXiv:1409.1556", "copy")
def _arxiv_number() -> tuple[bool, str]:
    wrong = re.fullmatch(r"\d{4}\.\d{4,5}", "14091556") is None
    return wrong, "arXiv numbers of 2014 have a point after the year and month: 1409.1556"


@erratum(
    "4, before eq. 16",
    "the geometric mean of the product of the ratios",
    "the geometric mean of the ratios: the root of their product, as eq. 16 has it",
    "slip",
)
def _mean_of_the_product() -> tuple[bool, str]:
    """A product is one number, and the geometric mean of one number is the number."""
    ratios = (2.0, 8.0)
    product, equation_16 = math.prod(ratios), relative_performance(ratios, (1.0, 1.0))
    return not math.isclose(
        geometric_mean([product]), equation_16
    ), f"ratios 2 and 8: product {product:g}, eq. 16 {equation_16:g}"


def _all(*weights: str) -> tuple[Erratum, ...]:
    return tuple(one for one in list(globals().values()) if isinstance(one, Erratum) and one.weight in weights)


ERRATA = _all("slip", "gap")
LOOSE = _all("loose", "rounding")
IN_OUR_COPY = _all("copy")
