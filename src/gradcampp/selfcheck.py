"""A finished run beside what others have measured with the same weights on the same photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tabulate import tabulate

from gradcampp.profiles import Expected

TOLERANCE = 0.5  # percentage points


@dataclass(frozen=True)
class SelfCheck:
    """What a self-check found.

    Attributes:
        rows: ``quantity``, ``expected`` and ``run`` in percent of the images, ``difference`` in percentage
            points, and whether it ``deviates``; no rows where the run cannot be compared.
        warnings: one line for each row that deviates.
        note: why the run cannot be compared, or None.
    """

    rows: pd.DataFrame
    warnings: tuple[str, ...]
    note: str | None

    @property
    def text(self) -> str:
        """For a terminal: the rows or the note, the warnings last."""
        if self.note is not None:
            return f"Self-check: {self.note}\n"
        shown = self.rows.assign(
            expected=[f"{value:.2f} %" for value in self.rows["expected"]],
            run=[f"{value:.2f} %" for value in self.rows["run"]],
            difference=[f"{value:+.2f}" for value in self.rows["difference"]],
            deviates=["DEVIATES" if value else "agrees" for value in self.rows["deviates"]],
        )
        table = tabulate(shown.to_dict("list"), headers="keys", tablefmt="simple", disable_numparse=True)
        warnings = "".join(f"\nWARNING: {line}" for line in self.warnings)
        return f"Self-check of the whole set, in percent of the images\n\n{table}\n{warnings}\n"


def self_check(manifest: Mapping[str, Any], expected: Expected) -> SelfCheck:
    """Compare the accuracy of a finished run, and its number of images over the threshold, with known values.

    Args:
        manifest: of a finished run.
        expected: the known values; they hold for their weights and for the whole set only.

    Returns:
        Rows that deviate by more than 0.5 percentage points come with a warning that says what to suspect.
    """
    columns = ["quantity", "expected", "run", "difference", "deviates"]
    note = _not_comparable(manifest, expected)
    if note is not None:
        return SelfCheck(pd.DataFrame(columns=columns), (), note)
    counted = manifest["experiment"]["threshold"] == expected.threshold
    rows, warnings = [], []
    for quantity, known, found, suspect in (
        ("top-1", expected.top1, manifest["top1"], "suspect wrong labels or another preprocessing"),
        ("top-5", expected.top5, manifest["top5"], "suspect wrong labels or another preprocessing"),
        (
            f"over {expected.threshold:g}",
            expected.over_threshold / expected.images,
            manifest["over_threshold"] / manifest["images"],
            "other weights or another preprocessing than the published run's move it; if top-1 and top-5 agree, that is why",
        ),
    )[: 3 if counted else 2]:
        difference = round(100 * (found - known), 6)
        deviates = abs(difference) > TOLERANCE
        rows.append((quantity, 100 * known, 100 * found, difference, deviates))
        if deviates:
            warnings.append(
                f"{quantity} is {100 * found:.2f} % and {100 * known:.2f} % was published, {difference:+.2f} points: {suspect}"
            )
    return SelfCheck(pd.DataFrame(rows, columns=columns), tuple(warnings), None)


def _not_comparable(manifest: Mapping[str, Any], expected: Expected) -> str | None:
    if manifest["experiment"]["weights"] != expected.weights:
        return f"nothing is published for these weights ({manifest['experiment']['weights']})"
    if manifest["images"] != expected.images:
        return f"the published values are of {expected.images} images, and this run has {manifest['images']}"
    return None
