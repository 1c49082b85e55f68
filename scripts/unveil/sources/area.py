"""From a place as users write it to the pixel grid of a scene.

A place is a box ``west,south,east,north`` in degrees (west beyond east crosses the
antimeridian), a GeoJSON file, or a Sentinel-2 tile like ``33TWL``. Grids are UTM and their
edges multiples of 60 m from the equator and the false easting, as those of ESA's tiles, so
that pixels of 10, 20 and 60 m nest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.warp import transform

from unveil.errors import InputError
from unveil.guarded import read_json
from unveil.raster import Grid

ALIGNMENT_M = 60
TILE_M = 109_800
METRES_PER_DEGREE = 111_320.0
"""Along a meridian, and along the equator."""
BANDS_OF_LATITUDE = "CDEFGHJKLMNPQRSTUVWX"
COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
ROWS = "ABCDEFGHJKLMNPQRSTUV"
TILE = re.compile(r"(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])")

Box = tuple[float, float, float, float]


def area_grid(area: str, *, crs: str = "", resolution: int = 10) -> Grid:
    """Return the grid of a place.

    Args:
        area: a box in degrees, a GeoJSON file, or a tile.
        crs: the CRS; empty for the UTM zone of the centre (a tile keeps its own).
        resolution: pixel size in metres; divides 60.

    Raises:
        InputError: if the text is none of these, or the file holds no coordinates.
    """
    if TILE.fullmatch(area):
        return tile_grid(area, resolution=resolution)
    west, south, east, north = area_box(area)
    crs = crs or utm_crs((west + east) / 2, (south + north) / 2)
    edge = np.linspace(0, 1, 21)
    lon = west + (east - west) * np.concatenate([edge, edge, edge * 0, edge * 0 + 1])
    lat = south + (north - south) * np.concatenate([edge * 0, edge * 0 + 1, edge, edge])
    try:
        x, y = (np.array(values) for values in transform("EPSG:4326", crs, lon, lat))
    except RasterioError as error:
        raise InputError(
            f"{area!r} cannot be projected to {crs} ({error})",
            field="area",
            remedy="give a place between 80 S and 84 N",
        ) from error
    equator = _equator(crs)
    left, top = _down(x.min()), _up(y.max(), equator)
    width = (_up(x.max()) - left) // resolution
    height = (top - _down(y.min(), equator)) // resolution
    pixel = float(resolution)
    return Grid(crs, (pixel, 0.0, float(left), 0.0, -pixel, float(top)), height, width)


def _down(metres: float, origin: int = 0) -> int:
    return math.floor(round(metres - origin, 3) / ALIGNMENT_M) * ALIGNMENT_M + origin


def _up(metres: float, origin: int = 0) -> int:
    return math.ceil(round(metres - origin, 3) / ALIGNMENT_M) * ALIGNMENT_M + origin


def _equator(crs: str) -> int:
    """Return the northing of the equator: UTM south of it counts from -10 000 km."""
    return 10_000_000 if crs.startswith("EPSG:327") else 0


def box_pixels(box: Sequence[float], resolution_m: float) -> int:
    """Return about how many pixels a box in degrees has, within a few per cent."""
    west, south, east, north = box
    width = (east - west) % 360 * math.cos(math.radians((south + north) / 2))
    return int(width * (north - south) * (METRES_PER_DEGREE / resolution_m) ** 2)


def area_box(area: str) -> Box:
    """Return west, south, east, north of a place in degrees; east may exceed 180.

    Raises:
        InputError: as :func:`area_grid`.
    """
    if TILE.fullmatch(area):
        grid = tile_grid(area)
        left, top = grid.transform[2], grid.transform[5]
        x, y = [left, left + TILE_M] * 2, [top, top, top - TILE_M, top - TILE_M]
        lon, lat = (np.array(values) for values in transform(grid.crs, "EPSG:4326", x, y))
        if np.ptp(lon) > 180:
            lon = np.where(lon < 0, lon + 360, lon)
        return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())
    numbers = area.split(",")
    if len(numbers) == 4:
        try:
            west, south, east, north = map(float, numbers)
        except ValueError:
            raise _no_area(area, "four numbers are wanted") from None
    elif area.lower().endswith((".geojson", ".json")):
        west, south, east, north = _geojson_box(Path(area))
    else:
        raise _no_area(area, "not understood")
    if west > east:
        east += 360
    box = west, south, east, north
    if not _is_place(box):
        raise _no_area(area, f"box {west:g}, {south:g}, {east:g}, {north:g}", box)
    return box


def _is_place(box: Box) -> bool:
    west, south, east, north = box
    inside = -180 <= west <= 180 and -80 <= south < north <= 84
    return inside and 0 < east - west < 180


def overlap(one: Box, other: Box) -> bool:
    """Tell whether two boxes share ground, also where one counts beyond the antimeridian."""
    if one[3] <= other[1] or other[3] <= one[1]:
        return False
    return any(one[0] + turn < other[2] and other[0] < one[2] + turn for turn in (-360, 0, 360))


def _no_area(area: str, problem: str, box: Box | None = None) -> InputError:
    remedy = (
        "write west,south,east,north in degrees (between 80 S and 84 N), a GeoJSON file, or a "
        "tile like 33TWL"
    )
    if box and max(map(abs, box)) > 360:
        remedy = f"these look like metres of a projection such as UTM; {remedy}"
    elif box and _is_place((box[1], box[0], box[3], box[2])):
        remedy = f"latitude and longitude are exchanged; {remedy}"
    return InputError(f"{area!r}: {problem}", field="area", remedy=remedy)


def _geojson_box(path: Path) -> Box:
    document = read_json(path, kind="GeoJSON", remedy="correct it")
    points = list(_points(document))
    if not points:
        raise InputError(
            "no coordinates", file=path, field="area", remedy="draw a polygon of the place"
        )
    lon, lat = np.array([p[:2] for p in points], float).T
    _require_degrees(lon, lat, document, path)
    crosses = np.ptp(lon) > 180  # RFC 7946 cuts there; nobody means half the globe
    lon = np.where(crosses & (lon < 0), lon + 360, lon)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _require_degrees(lon: np.ndarray, lat: np.ndarray, document: Any, path: Path) -> None:
    """Refuse what is no longitude and latitude: metres of a projection, or the two exchanged."""
    crs = document.get("crs")  # of GeoJSON before RFC 7946
    name = str(crs.get("properties", {}).get("name", "")) if isinstance(crs, dict) else ""
    in_degrees = not name or name.upper().endswith(("CRS84", ":4326", ":4258"))
    x, y = (float(np.abs(values).max()) for values in (lon, lat))
    if not in_degrees or max(x, y) > 360:
        raise InputError(
            f"{lon[0]:g}, {lat[0]:g} are not degrees{f' but of {name}' if name else ''}",
            file=path,
            field="area",
            remedy="write it in longitude and latitude: ogr2ogr -t_srs EPSG:4326 -lco "
            f"RFC7946=YES degrees.geojson {path.name}",
        )
    if y > 90 and x <= 90:
        raise InputError(
            f"the latitude is {lat[np.abs(lat).argmax()]:g}: latitude and longitude are exchanged",
            file=path,
            field="area",
            remedy="write the longitude first, as GeoJSON has it",
        )


def _points(part: Any) -> Iterator[list[float]]:
    """Yield the positions of any GeoJSON object."""
    if isinstance(part, dict):
        for key in ("coordinates", "geometry", "geometries", "features"):
            yield from _points(part.get(key))
    elif isinstance(part, list):
        if len(part) >= 2 and all(isinstance(v, int | float) for v in part[:2]):
            yield part
        else:
            for item in part:
                yield from _points(item)


def utm_crs(longitude: float, latitude: float) -> str:
    """Return the EPSG code of the UTM zone of a point, without the exceptions of Norway."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return f"EPSG:{326 if latitude >= 0 else 327}{zone:02d}"


