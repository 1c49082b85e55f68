"""Radiometry: offsets from metadata and pixels, calibrated radar; closed forms and real items."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from unveil.bands import L1C13, L2A12, RGBN4
from unveil.errors import InputError
from unveil.sources import radiometry
from unveil.sources.radiometry import Harmonisation, Offset

RAW = Harmonisation()
EARTH_SEARCH = Harmonisation(
    pixels="flagged", flag="earthsearch:boa_offset_applied", declared=False, reliable=False
)


def item(baseline="05.09", **properties):
    return {"id": "x", "properties": {"s2:processing_baseline": baseline, **properties}}


def product(baseline, offset=None):
    return {
        "baseline": baseline,
        "quantification": 10_000,
        "offset_name": "BOA_ADD_OFFSET",
        "offsets": dict.fromkeys(L1C13, offset) if offset is not None else {},
    }


# --- metadata ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("04.00", (4, 0)),
        ("5.9", (5, 9)),
        ("n0400", (4, 0)),
        (" 04.00 ", (4, 0)),
        (4.0, (4, 0)),
        (400, (4, 0)),
        (511.0, (5, 11)),
        ("S2A_MSIL2A_20200714T115221_N9999_R123_T28QCH_20200714T191310", (99, 99)),
        (None, None),
        (True, None),
        ("N0214", (2, 14)),
        ("S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T191310", (2, 14)),
        ("S2A_OPER_MSI_L1C_TL_SGS__20181231T203637_A018414_T10SDG_N02.07", (2, 7)),
        ("S2A_28QCH_20200714_0_L2A", None),
        ("", None),
    ],
)
def test_baselines_are_read_from_numbers_and_names(text, numbers):
    assert radiometry.parse_baseline(text) == numbers


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_baseline_is_the_same_in_every_form_that_metadata_write_it_in(major, minor):
    forms = [f"{major:02d}.{minor:02d}", f"{major}.{minor:02d}", f"N{major:02d}{minor:02d}"]
    forms += [f"{major:02d}{minor:02d}", f"N{major:02d}.{minor:02d}", f" {major:02d}.{minor:02d}\n"]
    forms += [f"S2B_MSIL1C_20221229T085359_N{major:02d}{minor:02d}_R107_T35VLG_20221229T104115"]
    if major:
        forms += [100 * major + minor, float(100 * major + minor)]
    if minor >= 10 or not minor:
        forms += [float(f"{major}.{minor:02d}")] if minor % 10 or not minor else []
    assert {radiometry.parse_baseline(form) for form in forms} == {(major, minor)}


@pytest.mark.parametrize(
    ("baseline", "value"), [("02.12", 0), ("03.01", 0), ("04.00", -1000), ("05.11", -1000)]
)
def test_the_offset_follows_the_baseline_never_the_date(baseline, value):
    old = item(baseline, datetime="2016-01-01T00:00:00Z")
    found = radiometry.offset_of_item(old, {}, RAW)
    assert (found.value, found.origin) == (value, "s2:processing_baseline")
    assert found.warnings == ()


def test_a_product_s_own_offset_is_taken_and_named():
    found = radiometry.offset_of_product(product("04.00", -1000))
    assert found.facts() == {
        "unveil:offset_applied": -1000,
        "unveil:offset_from": "BOA_ADD_OFFSET",
        "s2:processing_baseline": "04.00",
    }


def test_a_product_that_contradicts_its_baseline_is_believed_with_a_warning():
    found = radiometry.offset_of_product(product("03.01", -1000))
    assert found.value == -1000
    assert "03.01 implies 0" in found.warnings[0]


@pytest.mark.parametrize("baseline", ["99.99", "99.98", "N9999"])
def test_a_local_sen2cor_that_lists_no_offset_gets_none(baseline):
    found = radiometry.offset_of_product(product(baseline))
    assert (found.value, found.warnings) == (0, ())
    assert radiometry.offset_of_product(product(baseline, -1000)).value == -1000
    assert radiometry.offset_of_product(product(baseline, -1000)).warnings == ()
    unknown = radiometry.offset_of_item(item(baseline), {}, RAW)
    assert unknown.value == 0
    assert "local Sen2Cor" in unknown.warnings[0]


def test_a_product_that_lists_no_offset_gets_none_whatever_its_baseline_implies():
    found = radiometry.offset_of_product(product("05.09"))
    assert found.value == 0
    assert "the product metadata list none" in found.warnings[0]


def test_a_number_for_an_id_is_no_baseline():
    assert radiometry.baseline_of_item({"id": "0509", "properties": {}}) is None


def test_offsets_may_differ_between_bands():
    metadata = product("06.00", -1000)
    metadata["offsets"]["B10"] = -2000
    found = radiometry.offset_of_product(metadata)
    assert (found.of("B02"), found.of("B10")) == (-1000, -2000)
    dn = np.full((2, 1, 1), 3000, np.uint16)
    assert radiometry.harmonise(dn, ("B02", "B10"), found).ravel().tolist() == [2000, 1000]


def test_an_unknown_baseline_is_a_warning():
    found = radiometry.offset_of_item({"id": "x", "properties": {}}, {}, RAW)
    assert found.value == 0
    assert "unknown" in found.warnings[0]


def test_a_harmonising_catalogue_gets_no_offset_again():
    found = radiometry.offset_of_item(item(), {}, Harmonisation(pixels="harmonised"))
    assert (found.value, found.warnings) == (0, ())


@pytest.mark.parametrize(("flag", "value"), [(True, 0), (False, -1000), (None, -1000)])
def test_the_flag_of_a_catalogue_decides_before_the_baseline(flag, value):
    marked = item("04.00", **({} if flag is None else {EARTH_SEARCH.flag: flag}))
    # Earth Search declares -0.1 even where it has taken the offset off (its issue 9).
    asset = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
    found = radiometry.offset_of_item(marked, asset, EARTH_SEARCH)
    assert found.value == value
    assert (EARTH_SEARCH.flag in found.origin) == (flag is not None)


@pytest.mark.parametrize(
    "asset",
    [
        {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]},
        {"raster:scale": 0.0001, "raster:offset": -0.1},
        {"bands": [{"name": "B02", "raster:scale": 0.0001, "raster:offset": -0.1}]},
    ],
)
def test_scale_and_offset_of_assets_are_read_in_old_and_new_stac(asset):
    found = radiometry.offset_of_item(item(), asset, RAW)
    assert (found.value, found.quantification, found.origin) == (-1000, 10_000, "raster:bands")
    assert found.warnings == ()
    conflict = radiometry.offset_of_item(item("03.00"), asset, RAW)
    assert "03.00 implies 0" in conflict.warnings[0]


@pytest.mark.parametrize(
    "settings", [{"pixels": "sometimes"}, {"pixels": "flagged"}, {"flag": "some:flag"}]
)
def test_a_preset_that_cannot_be_right_is_refused(settings):
    with pytest.raises(InputError, match="Remedy"):
        Harmonisation(**settings)


@pytest.mark.parametrize(
    ("name", "asset", "catalogue", "value", "origin", "baseline"),
    [
        ("earth-search-v0", "B02", EARTH_SEARCH, 0, "s2:processing_baseline", "02.14"),
        ("planetary-computer", "B02", RAW, 0, "s2:processing_baseline", "02.12"),
        ("stactools_S2A_MSIL1C_20200717", "blue", RAW, 0, "raster:bands", "02.09"),
        ("stactools_S2A_MSIL1C_20210908", "blue", RAW, 0, "raster:bands", "03.01"),
        ("stactools_S2A_MSIL2A_20230625", "blue", RAW, -1000, "raster:bands", "05.09"),
        ("stactools_S2A_OPER", "blue", RAW, 0, "raster:bands", "02.07"),
    ],
)
def test_real_items(shared, name, asset, catalogue, value, origin, baseline):
    (path,) = (shared / "data" / "stac" / "items").glob(f"{name}*")
    document = json.loads(path.read_text())
    found = radiometry.offset_of_item(document, document["assets"][asset], catalogue)
    assert (found.value, found.origin, found.baseline) == (value, origin, baseline)
    assert found.warnings == ()


# --- pixels -----------------------------------------------------------------------------


def levels(value, bands=L2A12):
    return dict.fromkeys(bands, float(value))


def test_pixels_that_agree_leave_the_offset_as_it_is():
    for offset, dark in ((Offset(0, "x"), 150), (Offset(-1000, "x"), 1150)):
        assert radiometry.cross_check(offset, levels(dark)) == offset


def test_an_offset_taken_off_before_is_refuted_by_the_pixels():
    offset = Offset(-1000, "earthsearch:boa_offset_applied", "04.00")
    warned = radiometry.cross_check(offset, levels(150))
    assert warned.value == -1000
    assert "cannot carry the offset -1000" in warned.warnings[0]
    settled = radiometry.cross_check(offset, levels(150), reliable=False)
    assert (settled.value, settled.origin) == (0, "pixels")
    assert len(settled.warnings) == 1


def test_a_missing_offset_is_suspected_where_an_image_has_no_dark_band():
    warned = radiometry.cross_check(Offset(0, "s2:processing_baseline"), levels(1150))
    assert warned.value == 0
    assert "as with an offset of -1000" in warned.warnings[0]


@pytest.mark.parametrize("value", [0, -1000])
def test_bright_images_say_nothing(value):
    offset = Offset(value, "x")
    assert radiometry.cross_check(offset, levels(4000)) == offset


def test_dark_levels_leave_out_nodata_floor_and_saturation():
    image = np.full((1, 100, 100), 1000, np.uint16)
    image[0, :30] = 0
    image[0, 30:40] = 1
    image[0, 90:] = 65_535
    assert radiometry.dark_levels(image, ["B02"]) == {"B02": 1000.0}
    assert radiometry.dark_levels(np.zeros((1, 2, 2), np.uint16), ["B02"]) == {}


@pytest.mark.parametrize("date", ["20230810", "20230813", "20230815", "20230818", "20230820"])
def test_five_real_harmonised_dates_refute_the_offset_of_their_baseline(shared, date):
    """Baseline 05.09 in an archive that has taken the offset off (Earth Search)."""
    stack = []
    for band in RGBN4:
        (path,) = (shared / "data" / "mapchete_eo").glob(f"*_{date}_0_L2A_{band}.tif")
        with rasterio.open(path) as dataset:
            stack.append(dataset.read(1)[::4, ::4])
    dark = radiometry.dark_levels(np.stack(stack), RGBN4)
    raw = {band: level + 1000 for band, level in dark.items()}
    right, wrong = Offset(0, "earthsearch:boa_offset_applied"), Offset(-1000, "flag false")
    assert radiometry.cross_check(right, dark) == right
    assert radiometry.cross_check(wrong, dark, reliable=False).value == 0
    assert radiometry.cross_check(wrong, raw) == wrong
    assert radiometry.cross_check(right, raw).warnings


def test_a_step_of_a_thousand_between_dates_is_found_and_the_shifted_dates_are_named():
    before, after = {"B02": 150.0, "B08": 420.0}, {"B02": 1130.0, "B08": 1480.0}
    levels = {"2021-12-27": before, "2022-01-31": after, "2022-02-10": after}
    found = radiometry.find_steps(levels)
    assert set(found) == {"2022-01-31", "2022-02-10"}
    assert 'offset: {"2022-01-31": -1000}' in found["2022-01-31"]


def test_haze_and_cloud_are_no_step():
    clear, haze = {"B02": 150.0, "B08": 420.0, "B12": 90.0}, {"B02": 1150.0, "B08": 1300.0}
    cloud = {"B02": 6000.0, "B08": 6500.0, "B12": 3000.0}
    assert radiometry.find_steps({"a": clear, "b": haze | {"B12": 300.0}, "c": cloud}) == {}
    assert radiometry.find_steps({"a": clear}) == radiometry.find_steps({"a": {}, "b": {}}) == {}


# --- applying ---------------------------------------------------------------------------


def test_the_offset_is_applied_once_and_what_cannot_be_reflectance_becomes_nodata():
    dn = np.array([[[0, 499, 500, 999, 1000, 1001, 2500, 41_000, 41_001, 65_535]]], np.uint16)
    raw = radiometry.harmonise(dn, ["B02"], Offset(-1000, "BOA_ADD_OFFSET"))
    assert raw.ravel().tolist() == [0, 0, 1, 1, 1, 1, 1500, 40_000, 0, 0]
    same = radiometry.harmonise(dn, ["B02"], Offset(0, "x"))
    assert same.ravel().tolist() == [0, 499, 500, 999, 1000, 1001, 2500, 0, 0, 0]


def test_a_spoilt_band_is_nodata_alone_and_said():
    dn = np.stack([np.full((8, 8), value, np.uint16) for value in (64_000, 3000)])
    levels = radiometry.median_levels(dn, ["B02", "B03"])
    offset = radiometry.check_brightness(Offset(-1000, "BOA_ADD_OFFSET"), levels)
    assert radiometry.harmonise(dn, ["B02", "B03"], offset)[:, 0, 0].tolist() == [0, 2000]
    assert "median reflectance of B02 would be 6.30" in offset.facts()["unveil:warnings"][0]


def test_other_quantifications_are_brought_to_ten_thousand():
    dn = np.array([[[2000]]], np.uint16)
    found = radiometry.harmonise(dn, ["B02"], Offset(-1000, "x", quantification=1000))
    assert found.item() == 10_000


def test_band_ids_of_product_metadata_count_in_esa_order():
    assert [radiometry.band_of_id(n) for n in (0, 8, 9, 12)] == ["B01", "B8A", "B09", "B12"]


# --- radar ------------------------------------------------------------------------------

CALIBRATION = b"""<?xml version="1.0"?>
<calibration><calibrationVectorList count="2">
<calibrationVector><line>0</line><pixel count="3">0 40 80</pixel>
<sigmaNought count="3">100 200 300</sigmaNought><gamma count="3">1 1 1</gamma></calibrationVector>
<calibrationVector><line>100</line><pixel count="3">0 40 80</pixel>
<sigmaNought count="3">300 400 500</sigmaNought><gamma count="3">1 1 1</gamma></calibrationVector>
</calibrationVectorList></calibration>"""

NOISE = b"""<noise><noiseRangeVectorList count="1"><noiseRangeVector><line>0</line>
<pixel count="2">0 80</pixel><noiseRangeLut count="2">400 400</noiseRangeLut>
</noiseRangeVector></noiseRangeVectorList></noise>"""


def positions(height, width, line=0, pixel=0):
    return np.arange(line, line + height)[:, None], np.arange(pixel, pixel + width)[None, :]


def test_the_calibration_table_is_bilinear_between_its_nodes():
    lut = radiometry.read_lut(CALIBRATION, "sigmaNought")
    lines, pixels = positions(3, 4, line=49, pixel=20)
    # A = 100 + 2.5 pixel + 2 line is the plane through the nodes.
    np.testing.assert_allclose(lut.at(lines, pixels), 100 + 2.5 * pixels + 2 * lines)
    assert lut.at(np.array([500]), np.array([900])).item() == 500  # beyond the nodes


def test_sigma0_is_the_squared_amplitude_over_the_squared_table():
    lut = radiometry.read_lut(CALIBRATION, "sigmaNought")
    dn = np.array([[50, 0], [51, 102.5]])
    sigma0 = radiometry.sigma0_from_grd(dn, *positions(2, 2), calibration=lut)
    np.testing.assert_allclose(sigma0, [[0.25, np.nan], [0.25, (102.5 / 104.5) ** 2]], rtol=1e-6)
    decibel = radiometry.to_decibel(sigma0)
    assert decibel[0, 0] == pytest.approx(10 * np.log10(0.25), abs=1e-5)
    assert np.isnan(decibel[0, 1])


def test_thermal_noise_is_subtracted_and_what_drowns_in_it_is_dim_not_nodata():
    lut = radiometry.read_lut(CALIBRATION, "sigmaNought")
    noise = radiometry.read_lut(NOISE, "noise")
    dn = np.array([[30.0, 10.0, 0.0]])
    sigma0 = radiometry.sigma0_from_grd(dn, *positions(1, 3), calibration=lut, noise=noise)
    np.testing.assert_allclose(sigma0, [[(900 - 400) / 1e4, 1e-4, np.nan]], rtol=1e-6)


@pytest.mark.parametrize(
    "xml",
    [
        b"no xml",
        b"<calibration/>",
        CALIBRATION.replace(b"100 200 300", b"100 200"),
        CALIBRATION.replace(b"<line>100", b"<line>0"),
        CALIBRATION.replace(b"0 40 80", b"0 nan 80"),
    ],
)
def test_damaged_annotations_are_refused(xml):
    with pytest.raises(InputError, match="Remedy"):
        radiometry.read_lut(xml, "sigmaNought", file="calibration-vv.xml")


def test_border_noise_goes_and_dim_water_inside_stays():
    power = np.full((40, 60), 0.1)
    power[:, :5] = np.nan  # beyond the swath
    power[:, 5:8] = 2e-4  # its dim rim
    power[20:25, 30:40] = 2e-4  # a lake
    power[:, 58:] = 2e-4  # dim where the window, not the image, ends
    cleaned = radiometry.remove_border_noise(power, floor=1e-3)
    assert np.isnan(cleaned[:, :8]).all()
    assert np.isfinite(cleaned[:, 8:]).all()
    at_side = radiometry.remove_border_noise(power, floor=1e-3, sides=["right"])
    assert np.isnan(at_side[:, 58:]).all()
    assert np.isfinite(at_side[20:25, 30:40]).all()


def test_swapped_polarisations_and_linear_power_are_refused():
    good = np.stack([np.full((4, 4), -11.0), np.full((4, 4), -18.0)])
    radiometry.check_backscatter(good, file="x")
    with pytest.raises(InputError, match="swapped"):
        radiometry.check_backscatter(good[::-1], file="x")
    with pytest.raises(InputError, match="cannot be dB"):
        radiometry.check_backscatter(10 ** (good / 10), file="x")
    radiometry.check_backscatter(np.full((2, 4, 4), np.nan), file="x")
