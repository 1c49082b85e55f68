"""The training loop: seeded, resumable, with validation on held-out blocks.

It knows no network: a :class:`Task` builds one, draws its samples, and scores it. The
samples of a step depend on the seed and the number of the step alone, and a checkpoint
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from unveil import raster
from unveil.code import code_of
from unveil.guarded import read_npz, reading_input

logger = logging.getLogger(__name__)

Scores = dict[str, float]

_AHEAD = 4


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained.

    Attributes:
        steps: optimiser steps.
        batch: samples per step.
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
        best_score: its score by the task's criterion.
        best_weights: the weights there.
        log: one row per validation.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_score: float = float("inf")
    best_weights: list[np.ndarray] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)


class Task(ABC):
    """What is learned: a network, its samples, its loss and its score.

    Attributes:
        criterion: the score by which the best weights are known, the less the better.
    """

    criterion: ClassVar[str] = "mae_occluded"

    @abstractmethod
    def build(self) -> keras.Model:
        """Return the network at its start."""

    @abstractmethod
    def draw(
        self, plan: TrainingPlan, step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Return the arrays of one step, which depend on nothing but the arguments."""

    @abstractmethod
    def loss(self, network: keras.Model, arrays: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Return the loss of one step, a float32 scalar."""

    @abstractmethod
    def scorer(self, plan: TrainingPlan) -> Callable[[keras.Model], Scores]:
        """Return what scores a network; ``criterion`` and ``mae_occluded`` are among the scores."""

    @abstractmethod
    def identity(self) -> str:
        """Return a checksum of the data, by which a checkpoint is known."""


def train(
    task: Task,
    plan: TrainingPlan,
    *,
    folder: Path,
    stop_after: int | None = None,
) -> tuple[keras.Model, Progress]:
    """Train a network, from the checkpoint in ``folder`` when it is of the same run.

    Args:
        task: what to learn.
        plan: how to train.
        folder: gets ``checkpoint.npz``, ``log.csv`` and ``tensorboard/``.
        stop_after: end this slice of the run at this step; None runs to the end.

    Returns:
        The network with its best weights, and what was reached.
    """
    keras.utils.set_random_seed(plan.seed)
    with _precision(plan.precision):
        network = task.build()
    optimiser = _make_optimiser(plan, network)
    checkpoint = Checkpoint(folder / "checkpoint.npz", _fingerprint(network, task, plan))
    progress = checkpoint.restore(network, optimiser)
    score = task.scorer(plan)
    learn = _make_step(network, optimiser, task)
    last = min(plan.steps, stop_after or plan.steps)
    losses: list[float] = []
    clock = _Clock(progress)
    for arrays in _batches(task, plan, range(progress.step, last)):
        losses.append(float(learn(arrays)))
        progress.step += 1
        if progress.step % plan.checkpoint_every and progress.step != plan.steps:
            continue
        _record(progress, network, score(network), float(np.mean(losses)), task.criterion)
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


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run on disk, replaced as a whole.

    Attributes:
        path: a ``.npz`` file.
        fingerprint: identity of network, data, plan and code; another run's file is not used.
    """

    path: Path
    fingerprint: str

    def save(self, network: keras.Model, optimiser: keras.Optimizer, progress: Progress) -> None:
        """Write the state."""
        facts = asdict(progress)
        arrays: dict[str, Any] = _numbered("best", facts.pop("best_weights"))
        arrays |= _numbered("network", network.get_weights())
        arrays |= _numbered("optimiser", [np.asarray(v) for v in optimiser.variables])
        header = json.dumps(facts | {"fingerprint": self.fingerprint})
        with raster.replacing(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, header=np.array(header), **arrays)

    def restore(self, network: keras.Model, optimiser: keras.Optimizer) -> Progress:
        """Read the state back, or start anew when there is none of this run."""
        if not self.path.exists():
            return Progress()
        remedy = "remove it; the training starts anew"
        stored = read_npz(self.path, kind="a checkpoint of a training", remedy=remedy)
        with reading_input(self.path, "a checkpoint of a training", remedy=remedy):
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
    network: keras.Model, optimiser: keras.Optimizer, task: Task
) -> Callable[[tuple[np.ndarray, ...]], tf.Tensor]:
    """Return one optimiser step as a graph; XLA is off because it is slower on CPUs."""

    @tf.function(jit_compile=False, reduce_retracing=True)
    def learn(arrays: tuple[tf.Tensor, ...]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = task.loss(network, arrays)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimiser.apply(gradients, network.trainable_variables)
        return loss

    return lambda arrays: learn(tuple(tf.convert_to_tensor(array) for array in arrays))


def _batches(task: Task, plan: TrainingPlan, steps: range) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the arrays of each step, made ahead in another thread."""

    def make(step: int) -> tuple[np.ndarray, ...]:
        return task.draw(plan, step, np.random.default_rng([plan.seed, step]))

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
    progress: Progress, network: keras.Model, scores: Scores, loss: float, criterion: str
) -> None:
    """Add a row to the log and keep the weights when they are the best so far."""
    progress.log.append({"step": progress.step, "loss": loss} | scores)
    if scores[criterion] < progress.best_score:
        progress.best_score, progress.best_step = scores[criterion], progress.step
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
        "step %d of %d, loss %.4f, MAE %.4f (best at step %d), %.1f samples/s, %.0f min left",
        progress.step,
        plan.steps,
        row["loss"],
        row["mae_occluded"],
        progress.best_step,
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


def _fingerprint(network: keras.Model, task: Task, plan: TrainingPlan) -> str:
    digest = hashlib.sha256(json.dumps(asdict(plan), sort_keys=True).encode())
    digest.update(repr([tuple(w.shape) for w in network.weights]).encode())
    digest.update(task.identity().encode())
    digest.update(code_of("train").encode())
    return digest.hexdigest()


def _numbered(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}_{number:03d}": array for number, array in enumerate(arrays)}


def _group(stored: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [stored[key] for key in sorted(stored) if key.startswith(f"{name}_")]
