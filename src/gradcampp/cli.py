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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from gradcampp import console
from gradcampp.errors import InputError, Notice, listed
from gradcampp.options import (
    COUNT,
    PATH,
    SCORES,
    SEED,
    begun,
    check_apart,
    check_ending,
    check_inputs,
    choose_device,
    execution_of,
    folder_options,
    model_options,
    profile_of,
    run_options,
)

if TYPE_CHECKING:
    from gradcampp.evaluation.processes import Processes

SHARED = ("evaluate", "audit", "reproduce")  # what several processes can do together


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command: 0 done, 1 an unexpected verdict, 2 bad input, 130 interrupted, 141 nobody reads the output."""
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch loads: threads that wait soon leave the cores to others
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    processes = None
    try:
        with contextlib.ExitStack() as undone:
            if threading.current_thread() is threading.main_thread():  # SIGTERM, of torchrun and schedulers, acts like Ctrl-C
                for sent in (signal.SIGTERM, signal.SIGINT):
                    if signal.getsignal(sent) in (signal.SIG_DFL, signal.default_int_handler):  # not what a parent ignores
                        undone.callback(signal.signal, sent, signal.signal(sent, console.interrupt))
            if "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun, and seen without loading torch
                from gradcampp.evaluation.processes import started

                processes = started()
            undone.enter_context(warnings.catch_warnings())
            warnings.showwarning = partial(console.show_notice, warnings.showwarning, processes, set())
            warnings.filterwarnings("ignore", module=r"PIL\b")  # of odd metadata; damage is an error
            warnings.filterwarnings("ignore", "Attempting to run cuBLAS")  # torch's first backward pass on a GPU, which goes on
            warnings.simplefilter("always", Notice)
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
            return console.BAD_INPUT
        hint = f"({error.ctx.command_path if error.ctx else 'gradcampp'} --help shows what there is)"
        return console.leave(console.BAD_INPUT, f"error: {error.format_message().rstrip('.')} {hint}", None)
    except InputError as error:
        return console.leave(console.BAD_INPUT, f"error: {error}", processes)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return console.UNREAD
        where = f" {error.filename}" if error.filename else ""
        reason = f"cannot read or write{where}: {error.strerror or error}; make room, or choose another path"
        return console.leave(console.BAD_INPUT, f"error: {reason}", processes)
    except (MemoryError, RuntimeError) as error:
        from gradcampp.networks.running import out_of_memory

        if not out_of_memory(error):
            raise
        return console.leave(console.BAD_INPUT, "error: out of memory; choose a smaller --crop, or another --device", processes)
    except KeyboardInterrupt:
        return console.leave(console.INTERRUPTED, console.STOPPED, processes)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=console.show_versions, help="Versions of all parts."
)
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
@option("--arrays", type=PATH, metavar="FILE", help="also write the maps as arrays, with all settings and hashes, as .npz")
def explain(
    photos: list[Path], wanted: list[str], scores: Any, out: Path, alphas: bool, arrays: Path | None, device: str, **options: Any
) -> None:
    """Draw the three maps of photographs (Figures 2, 3 and 5)."""
    check_ending(out, ".png, .svg or .pdf")
    if arrays:
        check_ending(arrays, ".npz", "--arrays")
    stem, ending = out.with_suffix(""), [out.suffix.lower().removeprefix(".")]
    beside = stem.with_name(f"{stem.name}-alphas")
    drawn = [each.with_name(f"{each.name}.{ending[0]}") for each in (stem, beside)]
    for each in (out, *drawn[: 1 + alphas], *filter(None, [arrays])):
        check_inputs(each, [*photos, options["weights"], options["classes"]])
    from gradcampp.evaluation import maps, photographs, profiles
    from gradcampp.evaluation.arrays import save_arrays
    from gradcampp.networks.classes import find
    from gradcampp.networks.probe import move
    from gradcampp.results.figures import one_image, style

    network = profiles.network(profiles.override(profiles.Profile(), options))
    classes = network.classes
    move(network, choose_device(device, None))
    found = [find(classes, text) for text in wanted]
    labels = list(dict.fromkeys(found))
    if len(labels) < len(found):
        twice = listed([classes.label(label) for label in labels if found.count(label) > 1])
        warnings.warn(f"--class names {twice} more than once; drawn once", Notice, stacklevel=1)
    rows: list[maps.Explanation] = []
    paths: list[Path] = []
    for path in photos:
        photograph = photographs.read_photograph(path, network.preprocessing, upright=True)
        explained = maps.explain(network, photograph, labels, scores)
        rows += explained
        paths += [path] * len(explained)
        probabilities = explained[0].probabilities
        print(path)
        for index in probabilities.topk(min(5, len(classes))).indices.tolist():
            print(f"  {float(probabilities[index]):8.4f}  {classes.label(index)}")
    for row in rows:
        if row.empty:
            warnings.warn(maps.without_maps(row, classes.label(row.label)), Notice, stacklevel=1)
    if all(len(row.empty) == len(row.maps) for row in rows):
        raise InputError(f"layer {network.layer} has no map of the {style.long(scores, network.score)} scores; nothing is drawn")
    written = style.save(one_image.explanations(rows, classes.names, scores, network.score), stem, ending)
    if alphas and len(rows[0].alphas) == 0:
        raise InputError(f"no unit of layer {network.layer} has a gradient for {scores}-softmax scores; there are no alphas")
    if alphas:
        written += style.save(one_image.single_alphas(rows[0]), beside, ending)
    if arrays:
        written.append(save_arrays(arrays, network, paths, rows))
    print(f"input: {network.preprocessing}")
    print(f"layer {network.place}, {style.long(scores, network.score)}; wrote {', '.join(map(str, written))}")
    if options["model"] is None:
        warnings.warn(profiles.NOT_CHOSEN, Notice, stacklevel=1)


@commands.command()
@folder_options
@click.pass_obj
def evaluate(processes: Processes | None, /, data: Path, out: Path, **options: Any) -> None:
    """Score the explanation maps of a folder of photographs."""
    check_apart(out, data)
    from gradcampp.evaluation import profiles, run
    from gradcampp.evaluation.folders import at_chance

    execution, profile, network, chosen = begun(data, options, processes)
    experiment = profiles.experiment(profile, network)
    manifest = run.evaluate(network, chosen, data, out, experiment, execution, processes).manifest
    over, accuracy = "explained", ""  # a quantity is neither over a threshold nor right or wrong
    if network.score != "logit":
        over, accuracy = f"over {profile.threshold:g}", f"; top-1 {manifest['top1']:.2%}, top-5 {manifest['top5']:.2%}"
    skipped = f", {len(manifest['skipped'])} unreadable skipped" if manifest["skipped"] else ""
    print(f"{out}: {manifest['over_threshold']} of {manifest['images']} images {over}{skipped}{accuracy}; layer {network.place}")
    if network.score != "logit" and (loud := at_chance(manifest, len(network.classes))):
        warnings.warn(loud, Notice, stacklevel=1)


@commands.command()
@folder_options
@click.pass_obj
def audit(processes: Processes | None, /, data: Path, out: Path, **options: Any) -> None:
    """Compare what programs call Grad-CAM++ with the paper's formula."""
    check_apart(out, data)
    from gradcampp.evaluation import audit, profiles, run
    from gradcampp.results import audit as said

    execution, profile, network, chosen = begun(data, options, processes)
    experiment = audit.experiment(profiles.experiment(profile, network))
    run.evaluate(network, chosen, data, out, experiment, execution, processes, audit.measure)
    if not processes or not processes.rank:
        report = said.write(out, out)
        print(report.text)
        print("wrote " + ", ".join(map(str, report.files)))


