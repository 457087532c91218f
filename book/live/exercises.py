"""Exercises that the page checks: by the assertions that test their solutions."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Check = dict[str, Any]

# What of a solution an answer starts with; the other names that its assertions use are asked for.
GIVEN: Mapping[str, Sequence[str]] = {
    "ex-derivation-one": ("one", "value", "other_channels"),
    "ex-derivation-separable": ("pair", "left", "right", "fixed", "wrong_by"),
    "ex-derivation-power": ("logit", "slope", "total"),
    "ex-derivation-count": ("counted",),
    "ex-wrong-half": (),
    "ex-wrong-least": ("C",),
    "ex-wrong-powers": ("one", "A1"),
}


def checks(notebook: Mapping[str, Any]) -> dict[str, Check]:
    """The exercises of a notebook that are checked, by their labels.

    Each has the ``cell`` of its solution, the ``start`` of an answer, the names ``asked`` for, and the ``conditions`` that
    an answer has to meet, each with whether meeting it is an achievement: to differ from something is none.
    """
    solved = solutions(notebook)
    return {
        label: check("".join(cell["source"]), GIVEN[label]) | {"cell": cell["id"]}
        for label, cell in solved.items()
        if label in GIVEN
    }


def solutions(notebook: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The cells of code that solve the exercises of a notebook, by the labels of these."""
    found, label = {}, ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        label = "" if "{solution-end}" in source else (re.findall(r"\{solution-start\} (\S+)", source) or [label])[0]
        if cell["cell_type"] == "code" and label:
            found[label] = cell
    return found


def check(source: str, given: Sequence[str]) -> Check:
    """An exercise from the cell that solves it."""
    body = ast.parse(source).body
    tests = [node.test for node in body if isinstance(node, ast.Assert)]
    used = {name for test in tests for name in _names(test)}
    kept, asked = list[str](), list[str]()
    for node in body:
        if isinstance(node, ast.Assert | ast.Expr):
            continue
        names = [each for each in _bound(node) if each in used or each in given]
        if set(names) & set(given):
            kept.append(ast.unparse(node))
        elif names:
            kept.append(_stub(node, names))
            asked += names
    parts = [part for test in tests for part in _parts(test) if _names(part) & set(asked)]
    conditions = [[ast.unparse(part), not any(isinstance(each, ast.NotEq) for each in ast.walk(part))] for part in parts]
    return {"start": "\n".join(kept), "asked": asked, "conditions": conditions}


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def _stub(node: ast.stmt, names: Sequence[str]) -> str:
    """The place of an answer: a function without its body, or names without their values."""
    if isinstance(node, ast.FunctionDef):
        words = node.body[:1] if ast.get_docstring(node) else []
        stub = copy.copy(node)
        stub.body = [*words, ast.Expr(ast.Constant(...))]
        return ast.unparse(stub)
    return "\n".join(f"{name} = ..." for name in names)


def _parts(test: ast.expr) -> Iterator[ast.expr]:
    """A chain of comparisons, one by one, so that an answer can meet some of them."""
    if isinstance(test, ast.Compare):
        values = [test.left, *test.comparators]
        for left, operator, right in zip(values, test.ops, values[1:], strict=False):
            yield ast.Compare(left, [operator], [right])
    else:
        yield test
