"""The photographs of the evidence: fetched once, each the one of the records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click
import pyarrow as pa
import pytest

import scripts
from gradcampp.cam import SCORES
from gradcampp.errors import InputError
from gradcampp.evaluation import alphas, records
from scripts import photographs
from tests import server
from tests.conftest import ROOT
from tests.test_records import row

FILES = {"0/tench.JPEG": b"a fish", "1/goldfish.JPEG": b"another fish", "1/carp.JPEG": b"a third"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with the photographs side by side, and records that know them."""
    clone, run = tmp_path / "clone", tmp_path / "records"
    clone.mkdir()
    rows = []
    for image, content in FILES.items():
        (clone / Path(image).name).write_bytes(content)
        rows.append(row(image) | {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    for kind in ("records", "alphas"):
        (run / f"{kind}.parquet").mkdir(parents=True)
    records.write_part(run, 0, pa.Table.from_pylist(rows, records.SCHEMA), dict.fromkeys(SCORES, alphas.EMPTY), {})
    records.write_manifest(run, {"finished": True, "experiment": {}})
    monkeypatch.setattr(photographs, "RECORDS", run)
    return clone


def found(out: Path) -> dict[str, bytes]:
    """The photographs below a folder; a download may leave its lock there."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("[!.]*") if path.is_file()}


def served(place: server.Server, clone: Path) -> None:
    place.files = {path.name: path for path in clone.iterdir()}


def test_each_photograph_is_fetched_into_its_class_folder(source: Path, tmp_path: Path) -> None:
    with server.running() as place:
        served(place, source)
        photographs.gather(tmp_path / "out", None, place.address)
        assert sorted(name for name, _ in place.asked) == sorted(path.name for path in source.iterdir())
        assert found(tmp_path / "out") == FILES
        photographs.gather(tmp_path / "out", None, place.address)
        assert len(place.asked) == 3  # what is there and right stays
        (tmp_path / "out" / "1" / "carp.JPEG").write_bytes(b"damaged")
        photographs.gather(tmp_path / "out", None, place.address)
        assert place.asked[3:] == [("carp.JPEG", None)]
    assert found(tmp_path / "out") == FILES


@pytest.mark.parametrize("wrong", [b"b fish", b"a longer fish", b""])
def test_a_file_that_is_not_the_one_of_the_records_is_refused(source: Path, tmp_path: Path, wrong: bytes) -> None:
    (source / "tench.JPEG").write_bytes(wrong)
    with server.running() as place:
        served(place, source)
        with pytest.raises(InputError, match=r"tench\.JPEG"):
            photographs.gather(tmp_path / "out", None, place.address)
    assert not (tmp_path / "out" / "0" / "tench.JPEG").exists()


def test_a_clone_will_do_and_keeps_its_files(source: Path, tmp_path: Path) -> None:
    photographs.gather(tmp_path / "out", source)
    assert found(tmp_path / "out") == FILES
    assert len(list(source.iterdir())) == 3


def test_another_file_in_a_clone_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "goldfish.JPEG").write_bytes(b"a shark")
    with pytest.raises(InputError, match=r"goldfish.JPEG is not the photograph of the records; expected SHA-256 [0-9a-f]{64}"):
        photographs.gather(tmp_path / "out", source)
    (source / "goldfish.JPEG").unlink()
    with pytest.raises(InputError, match="is not the photograph of the records"):
        photographs.gather(tmp_path / "out", source)
    assert found(tmp_path / "out") == {"0/tench.JPEG": FILES["0/tench.JPEG"]}  # in the order of the records


def test_the_command_says_how_to_go_on(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs.main(["--out", str(tmp_path / "out"), "--clone", str(source)], standalone_mode=False)
    assert f"gradcampp reproduce --profile photographs --data {tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("no such folder"), 2, "some: error: no such folder\n"),
        (click.UsageError("No such option: --x"), 2, "some: error: No such option: --x\n"),
        (KeyboardInterrupt(), 130, "some: interrupted; the same command goes on where it stopped\n"),
    ],
)
def test_every_script_ends_in_one_line(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["scripts/some.py"])
    with pytest.raises(SystemExit) as left:
        scripts.run(command)
    assert left.value.code == code
    assert capsys.readouterr().err.lstrip("\n") == says  # click ends the line of ^C
    assert all(path.read_text("utf-8").endswith("    run(main)\n") for path in (ROOT / "scripts").glob("[!_]*.py"))


def test_the_address_is_that_of_one_commit() -> None:
    assert photographs.ADDRESS.startswith("https://raw.githubusercontent.com/EliSchwartz/imagenet-sample-images/")
    assert len(photographs.ADDRESS.rsplit("/", 1)[-1]) == 40
