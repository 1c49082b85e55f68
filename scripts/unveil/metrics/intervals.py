r"""How sure is a mean? Intervals over places, and over the dates of one place.

What was chosen, and how often it holds the truth, is in ``docs/statistics.md``;
``benchmarks/intervals.py`` measures it. All are closed forms: no draws, no seed.

- **Over places**: on each side the wider of Student's t interval and Willink's (2005, "A
  confidence interval and test for the mean of an asymmetric distribution"), which replaces the
  quantile :math:`q` by :math:`(\sqrt[3]{1 + 6 a (q - a)} - 1) / 2 a` with
  :math:`a = \hat\gamma / 6 \sqrt n`, :math:`\hat\gamma` the skewness (Hall 1992). The t holds
  where tails are heavy, Willink's where the values are skewed, as errors are.
- **Over places, of errors**, which are never negative: below, Student's t of the logarithm by the
  delta method, :math:`\bar x e^{-q s / \bar x}`, :math:`s` the standard error; above, the widest of
  the two and of Cox's interval for skewed means (Zhou and Gao 1997),
  :math:`\bar x e^{q \sqrt{v / n + v^2 / 2 (n - 1)}}` with :math:`v` the variance of the logarithms.
- **Over dates of one place**, which resemble their neighbours: Student's t of the mean of a
  stationary series with correlation :math:`\varphi^{gap}`, weighed over :math:`\varphi` by its
  marginal likelihood (a uniform prior on 0 to .95), on logarithms where all values are positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

MOST_SPREAD = 1.0
"""Largest variance of logarithms that an interval of errors reckons with: a single value near 0
would stretch it without end."""
PERSISTENCE = np.linspace(0, 0.95, 20)
"""Correlations of neighbouring dates that an interval over dates reckons with."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; the limits are NaN for a single value."""

    mean: float
    low: float
    high: float
    n_places: int


def place_intervals(values: np.ndarray, *, level: float = 0.95) -> list[Interval]:
    """Return means over places with their intervals, of quantities of either sign.

    Args:
        values: ``(n_places, m)``, one column per quantity; NaN where it has no value at a place.
        level: coverage of the intervals.

    Raises:
        ValueError: if a quantity has no value at any place.
    """
    known, n, mean, error = _moments(values)
    gap = np.where(known, values - mean, 0.0)
    below, above = _quantiles(n, _skewness(gap, n), (1 + level) / 2)
    return _intervals(mean, mean + below * error, mean + above * error, n)


def error_intervals(values: np.ndarray, *, level: float = 0.95) -> list[Interval]:
    """Return means over places with their intervals, of errors, which are never negative.

    Args:
        values: as in :func:`place_intervals`, none below 0.
        level: coverage of the intervals, whose limits are not below 0 either.

    Raises:
        ValueError: if a quantity has no value at any place.
    """
    usual = [one.high for one in place_intervals(values, level=level)]
    known, n, mean, error = _moments(values)
    q = stats.t.ppf((1 + level) / 2, np.maximum(n - 1, 1))
    logs = np.log(np.where(known, np.maximum(values, np.finfo(float).tiny), np.nan))
    spread = np.minimum(_moments(logs)[3] ** 2 * n, MOST_SPREAD)
    cox = np.sqrt(spread / n + spread**2 / 2 / np.maximum(n - 1, 1))
    low = mean * np.exp(-q * error / np.where(mean > 0, mean, 1.0))
    return _intervals(mean, low, np.fmax(usual, mean * np.exp(q * cox)), n)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what is known, and of each column the number, the mean and its standard error."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    n = known.sum(axis=0)
    if values.size == 0 or not n.all():
        raise ValueError("no places: nothing to take a mean of")
    mean = np.where(known, values, 0.0).sum(axis=0) / n
    squares = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
    return known, n, mean, np.sqrt(squares / np.maximum(n - 1, 1) / n)


def _intervals(
    mean: np.ndarray, low: np.ndarray, high: np.ndarray, n: np.ndarray
) -> list[Interval]:
    """Return one interval a column; a single value has no limits."""
    low, high = (np.where(n > 1, limit, np.nan) for limit in (low, high))
    return [
        Interval(float(centre), float(least), float(most), int(count))
        for centre, least, most, count in zip(mean, low, high, n, strict=True)
    ]


