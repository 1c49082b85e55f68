r"""Stored numbers: what the numbers of a raster mean, and which of them mean nothing.

Every source, and every delivered result, comes through here. Optical numbers become DN
(reflectance x 10000, 0 for nodata), radar numbers dB (NaN for nodata).

.. math:: \rho = (number + offset) / quantification

A number is fill where the file's own nodata tag says so, where it is 0, not finite, 65535 or
the largest number of its type, or where no surface can have it: reflectance below
:data:`DARKEST` (so are -9999 and its kin) or above :data:`BRIGHTEST`, backscatter of exactly
0 dB in all bands, or beyond :data:`FAINTEST` ... :data:`STRONGEST`. Between :data:`DARKEST` and
0 lies what atmospheric correction makes of dark surfaces; it becomes DN 1, the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from unveil import raster
from unveil.bands import REFLECTANCE_SCALE
from unveil.errors import InputError

DN_NODATA, DN_SATURATED = 0, 65_535
DARKEST, BRIGHTEST = -0.05, 4.0
"""Reflectance of pixels. The darkest percent of a band does not lie below the first either;
sunlit cloud and snow stay below 2, glints below the second."""
BRIGHTEST_MEDIAN = 2.0
"""Reflectance that half of an image of one band does not exceed."""
FAINTEST, STRONGEST = -90.0, 50.0
"""Backscatter of pixels in dB; radars see nothing below -50."""
BEYOND_FLOATS = 1e6
"""Larger floats are fill: they are neither reflectance nor DN."""


@dataclass(frozen=True)
class Stored:
    """How a raster stores reflectance, band by band.

    Attributes:
        quantification: numbers per unit reflectance.
        offset: what is added to numbers before they are divided.
        nodata: nodata tags of the file; None where it has none.
        tagged: whether scale or offset are the file's own tags.
    """

    quantification: tuple[float, ...]
    offset: tuple[float, ...]
    nodata: tuple[float | None, ...]
    tagged: bool = False

    def of(self, order: Sequence[int]) -> Stored:
        """Return the same for a selection of bands, by position."""
        return replace(
            self,
            quantification=tuple(self.quantification[k] for k in order),
            offset=tuple(self.offset[k] for k in order),
            nodata=tuple(self.nodata[k] for k in order),
        )


def plainly(bands: int, *, quantification: float = REFLECTANCE_SCALE, offset: float = 0) -> Stored:
    """Return how numbers without tags are stored, the same for every band."""
    return Stored((quantification,) * bands, (offset,) * bands, (None,) * bands)


def stored_in(dataset: rasterio.DatasetReader, file: str | Path, *, unit: float = 0) -> Stored:
    """Return how an open raster stores reflectance, by its type and its own tags.

    Args:
        dataset: the raster.
        file: named in errors.
        unit: numbers per unit reflectance where no tag says; 0 is 10000 of integers, 1 of floats.

    Raises:
        InputError: for numbers of 8 bit, which are made for viewing.
    """
    require_deep(np.dtype(dataset.dtypes[0]), file)
    plain = unit or (REFLECTANCE_SCALE if np.issubdtype(dataset.dtypes[0], np.integer) else 1)
    quantification, offset = [], []
    for scale, shift in zip(dataset.scales, dataset.offsets, strict=True):
        # An offset without a scale is in the numbers' own unit.
        quantification.append(plain if scale in (0, 1) else float(f"{1 / scale:.12g}"))
        offset.append(float(f"{shift / (1 if scale == 0 else scale):.12g}"))
    tagged = any(scale != 1 for scale in dataset.scales) or any(dataset.offsets)
    return Stored(tuple(quantification), tuple(offset), tuple(dataset.nodatavals), tagged)


def require_deep(dtype: np.dtype, file: str | Path) -> None:
    """Refuse numbers of 8 bit, which cannot be reflectance.

    Raises:
        InputError: naming the file and the remedy.
    """
    if dtype.kind not in "fiu" or dtype.itemsize == 1:
        raise InputError(
            f"holds {dtype} numbers, as exports for viewing do",
            file=file,
            field="dtype",
            remedy="export reflectance x 10000 as uint16, or reflectance as float32",
        )


def is_fill(numbers: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray:
    """Return where numbers are fill by a tag or by convention, ``(B, H, W)`` bool.

    Args:
        numbers: ``(B, H, W)`` as stored.
        nodata: tag of every band.
    """
    fill = (numbers == DN_NODATA) | (numbers == DN_SATURATED)
    if numbers.dtype.kind == "f":
        fill |= ~np.isfinite(numbers) | (np.abs(numbers) >= BEYOND_FLOATS)
    else:
        fill |= numbers == np.iinfo(numbers.dtype).max
    return fill | is_tagged(numbers, nodata)


def is_tagged(numbers: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray:
    """Return where numbers equal the nodata tag of their band, ``(B, H, W)`` bool."""
    found = np.zeros(numbers.shape, bool)
    for band, tag in enumerate(nodata):
        if tag is None:
            continue
        with np.errstate(over="ignore"):  # tags of 64 bit in files of 32
            found[band] = numbers[band] == (
                numbers.dtype.type(tag) if numbers.dtype.kind == "f" else tag
            )
        if np.isnan(tag):
            found[band] |= np.isnan(numbers[band])
    return found


def to_dn(numbers: np.ndarray, stored: Stored) -> np.ndarray:
    """Return what a raster holds as DN, 0 where it is fill or cannot be reflectance.

    Args:
        numbers: ``(B, H, W)`` as stored.
        stored: how.

    Returns:
        ``(B, H, W)`` uint16, reflectance x 10000, at least 1 where there is data.
    """
    fill = is_fill(numbers, stored.nodata)
    scaled = _scaled(np.where(fill, numbers.dtype.type(0), numbers), stored)
    lowest, highest = DARKEST * REFLECTANCE_SCALE, BRIGHTEST * REFLECTANCE_SCALE
    nothing = fill | (scaled < lowest) | (scaled > highest)
    return np.where(nothing, DN_NODATA, np.maximum(scaled, 1)).astype(np.uint16)


def _scaled(numbers: np.ndarray, stored: Stored) -> np.ndarray:
    """Return reflectance x 10000, rounded; small integers are kept in 32 bits."""
    offset, quantification = (
        np.array(each, np.float64)[:, None, None] for each in (stored.offset, stored.quantification)
    )
    whole = (quantification == REFLECTANCE_SCALE).all() and (offset == np.rint(offset)).all()
    if whole and numbers.dtype.kind in "iu":
        width = np.int32 if numbers.dtype.itemsize < 4 else np.int64
        return numbers.astype(width) + offset.astype(width)
    shifted = numbers.astype(np.float64) + offset
    return np.rint(shifted * (REFLECTANCE_SCALE / quantification))


def read_dn(numbers: np.ndarray, stored: Stored, *, file: str | Path) -> np.ndarray:
    """Return what a file holds as DN (:func:`to_dn`), if it can be reflectance at all.

    Raises:
        InputError: if half of a band would be brighter than :data:`BRIGHTEST_MEDIAN`.
    """
    require_deep(numbers.dtype, file)
    if numbers.dtype == np.float16:  # which cannot hold what is compared with
        numbers = numbers.astype(np.float32)
    for band, median in enumerate(medians(numbers, stored)):
        if median > BRIGHTEST_MEDIAN:
            raise InputError(
                f"median reflectance of band {band + 1} would be {median:.3g}",
                file=file,
                field="unit",
                remedy="float frames hold reflectance 0...1, integer frames reflectance x 10000; "
                "convert the file, or correct its scale",
            )
    return to_dn(numbers, stored)


def read_reflectance(
    path: str | Path, *, window: Window | None = None, unit: float = 0
) -> np.ndarray:
    """Read a raster of reflectance, ``(B, H, W)`` DN as :func:`read_dn` gives them.

    Args:
        path: the raster.
        window: part of it.
        unit: as in :func:`stored_in`.

    Raises:
        InputError: if the file is missing or damaged, or cannot hold reflectance.
    """
    with raster.open_raster(path) as dataset:
        stored = stored_in(dataset, path, unit=unit)
        return read_dn(dataset.read(window=window), stored, file=path)


def medians(numbers: np.ndarray, stored: Stored) -> list[float]:
    """Return the median reflectance of every band, fill left out; NaN where nothing is left."""
    fill = is_fill(numbers, stored.nodata)
    found = []
    for image, empty, offset, quantification in zip(
        numbers, fill, stored.offset, stored.quantification, strict=True
    ):
        reflectance = (image[~empty].astype(np.float64) + offset) / quantification
        kept = reflectance[reflectance >= DARKEST]
        found.append(float(np.median(kept)) if kept.size else np.nan)
    return found


def to_decibel_or_nan(numbers: np.ndarray, nodata: Sequence[float | None] = ()) -> np.ndarray:
    """Return backscatter in dB as float32, NaN where a number is fill or no backscatter.

    0 dB is fill where all bands have it; in one band it is where datasets clip bright targets.

    Args:
        numbers: ``(B, H, W)`` dB as stored.
        nodata: tag of every band, if the file has any.
    """
    decibel = numbers.astype(np.float32)
    with np.errstate(invalid="ignore"):
        heard = (decibel > FAINTEST) & (decibel < STRONGEST) & (decibel != 0).any(axis=0)
    return np.where(heard & ~is_tagged(numbers, nodata), decibel, np.float32(np.nan))


def read_radar(path: str | Path, *, window: Window | None = None) -> np.ndarray:
    """Read the bands of a radar raster, ``(B, H, W)`` float32 dB, NaN where it holds fill.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with raster.open_raster(path) as dataset:
        return to_decibel_or_nan(dataset.read(window=window), dataset.nodatavals)
