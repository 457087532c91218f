"""Every erratum has its evidence, and says so in one line; what is loose, or may be a fault of our copy, is none."""

from __future__ import annotations

import pytest

from gradcampp import paper
from gradcampp.claims import claim, ledger
from gradcampp.claims.errata import ERRATA, IN_OUR_COPY, LOOSE, Erratum
from gradcampp.performance import relative_performance


@pytest.mark.parametrize("erratum", [*ERRATA, *LOOSE, *IN_OUR_COPY], ids=lambda erratum: erratum.place)
def test_evidence(erratum: Erratum) -> None:
    shown, line = erratum.evidence()
    assert shown, line
    assert line
    assert "\n" not in line


def test_each_list_has_its_own_kinds() -> None:
    kinds = [{erratum.weight for erratum in each} for each in (ERRATA, LOOSE, IN_OUR_COPY)]
    assert kinds == [{"slip", "gap"}, {"loose", "rounding"}, {"copy"}]
    places = [erratum.place for each in (ERRATA, LOOSE, IN_OUR_COPY) for erratum in each]
    assert len(set(places)) == len(places) == 12


def test_what_may_be_a_fault_of_our_copy_is_no_erratum_and_decides_no_verdict() -> None:
    """Indices, digits and numbers of references, which a transcription can garble; their checks are no claim's."""
    assert {erratum.place.partition(",")[0] for erratum in IN_OUR_COPY} == {"2.2", "Appendix A", "References"}
    checks = {one.check for one in ledger.CLAIMS if isinstance(one, claim.Claim)}
    assert checks.isdisjoint(erratum.evidence for erratum in IN_OUR_COPY)


def test_the_geometric_mean_of_the_product_is_another_number_than_eq_16(monkeypatch: pytest.MonkeyPatch) -> None:
    (slip,) = (erratum for erratum in ERRATA if erratum.weight == "slip")
    assert relative_performance((2.0, 8.0), (1.0, 1.0)) == pytest.approx(4, rel=1e-15)  # not 16
    assert slip.evidence() == (True, "ratios 2 and 8: product 16, eq. 16 4")
    monkeypatch.setattr("gradcampp.claims.errata.relative_performance", lambda one, _: one[0] * one[1])
    assert not slip.evidence()[0]


def test_a_consistent_table_is_no_erratum(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = dict(paper.CELLS)
    pair = paper.PAIRS[0]
    entries["pre", pair] = paper.Cell(1.23, 0.21, 0.64)
    entries["post", pair] = paper.Cell(1.27, 0.23, 0.68)
    monkeypatch.setattr("gradcampp.paper.CELLS", entries)
    evidence = {erratum.place: erratum.evidence()[0] for erratum in LOOSE if erratum.weight == "rounding"}
    assert evidence == {"4, Table 1": False, "4, Table 2": False}
