"""The command line: parses, calls, prints. Bad input ends in one line and exit code 2."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from gradcampp import classes as class_names
from gradcampp import data, evaluate, figures, models, network, records, tables
from gradcampp.classes import Classes
from gradcampp.config import SCORES, Execution, Experiment, Preprocessing
from gradcampp.errors import InputError
from gradcampp.network import Network

INTERRUPTED = 130  # what shells report for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (0 done, 2 bad input, 130 interrupted)."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of odd metadata; damage is an error
    try:
        options.run(options)
    except InputError as error:
        return _complain(str(error))
    except OSError as error:  # a full disk, a folder that may not be written, a broken mount
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"cannot read or write{where}: {error.strerror or error}; make room, or choose another path")
    except KeyboardInterrupt:
        print("gradcampp: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def _complain(reason: str) -> int:
    print(f"gradcampp: error: {' '.join(reason.split())}", file=sys.stderr)
    return 2


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
    run.add_argument(
        "--threshold", type=_threshold, default=0.5, metavar="T", help="explain images whose label scores over T (default: 0.5)"
    )
    run.add_argument("--limit", type=_at_least(1), metavar="N", help="only N images: the first, or with --seed a random sample")
    run.add_argument(
        "--batch-size", type=_at_least(1), metavar="N", help="images in the network together (default: 8 on a CPU, 128 on a GPU)"
    )
    run.add_argument(
        "--workers",
        type=_at_least(0),
        metavar="N",
        help="processes that decode photographs ahead (default: 0 on a CPU, which decodes between batches; up to 8 on a GPU)",
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument(
        "--seed", type=_at_least(0), metavar="N", help="seed of the sample of --limit, and of --weights random (default: 0)"
    )
    run.add_argument(
        "--skip-bad-images", action="store_true", help="report and leave out unreadable photographs instead of stopping"
    )

    report = commands.add_parser("report", help="write Tables 1-2 and Figures 4 and 6 of a finished run")
    report.set_defaults(run=_report)
    report.add_argument("folder", type=Path, metavar="RUN")
    report.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/report)")
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="vgg16", metavar="NAME", help="a torchvision name or module:factory (default: vgg16)")
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


def _preprocessing(options: argparse.Namespace, default: Preprocessing) -> Preprocessing:
    """The network's own preprocessing with what the user overrides."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("resize", "crop", "mean", "std")
        if (value := getattr(options, name)) is not None
    }
    chosen = dataclasses.replace(default, **given)
    if chosen.crop > chosen.resize:
        raise InputError(f"--crop {chosen.crop} is larger than --resize {chosen.resize}; expected a crop that fits")
    if not all(value > 0 for value in chosen.std):
        raise InputError(f"--std {chosen.std}: expected three positive numbers")
    return chosen


def _prepare(options: argparse.Namespace) -> tuple[models.Model, Network, Classes]:
    """The network that the options describe, and the names of its classes."""
    model = models.build(options.model, options.weights, options.seed or 0)
    preprocessing = _preprocessing(options, model.preprocessing)
    blank = torch.zeros(1, 3, preprocessing.crop, preprocessing.crop)
    try:
        count = network.forward(model.module, blank).shape[1]
    except RuntimeError as error:
        raise InputError(
            f"{options.model} cannot take images of {preprocessing.crop} pixels: {error}; set --resize and --crop"
        ) from None
    layer = options.layer or network.default_layer(model.module, blank)
    network.find_layer(model.module, layer)
    classes = class_names.numbered(count) if options.classes is None else class_names.from_file(options.classes)
    if len(classes) != count:
        raise InputError(
            f"{options.classes} has {len(classes)} names, and the network {count} classes; expected one name a class"
        )
    return model, Network(model.module, layer, preprocessing), classes


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _explain(options: argparse.Namespace) -> None:
    ending = options.out.suffix.lower().removeprefix(".")
    if ending not in ("png", "svg", "pdf"):
        raise InputError(f"--out {options.out}: expected a name that ends in .png, .svg or .pdf")
    if not options.out.parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist")
    _, net, classes = _prepare(options)
    net.module.to(_device(options.device))
    labels = [class_names.find(classes, text) for text in options.wanted]
    rows: list[evaluate.Explanation] = []
    for path in options.photos:
        photograph = data.read_photograph(path, net.preprocessing, upright=True)
        explained = evaluate.explain(net, photograph, labels, options.scores)
        rows += explained
        scores, indices = explained[0].probabilities.topk(min(5, len(classes)))
        print(path)
        for score, index in zip(scores.tolist(), indices.tolist(), strict=True):
            print(f"  {score:8.4f}  {classes.label(index)}")
    stem = options.out.with_suffix("")
    written = figures.save(figures.explanations(rows, classes.names, options.scores), stem, [ending])
    if options.alphas:
        written += figures.save(figures.single_alphas(rows[0]), stem.with_name(f"{stem.name}-alphas"), [ending])
    print(f"layer {net.layer}, {options.scores}-softmax; wrote {', '.join(map(str, written))}")


def _evaluate(options: argparse.Namespace) -> None:
    device = _device(options.device)
    model, net, classes = _prepare(options)
    photographs = data.choose(data.list_photographs(options.data, classes), options.limit, options.seed)
    experiment = Experiment(
        model=model.name,
        weights=model.weights,
        layer=net.layer,
        preprocessing=net.preprocessing,
        threshold=options.threshold,
        limit=options.limit,
        seed=options.seed,
    )
    execution = Execution(
        batch_size=options.batch_size or (8 if device == "cpu" else 128),
        workers=(0 if device == "cpu" else min(8, os.cpu_count() or 1)) if options.workers is None else options.workers,
        device=device,
        skip_bad_images=options.skip_bad_images,
    )
    manifest = evaluate.evaluate(net, photographs, options.data, options.out, experiment, execution)
    skipped = f", {len(manifest['skipped'])} unreadable skipped" if manifest["skipped"] else ""
    print(
        f"{options.out}: {manifest['over_threshold']} of {manifest['images']} images over {experiment.threshold:g}{skipped}; "
        f"top-1 {manifest['top1']:.2%}, top-5 {manifest['top5']:.2%}; layer {net.layer}"
    )


def _report(options: argparse.Namespace) -> None:
    rows, alphas = records.read_records(options.folder), records.read_alphas(options.folder)
    out: Path = options.out or options.folder / "report"
    both = tables.tables(rows)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, table in both.items():
        readable = tables.readable(name, table)
        table.to_csv(out / f"{name}.csv", index=False)
        (out / f"{name}.md").write_text(tables.formatted(readable, "github") + "\n", "utf-8")
        (out / f"{name}.tex").write_text(tables.formatted(readable, "latex") + "\n", "utf-8")
        written += [out / f"{name}.{ending}" for ending in ("csv", "md", "tex")]
        print(f"{tables.title(name, table)}\n\n{tables.formatted(readable, 'simple')}\n")
    for scores in SCORES:
        written += figures.save(figures.alpha_distribution(alphas[scores], scores), out / f"figure4-{scores}", ["png", "svg"])
    written += figures.save(figures.relative_performances(rows), out / "figure6", ["png", "svg"])
    print("wrote " + ", ".join(str(path) for path in written))
