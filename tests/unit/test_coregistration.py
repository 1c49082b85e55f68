"""Coregistration: shifts are measured under clouds, applied once, and always recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy import ndimage

from unveil import raster
from unveil.assembly.assemble import assemble
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA, SHADOW, UNKNOWN_PROBABILITY
from unveil.config import SceneRow
from unveil.coregistration.coregister_scene import (
    CoregistrationOptions,
    choose_anchor,
    choose_bands,
    choose_blocks,
    coregister_scene,
    metres_of,
    usable,
)
from unveil.coregistration.estimate import (
    ShiftEstimate,
    WindowFits,
    agree,
    estimate_shift,
    view_of,
)
from unveil.coregistration.resample import move_mask, shift_image
from unveil.errors import InputError
from unveil.excess import excess_to_dn
from unveil.masks.mask_scene import judge_frame, mask_scene
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import (
    JUDGED,
    Frame,
    Scene,
    load_scene,
    read_reflectance,
    read_veil,
    save_scene,
)
from unveil.sources.base import SourceSeries, from_array

FACTOR = 4
"""Fine pixels a pixel: true shifts are multiples of 1/4 px, without any interpolation."""


def landscape(size: int, seed: int) -> np.ndarray:
    """Return reflectance whose spectrum falls as a power of frequency, as of real land."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) / frequency**1.8
    spectrum[0, 0] = 0
    image = np.fft.ifft2(spectrum).real
    return 0.15 + 0.03 * image / image.std()


def observe(land: np.ndarray, shift: tuple[float, float], size: int) -> np.ndarray:
    """Return what a sensor sees whose content is shifted by (dy, dx), by averaging areas."""
    margin = (land.shape[0] - size * FACTOR) // 2
    top, left = (margin - round(value * FACTOR) for value in shift)
    fine = land[top : top + size * FACTOR, left : left + size * FACTOR]
    return fine.reshape(size, FACTOR, size, FACTOR).mean(axis=(1, 3))


def blobs(size: int, cover: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((size, size))
    smooth = ndimage.gaussian_filter(noise, 8, mode="wrap")
    return smooth > np.quantile(smooth, 1 - cover)


@pytest.fixture(scope="module")
def land() -> np.ndarray:
    return landscape(900, seed=7)


def measured(first, second, cloud_first=None, cloud_second=None) -> ShiftEstimate:
    clear = np.ones(first.shape, bool)
    clouds = (clear if cloud is None else ~cloud for cloud in (cloud_first, cloud_second))
    views = [
        view_of(image[None, None], seen[None])
        for image, seen in zip((first, second), clouds, strict=True)
    ]
    return estimate_shift(*views)


# --- measuring ------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (0.25, -0.5), (-1.75, 2.5), (4.25, 3.0), (-3.5, -4.5)])
def test_a_shift_is_found_to_a_tenth_of_a_pixel_under_two_different_cloud_decks(land, shift):
    size = 200
    clouds = blobs(size, 0.4, seed=1), blobs(size, 0.4, seed=2)
    first, second = observe(land, (0, 0), size), observe(land, shift, size)
    noise = np.random.default_rng(3).normal(0, 0.001, (2, size, size))
    second = 1.2 * second + 0.02  # another sun, another season
    first, second = (
        np.where(cloud, 0.7, image + grain)
        for cloud, image, grain in zip(clouds, (first, second), noise, strict=True)
    )
    found = measured(first, second, *clouds)
    np.testing.assert_allclose(found.shift, shift, atol=0.1)
    assert found.reliability > 0.8


def test_real_imagery_shifted_in_the_frequency_domain_is_found(shared):
    folder = shared / "data" / "sen12mscr" / "ROIs1970_fall_s2"
    (path,) = folder.glob("*/*.tif")
    image = raster.read(path)[L1C13.index("B04")] / 10_000
    shift = (1.37, -2.61)
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(image), shift)).real
    inside = slice(8, -8)  # the Fourier shift wraps around
    clouds = blobs(240, 0.4, seed=5), blobs(240, 0.4, seed=6)
    first = np.where(clouds[0], 0.8, image[inside, inside])
    second = np.where(clouds[1], 0.9, moved[inside, inside])
    found = measured(first, second, *clouds)
    np.testing.assert_allclose(found.shift, shift, atol=0.05)


