"""The network of AnytimeFormer: a transformer over the time series of one pixel.

Every pixel is a sequence of optical dates (ten bands, zero where the surface is not seen)
and a sequence of radar dates (VV, VH), each with a sinusoidal encoding of its day of year.
Two encoder layers work on the optical sequence; attention between days of year brings the
radar sequence to the optical dates; both are fused by a low-rank product; one more encoder
layer follows; attention from any wanted day of year reads the result out.

Source: Tang et al. 2026 (see :class:`unveil.models.anytimeformer.model.AnytimeFormer`); low-rank
fusion after Liu et al. 2018 (doi:10.18653/v1/P18-1209); the diagonal mask after Du et al. 2023
(SAITS, doi:10.1016/j.eswa.2023.119619). Details that the texts leave open (normalisation after
the residual sum, GELU, the aligned radar added to the encoding of its date) were settled by
trying each alternative against outputs of the published model.

TensorFlow is imported by the functions that use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
WIDTH, HIDDEN, HEADS, RANK, GROUPS = 128, 64, 4, 8, 2
DAYS = 366
"""Rows of the table of encodings; day of year is its index, 1 January is 1."""
ATTENTION_EPSILON, FORWARD_EPSILON = 1e-5, 1e-6
"""What the two normalisations of an encoder layer add to the variance, as published."""
MASKED = -1e9


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of the 51 arrays of a published checkpoint."""
    attention: dict[str, tuple[int, ...]] = {
        f"{part}.weight": (WIDTH, WIDTH) for part in ("w_qs", "w_ks", "w_vs", "fc")
    }
    norm: dict[str, tuple[int, ...]] = {"layer_norm.weight": (WIDTH,), "layer_norm.bias": (WIDTH,)}
    forward: dict[str, tuple[int, ...]] = {
        "w_1.weight": (HIDDEN, WIDTH),
        "w_1.bias": (HIDDEN,),
        "w_2.weight": (WIDTH, HIDDEN),
        "w_2.bias": (WIDTH,),
    }
    layer = {
        **norm,
        **{f"slf_attn.{name}": shape for name, shape in attention.items()},
        **{f"pos_ffn.{name}": shape for name, shape in {**forward, **norm}.items()},
    }
    parts: dict[str, dict[str, tuple[int, ...]]] = {
        **{f"encoder.{group}": layer for group in range(GROUPS)},
        "multimodal_encoder": layer,
        "timealign_attention": attention,
        "decoder.timeindex_attn": attention,
    }
    return {
        **{
            f"{part}.{name}": shape
            for part, names in parts.items()
            for name, shape in names.items()
        },
        "embedding_X.weight": (WIDTH, len(BANDS)),
        "embedding_X_aux.linear.weight": (WIDTH, 2),
        "position_enc.pos_table": (DAYS, WIDTH),
        "reduce_dim.weight": (len(BANDS), WIDTH),
        "reduce_dim.bias": (len(BANDS),),
        "tensorfusion.w_x": (RANK, WIDTH + 1, WIDTH),
        "tensorfusion.w_x_aux": (RANK, WIDTH + 1, WIDTH),
    }


def forward(
    weights: Mapping[str, tf.Tensor],
    optical: tf.Tensor,
    radar: tf.Tensor,
    *,
    days: tf.Tensor,
    radar_days: tf.Tensor,
    wanted_days: tf.Tensor,
) -> tf.Tensor:
    """Reconstruct pixels at any days of a year.

    Args:
        weights: arrays of :func:`expected_shapes`.
        optical: ``(N, T, 10)`` float32, normalised, 0 where not seen.
        radar: ``(N, T_radar, 2)`` float32, normalised.
        days: ``(T,)`` int, day of year of the optical dates.
        radar_days: ``(T_radar,)`` int.
        wanted_days: ``(Q,)`` int.

    Returns:
        ``(N, Q, 10)`` float32, normalised.
    """
    import tensorflow as tf

    table = weights["position_enc.pos_table"]
    dates, radar_dates, wanted = (
        tf.gather(table, index)[None] for index in (days, radar_days, wanted_days)
    )
    x = _linear(weights, "embedding_X", optical) + dates
    for group in range(GROUPS):
        x = _encode(weights, f"encoder.{group}", x, hide_self=True)
    radar = _linear(weights, "embedding_X_aux.linear", radar)
    # Queries and keys are dates only: one attention map serves every pixel.
    aligned = _attend(weights, "timealign_attention", dates, radar_dates, radar) + dates
    x = _encode(weights, "multimodal_encoder", _fuse(weights, x, aligned), hide_self=False)
    x = _attend(weights, "decoder.timeindex_attn", wanted, x, x)
    return _linear(weights, "reduce_dim", x)


