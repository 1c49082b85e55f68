"""The network chronos: what it must never look at, its options, how it learns and adapts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds
from scipy.ndimage import gaussian_filter
from tests.unit.test_experts import hide_and_spoil, make_inputs

from unveil.bands import CLEAR, CLOUD, CORE6, L1C13
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.chronos import adaptation, learning
from unveil.models.chronos.experts import EXPERTS, SPREADS
from unveil.models.chronos.model import CALIBRATION, SENSOR_STD, Chronos
from unveil.models.chronos.network import build_network, network_arrays
from unveil.places.series import Series, load_series
from unveil.raster import Grid
from unveil.scene import Frame, Scene
from unveil.training.card import write_weights
from unveil.training.loop import TrainingPlan, train
from unveil.training.run import refuse_shared_places
from unveil.training.series.options import SampleOptions
from unveil.training.series.sample import draw_sample
from unveil.training.tasks.series import SeriesTask

TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
GRID = Grid("EPSG:32634", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 48, 64)
SCENE = Scene("s", "none", "p", GRID, (Frame("2020-06-01", "target", Path(), CORE6),))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights drawn by seed, small enough to keep the answer near the closed form."""
    rng = np.random.default_rng(1)
    arrays = network_arrays(build_network("small"))
    drawn = {k: v + rng.normal(0, 0.05, v.shape) for k, v in arrays.items()}
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    write_weights(path, drawn | {CALIBRATION: np.full(2, 1.5, np.float32)})
    return path


def answer(weights: Path, inputs, **options):
    model = Chronos(ModelSpec("c", "chronos", weights=weights, options=options))
    model.load()
    model.prepare(SCENE, [inputs])
    return model.predict(inputs)


@pytest.mark.slow
def test_attention_never_looks_at_cloud(weights):
    inputs, spoiled = hide_and_spoil(make_inputs(), target=0.9, context=0.05)
    one, other = answer(weights, inputs), answer(weights, spoiled)
    np.testing.assert_array_equal(one.reflectance, other.reflectance)
    np.testing.assert_array_equal(one.std, other.std)


@pytest.mark.slow
def test_the_order_of_the_bands_does_not_matter(weights):
    inputs = make_inputs()
    order = [3, 0, 5, 1, 4, 2]
    turned = replace(
        inputs,
        bands=tuple(inputs.bands[i] for i in order),
        target=inputs.target[order],
        context=inputs.context[:, order],
    )
    one, other = answer(weights, inputs), answer(weights, turned)
    np.testing.assert_allclose(one.reflectance[order], other.reflectance, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("bands", "frames"), [(("B04",), 3), (TEN, 6), (L1C13, 1), (CORE6, 24)])
def test_any_bands_and_any_number_of_frames_will_do(weights, bands, frames):
    inputs = make_inputs(bands=bands, frames=frames)
    found = answer(weights, inputs, keep_clear=False)
    assert found.reflectance.shape == found.std.shape == (len(bands), *inputs.shape)
    assert np.isfinite(found.reflectance).all() and (found.std > 0).all()
    if frames > 1:  # the target is a mixture of the frames
        error = np.abs(found.reflectance - inputs.target)[:, ~inputs.target_clear].mean()
        nearest = np.abs(inputs.context[1] - inputs.target)[:, ~inputs.target_clear].mean()
        assert error < nearest


