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
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unveil import classes as classmap
from unveil.assembly.protocols.base import ProtocolSettings, scene_seed
from unveil.bands import NODATA, REFLECTANCE_SCALE, sort_bands
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.code import code_of
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.records import checksum, identify, kept, write_record
from unveil.scene import cloud_cover, is_clear
from unveil.sources.base import SourceSeries, open_dates
from unveil.sources.local import Local, paired_files
from unveil.sources.pairs import CLEAR_SHARE, asks_for_pairs, require_pairs, wish_of
from unveil.sources.registry import open_source, source_of
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

JUDGING_PAIRS, FEWEST_PAIRS = 6, 3
"""Real pairs by which a place judges models itself: as many as there are, from so few on."""
JUDGING_COVERS = "0.3,0.7"
"""Covers of the transplants that judge where there are too few pairs."""
MOST_NAMED = 3
"""Dates that a message explains."""


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
    found = choose_candidates(survey(Path(row.path), cache))
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
            passed_over=found.reasons,
        )
        for number, (target, truth) in enumerate(
            require_pairs(found.looks, wish, limits, row=row), start=1
        )
    ]


def plan_judges(
    row: SceneRow, settings: ProtocolSettings, cache: Path, limits: Limits
) -> list[SceneRow]:
    """Return few scenes by which a place judges models itself: real pairs, or transplants.

    A place without as many as it takes has none.

    Args:
        row: of a product (``product`` is its id).
        settings: the seed.
        cache: folder where surveys are kept.
        limits: section ``sources.selection`` of the config.
    """
    if not source_of(row).surveyed:
        return []
    wish = replace(row, scene=f"{row.product}-judge", target_date="auto", reference_date="")
    for count in range(JUDGING_PAIRS, FEWEST_PAIRS - 1, -1):
        with suppress(InputError):
            pairs = replace(wish, protocol="paired", n_targets=count)
            return plan_pairs(pairs, cache, limits)
    with suppress(InputError):
        lent = replace(wish, protocol="transplant", n_targets=2, cloud_levels=JUDGING_COVERS)
        return plan_place(lent, settings, cache)
    return []


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
    found = choose_candidates(survey(Path(row.path), cache))
    if len(found.clear) < row.n_targets:
        more = "".join(f"; {d}: {why}" for d, why in list(found.passed_over.items())[:MOST_NAMED])
        raise InputError(
            f"{len(found.clear)} dates are at least {CLEAR_SHARE:.0%} clear, {row.n_targets} "
            f"wanted{more}",
            file=row.path,
            field=f"scene {row.scene}: n_targets",
            remedy="ask for fewer targets, or add clear dates",
        )
    rng = scene_seed(settings.seed, row.scene)
    chosen = sorted(rng.choice([f["date"] for f in found.clear], row.n_targets, replace=False))
    return [
        _planned_row(row, str(date), level, found, settings)
        for date in chosen
        for level in [float(text) for text in (row.cloud_levels or "0.5").split(",")]
    ]


def _planned_row(
    row: SceneRow,
    date: str,
    level: float,
    found: Candidates,
    settings: ProtocolSettings,
) -> SceneRow:
    scene = f"{row.scene}-{_in_id(date, level)}"
    covers = {f["date"]: f["cover"] for f in found.lenders if f["date"] != date}
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
        passed_over=found.reasons,
    )


@dataclass(frozen=True)
class Candidates:
    """What the dates of a place may be used for.

    Attributes:
        clear: facts of the dates that may be withheld.
        lenders: of those whose clouds may be lent.
        passed_over: why others may not, though they are clear, or though nothing is known of it.
    """

    clear: list[dict[str, Any]]
    lenders: list[dict[str, Any]]
    passed_over: dict[str, str]

    @property
    def looks(self) -> list[Look]:
        """The dates that show the place with all its bands, as pairs are chosen from."""
        return [
            Look(
                (Acquisition(f["date"], parse_time(f["date"])),),
                valid=f["valid"],
                occluded=f["cover"],
                blue=f["blue"],
                clear=f["clear"],
            )
            for f in self.lenders
        ]

    @property
    def reasons(self) -> str:
        """The dates passed over with their reasons, in one line."""
        return "; ".join(f"{date}: {why}" for date, why in self.passed_over.items())


