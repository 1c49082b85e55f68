"""The threshold mask equals the mask of the published DSen2-CR code (golden A3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unveil.bands import CLEAR, CLOUD, L1C13, SHADOW
from unveil.masks.detectors import thresholds

TOLERANCE = 1e-6
"""The vectors allow 1e-5; float32 leaves 6e-8."""
CROPS = ("crop0_0", "crop64_64", "crop128_128")


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "A3_cloud_shadow_mask.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def cloudy(golden: Path) -> np.ndarray:
    with np.load(golden / "real_triplet.npz") as file:
        dn = file["s2_cloudy_dn"]
    return np.moveaxis(dn, -1, 0).astype(np.float32) / np.float32(10_000)


def image_of(case: str, cloudy: np.ndarray) -> np.ndarray:
    if case == "full":
        return cloudy
    row, col = (int(part) for part in case.removeprefix("crop").split("_"))
    return cloudy[:, row : row + 128, col : col + 128]


def clipped(score: np.ndarray) -> np.ndarray:
    return np.clip(score, 1e-5, 1)


def test_the_score_before_filters_agrees(vectors, cloudy):
    raw = thresholds.raw_score(cloudy, L1C13)
    np.testing.assert_allclose(
        clipped(raw), vectors["full_score_raw_clipped"], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        clipped(thresholds.close_gaps(raw)),
        vectors["full_score_closed_clipped"],
        rtol=0,
        atol=TOLERANCE,
    )


def test_the_moisture_test_agrees(vectors, cloudy):
    score = thresholds.cloud_score(cloudy, L1C13, moisture=True)
    expected = vectors["full_cloud_score_moist_check"]
    np.testing.assert_allclose(score, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["full", *CROPS])
def test_the_cloud_score_agrees(case, vectors, cloudy):
    score = thresholds.cloud_score(image_of(case, cloudy), L1C13)
    np.testing.assert_allclose(score, vectors[f"{case}_cloud_score"], rtol=0, atol=TOLERANCE)


def test_shadow_before_the_median_agrees(vectors, cloudy):
    statistics = thresholds.shadow_statistics([cloudy], L1C13)
    dark = thresholds.shadow_candidates(cloudy, L1C13, statistics)
    np.testing.assert_array_equal(dark, vectors["full_shadow_before_median"] == -1)


@pytest.mark.parametrize("case", ["full", *CROPS])
def test_shadow_agrees(case, vectors, cloudy):
    image = image_of(case, cloudy)
    statistics = thresholds.shadow_statistics([image], L1C13)
    found = thresholds.shadow(image, L1C13, statistics)
    np.testing.assert_array_equal(found, vectors[f"{case}_shadow"] == -1)


@pytest.mark.parametrize("case", ["full", *CROPS])
def test_the_mask_agrees_to_the_pixel(case, vectors, cloudy):
    published = vectors[f"{case}_mask"]
    expected = np.select([published == 1, published == -1], [CLOUD, SHADOW], CLEAR)
    np.testing.assert_array_equal(
        thresholds.threshold_mask(image_of(case, cloudy), L1C13), expected
    )
