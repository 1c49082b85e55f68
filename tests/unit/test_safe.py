"""SAFE products in folders and archives, old and new, honest and hostile."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform
from rasterio.windows import Window
from tests import safe_products as safe
from tests.safe_products import L1C_0301, L2A_0212, L2A_0400, L2A_0509, SIZE

from unveil import raster
from unveil.assembly.assemble import assemble_row
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.bands import L1C13, L2A12
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.masks.mask_scene import judge_frame, why_unjudged
from unveil.scene import load_scene, save_scene
from unveil.sources import integrity
from unveil.sources.area import tile_grid
from unveil.sources.registry import open_source, source_of
from unveil.sources.safe import find_products, read_product
from unveil.sources.selection import Limits

SETTINGS = fill_defaults({}, load_schema("config"))["sources"]
WHOLE = Window(0, 0, SIZE, SIZE)


@pytest.fixture(scope="module")
def pixels(shared):
    return safe.real_pixels(shared)


@pytest.fixture(scope="module")
def templates(shared):
    return shared / "data/stac/safe_metadata"


def raw(pixels, bands, shift=1000):
    """Return pixels as products from baseline 04.00 on store them."""
    return {b: np.where(pixels[b] > 0, pixels[b] + shift, 0).astype(np.uint16) for b in bands}


def row(path, **columns):
    return SceneRow(
        **{
            "scene": "s",
            "source": "safe",
            "path": str(path),
            "target_date": "2021-09-08",
            "protocol": "none",
            **columns,
        }
    )


def opened(path, **columns):
    return open_source(row(path, **columns), SETTINGS)


def stacked(pixels, bands):
    return np.stack([pixels[band] for band in bands])


# --- every baseline -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "shift", "date", "facts"),
    [
        (L1C_0301, 0, "2021-09-08", (0, "PROCESSING_BASELINE", "03.01", 133)),
        (L2A_0212, 0, "2019-12-28", (0, "PROCESSING_BASELINE", "02.12", 71)),
        (L2A_0400, 1000, "2022-04-13", (-1000, "BOA_ADD_OFFSET", "04.00", 25)),
        (L2A_0509, 1000, "2023-08-21", (-1000, "BOA_ADD_OFFSET", "05.09", 29)),
    ],
)
def test_every_baseline_gives_the_same_reflectance(
    tmp_path, templates, pixels, template, shift, date, facts
):
    bands = L1C13 if "MSIL1C" in template else L2A12
    stored = raw(pixels, bands, shift)
    stored["B04"][5, 7] = 65_535
    scl = np.full((SIZE, SIZE), 4, np.uint8)
    whole = template == L2A_0509
    safe.write_product(tmp_path, templates / template, stored, scl=scl, every_resolution=whole)
    series = opened(tmp_path)
    assert series.facts["level"] == template[7:10]
    assert list(series.optical) == [date]
    frame = series.optical[date]
    assert frame.bands == bands
    data = frame.read(WHOLE)
    expected = stacked(pixels, bands).clip(0, 65_534)
    expected[bands.index("B04"), 5, 7] = 0
    np.testing.assert_array_equal(data, expected)
    offset, origin, baseline, orbit = facts
    assert frame.facts["unveil:offset_applied"] == offset
    assert frame.facts["unveil:offset_from"] == origin
    assert frame.facts["s2:processing_baseline"] == baseline
    assert frame.facts["sat:relative_orbit"] == orbit
    assert "unveil:warnings" not in frame.facts
    assert list(series.masks) == ([date] if "MSIL2A" in template else [])


def test_old_products_hold_many_granules_with_long_names(tmp_path, templates, pixels):
    """Before baseline 02.04: the names and tags of products until September 2016."""
    new = safe.write_product(tmp_path / "new", templates / L1C_0301, raw(pixels, L1C13, 0))
    name = "S2A_OPER_PRD_MSIL1C_PDMC_20160606T232310_R121_V20160526T084351_20160526T084351.SAFE"
    old = tmp_path / "old" / name
    text = (new / "MTD_MSIL1C.xml").read_text()
    granules = ""
    for tile, corner in (("46RER", 0), ("46RFR", 1)):
        granule = f"S2A_OPER_MSI_L1C_TL_SGS__20160526T122054_A004838_T{tile}_N02.02"
        strip = "S2A_OPER_MSI_L1C_DS_SGS__20160526T122054_S20160526T084351_N02.02"
        granules += f'<Granules granuleIdentifier="{granule}" datastripIdentifier="{strip}"/>'
        for band in L1C13:
            image = old / "GRANULE" / granule / "IMG_DATA" / f"{granule[:-7]}_{band}.jp2"
            safe.write_jp2(image, pixels[band] + corner, tile_grid(tile), (0, 0), 1)
    text = re.sub(r"<Granule_List>.*?</Granule_List>", granules, text, flags=re.S)
    text = (
        text.replace(new.name, name).replace("03.01", "02.02").replace("2021-09-08", "2016-05-26")
    )
    (old / f"{name.replace('PRD_MSIL1C', 'MTD_SAFL1C')[:-5]}.xml").write_text(text)
    products = read_product(old)
    assert [p.acquisition.tile for p in products] == ["46RER", "46RFR"]
    assert {p.acquisition.datastrip for p in products} == {"20160526T084351"}
    series = opened(old, area="46RFR")
    data = series.optical["2016-05-26"].read(WHOLE)
    np.testing.assert_array_equal(data, stacked(pixels, L1C13) + 1)


# --- places, windows, mosaics ---------------------------------------------------------------


def test_a_place_is_read_through_a_window_on_the_tile_s_pixels(tmp_path, templates, pixels):
    safe.write_product(tmp_path, templates / L1C_0301, pixels)
    tile = tile_grid("46RER")
    x = [tile.transform[2] + 10 * p for p in (63, 117)]
    y = [tile.transform[5] - 10 * p for p in (69, 105)]
    lon, lat = transform(tile.crs, "EPSG:4326", x, y)
    series = opened(tmp_path, area=f"{min(lon)},{min(lat)},{max(lon)},{max(lat)}")
    col = round((series.grid.transform[2] - tile.transform[2]) / 10)
    line = round((tile.transform[5] - series.grid.transform[5]) / 10)
    assert (col, line) == (60, 66)
    assert series.grid.shape == (42, 60)
    inner = series.optical["2021-09-08"].read(Window(5, 3, 20, 10))
    expected = stacked(pixels, L1C13)[:, line + 3 : line + 13, col + 5 : col + 25]
    np.testing.assert_array_equal(inner, expected)


def test_tiles_of_one_overpass_are_mosaicked_each_with_its_own_offset(tmp_path, templates, pixels):
    """Two neighbours that overlap by 9.8 km, one reprocessed; each covers half of the place."""
    bands = ("B02", "B04", "B08")
    grid = tile_grid("46RER")
    # The last columns of 46RER; the same ground is column 1000 and on of 46RFR.
    right_edge = tile_grid("46RFR").transform[2] - grid.transform[2]
    west = safe.write_product(
        tmp_path, templates / L2A_0509, raw(pixels, bands), tile="46RER", corner=(0, 9996)
    )
    east = safe.write_product(
        tmp_path,
        templates / L2A_0212,
        {b: pixels[b] for b in bands},
        tile="46RFR",
        corner=(0, 9996 - int(right_edge) // 10 + 120),
        date="2023-08-21",
    )
    # One overpass: platform, orbit and time of the second are those of the first.
    text = (west / "MTD_MSIL2A.xml").read_text()
    metadata = east / "MTD_MSIL2A.xml"
    other = metadata.read_text()
    for tag in ("SENSING_ORBIT_NUMBER", "SPACECRAFT_NAME", "PRODUCT_START_TIME"):
        value = re.search(f"<{tag}>(.*?)</{tag}>", text)[1]
        other = re.sub(f"<{tag}>.*?</{tag}>", f"<{tag}>{value}</{tag}>", other)
    metadata.write_text(other)
    left, top = grid.transform[2] + 99_960, grid.transform[5]
    lon, lat = transform(grid.crs, "EPSG:4326", [left + 5, left + 3595], [top - 5, top - 2395])
    series = opened(tmp_path, area=f"{lon[0]},{lat[1]},{lon[1]},{lat[0]}")
    frame = series.optical["2023-08-21"]
    assert frame.facts["unveil:offset_applied"] == [-1000, 0]
    col = round((left - series.grid.transform[2]) / 10)
    line = round((series.grid.transform[5] - top) / 10)
    data = frame.read(Window(col, line, 360, 240))
    expected = stacked(pixels, bands)
    np.testing.assert_array_equal(data[:, :, :240], expected)
    np.testing.assert_array_equal(data[:, :, 240:], expected[:, :, 120:])


def test_a_tile_of_another_zone_is_warped_onto_the_place(tmp_path, templates, pixels):
    few = {band: pixels[band] for band in ("B02", "B8A", "B10")}
    safe.write_product(tmp_path, templates / L1C_0301, few, tile="46RBR")
    series = opened(tmp_path, area="45RYL")  # the same ground, in the zone to the west
    assert series.grid.crs == "EPSG:32645"
    tile = tile_grid("46RBR")
    inside = (tile.transform[2] + 1205, tile.transform[5] - 1205)
    (x,), (y,) = transform(tile.crs, series.grid.crs, [inside[0]], [inside[1]])
    col = int((x - series.grid.transform[2]) // 10)
    line = int((series.grid.transform[5] - y) // 10)
    around = series.optical["2021-09-08"].read(Window(col - 20, line - 20, 40, 40))
    expected = stacked(few, few)[:, 100:140, 100:140]
    np.testing.assert_allclose(around.mean(axis=(1, 2)), expected.mean(axis=(1, 2)), rtol=0.02)
    # Bilinear: every pixel lies within the range of the pixels around it.
    assert around.min() >= stacked(few, few)[:, 95:145, 95:145].min()


def test_a_reprocessed_product_replaces_the_old_one(tmp_path, templates, pixels):
    """The same tile and overpass as baseline 02.12 and again as 05.00, which lists no offset."""
    bands = ("B02", "B04", "B08")
    old = {b: pixels[b] for b in bands}
    safe.write_product(tmp_path, templates / L2A_0212, old)
    safe.write_product(
        tmp_path, templates / L2A_0212, {b: pixels[b] + 7 for b in bands}, baseline="N0500"
    )
    assert len(find_products(tmp_path)) == 2
    series = opened(tmp_path)
    frame = series.optical["2019-12-28"]
    assert frame.facts["s2:processing_baseline"] == "05.00"
    np.testing.assert_array_equal(frame.read(WHOLE), stacked(pixels, bands) + 7)


# --- layouts --------------------------------------------------------------------------------


def test_archives_give_the_same_pixels_and_are_not_unpacked(tmp_path, templates, pixels):
    product = safe.write_product(tmp_path / "a", templates / L1C_0301, pixels)
    archive = safe.zipped(product, tmp_path / "b" / "one.zip")
    folder, packed = opened(tmp_path / "a"), opened(tmp_path / "b")
    np.testing.assert_array_equal(
        folder.optical["2021-09-08"].read(WHOLE), packed.optical["2021-09-08"].read(WHOLE)
    )
    assert folder.optical["2021-09-08"].facts == packed.optical["2021-09-08"].facts
    assert list((tmp_path / "b").iterdir()) == [archive]
    assert opened(archive).grid == folder.grid
    zipped = row(tmp_path / "b")
    assert source_of(zipped).files(zipped) == [str(archive)]


def test_google_s_layout_is_found_at_any_depth(tmp_path, templates, pixels):
    """gs://gcp-public-data-sentinel-2/tiles/46/R/ER/*.SAFE with the markers of its folders."""
    folder = tmp_path / "tiles" / "46" / "R" / "ER"
    product = safe.write_product(folder, templates / L1C_0301, pixels)
    (folder / f"{product.name}_$folder$").write_bytes(b"")
    (product / "GRANULE_$folder$").write_bytes(b"")
    series = opened(tmp_path)
    assert series.place == "46RER"
    assert list(series.optical) == ["2021-09-08"]


