"""U-TILISE against outputs of the published code (golden D)."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from unveil.bands import CLOUD, L1C13
from unveil.models import utilise
from unveil.models.base import ModelSpec
from unveil.models.layers.sequences import scale_radar
from unveil.scene import Inputs

CASES = [
    ("earthnet", "main"),
    ("earthnet", "padded_last_frame"),
    ("earthnet", "nonsquare"),
    ("sen12mscrts", "main"),
    ("sen12mscrts-s1", "main"),
]
FILES = {
    "earthnet": "D_utilise_earthnet.npz",
    "sen12mscrts": "D_utilise_sen12mscrts.npz",
    "sen12mscrts-s1": "D_utilise_sen12mscrts_with_s1.npz",
}


def read(path, prefix: str) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {k.removeprefix(prefix): archive[k] for k in archive.files if k.startswith(prefix)}


def state_of(golden, configuration: str) -> dict[str, np.ndarray]:
    if configuration == "sen12mscrts-s1":
        override = read(golden / FILES[configuration], "state_override/")
        return state_of(golden, "sen12mscrts") | override
    return read(golden / FILES[configuration], "state/")


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, golden):
    """Return the vectors of one case, with output and attention found, as published."""
    from unveil.models.layers.torch_state import TorchLayers

    configuration, name = request.param
    vectors = read(golden / FILES[configuration], f"{name}/")
    layers = TorchLayers(state_of(golden, configuration))
    frames = np.moveaxis(vectors["input"], 2, -1)
    output, attention = utilise.forward(layers, frames, vectors["days"])
    vectors["found"] = np.moveaxis(output.numpy(), -1, 2)
    vectors["attention_found"] = attention.numpy().transpose(3, 0, 4, 5, 1, 2)
    return vectors


def test_sequence_is_the_published_one(case):
    assert case["found"].shape == case["output"].shape
    assert np.abs(case["found"] - case["output"]).max() <= 1e-5


@pytest.mark.parametrize("case", CASES[:-1], ids="-".join, indirect=True)
def test_attention_is_the_published_one(case):
    expected = case["attention_head_b_tout_tin_h_w"]
    assert case["attention_found"].shape == expected.shape
    assert np.abs(case["attention_found"] - expected).max() <= 1e-5


@pytest.fixture(scope="module")
def real_crop(golden) -> tuple[np.ndarray, np.ndarray]:
    """Return reflectance and radar of the crop that is the first frame of D."""
    with np.load(golden / "real_triplet.npz") as triplet:
        crop = (slice(90, 154), slice(30, 94))
        optical = np.moveaxis(triplet["s2_cloudfree_dn"][crop], -1, 0) / np.float32(10_000)
        return optical, scale_radar(np.moveaxis(triplet["s1_db"][crop], -1, 0))


@pytest.mark.parametrize("configuration", utilise.CONFIGURATIONS)
def test_real_images_are_prepared_as_published(golden, real_crop, configuration):
    facts = utilise.CONFIGURATIONS[configuration]
    optical, radar = real_crop
    frame = utilise.network_input(
        optical[None, [L1C13.index(band) for band in facts.bands]],
        np.ones((1, 64, 64), bool),
        radar[None] if facts.radar else None,
    )
    expected = read(golden / FILES[configuration], "main/")["input"][0, :1]
    np.testing.assert_allclose(frame, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", [0, 2, 4])
def test_model_gives_the_published_image_of_the_target_date(golden, target):
    vectors = read(golden / FILES["earthnet"], "main/")
    frames, hidden = vectors["input"][0], vectors["mask"][0, :, 0] > 0
    days = vectors["days"][0] - vectors["days"][0, target]
    others = np.arange(len(frames)) != target
    spec = ModelSpec("u", "utilise", weights=golden / "D_utilise_earthnet_checkpoint.pth")
    classes = np.where(hidden, CLOUD, 0).astype(np.uint8)
    inputs = Inputs(
        bands=("B02", "B03", "B04", "B8A"),
        target=frames[target],
        target_class=classes[target],
        target_probability=hidden[target].astype(np.float32),
        context=frames[others],
        context_class=classes[others],
        days=days[others],
        sar=None,
        target_date=str(dt.date(2018, 1, 1) + dt.timedelta(int(vectors["days"][0, target]))),
        level="L1C",
    )
    found = utilise.UTilise(spec).predict(inputs).reflectance
    assert np.abs(found - vectors["output"][0, target]).max() <= 1e-5
