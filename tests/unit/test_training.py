"""Training learns, resumes where it stopped, and says what it has seen."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.warp import transform_bounds
from tests.unit.scripted_server import scripted
from tests.unit.test_chronos import make_series

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.dsen2cr.model import Dsen2Cr
from unveil.models.dsen2cr.network import build_network, load_weights
from unveil.models.dsen2cr.recipe import Fill, network_input
from unveil.places import packages
from unveil.places.series import Series
from unveil.scene import Inputs
from unveil.training import loop
from unveil.training.datasets import fetch_image
from unveil.training.loop import TrainingPlan, train
from unveil.training.losses import cloud_adaptive_loss
from unveil.training.run import train_run
from unveil.training.shots import (
    Sample,
    Shot,
    cut,
    draw_sample,
    read_shots,
    relit,
    shots_of,
    turned,
    under_clouds,
    write_shots,
)
from unveil.training.tasks.single_image import (
    Batch,
    Recipe,
    SingleImageTask,
    clear_mean_predictor,
    cloudy_predictor,
    encode,
    evaluate,
    network_predictor,
)
from unveil.weights.read import read_weights

NETWORK = {"bands": ["B03", "B04", "B08"], "radar": False, "features": 8, "blocks": 1}
PLAN = TrainingPlan(
    steps=40,
    batch=8,
    crop=16,
    validation_crop=20,
    optimiser="adam",
    learning_rate=0.02,
    warmup=5,
    precision="float32",
    checkpoint_every=10,
    patience=10,
    seed=1,
)
PAIR_DAYS = 15
TRAINED = {"a": 10.0}
HELD_OUT = {"b": 20.0, "c": 30.0}


def with_radar(series: Series) -> Series:
    """Give a series radar on all its dates but the last two."""
    radar = np.full((len(series.days), 2, *series.classes.shape[1:]), -12, np.float32)
    radar[:, 1] = -18
    days = series.days.copy()
    days[-2:] += 400
    return replace(series, radar=radar, radar_days=days)


def shots(places: dict[str, float], *, seed: int, radar: bool) -> list[Shot]:
    """Clear dates and pairs of some places."""
    series = [make_series(name, west=west, seed=seed) for name, west in places.items()]
    if radar:
        series = [with_radar(one) for one in series]
    return [shot for one in series for shot in shots_of(one, pair_days=PAIR_DAYS)]


def make_task(network: dict = NETWORK, **changes) -> SingleImageTask:
    """A place to learn from and two to validate on, as in a run of the config."""
    settings = {
        "shots": shots(TRAINED, seed=1, radar=True),
        "held_out": shots(HELD_OUT, seed=2, radar=False),
        "recipe": Recipe(pool=40),
    }
    return SingleImageTask(network, **settings | changes)


def one_sample(seed: int = 2) -> Sample:
    """A scene of a place with radar, under simulated clouds."""
    clear = [shot for shot in shots(TRAINED, seed=1, radar=True) if shot.cloudy is None]
    return draw_sample(clear, CORE6, size=32, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run from the first step to the last, with its folder."""
    folder = tmp_path_factory.mktemp("run")
    return *train(make_task(), PLAN, folder=folder), folder


def test_the_loss_falls(uninterrupted):
    _, progress, _ = uninterrupted
    losses = [row["loss"] for row in progress.log]
    assert [row["step"] for row in progress.log] == [10, 20, 30, 40]
    assert losses[-1] < 0.7 * losses[0]
    assert progress.best_score == min(row["mae_occluded"] for row in progress.log)


def test_a_trained_network_is_nearer_to_the_truth_than_its_input(uninterrupted):
    network, _, _ = uninterrupted
    held_out = make_task().validation(PLAN)
    learned = evaluate(network_predictor(network), held_out)
    cloudy = evaluate(cloudy_predictor, held_out)
    assert set(learned) == {"b", "b-pairs", "c", "c-pairs"}
    for place in HELD_OUT:  # the clouds of these dates are real in shape alone
        assert learned[place]["mae_occluded"] < cloudy[place]["mae_occluded"]


@pytest.mark.parametrize("optimiser", ["adam", "nadam"])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(tmp_path, optimiser):
    plan = replace(PLAN, steps=20, optimiser=optimiser)
    whole, _ = train(make_task(), plan, folder=tmp_path / "whole")
    train(make_task(), plan, folder=tmp_path / "sliced", stop_after=13)  # three steps are lost
    stored = np.load(tmp_path / "sliced" / "checkpoint.npz")
    assert json.loads(str(stored["header"]))["step"] == 10
    resumed, progress = train(make_task(), plan, folder=tmp_path / "sliced")
    assert progress.step == 20
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    logs = [(tmp_path / name / "log.csv").read_text().split() for name in ("whole", "sliced")]
    assert len(logs[0]) == len(logs[1]) == 3


