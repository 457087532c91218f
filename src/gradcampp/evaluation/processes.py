"""One run shared by several processes: those that torchrun has started, on one machine or many.

The processes exchange a few short notes and no tensors, so there is no process group and no backend to
choose: the key-value store through which torchrun introduces them to each other is all that they need. It
lives in torchrun's own process and outlasts any of them. A process that dies is torchrun's to notice: it
ends the others, or restarts all of them. The notes of the dead stay in the store, so each attempt begins by
agreeing on a name of its own.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch.distributed as dist

from gradcampp.errors import InputError

Item = TypeVar("Item")

_POLL = 0.1  # seconds between two looks; a blocking wait would keep Ctrl-C and SIGTERM out


class Store(Protocol):
    """What is used of ``torch.distributed.Store``, which has no types."""

    def set(self, key: str, value: str) -> None:
        """Keep a value."""

    def get(self, key: str) -> bytes:
        """A value that has been set."""

    def add(self, key: str, value: int) -> int:
        """Add to a count, and the new one."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of them have been set."""


@dataclass(frozen=True)
class World:
    """The processes that share one run, seen from one of them.

    Attributes:
        rank: number of this process, from 0; the first one opens the run, merges it and talks to the user.
        size: how many there are.
        local_rank: number of this process on its machine, from 0.
        store: where they leave notes for each other.
        local_size: how many there are on this machine.
    """

    rank: int
    size: int
    local_rank: int
    store: Store
    local_size: int = 1

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What this process has to do of a list that is the same in all of them."""
        return list(items[self.rank :: self.size])

    def say(self, key: str, note: Any) -> None:
        """Leave a note, anything that JSON can hold, for the others."""
        packed = base64.b64encode(zlib.compress(json.dumps(note).encode())).decode()  # a store takes at most 8 MiB at once
        with _connected():
            self.store.set(key, packed)

    def hear(self, key: str, meanwhile: Callable[[], object] = lambda: None) -> Any:
        """The note that another process leaves, as soon as it is there."""
        with _connected():
            while not self.store.check([key]):
                meanwhile()
                time.sleep(_POLL)
            return json.loads(zlib.decompress(base64.b64decode(self.store.get(key))))

    def add(self, key: str, number: int) -> int:
        """Add to a count that all share; returns the new one."""
        with _connected():
            return self.store.add(key, number)

    def is_first(self, key: str) -> bool:
        """Whether no other process has asked this before; where the others are gone, nobody has."""
        try:
            return self.add(key, 1) == 1
        except InputError:
            return True


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except dist.DistError:
        raise InputError("lost torchrun, which this process belongs to; start it again, and the run goes on") from None


def alone() -> World:
    """A process that shares its run with no other; a new one for each run."""
    return World(0, 1, 0, dist.HashStore())  # type: ignore[attr-defined]


def joined() -> World:
    """All processes that torchrun has started together with this one, or this one alone.

    Raises:
        InputError: if torchrun's store cannot be reached.
    """
    if not dist.is_torchelastic_launched():
        return alone()
    with _connected():
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        store = dist.PrefixStore(agreed_name(store, rank, size), store)  # type: ignore[attr-defined]
    return World(rank, size, int(os.environ["LOCAL_RANK"]), store, int(os.environ["LOCAL_WORLD_SIZE"]))


def agreed_name(store: Store, rank: int, size: int) -> str:
    """A name that the processes of this attempt share, and that no earlier attempt had.

    Every process says its own random token, over whatever an earlier one of its rank has left. The first answers
    under each token with the name of the attempt, until all have confirmed it; an answer under a new token, and
    a confirmation of a new name, cannot be old ones. torchrun's count of restarts would not do: it is each machine's own.
    """
    token = uuid.uuid4().hex
    if rank:
        store.set(f"token {rank}", token)
        while not store.check([token]):
            time.sleep(_POLL)
        name = store.get(token).decode()
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
