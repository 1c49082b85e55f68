"""The classical baselines, against values that can be worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unveil.bands import CLEAR, CLOUD, NODATA
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.classical import Damped, nan_median, weighted_composite
from unveil.models.registry import create
from unveil.models.regressed import Regressed, RegressedOptions, spread_residual
from unveil.scene import Inputs

BANDS = ("B02", "B03")


def one_pixel(values, days, clear=None, *, target_class=CLOUD, target=0.9) -> Inputs:
    """Return a 1 x 1 window with one context frame a value."""
    count = len(values)
    context = np.empty((count, 2, 1, 1), np.float32)
    context[:] = np.asarray(values, np.float32)[:, None, None, None]
    classes = np.where(np.ones(count, bool) if clear is None else clear, CLEAR, CLOUD)
    return Inputs(
        bands=BANDS,
        target=np.full((2, 1, 1), target, np.float32),
        target_class=np.full((1, 1), target_class, np.uint8),
        target_probability=np.full((1, 1), np.nan, np.float32),
        context=context,
        context_class=classes.astype(np.uint8)[:, None, None],
        days=np.asarray(days, np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


def clear_value(kind: str, inputs: Inputs, **options) -> float:
    model = create(ModelSpec(kind, kind, options=options))
    model.prepare(None, [inputs])
    return float(model.predict(inputs).reflectance[0, 0, 0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cloudy", 0.9),
        ("mosaic", (0.1 + 0.2 + 0.4) / 3),
        ("nearest", 0.2),
        ("linear", 0.2 + (0.4 - 0.2) * 5 / 20),
        ("median", 0.2),
    ],
)
def test_a_pixel_under_cloud_gets_the_value_of_its_definition(kind, expected):
    inputs = one_pixel([0.1, 0.2, 0.4], [-30, -5, 15])
    assert clear_value(kind, inputs) == pytest.approx(expected, abs=1e-6)


def test_damped_weighs_looks_by_their_distance_in_time():
    weights = np.exp(-np.array([30, 5, 15]) / 10)
    expected = np.average([0.1, 0.2, 0.4], weights=weights)
    inputs = one_pixel([0.1, 0.2, 0.4], [-30, -5, 15])
    assert clear_value("damped", inputs, days=10) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["mosaic", "nearest", "linear", "median", "damped"])
def test_cloudy_looks_are_never_used(kind):
    inputs = one_pixel([0.8, 0.3, 0.8], [-1, -9, 2], clear=[False, True, False])
    assert clear_value(kind, inputs) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("kind", ["mosaic", "nearest", "linear", "median", "damped"])
def test_a_pixel_that_nobody_saw_clearly_has_no_answer(kind):
    assert np.isnan(clear_value(kind, one_pixel([0.8, 0.7], [-1, 2], clear=[False, False])))


@pytest.mark.parametrize("kind", ["mosaic", "nearest", "linear", "median", "damped"])
def test_a_clear_target_pixel_is_kept(kind):
    inputs = one_pixel([0.1, 0.2], [-1, 1], target_class=CLEAR, target=0.33)
    assert clear_value(kind, inputs) == pytest.approx(0.33, abs=1e-6)


def test_of_two_equally_close_looks_the_earlier_wins():
    assert clear_value("nearest", one_pixel([0.4, 0.1], [7, -7])) == pytest.approx(0.1)


def test_linear_repeats_the_only_side_there_is():
    assert clear_value("linear", one_pixel([0.1, 0.3], [5, 20])) == pytest.approx(0.1)


def test_least_cloudy_returns_the_clearest_frame_whole():
    inputs = random_inputs(seed=3)
    inputs.context_class[:] = CLOUD
    inputs.context_class[2] = CLEAR
    model = create(ModelSpec("least", "least_cloudy"))
    model.prepare(None, [inputs])
    np.testing.assert_array_equal(model.predict(inputs).reflectance, inputs.context[2])


@given(
    hnp.arrays(np.float32, (7, 1, 3, 2), elements=st.floats(0, 1, width=32) | st.just(float("nan")))
)
@settings(max_examples=60)
def test_nan_median_equals_numpys(stack):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmedian(stack, axis=0)
    np.testing.assert_allclose(nan_median(stack), expected, rtol=1e-6)


@given(st.floats(1, 2000), st.integers(0, 10))
@settings(max_examples=40)
def test_a_composite_lies_between_the_darkest_and_the_brightest_look(days, seed):
    inputs = random_inputs(seed=seed)
    result = Damped(ModelSpec("d", "damped", options={"days": days})).estimate(inputs)
    looks = np.where(inputs.context_clear[:, None], inputs.context, np.nan)
    low, high = np.fmin.reduce(looks), np.fmax.reduce(looks)
    seen = np.isfinite(result)
    assert (result[seen] >= low[seen] - 1e-6).all()
    assert (result[seen] <= high[seen] + 1e-6).all()


def random_inputs(*, seed=0, size=48, frames=5, cover=0.5, bands=BANDS) -> Inputs:
    """Return smooth random imagery in which the target is linear in its context."""
    rng = np.random.default_rng(seed)
    shape = (len(bands), size, size)
    rows = np.linspace(0, 3, size)
    surface = 0.2 + 0.1 * np.sin(rows)[None, :, None] * np.cos(rows)[None, None, :]
    context = np.stack(
        [surface * (1 + 0.1 * t) + rng.normal(0, 0.01, shape) for t in range(frames)]
    )
    target = 0.5 * context.mean(axis=0) + 0.1
    classes = np.where(rng.random((size, size)) < cover, CLOUD, CLEAR).astype(np.uint8)
    target = np.where(classes == CLOUD, 0.8, target)
    return Inputs(
        bands=bands,
        target=target.astype(np.float32),
        target_class=classes,
        target_probability=np.full((size, size), np.nan, np.float32),
        context=context.astype(np.float32),
        context_class=(rng.random((frames, size, size)) < 0.2).astype(np.uint8),
        days=np.array([-20, -10, 5, 10, 30][:frames], np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


class _Scene:
    bands = BANDS


def regress(inputs: Inputs, tiles=None, **options) -> np.ndarray:
    model = Regressed(ModelSpec("r", "regressed", options=options))
    model.prepare(_Scene, tiles or [inputs])
    return model.predict(inputs).reflectance


def test_regressed_recovers_a_target_that_is_linear_in_its_context():
    inputs = random_inputs(seed=1)
    inputs.context_class[:] = CLEAR
    truth = 0.5 * inputs.context.mean(axis=0) + 0.1
    hidden = inputs.target_class == CLOUD
    error = np.abs(regress(inputs, ridge=1e-6) - truth)[:, hidden].mean()
    mosaic = np.abs(weighted_composite(inputs, np.ones(5)) - truth)[:, hidden].mean()
    assert error < 0.002
    assert mosaic > 0.02


def test_regressed_agrees_with_a_ridge_regression_solved_by_stacking_rows():
    # An independent solver: least squares on rows augmented with sqrt(n ridge) I.
    from unveil.models.classical import DAMPED_DAYS, damped_composite
    from unveil.models.regressed import _moments_of, _solve, features_of

    inputs, ridge = random_inputs(seed=2), 0.03
    base = damped_composite(inputs, DAMPED_DAYS)
    use = inputs.target_clear & np.isfinite(base).all(axis=0)
    x = features_of(inputs, base)[:, use].T.astype(np.float64)
    y = (inputs.target - base)[:, use].T.astype(np.float64)
    scale, n = x.std(axis=0), len(x)
    standard = (x - x.mean(axis=0)) / scale
    rows = np.vstack([standard, np.sqrt(n * ridge) * np.eye(x.shape[1])])
    values = np.vstack([y - y.mean(axis=0), np.zeros((x.shape[1], y.shape[1]))])
    slopes = np.linalg.lstsq(rows, values, rcond=None)[0] / scale[:, None]
    ours = _solve(_moments_of(inputs), len(BANDS), ridge)
    np.testing.assert_allclose(ours[:-1], slopes, rtol=1e-6, atol=1e-9)


def test_regressed_fits_the_same_from_tiles_as_from_the_whole_scene():
    inputs = random_inputs(seed=4)
    halves = [inputs.crop(rows, slice(None)) for rows in (slice(0, 20), slice(20, 48))]
    np.testing.assert_allclose(regress(inputs, halves), regress(inputs), atol=1e-5)


def test_regressed_falls_back_to_damped_with_too_few_clear_pixels():
    inputs = random_inputs(seed=5, cover=1.1)
    damped = create(ModelSpec("d", "damped")).predict(inputs).reflectance
    np.testing.assert_array_equal(regress(inputs), damped)


def test_regressed_never_looks_under_the_clouds():
    inputs = random_inputs(seed=6)
    before = regress(inputs)
    inputs.target[:, inputs.target_class == CLOUD] = 0.123
    np.testing.assert_array_equal(regress(inputs), before)


def test_nodata_of_the_target_stays_nodata():
    inputs = random_inputs(seed=7)
    inputs.target[:, :5] = np.nan
    inputs.target_class[:5] = NODATA
    assert np.isnan(regress(inputs)[:, :5]).all()
    assert np.isfinite(regress(inputs)[:, 5:]).mean() > 0.99


def test_a_residual_spreads_to_neighbours_and_fades_far_away():
    residual = np.full((1, 101, 101), np.nan)
    residual[:, 45:56, 45:56] = 0.1
    spread = spread_residual(residual, RegressedOptions())
    assert spread[0, 50, 50] == pytest.approx(0.1, rel=0.15)
    assert spread[0, 50, 62] > 0.02
    assert spread[0, 50, 90] == 0


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("mosaic", {"days": 3}, "days"),
        ("damped", {"dayz": 3}, "'days'"),
        ("damped", {"days": 0}, "above 0"),
        ("regressed", {"rigde": 0.1}, "'ridge'"),
        ("regressed", {"ridge": "low"}, "low"),
        ("external", {}, "folder"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(kind, options, word):
    with pytest.raises(InputError, match=word):
        create(ModelSpec(kind, kind, options=options))
