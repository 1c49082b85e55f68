"""The veil: clear pixels of a transplant carry the donor's haze, and nothing of the truth leaks."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil import raster
from unveil.assembly.assemble import assemble
from unveil.assembly.planning import expand_scenes
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.assembly.simulated_clouds import CloudVeil, simulate_clouds, with_haze
from unveil.assembly.veil import (
    MEASURED,
    NO_GROUND,
    OFF,
    add_excess,
    donor_context,
)
from unveil.bands import CLEAR
from unveil.composites import geometric_median
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.distance import distance_from
from unveil.errors import InputError
from unveil.excess import SIGMA_PX, ground_of, smooth_excess
from unveil.masks.mask_scene import judge_frame, mask_scene
from unveil.masks.options import MaskOptions
from unveil.models.base import ModelSpec
from unveil.models.chronos import adaptation
from unveil.models.chronos.model import CALIBRATION, Chronos
from unveil.models.chronos.network import build_network, network_arrays
from unveil.raster import Grid
from unveil.scene import is_occluded, read_inputs
from unveil.sources.registry import open_source
from unveil.sources.selection import Limits
from unveil.weights.arrays import write_arrays

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 40, 40)
SETTINGS = ProtocolSettings(seed=7)
SOURCES = fill_defaults({}, load_schema("config"))["sources"]
LIMITS = Limits(**SOURCES["selection"])
BANDS = ("B02", "B04", "B08")
TRUTH, DONOR = "2020-06-11", "2020-06-21"
DATES = ["2020-05-22", "2020-06-01", TRUTH, DONOR, "2020-07-01", "2020-07-11"]
CLOUD_AT = (slice(10, 25), slice(10, 30))
VEIL = 137


def ground(seed=0):
    return np.random.default_rng(seed).integers(300, 3000, (3, *GRID.shape)).astype(np.uint16)


def write(folder, date, data, scl):
    frame, mask = (folder / part / f"{date}.tif" for part in ("frames", "masks"))
    raster.write_cog(frame, data, GRID, descriptions=BANDS, nodata=0)
    raster.write_cog(mask, scl[None], GRID, descriptions=["SCL"], nodata=None)


@pytest.fixture
def place(tmp_path):
    """One ground on all dates; the donor has a cloud, and a constant veil all over."""
    for date in DATES:
        scl, data = np.full(GRID.shape, 4, np.uint8), ground()
        if date == DONOR:
            data += VEIL
            data[:, *CLOUD_AT], scl[CLOUD_AT] = 7000, 9
        write(tmp_path / "place", date, data, scl)
    return tmp_path / "place"


def row_of(place, **columns):
    values = {
        "scene": "s",
        "source": "local",
        "path": str(place),
        "target_date": TRUTH,
        "protocol": "transplant",
        "cloud_date": DONOR,
        **columns,
    }
    return SceneRow(**values)


def made(row, folder):
    return assemble(row, open_source(row, SOURCES), folder / row.scene, SETTINGS, judge=judge_frame)


def pixels(scene, role):
    return raster.read(scene.with_role(role)[0].path)


def inputs_of(scene):
    """All rasters that a model may see, with the masks that are delivered with them."""
    seen = scene.without_truth().frames
    images = {(f.role, f.date): raster.read(f.path) for f in seen}
    return images | {("mask", f.date): raster.read(f.mask) for f in seen if f.mask}


def vary(place):
    """Give the other dates pixels of their own, as no two real dates are the same."""
    rng = np.random.default_rng(4)
    for date in DATES:
        if date not in (TRUTH, DONOR):
            data = ground() + rng.integers(0, 50, ground().shape).astype(np.uint16)
            write(place, date, data, np.full(GRID.shape, 4, np.uint8))


def spoil(place, where=slice(None)):
    """Replace pixels of the truth by noise and return where that is."""
    data = ground()
    noise = np.random.default_rng(9).integers(300, 3000, data.shape).astype(np.uint16)
    changed = np.zeros(GRID.shape, bool)
    changed[where] = True
    write(place, TRUTH, np.where(changed, noise, data), np.full(GRID.shape, 4, np.uint8))
    return changed


def test_a_constant_veil_of_the_donor_lies_on_every_clear_pixel(place, tmp_path):
    scene = made(row_of(place), tmp_path)
    hidden = is_occluded(pixels(scene, "occlusion")[0])
    target = pixels(scene, "target")
    np.testing.assert_array_equal(target[:, ~hidden], ground()[:, ~hidden] + VEIL)
    np.testing.assert_array_equal(pixels(scene, "reference"), ground())
    assert scene.facts["veil"] == MEASURED
    assert scene.facts["veil_dates"] == 4 and scene.facts["veil_known"] == 1


def test_without_a_veil_clear_pixels_are_those_of_the_truth(place, tmp_path):
    scene = made(row_of(place, veil=False), tmp_path)
    hidden = is_occluded(pixels(scene, "occlusion")[0])
    np.testing.assert_array_equal(pixels(scene, "target")[:, ~hidden], ground()[:, ~hidden])
    assert scene.facts["veil"] == OFF


def test_no_pixel_of_the_truth_under_the_donors_mask_reaches_an_input(place, tmp_path):
    vary(place)
    before = made(row_of(place), tmp_path / "before")
    hidden = is_occluded(pixels(before, "occlusion")[0])
    spoil(place, hidden)
    after = made(row_of(place), tmp_path / "after")
    assert (pixels(before, "reference") != pixels(after, "reference"))[:, hidden].any()
    first, again = inputs_of(before), inputs_of(after)
    assert first.keys() == again.keys()
    for key, data in first.items():
        np.testing.assert_array_equal(data, again[key], err_msg=str(key))


def test_dates_chosen_by_the_workflow_leak_no_truth_either(place, tmp_path):
    vary(place)
    auto = row_of(place, target_date="auto", cloud_date="", n_targets=5, cloud_levels="0.3")
    rows = expand_scenes([auto], SETTINGS, tmp_path / "cache", limits=LIMITS)
    (row,) = (row for row in rows if row.target_date == TRUTH)
    before = made(row, tmp_path / "before")
    spoil(place, is_occluded(pixels(before, "occlusion")[0]))
    assert expand_scenes([auto], SETTINGS, tmp_path / "cache", limits=LIMITS) == rows
    first, again = inputs_of(before), inputs_of(made(row, tmp_path / "after"))
    for key, data in first.items():
        np.testing.assert_array_equal(data, again[key], err_msg=str(key))


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """The network chronos that adapts to a scene and checks its deviations there, in few steps."""
    few = {"LESSONS": 12, "EXAMS": 8, "TRIALS": 4, "ROUNDS": 1}
    few |= {"FEWEST_EXAMS": 1, "FEWEST_HIDDEN": 1}
    for name, number in few.items():
        monkeypatch.setattr(adaptation, name, number)
    arrays = network_arrays(build_network("small"))
    off = {name: array + np.float32(0.05) for name, array in arrays.items()}  # much to learn
    path = tmp_path / "weights.npz"
    write_arrays(path, off | {CALIBRATION: np.full(2, 1.5, np.float32)})
    # The rounds end it, never the clock.
    options = {"adapt": "scene", "calibrate": "scene", "adapt_minutes": 600}
    model = Chronos(ModelSpec("c", "chronos", weights=path, options=options))
    model.load()
    return model


def predicted(model, scene, folder):
    """What a model answers for a scene whose masks are made as in the workflow."""
    seen = mask_scene(scene, folder, MaskOptions()).without_truth()
    inputs = read_inputs(seen)
    model.prepare(seen, [inputs])
    return model.predict(inputs)


@pytest.mark.slow
def test_what_a_model_learns_from_a_scene_knows_no_truth_under_cloud(place, tmp_path, learner):
    vary(place)
    auto = row_of(place, target_date="auto", cloud_date="", n_targets=5, cloud_levels="0.3")

    def answer(folder):
        rows = expand_scenes([auto], SETTINGS, tmp_path / "cache", limits=LIMITS)
        (row,) = (row for row in rows if row.target_date == TRUTH)
        scene = made(row, tmp_path / folder)
        return scene, predicted(learner, scene, tmp_path / folder)

    scene, first = answer("before")
    adapted = learner._network.get_weights()
    assert any((a != b).any() for a, b in zip(adapted, learner._trained, strict=True))
    assert learner._factor != pytest.approx(1.5)
    spoil(place, is_occluded(pixels(scene, "occlusion")[0]))
    changed, again = answer("after")
    assert (pixels(scene, "reference") != pixels(changed, "reference")).any()
    np.testing.assert_array_equal(first.reflectance, again.reflectance)
    np.testing.assert_array_equal(first.std, again.std)


def test_the_veil_knows_nothing_of_the_withheld_date(place, tmp_path):
    spoil(place)
    scene = made(row_of(place), tmp_path)
    hidden = is_occluded(pixels(scene, "occlusion")[0])
    added = pixels(scene, "target").astype(int) - pixels(scene, "reference")
    assert (added[:, ~hidden] == VEIL).all()


def test_the_veil_is_the_same_window_by_window(place, tmp_path, monkeypatch):
    data = ground(5)
    data[:, *CLOUD_AT] = 7000
    scl = np.full(GRID.shape, 4, np.uint8)
    scl[CLOUD_AT] = 9
    write(place, DONOR, data, scl)
    whole = pixels(made(row_of(place), tmp_path / "whole"), "target")
    monkeypatch.setattr(Grid.windows, "__defaults__", (16,))
    parts = pixels(made(row_of(place), tmp_path / "parts"), "target")
    np.testing.assert_array_equal(parts, whole)


def test_a_donor_whose_ground_no_other_date_shows_lends_no_veil_and_says_so(place, tmp_path):
    for date in set(DATES) - {TRUTH, DONOR}:
        write(place, date, ground(), np.full(GRID.shape, 9, np.uint8))
    scene = made(row_of(place), tmp_path)
    hidden = is_occluded(pixels(scene, "occlusion")[0])
    np.testing.assert_array_equal(pixels(scene, "target")[:, ~hidden], ground()[:, ~hidden])
    assert scene.facts["veil"] == NO_GROUND


def test_a_donors_context_is_the_nearest_dates_without_the_withheld_one(place):
    row = row_of(place)
    dates = donor_context(open_source(row, SOURCES), DONOR, TRUTH)
    assert dates == ["2020-05-22", "2020-06-01", "2020-07-01", "2020-07-11"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_donor_that_equals_its_composite_has_no_excess(seed):
    rng = np.random.default_rng(seed)
    looks, clear = rng.uniform(0, 0.5, (5, 3, 4, 4)), rng.random((5, 4, 4)) < 0.7
    days = rng.integers(-90, 90, 5)
    flat, seen = looks.reshape(5, 3, -1), clear.reshape(5, -1)
    distance = rng.uniform(1, 60, clear.shape)
    near, far = np.exp(-np.abs(days) / 30), 1 - np.exp(-distance / 20)
    weights = near[:, None] * far.reshape(5, -1)
    composite = geometric_median(flat, seen, weights=weights).reshape(3, 4, 4)
    excess = composite - ground_of(looks, clear, days=days, distance=distance)
    known = clear.any(axis=0)
    np.testing.assert_allclose(excess[:, known], 0, atol=1e-12)
    assert np.isnan(excess[:, ~known]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.2, 0.5))
def test_smoothing_keeps_a_constant_whatever_is_masked(seed, constant):
    rng = np.random.default_rng(seed)
    use, unknown = rng.random((12, 15)) < 0.5, rng.random((12, 15)) < 0.1
    use[0, 0], unknown[0, 0] = True, False
    excess = np.where(unknown, np.nan, np.full((2, 12, 15), constant))
    excess[:, ~use] = 99  # what is masked lends nothing
    smooth = smooth_excess(excess, use)
    np.testing.assert_allclose(smooth[:, use], constant, atol=1e-12)


def test_haze_near_the_cloud_of_other_dates_hides_little_of_the_excess():
    near, far = 2.0, 60.0
    looks = np.stack([np.full((1, 1, 1), value) for value in (0.12, 0.12, 0.05, 0.05)])
    distance = np.array([near, near, far, far])[:, None, None]
    found = ground_of(looks, np.ones((4, 1, 1), bool), days=[5] * 4, distance=distance)
    assert 0.15 - found[0, 0, 0] == pytest.approx(0.10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_distances_are_those_of_the_whole_image_up_to_their_reach(seed, reach):
    from scipy.ndimage import distance_transform_edt

    hidden = np.random.default_rng(seed).random((70, 50)) < 0.003
    hidden[3, 4] = True
    expected = np.minimum(distance_transform_edt(~hidden), reach)
    with mock.patch("unveil.distance.BLOCK_PX", 16):
        np.testing.assert_allclose(distance_from(hidden, reach=reach), expected, rtol=1e-6)


def test_smoothing_is_a_normalised_gaussian_of_the_pixels_to_be_used():
    rng = np.random.default_rng(1)
    excess, use = rng.normal(0, 0.1, (1, 9, 9)), rng.random((9, 9)) < 0.6
    rows, cols = np.mgrid[:9, :9]
    weight = use * np.exp(-((rows - 4) ** 2 + (cols - 3) ** 2) / (2 * SIGMA_PX**2))
    expected = (weight * excess[0]).sum() / weight.sum()
    assert smooth_excess(excess, use)[0, 4, 3] == pytest.approx(expected, rel=1e-6)


def test_data_stay_data_and_nodata_stays_nodata():
    truth = np.array([[[0, 5, 300, 65000]]], np.uint16)
    assert add_excess(truth, np.full(truth.shape, -0.02)).tolist() == [[[0, 1, 100, 64800]]]
    assert add_excess(truth, np.full(truth.shape, 0.1)).tolist() == [[[0, 1005, 1300, 65535]]]


def test_generated_haze_falls_off_as_on_real_dates_and_leaves_the_classes():
    from scipy.ndimage import distance_transform_edt

    dark, found = np.full((1, 256, 256), 0.08, np.float32), {(1, 3): [], (4, 8): [], (9, 18): []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        clouds = simulate_clouds(dark.shape[1:], cover=0.3, rng=rng)
        hazy = with_haze(clouds, rng=np.random.default_rng(seed + 100))
        np.testing.assert_array_equal(hazy.classes, clouds.classes)
        hidden = clouds.classes != CLEAR
        np.testing.assert_array_equal(hazy.alpha[hidden], clouds.alpha[hidden])
        image = CloudVeil(hazy, bands=("B02",), ambient=0.1, rng=rng).over(
            dark, (slice(None), slice(None))
        )
        distance = distance_transform_edt(~hidden)
        for (first, last), values in found.items():
            ring = (distance >= first) & (distance < last + 1)
            values.append((image[0] - dark[0])[ring].mean())
    means = [np.mean(values) for values in found.values()]
    np.testing.assert_allclose(means, (0.053, 0.026, 0.018), atol=0.01)


@pytest.mark.parametrize(
    ("cell", "value"), [("TRUE", True), ("true", True), ("false", False), ("", True)]
)
def test_the_scene_table_says_whether_there_is_a_veil(tmp_path, cell, value):
    assert read_scenes(table(tmp_path, cell))[0].veil is value


def test_a_veil_that_is_neither_true_nor_false_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"line 2.*veil"):
        read_scenes(table(tmp_path, "maybe"))


def table(folder, cell):
    path = folder / "scenes.tsv"
    header = "scene\tsource\tpath\ttarget_date\tprotocol\tcloud_date\tveil"
    path.write_text(f"{header}\ns\tlocal\t.\t{TRUTH}\ttransplant\t{DONOR}\t{cell}\n")
    return path
