"""UnCRtainTS and U-TILISE: their layers against closed forms, their invariants, their contract.

The weights are drawn by seed; the published outputs are in ``tests/golden``.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from scipy.special import erf
from tests.drawn_weights import draw_weights

from unveil.bands import CLEAR, CLOUD, L1C13, NODATA, SHADOW
from unveil.errors import InputError
from unveil.models import uncrtaints, utilise
from unveil.models.base import ModelSpec
from unveil.models.layers import padding, sequences
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene
from unveil.weights.arrays import write_arrays

EARTHNET = utilise.CONFIGURATIONS["earthnet"]


@pytest.fixture(scope="module")
def tl():
    """The layers' module, which loads TensorFlow."""
    from unveil.models.layers import torch_state

    return torch_state


def run(module, state, frames, days) -> tuple[np.ndarray, np.ndarray]:
    from unveil.models.layers.torch_state import TorchLayers

    output, attention = module.forward(
        TorchLayers(state), frames.astype(np.float32), days.astype(np.float32)
    )
    return output.numpy(), attention.numpy()


UNCRTAINTS = draw_weights(uncrtaints.state_shapes(), seed=20, spread=0.1)
UTILISE = draw_weights(utilise.state_shapes(EARTHNET), seed=20, spread=0.1)


def cloudy_sequence(*, channels: int, top: float, batch: int = 1, size: int = 32, frames: int = 3):
    generator = np.random.default_rng(5)
    images = generator.uniform(0, top, (batch, frames, size, size, channels))
    days = np.sort(generator.uniform(1, 360, (batch, frames)).round())
    return images, days


# --- Layers ------------------------------------------------------------------------------


def test_convolution_reflects_its_borders(tl):
    generator = np.random.default_rng(0)
    kernel, image = generator.normal(size=(2, 1, 3, 3)), generator.normal(size=(6, 7))
    layers = tl.TorchLayers({"c.weight": kernel, "c.bias": np.array([0.5, -1.0])})
    found = layers.convolve(image[None, :, :, None].astype(np.float32), "c")[0].numpy()
    for k, bias in enumerate((0.5, -1.0)):
        expected = correlate(image, kernel[k, 0], mode="mirror") + bias
        np.testing.assert_allclose(found[..., k], expected, atol=1e-5)


def test_depthwise_convolution_keeps_channels_apart(tl):
    generator = np.random.default_rng(1)
    kernel, image = generator.normal(size=(3, 1, 3, 3)), generator.normal(size=(5, 6, 3))
    layers = tl.TorchLayers({"c.weight": kernel})
    found = layers.convolve_depthwise(image[None].astype(np.float32), "c")[0].numpy()
    for k in range(3):
        expected = correlate(image[..., k], kernel[k, 0], mode="mirror")
        np.testing.assert_allclose(found[..., k], expected, atol=1e-5)


