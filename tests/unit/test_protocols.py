"""Protocols: the truth is exact, the target is made of real pixels, nothing leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unveil import classes as classmap
from unveil import raster
from unveil.assembly.assemble import assemble
from unveil.assembly.planning import expand_scenes, survey
from unveil.assembly.protocols.base import ProtocolSettings, scene_seed
from unveil.assembly.simulated_clouds import apply_clouds, simulate_clouds
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.masks.mask_scene import judge_frame
from unveil.raster import Grid
from unveil.scene import load_scene, save_scene
from unveil.sources.registry import open_source
from unveil.sources.selection import Limits, choose_context, choose_donor, choose_radar

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 40, 40)
SETTINGS = ProtocolSettings(seed=7)
SOURCES = fill_defaults({}, load_schema("config"))["sources"]
BANDS = ("B02", "B04", "B08")
DATES = [f"2020-{month:02d}-01" for month in range(1, 13)]


@pytest.fixture
def place(tmp_path):
    """A year of monthly frames; June is clear, October has cloud and shadow in the middle."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "place"
    for number, date in enumerate(DATES):
        data = rng.integers(300 + number, 900, (3, *GRID.shape)).astype(np.uint16)
        scl = np.full(GRID.shape, 4, np.uint8)
        if number in (2, 9):
            scl[10:25, 10:30], scl[26:30, 10:30] = 9, 3
            data[:, 10:25, 10:30] = 6000 + number
        raster.write_cog(
            folder / "frames" / f"{date}.tif", data, GRID, descriptions=BANDS, nodata=0
        )
        raster.write_cog(
            folder / "masks" / f"{date}.tif", scl[None], GRID, descriptions=["SCL"], nodata=None
        )
    return folder


def scene_of(place, tmp_path, **columns):
    values = {
        "scene": "s",
        "source": "local",
        "path": str(place),
        "target_date": "2020-06-01",
        "protocol": "transplant",
        "cloud_date": "2020-10-01",
        "n_context": 6,
        "veil": False,
        **columns,
    }
    row = SceneRow(**values)
    return assemble(
        row, open_source(row, SOURCES), tmp_path / row.scene, SETTINGS, judge=judge_frame
    )


def pixels(scene, role):
    return raster.read(scene.with_role(role)[0].path)


def test_a_transplanted_target_is_the_donor_under_its_clouds_and_the_truth_elsewhere(
    place, tmp_path
):
    scene = scene_of(place, tmp_path)
    donor, truth = (raster.read(place / f"frames/2020-{m}-01.tif") for m in ("10", "06"))
    hidden = np.isin(pixels(scene, "occlusion")[0], (CLOUD, SHADOW))
    target = pixels(scene, "target")
    np.testing.assert_array_equal(target[:, hidden], donor[:, hidden])
    np.testing.assert_array_equal(target[:, ~hidden], truth[:, ~hidden])
    np.testing.assert_array_equal(pixels(scene, "reference"), truth)


def test_the_transplanted_region_is_the_donors_cloud_and_shadow_grown_as_masks_are(place, tmp_path):
    scene = scene_of(place, tmp_path)
    donor = classmap.from_delivered(raster.read(place / "masks/2020-10-01.tif")[0], "SCL")
    expected = classmap.dilate(donor, 2)
    np.testing.assert_array_equal(pixels(scene, "occlusion")[0], expected)
    mask = raster.read(scene.target.mask)[0]
    np.testing.assert_array_equal(classmap.dilate(mask, 2), expected)


def test_neither_target_date_nor_donor_date_is_among_the_context(place, tmp_path):
    scene = scene_of(place, tmp_path, n_context=12)
    dates = [frame.date for frame in scene.context]
    assert dates == [d for d in DATES if d not in ("2020-06-01", "2020-10-01")]


def test_models_never_see_the_truth(place, tmp_path):
    scene = scene_of(place, tmp_path)
    seen = scene.without_truth()
    assert {frame.role for frame in seen.frames} == {"target", "context"}
    truth = {f.checksum for f in scene.frames if f.role == "reference"}
    assert truth.isdisjoint(f.checksum for f in seen.frames)


