"""The inference engine: tiles equal the whole, finished work is kept, truth stays away."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import count as counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from unveil import raster
from unveil.bands import CLOUD
from unveil.distribution import NORMAL, Distribution, read_distribution
from unveil.errors import InputError, SceneSkipped
from unveil.inference import engine
from unveil.inference.devices import CPU, Device, choose_precision, claim_device, claim_gpu
from unveil.inference.engine import InferenceOptions, largest_tile, limit_context, run_shard
from unveil.inference.tiles import Joint, even_tile, patches_of, tiles_of
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.registry import create
from unveil.predictions import find_images
from unveil.raster import Grid
from unveil.scene import Frame, Scene, read_inputs

BANDS = ("B02", "B04")


class Blur(Model):
    """A model that looks seven pixels around; counts what it was asked."""

    kind, citation, receptive_field = "blur", "test", 7
    loads = predicts = 0

    @property
    def needs(self):
        return Needs(max_context=2)

    def load(self):
        self.loads += 1

    def predict(self, inputs):
        self.predicts += 1
        stack = np.concatenate([inputs.target[None], inputs.context]).mean(axis=0)
        return Prediction(
            np.stack([uniform_filter(band, 15, mode="nearest") for band in stack]),
            std=np.full_like(inputs.target, 0.01),
        )


def make_scene(folder, *, shape=(70, 95), frames=4, scene="s") -> Scene:
    grid = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), *shape)
    rng = np.random.default_rng(1)
    made = []
    for number in range(frames):
        date = f"2020-06-{number * 5 + 1:02d}"
        data = rng.integers(200, 4000, (2, *shape)).astype(np.uint16)
        mask = np.stack([rng.choice([0, CLOUD], shape), np.full(shape, 255)]).astype(np.uint8)
        path, mask_path = folder / f"{date}.tif", folder / "masks" / f"{date}.tif"
        raster.write_cog(path, data, grid, descriptions=BANDS, nodata=0)
        raster.write_cog(
            mask_path, mask, grid, descriptions=["CLASS", "CLOUD_PROBABILITY"], nodata=None
        )
        role = "target" if number == 1 else "context"
        made.append(Frame(date, role, path, BANDS, mask_path, {}, raster.sha256(path)))
    reference = replace(made[0], role="reference", date="2020-06-06")
    return Scene(scene, "paired", "p", grid, (*made, reference), {"level": "L2A"})


def blur():
    return Blur(ModelSpec("blur", "blur"))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 128), st.integers(0, 40))
@settings(max_examples=60)
def test_tile_cores_cover_every_pixel_once_and_halos_stay_inside(height, width, tile_px, halo):
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), height, width)
    count = np.zeros((height, width), int)
    for tile in tiles_of(grid, tile_px=tile_px, halo=halo):
        count[tile.core.toslices()] += 1
        rows, cols = tile.outer.toslices()
        assert 0 <= rows.start <= rows.stop <= height
        assert 0 <= cols.start <= cols.stop <= width
        outer = np.zeros((height, width), bool)
        outer[rows, cols][tile.inside] = True
        core = np.zeros((height, width), bool)
        core[tile.core.toslices()] = True
        np.testing.assert_array_equal(outer, core)
    assert (count == 1).all()


@pytest.mark.parametrize("tile_px", [64, 33, 200])
@pytest.mark.parametrize("kind", ["blur", "regressed", "damped", "linear", "least_cloudy"])
def test_tiled_inference_equals_whole_image_inference(tmp_path, tile_px, kind):
    scene = make_scene(tmp_path / "scene")
    results = []
    for size in (tile_px, 4096):
        model = blur() if kind == "blur" else create(ModelSpec(kind, kind))
        folder = tmp_path / f"out-{size}"
        options = InferenceOptions(tile_px=size)
        [record] = run_shard(model, [scene], folder, options, code="x")
        assert record["status"] == "predicted"
        results.append(raster.read(folder / "s.tif").astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1  # one DN: float32 sums in another order


def test_a_model_is_loaded_once_for_many_scenes_and_finished_results_are_kept(tmp_path):
    scenes = [make_scene(tmp_path / name, scene=name) for name in ("a", "b")]
    first, again, changed = blur(), blur(), blur()
    options, folder = InferenceOptions(), tmp_path / "out"
    records = run_shard(first, scenes, folder, options, code="x")
    assert (first.loads, first.predicts) == (1, 2)
    assert run_shard(again, scenes, folder, options, code="x") == records
    assert again.predicts == 0
    run_shard(changed, scenes, folder, options, code="y")
    assert changed.predicts == 2


def test_a_long_preparation_tells_how_far_it_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(engine, "SILENCE_SECONDS", 0)
    model, scene = create(ModelSpec("regressed", "regressed")), make_scene(tmp_path / "scene")
    with caplog.at_level("INFO"):
        options = InferenceOptions(tile_px=64)
        run_shard(model, [scene], tmp_path / "out", options, code="x")
    assert re.findall(r"s: preparing, window (\d) of 4", caplog.text) == list("1234")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_in_a_terminal_and_lines_in_a_log(
    tmp_path, monkeypatch, caplog, terminal
):
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(engine, "SILENCE_SECONDS", 0)  # scenes that take less show no bar
    scene = make_scene(tmp_path / "scene")
    with caplog.at_level("INFO"):
        options = InferenceOptions(tile_px=64)
        run_shard(blur(), [scene], tmp_path / "out", options, code="x")
    assert re.search(r"s: tile 4 of 4, \d+\.\d\d Mpx/s, 0 s left", caplog.text)
    assert "running blur on CPU, numpy, float32" in caplog.text
    assert ("0/4" in stderr.getvalue()) == terminal


def test_a_damaged_result_is_made_again(tmp_path):
    scene, folder = make_scene(tmp_path / "scene"), tmp_path / "out"
    [record] = run_shard(blur(), [scene], folder, InferenceOptions(), code="x")
    (folder / "s.tif").write_bytes(b"half a file")
    model = blur()
    [second] = run_shard(model, [scene], folder, InferenceOptions(), code="x")
    assert model.predicts == 1
    assert second["made"]["files"] == record["made"]["files"]


def test_the_record_says_what_ran_and_what_it_cost(tmp_path):
    scene, folder = make_scene(tmp_path / "scene"), tmp_path / "out"
    [record] = run_shard(blur(), [scene], folder, InferenceOptions(), code="x")
    assert json.loads((folder / "s.json").read_text()) == record
    files = [folder / "s.tif", folder / "s_std.tif"]
    assert record["made"]["files"] == {path.name: raster.sha256(path) for path in files}
    assert record["pixels"] == 70 * 95
    assert record["versions"]["numpy"] == np.__version__
    parts = {"scene", "options", "weights", "files", "computed", "code"}
    assert set(record["made"]["from"]) == parts


def test_prediction_and_standard_deviation_lie_on_the_targets_grid_with_band_names(tmp_path):
    scene, folder = make_scene(tmp_path / "scene"), tmp_path / "out"
    run_shard(blur(), [scene], folder, InferenceOptions(), code="x")
    for name, value in (("s.tif", None), ("s_std.tif", 100)):
        with raster.open_raster(folder / name) as dataset:
            assert raster.grid_of(dataset) == scene.grid
            assert dataset.descriptions == BANDS
            assert dataset.dtypes == ("uint16", "uint16")
            if value:
                assert (dataset.read() == value).all()


def test_a_model_never_gets_the_truth(tmp_path):
    seen = []

    class Curious(Blur):
        def skip(self, scene):
            seen.extend(frame.role for frame in scene.frames)

    model = Curious(ModelSpec("curious", "blur"))
    scene = make_scene(tmp_path / "scene")
    run_shard(model, [scene], tmp_path / "out", InferenceOptions(), code="x")
    assert set(seen) == {"target", "context"}


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_scene_that_a_model_cannot_do_is_recorded_with_its_reason(tmp_path, when):
    class Choosy(Blur):
        def skip(self, scene):
            return "needs a wider swath" if when == "before" else None

        def prepare(self, scene, tiles):
            raise SceneSkipped("needs a wider swath")

    scene = make_scene(tmp_path / "scene")
    model = Choosy(ModelSpec("choosy", "blur"))
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert record == {"scene": "s", "status": "skipped", "reason": "needs a wider swath"}


@pytest.mark.parametrize("when", ["before", "within"])
def test_what_a_model_answered_before_is_gone_once_it_skips_the_scene(tmp_path, when):
    class Tired(Blur):
        tired = False

        def skip(self, scene):
            return "no more" if self.tired and when == "before" else None

        def prepare(self, scene, tiles):
            if self.tired:
                raise SceneSkipped("no more")

    scene, model = make_scene(tmp_path / "scene"), Tired(ModelSpec("tired", "blur"))
    run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"s.tif", "s_std.tif", "s.json"}
    model.tired = True
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="y")
    assert record["status"] == "skipped"
    assert not list((tmp_path / "o").iterdir())
    assert not find_images(tmp_path, ["o"], "s")


@pytest.mark.parametrize(
    ("needs", "word"),
    [
        (Needs(bands=("B10",)), "B10"),
        (Needs(radar="required"), "radar"),
        (Needs(min_context=9), "9 context frames, the scene has 3"),
        (Needs(levels=("L1C",)), "L1C"),
    ],
)
def test_a_scene_without_what_a_model_needs_is_skipped_with_the_reason(tmp_path, needs, word):
    class Needy(Blur):
        pass

    Needy.needs = needs
    scene = make_scene(tmp_path / "scene")
    model = Needy(ModelSpec("needy", "blur"))
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert record["status"] == "skipped"
    assert word in record["reason"]


def test_the_context_nearest_in_time_is_kept(tmp_path):
    scene = limit_context(make_scene(tmp_path / "scene", frames=6), 3)
    assert [f.date for f in scene.context] == ["2020-06-01", "2020-06-11", "2020-06-16"]


def test_a_required_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(InputError, match=r"inference\.gpu.*preferred"):
        claim_device("required")


@pytest.mark.parametrize(
    ("wanted", "supported", "fast", "expected"),
    [
        ("auto", ("float32", "mixed_bfloat16"), True, "mixed_bfloat16"),
        ("auto", ("float32", "mixed_bfloat16"), False, "float32"),
        ("auto", ("float32",), True, "float32"),
        ("mixed_bfloat16", ("float32", "mixed_bfloat16"), False, "mixed_bfloat16"),
        ("mixed_float16", ("float32",), True, "float32"),
    ],
)
def test_precision_follows_the_wish_the_model_and_the_hardware(wanted, supported, fast, expected):
    assert choose_precision(wanted, supported, Device("x", "CPU", fast)) == expected


CLAIM = """
import os, sys
from pathlib import Path
from unveil.inference.devices import claim_gpu
number, folder = sys.argv[1:]
def tell(words):
    os.write(1, f"{number} {words}\\n".encode())  # whole lines, whoever else writes
