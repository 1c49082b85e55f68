"""Planning scenes: which dates serve as target, truth and cloud donor.

A local place with ``target_date: auto`` and protocol transplant becomes rows with a date and
a cloud donor each when the scene table is read, so that the workflow's graph stays static.
Masks are opened once; what was learnt is kept in the cache until a file of the place changes.
For the protocols of real clouds, target and truth are chosen when the scene is assembled
(:func:`choose_dates`): the scene's id does not depend on them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import NODATA, S2CLOUDLESS10
from unveil.config import SceneRow
from unveil.errors import InputError, SceneSkipped
from unveil.protocols import CLEAR_SHARE, ProtocolSettings, assemble, choose_donor, scene_seed
from unveil.raster import BLOCK, Grid
from unveil.scene import Scene, cloud_cover, is_clear
from unveil.sources import PATCH_SOURCES, open_source, require_folder, selection
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.local import dated_files
from unveil.sources.selection import Acquisition, Limits, Look, haze_limit
from unveil.workflow.code import code_of
from unveil.workflow.stage import checksum, identify, kept, write_record

LOG = logging.getLogger(__name__)

Detector = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Gives ``(H, W)`` classes for ``(B, H, W)`` L1C reflectance and its band names."""

JUDGED_PX = 512
"""Most rows or columns of a frame that its cover is measured on; others are skipped."""


def expand_scenes(
    rows: Sequence[SceneRow], settings: ProtocolSettings, cache: Path
) -> list[SceneRow]:
    """Replace rows of a split, and ``auto`` rows of a local place, by their planned scenes.

    Raises:
        InputError: if a folder does not exist, a place has too few clear dates, or a planned
            id is already taken.
    """
    planned: list[SceneRow] = []
    for row in rows:
        if row.source != "stac":
            require_folder(row)
        if row.split and not row.name:
            planned += plan_split(row)
        elif row.target_date == "auto" and row.source == "local":
            planned += plan_place(row, settings, cache)
        else:
            planned.append(row)
    taken: set[str] = set()
    for row in planned:
        if row.scene in taken:
            raise InputError(
                f"planned scene id {row.scene!r} is already taken",
                field="scene",
                remedy="rename the row with that id",
            )
        taken.add(row.scene)
    return planned


def plan_split(row: SceneRow) -> list[SceneRow]:
    """Return a row a patch of a dataset's split, as far as the patches are there.

    Raises:
        InputError: for an unknown split, or when none of its patches is there.
    """
    patches = PATCH_SOURCES[row.source].split_patches(row)
    if not patches:
        raise InputError(
            f"no patch of split {row.split!r} is there",
            file=row.path,
            field=f"scene {row.scene}: split",
            remedy="give the folder that holds the dataset's own folders, or another split",
        )
    return [
        replace(
            row,
            scene=f"{row.scene}-{re.sub('[^A-Za-z0-9._-]', '_', name)}",
            name=name,
            place=row.place or place,
            n_patches=0,
        )
        for name, place in patches
    ]


def plan_place(row: SceneRow, settings: ProtocolSettings, cache: Path) -> list[SceneRow]:
    """Choose withheld dates and cloud donors of one place, by seed.

    A date may be withheld when at least 97 % of it is clear and its blue band is not
    brighter than usual for the place's clear dates (SCL misses haze).
    """
    facts = survey(Path(row.path), settings.dilate_px, cache)
    clear = _without_haze([f for f in facts if f["clear"] >= CLEAR_SHARE])
    if len(clear) < row.n_targets:
        raise InputError(
            f"{len(clear)} dates are at least {CLEAR_SHARE:.0%} clear, {row.n_targets} wanted",
            file=row.path,
            field=f"scene {row.scene}: n_targets",
            remedy="ask for fewer targets, or add clear dates",
        )
    rng = scene_seed(settings.seed, row.scene)
    chosen = sorted(rng.choice([f["date"] for f in clear], row.n_targets, replace=False))
    return [
        _planned_row(row, str(date), level, facts, settings)
        for date in chosen
        for level in [float(text) for text in (row.cloud_levels or "0.5").split(",")]
    ]


def _planned_row(
    row: SceneRow,
    date: str,
    level: float,
    facts: list[dict[str, Any]],
    settings: ProtocolSettings,
) -> SceneRow:
    scene = f"{row.scene}-{date.replace('-', '')}-{round(level * 100):02d}"
    covers = {f["date"]: f["cover"] for f in facts if f["date"] != date}
    donor = choose_donor(covers, level, scene_seed(settings.seed, scene))
    return replace(
        row,
        scene=scene,
        target_date=date,
        cloud_date=donor,
        cloud_level=level,
        place=row.place or row.scene,
        n_targets=1,
        cloud_levels="",
    )


