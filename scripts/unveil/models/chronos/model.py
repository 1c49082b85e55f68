"""Chronos: Unveil's open time-series network.

Closed-form answers of the scene (:mod:`unveil.models.chronos.experts`) are weighed and corrected by
a small network (:mod:`unveil.models.chronos.network`) that was trained here on other places.
It takes any bands, 1...24 frames on any dates and radar when there is some, and gives a
standard deviation. TensorFlow is imported when a network is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.chronos.experts import LONGEST, REACH_PX, SceneFit, estimate, fit_scene
from unveil.models.layers.padding import pad_to_grid, unpad
from unveil.models.options import check_choice, parse_options
from unveil.scene import Inputs, Scene
from unveil.weights.arrays import check_shapes, check_values, read_arrays

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
SENSOR_STD = 0.003
"""Standard deviation of a clear pixel that is passed through, reflectance: noise and
calibration of the instrument (Gascon et al. 2017, Remote Sens. 9:584) and thin haze."""
CALIBRATION = "calibration"
"""Array of the weights file: two factors of the standard deviation, found on held-out places, for
scenes with clear target pixels and for overcast ones."""
KEEP = ("true", "false", "blend")
ADAPT = ("none", "scene")


@dataclass(frozen=True)
class ChronosOptions:
    """Options of the network.

    Attributes:
        size: ``small``, ``base`` or ``large``.
        keep_clear: clear target pixels are passed through (``true``), predicted like the
            others (``false``), or averaged with the prediction by their variances (``blend``).
        adapt: ``none``, or ``scene`` to learn on the scene's own clear pixels first.
        adapt_minutes: most time that this may take.
        calibrate: ``scene`` to check the standard deviation on the scene's own clear pixels,
            ``none`` to take it as the places of the training left it.
    """

    size: str = "small"
    keep_clear: str = "true"
    adapt: str = "none"
    adapt_minutes: float = 3.0
    calibrate: str = "scene"


class Chronos(Model):
    """The open time-series network with weights trained here."""

    kind = "chronos"
    citation = (
        "Unveil's own time-series network, weights trained here; see docs/models.md. Its "
        "attention over time is after Sainte Fare Garnot & Landrieu 2021, Panoptic Segmentation "
        "of Satellite Image Time Series, arXiv:2107.07933."
    )
    network = True
    backend = "tensorflow"
    origin = "trained-here"

    def __init__(self, spec: ModelSpec) -> None:
        from unveil.models.chronos.network import SIZES, UNET_REACH_PX

        super().__init__(spec)
        choices = {"size": tuple(SIZES), "keep_clear": KEEP, "adapt": ADAPT, "calibrate": ADAPT}
        for name, allowed in choices.items():
            check_choice(spec, name, getattr(self.options, name), allowed)
        self.receptive_field = REACH_PX + UNET_REACH_PX
        self._network: keras.Model | None = None
        self._run: Callable[..., np.ndarray] | None = None
        self._trained: list[np.ndarray] = []
        self._fit: SceneFit | None = None

    def read_options(self, spec: ModelSpec) -> ChronosOptions:
        """Return the options; YAML reads the ``true`` of ``keep_clear`` as a bool."""
        keep = spec.options.get("keep_clear", "true")
        written = spec.options | {"keep_clear": str(keep).lower()}
        return parse_options(ChronosOptions, replace(spec, options=written))

    @property
    def needs(self) -> Needs:
        """At least one context frame; radar joins the regression where there is some."""
        return Needs(radar="optional", min_context=1, max_context=LONGEST, target=False)

    def load(self) -> None:
        """Load the weights.

        Raises:
            InputError: if they are missing, damaged or of another size.
        """
        from unveil.models.chronos.network import build_network, compile_network, network_arrays

        named = read_arrays(self.weights)
        network = build_network(self.options.size)
        start = network_arrays(network)
        check_shapes(named, {name: a.shape for name, a in start.items()} | {CALIBRATION: (2,)})
        check_values(named)
        self._trained = [named.arrays[name] for name in start]
        network.set_weights(self._trained)
        self._trained_factors = named.arrays[CALIBRATION]
        self.weights_checksum = named.sha256
        self._network, self._run = network, compile_network(network)

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Fit the closed forms of the scene; adapt and calibrate the network when asked to."""
        from unveil.models.chronos.adaptation import adapt, calibrate

        self._fit = fit_scene(tiles, pixels=scene.grid.pixels)
        if self._network is None:
            self.load()
        assert self._network is not None
        rounds = 0
        if self.options.adapt == "scene":
            self._network.set_weights(self._trained)
            rounds = adapt(self._network, tiles, minutes=self.options.adapt_minutes)
        self._factor = float(self._trained_factors[0 if self._fit.pixels else 1])
        if self.options.calibrate == "scene":
            self._factor = calibrate(self._network, tiles, factor=self._factor, adapted=rounds > 0)

    def predict(self, inputs: Inputs) -> Prediction:
        """Clear one window; NaN where the target has no data."""
        if self._run is None:
            self.load()
        assert self._fit is not None, "prepare comes first"
        reflectance, std = self._estimate(inputs, self._fit)
        if self.options.keep_clear == "true":
            clear = inputs.target_clear
            reflectance = np.where(clear, inputs.target, reflectance)
            std = np.where(clear, np.float32(SENSOR_STD), std)
        elif self.options.keep_clear == "blend":
            reflectance, std = blended(inputs, reflectance, std)
        valid = np.isfinite(inputs.target).all(axis=0)
        return Prediction(
            np.where(valid, np.clip(reflectance, 0, None), np.nan).astype(np.float32),
            np.where(valid, std, np.nan).astype(np.float32),
        )

    def _estimate(self, inputs: Inputs, fit: SceneFit) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's reflectance and standard deviation, band after band."""
        from unveil.models.chronos.network import STEP, network_inputs

        assert self._run is not None, "load comes first"
        evidence = estimate(inputs, fit)
        given = network_inputs(inputs, fit, evidence)
        result = []
        for band in range(len(inputs.bands)):
            one = slice(band, band + 1)
            spatial = [
                _on_grid(np.moveaxis(given.pixels[one], -1, 1), inputs, STEP),
                _on_grid(np.moveaxis(given.deltas[one], -1, 1), inputs, STEP),
            ]
            arrays = [np.moveaxis(a, 1, -1) for a in spatial]
            arrays += [_on_grid(a[one], inputs, STEP) for a in (given.views, given.clear)]
            output = self._run(*arrays, given.frames[one], given.error[one])
            result.append(
                unpad(
                    np.moveaxis(output[0], -1, 0),
                    origin=inputs.origin,
                    step=STEP,
                    shape=inputs.shape,
                )
            )
        change, log_scale = np.stack(result, axis=1)
        unit = given.scale[:, None, None]
        return evidence.experts[0] + change * unit, np.exp(log_scale) * unit * self._factor


def blended(
    inputs: Inputs, reflectance: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the average of clear target pixels and prediction, weighed by inverse variance."""
    seen, foreseen = SENSOR_STD**-2, np.maximum(std, 1e-4) ** -2.0
    mean = (np.nan_to_num(inputs.target) * seen + reflectance * foreseen) / (seen + foreseen)
    clear = inputs.target_clear
    joint = np.sqrt(1 / (seen + foreseen))
    return np.where(clear, mean, reflectance), np.where(clear, joint, std)


def _on_grid(images: np.ndarray, inputs: Inputs, step: int) -> np.ndarray:
    return np.ascontiguousarray(
        pad_to_grid(images, origin=inputs.origin, step=step, least=2 * step)
    )
