"""The layering of the package, and the promises of its configuration files."""

from __future__ import annotations

import ast
import functools
import operator
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

LEVELS = [
    {"errors", "config", "files"},
    {
        "cam",
        "explain",
        "statistics",
        "accumulate",
        "classes",
        "paper",
        "memory",
        "scenes",
        "localisation",
        "profiles",
        "symbolic",
        "derivatives",
        "sphinx_extension",
        "execute_notebook",
    },
    {"certificate", "counterexamples", "download", "network", "mini", "data", "records", "distributed", "typeset"},
    {"evaluate", "models", "theorems", "train"},
    {"errata", "explorer", "tables", "figures", "ledger", "selfcheck"},
    {"claims_proved", "claims_measured"},
    {"claims"},
    {"claims_page", "report"},
    {"reproduce"},
    {"notebook"},
    {"book"},
    {"cli"},
    {"__main__", "__init__"},
]
SOURCES = sorted((ROOT / "src" / "gradcampp").glob("*.py"))


def level(module: str) -> int:
    return next(number for number, modules in enumerate(LEVELS) if module in modules)


def project_imports(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "gradcampp":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradcampp."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gradcampp.")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{source.name}: relative import")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_module_imports_only_from_the_levels_below_it(source: Path) -> None:
    for imported in project_imports(source):
        assert level(imported) < level(source.stem), f"{source.stem} imports {imported}"


def test_every_module_has_a_level() -> None:
    assert {source.stem for source in SOURCES} == set().union(*LEVELS)


def test_the_mathematics_knows_no_network() -> None:
    for name in ("cam", "explain", "statistics", "accumulate"):
        text = (ROOT / "src" / "gradcampp" / f"{name}.py").read_text("utf-8")
        assert not re.search(r"torchvision|nn\.Module|eps\b|1e-\d+\)|nansum|nan_to_num", text), name


def requirement(line: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*([<>=!~].*)?", line.strip()).groups()  # type: ignore[union-attr]
    return name.lower(), version or ""


def conda_dependencies() -> dict[str, str]:
    """Everything that environment.yml installs, conda's own names translated to pip's."""
    text = (ROOT / "environment.yml").read_text("utf-8").partition("\ndependencies:\n")[2]
    lines = re.findall(r"^ +- ([^:\n-][^:\n]*)$", text, re.MULTILINE)
    translated = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    return {translated.get(name, name): version for name, version in map(requirement, lines)}


def test_environment_yml_says_the_same_as_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = dict(
        map(
            requirement,
            [*project["dependencies"], *functools.reduce(operator.iadd, project["optional-dependencies"].values(), [])],
        )
    )
    given = conda_dependencies()
    assert given.pop("python") == project["requires-python"]
    assert given.pop("pip") == ""
    assert {
        name: version.replace("==", "=").replace("=", "==", 1) if version.startswith("=") else version
        for name, version in given.items()
    } == wanted


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
    assert not [name for name in tracked if re.search(r"\.(jpe?g|parquet|npz|pth)$", name, re.IGNORECASE)]
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", ".cff", "") and path.is_file():
            assert not re.search(r"/(?:work|farm|tmp)/[A-Za-z]", path.read_text("utf-8")), name