def test_a_product_that_lies_twice_is_used_once(tmp_path, templates, pixels):
    product = safe.write_product(tmp_path, templates / L1C_0301, pixels)
    safe.zipped(product, tmp_path / "again.zip")
    assert len(find_products(tmp_path)) == 1


def test_levels_that_mix_are_refused_until_one_is_named(tmp_path, templates, pixels):
    safe.write_product(tmp_path, templates / L1C_0301, pixels)
    safe.write_product(tmp_path, templates / L2A_0509, raw(pixels, L2A12), tile="46RER")
    with pytest.raises(InputError, match="safe_level"):
        opened(tmp_path)
    series = open_source(row(tmp_path), {**SETTINGS, "safe_level": "L2A"})
    assert list(series.optical) == ["2023-08-21"]


# --- what is wrong --------------------------------------------------------------------------


def refused(path, *words, **columns):
    with pytest.raises(InputError) as caught:
        series = opened(path, **columns)
        for frame in series.optical.values():
            frame.read(WHOLE)
    for word in ("Remedy", *words):
        assert word in str(caught.value), str(caught.value)


@pytest.fixture
def product(tmp_path, templates, pixels):
    few = {band: pixels[band] for band in ("B02", "B04", "B10")}
    return safe.write_product(tmp_path, templates / L1C_0301, few)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "a/../../out", "..\\out", "C:/out"])
