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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unveil.bands import L1C13, SAR2
from unveil.models.base import ModelSpec, Needs, Prediction
from unveil.models.classical import clearest_frames
from unveil.models.layers.padding import pad_to_grid
from unveil.models.layers.published import SequenceNetwork
from unveil.models.layers.sequences import pair_radar, sequence_of
from unveil.models.options import check_choice
from unveil.scene import Inputs, Scene

if TYPE_CHECKING:
    import tensorflow as tf

    from unveil.models.layers.torch_state import TorchLayers

FRAMES = 3
CHOICES = ("nearest", "clearest")
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


def forward(layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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
    import tensorflow as tf

    from unveil.models.layers.torch_state import aggregate, fold, unfold

    count = frames.shape[1]
    features = encode(layers, fold(frames))
    padded = ~tf.reduce_any(frames != 0, axis=(2, 3, 4))
    attention = attend(layers, features, days, padded)
    merged = aggregate(unfold(features, count), attention[..., None, :])[:, 0]
    for block in range(DECODER_BLOCKS):
        merged = _block(layers, merged, f"out_block.{block}.conv")
    raw = layers.convolve(merged, "out_conv.conv.conv.0")
    means = SCALE * tf.sigmoid(raw[..., : len(L1C13)])
    variances = tf.nn.softplus(raw[..., len(L1C13) :]) + LEAST_VARIANCE
    return tf.concat([means, variances], axis=-1), attention


def encode(layers: TorchLayers, images: tf.Tensor) -> tf.Tensor:
    """Return features ``(N T, H, W, 128)`` of single frames."""
    import tensorflow as tf

    x = layers.convolve(images, "in_conv.conv.conv.0")
    x = tf.nn.relu(layers.group_norm(x, "in_conv.conv.conv.1", groups=GROUPS))
    return _block(layers, x, "in_block.0.conv")


def _block(layers: TorchLayers, x: tf.Tensor, name: str) -> tf.Tensor:
    """Apply one inverted residual block with squeeze and excitation (MBConv, figure 2).

    Group norms in the encoder, batch norms in the decoder: whichever the weights hold.
    """
    import tensorflow as tf

    from unveil.models.layers.torch_state import gelu, spatial_mean

    def norm(y: tf.Tensor, part: str) -> tf.Tensor:
        return layers.norm(y, f"{name}.{part}", groups=GROUPS)

    y = norm(x, "norm")
    y = gelu(norm(layers.convolve(y, f"{name}.fn.0"), "fn.1"))
    y = gelu(norm(layers.convolve_depthwise(y, f"{name}.fn.3"), "fn.4"))
    gate = gelu(layers.dense(spatial_mean(y), f"{name}.fn.6.fc.0"))
    y = y * tf.sigmoid(layers.dense(gate, f"{name}.fn.6.fc.2"))
    return x + norm(layers.convolve(y, f"{name}.fn.7"), "fn.8")


def attend(
    layers: TorchLayers, features: tf.Tensor, days: tf.Tensor, padded: tf.Tensor
) -> tf.Tensor:
    """Return L-TAE's attention of every cell, ``(N, 32, 32, heads, T)``.

    Args:
        layers: the weights.
        features: ``(N T, H, W, 128)``.
        days: ``(N, T)``.
        padded: ``(N, T)`` bool.
    """
    import tensorflow as tf

    from unveil.models.layers import torch_state as tl

    n, count = days.shape
    cells = tl.unfold(tl.adaptive_max_pool(features, CELLS), count)
    series = tf.reshape(tf.transpose(cells, (0, 2, 3, 1, 4)), (-1, count, WIDTH))
    series = layers.group_norm(series, "temporal_encoder.in_norm", groups=HEADS)
    series = layers.dense(series, "temporal_encoder.inconv")
    series = tf.reshape(series, (n, CELLS * CELLS, count, MODEL_WIDTH))
    encoded = tl.encode_days(days, width=MODEL_WIDTH // HEADS, period=PERIOD, repeats=HEADS)
    keys = layers.dense(series + encoded[:, None], "temporal_encoder.attention_heads.fc1_k")
    keys = tf.reshape(keys, (n, CELLS, CELLS, count, HEADS, KEY))
    queries = layers["temporal_encoder.attention_heads.Q"]
    scores = tf.einsum("nyxthk,hk->nyxht", keys, queries) / KEY**0.5
    return tl.softmax_over_frames(scores, padded)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape (PyTorch's layout) of every weight."""
    pixelwise = (1, 1)
    attention = "temporal_encoder.attention_heads"
    shapes: dict[str, tuple[int, ...]] = {
        "in_conv.conv.conv.0.weight": (WIDTH, CHANNELS, *pixelwise),
        "in_conv.conv.conv.0.bias": (WIDTH,),
        **_norm_shapes("in_conv.conv.conv.1", WIDTH, ("weight", "bias")),
        **_block_shapes("in_block.0.conv", ("weight", "bias")),
        "temporal_encoder.inconv.weight": (MODEL_WIDTH, WIDTH, 1),
        "temporal_encoder.inconv.bias": (MODEL_WIDTH,),
        f"{attention}.Q": (HEADS, KEY),
        f"{attention}.fc1_k.weight": (HEADS * KEY, MODEL_WIDTH),
        f"{attention}.fc1_k.bias": (HEADS * KEY,),
        **_norm_shapes("temporal_encoder.in_norm", WIDTH, ("weight", "bias")),
        "out_conv.conv.conv.0.weight": (2 * len(L1C13), WIDTH, *pixelwise),
        "out_conv.conv.conv.0.bias": (2 * len(L1C13),),
    }
    for block in range(DECODER_BLOCKS):
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= _block_shapes(f"out_block.{block}.conv", parts)
    return shapes


def _norm_shapes(name: str, width: int, parts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in parts}


def _block_shapes(name: str, parts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {
        **_norm_shapes(f"{name}.norm", WIDTH, parts),
        f"{name}.fn.0.weight": (EXPANDED, WIDTH, 1, 1),
        **_norm_shapes(f"{name}.fn.1", EXPANDED, parts),
        f"{name}.fn.3.weight": (EXPANDED, 1, 3, 3),
        **_norm_shapes(f"{name}.fn.4", EXPANDED, parts),
        f"{name}.fn.6.fc.0.weight": (SQUEEZED, EXPANDED),
        f"{name}.fn.6.fc.2.weight": (EXPANDED, SQUEEZED),
        f"{name}.fn.7.weight": (WIDTH, EXPANDED, 1, 1),
        **_norm_shapes(f"{name}.fn.8", WIDTH, parts),
    }


def network_input(optical: np.ndarray, radar: np.ndarray) -> np.ndarray:
    """Return the frames in network units, at least 32 pixels in size.

    1. Reflectance is clipped to 0...1; missing pixels become 0.
    2. Radar (already 0...1) comes first.
    3. All is multiplied by 10.
    4. Images smaller than the attention's 32 x 32 cells are continued by their border pixels.

    Args:
        optical: ``(T, 13, H, W)`` reflectance, NaN where nodata.
        radar: ``(T, 2, H, W)`` of :func:`unveil.models.layers.sequences.scale_radar`.

    Returns:
        ``(T, H, W, 15)`` float32.
    """
    scaled = np.nan_to_num(np.clip(optical, 0.0, 1.0), nan=0.0)
    stacked = np.concatenate([radar, scaled], axis=1, dtype=np.float32) * np.float32(SCALE)
    padded = pad_to_grid(stacked, origin=(0, 0), step=1, least=CELLS)
    return np.ascontiguousarray(np.moveaxis(padded, 1, -1))


@dataclass(frozen=True)
class UnCRtainTSOptions:
    """Options of the model.

    Attributes:
        frames: which two frames it gets beside the target, the ``nearest`` in time or the
            ``clearest`` of the series.
    """

    frames: str = "nearest"


class UnCRtainTS(SequenceNetwork):
    """UnCRtainTS with published weights: reflectance and its standard deviation.

    The network normalises with statistics of its whole input (group norms, squeeze and
    excitation) and finds attention in 32 x 32 cells whatever the size, so a larger image is
    another input, not more of the same. It is defined on the size it was trained on: a scene
    is cut in overlapping patches of ``patch_px``; ``predict`` runs one.

    Every optical frame is paired with the radar frame nearest to it in time, and the
    network gets the mean of both dates, as in the published training.

    The option ``frames`` departs from the published setting where it is ``clearest``: input
    dates are there taken whatever their cloud, as ``nearest`` has it; the two of the series
    with the most clear pixels of the scene (of equally clear ones the nearest), however far in
    time, are easier input than the network was trained on.
    """

    kind = "uncrtaints"
    citation = (
        "Ebel, Sainte Fare Garnot, Schmitt, Wegner & Zhu 2023, UnCRtainTS: Uncertainty "
        "Quantification for Cloud Removal in Optical Satellite Time Series, IEEE/CVF CVPR "
        "Workshops, doi:10.1109/CVPRW59228.2023.00202."
    )
    state_key = "state_dict_G"
    radar_dates = "paired"
    receptive_field = None
    patch_px = 256
    options_type = UnCRtainTSOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        check_choice(spec, "frames", self.options.frames, CHOICES)
        self._chosen: list[int] = []

    @property
    def needs(self) -> Needs:
        """All bands of L1C, radar, and the two other frames of the published setting."""
        return Needs(
            bands=L1C13,
            radar="required",
            min_context=FRAMES - 1,
            max_context=FRAMES - 1 if self.options.frames == "nearest" else None,
            levels=("L1C",),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every weight."""
        return state_shapes()

    def forward(self, layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor) -> tf.Tensor:
        """Return the network's images, without its attention."""
        return forward(layers, frames, days)[0]

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Choose the clearest frames of the scene when asked to."""
        if self.options.frames == "clearest":
            self._chosen = clearest_frames(tiles, FRAMES - 1)

    def predict(self, inputs: Inputs) -> Prediction:
        """Clear one patch; NaN where no frame has data."""
        if self.options.frames == "clearest":
            inputs = _with_frames(inputs, self._chosen)
        sequence = sequence_of(inputs, L1C13, frames=FRAMES)
        radar, later = pair_radar(inputs, sequence.dates)
        frames = network_input(sequence.reflectance, radar)
        optical_days = [(date - REFERENCE_DAY).days for date in sequence.dates]
        days = np.array(optical_days, np.float32) + later / 2
        output = np.moveaxis(self.run(frames[None], days[None])[0], -1, 0)
        output = output[:, : inputs.shape[0], : inputs.shape[1]]
        reflectance = output[: len(L1C13)] / np.float32(SCALE)
        std = np.sqrt(output[len(L1C13) :]) / np.float32(SCALE)
        for image in (reflectance, std):
            image[:, sequence.nowhere] = np.nan
        return Prediction(reflectance, std=std, bands=L1C13)


def _with_frames(inputs: Inputs, chosen: Sequence[int]) -> Inputs:
    return replace(
        inputs,
        context=inputs.context[chosen],
        context_class=inputs.context_class[chosen],
        days=inputs.days[chosen],
    )
