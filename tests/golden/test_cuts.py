"""Every published code on the small cuts of its outputs that lie beside the tests.

These run for everyone; the other tests of this folder need the whole vectors.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.golden.drawn import draw_again
from tests.golden.make_cuts import CUTS, DATA
from tests.golden.test_dsen2cr import BACKENDS, network_input_of, network_of, weights_by_recipe
from tests.golden.test_vpint2 import MISSING_ABOVE, ONE_DN, RUNS, fill

from unveil.bands import L1C13
from unveil.masks.detectors import thresholds
from unveil.models import uncrtaints, utilise
from unveil.models.anytimeformer import model as anytimeformer
from unveil.models.dsen2cr import recipe as dsen2cr
from unveil.models.layers.sequences import scale_radar
from unveil.models.vpint2 import Propagation, grow_missing, neighbour_weights


def read(name: str) -> dict[str, np.ndarray]:
    """Read a cut; what was narrowed to float16 without loss is float32 again."""
    with np.load(DATA / f"{name}.npz") as archive:
        arrays = dict(archive)
    return {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in arrays.items()}


def test_the_cuts_stay_small():
    sizes = {path.name: path.stat().st_size for path in DATA.glob("*.npz")}
    assert sum(sizes.values()) < 1_000_000, sizes


@pytest.mark.parametrize("name", CUTS)
def test_the_cuts_are_parts_of_the_whole_vectors(golden, name):
    with np.load(DATA / f"{name}.npz") as archive:
        whole = CUTS[name](golden)
        assert set(archive.files) == set(whole)
        for key, array in whole.items():
            np.testing.assert_array_equal(archive[key].astype(array.dtype), array)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_small_dsen2cr_gives_the_published_output_up_to_its_zero_padding(backend):
    cut = read("dsen2cr_small")
    weights = {
        f"{w}_{n:02d}": cut[f"{w}_{n:02d}"] for n in range(1, 11) for w in ("kernel", "bias")
    }
    run = network_of(weights, radar=True, features=32, blocks=4, backend=backend)
    rows, cols = cut["y"].shape[1:3]
    assert np.abs(run(cut["x"])[:, :rows, :cols] - cut["y"]).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_dsen2cr_of_the_published_size_gives_the_published_output(backend):
    cut = read("dsen2cr_full")
    weights = weights_by_recipe(cut)
    run = network_of(weights, radar=True, features=256, blocks=16, backend=backend)
    assert np.abs(run(cut["x"])[:, ::6, ::6] - cut["y"]).max() <= 2e-5


def test_dsen2cr_gets_real_images_as_published():
    cut = read("dsen2cr_input")
    found = network_input_of(cut["optical_dn"], cut["radar_db"])
    assert np.abs(found - cut["y"]).max() <= 1e-6


def test_dsen2cr_gets_missing_pixels_filled_as_published():
    cut = read("dsen2cr_input")
    optical, radar = (np.moveaxis(cut[name], -1, 0) for name in ("nan_optical_dn", "nan_radar_db"))
    assert np.isnan(optical).any() and np.isnan(radar).any()
    fill_of_file = dsen2cr.Fill(float(cut["nan_fill_optical"]), float(cut["nan_fill_radar"]))
    found = dsen2cr.network_input(optical, radar, fill_of_file)
    assert np.abs(found - cut["nan_y"]).max() <= 1e-5


def test_cloud_scores_are_those_of_the_published_mask():
    cut = read("threshold_mask")
    image = np.moveaxis(cut["optical_dn"], -1, 0).astype(np.float32) / np.float32(10_000)
    inner = (slice(10, -10), slice(10, -10))
    raw = thresholds.raw_score(image, L1C13)
    found = {
        "score_raw_clipped": np.clip(raw, 1e-5, 1),
        "inner_score_closed_clipped": np.clip(thresholds.close_gaps(raw), 1e-5, 1)[inner],
        "inner_cloud_score": thresholds.cloud_score(image, L1C13)[inner],
        "inner_cloud_score_moist_check": thresholds.cloud_score(image, L1C13, moisture=True)[inner],
    }
    for name, score in found.items():
        np.testing.assert_allclose(score, cut[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def small32():
    """Return the case of UnCRtainTS's cut, the frames that it is given among it, and its layers."""
    from unveil.models.layers.torch_state import TorchLayers

    cut = read("uncrtaints")
    layers = TorchLayers(draw_again(cut, uncrtaints.state_shapes()))
    case = {n.removeprefix("small32/"): a for n, a in cut.items() if n.startswith("small32/")}
    return case | {"frames": 10 * np.moveaxis(case["input_01"], 2, -1)}, layers


