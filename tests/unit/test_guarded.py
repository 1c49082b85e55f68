"""Files made to harm: refused with one clear line, before they take memory or name others."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from tests.small_run import write_place

from unveil import raster
from unveil.assembly.planning import survey
from unveil.assembly.scene_table import read_scenes
from unveil.config import SceneRow, load_config, read_models, read_training
from unveil.errors import InputError
from unveil.guarded import read_xml, read_yaml
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.models.base import ModelSpec
from unveil.models.external import External
from unveil.models.registry import create
from unveil.places.layouts import read_worldcereal
from unveil.places.packages import unpack
from unveil.places.series import load_series
from unveil.raster import Grid
from unveil.remote.download import read_note
from unveil.scene import Frame, load_scene, read_bands
from unveil.sources import integrity
from unveil.sources.npz import load_array
from unveil.sources.registry import source_of
from unveil.sources.stac.lock import read_lock
from unveil.weights.arrays import read_arrays
from unveil.weights.keras_hdf5 import read_keras_hdf5

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 20, 24)


def refused(read, *words):
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message and "Remedy: " in message
    for word in words:
        assert word in message, message


# ------------------------------------------------------------------ more than there is


def test_a_small_raster_that_declares_a_continent_is_refused(tmp_path):
    path = tmp_path / "big.tif"
    size = {"height": 400_000, "width": 400_000, "count": 6, "dtype": "uint16"}
    tiles = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384}
    with rasterio.open(path, "w", driver="GTiff", sparse_ok=True, bigtiff="yes", **size, **tiles):
        pass
    assert path.stat().st_size < 100_000
    refused(lambda: raster.read(path), "big.tif", "GiB of data in")


def test_an_empty_mask_of_a_whole_tile_is_no_attack(tmp_path):
    path = tmp_path / "clear.tif"
    grid = Grid("EPSG:32633", GRID.transform, 10_980, 10_980)
    with raster.cog_writer(path, grid, dtype="uint8", descriptions=["SCL"], nodata=None) as file:
        for window in grid.windows(4096):
            file.write(np.full((1, window.height, window.width), 4, np.uint8), window=window)
    assert raster.read_decimated(path).max() == 4


@pytest.mark.parametrize("read", [lambda p: load_array(p, bands=13), read_arrays])
def test_an_archive_that_swells_beyond_reason_is_refused(tmp_path, read):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("arr_0.npy", "w") as entry:
            shape = {"descr": "|u1", "fortran_order": False, "shape": (300 << 20,)}
            np.lib.format.write_array_header_1_0(entry, shape)
            for _ in range(300):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    refused(lambda: read(path), "bomb.npz", "GiB of data in")


def test_hdf5_weights_that_were_never_written_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"conv"])
        layer = file.create_group("conv")
        layer.attrs["weight_names"] = np.array([b"kernel:0"])
        layer.create_dataset("kernel:0", (900, 1000, 1000), np.float32, chunks=(1, 1000, 1000))
    refused(lambda: read_keras_hdf5(path), "w.h5", "GiB of data in")


# ------------------------------------------------------------------ other files, other code


def keras_file(path, put):
    """Write weights of one layer, whose kernel is put there by a function."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"conv"])
        layer = file.create_group("conv")
        layer.attrs["weight_names"] = np.array([b"kernel:0"])
        put(layer)
    return path


def elsewhere(folder):
    with h5py.File(folder / "secret.h5", "w") as file:
        file["kernel"] = np.arange(4.0)
    return folder / "secret.h5"


def link_out(layer):
    layer["kernel:0"] = h5py.ExternalLink(
        str(elsewhere(Path(layer.file.filename).parent)), "kernel"
    )


def soft_link(layer):
    layer.file["own"] = np.arange(4.0)
    layer["kernel:0"] = h5py.SoftLink("/own")


def stored_outside(layer):
    secret = Path(layer.file.filename).with_name("secret.txt")
    secret.write_bytes(bytes(32))
    layer.create_dataset("kernel:0", (4,), "f8", external=[(str(secret), 0, 32)])


