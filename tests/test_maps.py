"""Batches that are halved when memory runs out; insertion and deletion."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradcampp.cam import upsample
from gradcampp.errors import InputError
from gradcampp.evaluation.maps import STEPS, BatchLimit, in_batches, insertion_and_deletion
from gradcampp.networks.load import load
from tests.networks import scored


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


def test_insertion_and_deletion_are_those_of_a_loop_over_steps_and_pixels() -> None:
    """One picture and one map at a time, pixel after pixel; maps without ties, so that there is one order."""
    network = load(scored(), "features.4", resize=16, crop=16, mean=(0.3, 0.4, 0.5), std=(1.0, 1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    pixels, maps = torch.rand((3, 3, 16, 16), generator=generator), torch.rand((3, 2, 8, 8), generator=generator)
    labels = torch.tensor([0, 2, 1])
    found = insertion_and_deletion(network, maps, pixels, labels, batch_size=4)
    blank = torch.tensor([0.3, 0.4, 0.5])
    for image, place in itertools.product(range(3), range(2)):
        heat = upsample(maps[image, place][None], (16, 16))[0].flatten().tolist()
        order = sorted(range(256), key=lambda pixel: -heat[pixel])
        scores: tuple[list[float], list[float]] = ([], [])
        for step in range(STEPS + 1):
            hot = order[: step * 256 // STEPS]
            shown, hidden = pixels[image].flatten(1).clone(), pixels[image].flatten(1).clone()
            shown[:, [pixel for pixel in range(256) if pixel not in hot]] = blank[:, None]
            hidden[:, hot] = blank[:, None]
            for kind, values in zip(scores, (shown, hidden), strict=True):
                logits = network.logits(values.reshape(1, 3, 16, 16))[0].double()
                kind.append(float(logits.softmax(0)[labels[image]]))
        for area, kind in zip(found, scores, strict=True):
            trapezoids = sum((first + second) / 2 / STEPS for first, second in itertools.pairwise(kind))
            assert float(area[image, place]) == pytest.approx(trapezoids, abs=1e-6)  # float32 logits in other batches
    assert (found[0] - found[1]).abs().max() > 1e-4  # a hundred times what is allowed above
