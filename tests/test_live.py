"""Cells that run in the page: the kernel, tested with this Python, and what the build gives to the pages."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import gradcampp
from book.live import exercises, kernel, site
from tests.conftest import ROOT

Cell = dict[str, Any]


def ran(machine: kernel.Kernel, place: int, before: int | None, source: str) -> tuple[kernel.Printed, str]:
    answer = json.loads(machine.run(place, before, source))
    return answer["printed"], answer["error"]


# --- the kernel ---------------------------------------------------------------------------------------------------------------


def test_text_formulas_and_the_last_value_are_printed_in_their_order() -> None:
    source = "from IPython.display import Math, display\nimport sympy\nprint('a')\nprint('b', 1)\n"
    source += "display(Math('x^2'))\nprint('c')\n2 + 2\nsympy.Rational(1, 2)"
    printed, error = ran(kernel.Kernel(), 0, None, source)
    assert error == ""
    half = r"$\displaystyle \frac{1}{2}$"
    assert printed == [["text", "a\nb 1\n"], ["latex", r"$\displaystyle x^2$"], ["text", "c\n"], ["latex", half]]
    assert ran(kernel.Kernel(), 0, None, "[1, 2]") == ([["text", "[1, 2]\n"]], "")
    assert ran(kernel.Kernel(), 0, None, "None") == ([], "")


def test_a_cell_starts_from_what_those_before_it_have_left() -> None:
    machine = kernel.Kernel()
    ran(machine, 0, None, "x = 1\ndef double():\n    return 2 * x")
    assert ran(machine, 1, 0, "x += 1\nprint(x, double())")[0] == [
        ["text", "2 4\n"]
    ]  # one namespace: the function sees the change
    assert ran(machine, 1, 0, "x += 1\nprint(x)")[0] == [["text", "2\n"]]  # not 3: it runs in its place once more
    ran(machine, 0, None, "x = 1")
    assert ran(machine, 2, 1, "print(x)")[0] == [["text", "2\n"]]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import smypy", "ModuleNotFoundError: No module named 'smypy'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_an_error_names_the_line_of_the_cell_and_nothing_of_ours(source: str, error: str) -> None:
    machine = kernel.Kernel()
    _, said = ran(machine, 7, None, source)
    assert said.splitlines()[-1] == error
    assert 'File "cell 7", line' in said
    assert "_execute" not in said
    assert ran(machine, 7, None, "print(1)") == ([["text", "1\n"]], "")


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.rand(3)",
        "import torch.nn as nn\nnn.ReLU()",
        "from torch import Tensor, rand\nrand(3)",
        "import pandas as pd\npd.read_csv('a')",
        "from gradcampp.algebra import no_such_module\nno_such_module.one()",
        "from gradcampp.notebook import open_run\nopen_run()",
        "import numpy as np\nfor each in np.ones: pass",
    ],
)
def test_a_package_that_is_not_in_the_page_can_be_imported_and_says_so_when_it_is_used(source: str) -> None:
    machine = kernel.Kernel()
    first, rest = source.split("\n")
    assert ran(machine, 0, None, first) == ([], "")
    printed, said = ran(machine, 1, 0, rest)
    assert printed == []
    assert "does not run in the page: run this cell in Jupyter" in said
    assert len(said.splitlines()) == 1


def test_sympy_does_not_see_the_stand_ins() -> None:
    source = "import numpy\nimport sympy\nsympy.lambdify(sympy.Symbol('x'), 1, 'math')(2)"
    assert ran(kernel.Kernel(), 0, None, source) == ([["text", "1\n"]], "")


# --- what the build gives to a page -------------------------------------------------------------------------------------------


def code(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> Cell:
    return {"cell_type": "code", "id": source[:8], "metadata": {"tags": list(tags)}, "source": source, "outputs": list(outputs)}


def test_a_cell_needs_what_it_uses_and_what_those_need_that_define_its_names() -> None:
    sources = {
        "import torch\nfrom gradcampp.algebra import autograd, derivation": "",
        "x = derivation.feature_maps(1, 1, 1)": "",
        "y = torch.ones(1)": "torch",
        "z = y + 1": "torch",
        "autograd.equation_7": "torch",
        "y = 1\ny": "",
        "y + 1": "",
        "from scipy import stats\nstats.norm()": "scipy",
        "import pandas as pd\npd.DataFrame([{}])": "",
        "from gradcampp.notebook import glue, open_run\nglue('a', 1)": "",
        "open_run()": "torch",
    }
    found = site.cells({"cells": [code(source) for source in sources]})
    assert {cell["source"]: cell["needs"] for cell in found} == sources


def test_a_hidden_cell_travels_where_a_later_one_needs_it() -> None:
    hidden = [code(source, tags=("remove-cell",)) for source in ("a = 1", "b = 2", "a + 1\nd = 3")]
    found = site.cells({"cells": [code("%pip x", tags=("setup",)), *hidden, code("b + 1"), code("d = 4\nd")]})
    assert [(cell["source"], cell["shown"]) for cell in found] == [("b = 2", False), ("b + 1", True), ("d = 4\nd", True)]


def test_what_is_printed_is_what_the_kernel_says() -> None:
    source = "from gradcampp.notebook import glue\nimport pandas as pd\nprint('a')\n"
    source += "glue('t', pd.DataFrame([('a|b', 1.25), ('c', 2.0)], columns=['x', 'y']), '.1f')"
    markdown = "| x    |   y |\n|:-----|----:|\n| a\\|b | 1.2 |\n| c    | 2.0 |"
    stream = {"output_type": "stream", "name": "stdout", "text": "a\n"}
    glued = {"output_type": "display_data", "metadata": {}, "data": {f"{site.RECORD}text/markdown": markdown}}
    number = {"output_type": "display_data", "metadata": {}, "data": {f"{site.RECORD}text/plain": "3"}}
    assert site.printed([stream, glued, number]) == ran(kernel.Kernel(), 0, None, source)[0]


def test_a_page_with_another_number_of_cells_is_refused() -> None:
    data = {"page": "a", "cells": [{"shown": True}, {"shown": False}]}
    page = '<html><head></head><body><div class="cell_input docutils"></div></body></html>'
    assert json.loads(re.findall(r'id="live-cells">(.*)</script>', site.with_cells(page, data))[0]) == data
    with pytest.raises(ValueError, match="expected 1 cells on the page of a, found 0"):
        site.with_cells("<html><head></head><body></body></html>", data)


def test_what_travels_imports_sympy_and_nothing_else() -> None:
    package = Path(gradcampp.__file__).parent
    travelling = {f"gradcampp.{name.replace('/', '.').removesuffix('.__init__')}" for name in site.MODULES}
    for name in site.MODULES[1:]:
        for node in ast.walk(ast.parse((package / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
                top = module.partition(".")[0]
                assert top in {"sympy", *sys.stdlib_module_names} or module in travelling, (name, module)


def test_the_solution_of_an_exercise_is_right_and_the_start_of_an_answer_is_not() -> None:
    checked = {}
    for name in site.PAGES:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        machine, before, found = kernel.Kernel(), None, exercises.checks(notebook)
        by_cell = {check["cell"]: (label, check) for label, check in found.items()}
        for place, cell in enumerate(site.cells(notebook)):
            if cell["needs"]:
                continue
            if cell["id"] in by_cell:
                label, check = by_cell[cell["id"]]
                arguments = json.dumps(check["asked"]), json.dumps(check["conditions"])
                graded = [json.loads(machine.check(before, text, *arguments)) for text in (cell["source"], check["start"])]
                checked[label] = [each["verdict"] for each in graded]
            assert ran(machine, place, before, cell["source"])[1] == ""
            before = place
    assert checked == {label: ["right", "open"] for label in exercises.GIVEN}


def test_an_exercise_that_runs_in_the_page_is_checked_there_and_no_other_is() -> None:
    for name in site.PAGES:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        posed = re.findall(r":label: (ex-\S+)", json.dumps([cell["source"] for cell in notebook["cells"]]).replace("\\n", " "))
        needs = {cell["id"]: cell["needs"] for cell in site.cells(notebook)}
        solved = {label: needs[cell["id"]] for label, cell in exercises.solutions(notebook).items()}
        assert sorted(solved) == sorted(posed)
        assert [label for label, need in solved.items() if not need] == list(exercises.checks(notebook))


def test_each_exercise_of_these_chapters_has_two_hints_before_its_solution() -> None:
    for name in site.PAGES:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        texts = ["".join(cell["source"]) for cell in notebook["cells"]]
        posed = [text for text in texts if "{exercise-start}" in text]
        assert len(posed) == 4
        for text in posed:
            assert re.findall(r'<details class="hint"><summary>(.*)</summary>', text) == ["Hint 1", "Hint 2"]
            assert text.count("</details>") == 2


@pytest.mark.parametrize("body", ["...", "pass", '"""What it says."""', '"""What it says."""\n    ...'])
def test_a_function_without_a_body_is_no_answer(body: str) -> None:
    conditions = json.dumps([["f(1) == 2", True]])
    said = json.loads(kernel.Kernel().check(None, f"def f(x):\n    {body}", '["f"]', conditions))
    assert (said["verdict"], said["error"]) == ("open", "write the body of f")
    said = json.loads(kernel.Kernel().check(None, "def f(x):\n    return None", '["f"]', conditions))
    assert said["verdict"] == "wrong"
    said = json.loads(kernel.Kernel().check(None, f"def f(x):\n    {body}\nprint(f(1))", '["f"]', conditions))
    assert said["verdict"] == "open"  # it is used, and still empty
    said = json.loads(kernel.Kernel().check(None, "f = lambda x: 2 * x", '["f"]', conditions))
    assert said["verdict"] == "right"


@pytest.mark.parametrize(
    ("label", "answers"),
    [
        (
            "ex-derivation-separable",
            {
                "separable = sp.exp(left) + sp.sin(right)": "right",
                "separable = left + right": "nearly",
                "separable = left**2": "nearly",
                "separable = left * right": "wrong",
                "separable = 5": "wrong",
            },
        ),
        (
            "ex-derivation-count",
            {
                "def lost(K, Z):\n    return K * Z, K * Z - Z, Z - 1, Z - 1": "right",
                "def lost(K, Z):\n    return [K * Z, 0, Z - 1, Z - 1]": "nearly",
                "def lost(K, Z):\n    return [Z, K, K, K]": "wrong",
            },
        ),
    ],
)
def test_another_right_answer_is_right_and_half_of_one_nearly(label: str, answers: dict[str, str]) -> None:
    notebook = json.loads((ROOT / "notebooks" / "03_derivation.ipynb").read_text("utf-8"))
    check = exercises.checks(notebook)[label]
    machine, before = kernel.Kernel(), None
    for place, cell in enumerate(site.cells(notebook)):
        if cell["id"] == check["cell"]:
            break
        if not cell["needs"]:
            assert ran(machine, place, before, cell["source"])[1] == ""
            before = place
    start = "\n".join(line for line in check["start"].split("\n") if not line.startswith("separable ="))
    for answer, verdict in answers.items():
        said = json.loads(
            machine.check(before, f"{start}\n{answer}", json.dumps(check["asked"]), json.dumps(check["conditions"]))
        )
        assert said["verdict"] == verdict, answer


def test_an_answer_is_graded_by_the_assertions_of_the_solution() -> None:
    check = exercises.check("a = 1\nb = 2 * a\nc = 3\nprint(b)\nassert b == 2 == c - a\nassert c != 4\nassert a == 1", ["a"])
    assert check["start"] == "a = 1\nb = ...\nc = ..."
    assert check["conditions"] == [["b == 2", True], ["2 == c - a", True], ["c != 4", False]]
    verdicts = {"b, c = 2, 3": "right", "b, c = 2, 5": "nearly", "b, c = 5, 5": "wrong", "b = 2": "open", "b = 1 / 0": "wrong"}
    for answer, verdict in verdicts.items():
        said = json.loads(kernel.Kernel().check(None, f"a = 1\n{answer}", '["b", "c"]', json.dumps(check["conditions"])))
        assert said["verdict"] == verdict, answer
