"""MNSPI against scenes that it must restore exactly and pixels by the paper's formulas."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unveil.bands import CLEAR, CLOUD
from unveil.errors import InputError
from unveil.models import mnspi
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.scene import Inputs

SHAPE = (48, 56)
BANDS = ("B02", "B03", "B08")
seeds = st.integers(0, 2**32 - 1)


def blob(seed: int, cover: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 5)
    return noise > np.quantile(noise, 1 - cover)


def series(target, frames, hidden, *, days=(-10, 20), frame_clouds=None) -> Inputs:
    """Return a target under cloud with frames ``(T, B, H, W)`` around it in time."""
    frames = np.asarray(frames, np.float32)
    clouds = np.zeros((len(frames), *SHAPE), bool) if frame_clouds is None else frame_clouds
    return Inputs(
        bands=BANDS,
        target=np.where(hidden, 0.9, target).astype(np.float32),
        target_class=np.where(hidden, CLOUD, CLEAR).astype(np.uint8),
        target_probability=np.full(SHAPE, np.nan, np.float32),
        context=np.where(clouds[:, None], np.float32(0.8), frames),
        context_class=np.where(clouds, CLOUD, CLEAR).astype(np.uint8),
        days=np.asarray(days[: len(frames)], np.float32),
        sar=None,
        target_date="2020-06-15",
        level="L2A",
    )


def answer(inputs: Inputs, **options) -> np.ndarray:
    model = create(ModelSpec("mnspi", "mnspi", options=options))
    model.prepare(None, [inputs])
    return model.predict(inputs).reflectance


def land(seed: int, kinds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return a map of mingled land covers, and the spectrum of each ``(kinds, B)``."""
    rng = np.random.default_rng(seed)
    covers = rng.integers(kinds, size=SHAPE)
    return covers, rng.uniform(0.05, 0.5, (kinds, len(BANDS)))


@given(seeds)
@settings(max_examples=4)
def test_land_covers_that_each_changed_in_their_own_way_are_restored(seed):
    covers, spectra = land(seed)
    changed = spectra + np.random.default_rng(seed + 1).uniform(-0.04, 0.2, spectra.shape)
    before, now = (np.moveaxis(s[covers], -1, 0) for s in (spectra, changed))
    hidden = np.zeros(SHAPE, bool)
    hidden[14:34, 14:42] = blob(seed, 0.4)[14:34, 14:42]
    found = answer(series(now, [before], hidden), similar=3)
    np.testing.assert_allclose(found, now, atol=2e-5)


def test_a_change_alike_everywhere_is_restored_where_time_alone_counts():
    before = 0.2 + 0.1 * np.random.default_rng(1).random((3, *SHAPE))
    overcast = np.ones(SHAPE, bool)
    overcast[:1] = False  # no similar pixel within reach of the last rows
    found = answer(series(before + 0.05, [before], overcast), reach_px=8)
    np.testing.assert_allclose(found[:, 20:], before[:, 20:] + 0.05, atol=1e-6)


def test_under_full_cover_the_nearest_look_is_the_answer():
    frames = np.random.default_rng(2).random((2, 3, *SHAPE))
    found = answer(series(frames[0], frames, np.ones(SHAPE, bool), days=(-10, 4)))
    np.testing.assert_allclose(found, frames[1], atol=1e-7)


def test_each_pixel_takes_its_nearest_clear_look():
    covers, spectra = land(3)
    before = np.moveaxis(spectra[covers], -1, 0)
    frames = np.stack([before + 0.1, before])
    clouds = np.zeros((2, *SHAPE), bool)
    clouds[0, :24] = True
    inputs = series(before, frames, np.ones(SHAPE, bool), days=(-3, 9), frame_clouds=clouds)
    found = answer(inputs)
    np.testing.assert_allclose(found[:, :24], before[:, :24], atol=1e-6)
    np.testing.assert_allclose(found[:, 24:], before[:, 24:] + 0.1, atol=1e-6)


def test_a_pixel_that_is_never_clear_has_no_answer():
    frames = np.random.default_rng(4).random((2, 3, *SHAPE))
    hidden, clouds = blob(4, 0.4), np.stack([blob(5, 0.5), blob(6, 0.5)])
    found = answer(series(frames[0], frames, hidden, frame_clouds=clouds))
    np.testing.assert_array_equal(np.isnan(found), [hidden & clouds.all(axis=0)] * 3)


