"""One run shared by several processes: those that torchrun has started, on one machine or many.

Process ``rank`` of ``size`` measures every ``size``-th part of the run, and the files of the run are all that they exchange. They
wait for each other at a barrier, a count in the key-value store through which torchrun introduces them. A process that dies is
torchrun's to notice: it ends the others, or restarts all of them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from gradcampp.errors import InputError

_POLL = 0.05  # seconds between two looks; a blocking wait would keep Ctrl-C and SIGTERM out
Store = Any  # torch.distributed.Store, which has no types


@dataclass(frozen=True)
class Processes:
    """The processes that share one run, seen from one of them.

    Attributes:
        rank: number of this process, from 0; the first one opens the run, finishes it and talks to the user.
        size: how many there are.
        local_rank: number of this process on its machine, from 0.
        local_size: how many there are on this machine.
        store: where they count, this attempt's own.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Store = field(default=None, compare=False, repr=False)

    def barrier(self) -> None:
        """Wait until every process has come this far.

        Raises:
            InputError: if torchrun is gone.
        """
        if self.store is None:
            return
        with _connected():
            arrived = self.store.add("arrived", 1)
            everybody = -(-arrived // self.size) * self.size  # nobody comes to the next barrier before all have left this one
            while self.store.add("arrived", 0) < everybody:
                time.sleep(_POLL)

    def speaks(self) -> bool:
        """True for the first process that asks, and where torchrun is gone."""
        try:
            return self.store is None or bool(self.store.add("speaks", 1) == 1)
        except dist.DistError:
            return True


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except dist.DistError:
        raise InputError("lost torchrun, which this process belongs to; start it again, and the run goes on") from None


def started() -> Processes:
    """All processes that torchrun has started together with this one, or this one alone.

    Raises:
        InputError: if torchrun's store cannot be reached.
    """
    if not dist.is_torchelastic_launched():
        return Processes()
    with _connected():
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        store = dist.PrefixStore(agreed_name(store, rank, size), store)  # type: ignore[attr-defined]
    return Processes(rank, size, int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), store)


def agreed_name(store: Store, rank: int, size: int) -> str:
    """A name that the processes of this attempt share, and that no earlier attempt had: the store outlives them.

    Every process says its own random token, over whatever an earlier one of its rank has left. The first answers
    under each token with the name of the attempt, until all have confirmed it; an answer under a new token, and
    a confirmation of a new name, cannot be old ones. torchrun's count of restarts would not do: it is each machine's own.
    """
    token = uuid.uuid4().hex
    if rank:
        store.set(f"token {rank}", token)
        while not store.check([token]):
            time.sleep(_POLL)
        name: str = store.get(token).decode()
        store.set(f"{name} {rank}", "confirmed")
        return name
    missing = list(range(1, size))
    while missing:
        for other in missing:
            if store.check([f"token {other}"]):
                store.set(store.get(f"token {other}").decode(), token)
        time.sleep(_POLL)
        missing = [other for other in missing if not store.check([f"{token} {other}"])]
    return token
