"""Robust line, harmonics and led frames against closed forms and other ways to compute them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from unveil.bands import CLEAR, CLOUD
from unveil.models.base import ModelSpec
from unveil.models.far_pixels import measure_far_pixels
from unveil.models.harmonic import YEAR, HarmonicOptions, harmonic
from unveil.models.led_frames import (
    LedFramesOptions,
    fit_lines,
    join_led,
    trust_looks,
    untold_lines,
)
from unveil.models.registry import create
from unveil.models.robust_line import RobustLineOptions, robust_line
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene

seeds = st.integers(0, 2**32 - 1)
DAYS = np.array([3.0, -7, 12, -18, 22, -33, 41, -55])


def noisy_looks(seed, *, dates=8, bands=4, pixels=25):
    """Return looks around .2 and clear; what is not clear is 0."""
    random = np.random.default_rng(seed)
    clear = random.random((dates, pixels)) < 0.8
    looks = 0.2 + random.normal(0, 0.02, (dates, bands, pixels))
    return np.where(clear[:, None], looks, 0), clear


def whole(values: np.ndarray, pixels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return looks of three equal bands with some values in time, all clear."""
    looks = np.broadcast_to(values[:, None, None], (len(values), 3, pixels)).copy()
    return looks, np.ones((len(values), pixels), bool)


# --- robust line ------------------------------------------------------------------------------


def test_a_straight_line_in_time_is_found_exactly():
    looks, clear = whole(0.2 + 0.0004 * DAYS)
    found = robust_line(looks, clear, DAYS, RobustLineOptions(stiffness=0.0))
    np.testing.assert_allclose(found, 0.2, atol=1e-9)


@given(seeds)
@settings(max_examples=10)
def test_the_line_is_that_of_reweighted_least_squares(seed):
    looks, clear = noisy_looks(seed)
    options = RobustLineOptions()
    found = robust_line(looks, clear, DAYS, options)
    for pixel in np.flatnonzero(clear.any(axis=0)):
        seen = clear[:, pixel]
        expected = line_by_lstsq(looks[seen, :, pixel], DAYS[seen], options)
        np.testing.assert_allclose(found[:, pixel], expected, atol=1e-8)


def line_by_lstsq(values, days, options):
    """Return the line's value at day 0, of rows (weight, weight x time) and one for the slope."""
    time, haze = days / options.days, values[:, :3].mean(axis=1)
    fading = np.exp(-np.abs(days) / options.days)
    order = np.argsort(haze)
    middle = np.searchsorted(np.cumsum(fading[order]), fading.sum() / 2)
    above = haze - haze[order[min(middle, len(order) - 1)]]
    for _ in range(options.rounds + 1):
        bound = np.where(above > 0, options.haze, options.shadow)
        weight = fading * (np.clip(1 - (above / bound) ** 2, 0, None) ** 2 + 1e-3)
        rows = np.sqrt(weight)[:, None] * np.stack([np.ones_like(time), time], axis=1)
        stiff = np.array([[0, np.sqrt(options.stiffness * weight.sum())]])
        system = np.concatenate([rows, stiff])
        data = np.concatenate([np.sqrt(weight)[:, None] * values, np.zeros((1, values.shape[1]))])
        level, slope = np.linalg.lstsq(system, data, rcond=None)[0]
        above = haze - level[:3].mean() - slope[:3].mean() * time
    return level


@pytest.mark.parametrize("date", [0, 1, 4])
def test_one_hazy_look_hardly_moves_the_line(date):
    looks, clear = whole(np.full(8, 0.2))
    looks[date] += 0.15
    found = robust_line(looks, clear, DAYS, RobustLineOptions())
    np.testing.assert_allclose(found, 0.2, atol=2e-4)


def test_a_look_above_the_line_loses_weight_sooner_than_one_below():
    for sign in (1, -1):
        looks, clear = whole(np.full(8, 0.2))
        looks[2] += sign * 0.02
        found = robust_line(looks, clear, DAYS, RobustLineOptions(haze=0.03, shadow=0.06))
        moved = abs(found[0, 0] - 0.2)
        if sign > 0:
            above = moved
    assert above < moved


