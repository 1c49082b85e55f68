"""Detector ukis: the package's networks, its answers, and tiles."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window
from tests.unit.test_masks import cloud_and_shadow, painted, scene_of, write_frame

from unveil.bands import CLOUD, L1C13, REFLECTANCE_SCALE, SHADOW
from unveil.errors import InputError
from unveil.masks.detectors import ukis
from unveil.masks.detectors.coarse import block_means
from unveil.masks.mask_scene import detect_clouds, detect_clouds_and_shadows, mask_scene
from unveil.masks.options import MaskOptions

SIX = ("B02", "B03", "B04", "B08", "B11", "B12")
NAMES = ["blue", "green", "red", "nir", "swir16", "swir22"]


def cut(image, step):
    """Return what reads the coarse pixels of a window of an image."""

    def read(window):
        rows, cols = (slice(*bounds) for bounds in window.toranges())
        return block_means(image[:, rows, cols], step)

    return read


@pytest.mark.slow
def test_a_tile_has_the_classes_that_the_package_finds_in_it(shared):
    from ukis_csmask.mask import CSmask

    folder = shared / "data" / "places" / "sabina-italy-30dates"
    (path,) = folder.glob("*_2018-07-05_*.tif")
    with rasterio.open(path) as image:
        data = image.read([L1C13.index(name) + 1 for name in SIX]).astype(np.float32)
    data /= np.float32(REFLECTANCE_SCALE)
    package = CSmask(np.moveaxis(data, 0, -1).copy(), NAMES, "l1c")
    given = np.moveaxis(package.img, -1, 0)[np.newaxis]  # in its order, standardised by it
    logits = package.session.run(None, {package.input_names: given})[0]
    expected = package.softmax(logits)[0].argmax(axis=0)
    network = ukis.load_network(len(SIX), "L1C")
    classes, _ = ukis.judge(network, cut(data, 1), data.shape[1:], 1)
    assert set(np.unique(classes)) == {ukis.CLEAR, ukis.CLOUD, ukis.SHADOW}
    assert (classes == expected).mean() > 0.9999


@given(size=st.integers(1, 4000))
def test_what_is_kept_of_tiles_covers_an_edge_once_and_lies_within_them(size):
    tiles = ukis.cut_tiles(size)
    covered = [pixel for _, kept in tiles for pixel in range(kept.start, kept.stop)]
    assert covered == list(range(size))
    for start, kept in tiles:
        assert 0 <= start <= kept.start and kept.stop <= start + ukis.TILE
        inner = ukis.LEAST_OVERLAP // 2
        assert kept.start == 0 or kept.start - start >= inner
        assert kept.stop == size or start + ukis.TILE - kept.stop >= inner


class Blue:
    """A network whose probability of cloud is the blue band."""

    def probabilities(self, tile):
        assert tile.shape[1:] == (ukis.TILE, ukis.TILE)
        return np.stack([1 - tile[0], tile[0], np.zeros_like(tile[0])])


@pytest.mark.parametrize("shape", [(40, 50), (1000, 613)])
def test_each_pixel_is_answered_at_its_own_place(shape):
    image = np.random.default_rng(0).uniform(0, 1, (1, *shape)).astype(np.float32)
    classes, percent = ukis.judge(Blue(), cut(image, 3), shape, 3)
    means = block_means(image, 3)[0]
    np.testing.assert_array_equal(classes == ukis.CLOUD, means > 1 - means)
    np.testing.assert_array_equal(percent, np.rint(means * 100))


def test_the_votes_of_a_window_lie_where_its_pixels_lie(tmp_path):
    image = painted(cloud_and_shadow((96, 100)))
    scene = scene_of(write_frame(tmp_path, image))
    found = ukis.Ukis(scene.target, scene.grid, MaskOptions(), level="L1C")
    window = Window(17, 5, 40, 31)  # within a pixel of 30 m
    whole = found.vote(image, Window(0, 0, 100, 96), found.tells)
    part = found.vote(image[:, 5:36, 17:57], window, found.tells)
    np.testing.assert_array_equal(part.cloud, whole.cloud[5:36, 17:57])
    assert whole.cloud[12:28, 12:28].mean() > 0.9
    assert whole.percent[15:25, 15:25].min() > 80


@pytest.mark.parametrize(
    ("bands", "level", "reason"),
    [
        (SIX, "", "unknown level"),
        (("B02", "B03", "B04"), "L2A", "B08 or B8A"),
        (("B03", "B04", "B08"), "L1C", "needs B02"),
    ],
)
def test_it_says_what_it_lacks(tmp_path, bands, level, reason):
    frame = write_frame(tmp_path, np.full((len(bands), 8, 8), 0.2, np.float32), bands=bands)
    assert reason in ukis.Ukis.refusal(frame, level)


def test_series_with_one_near_infrared_band_and_no_swir_get_the_network_of_four_bands():
    assert ukis.bands_for(("B02", "B03", "B04", "B8A", "B11")) == ("B02", "B03", "B04", "B8A")
    assert ukis.bands_for(L1C13) == SIX


def test_a_named_detector_that_is_not_installed_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    scene = scene_of(write_frame(tmp_path, painted(np.zeros((16, 16), int))))
    monkeypatch.setattr(ukis, "RUNTIME", "no_such_runtime")
    ukis.load_network.cache_clear()
    options = MaskOptions(detectors=("s2cloudless", "ukis"))
    with pytest.raises(InputError, match=r"no_such_runtime is not installed.*pip install ukis"):
        mask_scene(scene, tmp_path, options)


@pytest.mark.parametrize("step", [2, 3, 6, 8])
@pytest.mark.parametrize("shape", [(2, 31, 64), (1, 5, 3)])
def test_means_of_squares_are_those_of_numpys_own_sums_to_the_bit(step, shape):
    rng = np.random.default_rng(step)
    image = rng.gamma(2, 0.1, shape).astype(np.float32)
    image[:, rng.random(shape[1:]) < 0.1] = np.nan
    rows, cols = (np.arange(0, size, step) for size in shape[1:])

    def add_up(values):
        return np.add.reduceat(np.add.reduceat(values, rows, axis=1), cols, axis=2)

    valid = np.isfinite(image)
    total, count = add_up(np.where(valid, image, 0)), add_up(valid.astype(np.float32))
    with np.errstate(invalid="ignore"):
        expected = np.where(count > 0, total / count, np.nan).astype(np.float32)
    np.testing.assert_array_equal(block_means(image, step), expected)


def test_an_image_trained_on_hides_its_clouds_and_the_shadows_that_darken_it(shared):
    """A real cloudy patch of SEN12MS-CR, against its clear one."""
    folder = shared / "data/places/sen12mscr-pairs"
    cloudy, clear = (
        rasterio.open(folder / f"ROIs1158_spring_{kind}_39_p100.tif").read() / 10_000
        for kind in ("s2_cloudy", "s2")
    )
    classes = detect_clouds_and_shadows(cloudy.astype(np.float32), L1C13)
    near_infrared = (cloudy - clear)[L1C13.index("B08")]
    assert near_infrared[classes == CLOUD].mean() > 0.1
    assert near_infrared[classes == SHADOW].mean() < -0.02
    alone = detect_clouds(cloudy.astype(np.float32), L1C13)
    assert ((classes == CLOUD) | (alone != CLOUD)).all()
