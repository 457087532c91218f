"""The command line: parses, calls, prints. Bad input ends in one line and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from gradcampp.cam import SCORES
from gradcampp.claims import ledger
from gradcampp.errors import InputError
from gradcampp.evaluation import download, maps, profiles
from gradcampp.evaluation.download import in_cache
from gradcampp.evaluation.photographs import choose, list_photographs, read_photograph
from gradcampp.evaluation.processes import Processes, started
from gradcampp.evaluation.profiles import Profile
from gradcampp.evaluation.records import Run, experiment_of
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.capture import PRECISIONS
from gradcampp.networks.classes import find, named
from gradcampp.results import report
from gradcampp.results.figures import one_image, style
from gradcampp.results.reproduce import run
from gradcampp.scenes import scene as scene_module
from gradcampp.scenes import shapes
from gradcampp.scenes.folder import save_scene
from gradcampp.scenes.scene import pair

UNEXPECTED = 1  # a claim's verdict is not the committed one


CHANGES = {  # measured with benchmarks/precision.py, SqueezeNet on 200 ImageNet photographs; README, "Precision"
    "float32": "",
    "tf32": "relative performance by up to 0.24 percent and standard deviations by up to 1.7 percent (emulated)",
    "bf16": "relative performance by up to 2.4 percent and standard deviations by up to 46 percent",
}


INTERRUPTED = 130  # what shells report for Ctrl-C


UNREAD = 141  # and for a program whose output nobody reads any more


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0 done, 1 an unexpected verdict or a book that does not build, 2 bad input, 130 interrupted, 141 nobody reads
    the output any more.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of odd metadata; damage is an error
    world = None
    try:
        with _terminated_like_interrupted():
            world = started()
            options = _parse(arguments, world)
            if world.size > 1 and options.run not in (_evaluate, _reproduce):
                raise InputError(f"torchrun has started {world.size} processes; only evaluate and reproduce can share their work")
            options.processes = world
            code = int(options.run(options) or 0)
            sys.stdout.flush()  # here, where a closed pipe is caught
            return code
    except InputError as error:
        return _leave(2, f"error: {' '.join(str(error).split())}", world)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return UNREAD
        # a full disk, a folder that may not be written, a broken mount
        where = f" {error.filename}" if error.filename else ""
        reason = f"cannot read or write{where}: {error.strerror or error}; make room, or choose another path"
        return _leave(2, f"error: {' '.join(reason.split())}", world)
    except KeyboardInterrupt:
        return _leave(INTERRUPTED, "interrupted; the same command goes on where it stopped", world)


def _leave(code: int, reason: str, world: Processes | None) -> int:
    """Say why, unless another process of the run has said why it leaves."""
    if world is None or world.speaks():
        print(f"gradcampp: {reason}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which torchrun and cluster schedulers send, saves what is finished just as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: Sequence[str] | None, world: Processes) -> argparse.Namespace:
    """The options; what the parser itself has to say, the first process says for all."""
    if world.rank == 0:
        return _parser().parse_args(arguments)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return _parser().parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help shows the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gradcampp", description="Grad-CAM, Grad-CAM+ and Grad-CAM++ compared, after Lerma & Lucas (2022).")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    explain = commands.add_parser("explain", help="draw the three maps of photographs (Figures 2, 3 and 5)")
    explain.set_defaults(run=_explain)
    explain.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    _add_model_options(explain)
    explain.add_argument(
        "--class", dest="wanted", action="append", default=[], metavar="NAME_OR_INDEX",
        help="class to explain; give it several times for several (default: the one with the highest score)",
    )  # fmt: skip
    explain.add_argument("--scores", choices=SCORES, default="pre", help="explain the logit or the softmax score (default: pre)")
    explain.add_argument(
        "--out", type=Path, default=Path("explanation.png"), metavar="FILE", help="png, svg or pdf (default: %(default)s)"
    )
    explain.add_argument("--alphas", action="store_true", help="also draw the alphas of the first row, as FILE-alphas")
    explain.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    explain.add_argument("--seed", type=_at_least(0), default=None, metavar="N", help="seed of --weights random (default: 0)")

    run = commands.add_parser("evaluate", help="score the explanation maps of a folder of photographs")
    run.set_defaults(run=_evaluate)
    run.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="one folder a class, named by index, WordNet id or name"
    )
    run.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder; an interrupted run in it goes on")
    _add_model_options(run)
    _add_run_options(run)

    again = commands.add_parser("reproduce", help="everything: run, Tables 1-2, Figures 1-6 and a summary page, from a profile")
    again.set_defaults(run=_reproduce)
    again.add_argument(
        "--profile", default="mini", metavar="NAME_OR_FILE", help="mini, sample, paper or a TOML file (default: mini)"
    )
    again.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: runs/PROFILE)")
    again.add_argument("--data", type=Path, metavar="DIR", help="folder of class folders (default: the profile's)")
    again.add_argument("--scenes", type=_at_least(1), metavar="N", help="number of generated scenes, where there is no --data")
    again.add_argument("--photograph", type=Path, metavar="PHOTO", help="picture of Figures 1, 2, 3 and 5")
    _add_model_options(again)
    _add_run_options(again)

    fetch = commands.add_parser("download", help="fetch what a profile needs, once: weights and photographs")
    fetch.set_defaults(run=_download)
    fetch.add_argument("--profile", default="paper", metavar="NAME_OR_FILE", help="paper or a TOML file (default: paper)")
    fetch.add_argument(
        "--to", type=Path, metavar="DIR", help=f"cache folder (default: {download.VARIABLE}, or the platform's for caches)"
    )

    scene = commands.add_parser("scene", help="draw a generated scene")
    scene.set_defaults(run=_scene)
    scene.add_argument("--class", dest="wanted", action="append", default=[], metavar="NAME", help="class; twice for a pair")
    scene.add_argument("--instances", type=_at_least(1), metavar="N", help="1 to 4 (default: drawn from the seed)")
    scene.add_argument("--seed", type=_at_least(0), metavar="N", help="another seed, another scene (default: 0)")
    scene.add_argument("--out", type=Path, default=Path("scene.png"), metavar="FILE", help="a .png (default: %(default)s)")

    tables = commands.add_parser("report", help="write Tables 1-2 and Figures 4 and 6 of a finished run")
    tables.set_defaults(run=_report)
    tables.add_argument("folder", type=Path, metavar="RUN")
    tables.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/report)")
    tables.add_argument("--profile", metavar="NAME_OR_FILE", help="compare the accuracy with what this profile expects")

    judged = commands.add_parser("claims", help="check every claim of the paper, and print the ledger with its verdicts")
    judged.set_defaults(run=_claims)
    judged.add_argument(
        "--run", dest="folder", type=Path, metavar="RUN", help="a finished run for the empirical claims (default: none of them)"
    )
    judged.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write the ledger as JSON (default: claims.json, in RUN if given)"
    )
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold", type=_threshold, metavar="T", help="explain images whose label scores over T (default: 0.5)"
    )
    parser.add_argument(
        "--limit", type=_at_least(1), metavar="N", help="only N images: the first, or with --seed a random sample"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help=f"arithmetic of the network (default: float32, exact); with SqueezeNet, tf32 moved {CHANGES['tf32']}, "
        f"bf16 {CHANGES['bf16']}",
    )
    parser.add_argument(
        "--seed", type=_at_least(0), metavar="N", help="seed of the sample of --limit, and of --weights random (default: 0)"
    )
    _add_execution_options(parser)


def _add_execution_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=_at_least(1), metavar="N", help="images in the network together (default: 8 on a CPU, 128 on a GPU)"
    )
    parser.add_argument(
        "--workers",
        type=_at_least(0),
        metavar="N",
        help="processes that decode photographs ahead (default: 0 on a CPU, which decodes between batches; up to 8 on a GPU)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--skip-bad-images", action="store_true", help="report and leave out unreadable photographs instead of stopping"
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="mini (embedded), a torchvision name or module:factory (default: mini)")
    parser.add_argument(
        "--weights", metavar="FILE", help=".safetensors or a checkpoint of tensors, or 'random' (default: torchvision's cache)"
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="module to explain (default: the last feature maps before the classifier)"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names, one a line (default: ImageNet's for 1,000 classes)"
    )
    parser.add_argument("--resize", type=_at_least(1), metavar="N", help="shorter side of a photograph in pixels")
    parser.add_argument("--crop", type=_at_least(1), metavar="N", help="side of the central square that the network sees")
    parser.add_argument(
        "--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="subtracted from the channels on the scale 0 to 1"
    )
    parser.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="what the channels are divided by")


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} up, got '{text}'")
        return value

    return whole_number


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up to but not including 1, got '{text}'")
    return value


def _device(name: str, world: Processes) -> str:
    """The device to use; of several CUDA devices, each process of a machine makes one its own."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if device == "cuda" and world.size > 1:
        count = torch.cuda.device_count()
        if world.local_rank >= count:
            raise InputError(f"torchrun has started more processes than the {count} CUDA devices of this machine; choose fewer")
        torch.cuda.set_device(world.local_rank)
    return device


