"""VPint2 on images whose solution is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.bands import CLEAR, CLOUD
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.models.vpint2 import Propagation, grow_missing, neighbour_weights, priorities, propagate
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene

EXACT = Propagation(tolerance=0, max_iterations=2000)


def hole(shape, rows, columns):
    missing = np.zeros(shape, bool)
    missing[rows, columns] = True
    return missing


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=15)
def test_a_target_proportional_to_its_reference_is_recovered(seed, factor, identity):
    reference = np.random.default_rng(seed).uniform(300, 4000, (9, 11))
    missing = hole(reference.shape, slice(2, 6), slice(3, 8))
    settings_ = Propagation(identity=identity, tolerance=0, max_iterations=2000)
    values, _ = propagate(factor * reference, reference, missing, settings_)
    np.testing.assert_allclose(values, factor * reference, rtol=1e-6)


def test_with_a_flat_reference_the_hole_is_harmonic():
    rows, columns = np.mgrid[:9, :9].astype(float)
    plane = 1000 + 30 * rows - 50 * columns
    values, _ = propagate(plane, np.ones((9, 9)), hole((9, 9), slice(2, 7), slice(2, 7)), EXACT)
    np.testing.assert_allclose(values, plane, rtol=1e-9)


def test_one_missing_pixel_is_the_weighted_mean_of_its_neighbours():
    reference = np.array([[9, 800.0, 9], [500, 1000, 1000], [9, 2000, 9]])
    target = np.array([[0, 900.0, 0], [650, -1, 1200], [0, 2100, 0]])
    weights = np.array([1000 / 800, 1.0, 1000 / 2000, 1000 / 500])  # up, right, down, left
    carried = weights * [900, 1200, 2100, 650]
    share = np.array([1 / (2 * 1.25), 1.0, 0.5, 1 / (2 * 2)])
    priority = np.where(weights == 1, 2, share**2 / (share + 0.001))
    missing = hole((3, 3), 1, 1)
    plain, _ = propagate(target, reference, missing, EXACT)
    weighted, _ = propagate(target, reference, missing, Propagation(identity=2))
    assert plain[1, 1] == pytest.approx(carried.mean())
    assert weighted[1, 1] == pytest.approx((priority * carried).sum() / priority.sum())


@pytest.mark.parametrize(
    ("settings_", "row", "count"),
    [
        (Propagation(), [4769.112, 4168.845, 1920.531, 3336.169, 503.057, 4238.270], 62),
        (
            Propagation(identity=1, resistance=0.02, resistance_above=2500),
            [4101.346, 3627.624, 1711.353, 2916.593, 453.228, 3949.854],
            60,
        ),
        (
            Propagation(tolerance=0, max_iterations=10),
            [5085.966, 4018.803, 2346.988, 3167.421, 622.657, 4140.797],
            10,
        ),
    ],
    ids=["default", "identity_resistance", "iter10"],
)
def test_a_run_keeps_the_values_it_had_when_it_matched_the_published_ones(settings_, row, count):
    """Recorded with the golden vectors of F passing; the scene by seed."""
    generator = np.random.default_rng(4)
    reference = generator.uniform(300, 4000, (9, 11))
    target = reference * generator.uniform(0.7, 1.4, (9, 11))
    missing = hole(reference.shape, slice(2, 7), slice(3, 9))
    values, found = propagate(target, reference, missing, settings_)
    np.testing.assert_allclose(values[4, 3:9], row, rtol=1e-6)
    assert found == count


def test_outside_the_image_there_is_no_neighbour():
    weights = neighbour_weights(np.full((3, 4), 7.0))
    counts = (priorities(weights, 1.0) > 0).sum(axis=0)
    np.testing.assert_array_equal(counts, [[2, 3, 3, 2], [3, 4, 4, 3], [2, 3, 3, 2]])


def test_resistance_pulls_bright_values_down_and_leaves_dark_ones():
    target = np.full((5, 5), 4000.0)
    missing = hole((5, 5), 2, 2)
    firm = Propagation(resistance=0.05, resistance_above=3000)
    assert propagate(target, target, missing, firm)[0][2, 2] < 4000
    dark = Propagation(resistance=0.05, resistance_above=5000)
    assert propagate(target, target, missing, dark)[0][2, 2] == pytest.approx(4000)


def test_what_no_known_pixel_reaches_has_no_answer():
    reference = np.ones((5, 7))
    reference[:, 3] = np.nan
    missing = hole((5, 7), slice(None), slice(3, None))
    values, _ = propagate(np.full((5, 7), 5.0), reference, missing, EXACT)
    np.testing.assert_array_equal(np.isnan(values), missing)


def test_a_pass_grows_the_mask_by_a_window_that_reaches_back_one_further():
    grown = grow_missing(hole((9, 9), 4, 4), reach=2, passes=1)
    np.testing.assert_array_equal(grown, hole((9, 9), slice(2, 6), slice(2, 6)))


def window_of(target, context, missing, clear) -> Inputs:
    size = missing.shape
    return Inputs(
        bands=("B02",),
        target=target[None].astype(np.float32),
        target_class=np.where(missing, CLOUD, CLEAR).astype(np.uint8),
        target_probability=np.full(size, np.nan, np.float32),
        context=context[:, None].astype(np.float32),
        context_class=np.where(clear, CLEAR, CLOUD).astype(np.uint8),
        days=np.array([-5.0, 20.0], np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


def test_the_model_takes_the_nearest_clear_look_as_reference():
    random = np.random.default_rng(5)
    looks = random.uniform(0.05, 0.4, (2, 8, 8))
    missing = hole((8, 8), slice(2, 5), slice(2, 5))
    clear = np.ones((2, 8, 8), bool)
    clear[0] = False
    inputs = window_of(np.where(missing, 0.95, 1.3 * looks[1]), looks, missing, clear)
    model = create(ModelSpec("v", "vpint2", options={"tolerance": 1e-12}))
    found = model.predict(inputs).reflectance[0]
    np.testing.assert_allclose(found, 1.3 * looks[1], rtol=1e-5)


def test_without_a_clear_reference_or_clear_target_there_is_no_answer():
    looks = np.full((2, 6, 6), 0.2)
    missing = hole((6, 6), slice(2, 4), slice(2, 4))
    clear = np.zeros((2, 6, 6), bool)
    model = create(ModelSpec("v", "vpint2"))
    found = model.predict(window_of(looks[0], looks, missing, clear)).reflectance[0]
    np.testing.assert_array_equal(np.isnan(found), missing)
    everything = np.ones((6, 6), bool)
    found = model.predict(window_of(looks[0], looks, everything, ~clear)).reflectance
    assert np.isnan(found).all()


def test_a_scene_too_large_to_solve_at_once_is_skipped_with_the_reason(tmp_path):
    grid = Grid("EPSG:32631", (10.0, 0, 0, 0, -10.0, 0), 3000, 2000)
    frames = [
        Frame(date, role, tmp_path / f"{date}.tif", ("B02",))
        for date, role in (("2020-06-15", "target"), ("2020-06-10", "context"))
    ]
    scene = Scene("s", "none", "p", grid, tuple(frames))
    assert create(ModelSpec("v", "vpint2")).skip(scene) is None
    limited = create(ModelSpec("v", "vpint2", options={"max_megapixels": 5.0}))
    assert "6.0 Mpx exceed max_megapixels 5" in limited.skip(scene)
