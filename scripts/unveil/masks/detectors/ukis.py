"""Cloud and cloud shadow by UKIS-CSMASK of DLR: a U-Net on tiles, for L1C and L2A.

Wieland et al. 2019 (Remote Sensing of Environment 230:111203) and 2022 (ISPRS Archives
XLIII-B3-2022, 217-222). The package ``ukis-csmask`` (Apache-2.0) brings four networks, of four or
six bands for either level. Their input is reflectance, standardised by the numbers in the file
beside each; they answer the logits of clear, cloud and shadow. The networks are run here by one
kept session each: the package's own class makes one for every image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rasterio.windows import Window

from unveil.bands import UNKNOWN_PROBABILITY, band_positions
from unveil.errors import InputError
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.detectors.coarse import block_means, coarse_step, to_percent
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import Frame, read_reflectance

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGE, RUNTIME = "ukis_csmask", "onnxruntime"
PIXEL_M = 30.0
"""Its authors advise about 30 m: the networks are trained on Landsat, too. On real pairs of places
that train, a scene's own pixels do no better on the whole (docs/masks.md), and cost nine times."""
TILE = 256
LEAST_OVERLAP = 24
"""Pixels that neighbouring tiles share; of each the half nearer to a tile's middle is kept."""
VISIBLE, SWIR = ("B02", "B03", "B04"), ("B11", "B12")
NEAR_INFRARED = ("B08", "B8A")
"""Either; Landsat's band lies within B8A, and series of few bands may have this one alone."""
LEVELS = ("L1C", "L2A")
CLEAR, CLOUD, SHADOW = range(3)
"""Its classes."""


