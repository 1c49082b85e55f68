"""Masks: detectors, their merge, and what the masks stage writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unveil import raster
from unveil.bands import (
    CLEAR,
    CLOUD,
    L1C13,
    L2A12,
    NODATA,
    S2CLOUDLESS10,
    SHADOW,
    SNOW,
    UNKNOWN_PROBABILITY,
)
from unveil.errors import InputError
from unveil.masks.detectors import coarse, s2cloudless, thresholds
from unveil.masks.detectors.base import Votes
from unveil.masks.detectors.registry import DETECTORS
from unveil.masks.detectors.thresholds import Thresholds
from unveil.masks.mask_scene import mask_scene, merge, why_unjudged
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import DECLARED_CLEAR, Frame, Scene, read_mask

# Top-of-atmosphere reflectance of two surfaces and a cumulus, B01 ... B12.
FOREST = (0.12, 0.09, 0.07, 0.05, 0.08, 0.18, 0.22, 0.24, 0.26, 0.08, 0.002, 0.12, 0.06)
CUMULUS = (0.62, 0.62, 0.60, 0.62, 0.63, 0.64, 0.66, 0.66, 0.66, 0.35, 0.02, 0.50, 0.40)
DARK = (0.10, 0.07, 0.04, 0.03, 0.03, 0.05, 0.06, 0.06, 0.07, 0.02, 0.001, 0.03, 0.02)


WITHOUT_UKIS = MaskOptions(detectors=("source", "s2cloudless", "thresholds"))


def grid_of(shape: tuple[int, int]) -> Grid:
    return Grid("EPSG:32633", (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_000_000.0), *shape)


def painted(labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return reflectance (13, H, W) of forest 0, cumulus 1 and dark 2, with some noise."""
    spectra = np.array([FOREST, CUMULUS, DARK], np.float32)
    noise = np.random.default_rng(seed).normal(1, 0.02, (13, *labels.shape))
    return (np.moveaxis(spectra[labels], -1, 0) * noise).astype(np.float32)


