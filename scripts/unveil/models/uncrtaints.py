"""UnCRtainTS: one clear image and its uncertainty from a few cloudy ones and radar.

Ebel, Sainte Fare Garnot, Schmitt, Wegner & Zhu 2023, UnCRtainTS: Uncertainty Quantification
for Cloud Removal in Optical Satellite Time Series, CVPR Workshops, arXiv:2304.05464: the
configuration with three inputs and a diagonal covariance (sections 3.1 and 3.2).

Each frame is encoded at full resolution; attention over time is found on features pooled to
32 x 32 cells and brought back; the frames' weighted sum is decoded to means and variances.
Weights keep the names of the published checkpoints. TensorFlow is imported when a network
is built.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil.bands import L1C13, SAR2
from unveil.errors import InputError
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.dsen2cr import NOT_FETCHED
from unveil.models.multitemporal import (
    Sequence,
    pad_to_grid,
    read_state,
    refuse_unknown_options,
    repeat_radar,
    sequence_of,
    unpad,
)
from unveil.scene import Inputs, Scene

if TYPE_CHECKING:
    import tensorflow as tf

    from unveil.models.torch_layers import TorchLayers

FRAMES = 3
CHANNELS = len(SAR2) + len(L1C13)
WIDTH, EXPANDED, SQUEEZED = 128, 256, 32
"""Channels of the features, inside a block, and at the waist of squeeze and excitation."""
DECODER_BLOCKS = 5
GROUPS = 4
HEADS, KEY, MODEL_WIDTH = 16, 4, 256
CELLS = 32
"""Rows and columns of the attention, and fewest pixels of an image."""
PERIOD = 1000.0
SCALE = 10.0
"""Network units per unit reflectance."""
LEAST_VARIANCE = 1e-3
REFERENCE_DAY = dt.date(2014, 4, 3)
"""Day 0 of the acquisition days: the launch of Sentinel-1A."""


def forward(
    layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run the network.

    A frame of zeros is padding: it gets no attention, though its features take part in the
    norm over time before it, as published.

    Args:
        layers: the weights.
        frames: ``(N, T, H, W, 15)``, VV, VH and 13 optical bands in 0...10; H, W >= 32.
        days: ``(N, T)`` days since :data:`REFERENCE_DAY`.

    Returns:
        ``(N, H, W, 26)`` means (0...10) and variances, and the attention
        ``(N, 32, 32, heads, T)``.
    """
    from unveil.models.torch_layers import aggregate, fold, unfold

    count = frames.shape[1]
    features = _encode(layers, fold(frames))
    padded = ~layers.any(frames != 0, axis=(2, 3, 4))
    attention = _attend(layers, features, days, padded)
    merged = aggregate(unfold(features, count), attention[..., None, :])[:, 0]
    for block in range(DECODER_BLOCKS):
        merged = _block(layers, merged, f"out_block.{block}.conv")
    raw = layers.convolve(merged, "out_conv.conv.conv.0")
    means = SCALE * layers.sigmoid(raw[..., : len(L1C13)])
    variances = layers.softplus(raw[..., len(L1C13) :]) + LEAST_VARIANCE
    return layers.concatenate([means, variances], axis=-1), attention


def _encode(layers: TorchLayers, images: tf.Tensor) -> tf.Tensor:
    """Return features ``(N T, H, W, 128)`` of single frames."""
    x = layers.convolve(images, "in_conv.conv.conv.0")
    x = layers.relu(layers.group_norm(x, "in_conv.conv.conv.1", groups=GROUPS))
    return _block(layers, x, "in_block.0.conv")


def _block(layers: TorchLayers, x: tf.Tensor, name: str) -> tf.Tensor:
    """Apply one inverted residual block with squeeze and excitation (MBConv, figure 2).

    Group norms in the encoder, batch norms in the decoder: whichever the weights hold.
    """

    def norm(y: tf.Tensor, part: str) -> tf.Tensor:
        return layers.norm(y, f"{name}.{part}", groups=GROUPS)

    y = norm(x, "norm")
    y = layers.gelu(norm(layers.convolve(y, f"{name}.fn.0"), "fn.1"))
    y = layers.gelu(norm(layers.convolve_depthwise(y, f"{name}.fn.3"), "fn.4"))
    gate = layers.gelu(layers.dense(layers.spatial_mean(y), f"{name}.fn.6.fc.0"))
    y = y * layers.sigmoid(layers.dense(gate, f"{name}.fn.6.fc.2"))
    return x + norm(layers.convolve(y, f"{name}.fn.7"), "fn.8")


def _attend(
    layers: TorchLayers, features: tf.Tensor, days: tf.Tensor, padded: tf.Tensor
) -> tf.Tensor:
    """Return L-TAE's attention of every cell, ``(N, 32, 32, heads, T)``.

    Args:
        layers: the weights.
        features: ``(N T, H, W, 128)``.
        days: ``(N, T)``.
        padded: ``(N, T)`` bool.
    """
    from unveil.models import torch_layers as tl

    n, count = days.shape
    cells = tl.unfold(tl.adaptive_max_pool(features, CELLS), count)
    series = layers.reshape(layers.transpose(cells, (0, 2, 3, 1, 4)), (-1, count, WIDTH))
    series = layers.group_norm(series, "temporal_encoder.in_norm", groups=HEADS)
    series = layers.dense(series, "temporal_encoder.inconv")
    series = layers.reshape(series, (n, CELLS * CELLS, count, MODEL_WIDTH))
    encoded = tl.encode_days(days, width=MODEL_WIDTH // HEADS, period=PERIOD, repeats=HEADS)
    keys = layers.dense(series + encoded[:, None], "temporal_encoder.attention_heads.fc1_k")
    keys = layers.reshape(keys, (n, CELLS, CELLS, count, HEADS, KEY))
    queries = layers["temporal_encoder.attention_heads.Q"]
    scores = layers.einsum("nyxthk,hk->nyxht", keys, queries) / KEY**0.5
    return tl.softmax_over_frames(scores, padded)
