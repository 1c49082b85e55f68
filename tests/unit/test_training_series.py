"""Series for training: layouts read right, radar of the right day, clouds from other places."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import yaml
from tests.unit.test_chronos import make_series

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA
from unveil.errors import InputError
from unveil.places.fetch import fetch_series
from unveil.places.folder import with_masks
from unveil.places.layouts import (
    read_eolearn,
    read_sen12mscr,
    read_terramind,
    read_worldcereal,
)
from unveil.places.series import Series, load_series, save_series
from unveil.training.datasets import image_bbox, read_core_image
from unveil.training.run import refuse_shared_places
from unveil.training.series.options import SampleOptions
from unveil.training.series.sample import draw_sample

PLAIN = SampleOptions(
    synthetic=0, missed=0, gaps=0, overcast=0, borrowed=0, radar=1, radiometry=False
)
SITE = "0000ABCD_32631_2018-01-01_2018-12-31.nc"
FIRST_DAY = 736695
"""2018-01-01 as a proleptic ordinal."""


def write_netcdf(path: Path, start: str, seconds: list[int], **variables: np.ndarray) -> Path:
    """Write a file of the WorldCereal layout, 20 m or 10 m by its size."""
    size = next(iter(variables.values())).shape[-1]
    step = 640 / size
    with h5py.File(path, "w") as file:
        file["x"] = 501_360 + step * (np.arange(size) + 0.5)
        file["y"] = 5_629_680 - step * (np.arange(size) + 0.5)
        file["timestamp"] = np.array(seconds)
        file["timestamp"].attrs["units"] = f"seconds since {start}"
        for name, values in variables.items():
            file[name] = values
            if name in ("VV", "VH"):
                file[name].attrs["scale_factor"] = 1e-4
                file[name].attrs["_FillValue"] = np.int32(0)
    return path


@pytest.fixture
def worldcereal(tmp_path) -> list[Path]:
    """Three optical dates, two radar dates of another hour; 10 m and 20 m."""
    dates = [0, 5 * 86_400, 10 * 86_400]
    bands = {b: np.full((3, 4, 4), 1000 + i, np.uint16) for i, b in enumerate(("B02", "B03"))}
    bands |= {b: np.full((3, 4, 4), 1000, np.uint16) for b in ("B04", "B08")}
    coarse = {b: np.arange(12, dtype=np.uint16).reshape(3, 2, 2) + 1 for b in ("B8A", "B11")}
    coarse["SCL"] = np.full((3, 2, 2), 4, np.uint8)
    radar = -np.arange(16, dtype=np.int32).reshape(2, 2, 2, 2) * 10_000
    return [
        write_netcdf(tmp_path / f"S2_L2A_10m_{SITE}", "2018-01-01 10:53:28", dates, **bands),
        write_netcdf(tmp_path / f"S2_L2A_20m_{SITE}", "2018-01-01 10:53:28", dates, **coarse),
        write_netcdf(
            tmp_path / f"S1_GRD-ASCENDING_20m_{SITE}",
            "2018-01-02 17:32:36",
            [0, 6 * 86_400 + 23_000],  # 23:55 of the seventh day after: the same day
            VV=radar[0],
            VH=radar[1],
        ),
    ]


def test_radar_is_read_in_decibels_on_the_grid_and_dates_of_its_own(worldcereal):
    series = read_worldcereal(worldcereal, name="x")
    assert series.bands == CORE6 and series.reflectance.shape == (3, 6, 4, 4)
    assert series.days.tolist() == [FIRST_DAY, FIRST_DAY + 5, FIRST_DAY + 10]
    assert series.radar_days.tolist() == [FIRST_DAY + 1, FIRST_DAY + 7]
    assert series.radar.shape == (2, 2, 4, 4) and series.radar.dtype == np.float32
    expected = np.array([[4, 4, 5, 5], [4, 4, 5, 5], [6, 6, 7, 7], [6, 6, 7, 7]])
    np.testing.assert_allclose(series.radar[1, 0], -expected)
    np.testing.assert_allclose(series.radar[1, 1], -expected - 8)
    assert np.isnan(series.radar[0, 0, :2, :2]).all()  # stored as 0: missing
    without = read_worldcereal(worldcereal[:2], name="x")
    assert len(without.radar) == 0 and np.array_equal(without.days, series.days)


def test_a_fetched_series_keeps_radar_masks_and_level(worldcereal, tmp_path):
    facts = {"layout": "worldcereal", "files": [{"path": str(path)} for path in worldcereal]}
    save_series(fetch_series(facts, name="x", cache=tmp_path), tmp_path / "x.npz")
    read, stored = (
        read_worldcereal(worldcereal, name="x"),
        load_series(tmp_path / "x.npz", name="x"),
    )
    np.testing.assert_array_equal(stored.radar, read.radar)
    np.testing.assert_array_equal(stored.radar_days, read.radar_days)
    np.testing.assert_allclose(stored.reflectance, read.reflectance, atol=1e-6)
    assert (stored.level, stored.masks.shape) == ("L2A", (0, 0, 0))


def with_radar(series: Series, *, days: list[int]) -> Series:
    """Give a series radar that tells date and pixel: decibels are the date's number, then B02."""
    count, (height, width) = len(days), series.classes.shape[1:]
    radar = np.empty((count, 2, height, width), np.float32)
    radar[:, 0] = -np.arange(count)[:, None, None]
    radar[:, 1] = series.reflectance[0, 0]
    return replace(series, radar=radar, radar_days=np.array(days))


