"""Faults of the machine while the workflow runs: disk, clock, two runs, damaged files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from tests.small_run import ROWS, command, environment, snakemake, write_config, write_place
from tests.unit.test_guarded import exchanged_weights

from unveil import raster
from unveil.raster import Grid

MOUNTS = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("mount")
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="needs root and unshare to mount file systems")
SCENE = [ROWS[1]]
TOUCH = "find results -newermt now -exec touch {} +"


def in_own_mounts(script: str, folder) -> subprocess.CompletedProcess:
    """Run a shell script that may mount; only it and its children see the mounts."""
    return subprocess.run(
        ["unshare", "--mount", "bash", "-uc", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


def words(*arguments: str) -> str:
    """Return the command line of a run as text for a shell."""
    return " ".join(f"'{word}'" for word in command(*arguments))


# ------------------------------------------------------------------ disk


@needs_mounts
def test_a_raster_is_whole_or_absent_however_full_the_disk_is(tmp_path):
    """Write on disks of growing size; GDAL says nothing when the last block does not fit."""
    program = f"""
import subprocess, sys
from pathlib import Path
import numpy as np
from unveil import raster
from unveil.raster import Grid
grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 560, 540)
data = np.random.default_rng(0).integers(1, 9000, (1, 560, 540)).astype("uint16")
disk, seen = Path({str(tmp_path)!r}) / "disk", []
disk.mkdir()
for kib in range(600, 1640, 16):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={{kib}}k", "none", disk], check=True)
    try:
        raster.write_cog(disk / "x.tif", data, grid, descriptions=["B02"], nodata=0)
        assert (raster.read(disk / "x.tif") == data).all(), f"cut short on {{kib}} KiB"
        seen.append("whole")
    except OSError as error:
        assert error.strerror == "No space left on device", error
        assert not list(disk.iterdir()), list(disk.iterdir())
        seen.append("refused")
    subprocess.run(["umount", disk], check=True)
assert set(seen) == {{"whole", "refused"}}, seen
print("done", seen.count("whole"), seen.count("refused"))
"""
    (tmp_path / "fill.py").write_text(program)
    done = in_own_mounts(f"'{sys.executable}' fill.py", tmp_path)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]


@needs_mounts
def test_a_full_disk_is_named_and_a_rerun_with_more_space_ends_well(tmp_path):
    write_place(tmp_path / "place")
    write_config(tmp_path, SCENE)
    run = words("--until", "assemble_scene")
    again = words("--until", "assemble_scene", "--rerun-incomplete")
    script = f"""
mkdir results; mount -t tmpfs -o size=300k none results
{run} > first.log 2>&1; echo "first $?"
find results -name '*.json' | grep -c . ; cp -r results full
mount -o remount,size=100m results
{again} > second.log 2>&1; echo "second $?"
test -s results/scenes/covered/download.json && echo whole
"""
    done = in_own_mounts(script, tmp_path)
    assert done.stdout.split() == ["first", "1", "0", "second", "0", "whole"], done.stdout
    said = (tmp_path / "first.log").read_text()
    assert "No space left on device. Remedy: free space" in said, said[-3000:]
    assert "Traceback" not in said


@needs_mounts
def test_read_only_results_are_named(tmp_path):
    write_place(tmp_path / "place")
    write_config(tmp_path, SCENE)
    script = f"""
