"""Do the tests notice a changed sign, index or factor? Every formula is changed, one place at a time.

    python -m tests.mutation [MODULE ...] [--jobs N]

A mutant is a module of gradcampp with one change. Its tests run on it in a forked child, so that PyTorch is imported
once and nothing is written to the source tree; a mutant is killed when one of them fails. The tests of a module are
tests/test_NAME.py, where NAME is the last part of MODULE, and what ``FURTHER_TESTS`` adds. Changed are expressions and
bare calls, everywhere but in docstrings, annotations, decorators, assertions and what is raised.

The score is the killed part of all mutants; those that no test can kill are among the survivors. Exit code 1: a score
below 90 %. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Literal, NamedTuple, NoReturn, TypeVar, get_args

from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("cam", "performance", "algebra.derivation", "shrinkage")
FURTHER_TESTS = {"cam": ("test_cam_maps", "test_variants"), "performance": ("test_variants",)}
REQUIRED = 0.9
SECONDS = 60  # that the tests of a mutant may take, or five times what they take unchanged if that is more
BYTES = 8 * 2**30  # that a mutant may allocate
# Imported once by the parent; not gradcampp, of which every child imports its own.
PRELOADED = ("hypothesis.extra.numpy", "pandas", "pytorch_grad_cam", "scipy.stats", "sympy", "torchvision", "tqdm")


class Refused(Exception):  # noqa: N818
    """One line that says why nothing can be judged."""


# What is changed

Node = TypeVar("Node", bound=ast.AST)

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPPOSITES = [
    ("mean", "sum"),
    ("min", "max"),
    ("amin", "amax"),
    ("fmin", "fmax"),
    ("minimum", "maximum"),
    ("Min", "Max"),
    ("all", "any"),
    ("Sum", "Product"),
]
RENAMED = dict([*OPPOSITES, *((second, first) for first, second in OPPOSITES)])
NOT_BUILT_IN = {"mean", "sum"}  # sum(...) has no opposite of its kind, x.sum() has
DROPPED = {"relu", "abs", "Abs", "clamp", "exp", "log", "sqrt", "square"}
EXTREMES = {"Max", "Min", "fmax", "fmin", "max", "maximum", "min", "minimum"}
DERIVATIVES = {"diff", "Derivative"}
SYMMETRIC = EXTREMES | DERIVATIVES | {"Add", "Eq", "Mul", "isclose"}
SUMS = {"Sum", "Product", "summation", "product"}
NUMBERS = SUMS | EXTREMES | {"Add", "Derivative", "Mul", "Pow", "Rational", "abs", "float", "int", "sum"}
NOT_SWAPPED = SYMMETRIC | {"filter", "getattr", "isinstance", "map", "partial", "reduce"}

UNCHANGED_NODES = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)
UNCHANGED_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
# zip(strict=True) is an assertion, and the others are what SymPy is told about symbols and when to work.
UNCHANGED_KEYWORDS = {"deep", "evaluate", "integer", "negative", "nonnegative", "positive", "real", "strict"}
TYPE_NAME = re.compile(r"[A-Z][a-z]\w*")


def changed(node: Node, **fields: object) -> Node:
    """A copy with other fields."""
    result = copy.copy(node)
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def replaced(items: Sequence[ast.expr], index: int, *new: ast.expr) -> list[ast.expr]:
    """The list with the item at an index replaced by any number of others."""
    return [*items[:index], *new, *items[index + 1 :]]


def name_of(function: ast.expr) -> str:
    """``relu`` for ``x.relu`` and for ``relu``."""
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def is_integer(node: ast.AST) -> bool:
    """A literal, with or without a minus."""
    operand = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(operand, ast.Constant) and type(operand.value) is int


def is_dimensions(node: ast.AST) -> bool:
    return isinstance(node, ast.Tuple) and len(node.elts) > 1 and all(map(is_integer, node.elts))


def is_number(node: ast.expr) -> bool:
    """Something that a minus could stand before: an operation, ``x.sum()`` or ``float(x)``; not an object or a list."""
    if isinstance(node, ast.Call):
        name = name_of(node.func)
        return name in NUMBERS or (isinstance(node.func, ast.Attribute) and not name[:1].isupper())
    return isinstance(node, ast.BinOp)


def swaps(node: ast.Call) -> Iterator[tuple[int, int]]:
    """Neighbouring arguments that could be mistaken for each other."""
    name = name_of(node.func)
    if name in NOT_SWAPPED:
        return
    other_kinds = (ast.Tuple, ast.List, ast.Starred, ast.Lambda, ast.GeneratorExp)
    for index in range(name == "where", len(node.args) - 1):  # the condition is neither of the two values
        pair = node.args[index : index + 2]
        if not any(isinstance(each, other_kinds) or isinstance(getattr(each, "value", None), str) for each in pair):
            yield index, index + 1


def exchanged(items: Sequence[ast.expr], first: int, second: int) -> list[ast.expr]:
    result = list(items)
    result[first], result[second] = items[second], items[first]
    return result


def plus_one(node: ast.expr) -> ast.expr:
    return ast.BinOp(node, ast.Add(), ast.Constant(1))


def of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value / 2 if 0 < value < 1 else value + 1)
    elif isinstance(value, str) and re.fullmatch(r"[a-z]+(,[a-z]+)*->[a-z]{2,}", value):  # einsum
        yield ast.Constant(value[:-2] + value[-1] + value[-2])


def of_call(node: ast.Call) -> Iterator[ast.AST]:
    name, function = name_of(node.func), node.func
    if name in DROPPED:
        if len(node.args) == 1:
            yield node.args[0]
        elif not node.args and isinstance(function, ast.Attribute):
            yield function.value
    if name in RENAMED and isinstance(function, ast.Attribute):
        yield changed(node, func=changed(function, attr=RENAMED[name]))
    elif name in RENAMED and isinstance(function, ast.Name) and name not in NOT_BUILT_IN:
        yield changed(node, func=changed(function, id=RENAMED[name]))
    if name in EXTREMES and len(node.args) == 2:
        yield from node.args
    for first, second in swaps(node):
        yield changed(node, args=exchanged(node.args, first, second))
    for index, argument in enumerate(node.args):
        if is_dimensions(argument) and isinstance(argument, ast.Tuple):
            for left_out in range(len(argument.elts)):
                yield changed(node, args=replaced(node.args, index, changed(argument, elts=replaced(argument.elts, left_out))))
        if name in SUMS and isinstance(argument, ast.Tuple):
            for bound in range(1, len(argument.elts)):
                if not is_integer(argument.elts[bound]):  # of_constant does those
                    limits = replaced(argument.elts, bound, plus_one(argument.elts[bound]))
                    yield changed(node, args=replaced(node.args, index, changed(argument, elts=limits)))
        if name in DERIVATIVES and isinstance(argument, ast.Tuple) and is_integer(argument.elts[-1]):
            order = ast.Constant(ast.literal_eval(argument.elts[-1]) - 1)
            yield changed(node, args=replaced(node.args, index, changed(argument, elts=[*argument.elts[:-1], order])))
        if name in DERIVATIVES and isinstance(argument, ast.Constant) and type(argument.value) is int:
            yield changed(node, args=replaced(node.args, index, ast.Constant(argument.value - 1)))
    if name in DERIVATIVES and len(node.args) > 1:
        yield changed(node, args=node.args[:-1])
    if name == "Add" and len(node.args) > 1:
        for index in range(len(node.args)):
            yield changed(node, args=replaced(node.args, index))


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that may stand in the place of a node, one change each."""
    match node:
        case ast.Constant():
            yield from of_constant(node)
        case ast.Call():
            yield from of_call(node)
        case ast.BinOp(left, operator, right):
            if type(operator) in OPERATORS:
                yield changed(node, op=OPERATORS[type(operator)]())
            yield left
            if not isinstance(operator, ast.Div | ast.Pow):
                yield right
        case ast.Compare(ops=operators):
            for index, comparison in enumerate(operators):
                for other in COMPARISONS[type(comparison)]:
                    yield changed(node, ops=[*operators[:index], other(), *operators[index + 1 :]])
        case ast.BoolOp(operator):
            yield changed(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield operand
        case ast.IfExp(_, body, orelse):
            yield changed(node, body=orelse, orelse=body)
        case ast.Subscript(slice=ast.Tuple(indices) as slices):
            for first in range(len(indices) - 1):
                if not any(isinstance(each, ast.Slice | ast.Constant) for each in indices[first : first + 2]):
                    yield changed(node, slice=changed(slices, elts=exchanged(indices, first, first + 1)))
        case ast.AugAssign(_, ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as operator, _):
            yield changed(node, op=OPERATORS[type(operator)]())
        case ast.Assign(value=value) | ast.Return(value=ast.expr() as value) if is_number(value):
            yield changed(node, value=ast.UnaryOp(ast.USub(), value))
        case ast.Expr(ast.Call()):
            yield ast.Pass()


Put = Callable[[ast.AST], None]


def is_type_alias(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and TYPE_NAME.fullmatch(name_of(node.targets[0])) is not None


def places(parent: ast.AST) -> Iterator[tuple[ast.AST, Put]]:
    """Every node that may be changed, with the function that puts another in its place."""
    for field, value in ast.iter_fields(parent):
        if field in UNCHANGED_FIELDS:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, UNCHANGED_NODES) or is_type_alias(child):
                continue
            if isinstance(child, ast.keyword) and child.arg in UNCHANGED_KEYWORDS:
                continue

            def put(new: ast.AST, value: object = value, index: int = index, field: str = field) -> None:
                if isinstance(value, list):
                    value[index] = new
                else:
                    setattr(parent, field, new)

            yield child, put
            if not (isinstance(parent, ast.Call) and is_dimensions(child)):  # of_call shortens (2, 3); (3, 3) is just an error
                yield from places(child)


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        line: of the original source, 1-based.
        before, after: the changed line, as ``ast.unparse`` writes it.
        source: of the whole mutant.
    """

    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """All different mutants of a module, in the order of its source."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    found: dict[str, Mutant] = {}
    for node, put in places(tree):
        for new in replacements(node):
            put(new)
            text = ast.unparse(tree)
            put(node)
            pairs = zip(original.splitlines(), text.splitlines(), strict=True)
            different = [(first.strip(), second.strip()) for first, second in pairs if first != second]
            if different:
                (pair,) = different
                found.setdefault(text, Mutant(node.lineno, *pair, text))  # type: ignore[attr-defined]
    return sorted(found.values(), key=lambda mutant: mutant.line)


# How a mutant is judged


class Target(NamedTuple):
    """A module to be changed, and the test files that have to notice."""

    name: str  # as it is imported
    path: Path
    tests: tuple[Path, ...]


def target(module: str) -> Target:
    """A module of gradcampp by its name there."""
    path = ROOT.joinpath("src", "gradcampp", *module.split(".")).with_suffix(".py")
    own = f"test_{module.rpartition('.')[2]}"
    tests = tuple(ROOT / "tests" / f"{name}.py" for name in (own, *FURTHER_TESTS.get(module, ())))
    for needed in (path, *tests):
        if not needed.is_file():
            raise Refused(f"{module}: no file {needed.relative_to(ROOT)}")
    return Target(f"gradcampp.{module}", path, tests)


class Loader(importlib.abc.Loader):
    """Runs other code in the place of a module, and remembers whether it was asked to."""

    def __init__(self, code: CodeType) -> None:
        self.code, self.used = code, False

    def exec_module(self, module: ModuleType) -> None:
        self.used = True
        exec(self.code, module.__dict__)


class Finder(importlib.abc.MetaPathFinder):
    """Knows one module only."""

    def __init__(self, target: Target, loader: Loader) -> None:
        self.target, self.loader = target, loader

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.target.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.target.path, loader=self.loader)


