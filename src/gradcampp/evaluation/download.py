"""Weights and photographs from the network: on request only, once, checked, resumed where a connection was cut.

CACHE/<file>               a download whose size and checksum are right
CACHE/<file>.part          the beginning of one; a later call goes on from here
CACHE/<folder>             the photographs of an archive, complete

A file has its final name only when it is right, a folder only when it is complete. The cache holds no
path of its machine: copy it to another one, and it works there.
"""

from __future__ import annotations

import contextlib
import fcntl
import lzma
import os
import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
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
CHECKSUMS = {"sha256": "SHA-256", "md5": "MD5"}  # what people call them


def cache_folder() -> Path:
    """The folder of downloads: ``GRADCAMPP_CACHE``, or the platform's folder for caches."""
    return Path(os.environ.get(VARIABLE) or user_cache_dir("gradcampp")).expanduser()


def in_cache(profile: Profile, cache: Path | None = None) -> Profile:
    """A profile with the paths of its downloads for the keys that it leaves open; they lie in :func:`cache_folder` by default.

    Raises:
        InputError: if a download is not in the cache, or damaged; nothing is downloaded here.
    """
    cache = cache or cache_folder()
    wanted = {key: download for key, download in profile.download.items() if getattr(profile, key) is None}
    problems = [found for download in wanted.values() if (found := problem(download, cache))]
    if problems:
        command = f"gradcampp download --profile {profile.source} (or set {VARIABLE} to the folder that has them)"
        raise InputError(f"{listed(problems)}; run: {command}")
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
    kind, expected = download.checksum
    digest = file_hash(path, kind) if _size(path) == download.size else ""
    found = f"has {_size(path)} bytes{digest and f' with {CHECKSUMS[kind]} {digest}'}"
    return None if digest == expected else f"{found}, expected {download.size} bytes with {expected}"


