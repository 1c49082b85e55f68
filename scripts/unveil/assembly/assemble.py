"""Protocols: where the truth of a scene comes from, and how its target is made.

``paired``
    a cloudy target and another image as reference (as in SEN12MS-CR);
``transplant``
    a clear date is withheld, and real cloud and shadow pixels of another date of the same
    place are put on it: the withheld image is the exact truth;
``simulate``
    as transplant with generated clouds, where there is no cloudy date;
``none``
    no truth; only the image is wanted.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import Resampling
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.assembly.simulated_clouds import (
    CloudVeil,
    SimulatedClouds,
    simulate_clouds,
    visible_bands,
)
from unveil.bands import CLEAR, NODATA, REFLECTANCE_SCALE, S2CLOUDLESS10
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.scene import Frame, Scene, cloud_cover, is_clear, is_occluded
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.selection import choose_context, choose_radar

LOG = logging.getLogger(__name__)

CLEAR_SHARE = 0.97
"""Share of clear pixels from which a date may be withheld as truth."""


@dataclass(frozen=True)
class ProtocolSettings:
    """What protocols need from the config.

    Attributes:
        seed: seed of random choices.
        dilate_px: growth of delivered cloud and shadow classes, as in the masks stage.
    """

    seed: int
    dilate_px: int


@dataclass(frozen=True)
class _Target:
    """The made target: what is written for it, block by block."""

    raster: SourceRaster
    mask: SourceRaster | None
    reference: SourceRaster | None
    reference_date: str
    occlusion: np.ndarray | None  # (H, W) uint8
    facts: dict[str, Any]
    donor_date: str = ""


def assemble(
    row: SceneRow, series: SourceSeries, folder: Path, settings: ProtocolSettings
) -> Scene:
    """Write the rasters of a scene and return it.

    Args:
        row: row of the scene table, with a date.
        series: the opened source.
        folder: the scene's folder; ``frames``, ``sar``, ``truth`` and ``source_masks`` are
            written in it.
        settings: seed and dilation.

    Raises:
        InputError: when the row asks for what the source does not have.
    """
    if row.target_date not in series.optical:
        raise InputError(
            f"no frame of {row.target_date}; there are {_listed(series.optical)}",
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="use one of these dates",
        )
    make = {
        "paired": _paired,
        "transplant": _transplant,
        "simulate": _simulate,
        "none": _without_truth,
    }[row.protocol]
    target = make(row, series, settings)
    # The lender of the clouds stays out of the context: models must not see them twice.
    excluded = {row.target_date, target.reference_date, target.donor_date}
    dates = choose_context(list(series.optical), row.target_date, row.n_context, excluded)
    LOG.info("%s: target %s, context %s", row.scene, row.target_date, ", ".join(dates) or "none")
    frames = list(_write_target(row, series, target, folder))
    for number, date in enumerate(dates, 1):
        frames.append(_write_frame(series, date, folder))
        LOG.info("%s: frame %d of %d written", row.scene, number, len(dates))
    frames += [
        _write_radar(series, date, folder)
        for date in choose_radar(list(series.radar), row.target_date, dates)
    ]
    facts = {**series.facts, **target.facts, "source": row.source, "path": row.path}
    return Scene(row.scene, row.protocol, series.place, series.grid, tuple(frames), facts)


def scene_seed(seed: int, scene: str) -> np.random.Generator:
    """Return a generator that depends on the run's seed and the scene's id only."""
    digest = hashlib.sha256(scene.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


# --- the four protocols ---------------------------------------------------------------


def _without_truth(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> _Target:
    date = row.target_date
    return _Target(series.optical[date], series.masks.get(date), None, "", None, {})


def _paired(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> _Target:
    plain = _without_truth(row, series, settings)
    if row.reference_date:
        if row.reference_date not in series.optical or row.reference_date == row.target_date:
            raise InputError(
                f"{row.reference_date} is not another date of {_listed(series.optical)}",
                file=row.path,
                field=f"scene {row.scene}: reference_date",
                remedy="use one of these dates",
            )
        reference = series.optical[row.reference_date]
        return replace(plain, reference=reference, reference_date=row.reference_date)
    if series.reference is None:
        known = series.facts.get("no_reference", "the source has no cloud-free image")
        return replace(plain, facts={"no_reference": known})
    return replace(plain, reference=series.reference)


def _transplant(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> _Target:
    _require_mask(row, series, row.target_date)
    donor = row.cloud_date or _choose_donor(row, series, settings)
    _require_mask(row, series, donor)
    if donor == row.target_date or donor not in series.optical:
        raise InputError(
            f"{donor} cannot lend its clouds to {row.target_date}",
            file=row.path,
            field=f"scene {row.scene}: cloud_date",
            remedy=f"use another date of {_listed(series.optical)}",
        )
    truth, clouds = series.optical[row.target_date], series.optical[donor]
    if truth.bands != clouds.bands:
        raise InputError(
            f"the bands of {donor} differ from those of {row.target_date}",
            file=row.path,
            field=f"scene {row.scene}: cloud_date",
            remedy="choose a donor with the same bands",
        )
    whole = Window(0, 0, series.grid.width, series.grid.height)
    own, lent = (_classes(series.masks[d], whole) for d in (row.target_date, donor))
    hidden = is_occluded(classmap.dilate(lent, settings.dilate_px))
    hidden &= _has_data(clouds, series.grid)
    own_clear = is_clear(classmap.dilate(own, settings.dilate_px))
    grown = classmap.dilate(lent, settings.dilate_px)
    occlusion = np.where(hidden, grown, CLEAR).astype(np.uint8)
    occlusion[~own_clear | ~_has_data(truth, series.grid)] = NODATA
    mask = np.where(hidden, np.where(is_occluded(lent), lent, CLEAR), own).astype(np.uint8)

    def read(window: Window) -> np.ndarray:
        rows, cols = window.toslices()
        return np.where(hidden[rows, cols], clouds.read(window), truth.read(window))

    return _Target(
        raster=SourceRaster(truth.bands, read, truth.facts),
        mask=_mask_from(mask),
        reference=truth,
        reference_date=row.target_date,
        occlusion=occlusion,
        facts={"cloud_date": donor, "occluded": round(cloud_cover(occlusion), 4)},
        donor_date=donor,
    )


def _simulate(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> _Target:
    date = row.target_date
    truth = series.reference or series.optical[date]
    rng = scene_seed(settings.seed, row.scene)
    clouds = simulate_clouds(series.grid.shape, cover=float(row.cloud_level), rng=rng)
    whole = Window(0, 0, series.grid.width, series.grid.height)
    ambient, known = _brightness(truth, series.grid)
    veil = CloudVeil(clouds, bands=truth.bands, ambient=ambient, rng=rng)
    own = _classes(series.masks[date], whole) if date in series.masks else None
    occlusion = clouds.classes.copy()
    if own is not None:
        known &= is_clear(classmap.dilate(own, settings.dilate_px))
    occlusion[~known] = NODATA

    def read(window: Window) -> np.ndarray:
        clear = raster.to_reflectance(truth.read(window))
        return raster.to_dn(veil.over(clear, window.toslices()))

    return _Target(
        raster=SourceRaster(truth.bands, read, truth.facts),
        mask=_simulated_mask(truth.bands, clouds, own),
        reference=truth,
        reference_date=date,
        occlusion=occlusion,
        facts={"occluded": round(cloud_cover(occlusion), 4)},
    )


def _simulated_mask(
    bands: Sequence[str], clouds: SimulatedClouds, own: np.ndarray | None
) -> SourceRaster | None:
    """Deliver the generator's classes where no detector could find the clouds."""
    if own is None and set(S2CLOUDLESS10) <= set(bands):
        return None  # the masks stage detects them, as it would real ones
    base = np.zeros_like(clouds.classes) if own is None else own
    mask = np.where(is_occluded(clouds.classes), clouds.classes, base).astype(np.uint8)
    return replace(_mask_from(mask), facts={"unveil:mask_from": "cloud generator"})


