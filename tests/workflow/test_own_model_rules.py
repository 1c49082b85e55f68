"""A user's own model: docs/add-a-model.md is followed literally, in one working directory."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from tests.small_run import ROOT, snakemake
from tests.workflow.test_documented_commands import blocks, commands, lay_out, run

from unveil import raster

MINE = "tests/workflow/test_own_model_rules.py"
COMMANDS = [
    c for _, mark, text in blocks("docs/add-a-model.md") if mark == MINE for c in commands(text)
]
TORCH = Path(os.environ.get("UNVEIL_TORCH", ROOT / ".cache/torch"))
"""Where PyTorch was installed (pip install --target), as Unveil's environment is without."""


def of(word):
    found = [command for command in COMMANDS if word in command]
    assert found
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory in which the first example was checked and run."""
    folder = lay_out(tmp_path_factory.mktemp("own"))
    for command in COMMANDS[:2]:
        run(command, folder)
    return folder


def checks(folder, model):
    return json.loads((folder / f"results/check_model/{model}/check.json").read_text())


def test_every_command_of_the_page_is_run_by_a_test_below():
    rest = [c for c in COMMANDS[2:] if not any(w in c for w in ("torch", "make_weights"))]
    assert not rest


def test_a_class_in_a_file_is_checked_compared_and_in_the_report(folder):
    found = checks(folder, "two-nearest")
    assert [c["check"] for c in found["checks"] if not c["passed"]] == []
    assert found["run"]["pixels"] > 100_000 and found["run"]["peak_memory_mib"] > 50
    page = (folder / "results/check_model/two-nearest/index.html").read_text()
    assert "Keeps all" in page and "Two nearest looks (mine)" in page
    table = pd.read_csv(folder / "results/metrics.csv")
    assert {"cloudy", "damped", "two-nearest"} == set(table.model)
    report = (folder / "results/report/index.html").read_text()
    assert "Two nearest looks (mine)" in report and "my_models/two_nearest.py:TwoNearest" in report


def test_what_it_cost_is_kept_beside_the_results(folder):
    kept = json.loads((folder / "results/costs/two-nearest.json").read_text())
    assert kept["cost"]["mb_per_mpx_frame"] > 0


def test_an_edit_makes_its_predictions_alone_anew(folder):
    path = folder / "my_models/two_nearest.py"
    whole = path.read_text()

    def images():
        found = sorted((folder / "results/predictions").glob("*/*.tif"))
        return {p.parent.name: (p.stat().st_mtime_ns, raster.read(p)) for p in found}

    before = images()
    path.write_text(whole.replace("looks: int = 2", "looks: int = 2  # or more"))
    done = snakemake(folder, "inference", configfile="own.yaml")
    path.write_text(whole)
    assert done.returncode == 0, done.stderr[-3000:]
    after = images()
    assert [name for name in after if after[name][0] != before[name][0]] == ["two-nearest"]


def test_what_is_wrong_is_said_before_the_first_job(folder):
    (folder / "my_models/wrong.py").write_text("import torchh\nclass Mine(torchh.Model): pass\n")
    row = "mine: {kind: 'my_models/wrong.py:Mine', conda: my_models/torch.yaml}\n"
    (folder / "wrong.yaml").write_text(row)
    arguments = ["--config", "models=wrong.yaml", "run_models=[mine]"]
    done = snakemake(folder, "-n", *arguments, configfile="own.yaml")
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in text
    assert "my_models/wrong.py:Mine" in text and "add --sdm conda" in text


CONDA = """#!/bin/sh
case "$*" in
  *info*) echo '{"conda_prefix": "/opt", "platform": "linux-64", "conda_version": "25.1.1"}' ;;
  *channel_priority*) echo '{"get": {"channel_priority": "strict"}}' ;;
  *) echo "conda 25.1.1" ;;
esac
"""
"""Answers what Snakemake asks of conda before it makes an environment."""


def test_an_environment_of_its_own_is_that_of_its_job(folder, tmp_path, monkeypatch):
    conda = tmp_path / "conda"
    conda.write_text(CONDA)
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    [command] = of("--sdm conda")
    said = run(command, folder)
    assert "my_models/torch.yaml" in said


@pytest.mark.packages
def test_a_class_and_an_exported_file_of_pytorch_are_compared(folder):
    if not TORCH.is_dir() and importlib.util.find_spec("torch") is None:
        pytest.skip(f"no PyTorch in {TORCH}: pip install --target {TORCH} torch==2.13.0+cpu")
    for command in [*of("make_weights"), *of("torch-file")]:
        run(command, folder, search=f"{ROOT / 'scripts'}{os.pathsep}{TORCH}")
    paths = [folder / f"results/predictions/torch-{kind}" for kind in ("class", "file")]
    first, second = (raster.read(next(path.glob("*.tif"))) for path in paths)
    assert abs(first.astype(int) - second).max() <= 1
    assert (first != raster.read(next((folder / "results/predictions/cloudy").glob("*.tif")))).any()
    [record] = [json.loads(p.read_text()) for p in paths[0].glob("*.json")]
    assert record["backend"] == "torch" and record["made"]["from"]["weights"]