tell("asks -")
with claim_gpu(["0", "1"], Path(folder)) as gpu:
    tell(f"takes {gpu}")
    sys.stdin.readline()
    tell(f"leaves {gpu}")
"""


def start_claim(folder, number, stdout) -> subprocess.Popen:
    """Start a job that tells what it does and holds a GPU until it is told a line."""
    command = [sys.executable, "-c", CLAIM, str(number), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, text=True)


def test_two_jobs_never_share_a_gpu_and_a_third_waits(tmp_path):
    reading, writing = os.pipe()  # one pipe for all jobs keeps the order of what they tell
    jobs = [start_claim(tmp_path, number, writing) for number in range(4)]
    os.close(writing)
    guard = threading.Timer(60, lambda: [job.kill() for job in jobs])
    guard.daemon = True
    guard.start()
    asked, held, served = set(), {}, []
    with open(reading) as told:
        for line in told:
            number, verb, gpu = line.split()
            if verb == "asks":
                asked.add(number)
            elif verb == "takes":
                assert gpu not in held, f"jobs {held[gpu]} and {number} hold GPU {gpu}"
                held[gpu] = number
            else:
                assert held.pop(gpu) == number
                served.append(number)
            if len(asked) == 4 and len(held) == 2:  # the others wait: let one of the two go
                tell_to_leave(jobs[int(held["0"])])
            elif len(served) >= 2:
                for holder in held.values():
                    tell_to_leave(jobs[int(holder)])
    guard.cancel()
    assert sorted(served) == ["0", "1", "2", "3"]


def tell_to_leave(job) -> None:
    """Send a job, once, the line that it waits for."""
    if not job.stdin.closed:
        job.stdin.write("\n")
        job.stdin.close()


TWO_NETWORKS = """
import os
from unveil.inference.devices import claim_device
first = claim_device("preferred")
print(os.environ["CUDA_VISIBLE_DEVICES"], claim_device("preferred") is first, flush=True)
input()
"""


@pytest.mark.slow
def test_networks_of_a_job_stay_on_its_gpu_and_another_job_takes_the_next(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", TWO_NETWORKS]
    jobs = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    assert sorted(job.stdout.readline() for job in jobs) == ["0 True\n", "1 True\n"]
    for job in jobs:
        job.communicate("\n", timeout=60)


@pytest.mark.slow
def test_a_gpu_that_tensorflow_does_not_see_is_said(tmp_path):
    program = "import logging; logging.basicConfig()\n"
    program += "from unveil.inference.devices import claim_device\n"
    program += "print(claim_device('preferred').kind)"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "7", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "CPU\n"
    assert "TensorFlow sees none of the GPUs (7)" in done.stderr and "GPU=1" in done.stderr


def test_a_killed_job_frees_its_gpu(tmp_path):
    holder = start_claim(tmp_path, 0, subprocess.PIPE)
    assert [holder.stdout.readline() for _ in range(2)] == ["0 asks -\n", "0 takes 0\n"]
    holder.kill()
    holder.wait()
    with claim_gpu(["0"], tmp_path) as gpu:
        assert gpu == "0"


def test_tensorflows_own_error_counts_as_out_of_memory():
    tf = pytest.importorskip("tensorflow")
    assert engine.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM"))
    assert not engine.is_out_of_memory(tf.errors.InternalError(None, None, "else"))


def test_out_of_memory_is_an_error_at_once_where_no_tile_is_smaller(tmp_path):
    class Whole(Blur):
        receptive_field = None

        def predict(self, inputs):
            self.predicts += 1
            raise MemoryError("no room")

    model = Whole(ModelSpec("whole", "blur"))
    scenes = [make_scene(tmp_path / "scene")]
    with pytest.raises(MemoryError, match="no room"):
        run_shard(model, scenes, tmp_path / "o", InferenceOptions(), code="x")
    assert model.predicts == 1


def test_out_of_memory_halves_the_tile_and_goes_on(tmp_path):
    class Hungry(Blur):
        def predict(self, inputs):
            if max(inputs.shape) > 64 + 2 * self.receptive_field:
                raise MemoryError
            return super().predict(inputs)

    scene, folder = make_scene(tmp_path / "scene", shape=(150, 150)), tmp_path / "out"
    options = InferenceOptions(tile_px=256)
    [record] = run_shard(Hungry(ModelSpec("h", "h")), [scene], folder, options, code="x")
    assert (record["status"], record["tile_px"]) == ("predicted", 64)
    run_shard(blur(), [scene], tmp_path / "whole", options, code="x")
    ours, whole = (raster.read(f / "s.tif").astype(int) for f in (folder, tmp_path / "whole"))
    assert np.abs(ours - whole).max() <= 1


def with_costs(bytes_per_px, receptive_field=34):
    model = blur()
    model.bytes_per_px, model.receptive_field = bytes_per_px, receptive_field
    return model


@pytest.mark.parametrize("bytes_per_px", [500, 2000, 3160])
@pytest.mark.parametrize("memory_mb", [4000, 8000])
def test_automatic_tiles_fit_the_memory_with_their_halo(bytes_per_px, memory_mb):
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 10980, 10980)
    options, resident = InferenceOptions(memory_mb=memory_mb), 10**9
    edge = largest_tile(with_costs(bytes_per_px), options, CPU, resident=resident)
    even = even_tile(grid, edge)
    for tile in tiles_of(grid, tile_px=even, halo=34):
        window = tile.outer.width * tile.outer.height * bytes_per_px
        assert resident + window < memory_mb * 10**6
    assert -(-10980 // even) == -(-10980 // edge)  # no more tiles for being even


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("openvino", "float32"),
        ("openvino", "mixed_bfloat16"),
        ("openvino", "int8"),
        ("tensorflow", "mixed_bfloat16"),
    ],
)
def test_the_halo_of_the_published_network_costs_at_most_a_tenth_of_a_whole_product(
    backend, precision
):
    model = create(ModelSpec("published", "dsen2cr"))
    model.backend, model.precision = backend, precision
    model.bytes_per_px = model.window_bytes_per_px()
    grid = Grid("", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 10980, 10980)
    edge = largest_tile(model, InferenceOptions(), CPU, resident=10**9)
    tiles = tiles_of(grid, tile_px=even_tile(grid, edge), halo=model.receptive_field)
    computed = sum(tile.outer.width * tile.outer.height for tile in tiles)
    assert computed <= 1.10 * grid.pixels


@pytest.mark.parametrize(
    ("options", "model", "device", "expected"),
    [
        ({"tile_px": 333}, with_costs(2000), CPU, 333),
        ({}, with_costs(None), CPU, 1024),
        ({}, with_costs(2000, None), CPU, 1024),
        ({}, with_costs(2000), Device("GPU 0", "GPU"), 1024),
        ({"memory_mb": 1000}, with_costs(2000), CPU, engine.SMALLEST_TILE_PX),
    ],
)
def test_tiles_are_usual_where_nobody_knows_what_a_pixel_costs(options, model, device, expected):
    assert largest_tile(model, InferenceOptions(**options), device, resident=10**9) == expected


@given(st.integers(1, 1200), st.integers(1, 1200))
@settings(max_examples=60)
def test_patches_have_one_size_and_their_cores_cover_every_pixel_once(height, width):
    count = np.zeros((height, width), int)
    for tile in patches_of(Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), height, width), patch_px=256):
        assert (tile.outer.height, tile.outer.width) == (min(256, height), min(256, width))
        rows, cols = tile.outer.toslices()
        assert 0 <= rows.start <= rows.stop <= height
        assert 0 <= cols.start <= cols.stop <= width
        top, left = tile.core.row_off - rows.start, tile.core.col_off - cols.start
        assert 0 <= top <= tile.outer.height - tile.core.height
        assert 0 <= left <= tile.outer.width - tile.core.width
        count[tile.core.toslices()] += 1
    assert (count == 1).all()


def joined(tiles, values_of, grid) -> np.ndarray:
    """Join ``values_of(tile)`` over a grid; every pixel must come exactly once."""
    joint = Joint(tiles)
    result, count = np.full(grid.shape, np.nan), np.zeros(grid.shape, int)
    for tile in tiles:
        for window, values in joint.add(values_of(tile), tile):
            result[window.toslices()] = values[0]
            count[window.toslices()] += 1
    assert (count == 1).all()
    return result


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60)
def test_patches_that_agree_are_joined_to_what_they_agree_on(height, width):
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), height, width)
    image = np.random.default_rng(height).uniform(0.1, 1, grid.shape).astype(np.float32)
    found = joined(
        patches_of(grid, patch_px=32), lambda tile: image[tile.outer.toslices()][None], grid
    )
    np.testing.assert_allclose(found, image, rtol=3e-7)


def test_between_patches_that_differ_the_result_is_a_straight_line():
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 56, 64)  # two by one, 40 pixels wide
    tiles = patches_of(grid, patch_px=40)
    assert [(t.outer.row_off, t.outer.col_off) for t in tiles] == [
        (0, 0),
        (0, 24),
        (16, 0),
        (16, 24),
    ]

    def answer(tile):  # one number per patch: steps of 4 to the right, of 1 downwards
        level = 1 + (tile.outer.row_off > 0) + 4 * (tile.outer.col_off > 0)
        return np.full((1, 40, 40), level, np.float32)

    found = joined(tiles, answer, grid)
    right = np.clip((np.arange(64) + 0.5 - 24) / 16, 0, 1)
    down = np.clip((np.arange(56) + 0.5 - 16) / 24, 0, 1)
    np.testing.assert_allclose(found, 1 + down[:, None] + 4 * right, rtol=1e-6)


@given(st.integers(60, 300), st.integers(60, 300))
@settings(max_examples=30)
def test_no_seam_is_left_wherever_patches_lie(height, width):
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), height, width)
    tiles, rng = patches_of(grid, patch_px=32), np.random.default_rng(height)
    levels = {tile: rng.uniform(0, 1) for tile in tiles}
    found = joined(tiles, lambda tile: np.full((1, 32, 32), levels[tile], np.float32), grid)
    steps = max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1))
    assert steps < 0.25  # at the middle of the narrowest overlap, 8 pixels, a cut would be 1


def test_what_one_patch_leaves_empty_another_fills():
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 40, 64)
    empty_left = {0: slice(30, None), 24: slice(0, 12)}  # columns; 24 to 30 are seen by both

    def answer(tile):
        values = np.full((1, 40, 40), 1.0 + tile.outer.col_off, np.float32)
        values[..., empty_left[tile.outer.col_off]] = np.nan
        return values

    found = joined(patches_of(grid, patch_px=40), answer, grid)
    assert (found[:, :30] == 1).all()
    assert np.isnan(found[:, 30:36]).all()
    assert (found[:, 36:] == 25).all()


def test_joining_holds_no_more_than_the_rows_that_overlap():
    grid = Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 2000, 500)
    tiles = patches_of(grid, patch_px=64)
    joint, most = Joint(tiles), 0
    for tile in tiles:
        list(joint.add(np.ones((1, 64, 64), np.float32), tile))
        most = max(most, sum(total.size for total, _ in joint._held.values()))
    rows = sorted({tile.outer.row_off for tile in tiles})
    overlap = max(a + 64 - b for a, b in pairwise(rows))
    assert most <= 500 * overlap + 64 * 64
    assert not joint._held


def test_patches_are_blended_in_both_files(tmp_path):
    class Patchy(Blur):
        patch_px, receptive_field = 40, None

        def predict(self, inputs):
            level = 0.1 if inputs.origin[1] == 0 else 0.2
            values = np.full_like(inputs.target, level)
            return Prediction(values, std=values / 10)

    scene = make_scene(tmp_path / "scene", shape=(40, 64))
    [record] = run_shard(
        Patchy(ModelSpec("p", "p")), [scene], tmp_path / "o", InferenceOptions(), code="x"
    )
    ramp = 0.1 + 0.1 * np.clip((np.arange(64) + 0.5 - 24) / 16, 0, 1)
    for name, scale in (("s.tif", 10_000), ("s_std.tif", 1_000)):
        found = raster.read(tmp_path / "o" / name)
        np.testing.assert_allclose(found, np.broadcast_to(scale * ramp, found.shape), atol=0.51)


def test_the_file_of_deviations_names_the_distribution_that_the_model_states(tmp_path):
    class HeavyTailed(Blur):
        def predict(self, inputs):
            return replace(super().predict(inputs), distribution=Distribution(3))

    scene = make_scene(tmp_path / "scene")
    for model, expected in ((Blur, NORMAL), (HeavyTailed, Distribution(3))):
        run_shard(
            model(ModelSpec("p", "p")),
            [scene],
            tmp_path / "o",
            InferenceOptions(),
            code=expected.title,
        )
        assert read_distribution(tmp_path / "o/s_std.tif") == expected
        assert read_distribution(tmp_path / "o/s.tif") == NORMAL


@pytest.mark.parametrize("tags", [{"DISTRIBUTION": "cauchy"}, {"DISTRIBUTION": "student_t"}])
def test_a_distribution_that_is_not_known_is_refused(tmp_path, tags):
    scene = make_scene(tmp_path / "scene")
    path = tmp_path / "s_std.tif"
    data = np.full((len(BANDS), *scene.grid.shape), 100, np.uint16)
    raster.write_cog(path, data, scene.grid, descriptions=BANDS, nodata=0, tags=tags)
    with pytest.raises(InputError, match="DISTRIBUTION") as refused:
        read_distribution(path)
    # The remedy, followed literally.
    tags = {"DISTRIBUTION": "student_t", "DEGREES_OF_FREEDOM": "3"}
    assert "student_t with DEGREES_OF_FREEDOM above 2" in str(refused.value)
    raster.write_cog(path, data, scene.grid, descriptions=BANDS, nodata=0, tags=tags)
    assert read_distribution(path) == Distribution(3)


def delivered(tmp_path, scene, *, grid=None, bands=BANDS, value=1500, dtype="uint16"):
    folder = tmp_path / "delivered"
    grid = grid or scene.grid
    data = np.full((len(bands), *grid.shape), value, dtype)
    raster.write_cog(folder / "s.tif", data, grid, descriptions=bands, nodata=0)
    return create(ModelSpec("theirs", "external", options={"folder": str(folder)}))


def test_delivered_results_are_taken_as_they_are(tmp_path):
    scene = make_scene(tmp_path / "scene")
    model = delivered(tmp_path, scene, bands=("B04",), value=0.15, dtype="float32")
    run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    with raster.open_raster(tmp_path / "o" / "s.tif") as dataset:
        assert dataset.descriptions == ("B04",)
        assert (dataset.read() == 1500).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"grid": Grid("EPSG:32634", (10.0, 0, 500000.0, 0, -10.0, 5e6), 70, 95)}, "EPSG:32634"),
        ({"bands": ("red", "B04")}, "ESA name"),
        ({"bands": ("B10",)}, "B10"),
        ({"value": 1500.0, "dtype": "float32"}, "unit"),
        ({"value": 64_000}, "median reflectance"),
        ({"value": 150, "dtype": "uint8"}, "viewing"),
    ],
)
def test_a_delivery_that_does_not_fit_is_skipped_and_the_others_go_on(tmp_path, changes, word):
    bad, good = (make_scene(tmp_path / name, scene=name) for name in "sg")
    model = delivered(tmp_path, bad, **changes)
    raster.write_cog(
        tmp_path / "delivered/g.tif",
        np.full((len(BANDS), *good.grid.shape), 1500, "uint16"),
        good.grid,
        descriptions=BANDS,
        nodata=0,
    )
    records = run_shard(model, [bad, good], tmp_path / "o", InferenceOptions(), code="x")
    assert [record["status"] for record in records] == ["skipped", "predicted"]
    for text in ("the delivery does not fit", "delivered/s.tif", word, "Remedy: "):
        assert text in records[0]["reason"]


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.7])
def test_a_damaged_delivery_is_skipped_with_its_reason(tmp_path, keep):
    scene = make_scene(tmp_path / "scene")
    model = delivered(tmp_path, scene)
    path = tmp_path / "delivered/s.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert record["status"] == "skipped"
    assert "delivered/s.tif" in record["reason"] and "Remedy: " in record["reason"]


@pytest.mark.parametrize(
    ("fill", "dtype", "tag"),
    [
        (-9999, "int16", -9999),
        (-9999, "int16", None),
        (65_535, "uint16", None),
        (7, "uint16", 7),
        (-3.4028234663852886e38, "float32", -3.4028234663852886e38),
        (np.nan, "float32", np.nan),
        (-0.1, "float32", None),
    ],
)
def test_what_a_delivery_leaves_out_is_unanswered(tmp_path, fill, dtype, tag):
    scene = make_scene(tmp_path / "scene")
    data = np.full((2, *scene.grid.shape), 0.15 if dtype == "float32" else 1500, dtype)
    data[0, :, 40:], data[:, :9] = fill, fill
    path = tmp_path / "delivered/s.tif"
    raster.write_cog(path, data, scene.grid, descriptions=BANDS, nodata=tag)
    model = create(ModelSpec("theirs", "external", options={"folder": str(path.parent)}))
    run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    found = raster.read(tmp_path / "o" / "s.tif")
    assert not found[0, :, 40:].any() and not found[:, :9].any()
    assert (found[1, 9:] == 1500).all() and (found[0, 9:, :40] == 1500).all()


@pytest.mark.parametrize(
    ("shift", "word"), [(1000, "was not taken off"), (-1000, "taken off twice"), (300, "")]
)
def test_a_delivery_that_forgot_the_offset_is_told_by_the_scenes_own_clear_pixels(
    tmp_path, shift, word
):
    scene = make_scene(tmp_path / "scene")
    seen = raster.read(scene.target.path).astype(int)
    path = tmp_path / "delivered/s.tif"
    data = np.clip(seen + shift, 1, None).astype("uint16")
    raster.write_cog(path, data, scene.grid, descriptions=scene.bands, nodata=0)
    model = create(ModelSpec("theirs", "external", options={"folder": str(path.parent)}))
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert [word in note for note in record["notes"]] == ([True] if word else [])


@pytest.mark.parametrize(("needed", "notes"), [(10, 0), (10**6, 1)])
def test_a_model_that_fell_back_says_so_in_its_record(tmp_path, needed, notes):
    scene = make_scene(tmp_path / "scene")
    options = {"min_clear_pixels": needed}
    model = create(ModelSpec("regressed", "regressed", options=options))
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert len(record["notes"]) == notes
    assert all("fell back to damped" in note for note in record["notes"])


def test_a_scene_that_was_not_delivered_is_skipped(tmp_path):
    scene = make_scene(tmp_path / "scene")
    model = create(ModelSpec("theirs", "external", options={"folder": str(tmp_path)}))
    [record] = run_shard(model, [scene], tmp_path / "o", InferenceOptions(), code="x")
    assert "not delivered" in record["reason"]


def test_the_only_tile_of_a_small_scene_is_read_once(tmp_path, monkeypatch):
    reads = []

    def counted(scene, **options):
        reads.append(options["window"])
        return read_inputs(scene, **options)

    class Prepared(Blur):
        def prepare(self, scene, tiles):
            self.prepared = list(tiles)

    monkeypatch.setattr(engine, "read_inputs", counted)
    scene = make_scene(tmp_path / "scene")
    for tile_px, expected in ((1024, 1), (64, 4 + 4)):  # four tiles, for prepare and predict
        model = Prepared(ModelSpec("prepared", "blur"))
        options = InferenceOptions(tile_px=tile_px)
        run_shard(model, [scene], tmp_path / f"o-{tile_px}", options, code="x")
        assert len(reads) == expected
        reads.clear()


def test_the_next_small_scene_is_read_while_one_is_computed(tmp_path, monkeypatch):
    second_was_read = threading.Event()

    def watched(scene, **options):
        if scene.id == "b":
            second_was_read.set()
        return read_inputs(scene, **options)

    class Patient(Blur):
        def predict(self, inputs):
            assert second_was_read.wait(20), "the second scene was not read meanwhile"
            return super().predict(inputs)

    monkeypatch.setattr(engine, "read_inputs", watched)
    scenes = [make_scene(tmp_path / name, scene=name) for name in "ab"]
    model = Patient(ModelSpec("patient", "blur"))
    run_shard(model, scenes, tmp_path / "out", InferenceOptions(), code="x")
    assert model.predicts == 2


def test_costs_of_scenes_add_up_to_no_more_than_the_shard_took(tmp_path, monkeypatch):
    scenes = [make_scene(tmp_path / name, scene=name) for name in "abc"]
    ticks = counter()  # each look at the clock finds it a second later, however busy the machine
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    records = run_shard(blur(), scenes, tmp_path / "out", InferenceOptions(), code="x")
    costs = [record["wall_seconds"] for record in records]
    assert min(costs) >= 1 and sum(costs) <= time.monotonic()


@pytest.mark.parametrize("broken", ["a", "c"])
def test_a_result_that_cannot_be_written_fails_the_shard(tmp_path, broken):
    scenes = [make_scene(tmp_path / name, scene=name) for name in "abc"]
    folder = tmp_path / "out"
    (folder / f"{broken}.tif").mkdir(parents=True)
    with pytest.raises(OSError, match=broken):
        run_shard(blur(), scenes, folder, InferenceOptions(), code="x")
    assert not (folder / f"{broken}.json").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