# --- pixels far from cloud --------------------------------------------------------------------


def scene_with_clouds(seed=4, *, size=90) -> tuple[Scene, Inputs]:
    """Return a place of a bright trend with context of every date, and two clouds over it."""
    random = np.random.default_rng(seed)
    ground = 0.1 + 0.1 * random.random((4, size, size))
    classes = np.full((size, size), CLEAR, np.uint8)
    classes[5:20, 60:85] = classes[70:75, 10:14] = CLOUD
    inputs = Inputs(
        bands=("B02", "B03", "B04", "B08"),
        target=ground.astype(np.float32),
        target_class=classes,
        target_probability=np.full((size, size), np.nan, np.float32),
        context=np.broadcast_to(ground, (8, *ground.shape)).astype(np.float32),
        context_class=np.zeros((8, size, size), np.uint8),
        days=DAYS.astype(np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), size, size)
    frame = Frame("2020-06-15", "target", Path(), inputs.bands)
    return Scene("s", "simulate", "p", grid, (frame,)), inputs


def cut_tiles(inputs: Inputs, edge: int) -> list[Inputs]:
    height, width = inputs.shape
    return [
        inputs.crop(slice(row, min(row + edge, height)), slice(col, min(col + edge, width)))
        for row in range(0, height, edge)
        for col in range(0, width, edge)
    ]


