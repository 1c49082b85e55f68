"""The class raster: one vocabulary for every detector and every delivered mask.

Codes are in :mod:`unveil.bands`: clear, cloud, shadow, snow, nodata.
"""

from __future__ import annotations

import numpy as np

from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, SNOW
from unveil.distance import distance_from
from unveil.errors import InputError

HIDDEN_GROWTH_PX = 2
"""Pixels by which a delivered mask of cloud and shadow is grown before it says what is hidden;
fixed, so that no setting of the masks stage moves what is scored or which dates are chosen."""
RIM_PX = 20
"""Pixels around what is hidden that a mask calls clear and that haze and missed cloud brighten."""

SCL_TO_CLASS: dict[int, int] = {
    0: NODATA,  # no data
    1: NODATA,  # saturated or defective
    2: CLEAR,  # dark area, topographic shadow
    3: SHADOW,  # cloud shadow
    4: CLEAR,  # vegetation
    5: CLEAR,  # not vegetated
    6: CLEAR,  # water
    7: CLEAR,  # unclassified
    8: CLOUD,  # cloud, medium probability
    9: CLOUD,  # cloud, high probability
    10: CLOUD,  # thin cirrus
    11: SNOW,  # snow or ice
}
"""Sen2Cor scene classification to classes (ESA, Sentinel-2 L2A ATBD, table of SCL)."""


def from_delivered(data: np.ndarray, band: str) -> np.ndarray:
    """Translate a delivered mask raster to classes, ``(H, W)`` uint8.

    Args:
        data: ``(H, W)`` integers.
        band: ``SCL`` or ``CLASS``.

    Raises:
        InputError: if the band name is neither, or a value is not in its vocabulary.
    """
    if band == "SCL":
        table = SCL_TO_CLASS
    elif band == "CLASS":
        table = {code: code for code in (CLEAR, CLOUD, SHADOW, SNOW, NODATA)}
    else:
        raise InputError(
            f"mask band {band!r}", field="band description", remedy="describe it as SCL or CLASS"
        )
    unknown = sorted(set(np.unique(data).tolist()) - set(table))
    if unknown:
        raise InputError(
            f"{band} values {unknown[:5]}", field=band, remedy=f"use values of {sorted(table)}"
        )
    lookup = np.full(256, NODATA, np.uint8)
    for value, code in table.items():
        lookup[value] = code
    return lookup[data.astype(np.uint8)]


def dilate(classes: np.ndarray, pixels: int) -> np.ndarray:
    """Grow shadow, then cloud, by a square of ``2 pixels + 1``; nodata stays.

    Detectors miss the thin rims of clouds; growing them is the usual remedy (Baetens et
    al. 2019, Remote Sensing 11:433).
    """
    if pixels <= 0:
        return classes.copy()
    from scipy.ndimage import maximum_filter  # lazy: a dry run never dilates

    grown = classes.copy()
    for code in (SHADOW, CLOUD):
        grown[maximum_filter(classes == code, 2 * pixels + 1, mode="constant")] = code
    grown[classes == NODATA] = NODATA
    return grown


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return which pixels lie within a distance of a true one, ``(H, W)`` bool."""
    return distance_from(mask, reach=pixels + 1) <= pixels
