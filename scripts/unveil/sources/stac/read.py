"""Source ``stac``: any STAC API, by preset; a search is kept in a lock, the lock is fetched.

::

    search (network) -> config/locks/SCENE.json -> fetch (network for what is not cached) -> scene

A lock names every file: address without signature, size, version, checksum where the catalogue
states one. From it a scene is fetched again the same way, offline once everything is cached.
Searching is in :mod:`unveil.sources.stac.search`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import SAR2
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.redaction import public_address
from unveil.remote.range_cache import BadFileError, RangeCache, Remote, require_space, run_parallel
from unveil.remote.raster_windows import Convert, Cut, mosaic, plan_cut, read_cut, write_cut
from unveil.remote.signing import make_signer
from unveil.sources import radiometry
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.radiometry import Offset
from unveil.sources.selection import Acquisition, choose_context, choose_radar, parse_time
from unveil.sources.stac.lock import (
    MASK,
    get_preset,
    lock_of,
    make_request,
    ranges_folder,
    read_lock,
)
from unveil.sources.stac.preset import Preset
from unveil.stored import to_decibel_or_nan

LOG = logging.getLogger(__name__)

MOST_ANNOTATION_BYTES = 64 * 2**20
BORDER_FLOOR = 1e-3
"""Linear power below which a pixel at the rim of a swath may be border noise (-30 dB)."""


# --- reading items ----------------------------------------------------------------------


def band_assets(
    item: Mapping[str, Any], preset: Preset, bands: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the assets of the bands that an item has, by ESA name.

    Their addresses are whole, and without signatures and keys, which belong into no lock.
    """
    links = {link.get("rel"): link.get("href", "") for link in item.get("links", [])}
    found = {}
    for band in bands:
        for name in preset.assets.get(band, ()):
            if name in item.get("assets", {}):
                asset = dict(item["assets"][name])
                asset["href"] = public_address(urljoin(links.get("self", ""), asset["href"]))
                found[band] = asset
                break
    return found


def acquisition_of(item: Mapping[str, Any]) -> Acquisition:
    """Return what frames are chosen by, from an item of any catalogue.

    Raises:
        InputError: if the item has no time.
    """
    properties = item.get("properties", {})
    time = properties.get("datetime") or properties.get("start_datetime") or ""
    names = " ".join(
        str(value)
        for value in (
            properties.get("s2:product_uri"),
            properties.get("sentinel:product_id"),
            properties.get("s1:product_identifier"),
            item.get("id"),
        )
        if value
    )
    orbit = properties.get("sat:relative_orbit")
    in_name = re.search(r"_R(\d{3})_", names)
    if orbit is None and in_name:
        orbit = int(in_name[1])
    datastrip = properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id")
    strip = re.search(r"_S(\d{8}T\d{6})", str(datastrip))
    return Acquisition(
        id=str(item.get("id", "")),
        time=parse_time(time.replace("Z", "+00:00")),
        platform=str(properties.get("platform", "")).lower(),
        tile=_tile_of(properties, names),
        datastrip=strip[1] if strip else "",
        relative_orbit=None if orbit is None else int(orbit),
        orbit_state=str(properties.get("sat:orbit_state", "")).lower(),
        baseline=radiometry.baseline_of_item(item),
        processed=str(
            properties.get("s2:generation_time")
            or properties.get("processing:datetime")
            or properties.get("created")
            or ""
        ),
    )


def _tile_of(properties: Mapping[str, Any], names: str) -> str:
    code = str(properties.get("grid:code", ""))
    if code.startswith("MGRS-"):
        return code[5:].zfill(5)
    if properties.get("s2:mgrs_tile"):
        return str(properties["s2:mgrs_tile"]).zfill(5)
    keys = ("utm_zone", "latitude_band", "grid_square")
    for prefix in ("mgrs", "sentinel"):
        zone, *rest = (properties.get(f"{prefix}:{key}") for key in keys)
        if zone and all(rest):
            return f"{int(zone):02d}{rest[0]}{rest[1]}"
    match = re.search(r"_T?(\d{2}[C-HJ-NP-X][A-HJ-NP-Z]{2})_", names)
    return match[1] if match else ""


