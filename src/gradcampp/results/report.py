"""A finished run in tables, figures and one page to open in a browser. Reads records; no network is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from gradcampp.evaluation import localisation
from gradcampp.evaluation.experiment import over_threshold
from gradcampp.evaluation.profiles import Expected
from gradcampp.evaluation.records import Run
from gradcampp.files import write_text
from gradcampp.performance import UndefinedError
from gradcampp.results import comparison, tables
from gradcampp.results.figures import comparison as comparisons
from gradcampp.results.figures import data_set, style


@dataclass(frozen=True)
class Report:
    """The tables for a terminal, the files written, and a line for each known value that the run deviates from."""

    text: str
    files: list[Path]
    warnings: tuple[str, ...] = ()


def write(run: Run, out: Path, expected: Expected | None = None) -> Report:
    """Write the tables of a run (CSV, and those for reading Markdown and LaTeX too) and the figures of its data set.

    The folder is made where it does not exist; the run is compared with ``expected`` values, if there are any.

    What is undefined in this run, as for a score that is the same whatever the map, is left out and said.

    Raises:
        InputError: if the run is not finished or has too few images over the threshold.

    Source: Lerma & Lucas (2022), Tables 1 and 2, Figures 4 and 6.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = {"differences": tables.differences(run.records)}
    counted = {scores: alphas for scores, alphas in run.alphas.items() if alphas.count}
    figures = {f"figure4-{scores}": data_set.alpha_distribution(alphas, scores, run.score) for scores, alphas in counted.items()}
    contents: dict[str, str] = {}
    texts: list[str] = []
    try:
        found = tables.paper_tables(run.records) | found
        figures["figure6"] = data_set.relative_performances(run.records, run.score)
    except UndefinedError:
        texts.append("Tables 1 and 2 and Figure 6 are undefined in this run.\n")
    warnings: tuple[str, ...] = ()
    if run.has_masks:
        rows = run.localisation[over_threshold(run.localisation["score"], run.manifest["experiment"])]
        averages, found["localisation_gain"] = localisation.averages(rows), localisation.gains(rows)
        contents["localisation.csv"] = averages.to_csv(index=False)
        for scores in averages["scores"].unique():
            figures[f"localisation-{scores}"] = data_set.localisation(averages[averages["scores"] == scores])
    if run.competition is not None:
        found["competition"] = localisation.rivalry(run.competition)
        figures["competition"] = data_set.competition(found["competition"])
    for name, table in found.items():
        readable = tables.readable(name, table)
        texts.append(f"{tables.title(name, table)}\n\n{tables.formatted(readable, 'simple')}\n")
        contents[f"{name}.csv"] = table.to_csv(index=False)
        for ending, form in (("md", "github"), ("tex", "latex")):
            contents[f"{name}.{ending}"] = tables.formatted(readable, form) + "\n"
    if notes := tables.notes(run):
        texts.append("\n".join(["Notes on Tables 1 and 2", "", *notes, ""]))
    if expected is not None:
        check = tables.self_check(run.manifest, expected)
        texts.append(check.text)
        contents["selfcheck.csv"] = check.rows.to_csv(index=False)
        warnings = check.warnings
    files = [write_text(out / name, content) for name, content in contents.items()]
    return Report("\n".join(texts), files + draw(figures, out), warnings)


def compare(runs: Mapping[str, Run], out: Path) -> Report:
    """Write where Grad-CAM++ and Grad-CAM+ part in several runs: one table (CSV and Markdown) and one figure.

    The folder is made where it does not exist.

    Raises:
        InputError: if a folder is not a finished run.

    Source: ours; :func:`gradcampp.results.comparison.weakening`.
    """
    found = comparison.weakening(runs)
    readable = found.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
    out.mkdir(parents=True, exist_ok=True)
    contents = {"csv": found.to_csv(index=False), "md": tables.formatted(readable, "github") + "\n"}
    files = [write_text(out / f"comparison.{ending}", content) for ending, content in contents.items()]
    figures = {"comparison": comparisons.weakening(runs)}
    return Report(f"{comparison.TITLE}\n\n{tables.formatted(readable, 'simple')}\n", files + draw(figures, out))


def draw(figures: dict[str, Figure], out: Path) -> list[Path]:
    """Write figures by name, as PNG and as SVG."""
    return [path for name, figure in figures.items() for path in style.save(figure, out / name, ("png", "svg"))]


def summary(run: Run, report: Report, out: Path) -> Path:
    """Write the page that shows a report, with the figures in its folder that the page has a caption for."""
    environment = Environment(loader=PackageLoader("gradcampp", "resources"), autoescape=True, undefined=StrictUndefined)
    figures = {path.stem for path in report.files if path.suffix == ".png"}
    page = environment.get_template("summary.html.j2").render(manifest=run.manifest, report=report, figures=figures)
    return write_text(out / "summary.html", page)