def test_a_finished_run_is_not_trained_again(uninterrupted):
    network, progress, folder = uninterrupted
    again, same = train(make_task(), PLAN, folder=folder)
    assert same.step == progress.step and same.log == progress.log
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_checkpoint_of_another_plan_is_not_continued(tmp_path):
    train(make_task(), replace(PLAN, steps=10), folder=tmp_path)
    _, progress = train(make_task(), replace(PLAN, steps=10, seed=2), folder=tmp_path)
    assert len(progress.log) == 1


def test_a_checkpoint_of_other_code_is_not_continued(tmp_path, monkeypatch):
    train(make_task(), replace(PLAN, steps=10), folder=tmp_path)
    monkeypatch.setattr(loop, "code_of", lambda stage: f"another version of {stage}")
    _, progress = train(make_task(), replace(PLAN, steps=10), folder=tmp_path)
    assert len(progress.log) == 1


def test_training_stops_when_nothing_improves(tmp_path):
    plan = replace(PLAN, steps=60, learning_rate=0.0, warmup=0, patience=2)
    _, progress = train(make_task(), plan, folder=tmp_path)
    assert (progress.best_step, progress.step) == (10, 30)


def test_mixed_precision_keeps_variables_in_float32(tmp_path):
    plan = replace(PLAN, steps=2, batch=1, precision="mixed_bfloat16")
    network, _ = train(make_task(), plan, folder=tmp_path)
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


def test_loss_asks_for_the_truth_under_cloud_and_for_the_input_elsewhere():
    """Closed form: half the pixels are occluded; truth 1, input 3, prediction 2."""
    shape = (1, 2, 2, 3)
    occluded = np.zeros((1, 2, 2, 1), np.float32)
    occluded[0, 0] = 1
    clear, cloudy, prediction = (np.full(shape, value, np.float32) for value in (1, 3, 2.5))
    loss = cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)
    assert float(loss) == pytest.approx((1.5 + 0.5) / 2 + 1.5)


def make_batch(hidden: Iterable[float], *, size: int = 20) -> Batch:
    """Scenes of correlated noise, of which the uppermost share of rows is hidden."""
    rng = np.random.default_rng(0)
    shares = list(hidden)
    clear = rng.uniform(0.2, 1, (len(shares), size, size, 3)).astype(np.float32)
    occluded = np.zeros((len(shares), size, size, 1), np.float32)
    for number, share in enumerate(shares):
        occluded[number, : round(share * size)] = 1
    return Batch(np.where(occluded > 0, np.float32(4), clear), clear, occluded)


def test_error_is_counted_in_reflectance_by_hidden_share():
    batch = make_batch([0.2, 0.5, 0.9])
    scores = evaluate(lambda b: b.clear + 0.5 * b.occluded, {"x": batch})["x"]
    assert scores.pop("mae_clear") == pytest.approx(0, abs=1e-6)
    levels = ("mae_occluded_below_35", "mae_occluded_35_to_65", "mae_occluded_above_65")
    assert scores == pytest.approx(dict.fromkeys(("mae_occluded", *levels), 0.1), rel=1e-4)
    wrong_once = evaluate(
        lambda b: b.clear + np.float32([0, 0, 0.5])[:, None, None, None], {"x": batch}
    )
    assert wrong_once["x"]["mae_occluded_above_65"] == pytest.approx(0.1, rel=1e-4)
    assert wrong_once["x"]["mae_occluded"] == pytest.approx(0.1 / 3, rel=1e-4)


def test_the_mean_of_clear_pixels_fills_occluded_ones():
    batch = make_batch([0.6])
    filled = clear_mean_predictor(batch)
    hidden = batch.occluded[0, ..., 0] > 0
    assert np.array_equal(filled[0][~hidden], batch.cloudy[0][~hidden])
    expected = batch.cloudy[0][~hidden].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(filled[0][hidden].mean(axis=0), expected, rtol=1e-4)


