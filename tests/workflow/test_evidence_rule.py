"""`snakemake evidence` end to end on two real places: fetched, scored, written down, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from tests.small_run import ROOT, snakemake

from unveil.places.table import read_places

METHODS = ["cloudy", "median", "regressed", "clear_mean", "chronos-small", "uncrtaints"]
TWO = {"antwerp": ("pair", "veiled-100"), "mol": ("pair", "veiled-100", "clean-100")}
"""Place -> what the ids of some of its scenes end with."""


def write_run(folder: Path, shared: Path) -> None:
    """Write a configuration of a few scenes, and put the files of the places into the cache."""
    lines = (ROOT / "config/evidence_scenes.tsv").read_text().splitlines()
    kept = [
        next(line for line in lines if line.startswith(place) and line.split("\t")[0].endswith(end))
        for place, ends in TWO.items()
        for end in ends
    ]
    (folder / "scenes.tsv").write_text("\n".join([lines[0], *kept]) + "\n")
    config = {
        "scenes": "scenes.tsv",
        "models": str(ROOT / "config/models.yaml"),
        "run_models": METHODS,
        "evidence": "evidence.md",
        "sources": {"selection": {"target_cloud": [0.1, 1.0]}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    cache = folder / ".cache/unveil/packages"
    cache.mkdir(parents=True)
    for place in TWO:
        for file in read_places()[place].facts["files"]:
            name = file["url"].rpartition("/")[2]
            shutil.copy(next((shared / "data/places").rglob(name)), cache)


@pytest.mark.slow
def test_two_places_are_fetched_scored_and_written_down_and_nothing_is_done_twice(tmp_path, shared):
    write_run(tmp_path, shared)
    done = snakemake(tmp_path, "results/evidence.html", "results/evidence.csv")
    assert done.returncode == 0, done.stderr[-4000:]
    text = (tmp_path / "evidence.md").read_text()
    for title in ("Real pairs", "Veiled transplants", "Clean transplants", "Places that judge"):
        assert f"## {title}\n" in text
    for method in METHODS[:-1]:
        assert f"`{method}`" in text
    assert "without their weights, which were not judged: `uncrtaints`." in text
    assert "| `clear_mean` | gave no hidden pixel a value" in text  # nothing is clear at 100 %
    ranking = (tmp_path / "results/ranking.tsv").read_text()
    assert "median\tantwerp\t1\t" in ranking and "mol" not in ranking  # Mol trains
    again = snakemake(tmp_path, "--dry-run", "results/evidence.html")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_run_of_places_starts_before_their_files_are_there(tmp_path):
    (tmp_path / "scenes.tsv").write_text(
        "scene\tsource\tpath\ttarget_date\tprotocol\nx\tplace\tsweden\t2021-06-02\tnone\n"
    )
    (tmp_path / "mine.yaml").write_text("scenes: scenes.tsv\nrun_models: [median]\n")
    planned = snakemake(tmp_path, "--dry-run", "scenes")
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert "make_place" in planned.stdout + planned.stderr
