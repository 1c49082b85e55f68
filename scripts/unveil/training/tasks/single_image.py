"""The single-image task: DSen2-CR's network, from one cloudy image to a clear one.

It learns from :class:`unveil.training.shots.Shot`: first from clear images under simulated clouds
and their haze, then from these and real pairs together. Samples are channels-last and in the
network's unit (DN / 2000); everything else in the package is ``(B, H, W)`` reflectance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from unveil.bands import REFLECTANCE_SCALE
from unveil.errors import InputError
from unveil.models.dsen2cr.network import build_network
from unveil.models.dsen2cr.recipe import UNITS_PER_REFLECTANCE, Fill, fill_values, network_input
from unveil.training.loop import Scores, Task, TrainingPlan
from unveil.training.losses import cloud_adaptive_loss
from unveil.training.shots import Sample, Shot, can_be_drawn, draw_sample, under_clouds, whole

VALIDATION_COVERS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Hidden shares of the simulated clouds over each held-out clear image."""
CLOUD_LEVELS = {"below_35": (0.0, 0.35), "35_to_65": (0.35, 0.65), "above_65": (0.65, 1.01)}
"""Hidden share of a scene, the report's levels of cloud."""


@dataclass(frozen=True)
class Recipe:
    """What is drawn, and how errors count.

    Attributes:
        pool: scenes under simulated clouds, each seen several times.
        real: share of scenes that are real pairs, once these are seen.
        pretrain: share of all steps in which they are not.
        loss: ``carl``, as published, or ``l1``, the mean absolute error.
    """

    pool: int
    real: float = 0.5
    pretrain: float = 0.5
    loss: Literal["carl", "l1"] = "carl"


@dataclass(frozen=True)
class Batch:
    """Samples for one step, in the network's unit.

    Attributes:
        given: ``(N, H, W, B [+ 2])``, what the network sees: cloudy bands, then radar.
        clear: ``(N, H, W, B)``, the truth; the input where there is none.
        occluded: ``(N, H, W, 1)``, 1 where the truth is hidden, else 0.
    """

    given: np.ndarray
    clear: np.ndarray
    occluded: np.ndarray

    @property
    def cloudy(self) -> np.ndarray:
        """``(N, H, W, B)``: the bands of the input."""
        return self.given[..., : self.clear.shape[-1]]


Predictor = Callable[[Batch], np.ndarray]


class Pool:
    """Samples drawn from shots, each when it is first asked for, and kept.

    Args:
        shots: to draw from.
        bands: ESA names of the network's bands.
        count: samples.
        size: edge in pixels.
        seed: sample ``n`` depends on the seed and ``n`` alone.
        radar_fill: dB that stand for radar where there is none; None for a network without.
    """

    def __init__(
        self,
        shots: Sequence[Shot],
        bands: Sequence[str],
        *,
        count: int,
        size: int,
        seed: int,
        radar_fill: float | None,
    ) -> None:
        self.shots, self.bands = list(shots), tuple(bands)
        self.count, self.size, self.seed, self.radar_fill = count, size, seed, radar_fill
        self._kept: dict[int, Batch] = {}

    def take(self, numbers: Sequence[int]) -> Batch:
        """Return some samples, float16."""
        for number in numbers:
            if number not in self._kept:
                self._kept[number] = self._draw(number)
        return joined([self._kept[number] for number in numbers])

    def fill(self, processes: int) -> None:
        """Draw all samples at once, in processes of their own."""
        with get_context("fork").Pool(processes) as workers:
            drawn = workers.imap(self._draw, range(self.count), chunksize=8)
            self._kept = dict(enumerate(drawn))

    def _draw(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, number])
        sample = draw_sample(self.shots, self.bands, size=self.size, rng=rng)
        return encode(sample, radar_fill=self.radar_fill)


