"""What a lecturer needs beside the chapters: assignments that grade themselves, slides, and a kit for a class without a network.

python book/teaching.py class.zip --scenes 100 --site runs/mini/book/_build/html

packs the students' notebooks, generated scenes in class folders, the records of the runs on photographs, and the built site.
The assignments are notebooks of nbgrader, in ``teaching/source``; nothing here needs nbgrader.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = "book/teach"
ASSIGNMENTS = ROOT / "teaching" / "source"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r'\n*<details class="answer">.*?</details>|, then open the answer(?=\.)', re.DOTALL)  # of a quiz
TIMES = re.compile(r"\*\*It takes\*\* about (\d+) minutes to read, and about (\d+) minutes for the exercises")
STUB = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()"
README = """What is in this folder
assignments/   notebooks: open them with jupyter lab; graded with nbgrader
scenes/        generated pictures, a folder for each class
evidence/      what three networks made of photographs: records without pictures
site/          the book: python -m http.server --directory site, then open http://localhost:8000
"""


def assignments(folder: Path = ASSIGNMENTS) -> dict[str, dict[str, Any]]:
    """The lecturer's notebooks, with solutions and hidden tests, by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/*.ipynb"))}


def student_version(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """An assignment as students get it, as ``nbgrader generate_assignment`` makes it: no solutions, no hidden tests."""
    cells = []
    for cell in notebook["cells"]:
        about, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if about.get("solution"):
            source = SOLUTION.sub(STUB, source) if cell["cell_type"] == "code" else "YOUR ANSWER HERE"
        if about.get("grade") and cell["cell_type"] == "code":
            source = HIDDEN.sub("", source).rstrip()
        cells.append({**cell, "source": source})
    return {**notebook, "cells": cells}


def points(notebook: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Run an assignment in this process; what each test cell earns, and what it is worth, by its ``grade_id``.

    A test cell that fails earns nothing, and the others still run. Written answers are for people and not in it.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    found = {}
    for cell in notebook["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] != "code":
            continue
        try:
            exec(compile("".join(cell["source"]), about.get("grade_id", "cell"), "exec"), names)
            passed = True
        except Exception:  # whatever a student's code does
            passed = False
        if about.get("grade"):
            found[about["grade_id"]] = (about["points"] if passed else 0, about["points"])
    return found


def without_answers(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A chapter without the answers of its quiz."""
    cells = [
        {**cell, "source": ANSWER.sub("", "".join(cell["source"]))} if cell["cell_type"] == "markdown" else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def remove_answers(files: Iterable[Path]) -> None:
    """Rewrite chapters without the answers of their quizzes."""
    for path in files:
        path.write_text(json.dumps(without_answers(json.loads(path.read_text("utf-8")))), "utf-8")


def chapters(root: Path, pages: Sequence[str]) -> str:
    """A table of the chapters, counted from their notebooks: minutes where a chapter tells them, exercises, questions."""
    lines = ["| chapter | reading | exercises | number of exercises | questions of the quiz |", "|---|---|---|---|---|"]
    for page in pages:
        if (path := root / f"{page}.ipynb").exists():
            cells = json.loads(path.read_text("utf-8"))["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
            told = TIMES.search(text)
            minutes = [f"{told[place]} min" if told else "—" for place in (1, 2)]
            counts = [str(len(re.findall(start, text))) for start in (r"\{exercise-start\}", r'<details class="answer">')]
            lines.append(f"| {{doc}}`../{page}` | {' | '.join(minutes + counts)} |")
    return "\n".join(lines) + "\n"


def write(root: Path, source: Path, pages: Sequence[str]) -> None:
    """Write slides, students' notebooks and the table of chapters into what the site is made from.

    Only where the book has the page for lecturers.

    Args:
        root: of the checkout.
        source: what the site is made from, with the executed notebooks.
        pages: of the table of contents.

    Raises:
        InputError: if a chapter does not have what a slide shows.
    """
    from book import slides

    if PAGE not in pages:
        return
    (source / "book" / "teach_chapters.md").write_text(chapters(root, pages), "utf-8")
    slides.write(source / "notebooks", source / "extra" / "slides")
    folder = source / "extra" / "teaching"
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in assignments(root / "teaching" / "source").items():
        (folder / f"{name}.ipynb").write_text(json.dumps(student_version(notebook), indent=1) + "\n", "utf-8")


def pack(target: Path, scenes: int, seed: int, site: Path | None) -> None:
    """Write the class kit, whole or not at all.

    Raises:
        InputError: if ``site`` is not a built book.
    """
    from gradcampp.errors import InputError
    from gradcampp.files import atomic_write
    from gradcampp.scenes.folder import draw_scenes

    if site is not None and not (site / "index.html").exists():
        raise InputError(f"--site {site}: no index.html; expected the folder _build/html of a built book")
    with atomic_write(target) as temporary, tempfile.TemporaryDirectory() as folder:
        drawn = draw_scenes(Path(folder), seed, scenes)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("class/README.txt", README)
            for name, notebook in assignments().items():
                archive.writestr(f"class/assignments/{name}.ipynb", json.dumps(student_version(notebook), indent=1) + "\n")
            folders = {"scenes": drawn, "evidence": ROOT / "evidence"} | ({"site": site} if site else {})
            for place, inside in folders.items():
                for path in sorted(inside.rglob("*")):
                    if path.is_file():
                        archive.write(path, f"class/{place}/{path.relative_to(inside)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="teaching.py", description="Pack what a class without a network needs.")
    parser.add_argument("target", type=Path, metavar="FILE", help="the archive to write, such as class.zip")
    parser.add_argument("--scenes", type=int, default=100, metavar="N", help="how many generated scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes (default: %(default)s)")
    parser.add_argument("--site", type=Path, metavar="DIR", help="a built book, RUN/book/_build/html (default: none)")
    options = parser.parse_args(arguments)
    from gradcampp.errors import InputError

    try:
        if options.scenes < 1:
            raise InputError(f"--scenes {options.scenes}: expected 1 or more")
        pack(options.target, options.scenes, options.seed, options.site)
    except InputError as error:
        print(f"teaching.py: error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.target}")
    return 0


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in the place of this folder
    sys.exit(main())
