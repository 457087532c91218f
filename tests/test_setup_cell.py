"""A notebook opened where the package is missing installs the edition that it comes from, or says what to install."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from book import setup_cell
from gradcampp.errors import InputError
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def setup_of(path: Path) -> str:
    """The code of the setup cell of a notebook, which is its only one."""
    (found,) = (
        cell for cell in json.loads(path.read_text("utf-8"))["cells"] if setup_cell.TAG in cell["metadata"].get("tags", [])
    )
    return "".join(found["source"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository as a host has it, with what is not committed yet."""
    folder = tmp_path_factory.mktemp("repository") / "gradcampp"
    for name in ("src", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "edition"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has pip and what builds a package, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/*/site-packages")
    found = find_spec("setuptools")  # which pip would bring from the network; some Pythons have none of their own
    assert found is not None
    assert found.origin is not None
    shutil.rmtree(site / "setuptools", ignore_errors=True)
    shutil.copytree(Path(found.origin).parent, site / "setuptools")
    return folder


@pytest.fixture
def empty(environment: Path) -> Iterator[Path]:
    """The Python of that environment, as empty as before once a test is done."""
    yield environment / "bin" / "python"
    for left in environment.glob("lib/*/site-packages/gradcampp*"):
        shutil.rmtree(left)


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Code in an environment, without the network and without what the package depends on."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(python.parent), **offline}
    command = [str(python), "-c", code]
    return subprocess.run(command, cwd=python.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_the_one_setup_cell(path: Path) -> None:
    """``python book/setup_cell.py`` writes it."""
    assert setup_of(path) == setup_cell.SOURCE.rstrip("\n")
    assert setup_cell.told(json.loads(path.read_text("utf-8"))) == json.loads(path.read_text("utf-8"))


def test_in_an_empty_environment_a_published_notebook_installs_its_own_commit(repository: Path, empty: Path) -> None:
    """All notebooks have the same cell: one is told, as where it is published, and run."""
    edition = setup_cell.edition(f"file://localhost{repository}", repository)
    commit = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert edition == f"git+file://localhost{repository}@{commit.stdout.strip()}"
    (repository / "src" / "gradcampp" / "errors.py").write_text("raise SystemExit('not the commit of the edition')\n")
    for path in NOTEBOOKS:
        setup_cell.write(repository / "notebooks" / path.name, edition)
    told = {setup_of(repository / "notebooks" / path.name) for path in NOTEBOOKS}
    assert len(told) == 1
    code = told.pop()
    done = run(empty, f"{code}\nimport gradcampp.errors\nprint(gradcampp.errors.__file__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(empty.parents[1]))
    again = run(empty, code.replace("subprocess.run", "this_would_fail"))
    assert again.returncode == 0, again.stderr


def test_without_an_address_the_cell_says_what_to_install(empty: Path) -> None:
    done = run(empty, setup_of(NOTEBOOKS[0]))
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ModuleNotFoundError: No module named 'gradcampp'")
    assert said.endswith("In a checkout of the repository: pip install --editable '.[photographs]'")


def test_an_address_that_does_not_answer_fails_in_the_cell(empty: Path) -> None:
    cell = {"cell_type": "code", "metadata": {"tags": ["setup"]}, "source": ""}
    told = setup_cell.told({"cells": [cell]}, "git+file://localhost/nowhere/gradcampp@main")
    done = run(empty, "".join(told["cells"][0]["source"]))
    assert done.returncode == 1
    assert "/nowhere/gradcampp" in done.stderr


def test_with_the_package_the_cell_does_nothing() -> None:
    code = setup_of(NOTEBOOKS[0]).replace("subprocess.run", "this_would_fail")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "src")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_outside_of_git_there_is_no_commit_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no checkout of Git"):
        setup_cell.edition("https://github.com/someone/gradcampp", tmp_path)


def test_no_notebook_installs_a_name_that_is_not_ours() -> None:
    for path in NOTEBOOKS:
        assert "pip install --quiet" not in path.read_text("utf-8")
        assert "pip install gradcampp" not in path.read_text("utf-8")
