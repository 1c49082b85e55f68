"""Unveil's metrics against scikit-image, closed forms and their invariants."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.windows import Window
from skimage.metrics import (
    mean_squared_error,
    peak_signal_noise_ratio,
    structural_similarity,
)

from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW
from unveil.errors import InputError, SceneSkipped
from unveil.metrics import aggregate, definitions, published, reading, scoring, strata, tables
from unveil.metrics.streaming import HALO, Accumulator
from unveil.raster import Grid
from unveil.scene import Frame, Scene, bbox

BANDS = ("B02", "B03", "B04", "B08")
REGIONS = ("all", "occluded")


def landscape(seed: int, bands: int = 4, height: int = 60, width: int = 75) -> np.ndarray:
    """Reflectance with structure at all scales, ``(B, H, W)`` in about .02...0.6."""
    rng = np.random.default_rng(seed)
    white = np.fft.rfft2(rng.standard_normal((bands, height, width)))
    rows, cols = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    smooth = np.fft.irfft2(white / np.maximum(np.hypot(rows, cols), 0.02), s=(height, width))
    return np.clip(0.2 + 0.08 * smooth / smooth.std(), 0.02, 0.9)


def reflectances(bands: int = 3) -> st.SearchStrategy[np.ndarray]:
    sides = st.integers(1, 6)
    shapes = st.tuples(st.just(bands), sides, sides)
    return shapes.flatmap(images)


def images(shape: tuple[int, int, int]) -> st.SearchStrategy[np.ndarray]:
    """Digital numbers 0...10000 as reflectance."""
    return hnp.arrays(np.uint16, shape, elements=st.integers(0, 10_000)).map(lambda dn: dn / 10_000)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    truth = landscape(1)
    return truth + 0.1 * (landscape(2) - 0.2), truth


def score_of(accumulator: Accumulator) -> dict[tuple[str, str, str], float | None]:
    return {(s.region, s.band, s.metric): s.value for s in accumulator.scores()}


# --- definitions ---------------------------------------------------------------------


def test_rmse_and_psnr_are_those_of_scikit_image(pair) -> None:
    prediction, truth = pair
    assert definitions.rmse(prediction, truth) ** 2 == pytest.approx(
        mean_squared_error(truth, prediction), rel=1e-12
    )
    assert definitions.psnr(prediction, truth) == pytest.approx(
        peak_signal_noise_ratio(truth, prediction, data_range=1), rel=1e-12
    )


def skimage_ssim(prediction: np.ndarray, truth: np.ndarray) -> float:
    return structural_similarity(
        truth,
        prediction,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=0,
    )


@pytest.mark.parametrize("shape", [(11, 11), (12, 43), (60, 75), (130, 97)])
def test_ssim_is_that_of_scikit_image(shape) -> None:
    truth, prediction = landscape(3, 2, *shape), landscape(4, 2, *shape)
    expected = skimage_ssim(prediction, truth)
    assert definitions.ssim(prediction, truth) == pytest.approx(expected, abs=1e-12)


def test_masked_ssim_with_everything_valid_is_the_plain_one(pair) -> None:
    everywhere = np.ones(pair[0].shape[1:], bool)
    assert definitions.ssim(*pair, everywhere) == pytest.approx(skimage_ssim(*pair), abs=1e-12)


def test_masked_ssim_far_from_the_mask_is_the_plain_one(pair) -> None:
    valid = np.ones(pair[0].shape[1:], bool)
    valid[:, 40:] = False
    masked, counted = definitions.ssim_map(*pair, valid)
    plain, _ = definitions.ssim_map(*pair)
    np.testing.assert_allclose(masked[:, :, :25], plain[:, :, :25], atol=1e-12)
    assert not counted[:, 35:].any()


def test_masked_ssim_is_the_weighted_formula_in_each_window(pair) -> None:
    valid = np.random.default_rng(0).random(pair[0].shape[1:]) < 0.8
    masked, counted = definitions.ssim_map(*pair, valid)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    for row, col in [(7, 9), (20, 40), (45, 60)]:
        here = (slice(row, row + 11), slice(col, col + 11))
        weight = window * valid[here] / window[valid[here]].sum()
        p, t = pair[0][1][here], pair[1][1][here]
        mu_p, mu_t = (weight * p).sum(), (weight * t).sum()
        covariance = np.cov(p.ravel(), t.ravel(), aweights=weight.ravel(), ddof=0)
        expected = ((2 * mu_p * mu_t + 1e-4) * (2 * covariance[0, 1] + 9e-4)) / (
            (mu_p**2 + mu_t**2 + 1e-4) * (covariance.trace() + 9e-4)
        )
        if counted[row, col]:
            assert masked[1, row, col] == pytest.approx(expected, rel=1e-10)


def test_what_lies_under_the_mask_does_not_matter(pair) -> None:
    prediction, truth = pair
    valid = np.random.default_rng(0).random(truth.shape[1:]) < 0.7
    spoilt = np.where(valid, prediction, np.nan)
    for metric in (
        definitions.mae,
        definitions.rmse,
        definitions.ssim,
        definitions.sam,
        definitions.r2,
        definitions.gradient_correlation,
    ):
        assert metric(spoilt, truth, valid) == metric(prediction, truth, valid)


def test_metrics_of_no_pixel_are_undefined(pair) -> None:
    nowhere = np.zeros(pair[0].shape[1:], bool)
    for metric in (
        definitions.mae,
        definitions.ssim,
        definitions.sam,
        definitions.r2,
        definitions.gradient_correlation,
    ):
        assert np.isnan(metric(*pair, nowhere))


@given(image=reflectances(), brightness=st.floats(0.01, 100))
def test_a_brightness_change_leaves_sam_at_zero(image, brightness) -> None:
    assert definitions.sam(brightness * image, image) == pytest.approx(0, abs=1e-5)


@given(angle=st.floats(1e-6, 90))
def test_sam_of_spectra_at_a_known_angle(angle) -> None:
    turned = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    prediction = 0.3 * turned.reshape(2, 1, 1)
    truth = np.array([0.7, 0.0]).reshape(2, 1, 1)
    assert definitions.sam(prediction, truth) == pytest.approx(angle, rel=1e-9)


def test_a_zero_spectrum_is_at_a_right_angle_to_any_other() -> None:
    zero, some = np.zeros((3, 1, 1)), np.full((3, 1, 1), 0.2)
    assert definitions.sam(zero, some) == definitions.sam(some, zero) == 90
    assert definitions.sam(zero, zero) == 0


@given(data=st.data(), truth=reflectances())
def test_mae_and_bias_never_exceed_rmse(data, truth) -> None:
    prediction = data.draw(images(truth.shape))
    rmse = definitions.rmse(prediction, truth)
    assert definitions.mae(prediction, truth) <= rmse * (1 + 1e-9)
    assert abs(definitions.bias(prediction, truth)) <= rmse * (1 + 1e-9)


@given(offset=st.floats(1e-4, 0.5))
def test_a_constant_offset_is_bias_mae_and_rmse_alike(offset) -> None:
    truth = landscape(5, 2, 12, 12)
    prediction = truth + offset
    for metric in (definitions.bias, definitions.mae, definitions.rmse):
        assert metric(prediction, truth) == pytest.approx(offset, rel=1e-9)
    assert definitions.psnr(prediction, truth) == pytest.approx(-20 * np.log10(offset))
    assert definitions.gradient_correlation(prediction, truth) == pytest.approx(1)


def test_r2_of_each_bands_mean_is_zero_and_of_the_truth_one(pair) -> None:
    truth = pair[1]
    flat = np.broadcast_to(truth.mean(axis=(1, 2), keepdims=True), truth.shape)
    assert definitions.r2(flat, truth) == pytest.approx(0, abs=1e-12)
    assert definitions.r2(truth, truth) == 1
    assert np.isnan(definitions.r2(truth, flat))


def test_blur_and_shift_lower_the_gradient_correlation(pair) -> None:
    truth = pair[1]
    blurred = np.stack([definitions.gaussian_mean(band) for band in truth])
    inner = truth[:, 5:-5, 5:-5]
    shifted = np.roll(truth, 2, axis=2)
    assert definitions.gradient_correlation(truth, truth) == pytest.approx(1)
    assert definitions.gradient_correlation(blurred, inner) < 0.9
    assert definitions.gradient_correlation(shifted, truth) < 0.5
    assert np.isnan(definitions.gradient_correlation(np.zeros_like(truth), truth))


def test_a_step_at_the_cloud_border_is_the_seam(pair) -> None:
    truth = pair[1]
    hidden = np.zeros(truth.shape[1:], bool)
    hidden[20:40, 10:50] = True
    assert definitions.seam(truth, truth, hidden) == 0
    assert definitions.seam(truth + 0.03 * hidden, truth, hidden) == pytest.approx(0.03)
    assert np.isnan(definitions.seam(truth, truth, np.zeros_like(hidden)))


def test_vegetation_and_water_indices() -> None:
    red, nir, green = np.array([0.1, 0.0]), np.array([0.3, 0.0]), np.array([0.2, 0.0])
    np.testing.assert_allclose(definitions.ndvi(red, nir), [0.5, 0])
    np.testing.assert_allclose(definitions.ndwi(green, nir), [-0.2, 0])


def test_means_keep_their_digits_on_a_large_float32_image() -> None:
    error = np.float32(0.1)
    truth = np.zeros((1, 2048, 2048), np.float32)
    prediction = np.full_like(truth, error)
    assert definitions.mae(prediction, truth) == pytest.approx(float(error), rel=1e-12)


# --- streaming -----------------------------------------------------------------------


def accumulate(prediction, truth, valid, hidden, block: int) -> Accumulator:
    """Score an image in windows of ``block`` pixels, each with its halo."""
    height, width = valid.shape
    grid = Grid("", (1, 0, 0, 0, -1, 0), height, width)
    sums = Accumulator(BANDS, REGIONS)
    for window in grid.windows(block):
        wide = grid.with_halo(window, HALO)
        rows, cols = wide.toslices()
        masks = {"all": np.ones_like(valid)[rows, cols], "occluded": hidden[rows, cols]}
        sums.update(
            prediction[:, rows, cols],
            truth[:, rows, cols],
            valid[rows, cols],
            masks,
            core=raster.within(window, wide),
        )
    return sums


@pytest.fixture
def clouded(pair) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    valid = rng.random(pair[1].shape[1:]) < 0.95
    hidden = landscape(8, 1)[0] > 0.22
    prediction = np.where(valid, pair[0], np.nan)
    return prediction, pair[1], valid, hidden


@pytest.mark.parametrize("block", [16, 31, 64])
def test_windows_add_up_to_the_whole_image(clouded, block) -> None:
    whole = list(accumulate(*clouded, block=1000).scores())
    pieces = list(accumulate(*clouded, block=block).scores())
    assert [replace(s, value=None) for s in pieces] == [replace(s, value=None) for s in whole]
    for one, other in zip(pieces, whole, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-13), one


def test_accumulated_scores_are_the_definitions(clouded) -> None:
    prediction, truth, valid, hidden = clouded
    found = score_of(accumulate(*clouded, block=32))
    chosen = valid & hidden
    for metric, function in {
        "MAE": definitions.mae,
        "RMSE": definitions.rmse,
        "bias": definitions.bias,
        "PSNR": definitions.psnr,
        "R2": definitions.r2,
    }.items():
        expected = function(prediction, truth, chosen)
        assert found["occluded", "all", metric] == pytest.approx(expected, rel=1e-9), metric
        one_band = function(prediction[2:3], truth[2:3], chosen)
        assert found["occluded", "B04", metric] == pytest.approx(one_band, rel=1e-9), metric
    for metric, function in {
        "SSIM": definitions.ssim,
        "SAM": definitions.sam,
        "gradient_correlation": definitions.gradient_correlation,
    }.items():
        expected = function(prediction, truth, valid)
        assert found["all", "all", metric] == pytest.approx(expected, rel=1e-9), metric
    vegetation = [definitions.ndvi(x[2], x[3]) for x in (prediction, truth)]
    expected = np.abs(vegetation[0] - vegetation[1])[chosen].mean()
    assert found["occluded", "all", "NDVI_MAE"] == pytest.approx(expected)
    expected = definitions.seam(prediction, truth, hidden, valid)
    assert found["occluded", "all", "seam"] == pytest.approx(expected)


def test_a_region_without_pixels_has_an_empty_value_and_no_pixels(pair) -> None:
    nowhere = np.zeros(pair[0].shape[1:], bool)
    sums = accumulate(*pair, ~nowhere, nowhere, block=32)
    empty = [score for score in sums.scores() if score.region == "occluded"]
    assert {score.metric for score in empty} >= {"MAE", "PSNR", "SSIM", "SAM", "seam"}
    assert all(score.value is None and score.n_pixels == 0 for score in empty)


def test_a_perfect_prediction_has_no_psnr_rather_than_an_infinite_one(pair) -> None:
    everywhere = np.ones(pair[0].shape[1:], bool)
    found = score_of(accumulate(pair[1], pair[1], everywhere, everywhere, block=32))
    assert found["all", "all", "PSNR"] is None
    assert found["all", "all", "SSIM"] == pytest.approx(1)


def test_images_smaller_than_the_window_have_no_ssim() -> None:
    tiny = np.full((4, 8, 8), 0.2)
    everywhere = np.ones((8, 8), bool)
    found = score_of(accumulate(tiny + 0.1, tiny, everywhere, everywhere, block=8))
    assert found["all", "all", "SSIM"] is None
    assert found["all", "all", "MAE"] == pytest.approx(0.1)


# --- scenes --------------------------------------------------------------------------

GRID = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), 40, 50)
DATES = ("2019-06-01", "2019-06-11")
TARGET = "2019-06-06"


def write(path: Path, data: np.ndarray, names: tuple[str, ...]) -> Path:
    raster.write_cog(path, data, GRID, descriptions=names, nodata=None)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A scene whose upper half is cloudy, with a strip of shadow and an unknown corner."""
    truth = landscape(11, 4, 40, 50)
    occlusion = np.full((40, 50), CLEAR, np.uint8)
    occlusion[:18], occlusion[18:20] = CLOUD, SHADOW
    occlusion[:5, :5] = NODATA
    cloudy = np.where(occlusion == CLOUD, 0.8, truth)
    frames = [
        ("target", TARGET, cloudy, occlusion),
        ("context", DATES[0], landscape(12, 4, 40, 50), np.zeros((40, 50), np.uint8)),
        ("context", DATES[1], landscape(13, 4, 40, 50), np.zeros((40, 50), np.uint8)),
        ("reference", TARGET, truth, np.zeros((40, 50), np.uint8)),
    ]
    frames[1][3][:8] = CLOUD
    frames[2][3][:] = CLOUD
    made = [_frame(tmp_path, *frame) for frame in frames]
    hidden = write(tmp_path / "occlusion.tif", occlusion[None], ("CLASS",))
    made.append(Frame(TARGET, "occlusion", hidden, ("CLASS",)))
    return Scene("here-20190606", "transplant", "here", GRID, tuple(made))


