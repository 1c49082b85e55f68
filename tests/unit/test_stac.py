"""Source ``stac``: presets against recorded items, requests, locks, places, choices."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from unveil.bands import BANDS
from unveil.config import SceneRow, fill_defaults, load_config, load_schema
from unveil.errors import InputError
from unveil.remote import signing
from unveil.remote.range_cache import Request
from unveil.sources.area import area_box
from unveil.sources.radiometry import offset_of_item
from unveil.sources.selection import Look
from unveil.sources.stac import search as stac_search
from unveil.sources.stac.lock import (
    MASK,
    get_preset,
    lock_path,
    make_request,
    read_lock,
    write_lock,
)
from unveil.sources.stac.preset import load_presets
from unveil.sources.stac.read import acquisition_of, band_assets, crs_of, place_name, stated_digest
from unveil.sources.stac.search import cut_at_antimeridian, overlap

ITEMS = Path(__file__).parent / "stac_items"

# Facts of the recorded item of every preset, looked up by hand in its product's names: platform,
# tile, relative orbit, baseline, sensing start of the datastrip, offset, CRS. The items and
# where they are from: stac_items/README.md.
RECORDED = {
    "earth-search-sentinel-2-l2a": ("earth-search-sentinel-2-l2a",
        "sentinel-2a", "39QTA", 106, (5, 9), "20230628T071848", 0, "EPSG:32639"),
    "earth-search-sentinel-2-c1-l2a": ("earth-search-sentinel-2-c1-l2a",
        "sentinel-2b", "38XNF", 93, (5, 11), "20250422T091553", -1000, "EPSG:32638"),
    "earth-search-sentinel-2-l1c": ("earth-search-sentinel-2-l1c",
        "sentinel-2b", "27VWK", 81, (5, 10), "20240206T131359", -1000, "EPSG:32627"),
    # Of no real item of this catalogue more than a part is public: see the next test.
    "earth-search-sentinel-1-grd": ("earth-search-sentinel-1-grd_stactools",
        "sentinel-1a", "", 59, None, "", None, "EPSG:4326"),
    "planetary-computer-sentinel-2-l2a": ("planetary-computer-sentinel-2-l2a",
        "sentinel-2b", "47XML", 122, (5, 10), "20240419T095549", -1000, "EPSG:32647"),
    "planetary-computer-sentinel-1-rtc": ("planetary-computer-sentinel-1-rtc",
        "sentinel-1a", "", 51, None, "", None, "EPSG:32633"),
    "copernicus-sentinel-2-l2a": ("copernicus-sentinel-2-l2a",
        "sentinel-2c", "33UWP", 122, (5, 11), "20250330T100435", -1000, "EPSG:32633"),
    "copernicus-sentinel-2-l1c": ("copernicus-sentinel-2-l1c",
        "sentinel-2a", "51CVP", 130, (5, 10), "20240116T000743", -1000, "EPSG:32751"),
    "copernicus-sentinel-1-grd": ("copernicus-sentinel-1-grd",
        "sentinel-1a", "", 63, (1, 0), "", None, ""),
}  # fmt: skip
EVERY = pytest.mark.parametrize("preset", load_presets().values(), ids=lambda p: p.id)


def recorded_item(name):
    return json.loads((ITEMS / f"{name}.json").read_text())


@EVERY
def test_the_recorded_item_of_a_preset_is_read(preset):
    name, platform, tile, orbit, baseline, strip, offset, crs = RECORDED[preset.id]
    item = recorded_item(name)
    seen = acquisition_of(item)
    assert (seen.platform, seen.tile, seen.relative_orbit) == (platform, tile, orbit)
    assert (seen.baseline, seen.datastrip, crs_of(item)) == (baseline, strip, crs)
    assets = band_assets(item, preset, preset.assets)
    assert set(assets) == set(preset.assets), "every band of the preset is in the item"
    if preset.kind == "optical":
        decided = {b: offset_of_item(item, assets[b], preset.offset) for b in preset.assets}
        assert {decided[b].value for b in preset.assets if b != MASK} == {offset}
        assert decided["B02"].warnings == ()


@EVERY
def test_assets_of_a_recorded_item_are_the_files_of_their_bands(preset):
    item = recorded_item(RECORDED[preset.id][0])
    for band, asset in band_assets(item, preset, preset.assets).items():
        kind, _, polarisation = band.rpartition("-")
        name = asset["href"].rpartition("/")[2].lower()
        assert re.search(rf"(^|[-_]){polarisation.lower()}[-_.]", name)
        assert name.startswith(kind)  # calibration, noise, or nothing
        assert "?" not in asset["href"]  # no signature is kept
        if preset.kind == "optical":
            metres = 20 if band == MASK else BANDS[band].resolution_m
            assert asset["proj:transform"][0] == metres
            assert asset["proj:shape"] == [109800 // metres] * 2


@EVERY
def test_the_recorded_item_of_a_preset_passes_its_search(preset, tmp_path, monkeypatch):
    item = recorded_item(RECORDED[preset.id][0])
    middle = shapely.geometry.shape(item["geometry"]).representative_point()
    west, south = middle.x, middle.y
    row = {
        "area": f"{west},{south},{west + 0.001},{south + 0.001}",
        "target_date": item["properties"]["datetime"][:10],
    }
    found, left_out = answer([item], tmp_path, monkeypatch, preset=preset.id, **row)
    assert (found, left_out) == ([item["id"]], {})


def test_a_mirror_shows_that_earth_search_has_radar_under_these_ids_and_folders():
    """It shows time, footprint and quick-look, which lies where the bands of the product lie."""
    item = recorded_item("earth-search-sentinel-1-grd_mirror")
    seen = acquisition_of(item)
    assert seen.time == dt.datetime(2024, 3, 19, 6, 47, 9, 55942, dt.UTC)
    folder = item["assets"]["thumbnail"]["href"].removesuffix("/preview/quick-look.png")
    assert folder.removesuffix("_F0FA").endswith(f"/GRD/2024/3/19/IW/DV/{item['id']}")
    assert item["collection"] in load_presets()["earth-search-sentinel-1-grd"].collections


def test_copernicus_writes_an_offset_on_products_that_have_none():
    """Its item of 05.10, with the baseline of the year before offsets; then its own."""
    item = recorded_item("copernicus-sentinel-2-l1c")
    preset = load_presets()["copernicus-sentinel-2-l1c"]
    assert item["assets"]["B02"]["raster:offset"] == -0.1
    for baseline, value in (("03.01", 0), ("05.10", -1000)):
        item["properties"]["processing:version"] = baseline
        decided = offset_of_item(item, item["assets"]["B02"], preset.offset)
        assert (decided.value, decided.baseline, decided.warnings) == (value, baseline, ())


# Items of older forms: asset names and properties of Earth Search v0, baselines without offset,
# L1C of before product names had orbit and baseline.
OLDER = [
    ("earth-search-v0_S2A_28QCH_20200714_0_L2A", "earth-search-sentinel-2-l2a",
     ("sentinel-2a", "28QCH", 123, (2, 14), 0, "EPSG:32628")),
    ("planetary-computer_S2B_MSIL2A_20190629T212529_R043_T06VVN",
     "planetary-computer-sentinel-2-l2a",
     ("sentinel-2b", "06VVN", 43, (2, 12), 0, "EPSG:32606")),
    ("stactools_S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE",
     "earth-search-sentinel-2-l1c",
     ("sentinel-2a", "46RER", 133, (3, 1), 0, "EPSG:32646")),
    ("stactools_S2A_OPER_MSI_L1C_TL_SGS__20181231T203637_A018414_T10SDG",
     "earth-search-sentinel-2-l1c",
     ("sentinel-2a", "10SDG", None, (2, 7), 0, "EPSG:32610")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "preset", "facts"), OLDER, ids=lambda v: str(v)[:40])
def test_items_of_older_forms_are_read(shared, name, preset, facts):
    item = json.loads((shared / "data" / "stac" / "items" / f"{name}.json").read_text())
    preset = load_presets()[preset]
    platform, tile, orbit, baseline, offset, crs = facts
    seen = acquisition_of(item)
    assert (seen.platform, seen.tile, seen.relative_orbit, seen.baseline) == (
        platform, tile, orbit, baseline,
    )  # fmt: skip
    assert crs_of(item) == crs
    assets = band_assets(item, preset, preset.assets)
    assert set(assets) == set(preset.assets)
    assert offset_of_item(item, assets["B02"], preset.offset).value == offset


def checksums(name):
    return {a["file:checksum"] for a in recorded_item(name)["assets"].values()}


def test_checksums_are_used_where_they_can_be_relied_on():
    found = checksums("earth-search-sentinel-2-c1-l2a")
    assert {stated_digest(text)[0] for text in found} == {"sha256"}
    # Bare MD5, and the code of SHA3-256 before digests of 32 and of 16 bytes.
    unclear = checksums("planetary-computer-sentinel-1-rtc")
    unclear |= checksums("copernicus-sentinel-2-l1c") | checksums("copernicus-sentinel-1-grd")
    assert {stated_digest(text) for text in unclear} == {None}
    # A bare MD5 that begins like a multihash, and an MD5 of 32 bytes, as Copernicus has them.
    assert stated_digest("1220" + "0" * 28) is None
    assert stated_digest("d50120" + "0" * 64) is None
    assert stated_digest("d50110" + "a" * 32) == ("md5", "a" * 32)


def test_relative_addresses_are_those_beside_the_item():
    preset = load_presets()["planetary-computer-sentinel-1-rtc"]
    item = {
        "links": [{"rel": "self", "href": "https://here.example/c/items/i.json"}],
        "assets": {"vv": {"href": "./i/vv.tif"}},
    }
    found = band_assets(item, preset, ["VV"])
    assert found["VV"]["href"] == "https://here.example/c/items/i/vv.tif"


# --- presets of the user ----------------------------------------------------------------


def test_own_presets_add_catalogues_and_change_single_keys(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "earth-search-sentinel-2-l2a: {api: 'http://mirror.example'}\n"
        "mine: {title: Mine, api: 'http://mine.example', collections: [s2], kind: optical, "
        "level: L2A, assets: {B02: [b2], SCL: [scl]}, licence: x, attribution: y}\n"
    )
    presets = load_presets(str(own))
    assert presets["earth-search-sentinel-2-l2a"].api == "http://mirror.example"
    assert presets["earth-search-sentinel-2-l2a"].assets["B02"] == ["blue", "B02"]
    assert presets["mine"].assets == {"B02": ["b2"], "SCL": ["scl"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine: {title: x}", "own.yaml.*'api' is missing"),
        ("earth-search-sentinel-2-l2a: {apis: x}", "unknown key 'apis'.*use 'api'"),
        ("earth-search-sentinel-2-l2a: {api: 'ftp://x'}", "own.yaml.*api"),
    ],
)
def test_a_wrong_preset_is_refused_by_file_and_key(tmp_path, text, message):
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(InputError, match=message):
        load_presets(str(own))


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="no optical preset.*earth-search-sentinel-2-l2a"):
        get_preset("earth-search", "", kind="optical", field="path")
    with pytest.raises(InputError, match="no radar preset"):
        get_preset("earth-search-sentinel-2-l2a", "", kind="radar")


def test_every_preset_names_its_licence_and_a_mask_for_optical_frames():
    for preset in load_presets().values():
        assert preset.licence and preset.attribution and preset.api.startswith("https://")
        if preset.kind == "optical":
            assert MASK in preset.assets or preset.masks_from in load_presets()
        else:
            assert preset.pixels and preset.calibration


# --- requests and locks -----------------------------------------------------------------


def settings_of(tmp_path, **changes):
    sources = fill_defaults({}, load_schema("config"))["sources"]
    sources = fill_defaults(sources, load_schema("config")["properties"]["sources"])
    selection = sources["selection"] | changes.pop("selection", {})
    return sources["stac"] | {"locks": str(tmp_path), "selection": selection} | changes


def row_of(**changes):
    facts = {
        "scene": "s",
        "source": "stac",
        "path": "earth-search-sentinel-2-l2a",
        "area": "3.0,50.8,3.1,50.9",
        "target_date": "2024-06-01",
        "protocol": "paired",
    }
    return SceneRow(**(facts | changes))


def test_a_request_is_plain_values_and_survives_json(tmp_path):
    request = make_request(row_of(), settings_of(tmp_path))
    assert json.loads(json.dumps(request)) == request
    assert request["box"] == [3.0, 50.8, 3.1, 50.9] and len(request["bands"]) == 12


def test_a_lock_is_good_for_its_request_only(tmp_path):
    settings = settings_of(tmp_path)
    request = make_request(row_of(), settings)
    path = lock_path("s", settings)
    write_lock(path, {"unveil_lock": 1, "request": request, "items": []})
    assert read_lock(path, request)["items"] == []
    other = make_request(row_of(target_date="2024-06-02"), settings)
    with pytest.raises(InputError, match="another target_date.*search again"):
        read_lock(path, other)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"unveil_lock": 1}'])
def test_a_damaged_lock_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match="not a lock.*search again"):
        read_lock(tmp_path / "s.json", {})


def test_a_missing_lock_says_how_to_search(tmp_path):
    with pytest.raises(InputError, match="there is no lock.*snakemake search"):
        read_lock(tmp_path / "s.json", {})


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ({"area": ""}, {}, "area"),
        ({"area": "3,50"}, {}, "area"),
        ({"path": "nowhere"}, {}, "no optical preset"),
        ({}, {"bands": ["B10"]}, "has no B10"),
        ({}, {"radar": "copernicus"}, "no radar preset"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path, row, changes, message):
    with pytest.raises(InputError, match=message):
        make_request(row_of(**row), settings_of(tmp_path, **changes))


def test_credentials_have_no_place_in_the_config():
    with pytest.raises(InputError, match="unknown key 'secret_key'"):
        load_config({"sources": {"stac": {"secret_key": "x"}}})


# --- places -----------------------------------------------------------------------------


def rectangle(west, south, east, north):
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def test_the_overlap_of_plain_footprints_is_the_fraction_of_the_place():
    assert overlap((10, 50, 11, 51), rectangle(9, 49, 10.25, 52)) == pytest.approx(0.25)
    assert overlap((10, 50, 11, 51), rectangle(0, 0, 1, 1)) == 0
    assert overlap((10, 50, 11, 51), None) == 0


def test_a_place_across_the_antimeridian_is_cut_and_meets_footprints_of_every_habit():
    box = area_box("179.5,-17,-179.5,-16")
    cut = cut_at_antimeridian(box)
    assert cut["type"] == "MultiPolygon" and len(cut["coordinates"]) == 2
    east = rectangle(179, -18, 180, -15)
    west = rectangle(-180, -18, -179, -15)
    around = rectangle(-179, -18, 179, -15)  # the wrong way around the earth, as some items
    beyond = rectangle(179, -18, 181, -15)
    both = {"type": "MultiPolygon", "coordinates": [east["coordinates"], west["coordinates"]]}
    assert overlap(box, east) == pytest.approx(0.5)
    assert overlap(box, west) == pytest.approx(0.5)
    for footprint in (around, beyond, both):
        assert overlap(box, footprint) == pytest.approx(1.0)


@given(
    st.floats(-179, 178),
    st.floats(-70, 70),
    st.floats(0.05, 1),
    st.floats(-0.5, 0.5),
)
def test_the_overlap_does_not_depend_on_where_the_earth_is_cut(west, south, size, shift):
    box = (west, south, west + size, south + size)
    footprint = rectangle(west + shift, south, west + shift + size, south + size)
    expected = max(0.0, size - abs(shift)) / size
    assert overlap(box, footprint) == pytest.approx(expected, abs=1e-6)
    moved = rectangle(west + shift + 360, south, west + shift + size + 360, south + size)
    assert overlap(box, moved) == pytest.approx(expected, abs=1e-6)


# --- choosing ---------------------------------------------------------------------------


def look(date, occluded, valid=1.0):
    time = dt.datetime.fromisoformat(date).replace(hour=10, tzinfo=dt.UTC)
    seen = acquisition_of({"id": date, "properties": {"datetime": time.isoformat()}})
    return Look((seen,), valid, occluded)


SERIES = [
    look("2024-05-19", 0.0),
    look("2024-05-25", 0.95),
    look("2024-05-30", 0.4),
    look("2024-06-04", 0.0, valid=0.6),
    look("2024-06-09", 0.005),
    look("2024-06-14", 0.7),
]


def choose(tmp_path, selection=None, **row):
    request = make_request(row_of(**row), settings_of(tmp_path, selection=selection or {}))
    return stac_search._choose(SERIES, request)


def test_a_paired_scene_gets_cloudy_target_clear_truth_and_the_rest_as_context(tmp_path):
    chosen, notes = choose(tmp_path, {"window_days": 5}, n_context=2)
    assert chosen == {
        "target": "2024-05-30",
        "reference": "2024-06-09",
        "donor": "",
        "context": ["2024-05-25", "2024-06-04"],
    }
    assert notes == []


def test_a_date_that_is_named_is_taken_whatever_its_clouds(tmp_path):
    assert choose(tmp_path, target_date="2024-05-25")[0]["target"] == "2024-05-25"
    with pytest.raises(InputError, match="no look of 2024-06-01.*2024-05-30"):
        choose(tmp_path)


def test_a_scene_without_a_clear_date_goes_on_without_truth_and_says_so(tmp_path):
    chosen, notes = choose(tmp_path, {"truth_days": 1}, target_date="2024-05-30")
    assert chosen["reference"] == "" and "no really clear date" in notes[0]


def test_a_transplant_withholds_a_clear_date_and_takes_clouds_of_the_wanted_level(tmp_path):
    facts = {"protocol": "transplant", "cloud_level": 0.65}
    chosen, _ = choose(tmp_path, {"window_days": 10}, **facts)
    assert (chosen["target"], chosen["donor"]) == ("2024-06-09", "2024-06-14")
    assert not {"2024-06-09", "2024-06-14"} & set(chosen["context"])


def test_dates_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="no look of 2024-06-02"):
        choose(tmp_path, target_date="2024-05-30", reference_date="2024-06-02")


# --- filters are checked again ----------------------------------------------------------


def answer(items, tmp_path, monkeypatch, preset="earth-search-sentinel-2-l2a", **row):
    monkeypatch.setattr(stac_search, "_ask", lambda *_: items)
    settings = settings_of(tmp_path, leave_out=["bad"])
    request = make_request(row_of(**row), settings)
    preset = load_presets()[preset]
    bands = ["B02"] if preset.kind == "optical" else ["VV", "VH"]
    found, left_out = stac_search._find(preset, 60, bands, request, settings)
    return [f.seen_as.id for f in found], {row["id"]: row["reason"] for row in left_out}


def plain_item(name, **changes):
    facts = {
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": rectangle(2, 50, 4, 52),
        "properties": {"datetime": "2024-06-01T10:00:00Z"},
        "assets": {"blue": {"href": "x"}, "vv": {"href": "x"}, "vh": {"href": "x"}},
    }
    return facts | changes


def test_what_a_server_does_not_filter_is_left_out_with_the_reason(tmp_path, monkeypatch):
    found, left_out = answer(
        [
            plain_item("good"),
            plain_item("bad"),
            plain_item("elsewhere", geometry=rectangle(10, 50, 11, 51)),
            plain_item("early", properties={"datetime": "2023-06-01T10:00:00Z"}),
            plain_item("other", collection="landsat-c2-l2"),
            plain_item("poor", assets={}),
        ],
        tmp_path,
        monkeypatch,
    )
    assert found == ["good"]
    assert left_out == {
        "bad": "left out by the config",
        "elsewhere": "not over the place",
        "early": "of 2023-06-01, outside the window",
        "other": "of collection landsat-c2-l2",
        "poor": "without B02",
    }


def test_radar_of_another_mode_or_polarisation_is_left_out(tmp_path, monkeypatch):
    base = {"datetime": "2024-06-01T10:00:00Z", "sar:instrument_mode": "IW"}
    rtc = {"collection": "sentinel-1-rtc"}
    found, left_out = answer(
        [
            plain_item("good", properties=base | {"sar:polarizations": ["VV", "VH"]}, **rtc),
            plain_item("wide", properties=base | {"sar:instrument_mode": "EW"}, **rtc),
            plain_item("single", properties=base | {"sar:polarizations": ["VV"]}, **rtc),
        ],
        tmp_path,
        monkeypatch,
        preset="planetary-computer-sentinel-1-rtc",
    )
    assert found == ["good"] and set(left_out) == {"wide", "single"}


# --- signatures -------------------------------------------------------------------------


def test_s3_requests_are_signed_with_credentials_of_the_environment(monkeypatch):
    """The signature is that of botocore's own client for the same request and moment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    preset = load_presets()["copernicus-sentinel-2-l2a"]
    request = signing.make_signer(preset.sign)("s3://eodata/Sentinel-2/a b.jp2", False)
    assert request.url == "https://eodata.dataspace.copernicus.eu/eodata/Sentinel-2/a%20b.jp2"
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert "not-a-real-secret" not in str(request)