class Ukis(Detector):
    """Cloud, shadow and the probability of cloud of a frame, judged as a whole.

    Raises:
        InputError: if the package or its runtime is not installed.
    """

    name = "ukis"
    tells = frozenset(("cloud", "shadow", "percent"))

    def __init__(self, frame: Frame, grid: Grid, options: MaskOptions, *, level: str) -> None:
        super().__init__(frame, grid, options, level=level)
        bands = bands_for(frame.bands)
        network = load_network(len(bands), level)
        self.pixels = coarse_step(grid, PIXEL_M)

        def read(window: Window) -> np.ndarray:
            return block_means(read_reflectance(frame, bands, window), self.pixels)

        self.classes, self.percent = judge(network, read, grid.shape, self.pixels)

    @classmethod
    def refusal(cls, frame: Frame, level: str) -> str | None:
        """Refuse frames of unknown level, and without blue, green, red and near infrared."""
        if level not in LEVELS:
            return f"ukis is trained on {' and '.join(LEVELS)}, this is of unknown level"
        if not bands_for(frame.bands):
            return f"ukis needs {', '.join(VISIBLE)} and {' or '.join(NEAR_INFRARED)}"
        return None

    def vote(self, reflectance: np.ndarray, window: Window, asked: frozenset[str]) -> Votes:
        """Return what was found in a window when the frame was judged."""
        rows, cols = (slice(*bounds) for bounds in window.toranges())
        here = np.ix_(*(np.arange(s.start, s.stop) // self.pixels for s in (rows, cols)))
        classes = self.classes[here]
        return Votes.none(
            classes.shape,
            cloud=classes == CLOUD,
            shadow=classes == SHADOW,
            percent=self.percent[here],
        )


def bands_for(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the bands that a network is given, six or four of them; empty where there are less."""
    infrared = [name for name in NEAR_INFRARED if name in bands]
    if not infrared or not set(VISIBLE) <= set(bands):
        return ()
    return (*VISIBLE, infrared[0], *(SWIR if set(SWIR) <= set(bands) else ()))


@dataclass(frozen=True)
class Network:
    """One of the package's networks, ready to run.

    Attributes:
        session: of the runtime; many threads may run it.
        mean: ``(B, 1, 1)`` float32 reflectance.
        deviation: ``(B, 1, 1)`` float32 reflectance.
    """

    session: InferenceSession
    mean: np.ndarray
    deviation: np.ndarray

    def probabilities(self, tile: np.ndarray) -> np.ndarray:
        """Return the probability of each class, ``(3, 256, 256)`` float32.

        Args:
            tile: ``(B, 256, 256)`` float32 reflectance; NaN is taken for the usual one.
        """
        given = np.nan_to_num((tile - self.mean) / self.deviation, nan=0.0).astype(np.float32)
        (name,) = (entry.name for entry in self.session.get_inputs())
        logits = self.session.run(None, {name: given[np.newaxis]})[0][0]
        powers = np.exp(logits - logits.max(axis=0))
        return powers / powers.sum(axis=0)


@cache
def load_network(bands: int, level: str) -> Network:
    """Load the network for four or six bands of ``L1C`` or ``L2A``, once a process.

    Raises:
        InputError: if the package or its runtime is not installed.
    """
    found = {name: find_spec(name) for name in (PACKAGE, RUNTIME)}
    package = found[PACKAGE]
    if package is None or package.origin is None or found[RUNTIME] is None:
        missing = ", ".join(name for name, spec in found.items() if spec is None)
        raise InputError(
            f"detector ukis is named, and the Python package {missing} is not installed",
            field="masks.detectors",
            remedy='run "pip install ukis-csmask==1.0.0 onnxruntime" in the environment of the '
            "rule mask_scene, or take ukis out of masks.detectors",
        )
    from onnxruntime import InferenceSession, SessionOptions  # lazy: takes a second

    file = Path(package.origin).parent / f"model_{bands}b_{level.lower()}.onnx"
    facts = json.loads(file.with_suffix(".json").read_text())["data"]["dataset_statistics"]
    mean, deviation = (np.array(row, np.float32)[:, None, None] for row in facts["img"])
    options = SessionOptions()
    options.intra_op_num_threads = 1  # jobs mask several scenes at once
    options.enable_cpu_mem_arena = False  # which keeps what its largest layers took
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return Network(session, mean, deviation)


def judge(
    network: Network,
    read: Callable[[Window], np.ndarray],
    shape: tuple[int, int],
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class and the percent of cloud of an image, tile by tile.

    Args:
        network: for the bands that are read.
        read: gives the means over squares of ``step`` pixels of a window, ``(B, h, w)``
            reflectance, NaN where nodata.
        shape: ``(H, W)`` of the image.
        step: pixels along an edge that the network sees as one.

    Returns:
        classes: ``(h, w)`` uint8, the image in pixels of the network.
        percent: ``(h, w)`` uint8.
    """
    small = tuple(-(-size // step) for size in shape)
    classes, percent = np.zeros(small, np.uint8), np.full(small, UNKNOWN_PROBABILITY, np.uint8)
    for (top, rows), (left, cols) in product(*(cut_tiles(size) for size in small)):
        height, width = (min(TILE, size) for size in small)
        tile = read(_enlarged(top, left, height, width, step, shape))
        if np.isnan(tile).all():
            continue
        kept = (
            slice(rows.start - top, rows.stop - top),
            slice(cols.start - left, cols.stop - left),
        )
        found = network.probabilities(_fill_up(tile))[(slice(None), *kept)]
        classes[rows, cols] = found.argmax(axis=0)
        percent[rows, cols] = to_percent(found[CLOUD])
    return classes, percent


def classes_of(reflectance: np.ndarray, bands: Sequence[str], *, level: str) -> np.ndarray:
    """Return the ``(H, W)`` uint8 classes of one image of 10 m pixels, judged at 30 m.

    Args:
        reflectance: ``(B, H, W)`` float32, NaN where nodata.
        bands: names of its bands, at least those of :func:`bands_for`.
        level: ``L1C`` or ``L2A``.
    """
    chosen = bands_for(bands)
    image = reflectance[band_positions(chosen, bands)]
    step = round(PIXEL_M / 10)

    def read(window: Window) -> np.ndarray:
        return block_means(image[(slice(None), *window.toslices())], step)

    shape = (image.shape[1], image.shape[2])
    classes, _ = judge(load_network(len(chosen), level), read, shape, step)
    return classes.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]


def cut_tiles(size: int) -> list[tuple[int, slice]]:
    """Return where tiles start along an edge, and what is kept of each; these cover the edge."""
    count = max(1, math.ceil((size - LEAST_OVERLAP) / (TILE - LEAST_OVERLAP)))
    starts = [round(at) for at in np.linspace(0, max(0, size - TILE), count)]
    middles = [(one + TILE + other) // 2 for one, other in pairwise(starts)]
    return list(zip(starts, map(slice, [0, *middles], [*middles, size]), strict=True))


def _enlarged(
    top: int, left: int, height: int, width: int, step: int, shape: tuple[int, int]
) -> Window:
    """Return the window of the image that a window in pixels of the network covers."""
    bottom, right = min((top + height) * step, shape[0]), min((left + width) * step, shape[1])
    return Window(left * step, top * step, right - left * step, bottom - top * step)


def _fill_up(tile: np.ndarray) -> np.ndarray:
    """Mirror what is smaller than a tile."""
    missing = [(0, TILE - size) for size in tile.shape[1:]]
    return np.pad(tile, [(0, 0), *missing], mode="symmetric")
