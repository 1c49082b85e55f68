"""What masks do to the pixels that models fill, and what they cost.

Run: ``python benchmarks/masks.py FOLDER [--place ID ...] [--growth] [--update FILE]``. FOLDER
has a folder for each place, named as in ``resources/places.yaml``. On real pairs (``protocols.py``)
the target and the context are masked by each detector and by the consensus, grown alike; what is
scored stays that of the delivered mask. Of each place the table has

- the median error of six simple methods over pairs, under what the delivered mask hides,
- the excess of the shortest band over the clear date in pixels that the mask calls clear,
- the share that the mask hides of clear dates, in pixels that the delivered mask calls clear,
- the share of pixels that it hides or shows as the delivered mask does, neither grown,
- CPU seconds a megapixel.

Tables of growth: the excess over the ground that all dates of a place have by the distance from
what the consensus hides, not grown, how the stage's own estimate of a target's veil agrees with its
excess over the clear date, and the same errors by the growth of target and context.

Then it compares s2cloudless with its library: same pixels, same process, all cores, in turns, of
which the median counts, so that a busy machine disturbs both alike. The last line is the ratio of
throughputs (above 1: Unveil is faster), and whether all probabilities are equal to the bit.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from common import load_models, update
from protocols import PLACES, Place, Trial, _error, _inputs, find_pairs, open_place, trials_of
from rasterio.windows import Window

from unveil import raster
from unveil.bands import (
    CLEAR,
    CLOUD,
    L1C13,
    NODATA,
    REFLECTANCE_SCALE,
    S2CLOUDLESS10,
    SHADOW,
)
from unveil.classes import HIDDEN_GROWTH_PX, dilate
from unveil.distance import distance_from
from unveil.excess import TRUSTED_PX, excess_of_dn, ground_of, smooth_excess
from unveil.masks.detectors import s2cloudless, ukis
from unveil.masks.detectors.coarse import block_means, coarse_step, enlarge
from unveil.masks.mask_scene import LEAST_GROWTH_PX
from unveil.masks.series import history_bands, released, with_brighter
from unveil.masks.veil import CELL_M, veils_of
from unveil.models.base import Model
from unveil.places.series import Series
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, is_clear, is_occluded

PIXELS = 200_000
METHODS = ("linear", "damped", "geomedian-20d", "robust_line", "regressed", "inpaint")
RINGS_M = (0, 20, 40, 60, 80, 120, 160, 320)
"""Metres from cloud and shadow between which an excess is a mean."""
GROWTHS_M = ((20, 20), (60, 20), (60, 40))
"""Metres by which target and context are grown."""
LOOKS = 12
"""Dates that tell the ground of another."""
LEAST_PIXELS = 200
"""Clear pixels from which a pair tells of a veil."""
PIXEL_M = {"hungary": 20.0, "sweden": 20.0, "worldcereal-2": 20.0}
"""Pixels of places; of the others 10 m."""
NATIVE, ADVISED = "ukis, its own pixels", "ukis, 30 m"
SETTLED = "delivered or ukis, 30 m, settled by series"


def pixels_of(folder: Path | None) -> np.ndarray:
    """Return reflectance ``(N, 10)`` float32, of real images where there are some."""
    paths = sorted(folder.glob("sabina/s2_*.tif")) if folder else []
    if not paths:
        print("pixels drawn at random")
        return np.random.default_rng(0).gamma(2, 0.1, (PIXELS, 10)).astype(np.float32)
    flat = []
    for path in paths:
        with rasterio.open(path) as image:
            data = image.read([L1C13.index(name) + 1 for name in S2CLOUDLESS10])
        flat.append(data.reshape(10, -1).T)
    every = np.concatenate(flat).astype(np.float32) / np.float32(REFLECTANCE_SCALE)
    return every[:: max(1, len(every) // PIXELS)]


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock and of all cores."""

    wall: float
    cpu: float