def survey(folder: Path, dilate_px: int, cache: Path) -> list[dict[str, Any]]:
    """Return date, clear share, occluded share and blue reflectance of every masked date.

    Raises:
        InputError: if the place has no masks, or a raster is damaged.
    """
    masks, frames = dated_files(folder / "masks"), dated_files(folder / "frames")
    dates = [date for date in masks if date in frames]
    if not dates:
        raise InputError(
            "no frame has a mask",
            file=folder / "masks",
            field="target_date auto",
            remedy="add masks (SCL or CLASS), or name the dates",
        )
    stamp = [
        [p.name, p.stat().st_size, p.stat().st_mtime_ns]
        for d in dates
        for p in (masks[d], frames[d])
    ]
    place = [str(folder.resolve()), dilate_px, stamp]
    identity = identify(place=place, code=code_of(__name__))
    path = cache / "surveys" / f"{checksum(place)[:24]}.json"
    known = kept(path, identity)
    if known is not None:
        return known["facts"]
    facts: list[dict[str, Any]] = []
    for number, date in enumerate(dates, 1):
        facts.append(_survey_date(date, masks[date], frames[date], dilate_px))
        LOG.info("surveyed %s, %d of %d", date, number, len(dates))
    write_record(path, {"facts": facts}, made_from=identity)
    return facts


def _survey_date(date: str, mask: Path, frame: Path, dilate_px: int) -> dict[str, Any]:
    with raster.open_raster(mask) as dataset:
        name = (dataset.descriptions[0] or "").upper()
    classes = classmap.from_delivered(raster.read(mask)[0], name)
    clear = is_clear(classes)
    with raster.open_raster(frame) as dataset:
        names = [(text or "").upper() for text in dataset.descriptions]
        blue = dataset.read(names.index("B02") + 1) if "B02" in names else None
    usable = clear & (blue > 0) if blue is not None else clear & False
    return {
        "date": date,
        "clear": float(clear.mean()),
        "cover": cloud_cover(classmap.dilate(classes, dilate_px)),
        "blue": float(np.median(blue[usable])) / 10_000 if usable.any() else None,
    }


def _without_haze(clear: list[dict[str, Any]]) -> list[dict[str, Any]]:
    limit = haze_limit(f["blue"] for f in clear)
    return [f for f in clear if limit is None or f["blue"] is None or f["blue"] <= limit]


