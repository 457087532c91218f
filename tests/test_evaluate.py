"""The whole chain against a slow twin, and runs that are interrupted, repeated and refused."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gradcampp import cam, shrinkage
from gradcampp.cam import COLUMNS, METHODS, SCORES, column
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.maps import explain, heatmaps
from gradcampp.evaluation.measure import measure
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.records import Run, experiment_of
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.capture import Network, Precision
from gradcampp.networks.classes import numbered
from gradcampp.networks.preprocessing import Preprocessing
from tests.conftest import photograph
from tests.networks import Broken, scored

SMALL = Preprocessing(resize=20, crop=16)
LAYER = "features.4"


def network(module: nn.Module | None = None, precision: Precision = "float32") -> Network:
    """The small network, or another one with its layer."""
    own = module or scored().eval()
    return Network(own, LAYER, SMALL, numbered(3), "own", "fixed", precision=precision)


def run(data: Path, out: Path, module: nn.Module | None = None, **changes: Any) -> pd.DataFrame:
    """Evaluate the small network on a folder."""
    precision: Precision = changes.pop("precision", "float32")
    threshold, controls = changes.pop("threshold", 0.3), changes.pop("controls", False)
    execution = Execution(changes.pop("batch_size", 4), changes.pop("workers", 0), "cpu", **changes)
    own = network(module or scored().eval(), precision)
    experiment = experiment_of(own, threshold, controls=controls)
    return evaluate(own, list_photographs(data, numbered(3)), data, out, experiment, execution).records


def slow_row(module: nn.Module, pixels: Tensor, label: int, threshold: float) -> dict[str, float | None]:
    """One photograph, one map at a time, with the graph of the whole network and formulas from the paper."""

    def logits_of(picture: Tensor) -> Tensor:
        mean, std = torch.tensor(SMALL.mean)[:, None, None], torch.tensor(SMALL.std)[:, None, None]
        return module(((picture - mean) / std)[None])[0]  # type: ignore[no-any-return]

    kept: list[Tensor] = []
    handle = module.get_submodule(LAYER).register_forward_hook(lambda _m, _i, output: kept.append(output))
    logits = logits_of(pixels)
    handle.remove()
    score = logits.double().softmax(0)[label].item()
    row: dict[str, float | None] = {"score": score, **dict.fromkeys(COLUMNS)}
    if score <= threshold:
        return row
    maps = kept[0]  # (1, K, H, W)
    for scores in SCORES:
        target = logits[label] if scores == "pre" else logits.softmax(0)[label]
        g = torch.autograd.grad(target, maps, retain_graph=True)[0]
        a = maps.detach()
        for method in METHODS:
            heat = torch.zeros(a.shape[2:])
            for k in range(a.shape[1]):
                positive = g[0, k].clamp(min=0)
                weight = {
                    "gradcam": g[0, k].mean(),
                    "gradcam+": positive.mean(),
                    "gradcam++": (positive / (2 + a[0, k].sum() * positive)).sum(),
                }[method]
                heat = heat + weight * a[0, k]
            heat = heat.clamp(min=0)
            heat = (heat - heat.min()) / (heat.max() - heat.min()) if heat.max() > heat.min() else torch.zeros_like(heat)
            large = torch.nn.functional.interpolate(heat[None, None], SMALL.size, mode="bilinear")[0, 0]
            row[column(scores, method)] = logits_of(large * pixels).double().softmax(0)[label].item()
    return row


def test_records_equal_a_slow_twin_that_sees_one_image_and_one_map_at_a_time(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    rows = run(data, tmp_path / "run")
    module = scored().eval()
    assert list(rows["image"]) == sorted(item.image for item in list_photographs(data, numbered(3)))
    assert 3 < (rows["score"] > 0.3).sum() < len(rows)
    for _, row in rows.iterrows():
        pixels = read_photograph(data / row["image"], SMALL).float() / 255
        expected = slow_row(module, pixels, int(Path(row["image"]).parts[0]), 0.3)
        for name, value in expected.items():
            # float32 on both sides with other orders of summation: 1e-7 relative in logits up to 20.
            assert (value is None and math.isnan(row[name])) or row[name] == pytest.approx(value, abs=2e-5), (row["image"], name)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 1)])
def test_batch_size_and_workers_change_nothing(
    folder: Callable[..., Path], tmp_path: Path, batch_size: int, workers: int
) -> None:
    data = folder()
    expected = run(data, tmp_path / "a")
    rows = run(data, tmp_path / "b", batch_size=batch_size, workers=workers)
    pd.testing.assert_frame_equal(rows, expected, check_exact=False, atol=1e-5, rtol=1e-4)
    assert (rows[["score", *COLUMNS]] - expected[["score", *COLUMNS]]).abs().max().max() < 1e-5
    first, second = Run(tmp_path / "a").alphas, Run(tmp_path / "b").alphas
    for scores in SCORES:
        assert first[scores].count == second[scores].count == rows[f"{scores}_alpha_count"].sum()


def test_the_alpha_stream_is_that_of_all_images(folder: Callable[..., Path], tmp_path: Path) -> None:
    rows = run(folder(), tmp_path / "run")
    for scores, stream in Run(tmp_path / "run").alphas.items():
        assert stream.count == rows[f"{scores}_alpha_count"].sum() > 0
        assert stream.minimum == rows[f"{scores}_alpha_min"].min()
        assert stream.maximum == rows[f"{scores}_alpha_max"].max()


def test_the_manifest_counts(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    (data / "2" / "bad.jpg").write_text("no photograph")
    rows = run(data, tmp_path / "run", skip_bad_images=True)
    manifest = records.read_manifest(tmp_path / "run")
    assert manifest["images"] == len(rows) == 18
    assert list(manifest["skipped"]) == ["2/bad.jpg"]
    assert manifest["over_threshold"] == (rows["score"] > 0.3).sum() == rows[COLUMNS[0]].notna().sum()
    assert manifest["top1"] == pytest.approx((rows["prediction"] == rows["label"]).mean())
    assert manifest["experiment"]["layer"] == LAYER
    assert torch.__version__.startswith(manifest["versions"]["torch"])


class _Dying:
    """A measurement that is interrupted in the middle of a run."""

    def __init__(self, error: BaseException, after: int) -> None:
        self.error, self.left, self.original = error, after, measure

    def __call__(self, *arguments: Any) -> Any:
        if self.left == 0:
            raise self.error
        self.left -= 1
        return self.original(*arguments)


def same_files(first: Path, second: Path) -> bool:
    """True where the parts of two runs have the same names and the same bytes."""

    def parts(run: Path) -> dict[str, bytes]:
        return {file.relative_to(run).as_posix(): file.read_bytes() for file in run.glob("*.parquet/*.parquet")}

    return parts(first) == parts(second) != {}


def finished_images(run: Path) -> list[str]:
    """The images whose rows a run already has."""
    return [image for part in records.parts(run) for image in (records.read_part(run, part) or ({}, {}))[0]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("unplugged"), OSError(28, "No space left on device")])
def test_an_interrupted_run_keeps_every_finished_part_and_ends_the_same(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    data = folder()
    run(data, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr("gradcampp.evaluation.run.measure", _Dying(error, 3))
        with pytest.raises(type(error)):
            run(data, tmp_path / "broken")
    assert len(finished_images(tmp_path / "broken")) == 8  # a part of two batches; the third batch was half a part
    counting = _Dying(AssertionError("too many batches"), 3)  # 18 images in batches of 4, two batches done
    monkeypatch.setattr("gradcampp.evaluation.run.measure", counting)
    run(data, tmp_path / "broken")
    assert counting.left == 0
    assert same_files(tmp_path / "straight", tmp_path / "broken")
    run(data, tmp_path / "broken")  # a finished run needs no batch at all
    assert counting.left == 0


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from tests.test_evaluate import run
torch.set_num_threads(1)
run(Path(sys.argv[1]), Path(sys.argv[2]), workers=1, batch_size=1)
"""


