"""Results in an S3 store, and runs on machines that share nothing else.

Needs the extra ``cluster`` and the group ``storage`` (an S3 server on loopback):
``UV_PROJECT_ENVIRONMENT=.cache/cluster uv sync --extra cluster --group storage``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.services import stac_data
from tests.services.slurm.cluster import cluster, why_not
from tests.small_run import ROWS, write_config, write_place
from tests.unit.plain_server import serve
from tests.workflow.test_fetch_weights_rule import CONTENT
from tests.workflow.test_fetch_weights_rule import project as lay_out_weights

from unveil import raster
from unveil.assembly.scene_table import read_scenes
from unveil.config import load_config
from unveil.scene import load_scene
from unveil.sources.stac import search as stac_search
from unveil.sources.stac.lock import lock_path, make_request, stac_settings, write_lock
from unveil.sources.stac.search import search_scene

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


def run_snakemake(
    folder: Path,
    *words: str,
    root: Path = ROOT,
    path: Path | str = "",
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess:
    """Run Snakemake with the workflow of a repository and modules of a path."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    programs = f"{Path(sys.executable).parent}:{environment['PATH']}"
    modules = f"{root / 'scripts'}:{path}"
    return subprocess.run(
        [*command, "--nocolor", *words],
        cwd=folder,
        env={**environment, **KEYS, "PATH": programs, "PYTHONPATH": modules},
        capture_output=True,
        text=True,
        timeout=900,
    )


def snakemake(folder: Path, *words: str, root: Path = ROOT) -> str:
    """Run Snakemake to its end and return what it said."""
    done = run_snakemake(folder, *words, root=root)
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


def jobs_of(said: str) -> dict[str, int]:
    """Return how many jobs of each rule a run announced."""
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}


@pytest.mark.parametrize("profile", ["kubernetes", "google-batch"])
def test_a_profile_without_a_shared_file_system_passes_a_dry_run(store, tmp_path, profile):
    address, _ = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--profile", str(ROOT / "profiles" / profile)]
    said = snakemake(folder, *words, *in_store(address, "dry"), "--dry-run", "--quiet", "rules")
    jobs = jobs_of(said)
    assert jobs["infer_on_cpu"] == len(MODELS)
    assert jobs["total"] > 8


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("volume", ["", "/mnt/volume"])
def test_a_scene_of_a_catalogue_passes_a_dry_run_with_a_store(store, tmp_path, shared, volume):
    """Its lock is where the workflow was started; a cache on a volume needs no store."""
    address, _ = store
    shutil.copytree(ROOT / "config", tmp_path / "config")
    words = ["--configfile", "config/examples/stac.yaml", "--dry-run", "--quiet", "rules"]
    words += ["--config", f"cache={volume}"] if volume else []
    words += ["--cores", "1"] if shared else ["--shared-fs-usage", "none"]
    said = snakemake(tmp_path, *words, *in_store(address, "stac"))
    jobs = jobs_of(said)
    fetched = 0 if volume else 1
    assert (jobs["search_scene"], jobs.get("fetch_scene", 0)) == (1, fetched)
    # the shard's input; the lock for the job that fetches
    assert jobs.get("send", 0) == (0 if shared else 1 + fetched)


UNAWARE = """
from snakemake_executor_plugin_cluster_generic import Executor, ExecutorSettings
from snakemake_executor_plugin_cluster_generic import common_settings as generic
from dataclasses import replace

common_settings = replace(generic, implies_no_shared_fs=True)
"""


def test_an_executor_that_shares_nothing_is_refused_when_that_was_not_said(store, tmp_path):
    """Snakemake asks the executor after it has read the rules, as with Kubernetes."""
    address, _ = store
    folder = small_run(tmp_path)
    plugin = folder / "snakemake_executor_plugin_unaware" / "__init__.py"
    plugin.parent.mkdir()
    plugin.write_text(UNAWARE)
    words = ["--configfile", "mine.yaml", "--executor", "unaware", "--jobs", "1"]
    words += ["--unaware-submit-cmd", "false", "--unaware-status-cmd", "false"]
    done = run_snakemake(folder, *words, *in_store(address, "unaware"), path=folder)
    assert done.returncode
    assert "--shared-fs-usage none, or a profile that does" in done.stdout + done.stderr