def test_exchanging_the_images_turns_the_shift_around(land):
    first, second = observe(land, (0, 0), 128), observe(land, (0.75, 1.5), 128)
    there, back = measured(first, second), measured(second, first)
    np.testing.assert_allclose(there.shift, -np.array(back.shift), atol=0.03)


def test_values_under_cloud_do_not_matter(land):
    size = 128
    cloud = blobs(size, 0.3, seed=4)
    first, second = observe(land, (0, 0), size), observe(land, (1, 0.5), size)
    dim = measured(first, np.where(cloud, 0.1, second), None, cloud)
    bright = measured(first, np.where(cloud, 1.1, second), None, cloud)
    assert dim == bright


def test_unrelated_images_are_not_reliable(land):
    other = observe(landscape(900, seed=8), (0, 0), 160)
    found = measured(observe(land, (0, 0), 160), other)
    assert not usable(found, CoregistrationOptions())


def test_too_few_clear_pixels_are_said_to_be_too_few(land):
    image = observe(land, (0, 0), 64)
    cloud = np.ones((64, 64), bool)
    cloud[:15, :15] = False
    found = measured(image, image, cloud, None)
    assert found.shift is None
    assert "clear in both" in found.note


@pytest.mark.parametrize("value", [0.02, 0.0])
def test_an_image_without_texture_is_not_judged(land, value):
    found = measured(observe(land, (0, 0), 64), np.full((64, 64), value))
    assert found == ShiftEstimate(None, note="image without texture")


def test_windows_that_disagree_raise_the_error_and_do_not_move_the_others():
    information = np.tile(np.eye(2), (40, 1, 1))
    rng = np.random.default_rng(0)
    steps = np.array([0.3, -0.2]) + rng.normal(0, 0.02, (40, 2))
    step, error = agree(WindowFits(steps, information, 1.0))
    np.testing.assert_allclose(step, (0.3, -0.2), atol=0.02)
    assert error < 0.01
    steps[::4] += (1.2, 1.0)  # a tenth of the fields were ploughed, clouds moved
    mixed, _ = agree(WindowFits(steps, information, 1.0))
    np.testing.assert_allclose(mixed, step, atol=0.03)
    _, torn = agree(WindowFits(rng.uniform(-1.5, 1.5, (40, 2)), information, 1.0))
    assert torn > 0.15


def test_a_whole_tile_is_measured_in_four_blocks_where_it_is_clear():
    grid = Grid("", (1, 0, 0, 0, -1, 0), 10_980, 10_980)
    clear = np.zeros((500, 500), bool)
    clear[:, 250:] = True
    blocks = choose_blocks(grid, clear, np.ones_like(clear))
    assert len(blocks) == 4
    assert all(block.col_off >= 5000 for block in blocks)
    assert {(block.height, block.width) for block in blocks} == {(256, 256)}


@pytest.mark.parametrize("shape", [(100, 100), (256, 500), (37, 5)])
def test_a_small_scene_is_one_block(shape):
    grid = Grid("", (1, 0, 0, 0, -1, 0), *shape)
    (block,) = choose_blocks(grid, np.ones(shape, bool))
    assert (block.height, block.width) == tuple(min(size, 256) for size in shape)


@pytest.mark.parametrize(
    ("bands", "wanted", "chosen"),
    [
        (L1C13, "auto", ("B02", "B03", "B04", "B08")),
        (CORE6, "auto", ("B02", "B03", "B04", "B08")),
        (("B05", "B11"), "auto", ("B05", "B11")),
        (L1C13, "B11", ("B11",)),
        (("B03", "B08"), "B04", ("B03",)),
    ],
)
def test_shifts_are_read_from_the_sharpest_bands(bands, wanted, chosen):
    assert choose_bands(bands, wanted) == chosen


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32633", (10.0, 0.0, 4e5, 0.0, -10.0, 5e6), (-15.0, -20.0)),
        ("EPSG:4326", (1e-4, 0.0, 12.0, 0.0, -1e-4, 60.0), (-8.34, -22.24)),
        ("", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), None),
    ],
)
def test_a_shift_south_and_west_has_metres_east_and_north(crs, transform, metres):
    found = metres_of((2.0, -1.5), Grid(crs, transform, 10, 10))
    assert found == (None if metres is None else pytest.approx(metres, rel=1e-3))


# --- applying -------------------------------------------------------------------------


