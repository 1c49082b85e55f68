"""The threshold cloud and shadow mask of DSen2-CR.

Cloud score: Schmitt et al. 2019, "Aggregating cloud-free Sentinel-2 images with Google
Earth Engine" (ISPRS Annals IV-2/W7, 145-152), as used by Meraner et al. 2020 (ISPRS J.
166:333-346, section 3.1). Each test rescales a quantity linearly so that 1 is surely cloud
and 0 surely not; the score of a pixel is its weakest test. Shadow: Zhai et al. 2018 (ISPRS
J. 144:235-253): dark in near and short-wave infrared and in blue, against thresholds
between the minimum and the mean *of the image given*. A crop therefore has other shadows
than the full image, and dark surfaces of a cloudless image pass the test too: the caller
must know that there are clouds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window
from scipy import ndimage

from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, band_positions
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import Frame, read_reflectance

BANDS: tuple[str, ...] = ("B01", "B02", "B03", "B04", "B08", "B10", "B11")
CLOUD_THRESHOLD = 0.2
HALO = 8
"""Pixels on each side that a result depends on: closing 4, box filter 3; median 2."""

SHADOW_REACH_PX = 300
"""Farthest a shadow may lie from a detected cloud: 3 km at 10 m, low and middle clouds."""
SHADOW_PER_CLOUD = 2.0
"""Largest believable ratio of shadow to cloud area; parallel light makes it 1, and clouds
outside the frame or on top of each other's shadows shift it."""

_CLOSING, _BOX, _MEDIAN = 5, 7, 5
_SCORE_FLOOR = 1e-5
_CSI_SHARE = 3 / 4
_BLUE_SHARE = 5 / 6
_SHADOW_BANDS = ("B02", "B08", "B11")


@dataclass(frozen=True)
class ShadowStatistics:
    """Statistics of an image that its shadow test is relative to, in reflectance.

    Attributes:
        csi_min: minimum of the cloud shadow index (mean of B08 and B11).
        csi_mean: its mean.
        blue_min: minimum of B02.
        blue_mean: its mean.
    """

    csi_min: float
    csi_mean: float
    blue_min: float
    blue_mean: float


class Thresholds(Detector):
    """Cloud and shadow of 13 L1C bands; of shadow, what a cloud in reach can cast."""

    name = "thresholds"
    tells = frozenset(("cloud", "shadow"))
    last_resort = True
    halo_px = HALO

    def __init__(self, frame: Frame, grid: Grid, options: MaskOptions, *, level: str) -> None:
        super().__init__(frame, grid, options, level=level)
        blocks = (read_reflectance(frame, _SHADOW_BANDS, window) for window in grid.windows())
        self.statistics = shadow_statistics(blocks, _SHADOW_BANDS)

    @classmethod
    def refusal(cls, frame: Frame, level: str) -> str | None:
        """Refuse frames without its bands."""
        missing = [name for name in BANDS if name not in frame.bands]
        return f"thresholds needs {', '.join(missing)}" if missing else None

    def vote(self, reflectance: np.ndarray, window: Window, asked: frozenset[str]) -> Votes:
        """Return the pixels that pass the tests of cloud and shadow."""
        found = {}
        if "cloud" in asked:
            found["cloud"] = cloud_score(reflectance, self.frame.bands) > CLOUD_THRESHOLD
        if "shadow" in asked and self.statistics:
            found["shadow"] = shadow(reflectance, self.frame.bands, self.statistics)
        return Votes.none(reflectance.shape[1:], **found)

    def settle(self, votes: Votes) -> list[str]:
        """Drop shadows that no detected cloud can cast.

        The test calls the darkest part of any image shadow: 5 to 47 % of cloudless SEN12MS-CR
        patches (forest, sea). A shadow needs a cloud within reach and of about its size.
        """
        before = int(np.count_nonzero(votes.shadow))
        if not before:
            return []
        votes.shadow[:] &= near(votes.cloud, SHADOW_REACH_PX) & ~votes.cloud & ~votes.missing
        clouds = int(np.count_nonzero(votes.cloud & ~votes.missing))
        if np.count_nonzero(votes.shadow) > SHADOW_PER_CLOUD * clouds:
            votes.shadow[:] = False
        if votes.shadow.any():
            return []
        share = 100 * before / votes.shadow.size
        return [f"no cloud could cast the {share:.1f} % found dark; shadow not used"]


def cloud_score(
    reflectance: np.ndarray, bands: Sequence[str], *, moisture: bool = False
) -> np.ndarray:
    """Return the cloud score 1e-5...1, ``(H, W)`` float32; nodata counts as no cloud.

    Args:
        reflectance: ``(B, H, W)`` float32 top-of-atmosphere reflectance, NaN where nodata.
        bands: names of its bands.
        moisture: also test the moisture index of B08 and B11, which spares dry bright soil.

    Raises:
        KeyError: naming the bands that are missing.
    """
    closed = close_gaps(raw_score(reflectance, bands, moisture=moisture))
    # float64: running sums of float32 drift. Beyond the image there is no cloud.
    smooth = ndimage.uniform_filter(closed.astype(np.float64), _BOX, mode="constant")
    return np.clip(smooth, _SCORE_FLOOR, 1).astype(np.float32)


