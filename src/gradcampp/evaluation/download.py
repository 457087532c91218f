"""Weights and photographs from the network: on request only, once, checked, resumed where a connection was cut.

CACHE/<file>               a download whose size and SHA-256 are right
CACHE/<file>.part          the beginning of one; a later call goes on from here
CACHE/<folder>             the photographs of an archive, complete

A file has its final name only when it is right, a folder only when it is complete. The cache holds no
path of its machine: copy it to another one, and it works there.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import lzma
import os
import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from platformdirs import user_cache_dir
from tqdm import tqdm

from gradcampp.errors import InputError, listed
from gradcampp.evaluation.profiles import Download, Profile, override
from gradcampp.files import file_hash

VARIABLE = "GRADCAMPP_CACHE"
CHUNK = 1 << 16  # bytes; a cut connection costs less than one chunk
TRIES = 3  # connections that may be cut before the user is asked
TIMEOUT = 30  # seconds without a byte
BLOCK = 4096  # bytes; photographs take up whole blocks on a disk


class NoNetworkError(InputError):
    """No connection to the machine that has the file."""


def cache_folder() -> Path:
    """The folder of downloads: ``GRADCAMPP_CACHE``, or the platform's folder for caches."""
    return Path(os.environ.get(VARIABLE) or user_cache_dir("gradcampp")).expanduser()


def in_cache(profile: Profile, cache: Path | None = None) -> Profile:
    """A profile with the paths of its downloads in the place of the keys that it leaves open.

    Args:
        profile: may have no downloads; then it comes back as it is.
        cache: None means :func:`cache_folder`.

    Raises:
        InputError: if a download is not in the cache, or damaged; nothing is downloaded here.
    """
    cache = cache or cache_folder()
    wanted = {key: download for key, download in profile.download.items() if getattr(profile, key) is None}
    problems = [found for download in wanted.values() if (found := problem(download, cache))]
    if problems:
        raise InputError(
            f"{listed(problems)}; run: gradcampp download --profile {profile.source} "
            f"(or set {VARIABLE} to the folder that has them)"
        )
    return override(profile, {key: str(path_of(download, cache)) for key, download in wanted.items()})


def path_of(download: Download, cache: Path) -> Path:
    """The part of a download that a profile uses: the file, or the folder of photographs that was in it."""
    return cache / (download.folder or download.file)


def problem(download: Download, cache: Path) -> str | None:
    """The reason why a download cannot be used as it lies in the cache; None where it can."""
    path = path_of(download, cache)
    if not path.exists():
        return f"{path} does not exist"
    found = _folder_problem(path, download) if download.folder else _file_problem(path, download)
    return f"{path} {found}" if found else None


def _file_problem(path: Path, download: Download) -> str | None:
    if _size(path) != download.size:
        return f"has {_size(path)} bytes instead of {download.size}"
    digest = file_hash(path)
    return None if digest == download.sha256 else f"has the SHA-256 {digest} instead of {download.sha256}"


def _folder_problem(path: Path, download: Download) -> str | None:
    """Is every class there with all its photographs? Hidden files and folders count as little as in the evaluation."""
    images = [image for image in path.glob("*/*") if not image.name.startswith(".") and not image.parent.name.startswith(".")]
    counts = Counter(image.parent.name for image in images)
    odd = sorted(name for name in counts if not (name.isascii() and name.isdigit()))
    if odd:
        return f"has the class folder {listed(odd)}; expected the integers 0 to {download.classes - 1}"
    classes = {int(name): count for name, count in counts.items()}
    missing = [str(label) for label in range(download.classes) if label not in classes]
    if missing:
        return f"lacks class {listed(missing)}; expected {download.classes} class folders"
    if len(counts) != download.classes:
        return f"has {len(counts)} class folders; expected {download.classes}"
    wrong = [f"class {label} has {classes[label]}" for label in sorted(classes) if classes[label] != download.images_per_class]
    return f"has a wrong number of images: {listed(wrong)}; expected {download.images_per_class} a class" if wrong else None


def instructions(downloads: Sequence[Download], cache: Path) -> str:
    """The files to copy on a machine without a network, and where to: two lines a file."""
    lines = [f"copy these files into {cache}, then run the same command again:"]
    for download in downloads:
        if problem(download, cache) and _file_problem(cache / download.file, download):
            lines += [f"  {download.address}", f"    {download.file}: {download.size} bytes, SHA-256 {download.sha256}"]
    return "\n".join(lines)