def test_kill_minus_nine_at_any_moment_loses_and_changes_nothing(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(12)
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", SCRIPT, str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "straight"), root], check=True, env=environment, stderr=subprocess.DEVNULL)
    wanted = random.Random(0)
    done: list[int] = []
    out = tmp_path / "killed"
    for checkpoints in (1, wanted.randint(2, 6), wanted.randint(7, 12)):
        process = subprocess.Popen([*command, str(out), root], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(records.parts(out)) < checkpoints:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done.append(len(finished_images(out)))
    assert done == sorted(done)  # nothing that was finished is lost
    assert done[0] > 0
    subprocess.run([*command, str(out), root], check=True, env=environment, stderr=subprocess.DEVNULL)
    assert same_files(tmp_path / "straight", out)


def test_a_killed_write_is_not_mistaken_for_a_part(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    run(data, tmp_path / "straight")
    half = tmp_path / "run" / "records.parquet"
    half.mkdir(parents=True)
    (half / ".0123.parquet").write_bytes(b"PAR1 half a file")
    rows = run(data, tmp_path / "run")
    assert not (half / ".0123.parquet").exists()
    assert same_files(tmp_path / "straight", tmp_path / "run")
    pd.testing.assert_frame_equal(rows, Run(tmp_path / "straight").records)


def test_another_experiment_in_the_same_folder_is_refused_with_the_difference(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = folder()
    rows = run(data, tmp_path / "run")
    with pytest.raises(InputError, match=r"threshold = 0.3, and this one has 0.4; choose another --out"):
        run(data, tmp_path / "run", threshold=0.4)
    with pytest.raises(InputError, match=r"controls = False, and this one has True; choose another --out"):
        run(data, tmp_path / "run", controls=True)
    pd.testing.assert_frame_equal(Run(tmp_path / "run").records, rows)


def test_a_finished_run_refuses_other_photographs(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    run(data, tmp_path / "run")
    photograph(7).save(data / "0" / "new.png")
    with pytest.raises(InputError, match=r"is finished and has no results for 0/new.png"):
        run(data, tmp_path / "run")
    (data / "0" / "new.png").replace(data / "0" / "1.png").unlink()
    with pytest.raises(InputError, match=r"holds results for 0/1.png, which is not among the photographs"):
        run(data, tmp_path / "run")


def test_photographs_of_the_same_name_and_another_size_are_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    run(data, tmp_path / "run")
    photograph(50, (60, 50)).save(data / "2" / "5.png")
    with pytest.raises(InputError, match=r"2/5.png is not the file that .* holds results for"):
        run(data, tmp_path / "run")


HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_at_once_do_not_share_a_folder(folder: Callable[..., Path], tmp_path: Path) -> None:
    """A process that is killed gives the lock back at once, whatever processes it has started."""
    data = folder(1)
    (tmp_path / "run").mkdir()
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run" / ".lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process is working on"):
            run(data, tmp_path / "run")
    finally:
        other.kill()
        other.wait()
    assert len(run(data, tmp_path / "run")) == 3


def test_a_file_system_without_locks_will_do(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    assert len(run(folder(1), tmp_path / "run")) == 3


def test_a_part_that_is_written_twice_counts_once(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes may write it where files cannot be locked."""
    data = folder()
    run(data, tmp_path / "straight")
    once = records.write_part

    def twice(*arguments: Any) -> None:
        once(*arguments)
        once(*arguments)

    monkeypatch.setattr("gradcampp.evaluation.records.write_part", twice)
    run(data, tmp_path / "twice")
    assert same_files(tmp_path / "straight", tmp_path / "twice")


@pytest.mark.parametrize("kind", ["records", "alphas"])
def test_a_part_that_a_power_failure_damaged_is_computed_again(folder: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    data = folder()
    run(data, tmp_path / "straight")
    run(data, tmp_path / "run")
    (tmp_path / "run" / f"{kind}.parquet" / "00001.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="repeat the command that made the run, and it computes anew what is damaged"):
        _ = getattr(Run(tmp_path / "run"), kind)
    run(data, tmp_path / "run")
    assert same_files(tmp_path / "straight", tmp_path / "run")


def test_a_photograph_that_comes_or_goes_before_the_end_leaves_the_parts_before_it_as_they_are(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = folder()
    (data / "1" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1/3.png: empty file"):
        run(data, tmp_path / "run")
    kept = (tmp_path / "run" / "records.parquet" / "00000.parquet").stat().st_mtime_ns
    (data / "1" / "3.png").unlink()
    photograph(7).save(data / "2" / "9.png")
    rows = run(data, tmp_path / "run")
    run(data, tmp_path / "straight")
    assert len(rows) == 18
    assert (tmp_path / "run" / "records.parquet" / "00000.parquet").stat().st_mtime_ns == kept
    assert same_files(tmp_path / "straight", tmp_path / "run")


def test_a_bad_photograph_stops_the_run_and_skipping_goes_on(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    (data / "1" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1/3.png: empty file.*--skip-bad-images"):
        run(data, tmp_path / "run")
    assert len(finished_images(tmp_path / "run")) == 8  # the part of two batches before it
    rows = run(data, tmp_path / "run", skip_bad_images=True)
    assert len(rows) == 17
    assert "1/3.png" not in set(rows["image"])


def test_a_folder_of_bad_photographs_only_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data" / "0").mkdir(parents=True)
    (tmp_path / "data" / "0" / "a.jpg").write_text("x")
    with pytest.raises(InputError, match="none of the 1 photographs can be read"):
        run(tmp_path / "data", tmp_path / "run", skip_bad_images=True)


def test_logits_that_are_not_finite_name_the_photograph_and_keep_the_rest(tmp_path: Path) -> None:
    for index, level in enumerate([10, 20, 30, 40, 255, 50]):
        (tmp_path / "data" / "0").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (level, 0, 0)).save(tmp_path / "data" / "0" / f"{index}.png")
    module = Broken()
    module.load_state_dict(scored().state_dict())
    with pytest.raises(InputError, match=r"logits for 0/4.png are not finite"):
        run(tmp_path / "data", tmp_path / "run", module.eval(), batch_size=2)
    assert len(finished_images(tmp_path / "run")) == 4


class Constant(nn.Module):
    """Activations and gradients that make every map constant: two channels of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*[nn.Identity() for _ in range(4)], nn.Conv2d(3, 2, 1))
        nn.init.zeros_(self.features[4].weight)  # type: ignore[arg-type]
        nn.init.ones_(self.features[4].bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        sums = self.features(images).sum((2, 3))
        return torch.stack([sums[:, 0], sums[:, 0] * 0, sums[:, 1] * 0], 1)


def test_constant_maps_become_zeros_and_are_counted(folder: Callable[..., Path], tmp_path: Path) -> None:
    rows = run(folder(2), tmp_path / "run", Constant())
    manifest = records.read_manifest(tmp_path / "run")
    assert manifest["over_threshold"] == 2
    assert set(manifest["constant_maps"].values()) == {2}
    assert (rows.loc[rows["score"] > 0.3, [f"{name}_mean_heat" for name in COLUMNS]] == 0).all().all()


def test_running_out_of_memory_halves_the_batch_and_the_run_goes_on(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder()
    expected = run(data, tmp_path / "a")
    sizes: list[int] = []

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.classifier = scored().features, scored().classifier

        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 20 * self.classifier(self.features(images))  # type: ignore[no-any-return, operator]

    rows = run(data, tmp_path / "b", Small().eval(), batch_size=8)
    assert max(sizes) == 8
    assert sizes.count(8) == sizes.count(4) == 1  # each size is refused once, and never tried again
    assert np.nanmax((rows[list(COLUMNS)] - expected[list(COLUMNS)]).abs().to_numpy()) < 1e-5


def test_no_memory_for_the_alphas_of_a_batch_is_one_line_and_a_smaller_batch_goes_on(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, alphas = folder(), cam.alphas

    def scarce(activations: Tensor, gradients: Tensor) -> Tensor:
        if len(activations) > 2:
            raise torch.OutOfMemoryError
        return alphas(activations, gradients)

    straight = run(data, tmp_path / "straight", batch_size=2)
    monkeypatch.setattr("gradcampp.cam.alphas", scarce)
    with pytest.raises(InputError, match="smaller --batch-size"):
        run(data, tmp_path / "run")
    pd.testing.assert_frame_equal(run(data, tmp_path / "run", batch_size=2), straight)


def test_explained_photographs_are_halved_where_their_maps_do_not_fit(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder()

    def scarce(activations: Tensor, gradients: Tensor) -> Tensor:
        if len(activations) > 1:
            raise torch.OutOfMemoryError
        return bound(activations, gradients)

    bound = shrinkage.bound
    straight = run(data, tmp_path / "straight", threshold=0.0)
    monkeypatch.setattr("gradcampp.shrinkage.bound", scarce)
    pd.testing.assert_frame_equal(run(data, tmp_path / "run", threshold=0.0), straight, rtol=1e-5)  # kernels for one image


class Rough(nn.Module):
    """A network that computes in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = scored().features, scored().classifier

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return 20 * self.classifier(self.features(images))  # type: ignore[no-any-return, operator]


def test_a_rough_network_is_rough_and_what_follows_from_it_is_not() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    captured = network(Rough().eval()).capture(pixels, labels)
    for values in (captured.activations, captured.logits, *captured.gradients.values()):
        assert values.dtype == torch.float32
        assert (values == values.bfloat16()).all()  # what the network gave
    maps = heatmaps(captured)
    assert not (maps == maps.bfloat16()).all()  # what became of it is not rounded


def test_runs_of_two_precisions_do_not_mix(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(1)
    run(data, tmp_path / "run")
    with pytest.raises(InputError, match="tf32 needs an NVIDIA GPU"):
        run(data, tmp_path / "run", precision="tf32")
    experiment = experiment_of(network(precision="tf32"), 0.3)
    with pytest.raises(InputError, match="holds a run with precision = float32, and this one has tf32"):
        records.check(tmp_path / "run", experiment)


def test_explaining_one_photograph_gives_the_maps_of_each_class() -> None:
    torch.manual_seed(0)
    own = network()
    photograph = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    rows = explain(own, photograph, [2, 0], "post")
    assert [row.label for row in rows] == [2, 0]
    assert rows[0].probabilities.sum().item() == pytest.approx(1)
    for row in rows:
        assert list(row.maps) == list(METHODS)
        assert row.maps["gradcam+"].shape == (16, 16)
        assert len(row.alphas) == len(row.products) > 0
        torch.testing.assert_close(row.alphas, 1 / (2 + row.products))
    alone = explain(own, photograph, [0], "post")[0]
    torch.testing.assert_close(alone.maps["gradcam++"], rows[1].maps["gradcam++"], rtol=1e-4, atol=1e-5)
    best = explain(own, photograph, [], "pre")
    assert [row.label for row in best] == [int(best[0].probabilities.argmax())]
