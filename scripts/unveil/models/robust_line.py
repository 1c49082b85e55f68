"""A robust local line in time for each pixel, and the level of the day from far clear pixels.

Haze and missed cloud brighten looks that masks call clear, above all in short waves. Here the
mean of a look's shortest bands tells its haze: a line in time through that index is fitted
again and again, and looks above it lose weight sooner than looks below. The weights of the last
line hold for all bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil.models.classical import fading_weights
from unveil.models.far_pixels import measure_far_pixels
from unveil.models.temporal import Temporal, TemporalOptions, looks_at
from unveil.scene import Inputs, Scene

HAZE_BANDS = 3
"""Bands, of the shortest, whose mean tells the haze of a look."""
LEAST_WEIGHT = 1e-3
"""A look that the others contradict keeps this, so that pixels without others have an answer."""


@dataclass(frozen=True)
class RobustLineOptions(TemporalOptions):
    """Options of the line.

    Attributes:
        days: time constant of the weights ``exp(-|days| / constant)``.
        stiffness: pull of the slope towards 0, as a share of the weights of the looks; the
            unit of time is ``days``.
        haze: mean reflectance of the shortest bands above the line at which a look counts
            nothing any more.
        shadow: the same below the line.
        rounds: how often looks are weighed anew.
        level_pixels: far clear pixels of the target at which half of their level is believed;
            0 leaves the level out.
        most_haze: level of the shortest bands above which it is haze over the whole scene, and
            left out.
    """

    days: float = 15.0
    stiffness: float = 0.25
    haze: float = 0.03
    shadow: float = 0.06
    rounds: int = 4
    level_pixels: int = 2000
    most_haze: float = 0.002


class RobustLine(Temporal):
    """Local line in time with bounded weights, then a guarded level."""

    kind = "robust_line"
    options_type = RobustLineOptions
    options: RobustLineOptions
    citation = (
        "Cleveland 1979, Robust locally weighted regression and smoothing scatterplots, JASA "
        "74:829-836, doi:10.1080/01621459.1979.10481038; here with weights that fall sooner for "
        "looks brighter than the line, and the target's own level."
    )
    _level: np.ndarray | float = 0.0

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Find by how much clear pixels far from cloud differ from their lines, per band."""
        self._level = 0.0
        if not self.options.level_pixels:
            return
        gap = measure_far_pixels(scene, tiles, self._gap)
        gap = gap[:, np.isfinite(gap).all(axis=0)]
        count = gap.shape[1]
        if not count:
            self.notes = ("no level of the day: no clear pixel is far from cloud",)
            return
        level = np.median(gap, axis=1) * count / (count + self.options.level_pixels)
        if level[:HAZE_BANDS].mean() > self.options.most_haze:
            self.notes = (f"no level of the day: {count:,} clear pixels far from cloud are hazy",)
        else:
            self._level = level[:, None]

    def _gap(self, inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
        """Return the target minus the line, ``(B, n)``."""
        target = inputs.target.reshape(len(inputs.target), -1)
        return np.take(target, pixels, axis=1) - self._line(*looks_at(inputs, pixels))

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the line at day 0 and the level of the day."""
        return np.maximum(self._line(looks, clear, days) + self._level, 0)

    def _line(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        return robust_line(looks, clear, days, self.options)


def robust_line(
    looks: np.ndarray, clear: np.ndarray, days: np.ndarray, options: RobustLineOptions
) -> np.ndarray:
    """Return the robust line through clear looks at day 0, ``(B, N)``, NaN where none.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        days: ``(T,)`` from the wanted day.
        options: see there.
    """
    haze = looks[:, :HAZE_BANDS].mean(axis=1)
    fading = fading_weights(days, options.days)[:, None] * clear
    time = days / options.days
    weights = fading * bounded_weights(
        haze - weighted_median(haze, fading), options.haze, options.shadow
    )
    for _ in range(options.rounds):
        level, slope = _fit_line(haze, weights, time, options.stiffness)
        above = haze - level - slope * time[:, None]
        weights = fading * bounded_weights(above, options.haze, options.shadow)
    shares = _shares_at_zero(weights, time, options.stiffness)
    line = np.einsum("tn,tbn->bn", shares, looks)
    return np.where(clear.any(axis=0), line, np.nan)


def bounded_weights(above: np.ndarray, haze: float, shadow: float) -> np.ndarray:
    """Return Tukey's biweight of residuals, with a bound of its own for each sign."""
    share = above * np.where(above > 0, 1 / haze, 1 / shadow)
    return np.maximum(1 - share**2, 0) ** 2 + LEAST_WEIGHT


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the lower weighted median over the first axis, ``(N,)``."""
    order = np.argsort(values + np.where(weights > 0, 0, np.inf), axis=0)
    passed = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    middle = (passed < passed[-1] / 2).sum(axis=0)
    chosen = np.take_along_axis(order, np.minimum(middle, len(values) - 1)[None], axis=0)
    return np.take_along_axis(values, chosen, axis=0)[0]


def _moments(weights: np.ndarray, time: np.ndarray, stiffness: float) -> tuple[np.ndarray, ...]:
    """Return the sums of weight, weight x time, and weight x (time² + stiffness), ``(N,)``."""
    powers = np.stack([np.ones_like(time), time, time**2 + stiffness])
    total, first, second = np.einsum("pt,tn->pn", powers, weights)
    return np.maximum(total, 1e-300), first, second


def _fit_line(
    values: np.ndarray, weights: np.ndarray, time: np.ndarray, stiffness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return level at time 0 and slope of the weighted line, each ``(N,)``."""
    total, first, second = _moments(weights, time, stiffness)
    weighted = weights * values
    zeroth, moment = weighted.sum(axis=0), np.einsum("t,tn->n", time, weighted)
    scale = np.maximum(total * second - first**2, 1e-300)
    return (second * zeroth - first * moment) / scale, (total * moment - first * zeroth) / scale


def _shares_at_zero(weights: np.ndarray, time: np.ndarray, stiffness: float) -> np.ndarray:
    """Return the share of each look in the line's level at time 0, ``(T, N)``."""
    total, first, second = _moments(weights, time, stiffness)
    scale = np.maximum(total * second - first**2, 1e-300)
    return weights * (second - first * time[:, None]) / scale