def write(path: Path, data: np.ndarray, bands: tuple[str, ...], nodata: int) -> Path:
    grid = Grid("EPSG:32633", (10.0, 0.0, 4e5, 0.0, -10.0, 5e6), *data.shape[1:])
    raster.write_cog(path, data, grid, descriptions=bands, nodata=nodata)
    return path


@pytest.mark.parametrize("crs", ["EPSG:32633", ""])
def test_undoing_a_shift_of_whole_pixels_is_exact(tmp_path, crs):
    rng = np.random.default_rng(0)
    data = rng.integers(1, 5000, (2, 600, 530)).astype(np.uint16)
    grid = Grid(crs, (10.0, 0.0, 4e5, 0.0, -10.0, 5e6), 600, 530)
    source = tmp_path / "a.tif"
    raster.write_cog(source, data, grid, descriptions=("B03", "B04"), nodata=0)
    shift_image(source, tmp_path / "b.tif", grid, (2, -3))
    moved = raster.read(tmp_path / "b.tif")
    np.testing.assert_array_equal(moved[:, :-2, 3:], data[:, 2:, :-3])
    assert (moved[:, -2:] == 0).all()
    assert (moved[:, :, :3] == 0).all()
    with raster.open_raster(tmp_path / "b.tif") as dataset:
        assert dataset.descriptions == ("B03", "B04")
        assert raster.grid_of(dataset) == grid


def test_undoing_a_fraction_of_a_pixel_restores_the_view(tmp_path, land):
    truth, seen = observe(land, (0, 0), 160), observe(land, (0.5, -1.25), 160)
    path = write(tmp_path / "a.tif", raster.to_dn(seen[None]), ("B04",), 0)
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
    shift_image(path, tmp_path / "b.tif", grid, (0.5, -1.25))
    moved = raster.to_reflectance(raster.read(tmp_path / "b.tif"))[0]
    inner = (slice(4, -4), slice(4, -4))
    before = np.abs(seen - truth)[inner].mean()
    assert np.abs(moved - truth)[inner].mean() < 0.15 * before  # aliasing stays


def test_interpolation_neither_spreads_nor_invents_nodata(tmp_path):
    data = np.full((1, 64, 64), 2, np.uint16)
    data[0, :, 32:] = 9000  # cubic overshoot would go below 1 on the dark side
    data[0, 50:, 50:] = 0
    path = write(tmp_path / "a.tif", data, ("B04",), 0)
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
    shift_image(path, tmp_path / "b.tif", grid, (0.4, 0.4))
    moved = raster.read(tmp_path / "b.tif")[0]
    assert (moved[:49, :-1] > 0).all()
    assert (moved[:-1, :49] > 0).all()
    assert (moved[49:, 49:] == 0).all()  # one row and column more than before
    assert (moved[-1] == 0).all()
    assert (moved[:, -1] == 0).all()


@pytest.mark.parametrize("shift", [(0.3, -0.7), (-1.5, 2.25), (3.0, 0.45)])
def test_moving_an_image_is_what_gdal_does_with_a_shifted_georeference(tmp_path, shift):
    rng = np.random.default_rng(1)
    data = rng.integers(500, 5000, (2, 700, 90)).astype(np.uint16)
    path = write(tmp_path / "a.tif", data, ("B04", "B08"), 0)
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
    shift_image(path, tmp_path / "b.tif", grid, shift)
    here = grid.affine @ Affine.translation(-shift[1], -shift[0])
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            src_crs=grid.crs,
            crs=grid.crs,
            src_transform=here,
            transform=grid.affine,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.cubic,
        ) as vrt,
    ):
        theirs = vrt.read()
    inner = (..., slice(6, -6), slice(6, -6))
    ours = raster.read(tmp_path / "b.tif")
    np.testing.assert_allclose(ours[inner].astype(int), theirs[inner].astype(int), atol=1)


@pytest.mark.parametrize("shift", [(0.5, 0.5), (-0.3, 1.8), (2.0, -0.25)])
def test_a_plane_is_moved_exactly_and_back(tmp_path, shift):
    rows, cols = np.mgrid[:60, :70]
    plane = 1000 + 20 * rows + 40 * cols  # keeps whole numbers at multiples of 1/20
    path = write(tmp_path / "a.tif", plane[None].astype(np.uint16), ("B04",), 0)
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
    shift_image(path, tmp_path / "b.tif", grid, shift)
    moved = raster.read(tmp_path / "b.tif")[0]
    expected = plane + 20 * shift[0] + 40 * shift[1]
    inner = (slice(5, -5), slice(5, -5))
    np.testing.assert_array_equal(moved[inner], expected[inner])
    shift_image(tmp_path / "b.tif", tmp_path / "c.tif", grid, (-shift[0], -shift[1]))
    np.testing.assert_array_equal(raster.read(tmp_path / "c.tif")[0][inner], plane[inner])


