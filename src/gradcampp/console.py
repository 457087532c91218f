"""Exit codes, notices, versions and Ctrl-C: the ends of a command, and all that it says besides its results.

Loads in no time, so that Ctrl-C is heard from the first moment on.
"""

from __future__ import annotations

import os
import sys

from gradcampp.errors import Notice

TYPE_CHECKING = False  # typing takes as long to load as all else here
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    import click

    from gradcampp.evaluation.processes import Processes

UNEXPECTED, BAD_INPUT = 1, 2
INTERRUPTED, UNREAD = 130, 141  # what shells report for Ctrl-C, and for a program whose output nobody reads any more
STOPPED = "interrupted; the same command goes on where it stopped"


def interrupt(_signal: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but leave at once while modules load: torch's C++ would abort, and nothing is begun."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if os.environ.get("RANK", "0") == "0":
                os.write(2, f"gradcampp: {STOPPED}\n".encode())
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def leave(code: int, reason: str, processes: Processes | None) -> int:
    """Say why in one line, unless another process of the run has said why it leaves."""
    if processes is None or processes.speaks():
        print(f"gradcampp: {' '.join(reason.split())}", file=sys.stderr)
    return code


def show_notice(
    others: Any, processes: Processes | None, said: set[str], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """A notice in one line, once and by the first process; other warnings as always."""
    line = f"gradcampp: {' '.join(str(message).split())}"
    if not issubclass(category, Notice):
        others(message, category, *where)
    elif line not in said and not (processes and processes.rank):
        said.add(line)
        print(line, file=sys.stderr)


def show_versions(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Versions of what decides the numbers, without loading any of it."""
    from gradcampp.files import versions

    if wanted:
        print(", ".join(f"{name} {version}" for name, version in versions().items()))
        context.exit()
