"""How often the printed intervals hold the truth, under simulation.

Run: ``python benchmarks/intervals.py`` prints the tables of docs/statistics.md. Made-up places and
dates of known mean: normal, skewed and heavy-tailed values over places, and series of dates whose
log errors resemble their neighbours by .40 and .67, as measured on two places. Beside the printed
intervals stand those that they replaced. A cell is the percent of intervals that hold the truth;
95 is wanted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import lfilter

from unveil.metrics.intervals import Interval, date_interval, place_intervals

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


def log_normal(spread: float) -> Draw:
    """Errors over places, their mean taken off; ``spread`` is the deviation of the logarithm."""
    return lambda rng, n, repeats: (
        np.exp(rng.normal(0, spread, (n, repeats))) - np.exp(spread**2 / 2)
    )


PLACES: dict[str, Draw] = {
    "normal": lambda rng, n, repeats: rng.normal(0, 1, (n, repeats)),
    "difference of two methods' errors": shared,
    "errors, log-normal, σ 0.5": log_normal(0.5),
    "Student t, 3 degrees of freedom": lambda rng, n, repeats: rng.standard_t(3, (n, repeats)),
    "Student t, 2 degrees of freedom": lambda rng, n, repeats: rng.standard_t(2, (n, repeats)),
    "difference where one method fails at some places": failing,
    "errors, log-normal, σ 1": log_normal(1.0),
}
"""What is drawn over places; every mean is 0."""


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


def places_rows(repeats: int) -> list[list[str]]:
    """Return the coverage over places, a row a distribution."""
    rng, rows = np.random.default_rng(1), []
    for name, draw in PLACES.items():
        cells = [name]
        for n in SIZES:
            values = draw(rng, n, repeats)
            cells += [percent(place_intervals(values), 0)]
            cells += [percent(bootstrap_places(values, rng), 0)]
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
    args = parser.parse_args()
    for what, work, other in (
        ("places", places_rows, "percentile bootstrap"),
        ("dates", dates_rows, "block bootstrap"),
    ):
        head = [what, *(text for n in SIZES for text in (f"{n} {what}", other))]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *work(args.repeats)]
        print(*(f"| {' | '.join(cells)} |" for cells in lines), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
