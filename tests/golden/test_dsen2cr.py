"""DSen2-CR against outputs of the published code (golden A1, A2)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from unveil.bands import L1C13
from unveil.models.base import ModelSpec
from unveil.models.dsen2cr import openvino
from unveil.models.dsen2cr.model import Dsen2Cr
from unveil.models.dsen2cr.network import build_network, compile_network, load_weights
from unveil.models.dsen2cr.recipe import fill_values, network_input
from unveil.models.dsen2cr.weights import Layer
from unveil.scene import Inputs
from unveil.weights.arrays import NamedArrays

BACKENDS = (
    "tensorflow",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("openvino") is None, reason="openvino (an extra) is missing"
        ),
    ),
)


def network_of(
    weights: dict[str, np.ndarray], *, radar: bool, features: int, blocks: int, backend: str
):
    if backend == "openvino":
        arrays = list(weights.values())
        layers = [Layer(*one) for one in zip(arrays[::2], arrays[1::2], strict=True)]
        return openvino.compile_network(layers, precision="float32")
    network = build_network(bands=13, radar=radar, features=features, blocks=blocks)
    load_weights(network, NamedArrays(weights, Path("weights.npz"), ""))
    return compile_network(network)


def inputs_of(target_dn: np.ndarray, sar_db: np.ndarray) -> Inputs:
    """Return channels-last DN and dB as the inputs of a model."""
    target = np.moveaxis(target_dn, -1, 0).astype(np.float32) / np.float32(10_000)
    size = target.shape[1:]
    return Inputs(
        bands=L1C13,
        target=target,
        target_class=np.zeros(size, np.uint8),
        target_probability=np.zeros(size, np.float32),
        context=np.empty((0, 13, *size), np.float32),
        context_class=np.empty((0, *size), np.uint8),
        days=np.empty(0, np.float32),
        sar=np.moveaxis(sar_db, -1, 0).astype(np.float32),
        target_date="2018-10-01",
        level="L1C",
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["sar", "nosar"])
def test_small_network_gives_the_published_output(golden, case, backend):
    with np.load(golden / f"A1_small_{case}.npz") as vectors:
        weights = {
            f"{what}_{n:02d}": vectors[f"{what}_{n:02d}"]
            for n in range(1, 11)
            for what in ("kernel", "bias")
        }
        run = network_of(weights, radar=case == "sar", features=32, blocks=4, backend=backend)
        for image in ("real", "rand"):
            difference = run(vectors[f"x_{image}"]) - vectors[f"y_{image}"]
            assert np.abs(difference).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_size_network_gives_the_published_output(golden, backend):
    with np.load(golden / "A1_full_recipe.npz") as archive:
        vectors = dict(archive)
    weights = weights_by_recipe(vectors)
    run = network_of(weights, radar=True, features=256, blocks=16, backend=backend)
    assert np.abs(run(vectors["x"]) - vectors["y"]).max() <= 2e-5


def weights_by_recipe(vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draw the weights of a network of the published size, as its official run did."""
    generator = np.random.default_rng(int(vectors["seed"]))
    weights = {}
    channels = [15, *[256] * 33, 13]
    for number, (before, after) in enumerate(zip(channels, channels[1:], strict=False), 1):
        kernel = generator.standard_normal((3, 3, before, after)) * np.sqrt(2 / (9 * before))
        weights[f"kernel_{number:02d}"] = (kernel * float(vectors["gain"])).astype(np.float32)
        bias = generator.standard_normal(after) * 0.01
        weights[f"bias_{number:02d}"] = bias.astype(np.float32)
    first = weights["kernel_17"].ravel()[:8]
    np.testing.assert_array_equal(first, vectors["check_kernel_17_first8"])
    np.testing.assert_array_equal(weights["bias_34"], vectors["check_bias_34"])
    return weights


def test_a_real_triplet_is_normalised_as_published(golden):
    with np.load(golden / "real_triplet.npz") as triplet:
        optical, radar = triplet["s2_cloudy_dn"], triplet["s1_db"]
    with np.load(golden / "A2_preprocessing.npz") as vectors:
        (row, col), size = vectors["crop_origin_row_col"], int(vectors["crop_size"])
        expected = vectors["crop_y"][0]
    crop = (slice(row, row + size), slice(col, col + size))
    assert np.abs(network_input_of(optical[crop], radar[crop]) - expected).max() <= 1e-6


def test_missing_pixels_get_one_fill_value_per_file(golden):
    with np.load(golden / "A2_preprocessing.npz") as vectors:
        radar, optical = vectors["nan_in_s1_db"], vectors["nan_in_s2_dn"]
        expected = vectors["nan_y"][0]
        fill_s1, fill_s2 = float(vectors["nan_fill_value_s1"]), float(vectors["nan_fill_value_s2"])
    fill = fill_values(np.moveaxis(optical, -1, 0), np.moveaxis(radar, -1, 0))
    assert fill.sar == pytest.approx(fill_s1, rel=1e-6)
    assert fill.optical == pytest.approx(fill_s2, rel=1e-6)
    assert np.abs(network_input_of(optical, radar) - expected).max() <= 1e-5


def test_the_model_fills_by_the_whole_scene_whatever_the_tiles(golden):
    with np.load(golden / "A2_preprocessing.npz") as vectors:
        radar, optical = vectors["nan_in_s1_db"], vectors["nan_in_s2_dn"]
        fill_s1, fill_s2 = float(vectors["nan_fill_value_s1"]), float(vectors["nan_fill_value_s2"])
    model = Dsen2Cr(ModelSpec("dsen2cr-sar", "dsen2cr"))
    tiles = [inputs_of(optical[rows], radar[rows]) for rows in (slice(0, 17), slice(17, 64))]
    model.prepare(None, tiles)
    assert model._fill.optical == pytest.approx(fill_s2, rel=1e-6)
    assert model._fill.sar == pytest.approx(fill_s1, rel=1e-6)


def network_input_of(optical_dn: np.ndarray, radar_db: np.ndarray) -> np.ndarray:
    """Return what the model feeds to its network, by way of reflectance."""
    model = Dsen2Cr(ModelSpec("dsen2cr-sar", "dsen2cr"))
    target_dn, sar_db = model._arrays(inputs_of(optical_dn, radar_db))
    return network_input(target_dn, sar_db, fill_values(target_dn, sar_db))
