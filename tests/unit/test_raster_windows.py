"""Cut-outs: only the bytes that are needed, and the pixels that reading the whole file gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from tests.services.stac_data import write_cog
from tests.unit.plain_server import serve

from unveil import raster
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.remote.range_cache import HEADER, BadFileError, RangeCache, run_parallel, total
from unveil.remote.raster_windows import mosaic, plan_cut, read_cut, write_cut
from unveil.sources import radiometry
from unveil.sources.area import area_grid
from unveil.sources.radiometry import Offset
from unveil.sources.stac.preset import load_presets
from unveil.sources.stac.read import _calibrator, _Wanted, as_stored, harmoniser

CRS = "EPSG:32631"
WEST, NORTH = 500_040, 5_600_040
IMAGE = np.random.default_rng(5).integers(1, 6000, (1500, 1300)).astype(np.uint16)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    write_cog(root / "fine.tif", IMAGE, from_origin(WEST, NORTH, 10, 10), CRS, blocksize=256)
    write_cog(root / "coarse.tif", IMAGE, from_origin(WEST, NORTH, 20, 20), CRS, blocksize=256)
    with rasterio.open(root / "fine.tif") as source:
        rasterio.shutil.copy(
            source, root / "fine.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES"
        )
    with serve(root) as server:
        yield server


@pytest.fixture
def cache(tmp_path):
    return RangeCache(tmp_path / "cache", sleep=lambda s: None)


def grid_at(row, col, height, width, pixel=10.0, shift=0.0):
    west, north = WEST + 10 * col + shift, NORTH - 10 * row - shift
    return Grid(CRS, (pixel, 0.0, west, 0.0, -pixel, north), height, width)


def bring(cache, names, grid, folder, *, resampling="bilinear", server):
    """Fetch, cut and mosaic files of the server, as the source does."""
    parts = []
    for number, name in enumerate(names):
        cut = plan_cut(cache, cache.describe(f"{server.url}/{name}"), grid)
        if cut:
            cache.fetch({cut.remote: cut.spans}, name=name)
            path = folder / f"{number}.tif"
            write_cut(cache, cut, grid, path, convert=as_stored, nodata=0)
            parts.append({"B02": path})
    out = folder / "out.tif"
    mosaic(parts, grid, out, bands=("B02",), resampling=resampling, nodata=0)
    return raster.read(out)[0]


def plain_odc(paths, grid, resampling="bilinear"):
    """What odc-stac alone makes of the whole local files."""
    import datetime as dt

    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    items = []
    for number, path in enumerate(paths):
        item = pystac.Item(str(number), None, None, dt.datetime(2020, 1, 1), {})
        item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
        with rasterio.open(path) as d:
            code = {"proj:code": d.crs.to_string(), "proj:shape": d.shape}
            code |= {"proj:transform": list(d.transform)}
            code |= {"raster:bands": [{"nodata": 0, "data_type": "uint16"}]}
        item.add_asset("B02", pystac.Asset(str(path), roles=["data"], extra_fields=code))
        items.append(item)
    box = GeoBox(grid.shape, grid.affine, grid.crs)
    return odc.stac.load(items, geobox=box, resampling=resampling).B02.values[0]


def test_pixels_on_the_grid_are_the_files_own(server, cache, tmp_path):
    grid = grid_at(300, 400, 210, 190)
    found = bring(cache, ["fine.tif"], grid, tmp_path, server=server)
    assert np.array_equal(found, IMAGE[300:510, 400:590])


def cut_of(cache, server, name, image, tag):
    """Write an image with a nodata tag to the server and fetch all of it."""
    place = {"crs": CRS, "transform": from_origin(WEST, NORTH, 10, 10)}
    size = {"height": image.shape[0], "width": image.shape[1]}
    path = server.root / name
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype=image.dtype, nodata=tag, **place, **size
    ) as dataset:
        dataset.write(image, 1)
    cut = plan_cut(cache, cache.describe(f"{server.url}/{name}"), grid_at(0, 0, *image.shape))
    cache.fetch({cut.remote: cut.spans}, name=name)
    return cut


@pytest.mark.parametrize(
    ("fill", "tag", "dtype"), [(-9999, -9999, "int16"), (7, 7, "uint16"), (-32_768, None, "int16")]
)
def test_fill_of_a_remote_image_is_nodata(server, cache, tmp_path, fill, tag, dtype):
    image = np.full((32, 40), 2500, dtype)
    image[:, 20:] = fill
    cut = cut_of(cache, server, f"fill{fill}.tif", image, tag)
    convert = harmoniser("B02", Offset(-1000, "BOA_ADD_OFFSET"))
    write_cut(cache, cut, grid_at(0, 0, 32, 40), tmp_path / "o.tif", convert=convert, nodata=0)
    found = raster.read(tmp_path / "o.tif")[0]
    assert (found[:, :20] == 1500).all() and not found[:, 20:].any()
    if tag is not None:
        assert not read_cut(cache, cut)[:, 20:].any()


@pytest.mark.parametrize(("fill", "tag"), [(0, 0), (0, None), (-9999, None), (-30, -30)])
def test_fill_of_remote_decibels_is_nan(server, cache, tmp_path, fill, tag):
    image = np.full((32, 40), -11, np.float32)
    image[:, 20:] = fill
    cut = cut_of(cache, server, f"db{fill}{tag}.tif", image, tag)
    preset = replace(load_presets()["copernicus-sentinel-1-grd"], pixels="dB")
    convert = _calibrator(cache, _Wanted({"id": "x", "assets": {}}, "VV", cut), preset)
    write_cut(cache, cut, grid_at(0, 0, 32, 40), tmp_path / "o.tif", convert=convert, nodata=np.nan)
    found = radiometry.to_decibel(raster.read(tmp_path / "o.tif")[0])
    assert np.isnan(found[:, 20:]).all()
    np.testing.assert_allclose(found[:, :20], -11, rtol=1e-6)


def test_only_the_blocks_under_the_grid_are_fetched(server, cache):
    grid = grid_at(256, 512, 256, 512)  # two blocks of 256, exactly
    cut = plan_cut(cache, cache.describe(f"{server.url}/fine.tif"), grid)
    assert len(cut.spans) == 2 and (cut.window.height, cut.window.width) == (256, 512)
    before = len(server.log)
    cache.fetch({cut.remote: cut.spans}, name="x")
    asked = sum(min(row.end, cut.remote.size) - row.start for row in server.log[before:])
    assert asked <= total(cut.spans) + HEADER
    assert asked < 0.15 * cut.remote.size
    moved = len(server.log)
    read_cut(cache, cut)
    assert len(server.log) == moved, "nothing else is asked for when it is read"


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize(("name", "pixel"), [("fine.tif", 10.0), ("coarse.tif", 10.0)])
def test_what_is_cut_first_equals_what_odc_stac_makes_of_the_whole_file(
    server, cache, tmp_path, shift, name, pixel
):
    grid = grid_at(100, 130, 120, 150, pixel, shift)
    found = bring(cache, [name], grid, tmp_path, server=server)
    assert np.array_equal(found, plain_odc([server.root / name], grid))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_pixels_of_two_zones_are_those_of_odc_stac(server, tmp_path, resampling):
    """Each file lies in a zone of its own, the grid in that of the second; both have gaps."""
    paths = [server.root / "fine.tif", tmp_path / "east.tif"]
    to_east = Transformer.from_crs(CRS, "EPSG:32632", always_xy=True)
    x, y = (round(value, -1) for value in to_east.transform(WEST + 10_000, NORTH - 200))
    east = np.where(IMAGE[:600, :700] < 300, 0, IMAGE[:600, :700])
    write_cog(paths[1], east, from_origin(x, y, 20, 20), "EPSG:32632", blocksize=256)
    grid = Grid("EPSG:32632", (10.0, 0.0, x - 500, 0.0, -10.0, y + 500), 900, 800)
    parts = [{"B02": path} for path in paths]
    mosaic(parts, grid, tmp_path / "m.tif", bands=("B02",), resampling=resampling, nodata=0)
    found = raster.read(tmp_path / "m.tif")[0]
    assert 0.5 < (found > 0).mean() < 1
    assert np.array_equal(found, plain_odc(paths, grid, resampling))


def test_a_coarse_grid_reads_the_overview(server, cache, tmp_path):
    grid = grid_at(0, 0, 300, 300, 40.0)
    cut = plan_cut(cache, cache.describe(f"{server.url}/fine.tif"), grid)
    assert cut.level == 1 and cut.shape == (375, 325)
    found = bring(cache, ["fine.tif"], grid, tmp_path, server=server)
    with rasterio.open(server.root / "fine.tif", overview_level=1) as overview:
        assert np.array_equal(found, overview.read(1)[:300, :300])


def test_of_a_jpeg_2000_the_whole_file_is_fetched_once(server, cache, tmp_path):
    remote = cache.describe(f"{server.url}/fine.jp2")
    for row in (0, 700):
        grid = grid_at(row, 100, 90, 80)
        cut = plan_cut(cache, remote, grid)
        assert cut.spans == ((0, remote.size),)
        found = bring(cache, ["fine.jp2"], grid, tmp_path, server=server)
        assert np.array_equal(found, IMAGE[row : row + 90, 100:180])
    spans = [
        (r.start, min(r.end, remote.size))
        for r in server.log
        if r.path == "/fine.jp2" and r.status == 206
    ]
    assert sum(end - start for start, end in spans) == remote.size


def test_a_raster_elsewhere_is_no_part_of_the_place(server, cache):
    remote = cache.describe(f"{server.url}/fine.tif")
    assert plan_cut(cache, remote, grid_at(5000, 5000, 100, 100)) is None


def test_a_place_over_the_edge_is_nodata_beyond_it(server, cache, tmp_path):
    found = bring(cache, ["fine.tif"], grid_at(1450, 1250, 100, 100), tmp_path, server=server)
    assert np.array_equal(found[:50, :50], IMAGE[1450:, 1250:]) and not found[50:].any()


def test_tiles_of_two_zones_across_the_antimeridian_make_one_mosaic(tmp_path):
    grid = area_grid("179.98,-16,-179.98,-15.96", crs="EPSG:32701", resolution=60)
    assert grid.crs == "EPSG:32701"
    middle = grid.transform[2] + grid.width // 2 * 60
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(179.97, -15.95)
    root = tmp_path / "files"
    one, sixty = np.full((300, 300), 1000, np.uint16), np.full((300, 120), 2000, np.uint16)
    write_cog(root / "one.tif", one, from_origin(middle, grid.transform[5], 60, 60), "EPSG:32701")
    write_cog(root / "sixty.tif", sixty, from_origin(x, y, 60, 60), "EPSG:32760")
    with serve(root) as server:
        cache = RangeCache(tmp_path / "cache")
        found = bring(cache, ["one.tif", "sixty.tif"], grid, tmp_path, server=server)
        reverse = bring(cache, ["sixty.tif", "one.tif"], grid, tmp_path, server=server)
    half = grid.width // 2
    assert (found[:, :half] == 2000).all() and (found[:, half:] == 1000).all()
    assert (reverse == 2000).mean() > 0.5, "where both have data the first is taken"


def test_a_truncated_file_is_named(server, cache, tmp_path):
    data = (server.root / "fine.tif").read_bytes()
    (server.root / "cut.tif").write_bytes(data[: len(data) // 2])
    remote = cache.describe(f"{server.url}/cut.tif")
    cut = plan_cut(cache, remote, grid_at(1200, 1000, 200, 200))
    with pytest.raises(InputError, match=r"cut.tif.*needs bytes up to.*truncated"):
        cache.fetch({remote: cut.spans}, name="x")
    with pytest.raises(InputError, match=r"cut.tif.*cannot be read as a raster"):
        read_cut(cache, cut)


def test_what_goes_wrong_while_gdal_reads_is_told_in_plain_words(server, cache):
    """Also from many threads at once: an exception that passed through GDAL would abort it."""
    data = (server.root / "fine.tif").read_bytes()
    names = [f"changing{n}.tif" for n in range(6)]
    for name in names:
        (server.root / name).write_bytes(data)
    remotes = [cache.describe(f"{server.url}/{name}") for name in names]
    for name in names:
        (server.root / name).write_bytes(data[:-1] + b"x")
    fresh = RangeCache(cache.folder / "fresh", sleep=lambda s: None)
    for _ in range(3):
        with pytest.raises(InputError, match="changing.*not the one that was searched"):
            run_parallel(lambda r: plan_cut(fresh, r, grid_at(0, 0, 9, 9)), remotes, workers=6)


def test_a_page_instead_of_a_raster_is_named(server, cache):
    (server.root / "page.tif").write_text("<html>not here</html>")
    with pytest.raises(InputError, match="page.tif.*cannot be read as a raster"):
        plan_cut(cache, cache.describe(f"{server.url}/page.tif"), grid_at(0, 0, 9, 9))


def test_detected_radar_is_calibrated_and_placed_by_its_control_points(server, cache, tmp_path):
    """An even amplitude of 200 and a table of 400 make sigma0 of 1/4, -6.02 dB, everywhere."""
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    points = []
    for line in range(0, 601, 60):
        for pixel in range(0, 601, 60):  # flown towards the north: the first line is in the south
            x, y = to_degrees.transform(WEST + 10 * pixel, NORTH - 6000 + 10 * line)
            points.append(GroundControlPoint(line, pixel, x, y))
    amplitude = np.full((600, 600), 200, np.uint16)
    amplitude[:100] = 100  # the southern kilometre is a quarter as bright
    amplitude[:, :3] = 0
    with rasterio.open(
        server.root / "grd.tif", "w", driver="GTiff", count=1, dtype="uint16", height=600,
        width=600, tiled=True, blockxsize=128, blockysize=128, gcps=points,
        crs="EPSG:4326",
    ) as target:  # fmt: skip
        target.write(amplitude, 1)
    vector = "".join(
        f"<calibrationVector><line>{line}</line><pixel>0 300 599</pixel>"
        "<sigmaNought>400 400 400</sigmaNought></calibrationVector>"
        for line in (0, 599)
    )
    (server.root / "calibration.xml").write_text(f"<calibration>{vector}</calibration>")
    facts = {}
    for name, file in (("VV", "grd.tif"), ("calibration-VV", "calibration.xml")):
        remote = cache.describe(f"{server.url}/{file}")
        facts[name] = {"href": remote.href, "size": remote.size, "version": remote.validator}
    grid = Grid(CRS, (10.0, 0.0, WEST + 1000, 0.0, -10.0, NORTH - 4000), 180, 200)
    cut = plan_cut(cache, cache.describe(f"{server.url}/grd.tif"), grid)
    cache.fetch({cut.remote: cut.spans}, name="x")
    assert total(cut.spans) < 0.8 * cut.remote.size
    wanted = _Wanted({"id": "x", "assets": facts}, "VV", cut)
    preset = load_presets()["copernicus-sentinel-1-grd"]
    convert = _calibrator(cache, wanted, preset)
    write_cut(cache, cut, grid, tmp_path / "vv.tif", convert=convert, nodata=np.nan)
    decibel = radiometry.to_decibel(raster.read(tmp_path / "vv.tif")[0])
    north, south = decibel[:95], decibel[105:]
    assert np.allclose(north, 10 * np.log10(0.25), atol=1e-4)
    assert np.allclose(south, 10 * np.log10(0.0625), atol=1e-4)


def test_a_raster_without_a_place_is_the_file_s_own_fault(server, cache):
    profile = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint16"}
    with rasterio.open(server.root / "nowhere.tif", "w", **profile) as dataset:
        dataset.write(np.ones((1, 8, 8), np.uint16))
    remote = cache.describe(f"{server.url}/nowhere.tif")
    grid = Grid("EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), 8, 8)
    with pytest.raises(BadFileError, match=r"nowhere\.tif.*leave the item out"):
        plan_cut(cache, remote, grid)