def positions(inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
    """Return row and column in the scene."""
    return np.stack(np.divmod(pixels, inputs.shape[1])) + np.array(inputs.origin)[:, None]


def test_far_pixels_lie_more_than_ten_pixels_from_cloud():
    scene, inputs = scene_with_clouds()
    rows, cols = measure_far_pixels(scene, [inputs], positions).astype(int)
    away = distance_transform_cdt(inputs.target_class != CLOUD, metric="chessboard")
    assert away[rows, cols].min() > 10
    found = np.zeros(inputs.shape, bool)
    found[rows, cols] = True
    assert found[away > 15].all(), "and no clear pixel is lost for long"


@pytest.mark.parametrize("edge", [13, 24, 89])
def test_far_pixels_do_not_depend_on_how_a_scene_is_cut(edge, monkeypatch):
    monkeypatch.setattr("unveil.models.far_pixels.MOST_SAMPLES", 2000)
    scene, inputs = scene_with_clouds()
    one = measure_far_pixels(scene, [inputs], positions)
    many = measure_far_pixels(scene, cut_tiles(inputs, edge), positions)
    assert sorted(map(tuple, one.T)) == sorted(map(tuple, many.T))
    assert one.shape[1] < 2000


@pytest.mark.parametrize("kind", ["robust_line", "led_frames"])
def test_the_level_of_the_day_comes_from_clear_pixels_far_from_cloud_alone(kind):
    scene, inputs = scene_with_clouds()
    away = distance_transform_cdt(inputs.target_class != CLOUD, metric="chessboard")
    target = inputs.target - np.where(away > 10, 0.02, -0.2).astype(np.float32)
    model = create(ModelSpec(kind, kind))
    seen = replace(inputs, target=target)
    model.prepare(scene, [seen])
    hidden = inputs.target_class == CLOUD
    change = (model.predict(seen).reflectance - inputs.target)[:, hidden]
    assert np.median(change) < -0.012
    assert change.min() > -0.02, "it is believed a little less than it says"


@pytest.mark.parametrize("kind", ["robust_line", "led_frames"])
def test_haze_over_the_whole_target_is_no_level(kind):
    scene, inputs = scene_with_clouds()
    hazy = replace(inputs, target=inputs.target + np.float32(0.03))
    model = create(ModelSpec(kind, kind))
    model.prepare(scene, [hazy])
    hidden = inputs.target_class == CLOUD
    found = model.predict(hazy).reflectance[:, hidden]
    np.testing.assert_allclose(found, inputs.target[:, hidden], atol=1e-6)
    assert "hazy" in model.notes[0]


@pytest.mark.parametrize("kind", ["robust_line", "led_frames"])
def test_a_level_that_is_known_needs_no_word_and_one_that_is_not_does(kind):
    scene, inputs = scene_with_clouds()
    model = create(ModelSpec(kind, kind))
    model.prepare(scene, [inputs])
    assert not model.notes
    model.prepare(scene, [replace(inputs, target_class=np.full_like(inputs.target_class, CLOUD))])
    assert "far from cloud" in model.notes[0]


def test_a_hazy_look_counts_little_among_led_ones():
    target, looks, _, _ = changed_looks(4)
    lines = fit_lines(looks, target, DAYS, LedFramesOptions(pixels=0))
    hazy = looks.copy()
    hazy[0] += 0.2
    clear = np.ones((8, 400), bool)
    trust = trust_looks(hazy, clear, lines, LedFramesOptions())
    np.testing.assert_allclose(join_led(hazy, trust, lines), target, atol=2e-3)


def test_a_target_without_a_far_pixel_gives_no_level():
    scene, inputs = scene_with_clouds()
    dark = replace(inputs, target_class=np.full(inputs.shape, CLOUD, np.uint8))
    for kind in ("robust_line", "led_frames"):
        model = create(ModelSpec(kind, kind))
        model.prepare(scene, [dark])
        np.testing.assert_allclose(model.predict(dark).reflectance, inputs.target, atol=1e-6)


# --- harmonics --------------------------------------------------------------------------------

SERIES = np.arange(-700.0, 300, 17)


@pytest.mark.parametrize("order", [1, 2])
def test_a_season_of_harmonics_is_found_exactly(order):
    turns = 2 * np.pi * SERIES / YEAR
    looks, clear = whole(0.3 + 0.02 * np.cos(turns) - 0.03 * np.sin(turns * order))
    found = harmonic(looks, clear, SERIES, HarmonicOptions(order=order, ridge=1e-9))
    np.testing.assert_allclose(found, 0.32, atol=1e-8)


@given(seeds)
@settings(max_examples=10)
def test_the_harmonics_and_their_residual_are_those_of_penalised_least_squares(seed):
    looks, clear = noisy_looks(seed)
    options = HarmonicOptions()
    found = harmonic(looks, clear, DAYS, options)
    for pixel in np.flatnonzero(clear.any(axis=0)):
        seen = clear[:, pixel]
        expected = harmonic_by_lstsq(looks[seen, :, pixel], DAYS[seen], DAYS, options)
        np.testing.assert_allclose(found[:, pixel], expected, atol=1e-6)


def harmonic_by_lstsq(values, days, all_days, options):
    """Return curve at day 0 plus the damped mean of what the looks lie above it."""

    def waves(t):
        columns = [np.ones_like(t)]
        for k in range(1, options.order + 1):
            columns += [np.sin(2 * np.pi * k * t / YEAR), np.cos(2 * np.pi * k * t / YEAR)]
        return np.stack(columns, axis=1)

    def fit(weight, data):
        count = 2 * options.order + 1
        penalty = np.sqrt(options.ridge) * np.eye(count)[1:]
        system = np.concatenate([np.sqrt(weight)[:, None] * waves(days), penalty])
        right = np.concatenate(
            [np.sqrt(weight)[:, None] * data, np.zeros((count - 1, data.shape[1]))]
        )
        return np.linalg.lstsq(system, right, rcond=None)[0]

    weight = np.ones(len(days))
    for _ in range(options.rounds):
        haze = values[:, :3].mean(axis=1, keepdims=True)
        above = (haze - waves(days) @ fit(weight, haze))[:, 0]
        bound = np.where(above > 0, options.haze, options.shadow)
        weight = np.clip(1 - (above / bound) ** 2, 0, None) ** 2 + 1e-3
    coefficients = fit(weight, values)
    near = weight * np.exp(-(np.abs(days) - np.abs(all_days).min()) / options.days)
    left = near @ (values - waves(days) @ coefficients) / (near.sum() + options.prior)
    return (waves(np.zeros(1)) @ coefficients)[0] + left


def test_hazy_looks_hardly_move_the_season():
    turns = 2 * np.pi * SERIES / YEAR
    looks, clear = whole(0.3 + 0.02 * np.cos(turns))
    looks[::7] += 0.2
    found = harmonic(looks, clear, SERIES, HarmonicOptions(ridge=1e-6, haze=0.03))
    np.testing.assert_allclose(found, 0.32, atol=2e-3)


# --- led frames -------------------------------------------------------------------------------


def changed_looks(seed, *, pixels=400, bands=3):
    """Return a target, and looks that are lines of it per band, with those lines."""
    random = np.random.default_rng(seed)
    target = random.uniform(0.05, 0.4, (bands, pixels))
    slope, offset = random.uniform(0.8, 1.2, (2, 8, bands))
    offset = (offset - 1) * 0.2
    return target, (target - offset[..., None]) / slope[..., None], slope, offset


@given(seeds)
@settings(max_examples=10)
def test_looks_that_are_lines_of_the_target_are_led_to_it_exactly(seed):
    target, looks, slope, offset = changed_looks(seed)
    lines = fit_lines(looks, target, DAYS, LedFramesOptions(pixels=0))
    np.testing.assert_allclose(lines.slope, slope, atol=1e-6)
    np.testing.assert_allclose(lines.offset, offset, atol=1e-6)
    led = join_led(looks, np.ones((8, 400), bool), lines)
    np.testing.assert_allclose(led, target, atol=1e-6)


def test_a_fifth_of_hazy_pixels_does_not_bend_the_lines():
    target, looks, slope, offset = changed_looks(1)
    random = np.random.default_rng(1)
    looks = looks + random.normal(0, 0.002, looks.shape)
    hazy = looks + 0.3 * (random.random((8, 1, 400)) < 0.2)
    lines = fit_lines(hazy, target, DAYS, LedFramesOptions(pixels=0))
    np.testing.assert_allclose(lines.slope, slope, atol=0.02)
    np.testing.assert_allclose(lines.offset, offset, atol=0.005)


def test_led_looks_are_weighed_by_what_their_lines_leave_over():
    random = np.random.default_rng(2)
    target = random.uniform(0.05, 0.4, (2, 5000))
    spread = np.array([0.005, 0.01, 0.02])
    looks = target + random.normal(0, 1, (3, 2, 5000)) * spread[:, None, None]
    lines = fit_lines(looks, target, DAYS[:3], LedFramesOptions(pixels=0))
    np.testing.assert_allclose(np.sqrt(lines.variance), spread[:, None].repeat(2, 1), rtol=0.1)
    clear = random.random((3, 5000)) < 0.7
    found = join_led(np.where(clear[:, None], looks, 0), clear, lines)
    for pixel in np.flatnonzero(clear.any(axis=0))[:200]:
        seen = clear[:, pixel]
        led = lines.slope * looks[..., pixel] + lines.offset
        expected = [np.average(led[seen, b], weights=1 / lines.variance[seen, b]) for b in range(2)]
        np.testing.assert_allclose(found[:, pixel], expected, atol=1e-12)


def test_without_a_pixel_to_learn_from_the_identity_fades_with_time():
    target, looks, _, _ = changed_looks(3)
    options = LedFramesOptions()
    lines = fit_lines(np.full_like(looks, np.nan), target, DAYS, options)
    untold = untold_lines(DAYS, 3, options)
    np.testing.assert_array_equal(lines.slope, 1)
    np.testing.assert_array_equal(lines.variance, untold.variance)
    weights = 1 / untold.variance[:, 0]
    np.testing.assert_allclose(weights[1] / weights[0], np.exp(-4 / options.days))
