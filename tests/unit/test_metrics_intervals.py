"""Intervals against scipy, closed forms, and the share of truths they hold under simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from unveil.metrics.intervals import (
    MOST_SPREAD,
    PERSISTENCE,
    date_interval,
    error_intervals,
    place_intervals,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def held(intervals, truth: float) -> float:
    """Share of intervals that hold the truth."""
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


@given(
    half=st.lists(st.floats(0.1, 9), min_size=1, max_size=6), level=st.sampled_from([0.68, 0.95])
)
def test_over_symmetric_values_the_interval_is_students(half, level) -> None:
    values = 2 + np.array([*half, *(-x for x in half)])
    (found,) = place_intervals(values[:, None], level=level)
    expected = stats.t.interval(level, values.size - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.mean, found.n_places) == (pytest.approx(2), values.size)


def test_towards_a_tail_the_interval_reaches_as_far_as_willinks() -> None:
    values = np.array([0.01, 0.011, 0.012, 0.013, 0.015, 0.02, 0.03, 0.08])
    n, error, a = values.size, stats.sem(values), stats.skew(values, bias=False) / 6 / np.sqrt(8)
    low, high = stats.t.interval(0.95, n - 1, values.mean(), error)
    (found,) = place_intervals(values[:, None])
    assert found.low == pytest.approx(low)
    # The limit is where the transformed statistic t + 2 a t² + 4/3 a² t³ + a meets t's quantile.
    t = (values.mean() - found.high) / error
    assert t + 2 * a * t**2 + 4 / 3 * a**2 * t**3 + a == pytest.approx(stats.t.ppf(0.025, n - 1))
    assert found.high > high
    (mirrored,) = place_intervals(-values[:, None])
    assert (-mirrored.high, -mirrored.low) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("n", [8, 12, 30])
@pytest.mark.parametrize(
    ("draw", "least", "most"),
    [
        (lambda rng, size: rng.normal(0, 1, size), 0.93, 0.98),
        (lambda rng, size: rng.standard_t(3, size), 0.93, 0.985),
        (lambda rng, size: np.exp(rng.normal(0, 0.5, size)) - np.exp(0.125), 0.92, 0.98),
    ],
    ids=["normal", "heavy tails", "skewed"],
)
def test_intervals_over_places_hold_the_mean_as_often_as_they_say(
    rng, n, draw, least, most
) -> None:
    # The percentile bootstrap, used before, held it in 84 to 90 % of these at eight places.
    assert least <= held(place_intervals(draw(rng, (n, 1500))), 0) <= most


@pytest.mark.parametrize("n", [8, 12, 30])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, size: np.exp(rng.normal(-0.125, 0.5, size)),
        lambda rng, size: np.exp(rng.normal(-0.5, 1, size)),
        lambda rng, size: rng.gamma(2, 0.5, size),
        lambda rng, size: rng.uniform(0, 2, size),
    ],
    ids=["skewed", "very skewed", "gamma", "even"],
)
def test_intervals_of_errors_hold_the_mean_and_stay_above_nought(rng, n, draw) -> None:
    found = error_intervals(draw(rng, (n, 3000)))
    assert 0.93 <= held(found, 1) <= 0.98
    assert all(0 < one.low < one.mean < one.high for one in found)


def test_of_one_odd_place_the_interval_of_errors_reaches_far_up_and_not_below_nought() -> None:
    errors = np.array([0.01, 0.012, 0.015, 0.02, 0.18])
    (usual,), (found,) = (work(errors[:, None]) for work in (place_intervals, error_intervals))
    assert usual.low < 0 < found.low
    assert found.high >= usual.high
    # Cox's limit, with the spread of the logarithms held at its largest.
    v, t = min(np.log(errors).var(ddof=1), MOST_SPREAD), stats.t.ppf(0.975, 4)
    cox = errors.mean() * np.exp(t * np.sqrt(v / 5 + v**2 / 8))
    assert found.high == pytest.approx(max(usual.high, cox))
    assert found.low == pytest.approx(
        errors.mean() * np.exp(-t * stats.sem(errors) / errors.mean())
    )


def test_places_without_an_error_at_all_do_not_stretch_the_interval() -> None:
    none, some = error_intervals(np.array([[0.0, 0.0], [0.0, 0.02], [0.0, 0.03]]))
    assert (none.low, none.mean, none.high) == (0, 0, 0)
    assert 0 <= some.low < some.high < 1


def test_errors_scale_with_their_unit_and_missing_places_are_left_out(rng) -> None:
    errors = rng.gamma(2, 0.01, (9, 2))
    errors[4, 1] = np.nan
    found = error_intervals(errors)
    percent = error_intervals(100 * errors)
    (alone,) = error_intervals(np.delete(errors[:, 1:], 4, axis=0))
    assert vars(found[1]) == pytest.approx(vars(alone))
    for one, other in zip(found, percent, strict=True):
        assert (other.low, other.high) == pytest.approx((100 * one.low, 100 * one.high))


def test_one_place_has_no_interval_and_no_place_is_refused() -> None:
    for work in (place_intervals, error_intervals):
        (found,) = work(np.array([[0.3]]))
        assert (found.mean, found.n_places) == (0.3, 1)
        assert np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match="no places"):
        place_intervals(np.array([[0.3, np.nan]]))


def test_places_without_a_value_are_left_out_of_that_quantity_only(rng) -> None:
    values = rng.normal(5, 2, (9, 2))
    values[4, 1] = np.nan
    both, alone = place_intervals(values), place_intervals(np.delete(values[:, 1:], 4, axis=0))
    assert vars(both[1]) == pytest.approx(vars(alone[0]))
    assert vars(both[0]) == pytest.approx(vars(place_intervals(values[:, :1])[0]))


def series(rng: np.random.Generator, n: int, correlation: float, spread: float) -> np.ndarray:
    """Errors whose logarithm is an autoregression, mean 1."""
    steps = rng.normal(0, spread, n)
    steps[1:] *= np.sqrt(1 - correlation**2)
    return np.exp(lfilter([1], [1, -correlation], steps) - spread**2 / 2)


@pytest.mark.parametrize("n", [8, 12, 30])
@pytest.mark.parametrize("correlation", [0.4, 0.67])
def test_intervals_over_dates_hold_the_mean_though_dates_resemble_their_neighbours(
    rng, n, correlation
) -> None:
    found = [date_interval(series(rng, n, correlation, 0.35)) for _ in range(200)]
    assert 0.9 <= held(found, 1)
    independent = [
        place_intervals(series(rng, n, correlation, 0.35)[:, None])[0] for _ in range(200)
    ]
    assert held(independent, 1) < 0.9


def test_the_interval_over_dates_is_students_where_dates_are_far_apart_in_correlation(
    rng, monkeypatch
) -> None:
    monkeypatch.setattr("unveil.metrics.intervals.PERSISTENCE", PERSISTENCE[:1])  # none
    values = rng.normal(0, 1, 20)
    found = date_interval(values)
    expected = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_the_interval_over_dates_scales_with_the_errors_and_not_with_the_calendar(rng) -> None:
    values, days = series(rng, 12, 0.5, 0.4), np.cumsum(rng.integers(3, 30, 12))
    found = date_interval(values, days)
    bigger = date_interval(10 * values, 7 * days)
    assert (bigger.low, bigger.high) == pytest.approx((10 * found.low, 10 * found.high))
    order = rng.permutation(12)
    assert date_interval(values[order], days[order]) == found


def test_two_looks_of_one_day_are_one_date() -> None:
    once = date_interval([0.02, 0.03, 0.05], [1, 6, 11])
    again = date_interval([0.01, 0.03, 0.03, np.nan, 0.05], [1, 1, 6, 9, 11])
    assert vars(again) == pytest.approx(vars(once))


def test_a_single_date_has_no_interval_and_equal_dates_no_width() -> None:
    assert np.isnan(date_interval([0.02]).low)
    equal = date_interval([0.02, 0.02])
    assert (equal.low, equal.high) == pytest.approx((0.02, 0.02))
    with pytest.raises(ValueError, match="no dates"):
        date_interval([np.nan])
