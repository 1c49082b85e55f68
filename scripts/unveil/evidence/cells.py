"""How numbers and names are written in the tables of evidence."""

from __future__ import annotations

import numpy as np

from unveil.metrics.intervals import Interval


def named(name: str, best: str) -> str:
    """Return a method's name, bold where it is the best."""
    return f"**`{name}`**" if name == best else f"`{name}`"


def with_interval(value: Interval | None, *, sign: bool = False, decimals: int = 4) -> str:
    """Return a mean and, in brackets, the interval that it has."""
    if value is None:
        return "–"
    mean, low, high = (
        number(limit, sign=sign, decimals=decimals) for limit in (value.mean, value.low, value.high)
    )
    return mean if np.isnan(value.low) else f"{mean} ({low} to {high})"


def number(value: float, *, sign: bool = False, decimals: int = 4) -> str:
    """Return a number with a true minus and no sign on nought."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def count(number: int, what: str) -> str:
    """Return how many of a thing."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
