"""The veil of a frame: what lies over a known ground comes back, and nothing is made up."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW
from unveil.coregistration.resample import shift_veil
from unveil.errors import InputError
from unveil.excess import TRUSTED_PX, excess_of_dn, excess_to_dn
from unveil.inference.devices import CPU
from unveil.inference.engine import identity_of, read
from unveil.masks.veil import estimate_veils, shortest_bands, veils_of
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Frame, Scene, read_inputs
from unveil.workflow.shards import MASKS, make_scenes, read_shard

SIZE = 90
GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), SIZE, SIZE)
BANDS = ("B02", "B03", "B04", "B08", "B11")
CLOUD_AT = (slice(30, 52), slice(40, 71))
WHOLE = Window(0, 0, SIZE, SIZE)


def ground(seed: int = 0) -> np.ndarray:
    """Return DN of squares of 40 m: within a cell it does not matter which pixels are clear."""
    squares = np.random.default_rng(seed).integers(300, 3000, (len(BANDS), 23, 23))
    return squares.repeat(4, axis=1).repeat(4, axis=2)[:, :SIZE, :SIZE]


def clear_mask() -> np.ndarray:
    return np.full((SIZE, SIZE), CLEAR, np.uint8)


def frame_of(folder, number: int, data, classes=None, role: str = "context") -> Frame:
    date = (dt.date(2021, 6, 1) + dt.timedelta(days=5 * number)).isoformat()
    path, mask = folder / f"{role}_{date}.tif", folder / f"{role}_{date}_mask.tif"
    classes = clear_mask() if classes is None else classes
    raster.write_cog(path, np.asarray(data, np.uint16), GRID, descriptions=BANDS, nodata=0)
    raster.write_cog(mask, classes[None], GRID, descriptions=["CLASS"], nodata=NODATA)
    return Frame(date, role, path, BANDS, mask)


def scene_of(*frames: Frame) -> Scene:
    return Scene("s", "none", "p", GRID, frames, {"level": "L2A"})


def excess_of(frame: Frame) -> np.ndarray:
    return excess_of_dn(raster.read(frame.veil)[0])


@pytest.fixture
def hazy(tmp_path) -> Scene:
    """One ground on five dates; over the target 0.0300 of haze, and a cloud of 0.5."""
    data, classes = ground() + 300, clear_mask()
    data[:, *CLOUD_AT] = ground()[:, *CLOUD_AT] + 5000
    classes[CLOUD_AT] = CLOUD
    others = [frame_of(tmp_path, number, ground()) for number in (1, 2, 4, 5)]
    return scene_of(frame_of(tmp_path, 3, data, classes, "target"), *others)


def test_a_known_veil_over_a_known_ground_comes_back_clear_or_hidden(hazy, tmp_path):
    veil = excess_of(estimate_veils(hazy, tmp_path).target)
    hidden = raster.read(hazy.target.mask)[0] == CLOUD
    np.testing.assert_allclose(veil[~hidden], 0.03, atol=1e-6)
    np.testing.assert_allclose(veil[hidden], 0.5, atol=1e-6)


def test_a_shadow_is_darker_than_its_ground(hazy, tmp_path):
    data, classes = ground(), clear_mask()
    data[:, :40], classes[:40] = ground()[:, :40] - 200, SHADOW
    frame = frame_of(tmp_path, 7, data, classes)
    veils = estimate_veils(scene_of(*hazy.frames, frame), tmp_path)
    veil = excess_of(veils.context[-1])
    np.testing.assert_allclose(veil[:40], -0.02, atol=1e-6)
    np.testing.assert_allclose(veil[40:], 0, atol=1e-6)


def test_a_veil_that_grows_across_the_scene_is_followed(hazy, tmp_path):
    slope = np.linspace(0, 1000, SIZE)[None, None, :]
    frame = frame_of(tmp_path, 7, np.rint(ground() + slope))
    veil = excess_of(estimate_veils(scene_of(*hazy.frames, frame), tmp_path).context[-1])
    inner = slice(16, -16)  # at a border the mean of what is there is no longer in the middle
    np.testing.assert_allclose(
        veil[inner, inner], slope[0, :, inner] / 1e4 + 0 * veil[inner, inner], atol=2e-3
    )


def test_a_scene_of_one_frame_has_no_veil(hazy, tmp_path):
    alone = estimate_veils(scene_of(hazy.target), tmp_path)
    assert alone.target.veil is None
    inputs = read_inputs(alone, veil=True)
    assert np.isnan(inputs.target_veil).all()
    assert inputs.context_veil.shape == (0, SIZE, SIZE)


def test_where_no_other_frame_is_clear_there_is_no_estimate(hazy, tmp_path):
    classes = clear_mask()
    classes[:, 45:] = CLOUD
    others = [frame_of(tmp_path, number, ground(), classes) for number in (1, 2)]
    veil = excess_of(estimate_veils(scene_of(hazy.target, *others), tmp_path).target)
    assert np.isfinite(veil[:, :44]).all()
    assert np.isnan(veil[:, 64:]).all()  # four cells of 40 m beyond the last that is known


def test_frames_of_other_bands_tell_by_those_that_all_have(hazy, tmp_path):
    other = hazy.context[0]
    raster.write_cog(
        other.path, ground()[1:4].astype(np.uint16), GRID, descriptions=BANDS[1:4], nodata=0
    )
    frames = (hazy.target, replace(other, bands=BANDS[1:4]), *hazy.context[1:])
    veil = excess_of(estimate_veils(scene_of(*frames), tmp_path).target)
    hidden = raster.read(hazy.target.mask)[0] == CLOUD
    np.testing.assert_allclose(veil[~hidden], 0.03, atol=1e-6)
    none = replace(frames[1], bands=("B12",))
    assert estimate_veils(scene_of(hazy.target, none), tmp_path).target.veil is None


def test_nodata_has_no_veil(hazy, tmp_path):
    data, classes = ground(), clear_mask()
    data[:, 10:20], classes[10:20] = 0, NODATA
    frame = frame_of(tmp_path, 7, data, classes)
    veil = excess_of(estimate_veils(scene_of(*hazy.frames, frame), tmp_path).context[-1])
    np.testing.assert_array_equal(np.isnan(veil), classes == NODATA)


def test_the_truth_tells_no_ground(hazy, tmp_path):
    truth = frame_of(tmp_path, 3, ground(5), role="reference")
    with_truth = estimate_veils(scene_of(*hazy.frames, truth), tmp_path / "with")
    without = estimate_veils(hazy, tmp_path / "without")
    assert with_truth.with_role("reference")[0].veil is None
    for one, other in zip(with_truth.frames, without.frames, strict=False):
        np.testing.assert_array_equal(raster.read(one.veil), raster.read(other.veil))


def test_windows_give_what_the_whole_scene_does(tmp_path):
    rng, frames = np.random.default_rng(3), []
    for number in range(4):
        classes = clear_mask()
        classes[rng.random(classes.shape) < 0.2] = CLOUD
        data = ground(number)
        data[:, rng.random(classes.shape) < 0.05] = 0
        frames.append(frame_of(tmp_path, number, data, classes, "context" if number else "target"))
    frames, step = tuple(frames), 4
    whole = veils_of(frames, GRID, WHOLE, step)
    for window in GRID.windows(32):
        for part, image in zip(veils_of(frames, GRID, window, step), whole, strict=True):
            np.testing.assert_array_equal(part, image[window.toslices()])


def test_the_ground_is_found_in_the_shortest_bands():
    assert shortest_bands(("B8A", "B03", "B11", "B02", "B04")) == ("B02", "B03", "B04", "B8A")


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.9998, 5.55))
def test_an_excess_is_stored_to_the_last_digit_of_reflectance(excess):
    stored = excess_of_dn(excess_to_dn(np.array([excess, np.nan])))
    assert stored[0] == pytest.approx(excess, abs=0.51e-4)
    assert np.isnan(stored[1])


# --- what models are given ------------------------------------------------------------


def test_models_read_veil_and_distance_when_they_ask_for_them(hazy, tmp_path):
    scene = estimate_veils(hazy, tmp_path)
    window = Window(20, 8, 50, 60)
    plain, whole = read_inputs(scene, window=window), read_inputs(scene, veil=True)
    assert plain.target_veil is None and plain.context_distance is None
    part = read_inputs(scene, window=window, veil=True)
    cut = whole.crop(*window.toslices())
    hidden = raster.read(scene.target.mask)[0] == CLOUD
    np.testing.assert_allclose(
        whole.target_distance, np.minimum(distance_transform_edt(~hidden), TRUSTED_PX), rtol=1e-6
    )
    assert (whole.context_distance == TRUSTED_PX).all()
    for name in ("target_veil", "context_veil", "target_distance", "context_distance"):
        assert getattr(part, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(part, name), getattr(cut, name))


def test_only_a_model_that_sees_the_veil_is_given_it_and_depends_on_it(hazy, tmp_path):
    scene = estimate_veils(hazy, tmp_path)
    other = replace(
        scene, frames=tuple(replace(frame, veil_checksum="1") for frame in scene.frames)
    )
    model = create(ModelSpec("m", "geomedian"))
    for sees in (False, True):
        model.sees_veil = sees
        assert (read(model, scene).target_veil is not None) == sees
        same = [identity_of(one, model, code="", device=CPU) for one in (scene, other)]
        assert (same[0] != same[1]) == sees


def test_the_scene_file_lists_veils_and_a_damaged_one_is_refused(hazy, tmp_path):
    make_scenes(
        {tmp_path.name: replace(hazy, id=tmp_path.name)},
        estimate_veils,
        made_from=lambda scene: {},
        home=tmp_path.parent,
        file=MASKS,
        folders=("veils",),
        record=tmp_path / "record.json",
        rule="mask_scene",
    )
    record = tmp_path / "record.json"
    (scene,) = read_shard(record, tmp_path.parent, MASKS).values()
    for frame in scene.frames:
        assert frame.veil_checksum == raster.sha256(frame.veil)
    damaged = scene.target.veil
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="veils/.*not as it was written.*mask_scene"):
        read_shard(record, tmp_path.parent, MASKS)


def test_a_veil_is_moved_with_its_frame_and_no_nodata_is_mixed_in(tmp_path):
    rows, cols = np.mgrid[:SIZE, :SIZE]
    dn = (10000 + 20 * rows + 40 * cols).astype(np.uint16)
    dn[:, 60:62] = 0
    raster.write_cog(tmp_path / "a.tif", dn[None], GRID, descriptions=["EXCESS"], nodata=0)
    shift_veil(tmp_path / "a.tif", tmp_path / "b.tif", GRID, (0.5, -0.25))
    moved = raster.read(tmp_path / "b.tif")[0, 2:-2, 2:-2]
    empty = moved == 0
    expected = (10000 + 20 * (rows + 0.5) + 40 * (cols - 0.25))[2:-2, 2:-2]
    np.testing.assert_allclose(moved[~empty], expected[~empty], atol=0.5)
    np.testing.assert_array_equal(np.flatnonzero(empty.all(axis=0)) + 2, [60, 61, 62])
    assert not empty[:, :50].any()
