"""The one exception that a user can cause, and the one warning."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: one line that says what, where, and what to do.

    The command line prints the line and exits with code 2; no traceback.
    """


class Notice(UserWarning):
    """What a user should know in a line: what was assumed where nothing tells, or what was left out.

    The command line prints the line on standard error.
    """


def listed(items: list[str], limit: int = 3) -> str:
    """The first few items of a list, and how many more there are: ``a, b, c and 4 more``."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
