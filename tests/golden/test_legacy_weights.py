"""Legacy Keras weight files, good and bad (golden A5)."""

from __future__ import annotations

import numpy as np
import pytest

from unveil.errors import InputError
from unveil.models.dsen2cr.network import (
    build_network,
    compile_network,
    load_weights,
    network_arrays,
)
from unveil.weights.keras_hdf5 import read_keras_hdf5
from unveil.weights.read import read_weights

SAME_AS_A1 = (
    "good_sar_weights",
    "good_sar_weights_nomaskhead_vlenattrs",
    "good_sar_fullmodel",
    "good_sar_weights_shuffled_groups",
    "good_sar_weights_second_model_conv2d_11_20",
    "good_nosar_weights",
)


@pytest.fixture
def legacy(golden):
    return golden / "A5_legacy_hdf5"


def small_network(**changes):
    return build_network(**{"bands": 13, "radar": True, "features": 32, "blocks": 4, **changes})


@pytest.mark.parametrize("name", SAME_AS_A1)
def test_every_layout_gives_the_same_weights_in_layer_order(golden, legacy, name):
    radar = "nosar" not in name
    read = read_keras_hdf5(legacy / f"{name}.hdf5")
    network = small_network(radar=radar)
    load_weights(network, read)
    with np.load(golden / f"A1_small_{'sar' if radar else 'nosar'}.npz") as expected:
        loaded = network_arrays(network)
        assert len(loaded) == 20
        for key, array in loaded.items():
            np.testing.assert_array_equal(array, expected[key])


@pytest.mark.parametrize("numbers", ["1_34", "35_68"])
def test_layers_are_taken_in_model_order_not_by_name(legacy, numbers):
    network = small_network(features=8, blocks=16)
    path = legacy / f"good_sar_F8_B16_conv2d_{numbers}.hdf5"
    load_weights(network, read_weights(path))
    loaded = network_arrays(network)
    with np.load(legacy / "expected_F8_B16.npz") as expected:
        for key in expected.files:
            if key not in ("x", "y"):
                np.testing.assert_array_equal(loaded[key], expected[key])
        output = compile_network(network)(expected["x"])
        assert np.abs(output - expected["y"]).max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bad_html_page", "HTML page"),
        ("bad_truncated", "truncated"),
        ("bad_empty", "empty"),
        ("bad_all_zero", "zero"),
        ("bad_one_nan", r"conv2d_5/kernel:0.* 1 of 9216 values are not finite"),
        ("bad_width_F24", r"24 features.* 32 features"),
        ("bad_missing_last_conv", r"9 convolutions.* 10 convolutions"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_the_finding_and_a_remedy(legacy, name, found):
    path = legacy / f"{name}.hdf5"
    with pytest.raises(InputError, match=found) as caught:
        load_weights(small_network(), read_weights(path))
    assert str(path) in str(caught.value)
    assert "Remedy: " in str(caught.value)


def test_weights_with_radar_do_not_load_into_a_network_without(legacy):
    weights = read_weights(legacy / "good_sar_weights.hdf5")
    with pytest.raises(InputError, match=r"15 input channels.* 13 input channels"):
        load_weights(small_network(radar=False), weights)
