"""The comparison of a run with what others have measured."""

from __future__ import annotations

from typing import Any

import pytest

from gradcampp import paper
from gradcampp.evaluation import profiles
from gradcampp.evaluation.profiles import Expected
from gradcampp.results.tables import self_check

PAPER = profiles.load("paper").expected


def known() -> Expected:
    assert PAPER is not None
    return PAPER


def manifest(**changes: Any) -> dict[str, Any]:
    """A run that agrees with everything that is known, but for the changes."""
    experiment = {"weights": known().weights, "threshold": changes.pop("threshold", 0.5)}
    return {"experiment": experiment, "images": 10_000, "top1": 0.5884, "top5": 0.8166, "over_threshold": 4219} | changes


def test_the_paper_profile_knows_what_was_published() -> None:
    profile = profiles.load("paper")
    assert (known().top1, known().top5, known().images) == (0.5884, 0.8166, 10_000)
    assert known().over_threshold == paper.IMAGES
    assert known().weights == profile.download["weights"].sha256
    data = profile.download["data"]
    assert data.classes * data.images_per_class == known().images


def test_a_run_that_agrees_is_said_to_agree() -> None:
    check = self_check(manifest(), known())
    assert list(check.rows["quantity"]) == ["top-1", "top-5", "over 0.5"]
    assert list(check.rows["run"]) == pytest.approx([58.84, 81.66, 42.19])
    assert not check.rows["deviates"].any()
    assert check.warnings == ()
    assert "WARNING" not in check.text
    assert check.text.count("agrees") == 3


@pytest.mark.parametrize(
    ("changes", "loud"),
    [
        ({"top1": 0.5834}, []),  # exactly 0.5 points
        ({"top1": 0.5934}, []),
        ({"top1": 0.5833}, ["top-1 is 58.33 % and 58.84 % was published, -0.51 points: suspect wrong labels"]),
        ({"top5": 0.8217}, ["top-5 is 82.17 % and 81.66 % was published, +0.51 points"]),
        ({"over_threshold": 4270}, ["over 0.5 is 42.70 % and 42.19 %"]),
        ({"over_threshold": 4269}, []),
        ({"top1": 0.001, "top5": 0.005, "over_threshold": 9}, ["top-1", "top-5", "over 0.5"]),  # folders sorted as text
    ],
)
def test_more_than_half_a_point_is_loud(changes: dict[str, Any], loud: list[str]) -> None:
    check = self_check(manifest(**changes), known())
    assert len(check.warnings) == len(loud)
    assert all(warning.startswith(start) for warning, start in zip(check.warnings, loud, strict=True))
    assert list(check.rows["quantity"][check.rows["deviates"]]) == [start.partition(" is ")[0] for start in loud]
    assert check.text.count("\nWARNING: ") == check.text.count("DEVIATES") == len(loud)


def test_the_count_is_compared_at_its_own_threshold_only() -> None:
    assert list(self_check(manifest(threshold=0.3, over_threshold=6000), known()).rows["quantity"]) == ["top-1", "top-5"]


def test_other_weights_and_parts_of_the_set_are_not_compared() -> None:
    other = manifest() | {"experiment": {"weights": "random (seed 0)", "threshold": 0.5}}
    for run, says in ((manifest(images=200), "this run has 200"), (other, "these weights (random (seed 0))")):
        check = self_check(run, known())
        assert len(check.rows) == 0
        assert check.warnings == ()
        assert check.text.startswith("Self-check: ")
        assert says in check.text
