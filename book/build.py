"""The book: every notebook executed with a profile, then one static site that needs no network.

python book/build.py --profile NAME_OR_FILE --run RUN --out DIR

DIR/source/         what the site is made from, with the paths of the checkout
DIR/_build/html/    the site

Exit code 1: a cell fails or a page has a mistake, which is named. Exit code 2: the profile or the run cannot be used.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = "application/papermill.record/"  # of what notebook.glue keeps for the book
REDIRECT = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>To the book</title><link rel="icon" href="data:,">'
    '<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">To the book</a></html>\n'
)


class BuildError(Exception):
    """The book cannot be built from what is in the checkout: a cell fails, or a page has a mistake."""


def pages(root: Path) -> list[str]:
    """The pages of the table of contents, in its order, as paths without ending."""
    return re.findall(r"^\s*(?:- file|root): (\S+)", (root / "book" / "_toc.yml").read_text("utf-8"), re.MULTILINE)


def finished_run(profile: str, run: Path | None) -> Path:
    """The run that the notebooks read: one of the profile; for None ``runs/PROFILE``, made where it is not finished.

    Raises:
        InputError: if the profile cannot be used, or the run is not one of it.
    """
    from gradcampp.errors import InputError
    from gradcampp.evaluation import profiles, records
    from gradcampp.evaluation.download import in_cache
    from gradcampp.evaluation.run import Execution
    from gradcampp.results import reproduce

    chosen = in_cache(profiles.load(profile))
    network = profiles.network(chosen)
    folder = run or Path("runs") / profiles.name(profile)
    if run is None and not records.Run(folder).finished:
        reproduce.run(chosen, folder, Execution(batch_size=8, workers=0, device="cpu"))
    try:
        records.check(folder, profiles.experiment(chosen, network))
    except InputError as error:
        raise InputError(str(error).replace("choose another --out", "expected the profile that the run was made with")) from None
    finished = records.Run(folder)
    image, drawn = finished.records["image"].iloc[0], f"seed{chosen.seed or 0}-{chosen.scenes}"
    if not ((chosen.data / image).exists() if chosen.data else finished.manifest["data"]["folder"] == drawn):
        raise InputError(f"{chosen.data or drawn} has no {image} of {folder}; expected the profile that the run was made with")
    return folder


def execute(source: Path, target: Path, parameters: Mapping[str, str], solutions: bool) -> str | None:
    """Execute a notebook in the working directory; returns what went wrong, if anything did."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = folder
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})  # no port to collide on
        options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(Path.cwd()), "config": config}
        try:
            papermill.execute_notebook(source, f"{folder}/{source.name}", dict(parameters), **options)
        except PapermillExecutionError as error:  # its index counts the cell of the parameters, and from 0
            lines = [line.strip() for line in error.source.splitlines() if line.strip() and not line.strip().startswith("#")]
            said = f"{error.ename}: {' '.join(str(error.evalue).split())}"
            return f"{source.name}, cell {error.cell_index} ({''.join(lines[:1])}): {said}"
        except Exception as error:  # the kernel died or did not start
            return f"{source.name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        notebook = stripped(json.loads(Path(folder, source.name).read_text("utf-8")), solutions)
    target.write_text(json.dumps(notebook), "utf-8")
    return None


def stripped(notebook: dict[str, Any], solutions: bool = True) -> dict[str, Any]:
    """An executed notebook without what names this machine, and without solutions where they are not wanted."""
    cells, hidden, values = [], False, _glued(notebook)
    for cell in notebook["cells"]:
        text, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        hidden = hidden or (not solutions and "{solution-start}" in text)
        if not hidden and "injected-parameters" not in tags:
            for output in cell.get("outputs", []):
                if "scrapbook" in output.get("metadata", {}):  # the book has its own place for what a lone notebook shows here
                    output["data"] = {kind: value for kind, value in output["data"].items() if kind.startswith(RECORD)}
            outputs = {"outputs": _in_one_piece(cell["outputs"])} if "outputs" in cell else {}
            source = _with_alternatives(text, values) if cell["cell_type"] == "markdown" else cell["source"]
            cells.append({**cell, **outputs, "source": source, "metadata": {"tags": tags}})
        hidden = hidden and "{solution-end}" not in text
    metadata = {name: value for name, value in notebook["metadata"].items() if name != "papermill"}
    return {**notebook, "cells": cells, "metadata": metadata}