def raw_score(
    reflectance: np.ndarray, bands: Sequence[str], *, moisture: bool = False
) -> np.ndarray:
    """Return the weakest of the cloud tests, ``(H, W)`` float32, at most 1, 0 where nodata."""
    b01, b02, b03, b04, b08, b10, b11 = reflectance[band_positions(BANDS, bands)]
    tests = [
        _rescale(b02, 0.1, 0.5),  # bright in blue
        _rescale(b01, 0.1, 0.3),  # bright in the aerosol band
        _rescale(b01 + b10, 0.15, 0.2),  # ... and in the cirrus band
        _rescale(b04 + b03 + b02, 0.2, 0.8),  # bright in the visible
        _rescale(_normalised_difference(b03, b11), 0.8, 0.6),  # no snow
    ]
    if moisture:
        tests.append(_rescale(_normalised_difference(b08, b11), -0.1, 0.1))
    score = np.minimum(np.minimum.reduce(tests), np.float32(1))
    return np.where(np.isnan(score), np.float32(0), score)


def close_gaps(score: np.ndarray) -> np.ndarray:
    """Return the score after a grey closing of 5 x 5, which fills dark gaps within clouds."""
    return ndimage.grey_closing(score, size=(_CLOSING, _CLOSING))


def shadow_statistics(
    blocks: Iterable[np.ndarray], bands: Sequence[str]
) -> ShadowStatistics | None:
    """Gather the statistics of an image from ``(B, H, W)`` blocks that do not overlap.

    Returns None when no pixel has data. Accumulates in float64.
    """
    lowest, total, count = np.full(2, np.inf), np.zeros(2), 0
    for block in blocks:
        both = np.stack(_darkness(block, bands))
        both = both[:, np.isfinite(both).all(axis=0)]
        if both.size:
            lowest = np.minimum(lowest, both.min(axis=1))
            total += both.sum(axis=1, dtype=np.float64)
            count += both.shape[1]
    if not count:
        return None
    mean = total / count
    return ShadowStatistics(*(float(v) for v in (lowest[0], mean[0], lowest[1], mean[1])))


def shadow_candidates(
    reflectance: np.ndarray, bands: Sequence[str], statistics: ShadowStatistics
) -> np.ndarray:
    """Return dark pixels before the median filter, ``(H, W)`` bool; nodata is not shadow."""
    csi, blue = _darkness(reflectance, bands)
    csi_limit = statistics.csi_min + _CSI_SHARE * (statistics.csi_mean - statistics.csi_min)
    blue_limit = statistics.blue_min + _BLUE_SHARE * (statistics.blue_mean - statistics.blue_min)
    return (csi < csi_limit) & (blue < blue_limit)


def shadow(
    reflectance: np.ndarray, bands: Sequence[str], statistics: ShadowStatistics
) -> np.ndarray:
    """Return cloud shadow, ``(H, W)`` bool: the candidates after a 5 x 5 median."""
    dark = shadow_candidates(reflectance, bands, statistics).astype(np.uint8)
    # The median of zeros and ones is what most of them are; counting is many times faster.
    ones = np.ones(_MEDIAN, np.uint8)
    for axis in (0, 1):
        dark = ndimage.correlate1d(dark, ones, axis=axis, mode="constant")
    return dark > _MEDIAN**2 // 2


def threshold_mask(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return the mask of DSen2-CR for a whole image, ``(H, W)`` uint8 classes.

    Cloud wins over shadow; NaN pixels are nodata.

    Args:
        reflectance: ``(B, H, W)`` float32 top-of-atmosphere reflectance, NaN where nodata.
        bands: names of its bands, at least :data:`BANDS`.

    Raises:
        KeyError: naming the bands that are missing.
    """
    classes = np.full(reflectance.shape[1:], CLEAR, np.uint8)
    statistics = shadow_statistics([reflectance], bands)
    if statistics:
        classes[shadow(reflectance, bands, statistics)] = SHADOW
    classes[cloud_score(reflectance, bands) > CLOUD_THRESHOLD] = CLOUD
    classes[np.isnan(reflectance[band_positions(BANDS, bands)]).any(axis=0)] = NODATA
    return classes


def _rescale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values - np.float32(low)) / np.float32(high - low)


def _normalised_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    total = first + second
    return (first - second) / np.where(total == 0, np.float32(0.001), total)


def _darkness(reflectance: np.ndarray, bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    blue, nir, swir = reflectance[band_positions(_SHADOW_BANDS, bands)]
    return (nir + swir) / 2, blue


def near(mask: np.ndarray, reach: int, *, cell: int = 16) -> np.ndarray:
    """Return pixels within about ``reach`` of a true pixel, judged on cells of ``cell``."""
    rows, cols = (-(-size // cell) for size in mask.shape)
    padded = np.zeros((rows * cell, cols * cell), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    coarse = padded.reshape(rows, cell, cols, cell).any(axis=(1, 3))
    if not coarse.any():
        return np.zeros(mask.shape, bool)
    close = ndimage.distance_transform_edt(~coarse) * cell <= reach
    full = np.repeat(np.repeat(close, cell, axis=0), cell, axis=1)
    return full[: mask.shape[0], : mask.shape[1]]
