"""What the benchmarks share: timing side by side, and the one line of JSON at the end."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable

import torch


def side_by_side(rounds: int, **contestants: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each contestant in each round.

    They take turns in alternating order, so that a slow spell of the machine, or what one contestant
    leaves in the caches, hits all of them.
    """
    for run in contestants.values():
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            contestants[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # it returns before the GPU is done
            seconds[name].append(time.perf_counter() - start)
    return seconds


def machine() -> str:
    """Where the numbers were measured."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {capability}"


def conclude(ratios: dict[str, float]) -> None:
    """The last line: one JSON object of ratios."""
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))
