"""The task of ``chronos``: series of real dates, one of them hidden."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from unveil.errors import InputError
from unveil.models.chronos.learning import prepare_sample, sample_loss, score_samples, stack_samples
from unveil.models.chronos.network import build_network
from unveil.places.series import Series
from unveil.training.loop import Scores, Task, TrainingPlan
from unveil.training.series.options import SampleOptions
from unveil.training.series.sample import draw_sample

VALIDATION_SAMPLES = 64
PLAIN = SampleOptions(
    synthetic=0, missed=0, gaps=0, overcast=0, borrowed=0, radar=0, radiometry=False
)
"""Scenes as they are, with some dates left out."""
COMPLETE = replace(PLAIN, dropped=False)
"""Scenes as users have them, on which deviations are calibrated."""
OVERCAST = replace(COMPLETE, overcast=1)
"""The same without a clear target pixel, whose errors are another matter."""


class SeriesTask(Task):
    """Learn to trust closed-form answers; validation is on places that are never trained on.

    A step sees scenes of a pool, of which the oldest ``fresh`` are replaced after every step: the
    closed forms of a scene take about as long as a step, and no scene is learnt by heart.

    Args:
        size: of the network, see :data:`unveil.models.chronos.network.SIZES`.
        series: places to learn from.
        images: clear core-band images ``(6, H, W)`` whose parcels follow other places.
        held_out: places to validate on.
        options: how samples are varied.
        pool: scenes to draw from.
        fresh: scenes of the pool replaced after every step.

    Raises:
        InputError: if the series differ in the number of bands.
    """

    criterion = "relative_mae"

    def __init__(
        self,
        size: str,
        *,
        series: Sequence[Series],
        images: Sequence[np.ndarray],
        held_out: Sequence[Series],
        options: SampleOptions,
        pool: int,
        fresh: int,
    ) -> None:
        self.size, self.series, self.images = size, series, images
        self.held_out, self.options, self.pool, self.fresh = held_out, options, pool, fresh
        widths = {len(place.bands) for place in (*series, *held_out)}
        if len(widths) > 1:
            raise InputError(
                f"the series have {' or '.join(map(str, sorted(widths)))} bands",
                file="training table",
                field="series",
                remedy="train on series of equally many bands",
            )
        [self.bands] = widths
        self._cached = lru_cache(maxsize=pool)(self._draw_one)

    def build(self) -> keras.Model:
        """Return the network at its start."""
        return build_network(self.size)

    def draw(
        self, plan: TrainingPlan, step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Return the arrays of some scenes of the pool of this step."""
        numbers = step * self.fresh + rng.integers(self.pool, size=plan.batch)
        return stack_samples([self._cached(plan.seed, plan.crop, int(n)) for n in numbers])

    def _draw_one(self, seed: int, size: int, number: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng([seed, 1, number])
        sample = draw_sample(self.series, self.images, size=size, options=self.options, rng=rng)
        return prepare_sample(sample, size)

    def loss(self, network: keras.Model, arrays: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Return the loss on occluded pixels, and a little of the clear ones."""
        return sample_loss(network, arrays, bands=self.bands)

    def scorer(self, plan: TrainingPlan) -> Callable[[keras.Model], Scores]:
        """Return what scores a network on the held-out places."""
        samples = self.held_out_samples(plan, PLAIN)
        return lambda network: score_samples(network, samples)

    def held_out_samples(
        self, plan: TrainingPlan, options: SampleOptions
    ) -> list[tuple[np.ndarray, ...]]:
        """Draw scenes of the held-out places, the same for every plan of a seed."""
        size = plan.validation_crop

        def draw(number: int) -> tuple[np.ndarray, ...]:
            rng = np.random.default_rng([plan.seed, 2, number])
            sample = draw_sample(self.held_out, [], size=size, options=options, rng=rng)
            return prepare_sample(sample, size)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(draw, range(VALIDATION_SAMPLES)))

    def identity(self) -> str:
        """Return a checksum of the data and of how it is varied."""
        digest = hashlib.sha256(repr((self.size, self.options, self.pool, self.fresh)).encode())
        for place in (*self.series, *self.held_out):
            digest.update(repr((place.id, place.bands, place.weight)).encode())
            digest.update(np.ascontiguousarray(place.reflectance).tobytes())
        for image in self.images:
            digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()
