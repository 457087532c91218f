"""Downloads against a server on this machine: complete, cut, wrong, killed, and the whole paper profile through them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torchvision.models import vgg16

from gradcampp.cli import main
from gradcampp.errors import InputError
from gradcampp.evaluation import download, profiles
from gradcampp.evaluation.profiles import Download, Profile
from gradcampp.evaluation.records import Run
from gradcampp.files import file_hash
from tests.conftest import ROOT, photograph
from tests.server import Server, running

FOLDER = "photos-val"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as served:
        yield served


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    buffer = io.BytesIO()
    photograph(0).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(path: Path, images: Mapping[str, bytes], mode: str = "w", odd: tarfile.TarInfo | None = None) -> Path:
    """A tar file of some photographs, and of one odd member after them."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if odd is not None:
            tar.addfile(odd)
    return path


def images(jpeg: bytes, classes: int = 12, each: int = 2) -> dict[str, bytes]:
    return {f"{FOLDER}/{label}/{index}.jpeg": jpeg for label in range(classes) for index in range(each)}


def served(server: Server, path: Path, **more: int | str) -> Download:
    """A download of a file that the server has, with its true size and hash unless said otherwise."""
    server.files[path.name] = path
    facts: dict[str, int | str] = {"size": path.stat().st_size, "sha256": file_hash(path)}
    return Download(address=f"{server.address}/{path.name}", **{**facts, **more})  # type: ignore[arg-type]


def blob(tmp_path: Path, size: int = 3_000_000) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(torch.randint(256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy().tobytes())
    return path


def profile_file(tmp_path: Path, **downloads: Download) -> str:
    """A profile that downloads these."""
    lines = ['model = "vgg16"']
    for key, wanted in downloads.items():
        lines += [f"[download.{key}]", f'address = "{wanted.address}"', f"size = {wanted.size}", f'sha256 = "{wanted.sha256}"']
        if wanted.folder:
            lines += [
                f'folder = "{wanted.folder}"',
                f"classes = {wanted.classes}",
                f"images_per_class = {wanted.images_per_class}",
            ]
    (tmp_path / "own.toml").write_text("\n".join(lines))
    return str(tmp_path / "own.toml")


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {".lock"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Files


def test_a_complete_download_and_a_second_one_that_downloads_nothing(server: Server, cache: Path, tmp_path: Path) -> None:
    path = blob(tmp_path)
    wanted = served(server, path)
    assert download.fetch([wanted], cache) == [cache / "weights.bin"]
    assert (cache / "weights.bin").read_bytes() == path.read_bytes()
    assert names(cache) == {"weights.bin"}
    download.fetch([wanted], cache)
    assert server.asked == [("weights.bin", None)]


def test_a_cut_connection_is_continued_where_it_was_cut(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path))
    server.cuts["weights.bin"] = [1_048_576, 150_000]
    download.fetch([wanted], cache)
    assert file_hash(cache / "weights.bin") == wanted.sha256
    assert [header for _, header in server.asked] == [None, "bytes=1048576-", f"bytes={1_048_576 + 2 * download.CHUNK}-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_is_cut_again_and_again_keeps_what_came(
    server: Server, cache: Path, tmp_path: Path, ranges: bool
) -> None:
    wanted = served(server, blob(tmp_path))
    server.ranges = ranges
    server.cuts["weights.bin"] = [100_000] * download.TRIES
    kept = download.CHUNK * download.TRIES if ranges else download.CHUNK
    with pytest.raises(InputError, match=f"was cut 3 times; {kept} of 3000000 bytes are kept: run the same command again"):
        download.fetch([wanted], cache)
    assert names(cache) == {"weights.bin.part"}
    download.fetch([wanted], cache)
    assert server.asked[-1] == ("weights.bin", f"bytes={kept}-")
    assert file_hash(cache / "weights.bin") == wanted.sha256


def test_a_server_that_does_not_say_how_long_its_files_are(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path))
    server.lengths = False
    server.cuts["weights.bin"] = [1_000_000]  # no way to tell this from the end but the size
    download.fetch([wanted], cache)
    assert file_hash(cache / "weights.bin") == wanted.sha256
    short = served(server, blob(tmp_path), size=2_000_000)
    with pytest.raises(InputError, match="the server offers more, expected 2000000"):
        download.fetch([short], tmp_path / "other")