@pytest.mark.parametrize("seed", range(12))
def test_a_sample_gets_the_radar_of_the_nearest_date_turned_like_the_image(seed):
    series = make_series("a", west=10, seed=1)
    series = replace(series, reflectance=np.repeat(series.reflectance[:1], 20, axis=0))
    days = [int(day) + 3 for day in series.days]  # every optical date has its own, three days on
    rng = np.random.default_rng(seed)
    sample = draw_sample([with_radar(series, days=days)], [], size=32, options=PLAIN, rng=rng)
    position = -int(sample.inputs.sar[0, 0, 0])
    assert sample.inputs.sar.shape == (2, 32, 32) and (sample.inputs.sar[0] == -position).all()
    day = np.datetime64(sample.inputs.target_date).astype(int) + 719_163
    assert day == series.days[position]
    seen = np.isfinite(sample.truth[0])
    np.testing.assert_array_equal(sample.inputs.sar[1][seen], sample.truth[0][seen])


def test_radar_too_far_away_missing_or_of_another_place_is_not_given():
    rng = np.random.default_rng(0)
    series = make_series("a", west=10, seed=1)
    far = with_radar(series, days=[int(series.days[0]) - 100])
    assert draw_sample([far], [], size=32, options=PLAIN, rng=rng).inputs.sar is None
    near = with_radar(series, days=list(map(int, series.days)))
    empty = replace(near, radar=np.full_like(near.radar, np.nan))
    assert draw_sample([empty], [], size=32, options=PLAIN, rng=rng).inputs.sar is None
    image = [np.full((6, 64, 64), 0.2, np.float32)]
    followed = replace(PLAIN, synthetic=1)
    assert draw_sample([near], image, size=32, options=followed, rng=rng).inputs.sar is None
    half = replace(PLAIN, radar=0.5)
    given = [
        draw_sample([near], [], size=32, options=half, rng=rng).inputs.sar is not None
        for _ in range(60)
    ]
    assert 15 < sum(given) < 45


def test_cloud_shapes_are_borrowed_from_other_places():
    """A place without clouds is hidden by the only shape there is, turned and enlarged."""
    lender = make_series("b", west=20, seed=2)
    shape = np.zeros((24, 24), bool)
    shape[:9, :15] = True
    lender = replace(lender, classes=np.full_like(lender.classes, CLEAR), masks=shape[None])
    own = replace(make_series("a", west=10, seed=1), weight=1e9)
    own = replace(own, classes=np.full_like(own.classes, CLEAR))
    options = replace(PLAIN, borrowed=1)
    rng = np.random.default_rng(0)
    for _ in range(8):
        sample = draw_sample([own, lender], [], size=48, options=options, rng=rng)
        assert sample.occluded.sum() == shape.sum() * 4
        rows, cols = np.flatnonzero(sample.occluded.any(1)), np.flatnonzero(sample.occluded.any(0))
        assert sorted((len(rows), len(cols))) == [18, 30]


def test_a_place_of_one_date_is_no_series_to_learn_from():
    series = make_series("a", west=10, seed=1)
    one = replace(
        series,
        reflectance=series.reflectance[1:2],
        classes=series.classes[1:2],
        days=series.days[1:2],
    )
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="a has no clear date to hide between"):
        draw_sample([one], [], size=32, options=PLAIN, rng=rng)


EOLEARN_DATES = ["2015-08-20", "2015-07-11", "2015-08-30"]