def test_where_the_withheld_date_is_itself_cloudy_there_is_no_truth(place, tmp_path):
    scene = scene_of(place, tmp_path, target_date="2020-03-01")
    own = classmap.from_delivered(raster.read(place / "masks/2020-03-01.tif")[0], "SCL")
    cloudy = np.isin(classmap.dilate(own, 2), (CLOUD, SHADOW))
    assert (pixels(scene, "occlusion")[0][cloudy] == NODATA).all()


def test_a_simulated_target_has_the_wanted_cover_and_leaves_clear_pixels(place, tmp_path):
    scene = scene_of(
        place, tmp_path, protocol="simulate", cloud_date="", cloud_level=0.4, n_context=0
    )
    classes = pixels(scene, "occlusion")[0]
    assert np.isin(classes, (CLOUD, SHADOW)).mean() == pytest.approx(0.4, abs=0.02)
    clear = classes == CLEAR
    target, truth = (pixels(scene, role)[:, clear].astype(int) for role in ("target", "reference"))
    # Rims of less than 10 % opacity count as clear, as thin haze does for real detectors.
    assert (target == truth).all(axis=0).mean() > 0.75
    assert np.abs(target - truth).max() <= 0.1 * 10_000


def test_the_same_seed_gives_the_same_scene_and_another_seed_another(place, tmp_path):
    columns = dict(protocol="simulate", cloud_date="", cloud_level=0.4, n_context=0)
    first = pixels(scene_of(place, tmp_path / "a", **columns), "target")
    again = pixels(scene_of(place, tmp_path / "b", **columns), "target")
    other = pixels(scene_of(place, tmp_path / "c", **columns, scene="t"), "target")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_paired_scene_without_reference_records_it(place, tmp_path):
    scene = scene_of(place, tmp_path, protocol="paired", cloud_date="")
    assert not scene.with_role("reference")
    assert "no_reference" in scene.facts


def test_a_paired_scene_keeps_its_reference_out_of_the_context(place, tmp_path):
    scene = scene_of(place, tmp_path, protocol="paired", cloud_date="", reference_date="2020-07-01")
    assert "2020-07-01" not in [frame.date for frame in scene.context]
    assert scene.with_role("reference")[0].date == "2020-07-01"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"target_date": "2020-06-02"}, ["2020-06-02", "target_date"]),
        ({"cloud_date": "2020-06-01"}, ["cloud_date"]),
        ({"cloud_date": "2021-06-01"}, ["2021-06-01"]),
        ({"protocol": "paired", "reference_date": "1999-01-01"}, ["reference_date", "1999"]),
    ],
)
def test_a_row_that_asks_for_what_is_not_there_is_refused(place, tmp_path, columns, words):
    with pytest.raises(InputError) as caught:
        scene_of(place, tmp_path, **columns)
    for word in (*words, "scene s", "Remedy"):
        assert word in str(caught.value)


def test_a_scene_survives_being_written_and_read(place, tmp_path):
    scene = scene_of(place, tmp_path)
    path = tmp_path / "s" / "download.json"
    save_scene(scene, path)
    assert load_scene(path) == scene


def test_context_is_taken_from_both_sides_and_filled_from_the_richer_one():
    assert choose_context(DATES, "2020-06-01", 4, {"2020-06-01"}) == [
        "2020-04-01",
        "2020-05-01",
        "2020-07-01",
        "2020-08-01",
    ]
    assert choose_context(DATES, "2020-02-01", 4, {"2020-02-01"}) == [
        "2020-01-01",
        "2020-03-01",
        "2020-04-01",
        "2020-05-01",
    ]
    assert len(choose_context(DATES, "2020-02-01", 99, {"2020-02-01"})) == 11


def test_radar_covers_the_series_and_always_has_the_nearest_date():
    radar = ["2020-01-02", "2020-02-20", "2020-03-05", "2020-07-01"]
    chosen = choose_radar(radar, "2020-03-01", ["2020-02-01", "2020-04-01"])
    assert chosen == ["2020-02-20", "2020-03-05"]
    assert choose_radar(radar, "2020-06-01", []) == ["2020-07-01"]
    assert choose_radar([], "2020-06-01", []) == []


