"""What masks do to the pixels that models fill, and what they cost.

Run: ``python benchmarks/masks.py FOLDER [--place ID ...] [--update FILE]``. FOLDER has a folder for
each place, named as in ``places.py``. On real pairs (``protocols.py``) the target and the context
are masked by each detector and by the consensus, grown alike; what is scored stays that of the
delivered mask. Of each place the table has

- the median error of six simple methods over pairs, under what the delivered mask hides,
- the excess of the shortest band over the clear date in pixels that the mask calls clear,
- the share that the mask hides of clear dates, in pixels that the delivered mask calls clear,
- the share of pixels that it hides or shows as the delivered mask does, neither grown,
- CPU seconds a megapixel.

Then it compares s2cloudless with its library: same pixels, same process, all cores, in turns, of
which the median counts, so that a busy machine disturbs both alike. The last line is the ratio of
throughputs (above 1: Unveil is faster), and whether all probabilities are equal to the bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from common import load_models, update
from protocols import PLACES, Place, Trial, _error, _inputs, find_pairs, open_place, trials_of
from rasterio.windows import Window

from unveil.bands import CLEAR, CLOUD, L1C13, NODATA, REFLECTANCE_SCALE, S2CLOUDLESS10, SHADOW
from unveil.classes import HIDDEN_GROWTH_PX, dilate
from unveil.masks.detectors import s2cloudless, ukis
from unveil.masks.detectors.coarse import block_means, enlarge
from unveil.models.base import Model
from unveil.places.series import Series
from unveil.scene import is_clear, is_occluded

PIXELS = 200_000
METHODS = ("linear", "damped", "geomedian-20d", "robust_line", "regressed", "inpaint")
PIXEL_M = {"hungary": 20.0, "sweden": 20.0, "worldcereal-2": 20.0}
"""Pixels of places; of the others 10 m."""
NATIVE, ADVISED = "ukis, its own pixels", "ukis, 30 m"


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

    @property
    def grown(self) -> np.ndarray:
        """The same as models are given it."""
        return np.stack([dilate(classes, HIDDEN_GROWTH_PX) for classes in self.classes])


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
    masks = judged.grown
    errors: dict[str, list[float]] = {name: [] for name in models}
    excess = []
    for target, truth in pairs:
        _, trial = next(trials_of(place, target, truth, real=True))  # the real one comes first
        masked = replace(place, grown=masks)
        inputs = _inputs(masked, trial.inputs.target, masks[target], target, {target, truth})
        excess.append(left_in_clear(trial, masks[target]))
        for name, model in models.items():
            error = _error(place.series, model, replace(trial, inputs=inputs))
            if error is not None:
                errors[name].append(error)
    truths = sorted({truth for _, truth in pairs})
    known = place.series.classes != NODATA
    same = is_occluded(judged.classes) == is_occluded(place.series.classes)
    return {
        **{name: median_of(found) for name, found in errors.items()},
        "excess left": median_of(excess),
        "clear lost": float(np.mean([lost(place, masks, date) for date in truths])),
        "as delivered": float(same[known].mean()),
        "CPU s/Mpx": judged.cpu,
    }


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


def table_of(name: str, place: Place, models: dict[str, Model]) -> str:
    """Return the table of a place as Markdown."""
    rows = {}
    for label, judged in judge_place(place, PIXEL_M.get(name, 10.0)).items():
        rows[label] = measure_place(place, judged, models)
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
    given = parser.parse_args()
    models = load_models(list(METHODS))
    tables = []
    for name in given.place:
        if (given.folder / name).is_dir():
            tables.append(table_of(name, open_place(name, given.folder), models))
            print(tables[-1], flush=True)
    chosen = [f"--place {' '.join(given.place)}"] if given.place != list(PLACES) else []
    if given.update:
        update(
            given.update,
            "masks",
            "\n\n".join(t for t in tables if t),
            " ".join(["python benchmarks/masks.py FOLDER", *chosen]),
        )
    print(compare_s2cloudless(pixels_of(given.folder), given.turns))


if __name__ == "__main__":
    main()
