"""The network of ``chronos``: which closed-form answer to trust where, and what they miss.

Every band is an image of its own and all bands share the weights, so any set of bands will
do. All quantities are differences from the first closed-form answer in units of what is
unforeseeable in that band of that scene: how far ingredients disagree and how reliable each
one is carry over to places never seen, absolute reflectances do not.

Frames are weighed by attention over time that never looks at cloud; a small U-Net reads the
result beside the other answers and gives a share for each answer, gates for the spread
residuals, a correction (zero at the start) and a scale of error. Attention over the frames
of a pixel follows Sainte Fare Garnot & Landrieu (2021, arXiv:2107.07933).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from unveil.models.chronos.experts import EXPERTS, HAZE, SPREADS, Evidence, SceneFit
from unveil.scene import Inputs

if TYPE_CHECKING:
    import keras

SIZES: dict[str, tuple[int, int, int]] = {
    "small": (16, 24, 32),
    "base": (32, 48, 64),
    "large": (64, 96, 128),
}
"""Channels of the U-Net at full, half and quarter resolution."""
FRAME_WIDTH, VALUE_WIDTH = 12, 8
STEP = 4
"""Pixels along a cell of the coarsest level."""
POOL = 7
UNET_REACH_PX = 28
"""Convolutions see 2 + 2 (3 + 1) px at full size, 4 x 2 at half and 2 x 4 at a quarter,
the pooled frames 3 more."""
PIXEL_CHANNELS = 2 * (len(EXPERTS) - 1) + 3 * len(SPREADS) + 12
FRAME_CHANNELS = 6
_MOST = 30.0


@dataclass(frozen=True)
class NetworkInputs:
    """Arrays for the network; N images (bands), T frames.

    Attributes:
        pixels: ``(N, H, W, P)`` float32, what is known of each pixel.
        deltas: ``(N, H, W, K - 1 + S)`` float32, the other answers and the spread residuals,
            as differences from the first answer.
        views: ``(N, T, H, W)`` float32, the frames likewise.
        clear: ``(N, T, H, W)`` float32, 1 where a frame is clear.
        frames: ``(N, T, Q)`` float32, what is known of each frame.
        scale: ``(N,)`` float32 reflectance, the unit of the differences.
        error: ``(N,)`` float32, expected error of the first answer in that unit.
    """

    pixels: np.ndarray
    deltas: np.ndarray
    views: np.ndarray
    clear: np.ndarray
    frames: np.ndarray
    scale: np.ndarray
    error: np.ndarray


def network_inputs(inputs: Inputs, fit: SceneFit, evidence: Evidence) -> NetworkInputs:
    """Put the closed-form answers of a window in the network's form, one image per band."""
    scale = fit.facts.scale.astype(np.float32)
    unit = scale[:, None, None]
    first = evidence.experts[0]
    clear = inputs.target_clear
    others = _bounded((evidence.experts[1:] - first) / unit)
    spread = _bounded(evidence.residuals / unit)
    views = _bounded((evidence.views - first) / unit)
    known = np.where(clear, np.nan_to_num(inputs.target) - first, 0) / unit
    reliability = _reliability(fit, clear.shape)
    pixels = [
        *np.arcsinh(others),
        *np.arcsinh(spread),
        np.arcsinh(_bounded(known)),
        np.log1p(_bounded(evidence.roughness / unit)),
        np.log1p(_bounded(evidence.unrest / unit)),
        *(np.broadcast_to(s, first.shape) for s in evidence.supports),
        np.broadcast_to(clear, first.shape),
        np.broadcast_to(np.tanh(evidence.looks), first.shape),
        # What the other bands say on average.
        *(np.broadcast_to(o.mean(axis=0), first.shape) for o in np.arcsinh(others)),
        *(np.broadcast_to(s.mean(axis=0), first.shape) for s in np.arcsinh(spread)),
        *reliability,
    ]
    bands, frames = len(first), len(views)
    return NetworkInputs(
        pixels=np.stack(pixels, axis=-1).astype(np.float32),
        deltas=np.moveaxis(np.concatenate([others, spread]), 0, -1),
        views=np.moveaxis(views, 0, 1),
        clear=np.broadcast_to(
            inputs.context_clear[None].astype(np.float32), (bands, frames, *clear.shape)
        ),
        frames=_frame_facts(inputs, fit),
        scale=scale,
        error=_first_error(fit),
    )