def _frame(folder: Path, role: str, date: str, image: np.ndarray, classes: np.ndarray) -> Frame:
    path = write(folder / f"{role}-{date}.tif", raster.to_dn(image), BANDS)
    mask = write(folder / f"mask-{role}-{date}.tif", classes[None], ("CLASS",))
    return Frame(date, role, path, BANDS, mask=mask, checksum=raster.sha256(path))


@pytest.fixture
def prediction(scene: Scene, tmp_path: Path) -> Path:
    """The truth, .01 too bright everywhere."""
    dn = raster.read(scene.with_role("reference")[0].path) + 100
    return write(tmp_path / "prediction.tif", dn, BANDS)


def table(rows: list[dict]) -> dict[tuple[str, str, str], tuple[float | None, int]]:
    return {(r["region"], r["band"], r["metric"]): (r["value"], r["n_pixels"]) for r in rows}


def test_a_scene_is_scored_region_by_region(scene, prediction) -> None:
    rows = scoring.score_scene(scene, prediction, model="m", block=16)
    assert all(tuple(row) == tables.COLUMNS for row in rows)
    found = table(rows)
    hidden, seen = 20 * 50 - 25, 20 * 50
    assert found["occluded", "all", "MAE"] == (pytest.approx(0.01, rel=1e-5), hidden)
    assert found["clear", "B08", "bias"] == (pytest.approx(0.01, rel=1e-5), seen)
    assert found["all", "all", "RMSE"] == (pytest.approx(0.01, rel=1e-5), hidden + seen)
    assert found["shadow", "all", "MAE"][1] == 100
    assert found["clear_kept", "all", "MAE"] == (pytest.approx(0.01, rel=1e-5), seen)
    assert found["never_seen", "all", "MAE"][1] == 8 * 50 - 25
    assert found["occluded", "all", "never_seen_fraction"][0] == pytest.approx(375 / hidden)
    assert found["occluded", "all", "days_to_clear_look"] == (5, hidden - 375)
    assert found["all", "all", "n_bands"][0] == 4
    assert {row["cloud_cover"] for row in rows} == {round(hidden / (hidden + seen), 6)}