@commands.command()
@option(
    "--profile",
    default="mini",
    metavar="NAME_OR_FILE",
    help="mini, photographs, paper, paper-keras or a TOML file (default: mini)",
)
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

    out = out or Path("runs", profiles.name(profile))
    photograph = options["photograph"]
    if photograph and out.exists() and photograph.parent.exists() and photograph.parent.samefile(out):
        raise InputError(f"--photograph {photograph} is in {out}, whose figures would be written over it; choose another --out")
    execution = execution_of(options, processes)
    chosen = download.in_cache(profile_of(profiles.load(profile), options, processes))
    check_apart(out, chosen.data)
    said = reproduce.run(chosen, out, execution, processes)
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
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="RUN...")
@option("--out", type=PATH, default="comparison", metavar="DIR", help="where to write (default: comparison)")
def compare(folders: tuple[Path, ...], out: Path) -> None:
    """Put finished runs into one table and one figure."""
    from gradcampp.evaluation.records import Run
    from gradcampp.results import report

    said = report.compare({str(folder): Run(folder) for folder in folders}, out)
    print(said.text)
    print("wrote " + ", ".join(map(str, said.files)))


@commands.command()
@option("--run", "folders", type=PATH, multiple=True, metavar="RUN", help="a finished run for the empirical claims, once or more")
@option("--out", type=PATH, metavar="FILE", help="the ledger as JSON (default: claims.json, in RUN where one is given)")
def claims(folders: tuple[Path, ...], out: Path | None) -> int:
    """Check every claim of the paper; print the ledger of verdicts."""
    if out:
        check_ending(out, ".json")
        check_inputs(out, [folder / "manifest.json" for folder in folders])
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
    return console.UNEXPECTED if deviating else 0


@commands.command()
@option("--profile", default="paper", metavar="NAME_OR_FILE", help="paper, paper-keras or a TOML file (default: paper)")
@option("--to", type=PATH, metavar="DIR", help="cache folder (default: GRADCAMPP_CACHE, or the platform's for caches)")
def download(profile: str, to: Path | None) -> None:
    """Fetch what a profile needs, once: weights and photographs."""
    from gradcampp.evaluation import download, profiles

    downloads = list(profiles.load(profile).download.values())
    cache = to or download.cache_folder()
    paths = download.fetch(downloads, cache) if downloads else []
    print("\n".join(map(str, paths)) if paths else f"profile {profile} needs no download")
    if hint := profiles.missing_data(profiles.load(profile)):
        print(hint)
    setting = f"{download.VARIABLE}={shlex.quote(str(cache.absolute()))} " if to else ""
    print(f"now: {setting}gradcampp reproduce --profile {shlex.quote(profile)}")


@commands.command()
@option("--class", "wanted", multiple=True, metavar="NAME", help="class; twice for a pair")
@option("--instances", type=COUNT, metavar="N", help="1 to 4 (default: drawn from the seed)")
@option("--seed", type=SEED, metavar="N", default=0, help="another seed, another scene (default: 0)")
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
