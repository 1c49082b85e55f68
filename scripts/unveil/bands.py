"""Sentinel-2 bands by their ESA names, band sets, and mask classes.

Wavelengths and resolutions: Sentinel-2 MSI User Guide (ESA), spectral response
functions v3.1, mean of Sentinel-2A and 2B. The whole package names bands; nobody
indexes them by a bare number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """One spectral band of the MultiSpectral Instrument (MSI)."""

    name: str
    common_name: str
    wavelength_nm: float
    resolution_m: int


BANDS: dict[str, Band] = {
    band.name: band
    for band in (
        Band("B01", "coastal", 442.5, 60),
        Band("B02", "blue", 492.2, 10),
        Band("B03", "green", 559.4, 10),
        Band("B04", "red", 664.8, 10),
        Band("B05", "rededge071", 704.0, 20),
        Band("B06", "rededge075", 739.8, 20),
        Band("B07", "rededge078", 781.3, 20),
        Band("B08", "nir", 832.9, 10),
        Band("B8A", "nir08", 864.4, 20),
        Band("B09", "nir09", 944.1, 60),
        Band("B10", "cirrus", 1375.2, 60),
        Band("B11", "swir16", 1612.1, 20),
        Band("B12", "swir22", 2193.9, 20),
    )
}

L1C13: tuple[str, ...] = tuple(BANDS)
L2A12: tuple[str, ...] = tuple(name for name in BANDS if name != "B10")
CORE6: tuple[str, ...] = ("B02", "B03", "B04", "B08", "B8A", "B11")
RGBN4: tuple[str, ...] = ("B02", "B03", "B04", "B08")
S2CLOUDLESS10: tuple[str, ...] = (
    "B01",
    "B02",
    "B04",
    "B05",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
)
SAR2: tuple[str, ...] = ("VV", "VH")

REFLECTANCE_SCALE = 10_000
"""Digital numbers per unit reflectance after the baseline offset is harmonised."""

# Classes of the mask raster (band CLASS); one vocabulary for every detector.
CLEAR, CLOUD, SHADOW, SNOW, NODATA = 0, 1, 2, 3, 255
OCCLUDED_CLASSES: tuple[int, ...] = (CLOUD, SHADOW)
UNKNOWN_PROBABILITY = 255


def normalise_band_name(name: str) -> str:
    """Return the ESA name of a band written ``B2``, ``b02``, ``B8a`` or ``B02``.

    Raises:
        ValueError: if ``name`` is no Sentinel-2 band; the message lists the names.
    """
    text = name.strip().upper()
    if text.startswith("B") and text[1:].isdigit():
        text = f"B{int(text[1:]):02d}"
    if text not in BANDS:
        raise ValueError(f"unknown Sentinel-2 band {name!r}; use one of {', '.join(BANDS)}")
    return text


def sort_bands(names: Iterable[str]) -> tuple[str, ...]:
    """Return band names in ESA order (B01 ... B8A ... B12)."""
    order = list(BANDS)
    return tuple(sorted(names, key=order.index))


def band_positions(wanted: Sequence[str], available: Sequence[str]) -> list[int]:
    """Return the positions of ``wanted`` bands within ``available``.

    Raises:
        KeyError: naming every band that is missing.
    """
    missing = [name for name in wanted if name not in available]
    if missing:
        raise KeyError(f"bands {', '.join(missing)} are missing; available: {', '.join(available)}")
    return [list(available).index(name) for name in wanted]
