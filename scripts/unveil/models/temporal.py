"""Composites and smoothing of clear looks, pixel by pixel: medoid, geomedian, Whittaker.

Functions here work on looks ``(T, B, N)`` with ``clear`` ``(T, N)``: T dates, B bands, N
pixels. A pixel without a clear look stays NaN.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unveil.composites import geometric_median, medoid
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.classical import fading_weights
from unveil.models.options import option_error
from unveil.scene import Inputs, is_clear

VALUES_PER_BATCH = 500_000
"""Values (T x B x N) worked on at once: few enough for the cache of a processor."""


@dataclass(frozen=True)
class TemporalOptions:
    """Options of the composites.

    Attributes:
        keep_clear: keep the target's own value where it is clear.
    """

    keep_clear: bool = True


@dataclass(frozen=True)
class GeomedianOptions(TemporalOptions):
    """Options of the geometric median.

    Attributes:
        days: time constant of weights ``exp(-|days| / constant)``; 0 weighs all looks alike.
    """

    days: float = 0.0


@dataclass(frozen=True)
class WhittakerOptions(TemporalOptions):
    """Options of the smoother.

    Attributes:
        smoothness: weight of the squared second differences of daily values against the
            squared residuals of clear looks.
    """

    smoothness: float = 5_000.0


class Temporal(Model):
    """A model that estimates each pixel from its clear looks, nearest in time first."""

    receptive_field = 0
    options_type: ClassVar[type[TemporalOptions]] = TemporalOptions
    options: TemporalOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        check_positive(spec, self.options)

    @property
    def needs(self) -> Needs:
        """At least one context frame."""
        return Needs(min_context=1, target=False)

    def predict(self, inputs: Inputs) -> Prediction:
        """Estimate what is not kept; NaN where the target has no data or nothing is clear."""
        has_data = np.isfinite(inputs.target).all(axis=0)
        keep = inputs.target_clear if self.options.keep_clear else np.zeros_like(has_data)
        result = np.where(has_data & keep, inputs.target, np.nan).astype(np.float32)
        flat = result.reshape(len(result), -1)
        for part in batches(np.flatnonzero(has_data & ~keep), inputs):
            flat[:, part] = self.estimate(*looks_at(inputs, part))
        return Prediction(result)

    @abstractmethod
    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return ``(B, N)`` from looks (0 where not clear) at days from the target."""


def check_positive(spec: ModelSpec, options: TemporalOptions) -> None:
    """Check that no number among the options is below 0.

    Raises:
        InputError: naming the model and the option.
    """
    for name, value in vars(options).items():
        if value < 0:
            raise option_error(spec, name, "give a number that is not below 0")