def fetch(downloads: Sequence[Download], cache: Path) -> list[Path]:
    """Bring downloads into the cache; what is there and right is kept.

    Args:
        downloads: of a profile.
        cache: made where it does not exist. One process at a time can work on it.

    Returns:
        What to use of each download: the file, or the folder of photographs that was in it.

    Raises:
        NoNetworkError: if there is no connection; :func:`instructions` says what to copy.
        InputError: if the network, the disk or a file is at fault. Files that are right stay, and a later
            call goes on from there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache):
        needed = {download: found for download in downloads if (found := problem(download, cache))}
        absent = [download for download in needed if _file_problem(cache / download.file, download)]
        for download, found in needed.items():
            if download.folder and path_of(download, cache).exists():
                raise InputError(f"{found}; delete the folder, then run the same command again")
        left = sum(max(0, download.size - _size(_part(download, cache))) for download in absent)
        _check_room(cache, left + sum(download.size for download in needed if download.folder))
        for download in needed:
            if download in absent:
                _get(download, cache)
            if download.folder:
                _unpack(download, cache)
    return [path_of(download, cache) for download in downloads]


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is downloading into {cache}; wait for it, or choose another --to") from None
        yield


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        amounts = [f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size} bytes" for size in (free, needed)]
        raise InputError(
            f"{folder} has {amounts[0]} free, and {amounts[1]} are needed; make room, or choose another folder "
            f"with --to or {VARIABLE}"
        )


def _part(download: Download, cache: Path) -> Path:
    return cache / f"{download.file}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get(download: Download, cache: Path) -> None:
    """Bring one file under its final name, from where an earlier call was cut off."""
    path, part = cache / download.file, _part(download, cache)
    if path.exists():
        aside = path.replace(path.with_name(f"{path.name}.wrong"))
        print(f"{path} {_file_problem(aside, download)}: moved to {aside.name}", file=sys.stderr)
    for _ in range(TRIES):
        if _size(part) < download.size:
            _transfer(download, part)
    if _size(part) < download.size:
        raise InputError(
            f"{download.address}: the connection was cut {TRIES} times; {_size(part)} of {download.size} bytes are kept: "
            "run the same command again, and it goes on there"
        )
    if _file_problem(part, download):
        found = f"{_size(part)} bytes with SHA-256 {file_hash(part)}"
        part.unlink()
        raise InputError(
            f"{download.address}: got {found}, expected {download.size} bytes with {download.sha256}; they were removed: run the "
            "same command again, and if that gives the same the file at this address is another one"
        )
    part.replace(path)


def _transfer(download: Download, part: Path) -> None:
    """Append to a part what the server has beyond it; a connection that is cut later is no error here."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = requests.get(download.address, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise NoNetworkError(f"no connection to {urlsplit(download.address).netloc} ({_cause(error)})") from None
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        part.unlink()  # the server has less than the part: not the same file
    if response.status_code not in (requests.codes.ok, requests.codes.partial):
        raise InputError(f"{download.address}: the server says {response.status_code} {response.reason}")
    have = have if response.status_code == requests.codes.partial else 0  # this server knows no ranges
    length = int(response.headers.get("Content-Length", download.size - have))
    offered = "" if have + length == download.size else f"{have + length} bytes"
    bar = tqdm(desc=download.file, total=download.size, initial=have, unit="B", unit_scale=True, disable=None)
    try:
        with response, bar, part.open("ab" if have else "wb") as file, contextlib.suppress(requests.RequestException):
            for chunk in () if offered else response.iter_content(CHUNK):
                if file.tell() + len(chunk) > download.size:
                    offered = "more"
                    break
                file.write(chunk)
                bar.update(len(chunk))
        if offered:
            part.write_bytes(b"")
    except OSError as error:
        raise InputError(
            f"cannot write {part}: {error.strerror or error}; {_size(part)} bytes are kept: make room, then run the same "
            "command again"
        ) from None
    if offered:
        raise InputError(
            f"{download.address}: the server offers {offered}, expected {download.size} bytes; "
            "the file at this address is another one"
        )


def _cause(error: BaseException) -> str:
    """The last reason in a chain of exceptions, which is the system's own."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _unpack(download: Download, cache: Path) -> None:
    """Bring the photographs of an archive under their final name, all or none."""
    archive, folder = cache / download.file, path_of(download, cache)
    temporary = cache / f".{folder.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        with tarfile.open(archive, "r:*") as tar:
            members = list(tqdm(tar, desc=f"checking {download.file}", unit="file", disable=None))
            unsafe = next(filter(None, map(_danger, members)), None)
            if unsafe:
                raise InputError(f"{archive}: {unsafe}; nothing of the archive was unpacked")
            _check_room(cache, sum(-(-member.size // BLOCK) * BLOCK for member in members))
            progress = tqdm(members, desc=f"unpacking {download.file}", unit="file", disable=None)
            tar.extractall(temporary, progress, filter="data")
        found = _folder_problem(temporary / folder.name, download)
        if found:
            raise InputError(f"{archive} {found}; nothing of the archive was unpacked")
        os.sync()  # a power failure must not leave empty photographs under the final name
        (temporary / folder.name).replace(folder)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"cannot open {archive}: {error}; expected a tar archive, compressed or not") from None
    except OSError as error:
        raise InputError(
            f"cannot unpack {archive}: {error.strerror or error}; nothing of it is kept but the archive: make room, then run "
            "the same command again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _danger(member: tarfile.TarInfo) -> str | None:
    """The reason not to touch an archive with such a member."""
    if not (member.isreg() or member.isdir()):
        return f"{member.name!r} is a link or a device"
    name = PurePosixPath(member.name)
    return f"{member.name!r} leaves the folder" if name.is_absolute() or ".." in name.parts else None
