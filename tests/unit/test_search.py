"""A search in which a file is gone or lies: that date is left out with its reason."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from tests.services.stac_data import make_item, write_cog
from tests.unit.plain_server import serve

from unveil.config import SceneRow, load_config
from unveil.errors import InputError
from unveil.sources.stac import search as stac_search
from unveil.sources.stac.lock import lock_path, make_request, write_lock
from unveil.sources.stac.read import open_stac

KEYS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "SCL": "scl"}
TRANSFORM, CRS, SIDE = from_origin(500040, 5600040, 10, 10), "EPSG:32631", 180
AREA = "3.004,50.541,3.022,50.550"
CLOUDY, OTHERS = "2020-06-06", ("2020-06-01", "2020-06-11", "2020-06-16")


@pytest.fixture
def place(tmp_path):
    """Four dates on a server, of which one is cloudy: folder, items and address."""
    root = tmp_path / "files"
    root.mkdir()
    with serve(root) as server:
        items = {day: publish(root, server.url, day) for day in (CLOUDY, *OTHERS)}
        yield tmp_path, items


def publish(root, url, day):
    name = f"S2A_31UDS_{day.replace('-', '')}_0_L2A"
    rng = np.random.default_rng(int(day[-2:]))
    classes = np.full((SIDE, SIDE), 4, np.uint8)
    classes[: SIDE // 2 if day == CLOUDY else 0] = 9
    hrefs = {}
    for band, key in KEYS.items():
        data = classes if band == "SCL" else rng.integers(900, 3000, (SIDE, SIDE)).astype(np.uint16)
        write_cog(root / name / f"{key}.tif", data, TRANSFORM, CRS, blocksize=128, nodata=0)
        hrefs[key] = f"{url}/{name}/{key}.tif"
    facts = {"platform": "sentinel-2a", "grid:code": "MGRS-31UDS"}
    return make_item(
        name,
        "sentinel-2-l2a",
        dt.datetime.fromisoformat(day).replace(hour=10),
        hrefs,
        crs=CRS,
        transform=TRANSFORM,
        shape=(SIDE, SIDE),
        **facts,
        **{"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False},
    )


def file_of(folder, day, key):
    return next((folder / "files").glob(f"*{day.replace('-', '')}*/{key}.tif"))


def search(folder, items, monkeypatch):
    monkeypatch.setattr(stac_search, "_ask", lambda *_: list(items.values()))
    stac = {"locks": str(folder / "locks"), "bands": ["B02", "B03", "B04", "B08"], "radar": ""}
    config = load_config({"sources": {"stac": stac | {"retries": 1}}})["sources"]
    settings = config["stac"] | {
        **{"cache": str(folder / "cache"), "dilate_px": 2},
        "selection": config["selection"],
    }
    row = SceneRow(
        "s", "stac", "earth-search-sentinel-2-l2a", CLOUDY, "none", area=AREA, n_context=3
    )
    lock = stac_search.search_scene(make_request(row, settings), settings)
    write_lock(lock_path("s", settings), lock)
    return lock, open_stac(row, settings)


def gone(path):
    path.unlink()


def becomes_a_vrt(path):
    path.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')


def takes_overviews_elsewhere(path):
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/hosts")


def claims_a_million_squared(path):
    size = {"height": 10**6, "width": 10**6, "count": 1, "dtype": "uint16"}
    place = {"crs": CRS, "transform": from_origin(500040, 5600040, 1e-3, 1e-3)}
    tiles = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384, "bigtiff": "yes"}
    with rasterio.open(path, "w", driver="GTiff", sparse_ok=True, **size, **place, **tiles):
        pass


def is_finer_than_memory(path):
    claims_a_million_squared(path)
    with open(path, "ab") as stream:
        stream.truncate(200 << 20)  # large enough to be plausible; a sparse file


@pytest.mark.parametrize(
    ("spoil", "key", "words"),
    [
        (gone, "red", "404 Not Found"),
        (gone, "scl", "404 Not Found"),
        (becomes_a_vrt, "red", "cannot be read as a raster"),
        (becomes_a_vrt, "scl", "cannot be read as a raster"),
        (takes_overviews_elsewhere, "red", "overviews from another file"),
        (claims_a_million_squared, "scl", "GiB of data in"),
        (is_finer_than_memory, "scl", "of its pixels lie under"),
    ],
)
def test_a_context_date_with_a_bad_file_is_left_out_with_its_reason(
    place, monkeypatch, caplog, spoil, key, words
):
    folder, items = place
    spoil(file_of(folder, OTHERS[2], key))
    lock, series = search(folder, items, monkeypatch)
    assert sorted(series.optical) == sorted((CLOUDY, *OTHERS[:2]))
    (row,) = lock["left_out"]
    assert row["id"] == items[OTHERS[2]]["id"] and words in row["reason"]
    assert "Remedy" not in row["reason"] and caplog.text.count("left out") == 1


def test_a_target_whose_file_is_gone_is_an_error_that_says_so(place, monkeypatch):
    folder, items = place
    gone(file_of(folder, CLOUDY, "red"))
    with pytest.raises(InputError, match=rf"no look of {CLOUDY}.*red\.tif: .*404"):
        search(folder, items, monkeypatch)


def test_a_server_that_is_away_leaves_nothing_out(place, monkeypatch):
    folder, items = place
    items = json.loads(json.dumps(items).replace("http://127.0.0.1:", "http://127.0.0.1:1"))
    with pytest.raises(InputError, match=r"failed 2 times in a row|href"):
        search(folder, items, monkeypatch)


def test_presigned_addresses_get_into_no_lock_and_no_cache(place, monkeypatch):
    folder, items = place
    signed = json.loads(json.dumps(items).replace('.tif"', '.tif?X-Amz-Signature=hunter2&sig=s"'))
    search(folder, signed, monkeypatch)
    written = [path for part in ("locks", "cache") for path in (folder / part).rglob("*.json")]
    assert len(written) > 20
    assert not [path for path in written if "hunter2" in path.read_text()]
