"""The run that a notebook of the book reads, and values that its prose can show."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from gradcampp.evaluation import audit, gallery, profiles
from gradcampp.evaluation.download import in_cache
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution
from gradcampp.networks import lite0
from gradcampp.networks.capture import Network
from gradcampp.networks.load import load
from gradcampp.performance import percent
from gradcampp.results import reproduce
from gradcampp.results.figures import views

_PREFIX = "application/papermill.record/"


def open_run(profile: str = "mini", run: str | None = None) -> Run:
    """The run that a notebook reads; it is made first where there is none.

    Args:
        profile: name or TOML file of a profile.
        run: a folder that ``gradcampp reproduce`` wrote. None looks for ``runs/PROFILE`` in this folder and those above it,
            and makes it here where it is missing: half a minute for ``mini``, offline; an interrupted one goes on where it
            stopped.

    Raises:
        InputError: if the profile cannot be used, or the folder holds no finished run.
    """
    chosen = in_cache(profiles.load(profile))
    here = Path.cwd()
    places = [folder / "runs" / profiles.name(profile) for folder in (here, *here.parents)]
    found = next((place for place in places if (place / "manifest.json").exists()), places[0])
    opened = Run(found if run is None else Path(run))
    if run is None and not opened.finished:
        reproduce.run(chosen, found, Execution(batch_size=8, workers=0, device="cpu"))
        opened = Run(found)
    opened.records  # noqa: B018, an unfinished run is said here
    return opened


def open_evidence(run: Run) -> dict[str, Run]:
    """A run beside the real ones whose records came with the repository, by title.

    Those are the folders below ``evidence`` in this folder or one above it; where there are none, as after ``pip install``, the
    run in hand is alone. A run of the paper's own experiment in ``evidence/vgg16-paper`` takes its place among them.

    Raises:
        InputError: if one of them is damaged.
    """
    return {each.title: each for each in (*_evidence(), run) if "audit" not in each.manifest["experiment"]}


def open_audits() -> dict[str, pd.DataFrame]:
    """The rows of each audit below ``evidence`` in this folder or one above it, by title; see :mod:`gradcampp.evaluation.audit`.

    Raises:
        InputError: if one of them is damaged.
    """
    return {each.title: audit.read(each.folder) for each in _evidence() if "audit" in each.manifest["experiment"]}


def _evidence() -> list[Run]:
    """The runs and audits below the nearest folder ``evidence``."""
    here = Path.cwd()
    places = (folder / "evidence" for folder in (here, *here.parents))
    found = next((place for place in places if place.is_dir()), here / "evidence")
    return [Run(manifest.parent) for manifest in sorted(found.glob("*/manifest.json"), reverse=True)]


@dataclass(frozen=True)
class Shown:
    """Pictures for a figure, the network that looks at them, and whose they are, in Markdown."""

    network: Network
    pictures: list[reproduce.Picture]
    credit: str


def open_photographs(profile: str, run: Run, names: Sequence[str], layer: str = lite0.LAYER) -> Shown:
    """Photographs of :mod:`gradcampp.evaluation.gallery` before EfficientNet-Lite0; a profile's own before its own network.

    Where a package is missing, a line says what to install, and scenes take their place.

    Args:
        profile, run: as a notebook has them.
        names: such as ``coffee``, to be explained for its best class; or two side by side, ``chelsea|coffee``, for its two best.
        layer: of EfficientNet-Lite0.
    """
    chosen = in_cache(profiles.load(profile))
    own = chosen.photograph is not None or chosen.data is not None
    if own or (absent := gallery.missing(names)):
        network = profiles.network(chosen)
        single, couple = reproduce.pictures(network, chosen, run)
        pictures = [couple if "|" in name else single for name in names]
        if not own:
            print(absent)
        return Shown(network, pictures[:1], "from this build's own pictures" if own else "a generated scene")
    network = replace(load(lite0.NAME), layer=layer)
    pictures = []
    for name in names:
        pixels = gallery.read(name, network.preprocessing)
        best = network.logits(pixels[None].float() / 255)[0].topk(len(name.split("|"))).indices
        pictures.append(reproduce.Picture(pixels, best.tolist()))
    return Shown(network, pictures, gallery.credit(names))


def glue(name: str, value: object, form: str = "") -> None:
    """Keep a value for the prose: ``{glue:text}``, ``{glue:md}`` and ``{glue:figure}`` show it in the book by its name.

    Emits what ``myst_nb.glue`` emits, without needing myst_nb. A figure, a table and Markdown are shown below the cell as
    well where the notebook is opened alone; in the book they appear in the place that names them, and there only.

    Args:
        name: unique in the notebook.
        value: a figure, which becomes a PNG on white ground and, for the book, pictures for light and dark pages and for
            phones, as which it is left stacked; a table or ``IPython.display.Markdown``, which become Markdown; or anything
            that :func:`format` takes, a string as it is.
        form: a format specification such as ``.3f`` or ``,``, for a table that of its floating-point numbers.
    """
    from IPython.display import Markdown, display  # every notebook has it; the command line does without

    more = {}
    if isinstance(value, Figure):
        pixels, drawn = views.views(value)
        shown = {"image/png": base64.b64encode(views.png(pixels)).decode()}
        more = {f"{_PREFIX}views": json.dumps({each: base64.b64encode(file).decode() for each, file in drawn.items()})}
    elif isinstance(value, pd.DataFrame):
        shown = {"text/markdown": _table(value, form)}
    elif isinstance(value, Markdown):
        shown = {"text/markdown": value.data}
    else:
        shown = {}
    kept = shown or {"text/plain": repr(_text(value, form))}
    bundle = {f"{_PREFIX}{kind}": content for kind, content in kept.items()} | more | shown
    display(bundle, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": _PREFIX}})  # type: ignore[no-untyped-call]


def _text(value: object, form: str) -> str:
    return percent(float(value), form) if form.endswith("%") else format(value, form)  # type: ignore[arg-type]


def _table(rows: pd.DataFrame, form: str) -> str:
    """A Markdown table without the index, numbers to the right; with two rows of column names, one below the other."""
    if isinstance(rows.columns, pd.MultiIndex):
        return _two_headers(rows)

    def cell(value: object) -> str:
        return _text(value, form if isinstance(value, float) else "").replace("|", "\\|").replace("\n", " ")

    cells = {cell(str(name)): list(map(cell, rows[name])) for name in rows.columns}
    sides = ["right" if pd.api.types.is_numeric_dtype(rows[name]) else "left" for name in rows.columns]
    return tabulate(cells, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=sides)


def _two_headers(rows: pd.DataFrame) -> str:
    """A table of MyST whose column names have two levels, and whose rows are called by two: a source, and what is in it."""
    kinds = rows.columns.get_level_values(0).tolist()
    first = ["", *("" if place and kinds[place - 1] == kind else kind for place, kind in enumerate(kinds))]
    lines = [first, ["", *rows.columns.get_level_values(1)]]
    for source, own in rows.groupby(level=0, sort=False):
        lines.append([f"**{source}**", *[""] * len(kinds)])
        lines += [[name, *cells] for (_, name), cells in zip(own.index, own.to_numpy().tolist(), strict=True)]
    listed = "\n".join("* " + "\n  ".join(f"- {cell}".rstrip() for cell in line) for line in lines)
    return f"```{{list-table}}\n:header-rows: 2\n\n{listed}\n```"
