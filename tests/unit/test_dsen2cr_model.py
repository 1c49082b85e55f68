"""DSen2-CR against convolutions written out here, and its behaviour as a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import correlate2d

from unveil.bands import CORE6, L1C13
from unveil.errors import InputError, SceneSkipped
from unveil.models.base import ModelSpec
from unveil.models.dsen2cr.model import Dsen2Cr
from unveil.models.dsen2cr.network import build_network, compile_network, convolutions, load_weights
from unveil.models.dsen2cr.recipe import fill_values
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene
from unveil.weights.arrays import NamedArrays, write_arrays

FEATURES, BLOCKS = 5, 2


def recipe(*, bands: int, radar: bool, seed: int = 7) -> dict[str, np.ndarray]:
    """Return weights drawn from a seed, kernels HWIO."""
    generator = np.random.default_rng(seed)
    channels = [bands + 2 * radar, *[FEATURES] * (2 * BLOCKS + 1), bands]
    weights = {}
    for n, (before, after) in enumerate(zip(channels, channels[1:], strict=False), 1):
        kernel = generator.standard_normal((3, 3, before, after)) / np.sqrt(9 * before)
        weights[f"kernel_{n:02d}"] = kernel.astype(np.float32)
        weights[f"bias_{n:02d}"] = generator.normal(0, 0.1, after).astype(np.float32)
    return weights


def convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return the zero-padded convolution of ``(C, H, W)`` in float64."""
    return np.stack(
        [
            b + sum(correlate2d(x[i], kernel[:, :, i, o], "same") for i in range(len(x)))
            for o, b in enumerate(bias.astype(np.float64))
        ]
    )


def published_formula(x: np.ndarray, weights: dict[str, np.ndarray], bands: int) -> np.ndarray:
    """Return section 3.1 of the paper for one ``(C, H, W)`` image in network units."""
    layers = iter(
        [
            (weights[f"kernel_{n:02d}"].astype(np.float64), weights[f"bias_{n:02d}"])
            for n in range(1, len(weights) // 2 + 1)
        ]
    )
    hidden = np.maximum(convolve(x, *next(layers)), 0)
    for _ in range(BLOCKS):
        inner = np.maximum(convolve(hidden, *next(layers)), 0)
        hidden = hidden + 0.1 * convolve(inner, *next(layers))
    return x[:bands] + convolve(hidden, *next(layers))


def inputs_of(bands: tuple[str, ...], *, shape=(11, 9), radar: bool = True) -> Inputs:
    generator = np.random.default_rng(3)
    return Inputs(
        bands=bands,
        target=generator.uniform(-0.05, 1.2, (len(bands), *shape)).astype(np.float32),
        target_class=np.zeros(shape, np.uint8),
        target_probability=np.zeros(shape, np.float32),
        context=np.empty((0, len(bands), *shape), np.float32),
        context_class=np.empty((0, *shape), np.uint8),
        days=np.empty(0, np.float32),
        sar=generator.uniform(-40, 5, (2, *shape)).astype(np.float32) if radar else None,
        target_date="2020-06-01",
        level="L1C",
    )


def model_of(folder: Path, *, bands: tuple[str, ...] = CORE6, radar: bool = True):
    path = folder / "weights.npz"
    write_arrays(path, recipe(bands=len(bands), radar=radar))
    options = {"features": FEATURES, "blocks": BLOCKS, "bands": list(bands), "radar": radar}
    return Dsen2Cr(ModelSpec("small", "dsen2cr", weights=path, options=options))


@pytest.mark.parametrize("radar", [True, False])
@pytest.mark.parametrize("bands", [CORE6, L1C13])
def test_the_network_is_the_paper_s_formula(bands, radar):
    weights = recipe(bands=len(bands), radar=radar)
    network = build_network(bands=len(bands), radar=radar, features=FEATURES, blocks=BLOCKS)
    load_weights(network, NamedArrays(weights, Path("recipe"), ""))
    x = np.random.default_rng(1).uniform(0, 5, (2, 12, 10, len(bands) + 2 * radar))
    found = compile_network(network)(x)
    for image, output in zip(np.moveaxis(x, -1, 1), np.moveaxis(found, -1, 1), strict=True):
        expected = published_formula(image, weights, len(bands))
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("radar", "parameters"), [(True, 18_947_341), (False, 18_942_733)])
def test_the_published_network_has_the_published_size(radar, parameters):
    network = build_network(bands=13, radar=radar)
    assert network.count_params() == parameters
    assert len(convolutions(network)) == 34


