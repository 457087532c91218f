"""The book: every notebook executed with a profile, then one static site that needs no network.

OUT/executed/          the notebooks as papermill left them; one that nothing has changed for is not executed again
OUT/source/            what the book is made from: executed notebooks, prose, configuration, with the paths of the checkout
OUT/_build/html/       the site
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import gradcampp
from book.explorer import export
from gradcampp.errors import InputError
from gradcampp.evaluation import profiles
from gradcampp.files import atomic_write, file_hash
from gradcampp.notebook import KEY

LIBRARY, COMMANDS = Path("book/library.md"), Path("book/commands.md")


GENERATED = (LIBRARY, COMMANDS)  # pages of the table of contents that no file of the checkout holds


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


_KERNEL = 4 * 2**30  # bytes that a notebook with VGG16 may take, with some to spare


_GITHUB = re.compile(r"(?:https://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|git@)github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?")


class BuildError(Exception):
    """The book cannot be built from what is in the checkout: a cell fails, or a page has a mistake."""


@dataclass(frozen=True)
class Edition:
    """Which book to build.

    Attributes:
        profile: parameter of every notebook: name or file of the profile.
        run: parameter of every notebook: the folder that ``gradcampp reproduce`` wrote.
        repository: address on GitHub for links and launch buttons, or None for a book without them.
        branch: the branch that the launch buttons open.
        solutions: whether the solutions of the exercises are in it.
    """

    profile: str
    run: Path
    repository: str | None = None
    branch: str = "main"
    solutions: bool = True


def checkout() -> Path:
    """The folder with ``book/`` and ``notebooks/``: this one, or the one that the package was installed from in place.

    Raises:
        InputError: if there is none, as with a package installed from a wheel.
    """
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        if (folder / "book" / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise InputError(
        "no book here: gradcampp book needs the notebooks, which are not in the installed package; "
        "call it in a clone of the repository"
    )


def pages(root: Path) -> list[Path]:
    """The pages of the table of contents, in its order, relative to the root; each with the ending of its file."""
    import yaml

    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text("utf-8"))
    entries = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    endings = (".ipynb", ".md")
    found: list[Path] = []
    for entry in entries:
        files = [Path(f"{entry}{ending}") for ending in endings if (root / f"{entry}{ending}").exists()]
        found += files or [page for page in GENERATED if page.with_suffix("").as_posix() == entry]
    return found


def build(root: Path, out: Path, edition: Edition, commands: Mapping[str, str]) -> Path:
    """Execute the notebooks and build the site.

    Args:
        root: the checkout.
        out: where to build; what is unchanged in it is not built again.
        edition: which book.
        commands: the help text of every command, by name.

    Returns:
        The page to open.

    Raises:
        InputError: if the tools that build books are not installed, or a profile cannot be used.
        BuildError: if a cell fails or a page has a mistake; the message names them.
    """
    jupyter_book = _tool()
    found = pages(root)
    out.mkdir(parents=True, exist_ok=True)
    notebooks = [page for page in found if page.suffix == ".ipynb"]
    executed = execute(root, notebooks, out / "executed", {"PROFILE": edition.profile, "RUN": str(edition.run.resolve())})
    source = out / "source"
    kept: set[Path] = set()
    for page in notebooks:
        kept |= stage_notebook(json.loads(executed[page].read_text("utf-8")), source / page, edition.solutions)
    for page in found:
        if page.suffix == ".md" and page not in GENERATED:
            kept |= _put(source / page, (root / page).read_bytes())
    kept |= _put(source / LIBRARY, _library_page().encode())
    kept |= _put(source / COMMANDS, _command_page(commands).encode())
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix not in (".md", ".yml"):
            kept |= _put(source / _place(path.relative_to(root / "book")), path.read_bytes())
    kept |= set(export.write(source / "extra" / "explorer"))
    kept |= _put(source / "_config.yml", _configuration(root, edition).encode())
    kept |= _put(source / "_toc.yml", (root / "book" / "_toc.yml").read_bytes())
    for path in list(source.rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()
    print("building the pages", file=sys.stderr)
    _sphinx(jupyter_book, source, out, "html")
    return _entrance(out / "_build" / "html", found[0])


def _place(inside: Path) -> Path:
    """Where a file of ``book/`` that is no page goes in the sources: the explorer's are for its own page only.

    Jupyter Book loads every script and style of ``_static`` on every page; what is in ``extra`` is copied, no more.
    """
    return {"_static": Path(), "explorer": Path("extra")}.get(inside.parts[0], Path("book")) / inside


def _entrance(site: Path, first: Path) -> Path:
    """The page that leads to the first page of the book, with an empty icon: a browser would ask the server for one."""
    target = first.with_suffix(".html").as_posix()
    page = site / "index.html"
    with atomic_write(page) as temporary:
        temporary.write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>To the book</title>'
            f'<link rel="icon" href="data:,"><meta http-equiv="refresh" content="0; url={target}"></head>'
            f'<body><a href="{target}">To the book</a></body></html>\n',
            "utf-8",
        )
    return page


def execute(root: Path, notebooks: Sequence[Path], cache: Path, parameters: Mapping[str, str]) -> dict[Path, Path]:
    """Run notebooks with papermill, some at a time; those whose source, parameters, package, profile and run are unchanged stay.

    They run in the working directory, so that a path or a module of a profile means what it means on the command line.

    Args:
        root: the checkout.
        notebooks: relative to the root.
        cache: folder for the executed notebooks.
        parameters: values for the cell tagged ``parameters``; ``PROFILE`` is the name or file of a profile, ``RUN`` a folder
            whose results the notebooks read.

    Returns:
        The executed file of every notebook.

    Raises:
        BuildError: if a cell fails; every other notebook is executed first, and stays.
    """
    cache.mkdir(parents=True, exist_ok=True)
    state = _state(parameters["PROFILE"], Path(parameters["RUN"]))
    results = {page: cache / page.name for page in notebooks}
    keys = {page: _digest([state, dict(parameters), (root / page).read_text("utf-8")]) for page in notebooks}
    todo = [page for page in notebooks if _key_of(results[page]) != keys[page]]
    failures: list[str] = []
    at_once = max(1, min(len(todo), _cores(), _memory() // _KERNEL, 8))
    threads = str(max(1, _cores() // at_once))
    with (
        ThreadPoolExecutor(at_once) as pool,
        tqdm(total=len(notebooks), initial=len(notebooks) - len(todo), unit="notebook", disable=None) as progress,
    ):
        running = [pool.submit(_execute, root / page, results[page], parameters, keys[page], threads) for page in todo]
        try:
            for future in as_completed(running):
                if problem := future.result():
                    failures.append(problem)
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise BuildError("\n".join(sorted(failures)))
    return results


def _execute(source: Path, target: Path, parameters: Mapping[str, str], key: str, threads: str) -> str | None:
    """Execute one notebook in a process of its own; returns what went wrong."""
    program = Path(__file__).with_name("execute_notebook.py")
    environment = os.environ | {"OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [sys.executable, "-P", str(program), str(source), str(made), json.dumps(dict(parameters))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == 0:
            notebook = json.loads(made.read_text("utf-8"))
            notebook["metadata"][KEY] = key
            made.write_text(json.dumps(notebook), "utf-8")
            made.replace(target)
            return None
    try:
        failed = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # the kernel died or did not start
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"{source.name}: {last}"
    number, text = _failed_cell(json.loads(source.read_text("utf-8"))["cells"], failed["source"])
    return f"{source.name}, cell {number} ({text}): {failed['error']}"


def _failed_cell(cells: Sequence[Mapping[str, Any]], source: str) -> tuple[int, str]:
    """The number of a cell, counted from 1 over all cells, and its first line that says something."""
    number = next((place for place, cell in enumerate(cells, 1) if "".join(cell["source"]) == source), 0)
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    return number, lines[0] if lines else ""


def stage_notebook(notebook: dict[str, Any], target: Path, solutions: bool = True) -> set[Path]:
    """Write an executed notebook as the book needs it.

    The cell that papermill injected is removed, with all that names this machine; figures and tables become numbered ones,
    as Markdown behind the cell that made them; without solutions, their cells are left out.

    Args:
        notebook: as papermill wrote it.
        target: the notebook to write.
        solutions: whether they stay.

    Returns:
        The files written: the notebook and its pictures.
    """
    kept: set[Path] = set()
    cells: list[dict[str, Any]] = []
    hidden = False
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        text = "".join(cell["source"])
        hidden = hidden or (not solutions and bool(re.match(r"`{3,}\{solution(-start)?\}", text)))
        if not hidden and "injected-parameters" not in tags:
            cell["metadata"] = {"tags": tags} if tags else {}
            cells.append(cell)
            shown = [output for output in cell.get("outputs", []) if KEY in output.get("metadata", {})]
            cell.get("outputs", [])[:] = [output for output in cell.get("outputs", []) if output not in shown]
            for output in shown:
                about = output["metadata"][KEY]
                picture = target.parent / f"{target.stem}_files" / f"{about['label']}.png"
                if about["kind"] == "figure":
                    kept |= _put(picture, base64.b64decode("".join(output["data"]["image/png"])))
                cells.append(_markdown(about, picture.relative_to(target.parent).as_posix()))
        if hidden and re.match(r"`{3,}\{solution(-end)?\}", text):
            hidden = False
    metadata = {name: notebook["metadata"][name] for name in ("kernelspec", "language_info") if name in notebook["metadata"]}
    content = {**notebook, "cells": cells, "metadata": metadata}
    return kept | _put(target, json.dumps(content, indent=1).encode())


def _markdown(about: Mapping[str, str], picture: str) -> dict[str, Any]:
    """A figure, a table or computed prose as a Markdown cell."""
    if about["kind"] == "prose":
        return {"cell_type": "markdown", "id": about["label"], "metadata": {}, "source": about["body"]}
    if about["kind"] == "figure":
        head, body = f"{{figure}} {picture}\n:alt: {about['alt']}\n:class: dark-light", about["caption"]
    else:
        head, body = f"{{table}} {about['caption']}", about["body"]
    text = f"~~~~{head}\n:name: {about['label']}\n\n{body}\n~~~~"  # the line of a fence of backticks may hold none: no roles
    return {"cell_type": "markdown", "id": about["label"], "metadata": {}, "source": text}


def repository(root: Path, given: str | None) -> tuple[str | None, str]:
    """Where the repository is on GitHub, and its branch, from an address or from the remote ``origin``.

    Args:
        root: the checkout.
        given: an address that takes the place of the remote's.

    Returns:
        The address ``https://github.com/OWNER/NAME`` without any password, or None; and the branch.

    Raises:
        InputError: if the given address is not one of GitHub.
    """
    if given is not None and not _GITHUB.fullmatch(given):
        raise InputError(f"--repository {given}: expected an address such as https://github.com/OWNER/NAME")
    match = _GITHUB.fullmatch(given or _git(root, "remote", "get-url", "origin"))
    branch = _git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD").removeprefix("origin/") or "main"
    return (f"https://github.com/{match[1]}/{match[2]}" if match else None), branch


def _git(root: Path, *arguments: str) -> str:
    """What git says, or nothing where it has nothing to say."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _configuration(root: Path, edition: Edition) -> str:
    """``book/_config.yml`` with what depends on the edition."""
    import yaml

    config = yaml.safe_load((root / "book" / "_config.yml").read_text("utf-8"))
    if edition.repository:
        config["sphinx"]["config"]["html_theme_options"] |= {
            "repository_url": edition.repository,
            "repository_branch": edition.branch,
            "path_to_docs": "",
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "notebook_interface": "jupyterlab",
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            },
        }
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text


