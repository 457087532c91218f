"""Weights and photographs from the network: on request only, once, checked, resumed where a connection was cut.

CACHE/<file>               a download whose size and SHA-256 are right
CACHE/<file>.part          what has come so far; a later call goes on from here
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
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

import requests
from tqdm import TqdmWarning, tqdm

from gradcampp.errors import InputError, listed
from gradcampp.evaluation.profiles import Download, Profile
from gradcampp.files import file_hash

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # it loads tqdm's bar for notebooks, which asks for widgets that we do not use
    import pooch

VARIABLE = "GRADCAMPP_CACHE"


CHUNK = 1 << 16  # bytes; a cut connection costs less than one chunk


TRIES = 3  # connections that may be cut before the user is asked


BLOCK = 4096  # bytes; photographs take up whole blocks on a disk


class NoNetworkError(InputError):
    """No connection to the machine that has the file."""


def cache_folder() -> Path:
    """Where downloads lie: ``GRADCAMPP_CACHE``, or the platform's folder for caches."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("gradcampp"))


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
    problems = [found for download in wanted.values() if (found := problem(download, cache)) is not None]
    if problems:
        raise InputError(
            f"{listed(problems)}; run: gradcampp download --profile {profile.source} "
            f"(or set {VARIABLE} to the folder that has them)"
        )
    paths: dict[str, Any] = {key: path_of(download, cache) for key, download in wanted.items()}
    if "weights" in paths:
        paths["weights"] = str(paths["weights"])
    return replace(profile, **paths)


def path_of(download: Download, cache: Path) -> Path:
    """What a profile uses of a download: the file, or the folder of photographs that was in it."""
    return cache / (download.folder or download.file)


def problem(download: Download, cache: Path) -> str | None:
    """Why a download cannot be used as it lies in the cache; None where it can."""
    return _file_problem(download, cache) if download.folder is None else _folder_problem(download, cache)


def _file_problem(download: Download, cache: Path) -> str | None:
    path = cache / download.file
    if not path.exists():
        return f"{path} does not exist"
    if path.stat().st_size != download.size:
        return f"{path} has {path.stat().st_size} bytes instead of {download.size}"
    digest = file_hash(path)
    return None if digest == download.sha256 else f"{path} has the SHA-256 {digest} instead of {download.sha256}"


def _folder_problem(download: Download, cache: Path) -> str | None:
    path = path_of(download, cache)
    if not path.exists():
        return f"{path} does not exist"
    images = ((folder.name, image.name) for folder in path.iterdir() if folder.is_dir() for image in folder.iterdir())
    found = _layout_problem(images, download)
    return None if found is None else f"{path} {found}"


def _layout_problem(images: Iterable[tuple[str, str]], download: Download) -> str | None:
    """What is wrong with the class folders, given (class folder, photograph) of all photographs.

    A class is ``int(name)``; names that start with a dot are passed over, as the evaluation does.
    """
    counts = Counter(folder for folder, image in set(images) if not folder.startswith(".") and not image.startswith("."))
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
    """Which files to copy where on a machine without a network: two lines a file."""
    lines = [f"copy these files into {cache}, then run the same command again:"]
    for download in downloads:
        if problem(download, cache) is not None and _file_problem(download, cache) is not None:
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
    if not hasattr(tarfile, "data_filter"):  # Python 3.11.0 to 3.11.3
        raise InputError("archives can be unpacked safely by Python 3.11.4 or newer; please update Python")
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache):
        needed = [download for download in downloads if problem(download, cache) is not None]
        for download in needed:
            if download.folder is not None and path_of(download, cache).exists():
                raise InputError(f"{problem(download, cache)}; delete the folder, then run the same command again")
        absent = [download for download in needed if _file_problem(download, cache) is not None]
        unpacked = sum(download.size for download in needed if download.folder is not None)
        _check_room(cache, sum(max(0, download.size - _size(_part(download, cache))) for download in absent) + unpacked)
        for download in needed:
            if download in absent:
                _get(download, cache)
            if download.folder is not None:
                _unpack(download, cache)
            _part(download, cache).unlink(missing_ok=True)
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
        raise InputError(
            f"{folder} has {_amount(free)} free, and {_amount(needed)} are needed; make room, or choose another folder "
            f"with --to or {VARIABLE}"
        )


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size} bytes"


