"""Runs that several processes share: the same bytes, however the work is cut and whoever dies on the way."""

from __future__ import annotations

import copy
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

from gradcampp.errors import InputError
from gradcampp.evaluation import measure as measure_module
from gradcampp.evaluation import records, run
from gradcampp.evaluation.measure import Measured
from gradcampp.evaluation.photographs import list_photographs
from gradcampp.evaluation.processes import World, agreed_name, alone, joined
from gradcampp.evaluation.records import Experiment
from gradcampp.evaluation.run import Execution
from gradcampp.networks.capture import Network
from gradcampp.networks.classes import numbered
from gradcampp.scenes.folder import draw_scenes
from tests.conftest import ROOT
from tests.networks import scored
from tests.test_evaluate import LAYER, SMALL, same_files
from tests.test_evaluate import run as run_alone

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


@functools.cache
def own_network() -> nn.Module:
    """Drawn once, before there are threads: they share torch's generator."""
    return scored().eval()


def worlds(size: int) -> list[World]:
    """The same processes seen from each of them."""
    store = alone().store
    return [World(rank, size, rank, store) for rank in range(size)]


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call returns or raises, all of them at the same time."""
    own_network()
    results: list[Any] = [None] * len(calls)

    def keep(place: int) -> None:
        try:
            results[place] = calls[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=keep, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    return results


def settings(data: Path) -> dict[str, Any]:
    """What the first process tells the others to have, too."""
    experiment = Experiment("own", "fixed", LAYER, "names", SMALL, 0.3)
    return run._settings(list_photographs(data, numbered(3)), experiment, Execution(4, 0, "cpu"))


def shared_run(data: Path, out: Path, world: World, **changes: Any) -> dict[str, Any]:
    """What ``run`` of test_evaluate does, as one of several processes."""
    experiment = replace(Experiment("own", "fixed", LAYER, "names", SMALL, 0.3), **changes)
    network = Network(copy.deepcopy(own_network()), LAYER, SMALL)
    execution = Execution(4, 0, "cpu", skip_bad_images=True)
    return run.evaluate(network, list_photographs(data, numbered(3)), data, out, experiment, execution, world)


@pytest.mark.parametrize("size", [1, 2, 3, 7])  # of five batches, so the last has nothing to do
def test_any_number_of_processes_writes_the_same_bytes(folder: Callable[..., Path], tmp_path: Path, size: int) -> None:
    data = folder()
    (data / "2" / "bad.jpg").write_text("no photograph")
    run_alone(data, tmp_path / "alone", skip_bad_images=True)
    manifests = in_threads([lambda world=world: shared_run(data, tmp_path / "run", world) for world in worlds(size)])  # type: ignore[misc]
    assert same_files(tmp_path / "alone", tmp_path / "run")
    assert all(manifest == records.read_manifest(tmp_path / "run") for manifest in manifests)
    assert manifests[0]["processes"] == size
    assert list(manifests[0]["skipped"]) == ["2/bad.jpg"]
    again = in_threads([lambda world=world: shared_run(data, tmp_path / "run", world) for world in worlds(size)])  # type: ignore[misc]
    assert again == manifests  # a finished run: nothing to do for anybody


def test_parts_of_another_number_of_processes_are_kept(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder()
    run_alone(data, tmp_path / "alone")
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("gradcampp.evaluation.records.finish", full)
        with pytest.raises(OSError, match="No space"):
            shared_run(data, tmp_path / "run", alone())
    for part in sorted((tmp_path / "run" / "parts").iterdir())[1:]:
        part.rename(tmp_path / part.name)
    measured: list[str] = []
    measure = measure_module.measure

    def counted(network: Network, batch: Any, *others: Any) -> Measured:
        measured.extend(photograph.image for photograph in batch.photographs)
        return measure(network, batch, *others)

    kept = records.finished_images(tmp_path / "run")
    monkeypatch.setattr("gradcampp.evaluation.measure.measure", counted)
    in_threads([lambda world=world: shared_run(data, tmp_path / "run", world) for world in worlds(3)])  # type: ignore[misc]
    assert not kept.keys() & set(measured)
    assert same_files(tmp_path / "alone", tmp_path / "run")


def test_parts_that_nobody_reported_are_not_merged(folder: Callable[..., Path], tmp_path: Path) -> None:
    """A process that was thought dead, or a second run where files cannot be locked, may still write some."""
    data = folder()
    run_alone(data, tmp_path / "alone")
    first, second = worlds(2)
    stray = {"image": "0/0.png", "label": 0, "score": 0.1, "prediction": 0, "label_rank": 1, "sha256": "", "bytes": 1}
    stray |= {f"{scores}_alpha_{name}": 0 for scores in ("pre", "post") for name in ("count", "min", "max")}

    def late() -> dict[str, Any]:
        second.hear("plan")
        records.write_part(tmp_path / "run", [stray], records.read_alphas(tmp_path / "alone"))
        return shared_run(data, tmp_path / "run", second)

    in_threads([lambda: shared_run(data, tmp_path / "run", first), late])
    assert same_files(tmp_path / "alone", tmp_path / "run")


def test_parts_that_overlap_are_computed_again(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    rows: list[dict[str, Any]] = run_alone(data, tmp_path / "alone").to_dict("records")  # type: ignore[assignment]
    experiment = Experiment("own", "fixed", LAYER, "names", SMALL, 0.3)
    streams = records.read_alphas(tmp_path / "alone")
    with records.opened(tmp_path / "run", experiment):
        for part in (rows[:4], rows[3:8]):
            records.write_part(tmp_path / "run", part, streams)
    with records.opened(tmp_path / "run", experiment):
        assert len(records.parts(tmp_path / "run")) == 1
    assert len(records.finished_images(tmp_path / "run")) in (4, 5)


@pytest.mark.parametrize(("change", "says"), [({"weights": "other"}, "weights: other in process 1"), ({"threshold": 0.4}, "0.4")])
def test_processes_that_do_something_else_are_told(
    folder: Callable[..., Path], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    data = folder()
    first, second = worlds(2)
    first.say("plan", {"settings": settings(data), "done": "0" * 18})
    with pytest.raises(InputError, match=says):
        shared_run(data, tmp_path / "run", second, **change)
    (data / "0" / "0.png").rename(data / "0" / "new.png")
    with pytest.raises(InputError, match="photographs and labels: .* expected the same data"):
        shared_run(data, tmp_path / "run", second)
    (data / "0" / "new.png").unlink()
    with pytest.raises(InputError, match="number of photographs: 17 in process 1 .*, and 18 in process 0"):
        shared_run(data, tmp_path / "run", second)


def test_folders_that_are_not_shared_are_noticed(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder()
    monkeypatch.setattr("gradcampp.evaluation.records.appeared", lambda path: path.exists())  # without the patience
    first, second = worlds(2)
    first.say("plan", {"settings": settings(data), "done": "0" * 18})
    with pytest.raises(InputError, match=r"there is not there for process 1 .*; --out must be a folder that all machines share"):
        shared_run(data, tmp_path / "there", second)
    second.say("finished 1", {"parts": ["written elsewhere"], "skipped": {}})
    with pytest.raises(InputError, match="does not show what the other processes wrote; --out must be a folder that all"):
        shared_run(data, tmp_path / "run", first)


def test_notes_and_counts() -> None:
    first, second = worlds(2)
    assert [world.share("abcde") for world in (first, second)] == [["a", "c", "e"], ["b", "d"]]
    waited: list[int] = []

    def meanwhile() -> None:
        waited.append(first.add("count", 2))
        if len(waited) == 3:
            first.say("note", {"text": "é" * 10**6})

    assert second.hear("note", meanwhile) == {"text": "é" * 10**6}
    assert waited == [2, 4, 6]
    assert [world.is_first("x") for world in (second, first, second)] == [True, False, False]


def test_each_attempt_has_a_name_of_its_own_in_a_store_that_outlives_them_all() -> None:
    store = alone().store
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


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)  # some clusters set these for everybody
    world = joined()
    assert (world.rank, world.size, world.local_rank) == (0, 1, 0)


def test_a_lost_torchrun_is_one_line() -> None:
    class Gone:
        def check(self, *_: object) -> bool:
            raise dist.DistNetworkError("Connection reset by peer")

        set = get = add = check

    world = World(1, 2, 1, Gone())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lost torchrun"):
        world.hear("plan")
    assert world.is_first("to leave")  # better said twice than never


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
    return ["-m", "gradcampp", "evaluate", "--data", str(data), "--out", str(out), "--batch-size", "4", *more]


def torchrun(processes: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_torchrun_writes_the_same_bytes_and_says_it_once(scenes: Path, straight: Path, tmp_path: Path, processes: int) -> None:
    done = subprocess.run(
        [*torchrun(processes), *command(scenes, tmp_path / "run")], check=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert same_files(straight, tmp_path / "run")
    assert done.stdout.count("\n") == 1
    assert "of 48 images over 0.5" in done.stdout
    assert records.read_manifest(tmp_path / "run")["processes"] == processes
    assert not (tmp_path / "run" / "parts").exists()


SLOW = """
import functools, sys, time
from gradcampp import cli, evaluate
measure = evaluate.measure
def slow(*arguments):
    time.sleep(0.2)
    return measure(*arguments)
