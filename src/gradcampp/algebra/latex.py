"""The expressions of :mod:`gradcampp.algebra.derivation` as LaTeX that a page has room for.

A score of all units of a layer, ``Y(A^1_11, A^1_12, ...)``, is written as its name alone, derivatives as the paper
writes them, and the sum of a feature map as :math:`s_k`. Only what is printed is short: nothing is computed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter

from gradcampp.algebra.derivation import Expr, Step, without_curvature

GRADIENT = "Y'"  # this function, the alphas and the sums s of a layer of any size have the indices l, a, b for arguments
RELU = r"\operatorname{ReLU}"
COLOUR = "#d04a02"  # of what is lost: as far from white as from black


class ReLU(sp.Function):  # type: ignore[misc]
    """Max(x, 0), to be printed by its name."""


class Struck(sp.Function):  # type: ignore[misc]
    """A term that a step loses."""


class Printer(LatexPrinter):  # type: ignore[misc]
    """Functions without their arguments, derivatives as the paper writes them, and stand-ins by what follows their order."""

    def _print_Symbol(self, part: Expr) -> str:  # noqa: N802
        _, stand_in, printed = part.name.partition("\t")
        return printed if stand_in else str(super()._print_Symbol(part))

    def _print_Struck(self, part: Expr) -> str:  # noqa: N802
        return _struck(self._print(part.args[0]))

    def _print_AppliedUndef(self, part: Expr) -> str:  # noqa: N802
        name = part.func.__name__
        if name == GRADIENT:
            return self._fraction("Y", [(self._unit("A", part.args[:3]), 1)])
        if name == "alpha":
            return self._unit(name, part.args[:3])
        return str(self._print(sp.Symbol(f"s_{part.args[0]}" if name == "s" else name)))

    def _print_Indexed(self, part: Expr) -> str:  # noqa: N802
        return self._unit(part.base.label.name, part.indices)

    def _print_Derivative(self, part: Expr) -> str:  # noqa: N802
        """With respect to activations; in a layer of any size that is ``x``, which stands for ``A^k_ij``."""
        counts = [("A^{k}_{ij}" if x.name == "x" else self._print(x), int(count)) for x, count in part.variable_count]
        if part.expr.func.__name__ == GRADIENT:
            return self._fraction("Y", [*counts, (self._unit("A", part.expr.args[:3]), 1)])
        return self._fraction(self._print(part.expr), counts)

    def _unit(self, name: str, indices: Sequence[Expr]) -> str:
        channel, row, column = map(self._print, indices)
        return rf"{self._print(sp.Symbol(name))}^{{{channel}}}_{{{row}{column}}}"

    def _fraction(self, above: str, counts: Sequence[tuple[str, int]]) -> str:
        """A derivative of ``above`` by units, each with its order."""
        order = sum(count for _, count in counts)
        below = [rf"\partial {unit}" if count == 1 else rf"(\partial {unit})^{{{count}}}" for unit, count in counts]
        power = "" if order == 1 else f"^{{{order}}}"
        return rf"\dfrac{{\partial{power} {above}}}{{" + r" \, ".join(below) + "}"


def latex(expression: Expr) -> str:
    r"""An expression, or an equation, for mathematics mode: ``s_{1} \alpha^{1}_{11} \dfrac{\partial Y}{\partial A^{1}_{11}}``."""
    if isinstance(expression, sp.Eq):
        return f"{latex(expression.lhs)} = {latex(expression.rhs)}"
    return str(Printer().doprint(_short(expression)))


def equation(left: Expr, right: Expr, terms_a_line: int = 2) -> str:
    """An equation whose right side, where it is a sum, begins a new line after every so many terms."""
    return rf"\begin{{aligned}} {latex(left)} &= {_broken(_terms(_short(right)), terms_a_line, '&')} \end{{aligned}}"


def step(one: Step, terms_a_line: int = 2) -> str:
    """A step of the derivation, printed once: the expression before it, with what the assumption loses struck through.

    A step that is exact has nothing to strike; where it changes the form, what it leads to follows below.
    """
    before, after, gone = _terms(_short(one.before, True)), _terms(_short(one.after, True)), _terms(_lost(one))
    if _lost(one) == 0:
        forms = [before] if before == after else [before, after]
    elif set(before) == set(after) | set(gone):
        forms = [[*after, *(_struck(term) for term in gone)]]  # what goes stands last
    elif one.before.has(sp.Max):
        forms = [[term.replace(RELU, _struck(RELU)) for term in before]]
    else:
        forms = [_terms(_short(_marked(one.before), True))]
    lines = [rf"& ={{}} {_broken(form, terms_a_line, '&')}" for form in forms]
    return rf"\begin{{aligned}} {latex(one.left)} " + r" \\[1.5ex] ".join(lines) + r" \end{aligned}"


def _struck(formula: str) -> str:
    """Struck through, and in a colour that is told from black and from white."""
    return rf"\textcolor{{{COLOUR}}}{{\cancel{{{formula}}}}}"


def _marked(expression: Expr) -> Expr:
    """The expression with every term marked that is gone where the score has no second and third derivatives."""

    def mark(total: Expr) -> Expr:
        return sp.Add(*(term if without_curvature(term) != 0 else Struck(term) for term in total.args))

    return expression.replace(lambda part: part.is_Add, mark)


def number_lost(one: Step) -> int:
    """The number of terms that a step loses, with the sum of each feature map as one factor; 0 where it is exact."""
    lost = _lost(one)
    return 0 if lost == 0 else len(sp.Add.make_args(lost))


def _terms(short: Expr) -> list[str]:
    """The terms of a sum as LaTeX, those with few factors first."""
    terms = sorted(sp.Add.make_args(short), key=lambda term: (len(sp.Mul.make_args(term)), sp.default_sort_key(term)))
    return [Printer().doprint(term) for term in terms]


def _broken(terms: list[str], terms_a_line: int, align: str) -> str:
    signed = [term if place == 0 or term.startswith("-") else f"+ {term}" for place, term in enumerate(terms)]
    lines = [" ".join(signed[start : start + terms_a_line]) for start in range(0, len(signed), terms_a_line)]
    return rf" \\ {align}\quad {{}} ".join(lines)  # the empty group gives a sign the space of an operator


def _lost(one: Step) -> Expr:
    """The terms that a step loses, in their shortest form: ReLU(g) - g as ReLU(-g), and of a fraction the factored numerator."""
    short = _short(one.lost)
    top, bottom = sp.fraction(short)
    if bottom != 1:
        return sp.factor(sp.expand(top)) / bottom
    flipped = short.replace(ReLU, lambda slope: slope + ReLU(-slope))
    return min(sp.expand(short), sp.expand(flipped), key=lambda form: len(sp.Add.make_args(form)))


def _short(expression: Expr, primes: bool = False) -> Expr:
    """The expression with a symbol for every function, derivative and sum of a map.

    A product prints its factors by name, so that of a symbol begins with its place: rates, sums, functions, derivatives.
    With ``primes``, derivatives of a logit S or a softmax score p by the one unit that is followed are S', S'' and S'''.
    """
    parts = expression.atoms(AppliedUndef, sp.Derivative, sp.Indexed)
    slopes = {part for part in parts if isinstance(part, sp.Derivative) or part.func.__name__ == GRADIENT}
    places = dict.fromkeys(parts, "b") | dict.fromkeys(slopes, "z")
    places |= {part: "a 0" for part in expression.atoms(sp.Symbol) if part.name == "lambda"}
    printed = {part: Printer().doprint(part) for part in parts | places.keys()}
    if primes:
        followed = [part for part in slopes if isinstance(part, sp.Derivative) and part.expr.func.__name__ in ("S", "p")]
        printed |= {part: part.expr.func.__name__ + "'" * part.derivative_count for part in followed}
    symbols = {part: sp.Symbol(f"{place}\t{printed[part]}") for part, place in places.items()}
    short = expression.xreplace(symbols).replace(sp.Max, lambda *both: ReLU(sum(both)))  # of a slope and 0
    arguments = {argument for part in parts if isinstance(part, AppliedUndef) for argument in part.args}
    activations = sorted((argument for argument in arguments if str(argument).startswith("A^")), key=str)
    for name, of_map in groupby(activations, key=lambda unit: str(unit).partition("_")[0]):
        *others, last = of_map
        if not others:
            continue
        summed = short.xreplace({last: sp.Symbol(f"a 1\ts_{{{name[2:]}}}") - sum(others)})
        if summed.has(*others, last):
            summed = sp.expand(summed)
        if not summed.has(*others, last):
            short = summed
    return short