def test_a_pixel_is_hidden_where_any_that_lies_under_it_was():
    mask = np.zeros((2, 12, 12), np.uint8)
    mask[0, 5, 5], mask[0, 9, 9], mask[0, 2, 9] = CLOUD, SHADOW, NODATA
    mask[1] = 40
    mask[1, 5, 5], mask[1, 2, 9] = 80, UNKNOWN_PROBABILITY
    classes, probability = move_mask(mask, (0.25, 0.5))
    assert {tuple(place) for place in np.argwhere(classes == CLOUD)} == {
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
    }
    assert np.count_nonzero(classes == SHADOW) == 4
    assert (classes == NODATA).sum() == 2  # two of the four lie outside
    assert probability[3, 3] == 55  # 40 + 40 * 3/4 * 1/2
    whole, _ = move_mask(mask, (0.0, 0.0))
    np.testing.assert_array_equal(whole, mask[0, 2:-2, 2:-2])


# --- the stage ------------------------------------------------------------------------

SIZE = 160
DATES = {"target": "2020-06-15", "a": "2020-06-10", "b": "2020-06-20", "c": "2020-07-20"}


def make_frame(
    folder: Path,
    land: np.ndarray,
    name: str,
    *,
    shift: tuple[float, float] = (0, 0),
    cover: float = 0.0,
    role: str = "context",
    masked: bool = True,
) -> Frame:
    date = DATES[name]
    image = np.stack([observe(land, shift, SIZE), observe(land, shift, SIZE) * 1.5])
    cloud = (
        blobs(SIZE, cover, seed=len(name) + ord(name[0])) if cover else np.zeros((SIZE, SIZE), bool)
    )
    dn = raster.to_dn(np.where(cloud, 0.8, image))
    path = write(folder / "frames" / f"{role}_{date}.tif", dn, ("B04", "B08"), 0)
    classes = np.where(cloud, CLOUD, CLEAR)
    mask = np.stack([classes, np.full_like(classes, UNKNOWN_PROBABILITY)]).astype(np.uint8)
    mask_path = folder / "masks" / f"{role}_{date}.tif"
    write(mask_path, mask, ("CLASS", "CLOUD_PROBABILITY"), NODATA)
    return Frame(date, role, path, ("B04", "B08"), mask_path if masked else None)


def scene_of(*frames: Frame, protocol: str = "none") -> Scene:
    with raster.open_raster(frames[0].path) as dataset:
        grid = raster.grid_of(dataset)
    return Scene("s", protocol, "p", grid, frames)


def facts_of(scene: Scene, name: str, role: str = "context") -> dict:
    (frame,) = (f for f in scene.frames if f.date == DATES[name] and f.role == role)
    return {key.removeprefix("unveil:shift_"): value for key, value in frame.facts.items()}


def test_a_shifted_frame_is_moved_onto_the_target_with_its_mask(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.3)
    steady = make_frame(tmp_path, land, "a")
    shifted = make_frame(tmp_path, land, "b", shift=(1.25, -0.75), cover=0.2)
    done = coregister_scene(scene_of(target, steady, shifted), tmp_path, CoregistrationOptions())
    moved = done.context[1]
    assert moved.path == tmp_path / "coregistered" / "2020-06-20.tif"
    assert moved.mask == tmp_path / "coregistered" / "masks" / "2020-06-20.tif"
    assert moved.checksum == raster.sha256(moved.path)
    facts = facts_of(done, "b")
    assert facts["applied"] is True
    np.testing.assert_allclose(facts["px"], (1.25, -0.75), atol=0.1)
    again = coregister_scene(done, tmp_path, CoregistrationOptions())
    assert np.hypot(*facts_of(again, "b")["px"]) < 0.1
    before, after = raster.read(shifted.mask)[0], raster.read(moved.mask)[0]
    nearest, here = before[1:-1, 1:-1] == CLOUD, after[:-2, 2:] == CLOUD
    assert here[nearest].all()
    assert not here[~ndimage.binary_dilation(nearest, np.ones((3, 3)), border_value=1)].any()
    assert (after[-1] == NODATA).all()
    data = read_reflectance(moved, ("B04",))[0]
    assert (np.isnan(data) == (after == NODATA)).all()