def test_a_sample_is_encoded_as_the_model_sees_it():
    """What the network is given in training is what the model gives it in use."""
    sample = one_sample()
    batch = encode(sample, radar_fill=-13.0)
    model = Dsen2Cr(ModelSpec("m", "dsen2cr", options={"bands": list(CORE6)}))
    seen = []
    model._run = lambda given: seen.append(given) or given[..., : len(CORE6)]
    none = np.empty((0, 6, 32, 32), np.float32)
    classes = np.where(sample.hidden, CLOUD, CLEAR).astype(np.uint8)
    inputs = Inputs(
        bands=CORE6,
        target=sample.cloudy,
        target_class=classes,
        target_probability=np.full((32, 32), np.nan, np.float32),
        context=none,
        context_class=none[:, 0].astype(np.uint8),
        days=np.empty(0, np.float32),
        sar=sample.radar,
        target_date="2020-06-15",
        level="L2A",
    )
    model.predict(inputs)
    np.testing.assert_allclose(batch.given, seen[0], rtol=1e-3, atol=1e-3)  # float16
    truth = np.moveaxis(sample.clear, 0, -1) * 5
    np.testing.assert_allclose(batch.clear[0], truth, rtol=1e-3, atol=1e-3)
    assert np.array_equal(batch.occluded[0, ..., 0] > 0, sample.hidden)


def test_where_the_truth_is_unknown_the_input_stands_for_it():
    sample = one_sample()
    truth = sample.clear.copy()
    truth[:, 3, 4] = np.nan
    batch = encode(replace(sample, clear=truth), radar_fill=None)
    assert np.array_equal(batch.clear[0, 3, 4], batch.cloudy[0, 3, 4])
    assert not batch.occluded[0, 3, 4]
    assert batch.given.shape == (1, 32, 32, 6) and np.isfinite(batch.clear).all()


def test_radar_that_is_missing_is_filled_by_the_mean_of_the_training():
    """Where a place has none, or too far away, one value stands for both polarisations."""
    network = NETWORK | {"radar": True}
    task = make_task(network, recipe=Recipe(pool=40, real=0.0))
    assert task.radar_fill == pytest.approx(-15)
    expected = np.array([[-12, -18], [-15, -15]])  # dB; scaled as the model scales them
    real, fill = (
        network_input(np.zeros((1, 1, 1)), radar[:, None, None], Fill(0, 0))[0, 0, 1:]
        for radar in expected
    )
    given = task.draw(replace(PLAN, batch=64), 0, np.random.default_rng(0))[0]
    kinds = {tuple(np.round(pixel, 2)) for pixel in given[:, 0, 0, 3:].astype(float)}
    assert kinds == {tuple(np.round(k.astype(float), 2)) for k in (real, fill)}
    assert make_task().draw(PLAN, 0, np.random.default_rng(0))[0].shape[-1] == 3
    with pytest.raises(InputError, match="no series trained on has radar"):
        make_task(network, shots=shots(TRAINED, seed=1, radar=False))


def test_places_smaller_than_a_crop_are_left_out_and_named_when_none_remains():
    with pytest.raises(InputError, match="no clear image of 64 pixels has the bands B03, B04, B08"):
        make_task().draw(replace(PLAN, crop=64), 0, np.random.default_rng(0))


def test_a_place_without_the_bands_is_left_out():
    few = replace(
        shots(TRAINED, seed=1, radar=False)[0], bands=CORE6[:2], clear=np.ones((2, 40, 40))
    )
    task = make_task(shots=[few, *shots(TRAINED, seed=1, radar=True)])
    simulated, real = task.pools(PLAN)
    assert all(len(shot.bands) == 6 for pool in (simulated, real) for shot in pool.shots)


def test_real_pairs_are_seen_after_the_simulated_clouds():
    """Half the scenes of the later steps; pairs are marked by a truth that nothing else has."""
    marked = [
        shot if shot.cloudy is None else replace(shot, clear=np.full_like(shot.clear, 9_999))
        for shot in shots(TRAINED, seed=1, radar=False)
    ]
    task = make_task(shots=marked, recipe=Recipe(pool=8, real=0.5, pretrain=0.25))

    def paired(step: int) -> int:
        clear = task.draw(PLAN, step, np.random.default_rng(step))[1].astype(float)
        return int((clear.std(axis=(1, 2)).max(axis=-1) < 1e-6).sum())

    assert [paired(step) for step in (0, 9, 10, 39)] == [0, 0, 4, 4]


