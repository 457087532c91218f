"""Files on disk: hashes, and writes that a reader sees whole or not at all; the versions that files were made with."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def file_hash(path: Path, kind: str = "sha256") -> str:
    """SHA-256 of a file, or its MD5 (``md5``), in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def versions() -> dict[str, str]:
    """Of what decides the numbers, by name, without loading any of it."""
    import importlib.metadata  # takes as long as all else that --help needs

    names = ("gradcampp", "torch", "torchvision", "numpy", "pillow")
    return {**{name: importlib.metadata.version(name) for name in names}, "Python": platform.python_version()}


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write a file or folder to, which takes its final name only when the block has succeeded."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            error.filename = str(path)  # as the user calls it
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> Path:
    """Write a file in UTF-8, whole or not at all; its path comes back."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path
