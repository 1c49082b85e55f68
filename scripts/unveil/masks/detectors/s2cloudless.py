"""Cloud probability of s2cloudless (Sentinel Hub): gradient-boosted trees on single pixels.

Trained on Sentinel-2 L1C, ten bands, reflectance 0...1 (Zupanc 2017, "Improving cloud
detection with machine learning"; intercomparison: Skakun et al. 2022, Remote Sensing of
Environment 274:112990). It knows no shadows, and takes bright lakes, sand and snow for
cloud now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from unveil.bands import S2CLOUDLESS10, band_positions
from unveil.errors import InputError

if TYPE_CHECKING:
    from s2cloudless import S2PixelCloudDetector

HIGHEST_MEDIAN = 2.0
"""Median reflectance that no Sentinel-2 image reaches: beyond, values are unscaled DN."""


def refusal(bands: Sequence[str], level: str) -> str | None:
    """Return why s2cloudless cannot judge such an image, or None when it can."""
    if level == "L2A":
        return "s2cloudless is trained on L1C, this is L2A"
    missing = [name for name in S2CLOUDLESS10 if name not in bands]
    return f"s2cloudless needs {', '.join(missing)}" if missing else None


def cloud_probability(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return the cloud probability 0...1, ``(H, W)`` float32, NaN where a band has no data.

    Args:
        reflectance: ``(B, H, W)`` float32 L1C reflectance, NaN where nodata.
        bands: names of its bands, at least ``S2CLOUDLESS10``.

    Raises:
        KeyError: naming the bands that are missing.
        InputError: if the values are too large for reflectance. The trees would call
            everything cloud without complaint.
    """
    ten = reflectance[band_positions(S2CLOUDLESS10, bands)]
    valid = np.isfinite(ten).all(axis=0)
    probability = np.full(valid.shape, np.nan, np.float32)
    if not valid.any():
        return probability
    pixels = ten[:, valid]
    median = float(np.median(pixels))
    if median > HIGHEST_MEDIAN:
        raise InputError(
            f"median reflectance {median:g}; s2cloudless needs reflectance 0...1",
            field="reflectance",
            remedy="divide digital numbers by 10000 (set the scale of the source)",
        )
    columns = np.ascontiguousarray(pixels.T)[np.newaxis, np.newaxis]
    probability[valid] = _detector().get_cloud_probability_maps(columns)[0, 0]
    return probability


def cloud_mask(probability: np.ndarray, *, threshold: float, average_over: int) -> np.ndarray:
    """Return where the probability, averaged over a disk, exceeds the threshold.

    Args:
        probability: ``(H, W)`` float32, NaN where unknown (counts as 0).
        threshold: 0...1.
        average_over: radius of the disk in pixels, 0 for none.
    """
    from s2cloudless import S2PixelCloudDetector  # lazy: loads LightGBM

    known = np.nan_to_num(probability, nan=0.0)[np.newaxis]
    detector = S2PixelCloudDetector(
        threshold=threshold, average_over=average_over, dilation_size=None
    )
    return detector.get_mask_from_prob(known)[0].astype(bool)


@lru_cache(maxsize=1)
def _detector() -> S2PixelCloudDetector:
    from s2cloudless import S2PixelCloudDetector  # lazy: loads LightGBM

    return S2PixelCloudDetector()
