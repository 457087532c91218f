"""Runs that several processes share: the same bytes, however the work is cut and whoever dies on the way."""

from __future__ import annotations

import copy
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
import torch.distributed as dist
from torch import nn

from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.measure import measure
from gradcampp.evaluation.processes import Processes, agreed_name, started
from gradcampp.evaluation.records import Run
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.files import file_hash
from gradcampp.networks.classes import numbered
from gradcampp.scenes.folder import draw_scenes
from tests.conftest import ROOT
from tests.networks import scored
from tests.test_evaluate import finished_images, network, same_files
from tests.test_evaluate import run as run_alone

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


@functools.cache
def own_network() -> nn.Module:
    """Drawn once, before there are threads: they share torch's generator."""
    return scored().eval()


def processes_of(size: int) -> list[Processes]:
    """The same processes seen from each of them."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    return [Processes(rank, size, rank, size, store) for rank in range(size)]


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call returns or raises, all of them at the same time."""
    own_network()
    results: list[Any] = [None] * len(calls)

    def keep(place: int) -> None:
        try:
            results[place] = calls[place]()
        except Exception as error:
            results[place] = error

    started = [Thread(target=keep, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(600)
    return results


def shared_run(data: Path, out: Path, processes: Processes, **changes: Any) -> Run:
    """What ``run`` of test_evaluate does, as one of several processes."""
    own = network(copy.deepcopy(own_network()))
    experiment = experiment_of(own, 0.3) | changes
    execution = Execution(2, 0, "cpu", skip_bad_images=True)
    return evaluate(own, list_photographs(data, numbered(3)), data, out, experiment, execution, processes)


@pytest.mark.parametrize("size", [1, 2, 3, 7])  # of five parts, so the last has nothing to do
def test_any_number_of_processes_writes_the_same_bytes(folder: Callable[..., Path], tmp_path: Path, size: int) -> None:
    data = folder()
    (data / "2" / "bad.jpg").write_text("no photograph")
    run_alone(data, tmp_path / "alone", batch_size=2, skip_bad_images=True)
    runs = in_threads([lambda one=one: shared_run(data, tmp_path / "run", one) for one in processes_of(size)])  # type: ignore[misc]
    assert same_files(tmp_path / "alone", tmp_path / "run")
    manifest = records.read_manifest(tmp_path / "run")
    assert all(run.manifest == manifest for run in runs)
    assert manifest["processes"] == size
    assert list(manifest["skipped"]) == ["2/bad.jpg"]
    again = in_threads([lambda one=one: shared_run(data, tmp_path / "run", one) for one in processes_of(size)])  # type: ignore[misc]
    assert [run.manifest for run in again] == [manifest] * size  # a finished run: nothing to do for anybody


def test_parts_of_another_number_of_processes_are_kept(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder()
    run_alone(data, tmp_path / "alone", batch_size=2)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("gradcampp.evaluation.run._finish", full)
        with pytest.raises(OSError, match="No space"):
            shared_run(data, tmp_path / "run", Processes())
    for part in records.parts(tmp_path / "run")[1:]:
        records.remove_part(tmp_path / "run", part)
    measured: list[str] = []

    def counted(network: Any, batch: Any, *others: Any) -> Any:
        measured.extend(photograph.image for photograph in batch.photographs)
        return measure(network, batch, *others)

    kept = finished_images(tmp_path / "run")
    monkeypatch.setattr("gradcampp.evaluation.run.measure", counted)
    in_threads([lambda one=one: shared_run(data, tmp_path / "run", one) for one in processes_of(3)])  # type: ignore[misc]
    assert len(kept) == 4
    assert not set(kept) & set(measured)
    assert same_files(tmp_path / "alone", tmp_path / "run")


def test_parts_of_a_call_with_more_photographs_do_not_stay(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    run_alone(data, tmp_path / "alone", batch_size=2)
    photo = data / "0" / "0.png"
    stray = {"image": "0/0.png", "label": 0, "score": 0.1, "prediction": 0, "label_rank": 1, "sha256": file_hash(photo)}
    stray |= {"bytes": photo.stat().st_size}
    stray |= {f"{scores}_alpha_{name}": 0 for scores in ("pre", "post") for name in ("count", "min", "max")}
    (tmp_path / "run" / "records.parquet").mkdir(parents=True)
    (tmp_path / "run" / "alphas.parquet").mkdir()
    rows = pa.Table.from_pylist([stray], records.SCHEMA)
    for part in (2, 99):  # one with another photograph, and one behind the last
        records.write_part(tmp_path / "run", part, rows, Run(tmp_path / "alone").alphas, {})
    shared_run(data, tmp_path / "run", Processes())
    assert same_files(tmp_path / "alone", tmp_path / "run")


@pytest.mark.parametrize(("change", "says"), [({"weights": "other"}, "weights: other in process 1"), ({"threshold": 0.4}, "0.4")])
def test_processes_that_do_something_else_are_told(
    folder: Callable[..., Path], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    data = folder()

    def another(**changes: Any) -> str:
        """The error of a second process; the first has opened the run."""
        run_first = Thread(target=lambda: shared_run(data, out, first), daemon=True)
        first, second = processes_of(2)
        run_first.start()
        with pytest.raises(InputError) as error:
            shared_run(other, out, second, **changes)
        return str(error.value)

    out = tmp_path / "run"
    other = data
    assert says in another(**change)
    other = folder(name="other")
    (other / "0" / "0.png").rename(other / "0" / "new.png")
    assert "photographs and labels: " in (said := another())
    assert "expected the same data" in said
    (other / "0" / "new.png").unlink()
    assert "number of photographs: 17 in process 1 " in (said := another())
    assert ", and 18 in process 0" in said


def test_folders_that_are_not_shared_are_noticed(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    here, there = processes_of(2)
    Thread(target=lambda: shared_run(data, tmp_path / "here", here), daemon=True).start()
    with pytest.raises(InputError, match=r"there is not there for process 1 .*; --out must be a folder that all machines share"):
        shared_run(data, tmp_path / "there", there)

    class Blind(Processes):
        """The first process of two, which never sees what the other writes."""

        def barrier(self) -> None:
            """Wait for nobody."""

    with pytest.raises(InputError, match="does not show what the other processes wrote; --out must be a folder that all"):
        shared_run(data, tmp_path / "run", Blind(0, 2))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)  # some clusters set these for everybody
    assert started() == Processes(rank=0, size=1, local_rank=0, local_size=1)
    assert started().speaks()
    started().barrier()


def test_a_barrier_waits_for_all_as_often_as_it_is_asked() -> None:
    passed: list[tuple[int, int]] = []

    def walk(one: Processes) -> None:
        for step in range(20):
            passed.append((step, one.rank))
            one.barrier()

    in_threads([lambda one=one: walk(one) for one in processes_of(3)])  # type: ignore[misc]
    assert [step for step, _ in passed] == sorted(step for step, _ in passed)
    assert len(passed) == 60
    assert [one.speaks() for one in processes_of(3)] == [True, False, False]


def test_each_attempt_has_a_name_of_its_own_in_a_store_that_outlives_them_all() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    names: set[str] = set()
    for size in (3, 3, 2, 4):  # the tokens of the attempts before are still there
        calls = [lambda rank=rank, size=size: agreed_name(store, rank, size) for rank in range(size)]
        late = calls.pop()

        def last(late: Callable[[], str] = late) -> str:
            time.sleep(0.3)  # the first answers its predecessor's token meanwhile
            return late()

        (name,) = set(in_threads([*calls, last]))
        names.add(name)
    assert len(names) == 4


def test_a_lost_torchrun_is_one_line() -> None:
    class Gone:
        def check(self, *_: object) -> bool:
            raise dist.DistNetworkError("Connection reset by peer")

        set = get = add = check

    alone = Processes(1, 2, 1, 2, Gone())
    with pytest.raises(InputError, match="lost torchrun"):
        alone.barrier()
    assert alone.speaks()  # better said twice than never


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 generated scenes for the embedded network."""
    return draw_scenes(tmp_path_factory.mktemp("drawn"), 0, 48)


@pytest.fixture(scope="module")
def straight(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process that torchrun did not start."""
    out = tmp_path_factory.mktemp("straight") / "run"
    subprocess.run([sys.executable, *command(scenes, out)], check=True, env=ENVIRONMENT, capture_output=True)
    return out


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "gradcampp", "evaluate", "--data", str(data), "--out", str(out), "--batch-size", "2", *more]


def torchrun(processes: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_torchrun_writes_the_same_bytes_and_says_it_once(scenes: Path, straight: Path, tmp_path: Path, processes: int) -> None:
    done = subprocess.run(
        [*torchrun(processes), *command(scenes, tmp_path / "run")], check=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert same_files(straight, tmp_path / "run")
    assert done.stdout.count("\n") == 2
    assert done.stdout.count("input: shorter side 128") == 1
    assert "of 48 images over 0.5" in done.stdout
    assert records.read_manifest(tmp_path / "run")["processes"] == processes


SLOW = """
import sys, time
from gradcampp import cli
from gradcampp.evaluation import run
measure = run.measure
def slow(*arguments):
    time.sleep(0.2)
    return measure(*arguments)
run.measure = slow
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("victim", "workers"), [(0, 1), (1, 0)])
def test_torchrun_restarts_after_kill_minus_nine_and_nothing_is_lost(
    scenes: Path, straight: Path, tmp_path: Path, victim: int, workers: int
) -> None:
    script, out = tmp_path / "slow.py", tmp_path / "run"
    script.write_text(SLOW)
    arguments = command(scenes, out, "--workers", str(workers))[2:]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*torchrun(2, "--max-restarts=1"), str(script), *arguments], env=ENVIRONMENT, stdout=said, stderr=said
        )
        while process.poll() is None and len(records.parts(out)) < 3:
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[victim]), signal.SIGKILL)
        kept = {part: part.stat().st_mtime_ns for part in out.glob("records.parquet/[0-9]*.parquet")}
        assert 3 <= len(kept) < 12
        assert process.wait(600) == 0, (tmp_path / "said").read_text()
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert same_files(straight, out)
    assert (tmp_path / "said").read_text().count("of 48 images over 0.5") == 1


def test_torchrun_with_a_bad_photograph_says_one_line_and_another_number_of_processes_goes_on(
    scenes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for source in sorted(scenes.glob("*/*.png")):
        (data / source.parent.name).mkdir(parents=True, exist_ok=True)
        (data / source.parent.name / source.name).symlink_to(source)
    bad = sorted(data.glob("*/*.png"))[45]  # of part 11 of 12: the third of three processes meets it
    bad.unlink()
    bad.write_bytes(b"")
    done = subprocess.run(
        [*torchrun(3), *command(data, tmp_path / "run")], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("gradcampp: error: ") == 1
    assert done.stderr.count("gradcampp: ") == 2  # and which network was taken, once for all processes
    assert f"{bad.parent.name}/{bad.name}: empty file" in done.stderr
    assert len(finished_images(tmp_path / "run")) >= 12
    more = "--skip-bad-images"
    subprocess.run([*torchrun(2), *command(data, tmp_path / "run", more)], check=True, env=ENVIRONMENT, capture_output=True)
    subprocess.run([sys.executable, *command(data, tmp_path / "one", more)], check=True, env=ENVIRONMENT, capture_output=True)
    assert same_files(tmp_path / "one", tmp_path / "run")


def test_torchrun_reproduces_too(tmp_path: Path) -> None:
    arguments = ["-m", "gradcampp", "reproduce", "--scenes", "24", "--out", str(tmp_path / "out")]
    done = subprocess.run([*torchrun(2), *arguments], check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.count("Table 1.") == 1
    assert (tmp_path / "out" / "summary.html").exists()
    assert records.read_manifest(tmp_path / "out")["processes"] == 2
