"""The online edition: the paper's own experiment, beside the book on drawn scenes. From the folder of the repository:

    python -m scripts.online run                      download, evaluate, and keep the records in evidence/vgg16-paper
    python -m scripts.online site --repository URL    both editions of the book into runs/online/site, each naming the other;
                                                      with --address URL citations and previews say where they are
    python -m scripts.online branch --repository URL  a commit whose notebooks install this edition, pushed as branch "edition"
    python -m scripts.online key                      what the numbers of the run depend on, as a hash

WORK/PROFILE-KEY/    the run; an interrupted one goes on, and a finished one is used until the key changes
WORK/site/           the site: the edition "mini", and in a folder of its own that of the profile

The key is that of the profile, of the code that measures (without comments and docstrings) and of the packages that compute: a
change of the book's text or code leaves it alone. Nothing here needs a GPU, or a service but the addresses of the profile.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from book import setup_cell
from gradcampp.errors import InputError
from gradcampp.evaluation import download, profiles, records
from gradcampp.evaluation.profiles import Profile
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution
from gradcampp.files import versions
from gradcampp.results import reproduce
from scripts import evidence, run

ROOT = Path(__file__).resolve().parents[1]
MEASURES = ("evaluation/run.py", "evaluation/profiles.py")  # these, and what they import, decide the numbers
COMPUTES = ("torch", "torchvision", "numpy", "pillow")
WORDS = ("source", "explain", "photograph", "expected", "download")  # keys of a profile that no number of a run depends on
FIRST = "mini"  # the edition that a visitor meets first
BRANCH = "edition"


def code(package: Path) -> dict[str, str]:
    """The modules that measure, by path below the package, without comments and docstrings."""
    found: dict[str, str] = {}
    todo = list(MEASURES)
    while todo:
        name = todo.pop()
        if name in found or not (package / name).exists():
            continue
        tree = ast.parse((package / name).read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                module = "/".join(str(node.module).split(".")[1:])
                todo += [f"{module}.py", *(f"{module}/{each.name}.py".removeprefix("/") for each in node.names)]
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        found[name] = ast.unparse(tree)
    return found


def key(profile: Profile, package: Path = ROOT / "src" / "gradcampp") -> str:
    """What the numbers of a run depend on, as 16 hexadecimal digits."""
    settings = {each.name: getattr(profile, each.name) for each in fields(profile) if each.name not in WORDS}
    files = {name: profile.download[name].checksum for name in ("weights", "data") if name in profile.download}
    packages = {name: versions()[name] for name in COMPUTES}
    told = json.dumps([settings, files, packages, code(package)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def git(*arguments: str, cwd: Path) -> str:
    """What a command of Git prints.

    Raises:
        InputError: with what Git says, if it fails.
    """
    who = ["-c", f"user.name={BRANCH}", "-c", f"user.email={BRANCH}@localhost"]
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"git {arguments[0]} in {cwd}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def folder_of(profile: Profile, work: Path) -> Path:
    """The run of a profile."""
    return work / f"{profiles.name(profile.source)}-{key(profile)}"


def evaluate(profile: Profile, work: Path, kept: Path, batch_size: int = 8) -> Path:
    """Download what a profile needs, evaluate it or go on where an earlier call stopped, and keep the records.

    Args:
        profile: one with downloads.
        work: for the run while it goes on.
        kept: the folder ``evidence``, in which the records get a folder of their own.
        batch_size: images that pass through the network together.

    Returns:
        The folder with the records.

    Raises:
        InputError: if the profile does not say where its weights and photographs come from, or as ``gradcampp reproduce``.
    """
    if not {"weights", "data"} <= profile.download.keys():
        raise InputError(f"profile {profile.source}: expected the tables download.weights and download.data")
    cache = download.cache_folder()
    download.fetch(list(profile.download.values()), cache)
    folder = folder_of(profile, work)
    reproduce.run(download.in_cache(profile, cache), folder, Execution(batch_size=batch_size, workers=0, device="cpu"))
    run, name = Run(folder), profiles.name(profile.source)
    ours = "not ours to publish: only numbers are kept"
    made = {
        "title": run.title,  # as the run itself, whose place it takes in an edition of its own
        "commit": git("rev-parse", "HEAD", cwd=ROOT),
        "command": f"python -m scripts.online run --profile {name}",
        "photographs": {"source": profile.download["data"].address, "licence": ours},
        "weights": {"source": profile.download["weights"].address, "licence": ours},
    }
    target = kept / f"{profile.model}-{name}"
    shutil.rmtree(target, ignore_errors=True)
    evidence.compact(run, target, {"made": made})
    (target / "README.md").write_text(evidence.readme(Run(target), target.name), "utf-8")
    return target


def editions(profile: Profile, work: Path) -> dict[str, list[str]]:
    """The options of ``book/build.py`` by edition: the first alone, or it and the profile's where that has a finished run."""
    name, run = profiles.name(profile.source), folder_of(profile, work)
    if not records.Run(run).finished:
        return {FIRST: ["--profile", FIRST]}
    return {
        FIRST: ["--profile", FIRST, "--beside", f"{name}={name}"],
        name: ["--profile", profile.source, "--run", str(run), "--beside", f"{FIRST}=.."],
    }


