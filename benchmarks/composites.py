"""Speed of the geometric median against Weiszfeld's iteration, same tolerance, same process.

Run: ``python benchmarks/composites.py``. Looks are those of the example place in Romania: windows
of twelve dates, six bands, clear by SCL. Prints CPU seconds per megapixel of both and their
ratio, and how far from the minimum Weiszfeld's iteration stopped after at most 1000 steps.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unveil import raster
from unveil.composites import geometric_median, medoid

PLACE = Path(__file__).parents[1] / "resources" / "example" / "romania"
DATES = 12
CLEAR_SCL = (4, 5, 6, 7)


def read_windows() -> tuple[np.ndarray, np.ndarray]:
    """Return looks ``(12, 6, N)`` and clear ``(12, N)`` of overlapping windows of dates."""
    frames = sorted((PLACE / "frames").glob("*.tif"))
    looks = np.stack([raster.read(path) for path in frames]).reshape(len(frames), 6, -1)
    scl = np.stack([raster.read(PLACE / "masks" / path.name)[0].ravel() for path in frames])
    clear = np.isin(scl, CLEAR_SCL) & (looks > 0).all(axis=1)
    values = np.where(clear[:, None], looks / 1e4, 0)
    windows = [slice(i, i + DATES) for i in range(0, len(frames) - DATES, DATES // 2)]
    return (
        np.concatenate([values[window] for window in windows], axis=2),
        np.concatenate([clear[window] for window in windows], axis=1),
    )


def weiszfeld(
    looks: np.ndarray, clear: np.ndarray, *, tolerance: float = 1e-7, steps: int = 1000
) -> np.ndarray:
    """Return what Weiszfeld's iteration from the medoid gives, as Vardi & Zhang mend it."""
    centre = medoid(looks, clear)
    active = np.flatnonzero(clear.any(axis=0))
    for _ in range(steps):
        seen, start = np.take(clear, active, axis=1), np.take(centre, active, axis=1)
        offset = np.take(looks, active, axis=2) - start
        distance = np.linalg.norm(offset, axis=1)
        away = seen & (distance > 0)
        weight = np.divide(1, distance, out=np.zeros_like(distance), where=away)
        pull = np.einsum("tn,tbn->bn", weight, offset)
        strength = np.maximum(np.linalg.norm(pull, axis=0), 1e-300)
        held = np.minimum(1, (seen & ~away).sum(axis=0) / strength)
        step = (1 - held) * pull / np.maximum(weight.sum(axis=0), 1e-300)
        centre[:, active] = start + step
        active = active[np.linalg.norm(step, axis=0) > tolerance]
        if not len(active):
            break
    return centre


def cpu_seconds(function: Callable, *arguments: np.ndarray) -> tuple[float, np.ndarray]:
    """Return CPU seconds per megapixel, and the result."""
    start = time.process_time()
    result = function(*arguments)
    return (time.process_time() - start) / arguments[0].shape[2] * 1e6, result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=60_000)
    count = parser.parse_args().pixels
    looks, clear = (array[..., :count] for array in read_windows())
    pixels = looks.shape[2]
    geometric_median(looks[..., :1], clear[:, :1])  # read or compiled once
    ours, found = cpu_seconds(geometric_median, looks, clear)
    theirs, other = cpu_seconds(weiszfeld, looks, clear)
    off = np.nanmax(np.abs(found - other), axis=0, where=~np.isnan(found), initial=0)
    print(f"{pixels} pixels, {DATES} dates, 6 bands; load {os.getloadavg()[0]:.1f}")
    print("geometric median  CPU s/Mpx  ratio")
    print(f"Unveil            {ours:9.2f}  {theirs / ours:5.1f}")
    print(f"Weiszfeld         {theirs:9.2f}    1.0")
    print(
        f"Weiszfeld is off by more than 1e-6 in {np.mean(off > 1e-6):.4%}, at most {off.max():.4f}"
    )


if __name__ == "__main__":
    main()
