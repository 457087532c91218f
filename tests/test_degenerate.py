"""Runs that are no evidence: each of them is refused, leaves images out and says so, or cannot tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from gradcampp import cli, equivalence
from gradcampp.cam import COLUMNS, SCORES, column
from gradcampp.claims import ledger
from gradcampp.claims.ledger import MEASURED
from gradcampp.errors import InputError
from gradcampp.evaluation import records
from gradcampp.evaluation.maps import explain, without_maps
from gradcampp.evaluation.records import Run
from gradcampp.performance import UndefinedError, compared, summaries
from gradcampp.results import comparison, report, tables
from tests.networks import Scored, scored
from tests.test_evaluate import network, run


class Saturated(Scored):
    """So sure that its softmax is 1, and its gradient 0, in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(scored().state_dict())

    def forward(self, images: Tensor) -> Tensor:
        return 1e5 * super().forward(images)


class Unmoved(Scored):
    """Its logits do not depend on the picture: every gradient is 0."""

    def forward(self, images: Tensor) -> Tensor:
        return 0 * super().forward(images) + torch.tensor([5.0, 0, 0])


class OneMap(Scored):
    """A layer of one map: whatever its weight, min-max makes the same of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 1, 3), nn.ReLU())
        nn.init.constant_(self.features[3].bias, 0.5)  # type: ignore[arg-type]
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
        with torch.no_grad():
            self.classifier[2].weight.copy_(torch.tensor([[1.0], [0.9], [0.8]]))  # type: ignore[operator]


def verdicts(own: Run) -> dict[str, str]:
    """Of every claim that a run decides."""
    return {row.claim.name: row.finding.verdict for row in ledger.ledger(own, MEASURED)}


def of_scores(found: dict[str, str], scores: str) -> set[str]:
    """The verdicts of the claims that compare methods by their scores."""
    return {verdict for name, verdict in found.items() if name.startswith(("4-", "table-2-narrow")) and name.endswith(scores)}


def rewritten(own: Run, **columns: Any) -> Run:
    """A run in whose records columns have other values, as one of an older version may have."""
    for part in records.parts(own.folder):
        file = own.folder / "records.parquet" / f"{part:05d}.parquet"
        table = pq.read_table(file)
        rows = table.to_pandas()
        for name, value in columns.items():
            rows[name] = rows[name].where(rows[name].isna(), value) if name != "score" else value
        changed = pa.Table.from_pandas(rows, records.SCHEMA, preserve_index=False)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    return Run(own.folder)


@pytest.mark.parametrize("module", [Saturated, Unmoved, OneMap])
def test_a_run_of_a_degenerate_network_is_no_evidence(
    module: Callable[[], nn.Module], folder: Callable[..., Path], tmp_path: Path
) -> None:
    run(folder(3), tmp_path / "run", module(), controls=True)
    own = Run(tmp_path / "run")
    with pytest.raises(UndefinedError):
        summaries(own.records)
    found = verdicts(own)
    assert "holds" not in of_scores(found, "pre") | of_scores(found, "post") | {found["4-post-closer"], found["fig-6"]}
    assert of_scores(found, "pre") | of_scores(found, "post") == {"cannot tell"}
    said = report.write(own, tmp_path / "report")
    assert said.text.startswith("Tables 1 and 2 and Figure 6 are undefined in this run.")
    assert "1.000 [" not in said.text
    assert not (tmp_path / "report" / "table1.csv").exists()
    assert len(equivalence.equivalence(own.records, 1.1)) == 2  # the paper's own rows alone


def test_the_ledger_of_a_degenerate_run_is_no_error(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(3), tmp_path / "run", Saturated())
    assert cli.main(["claims", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "claims.json")]) == 0
    ledger_of_run = {row["name"]: row["verdict"] for row in json.loads((tmp_path / "claims.json").read_text())}
    assert ledger_of_run["4-equivalent-pre"] == ledger_of_run["4-equivalent-post"] == "cannot tell"


def test_without_any_gradient_nothing_is_claimed_of_alphas_and_maps(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(3), tmp_path / "run", Unmoved())
    found = verdicts(Run(tmp_path / "run"))
    named = ("3.2-pole", "3.3-small-pre", "fig-3-4-pre", "3.3-same-map-pre", "3.3-half-positive-post", "3.1.4-run")
    assert {found[name] for name in (*named, "3.4-outliers", "theorem-1-run", "theorem-3-run")} == {"cannot tell"}
    assert set(found.values()) == {"cannot tell", "not tested by this profile"}


def test_an_old_run_of_a_network_with_one_output_cannot_tell(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Its softmax is 1 for every picture, and so is that of every explanation map; its maps before the softmax are real."""
    run(folder(3), tmp_path / "run", scored(), controls=True)
    ones = [*COLUMNS, *records.MATCHED, *records.SIGNED]
    own = rewritten(Run(tmp_path / "run"), **dict.fromkeys(ones, 1.0), score=1.0)
    found = verdicts(own)
    assert of_scores(found, "pre") | of_scores(found, "post") == {"cannot tell"}
    assert found["2-positive-necessary"] == found["4-post-narrower"] == found["fig-6"] == "cannot tell"
    assert found["theorem-1-run"] == "holds"  # what its maps do say is still there
    assert "scores the same through the maps of all three methods" in report.write(own, tmp_path / "report").text