def test_strata_divide_the_occluded_pixels(scene, prediction) -> None:
    found = table(scoring.score_scene(scene, prediction, model="m"))
    hidden = found["occluded", "all", "MAE"][1]
    unseen = found["never_seen", "all", "MAE"][1]
    looks = {name: found[name, "all", "MAE"][1] for name in strata.LOOKS}
    assert looks == {
        "look_0_5d": hidden - unseen,
        "look_6_15d": 0,
        "look_16_30d": 0,
        "look_31d": 0,
    }
    assert sum(found[name, "all", "MAE"][1] for name in strata.LAND_COVER) == hidden
    assert ("look_0_5d", "B04", "MAE") not in found, "strata are scored over bands only"


def test_rim_and_far_divide_the_clear_pixels_by_distance(tmp_path) -> None:
    """Two hidden pixels and an unknown one; the distance is that between centres."""
    occlusion = np.full((50, 60), CLEAR, np.uint8)
    occlusion[2, 3], occlusion[30, 55], occlusion[25, 25] = CLOUD, SHADOW, NODATA
    rows, cols = np.mgrid[:50, :60]
    apart = np.minimum(np.hypot(rows - 2, cols - 3), np.hypot(rows - 30, cols - 55))
    clear = occlusion == CLEAR
    rim, far = clear & (apart <= 20), clear & (apart > 20)
    grid = replace(GRID, height=50, width=60)
    truth = landscape(5, 4, 50, 60)
    dn = raster.to_dn(truth + np.where(rim, 0.03, 0.01))
    paths = {}
    for name, image in (("truth", raster.to_dn(truth)), ("answer", dn)):
        paths[name] = tmp_path / f"{name}.tif"
        raster.write_cog(paths[name], image, grid, descriptions=BANDS, nodata=0)
    paths["occlusion"] = tmp_path / "o.tif"
    raster.write_cog(
        paths["occlusion"], occlusion[None], grid, descriptions=("CLASS",), nodata=None
    )
    frames = (
        Frame(TARGET, "target", paths["answer"], BANDS),
        Frame(TARGET, "reference", paths["truth"], BANDS),
        Frame(TARGET, "occlusion", paths["occlusion"], ("CLASS",)),
    )
    here = Scene("s", "transplant", "here", grid, frames)
    for block in (16, 512):
        found = table(scoring.score_scene(here, paths["answer"], model="m", block=block))
        assert found["rim", "all", "MAE"] == (pytest.approx(0.03, abs=1e-4), rim.sum())
        assert found["far", "B04", "MAE"] == (pytest.approx(0.01, abs=1e-4), far.sum())