def test_the_veil_of_a_shifted_frame_is_moved_with_it(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target")
    frame = make_frame(tmp_path, land, "b", shift=(1.25, -0.75))
    rows, cols = np.mgrid[:SIZE, :SIZE]
    excess = 0.001 * rows + 0.0005 * cols
    path = write(tmp_path / "veil.tif", excess_to_dn(excess)[None], ("EXCESS",), 0)
    scene = scene_of(target, replace(frame, veil=path))
    moved = coregister_scene(scene, tmp_path, CoregistrationOptions()).context[0]
    assert moved.veil == tmp_path / "coregistered" / "veils" / "2020-06-20.tif"
    dy, dx = moved.facts["unveil:shift_px"]
    found = read_veil(moved, Window(10, 10, 100, 100))
    expected = (excess + 0.001 * dy + 0.0005 * dx)[10:110, 10:110]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frames_that_need_no_move_keep_their_files(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.3)
    frames = target, make_frame(tmp_path, land, "a"), make_frame(tmp_path, land, "b")
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())
    assert [f.path for f in done.frames] == [f.path for f in frames]
    assert not (tmp_path / "coregistered").exists()
    assert facts_of(done, "b")["applied"] is False
    assert "min_shift_px" in facts_of(done, "b")["note"]
    assert facts_of(done, "target", "target")["px"] == [0.0, 0.0]


def test_shifts_are_relative_to_the_target_not_to_the_clearest_frame(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.4, shift=(0.5, 0.5))
    frames = (
        target,
        make_frame(tmp_path, land, "a"),
        make_frame(tmp_path, land, "b", shift=(0.5, 0.5)),
    )
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())
    assert done.facts["coregistration"]["anchor"] == DATES["a"]
    np.testing.assert_allclose(facts_of(done, "a")["px"], (-0.5, -0.5), atol=0.1)
    assert facts_of(done, "a")["applied"] is True
    assert facts_of(done, "b")["applied"] is False
    assert done.target.path == target.path


def test_a_target_under_full_cloud_is_taken_to_lie_on_the_anchor(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.99)
    frames = target, make_frame(tmp_path, land, "a"), make_frame(tmp_path, land, "b", shift=(1, 0))
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())
    assert "target not measured" in done.facts["coregistration"]["target_note"]
    np.testing.assert_allclose(facts_of(done, "b")["px"], (1, 0), atol=0.1)


def test_a_shift_beyond_the_maximum_is_recorded_not_applied(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target")
    frames = target, make_frame(tmp_path, land, "b", shift=(3, 4.5))
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())
    facts = facts_of(done, "b")
    np.testing.assert_allclose(facts["px"], (3, 4.5), atol=0.1)
    assert facts["applied"] is False
    assert "max_shift_px" in facts["note"]


