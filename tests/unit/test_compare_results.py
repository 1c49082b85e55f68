"""The comparison of two result folders names what differs, and nothing else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import rasterio
from benchmarks.compare_results import main

from unveil import raster
from unveil.raster import Grid

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 40, 30)
METRICS = """scene,model,protocol,cloud_cover,region,band,metric,value,unit,n_pixels
001,mosaic,simulate,0.3,all,B02,MAE,0.01,reflectance,1200
001,mosaic,simulate,0.3,all,B03,MAE,0.02,reflectance,1200
"""
RANKING = """protocol,level,region,metric,model,mean,low,high
simulate,all,all,MAE,mosaic,0.015,,
"""


@pytest.fixture
def results(tmp_path):
    """Return two equal folders of results."""
    old = tmp_path / "old"
    pixels = np.arange(2 * 40 * 30, dtype=np.uint16).reshape(2, 40, 30) + 1
    std = np.full((2, 40, 30), np.nan, np.float32)
    for name, data in (("001", pixels), ("001_std", std)):
        path = old / f"predictions/mosaic/{name}.tif"
        raster.write_cog(path, data, GRID, descriptions=["B02", "B03"], nodata=0)
    frame = old / "scenes/001/frames/2020-06-11.tif"
    raster.write_cog(frame, pixels, GRID, descriptions=["B02", "B03"], nodata=0)
    (old / "metrics.csv").write_text(METRICS)
    (old / "skipped.csv").write_text("scene,model,stage,reason\n001,dsen2cr,inference,no radar\n")
    (old / "statistics").mkdir()
    (old / "statistics/ranking.csv").write_text(RANKING)
    new = tmp_path / "new"
    shutil.copytree(old, new)
    return old, new


def compared(results, capsys) -> tuple[int, str]:
    """Return the exit code and what is printed."""
    code = main([str(folder) for folder in results])
    return code, capsys.readouterr().out


def rewrite(path, *, band_names=("B02", "B03"), compress="zstd", change=None):
    """Write a raster anew with something else about it."""
    data = raster.read(path)
    if change:
        change(data)
    with raster.cog_writer(
        path, GRID, dtype=data.dtype.name, descriptions=band_names, nodata=0, compress=compress
    ) as writer:
        writer.write(data)


def test_equal_results_are_equal_whatever_the_bytes_of_their_files_and_the_order_of_rows(
    results, capsys
):
    prediction = results[1] / "predictions/mosaic/001.tif"
    before = prediction.read_bytes()
    rewrite(prediction, compress="deflate")
    assert prediction.read_bytes() != before
    header, *rows = METRICS.splitlines()
    (results[1] / "metrics.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    code, output = compared(results, capsys)
    assert (code, output.count("equal")) == (0, 5)
    assert "DIFFERS" not in output


@pytest.mark.parametrize("name", ["predictions/mosaic/001.tif", "scenes/001/frames/2020-06-11.tif"])
def test_one_changed_pixel_is_named(results, capsys, name):
    def brighten(data):
        data[1, 7, 12] += 5

    rewrite(results[1] / name, change=brighten)
    code, output = compared(results, capsys)
    assert code == 1
    assert f"{name}: changed pixels 1, max |difference| 5; first B03, row 7, column 12" in output
    assert output.count("DIFFERS") == 1


def test_a_value_where_there_was_none_differs_without_bound(results, capsys):
    def fill(data):
        data[0, 0, 0] = 0.25

    rewrite(results[1] / "predictions/mosaic/001_std.tif", change=fill)
    code, output = compared(results, capsys)
    assert code == 1
    assert "001_std.tif: changed pixels 1, max |difference| inf" in output


def test_bands_in_another_order_and_another_place_on_earth_differ(results, capsys):
    rewrite(results[1] / "predictions/mosaic/001.tif", band_names=("B03", "B02"))
    std = results[1] / "predictions/mosaic/001_std.tif"
    with rasterio.open(std, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.crs = "EPSG:32634"
    code, output = compared(results, capsys)
    assert code == 1
    assert "001.tif: descriptions ('B03', 'B02') instead of ('B02', 'B03')" in output
    assert "001_std.tif: crs CRS" in output


def test_a_score_that_differs_in_its_last_digit_is_named(results, capsys):
    (results[1] / "metrics.csv").write_text(METRICS.replace("0.02,", "0.020000000000000004,"))
    code, output = compared(results, capsys)
    assert code == 1
    row = "001, mosaic, simulate, all, B03, MAE"
    assert f"{row}: value '0.020000000000000004' instead of '0.02'" in output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("predictions/mosaic/001.tif", "mosaic/001.tif: only in"),
        ("metrics.csv", "there is no"),
        ("skipped.csv", "there is no"),
    ],
)
def test_what_one_folder_lacks_differs(results, capsys, name, words):
    (results[1] / name).unlink()
    code, output = compared(results, capsys)
    assert code == 1
    assert words in output


def test_pooled_numbers_are_listed_with_their_largest_change_and_fail_nothing(results, capsys):
    (results[1] / "statistics/ranking.csv").write_text(RANKING.replace("0.015", "0.016"))
    code, output = compared(results, capsys)
    assert code == 0
    assert (
        "statistics/ranking.csv (pooled): 1 compared, DIFFERS 1 times, largest change 0.001\n"
        "  simulate, all, all, MAE, mosaic: mean '0.016' instead of '0.015'"
    ) in output


def test_a_folder_without_results_is_refused(results, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(results[0]), str(tmp_path / "nowhere")])
    assert "nowhere holds no results" in capsys.readouterr().err