evaluate.measure = slow
cli.Execution = functools.partial(cli.Execution, checkpoint_seconds=0.0)
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
        while process.poll() is None and len(list(out.glob("parts/[!.]*"))) < 3:
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[victim]), signal.SIGKILL)
        kept = {part: part.stat().st_mtime_ns for part in out.glob("parts/[!.]*/records.parquet")}
        assert 3 <= len(kept) < 12
        assert process.wait(600) == 0, (tmp_path / "said").read_text()
    assert same_files(straight, out)
    assert (tmp_path / "said").read_text().count("of 48 images over 0.5") == 1


def test_torchrun_with_a_bad_photograph_says_one_line_and_another_number_of_processes_goes_on(
    scenes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for source in sorted(scenes.glob("*/*.png")):
        (data / source.parent.name).mkdir(parents=True, exist_ok=True)
        (data / source.parent.name / source.name).symlink_to(source)
    bad = sorted(data.glob("*/*.png"))[45]  # of the last batch: the third of three processes meets it
    bad.unlink()
    bad.write_bytes(b"")
    done = subprocess.run(
        [*torchrun(3), *command(data, tmp_path / "run")], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("gradcampp: ") == 1
    assert f"{bad.parent.name}/{bad.name}: empty file" in done.stderr
    assert len(records.finished_images(tmp_path / "run")) >= 15
    more = "--skip-bad-images"
    subprocess.run([*torchrun(2), *command(data, tmp_path / "run", more)], check=True, env=ENVIRONMENT, capture_output=True)
    subprocess.run([sys.executable, *command(data, tmp_path / "one", more)], check=True, env=ENVIRONMENT, capture_output=True)
    assert same_files(tmp_path / "one", tmp_path / "run")


def test_torchrun_reproduces_too(tmp_path: Path) -> None:
    arguments = ["-m", "gradcampp", "reproduce", "--scenes", "24", "--out", str(tmp_path / "out")]
    done = subprocess.run([*torchrun(2), *arguments], check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.count("Table 1.") == 1
    assert (tmp_path / "out" / "summary.html").exists()
    assert records.read_manifest(tmp_path / "out" / "run")["processes"] == 2
