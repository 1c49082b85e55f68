"""Excess over the ground: what thin cloud, haze and rims add to an image.

The ground of an image is the geometric median of other dates of its place, which count the more
the nearer in time and the farther from their own clouds they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unveil.bands import REFLECTANCE_SCALE
from unveil.composites import geometric_median

DAYS = 30.0
"""Time constant of the ground's weights exp(-days / 30): land changes within a season."""
HAZE_PX = 20.0
"""Constant of the weights 1 - exp(-px / 20) by the distance from a date's own cloud and shadow:
nearer pixels of it are hazy themselves, and would hide a third of the excess."""
TRUSTED_PX = 60
"""Distance beyond which pixels are trusted alike."""
SIGMA_PX = 2.0
"""Width of the Gaussian that smooths an excess."""
REACH_PX = 8
"""Pixels that it looks at on each side."""
EXCESS_OFFSET = -1.0
"""Excess of a stored 0, were that not nodata."""
MOST_DN = 65535


def ground_of(
    looks: np.ndarray, clear: np.ndarray, *, days: Sequence[int], distance: np.ndarray
) -> np.ndarray:
    """Return the ground that other dates tell, ``(B, H, W)`` float64, NaN where none is clear.

    It is their geometric median, weighted exp(-days / 30) times 1 - exp(-px / 20) of their
    distance from cloud.

    Args:
        looks: ``(T, B, H, W)`` reflectance or DN of other dates.
        clear: ``(T, H, W)`` bool, where these are to be used.
        days: ``(T,)`` days between each of them and the date whose ground it is.
        distance: ``(T, H, W)`` pixels from the cloud and shadow of these, at least 1 where clear.
    """
    known = clear & np.isfinite(looks).all(axis=1)
    flat = np.where(known[:, None], looks, 0.0).reshape(*looks.shape[:2], -1).astype(np.float64)
    seen = known.reshape(len(looks), -1)
    near = np.exp(-np.abs(np.asarray(days, np.float64)) / DAYS)[:, None]
    weights = near * -np.expm1(-distance.reshape(len(looks), -1) / HAZE_PX)
    ground = geometric_median(flat, seen, weights=weights)
    ground[:, ~seen.any(axis=0)] = np.nan
    return ground.reshape(looks.shape[1:])


def smooth_excess(
    excess: np.ndarray, use: np.ndarray, *, sigma: float = SIGMA_PX, reach: int = REACH_PX
) -> np.ndarray:
    """Smooth an excess by a normalised Gaussian over the pixels to be used, ``(B, H, W)``.

    Both signs are kept. It is NaN where no pixel within reach is known.

    Args:
        excess: ``(B, H, W)``, NaN where unknown.
        use: ``(H, W)``, what each pixel weighs; those of 0 or False lend nothing to others.
        sigma: width of the Gaussian in pixels.
        reach: pixels that it looks at on each side.
    """
    from scipy.ndimage import gaussian_filter  # lazy: a dry run smooths nothing

    known = np.isfinite(excess).all(axis=0)
    share = np.where(known, use, 0).astype(np.float64)
    kernel = {"sigma": sigma, "mode": "constant", "radius": reach}
    weight = gaussian_filter(share, **kernel)
    total = np.stack(
        [gaussian_filter(np.where(share > 0, band, 0.0) * share, **kernel) for band in excess]
    )
    enough = weight > 1e-9
    return np.where(enough, total / np.where(enough, weight, 1.0), np.nan)


def excess_to_dn(excess: np.ndarray) -> np.ndarray:
    """Return an excess in reflectance as uint16 ``10000 (excess + 1)``, 0 where it is NaN."""
    known = np.isfinite(excess)
    dn = np.rint((np.where(known, excess, 0.0) - EXCESS_OFFSET) * REFLECTANCE_SCALE)
    return np.where(known, np.clip(dn, 1, MOST_DN), 0).astype(np.uint16)


def excess_of_dn(dn: np.ndarray) -> np.ndarray:
    """Return the excess in reflectance that :func:`excess_to_dn` stored, float32, NaN for 0."""
    excess = dn / np.float32(REFLECTANCE_SCALE) + np.float32(EXCESS_OFFSET)
    return np.where(dn == 0, np.float32(np.nan), excess)
