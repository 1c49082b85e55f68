"""Clear real images for training: fetched from packages, read in the bands wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from unveil import raster
from unveil.bands import BANDS, CLEAR, CORE6, NODATA, band_positions
from unveil.guarded import reading_input
from unveil.places.packages import fetch_archive, unpack
from unveil.places.series import Series, load_series
from unveil.raster import Grid
from unveil.scene import is_clear


def fetch_image(facts: Mapping[str, Any], *, cache: Path, output: Path) -> None:
    """Fetch a 13-band image that a package distributes and write it as one COG.

    Bands of 20 m and 60 m go to the 10 m grid of B02 by nearest neighbour.

    Args:
        facts: ``package``, ``version``, ``sha256`` of the archive, and ``files``, the path in
            the archive with ``{band}`` for the ESA name.
        cache: folder of archives.
        output: the COG, uint16 reflectance x 10000, nodata 0, bands described by ESA name.

    Raises:
        InputError: if the archive cannot be had or lacks a band.
    """
    name, version = facts["package"], facts["version"]
    archive = fetch_archive(name, version, sha256=facts["sha256"], cache=cache)
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        paths = {band: Path(folder) / facts["files"].format(band=band) for band in BANDS}
        with raster.open_raster(paths["B02"]) as dataset:
            grid = raster.grid_of(dataset)
        stack = np.stack([_read_on_grid(path, grid) for path in paths.values()])
    raster.write_cog(
        output,
        stack,
        grid,
        descriptions=tuple(paths),
        nodata=0,
        tags={"LICENCE": facts["licence"], "SOURCE": f"{name} {version}", "LEVEL": facts["level"]},
    )


def read_core_image(path: Path) -> np.ndarray:
    """Return the six core bands of a clear image, ``(6, H, W)`` float32, 0 where nodata.

    Args:
        path: a raster of DN x 10000 with ESA band descriptions, or the ``.npz`` of a series,
            of which the clearest date is taken.
    """
    if path.suffix == ".npz":
        series = load_series(path, name=path.stem)
        clearest = int(is_clear(series.classes).mean(axis=(1, 2)).argmax())
        positions = band_positions(CORE6, series.bands)
        return np.nan_to_num(series.reflectance[clearest, positions])
    with (
        reading_input(path, "an image to train on", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        positions = band_positions(CORE6, [str(text) for text in dataset.descriptions])
        return np.nan_to_num(raster.to_reflectance(dataset.read([p + 1 for p in positions])))


def read_clear_image(path: Path, *, name: str, weight: float) -> Series:
    """Return a clear image of :func:`fetch_image` as a series of one date, all its bands."""
    with (
        reading_input(path, "an image to train on", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        bands = tuple(map(str, dataset.descriptions))
        values, level = dataset.read(), dataset.tags().get("LEVEL", "L1C")
    classes = np.where((values > 0).all(axis=0), CLEAR, NODATA).astype(np.uint8)
    reflectance = raster.to_reflectance(values)[None]
    west, south, east, north = image_bbox(path)
    days, box = np.zeros(1, int), (west, south, east, north)
    return Series(name, bands, reflectance, classes[None], days, box, weight, level=level)


def image_bbox(path: Path) -> list[float]:
    """Return west, south, east, north of an image in degrees."""
    if path.suffix == ".npz":
        return [round(value, 5) for value in load_series(path, name=path.stem).bbox]
    with (
        reading_input(path, "an image to train on", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        found = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return [round(value, 5) for value in found]


def _read_on_grid(path: Path, grid: Grid) -> np.ndarray:
    """Read one band on a grid by nearest neighbour; 0 beyond it, valid DN at least 1."""
    values = np.zeros(grid.shape, np.int32)
    with raster.open_raster(path) as dataset:
        reproject(
            np.maximum(dataset.read(1), 1).astype(np.int32),
            values,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=grid.affine,
            dst_crs=grid.crs,
            resampling=Resampling.nearest,
        )
    return values.astype(np.uint16)
