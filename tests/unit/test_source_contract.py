"""The contract that every registered source keeps, from the scene table to the last window."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from tests.fuzz import readers

from unveil.assembly.scene_table import read_scenes
from unveil.bands import BANDS, sort_bands
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.protocols import TABLED
from unveil.sources.base import Size
from unveil.sources.registry import SOURCES

CONFIG = fill_defaults({}, load_schema("config"))
SETTINGS = CONFIG["sources"]
STAC = SETTINGS["stac"] | {"selection": SETTINGS["selection"], "cache": "c"}
LAYOUTS = {
    "local": (readers.write_place, {}),
    "npz": (readers.write_npz, {}),
    "sen12mscr": (readers.write_sen12mscr, {"name": readers.PATCH}),
    "sen12mscrts": (readers.write_sen12mscrts, {"name": readers.TS_PATCH}),
    "allclear": (readers.write_allclear, {"name": "0", "split": "test"}),
    "safe": (readers.write_safe, {}),
}
SPLITS = {"sen12mscr": "all", "sen12mscrts": "all", "allclear": "test"}
FILLED = {"split": "test", "area": "3.0,50.8,3.1,50.9"}
EVERY = pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.kind)
OF_FILES = pytest.mark.parametrize(
    "source",
    [s for s in SOURCES.values() if not (s.searched or s.made)],
    ids=lambda source: source.kind,
)


def row_of(source, path, **columns):
    facts = {"target_date": readers.DATES[0], "protocol": "none", **columns}
    return SceneRow("a", source.kind, str(path), **facts)


@pytest.fixture
def place(source, tmp_path):
    """A row of the source, whose files are written below the test's folder."""
    write, columns = LAYOUTS[source.kind]
    if source.kind == "safe" and not readers.SAFE.is_dir():
        pytest.skip("needs the metadata of a real product")
    write(tmp_path)
    return row_of(source, tmp_path, **columns)


def table(tmp_path, **columns):
    columns = {"scene": "a", "path": "here", "target_date": "2020-06-01", **columns}
    path = tmp_path / "scenes.tsv"
    path.write_text("\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")
    return path


def filled(source):
    return {column: FILLED[column] for column in source.required}


def test_the_scene_table_knows_the_registered_sources_and_no_other():
    assert sorted(load_schema("scenes")["properties"]["source"]["enum"]) == sorted(SOURCES)
    assert all(source.kind == kind for kind, source in SOURCES.items())


@EVERY
def test_a_row_without_a_column_that_it_needs_is_refused_with_an_example(source, tmp_path):
    columns = {"source": source.kind, "protocol": "none"}
    for column in source.required:
        others = {name: value for name, value in filled(source).items() if name != column}
        with pytest.raises(InputError, match=rf"line 2\.{column}.*{source.kind}.*Remedy: \w+"):
            read_scenes(table(tmp_path, **columns, **others))
    (row,) = read_scenes(table(tmp_path, **columns, **filled(source)))
    assert row.source == source.kind


@EVERY
@pytest.mark.parametrize("protocol", TABLED)
def test_auto_finds_a_target_for_the_protocols_that_the_source_names(source, protocol, tmp_path):
    columns = {"source": source.kind, "protocol": protocol, "target_date": "auto"}
    columns |= {"cloud_level": "0.5", "period": "2024-04-01/2024-09-30"}
    path = table(tmp_path, **columns, **filled(source))
    if protocol in source.target_auto:
        assert read_scenes(path)[0].target_date == "auto"
    else:
        with pytest.raises(InputError, match=r"target_date.*'auto' with source") as caught:
            read_scenes(path)
        able = [s.kind for s in SOURCES.values() if s.target_auto]
        assert all(kind in str(caught.value) for kind in able)


@EVERY
def test_a_split_is_for_sources_that_have_splits(source, tmp_path):
    columns = {"source": source.kind, "protocol": "none", **filled(source), "split": "test"}
    if source.splits:
        assert read_scenes(table(tmp_path, **columns))[0].split == "test"
    else:
        with pytest.raises(InputError, match=r"line 2\.split.*Remedy: leave it empty"):
            read_scenes(table(tmp_path, **columns))


