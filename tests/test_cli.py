"""What a user types and sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from gradcampp import cam, options
from gradcampp.cam import COLUMNS
from gradcampp.cli import commands, main
from gradcampp.errors import InputError
from gradcampp.evaluation import download, folders, records
from gradcampp.evaluation import measure as measure_module
from gradcampp.evaluation.processes import Processes
from gradcampp.files import file_hash
from gradcampp.networks import capture
from gradcampp.networks.load import load
from gradcampp.networks.probe import agrees, probe
from tests.conftest import ROOT, photograph
from tests.networks import scored

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "sympy", "numpy", "pyarrow", "scipy", "PIL", "pydantic", "requests")
OWN = ["--model", "tests.networks:scored", "--resize", "20", "--crop", "16"]


def evaluate(data: Path, out: Path, *more: str) -> list[str]:
    return ["evaluate", "--data", str(data), "--out", str(out), *OWN, "--workers", "0", "--threshold", "0.3", *more]


def one_line(capsys: pytest.CaptureFixture[str], code: object, says: str) -> None:
    """Exit code 2 and exactly one line on standard error, with the given words in it."""
    errors = capsys.readouterr().err
    assert code == 2, errors
    assert errors.count("\n") == 1, errors
    assert "error: " in errors
    assert says in errors, errors


def finished_images(run: Path) -> list[str]:
    """The photographs of the finished parts of a run."""
    return [image for part in records.parts(run) for image in (records.read_part(run, part) or ({}, {}))[0]]


def hidden(given: str, heavy: str) -> subprocess.CompletedProcess[str]:
    """A command in a process where loading a module is like pressing Ctrl-C."""
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == '{heavy}': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from gradcampp.cli import main\n"
        f"sys.exit(main({given.split()}))\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_evaluate_then_report(folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(evaluate(folder(), run)) == 0
    summary = capsys.readouterr().out
    rows = pd.read_parquet(run / "records.parquet")
    assert f"{(rows['score'] > 0.3).sum()} of 18 images over 0.3" in summary
    assert list(rows.columns[:9]) == ["image", "label", "score", *COLUMNS]
    assert json.loads((run / "manifest.json").read_text())["finished"] is True
    assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "report" / "table1.csv")
    over = rows.dropna(subset=COLUMNS)
    ratio = np.exp(np.log(over["pre_gradcam_plusplus"] / over["pre_gradcam"]).mean())
    assert table.loc[0, "pre_run"] == pytest.approx(ratio)
    assert f"{ratio:.3f}" in printed
    assert "1.24" in printed
    names = {path.name for path in (tmp_path / "report").iterdir()}
    tables = {f"{name}.{ending}" for name in ("table1", "table2", "differences") for ending in ("csv", "md", "tex")}
    figures = {f"{stem}.{ending}" for stem in ("figure4-pre", "figure4-post", "figure6") for ending in ("png", "svg")}
    assert names == tables | figures


def test_a_precision_that_changes_the_tables_says_so(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate(folder(), tmp_path / "none", "--precision", "tf32", "--device", "cpu")) == 2
    said = capsys.readouterr().err
    assert said.count("--precision tf32 is for a quick look") == 1
    assert "--precision tf32 needs an NVIDIA GPU" in said
    assert main(evaluate(tmp_path / "data", tmp_path / "exact")) == 0
    assert "precision" not in capsys.readouterr().err
    assert json.loads((tmp_path / "exact" / "manifest.json").read_text())["experiment"]["precision"] == "float32"
    profile = tmp_path / "own.toml"
    profile.write_text('precision = "half"')
    assert main(["reproduce", "--profile", str(profile), "--out", str(tmp_path / "out")]) == 2
    assert "precision = 'half'; expected 'float32' or 'tf32'" in capsys.readouterr().err


def test_sigterm_saves_what_is_finished(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, before, calls = measure_module.measure, signal.getsignal(signal.SIGTERM), []

    def terminated(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments)

    monkeypatch.setattr("gradcampp.evaluation.run.measure", terminated)
    assert main(evaluate(folder(), tmp_path / "run", "--batch-size", "4")) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err
    assert len(finished_images(tmp_path / "run")) == 8
    assert signal.getsignal(signal.SIGTERM) == before


def test_changing_a_record_changes_the_report(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(evaluate(folder(), run)) == 0
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    before = capsys.readouterr().out
    part = run / "records.parquet" / "00000.parquet"
    table = pd.read_parquet(part)
    table["pre_gradcam"] = table["pre_gradcam"].where(table["score"] < table["score"].max(), 1e-3)
    table.to_parquet(part)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out != before


def test_explain_prints_the_best_classes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(1).save(tmp_path / "a.png")
    (tmp_path / "names.txt").write_text("tabby cat\nAlsatian\nkite\n")
    arguments = [
        "explain",
        str(tmp_path / "a.png"),
        *OWN,
        "--classes",
        str(tmp_path / "names.txt"),
        "--out",
        str(tmp_path / "e.png"),
    ]
    assert main([*arguments, "--class", "Tabby_Cat", "--class", "2", "--scores", "post", "--alphas"]) == 0
    printed = capsys.readouterr().out
    assert "Alsatian (1)" in printed
    assert "kite (2)" in printed
    assert "post-softmax" in printed
    for name in ("e-alphas.png", "e.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 400
    assert main([*arguments, "--class", "Tabby_Cat", "--class", "2", "--class", "0", "--scores", "post"]) == 0
    assert "--class names tabby cat (0) more than once; drawn once" in capsys.readouterr().err
    with Image.open(tmp_path / "e.png") as again:
        assert again.size == picture.size


def test_explain_honours_the_exif_orientation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(1).save(tmp_path / "upright.png")
    photograph(1).rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    printed = []
    for name in ("upright", "turned"):
        assert main(["explain", str(tmp_path / f"{name}.png"), *OWN, "--out", str(tmp_path / "e.png")]) == 0
        printed.append(capsys.readouterr().out.replace(name, ""))
    assert printed[0] == printed[1]


def test_both_ways_to_call_it_are_the_same() -> None:
    script = Path(sys.executable).with_name("gradcampp")
    for command in ([sys.executable, "-m", "gradcampp"], [str(script)]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert "explain" in done.stdout


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import contextlib, io, sys\n"
        "from gradcampp.cli import commands, main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "    codes = [main(['--help']), main(['--version']), *(main([name, '--help']) for name in commands.commands)]\n"
        f"print(set(codes), len(codes), [name for name in {HEAVY} if name in sys.modules], said.getvalue().count('Usage: '))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{0} 11 [] 10\n", "")


def test_help_knows_what_the_library_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Names that the command line writes once more, so as not to load the library for its help."""
    assert options.SCORES == cam.SCORES
    assert options.ORDERS == folders.ORDERS
    assert capture.PRECISIONS[:2] == options.PRECISIONS
    assert main(["download", "--help"]) == 0
    assert download.VARIABLE in capsys.readouterr().out
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    names = ["audit", "claims", "compare", "download", "evaluate", "explain", "report", "reproduce", "scene"]
    assert [line.split()[0] for line in listed] == names == sorted(commands.commands)
    assert [line for line in listed if line.endswith("...")] == []  # every command is summed up in a line