def spent(work: Callable[[], object]) -> Spent:
    """Return what a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def compare_s2cloudless(pixels: np.ndarray, turns: int) -> str:
    """Return the table of seconds per megapixel, and the line with the ratio."""
    trees = s2cloudless.read_library_trees()
    if trees is None:
        return "s2cloudless ratio 1.00 equal yes"  # the library itself is what runs
    peers = {
        "Unveil": lambda: s2cloudless.by_trees(trees, pixels),
        "library": lambda: s2cloudless.by_library(pixels),
    }
    equal = np.array_equal(*(peer() for peer in peers.values()), equal_nan=True)
    taken: dict[str, list[Spent]] = {name: [] for name in peers}
    for _ in range(turns):
        for name, peer in peers.items():
            taken[name].append(spent(peer))
    mega = len(pixels) / 1e6
    lines = ["| s2cloudless by | s a megapixel | CPU s a megapixel |", "|---|---|---|"]
    walls = {}
    for name, each in taken.items():
        walls[name] = statistics.median(one.wall for one in each)
        cpu = statistics.median(one.cpu for one in each)
        lines.append(f"| {name} | {walls[name] / mega:.2f} | {cpu / mega:.2f} |")
    ratio = walls["library"] / walls["Unveil"]
    return "\n".join(
        [*lines, "", f"s2cloudless ratio {ratio:.2f} equal {'yes' if equal else 'no'}"]
    )


# --- detectors on real pairs ---------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """The masks of all dates of a place by one detector.

    Attributes:
        classes: ``(T, H, W)`` uint8, not grown.
        cpu: seconds a megapixel, NaN where they came with the data.
    """

    classes: np.ndarray
    cpu: float

    def grown(self, pixels: int = HIDDEN_GROWTH_PX) -> np.ndarray:
        """Return the same, grown as models are given it."""
        return np.stack([dilate(classes, pixels) for classes in self.classes])


def judge_place(place: Place, pixel_m: float) -> dict[str, Judged]:
    """Return what each detector that applies finds, and every union with the delivered mask."""
    delivered = place.series.classes
    found = {"delivered": Judged(delivered, float("nan"))}
    if not ukis.bands_for(place.series.bands):
        return found
    for name, step in ((NATIVE, 1), (ADVISED, max(1, round(ukis.PIXEL_M / pixel_m)))):
        judged = judge_by_ukis(place.series, step)
        found[name] = judged
        found[f"delivered or {name}"] = Judged(join(delivered, judged.classes), judged.cpu)
    return found


def judge_by_ukis(series: Series, step: int) -> Judged:
    """Return the classes of all dates by the package's network, seen at a multiple of pixels."""
    bands = ukis.bands_for(series.bands)
    network = ukis.load_network(len(bands), series.level)
    images = series.reflectance[:, [series.bands.index(name) for name in bands]]
    shape, made = images.shape[2:], []

    def read(image: np.ndarray, window: Window) -> np.ndarray:
        return block_means(image[(slice(None), *window.toslices())], step)

    begin = time.process_time()
    for image in images:
        small, _ = ukis.judge(network, partial(read, image), shape, step)
        made.append(np.choose(enlarge(small, step, shape), (CLEAR, CLOUD, SHADOW)))
    cpu = (time.process_time() - begin) / (len(images) * np.prod(shape) / 1e6)
    return Judged(np.stack(made).astype(np.uint8), float(cpu))


