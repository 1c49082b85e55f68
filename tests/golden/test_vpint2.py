"""VPint2 against outputs of the published code (golden F)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unveil.models.vpint2 import Propagation, grow_missing, neighbour_weights, propagate

RUNS = {
    "default": Propagation(),
    "identity": Propagation(identity=1),
    "identity_b2": Propagation(identity=2),
    "resistance": Propagation(resistance=0.01, resistance_above=3000),
    "identity_resistance": Propagation(identity=1, resistance=0.02, resistance_above=2500),
    "iter10": Propagation(tolerance=0, max_iterations=10),
    "clip5000": Propagation(clip=5000),
}
ONE_DN = 1.0
MISSING_ABOVE = 0.2


@pytest.fixture(scope="module")
def vectors(golden):
    with np.load(golden / "F_vpint2.npz") as archive:
        return dict(archive)


def fill(vectors, missing, reference, settings):
    bands = [
        propagate(vectors["target_dn"][..., b], reference[..., b], missing, settings)
        for b in range(reference.shape[-1])
    ]
    return np.stack([values for values, _ in bands], axis=-1), [count for _, count in bands]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_settles_where_and_when_the_published_one_does(vectors, name):
    missing = vectors["mask"] > MISSING_ABOVE
    values, counts = fill(vectors, missing, vectors["reference_dn"], RUNS[name])
    assert np.abs(counts - vectors[f"iters_{name}"]).max() <= 2
    np.testing.assert_allclose(values, vectors[f"out_{name}"], rtol=0, atol=ONE_DN)


@pytest.mark.parametrize("name", ["default", "identity", "resistance", "clip5000"])
def test_a_run_has_the_error_of_the_published_table(vectors, golden, name):
    missing = vectors["mask"] > MISSING_ABOVE
    values, _ = fill(vectors, missing, vectors["reference_dn"], RUNS[name])
    error = np.abs(values - vectors["target_dn"])[missing].mean()
    table = json.loads((golden / "F_vpint2_table.json").read_text())
    assert error == pytest.approx(table[name]["MAE_dn"], abs=0.01)


def test_weights_are_ratios_of_the_reference(vectors):
    weights = neighbour_weights(vectors["reference_dn"][..., 0])
    for found, name in zip(weights, ("up", "right", "down", "left"), strict=True):
        np.testing.assert_allclose(found, vectors[f"weights_b0_{name}"], rtol=1e-5)


def test_a_buffered_mask_and_zeros_in_the_reference(vectors):
    missing = grow_missing(vectors["mask"] > MISSING_ABOVE, reach=3, passes=2)
    np.testing.assert_array_equal(missing, vectors["buffered_missing"])
    values, _ = fill(vectors, missing, vectors["reference_with_zeros_dn"], Propagation())
    # Next to the zeros the published values run far beyond any reflectance, hence rtol.
    np.testing.assert_allclose(
        values, vectors["out_buffered_zero_reference"], rtol=1e-5, atol=ONE_DN
    )