@OF_FILES
def test_input_that_is_not_there_is_named_and_has_no_size(source, tmp_path):
    row = row_of(source, tmp_path / "nowhere", **LAYOUTS[source.kind][1])
    for ask in (source.require_input, source.files):
        with pytest.raises(InputError, match=r"nowhere.*path.*folder not found.*Remedy"):
            ask(row)
    with pytest.raises(InputError, match="Remedy"):
        source.open(row, SETTINGS)
    assert source.size(row, SETTINGS).frames >= 1


@OF_FILES
def test_the_files_of_a_scene_are_watched(source, place, tmp_path):
    source.require_input(place)
    files = [Path(path) for path in source.files(place)]
    assert files and all(path.is_file() and path.is_relative_to(tmp_path) for path in files)
    assert source.input_bytes(place, SETTINGS) == sum(path.stat().st_size for path in files)
    before = source.made_from(place, SETTINGS)
    for path in files:
        os.utime(path, ns=(1, 1))
        source.stamps.cache_clear()
        changed = source.made_from(place, SETTINGS)
        assert changed != before, f"{path} may change unseen"
        before = changed


@OF_FILES
def test_the_patches_of_a_split_open_by_their_names(source, place):
    if not source.splits:
        return
    split = {"split": SPLITS[source.kind], "name": ""}
    patches = source.patches(replace(place, **split))
    assert patches
    for name, site in patches:
        series = source.open(replace(place, split=split["split"], name=name), SETTINGS)
        assert series.place == site


@OF_FILES
def test_a_scene_is_as_large_as_was_said_before_it_was_opened(source, place):
    said, series = source.size(place, SETTINGS), source.open(place, SETTINGS)
    assert said.pixels >= series.grid.pixels > 0
    assert said.frames >= 1
    if source.kind in ("local", "npz"):
        assert said.pixels == series.grid.pixels


@OF_FILES
def test_rasters_are_of_one_grid_whatever_the_windows_they_are_read_by(source, place):
    series = source.open(place, SETTINGS)
    assert series.optical and series.place and series.facts["level"] in ("L1C", "L2A")
    kinds = {"uint16": series.optical, "uint8": series.masks, "float32": series.radar}
    if series.reference:
        kinds["uint16"] = {**series.optical, "reference": series.reference}
    height, width = series.grid.shape
    half = width // 2
    for dtype, rasters in kinds.items():
        for frame in rasters.values():
            # Products of whole tiles would take minutes.
            rows = min(height, 64)
            whole = frame.read(Window(0, 0, width, rows))
            assert whole.dtype == dtype and whole.shape == (len(frame.bands), rows, width)
            left = frame.read(Window(0, 0, half, rows))
            right = frame.read(Window(half, 0, width - half, rows))
            np.testing.assert_array_equal(np.concatenate([left, right], axis=2), whole)
    for frame in series.optical.values():
        assert set(frame.bands) <= set(BANDS) and frame.bands == sort_bands(frame.bands)
        assert frame.facts["unveil:source"]
    assert all(frame.bands == ("VV", "VH") for frame in series.radar.values())
    assert all(frame.bands in (("SCL",), ("CLASS",)) for frame in series.masks.values())


def test_a_searched_scene_is_known_by_its_request_and_its_lock(tmp_path):
    source = SOURCES["stac"]
    settings = {"stac": STAC | {"locks": str(tmp_path)}}
    row = row_of(source, "earth-search-sentinel-2-l2a", area=FILLED["area"], n_context=4)
    source.require_input(row)
    assert list(source.files(row)) == [] and source.stamps(row) == ()
    size = source.size(row, settings)
    assert size.frames == 5 and size.pixels > 10_000
    assert source.input_bytes(row, settings) > size.pixels
    assert source.size(replace(row, area="3,50"), settings) == Size(0, 1)
    (tmp_path / "a.json").write_text("{}")
    first = source.made_from(row, settings)
    (tmp_path / "a.json").write_text("{ }")
    assert source.made_from(row, settings) != first
