"""Spectra of chosen pixels: what each model put where cloud had hidden the ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS
from unveil.report.images import CLOUDY, TRUTH, Preview
from unveil.scene import Scene

QUANTILES = {"dark": 0.05, "middle": 0.5, "bright": 0.95}
"""Pixels that are looked at, by the rank of their brightness in the truth."""

NEAR_INFRARED = ("B08", "B8A")


@dataclass(frozen=True)
class Spectra:
    """Reflectance of one pixel in the truth, the cloudy target and the results.

    Attributes:
        scene: id.
        name: a key of :data:`QUANTILES`.
        row: row of the pixel in the scene, from 0.
        column: column, from 0.
        bands: names of the B bands of the truth, in ESA order.
        values: the columns of the picture (``TRUTH``, ``CLOUDY``, model ids) -> B values,
            None where there is none.
    """

    scene: str
    name: str
    row: int
    column: int
    bands: tuple[str, ...]
    values: dict[str, list[float | None]]

    def mae(self, name: str) -> float:
        """Mean absolute error of a result over the bands that it gives; NaN without any."""
        pairs = zip(self.values[name], self.values[TRUTH], strict=True)
        gaps = [abs(p - t) for p, t in pairs if p is not None and t is not None]
        return float(np.mean(gaps)) if gaps else float("nan")


def read_spectra(
    scene: Scene, predictions: Mapping[str, Path], truth: Preview, hidden: np.ndarray
) -> list[Spectra]:
    """Read the spectra of a dark, a middling and a bright pixel that cloud hides.

    They are chosen by the truth alone, before any model is looked at.

    Args:
        scene: a scene with a reference.
        predictions: model id -> GeoTIFF of the results there are.
        truth: the reference at thumbnail size.
        hidden: ``(h, w)`` bool, occluded pixels at thumbnail size.
    """
    paths = {
        TRUTH: scene.with_role("reference")[0].path,
        CLOUDY: scene.target.path,
        **predictions,
    }
    pixels = {
        name: (_enlarge(y, hidden.shape[0], scene.grid.height),
               _enlarge(x, hidden.shape[1], scene.grid.width))
        for name, (y, x) in choose_pixels(truth, hidden).items()
    }  # fmt: skip
    read = {column: _read_pixels(path, pixels) for column, path in paths.items()}
    found = []
    for name, (row, column) in pixels.items():
        of_pixel = {key: values[name] for key, values in read.items()}
        bands = tuple(band for band in BANDS if of_pixel[TRUTH].get(band) is not None)
        if bands:
            values = {key: [pixel.get(b) for b in bands] for key, pixel in of_pixel.items()}
            found.append(Spectra(scene.id, name, row, column, bands, values))
    return found


def choose_pixels(truth: Preview, hidden: np.ndarray) -> dict[str, tuple[int, int]]:
    """Return the hidden pixel at each of :data:`QUANTILES` of the truth's brightness.

    Brightness is that of the near infrared, in which land differs most, or of the first band
    of a truth without it.

    Args:
        truth: the reference, NaN where nodata.
        hidden: ``(h, w)`` bool, where to choose.

    Returns:
        Name -> row and column in the thumbnail; empty when nothing is hidden.
    """
    if not truth.bands:
        return {}
    band = next((name for name in NEAR_INFRARED if name in truth.bands), truth.bands[0])
    brightness = truth.data[truth.bands.index(band)]
    rows, columns = np.nonzero(hidden & np.isfinite(truth.data).all(axis=0))
    order = np.argsort(brightness[rows, columns], kind="stable")
    if not order.size:
        return {}
    chosen = {name: order[round(share * (order.size - 1))] for name, share in QUANTILES.items()}
    return {name: (int(rows[i]), int(columns[i])) for name, i in chosen.items()}


def _enlarge(position: int, small: int, full: int) -> int:
    """Return the position in the scene of the middle of a thumbnail's pixel."""
    return min(int((position + 0.5) / small * full), full - 1)


def _read_pixels(
    path: Path, pixels: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, float | None]]:
    """Read single pixels of a raster: name -> band -> reflectance, None where nodata."""
    found = {}
    with raster.open_raster(path) as dataset:
        for name, (row, column) in pixels.items():
            dn = dataset.read(window=Window(column, row, 1, 1))
            values = raster.to_reflectance(dn)[:, 0, 0]
            found[name] = {
                band: round(float(value), 4) if np.isfinite(value) else None
                for band, value in zip(dataset.descriptions, values, strict=True)
            }
    return found