def test_doubling_spreads_every_pixel_over_its_own_four(tl):
    generator = np.random.default_rng(2)
    kernel, image = generator.normal(size=(3, 2, 2, 2)), generator.normal(size=(4, 5, 3))
    layers = tl.TorchLayers({"u.weight": kernel, "u.bias": np.zeros(2)})
    found = layers.double(image[None].astype(np.float32), "u")[0].numpy()
    expected = np.einsum("yxi,ioab->yaxbo", image, kernel).reshape(8, 10, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_group_norm_leaves_no_offset_or_scale_in_a_group(tl):
    image = np.random.default_rng(3).normal(100, 1.0, (2, 128, 96, 8)).astype(np.float32)
    layers = tl.TorchLayers({"n.weight": np.ones(8), "n.bias": np.zeros(8)})
    groups = layers.group_norm(image, "n", groups=4).numpy().reshape(2, -1, 4, 2)
    np.testing.assert_allclose(groups.mean(axis=(1, 3), dtype=float), 0, atol=1e-4)
    np.testing.assert_allclose(groups.std(axis=(1, 3), dtype=float), 1, atol=1e-4)


def test_gelu_is_the_exact_one(tl):
    x = np.linspace(-4, 4, 33)
    expected = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    np.testing.assert_allclose(tl.gelu(x.astype(np.float32)), expected, atol=1e-6)


@settings(max_examples=20)
@given(height=st.integers(4, 19), width=st.integers(4, 19), size=st.integers(1, 4))
def test_pooled_cells_are_the_maxima_of_their_pixels(height, width, size):
    from unveil.models.layers.torch_state import adaptive_max_pool

    image = np.random.default_rng(height * width).normal(size=(1, height, width, 2))
    found = adaptive_max_pool(image.astype(np.float32), size).numpy()
    for row in range(size):
        for col in range(size):
            rows = slice(row * height // size, -(-(row + 1) * height // size))
            cols = slice(col * width // size, -(-(col + 1) * width // size))
            expected = image[0, rows, cols].max(axis=(0, 1)).astype(np.float32)
            np.testing.assert_array_equal(found[0, row, col], expected)


def test_days_are_encoded_as_sines_and_cosines_of_growing_wavelength(tl):
    encoded = tl.encode_days(np.array([[0.0, 3.5]]), width=4, period=100.0, repeats=2).numpy()
    one = [np.sin(3.5), np.cos(3.5), np.sin(0.35), np.cos(0.35)]
    np.testing.assert_allclose(encoded[0], [[0, 1] * 4, one * 2], atol=1e-6)


def test_attention_on_one_frame_returns_that_frame_in_every_group(tl):
    frames = np.random.default_rng(4).normal(size=(1, 3, 8, 8, 4)).astype(np.float32)
    chosen = np.array([[2, 0], [1, 2]])  # (head, output frame)
    attention = np.broadcast_to(np.eye(3)[chosen], (1, 4, 4, 2, 2, 3)).astype(np.float32)
    found = tl.aggregate(frames, attention).numpy()
    for head in range(2):
        for row in range(2):
            channels = slice(2 * head, 2 * head + 2)
            expected = frames[0, chosen[head, row], ..., channels]
            np.testing.assert_allclose(found[0, row, ..., channels], expected, atol=1e-6)


# --- Networks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "state", "channels", "top"),
    [(uncrtaints, UNCRTAINTS, 15, 10.0), (utilise, UTILISE, 4, 1.0)],
    ids=["uncrtaints", "utilise"],
)
class TestBothNetworks:
    def test_attention_sums_to_one_over_the_frames(self, module, state, channels, top):
        _, attention = run(module, state, *cloudy_sequence(channels=channels, top=top))
        assert attention.min() >= 0
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)

    def test_a_padded_frame_gets_no_attention(self, module, state, channels, top):
        frames, days = cloudy_sequence(channels=channels, top=top)
        frames[:, -1], days[:, -1] = 0, 0
        _, attention = run(module, state, frames, days)
        np.testing.assert_array_equal(attention[..., -1], 0)

    def test_a_sample_does_not_see_the_others_of_its_batch(self, module, state, channels, top):
        frames, days = cloudy_sequence(channels=channels, top=top, batch=2)
        together, _ = run(module, state, frames, days)
        alone, _ = run(module, state, frames[1:], days[1:])
        np.testing.assert_allclose(together[1:], alone, atol=1e-5)

    def test_dates_matter_and_not_the_order_of_frames(self, module, state, channels, top):
        frames, days = cloudy_sequence(channels=channels, top=top)
        order = [2, 0, 1]
        straight, _ = run(module, state, frames, days)
        shuffled, _ = run(module, state, frames[:, order], days[:, order])
        swapped, _ = run(module, state, frames[:, order], days)
        expected = straight[:, order] if module is utilise else straight
        np.testing.assert_allclose(shuffled, expected, atol=1e-5)
        assert np.abs(swapped - expected).max() > 1e-4


def test_uncrtaints_gives_means_in_range_and_positive_variances():
    output, _ = run(uncrtaints, UNCRTAINTS, *cloudy_sequence(channels=15, top=10.0))
    means, variances = output[..., :13], output[..., 13:]
    assert means.min() >= 0
    assert means.max() <= 10
    assert variances.min() >= uncrtaints.LEAST_VARIANCE


def test_padded_frames_do_not_alter_utilise():
    frames, days = cloudy_sequence(channels=4, top=1.0)
    without, _ = run(utilise, UTILISE, frames, days)
    padded, _ = run(
        utilise,
        UTILISE,
        np.pad(frames, [(0, 0), (0, 2), *[(0, 0)] * 3]),
        np.pad(days, [(0, 0), (0, 2)]),
    )
    np.testing.assert_allclose(padded[:, :3], without, atol=1e-6)
    np.testing.assert_array_equal(padded[:, 3:], 0)


def test_networks_keep_the_outputs_they_had_when_they_matched_the_published_ones():
    """Recorded with the golden vectors of C and D passing; weights and input by seed."""
    output, _ = run(uncrtaints, UNCRTAINTS, *cloudy_sequence(channels=15, top=10.0))
    np.testing.assert_allclose(output[0, 9, 17, ::5], RECORDED["uncrtaints"], atol=2e-4)
    output, _ = run(utilise, UTILISE, *cloudy_sequence(channels=4, top=1.0))
    np.testing.assert_allclose(output[0, :, 9, 17].ravel(), RECORDED["utilise"], atol=1e-5)


RECORDED = {
    "uncrtaints": [1.215058, 0.187171, 1.587544, 1.243815, 0.563989, 1.433795],
    "utilise": [
        *(0.469793, 0.433998, 0.522234, 0.466367),
        *(0.468514, 0.431847, 0.520632, 0.460773),
        *(0.468186, 0.432055, 0.518890, 0.459673),
    ],
}


# --- Sequences ---------------------------------------------------------------------------


def inputs_of(
    bands: tuple[str, ...], days: list[float], *, shape: tuple[int, int] = (32, 32), radar=False
) -> Inputs:
    generator = np.random.default_rng(9)
    count = len(days)
    series = generator.uniform(-40, 5, (3, 2, *shape)).astype(np.float32) if radar else None
    context = generator.uniform(0, 1, (count, len(bands), *shape)).astype(np.float32)
    classes = generator.choice([CLEAR, CLEAR, CLOUD, SHADOW], (count + 1, *shape))
    return Inputs(
        bands=bands,
        target=generator.uniform(-0.05, 1.3, (len(bands), *shape)).astype(np.float32),
        target_class=classes[0].astype(np.uint8),
        target_probability=np.zeros(shape, np.float32),
        context=context,
        context_class=classes[1:].astype(np.uint8),
        days=np.array(days, np.float32),
        sar=series[1] if radar else None,
        target_date="2020-03-01",
        level="L1C",
        sar_series=series,
        sar_days=np.array([-13, -1, 11], np.float32) if radar else None,
    )


def test_a_sequence_holds_the_nearest_frames_in_order_of_time():
    inputs = inputs_of(("B02", "B03"), [-30, -10, -5, 5, 20])
    sequence = sequences.sequence_of(inputs, ("B03",), frames=4)
    assert sequence.dates == tuple(
        dt.date(2020, 3, 1) + dt.timedelta(days) for days in (-10, -5, 0, 5)
    )
    assert sequence.target == 2
    np.testing.assert_array_equal(sequence.reflectance[2], inputs.target[1:])
    np.testing.assert_array_equal(sequence.reflectance[3], inputs.context[3, 1:])
    np.testing.assert_array_equal(sequence.clear[0], inputs.context_clear[1])


def test_of_two_frames_as_near_the_earlier_one_is_taken():
    sequence = sequences.sequence_of(inputs_of(("B02",), [-5, 5]), ("B02",), frames=2)
    assert sequence.dates[0] == dt.date(2020, 2, 25)


def test_radar_is_mapped_from_minus_25_decibels_and_gaps_are_zero():
    decibels = np.array([-30, -25, -12.5, 0, 3, np.nan]).reshape(2, 1, 3)
    expected = np.array([0, 0, 0.5, 1, 1, 0]).reshape(2, 1, 3)
    np.testing.assert_array_equal(sequences.scale_radar(decibels), expected)


def test_every_optical_date_gets_its_nearest_radar_and_of_two_the_earlier():
    inputs = inputs_of(("B02",), [], radar=True)  # radar 13 days and 1 day before, 11 after
    dates = tuple(dt.date(2020, 3, 1) + dt.timedelta(days) for days in (-30, -7, -6, 0, 5, 6, 40))
    frames, later = sequences.pair_radar(inputs, dates)
    np.testing.assert_array_equal(later, [17, -6, 5, -1, -6, 5, -29])
    expected = sequences.scale_radar(inputs.sar_series[0])
    np.testing.assert_array_equal(frames[0], expected)
    np.testing.assert_array_equal(
        frames, sequences.scale_radar(inputs.sar_series)[[0, 0, 1, 1, 1, 2, 2]]
    )


def test_a_scene_gives_the_radar_of_its_frames_and_no_other():
    optical = {"2020-03-01": "target", "2020-01-05": "context", "2020-03-20": "context"}
    radar = ("2020-01-01", "2020-01-09", "2020-02-10", "2020-02-29", "2020-03-03", "2020-04-30")
    frames = [Frame(date, role, Path(date), ("B02",)) for date, role in optical.items()]
    frames += [Frame(date, "radar", Path(f"sar{date}"), ("VV", "VH")) for date in radar]
    scene = Scene("s", "none", "p", Grid("", (1.0, 0, 0, 0, -1.0, 0), 4, 4), tuple(frames), {})
    assert [f.date for f in scene.radar_of("target")] == ["2020-02-29"]
    assert [f.date for f in scene.radar_of("paired")] == ["2020-01-01", "2020-02-29", "2020-03-03"]
    assert [f.date for f in scene.radar_of("all")] == list(radar)
    assert replace(scene, frames=tuple(frames[:3])).radar_of("paired") == ()


@given(
    row=st.integers(0, 50),
    col=st.integers(0, 50),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_windows_are_padded_to_the_cells_of_the_scene_and_back(row, col, shape):
    images = np.random.default_rng(0).normal(size=(2, *shape))
    padded = padding.pad_to_grid(images, origin=(row, col), step=8, least=16)
    assert padded.shape[1] % 8 == padded.shape[2] % 8 == 0
    assert min(padded.shape[1:]) >= 16
    back = padding.unpad(padded, origin=(row, col), step=8, shape=shape)
    np.testing.assert_array_equal(back, images)


# --- Models ------------------------------------------------------------------------------


def model_of(folder: Path, kind: str):
    cls, state = {
        "uncrtaints": (uncrtaints.UnCRtainTS, UNCRTAINTS),
        "utilise": (utilise.UTilise, UTILISE),
    }[kind]
    path = folder / f"{kind}.npz"
    write_arrays(path, state)
    return cls(ModelSpec(kind, kind, weights=path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def uncrtaints_model(folder):
    return model_of(folder, "uncrtaints")


@pytest.fixture(scope="module")
def utilise_model(folder):
    return model_of(folder, "utilise")


def test_uncrtaints_gives_reflectance_and_its_standard_deviation(uncrtaints_model):
    inputs = inputs_of(L1C13, [-10, 12], shape=(40, 34), radar=True)
    inputs.target[:, :3] = np.nan
    inputs.context[:, :, :2] = np.nan
    found = uncrtaints_model.predict(inputs)
    assert found.bands == L1C13
    assert found.reflectance.shape == found.std.shape == (13, 40, 34)
    assert np.isnan(found.reflectance[:, :2]).all()
    assert np.isfinite(found.reflectance[:, 2:]).all()
    assert np.nanmin(found.std) >= np.sqrt(uncrtaints.LEAST_VARIANCE) / 10


def test_uncrtaints_clears_images_smaller_than_its_attention(uncrtaints_model):
    inputs = inputs_of(L1C13, [-10, 12], shape=(20, 7), radar=True)
    assert uncrtaints_model.predict(inputs).reflectance.shape == (13, 20, 7)


def test_uncrtaints_gets_the_mean_of_the_optical_and_the_radar_date(uncrtaints_model, monkeypatch):
    given = []
    uncrtaints_model.load()
    run = uncrtaints_model._graph
    monkeypatch.setattr(
        uncrtaints_model,
        "_graph",
        lambda frames, days: given.append((frames, days)) or run(frames, days),
    )
    inputs = inputs_of(L1C13, [-10, 12], radar=True)
    uncrtaints_model.predict(inputs)
    [(frames, days)] = given
    target = (dt.date(2020, 3, 1) - uncrtaints.REFERENCE_DAY).days
    np.testing.assert_array_equal(days, [[target - 11.5, target - 0.5, target + 11.5]])
    radar = sequences.scale_radar(inputs.sar_series)  # 13 and 1 before, 11 after
    np.testing.assert_allclose(frames[0, ..., :2], 10 * np.moveaxis(radar, 1, -1), rtol=1e-6)


def test_uncrtaints_gets_the_clearest_frames_of_the_whole_scene_when_asked(folder):
    inputs = inputs_of(L1C13, [-60, -20, -10, 12, 30], radar=True)
    inputs.context_class[:] = CLOUD
    inputs.context_class[0, :9] = inputs.context_class[4, :, :8] = CLEAR
    inputs.context_class[1, :, 24:] = CLEAR  # as clear as frame 4, and nearer
    nearest = model_of(folder, "uncrtaints")
    clearest = uncrtaints.UnCRtainTS(replace(nearest.spec, options={"frames": "clearest"}))
    clearest.prepare(
        None, [inputs.crop(slice(0, 16), slice(0, 32)), inputs.crop(slice(16, 32), slice(0, 32))]
    )
    alone = replace(
        inputs,
        context=inputs.context[:2],
        context_class=inputs.context_class[:2],
        days=inputs.days[:2],
    )
    np.testing.assert_array_equal(
        clearest.predict(inputs).reflectance, nearest.predict(alone).reflectance
    )
    assert (nearest.needs.max_context, clearest.needs.max_context) == (2, None)


def test_frames_of_uncrtaints_are_chosen_by_a_word_it_knows():
    with pytest.raises(InputError, match=r"found 'best'.*nearest, clearest"):
        uncrtaints.UnCRtainTS(ModelSpec("mine", "uncrtaints", options={"frames": "best"}))


def test_utilise_is_blind_to_what_clouds_hide(utilise_model):
    inputs = inputs_of(EARTHNET.bands, [-20, -10, 10, 20])
    other = np.where(inputs.target_clear, inputs.target, 0.123).astype(np.float32)
    context = np.where(inputs.context_clear[:, None], inputs.context, 0.456).astype(np.float32)
    first = utilise_model.predict(inputs).reflectance
    second = utilise_model.predict(replace(inputs, target=other, context=context)).reflectance
    np.testing.assert_array_equal(first, second)


def test_utilise_has_no_answer_only_where_no_frame_has_data(utilise_model):
    inputs = inputs_of(EARTHNET.bands, [-20, -10, 10, 20])
    inputs.target[:, :5], inputs.target_class[:5] = np.nan, NODATA
    inputs.context[:, :, :2] = np.nan
    found = utilise_model.predict(inputs).reflectance
    assert np.isnan(found[:, :2]).all()
    assert np.isfinite(found[:, 2:]).all()


def test_utilise_in_tiles_equals_the_whole_scene(utilise_model):
    halo = utilise_model.receptive_field
    inputs = inputs_of(EARTHNET.bands, [-20, 10], shape=(halo + 61, halo + 93))
    whole = utilise_model.predict(inputs).reflectance
    row, col = 43, 51  # not multiples of the network's step
    tile = replace(
        inputs,
        target=inputs.target[:, row:, col:],
        target_class=inputs.target_class[row:, col:],
        context=inputs.context[:, :, row:, col:],
        context_class=inputs.context_class[:, row:, col:],
        origin=(row, col),
    )
    found = utilise_model.predict(tile).reflectance
    inside = (slice(None), slice(halo, None), slice(halo, None))
    np.testing.assert_allclose(
        found[inside], whole[:, row + halo :, col + halo :], rtol=0, atol=1e-5
    )
    assert np.abs(found - whole[:, row:, col:]).max() > 1e-4  # the halo is needed


@pytest.mark.parametrize("model", ["uncrtaints_model", "utilise_model"])
def test_predictions_repeat_bit_for_bit(model, request):
    bands = L1C13 if model == "uncrtaints_model" else EARTHNET.bands
    inputs = inputs_of(bands, [-20, -10, 10, 20], radar=True)
    model = request.getfixturevalue(model)
    first, second = model.predict(inputs), model.predict(inputs)
    np.testing.assert_array_equal(first.reflectance, second.reflectance)


def scene_of(bands: tuple[str, ...], *, dates: int, radar: bool, level: str) -> Scene:
    def frame(role: str, day: int, names: tuple[str, ...]) -> Frame:
        return Frame(f"2020-06-{day:02d}", role, Path(f"{role}{day}.tif"), names)

    frames = [frame("target", 1, bands)]
    frames += [frame("context", 2 + n, bands) for n in range(dates)]
    frames += [frame("radar", 2, ("VV", "VH"))] if radar else []
    grid = Grid("EPSG:32632", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 64, 64)
    return Scene("s", "none", "p", grid, tuple(frames), {"level": level})


@pytest.mark.parametrize("cls", [uncrtaints.UnCRtainTS, utilise.UTilise])
def test_a_model_steps_aside_until_its_weights_are_fetched(cls, tmp_path):
    scene = scene_of(L1C13, dates=9, radar=True, level="L1C")
    for weights in (None, tmp_path / "absent.pth"):
        reason = cls(ModelSpec("m", cls.kind, weights=weights)).skip(scene)
        assert reason.startswith("weights not fetched")


def test_a_model_says_what_a_scene_lacks(uncrtaints_model, utilise_model):
    full = scene_of(L1C13, dates=9, radar=True, level="L1C")
    assert uncrtaints_model.skip(full) is None
    assert utilise_model.skip(full) is None
    without_radar = scene_of(L1C13, dates=9, radar=False, level="L1C")
    assert "radar" in uncrtaints_model.skip(without_radar)
    short = scene_of(L1C13, dates=1, radar=True, level="L1C")
    assert "2 context frames" in uncrtaints_model.skip(short)
    assert "4 context frames" in utilise_model.skip(short)
    coloured = scene_of(("B02", "B03", "B04", "B08"), dates=9, radar=True, level="L1C")
    assert "B8A" in utilise_model.skip(coloured)


def test_weights_of_another_configuration_are_refused(folder, utilise_model):
    spec = replace(utilise_model.spec, options={"configuration": "sen12mscrts"})
    with pytest.raises(InputError, match="configuration"):
        utilise.UTilise(spec).load()


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (utilise.UTilise, {"configuration": "earthnet2021"}),
        (utilise.UTilise, {"frames": 3}),
        (uncrtaints.UnCRtainTS, {"frames": 3}),
    ],
)
def test_unknown_options_are_refused_by_name(cls, options):
    with pytest.raises(InputError, match="options"):
        cls(ModelSpec("m", cls.kind, options=options))
