"""The single-image task: DSen2-CR's network, from one cloudy image to a clear one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from unveil.training.datasets import (
    UNITS_PER_REFLECTANCE,
    Batch,
    TrainingImage,
    draw_batch,
    validation_batches,
)
from unveil.training.loop import Scores, Task, TrainingPlan
from unveil.training.losses import cloud_adaptive_loss

Predictor = Callable[[Batch], np.ndarray]

_PREDICT_SAMPLES = 8


class SingleImageTask(Task):
    """Clear images under simulated clouds; validation is on their held-out blocks.

    Args:
        build: makes the network, ``(N, H, W, B)`` to ``(N, H, W, B)`` in network units.
        images: what to learn from.
    """

    def __init__(self, build: Callable[[], keras.Model], images: Sequence[TrainingImage]) -> None:
        self._build, self.images = build, images

    def build(self) -> keras.Model:
        """Return the network at its start."""
        return self._build()

    def draw(
        self, plan: TrainingPlan, step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Return cloudy and clear crops and where they are occluded."""
        batch = draw_batch(self.images, count=plan.batch, size=plan.crop, rng=rng)
        return batch.cloudy, batch.clear, batch.occluded

    def loss(self, network: keras.Model, arrays: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Return the loss of DSen2-CR."""
        cloudy, clear, occluded = arrays
        prediction = tf.cast(network(cloudy, training=True), tf.float32)
        return cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)

    def scorer(self, plan: TrainingPlan) -> Callable[[keras.Model], Scores]:
        """Return what scores a network by cover and over all covers."""
        batches = validation_batches(self.images, size=plan.validation_crop, seed=plan.seed)

        def score(network: keras.Model) -> Scores:
            scores = evaluate(network_predictor(network), batches)
            row = {f"mae_occluded_{cover:g}": s["mae_occluded"] for cover, s in scores.items()}
            for region in ("mae_occluded", "mae_clear"):
                row[region] = float(np.mean([s[region] for s in scores.values()]))
            return row

        return score

    def identity(self) -> str:
        """Return a checksum of the images and their held-out blocks."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(repr((image.id, image.bands, image.holdout, image.buffer)).encode())
            digest.update(np.ascontiguousarray(image.reflectance).tobytes())
        return digest.hexdigest()


def evaluate(predict: Predictor, batches: Mapping[float, Batch]) -> dict[float, Scores]:
    """Return the mean absolute error in reflectance on occluded and on clear pixels, by cover."""
    scores = {}
    for cover, batch in batches.items():
        error = np.abs(predict(batch) - batch.clear).mean(axis=-1, dtype=np.float64)
        hidden = batch.occluded[..., 0] > 0
        scores[cover] = {
            "mae_occluded": _mean_reflectance(error[hidden]),
            "mae_clear": _mean_reflectance(error[~hidden]),
        }
    return scores


def network_predictor(network: keras.Model) -> Predictor:
    """Return the predictor of a network, a few samples at a time."""

    def predict(batch: Batch) -> np.ndarray:
        parts = [
            np.asarray(network(batch.cloudy[i : i + _PREDICT_SAMPLES], training=False), np.float32)
            for i in range(0, len(batch.cloudy), _PREDICT_SAMPLES)
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


def _mean_reflectance(values: np.ndarray) -> float:
    return float(values.mean()) / UNITS_PER_REFLECTANCE if values.size else 0.0
