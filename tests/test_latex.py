"""Expressions are printed without their long arguments, and nothing of them gets lost on the way."""

from __future__ import annotations

import pytest
import sympy as sp

from gradcampp.algebra import derivation
from gradcampp.algebra import latex as latex_module
from gradcampp.algebra.latex import equation, number_lost

MAPS = derivation.feature_maps(2, 1, 2)
FIRST, SECOND, THIRD, FOURTH = sp.flatten(MAPS)
Y = derivation.score(MAPS)
STEPS = derivation.derivation()


def latex(text: str) -> str:
    """With the superscripts and fractions of the printed form, from a shorter one."""
    return text.replace("A11", "A^{1}_{11}").replace("A12", "A^{1}_{12}").replace("D{", r"\dfrac{")


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (Y, "Y"),
        (Y.diff(FIRST), r"D{\partial Y}{\partial A11}"),
        (Y.diff(FIRST, FIRST), r"D{\partial^{2} Y}{(\partial A11)^{2}}"),
        (Y.diff(FIRST, SECOND), r"D{\partial^{2} Y}{\partial A11 \, \partial A12}"),
        (Y.diff(FIRST) ** 2, r"\left(D{\partial Y}{\partial A11}\right)^{2}"),
        (sp.Max(Y.diff(FIRST), 0), r"\operatorname{ReLU}{\left(D{\partial Y}{\partial A11} \right)}"),
        (derivation.varying_alphas(MAPS)[0, 0, 0], r"\alpha^{1}_{11}"),
        ((FIRST + SECOND) * Y, "s_{1} Y"),
        (sp.expand((FIRST + SECOND) * Y), "s_{1} Y"),
        (FIRST * Y, "A11 Y"),
        (sp.Symbol("lambda", positive=True) * (THIRD + FOURTH) * Y.diff(FIRST), r"\lambda s_{2} D{\partial Y}{\partial A11}"),
        (sp.Eq(Y, 2 * Y, evaluate=False), "Y = 2 Y"),
        (sp.Eq(Y, Y, evaluate=False), "Y = Y"),
    ],
    ids=str,
)
def test_latex(expression: sp.Expr, wanted: str) -> None:
    # Alphas and functions stand before derivatives; SymPy's own order would put them anywhere.
    assert latex_module.latex(expression) == latex(wanted)


def test_a_map_of_one_unit_has_no_other_name() -> None:
    maps = derivation.feature_maps(1, 1, 1)
    assert latex_module.latex(maps[0, 0, 0] * derivation.score(maps)) == "A^{1}_{11} Y"


def test_a_layer_of_any_size_is_printed_as_in_the_paper() -> None:
    constant, varying = (latex_module.latex(derivation.appendix_of_any_size(moving)) for moving in (False, True))
    sums = r"\sum_{l=1}^{K} s_{l} \sum_{\substack{1 \leq a \leq H\\1 \leq b \leq W}}"
    mixed = r"\alpha^{l}_{ab} \dfrac{\partial^{2} Y}{\partial A^{k}_{ij} \, \partial A^{l}_{ab}}"
    assert f"{sums} {mixed}" in constant
    moved = r"\dfrac{\partial Y}{\partial A^{l}_{ab}} \dfrac{\partial \alpha^{l}_{ab}}{\partial A^{k}_{ij}}"
    assert f"{sums} {moved}" in varying
    assert moved not in constant


def test_a_long_sum_is_broken() -> None:
    printed = equation(Y, FIRST + Y + THIRD - FOURTH, terms_a_line=2)
    lines = printed.removeprefix(r"\begin{aligned} ").removesuffix(r" \end{aligned}").split(r" \\ ")
    assert len(lines) == 2
    assert lines[0].startswith("Y &= ")
    assert lines[1].startswith(r"&\quad ")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.equation} {step.assumption}")
def test_a_step_shows_its_three_rows_without_arguments(step: derivation.Step) -> None:
    printed = latex_module.step(step)
    rows = printed.split(r" \\[1.5ex] ")
    assert [row.split("}")[0].split("{")[-1] for row in rows[1:]] == ["after:", "lost:"]
    assert r"\text{before:}" in rows[0]
    assert "Y{" not in printed
    assert "S{" not in printed
    assert printed.count("{") == printed.count("}")
    assert rows[2].removesuffix(r" \end{aligned}").endswith("  0") == (step.lost == 0) == (number_lost(step) == 0)


def test_number_lost() -> None:
    # Per map of two units: 2 ReLUs; the remainder of eq. 6; 2 alphas that move; the other channel's 2 mixed derivatives;
    # then the own unit's one.
    assert [number_lost(step) for step in STEPS] == [0, 4, 1, 4, 2, 1, 1, 0, 0, 1, 0, 0, 1]
    longer = derivation.derivation(1, 1, 3)
    assert [number_lost(step) for step in longer[:7]] == [0, 3, 1, 3, 0, 2, 2]


@pytest.mark.parametrize("step", STEPS[2:8], ids=lambda step: step.assumption)
def test_what_is_lost_stands_last_in_the_row_before(step: derivation.Step) -> None:
    before, after, _ = latex_module.step(step, terms_a_line=100).replace(r"\begin{aligned} ", "").split(r" \\[1.5ex] ")
    assert before.removeprefix(r"\text{before:}").startswith(after.removeprefix(r"\text{after:}"))
