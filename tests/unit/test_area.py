"""Places: boxes, GeoJSON and tiles become UTM grids that nest with ESA's tiles."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rasterio.warp import transform

from unveil.errors import InputError
from unveil.sources.area import area_box, area_grid, tile_grid


def test_tiles_lie_where_esa_s_items_say(shared):
    """Six real items, north and south of the equator and beside the antimeridian."""
    found = 0
    for path in sorted((shared / "data/stac/items").glob("*.json")):
        item = json.loads(path.read_text())
        facts = item["properties"]
        tile = facts.get("grid:code", "")[5:] or facts.get("s2:mgrs_tile", "")
        asset = item["assets"].get("blue") or item["assets"].get("B02") or {}
        if item["id"].startswith("S2A_28QCH"):
            tile = "28QCH"
        if not tile or "proj:transform" not in asset:
            continue
        grid = tile_grid(tile)
        assert list(grid.transform) == asset["proj:transform"][:6], tile
        assert list(grid.shape) == asset["proj:shape"]
        assert grid.crs == facts.get("proj:code", f"EPSG:{facts.get('proj:epsg')}")
        found += 1
    assert found == 6


@pytest.mark.parametrize(
    ("tile", "left", "top"), [("46RER", 499_980, 3_100_020), ("33XWJ", 499_980, 8_900_040)]
)
def test_tiles_lie_where_granule_metadata_say(tile, left, top):
    grid = tile_grid(tile)
    assert (grid.transform[2], grid.transform[5]) == (left, top)


def test_a_box_is_covered_and_nests_in_the_tile():
    box = "15.2,45.2,15.21,45.21"
    grid, tile = area_grid(box), tile_grid("33TWL")
    assert grid.crs == tile.crs
    for edge in (0, 1):
        offset = (grid.transform[2 + 3 * edge] - tile.transform[2 + 3 * edge]) / 60
        assert offset == int(offset)
    assert grid.height % 6 == grid.width % 6 == 0
    x, y = transform("EPSG:4326", grid.crs, [15.2, 15.21, 15.2, 15.21], [45.2, 45.2, 45.21, 45.21])
    left, top = grid.transform[2], grid.transform[5]
    assert left <= min(x)
    assert max(x) <= left + 10 * grid.width
    assert top >= max(y)
    assert min(y) >= top - 10 * grid.height
    assert grid.width * 10 < max(x) - min(x) + 121


def test_grids_of_the_south_nest_in_southern_tiles():
    grid, tile = area_grid("179.5,-15.9,179.52,-15.88"), tile_grid("01LAC")
    assert area_grid("179.5,-15.9,179.52,-15.88", crs=tile.crs).transform[5] % 60 == (
        tile.transform[5] % 60
    )
    assert grid.crs == "EPSG:32760"


@pytest.mark.parametrize("text", ["179.9,-16,-179.9,-15.9", "179.9,-16,180.1,-15.9"])
def test_a_box_over_the_antimeridian_is_small(text):
    west, _, east, _ = area_box(text)
    assert east - west == pytest.approx(0.2)
    assert area_grid(text).width < 2300


def test_geojson_of_any_kind_is_understood(tmp_path):
    ring = [[15.2, 45.2], [15.3, 45.2], [15.3, 45.3], [15.2, 45.2]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    for number, document in enumerate(
        [polygon, feature, {"type": "FeatureCollection", "features": [feature]}]
    ):
        path = tmp_path / f"{number}.geojson"
        path.write_text(json.dumps(document))
        np.testing.assert_allclose(area_box(str(path)), (15.2, 45.2, 15.3, 45.3))


def test_a_real_file_in_metres_is_refused(shared):
    with pytest.raises(InputError, match=r"bbox.geojson.*465181.*-t_srs EPSG:4326"):
        area_box(str(shared / "data/eolearn/bbox.geojson"))


@pytest.mark.parametrize(
    "text",
    ["here", "1,2,3", "1,2,x,4", "1,5,2,4", "1,80,2,85", "33TWI", "61TWL", "33TAL", "0,0,200,1"],
)
def test_what_is_no_place_is_refused_with_a_remedy(text):
    with pytest.raises(InputError, match=r"area.*Remedy"):
        area_grid(text)


def test_latitude_and_longitude_exchanged_are_said_where_it_shows(tmp_path):
    path = tmp_path / "japan.geojson"
    path.write_text(json.dumps({"type": "Point", "coordinates": [[35.6, 139.7], [35.7, 139.8]]}))
    with pytest.raises(InputError, match=r"japan.geojson.*139.8.*longitude first"):
        area_box(str(path))
    with pytest.raises(InputError, match="latitude and longitude are exchanged"):
        area_box("35.6,139.7,35.7,139.8")
    with pytest.raises(InputError, match="metres of a projection"):
        area_box("465181,5079244,466180,5080254")


def test_a_geojson_that_names_a_projection_is_refused(tmp_path):
    path = tmp_path / "old.geojson"
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32635"}}
    path.write_text(json.dumps({"type": "Point", "coordinates": [[1, 2], [3, 4]], "crs": crs}))
    with pytest.raises(InputError, match=r"EPSG::32635.*ogr2ogr"):
        area_box(str(path))
    crs["properties"]["name"] = "urn:ogc:def:crs:OGC:1.3:CRS84"
    path.write_text(json.dumps({"type": "Point", "coordinates": [[1, 2], [3, 4]], "crs": crs}))
    assert area_box(str(path)) == (1, 2, 3, 4)


def test_a_missing_or_empty_geojson_is_refused(tmp_path):
    with pytest.raises(InputError, match="not found"):
        area_box(str(tmp_path / "none.geojson"))
    path = tmp_path / "empty.geojson"
    path.write_text("{}")
    with pytest.raises(InputError, match="no coordinates"):
        area_box(str(path))