def test_archives_that_would_write_outside_are_refused(tmp_path, product, name):
    archive = safe.zipped(product, tmp_path / "hostile" / "p.zip")
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(name, "x")
    refused(archive.parent, "p.zip", "out")


def test_links_in_archives_are_refused(tmp_path, product):
    archive = safe.zipped(product, tmp_path / "hostile" / "p.zip")
    link = zipfile.ZipInfo(f"{product.name}/GRANULE/link_B02.jp2")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(link, "/etc/passwd")
    refused(archive.parent, "p.zip", "a link")


def test_links_out_of_a_folder_are_refused_and_links_within_are_not(tmp_path, product):
    (image,) = product.rglob("*_B02.jp2")
    kept = product / "kept.jp2"
    shutil.move(image, kept)
    image.symlink_to(kept)
    opened(tmp_path)
    find_products.cache_clear()
    outside = tmp_path.parent / f"{tmp_path.name}-outside.jp2"
    shutil.move(kept, outside)
    image.unlink()
    image.symlink_to(outside)
    refused(tmp_path, "link out of the product")
    find_products.cache_clear()
    image.unlink()
    (product / "GRANULE" / "more").symlink_to(tmp_path.parent, target_is_directory=True)
    refused(tmp_path, "link out of the product")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_metadata_with_entities_are_refused_in_any_encoding(tmp_path, product, encoding):
    path = product / "MTD_MSIL1C.xml"
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "bbbb">]>'
    _, _, rest = path.read_text().partition("?>")
    path.write_bytes((bomb + rest).encode(encoding))
    refused(tmp_path, "MTD_MSIL1C.xml", "document type")


