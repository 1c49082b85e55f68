"""Which pixels of a scene belong to the place: all, or those inside a GeoJSON polygon."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.raster import Grid


@dataclass(frozen=True)
class Inside:
    """Pixels of a place.

    Attributes:
        grid: of the scene.
        shapes: polygons in the grid's CRS; empty for all pixels.
    """

    grid: Grid
    shapes: tuple[Any, ...] = ()

    def of(self, window: Window) -> np.ndarray:
        """Return which pixels of a window belong to the place, ``(H, W)`` bool.

        A pixel belongs to it if its centre does.
        """
        shape = (int(window.height), int(window.width))
        if not self.shapes:
            return np.ones(shape, bool)
        transform = window_transform(window, self.grid.affine)
        return ~geometry_mask(self.shapes, out_shape=shape, transform=transform)


def inside_of(grid: Grid, clip: str) -> Inside:
    """Return the pixels inside the polygons of a GeoJSON file, or all without one.

    Args:
        grid: of the scene.
        clip: path of the file; empty for none.

    Raises:
        InputError: if it holds no polygon, or none touches the grid.
    """
    if not clip:
        return Inside(grid)
    path = Path(clip)
    with reading_input(path, "GeoJSON", remedy="give a GeoJSON file of polygons in degrees"):
        document = json.loads(path.read_text(encoding="utf-8"))
        features = document.get("features", [document])
        geometries = [feature.get("geometry", feature) for feature in features]
        polygons = [g for g in geometries if g["type"] in ("Polygon", "MultiPolygon")]
        shapes = tuple(transform_geom("EPSG:4326", grid.crs, polygon) for polygon in polygons)
    inside = Inside(grid, shapes)
    if not shapes or not any(inside.of(window).any() for window in grid.windows()):
        raise InputError(
            "no polygon covers a pixel of the place",
            file=path,
            field="cloudfree.clip",
            remedy="give polygons over the place, in degrees (longitude, latitude)",
        )
    return inside