def test_a_donor_is_as_cloudy_as_asked_or_the_nearest():
    rng = np.random.default_rng(0)
    covers = {"2020-01-01": 0.1, "2020-02-01": 0.48, "2020-03-01": 0.9}
    assert choose_donor(covers, 0.5, rng) == "2020-02-01"
    assert choose_donor(covers, 0.7, rng) == "2020-03-01"


def auto(place, **columns):
    values = {
        "scene": "plot",
        "source": "local",
        "path": str(place),
        "target_date": "auto",
        "protocol": "transplant",
        "n_targets": 3,
        "cloud_levels": "0.2,0.4",
        **columns,
    }
    return SceneRow(**values)


def test_auto_plans_one_scene_a_target_and_level(place, tmp_path):
    rows = expand_scenes(
        [auto(place)], SETTINGS, tmp_path / "cache", limits=Limits(**SOURCES["selection"])
    )
    assert len(rows) == 6
    assert all(r.scene == f"plot-{r.target_date.replace('-', '')}-{r.scene[-2:]}" for r in rows)
    assert {row.scene[-2:] for row in rows} == {"20", "40"}
    assert {row.cloud_date for row in rows} <= {"2020-03-01", "2020-10-01"}
    assert not {row.target_date for row in rows} & {"2020-03-01", "2020-10-01"}
    assert rows == expand_scenes(
        [auto(place)], SETTINGS, tmp_path / "other-cache", limits=Limits(**SOURCES["selection"])
    )


def test_the_masks_of_a_place_are_opened_once(place, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = survey(place, cache)
    monkeypatch.setattr("unveil.raster.open_raster", None)  # a second look would fail
    assert survey(place, cache) == first


def test_a_hazy_date_is_not_withheld_as_truth(place, tmp_path):
    haze = raster.read(place / "frames/2020-08-01.tif") + 400
    raster.write_cog(place / "frames/2020-08-01.tif", haze, GRID, descriptions=BANDS, nodata=0)
    rows = expand_scenes(
        [auto(place, n_targets=9)],
        SETTINGS,
        tmp_path / "cache",
        limits=Limits(**SOURCES["selection"]),
    )
    assert "2020-08-01" not in {row.target_date for row in rows}


def test_asking_for_more_targets_than_there_are_clear_dates_is_refused(place, tmp_path):
    with pytest.raises(InputError, match=r"n_targets.*10 dates.*11 wanted"):
        expand_scenes(
            [auto(place, n_targets=11)],
            SETTINGS,
            tmp_path / "cache",
            limits=Limits(**SOURCES["selection"]),
        )


def test_a_planned_id_that_is_taken_is_refused(place, tmp_path):
    planned = expand_scenes(
        [auto(place)], SETTINGS, tmp_path / "cache", limits=Limits(**SOURCES["selection"])
    )
    taken = replace(planned[0], target_date="2020-06-01")
    with pytest.raises(InputError, match=planned[0].scene):
        expand_scenes(
            [taken, auto(place)],
            SETTINGS,
            tmp_path / "cache",
            limits=Limits(**SOURCES["selection"]),
        )


def test_clouds_put_on_window_by_window_are_those_of_the_whole_image(place, tmp_path, monkeypatch):
    columns = dict(protocol="simulate", cloud_date="", cloud_level=0.4, n_context=0)
    monkeypatch.setattr(Grid.windows, "__defaults__", (16,))  # nine windows instead of one
    scene = scene_of(place, tmp_path, **columns)
    rng = scene_seed(SETTINGS.seed, scene.id)
    clouds = simulate_clouds(GRID.shape, cover=0.4, rng=rng)
    clear = raster.to_reflectance(raster.read(place / "frames/2020-06-01.tif"))
    cloudy = apply_clouds(clear, clouds, bands=BANDS, rng=rng)
    np.testing.assert_array_equal(raster.read(scene.target.path), raster.to_dn(cloudy))