def test_the_network_keeps_the_output_it_had_when_it_matched_the_published_one():
    """Recorded with the golden vectors of A1 passing; weights and input by seed."""
    network = build_network(bands=3, radar=True, features=FEATURES, blocks=BLOCKS)
    weights = NamedArrays(recipe(bands=3, radar=True), Path("drawn"), "")
    load_weights(network, weights)
    image = np.random.default_rng(8).uniform(0, 5, (1, 7, 9, 5)).astype(np.float32)
    found = compile_network(network)(image)[0, [0, 3, 6], [0, 4, 8]]
    np.testing.assert_allclose(found, RECORDED, rtol=0, atol=1e-4)


RECORDED = [
    [2.06328, 4.73933, 2.08381],
    [1.15302, 5.12479, 1.73538],
    [0.81779, 3.20230, 1.16063],
]


def test_the_receptive_field_is_exact(tmp_path):
    model = model_of(tmp_path)
    reach = model.receptive_field
    assert reach == 2 * BLOCKS + 2
    inputs = inputs_of(CORE6, shape=(31, 31))
    changed = inputs.target.copy()
    changed[:, 15, 15] += 0.3
    before = model.predict(inputs).reflectance
    after = model.predict(replace(inputs, target=changed)).reflectance
    rows, cols = np.nonzero((before != after).any(axis=0))
    assert (rows.min(), rows.max()) == (15 - reach, 15 + reach)
    assert (cols.min(), cols.max()) == (15 - reach, 15 + reach)


def spread_out(kernel: np.ndarray, dilation: int) -> np.ndarray:
    """Return a kernel (HWIO) with zeros between its weights."""
    size = 2 * dilation + 1
    wide = np.zeros((size, size, *kernel.shape[2:]), kernel.dtype)
    wide[::dilation, ::dilation] = kernel
    return wide


