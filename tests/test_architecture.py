"""The layering of the package, and the promises of its configuration files."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import operator
import re
import subprocess
import tomllib

import pytest

from gradcampp import paper
from tests.conftest import ROOT


def test_the_mathematics_hides_nothing() -> None:
    for name in ("cam", "performance", "evaluation/alphas"):
        text = (ROOT / "src" / "gradcampp" / f"{name}.py").read_text("utf-8")
        assert not re.search(r"torchvision|nn\.Module|eps\b|1e-\d+\)|nansum|nan_to_num", text), name


def test_every_level_of_the_import_contract_is_a_module_and_every_module_has_a_level() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    levels = [name.strip() for level in contract["layers"] for name in level.split("|")]
    package = ROOT / "src" / "gradcampp"
    modules = [path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert sorted(levels) == sorted(name for name in modules if name != "__init__")


@pytest.mark.parametrize("equation", range(1, 20))
def test_every_equation_of_the_paper_is_a_function_that_names_it(equation: int) -> None:
    module, _, name = paper.WHERE[equation].rpartition(".")
    function = getattr(importlib.import_module(f"gradcampp.{module}"), name)
    assert callable(function)
    said = f"{name} {inspect.getdoc(function)}"
    numbers = {
        int(first) + step
        for first, last in re.findall(r"(?:eqs?\.?|_|,|and) ?(\d+)(?:-(\d+))?", said)
        for step in range(int(last or first) - int(first) + 1)
    }
    assert equation in numbers, said


def test_no_docstring_asks_a_question() -> None:
    """A docstring says the thing: none begins with What, Whether or How."""
    asking = []
    for source in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and re.match(
                r"(?:What|Whether|How)\b", ast.get_docstring(node) or ""
            ):
                asking.append(f"{source.stem}.{getattr(node, 'name', '')}")
    assert not asking


def test_every_class_has_a_name_of_its_own() -> None:
    """Two of one name, and the library reference of the book cannot tell which of them a signature means: its build fails."""
    where: dict[str, list[str]] = {}
    for source in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.parse(source.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(source.stem)
    assert not {name: modules for name, modules in where.items() if len(modules) > 1}


def test_the_house_keeps_its_size() -> None:
    """At most 350 lines a file: two rooms in one are hard to read."""
    for source in [*(ROOT / "src").rglob("*.py"), *(ROOT / "book").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        assert len(source.read_text("utf-8").splitlines()) <= 350, source


def requirement(line: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*([<>=!~].*)?", line.strip()).groups()  # type: ignore[union-attr]
    return name.lower(), version or ""


def test_every_dependency_is_pinned_by_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = dict(
        map(
            requirement,
            [*project["dependencies"], *functools.reduce(operator.iadd, project["optional-dependencies"].values(), [])],
        )
    )
    pinned = dict(
        map(
            requirement,
            (line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")),
        )
    )
    assert all(version.startswith("==") for version in pinned.values())
    assert wanted.keys() <= pinned.keys()


def test_the_tree_holds_no_photograph_no_output_and_no_path_of_a_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert not [
        name
        for name in tracked
        if re.search(r"\.(jpe?g|parquet|npz|pth)$", name, re.IGNORECASE) and not name.startswith("evidence/")
    ]
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", ".cff", "") and path.is_file():
            assert not re.search(r"/(?:work|farm|tmp)/[A-Za-z]", path.read_text("utf-8")), name