def join(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return classes that hide what either hides, cloud before shadow; nodata is the first's."""
    joined = np.where(is_occluded(other) & (one != CLOUD) & (one != NODATA), other, one)
    return np.where((other == CLOUD) & (one != NODATA), CLOUD, joined).astype(np.uint8)


def measure_place(place: Place, judged: Judged, models: dict[str, Model]) -> dict[str, float]:
    """Return the numbers of a row of the table."""
    pairs, real = find_pairs(place)
    if not real:
        return {}
    masks = judged.grown()
    excess = [left_in_clear(trial, masks[target]) for target, _, trial in real_trials(place)]
    truths = sorted({truth for _, truth in pairs})
    known = place.series.classes != NODATA
    same = is_occluded(judged.classes) == is_occluded(place.series.classes)
    return {
        **measure_errors(place, models, target=masks, context=masks),
        "excess left": median_of(excess),
        "clear lost": float(np.mean([lost(place, masks, date) for date in truths])),
        "as delivered": float(same[known].mean()),
        "CPU s/Mpx": judged.cpu,
    }


def real_trials(place: Place) -> Iterator[tuple[int, int, Trial]]:
    """Yield each real pair of a place: positions of target and truth, and its trial."""
    for target, truth in find_pairs(place)[0]:
        _, trial = next(trials_of(place, target, truth, real=True))  # the real one comes first
        yield target, truth, trial


def measure_errors(
    place: Place, models: dict[str, Model], *, target: np.ndarray, context: np.ndarray
) -> dict[str, float]:
    """Return the median error of each method over pairs, by masks ``(T, H, W)`` of both kinds."""
    errors: dict[str, list[float]] = {name: [] for name in models}
    masked = replace(place, grown=context)
    for date, truth, trial in real_trials(place):
        inputs = _inputs(masked, trial.inputs.target, target[date], date, {date, truth})
        for name, model in models.items():
            error = _error(place.series, model, replace(trial, inputs=inputs))
            if error is not None:
                errors[name].append(error)
    return {name: median_of(found) for name, found in errors.items()}


def left_in_clear(trial: Trial, classes: np.ndarray) -> float:
    """Return the mean excess of the shortest band where a mask and the truth are clear."""
    known = np.isfinite(trial.truth).all(axis=0) & np.isfinite(trial.inputs.target).all(axis=0)
    use = known & is_clear(classes) & (trial.clear | trial.scored)
    gap = (trial.inputs.target[0] - trial.truth[0])[use]
    return float(gap.mean(dtype=np.float64)) if gap.size else float("nan")


def lost(place: Place, masks: np.ndarray, date: int) -> float:
    """Return the hidden share of what the delivered, grown mask of a date calls clear."""
    clear = is_clear(place.grown[date]) & place.has_data[date]
    return float(is_occluded(masks[date])[clear].mean()) if clear.any() else float("nan")


def median_of(values: Iterable[float]) -> float:
    """Return the median of what is known."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


# --- growth and veil -----------------------------------------------------------------------


def consensus_of(judged: dict[str, Judged]) -> Judged:
    """Return the masks that models are given by default."""
    return judged.get(f"delivered or {ADVISED}", judged["delivered"])


def excess_by_ring(place: Place, judged: Judged, pixel_m: float) -> list[float]:
    """Return the mean excess over the ground of pixels called clear, by metres from the hidden.

    Of all dates that hide 5 to 80 % of a place; the ground is that of their twelve nearest.
    """
    series, hidden = place.series, is_occluded(judged.classes)
    reach = round(RINGS_M[-1] / pixel_m)
    near = np.stack([distance_from(one, reach=reach) for one in hidden])
    clear = is_clear(judged.classes) & place.has_data
    total, count = np.zeros(len(RINGS_M) - 1), np.zeros(len(RINGS_M) - 1)
    covers = hidden.mean(axis=(1, 2))
    for date in np.flatnonzero((covers >= 0.05) & (covers <= 0.8)):
        excess = excess_of(series, int(date), clear, near)
        known = clear[date] & np.isfinite(excess)
        ring = np.digitize(near[date][known] * pixel_m, RINGS_M[1:-1])
        total += np.bincount(ring, excess[known], minlength=len(total))
        count += np.bincount(ring, minlength=len(count))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0).tolist()


def excess_of(series: Series, date: int, clear: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the excess of a date in the shortest band over its twelve nearest, ``(H, W)``."""
    days = np.abs(series.days.astype(int) - int(series.days[date]))
    others = [other for other in np.argsort(days, kind="stable") if other != date][:LOOKS]
    ground = ground_of(
        np.nan_to_num(series.reflectance[others]),
        clear[others],
        days=days[others].tolist(),
        distance=np.maximum(near[others], 1),
    )
    return series.reflectance[date, 0] - ground[0]


def settle_by_series(place: Place, judged: Judged) -> Judged:
    """Return masks settled as the detector ``series`` does, at each pixel."""
    series, begin = place.series, time.process_time()
    bands = [series.bands.index(band) for band in history_bands(series.bands)]
    classes = np.where(
        released(series.reflectance[:, bands], judged.classes), CLEAR, judged.classes
    )
    near = np.stack([distance_from(is_occluded(one), reach=TRUSTED_PX) for one in classes])
    clear = is_clear(classes) & place.has_data
    made = []
    for date in range(len(classes)):
        excess = excess_of(series, date, clear, near)[None]
        made.append(with_brighter(classes[date], smooth_excess(excess, clear[date])[0]))
    cpu = (time.process_time() - begin) / (classes.size / 1e6)
    return Judged(np.stack(made), judged.cpu + cpu)


def veil_agreement(place: Place, judged: Judged, pixel_m: float) -> tuple[float, float]:
    """Return how a target's veil by the stage agrees with its excess over the clear date.

    Where the masks of both dates call clear: the correlation, and the mean difference in
    reflectance; medians over pairs.
    """
    masks, found = judged.grown(), []
    for date, truth, trial in real_trials(place):
        masked = replace(place, grown=masks)
        inputs = _inputs(masked, trial.inputs.target, masks[date], date, {date, truth})
        veil = estimate_veil(inputs, pixel_m)
        use = trial.clear & inputs.target_clear & np.isfinite(veil)
        excess = np.where(use, inputs.target[0] - trial.truth[0], np.nan)
        true = smooth_excess(excess[None], use)[0][use]
        if true.size > LEAST_PIXELS:
            found.append((np.corrcoef(veil[use], true)[0, 1], (veil[use] - true).mean()))
    correlation, gap = (median_of(column) for column in zip(*found, strict=True))
    return correlation, gap


def estimate_veil(inputs: Inputs, pixel_m: float) -> np.ndarray:
    """Return the veil of a target as the stage writes it, ``(H, W)`` reflectance."""
    height, width = inputs.shape
    grid = Grid("EPSG:32633", (pixel_m, 0.0, 500000.0, 0.0, -pixel_m, 5000000.0), height, width)
    day = dt.date.fromisoformat(inputs.target_date)
    days = [0, *inputs.days.astype(int).tolist()]
    images = [inputs.target, *inputs.context]
    classes = [inputs.target_class, *inputs.context_class]
    with TemporaryDirectory() as folder:
        frames = []
        for number, (image, found) in enumerate(zip(images, classes, strict=True)):
            data, mask = (Path(folder) / f"{number}{part}.tif" for part in ("", "_mask"))
            raster.write_cog(data, raster.to_dn(image), grid, descriptions=inputs.bands, nodata=0)
            raster.write_cog(mask, found[None], grid, descriptions=["CLASS"], nodata=NODATA)
            date = (day + dt.timedelta(days=days[number])).isoformat()
            frames.append(Frame(date, "context", data, inputs.bands, mask))
        whole = Window(0, 0, width, height)
        dn = veils_of(tuple(frames), grid, whole, coarse_step(grid, CELL_M))[0]
    return excess_of_dn(dn)


def ring_row(name: str, place: Place, judged: Judged, pixel_m: float) -> str:
    """Return the excess of a place by distance from what is hidden, as a row of Markdown."""
    rings = excess_by_ring(place, judged, pixel_m)
    agreement = veil_agreement(place, judged, pixel_m) if find_pairs(place)[1] else ()
    cells = [f"{value:.4f}" if np.isfinite(value) else "" for value in (*rings, *agreement)]
    return f"| {name} | " + " | ".join([*cells, *[""] * (2 - len(agreement))]) + " |"


def ring_table(rows: Iterable[str]) -> str:
    """Return the table of :func:`ring_row`."""
    spans = [f"{near} to {far} m" for near, far in pairwise(RINGS_M)]
    head = ["excess over the ground", *spans, "veil, correlation", "veil, difference"]
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows])


