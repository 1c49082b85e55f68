"""How ``chronos`` learns: a scene with its truth as arrays, the loss, the score, adaptation.

Training and adaptation to a scene share it. Adaptation needs no truth: clear pixels of the
scene's own frames are hidden under the scene's own cloud shapes and restored; other dates
than the scene's frames are never seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from unveil.bands import CLOUD
from unveil.models.chronos_network import NetworkInputs, network_inputs
from unveil.models.experts import SPREADS, estimate, fit_scene
from unveil.scene import Inputs

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
MOST_FRAMES = 12
WINDOW_PX = 64
"""Edge of the windows that adaptation learns on."""
LESSONS, EXAMS = 40, 10
RATE = 5e-4
ROUNDS = 20
BATCH = 4
PATIENCE = 3


@dataclass(frozen=True)
class Sample:
    """One scene with its truth.

    Attributes:
        inputs: what a model sees.
        truth: ``(B, H, W)`` float32 reflectance, NaN where unknown.
        occluded: ``(H, W)`` bool, what was hidden.
    """

    inputs: Inputs
    truth: np.ndarray
    occluded: np.ndarray


def prepare_sample(sample: Sample, size: int) -> tuple[np.ndarray, ...]:
    """Return the float16 arrays of a scene, padded to ``size`` pixels and 12 frames.

    They are those of :class:`NetworkInputs`, then ``truth`` as a difference from the first
    answer in units of the scale ``(B, H, W)``, and ``weight`` ``(B, H, W)``: 1 where occluded,
    0.05 where clear, 0 where the truth is unknown.
    """
    inputs = sample.inputs
    fit = fit_scene([inputs], pixels=inputs.target_class.size)
    evidence = estimate(inputs, fit)
    given = network_inputs(inputs, fit, evidence)
    truth = (sample.truth - evidence.experts[0]) / given.scale[:, None, None]
    known = np.isfinite(sample.truth)
    weight = np.where(known, np.where(sample.occluded, 1.0, 0.05), 0.0)
    truth = np.clip(np.where(known, truth, 0), -60, 60)
    return tuple(array.astype(np.float16) for array in _padded(given, truth, weight, size))


def _padded(
    given: NetworkInputs, truth: np.ndarray, weight: np.ndarray, size: int
) -> tuple[np.ndarray, ...]:
    rows, cols = (size - n for n in truth.shape[1:])
    frames = MOST_FRAMES - given.views.shape[1]
    space = ((0, 0), (0, rows), (0, cols))
    time = ((0, 0), (0, frames))
    return (
        np.pad(given.pixels, (*space, (0, 0))),
        np.pad(given.deltas, (*space, (0, 0))),
        np.pad(given.views, (*time, *space[1:])),
        np.pad(given.clear, (*time, *space[1:])),
        np.pad(given.frames, (*time, (0, 0))),
        given.error,
        given.scale,
        np.pad(truth, space),
        np.pad(weight, space),
    )


def stack_samples(samples: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Join scenes along the first axis, the images of the network."""
    return tuple(np.concatenate(arrays) for arrays in zip(*samples, strict=True))


def score_samples(network: keras.Model, samples: Sequence[tuple[np.ndarray, ...]]) -> Scores:
    """Return means over scenes of errors on occluded pixels, reflectance.

    ``mae_occluded`` of the network, ``mae_first`` of the closed-form answer with its spread
    residuals, the share of truths within 1 and 1.96 scales (``within_68``, ``within_95``), and
    the factor of the scale within which 68.27 % of them lie (``deviation_68``); and the
    geometric mean of the network's over the closed form's error (``relative_mae``), to which
    easy and hard scenes count alike.
    """
    import tensorflow as tf

    rows = []
    predict = tf.function(lambda *given: network(list(given), training=False))
    for sample in samples:
        *given, scale, truth, weight = (array.astype(np.float32) for array in sample)
        output = predict(*given).numpy()
        occluded = weight == 1
        if not occluded.any():
            continue
        error = np.abs(output[..., 0] - truth)
        sigma = np.exp(output[..., 1])
        spread = given[1][..., -len(SPREADS) :].sum(axis=-1)
        unit = np.broadcast_to(scale[:, None, None], truth.shape)
        rows.append(
            {
                "mae_occluded": (error * unit)[occluded].mean(dtype=np.float64),
                "mae_first": (np.abs(spread - truth) * unit)[occluded].mean(dtype=np.float64),
                "within_68": (error <= sigma)[occluded].mean(dtype=np.float64),
                "within_95": (error <= 1.96 * sigma)[occluded].mean(dtype=np.float64),
                "deviation_68": np.quantile((error / sigma)[occluded], 0.6827),
            }
        )
    scores = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    ratios = [max(row["mae_occluded"], 1e-6) / max(row["mae_first"], 1e-6) for row in rows]
    return scores | {"relative_mae": float(np.exp(np.mean(np.log(ratios))))}


def series_loss(output: Any, *, truth: Any, weight: Any, scale: Any) -> Any:
    r"""Return the loss of ``chronos``: negative log-likelihood plus absolute error.

    .. math:: \frac{\sum w (\ln b + |e| / b + |e| s / \bar s)}{\sum w}

    with the error e and its scale b in units of the unforeseeable change s of a band. The first
    terms are a Laplace distribution, whose tails suit clouds that a mask missed; the last
    one weighs bands as an error in reflectance does.

    Args:
        output: ``(N, H, W, 2)``, the prediction and the log of its scale.
        truth: ``(N, H, W)``.
        weight: ``(N, H, W)``.
        scale: ``(N,)`` reflectance.

    Returns:
        A scalar tensor.
    """
    error = ops.abs(output[..., 0] - truth)
    likelihood = output[..., 1] + error * ops.exp(-output[..., 1])
    share = (scale / ops.mean(scale))[:, None, None]
    return ops.sum(weight * (likelihood + share * error)) / ops.maximum(ops.sum(weight), 1.0)