def test_a_frame_under_full_cloud_is_recorded_as_not_judged(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target")
    cloudy = make_frame(tmp_path, land, "b", cover=0.99)
    done = coregister_scene(scene_of(target, cloudy), tmp_path, CoregistrationOptions())
    facts = facts_of(done, "b")
    assert facts["px"] is None
    assert facts["applied"] is False
    assert "clear in both" in facts["note"]


def scored_of(target: Frame, **facts) -> Frame:
    """The scored set of a truth without clouds, where the target's mask is delivered."""
    return replace(target, role="occlusion", path=target.mask, bands=("CLASS",), facts=facts)


def test_a_paired_reference_is_moved_a_made_one_never(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.3)
    reference = make_frame(tmp_path, land, "c", role="reference", shift=(0.75, 0))
    for protocol, applied in (("paired", True), ("transplant", False), ("simulate", False)):
        scene = scene_of(target, reference, scored_of(target), protocol=protocol)
        done = coregister_scene(scene, tmp_path, CoregistrationOptions())
        assert facts_of(done, "c", "reference")["applied"] is applied
    assert (tmp_path / "coregistered" / "reference_2020-07-20.tif").exists()


def test_no_choice_of_masks_moves_the_truth_of_another_day(tmp_path, land):
    """Masks that call half the image cloud leave other pixels to read a shift from."""
    day, other = DATES["target"], DATES["c"]
    shifts = {day: (0, 0), other: (0.75, -0.5), DATES["a"]: (0.25, 0)}
    seen = {date: observe(land, shift, SIZE) for date, shift in shifts.items()}
    cloud = blobs(SIZE, 0.4, seed=1)
    seen[day] = np.where(cloud, 0.8, seen[day])
    scl = {date: np.full((1, SIZE, SIZE), 4, np.uint8) for date in shifts}
    scl[day][0, cloud] = 9
    grid = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), SIZE, SIZE)
    bands = ("B02", "B03", "B04", "B08")
    optical = {
        d: from_array(raster.to_dn(np.stack([image] * 4)), bands) for d, image in seen.items()
    }
    masks = {date: from_array(classes, ("SCL",)) for date, classes in scl.items()}
    series = SourceSeries(grid, "p", optical, masks, facts={"level": "L2A"})
    row = SceneRow("s", "local", "p", day, "paired", reference_date=other)
    scene = assemble(row, series, tmp_path, ProtocolSettings(seed=3), judge=judge_frame)
    left = []
    for options in (
        MaskOptions(target_growth_m=0, context_growth_m=0),
        MaskOptions(target_growth_m=120, context_growth_m=120),
    ):
        done = coregister_scene(
            mask_scene(scene, tmp_path, options), tmp_path, CoregistrationOptions()
        )
        [truth], [scored] = done.with_role("reference"), done.with_role("occlusion")
        np.testing.assert_allclose(truth.facts["unveil:shift_px"], (0.75, -0.5), atol=0.1)
        shift = {key: said for key, said in truth.facts.items() if "shift" in key}
        left.append((raster.sha256(truth.path), raster.sha256(scored.path), shift))
    assert left[0] == left[1]
    assert done.facts["coregistration"]["truth_clear_by"] == "delivered masks of both dates"


def test_a_truth_laid_onto_its_target_without_delivered_masks_says_so(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.3)
    reference = make_frame(tmp_path, land, "c", role="reference", shift=(0.75, 0))
    scored = scored_of(target, **{JUDGED: ["target", "reference"]})
    scene = scene_of(target, reference, scored, protocol="paired")
    done = coregister_scene(scene, tmp_path, CoregistrationOptions())
    said = done.facts["coregistration"]["truth_clear_by"]
    assert said.endswith("as no mask of target and reference is delivered")


def test_the_truth_is_never_the_anchor(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.6)
    reference = make_frame(tmp_path, land, "c", role="reference")
    scene = scene_of(target, reference, protocol="paired")
    assert choose_anchor(scene) == target


def test_the_anchor_is_the_clearest_frame_and_near_in_time_among_equals(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.5)
    late, near = make_frame(tmp_path, land, "c"), make_frame(tmp_path, land, "b", cover=0.01)
    cloudy = make_frame(tmp_path, land, "a", cover=0.3)
    scene = scene_of(target, late, near, cloudy)
    assert choose_anchor(scene).date == DATES["b"]


def test_a_scene_without_the_band_uses_its_first(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target")
    frames = target, make_frame(tmp_path, land, "b", shift=(0.5, 0))
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions(band="B11"))
    assert done.facts["coregistration"]["bands"] == ["B04"]
    assert facts_of(done, "b")["applied"] is True


def test_a_frame_without_a_mask_is_refused_as_nothing_tells_its_clouds(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", masked=False)
    frames = target, make_frame(tmp_path, land, "b", shift=(0.5, 0), masked=False)
    with pytest.raises(InputError, match="has no mask.*run the masks stage first"):
        coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())


def test_what_is_recorded_survives_the_scene_file(tmp_path, land):
    target = make_frame(tmp_path, land, "target", role="target", cover=0.3)
    frames = target, make_frame(tmp_path, land, "b", cover=0.99)
    done = coregister_scene(scene_of(*frames), tmp_path, CoregistrationOptions())
    save_scene(done, tmp_path / "scene.json")
    loaded = load_scene(tmp_path / "scene.json")
    assert facts_of(loaded, "b") == facts_of(done, "b")
    assert loaded.facts["coregistration"] == done.facts["coregistration"]
    assert "NaN" not in json.dumps(loaded.facts)
