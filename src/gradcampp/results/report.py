"""What a finished run says: Tables 1 and 2, certificates, Figures 4 and 6. Reads records; no network is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradcampp.cam import SCORES
from gradcampp.evaluation.profiles import Expected
from gradcampp.evaluation.records import Run
from gradcampp.files import atomic_write
from gradcampp.results import tables
from gradcampp.results.figures import data_set, style
from gradcampp.results.tables import SelfCheck

PICTURES = ("png", "svg")


@dataclass(frozen=True)
class Report:
    """The tables for a terminal, the files written, and the comparison with known values where there are some."""

    text: str
    files: list[Path]
    check: SelfCheck | None = None


def write(run: Run, out: Path, expected: Expected | None = None) -> Report:
    """Write Tables 1 and 2, the certificates (CSV, Markdown, LaTeX) and Figures 4 and 6 (PNG, SVG) of a run.

    Args:
        run: a finished run.
        out: folder to write to; made where it does not exist.
        expected: known values that the run is compared with.

    Raises:
        InputError: if the run is not finished or has too few images over the threshold.

    Source: Lerma & Lucas (2022), Tables 1 and 2, Figures 4 and 6.
    """
    rows, alphas = run.records, run.alphas
    every = {**tables.paper_tables(rows), "certificates": tables.certificates(rows)}
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    texts: list[str] = []
    for name, table in every.items():
        readable, title = tables.readable(name, table), tables.title(name, table)
        texts.append(f"{title}\n\n{tables.formatted(readable, 'simple')}\n")
        for ending, content in (
            ("csv", table.to_csv(index=False)),
            ("md", tables.formatted(readable, "github") + "\n"),
            ("tex", tables.formatted(readable, "latex") + "\n"),
        ):
            files.append(out / f"{name}.{ending}")
            with atomic_write(files[-1]) as temporary:
                temporary.write_text(content, "utf-8")
    for scores in SCORES:
        files += style.save(data_set.alpha_distribution(alphas[scores], scores), out / f"figure4-{scores}", PICTURES)
    files += style.save(data_set.relative_performances(rows), out / "figure6", PICTURES)
    check = None if expected is None else tables.self_check(run.manifest, expected)
    if check is not None:
        texts.append(check.text)
        files.append(out / "selfcheck.csv")
        with atomic_write(files[-1]) as temporary:
            check.rows.to_csv(temporary, index=False)
    return Report("\n".join(texts), files, check)