def crs_of(item: Mapping[str, Any]) -> str:
    """Return the CRS code of an item or of its first asset with one; empty without any."""
    for fields in (item.get("properties", {}), *item.get("assets", {}).values()):
        code, epsg = fields.get("proj:code"), fields.get("proj:epsg")
        if code or epsg:
            return str(code or f"EPSG:{epsg}")
    return ""


# --- opening a lock ---------------------------------------------------------------------


def make_cache(settings: Mapping[str, Any], preset: Preset) -> RangeCache:
    """Return the cache of files, as the config sets it, signing for one catalogue."""
    return RangeCache(
        ranges_folder(settings),
        sign=make_signer(preset.sign, profile=settings["profile"]),
        connections=settings["connections"],
        retries=settings["retries"],
        timeout=settings["timeout_s"],
    )


@dataclass(frozen=True)
class _Job:
    """What the frames of a scene that come from one catalogue share.

    Attributes:
        folder: where cut-outs are written.
    """

    name: str
    preset: Preset
    cache: RangeCache
    grid: Grid
    folder: Path
    bands: tuple[str, ...]
    resampling: str

    @property
    def kept(self) -> tuple[str, ...]:
        """The rasters that are fetched, by ESA name."""
        return self.bands if self.preset.kind == "radar" else (*self.bands, MASK)


@dataclass(frozen=True)
class _Wanted:
    """One raster of one item of a lock, and what of it the grid needs."""

    item: Mapping[str, Any]
    band: str
    cut: Cut