def test_a_wrong_hash_removes_what_came(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path), sha256="0" * 64)
    actual = file_hash(server.files["weights.bin"])
    with pytest.raises(InputError, match=f"SHA-256 {actual}, expected 3000000 bytes with {'0' * 64}; they were removed"):
        download.fetch([wanted], cache)
    assert names(cache) == set()


@pytest.mark.parametrize("size", [2_999_999, 3_000_001])
def test_a_wrong_size_is_noticed_before_the_transfer(server: Server, cache: Path, tmp_path: Path, size: int) -> None:
    wanted = served(server, blob(tmp_path), size=size)
    with pytest.raises(
        InputError, match=f"the server offers 3000000 bytes, expected {size} bytes; the file at this address is another"
    ):
        download.fetch([wanted], cache)
    assert not (cache / "weights.bin").exists()
    assert (cache / "weights.bin.part").stat().st_size == 0


def test_room_is_checked_ahead(server: Server, cache: Path, tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.tar", images(jpeg))
    wanted = served(server, path, folder=FOLDER, classes=12, images_per_class=2)
    usage = shutil.disk_usage(tmp_path)
    for free in (0, 2 * wanted.size - 1):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
            with pytest.raises(InputError, match=f"has {free:,} bytes free, and {2 * wanted.size:,} are needed; make room"):
                download.fetch([wanted], cache)
    assert server.asked == []
    assert names(cache) == set()


def test_what_has_come_already_needs_no_room(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = served(server, blob(tmp_path))
    cache.mkdir()
    (cache / "weights.bin.part").write_bytes(server.files["weights.bin"].read_bytes()[:2_000_000])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    download.fetch([wanted], cache)
    assert server.asked == [("weights.bin", "bytes=2000000-")]


def test_a_part_of_another_file_costs_one_call(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path))
    cache.mkdir()
    for stale in (b"x" * 1000, b"x" * wanted.size, b"x" * (wanted.size + 1)):
        (cache / "weights.bin.part").write_bytes(stale)
        with pytest.raises(InputError, match="they were removed: run the same command again"):
            download.fetch([wanted], cache)
        assert names(cache) == set()
    download.fetch([wanted], cache)
    assert file_hash(cache / "weights.bin") == wanted.sha256


def test_a_part_longer_than_what_the_server_has_is_forgotten(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path), size=5_000_000)
    cache.mkdir()
    (cache / "weights.bin.part").write_bytes(b"x" * 4_000_000)
    with pytest.raises(InputError, match="the server says 416"):
        download.fetch([wanted], cache)
    assert names(cache) == set()


def test_a_damaged_file_in_the_cache_is_moved_aside(
    server: Server, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = served(server, blob(tmp_path))
    cache.mkdir()
    for damaged in (b"short", b"x" * wanted.size):
        (cache / "weights.bin").write_bytes(damaged)
        download.fetch([wanted], cache)
        assert (cache / "weights.bin.wrong").read_bytes() == damaged
        assert "moved to weights.bin.wrong" in capsys.readouterr().err
        assert file_hash(cache / "weights.bin") == wanted.sha256


def test_an_address_without_the_file(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path))
    server.files.clear()
    with pytest.raises(InputError, match=r"/weights\.bin: the server says 404 Not Found"):
        download.fetch([wanted], cache)
    assert not (cache / "weights.bin").exists()