def _library_page() -> str:
    """The reference of every public module, from its docstrings."""
    names = sorted(module.name for module in pkgutil.iter_modules(gradcampp.__path__) if not module.name.startswith("_"))
    parts = [
        "# The library",
        "Generated from the docstrings: what every function takes, returns and raises, and the equation that it computes. "
        "The names below `gradcampp` itself are the ones to start with: `from gradcampp import capture, weights, heatmap`.",
    ]
    for name in names:
        first = (inspect.getdoc(importlib.import_module(f"gradcampp.{name}")) or "").partition("\n")[0]
        parts.append(f"- [`{name}`](module-{name}): {first}")
    for name in names:
        directive = f"```{{eval-rst}}\n.. automodule:: gradcampp.{name}\n   :members:\n   :member-order: bysource\n```"
        parts += [f"(module-{name})=", f"## {name}", directive]
    return "\n\n".join(parts).replace("\n\n- [", "\n- [").replace(":\n- [", ":\n\n- [", 1) + "\n"


def _command_page(commands: Mapping[str, str]) -> str:
    """The help text of every command."""
    parts = ["# The command line", "What `--help` prints, word for word, at the time when this book was built."]
    for name, text in commands.items():
        parts += [f"## {name}", f"```text\n{text.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _tool() -> str:
    """The program that builds the book."""
    beside = Path(sys.executable).with_name("jupyter-book")
    found = str(beside) if beside.exists() else shutil.which("jupyter-book")
    if found is None or importlib.util.find_spec("papermill") is None:
        raise InputError("the tools that build the book are not installed: pip install 'gradcampp[book]'")
    return found


def _sphinx(jupyter_book: str, source: Path, out: Path, builder: str) -> None:
    """Build the staged sources with every warning an error."""
    source = source.resolve()  # Jupyter Book takes relative paths for relative to the sources
    command = [jupyter_book, "build", str(source), "--path-output", str(out), "--builder", builder]
    command += ["--config", str(source / "_config.yml"), "--toc", str(source / "_toc.yml"), "-n", "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    problems = [line.replace(f"{source}/", "") for line in said.splitlines() if re.search(r"WARNING|ERROR|CRITICAL", line)]
    if done.returncode != 0 or problems:
        problems = problems or re.findall(r"^\S*(?:Error|Exception): .*", said, re.MULTILINE) or said.strip().splitlines()[-1:]
        raise BuildError("\n".join(dict.fromkeys(problems)) or f"jupyter-book ended with exit code {done.returncode}")


def _put(path: Path, content: bytes) -> set[Path]:
    """Write a file unless it holds that content already: what is unchanged keeps its time, and is not built again."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    return {path}


def _state(profile: str, run: Path) -> str:
    """What the results of notebooks depend on beside their source: the package and what it needs, the profile and the run."""
    package = sorted(path for path in Path(gradcampp.__path__[0]).rglob("*") if path.suffix in (".py", ".toml", ".safetensors"))
    results = sorted(
        path for folder in (run, run / "run") for path in folder.glob("*") if path.suffix in (".parquet", ".csv", ".json")
    )
    needed = [re.match(r"[\w.-]+", line) for line in importlib.metadata.requires("gradcampp") or [] if "extra ==" not in line]
    versions = [importlib.metadata.version(name[0]) for name in needed if name]
    return _digest([str(profiles.load(profile)), versions, *(file_hash(path) for path in [*package, *results])])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _key_of(executed: Path) -> str | None:
    """Under which circumstances a notebook was executed; None where it was not."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        key: str = json.loads(executed.read_text("utf-8"))["metadata"][KEY]
        return key
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def find_browser() -> str:
    """The program that prints.

    Raises:
        InputError: if there is none.
    """
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise InputError(f"no browser to print with: expected one of {', '.join(CHROMIUM)} on the PATH; install Chromium")
    return browser


def print_pdf(out: Path, target: Path) -> None:
    """Print the whole book, on one page after another, to a PDF file with a headless Chromium.

    Args:
        out: a folder that :func:`build` has filled.
        target: the file to write.

    Raises:
        InputError: if there is no Chromium, or it does not print.
        BuildError: if the book does not build as a single page.
    """
    browser = find_browser()
    _sphinx(_tool(), out / "source", out, "singlehtml")
    site = out / "_build" / "singlehtml"
    whole = max(site.glob("**/index.html"), key=lambda path: path.stat().st_size)  # the other one redirects
    page = site / "whole.html"
    shutil.copyfile(whole, page)  # its links to pictures and scripts start from the root
    with (
        atomic_write(target) as temporary,
        _served(site) as address,
    ):  # from a file, a browser does not load the fonts of formulas
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            "--virtual-time-budget=120000",
        ]
        command += [f"--print-to-pdf={temporary.resolve()}", f"{address}/{page.name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not temporary.exists():
            raise InputError(f"{browser} did not print the book: {' '.join(done.stderr.split())[-300:]}")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a folder, to this machine only."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