def _folder_problem(path: Path, download: Download) -> str | None:
    counts = Counter(image.parent.name for image in path.glob("[!.]*/[!.]*"))  # hidden ones count as little in the evaluation
    labels = [str(label) for label in range(download.classes)]
    if odd := sorted(name for name in counts if not name.isdecimal()):
        return f"has the class folder {listed(odd)}; expected the integers 0 to {download.classes - 1}"
    if missing := [label for label in labels if label not in counts]:
        return f"lacks class {listed(missing)}; expected {download.classes} class folders"
    if len(counts) != download.classes:
        return f"has {len(counts)} class folders; expected {download.classes}"
    wrong = [f"class {label} has {counts[label]}" for label in labels if counts[label] != download.images_per_class]
    return f"has a wrong number of images: {listed(wrong)}; expected {download.images_per_class} a class" if wrong else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def fetch(downloads: Sequence[Download], cache: Path) -> list[Path]:
    """Bring downloads into the cache, which is made where it does not exist; what is there and right is kept.

    Returns:
        What to use of each download: the file, or the folder of photographs that was in it.

    Raises:
        InputError: if the network, the disk, a file or another process at work on the cache is at fault. What is right
            stays, and a later call goes on from there. Without a connection, stderr lists the files to copy.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is downloading into {cache}; wait for it, or choose another --to") from None
        needed = {download: found for download in downloads if (found := problem(download, cache))}
        for download, found in needed.items():
            if download.folder and path_of(download, cache).exists():
                raise InputError(f"{found}; delete the folder, then run the same command again")
        _check_room(needed, cache)
        try:
            for download in needed:
                if found := _file_problem(cache / download.file, download):
                    _get(download, cache / download.file, found)
                if download.folder:
                    _unpack(download, cache / download.file, cache / download.folder)
        except requests.RequestException as error:
            print(f"copy these files into {cache}, then run the same command again:", file=sys.stderr)
            for absent in (each for each in needed if _file_problem(cache / each.file, each)):
                print(f"  {absent.address}", file=sys.stderr)
                kind, expected = absent.checksum
                print(f"    {absent.file}: {absent.size} bytes, {CHECKSUMS[kind]} {expected}", file=sys.stderr)
            cause: BaseException = error
            while cause.__context__ is not None:  # the last in the chain is the system's own
                cause = cause.__context__
            raise InputError(f"no connection to {urlsplit(download.address).netloc} ({cause})") from None
    return [path_of(download, cache) for download in downloads]


def _check_room(needed: Iterable[Download], cache: Path) -> None:
    """See to it, before anything is asked for, that the disk holds what is to come and what unpacks from it."""
    absent = [download for download in needed if not (cache / download.file).exists()]
    room = sum(download.size - _size(cache / f"{download.file}.part") for download in absent)
    room += sum(download.size for download in needed if download.folder)
    if (free := shutil.disk_usage(cache).free) < room:
        advice = f"make room, or choose another folder with --to or {VARIABLE}"
        raise InputError(f"{cache} has {free:,} bytes free, and {room:,} are needed; {advice}")


def _get(download: Download, path: Path, found: str) -> None:
    """Bring one file under its final name, from where an earlier call was cut off."""
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        path.replace(path.with_name(f"{path.name}.wrong"))
        print(f"{path} {found}: moved to {path.name}.wrong", file=sys.stderr)
    for _ in range(TRIES):
        if _size(part) < download.size:
            _transfer(download, part)
    if _size(part) < download.size:
        kept = f"{_size(part)} of {download.size} bytes are kept: run the same command again, and it goes on there"
        raise InputError(f"{download.address}: the connection was cut {TRIES} times; {kept}")
    if wrong := _file_problem(part, download):
        part.unlink()
        again = "run the same command again, and if that gives the same the file at this address is another one"
        raise InputError(f"{download.address}: what came {wrong}; they were removed: {again}")
    part.replace(path)


def _transfer(download: Download, part: Path) -> None:
    """Append to a part what the server has beyond it; a connection that is cut later is no error here."""
    have, size, address = _size(part), download.size, download.address
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    response = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)  # the server has less than the part: not the same file
    if response.status_code not in (requests.codes.ok, requests.codes.partial):
        raise InputError(f"{address}: the server says {response.status_code} {response.reason}")
    have = have if response.status_code == requests.codes.partial else 0  # this server knows no ranges
    whole = have + int(response.headers.get("Content-Length", size - have))
    offers = "" if whole == size else f"{whole} bytes"
    bar = tqdm(desc=download.file, total=size, initial=have, unit="B", unit_scale=True, disable=None)
    try:
        with response, bar, part.open("ab" if have else "wb") as file, contextlib.suppress(requests.RequestException):
            for chunk in () if offers else response.iter_content(CHUNK):
                bar.update(file.write(chunk))
                if file.tell() > size:
                    offers = "more"
                    break
            if offers:
                file.truncate(0)
    except OSError as error:
        again = f"{_size(part)} bytes are kept: make room, then run the same command again"
        raise InputError(f"cannot write {part}: {error.strerror or error}; {again}") from None
    if offers:
        raise InputError(f"{address}: the server offers {offers}, expected {size} bytes; the file at this address is another one")


def _unpack(download: Download, archive: Path, folder: Path) -> None:
    """Bring the photographs of an archive under their final name, all or none."""
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tqdm(tar, desc=f"unpacking {download.file}", unit="file", disable=None):
                leaves = {"..", "/"} & {*Path(member.name).parts}
                if leaves or not (member.isreg() or member.isdir()):
                    what = "leaves the folder" if leaves else "is a link or a device"
                    raise InputError(f"{archive}: {member.name!r} {what}; nothing of the archive was unpacked")
                tar.extract(member, temporary, filter="data")
        if found := _folder_problem(temporary / folder.name, download):
            raise InputError(f"{archive} {found}; nothing of the archive was unpacked")
        os.sync()  # a power failure must not leave empty photographs under the final name
        (temporary / folder.name).replace(folder)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"cannot open {archive}: {error}; expected a tar archive, compressed or not") from None
    except OSError as error:
        kept = "nothing of it is kept but the archive: make room, then run the same command again"
        raise InputError(f"cannot unpack {archive}: {error.strerror or error}; {kept}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