def patched(archive, offset, change):
    """Change a 16-bit field of every entry, where it lies in the central directory and before."""
    data = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        found = data.find(mark)
        while found >= 0:
            field = slice(found + at, found + at + 2)
            data[field] = change(int.from_bytes(data[field], "little")).to_bytes(2, "little")
            found = data.find(mark, found + 4)
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "change", "words"),
    [
        (8, lambda method: 9 if method == 8 else method, "packed with Deflate64"),
        (8, lambda method: 97 if method == 8 else method, "packed with method 97"),
        (6, lambda flags: flags | 1, "encrypted"),
    ],
)
def test_archives_that_cannot_be_read_in_place_are_to_be_unpacked(
    tmp_path, product, offset, change, words
):
    archive = safe.zipped(product, tmp_path / "zips" / "p.zip")
    patched(archive, offset, change)
    refused(archive.parent, "p.zip", words, "unpack it (7-Zip, unzip) and give the folder")


def test_an_archive_of_archives_is_to_be_unpacked_once(tmp_path, product):
    inner = safe.zipped(product, tmp_path / "inner.zip")
    outer = tmp_path / "outer" / "all.zip"
    outer.parent.mkdir()
    with zipfile.ZipFile(outer, "w") as target:
        target.write(inner, "inner.zip")
    refused(outer.parent, "all.zip", "an archive of archives (inner.zip ...)", "unpack it once")


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path, product):
    archive = safe.zipped(product, tmp_path / "zips" / "p.zip")
    data = bytearray(archive.read_bytes())
    at = data.index(b"MTD_MSIL1C.xml", data.index(b"PK\x01\x02")) - len(product.name) - 1 - 46
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(data)
    refused(archive.parent, "p.zip")


