"""Searching a STAC API for the frames of a scene, and writing down what was found.

Servers answer filters differently, or not at all: place, time, collection, bands and radar mode
are checked again here. Which of the found looks become target, truth, context and radar is
decided by :mod:`unveil.sources.selection`, with the cloud over the *place* from SCL pixels; the
bytes read for that are in the cache when the scene is fetched. What a catalogue says of the cloud
of a tile decides nothing: items that no mask and no detector can judge are left out.
"""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry import box as rectangle
from shapely.geometry import mapping, shape
from shapely.ops import unary_union

from unveil import classes as classmap
from unveil import raster
from unveil.bands import BANDS, S2CLOUDLESS10, SAR2
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.errors import InputError, SceneSkipped
from unveil.guarded import reading_input
from unveil.protocols import PROTOCOLS
from unveil.raster import Grid
from unveil.remote.catalogue import ask_catalogue, name_of, require_usable
from unveil.remote.range_cache import BadFileError, RangeCache, Remote, run_parallel
from unveil.remote.raster_windows import Convert, mosaic, plan_cut, write_cut
from unveil.scene import is_clear
from unveil.sources import selection
from unveil.sources.area import TILE, Box, area_grid
from unveil.sources.pairs import CLEAR_SHARE, Wish, choose_pairs, too_few
from unveil.sources.selection import Acquisition, Limits, Look
from unveil.sources.stac.lock import LOCK_VERSION
from unveil.sources.stac.preset import MASK, Preset, get_preset
from unveil.sources.stac.read import (
    acquisition_of,
    as_stored,
    band_assets,
    crs_of,
    decide_offset,
    harmoniser,
    make_cache,
)

LOG = logging.getLogger(__name__)

PARTNER = dt.timedelta(minutes=10)
"""L1C and L2A items of one tile within this time are one acquisition."""
RASTERS = (*BANDS, MASK, *SAR2)
"""Assets that are images, by ESA name; the others are annotation."""
LEAST_DECIBEL = -200
"""No backscatter is dimmer; fill is."""
SEEN = 0.05
"""A look that shows less of the place is no use, even as context."""
KEPT = (
    "datetime",
    "start_datetime",
    "platform",
    "grid:code",
    "s2:mgrs_tile",
    "s2:product_uri",
    "s2:datastrip_id",
    "eopf:datastrip_id",
    "s2:tile_id",
    "s2:processing_baseline",
    "s2:generation_time",
    "processing:version",
    "processing:datetime",
    "sat:relative_orbit",
    "sat:orbit_state",
    "s1:product_identifier",
    "sar:instrument_mode",
    "sar:polarizations",
    "eo:cloud_cover",
    "proj:code",
    "proj:epsg",
)
"""Properties of items that locks keep, beside a catalogue's offset flag."""


@dataclass(frozen=True)
class _Found:
    """An item that passed all checks."""

    item: Mapping[str, Any]
    assets: Mapping[str, Mapping[str, Any]]
    seen_as: Acquisition
    share: float  # of the place that its footprint covers