def choose_candidates(facts: Sequence[dict[str, Any]]) -> Candidates:
    """Sort the dates of a survey by what they may be used for.

    A date that cannot be read, or lacks a band that most have, is neither withheld nor lends; one
    whose blue is brighter than usual on clear dates is not withheld, as masks miss haze.
    """
    sound = [f for f in facts if not f["fault"]]
    usual = usual_bands([f["bands"] for f in sound])
    lenders = [f for f in sound if usual <= set(f["bands"])]
    clear = [f for f in lenders if f["clear"] >= CLEAR_SHARE]
    limit = haze_limit(f["blue"] for f in clear)
    hazy = [f for f in clear if None not in (limit, f["blue"]) and f["blue"] > limit]
    passed_over = {f["date"]: f["fault"] for f in facts if f["fault"]}
    for f in sound:
        lacking = sort_bands(usual - set(f["bands"]))
        if lacking:
            passed_over[f["date"]] = f"it has no {', '.join(lacking)}"
    for f in hazy:
        passed_over[f["date"]] = f"haze, its blue is {f['blue']:.3f}, up to {limit:.3f} is usual"
    clear = [f for f in clear if f not in hazy]
    return Candidates(clear, lenders, dict(sorted(passed_over.items())))


def survey(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Look at every masked date of a local place, or take what was learnt before.

    Returns:
        of each date ``bands``, ``clear`` and ``cover`` (fractions that are clear and occluded),
        ``blue`` reflectance of clear pixels, and ``fault``: why it cannot be used.

    Raises:
        InputError: if the place has no masks, or no date can be used.
    """
    frames, masks = paired_files(folder)
    if not masks:
        raise InputError(
            "no frame has a mask",
            file=folder / "masks",
            field="target_date auto",
            remedy="add masks (SCL or CLASS), or name the dates",
        )
    files = [*frames.values(), *masks.values(), *folder.glob("scene.yaml")]
    stamp = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    place = [str(folder.resolve()), stamp]
    identity = identify(place=place, code=code_of(__name__))
    path = cache / "surveys" / f"{checksum(place)[:24]}.json"
    known = kept(path, identity)
    if known is not None:
        return known["facts"]
    facts = _survey_place(folder, sorted(masks))
    write_record(path, {"facts": facts}, made_from=identity)
    return facts


def _survey_place(folder: Path, dates: Sequence[str]) -> list[dict[str, Any]]:
    series = open_source(SceneRow("survey", Local.kind, str(folder), "", "none"), {})
    usable = {date: date for date in dates if date not in series.left_out}
    seen, unreadable = open_dates(usable, lambda _, date: _survey_date(series, date))
    faults = series.left_out | unreadable
    nothing = {"bands": [], "clear": 0.0, "cover": 0.0, "blue": None, "valid": 0.0}
    return [
        {"date": date, **nothing, "fault": faults[date].reason}
        if date in faults
        else {"date": date, **seen[date], "fault": ""}
        for date in dates
    ]


def _survey_date(series: SourceSeries, date: str) -> dict[str, Any]:
    frame, mask = series.optical[date], series.masks[date]
    classes = np.empty(series.grid.shape, np.uint8)
    blue = np.zeros(series.grid.shape, np.uint16)
    for window in series.grid.windows():
        part = window.toslices()
        classes[part] = classmap.from_delivered(mask.read(window)[0], mask.bands[0])
        if "B02" in frame.bands:
            blue[part] = frame.read(window)[frame.bands.index("B02")]
    LOG.info("surveyed %s", date)
    clear = is_clear(classes)
    usable = clear & (blue > 0)
    return {
        "bands": list(frame.bands),
        "clear": float(clear.mean()),
        "valid": float((classes != NODATA).mean()),
        "cover": cloud_cover(classmap.dilate(classes, HIDDEN_GROWTH_PX)),
        "blue": float(np.median(blue[usable])) / REFLECTANCE_SCALE if usable.any() else None,
    }
