"""Make land_110m.geojson, the outline behind the report's map of places.

The land of Natural Earth 1:110m (public domain, naturalearthdata.com), version 4.1.0, as the
npm package world-atlas 2.0.2 carries it in TopoJSON:

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz package/land-110m.json
    python resources/make_outline.py package/land-110m.json resources/land_110m.geojson
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

DECIMALS = 2
"""Of a degree: the outline itself is no finer."""


def decode(topology: dict) -> dict:
    """Return the land of a quantised topology as a GeoJSON MultiPolygon."""
    scale, origin = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(arc, axis=0) * scale + origin for arc in topology["arcs"]]
    land = topology["objects"]["land"]
    polygons = [p for g in land.get("geometries", [land]) for p in _polygons(g)]
    coordinates = [[_ring(arcs, ring) for ring in polygon] for polygon in polygons]
    beyond = [polygon for polygon in coordinates if max(x for x, _ in polygon[0]) > 180]
    west = [[[[round(x - 360, 2), y] for x, y in ring] for ring in polygon] for polygon in beyond]
    coordinates += west
    return {"type": "MultiPolygon", "coordinates": coordinates}


def _polygons(geometry: dict) -> list:
    return geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]


def _ring(arcs: list[np.ndarray], numbers: list[int]) -> list[list[float]]:
    """Join arcs end to end; a number ~n is arc n backwards.

    The topology knows no date line: a ring that crosses it goes on beyond 180 degrees here
    (and is there a second time, 360 degrees to the west), and the one around the south pole
    is closed over the pole.
    """
    parts = [arcs[n] if n >= 0 else arcs[~n][::-1] for n in numbers]
    joined = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
    joined[:, 0] = np.unwrap(joined[:, 0], period=360)
    joined[:, 0] -= 360 * np.round(joined[:, 0].mean() / 360)
    (start, _), (end, _) = joined[0], joined[-1]
    if abs(end - start) > 180:
        joined = np.concatenate([joined, [[end, -90], [start, -90]], joined[:1]])
    return np.round(joined, DECIMALS).tolist()


def main() -> None:
    """Read the topology, write GeoJSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topology", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    feature = {
        "type": "Feature",
        "properties": {"source": "Natural Earth 4.1.0, land 1:110m", "licence": "public domain"},
        "geometry": decode(json.loads(args.topology.read_text())),
    }
    args.output.write_text(json.dumps(feature, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
