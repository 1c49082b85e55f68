"""GPU jobs: never two at once with one GPU, beside CPU stages; asked for only by networks."""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise

import pytest
import yaml
from tests.small_run import ROWS, snakemake, write_config, write_place

from unveil.bands import CORE6
from unveil.models.dsen2cr.network import build_network, network_arrays
from unveil.weights.arrays import write_arrays

UNTIL = ("--until", "infer", "infer_on_cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run two small networks on four scenes, one scene per job, with one GPU to give away."""
    folder = tmp_path_factory.mktemp("gpu")
    write_place(folder / "place")
    network = build_network(bands=6, radar=False, features=8, blocks=1)
    write_arrays(folder / "small.npz", network_arrays(network))
    rows = [row for row in ROWS if not row.startswith("no-truth")]
    ids = ["first", "second", "damped"]
    write_config(folder, rows, run_models=ids, inference={"shard_size": 2, "light_network_mb": 0})
    options = {"features": 8, "blocks": 1, "bands": list(CORE6), "radar": False}
    row = {"kind": "dsen2cr", "weights": "small.npz", "options": options}
    models = {"first": row, "second": row, "damped": {"kind": "damped"}}
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    done = snakemake(folder, "--resources", "gpu=1", "--cores", "4", *UNTIL)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def span(log):
    """Return first and last time of a job's log."""
    stamps = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+)", log.read_text(), re.MULTILINE)
    return tuple(dt.datetime.strptime(s, "%Y-%m-%d %H:%M:%S,%f") for s in (stamps[0], stamps[-1]))


def test_network_jobs_never_overlap_where_there_is_one_gpu(run):
    folder = run
    logs = [p for m in ("first", "second") for p in folder.glob(f"results/logs/infer/{m}/*.log")]
    spans = sorted(span(log) for log in logs)
    assert len(spans) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def asked(folder, model):
    texts = [log.read_text() for log in folder.glob(f"results/logs/infer/{model}/*.log")]
    return {int(re.search(r"GPUs asked for: (\d)", text)[1]) for text in texts}


def test_only_networks_ask_for_a_gpu(run):
    folder = run
    assert {model: asked(folder, model) for model in ("first", "second", "_methods")} == {
        "first": {1},
        "second": {1},
        "_methods": {0},
    }


def test_small_networks_share_a_job_and_what_was_predicted_before_is_kept(run):
    folder = run
    settings = yaml.safe_load((folder / "mine.yaml").read_text())
    del settings["inference"]["light_network_mb"]
    (folder / "shared.yaml").write_text(yaml.safe_dump(settings))
    done = snakemake(folder, "--resources", "gpu=1", *UNTIL, configfile="shared.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert asked(folder, "_networks") == {1}
    log = (folder / "results/logs/infer/_networks/shard-0000.log").read_text()
    assert log.count("finished earlier") == 4


def test_the_job_says_what_it_runs_on(run):
    folder = run
    text = (folder / "results/logs/infer/first/shard-0000.log").read_text()
    assert re.search(r"running first on (CPU|GPU)", text)


def test_no_gpu_is_asked_for_when_the_config_says_never(run):
    folder = run
    settings = yaml.safe_load((folder / "mine.yaml").read_text())
    settings["inference"]["gpu"] = "never"
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    done = snakemake(folder, *UNTIL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert asked(folder, "first") == {0}
