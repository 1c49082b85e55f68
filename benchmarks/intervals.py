"""How often the printed intervals hold the truth, under simulation.

Run: ``python benchmarks/intervals.py`` prints the tables of docs/statistics.md. Made-up places and
dates of known mean: errors and differences over places, skewed, heavy-tailed and not, and series of
dates whose log errors resemble their neighbours by .40 and .67, as measured on two places. Beside
the printed intervals stand those that they replaced. A cell is the percent of intervals that hold
the truth; 95 is wanted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import lfilter

from unveil.metrics.intervals import (
    Interval,
    date_interval,
    error_intervals,
    place_intervals,
)

SIZES = (8, 12, 30)
DRAWS = 1000
"""Resamples of a bootstrap."""
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def shared(rng: np.random.Generator, n: int, repeats: int) -> np.ndarray:
    """Differences of two methods whose errors share what is hard about a place."""
    place = np.exp(rng.normal(0, 0.5, (n, repeats)))
    one, other = (np.exp(rng.normal(0, 0.3, (n, repeats))) for _ in range(2))
    return place * (one - other)


def failing(rng: np.random.Generator, n: int, repeats: int) -> np.ndarray:
    """Differences where one of two methods fails at some places: their mean taken off."""
    place = np.exp(rng.normal(0, 0.6, (n, repeats)))
    one, other = (np.exp(rng.normal(m, s, (n, repeats))) for m, s in ((0.5, 0.6), (0, 0.3)))
    return place * (one - other) - np.exp(0.18) * (np.exp(0.68) - np.exp(0.045))


DIFFERENCES: dict[str, Draw] = {
    "normal": lambda rng, n, repeats: rng.normal(0, 1, (n, repeats)),
    "of two methods that share what is hard": shared,
    "Student t, 3 degrees of freedom": lambda rng, n, repeats: rng.standard_t(3, (n, repeats)),
    "Student t, 2 degrees of freedom": lambda rng, n, repeats: rng.standard_t(2, (n, repeats)),
    "one method fails at some places": failing,
}
"""Differences over places; every mean is 0."""


def log_normal(spread: float) -> Draw:
    """Errors over places, mean 1; ``spread`` is the deviation of the logarithm."""
    return lambda rng, n, repeats: np.exp(rng.normal(-(spread**2) / 2, spread, (n, repeats)))


def odd_place(rng: np.random.Generator, n: int, repeats: int) -> np.ndarray:
    """Errors that differ little over places, but are fivefold at one place of eight; mean 1."""
    usual = log_normal(0.35)(rng, n, repeats)
    return usual * np.where(rng.random((n, repeats)) < 1 / 8, 5, 1) / 1.5


ERRORS: dict[str, Draw] = {
    "log-normal, σ 0.25": log_normal(0.25),
    "log-normal, σ 0.5": log_normal(0.5),
    "log-normal, σ 1": log_normal(1.0),
    "gamma, shape 2": lambda rng, n, repeats: rng.gamma(2, 0.5, (n, repeats)),
    "exponential": lambda rng, n, repeats: rng.exponential(1, (n, repeats)),
    "even from 0 to 2": lambda rng, n, repeats: rng.uniform(0, 2, (n, repeats)),
    "one place in eight has five times the error": odd_place,
}
"""Errors over places; every mean is 1."""


def series(rng: np.random.Generator, n: int, *, correlation: float, spread: float) -> np.ndarray:
    """Errors of ``n`` dates, mean 1, whose logarithm is an autoregression of order 1."""
    steps = rng.normal(0, spread, n)
    steps[1:] *= np.sqrt(1 - correlation**2)
    logs = lfilter([1], [1, -correlation], steps)
    return np.exp(logs - spread**2 / 2)


def bootstrap_places(values: np.ndarray, rng: np.random.Generator) -> list[Interval]:
    """Return percentile bootstrap intervals, ``(n, m)`` values; the interval replaced."""
    n = len(values)
    means = rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n @ values
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return [Interval(*numbers, n) for numbers in zip(values.mean(axis=0), low, high, strict=True)]


def bootstrap_blocks(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return the percentile interval of a circular block bootstrap, blocks of about sqrt(n)."""
    n, length = len(values), round(len(values) ** 0.5)
    starts = rng.integers(0, n, (DRAWS, -(-n // length), 1))
    means = values[(starts + np.arange(length)) % n].mean(axis=(1, 2))
    return Interval(values.mean(), *np.quantile(means, [0.025, 0.975]), 1)


def percent(intervals: Sequence[Interval], truth: float) -> str:
    """Return how many intervals hold the truth, in percent."""
    return f"{100 * np.mean([one.low <= truth <= one.high for one in intervals]):.1f}"


def errors_rows(repeats: int) -> list[list[str]]:
    """Return the coverage of mean errors over places, a row a distribution."""
    return _rows(ERRORS, error_intervals, 1, repeats)


def differences_rows(repeats: int) -> list[list[str]]:
    """Return the coverage of mean differences over places, a row a distribution."""
    return _rows(DIFFERENCES, place_intervals, 0, repeats)


def _rows(
    draws: dict[str, Draw],
    work: Callable[[np.ndarray], list[Interval]],
    truth: float,
    repeats: int,
) -> list[list[str]]:
    rng, rows = np.random.default_rng(1), []
    for name, draw in draws.items():
        cells = [name]
        for n in SIZES:
            values = draw(rng, n, repeats)
            cells += [percent(work(values), truth), percent(bootstrap_places(values, rng), truth)]
        rows.append(cells)
    return rows


def dates_rows(repeats: int) -> list[list[str]]:
    """Return the coverage over dates of one place, a row a correlation and spread."""
    rng, rows = np.random.default_rng(1), []
    for spread in (0.35, 0.7):
        for correlation in (0.0, 0.4, 0.67):
            cells = [f"log-normal, σ {spread}, correlation {correlation}"]
            for n in SIZES:
                drawn = [
                    series(rng, n, correlation=correlation, spread=spread) for _ in range(repeats)
                ]
                cells += [percent([date_interval(values) for values in drawn], 1)]
                cells += [percent([bootstrap_blocks(values, rng) for values in drawn], 1)]
            rows.append(cells)
    return rows


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000, help="simulated runs of each row")
    parser.add_argument("--only", choices=("places", "dates"), default="", help="one kind alone")
    args = parser.parse_args()
    for what, unit, work, other in (
        ("errors", "places", errors_rows, "percentile bootstrap"),
        ("differences", "places", differences_rows, "percentile bootstrap"),
        ("errors", "dates", dates_rows, "block bootstrap"),
    ):
        if args.only not in ("", unit):
            continue
        head = [what, *(text for n in SIZES for text in (f"{n} {unit}", other))]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *work(args.repeats)]
        print(*(f"| {' | '.join(cells)} |" for cells in lines), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
