"""What a user may ask for: stages, one model, one scene; and where each scene stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from tests.small_run import ROOT, snakemake


@pytest.fixture
def copy(finished, tmp_path):
    """Copy the finished run, so that what is asked for besides stays out of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_rule_that_snakemake_lists_is_described():
    words = [sys.executable, "-m", "snakemake", "--list", "--snakefile", f"{ROOT}/Snakefile"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    rules = dict(re.findall(r"^(\w+)(?: \((.+)\))?$", listed.stdout, re.MULTILINE))
    assert {"all", "scenes", "masks", "coregistration", "inference", "metrics"} <= set(rules)
    assert [rule for rule, text in rules.items() if not text] == []


def test_one_scene_alone_and_one_model_alone_have_the_scores_of_the_whole_run(copy):
    wanted = ["results/only/scene/half.csv", "results/only/model/damped.csv"]
    for target in wanted:
        done = snakemake(copy, target)
        assert done.returncode == 0, done.stderr[-3000:]
    whole = (copy / "results/metrics.csv").read_text().splitlines()
    for target, field, name in zip(wanted, (0, 1), ("half", "damped"), strict=True):
        rows = (copy / target).read_text().splitlines()
        assert set(rows) == {whole[0]} | {w for w in whole if w.split(",")[field] == name}
    log = (copy / "results/logs/mask_scene/scene-half.log").read_text()
    assert "half (1 of 1): finished earlier" in log


@pytest.mark.parametrize(
    ("target", "near"), [("scene/halv", "half"), ("model/dampd", "damped"), ("scene/x", "half")]
)
def test_a_scene_or_model_that_is_not_there_is_refused_in_one_line(finished, target, near):
    done = snakemake(finished, "--dry-run", f"results/only/{target}.csv")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"'{near}'" in text or near in text.split("use one of")[1]
    assert "Traceback" not in text


def test_each_scene_is_listed_with_its_shard_state_skips_and_logs(finished):
    table = pd.read_csv(finished / "results/scenes.csv", keep_default_na=False).set_index("scene")
    assert list(table.columns) == ["shard", "state", "predicted", "scored", "skips", "logs"]
    assert set(table.shard) == {"shard-0000"}
    assert table.state["half"] == "scored"
    assert table.state["no-truth"] == "predicted"
    assert (table.predicted["half"], table.scored["half"]) == (3, 3)
    assert "dsen2cr: weights not fetched" in table.skips["half"]
    assert "damped: " in table.skips["alone"]
    for name in table.logs["half"].split():
        assert (finished / name).is_file(), name


def test_after_a_failure_the_list_says_how_far_each_scene_came(copy):
    for name in ("scenes.csv", "shards/shard-0000/scene.json"):
        (copy / "results" / name).unlink()
    shutil.rmtree(copy / "results/inference")
    shutil.rmtree(copy / "results/metrics")
    (copy / "results/scenes/half/scene.json").unlink()
    shutil.rmtree(copy / "results/scenes/covered")
    (copy / "results/scenes/half/masks.json").write_text("{")
    done = snakemake(copy, "coregistration")
    assert done.returncode != 0
    table = pd.read_csv(copy / "results/scenes.csv").set_index("scene")
    assert table.state["half"] == "masked"
    assert table.state["covered"] == "waiting"
    assert table.state["alone"] == "ready"