def batches(pixels: np.ndarray, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yield flat pixel numbers, as many at once as the memory for their looks allows."""
    size = max(1, VALUES_PER_BATCH // max(1, inputs.context.shape[0] * inputs.context.shape[1]))
    yield from (pixels[start : start + size] for start in range(0, len(pixels), size))


def looks_at(inputs: Inputs, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return looks ``(T, B, N)`` float64, 0 where not clear, clear ``(T, N)``, and days ``(T,)``.

    Nearest first (of two equally near, the earlier), so that ties fall to it.

    Args:
        inputs: window of a scene.
        pixels: ``(N,)`` flat numbers of pixels.
    """
    order = np.lexsort((inputs.days > 0, np.abs(inputs.days)))
    dates, bands = inputs.context.shape[:2]
    looks = np.zeros((dates, bands, len(pixels)))
    clear = is_clear(np.take(inputs.context_class.reshape(dates, -1)[order], pixels, axis=1))
    for number, t in enumerate(order):
        values = np.take(inputs.context[t].reshape(bands, -1), pixels, axis=1)
        clear[number] &= np.isfinite(values.sum(axis=0))
        np.copyto(looks[number], values, where=clear[number])
    return looks, clear, inputs.days[order].astype(np.float64)


class Medoid(Temporal):
    """The clear look with the least sum of spectral distances to the others."""

    kind = "medoid"
    citation = (
        "Flood 2013, Seasonal composite Landsat TM/ETM+ images using the medoid (a "
        "multi-dimensional median), Remote Sens. 5:6481-6500, doi:10.3390/rs5126481."
    )

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the medoid; of equally good looks the nearest in time."""
        return medoid(looks, clear)


class Geomedian(Temporal):
    """The spectrum with the least sum of distances to the clear looks."""

    kind = "geomedian"
    options_type = GeomedianOptions
    options: GeomedianOptions
    citation = (
        "Roberts, Mueller & McIntyre 2017, High-dimensional pixel composites from Earth "
        "observation time series, IEEE TGRS 55:6254-6264, doi:10.1109/TGRS.2017.2723896."
    )

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the geometric median, of looks that fade with time if asked to."""
        constant = self.options.days
        weights = fading_weights(days, constant) if constant else None
        return geometric_median(looks, clear, weights=weights)


class Whittaker(Temporal):
    """Smooth daily curve through the clear looks, read at the target date."""

    kind = "whittaker"
    options_type = WhittakerOptions
    options: WhittakerOptions
    citation = "Eilers 2003, A perfect smoother, Anal. Chem. 75:3631-3636, doi:10.1021/ac034173t."

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the smoothed value at day 0."""
        return whittaker(looks, clear, days, smoothness=self.options.smoothness)


def whittaker(
    looks: np.ndarray, clear: np.ndarray, days: np.ndarray, *, smoothness: float
) -> np.ndarray:
    """Return the Whittaker smooth of clear looks at day 0, ``(B, N)``.

    Minimises, over a value for every day, the squared residuals of the looks plus
    ``smoothness`` times the squared second differences. One look, or looks of one day, give
    their mean.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        days: ``(T,)`` whole days from the wanted day.
        smoothness: weight of the penalty.
    """
    patterns, index = np.unique(clear, axis=1, return_inverse=True)
    shares = _whittaker_shares(patterns, days, smoothness=smoothness)
    index = index.ravel()
    smooth = sum(shares[t, index] * looks[t] for t in range(len(looks)))
    return np.where(clear.any(axis=0), smooth, np.nan)


def _whittaker_shares(patterns: np.ndarray, days: np.ndarray, *, smoothness: float) -> np.ndarray:
    """Return the share of each look in the smooth at day 0, ``(T, P)``.

    The daily curve has a closed form in its looks: a line plus one kernel per look, where
    the kernel's fourth difference is 1 at its day and 0 elsewhere. So T + 2 unknowns
    replace one for every day, with the same result. The curve is linear in the looks and
    the system symmetric: one solution gives the shares of all of them.
    """
    count = len(days)
    scale = max(1.0, float(np.abs(days).max()))
    # Times scaled to 1 keep the system well conditioned; kernel and penalty scale alike.
    time = days / scale
    kernel = _fourth_difference_kernel(days[:, None] - days, scale)
    shares = np.zeros(patterns.shape)
    size = max(1, VALUES_PER_BATCH // (count + 2) ** 2)
    for start in range(0, patterns.shape[1], size):
        seen = patterns[:, start : start + size].T
        both = seen[:, :, None] & seen[:, None]
        system = np.zeros((len(seen), count + 2, count + 2))
        system[:, :count, :count] = np.where(both, kernel, 0)
        diagonal = np.arange(count)
        system[:, diagonal, diagonal] += np.where(seen, smoothness / scale**3, 1)
        for row, values in ((count, np.ones(count)), (count + 1, time)):
            system[:, row, :count] = system[:, :count, row] = seen * values
        # Decides the slope where the looks do not: none.
        system[:, count + 1, count + 1] = -1e-10
        system[:, count, count] = np.where(seen.any(axis=1), 0, 1)
        wanted = np.zeros((len(seen), count + 2))
        wanted[:, :count] = seen * _fourth_difference_kernel(days, scale)
        wanted[:, count] = 1
        solution = np.linalg.solve(system, wanted[..., None])[..., 0]
        shares[:, start : start + size] = (solution[:, :count] * seen).T
    return shares


def _fourth_difference_kernel(lag: np.ndarray, scale: float) -> np.ndarray:
    distance = np.abs(lag)
    return (distance**3 - distance) / 12 / scale**3
