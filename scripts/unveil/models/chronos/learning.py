"""How ``chronos`` learns: a scene with its truth as arrays, the loss, the score, adaptation.

Training and adaptation to a scene share it. Adaptation needs no truth: clear pixels of the
scene's own frames are hidden under the scene's own cloud shapes and restored; other dates
than the scene's frames are never seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unveil.bands import CLOUD
from unveil.models.chronos.experts import SPREADS, estimate, fit_scene
from unveil.models.chronos.network import NetworkInputs, compile_network, network_inputs
from unveil.scene import Inputs, is_clear

if TYPE_CHECKING:
    import keras

Scores = dict[str, float]

LOG = logging.getLogger(__name__)
MOST_FRAMES = 12
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
SPECTRAL_WEIGHT = 1.0
"""Of the spectral angle in radian, beside errors in units of the unforeseeable change."""


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

    They are those of :class:`NetworkInputs`, then ``first``, the first answer in reflectance,
    ``truth`` as a difference from it in units of the scale, and ``weight``: 1 where occluded,
    0.05 where clear, 0 where the truth is unknown; the three are ``(B, H, W)``.
    """
    inputs = sample.inputs
    fit = fit_scene([inputs], pixels=inputs.target_class.size)
    evidence = estimate(inputs, fit)
    given = network_inputs(inputs, fit, evidence)
    truth = (sample.truth - evidence.experts[0]) / given.scale[:, None, None]
    known = np.isfinite(sample.truth)
    weight = np.where(known, np.where(sample.occluded, 1.0, 0.05), 0.0)
    truth = np.clip(np.where(known, truth, 0), -60, 60)
    maps = (evidence.experts[0], truth, weight)
    return tuple(array.astype(np.float16) for array in _padded(given, maps, size))


def _padded(given: NetworkInputs, maps: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, ...]:
    rows, cols = (size - n for n in maps[0].shape[1:])
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
        *(np.pad(one, space) for one in maps),
    )


def stack_samples(samples: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Join scenes along the first axis, the images of the network."""
    return tuple(np.concatenate(arrays) for arrays in zip(*samples, strict=True))


def score_samples(network: keras.Model, samples: Sequence[tuple[np.ndarray, ...]]) -> Scores:
    """Return how near a network comes on occluded pixels.

    ``mae_occluded`` of the network and ``mae_first`` of the closed-form answer with its spread
    residuals are means over scenes, reflectance; ``relative_mae`` is the geometric mean of
    their ratio, to which easy and hard scenes count alike. ``std_factor`` is what the scale
    must be multiplied with to be a standard deviation, and ``within_68`` and ``within_95``
    are the shares of truths, over all scenes, in the intervals that it then gives.
    """
    rows, deviations = [], []
    predict = compile_network(network)
    for sample in samples:
        *given, scale, _, truth, weight = (array.astype(np.float32) for array in sample)
        output = predict(*given)
        occluded = weight == 1
        if not occluded.any():
            continue
        error = np.abs(output[..., 0] - truth)
        spread = given[1][..., -len(SPREADS) :].sum(axis=-1)
        unit = np.broadcast_to(scale[:, None, None], truth.shape)
        rows.append(
            [
                (gap * unit)[occluded].mean(dtype=np.float64)
                for gap in (error, np.abs(spread - truth))
            ]
        )
        deviations.append((error * np.exp(-output[..., 1]))[occluded])
    ours, first = np.maximum(np.array(rows), 1e-6).T
    deviation = np.concatenate(deviations)
    factor = std_factor(deviation)
    return {
        "mae_occluded": float(ours.mean()),
        "mae_first": float(first.mean()),
        "relative_mae": float(np.exp(np.mean(np.log(ours / first)))),
        "std_factor": factor,
        "within_68": float((deviation <= factor).mean()),
        "within_95": float((deviation <= 1.96 * factor).mean()),
    }


def std_factor(deviation: np.ndarray) -> float:
    """Return the factor that makes scales of an error standard deviations of it.

    Errors have longer tails than a normal distribution, so no factor gives the central 68 %
    and 95 % intervals both exactly what they promise; this one leaves the worse of the two
    least off, 5 % of the one counting like 3 % of the other.

    Args:
        deviation: absolute errors over their scales, any shape, positive.
    """
    ordered = np.sort(deviation, axis=None)
    factors = np.geomspace(0.3, 5, 300)
    within = [np.searchsorted(ordered, q * factors) / ordered.size for q in (1.0, 1.96)]
    off = np.maximum(np.abs(within[0] - 0.6827) / 0.05, np.abs(within[1] - 0.95) / 0.03)
    return float(factors[off.argmin()])


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
    from keras import ops

    error = ops.abs(output[..., 0] - truth)
    likelihood = output[..., 1] + error * ops.exp(-output[..., 1])
    share = (scale / ops.mean(scale))[:, None, None]
    return ops.sum(weight * (likelihood + share * error)) / ops.maximum(ops.sum(weight), 1.0)


def spectral_loss(spectrum: Any, *, truth: Any, weight: Any) -> Any:
    """Return the mean spectral angle between two sets of spectra, radian.

    The angle is that of Kruse et al. (1993, doi:10.1016/0034-4257(93)90013-N), written with
    the chord between unit vectors, whose gradient stays finite where they agree.

    Args:
        spectrum: ``(S, B, H, W)`` reflectance.
        truth: likewise.
        weight: ``(S, H, W)``.
    """
    from keras import ops

    unit = [x / ops.sqrt(ops.sum(x * x, axis=1, keepdims=True) + 1e-6) for x in (spectrum, truth)]
    chord = ops.sqrt(ops.sum((unit[0] - unit[1]) ** 2, axis=1) + 1e-8)
    angle = 2 * ops.arcsin(ops.minimum(chord / 2, 0.999))
    return ops.sum(weight * angle) / ops.maximum(ops.sum(weight), 1.0)


def sample_loss(network: keras.Model, arrays: Sequence[Any], *, bands: int) -> Any:
    """Return the loss of a network on arrays of :func:`stack_samples`, each scene of ``bands``."""
    from keras import ops

    *given, scale, first, truth, weight = (ops.cast(array, "float32") for array in arrays)
    output = ops.cast(network(given, training=True), "float32")
    loss = series_loss(output, truth=truth, weight=weight, scale=scale)
    unit, shape = scale[:, None, None], (-1, bands, *ops.shape(truth)[1:])
    spectra = [ops.reshape(first + x * unit, shape) for x in (output[..., 0], truth)]
    seen = ops.min(ops.reshape(weight, shape), axis=1)
    return loss + SPECTRAL_WEIGHT * spectral_loss(spectra[0], truth=spectra[1], weight=seen)


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
    return replace(
        tile,
        target=tile.target[:, rows, cols].copy(),
        target_class=tile.target_class[rows, cols].copy(),
        target_probability=tile.target_probability[rows, cols].copy(),
        context=tile.context[:, :, rows, cols].copy(),
        context_class=tile.context_class[:, rows, cols].copy(),
        sar=None if tile.sar is None else tile.sar[:, rows, cols].copy(),
        origin=(tile.origin[0] + row, tile.origin[1] + col),
    )


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