def test_without_the_level_of_the_scene_the_pattern_of_the_error_is_left(
    scene, prediction, tmp_path
) -> None:
    found = table(scoring.score_scene(scene, prediction, model="m"))
    hidden = found["occluded", "all", "MAE"][1]
    assert found["occluded", "all", "MAE_level_removed"] == (0, hidden), ".01 too bright all over"
    truth = raster.read(scene.with_role("reference")[0].path).astype(int)
    dn = truth + np.random.default_rng(0).integers(-300, 400, truth.shape)
    rough = write(tmp_path / "rough.tif", dn.clip(1).astype(np.uint16), BANDS)
    found = table(scoring.score_scene(scene, rough, model="m", block=16))
    occlusion = raster.read(scene.with_role("occlusion")[0].path)[0]
    here = (occlusion == CLOUD) | (occlusion == SHADOW)
    by_band = {}
    for band, p, t in zip(BANDS, dn.clip(1), truth, strict=True):
        error = (p[here] - t[here]) / 10_000
        by_band[band] = np.abs(error - error.mean()).mean()
        value = found["occluded", band, "MAE_level_removed"][0]
        assert value == pytest.approx(by_band[band], rel=1e-12)
    whole = found["occluded", "all", "MAE_level_removed"][0]
    assert whole == pytest.approx(np.mean(list(by_band.values())), rel=1e-12)
    assert whole == pytest.approx(
        definitions.mae_level_removed(dn.clip(1) / 10_000, truth / 10_000, here), rel=1e-9
    )


