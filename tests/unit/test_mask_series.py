"""What dates say together: a roof is no cloud, a dark valley no shadow, and haze is not clear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, SNOW
from unveil.excess import excess_of_dn
from unveil.masks.mask_scene import mask_scene
from unveil.masks.options import MaskOptions
from unveil.masks.series import LEAST_LOOKS, history_bands, released, with_brighter
from unveil.raster import Grid
from unveil.scene import Frame, Scene

DATES = 7
FIELD, ROOF, CLOUDY, LAKE = (0.06, 0.3), (0.35, 0.4), (0.5, 0.6), (0.03, 0.02)
"""Blue and near infrared."""


def series(look: tuple[float, float], shape=(4, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Return a place that looks the same on all dates, and masks that call it clear."""
    looks = np.broadcast_to(np.array(look)[None, :, None, None], (DATES, 2, *shape)).copy()
    looks += np.random.default_rng(0).normal(0, 0.004, looks.shape)
    return looks, np.full((DATES, *shape), CLEAR, np.uint8)


def test_a_roof_that_is_cloud_on_most_dates_is_released_on_all():
    looks, classes = series(ROOF)
    classes[:5] = CLOUD
    np.testing.assert_array_equal(released(looks, classes), classes == CLOUD)


def test_a_cloud_over_a_roof_stays_a_cloud():
    looks, classes = series(ROOF)
    classes[:5] = CLOUD
    looks[2] = np.array(CLOUDY)[:, None, None]
    assert not released(looks, classes)[2].any()


def test_clouds_on_most_dates_stay_for_no_two_look_the_same():
    looks, classes = series(FIELD)
    for date in range(5):
        looks[date], classes[date] = 0.3 + 0.1 * date, CLOUD
    assert not released(looks, classes).any()


def test_a_lake_that_is_shadow_on_one_date_is_released_and_a_field_in_shadow_is_not():
    looks, classes = series(LAKE)
    classes[3] = SHADOW
    np.testing.assert_array_equal(released(looks, classes), classes == SHADOW)
    looks, classes = series(FIELD)
    looks[3], classes[3] = np.array((0.04, 0.15))[:, None, None], SHADOW
    assert not released(looks, classes).any()


def test_a_place_of_few_dates_has_no_history():
    looks, classes = series(LAKE)
    classes[0] = SHADOW
    classes[LEAST_LOOKS - 1 :] = NODATA
    assert not released(looks, classes).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_only_what_is_called_cloud_or_shadow_and_has_data_is_released(seed):
    rng = np.random.default_rng(seed)
    looks = rng.uniform(0, 0.1, (DATES, 2, 5, 5))
    looks[rng.random(looks.shape) < 0.1] = np.nan
    classes = rng.choice([CLEAR, CLOUD, SHADOW, SNOW, NODATA], (DATES, 5, 5)).astype(np.uint8)
    found = released(looks, classes)
    assert np.isin(classes[found], (CLOUD, SHADOW)).all()
    assert np.isfinite(looks).all(axis=1)[found].all()


def test_only_clear_pixels_become_cloud_by_their_excess():
    classes = np.array([[CLEAR, CLEAR, SNOW, SHADOW, NODATA, CLEAR]], np.uint8)
    veil = np.array([[0.2, 0.01, 0.2, 0.2, 0.2, np.nan]])
    assert with_brighter(classes, veil).tolist() == [[CLOUD, CLEAR, SNOW, SHADOW, NODATA, CLEAR]]


def test_a_history_needs_near_infrared():
    assert history_bands(("B04", "B02", "B8A")) == ("B02", "B8A")
    assert history_bands(("B04", "B02")) == ()


@pytest.fixture
def place(tmp_path) -> Scene:
    """A field with a roof that delivered masks call cloud; over the target, haze none knows."""
    grid = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 64, 64)
    frames = []
    for number in range(DATES):
        image = np.broadcast_to(np.array(FIELD)[:, None, None] * 1e4, (2, 64, 64)).copy()
        image[:, 8:16, 8:16] = np.array(ROOF)[:, None, None] * 1e4
        classes = np.full((64, 64), CLEAR, np.uint8)
        classes[8:16, 8:16] = CLOUD
        if number == 0:
            image[:, 32:, :] += 900
        date = f"2021-06-{1 + 4 * number:02d}"
        path, mask = tmp_path / f"{date}.tif", tmp_path / f"{date}_mask.tif"
        raster.write_cog(path, image.astype(np.uint16), grid, descriptions=["B02", "B08"], nodata=0)
        raster.write_cog(mask, classes[None], grid, descriptions=["CLASS"], nodata=None)
        role = "context" if number else "target"
        frames.append(Frame(date, role, path, ("B02", "B08"), mask))
    return Scene("s", "none", "p", grid, tuple(frames), {"level": "L2A"})


def test_the_stage_releases_the_roof_hides_the_haze_and_counts_again(place, tmp_path):
    options = MaskOptions(detectors=("source", "series"))
    masked = mask_scene(place, tmp_path, options)
    classes = raster.read(masked.target.mask)[0]
    assert (classes[:28] == CLEAR).all()
    assert (classes[36:] == CLOUD).all()
    assert masked.target.facts["eo:cloud_cover"] == round(100 * (classes == CLOUD).mean(), 2)
    for frame in masked.context:
        assert (raster.read(frame.mask)[0] == CLEAR).all()
        assert frame.facts["eo:cloud_cover"] == 0
    veil = excess_of_dn(raster.read(masked.target.veil)[0])
    np.testing.assert_allclose(veil[8:16, 8:16], 0, atol=1e-6)  # the roof has a ground again


def test_without_it_masks_are_as_the_others_find_them(place, tmp_path):
    masked = mask_scene(place, tmp_path, MaskOptions(detectors=("source",)))
    assert all(frame.facts["eo:cloud_cover"] > 2 for frame in masked.context)
    few = replace(place, frames=place.frames[: LEAST_LOOKS - 1])
    masked = mask_scene(few, tmp_path / "few", MaskOptions(detectors=("source", "series")))
    assert all(frame.facts["eo:cloud_cover"] > 2 for frame in masked.context)
