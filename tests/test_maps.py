"""Batches that are halved when memory runs out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp.errors import InputError
from gradcampp.evaluation.maps import BatchLimit, in_batches


@given(count=st.integers(1, 60), start=st.integers(1, 70), room=st.integers(1, 30))
def test_the_result_does_not_depend_on_what_fits(count: int, start: int, room: int) -> None:
    tried: list[int] = []

    def double(part: slice) -> list[Tensor]:
        tried.append(part.stop - part.start)
        if part.stop - part.start > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * torch.arange(part.start, part.stop), torch.ones(part.stop - part.start)]

    limit = BatchLimit(start)
    doubled, ones = in_batches(double, count, limit)
    assert doubled.tolist() == [2 * index for index in range(count)]
    assert len(ones) == count
    refused = [size for size in tried if size > room]
    assert all(later <= earlier // 2 for earlier, later in itertools.pairwise(refused))  # halved, and for good
    if refused:
        assert limit.size <= room


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_every_way_to_run_out_of_memory_ends_in_one_line_when_nothing_fits(error: Exception) -> None:
    def never(_part: slice) -> list[Tensor]:
        raise error

    with pytest.raises(InputError, match="out of memory with a single image"):
        in_batches(never, 5, BatchLimit(4))


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    def wrong(_part: slice) -> list[Tensor]:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(wrong, 5, BatchLimit(4))