def companions(folder):
    """Lay beside each file what macOS leaves there on disks of other systems."""
    blob = bytes.fromhex("00051607000200004d6163204f532058") + bytes(4080)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(blob)


def test_companions_that_macos_leaves_are_passed_over(tmp_path, product):
    archive = safe.zipped(product, tmp_path / "zips" / "p.zip")
    with zipfile.ZipFile(archive, "a") as target:
        for name in target.namelist():
            folder, _, last = name.rpartition("/")
            target.writestr(f"__MACOSX/{folder}/._{last}", b"x")
    honest = opened(tmp_path / product.name).optical["2021-09-08"].read(WHOLE)
    find_products.cache_clear()
    companions(tmp_path)
    for place in (tmp_path / product.name, archive.parent):
        find_products.cache_clear()
        np.testing.assert_array_equal(opened(place).optical["2021-09-08"].read(WHOLE), honest)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: (p / "MTD_MSIL1C.xml").unlink(), ("product metadata files",)),
        (
            lambda p: (p / "MTD_MSIL1C.xml").write_text("<a><b></a>"),
            ("MTD_MSIL1C.xml", "cannot be read as XML"),
        ),
        (lambda p: (p / "MTD_MSIL1C.xml").write_text("<a/>"), ("PROCESSING_LEVEL",)),
        (lambda p: shutil.rmtree(p / "GRANULE"), ("no images",)),
        (
            lambda p: next(p.rglob("*_B04.jp2")).write_bytes(b"not an image"),
            ("B04.jp2", "cannot be read"),
        ),
    ],
)
def test_damaged_products_are_refused(tmp_path, product, harm, words):
    harm(product)
    refused(tmp_path, *words)


def test_a_truncated_image_is_refused(tmp_path, product):
    (image,) = product.rglob("*_B02.jp2")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 3])
    refused(tmp_path, "B02.jp2")


def test_a_broken_archive_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "p.zip").write_bytes(b"PK\x03\x04 no zip")
    refused(tmp_path, "p.zip", "zip archive")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no Sentinel-2 products")


def test_a_place_that_no_product_covers_is_refused(tmp_path, product):
    refused(tmp_path, "covers", area="10,10,10.1,10.1")


def test_products_of_several_tiles_need_an_area(tmp_path, product, templates, pixels):
    few = {band: pixels[band] for band in ("B02", "B04", "B10")}
    safe.write_product(tmp_path, templates / L1C_0301, few, tile="46RFR")
    refused(tmp_path, "46RER, 46RFR", "area")


# --- images that are not whole ----------------------------------------------------------------

FOUR = ("B02", "B03", "B04", "B08")


def three_dates(folder, templates, pixels):
    """Three products of L2A; the second is cloudy above."""
    for date in THREE:
        scl = np.full((SIZE, SIZE), 4, np.uint8)
        scl[:100] = 9 if date == THREE[1] else 4
        few = {band: pixels[band] for band in FOUR}
        yield safe.write_product(folder, templates / L2A_0212, few, scl=scl, date=date)


THREE = ("2019-12-23", "2019-12-28", "2020-01-02")


def image(product, band="B04"):
    return next(product.rglob(f"*_{band}*.jp2"))


def spoil(path, harm):
    path.write_bytes(harm(path.read_bytes()))