def test_haze_is_where_the_ground_shows_through(scene, prediction, tmp_path) -> None:
    """Thin cloud that no mask knows, and none where the truth is of another day."""
    dn = raster.read(scene.target.path)
    dn[:, 30:32] += 500  # clear by its mask, yet 0.05 too bright
    dn[:, 33] += 50  # less than haze
    hazy = write(tmp_path / "hazy.tif", dn, BANDS)
    frames = [replace(f, path=hazy) if f.role == "target" else f for f in scene.frames]
    hazy = replace(scene, frames=tuple(frames))
    found = table(scoring.score_scene(hazy, prediction, model="m", block=16))
    assert found["haze", "all", "MAE"] == (pytest.approx(0.01, rel=1e-5), 2 * 50)
    paired = replace(hazy, protocol="paired")
    assert table(scoring.score_scene(paired, prediction, model="m"))["haze", "all", "MAE"][1] == 0
    without = strata.haze_mask(np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.zeros((2, 2)), ("B04",))
    assert without is None


def test_a_class_raster_of_another_projection_sorts_the_occluded_pixels(
    scene, prediction, tmp_path
) -> None:
    west, south, east, north = bbox(GRID)
    step = (east - west) / 100
    rows = int((north - south) / step) + 9
    grid = Grid("EPSG:4326", (step, 0, west - 4 * step, 0, -step, north + 4 * step), rows, 110)
    codes = np.full((1, rows, 110), 40, np.uint8)
    codes[:, :, 55:] = 80
    path = tmp_path / "worldcover.tif"
    raster.write_cog(path, codes, grid, descriptions=("map",), nodata=0)
    classes = strata.LandCover(path, {"cropland": 40, "water": 80, "mangroves": 95})
    rows = scoring.score_scene(scene, prediction, model="m", land_cover=classes, block=16)
    found = table(rows)
    hidden = found["occluded", "all", "MAE"][1]
    crop, water = (found[name, "all", "MAE"][1] for name in ("cropland", "water"))
    assert crop + water == hidden and crop == pytest.approx(hidden / 2, rel=0.1)
    assert found["mangroves", "all", "MAE"] == (None, 0)
    assert ("vegetation", "all", "MAE") not in found


