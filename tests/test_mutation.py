"""The script that judges the tests: which mutants it makes, and that it tells good tests from bad ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutation
from tests.conftest import ROOT
from tests.mutation import Judged, Mutant, Target

HALF = '''
def half(low, high):
    """Half the length of an interval."""
    return (high - low) / 2
'''
HALF_MUTANTS = [
    "return -((high - low) / 2)",
    "return (high - low) * 2",
    "return high - low",
    "return (high + low) / 2",
    "return high / 2",
    "return low / 2",
    "return (high - low) / 3",
]
COUNT = """
def count(n):
    total = 0
    while n > 0:
        n -= 1
        total += 1
    return total
"""


def changes(*lines: str) -> list[str]:
    """What becomes of the last line."""
    return [mutant.after for mutant in mutation.mutants("\n".join(lines)) if mutant.line == len(lines)]


def in_a_new_process(folder: Path, source: str, tests: str, statements: str) -> str:
    """Runs statements with a ``target`` of that source and those tests; forks there, away from PyTorch's threads."""
    (folder / "toy.py").write_text(source, "utf-8")
    (folder / "test_toy.py").write_text(tests, "utf-8")
    script = f"""
import signal
from pathlib import Path
from tests.mutation import *
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would this
preload(())
target = Target("toy", Path("toy.py"), (Path("test_toy.py"),))
{statements}
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_mutants_of_a_short_function() -> None:
    found = mutation.mutants(HALF)
    assert {mutant.after for mutant in found} == set(HALF_MUTANTS)
    assert {(mutant.line, mutant.before) for mutant in found} == {(4, "return (high - low) / 2")}
    assert all(mutant.after in mutant.source and compile(mutant.source, "", "exec") for mutant in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("w = g.relu()", ["w = -g.relu()", "w = g"]),
        ("w = torch.exp(x)", ["w = -torch.exp(x)", "w = x"]),
        ("w: float = g.mean((2, 3))", ["w: float = g.sum((2, 3))", "w: float = g.mean((3,))", "w: float = g.mean((2,))"]),
        ("f(g, keepdim=True)", ["pass", "f(g, keepdim=False)"]),
        ("w = [where(g != 0, a, b)]", ["w = [where(g != 0, b, a)]", "w = [where(g == 0, a, b)]", "w = [where(g != 1, a, b)]"]),
        ("w = 0 < -x <= y or z", [f"w = {text}" for text in ("0 < -x <= y and z", "0 <= -x <= y or z", "0 >= -x <= y or z",
            "0 < -x < y or z", "0 < -x > y or z", "1 < -x <= y or z", "0 < x <= y or z")]),
        ("w = a[k, i, j]", ["w = a[i, k, j]", "w = a[k, j, i]"]),
        ("w = a[:, i], 1.0, 0.5", ["w = (a[:, i], 2.0, 0.5)", "w = (a[:, i], 1.0, 0.25)"]),
        ("w = [max(x, 0)]", ["w = [min(x, 0)]", "w = [x]", "w = [0]", "w = [max(x, 1)]"]),
        ("w = [x if relu else y]", ["w = [y if relu else x]"]),
        ("w = [einsum('bk,bkhw->bhw', w, a)]", ["w = [einsum('bk,bkhw->bhw', a, w)]", "w = [einsum('bk,bkhw->bwh', w, a)]"]),
        ("total += x", ["total -= x"]),
        ("w = [Y.diff(a, 2)]", ["w = [Y.diff(a, 1)]", "w = [Y.diff(a)]", "w = [Y.diff(a, 3)]"]),
        ("w = [Derivative(Y, (a, 3))]", ["w = [Derivative(Y, (a, 2))]", "w = [Derivative(Y)]", "w = [Derivative(Y, (a, 4))]"]),
        ("w = [Sum(t, (i, 1, H))]", ["w = [Product(t, (i, 1, H))]", "w = [Sum(t, (i, 1, H + 1))]", "w = [Sum(t, (i, 2, H))]"]),
        ("w = [Add(x, y)]", ["w = [Add(y)]", "w = [Add(x)]"]),
    ],
)  # fmt: skip
def test_the_mutants_of_a_line(line: str, expected: list[str]) -> None:
    assert sorted(changes(line)) == sorted(expected)


@pytest.mark.parametrize(
    "line",
    [
        '"""Docstring with 1 + 1."""',
        "x: Literal[1, 2]",
        "raise ValueError(1 + len(x))",
        "assert n == 1",
        "@dataclass(frozen=True)\nclass A: pass",
        "w = f'{1 + 1}'",
        "w = [zip(a, strict=True)]",
        "Scores = dict[str, int] | dict[int, str]",
        "from a import b",
    ],
)
def test_text_types_and_assertions_are_left_alone(line: str) -> None:
    assert changes(line) == []


def test_the_mutants_of_gradcampp_differ_and_their_source_is_python() -> None:
    for module in mutation.MODULES:
        found = mutation.mutants(mutation.target(module).path.read_text("utf-8"))
        assert len(found) > 50
        assert len({mutant.source for mutant in found}) == len(found)
        for mutant in found:
            compile(mutant.source, module, "exec")


@pytest.mark.parametrize(
    ("test", "survivors"),
    [
        ("half(0, 4) == 2", {"return (high + low) / 2", "return high / 2"}),
        ("half(1, 5) == 2", set()),
        ("half(0, 0) == 0", set(HALF_MUTANTS)),
    ],
)
def test_a_weak_test_lets_mutants_survive_and_a_good_one_does_not(tmp_path: Path, test: str, survivors: set[str]) -> None:
    statements = """