def preload(names: Sequence[str] = PRELOADED) -> None:
    """Prepares this process: what every child needs is imported, and hypothesis tries the same examples each time."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork, and other mutants have the other cores
    tqdm.monitor_interval = 0  # no thread
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    import hypothesis
    import pytest  # noqa: F401

    # A failing example is all we want to know, so it is not made smaller.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", deadline=None, derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutation")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            importlib.import_module(name)


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: in the hooks that run around a fork Python would lose it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def run_child(target: Target, source: str, limit: float, log: Path) -> NoReturn:
    """In a child of its own: the tests of a target on other source; never returns."""
    import pytest

    code: int = pytest.ExitCode.INTERNAL_ERROR
    with contextlib.suppress(BaseException):
        os.setsid()  # Ctrl-C is for the parent, and its end of this group reaches processes that a test has started
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.setitimer(signal.ITIMER_REAL, limit)  # SIGALRM ends this process, whatever it is doing
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream, descriptor in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(descriptor, stream)
        loader = Loader(compile(source, target.path, "exec"))
        sys.meta_path.insert(0, Finder(target, loader))
        code = pytest.main(["-x", "-q", "--tb=short", "-p", "no:cacheprovider", *map(str, target.tests)])
        if not loader.used:
            os.write(output, f"its tests never import {target.name}\n".encode())
            code = pytest.ExitCode.NO_TESTS_COLLECTED
    os._exit(code)


Outcome = Literal["killed", "timed out", "survived"]


class Verdict(NamedTuple):
    """What became of the source with this number, and what pytest printed about it."""

    number: int
    outcome: Outcome
    output: str


def outcome(status: int) -> Outcome:
    """What the end of a child says; as the tests pass unchanged, whatever else goes wrong is due to the change."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return "timed out"
    return "killed" if status else "survived"


