"""Rasters are read, not obeyed: nothing beside a file, nothing that it names, nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT
from tests.small_run import ROOT
from tests.unit.plain_server import serve

from unveil import raster
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.remote.range_cache import RangeCache
from unveil.remote.raster_windows import open_remote

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 64, 64)
OWN, SECRET = 5, 777
VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="UInt16" band="1">'
    "<SimpleSource><SourceFilename>{name}</SourceFilename></SimpleSource></VRTRasterBand>"
    "</VRTDataset>"
)
SIDE = (
    "<PAMDataset><SRS>EPSG:32601</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform>"
    '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{name}</MDI></Metadata>'
    '<PAMRasterBand band="1"><Description>B04</Description><NoDataValue>5</NoDataValue>'
    "</PAMRasterBand></PAMDataset>"
)
STATISTICS = (
    '<PAMDataset><PAMRasterBand band="1"><Metadata>'
    '<MDI key="STATISTICS_MEAN">5</MDI></Metadata></PAMRasterBand></PAMDataset>'
)


def write(path: Path, value: int, *, side: int = 64, placed: bool = True, **tags: str) -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint16"}
    place = {"crs": GRID.crs, "transform": GRID.affine} if placed else {}
    with rasterio.open(path, "w", **profile, **place) as dataset:
        dataset.write(np.full((1, side, side), value, np.uint16))
        dataset.set_band_description(1, "B02")
        if tags:
            dataset.update_tags(ns="OVERVIEWS", **tags)
    return path


def victim(folder: Path) -> Path:
    return write(folder / "secret.tif", SECRET, side=32)


def reading(source, level=None):
    """Return what a raster says of itself, and a pixel as a decimated read sees it."""
    with source as dataset:
        pixel = int(dataset.read(1, out_shape=(32, 32))[0, 0])
        return dataset.crs, dataset.transform.c, dataset.descriptions[0], dataset.nodata, pixel


def beside(path: Path) -> None:
    """Lay every kind of companion beside a raster that GDAL would read."""
    secret = victim(path.parent)
    path.with_name(f"{path.name}.aux.xml").write_text(SIDE.format(name=secret))
    write(path.with_name(f"{path.name}.ovr"), 888, side=32)
    write(path.with_name(f"{path.name}.msk"), 0)
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n7\n7\n")


HONEST = ("EPSG:32633", 500000.0, "B02", None, OWN)


def test_files_beside_a_raster_change_nothing(tmp_path):
    path = write(tmp_path / "a.tif", OWN)
    beside(path)
    assert reading(raster.open_raster(path)) == HONEST
    with raster.open_raster(path) as dataset, WarpedVRT(dataset, crs="EPSG:32632") as warped:
        assert set(np.unique(warped.read(1))) <= {0, OWN}


def test_files_beside_a_raster_on_a_server_are_not_asked_for(tmp_path):
    (tmp_path / "files").mkdir()
    beside(write(tmp_path / "files/a.tif", OWN))
    with serve(tmp_path / "files") as server:
        cache = RangeCache(tmp_path / "cache")
        remote = cache.describe(f"{server.url}/a.tif")
        assert reading(open_remote(cache, remote)) == HONEST


def test_statistics_that_a_viewer_left_beside_a_raster_do_not_disturb(tmp_path):
    path = write(tmp_path / "a.tif", OWN, placed=False)
    path.with_name("a.tif.aux.xml").write_text(STATISTICS)
    assert raster.read(path).max() == OWN


@pytest.mark.parametrize("side", ["a.tif.aux.xml", "a.tfw"])
def test_a_place_that_lies_beside_the_raster_is_no_place(tmp_path, side):
    path = write(tmp_path / "a.tif", OWN, placed=False)
    (tmp_path / side).write_text(SIDE if side.endswith("xml") else "10\n0\n0\n-10\n5\n5\n")
    with pytest.raises(InputError, match=rf"lies in {side}.*gdal_translate"):
        raster.read(path)


@pytest.mark.parametrize("other", ["secret.tif", "x.vrt", "/vsicurl/http://127.0.0.1:9/x.tif"])
def test_overviews_in_another_file_are_refused(tmp_path, other):
    victim(tmp_path)
    (tmp_path / "x.vrt").write_text(VRT.format(name=tmp_path / "secret.tif"))
    path = write(tmp_path / "a.tif", OWN, OVERVIEW_FILE=other.replace("x.vrt", f"{tmp_path}/x.vrt"))
    with pytest.raises(InputError, match=r"a\.tif: it takes overviews from another file"):
        reading(raster.open_raster(path))


@pytest.mark.parametrize("level", [None, 0])
def test_overviews_in_another_file_are_refused_of_servers_too(tmp_path, level):
    secret = victim(tmp_path)
    (tmp_path / "files").mkdir()
    write(tmp_path / "files/a.tif", OWN, OVERVIEW_FILE=str(secret))
    with serve(tmp_path / "files") as server:
        cache = RangeCache(tmp_path / "cache")
        remote = cache.describe(f"{server.url}/a.tif")
        with pytest.raises(InputError, match=r"a\.tif: it takes overviews from another file"):
            reading(open_remote(cache, remote, level=level))


def test_a_vrt_on_a_server_under_the_name_of_a_geotiff_is_refused(tmp_path):
    secret = victim(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.tif").write_text(VRT.format(name=secret))
    with serve(tmp_path / "files") as server:
        cache = RangeCache(tmp_path / "cache")
        remote = cache.describe(f"{server.url}/a.tif")
        with pytest.raises(InputError, match=r"a\.tif: cannot be read.*<VRTData"):
            reading(open_remote(cache, remote))


def test_a_block_larger_than_memory_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    size = {"height": 40_000, "width": 40_000, "count": 1, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": 40_000, "blockysize": 40_000}
    with rasterio.open(path, "w", driver="GTiff", sparse_ok=True, **size, **tiles):
        pass
    with open(path, "ab") as stream:
        stream.truncate(1 << 20)
    with pytest.raises(InputError, match=r"blocks have 1\.5 GiB"):
        raster.read(path)


def in_a_new_process(code: str, **environ: str) -> str:
    path = {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **path, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_gdal_has_no_drivers_of_files_that_name_others_or_of_addresses():
    code = "import unveil, rasterio\nwith rasterio.Env() as env: print(*sorted(set(env.drivers())))"
    found = set(in_a_new_process(code, GDAL_SKIP="PNG").split())
    assert {"GTiff", "JP2OpenJPEG", "COG", "MEM"} <= found
    assert not found & {"VRT", "HTTP", "WMS", "WMTS", "WCS", "GTI", "STACTA", "EEDAI", "DAAS"}


def test_drivers_that_a_build_lacks_are_left_out_without_a_word():
    code = (
        "import logging, sys, unveil, rasterio\n"
        "logging.basicConfig(stream=sys.stdout, level=logging.WARNING)\n"
        "with rasterio.Env() as env: env.drivers()"
    )
    assert in_a_new_process(code) == ""


@pytest.mark.parametrize("content", ["nothing", "another version"])
def test_tables_of_another_installation_are_not_used(tmp_path, content):
    import sqlite3

    if content != "nothing":
        with sqlite3.connect(tmp_path / "proj.db") as database:
            database.execute("create table metadata(key text, value text)")
            rows = [("DATABASE.LAYOUT.VERSION.MAJOR", "1"), ("DATABASE.LAYOUT.VERSION.MINOR", "0")]
            database.executemany("insert into metadata values(?,?)", rows)
    path = write(tmp_path / "a.tif", OWN)
    code = (
        f"from unveil import raster\n"
        f"with raster.open_raster({str(path)!r}) as d: print(raster.grid_of(d).crs)"
    )
    foreign = dict.fromkeys(("PROJ_DATA", "PROJ_LIB", "GDAL_DATA"), str(tmp_path))
    assert in_a_new_process(code, **foreign) == "EPSG:32633"


def test_one_function_of_the_package_opens_rasters_for_reading():
    found = []
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "rasterio.open":
                writes = len(node.args) > 1 and ast.unparse(node.args[1]) == "'w'"
                found += [] if writes else [path.name]
    assert set(found) == {"raster.py"}
