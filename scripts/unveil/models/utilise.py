"""U-TILISE: a sequence of images with gaps becomes a sequence without.

Stucker, Sainte Fare Garnot & Schindler 2023, U-TILISE: A Sequence-to-Sequence Model for
Cloud Removal in Optical Satellite Time Series, IEEE TGRS 61, arXiv:2305.13277 (section III),
in the three published configurations.

A convolutional encoder for each frame, self-attention over time at its lowest resolution
that also mixes the skip connections, and a convolutional decoder for each frame. Weights
keep the names of the published checkpoints. TensorFlow is imported when a network is built.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unveil.bands import L1C13, SAR2
from unveil.models.base import ModelSpec, Needs, Prediction
from unveil.models.layers.padding import pad_to_grid, unpad
from unveil.models.layers.published import SequenceNetwork
from unveil.models.layers.sequences import pair_radar, sequence_of
from unveil.models.options import check_choice
from unveil.scene import Inputs

if TYPE_CHECKING:
    import tensorflow as tf

    from unveil.models.layers.torch_state import TorchLayers

GROUPS = HEADS = 4
KEY = 4
PERIOD = 1000.0
GAP = 1.0
"""Value of all bands of a pixel that is hidden."""
SHORTEST, LONGEST = 5, 10
"""Frames of the sequences of training."""
BLOCK = "temporal_encoder.0"


@dataclass(frozen=True)
class Configuration:
    """One published configuration.

    Attributes:
        bands: optical bands, in the order of the channels.
        radar: whether VV and VH follow them in the input.
        widths: channels of the encoder from full to lowest resolution.
        levels: processing levels of the training data; empty where the sources disagree.
    """

    bands: tuple[str, ...]
    radar: bool
    widths: tuple[int, ...]
    levels: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Pixels along the edge of one cell of the lowest resolution."""
        return 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """Pixels that an output pixel looks to each side, at most.

        In units of the step s: the encoder sees 2 pixels at full size, then each level
        adds 1 of the finer and 4 of the finer (2 of the coarser) pixels: 5 (s - 1) + 2. The
        decoder sees 2 pixels at full size and 2 at each level but the lowest: 2 (s - 1) + 2.
        Between them, attention is interpolated from the next cell (s), and a cell lies up
        to s - 1 pixels askew.
        """
        s = self.step
        return (5 * (s - 1) + 2) + (2 * (s - 1) + 2) + s + (s - 1)


# EarthNet2021 has B8A as its near infrared, at 20 m, L1C or L2A depending on who describes it.
CONFIGURATIONS: dict[str, Configuration] = {
    "earthnet": Configuration(("B02", "B03", "B04", "B8A"), False, (64, 64, 64, 128)),
    "sen12mscrts": Configuration(L1C13, False, (64, 64, 64, 64, 128), ("L1C",)),
    "sen12mscrts-s1": Configuration(L1C13, True, (64, 64, 64, 64, 128), ("L1C",)),
}