def judge(target: Target, sources: Sequence[str], jobs: int, limit: float) -> Generator[Verdict, None, None]:
    """The verdicts as they come; no child is left when the iteration ends."""
    running: dict[int, int] = {}  # process: number
    waiting = iter(range(len(sources)))
    with tempfile.TemporaryDirectory() as folder:

        def log(number: int) -> Path:
            return Path(folder) / f"{number}.log"

        def start(count: int) -> None:
            for number in itertools.islice(waiting, count):
                with interrupts_later():
                    if (process := os.fork()) == 0:
                        run_child(target, sources[number], limit, log(number))
                    running[process] = number

        try:
            start(jobs)
            while running:
                for process in list(running):
                    ended, status = os.waitpid(process, os.WNOHANG)
                    if ended:
                        number = running.pop(process)
                        yield Verdict(number, outcome(status), log(number).read_text("utf-8", "replace"))
                        start(1)
                time.sleep(0.01)
        finally:
            for process in running:
                with contextlib.suppress(ProcessLookupError):  # a child without a group yet ends at its time limit
                    os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)


def seconds_unchanged(target: Target) -> float:
    """What the tests take without a change; they have to pass."""
    start = time.monotonic()
    (verdict,) = judge(target, [ast.unparse(ast.parse(target.path.read_text("utf-8")))], jobs=1, limit=1800)
    if verdict.outcome != "survived":
        raise Refused(f"{target.name}: its tests do not pass without a change ({verdict.outcome}):\n{verdict.output[-2000:]}")
    return time.monotonic() - start


