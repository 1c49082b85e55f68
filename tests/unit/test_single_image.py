"""Mean of clear pixels and inpainting, against closed forms and a direct computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unveil.bands import CLEAR, CLOUD, NODATA, SNOW
from unveil.models import inpaint
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene

BANDS = ("B02", "B03", "B08")
KINDS = ("clear_mean", "inpaint")
seeds = st.integers(0, 2**32 - 1)


def single(image: np.ndarray, hidden: np.ndarray) -> Inputs:
    """Return an image ``(B, H, W)`` with cloud on it and no other date."""
    bands, height, width = image.shape
    return Inputs(
        bands=BANDS[:bands],
        target=np.where(hidden, 0.9, image).astype(np.float32),
        target_class=np.where(hidden, CLOUD, CLEAR).astype(np.uint8),
        target_probability=np.full((height, width), np.nan, np.float32),
        context=np.empty((0, bands, height, width), np.float32),
        context_class=np.empty((0, height, width), np.uint8),
        days=np.empty(0, np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


def clouds(seed: int, shape: tuple[int, int], cover: float = 0.5) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    return noise > np.quantile(noise, 1 - cover)


def texture(seed: int, shape: tuple[int, int], bands: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(bands, *shape))
    return 0.3 + 0.1 * gaussian_filter(noise, (0, 3, 3)) / 0.1


def answer(kind: str, inputs: Inputs, tiles: list[Inputs] | None = None) -> np.ndarray:
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), *inputs.shape)
    frame = Frame(inputs.target_date, "target", None, inputs.bands)
    model = create(ModelSpec(kind, kind))
    model.prepare(Scene("s", "none", "p", grid, (frame,)), tiles or [inputs])
    return model.predict(inputs).reflectance


def quarters(inputs: Inputs, row: int, col: int) -> list[Inputs]:
    return [
        inputs.crop(rows, cols)
        for rows in (slice(0, row), slice(row, None))
        for cols in (slice(0, col), slice(col, None))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_image_is_found_under_any_cloud(kind):
    hidden = clouds(1, (70, 90), 0.9)
    image = np.array([0.1, 0.2, 0.4])[:, None, None] * np.ones((1, 70, 90))
    np.testing.assert_allclose(answer(kind, single(image, hidden)), image, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_clear_pixels_are_kept_and_missing_ones_stay_missing(kind):
    inputs = single(texture(2, (40, 50)), clouds(2, (40, 50)))
    inputs.target_class[:8] = SNOW
    inputs.target_class[20:25] = NODATA
    inputs.target[:, 20:25] = np.nan
    found = answer(kind, inputs)
    np.testing.assert_array_equal(
        found[:, inputs.target_clear], inputs.target[:, inputs.target_clear]
    )
    np.testing.assert_array_equal(np.isnan(found), np.isnan(inputs.target))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_cloud_looks_like_does_not_matter(kind):
    hidden = clouds(3, (40, 50))
    inputs = single(texture(3, (40, 50)), hidden)
    other = replace(inputs, target=np.where(hidden, np.float32(0.5), inputs.target))
    np.testing.assert_array_equal(answer(kind, inputs), answer(kind, other))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_clear_pixel_there_is_no_answer_and_a_note_says_so(kind):
    inputs = single(texture(4, (20, 20)), np.ones((20, 20), bool))
    model = create(ModelSpec(kind, kind))
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 20, 20)
    frame = Frame(inputs.target_date, "target", None, inputs.bands)
    model.prepare(Scene("s", "none", "p", grid, (frame,)), [inputs])
    assert np.isnan(model.predict(inputs).reflectance).all()
    assert model.notes == ("no answer: the target has no clear pixel",)


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, st.floats(0.2, 3), st.floats(0, 0.2))
@settings(max_examples=5)
def test_a_brighter_image_has_a_brighter_answer_by_as_much(kind, seed, gain, offset):
    image, hidden = texture(seed, (40, 50)), clouds(seed, (40, 50), 0.7)
    plain = answer(kind, single(image, hidden))
    changed = answer(kind, single(gain * image + offset, hidden))
    np.testing.assert_allclose(changed, gain * plain + offset, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, st.floats(0.01, 0.99))
@settings(max_examples=5)
def test_answers_lie_between_the_darkest_and_the_brightest_clear_pixel(kind, seed, cover):
    image, hidden = texture(seed, (40, 50)), clouds(seed, (40, 50), cover)
    found = answer(kind, single(image, hidden))
    known = image[:, ~hidden]
    assert (found >= known.min(axis=1)[:, None, None] - 1e-5).all()
    assert (found <= known.max(axis=1)[:, None, None] + 1e-5).all()


def test_the_clear_mean_is_the_mean_of_clear_pixels_of_all_tiles():
    image, hidden = texture(5, (40, 50)), clouds(5, (40, 50))
    inputs = single(image, hidden)
    found = answer("clear_mean", inputs, quarters(inputs, 13, 31))
    expected = image[:, ~hidden].astype(np.float32).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(
        found[:, hidden], expected[:, None].repeat(hidden.sum(), 1), rtol=1e-6
    )


def test_across_a_gap_in_a_ramp_both_sides_count_alike():
    ramp = np.broadcast_to(0.1 + 0.004 * np.arange(96), (1, 96, 96))
    hidden = np.zeros((96, 96), bool)
    hidden[:, 36:60] = True
    found = answer("inpaint", single(ramp, hidden))[0]
    np.testing.assert_allclose((found + found[:, ::-1]) / 2, 0.1 + 0.004 * 47.5, atol=1e-6)


def test_where_enough_is_clear_the_finest_gaussian_alone_decides():
    image, hidden = texture(6, (60, 60)), np.zeros((60, 60), bool)
    hidden[30, 30] = True
    weight = np.zeros((60, 60))
    weight[30, 30] = 1
    weight = gaussian_filter(weight, inpaint.FINE_PX[0], truncate=inpaint.GAUSSIAN_REACH) * ~hidden
    expected = (image * weight).sum(axis=(1, 2)) / weight.sum()
    found = answer("inpaint", single(image, hidden))
    np.testing.assert_allclose(found[:, 30, 30], expected, rtol=1e-5)


def test_far_from_everything_clear_a_hidden_pixel_has_the_mean_of_its_surroundings():
    """Two halves of one brightness each: near an edge its own half decides, however far."""
    image = np.where(np.arange(400) < 200, 0.1, 0.5) * np.ones((1, 64, 400))
    hidden = np.zeros((64, 400), bool)
    hidden[:, 40:360] = True
    found = answer("inpaint", single(image, hidden))[0, 32]
    assert found[60] < 0.15 and found[340] > 0.45
    np.testing.assert_allclose((found[199] + found[200]) / 2, 0.3, atol=0.02)


def test_cells_hold_the_clear_pixels_of_the_scene_whatever_its_tiles():
    inputs = single(texture(7, (70, 53)), clouds(7, (70, 53)))
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), *inputs.shape)
    whole = inpaint.clear_cells(grid, [inputs], bands=3)
    parts = inpaint.clear_cells(grid, quarters(inputs, 21, 37), bands=3)
    for found, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    weighted, share = whole
    clear = inputs.target_clear
    assert share.sum() * inpaint.CELL_PX**2 == pytest.approx(clear.sum())
    corner = (slice(0, inpaint.CELL_PX),) * 2
    np.testing.assert_allclose(
        weighted[:, 0, 0] / share[0, 0],
        inputs.target[:, *corner][:, clear[corner]].mean(axis=1),
        rtol=1e-5,
    )


def test_interpolation_is_that_of_numpy_along_each_axis():
    image = np.random.default_rng(8).normal(size=(2, 5, 7))
    rows, cols = np.linspace(-1, 6, 11), np.linspace(-0.5, 7, 9)
    found = inpaint.interpolate(image, rows, cols)
    for band in range(2):
        along = np.stack([np.interp(rows, range(5), image[band, :, c]) for c in range(7)], axis=1)
        both = np.stack([np.interp(cols, range(7), line) for line in along])
        np.testing.assert_allclose(found[band], both, atol=1e-12)
