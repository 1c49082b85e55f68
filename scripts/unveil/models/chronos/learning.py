"""What ``chronos`` learns from: a scene with its truth as arrays, the loss, the score.

Training and adaptation to a scene share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil.models.chronos.experts import SPREADS, estimate, fit_scene
from unveil.models.chronos.network import NetworkInputs, compile_network, network_inputs
from unveil.scene import Inputs

if TYPE_CHECKING:
    import keras

Scores = dict[str, float]
MOST_FRAMES = 12
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
