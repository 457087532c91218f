"""The command ``gradcampp``, also as ``python -m gradcampp``."""

from __future__ import annotations

import signal

from gradcampp import console


def main() -> int:
    """The exit code of :func:`gradcampp.cli.main`, which Ctrl-C ends in a line already while that is imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not what a parent ignores
        signal.signal(signal.SIGINT, console.interrupt)
    from gradcampp.cli import main

    return main()


if __name__ == "__main__":
    raise SystemExit(main())
