"""Speed of the metrics against scikit-image, same definition, same process.

Run: ``python benchmarks/metrics.py``. Prints seconds and the ratio (above 1: Unveil is
faster), and the largest difference between the two answers. The two take turns, and the
median of the turns counts, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from skimage.metrics import (
    mean_squared_error,
    peak_signal_noise_ratio,
    structural_similarity,
)

from unveil.metrics import definitions
from unveil.metrics.streaming import Accumulator


def peers() -> dict[str, tuple[Callable, Callable]]:
    """Metric -> (ours, scikit-image's), both taking prediction and truth ``(B, H, W)``."""
    return {
        "RMSE": (definitions.rmse, lambda p, t: mean_squared_error(t, p) ** 0.5),
        "PSNR": (definitions.psnr, lambda p, t: peak_signal_noise_ratio(t, p, data_range=1)),
        "SSIM": (
            definitions.ssim,
            lambda p, t: structural_similarity(
                t,
                p,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1,
                channel_axis=0,
            ),
        ),
    }


def take_turns(ours: Callable, theirs: Callable, turns: int) -> tuple[float, float]:
    """Median seconds of both."""
    seconds = ([], [])
    for _ in range(turns):
        for function, times in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return tuple(map(statistics.median, seconds))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="side of the image in pixels")
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    shape = (args.bands, args.size, args.size)
    truth = rng.uniform(0.02, 0.6, shape)
    prediction = truth + rng.normal(0, 0.02, shape)
    print(f"{args.bands} bands of {args.size} x {args.size} pixels, float64")
    print("metric   Unveil s  scikit-image s  ratio  difference")
    for name, (ours, theirs) in peers().items():
        gap = abs(ours(prediction, truth) - theirs(prediction, truth))
        mine, other = take_turns(
            lambda f=ours: f(prediction, truth),
            lambda f=theirs: f(prediction, truth),
            args.turns,
        )
        print(f"{name:6}  {mine:9.3f}  {other:14.3f}  {other / mine:5.2f}  {gap:10.1e}")
    print_streaming(prediction, truth)


def print_streaming(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Print what all metrics together cost a pixel, in one region."""
    bands = ("B02", "B03", "B04", "B08", "B8A", "B11")[: len(truth)]
    everywhere = np.ones(truth.shape[1:], bool)
    start = time.perf_counter()
    sums = Accumulator(bands, ("all",))
    sums.update(prediction, truth, everywhere, {"all": everywhere})
    found = sum(1 for _ in sums.scores())
    seconds = time.perf_counter() - start
    print(f"all {found} scores of one window: {seconds / everywhere.size * 1e6:.2f} s/Mpx")


if __name__ == "__main__":
    main()
