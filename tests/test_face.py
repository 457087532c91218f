"""What ``import gradcampp`` gives."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import gradcampp

HEAVY = ("torch", "torchvision", "numpy", "pandas", "sympy", "matplotlib", "pyarrow", "scipy", "PIL", "click", "pydantic")


def test_the_example_of_the_package_runs() -> None:
    done = doctest.testmod(gradcampp)
    assert done.attempted > 8
    assert done.failed == 0


@pytest.mark.parametrize("name", gradcampp.__all__)
def test_every_name_resolves(name: str) -> None:
    assert name in dir(gradcampp)
    assert getattr(gradcampp, name) is getattr(gradcampp, name)


def test_importing_it_loads_nothing_else() -> None:
    script = f"import sys, gradcampp; print([name for name in {HEAVY} if name in sys.modules], dir(gradcampp) != [])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[] True\n"


def test_names_and_modules_are_found_in_any_order() -> None:
    script = (
        "from gradcampp import cam, weights, load, capture, algebra\n"
        "import gradcampp, gradcampp.networks.capture, gradcampp.networks.load, gradcampp.evaluation.alphas\n"
        "assert gradcampp.weights is cam.weights is weights and gradcampp.alphas is cam.alphas\n"
        "assert gradcampp.capture is capture is gradcampp.networks.capture.capture\n"
        "assert gradcampp.load is load is gradcampp.networks.load.load\n"
        "from gradcampp import *\n"
        "assert min_max is cam.min_max\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'gradcampp' has no attribute 'weight'"):
        _ = gradcampp.weight  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'weight'"):
        exec("from gradcampp import weight")


def test_the_version_is_that_of_the_package() -> None:
    assert gradcampp.__version__.count(".") == 2
