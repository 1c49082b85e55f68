"""Training learns, resumes where it stopped, and says what it has seen."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil import raster
from unveil.bands import CORE6, L1C13
from unveil.clouds import fractal_field
from unveil.errors import InputError
from unveil.models.dsen2cr import build_network, load_weights, read_weights
from unveil.training import packages
from unveil.training.datasets import (
    Block,
    TrainingImage,
    draw_batch,
    draw_crop,
    fetch_image,
    load_image,
    turn,
    validation_batches,
    validation_blocks,
)
from unveil.training.loop import TrainingPlan, train
from unveil.training.losses import cloud_adaptive_loss
from unveil.training.run import train_dsen2cr
from unveil.training.single_image import (
    SingleImageTask,
    clear_mean_predictor,
    cloudy_predictor,
    evaluate,
    network_predictor,
)

BANDS = ("B03", "B04", "B08")
HOLDOUT = Block(60, 20, 40, 64)
PLAN = TrainingPlan(
    steps=40,
    batch=4,
    crop=16,
    validation_crop=20,
    optimiser="adam",
    learning_rate=0.005,
    warmup=5,
    precision="float32",
    checkpoint_every=10,
    patience=10,
    seed=1,
)
build = functools.partial(build_network, bands=len(BANDS), radar=False, features=4, blocks=1)


def make_reflectance(bands: tuple[str, ...] = BANDS) -> np.ndarray:
    """Land of correlated bands, ``(B, 128, 144)`` reflectance."""
    rng = np.random.default_rng(0)
    base = fractal_field((128, 144), slope=1.5, rng=rng)
    levels = np.linspace(0.1, 0.3, len(bands), dtype=np.float32)[:, None, None]
    return np.clip(levels * (1 + 0.25 * base), 0.02, 0.6).astype(np.float32)


def write_image(path: Path, bands: tuple[str, ...] = BANDS) -> Path:
    """The same land as a GeoTIFF at 52.6 N 9 E."""
    grid = raster.Grid("EPSG:32632", (10, 0, 500_000, 0, -10, 5_830_000), 128, 144)
    dn = raster.to_dn(make_reflectance(bands))
    raster.write_cog(path, dn, grid, descriptions=bands, nodata=0)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> TrainingImage:
    path = write_image(tmp_path_factory.mktemp("images") / "land.tif")
    return load_image(path, name="land", bands=BANDS, holdout=HOLDOUT, buffer=5)


@pytest.fixture(scope="module")
def uninterrupted(image, tmp_path_factory):
    """A run from the first step to the last, with its folder."""
    folder = tmp_path_factory.mktemp("run")
    return *train(SingleImageTask(build, [image]), PLAN, folder=folder), folder


def test_the_loss_falls(uninterrupted):
    _, progress, _ = uninterrupted
    losses = [row["loss"] for row in progress.log]
    assert [row["step"] for row in progress.log] == [10, 20, 30, 40]
    assert losses[-1] < 0.7 * losses[0]
    assert progress.best_score == min(row["mae_occluded"] for row in progress.log)


def test_a_trained_network_is_nearer_to_the_truth_than_its_input(uninterrupted, image):
    network, _, _ = uninterrupted
    held_out = validation_batches([image], size=20, seed=5)
    learned = evaluate(network_predictor(network), held_out)
    cloudy = evaluate(cloudy_predictor, held_out)
    for cover in held_out:
        assert learned[cover]["mae_occluded"] < cloudy[cover]["mae_occluded"]


@pytest.mark.parametrize("optimiser", ["adam", "nadam"])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(image, tmp_path, optimiser):
    plan = replace(PLAN, steps=20, optimiser=optimiser)
    whole, _ = train(SingleImageTask(build, [image]), plan, folder=tmp_path / "whole")
    train(
        SingleImageTask(build, [image]), plan, folder=tmp_path / "sliced", stop_after=13
    )  # three steps are lost
    stored = np.load(tmp_path / "sliced" / "checkpoint.npz")
    assert json.loads(str(stored["header"]))["step"] == 10
    resumed, progress = train(SingleImageTask(build, [image]), plan, folder=tmp_path / "sliced")
    assert progress.step == 20
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    logs = [(tmp_path / name / "log.csv").read_text().split() for name in ("whole", "sliced")]
    assert len(logs[0]) == len(logs[1]) == 3


def test_a_finished_run_is_not_trained_again(uninterrupted, image):
    network, progress, folder = uninterrupted
    again, same = train(SingleImageTask(build, [image]), PLAN, folder=folder)
    assert same.step == progress.step and same.log == progress.log
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_checkpoint_of_another_plan_is_not_continued(image, tmp_path):
    train(SingleImageTask(build, [image]), replace(PLAN, steps=10), folder=tmp_path)
    _, progress = train(
        SingleImageTask(build, [image]), replace(PLAN, steps=10, seed=2), folder=tmp_path
    )
    assert len(progress.log) == 1


def test_training_stops_when_nothing_improves(image, tmp_path):
    plan = replace(PLAN, steps=60, learning_rate=0.0, warmup=0, patience=2)
    _, progress = train(SingleImageTask(build, [image]), plan, folder=tmp_path)
    assert (progress.best_step, progress.step) == (10, 30)


def test_mixed_precision_keeps_variables_in_float32(image, tmp_path):
    plan = replace(PLAN, steps=2, batch=1, precision="mixed_bfloat16")
    network, _ = train(SingleImageTask(build, [image]), plan, folder=tmp_path)
    assert {str(weight.dtype) for weight in network.get_weights()} == {"float32"}
    assert keras.mixed_precision.global_policy().name == "float32"


def test_progress_is_written_for_people_and_for_tensorboard(uninterrupted):
    _, progress, folder = uninterrupted
    lines = (folder / "log.csv").read_text().splitlines()
    assert len(lines) == 1 + len(progress.log) and lines[0].startswith("step,loss,")
    import tensorflow as tf

    events = next((folder / "tensorboard").glob("events.out.tfevents.*"))
    read = [
        tf.compat.v1.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(events))
    ]
    assert [event.step for event in read[1:]] == [10, 20, 30, 40]
    values = {value.tag: value.simple_value for value in read[-1].summary.value}
    assert values["loss"] == pytest.approx(progress.log[-1]["loss"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([8, 16, 24]))
def test_no_training_crop_comes_near_the_held_out_block(image, seed, size):
    crop = draw_crop(image, size=size, rng=np.random.default_rng(seed))
    seen = np.zeros(image.grid.shape, int)
    seen[crop.index[1:]] += 1
    assert seen.sum() == size * size  # the crop lies inside the image
    rows, cols = slice(60 - 5, 100 + 5), slice(20 - 5, 84 + 5)
    assert not seen[rows, cols].any()


def test_validation_crops_tile_the_held_out_block(image):
    seen = np.zeros(image.grid.shape, int)
    for block in validation_blocks(image, 20):
        seen[block.index[1:]] += 1
    assert seen.max() == 1 and seen.sum() == 2 * 3 * 20 * 20
    seen[60:100, 20:84] = 0
    assert not seen.any()


def test_crops_avoid_nodata(image):
    holes = image.reflectance.copy()
    holes[0, :, 100:] = np.nan
    broken = replace(image, reflectance=holes)
    for seed in range(20):
        crop = draw_crop(broken, size=16, rng=np.random.default_rng(seed))
        assert crop.col + 16 <= 100


def test_an_image_without_room_for_crops_is_refused(image):
    with pytest.raises(InputError, match="smaller crops"):
        draw_crop(replace(image, buffer=200), size=16, rng=np.random.default_rng(0))


def test_a_held_out_block_beyond_the_image_is_refused(tmp_path):
    path = write_image(tmp_path / "land.tif")
    with pytest.raises(InputError, match="holdout"):
        load_image(path, name="land", bands=BANDS, holdout=Block(100, 0, 60, 60), buffer=5)


def test_a_missing_band_is_named(tmp_path):
    path = write_image(tmp_path / "land.tif")
    with pytest.raises(InputError, match="B11"):
        load_image(path, name="land", bands=("B03", "B11"), holdout=HOLDOUT, buffer=5)


def test_samples_are_in_network_units_and_differ_where_they_are_occluded(image):
    batch = draw_batch([image], count=8, size=32, rng=np.random.default_rng(0))
    assert batch.cloudy.shape == batch.clear.shape == (8, 32, 32, 3)
    assert batch.cloudy.max() <= 5 and batch.cloudy.min() >= 0  # DN 0 ... 10000 by 2000
    assert 0.1 < batch.clear.mean() / 5 < 0.4
    change = np.abs(batch.cloudy - batch.clear).mean(axis=-1)
    hidden = batch.occluded[..., 0] > 0
    assert change[hidden].mean() > 20 * change[~hidden].mean()


def test_validation_samples_do_not_depend_on_what_was_drawn_before(image):
    first, second = (validation_batches([image], size=20, seed=3) for _ in range(2))
    for cover, batch in first.items():
        assert np.array_equal(batch.cloudy, second[cover].cloudy)
        assert batch.occluded.mean() == pytest.approx(cover, abs=0.01)


def test_the_eight_symmetries_are_all_drawn():
    pixels = np.arange(9.0).reshape(1, 3, 3)
    rng = np.random.default_rng(0)
    assert len({turn(pixels, rng).tobytes() for _ in range(200)}) == 8


def test_loss_asks_for_the_truth_under_cloud_and_for_the_input_elsewhere():
    """Closed form: half the pixels are occluded; truth 1, input 3, prediction 2."""
    shape = (1, 2, 2, 3)
    occluded = np.zeros((1, 2, 2, 1), np.float32)
    occluded[0, 0] = 1
    clear, cloudy, prediction = (np.full(shape, value, np.float32) for value in (1, 3, 2.5))
    loss = cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)
    assert float(loss) == pytest.approx((1.5 + 0.5) / 2 + 1.5)


def test_error_is_counted_in_reflectance(image):
    batch = draw_batch([image], count=2, size=16, rng=np.random.default_rng(0))
    scores = evaluate(lambda b: b.clear + 0.5, {0.5: batch})
    assert scores[0.5] == pytest.approx({"mae_occluded": 0.1, "mae_clear": 0.1}, rel=1e-4)


def test_the_mean_of_clear_pixels_fills_occluded_ones(image):
    batch = draw_batch([image], count=1, size=16, rng=np.random.default_rng(3))
    filled = clear_mean_predictor(batch)
    hidden = batch.occluded[0, ..., 0] > 0
    assert np.array_equal(filled[0][~hidden], batch.cloudy[0][~hidden])
    expected = batch.cloudy[0][~hidden].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(filled[0][hidden].mean(axis=0), expected, rtol=1e-4)


def test_weights_and_card_leave_a_run(tmp_path):
    """The smoke test of a whole run: weights load into the model, the card lists places."""
    path = write_image(tmp_path / "land.tif", CORE6)
    source = {
        "holdout": vars(HOLDOUT),
        "buffer": 5,
        **dict.fromkeys(("date", "level", "licence", "package", "version", "sha256"), "known"),
    }
    run = {
        "title": "tiny",
        "images": ["land"],
        "network": {"bands": list(CORE6), "features": 4, "blocks": 1},
        "plan": vars(replace(PLAN, steps=10)),
        "limits": ["a toy"],
    }
    weights = tmp_path / "out" / "tiny.npz"
    train_dsen2cr(
        run, sources={"land": source}, paths={"land": path}, weights=weights, command="here"
    )
    network = build_network(bands=6, radar=False, features=4, blocks=1)
    load_weights(network, read_weights(weights))
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    place = card["places"][0]
    west, south, east, north = place["bbox"]
    assert west == pytest.approx(9.0, abs=1e-4) and 52.5 < south < north < 52.7
    inner = place["held_out_bbox"]
    assert west < inner[0] < inner[2] < east and south < inner[1] < inner[3] < north
    assert set(card["validation"]["scores"]) == {
        "network",
        "cloudy_input",
        "clear_mean_of_sample",
    }
    assert card["training"]["steps_done"] == 10 and card["limits"] == ["a toy"]
    assert not (weights.parent / "checkpoint.npz").exists()


def make_archive(path: Path, folder: Path) -> str:
    """A source archive with thirteen bands at three resolutions; its SHA-256."""
    steps = {"B01": 60, "B09": 60, "B10": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10}
    with tarfile.open(path, "w:gz") as archive:
        for number, band in enumerate(L1C13):
            step = steps.get(band, 20)
            size = 120 // step * 10
            grid = raster.Grid("EPSG:32632", (step, 0, 5e5, 0, -step, 5.83e6), size, size)
            dn = np.full((1, size, size), 100 + number, np.uint16)
            dn[0, : size // 2] = 0
            source = folder / f"{band}.tif"
            raster.write_cog(source, dn, grid, descriptions=(band,), nodata=None)
            archive.add(source, f"toy-1.0/data/{band}.tif")
        text = io.BytesIO(b"raise SystemExit('never run')")
        entry = tarfile.TarInfo("toy-1.0/setup.py")
        entry.size = len(text.getvalue())
        archive.addfile(entry, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_packaged_image_becomes_one_raster_of_named_bands(tmp_path):
    """Bands of 20 m and 60 m land on the 10 m grid; an archive put there by hand is used."""
    cache = tmp_path / "cache"
    cache.mkdir()
    facts = {
        "package": "toy",
        "version": "1.0",
        "sha256": make_archive(cache / "toy-1.0.tar.gz", tmp_path),
        "files": "data/{band}.tif",
        "licence": "CC0-1.0",
        "level": "L1C",
    }
    output = tmp_path / "toy.tif"
    fetch_image(facts, cache=cache, output=output)
    with raster.open_raster(output) as dataset:
        assert dataset.descriptions == L1C13 and dataset.res == (10, 10)
        stack = dataset.read()
    assert np.array_equal(stack[:, -1, -1], 100 + np.arange(13))
    assert (stack[:, 0, 0] == 1).all()  # a dark pixel is no hole


def test_an_archive_with_another_checksum_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "away.tar.gz"
    archive.write_bytes(b"something else")
    monkeypatch.setattr(packages, "_archive_url", lambda name, version: archive.as_uri())
    with pytest.raises(InputError, match="SHA-256"):
        packages.fetch_archive("toy", "1.0", sha256="0" * 64, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_without_uv_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda *_, **__: None)
    with pytest.raises(InputError, match="install uv, or put toy-1.0.tar.gz into the cache"):
        packages.fetch_archive("toy", "1.0", sha256="0" * 64, cache=tmp_path)
