"""What the notebooks of the book share: the run that they read, and how they show figures, tables and numbers.

Everything shown carries what the book needs to know (label, caption, alternative text) beside what Jupyter shows, so one
call serves both: ``gradcampp book`` turns it into a numbered figure or table, and a notebook opened alone shows the same
picture with the same caption.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from gradcampp.evaluation import profiles
from gradcampp.evaluation.download import in_cache
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution
from gradcampp.results import reproduce

if TYPE_CHECKING:
    from gradcampp.algebra.theorems import Theorem  # SymPy is slow to load, and few notebooks need it

KEY = "gradcampp"  # of the output metadata that the book reads


DOTS_PER_INCH = 160


_EXECUTION = Execution(batch_size=8, workers=0, device="cpu")


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


def glue(name: str, value: object, form: str = "") -> None:
    """Keep a value for the prose: ``{glue:text}`name``` shows it in the book.

    Emits what ``myst_nb.glue`` emits, without needing myst_nb.

    Args:
        name: unique in the notebook.
        value: what to keep; a string as it is.
        form: a format specification such as ``.3f`` or ``,``.
    """
    bundle = {"application/papermill.record/text/plain": repr(format(value, form))}
    _display(bundle, {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}})


def figure(drawn: Figure, label: str, caption: str, alt: str) -> None:
    """Show a figure with its caption; the book numbers it, and ``{numref}`` finds it by its label.

    Args:
        drawn: a figure of :mod:`gradcampp.results.figures.data_set`, or any other.
        label: ``fig-`` and a name; ``fig-paper-3`` is Figure 3 of the paper and gets its number.
        caption: a line of MyST: mathematics, references and citations work in the book.
        alt: what a reader who cannot see the figure needs to know, in plain words.

    Raises:
        ValueError: if the label has another form, or the caption or the alternative text is empty.
    """
    about = _about("figure", "fig", label, caption, alt=alt)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    shown = (
        f'<figure><img src="data:image/png;base64,{encoded}" alt="{html.escape(about["alt"])}" style="max-width:100%">'
        f"<figcaption>{html.escape(about['caption'])}</figcaption></figure>"
    )
    _display({"text/html": shown, "text/plain": about["alt"], "image/png": encoded}, {KEY: about})


def table(rows: pd.DataFrame, label: str, caption: str, formats: Mapping[str, str] | None = None) -> None:
    """Show a table with its caption; the book numbers it, and ``{numref}`` finds it by its label.

    Args:
        rows: what to show, without the index.
        label: ``tab-`` and a name; ``tab-paper-1`` is Table 1 of the paper and gets its number.
        caption: a line of MyST.
        formats: a format specification by column, for example ``{"mean": ".3f"}``; other cells are shown as ``str`` does.

    Raises:
        ValueError: if the label has another form or the caption is empty.
    """
    formats = formats or {}
    cells = {str(name): [format(value, formats.get(str(name), "")) for value in rows[name]] for name in rows.columns}
    sides = ["right" if pd.api.types.is_numeric_dtype(rows[name]) else "left" for name in rows.columns]
    text = {
        style: tabulate(_escaped(cells, style), headers="keys", tablefmt=style, disable_numparse=True, colalign=sides)
        for style in ("pipe", "unsafehtml", "simple")
    }
    about = _about("table", "tab", label, caption, body=text["pipe"])
    shown = f'<div style="overflow-x:auto">{text["unsafehtml"]}</div><p>{html.escape(about["caption"])}</p>'
    _display({"text/html": shown, "text/plain": text["simple"]}, {KEY: about})


def prose(label: str, text: str) -> None:
    """Show MyST that was computed; in the book it is part of the page, with its directives, mathematics and references.

    Args:
        label: two or more words of small letters and digits, joined by hyphens; unique in the notebook.
        text: MyST.

    Raises:
        ValueError: if the label has another form or the text is empty.
    """
    about = _about("prose", "[a-z0-9]+", label, text, body=text)
    _display({"text/markdown": text, "text/plain": text}, {KEY: about})


def theorem(stated: Theorem, label: str) -> None:
    """Show a theorem and its proof in the words of the library.

    Args:
        stated: one of ``gradcampp.algebra.theorems.THEOREMS``.
        label: ``thm-``, its number, ``-`` and a name; ``{prf:ref}`` finds it, and it keeps its number in the book.

    Raises:
        ValueError: if the label has another form or number.
    """
    if not re.fullmatch(rf"thm-{stated.number}-[a-z-]+", label):
        raise ValueError(f"label: expected thm-{stated.number}- and a name in small letters, got {label!r}")
    statement, proof = (re.sub(r"\beq\. (\d+)", r"{eq}`eq-paper-\1`", text) for text in (stated.statement, stated.proof))
    prose(
        label,
        f"````{{prf:theorem}} {stated.title}\n:label: {label}\n\n{statement}\n````\n\n````{{prf:proof}}\n{proof}\n````",
    )


def _escaped(cells: Mapping[str, list[str]], style: str) -> dict[str, list[str]]:
    """Cells whose own characters are not taken for the marks of a style."""

    def escape(text: str) -> str:
        if style == "pipe":
            return text.replace("|", "\\|").replace("\n", " ")
        return html.escape(text) if style == "unsafehtml" else text

    return {escape(name): [escape(cell) for cell in column] for name, column in cells.items()}


def _display(bundle: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    from IPython.display import display  # every notebook has it; the command line does without

    display(dict(bundle), raw=True, metadata=dict(metadata))  # type: ignore[no-untyped-call]


def _about(kind: str, prefix: str, label: str, caption: str, **more: str) -> dict[str, str]:
    """What the book has to know of something shown."""
    if not re.fullmatch(rf"{prefix}-[a-z0-9-]+", label):
        raise ValueError(f"label: expected {prefix}- and small letters, digits and hyphens, got {label!r}")
    texts = {name: " ".join(text.split()) if name != "body" else text for name, text in {"caption": caption, **more}.items()}
    for name, text in texts.items():
        if not text:
            raise ValueError(f"{kind} {label}: expected a text as {name}, got none")
    return {"kind": kind, "label": label, **texts}