def open_stac(row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
    """Fetch the scene of a lock and bring it onto one grid.

    Args:
        row: row of the scene table.
        settings: section ``sources.stac`` of the config, and ``cache``.

    Raises:
        InputError: if the lock does not fit, or a file cannot be had or read.
    """
    lock = _lock_of_scene(row, settings)
    scratch = tempfile.TemporaryDirectory(prefix="unveil-stac-")
    optical, *radar_jobs = _jobs(row, settings, lock, Path(scratch.name))
    grid = optical.grid
    # A frame of every date, and the parts of one.
    dates = len({(item["kind"], item["date"]) for item in lock["items"]})
    volume = (dates + 2) * grid.pixels * (2 * len(optical.bands) + 1)
    require_space(Path(scratch.name), volume, field="TMPDIR")
    frames, masks = {}, {}
    for date, parts in _fetch(optical, lock["items"]).items():
        frame, mask = _optical(optical, date, parts)
        frames[date] = _keeping(frame, scratch)
        if mask:
            masks[date] = _keeping(mask, scratch)
    radar, facts = {}, {}
    for passes in radar_jobs:
        facts = {
            "radar_calibration": passes.preset.calibration,
            "radar_source": passes.preset.title,
        }
        for date, parts in _fetch(passes, lock["items"]).items():
            radar[date] = _keeping(_radar(passes, date, parts), scratch)
    chosen, notes = lock["chosen"], lock["notes"]
    return SourceSeries(
        grid=grid,
        place=row.place or place_name(row.area),
        optical=frames,
        masks=masks,
        radar=radar,
        target_date=chosen["target"],
        reference_date=chosen["reference"],
        cloud_date=chosen["donor"],
        facts={
            "level": optical.preset.level,
            "catalogue": optical.preset.title,
            "licence": optical.preset.licence,
            "attribution": optical.preset.attribution,
            "resampling": f"{settings['resampling']} where pixels do not coincide",
            "lock": lock_of(row, settings).as_posix(),
            "cover_of_dates": {date: seen["occluded"] for date, seen in lock["cover"].items()},
            **({"no_reference": "; ".join(notes)} if notes else {}),
            **facts,
        },
    )


def fetch_stac(row: SceneRow, settings: Mapping[str, Any]) -> list[RangeCache]:
    """Fetch all that :func:`open_stac` will read of the files on servers, and cut nothing.

    Args:
        row: row of the scene table.
        settings: section ``sources.stac`` of the config, and ``cache``.

    Returns:
        the caches, one per catalogue, which know what was asked for.

    Raises:
        InputError: if the lock does not fit, or a file cannot be had.
    """
    lock = _lock_of_scene(row, settings)
    jobs = _jobs(row, settings, lock, Path())
    for job in jobs:
        for parts in _fetch(job, lock["items"]).values():
            if job.preset.kind == "radar":
                for each in chain.from_iterable(parts.values()):
                    _calibrator(job.cache, each, job.preset)  # its tables are files of their own
    return [job.cache for job in jobs]


def _lock_of_scene(row: SceneRow, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the lock of a row; of a product's, what one of its dates needs.

    Raises:
        InputError: if the lock does not fit.
    """
    lock = read_lock(lock_of(row, settings), make_request(row, settings))
    if not row.product:
        return lock
    passes: dict[str, set[str]] = {"optical": set(), "radar": set()}
    for item in lock["items"]:
        passes[item["kind"]].add(item["date"])
    own = {row.target_date} & passes["optical"]
    context = choose_context(sorted(passes["optical"]), row.target_date, row.n_context, own)
    radar = choose_radar(sorted(passes["radar"]), row.target_date, context)
    used = {"optical": {*own, *context}, "radar": set(radar)}
    items = [item for item in lock["items"] if item["date"] in used[item["kind"]]]
    return lock | {"items": items, "chosen": lock["chosen"] | {"target": row.target_date}}


def _jobs(
    row: SceneRow, settings: Mapping[str, Any], lock: Mapping[str, Any], folder: Path
) -> list[_Job]:
    """Give what is shared by the optical frames of a lock and, if it has any, by those of radar."""
    request, facts = lock["request"], lock["grid"]
    grid = Grid(facts["crs"], tuple(facts["transform"]), *map(int, facts["shape"]))
    bands = {"optical": request["bands"]}
    if any(item["kind"] == "radar" for item in lock["items"]):
        bands["radar"] = SAR2
    jobs = []
    for kind, names in bands.items():
        preset = get_preset(request[kind], settings["presets"], kind=kind)
        jobs.append(
            _Job(
                name=f"{row.scene} {kind}",
                preset=preset,
                cache=make_cache(settings, preset),
                grid=grid,
                folder=folder,
                bands=tuple(names),
                resampling=settings["resampling"],
            )
        )
    return jobs


def place_name(area: str) -> str:
    """Return an id of a place: the name of its file, its tile, or its box."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", re.sub(r"\.(geo)?json$", "", Path(area).name))


def _keeping(source: SourceRaster, scratch: tempfile.TemporaryDirectory) -> SourceRaster:
    """Bind the life of the local files to the rasters that are read from them."""

    def read(window: Window, _scratch: object = scratch) -> np.ndarray:
        return source.read(window)

    return replace(source, read=read)


def remote_of(asset: Mapping[str, Any]) -> Remote:
    """Return the file of an asset of a lock."""
    return Remote(asset["href"], int(asset["size"]), asset["version"])


def _fetch(job: _Job, items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[_Wanted]]]:
    """Fetch what the grid needs of the rasters of items; first the heads of all files.

    Returns:
        the rasters by date and item, in the order of the lock.
    """
    mine = [item for item in items if item["kind"] == job.preset.kind]
    pairs = [(item, band) for item in mine for band in job.kept if band in item["assets"]]

    def plan(pair: tuple[Mapping[str, Any], str]) -> _Wanted | None:
        item, band = pair
        cut = plan_cut(job.cache, remote_of(item["assets"][band]), job.grid)
        return _Wanted(item, band, cut) if cut else None

    wanted = [w for w in run_parallel(plan, pairs, workers=job.cache.connections) if w]
    came = job.cache.fetch({w.cut.remote: w.cut.spans for w in wanted}, name=job.name)
    LOG.info("%s: %.2f MB fetched, the rest was there", job.name, came / 1e6)
    dates: dict[str, dict[str, list[_Wanted]]] = {}
    for each in wanted:
        _check_whole(job.cache, each)
        parts = dates.setdefault(each.item["date"], {})
        parts.setdefault(each.item["id"], []).append(each)
    return dict(sorted(dates.items()))


def stated_digest(checksum: str) -> tuple[str, str] | None:
    """Return algorithm and hex digest of a multihash; None for what cannot be relied on.

    Catalogues also write bare digests, and codes that do not fit the digest (Copernicus: 0x16,
    SHA3-256, before 16 bytes), so the length must be that of the algorithm.
    """
    for prefix, kind, digits in (
        ("1220", "sha256", 64),
        ("d50110", "md5", 32),
        ("1114", "sha1", 40),
    ):
        if checksum.startswith(prefix) and len(checksum) == len(prefix) + digits:
            return kind, checksum.removeprefix(prefix)
    return None