def test_a_profile_of_the_shared_files_can_hold_the_keys(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        "[cdse]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    sign = load_presets()["copernicus-sentinel-2-l2a"].sign
    request = signing.make_signer(sign, profile="cdse")("s3://eodata/a.jp2", False)
    assert "Credential=PROFILEKEY/" in request.headers["Authorization"]
    with pytest.raises(InputError, match="name a profile that exists"):
        signing.make_signer(sign, profile="nobody")("s3://eodata/a.jp2", False)


def test_missing_credentials_say_where_they_go(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sign = load_presets()["copernicus-sentinel-2-l2a"].sign
    with pytest.raises(InputError, match="wants S3 credentials.*AWS_ACCESS_KEY_ID"):
        signing.make_signer(sign)("s3://eodata/a.jp2", False)


@pytest.mark.parametrize(
    ("preset", "band", "address"),
    [
        ("earth-search-sentinel-2-l1c", "B02",
         "https://s3.eu-central-1.amazonaws.com/sentinel-s2-l1c/tiles/27/V/WK/2024/2/6/0/B02.jp2"),
        ("copernicus-sentinel-1-grd", "VV",
         "https://eodata.dataspace.copernicus.eu/eodata/Sentinel-1/SAR/IW_GRDH_1S-COG/2024/06/07/"),
    ],
)  # fmt: skip
def test_recorded_addresses_in_buckets_become_those_of_the_service(
    monkeypatch, preset, band, address
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    preset = load_presets()[preset]
    asset = band_assets(recorded_item(RECORDED[preset.id][0]), preset, [band])[band]
    assert signing.make_signer(preset.sign)(asset["href"], False).url.startswith(address)


def test_tokens_are_those_of_the_containers_of_recorded_addresses(monkeypatch):
    asked = []
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    monkeypatch.setattr(signing, "_fetch_token", lambda url: (asked.append(url) or "t", ends))
    for name, band in (("sentinel-2-l2a", "B02"), ("sentinel-1-rtc", "VV")):
        preset = load_presets()[f"planetary-computer-{name}"]
        asset = band_assets(recorded_item(preset.id), preset, [band])[band]
        assert signing.make_signer(preset.sign)(asset["href"], False).url == asset["href"] + "?t"
    assert [url.rpartition("/token/")[2] for url in asked] == [
        "sentinel2l2a01/sentinel2-l2",
        "sentinel1euwestrtc/sentinel1-grd-rtc",
    ]


def test_the_reader_pays_where_the_preset_says_so(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    sign = signing.make_signer(load_presets()["earth-search-sentinel-2-l1c"].sign)
    assert sign("s3://sentinel-s2-l1c/a.jp2", False).headers["x-amz-request-payer"] == "requester"
    assert sign("https://public.example/scl.tif", False) == Request(
        "https://public.example/scl.tif"
    )


@pytest.mark.parametrize(
    ("area", "name"),
    [
        ("places/my field.geojson", "my_field"),
        ("33TWL", "33TWL"),
        ("3.0,50.8,3.1,50.9", "3.0_50.8_3.1_50.9"),
    ],
)
def test_scenes_of_one_area_are_of_one_place(area, name):
    assert place_name(area) == name


# --- what lies, and what is gone --------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"geometry": {"type": "Polygon", "coordinates": [[["a", "b"]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[2, 50], [3, 51]]]}},
        {"properties": {"datetime": "yesterday"}},
        {"properties": {"datetime": None}},
        {"properties": {"datetime": "9999-12-31T23:59:59-23:00"}},
        {"assets": None},
        {"assets": {"blue": {"href": 7}}},
        {"assets": {"blue": {}}},
        {"assets": {"blue": {"href": "http://[x"}}},
        {"links": 7},
    ],
)
def test_an_item_that_makes_no_sense_is_left_out_and_the_others_go_on(
    tmp_path, monkeypatch, caplog, changes
):
    found, left_out = answer([plain_item("odd", **changes), plain_item("good"), None], tmp_path,
                             monkeypatch)  # fmt: skip
    assert found == ["good"]
    assert left_out["odd"].startswith("unusable: ") and left_out["no item"]
    assert "Traceback" not in caplog.text and caplog.text.count("odd") <= 2


def test_signatures_and_keys_of_a_catalogue_get_into_no_lock():
    href = "https://me:pw@h.example/x.tif?f=1&subscription-key=K&X-Amz-Signature=S"
    item = plain_item("a", assets={"blue": {"href": href}})
    preset = load_presets()["earth-search-sentinel-2-l2a"]
    assert band_assets(item, preset, ["B02"])["B02"]["href"] == "https://h.example/x.tif?f=1"