def tile_grid(tile: str, *, resolution: int = 10) -> Grid:
    """Return the grid of a Sentinel-2 tile, 109.8 km wide.

    A tile is a 100 km square of the Military Grid Reference System, its upper left corner
    moved outwards to a multiple of 60 m.

    Raises:
        InputError: if there is no such tile.
    """
    match = TILE.fullmatch(tile)
    zone = int(match[1]) if match else 0
    if not match or not 1 <= zone <= 60 or match[3] not in COLUMNS[(zone - 1) % 3]:
        raise _no_area(tile, "no such tile")
    band, column, row = match[2], match[3], match[4]
    easting = (COLUMNS[(zone - 1) % 3].index(column) + 1) * 100_000
    rows = (ROWS.index(row) - (0 if zone % 2 else 5)) % 20
    northing = _northing(band, rows, tile)
    crs = f"EPSG:{326 if band >= 'N' else 327}{zone:02d}"
    pixels = TILE_M // resolution
    pixel = float(resolution)
    left, top = _down(easting), _up(northing + 100_000, _equator(crs))
    return Grid(crs, (pixel, 0.0, float(left), 0.0, -pixel, float(top)), pixels, pixels)


def _northing(band: str, rows: int, tile: str) -> int:
    """Return the lower edge of a square whose row letter repeats every 2000 km."""
    south = -80 + 8 * BANDS_OF_LATITUDE.index(band)
    north = 84 if band == "X" else south + 8
    # A degree of latitude is 110.6 to 111.7 km; a square may reach over its band's edges.
    least, most = (latitude * 110_950.0 for latitude in (south, north))
    offset = 0 if band >= "N" else 10_000_000
    for cycle in range(6):
        northing = rows * 100_000 + cycle * 2_000_000
        if least - 150_000 <= northing - offset <= most + 100_000:
            return northing
    raise _no_area(tile, "no such tile")
