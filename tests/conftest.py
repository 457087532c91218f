"""Fixtures: the real data beside the project, where it is, and photographs made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
SECTIONS = [  # of the paper
    *("1", "2", "2.1", "2.1.1", "2.1.2", "2.2", "3", "3.1"),
    *(f"3.1.{last}" for last in range(1, 6)),
    *("3.2", "3.3", "3.4", "4", "5"),
]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs, a real network and reference results."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data: the real photographs and network are not on this machine")
    return SHARED


def photograph(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A blurred random picture, (width, height)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped where there is none."""
    from tests.browsing import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[str]:
    """The address of the folder that the module's own ``site`` makes."""
    from tests.browsing import served

    with served(site) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data folder with a given number of photographs in each of the classes 0, 1 and 2."""

    def make(each: int = 6, name: str = "data") -> Path:
        for label in range(3):
            (tmp_path / name / str(label)).mkdir(parents=True)
            for index in range(each):
                photograph(100 * label + index).save(tmp_path / name / str(label) / f"{index}.png")
        return tmp_path / name

    return make