@dataclass
class Judged:
    """The mutants of a target, and what became of those tried so far."""

    target: Target
    mutants: list[Mutant]
    outcomes: dict[Mutant, Outcome]

    def having(self, *wanted: Outcome) -> list[Mutant]:
        """The mutants with an outcome, in the order of the source."""
        return [mutant for mutant in self.mutants if self.outcomes.get(mutant) in wanted]

    @property
    def score(self) -> float:
        """The killed part of the mutants that were judged."""
        killed, survived = len(self.having("killed", "timed out")), len(self.having("survived"))
        return killed / (killed + survived) if killed + survived else 1.0


def begin(target: Target) -> Judged:
    return Judged(target, mutants(target.path.read_text("utf-8")), {})


def judge_all(judged: Judged, jobs: int, limit: float | None = None) -> None:
    """Fills in the outcomes, one by one."""
    limit = limit or max(SECONDS, 5 * seconds_unchanged(judged.target))
    sources, name = [mutant.source for mutant in judged.mutants], judged.target.name
    with contextlib.closing(judge(judged.target, sources, jobs, limit)) as verdicts:
        for verdict in tqdm(verdicts, name, len(sources), unit="mutant", disable=None, leave=False):
            judged.outcomes[judged.mutants[verdict.number]] = verdict.outcome


def report(results: Sequence[Judged]) -> str:
    """The table, then every survivor."""
    columns = ["module", "mutants", "killed", "timed out", "survived", "score"]
    rows = [
        [
            judged.target.name,
            len(judged.outcomes),
            *(len(judged.having(outcome)) for outcome in get_args(Outcome)),
            f"{judged.score:.1%}",
        ]
        for judged in results
    ]
    survivors = [
        f"{judged.target.path.name}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}"
        for judged in results
        for mutant in judged.having("survived")
    ]
    return "\n".join([tabulate(rows, columns), *survivors])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Do the tests notice a changed formula?")
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=MODULES, help=f"default: {' '.join(MODULES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once (default: one per core)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs: expected a positive number, got {options.jobs}")
    results: list[Judged] = []
    interrupted = False
    try:
        targets = [target(module) for module in options.modules]
        preload()
        for each in targets:
            results.append(begin(each))
            judge_all(results[-1], options.jobs)
    except Refused as error:
        print(f"mutation: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        interrupted = True
    print(report(results))
    if interrupted:
        print("interrupted: these are the mutants judged so far")
        return 130
    print(json.dumps({"scores": {judged.target.name: round(judged.score, 4) for judged in results}, "required": REQUIRED}))
    return 1 if any(judged.score < REQUIRED for judged in results) else 0


if __name__ == "__main__":
    sys.exit(main())