def test_a_pair_is_a_cloudy_date_and_the_nearest_clear_one():
    series = make_series("a", west=10, seed=1)
    found = shots_of(series, pair_days=PAIR_DAYS)
    pairs = [shot for shot in found if shot.cloudy is not None]
    assert pairs and sum(shot.weight for shot in found) == pytest.approx(1)
    dn = raster.to_dn(series.reflectance)

    def same(image: np.ndarray) -> int:
        return int(np.abs(dn.astype(int) - image).mean(axis=(1, 2, 3)).argmin())

    for pair in pairs:
        cloudy, clear = same(pair.cloudy), same(pair.clear)
        clear_days = [series.days[same(s.clear)] for s in found if s.cloudy is None]
        assert abs(series.days[cloudy] - series.days[clear]) == min(
            abs(series.days[cloudy] - day) for day in clear_days
        )
    assert not [s for s in shots_of(series, pair_days=0) if s.cloudy is not None]
    hazy = replace(series, classes=np.full_like(series.classes, CLOUD))
    with pytest.raises(InputError, match="a has no date that is 97% clear"):
        shots_of(hazy, pair_days=PAIR_DAYS)


def test_shots_come_back_from_their_file_to_the_step_of_their_rounding(tmp_path):
    before = shots(TRAINED, seed=1, radar=True)
    before[0].radar[0, 2, 3] = np.nan
    before[0].clear[:, 4, 5] = 0
    write_shots(tmp_path / "shots.xz", before, notes={"made": "here"})
    after, notes = read_shots(tmp_path / "shots.xz")
    assert notes == {"made": "here"} and len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        assert (one.place, one.level, tuple(one.bands)) == (other.place, other.level, other.bands)
        for name in ("clear", "cloudy"):
            stored, read = getattr(one, name), getattr(other, name)
            assert (stored is None) == (read is None)
            if stored is not None:
                assert np.abs(stored.astype(int) - read).max() <= 7
                assert np.array_equal(stored == 0, read == 0)
        np.testing.assert_array_equal(one.hidden, other.hidden)
        if one.radar is not None:
            np.testing.assert_allclose(one.radar, other.radar, atol=0.006)


def test_light_and_turns_change_cloud_and_ground_alike():
    """Ratios of the two images stay, and so does what is hidden."""
    sample = one_sample()
    for vary in (relit, turned):
        other = vary(sample, np.random.default_rng(3))
        ratio, before = (np.sort((s.cloudy / s.clear).ravel()) for s in (other, sample))
        np.testing.assert_allclose(ratio, before, rtol=1e-4)
        assert other.hidden.sum() == sample.hidden.sum()
    bright = relit(sample, np.random.default_rng(3)).clear / sample.clear
    assert np.ptp(bright, axis=(1, 2)).max() < 1e-4  # one factor a band


def test_simulated_clouds_hide_what_they_say_and_leave_haze_elsewhere():
    shot = next(s for s in shots(TRAINED, seed=1, radar=False) if s.cloudy is None)
    clear = cut(shot, CORE6, size=32, rng=np.random.default_rng(1))
    cloudy = under_clouds(clear, CORE6, cover=0.5, rng=np.random.default_rng(4))
    assert cloudy.hidden.mean() == pytest.approx(0.5, abs=0.01)
    excess = (cloudy.cloudy - clear.clear)[0]
    assert 0 < excess[~cloudy.hidden].mean() < excess[cloudy.hidden].mean()
    assert np.array_equal(cloudy.clear, clear.clear)


def test_validation_is_on_held_out_places_and_does_not_depend_on_what_was_drawn_before():
    task = make_task()
    first = task.validation(PLAN)
    task.draw(PLAN, 0, np.random.default_rng(0))
    second = task.validation(PLAN)
    for place in HELD_OUT:
        assert np.array_equal(first[place].given, second[place].given)
        shares = first[place].occluded.mean(axis=(1, 2, 3))
        assert shares.min() < 0.35 and shares.max() > 0.65
    marked = [
        replace(shot, clear=np.full_like(shot.clear, 500)) if shot.place == "c" else shot
        for shot in task.held_out
    ]
    other = make_task(held_out=marked).validation(PLAN)
    assert np.allclose(other["c"].clear, 0.25, atol=1e-3)
    assert other["b"].clear.max() > 0.3