judged = begin(target)
judge_all(judged, jobs=3)
print(json.dumps([mutant.after for mutant in judged.having("survived")]))
"""
    tests = f"from toy import half\n\ndef test_half():\n    assert {test}\n"
    assert set(json.loads(in_a_new_process(tmp_path, HALF, tests, statements))) == survivors


def test_an_endless_loop_times_out_and_leaves_no_process(tmp_path: Path) -> None:
    statements = """
import os
judged = begin(target)
sources = [mutant.source for mutant in judged.mutants if mutant.after == "n += 1"]
print([verdict.outcome for verdict in judge(target, sources, jobs=2, limit=1)])
verdicts = judge(target, [target.path.read_text(), *sources], jobs=2, limit=60)
print(next(verdicts).outcome)
verdicts.close()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none left")
"""
    tests = "from toy import count\n\ndef test_count():\n    assert count(3) == 3\n"
    assert in_a_new_process(tmp_path, COUNT, tests, statements).splitlines() == ["['timed out']", "survived", "none left"]


def test_an_interrupt_ends_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    statements = """
import os, signal, threading
sources = [mutant.source for mutant in begin(target).mutants if mutant.after == "n += 1"]
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    list(judge(target, sources * 100, jobs=2, limit=60))
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none left")
"""
    tests = "from toy import count\n\ndef test_count():\n    assert count(3) == 3\n"
    assert in_a_new_process(tmp_path, COUNT, tests, statements).splitlines() == ["interrupted", "none left"]


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("from toy import half\n\ndef test_half():\n    assert half(0, 4) == 3\n", "do not pass without a change"),
        ("def test_nothing():\n    pass\n", "never import toy"),
    ],
)
def test_tests_that_fail_or_never_see_the_module_judge_nothing(tmp_path: Path, tests: str, reason: str) -> None:
    statements = """
try:
    judge_all(begin(target), jobs=1)
except Refused as error:
    print(error)
"""
    assert reason in in_a_new_process(tmp_path, HALF, tests, statements)


def judged(*outcomes: mutation.Outcome) -> Judged:
    """Mutants named 0, 1, 2, ... with these outcomes."""
    mutants = [Mutant(number, "before", str(number), "") for number in range(len(outcomes))]
    return Judged(Target("toy", Path("toy.py"), ()), mutants, dict(zip(mutants, outcomes, strict=True)))


def test_the_score_counts_what_was_killed_or_took_too_long() -> None:
    result = judged("killed", "timed out", "survived")
    assert result.score == 2 / 3
    lines = mutation.report([result]).splitlines()
    assert lines[2].split() == ["toy", "3", "1", "1", "1", "66.7%"]
    assert lines[3:] == ["toy.py:2", "  - before", "  + 2"]


def test_an_unknown_module_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutation.main(["nothing"]) == 2
    assert capsys.readouterr().err == "mutation: nothing: no file src/gradcampp/nothing.py\n"


@pytest.mark.parametrize(("survivors", "code"), [(1, 0), (2, 1)])
def test_the_exit_code_is_1_below_90_percent(
    survivors: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: list[mutation.Outcome] = ["killed"] * (10 - survivors) + ["survived"] * survivors  # type: ignore[assignment]
    monkeypatch.setattr(mutation, "begin", lambda _: judged(*outcomes))
    monkeypatch.setattr(mutation, "preload", lambda: None)
    monkeypatch.setattr(mutation, "judge_all", lambda *_: None)
    assert mutation.main(["cam"]) == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"scores": {"toy": 1 - survivors / 10}, "required": 0.9}


def test_ctrl_c_shows_what_was_judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mutation, "begin", lambda _: judged("killed", "survived"))
    monkeypatch.setattr(mutation, "preload", lambda: None)
    monkeypatch.setattr(mutation, "judge_all", interrupt)
    assert mutation.main(["cam"]) == 130
    printed = capsys.readouterr().out
    assert "50.0%" in printed
    assert printed.splitlines()[-1].startswith("interrupted")