def _glued(notebook: dict[str, Any]) -> dict[str, str]:
    """The short values that an executed notebook keeps for its prose, by name."""
    outputs = [
        output for cell in notebook["cells"] for output in cell.get("outputs", []) if "scrapbook" in output.get("metadata", {})
    ]
    texts = {output["metadata"]["scrapbook"]["name"]: output["data"].get(f"{RECORD}text/plain") for output in outputs}
    return {name: str(ast.literal_eval("".join(text))) for name, text in texts.items() if text}


def _with_alternatives(text: str, values: Mapping[str, str]) -> str:
    """A cell whose alternative texts, which are plain, have the values that they name: what is in the picture of this run."""

    def filled(alternative: re.Match[str]) -> str:
        return re.sub(r"\{glue:text\}`([\w-]+)`", lambda named: values.get(named[1], named[0]), alternative[0])

    return re.sub(r"^alt: >-\n(?:  .+\n)+", filled, text, flags=re.MULTILINE)


def _in_one_piece(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs of a cell in which what it printed stands together, however a busy machine has cut it."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        if found and output["output_type"] == "stream" and found[-1].get("name") == output["name"]:
            found[-1] = {**found[-1], "text": "".join(found[-1]["text"]) + "".join(output["text"])}
        else:
            found.append(output)
    return found


def stage(
    root: Path,
    source: Path,
    repository: str | None,
    editions: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> None:
    """Put together what the site is made from, but the notebooks; what was there is removed.

    ``editions`` are settings of the extension of that name.
    """
    import yaml

    from book import landing, library
    from book.explorer import export
    from book.photograph import export as photograph

    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        root / "book", source / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__", "_ext", "live", "slides", "web")
    )
    for inside, place in (
        ("_static", "_static"),
        ("explorer", "extra/explorer"),
        ("photograph", "extra/photograph"),
        ("_toc.yml", "_toc.yml"),
    ):
        (source / place).parent.mkdir(exist_ok=True)
        shutil.move(source / "book" / inside, source / place)
    config = yaml.safe_load((source / "book" / "_config.yml").read_text("utf-8"))
    links = config.pop("with_repository")
    config["html"]["baseurl"] = address or ""
    if repository:
        config["sphinx"]["config"]["html_theme_options"] |= {"repository_url": repository, **links}
    config["sphinx"]["config"] |= editions or {}
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    (source / "notebooks").mkdir()
    export.write(source / "extra" / "explorer")
    landing.write(source / "book")
    if "book/photograph" in pages(root):
        photograph.write(source / "extra" / "photograph", photograph.samples())
    library.write(source, pages(root))


def sphinx(source: Path, out: Path, builder: str = "html") -> None:
    """Build the staged sources, every warning an error.

    Raises:
        BuildError: with all that is wrong.
    """
    source = source.resolve()  # Jupyter Book takes relative paths for relative to the sources
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(out)]
    command += [
        "--builder",
        builder,
        "--config",
        f"{source}/_config.yml",
        "--toc",
        f"{source}/_toc.yml",
        "-n",
        "-W",
        "--keep-going",
    ]
    path = os.pathsep.join([str(ROOT / "book" / "_ext"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    problems = [line.replace(f"{source}/", "") for line in said.splitlines() if re.search(r"WARNING|ERROR|CRITICAL", line)]
    if done.returncode != 0 or problems:
        raise BuildError("\n".join(dict.fromkeys(problems)) or said.strip()[-2000:])


def build(options: argparse.Namespace, root: Path) -> Path:
    """Build the book; returns the page to open.

    Raises:
        InputError: if an option cannot be used.
        BuildError: if a cell fails, once every other notebook is executed, or a page has a mistake.
    """
    from tqdm import tqdm

    from book import concordance, pdf, setup_cell, teaching
    from book.live import site
    from gradcampp.errors import InputError
    from gradcampp.evaluation import profiles

    if options.repository and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", options.repository):
        raise InputError(f"--repository {options.repository}: expected an address such as https://github.com/OWNER/NAME")
    if options.address and not re.fullmatch(r"https?://[\w.:-]+(/\S*)?", options.address):
        raise InputError(f"--address {options.address}: expected an address such as https://OWNER.github.io/NAME/")
    other = options.beside.partition("=")[::2] if options.beside else ()
    if other and not all(other):
        raise InputError(f"--beside {options.beside}: expected a profile and the way to its site, such as paper=paper or mini=..")
    edition = setup_cell.edition(options.repository, root) if options.repository else ""
    browser = pdf.find_browser() if options.pdf else ""
    run = finished_run(options.profile, options.run)
    out: Path = options.out or run / "book"
    editions = {"this_edition": profiles.name(options.profile), "other_edition": list(other)} if other else {}
    stage(root, out / "source", options.repository, editions, options.address)
    sources = [path for page in pages(root) if (path := root / f"{page}.ipynb").exists()]
    targets = [out / "source" / "notebooks" / path.name for path in sources]
    parameters = {"PROFILE": options.profile, "RUN": str(run.resolve())}
    run_one = functools.partial(execute, parameters=parameters, solutions=not options.without_solutions)
    cores = os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // 4))
    with ProcessPoolExecutor(min(4, cores), multiprocessing.get_context("spawn")) as pool:
        said = tqdm(pool.map(run_one, sources, targets), total=len(sources), unit="notebook", disable=None)
        if problems := list(filter(None, said)):
            raise BuildError("\n".join(problems))
    for target in targets if edition else ():
        setup_cell.write(target, edition)
    if options.without_solutions and not options.keep_answers:
        teaching.remove_answers(targets)
    concordance.write(root, out / "source", pages(root), run)
    teaching.write(root, out / "source", pages(root))
    shutil.rmtree(out / "_build", ignore_errors=True)
    sphinx(out / "source", out)
    site.write(out / "source", out / "_build" / "html")
    index = out / "_build" / "html" / "index.html"  # with an icon, which a browser would ask the server for
    index.write_text(REDIRECT.format(f"{pages(root)[0]}.html"), "utf-8")
    if options.pdf:
        sphinx(out / "source", out, "singlehtml")
        pdf.print_site(browser, out / "_build" / "singlehtml", options.pdf, options.address or "")
    return index


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="build.py", description="Execute the notebooks and build the book.")
    parser.add_argument("--profile", default="mini", metavar="NAME_OR_FILE", help="which book (default: %(default)s)")
    parser.add_argument("--run", type=Path, help="what gradcampp reproduce wrote (default: runs/PROFILE, made if missing)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="site in DIR/_build/html (default: RUN/book)")
    parser.add_argument("--repository", metavar="URL", help="address on GitHub, for links and launch buttons (default: none)")
    parser.add_argument("--address", metavar="URL", help="where the site will be, for citations and previews (default: none)")
    parser.add_argument(
        "--beside", metavar="PROFILE=WAY", help="an edition to name on every page, and the way to it (default: none)"
    )
    parser.add_argument(
        "--without-solutions", action="store_true", help="leave out solutions of exercises and answers of quizzes"
    )
    parser.add_argument("--keep-answers", action="store_true", help="with --without-solutions: keep the answers of quizzes")
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="also print the book, with Chromium")
    options = parser.parse_args(arguments)
    from gradcampp.errors import InputError

    try:
        print(f"open {build(options, root)}")
    except (InputError, BuildError) as error:
        print(f"build.py: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in the place of this folder
    sys.exit(main())