class SingleImageTask(Task):
    """Clear one image; validation is on places that are never trained on.

    With radar, a scene of a place without it gets the mean of all radar trained on in both
    polarisations, as the published network fills gaps.

    Args:
        network: ``bands``, ``radar``, ``features``, ``blocks`` and, unless it is 1,
            ``dilations``.
        shots: to learn from; those without the bands, or too small, are left out.
        held_out: shots to validate on.
        recipe: what is drawn, and how errors count.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        *,
        shots: Sequence[Shot],
        held_out: Sequence[Shot],
        recipe: Recipe,
    ) -> None:
        self.network, self.recipe = dict(network), recipe
        self.shots, self.held_out = list(shots), list(held_out)
        self.radar_fill = mean_radar(shots) if network["radar"] else None
        self._pools: tuple[Pool, Pool | None] | None = None

    def build(self) -> keras.Model:
        """Return the network at its start."""
        sizes = {key: self.network[key] for key in ("radar", "features", "blocks")}
        dilations = self.network.get("dilations", (1,))
        return build_network(bands=len(self.network["bands"]), dilations=dilations, **sizes)

    def pools(self, plan: TrainingPlan) -> tuple[Pool, Pool | None]:
        """Return the scenes under simulated clouds, and those of real pairs if any are seen.

        Raises:
            InputError: if nothing can be drawn.
        """
        if self._pools is None:
            bands = self.network["bands"]
            usable = [shot for shot in self.shots if can_be_drawn(shot, bands, plan.crop)]
            clear = [shot for shot in usable if shot.cloudy is None]
            pairs = [shot for shot in usable if shot.cloudy is not None]
            if not clear or (self.recipe.real and not pairs):
                raise InputError(
                    f"no {'real pair' if clear else 'clear image'} of {plan.crop} pixels has the "
                    f"bands {', '.join(bands)}",
                    file="training table",
                    field="plan.crop",
                    remedy="use smaller crops or other places, or set samples.real to 0",
                )
            facts: dict[str, Any] = {"size": plan.crop, "radar_fill": self.radar_fill}
            count = self.recipe.pool
            self._pools = (
                Pool(clear, bands, count=count, seed=plan.seed, **facts),
                Pool(pairs, bands, count=count, seed=plan.seed + 1, **facts)
                if self.recipe.real
                else None,
            )
        return self._pools

    def share(self, other: SingleImageTask) -> None:
        """Take the scenes that another task of the same bands, radar and places has drawn."""
        self._pools = other._pools

    def draw(
        self, plan: TrainingPlan, step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Return what is given, the truth and where it is hidden, of some scenes."""
        simulated, real = self.pools(plan)
        paired = 0
        if real is not None and step >= self.recipe.pretrain * plan.steps:
            paired = round(plan.batch * self.recipe.real)
        numbers = rng.integers(self.recipe.pool, size=plan.batch).tolist()
        parts = []
        if paired and real is not None:
            parts.append(real.take(numbers[:paired]))
        if paired < plan.batch:
            parts.append(simulated.take(numbers[paired:]))
        batch = joined(parts)
        return self._seen(batch).given, batch.clear, batch.occluded

    def _seen(self, batch: Batch) -> Batch:
        """Leave radar out for a network without."""
        channels = len(self.network["bands"]) + (2 if self.network["radar"] else 0)
        return replace(batch, given=batch.given[..., :channels])

    def loss(self, network: keras.Model, arrays: tuple[Any, ...]) -> Any:
        """Return the loss of DSen2-CR, or the mean absolute error."""
        given, clear, occluded = (ops.cast(array, "float32") for array in arrays)
        return self.loss_of(network(given, training=True), given, clear, occluded)

    def loss_of(self, prediction: Any, given: Any, clear: Any, occluded: Any) -> Any:
        """Return the loss of a prediction; float32 tensors as in :class:`Batch`."""
        prediction = ops.cast(prediction, "float32")
        if self.recipe.loss == "l1":
            return ops.mean(ops.abs(prediction - clear))
        cloudy = given[..., : clear.shape[-1]]
        return cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)

    def validation(self, plan: TrainingPlan) -> dict[str, Batch]:
        """Return scenes of the held-out places, in the light that they were seen in.

        ``PLACE`` are its clear images under simulated clouds, ``PLACE-pairs`` its real pairs.
        """
        bands, size = self.network["bands"], plan.validation_crop
        batches: dict[str, list[Batch]] = {}
        for number, shot in enumerate(self.held_out):
            if not can_be_drawn(shot, bands, size):
                continue
            sample = whole(shot, bands, size=size)
            if shot.cloudy is not None:
                samples = [sample]
            else:
                rng = np.random.default_rng([plan.seed, 2, number])
                covers = VALIDATION_COVERS
                samples = [under_clouds(sample, bands, cover=cover, rng=rng) for cover in covers]
            name = shot.place + ("-pairs" if shot.cloudy is not None else "")
            encoded = [encode(one, radar_fill=self.radar_fill) for one in samples]
            batches.setdefault(name, []).extend(encoded)
        return {name: as_float32(joined(parts)) for name, parts in batches.items()}

    def scorer(self, plan: TrainingPlan) -> Callable[[keras.Model], Scores]:
        """Return what scores a network on each held-out place and over all of them."""
        batches = self.validation(plan)

        def score(network: keras.Model) -> Scores:
            scores = evaluate(network_predictor(network), batches)
            row = {f"mae_occluded_{place}": s["mae_occluded"] for place, s in scores.items()}
            for region in ("mae_occluded", "mae_clear"):
                row[region] = _mean_known(np.array([s[region] for s in scores.values()]))
            return row

        return score

    def identity(self) -> str:
        """Return a checksum of the data and of how it is varied."""
        digest = hashlib.sha256(repr((self.network, self.recipe)).encode())
        for shot in (*self.shots, *self.held_out):
            digest.update(repr((shot.place, shot.bands, shot.weight)).encode())
            for array in (shot.clear, shot.cloudy, shot.hidden, shot.radar):
                if array is not None:
                    digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def encode(sample: Sample, *, radar_fill: float | None) -> Batch:
    """Return a scene as a batch of one, float16 to keep many of them.

    Args:
        sample: the scene, its target with clouds on it.
        radar_fill: dB that stand for radar where there is none; None for a network without.

    Returns:
        The batch. Where the truth is unknown the input stands for it, and counts as clear.
    """
    target = sample.cloudy * np.float32(REFLECTANCE_SCALE)
    radar = None
    if radar_fill is not None:
        radar = sample.radar
        radar = np.full((2, *target.shape[1:]), radar_fill, np.float32) if radar is None else radar
    fill = fill_values(target, radar)
    truth = sample.clear * np.float32(REFLECTANCE_SCALE)
    known = np.isfinite(truth).all(axis=0)
    truth = np.where(np.isfinite(truth), truth, target)
    given = network_input(target, radar, fill)
    clear = network_input(truth, None, Fill(fill.optical, np.nan))
    occluded = (sample.hidden & known)[..., None]
    return Batch(*(array[None].astype(np.float16) for array in (given, clear, occluded)))