def test_scores_as_published_are_the_papers_definitions(scene, prediction, tmp_path) -> None:
    found = table(scoring.score_scene(scene, prediction, model="m"))
    p, t, c = (
        raster.read(path) / 10_000
        for path in (prediction, scene.with_role("reference")[0].path, scene.target.path)
    )
    occlusion = raster.read(scene.with_role("occlusion")[0].path)[0]
    hidden = np.isin(occlusion, (CLOUD, SHADOW))
    of_dsen2cr = published.dsen2cr(p[None] * 5, t[None] * 5, c[None] * 5, hidden[None])
    valid = (occlusion != NODATA)[None]
    expected = {
        "DSen2-CR": (
            of_dsen2cr["cloud_mean_absolute_error"] / 5,
            np.degrees(of_dsen2cr["cloud_mean_sam"]),
        ),
        "UnCRtainTS": tuple(published.uncrtaints(p, t)[name] for name in ("MAE", "SAM")),
        "AllClear": tuple(
            published.allclear(p[None], t[None], valid)[name][0] for name in ("MAE", "SAM")
        ),
    }
    for name, values in expected.items():
        for metric, value in zip(("MAE", "SAM"), values, strict=True):
            score = found[f"as_published:{name}", "all", metric]
            assert score == (pytest.approx(value, rel=1e-4), 2000), (name, metric)
    dn = raster.read(prediction)
    dn[:, :10] = 0
    gaps = table(scoring.score_scene(scene, write(tmp_path / "g.tif", dn, BANDS), model="m"))
    assert gaps["as_published:DSen2-CR", "all", "MAE"] == (None, 0)


@pytest.mark.parametrize("side", [100, 256, 383, 385, 10_980])
def test_patches_of_the_papers_tile_the_image(side) -> None:
    windows = list(scoring._published_patches((side, 120)))
    assert sum(window.height for window in windows) == side
    assert all(window.width == 120 for window in windows)
    assert side < 256 or all(171 <= window.height <= 384 for window in windows)


def test_a_standard_deviation_is_judged_where_there_is_one(scene, prediction, tmp_path) -> None:
    dn = np.full((4, 40, 50), 100, np.uint16)
    std = write(tmp_path / "std.tif", dn, BANDS)
    found = table(scoring.score_scene(scene, prediction, model="m", std=std, block=16))
    hidden = found["occluded", "all", "MAE"][1]
    # The error is one standard deviation everywhere: outside 68 %, inside 70 %.
    assert found["occluded", "all", "coverage_68"] == (0, hidden)
    assert found["occluded", "all", "coverage_70"][0] == 1
    assert found["occluded", "all", "UCE"][0] == pytest.approx(0, abs=1e-6)
    without = table(scoring.score_scene(scene, prediction, model="m"))
    assert not any(metric == "NLL" for _, _, metric in without)


def test_a_standard_deviation_of_students_t_is_judged_as_such(scene, prediction, tmp_path) -> None:
    dn = np.full((4, 40, 50), 100, np.uint16)
    tags = {"DISTRIBUTION": "student_t", "DEGREES_OF_FREEDOM": "3"}
    std = tmp_path / "std.tif"
    raster.write_cog(std, dn, scene.grid, descriptions=BANDS, nodata=0, tags=tags)
    found = table(scoring.score_scene(scene, prediction, model="m", std=std, block=16))
    # The error is one standard deviation everywhere, in a t of 3 degrees the 82 % interval.
    assert found["occluded", "all", "coverage_80"][0] == 0
    assert found["occluded", "all", "coverage_90"][0] == 1


def test_windows_do_not_change_the_scores_of_a_scene(scene, prediction) -> None:
    whole = table(scoring.score_scene(scene, prediction, model="m", block=512))
    pieces = table(scoring.score_scene(scene, prediction, model="m", block=16))
    assert whole.keys() == pieces.keys()
    for key, (value, count) in whole.items():
        expected = None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)
        assert pieces[key] == (expected, count), key


def test_unanswered_pixels_are_counted_not_scored(scene, prediction, tmp_path) -> None:
    dn = raster.read(prediction)
    dn[:, :10] = 0
    gaps = write(tmp_path / "gaps.tif", dn, BANDS)
    found = table(scoring.score_scene(scene, gaps, model="m"))
    hidden = 20 * 50 - 25
    assert found["occluded", "all", "MAE"] == (pytest.approx(0.01, rel=1e-5), 500)
    assert found["occluded", "all", "answered"] == (pytest.approx(500 / hidden), hidden)
    assert found["clear", "all", "answered"][0] == 1


