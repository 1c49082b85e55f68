"""Benchmark datasets in their own layouts: real pixels, official splits, dates of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin
from rasterio.windows import Window

from unveil import raster
from unveil.assembly import planning
from unveil.assembly.assemble import assemble_row
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.bands import L1C13
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.masks.mask_scene import detect_clouds, judge_frame, why_unjudged
from unveil.sources.registry import open_source, source_of
from unveil.sources.selection import Limits
from unveil.sources.splits import SPLITS, split_places, spread

SETTINGS = fill_defaults({}, load_schema("config"))["sources"]
PART = np.s_[:, 96:192, 96:192]
CLEAR = "ROIs1970_fall_s2/s2_139/ROIs1970_fall_s2_139_p839.tif"
CLOUDY = "ROIs1970_fall_s2_cloudy/s2_cloudy_139/ROIs1970_fall_s2_cloudy_139_p839.tif"
RADAR = "ROIs1970_fall_s1/s1_139/ROIs1970_fall_s1_139_p839.tif"


def row(path, source, **columns):
    return SceneRow(
        **{
            "scene": "s",
            "source": source,
            "path": str(path),
            "target_date": "auto",
            "protocol": "paired",
            **columns,
        }
    )


def expanded(*rows, cache=None):
    return planning.expand_scenes(
        rows, ProtocolSettings(1), cache, limits=Limits(**SETTINGS["selection"])
    )


@pytest.fixture(scope="module")
def real(shared):
    """Clear, cloudy and radar image of one real patch, with their profiles."""
    found = {}
    for name, path in (("clear", CLEAR), ("cloudy", CLOUDY), ("radar", RADAR)):
        with rasterio.open(shared / "data/sen12mscr" / path) as dataset:
            found[name] = (dataset.read(), dataset.profile)
    return found


def write(path, image, profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = {**profile, "count": image.shape[0], "dtype": image.dtype.name}
    changed |= {"height": image.shape[1], "width": image.shape[2]}
    with rasterio.open(path, "w", **changed) as writer:
        writer.write(image)


# --- splits ---------------------------------------------------------------------------------


def test_the_splits_of_sen12mscr_are_disjoint_and_complete():
    parts = {s: split_places("sen12mscr", s, file="") for s in ("train", "val", "test")}
    flat = {s: {(g, p) for g, ps in part.items() for p in ps} for s, part in parts.items()}
    assert {s: len(places) for s, places in flat.items()} == {"train": 155, "val": 10, "test": 10}
    whole = split_places("sen12mscr", "all", file="")
    assert sum(map(len, whole.values())) == 175 == len(set().union(*flat.values()))


def test_the_splits_of_sen12mscrts_are_those_of_its_regions():
    counts = {
        s: sum(map(len, split_places("sen12mscrts", s, file="").values()))
        for s in ("train", "val", "test", "all")
    }
    assert counts == {"train": 35, "val": 5, "test": 13, "all": 53}
    assert split_places("sen12mscrts", "test/africa", file="") == {"ROIs2017": [32, 140]}


def test_no_place_is_tested_in_one_dataset_and_trained_on_in_the_other_but_one():
    """The official lists share place 100 of summer, as their authors say."""
    seasons = {"ROIs1158": "spring", "ROIs1868": "summer", "ROIs1970": "fall", "ROIs2017": "winter"}
    document = yaml.safe_load(SPLITS.read_text())
    train = {(g, p) for g, ps in document["sen12mscr"]["train"].items() for p in ps}
    tested = {
        (f"{g}_{seasons[g]}", p)
        for g, ps in split_places("sen12mscrts", "test", file="").items()
        for p in ps
    }
    assert ("ROIs1868_summer", 100) in train & tested


@pytest.mark.parametrize("split", ["dev", "test/mars", "test/africa"])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(InputError, match=r"split.*train, val, test or all"):
        split_places("sen12mscr", split, file="x")


def test_few_of_many_are_spread():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 9) == spread(range(3), 0) == [0, 1, 2]


# --- SEN12MS-CR -----------------------------------------------------------------------------


def test_a_split_of_sen12mscr_becomes_a_row_a_complete_patch(shared):
    folder = shared / "data/sen12mscr"
    (scene,) = expanded(row(folder, "sen12mscr", split="test", target_date="2018-10-01"))
    assert scene.scene == "s-ROIs1970_fall_139_p839"
    assert (scene.name, scene.place) == ("ROIs1970_fall_139_p839", "ROIs1970_fall_139")
    series = open_source(scene, SETTINGS)
    assert series.reference is not None
    assert series.place == "ROIs1970_fall_139"
    # Summer 19 is of val and has no clear image: no patch of it is complete.
    with pytest.raises(InputError, match="no patch of split 'val'"):
        expanded(row(folder, "sen12mscr", split="val", target_date="2018-10-01"))


def test_patches_are_counted_in_their_order(tmp_path, real):
    for patch in (2, 10, 1):
        for kind, name in (("s1", "radar"), ("s2", "clear"), ("s2_cloudy", "cloudy")):
            path = (
                tmp_path
                / f"ROIs2017_winter_{kind}/{kind}_63/ROIs2017_winter_{kind}_63_p{patch}.tif"
            )
            write(path, *real[name])
    path.with_name(f"._{path.name}").write_bytes(b"a companion of macOS")
    rows = expanded(row(tmp_path, "sen12mscr", split="test", target_date="2018-01-01"))
    assert [r.name.rpartition("_")[2] for r in rows] == ["p1", "p2", "p10"]
    few = row(tmp_path, "sen12mscr", split="test", target_date="2018-01-01", n_patches=2)
    assert [r.name.rpartition("_")[2] for r in expanded(few)] == ["p1", "p2"]
    assert len(list(source_of(rows[0]).files(rows[0]))) == 3


# --- SEN12MS-CR-TS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ts(tmp_path_factory, real):
    """Two patches with five dates: cloudy, clear, half cloudy, clear, and a date twice."""
    folder = tmp_path_factory.mktemp("ts")
    profile = real["clear"][1]
    clear, cloudy, radar = (real[n][0][PART] for n in ("clear", "cloudy", "radar"))
    half = clear.copy()
    half[:, :48] = cloudy[:, :48]
    dates = ["2018-01-06", "2018-01-21", "2018-02-20", "2018-03-12", "2018-03-12"]
    images = [cloudy, clear, half, clear + 1, cloudy]
    for number, (date, image) in enumerate(zip(dates, images, strict=True)):
        for patch in (3, 12):
            name = f"ROIs1868_119_ImgNo_{number}_{date}_patch_{patch}.tif"
            write(folder / f"ROIs1868/119/S2/{number}/s2_{name}", image, profile)
            radar_name = name.replace("-06_", "-07_")
            write(folder / f"ROIs1868/119/S1/{number}/s1_{radar_name}", radar, real["radar"][1])
    return folder


def test_sen12mscrts_gives_all_dates_of_a_patch(ts, real):
    series = open_source(row(ts, "sen12mscrts", name="ROIs1868_119_p12"), SETTINGS)
    assert list(series.optical) == ["2018-01-06", "2018-01-21", "2018-02-20", "2018-03-12"]
    assert series.place == "ROIs1868_119"
    frame = series.optical["2018-03-12"]
    assert frame.bands == L1C13
    whole = Window(0, 0, 96, 96)
    expected = real["clear"][0][PART] + 1  # image 3, not 4
    np.testing.assert_array_equal(frame.read(whole), expected)
    assert list(series.radar)[0] == "2018-01-07"  # radar has dates of its own
    radar = series.radar["2018-01-07"].read(whole)
    np.testing.assert_array_equal(radar, real["radar"][0][PART])


def test_a_split_of_sen12mscrts_becomes_a_row_a_patch(ts):
    rows = expanded(row(ts, "sen12mscrts", split="test"))
    assert [r.scene for r in rows] == ["s-ROIs1868_119_p3", "s-ROIs1868_119_p12"]
    in_asia = expanded(row(ts, "sen12mscrts", split="test/asiaEast"))
    assert [r.scene for r in in_asia] == [r.scene for r in rows]
    assert len(list(source_of(rows[0]).files(rows[0]))) == 10
    with pytest.raises(InputError, match="no patch of split"):
        expanded(row(ts, "sen12mscrts", split="train"))


def test_target_and_truth_of_a_series_without_masks(ts, tmp_path):
    """Clouds are found by s2cloudless; shadows are not judged here."""
    pytest.importorskip("s2cloudless")
    scene = assemble_row(
        row(ts, "sen12mscrts", name="ROIs1868_119_p3", reference_date="auto"),
        {**SETTINGS, "selection": {**SETTINGS["selection"], "truth_cloud": 0.05}},
        tmp_path,
        ProtocolSettings(1),
        detect=detect_clouds,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    covers = scene.facts["cover_of_dates"]
    assert covers["2018-01-06"] > 0.8 > covers["2018-02-20"] > 0.2 > covers["2018-01-21"]
    assert scene.with_role("reference")[0].date in ("2018-01-21", "2018-03-12")
    assert scene.target.date in ("2018-01-06", "2018-02-20")


def officially(folder, tmp_path, *, n_context, cloud=(0, 1), **columns):
    dates = {"reference_date": "auto", **columns}
    return assemble_row(
        row(folder, "sen12mscrts", name="ROIs1868_119_p3", n_context=n_context, **dates),
        {**SETTINGS, "sen12mscrts": {"sampler": "official", "input_cloud": cloud}},
        tmp_path,
        ProtocolSettings(1),
        detect=detect_clouds,
        refusal=why_unjudged,
        judge=judge_frame,
    )


def dates_of(scene):
    return (
        scene.with_role("reference")[0].date,
        scene.target.date,
        [frame.date for frame in scene.context],
    )


def test_the_official_sample_of_a_series(ts, tmp_path):
    """Covers are 100, 0, about 50 and 0 %: the first clear date is the truth."""
    pytest.importorskip("s2cloudless")
    scene = officially(ts, tmp_path / "three", n_context=2)
    assert dates_of(scene) == ("2018-01-21", "2018-01-06", ["2018-02-20", "2018-03-12"])
    assert scene.facts["sampler_fits"] is True
    some = officially(ts, tmp_path / "one", n_context=0, cloud=(0.2, 0.8))
    assert dates_of(some) == ("2018-01-21", "2018-02-20", [])
    # No three dates have such covers: the first three others are taken, and it is said.
    none = officially(ts, tmp_path / "none", n_context=2, cloud=(0.2, 0.8))
    assert dates_of(none) == dates_of(scene)
    assert none.facts["sampler_fits"] is False


def test_dates_that_a_row_names_are_not_sampled(ts, tmp_path):
    pytest.importorskip("s2cloudless")
    dates = {"target_date": "2018-02-20", "reference_date": "2018-03-12"}
    scene = officially(ts, tmp_path, n_context=1, **dates)
    assert dates_of(scene)[:2] == ("2018-03-12", "2018-02-20")
    assert "sampler_fits" not in scene.facts


def test_covers_are_those_of_the_detector_that_the_official_sampler_has(ts, tmp_path):
    """Threshold 0.4, means over 4 pixels, growth by 2, on 13 bands as reflectance 0...1."""
    s2cloudless = pytest.importorskip("s2cloudless")
    detector = s2cloudless.S2PixelCloudDetector(
        threshold=0.4, all_bands=True, average_over=4, dilation_size=2
    )
    covers = officially(ts, tmp_path, n_context=2).facts["cover_of_dates"]
    for number, (date, cover) in enumerate(covers.items()):
        (path,) = (ts / f"ROIs1868/119/S2/{number}").glob(f"*_{date}_patch_3.tif")
        with rasterio.open(path) as dataset:
            image = np.moveaxis(np.clip(dataset.read() / 10_000, 0, 1), 0, -1)
        official = detector.get_cloud_masks(image[np.newaxis].astype(np.float32)).mean()
        assert cover == pytest.approx(official, abs=0.02)


def test_a_name_or_a_folder_that_is_not_sen12mscrts_is_refused(ts, tmp_path):
    with pytest.raises(InputError, match="ROIs1868_100_p12"):
        open_source(row(ts, "sen12mscrts", name="119_12"), SETTINGS)
    with pytest.raises(InputError, match="no Sentinel-2 files"):
        open_source(row(tmp_path, "sen12mscrts", name="ROIs1868_119_p3"), SETTINGS)


# --- AllClear -------------------------------------------------------------------------------


@pytest.fixture
def allclear(tmp_path, real):
    """One place with three inputs and a target; images of 260 x 262 with a rim of NaN."""
    folder = tmp_path / "allclear"
    left, top = real["clear"][1]["transform"][2], real["clear"][1]["transform"][5]
    profile = {**real["clear"][1], "transform": from_origin(left, top, 10, 10)}

    def rimmed(image):
        framed = np.full((image.shape[0], 260, 262), np.nan, np.float32)
        framed[:, 2:258, 3:259] = image
        return framed

    def place(sensor, day, image):
        name = f"roi7/2022_1/{sensor}/roi7_{sensor}_2022_1_{day}_median.tif"
        write(folder / "data" / name, rimmed(image), profile)
        return f"/scratch/somewhere/dataset_30k_v4/{name}"

    mask = np.zeros((5, 256, 256), np.float32)
    mask[1, :100], mask[4, 100:120] = 1, 1
    frames = []
    for day, name in ((6, "cloudy"), (11, "cloudy"), (26, "clear")):
        frames.append(
            [f"2022-01-{day:02d} 04:43:01", place("s2_toa", day, real[name][0] + (day == 6))]
        )
        place("cld_shdw", day, mask if name == "cloudy" else mask * 0)
    target = [["2022-01-16 04:43:01", place("s2_toa", 16, real["clear"][0] + 1)]]
    place("cld_shdw", 16, mask * 0)
    radar = [["2022-01-12 22:10:00", place("s1", 12, real["radar"][0])]]
    sample = {"roi": ["roi7", [31.0, 117.0]], "s2_toa": frames, "s1": radar, "target": target}
    absent = {**sample, "roi": ["roi8", [0.0, 0.0]]}
    metadata = folder / "metadata" / "datasets" / "test_tx3_s2-s1_100pct_1proi.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps({"0": sample, "1": absent}))
    return folder


def test_allclear_takes_target_and_truth_of_the_dataset(allclear, tmp_path, real):
    (scene_row,) = expanded(row(allclear, "allclear", split="test"))
    assert (scene_row.scene, scene_row.place) == ("s-0", "roi7")
    assert len(list(source_of(scene_row).files(scene_row))) == 4 + 4 + 1
    scene = assemble_row(
        scene_row,
        SETTINGS,
        tmp_path / "s",
        ProtocolSettings(1),
        detect=None,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    assert scene.target.date == "2022-01-11"
    assert [f.date for f in scene.context] == ["2022-01-06", "2022-01-26"]
    (truth,) = scene.with_role("reference")
    assert truth.date == "2022-01-16"
    np.testing.assert_array_equal(raster.read(truth.path), real["clear"][0] + 1)
    np.testing.assert_array_equal(raster.read(scene.target.path), real["cloudy"][0])
    np.testing.assert_array_equal(raster.read(scene.radar.path), real["radar"][0])
    classes = raster.read(scene.target.mask)[0]
    assert np.bincount(classes.ravel(), minlength=3)[:3].tolist() == [136 * 256, 100 * 256, 5120]
    left = real["clear"][1]["transform"][2]
    assert scene.grid.transform[2] == pytest.approx(left + 30)
    assert scene.grid.shape == (256, 256)


def test_allclear_keeps_to_its_folder(allclear):
    path = allclear / "metadata/datasets/test_tx3_s2-s1_100pct_1proi.json"
    samples = json.loads(path.read_text())
    samples["0"]["target"][0][1] = "/x/roi7/../../../secret.tif"
    path.write_text(json.dumps(samples))
    with pytest.raises(InputError, match="names no place"):
        open_source(row(allclear, "allclear", split="test", name="0"), SETTINGS)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"target": []}, "no target"),
        ({"s2_toa": []}, "no frame to clear"),
        ({"s2_toa": [["someday", "roi7/a.tif"]]}, "s2_toa"),
        ({"roi": ["elsewhere", []]}, "roi"),
    ],
)
def test_samples_that_are_none_are_refused(allclear, change, word):
    path = allclear / "metadata/datasets/test_tx3_s2-s1_100pct_1proi.json"
    samples = json.loads(path.read_text())
    samples["0"] |= change
    path.write_text(json.dumps(samples))
    with pytest.raises(InputError, match=word):
        open_source(row(allclear, "allclear", split="test", name="0"), SETTINGS)


def test_an_unknown_dataset_file_lists_those_that_are_there(allclear):
    with pytest.raises(InputError, match="test_tx3_s2-s1_100pct_1proi"):
        expanded(row(allclear, "allclear", split="train"))


# --- the table ------------------------------------------------------------------------------

HEADER = "scene\tsource\tpath\ttarget_date\tprotocol\treference_date\tsplit\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("s\tlocal\tp\tauto\tsimulate\t\t", ("target_date", "auto")),
        ("s\tsafe\tp\t2020-01-01\tnone\tauto\t", ("reference_date", "paired")),
        ("s\tsafe\tp\t2020-01-01\tnone\t\ttest", ("split", "have splits")),
        ("s\tallclear\tp\tauto\tpaired\t\t", ("split", "dataset file")),
    ],
)
def test_columns_that_do_not_fit_a_source_are_refused(tmp_path, line, words):
    path = tmp_path / "scenes.tsv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(InputError) as caught:
        read_scenes(path)
    for word in ("Remedy", "line 2", *words):
        assert word in str(caught.value)


def test_rows_of_splits_and_automatic_dates_are_read(tmp_path):
    path = tmp_path / "scenes.tsv"
    path.write_text(
        HEADER
        + "a\tsen12mscrts\tp\tauto\tpaired\tauto\ttest/africa\n"
        + "b\tsafe\tp\t2023-08-16\tpaired\tauto\t\n"
    )
    first, second = read_scenes(path)
    assert (first.split, first.reference_date) == ("test/africa", "auto")
    assert second.target_date == "2023-08-16"