def test_an_old_run_at_maps_of_one_unit_cannot_tell(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Maps of 1 x 1 are constant: black explanation maps, whose scores are the same."""
    run(folder(3), tmp_path / "run", scored())
    black = dict.fromkeys(COLUMNS, 0.4) | dict.fromkeys(records.HEATS, 0.0)
    same = {f"{scores}_difference": 0.0 for scores in SCORES}
    own = rewritten(Run(tmp_path / "run"), **black, **same)
    found = verdicts(own)
    assert of_scores(found, "pre") == of_scores(found, "post") == {"cannot tell"}
    assert found["3.3-same-map-pre"] == "cannot tell"
    explained = own.left_out["pre"]["explained"]
    assert own.left_out["pre"] == {"empty": explained, "not finite": 0, "empty of Grad-CAM": 0, "explained": explained}


@pytest.fixture
def mixed(folder: Callable[..., Path], tmp_path: Path) -> Run:
    """A run in which two of the images that are explained have empty maps of all methods before the softmax, and one no score."""
    run(folder(6), tmp_path / "run", scored(), threshold=0.1)
    raw = pd.concat([pq.read_table(file).to_pandas() for file in sorted((tmp_path / "run").glob("records.parquet/*.parquet"))])
    images = raw.loc[(raw["score"] > 0.1) & (raw["pre_gradcam_plusplus_mean_heat"] > 0), "image"].tolist()[:3]
    for file in (tmp_path / "run").glob("records.parquet/*.parquet"):
        table = pq.read_table(file)
        rows = table.to_pandas()
        own = [column("pre", method) for method in ("gradcam", "gradcam+", "gradcam++")]
        rows.loc[rows["image"].isin(images[:2]), own] = 0.25
        rows.loc[rows["image"].isin(images[:2]), [f"{name}_mean_heat" for name in own]] = 0.0
        rows.loc[rows["image"] == images[2], own[1]] = np.nan
        changed = pa.Table.from_pandas(rows, records.SCHEMA, preserve_index=False)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    return Run(tmp_path / "run")


def test_images_without_maps_are_left_out_and_counted_beside_the_tables(mixed: Run, tmp_path: Path) -> None:
    before = mixed.left_out["pre"]
    assert (before["empty"] >= 2, before["not finite"]) == (True, 1)
    counted = before["explained"] - before["empty"] - 1
    found = compared(mixed.records, "pre")
    assert found["gradcam++", "gradcam+"].n == counted > 2
    rows = pd.concat([pq.read_table(file).to_pandas() for file in sorted(mixed.folder.glob("records.parquet/*.parquet"))])
    good = rows[(rows["pre_gradcam_plusplus_mean_heat"] > 0) & rows["pre_gradcam_plus"].notna()]
    logs = [
        np.log(one) - np.log(other) for one, other in zip(good["pre_gradcam_plusplus"], good["pre_gradcam_plus"], strict=True)
    ]
    assert found["gradcam++", "gradcam+"].mean == pytest.approx(sum(logs) / len(logs), abs=1e-12)
    text = report.write(mixed, tmp_path / "report").text
    assert f"pre: {before['empty']} of {before['explained']} images are left out, in which Grad-CAM+ and Grad-CAM++ have" in text
    assert f"pre: 1 of {before['explained']} images are left out, in which a map or its score is not finite" in text


def test_one_kind_of_score_can_be_undefined_alone(folder: Callable[..., Path], tmp_path: Path) -> None:
    run(folder(6), tmp_path / "run", scored(), threshold=0.1)
    own = rewritten(Run(tmp_path / "run"), **{name: 1.0 for name in COLUMNS if name.startswith("post")})
    found = summaries(own.records)
    assert np.isnan(found["post", ("gradcam++", "gradcam+")].low)
    assert np.isfinite(found["pre", ("gradcam++", "gradcam+")].low)
    first = tables.readable("table1", tables.paper_tables(own.records)["table1"])
    assert set(first["post this run [95 % CI]"]) == {"undefined"}
    assert all("[" in cell for cell in first["pre this run [95 % CI]"])
    both = comparison.tables({"own": own}, repeated=True)
    assert "undefined" in both["table1"].to_numpy().ravel().tolist()
    assert "nan" not in both["table2"].to_csv().lower()
    verdict = verdicts(own)
    assert of_scores(verdict, "post") == {"cannot tell"}
    assert of_scores(verdict, "pre") != {"cannot tell"}


def test_methods_that_are_one_by_construction_are_said_to_be(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Where every gradient is positive Grad-CAM+ is Grad-CAM: a theorem, so the comparison stays, with a word."""
    run(folder(6), tmp_path / "run", scored(), threshold=0.1)
    raw = Run(tmp_path / "run").records
    own = Run(tmp_path / "run")
    same = raw.assign(pre_gradcam=raw["pre_gradcam_plus"])
    vars(own)["records"] = same
    assert any(line.startswith("pre: Grad-CAM+ vs Grad-CAM: one score in every image") for line in tables.notes(own))
    assert compared(same, "pre")["gradcam+", "gradcam"].relative_performance == 1


def test_copies_of_one_photograph_are_no_sample(folder: Callable[..., Path], tmp_path: Path) -> None:
    data = folder(1)
    for number in range(5):
        shutil.copy(data / "0" / "0.png", data / "0" / f"copy{number}.png")
    run(data, tmp_path / "run", scored(), threshold=0.0)
    own = Run(tmp_path / "run")
    assert tables.notes(own)[0] == "5 photographs are copies of others, and the intervals take them for independent"
    alike = own.records[own.records["label"] == 0]
    with pytest.raises(UndefinedError, match="all 6 images are copies of one photograph"):
        compared(alike, "pre")


@pytest.mark.parametrize("images", [2, 3])
def test_two_images_and_three_have_verdicts(folder: Callable[..., Path], tmp_path: Path, images: int) -> None:
    data = folder(2)
    scores = run(data, tmp_path / "first", scored())["score"].sort_values(ascending=False).to_numpy()
    run(data, tmp_path / "run", scored(), threshold=float(scores[images - 1] + scores[images]) / 2, controls=True)
    own = Run(tmp_path / "run")
    assert len(own.records[own.records["pre_gradcam_mean_heat"].notna()]) == images
    found = verdicts(own)
    assert found["4-equivalent-pre"] == found["fig-6"] == "cannot tell"


@pytest.mark.parametrize("images", [0, 1])
def test_no_image_over_the_threshold_or_one_is_refused(folder: Callable[..., Path], tmp_path: Path, images: int) -> None:
    data = folder(2)
    scores = run(data, tmp_path / "first", scored())["score"].sort_values(ascending=False).to_numpy()
    threshold = float(scores[0] + scores[1]) / 2 if images else 0.999999
    run(data, tmp_path / "run", scored(), threshold=threshold)
    for command in (["report"], ["claims", "--run"]):
        assert cli.main([*command, str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    with pytest.raises(InputError, match=f"{images} of 6 images have the scores"):
        summaries(Run(tmp_path / "run").records)


def test_a_picture_without_maps_is_said_and_not_drawn_black() -> None:
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (row,) = explain(network(Unmoved().eval()), picture, [0], "pre")
    assert row.empty == ["gradcam", "gradcam+", "gradcam++"]
    told = "the map of Grad-CAM, Grad-CAM+, Grad-CAM++ for cat is empty: its gradients are 0 everywhere"
    assert without_maps(row, "cat") == told


def unmoved() -> nn.Module:
    """A factory of a network whose gradients are 0."""
    return Unmoved()


def test_explain_refuses_to_draw_black(folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(folder(1) / "0" / "0.png")
    small = ["--layer", "features.4", "--resize", "20", "--crop", "16", "--out", str(tmp_path / "a.png")]
    assert cli.main(["explain", photo, "--model", "tests.test_degenerate:unmoved", *small]) == 2
    said = capsys.readouterr().err
    assert "is empty: its gradients are 0 everywhere" in said
    assert "has no map of the pre-softmax scores; nothing is drawn" in said
    assert not (tmp_path / "a.png").exists()