def test_two_processes_do_not_write_to_one_cache(server: Server, cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is downloading"):
            download.fetch([served(server, blob(tmp_path))], cache)


# Archives


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_opens_whatever_its_name_says(server: Server, cache: Path, tmp_path: Path, jpeg: bytes, mode: str) -> None:
    wanted = served(server, archive(tmp_path / "a.tar.gz", images(jpeg), mode), folder=FOLDER, classes=12, images_per_class=2)
    assert download.fetch([wanted], cache) == [cache / FOLDER]
    assert contents(cache / FOLDER) == images(jpeg)
    assert names(cache) == {"a.tar.gz", FOLDER}
    shutil.rmtree(cache / FOLDER)
    download.fetch([wanted], cache)  # from the archive
    (cache / "a.tar.gz").unlink()
    download.fetch([wanted], cache)  # the folder is enough
    assert len(server.asked) == 1
    assert contents(cache / FOLDER) == images(jpeg)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (tarfile.TarInfo("../outside.jpeg"), "leaves the folder"),
        (tarfile.TarInfo(f"{FOLDER}/3/../../../outside.jpeg"), "leaves the folder"),
        (tarfile.TarInfo("/outside.jpeg"), "leaves the folder"),
        (link(f"{FOLDER}/3/link.jpeg", "/etc/hostname"), "is a link or a device"),
        (link(f"{FOLDER}/3/link.jpeg", "../../../outside.jpeg"), "is a link or a device"),
        (link(f"{FOLDER}/3/hard.jpeg", "../outside.jpeg", tarfile.LNKTYPE), "is a link or a device"),
        (link(f"{FOLDER}/3/pipe.jpeg", "", tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_an_archive_with_a_dangerous_member_is_rejected_as_a_whole(
    server: Server, cache: Path, tmp_path: Path, jpeg: bytes, odd: tarfile.TarInfo, says: str
) -> None:
    path = archive(tmp_path / "a.tar", images(jpeg), odd=odd)
    wanted = served(server, path, folder=FOLDER, classes=12, images_per_class=2)
    for _ in range(2):
        with pytest.raises(InputError, match=f"{says}; nothing of the archive was unpacked"):
            download.fetch([wanted], cache)
        assert names(cache) == {"a.tar"}
    assert not list(tmp_path.rglob("outside*"))
    assert not list(cache.parent.parent.glob("outside*"))


def without(found: dict[str, bytes], *prefixes: str) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: without(found, f"{FOLDER}/3/", f"{FOLDER}/11/"), "lacks class 3, 11; expected 12 class folders"),
        (lambda found: without(found, f"{FOLDER}/3/1"), "wrong number of images: class 3 has 1; expected 2 a class"),
        (lambda found: found | {f"{FOLDER}/3/9.jpeg": b""}, "class 3 has 3; expected 2"),
        (lambda found: found | {f"{FOLDER}/12/0.jpeg": b"", f"{FOLDER}/12/1.jpeg": b""}, "has 13 class folders; expected 12"),
        (lambda found: found | {f"{FOLDER}/03/0.jpeg": b"", f"{FOLDER}/03/1.jpeg": b""}, "has 13 class folders; expected 12"),
        (lambda found: found | {f"{FOLDER}/n02123045/0.jpeg": b""}, "class folder n02123045; expected the integers 0 to 11"),
        (
            lambda found: {name.replace(FOLDER, "val"): content for name, content in found.items()},
            "lacks class 0, 1, 2 and 9 more",
        ),
        (lambda _: {}, "lacks class 0, 1, 2 and 9 more"),
    ],
)
def test_an_archive_that_lacks_something_is_not_unpacked(
    server: Server, cache: Path, tmp_path: Path, jpeg: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]], says: str
) -> None:
    path = archive(tmp_path / "a.tar", change(images(jpeg)))
    wanted = served(server, path, folder=FOLDER, classes=12, images_per_class=2)
    with pytest.raises(InputError, match=f"{re.escape(says)}.*nothing of the archive was unpacked"):
        download.fetch([wanted], cache)
    assert names(cache) == {"a.tar"}


