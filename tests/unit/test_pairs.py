"""Real pairs of any series: by cover, with the nearest clear date as truth and no copy of it."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window

from unveil import raster
from unveil.assembly.assemble import assemble, assemble_row
from unveil.assembly.planning import expand_scenes
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.masks.mask_scene import detect_clouds, judge_frame, why_unjudged
from unveil.raster import Grid
from unveil.sources.pairs import Wish, choose_pairs, find_pairs
from unveil.sources.registry import SOURCES as ALL_SOURCES
from unveil.sources.registry import open_source
from unveil.sources.selection import Acquisition, Limits, Look, parse_time

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 50, 50)
BANDS = ("B02", "B04", "B08")
SOURCES = fill_defaults({}, load_schema("config"))["sources"]
LIMITS = Limits(**SOURCES["selection"])
SETTINGS = ProtocolSettings(seed=7)
FIRST = dt.date(2021, 5, 1)
COVERS = {0: 0.0, 4: 0.6, 9: 0.0, 11: 0.3, 20: 0.8, 30: 0.0, 31: 0.15, 33: 0.5, 36: 0.0, 60: 0.4}
"""Days after the first -> share of rows under cloud. Those of days 20 and 60 have no truth near."""


def day(number):
    return str(FIRST + dt.timedelta(number))


def look(number, occluded, *, clear=None, blue=0.03, valid=1.0):
    clear = 1 - occluded if clear is None else clear
    when = Acquisition(day(number), parse_time(day(number)))
    return Look((when,), valid=valid, occluded=occluded, blue=blue, clear=clear)


LOOKS = [look(number, cover) for number, cover in COVERS.items()]


def dates(pairs):
    return [(target.date, truth.date) for target, truth in pairs]


def test_every_cloudy_date_with_a_clear_one_near_is_a_pair():
    expected = [(4, 0), (11, 9), (31, 30), (33, 30), (33, 36)]
    found = dates(find_pairs(LOOKS, Wish(), LIMITS))
    assert set(found) <= {(day(a), day(b)) for a, b in expected}
    assert [target for target, _ in found] == [day(n) for n in (4, 11, 31, 33)]


def test_no_truth_is_hazy_cloudier_than_three_percent_or_farther_than_the_days():
    blues = {0: 0.03, 9: 0.031, 30: 0.029, 36: 0.06}
    looks = [replace(k, blue=blues.get(n, 0.03)) for n, k in zip(COVERS, LOOKS, strict=True)]
    assert (day(33), day(30)) in dates(find_pairs(looks, Wish(), LIMITS))
    looks.append(look(34, 0.05, clear=0.96))
    assert (day(33), day(34)) not in dates(find_pairs(looks, Wish(), LIMITS))
    looks.append(look(32, 0.05, clear=0.97))
    assert (day(33), day(32)) in dates(find_pairs(looks, Wish(), LIMITS))
    assert day(20) in dict(dates(find_pairs(LOOKS, Wish(days=11), LIMITS)))


def test_one_pair_is_the_first_and_several_are_spread_over_covers():
    assert dates(choose_pairs(LOOKS, Wish(), LIMITS)) == [(day(4), day(0))]
    covers = [t.occluded for t, _ in choose_pairs(LOOKS, Wish(count=2), LIMITS)]
    assert covers == [0.3, 0.6]
    assert len(choose_pairs(LOOKS, Wish(count=9), LIMITS)) == 4
    many = [k for n in range(0, 400, 10) for k in (look(n, 0.0), look(n + 1, 0.1 + n / 500))]
    spread = [t.occluded for t, _ in choose_pairs(many, Wish(count=4), LIMITS)]
    every = sorted(t.occluded for t, _ in find_pairs(many, Wish(), LIMITS))
    ranks = [every.index(cover) / len(every) for cover in spread]
    assert ranks == pytest.approx([0.125, 0.375, 0.625, 0.875])


def test_with_levels_the_covers_nearest_to_each_are_taken_and_none_twice():
    chosen = choose_pairs(LOOKS, Wish(levels=(0.51, 0.53)), LIMITS)
    assert [t.occluded for t, _ in chosen] == [0.5, 0.6]
    chosen = choose_pairs(LOOKS, Wish(count=2, levels=(0.2,)), LIMITS)
    assert {t.occluded for t, _ in chosen} == {0.15, 0.3}


# --- a folder -------------------------------------------------------------------------------


def write_date(folder, number, cover):
    rng = np.random.default_rng(number)
    data = rng.integers(300, 900, (3, *GRID.shape)).astype(np.uint16)
    scl = np.full(GRID.shape, 4, np.uint8)
    rows = round(cover * GRID.height)
    data[:, :rows], scl[:rows] = 6000, 9
    for part, image, bands in (("frames", data, BANDS), ("masks", scl[None], ("SCL",))):
        path = folder / part / f"{day(number)}.tif"
        raster.write_cog(
            path, image, GRID, descriptions=bands, nodata=0 if part == "frames" else None
        )


@pytest.fixture(scope="module")
def series_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot")
    for number, cover in COVERS.items():
        write_date(folder, number, cover)
    return folder


def auto(folder, **columns):
    row = SceneRow("plot", "local", str(folder), "auto", "paired", n_context=4)
    return replace(row, **columns)


def planned(row, cache):
    return expand_scenes([row], SETTINGS, cache, limits=LIMITS)


def test_a_folder_is_planned_with_dates_and_covers_in_the_ids(series_folder, tmp_path):
    rows = planned(auto(series_folder, n_targets=3), tmp_path)
    found = {row.target_date: row.reference_date for row in rows}
    assert set(found) < {day(4), day(11), day(31), day(33)} and len(found) == 3
    for row in rows:
        number = (dt.date.fromisoformat(row.target_date) - FIRST).days
        cover = round(COVERS[number] * GRID.height) / GRID.height + 2 / GRID.height  # grown
        assert row.scene == f"plot-{row.target_date.replace('-', '')}-{100 * cover:02.0f}"
        assert row.place == "plot"
    assert rows == planned(auto(series_folder, n_targets=3), tmp_path / "again")


def test_neither_date_of_a_pair_is_in_the_context(series_folder, tmp_path):
    for row in planned(auto(series_folder, n_targets=4), tmp_path / "cache"):
        series = open_source(row, SOURCES)
        scene = assemble(row, series, tmp_path / row.scene, SETTINGS, judge=judge_frame)
        days = [frame.date for frame in scene.context]
        assert len(days) == 4 and not {row.target_date, row.reference_date} & set(days)
        assert scene.with_role("reference")[0].date == row.reference_date
        assert scene.facts["floor_pixels"] > 0 or scene.facts["occluded"] > 0.5


def test_fewer_pairs_than_wanted_is_one_error_before_the_first_job(series_folder, tmp_path):
    words = r"plot: n_targets.*4 real pairs are there, 5 wanted.*97% clear.*truth_days"
    with pytest.raises(InputError, match=words):
        planned(auto(series_folder, n_targets=5), tmp_path)
    assert len(planned(auto(series_folder, n_targets=5, truth_days=12), tmp_path)) == 5


def test_a_planned_pair_stays_whatever_the_window(series_folder, tmp_path):
    (row,) = planned(auto(series_folder), tmp_path / "cache")
    settings = {**SOURCES, "selection": {**SOURCES["selection"], "window_days": 20}}
    scene = assemble_row(
        row, settings, tmp_path / "s", SETTINGS,
        detect=detect_clouds, refusal=why_unjudged, judge=judge_frame,
    )  # fmt: skip
    assert (scene.target.date, scene.with_role("reference")[0].date) == (day(4), day(0))


@pytest.mark.parametrize("protocol", ["paired", "transplant"])
def test_a_copy_of_the_truth_under_another_date_is_no_context(protocol, series_folder, tmp_path):
    folder = tmp_path / "plot"
    shutil.copytree(series_folder, folder)
    for part in ("frames", "masks"):
        shutil.copy(folder / part / f"{day(9)}.tif", folder / part / f"{day(12)}.tif")
        shutil.copy(folder / part / f"{day(11)}.tif", folder / part / f"{day(10)}.tif")
    row = auto(folder, target_date=day(11), reference_date=day(9))
    if protocol == "transplant":
        row = replace(
            row, protocol=protocol, target_date=day(9), reference_date="", cloud_date=day(11)
        )
    scene = assemble(row, open_source(row, SOURCES), tmp_path / "s", SETTINGS, judge=judge_frame)
    assert [frame.date for frame in scene.context] == [day(0), day(4), day(20), day(30)]
    assert f"those of {day(9)}" in scene.facts["left_out"][day(12)]


def test_masks_choose_pairs_and_pixels_of_the_truth_choose_none(series_folder, tmp_path):
    """No oracle: another truth under the same masks gives the same pairs."""
    folder = tmp_path / "plot"
    shutil.copytree(series_folder, folder)
    path = folder / "frames" / f"{day(0)}.tif"
    pixels = raster.read(path)
    raster.write_cog(path, pixels[:, ::-1].copy(), GRID, descriptions=BANDS, nodata=0)
    columns = [
        [(r.scene, r.target_date, r.reference_date) for r in planned(row, tmp_path / "cache")]
        for row in (auto(series_folder, n_targets=3), auto(folder, n_targets=3))
    ]
    assert columns[0] == columns[1]


# --- other sources --------------------------------------------------------------------------


def in_memory(monkeypatch, series):
    """Let source ``safe`` deliver a series; its own reading is tested elsewhere."""
    monkeypatch.setattr(type(ALL_SOURCES["safe"]), "open", lambda *_: series)
    monkeypatch.setattr(type(ALL_SOURCES["safe"]), "require_input", lambda *_: None)


def made(row, folder):
    return assemble_row(
        row, SOURCES, folder, SETTINGS,
        detect=detect_clouds, refusal=why_unjudged, judge=judge_frame,
    )  # fmt: skip


def test_pairs_of_products_are_numbered_and_are_those_of_the_folder(
    series_folder, tmp_path, monkeypatch
):
    local = planned(auto(series_folder, n_targets=3), tmp_path / "cache")
    in_memory(monkeypatch, open_source(local[0], SOURCES))
    rows = planned(auto(series_folder, source="safe", n_targets=3), tmp_path / "cache")
    assert [row.scene for row in rows] == ["plot-1", "plot-2", "plot-3"]
    scenes = [made(row, tmp_path / row.scene) for row in rows]
    found = [(s.target.date, s.with_role("reference")[0].date) for s in scenes]
    assert found == [(row.target_date, row.reference_date) for row in local]
    window = Window(0, 0, 50, 50)
    for scene in scenes:
        context = {frame.date for frame in scene.context}
        assert not context & {scene.target.date, scene.with_role("reference")[0].date}
        assert raster.read(scene.target.path, window=window).shape == (3, 50, 50)


def test_a_pair_that_is_not_there_is_an_error_of_its_scene(series_folder, tmp_path, monkeypatch):
    in_memory(monkeypatch, open_source(auto(series_folder, target_date=day(0)), SOURCES))
    rows = planned(auto(series_folder, source="safe", n_targets=5), tmp_path / "cache")
    assert made(rows[3], tmp_path / "4").target.date == day(4)  # the cloudiest of four
    with pytest.raises(InputError, match=r"plot-5: n_targets.*4 real pairs are there, 5 wanted"):
        made(rows[4], tmp_path / "5")


def test_one_pair_keeps_the_id_of_its_row(series_folder, tmp_path):
    row = auto(series_folder, source="safe")
    assert planned(row, tmp_path) == [replace(row, pair=1)]


def test_levels_of_sources_that_choose_in_the_job_are_numbered_too(series_folder, tmp_path):
    row = auto(series_folder, source="safe", n_targets=2, cloud_levels="0.2,0.8")
    assert [r.scene for r in planned(row, tmp_path)] == [f"plot-{k}" for k in (1, 2, 3, 4)]


def table(folder, **columns):
    standard = {"scene": "s", "target_date": "auto", "protocol": "paired", "path": "p"}
    row = {**standard, **columns}
    path = folder / "scenes.tsv"
    path.write_text("\t".join(row) + "\n" + "\t".join(map(str, row.values())) + "\n")
    return path


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"source": "stac", "area": "0,0,1,1"}, r"line 2\.period.*without a period.*2023-04-01/"),
        (
            {"source": "stac", "area": "0,0,1,1", "period": "2023-05-01/2023-04-01"},
            "behind the last",
        ),
        ({"source": "safe", "period": "2023-02-30/2023-04-01"}, r"line 2\.period.*no period"),
        (
            {"source": "allclear", "split": "test", "n_targets": 2},
            r"n_targets.*names target and truth",
        ),
        ({"source": "local", "truth_days": 0}, r"line 2\.truth_days"),
    ],
)
def test_a_table_that_asks_for_impossible_pairs_is_refused(columns, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_scenes(table(tmp_path, **columns))
