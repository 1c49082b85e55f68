"""Medoid and geometric median against independent solutions of the same problems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from unveil.composites import geometric_median, medoid

seeds = st.integers(0, 2**32 - 1)


def random_looks(seed, *, dates=7, bands=3, pixels=20, share=0.7):
    """Return looks and clear; what is not clear is 0."""
    random = np.random.default_rng(seed)
    clear = random.random((dates, pixels)) < share
    return np.where(clear[:, None], random.uniform(0, 0.6, (dates, bands, pixels)), 0), clear


def hazy_looks(seed, *, dates=12, bands=6, pixels=300):
    """Return looks as real ones are: in steps of 1e-4, alike, some brightened by haze."""
    random = np.random.default_rng(seed)
    looks = random.uniform(0.05, 0.4, (bands, pixels)) + random.normal(
        0, 0.02, (dates, bands, pixels)
    )
    looks += random.uniform(0, 0.4, (dates, 1, pixels)) * (random.random((dates, 1, pixels)) < 0.2)
    clear = random.random((dates, pixels)) < 0.7
    return np.where(clear[:, None], looks.round(4), 0), clear


def cost(point, looks, weights) -> float:
    """Return the weighted sum of distances."""
    return float(weights @ np.linalg.norm(looks - point, axis=1))


def pull(point, looks, weights) -> np.ndarray:
    """Return its downhill gradient, without the looks at the point itself."""
    offset = looks - point
    distance = np.linalg.norm(offset, axis=1)
    return np.divide(weights, distance, out=0 * distance, where=distance > 0) @ offset


def curvature(point, looks, weights) -> np.ndarray:
    """Return its matrix of second derivatives where no look is."""
    offset = looks - point
    distance = np.linalg.norm(offset, axis=1)
    outer = np.einsum("t,tb,tc->bc", weights / distance**3, offset, offset)
    return (weights / distance).sum() * np.eye(looks.shape[1]) - outer


def minimum(looks, weights) -> np.ndarray:
    """Return the geometric median of one pixel's looks ``(T, B)`` by convex analysis or scipy.

    A look is the minimum exactly if the others pull it no more than its own weight.
    """
    for look in looks:
        own = weights[(looks == look).all(axis=1)].sum()
        if np.linalg.norm(pull(look, looks, weights)) <= own:
            return look
    found = minimize(
        cost,
        np.average(looks, axis=0, weights=weights),
        args=(looks, weights),
        jac=lambda *given: -pull(*given),
        hess=curvature,
        method="trust-exact",
        options={"gtol": 1e-11 * weights.sum()},
    )
    return found.x


@given(seeds)
@settings(max_examples=10)
def test_the_medoid_is_the_look_with_the_least_summed_distance(seed):
    looks, clear = random_looks(seed)
    found = medoid(looks, clear)
    for pixel in range(looks.shape[2]):
        seen = looks[clear[:, pixel], :, pixel]
        if len(seen):
            sums = np.linalg.norm(seen[:, None] - seen, axis=2).sum(axis=1)
            np.testing.assert_array_equal(found[:, pixel], seen[sums.round(9).argmin()])
        else:
            assert np.isnan(found[:, pixel]).all()


@pytest.mark.parametrize("weighted", ["not at all", "by date", "by pixel"])
@given(seeds, st.integers(3, 12), st.integers(1, 10))
@settings(max_examples=8)
def test_the_geometric_median_is_where_an_independent_optimiser_ends(weighted, seed, dates, bands):
    looks, clear = random_looks(seed, dates=dates, bands=bands, pixels=12, share=0.9)
    random = np.random.default_rng(seed)
    weights = {
        "not at all": None,
        "by date": np.exp(-random.uniform(0, 5, dates)),
        "by pixel": random.uniform(0.1, 1, clear.shape),
    }[weighted]
    found = geometric_median(looks, clear, weights=weights)
    each = np.broadcast_to(1.0 if weights is None else weights.reshape(dates, -1), clear.shape)
    for pixel in np.flatnonzero(clear.sum(axis=0) > 2):
        seen = clear[:, pixel]
        expected = minimum(looks[seen, :, pixel], each[seen, pixel])
        if bands > 1:
            np.testing.assert_allclose(found[:, pixel], expected, rtol=0, atol=1e-6)
        else:  # between two numbers all are as good
            costs = [
                cost(p, looks[seen, :, pixel], each[seen, pixel])
                for p in (found[:, pixel], expected)
            ]
            assert costs[0] <= costs[1] * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_of_hazy_looks_is_left_unsettled(seed):
    """Weiszfeld's iteration alone stops up to .07 away from some, after 1000 steps."""
    looks, clear = hazy_looks(seed)
    found = geometric_median(looks, clear)
    for pixel in np.flatnonzero(clear.sum(axis=0) > 2):
        seen = looks[clear[:, pixel], :, pixel]
        expected = minimum(seen, np.ones(len(seen)))
        np.testing.assert_allclose(found[:, pixel], expected, rtol=0, atol=1e-6)