def test_what_does_not_matter_in_an_archive_is_passed_over(server: Server, cache: Path, tmp_path: Path, jpeg: bytes) -> None:
    extra = {"README.txt": b"", f"{FOLDER}/._3": b"", f"{FOLDER}/3/._0.jpeg": b"", f"{FOLDER}/.git/a": b""}
    path = archive(tmp_path / "a.tar", {f"./{name}": content for name, content in (images(jpeg) | extra).items()})
    wanted = served(server, path, folder=FOLDER, classes=12, images_per_class=2)
    download.fetch([wanted], cache)
    assert {name: content for name, content in contents(cache / FOLDER).items() if "/." not in name} == images(jpeg)
    assert names(cache) == {"a.tar", FOLDER}


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08 broken gzip"])
def test_a_file_that_is_no_archive(server: Server, cache: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content or b"\0")
    wanted = served(server, tmp_path / "a.tar", folder=FOLDER, classes=12, images_per_class=2)
    with pytest.raises(InputError, match="expected a tar archive"):
        download.fetch([wanted], cache)
    assert names(cache) == {"a.tar"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_archive_leaves_nothing(server: Server, cache: Path, tmp_path: Path, jpeg: bytes, mode: str) -> None:
    whole = archive(tmp_path / "a.tar", images(jpeg), mode).read_bytes()
    for length in (len(whole) // 2, len(whole) * 3 // 4):
        (tmp_path / f"{length}.tar").write_bytes(whole[:length])
        wanted = served(server, tmp_path / f"{length}.tar", folder=FOLDER, classes=12, images_per_class=2)
        with pytest.raises(InputError, match="cannot open|lacks class"):
            download.fetch([wanted], cache)
        assert not (cache / FOLDER).exists()


def test_an_unpacked_folder_that_lost_a_photograph_is_not_believed(
    server: Server, cache: Path, tmp_path: Path, jpeg: bytes
) -> None:
    wanted = served(server, archive(tmp_path / "a.tar", images(jpeg)), folder=FOLDER, classes=12, images_per_class=2)
    download.fetch([wanted], cache)
    (cache / FOLDER / "7" / "0.jpeg").unlink()
    with pytest.raises(InputError, match="class 7 has 1; expected 2 a class; delete the folder"):
        download.fetch([wanted], cache)
    with pytest.raises(InputError, match="class 7 has 1; expected 2 a class; run: gradcampp download"):
        download.in_cache(Profile(download={"data": wanted}), cache)
    assert len(contents(cache / FOLDER)) == 23


# Full disks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_full_while_writing(
    server: Server, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = served(server, blob(tmp_path))
    cache.mkdir()
    (cache / "weights.bin.part").symlink_to("/dev/full")  # every write to it fails as on a full disk
    assert main(["download", "--profile", profile_file(tmp_path, weights=wanted), "--to", str(cache)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "cannot write" in errors
    assert "No space left on device" in errors
    (cache / "weights.bin.part").unlink()
    download.fetch([wanted], cache)
    assert file_hash(cache / "weights.bin") == wanted.sha256


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to write beyond so many bytes, as a quota does; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_to_take_more(server: Server, cache: Path, tmp_path: Path, jpeg: bytes) -> None:
    large = images(jpeg) | {f"{FOLDER}/5/1.jpeg": b"x" * 300_000}
    wanted = served(server, archive(tmp_path / "a.tar", large), folder=FOLDER, classes=12, images_per_class=2)
    with no_file_larger_than(200_000), pytest.raises(InputError, match="cannot write .*: File too large; 200000 bytes are kept"):
        download.fetch([wanted], cache)
    assert names(cache) == {"a.tar.part"}
    shutil.copy(server.files["a.tar"], cache)
    with no_file_larger_than(200_000), pytest.raises(InputError, match="cannot unpack .*: File too large; nothing of it is kept"):
        download.fetch([wanted], cache)
    assert names(cache) == {"a.tar.part", "a.tar"}
    (cache / "a.tar").unlink()
    download.fetch([wanted], cache)  # from the part
    assert server.asked[-1] == ("a.tar", "bytes=200000-")
    assert names(cache) == {"a.tar", FOLDER}
    assert contents(cache / FOLDER) == large


# Kill -9


def download_command(profile: str, cache: Path) -> subprocess.Popen[str]:
    """``gradcampp download`` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, "-m", "gradcampp", "download", "--profile", profile, "--to", str(cache)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Kill a process in the middle of something."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_during_the_download_it_goes_on(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path, 8_000_000))
    own = profile_file(tmp_path, weights=wanted)
    server.waits.add("weights.bin")
    part = cache / "weights.bin.part"
    process = download_command(own, cache)
    kill_when(process, lambda: part.exists() and part.stat().st_size >= 3_000_000)
    assert names(cache) == {"weights.bin.part"}
    have = part.stat().st_size
    server.waits.clear()
    assert main(["download", "--profile", own, "--to", str(cache)]) == 0
    assert server.asked[-1] == ("weights.bin", f"bytes={have}-")
    assert file_hash(cache / "weights.bin") == wanted.sha256


def test_killed_while_unpacking_it_starts_the_unpacking_again(server: Server, cache: Path, tmp_path: Path, jpeg: bytes) -> None:
    everything = images(jpeg, classes=1000, each=6)
    wanted = served(server, archive(tmp_path / "a.tar", everything), folder=FOLDER, classes=1000, images_per_class=6)
    own = profile_file(tmp_path, data=wanted)
    process = download_command(own, cache)
    begun = cache / f".{FOLDER}.unpacking" / FOLDER / "5"
    kill_when(process, begun.exists)
    assert names(cache) == {"a.tar", f".{FOLDER}.unpacking"}
    assert download.problem(wanted, cache) is not None
    assert main(["download", "--profile", own, "--to", str(cache)]) == 0
    assert names(cache) == {"a.tar", FOLDER}
    assert len(server.asked) == 1
    assert contents(cache / FOLDER) == everything


# The command


def test_without_a_network_it_says_what_to_copy_where(
    cache: Path, tmp_path: Path, jpeg: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as gone:
        weights = served(gone, blob(tmp_path))
        data = served(gone, archive(tmp_path / "a.tar", images(jpeg)), folder=FOLDER, classes=12, images_per_class=2)
    own = profile_file(tmp_path, weights=weights, data=data)
    arguments = ["download", "--profile", own, "--to", str(cache)]
    for there in ([], ["weights.bin"]):
        for name in there:
            shutil.copy(tmp_path / name, cache)
        assert main(arguments) == 2
        *listing, last = capsys.readouterr().err.splitlines()
        missing = [wanted for wanted in (weights, data) if wanted.file not in there]
        assert listing[0] == f"copy these files into {cache}, then run the same command again:"
        assert listing[1:] == [
            line
            for wanted in missing
            for line in (f"  {wanted.address}", f"    {wanted.file}: {wanted.size} bytes, SHA-256 {wanted.sha256}")
        ]
        assert last.startswith("gradcampp: error: no connection to 127.0.0.1:")
        assert "Connection refused" in last
    shutil.copy(tmp_path / "a.tar", cache)
    assert main(arguments) == 0  # with the files there, no network is needed
    assert contents(cache / FOLDER) == images(jpeg)
    assert f"now: GRADCAMPP_CACHE={cache} gradcampp reproduce --profile {own}" in capsys.readouterr().out


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADCAMPP_CACHE", str(tmp_path / "elsewhere"))
    assert download.cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("GRADCAMPP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert "gradcampp" in download.cache_folder().name
    monkeypatch.setenv("GRADCAMPP_CACHE", "~/there")
    assert download.cache_folder() == Path.home() / "there"


def test_a_profile_without_downloads_needs_none(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--profile", "mini", "--to", str(cache)]) == 0
    assert "profile mini needs no download" in capsys.readouterr().out
    assert not cache.exists()
    assert download.in_cache(profiles.load("mini")) == profiles.load("mini")


def test_nothing_is_downloaded_behind_the_users_back(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADCAMPP_CACHE", str(cache))
    assert main(["reproduce", "--profile", "paper", "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{cache / 'vgg16-397923af.pth'} does not exist" in errors
    assert "run: gradcampp download --profile paper" in errors
    assert not (tmp_path / "out").exists()
    assert not cache.exists()


def test_options_go_before_downloads(server: Server, cache: Path, tmp_path: Path) -> None:
    wanted = served(server, blob(tmp_path))
    other = Profile(weights="mine.pth", photograph=Path("mine.jpg"), download={"weights": wanted, "photograph": wanted})
    assert download.in_cache(other, cache) == other


# The paper profile, whole


def stand_in(text: str, key: str, wanted: Download) -> str:
    """The paper's profile with another address, size and hash for one of its downloads."""
    head, mark, table = text.partition(f"[download.{key}]")
    for name, value in (("address", f'"{wanted.address}"'), ("size", wanted.size), ("sha256", f'"{wanted.sha256}"')):
        table = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", table, count=1)
    return head + mark + table


def test_the_paper_profile_from_download_to_summary(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """VGG16 with random weights (in half precision, to be small) on 1,000 classes of one JPEG each."""
    torch.manual_seed(0)
    weights = tmp_path / "vgg16-random.pth"
    torch.save({name: value.half() for name, value in vgg16().state_dict().items()}, weights)
    found = {}
    for label in range(1000):
        buffer = io.BytesIO()
        photograph(label, (64, 48)).save(buffer, "JPEG")
        found[f"imagenetv2-matched-frequency-format-val/{label}/{label:04x}.jpeg"] = buffer.getvalue()
    photograph(5, (300, 200)).save(tmp_path / "two.jpg")
    text = files("gradcampp").joinpath("resources", "paper.toml").read_text("utf-8")
    text = stand_in(text, "weights", served(server, weights))
    text = stand_in(text, "data", served(server, archive(tmp_path / "photos.tar.gz", found)))
    text = stand_in(text, "photograph", served(server, tmp_path / "two.jpg"))
    for old, new in (
        ("threshold = 0.5\ncontrols", "threshold = 0\ncontrols"),
        ("images_per_class = 10\n", "images_per_class = 1\n"),
        (f'weights = "{profiles.load("paper").download["weights"].sha256}"', f'weights = "{file_hash(weights)}"'),
        ("images = 10000", "images = 1000"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "paper.toml").write_text(text)
    own, cache, out = str(tmp_path / "paper.toml"), tmp_path / "cache", tmp_path / "out"
    monkeypatch.setenv("GRADCAMPP_CACHE", str(cache))
    reproduce = ["reproduce", "--profile", own, "--limit", "8", "--seed", "0", "--out", str(out)]
    assert main(reproduce) == 2
    assert f"run: gradcampp download --profile {own}" in capsys.readouterr().err

    assert main(["download", "--profile", own]) == 0
    assert sorted(name for name, _ in server.asked) == ["photos.tar.gz", "two.jpg", "vgg16-random.pth"]
    weights.unlink()
    cache.rename(tmp_path / "moved")  # as to a cluster without a network
    monkeypatch.setenv("GRADCAMPP_CACHE", str(tmp_path / "moved"))
    server.files.clear()
    capsys.readouterr()
    assert main(reproduce) == 0
    printed = capsys.readouterr().out
    assert "the published values are of 1000 images, and this run has 8" in printed
    assert "Table 1. Relative performance, paper (n = 4219) beside this run (n = 8)" in printed

    run = Run(out)
    rows = run.records
    assert len(rows) == 8
    assert all(int(Path(row["image"]).parts[0]) == row["label"] for _, row in rows.iterrows())
    assert rows["pre_gradcam_plusplus"].notna().all()
    experiment = run.manifest["experiment"]
    assert experiment["layer"] == "features.29"
    assert experiment["weights"] == profiles.load(own).download["weights"].sha256
    pictures = {f"figure{name}.png" for name in ("1", "2", "3", "4-pre", "4-post", "5", "6")}
    assert pictures | {"table1.csv", "table2.csv", "selfcheck.csv", "summary.html"} <= {path.name for path in out.iterdir()}