@pytest.mark.parametrize("backend", ["tensorflow", "openvino"])
def test_dilated_blocks_convolve_with_kernels_that_are_spread_out(tmp_path, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    weights = recipe(bands=6, radar=False)
    write_arrays(tmp_path / "w.npz", weights)
    options = {"features": FEATURES, "blocks": BLOCKS, "radar": False, "bands": list(CORE6)}
    spec = ModelSpec("m", "dsen2cr", weights=tmp_path / "w.npz", options=options)
    model = Dsen2Cr(replace(spec, options=options | {"dilations": [1, 3]}))
    assert model.receptive_field == 2 + 2 * (1 + 3)
    model.backend = backend
    model.load()
    image = np.random.default_rng(8).uniform(0, 5, (1, 17, 19, 6)).astype(np.float32)
    spread = {
        name: spread_out(a, 3) if name in ("kernel_04", "kernel_05") else a
        for name, a in weights.items()
    }
    expected = published_formula(np.moveaxis(image[0], -1, 0).astype(float), spread, 6)
    np.testing.assert_allclose(np.moveaxis(model._run(image)[0], -1, 0), expected, atol=1e-5)


@pytest.mark.parametrize("dilations", [[], [0], [1.5], "2"])
def test_dilations_are_whole_numbers(dilations):
    with pytest.raises(InputError, match="give a list of whole numbers from 1"):
        Dsen2Cr(ModelSpec("m", "dsen2cr", options={"dilations": dilations}))


def test_the_published_network_needs_a_halo_of_34_pixels():
    assert Dsen2Cr(ModelSpec("m", "dsen2cr")).receptive_field == 34


def test_prediction_is_the_formula_in_reflectance(tmp_path):
    inputs = inputs_of(CORE6)
    found = model_of(tmp_path).predict(inputs)
    optical = np.clip(inputs.target.astype(np.float64) * 10_000, 0, 10_000) / 2_000
    vv = (np.clip(inputs.sar[0], -25, 0) + 25) / 25 * 2
    vh = (np.clip(inputs.sar[1], -32.5, 0) + 32.5) / 32.5 * 2
    weights = recipe(bands=6, radar=True)
    expected = published_formula(np.concatenate([optical, [vv], [vh]]), weights, 6) / 5
    assert found.reflectance.dtype == np.float32
    np.testing.assert_allclose(found.reflectance, expected, rtol=0, atol=1e-5)


def test_bands_are_found_by_name_in_any_order(tmp_path):
    model, inputs = model_of(tmp_path), inputs_of(CORE6)
    turned = replace(inputs, bands=CORE6[::-1], target=inputs.target[::-1])
    found = model.predict(turned)
    assert found.bands == CORE6
    np.testing.assert_array_equal(found.reflectance, model.predict(inputs).reflectance)


def test_nodata_stays_nodata_and_elsewhere_all_is_finite(tmp_path):
    inputs = inputs_of(CORE6)
    target, sar = inputs.target.copy(), inputs.sar.copy()
    target[:, :3, :2], target[2, 5, 5], sar[1, 4:6] = np.nan, np.nan, np.nan
    found = model_of(tmp_path).predict(replace(inputs, target=target, sar=sar)).reflectance
    np.testing.assert_array_equal(np.isnan(found), np.isnan(target))


def test_fill_values_are_those_of_the_scene_however_it_is_cut(tmp_path):
    inputs = inputs_of(CORE6)
    target = inputs.target.copy()
    target[:, 2:4] = np.nan
    tiles = [
        replace(inputs, target=target[:, rows], sar=inputs.sar[:, rows])
        for rows in (slice(0, 3), slice(3, 11))
    ]
    model = model_of(tmp_path)
    model.prepare(None, tiles)
    whole = fill_values(target * np.float32(10_000), inputs.sar)
    assert model._fill.optical == pytest.approx(whole.optical, rel=1e-12)
    assert model._fill.sar == pytest.approx(whole.sar, rel=1e-12)
    assert whole.optical == pytest.approx(np.nanmean(target.astype(np.float64)) * 1e4, rel=1e-6)


@pytest.mark.parametrize("part", ["target", "sar"])
def test_a_scene_without_a_valid_pixel_is_skipped(tmp_path, part):
    inputs = inputs_of(CORE6)
    empty = replace(inputs, **{part: np.full_like(getattr(inputs, part), np.nan)})
    with pytest.raises(SceneSkipped, match="no valid pixel"):
        model_of(tmp_path).prepare(None, [empty])


def test_one_band_of_wrong_width_is_refused(tmp_path):
    model = model_of(tmp_path)
    options = {**model.spec.options, "features": FEATURES + 1}
    other = Dsen2Cr(replace(model.spec, options=options))
    with pytest.raises(InputError, match=r"of 5 features.*of 6 features"):
        other.load()


def scene_of(bands: tuple[str, ...], level: str, *, radar: bool) -> Scene:
    frames = [Frame("2020-06-01", "target", Path("t.tif"), bands)]
    if radar:
        frames.append(Frame("2020-06-02", "radar", Path("s.tif"), ("VV", "VH")))
    grid = Grid("EPSG:32632", (10, 0, 0, 0, -10, 0), 8, 8)
    return Scene("s", "paired", "p", grid, tuple(frames), {"level": level})


def test_without_weights_the_scene_is_skipped_and_says_how_to_get_them(tmp_path):
    for weights in (None, tmp_path / "absent.hdf5"):
        model = Dsen2Cr(ModelSpec("m", "dsen2cr", weights=weights))
        reason = model.skip(scene_of(L1C13, "L1C", radar=True))
        assert reason.startswith("weights not fetched")
        assert "snakemake fetch_weights" in reason


def test_bands_radar_and_level_that_are_lacking_are_reasons_to_skip(tmp_path):
    full = model_of(tmp_path, bands=L1C13)
    assert full.skip(scene_of(L1C13, "L1C", radar=True)) is None
    assert "B10" in full.skip(scene_of(CORE6, "L1C", radar=True))
    assert "radar" in full.skip(scene_of(L1C13, "L1C", radar=False))
    assert "L1C" in full.skip(scene_of(L1C13, "L2A", radar=True))
    small = model_of(tmp_path, radar=False)
    assert small.skip(scene_of(CORE6, "L2A", radar=False)) is None


def test_weights_tell_where_they_come_from(tmp_path):
    assert model_of(tmp_path).origin == "trained-here"
    assert Dsen2Cr(ModelSpec("m", "dsen2cr", weights=Path("w.hdf5"))).origin == "published"


def test_the_checksum_is_that_of_the_file(tmp_path):
    from unveil.raster import sha256

    model = model_of(tmp_path)
    model.load()
    assert model.weights_checksum == sha256(model.spec.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature": 8}, r"options\.feature.*use 'features'"),
        ({"features": "256"}, r"options\.features.*'256'"),
        ({"blocks": 0}, r"options\.blocks.*found 0"),
        ({"radar": "yes"}, r"options\.radar.*true or false"),
        ({"bands": ["B02", "B99"]}, r"options\.bands.*B99"),
        ({"bands": ["B02", "B2"]}, r"options\.bands.*each band once"),
        ({"origin": "mine"}, r"options\.origin.*trained-here"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(options, message):
    with pytest.raises(InputError, match=message):
        Dsen2Cr(ModelSpec("m", "dsen2cr", options=options))
