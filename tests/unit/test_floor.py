"""The floor of a real pair: what two dates differ by far from any cloud."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from unveil import raster
from unveil.assembly.floor import measure_floor
from unveil.bands import CLEAR, CLOUD, NODATA
from unveil.raster import Grid
from unveil.scene import Frame

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 70, 60)
BANDS = ("B02", "B04", "B08")


def floor_of(folder, target, truth, classes):
    frames = []
    for name, data, bands in (
        ("x", target, BANDS),
        ("y", truth, BANDS),
        ("c", classes[None], ("CLASS",)),
    ):
        path = folder / f"{name}.tif"
        nodata = 0 if name != "c" else None
        raster.write_cog(path, data, GRID, descriptions=bands, nodata=nodata)
        frames.append(Frame("2020-01-01", name, path, bands))
    return measure_floor(*frames, GRID)


@pytest.fixture
def classes():
    """Cloud in one corner, an unknown truth in another."""
    made = np.full(GRID.shape, CLEAR, np.uint8)
    made[:8, :9], made[60:, 50:] = CLOUD, NODATA
    return made


def test_the_floor_is_the_difference_of_the_dates_far_from_what_is_hidden_or_unknown(
    tmp_path, classes
):
    rng = np.random.default_rng(0)
    target = rng.integers(500, 3000, (3, *GRID.shape)).astype(np.uint16)
    truth = (0.7 * target + rng.normal(300, 40, target.shape)).astype(np.uint16)
    target[:, classes == CLOUD] = 9000
    every = np.argwhere(np.ones(GRID.shape, bool))
    apart = cdist(every, np.argwhere(classes != CLEAR)).min(axis=1).reshape(GRID.shape)
    far = apart > 20
    found = floor_of(tmp_path, target, truth, classes)
    x, y = target[:, far] / 1e4, truth[:, far] / 1e4
    lines = [np.polyval(np.polyfit(a, b, 1), a) for a, b in zip(x, y, strict=True)]
    assert found["floor_pixels"] == far.sum()
    assert found["floor"] == pytest.approx(np.abs(x - y).mean(), abs=1e-5)
    assert found["floor_after_line"] == pytest.approx(np.abs(y - lines).mean(), abs=1e-5)
    assert found["floor_after_line"] < 0.005 < found["floor"]


def test_a_haze_that_is_a_line_per_band_leaves_no_floor_after_it(tmp_path, classes):
    target = np.random.default_rng(1).integers(50, 200, (3, *GRID.shape)).astype(np.uint16) * 10
    truth = target // 2 + 400
    found = floor_of(tmp_path, target, truth.astype(np.uint16), classes)
    assert found["floor_after_line"] == pytest.approx(0, abs=1e-5)


def test_without_certainly_clear_pixels_there_is_no_floor(tmp_path):
    data = np.full((3, *GRID.shape), 500, np.uint16)
    classes = np.full(GRID.shape, CLEAR, np.uint8)
    classes[::15, ::15] = CLOUD
    assert floor_of(tmp_path, data, data, classes) == {"floor_pixels": 0}
