"""Commands for those who keep the repository, from its folder: ``python -m scripts.NAME --help``."""

import sys
from pathlib import Path

import click

from gradcampp.errors import InputError


def run(command: click.Command) -> None:
    """Run a command to its end: bad input is one line and exit code 2, Ctrl-C one line and exit code 130."""
    name = Path(sys.argv[0]).stem
    try:
        command(standalone_mode=False)
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"{name}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except click.Abort:
        print(f"{name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
