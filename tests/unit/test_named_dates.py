"""Dates that a row names are held against those that there are, before the first job."""

from __future__ import annotations

import numpy as np
import pytest
from tests.small_run import DATES, write_place

from unveil.assembly.named_dates import require_dates
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.registry import source_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_place(folder)
    return folder


def row(path, source="local", **columns):
    known = {"scene": "s", "target_date": DATES[0], "protocol": "none"} | columns
    return SceneRow(source=source, path=str(path), **known)


def refused(*words, window_days=0, **columns):
    with pytest.raises(InputError) as caught:
        require_dates([row(**columns)], window_days=window_days)
    for word in words:
        assert word in str(caught.value), caught.value


def test_a_date_without_a_frame_is_named_with_the_nearest_that_is_there(place):
    refused(
        "scene s: target_date", "2020-03-13", "nearest is 2020-03-11",
        path=place, target_date="2020-03-13", protocol="paired",
    )  # fmt: skip
    refused("scene s: cloud_date", "2020-01-01", path=place, protocol="transplant",
            cloud_date="2020-01-01")  # fmt: skip
    refused("scene s: reference_date", "2020-01-01", path=place, protocol="paired",
            reference_date="2020-01-01")  # fmt: skip


def test_one_date_cannot_serve_two_purposes(place):
    refused("cloud_date", "date of the target", path=place, protocol="transplant",
            cloud_date=DATES[0])  # fmt: skip


def test_a_target_that_may_move_need_not_be_there(place):
    require_dates([row(place, target_date="2020-03-13")], window_days=5)


def test_a_day_whose_ground_is_wanted_needs_no_acquisition(place):
    require_dates([row(place, target_date="2020-03-13")], window_days=0)


def test_columns_that_a_protocol_does_not_read_are_not_held_against_it(place):
    require_dates([row(place, reference_date="1999-01-01", cloud_date="1999-01-01")], window_days=0)


PRODUCT = "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE"


def test_products_tell_dates_by_their_names(tmp_path):
    (tmp_path / PRODUCT).mkdir()
    refused("2021-09-09", "nearest is 2021-09-08", path=tmp_path, source="safe",
            protocol="paired", target_date="2021-09-09")  # fmt: skip
    require_dates([row(tmp_path, "safe", target_date="2021-09-08")], window_days=0)


def test_names_of_other_forms_leave_the_question_to_the_job(tmp_path):
    (tmp_path / PRODUCT).mkdir()
    (tmp_path / "other.SAFE").mkdir()
    require_dates([row(tmp_path, "safe", target_date="2021-09-09")], window_days=0)


@pytest.mark.parametrize(
    ("area", "words"),
    [
        ("27.9,93.05,27.95,93.1", ["exchanged"]),
        ("45.2,15.2,45.3,15.3", ["46RER", "within the products' tiles"]),
    ],
)
def test_an_area_on_none_of_the_tiles_is_refused_before_the_first_job(tmp_path, area, words):
    (tmp_path / PRODUCT).mkdir()
    asked = row(tmp_path, "safe", target_date="2021-09-08", area=area)
    with pytest.raises(InputError) as caught:
        source_of(asked).require_input(asked)
    for word in words:
        assert word in str(caught.value), caught.value


def test_an_area_that_would_lie_on_a_tile_the_other_way_round_is_said_to(tmp_path):
    (tmp_path / PRODUCT.replace("46RER", "33TWL")).mkdir()
    asked = row(tmp_path, "safe", target_date="2021-09-08", area="45.2,15.2,45.3,15.3")
    with pytest.raises(InputError, match="33TWL.*latitude and longitude are exchanged"):
        source_of(asked).require_input(asked)


def test_an_area_on_a_tile_is_taken(tmp_path):
    (tmp_path / PRODUCT).mkdir()
    asked = row(tmp_path, "safe", target_date="2021-09-08", area="93.05,27.9,93.1,27.95")
    source_of(asked).require_input(asked)


def test_a_place_with_a_slash_in_its_name_is_found_before_the_first_job(place):
    (place / "scene.yaml").write_text("place: lake/garda\n")
    asked = row(place)
    with pytest.raises(InputError, match=r"scene.yaml.*place.*lake/garda.*without slashes"):
        source_of(asked).require_input(asked)


def test_dates_of_a_patch_are_in_its_names(tmp_path):
    for number, date in enumerate(("2018-01-06", "2018-02-05")):
        folder = tmp_path / f"ROIs1868/100/S2/{number}"
        folder.mkdir(parents=True)
        np.zeros(1).tofile(folder / f"s2_ROIs1868_100_ImgNo_{number}_{date}_patch_12.tif")
    refused("2018-01-07", "nearest is 2018-01-06", path=tmp_path, source="sen12mscrts",
            name="ROIs1868_100_p12", target_date="2018-01-07")  # fmt: skip
