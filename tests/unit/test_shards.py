"""Shards: how they are cut, and what a job that died leaves to the next one."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from unveil import raster
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.records import content_of, identify
from unveil.scene import Frame, Scene
from unveil.workflow.shards import cut_shards, make_scenes, read_shard, scene_files

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 16, 16)


def make(value, folder):
    """Make a scene of one frame full of a value; 0 stands for bad input."""
    if value == 0:
        raise InputError("nothing there", file="input.tif", remedy="deliver it")
    path = folder / "frames" / "2020-06-01.tif"
    data = np.full((1, *GRID.shape), value, np.uint16)
    raster.write_cog(path, data, GRID, descriptions=["B04"], nodata=0)
    frame = Frame("2020-06-01", "target", path, ("B04",), checksum=raster.sha256(path))
    return Scene(folder.name, "none", "place", GRID, (frame,))


@pytest.fixture
def run(tmp_path):
    """Run a shard of values and return what was made anew."""

    def go(values, file="scene.json", at_once=1, meet=lambda: None):
        made = []

        def count(value, folder):
            made.append(folder.name)
            meet()
            return make(value, folder)

        make_scenes(
            values,
            count,
            made_from=lambda value: identify(value=value),
            home=tmp_path / "scenes",
            file=file,
            folders=("frames",),
            record=tmp_path / "record.json",
            at_once=at_once,
        )
        return made

    return go


def test_small_scenes_share_shards_and_a_large_one_has_its_own():
    sizes = {"a": 10**6, "b": 10**6, "c": 10**6, "large": 50 * 10**6, "d": 10**6}
    shards = cut_shards(sizes, scenes=2, megabytes=10)
    assert list(shards.values()) == [("a", "b"), ("c",), ("large",), ("d",)]
    assert list(shards) == [f"shard-000{n}" for n in range(4)]


def test_no_shard_holds_more_input_than_allowed():
    sizes = {str(n): 3 * 10**6 for n in range(10)}
    shards = cut_shards(sizes, scenes=100, megabytes=10)
    assert [len(ids) for ids in shards.values()] == [3, 3, 3, 1]


def test_a_second_run_makes_nothing_and_gives_the_same_record(run, tmp_path):
    assert run({"a": 1, "b": 2}) == ["a", "b"]
    record = (tmp_path / "record.json").read_bytes()
    assert run({"a": 1, "b": 2}) == []
    assert (tmp_path / "record.json").read_bytes() == record


def test_scenes_made_at_the_same_time_give_the_record_of_scenes_made_in_turn(run, tmp_path):
    values = {name: number for number, name in enumerate("abcd", 1)}
    both = threading.Barrier(2, timeout=20)  # passed by two scenes in work at once
    assert sorted(run(values, at_once=2, meet=both.wait)) == list(values)
    record = (tmp_path / "record.json").read_bytes()
    assert run(dict.fromkeys(values, 7)) == list(values)
    assert run(values) == list(values)
    assert (tmp_path / "record.json").read_bytes() == record


def test_only_what_is_made_from_something_else_is_made_again(run):
    run({"a": 1, "b": 2})
    assert run({"a": 1, "b": 3}) == ["b"]


def test_bad_input_of_one_scene_loses_no_other(run, tmp_path):
    with pytest.raises(InputError, match=r"input\.tif.*deliver it"):
        run({"a": 1, "bad": 0, "b": 2})
    assert not (tmp_path / "record.json").exists()
    assert run({"a": 1, "bad": 3, "b": 2}) == ["bad"]


def test_a_job_that_dies_loses_no_finished_scene(run, monkeypatch, tmp_path):
    written = raster.write_cog

    def die(path, *args, **kwargs):
        if path.parts[-3] == "c":
            raise SystemExit(137)
        written(path, *args, **kwargs)

    monkeypatch.setattr(raster, "write_cog", die)
    with pytest.raises(SystemExit):
        run({"a": 1, "b": 2, "c": 3})
    monkeypatch.undo()
    assert run({"a": 1, "b": 2, "c": 3}) == ["c"]


@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_scene_with_a_harmed_raster_is_not_trusted(run, tmp_path, harm):
    run({"a": 1})
    path = tmp_path / "scenes/a/frames/2020-06-01.tif"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    assert run({"a": 1}) == ["a"]


def test_leftovers_of_an_earlier_attempt_are_removed(run, tmp_path):
    stale = tmp_path / "scenes/a/frames/2019-01-01.tif"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    run({"a": 1})
    assert not stale.exists()


def test_a_scene_that_is_not_the_recorded_one_is_refused(run, tmp_path):
    run({"a": 1})
    home, record = tmp_path / "scenes", tmp_path / "record.json"
    assert [scene.id for scene in read_shard(record, home).values()] == ["a"]
    assert list(scene_files([record], home)) == [home / "a/scene.json"]
    document = json.loads((home / "a/scene.json").read_text())
    document["unveil"]["place"] = "elsewhere"
    (home / "a/scene.json").write_text(json.dumps(document))
    remedy = r"not as it was written.*--forcerun coregister_scene"
    with pytest.raises(InputError, match=remedy):
        read_shard(record, home)
    with pytest.raises(InputError, match=remedy):
        list(scene_files([record], home))
    assert run({"a": 1}) == ["a"], "the remedy makes it again"
    assert list(read_shard(record, home)) == ["a"]


def test_a_whole_scene_of_another_run_is_refused(run, tmp_path):
    run({"a": 1})
    record = (tmp_path / "record.json").read_text()
    run({"a": 2})
    (tmp_path / "record.json").write_text(record)
    with pytest.raises(InputError, match="not the scene that was recorded"):
        read_shard(tmp_path / "record.json", tmp_path / "scenes")


@pytest.mark.parametrize("harm", ["exchanged", "missing"])
def test_a_raster_changed_on_the_disk_is_refused_with_the_rule_that_makes_it(run, tmp_path, harm):
    run({"a": 1}, file="download.json")
    path = tmp_path / "scenes/a/frames/2020-06-01.tif"
    if harm == "missing":
        path.unlink()
    else:
        data = np.full((1, *GRID.shape), 9, np.uint16)
        raster.write_cog(path, data, GRID, descriptions=["B04"], nodata=0)
    with pytest.raises(InputError, match=r"2020-06-01\.tif.*--forcerun assemble_scene"):
        read_shard(tmp_path / "record.json", tmp_path / "scenes", "download.json")


def test_a_record_of_a_shard_that_was_edited_is_refused(run, tmp_path):
    run({"a": 1, "b": 2})
    record = tmp_path / "record.json"
    document = json.loads(record.read_text())
    del document["scenes"]["b"]
    record.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"record\.json: is not as it was written"):
        read_shard(record, tmp_path / "scenes")


def test_the_content_of_a_scene_is_not_how_it_came_about(run, tmp_path):
    run({"a": 1})
    document = json.loads((tmp_path / "scenes/a/scene.json").read_text())
    before = content_of(document)
    document["unveil"]["made"]["from"] = {"value": "another identity"}
    document["unveil"]["made"]["by"] = "another_rule"
    assert content_of(document) == before
    document["unveil"]["made"]["files"]["frames/2020-06-01.tif"] = "0" * 64
    assert content_of(document) != before