def test_only_bands_that_prediction_and_truth_share_are_scored(
    scene, prediction, tmp_path, caplog
) -> None:
    dn = raster.read(prediction)[[3, 1]]
    some = write(tmp_path / "some.tif", dn, ("B08", "B03"))
    with caplog.at_level("INFO"):
        found = table(scoring.score_scene(scene, some, model="m"))
    assert "B02, B04" in caplog.text
    assert {band for _, band, _ in found} == {"B03", "B08", "all"}
    assert found["all", "all", "n_bands"][0] == 2
    assert found["all", "B03", "bias"][0] == pytest.approx(0.01, rel=1e-5)


def test_truth_without_data_is_left_out_and_no_mask_of_the_run_asked(
    scene, prediction, tmp_path
) -> None:
    reference = scene.with_role("reference")[0]
    dn = raster.read(reference.path)
    dn[2, 30] = 0
    classes = np.zeros((1, 40, 50), np.uint8)
    classes[0, 31] = CLOUD
    doubtful = replace(
        reference,
        path=write(tmp_path / "doubtful.tif", dn, BANDS),
        mask=write(tmp_path / "doubtful-mask.tif", classes, ("CLASS",)),
    )
    frames = tuple(doubtful if f.role == "reference" else f for f in scene.frames)
    found = table(scoring.score_scene(replace(scene, frames=frames), prediction, model="m"))
    assert found["clear", "all", "MAE"][1] == 20 * 50 - 50


def test_a_clear_target_has_empty_occluded_rows(scene, prediction) -> None:
    mask = scene.with_role("context")[0].mask
    raster.write_cog(
        mask, np.zeros((1, 40, 50), np.uint8), GRID, descriptions=("CLASS",), nodata=None
    )
    frames = tuple(replace(f, path=mask) if f.role == "occlusion" else f for f in scene.frames)
    found = table(scoring.score_scene(replace(scene, frames=frames), prediction, model="m"))
    assert found["occluded", "all", "MAE"] == (None, 0)
    assert found["occluded", "all", "answered"] == (None, 0)
    assert found["clear", "all", "MAE"][1] == 40 * 50


def test_a_scene_without_truth_is_skipped_with_a_reason(scene, prediction) -> None:
    with pytest.raises(SceneSkipped, match="no reference"):
        scoring.score_scene(scene.without_truth(), prediction, model="m")


def test_a_copy_of_the_truth_is_refused(scene) -> None:
    copy = scene.with_role("reference")[0].path
    with pytest.raises(InputError, match="equals the reference"):
        scoring.score_scene(scene, copy, model="m")


def test_a_blank_scene_is_no_leak(scene, prediction) -> None:
    """Blank rasters are all alike: that context and truth have one checksum says nothing."""
    reference = scene.with_role("reference")[0]
    blank = np.zeros((len(BANDS), *GRID.shape), np.uint16)
    raster.write_cog(reference.path, blank, GRID, descriptions=BANDS, nodata=0)
    alike = replace(scene.context[0], checksum=reference.checksum)
    frames = (alike, *(f for f in scene.frames if f is not scene.context[0]))
    with pytest.raises(SceneSkipped, match="the truth is not known at any pixel"):
        scoring.score_scene(replace(scene, frames=frames), prediction, model="m")


def test_one_band_has_no_spectral_angle(scene, tmp_path) -> None:
    dn = np.full((1, *GRID.shape), 1234, np.uint16)
    raster.write_cog(tmp_path / "one.tif", dn, GRID, descriptions=BANDS[:1], nodata=0)
    found = table(scoring.score_scene(scene, tmp_path / "one.tif", model="m"))
    assert found["occluded", "all", "MAE"][0] > 0
    assert all(value is None for key, (value, _) in found.items() if key[2] == "SAM")
    assert np.isnan(definitions.sam(dn, dn + 1))


def test_a_reference_among_the_inputs_is_refused(scene, prediction) -> None:
    reference = scene.with_role("reference")[0]
    leaked = replace(scene.context[0], checksum=reference.checksum)
    frames = (leaked, *(f for f in scene.frames if f is not scene.context[0]))
    with pytest.raises(InputError, match="among its context frames"):
        scoring.score_scene(replace(scene, frames=frames), prediction, model="m")


def test_a_reference_that_is_the_target_is_refused(scene, prediction) -> None:
    reference = scene.with_role("reference")[0]
    frames = tuple(
        replace(f, path=reference.path, checksum=reference.checksum) if f.role == "target" else f
        for f in scene.frames
    )
    with pytest.raises(InputError, match="same raster"):
        scoring.score_scene(replace(scene, frames=frames), prediction, model="m")


