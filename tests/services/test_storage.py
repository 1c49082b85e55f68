"""Tables, records and the report on an S3 store, and the profiles that need one.

Needs the extra ``cluster`` and the group ``storage`` (an S3 server on loopback):
``UV_PROJECT_ENVIRONMENT=.cache/cluster uv sync --extra cluster --group storage``.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.small_run import ROWS, write_config, write_place

from unveil import raster
from unveil.scene import load_scene

server = pytest.importorskip("moto.server", reason="the group storage is not installed")
boto3 = pytest.importorskip("boto3", reason="the extra cluster is not installed")
pytest.importorskip("snakemake_storage_plugin_s3", reason="the extra cluster is not installed")

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "unveil"
KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "key", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "secret"}
MODELS = ["damped"]


@pytest.fixture(scope="module")
def store():
    """Return the address of an S3 server with one bucket, and a client of it."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    yield address, client
    running.stop()


def snakemake(folder: Path, *words: str) -> str:
    """Run Snakemake and return what it said."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    environment = {**os.environ, **KEYS, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(
        [*command, "--nocolor", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def in_store(address: str, prefix: str) -> list[str]:
    """Return the options that put results in the store."""
    words = ["--default-storage-provider", "s3", "--storage-s3-endpoint-url", address]
    return [*words, "--default-storage-prefix", f"s3://{BUCKET}/{prefix}"]


def small_run(folder: Path) -> Path:
    """Lay out a working directory with one scene."""
    write_place(folder / "place")
    write_config(folder, ROWS[:1], run_models=MODELS)
    return folder


@pytest.mark.parametrize("profile", ["kubernetes", "google-batch"])
def test_a_profile_without_a_shared_file_system_passes_a_dry_run(store, tmp_path, profile):
    address, _ = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--profile", str(ROOT / "profiles" / profile)]
    said = snakemake(folder, *words, *in_store(address, "dry"), "--dry-run", "--quiet", "rules")
    jobs = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
    assert int(jobs["infer_on_cpu"]) == len(MODELS)
    assert int(jobs["total"]) > 8


def test_tables_in_a_store_are_those_of_the_images(store, tmp_path):
    address, client = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--cores", "2", *in_store(address, "run")]
    words += ["--keep-storage-local-copies", "--quiet", "rules", "--", "results/metrics.csv"]
    snakemake(folder, *words)
    body = client.get_object(Bucket=BUCKET, Key="run/results/metrics.csv")["Body"].read()
    table = pd.read_csv(io.BytesIO(body)).set_index(["scene", "model", "region", "band", "metric"])
    scene = load_scene(folder / "results/scenes/half/scene.json")
    truth = raster.read(scene.with_role("reference")[0].path) / 10_000
    hidden = np.isin(raster.read(scene.with_role("occlusion")[0].path)[0], (1, 2))
    answer = raster.read(folder / "results/predictions/damped/half.tif") / 10_000
    error = np.abs(answer - truth)[:, hidden].mean()
    stored = table.loc[("half", "damped", "occluded", "all", "MAE"), "value"]
    assert stored == pytest.approx(error, rel=1e-6)
    assert "Nothing to be done" in snakemake(folder, *words[:-4], *words[-2:])
