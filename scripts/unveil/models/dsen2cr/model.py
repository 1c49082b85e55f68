"""DSen2-CR: a deep residual network that clears one image with the help of radar.

Meraner, Ebel, Zhu & Schmitt 2020, Cloud removal in Sentinel-2 imagery using a deep residual
neural network and SAR-optical data fusion, ISPRS J. Photogramm. Remote Sens. 166:333-346,
doi:10.1016/j.isprsjprs.2020.05.013 (section 3: network and ranges of the data).

TensorFlow, Keras and OpenVINO are imported by the functions that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from rasterio.windows import Window

from unveil.bands import L1C13, REFLECTANCE_SCALE, SAR2, band_positions, normalise_band_name
from unveil.errors import SceneSkipped
from unveil.models.base import Model, ModelSpec, Needs, Origin, Prediction
from unveil.models.dsen2cr.network import (
    KERNEL,
    block_dilations,
    build_network,
    compile_network,
    load_weights,
    receptive_field,
)
from unveil.models.dsen2cr.recipe import (
    UNITS_PER_REFLECTANCE,
    Fill,
    Moments,
    fill_values,
    network_input,
)
from unveil.models.dsen2cr.weights import Layers, layers_of
from unveil.models.options import check_choice, option_error, parse_options
from unveil.scene import Inputs, Scene, read_inputs
from unveil.weights.arrays import NamedArrays
from unveil.weights.read import read_weights

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


@dataclass(frozen=True)
class Dsen2CrOptions:
    """Options of the kind ``dsen2cr``.

    Attributes:
        features: channels of the hidden layers.
        blocks: residual blocks.
        dilations: of the convolutions of the blocks, over and over; published: 1.
        bands: ESA names of the optical bands, in the order of the network's channels.
        radar: whether VV and VH follow the optical bands.
        origin: ``trained-here`` or ``published``; by default the former for a ``.npz``, the
            latter for anything else.
    """

    features: int = 256
    blocks: int = 16
    dilations: tuple[int, ...] = (1,)
    bands: tuple[str, ...] = L1C13
    radar: bool = True
    origin: Origin | Literal[""] = ""

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.bands) + (len(SAR2) if self.radar else 0)

    @property
    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """Shape (HWIO) of every convolution's kernel."""
        widths = [self.channels, *[self.features] * (2 * self.blocks + 1), len(self.bands)]
        return [(KERNEL, KERNEL, *pair) for pair in pairwise(widths)]

    @property
    def layer_dilations(self) -> list[int]:
        """Dilation of every convolution."""
        inner = [d for d in block_dilations(self.blocks, self.dilations) for _ in range(2)]
        return [1, *inner, 1]


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
    receptive_field: int

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.receptive_field = receptive_field(self.options.blocks, self.options.dilations)
        ours = spec.weights is not None and spec.weights.suffix == ".npz"
        self.origin = self.options.origin or ("trained-here" if ours else "published")
        self._fill: Fill | None = None
        self._run: Callable[[np.ndarray], np.ndarray] | None = None
        self._to_quantise: Layers | None = None

    def read_options(self, spec: ModelSpec) -> Dsen2CrOptions:
        """Return the options; bands by any of their names."""
        return read_options(spec)

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
        weights = read_weights(self.weights)
        self.weights_checksum = weights.sha256
        self.bytes_per_px = self.window_bytes_per_px()
        if self.backend == "openvino":
            options = self.options
            layers = layers_of(weights, options.kernel_shapes, dilations=options.layer_dilations)
            self._load_openvino(layers)
        else:
            self._load_keras(weights)

    def _load_keras(self, weights: NamedArrays) -> None:
        network = build_network(
            bands=len(self.options.bands),
            radar=self.options.radar,
            features=self.options.features,
            blocks=self.options.blocks,
            dilations=self.options.dilations,
            precision=self.precision,
        )
        load_weights(network, weights)
        self._run = compile_network(network)

    def _load_openvino(self, layers: Layers) -> None:
        from unveil.models.dsen2cr import openvino

        if self.precision == "int8":
            self._to_quantise, self.precision = layers, openvino.half_precision()
        self._unquantised = self.precision
        self._run = self._plain = openvino.compile_network(layers, precision=self.precision)

    def window_bytes_per_px(self) -> int:
        """Return the most memory of one pixel: hidden values held at once, and the images."""
        hidden = HIDDEN_BYTES[self.backend, self.precision] * self.options.features
        return hidden + IMAGES_HELD * self.options.channels * 4

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Find the fill values of the whole scene; for int8, calibrate on patches of it.

        Raises:
            SceneSkipped: if the target or the radar has no valid pixel.
        """
        moments = Moments()
        for tile in tiles:
            moments.add(*self._arrays(tile))
        if not moments.counts[0]:
            raise SceneSkipped("the target has no valid pixel")
        if self.options.radar and not moments.counts[1]:
            raise SceneSkipped("the radar frame has no valid pixel")
        self._fill = moments.fill()
        if self._to_quantise:
            self._quantise(scene, self._to_quantise, self._fill)

    def _quantise(self, scene: Scene, layers: Layers, fill: Fill) -> None:
        """Compute this scene in int8 if that costs little enough on patches of it."""
        from unveil.models.dsen2cr import int8

        self._run, self.precision = self._plain, self._unquantised
        calibration, held_out = (
            [patch for window in windows if (patch := self._patch(scene, window, fill)) is not None]
            for windows in int8.calibration_windows(scene.grid)
        )
        run, self.precision_note = int8.quantise(layers, calibration=calibration, held_out=held_out)
        if run is not None:
            self._run, self.precision = run, "int8"

    def _patch(self, scene: Scene, window: Window, fill: Fill) -> np.ndarray | None:
        """Return the network's input for one window, or None where the target has no data.

        It comes with its halo: what lies at the edge is judged as in the whole image.
        """
        outer = scene.grid.with_halo(window, self.receptive_field)
        target_dn, sar_db = self._arrays(read_inputs(scene, window=outer))
        if np.isnan(target_dn).all():
            return None
        return network_input(target_dn, sar_db, fill)[None]

    def predict(self, inputs: Inputs) -> Prediction:
        """Clear one window; NaN stays NaN, band by band.

        Without ``prepare`` the window itself gives the fill values.
        """
        if self._run is None:
            self.load()
        assert self._run is not None
        target_dn, sar_db = self._arrays(inputs)
        missing = np.isnan(target_dn)
        if missing.all():
            return Prediction(target_dn, bands=self.options.bands)
        fill = self._fill or fill_values(target_dn, sar_db)
        output = self._run(network_input(target_dn, sar_db, fill)[None])[0]
        reflectance = np.moveaxis(output, -1, 0) * np.float32(1 / UNITS_PER_REFLECTANCE)
        reflectance[missing] = np.nan
        return Prediction(reflectance, bands=self.options.bands)

    def _arrays(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the target in DN, ``(B, H, W)`` in the network's order, and the radar."""
        positions = band_positions(self.options.bands, inputs.bands)
        target_dn = inputs.target[positions] * np.float32(REFLECTANCE_SCALE)
        return target_dn, inputs.sar if self.options.radar else None