# --- choosing dates -------------------------------------------------------------------


def _choose_donor(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> str:
    whole = Window(0, 0, series.grid.width, series.grid.height)
    covers = {
        date: cloud_cover(classmap.dilate(_classes(mask, whole), settings.dilate_px))
        for date, mask in series.masks.items()
        if date in series.optical and date != row.target_date
    }
    return choose_donor(covers, float(row.cloud_level), scene_seed(settings.seed, row.scene))


def choose_donor(
    covers: dict[str, float], level: float, rng: np.random.Generator, *, tolerance: float = 0.05
) -> str:
    """Return a date whose cover is within ``tolerance`` of ``level``, by chance; else the nearest.

    Raises:
        InputError: without any candidate.
    """
    if not covers:
        raise InputError(
            "no date with a mask could lend its clouds",
            field="cloud_date",
            remedy="add cloudy frames with masks, or use protocol simulate",
        )
    near = sorted(date for date, cover in covers.items() if abs(cover - level) <= tolerance)
    if near:
        return str(rng.choice(near))
    return min(covers, key=lambda date: (abs(covers[date] - level), date))


def _require_mask(row: SceneRow, series: SourceSeries, date: str) -> None:
    if date not in series.masks:
        raise InputError(
            f"transplant needs a mask of {date}, there is none",
            file=Path(row.path) / "masks",
            field=f"scene {row.scene}",
            remedy=f"add masks/{date}.tif (SCL or CLASS), or use protocol simulate",
        )


# --- writing --------------------------------------------------------------------------


def _write_target(
    row: SceneRow, series: SourceSeries, target: _Target, folder: Path
) -> Iterator[Frame]:
    date = row.target_date
    frame = _write(target.raster, series.grid, folder / "frames" / f"{date}.tif", date, "target")
    yield replace(frame, mask=_write_mask(target.mask, series.grid, folder, date))
    if target.reference:
        day = target.reference_date or date
        path = folder / "truth" / "reference.tif"
        reference = _write(target.reference, series.grid, path, day, "reference")
        # By construction the occlusion raster says where the truth is known; a paired
        # reference carries the mask of its own date.
        own = series.masks.get(row.reference_date) if row.reference_date else None
        name = f"reference_{day}"
        yield replace(reference, mask=_write_mask(own, series.grid, folder, name))
    if target.occlusion is not None:
        path = folder / "truth" / "occlusion.tif"
        yield _write(_mask_from(target.occlusion), series.grid, path, date, "occlusion")


def _write_frame(series: SourceSeries, date: str, folder: Path) -> Frame:
    path = folder / "frames" / f"{date}.tif"
    frame = _write(series.optical[date], series.grid, path, date, "context")
    return replace(frame, mask=_write_mask(series.masks.get(date), series.grid, folder, date))


def _write_mask(mask: SourceRaster | None, grid: Grid, folder: Path, name: str) -> Path | None:
    if mask is None:
        return None
    path = folder / "source_masks" / f"{name}.tif"
    _write(mask, grid, path, name, "mask")
    return path


def _write_radar(series: SourceSeries, date: str, folder: Path) -> Frame:
    path = folder / "sar" / f"{date}.tif"
    return _write(series.radar[date], series.grid, path, date, "radar")


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


# --- small helpers --------------------------------------------------------------------


def _classes(mask: SourceRaster, window: Window) -> np.ndarray:
    return classmap.from_delivered(mask.read(window)[0], mask.bands[0])


def _has_data(source: SourceRaster, grid: Grid) -> np.ndarray:
    found = np.zeros(grid.shape, bool)
    for window in grid.windows():
        found[window.toslices()] = (source.read(window) != 0).all(axis=0)
    return found


def _brightness(source: SourceRaster, grid: Grid) -> tuple[float, np.ndarray]:
    """Return the 90th percentile of the visible bands, reflectance, and where there are data."""
    found, counts = np.zeros(grid.shape, bool), np.zeros(2**16, np.int64)
    visible = visible_bands(source.bands)
    for window in grid.windows():
        data = source.read(window)
        found[window.toslices()] = (data != 0).all(axis=0)
        counts += np.bincount(data[visible].ravel(), minlength=2**16)
    ranks = np.cumsum(counts[1:])  # DN 0 has no data
    if not ranks[-1]:
        return 0.0, found
    position = 0.9 * (ranks[-1] - 1)
    low, high = np.searchsorted(ranks, [np.floor(position), np.ceil(position)], side="right") + 1
    between = low + (high - low) * (position % 1)
    return float(between / REFLECTANCE_SCALE), found


def _reader(data: np.ndarray):
    def read(window: Window) -> np.ndarray:
        return data[(slice(None), *window.toslices())]

    return read


def _mask_from(classes: np.ndarray) -> SourceRaster:
    return SourceRaster(("CLASS",), _reader(classes[None]))


def _listed(dates: dict[str, Any]) -> str:
    names = sorted(dates)
    return ", ".join(names) if len(names) <= 8 else f"{names[0]} ... {names[-1]} ({len(names)})"
