"""The closed forms of chronos against least squares, brute force and exact scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unveil.bands import CLEAR, CLOUD, CORE6
from unveil.models.base import ModelSpec
from unveil.models.chronos import experts, regression
from unveil.models.chronos.network import network_inputs
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Inputs, Scene

SHAPE = (64, 48)


def make_inputs(
    seed: int = 0, *, frames: int = 4, cover: float = 0.5, bands: tuple[str, ...] = CORE6
) -> Inputs:
    """Return a textured scene whose target is a mixture of its frames, plus a little noise."""
    rng = np.random.default_rng(seed)
    surface = gaussian_filter(rng.normal(0, 1, (frames, len(bands), *SHAPE)), (0, 0, 3, 3))
    context = np.clip(0.2 + 0.3 * surface, 0.01, 1).astype(np.float32)
    share = rng.dirichlet(np.ones(frames))
    target_shape = context.shape[1:]
    target = np.tensordot(share, context, axes=1) + 0.01 + rng.normal(0, 1e-4, target_shape)
    classes = np.full(SHAPE, CLEAR, np.uint8)
    classes[: round(cover * SHAPE[0])] = CLOUD
    context_class = np.full((frames, *SHAPE), CLEAR, np.uint8)
    days = np.array([-30.0, -10.0, 5.0, 25.0, 40.0, *range(60, 300, 10)][:frames], np.float32)
    return Inputs(
        bands=bands,
        target=target.astype(np.float32),
        target_class=classes,
        target_probability=np.full(SHAPE, np.nan, np.float32),
        context=context,
        context_class=context_class,
        days=days,
        sar=None,
        target_date="2020-06-01",
        level="L2A",
    )


def test_a_target_that_is_a_mixture_of_frames_is_found_under_cloud():
    inputs = make_inputs()
    fit = experts.fit_scene([inputs], pixels=inputs.target_class.size)
    answer = experts.estimate(inputs, fit)
    hidden = ~inputs.target_clear
    error = np.abs(answer.experts[0] - inputs.target)[:, hidden].mean()
    faded = np.abs(answer.experts[4] - inputs.target)[:, hidden].mean()
    assert error < 0.05 * faded


def hide_and_spoil(inputs: Inputs, *, target: float, context: float) -> tuple[Inputs, Inputs]:
    """Return inputs with cloud on a context frame, and the same with other values where hidden."""
    context_class = inputs.context_class.copy()
    context_class[1, 10:40] = CLOUD
    inputs = replace(inputs, context_class=context_class)
    return inputs, replace(
        inputs,
        target=np.where(inputs.target_clear, inputs.target, np.float32(target)),
        context=np.where(inputs.context_clear[:, None], inputs.context, np.float32(context)),
    )


def test_hidden_values_do_not_matter():
    inputs, spoiled = hide_and_spoil(make_inputs(), target=0.9, context=0.9)
    fits = [experts.fit_scene([one], pixels=SHAPE[0] * SHAPE[1]) for one in (inputs, spoiled)]
    first, second = (experts.estimate(i, f) for i, f in zip((inputs, spoiled), fits, strict=True))
    for name in ("experts", "views", "residuals", "supports", "unrest", "looks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_sums_over_tiles_are_those_of_the_whole():
    inputs = make_inputs()

    whole = experts.fit_scene([inputs], pixels=SHAPE[0] * SHAPE[1])
    tiles = [inputs.crop(rows, slice(None)) for rows in (slice(0, 21), slice(21, 64))]
    tiled = experts.fit_scene(tiles, pixels=3072)
    for one, other in zip(whole.coefficients, tiled.coefficients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)
    np.testing.assert_allclose(whole.errors, tiled.errors, rtol=1e-5)
    np.testing.assert_allclose(whole.facts.gain, tiled.facts.gain, rtol=1e-9)


def test_a_large_scene_is_thinned_alike_in_every_tile(monkeypatch):
    monkeypatch.setattr(experts, "SAMPLE_PIXELS", SHAPE[0] * SHAPE[1] / 9)
    inputs = make_inputs()
    fit = experts.fit_scene([inputs], pixels=SHAPE[0] * SHAPE[1])
    assert fit.pixels == np.count_nonzero(inputs.target_clear[::3, ::3])


@pytest.mark.parametrize("penalty", [0.003, 0.3])
def test_ridge_equals_least_squares_with_penalty_rows(penalty):
    rng = np.random.default_rng(3)
    n, features, bands = 500, 9, 2
    x = rng.normal(0, 1, (n, features)) * rng.uniform(0.1, 2, features) + 0.3
    y = x @ rng.normal(0, 1, (features, bands)) + rng.normal(0, 0.1, (n, bands)) + 0.7
    table = np.hstack([np.ones((n, 1)), x, y])
    found = regression.ridge(table.T @ table, slice(None), penalty, bands)

    change = y - x[:, :bands]  # slopes are shrunk towards the first features themselves
    centre, scale = x.mean(0), x.std(0)
    rows = np.vstack([(x - centre) / scale / np.sqrt(n), np.sqrt(penalty) * np.eye(features)])
    right = np.vstack([(change - change.mean(0)) / np.sqrt(n), np.zeros((features, bands))])
    slopes = np.linalg.lstsq(rows, right, rcond=None)[0] / scale[:, None]
    slopes_and_base = slopes + np.vstack([np.eye(bands), np.zeros((features - bands, bands))])
    np.testing.assert_allclose(found[1:], slopes_and_base, atol=1e-9)
    np.testing.assert_allclose(found[0], change.mean(0) - centre @ slopes, atol=1e-9)


def test_cross_validation_equals_fitting_and_judging_by_hand():
    rng = np.random.default_rng(4)
    folds, bands = [], 2
    truth = rng.normal(0, 1, (7, bands))
    for n in (300, 200):
        x = rng.normal(0, 1, (n, 7)) + 0.2
        y = x @ truth + rng.normal(0, 0.2, (n, bands))
        folds.append(np.hstack([np.ones((n, 1)), x, y]))
    sums = np.stack([table.T @ table for table in folds])
    found = regression.cross_validate(sums, slice(None), 0.1, bands)
    square = 0.0
    for learn, judge in ((0, 1), (1, 0)):
        w = regression.ridge(sums[learn], slice(None), 0.1, bands)
        square = square + ((folds[judge][:, -bands:] - folds[judge][:, :-bands] @ w) ** 2).sum(0)
    np.testing.assert_allclose(found, np.sqrt(square / 500), rtol=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_weighted_median_has_half_of_the_weight_on_either_side(seed):
    rng = np.random.default_rng(seed)
    inputs = make_inputs(seed, frames=6)
    inputs = replace(
        inputs, context_class=np.where(rng.random((6, *SHAPE)) < 0.5, CLOUD, CLEAR).astype(np.uint8)
    )
    median = experts.weighted_median(inputs)
    weight = np.exp(-np.abs(inputs.days) / 20)[:, None, None] * inputs.context_clear
    total = weight.sum(0)
    for band in range(6):
        below = (weight * (inputs.context[:, band] < median[band])).sum(0)
        above = (weight * (inputs.context[:, band] > median[band])).sum(0)
        seen = total > 0
        assert (below[seen] <= total[seen] / 2 + 1e-6).all()
        assert (above[seen] <= total[seen] / 2 + 1e-6).all()
        assert np.isnan(median[band][~seen]).all()


def test_an_overcast_target_still_gets_the_composites():
    inputs = make_inputs(cover=1.0)
    fit = experts.fit_scene([inputs], pixels=SHAPE[0] * SHAPE[1])
    answer = experts.estimate(inputs, fit)
    assert fit.pixels == 0 and not fit.coefficients
    np.testing.assert_array_equal(answer.experts[0], answer.experts[4])
    np.testing.assert_array_equal(answer.residuals, 0)
    assert np.isfinite(answer.experts).all()


def test_a_hazy_frame_fades():
    inputs = make_inputs(frames=4)
    context = inputs.context.copy()
    context[2] += 0.1
    hazy = replace(inputs, context=context)
    fit = experts.fit_scene([hazy], pixels=3072)
    assert fit.facts.haze.argmax() == 2
    plain = (hazy.context * np.exp(-np.abs(hazy.days) / 20)[:, None, None, None]).sum(0)
    plain /= np.exp(-np.abs(hazy.days) / 20).sum()
    faded = experts.faded_composite(hazy, fit.facts)
    clean = experts.faded_composite(inputs, experts.fit_scene([inputs], pixels=3072).facts)
    assert np.abs(faded - clean).mean() < 0.5 * np.abs(plain - clean).mean()


def test_pixels_that_no_frame_saw_get_a_smooth_finite_guess():
    inputs = make_inputs()
    context_class = inputs.context_class.copy()
    context_class[:, 5:9, 5:9] = CLOUD
    inputs = replace(inputs, context_class=context_class)
    fit = experts.fit_scene([inputs], pixels=3072)
    answer = experts.estimate(inputs, fit)
    assert np.isfinite(answer.experts).all() and (answer.looks[5:9, 5:9] == 0).all()


def test_the_closed_form_alone_finds_a_mixture_of_frames_and_keeps_what_is_clear():
    inputs = make_inputs()
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), *SHAPE)
    model = create(ModelSpec("mine", "closed_form"))
    model.prepare(Scene("s", "none", "p", grid, ()), [inputs])
    found, clear = model.predict(inputs).reflectance, inputs.target_clear
    np.testing.assert_array_equal(found[:, clear], inputs.target[:, clear])
    assert np.abs(found - inputs.target)[:, ~clear].mean() < 0.002
    assert not model.network


def test_the_closed_form_alone_is_what_the_network_starts_from():
    """The network's change is zero where it gives no share away and keeps its gates open."""
    inputs = make_inputs(1)
    fit = experts.fit_scene([inputs], pixels=inputs.target_class.size)
    given = network_inputs(inputs, fit, experts.estimate(inputs, fit))
    start = given.deltas[..., -len(experts.SPREADS) :].sum(axis=-1) * given.scale[:, None, None]
    model = create(ModelSpec("mine", "closed_form"))
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), *SHAPE)
    model.prepare(Scene("s", "none", "p", grid, ()), [inputs])
    expected = experts.estimate(inputs, fit).experts[0] + start
    hidden = ~inputs.target_clear
    np.testing.assert_allclose(
        model.predict(inputs).reflectance[:, hidden],
        np.clip(expected, 0, None)[:, hidden],
        atol=1e-6,
    )
