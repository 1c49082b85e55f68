"""Medoid, geomedian and Whittaker against independent solutions of the same problems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solveh_banded

from unveil.bands import CLEAR, CLOUD
from unveil.composites import geometric_median
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.models.temporal import whittaker
from unveil.scene import Inputs

KINDS = ("medoid", "geomedian", "whittaker", "robust_line", "harmonic", "led_frames")
seeds = st.integers(0, 2**32 - 1)


def random_looks(seed, *, dates=7, bands=3, pixels=20, share=0.7):
    """Return looks, clear and whole days (never two of one day, never day 0)."""
    random = np.random.default_rng(seed)
    clear = random.random((dates, pixels)) < share
    looks = np.where(clear[:, None], random.uniform(0, 0.6, (dates, bands, pixels)), 0)
    choices = np.setdiff1d(np.arange(-60, 61), [0])
    return looks, clear, random.choice(choices, dates, replace=False).astype(float)


def window_of(looks, clear, days, *, target_class=CLOUD) -> Inputs:
    """Return pixels as a window of one row."""
    dates, bands, pixels = looks.shape
    return Inputs(
        bands=("B02", "B03", "B04")[:bands],
        target=np.full((bands, 1, pixels), 0.9, np.float32),
        target_class=np.full((1, pixels), target_class, np.uint8),
        target_probability=np.full((1, pixels), np.nan, np.float32),
        context=looks[:, :, None].astype(np.float32),
        context_class=np.where(clear, CLEAR, CLOUD).astype(np.uint8)[:, None],
        days=days.astype(np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


@given(seeds, st.sampled_from([1.0, 100.0, 1e4, 1e6]))
@settings(max_examples=15)
def test_the_smooth_is_that_of_eilers_daily_system(seed, smoothness):
    looks, clear, days = random_looks(seed)
    found = whittaker(looks, clear, days, smoothness=smoothness)
    for pixel in np.flatnonzero(clear.sum(axis=0) >= 2):
        expected = daily_whittaker(looks[:, :, pixel], clear[:, pixel], days, smoothness)
        np.testing.assert_allclose(found[:, pixel], expected, atol=1e-5)


def daily_whittaker(values, clear, days, smoothness):
    """Solve (W + smoothness D'D) z = W y on a daily grid; return z at day 0."""
    first = int(min(days.min(), 0))
    count = int(max(days.max(), 0)) - first + 1
    rows = days.astype(int) - first
    weights, data = np.zeros(count), np.zeros((count, values.shape[1]))
    weights[rows] = clear
    data[rows] = np.where(clear[:, None], values, 0)
    second = np.diff(np.eye(count), 2, axis=0)
    system = np.diag(weights) + smoothness * second.T @ second
    bands = np.zeros((3, count))
    for offset in range(3):
        bands[2 - offset, offset:] = np.diagonal(system, offset)
    return solveh_banded(bands, data)[-first]


def test_a_straight_line_in_time_is_not_bent_by_smoothing():
    days = np.array([-30.0, -12, -3, 8, 25])
    looks = (0.2 + 0.003 * days)[:, None, None].repeat(2, axis=1)
    found = whittaker(looks, np.ones((5, 1), bool), days, smoothness=1e4)
    np.testing.assert_allclose(found, 0.2, atol=1e-7)


def test_the_smooth_of_one_look_or_of_one_day_is_their_mean():
    looks = np.array([0.2, 0.4])[:, None, None].repeat(2, axis=2)
    clear = np.array([[True, True], [False, True]])
    found = whittaker(looks, clear, np.array([-7.0, -7.0]), smoothness=1e4)
    np.testing.assert_allclose(found, [[0.2, 0.3]], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_that_is_never_clear_has_no_answer(kind):
    looks, clear, days = random_looks(1)
    clear[:, 5] = False
    reflectance = create(ModelSpec(kind, kind)).predict(window_of(looks, clear, days)).reflectance
    np.testing.assert_array_equal(
        np.isnan(reflectance[:, 0]), ~clear.any(axis=0)[None].repeat(3, 0)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_clouds_hide_does_not_matter(kind):
    looks, clear, days = random_looks(2)
    model = create(ModelSpec(kind, kind))
    hidden = window_of(np.where(clear[:, None], looks, 0.99), clear, days)
    np.testing.assert_array_equal(
        model.predict(window_of(looks, clear, days)).reflectance,
        model.predict(hidden).reflectance,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_clear_target_pixels_are_kept_unless_told_otherwise(kind):
    looks, clear, days = random_looks(3)
    inputs = window_of(looks, clear, days, target_class=CLEAR)
    kept = create(ModelSpec(kind, kind)).predict(inputs).reflectance
    np.testing.assert_array_equal(kept, inputs.target)
    composed = create(ModelSpec(kind, kind, options={"keep_clear": False})).predict(inputs)
    clouded = create(ModelSpec(kind, kind)).predict(window_of(looks, clear, days))
    np.testing.assert_array_equal(composed.reflectance, clouded.reflectance)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_do_not_depend_on_the_batch(kind, monkeypatch):
    inputs = window_of(*random_looks(4))
    whole = create(ModelSpec(kind, kind)).predict(inputs).reflectance
    monkeypatch.setattr("unveil.models.temporal.VALUES_PER_BATCH", 50)
    parts = create(ModelSpec(kind, kind)).predict(inputs).reflectance
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)


def test_a_time_constant_makes_far_looks_count_less():
    looks, clear, days = random_looks(5)
    inputs = window_of(looks, clear, days)
    faded = create(ModelSpec("g", "geomedian", options={"days": 20.0})).predict(inputs)
    weights = np.exp(-np.abs(days) / 20)
    expected = geometric_median(looks.astype(np.float32).astype(float), clear, weights=weights)
    np.testing.assert_allclose(faded.reflectance[:, 0], expected, atol=1e-6)


def test_of_two_looks_the_medoid_is_the_nearer_in_time():
    looks = np.array([0.1, 0.5])[:, None, None].repeat(3, axis=1)
    clear = np.ones((2, 1), bool)
    near_last = window_of(looks, clear, np.array([-20.0, 4.0]))
    near_first = window_of(looks, clear, np.array([-3.0, 3.0]))
    model = create(ModelSpec("medoid", "medoid"))
    assert model.predict(near_last).reflectance[0, 0, 0] == np.float32(0.5)
    assert model.predict(near_first).reflectance[0, 0, 0] == np.float32(0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"smothness": 3.0}, "use 'smoothness'"),
        ({"smoothness": "high"}, "found 'high'"),
        ({"keep_clear": 1}, "found 1.*give true or false"),
        ({"smoothness": True}, "found True.*give a number"),
        ({"smoothness": -1.0}, "found -1.0.*not below 0"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(options, words):
    with pytest.raises(InputError, match=words):
        create(ModelSpec("whittaker", "whittaker", options=options))