def _skewness(gap: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Unbiased skewness of each column of deviations from its mean; 0 below three values."""
    second, third = ((gap**k).sum(axis=0) / n for k in (2, 3))
    some = (n > 2) & (second > 0)
    plain = third / np.where(some, second, 1) ** 1.5
    return np.where(some, plain * np.sqrt(n * (n - 1.0)) / np.maximum(n - 2, 1), 0.0)


def _quantiles(n: np.ndarray, skewness: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how many standard errors the limits are off the mean, below (negative) and above."""
    q = stats.t.ppf(p, np.maximum(n - 1, 1))
    a = skewness / (6 * np.sqrt(n))
    flat = np.abs(a) < 1e-9
    divisor = np.where(flat, 1.0, 2 * a)
    to_below, to_above = (
        np.where(flat, t, (np.cbrt(1 + 6 * a * (t - a)) - 1) / divisor) for t in (q, -q)
    )
    return -np.maximum(q, to_below), -np.minimum(-q, to_above)


def date_interval(
    values: Sequence[float], days: Sequence[float] | None = None, *, level: float = 0.95
) -> Interval:
    """Return the mean over dates of one place with its interval.

    It says how sure the mean of *this* place is, and nothing about others.

    Args:
        values: one a date; NaN is left out. The logarithms are taken where all are positive
            (errors), else the values as they are (differences).
        days: day of each value; default one step apart. Of one day the mean counts. The unit
            of correlation is the median gap.
        level: coverage of the interval.

    Raises:
        ValueError: if there is no value.
    """
    series, when = _by_day(np.asarray(values, np.float64), days)
    mean = float(series.mean())
    if series.size < 2 or np.ptp(series) == 0:
        limit = mean if series.size > 1 else float("nan")
        return Interval(mean, limit, limit, 1)
    if (series > 0).all():
        logs = np.log(series)
        low, high = mean * np.exp(_limits(logs, when, level) - logs.mean())
    else:
        low, high = _limits(series, when, level)
    return Interval(mean, float(low), float(high), 1)


def _by_day(values: np.ndarray, days: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each day, in order of time, and the days."""
    when = np.arange(values.size) if days is None else np.asarray(days, np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no dates: nothing to take a mean of")
    unique, position = np.unique(when[known], return_inverse=True)
    return np.bincount(position, values[known]) / np.bincount(position), unique


def _limits(series: np.ndarray, days: np.ndarray, level: float) -> np.ndarray:
    """Quantiles of the mean, a mixture of Student's t over :data:`PERSISTENCE`, ``(2,)``."""
    n = series.size
    lag = np.abs(np.subtract.outer(days, days)) / np.median(np.diff(days))
    fits = np.array([_fit_mean(series, phi**lag) for phi in PERSISTENCE])
    means, errors, likelihood = fits.T
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()

    def quantile(p: float) -> float:
        of_each = means + stats.t.ppf(p, n - 1) * errors
        ends = of_each.min(), of_each.max()
        if ends[0] == ends[1]:
            return ends[0]
        return optimize.brentq(
            lambda x: weights @ stats.t.cdf((x - means) / errors, n - 1) - p, *ends
        )

    return np.array([quantile((1 - level) / 2), quantile((1 + level) / 2)])


def _fit_mean(series: np.ndarray, correlation: np.ndarray) -> tuple[float, float, float]:
    """Mean of a series of known correlation, its standard error, the marginal log-likelihood."""
    n = series.size
    inverse = np.linalg.inv(correlation)
    weight = inverse.sum(axis=0)
    mean = float(weight @ series / weight.sum())
    gap = series - mean
    squares = float(gap @ inverse @ gap)
    logdet = np.linalg.slogdet(correlation)[1]
    likelihood = -0.5 * (logdet + np.log(weight.sum()) + (n - 1) * np.log(squares))
    return mean, float(np.sqrt(squares / (n - 1) / weight.sum())), float(likelihood)
