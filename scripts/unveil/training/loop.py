"""The training loop: seeded, resumable, with validation on held-out blocks.

The samples of a step depend on the seed and the number of the step alone, and a checkpoint
holds network, optimiser, best weights and log. So a run that was killed and resumed ends
like one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from unveil import raster
from unveil.training.datasets import (
    UNITS_PER_REFLECTANCE,
    Batch,
    TrainingImage,
    draw_batch,
    validation_batches,
)
from unveil.training.losses import cloud_adaptive_loss

logger = logging.getLogger(__name__)

Predictor = Callable[[Batch], np.ndarray]
Scores = dict[str, float]

_AHEAD = 4
_PREDICT_SAMPLES = 8


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained.

    Attributes:
        steps: optimiser steps.
        batch: samples a step.
        crop: edge of a training sample in pixels.
        validation_crop: edge of a validation sample in pixels.
        optimiser: ``adam``, or ``nadam`` as published.
        learning_rate: its highest value, reached after ``warmup``, then a cosine to zero.
        warmup: steps.
        precision: ``float32`` or ``mixed_bfloat16``.
        checkpoint_every: steps between validations, each followed by a checkpoint.
        patience: validations without progress after which training stops.
        seed: seed of initial weights and samples.
    """

    steps: int
    batch: int
    crop: int
    validation_crop: int
    optimiser: Literal["adam", "nadam"]
    learning_rate: float
    warmup: int
    precision: Literal["float32", "mixed_bfloat16"]
    checkpoint_every: int
    patience: int
    seed: int


@dataclass
class Progress:
    """What a run has reached.

    Attributes:
        step: steps done.
        seconds: time spent on them, over all resumptions.
        best_step: step of the best validation.
        best_mae: its mean absolute error on occluded pixels, reflectance.
        best_weights: the weights there.
        log: one row a validation.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_mae: float = float("inf")
    best_weights: list[np.ndarray] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)


def train(
    build: Callable[[], keras.Model],
    images: Sequence[TrainingImage],
    plan: TrainingPlan,
    *,
    folder: Path,
    stop_after: int | None = None,
) -> tuple[keras.Model, Progress]:
    """Train a network, from the checkpoint in ``folder`` when it is of the same run.

    Args:
        build: makes the network, ``(N, H, W, B)`` to ``(N, H, W, B)`` in network units.
        images: clear images; validation is on their held-out blocks.
        plan: how to train.
        folder: gets ``checkpoint.npz``, ``log.csv`` and ``tensorboard/``.
        stop_after: end this slice of the run at this step; None runs to the end.

    Returns:
        The network with its best weights, and what was reached.
    """
    keras.utils.set_random_seed(plan.seed)
    with _precision(plan.precision):
        network = build()
    optimiser = _make_optimiser(plan, network)
    checkpoint = Checkpoint(folder / "checkpoint.npz", _fingerprint(network, images, plan))
    progress = checkpoint.restore(network, optimiser)
    validation = validation_batches(images, size=plan.validation_crop, seed=plan.seed)
    learn = _make_step(network, optimiser)
    last = min(plan.steps, stop_after or plan.steps)
    losses: list[float] = []
    clock = _Clock(progress)
    for batch in _batches(images, plan, range(progress.step, last)):
        losses.append(float(learn(batch.cloudy, batch.clear, batch.occluded)))
        progress.step += 1
        if progress.step % plan.checkpoint_every and progress.step != plan.steps:
            continue
        scores = evaluate(network_predictor(network), validation)
        _record(progress, network, scores, float(np.mean(losses)))
        progress.seconds = clock.seconds()
        checkpoint.save(network, optimiser, progress)
        _report(progress, plan, folder, clock)
        losses.clear()
        if progress.step - progress.best_step >= plan.patience * plan.checkpoint_every:
            logger.info("no progress since step %d: stopped early", progress.best_step)
            break
    if progress.best_weights:
        network.set_weights(progress.best_weights)
    return network, progress


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


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run on disk, replaced as a whole.

    Attributes:
        path: a ``.npz`` file.
        fingerprint: identity of network, data and plan; another run's file is not used.
    """

    path: Path
    fingerprint: str

    def save(self, network: keras.Model, optimiser: keras.Optimizer, progress: Progress) -> None:
        """Write the state."""
        facts = asdict(progress)
        arrays = _numbered("best", facts.pop("best_weights"))
        arrays |= _numbered("network", network.get_weights())
        arrays |= _numbered("optimiser", [np.asarray(v) for v in optimiser.variables])
        header = json.dumps(facts | {"fingerprint": self.fingerprint})
        with raster.replacing(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, header=np.array(header), **arrays)

    def restore(self, network: keras.Model, optimiser: keras.Optimizer) -> Progress:
        """Read the state back, or start anew when there is none of this run."""
        if not self.path.exists():
            return Progress()
        with np.load(self.path) as stored:
            header = json.loads(str(stored["header"]))
            if header.pop("fingerprint") != self.fingerprint:
                logger.warning("%s is of another run: training starts anew", self.path)
                return Progress()
            network.set_weights(_group(stored, "network"))
            for variable, value in zip(
                optimiser.variables, _group(stored, "optimiser"), strict=True
            ):
                variable.assign(value)
            progress = Progress(**header, best_weights=_group(stored, "best"))
        logger.info("resumed at step %d", progress.step)
        return progress


