"""Writing the rasters of a scene: target, context, radar, truth and delivered masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling

from unveil import raster
from unveil.assembly.protocols.base import MadeTarget
from unveil.config import SceneRow
from unveil.raster import Grid
from unveil.scene import Frame
from unveil.sources.base import SourceRaster, SourceSeries

LOG = logging.getLogger(__name__)


def write_scene(
    row: SceneRow,
    series: SourceSeries,
    target: MadeTarget,
    *,
    context: Sequence[str],
    radar: Sequence[str],
    folder: Path,
) -> Iterator[Frame]:
    """Write the frames of a scene, one after another.

    Args:
        row: row of the scene table, with a date.
        series: the opened source.
        target: what its protocol made.
        context: dates of the context.
        radar: dates of the radar.
        folder: the scene's folder.
    """
    yield from _write_target(target, row.target_date, series.grid, folder)
    for number, date in enumerate(context, 1):
        path = folder / "frames" / f"{date}.tif"
        frame = _write(series.optical[date], series.grid, path, date, "context")
        mask = _write_mask(series.masks.get(date), series.grid, folder, date)
        yield replace(frame, mask=mask)
        LOG.info("%s: frame %d of %d written", row.scene, number, len(context))
    for date in radar:
        path = folder / "sar" / f"{date}.tif"
        yield _write(series.radar[date], series.grid, path, date, "radar")


def _write_target(target: MadeTarget, date: str, grid: Grid, folder: Path) -> Iterator[Frame]:
    """Write a target and its truth.

    By construction the occlusion raster says where a withheld truth is known; the truth of
    another date carries the mask of its own.
    """
    frame = _write(target.raster, grid, folder / "frames" / f"{date}.tif", date, "target")
    yield replace(frame, mask=_write_mask(target.mask, grid, folder, date))
    if target.reference:
        day = target.reference_date or date
        path = folder / "truth" / "reference.tif"
        reference = _write(target.reference, grid, path, day, "reference")
        mask = _write_mask(target.reference_mask, grid, folder, f"reference_{day}")
        yield replace(reference, mask=mask)
    if target.occlusion:
        path = folder / "truth" / "occlusion.tif"
        yield _write(target.occlusion, grid, path, date, "occlusion")


def _write_mask(mask: SourceRaster | None, grid: Grid, folder: Path, name: str) -> Path | None:
    if mask is None:
        return None
    path = folder / "source_masks" / f"{name}.tif"
    _write(mask, grid, path, name, "mask")
    return path


def _write(source: SourceRaster, grid: Grid, path: Path, date: str, role: str) -> Frame:
    dtype = {"radar": "float32", "mask": "uint8", "occlusion": "uint8"}.get(role, "uint16")
    with raster.cog_writer(
        path,
        grid,
        dtype=dtype,
        descriptions=source.bands,
        nodata={"float32": np.nan, "uint16": 0, "uint8": None}[dtype],
        overviews=Resampling.nearest if dtype == "uint8" else Resampling.average,
    ) as writer:
        for window in grid.windows():
            writer.write(source.read(window).astype(dtype), window=window)
    return Frame(date, role, path, source.bands, None, dict(source.facts), raster.sha256(path))
