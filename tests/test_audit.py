"""The audit against slow twins, interrupted and refused; and the audits that came with the repository."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr, t

from gradcampp import cam
from gradcampp.cam import SCORES, column, min_max
from gradcampp.cli import main
from gradcampp.errors import InputError
from gradcampp.evaluation import audit
from gradcampp.evaluation.experiment import experiment_of
from gradcampp.evaluation.folders import list_photographs
from gradcampp.evaluation.photographs import read_photograph
from gradcampp.evaluation.records import read_manifest
from gradcampp.evaluation.run import Execution, evaluate
from gradcampp.networks.classes import numbered
from gradcampp.networks.load import load
from gradcampp.performance import relative_performance
from gradcampp.results import audit as said
from scripts import audits
from tests.conftest import ROOT, photograph
from tests.test_evaluate import SMALL, network

EXECUTION = Execution(4, 0, "cpu")


def run(data: Path, out: Path, measure: Any = audit.measure, **options: Any) -> pd.DataFrame:
    own = network()
    experiment = audit.experiment(experiment_of(own, 0.3, controls=True))
    evaluate(own, list_photographs(data, numbered(3)), data, out, experiment, EXECUTION, measuring=measure, **options)
    return audit.read(out)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    data = tmp_path_factory.mktemp("audit")
    for label in range(3):
        (data / "data" / str(label)).mkdir(parents=True)
        for index in range(6):
            photograph(100 * label + index).save(data / "data" / str(label) / f"{index}.png")
    found = run(data / "data", data / "run")
    found.attrs["folder"] = data
    return found


def test_a_row_is_that_of_a_slow_twin(rows: pd.DataFrame) -> None:
    """One photograph at a time, formulas written out; the audit computes formulas in float32, which rounds to 1e-6."""
    own, checked = network(), 0
    for _, row in rows.iterrows():
        if row["score"] <= 0.3:
            assert row[[*audit.COLUMNS, *audit.OF_UNITS, *audit.CONTROLS]].isna().all()
            continue
        pixels = read_photograph(rows.attrs["folder"] / "data" / row["image"], SMALL)[None].float() / 255
        captured = own.capture(pixels, torch.tensor([row["label"]]))
        for scores in SCORES:
            a, g = captured.activations.double(), captured.gradients[scores].double()
            exact = (g.relu() / (2 + a.sum((2, 3), keepdim=True) * g.relu())).sum((2, 3))
            power = torch.where(g > 0, g / (2 + a.sum((2, 3), keepdim=True)), 0).sum((2, 3))
            share = (exact / exact.sum() - power / power.sum()).abs().sum().item() / 2
            assert row[audit.name(scores, "wrong power", "weights")] == pytest.approx(share, abs=1e-5)
            maps = [min_max(cam.heatmap(w, a))[0].flatten() for w in (exact, power)]
            apart = (maps[0] - maps[1]).abs()
            expected = {"mean": apart.mean(), "largest": apart.max(), "spearman": spearmanr(maps[0].numpy(), maps[1].numpy())[0]}
            for name, value in expected.items():
                assert row[audit.name(scores, "wrong power", name)] == pytest.approx(float(value), abs=1e-4), name
            size = SMALL.size
            heat = cam.upsample(maps[1].reshape(1, *a.shape[2:]).float(), size)
            logits = own.logits(cam.explanation_map(heat, pixels))
            seen = logits.double().softmax(1)[0, row["label"]].item()
            assert row[audit.name(scores, "wrong power", "score")] == pytest.approx(seen, abs=1e-4)
            below, positive = 2 * g**2 + a.sum((2, 3), keepdim=True) * g**3, g > 0
            beyond = ((below < 1e-6) & positive).sum() / positive.sum()
            assert row[audit.name(scores, "", "1e-06")] == pytest.approx(float(beyond), abs=1e-6)
            checked += 1
    assert checked >= 6


def test_the_controls_of_an_audit_do_what_they_are_for(rows: pd.DataFrame) -> None:
    """In float32 eq. 13 is itself; the same weights on other channels are far from it, further than constant alphas."""
    long = audit.long(rows).groupby(["scores", "formula"])["mean"].mean()
    for scores in SCORES:
        assert long[scores, "eq. 13"] < 1e-6
        assert long[scores, "1/(2 + |s g|)"] < 1e-6  # behind a ReLU
        assert long[scores, "neighbour's weight"] > 10 * long[scores, "eq. 13"]
        assert long[scores, "neighbour's weight"] > long[scores, "Grad-CAM+"]


def test_scores_of_known_methods_are_those_of_a_run(rows: pd.DataFrame) -> None:
    for scores in SCORES:
        for formula, method in (("eq. 13", "gradcam++"), ("Grad-CAM+", "gradcam+"), ("Grad-CAM", "gradcam")):
            own = rows[audit.name(scores, formula, "score")]
            known = rows[column(scores, method)]  # type: ignore[arg-type]
            np.testing.assert_allclose(own, known, rtol=1e-5)
    np.testing.assert_allclose(rows["pre/1/(2 + |s g|)/matched"], rows["pre_gradcam_plusplus_matched"], rtol=1e-4)
    np.testing.assert_allclose(rows["pre/1/(2 + |s g|)/insertion"], rows["pre_gradcam_plusplus_insertion"], rtol=1e-4)


def test_maps_are_compared_as_by_hand() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.randint(0, 5, (6, 4, 5), generator=generator).double() / 4  # with ties
    reference = torch.randint(0, 9, (6, 4, 5), generator=generator).double() / 8
    found = audit.compare(maps, reference)
    for row, one, other in zip(found, maps.flatten(1).numpy(), reference.flatten(1).numpy(), strict=True):
        assert row[0] == pytest.approx(np.abs(one - other).mean())
        assert row[1] == pytest.approx(np.abs(one - other).max())
        assert row[2] == pytest.approx(np.corrcoef(one, other)[0, 1])
        assert row[3] == pytest.approx(spearmanr(one, other)[0])
    distinct = torch.arange(20.0).reshape(1, 4, 5)
    assert audit.compare(distinct / 19, distinct / 19)[0].tolist() == pytest.approx([0, 0, 1, 1, 1])
    assert audit.compare(1 - distinct / 19, distinct / 19)[0, 2:].tolist() == pytest.approx([-1, -1, 0])


def test_a_constant_map_has_no_order_and_one_that_is_not_finite_has_nothing() -> None:
    some = torch.arange(20.0).reshape(1, 4, 5) / 19
    blank, broken = torch.zeros(1, 4, 5), torch.full((1, 4, 5), torch.nan)
    assert audit.compare(blank, some)[0, :2].tolist() == pytest.approx([0.5, 1])
    assert audit.compare(blank, some)[0, 2:].isnan().all()
    assert audit.compare(broken, some).isnan().all()


def test_an_interrupted_audit_goes_on(rows: pd.DataFrame, tmp_path: Path) -> None:
    calls = 0

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return audit.measure(*arguments)

    data = rows.attrs["folder"] / "data"
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "run", fails)
    with pytest.raises(InputError, match="holds no finished audit"):
        audit.read(tmp_path / "run")
    kept = (tmp_path / "run" / "records.parquet" / "00000.parquet").stat().st_mtime_ns
    again = run(data, tmp_path / "run")
    assert (tmp_path / "run" / "records.parquet" / "00000.parquet").stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(again, rows, check_exact=False)


def test_a_run_and_an_audit_do_not_share_a_folder(rows: pd.DataFrame, tmp_path: Path) -> None:
    data, own = rows.attrs["folder"] / "data", network()
    evaluate(own, list_photographs(data, numbered(3)), data, tmp_path / "run", experiment_of(own, 0.3, controls=True), EXECUTION)
    with pytest.raises(InputError, match="holds no finished audit"):
        audit.read(tmp_path / "run")
    with pytest.raises(InputError, match="audit = None"):
        run(data, tmp_path / "run")


def command(rows: pd.DataFrame, out: Path, *options: str) -> int:
    data = rows.attrs["folder"] / "data"
    settings = ["--model", "tests.networks:scored", "--layer", "features.4", "--resize", "20", "--crop", "16"]
    return main(["audit", "--data", str(data), "--out", str(out), *settings, "--device", "cpu", *options])


def test_the_command_leaves_records_table_and_figure(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(rows, tmp_path / "out", "--threshold", "0.3", "--limit", "16") == 0
    printed = capsys.readouterr().out
    assert "16 photographs" in printed
    assert printed.count("The exact map:") == len(said.PACKAGES)
    assert {file.name for file in (tmp_path / "out").glob("audit.*")} == {"audit.csv", "audit.md", "audit.png", "audit.svg"}
    assert max(map(len, printed.partition("\nformula")[2].split("\n-")[0].splitlines())) < 100  # intervals are in audit.md
    assert "[" in (tmp_path / "out" / "audit.md").read_text("utf-8").split("\n-")[0]
    table = pd.read_csv(tmp_path / "out" / "audit.csv")
    assert len(table) == 2 * len(audit.FORMULAS)
    assert command(rows, tmp_path / "out", "--threshold", "0.3", "--limit", "16") == 0  # again: nothing is left to do


def test_bad_input_is_one_line(rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(rows, tmp_path / "none", "--threshold", "0.999999") == 2
    assert "0 photographs score over the threshold" in capsys.readouterr().err
    assert command(rows, tmp_path / "none", "--threshold", "0.3") == 2
    assert "threshold = 0.999999" in capsys.readouterr().err
    assert main(["audit", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["audit", "--out", str(tmp_path / "out")]) == 2
    assert "--data" in capsys.readouterr().err


def made_up() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    parts = []
    for scores in SCORES:
        for place, formula in enumerate(audit.FORMULAS):
            own = pd.DataFrame(generator.uniform(0.1, 0.9, (12, len(audit.MEASURES))), columns=[*audit.MEASURES])
            own["reference"], own["scores"], own["formula"] = generator.uniform(0.1, 0.9, 12), scores, formula
            own["image"] = [f"{index}.jpg" for index in range(12)]
            own["mean"] *= place
            parts.append(own)
    return pd.concat(parts, ignore_index=True)


def test_the_table_holds_what_its_columns_say() -> None:
    rows = made_up()
    torchcam = (rows["scores"] == "post") & (rows["formula"] == "torchcam")
    places = rows[torchcam].index
    rows.loc[places[0], ["mean", "largest", "pearson", "spearman", "score"]] = np.nan  # a map that is not finite
    rows.loc[places[1:3], "pearson"] = np.nan  # empty
    rows.loc[places[5], "score"] = np.nan  # not in the sample
    own, table = rows.loc[places], said.table(rows)
    found = table[(table["scores"] == "post") & (table["formula"] == "torchcam")].iloc[0]
    values = own["mean"].dropna()
    half = t.ppf(0.975, 10) * values.std() / math.sqrt(11)
    assert (found["n"], found["undefined"], found["empty"]) == (11, 1, 2)
    middle = values.mean()
    assert [found["mean"], found["low"], found["high"]] == pytest.approx([middle, middle - half, middle + half])
    assert found["spearman"] == own["spearman"].median()
    assert found["worst"] == own["largest"].max()
    both = own[own["score"].notna()]
    assert found["scored"] == len(both) == 10
    assert found["ratio"] == pytest.approx(relative_performance(both["score"], both["reference"]))
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert "nan" not in said.readable(said.table(rows)).to_string().split("top")[0]
    with pytest.raises(InputError, match="1 photographs score over"):
        said.table(rows[rows["image"] == "3.jpg"])


def test_candidates_meet_all_measures_that_a_run_has(rows: pd.DataFrame) -> None:
    found = said.candidates(rows).set_index("alpha")
    over = rows[rows["score"] > 0.3]
    known = {"eq. 13": "pre_gradcam_plusplus", "1/2": "pre_gradcam_plus"}
    for alpha, name in known.items():
        assert found.loc[alpha, "ratio"] == pytest.approx(relative_performance(over[name], over["pre_gradcam_plusplus"]))
        drops = np.maximum(0, over["score"] - over[name]) / over["score"]
        assert found.loc[alpha, "drop"] == pytest.approx(drops.mean())
        assert found.loc[alpha, "insertion"] == pytest.approx(over[f"{name}_insertion"].mean(), nan_ok=True)
    assert found.loc["1/(2 + |s g|)", "equal heat"] == pytest.approx(1, abs=1e-4)  # behind a ReLU
    signed = relative_performance(over["pre/signed, 1/(2 + |s g|)/score"], over["pre_gradcam_plusplus"])
    assert found.loc["signed, 1/(2 + |s g|)", "ratio"] == pytest.approx(signed)
    assert (found["n"] == len(over)).all()


def test_several_audits_stand_beside_each_other(rows: pd.DataFrame) -> None:
    table = said.table(audit.long(rows))
    shown = said.beside({"one": table, "other": table})
    assert len(shown) == 2 * len(said.SHOWN)
    n = table["n"].max()
    assert shown.index.get_level_values(0).unique().tolist() == [f"{name} (n = {n}; scores of {n})" for name in ("one", "other")]
    own = table[(table["scores"] == "post") & (table["formula"] == "torchcam")].iloc[0]
    cell = shown.loc[(shown.index[0][0], "torchcam"), ("post-softmax", "score")]
    assert str(cell).startswith(f"{own['ratio']:.3f} [{own['ratio_low']:.3f},")
    line = said.units(rows)[1]
    assert f"{rows['post//1e-06'].mean():.1%} for 1e-06" in line
    figure = said.figure({"one": table, "other": table})
    assert [axis.get_title() for axis in figure.axes] == ["one", "other"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    points = figure.axes[0].containers[0][0]
    left = points.get_xdata()[labels.index("neighbour's weight")]
    mean = table[(table["scores"] == "pre") & (table["formula"] == "neighbour's weight")]["mean"].iloc[0]
    assert left == pytest.approx(mean)


def test_sentences_compare_with_leaving_the_alphas_out() -> None:
    rows = made_up()
    told = said.sentences(said.table(rows))
    assert told.keys() == said.PACKAGES.keys()
    assert "times as far as Grad-CAM+ is" in told["torchcam 0.5"]
    assert "Grad-CAM+ is" not in told["captum 0.9"]  # which claims no Grad-CAM++
    assert "claims none" in told["captum 0.9"]
    rows.loc[rows["formula"] == "torchcam", "mean"] = 1e-5
    assert "the same map" in said.sentences(said.table(rows))["torchcam 0.5"]
    plus = rows[rows["formula"] == "Grad-CAM+"]["mean"].to_numpy()
    rows.loc[rows["formula"] == "torchcam", "mean"] = plus
    assert "as far as Grad-CAM+ is" in said.sentences(said.table(rows))["torchcam 0.5"]


COMMITTED = [f"{model}-{layer}" for model, layer in audits.RUNS]


@pytest.mark.parametrize("name", COMMITTED)
def test_some_photographs_give_the_committed_rows(shared: Path, tmp_path: Path, name: str) -> None:
    """Scores by 2e-3, as in test_evidence; maps by less where no pole is near, so nearly all are compared."""
    model, layer = name.split("-", 1)
    folder = ROOT / "evidence" / f"audit-{name}"
    committed = audit.read(folder).set_index("image")
    weights = shared / f"{model}.safetensors" if model.startswith("squeezenet") else None
    try:
        own = load(model, layer, weights=weights)
    except InputError as error:
        pytest.skip(str(error))
    data, scored = shared / "imagenet-1000", committed["pre/eq. 13/score"].notna()
    every = list_photographs(data, own.classes)
    images = committed.index[scored]
    some = [each for each in every if each.image in set(images[:: len(images) // 2])]
    experiment = audit.experiment(experiment_of(own))
    evaluate(own, some, data, tmp_path, experiment, Execution(8, 0, "cpu"), measuring=audit.measure)
    beside = [each for each in every if each.image in set(committed.index[~scored & (committed["score"] > 0.5)][::200])]
    found = [audit.read(tmp_path), *([audits.compared(own, beside, data, experiment)] if beside else [])]
    assert len(found[0]) >= 2
    for rows in (each.set_index("image") for each in found):
        assert (rows["sha256"] == committed.loc[rows.index, "sha256"]).all()
        stable = [name for name in audit.COLUMNS if "eq. 13" not in name and name.split("/")[-1] in ("mean", "score")]
        apart = (rows[stable] - committed.loc[rows.index, stable]).abs()
        assert np.nanquantile(apart.to_numpy(), 0.99) < 2e-3
        assert (rows[stable].isna() == committed.loc[rows.index, stable].isna()).all().all()


@pytest.mark.parametrize("name", COMMITTED)
def test_an_audit_says_where_it_comes_from(name: str) -> None:
    folder = ROOT / "evidence" / f"audit-{name}"
    manifest = read_manifest(folder)
    assert manifest["experiment"]["audit"] == audit.experiment({})["audit"]
    assert manifest["made"].keys() == {"title", "commit", "command", "photographs", "weights"}
    assert "/" not in manifest["data"]["folder"]
    assert manifest["scored"]
    table = audits.readme(folder, name)
    assert (folder / "README.md").read_text("utf-8") == table
    rows = audit.read(folder)
    assert len(rows) == manifest["images"] == 1000
    assert rows["pre//zero"].notna().sum() == manifest["over_threshold"] > 400
    assert (rows["pre//zero"].notna() == (rows["score"] > 0.5)).mean() > 0.99  # a score of three digits may be 0.5


def test_a_compact_audit_reads_the_same_to_three_digits(rows: pd.DataFrame, tmp_path: Path) -> None:
    audits.compact(rows.attrs["folder"] / "run", tmp_path / "out", {"made": {}})
    small = audit.read(tmp_path / "out")
    assert read_manifest(tmp_path / "out")["made"] == {}
    for name in small.columns:
        if small[name].dtype == np.float32:
            np.testing.assert_allclose(small[name], rows[name], rtol=1.001 * 2.0 ** -(audits.BITS + 1))
        else:
            assert (small[name] == rows[name]).all()
    assert set(audit.COLUMNS) < set(pq.read_schema(tmp_path / "out" / "records.parquet" / "00000.parquet").names)
    pd.testing.assert_frame_equal(
        said.table(audit.long(small)), said.table(audit.long(rows)), check_exact=False, rtol=4e-3, atol=4e-3
    )


def test_maps_can_be_compared_without_scores(rows: pd.DataFrame, tmp_path: Path) -> None:
    """The rows of photographs beside a sample say the same of their maps, and stand in one file with it."""
    own, data = network(), rows.attrs["folder"] / "data"
    found = audits.compared(own, list_photographs(data, numbered(3)), data, experiment_of(own, 0.3))
    scores = [name for name in audit.COLUMNS if name.endswith("/score")]
    assert found[scores].isna().all().all()
    same = ["image", "label", "sha256", "score", *(set(audit.COLUMNS) - set(scores)), *audit.OF_UNITS]
    pd.testing.assert_frame_equal(found[same], rows[same], check_dtype=False, rtol=1e-4, atol=1e-5)
    apart = found.assign(image="beside " + found["image"])
    audits.compact(data.parent / "run", tmp_path / "out", {}, apart)
    table, alone = (said.table(audit.long(each)) for each in (audit.read(tmp_path / "out"), rows))
    assert (table["n"] == 2 * alone["n"]).all()
    assert (table["scored"] == alone["scored"]).all()
    np.testing.assert_allclose(table["ratio"], alone["ratio"], rtol=4e-3)
    assert read_manifest(tmp_path / "out")["over_threshold"] == 2 * int((rows["score"] > 0.3).sum())


def test_maps_of_nothing_are_no_evidence(rows: pd.DataFrame) -> None:
    """Without a gradient all formulas give the same empty map, which says nothing about formulas."""
    blank = rows.copy()
    own = [name for name in audit.COLUMNS if name.startswith("post/")]
    blank[own] = np.nan
    found = said.table(audit.long(blank))
    assert found.loc[found["scores"] == "post", "n"].eq(0).all()
    told = said.sentences(found)["grad-cam (pytorch-grad-cam) 1.5"]
    assert "by undefined after it (nothing to compare)" in told
    blank[[name for name in audit.COLUMNS if name.startswith("pre/")]] = np.nan
    with pytest.raises(InputError, match="0 of them have a map of eq. 13 that is not constant"):
        said.table(audit.long(blank))


def test_an_audit_of_a_network_without_gradients_is_refused(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "tests.test_evaluate:Constant", "--resize", "20", "--crop", "16", "--threshold", "0"]
    assert main(["audit", "--data", str(folder(2)), "--out", str(tmp_path / "out"), *given]) == 2
    assert "have a map of eq. 13 that is not constant" in capsys.readouterr().err