def test_a_context_frame_of_the_targets_day_is_refused(scene, prediction) -> None:
    same_day = replace(scene.context[0], date=TARGET)
    frames = (*scene.frames, same_day)
    with pytest.raises(InputError, match="target's day|reference's day"):
        scoring.score_scene(replace(scene, frames=frames), prediction, model="m")


def test_a_place_that_the_weights_were_made_on_is_known(scene, tmp_path) -> None:
    west, south, east, north = bbox(scene.grid)
    far, near = [west + 1, south, east + 1, north], [east + 0.02, south, east + 0.1, north]
    card = tmp_path / "w.json"
    card.write_text(json.dumps({"places": [{"id": "elsewhere", "bbox": far}]}))
    assert scoring.why_known(scene, tmp_path / "w.npz") == scoring.why_known(scene, None) == ""
    place = {"id": "next door", "bbox": near, "role": "validated on"}
    card.write_text(json.dumps({"places": [place]}))
    reason = scoring.why_known(scene, tmp_path / "w.npz")
    assert reason == "its weights were validated on next door, at or near this place"


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (np.ones((4, 40, 50), np.uint16), ("R", "G", "B", "N"), "no Sentinel-2 bands"),
        (np.ones((1, 40, 50), np.uint16), ("B12",), "the reference has B02"),
        (np.ones((4, 40, 50), np.float32), BANDS, "data type float32"),
    ],
)
def test_a_prediction_that_cannot_be_scored_says_why(scene, tmp_path, data, names, message) -> None:
    path = write(tmp_path / "bad.tif", data, names)
    with pytest.raises(InputError, match=message) as raised:
        scoring.score_scene(scene, path, model="m")
    assert str(path) in str(raised.value)
    assert "Remedy" in str(raised.value)


def test_a_prediction_on_another_grid_is_refused(scene, prediction) -> None:
    other = replace(scene, grid=replace(GRID, height=41))
    with pytest.raises(InputError, match="not on the grid"):
        scoring.score_scene(other, prediction, model="m")


# --- strata --------------------------------------------------------------------------


def test_the_nearest_look_is_in_days_and_infinite_where_there_is_none(scene) -> None:
    look = strata.nearest_look(scene)
    assert np.isinf(look[:8]).all()
    assert (look[8:] == 5).all()
    assert np.isinf(strata.nearest_look(replace(scene, frames=scene.frames[:1]))).all()
    window = Window(0, 6, 50, 4)
    np.testing.assert_array_equal(strata.nearest_look(scene, window), look[6:10])


def test_land_cover_is_told_by_the_spectrum_of_the_truth() -> None:
    # Columns: a lake, a meadow, a quarry, no data; B03, B04, B08.
    spectra = np.array([[0.06, 0.08, 0.2, np.nan], [0.03, 0.05, 0.25, 0.1], [0.02, 0.4, 0.3, 0.1]])
    occluded = np.ones((1, 4), bool)
    masks = strata.land_cover_masks(occluded, spectra[:, None], ("B03", "B04", "B08"))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "water": [0],
        "vegetation": [1],
        "bare": [2],
    }
    without = strata.land_cover_masks(occluded, spectra[:2, None], ("B02", "B03"))
    assert not any(mask.any() for mask in without.values())


@pytest.mark.parametrize(
    ("date", "latitude", "expected"),
    [("2019-01-15", 45, "winter"), ("2019-01-15", -33, "summer"), ("2019-10-01", 52, "autumn")],
)
def test_seasons_follow_the_hemisphere(date, latitude, expected) -> None:
    assert strata.season(pd.Timestamp(date).date(), latitude) == expected


# --- aggregation ---------------------------------------------------------------------


def test_scored_rows_survive_the_table(scene, prediction, tmp_path) -> None:
    rows = scoring.score_scene(scene, prediction, model="m")
    tables.write_rows(rows, tmp_path / "metrics.csv")
    scores = reading.read_scores(tmp_path / "metrics.csv")
    assert len(scores) == len(rows)
    assert "nan" not in (tmp_path / "metrics.csv").read_text()
    with open(tmp_path / "metrics.csv") as stream:
        assert next(csv.reader(stream)) == list(tables.COLUMNS)
    assert json.loads(json.dumps(rows))[0]["scene"] == scene.id
    places, levels = {scene.id: scene.place}, {"all": [scene.id]}
    over_bands = scores[scores["band"] == "all"]
    columns = aggregate.pool(over_bands, places=places, models={"m": "kind"}, levels=levels)
    assert (aggregate.pooled_table(columns)["n_scenes"] == 1).all()
