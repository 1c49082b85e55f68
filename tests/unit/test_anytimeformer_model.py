"""AnytimeFormer with weights by recipe: an own vector, invariances, and when it steps aside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window

from unveil import raster
from unveil.bands import CLEAR, CLOUD, SAR2
from unveil.models.anytimeformer import model as module
from unveil.models.anytimeformer.model import AnytimeFormer
from unveil.models.anytimeformer.network import compile_network, expected_shapes
from unveil.models.base import ModelSpec
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene, read_inputs

GRID = Grid("EPSG:32631", (10.0, 0, 0, 0, -10.0, 0), 6, 5)


@pytest.fixture(scope="module")
def weights():
    """Random weights of the published shapes, reproducible."""
    random = np.random.default_rng(2026)
    arrays = {}
    for name, shape in sorted(expected_shapes().items()):
        values = random.standard_normal(shape)
        if name.endswith("layer_norm.weight"):
            values = 1 + 0.2 * values
        elif name != "position_enc.pos_table":
            values /= np.sqrt(shape[-1])
        arrays[name] = values.astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def network(weights):
    """The graph of these weights."""
    return compile_network(weights)


@pytest.fixture
def model(network, monkeypatch, tmp_path):
    """The model with these weights, as if they had been read from a file."""
    path = tmp_path / "weights.ckpt"
    path.write_bytes(b"placeholder")
    instance = AnytimeFormer(ModelSpec("af", "anytimeformer", weights=path))
    monkeypatch.setattr(instance, "_run", network)
    return instance


def window_of(seed=0, *, shape=(4, 3)) -> Inputs:
    """Return a window with seven optical and five radar dates around mid-June."""
    random = np.random.default_rng(seed)
    context = random.uniform(0.02, 0.4, (6, 10, *shape)).astype(np.float32)
    target_class = np.full(shape, CLOUD, np.uint8)
    target_class[0] = CLEAR
    return Inputs(
        bands=module.BANDS,
        target=random.uniform(0.3, 0.9, (10, *shape)).astype(np.float32),
        target_class=target_class,
        target_probability=np.full(shape, np.nan, np.float32),
        context=context,
        context_class=np.where(random.random((6, *shape)) < 0.6, CLEAR, CLOUD).astype(np.uint8),
        days=np.array([-90, -41, -6, 4, 30, 77], np.float32),
        sar=None,
        target_date="2019-06-14",
        level="L2A",
        sar_series=random.uniform(-22, -5, (5, 2, *shape)).astype(np.float32),
        sar_days=np.array([-60, -12, 0, 12, 24], np.float32),
    )


def test_published_checkpoints_have_51_arrays():
    assert len(expected_shapes()) == 51


def test_the_network_gives_the_own_vector(network):
    # Expected: float64 in NumPy, by an implementation that meets golden E within 5e-6.
    random = np.random.default_rng(7)
    optical = random.standard_normal((2, 5, 10)).astype(np.float32)
    optical[:, 2] = 0
    radar = random.standard_normal((2, 4, 2)).astype(np.float32)
    days = [np.array(d, np.int32) for d in ([3, 40, 100, 101, 350], [1, 90, 99, 360], [100, 200])]
    found = network(optical, radar, *days)
    expected = [
        [[-0.09895, 0.00344, 0.05634], [-0.17313, 0.01288, -0.22921]],
        [[-0.37312, 1.15138, 0.90153], [-0.32788, 0.46591, 0.7518]],
    ]
    assert found.shape == (2, 2, 10)
    np.testing.assert_allclose(found[..., :3], expected, atol=5e-5)


def test_clear_target_pixels_are_kept_and_clouded_ones_answered(model):
    inputs = window_of()
    found = model.predict(inputs).reflectance
    np.testing.assert_array_equal(found[:, 0], inputs.target[:, 0])
    assert np.isfinite(found).all()
    assert found.dtype == np.float32
    assert not np.isclose(found[:, 1:], inputs.target[:, 1:]).all(axis=0).any()


def test_what_clouds_hide_does_not_matter(model):
    inputs = window_of()
    hidden = np.where(inputs.context_clear[:, None], inputs.context, 0.95).astype(np.float32)
    hidden[0, :, 3, 2] = np.nan if not inputs.context_clear[0, 3, 2] else hidden[0, :, 3, 2]
    np.testing.assert_array_equal(
        model.predict(replace(inputs, context=hidden)).reflectance,
        model.predict(inputs).reflectance,
    )


def test_pixels_do_not_depend_on_batch_or_band_order(model, monkeypatch):
    inputs = window_of()
    whole = model.predict(inputs).reflectance
    monkeypatch.setattr(module, "TOKENS_PER_BATCH", 14)
    np.testing.assert_allclose(model.predict(inputs).reflectance, whole, atol=1e-5)
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    shuffled = replace(
        inputs,
        bands=tuple(module.BANDS[i] for i in order),
        target=inputs.target[order],
        context=inputs.context[:, order],
    )
    np.testing.assert_allclose(model.predict(shuffled).reflectance, whole, atol=1e-5)


def test_dates_of_another_year_are_left_out(model):
    inputs = window_of()
    later = np.append(inputs.days, 400).astype(np.float32)
    more = replace(
        inputs,
        days=later,
        context=np.concatenate([inputs.context, inputs.context[:1] * 2]),
        context_class=np.concatenate([inputs.context_class, inputs.context_class[:1]]),
    )
    np.testing.assert_allclose(
        model.predict(more).reflectance, model.predict(inputs).reflectance, atol=1e-6
    )


def test_a_pixel_without_target_data_stays_without_answer(model):
    inputs = window_of()
    inputs.target[:, 2, 1] = np.nan
    missing = np.isnan(model.predict(inputs).reflectance)
    assert missing[:, 2, 1].all()
    assert missing.sum() == 10


def test_guarded_without_radar_series_are_refused(model):
    with pytest.raises(ValueError, match="without radar dates"):
        model.predict(replace(window_of(), sar_series=None))


def test_last_day_of_a_leap_year_has_an_encoding():
    index, days = module._within_year("2020-12-31", np.array([-365.0, -1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(index, [0, 1, 2])
    np.testing.assert_array_equal(days, [1, 365, 365])


def scene_of(tmp_path, optical, radar, *, bands=module.BANDS) -> Scene:
    target, *context = optical
    frames = [Frame(target, "target", tmp_path / "t.tif", bands, tmp_path / "t_mask.tif")]
    frames += [Frame(date, "context", tmp_path / f"{date}.tif", bands) for date in context]
    frames += [Frame(date, "radar", tmp_path / f"sar_{date}.tif", SAR2) for date in radar]
    return Scene("s", "none", "p", GRID, tuple(frames), {"level": "L2A"})


OPTICAL = ("2019-06-14", "2019-01-05", "2019-03-05", "2019-05-05", "2019-07-05", "2019-09-05")
RADAR = ("2019-02-01", "2019-04-01", "2019-06-01", "2019-08-01", "2019-10-01", "2019-12-01")


@pytest.mark.parametrize(
    ("optical", "radar", "reason"),
    [
        (OPTICAL, RADAR, None),
        (OPTICAL, RADAR[:3], "needs 6 radar dates in 2019, the scene has 3"),
        (OPTICAL, (), "needs Sentinel-1 radar"),
        ((*OPTICAL[:5], "2020-01-05"), RADAR, "needs 6 optical dates in 2019, the scene has 5"),
    ],
)
def test_it_steps_aside_where_the_series_is_too_short(model, tmp_path, optical, radar, reason):
    found = model.skip(scene_of(tmp_path, optical, radar))
    assert found is None if reason is None else reason in found


def test_it_steps_aside_without_its_bands_or_weights(model, tmp_path):
    few = scene_of(tmp_path, OPTICAL, RADAR, bands=("B02", "B03", "B04"))
    assert "needs bands B05" in model.skip(few)
    without = AnytimeFormer(ModelSpec("af", "anytimeformer", weights=tmp_path / "none.ckpt"))
    assert "not fetched" in without.skip(scene_of(tmp_path, OPTICAL, RADAR))


def write(path, bands, value, dtype):
    with raster.cog_writer(path, GRID, dtype=dtype, descriptions=bands, nodata=0) as writer:
        writer.write(np.full((len(bands), *GRID.shape), value, dtype))


def test_the_radar_series_is_read_by_date_when_asked_for(tmp_path):
    scene = scene_of(tmp_path, ("2019-06-14",), ("2019-07-01", "2019-06-01", "2019-06-12"))
    write(scene.target.path, module.BANDS, 1000, "uint16")
    write(scene.target.mask, ["CLASS"], CLEAR, "uint8")
    for number, frame in enumerate(scene.with_role("radar"), 1):
        write(frame.path, SAR2, -float(number), "float32")
    window = Window(1, 2, 3, 2)
    inputs = read_inputs(scene, window=window, radar="all")
    assert inputs.sar_series.shape == (3, 2, 2, 3)
    np.testing.assert_array_equal(inputs.sar_series[:, 0, 0, 0], [-1, -2, -3])
    np.testing.assert_array_equal(inputs.sar_days, [-13, -2, 17])
    np.testing.assert_array_equal(inputs.sar, inputs.sar_series[1])