def read_options(spec: ModelSpec) -> Dsen2CrOptions:
    """Return the options of a row of the models table.

    Raises:
        InputError: naming the model, the option, its value and the values allowed.
    """
    written = dict(spec.options)
    if "bands" in written:
        written["bands"] = _parse_bands(spec, written["bands"])
    if "dilations" in written:
        written["dilations"] = _parse_dilations(spec, written["dilations"])
    options = parse_options(Dsen2CrOptions, replace(spec, options=written))
    for name in ("features", "blocks"):
        if getattr(options, name) < 1:
            raise option_error(spec, name, "give a whole number from 1")
    if options.origin:
        check_choice(spec, "origin", options.origin, ("published", "trained-here"))
    return options


def _parse_dilations(spec: ModelSpec, value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list | tuple) and all(type(one) is int and one > 0 for one in value)
    if not whole or not value:
        raise option_error(spec, "dilations", "give a list of whole numbers from 1")
    return tuple(value)


def _parse_bands(spec: ModelSpec, value: Any) -> tuple[str, ...]:
    try:
        bands = tuple(normalise_band_name(name) for name in value)
    except (ValueError, TypeError, AttributeError) as error:
        raise option_error(spec, "bands", f"give a list of ESA band names: {error}") from error
    if not bands or len(set(bands)) != len(bands):
        raise option_error(spec, "bands", "name each band once")
    return bands