def write_eolearn(folder: Path) -> list[Path]:
    """Three scenes of a place of 6 x 5 pixels, masks of four dates; a scene's value is its day."""
    scenes = np.zeros((3, 6, 5, 13), np.float32)
    scenes += np.array([0.20, 0.11, 0.30])[:, None, None, None] + np.arange(13) / 1000
    masks = np.zeros((4, 6, 5, 1), np.uint8)
    masks[1, :2] = 1  # 2015-08-20
    masks[3, :, :3] = 1  # 2015-10-01, a date without a scene
    np.save(folder / "REFERENCE_SCENES.npy", scenes)
    np.save(folder / "CLM.npy", masks)
    stamps = ["2015-07-11T10:00:08", "2015-08-20T10:07:28", "2015-08-30T10:05:47"]
    (folder / "timestamps.json").write_text(json.dumps([*stamps, "2015-10-01T10:00:00"]))
    ring = [[465180, 5079240], [465180, 5080250], [466180, 5080250], [466180, 5079240]]
    outline = {
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
        "type": "Polygon",
        "coordinates": [[*ring, ring[0]]],
    }
    (folder / "bbox.geojson").write_text(json.dumps(outline))
    names = ("REFERENCE_SCENES.npy", "CLM.npy", "timestamps.json", "bbox.geojson")
    return [folder / name for name in names]


def test_an_eolearn_patch_is_sorted_by_date_with_the_masks_of_its_dates(tmp_path):
    series = read_eolearn(write_eolearn(tmp_path), name="x", dates=EOLEARN_DATES)
    assert series.bands == CORE6 and series.reflectance.shape == (3, 6, 6, 5)
    offsets = np.array([L1C13.index(band) for band in CORE6]) / 1000
    for date, level in zip(series.reflectance, (0.11, 0.20, 0.30), strict=True):
        np.testing.assert_allclose(date[:, 0, 0], level + offsets, atol=1e-6)
    assert np.diff(series.days).tolist() == [40, 10]
    cloud = np.zeros((6, 5), bool)
    cloud[:2] = True
    assert np.array_equal(series.classes[1] == CLOUD, cloud)
    assert (series.classes[[0, 2]] == CLEAR).all()
    assert len(series.masks) == 1 and series.masks[0].sum() == 18
    assert series.level == "L1C" and len(series.cloud_shapes) == 2
    west, south, east, north = series.bbox
    assert 14.5 < west < east < 14.6 and 45.8 < south < north < 45.9


def test_an_eolearn_date_without_a_mask_is_refused(tmp_path):
    paths = write_eolearn(tmp_path)
    with pytest.raises(InputError, match="an eo-learn patch"):
        read_eolearn(paths, name="x", dates=[*EOLEARN_DATES[:2], "2016-01-01"])
    with pytest.raises(InputError, match=r"CLM\.npy"):
        read_eolearn(paths[:1], name="x", dates=EOLEARN_DATES)


@pytest.fixture
def patch(tmp_path) -> list[Path]:
    """A patch of SEN12MS-CR at 33.5 N 119 E; band values are their numbers."""
    grid = raster.Grid("EPSG:32650", (10, 0, 701_880, 0, -10, 3_710_140), 8, 8)
    optical = np.arange(1, 14, dtype=np.uint16)[:, None, None] * np.full((8, 8), 100, np.uint16)
    radar = np.stack([np.full((8, 8), -11, np.float32), np.full((8, 8), -17, np.float32)])
    radar[:, 0, 0] = np.inf
    raster.write_cog(tmp_path / "s2.tif", optical, grid, descriptions=L1C13, nodata=None)
    raster.write_cog(tmp_path / "s1.tif", radar, grid, descriptions=("VV", "VH"), nodata=None)
    return [tmp_path / "s2.tif", tmp_path / "s1.tif"]


def test_a_sen12mscr_patch_is_a_series_of_one_date_and_an_image(patch, tmp_path):
    series = read_sen12mscr(patch, name="x", dates=["2017-10-15"])
    np.testing.assert_allclose(series.reflectance[0, :, 3, 3], np.arange(1, 14) / 100)
    assert (
        series.radar[0, :, 1, 1].tolist() == [-11, -17] and np.isnan(series.radar[0, :, 0, 0]).all()
    )
    assert 119.1 < series.bbox[0] < 119.2 and 33.4 < series.bbox[1] < 33.6
    facts = {
        "layout": "sen12mscr",
        "files": [{"path": str(path)} for path in patch],
        "dates": ["2017-10-15"],
    }
    save_series(fetch_series(facts, name="x", cache=tmp_path), tmp_path / "x.npz")
    core = np.array([L1C13.index(band) + 1 for band in CORE6])
    np.testing.assert_allclose(read_core_image(tmp_path / "x.npz")[:, 3, 3], core / 100, atol=1e-6)
    assert image_bbox(tmp_path / "x.npz") == pytest.approx(series.bbox, abs=1e-5)
    with pytest.raises(InputError, match="2 bands instead of 13"):
        read_sen12mscr(patch[::-1], name="x", dates=["2017-10-15"])