def _profile(options: argparse.Namespace, start: Profile) -> Profile:
    """A profile with the options that were given in the place of its own."""
    given: dict[str, Any] = {}
    for field in dataclasses.fields(Profile):
        value = getattr(options, field.name, None)
        if value is not None:
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(start, **given)


def _execution(options: argparse.Namespace) -> Execution:
    device = _device(options.device, options.processes)
    cores = max(1, (os.cpu_count() or 1) // options.processes.local_size)
    return Execution(
        batch_size=options.batch_size or (8 if device == "cpu" else 128),
        workers=(0 if device == "cpu" else min(8, cores)) if options.workers is None else options.workers,
        device=device,
        skip_bad_images=options.skip_bad_images,
    )


def _explain(options: argparse.Namespace) -> None:
    ending = options.out.suffix.lower().removeprefix(".")
    if ending not in ("png", "svg", "pdf"):
        raise InputError(f"--out {options.out}: expected a name that ends in .png, .svg or .pdf")
    if not options.out.parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist")
    net = profiles.network(_profile(options, Profile()))
    classes = net.classes
    net.module.to(_device(options.device, options.processes))
    labels = [find(classes, text) for text in options.wanted]
    rows: list[maps.Explanation] = []
    for path in options.photos:
        photograph = read_photograph(path, net.preprocessing, upright=True)
        explained = maps.explain(net, photograph, labels, options.scores)
        rows += explained
        scores, indices = explained[0].probabilities.topk(min(5, len(classes)))
        print(path)
        for score, index in zip(scores.tolist(), indices.tolist(), strict=True):
            print(f"  {score:8.4f}  {classes.label(index)}")
    stem = options.out.with_suffix("")
    written = style.save(one_image.explanations(rows, classes.names, options.scores), stem, [ending])
    if options.alphas and len(rows[0].alphas) == 0:
        raise InputError(f"no unit of layer {net.layer} has a gradient for {options.scores}-softmax scores; there are no alphas")
    if options.alphas:
        written += style.save(one_image.single_alphas(rows[0]), stem.with_name(f"{stem.name}-alphas"), [ending])
    print(f"layer {net.layer}, {options.scores}-softmax; wrote {', '.join(map(str, written))}")


def _warn(precision: str, world: Processes) -> None:
    """What a precision other than the default costs."""
    if CHANGES.get(precision) and world.rank == 0:
        print(
            f"gradcampp: warning: --precision {precision} is for a quick look: with SqueezeNet on 200 photographs it moved "
            f"{CHANGES[precision]}; leave it out for results",
            file=sys.stderr,
        )


def _evaluate(options: argparse.Namespace) -> None:
    execution = _execution(options)
    profile = _profile(options, Profile())
    _warn(profile.precision, options.processes)
    network = profiles.network(profile)
    photographs = choose(list_photographs(options.data, network.classes), profile.limit, profile.seed)
    experiment = experiment_of(network, profile.threshold, profile.limit, profile.seed)
    manifest = evaluate(network, photographs, options.data, options.out, experiment, execution, options.processes).manifest
    if options.processes.rank:
        return
    skipped = f", {len(manifest['skipped'])} unreadable skipped" if manifest["skipped"] else ""
    print(
        f"{options.out}: {manifest['over_threshold']} of {manifest['images']} images over {experiment.threshold:g}{skipped}; "
        f"top-1 {manifest['top1']:.2%}, top-5 {manifest['top5']:.2%}; layer {experiment.layer}"
    )


def _report(options: argparse.Namespace) -> None:
    expected = profiles.load(options.profile).expected if options.profile else None
    said = report.write(Run(options.folder), options.out or options.folder / "report", expected)
    print(said.text)
    print("wrote " + ", ".join(str(path) for path in said.files))


def _reproduce(options: argparse.Namespace) -> None:
    profile = _profile(options, profiles.load(options.profile))
    out: Path = options.out or Path("runs") / profiles.name(options.profile)
    _warn(profile.precision, options.processes)
    said = run(in_cache(profile), out, _execution(options), options.processes)
    if options.processes.rank:
        return
    print(said.text)
    print("\n".join(str(path) for path in said.files if path.suffix in (".png", ".csv")))
    print(f"open {said.files[0]}")


def _claims(options: argparse.Namespace) -> int:
    run = Run(options.folder) if options.folder else None
    out: Path = options.out or (options.folder or Path()) / "claims.json"
    entries = ledger.ledger(run)
    ledger.write(entries, out)
    print(ledger.table(entries))
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in ledger.counts(entries).items()) + f"; wrote {out}")
    deviating = [entry for entry in entries if entry.deviates]
    for entry in deviating:
        print(
            f"gradcampp: {entry.claim.name}: {entry.finding.verdict}, expected {entry.expected}: {entry.finding.evidence}",
            file=sys.stderr,
        )
    return UNEXPECTED if deviating else 0


