"""The rasters of a cloud-free date: image, standard deviation, provenance, and a preview."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp, Resampling

from unveil import raster
from unveil.bands import REFLECTANCE_SCALE
from unveil.cloudfree import provenance
from unveil.cloudfree.area import Inside
from unveil.raster import Grid
from unveil.scene import Scene

COLOURS = {"B04": ColorInterp.red, "B03": ColorInterp.green, "B02": ColorInterp.blue}
BROWSE_PX = 640
"""Longest side of a preview."""
STRETCH = (2.0, 98.0)


@dataclass(frozen=True)
class Written:
    """What was written of one date.

    Attributes:
        files: asset -> file.
        shares: class of :data:`unveil.cloudfree.provenance.CLASSES` by name -> share of the pixels
            of the place; ``no_value`` where the model has no answer.
        statistics: band -> minimum, maximum, mean, stddev of reflectance, and valid percent.
        spread: median of the standard deviations of filled pixels, reflectance; None without any.
    """

    files: dict[str, Path]
    shares: dict[str, float]
    statistics: dict[str, dict[str, float]]
    spread: float | None


class _Moments:
    """Sums for the statistics of bands, ``(B,)`` float64 each."""

    def __init__(self, bands: int) -> None:
        self.count, self.total, self.squared = (np.zeros(bands) for _ in range(3))
        self.least, self.most = np.full(bands, np.inf), np.full(bands, -np.inf)

    def add(self, dn: np.ndarray) -> None:
        """Add a window ``(B, H, W)`` of DN, 0 for nodata."""
        values, valid = dn.astype(np.float64), dn > 0
        self.count += valid.sum((1, 2))
        self.total += values.sum((1, 2))
        self.squared += (values**2).sum((1, 2))
        self.least = np.minimum(self.least, np.where(valid, values, np.inf).min((1, 2)))
        self.most = np.maximum(self.most, values.max((1, 2)))

    def of(self, band: int, pixels: int) -> dict[str, float]:
        """Return the statistics of a band in DN; empty without a value."""
        count = self.count[band]
        if not count:
            return {}
        mean = self.total[band] / count
        variance = max(0.0, self.squared[band] / count - mean**2)
        return {
            "minimum": float(self.least[band]),
            "maximum": float(self.most[band]),
            "mean": float(mean),
            "stddev": float(np.sqrt(variance)),
            "valid_percent": round(100 * float(count) / pixels, 2),
        }


def write_images(
    scene: Scene,
    image: Path,
    std: Path | None,
    folder: Path,
    *,
    inside: Inside,
    tags: Mapping[str, str],
) -> Written:
    """Write the rasters of a date, window by window.

    Args:
        scene: the scene, ready for models.
        image: the model's answer, uint16 DN.
        std: its standard deviation, uint16 DN, if it gives any.
        folder: the date's folder.
        inside: which pixels belong to the place.
        tags: what is said in the files, such as date and model.
    """
    with raster.open_raster(image) as dataset:
        bands = tuple(dataset.descriptions)
    moments = _Moments(len(bands))
    counts = np.zeros(max(provenance.CLASSES) + 2, np.int64)
    spread: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        traced = stack.enter_context(_trace_writer(folder / "provenance.tif", scene.grid, tags))
        pixels = stack.enter_context(_dn_writer(folder / "bands.tif", scene.grid, bands, tags))
        spreads = (
            stack.enter_context(_dn_writer(folder / "std.tif", scene.grid, bands, tags))
            if std
            else None
        )
        for window in scene.grid.windows():
            within = inside.of(window)
            dn = np.where(within, raster.read(image, window=window), 0).astype(np.uint16)
            answered = np.asarray((dn > 0).all(axis=0))
            origin = provenance.trace(scene, window, answered)
            layers = np.where(within, origin.bands, provenance.NODATA).astype(np.int16)
            pixels.write(dn, window=window)
            traced.write(layers, window=window)
            moments.add(dn)
            counts += np.bincount(layers[0][within] + 1, minlength=len(counts))
            if std and spreads:
                values = np.where(within, raster.read(std, window=window), 0).astype(np.uint16)
                spreads.write(values, window=window)
                filled = (layers[0] == provenance.FILLED) & (values > 0).all(axis=0)
                spread.append(values.mean(axis=0)[filled])
        statistics = {
            name: moments.of(number, int(counts.sum())) for number, name in enumerate(bands)
        }
        _set_statistics(pixels, statistics)
    found = np.concatenate(spread) if spread else np.empty(0)
    files = {"bands": folder / "bands.tif", "provenance": folder / "provenance.tif"}
    if std:
        files["std"] = folder / "std.tif"
    return Written(
        files,
        _shares(counts),
        statistics,
        float(np.median(found)) / REFLECTANCE_SCALE if len(found) else None,
    )


@contextlib.contextmanager
def _dn_writer(
    path: Path, grid: Grid, bands: Sequence[str], tags: Mapping[str, str]
) -> Iterator[rasterio.io.DatasetWriter]:
    """Write reflectance as uint16 with scale and offset in the file."""
    with raster.cog_writer(
        path,
        grid,
        dtype="uint16",
        descriptions=bands,
        nodata=0,
        tags=dict(tags),
        compress="deflate",
    ) as writer:
        writer.scales = (1 / REFLECTANCE_SCALE,) * len(bands)
        writer.offsets = (0.0,) * len(bands)
        writer.units = ("reflectance",) * len(bands)
        writer.colorinterp = [COLOURS.get(name, ColorInterp.undefined) for name in bands]
        yield writer


@contextlib.contextmanager
def _trace_writer(
    path: Path, grid: Grid, tags: Mapping[str, str]
) -> Iterator[rasterio.io.DatasetWriter]:
    with raster.cog_writer(
        path,
        grid,
        dtype="int16",
        descriptions=provenance.BANDS,
        nodata=provenance.NODATA,
        tags=dict(tags),
        overviews=Resampling.nearest,
        compress="deflate",
    ) as writer:
        writer.units = ("class", "days", "looks")
        names = {str(code): name for code, (name, _) in provenance.CLASSES.items()}
        writer.update_tags(1, **{f"CLASS_{code}": name for code, name in names.items()})
        yield writer


def _set_statistics(
    writer: rasterio.io.DatasetWriter, statistics: Mapping[str, Mapping[str, float]]
) -> None:
    """Write the statistics of every band as GDAL reads them, in DN."""
    for number, found in enumerate(statistics.values(), 1):
        writer.update_tags(number, **{f"STATISTICS_{k.upper()}": v for k, v in found.items()})


def _shares(counts: np.ndarray) -> dict[str, float]:
    """Return the share of every class from counts of class + 1."""
    total = max(int(counts.sum()), 1)
    shares = {name: int(counts[code + 1]) / total for code, (name, _) in provenance.CLASSES.items()}
    return {name: round(share, 4) for name, share in shares.items()} | {
        "no_value": round(int(counts[0]) / total, 4)
    }


# --- previews ------------------------------------------------------------------------------


def shown_bands(bands: Sequence[str]) -> tuple[str, str, str]:
    """Return the bands of red, green and blue; of images without these, the last three or one."""
    if {"B04", "B03", "B02"} <= set(bands):
        return ("B04", "B03", "B02")
    found = list(bands[-3:]) if len(bands) >= 3 else [bands[-1]] * 3
    return (found[-1], found[len(found) // 2], found[0])


def read_small(path: Path, bands: Sequence[str], shown: Sequence[str]) -> np.ndarray:
    """Read bands of an image at the size of a preview, ``(3, h, w)`` float32 DN, NaN nodata."""
    with raster.open_raster(path) as dataset:
        scale = min(1.0, BROWSE_PX / max(dataset.shape))
        shape = tuple(max(1, round(side * scale)) for side in dataset.shape)
        numbers = [list(bands).index(name) + 1 for name in shown]
        data = dataset.read(numbers, out_shape=(3, *shape), resampling=Resampling.average)
    return np.where(data == 0, np.nan, data).astype(np.float32)


def stretch_of(image: np.ndarray) -> list[tuple[float, float]]:
    """Return the DN of black and white of each band of a preview."""
    if not np.isfinite(image).any():
        return [(0.0, 1.0)] * len(image)
    limits = []
    for band in image:
        low, high = np.nanpercentile(band, STRETCH)
        limits.append((float(low), float(max(high, low + 1))))
    return limits


def paint(image: np.ndarray, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return ``(h, w, 4)`` uint8 RGBA of a preview, transparent without data."""
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*limits, strict=True))
    seen = np.isfinite(image).all(axis=0)
    scaled = np.clip((np.nan_to_num(image) - low) / (high - low), 0, 1) * 255
    return np.dstack([*scaled.astype(np.uint8), seen * np.uint8(255)])


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGBA image, whole or not at all."""
    with raster.replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", optimize=True)