def sample_loss(network: keras.Model, arrays: Sequence[Any]) -> Any:
    """Return :func:`series_loss` of a network on arrays of :func:`stack_samples`."""
    *given, scale, truth, weight = (ops.cast(array, "float32") for array in arrays)
    output = ops.cast(network(given, training=True), "float32")
    return series_loss(output, truth=truth, weight=weight, scale=scale)


def adapt(network: keras.Model, tiles: Iterable[Inputs], *, minutes: float, seed: int = 0) -> int:
    """Fine-tune a network on a scene's own clear pixels, in place.

    Hidden pixels of some windows are kept for an exam after every round; the weights of the
    best exam stay, so a scene with nothing to teach leaves the network as it was.

    Args:
        network: of :func:`unveil.models.chronos_network.build_network`, with its weights.
        tiles: windows of the scene.
        minutes: most time to take.
        seed: of windows and cloud shapes.

    Returns:
        Rounds that improved the exam.
    """
    import keras
    import tensorflow as tf

    begin = time.monotonic()
    samples = _own_samples(tiles, np.random.default_rng(seed))
    if len(samples) < 2 * BATCH:
        LOG.info("nothing to adapt to: too few clear pixels")
        return 0
    exams = samples[:: len(samples) // min(EXAMS, len(samples) // 4)][:EXAMS]
    held = {id(exam) for exam in exams}
    lessons = [sample for sample in samples if id(sample) not in held]
    optimiser = keras.optimizers.Adam(RATE, global_clipnorm=1.0)
    optimiser.build(network.trainable_variables)

    @tf.function(jit_compile=False, reduce_retracing=True)
    def learn(arrays: tuple[tf.Tensor, ...]) -> None:
        with tf.GradientTape() as tape:
            loss = sample_loss(network, arrays)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimiser.apply(gradients, network.trainable_variables)

    best = first = score_samples(network, exams)["relative_mae"]
    weights, better, idle = network.get_weights(), 0, 0
    rng = np.random.default_rng(seed)
    for number in range(1, ROUNDS + 1):
        order = rng.permutation(len(lessons))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = stack_samples([lessons[i] for i in order[start : start + BATCH]])
            learn(tuple(tf.convert_to_tensor(array) for array in batch))
        score = score_samples(network, exams)["relative_mae"]
        spent = (time.monotonic() - begin) / 60
        LOG.info(
            "adaptation, round %d: MAE %.5f (from %.5f), %.1f min", number, score, first, spent
        )
        if score < best:
            best, weights, better, idle = score, network.get_weights(), better + 1, 0
        else:
            idle += 1
        if idle >= PATIENCE or spent * (number + 1) / number > minutes:
            break
    network.set_weights(weights)
    return better


def _own_samples(tiles: Iterable[Inputs], rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    """Hide clear pixels of windows of the scene, of the target and of context frames."""
    windows = [window for tile in tiles for window in _windows(tile)]
    if len(windows) > LESSONS:
        windows = [windows[i] for i in rng.choice(len(windows), LESSONS, replace=False)]
    samples = []
    for number in range(LESSONS + EXAMS):
        window = windows[number % len(windows)]
        sample = _hide(window, rng, own=number % 2 == 0)
        if sample is not None:
            samples.append(prepare_sample(sample, WINDOW_PX))
    return samples


def _windows(tile: Inputs) -> list[Inputs]:
    height, width = tile.shape
    step = WINDOW_PX
    starts = [
        (row, col)
        for row in range(0, max(height - step, 0) + 1, step)
        for col in range(0, max(width - step, 0) + 1, step)
    ]
    return [_cut(tile, slice(r, r + step), slice(c, c + step)) for r, c in starts]


def _cut(tile: Inputs, rows: slice, cols: slice) -> Inputs:
    return replace(
        tile,
        target=tile.target[:, rows, cols],
        target_class=tile.target_class[rows, cols],
        target_probability=tile.target_probability[rows, cols],
        context=tile.context[:, :, rows, cols],
        context_class=tile.context_class[:, rows, cols],
        sar=None if tile.sar is None else tile.sar[:, rows, cols],
        origin=(tile.origin[0] + rows.start, tile.origin[1] + cols.start),
    )


def _hide(window: Inputs, rng: np.random.Generator, *, own: bool) -> Sample | None:
    """Hide clear pixels of the target (``own``) or of a context frame in its place."""
    frames = rng.permutation(len(window.days))[:MOST_FRAMES]
    shapes = [~window.target_clear, *~window.context_clear]
    shape = np.rot90(shapes[rng.integers(len(shapes))], int(rng.integers(4)))
    if shape.shape != window.shape or not 0.05 < shape.mean() < 0.98:
        shape = np.rot90(~window.target_clear, 2)
    if own:
        truth, classes, day, frames = window.target, window.target_class, 0.0, np.sort(frames)
    else:
        chosen, frames = frames[0], np.sort(frames[1:])
        truth, classes = window.context[chosen], window.context_class[chosen]
        day = float(window.days[chosen])
    known = (window.target_clear if own else window.context_clear[chosen]) & np.isfinite(truth).all(
        axis=0
    )
    hidden = known & shape
    if not len(frames) or hidden.sum() < 100:
        return None
    inputs = replace(
        window,
        target=np.where(hidden, np.float32(0.5), truth),
        target_class=np.where(shape, CLOUD, classes).astype(np.uint8),
        context=window.context[frames],
        context_class=window.context_class[frames],
        days=window.days[frames] - np.float32(day),
    )
    return Sample(inputs, np.where(known, truth, np.nan).astype(np.float32), hidden)