def ends(seed, *, pixels=200):
    """Return two spectra of each pixel, ``(2, 1, 6, pixels)``."""
    return np.random.default_rng(seed).uniform(0, 0.6, (2, 1, 6, pixels))


def degenerate() -> dict[str, tuple[np.ndarray, float]]:
    """Return looks whose minimum is no single smooth point, and how thick their line is."""
    random = np.random.default_rng(5)
    a, b = ends(1)
    along = random.random((7, 1, 200))
    line = a + along * (b - a)
    noise = random.normal(0, 1, (10, 6, 200))
    return {
        "on a line, odd": line,
        "on a line, even": line[:6],
        "almost on a line": line[:6] + 1e-4 * noise[:6],
        "closer to a line": line[:6] + 1e-7 * noise[:6],
        "duplicates and another": np.concatenate([a, a, b, b, a + 0.3 * noise[:1]]),
        "two pairs": np.concatenate([a, b, a, b]),
        "all equal": a.repeat(5, axis=0),
        "two clusters": np.concatenate([a + 1e-4 * noise[:5], b + 1e-4 * noise[5:]]),
        "a cluster and a few": np.concatenate(
            [a + 1e-4 * noise[:5], b + 1e-4 * noise[5:9], line[:2]]
        ),
        "one far away": np.concatenate([a + 0.01 * noise[:4], a + 1e3]),
        "counts": (500 + 0.7 * noise).round() / 1e4,
    }


@pytest.mark.parametrize("case", degenerate())
def test_no_point_is_better_than_the_geometric_median_of_degenerate_looks(case):
    looks = degenerate()[case]
    clear = np.ones((len(looks), looks.shape[2]), bool)
    found = geometric_median(looks, clear, tolerance=1e-9)  # of "counts", which are 1e-4 apart
    ones = np.ones(len(looks))
    for pixel in range(looks.shape[2]):
        seen = looks[..., pixel]
        reached = cost(found[:, pixel], seen, ones)
        best = min(cost(point, seen, ones) for point in (*seen, minimum(seen, ones)))
        assert reached <= best * (1 + 1e-10) + 1e-14


def test_a_look_that_is_the_geometric_median_is_returned_exactly():
    star = np.array([[0.3, 0.3], [0.1, 0.3], [0.5, 0.3], [0.3, 0.1], [0.3, 0.5]])
    found = geometric_median(star[:, :, None], np.ones((5, 1), bool))
    np.testing.assert_array_equal(found[:, 0], star[0])


def test_the_first_of_two_looks_counts_unless_the_second_weighs_more():
    a, b = ends(2)
    looks, clear = np.concatenate([a, b]), np.ones((2, 200), bool)
    np.testing.assert_array_equal(geometric_median(looks, clear), a[0])
    weights = np.array([0.9, 1.0])
    np.testing.assert_array_equal(geometric_median(looks, clear, weights=weights), b[0])


def test_a_weight_of_two_counts_as_two_looks():
    looks, clear = random_looks(3, pixels=100)
    weights = np.array([1.0, 2, 1, 1, 3, 1, 1])
    again = np.repeat(np.arange(7), weights.astype(int))
    np.testing.assert_allclose(
        geometric_median(looks, clear, weights=weights),
        geometric_median(looks[again], clear[again]),
        rtol=0,
        atol=1e-6,
    )


def test_half_of_the_looks_cannot_drag_the_geometric_median_away():
    looks = np.array([0.1, 0.1, 0.1, 0.9, 0.8])[:, None, None].repeat(3, axis=1)
    found = geometric_median(looks, np.ones((5, 1), bool))
    np.testing.assert_allclose(found, 0.1, atol=1e-6)


def test_the_geometric_median_moves_and_scales_with_its_looks():
    looks, clear = hazy_looks(7)
    moved = np.where(clear[:, None], looks * 100 + 3, 0)
    np.testing.assert_allclose(
        geometric_median(moved, clear, tolerance=1e-5),
        geometric_median(looks, clear) * 100 + 3,
        rtol=0,
        atol=1e-4,
    )


def test_pixels_do_not_depend_on_their_neighbours():
    looks, clear = hazy_looks(8)
    whole = geometric_median(looks, clear)
    for part in (slice(0, 7), slice(100, 101), slice(50, 300, 3)):
        alone = geometric_median(looks[..., part], clear[:, part])
        np.testing.assert_array_equal(alone, whole[:, part])


def test_pixels_without_a_clear_look_stay_unknown():
    looks, clear = hazy_looks(9, pixels=70)
    clear[:, ::2] = False
    found = geometric_median(looks, clear)
    assert np.isnan(found[:, ::2]).all()
    assert np.isfinite(found[:, 1::2]).all()
    assert np.isnan(geometric_median(looks, np.zeros_like(clear))).all()
    assert geometric_median(looks[..., :0], clear[:, :0]).shape == (6, 0)


def test_the_benchmark_runs_beside_the_others():
    """A benchmark named as a package that Numba looks for would be imported in its place."""
    file = Path(__file__).parents[2] / "benchmarks" / "composites.py"
    command = [sys.executable, str(file), "--pixels", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Weiszfeld" in done.stdout