def test_the_cloudy_image_of_a_pair_is_its_second_date_and_nothing_is_known_of_its_clouds(patch):
    series = read_sen12mscr([patch[0], *patch], name="x", dates=["2017-10-15"] * 2)
    assert [set(np.unique(one)) for one in series.classes] == [{CLEAR}, {NODATA}]
    assert len(series.radar) == 1
    seen = []
    judged = with_masks(series, lambda image, bands: seen.append(bands) or series.classes[0])
    assert (judged.classes == CLEAR).all() and seen == [L1C13]


def test_terramind_states_its_level_by_its_bands_and_its_offset_in_the_table(patch, tmp_path):
    with rasterio.open(patch[0]) as dataset:
        values, profile = dataset.read(), dataset.profile
    profile.update(count=12)
    with rasterio.open(tmp_path / "l2a.tif", "w", **profile) as dataset:
        dataset.write(np.delete(values, L1C13.index("B10"), axis=0))
    plain, shifted, surface = (
        read_terramind([path, patch[1]], name="x", dates=["2020-07-01"], offset=offset)
        for path, offset in ((patch[0], 0), (patch[0], -300), (tmp_path / "l2a.tif", 0))
    )
    assert (plain.level, surface.level) == ("L1C", "L2A")
    assert surface.bands == tuple(b for b in L1C13 if b != "B10")
    expected = np.maximum(np.arange(100, 1400, 100) - 300, 1) / 10_000
    np.testing.assert_allclose(shifted.reflectance[0, :, 3, 3], expected, rtol=1e-6)
    assert plain.radar.shape == surface.radar.shape == (1, 2, 8, 8)


def test_an_image_of_a_held_out_place_is_refused():
    one, other = (make_series(n, west=w, seed=1) for n, w in (("a", 10.0), ("b", 20.0)))
    refuse_shared_places([one], [other], images={"c": (30.0, 45.0, 30.1, 45.1)})
    with pytest.raises(InputError, match="c and b are the same place"):
        refuse_shared_places([one], [other], images={"c": (20.015, 45.0, 20.1, 45.1)})


def shared_paths(shared: Path, facts: dict) -> list[Path]:
    """Find the files of a series of the config among the shared data, by checksum."""
    known = {raster.sha256(path): path for path in (shared / "data").rglob("*.*") if path.is_file()}
    return [known[file["sha256"]] for file in facts["files"]]


@pytest.mark.parametrize("name", ["worldcereal-1", "worldcereal-2", "eolearn-slovenia"])
def test_real_series_are_what_the_config_says(root, shared, name):
    """Radar and optical dates of the real places; their checksums are those of the config."""
    facts = yaml.safe_load((root / "config/training.yaml").read_text())["series"][name]
    paths = shared_paths(shared, facts)
    if facts["layout"] == "eolearn":
        series = read_eolearn(paths, name=name, dates=facts["dates"])
        clear = (series.classes == CLEAR).mean(axis=(1, 2))
        assert clear.round().tolist() == [1, 0, 0, 1, 1]
        bright = series.reflectance[:, 0].mean(axis=(1, 2))
        assert bright[clear < 0.5].min() > bright[clear > 0.5].max()
        assert len(series.masks) == 63
        return
    series = read_worldcereal(paths, name=name)
    assert len(series.radar) == {"worldcereal-1": 159, "worldcereal-2": 157}[name]
    vv, vh = np.nanmedian(series.radar, axis=(0, 2, 3))
    assert -14 < vv < -5 and 4 < vv - vh < 10  # farmland at C band
    nearest = np.abs(series.radar_days[:, None] - series.days).min(axis=0)
    assert nearest.max() <= 12


def test_complete_scenes_have_the_six_dates_before_and_after():
    place = make_series("a", west=10, seed=3)
    options = SampleOptions(synthetic=0, missed=0, gaps=0, overcast=0, radar=0, dropped=False)
    counts = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        days = draw_sample([place], [], size=32, options=options, rng=rng).inputs.days
        before, after = np.sort(-days[days < 0]), days[days > 0]
        assert len(before) + len(after) == len(days)
        for side in (before, after):  # the nearest dates of a series of every tenth day
            np.testing.assert_array_equal(side, 10 * np.arange(1, len(side) + 1))
        counts.add((len(before), len(after)))
    assert (6, 6) in counts and max(max(pair) for pair in counts) == 6
