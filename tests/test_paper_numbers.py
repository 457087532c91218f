"""The paper's numbers stay; ours are counted by chapter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

paper_numbers = pytest.importorskip("book._ext.paper_numbers", reason="the tools that build the book are not installed")
numbered = paper_numbers.numbered


def test_the_papers_things_keep_their_numbers_and_ours_are_counted_without_gaps() -> None:
    counted = {
        "fig-own": (2, 1),
        "fig-paper-4": (2, 2),
        "fig-paper-4-post": (2, 3),
        "fig-more": (2, 4),
        "equation-eq-paper-13": (2, 5),
        "tab-paper-1": (2, 6),
        "tab-last": (2, 7),
    }
    assert numbered(counted) == {
        "fig-own": (2, 1),
        "fig-paper-4": (4,),
        "fig-paper-4-post": (4,),
        "fig-more": (2, 2),
        "equation-eq-paper-13": (13,),
        "tab-paper-1": (1,),
        "tab-last": (2, 3),
    }


def test_a_page_without_a_chapter_is_counted_too() -> None:
    assert numbered({"tab-symbols": (1,)}) == {"tab-symbols": (1,)}


@pytest.mark.parametrize("address", ["", "https://github.com/someone/gradcampp"])
def test_a_file_of_the_repository_is_a_link_where_its_address_is_known(address: str) -> None:
    options = {"repository_url": address, "repository_branch": "trunk"}
    inliner: Any = SimpleNamespace(
        document=SimpleNamespace(
            settings=SimpleNamespace(env=SimpleNamespace(config=SimpleNamespace(html_theme_options=options)))
        )
    )
    (node,), problems = paper_numbers._source("source", "", "eq-1 <tests/test_claims.py::test_verdict[eq-1]>", 1, inliner)
    assert problems == []
    if address:
        assert node["refuri"] == f"{address}/blob/trunk/tests/test_claims.py"
        assert node.astext() == "eq-1"
    else:
        assert node.tagname == "literal"
        assert node.astext() == "tests/test_claims.py::test_verdict[eq-1]"
