"""Simulated clouds cover what was asked, hide what they should, and touch nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.assembly.simulated_clouds import (
    CloudOptions,
    SimulatedClouds,
    apply_clouds,
    fractal_field,
    simulate_clouds,
)
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, SHADOW

SHAPE = (96, 80)


def make_surface(bands: tuple[str, ...], seed: int = 0) -> np.ndarray:
    """A textured clear surface of reflectance 0.02 ... 0.3."""
    return np.random.default_rng(seed).uniform(0.02, 0.3, (len(bands), *SHAPE)).astype(np.float32)


@settings(max_examples=60)
@given(
    cover=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
    edge=st.floats(0.05, 2),
    max_opacity=st.floats(0.15, 1),
    strength=st.floats(0, 1),
)
def test_the_occluded_fraction_is_the_cover_that_was_asked(
    cover, seed, edge, max_opacity, strength
):
    options = CloudOptions(edge=edge, max_opacity=max_opacity, shadow_strength=strength)
    clouds = simulate_clouds(SHAPE, cover=cover, rng=np.random.default_rng(seed), options=options)
    assert np.isin(clouds.classes, (CLOUD, SHADOW)).mean() == pytest.approx(cover, abs=0.01)
    assert clouds.alpha.min() >= 0 and clouds.alpha.max() <= max_opacity + 1e-6
    assert clouds.shadow.min() >= 0 and clouds.shadow.max() <= strength + 1e-6


def test_classes_follow_opacity_and_attenuation():
    clouds = simulate_clouds(SHAPE, cover=0.5, rng=np.random.default_rng(4))
    assert np.array_equal(clouds.classes == CLOUD, clouds.alpha > 0.1)
    shaded = (clouds.alpha <= 0.1) & (clouds.shadow > 0.15)
    assert np.array_equal(clouds.classes == SHADOW, shaded)
    assert set(np.unique(clouds.classes)) == {CLEAR, CLOUD, SHADOW}


def test_one_seed_gives_one_sky():
    first, second, other = (
        simulate_clouds(SHAPE, cover=0.4, rng=np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert np.array_equal(first.alpha, second.alpha)
    assert not np.array_equal(first.alpha, other.alpha)
    surface = make_surface(CORE6)
    images = [
        apply_clouds(surface, first, bands=CORE6, rng=np.random.default_rng(3)) for _ in range(2)
    ]
    assert np.array_equal(*images)


@settings(max_examples=20)
@given(cover=st.floats(0, 0.95), seed=st.integers(0, 2**32 - 1))
def test_pixels_without_cloud_or_shadow_are_untouched(cover, seed):
    rng = np.random.default_rng(seed)
    clouds = simulate_clouds(SHAPE, cover=cover, rng=rng)
    surface = make_surface(CORE6)
    cloudy = apply_clouds(surface, clouds, bands=CORE6, rng=rng)
    untouched = (clouds.alpha == 0) & (clouds.shadow == 0)
    assert untouched.any()
    assert np.array_equal(cloudy[:, untouched], surface[:, untouched])
    assert cloudy.dtype == np.float32


def test_opaque_cloud_hides_where_things_are():
    """Two grounds with the same pixels in other places look alike from above the cloud."""
    opaque = SimulatedClouds(
        np.ones(SHAPE, np.float32),
        np.zeros(SHAPE, np.float32),
        np.full(SHAPE, CLOUD, np.uint8),
    )
    surface = make_surface(L1C13)
    moved = surface[:, ::-1, ::-1]
    images = [
        apply_clouds(ground, opaque, bands=L1C13, rng=np.random.default_rng(5))
        for ground in (surface, moved)
    ]
    assert np.array_equal(*images)


def test_cloud_is_bright_in_the_visible_and_darker_in_the_shortwave_infrared():
    surface = make_surface(L1C13)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        clouds = simulate_clouds(SHAPE, cover=0.8, rng=rng)
        cloudy = apply_clouds(surface, clouds, bands=L1C13, rng=rng)
        thick = clouds.alpha > 0.95
        mean = dict(zip(L1C13, cloudy[:, thick].mean(axis=1), strict=True))
        assert mean["B02"] > 0.3
        assert mean["B10"] < mean["B12"] < mean["B11"] < mean["B08"]


def test_shadow_darkens_the_infrared_more_than_the_blue():
    shade = SimulatedClouds(
        np.zeros(SHAPE, np.float32),
        np.full(SHAPE, 0.5, np.float32),
        np.full(SHAPE, SHADOW),
    )
    surface = np.full((len(CORE6), *SHAPE), 0.2, np.float32)
    shaded = apply_clouds(surface, shade, bands=CORE6, rng=np.random.default_rng(0))
    levels = shaded.mean(axis=(1, 2))
    assert (levels >= 0.1).all() and (levels < 0.2).all()
    assert levels[CORE6.index("B02")] > levels[CORE6.index("B11")]


def test_shadows_lie_on_the_side_away_from_the_sun():
    options = CloudOptions(shadow_distance=(10, 10), shadow_direction=(0, 0))
    clouds = simulate_clouds((200, 200), cover=0.3, rng=np.random.default_rng(2), options=options)
    assert np.allclose(clouds.shadow[:-10], 0.5 * clouds.alpha[10:], atol=1e-6)


def test_nodata_stays_nodata():
    surface = make_surface(CORE6)
    surface[:, :10] = np.nan
    rng = np.random.default_rng(0)
    clouds = simulate_clouds(SHAPE, cover=0.9, rng=rng)
    cloudy = apply_clouds(surface, clouds, bands=CORE6, rng=rng)
    assert np.array_equal(np.isnan(cloudy), np.isnan(surface))


def test_the_field_has_the_spectrum_that_was_asked():
    """A straight line through log amplitude over log frequency has the slope, on average."""
    size, slope = 256, 2.0
    rng = np.random.default_rng(0)
    amplitude = np.mean(
        [np.abs(np.fft.fft2(fractal_field((size, size), slope=slope, rng=rng))) for _ in range(8)],
        axis=0,
    )
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    band = (frequency > 4 / size) & (frequency < 0.4)
    fitted = np.polyfit(np.log(frequency[band]), np.log(amplitude[band]), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.05)


@pytest.mark.parametrize("cover", [-0.1, 1.1, 20])
def test_a_cover_in_percent_is_refused(cover):
    with pytest.raises(ValueError, match="fraction"):
        simulate_clouds(SHAPE, cover=cover, rng=np.random.default_rng(0))


@pytest.mark.parametrize("options", [{"max_opacity": 0.05}, {"edge": 0}, {"shadow_strength": 2}])
def test_options_that_give_no_cloud_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CloudOptions(**options)