@pytest.mark.parametrize("radar", [False, True])
def test_weights_and_card_leave_a_run(tmp_path, radar):
    """The smoke test of a whole run: weights load into the model, the card lists places."""
    paths = {}
    for name, west in (TRAINED | HELD_OUT).items():
        place = with_radar(make_series(name, west=west, seed=1))
        paths[name] = tmp_path / f"{name}.npz"
        np.savez(
            paths[name],
            reflectance=raster.to_dn(place.reflectance),
            **{k: getattr(place, k) for k in ("classes", "days", "radar", "radar_days")},
            bands=np.array(CORE6),
            bbox=np.array(place.bbox),
            level=np.array("L1C"),
        )
    network = {"bands": list(CORE6), "radar": radar, "features": 4, "blocks": 1}
    run = {
        "kind": "dsen2cr",
        "title": "tiny",
        "series": {"a": 1.0},
        "held_out": ["b", "c"],
        "images": [],
        "network": network,
        "samples": {"pool": 10, "real": 0.5, "pair_days": PAIR_DAYS},
        "plan": vars(replace(PLAN, steps=10)),
        "limits": ["a toy"],
    }
    weights = tmp_path / "out" / "tiny.npz"
    sources = {name: {"licence": "none"} for name in paths}
    train_run(run, sources=sources, paths=paths, weights=weights, command="here")
    built = build_network(bands=6, radar=radar, features=4, blocks=1)
    load_weights(built, read_weights(weights))
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    roles = {place["id"]: place["role"] for place in card["places"]}
    assert roles == {"a": "trained on", "b": "validated on", "c": "validated on"}
    assert card["places"][0]["level"] == "L1C" and card["places"][0]["bbox"][0] == 10
    assert set(card["validation"]["scores"]) == {
        "network",
        "cloudy_input",
        "clear_mean_of_sample",
    }
    assert set(card["validation"]["scores"]["network"]) == {"b", "b-pairs", "c", "c-pairs"}
    assert ("radar_fill_db" in card["training"]) == radar
    assert card["training"]["steps_done"] == 10 and card["limits"] == ["a toy"]
    assert not (weights.parent / "checkpoint.npz").exists()
    with pytest.raises(InputError, match="a and d are the same place"):
        train_run(
            run | {"held_out": ["d"]},
            sources=sources | {"d": {}},
            paths=paths | {"d": paths["a"]},
            weights=weights,
            command="here",
        )


def test_no_place_that_was_trained_on_is_evaluated(root):
    """Cards of all weights shipped, against the example and the place that develops."""
    evaluated = {"Romania": (22.0, 44.0, 28.0, 48.0)}
    for path in (root / "resources/example").rglob("*.tif"):
        with rasterio.open(path) as dataset:
            if dataset.crs:
                evaluated[str(path)] = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    assert len(evaluated) > 5
    cards = list((root / "resources/weights").glob("*.json"))
    assert cards
    for card in cards:
        for place in json.loads(card.read_text())["places"]:
            west, south, east, north = place["bbox"]
            for name, (w, s, e, n) in evaluated.items():
                apart = w > east + 0.05 or e < west - 0.05 or s > north + 0.05 or n < south - 0.05
                assert apart, f"{card.name}: {place['id']} and {name}"


def test_runs_hold_out_what_they_do_not_train_on(root):
    runs = yaml.safe_load((root / "config/training.yaml").read_text())["runs"]
    for name, run in runs.items():
        seen = {*run["series"], *run["images"]}
        assert not seen & set(run["held_out"]), name
    kept = {name for name in yaml.safe_load((root / "config/training.yaml").read_text())["series"]}
    kept = {name for name in kept if name.startswith("sen12mscr-spring-39-")}
    assert len(kept) == 2  # of the demo
    for name, run in runs.items():
        assert not kept & {*run["series"], *run["held_out"], *run["images"]}, name


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
    with scripted(lambda asked: (200, {}, b"something else")) as server:
        monkeypatch.setattr(packages, "_archive_url", lambda *asked: f"{server.url}/t.gz")
        with pytest.raises(InputError, match="SHA-256"):
            packages.fetch_archive("toy", "1.0", sha256="0" * 64, cache=tmp_path / "cache")
    assert not (tmp_path / "cache/toy-1.0.tar.gz").exists()


def test_an_archive_that_was_cut_off_is_continued(tmp_path, monkeypatch):
    """Bytes that came stay beside the name of the file; they are not asked for again."""
    data, sent = random.Random(3).randbytes(50_000), []

    def answer(asked):
        start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
        sent.append(start)
        facts = {"ETag": '"1"', "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return (206 if start else 200), facts, data[start:]

    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "toy-1.0.tar.gz.part").write_bytes(data[:20_000])
    with scripted(answer) as server:
        url = f"{server.url}/t.gz"
        note = {"url": url, "validator": '"1"'}
        (cache / "toy-1.0.tar.gz.part.json").write_text(json.dumps(note))
        monkeypatch.setattr(packages, "_archive_url", lambda *asked: url)
        found = packages.fetch_archive(
            "toy", "1.0", sha256=hashlib.sha256(data).hexdigest(), cache=cache
        )
    assert found.read_bytes() == data and sent == [20_000]


def test_without_uv_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda *_, **__: None)
    with pytest.raises(InputError, match="install uv, or put toy-1.0.tar.gz into the cache"):
        packages.fetch_archive("toy", "1.0", sha256="0" * 64, cache=tmp_path)
