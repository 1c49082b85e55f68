"""The simple baselines that often win: identity, composites and interpolation in time.

Every model here keeps the target's own pixels where the target is clear and estimates the
rest from clear looks, pixel by pixel. A pixel that no frame shows clearly stays NaN: the
report counts it as unanswered instead of inventing a value.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from unveil.errors import InputError
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.scene import Inputs

CACHED_PIXELS = 2**14
"""Pixels worked on at once: several times as fast as passes over an image that no cache holds."""
DAMPED_DAYS = 20.0
"""Default time constant of :class:`Damped` in days."""


@dataclass(frozen=True)
class DampedOptions:
    """Options of ``damped``.

    Attributes:
        days: time constant, the distance in days at which a weight falls to 1/e.
    """

    days: float = DAMPED_DAYS


def clear_looks(inputs: Inputs) -> np.ndarray:
    """Return context reflectance with NaN where not clear, ``(T, B, H, W)`` float32."""
    return np.where(inputs.context_clear[:, None], inputs.context, np.nan).astype(np.float32)


def weighted_composite(inputs: Inputs, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of clear looks, ``(B, H, W)`` float32, NaN where none.

    Args:
        inputs: window of a scene.
        weights: ``(T,)`` non-negative weight of each context frame.
    """
    composite, looks = np.empty(inputs.target.shape, np.float32), inputs.context_clear
    height, width = inputs.shape
    step = max(1, CACHED_PIXELS // width)
    for rows in (slice(row, row + step) for row in range(0, height, step)):
        summed = np.zeros_like(composite[:, rows], np.float64)
        total, weighted = np.zeros(summed.shape[1:]), np.empty_like(summed)
        for frame, clear, weight in zip(
            inputs.context[:, :, rows],
            looks[:, rows],
            weights.astype(np.float64),
            strict=True,
        ):
            total += weight * clear
            np.multiply(frame, weight, out=weighted)
            weighted[:, ~clear] = 0
            summed += weighted
        with np.errstate(invalid="ignore", divide="ignore"):
            composite[:, rows] = np.where(total > 0, summed / total, np.nan)
    return composite


def keep_clear(inputs: Inputs, estimate: np.ndarray) -> np.ndarray:
    """Return the target where it is clear and ``estimate`` elsewhere, NaN at nodata."""
    filled = np.where(inputs.target_clear, inputs.target, estimate)
    return np.where(np.isfinite(inputs.target).all(axis=0), filled, np.nan).astype(np.float32)


class _Classical(Model):
    """A model without weights that needs context frames of the target's own bands."""

    citation = "Baseline; see docs/models.md for its definition."
    receptive_field = 0

    @property
    def needs(self) -> Needs:
        """At least one context frame."""
        return Needs(min_context=1, target=False)

    def predict(self, inputs: Inputs) -> Prediction:
        """Keep clear target pixels, estimate the others."""
        return Prediction(keep_clear(inputs, self.estimate(inputs)))

    @abstractmethod
    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the cloud-free estimate of every pixel, ``(B, H, W)``."""


class TargetOnly(Model):
    """A model without options that looks at the target alone."""

    @property
    def needs(self) -> Needs:
        """Nothing but the target."""
        return Needs(max_context=0)


class Cloudy(TargetOnly):
    """The cloudy image itself: what no model may be worse than."""

    kind = "cloudy"
    citation = "Identity: the cloudy input, the floor of every comparison."

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the target unchanged."""
        return Prediction(inputs.target)


class LeastCloudy(_Classical):
    """The context frame with the fewest occluded pixels, whole.

    Chosen once a scene by its masks, ties to the frame nearest in time, then to the past.
    """

    kind = "least_cloudy"
    citation = (
        "Least cloudy frame of the series, as used for comparison by Ebel et al. 2022, "
        "SEN12MS-CR-TS, IEEE TGRS 60, doi:10.1109/TGRS.2022.3146246."
    )

    def prepare(self, scene, tiles) -> None:
        """Count clear pixels of each frame over the whole scene."""
        self._chosen = clearest_frames(tiles, 1)[0]

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the chosen frame, clear target pixels not kept."""
        return Prediction(self.estimate(inputs))

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the chosen frame."""
        return inputs.context[self._chosen]


class Mosaic(_Classical):
    """Mean of all clear looks."""

    kind = "mosaic"
    citation = (
        "Mean of clear looks ('mosaicing'), as used for comparison by Ebel et al. 2022, "
        "SEN12MS-CR-TS, IEEE TGRS 60, doi:10.1109/TGRS.2022.3146246."
    )

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the mean of clear looks."""
        return weighted_composite(inputs, np.ones(len(inputs.days)))


class Median(_Classical):
    """Per-band median of all clear looks."""

    kind = "median"
    citation = "Per-band median composite of clear looks."

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the median of clear looks."""
        return nan_median(clear_looks(inputs))


class Nearest(_Classical):
    """The clear look closest in time; of two equally close, the earlier."""

    kind = "nearest"
    citation = "Closest clear look in time."

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the closest clear look of each pixel."""
        result = np.full(inputs.target.shape, np.nan, np.float32)
        missing = np.ones(inputs.shape, bool)
        for t in np.lexsort((inputs.days > 0, np.abs(inputs.days))):
            use = missing & inputs.context_clear[t]
            result[:, use] = inputs.context[t][:, use]
            missing &= ~use
        return result


class Linear(_Classical):
    """Linear interpolation in days between the clear looks before and after.

    Beyond the first or last clear look the nearest one is repeated.
    """

    kind = "linear"
    citation = "Linear interpolation in time between clear looks, per pixel and band."

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the value on the line between the neighbours in time."""
        before, day_before = self._neighbour(inputs, past=True)
        after, day_after = self._neighbour(inputs, past=False)
        span = day_after - day_before
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(span > 0, -day_before / span, 0)
        blend = before * (1 - share) + after * share
        return np.where(np.isnan(before), after, np.where(np.isnan(after), before, blend))

    @staticmethod
    def _neighbour(inputs: Inputs, *, past: bool) -> tuple[np.ndarray, np.ndarray]:
        value = np.full(inputs.target.shape, np.nan, np.float32)
        day = np.full(inputs.shape, np.nan, np.float32)
        for t in np.argsort(-np.abs(inputs.days)):
            if (inputs.days[t] < 0) == past:
                clear = inputs.context_clear[t]
                value[:, clear] = inputs.context[t][:, clear]
                day[clear] = inputs.days[t]
        return value, day


class Damped(_Classical):
    """Mean of clear looks that fades with time: weight ``exp(-|days| / time constant)``."""

    kind = "damped"
    citation = (
        "Temporal damped interpolation after SpaceEye (Zhao, Olsen & Chandra 2021, Seeing "
        "Through Clouds in Satellite Images, arXiv:2106.08408); here an exponentially decayed "
        "mean of clear looks."
    )

    options_type = DampedOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        if self.options.days <= 0:
            raise InputError(
                f"found {self.options.days}",
                file="models table",
                field=f"{spec.id}.options.days",
                remedy="give a number of days above 0",
            )

    def estimate(self, inputs: Inputs) -> np.ndarray:
        """Return the decayed mean of clear looks."""
        return damped_composite(inputs, self.options.days)


def damped_composite(inputs: Inputs, days: float, use: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of clear looks with weight ``exp(-|dt| / days)``, ``(B, H, W)``.

    The weights are relative to the nearest frame, so that far frames never underflow.

    Args:
        inputs: window of a scene.
        days: time constant.
        use: ``(T,)`` bool, frames to use; default all.
    """
    used = np.ones(len(inputs.days), bool) if use is None else use
    if not used.any():
        return np.full(inputs.target.shape, np.nan, np.float32)
    weights = np.zeros(len(used))
    weights[used] = fading_weights(inputs.days[used], days)
    return weighted_composite(inputs, weights)


def fading_weights(days: np.ndarray, constant: float) -> np.ndarray:
    """Return ``exp(-|days| / constant)`` relative to the nearest, ``(T,)`` float64, never 0."""
    distance = np.abs(days).astype(np.float64)
    return np.maximum(np.exp(-(distance - distance.min()) / constant), 1e-12)


def clearest_frames(tiles: Iterable[Inputs], count: int) -> list[int]:
    """Return the context frames with the most clear pixels of a scene, sorted by position.

    Of equally clear ones the nearest in time, then the earlier.

    Args:
        tiles: the scene's windows without overlap.
        count: how many frames.
    """
    looks, days = [], np.empty(0)
    for tile in tiles:
        looks.append(tile.context_clear.sum(axis=(1, 2)))
        days = tile.days
    order = np.lexsort((days > 0, np.abs(days), -np.sum(looks, axis=0)))
    return sorted(int(t) for t in order[:count])


def nan_median(stack: np.ndarray) -> np.ndarray:
    """Return the median over the first axis, ignoring NaN; NaN where all are NaN.

    Sorting puts NaN last, which is several times faster than ``numpy.nanmedian``.
    """
    if not len(stack):
        return np.full(stack.shape[1:], np.nan, np.float32)
    flat = stack.reshape(len(stack), -1)
    median = np.empty(flat.shape[1], stack.dtype)
    for begin in range(0, len(median), CACHED_PIXELS):
        part = slice(begin, begin + CACHED_PIXELS)
        ordered = np.sort(flat[:, part], axis=0)
        count = np.isfinite(ordered).sum(axis=0)
        low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
        high = np.take_along_axis(ordered, np.minimum(count // 2, len(stack) - 1)[None], axis=0)[0]
        median[part] = (low + high) / 2
    return median.reshape(stack.shape[1:])