def cloud_and_shadow(shape: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(shape, int)
    labels[10:30, 10:30] = 1
    labels[34:54, 16:36] = 2
    return labels


def write_frame(
    folder: Path,
    reflectance: np.ndarray,
    *,
    date: str = "2020-06-01",
    role: str = "target",
    bands: tuple[str, ...] = L1C13,
) -> Frame:
    path = folder / "frames" / f"{role}_{date}.tif"
    raster.write_cog(
        path,
        raster.to_dn(reflectance),
        grid_of(reflectance.shape[1:]),
        descriptions=bands,
        nodata=0,
    )
    return Frame(date, role, path, bands)


def deliver(folder: Path, values: np.ndarray, band: str) -> Path:
    path = folder / "source_masks" / f"{band}.tif"
    raster.write_cog(
        path,
        values[None].astype(np.uint8),
        grid_of(values.shape),
        descriptions=(band,),
        nodata=None,
    )
    return path


def scene_of(*frames: Frame, level: str = "L1C") -> Scene:
    with raster.open_raster(frames[0].path) as dataset:
        grid = raster.grid_of(dataset)
    return Scene("s", "none", "p", grid, frames, {"level": level})


def classes_of(frame: Frame) -> np.ndarray:
    return raster.read(frame.mask)[0]


# --- thresholds -----------------------------------------------------------------------


def slow_cloud_score(image: np.ndarray) -> np.ndarray:
    """Return the cloud score by loops over pixels, written from the description alone."""
    band = dict(zip(L1C13, image.astype(np.float64), strict=True))
    _, height, width = image.shape
    raw = np.empty((height, width))
    for r, c in np.ndindex(height, width):
        b = {name: values[r, c] for name, values in band.items()}
        raw[r, c] = min(
            1.0,
            (b["B02"] - 0.1) / 0.4,
            (b["B01"] - 0.1) / 0.2,
            (b["B01"] + b["B10"] - 0.15) / 0.05,
            (b["B02"] + b["B03"] + b["B04"] - 0.2) / 0.6,
            (0.8 - (b["B03"] - b["B11"]) / (b["B03"] + b["B11"])) / 0.2,
        )

    def around(values, r, c, radius):
        return values[max(0, r - radius) : r + radius + 1, max(0, c - radius) : c + radius + 1]

    highest = np.array([[around(raw, r, c, 2).max() for c in range(width)] for r in range(height)])
    closed = np.array(
        [[around(highest, r, c, 2).min() for c in range(width)] for r in range(height)]
    )
    smooth = [[around(closed, r, c, 3).sum() / 49 for c in range(width)] for r in range(height)]
    return np.clip(smooth, 1e-5, 1)


def test_the_cloud_score_equals_a_loop_over_pixels():
    image = painted(cloud_and_shadow((60, 48)), seed=3)
    found = thresholds.cloud_score(image, L1C13)
    np.testing.assert_allclose(found, slow_cloud_score(image), rtol=0, atol=1e-5)


def test_a_cloud_and_its_shadow_are_found_by_thresholds():
    labels = cloud_and_shadow((80, 80))
    classes = thresholds.threshold_mask(painted(labels), L1C13)
    assert (classes[14:26, 14:26] == CLOUD).all()
    assert (classes[38:50, 20:32] == SHADOW).all()
    assert (classes[60:, 60:] == CLEAR).all()


def test_snow_is_no_cloud_for_the_threshold_mask():
    snow = np.array(CUMULUS, np.float32)[:, None, None].repeat(32, 1).repeat(32, 2)
    snow[L1C13.index("B11")] = 0.06  # snow absorbs where cloud does not: NDSI 0.82
    assert thresholds.cloud_score(snow, L1C13).max() < thresholds.CLOUD_THRESHOLD


def test_shadow_statistics_do_not_depend_on_the_blocks():
    image = painted(cloud_and_shadow((64, 64)))
    image[:, :5] = np.nan
    whole = thresholds.shadow_statistics([image], L1C13)
    parts = thresholds.shadow_statistics(np.array_split(image, 7, axis=2), L1C13)
    np.testing.assert_allclose(list(vars(parts).values()), list(vars(whole).values()), rtol=1e-12)


def test_an_image_without_data_is_nodata_everywhere():
    empty = np.full((13, 20, 20), np.nan, np.float32)
    assert thresholds.shadow_statistics([empty], L1C13) is None
    assert (thresholds.threshold_mask(empty, L1C13) == NODATA).all()


# --- s2cloudless ----------------------------------------------------------------------


def test_s2cloudless_tells_cumulus_from_forest():
    labels = np.repeat([[0, 1]], 4, axis=0)
    probability = s2cloudless.cloud_probability(painted(labels), L1C13)
    assert probability[:, 0].max() < 0.2
    assert probability[:, 1].min() > 0.8


def test_digital_numbers_would_be_cloud_everywhere_and_are_refused():
    forest = painted(np.zeros((4, 4), int)) * 10_000
    ten = np.moveaxis(forest[[L1C13.index(name) for name in S2CLOUDLESS10]], 0, -1)
    blind = s2cloudless._detector().get_cloud_probability_maps(ten[None])
    assert blind.min() > 0.99  # the trap: no complaint, all cloud
    with pytest.raises(InputError, match="divide digital numbers by 10000"):
        s2cloudless.cloud_probability(forest, L1C13)


def test_pixels_without_data_have_no_probability():
    image = painted(np.zeros((4, 4), int))
    image[3, 1, 2] = np.nan  # B04 is one of the ten
    probability = s2cloudless.cloud_probability(image, L1C13)
    assert np.isnan(probability[1, 2])
    assert np.count_nonzero(np.isnan(probability)) == 1


@pytest.mark.parametrize(
    ("bands", "level", "reason"),
    [
        (L2A12, "L2A", "L1C, this is L2A"),
        (L1C13, "L2A", "L1C, this is L2A"),
        (L2A12, "L1C", "needs B10"),
        (("B02", "B03", "B04", "B08"), "", "needs B01"),
    ],
)
def test_s2cloudless_says_why_it_refuses(bands, level, reason):
    frame = Frame("2020-06-01", "target", Path("x.tif"), bands)
    assert reason in s2cloudless.S2Cloudless.refusal(frame, level)


def test_s2cloudless_accepts_ten_bands_of_unknown_level():
    frame = Frame("2020-06-01", "target", Path("x.tif"), S2CLOUDLESS10)
    assert s2cloudless.S2Cloudless.refusal(frame, "") is None


def test_averaging_removes_a_lonely_pixel():
    probability = np.zeros((21, 21), np.float32)
    probability[10, 10] = 1
    kept = s2cloudless.cloud_mask(probability, threshold=0.4, average_over=0)
    assert kept.sum() == 1
    assert not s2cloudless.cloud_mask(probability, threshold=0.4, average_over=4).any()


# --- merge ----------------------------------------------------------------------------

VOTES = arrays(bool, (4, 3, 5))


@given(votes=VOTES)
@settings(max_examples=50)
def test_nodata_wins_over_cloud_over_shadow_over_snow(votes):
    cloud, shadow, snow, missing = votes
    classes = merge(cloud=cloud, shadow=shadow, snow=snow, missing=missing)
    for position in np.ndindex(classes.shape):
        ranked = ((missing, NODATA), (cloud, CLOUD), (shadow, SHADOW), (snow, SNOW))
        first = next((code for where, code in ranked if where[position]), CLEAR)
        assert classes[position] == first


@given(mask=arrays(bool, (50, 70), elements=st.booleans()), reach=st.integers(0, 40))
@settings(max_examples=25)
def test_near_covers_every_true_pixel_and_nothing_beyond_its_reach(mask, reach):
    close = thresholds.near(mask, reach, cell=8)
    assert (close | ~mask).all()
    if mask.any() and (~close).any():
        rows, cols = np.nonzero(mask)
        for r, c in np.argwhere(~close)[::37]:
            # cells blur the distance by at most their own diagonal
            assert np.hypot(rows - r, cols - c).min() > reach - 2 * 8 * np.sqrt(2)


def test_percent_rounds_and_marks_the_unknown():
    values = np.array([[0.0, 0.404, 1.0, np.nan]], np.float32)
    assert coarse.to_percent(values).tolist() == [[0, 40, 100, UNKNOWN_PROBABILITY]]


# --- the stage ------------------------------------------------------------------------


def test_a_delivered_scene_classification_is_used_as_it_is(tmp_path):
    labels = np.zeros((64, 64), int)
    scl = np.full((64, 64), 4)
    scl[0:16], scl[16:32], scl[32:48], scl[48:56] = 9, 3, 11, 0
    frame = write_frame(tmp_path, painted(labels)[: len(L2A12)], bands=L2A12)
    frame = replace(frame, mask=deliver(tmp_path, scl, "SCL"))
    options = MaskOptions(combine="first", target_growth_m=0, context_growth_m=0)
    target = mask_scene(scene_of(frame, level="L2A"), tmp_path, options).target
    assert target.mask == tmp_path / "masks" / "2020-06-01.tif"
    assert classes_of(target)[[0, 16, 32, 48, 60], 0].tolist() == [
        CLOUD,
        SHADOW,
        SNOW,
        NODATA,
        CLEAR,
    ]
    assert target.facts["unveil:mask_sources"] == ["scl"]
    assert target.facts["eo:cloud_cover"] == pytest.approx(100 * 16 / 56, abs=0.01)
    assert target.facts["unveil:shadow_cover"] == pytest.approx(100 * 16 / 56, abs=0.01)
    assert (raster.read(target.mask)[1] == UNKNOWN_PROBABILITY).all()


def test_the_mask_is_a_cog_with_named_bands_and_overviews_without_new_classes(tmp_path):
    rng = np.random.default_rng(0)
    delivered = rng.choice([CLEAR, SHADOW, NODATA], (1100, 600))
    frame = write_frame(tmp_path, np.full((1, 1100, 600), 0.2, np.float32), bands=("B04",))
    frame = replace(frame, mask=deliver(tmp_path, delivered, "CLASS"))
    masked = mask_scene(
        scene_of(frame), tmp_path, MaskOptions(target_growth_m=0, context_growth_m=0)
    )
    with rasterio.open(masked.target.mask) as dataset:
        assert dataset.descriptions == ("CLASS", "CLOUD_PROBABILITY")
        assert dataset.dtypes == ("uint8", "uint8")
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.overviews(1)
        small = dataset.read(1, out_shape=(550, 300))
    assert set(np.unique(small)) <= {CLEAR, SHADOW, NODATA}


def test_level_1c_without_a_mask_is_judged_by_both_detectors(tmp_path):
    frame = write_frame(tmp_path, painted(cloud_and_shadow((96, 96))))
    target = mask_scene(scene_of(frame), tmp_path, WITHOUT_UKIS).target
    classes, percent = raster.read(target.mask)
    assert target.facts["unveil:mask_sources"] == ["s2cloudless", "thresholds"]
    assert (classes[12:28, 12:28] == CLOUD).all()
    assert (classes[38:50, 20:32] == SHADOW).all()
    assert (classes[70:, 70:] == CLEAR).all()
    assert percent[15:25, 15:25].min() > 80
    assert percent[70:, 70:].max() < 20


def cumulus_under(tmp_path, delivered):
    """Return a frame of forest with a cumulus and its shadow, and a delivered mask."""
    frame = write_frame(tmp_path, painted(cloud_and_shadow(delivered.shape)))
    return replace(frame, mask=deliver(tmp_path, delivered, "CLASS"))


def test_by_consensus_a_pixel_is_cloud_where_either_of_two_says_so(tmp_path):
    delivered = np.zeros((96, 96), int)
    delivered[72:] = CLOUD
    scene = scene_of(cumulus_under(tmp_path, delivered))
    found = {}
    for names in (("source",), ("ukis",), ("source", "ukis")):
        options = MaskOptions(detectors=names, target_growth_m=0, context_growth_m=0)
        target = mask_scene(scene, tmp_path / "-".join(names), options).target
        found[names] = classes_of(target) == CLOUD
    source, ukis, both = found.values()
    assert source[72:].all() and ukis[12:28, 12:28].mean() > 0.9
    np.testing.assert_array_equal(both, source | ukis)
    votes = target.facts["unveil:mask_votes"]
    assert votes["class"] == {"cloud": 25.0, "shadow": 0.0}
    assert votes["ukis"]["cloud"] == pytest.approx(100 * ukis.mean(), abs=0.01)
    assert target.facts["unveil:mask_sources"] == ["class", "ukis"]


class Third(Thresholds):
    """A third voter, which calls the left half of a frame cloud."""

    name, last_resort = "third", False
    tells = frozenset(("cloud",))

    def vote(self, reflectance, window, asked):
        shape = reflectance.shape[1:]
        return Votes.none(shape, cloud=np.broadcast_to(np.arange(shape[1]) < 32, shape))


def test_by_consensus_of_three_two_decide(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "third", Third)
    delivered = np.zeros((64, 64), int)
    delivered[:, 50:] = CLOUD
    scene = scene_of(cumulus_under(tmp_path, delivered))
    options = MaskOptions(
        detectors=("source", "s2cloudless", "third"), target_growth_m=0, context_growth_m=0
    )
    cloud = classes_of(mask_scene(scene, tmp_path, options).target) == CLOUD
    assert cloud[15:25, 15:25].all()  # s2cloudless and the third
    assert not cloud[:, 40:].any() and not cloud[40:, :8].any()  # one alone


class Everywhere(Third):
    """A voter on ground that it does not know, to which all is cloud."""

    name = "everywhere"

    def vote(self, reflectance, window, asked):
        return Votes.none(reflectance.shape[1:], cloud=np.ones(reflectance.shape[1:], bool))


@pytest.mark.parametrize(("hidden", "heard"), [(0, False), (2, False), (20, True)])
def test_whoever_calls_a_clear_image_overcast_is_not_heard(tmp_path, monkeypatch, hidden, heard):
    monkeypatch.setitem(DETECTORS, "everywhere", Everywhere)
    delivered = np.zeros((64, 64), int)
    delivered[:hidden] = CLOUD
    scene = scene_of(cumulus_under(tmp_path, delivered))
    options = MaskOptions(detectors=("source", "everywhere"), target_growth_m=0, context_growth_m=0)
    target = mask_scene(scene, tmp_path, options).target
    assert (classes_of(target) == CLOUD).mean() == (1 if heard else hidden / 64)
    assert any("not heard" in note for note in target.facts["unveil:mask_notes"]) is not heard


def test_an_image_without_data_is_nodata_whoever_judges_it(tmp_path):
    delivered = deliver(tmp_path, np.zeros((64, 64), int), "CLASS")
    frame = write_frame(tmp_path, np.full((13, 64, 64), np.nan, np.float32))
    frame = replace(frame, mask=delivered)
    target = mask_scene(scene_of(frame), tmp_path, MaskOptions()).target
    assert (classes_of(target) == NODATA).all()


def test_what_declares_a_date_clear_is_not_voted_on(tmp_path):
    frame = cumulus_under(tmp_path, np.zeros((64, 64), int))
    frame = replace(frame, facts={DECLARED_CLEAR: "scene.yaml"})
    target = mask_scene(scene_of(frame), tmp_path, MaskOptions()).target
    assert (classes_of(target) == CLEAR).all()
    assert target.facts["unveil:mask_sources"] == ["declared clear"]


def test_thresholds_are_not_asked_where_networks_tell_as_much(tmp_path):
    frame = write_frame(tmp_path, painted(cloud_and_shadow((96, 96))))
    target = mask_scene(scene_of(frame), tmp_path, MaskOptions()).target
    assert target.facts["unveil:mask_sources"] == ["s2cloudless", "ukis"]
    assert "thresholds not asked: others tell as much" in target.facts["unveil:mask_notes"]


def test_dark_forest_without_any_cloud_is_no_shadow(tmp_path):
    labels = np.zeros((96, 96), int)
    labels[40:60] = 2
    image = painted(labels)
    assert (thresholds.threshold_mask(image, L1C13) == SHADOW).mean() > 0.15
    target = mask_scene(scene_of(write_frame(tmp_path, image)), tmp_path, WITHOUT_UKIS).target
    assert (classes_of(target) == CLEAR).all()
    assert "shadow not used" in target.facts["unveil:mask_notes"][-1]


def test_shadow_beyond_the_reach_of_every_cloud_is_dropped(tmp_path):
    labels = np.zeros((64, 512), int)
    labels[10:50, 10:60] = 1
    labels[20:50, 80:110] = 2
    labels[20:50, 460:490] = 2
    frame = write_frame(tmp_path, painted(labels))
    options = MaskOptions(detectors=("thresholds",), target_growth_m=0, context_growth_m=0)
    classes = classes_of(mask_scene(scene_of(frame), tmp_path, options).target)
    assert (classes[25:45, 85:105] == SHADOW).all()
    assert (classes[25:45, 465:485] == CLEAR).all()


def test_blocks_agree_with_the_whole_image(tmp_path):
    rng = np.random.default_rng(5)
    coarse = rng.choice([0, 1, 1, 2], (18, 15))
    labels = np.kron(coarse, np.ones((40, 40), int))[:700, :570]  # blocks end at 512
    image = painted(labels, seed=5)
    image[:, 505:520, 505:520] = np.nan
    frame = write_frame(tmp_path, image)
    options = MaskOptions(detectors=("thresholds",), target_growth_m=0, context_growth_m=0)
    found = classes_of(mask_scene(scene_of(frame), tmp_path, options).target)
    whole = raster.to_reflectance(raster.read(frame.path))
    np.testing.assert_array_equal(found, thresholds.threshold_mask(whole, L1C13))


def test_a_pixel_missing_in_one_band_is_nodata_even_under_cloud(tmp_path):
    image = painted(np.ones((40, 40), int))
    image[5, 20, 20] = np.nan
    frame = write_frame(tmp_path, image)
    target = mask_scene(scene_of(frame), tmp_path, MaskOptions()).target
    classes, percent = raster.read(target.mask)
    assert classes[20, 20] == NODATA
    assert percent[20, 20] == UNKNOWN_PROBABILITY
    assert np.count_nonzero(classes == NODATA) == 1


def test_clouds_are_grown_but_not_into_nodata(tmp_path):
    delivered = np.zeros((32, 32), int)
    delivered[10, 10], delivered[10, 12] = CLOUD, NODATA
    frame = write_frame(tmp_path, np.full((1, 32, 32), 0.2, np.float32), bands=("B04",))
    frame = replace(frame, mask=deliver(tmp_path, delivered, "CLASS"))
    classes = classes_of(
        mask_scene(
            scene_of(frame), tmp_path, MaskOptions(target_growth_m=20, context_growth_m=20)
        ).target
    )
    assert classes[10, 12] == NODATA
    assert np.count_nonzero(classes == CLOUD) == 24


@pytest.mark.parametrize(
    ("pixel_m", "role", "grown_px"),
    [
        (10, "target", 8),
        (10, "context", 2),
        (20, "target", 4),
        (20, "context", 2),
        (60, "context", 2),  # at least two pixels
    ],
)
def test_growth_is_in_metres_and_of_its_own_for_target_and_context(
    tmp_path, pixel_m, role, grown_px
):
    dull = np.full((1, 32, 32), 0.2, np.float32)
    delivered = np.zeros((32, 32), int)
    delivered[10, 10] = CLOUD
    mask = deliver(tmp_path, delivered, "CLASS")
    frames = [
        replace(write_frame(tmp_path, dull, role=one, date=date, bands=("B04",)), mask=mask)
        for one, date in (("target", "2020-06-01"), ("context", "2020-06-11"))
    ]
    grid = Grid("EPSG:32633", (pixel_m, 0, 500000, 0, -pixel_m, 5000000), 32, 32)
    scene = replace(scene_of(*frames), grid=grid)
    options = MaskOptions(target_growth_m=80, context_growth_m=20)
    masked = mask_scene(scene, tmp_path, options)
    cloud = classes_of(masked.with_role(role)[0]) == CLOUD
    assert np.count_nonzero(cloud) == (2 * grown_px + 1) ** 2


@pytest.mark.parametrize(
    ("crs", "edge", "metres"),
    [
        ("EPSG:32633", 20.0, 20.0),
        ("EPSG:4326", 0.0001, 11.132),
        ("EPSG:2263", 32.808333, 10.0),  # US survey feet
        ("", 1.0, 10.0),
    ],
)
def test_pixels_are_measured_in_metres_whatever_the_grid_counts_in(crs, edge, metres):
    grid = Grid(crs, (edge, 0, 0, 0, -edge, 0), 10, 10)
    assert coarse.pixel_metres(grid) == pytest.approx(metres, rel=1e-4)


def test_a_frame_that_nothing_can_judge_is_refused_and_not_clear(tmp_path):
    image = np.full((3, 32, 32), 0.3, np.float32)
    frame = write_frame(tmp_path, image, bands=("B03", "B04", "B08"))
    with pytest.raises(InputError, match="nothing can judge its clouds.*no mask.*L2A.*Remedy"):
        mask_scene(scene_of(frame, level="L2A"), tmp_path, MaskOptions())
    with pytest.raises(InputError, match="has no mask"):
        read_mask(frame)


def test_what_can_be_judged_is_told_from_bands_and_level():
    def why(bands, level, *, delivered=False):
        return why_unjudged(bands, level, delivered=delivered)

    four = ("B02", "B03", "B04", "B08")
    assert "L2A" in why(four, "L2A") and "needs B01" in why(four, "L1C")
    assert why(four, "L2A", delivered=True) == why(L1C13, "L1C") == ""


def test_a_reference_of_the_same_date_gets_its_own_mask(tmp_path):
    image = np.full((1, 32, 32), 0.3, np.float32)
    clear = deliver(tmp_path, np.zeros((32, 32)), "CLASS")
    target = replace(write_frame(tmp_path, image, bands=("B04",)), mask=clear)
    reference = write_frame(tmp_path, image, bands=("B04",), role="reference")
    reference = replace(reference, mask=clear)
    masked = mask_scene(scene_of(target, reference), tmp_path, MaskOptions())
    names = {frame.role: frame.mask.name for frame in masked.frames}
    assert names == {"target": "2020-06-01.tif", "reference": "reference_2020-06-01.tif"}


def test_radar_gets_no_mask(tmp_path):
    target = write_frame(tmp_path, np.full((1, 32, 32), 0.3, np.float32), bands=("B04",))
    target = replace(target, mask=deliver(tmp_path, np.zeros((32, 32)), "CLASS"))
    radar = Frame("2020-06-02", "radar", tmp_path / "none.tif", ("VV", "VH"))
    masked = mask_scene(scene_of(target, radar), tmp_path, MaskOptions())
    assert masked.with_role("radar") == (radar,)


@pytest.mark.parametrize(("band", "value"), [("SCL", 12), ("CLASS", 7)])
def test_impossible_mask_values_name_the_file(tmp_path, band, value):
    frame = write_frame(tmp_path, np.full((1, 32, 32), 0.3, np.float32), bands=("B04",))
    frame = replace(frame, mask=deliver(tmp_path, np.full((32, 32), value), band))
    with pytest.raises(InputError, match=rf"{band}\.tif.*\[{value}\]"):
        mask_scene(scene_of(frame), tmp_path, MaskOptions())


def test_a_mask_of_another_shape_is_refused(tmp_path):
    frame = write_frame(tmp_path, np.full((1, 32, 32), 0.3, np.float32), bands=("B04",))
    frame = replace(frame, mask=deliver(tmp_path, np.zeros((16, 16)), "CLASS"))
    with pytest.raises(InputError, match="resample the mask"):
        mask_scene(scene_of(frame), tmp_path, MaskOptions())


def test_real_clouds_of_sen12mscr_are_found(shared, tmp_path):
    cover = {}
    for kind in ("s2", "s2_cloudy"):
        (path,) = (shared / "data" / "sen12mscr" / f"ROIs1970_fall_{kind}").glob("*/*.tif")
        corner = raster.to_reflectance(raster.read(path)[:, :128, :128])
        frame = write_frame(tmp_path, corner, date=f"2018-10-0{len(cover) + 1}")
        facts = mask_scene(scene_of(frame), tmp_path, MaskOptions()).target.facts
        cover[kind] = facts["eo:cloud_cover"] + facts["unveil:shadow_cover"]
    assert cover["s2"] < 2
    assert cover["s2_cloudy"] > 90


# --- s2cloudless on large pixels ---------------------------------------------------------


def test_means_of_squares_leave_out_what_has_no_data():
    image = np.arange(35, dtype=np.float32).reshape(1, 5, 7)
    image[0, 0, 0] = np.nan
    image[0, 3:, 6] = np.nan
    found = coarse.block_means(image, 3)[0]
    assert found.shape == (2, 3)
    assert found[0, 0] == pytest.approx(np.nanmean(image[0, :3, :3]))
    assert found[1, 1] == pytest.approx(image[0, 3:, 3:6].mean())
    assert np.isnan(found[1, 2])
    np.testing.assert_array_equal(coarse.enlarge(found, 3, (5, 7))[3:, 3:6], found[1, 1])


@pytest.mark.parametrize(
    ("edge", "metres", "step"),
    [(2048, "auto", 1), (2049, "auto", 6), (100, 60, 6), (100, 160, 16), (10_980, 10, 1)],
)
def test_large_scenes_are_seen_at_60_m(edge, metres, step):
    assert s2cloudless.step_of(grid_of((edge, edge)), MaskOptions(s2cloudless_m=metres)) == step


def test_pixels_in_degrees_are_measured_in_metres():
    grid = replace(grid_of((10, 10)), crs="EPSG:4326", transform=(1e-4, 0, 10, 0, -1e-4, 45))
    assert s2cloudless.step_of(grid, MaskOptions(s2cloudless_m=60)) == 5


def test_windows_of_large_pixels_add_up_to_the_whole_image(tmp_path, monkeypatch):
    labels = np.zeros((200, 260), int)
    labels[50:151, 60:190] = 1
    reflectance = painted(labels)
    options = MaskOptions(
        detectors=("s2cloudless",), s2cloudless_m=60, target_growth_m=0, context_growth_m=0
    )
    frame = write_frame(tmp_path, reflectance)
    monkeypatch.setattr(raster, "BLOCK", 128)
    target = mask_scene(scene_of(frame), tmp_path, options).target
    seen = raster.to_reflectance(raster.to_dn(reflectance))
    probability = s2cloudless.cloud_probability(coarse.block_means(seen, 6), L1C13)
    cloud = s2cloudless.cloud_mask(probability, threshold=0.4, average_over=1)
    expected = coarse.enlarge(cloud, 6, labels.shape)
    np.testing.assert_array_equal(classes_of(target) == CLOUD, expected)
    assert (expected == (labels == 1)).mean() > 0.95