def _check_whole(cache: RangeCache, wanted: _Wanted) -> None:
    """Check the checksum that a catalogue states, where the whole file is here.

    Raises:
        InputError: if it does not agree.
    """
    checksum = wanted.item["assets"][wanted.band].get("file:checksum", "")
    stated = stated_digest(checksum)
    if wanted.cut.spans != ((0, wanted.cut.remote.size),) or stated is None:
        return
    kind, expected = stated
    digest = hashlib.new(kind, usedforsecurity=False)
    with cache.open(wanted.cut.remote) as file:
        while data := file.read(1 << 20):
            digest.update(data)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{kind} {digest.hexdigest()} instead of {checksum}",
            file=wanted.cut.remote.href,
            field="file:checksum",
            remedy="the server's file is damaged; leave the item out (sources.stac.leave_out)",
        )


# --- optical ----------------------------------------------------------------------------


def _optical(
    job: _Job, date: str, parts: Mapping[str, Sequence[_Wanted]]
) -> tuple[SourceRaster, SourceRaster | None]:
    """Make the frame of a date, and its mask where the catalogue has one."""
    offsets, cuts, masks = {}, [], []
    for name, wanted in parts.items():
        reflective = {w.band: w.cut for w in wanted if w.band != MASK}
        if not reflective:
            continue
        offsets[name] = decide_offset(
            job.cache, wanted[0].item, wanted[0].item["assets"], reflective, job.preset
        )
        convert = {band: harmoniser(band, offsets[name]) for band in reflective}
        files = _cut_all(job, wanted, {**convert, MASK: as_stored}, nodata=0)
        masks += [{MASK: files.pop(MASK)}] if MASK in files else []
        cuts.append(files)
    facts = {**_facts([w[0].item for w in parts.values()]), **_offset_facts(offsets)}
    frame = _mosaic(job, cuts, f"{date}.tif", job.bands, job.resampling, 0)
    if not masks:
        return SourceRaster(job.bands, _reader(frame), facts), None
    mask = _mosaic(job, masks, f"{date}-{MASK}.tif", (MASK,), "nearest", 0)
    return SourceRaster(job.bands, _reader(frame), facts), SourceRaster((MASK,), _reader(mask))


def _cut_all(
    job: _Job, wanted: Sequence[_Wanted], convert: Mapping[str, Convert], *, nodata: float
) -> dict[str, Path]:
    files = {}
    for each in wanted:
        files[each.band] = path = job.folder / f"part-{uuid.uuid4().hex}.tif"
        how = convert[each.band]
        write_cut(job.cache, each.cut, job.grid, path, convert=how, nodata=nodata)
    return files


def _mosaic(
    job: _Job,
    cuts: Sequence[Mapping[str, Path]],
    name: str,
    bands: Sequence[str],
    resampling: str,
    nodata: float,
) -> Path:
    """Mosaic cut-outs, which are not needed any more then."""
    path = job.folder / name
    mosaic(cuts, job.grid, path, bands=bands, resampling=resampling, nodata=nodata)
    for files in cuts:
        for file in files.values():
            file.unlink()
    return path