def _download(options: argparse.Namespace) -> None:
    profile = profiles.load(options.profile)
    downloads = list(profile.download.values())
    cache = options.to or download.cache_folder()
    try:
        paths = download.fetch(downloads, cache) if downloads else []
    except download.NoNetworkError:
        print(download.instructions(downloads, cache), file=sys.stderr)
        raise
    print("\n".join(map(str, paths)) if paths else f"profile {options.profile} needs no download")
    setting = f"{download.VARIABLE}={shlex.quote(str(cache.absolute()))} " if options.to else ""
    print(f"now: {setting}gradcampp reproduce --profile {shlex.quote(options.profile)}")


def _scene(options: argparse.Namespace) -> None:
    if options.out.suffix.lower() != ".png":
        raise InputError(f"--out {options.out}: expected a name that ends in .png")
    if not options.out.parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist")
    known = named(list(shapes.CLASSES))
    labels = [find(known, text) for text in options.wanted]
    if len(labels) > 2 or (len(labels) == 2 and options.instances is not None):
        raise InputError("a scene has one class, or two with one instance each; give --class once with --instances, or twice")
    seed = options.seed or 0
    try:
        if len(labels) == 2:
            scene = pair(seed, "gallery", 0, labels=(labels[0], labels[1]))
        else:
            scene = scene_module.draw(seed, "gallery", 0, label=labels[0] if labels else None, instances=options.instances)
    except ValueError as error:
        raise InputError(f"no such scene: {error}") from None
    save_scene(scene, options.out)
    print(f"{options.out}: {len(scene.masks)} x {', '.join(shapes.CLASSES[label] for label in scene.labels)}")