@pytest.mark.slow
def test_radar_helps_where_the_target_follows_it_and_can_be_missing(weights):
    inputs = make_inputs()
    rng = np.random.default_rng(3)
    sar = (-14 + 4 * gaussian_filter(rng.normal(0, 3, (2, *inputs.shape)), (0, 2, 2))).astype("f4")
    target = np.clip(inputs.target + 0.02 * (sar[:1] + 14), 0.01, 1).astype(np.float32)
    seen, blind = replace(inputs, target=target, sar=sar), replace(inputs, target=target)
    gaps = replace(seen, sar=np.full_like(sar, np.nan))
    hidden = ~inputs.target_clear
    errors = [
        np.abs(answer(weights, one).reflectance - target)[:, hidden].mean()
        for one in (seen, blind, gaps)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert errors[2] == pytest.approx(errors[1], rel=0.05)


@pytest.mark.slow
def test_clear_pixels_are_kept_predicted_or_blended(weights):
    inputs = make_inputs()
    clear = inputs.target_clear
    kept, free, blend = (
        answer(weights, inputs, keep_clear=keep) for keep in (True, "false", "blend")
    )
    np.testing.assert_array_equal(kept.reflectance[:, clear], inputs.target[:, clear])
    assert (kept.std[:, clear] == np.float32(SENSOR_STD)).all()
    for other in (free, blend):
        np.testing.assert_array_equal(kept.reflectance[:, ~clear], other.reflectance[:, ~clear])
    low = np.minimum(free.reflectance, inputs.target)[:, clear] - 1e-6
    high = np.maximum(free.reflectance, inputs.target)[:, clear] + 1e-6
    assert ((blend.reflectance[:, clear] >= low) & (blend.reflectance[:, clear] <= high)).all()
    assert (blend.std[:, clear] <= SENSOR_STD + 1e-7).all()


def test_a_bad_option_is_named():
    with pytest.raises(InputError, match="keep_clear"):
        Chronos(ModelSpec("c", "chronos", options={"keep_clear": "sometimes"}))
    with pytest.raises(InputError, match="size"):
        Chronos(ModelSpec("c", "chronos", options={"size": "huge"}))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["base", "large"])
def test_larger_sizes_are_the_same_code(size, tmp_path):
    network = build_network(size)
    arrays = network_arrays(network)
    path = tmp_path / "w.npz"
    drawn = {k: v + 1e-4 for k, v in arrays.items()}
    write_weights(path, drawn | {CALIBRATION: np.full(2, 1, np.float32)})
    assert np.isfinite(answer(path, make_inputs(), size=size).reflectance).all()
    with pytest.raises(InputError, match="misshapen"):
        answer(path, make_inputs(), size="small")


def widened(inputs):
    """Return inputs of 64 x 64 px, the least that adaptation has windows for."""
    pad = {"mode": "reflect"}
    return replace(
        inputs,
        target=np.pad(inputs.target, ((0, 0), (0, 0), (0, 16)), **pad),
        target_class=np.pad(inputs.target_class, ((0, 0), (0, 16)), **pad),
        target_probability=np.pad(inputs.target_probability, ((0, 0), (0, 16)), **pad),
        context=np.pad(inputs.context, ((0, 0), (0, 0), (0, 0), (0, 16)), **pad),
        context_class=np.pad(inputs.context_class, ((0, 0), (0, 0), (0, 16)), **pad),
    )


@pytest.mark.slow
def test_adaptation_never_makes_the_exam_worse(monkeypatch):
    monkeypatch.setattr(adaptation, "LESSONS", 8)
    monkeypatch.setattr(adaptation, "EXAMS", 4)
    monkeypatch.setattr(adaptation, "ROUNDS", 3)
    network = build_network("small")
    network.set_weights([w + 0.05 for w in network.get_weights()])
    before = [w.copy() for w in network.get_weights()]
    improved = adaptation.adapt(network, [widened(make_inputs(frames=6))], minutes=5)
    moved = any((a != b).any() for a, b in zip(before, network.get_weights(), strict=True))
    assert moved == (improved > 0)
    assert improved > 0, "weights off by 0.05 leave much to learn"


def test_pixels_of_the_exam_are_never_learnt_from():
    window = widened(make_inputs(frames=6))
    exam = adaptation._exam_pixels(window)
    assert exam.mean() == pytest.approx(0.2, abs=0.1)
    for own in (True, False):
        lesson, trial = (
            adaptation._hide(window, np.random.default_rng(0), own=own, part=part)
            for part in ("lesson", "exam")
        )
        assert np.isnan(lesson.truth[:, exam]).all() and not lesson.occluded[exam].any()
        assert trial.occluded.any() and not trial.occluded[~exam].any()