def test_uncrtaints_sees_the_published_features_in_a_frame(small32):
    case, layers = small32
    found = uncrtaints.encode(layers, case["frames"][:, 0]).numpy()[:, ::4, ::4, ::8]
    expected = np.moveaxis(case["in_block_output_t0"], 1, -1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-5


def test_uncrtaints_gives_the_published_means_and_variances_and_attention(small32):
    case, layers = small32
    output, attention = uncrtaints.forward(layers, case["frames"], case["dates"].astype(np.float32))
    expected = case["raw_output"][0, 0]
    found = np.moveaxis(output.numpy()[0], -1, 0)[:, ::3, ::3]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-4
    attention = attention.numpy().transpose(3, 0, 4, 1, 2)[..., ::4, ::4]
    assert attention.shape == case["attention_lowres"].shape
    assert np.abs(attention - case["attention_lowres"]).max() <= 1e-5


def run_utilise(name: str, configuration: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return a cut of U-TILISE, and the sequence and attention that we find."""
    from unveil.models.layers.torch_state import TorchLayers

    cut = read(name)
    shapes = utilise.state_shapes(utilise.CONFIGURATIONS[configuration])
    layers = TorchLayers(draw_again(cut, shapes))
    frames = np.moveaxis(cut["input_dn"].astype(np.float32) / np.float32(10_000), 2, -1)
    output, attention = utilise.forward(layers, frames, cut["days"].astype(np.float32))
    return cut, np.moveaxis(output.numpy(), -1, 2), attention.numpy().transpose(3, 0, 4, 5, 1, 2)


def test_utilise_gives_the_published_sequence_and_attention():
    cut, found, attention = run_utilise("utilise", "earthnet")
    assert cut["output"][:, :-1].std() > 0.05
    assert np.abs(found[..., ::3, ::3] - cut["output"]).max() <= 1e-5
    assert attention.shape == cut["attention"].shape
    assert np.abs(attention - cut["attention"]).max() <= 1e-5


def test_utilise_for_thirteen_bands_gives_the_published_sequence():
    cut, found, _ = run_utilise("utilise_sen12mscrts", "sen12mscrts")
    assert cut["output"].shape[2] == len(L1C13)
    assert np.abs(found[..., ::4, ::4] - cut["output"]).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("uncrtaints", "C_uncrtaints_forward.npz"),
        ("utilise", "D_utilise_earthnet.npz"),
        ("utilise_sen12mscrts", "D_utilise_sen12mscrts.npz"),
    ],
)
def test_weights_drawn_again_are_the_published_ones_to_the_bit(golden, name, file):
    with np.load(golden / file) as archive:
        state = {
            n.removeprefix("state/"): archive[n]
            for n in archive.files
            if n.startswith("state/") and not n.endswith("num_batches_tracked")
        }
    found = draw_again(read(name), {name: array.shape for name, array in state.items()})
    assert set(found) == set(state)
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("configuration", utilise.CONFIGURATIONS)
def test_utilise_gets_real_images_as_published(configuration):
    cut, facts = read("utilise_input"), utilise.CONFIGURATIONS[configuration]
    optical = np.moveaxis(cut["optical_dn"], -1, 0) / np.float32(10_000)
    radar = scale_radar(np.moveaxis(cut["radar_db"], -1, 0))
    found = utilise.network_input(
        optical[None, [L1C13.index(band) for band in facts.bands]],
        np.ones((1, 16, 16), bool),
        radar[None] if facts.radar else None,
    )
    expected = cut[f"{configuration}/input"][None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_anytimeformer_gets_series_as_published():
    cut = read("anytimeformer_input")
    reflectance = cut["reflectance_dn"].astype(np.float32) / 1e4
    seen = cut["valid_in"].T > 0
    optical = anytimeformer.normalise_optical(reflectance, seen).swapaxes(0, 1)
    np.testing.assert_allclose(optical, cut["x_norm"], rtol=0, atol=1e-5)
    radar = anytimeformer.normalise_radar(cut["radar_db"]).swapaxes(0, 1)
    np.testing.assert_allclose(radar, cut["x_aux_norm"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_vpint2_settles_where_and_when_the_published_one_does(name):
    cut = read("vpint2")
    reference = cut["reference_dn"].astype(np.float32)
    values, counts = fill(cut, cut["mask"] > MISSING_ABOVE, reference, RUNS[name])
    assert np.abs(counts - cut[f"iters_{name}"]).max() <= 2
    np.testing.assert_allclose(values, cut[f"out_{name}"], rtol=0, atol=ONE_DN)


def test_vpint2_weighs_by_ratios_of_the_reference():
    cut = read("vpint2")
    weights = neighbour_weights(cut["reference_dn"][..., 0].astype(np.float32))
    for found, name in zip(weights, ("up", "right", "down", "left"), strict=True):
        np.testing.assert_allclose(found[:16, :16], cut[f"weights_b0_{name}"], rtol=1e-5)


def test_vpint2_with_a_buffered_mask_and_zeros_in_the_reference():
    cut = read("vpint2")
    missing = grow_missing(cut["mask"] > MISSING_ABOVE, reach=3, passes=2)
    np.testing.assert_array_equal(missing, cut["buffered_missing"])
    reference = cut["reference_with_zeros_dn"].astype(np.float32)
    values, _ = fill(cut, missing, reference, Propagation())
    expected = cut["out_buffered_zero_reference"]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=ONE_DN)