def hole(data):
    """Zeros that an interrupted mirror leaves."""
    middle = len(data) // 2
    return data[:middle] + bytes(600) + data[middle + 600 :]


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda data: data[: int(0.95 * len(data))], "ends after"),
        (lambda data: data[:-40], "ends after"),
        (hole, "hole of zeros"),
        (lambda data: data[: len(data) // 2] + bytes(len(data) // 2), "hole of zeros"),
    ],
)
def test_a_broken_image_without_a_manifest_is_left_out_by_date(
    tmp_path, templates, pixels, harm, word
):
    products = list(three_dates(tmp_path / "in", templates, pixels))
    spoil(image(products[0]), harm)
    scene = assembled(tmp_path / "out", row(tmp_path / "in", target_date=THREE[1]))
    assert [frame.date for frame in scene.context] == [THREE[2]]
    assert word in scene.facts["left_out"][THREE[0]]
    with pytest.raises(InputError, match=f"{THREE[0]} cannot be used: .*{word}.*Remedy: download"):
        assembled(tmp_path / "bad", row(tmp_path / "in", target_date=THREE[0]))


@pytest.mark.parametrize("algorithm", ["MD5", "SHA3-256"])
@pytest.mark.parametrize("packed", [False, True])
def test_images_are_held_against_the_manifest(tmp_path, templates, pixels, algorithm, packed):
    products = list(three_dates(tmp_path / "in", templates, pixels))
    for product in products:
        safe.write_manifest(product, algorithm)
    spoil(image(products[2]), lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    if packed:
        for product in products:
            safe.zipped(product, tmp_path / "zips" / f"{product.stem}.zip")
    folder = tmp_path / ("zips" if packed else "in")
    series = open_source(row(folder), SETTINGS)
    assert list(series.optical) == list(THREE[:2])
    assert "manifest.safe states" in series.left_out[THREE[2]].reason


def test_images_are_read_once_and_again_after_a_change(tmp_path, templates, pixels, monkeypatch):
    product = next(three_dates(tmp_path / "in", templates, pixels))
    safe.write_manifest(product)
    settings = {**SETTINGS, "cache": str(tmp_path / "cache")}
    read = []
    whole = integrity.fault_of
    monkeypatch.setattr(integrity, "fault_of", lambda one: read.append(one.name) or whole(one))
    for expected in (5, 0):
        read.clear()
        open_source(row(tmp_path / "in"), settings)
        assert len(read) == expected
    spoil(image(product), hole)
    find_products.cache_clear()
    with pytest.raises(InputError, match="no product is whole: .*B04.*manifest.safe states"):
        open_source(row(tmp_path / "in"), settings)
    assert len(read) == 1
    (record,) = (tmp_path / "cache/products").iterdir()
    record.write_text("{")
    with pytest.raises(InputError, match="no product is whole"):
        open_source(row(tmp_path / "in"), settings)
    assert len(read) == 6


def test_the_older_version_is_used_where_the_newer_is_damaged(tmp_path, templates, pixels):
    few = {band: pixels[band] for band in FOUR}
    safe.write_product(tmp_path, templates / L2A_0212, few)
    newer = {band: dn + 100 for band, dn in few.items()}
    new = safe.write_product(tmp_path, templates / L2A_0212, newer, baseline="N0500")
    shift_strip(new)
    (date,) = open_source(row(tmp_path), SETTINGS).optical
    frame = open_source(row(tmp_path), SETTINGS).optical[date]
    expected = np.stack([pixels[band] for band in FOUR]).astype(int)
    assert np.median(frame.read(WINDOW).astype(int) - expected) == 100
    spoil(image(new), hole)
    frame = open_source(row(tmp_path), SETTINGS).optical[date]
    assert (frame.read(WINDOW) == expected).all()
    assert "hole of zeros" in frame.facts["unveil:warnings"][-1]


WINDOW = Window(0, 0, SIZE, SIZE)


def shift_strip(product):
    """Let the datastrip of a product start a second later, as another processing does."""
    for path in product.rglob("*.xml"):
        later = re.sub(
            r"_S(\d{8}T)(\d{6})_N", lambda m: f"_S{m[1]}{int(m[2]) + 1:06d}_N", path.read_text()
        )
        path.write_text(later)


def test_a_product_without_a_band_costs_its_date_and_not_the_band(tmp_path, templates, pixels):
    products = list(three_dates(tmp_path / "in", templates, pixels))
    image(products[2]).unlink()
    scene = assembled(tmp_path / "out", row(tmp_path / "in", target_date=THREE[1]))
    assert scene.bands == FOUR and scene.facts["left_out"] == {THREE[2]: "it has no B04"}
    with pytest.raises(InputError, match="no B04, which all other dates have"):
        assembled(tmp_path / "bad", row(tmp_path / "in", target_date=THREE[2]))


def test_products_without_scl_are_left_out_unless_declared_clear(tmp_path, templates, pixels):
    products = list(three_dates(tmp_path / "in", templates, pixels))
    for product in (products[0], products[2]):
        image(product, "SCL").unlink()
    (tmp_path / "in/scene.yaml").write_text(f"clear: [{THREE[2]}]\n")
    scene = assembled(tmp_path / "out", row(tmp_path / "in", target_date=THREE[1]))
    assert [frame.date for frame in scene.context] == [THREE[2]]
    assert "nothing can judge" in scene.facts["left_out"][THREE[0]]
    (tmp_path / "in/scene.yaml").write_text("level: L2A\n")
    with pytest.raises(InputError, match="only clear"):
        open_source(row(tmp_path / "in"), SETTINGS)


def test_0_in_the_near_infrared_over_water_is_data(tmp_path, templates, pixels):
    lake = np.s_[60:180, 60:180]
    scl = np.full((SIZE, SIZE), 4, np.uint8)
    scl[lake] = 6
    few = {band: pixels[band].copy() for band in FOUR}
    for band, dn in zip(FOUR, (300, 200, 120, 0), strict=True):
        few[band][lake] = dn
    few["B08"][70:80, 70:80] = 65_535  # saturated, and no dark water
    few["B08"][:10] = 0  # nodata over land
    date = "2019-12-28"
    safe.write_product(tmp_path / "in", templates / L2A_0212, few, scl=scl, date=date)
    scene = assembled(tmp_path / "out", row(tmp_path / "in", target_date=date))
    b08 = raster.read(scene.target.path)[3]
    assert (b08[100:180, 60:180] == 1).all()
    assert (b08[70:80, 70:80] == 0).all() and (b08[:10] == 0).all()
    assert "water" in scene.target.facts["unveil:zeros_over_water"]


# --- scenes ---------------------------------------------------------------------------------


def never(reflectance, bands):
    raise AssertionError("SCL is there")


def assembled(folder, scene_row, *, detect=never, **selection):
    settings = {**SETTINGS, "selection": {**SETTINGS["selection"], **selection}}
    scene = assemble_row(
        scene_row,
        settings,
        folder,
        ProtocolSettings(1),
        detect=detect,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    save_scene(scene, folder / "download.json")
    return load_scene(folder / "download.json")


def real_band(shared, token, band):
    """Return 300 x 300 harmonised DN of tile 33TWL on a day, decimated to 120 m."""
    (path,) = (shared / "data/mapchete_eo").glob(f"*_{token}_0_L2A_{band}.tif")
    with rasterio.open(path) as dataset:
        return dataset.read(1)[:300, :300]


@pytest.fixture(scope="module")
def five_dates(tmp_path_factory, shared, templates):
    """Real pixels and SCL of five dates of 33TWL as SAFE products of baseline 05.09."""
    folder = tmp_path_factory.mktemp("five")
    for path in sorted((shared / "data/mapchete_eo").glob("*_SCL.tif")):
        token = path.name.split("_")[2]
        date = f"{token[:4]}-{token[4:6]}-{token[6:]}"
        dn = {b: real_band(shared, token, b) for b in ("B02", "B03", "B04", "B08")}
        scl = safe.real_scl(shared, date, np.s_[0:300], np.s_[0:300])
        coarse = np.kron(scl[::2, ::2], np.ones((2, 2), np.uint8))
        safe.write_product(
            folder, templates / L2A_0509, raw(dn, dn), scl=coarse, date=date, tile="33TWL"
        )
    return folder


def test_target_and_truth_are_found_among_five_real_products(tmp_path, five_dates):
    wanted = row(five_dates, protocol="paired", target_date="2023-08-16", reference_date="auto")
    scene = assembled(tmp_path, wanted, window_days=7, target_cloud=[0.4, 0.8], truth_cloud=0.02)
    assert scene.target.date == "2023-08-18"  # 73 % of this place
    (truth,) = scene.with_role("reference")
    assert truth.date == "2023-08-13"  # 1.3 %; the 15th is nearer and has 5.0 %
    assert [f.date for f in scene.context] == ["2023-08-10", "2023-08-15", "2023-08-20"]
    covers = scene.facts["cover_of_dates"]
    percent = {"10": 78.8, "13": 1.3, "15": 5.0, "18": 73.0, "20": 28.5}  # SCL, grown by two pixels
    for day, cover in percent.items():  # SCL is at 20 m here: a pixel stands for four
        assert 100 * covers[f"2023-08-{day}"] == pytest.approx(cover, abs=0.5)
    assert scene.target.facts["unveil:offset_applied"] == -1000
    assert scene.target.mask.exists()


def test_without_a_clear_date_the_reason_is_recorded(tmp_path, five_dates):
    wanted = row(five_dates, protocol="paired", target_date="2023-08-10", reference_date="auto")
    scene = assembled(tmp_path, wanted, truth_days=2)
    assert scene.with_role("reference") == ()
    assert "within 2 days of 2023-08-10" in scene.facts["no_reference"]


def test_auto_takes_the_first_cloudy_date_with_a_truth(tmp_path, five_dates):
    wanted = row(five_dates, protocol="paired", target_date="auto", reference_date="auto")
    scene = assembled(tmp_path, wanted, target_cloud=[0.3, 0.9], truth_cloud=0.02, truth_days=4)
    assert (scene.target.date, scene.with_role("reference")[0].date) == (
        "2023-08-10",
        "2023-08-13",
    )


def test_a_target_that_no_date_can_be_is_refused(tmp_path, five_dates):
    wanted = row(five_dates, protocol="none", target_date="2023-08-13")
    with pytest.raises(InputError, match=r"2023-08-13 \(1%\).*target_cloud"):
        assembled(tmp_path, wanted, window_days=1)


def test_l1c_is_judged_by_a_detector(tmp_path, templates, pixels):
    """Level 1C has no SCL: bright pixels stand for what s2cloudless would find."""
    for date, cloudy in (("2021-09-08", 120), ("2021-09-13", 0), ("2021-09-18", 240)):
        data = {band: image.copy() for band, image in pixels.items()}
        for image in data.values():
            image[:cloudy] = 8000
        safe.write_product(tmp_path, templates / L1C_0301, data, date=date)

    def detect(reflectance, bands):
        return (reflectance[bands.index("B02")] > 0.7).astype(np.uint8)

    wanted = row(tmp_path, protocol="paired", target_date="auto", reference_date="auto", area="")
    shape = tile_grid("46RER").shape
    scene = assembled(tmp_path / "out", wanted, detect=detect)
    assert scene.grid.shape == (SIZE, SIZE) != shape
    assert (scene.target.date, scene.with_role("reference")[0].date) == (
        "2021-09-08",
        "2021-09-13",
    )


def test_an_offset_that_pixels_refute_is_a_warning_in_the_scene(tmp_path, shared, templates):
    """A product of baseline 05.09 whose pixels somebody has harmonised already."""
    pixels = {b: real_band(shared, "20230815", b) for b in ("B02", "B04", "B08")}
    clear = np.full((300, 300), 4, np.uint8)
    safe.write_product(tmp_path, templates / L2A_0509, pixels, scl=clear)
    scene = assembled(tmp_path / "out", row(tmp_path, target_date="2023-08-21"))
    (warning,) = scene.target.facts["unveil:warnings"]
    assert "cannot carry the offset -1000" in warning
    assert scene.target.facts["unveil:offset_applied"] == -1000


def test_the_limits_of_the_config_are_the_limits_of_the_rules():
    assert Limits(**SETTINGS["selection"]).window_days == 0
