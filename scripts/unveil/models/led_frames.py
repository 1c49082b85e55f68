"""Each clear look led to the target date by a line per band; their mean by inverse variance.

The lines are fitted on pixels that are clear in both dates and far from the target's cloud, so
that haze and the season of a whole date go before dates are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil.models.far_pixels import measure_far_pixels
from unveil.models.robust_line import HAZE_BANDS, bounded_weights, weighted_median
from unveil.models.temporal import Temporal, TemporalOptions, looks_at
from unveil.scene import Inputs, Scene

ROUNDS = 5
TUKEY = 4.685
"""Robust standard deviations at which Tukey's biweight ends."""
SHRUNK = 0.828
"""What Tukey's weights leave of a normal distribution's variance."""
UNKNOWN = 0.03
"""Standard deviation of looks as they are at the time constant, where no pixel tells it."""
LEAST = 0.002
"""Least standard deviation of a look that was led, so that none is believed alone."""


@dataclass(frozen=True)
class LedFramesOptions(TemporalOptions):
    """Options of the led frames.

    Attributes:
        pixels: pixels that the identity line, and a variance that grows with time, are worth
            beside those that a line is fitted on.
        days: time constant by which that variance grows, ``exp(|days| / constant)``.
        haze: mean reflectance of the shortest bands above the median of a pixel's led looks at
            which a look counts nothing any more.
        shadow: the same below the median.
        most_haze: a target whose far clear pixels lie higher above the looks than this, in
            the mean of the shortest bands, is hazy itself: no look is led.
    """

    pixels: int = 3000
    days: float = 20.0
    haze: float = 0.015
    shadow: float = 0.06
    most_haze: float = 0.005


class LedFrames(Temporal):
    """Inverse-variance mean of looks that were led to the target by a robust line per band."""

    kind = "led_frames"
    options_type = LedFramesOptions
    options: LedFramesOptions
    citation = (
        "Du, Teillet & Cihlar 2002, Radiometric normalization of multitemporal high-resolution "
        "satellite images, Remote Sens. Environ. 82:123-134, "
        "doi:10.1016/S0034-4257(02)00029-9; here fitted with Tukey's weights, and averaged."
    )
    _lines: Lines | None = None

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Fit the line of every date and band."""
        self._lines = None
        days: list[float] = []

        def measure(inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
            looks, clear, days[:] = looks_at(inputs, pixels)
            target = inputs.target.reshape(len(inputs.target), -1)[:, pixels]
            known = np.where(clear[:, None], looks, np.nan)
            return np.concatenate([target, *known])

        table = measure_far_pixels(scene, tiles, measure).astype(np.float64)
        bands, count = len(scene.bands), table.shape[1]
        looks = table[bands:].reshape(len(table) // bands - 1, bands, count)
        untold = untold_lines(np.array(days), bands, self.options)
        plain = join_led(np.nan_to_num(looks), np.isfinite(looks.sum(axis=1)), untold)
        gap = (table[:bands] - plain)[:HAZE_BANDS].mean(axis=0)
        gap = gap[np.isfinite(gap)]
        if not gap.size:
            self.notes = ("not led: no clear pixel that a look shows is far from cloud",)
        elif np.median(gap) > self.options.most_haze:
            self.notes = (f"not led: {count:,} clear pixels far from cloud are hazy",)
        else:
            self._lines = fit_lines(looks, table[:bands], np.array(days), self.options)

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the mean of the led looks."""
        lines = self._lines or untold_lines(days, looks.shape[1], self.options)
        weights = clear * trust_looks(looks, clear, lines, self.options)
        return np.maximum(join_led(looks, weights, lines), 0)


@dataclass(frozen=True)
class Lines:
    """What leads looks to the target: each ``(T, B)``.

    Attributes:
        offset: reflectance to add.
        slope: to multiply by, before.
        variance: of what is left over.
    """

    offset: np.ndarray
    slope: np.ndarray
    variance: np.ndarray


def untold_lines(days: np.ndarray, bands: int, options: LedFramesOptions) -> Lines:
    """Return the identity, with a variance that grows with time."""
    variance = np.repeat(_prior_variance(days, options)[:, None], bands, axis=1)
    return Lines(np.zeros_like(variance), np.ones_like(variance), variance)


def _prior_variance(days: np.ndarray, options: LedFramesOptions) -> np.ndarray:
    return UNKNOWN**2 * np.exp(np.minimum(np.abs(days) / options.days, 30) - 1)


def fit_lines(
    looks: np.ndarray, target: np.ndarray, days: np.ndarray, options: LedFramesOptions
) -> Lines:
    """Return the robust line from each look to the target, per band.

    Args:
        looks: ``(T, B, N)`` float64, NaN where not clear.
        target: ``(B, N)``.
        days: ``(T,)`` from the target.
        options: see there.
    """
    lines = untold_lines(days, len(target), options)
    for t, look in enumerate(looks):
        seen = np.isfinite(look).all(axis=0)
        if not seen.any():
            continue
        for b in range(len(target)):
            fitted = _fit_line(look[b, seen], target[b, seen], lines.variance[t, b], options.pixels)
            lines.offset[t, b], lines.slope[t, b], lines.variance[t, b] = fitted
    return lines


def _fit_line(
    look: np.ndarray, target: np.ndarray, variance: float, pixels: int
) -> tuple[float, float, float]:
    """Return offset, slope and variance of a robust line that starts from the identity.

    The identity and the given variance count as much as a number of pixels.
    """
    change = target - look
    offset, tilt, centre = float(np.median(change)), 0.0, float(look.mean())
    weight = np.ones_like(look)
    for _ in range(ROUNDS):
        residual = change - offset - tilt * (look - centre)
        spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-6
        weight = np.maximum(1 - (residual / (TUKEY * spread)) ** 2, 0) ** 2
        total = float(weight.sum())
        centre = float(weight @ look) / total
        about = look - centre
        scatter = float(weight @ about**2)
        offset = float(weight @ change) / (total + pixels)
        tilt = float((weight * about) @ change) / (scatter + pixels * max(scatter / total, 1e-6))
    residual = change - offset - tilt * (look - centre)
    left = (float(weight @ residual**2) / SHRUNK + pixels * variance) / (total + pixels)
    return offset - tilt * centre, 1 + tilt, max(left, LEAST**2)


def trust_looks(
    looks: np.ndarray, clear: np.ndarray, lines: Lines, options: LedFramesOptions
) -> np.ndarray:
    """Return weights ``(T, N)`` that fall for led looks of other haze than their median."""
    part = slice(0, HAZE_BANDS)
    led = np.einsum("tb,tbn->tn", lines.slope[:, part], looks[:, part])
    led += lines.offset[:, part].sum(axis=1)[:, None]
    haze = led / lines.offset[:, part].shape[1]
    weights = clear / lines.variance.mean(axis=1)[:, None]
    return bounded_weights(haze - weighted_median(haze, weights), options.haze, options.shadow)


def join_led(looks: np.ndarray, seen: np.ndarray, lines: Lines) -> np.ndarray:
    """Return the inverse-variance mean of led looks, ``(B, N)``, NaN where none is seen.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        seen: ``(T, N)``, by what share each look counts; 0 where it is not clear.
        lines: what leads them.
    """
    weights = 1 / lines.variance
    seen = seen.astype(np.float64)
    summed = np.einsum("tb,tn,tbn->bn", weights * lines.slope, seen, looks)
    summed += (weights * lines.offset).T @ seen
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seen.any(axis=0), summed / (weights.T @ seen), np.nan)
