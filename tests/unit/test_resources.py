"""What jobs ask for: enough for what was measured, not wildly more, and quickly known."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from unveil.config import SceneRow
from unveil.sources.base import Size
from unveil.sources.local import tiff_pixels
from unveil.sources.registry import source_of
from unveil.workflow import measured, resources


def read(name):
    with open(Path(__file__).with_name(name)) as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


SMALL = read("measured_resources.tsv")  # benchmarks/resources.py --write
MEASURED = SMALL + read("measured_tile.tsv")  # benchmarks/scale.py tile --write


def asked(row, **kwargs):
    size = Size(int(row["pixels"]), int(row["frames"]))
    kinds = [row["kind"]] if row["stage"] == "infer" else []
    return (
        resources.memory_mb(row["stage"], [size], kinds=kinds, **kwargs),
        resources.minutes(row["stage"], [size], kinds=kinds, **kwargs),
    )


def dearest(row, column):
    """Return the most that a stage or kind was measured to take, whatever the scene."""
    table = SMALL if row in SMALL else MEASURED
    alike = [r for r in table if (r["stage"], r["kind"]) == (row["stage"], row["kind"])]
    return max(float(r[column]) for r in alike)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(list(row.values())[:4]))
def test_a_job_asks_for_enough_and_not_for_far_more(row):
    memory, minutes = asked(row)
    assert float(row["mb"]) + resources.SNAKEMAKE_MB < memory
    assert memory < resources.SNAKEMAKE_MB + 5 * dearest(row, "mb")
    assert float(row["cpu_seconds"]) < minutes * 60
    assert minutes <= 10 + 20 * dearest(row, "cpu_seconds") / 60


def test_every_stage_and_kind_that_was_measured_has_a_cost():
    names = {row["kind"] if row["stage"] == "infer" else row["stage"] for row in MEASURED}
    assert names <= set(resources.COSTS)


def test_every_kind_of_model_has_a_cost():
    from unveil.models.registry import kinds

    assert set(kinds()) <= set(resources.COSTS)


def test_a_kind_that_nobody_measured_asks_as_much_as_the_largest_network():
    size = Size(10**6, 13)
    for ask in (resources.memory_mb, resources.minutes):
        kinds = [[kind] for kind in resources.COSTS if kind in ("chronos", "dsen2cr", "median")]
        most = max(ask("infer", [size], kinds=kind) for kind in kinds)
        assert ask("infer", [size], kinds=["mine"]) == most


def test_the_next_attempt_asks_for_twice_as_much():
    first, second = asked(MEASURED[0]), asked(MEASURED[0], attempt=2)
    assert second == (2 * first[0], 2 * first[1])


def test_scenes_of_a_shard_add_up_in_time_and_not_in_memory():
    size = Size(10**6, 13)
    one = resources.memory_mb("infer", [size], kinds=["median"])
    assert resources.memory_mb("infer", [size] * 50, kinds=["median"]) == one
    assert resources.minutes("infer", [size] * 50, kinds=["median"]) > resources.minutes(
        "infer", [size], kinds=["median"]
    )


def test_scenes_in_work_at_the_same_time_add_up_in_memory():
    small, large = Size(10**5, 13), Size(10**6, 13)

    def memory(sizes, at_once):
        return resources.memory_mb("mask_scene", sizes, at_once=at_once)

    fixed = resources.memory_mb("mask_scene", [Size(0, 13)])
    more = memory([large], 1) - fixed
    assert memory([large, small, large], 2) == pytest.approx(fixed + 2 * more, abs=2)
    assert memory([large, small, large], 1) == memory([large], 4) == memory([large], 1)


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}])
def test_the_size_in_a_header_is_the_one_that_gdal_reads(tmp_path, options):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=321, height=123, count=2, dtype="uint16", **options
    ) as dataset:
        dataset.write(np.zeros((2, 123, 321), np.uint16))
    assert tiff_pixels(str(path)) == 321 * 123


def test_the_size_of_a_scene_is_known_from_its_files(root, tmp_path):
    row = SceneRow("a", "local", str(root / "resources/example/romania"), "2018-01-01", "none")
    assert source_of(row).size(row, {}) == Size(100 * 100, 13)
    (tmp_path / "cloudy").mkdir()
    np.savez(tmp_path / "cloudy/b.npz", np.zeros((13, 40, 30), np.uint16))
    sample = SceneRow("b", "npz", str(tmp_path), "2018-01-01", "none")
    assert source_of(sample).size(sample, {}).pixels == 1200


def test_a_missing_or_damaged_file_stops_no_plan(tmp_path):
    row = SceneRow("a", "local", str(tmp_path), "2018-01-01", "none")
    assert source_of(row).size(row, {}).pixels == 0
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/2018-01-01.tif").write_bytes(b"II*\0")
    assert source_of(row).size(row, {}).pixels == 0


def test_the_size_of_a_scene_costs_the_header_of_one_frame_read_once(root, tmp_path):
    frames = sorted((root / "resources/example/romania/frames").glob("*.tif"))[:3]
    (tmp_path / "frames").mkdir()
    first = tmp_path / "frames" / frames[0].name
    first.write_bytes(frames[0].read_bytes()[:8192])  # no pixel is there to be read
    for frame in frames[1:]:
        (tmp_path / "frames" / frame.name).touch()
    row = SceneRow("a", "local", str(tmp_path), "2018-01-01", "none", n_context=2)
    assert source_of(row).size(row, {}) == Size(100 * 100, 3)
    first.unlink()
    assert source_of(row).size(row, {}) == Size(100 * 100, 3)


class TestOfAnOwnModel:
    """What a user's own model was measured to cost at its first use decides what it asks later."""

    SCENES = (SimpleNamespace(id="s", grid=SimpleNamespace(pixels=10**6), context=range(9)),)

    @staticmethod
    def record(mebibytes, seconds):
        peak = {"peak_memory_mib": mebibytes, "wall_seconds": seconds}
        return {"scene": "s", "status": "predicted", **peak}

    def ask(self, folder, pixels=10**6):
        kind = measured.kept_cost(folder, "mine") or "my_models/mine.py:Mine"
        size = [Size(pixels, 10)]
        return (
            resources.memory_mb("infer", size, kinds=[kind]),
            resources.minutes("infer", size, kinds=[kind]),
        )

    def test_the_first_job_asks_for_the_default_and_the_next_for_what_was_measured(self, tmp_path):
        first = self.ask(tmp_path)
        measured.keep_cost(tmp_path, "mine", [self.record(400, 60)], self.SCENES, "code")
        memory, minutes = self.ask(tmp_path)
        assert (memory < first[0], minutes < first[1]) == (True, True)
        assert memory > 400 and minutes * 60 > 60
        assert self.ask(tmp_path, 2 * 10**6) > (memory, minutes)

    def test_the_dearest_job_counts_until_the_code_is_another(self, tmp_path):
        for mebibytes, code in ((900, "a"), (400, "a")):
            measured.keep_cost(tmp_path, "mine", [self.record(mebibytes, 60)], self.SCENES, code)
        dear = self.ask(tmp_path)
        measured.keep_cost(tmp_path, "mine", [self.record(400, 60)], self.SCENES, "b")
        assert self.ask(tmp_path) < dear

    def test_a_small_scene_tells_what_a_start_costs_and_nothing_of_pixels(self, tmp_path):
        small = (SimpleNamespace(id="s", grid=SimpleNamespace(pixels=900), context=range(9)),)
        measured.keep_cost(tmp_path, "mine", [self.record(3000, 5)], small, "code")
        assert self.ask(tmp_path, 900)[0] > 3000
        default = resources.memory_mb("infer", [Size(10**6, 10)], kinds=["mine"])
        assert self.ask(tmp_path)[0] > default
        measured.keep_cost(tmp_path, "mine", [self.record(400, 60)], self.SCENES, "code")
        assert self.ask(tmp_path)[0] < default

    def test_a_damaged_file_and_a_skipped_scene_tell_nothing(self, tmp_path):
        first = self.ask(tmp_path)
        skipped = [{"scene": "s", "status": "skipped", "reason": "no"}]
        measured.keep_cost(tmp_path, "mine", skipped, self.SCENES, "code")
        (tmp_path / "mine.json").write_text("{")
        assert self.ask(tmp_path) == first
