"""The single-image task: DSen2-CR's network, from one cloudy image to a clear one.

It learns from the scenes of the time-series network, of which it sees the target alone, with real
or simulated clouds on it (:func:`unveil.training.series.sample.draw_sample`). Samples are
channels-last and in the network's unit (DN / 2000); everything else in the package is
``(B, H, W)`` reflectance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unveil.bands import REFLECTANCE_SCALE, band_positions
from unveil.errors import InputError
from unveil.models.chronos.learning import Sample
from unveil.models.dsen2cr.network import build_network
from unveil.models.dsen2cr.recipe import UNITS_PER_REFLECTANCE, Fill, fill_values, network_input
from unveil.places.series import Series
from unveil.training.loop import Scores, Task, TrainingPlan
from unveil.training.losses import cloud_adaptive_loss
from unveil.training.series.options import SampleOptions
from unveil.training.series.sample import draw_sample

VALIDATION_SAMPLES = 48
"""Scenes of each held-out place."""
CLOUD_LEVELS = {"below_35": (0.0, 0.35), "35_to_65": (0.35, 0.65), "above_65": (0.65, 1.01)}
"""Hidden share of a scene, the report's levels of cloud."""
_PREDICT_SAMPLES = 8


@dataclass(frozen=True)
class Batch:
    """Samples for one step, in the network's unit.

    Attributes:
        given: ``(N, H, W, B [+ 2])`` float32, what the network sees: cloudy bands, then radar.
        clear: ``(N, H, W, B)`` float32, the truth; the input where there is none.
        occluded: ``(N, H, W, 1)`` float32, 1 where the truth is hidden, else 0.
    """

    given: np.ndarray
    clear: np.ndarray
    occluded: np.ndarray

    @property
    def cloudy(self) -> np.ndarray:
        """``(N, H, W, B)``: the bands of the input."""
        return self.given[..., : self.clear.shape[-1]]


Predictor = Callable[[Batch], np.ndarray]