def virtual(layer):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    secret = elsewhere(Path(layer.file.filename).parent)
    layout[:] = h5py.VirtualSource(str(secret), "kernel", shape=(4,))
    layer.create_virtual_dataset("kernel:0", layout)


def a_group_out(layer):
    secret = elsewhere(Path(layer.file.filename).parent)
    layer["kernel:0"] = np.arange(4.0)
    layer.file["more"] = h5py.ExternalLink(str(secret), "/")


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (link_out, "'kernel:0' is a link"),
        (soft_link, "'kernel:0' is a link"),
        (stored_outside, "the data of 'kernel:0' lie in another file"),
        (virtual, "the data of 'kernel:0' lie in another file"),
        (a_group_out, "'more' is a link"),
    ],
)
def test_hdf5_that_names_other_files_is_refused_as_weights_and_as_series(tmp_path, put, words):
    path = keras_file(tmp_path / "w_32631_a_b.h5", put)
    refused(lambda: read_keras_hdf5(path), "w_32631_a_b.h5", words)
    refused(lambda: read_worldcereal([path], name="a"), "w_32631_a_b.h5", words)


def test_hdf5_whose_groups_hold_each_other_is_read_to_an_end(tmp_path):
    def circle(layer):
        layer["kernel:0"] = np.arange(4.0)
        layer["up"] = layer.file["/"]

    assert read_keras_hdf5(keras_file(tmp_path / "w.h5", circle)).arrays["kernel:0"].size == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_entities_that_multiply_are_not_multiplied(encoding):
    bomb = [f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">']
    bomb += [f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12)]
    text = "".join(bomb) + "]><a>&a12;</a>"
    refused(
        lambda: read_xml(text.encode(encoding), file="a.xml", remedy="none"),
        "a.xml",
        "document type",
    )
    plain = f'<?xml version="1.0" encoding="{encoding}"?><a>b</a>'.encode(encoding)
    assert read_xml(plain, file="a.xml", remedy="none").text == "b"


def test_a_vrt_under_the_name_of_a_geotiff_opens_nothing(tmp_path):
    path = tmp_path / "2020-06-11.tif"
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource><SourceFilename>/vsicurl/http://127.0.0.1:9/x.tif</SourceFilename>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    refused(lambda: raster.read(path), "2020-06-11.tif", "<VRTData")


@pytest.mark.parametrize("name", ["p/../../evil.txt", "p//etc/evil.txt", "p/a/../../../evil.txt"])
def test_an_archive_writes_nothing_outside_its_folder(tmp_path, name):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        content.addfile(entry, io.BytesIO(b"evil"))
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    if name == "p//etc/evil.txt":  # an absolute path becomes one inside
        unpack(archive, folder)
    else:
        refused(lambda: unpack(archive, folder), "a.tar.gz", "outside")
    found = [path for path in tmp_path.rglob("evil.txt") if folder not in path.parents]
    assert not found


