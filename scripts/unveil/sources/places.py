"""Places: a GeoJSON file, a bounding box or an MGRS tile, and the pixel grid laid over them.

Longitudes of a place are continuous: one that crosses the antimeridian goes beyond 180 degrees.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry import box, mapping, shape
from shapely.ops import transform, unary_union

from unveil.errors import InputError
from unveil.raster import Grid

SNAP_M = 60
"""Corners of grids lie on multiples of this from the equator and the zone's false easting, as
those of all Sentinel-2 tiles and bands."""
TILE_M = 109_800
"""Edge of a Sentinel-2 tile."""
LARGEST_PX = 12_000
"""Longest edge of a grid; a whole tile at 10 m has 10980."""
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True)
class Place:
    """Where a scene is.

    Attributes:
        name: what to call it when the table does not.
        area: polygon in degrees, with continuous longitudes.
        tile: MGRS tile, when that is what the place is.
    """

    name: str
    area: shapely.Geometry
    tile: str = ""

    @property
    def geojson(self) -> dict[str, Any]:
        """GeoJSON geometry, cut at the antimeridian as RFC 7946 asks for."""
        parts = []
        for shift in (-360, 0, 360):
            moved = shapely.affinity.translate(self.area, shift)
            part = moved.intersection(box(-180, -90, 180, 90))
            if part.area > 0:
                parts.append(part)
        return json.loads(json.dumps(mapping(unary_union(parts))))


def read_place(text: str) -> Place:
    """Read a place as the scene table writes it.

    Args:
        text: ``mgrs:33TWL``, ``bbox:WEST,SOUTH,EAST,NORTH`` in degrees (west may be larger than
            east across the antimeridian), or the path of a GeoJSON file with polygons.

    Raises:
        InputError: if it is none of these.
    """
    kind, _, rest = text.partition(":")
    if kind == "mgrs":
        return _tile_place(rest.strip().upper().removeprefix("T"))
    if kind == "bbox":
        return _box_place(rest)
    return _file_place(Path(text))


def _box_place(text: str) -> Place:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{text!r} is no bounding box", field="path", remedy="write bbox:WEST,SOUTH,EAST,NORTH"
        ) from error
    east += 360 if west > east else 0
    if not (-180 <= west <= 180 and west < east and -90 <= south < north <= 90):
        raise InputError(
            f"{text!r} is no bounding box in degrees",
            field="path",
            remedy="write bbox:WEST,SOUTH,EAST,NORTH, longitudes -180 to 180",
        )
    return Place(f"{south:g}_{west:g}".replace("-", "m"), box(west, south, east, north))


def _file_place(path: Path) -> Place:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        area = continuous(unary_union([shape(g) for g in _geometries(document)]))
    except FileNotFoundError as error:
        raise InputError(
            "file not found",
            file=path,
            field="path",
            remedy="give a GeoJSON file, bbox:W,S,E,N or mgrs:TILE",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(
            f"not GeoJSON ({error})", file=path, remedy="give a GeoJSON file with polygons"
        ) from error
    if area.is_empty or area.area == 0:
        raise InputError(
            "holds no polygon", file=path, remedy="draw the place as a polygon, not a point or line"
        )
    west, south, east, north = area.bounds
    if south < -90 or north > 90 or east - west > 180 or west < -360 or east > 540:
        raise InputError(
            f"reaches from {west:g}, {south:g} to {east:g}, {north:g}",
            file=path,
            field="coordinates",
            remedy="GeoJSON is in degrees, longitude first (RFC 7946)",
        )
    return Place(path.stem, area)


def _geometries(document: dict[str, Any]) -> list[dict[str, Any]]:
    if document["type"] == "FeatureCollection":
        return [feature["geometry"] for feature in document["features"]]
    return [document["geometry"] if document["type"] == "Feature" else document]


def continuous(area: shapely.Geometry) -> shapely.Geometry:
    """Join a geometry that is cut at, or wrapped around, the antimeridian."""
    west, _, east, _ = area.bounds if not area.is_empty else (0, 0, 0, 0)
    if east - west <= 180:
        return area
    return unary_union(
        transform(lambda x, y: (np.where(np.asarray(x) < 0, np.asarray(x) + 360, x), y), area)
    ).buffer(0)


def overlap(place: Place, geometry: dict[str, Any] | None) -> float:
    """Return the fraction of a place that a footprint covers, 0 without one."""
    if not geometry:
        return 0.0
    footprint = continuous(shape(geometry).buffer(0))
    shared = (
        shapely.affinity.translate(footprint, shift).intersection(place.area).area
        for shift in (-360, 0, 360)
    )
    return min(1.0, max(shared) / place.area.area)


# --- MGRS (DMA TM 8358.1, chapter 3) ----------------------------------------------------


def _tile_place(tile: str) -> Place:
    crs, west, north = tile_corner(tile)
    square = box(west, north - TILE_M, west + TILE_M, north)
    dense = shapely.segmentize(square, TILE_M / 20)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    return Place(tile, continuous(transform(to_degrees.transform, dense)), tile)


def tile_corner(tile: str) -> tuple[str, float, float]:
    """Return CRS, west and north edge in metres of the Sentinel-2 tile of an MGRS square.

    Raises:
        InputError: if there is no such square.
    """
    match = re.fullmatch(r"(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])", tile)
    zone = int(match[1]) if match else 0
    columns = "ABCDEFGH JKLMNPQR STUVWXYZ".split()[(zone - 1) % 3]
    if not match or not 1 <= zone <= 60 or match[3] not in columns:
        raise InputError(
            f"{tile!r} is no MGRS tile", field="path", remedy="write it like mgrs:33TWL"
        )
    band, column, row = match[2], match[3], match[4]
    easting = 100_000 * (columns.index(column) + 1)
    rows = _LETTERS[:20]
    northing = 100_000 * ((rows.index(row) - (5 if zone % 2 == 0 else 0)) % 20)
    # Row letters repeat every 2000 km: the one nearest to the middle of the latitude band.
    latitude = -76 + 8 * _BANDS.index(band)
    southern = band < "N"
    crs = f"EPSG:{(32700 if southern else 32600) + zone}"
    middle = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(
        6 * zone - 183, latitude
    )[1]
    northing += 2_000_000 * round((middle - northing - 50_000) / 2_000_000)
    equator = _equator(crs)
    return (
        crs,
        math.floor(easting / SNAP_M) * SNAP_M,
        equator + math.ceil((northing + 100_000 - equator) / SNAP_M) * SNAP_M,
    )


def _equator(crs: str) -> int:
    """Return the northing of the equator, from which tiles are counted."""
    return 10_000_000 if crs.startswith("EPSG:327") else 0


# --- grids ------------------------------------------------------------------------------


def utm_of(place: Place) -> str:
    """Return the code of the UTM zone of the middle of a place."""
    middle = place.area.centroid
    zone = int((middle.x + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if middle.y >= 0 else 32700) + zone}"


def lay_grid(place: Place, crs: str, resolution_m: float) -> Grid:
    """Return the grid that covers a place, corners on multiples of 60 m where pixels allow.

    Raises:
        InputError: if it has too many pixels.
    """
    if place.tile:
        crs, west, north = tile_corner(place.tile)
        bounds = (west, north - TILE_M, west + TILE_M, north)
    else:
        project = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        dense = shapely.segmentize(place.area, max(place.area.length / 400, 1e-6))
        bounds = transform(project.transform, dense).bounds
    snap = SNAP_M if SNAP_M % resolution_m == 0 else resolution_m
    origin = (0, _equator(crs)) * 2
    west, south, east, north = (
        start + turn(round((value - start) / snap, 6)) * snap
        for value, start, turn in zip(
            bounds, origin, (math.floor, math.floor, math.ceil, math.ceil), strict=True
        )
    )
    width, height = round((east - west) / resolution_m), round((north - south) / resolution_m)
    if max(width, height) > LARGEST_PX:
        raise InputError(
            f"the place is {width} x {height} pixels of {resolution_m:g} m",
            field="path",
            remedy=f"draw a smaller place, at most {LARGEST_PX} pixels an edge, or a larger "
            "sources.stac.resolution_m",
        )
    return Grid(crs, (resolution_m, 0.0, west, 0.0, -resolution_m, north), height, width)