def as_stored(data: np.ndarray, lines: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Change nothing."""
    return data


def harmoniser(band: str, offset: Offset) -> Convert:
    """Return what turns stored DN of a band into reflectance x 10000."""

    def convert(data: np.ndarray, lines: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        return radiometry.harmonise(data[None], [band], offset)[0]

    return convert


def decide_offset(
    cache: RangeCache,
    item: Mapping[str, Any],
    assets: Mapping[str, Mapping[str, Any]],
    cuts: Mapping[str, Cut],
    preset: Preset,
) -> Offset:
    """Decide the offset of an item from its metadata and hold it against its pixels.

    Args:
        cache: holds the pixels.
        item: the item.
        assets: its assets by ESA name.
        cuts: what is used of it, by ESA name.
        preset: the catalogue.
    """
    first = next(iter(cuts))
    offset = radiometry.offset_of_item(item, assets[first], preset.offset)
    levels: dict[str, float] = {}
    medians: dict[str, float] = {}
    for band, cut in cuts.items():
        dn = read_cut(cache, cut)[None]
        levels |= radiometry.dark_levels(dn, [band])
        medians |= radiometry.median_levels(dn, [band])
    offset = radiometry.cross_check(offset, levels, reliable=preset.offset.reliable)
    return radiometry.check_brightness(offset, medians)


def _offset_facts(offsets: Mapping[str, Offset]) -> dict[str, Any]:
    """Join the facts of the items of a date; where they differ, all are named."""
    facts: dict[str, Any] = {}
    for name, offset in offsets.items():
        for key, value in offset.facts().items():
            if key == "unveil:warnings":
                facts[key] = [*facts.get(key, []), *(f"{name}: {text}" for text in value)]
            elif key in facts and facts[key] != value:
                facts[key] = f"{facts[key]}, {value} ({name})"
            else:
                facts[key] = value
    return facts


def _facts(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = acquisition_of(items[0])
    facts: dict[str, Any] = {
        "unveil:source": ", ".join(item["id"] for item in items),
        "unveil:time": first.time.isoformat().replace("+00:00", "Z"),
        "platform": first.platform,
    }
    if first.relative_orbit is not None:
        facts["sat:relative_orbit"] = first.relative_orbit
    if first.orbit_state:
        facts["sat:orbit_state"] = first.orbit_state
    return facts


def _reader(path: Path):
    return lambda window: raster.read(path, window=window)


# --- radar ------------------------------------------------------------------------------


def _radar(job: _Job, date: str, parts: Mapping[str, Sequence[_Wanted]]) -> SourceRaster:
    """Make a radar frame in dB; power is mosaicked, decibels are taken last."""
    cuts = []
    for wanted in parts.values():
        convert = {w.band: _calibrator(job.cache, w, job.preset) for w in wanted}
        cuts.append(_cut_all(job, wanted, convert, nodata=np.nan))
    path = _mosaic(job, cuts, f"sar-{date}.tif", SAR2, job.resampling, np.nan)
    seen = radiometry.to_decibel(raster.read_decimated(path))
    radiometry.check_backscatter(seen, file=", ".join(parts))
    facts = _facts([wanted[0].item for wanted in parts.values()])
    facts["unveil:calibration"] = job.preset.calibration
    return SourceRaster(SAR2, _decibel_reader(path), facts)


def _decibel_reader(path: Path):
    return lambda window: radiometry.to_decibel(raster.read(path, window=window))


def _annotation(cache: RangeCache, remote: Remote) -> bytes:
    if remote.size > MOST_ANNOTATION_BYTES:
        raise BadFileError(
            f"an annotation of {remote.size / 2**20:,.0f} MB",
            file=remote.href,
            remedy="leave the item out (sources.stac.leave_out)",
        )
    cache.ensure(remote, [(0, remote.size)])
    with cache.open(remote) as file:
        return file.read()


def _power_of_decibel(data: np.ndarray, lines: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    decibel = to_decibel_or_nan(data[None])[0]
    return (10 ** (decibel.astype(np.float64) / 10)).astype(np.float32)


def _calibrator(cache: RangeCache, part: _Wanted, preset: Preset):
    """Return what turns stored radar numbers into linear power, NaN where there is none."""
    if preset.pixels == "linear":
        return lambda data, lines, pixels: np.where(
            np.isfinite(data) & (data > 0), data, np.nan
        ).astype(np.float32)
    if preset.pixels == "dB":
        return _power_of_decibel
    tables = {}
    for kind, name in (("calibration", "sigmaNought"), ("noise", "noise")):
        asset = part.item["assets"].get(f"{kind}-{part.band}")
        if asset is None:
            continue
        remote = remote_of(asset)
        text = _annotation(cache, remote)
        tables[kind] = radiometry.read_lut(text, name, file=remote.href)
    if "calibration" not in tables:
        raise InputError(
            f"{part.item['id']} has no calibration of {part.band}",
            field=f"assets.calibration-{part.band}",
            remedy="name the asset in your presets (sources.stac.presets)",
        )
    high, wide = part.cut.shape

    def convert(data: np.ndarray, lines: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        power = radiometry.sigma0_from_grd(data, lines, pixels, **tables)
        ends = {
            "top": lines[0, 0] == 0,
            "bottom": lines[-1, 0] + 1 == high,
            "left": pixels[0, 0] == 0,
            "right": pixels[0, -1] + 1 == wide,
        }
        sides = [side for side, here in ends.items() if here]
        return radiometry.remove_border_noise(power, floor=BORDER_FLOOR, sides=sides).astype(
            np.float32
        )

    return convert
