"""Frames in order of time, each with its radar, for networks on sequences of images."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from unveil.bands import band_positions
from unveil.scene import Inputs

SAR_RANGE = (-25.0, 0.0)
"""Decibels, of VV and of VH, in the multi-temporal networks trained on SEN12MS-CR-TS."""


@dataclass(frozen=True)
class Sequence:
    """The target and its context in order of time.

    Attributes:
        reflectance: ``(T, B, H, W)`` float32, NaN where nodata.
        clear: ``(T, H, W)`` bool, the surface is seen.
        dates: ``(T,)`` acquisition dates.
        target: position of the target.
    """

    reflectance: np.ndarray
    clear: np.ndarray
    dates: tuple[dt.date, ...]
    target: int

    @property
    def nowhere(self) -> np.ndarray:
        """``(H, W)`` bool: pixels without data in every frame."""
        return np.isnan(self.reflectance).all(axis=(0, 1))


def sequence_of(inputs: Inputs, bands: tuple[str, ...], *, frames: int | None) -> Sequence:
    """Return the target and its nearest context frames, sorted by date.

    Args:
        inputs: one window.
        bands: bands to take, in this order.
        frames: longest sequence, the target counted; None takes all. Of two frames as far
            from the target, the earlier one is taken.
    """
    days = inputs.days
    nearest = np.lexsort((days, days > 0, np.abs(days)))[: None if frames is None else frames - 1]
    # Of frames on one day, the target comes last.
    order = sorted(nearest, key=lambda i: days[i])
    position = sum(days[i] <= 0 for i in order)
    positions = band_positions(bands, inputs.bands)
    images = [inputs.context[i][positions] for i in order]
    clear = [inputs.context_clear[i] for i in order]
    images.insert(position, inputs.target[positions])
    clear.insert(position, inputs.target_clear)
    offsets = np.insert(days[order].astype(float), position, 0.0)
    target_day = dt.date.fromisoformat(inputs.target_date)
    return Sequence(
        reflectance=np.stack(images),
        clear=np.stack(clear),
        dates=tuple(target_day + dt.timedelta(days=float(offset)) for offset in offsets),
        target=position,
    )


def scale_radar(sar_db: np.ndarray) -> np.ndarray:
    """Map VV and VH from -25...0 dB to 0...1; missing values become 0.

    Args:
        sar_db: ``(2, H, W)`` dB, NaN where missing.

    Returns:
        ``(2, H, W)`` float32.
    """
    low, high = SAR_RANGE
    scaled = (np.clip(sar_db, low, high) - low) / (high - low)
    return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


def pair_radar(inputs: Inputs, dates: tuple[dt.date, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the radar frame nearest to each optical date; of two as near, the earlier.

    Args:
        inputs: one window, read with the radar of its frames.
        dates: ``(T,)`` optical dates.

    Returns:
        ``(T, 2, H, W)`` float32 of :func:`scale_radar` and ``(T,)`` float32 days by which
        the radar is later than the optical frame.

    Raises:
        ValueError: if the inputs come without radar dates.
    """
    if inputs.sar_series is None or inputs.sar_days is None:
        raise ValueError("the inputs come without radar dates")
    target = dt.date.fromisoformat(inputs.target_date)
    optical_days = np.array([(date - target).days for date in dates], np.float32)
    later = inputs.sar_days[None] - optical_days[:, None]
    nearest = np.lexsort((later, np.abs(later)))[:, 0]
    frames = np.stack([scale_radar(inputs.sar_series[i]) for i in nearest])
    return frames, later[np.arange(len(dates)), nearest]
