"""Every erratum has its evidence, and says so in one line."""

from __future__ import annotations

import pytest

from gradcampp import paper
from gradcampp.claims.errata import ERRATA, Erratum


@pytest.mark.parametrize("erratum", ERRATA, ids=lambda erratum: erratum.place)
def test_evidence(erratum: Erratum) -> None:
    shown, line = erratum.evidence()
    assert shown, line
    assert line
    assert "\n" not in line
    assert erratum.weight in ("misprint", "gap", "loose", "rounding")


def test_a_consistent_table_is_no_erratum(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = dict(paper.CELLS)
    pair = paper.PAIRS[0]
    entries["pre", pair] = paper.Cell(1.23, 0.21, 0.64)
    entries["post", pair] = paper.Cell(1.27, 0.23, 0.68)
    monkeypatch.setattr("gradcampp.paper.CELLS", entries)
    evidence = {erratum.place: erratum.evidence()[0] for erratum in ERRATA if erratum.weight == "rounding"}
    assert evidence == {"4, Table 1": False, "4, Table 2": False}