def test_links_in_an_archive_are_left_out(tmp_path):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        link = tarfile.TarInfo("p/frames")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        content.addfile(link)
    (tmp_path / "in").mkdir()
    unpack(archive, tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("read", [lambda p: load_array(p, bands=13), read_arrays])
def test_pickled_objects_in_an_npz_run_nothing(tmp_path, read):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = tmp_path / "evil.npz"
    np.savez(path, arr_0=np.array([Evil()], dtype=object))
    refused(lambda: read(path), "evil.npz", "allow_pickle")
    refused(lambda: load_series(path, name="x"), "evil.npz")
    assert not (tmp_path / "pwned").exists()


# ------------------------------------------------------------------ settings and tables


ALIASES = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: 2020-13-45",
        "[" * 5000,
        "a: !!python/object/apply:os.system [mkdir pwned]",
        f"a: {'9' * 5000}",
        ALIASES,
    ],
    ids=["cycle", "date", "nesting", "object", "number", "aliases"],
)
def test_hostile_yaml_ends_in_one_line(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    refused(lambda: load_config(read_yaml(path), file=path), "c.yaml")
    refused(lambda: read_training(path), "c.yaml")
    assert os.listdir() == ["c.yaml"]


HOSTILE_IDS = ("../up", "/etc/x", "a/b", "$(touch x)", "a;b", "a b", "`x`", "-rf", ".hidden", "a'b",
               'a"b', "a|b", "x" * 101, "ä", "{scene}", "*", "a\n", "a\\b", "")  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_an_id_is_a_plain_file_name(tmp_path, name):
    models = tmp_path / "models.yaml"
    models.write_text(json.dumps({name: {"kind": "damped"}}))
    refused(lambda: read_models(models), "models.yaml")
    scenes = tmp_path / "scenes.tsv"
    cell = '"' + name.replace('"', '""') + '"'
    header = "scene\tsource\tpath\ttarget_date\tprotocol"
    scenes.write_text(f"{header}\n{cell}\tlocal\tplace\t2020-06-11\tnone\n")
    if name != "a\n":  # cells are stripped
        refused(lambda: read_scenes(scenes), "scenes.tsv", "line 2")
    training = tmp_path / "training.yaml"
    image = {"package": "p", "version": "1", "sha256": "0" * 64, "files": "x", "level": "L1C"}
    table = {"run": [], "series": {}, "images": {name: image | {"licence": "x"}}, "runs": {}}
    training.write_text(json.dumps(table))
    refused(lambda: read_training(training), "training.yaml")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b", "a\x00b"])
def test_the_name_of_a_file_in_a_table_stays_in_its_folder(tmp_path, name):
    path = tmp_path / "scenes.tsv"
    header = "scene\tsource\tpath\ttarget_date\tprotocol\tname"
    path.write_text(f"{header}\na\tnpz\tdata\t2020-06-11\tnone\t{name}\n")
    refused(lambda: read_scenes(path), "scenes.tsv", "name")


@pytest.mark.parametrize("level", ["nan", "inf", "-1", "9" * 400])
def test_a_cloud_level_is_a_fraction(tmp_path, level):
    path = tmp_path / "scenes.tsv"
    header = "scene\tsource\tpath\ttarget_date\tprotocol\tcloud_level"
    path.write_text(f"{header}\na\tlocal\tdata\t2020-06-11\tsimulate\t{level}\n")
    refused(lambda: read_scenes(path), "cloud_level")


@pytest.mark.parametrize("pattern", ["{scene.__class__}", "{0}", "{x}.tif", "../{scene}.tif", "{"])
def test_a_pattern_of_delivered_files_names_what_is_known_only(pattern):
    options = {"folder": "theirs", "pattern": pattern}
    refused(lambda: External(ModelSpec("m", "external", options=options)), "pattern")


@pytest.mark.parametrize("key", ["results", "cache"])
@pytest.mark.parametrize("value", ["out/{scene}", "a\nb", ""])
def test_folders_of_the_config_hold_no_wildcards(key, value):
    refused(lambda: load_config({key: value}), key)


def test_a_message_is_one_printable_line_whatever_it_quotes():
    text = str(InputError("\x1b[31m\n\ud800" + "A" * 10_000, file="a\nb", remedy="c\td"))
    assert text.isprintable() and len(text) < 1000
    assert "\\x1b" in text and "\\ud800" in text


# ------------------------------------------------------------------ a hostile scene.json


@pytest.fixture
def scene_file(tmp_path):
    from tests.synthetic_results import Recipe, make_results

    return make_results(tmp_path, [Recipe("a", "here", "none", 0.4, context=1)], size=16).scenes[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d["unveil"].update(scene="../../../evil"), "evil"),
        (lambda d: d["unveil"].update(scene=7), "int"),
        (lambda d: d["unveil"].update(place="../up"), "up"),
        (lambda d: d["unveil"]["grid"].update(shape=[0, -1]), "shape"),
        (lambda d: d["unveil"]["grid"].update(transform=[float("nan")] * 6), "transform"),
        (lambda d: d["features"][0]["properties"].update(datetime="../../../x"), "../"),
        (lambda d: d["features"][0]["assets"]["data"].update(href="/etc/passwd"), "passwd"),
        (lambda d: d["features"][0]["assets"]["data"].update(href="../../x.tif"), "x.tif"),
        (lambda d: d["features"][0]["assets"]["mask"].update(href="../x.tif"), "x.tif"),
        (lambda d: d["features"][0]["properties"].update({"unveil:role": "boss"}), "boss"),
    ],
)
def test_a_scene_names_files_in_its_own_folder_only(scene_file, change, word):
    document = json.loads(scene_file.read_text())
    change(document)
    scene_file.write_text(json.dumps(document))
    refused(lambda: load_scene(scene_file), "scene.json", word)


