"""The whole workflow on a small place: results, reruns, skips, errors."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tests.small_run import BANDS, ROOT, ROWS, snakemake, write_config, write_place

from unveil import raster
from unveil.scene import load_scene


def metrics(folder):
    return pd.read_csv(folder / "results/metrics.csv", dtype={"scene": str})


def value(table, **where):
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table) == 1, table
    return table.iloc[0]


def test_every_promised_file_is_there(finished):
    for name in ("metrics.csv", "skipped.csv", "manifest.json", "report/index.html"):
        assert (finished / "results" / name).stat().st_size > 0, name


def test_metrics_are_a_long_table_with_the_promised_columns(finished):
    with open(finished / "results/metrics.csv") as stream:
        assert next(csv.reader(stream)) == [
            "scene",
            "model",
            "protocol",
            "cloud_cover",
            "region",
            "band",
            "metric",
            "value",
            "unit",
            "n_pixels",
        ]
    table = metrics(finished)
    assert {"all", "occluded", "clear"} <= set(table.region)
    assert {"MAE", "RMSE", "PSNR", "SSIM", "SAM"} <= set(table.metric)
    assert {*BANDS, "all"} <= set(table.band)
    assert table.cloud_cover.between(0, 1).all()


def test_the_mae_of_the_table_is_that_of_the_files(finished):
    scene = load_scene(finished / "results/scenes/half/scene.json")
    truth = raster.read(scene.with_role("reference")[0].path) / 10_000
    hidden = np.isin(raster.read(scene.with_role("occlusion")[0].path)[0], (1, 2))
    answer = raster.read(finished / "results/predictions/regressed/half.tif") / 10_000
    row = value(
        metrics(finished),
        scene="half",
        model="regressed",
        region="occluded",
        band="all",
        metric="MAE",
    )
    assert row.value == pytest.approx(np.abs(answer - truth)[:, hidden].mean(), rel=1e-6)
    assert row.n_pixels == hidden.sum()
    assert row.cloud_cover == pytest.approx(hidden.mean(), abs=1e-6)


def test_regression_beats_doing_nothing_under_cloud(finished):
    where = {"scene": "half", "region": "occluded", "band": "all", "metric": "MAE"}
    table = metrics(finished)
    assert value(table, model="regressed", **where).value < 0.02
    assert value(table, model="cloudy", **where).value > 0.3


def test_a_region_without_pixels_has_no_value_and_n_zero(finished):
    where = {"model": "damped", "band": "all", "metric": "MAE"}
    table = metrics(finished)
    for scene, region in (("covered", "clear"), ("untouched", "occluded")):
        row = value(table, scene=scene, region=region, **where)
        assert np.isnan(row.value)
        assert row.n_pixels == 0


def test_an_all_cloud_target_falls_back_from_regressed_to_damped(finished):
    folder = finished / "results/predictions"
    np.testing.assert_array_equal(
        raster.read(folder / "regressed/covered.tif"), raster.read(folder / "damped/covered.tif")
    )


def test_skipped_pairs_are_listed_with_their_reason(finished):
    skipped = pd.read_csv(finished / "results/skipped.csv").set_index(["model", "scene"]).reason
    assert "weights not fetched" in skipped["dsen2cr", "half"]
    assert "context" in skipped["damped", "alone"]
    assert "no reference" in skipped["cloudy", "no-truth"]
    predicted = finished / "results/predictions/regressed/no-truth.tif"
    assert predicted.exists(), "a scene without truth still gets its image"


def test_every_pair_has_a_result_or_a_reason(finished):
    skipped = pd.read_csv(finished / "results/skipped.csv")
    have = set(zip(metrics(finished).model, metrics(finished).scene, strict=True))
    have |= set(zip(skipped.model, skipped.scene, strict=True))
    scenes = {row.split("\t")[0] for row in ROWS}
    models = {"cloudy", "damped", "regressed", "dsen2cr"}
    assert have == {(model, scene) for model in models for scene in scenes}


def test_predictions_lie_on_the_targets_grid_with_band_names(finished):
    scene = load_scene(finished / "results/scenes/half/scene.json")
    with raster.open_raster(finished / "results/predictions/damped/half.tif") as dataset:
        assert raster.grid_of(dataset) == scene.grid
        assert dataset.descriptions == BANDS
        assert dataset.dtypes[0] == "uint16"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_the_manifest_says_what_ran(finished):
    manifest = json.loads((finished / "results/manifest.json").read_text())
    assert manifest["config"]["seed"] == 20260
    assert manifest["models"]["dsen2cr"]["origin"] == "published"
    assert manifest["versions"]["numpy"] == np.__version__
    assert set(manifest["scenes"]) == {row.split("\t")[0] for row in ROWS}
    assert manifest["costs"]["regressed"]["pixels"] == 4 * 64 * 80


def test_a_second_run_does_nothing_and_says_so(finished):
    again = snakemake(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_changed_cloud_level_reruns_only_what_depends_on_it(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    write_config(folder, [row.replace("\t0.3\t", "\t0.6\t") for row in ROWS])
    assert snakemake(folder, "--until", "coregister_scene").returncode == 0
    for rule in ("assemble_scene", "mask_scene", "coregister_scene"):
        log = (folder / f"results/logs/{rule}/shard-0000.log").read_text()
        assert "half (1 of 5): finished earlier" in log
        assert "alone (5 of 5): starting" in log


def test_a_damaged_prediction_is_found_before_it_is_scored(finished):
    path = finished / "results/predictions/damped/half.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    try:
        result = snakemake(finished, "--forcerun", "score", "--until", "score")
    finally:
        path.write_bytes(whole)
        snakemake(finished)
    assert result.returncode != 0
    assert "is missing or not as the model wrote it" in result.stderr


@pytest.mark.parametrize(
    ("rows", "config", "words"),
    [
        (["a/b\tlocal\tplace\t2020-06-11\tnone\t\t\t"], {}, ["scenes.tsv", "a/b"]),
        (["a\tlocal\tplace\t2020-06-11\tnone\t\t\t"] * 2, {}, ["scenes.tsv", "'a'", "twice"]),
        ([], {}, ["scenes.tsv", "no scenes"]),
        (["a\tlocal\tmissing\t2020-06-11\tnone\t\t\t"], {}, ["missing", "folder not found"]),
        (ROWS, {"run_modles": ["cloudy"]}, ["run_modles", "run_models"]),
        (ROWS, {"run_models": ["cloudi"]}, ["cloudi", "'cloudy'"]),
    ],
)
def test_bad_tables_end_in_one_clear_line_before_anything_runs(tmp_path, rows, config, words):
    write_place(tmp_path / "place")
    write_config(tmp_path, rows, **config)
    result = snakemake(tmp_path, "--dry-run")
    text = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Traceback" not in text
    for word in (*words, "Remedy"):
        assert word in text, text
    assert not (tmp_path / "results").exists()


def test_bad_imagery_ends_in_one_clear_line_and_loses_nothing_else(tmp_path):
    write_place(tmp_path / "place")
    damaged = tmp_path / "place/frames/2020-06-11.tif"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:700])
    rows = [
        "bad\tlocal\tplace\t2020-06-11\tsimulate\t\t0.3\t0",
        "good\tlocal\tplace2\t2020-06-11\tsimulate\t\t0.3\t0",
    ]
    write_place(tmp_path / "place2")
    write_config(tmp_path, rows)
    result = snakemake(tmp_path, "--until", "assemble_scene")
    assert result.returncode != 0
    path = tmp_path / "results/logs/assemble_scene/shard-0000.log"
    log = path.read_text()
    assert "2020-06-11.tif" in log
    assert "Remedy" in log
    assert "Traceback" not in log
    damaged.write_bytes(whole)
    assert snakemake(tmp_path, "--until", "assemble_scene").returncode == 0
    assert "good (2 of 2): finished earlier" in path.read_text()


def test_a_dry_run_needs_neither_tensorflow_nor_the_network(tmp_path):
    write_place(tmp_path / "place")
    write_config(tmp_path, ROWS)
    program = f"""
import socket, sys
def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"connected to {{address}}")
socket.socket.connect = refuse
from snakemake.cli import main
try:
    main(["--snakefile", {str(ROOT / "Snakefile")!r}, "--configfile", "mine.yaml", "-n", "-q"])
except SystemExit as end:
    assert not end.code, end.code
assert "tensorflow" not in sys.modules
assert "keras" not in sys.modules
print("dry run done")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert "dry run done" in result.stdout, result.stderr[-2000:]