def build(arguments: Sequence[str]) -> None:
    """Build a book in a process of its own.

    Raises:
        InputError: if that fails; it has said why.
    """
    done = subprocess.run([sys.executable, str(ROOT / "book" / "build.py"), *arguments], check=False)
    if done.returncode != 0:
        raise InputError(f"book/build.py {' '.join(arguments)} has failed (exit code {done.returncode})")


def site(profile: Profile, work: Path, repository: str | None, address: str | None) -> Path:
    """Build the editions into one site, whose address is as given; returns its folder."""
    whole = work / "site"
    shutil.rmtree(whole, ignore_errors=True)
    for name, options in editions(profile, work).items():
        out, inside = work / f"book-{name}", "" if name == FIRST else f"{name}/"
        known = ["--repository", repository] if repository else []
        known += ["--address", f"{address.rstrip('/')}/{inside}"] if address else []
        build([*options, "--out", str(out), *known])
        shutil.copytree(out / "_build" / "html", whole / inside, dirs_exist_ok=True)
    return whole


def commit(root: Path, repository: str) -> str:
    """A commit on top of the one that is checked out, whose notebooks install that one, with the records in ``evidence``.

    Working tree and branches stay as they are; returns its hash.
    """
    address = setup_cell.edition(repository, root)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        git("worktree", "add", "--detach", str(copy), "HEAD", cwd=root)
        try:
            for notebook in (copy / "notebooks").glob("*.ipynb"):
                setup_cell.write(notebook, address)
            shutil.copytree(root / "evidence", copy / "evidence", dirs_exist_ok=True)
            git("add", "--all", cwd=copy)
            git("commit", "--quiet", "--message", f"edition: notebooks install {address}", cwd=copy)
            return git("rev-parse", "HEAD", cwd=copy)
        finally:
            git("worktree", "remove", "--force", str(copy), cwd=root)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", default="paper", metavar="NAME_OR_FILE", help="Whose experiment (default: paper).")
@click.option(
    "--work", type=click.Path(path_type=Path), default="runs/online", help="For runs and the site (default: runs/online)."
)
@click.pass_context
def main(context: click.Context, profile: str, work: Path) -> None:
    """Make the online edition."""
    context.obj = {"profile": profiles.load(profile), "work": work}


@main.command("key")
@click.pass_obj
def print_key(given: dict[str, Any]) -> None:
    """Print what the numbers depend on, as a hash."""
    print(key(given["profile"]))


@main.command("run")
@click.option("--evidence", "kept", type=click.Path(path_type=Path), default=ROOT / "evidence", help="For the records.")
@click.pass_obj
def run_command(given: dict[str, Any], kept: Path) -> None:
    """Download and evaluate; an interrupted run goes on."""
    print(evaluate(given["profile"], given["work"], kept))


@main.command("site")
@click.option("--repository", metavar="URL", help="Address on GitHub.")
@click.option("--address", metavar="URL", help="Where the site will be, for citations and previews.")
@click.pass_obj
def site_command(given: dict[str, Any], repository: str | None, address: str | None) -> None:
    """Build the editions of the book, each naming the other."""
    print(site(given["profile"], given["work"], repository, address))


@main.command("branch")
@click.option("--repository", metavar="URL", required=True, help="Address from which the notebooks install the package.")
@click.option("--remote", default="origin", help="Where to push (default: origin).")
def branch_command(repository: str, remote: str) -> None:
    """Push notebooks that know what to install, and the records, as the branch that launch buttons open."""
    made = commit(ROOT, repository)
    git("push", "--force", remote, f"{made}:refs/heads/{BRANCH}", cwd=ROOT)
    print(made)


if __name__ == "__main__":
    run(main)
