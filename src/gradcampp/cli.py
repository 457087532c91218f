"""The command line: parses, calls, prints. Bad input ends in one line and exit code 2.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from gradcampp.errors import InputError
from gradcampp.options import (
    COUNT,
    PATH,
    SCORES,
    WHOLE,
    check_ending,
    choose_device,
    execution_of,
    model_options,
    profile_of,
    run_options,
)

if TYPE_CHECKING:
    from gradcampp.evaluation.processes import Processes

UNEXPECTED, BAD_INPUT = 1, 2
INTERRUPTED, UNREAD = 130, 141  # what shells report for Ctrl-C, and for a program whose output nobody reads any more
SHARED = ("evaluate", "audit", "reproduce")  # what several processes can do together


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command: 0 done, 1 an unexpected verdict, 2 bad input, 130 interrupted, 141 nobody reads the output."""
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch loads: threads that wait soon leave the cores to others
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of odd metadata; damage is an error
    processes = None
    try:
        with contextlib.ExitStack() as undone:
            if threading.current_thread() is threading.main_thread():  # SIGTERM, of torchrun and schedulers, acts like Ctrl-C
                undone.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
            if "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun, and seen without loading torch
                from gradcampp.evaluation.processes import started

                processes = started()
            if processes and processes.rank:  # the first process talks to the user
                undone.enter_context(contextlib.redirect_stdout(io.StringIO()))
            given = list(sys.argv[1:] if arguments is None else arguments)
            with commands.make_context("gradcampp", given, obj=processes) as context:
                code = commands.invoke(context)
            sys.stdout.flush()  # here, where a closed pipe is caught
            return int(code or 0)
    except click.exceptions.Exit as done:  # after --help or --version
        return done.exit_code
    except click.UsageError as error:
        if processes and processes.rank:
            return BAD_INPUT
        hint = f"({error.ctx.command_path if error.ctx else 'gradcampp'} --help shows what there is)"
        return _leave(BAD_INPUT, f"error: {error.format_message().rstrip('.')} {hint}", None)
    except InputError as error:
        return _leave(BAD_INPUT, f"error: {error}", processes)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return UNREAD
        where = f" {error.filename}" if error.filename else ""
        reason = f"cannot read or write{where}: {error.strerror or error}; make room, or choose another path"
        return _leave(BAD_INPUT, f"error: {reason}", processes)
    except KeyboardInterrupt:
        return _leave(INTERRUPTED, "interrupted; the same command goes on where it stopped", processes)


