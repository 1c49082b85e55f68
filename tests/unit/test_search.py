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
from unveil.remote.range_cache import unsigned
from unveil.sources.stac import read as stac_read
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


def search(folder, items, monkeypatch, *, passes=(), **columns):
    answers = {"optical": list(items.values()), "radar": list(passes)}
    monkeypatch.setattr(stac_search, "_ask", lambda preset, *_: answers[preset.kind])
    radar = "planetary-computer-sentinel-1-rtc" if passes else ""
    stac = {"locks": str(folder / "locks"), "bands": ["B02", "B03", "B04", "B08"], "radar": radar}
    config = load_config({"sources": {"stac": stac | {"retries": 1}}})["sources"]
    settings = config["stac"] | {
        **{"cache": str(folder / "cache")},
        "selection": config["selection"],
    }
    standard = {"protocol": "none", "n_context": 3, "target_date": CLOUDY}
    row = SceneRow(
        **{"scene": "s", "source": "stac", "path": "earth-search-sentinel-2-l2a", "area": AREA},
        **{**standard, **columns},
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


# --- looks that nothing can judge, radar that shows nothing --------------------------------------


def without_scl(item, **facts):
    """Return an item that has lost its mask, and what its catalogue says of the tile."""
    assets = {name: asset for name, asset in item["assets"].items() if name != "scl"}
    return {**item, "assets": assets, "properties": {**item["properties"], **facts}}


def test_an_item_without_scl_is_neither_truth_nor_context_whatever_the_catalogue_says(
    place, monkeypatch
):
    folder, items = place
    near = OTHERS[0]
    items[near] = without_scl(items[near], **{"eo:cloud_cover": 0.0})
    lock, series = search(folder, items, monkeypatch, protocol="paired", reference_date="auto")
    assert lock["chosen"]["reference"] == OTHERS[1]
    assert near not in series.optical
    (row,) = lock["left_out"]
    assert row == {
        "id": items[near]["id"],
        "reason": f"{near}: nothing can judge its clouds (no SCL)",
    }


def test_a_real_pair_is_chosen_from_the_period_that_is_asked_for(place, monkeypatch):
    folder, items = place
    asked = {"protocol": "paired", "target_date": "auto", "period": "2020-06-01/2020-06-30"}
    lock, series = search(folder, items, monkeypatch, truth_days=30, **asked)
    assert (series.target_date, series.reference_date) == (CLOUDY, lock["chosen"]["reference"])
    assert series.reference_date in OTHERS and CLOUDY not in lock["chosen"]["context"]
    assert series.reference_date not in lock["chosen"]["context"]
    with pytest.raises(InputError, match="1 real pair is there from 2020-06-01.*2 wanted"):
        search(folder, items, monkeypatch, truth_days=30, n_targets=2, pair=2, **asked)
    with pytest.raises(InputError, match="0 real pairs are there"):
        search(folder, items, monkeypatch, **{**asked, "period": "2020-07-01/2020-07-02"})


def test_a_target_without_scl_is_refused(place, monkeypatch):
    folder, items = place
    items[CLOUDY] = without_scl(items[CLOUDY])
    with pytest.raises(InputError, match=f"no look of {CLOUDY}.*nothing can judge its clouds"):
        search(folder, items, monkeypatch)


def test_a_target_without_a_band_is_refused_by_name(place, monkeypatch):
    folder, items = place
    del items[CLOUDY]["assets"]["red"]
    with pytest.raises(
        InputError, match=f"no look of {CLOUDY}.*{items[CLOUDY]['id']}: without B04"
    ):
        search(folder, items, monkeypatch)


def publish_pass(folder, url, day, *, blank):
    """Publish a terrain-corrected pass whose footprint covers the place, and half its pixels."""
    name = f"S1A_IW_GRDH_1SDV_202006{day:02d}T053000_rtc"
    power = np.full((SIDE, SIDE), 0.1, np.float32)
    power[:, : SIDE if blank else SIDE // 2] = 0
    hrefs = {}
    for key, level in (("vv", 1.0), ("vh", 0.2)):
        path = folder / "files" / name / f"{key}.tif"
        write_cog(path, power * np.float32(level), TRANSFORM, CRS, blocksize=128, nodata=-32768)
        hrefs[key] = f"{url}/{name}/{key}.tif"
    return make_item(
        name,
        "sentinel-1-rtc",
        dt.datetime(2020, 6, day, 5, 30),
        hrefs,
        crs=CRS,
        transform=TRANSFORM,
        shape=(SIDE, SIDE),
        platform="SENTINEL-1A",
        **{"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"]},
        **{"sat:orbit_state": "ascending", "sat:relative_orbit": 59},
    )


def test_a_pass_without_a_pixel_of_the_place_makes_way_for_the_next(place, monkeypatch):
    monkeypatch.setattr(stac_read, "make_signer", lambda *_, **__: unsigned)
    folder, items = place
    url = items[CLOUDY]["assets"]["red"]["href"].rpartition("/S2A")[0]
    passes = [publish_pass(folder, url, day, blank=day in (5, 11)) for day in (3, 5, 11)]
    lock, series = search(folder, items, monkeypatch, passes=passes, n_context=2)
    assert lock["chosen"]["radar"] == ["2020-06-03"] == list(series.radar)
    reasons = {row["id"]: row["reason"] for row in lock["left_out"]}
    assert len(reasons) == 2 and all("no pixel of the place" in r for r in reasons.values())
    whole = rasterio.windows.Window(0, 0, series.grid.width, series.grid.height)
    assert np.isfinite(series.radar["2020-06-03"].read(whole)).any()
