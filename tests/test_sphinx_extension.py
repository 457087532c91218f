"""The paper's numbers stay; ours are counted by chapter."""

from __future__ import annotations

from gradcampp.sphinx_extension import numbered


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
