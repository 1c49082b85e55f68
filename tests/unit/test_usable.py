"""Dates that may be used: judged for cloud, and with the bands of the target."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window

from unveil import raster
from unveil.assembly import planning
from unveil.assembly.assemble import assemble, assemble_row
from unveil.assembly.measure import measure_looks
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.usable import keep_judged, keep_water
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.masks.mask_scene import MaskOptions, judge_frame, mask_scene, why_unjudged
from unveil.raster import Grid
from unveil.sources.base import SourceSeries, from_array
from unveil.sources.local import date_in_name, dated_files
from unveil.sources.registry import open_source
from unveil.sources.selection import Limits

GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), 24, 30)
SETTINGS = fill_defaults({}, load_schema("config"))["sources"]
BANDS = ("B02", "B03", "B04", "B08", "B8A")
CLEAR, CLOUDY, NEAR, FAR = "2024-06-01", "2024-06-06", "2024-06-08", "2024-06-16"


def write_frame(path, bands=BANDS, value=1200):
    data = np.full((len(bands), *GRID.shape), value, np.uint16)
    raster.write_cog(path, data, GRID, descriptions=bands, nodata=0)


def write_mask(path, code=4, rows=0):
    scl = np.full((1, *GRID.shape), 4, np.uint8)
    scl[:, :rows] = code
    raster.write_cog(path, scl, GRID, descriptions=("SCL",), nodata=None)


@pytest.fixture
def place(tmp_path):
    """Four dates of an L2A series with masks; the second is cloudy in its upper half."""
    folder = tmp_path / "place"
    for date in (CLEAR, CLOUDY, NEAR, FAR):
        write_frame(folder / f"frames/{date}.tif")
        write_mask(folder / f"masks/{date}.tif", 9, 12 if date == CLOUDY else 0)
    return folder


def row(path, **columns):
    standard = {"protocol": "none", "target_date": CLOUDY, "n_context": 3}
    return SceneRow(**{"scene": "s", "source": "local", "path": str(path), **standard, **columns})


def assembled(scene_row, folder, **masks):
    options = MaskOptions(**masks)
    scene = assemble_row(
        scene_row,
        SETTINGS,
        folder / "scene",
        ProtocolSettings(1),
        detect=None,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    return mask_scene(scene, folder / "scene", options)


def planned_of(scene_row, folder):
    limits = Limits(**SETTINGS["selection"])
    return planning.expand_scenes([scene_row], ProtocolSettings(1), folder / "cache", limits=limits)


def dates_of(frames):
    return [frame.date for frame in frames]


def refused(scene_row, folder, *texts):
    with pytest.raises(InputError) as caught:
        assembled(scene_row, folder)
    for text in texts:
        assert text in str(caught.value)


# --- dates that nothing can judge ---------------------------------------------------------------


def test_a_date_without_a_mask_is_no_context_and_the_scene_says_why(place, tmp_path, caplog):
    (place / f"masks/{NEAR}.tif").unlink()
    with caplog.at_level(logging.WARNING):
        scene = assembled(row(place), tmp_path)
    assert dates_of(scene.context) == [CLEAR, FAR]
    assert "nothing can judge its clouds" in scene.facts["left_out"][NEAR]
    told = [record.getMessage() for record in caplog.records]
    assert sum(NEAR in text and "nothing can judge" in text for text in told) == 1


def test_a_date_without_a_mask_is_no_truth_neither_chosen_nor_named(place, tmp_path):
    (place / f"masks/{NEAR}.tif").unlink()
    scene = assembled(row(place, protocol="paired", reference_date="auto"), tmp_path)
    assert dates_of(scene.with_role("reference")) == [CLEAR]
    named = row(place, protocol="paired", reference_date=NEAR)
    refused(named, tmp_path, NEAR, "cannot be used", f"clear: [{NEAR}]")


@pytest.mark.parametrize("protocol", ["none", "paired", "transplant", "simulate"])
def test_a_target_without_any_mask_is_refused_with_a_remedy_that_helps(place, tmp_path, protocol):
    (place / f"masks/{CLEAR}.tif").unlink()
    wanted = row(place, protocol=protocol, target_date=CLEAR, cloud_level=0.5, cloud_date=CLOUDY)
    refused(wanted, tmp_path, "nothing can judge", f"masks/{CLEAR}.tif", f"clear: [{CLEAR}]")
    (place / "scene.yaml").write_text(f"clear: [{CLEAR}]\n")
    target = assembled(wanted, tmp_path).target
    if protocol in ("none", "paired"):
        assert target.facts["eo:cloud_cover"] == 0
        assert target.facts["unveil:mask_sources"] == ["declared clear"]
        assert target.facts["unveil:declared_clear"] == "scene.yaml"


def test_where_no_folder_holds_a_scene_yaml_the_remedy_names_none(place):
    series = replace(open_source(row(place), SETTINGS), masks={}, declarable=False)
    blind = keep_judged(series, lambda *_, **__: "no mask").left_out
    assert all("masks.detectors" in why.remedy for why in blind.values())
    assert not any("scene.yaml" in why.remedy for why in blind.values())


def test_a_donor_without_a_mask_lends_nothing(place, tmp_path):
    (place / f"masks/{CLOUDY}.tif").unlink()
    wanted = row(place, protocol="transplant", target_date=CLEAR, cloud_date=CLOUDY)
    refused(wanted, tmp_path, CLOUDY, "nothing can judge")


@pytest.mark.parametrize("clear", ["true", f"[{NEAR}]", f"['{NEAR}']"])
def test_what_somebody_declares_clear_is_context(place, tmp_path, clear):
    (place / f"masks/{NEAR}.tif").unlink()
    (place / "scene.yaml").write_text(f"clear: {clear}\n")
    scene = assembled(row(place), tmp_path)
    assert dates_of(scene.context) == [CLEAR, NEAR, FAR]
    assert "left_out" not in scene.facts
    assert scene.target.facts["eo:cloud_cover"] > 50  # a delivered mask goes before


def test_a_declared_date_that_is_not_there_is_refused(place):
    (place / "scene.yaml").write_text("clear: [2024-07-01]\n")
    with pytest.raises(
        InputError, match=r"scene.yaml, field 'clear': there is no frame of 2024-07-01"
    ):
        open_source(row(place), SETTINGS)


def test_a_clear_image_that_is_delivered_apart_is_the_truth(place, tmp_path):
    write_frame(place / "reference.tif")
    scene = assembled(row(place, protocol="paired"), tmp_path)
    (truth,) = scene.with_role("reference")
    assert truth.facts["unveil:mask_sources"] == ["declared clear"]


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("2024-06-14", "20240614", "2024_06_14", "2024.06.14", "2024-06-14_SCL"),
        *("mask-2024-06-14", "T33UUU_20240614T100031_SCL_20m", "cloudmask 20240614"),
        "S2A_MSIL2A_20240614T100031_N0510_R122_T33UUU_20240614T153000",
    ],
)
def test_a_date_is_found_wherever_it_stands_in_a_name(name):
    assert date_in_name(name) == "2024-06-14"


@pytest.mark.parametrize(
    "name",
    ["", "frame", "2024-6-14", "20241399", "1202406140", "2024-06-14_2024-06-15", "2024-0614"],
)
def test_a_name_without_one_date_has_none(name):
    assert date_in_name(name) is None


@pytest.mark.parametrize("name", [f"{CLOUDY}_SCL.tif", "mask-20240606.tiff", "20240606.TIF"])
def test_a_mask_is_found_however_its_name_is_written(place, tmp_path, name):
    (place / f"masks/{CLOUDY}.tif").rename(place / "masks" / name)
    assert assembled(row(place), tmp_path).target.facts["eo:cloud_cover"] > 50


def test_a_mask_without_its_frame_is_an_error(place, tmp_path):
    write_mask(place / "masks/2024-06-02.tif")
    auto = row(place, protocol="transplant", target_date="auto")
    for look in (
        lambda: open_source(row(place), SETTINGS),
        lambda: planned_of(auto, tmp_path),
    ):
        with pytest.raises(InputError, match=r"2024-06-02.tif.*no frame.*frames/2024-06-02.tif"):
            look()


def test_two_files_of_one_date_are_refused(place):
    write_mask(place / f"masks/{CLOUDY}_SCL.tif")
    with pytest.raises(InputError, match="stands twice"):
        dated_files(place / "masks")


# --- dates that cannot be read -------------------------------------------------------------------


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-600])


def put_on_another_grid(path):
    with raster.open_raster(path) as dataset:
        data, names = dataset.read(), dataset.descriptions
    moved = replace(GRID, transform=(10.0, 0.0, 500400.0, 0.0, -10.0, 5000000.0))
    raster.write_cog(path, data, moved, descriptions=names, nodata=0)


def make_8_bit(path):
    data = np.full((len(BANDS), *GRID.shape), 120, np.uint8)
    raster.write_cog(path, data, GRID, descriptions=BANDS, nodata=0)


SPOILT = [("frames", spoil_end), ("masks", spoil_end), ("frames", put_on_another_grid)]
SPOILT += [("masks", put_on_another_grid), ("frames", make_8_bit)]


@pytest.mark.parametrize(("part", "spoil"), SPOILT)
def test_a_bad_date_is_left_out_of_the_context_and_the_rest_goes_on(place, tmp_path, part, spoil):
    spoil(place / part / f"{NEAR}.tif")
    scene = assembled(row(place), tmp_path)
    assert dates_of(scene.context) == [CLEAR, FAR]
    assert f"{part}/{NEAR}.tif" in scene.facts["left_out"][NEAR]
    assert not list((tmp_path / "scene").rglob(f"*{NEAR}*"))


@pytest.mark.parametrize(("part", "spoil"), SPOILT)
def test_a_bad_date_is_refused_as_target_or_truth_with_its_file(place, tmp_path, part, spoil):
    spoil(place / part / f"{NEAR}.tif")
    for columns in ({"target_date": NEAR}, {"protocol": "paired", "reference_date": NEAR}):
        refused(row(place, **columns), tmp_path, f"{part}/{NEAR}.tif", "cannot be used", "Remedy: ")


def test_a_date_whose_fault_shows_only_when_it_is_read_makes_way_for_the_next(place, tmp_path):
    def torn(window):
        raise InputError("cannot be read as a raster", file="near.tif", remedy="copy it again")

    series = keep_judged(open_source(row(place), SETTINGS), lambda *_, **__: "")
    series.optical[NEAR] = replace(series.optical[NEAR], read=torn)
    scene = assemble(
        row(place, n_context=2), series, tmp_path / "scene", ProtocolSettings(1), judge=judge_frame
    )
    assert dates_of(scene.context) == [CLEAR, FAR]
    assert "near.tif" in scene.facts["left_out"][NEAR]
    assert not list((tmp_path / "scene").rglob(f"*{NEAR}*"))
    _, looks = measure_looks(series, detect=None)
    assert NEAR not in {look.date for look in looks}


def test_what_the_machine_is_at_fault_for_leaves_no_date_out(place, tmp_path):
    def failing(window):
        with reading_input("near.tif", "a raster", remedy="copy it again"):
            raise OSError(errno.EIO, "Input/output error")

    series = keep_judged(open_source(row(place), SETTINGS), lambda *_, **__: "")
    series.optical[NEAR] = replace(series.optical[NEAR], read=failing)
    with pytest.raises(InputError, match="Input/output error"):
        assemble(row(place), series, tmp_path / "scene", ProtocolSettings(1), judge=judge_frame)


def test_a_folder_without_any_good_frame_says_what_is_wrong_with_the_first(place, tmp_path):
    for path in (place / "frames").iterdir():
        make_8_bit(path)
    refused(row(place), tmp_path, f"{CLEAR}.tif", "viewing")


def test_a_bad_radar_pass_makes_way_for_the_next(place, tmp_path):
    echo = np.full((2, *GRID.shape), -12, np.float32)
    echo[1] = -18
    for date in (CLOUDY, NEAR):
        raster.write_cog(
            place / f"sar/{date}.tif", echo, GRID, descriptions=("VV", "VH"), nodata=np.nan
        )
    put_on_another_grid(place / f"sar/{CLOUDY}.tif")
    scene = assembled(row(place), tmp_path)
    assert dates_of(scene.with_role("radar")) == [NEAR]
    assert f"sar/{CLOUDY}.tif" in scene.facts["left_out"][f"{CLOUDY} (radar)"]


# --- places that are planned ---------------------------------------------------------------------


def test_planning_passes_over_bad_dates_and_says_so_in_the_scene(place, tmp_path, caplog):
    spoil_end(place / f"frames/{NEAR}.tif")
    wanted = row(place, protocol="transplant", target_date="auto", n_targets=2)
    planned = planned_of(wanted, tmp_path)
    assert {each.target_date for each in planned} == {CLEAR, FAR}
    with caplog.at_level(logging.INFO):
        scene = assembled(planned[0], tmp_path)
    assert f"frames/{NEAR}.tif" in scene.facts["passed_over"]
    assert any("passed over" in record.getMessage() for record in caplog.records)


def test_planning_says_which_dates_lack_a_band_and_which_are_hazy(place, tmp_path):
    hazy, poor = "2024-06-20", "2024-06-24"
    for day in ("2024-06-18", hazy, poor, "2024-06-28"):
        bands = BANDS[:4] if day == poor else BANDS
        write_frame(place / f"frames/{day}.tif", bands, value=1500 if day == hazy else 1200)
        write_mask(place / f"masks/{day}.tif")
    wanted = row(place, protocol="transplant", target_date="auto", n_targets=5)
    planned = planned_of(wanted, tmp_path)
    assert not {hazy, poor} & {each.target_date for each in planned}
    scene = assembled(planned[0], tmp_path)
    told = scene.facts["passed_over"]
    assert f"{poor}: it has no B8A" in told
    assert f"{hazy}: haze, its blue is 0.150, up to 0.130 is usual" in told
    more = replace(wanted, n_targets=6)
    with pytest.raises(InputError, match=f"5 dates .* 6 wanted.*{hazy}: haze"):
        planned_of(more, tmp_path)


# --- bands --------------------------------------------------------------------------------------


def test_a_context_date_that_lacks_a_band_is_left_out_and_no_band_is_dropped(place, tmp_path):
    write_frame(place / f"frames/{NEAR}.tif", bands=BANDS[:3])
    scene = assembled(row(place), tmp_path)
    assert dates_of(scene.context) == [CLEAR, FAR] and scene.bands == BANDS
    assert scene.facts["left_out"] == {NEAR: "it has no B08, B8A"}


def test_further_bands_of_other_dates_are_not_used(place, tmp_path):
    write_frame(place / f"frames/{NEAR}.tif", bands=("B11", *BANDS))
    scene = assembled(row(place), tmp_path)
    assert {frame.bands for frame in scene.frames} == {BANDS}
    assert len(scene.context) == 3


def test_a_target_that_lacks_a_band_of_all_others_is_refused(place, tmp_path):
    write_frame(place / f"frames/{CLOUDY}.tif", bands=BANDS[:4])
    refused(row(place), tmp_path, f"{CLOUDY}.tif", "no B8A", "all other dates have")


def test_a_truth_or_donor_that_lacks_a_band_is_refused_when_named(place, tmp_path):
    write_frame(place / f"frames/{CLEAR}.tif", bands=BANDS[:4])
    paired = row(place, protocol="paired", reference_date=CLEAR)
    refused(paired, tmp_path, CLEAR, "no B8A")
    lender = row(place, protocol="transplant", target_date=FAR, cloud_date=CLEAR)
    refused(lender, tmp_path, CLEAR, "no B8A")
    write_frame(place / "reference.tif", bands=BANDS[:4])
    refused(row(place, protocol="paired"), tmp_path, "reference.tif", "no B8A")


def test_auto_takes_no_truth_that_lacks_a_band(place, tmp_path):
    write_frame(place / f"frames/{NEAR}.tif", bands=BANDS[:4])
    scene = assembled(row(place, protocol="paired", reference_date="auto"), tmp_path)
    assert dates_of(scene.with_role("reference")) == [CLEAR]


def test_auto_withholds_no_date_that_lacks_a_band(place, tmp_path):
    write_frame(place / f"frames/{NEAR}.tif", bands=BANDS[:4])
    wanted = row(place, protocol="transplant", target_date="auto", n_targets=2)
    planned = planned_of(wanted, tmp_path)
    assert {each.target_date for each in planned} == {CLEAR, FAR}
    assert NEAR not in {each.cloud_date for each in planned}


# --- 0 over water -------------------------------------------------------------------------------


def test_0_in_one_band_is_data_over_water_and_nodata_elsewhere(place, tmp_path):
    data = np.full((len(BANDS), *GRID.shape), 300, np.uint16)
    data[3, 14:20] = 0  # B08 over the lake
    data[3, 22] = 0  # B08 over land
    data[:, 15] = 0  # beyond the image, whatever SCL says
    data[3, 16, 5], data[:3, 16, 5] = 0, 9000  # bright: one band is saturated
    raster.write_cog(place / f"frames/{NEAR}.tif", data, GRID, descriptions=BANDS, nodata=0)
    scl = np.full((1, *GRID.shape), 4, np.uint8)
    scl[:, 14:20] = 6
    raster.write_cog(place / f"masks/{NEAR}.tif", scl, GRID, descriptions=("SCL",), nodata=None)
    scene = assembled(row(place), tmp_path)
    (near,) = [frame for frame in scene.context if frame.date == NEAR]
    b08, classes = raster.read(near.path)[3], raster.read(near.mask)[0]
    assert (b08[[14, 17, 18, 19]] == 1).all() and b08[16, 5] == b08[22, 0] == b08[15, 0] == 0
    assert (classes[[14, 17, 18, 19]] == 0).all() and (classes[[15, 22]] == 255).all()
    assert "water" in near.facts["unveil:zeros_over_water"]
    assert "unveil:zeros_over_water" not in scene.target.facts


def test_other_fill_over_water_stays_nodata(place):
    """Saturated numbers are nodata as well, and no dark water."""
    data = np.full((2, *GRID.shape), 300, np.uint16)
    data[1] = 0
    stored = from_array(data, ("B02", "B08"))
    water = from_array(np.full((1, *GRID.shape), 6, np.uint8), ("SCL",))
    for zero, expected in ((True, 1), (False, 0)):
        frame = replace(stored, read_zeros=lambda w, zero=zero: np.full((2, 24, 30), zero))
        series = keep_water(SourceSeries(GRID, "p", {NEAR: frame}, {NEAR: water}))
        assert (series.optical[NEAR].read(Window(0, 0, 30, 24))[1] == expected).all()


# --- radar --------------------------------------------------------------------------------------


def test_a_radar_pass_without_a_pixel_makes_way_for_the_next(place, tmp_path):
    for date, level in ((CLOUDY, np.nan), (NEAR, -12.0), (FAR, np.nan)):
        decibel = np.stack([np.full(GRID.shape, level), np.full(GRID.shape, level - 7)])
        path = place / f"sar/{date}.tif"
        raster.write_cog(
            path, decibel.astype(np.float32), GRID, descriptions=("VV", "VH"), nodata=np.nan
        )
    scene = assembled(row(place), tmp_path)
    assert dates_of(scene.with_role("radar")) == [NEAR]
    assert set(scene.facts["left_out"]) == {f"{CLOUDY} (radar)", f"{FAR} (radar)"}
