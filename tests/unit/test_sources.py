"""Sources: local folders, the original npz layout, SEN12MS-CR."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from unveil import raster
from unveil.bands import L1C13
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.sources.registry import SOURCES, open_source

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 24, 30)
SETTINGS = fill_defaults({}, load_schema("config"))["sources"]
WHOLE = Window(0, 0, 30, 24)


def write_frame(path, *, bands=("B02", "B04"), dtype="uint16", grid=GRID, value=1200):
    data = np.full((len(bands), *grid.shape), value, dtype)
    data[:, 0, 0] = 0
    raster.write_cog(path, data, grid, descriptions=bands, nodata=0)


def row(path, **columns):
    return SceneRow(
        **{
            "scene": "s",
            "source": "local",
            "path": str(path),
            "target_date": "2020-06-01",
            "protocol": "none",
            **columns,
        }
    )


def refused(source_row, *words):
    with pytest.raises(InputError) as caught:
        series = open_source(source_row, SETTINGS)
        for frame in series.optical.values():
            frame.read(WHOLE)
    for word in ("Remedy", *words):
        assert word in str(caught.value), str(caught.value)


def test_local_frames_come_in_esa_order_whatever_their_order_in_the_file(tmp_path):
    path = tmp_path / "frames" / "2020-06-01.tif"
    data = np.stack([np.full(GRID.shape, v, np.uint16) for v in (800, 400, 200)])
    raster.write_cog(path, data, GRID, descriptions=["B8A", "B4", "B02"], nodata=0)
    series = open_source(row(tmp_path), SETTINGS)
    frame = series.optical["2020-06-01"]
    assert frame.bands == ("B02", "B04", "B8A")
    assert frame.read(WHOLE)[:, 5, 5].tolist() == [200, 400, 800]


def test_float_reflectance_and_dn_give_the_same_numbers(tmp_path):
    write_frame(tmp_path / "frames" / "2020-06-01.tif")
    write_frame(tmp_path / "frames" / "2020-06-11.tif", dtype="float32", value=0.12)
    series = open_source(row(tmp_path), SETTINGS)
    first, second = (series.optical[d].read(WHOLE) for d in series.optical)
    np.testing.assert_array_equal(first, second)
    assert first[0, 0, 0] == 0


def test_the_baseline_offset_is_applied_once_and_nodata_stays(tmp_path):
    write_frame(tmp_path / "frames" / "2022-06-01.tif", value=1700)
    (tmp_path / "scene.yaml").write_text("offset: -1000\n")
    frame = open_source(row(tmp_path), SETTINGS).optical["2022-06-01"]
    assert frame.read(WHOLE)[0, 3, 3] == 700
    assert frame.read(WHOLE)[0, 0, 0] == 0
    assert frame.facts["unveil:offset_applied"] == -1000


def test_dn_stored_as_float_are_refused(tmp_path):
    write_frame(tmp_path / "frames" / "2020-06-01.tif", dtype="float32", value=1200)
    refused(row(tmp_path), "2020-06-01.tif", "reflectance", "unit")


def test_a_missing_folder_names_the_scene(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*scene s"):
        SOURCES["local"].files(row(tmp_path / "nowhere"))


def test_a_folder_without_frames_is_refused(tmp_path):
    refused(row(tmp_path), "frames", "no frames")


def test_a_truncated_geotiff_is_refused(tmp_path):
    path = tmp_path / "frames" / "2020-06-01.tif"
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 9000, (2, *GRID.shape), dtype=np.uint16)
    raster.write_cog(path, noise, GRID, descriptions=["B02", "B04"], nodata=0)
    path.write_bytes(path.read_bytes()[:-600])
    refused(row(tmp_path), "2020-06-01.tif", "truncated")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "frames" / "2020-06-01.tif"
    path.parent.mkdir()
    path.write_bytes(b"")
    refused(row(tmp_path), "2020-06-01.tif")


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        (Grid("EPSG:32634", GRID.transform, 24, 30), "EPSG:32634"),
        (Grid("EPSG:32633", GRID.transform, 25, 30), "shape"),
        (Grid("EPSG:32633", (10.0, 0.0, 500005.0, 0.0, -10.0, 5000000.0), 24, 30), "transform"),
    ],
)
def test_a_frame_on_another_grid_is_left_out_with_its_reason(tmp_path, grid, word):
    write_frame(tmp_path / "frames" / "2020-06-01.tif")
    write_frame(tmp_path / "frames" / "2020-06-11.tif", grid=grid)
    series = open_source(row(tmp_path), SETTINGS)
    assert list(series.optical) == ["2020-06-01"]
    reason = series.left_out["2020-06-11"].reason
    assert "2020-06-11.tif" in reason and word in reason


def test_the_grid_of_a_place_is_that_of_most_frames(tmp_path):
    odd = Grid("EPSG:32633", GRID.transform, 25, 30)
    for date in ("2020-06-01", "2020-06-11", "2020-06-21"):
        write_frame(tmp_path / f"frames/{date}.tif", grid=odd if date == "2020-06-01" else GRID)
    (tmp_path / "frames/2020-05-01.tif").write_bytes(b"II*\0 and no more")
    series = open_source(row(tmp_path), SETTINGS)
    assert series.grid == GRID
    assert set(series.left_out) == {"2020-05-01", "2020-06-01"}


def test_a_name_that_is_no_date_is_refused(tmp_path):
    write_frame(tmp_path / "frames" / "june.tif")
    refused(row(tmp_path), "june", "date")


def test_two_files_of_one_date_are_refused(tmp_path):
    write_frame(tmp_path / "frames" / "2020-06-01.tif")
    write_frame(tmp_path / "frames" / "2020-06-01.tiff")
    refused(row(tmp_path), "2020-06-01", "twice")


def test_dates_may_stand_in_any_order(tmp_path):
    for date in ("2021-01-01", "2019-05-05", "2020-06-01"):
        write_frame(tmp_path / "frames" / f"{date}.tif")
    series = open_source(row(tmp_path), SETTINGS)
    assert list(series.optical) == ["2019-05-05", "2020-06-01", "2021-01-01"]


def test_a_band_without_an_esa_name_is_refused(tmp_path):
    path = tmp_path / "frames" / "2020-06-01.tif"
    data = np.ones((2, *GRID.shape), np.uint16)
    raster.write_cog(path, data, GRID, descriptions=["red", "B03"], nodata=0)
    refused(row(tmp_path), "red", "ESA name")


def test_an_unknown_key_of_scene_yaml_is_refused(tmp_path):
    write_frame(tmp_path / "frames" / "2020-06-01.tif")
    (tmp_path / "scene.yaml").write_text("ofset: 0\n")
    refused(row(tmp_path), "scene.yaml", "ofset", "'offset'")


def write_radar(path, vv, vh):
    data = np.stack([np.full(GRID.shape, v, np.float32) for v in (vv, vh)])
    raster.write_cog(path, data, GRID, descriptions=["VV", "VH"], nodata=np.nan)


@pytest.mark.parametrize(("vv", "vh", "word"), [(-18, -9, "swapped"), (0.2, 0.04, "dB")])
def test_radar_that_cannot_be_right_is_refused(tmp_path, vv, vh, word):
    write_frame(tmp_path / "frames" / "2020-06-01.tif")
    write_radar(tmp_path / "sar" / "2020-06-02.tif", vv, vh)
    refused(row(tmp_path), "2020-06-02.tif", word)


def save_npz(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data.astype(np.float16))


def test_npz_reads_the_original_benchmarks_layout(tmp_path):
    save_npz(tmp_path / "cloudy" / "s.npz", np.full((13, 40, 50), 2000.0))
    save_npz(tmp_path / "s1" / "s.npz", np.stack([np.full((40, 50), v) for v in (-9.0, -16.0)]))
    series = open_source(row(tmp_path, source="npz"), SETTINGS)
    assert series.grid.shape == (40, 50)
    assert series.optical["2020-06-01"].bands == L1C13
    assert series.radar["2020-06-01"].read(Window(0, 0, 2, 2))[:, 0, 0].tolist() == [-9, -16]


def test_npz_radar_in_linear_power_becomes_db(tmp_path):
    save_npz(tmp_path / "cloudy" / "s.npz", np.full((13, 8, 8), 2000.0))
    save_npz(tmp_path / "s1" / "s.npz", np.stack([np.full((8, 8), v) for v in (0.1, 0.01)]))
    series = open_source(row(tmp_path, source="npz"), {**SETTINGS, "sar_unit": "linear"})
    values = series.radar["2020-06-01"].read(Window(0, 0, 1, 1))[:, 0, 0]
    np.testing.assert_allclose(values, [-10, -20], atol=0.01)


def test_the_original_radar_sample_is_refused_in_the_order_that_its_notebook_assumes(
    tmp_path, shared
):
    sample = np.load(shared / "data/thetaspace/s1_example.npz")["arr_0"]
    save_npz(tmp_path / "cloudy" / "s.npz", np.full((13, *sample.shape[1:]), 2000.0))
    save_npz(tmp_path / "s1" / "s.npz", sample)
    refused(row(tmp_path, source="npz"), "s.npz", "sar_order")
    swapped = {**SETTINGS, "sar_order": ["VH", "VV"]}
    series = open_source(row(tmp_path, source="npz"), swapped)
    vv, vh = series.radar["2020-06-01"].read(Window(0, 0, 512, 512))
    assert vv.mean() == pytest.approx(-13.82, abs=0.01)
    assert vh.mean() == pytest.approx(-16.75, abs=0.01)


@pytest.mark.parametrize(
    ("write", "word"),
    [
        (lambda p: p.write_bytes(b"PK\x03\x04 not a zip"), "npz"),
        (lambda p: np.savez(p, np.zeros((12, 8, 8))), "(12, 8, 8)"),
        (lambda p: np.savez(p, data=np.zeros((13, 8, 8))), "arr_0"),
        (lambda p: np.savez(p, np.array([object()], dtype=object)), "npz"),
        (lambda p: np.savez(p, np.full((13, 8, 8), 90_000.0)), "reflectance"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, write, word):
    path = tmp_path / "cloudy" / "s.npz"
    path.parent.mkdir()
    write(path)
    refused(row(tmp_path, source="npz"), "s.npz", word)


def test_nan_and_zero_patches_are_nodata(tmp_path):
    data = np.full((13, 8, 8), 2000.0)
    data[:, :2] = np.nan
    data[:, 2:4] = 0
    save_npz(tmp_path / "cloudy" / "s.npz", data)
    frame = open_source(row(tmp_path, source="npz"), SETTINGS).optical["2020-06-01"]
    assert (frame.read(Window(0, 0, 8, 8))[:, :4] == 0).all()
    assert (frame.read(Window(0, 0, 8, 8))[:, 4:] == 2000).all()


def sen12(shared, scene, **columns):
    return row(shared / "data/sen12mscr", source="sen12mscr", scene=scene, **columns)


def test_sen12mscr_reads_a_complete_triplet(shared):
    series = open_source(sen12(shared, "ROIs1970_fall_139_p839"), SETTINGS)
    assert series.grid.shape == (256, 256)
    assert series.reference is not None
    with rasterio.open(
        shared / "data/sen12mscr/ROIs1970_fall_s2_cloudy/s2_cloudy_139"
        "/ROIs1970_fall_s2_cloudy_139_p839.tif"
    ) as dataset:
        expected = dataset.read(4)
    frame = series.optical["2020-06-01"]
    position = frame.bands.index("B04")
    np.testing.assert_array_equal(frame.read(Window(0, 0, 256, 256))[position], expected)


def test_sen12mscr_without_a_reference_is_a_fact_not_an_error(shared):
    series = open_source(sen12(shared, "ROIs1868_summer_19_p30"), SETTINGS)
    assert series.reference is None
    assert list(series.radar) == ["2020-06-01"]


def test_a_sen12mscr_name_of_another_form_is_refused(shared):
    refused(sen12(shared, "fall_139"), "fall_139", "ROIs1970_fall_139_p839")


def test_a_changed_input_file_changes_its_stamp(tmp_path):
    frame = tmp_path / "place/frames/2020-06-01.tif"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"12345")
    (frame.parent / ".hidden").write_bytes(b"1")
    (frame.parent / "gone.tif").symlink_to(tmp_path / "nowhere")
    first = SOURCES["local"].stamps(row(tmp_path / "place"))
    assert [(path, size) for path, size, _ in first] == [(str(frame), 5)]
    os.utime(frame, ns=(1, 1))
    SOURCES["local"].stamps.cache_clear()
    assert SOURCES["local"].stamps(row(tmp_path / "place")) == ((str(frame), 5, 1),)
