"""Writing the rasters of a scene: target, context, radar, truth and delivered masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling

from unveil import raster
from unveil.assembly.protocols.base import MadeTarget
from unveil.assembly.scored import Judge, scored_set
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.scene import DECLARED_CLEAR, Frame
from unveil.sources.base import SourceRaster, SourceSeries


def write_context(series: SourceSeries, date: str, folder: Path) -> Frame:
    """Write one date of the context with its mask; nothing is left of one that cannot be read.

    Args:
        series: the opened source.
        date: the date.
        folder: the scene's folder.

    Raises:
        InputError: if it cannot be read.
    """
    path = folder / "frames" / f"{date}.tif"
    try:
        frame = _write(series.optical[date], series.grid, path, date, "context")
        return _with_mask(frame, series.masks.get(date), series.grid, folder)
    except InputError:
        path.unlink(missing_ok=True)
        raise


def discard(frame: Frame) -> None:
    """Remove what was written of a frame."""
    for path in (frame.path, frame.mask):
        if path is not None:
            path.unlink(missing_ok=True)


def write_radar(series: SourceSeries, date: str, folder: Path) -> Frame:
    """Write the radar of one date, as :func:`write_context` does the context."""
    path = folder / "sar" / f"{date}.tif"
    return _write(series.radar[date], series.grid, path, date, "radar")


def write_target(
    target: MadeTarget, date: str, grid: Grid, folder: Path, *, level: str, judge: Judge
) -> Iterator[Frame]:
    """Write a target, its truth, and what of them is scored.

    Args:
        target: what its protocol made.
        date: of the target.
        grid: of the scene.
        folder: the scene's folder.
        level: ``L1C`` or ``L2A``.
        judge: finds the clouds of target and truth where no mask is delivered.
    """
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