# ------------------------------------------------------------------ damaged or exchanged


def test_a_damaged_survey_in_the_cache_is_done_again(tmp_path, caplog):
    write_place(tmp_path / "place")
    good = survey(tmp_path / "place", tmp_path / "cache")
    path = next((tmp_path / "cache").rglob("*.json"))
    text = path.read_text()
    assert survey(tmp_path / "place", tmp_path / "cache") == good and not caplog.records
    for damaged in (text[:100], text.replace("0.0", "0.9", 1), "", "[]"):
        path.write_text(damaged)
        assert survey(tmp_path / "place", tmp_path / "cache") == good
        assert "is made again" in caplog.text
        caplog.clear()
        assert path.read_text() == text


def test_a_mask_changed_in_place_is_surveyed_anew_though_the_clock_went_back(tmp_path):
    write_place(tmp_path / "place")
    before = survey(tmp_path / "place", tmp_path / "cache")
    mask = tmp_path / "place" / "masks" / "2020-02-11.tif"
    scl = raster.read(mask)
    scl[:] = 9
    grid = Grid("EPSG:32633", GRID.transform, *scl.shape[1:])
    raster.write_cog(mask, scl, grid, descriptions=["SCL"], nodata=None)
    os.utime(mask, (1, 1))
    after = survey(tmp_path / "place", tmp_path / "cache")
    assert before[0]["clear"] == 1 and after[0]["clear"] == 0


def exchanged_weights(root, folder):
    """Copy the weights of chronos with their card, and change one number."""
    for suffix in (".npz", ".json"):
        name = f"chronos-small{suffix}"
        (folder / name).write_bytes((root / "resources/weights" / name).read_bytes())
    path = folder / "chronos-small.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    first = next(name for name, array in arrays.items() if array.size > 1)
    arrays[first] = arrays[first] * 1.5
    np.savez_compressed(path, **arrays)
    return path


def test_weights_exchanged_for_others_of_the_same_shape_are_refused(root, tmp_path, scene_file):
    path = exchanged_weights(root, tmp_path)
    model = create(ModelSpec("chronos", "chronos", weights=path))
    scene = load_scene(scene_file)
    refused(
        lambda: run_shard(model, [scene], tmp_path / "out", InferenceOptions(gpu="never"), code=""),
        "chronos-small.npz",
        "chronos-small.json says",
        "exchanged",
    )


# ------------------------------------------------------------------ JSON without end


def test_json_that_is_nested_without_end_is_damaged_json(tmp_path, caplog):
    path = tmp_path / "metadata/datasets/test.json"
    path.parent.mkdir(parents=True)
    path.write_text("[" * 100_000)
    assert read_note(path) == {}
    image = integrity.Image("a.jp2", lambda: contextlib.nullcontext(io.BytesIO()), (0, 0), None)
    assert integrity.first_fault([image], tmp_path / "metadata/datasets/test.json") == ""
    path.write_text("[" * 100_000)
    refused(lambda: read_lock(path, {}), "not a lock")
    patch = SceneRow("s", "allclear", str(tmp_path), "auto", "none", name="0", split="test")
    refused(lambda: source_of(patch).open(patch, {}), "not JSON")


def test_a_raster_with_fewer_bands_than_its_scene_names_is_damaged(tmp_path):
    path = tmp_path / "sar.tif"
    raster.write_cog(
        path, np.zeros((1, *GRID.shape), np.float32), GRID, descriptions=["VV"], nodata=None
    )
    frame = Frame("2020-06-15", "radar", path, ("VV", "VH"))
    refused(lambda: read_bands(frame, ("VV", "VH")), "sar.tif", "1 bands, its scene names VV, VH")
