"""Python in a page of the book: runs the cells of a chapter in their order, and collects what they print.

It travels with the page and uses nothing but the standard library. What stands in a notebook beside SymPy stands here too:
``display`` and ``Math`` of IPython, pandas' ``DataFrame`` as far as a table needs it, and ``glue``, which shows tables and no
other value. Packages that do not run in the page can be imported, and say so when they are used.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import linecache
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

ABSENT = ("gradcampp", "matplotlib", "numpy", "pandas", "scipy", "torch", "torchvision")
HERE = ("gradcampp.notebook", "pandas")  # of those, made here as far as the chapters need them
Printed = list[list[str]]  # kind, "text", "latex" or "table", and what is printed


class NotInThePageError(Exception):
    """A cell uses a package that does not run in the page."""


class Absent:
    """In the place of a name of a package that is not here: any use of it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    @classmethod
    def of(cls, module: str) -> Callable[[str], Absent]:
        """What a module gives for a name that it has not; Python itself asks modules for names with underscores."""

        def missing(name: str) -> Absent:
            if name.startswith("__"):
                raise AttributeError(name)
            return cls(f"{module}.{name}")

        return missing

    def __getattr__(self, name: str) -> Absent:
        return Absent.of(self._name)(name)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        package = self._name.partition(".")[0]
        named = f"{self._name}, which needs torch," if package == "gradcampp" else package
        raise NotInThePageError(f"{named} does not run in the page: run this cell in Jupyter")

    __call__ = __iter__ = __getitem__ = __len__ = __bool__ = __repr__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse


def absent(module: str) -> bool:
    """Is this a module that may be missing in the page?"""
    return module not in HERE and module.partition(".")[0] in ABSENT


def importing(made: Mapping[str, types.ModuleType]) -> Callable[..., Any]:
    """The import of the cells: what is made here comes first; a package that is not in the page becomes :class:`Absent`."""

    def find(name: str, *rest: Any) -> Any:
        wanted = (rest[2] if len(rest) > 2 else ()) or ()
        if name in made:
            return made[name] if wanted or "." not in name else made[name.partition(".")[0]]
        found = None
        if name.partition(".")[0] not in ABSENT[1:]:
            try:
                found = builtins.__import__(name, *rest)
            except ModuleNotFoundError:
                if not absent(name):
                    raise
        if not absent(name) or (found is not None and all(hasattr(found, each) for each in wanted)):
            return found
        if not wanted:
            return found or Absent(name.partition(".")[0])
        return types.SimpleNamespace(**{each: getattr(found, each, Absent(f"{name}.{each}")) for each in wanted})

    return find


class Math:
    """A formula, as in IPython."""

    def __init__(self, data: str) -> None:
        self.data = data

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.data.strip('$')}$"


class Table:
    """Rows with the names of their columns, as pandas' DataFrame takes them."""

    def __init__(self, rows: Sequence[Any], columns: Sequence[str] = ()) -> None:
        self._columns = list(columns or rows[0])
        self._rows = [[row[name] for name in self._columns] if isinstance(row, dict) else list(row) for row in rows]

    def text(self, form: str) -> str:
        """Lines of cells, as ``gradcampp.notebook.glue`` prints them."""
        cells = [self._columns, *([format(each, form if isinstance(each, float) else "") for each in row] for row in self._rows)]
        return "\n".join(" | ".join(each.replace("|", "\\|").replace("\n", " ") for each in row) for row in cells)


class Kernel:
    """The cells of one chapter.

    All share one namespace. What it holds after each cell is kept, so that a cell that runs once more starts from what the
    cells before it have left, whatever has run since.
    """

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = {}
        self._after: dict[int, dict[str, Any]] = {}
        self._printed: Printed = []
        made = {name: types.ModuleType(name) for name in ("IPython", "IPython.display", "gradcampp.notebook", "pandas")}
        vars(made["IPython"])["display"] = made["IPython.display"]
        vars(made["IPython.display"]).update(display=self._display, Math=Math, Latex=Math)
        vars(made["gradcampp.notebook"])["glue"] = self._glue
        vars(made["pandas"])["DataFrame"] = Table
        for module in (made[name] for name in HERE):
            vars(module)["__getattr__"] = Absent.of(module.__name__)
        self._builtins = dict(vars(builtins)) | {"__import__": importing(made)}

    def run(self, place: int, before: int | None, source: str) -> str:
        """Run a cell.

        Args:
            place: number of the cell in its chapter.
            before: number of the cell whose namespace it starts from; None for an empty one.
            source: what it says.

        Returns:
            JSON: ``printed``, pairs of kind and text, and ``error``, empty where it went well.
        """
        printed, error = self._run(f"cell {place}", before, source)
        if not error:
            self._after[place] = dict(self._namespace)
        return json.dumps({"printed": printed, "error": error})

    def check(self, before: int | None, source: str, asked: str, conditions: str) -> str:
        """Check an answer to an exercise; it leaves nothing behind.

        Args:
            before: number of the cell whose namespace the answer starts from.
            source: the answer.
            asked: JSON, the names that it has to define.
            conditions: JSON, pairs: an expression that has to be true then, from the assertions that test the solution; and
                whether meeting it alone is nearly right.

        Returns:
            JSON: ``printed`` and ``error`` as for a cell, and ``verdict``: ``open`` where nothing is answered yet, ``right``,
            ``nearly`` where one of those is met, or ``wrong``.
        """
        printed, error = self._run("the answer", before, source)
        if error:
            return json.dumps({"printed": printed, "error": error, "verdict": "wrong"})
        bodies = {name: f"write the body of {name}" for name in stubs(source)}
        values = {name: f"give a value to {name}" for name in json.loads(asked) if self._namespace.get(name, ...) is ...}
        missing = [(values | bodies)[name] for name in json.loads(asked) if name in values | bodies]
        if missing:
            return json.dumps({"printed": printed, "error": "; ".join(missing), "verdict": "open"})
        met = [(self._holds(condition), counts) for condition, counts in json.loads(conditions)]
        verdict = "right" if all(holds for holds, _ in met) else "nearly" if (True, True) in met else "wrong"
        return json.dumps({"printed": printed, "error": "", "verdict": verdict})

    def _holds(self, condition: str) -> bool:
        try:
            return bool(eval(condition, self._namespace))
        except Exception:  # a value of another kind does not meet it
            return False

    def _run(self, name: str, before: int | None, source: str) -> tuple[Printed, str]:
        start = {"__builtins__": self._builtins, "__name__": "__main__"} if before is None else self._after[before]
        self._namespace.clear()
        self._namespace.update(start)
        self._printed, error = [], ""
        with contextlib.redirect_stdout(_Out(self._print)):
            try:
                self._execute(name, source)
            except BaseException as raised:  # sys.exit in a cell must not end the page's Python
                error = said(raised, name)
        return self._printed, error

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

    def _glue(self, _: str, value: object, form: str = "") -> None:
        if isinstance(value, Table):
            self._printed.append(["table", value.text(form)])

    def _print(self, text: str) -> None:
        self._printed = merged([*self._printed, ["text", text]])


def stubs(source: str) -> set[str]:
    """The names that a source leaves to functions that do nothing: a docstring, ``...`` or ``pass`` is all that they have."""
    found = set[str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found = found | {node.name} if all(_idle(line) for line in node.body) else found - {node.name}
        else:
            found -= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return found


def _idle(line: ast.stmt) -> bool:
    return isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))


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
