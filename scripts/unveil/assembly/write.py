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
from unveil.assembly.scored import Judge, scored_set
from unveil.config import SceneRow
from unveil.raster import Grid
from unveil.scene import DECLARED_CLEAR, Frame
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
    judge: Judge,
) -> Iterator[Frame]:
    """Write the frames of a scene, one after another.

    Args:
        row: row of the scene table, with a date.
        series: the opened source.
        target: what its protocol made.
        context: dates of the context.
        radar: dates of the radar.
        folder: the scene's folder.
        judge: finds the clouds of target and truth where no mask is delivered.
    """
    level = str(series.facts.get("level", ""))
    yield from _write_target(target, row.target_date, series.grid, folder, level=level, judge=judge)
    for number, date in enumerate(context, 1):
        path = folder / "frames" / f"{date}.tif"
        frame = _write(series.optical[date], series.grid, path, date, "context")
        yield _with_mask(frame, series.masks.get(date), series.grid, folder)
        LOG.info("%s: frame %d of %d written", row.scene, number, len(context))
    for date in radar:
        path = folder / "sar" / f"{date}.tif"
        yield _write(series.radar[date], series.grid, path, date, "radar")


def _write_target(
    target: MadeTarget, date: str, grid: Grid, folder: Path, *, level: str, judge: Judge
) -> Iterator[Frame]:
    """Write a target, its truth, and what of them is scored."""
    frame = _write(target.raster, grid, folder / "frames" / f"{date}.tif", date, "target")
    frame = _with_mask(frame, target.mask, grid, folder)
    yield frame
    if target.reference is None:
        return
    day = target.reference_date or date
    path = folder / "truth" / "reference.tif"
    truth = _write(target.reference, grid, path, day, "reference")
    truth = _with_mask(truth, target.reference_mask, grid, folder)
    yield truth
    scored = scored_set(frame, truth, target.occlusion, grid=grid, level=level, judge=judge)
    yield _write(scored, grid, folder / "truth" / "occlusion.tif", date, "occlusion")


def _with_mask(frame: Frame, mask: SourceRaster | None, grid: Grid, folder: Path) -> Frame:
    """Write the delivered mask of a frame, if there is one, and return the frame with it."""
    if mask is None:
        return frame
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "source_masks" / f"{name}.tif"
    _write(mask, grid, path, frame.date, "mask")
    said = {key: mask.facts[key] for key in (DECLARED_CLEAR,) if key in mask.facts}
    return replace(frame, mask=path, facts={**frame.facts, **said})


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
