"""Expressions are printed without their long arguments, and nothing of them gets lost on the way."""

from __future__ import annotations

import re
from dataclasses import replace

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
def test_a_step_is_printed_once_without_arguments_and_struck_where_it_loses_something(step: derivation.Step) -> None:
    printed = latex_module.step(step)
    assert not re.search(r"[YSp]\{|[YSp]\(", printed)
    assert printed.count("{") == printed.count("}")
    assert (r"\cancel" in printed) == (step.lost != 0) == (number_lost(step) != 0)
    forms = printed.split(r" \\[1.5ex] ")
    assert len(forms) <= (2 if step.lost == 0 else 1)
    assert len(set(forms)) == len(forms)


def test_number_lost() -> None:
    # Per map of two units: 2 ReLUs; the remainder of eq. 6; 2 alphas that move; the other channel's 2 mixed derivatives;
    # then the own unit's one.
    assert [number_lost(step) for step in STEPS] == [0, 4, 1, 4, 2, 1, 1, 0, 0, 1, 0, 0, 1]
    longer = derivation.derivation(1, 1, 3)
    assert [number_lost(step) for step in longer[:7]] == [0, 3, 1, 3, 0, 2, 2]


@pytest.mark.parametrize("step", STEPS[2:7], ids=lambda step: step.assumption)
def test_the_terms_that_a_step_loses_are_struck_and_the_others_are_what_is_left(step: derivation.Step) -> None:
    printed = latex_module.step(step, terms_a_line=100)
    assert printed.count(r"\cancel") == number_lost(step)
    kept = printed.partition(rf" + \textcolor{{{latex_module.COLOUR}}}")[0]
    assert kept == latex_module.step(replace(step, before=step.after), terms_a_line=100).removesuffix(r" \end{aligned}")


@pytest.mark.parametrize("step", [STEPS[9], STEPS[12]], ids=lambda step: step.assumption)
def test_without_what_is_struck_in_a_fraction_it_is_the_one_that_the_authors_go_on_with(step: derivation.Step) -> None:
    marked = latex_module._marked(step.before)
    assert len(marked.atoms(latex_module.Struck)) == 4  # of the numerator one, of the denominator three
    assert sp.simplify(marked.replace(latex_module.Struck, lambda _: sp.S.Zero) - step.after) == 0
    assert sp.simplify(marked.replace(latex_module.Struck, lambda term: term) - step.before) == 0


def test_the_colour_of_what_is_lost_is_read_on_white_and_on_black() -> None:
    channels = [int(latex_module.COLOUR[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # relative luminance, WCAG 2
    assert 1.05 / (light + 0.05) > 4.5  # text on white
    assert (light + 0.05) / 0.06 > 3  # large text, as formulas are, on the theme's dark ground