mkdir results; mount --bind results results; mount -o remount,bind,ro results
{words()}; echo "ended $?"
"""
    done = in_own_mounts(script, tmp_path)
    said = done.stdout + done.stderr
    assert "ended 1" in said
    assert "Read-only file system: 'results" in said, said[-3000:]
    assert "Traceback" not in said


# ------------------------------------------------------------------ clock, two runs


def test_files_from_the_future_are_refused_and_a_touch_heals(tmp_path):
    """The clock went back after the first rule: what it wrote is from tomorrow."""
    write_place(tmp_path / "place")
    write_config(tmp_path, SCENE)
    masks = tmp_path / "results/scenes/covered/masks"
    assert snakemake(tmp_path, "--until", "mask_scene").returncode == 0
    expected = {path.name: raster.read(path) for path in masks.glob("*.tif")}
    shutil.rmtree(masks)
    (tmp_path / "results/shards/shard-0000/masks.json").unlink()
    tomorrow = time.time() + 86_400
    for path in (tmp_path / "results").rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    refused = snakemake(tmp_path, "--until", "mask_scene")
    assert refused.returncode != 0
    assert "clock skew" in refused.stderr and "Traceback" not in refused.stderr
    subprocess.run(TOUCH, shell=True, check=True, cwd=tmp_path)
    done = snakemake(tmp_path, "--until", "mask_scene", "--rerun-incomplete")
    assert done.returncode == 0, done.stderr[-3000:]
    for path in masks.glob("*.tif"):
        np.testing.assert_array_equal(raster.read(path), expected.pop(path.name))
    assert not expected


def test_the_remedy_for_a_clock_that_went_back_is_documented(root):
    assert TOUCH in (root / "docs/faults.md").read_text()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    write_place(tmp_path / "place")
    write_config(tmp_path, SCENE)
    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(
            command("--until", "assemble_scene"),
            cwd=tmp_path,
            env=environment(),
            stdout=log,
            stderr=log,
        )
        while not list(tmp_path.glob(".snakemake/locks/*")):
            assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
            time.sleep(0.05)
        os.kill(first.pid, 19)  # SIGSTOP: it holds the folder for as long as it takes
        second = snakemake(tmp_path)
        os.kill(first.pid, 18)
        assert first.wait() == 0
    assert second.returncode != 0
    assert "locked" in second.stderr and "--unlock" in second.stderr
    assert "Traceback" not in second.stderr
    assert (tmp_path / "results/scenes/covered/download.json").exists()


def test_a_second_run_into_the_same_results_is_refused(tmp_path):
    """Snakemake's lock is the folder's; two folders may name the same results."""
    results = tmp_path / "results"
    for name in ("one", "two"):
        write_place(tmp_path / name / "place")
        write_config(tmp_path / name, SCENE, results=str(results))
    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(
            command("--until", "assemble_scene"),
            cwd=tmp_path / "one",
            env=environment(),
            stdout=log,
            stderr=log,
        )
        while not (results / ".lock").exists() or not (results / ".lock").read_text():
            assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
            time.sleep(0.02)
        os.kill(first.pid, 19)  # SIGSTOP: it holds the results for as long as it takes
        second = snakemake(tmp_path / "two", "--until", "assemble_scene")
        os.kill(first.pid, 18)
        assert first.wait() == 0
    assert second.returncode != 0
    assert f"process {first.pid} on" in second.stderr and "Traceback" not in second.stderr
    assert str(tmp_path / "one") in second.stderr and "another folder" in second.stderr
    third = snakemake(tmp_path / "two", "--until", "assemble_scene")
    assert third.returncode == 0, third.stderr[-3000:]


# ------------------------------------------------------------------ hostile names, damaged files


def test_names_with_shell_metacharacters_are_only_names(tmp_path):
    """Everything that may be a free name is one that a careless shell would run."""
    evil = "a b;touch pwned $(touch pwned) `touch pwned` 'q' & | >pwned"
    folder = tmp_path / evil
    write_place(folder / evil)
    row = ROWS[1].replace("\tplace\t", f"\t{evil}\t").replace("\t6", "\t2")
    config = {"results": f"out {evil}", "cache": f"cache {evil}", "report": {"title": evil}}
    write_config(folder, [row], run_models=["cloudy"], **config)
    models = {"cloudy": {"kind": "cloudy", "title": f"{evil} <script>alert(1)</script>"}}
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (folder / f"out {evil}" / "report" / "index.html").read_text()
    assert "touch pwned" in page and "<script>alert" not in page
    assert not list(tmp_path.rglob("pwned"))


def test_exchanged_weights_stop_the_job_with_one_line(root, tmp_path):
    write_place(tmp_path / "place")
    path = exchanged_weights(root, tmp_path)
    write_config(tmp_path, SCENE, run_models=["chronos"])
    models = {"chronos": {"kind": "chronos", "weights": path.name}}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(models))
    done = snakemake(tmp_path, "--until", "infer")
    assert done.returncode != 0
    log = (tmp_path / "results/logs/infer/_networks/shard-0000.log").read_text()
    assert "damaged or exchanged" in log and "Remedy" in log
    assert "Traceback" not in log
    assert not list((tmp_path / "results").rglob("predictions/**/*.tif"))


def test_links_in_the_way_of_results_are_replaced_not_followed(tmp_path):
    target = tmp_path / "precious.tif"
    target.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.tif").symlink_to(target)
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 8, 8)
    data = np.ones((1, 8, 8), np.uint16)
    raster.write_cog(tmp_path / "out" / "a.tif", data, grid, descriptions=["B02"], nodata=0)
    assert target.read_text() == "precious"
    assert not (tmp_path / "out" / "a.tif").is_symlink()