def growth_table(
    name: str, place: Place, judged: Judged, models: dict[str, Model], pixel_m: float
) -> str:
    """Return the errors of methods by the growth of target and context, as Markdown."""
    if not find_pairs(place)[1]:
        return ""
    head = f"| {name}, target, context | " + " | ".join(models) + " |"
    lines = [head, "|---" * (len(models) + 1) + "|"]
    for growth in GROWTHS_M:
        target, context = (
            judged.grown(max(LEAST_GROWTH_PX, math.ceil(metres / pixel_m))) for metres in growth
        )
        errors = measure_errors(place, models, target=target, context=context)
        cells = " | ".join(f"{error:.4f}" for error in errors.values())
        lines.append(f"| {growth[0]} m, {growth[1]} m | {cells} |")
    return "\n".join(lines)


def table_of(name: str, place: Place, found: dict[str, Judged], models: dict[str, Model]) -> str:
    """Return the table of a place as Markdown."""
    rows = {label: measure_place(place, judged, models) for label, judged in found.items()}
    columns = list(next(iter(rows.values())))
    if not columns:
        return ""
    lines = [f"| {name}, {len(find_pairs(place)[0])} pairs | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for label, row in rows.items():
        cells = (f"{value:.4f}" if np.isfinite(value) else "" for value in row.values())
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and the ratio."""
    parser = argparse.ArgumentParser(description="What masks do, and what they cost.")
    parser.add_argument("folder", type=Path, help="has one folder a place")
    parser.add_argument("--place", nargs="*", default=list(PLACES), choices=PLACES, metavar="ID")
    parser.add_argument("--turns", type=int, default=5, help="of s2cloudless and its library")
    parser.add_argument("--update", type=Path, metavar="FILE", help="document to renew")
    parser.add_argument("--growth", action="store_true", help="tables of growth and veil alone")
    given = parser.parse_args()
    models = load_models(list(METHODS))
    tables, rings, growths = [], [], []
    for name in given.place:
        if (given.folder / name).is_dir():
            place, pixel_m = open_place(name, given.folder), PIXEL_M.get(name, 10.0)
            found = judge_place(place, pixel_m)
            default = consensus_of(found)
            if history_bands(place.series.bands):
                found[SETTLED] = settle_by_series(place, default)
            rings.append(ring_row(name, place, default, pixel_m))
            growths.append(growth_table(name, place, default, models, pixel_m))
            if not given.growth:
                tables.append(table_of(name, place, found, models))
            print(rings[-1], growths[-1], *tables[-1:], sep="\n\n", flush=True)
    growth = "\n\n".join([ring_table(rings), *filter(None, growths)])
    command = ["python benchmarks/masks.py FOLDER"]
    command += ["--growth"] if given.growth else []
    command += [f"--place {' '.join(given.place)}"] if given.place != list(PLACES) else []
    if given.update:
        update(given.update, "growth", growth, " ".join(command))
    if given.update and not given.growth:
        update(given.update, "masks", "\n\n".join(filter(None, tables)), " ".join(command))
    print(compare_s2cloudless(pixels_of(given.folder), given.turns))


if __name__ == "__main__":
    main()
