"""Planning scenes: which rows of the scene table become which scenes.

A row of a dataset's split becomes one row per patch. A local place with ``target_date: auto``
becomes rows with a date each, and a cloud donor or the truth's date, so that the workflow's graph
stays static. Masks are opened once; what was learnt is kept in the cache until a file of the place
changes. Other sources tell their clouds in the job alone: their pairs are numbered.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unveil import classes as classmap
from unveil import raster
from unveil.assembly.protocols.base import ProtocolSettings, scene_seed
from unveil.bands import NODATA
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.code import code_of
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.records import checksum, identify, kept, write_record
from unveil.scene import cloud_cover, is_clear
from unveil.sources.local import paired_files
from unveil.sources.pairs import CLEAR_SHARE, asks_for_pairs, require_pairs, wish_of
from unveil.sources.registry import source_of
from unveil.sources.selection import (
    Acquisition,
    Limits,
    Look,
    choose_donor,
    haze_limit,
    parse_time,
    usual_bands,
)

LOG = logging.getLogger(__name__)


def expand_scenes(
    rows: Sequence[SceneRow], settings: ProtocolSettings, cache: Path, *, limits: Limits
) -> list[SceneRow]:
    """Replace rows of a split, and ``auto`` rows, by their planned scenes.

    Args:
        rows: rows of the scene table.
        settings: the seed.
        cache: folder where surveys are kept.
        limits: section ``sources.selection`` of the config.

    Raises:
        InputError: if a folder does not exist, a place has too few clear dates or real pairs, or
            a planned id is already taken.
    """
    planned: list[SceneRow] = []
    for row in rows:
        source_of(row).require_input(row)
        patches = plan_split(row) if row.split and not row.name else [row]
        for patch in patches:
            planned += _plan(patch, settings, cache, limits)
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


def _plan(row: SceneRow, settings: ProtocolSettings, cache: Path, limits: Limits) -> list[SceneRow]:
    source = source_of(row)
    if asks_for_pairs(row) and source.pair_days:
        return plan_pairs(row, cache, limits) if source.surveyed else number_pairs(row)
    if row.target_date == "auto" and PROTOCOLS[row.protocol].truth == "withheld":
        return plan_place(row, settings, cache)
    return [row]


def plan_pairs(row: SceneRow, cache: Path, limits: Limits) -> list[SceneRow]:
    """Choose real pairs of one place from its masks, one row each; the id has date and cover.

    Raises:
        InputError: if there are fewer than the row asks for.
    """
    looks = [
        Look(
            (Acquisition(f["date"], parse_time(f["date"])),),
            valid=f["valid"],
            occluded=f["cover"],
            blue=f["blue"],
            clear=f["clear"],
        )
        for f in _with_usual_bands(survey(Path(row.path), cache))
    ]
    wish = wish_of(row, source_of(row).pair_days)
    return [
        replace(
            row,
            scene=f"{row.scene}-{_in_id(target.date, target.occluded or 0)}",
            target_date=target.date,
            reference_date=truth.date,
            place=row.place or row.scene,
            n_targets=1,
            cloud_levels="",
            pair=number,
        )
        for number, (target, truth) in enumerate(
            require_pairs(looks, wish, limits, row=row), start=1
        )
    ]


def _in_id(date: str, cover: float) -> str:
    return f"{date.replace('-', '')}-{round(cover * 100):02d}"


def number_pairs(row: SceneRow) -> list[SceneRow]:
    """Return one row per real pair that is chosen in its job, as ids cannot know dates."""
    total = wish_of(row).total
    if total == 1:
        return [replace(row, pair=1)]
    return [
        replace(row, scene=f"{row.scene}-{number}", pair=number) for number in range(1, total + 1)
    ]


def plan_split(row: SceneRow) -> list[SceneRow]:
    """Return one row per patch of a dataset's split, as far as the patches are there.

    Raises:
        InputError: for an unknown split, or when none of its patches is there.
    """
    patches = source_of(row).patches(row)
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
    facts = _with_usual_bands(survey(Path(row.path), cache))
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
    scene = f"{row.scene}-{_in_id(date, level)}"
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


def survey(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Return date, bands, clear and occluded share and blue reflectance of every masked date.

    Raises:
        InputError: if the place has no masks, or a raster is damaged.
    """
    frames, masks = paired_files(folder)
    dates = list(masks)
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
    place = [str(folder.resolve()), stamp]
    identity = identify(place=place, code=code_of(__name__))
    path = cache / "surveys" / f"{checksum(place)[:24]}.json"
    known = kept(path, identity)
    if known is not None:
        return known["facts"]
    facts: list[dict[str, Any]] = []
    for number, date in enumerate(dates, 1):
        facts.append(_survey_date(date, masks[date], frames[date]))
        LOG.info("surveyed %s, %d of %d", date, number, len(dates))
    write_record(path, {"facts": facts}, made_from=identity)
    return facts


def _survey_date(date: str, mask: Path, frame: Path) -> dict[str, Any]:
    with raster.open_raster(mask) as dataset:
        name = (dataset.descriptions[0] or "").upper()
    classes = classmap.from_delivered(raster.read(mask)[0], name)
    clear = is_clear(classes)
    with raster.open_raster(frame) as dataset:
        names = [(text or "").upper() for text in dataset.descriptions]
        blue = dataset.read(names.index("B02") + 1) if "B02" in names else np.zeros_like(classes)
    usable = clear & (blue > 0)
    return {
        "date": date,
        "bands": names,
        "clear": float(clear.mean()),
        "valid": float((classes != NODATA).mean()),
        "cover": cloud_cover(classmap.dilate(classes, HIDDEN_GROWTH_PX)),
        "blue": float(np.median(blue[usable])) / 10_000 if usable.any() else None,
    }


def _with_usual_bands(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the dates that lack a band which most have: none is withheld, none lends."""
    usual = usual_bands([f["bands"] for f in facts])
    return [f for f in facts if usual <= set(f["bands"])]


def _without_haze(clear: list[dict[str, Any]]) -> list[dict[str, Any]]:
    limit = haze_limit(f["blue"] for f in clear)
    return [f for f in clear if limit is None or f["blue"] is None or f["blue"] <= limit]
