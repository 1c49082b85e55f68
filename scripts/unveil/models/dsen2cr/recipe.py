"""The recipe of DSen2-CR's data: ranges, units, and what stands for missing pixels.

Meraner et al. 2020 (see :class:`unveil.models.dsen2cr.model.Dsen2Cr`), section 3, and the
published code for the stand-ins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unveil.bands import REFLECTANCE_SCALE, SAR2

OPTICAL_RANGE = (0.0, 10_000.0)
"""Digital numbers."""
OPTICAL_SCALE = 2_000.0
"""Digital numbers per network unit."""
UNITS_PER_REFLECTANCE = REFLECTANCE_SCALE / OPTICAL_SCALE
SAR_RANGES = {"VV": (-25.0, 0.0), "VH": (-32.5, 0.0)}
"""Decibels."""
SAR_MAXIMUM = 2.0
"""Network units of the upper end of the radar ranges."""


@dataclass(frozen=True)
class Fill:
    """Values that stand for missing pixels: one for all bands of a raster, as published.

    Attributes:
        optical: mean of all bands and valid pixels of the target, in DN.
        sar: mean of both polarisations over valid pixels, in dB.
    """

    optical: float
    sar: float


def fill_values(target_dn: np.ndarray, sar_db: np.ndarray | None) -> Fill:
    """Return the published stand-ins for missing pixels of one image.

    Args:
        target_dn: DN of any shape, NaN where missing.
        sar_db: dB of any shape, NaN where missing; None without radar.
    """
    moments = Moments()
    moments.add(target_dn, sar_db)
    return moments.fill()


class Moments:
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
