"""Stored numbers: fill, offsets and what cannot be reflectance, in every source of files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.windows import Window
from tests import safe_products as safe
from tests.fuzz import readers

from unveil import stored
from unveil.bands import L1C13
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.sources.registry import open_source

SETTINGS = fill_defaults({}, load_schema("config"))["sources"]
BANDS = ("B02", "B04")
SHAPE = (24, 30)
WHOLE = Window(0, 0, 30, 24)
FILLS = (-9999, -32768, -99999, 65535, np.nan, np.inf, -3.4028234663852886e38, 1e20, 0)


def write(path, data, names, **tags):
    path.parent.mkdir(parents=True, exist_ok=True)
    scales, offsets = tags.pop("scales", None), tags.pop("offsets", None)
    count, height, width = data.shape
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 10, 10)}
    shape = {"count": count, "height": height, "width": width, "dtype": data.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **tags) as dataset:
        dataset.write(data)
        for number, name in enumerate(names, 1):
            dataset.set_band_description(number, name)
        if scales:
            dataset.scales = scales
        if offsets:
            dataset.offsets = offsets


def surface(value=1200.0, *, dtype="uint16", bands=BANDS):
    """Two bands with some texture; the dark corner is near nothing."""
    data = np.full((len(bands), *SHAPE), value)
    data = data + np.linspace(-0.9 * value, 0, SHAPE[1])
    return data.astype(dtype)


def row(path, source="local", **columns):
    facts = {"target_date": "2020-06-01", "protocol": "none", **columns}
    return SceneRow("s", source, str(path), **facts)


def frame_of(path, **columns):
    return open_source(row(path, **columns), SETTINGS).optical["2020-06-01"]


# --- numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", ["int16", "int32", "uint16", "float32", "float64"])
def test_fill_is_nodata_in_every_type_that_can_hold_it(fill, dtype):
    with np.errstate(invalid="ignore", over="ignore"):
        held = np.array(fill).astype(dtype)
    if not (np.isnan(fill) and held.dtype.kind == "f") and float(held) != fill:
        pytest.skip("cannot be held")
    integer = held.dtype.kind in "iu"
    numbers = np.full((1, 4, 4), 1200 if integer else 0.12, dtype)
    numbers[0, 0, 0] = held
    how = stored.plainly(1, quantification=10_000 if integer else 1)
    found = stored.read_dn(numbers, how, file="x")
    assert found[0, 0, 0] == 0
    assert set(found.ravel()[1:].tolist()) == {1200}


@given(st.floats(-1, 7, width=32))
def test_reflectance_that_no_surface_has_is_nodata_and_slightly_negative_is_the_floor(value):
    numbers = np.array([[[value]]], np.float32)
    found = stored.to_dn(numbers, stored.plainly(1, quantification=1)).item()
    rounded = round(float(numbers.item()) * 10_000)
    if value == 0 or not -500 <= rounded <= 40_000:
        assert found == 0
    else:
        assert found == max(rounded, 1)


def test_radar_fill_is_nan_and_clipped_bright_targets_stay():
    decibel = np.full((2, 1, 6), -11.0)
    decibel[:, 0, 0], decibel[0, 0, 1] = 0, 0
    decibel[:, 0, 2], decibel[1, 0, 3], decibel[1, 0, 4] = -9999, np.inf, -7.5
    found = stored.to_decibel_or_nan(decibel, (None, -7.5))
    assert np.isnan(found[:, 0]).tolist() == [
        [True, False, True, False, False, False],
        [True, False, True, True, True, False],
    ]


# --- local frames ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "fill", "tag"),
    [
        ("int16", -9999, -9999),
        ("int16", -9999, None),
        ("uint16", 7, 7),
        ("float32", -9999, None),
        ("float32", 0.7, 0.7),
        ("uint16", 65_535, None),
    ],
)
def test_local_fill_is_nodata_of_its_band(tmp_path, dtype, fill, tag):
    data = surface(1200 if dtype != "float32" else 0.12, dtype=dtype)
    data[1, :, 20:] = fill
    write(tmp_path / "frames/2020-06-01.tif", data, BANDS, nodata=tag)
    dn = frame_of(tmp_path).read(WHOLE)
    assert not dn[1, :, 20:].any()
    assert (dn[0] > 0).all()
    assert (dn[1, :, :20] > 0).all()


def test_the_rim_of_a_swath_that_lost_its_offset_is_nodata(tmp_path):
    data = surface(0.3, dtype="float32")
    data[:, :, 25:], data[:, :, 24] = -0.1, -0.01
    write(tmp_path / "frames/2020-06-01.tif", data, BANDS)
    dn = frame_of(tmp_path).read(WHOLE)
    assert not dn[:, :, 25:].any()
    assert (dn[:, :, 24] == 1).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_eight_bit_frames_are_refused(tmp_path, dtype):
    write(tmp_path / "frames/2020-06-01.tif", surface(100, dtype=dtype), BANDS)
    with pytest.raises(InputError, match="viewing.*Remedy: export"):
        frame_of(tmp_path)


def test_one_band_of_impossible_reflectance_is_refused_by_its_median(tmp_path):
    data = surface()
    data[1] = 64_000
    write(tmp_path / "frames/2020-06-01.tif", data, BANDS)
    with pytest.raises(InputError, match="median reflectance of band 2 would be 6.4"):
        frame_of(tmp_path).read(WHOLE)


def test_local_radar_beyond_the_swath_is_nan(tmp_path):
    write(tmp_path / "frames/2020-06-01.tif", surface(), BANDS)
    for day, fill in (("2020-06-01", 0), ("2020-06-02", -9999), ("2020-06-03", -7)):
        radar = np.stack([np.full(SHAPE, -11.0), np.full(SHAPE, -17.0)]).astype("float32")
        radar[:, :, 20:] = fill
        write(tmp_path / f"sar/{day}.tif", radar, ("VV", "VH"), nodata=fill)
    for frame in open_source(row(tmp_path), SETTINGS).radar.values():
        found = frame.read(WHOLE)
        assert np.isnan(found[:, :, 20:]).all()
        assert np.isfinite(found[:, :, :20]).all()


# --- offsets of local frames -------------------------------------------------------------------


def test_scale_and_offset_tags_are_applied_and_recorded(tmp_path):
    data = surface(2200, dtype="int16") + 1000
    tags = {"scales": (0.0001,) * 2, "offsets": (-0.1,) * 2}
    write(tmp_path / "frames/2020-06-01.tif", data, BANDS, **tags)
    frame = frame_of(tmp_path)
    np.testing.assert_array_equal(frame.read(WHOLE), data - 1000)
    assert frame.facts["unveil:offset_applied"] == -1000
    assert frame.facts["unveil:offset_from"] == "scale and offset of the file"
    (tmp_path / "scene.yaml").write_text("offset: -500\n")
    with pytest.raises(InputError, match="tag says -1000, scene.yaml says -500.*Remedy: take"):
        frame_of(tmp_path)
    (tmp_path / "scene.yaml").write_text("offset: -1000\n")
    np.testing.assert_array_equal(frame_of(tmp_path).read(WHOLE), data - 1000)


def test_float_dn_with_a_scale_tag_are_reflectance(tmp_path):
    data = surface(2200, dtype="float32")
    write(tmp_path / "frames/2020-06-01.tif", data, BANDS, scales=(0.0001,) * 2)
    np.testing.assert_array_equal(frame_of(tmp_path).read(WHOLE), np.rint(data))


DATES = ("2020-06-01", "2021-12-27", "2022-01-31", "2022-02-10")


@pytest.fixture
def mixed(tmp_path):
    """Raw DN of four dates across January 2022, when 1000 was added."""
    for date in DATES:
        data = surface() + (1000 if date > "2022-01-25" else 0)
        write(tmp_path / f"frames/{date}.tif", data, BANDS)
    return tmp_path


def test_a_step_between_dates_is_said_with_a_remedy_that_helps(mixed):
    frames = open_source(row(mixed), SETTINGS).optical
    warned = {
        date: f.facts["unveil:warnings"]
        for date, f in frames.items()
        if "unveil:warnings" in f.facts
    }
    assert set(warned) == set(DATES[2:])
    remedy = re.search(r"\((offset: {.*})\)", warned[DATES[2]][0])[1]
    assert remedy == 'offset: {"2022-01-31": -1000}'
    (mixed / "scene.yaml").write_text('offset: {"2022-01-31": -1000, "2022-02-10": -1000}\n')
    frames = open_source(row(mixed), SETTINGS).optical
    assert not any("unveil:warnings" in f.facts for f in frames.values())
    assert len({f.read(WHOLE).tobytes() for f in frames.values()}) == 1


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("{default: 0, from 2022-01-25: -1000}", [0, 0, -1000, -1000]),
        ("{2022-01-31: -1000}", [0, 0, -1000, 0]),
        ("{default: -1000, 2020-06-01: 0, 2021-12-27: 0}", [0, 0, -1000, -1000]),
        ("{from 2021-01-01: -1, from 2022-01-31: -2, 2022-02-10: -3}", [0, -1, -2, -3]),
    ],
)
def test_offsets_are_stated_by_date(mixed, text, offsets):
    (mixed / "scene.yaml").write_text(f"offset: {text}\n")
    frames = open_source(row(mixed), SETTINGS).optical
    assert [f.facts["unveil:offset_applied"] for f in frames.values()] == offsets


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"2022-01-30": -1000}', "no frame of 2022-01-30"),
        ('{"from 2022-13-30": -1000}', "is no date"),
        ("{before: -1000}", "before"),
        ("{default: many}", "many"),
    ],
)
def test_offsets_of_dates_that_are_not_there_are_refused(mixed, text, word):
    (mixed / "scene.yaml").write_text(f"offset: {text}\n")
    with pytest.raises(InputError, match=rf"scene\.yaml.*{word}"):
        open_source(row(mixed), SETTINGS)


# --- every source ------------------------------------------------------------------------------

PATCHES = {
    "npz": (readers.write_npz, {"name": "a"}),
    "sen12mscr": (readers.write_sen12mscr, {"name": readers.PATCH}),
    "sen12mscrts": (readers.write_sen12mscrts, {"name": readers.TS_PATCH}),
    "allclear": (readers.write_allclear, {"name": "0", "split": "test"}),
}


def change(path, edit):
    """Change the numbers of an image in place, and with them its type."""
    if path.suffix == ".npz":
        np.savez(path, edit(np.load(path)["arr_0"]))
        return
    with rasterio.open(path) as dataset:
        data, profile, names = dataset.read(), dataset.profile, dataset.descriptions
    data = edit(data)
    with rasterio.open(path, "w", **{**profile, "dtype": data.dtype, "nodata": None}) as dataset:
        dataset.write(data)
        dataset.descriptions = names


def images(folder, bands):
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".tif", ".npz")):
        if path.suffix == ".npz":
            count = len(np.load(path)["arr_0"])
        else:
            with rasterio.open(path) as dataset:
                count = dataset.count
        if count == bands:
            yield path


@pytest.fixture(params=PATCHES)
def patch(request, tmp_path):
    """A row of each dataset, its files below the test's folder."""
    make, columns = PATCHES[request.param]
    make(tmp_path)
    return row(tmp_path, request.param, target_date=readers.DATES[0], **columns)


