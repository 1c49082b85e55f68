"""Layers that act on arrays of a PyTorch state dict, in TensorFlow, for inference.

Shared by the networks whose published weights come from PyTorch. Images are channels-last
float32 ``(N, H, W, C)``, sequences ``(N, T, H, W, C)``. Import this module only when a
network is built: it loads TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

EPSILON = 1e-5
"""Added to variances by PyTorch's norms."""
MASKED_SCORE = -1e3
"""Attention score of a padded frame before the softmax (Garnot & Landrieu 2020, L-TAE)."""


class TorchLayers:
    """Named layers of one network.

    Args:
        state: name -> array in PyTorch's layouts (convolutions OIHW, dense OI).
    """

    def __init__(self, state: Mapping[str, np.ndarray]) -> None:
        self._state = {
            name: tf.constant(_channels_last(name, array), tf.float32)
            for name, array in state.items()
            if np.issubdtype(array.dtype, np.floating)
        }

    def __getitem__(self, name: str) -> tf.Tensor:
        """Return one array; convolution kernels are HWIO here, dense matrices IO."""
        return self._state[name]

    def __contains__(self, name: str) -> bool:
        """Return whether there is such an array."""
        return name in self._state

    def convolve(self, x: tf.Tensor, name: str, *, stride: int = 1) -> tf.Tensor:
        """Convolve ``(N, H, W, C)`` with reflected borders; ``stride`` divides the size."""
        kernel = self[f"{name}.weight"]
        return self._biased(tf.nn.conv2d(_reflect(x, kernel), kernel, stride, "VALID"), name)

    def convolve_depthwise(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Convolve each channel of ``(N, H, W, C)`` by itself, with reflected borders."""
        kernel = tf.transpose(self[f"{name}.weight"], (0, 1, 3, 2))
        y = tf.nn.depthwise_conv2d(_reflect(x, kernel), kernel, [1, 1, 1, 1], "VALID")
        return self._biased(y, name)

    def double(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Double the size of ``(N, H, W, C)`` by a 2 x 2 transposed convolution of stride 2."""
        kernel = self[f"{name}.weight"]
        n, h, w, _ = x.shape
        y = tf.nn.conv2d_transpose(x, kernel, (n, 2 * h, 2 * w, kernel.shape[2]), 2, "VALID")
        return self._biased(y, name)

    def dense(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Multiply the last axis by a matrix."""
        return self._biased(tf.tensordot(x, self[f"{name}.weight"], 1), name)

    def batch_norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Normalise channels with the statistics of training."""
        scale = self[f"{name}.weight"] * tf.math.rsqrt(self[f"{name}.running_var"] + EPSILON)
        return x * scale + (self[f"{name}.bias"] - self[f"{name}.running_mean"] * scale)

    def group_norm(self, x: tf.Tensor, name: str, *, groups: int) -> tf.Tensor:
        """Normalise each group of channels over all axes but the first.

        Args:
            x: ``(N, ..., C)``.
            name: of the norm.
            groups: number of groups, adjacent channels each.
        """
        *axes, channels = x.shape
        grouped = tf.reshape(x, (*axes, groups, channels // groups))
        centred = grouped - _group_mean(grouped)
        scaled = centred * tf.math.rsqrt(_group_mean(tf.square(centred)) + EPSILON)
        return tf.reshape(scaled, x.shape) * self[f"{name}.weight"] + self[f"{name}.bias"]

    def norm(self, x: tf.Tensor, name: str, *, groups: int) -> tf.Tensor:
        """Apply the batch norm of that name if it has statistics, else a group norm."""
        if f"{name}.running_mean" in self:
            return self.batch_norm(x, name)
        return self.group_norm(x, name, groups=groups)

    def _biased(self, x: tf.Tensor, name: str) -> tf.Tensor:
        bias = self._state.get(f"{name}.bias")
        return x if bias is None else x + bias


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Return the exact GELU (with the error function)."""
    return tf.nn.gelu(x, approximate=False)


def spatial_mean(x: tf.Tensor) -> tf.Tensor:
    """Return the mean of ``(N, H, W, C)`` over rows and columns, ``(N, 1, 1, C)``."""
    return _mean_by_axis(x, (2, 1))


def fold(sequence: tf.Tensor) -> tf.Tensor:
    """Return ``(N, T, H, W, C)`` as ``(N T, H, W, C)``."""
    n, t, *rest = sequence.shape
    return tf.reshape(sequence, (n * t, *rest))


def unfold(frames: tf.Tensor, count: int) -> tf.Tensor:
    """Return ``(N T, H, W, C)`` as ``(N, T, H, W, C)`` with T = ``count``."""
    n, *rest = frames.shape
    return tf.reshape(frames, (n // count, count, *rest))


def encode_days(days: tf.Tensor, *, width: int, period: float, repeats: int) -> tf.Tensor:
    """Return the sine and cosine encoding of acquisition days (L-TAE, section 3).

    The phase is rounded to float32, as in the published codes: for days in the thousands
    that moves the attention by 5e-5, and weights were trained with it.

    Args:
        days: ``(N, T)``.
        width: channels of one encoding.
        period: longest wavelength over 2 pi, in days.
        repeats: how often the encoding is repeated (once for each head).

    Returns:
        ``(N, T, width * repeats)`` float32.
    """
    channel = np.arange(width)
    wavelength = np.power(np.float32(period), (2 * (channel // 2) / width).astype(np.float32))
    # Divided in float64: graph optimisation turns a float32 division by a constant into a
    # product with its reciprocal, which rounds otherwise.
    quotient = tf.cast(days, tf.float64)[..., None] / wavelength.astype(np.float64)
    phase = tf.cast(tf.cast(quotient, tf.float32), tf.float64)
    encoded = tf.where(channel % 2 == 0, tf.sin(phase), tf.cos(phase))
    return tf.tile(tf.cast(encoded, tf.float32), (1, 1, repeats))


def softmax_over_frames(scores: tf.Tensor, padded: tf.Tensor) -> tf.Tensor:
    """Return attention over the last axis with nothing on padded frames.

    Args:
        scores: ``(N, ..., T)``.
        padded: ``(N, T)`` bool.
    """
    n, *_, t = scores.shape
    # TensorFlow's oneDNN softmax, which CPUs with AVX-512 get, refuses more than five axes.
    flat = tf.reshape(scores, (n, -1, t))
    attention = tf.nn.softmax(tf.where(padded[:, None], MASKED_SCORE, flat))
    return tf.reshape(attention, scores.shape)


def aggregate(frames: tf.Tensor, attention: tf.Tensor) -> tf.Tensor:
    """Combine frames by attention, each head on its own group of adjacent channels.

    U-TAE's attention groups (Garnot & Landrieu 2021, section 3.3): the attention is
    brought to the size of the frames by bilinear interpolation.

    Args:
        frames: ``(N, S, H, W, C)``.
        attention: ``(N, h, w, heads, T, S)``, h <= H and w <= W.

    Returns:
        ``(N, T, H, W, C)``.
    """
    n, s, height, width, channels = frames.shape
    *_, heads, t, _ = attention.shape
    flat = tf.reshape(attention, (n, *attention.shape[1:3], heads * t * s))
    weights = tf.reshape(tf.image.resize(flat, (height, width)), (n, height, width, heads, t, s))
    grouped = tf.reshape(frames, (n, s, height, width, heads, channels // heads))
    combined = [
        tf.add_n([weights[..., row, k, None] * grouped[:, k] for k in range(s)]) for row in range(t)
    ]
    return tf.reshape(tf.stack(combined, axis=1), (n, t, height, width, channels))


def adaptive_max_pool(x: tf.Tensor, size: int) -> tf.Tensor:
    """Return the maxima of ``size`` x ``size`` cells of ``(N, H, W, C)``.

    Cell i covers rows ``floor(i H / size)`` to ``ceil((i + 1) H / size)``, exclusive, so
    cells overlap by a pixel where the size does not divide (PyTorch's AdaptiveMaxPool2d).
    """
    for axis in (1, 2):
        extent = x.shape[axis]
        if extent % size == 0:
            shape = (*x.shape[:axis], size, extent // size, *x.shape[axis + 1 :])
            x = tf.reduce_max(tf.reshape(x, shape), axis=axis + 1)
        else:
            x = tf.reduce_max(tf.gather(x, _cells(extent, size), axis=axis), axis=axis + 1)
    return x


def compile_network(
    forward: Callable[..., tf.Tensor], state: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return inference as a graph, traced once for each shape; XLA is slower on CPUs.

    Args:
        forward: ``forward(layers, sequence, days)``.
        state: weights by name.

    Returns:
        A function of ``(N, T, H, W, C)`` and ``(N, T)`` float32 arrays.
    """
    layers = TorchLayers(state)
    graph = tf.function(lambda x, days: forward(layers, x, days), jit_compile=False)

    def run(sequence: np.ndarray, days: np.ndarray) -> np.ndarray:
        return graph(tf.constant(sequence, tf.float32), tf.constant(days, tf.float32)).numpy()

    return run


def _channels_last(name: str, array: np.ndarray) -> np.ndarray:
    """Turn a layer's OIHW into HWIO and its OI (or OI1, a 1-wide convolution) into IO."""
    if not name.endswith(".weight") or array.ndim < 2:
        return array
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.reshape(array.shape[:2]).T


def _reflect(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Pad rows and columns for a kernel of odd size, or of size 4 with stride 2."""
    pad = (kernel.shape[0] - 1) // 2
    return tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]], "REFLECT") if pad else x


def _group_mean(x: tf.Tensor) -> tf.Tensor:
    """Return the mean of ``(N, ..., G, C)`` over all axes but the first and the groups."""
    return _mean_by_axis(x, (x.ndim - 1, *range(x.ndim - 3, 0, -1)))


def _mean_by_axis(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Return the mean over axes, kept, one after the other.

    One float32 sum over an image would be wrong in the fourth digit.
    """
    for axis in axes:
        x = tf.reduce_mean(x, axis=axis, keepdims=True)
    return x


def _cells(extent: int, size: int) -> np.ndarray:
    """Return the positions of each cell's pixels, ``(size, widest)``, the last repeated."""
    first = [i * extent // size for i in range(size)]
    last = [math.ceil((i + 1) * extent / size) - 1 for i in range(size)]
    widest = max(b - a for a, b in zip(first, last, strict=True)) + 1
    return np.minimum(np.add.outer(first, np.arange(widest)), np.array(last)[:, None])
