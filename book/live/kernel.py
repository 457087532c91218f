"""Python in a page of the book: runs the cells of a chapter in their order, and collects what they print.

It travels with the page and uses nothing but the standard library. What stands in a notebook beside SymPy stands here too:
``display`` and ``Math`` of IPython, and ``glue``, which shows nothing. Packages that do not run in the page can be imported,
and say so when they are used.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import linecache
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

ABSENT = ("gradcampp", "matplotlib", "numpy", "pandas", "scipy", "torch", "torchvision")
SHOWN = ("gradcampp.notebook", "IPython.display")  # made here
Printed = list[list[str]]  # kind, "text" or "latex", and what is printed


class NotInThePageError(Exception):
    """A cell uses a package that does not run in the page."""


class Absent:
    """In the place of a name of a package that is not here: any use of it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        package = self._name.partition(".")[0]
        needs = f"{self._name}, which needs torch" if package == "gradcampp" else package
        raise NotInThePageError(f"{needs}, does not run in the page: run this cell in Jupyter")

    __getattr__ = __call__ = __iter__ = __getitem__ = __len__ = __bool__ = _refuse  # type: ignore[assignment]


def absent(module: str) -> bool:
    """Is this a module that may be missing in the page?"""
    return module not in SHOWN and module.partition(".")[0] in ABSENT


def importing(name: str, *rest: Any) -> Any:
    """The import of the cells: a package that is not here becomes :class:`Absent`; a name that nobody knows, an error."""
    wanted = (rest[2] if len(rest) > 2 else ()) or ()
    try:
        found = builtins.__import__(name, *rest)
    except ModuleNotFoundError:
        if not absent(name):
            raise
        found = Absent(name if wanted else name.partition(".")[0])
        return types.SimpleNamespace(**{each: Absent(f"{name}.{each}") for each in wanted}) if wanted else found
    if absent(name) and any(not hasattr(found, each) for each in wanted):
        return types.SimpleNamespace(**{each: getattr(found, each, Absent(f"{name}.{each}")) for each in wanted})
    return found


class Math:
    """A formula, as in IPython."""

    def __init__(self, data: str) -> None:
        self.data = data

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.data.strip('$')}$"


class Kernel:
    """The cells of one chapter.

    All share one namespace. What it holds after each cell is kept, so that a cell that runs once more starts from what the
    cells before it have left, whatever has run since.
    """

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = {}
        self._after: dict[int, dict[str, Any]] = {}
        self._printed: Printed = []
        shim = types.ModuleType("IPython.display")
        shim.display, shim.Math, shim.Latex, shim.Markdown = self._display, Math, Math, str  # type: ignore[attr-defined]
        notebook = types.ModuleType("gradcampp.notebook")
        notebook.glue = lambda *_: None  # type: ignore[attr-defined]
        notebook.open_run, notebook.open_evidence = Absent("gradcampp.open_run"), Absent("gradcampp.open_evidence")  # type: ignore[attr-defined]
        self._shims = {"IPython": types.ModuleType("IPython"), "IPython.display": shim, "gradcampp.notebook": notebook}

    def run(self, place: int, before: int | None, source: str) -> str:
        """Run a cell.

        Args:
            place: number of the cell in its chapter.
            before: number of the cell whose namespace it starts from; None for an empty one.
            source: what it says.

        Returns:
            JSON: ``printed``, pairs of kind and text, and ``error``, empty where it went well.
        """
        own = dict(vars(builtins)) | {"__import__": importing}
        start = {"__builtins__": own, "__name__": "__main__"} if before is None else self._after[before]
        self._namespace.clear()
        self._namespace.update(start)
        for later in [each for each in self._after if each >= place]:
            del self._after[later]
        self._printed, error = [], ""
        with self._in_place(), contextlib.redirect_stdout(_Out(self._print)):
            try:
                self._execute(f"cell {place}", source)
                self._after[place] = dict(self._namespace)
            except BaseException as raised:  # sys.exit in a cell must not end the page's Python
                error = said(raised, f"cell {place}")
        return json.dumps({"printed": self._printed, "error": error})

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the stand-ins where an import looks, while a cell runs."""
        saved = {name: sys.modules.get(name) for name in self._shims}
        sys.modules.update(self._shims)
        try:
            yield
        finally:
            for name, module in saved.items():
                if module is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module

    def _execute(self, name: str, source: str) -> None:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), self._namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), self._namespace)
            if value is not None:
                self._display(value)

    def _display(self, *values: object) -> None:
        for value in values:
            latex = getattr(value, "_repr_latex_", lambda: None)() if not isinstance(value, (type, Absent)) else None
            self._printed.append(["latex", latex] if latex else ["text", f"{value!r}\n"])

    def _print(self, text: str) -> None:
        self._printed = merged([*self._printed, ["text", text]])


class _Out(io.TextIOBase):
    """A stream that hands on what is written to it."""

    def __init__(self, write: Any) -> None:
        self._hand_on = write

    def write(self, text: str) -> int:
        self._hand_on(text)
        return len(text)


def merged(printed: Iterable[list[str]]) -> Printed:
    """Texts that follow each other as one."""
    joined: Printed = []
    for kind, text in printed:
        if kind == "text" and joined and joined[-1][0] == "text":
            joined[-1] = ["text", joined[-1][1] + text]
        elif text:
            joined.append([kind, text])
    return joined


def said(raised: BaseException, name: str) -> str:
    """What Python says about an exception, from the cell on."""
    if isinstance(raised, NotInThePageError):
        return str(raised)
    found = traceback.TracebackException.from_exception(raised)
    frames = list(found.stack)
    first = next((number for number, frame in enumerate(frames) if frame.filename == name), len(frames))
    found.stack = traceback.StackSummary.from_list(frames[first:])
    return "".join(found.format()).strip()
