"""UnCRtainTS against outputs of the published code (golden C)."""

from __future__ import annotations

import numpy as np
import pytest

from unveil.models import uncrtaints
from unveil.models.layers.sequences import scale_radar
from unveil.weights.read import read_state

CASES = ("main", "nonsquare", "padded", "small32")


@pytest.fixture(scope="module")
def vectors(golden):
    with np.load(golden / "C_uncrtaints_forward.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def layers(vectors):
    from unveil.models.layers.torch_state import TorchLayers

    return TorchLayers(
        {k.removeprefix("state/"): v for k, v in vectors.items() if k.startswith("state/")}
    )


@pytest.fixture(scope="module", params=CASES)
def case(request, vectors, layers):
    """Return expected output and attention with those found, in the published layout."""
    frames = 10 * np.moveaxis(vectors[f"{request.param}/input_01"], 2, -1)
    output, attention = uncrtaints.forward(layers, frames, vectors[f"{request.param}/dates"])
    found = np.moveaxis(output.numpy(), -1, 1)[:, None]
    expected = vectors[f"{request.param}/attention_lowres"]
    every = attention.shape[1] // expected.shape[-1]
    return {
        "output": (found, vectors[f"{request.param}/raw_output"]),
        "attention": (
            attention.numpy().transpose(3, 0, 4, 1, 2)[..., ::every, ::every],
            expected,
        ),
    }


def test_means_and_variances_are_the_published_ones(case):
    found, expected = case["output"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-4


def test_attention_is_the_published_one(case):
    found, expected = case["attention"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5


def test_features_of_a_frame_are_the_published_ones(vectors, layers):
    frame = 10 * np.moveaxis(vectors["small32/input_01"][:, 0], 1, -1)
    expected = np.moveaxis(vectors["small32/in_block_output_t0"], 1, -1)
    assert np.abs(uncrtaints.encode(layers, frame) - expected).max() <= 2e-5


def test_the_compiled_graph_gives_the_same(vectors):
    from unveil.models.layers.torch_state import compile_network

    state = {k.removeprefix("state/"): v for k, v in vectors.items() if k.startswith("state/")}
    run = compile_network(lambda *given: uncrtaints.forward(*given)[0], state)
    frames = 10 * np.moveaxis(vectors["small32/input_01"], 2, -1)
    found = np.moveaxis(run(frames, vectors["small32/dates"]), -1, 1)[:, None]
    assert np.abs(found - vectors["small32/raw_output"]).max() <= 2e-5


def test_means_and_variances_give_the_published_likelihoods(vectors, layers):
    target = 10 * np.moveaxis(vectors["main/target_01"][:, 0], 1, -1)
    log_determinants, distances = [], []
    for case in ("main", "padded"):
        frames = 10 * np.moveaxis(vectors[f"{case}/input_01"], 2, -1)
        output = uncrtaints.forward(layers, frames, vectors[f"{case}/dates"])[0].numpy()
        mean, variance = output[..., :13].astype(float), output[..., 13:].astype(float)
        log_determinants.append(np.log(variance).sum(axis=-1))
        distances.append(((mean - target) ** 2 / variance).sum(axis=-1))
    constant = 6.5 * np.log(2 * np.pi)
    found = {
        "main": constant + (log_determinants[0] + distances[0]).mean() / 2,
        "padded": constant + (log_determinants[1] + distances[1]).mean() / 2,
        # As published: the log-determinant is summed over the batch, all else is its mean.
        "batch_of_main_and_padded": constant
        + (sum(log_determinants) + np.mean(distances, axis=0)).mean() / 2,
    }
    for case, value in found.items():
        np.testing.assert_allclose(value, vectors[f"loss/mgnll_{case}_scaled"], rtol=1e-4)


@pytest.fixture(scope="module")
def checkpoint(golden):
    return golden / "C_uncrtaints_ckpt" / "model_epoch_1.pth.tar"


def test_the_published_checkpoint_has_all_weights_of_the_network(checkpoint, vectors):
    state = read_state(checkpoint, "state_dict_G", uncrtaints.state_shapes())
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(array, vectors[f"state/{name}"])


def test_real_images_are_prepared_as_published(golden, vectors):
    """The first frame of the case ``main`` is a crop of the real triplet, to float16."""
    with np.load(golden / "real_triplet.npz") as triplet:
        crop = (slice(60, 124), slice(80, 144))
        optical = np.moveaxis(triplet["s2_cloudy_dn"][crop], -1, 0) / np.float32(10_000)
        radar = scale_radar(np.moveaxis(triplet["s1_db"][crop], -1, 0))
    frame = uncrtaints.network_input(optical[None], radar[None])
    expected = 10 * np.moveaxis(vectors["main/input_01"][0, :1], 1, -1)
    assert frame.shape == expected.shape
    np.testing.assert_allclose(frame, expected, rtol=0, atol=10 * 5e-4)