def _linear(weights: Mapping[str, tf.Tensor], name: str, x: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    product = tf.einsum("nti,oi->nto", x, weights[f"{name}.weight"])
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def _normalise(
    weights: Mapping[str, tf.Tensor], name: str, x: tf.Tensor, *, epsilon: float
) -> tf.Tensor:
    import tensorflow as tf

    mean, variance = tf.nn.moments(x, axes=-1, keepdims=True)
    scaled = (x - mean) * tf.math.rsqrt(variance + epsilon)
    return scaled * weights[f"{name}.layer_norm.weight"] + weights[f"{name}.layer_norm.bias"]


def _attend(
    weights: Mapping[str, tf.Tensor],
    name: str,
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    *,
    hide_self: bool = False,
) -> tf.Tensor:
    """Multi-head attention; query and key may have a batch of 1 for all pixels."""
    import tensorflow as tf

    q, k, v = (
        _split_heads(_linear(weights, f"{name}.{part}", x))
        for part, x in (("w_qs", query), ("w_ks", key), ("w_vs", value))
    )
    scores = tf.matmul(q / math.sqrt(WIDTH // HEADS), k, transpose_b=True)
    if hide_self:
        scores = tf.linalg.set_diag(scores, tf.fill(tf.shape(scores)[:-1], MASKED))
    mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), (0, 2, 1, 3))
    shape = tf.shape(mixed)
    return _linear(weights, f"{name}.fc", tf.reshape(mixed, (shape[0], shape[1], WIDTH)))


def _split_heads(x: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    shape = tf.shape(x)
    return tf.transpose(tf.reshape(x, (shape[0], shape[1], HEADS, WIDTH // HEADS)), (0, 2, 1, 3))


def _encode(
    weights: Mapping[str, tf.Tensor], name: str, x: tf.Tensor, *, hide_self: bool
) -> tf.Tensor:
    """Encoder layer: attention, then a GELU network, each normalised after its sum."""
    import tensorflow as tf

    x = x + _attend(weights, f"{name}.slf_attn", x, x, x, hide_self=hide_self)
    x = _normalise(weights, name, x, epsilon=ATTENTION_EPSILON)
    part = f"{name}.pos_ffn"
    hidden = tf.nn.gelu(_linear(weights, f"{part}.w_1", x), approximate=False)
    x = x + _linear(weights, f"{part}.w_2", hidden)
    return _normalise(weights, part, x, epsilon=FORWARD_EPSILON)


def _fuse(weights: Mapping[str, tf.Tensor], x: tf.Tensor, radar: tf.Tensor) -> tf.Tensor:
    """Low-rank fusion: sum over ranks of the product of two affine maps.

    The first row of each factor belongs to the constant 1 put before the features.
    """
    import tensorflow as tf

    def project(features: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return tf.einsum("nti,io->nto", features, factor[1:]) + factor[0]

    optical, other = weights["tensorfusion.w_x"], weights["tensorfusion.w_x_aux"]
    return tf.add_n([project(x, optical[r]) * project(radar, other[r]) for r in range(RANK)])


def compile_network(weights: Mapping[str, np.ndarray]) -> Callable[..., np.ndarray]:
    """Return :func:`forward` as one graph on arrays, for any number of pixels and dates.

    The result takes ``(optical, radar, days, radar_days, wanted_days)``.
    """
    import tensorflow as tf

    constants = {name: tf.constant(array, tf.float32) for name, array in weights.items()}
    day_list = tf.TensorSpec((None,), tf.int32)
    signature = [
        tf.TensorSpec((None, None, len(BANDS)), tf.float32),
        tf.TensorSpec((None, None, 2), tf.float32),
        *[day_list] * 3,
    ]

    @tf.function(input_signature=signature, jit_compile=False)
    def run(optical, radar, days, radar_days, wanted_days):
        return forward(
            constants,
            optical,
            radar,
            days=days,
            radar_days=radar_days,
            wanted_days=wanted_days,
        )

    return lambda *arrays: run(*map(tf.constant, arrays)).numpy()