def _bounded(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -_MOST, _MOST).astype(np.float32)


def _first_error(fit: SceneFit) -> np.ndarray:
    """Return the expected error of the first answer in units of the scale, ``(B,)``."""
    error = np.where(np.isfinite(fit.errors[0]), fit.errors[0], fit.facts.scale)
    return np.clip(error / fit.facts.scale, 0.02, 20).astype(np.float32)


def _reliability(fit: SceneFit, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return maps, constant over the scene, of how good each answer was at clear pixels."""
    relative = np.log(np.clip(fit.errors / fit.facts.scale, 0.02, 20))
    some = np.isfinite(relative)
    values = [
        *np.where(some, relative, 0)[:5],
        some[0].astype(float),
        np.full(len(fit.shift), np.log10(1 + fit.pixels) / 5),
    ]
    return [np.broadcast_to(v[:, None, None], (len(v), *shape)) for v in values]


def _frame_facts(inputs: Inputs, fit: SceneFit) -> np.ndarray:
    """Return ``(B, T, Q)``: prior weight, days, side, haze, error of the view, gain."""
    days = np.abs(inputs.days)
    haze = np.clip(fit.facts.haze / HAZE, -3, 5)
    scale = fit.facts.scale
    error = np.log(np.clip(fit.view_error / scale, 0.02, 20)) if fit.pixels else 0 * fit.view_error
    prior = -np.minimum((days - days.min()) / 20 + np.maximum(haze, 0) + 2 * error.T, 20).T
    columns = [
        prior,
        *(
            np.broadcast_to(v[:, None], prior.shape)
            for v in (np.log1p(days) / 4, np.sign(inputs.days), haze)
        ),
        error,
        np.log(fit.view_gain),
    ]
    return np.moveaxis(np.stack(columns), (0, 1, 2), (2, 1, 0)).astype(np.float32)


def build_network(size: str) -> keras.Model:
    """Build the network of a size of :data:`SIZES`, at its start.

    Returns:
        A model from the list ``[pixels, deltas, views, clear, frames, error]`` of
        :class:`NetworkInputs` (H and W multiples of 4) to ``(N, H, W, 2)`` float32: the
        difference from the first answer, and the log of the scale of its error.
    """
    import keras
    import tensorflow as tf

    full, half, quarter = SIZES[size]
    answers = len(EXPERTS) + 1  # the frames weighed by attention are one more
    gates = len(SPREADS)

    def convolve(width: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=name)

    class Chronos(keras.Model):
        def __init__(self) -> None:
            # Differences and weights stay float32; the layers cast what they read.
            super().__init__(name="chronos", autocast=False)
            dense = keras.layers.Dense
            self.look = dense(FRAME_WIDTH, use_bias=False, name="look")
            self.frame = dense(FRAME_WIDTH, name="frame")
            self.mix = dense(FRAME_WIDTH, activation="relu", name="mix")
            self.weigh = dense(1, kernel_initializer="zeros", name="weigh", dtype="float32")
            self.value = dense(VALUE_WIDTH, name="value")
            self.full_1, self.full_2 = convolve(full, "full_1"), convolve(full, "full_2")
            self.half_1, self.half_2 = convolve(half, "half_1"), convolve(half, "half_2")
            self.low_1, self.low_2 = convolve(quarter, "low_1"), convolve(quarter, "low_2")
            self.half_3, self.full_3 = convolve(half, "half_3"), convolve(full, "full_3")
            self.head = dense(
                answers + gates + 2,
                kernel_initializer="zeros",
                bias_initializer=_start,
                name="head",
                dtype="float32",
            )
            self.pool = keras.layers.AveragePooling2D(2)
            self.double = keras.layers.UpSampling2D(2)

        def call(self, given: list, training: bool = False) -> tf.Tensor:
            pixels, deltas, views, clear, frames, error = given
            attended, seen = self.attend(views, clear, frames)
            x = tf.concat([tf.cast(pixels, seen.dtype), seen], axis=-1)
            fine = self.full_2(self.full_1(x))
            mid = self.half_2(self.half_1(self.pool(fine)))
            low = self.low_2(self.low_1(self.pool(mid)))
            mid = self.half_3(tf.concat([mid, self.double(low)], axis=-1))
            fine = self.full_3(tf.concat([fine, self.double(mid)], axis=-1))
            head = self.head(fine)
            share = tf.nn.softmax(head[..., :answers])
            gate = tf.sigmoid(head[..., answers : answers + gates])
            split = len(EXPERTS) - 1
            change = (
                tf.reduce_sum(share[..., 1:-1] * deltas[..., :split], axis=-1)
                + share[..., -1] * attended
                + tf.reduce_sum(gate * deltas[..., split:], axis=-1)
                + head[..., -2]
            )
            log_scale = tf.math.log(error)[:, None, None] + head[..., -1]
            return tf.stack([change, tf.clip_by_value(log_scale, -7.0, 5.0)], axis=-1)

        def attend(
            self, views: tf.Tensor, clear: tf.Tensor, frames: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            """Weigh the frames of each pixel; no weight where a frame is not clear."""
            size = tf.shape(views)
            flat = tf.reshape(tf.stack([views * clear, clear], -1), (-1, size[2], size[3], 2))
            pooled = tf.nn.avg_pool2d(flat, POOL, 1, "SAME")
            around = pooled[..., 0] / tf.maximum(pooled[..., 1], 0.05)
            around = tf.reshape(around, size)
            here = tf.stack([tf.asinh(views) * clear, tf.asinh(around)], axis=-1)
            # Facts of a frame are the same at all pixels: their part is computed once.
            x = self.mix(tf.nn.relu(self.look(here) + self.frame(frames)[:, :, None, None]))
            logits = frames[:, :, None, None, 0] + tf.cast(self.weigh(x)[..., 0], tf.float32)
            logits = tf.where(clear > 0, logits, -1e9)
            top = tf.maximum(tf.reduce_max(logits, axis=1, keepdims=True), -1e8)
            weight = tf.exp(logits - top) * clear
            weight /= tf.maximum(tf.reduce_sum(weight, axis=1, keepdims=True), 1e-6)
            attended = tf.reduce_sum(weight * views, axis=1)
            unrest = tf.reduce_sum(weight * tf.abs(views - attended[:, None]), axis=1)
            values = tf.reduce_sum(tf.cast(weight[..., None], x.dtype) * self.value(x), axis=1)
            own = tf.stack([tf.asinh(attended), tf.math.log1p(unrest)], axis=-1)
            return attended, tf.concat([values, tf.cast(own, x.dtype)], axis=-1)

    def _start(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
        """Begin at the first answer with most of its spread residuals."""
        bias = np.zeros(shape, np.float32)
        bias[0] = 3.0
        bias[answers : answers + gates] = 2.0
        bias[-1] = -0.35  # mean absolute error of a normal distribution, relative to RMSE
        return tf.convert_to_tensor(bias)

    network = Chronos()
    zeros = [
        np.zeros((1, STEP, STEP, PIXEL_CHANNELS), np.float32),
        np.zeros((1, STEP, STEP, len(EXPERTS) - 1 + gates), np.float32),
        np.zeros((1, 2, STEP, STEP), np.float32),
        np.ones((1, 2, STEP, STEP), np.float32),
        np.zeros((1, 2, FRAME_CHANNELS), np.float32),
        np.ones((1,), np.float32),
    ]
    network(zeros)
    return network


def network_arrays(network: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights by name, ``full_1.kernel`` and so on, to be saved."""
    return {f"{v.path.split('/')[-2]}.{v.name}": np.asarray(v) for v in network.weights}


@lru_cache(maxsize=4)
def compile_network(network: keras.Model) -> Callable[..., np.ndarray]:
    """Return inference as one graph, whatever weights the network has when it is called.

    XLA is off because it is slower on CPUs.
    """
    import tensorflow as tf

    @tf.function(jit_compile=False, reduce_retracing=True)
    def run(*given: tf.Tensor) -> tf.Tensor:
        return network(list(given), training=False)

    return lambda *given: run(*(tf.convert_to_tensor(array) for array in given)).numpy()
