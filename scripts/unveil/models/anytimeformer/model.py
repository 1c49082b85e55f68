"""AnytimeFormer: every pixel's series, optical and radar, read out on the target's day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from unveil.bands import band_positions
from unveil.models.anytimeformer.network import BANDS, DAYS, compile_network, expected_shapes
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.scene import Inputs, Scene
from unveil.weights.read import read_state

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
    backend = "tensorflow"
    origin = "published"
    receptive_field = 0
    radar_dates = "all"
    options_type = AnytimeFormerOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
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
        if inputs.sar_series is None or inputs.sar_days is None:
            raise ValueError("the inputs come without radar dates")
        if self._run is None:
            self.load()
        assert self._run is not None
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
    assert inputs.sar_series is not None and inputs.sar_days is not None
    frames, days = _within_year(inputs.target_date, inputs.days)
    radar_frames, radar_days = _within_year(inputs.target_date, inputs.sar_days)
    target_day = _within_year(inputs.target_date, np.zeros(1))[1]
    days = np.concatenate([days, target_day])
    positions = np.array(band_positions(BANDS, inputs.bands))
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
                normalise_radar(np.moveaxis(radar[np.ix_(radar_frames, np.arange(2), part)], 2, 0)),
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