@pytest.mark.parametrize("usage", [[], ["--shared-fs-usage", "none"]])
def test_results_elsewhere_than_in_the_store_are_refused(store, tmp_path, usage):
    address, _ = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--config", f"results={folder / 'results'}"]
    done = run_snakemake(folder, *words, *usage, "--dry-run", *in_store(address, "absolute"))
    assert done.returncode
    assert re.search("results.*an absolute path", done.stdout + done.stderr)


def test_tables_in_a_store_are_those_of_the_images(store, tmp_path):
    address, client = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--cores", "2", *in_store(address, "run")]
    words += ["--keep-storage-local-copies", "--quiet", "rules", "--", "results/metrics.csv"]
    snakemake(folder, *words)
    table = read_table(client, "run/results/metrics.csv")
    scene = load_scene(folder / "results/scenes/half/scene.json")
    truth = raster.read(scene.with_role("reference")[0].path) / 10_000
    hidden = np.isin(raster.read(scene.with_role("occlusion")[0].path)[0], (1, 2))
    answer = raster.read(folder / "results/predictions/damped/half.tif") / 10_000
    error = np.abs(answer - truth)[:, hidden].mean()
    stored = table.loc[("half", "damped", "occluded", "all", "MAE"), "value"]
    assert stored == pytest.approx(error, rel=1e-6)
    assert "Nothing to be done" in snakemake(folder, *words[:-4], *words[-2:])


def test_imagery_that_a_shared_folder_lost_comes_back_from_the_store(store, tmp_path):
    """Scratch disks are purged: another model then needs the scenes of the store."""
    address, client = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--cores", "2", *in_store(address, "purged")]
    snakemake(folder, *words)
    first = hashlib.sha256((folder / "results/predictions/damped/half.tif").read_bytes())
    shutil.rmtree(folder / "results")
    shutil.rmtree(folder / ".snakemake/storage", ignore_errors=True)
    write_config(folder, ROWS[:1], run_models=["damped", "regressed"])
    words += ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", "sh"]
    words += ["--seconds-between-status-checks", "1", "--jobs", "2"]
    said = snakemake(folder, *words)
    jobs = jobs_of(said)
    assert jobs["infer_on_cpu"] == jobs["render_report"] == 1
    assert not {"assemble_scene", "mask_scene", "coregister_scene"} & jobs.keys()
    archive = read_object(client, "purged/results/inference/_methods/shard-0000.tar")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = {member.name: tar.extractfile(member).read() for member in tar}
    expected = {
        f"results/predictions/{m}/half.{s}"
        for m in ("damped", "regressed")
        for s in ("json", "tif")
    }
    assert names.keys() == expected
    again = hashlib.sha256(names["results/predictions/damped/half.tif"])
    assert again.digest() == first.digest()
    page = read_object(client, "purged/results/report/index.html")
    assert page.count(b"data:image/") >= 4  # cloudy, two methods, truth


@pytest.mark.skipif(
    os.environ.get("UNVEIL_SLURM") != "whole", reason="takes minutes: UNVEIL_SLURM=whole runs it"
)
def test_slurm_with_a_store_leaves_everything_there(store, tmp_path):
    """The command of docs/hpc.md, on a real Slurm of one node."""
    if reason := why_not():
        pytest.skip(reason)
    address, client = store
    folder = small_run(tmp_path)
    words = ["--configfile", "mine.yaml", "--profile", str(ROOT / "profiles/slurm")]
    words += ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    words += [
        "--default-storage-provider",
        "s3",
        "--default-storage-prefix",
        f"s3://{BUCKET}/slurm",
    ]
    with cluster() as slurm:
        endpoint = {"SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address}
        done = run_snakemake(folder, *words, environment=slurm.environment | endpoint)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        jobs = slurm.jobs(folder)
    # The stages of a scene, a batch of methods, its score, and what follows.
    assert [job.state for job in jobs] == ["COMPLETED"] * 4
    assert set(read_table(client, "slurm/results/metrics.csv").reset_index().model) == {"damped"}
    archive = read_object(client, "slurm/results/inference/_methods/shard-0000.tar")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        stored = tar.extractfile("results/predictions/damped/half.tif").read()
    assert stored == (folder / "results/predictions/damped/half.tif").read_bytes()
    page = read_object(client, "slurm/results/report/index.html")
    assert page.count(b"data:image/") >= 3  # cloudy, a method, truth


def test_weights_come_from_the_store_where_their_server_is_away(store, tmp_path):
    address, _ = store
    words = ["--cores", "1", *in_store(address, "weights"), "--", "fetch_weights"]
    served = tmp_path / "served"
    served.mkdir()
    (served / "good.bin").write_bytes(CONTENT)
    with serve(served) as files:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            lay_out_weights(ROOT, tmp_path / name, "good.bin", url=files.url)
        snakemake(tmp_path / "first", *words, root=tmp_path / "first")
        assert files.log
    path = tmp_path / "second/.cache/unveil/weights/good.bin"
    snakemake(tmp_path / "second", *words, root=tmp_path / "second")
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1] + b"x")
    snakemake(tmp_path / "second", *words, root=tmp_path / "second")
    assert path.read_bytes() == CONTENT