def _part(download: Download, cache: Path) -> Path:
    return cache / f"{download.file}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get(download: Download, cache: Path) -> None:
    """Bring one file under its final name, from where an earlier call was cut off."""
    path, part = cache / download.file, _part(download, cache)
    if path.exists():
        aside = path.with_name(f"{path.name}.wrong")
        print(f"{_file_problem(download, cache)}: moved to {aside.name}", file=sys.stderr)
        path.replace(aside)
    for _ in range(TRIES):
        _transfer(download, part)
        if _size(part) >= download.size:
            break
    else:
        raise InputError(
            f"{download.address}: the connection was cut {TRIES} times; {_size(part)} of {download.size} bytes are kept: "
            "run the same command again, and it goes on there"
        )
    digest = file_hash(part)
    if _size(part) != download.size or digest != download.sha256:
        wrong = f"{_size(part)} bytes with SHA-256 {digest}"
        part.unlink()
        raise InputError(
            f"{download.address}: got {wrong}, expected {download.size} bytes with {download.sha256}; they were removed: run the "
            "same command again, and if that gives the same the file at this address is another one"
        )
    part.replace(path)


def _transfer(download: Download, part: Path) -> None:
    """Append to a part what the server has beyond it; a connection that is cut later is no error here."""
    target = _Target(download)
    try:
        with (
            part.open("ab") as target.file,
            tqdm(desc=download.file, total=download.size, unit="B", unit_scale=True, disable=None) as target.progress,
        ):
            have = target.file.tell()
            target.progress.update(have)
            if have >= download.size:  # an earlier call was killed before it could look at the hash
                return
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
            get = pooch.HTTPDownloader(chunk_size=CHUNK, headers=headers, hooks={"response": target.begin})
            get(download.address, target, None)
            os.fsync(target.file.fileno())
    except requests.HTTPError:
        if target.status == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # the server has less than the part: not the same file
        raise InputError(f"{download.address}: the server says {target.status} {target.reason}") from None
    except requests.RequestException as error:
        if not target.begun:
            raise NoNetworkError(f"no connection to {urlsplit(download.address).netloc} ({_cause(error)})") from None
    except OSError as error:
        raise InputError(
            f"cannot write {part}: {error.strerror or error}; {_size(part)} bytes are kept: make room, then run the same "
            "command again"
        ) from None


class _Target:
    """The file that a transfer writes to; refuses what cannot be the file that is wanted."""

    file: BinaryIO
    progress: tqdm[Any]

    def __init__(self, download: Download) -> None:
        self.download = download
        self.status, self.reason = 0, ""

    @property
    def begun(self) -> bool:
        """Has the server begun to send the file?"""
        return self.status in (requests.codes.ok, requests.codes.partial)

    def begin(self, response: requests.Response, *_: object, **__: object) -> None:
        """Look at the head of the answer: how much is there, and does it go on or start again?"""
        self.status, self.reason = response.status_code, response.reason
        if not self.begun:
            return
        if self.status == requests.codes.ok and self.file.tell():  # this server knows no ranges
            self.file.truncate(0)
            self.file.seek(0)
            self.progress.reset()
        length = response.headers.get("Content-Length")
        if length is not None:
            offered = self.file.tell() + int(length)
            if offered != self.download.size:
                self._refuse(f"{offered} bytes")

    def write(self, chunk: bytes) -> None:
        """Append some bytes."""
        if self.file.tell() + len(chunk) > self.download.size:
            self._refuse("more")
        self.file.write(chunk)
        self.progress.update(len(chunk))

    def flush(self) -> None:
        """Leave it to the file."""
        self.file.flush()

    def _refuse(self, offered: str) -> NoReturn:
        self.file.truncate(0)
        raise InputError(
            f"{self.download.address}: the server offers {offered}, expected {self.download.size} bytes; "
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
            members = _safe_members(tar, download, archive, temporary)
            _check_room(cache, sum(-(-member.size // BLOCK) * BLOCK for member in members))
            for member in tqdm(members, desc=f"unpacking {download.file}", unit="file", disable=None):
                tar.extract(member, temporary, filter="data")
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


def _safe_members(tar: tarfile.TarFile, download: Download, archive: Path, temporary: Path) -> list[tarfile.TarInfo]:
    """All members of an archive, of which each must stay in the folder and is a plain file or a folder."""
    members = []
    for member in tqdm(tar, desc=f"checking {download.file}", unit="file", disable=None):
        name = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()):
            raise InputError(f"{archive}: {member.name!r} is a link or a device; nothing of the archive was unpacked")
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{archive}: {member.name!r} leaves the folder; nothing of the archive was unpacked")
        tarfile.data_filter(member, str(temporary))
        members.append(member)
    paths = [PurePosixPath(member.name).parts for member in members if member.isreg()]
    found = _layout_problem(
        ((parts[1], parts[2]) for parts in paths if parts[0] == download.folder and len(parts) == 3), download
    )
    if found is not None:
        raise InputError(f"{archive} {found}; nothing of the archive was unpacked")
    return members
