"""A series as a folder that source ``local`` reads: frames, masks, radar and ``scene.yaml``."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from rasterio.enums import Resampling
from rasterio.warp import transform

from unveil import raster
from unveil.bands import L1C13, NODATA, SAR2
from unveil.places.series import Series
from unveil.places.table import RECORD, Place
from unveil.raster import Grid
from unveil.records import write_record
from unveil.scene import is_clear

KINDS: Mapping[str, tuple[type, float, Resampling]] = {
    "frames": (np.uint16, 0, Resampling.average),
    "masks": (np.uint8, NODATA, Resampling.mode),
    "sar": (np.float32, float("nan"), Resampling.average),
}
"""Folder -> dtype, nodata and overviews of its rasters."""
Detect = Callable[[np.ndarray, tuple[str, ...]], np.ndarray]
"""Gives ``(H, W)`` classes for ``(B, H, W)`` reflectance and its band names."""


def write_place(place: Place, series: Series, folder: Path, *, detect: Detect) -> None:
    """Write a place as a folder; the record comes last.

    Args:
        place: the place.
        series: its dates.
        folder: where ``frames``, ``masks``, ``sar``, ``scene.yaml`` and the record are written.
        detect: finds the clouds of dates that come without any mask.
    """
    for kind in KINDS:
        shutil.rmtree(folder / kind, ignore_errors=True)
    series = with_masks(one_look_a_day(series), detect)
    grid = grid_around(series, place.pixel_m)
    for day, image, classes in zip(series.days, series.reflectance, series.classes, strict=True):
        known = np.isfinite(image).all(axis=0)
        _write(folder, "frames", day, np.where(known, raster.to_dn(image), 0), grid, series.bands)
        _write(folder, "masks", day, np.where(known, classes, NODATA)[None], grid, ("CLASS",))
    for day, image in zip(series.radar_days, series.radar, strict=True):
        _write(folder, "sar", day, image, grid, SAR2)
    _write_facts(place, series, folder)
    files = {name: raster.sha256(folder / name) for name in _files_of(folder)}
    write_record(folder / RECORD, {"place": place.id}, files=files, rule="make_place")


def one_look_a_day(series: Series) -> Series:
    """Return a series sorted by date; of two looks of a day the clearer stays."""
    known = np.isfinite(series.reflectance).all(axis=1)
    clear = (is_clear(series.classes) & known).mean(axis=(1, 2))
    best = {int(series.days[t]): t for t in np.argsort(clear, kind="stable")}
    kept = [best[day] for day in sorted(best)]
    radar = {int(day): t for t, day in enumerate(series.radar_days)}
    passes = [radar[day] for day in sorted(radar)]
    return replace(
        series,
        reflectance=series.reflectance[kept],
        classes=series.classes[kept],
        days=series.days[kept],
        radar=series.radar[passes],
        radar_days=series.radar_days[passes],
    )


def with_masks(series: Series, detect: Detect) -> Series:
    """Return a series whose dates of thirteen bands have masks: where one has none, as detected."""
    unknown = (series.classes == NODATA).all(axis=(1, 2))
    if not set(L1C13) <= set(series.bands):
        return series
    found = [
        detect(image, series.bands) if blind else classes
        for image, classes, blind in zip(series.reflectance, series.classes, unknown, strict=True)
    ]
    return replace(series, classes=np.stack(found))


def grid_around(series: Series, pixel_m: int) -> Grid:
    """Return a grid north up in UTM around the centre of a series.

    Scores know nothing of it; the map of the page does.
    """
    west, south, east, north = series.bbox
    zone = int((west + east) / 2 // 6) + 31
    crs = f"EPSG:{32600 + zone if south + north > 0 else 32700 + zone}"
    (x,), (y,) = transform("EPSG:4326", crs, [(west + east) / 2], [(south + north) / 2])
    height, width = series.classes.shape[1:]
    left = round(x / pixel_m - width / 2) * pixel_m
    top = round(y / pixel_m + height / 2) * pixel_m
    return Grid(crs, (float(pixel_m), 0.0, left, 0.0, -float(pixel_m), top), height, width)


def _files_of(folder: Path) -> list[str]:
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != RECORD)
    return sorted(str(path.relative_to(folder)) for path in paths)


def _iso(day: int) -> str:
    return dt.date.fromordinal(int(day)).isoformat()


def _write(
    folder: Path, kind: str, day: int, data: np.ndarray, grid: Grid, bands: tuple[str, ...]
) -> None:
    dtype, nodata, overviews = KINDS[kind]
    raster.write_cog(
        folder / kind / f"{_iso(day)}.tif",
        data.astype(dtype),
        grid,
        descriptions=bands,
        nodata=nodata,
        overviews=overviews,
    )


def _write_facts(place: Place, series: Series, folder: Path) -> None:
    facts = {
        "level": series.level,
        "offset": 0,
        "licence": place.licence,
        "place": place.id,
        "notes": ". ".join(
            filter(None, [place.title, place.notes, "Grid: UTM around the centre, north up"])
        ),
    }
    text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=96)
    (folder / "scene.yaml").write_text(text)