def test_what_clouds_hide_does_not_matter():
    frames = np.random.default_rng(7).random((2, 3, *SHAPE)) / 2
    hidden, clouds = blob(7, 0.4), np.stack([blob(8, 0.4), blob(9, 0.4)])
    inputs = series(frames[0], frames, hidden, frame_clouds=clouds)
    spoiled = replace(
        inputs,
        target=np.where(hidden, np.float32(0.3), inputs.target),
        context=np.where(clouds[:, None], np.float32(0.4), inputs.context),
    )
    np.testing.assert_array_equal(answer(inputs), answer(spoiled))


@given(seeds)
@example(1)  # some of its hidden pixels have no clear one within reach
@settings(max_examples=3)
def test_a_pixel_is_what_the_formulas_say(seed):
    """Equations of the paper for single pixels, written out with loops."""
    rng = np.random.default_rng(seed)
    before = (0.2 + 0.1 * rng.random((3, *SHAPE))).astype(np.float32)
    now = (before * 1.1 + 0.02 * rng.random((3, *SHAPE))).astype(np.float32)
    hidden = blob(seed, 0.4)
    inputs = series(now, [before], hidden)
    found = answer(inputs, similar=6, reach_px=16)
    for row, col in rng.permutation(np.argwhere(hidden))[:5]:
        expected = by_the_paper(inputs, row, col, similar=6, reach=16)
        np.testing.assert_allclose(found[:, row, col], expected, atol=1e-5)


def by_the_paper(inputs: Inputs, row: int, col: int, *, similar: int, reach: int) -> np.ndarray:
    look, target = inputs.context[0].astype(float), inputs.target.astype(float)
    candidates = []
    for down, right in mnspi.neighbourhood(reach):
        r, c = row + down, col + right
        if 0 <= r < SHAPE[0] and 0 <= c < SHAPE[1] and inputs.target_clear[r, c]:
            unlike = np.sqrt(np.mean((look[:, r, c] - look[:, row, col]) ** 2))
            candidates.append((unlike, np.hypot(down, right), r, c))
    if not candidates:  # none within reach: the look with the mean change of the scene
        return look[:, row, col] + (target - look)[:, inputs.target_clear].mean(axis=1)
    best = sorted(candidates)[:similar]
    scaled = []
    for values in zip(*[b[:2] for b in best], strict=True):
        span = max(values) - min(values) + 1e-6
        scaled.append([1 + (v - min(values)) / span for v in values])
    weights = [1 / (u * d) for u, d in zip(*scaled, strict=True)]
    weights = [w / sum(weights) for w in weights]
    space = sum(w * target[:, r, c] for w, (*_, r, c) in zip(weights, best, strict=True))
    change = sum(
        w * (target[:, r, c] - look[:, r, c]) for w, (*_, r, c) in zip(weights, best, strict=True)
    )
    around = [
        (r, c)
        for r, c in product(
            range(row - reach, row + reach + 1), range(col - reach, col + reach + 1)
        )
        if 0 <= r < SHAPE[0] and 0 <= c < SHAPE[1] and not inputs.target_clear[r, c]
    ]
    centre = np.mean(around, axis=0)
    to_centre = np.hypot(*(centre - (row, col)))
    away = np.mean([b[1] for b in best])
    in_space, in_time = to_centre / (to_centre + away), away / (to_centre + away)
    return in_space * space + in_time * (look[:, row, col] + change)


def test_the_neighbourhood_is_dense_near_and_ends_at_its_reach():
    places = mnspi.neighbourhood(128)
    distance = np.hypot(*places.T)
    assert distance.min() == 1 and 127 < distance.max() <= 129
    assert len(np.unique(places, axis=0)) == len(places) < 250
    assert {(0, 1), (1, 0), (0, -1), (-1, 0)} <= {tuple(place) for place in places}
    assert np.abs(places.mean(axis=0)).max() < 1, "no side is looked at more than others"
    assert np.abs(places).max() <= 128


@pytest.mark.parametrize("option", ["similar", "reach_px"])
def test_an_option_of_nothing_is_refused(option):
    with pytest.raises(InputError, match=f"{option}.*found 0|found 0.*{option}"):
        create(ModelSpec("mine", "mnspi", options={option: 0}))
