"""Choosing frames: stated rules on small records, and real series with known clouds."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
import rasterio

from unveil import classes as classmap
from unveil.errors import InputError, SceneSkipped
from unveil.scene import cloud_cover
from unveil.sources import selection
from unveil.sources.selection import Acquisition, Look

NOON = dt.datetime(2023, 8, 10, 10, 0, tzinfo=dt.UTC)


def acquisition(name="a", *, minutes=0.0, days=0, **facts):
    time = NOON + dt.timedelta(days=days, minutes=minutes)
    return Acquisition(name, time, **{"platform": "sentinel-2a", "relative_orbit": 22, **facts})


def look(day, occluded, *, valid=1.0, blue=None, orbit=22, hour=10):
    time = dt.datetime(2023, 8, 1, hour, tzinfo=dt.UTC) + dt.timedelta(days=day)
    return Look((Acquisition(f"d{day}", time, relative_orbit=orbit),), valid, occluded, blue)


# --- the official sample of SEN12MS-CR-TS -------------------------------------------------

CLOUDY5 = [0.9, 0.0, 0.3, 0.0, 0.6]


@pytest.mark.parametrize(
    ("covers", "n_inputs", "cloud", "expected"),
    [
        # The first clear image is the truth, the second one is an input like others.
        (CLOUDY5, 3, (0, 1), ([0, 2, 3], 1, True)),
        (CLOUDY5, 3, (0.2, 0.95), ([0, 2, 4], 1, True)),
        (CLOUDY5, 2, (0.2, 0.7), ([2, 4], 1, True)),
        # Too few in the range: the first others, whatever their cover, and no fit.
        (CLOUDY5, 3, (0.2, 0.7), ([0, 2, 3], 1, False)),
        (CLOUDY5, 1, (0.31, 0.59), ([0], 1, False)),
        # Both ends belong to the range.
        (CLOUDY5, 2, (0.3, 0.6), ([2, 4], 1, True)),
        # The truth is no input, where the loader would take images 0 to 2.
        ([0.0, 0.5, 0.6, 0.7], 3, (0, 1), ([1, 2, 3], 0, True)),
        # A truth of 0.1 % is clear, one of more is used and does not fit.
        ([0.5, 0.001, 0.4], 2, (0, 1), ([0, 2], 1, True)),
        ([0.5, 0.002, 0.4], 2, (0, 1), ([0, 2], 1, False)),
        # Fewer others than wanted.
        ([0.5, 0.0], 3, (0, 1), ([0], 1, False)),
    ],
)
def test_the_official_sample_is_the_one_found_by_hand(covers, n_inputs, cloud, expected):
    assert selection.sample_official(covers, n_inputs, cloud) == expected


# --- versions and same-day duplicates ---------------------------------------------------


def test_of_one_tile_and_overpass_the_highest_baseline_is_used():
    old = acquisition("old", tile="33TWL", baseline=(2, 14), processed="2023-08-10")
    new = acquisition("new", tile="33TWL", baseline=(5, 0), processed="2024-01-01")
    newer = acquisition("newer", tile="33TWL", baseline=(5, 0), processed="2024-05-01")
    unknown = acquisition("unknown", tile="33TWL", processed="2025-01-01")
    for order in ([old, new, newer, unknown], [unknown, newer, new, old]):
        assert [a.id for a in selection.newest_versions(order)] == ["newer"]


def test_parts_in_two_datastrips_and_other_tiles_are_no_versions_of_each_other():
    parts = [
        acquisition("a", tile="33TWL", datastrip="S1", baseline=(5, 9)),
        acquisition("b", tile="33TWL", datastrip="S2", baseline=(5, 9), minutes=0.2),
        acquisition("c", tile="33TWM", datastrip="S2", baseline=(5, 9), minutes=0.2),
        acquisition("old", tile="33TWM", datastrip="S2", baseline=(4, 0), minutes=0.2),
    ]
    (one,) = selection.group_looks(parts)
    assert [member.id for member in one.members] == ["a", "b", "c"]


def test_two_processings_whose_strips_start_a_second_apart_are_one_look():
    for seconds, orbit in ((0, 22), (1, 22), (12, 22), (1, None)):
        old = acquisition("old", tile="33TWL", datastrip="20230816T100559", baseline=(2, 12))
        new = acquisition(
            "new",
            tile="33TWL",
            datastrip=f"20230816T1006{seconds:02d}",
            baseline=(5, 0),
            relative_orbit=orbit,
            minutes=seconds / 60,
        )
        for order in ([old, new], [new, old]):
            (one,) = selection.group_looks(order)
            assert [member.id for member in one.members] == ["new"]


def test_strips_minutes_apart_are_parts_and_the_newer_lies_on_top():
    early = acquisition("early", tile="33TWL", datastrip="20230816T100559", baseline=(2, 12))
    late = acquisition(
        "late", tile="33TWL", datastrip="20230816T100859", baseline=(5, 0), minutes=3
    )
    (one,) = selection.group_looks([early, late])
    assert [member.id for member in one.members] == ["late", "early"]


def test_tandem_satellites_and_overlapping_orbits_are_looks_of_their_own():
    looks = selection.group_looks(
        [
            acquisition("a", tile="33TWL"),
            acquisition("other orbit", tile="33TWL", relative_orbit=122, minutes=5),
            acquisition("other satellite", tile="33TWL", platform="sentinel-2b", minutes=5),
            acquisition("next day", tile="33TWL", days=1),
        ]
    )
    assert [k.members[0].id for k in looks] == [
        "a",
        "other orbit",
        "other satellite",
        "next day",
    ]


def test_radar_slices_of_one_overpass_are_joined():
    slices = [acquisition(n, minutes=m, platform="sentinel-1a") for n, m in (("s", 0), ("t", 0.4))]
    (one,) = selection.group_looks(slices)
    assert [member.id for member in one.members] == ["s", "t"]


def test_of_one_day_the_fuller_then_the_clearer_then_the_earlier_look_is_used():
    partial = look(0, 0.0, valid=0.6, hour=9)
    cloudy, clear = look(0, 0.4, valid=0.999, hour=10), look(0, 0.1, valid=0.997, hour=11)
    other_day = look(1, 0.9)
    assert selection.one_look_a_day([other_day, clear, cloudy, partial]) == [clear, other_day]
    early, late = look(0, 0.1, hour=9), look(0, 0.1, hour=10)
    assert selection.one_look_a_day([late, early]) == [early]


# --- target, truth, context, radar ------------------------------------------------------


def test_the_target_is_the_nearest_date_in_the_range_of_cloud_over_the_place():
    looks = [look(0, 0.5), look(4, 0.05), look(5, 0.45), look(6, 0.5, valid=0.5), look(9, 0.3)]
    chosen = selection.choose_target(looks, "2023-08-05", window_days=10, cloud=(0.2, 0.8))
    assert chosen.date == "2023-08-06"
    with pytest.raises(SceneSkipped, match=r"2023-08-07 \(50% of the 50% seen\)"):
        selection.choose_target(looks, "2023-08-05", window_days=2, cloud=(0.6, 0.8))


def test_the_truth_is_the_nearest_really_clear_date_within_the_limit():
    looks = [look(0, 0.0), look(3, 0.02), look(5, 0.6), look(7, 0.005), look(12, 0.0)]
    truth = selection.choose_truth(looks, "2023-08-06", max_days=20)
    assert truth.date == "2023-08-08"
    with pytest.raises(SceneSkipped, match=r"clearest is 2023-08-04 \(2%\)"):
        selection.choose_truth(looks[1:3], "2023-08-06", max_days=20)
    with pytest.raises(SceneSkipped, match="no other look"):
        selection.choose_truth(looks, "2023-08-06", max_days=1)


def test_of_two_as_near_the_clearer_is_the_truth():
    looks = [look(2, 0.009), look(4, 0.5), look(6, 0.001)]
    assert selection.choose_truth(looks, "2023-08-05", max_days=9).date == "2023-08-07"


def test_haze_that_masks_miss_is_no_truth():
    blues = {0: 0.031, 10: 0.030, 14: 0.055, 20: 0.032, 30: 0.029}
    looks = [look(day, 0.0, blue=blue) for day, blue in blues.items()]
    assert selection.choose_truth(looks, "2023-08-17", max_days=30).date == "2023-08-21"


def test_radar_keeps_one_orbit_while_it_has_a_pass_within_the_limit():
    passes = [
        look(0, None, orbit=15, hour=17),
        look(2, None, orbit=88, hour=5),
        look(12, None, orbit=15, hour=17),
        look(13, None, orbit=88, hour=5),
        look(40, None, orbit=88, hour=5),
    ]
    times = [NOON.replace(day=1) + dt.timedelta(days=d) for d in (12, 2, 40, 90)]
    chosen = selection.choose_passes(passes, times[0], times[1:], max_days=6)
    # Day 2 takes day 0 of the target's orbit though the other orbit is nearer; day 40 has
    # no pass of that orbit; day 90 has none at all.
    assert [(p.date, p.relative_orbit) for p in chosen] == [
        ("2023-08-01", 15),
        ("2023-08-13", 15),
        ("2023-09-10", 88),
    ]
    assert selection.choose_passes(passes, NOON + dt.timedelta(days=300), [], max_days=6) == []


def test_times_are_utc_whatever_their_form():
    assert selection.parse_time("2023-08-10T12:00:00+02:00") == NOON
    assert selection.parse_time("2023-08-10T10:00:00.000Z") == NOON
    assert selection.parse_time("2023-08-10T10:00:00") == NOON
    with pytest.raises(InputError, match="no time"):
        selection.parse_time("soon")


# --- real series ------------------------------------------------------------------------


def mapchete_looks(shared, window=np.s_[:, :]):
    """Five dates of tile 33TWL; windows in rows and columns of the decimated images."""
    looks = []
    for path in (shared / "data" / "mapchete_eo").glob("*_SCL.tif"):
        with rasterio.open(path) as dataset:
            scl = dataset.read(1)[window]
        scl[scl > 11] = 0  # eight pixels of the decimated files hold 12, which SCL has not
        day = dt.datetime.strptime(path.name.split("_")[2], "%Y%m%d").replace(tzinfo=dt.UTC)
        empty = Look((Acquisition(path.name, day),))
        looks.append(selection.measured(empty, classmap.from_delivered(scl, "SCL")))
    return sorted(looks, key=lambda k: k.date)


def test_cover_of_five_real_dates(shared):
    looks = mapchete_looks(shared)
    # 73/2/1/49/12 % of all pixels; two of the dates see 87 % of the tile.
    assert [round(100 * k.occluded * k.valid) for k in looks] == [73, 2, 1, 49, 12]
    assert [round(k.valid, 2) for k in looks] == [1.0, 0.87, 1.0, 0.87, 1.0]


def test_target_and_truth_of_five_real_dates(shared):
    looks = mapchete_looks(shared)
    target = selection.choose_target(looks, "2023-08-16", window_days=7, cloud=(0.4, 0.8))
    assert target.date == "2023-08-10"  # the 18th is nearer, but shows 87 % of the tile
    truth = selection.choose_truth(looks, target.date, max_days=10)
    assert truth.date == "2023-08-15"  # the 13th is nearer, but is not whole and not clear
    with pytest.raises(SceneSkipped):
        selection.choose_truth(looks, target.date, max_days=4)


def test_cloud_is_judged_over_the_place_not_the_tile(shared):
    corner = mapchete_looks(shared, np.s_[0:300, 0:300])
    assert [round(k.valid, 2) for k in corner] == [1.0] * 5
    target = selection.choose_target(corner, "2023-08-16", window_days=7, cloud=(0.4, 0.8))
    assert target.date == "2023-08-18"  # seen whole here, 44 %
    truth = selection.choose_truth(corner, target.date, max_days=10)
    assert truth.date == "2023-08-13"  # 0.2 % here; the 15th, nearer, has 1.9 %
    middle = mapchete_looks(shared, np.s_[300:600, 300:600])
    truth = selection.choose_truth(middle, "2023-08-18", max_days=10)
    assert truth.date == "2023-08-20"  # 0.9 % here, 12 % in the tile


def test_target_truth_and_radar_of_a_real_year(shared):
    """A WorldCereal site: every choice is checked against the whole series by brute force."""
    from unveil.places.layouts import read_worldcereal

    folder = shared / "data" / "worldcereal" / "00002806639B424A"
    series = read_worldcereal(sorted(folder.glob("*.nc")), name="site")
    blue = np.nan_to_num(series.reflectance[:, series.bands.index("B02")] * 10_000)
    looks = []
    for day, classes, band in zip(series.days, series.classes, blue, strict=True):
        date = dt.datetime.combine(dt.date.fromordinal(int(day)), dt.time(10), dt.UTC)
        looks.append(selection.measured(Look((Acquisition("s2", date),)), classes, band))
    looks = selection.one_look_a_day(looks)
    by_date = {k.date: k for k in looks}
    limit = selection.haze_limit(k.blue for k in looks if k.occluded <= 0.01 and k.valid >= 0.99)
    found = 0
    for wanted in ("2017-09-01", "2018-04-01", "2018-05-15", "2018-08-01"):
        target = selection.choose_target(looks, wanted, window_days=30, cloud=(0.2, 0.9))
        assert 0.2 <= target.occluded <= 0.9
        try:
            truth = selection.choose_truth(looks, target.date, max_days=60)
        except SceneSkipped:
            assert not [
                k
                for k in looks
                if k.date != target.date
                and selection.days_between(k.date, target.date) <= 60
                and k.occluded <= 0.01
                and k.valid >= 0.99
                and k.blue <= limit
            ]
            continue
        found += 1
        distance = selection.days_between(truth.date, target.date)
        day = dt.date.fromisoformat(target.date)
        for offset in range(-distance + 1, distance):
            nearer = by_date.get((day + dt.timedelta(days=offset)).isoformat())
            if nearer and nearer.date != target.date:
                hazy = nearer.blue is not None and nearer.blue > limit
                assert nearer.occluded > 0.01 or nearer.valid < 0.99 or hazy
        assert cloud_cover(series.classes[looks.index(truth)]) <= 0.01
    assert found >= 3
    context = selection.choose_context(list(by_date), "2018-05-15", 12, {"2018-05-15"})
    assert sum(date < "2018-05-15" for date in context) == 6
