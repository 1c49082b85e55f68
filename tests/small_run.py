"""A small place, and Snakemake run on it in a working directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml
from scipy.ndimage import gaussian_filter

from unveil import raster
from unveil.raster import Grid

ROOT = Path(__file__).resolve().parents[1]
GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 64, 80)
BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11")
DATES = [f"2020-{month:02d}-11" for month in range(2, 11)]
TRUTH, DONOR, ALL_CLOUD = "2020-06-11", "2020-08-11", "2020-09-11"


def write_place(folder: Path) -> None:
    """Write nine monthly frames of a textured surface; August half, September all cloud."""
    rng = np.random.default_rng(5)
    surface = gaussian_filter(rng.normal(0, 1, (len(BANDS), *GRID.shape)), (0, 3, 3))
    for month, date in enumerate(DATES):
        season = 1 + 0.3 * np.sin(month / 9 * np.pi)
        data = (1500 + 2000 * surface * season + rng.normal(0, 15, surface.shape)).clip(100)
        scl = np.full(GRID.shape, 4, np.uint8)
        if date == DONOR:
            scl[:30] = 9
        if date == ALL_CLOUD:
            scl[:] = 9
        data[:, scl == 9] = 7000 + rng.normal(0, 100, (len(BANDS), int((scl == 9).sum())))
        frame = data.astype(np.uint16)
        raster.write_cog(
            folder / "frames" / f"{date}.tif", frame, GRID, descriptions=BANDS, nodata=0
        )
        raster.write_cog(
            folder / "masks" / f"{date}.tif", scl[None], GRID, descriptions=["SCL"], nodata=None
        )


def write_config(folder: Path, rows: list[str], **config) -> None:
    """Write a config of its own, tables included, into a working directory."""
    header = "scene\tsource\tpath\ttarget_date\tprotocol\tcloud_date\tcloud_level\tn_context"
    (folder / "scenes.tsv").write_text("\n".join([header, *rows]) + "\n")
    models = {
        "cloudy": {"kind": "cloudy"},
        "damped": {"kind": "damped"},
        "regressed": {"kind": "regressed"},
        "dsen2cr": {"kind": "dsen2cr", "weights": "nowhere.hdf5"},
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    settings = {
        "scenes": "scenes.tsv",
        "models": "models.yaml",
        "run_models": list(models),
        # as made: ukis calls all of these smooth made places cloud
        "masks": {"detectors": ["source", "s2cloudless", "thresholds"], "combine": "first"},
        **config,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))


def copy_checkout(folder: Path) -> Path:
    """Copy what a run of the project needs; return the copy's Snakefile."""
    for name in ("rules", "scripts", "config", "envs", "report", "profiles", "resources"):
        ignored = shutil.ignore_patterns("__pycache__", "example")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return Path(shutil.copy(ROOT / "Snakefile", folder))


def command(
    *arguments: str, configfile: str | None = "mine.yaml", snakefile: Path = ROOT / "Snakefile"
) -> list[str]:
    """Return the words that run Snakemake on the project."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    words += ["--configfile", configfile] if configfile else []
    return [*words, "--cores", "2", "--nocolor", *arguments]


def environment() -> dict[str, str]:
    """Return an environment without search paths: jobs find their own checkout's package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def snakemake(
    folder: Path,
    *arguments: str,
    configfile: str = "mine.yaml",
    snakefile: Path = ROOT / "Snakefile",
    variables: Mapping[str, str] | None = None,
    **kwargs,
) -> subprocess.CompletedProcess:
    """Run Snakemake on the project in a working directory of its own."""
    return subprocess.run(
        command(*arguments, configfile=configfile, snakefile=snakefile),
        cwd=folder,
        env=environment() | dict(variables or {}),
        capture_output=True,
        text=True,
        **kwargs,
    )


ROWS = [
    f"half\tlocal\tplace\t{TRUTH}\ttransplant\t{DONOR}\t\t6",
    f"covered\tlocal\tplace\t{TRUTH}\ttransplant\t{ALL_CLOUD}\t\t6",
    "untouched\tlocal\tplace\t2020-05-11\ttransplant\t2020-04-11\t\t6",
    f"no-truth\tlocal\tplace\t{DONOR}\tnone\t\t\t6",
    f"alone\tlocal\tplace\t{TRUTH}\tsimulate\t\t0.3\t0",
]
