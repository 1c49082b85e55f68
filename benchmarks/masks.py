"""Speed of s2cloudless against its library, same pixels, same process, all cores.

Run: ``python benchmarks/masks.py [FOLDER]``. FOLDER has a folder ``sabina`` for the thirteen-band
images of SEN12MS-CR-TS (docs/protocols.md); without it pixels are drawn at random. The two take
turns, and the median of the turns counts, so that a busy machine disturbs both alike. The last
line is the ratio of throughputs (above 1: Unveil is faster), and whether all probabilities are
equal to the bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio

from unveil.bands import L1C13, REFLECTANCE_SCALE, S2CLOUDLESS10
from unveil.masks.detectors import s2cloudless

PIXELS = 200_000


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


def main() -> None:
    """Print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="has one folder a place")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    print(compare_s2cloudless(pixels_of(given.folder), given.turns))


if __name__ == "__main__":
    main()
