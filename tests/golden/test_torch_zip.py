"""PyTorch checkpoints written by the published trainers, and real published weights."""

from __future__ import annotations

import numpy as np
import pytest

from unveil.weights.arrays import check_values
from unveil.weights.torch_zip import read_torch_zip


def state_of(path) -> dict[str, np.ndarray]:
    with np.load(path) as vectors:
        return {
            name.removeprefix("state/"): vectors[name]
            for name in vectors.files
            if name.startswith("state/")
        }


def assert_same_arrays(found, expected) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_uncrtaints_checkpoint_holds_the_published_state(golden):
    read = read_torch_zip(golden / "C_uncrtaints_ckpt" / "model_epoch_1.pth.tar")
    expected = state_of(golden / "C_uncrtaints_forward.npz")
    assert_same_arrays(read.under("state_dict_G/").arrays, expected)
    assert_same_arrays(read.under("state_dict/netG.").arrays, expected)
    assert any(name.startswith("optimizer_G/") for name in read.arrays)


def test_tensors_that_share_a_storage_share_memory(golden):
    read = read_torch_zip(golden / "C_uncrtaints_ckpt" / "model_epoch_1.pth.tar")
    name = next(iter(read.under("state_dict_G/").arrays))
    assert np.shares_memory(
        read.arrays[f"state_dict_G/{name}"], read.arrays[f"state_dict/netG.{name}"]
    )


def test_the_utilise_checkpoint_holds_the_published_state(golden):
    read = read_torch_zip(golden / "D_utilise_earthnet_checkpoint.pth")
    expected = state_of(golden / "D_utilise_earthnet.npz")
    assert_same_arrays(read.under("model_state_dict/").arrays, expected)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("40pct", "f628f2a40ba3e58a6ab37976e1abab2d131bc8bf812367823d7bf8966868cb4a"),
        ("60pct", "c834c70349b3ea703200e315209c060c67e28743518a3f5c7c83f831b14e0c18"),
        ("80pct", "890e5927fc96aff2502cf4dbe0469a7901456b388f5f93b40162d63a92700c57"),
        ("anytime", "0edf380e8ce93abb6bc8e402d86df9046f91e080561649425504a19a9dda9eda"),
    ],
)
def test_published_anytimeformer_weights_load_whole(shared, name, sha256):
    path = shared / "weights" / "anytimeformer" / f"best_model_{name}.ckpt"
    if not path.is_file():
        pytest.skip(f"no published AnytimeFormer weights at {path}")
    read = read_torch_zip(path)
    check_values(read)
    assert (len(read.arrays), read.sha256) == (51, sha256)
