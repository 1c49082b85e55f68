"""DSen2-CR: a deep residual network that clears one image with the help of radar.

Meraner, Ebel, Zhu & Schmitt 2020, Cloud removal in Sentinel-2 imagery using a deep residual
neural network and SAR-optical data fusion, ISPRS J. Photogramm. Remote Sens. 166:333-346,
doi:10.1016/j.isprsjprs.2020.05.013 (section 3: network and ranges of the data).

The network works on channels-last batches, optical bands first, then VV and VH. TensorFlow
and Keras are imported by the functions that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window

from unveil.bands import (
    L1C13,
    REFLECTANCE_SCALE,
    SAR2,
    band_positions,
    normalise_band_name,
)
from unveil.errors import InputError, SceneSkipped
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.options import check_choice, option_error, parse_options
from unveil.raster import Grid, with_halo
from unveil.scene import Inputs, Scene, read_inputs
from unveil.weights.arrays import HDF5_SIGNATURE, NamedArrays, check_values, read_arrays
from unveil.weights.keras_hdf5 import read_keras_hdf5

if TYPE_CHECKING:
    import keras

KERNEL = 3
RESIDUAL_SCALE = 0.1
OPTICAL_RANGE = (0.0, 10_000.0)
"""Digital numbers."""
OPTICAL_SCALE = 2_000.0
"""Digital numbers per network unit."""
SAR_RANGES = {"VV": (-25.0, 0.0), "VH": (-32.5, 0.0)}
"""Decibels."""
SAR_MAXIMUM = 2.0
"""Network units of the upper end of the radar ranges."""


HIDDEN_BYTES = {
    ("tensorflow", "float32"): 15,
    ("tensorflow", "mixed_bfloat16"): 8,
    ("tensorflow", "mixed_float16"): 8,
    ("openvino", "float32"): 9,
    ("openvino", "mixed_bfloat16"): 5,
    ("openvino", "int8"): 7,
}
"""Bytes of a pixel and feature, from ``benchmarks/inference.py memory``: two to four layers."""
IMAGES_HELD = 14
"""Copies of the input's channels that a window costs while it is read, computed and written."""
PATCH_PX, PATCHES_PER_EDGE, FEWEST_PATCHES = 128, 4, 4
"""Of a scene, to calibrate int8 and to check it."""


@dataclass(frozen=True)
class Dsen2CrOptions:
    """Options of the kind ``dsen2cr``.

    Attributes:
        features: channels of the hidden layers.
        blocks: residual blocks.
        bands: ESA names of the optical bands, in the order of the network's channels.
        radar: whether VV and VH follow the optical bands.
        origin: ``trained-here`` or ``published``; by default the former for a ``.npz``, the
            latter for anything else.
    """

    features: int = 256
    blocks: int = 16
    bands: tuple[str, ...] = L1C13
    radar: bool = True
    origin: str = ""

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.bands) + (len(SAR2) if self.radar else 0)

    @property
    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """Shape (HWIO) of every convolution's kernel."""
        widths = [self.channels, *[self.features] * (2 * self.blocks + 1), len(self.bands)]
        return [(KERNEL, KERNEL, *pair) for pair in pairwise(widths)]


@dataclass(frozen=True)
class Fill:
    """Values that stand for missing pixels: one for all bands of a raster, as published.

    Attributes:
        optical: mean of all bands and valid pixels of the target, in DN.
        sar: mean of both polarisations over valid pixels, in dB.
    """

    optical: float
    sar: float


