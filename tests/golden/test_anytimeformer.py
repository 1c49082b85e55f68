"""AnytimeFormer with its published weights against outputs of the published code (golden E)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unveil.bands import CLEAR, CLOUD
from unveil.models.anytimeformer import model, network
from unveil.models.base import ModelSpec
from unveil.scene import Inputs
from unveil.weights.read import read_state

USABLE_CLASSES = (4, 5, 6, 7)
PIXELS_AT_ONCE = 300
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def vectors(golden):
    with np.load(golden / "E_anytimeformer.npz") as archive:
        return dict(archive)


def weights_of(shared, name):
    path = shared / "weights" / "anytimeformer" / f"best_model_{name}.ckpt"
    if not path.is_file():
        pytest.skip(f"no published weights at {path}")
    return path


def network_of(shared, name):
    weights = read_state(weights_of(shared, name), "", network.expected_shapes())
    return network.compile_network(weights.arrays)


@pytest.fixture(scope="module")
def series(vectors):
    """Reflectance, usable classes, what is seen under the hold-out protocol, radar in dB."""
    reflectance = vectors["scene_reflectance_dn"].astype(np.float32) / 1e4
    usable = np.isin(vectors["scene_scl"], USABLE_CLASSES)
    seen = usable.copy()
    seen[vectors["holdout_index"]] = False
    radar = vectors["scene_s1_db_20m"].repeat(2, axis=1).repeat(2, axis=2)
    return reflectance, usable, seen, radar


def test_the_network_reconstructs_the_input_dates(vectors, shared):
    run = network_of(shared, "40pct")
    output = run(
        vectors["x_norm"],
        vectors["x_aux_norm"],
        vectors["doy"],
        vectors["doy_aux"],
        vectors["doy"],
    )
    np.testing.assert_allclose(output, vectors["rec_norm"], rtol=0, atol=TOLERANCE)
    seen = vectors["valid_in"][..., None] > 0
    imputed = np.where(seen, vectors["x_norm"], output)
    np.testing.assert_allclose(imputed, vectors["imputed_norm"], rtol=0, atol=TOLERANCE)


def test_the_anytime_network_reconstructs_every_day(vectors, shared):
    run = network_of(shared, "anytime")
    output = run(
        vectors["x_norm"][:8],
        vectors["x_aux_norm"][:8],
        vectors["doy"],
        vectors["doy_aux"],
        vectors["anytime_daily_doy"],
    )
    np.testing.assert_allclose(output, vectors["anytime_rec_norm_8px"], rtol=0, atol=TOLERANCE)


def test_normalisation_gives_the_published_inputs(vectors, series):
    reflectance, _, seen, radar = series
    optical = model.normalise_optical(reflectance, seen).reshape(91, 4096, 10)
    aux = model.normalise_radar(radar).reshape(109, 4096, 2)
    pixels = vectors["pixel_index"]
    np.testing.assert_allclose(
        optical[:, pixels].transpose(1, 0, 2), vectors["x_norm"], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        aux[:, pixels].transpose(1, 0, 2), vectors["x_aux_norm"], rtol=0, atol=1e-5
    )


@pytest.mark.slow
def test_the_whole_scene_has_the_errors_of_the_published_table(vectors, series, shared, golden):
    reflectance, usable, seen, radar = series
    withheld = vectors["holdout_index"]
    run = network_of(shared, "40pct")
    optical = model.normalise_optical(reflectance, seen).reshape(91, 4096, 10).swapaxes(0, 1)
    aux = model.normalise_radar(radar).reshape(109, 4096, 2).swapaxes(0, 1)
    days, wanted = vectors["doy"], vectors["doy"][withheld]
    parts = [slice(i, i + PIXELS_AT_ONCE) for i in range(0, 4096, PIXELS_AT_ONCE)]
    output = np.concatenate(
        [run(optical[part], aux[part], days, vectors["doy_aux"], wanted) for part in parts]
    )
    prediction = model.denormalise(output)
    published = vectors["scene_rec_holdout_reflectance"].reshape(4096, len(withheld), 10)
    assert np.abs(prediction * 1e4 - published).max() <= 1

    truth = reflectance[withheld].reshape(len(withheld), 4096, 10).swapaxes(0, 1)
    error = (prediction - truth)[usable[withheld].reshape(len(withheld), 4096).T]
    table = json.loads((golden / "E_anytimeformer_table.json").read_text())
    expected = table["table"]["AnytimeFormer_40pct"]
    mae = np.abs(error).mean(dtype=np.float64)
    rmse = np.sqrt(np.square(error, dtype=np.float64).mean())
    assert mae == pytest.approx(expected["MAE"], abs=2e-5)
    assert rmse == pytest.approx(expected["RMSE"], abs=2e-5)
    for band, name in enumerate(model.BANDS):
        assert np.abs(error[:, band]).mean(dtype=np.float64) == pytest.approx(
            expected["MAE_per_band"][name], abs=2e-5
        )


def test_the_model_clears_a_withheld_date_as_published(vectors, series, shared):
    reflectance, _, seen, radar = series
    window = (slice(24, 36), slice(30, 44))
    number = 8
    date = vectors["holdout_index"][number]
    others = np.arange(91) != date
    classes = np.where(seen, CLEAR, CLOUD).astype(np.uint8)[(slice(None), *window)]
    context = np.moveaxis(reflectance[(slice(None), *window)], -1, 1)
    offsets = vectors["doy"] - vectors["doy"][date]
    inputs = Inputs(
        bands=model.BANDS,
        target=context[date],
        target_class=classes[date],
        target_probability=np.full(classes.shape[1:], np.nan, np.float32),
        context=context[others],
        context_class=classes[others],
        days=offsets[others].astype(np.float32),
        sar=None,
        target_date="2018-07-18",
        level="L2A",
        sar_series=np.moveaxis(radar[(slice(None), *window)], -1, 1),
        sar_days=(vectors["doy_aux"] - vectors["doy"][date]).astype(np.float32),
    )
    assert vectors["doy"][date] == 199  # 18 July
    spec = ModelSpec("af", "anytimeformer", weights=weights_of(shared, "40pct"))
    prediction = model.AnytimeFormer(spec).predict(inputs)
    published = vectors["scene_rec_holdout_reflectance"][(*window, number)]
    found = np.moveaxis(prediction.reflectance, 0, -1) * 1e4
    assert np.abs(found - published).max() <= 1