SUBMIT = """
# A machine for a job: empty folders and a bare environment; where this user may do that, the
# folder of the run is out of sight, and so is the package that the environment points to.
set -eu
machine=$(mktemp -d "$1/machine.XXXXXX")
run=$2
package=$3
cp "$4" "$machine/script"
mkdir "$machine/home" "$machine/tmp" "$machine/work"
cd "$machine/work"
(
  set +e
  start="env -i PATH=$PATH HOME=$machine/home TMPDIR=$machine/tmp"
  if unshare --mount true; then
    $start unshare --mount sh -c 'set -e
      mount --make-rprivate /
      for hidden; do mount -t tmpfs none "$hidden"; done
      exec sh ../script' sh "$run" "$package"
  else
    $start sh ../script
  fi
  echo $? >"$machine/code"
) >"$machine/log" 2>&1 </dev/null &
echo "$machine"
"""
STATUS = """
code=$(cat "$1/code" 2>/dev/null || echo running)
case $code in running) echo running ;; 0) echo success ;; *) echo failed ;; esac
"""


def lay_out_repository(folder: Path) -> None:
    """Lay out a copy of the workflow under git with a place and weights that git does not track."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("config", "envs", "profiles", "report", "resources", "rules", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / ".gitignore").write_text("/*.yaml\n/*.tsv\n/place/\n/mine/\n.snakemake/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    (folder / "mine").mkdir()
    for suffix in (".npz", ".json"):
        shutil.copy(ROOT / f"resources/weights/chronos-small{suffix}", folder / f"mine/net{suffix}")
    write_config(folder, ROWS[:1], run_models=["damped", "network"])
    table = {
        "damped": {"kind": "damped"},
        "network": {"kind": "chronos", "weights": "mine/net.npz"},
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(table))


def run_apart(folder: Path, machines: Path, *words: str) -> str:
    """Run with the profile of Kubernetes on machines that share nothing; return what was said."""
    machines.mkdir(exist_ok=True)
    for name, text in {"submit": SUBMIT, "status": STATUS}.items():
        (machines / name).write_text(text)
    profile = ["--configfile", "mine.yaml", "--profile", "profiles/kubernetes"]
    profile += ["--executor", "cluster-generic", "--job-deploy-sources"]
    hidden = f"{folder} {ROOT / 'scripts'}"
    submit = f"sh {machines / 'submit'} {machines} {hidden}"
    profile += ["--cluster-generic-submit-cmd", submit]
    profile += ["--cluster-generic-status-cmd", f"sh {machines / 'status'}"]
    profile += ["--seconds-between-status-checks", "1", "--quiet", "rules"]
    return snakemake(folder, *profile, *words, root=folder)


@pytest.fixture(scope="module")
def apart(store, tmp_path_factory):
    """Run on machines that share nothing; return its folder, theirs, and that of a plain run."""
    address, _ = store
    base = tmp_path_factory.mktemp("apart")
    folder, machines = base / "run", base / "machines"
    lay_out_repository(folder)
    write_place(folder / "place")
    plain = base / "plain"
    shutil.copytree(folder, plain)
    words = in_store(address, "apart")
    # Jobs of the store have two threads: with three cores, those here have as many, and a network
    # rounds alike.
    local = ["--configfile", "mine.yaml", "--cores", "3", "--quiet", "rules"]
    local += ["--", "results/metrics.csv"]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run_apart, folder, machines, *words)]
        runs.append(pool.submit(snakemake, plain, *local, root=plain))
    for run in runs:
        run.result()
    assert "Nothing to be done" in run_apart(folder, machines, *words)
    return folder, machines, plain


def read_object(client, key: str) -> bytes:
    """Return an object of the store."""
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def read_table(client, key: str) -> pd.DataFrame:
    """Read a table of metrics in the store."""
    keys = ["scene", "model", "region", "band", "metric"]
    return pd.read_csv(io.BytesIO(read_object(client, key))).set_index(keys).sort_index()


@pytest.mark.xdist_group("apart")
def test_a_run_on_machines_that_share_nothing_gives_the_same_table(store, apart):
    folder, machines, plain = apart
    assert len(list(machines.glob("*/code"))) == 5  # scene, infer, infer_on_cpu, score, summary
    assert not (folder / "results").exists()
    stored = read_table(store[1], "apart/results/metrics.csv")
    known = pd.read_csv(plain / "results/metrics.csv").set_index(stored.index.names)
    assert set(stored.index.get_level_values("model")) == {"damped", "network"}
    pd.testing.assert_frame_equal(stored, known.sort_index())


@pytest.mark.xdist_group("apart")
def test_predictions_and_the_report_of_such_a_run_are_in_the_store(store, apart, tmp_path):
    _, _, plain = apart
    for batch, model in {"_methods": "damped", "_networks": "network"}.items():
        name = f"results/inference/{batch}/shard-0000"
        with tarfile.open(fileobj=io.BytesIO(read_object(store[1], f"apart/{name}.tar"))) as tar:
            tar.extractall(tmp_path, filter="data")
        record = json.loads(read_object(store[1], f"apart/{name}.json"))["models"][model][0]
        path = f"results/predictions/{model}/half.tif"
        found = hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
        assert found == record["made"]["files"]["half.tif"]
        np.testing.assert_array_equal(raster.read(tmp_path / path), raster.read(plain / path))
    manifest = json.loads(read_object(store[1], "apart/results/manifest.json"))
    assert "--profile profiles/kubernetes" in manifest["command"]
    assert manifest["models"]["network"]["weights_sha256"] == raster.sha256(plain / "mine/net.npz")
    page = read_object(store[1], "apart/results/report/index.html").decode()
    assert page.count("data:image/") >= 4  # cloudy, two methods, truth


@pytest.mark.xdist_group("apart")
def test_jobs_of_such_a_run_have_their_logs_in_the_store(store, apart):
    log = read_object(store[1], "apart/results/logs/infer/_networks/shard-0000.log").decode()
    assert "half (1 of 1)" in log


def test_what_a_job_fetched_is_kept_in_the_store_for_the_next(store, tmp_path, monkeypatch):
    """The scene of a catalogue is assembled anew on another machine, which asks no server."""
    address, client = store
    folder, machines, files = tmp_path / "run", tmp_path / "machines", tmp_path / "files"
    lay_out_repository(folder)
    (folder / "scenes.tsv").write_text(
        "scene\tsource\tpath\tarea\ttarget_date\tprotocol\tn_context\n"
        "noisy\tstac\tearth-search-sentinel-2-l2a\t3.02,50.51,3.07,50.535\t2020-06-06\tpaired\t2\n"
    )
    sources = {"stac": {"bands": ["B02", "B03", "B04", "B08"], "locks": "locks"}}
    settings = {"scenes": "scenes.tsv", "models": "models.yaml", "run_models": ["damped"]}
    mine = folder / "mine.yaml"
    mine.write_text(yaml.safe_dump({**settings, "sources": sources}))
    record = "results/shards/shard-0000/download.json"
    words = [*in_store(address, "noisy"), "--", record]
    with serve(files) as server:
        items = stac_data.noisy_series(files, server.url)
        monkeypatch.setattr(stac_search, "_ask", lambda *_: items)
        monkeypatch.chdir(folder)
        (row,) = read_scenes("scenes.tsv")
        stac = stac_settings(load_config(yaml.safe_load(mine.read_text())))
        write_lock(lock_path("noisy", stac), search_scene(make_request(row, stac), stac))
        server.log.clear()
        run_apart(folder, machines, *words)
        asked = sorted((row.path, row.start, row.end) for row in server.log)
        assert len(asked) == len(set(asked)) > 12  # at least one request per band and date
        first = read_object(client, f"noisy/{record}")
        server.log.clear()
        mine.write_text(yaml.safe_dump({**settings, "sources": sources, "seed": 5}))
        said = run_apart(folder, machines, *words)
    assert not server.log
    jobs = jobs_of(said)
    assert jobs["assemble_scene"] == 1 and not {"search_scene", "fetch_scene"} & jobs.keys()
    assert not (folder / "results").exists()
    again = json.loads(read_object(client, f"noisy/{record}"))
    assert json.loads(first)["scenes"]["noisy"] and again["scenes"] == json.loads(first)["scenes"]
