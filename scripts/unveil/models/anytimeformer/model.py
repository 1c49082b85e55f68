"""AnytimeFormer: a transformer over the time series of one pixel, optical and radar.

Every pixel is a sequence of optical dates (ten bands, zero where the surface is not seen)
and a sequence of radar dates (VV, VH), each with a sinusoidal encoding of its day of year.
Two encoder layers work on the optical sequence; attention between days of year brings the
radar sequence to the optical dates; both are fused by a low-rank product; one more encoder
layer follows; attention from any wanted day of year reads the result out.

Source: Tang et al. 2026 (see :class:`AnytimeFormer`); low-rank fusion after Liu et al. 2018
(doi:10.18653/v1/P18-1209); the diagonal mask after Du et al. 2023 (SAITS,
doi:10.1016/j.eswa.2023.119619). Details that the texts leave open (normalisation after the
residual sum, GELU, the aligned radar added to the encoding of its date) were settled by
trying each alternative against outputs of the published model.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unveil.bands import band_positions
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.options import parse_options
from unveil.scene import Inputs, Scene
from unveil.weights.read import read_state

if TYPE_CHECKING:
    import tensorflow as tf

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

# Statistics of the training series, reflectance and dB (VV, VH), as published.
OPTICAL_MEAN = np.array(
    [
        0.0560931,
        0.07820754,
        0.07826688,
        0.12199164,
        0.23053792,
        0.27005848,
        0.28694907,
        0.29348803,
        0.21045375,
        0.14608423,
    ],
    np.float32,
)
OPTICAL_STD = np.array(
    [
        0.0294467,
        0.03634312,
        0.05420814,
        0.0537814,
        0.06922875,
        0.08621366,
        0.090617,
        0.08737519,
        0.09233613,
        0.09572206,
    ],
    np.float32,
)
RADAR_MEAN = np.array([-10.589984, -17.843824], np.float32)
RADAR_STD = np.array([3.1839156, 4.171891], np.float32)

WIDTH, HIDDEN, HEADS, RANK, GROUPS = 128, 64, 4, 8, 2
DAYS = 366
"""Rows of the table of encodings; day of year is its index, 1 January is 1."""

ATTENTION_EPSILON, FORWARD_EPSILON = 1e-5, 1e-6
"""What the two normalisations of an encoder layer add to the variance, as published."""

MASKED = -1e9
TOKENS_PER_BATCH = 32_768
"""Dates times pixels computed at once; bounds memory at about 0.5 GiB."""


@dataclass(frozen=True)
class AnytimeFormerOptions:
    """Options of the model.

    Attributes:
        min_optical_dates: fewest optical dates within the target's calendar year, the
            target among them.
        min_radar_dates: fewest radar dates within that year.
        keep_clear: keep the target's own value where it is clear.
    """

    min_optical_dates: int = 6
    min_radar_dates: int = 6
    keep_clear: bool = True


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of the 51 arrays of a published checkpoint."""
    attention = {f"{part}.weight": (WIDTH, WIDTH) for part in ("w_qs", "w_ks", "w_vs", "fc")}
    norm = {"layer_norm.weight": (WIDTH,), "layer_norm.bias": (WIDTH,)}
    forward = {
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
    parts = {
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


# --- the network ----------------------------------------------------------------------


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


# --- the model ------------------------------------------------------------------------


class AnytimeFormer(Model):
    """AnytimeFormer with the weights published for Germany.

    Only dates of the target's calendar year are used: the network knows a date by its day
    of year. Frames without any clear pixel stay in the sequence, as in the published code.
    Missing radar pixels take the mean of the training series.
    """

    kind = "anytimeformer"
    citation = (
        "Tang, Chen, Liu, Li, Tang, Yang & Chen 2026, AnytimeFormer: Fusing irregular and "
        "asynchronous SAR-optical time series to reconstruct reflectance at any given time, "
        "Remote Sens. Environ. 333:115120, doi:10.1016/j.rse.2025.115120."
    )
    network = True
    origin = "published"
    receptive_field = 0
    radar_dates = "all"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.options = parse_options(AnytimeFormerOptions, spec)
        self._run: Callable[..., np.ndarray] | None = None

    @property
    def needs(self) -> Needs:
        """Ten bands of L2A, radar, and other dates."""
        return Needs(
            bands=BANDS,
            radar="required",
            min_context=self.options.min_optical_dates - 1,
            levels=("L2A",),
        )

    def skip(self, scene: Scene) -> str | None:
        """Return why it cannot run: no weights, an unmet need, or too few dates in the year."""
        return super().skip(scene) or self._too_few_dates(scene)

    def _too_few_dates(self, scene: Scene) -> str | None:
        year = scene.target.day.year
        for name, frames, least in (
            ("optical", (scene.target, *scene.context), self.options.min_optical_dates),
            ("radar", scene.with_role("radar"), self.options.min_radar_dates),
        ):
            found = sum(frame.day.year == year for frame in frames)
            if found < least:
                return f"needs {least} {name} dates in {year}, the scene has {found}"
        return None

    def load(self) -> None:
        """Read and check the weights and build the graph.

        Raises:
            InputError: if the file is missing, damaged or of another network.
        """
        weights = read_state(self.weights, "", expected_shapes())
        self.weights_checksum = weights.sha256
        self._run = compile_network(weights.arrays)

    def predict(self, inputs: Inputs) -> Prediction:
        """Reconstruct the target date of one window; NaN where the target has no data.

        Raises:
            ValueError: if the inputs come without radar dates.
        """
        if inputs.sar_series is None:
            raise ValueError("the inputs come without radar dates")
        if self._run is None:
            self.load()
        has_data = np.isfinite(inputs.target).all(axis=0)
        keep = inputs.target_clear if self.options.keep_clear else np.zeros_like(has_data)
        target = inputs.target[band_positions(BANDS, inputs.bands)]
        result = np.where(has_data & keep, target, np.nan).astype(np.float32)
        flat = result.reshape(len(BANDS), -1)
        for pixels, arrays in _batches(inputs, np.flatnonzero(has_data & ~keep)):
            flat[:, pixels] = denormalise(self._run(*arrays)[:, 0]).T
        return Prediction(result, bands=BANDS)


def normalise_optical(reflectance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the network's optical input, 0 where the surface is not seen.

    Args:
        reflectance: ``(..., 10)``.
        seen: ``(...)`` bool.
    """
    scaled = (reflectance - OPTICAL_MEAN) / OPTICAL_STD
    return np.where(seen[..., None], scaled, 0).astype(np.float32)


def normalise_radar(decibel: np.ndarray) -> np.ndarray:
    """Return the network's radar input from ``(..., 2)`` dB, 0 where missing."""
    return np.nan_to_num((decibel - RADAR_MEAN) / RADAR_STD, nan=0.0).astype(np.float32)


def denormalise(output: np.ndarray) -> np.ndarray:
    """Return reflectance from the network's output, ``(..., 10)``."""
    return output * OPTICAL_STD + OPTICAL_MEAN


def _batches(
    inputs: Inputs, pixels: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """Yield groups of pixels (flat indices) and the network's arrays for them."""
    frames, days = _within_year(inputs.target_date, inputs.days)
    radar_frames, radar_days = _within_year(inputs.target_date, inputs.sar_days)
    target_day = _within_year(inputs.target_date, np.zeros(1))[1]
    days = np.concatenate([days, target_day])
    positions = band_positions(BANDS, inputs.bands)
    context, seen = _flat(inputs.context), _flat(inputs.context_clear)
    target, target_seen = _flat(inputs.target), _flat(inputs.target_clear)
    radar = _flat(inputs.sar_series)
    size = max(1, TOKENS_PER_BATCH // max(len(days), len(radar_days)))
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        optical = np.concatenate(
            [context[np.ix_(frames, positions, part)], target[np.ix_(positions, part)][None]]
        )
        visible = np.concatenate([seen[np.ix_(frames, part)], target_seen[part][None]])
        yield (
            part,
            (
                normalise_optical(np.moveaxis(optical, 2, 0), visible.T),
                normalise_radar(np.moveaxis(radar[np.ix_(radar_frames, (0, 1), part)], 2, 0)),
                days,
                radar_days,
                target_day,
            ),
        )


def _flat(array: np.ndarray) -> np.ndarray:
    """Return ``(..., H, W)`` as ``(..., H * W)`` without copying."""
    return array.reshape(*array.shape[:-2], -1)


def _within_year(target_date: str, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which frames lie in the target's year and their days of year (1 January: 1).

    The 366th day shares the encoding of the 365th, the last that the table holds.
    """
    target = dt.date.fromisoformat(target_date)
    dates = [target + dt.timedelta(days=int(offset)) for offset in offsets]
    index = [i for i, date in enumerate(dates) if date.year == target.year]
    days = [min(dates[i].timetuple().tm_yday, DAYS - 1) for i in index]
    return np.array(index, np.intp), np.array(days, np.int32)