def read_all(series, rasters):
    window = Window(0, 0, series.grid.width, series.grid.height)
    return [frame.read(window) for frame in rasters]


def with_corner(value, dtype=None):
    def edit(data):
        data = data.astype(dtype or data.dtype)
        data[..., : data.shape[1] // 2 + 4, : data.shape[2] // 2 + 4] = value
        return data

    return edit


@pytest.mark.parametrize("fill", [-9999, 65_535, 64_000])
def test_fill_is_nodata_in_every_dataset(patch, tmp_path, fill):
    for path in images(tmp_path, len(L1C13)):
        change(path, with_corner(fill, "int32"))
    series = open_source(patch, SETTINGS)
    for dn in read_all(series, series.optical.values()):
        assert not dn[:, :4, :4].any()


def test_eight_bit_and_spoilt_images_are_refused_in_every_dataset(patch, tmp_path):
    for edit, word in (
        (lambda data: np.full_like(data, 64_000, np.int32), "median reflectance"),
        (lambda data: np.full_like(data, 100, np.uint8), "viewing"),
    ):
        for path in images(tmp_path, len(L1C13)):
            change(path, edit)
        with pytest.raises(InputError, match=f"{word}.*Remedy"):
            series = open_source(patch, SETTINGS)
            read_all(series, series.optical.values())


@pytest.mark.parametrize("fill", [-9999, 0])
def test_radar_fill_is_nan_in_every_dataset(patch, tmp_path, fill):
    for path in images(tmp_path, 2):
        change(path, with_corner(fill, "float32"))
    series = open_source(patch, SETTINGS)
    assert series.radar
    for decibel in read_all(series, series.radar.values()):
        assert np.isnan(decibel[:, :4, :4]).all()


# --- products of ESA ----------------------------------------------------------------------------


@pytest.fixture
def product(tmp_path, shared):
    """Write a small product with real pixels; returns its pixels by band, as stored."""
    pixels = safe.real_pixels(shared)
    used = {band: pixels[band] for band in ("B02", "B04", "B08", "B8A")}

    def make(template, *, change=lambda band, dn: dn, **options):
        data = {band: change(band, dn) for band, dn in used.items()}
        scl = np.full((240, 240), 4, np.uint8)
        folder = shared / "data/stac/safe_metadata" / template
        safe.write_product(tmp_path, folder, data, scl=scl, **options)
        return data

    return make


def test_a_local_sen2cor_without_an_offset_list_gets_none(product, tmp_path):
    data = product(safe.L2A_0212, baseline="N9999")
    series = open_source(row(tmp_path, "safe", target_date="2019-12-28"), SETTINGS)
    (frame,) = series.optical.values()
    dn = frame.read(Window(0, 0, 240, 240))
    np.testing.assert_array_equal(dn, np.stack([data[band] for band in frame.bands]))
    assert frame.facts["unveil:offset_applied"] == 0
    assert "unveil:warnings" not in frame.facts


def test_bands_damaged_at_the_provider_are_nodata_and_said(product, tmp_path):
    def spoil(band, dn):
        dn = (dn + 1000).astype(np.uint16)
        return dn if band == "B8A" else np.full_like(dn, 64_200)

    product(safe.L2A_0509, change=spoil)
    series = open_source(row(tmp_path, "safe", target_date="2023-08-21"), SETTINGS)
    (frame,) = series.optical.values()
    dn = frame.read(Window(0, 0, 240, 240))
    assert [bool(image.any()) for image in dn] == [False, False, False, True]
    assert "B02 would be 6.32" in frame.facts["unveil:warnings"][0]
