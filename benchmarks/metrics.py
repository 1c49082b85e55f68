"""Speed of the metrics against scikit-image, same definition, same process.

Run: ``python benchmarks/metrics.py``. Prints seconds and the ratio (above 1: Unveil is
faster), and the largest difference between the two answers. The two take turns, and the
median of the turns counts, so that a busy machine disturbs both alike. With ``--tile 10980``
it prints instead what scoring one scene of that side costs, from files, with every region.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import (
    mean_squared_error,
    peak_signal_noise_ratio,
    structural_similarity,
)

from unveil import raster
from unveil.bands import CLOUD, SHADOW
from unveil.bands import CORE6 as BANDS
from unveil.metrics import definitions
from unveil.metrics.scoring import score_scene
from unveil.metrics.streaming import Accumulator
from unveil.raster import Grid
from unveil.scene import Frame, Scene, load_scene, save_scene


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
    parser.add_argument("--tile", type=int, help="score a scene of this side from files")
    args = parser.parse_args()
    if args.tile:
        with tempfile.TemporaryDirectory() as folder:
            score_tile(Path(folder), args.tile)
        return
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
    bands = BANDS[: len(truth)]
    everywhere = np.ones(truth.shape[1:], bool)
    start = time.perf_counter()
    sums = Accumulator(bands, ("all",))
    sums.update(prediction, truth, everywhere, {"all": everywhere})
    found = sum(1 for _ in sums.scores())
    seconds = time.perf_counter() - start
    print(f"all {found} scores of one window: {seconds / everywhere.size * 1e6:.2f} s/Mpx")


def score_tile(folder: Path, side: int) -> None:
    """Make up a scene, score it in a process of its own, print its cost."""
    scene, prediction = make_tile(folder, side)
    command = [sys.executable, __file__, "--child", str(scene), str(prediction)]
    subprocess.run(command, check=True)


def make_tile(folder: Path, side: int) -> tuple[Path, Path]:
    """Write a scene of one pattern repeated: six bands, six context masks, a standard deviation."""
    grid = Grid("EPSG:32633", (10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0), side, side)
    rng = np.random.default_rng(1)
    smooth = gaussian_filter(rng.standard_normal((7, 512, 512)), (0, 4, 4), mode="wrap")
    land = 0.15 + 0.05 * smooth[:6] / smooth[:6].std()
    classes = np.where(smooth[6] > 0, CLOUD, 0).astype(np.uint8)
    classes[np.abs(smooth[6]) < 0.1 * smooth[6].std()] = SHADOW
    error = gaussian_filter(rng.standard_normal(land.shape), (0, 2, 2), mode="wrap")
    images = {
        "reference": land,
        "target": np.where(classes == CLOUD, land + 0.3, land),
        "prediction": land + 0.1 * error,
        "prediction_std": np.full_like(land, 0.02),
    }
    paths = {}
    for name, image in images.items():
        paths[name] = folder / f"{name}.tif"
        dn = raster.to_dn(np.clip(image, 0.001, 1))
        _write(paths[name], dn, grid, descriptions=BANDS, nodata=0)
    masks = []
    for shift in range(7):
        layers = np.stack([np.roll(classes, 80 * shift, axis=1), np.full_like(classes, 255)])
        masks.append(folder / f"mask{shift}.tif")
        names = ("CLASS", "CLOUD_PROBABILITY")
        _write(masks[-1], layers, grid, descriptions=names, nodata=None)
    clear = folder / "clear.tif"
    _write(clear, 0 * classes[None], grid, descriptions=("CLASS",), nodata=None)
    day = "2020-06-15"
    frames = [
        Frame(day, "target", paths["target"], BANDS, masks[0]),
        Frame(day, "reference", paths["reference"], BANDS, clear),
        Frame(day, "occlusion", masks[0], ("CLASS", "CLOUD_PROBABILITY")),
        *(
            Frame(f"2020-07-{number:02d}", "context", paths["target"], BANDS, masks[number])
            for number in range(1, 7)
        ),
    ]
    scene = Scene("tile", "transplant", "made-up", grid, tuple(frames))
    save_scene(scene, folder / "scene.json")
    return folder / "scene.json", paths["prediction"]


def _write(path: Path, pattern: np.ndarray, grid: Grid, **options: object) -> None:
    """Write a pattern of 512 pixels, repeated over the grid, window by window."""
    with raster.cog_writer(path, grid, dtype=pattern.dtype.name, **options) as out:
        for window in grid.windows(512):
            height, width = int(window.height), int(window.width)
            out.write(pattern[:, :height, :width], window=window)


def score_child(scene: Path, prediction: Path) -> None:
    """Score, and print seconds of this process and its peak memory."""
    start = time.process_time()
    loaded = load_scene(scene)
    std = prediction.with_name("prediction_std.tif")
    rows = score_scene(loaded, prediction, model="made-up", std=std)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = loaded.grid.pixels / 1e6
    print(f"{loaded.grid.width} x {loaded.grid.height} pixels, 6 bands, {len(rows)} rows:")
    print(f"{seconds:.0f} s of CPU ({seconds / size:.2f} s/Mpx), {peak:.2f} GiB at the peak")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        score_child(Path(sys.argv[2]), Path(sys.argv[3]))
        sys.exit()
    main()