def search_scene(request: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Search what a scene asks for and return its lock.

    Args:
        request: made by :func:`unveil.sources.stac.lock.make_request`.
        settings: section ``sources.stac`` of the config, and ``cache``.

    Raises:
        InputError: if the API fails, or finds no frame that can be the target.
    """
    preset = get_preset(request["optical"], settings["presets"], kind="optical")
    cache = make_cache(settings, preset)
    days = request["days"]
    found, left_out = _find(preset, days, request["bands"], request, settings)
    found = _with_masks(found, preset, days, request, settings)
    grid = area_grid(request["area"], crs=_usual_crs(found), resolution=request["resolution_m"])
    by_id = {f.seen_as.id: f for f in found}
    looks = selection.group_looks(f.seen_as for f in found)
    left_out += _superseded(found, looks)
    looks, blind = _judged(looks, by_id, preset, request)
    left_out += blind
    looks, gone = _measure_all(looks, by_id, preset, cache, grid, request, settings)
    left_out += gone
    looks = selection.one_look_a_day(look for look in looks if look.valid >= SEEN)
    while True:
        chosen, notes = _choose(looks, request, left_out)
        wanted = [look for look in looks if look.date in _optical_dates(chosen)]
        try:
            items = _optical_items(wanted, by_id, preset, cache, grid, request)
            break
        except BadFileError as error:
            bad = [look for look in wanted if _has_file(_members(look, by_id), error)]
            left_out += [row for look in bad for row in _without(look, error)]
            looks = [look for look in looks if look not in bad]
            if not bad:
                raise
    passes, gone = _radar_items(wanted, chosen, grid, request, settings)
    left_out += gone
    items += passes
    return {
        "unveil_lock": LOCK_VERSION,
        "request": request,
        "grid": {"crs": grid.crs, "transform": list(grid.transform), "shape": list(grid.shape)},
        "chosen": {**chosen, "radar": sorted({item["date"] for item in passes})},
        "cover": {look.date: _cover(look, by_id) for look in looks},
        "items": items,
        "left_out": sorted(left_out, key=lambda row: row["id"]),
        "notes": notes,
    }


# --- places ---------------------------------------------------------------------------------


def cut_at_antimeridian(box: Box) -> dict[str, Any]:
    """Return a box in degrees, whose east may exceed 180, as GeoJSON (RFC 7946, 3.1.9)."""
    earth = rectangle(-180, -90, 180, 90)
    parts = [translate(rectangle(*box), shift).intersection(earth) for shift in (0, -360)]
    return mapping(unary_union([part for part in parts if part.area > 0]))


def overlap(box: Box, geometry: Mapping[str, Any] | None) -> float:
    """Return the fraction of a box that a footprint covers, 0 without one.

    Footprints may be cut at the antimeridian, or run the wrong way around the earth there.
    """
    if not geometry:
        return 0.0
    place, footprint = rectangle(*box), shape(geometry)
    west, _, east, _ = footprint.bounds
    if east - west > 180:
        footprint = shapely.transform(footprint, _eastward)
    footprint = shapely.make_valid(footprint)
    areas = [translate(footprint, d).intersection(place).area for d in (-360, 0, 360)]
    return min(1.0, max(areas) / place.area)


def _eastward(points: np.ndarray) -> np.ndarray:
    """Move ``(N, 2)`` points of the western hemisphere once around the earth."""
    return points + np.where(points[:, :1] < 0, [[360, 0]], [[0, 0]])


# --- asking the catalogue -------------------------------------------------------------------


def _find(
    preset: Preset,
    days: float,
    bands: Sequence[str],
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[list[_Found], list[dict[str, str]]]:
    """Return the items of a catalogue that fit, and why others do not."""
    ends = _wanted_dates(request)
    first, last = (dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC) for date in ends)
    first, last = first - dt.timedelta(days), last + dt.timedelta(days + 1)
    tile = request["area"].zfill(5) if TILE.fullmatch(request["area"]) else ""
    found, left_out = {}, []
    for item in _ask(preset, request["box"], first, last, settings):
        try:
            with reading_input(name_of(item), "a STAC item", remedy="tell the catalogue's keeper"):
                require_usable(item)
                verdict = _judge(item, preset, (first, last), tile, bands, request)
        except InputError as error:
            verdict = f"unusable: {str(error).partition('. Remedy: ')[0]}"
            LOG.warning("%s: left out, %s", preset.id, verdict)
        if isinstance(verdict, str):
            left_out.append({"id": name_of(item), "reason": verdict})
        else:
            found[verdict.seen_as.id] = verdict
    LOG.info("%s: %d items fit, %d do not", preset.id, len(found), len(left_out))
    return list(found.values()), left_out


def _wanted_dates(request: Mapping[str, Any]) -> tuple[str, str]:
    """Return the first and the last date that a target may have."""
    if request["target_date"] == "auto":
        first, last = request["pairs"]["period"]
        return first, last
    if "dates" in request:
        first, last = request["dates"]
        return first, last
    return request["target_date"], request["target_date"]


def _judge(
    item: Mapping[str, Any],
    preset: Preset,
    window: tuple[dt.datetime, dt.datetime],
    tile: str,
    bands: Sequence[str],
    request: Mapping[str, Any],
) -> _Found | str:
    """Return what is used of an item, or why it does not fit."""
    if item["id"] in request["leave_out"]:
        return "left out by the config"
    if item.get("collection") not in (*preset.collections, None):
        return f"of collection {item['collection']}"
    assets = band_assets(item, preset, preset.assets)
    missing = [band for band in bands if band not in assets]
    if missing:
        return f"without {', '.join(missing)}"
    seen_as, share = acquisition_of(item), overlap(request["box"], item.get("geometry"))
    if not window[0] <= seen_as.time < window[1]:
        return f"of {seen_as.time.date()}, outside the window"
    if share == 0:
        return "not over the place"
    if tile and seen_as.tile not in ("", tile):
        return f"of tile {seen_as.tile}"
    wrong = _wrong_mode(item) if preset.kind == "radar" else None
    return wrong or _Found(item, assets, seen_as, share)


def _wrong_mode(item: Mapping[str, Any]) -> str | None:
    properties = item.get("properties", {})
    mode = properties.get("sar:instrument_mode") or "IW"
    if mode != "IW":
        return f"of mode {mode}"
    polarisations = properties.get("sar:polarizations") or SAR2
    return None if set(SAR2) <= set(polarisations) else f"of polarisation {polarisations}"


def _ask(
    preset: Preset,
    box: Box,
    first: dt.datetime,
    last: dt.datetime,
    settings: Mapping[str, Any],
) -> list[Any]:
    query = {
        "collections": [preset.collections[0]],
        "intersects": cut_at_antimeridian(box),
        "datetime": [first, last],
        "limit": 100,
    }
    return ask_catalogue(
        preset.api, query, retries=settings["retries"], timeout=settings["timeout_s"]
    )


def _with_masks(
    found: list[_Found],
    preset: Preset,
    days: float,
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> list[_Found]:
    """Give items of a level without SCL that of the same acquisition at the other level."""
    if not preset.masks_from or not found:
        return found
    other = get_preset(preset.masks_from, settings["presets"], kind="optical")
    partners, _ = _find(other, days, (MASK,), request, settings)
    partners.sort(key=lambda p: (p.seen_as.baseline or (0, 0), p.seen_as.processed))
    done = []
    for each in found:
        same = [
            p
            for p in partners
            if p.seen_as.tile == each.seen_as.tile
            and abs(p.seen_as.time - each.seen_as.time) <= PARTNER
        ]
        mask = {MASK: same[-1].assets[MASK]} if same else {}
        done.append(replace(each, assets={**each.assets, **mask}))
    return done


def _usual_crs(found: Sequence[_Found]) -> str:
    """Return the CRS in which most of the place is covered, so that little is resampled."""
    shares: dict[str, float] = {}
    for each in found:
        code = crs_of(each.item)
        if code.startswith(("EPSG:326", "EPSG:327")):
            shares[code] = shares.get(code, 0.0) + each.share
    return max(sorted(shares), key=shares.__getitem__, default="")


def _superseded(found: Sequence[_Found], looks: Sequence[Look]) -> list[dict[str, str]]:
    kept = {member.id for look in looks for member in look.members}
    reason = "another version of the same acquisition is used"
    return [{"id": f.seen_as.id, "reason": reason} for f in found if f.seen_as.id not in kept]


def _members(look: Look, by_id: Mapping[str, _Found]) -> list[_Found]:
    """Return the items of a look, the one that shows most of the place first."""
    members = [by_id[member.id] for member in look.members]
    return sorted(members, key=lambda f: (-f.share, f.seen_as.id))


def _judged(
    looks: Sequence[Look],
    by_id: Mapping[str, _Found],
    preset: Preset,
    request: Mapping[str, Any],
) -> tuple[list[Look], list[dict[str, str]]]:
    """Return the looks that something can judge for cloud, and the items left out for that.

    Of a look, the items with SCL are used; without any, L1C of enough bands can still be judged
    by a detector once it is here, but is neither target within a window nor truth.
    """
    detectable = preset.level == "L1C" and set(S2CLOUDLESS10) <= set(request["bands"])
    kept, left_out = [], []
    for look in looks:
        masked = tuple(m for m in look.members if MASK in by_id[m.id].assets)
        members = masked or (look.members if detectable else ())
        for member in look.members:
            if member not in members:
                reason = f"{look.date}: nothing can judge its clouds (no SCL)"
                LOG.warning("%s: left out, %s", member.id, reason)
                left_out.append({"id": member.id, "reason": reason})
        kept += [replace(look, members=members)] if members else []
    return kept, left_out


# --- looking at the place -------------------------------------------------------------------


def _measure_all(
    looks: Iterable[Look],
    by_id: Mapping[str, _Found],
    preset: Preset,
    cache: RangeCache,
    grid: Grid,
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[list[Look], list[dict[str, str]]]:
    """Return the looks with their cover, and those whose files are bad, with the reason."""
    measured, left_out = [], []
    for look in looks:
        try:
            measured.append(_measured(look, by_id, preset, cache, grid, request, settings))
        except BadFileError as error:
            left_out += _without(look, error)
    return measured, left_out


def _without(look: Look, error: BadFileError) -> list[dict[str, str]]:
    """Say why the items of a look are left out."""
    return [_left_out(member.id, look.time, error) for member in look.members]


def _left_out(name: str, time: dt.datetime, error: BadFileError) -> dict[str, str]:
    reason = f"{time.date()}: {str(error).partition('. Remedy: ')[0]}"
    LOG.warning("%s: left out: %s", name, reason)
    return {"id": name, "reason": reason}


def _has_file(members: Iterable[_Found], error: BadFileError) -> bool:
    return any(asset["href"] == error.file for f in members for asset in f.assets.values())


def _measured(
    look: Look,
    by_id: Mapping[str, _Found],
    preset: Preset,
    cache: RangeCache,
    grid: Grid,
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Look:
    """Return a look with its cover over the place, unknown without SCL."""
    members = _members(look, by_id)
    if not all(MASK in f.assets for f in members):
        return replace(look, valid=min(1.0, sum(f.share for f in members)))
    scl = _read(members, MASK, preset, cache, grid)
    if scl is None:
        return replace(look, valid=0.0)
    delivered = classmap.from_delivered(scl, MASK)
    clear = float(is_clear(delivered).mean())
    classes = classmap.dilate(delivered, HIDDEN_GROWTH_PX)
    seen = selection.measured(look, classes, clear=clear)
    if clear >= CLEAR_SHARE or (seen.occluded or 0) <= request["selection"]["truth_cloud"]:
        # Haze is only asked of dates that could be the truth.
        has_blue = all("B02" in f.assets for f in members)
        blue = _read(members, "B02", preset, cache, grid) if has_blue else None
        seen = selection.measured(look, classes, blue, clear=clear)
    covers = (100 * seen.valid, 100 * (seen.occluded or 0))
    LOG.info("%s: %.0f %% of the place seen, %.0f %% of that occluded", look.date, *covers)
    return seen


def _read(
    members: Sequence[_Found], band: str, preset: Preset, cache: RangeCache, grid: Grid
) -> np.ndarray | None:
    """Read one band of a look on the grid, ``(H, W)``; None if nothing is there."""
    remotes = run_parallel(
        lambda f: cache.describe(f.assets[band]["href"]), members, workers=cache.connections
    )
    pairs = [
        (found, cut)
        for found, remote in zip(members, remotes, strict=True)
        if (cut := plan_cut(cache, remote, grid))
    ]
    if not pairs:
        return None
    wanted = {cut.remote: cut.spans for _, cut in pairs}
    cache.fetch(wanted, name=f"{band} of {members[0].seen_as.id}")
    with tempfile.TemporaryDirectory(prefix="unveil-search-") as folder:
        parts = []
        for number, (found, cut) in enumerate(pairs):
            convert: Convert = as_stored
            if band in BANDS:
                cuts = {band: cut}
                offset = decide_offset(cache, found.item, found.assets, cuts, preset)
                convert = harmoniser(band, offset)
            path = Path(folder) / f"{number}.tif"
            write_cut(cache, cut, grid, path, convert=convert, nodata=0)
            parts.append({band: path})
        whole = Path(folder) / "whole.tif"
        mosaic(parts, grid, whole, bands=(band,), resampling="nearest", nodata=0)
        return raster.read(whole)[0]


def _cover(look: Look, by_id: Mapping[str, _Found]) -> dict[str, Any]:
    pixels = all(MASK in by_id[member.id].assets for member in look.members)
    return {
        "seen": round(look.valid, 4),
        "occluded": None if look.occluded is None else round(look.occluded, 4),
        "blue": None if look.blue is None else round(look.blue, 4),
        "from": "SCL over the place" if pixels else "nothing; detectors judge it later",
    }


# --- choosing -------------------------------------------------------------------------------


def _choose(
    looks: Sequence[Look],
    request: Mapping[str, Any],
    left_out: Sequence[Mapping[str, str]] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Choose target, truth, cloud donor and context; what could not be had is a note.

    Raises:
        InputError: without a target.
    """
    limits, protocol = Limits(**request["selection"]), PROTOCOLS[request["protocol"]]
    notes: list[str] = []
    reference, donor = request["reference_date"], request["cloud_date"]
    if "dates" in request:  # of a product: each job chooses the looks of its date
        dates = [look.date for look in looks]
        return {"target": "", "reference": "", "donor": "", "context": dates}, notes
    if request["target_date"] == "auto":
        target, reference = _choose_pair(looks, request, limits)
        return _with_context(looks, request, target, reference, donor), notes
    try:
        target = _choose_target(looks, request, limits).date
        if protocol.clouds == "lent" and not donor:
            donor = _choose_donor(looks, target, request["cloud_level"], limits).date
    except SceneSkipped as error:
        date = request["target_date"]
        own = [row for row in left_out if _is_of(row, date)]
        why = [f"{row['id']}: {row['reason']}" for row in own]
        raise InputError(
            "; ".join([str(error), *why]),
            field="sources.selection",
            remedy="widen sources.selection or sources.stac.days, or choose another date",
        ) from error
    if protocol.truth == "another date" and not reference:
        try:
            reference = selection.truth_within(looks, target, limits).date
        except SceneSkipped as error:
            notes.append(str(error))
    dates = [look.date for look in looks]
    for field, date in (("reference_date", reference), ("cloud_date", donor)):
        if date and date not in dates:
            raise InputError(
                f"no look of {date} at the place", field=field, remedy=f"use {', '.join(dates)}"
            )
    return _with_context(looks, request, target, reference, donor), notes


def _with_context(
    looks: Sequence[Look], request: Mapping[str, Any], target: str, reference: str, donor: str
) -> dict[str, Any]:
    """Return the chosen dates, the nearest others among them."""
    dates, used = [look.date for look in looks], {target, reference, donor}
    context = selection.choose_context(dates, target, request["n_context"], used)
    return {"target": target, "reference": reference, "donor": donor, "context": context}


def _choose_pair(
    looks: Sequence[Look], request: Mapping[str, Any], limits: Limits
) -> tuple[str, str]:
    """Return target and truth of the real pair that a request asks for.

    Raises:
        InputError: if there are fewer pairs.
    """
    asked = request["pairs"]
    wish = Wish(**{**asked, "levels": tuple(asked["levels"]), "period": tuple(asked["period"])})
    pairs = choose_pairs(looks, wish, limits)
    if request["pair"] > len(pairs):
        raise too_few(len(pairs), wish, limits, file=request["optical"], scene=request["area"])
    target, truth = pairs[request["pair"] - 1]
    return target.date, truth.date


def _is_of(row: Mapping[str, str], date: str) -> bool:
    """Whether what was left out is of a date, by its reason or by the name of the item."""
    return row["reason"].startswith(date) or date.replace("-", "") in row["id"]


def _choose_target(looks: Sequence[Look], request: Mapping[str, Any], limits: Limits) -> Look:
    """Return the look of the wanted date, or within a window the nearest that fits.

    Protocols that make their own clouds want a clear one.
    """
    date, window = request["target_date"], limits.window_days
    if window == 0:
        same = [look for look in looks if look.date == date]
        if not same:
            near = sorted(looks, key=lambda k: selection.days_between(k.date, date))[:6]
            seen = ", ".join(sorted(k.date for k in near)) or "none"
            raise SceneSkipped(f"no look of {date} at the place; the nearest: {seen}")
        return same[0]
    clear = PROTOCOLS[request["protocol"]].truth == "withheld"
    cloud = (0.0, limits.truth_cloud) if clear else limits.target_cloud
    return selection.choose_target(
        looks, date, window_days=window, cloud=cloud, min_valid=limits.place_share
    )


def _choose_donor(looks: Sequence[Look], target: str, level: float, limits: Limits) -> Look:
    """Return the look whose cover is nearest to the wanted level, of two the nearer in time."""
    others = [
        (look, look.occluded)
        for look in looks
        if look.date != target and look.occluded and look.valid >= limits.place_share
    ]
    if not others:
        raise SceneSkipped(f"no other look than {target} has clouds to lend")

    def distance(choice: tuple[Look, float]) -> tuple[float, int, str]:
        look, cover = choice
        days = selection.days_between(look.date, target)
        return round(abs(cover - level), 2), days, look.date

    return min(others, key=distance)[0]


def _optical_dates(chosen: Mapping[str, Any]) -> set[str]:
    return {chosen["target"], chosen["reference"], chosen["donor"], *chosen["context"]} - {""}


def _radar_items(
    wanted: Sequence[Look],
    chosen: Mapping[str, Any],
    grid: Grid,
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Choose radar passes whose files are good; return them, and what was left out and why."""
    left_out: list[dict[str, str]] = []
    if not request["radar"]:
        return [], left_out
    preset = get_preset(request["radar"], settings["presets"], kind="radar")
    cache = make_cache(settings, preset)
    while True:
        names = [*request["leave_out"], *(row["id"] for row in left_out)]
        passes = _choose_passes(wanted, chosen, {**request, "leave_out": names}, settings, preset)
        items = [
            {**_plain(found, preset, preset.assets), "kind": "radar", "date": date}
            for date, found in passes
        ]
        try:
            items = _describe(items, cache, grid)
            empty = _blank_passes(passes, preset, cache, grid)
            if not empty:
                return items, left_out
            left_out += empty
        except BadFileError as error:
            bad = [found for _, found in passes if _has_file([found], error)]
            left_out += [_left_out(found.seen_as.id, found.seen_as.time, error) for found in bad]
            if not bad:
                raise


def _blank_passes(
    passes: Sequence[tuple[str, _Found]], preset: Preset, cache: RangeCache, grid: Grid
) -> list[dict[str, str]]:
    """Return the items of passes without a pixel of the place, whatever their footprints say."""
    dates: dict[str, list[_Found]] = {}
    for date, found in passes:
        dates.setdefault(date, []).append(found)
    blank = []
    for date, members in dates.items():
        stored = _read(members, SAR2[0], preset, cache, grid)
        # What calibration takes for data; decibels are negative.
        lowest = LEAST_DECIBEL if preset.pixels == "dB" else 0
        if stored is not None and (np.isfinite(stored) & (stored > lowest) & (stored != 0)).any():
            continue
        reason = f"{date}: shows no pixel of the place"
        LOG.warning("%s: left out, %s", members[0].seen_as.id, reason)
        blank += [{"id": found.seen_as.id, "reason": reason} for found in members]
    return blank


def _choose_passes(
    wanted: Sequence[Look],
    chosen: Mapping[str, Any],
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
    preset: Preset,
) -> list[tuple[str, _Found]]:
    """Search the radar passes of the chosen optical dates; return dates and items."""
    dates = [look.date for look in wanted]
    centre = chosen["target"] or dates[len(dates) // 2]
    reach = max(selection.days_between(date, centre) for date in dates)
    limits = Limits(**request["selection"])
    around = {key: value for key, value in request.items() if key != "dates"}
    around["target_date"] = centre
    found, _ = _find(preset, reach + limits.radar_days, SAR2, around, settings)
    by_id = {f.seen_as.id: f for f in found}
    looks = [
        replace(look, valid=min(1.0, sum(by_id[m.id].share for m in look.members)))
        for look in selection.group_looks(f.seen_as for f in found)
    ]
    looks = selection.one_look_a_day(look for look in looks if look.valid >= limits.place_share)
    target = next(look for look in wanted if look.date == centre)
    others = [look.time for look in wanted if look.date in chosen["context"]]
    passes = selection.choose_passes(looks, target.time, others, max_days=limits.radar_days)
    return [(look.date, found) for look in passes for found in _members(look, by_id)]


# --- writing down ---------------------------------------------------------------------------


def _plain(found: _Found, preset: Preset, used: Iterable[str]) -> dict[str, Any]:
    properties = found.item["properties"]
    kept = (*KEPT, *([preset.offset.flag] if preset.offset.flag else []))
    return {
        "id": found.seen_as.id,
        "collection": found.item.get("collection"),
        "properties": {key: properties[key] for key in kept if key in properties},
        "assets": {name: found.assets[name] for name in used if name in found.assets},
    }


def _optical_items(
    wanted: Sequence[Look],
    by_id: Mapping[str, _Found],
    preset: Preset,
    cache: RangeCache,
    grid: Grid,
    request: Mapping[str, Any],
) -> list[dict[str, Any]]:
    used = (*request["bands"], MASK)
    items = [
        {**_plain(found, preset, used), "kind": "optical", "date": look.date}
        for look in wanted
        for found in _members(look, by_id)
    ]
    return _describe(items, cache, grid)


def _describe(
    items: Sequence[dict[str, Any]], cache: RangeCache, grid: Grid
) -> list[dict[str, Any]]:
    """Give every asset its size and version; keep what later steps ask of it.

    Raises:
        BadFileError: if one is gone, or a raster that cannot be used.
    """
    jobs = [(band, asset) for item in items for band, asset in item["assets"].items()]

    def describe(job: tuple[str, Mapping[str, Any]]) -> Remote:
        band, asset = job
        remote = cache.describe(asset["href"])
        if band in RASTERS:
            plan_cut(cache, remote, grid)  # of what will be fetched anyway
        return remote

    remotes = run_parallel(describe, jobs, workers=cache.connections)
    kept = ("type", "file:checksum", "raster:bands", "bands", "raster:scale", "raster:offset")
    plain = iter(
        {
            "href": remote.href,
            "size": remote.size,
            "version": remote.validator,
            **{key: asset[key] for key in kept if key in asset},
        }
        for (_, asset), remote in zip(jobs, remotes, strict=True)
    )
    return [{**item, "assets": {band: next(plain) for band in item["assets"]}} for item in items]