def assemble_row(
    row: SceneRow,
    sources: dict[str, Any],
    folder: Path,
    settings: ProtocolSettings,
    *,
    detect: Detector,
) -> Scene:
    """Open the source of a row, settle its dates and write the scene.

    Args:
        row: row of the scene table.
        sources: section ``sources`` of the config.
        folder: the scene's folder.
        settings: seed and dilation.
        detect: cloud detector for L1C frames without a mask.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    series = open_source(row, sources)
    official = row.source == "sen12mscrts" and sources["sen12mscrts"]["sampler"] == "official"
    if official and row.target_date == row.reference_date == "auto":
        cloud = tuple(sources["sen12mscrts"]["input_cloud"])
        series = sample_series(row, series, cloud, dilate_px=settings.dilate_px, detect=detect)
    limits = Limits(**sources["selection"])
    row, facts = choose_dates(row, series, limits, dilate_px=settings.dilate_px, detect=detect)
    series = replace(series, facts=series.facts | facts)
    return assemble(row, series, folder, settings)


# --- the official sample of a patch of SEN12MS-CR-TS ---------------------------------------


def sample_series(
    row: SceneRow,
    series: SourceSeries,
    cloud: tuple[float, float],
    *,
    dilate_px: int,
    detect: Detector,
) -> SourceSeries:
    """Cut a series down to truth and inputs of its official sample, and name its dates.

    Inputs are ``n_context + 1``; the one nearest to the truth in time is the target, of two as
    near the earlier. The others are all the context there is.

    Args:
        row: row of the scene table.
        series: all dates of the patch.
        cloud: least and most occluded fraction of an input.
        dilate_px: growth of cloud and shadow.
        detect: cloud detector for frames without a mask.

    Raises:
        InputError: if there is one date only.
    """
    looks = measure_looks(series, dilate_px=dilate_px, detect=detect)
    # Nothing is seen on a blank image: it counts as cloudy all over.
    covers = [1.0 if look.occluded is None else look.occluded for look in looks]
    dates = [look.date for look in looks]
    if len(dates) < 2:
        raise InputError(
            f"{len(dates)} date of patch {row.name or row.scene}",
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="download all dates of the place",
        )
    inputs, truth, fits = selection.sample_official(covers, row.n_context + 1, cloud)
    reference = dates[truth]
    target = min(inputs, key=lambda k: (selection.days_between(dates[k], reference), k))
    kept = {reference, *(dates[k] for k in inputs)}
    return replace(
        series,
        optical={date: frame for date, frame in series.optical.items() if date in kept},
        masks={date: mask for date, mask in series.masks.items() if date in kept},
        target_date=dates[target],
        reference_date=reference,
        facts=series.facts
        | {
            "cover_of_dates": {d: round(c, 4) for d, c in zip(dates, covers, strict=True)},
            "sampler": f"official, inputs of {cloud[0]:.0%} to {cloud[1]:.0%} cloud",
            "sampler_fits": fits,
        },
    )


# --- choosing target and truth of a series ------------------------------------------------


def choose_dates(
    row: SceneRow,
    series: SourceSeries,
    limits: Limits,
    *,
    dilate_px: int,
    detect: Detector,
) -> tuple[SceneRow, dict[str, Any]]:
    """Settle the dates of a row: what the source names, what the row names, what is chosen.

    ``target_date`` is the wanted date, or ``auto`` for the first date that is cloudy enough
    and has a truth; ``reference_date: auto`` asks for the nearest really clear date. The
    cover of every date is measured over the place, on masks that the source delivers or, for
    L1C, on those of ``detect``. Protocols that make their own clouds take the date they are
    given.

    Args:
        row: row of the scene table.
        series: the opened source.
        limits: section ``sources.selection`` of the config.
        dilate_px: growth of cloud and shadow.
        detect: cloud detector for L1C frames without a mask.

    Returns:
        The row with its dates, and facts for the scene: why a date was chosen, or why there
        is no truth.

    Raises:
        InputError: if no date can be the target.
    """
    if series.target_date:
        return replace(
            row,
            target_date=series.target_date,
            reference_date=series.reference_date,
            cloud_date=series.cloud_date or row.cloud_date,
        ), {}
    wanted = row.target_date
    choice = row.protocol in ("paired", "none") and len(series.optical) > 1
    exact = wanted != "auto" and not (choice and limits.window_days)
    if exact and row.reference_date != "auto":
        return row, {}
    looks = measure_looks(series, dilate_px=dilate_px, detect=detect)
    covers = {k.date: round(k.occluded, 4) for k in looks if k.occluded is not None}
    facts: dict[str, Any] = {"cover_of_dates": covers}
    target = wanted if exact else _choose_target(row, looks, limits)
    row = replace(row, target_date=target)
    if row.reference_date != "auto":
        return row, facts
    try:
        truth = _choose_truth(looks, target, limits)
    except SceneSkipped as reason:
        return replace(row, reference_date=""), facts | {"no_reference": str(reason)}
    return replace(row, reference_date=truth.date), facts


def _choose_target(row: SceneRow, looks: Sequence[Look], limits: Limits) -> str:
    low, high = limits.target_cloud
    try:
        if row.target_date != "auto":
            return selection.choose_target(
                looks,
                row.target_date,
                window_days=limits.window_days,
                cloud=(low, high),
                min_valid=limits.place_share,
            ).date
        for look in looks:
            cloudy = look.occluded is not None and low <= look.occluded <= high
            if cloudy and look.valid >= limits.place_share:
                try:
                    _choose_truth(looks, look.date, limits)
                except SceneSkipped:
                    continue
                return look.date
        raise SceneSkipped(
            f"no date has {low:.0%} to {high:.0%} cloud over the place and a really clear date "
            f"within {limits.truth_days} days"
        )
    except SceneSkipped as reason:
        raise InputError(
            str(reason),
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="widen sources.selection (window_days, target_cloud, place_share), or name "
            "another date",
        ) from reason


def _choose_truth(looks: Sequence[Look], target: str, limits: Limits) -> Look:
    return selection.choose_truth(
        looks,
        target,
        max_days=limits.truth_days,
        max_occluded=limits.truth_cloud,
        min_valid=limits.place_share,
    )


def measure_looks(series: SourceSeries, *, dilate_px: int, detect: Detector) -> list[Look]:
    """Return one look a date with its cover over the place, sorted by date.

    Frames larger than :data:`JUDGED_PX` are judged on every n-th pixel. A frame of L2A without a
    mask has an unknown cover, and is neither target nor truth.
    """
    looks = []
    for number, (date, frame) in enumerate(sorted(series.optical.items()), 1):
        data = _thinned(frame, series.grid)
        mask = series.masks.get(date)
        time = selection.parse_time(date)
        look = Look((Acquisition(date, time),))
        if mask is not None:
            classes = classmap.from_delivered(_thinned(mask, series.grid)[0], mask.bands[0])
        elif set(S2CLOUDLESS10) <= set(frame.bands):
            classes = detect(raster.to_reflectance(data), frame.bands)
        else:
            looks.append(replace(look, valid=float((data != 0).all(axis=0).mean())))
            continue
        classes = classmap.dilate(classes, dilate_px // _step(series.grid))
        classes[(data == 0).any(axis=0)] = NODATA
        blue = data[frame.bands.index("B02")] if "B02" in frame.bands else None
        looks.append(selection.measured(look, classes, blue))
        LOG.info(
            "%s: %.0f %% occluded, %d of %d",
            date,
            100 * looks[-1].occluded,
            number,
            len(series.optical),
        )
    return looks


def _step(grid: Grid) -> int:
    return max(1, -(-max(grid.shape) // JUDGED_PX))


def _thinned(source: SourceRaster, grid: Grid) -> np.ndarray:
    """Read every n-th pixel of a raster, ``(B, h, w)``, block by block."""
    step = _step(grid)
    rows = []
    for top in range(0, grid.height, BLOCK):
        row = []
        for left in range(0, grid.width, BLOCK):
            window = Window(left, top, min(BLOCK, grid.width - left), min(BLOCK, grid.height - top))
            row.append(source.read(window)[:, -top % step :: step, -left % step :: step])
        rows.append(np.concatenate(row, axis=2))
    return np.concatenate(rows, axis=1)
