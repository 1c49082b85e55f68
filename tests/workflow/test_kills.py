"""Kill -9 of a whole run at random moments: rerun as documented, it ends as if undisturbed.

By default a small place and 4 kills. ``UNVEIL_KILLS=50`` says how many, ``UNVEIL_KILL_RUN=demo``
takes the demo instead.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import rasterio
from PIL import Image
from tests.small_run import ROOT, ROWS, command, environment, write_config, write_place

KILLS = int(os.environ.get("UNVEIL_KILLS", "4"))
DEMO = os.environ.get("UNVEIL_KILL_RUN", "small") == "demo"
KILLS_A_RUN = min(KILLS, 10 if DEMO else 4)
SEED = 20260
LOG = logging.getLogger(__name__)


def prepare(folder: Path) -> Path:
    """Lay out a run that has not begun."""
    folder.mkdir()
    if DEMO:
        for name in ("config", "resources"):
            (folder / name).symlink_to(ROOT / name)
        return folder
    write_place(folder / "place")
    write_config(folder, [ROWS[0], ROWS[3]], run_models=["cloudy", "regressed"])
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start Snakemake as the leader of a process group, which holds all its jobs, too."""
    words = command(*arguments, configfile=None if DEMO else "mine.yaml")
    with open(folder / "run.log", "a") as log:
        return subprocess.Popen(
            [*words, "--resources", "gpu=1"],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(folder: Path, *arguments: str) -> None:
    """Run Snakemake to its end."""
    assert start(folder, *arguments).wait() == 0, (folder / "run.log").read_text()[-4000:]


def kill(folder: Path, moment: float, *arguments: str) -> bool:
    """Start a run and kill its process group; False when it had ended before."""
    run = start(folder, *arguments)
    try:
        run.wait(timeout=moment)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        deadline = time.monotonic() + 30  # a process with much memory takes a moment to die
        while survivors(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not survivors(folder)
        return True


def survivors(folder: Path) -> list[str]:
    """List processes that still work in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.resolve(strict=True) == folder.resolve():
                found.append(link.parent.name)
        except OSError:
            continue
    return found


def contents(folder: Path) -> dict[str, object]:
    """Return what every raster and table of the results holds, by path.

    Reading is the check that a file under its final name is whole.
    """
    found: dict[str, object] = {}
    for path in sorted((folder / "results").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") or "/." in name or name.startswith("results/benchmarks"):
            continue
        if path.suffix == ".tif":
            with rasterio.open(path) as dataset:
                pixels = hashlib.sha256(dataset.read().tobytes()).hexdigest()
                grid = (str(dataset.crs), tuple(dataset.transform), dataset.shape)
                found[name] = (grid, dataset.dtypes, dataset.descriptions, pixels)
        elif path.suffix == ".csv":
            with open(path, newline="") as stream:
                found[name] = list(csv.reader(stream))
        elif path.suffix in (".json", ".geojson"):
            json.loads(path.read_text())
        elif path.suffix in (".png", ".jpg", ".webp"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix in (".html", ".svg"):
            end = "</svg>" if path.suffix == ".svg" else "</html>"
            assert path.read_text().rstrip().endswith(end), path
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what an undisturbed run gives, and the seconds that it takes."""
    folder = prepare(tmp_path_factory.mktemp("undisturbed") / "run")
    begin = time.monotonic()
    finish(folder)
    seconds = time.monotonic() - begin
    found = contents(folder)
    assert any("/predictions/" in name for name in found)
    assert found["results/metrics.csv"][1:]
    return found, seconds


@pytest.mark.parametrize("trial", range(-(-KILLS // KILLS_A_RUN)))
def test_a_killed_run_ends_as_if_undisturbed_once_unlocked_and_run_again(
    undisturbed, tmp_path, trial
):
    expected, seconds = undisturbed
    folder = prepare(tmp_path / "run")
    moments = random.Random(SEED + trial)
    again: list[str] = []
    for number in range(KILLS_A_RUN):
        while not kill(folder, moment := moments.uniform(0, seconds / 2), *again):
            assert contents(folder) == expected, "a run ended between two kills"
            folder, again = prepare(tmp_path / f"run-{number}"), []
        whole = contents(folder)
        wrong = [name for name in whole if whole[name] != expected[name]]
        assert not wrong, f"after {moment:.1f} of {seconds:.1f} s, files that are not whole"
        LOG.info("killed at %.2f of %.1f s, %d files", moment, seconds, len(whole))
        finish(folder, "--unlock")
        again = ["--rerun-incomplete"]
    finish(folder, *again)
    assert contents(folder) == expected
    assert not list((folder / "results").rglob("predictions/**/.*")), "leftovers of killed jobs"
