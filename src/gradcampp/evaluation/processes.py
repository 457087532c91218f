"""One run shared by several processes: those that torchrun has started, on one machine or many.

Process ``rank`` of ``size`` measures every ``size``-th part of the run, and the files of the run are all that they exchange. A
process that dies is torchrun's to notice: it ends the others, or restarts all of them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch.distributed as dist

from gradcampp.errors import InputError


@dataclass(frozen=True)
class Processes:
    """The processes that share one run, seen from one of them.

    Attributes:
        rank: number of this process, from 0; the first one opens the run, finishes it and talks to the user.
        size: how many there are.
        local_rank: number of this process on its machine, from 0.
        local_size: how many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def barrier(self) -> None:
        """Wait until every process has come this far.

        Raises:
            InputError: if another process is gone.
        """
        if self.size == 1:
            return
        try:
            waiting = dist.barrier(async_op=True)
            while not waiting.is_completed():
                time.sleep(0.05)  # a blocking wait would keep Ctrl-C and SIGTERM out
            waiting.wait()
        except RuntimeError:
            raise InputError("lost another process of the run; start it again, and the run goes on") from None

    def speaks(self) -> bool:
        """True for the first process of an attempt that asks, and where torchrun is gone."""
        if self.size == 1:
            return True
        try:
            store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
            return bool(store.add(f"gradcampp speaks {os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) == 1)
        except RuntimeError:
            return True


def started() -> Processes:
    """The processes that torchrun has started, without a word to the others; this one alone where there is no torchrun."""
    if not dist.is_torchelastic_launched():
        return Processes()
    return Processes(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


def join(processes: Processes) -> None:
    """Meet the other processes, so that they can wait for each other.

    Raises:
        InputError: if another process, or torchrun, is gone.
    """
    if processes.size > 1:
        try:
            dist.init_process_group("gloo")
        except RuntimeError as error:
            raise InputError(f"cannot meet the other processes of torchrun: {error}") from None
