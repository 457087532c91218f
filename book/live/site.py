"""What makes the cells of a chapter run in its page: their sources with what they print, and Python with SymPy beside them.

SITE/live/            script, style and worker; book.zip, this package's algebra; sympy.zip, compiled by the Python of the pages
SITE/live/pyodide/    that Python, from npm
SITE/live/licences/   what SymPy and mpmath ask to be kept with them
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import sympy

import gradcampp
from book.live import exercises, kernel
from gradcampp.errors import InputError

HERE = Path(__file__).resolve().parent
PYODIDE = HERE.parent / "web" / "node_modules" / "pyodide"
PAGES = ("03_derivation", "04_what_is_wrong")
FILES = ("live.js", "live.css", "worker.js")
MODULES = ("__init__", "algebra/__init__", "algebra/counterexamples", "algebra/derivation", "algebra/latex")  # SymPy alone
RECORD = "application/papermill.record/"  # of what a cell glues
Cell = dict[str, Any]


def write(source: Path, site: Path) -> None:
    """Make the cells of the chapters run in a built site.

    Args:
        source: the staged book, with its executed notebooks.
        site: its pages.

    Raises:
        InputError: if npm has not installed its part.
    """
    pages = [name for name in PAGES if (site / "notebooks" / f"{name}.html").exists()]
    if not pages:
        return
    if not PYODIDE.exists():
        raise InputError(f"{PYODIDE} is missing: make install brings it")
    python = site / "live" / "pyodide"
    shutil.copytree(PYODIDE, python, ignore=lambda _, names: {each for each in names if not _needed(each)})
    wasm = python / "pyodide.asm.wasm"
    Path(f"{wasm}.packed").write_bytes(gzip.compress(wasm.read_bytes(), 9, mtime=0))
    wasm.unlink()
    for name in FILES:
        shutil.copy(HERE / name, site / "live" / name)
    _own(site / "live" / "book.zip")
    shutil.copy(compiled_sympy(), site / "live" / "sympy.zip")
    (site / "live" / "licences").mkdir()
    for name in ("sympy", "mpmath"):
        licence = next(path for path in metadata.files(name) or () if path.name == "LICENSE")
        shutil.copy(licence.locate(), site / "live" / "licences" / f"{name}.txt")
    size = sum(path.stat().st_size for path in (site / "live").rglob("*") if path.is_file())
    for name in pages:
        notebook = json.loads((source / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        data = {"page": name, "megabytes": round(size / 1e6), "sympy": sympy.__version__, "cells": cells(notebook)}
        data["exercises"] = exercises.checks(notebook)
        needs = {cell["id"]: cell["needs"] for cell in data["cells"]}
        solved = {label: needs[cell["id"]] for label, cell in exercises.solutions(notebook).items()}
        data["unchecked"] = {label: need for label, need in solved.items() if label not in data["exercises"]}
        page = site / "notebooks" / f"{name}.html"
        page.write_text(with_cells(page.read_text("utf-8"), data), "utf-8")


def _needed(name: str) -> bool:
    return name in ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")


def _own(archive: Path) -> None:
    """The kernel and the algebra of the package, as sources; the same bytes every time."""
    package = Path(gradcampp.__file__).parent
    sources = {"kernel.py": HERE / "kernel.py"} | {f"gradcampp/{name}.py": package / f"{name}.py" for name in MODULES}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for name, path in sources.items():
            made.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def compiled_sympy() -> Path:
    """SymPy and mpmath of this environment as bytecode for the pages, kept beside what npm has installed."""
    version = json.loads((PYODIDE / "package.json").read_text("utf-8"))["version"]
    kept = PYODIDE.parent / ".cache" / f"sympy-{sympy.__version__}-mpmath-{metadata.version('mpmath')}-pyodide-{version}.zip"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        made = kept.with_name(f"{os.getpid()}.zip")
        node, packages = Path(sys.executable).with_name("node"), Path(sympy.__file__).parents[1]
        command = [str(node), str(HERE / "compile.mjs"), str(packages), str(made)]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(kept)
    return kept


def with_cells(page: str, data: Mapping[str, Any]) -> str:
    """A page with the data of its cells, and what makes them run.

    Raises:
        ValueError: if the page shows another number of cells, which would be run in each other's place.
    """
    shown = sum(cell["shown"] for cell in data["cells"])
    found = len(re.findall(r'<div class="cell_input ', page))
    if found != shown:
        raise ValueError(f"expected {shown} cells on the page of {data['page']}, found {found}")
    block = json.dumps(data).replace("</", "<\\/")
    end = f'<script type="application/json" id="live-cells">{block}</script>\n<script defer src="../live/live.js"></script>\n'
    head = '<link rel="stylesheet" href="../live/live.css">\n'
    return page.replace("</head>", f"{head}</head>", 1).replace("</body>", f"{end}</body>", 1)


def cells(notebook: Mapping[str, Any]) -> list[Cell]:
    """The code cells of an executed notebook: all that are shown, and those hidden ones that these need.

    Each has its source, what it prints, and in ``needs`` the package that keeps it from running in the page, empty for none.
    """
    found, away = list[Cell](), dict[str, str]()  # away: names that are not in the page, and the package they need
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] != "code" or "setup" in tags:
            continue
        source = "".join(cell["source"])
        tree = ast.parse(source)
        bound, missing = bindings(tree), imports(tree)
        known = {name: need for name, need in away.items() if name not in bound} | missing
        needs = next((known[name] for name in loads(tree) if name in known), "")
        away = known | (dict.fromkeys(bound, needs) if needs else {})
        shown = {"id": cell["id"], "shown": "remove-cell" not in tags, "needs": needs, "source": source}
        found.append(shown | {"printed": printed(cell["outputs"]), "bound": bound, "loads": loads(tree)})
    kept = list[Cell]()
    for cell in reversed(found):
        used = any(not each["needs"] and cell["bound"] & (set(each["loads"]) - each["bound"]) for each in kept)
        if cell["shown"] or (used and not cell["needs"]):
            kept.insert(0, cell)
    return [{key: value for key, value in cell.items() if key not in ("bound", "loads")} for cell in kept]


def imports(tree: ast.Module) -> dict[str, str]:
    """The names that a cell imports and that are not in the page, each with the package that it needs."""
    found = {}
    modules = {f"gradcampp.{name.replace('/', '.')}" for name in MODULES} | {"gradcampp.notebook.glue"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        for name, path in names.items():
            if kernel.absent(path) and not {path, path.rpartition(".")[0]} & modules:
                package = path.partition(".")[0]
                found[name] = "torch" if package == "gradcampp" else package
    return found


def bindings(tree: ast.Module) -> set[str]:
    """The names that a cell gives a value."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return stored | defined | imported


def loads(tree: ast.Module) -> list[str]:
    """The names that a cell uses, in the order of the text."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset))]


def printed(outputs: Iterable[Mapping[str, Any]]) -> kernel.Printed:
    """What an executed cell shows: formulas and text in its own place, tables where the book has them."""
    found = []
    for output in outputs:
        if output["output_type"] == "stream":
            found.append(["text", "".join(output["text"])])
        elif "text/latex" in output.get("data", {}):
            found.append(["latex", "".join(output["data"]["text/latex"])])
        elif "text/plain" in output.get("data", {}):
            found.append(["text", "".join(output["data"]["text/plain"]) + "\n"])
        elif f"{RECORD}text/markdown" in output.get("data", {}):
            found.append(["table", table("".join(output["data"][f"{RECORD}text/markdown"]))])
    return kernel.merged(found)


def table(markdown: str) -> str:
    """Lines of cells of a Markdown table, without the line below its head and the spaces that align it."""
    head, _, *rows = markdown.splitlines()
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (head, *rows)]
    return "\n".join(" | ".join(cell.strip() for cell in line) for line in lines)