def test_ctrl_c_while_torch_loads_is_one_line(tmp_path: Path) -> None:
    done = hidden(f"scene --out {tmp_path / 'scene.png'}", "torch")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (130, "", 1)
    assert done.stderr == "gradcampp: interrupted; the same command goes on where it stopped\n"


def test_threads_that_wait_spin_shortly_unless_the_user_has_a_policy() -> None:
    script = "import os; from gradcampp.cli import main; main(['--version']); print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for given, count in (({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        done = subprocess.run([sys.executable, "-c", script], env=environment | given, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == count


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Processes], None]:
    """Makes this process one of several of a single start by torchrun."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    for name, value in {
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
    }.items():
        monkeypatch.setenv(name, value)

    def start(processes: Processes) -> None:
        monkeypatch.setattr("gradcampp.evaluation.processes.started", lambda: replace(processes, store=store))

    return start


def test_other_commands_do_not_share(torchrun: Callable[[Processes], None], capsys: pytest.CaptureFixture[str]) -> None:
    for rank, said in ((1, 1), (0, 0), (2, 0)):  # whoever comes first
        torchrun(Processes(rank, 3, rank, 3))
        assert main(["scene"]) == 2
        assert capsys.readouterr().err.count("only evaluate and reproduce can share their work") == said


def test_the_parser_complains_once(torchrun: Callable[[Processes], None], capsys: pytest.CaptureFixture[str]) -> None:
    for rank, lines in ((1, 0), (0, 1)):
        torchrun(Processes(rank, 2, rank, 2))
        assert main(["evaluate"]) == 2
        assert capsys.readouterr().err.count("\n") == lines
        assert main(["evaluate", "--help"]) == 0
        assert capsys.readouterr().out.count("Usage: ") == lines


def test_more_processes_than_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    three = [Processes(rank, 3, rank, 3) for rank in range(3)]
    assert [options.choose_device("auto", processes) for processes in three[:2]] == ["cuda", "cuda"]
    assert chosen == [0, 1]
    with pytest.raises(InputError, match="more processes than the 2 CUDA devices"):
        options.choose_device("cuda", three[2])
    assert options.choose_device("cpu", three[2]) == "cpu"
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    given = {"device": "auto", "batch_size": None, "workers": None, "skip_bad_images": False, "limit": 3}
    execution = options.execution_of(given, three[1])
    assert (execution.workers, execution.batch_size, execution.device) == (4, 128, "cuda")  # of twelve cores
    assert given == {"limit": 3}  # the rest is the profile's


def test_a_factory_is_found_in_the_working_directory(folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head)\n"
    )
    script = str(Path(sys.executable).with_name("gradcampp"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = [
        "--out",
        "run",
        "--model",
        "mynet:make",
        "--resize",
        "20",
        "--crop",
        "16",
        "--mean",
        "0",
        "0",
        "0",
        "--std",
        "1",
        "1",
        "1",
        "--threshold",
        "0",
    ]
    command = [script, "evaluate", "--data", str(folder(1)), *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "layer 1" in done.stdout  # the ReLU, found by looking
    manifest = records.read_manifest(tmp_path / "run")
    expected = {"resize": 20, "crop": 16, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    assert {key: manifest["experiment"][key] for key in expected} == expected


def broken_photographs(data: Path, kind: str) -> None:
    target = data / "1" / "bad.jpg"
    photograph(9, (300, 200)).save(target)
    content = {"text": b"hello", "truncated": target.read_bytes()[:3000], "empty": b""}[kind]
    target.write_bytes(content)


@pytest.mark.parametrize("kind", ["text", "truncated", "empty"])
def test_a_bad_photograph_is_one_line_and_nothing_is_lost(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    data = folder()
    broken_photographs(data, kind)
    one_line(capsys, main(evaluate(data, tmp_path / "run", "--batch-size", "2")), "1/bad.jpg")
    assert len(finished_images(tmp_path / "run")) == 12  # three parts of two batches; the fourth has the bad one
    assert main(evaluate(data, tmp_path / "run", "--skip-bad-images")) == 0
    assert "1 unreadable skipped" in capsys.readouterr().out
    assert list(records.read_manifest(tmp_path / "run")["skipped"]) == ["1/bad.jpg"]


def test_after_a_bad_photograph_is_removed_the_same_command_goes_on(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder()
    broken_photographs(data, "text")
    one_line(capsys, main(evaluate(data, tmp_path / "run", "--batch-size", "2")), "1/bad.jpg")
    done = finished_images(tmp_path / "run")
    (data / "1" / "bad.jpg").unlink()
    assert main(evaluate(data, tmp_path / "run")) == 0
    assert len(done) == 12
    assert set(done) < set(records.Run(tmp_path / "run").records["image"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--data", "absent"], "data absent: no such folder"),
        (["--data", "EMPTY"], "no photographs in class folders"),
        (["--data", "RANGE"], "class 3 is out of range: the network has 3 classes, 0 to 2"),
        (["--model", "vgg61"], "unknown model 'vgg61'"),
        (["--layer", "features.9"], "unknown layer 'features.9'; the nearest: features."),
        (["--layer", "classifier.3"], "no feature maps; name a layer before"),
        (["--weights", "MISSING"], "lacks classifier.1.bias"),
        (["--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--threshold", "1"], "'--threshold': 1.0 is not in the range 0<=x<1"),
        (["--threshold", "-0.1"], "'--threshold': -0.1 is not in the range 0<=x<1"),
        (["--threshold", "nan"], "option --threshold = nan; expected a number from 0 up to but not including 1"),
        (["--batch-size", "0"], "'--batch-size': 0 is not in the range x>=1"),
        (["--limit", "many"], "'--limit': 'many' is not a valid integer range"),
        (["--out", "FILE/run"], "cannot write to the run folder"),
        (["--out", "/proc/gradcampp"], "cannot write to the run folder /proc/gradcampp"),
        (["--crop", "30"], "--crop 30 is larger than --resize 20"),
        (["--std", "1", "0", "1"], "--std 1 0 1: expected positive numbers up to 1"),
        (["--mean", "1", "0.5"], "--mean has 2 numbers and --std 3"),
        (["--mean", "blue"], "'--mean': 'blue' is not a number"),
        (["--model", "tests.networks:Vector"], "expected class logits (B, C)"),
        (["--model", "tests.networks:AllNaN"], "are not finite"),
        (["--classes", "names.txt"], "cannot read class names from names.txt"),
        (["--colour", "red"], "No such option '--colour'"),
        (["--limt", "3"], "No such option '--limt'. (Did you mean one of: '--fit', '--limit'?)"),
        (["--precision", "bf16"], "'bf16' is not one of 'float32', 'tf32'"),
        (["--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--workers", "-1"], "'--workers': -1 is not in the range x>=0"),
        (["--threshold", "half"], "'--threshold': 'half' is not a valid float range"),
        (["more"], "unexpected extra argument (more) (gradcampp evaluate --help shows what there is)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_two(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], says: str
) -> None:
    data = folder(2)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    (tmp_path / "RANGE" / "3").mkdir(parents=True)
    photograph(0).save(tmp_path / "RANGE" / "3" / "a.png")
    torch.save({key: value for key, value in scored().state_dict().items() if key != "classifier.1.bias"}, tmp_path / "MISSING")
    change = [str(tmp_path / part) if part.split("/")[0] in ("EMPTY", "FILE", "RANGE", "MISSING") else part for part in change]
    one_line(capsys, main(evaluate(data, tmp_path / "run", *change)), says)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "Missing command"),
        ("evaluat", "No such command 'evaluat'. Did you mean 'evaluate'? (gradcampp --help shows what there is)"),
        ("book", "No such command 'book'"),
        ("--colour red", "No such option '--colour'"),
        ("evaluate --out run", "Missing option '--data'"),
        ("explain", "Missing argument 'PHOTO...' (gradcampp explain --help shows what there is)"),
        ("explain a.png --scores logit", "'logit' is not one of 'pre', 'post'"),
        ("report", "Missing argument 'RUN'"),
        ("scene --instances 0", "'--instances': 0 is not in the range x>=1"),
        ("scene --instances 5", "no such scene: expected 0 to 4 instances, got 5"),
        ("scene --class star --class star", "no such scene: expected two different classes"),
        ("scene --class star --class kite --class leaf", "a scene has one class, or two with one instance each"),
        ("scene --out scene.jpg", "expected a name that ends in .png"),
        ("reproduce --profile absent", "no profile 'absent'"),
        ("download --profile absent", "no profile 'absent'"),
        ("claims --run absent", "is not a run"),
        ("compare absent", "is not a run"),
    ],
)
def test_what_cannot_be_understood_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(capsys, main(given.split()), says)
    assert not any(tmp_path.iterdir())


def test_another_configuration_in_the_same_folder_is_refused(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(2)
    assert main(evaluate(data, tmp_path / "run")) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("[!.]*.*") if path.is_file()}
    capsys.readouterr()
    one_line(
        capsys,
        main(evaluate(data, tmp_path / "run", "--layer", "features.1")),
        "layer = features.4, and this one has features.1",
    )
    one_line(capsys, main(evaluate(data, tmp_path / "run", "--limit", "3")), "limit = None, and this one has 3")
    assert len(before) == 3
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("[!.]*.*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda run: run.mkdir(exist_ok=True), "is not a run: it has no manifest.json"),
        (lambda run: (run / "manifest.json").write_text("{"), "cannot read"),
        (lambda run: (run / "manifest.json").write_text('{"finished": false, "experiment": {}}'), "is not finished"),
        (lambda run: (run / "manifest.json").write_text('{"finished": true, "experiment": {}}'), "records.parquet"),
    ],
)
def test_report_explains_what_is_no_finished_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: Callable[[Path], object], says: str
) -> None:
    prepare(tmp_path)
    one_line(capsys, main(["report", str(tmp_path)]), says)


def test_report_says_when_too_few_images_are_over_the_threshold(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate(folder(1), tmp_path / "run", "--threshold", "0.999999")) == 0
    capsys.readouterr()
    one_line(capsys, main(["report", str(tmp_path / "run")]), "the tables need two or more")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.png"], "photograph absent.png: no such file"),
        (["PHOTO", "--class", "5"], "class 5 is out of range"),
        (["PHOTO", "--class", "clas 1"], "no class 'clas 1'; the nearest: class 1 (1)"),
        (["PHOTO", "--out", "e.bmp"], "ends in .png, .svg or .pdf"),
        (["PHOTO", "--out", "absent/e.png"], "the folder absent does not exist"),
        (["PHOTO", "--model", "tests.networks:AllNaN"], "not finite"),
    ],
)
def test_explain_explains_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    photograph(0).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png") if part == "PHOTO" else part for part in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "e.png")]
    one_line(capsys, main(["explain", *OWN, *given, *out]), says)


def test_no_cuda_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one_line(capsys, main(evaluate(tmp_path / "data", tmp_path / "run", "--device", "cuda")), "no CUDA device")


def test_an_interrupt_says_how_to_go_on(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradcampp.evaluation.run.measure", interrupted)
    assert main(evaluate(folder(1), tmp_path / "run")) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "layer"), [("View", "features.4"), ("Temperature", "features.4"), ("OneReLU", "relu")])
def test_ordinary_peculiarities_of_networks_just_work(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, layer: str
) -> None:
    data = folder(2)
    assert main(evaluate(data, tmp_path / "run", "--model", f"tests.networks:{name}", "--threshold", "0")) == 0
    assert "6 of 6 images over 0; top-1" in capsys.readouterr().out
    assert records.read_manifest(tmp_path / "run")["experiment"]["layer"] == layer


def test_gradients_that_are_not_finite_name_the_photograph(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = ["--model", "tests.networks:Rooted", "--layer", "features.4"]
    one_line(capsys, main(evaluate(folder(1), tmp_path / "run", *change)), "gradients for 0/0.png are not finite")


def test_a_wrong_layer_does_not_claim_the_folder(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(1)
    one_line(capsys, main(evaluate(data, tmp_path / "run", "--layer", "classifier.3")), "no feature maps; name a layer before")
    assert main(evaluate(data, tmp_path / "run")) == 0


def test_a_folder_name_may_hold_a_colon(folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(2)
    monkeypatch.chdir(tmp_path)
    assert main(evaluate(data, Path("run-10:30"))) == 0
    assert main(["report", "run-10:30"]) == 0


def test_models_that_are_no_classifiers_are_unknown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = ["--model", "fasterrcnn_resnet50_fpn", "--weights", "random"]
    one_line(capsys, main(evaluate(tmp_path / "data", tmp_path / "run", *model)), "unknown model")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """As in ``gradcampp report RUN | head``."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "gradcampp", "scene", "--out", str(tmp_path / "scene.png")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert (tmp_path / "scene.png").exists()