class SingleImageTask(Task):
    """Clear one image; validation is on places that are never trained on.

    A pool of scenes is drawn once and seen several times. With radar, a scene gets the
    radar of its nearest date; where its place has none, or its parcels follow another place,
    the mean of all radar trained on stands in both polarisations, as the published network
    fills gaps.

    Args:
        network: ``bands``, ``radar``, ``features`` and ``blocks``.
        series: places to learn from.
        images: clear core-band images ``(6, H, W)`` whose parcels follow other places.
        held_out: places to validate on.
        options: how scenes are varied; context and radar are no choice of theirs.
        pool: scenes drawn.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        *,
        series: Sequence[Series],
        images: Sequence[np.ndarray],
        held_out: Sequence[Series],
        options: SampleOptions,
        pool: int,
    ) -> None:
        self.network, self.series, self.images = dict(network), series, images
        self.held_out, self.pool = held_out, pool
        self.options = replace(options, missed=0, gaps=0, radar=float(network["radar"]))
        self.radar_fill = _mean_radar(series) if network["radar"] else None
        self._cached = lru_cache(maxsize=pool)(self._draw_one)

    def build(self) -> keras.Model:
        """Return the network at its start."""
        sizes = {key: self.network[key] for key in ("radar", "features", "blocks")}
        return build_network(bands=len(self.network["bands"]), **sizes)

    def draw(
        self, plan: TrainingPlan, step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Return what is given, the truth and where it is hidden, of some scenes of the pool."""
        numbers = rng.integers(self.pool, size=plan.batch)
        batch = stack([self._cached(plan.seed, plan.crop, int(n)) for n in numbers])
        return batch.given, batch.clear, batch.occluded

    def _draw_one(self, seed: int, size: int, number: int) -> Batch:
        rng = np.random.default_rng([seed, 1, number])
        return self._sample(self.series, self.images, size, self.options, rng)

    def _sample(
        self,
        series: Sequence[Series],
        images: Sequence[np.ndarray],
        size: int,
        options: SampleOptions,
        rng: np.random.Generator,
    ) -> Batch:
        sample = draw_sample(series, images, size=size, options=options, rng=rng, alone=True)
        if min(sample.occluded.shape) < size:
            raise InputError(
                f"a place has {sample.occluded.shape} pixels, fewer than a crop of {size}",
                file="training table",
                field="plan.crop",
                remedy="use smaller crops, or leave the place out",
            )
        return encode(sample, self.network["bands"], radar_fill=self.radar_fill)

    def loss(self, network: keras.Model, arrays: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Return the loss of DSen2-CR."""
        given, clear, occluded = (tf.cast(array, tf.float32) for array in arrays)
        prediction = tf.cast(network(given, training=True), tf.float32)
        cloudy = given[..., : clear.shape[-1]]
        return cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)

    def validation(self, plan: TrainingPlan) -> dict[str, Batch]:
        """Return scenes of the held-out places by id, their brightness as it is."""
        options = replace(self.options, synthetic=0, overcast=0, borrowed=0.5, radiometry=False)

        def draw(place: Series, number: int) -> Batch:
            rng = np.random.default_rng([plan.seed, 2, number])
            # The shapes of all held-out clouds are borrowed; the others are never drawn.
            lenders = [replace(one, weight=float(one is place)) for one in self.held_out]
            return self._sample(lenders, [], plan.validation_crop, options, rng)

        return {
            place.id: stack([draw(place, number) for number in range(VALIDATION_SAMPLES)])
            for place in self.held_out
        }

    def scorer(self, plan: TrainingPlan) -> Callable[[keras.Model], Scores]:
        """Return what scores a network on each held-out place and over all of them."""
        batches = self.validation(plan)

        def score(network: keras.Model) -> Scores:
            scores = evaluate(network_predictor(network), batches)
            row = {f"mae_occluded_{place}": s["mae_occluded"] for place, s in scores.items()}
            for region in ("mae_occluded", "mae_clear"):
                row[region] = float(np.mean([s[region] for s in scores.values()]))
            return row

        return score

    def identity(self) -> str:
        """Return a checksum of the data and of how it is varied."""
        digest = hashlib.sha256(repr((self.network, self.options, self.pool)).encode())
        for place in (*self.series, *self.held_out):
            digest.update(repr((place.id, place.bands, place.weight)).encode())
            for array in (place.reflectance, place.radar, place.masks):
                digest.update(np.ascontiguousarray(array).tobytes())
        for image in self.images:
            digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()


def encode(sample: Sample, bands: Sequence[str], *, radar_fill: float | None) -> Batch:
    """Return a scene as a batch of one, float16 to keep many of them.

    Args:
        sample: the scene, its target with clouds on it.
        bands: the network's bands.
        radar_fill: dB that stand for radar where there is none; None for a network without.

    Returns:
        The batch. Where the truth is unknown the input stands for it, and counts as clear.
    """
    positions = band_positions(bands, sample.inputs.bands)
    target = sample.inputs.target[positions] * np.float32(REFLECTANCE_SCALE)
    radar = None
    if radar_fill is not None:
        radar = sample.inputs.sar
        radar = np.full((2, *target.shape[1:]), radar_fill, np.float32) if radar is None else radar
    fill = fill_values(target, radar)
    truth = sample.truth[positions] * np.float32(REFLECTANCE_SCALE)
    truth = np.where(np.isfinite(truth), truth, target)
    given = network_input(target, radar, fill)
    clear = network_input(truth, None, Fill(fill.optical, np.nan))
    occluded = sample.occluded[..., None]
    return Batch(*(array[None].astype(np.float16) for array in (given, clear, occluded)))


def stack(samples: Sequence[Batch]) -> Batch:
    """Join batches, as float32."""
    parts = zip(*((s.given, s.clear, s.occluded) for s in samples), strict=True)
    return Batch(*(np.concatenate(part).astype(np.float32) for part in parts))


def evaluate(predict: Predictor, batches: Mapping[str, Batch]) -> dict[str, Scores]:
    """Return errors in reflectance by place, means over scenes of means over their pixels.

    ``mae_occluded`` and ``mae_clear``, and the former by the hidden share of the scene
    (:data:`CLOUD_LEVELS`), where there are such scenes.
    """
    return {place: _evaluate_place(predict, batch) for place, batch in batches.items()}


def _evaluate_place(predict: Predictor, batch: Batch) -> Scores:
    error = np.abs(predict(batch) - batch.clear).mean(axis=-1, dtype=np.float64)
    error /= UNITS_PER_REFLECTANCE
    hidden = batch.occluded[..., 0] > 0
    share = hidden.mean(axis=(1, 2))
    occluded, clear = (_mean_where(error, region) for region in (hidden, ~hidden))
    scores = {"mae_occluded": np.nanmean(occluded), "mae_clear": np.nanmean(clear)}
    for name, (low, high) in CLOUD_LEVELS.items():
        chosen = (share >= low) & (share < high) & (share > 0)
        if chosen.any():
            scores[f"mae_occluded_{name}"] = occluded[chosen].mean()
    return {name: float(value) for name, value in scores.items()}


def _mean_where(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return the mean of each image over a region of it, NaN where that is empty."""
    count = region.sum(axis=(1, 2))
    total = np.where(region, values, 0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def network_predictor(network: keras.Model) -> Predictor:
    """Return the predictor of a network, a few samples at a time."""

    def predict(batch: Batch) -> np.ndarray:
        run = partial(network, training=False)
        parts = [
            np.asarray(run(batch.given[i : i + _PREDICT_SAMPLES]), np.float32)
            for i in range(0, len(batch.given), _PREDICT_SAMPLES)
        ]
        return np.concatenate(parts)

    return predict


def cloudy_predictor(batch: Batch) -> np.ndarray:
    """Predict the cloudy input itself."""
    return batch.cloudy


def clear_mean_predictor(batch: Batch) -> np.ndarray:
    """Predict the mean of the clear pixels of each sample, band by band."""
    weight = 1 - batch.occluded
    total = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1)
    mean = (weight * batch.cloudy).sum(axis=(1, 2), keepdims=True) / total
    return np.where(batch.occluded > 0, mean, batch.cloudy)


def _mean_radar(series: Sequence[Series]) -> float:
    """Return the mean of both polarisations over the radar of some places, as drawn, dB.

    Raises:
        InputError: if none has radar.
    """
    known = [place for place in series if len(place.radar)]
    if not known:
        raise InputError(
            "no series trained on has radar",
            file="training table",
            field="network.radar",
            remedy="add one that has, or set it to false",
        )
    means = [np.nanmean(place.radar, dtype=np.float64) for place in known]
    return float(np.average(means, weights=[place.weight for place in known]))
