"""Where the scenes lie: the places of a run and the outline of the land."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unveil.errors import InputError
from unveil.report.findings import Findings
from unveil.scene import bbox


@dataclass(frozen=True)
class Place:
    """One place of the run.

    Attributes:
        id: as in the scene table.
        longitude: of its centre, degrees east.
        latitude: of its centre, degrees north.
        protocols: protocols of its scenes.
        n_scenes: number of its scenes.
    """

    id: str
    longitude: float
    latitude: float
    protocols: tuple[str, ...]
    n_scenes: int


def find_places(findings: Findings) -> list[Place]:
    """Return the places that have a georeference, each at the centre of its first such scene."""
    scenes: dict[str, list] = {}
    for scene in findings.scenes.values():
        scenes.setdefault(scene.place, []).append(scene)
    places = []
    for name, members in scenes.items():
        box = next((box for scene in members if (box := bbox(scene.grid))), None)
        if box is not None:
            west, south, east, north = box
            protocols = tuple(dict.fromkeys(scene.protocol for scene in members))
            centre = (west + east) / 2, (south + north) / 2
            places.append(Place(name, *centre, protocols, len(members)))
    return places


def to_geojson(places: Iterable[Place]) -> dict[str, Any]:
    """Return the places as GeoJSON points, for a GIS."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": place.id,
                "properties": {
                    "place": place.id,
                    "protocols": ", ".join(place.protocols),
                    "n_scenes": place.n_scenes,
                },
                "geometry": {
                    "type": "Point",
                    "coordinates": [round(place.longitude, 5), round(place.latitude, 5)],
                },
            }
            for place in places
        ],
    }


def read_outline(path: Path) -> list[list[list[float]]]:
    """Read the outline of the land: rings of longitude and latitude in degrees.

    Raises:
        InputError: if the file is missing or no GeoJSON MultiPolygon.
    """
    try:
        polygons = json.loads(Path(path).read_text())["geometry"]["coordinates"]
    except FileNotFoundError as error:
        raise InputError(
            "file not found", file=path, remedy="restore it from the repository"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is no GeoJSON feature ({error!r})", file=path, remedy="restore it from the repository"
        ) from error
    return [ring for polygon in polygons for ring in polygon]