class _Clock:
    """Seconds and steps since this slice began."""

    def __init__(self, progress: Progress) -> None:
        self._start, self._before = time.monotonic(), progress.seconds
        self._first_step = progress.step

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def steps_per_second(self, step: int) -> float:
        return (step - self._first_step) / max(time.monotonic() - self._start, 1e-9)


def _make_optimiser(plan: TrainingPlan, network: keras.Model) -> keras.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if plan.warmup else plan.learning_rate,
        max(plan.steps - plan.warmup, 1),
        warmup_target=plan.learning_rate if plan.warmup else None,
        warmup_steps=plan.warmup,
    )
    kinds = {"adam": keras.optimizers.Adam, "nadam": keras.optimizers.Nadam}
    optimiser = kinds[plan.optimiser](schedule, global_clipnorm=1.0)
    optimiser.build(network.trainable_variables)
    return optimiser


def _make_step(
    network: keras.Model, optimiser: keras.Optimizer
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tf.Tensor]:
    """Return one optimiser step as a graph; XLA is off because it is slower on CPUs."""

    @tf.function(jit_compile=False, reduce_retracing=True)
    def learn(cloudy: tf.Tensor, clear: tf.Tensor, occluded: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            prediction = tf.cast(network(cloudy, training=True), tf.float32)
            loss = cloud_adaptive_loss(prediction, clear=clear, cloudy=cloudy, occluded=occluded)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimiser.apply(gradients, network.trainable_variables)
        return loss

    return learn


def _batches(images: Sequence[TrainingImage], plan: TrainingPlan, steps: range) -> Iterator[Batch]:
    """Yield the batch of each step, made ahead in another thread."""

    def make(step: int) -> Batch:
        rng = np.random.default_rng([plan.seed, step])
        return draw_batch(images, count=plan.batch, size=plan.crop, rng=rng)

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(make, step) for step in steps[:_AHEAD]]
        for step in steps:
            batch = waiting.pop(0).result()
            if step + _AHEAD in steps:
                waiting.append(pool.submit(make, step + _AHEAD))
            yield batch
            if step + 1 not in steps:
                return


def _record(
    progress: Progress, network: keras.Model, scores: dict[float, Scores], loss: float
) -> None:
    """Add a row to the log and keep the weights when they are the best so far."""
    row = {"step": progress.step, "loss": loss}
    row |= {f"mae_occluded_{cover:g}": s["mae_occluded"] for cover, s in scores.items()}
    row["mae_occluded"] = float(np.mean([s["mae_occluded"] for s in scores.values()]))
    row["mae_clear"] = float(np.mean([s["mae_clear"] for s in scores.values()]))
    progress.log.append(row)
    if row["mae_occluded"] < progress.best_mae:
        progress.best_mae, progress.best_step = row["mae_occluded"], progress.step
        progress.best_weights = network.get_weights()


def _report(progress: Progress, plan: TrainingPlan, folder: Path, clock: _Clock) -> None:
    """Write log.csv and TensorBoard events, and log a line with the time left."""
    row = progress.log[-1]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(progress.log)
    with raster.replacing(folder / "log.csv") as temporary:
        temporary.write_text(text.getvalue())
    _write_events(folder / "tensorboard" / "events.out.tfevents.training", progress.log)
    speed = clock.steps_per_second(progress.step)
    logger.info(
        "step %d of %d, loss %.4f, occluded MAE %.4f (best %.4f), %.0f samples/s, %.0f min left",
        progress.step,
        plan.steps,
        row["loss"],
        row["mae_occluded"],
        progress.best_mae,
        speed * plan.batch,
        (plan.steps - progress.step) / speed / 60,
    )


def _write_events(path: Path, log: Sequence[Mapping[str, float]]) -> None:
    """Write the log as TensorBoard events, without the need for TensorBoard itself."""
    v1 = tf.compat.v1
    with raster.replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        writer.write(v1.Event(file_version="brain.Event:2").SerializeToString())
        for row in log:
            values = [v1.Summary.Value(tag=k, simple_value=v) for k, v in row.items()]
            summary = v1.Summary(value=values)
            writer.write(v1.Event(step=int(row["step"]), summary=summary).SerializeToString())


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Build layers under a precision policy and put the former one back."""
    former = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(former)


def _fingerprint(network: keras.Model, images: Sequence[TrainingImage], plan: TrainingPlan) -> str:
    digest = hashlib.sha256(json.dumps(asdict(plan), sort_keys=True).encode())
    digest.update(repr([tuple(w.shape) for w in network.weights]).encode())
    for image in images:
        digest.update(repr((image.id, image.bands, image.holdout, image.buffer)).encode())
        digest.update(np.ascontiguousarray(image.reflectance).tobytes())
    return digest.hexdigest()


def _numbered(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}_{number:03d}": array for number, array in enumerate(arrays)}


def _group(stored: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [stored[key] for key in sorted(stored) if key.startswith(f"{name}_")]


def _mean_reflectance(values: np.ndarray) -> float:
    return float(values.mean()) / UNITS_PER_REFLECTANCE if values.size else 0.0