def test_compare_puts_runs_into_one_table_and_one_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = sorted(path for path in (ROOT / "evidence").glob("[!a]*") if path.is_dir())
    assert main(["compare", *map(str, evidence), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(said.count(str(folder)) == 2 for folder in evidence)  # pre and post
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["run"].tolist() == [str(folder) for folder in evidence for _ in range(2)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"comparison.{end}" for end in ("csv", "md", "png", "svg")}


def explain(*given: str, model: list[str] = OWN) -> list[str]:
    return ["explain", *given, *model]


@pytest.mark.parametrize("spelling", ["a.png", "./a.png", "b/../a.png", "link.png", "hard.png", "a.PNG"])
def test_explain_does_not_write_over_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph(1).save("a.png")
    Path("b").mkdir()
    Path("link.png").symlink_to("a.png")
    os.link("a.png", "hard.png")
    before = Path("a.png").read_bytes()
    one_line(capsys, main(explain("a.png", "--out", spelling)), "would write over a.png, which is read; choose another name")
    assert Path("a.png").read_bytes() == before
    assert Path("link.png").is_symlink()


def test_no_other_output_is_an_input_either(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = folder(2, "data")
    photograph(1).save("e-alphas.png")
    photograph(1).save("explanation.png")
    torch.save(scored().state_dict(), "w.npz")
    Path("claims").mkdir()
    Path("folder.png").mkdir()
    refused = {
        "--out folder.png: a folder": explain("explanation.png", "--out", "folder.png"),
        "99999999999999999999 is not in the range 0<=x<=9223372036854775807": ["scene", "--seed", "9" * 20],
        "would write over e-alphas.png": explain("e-alphas.png", "--out", "e.png", "--alphas"),
        "would write over explanation.png": explain("explanation.png"),
        "would write over w.npz": explain("explanation.png", "--out", "e.png", "--weights", "w.npz", "--arrays", "w.npz"),
        "--out data is in the data folder data": evaluate(data.relative_to(tmp_path), Path("data")),
        "is in the data folder .; choose": evaluate(Path(), Path("run")),
        "--photograph claims/figure1.png is in claims": ["reproduce", "--out", "claims", "--photograph", "claims/figure1.png"],
        "the output run/manifest.json would write over": ["claims", "--run", "run", "--out", "run/manifest.json"],
        "--out claims.csv: expected a name that ends in .json": ["claims", "--out", "claims.csv"],
        "--arrays e.npy: expected a name that ends in .npz": explain("explanation.png", "--out", "e.png", "--arrays", "e.npy"),
    }
    assert main(evaluate(data, Path("run"))) == 0
    capsys.readouterr()
    for says, command in refused.items():
        one_line(capsys, main(command), says)
    assert not Path("e.png").exists()


def test_raw_maps_and_their_evidence_are_one_file_without_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        photograph(ord(name)).save(tmp_path / f"{name}.png")
    given = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--class", "0", "--class", "2", "--out", str(tmp_path / "e.png")]
    assert main(explain(*given, "--arrays", str(tmp_path / "e.npz"))) == 0
    assert "e.npz" in capsys.readouterr().out
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        found = dict(file)
    evidence = json.loads(str(found.pop("evidence")))
    assert found["label"].tolist() == [0, 2, 0, 2]
    network = load(scored(), resize=20, crop=16)
    pixels, labels = torch.from_numpy(found["pixels"]), torch.from_numpy(found["label"])
    captured = network.capture(pixels, labels)
    for scores, method in cam.MAPS:
        weights = cam.weights(method, captured.activations, captured.gradients[scores])
        name = cam.column(scores, method)
        np.testing.assert_allclose(found[f"{name}_weights"], weights, rtol=1e-3, atol=1e-6)  # float32, another batch size
        np.testing.assert_allclose(found[name], cam.heatmap(weights, captured.activations), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["logits"], captured.logits, rtol=1e-4)
    assert found.keys() == {cam.column(*each) for each in cam.MAPS} | {f"{cam.column(*each)}_weights" for each in cam.MAPS} | {
        "logits",
        "label",
        "pixels",
    }
    rows = evidence["rows"]
    assert [row["sha256"] for row in rows] == [file_hash(tmp_path / f"{name}.png") for name in "aabb"]
    assert [row["label"] for row in rows] == [0, 2, 0, 2]
    assert rows[1]["probability"] == pytest.approx(float(captured.logits[1].double().softmax(0)[2]), rel=1e-4)
    assert evidence["layer"] == "features.4"
    assert evidence["preprocessing"]["resize"] == 20
    assert evidence["versions"]["torch"] == torch.__version__.split("+")[0]
    assert agrees(evidence["probe"], probe(network))


def test_the_input_is_printed_by_every_command_that_reads_photographs(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(4)
    line = "input: shorter side 20 bilinear, centre 16 x 16, RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225; --resize, --crop"
    photo = str(data / "0" / "0.png")
    for command in (
        explain(photo, "--out", str(tmp_path / "e.png")),
        evaluate(data, tmp_path / "run"),
        ["reproduce", "--data", str(data), "--out", str(tmp_path / "out"), *OWN, "--threshold", "0.3"],
    ):
        assert main(command) == 0
        assert capsys.readouterr().out.count(line) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--fit", "squash", "--crop", "16x24"], "input: squashed to 16 x 24 bilinear, RGB"),
        (["--fit", "pad", "--interpolation", "lanczos"], "input: fitted into 16 x 16 lanczos, the rest in the mean colour, RGB"),
        (["--mean", "0.5,0.5,0.5", "--std", "0.25", "0.25", "0.25"], "mean 0.5 0.5 0.5, std 0.25 0.25 0.25;"),
        (["--model", "tests.test_preprocessing:grey", "--mean", "0.5", "--std", "0.25"], "grey, mean 0.5, std 0.25;"),
    ],
)
def test_the_input_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], says: str) -> None:
    photograph(1).save(tmp_path / "a.png")
    size = [] if "--fit" in given else ["--resize", "20"]
    model = ["--model", "tests.networks:scored", *size, "--crop", "16", *given]
    assert main(explain(str(tmp_path / "a.png"), "--out", str(tmp_path / "e.png"), model=model)) == 0
    assert says in capsys.readouterr().out


