"""The expressions of :mod:`gradcampp.algebra.derivation` as LaTeX that a page has room for.

A score of all units of a layer, ``Y(A^1_11, A^1_12, ...)``, is written as its name alone, derivatives as the paper
writes them, and the sum of a feature map as :math:`s_k`. Only what is printed is short: nothing is computed with it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from gradcampp.algebra.derivation import Step

Expr = Any  # SymPy has no types


Names = dict[Expr, str]


def latex(expression: Expr) -> str:
    r"""An expression, or an equation, without the arguments of its functions.

    Args:
        expression: built by :mod:`gradcampp.algebra.derivation`: activations called ``A^k_ij``,
            functions of all of them, derivatives.

    Returns:
        LaTeX for mathematics mode, such as ``s_{1} \alpha^{1}_{11} \dfrac{\partial Y}{\partial A^{1}_{11}}``.
    """
    if isinstance(expression, sp.Eq):
        return f"{latex(expression.lhs)} = {latex(expression.rhs)}"
    short, names = _short(expression)
    return _printed(short, names)


def equation(left: Expr, right: Expr, terms_a_line: int = 2) -> str:
    """An equation whose right side is broken where it is a long sum.

    Args:
        left: one short expression.
        right: any expression.
        terms_a_line: after how many terms of a sum a new line begins.
    """
    return rf"\begin{{aligned}} {latex(left)} &= {_broken(_terms(right), terms_a_line, '&')} \end{{aligned}}"


def step(one: Step, terms_a_line: int = 2) -> str:
    """A step of the derivation in three rows: the expression before, what the assumption leaves of it, and what it loses."""
    before, kept, gone = _terms(one.before), _terms(one.after), _printed_terms(*_lost(one))
    if set(before) == set(kept) | set(gone):  # then what goes is what stands last
        before = [*kept, *gone]
    left = rf"{latex(one.left)} ={{}}"
    rows = [("before:", left, before), ("after:", left, kept), ("lost:", "", gone)]
    lines = [rf"\text{{{name}}}\quad & {start} {_broken(terms, terms_a_line, '& ')}" for name, start, terms in rows]
    return r"\begin{aligned} " + r" \\[1.5ex] ".join(lines) + r" \end{aligned}"


def number_lost(one: Step) -> int:
    """How many terms a step loses, with the sum of each feature map as one factor; 0 where it is exact."""
    lost, _ = _lost(one)
    return 0 if lost == 0 else len(sp.Add.make_args(lost))


def _printed(short: Expr, names: Names) -> str:
    named = short.replace(sp.Max, lambda *parts: sp.Function(r"\operatorname{ReLU}")(sum(parts)))  # the other part is 0
    return str(sp.latex(named, symbol_names=names))


def _terms(expression: Expr) -> list[str]:
    """The terms of a sum as LaTeX, those with few factors first."""
    return _printed_terms(*_short(expression))


def _printed_terms(short: Expr, names: Names) -> list[str]:
    def size(term: Expr) -> tuple[int, Any]:
        return len(sp.Mul.make_args(term)), sp.default_sort_key(term)

    return [_printed(term, names) for term in sorted(sp.Add.make_args(short), key=size)]


def _broken(terms: list[str], terms_a_line: int, align: str) -> str:
    signed = [term if place == 0 or term.startswith("-") else f"+ {term}" for place, term in enumerate(terms)]
    lines = [" ".join(signed[start : start + terms_a_line]) for start in range(0, len(signed), terms_a_line)]
    return rf" \\ {align}\quad ".join(lines)


def _lost(one: Step) -> tuple[Expr, Names]:
    """What a step loses, in its shortest form: ReLU(g) - g as ReLU(-g), and of a fraction the factored numerator."""
    short, names = _short(one.lost)
    top, bottom = sp.fraction(short)
    if bottom != 1:
        return sp.factor(sp.expand(top)) / bottom, names
    flipped = short.replace(sp.Max, lambda *parts: sum(parts) + sp.Max(0, -sum(parts)))
    return min(sp.expand(short), sp.expand(flipped), key=lambda form: len(sp.Add.make_args(form))), names


def _short(expression: Expr) -> tuple[Expr, Names]:
    """The expression with a symbol for every function, derivative and sum of a map, and how each is printed."""
    names: Names = {}
    parts = expression.atoms(AppliedUndef, sp.Derivative, sp.Indexed)
    stand_ins = {part: _symbol("z" if _is_slope(part) else "b", _name(part), names) for part in parts}
    stand_ins |= {part: _symbol("a 0", sp.latex(part), names) for part in expression.atoms(sp.Symbol) if part.name == "lambda"}
    plain = expression.xreplace(stand_ins)
    for channel, units in _maps(parts):
        total = _symbol("a", f"s_{{{channel}}}", names)
        summed = plain.xreplace({units[-1]: total - sum(units[:-1])})
        if summed.has(*units):
            summed = sp.expand(summed)
        if not summed.has(*units):
            plain = summed
    return plain, names


def _maps(functions: set[Expr]) -> Iterator[tuple[str, list[Expr]]]:
    """The activations of each feature map with several units, from the arguments of the functions."""
    units: dict[str, set[Expr]] = defaultdict(set)
    for argument in {argument for part in functions if isinstance(part, AppliedUndef) for argument in part.args}:
        found = re.fullmatch(r"A\^(\d+)_\d+", str(argument))
        if found:
            units[found[1]].add(argument)
    return ((channel, sorted(found, key=str)) for channel, found in sorted(units.items()) if len(found) > 1)


def _symbol(order: str, name: str, names: Names) -> Expr:
    """A symbol that is printed as ``name`` and stands among the factors of a product where ``order`` sorts it."""
    symbol = sp.Symbol(f"{order} {name}")
    names[symbol] = name
    return symbol


def _is_slope(part: Expr) -> bool:
    return isinstance(part, sp.Derivative) or part.func.__name__ == "Y'"


def _name(part: Expr) -> str:
    """A function without its arguments, or its derivative as a fraction."""
    if isinstance(part, sp.Derivative):
        return _derivative(part)
    if isinstance(part, sp.Indexed):
        return _unit(part.base.label.name, part.indices)
    name = part.func.__name__
    if name == "Y'":  # the gradients, the alphas and the sums of a layer of any size
        return rf"\dfrac{{\partial Y}}{{\partial {_unit('A', part.args[:3])}}}"
    if name == "alpha":
        return _unit(name, part.args[:3])
    if name == "s":
        return f"s_{{{sp.latex(part.args[0])}}}"
    return str(sp.latex(sp.Symbol(name)))


def _derivative(part: Expr) -> str:
    """With respect to activations; in a layer of any size that is ``x``, which stands for ``A^k_ij``."""
    counts = [("A^{k}_{ij}" if x.name == "x" else str(sp.latex(x)), int(count)) for x, count in part.variable_count]
    above = _name(part.expr)
    if part.expr.func.__name__ == "Y'":
        above = "Y"
        counts.append((_unit("A", part.expr.args[:3]), 1))
    order = sum(count for _, count in counts)
    top = rf"\partial {above}" if order == 1 else rf"\partial^{{{order}}} {above}"
    below = [rf"\partial {unit}" if count == 1 else rf"(\partial {unit})^{{{count}}}" for unit, count in counts]
    return rf"\dfrac{{{top}}}{{" + r" \, ".join(below) + "}"


def _unit(name: str, indices: Sequence[Expr]) -> str:
    channel, row, column = (sp.latex(index) for index in indices)
    return rf"{sp.latex(sp.Symbol(name))}^{{{channel}}}_{{{row}{column}}}"
