"""What the code of notebooks and tests uses, read without running it: what draws a figure, which test calls a function."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "gradcampp"


def imports(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: ``{"panels": "gradcampp.results.figures.comparison"}``."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names if alias.asname}
            found |= {(head := alias.name.partition(".")[0]): head for alias in node.names if not alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.AST) -> str:
    """``cam.weights`` for the expression of that name; nothing for any other."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def used(node: ast.AST, names: Mapping[str, str]) -> set[str]:
    """Everything of this package that a piece of code names, by the place where it is defined."""
    found = set()
    for each in ast.walk(node):
        head, _, rest = dotted(each).partition(".")
        full = ".".join(filter(None, [names.get(head, ""), rest]))
        if full.startswith(f"{PACKAGE}."):
            found.add(defined(full))
    return found


def defined(name: str) -> str:
    """Where a function or class is defined: ``gradcampp.weights`` is ``gradcampp.cam.weights``. Other names stay."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part, None)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            return f"{thing.__module__}.{thing.__qualname__}"
        return name
    return name


@dataclass(frozen=True)
class Glued:
    """What a notebook shows under a label: by which function of the package, and from which of its openers."""

    function: str  # such as gradcampp.results.figures.one_image.pipeline; empty where a notebook does it by itself
    openers: frozenset[str]  # of gradcampp.notebook, such as open_photographs
    names: tuple[str, ...]  # of the photographs that are opened


def glued(notebook: Mapping[str, Any], labels: Iterable[str]) -> dict[str, Glued]:
    """What stands behind the labels that a notebook glues; those that it does not are left out."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    tree = ast.parse("\n".join(re.sub(r"^(\s*)%.*", r"\1pass", text, flags=re.MULTILINE) for text in code))
    found, wanted = {}, set(labels)
    for place, statement in enumerate(tree.body):
        constants = {node.value for node in ast.walk(statement) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        for label in sorted(wanted & constants):
            for call in _glue_calls(statement):
                first = call.args[0]
                if not isinstance(first, ast.Constant) or first.value == label:
                    found[label] = _behind(call.args[1], tree.body[: place + 1], imports(tree))
    return found


def _glue_calls(statement: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and dotted(node.func) == "glue" and len(node.args) > 1:
            yield node


def _behind(value: ast.AST, before: list[ast.stmt], names: Mapping[str, str]) -> Glued:
    """The function that makes a value, and all that the statements before need for it."""
    function = _function(value, before, names)
    needed, wanted = [value], _loaded(value)
    for statement in reversed(before):
        if stored := wanted & _stored(statement):
            needed.append(statement)
            simple = isinstance(statement, ast.Assign | ast.AugAssign)
            wanted = (wanted - stored) | (_loaded(statement) - (set() if simple else _stored(statement)))
    calls = [call for node in needed for call in ast.walk(node) if isinstance(call, ast.Call)]
    opened = [call for call in calls if names.get(dotted(call.func), "").startswith(f"{PACKAGE}.notebook.open_")]
    constants = [node.value for call in opened for node in ast.walk(call) if isinstance(node, ast.Constant)]
    words = tuple(dict.fromkeys(word for each in constants if isinstance(each, str) for word in each.split("|")))
    return Glued(function, frozenset(dotted(call.func) for call in opened), words)


def _function(value: ast.AST, before: list[ast.stmt], names: Mapping[str, str]) -> str:
    """The function of the package in whose result a value begins, through variables, items and methods."""
    if isinstance(value, ast.Call):
        full = used(value.func, names)
        return max(full, key=len) if full else _function(value.func, before, names)
    if isinstance(value, ast.Subscript | ast.Attribute | ast.Starred):
        return _function(value.value, before, names)
    if isinstance(value, ast.Name):
        for place in range(len(before) - 1, -1, -1):
            statement = before[place]
            if isinstance(statement, ast.Assign) and value.id in _stored(statement):
                return _function(statement.value, before[:place], names)
    return ""


def _loaded(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def _stored(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}


def tests_of(folder: Path) -> dict[str, list[str]]:
    """The tests that use each function of the package, by themselves or through a helper of their file.

    Args:
        folder: of the tests.

    Returns:
        By full name of the function, such as ``gradcampp.cam.weights``, the tests as pytest takes them.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        names = imports(tree)
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        own = {name: used(node, names) for name, node in functions.items()}
        for test in functions:
            if test.startswith("test_"):
                for function in sorted(set().union(*(own[name] for name in _reached(test, functions)))):
                    found.setdefault(function, []).append(f"{folder.name}/{path.name}::{test}")
    return found


def _reached(start: str, functions: Mapping[str, ast.FunctionDef]) -> set[str]:
    """The functions of a file that one of them calls or, as a fixture, asks for, directly or not; itself too."""
    found, waiting = {start}, [start]
    while waiting:
        node = functions[waiting.pop()]
        asked = _loaded(node) | {argument.arg for argument in node.args.args}
        waiting += [name for name in asked & set(functions) if name not in found]
        found |= asked & set(functions)
    return found


def cells(path: Path) -> dict[str, Any]:
    """A notebook file."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
