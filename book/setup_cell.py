"""The first code cell of every notebook, which installs the package where it is missing, as in a fresh Colab.

    python book/setup_cell.py    write it into every notebook of this checkout

A notebook in the repository does not know where that is. Where an edition is published, its notebooks are told address and
commit: those of the site by book/build.py --repository, those that launch buttons open by scripts/online.py branch.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from gradcampp.errors import InputError

TAG = "setup"
UNKNOWN = 'EDITION = ""  # such as git+https://github.com/OWNER/NAME@COMMIT'
SOURCE = f"""\
# Only where the package is missing, as in a fresh Colab: install it.
import importlib.util
import subprocess
import sys

{UNKNOWN}

if importlib.util.find_spec("gradcampp") is None:
    if not EDITION:
        raise ModuleNotFoundError(
            "No module named 'gradcampp', and this copy of a notebook "
            "has no address to install it from. In a checkout of the "
            "repository: pip install --editable '.[photographs]'"
        )
    wanted = f"gradcampp[photographs] @ {{EDITION}}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", wanted]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()
"""


def edition(repository: str, root: Path) -> str:
    """What pip installs to have the package of a published book: the commit that is checked out.

    Raises:
        InputError: if the folder is no checkout of Git.
    """
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{root} is no checkout of Git; the notebooks of an edition install its commit from {repository}")
    return f"git+{repository}@{done.stdout.strip()}"


def told(notebook: dict[str, Any], edition: str = "") -> dict[str, Any]:
    """A notebook whose cell with the tag ``setup`` is as above, and installs an edition where one is given."""
    source = SOURCE.replace(UNKNOWN, f'EDITION = "{edition}"') if edition else SOURCE
    lines = source.rstrip("\n").splitlines(keepends=True)
    cells = [{**cell, "source": lines} if TAG in cell["metadata"].get("tags", []) else cell for cell in notebook["cells"]]
    return {**notebook, "cells": cells}


def write(path: Path, edition: str = "") -> None:
    """Tell the notebook in a file."""
    notebook = told(json.loads(path.read_text("utf-8")), edition)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    for each in sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb")):
        write(each)
