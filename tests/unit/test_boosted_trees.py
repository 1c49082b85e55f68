"""The trees of s2cloudless, walked by us, answer what its library answers, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from unveil.bands import L1C13, REFLECTANCE_SCALE, S2CLOUDLESS10
from unveil.masks.detectors import boosted_trees, s2cloudless
from unveil.masks.detectors.boosted_trees import BLOCK, SHARE, probability_of, read_trees


def answers(pixels):
    trees = s2cloudless.read_library_trees()
    assert trees is not None
    return s2cloudless.by_trees(trees, pixels)


def split_values(trees, count):
    """Return pixels whose bands lie on split values or on the next floats beside them."""
    rng = np.random.default_rng(1)
    values = np.stack([rng.choice(c[np.isfinite(c)], count) for c in trees.cuts], axis=1)
    pixels = values.astype(np.float32)
    sides = rng.integers(-1, 2, pixels.shape)
    below, above = np.nextafter(pixels, -np.inf), np.nextafter(pixels, np.inf)
    return np.choose(sides + 1, [below, pixels, above]).astype(np.float32)


def test_any_pixel_has_the_probability_of_the_library_to_the_bit():
    rng = np.random.default_rng(0)
    dark = rng.gamma(2, 0.05, (3000, 10))
    bright = rng.uniform(-0.1, 3, (1000, 10))
    wild = rng.choice([0, -0.0, np.nan, np.inf, -np.inf, 1e-36, 1e38, 0.2], (1000, 10))
    pixels = np.concatenate([dark, bright, wild]).astype(np.float32)
    pixels = np.concatenate([pixels, split_values(s2cloudless.read_library_trees(), 3000)])
    np.testing.assert_array_equal(answers(pixels), s2cloudless.by_library(pixels))


@pytest.mark.parametrize("count", [0, 1, 7, BLOCK + 1, SHARE + 3])
def test_each_pixel_is_answered_whatever_the_number(count):
    few = np.random.default_rng(2).gamma(2, 0.1, (11, 10)).astype(np.float32)
    found = answers(np.resize(few, (count, 10)))
    np.testing.assert_array_equal(found, np.resize(answers(few), count))


def test_real_imagery_has_the_probability_of_the_library_to_the_bit(shared):
    paths = sorted((shared / "data" / "places" / "sabina-italy-30dates").glob("s2_*.tif"))
    for path in paths[::10]:
        with rasterio.open(path) as image:
            data = image.read([L1C13.index(name) + 1 for name in S2CLOUDLESS10])
        pixels = data[:, ::3, ::3].reshape(10, -1).T.astype(np.float32)
        pixels /= np.float32(REFLECTANCE_SCALE)
        np.testing.assert_array_equal(answers(pixels), s2cloudless.by_library(pixels))


MODEL = """tree
version=v2
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=binary sigmoid:1

Tree=0
num_leaves=3
num_cat=0
split_feature=1 0
threshold=0.5 0.25
decision_type=2 2
left_child=1 -1
right_child=-3 -2
leaf_value=-1 2 4

end of trees
"""


def test_a_tree_goes_left_up_to_its_split_value(tmp_path):
    path = tmp_path / "model.txt"
    path.write_text(MODEL)
    pixels = np.array([[0.25, 0.5], [0.3, 0.5], [0.25, 0.51]], np.float32)
    found = probability_of(pixels, read_trees(path))
    np.testing.assert_allclose(found, 1 / (1 + np.exp([1, -2, -4])), rtol=1e-15)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("binary sigmoid:1", "regression"),
        ("num_cat=0", "num_cat=1"),
        ("decision_type=2 2", "decision_type=2 10"),  # with values that mean "missing"
        ("max_feature_idx=1", "max_feature_idx=99"),
        ("threshold=0.5 0.25", "threshold=0.5"),
        ("tree\n", "\x00\x81"),
        (MODEL, "no model"),
    ],
)
def test_a_model_of_another_kind_is_left_to_the_library(tmp_path, part, other):
    path = tmp_path / "model.txt"
    path.write_bytes(MODEL.replace(part, other).encode("latin-1"))
    assert read_trees(path) is None
    assert read_trees(tmp_path / "missing.txt") is None


def test_the_library_answers_where_its_model_cannot_be_read(monkeypatch):
    image = np.random.default_rng(3).gamma(2, 0.1, (13, 5, 6)).astype(np.float32)
    ours = s2cloudless.cloud_probability(image, L1C13)
    monkeypatch.setattr(s2cloudless, "read_library_trees", lambda: None)
    np.testing.assert_array_equal(ours, s2cloudless.cloud_probability(image, L1C13))


def test_it_runs_where_no_folder_for_compiled_code_can_be_written(monkeypatch):
    import numba

    compile_ = numba.njit

    def refuse(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    boosted_trees._compiled.cache_clear()
    pixels = np.zeros((3, 10), np.float32)
    np.testing.assert_array_equal(answers(pixels), s2cloudless.by_library(pixels))
    boosted_trees._compiled.cache_clear()
