"""How ``chronos`` adapts to a scene without a truth, and checks its deviations there.

Clear pixels of the scene's own frames are hidden under the scene's own cloud shapes and restored;
other dates than the scene's frames are never seen.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from unveil.bands import CLOUD
from unveil.models.chronos.learning import (
    MOST_FRAMES,
    Sample,
    prepare_sample,
    sample_loss,
    score_samples,
    stack_samples,
)
from unveil.scene import Inputs, is_clear

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LOG = logging.getLogger(__name__)
WINDOW_PX = 64
"""Edge of the windows that adaptation learns on."""
LESSONS, EXAMS, TRIALS = 40, 10, 16
FEWEST_EXAMS, FEWEST_HIDDEN = 3, 100
PRIOR_TRIALS = 8
MOST_TILES = 8
EXAM_CELL_PX = 16
RATE = 5e-4
ROUNDS = 20
BATCH = 4
PATIENCE = 3


def adapt(network: keras.Model, tiles: Sequence[Inputs], *, minutes: float, seed: int = 0) -> int:
    """Fine-tune a network on a scene's own clear pixels, in place.

    The pixels of every fifth cell of the scene are never learnt from and are the exam after
    every round; the weights of the best exam stay, so a scene with nothing to teach leaves
    the network as it was.

    Args:
        network: of :func:`unveil.models.chronos.network.build_network`, with its weights.
        tiles: windows of the scene.
        minutes: most time to take.
        seed: of windows and cloud shapes.

    Returns:
        Rounds that improved the exam.
    """
    begin = time.monotonic()
    rng = np.random.default_rng(seed)
    windows = _own_windows(tiles, rng, LESSONS)
    lessons = _own_samples(windows, rng, LESSONS, part="lesson")
    exams = _own_samples(windows, rng, EXAMS, part="exam")
    if len(lessons) < BATCH or len(exams) < FEWEST_EXAMS:
        LOG.info("nothing to adapt to: too few clear pixels")
        return 0
    learn = _learner(network, bands=len(lessons[0][0]))
    best = first = score_samples(network, exams)["relative_mae"]
    weights, better, idle = network.get_weights(), 0, 0
    for number in range(1, ROUNDS + 1):
        order = rng.permutation(len(lessons))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            learn(stack_samples([lessons[i] for i in order[start : start + BATCH]]))
        score = score_samples(network, exams)["relative_mae"]
        spent = (time.monotonic() - begin) / 60
        LOG.info(
            "adaptation, round %d of %d: error %.3f of the closed form's (from %.3f), %.1f min",
            *(number, ROUNDS, score, first, spent),
        )
        if score < best:
            best, weights, better, idle = score, network.get_weights(), better + 1, 0
        else:
            idle += 1
        if idle >= PATIENCE or spent * (number + 1) / number > minutes:
            break
    network.set_weights(weights)
    return better


def _learner(network: keras.Model, *, bands: int) -> Callable[[tuple[np.ndarray, ...]], None]:
    import keras
    import tensorflow as tf

    optimiser = keras.optimizers.Adam(RATE, global_clipnorm=1.0)
    optimiser.build(network.trainable_variables)

    @tf.function(jit_compile=False, reduce_retracing=True)
    def learn(arrays: tuple[tf.Tensor, ...]) -> None:
        with tf.GradientTape() as tape:
            loss = sample_loss(network, arrays, bands=bands)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimiser.apply(gradients, network.trainable_variables)

    return lambda arrays: learn(tuple(tf.convert_to_tensor(array) for array in arrays))


def calibrate(
    network: keras.Model,
    tiles: Sequence[Inputs],
    *,
    factor: float,
    adapted: bool = False,
    seed: int = 0,
) -> float:
    """Return the factor of the standard deviation for a scene, found on its own pixels.

    Clear pixels of the scene's frames are hidden and restored as the target's will be. What
    that says is averaged with what the places of the training said, as if those had been
    :data:`PRIOR_TRIALS` trials.

    Args:
        network: with its weights.
        tiles: windows of the scene.
        factor: of the places of the training.
        adapted: the network has learnt from the scene; only pixels of the exam count.
        seed: of windows and cloud shapes.
    """
    rng = np.random.default_rng([seed, 1])
    windows = _own_windows(tiles, rng, TRIALS)
    trials = _own_samples(windows, rng, TRIALS, part="exam" if adapted else "all")
    if not trials:
        return factor
    found = score_samples(network, trials)["std_factor"]
    share = len(trials) / (len(trials) + PRIOR_TRIALS)
    joint = float(np.exp(share * np.log(found) + (1 - share) * np.log(factor)))
    LOG.info(
        "deviations times %.2f: %.2f in %d trials, %.2f in training",
        *(joint, found, len(trials), factor),
    )
    return joint


def _own_windows(tiles: Sequence[Inputs], rng: np.random.Generator, count: int) -> list[Inputs]:
    """Draw windows of a scene, from a few of its tiles."""
    chosen = np.sort(rng.permutation(len(tiles))[:MOST_TILES])
    each = -(-count // len(chosen))
    windows = []
    for number in chosen:
        found = _windows(tiles[number])
        windows += [found[i]() for i in rng.permutation(len(found))[:each]]
    return windows


def _own_samples(
    windows: Sequence[Inputs],
    rng: np.random.Generator,
    count: int,
    *,
    part: Literal["lesson", "exam", "all"],
) -> list[tuple[np.ndarray, ...]]:
    """Hide clear pixels of windows, of the target and of context frames in turn."""
    samples = []
    for number in range(count):
        window = windows[number % len(windows)]
        sample = _hide(window, rng, own=number % 2 == 0, part=part)
        if sample is not None:
            samples.append(prepare_sample(sample, WINDOW_PX))
    return samples


def _windows(tile: Inputs) -> list[Callable[[], Inputs]]:
    """Return what cuts each window of a tile, the last ones against its edge."""
    rows, cols = (
        [*range(0, max(n - WINDOW_PX, 0), WINDOW_PX), max(n - WINDOW_PX, 0)] for n in tile.shape
    )
    return [partial(_cut, tile, row, col) for row in rows for col in cols]


def _cut(tile: Inputs, row: int, col: int) -> Inputs:
    """Copy a window, so that it does not keep the tile in memory."""
    rows, cols = slice(row, row + WINDOW_PX), slice(col, col + WINDOW_PX)
    return copy.deepcopy(tile.crop(rows, cols))


def _hide(
    window: Inputs, rng: np.random.Generator, *, own: bool, part: Literal["lesson", "exam", "all"]
) -> Sample | None:
    """Hide clear pixels of the target (``own``) or of a context frame in its place."""
    frames = rng.permutation(len(window.days))
    # The target's clear pixels lie beside its cloud, so for them the shape is turned.
    shape = _cloud_shape(window, rng) if own else ~window.target_clear
    if own:
        truth, classes, day = window.target, window.target_class, 0.0
    else:
        chosen = frames[0]
        truth, classes = window.context[chosen], window.context_class[chosen]
        day, frames = float(window.days[chosen]), frames[frames != chosen]
    frames = np.sort(frames[:MOST_FRAMES])
    known = is_clear(classes) & np.isfinite(truth).all(axis=0)
    asked = {
        "all": known,
        "exam": known & _exam_pixels(window),
        "lesson": known & ~_exam_pixels(window),
    }[part]
    if not len(frames) or np.count_nonzero(asked & shape) < FEWEST_HIDDEN:
        return None
    inputs = replace(
        window,
        target=np.where(known & shape, np.float32(0.5), truth),
        target_class=np.where(shape, CLOUD, classes).astype(np.uint8),
        context=window.context[frames],
        context_class=window.context_class[frames],
        days=window.days[frames] - np.float32(day),
        sar=window.sar if own else None,
    )
    return Sample(inputs, np.where(asked, truth, np.nan).astype(np.float32), asked & shape)


def _cloud_shape(window: Inputs, rng: np.random.Generator) -> np.ndarray:
    """Return a cloud shape of one of the window's frames, turned."""
    shapes = [~window.target_clear, *~window.context_clear]
    shape = np.rot90(shapes[rng.integers(len(shapes))], int(rng.integers(1, 4)))
    if shape.shape != window.shape or not 0.05 < shape.mean() < 0.98:
        shape = np.rot90(~window.target_clear, 2)
    return shape


def _exam_pixels(window: Inputs) -> np.ndarray:
    """Return the pixels of every fifth cell of the scene, ``(H, W)`` bool."""
    rows, cols = (
        (start + np.arange(size)) // EXAM_CELL_PX
        for start, size in zip(window.origin, window.shape, strict=True)
    )
    return (rows[:, None] + 2 * cols) % 5 == 0
