"""Folders whose files do not say what is in them: ``scene.yaml`` does."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.test_sources import GRID, SETTINGS, WHOLE, refused, row

from unveil import raster
from unveil.sources.registry import open_source

DATE = "2020-06-01"


def write(folder, values, *, names=None, dtype="uint16", **profile):
    """Write one frame, a constant for each band, without ESA names."""
    path = folder / "frames" / f"{DATE}.tif"
    path.parent.mkdir(exist_ok=True)
    shape = {"count": len(values), "height": GRID.height, "width": GRID.width}
    with rasterio.open(
        path, "w", "GTiff", dtype=dtype, crs=GRID.crs, transform=GRID.affine, **shape, **profile
    ) as dataset:
        for number, value in enumerate(values, 1):
            dataset.write(np.full(GRID.shape, value, dtype), number)
        for number, name in enumerate(names or (), 1):
            dataset.set_band_description(number, name)
    return path


def state(folder, text):
    (folder / "scene.yaml").write_text(text)


def frame_of(folder):
    return open_source(row(folder), SETTINGS).optical[DATE]


def test_bands_are_named_in_the_order_of_the_file_and_some_left_out(tmp_path):
    write(tmp_path, [300, 9, 400, 200])
    state(tmp_path, "bands: [B04, null, B8A, B02]\n")
    frame = frame_of(tmp_path)
    assert frame.bands == ("B02", "B04", "B8A")
    assert frame.read(WHOLE)[:, 5, 5].tolist() == [200, 300, 400]


def test_bands_are_named_by_the_descriptions_of_the_file(tmp_path):
    write(tmp_path, [300, 9, 200], names=["red", "ndvi", "blue"])
    state(tmp_path, "bands: {blue: B02, red: B04}\n")
    frame = frame_of(tmp_path)
    assert frame.bands == ("B02", "B04")
    assert frame.read(WHOLE)[:, 5, 5].tolist() == [200, 300]


def test_percent_with_a_number_for_no_data_becomes_reflectance(tmp_path):
    path = write(tmp_path, [12.5, 30.0], dtype="float32")
    with rasterio.open(path, "r+") as dataset:
        image = dataset.read(1)
        image[0, :3] = -1
        dataset.write(image, 1)
    state(tmp_path, "bands: [B02, B04]\nscale: 0.01\nnodata: -1\n")
    dn = frame_of(tmp_path).read(WHOLE)
    assert dn[:, 5, 5].tolist() == [1250, 3000]
    assert dn[0, 0, :4].tolist() == [0, 0, 0, 1250]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["B02", "B03", "B04", "B08", "B8A", "B11"]))
def test_any_order_gives_the_same_scene(tmp_path, order):
    values = {name: 100 * int(name.strip("B").replace("8A", "18")) for name in order}
    write(tmp_path, [values[name] for name in order])
    state(tmp_path, f"bands: [{', '.join(order)}]\n")
    frame = frame_of(tmp_path)
    assert frame.bands == ("B02", "B03", "B04", "B08", "B8A", "B11")
    assert frame.read(WHOLE)[:, 5, 5].tolist() == [values[name] for name in frame.bands]


def test_files_without_names_are_told_how_to_be_named_and_the_remedy_helps(tmp_path):
    write(tmp_path, [200, 300, 400, 500])
    refused(row(tmp_path), "band 1 is described None", "bands: [B02, B03, B04, B08]")
    state(tmp_path, "bands: [B02, B03, B04, B08]\n")
    assert frame_of(tmp_path).bands == ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bands: [B02, green]", ("'green' is no band", "scene.yaml")),
        ("bands: [B02]", ("has 2 bands", "names 1")),
        ("bands: [B02, B02]", ("name one twice",)),
        ("bands: {blue: B02}", ("no band is described 'blue'",)),
        ("bands: [B02, B04]\nscale: 0", ("scale",)),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, words):
    write(tmp_path, [200, 300])
    state(tmp_path, text + "\n")
    refused(row(tmp_path), *words)


def test_what_the_file_says_is_not_overruled(tmp_path):
    path = write(tmp_path, [200, 300], nodata=5)
    state(tmp_path, "bands: [B02, B04]\nnodata: 7\n")
    refused(row(tmp_path), "own nodata is 5", "says 7")
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.001, 0.001)
    state(tmp_path, "bands: [B02, B04]\nscale: 0.0001\n")
    refused(row(tmp_path), "own scale is 0.001", "says 0.0001")
    state(tmp_path, "bands: [B02, B04]\nscale: 0.001\n")
    assert frame_of(tmp_path).read(WHOLE)[:, 5, 5].tolist() == [2000, 3000]


def test_the_reference_is_read_alike(tmp_path):
    path = write(tmp_path, [2.0, 3.0], dtype="float32")
    (tmp_path / "reference.tif").write_bytes(path.read_bytes())
    state(tmp_path, "bands: [B02, B04]\nscale: 0.01\n")
    series = open_source(row(tmp_path, protocol="paired", reference_date="2020-06-03"), SETTINGS)
    assert series.reference.bands == ("B02", "B04")
    assert series.reference.read(WHOLE)[:, 5, 5].tolist() == [200, 300]
    assert raster.grid_of(rasterio.open(path)) == series.grid