def test_pixels_of_the_exam_are_those_of_the_scene_and_not_of_the_window():
    whole = adaptation._exam_pixels(widened(make_inputs()))
    part = adaptation._cut(widened(make_inputs()), 24, 40)
    np.testing.assert_array_equal(adaptation._exam_pixels(part), whole[24:, 40:])


def test_windows_cover_a_tile_to_its_edges():
    tile = replace(widened(make_inputs()), origin=(128, 64))
    monthly = replace(
        tile,
        target=np.tile(tile.target, (1, 2, 2))[:, :100, :70],
        target_class=np.tile(tile.target_class, (2, 2))[:100, :70],
    )
    starts = {cut.args[1:] for cut in adaptation._windows(monthly)}
    assert starts == {(0, 0), (36, 0), (64, 0), (0, 6), (36, 6), (64, 6)} - {(64, 0), (64, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("times", [0.5, 2.0])
def test_calibration_finds_deviations_that_are_too_small_or_too_large(times, monkeypatch):
    monkeypatch.setattr(adaptation, "TRIALS", 8)
    tiles = [widened(make_inputs(frames=6))]
    network = build_network("small")
    right = adaptation.calibrate(network, tiles, factor=1.0)
    *others, bias = network.get_weights()
    assert bias.shape == (len(EXPERTS) + 1 + len(SPREADS) + 2,)
    bias[-1] += np.log(times)
    network.set_weights([*others, bias])
    share = adaptation.TRIALS / (adaptation.TRIALS + adaptation.PRIOR_TRIALS)
    found = adaptation.calibrate(network, tiles, factor=1.0)
    assert found == pytest.approx(right * times**-share, rel=0.1)


@pytest.mark.parametrize("family", ["normal", "laplace"])
@pytest.mark.parametrize("unit", [0.5, 1.0, 2.0])
def test_the_factor_makes_both_intervals_cover_what_they_promise(family, unit):
    rng = np.random.default_rng(5)
    deviation = np.abs(getattr(rng, family)(0, unit, 200_000))
    factor = learning.std_factor(deviation)
    assert 0.63 <= (deviation <= factor).mean() <= 0.735
    assert 0.92 <= (deviation <= 1.96 * factor).mean() <= 0.98
    if family == "normal":
        assert factor == pytest.approx(unit, rel=0.02)


def test_the_likelihood_is_best_where_the_scale_is_the_mean_error():
    error = np.random.default_rng(1).laplace(0, 0.7, (2, 40, 40)).astype(np.float32)
    scales = np.linspace(0.3, 1.5, 60)
    losses = [
        float(
            learning.series_loss(
                np.stack([error, np.full_like(error, np.log(b))], axis=-1),
                truth=np.zeros_like(error),
                weight=np.ones_like(error),
                scale=np.ones(2, np.float32),
            )
        )
        for b in scales
    ]
    mean = np.abs(error).mean()
    assert scales[np.argmin(losses)] == pytest.approx(mean, abs=0.03)
    assert min(losses) == pytest.approx(np.log(mean) + 1 + mean, abs=1e-3)


def test_the_spectral_loss_is_the_angle_and_brightness_leaves_it_at_zero():
    rng = np.random.default_rng(2)
    one, other = rng.uniform(0.02, 0.5, (2, 3, 6, 8, 8)).astype(np.float32)
    weight = (rng.random((3, 8, 8)) < 0.5).astype(np.float32)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    angle = (np.arccos(cosine) * weight).sum() / weight.sum()
    found = learning.spectral_loss(one, truth=other, weight=weight)
    assert float(found) == pytest.approx(angle, abs=1e-3)
    assert float(learning.spectral_loss(one, truth=1.7 * one, weight=weight)) < 1e-3


def make_series(name: str, *, west: float, seed: int) -> Series:
    """Return a place with seasons, some dates cloudy."""
    rng = np.random.default_rng(seed)
    base = make_inputs(seed).context[0][:, :48, :48]
    days = 737000 + 10 * np.arange(20)
    season = 1 + 0.3 * np.sin(np.arange(20) / 3)[:, None, None, None]
    stack = np.clip(base * season + rng.normal(0, 0.003, (20, 6, 48, 48)), 0.01, 1)
    classes = np.full((20, 48, 48), CLEAR, np.uint8)
    classes[::4, :20] = CLOUD
    bbox = (west, 45.0, west + 0.01, 45.01)
    return Series(name, CORE6, stack.astype(np.float32), classes, days, bbox)


@pytest.mark.parametrize("seed", range(6))
def test_a_sample_hides_its_truth_and_never_gives_its_own_date(seed):
    series, rng = make_series("a", west=10, seed=seed), np.random.default_rng(seed)
    image = np.clip(make_inputs(9).context[1], 0.01, 1)
    sample = draw_sample([series], [image], size=32, options=SampleOptions(), rng=rng)
    inputs = sample.inputs
    assert 3 <= len(inputs.days) <= 12 and (inputs.days != 0).all()
    assert sample.occluded.shape == (32, 32) and np.isfinite(sample.truth[:, sample.occluded]).all()
    assert (inputs.target[:, sample.occluded] == np.float32(0.5)).all()
    assert not inputs.target_clear[sample.occluded].any()


@pytest.mark.slow
def test_training_lowers_the_loss_and_resumes_exactly(tmp_path):
    def task() -> SeriesTask:
        return SeriesTask(
            "small",
            series=[make_series("a", west=10, seed=1)],
            images=[],
            held_out=[make_series("b", west=20, seed=2)],
            options=SampleOptions(),
            pool=4,
            fresh=1,
        )

    plan = TrainingPlan(
        steps=6,
        batch=2,
        crop=48,
        validation_crop=48,
        optimiser="adam",
        learning_rate=2e-3,
        warmup=2,
        precision="float32",
        checkpoint_every=2,
        patience=5,
        seed=3,
    )
    whole, progress = train(task(), plan, folder=tmp_path / "whole")
    assert progress.log[-1]["loss"] < progress.log[0]["loss"]
    train(task(), plan, folder=tmp_path / "sliced", stop_after=3)  # one step is lost
    resumed, again = train(task(), plan, folder=tmp_path / "sliced")
    assert [row["loss"] for row in again.log] == pytest.approx(
        [row["loss"] for row in progress.log], rel=1e-4
    )
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_place_on_both_sides_is_refused():
    one = make_series("a", west=10.0, seed=1)
    with pytest.raises(InputError, match="a and b are the same place"):
        refuse_shared_places([one], [make_series("b", west=10.015, seed=2)])
    refuse_shared_places([one], [make_series("b", west=10.05, seed=2)])


def test_shipped_weights_saw_no_place_of_the_example_or_of_the_evidence(root):
    card = json.loads((root / "resources/weights/chronos-small.json").read_text())
    evaluated = {"Romania": (22.0, 44.0, 28.0, 48.0)}
    for path in (root / "resources/example").rglob("*.tif"):
        with rasterio.open(path) as dataset:
            if dataset.crs:
                bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
                evaluated[str(path)] = bounds
    assert len(evaluated) > 5
    assert len(card["places"]) >= 3
    for place in card["places"]:
        west, south, east, north = place["bbox"]
        for name, (w, s, e, n) in evaluated.items():
            apart = w > east + 0.05 or e < west - 0.05 or s > north + 0.05 or n < south - 0.05
            assert apart, f"{place['id']} and {name}"


def test_a_damaged_series_is_named(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="reflectance, classes, days"):
        load_series(path, name="x")