def _leave(code: int, reason: str, processes: Processes | None) -> int:
    """Say why in one line, unless another process of the run has said why it leaves."""
    if processes is None or processes.speaks():
        print(f"gradcampp: {' '.join(reason.split())}", file=sys.stderr)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(package_name="gradcampp", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Grad-CAM, Grad-CAM+ and Grad-CAM++ compared, after Lerma & Lucas (2022)."""
    size = context.obj.size if context.obj else 1
    if size > 1 and context.invoked_subcommand not in SHARED:
        raise InputError(f"torchrun has started {size} processes; only evaluate and reproduce can share their work")


@commands.command()
@click.argument("photos", nargs=-1, required=True, type=PATH, metavar="PHOTO...")
@model_options
@option("--class", "wanted", multiple=True, metavar="CLASS", help="name or index, once or more (default: the highest score's)")
@option("--scores", type=click.Choice(SCORES), default="pre", help="explain the logit or the softmax score (default: pre)")
@option("--out", type=PATH, default="explanation.png", metavar="FILE", help="png, svg or pdf (default: explanation.png)")
@option("--alphas", is_flag=True, help="also draw the alphas of the first row, as FILE-alphas")
def explain(photos: list[Path], wanted: list[str], scores: Any, out: Path, alphas: bool, device: str, **options: Any) -> None:
    """Draw the three maps of photographs (Figures 2, 3 and 5)."""
    check_ending(out, ".png, .svg or .pdf")
    from gradcampp.evaluation import maps, photographs, profiles
    from gradcampp.networks.classes import find
    from gradcampp.results.figures import one_image, style

    network = profiles.network(profiles.override(profiles.Profile(), options))
    classes = network.classes
    network.module.to(choose_device(device, None))
    labels = [find(classes, text) for text in wanted]
    rows: list[maps.Explanation] = []
    for path in photos:
        photograph = photographs.read_photograph(path, network.preprocessing, upright=True)
        explained = maps.explain(network, photograph, labels, scores)
        rows += explained
        probabilities = explained[0].probabilities
        print(path)
        for index in probabilities.topk(min(5, len(classes))).indices.tolist():
            print(f"  {float(probabilities[index]):8.4f}  {classes.label(index)}")
    stem, ending = out.with_suffix(""), [out.suffix.lower().removeprefix(".")]
    written = style.save(one_image.explanations(rows, classes.names, scores), stem, ending)
    if alphas and len(rows[0].alphas) == 0:
        raise InputError(f"no unit of layer {network.layer} has a gradient for {scores}-softmax scores; there are no alphas")
    if alphas:
        written += style.save(one_image.single_alphas(rows[0]), stem.with_name(f"{stem.name}-alphas"), ending)
    print(f"layer {network.layer}, {scores}-softmax; wrote {', '.join(map(str, written))}")


@commands.command()
@option("--data", type=PATH, required=True, metavar="DIR", help="one folder a class, named by index, WordNet id or name")
@option("--out", type=PATH, required=True, metavar="RUN", help="run folder; an interrupted run in it goes on")
@model_options
@run_options
@click.pass_obj
def evaluate(processes: Processes | None, /, data: Path, out: Path, **options: Any) -> None:
    """Score the explanation maps of a folder of photographs."""
    from gradcampp.evaluation import photographs, profiles, run

    execution = execution_of(options, processes)
    profile = profile_of(profiles.Profile(), options, processes)
    network = profiles.network(profile)
    chosen = photographs.choose(photographs.list_photographs(data, network.classes), profile.limit, profile.seed)
    experiment = profiles.experiment(profile, network)
    manifest = run.evaluate(network, chosen, data, out, experiment, execution, processes).manifest
    skipped = f", {len(manifest['skipped'])} unreadable skipped" if manifest["skipped"] else ""
    print(
        f"{out}: {manifest['over_threshold']} of {manifest['images']} images over {profile.threshold:g}{skipped}; "
        f"top-1 {manifest['top1']:.2%}, top-5 {manifest['top5']:.2%}; layer {network.layer}"
    )


@commands.command()
@option("--data", type=PATH, required=True, metavar="DIR", help="one folder a class, named by index, WordNet id or name")
@option("--out", type=PATH, required=True, metavar="DIR", help="for records and report; an interrupted audit in it goes on")
@model_options
@run_options
@click.pass_obj
def audit(processes: Processes | None, /, data: Path, out: Path, **options: Any) -> None:
    """Compare what programs call Grad-CAM++ with the paper's formula."""
    from gradcampp.evaluation import audit, photographs, profiles, run
    from gradcampp.results import audit as said

    execution = execution_of(options, processes)
    profile = profile_of(profiles.Profile(), options, processes)
    network = profiles.network(profile)
    chosen = photographs.choose(photographs.list_photographs(data, network.classes), profile.limit, profile.seed)
    experiment = audit.experiment(profiles.experiment(profile, network))
    run.evaluate(network, chosen, data, out, experiment, execution, processes, audit.measure)
    if not processes or not processes.rank:
        report = said.write(out, out)
        print(report.text)
        print("wrote " + ", ".join(map(str, report.files)))


@commands.command()
@option("--profile", default="mini", metavar="NAME_OR_FILE", help="mini, photographs, paper or a TOML file (default: mini)")
@option("--out", type=PATH, metavar="RUN", help="run folder; an interrupted run in it goes on (default: runs/PROFILE)")
@option("--data", type=PATH, metavar="DIR", help="folder of class folders (default: the profile's)")
@option("--scenes", type=COUNT, metavar="N", help="number of generated scenes, where there is no --data")
@option("--photograph", type=PATH, metavar="PHOTO", help="picture of Figures 1, 2, 3 and 5")
@model_options
@run_options
@click.pass_obj
def reproduce(processes: Processes | None, /, profile: str, out: Path | None, **options: Any) -> None:
    """Everything: a run, Tables 1-2, Figures 1-6, a summary page."""
    from gradcampp.evaluation import download, profiles
    from gradcampp.results import reproduce

    execution = execution_of(options, processes)
    chosen = download.in_cache(profile_of(profiles.load(profile), options, processes))
    said = reproduce.run(chosen, out or Path("runs", profiles.name(profile)), execution, processes)
    print(said.text, *(path for path in said.files if path.suffix in (".png", ".csv")), sep="\n")
    print("open", *said.files[:1])


@commands.command()
@click.argument("folder", type=PATH, metavar="RUN")
@option("--out", type=PATH, metavar="DIR", help="where to write (default: RUN/report)")
@option("--profile", metavar="NAME_OR_FILE", help="compare the accuracy with what this profile expects")
def report(folder: Path, out: Path | None, profile: str | None) -> None:
    """Write Tables 1-2 and Figures 4 and 6 of a finished run."""
    from gradcampp.evaluation import profiles, records
    from gradcampp.results import report

    expected = profiles.load(profile).expected if profile else None
    said = report.write(records.Run(folder), out or folder / "report", expected)
    print(said.text)
    print("wrote " + ", ".join(map(str, said.files)))


@commands.command()
@option("--run", "folders", type=PATH, multiple=True, metavar="RUN", help="a finished run for the empirical claims, once or more")
@option("--out", type=PATH, metavar="FILE", help="the ledger as JSON (default: claims.json, in RUN where one is given)")
def claims(folders: tuple[Path, ...], out: Path | None) -> int:
    """Check every claim of the paper; print the ledger of verdicts."""
    from gradcampp.claims import ledger
    from gradcampp.evaluation.records import Run

    out = out or (folders[0] if len(folders) == 1 else Path()) / "claims.json"
    if len(folders) > 1:
        judged = ledger.judge({str(folder): Run(folder) for folder in folders})
        ledger.write_across(judged, out)
        print(ledger.table_across(judged))
        found = [(f" on {run}", row) for rows in judged for run, row in rows.items()]
    else:
        rows = ledger.ledger(Run(folders[0]) if folders else None)
        ledger.write(rows, out)
        print(ledger.table(rows))
        found = [("", row) for row in rows]
    counted = ledger.counts(row for _, row in found)
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counted.items()) + f"; wrote {out}")
    deviating = [(run, row) for run, row in found if row.deviates]
    for run, row in deviating:
        said = f"{row.finding.verdict}, expected {row.expected}: {row.finding.evidence}"
        print(f"gradcampp: {row.claim.name}{run}: {said}", file=sys.stderr)
    return UNEXPECTED if deviating else 0


