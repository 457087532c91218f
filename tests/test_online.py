"""The online edition, rehearsed: a server on this machine, 1,000 classes, a small random network, the commands of the workflow.

The book itself is built once, of one chapter; elsewhere the command that would build it is looked at.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import squeezenet1_0

from book import build, setup_cell
from gradcampp import notebook
from gradcampp.errors import InputError
from gradcampp.evaluation import profiles
from gradcampp.evaluation.measure import measure as measured
from gradcampp.evaluation.profiles import Profile
from gradcampp.evaluation.records import Run
from gradcampp.files import file_hash
from scripts import online
from tests import test_book
from tests.conftest import ROOT, photograph
from tests.server import Server, running

IMAGES, BATCH = 24, 4
PROFILE = """
model = "squeezenet1_0"
layer = "features.12"
resize = 72
crop = 64
threshold = 0.0
limit = {images}
seed = 0
explain = ["tiger cat", "German shepherd"]

[download.weights]
address = "{address}/w.safetensors"
size = {weights}
sha256 = "{weights_hash}"

[download.data]
address = "{address}/photos.tar"
size = {data}
md5 = "{data_hash}"
folder = "photos"
classes = 1000
images_per_class = 1

[download.photograph]
address = "{address}/two.png"
size = {picture}
sha256 = "{picture_hash}"
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def stand_in(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile of the rehearsal, called ``small``, whose files are on the server."""
    folder = tmp_path_factory.mktemp("served")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = squeezenet1_0().state_dict()
    weights["classifier.1.bias"] += 1  # the ReLU behind it lets every class through, so that there are gradients
    save_file(weights, folder / "w.safetensors")
    with tarfile.open(folder / "photos.tar", "w") as tar:
        for label in range(1000):
            buffer = io.BytesIO()
            photograph(label % 7, (96, 80)).save(buffer, "JPEG")
            member = tarfile.TarInfo(f"photos/{label}/{label:04x}.jpeg")
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)
    photograph(5, (90, 110)).save(folder / "two.png")
    network, data, picture = (folder / name for name in ("w.safetensors", "photos.tar", "two.png"))
    server.files |= {path.name: path for path in (network, data, picture)}
    hashes = {"weights_hash": file_hash(network), "data_hash": file_hash(data, "md5"), "picture_hash": file_hash(picture)}
    sizes = {"weights": network.stat().st_size, "data": data.stat().st_size, "picture": picture.stat().st_size}
    profile = folder / "small.toml"
    profile.write_text(PROFILE.format(address=server.address, images=IMAGES, **hashes, **sizes))
    return profile


@pytest.fixture(scope="module")
def rehearsed(stand_in: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[int]]:
    """Work folder and kept records after a run that was cut off and called again, and how many images each call measured."""
    work, kept = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("evidence")
    counts = [0]

    def measure(*arguments: object) -> object:
        if len(counts) == 1 and counts[0] >= 3 * BATCH:
            raise KeyboardInterrupt
        counts[-1] += BATCH
        return measured(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADCAMPP_CACHE", str(work / "cache"))
        patch.setattr("gradcampp.evaluation.run.measure", measure)
        with pytest.raises(KeyboardInterrupt):
            online.evaluate(profiles.load(str(stand_in)), work, kept, BATCH)
        assert list(kept.iterdir()) == []  # no half records
        counts.append(0)
        online.evaluate(profiles.load(str(stand_in)), work, kept, BATCH)
        counts.append(0)
        asked = len(server.asked)
        online.evaluate(profiles.load(str(stand_in)), work, kept, BATCH)
        assert len(server.asked) == asked  # what is downloaded is not asked for again
    return work, kept, counts


def test_a_run_goes_on_where_it_was_cut_off_and_a_finished_one_is_not_repeated(rehearsed: tuple[Path, Path, list[int]]) -> None:
    _, _, (first, second, third) = rehearsed
    assert first == 3 * BATCH
    assert second == IMAGES - 2 * BATCH  # parts are two batches: the half part was measured again
    assert third == 0


def test_the_records_are_kept_with_what_they_come_from(rehearsed: tuple[Path, Path, list[int]], server: Server) -> None:
    work, kept, _ = rehearsed
    assert [folder.name for folder in kept.iterdir()] == ["squeezenet1_0-small"]
    run = Run(kept / "squeezenet1_0-small")
    assert run.finished
    assert len(run.records) == run.manifest["over_threshold"] == IMAGES
    made = run.manifest["made"]
    assert made["command"] == "python -m scripts.online run --profile small"
    assert made["photographs"]["source"] == f"{server.address}/photos.tar"
    assert made["weights"]["source"] == f"{server.address}/w.safetensors"
    assert re.fullmatch("[0-9a-f]{40}", made["commit"])
    assert {path.suffix for path in run.folder.rglob("*") if path.is_file()} == {".parquet", ".json", ".md"}
    assert str(work) not in (run.folder / "manifest.json").read_text("utf-8")
    assert "on 24 photographs" in (run.folder / "README.md").read_text("utf-8")


def test_in_its_own_edition_the_run_takes_the_place_of_its_records(
    rehearsed: tuple[Path, Path, list[int]], stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, kept, _ = rehearsed
    shutil.copytree(kept, tmp_path / "evidence")
    monkeypatch.chdir(tmp_path)
    own = Run(online.folder_of(profiles.load(str(stand_in)), work))
    assert list(notebook.open_evidence(own)) == ["squeezenet1_0, features.12"]
    assert notebook.open_evidence(own)["squeezenet1_0, features.12"].folder == own.folder


def test_both_editions_are_built_and_name_each_other(
    rehearsed: tuple[Path, Path, list[int]], stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, profile = rehearsed[0], profiles.load(str(stand_in))
    called: list[list[str]] = []

    def built(arguments: list[str]) -> None:
        called.append(arguments)
        html = Path(arguments[arguments.index("--out") + 1], "_build", "html")
        html.mkdir(parents=True, exist_ok=True)
        (html / "index.html").write_text(arguments[arguments.index("--profile") + 1])

    monkeypatch.setattr(online, "build", built)
    whole = online.site(profile, work, "https://github.com/someone/gradcampp", "https://someone.github.io/gradcampp")
    assert (whole / "index.html").read_text() == "mini"
    assert (whole / "small" / "index.html").read_text() == str(stand_in)
    first, second = (dict(zip(each[::2], each[1::2], strict=True)) for each in called)
    assert (first["--profile"], first["--beside"]) == ("mini", "small=small")
    assert (second["--profile"], second["--beside"]) == (str(stand_in), "mini=..")
    assert Run(Path(second["--run"])).finished
    assert first["--repository"] == second["--repository"] == "https://github.com/someone/gradcampp"
    addresses = [each["--address"] for each in (first, second)]
    assert addresses == ["https://someone.github.io/gradcampp/", "https://someone.github.io/gradcampp/small/"]
    called.clear()
    online.site(profile, work / "nothing", None, None)  # where the run is not there, as when a server does not answer
    assert [each[:2] for each in called] == [["--profile", "mini"]]
    assert not {"--beside", "--repository", "--address"} & set(called[0])


def test_a_change_of_prose_costs_nothing_and_a_change_of_a_number_does(stand_in: Path, tmp_path: Path) -> None:
    package = tmp_path / "gradcampp"
    shutil.copytree(ROOT / "src" / "gradcampp", package)
    profile = profiles.load(str(stand_in))
    before = online.key(profile, package)
    assert before == online.key(profile)

    def edit(name: str, old: str, new: str) -> str:
        text = (package / name).read_text("utf-8")
        assert text.count(old) == 1
        (package / name).write_text(text.replace(old, new), "utf-8")
        return online.key(profile, package)

    for name, old in (
        ("cam.py", "from __future__ import annotations\n"),  # a comment where numbers are made
        ("results/tables.py", "from __future__ import annotations\n"),
        ("claims/ledger.py", "from __future__ import annotations\n"),
    ):
        assert edit(name, old, f"{old}# prose\n") == before
    for name in ("results/tables.py", "claims/ledger.py", "notebook.py"):
        assert edit(name, "from __future__ import annotations\n", "from __future__ import annotations\nx = 1\n") == before
    first = (package / "cam.py").read_text("utf-8").splitlines()[0]
    assert edit("cam.py", first, '"""Other words.') == before
    for name in ("cam.py", "evaluation/maps.py", "networks/capture.py", "evaluation/photographs.py"):
        after = edit(name, "from __future__ import annotations\n", "from __future__ import annotations\nx = 1\n")
        assert after != before
        before = after


def test_the_key_is_that_of_the_experiment() -> None:
    paper, keras = profiles.load("paper"), profiles.load("paper-keras")
    assert len({online.key(each) for each in (paper, keras, profiles.override(paper, {"threshold": 0.25}))}) == 3
    assert online.key(profiles.override(paper, {"explain": ("beagle",)})) == online.key(paper)
    assert online.folder_of(paper, Path("w")) == Path("w", f"paper-{online.key(paper)}")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with a bare one behind it, two notebooks, and records that are not committed."""
    folder = tmp_path / "checkout"
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(tmp_path, "clone", "--quiet", str(tmp_path / "remote.git"), str(folder))
    for name in ("01_start", "02_methods"):
        (folder / "notebooks").mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    (folder / "evidence" / "vgg16-paper").mkdir(parents=True)
    (folder / "evidence" / "vgg16-paper" / "manifest.json").write_text("{}")
    return folder


def test_the_branch_has_the_records_and_notebooks_that_install_the_commit_below(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "ROOT", checkout)
    head, status = git(checkout, "rev-parse", "HEAD"), git(checkout, "status", "--porcelain")
    for _ in range(2):  # a later edition takes the place of the earlier
        online.main(["branch", "--repository", "https://github.com/someone/gradcampp"], standalone_mode=False)
    assert (git(checkout, "rev-parse", "HEAD"), git(checkout, "status", "--porcelain")) == (head, status)
    assert git(checkout, "worktree", "list").count("\n") == 0
    remote = tmp_path / "remote.git"
    assert git(remote, "rev-parse", "edition^") == head
    changed = git(remote, "diff", "--name-only", head, "edition").splitlines()
    assert changed == ["evidence/vgg16-paper/manifest.json", "notebooks/01_start.ipynb", "notebooks/02_methods.ipynb"]
    text = git(remote, "show", "edition:notebooks/01_start.ipynb")
    assert f'EDITION = \\"git+https://github.com/someone/gradcampp@{head}\\"' in text


def test_a_book_that_cannot_be_built_stops_the_edition() -> None:
    with pytest.raises(InputError, match=r"has failed \(exit code 2\)"):
        online.build(["--no-such-option"])


def test_what_cannot_be_is_one_line(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="profile mini: expected the tables download.weights and download.data"):
        online.evaluate(profiles.load("mini"), tmp_path, tmp_path)
    monkeypatch.setattr(online, "ROOT", checkout)
    with pytest.raises(InputError, match="git push in .*nowhere"):
        online.main(["branch", "--repository", "https://github.com/a/b", "--remote", "nowhere"], standalone_mode=False)


def test_the_workflow_calls_the_script_and_launch_buttons_open_its_branch() -> None:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github" / "workflows" / "pages.yml").read_text("utf-8")
    steps = yaml.safe_load(text)["jobs"]["book"]["steps"]
    commands = [step["run"] for step in steps if "scripts.online" in step.get("run", "")]
    named = [re.findall(r"scripts\.online (\w+)", command)[0] for command in commands]
    assert named == ["key", "run", "site", "branch"]
    assert set(named) == set(online.main.commands)
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text("utf-8"))
    assert config["with_repository"]["repository_branch"] == online.BRANCH
    saved = [step["with"] for step in steps if "cache" in step.get("uses", "")]
    assert {each["path"].replace("${{ steps.key.outputs.key }}", "KEY") for each in saved} == {
        "runs/downloads",
        "runs/online/paper-KEY",
    }


def extension() -> ModuleType:
    spec = spec_from_file_location("editions", ROOT / "book" / "_ext" / "editions.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_names_the_other_edition_and_leads_to_itself_there() -> None:
    said = extension().banner("mini", "paper", "../paper/notebooks/01_start.html")
    assert "<b>mini</b>: a small network on drawn scenes." in said
    assert '<a href="../paper/notebooks/01_start.html"><b>paper</b>: the paper’s own experiment' in said


@test_book.needs_tools
def test_one_chapter_is_built_for_both_editions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole site this has a page and a notebook: every page names the other edition, and the notebook knows its own."""
    chapter = test_book.notebook("# Title", "%pip install x")
    chapter["cells"][2] |= {"metadata": {"tags": ["setup", "remove-cell"]}, "source": setup_cell.SOURCE}
    root = test_book.checkout(tmp_path / "root", chapter=chapter)
    (root / "book" / "index.md").write_text("# First\n", "utf-8")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(build, "finished_run", lambda profile, run: run)
    monkeypatch.setattr("book.landing.write", lambda folder: None)
    options = ["--run", str(tmp_path), "--out", str(tmp_path / "out"), "--repository", "https://github.com/someone/gradcampp"]
    assert build.main([*options, "--profile", "mini", "--beside", "paper=paper"], root) == 0
    site = tmp_path / "out" / "_build" / "html"
    for page, address in (("notebooks/chapter", "../paper/notebooks/chapter.html"), ("book/index", "../paper/book/index.html")):
        text = (site / f"{page}.html").read_text("utf-8")
        assert f'<a href="{address}"><b>paper</b>' in text
        assert text.count("bd-header-announcement__content") == 1
    address = f"git+https://github.com/someone/gradcampp@{git(root, 'rev-parse', 'HEAD')}"
    assert address in (site / "_sources" / "notebooks" / "chapter.ipynb").read_text("utf-8")
    assert "mybinder.org/v2/gh/someone/gradcampp/edition" in (site / "notebooks" / "chapter.html").read_text("utf-8")


def test_an_edition_that_is_named_half_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--beside", "paper"]) == 2
    assert "expected a profile and the way to its site" in capsys.readouterr().err


def test_a_profile_is_used_as_it_is(stand_in: Path) -> None:
    loaded = profiles.load(str(stand_in))
    assert isinstance(loaded, Profile)
    assert loaded.download["data"].classes == 1000