def test_a_network_that_nobody_chose_says_what_it_knows(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(1).save(tmp_path / "dog.png")
    assert main(explain(str(tmp_path / "dog.png"), "--out", str(tmp_path / "e.png"), model=[])) == 0
    said = "no --model was given, so this is mini, which knows ten drawn classes only; --model names one for photographs"
    assert capsys.readouterr().err == f"gradcampp: {said}\n"
    assert main(explain(str(tmp_path / "dog.png"), "--out", str(tmp_path / "e.png"), model=["--model", "mini"])) == 0
    assert capsys.readouterr().err == ""
    (folder(1) / "0").rename(tmp_path / "data" / "dog")
    given = ["evaluate", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    one_line(capsys, main(given), "no class 'dog'; ")
    one_line(
        capsys, main(given), "--label-order folder counts the folders, as ImageFolder does; the network is mini, which knows"
    )
    (tmp_path / "data" / "dog").rename(tmp_path / "data" / "0")
    assert main(given) == 0
    assert capsys.readouterr().err.startswith(f"gradcampp: {said}\ngradcampp: cannot tell whether")


def test_labels_and_their_order_are_options_and_chance_is_loud(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(6)
    right = records_of(main, evaluate(data, tmp_path / "run"))
    capsys.readouterr()
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for image, prediction in zip(right["image"], right["prediction"], strict=True):
        (data / image).rename(flat / image.replace("/", "-"))
        rows.append((image.replace("/", "-"), int(prediction)))
    (tmp_path / "right.csv").write_text("".join(f"{image},{label}\n" for image, label in rows))
    (tmp_path / "wrong.csv").write_text("".join(f"{image},{(label + 1) % 3}\n" for image, label in rows))
    assert main(evaluate(flat, tmp_path / "right", "--labels", str(tmp_path / "right.csv"))) == 0
    said = capsys.readouterr()
    assert "top-1 100.00%" in said.out
    assert said.err == ""
    assert main(evaluate(flat, tmp_path / "wrong", "--labels", str(tmp_path / "wrong.csv"))) == 0
    said = capsys.readouterr()
    assert "top-1 0.00%" in said.out
    assert (
        "gradcampp: WARNING: top-1 0.00% of 18 images is no better than chance, 33.33%; check the order of the labels" in said.err
    )


def records_of(run: Callable[[list[str]], int], command: list[str]) -> pd.DataFrame:
    assert run(command) == 0
    return records.Run(Path(command[4])).records


def test_what_does_not_fit_into_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(1).save(tmp_path / "a.png")
    for error in (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError(), torch.OutOfMemoryError()):
        monkeypatch.setattr("gradcampp.evaluation.profiles.load_network", Mock(side_effect=error))
        one_line(
            capsys, main(explain(str(tmp_path / "a.png"), "--out", str(tmp_path / "e.png"))), "out of memory; choose a smaller"
        )
    monkeypatch.setattr("gradcampp.evaluation.profiles.load_network", Mock(side_effect=RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(explain(str(tmp_path / "a.png"), "--out", str(tmp_path / "e.png")))


def test_devices_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert options.choose_device("cuda:1", None) == "cuda"  # which is then that of this process
    assert chosen == [1]
    with pytest.raises(InputError, match="--device cuda:2: this machine has 2 CUDA devices, cuda:0 to cuda:1"):
        options.choose_device("cuda:2", None)
    with pytest.raises(InputError, match="--device cuda:1: torchrun's processes take a device each; choose cuda"):
        options.choose_device("cuda:1", Processes(0, 2, 0, 2))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(InputError, match="--device mps is not on this machine; choose cpu or auto"):
        options.choose_device("mps", None)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert options.choose_device("mps", None) == "mps"


def test_the_versions_of_what_decides_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    said = capsys.readouterr().out
    assert re.match(r"gradcampp \S+, torch \S+, torchvision \S+, numpy \S+, pillow \S+, Python 3\.\S+\n$", said)


def test_the_profile_of_photographs_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--weights", "random", "--crop", "64", "--resize", "64"]  # the weights need not be installed
    for command in (["reproduce", "--profile", "photographs", *given], ["download", "--profile", "photographs"]):
        main(command)
        said = "".join(capsys.readouterr())
        assert "python -m scripts.photographs --out imagenet-sample-images" in said
        assert "github.com/EliSchwartz/imagenet-sample-images" in said


@pytest.mark.parametrize("loading", ["click", "torch.autograd"])
def test_ctrl_c_while_modules_load_is_one_line(tmp_path: Path, loading: str) -> None:
    """A KeyboardInterrupt that arrives in torch's C++ ends the process with SIGABRT: so leave before it is raised."""
    script = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {loading!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it, and so would this
        "from gradcampp.__main__ import main\n"
        f"sys.argv[1:] = ['scene', '--out', {str(tmp_path / 'scene.png')!r}]\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "gradcampp: interrupted; the same command goes on where it stopped\n"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_assumed_of_photographs_is_said_once(
    folder: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: str
) -> None:
    """Also by processes that decode: two say it twice."""
    data = folder(3)
    for path in data.rglob("*.png"):
        deep = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        deep[0, 0] = 4095
        Image.fromarray(deep).save(path)
    assert main([*evaluate(data, tmp_path / "run", "--batch-size", "2"), "--workers", workers]) == 0
    said = capfd.readouterr().err
    line = "gradcampp: a grey picture of which no number is over 4095 is taken for one of 12 bits, with 4095 for white\n"
    assert said.count(line) == max(1, int(workers))


def test_a_grey_network_is_drawn_in_grey(tmp_path: Path) -> None:
    photograph(1, (16, 16)).convert("L").save(tmp_path / "a.png")
    model = ["--model", "tests.test_preprocessing:grey", "--resize", "16", "--crop", "16"]
    assert main(explain(str(tmp_path / "a.png"), "--out", str(tmp_path / "e.png"), model=model)) == 0
    with Image.open(tmp_path / "e.png") as drawn:
        red, green, blue = (np.asarray(band).astype(int) for band in drawn.convert("RGB").crop((0, 0, 200, drawn.height)).split())
    assert np.abs(red - green).max() == 0  # the photograph stands on the left: no colour there
    assert np.abs(red - blue).max() == 0