def joined(batches: Sequence[Batch]) -> Batch:
    """Join batches."""
    parts = zip(*((b.given, b.clear, b.occluded) for b in batches), strict=True)
    return Batch(*(np.concatenate(part) for part in parts))


def as_float32(batch: Batch) -> Batch:
    """Return a batch in float32."""
    return Batch(*(a.astype(np.float32) for a in (batch.given, batch.clear, batch.occluded)))


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
    scores = {"mae_occluded": _mean_known(occluded), "mae_clear": _mean_known(clear)}
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


def _mean_known(values: np.ndarray) -> float:
    """Return the mean of what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def network_predictor(network: keras.Model) -> Predictor:
    """Return the predictor of a network, image by image; radar only if it sees any."""
    channels = network.input_shape[-1]

    def predict(batch: Batch) -> np.ndarray:
        images = (given[None, ..., :channels] for given in batch.given)
        parts = [np.asarray(network.predict_on_batch(image), np.float32) for image in images]
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


def mean_radar(shots: Sequence[Shot]) -> float:
    """Return the mean of both polarisations over the radar of some shots, as drawn, dB.

    Raises:
        InputError: if none has radar.
    """
    known = [shot for shot in shots if shot.radar is not None]
    if not known:
        raise InputError(
            "no series trained on has radar",
            file="training table",
            field="network.radar",
            remedy="add one that has, or set it to false",
        )
    means = [np.nanmean(shot.radar, dtype=np.float64) for shot in known if shot.radar is not None]
    return float(np.average(means, weights=[shot.weight for shot in known]))
