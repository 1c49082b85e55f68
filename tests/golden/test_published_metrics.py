"""The published evaluators' own outputs are reproduced from the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unveil.metrics import published

CASES = (
    "cloudy_as_prediction_full",
    "blend_as_prediction_full",
    "blend_batch2_crops",
    "blend_all_covered",
    "blend_none_covered",
)


def channels_first(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, -1, -3)


@pytest.fixture(scope="module")
def triplet(golden: Path) -> dict[str, np.ndarray]:
    """Target, cloudy and blend as ``(1, 13, 256, 256)`` DN clipped to 0...10000."""
    real = np.load(golden / "real_triplet.npz")
    images = {
        "target": real["s2_cloudfree_dn"][None],
        "cloudy": real["s2_cloudy_dn"][None],
        "blend": np.load(golden / "A4_dsen2cr_metrics.npz")["blend_dn"],
    }
    return {
        name: np.clip(channels_first(dn).astype(np.float64), 0, 10_000)
        for name, dn in images.items()
    }


def crops(image: np.ndarray, origins: np.ndarray) -> np.ndarray:
    return np.concatenate([image[..., r : r + 128, c : c + 128] for r, c in origins])


@pytest.mark.parametrize("case", CASES)
def test_dsen2cr_metrics_match_the_authors_program(golden, triplet, case) -> None:
    vectors = np.load(golden / "A4_dsen2cr_metrics.npz")
    mask = vectors["mask_binary"][..., 0]
    if case.endswith("covered"):
        mask = np.full_like(mask, case == "blend_all_covered")
    prediction = triplet["cloudy" if case.startswith("cloudy") else "blend"]
    images = [x / published.DSEN2CR_SCALE for x in (prediction, *_pair(triplet))] + [mask]
    if case == "blend_batch2_crops":
        images = [crops(image, vectors["crop_origins"]) for image in images]
    found = published.dsen2cr(*images)
    expected = dict(zip(vectors["metric_names"], vectors[f"values__{case}"], strict=True))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # The authors' arccosine in float32 leaves up to 5e-4 rad between equal spectra.
        tolerance = {"cloud_ssim": 2e-5, "cloud_psnr": 1e-3}.get(name, 1e-5 * abs(value))
        if "sam" in name:
            tolerance = 5e-4 if value < 1e-3 else 1e-4 * value
        assert found[name] == pytest.approx(value, rel=0, abs=tolerance + 1e-12), name


def _pair(triplet: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return triplet["target"], triplet["cloudy"]
