"""`snakemake train` end to end: a small run, killed on its way and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from tests.small_run import ROWS, snakemake, write_config, write_place
from tests.unit.test_chronos import make_series

from unveil.bands import CORE6
from unveil.models.base import ModelSpec
from unveil.models.registry import create

ROOT = Path(__file__).resolve().parents[2]
RUN = {
    "kind": "chronos",
    "title": "A toy, trained here",
    "series": {"a": 1.0},
    "held_out": ["b"],
    "images": [],
    "network": {"size": "small"},
    "samples": {"pool": 6, "fresh": 1},
    "plan": {
        "steps": 20,
        "batch": 2,
        "crop": 48,
        "validation_crop": 32,
        "optimiser": "adam",
        "learning_rate": 0.002,
        "warmup": 2,
        "precision": "float32",
        "checkpoint_every": 5,
        "patience": 20,
        "seed": 3,
    },
    "limits": ["a toy"],
}


def write_table(folder: Path) -> None:
    """Write two places and the table that trains on one of them."""
    series = {}
    for name, west, seed in (("a", 10.0, 1), ("b", 20.0, 2)):
        place = make_series(name, west=west, seed=seed)
        np.savez(
            folder / f"{name}.npz",
            reflectance=(place.reflectance * 10_000).round().astype(np.uint16),
            classes=place.classes,
            days=place.days,
            bands=np.array(CORE6),
            bbox=np.array(place.bbox),
        )
        file = {"path": str(folder / f"{name}.npz")}
        series[name] = {"layout": "arrays", "files": [file], "licence": "none"}
    table = {"run": ["toy"], "series": series, "images": {}, "runs": {"toy": RUN}}
    (folder / "training.yaml").write_text(yaml.safe_dump(table))


def start(folder: Path, **kwargs) -> subprocess.Popen:
    """Start the target train in a working directory of its own."""
    words = [sys.executable, "-m", "snakemake", "train", "--snakefile", str(ROOT / "Snakefile")]
    words += ["--configfile", "mine.yaml", "--cores", "2", "--resources", "gpu=1", "--nocolor"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    return subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **kwargs)


def test_a_killed_training_goes_on_where_it_was_and_lowers_the_loss(tmp_path):
    write_place(tmp_path / "place")
    write_table(tmp_path)
    write_config(tmp_path, ROWS, training="training.yaml")
    folder = tmp_path / "results" / "training" / "toy"
    with open(tmp_path / "first.log", "w") as log:
        first = start(tmp_path, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(1200):
            if (folder / "checkpoint.npz").exists() or first.poll() is not None:
                break
            time.sleep(0.2)
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not (folder / "toy.npz").exists()

    unlocked = snakemake(tmp_path, "train", "--unlock")
    assert unlocked.returncode == 0, unlocked.stderr[-3000:]
    done = snakemake(tmp_path, "train", "--rerun-incomplete", "--resources", "gpu=1", timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step" in (tmp_path / "results/logs/train_network/toy.log").read_text()
    with open(folder / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(5, 21, 5))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])

    card = json.loads((folder / "toy.json").read_text())
    assert {p["id"]: p["role"] for p in card["places"]} == {
        "a": "trained on",
        "b": "validated on",
    }
    model = create(ModelSpec("toy", "chronos", weights=folder / "toy.npz"))
    model.load()
    assert model.origin == "trained-here" and model.weights_checksum == card["weights"]["sha256"]