def forward(layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Run the network; its depth is that of the weights.

    A frame of zeros on day 0 is padding: its features are 0, it gets no attention, and its
    output is 0.

    Args:
        layers: the weights.
        frames: ``(N, T, H, W, C)`` in 0...1, hidden pixels 1; H and W are multiples of
            the step and at least twice as much.
        days: ``(N, T)`` days of the year, 1 January is 0.

    Returns:
        ``(N, T, H, W, B)`` reflectance and the attention ``(N, h, w, heads, T, T)``, the
        last axis over the frames attended to.
    """
    import tensorflow as tf

    from unveil.models.layers.torch_state import aggregate, fold, unfold

    count = frames.shape[1]
    padded = ~tf.reduce_any(frames != 0, axis=(2, 3, 4)) & (days == 0)
    empty = padded[:, :, None, None, None]
    *skips, lowest = _encode(layers, fold(frames))
    features = tf.where(empty, 0.0, unfold(lowest, count))
    mixed, attention = _mix_frames(layers, features, days, padded)
    x = fold(mixed)
    for level, skip in enumerate(reversed(skips)):
        x = _ascend(layers, x, fold(aggregate(unfold(skip, count), attention)), level)
    x = tf.nn.relu(layers.convolve(x, "out_conv.conv.conv.0"))
    output = unfold(tf.sigmoid(layers.convolve(x, "out_conv.conv.conv.2")), count)
    return tf.where(empty, 0.0, output), attention


def _encode(layers: TorchLayers, images: tf.Tensor) -> list[tf.Tensor]:
    """Return features of single frames ``(N T, h, w, C)`` from full to lowest resolution."""
    import tensorflow as tf

    x = images
    for part in (0, 2):
        x = tf.nn.relu(layers.convolve(x, f"in_conv.conv.conv.{part}"))
    pyramid = [x]
    while f"down_blocks.{len(pyramid) - 1}.down.conv.0.weight" in layers:
        name = f"down_blocks.{len(pyramid) - 1}"
        x = tf.nn.relu(layers.convolve(x, f"{name}.down.conv.0", stride=2))
        x = tf.nn.relu(layers.convolve(x, f"{name}.conv1.conv.0"))
        x = x + tf.nn.relu(layers.convolve(x, f"{name}.conv2.conv.0"))
        pyramid.append(x)
    return pyramid


def _ascend(layers: TorchLayers, x: tf.Tensor, skip: tf.Tensor, level: int) -> tf.Tensor:
    """Double the resolution and join the skip connection of that resolution."""
    import tensorflow as tf

    name = f"up_blocks.{level}"
    doubled = tf.nn.relu(layers.double(x, f"{name}.up.convtrans.0"))
    skip = tf.nn.relu(layers.convolve(skip, f"{name}.skip_conv.conv.conv.0"))
    x = tf.concat([doubled, skip], axis=-1)
    x = tf.nn.relu(layers.convolve(x, f"{name}.conv1.conv.conv.0"))
    return x + tf.nn.relu(layers.convolve(x, f"{name}.conv2.conv.conv.0"))


def _mix_frames(
    layers: TorchLayers, features: tf.Tensor, days: tf.Tensor, padded: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Let the frames of each cell exchange information (temporal encoder, norms first).

    Args:
        layers: the weights.
        features: ``(N, T, h, w, C)``.
        days: ``(N, T)``.
        padded: ``(N, T)`` bool.

    Returns:
        Features of the same shape and the attention ``(N, h, w, heads, T, T)``.
    """
    import tensorflow as tf

    from unveil.models.layers import torch_state as tl

    n, count, h, w, width = features.shape

    def norm(y: tf.Tensor, part: str) -> tf.Tensor:
        single = layers.group_norm(tf.reshape(y, (-1, width)), f"{BLOCK}.{part}", groups=GROUPS)
        return tf.reshape(single, y.shape)

    encoded = tl.encode_days(days, width=width // HEADS, period=PERIOD, repeats=HEADS)
    x = features + encoded[:, :, None, None]
    normed = norm(x, "norm1")
    keys, queries = (
        tf.reshape(
            layers.dense(normed, f"{BLOCK}.attention_heads.fc_{part}"),
            (n, count, h, w, HEADS, KEY),
        )
        for part in ("k", "q")
    )
    scores = tf.einsum("ntyxgk,nsyxgk->nyxgts", queries, keys) / KEY**0.5
    attention = tl.softmax_over_frames(scores, padded)
    x = x + tl.aggregate(normed, attention)
    return x + tl.gelu(layers.dense(norm(x, "norm2"), f"{BLOCK}.mlp.0")), attention


def state_shapes(configuration: Configuration) -> dict[str, tuple[int, ...]]:
    """Return name and shape (PyTorch's layout) of every weight."""
    widths, bands = configuration.widths, len(configuration.bands)
    first, last, depth = widths[0], widths[-1], len(widths) - 1
    channels = bands + (len(SAR2) if configuration.radar else 0)
    kernels = {
        "in_conv.conv.conv.0": (first, channels, 3, 3),
        "in_conv.conv.conv.2": (first, first, 3, 3),
        "out_conv.conv.conv.0": (first, first, 3, 3),
        "out_conv.conv.conv.2": (bands, first, 3, 3),
        f"{BLOCK}.mlp.0": (last, last),
    }
    for level, (fine, coarse) in enumerate(zip(widths, widths[1:], strict=False)):
        down, up = f"down_blocks.{level}", f"up_blocks.{depth - 1 - level}"
        kernels |= {
            f"{down}.down.conv.0": (fine, fine, 4, 4),
            f"{down}.conv1.conv.0": (coarse, fine, 3, 3),
            f"{down}.conv2.conv.0": (coarse, coarse, 3, 3),
            f"{up}.up.convtrans.0": (coarse, fine, 2, 2),
            f"{up}.skip_conv.conv.conv.0": (fine, fine, 1, 1),
            f"{up}.conv1.conv.conv.0": (fine, 2 * fine, 3, 3),
            f"{up}.conv2.conv.conv.0": (fine, fine, 3, 3),
        }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in kernels.items():
        outputs = shape[1] if "convtrans" in name else shape[0]
        shapes |= {f"{name}.weight": shape, f"{name}.bias": (outputs,)}
    for part in ("norm1", "norm2"):
        shapes |= {f"{BLOCK}.{part}.weight": (last,), f"{BLOCK}.{part}.bias": (last,)}
    for part in ("k", "q"):
        shapes[f"{BLOCK}.attention_heads.fc_{part}.weight"] = (HEADS * KEY, last)
    return shapes


def network_input(optical: np.ndarray, clear: np.ndarray, radar: np.ndarray | None) -> np.ndarray:
    """Return the frames in network units.

    1. Reflectance is clipped to 0...1.
    2. Every band of a pixel that is cloud, shadow or nodata becomes 1.
    3. Radar follows; it is never hidden.

    Args:
        optical: ``(T, B, H, W)`` reflectance, NaN where nodata.
        clear: ``(T, H, W)`` bool.
        radar: ``(T, 2, H, W)`` of :func:`unveil.models.layers.sequences.scale_radar`, or None.

    Returns:
        ``(T, B [+ 2], H, W)`` float32.
    """
    frames = np.where(clear[:, None], np.clip(optical, 0.0, 1.0), np.float32(GAP))
    parts = [frames] if radar is None else [frames, radar]
    return np.concatenate(parts, axis=1, dtype=np.float32)


@dataclass(frozen=True)
class UTiliseOptions:
    """Options of the model.

    Attributes:
        configuration: one of :data:`CONFIGURATIONS`.
    """

    configuration: str = "earthnet"


class UTilise(SequenceNetwork):
    """U-TILISE with published weights.

    The option ``configuration`` is ``earthnet`` (B02, B03, B04, B8A; trained at 20 m on
    EarthNet2021), ``sen12mscrts`` (13 bands at 10 m) or ``sen12mscrts-s1`` (with radar).

    The target and the nearest frames in time make a sequence of 5 to 10, as in training;
    of the clear sequence the target's date is kept. Clouds and shadows come from the masks.
    The published training set frames of more than 90 % cloud wholly to 1, which is left out
    here: it needs the whole frame. Windows are cut in the cells of the lowest resolution
    counted from the scene's corner, so tiles with the halo of ``receptive_field`` give the
    same result as the whole scene. Radar comes from the date nearest to each frame's.
    """

    kind = "utilise"
    citation = (
        "Stucker, Sainte Fare Garnot & Schindler 2023, U-TILISE: A Sequence-to-Sequence Model "
        "for Cloud Removal in Optical Satellite Time Series, IEEE Trans. Geosci. Remote Sens. "
        "61, doi:10.1109/TGRS.2023.3333391."
    )
    state_key = "model_state_dict"
    options_type = UTiliseOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        name = self.options.configuration
        check_choice(spec, "configuration", name, tuple(CONFIGURATIONS))
        self.configuration = CONFIGURATIONS[name]
        self.receptive_field = self.configuration.reach
        self.radar_dates = "paired" if self.configuration.radar else "target"

    @property
    def needs(self) -> Needs:
        """The configuration's bands and radar, and sequences as long as in training."""
        return Needs(
            bands=self.configuration.bands,
            radar="required" if self.configuration.radar else "unused",
            min_context=SHORTEST - 1,
            max_context=LONGEST - 1,
            levels=self.configuration.levels,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every weight."""
        return state_shapes(self.configuration)

    def forward(self, layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor) -> tf.Tensor:
        """Return the network's images, without its attention."""
        return forward(layers, frames, days)[0]

    def predict(self, inputs: Inputs) -> Prediction:
        """Clear one window; NaN where no frame has data."""
        bands, step = self.configuration.bands, self.configuration.step
        sequence = sequence_of(inputs, bands, frames=LONGEST)
        radar = pair_radar(inputs, sequence.dates)[0] if self.configuration.radar else None
        frames = network_input(sequence.reflectance, sequence.clear, radar)
        padded = pad_to_grid(frames, origin=inputs.origin, step=step, least=2 * step)
        days = np.array([_day_of_year(date) for date in sequence.dates], np.float32)
        output = self.run(np.moveaxis(padded, 1, -1)[None], days[None])[0, sequence.target]
        whole = np.moveaxis(output, -1, 0)
        reflectance = unpad(whole, origin=inputs.origin, step=step, shape=inputs.shape).copy()
        reflectance[:, sequence.nowhere] = np.nan
        return Prediction(reflectance, bands=bands)


def _day_of_year(date: dt.date) -> int:
    return date.timetuple().tm_yday - 1