@commands.command()
@option("--profile", default="paper", metavar="NAME_OR_FILE", help="paper or a TOML file (default: paper)")
@option("--to", type=PATH, metavar="DIR", help="cache folder (default: GRADCAMPP_CACHE, or the platform's for caches)")
def download(profile: str, to: Path | None) -> None:
    """Fetch what a profile needs, once: weights and photographs."""
    from gradcampp.evaluation import download, profiles

    downloads = list(profiles.load(profile).download.values())
    cache = to or download.cache_folder()
    paths = download.fetch(downloads, cache) if downloads else []
    print("\n".join(map(str, paths)) if paths else f"profile {profile} needs no download")
    setting = f"{download.VARIABLE}={shlex.quote(str(cache.absolute()))} " if to else ""
    print(f"now: {setting}gradcampp reproduce --profile {shlex.quote(profile)}")


@commands.command()
@option("--class", "wanted", multiple=True, metavar="NAME", help="class; twice for a pair")
@option("--instances", type=COUNT, metavar="N", help="1 to 4 (default: drawn from the seed)")
@option("--seed", type=WHOLE, metavar="N", default=0, help="another seed, another scene (default: 0)")
@option("--out", type=PATH, default="scene.png", metavar="FILE", help="a .png (default: scene.png)")
def scene(wanted: Sequence[str], instances: int | None, seed: int, out: Path) -> None:
    """Draw a generated scene."""
    check_ending(out, ".png")
    from gradcampp import scenes
    from gradcampp.networks.classes import find, named
    from gradcampp.scenes.folder import save_scene

    known = named(list(scenes.CLASSES))
    labels = [find(known, text) for text in wanted]
    if len(labels) > 2 or (len(labels) == 2 and instances is not None):
        raise InputError("a scene has one class, or two with one instance each; give --class once with --instances, or twice")
    try:
        if len(labels) == 2:
            drawn = scenes.pair(seed, "gallery", 0, labels=(labels[0], labels[1]))
        else:
            drawn = scenes.draw(seed, "gallery", 0, label=labels[0] if labels else None, instances=instances)
    except ValueError as error:
        raise InputError(f"no such scene: {error}") from None
    save_scene(drawn, out)
    print(f"{out}: {len(drawn.masks)} x {', '.join(scenes.CLASSES[label] for label in drawn.labels)}")