def build_network(
    *,
    bands: int,
    radar: bool,
    features: int = 256,
    blocks: int = 16,
    precision: str | None = None,
) -> keras.Model:
    """Build the network of section 3.1 without weights of its own.

    Args:
        bands: optical bands, the first channels of the input.
        radar: whether VV and VH follow them.
        features: channels of the hidden layers.
        blocks: residual blocks.
        precision: Keras dtype policy of the hidden layers, by default Keras' global one. The
            first and last convolutions and the addition to the image are always float32.

    Returns:
        A model from ``(N, H, W, bands [+ 2])`` to ``(N, H, W, bands)`` float32 in network
        units, for any N, H and W. Its convolutions are named ``conv_01``, ``conv_02`` ...
    """
    import keras

    count = 0

    def convolve(
        tensor: Any, filters: int, activation: str | None = None, dtype: str | None = precision
    ) -> Any:
        nonlocal count
        count += 1
        return keras.layers.Conv2D(
            filters,
            KERNEL,
            padding="same",
            activation=activation,
            kernel_initializer="he_uniform",
            data_format="channels_last",
            dtype=dtype,
            name=f"conv_{count:02d}",
        )(tensor)

    source = keras.Input((None, None, bands + (len(SAR2) if radar else 0)), name="cloudy")
    # Its kernel rounded to bfloat16 would shift the colour of the whole image (up to 0.1 dB).
    x = convolve(source, features, "relu", dtype="float32")
    for block in range(1, blocks + 1):
        residual = convolve(convolve(x, features, "relu"), features)
        scale = keras.layers.Rescaling(RESIDUAL_SCALE, dtype=precision, name=f"scale_{block:02d}")
        x = keras.layers.Add(dtype=precision, name=f"block_{block:02d}")([x, scale(residual)])
    # Under thick cloud the change is 4000 DN and more; bfloat16 would round it to 32 DN.
    change = convolve(x, bands, dtype="float32")
    output = keras.layers.Add(dtype="float32", name="clear")([source[..., :bands], change])
    return keras.Model(source, output, name="dsen2cr")


