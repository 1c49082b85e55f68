"""The published evaluators' own outputs are reproduced from the same images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unveil.metrics import definitions, published

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


def test_the_ssim_of_one_band_matches_tensorflows(golden, triplet) -> None:
    blend, target = (triplet[name][:, 3] / 10_000 for name in ("blend", "target"))
    expected = np.load(golden / "A4_dsen2cr_metrics.npz")["ssim_band_B4_only_blend"]
    assert definitions.ssim(blend, target) == pytest.approx(float(expected), abs=2e-5)


def _pair(triplet: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return triplet["target"], triplet["cloudy"]


@pytest.fixture(scope="module")
def others(golden: Path) -> dict[str, np.ndarray]:
    """Images in reflectance 0...1, masks, and the figures that the programs printed."""
    real = np.load(golden / "real_triplet.npz")
    inputs = np.load(golden / "B_other_metrics_inputs.npz")
    dn = {
        "target": real["s2_cloudfree_dn"],
        "cloudy": real["s2_cloudy_dn"],
        "blend": inputs["blend_dn"][0],
    }
    images = {
        name: np.clip(channels_first(image).astype(np.float64), 0, 10_000) / 10_000
        for name, image in dn.items()
    }
    return images | {
        "variance": channels_first(inputs["variance"][0]),
        "masks": inputs["masks3"],
        "target_masks": inputs["cloud_mask_utilise"],
        "classes": inputs["lulc_class"],
        "expected": json.loads((golden / "B_other_metrics.json").read_text()),
    }


def assert_same(found: dict[str, float], expected: dict[str, float], *, degrees: bool) -> None:
    for name, value in expected.items():
        tolerance = 1e-5 * abs(value)
        if "sam" in name.lower():  # the float32 arccosine again
            tolerance = 1e-3 if degrees else np.radians(1e-3)
        elif "ssim" in name.lower():
            tolerance = 2e-5
        assert found[name] == pytest.approx(value, rel=0, abs=tolerance, nan_ok=True), name


@pytest.mark.parametrize("image", ["cloudy", "blend"])
def test_uncrtaints_metrics_match_the_authors_program(others, image) -> None:
    images = (others[image], others["target"])
    expected = others["expected"]
    assert_same(published.uncrtaints(*images), expected[f"UnCRtainTS/{image}"], degrees=True)
    found = published.uncrtaints(*images, others["variance"])
    assert_same(found, expected[f"UnCRtainTS_with_var/{image}"], degrees=True)


@pytest.mark.parametrize("image", ["cloudy", "blend"])
@pytest.mark.parametrize(("masks", "n"), [("onemask", 1), ("threemasks", 3)])
def test_sen12mscrts_metrics_match_the_authors_program(others, image, masks, n) -> None:
    found = published.sen12mscrts(others[image], others["target"], others["masks"][:n])
    expected = others["expected"][f"SEN12MS-CR-TS_{masks}/{image}"]
    assert found.keys() == expected.keys()
    assert_same(found, expected, degrees=False)


def test_allclear_metrics_match_the_authors_program(others) -> None:
    predictions = np.stack([others["blend"], others["cloudy"], others["blend"]])
    targets = np.stack([others["target"]] * 3)
    valid = others["masks"] == 0
    valid[2] = False
    expected = others["expected"]
    found = published.allclear(predictions, targets, valid)
    for name, values in expected["AllClear_batch3/per_sample"].items():
        for number, value in enumerate(values):
            one = {name: found[name][number]}
            assert_same(one, {name: np.nan if value is None else value}, degrees=True)
    means = {name: np.nanmean(values) for name, values in found.items()}
    assert_same(means, expected["AllClear_batch3/agg"], degrees=True)
    for number, figures in expected["AllClear_batch3/lulc"].items():
        of_class = valid & (others["classes"] == int(number))
        found = published.allclear(predictions, targets, of_class)
        means = {name: np.nanmean(values) for name, values in found.items()}
        assert_same(means, figures, degrees=True)
    for image in ("cloudy", "blend"):
        single = published.allclear(others[image][None], targets[:1], valid[:1])
        means = {name: values[0] for name, values in single.items()}
        assert_same(means, expected[f"AllClear/{image}"], degrees=True)


@pytest.mark.parametrize(
    ("case", "target_masks", "frames", "degrees"),
    [
        ("all", None, None, False),
        ("masked_occl_deg", "target_masks", None, True),
        ("masked_rad", "target_masks", None, False),
        ("masked_padded", "target_masks", (True, True, False), False),
    ],
)
def test_utilise_metrics_match_the_authors_program(
    others, case, target_masks, frames, degrees
) -> None:
    target = others["target"]
    shifted = np.clip(target + 0.02, 0, 1)
    found = published.utilise(
        np.stack([others["blend"], others["cloudy"], shifted]),
        np.stack([target] * 3),
        input_masks=others["masks"],
        target_masks=others[target_masks] if target_masks else None,
        frames=frames,
    )
    if degrees:
        found = {k: np.degrees(v) if "sam" in k else v for k, v in found.items()}
    assert_same(found, others["expected"][f"U-TILISE/{case}"], degrees=degrees)


def test_figures_quoted_second_hand_say_so() -> None:
    quoted = {(f.model, f.dataset) for f in published.FIGURES if f.second_hand}
    assert quoted == {
        ("DSen2-CR", "SEN12MS-CR, reprocessed"),
        ("UnCRtainTS", "SEN12MS-CR, reprocessed"),
    }
