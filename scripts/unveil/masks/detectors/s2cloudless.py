"""Cloud probability of s2cloudless (Sentinel Hub): gradient-boosted trees on single pixels.

Trained on Sentinel-2 L1C, ten bands, reflectance 0...1 (Zupanc 2017, "Improving cloud
detection with machine learning"; intercomparison: Skakun et al. 2022, Remote Sensing of
Environment 274:112990). It knows no shadows, and takes bright lakes, sand and snow for
cloud now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rasterio.windows import Window

from unveil.bands import S2CLOUDLESS10, band_positions
from unveil.errors import InputError
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.detectors.boosted_trees import Trees, probability_of, read_trees
from unveil.masks.detectors.coarse import block_means, coarse_step, enlarge, to_percent
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import Frame

if TYPE_CHECKING:
    from s2cloudless import S2PixelCloudDetector

HIGHEST_MEDIAN = 2.0
"""Median reflectance that no Sentinel-2 image reaches: beyond, values are unscaled DN."""


FULL_DETAIL_PIXELS = 2048**2
"""Largest scene on which it looks at every pixel: a whole tile would take it hours."""
COARSE_M = 60.0
"""Its pixels on larger scenes: those of the bands B01, B09 and B10 that it uses."""


class S2Cloudless(Detector):
    """Cloud and its probability; on large scenes of coarse pixels."""

    name = "s2cloudless"
    tells = frozenset(("cloud", "percent"))

    def __init__(self, frame: Frame, grid: Grid, options: MaskOptions, *, level: str) -> None:
        super().__init__(frame, grid, options, level=level)
        self.step = step_of(grid, options)
        self.radius = round(options.average_over / self.step)
        self.halo_px = (self.radius + 1) * self.step

    @classmethod
    def refusal(cls, frame: Frame, level: str) -> str | None:
        """Refuse L2A, and frames without its ten bands."""
        if level == "L2A":
            return "s2cloudless is trained on L1C, this is L2A"
        missing = [name for name in S2CLOUDLESS10 if name not in frame.bands]
        return f"s2cloudless needs {', '.join(missing)}" if missing else None

    def vote(self, reflectance: np.ndarray, window: Window, asked: frozenset[str]) -> Votes:
        """Return cloud where the averaged probability exceeds the threshold.

        Raises:
            InputError: if the values are too large for reflectance.
        """
        try:
            seen = block_means(reflectance, self.step)
            probability = cloud_probability(seen, self.frame.bands)
        except InputError as error:
            raise InputError(str(error), file=self.frame.path) from error
        cloud = cloud_mask(
            probability, threshold=self.options.cloud_probability, average_over=self.radius
        )
        shape = reflectance.shape[1:]
        return Votes.none(
            shape,
            cloud=enlarge(cloud, self.step, shape),
            percent=enlarge(to_percent(probability), self.step, shape),
        )


def cloud_probability(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return the cloud probability 0...1, ``(H, W)`` float32, NaN where a band has no data.

    Args:
        reflectance: ``(B, H, W)`` float32 L1C reflectance, NaN where nodata.
        bands: names of its bands, at least ``S2CLOUDLESS10``.

    Raises:
        KeyError: naming the bands that are missing.
        InputError: if the values are too large for reflectance. The trees would call
            everything cloud without complaint.
    """
    ten = reflectance[band_positions(S2CLOUDLESS10, bands)]
    valid = np.isfinite(ten).all(axis=0)
    probability = np.full(valid.shape, np.nan, np.float32)
    if not valid.any():
        return probability
    pixels = ten[:, valid]
    median = float(np.median(pixels))
    if median > HIGHEST_MEDIAN:
        raise InputError(
            f"median reflectance {median:g}; s2cloudless needs reflectance 0...1",
            field="reflectance",
            remedy="divide digital numbers by 10000 (set the scale of the source)",
        )
    columns = np.ascontiguousarray(pixels.T)
    trees = read_library_trees()
    probability[valid] = by_library(columns) if trees is None else by_trees(trees, columns)
    return probability


def by_library(pixels: np.ndarray) -> np.ndarray:
    """Return what the library answers for pixels ``(N, 10)`` float32, ``(N,)`` float32."""
    return _detector().get_cloud_probability_maps(pixels[np.newaxis, np.newaxis])[0, 0]


def cloud_mask(probability: np.ndarray, *, threshold: float, average_over: int) -> np.ndarray:
    """Return where the probability, averaged over a disk, exceeds the threshold.

    Args:
        probability: ``(H, W)`` float32, NaN where unknown (counts as 0).
        threshold: 0...1.
        average_over: radius of the disk in pixels, 0 for none.
    """
    from s2cloudless import S2PixelCloudDetector  # lazy: loads LightGBM

    known = np.nan_to_num(probability, nan=0.0)[np.newaxis]
    detector = S2PixelCloudDetector(
        threshold=threshold, average_over=average_over, dilation_size=None
    )
    return detector.get_mask_from_prob(known)[0].astype(bool)


def by_trees(trees: Trees, pixels: np.ndarray) -> np.ndarray:
    """Return the same as :func:`by_library`, by a model that we walk ourselves."""
    return probability_of(pixels, trees).astype(np.float32)


@cache
def read_library_trees() -> Trees | None:
    """Return the library's own model; None where only the library can read it."""
    library = find_spec("s2cloudless")  # its import takes seconds
    if library is None or library.origin is None:
        return None
    models = sorted((Path(library.origin).parent / "models").glob("*.txt"))
    return read_trees(models[0]) if len(models) == 1 else None


@cache
def _detector() -> S2PixelCloudDetector:
    from s2cloudless import S2PixelCloudDetector  # lazy: loads LightGBM

    return S2PixelCloudDetector()


def step_of(grid: Grid, options: MaskOptions) -> int:
    """Return how many pixels along an edge s2cloudless sees as one."""
    wanted = options.s2cloudless_m
    if wanted == "auto":
        wanted = COARSE_M if grid.pixels > FULL_DETAIL_PIXELS else 0.0
    return coarse_step(grid, wanted)