def convolutions(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the convolutions of a network of :func:`build_network` in order."""
    found = [layer for layer in network.layers if layer.name.startswith("conv_")]
    return sorted(found, key=lambda layer: int(layer.name.removeprefix("conv_")))


def network_arrays(network: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights as ``kernel_01`` (HWIO), ``bias_01``, ``kernel_02`` ..., to be saved."""
    arrays = {}
    for number, layer in enumerate(convolutions(network), 1):
        kernel, bias = layer.get_weights()
        arrays |= {f"kernel_{number:02d}": kernel, f"bias_{number:02d}": bias}
    return arrays


def read_weights(path: str | Path) -> NamedArrays:
    """Read weights from legacy Keras HDF5 or from a ``.npz`` written here, told by content.

    Raises:
        InputError: if the file is neither, or damaged.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(HDF5_SIGNATURE))
    except OSError:
        head = b""
    is_archive = head.startswith(b"PK")
    return read_arrays(path) if is_archive else read_keras_hdf5(path)


def load_weights(network: keras.Model, weights: NamedArrays) -> None:
    """Put weights into a network of :func:`build_network`, layer by layer in order.

    Names do not matter, only order: each kernel (HWIO, in files of channels-first models
    too) is followed by its bias.

    Raises:
        InputError: if count or shapes differ from the network's, or values are not finite
            or all zero.
    """
    layers = convolutions(network)
    shapes = [tuple(layer.kernel.shape) for layer in layers]
    for layer, arrays in zip(layers, layers_of(weights, shapes), strict=True):
        layer.set_weights(list(arrays))


def layers_of(
    weights: NamedArrays, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return kernel (HWIO) and bias of each convolution as float32, checked.

    Args:
        weights: each kernel followed by its bias; names do not matter.
        shapes: of the kernels that the network has.

    Raises:
        InputError: if count or shapes differ, or values are not finite or all zero.
    """
    _check_architecture(weights, [shape for kernel in shapes for shape in (kernel, kernel[-1:])])
    check_values(weights)
    arrays = [array.astype(np.float32) for array in weights.arrays.values()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _check_architecture(weights: NamedArrays, expected: list[tuple[int, ...]]) -> None:
    found = [array.shape for array in weights.arrays.values()]
    if found == [tuple(shape) for shape in expected]:
        return
    kernels = [shape for shape in found if len(shape) == 4]
    wanted = [shape for shape in expected if len(shape) == 4]
    raise InputError(
        f"found {_describe(kernels)}; the model's options ask for {_describe(wanted)}"
        + ("" if len(found) == 2 * len(kernels) else f"; {len(found)} arrays in all"),
        file=weights.path,
        field=_first_difference(weights, expected),
        remedy="set the options 'features', 'blocks', 'bands' and 'radar' to those of the "
        "weights, or download the weights again",
    )


def _describe(kernels: list[tuple[int, ...]]) -> str:
    if not kernels:
        return "no convolutions"
    return (
        f"{len(kernels)} convolutions of {kernels[0][-1]} features from {kernels[0][-2]} input "
        f"channels to {kernels[-1][-1]} output channels"
    )


def _first_difference(weights: NamedArrays, expected: list[tuple[int, ...]]) -> str | None:
    for (name, array), shape in zip(weights.arrays.items(), expected, strict=False):
        if array.shape != tuple(shape):
            return name
    return None


def fill_values(target_dn: np.ndarray, sar_db: np.ndarray | None) -> Fill:
    """Return the published stand-ins for missing pixels of one image.

    Args:
        target_dn: DN of any shape, NaN where missing.
        sar_db: dB of any shape, NaN where missing; None without radar.
    """
    moments = _Moments()
    moments.add(target_dn, sar_db)
    return moments.fill()


class _Moments:
    """Running sums of the valid values of target and radar, in float64."""

    def __init__(self) -> None:
        self.sums, self.counts = [0.0, 0.0], [0, 0]

    def add(self, target_dn: np.ndarray, sar_db: np.ndarray | None) -> None:
        """Add one tile."""
        for position, values in enumerate((target_dn, sar_db)):
            if values is not None:
                valid = np.isfinite(values)
                self.sums[position] += float(np.sum(values, where=valid, dtype=np.float64))
                self.counts[position] += int(np.count_nonzero(valid))

    def fill(self) -> Fill:
        """Return the means; NaN where nothing was valid."""
        means = [s / n if n else np.nan for s, n in zip(self.sums, self.counts, strict=True)]
        return Fill(*means)


def network_input(target_dn: np.ndarray, sar_db: np.ndarray | None, fill: Fill) -> np.ndarray:
    """Return the network's input in its units.

    1. Missing values become the fill value of their raster.
    2. Optical bands are clipped to 0...10000 DN and divided by 2000.
    3. VV is clipped to -25...0 dB, VH to -32.5...0 dB, both mapped to 0...2.

    Args:
        target_dn: ``(B, H, W)`` DN (reflectance x 10000), NaN where missing.
        sar_db: ``(2, H, W)`` dB, VV then VH, NaN where missing; None without radar.
        fill: stand-ins for missing values.

    Returns:
        ``(H, W, B [+ 2])`` float32.
    """
    optical = np.where(np.isnan(target_dn), np.float32(fill.optical), target_dn)
    channels = [np.clip(optical, *OPTICAL_RANGE) / OPTICAL_SCALE]
    if sar_db is not None:
        filled = np.where(np.isnan(sar_db), np.float32(fill.sar), sar_db)
        for image, name in zip(filled, SAR2, strict=True):
            low, high = SAR_RANGES[name]
            scaled = (np.clip(image, low, high) - low) * (SAR_MAXIMUM / (high - low))
            channels.append(scaled[None])
    stacked = np.concatenate(channels, axis=0, dtype=np.float32)
    return np.ascontiguousarray(np.moveaxis(stacked, 0, -1))


class Dsen2Cr(Model):
    """DSen2-CR, with published weights or weights trained here."""

    kind = "dsen2cr"
    citation = (
        "Meraner, Ebel, Zhu & Schmitt 2020, Cloud removal in Sentinel-2 imagery using a deep "
        "residual neural network and SAR-optical data fusion, ISPRS J. Photogramm. Remote "
        "Sens. 166:333-346, doi:10.1016/j.isprsjprs.2020.05.013."
    )
    network = True
    precisions = ("float32", "mixed_bfloat16", "mixed_float16")
    openvino_precisions = ("float32", "mixed_bfloat16", "int8")
    backend = "tensorflow"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.options = read_options(spec)
        # Each 3x3 convolution looks one pixel further.
        self.receptive_field = (2 * self.options.blocks + 2) * (KERNEL // 2)
        ours = spec.weights is not None and spec.weights.suffix == ".npz"
        self.origin = self.options.origin or ("trained-here" if ours else "published")
        self._fill: Fill | None = None
        self._run: Callable[[np.ndarray], np.ndarray] | None = None
        self._to_quantise: list[tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def needs(self) -> Needs:
        """The bands of the weights; radar if they use it; L1C if B10 is among the bands."""
        return Needs(
            bands=self.options.bands,
            radar="required" if self.options.radar else "unused",
            max_context=0,
            levels=("L1C",) if "B10" in self.options.bands else (),
        )

    def load(self) -> None:
        """Build the network for ``backend`` in ``precision`` and load its weights.

        int8 needs a scene to calibrate on; until :meth:`prepare` has seen one it is the best
        precision that needs none.

        Raises:
            InputError: if the weights are missing, damaged or of another architecture.
        """
        if self.spec.weights is None:
            raise InputError(
                f"model '{self.spec.id}' has no weights",
                field="weights",
                remedy="run `snakemake fetch_weights`, or give the file in the models table",
            )
        weights = read_weights(self.spec.weights)
        self.weights_checksum = weights.sha256
        self.bytes_per_px = self.window_bytes_per_px()
        if self.backend == "openvino":
            self._load_openvino(layers_of(weights, self.options.kernel_shapes))
        else:
            self._load_keras(weights)

    def _load_keras(self, weights: NamedArrays) -> None:
        network = build_network(
            bands=len(self.options.bands),
            radar=self.options.radar,
            features=self.options.features,
            blocks=self.options.blocks,
            precision=self.precision,
        )
        load_weights(network, weights)
        self._run = compile_network(network)

    def _load_openvino(self, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        from unveil.models import dsen2cr_openvino

        if self.precision == "int8":
            self._to_quantise, self.precision = layers, dsen2cr_openvino.half_precision()
        self._unquantised = self.precision
        self._run = self._plain = dsen2cr_openvino.compile_network(layers, precision=self.precision)

    def window_bytes_per_px(self) -> int:
        """Return the most memory of one pixel: hidden values held at once, and the images."""
        hidden = HIDDEN_BYTES[self.backend, self.precision] * self.options.features
        return hidden + IMAGES_HELD * self.options.channels * 4

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Find the fill values of the whole scene; for int8, calibrate on patches of it.

        Raises:
            SceneSkipped: if the target or the radar has no valid pixel.
        """
        moments = _Moments()
        for tile in tiles:
            moments.add(*self._arrays(tile))
        if not moments.counts[0]:
            raise SceneSkipped("the target has no valid pixel")
        if self.options.radar and not moments.counts[1]:
            raise SceneSkipped("the radar frame has no valid pixel")
        self._fill = moments.fill()
        if self._to_quantise:
            self._quantise(scene)

    def _quantise(self, scene: Scene) -> None:
        """Compute this scene in int8 if that costs little enough on patches of it."""
        from unveil.models import dsen2cr_openvino as openvino

        self._run, self.precision = self._plain, self._unquantised
        calibration, held_out = (
            [self._patch(scene, window) for window in windows]
            for windows in calibration_windows(scene.grid)
        )
        calibration, held_out = (
            [patch for patch in patches if patch is not None] for patches in (calibration, held_out)
        )
        if min(len(calibration), len(held_out)) < FEWEST_PATCHES:
            self.precision_note = (
                f"int8 refused: the scene has no {FEWEST_PATCHES} patches of {PATCH_PX} pixels "
                f"to calibrate on and as many to check"
            )
            return
        run, loss = openvino.compile_int8(
            self._to_quantise, calibration=calibration, held_out=held_out
        )
        found = f"may cost {loss:.3f} dB of PSNR, found on {len(held_out)} held-out patches"
        if loss >= openvino.MOST_LOSS_DB:
            self.precision_note = f"int8 refused: {found}, allowed {openvino.MOST_LOSS_DB}"
            return
        self._run, self.precision, self.precision_note = run, "int8", f"int8 {found}"

    def _patch(self, scene: Scene, window: Window) -> np.ndarray | None:
        """Return the network's input for one window, or None where the target has no data.

        It comes with its halo: what lies at the edge is judged as in the whole image.
        """
        outer, _ = with_halo(window, self.receptive_field, scene.grid)
        target_dn, sar_db = self._arrays(read_inputs(scene, window=outer))
        if np.isnan(target_dn).all():
            return None
        return network_input(target_dn, sar_db, self._fill)[None]

    def predict(self, inputs: Inputs) -> Prediction:
        """Clear one window; NaN stays NaN, band by band.

        Without ``prepare`` the window itself gives the fill values.
        """
        if self._run is None:
            self.load()
        target_dn, sar_db = self._arrays(inputs)
        missing = np.isnan(target_dn)
        if missing.all():
            return Prediction(target_dn, bands=self.options.bands)
        fill = self._fill or fill_values(target_dn, sar_db)
        output = self._run(network_input(target_dn, sar_db, fill)[None])[0]
        reflectance = np.moveaxis(output, -1, 0) * np.float32(OPTICAL_SCALE / REFLECTANCE_SCALE)
        reflectance[missing] = np.nan
        return Prediction(reflectance, bands=self.options.bands)

    def _arrays(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the target in DN, ``(B, H, W)`` in the network's order, and the radar."""
        positions = band_positions(self.options.bands, inputs.bands)
        target_dn = inputs.target[positions] * np.float32(REFLECTANCE_SCALE)
        return target_dn, inputs.sar if self.options.radar else None


def calibration_windows(grid: Grid) -> tuple[list[Window], list[Window]]:
    """Return windows spread over a scene to calibrate on, and others to check on.

    None where the scene is so small that both would cost more than int8 saves.
    """
    if min(grid.shape) < PATCH_PX * PATCHES_PER_EDGE:
        return [], []
    rows, cols = (
        [i * (length - PATCH_PX) // (PATCHES_PER_EDGE - 1) for i in range(PATCHES_PER_EDGE)]
        for length in grid.shape
    )
    sides: tuple[list[Window], list[Window]] = ([], [])
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            sides[(i + j) % 2].append(Window(col, row, PATCH_PX, PATCH_PX))
    return sides


def compile_network(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return inference as one graph, ``(N, H, W, C)`` to ``(N, H, W, B)`` float32.

    One graph serves every N, H and W; XLA is off because it is slower on CPUs.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, network.input_shape[-1]), tf.float32)]

    @tf.function(input_signature=signature, jit_compile=False)
    def run(batch: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(batch, training=False), tf.float32)

    return lambda batch: run(tf.constant(batch, tf.float32)).numpy()


def read_options(spec: ModelSpec) -> Dsen2CrOptions:
    """Return the options of a row of the models table.

    Raises:
        InputError: naming the model, the option, its value and the values allowed.
    """
    written = dict(spec.options)
    if "bands" in written:
        written["bands"] = _parse_bands(spec, written["bands"])
    options = parse_options(Dsen2CrOptions, replace(spec, options=written))
    for name in ("features", "blocks"):
        if getattr(options, name) < 1:
            raise option_error(spec, name, "give a whole number from 1")
    if options.origin:
        check_choice(spec, "origin", options.origin, ("published", "trained-here"))
    return options


def _parse_bands(spec: ModelSpec, value: Any) -> tuple[str, ...]:
    try:
        bands = tuple(normalise_band_name(name) for name in value)
    except (ValueError, TypeError, AttributeError) as error:
        raise option_error(spec, "bands", f"give a list of ESA band names: {error}") from error
    if not bands or len(set(bands)) != len(bands):
        raise option_error(spec, "bands", "name each band once")
    return bands
