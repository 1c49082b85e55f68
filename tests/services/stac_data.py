"""Real imagery laid out as catalogues publish it: COGs and STAC items.

Places: the fields near Kortrijk of WorldCereal and tile 33TWL of mapchete_eo, both in the shared
data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import Affine, array_bounds, from_origin
from rasterio.warp import transform_bounds
from scipy.ndimage import gaussian_filter

EARTH_SEARCH = {
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B11": "swir16",
    "B12": "swir22",
    "SCL": "scl",
}


def write_cog(
    path: Path, data: np.ndarray, transform: Affine, crs: str, *, nodata=0, blocksize=512
) -> None:
    """Write ``(H, W)`` as a Cloud-Optimised GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": data.dtype, "nodata": nodata}
    size = {"height": data.shape[0], "width": data.shape[1]}
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile, **size, crs=crs, transform=transform) as dataset:
            dataset.write(data, 1)
        with memory.open() as dataset:
            rasterio.shutil.copy(
                dataset, path, driver="COG", compress="deflate", blocksize=blocksize
            )


def make_item(
    name: str,
    collection: str,
    time: dt.datetime,
    assets: dict[str, str],
    *,
    crs: str,
    transform: Affine,
    shape: tuple[int, int],
    **properties: object,
) -> dict:
    """Make a STAC item of rasters on one grid."""
    box = transform_bounds(crs, "EPSG:4326", *array_bounds(*shape, transform))
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": {
            "datetime": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "proj:code": crs,
            **properties,
        },
        "links": [],
        "assets": {
            key: {"href": href, "type": "image/tiff; application=geotiff; profile=cloud-optimized"}
            for key, href in assets.items()
        },
    }


def make_collection(name: str) -> dict:
    """Make the collection of some items."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": "proprietary",
        "links": [],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]},
        },
    }


# --- WorldCereal ------------------------------------------------------------------------

SITE = "00002806639B424A"
START = dt.datetime(2017, 8, 4, 10, 53, 28)
CEREAL_CRS = "EPSG:32631"


def _open(shared: Path, what: str) -> h5py.File:
    return h5py.File(next((shared / "data" / "worldcereal" / SITE).glob(f"{what}_{SITE}*.nc")))


def _transform(file: h5py.File, metres: float) -> Affine:
    return from_origin(file["x"][0] - metres / 2, file["y"][0] + metres / 2, metres, metres)


def worldcereal_optical(
    shared: Path, root: Path, url: str, first: dt.date, last: dt.date, *, raw_from: dt.date
) -> Iterator[dict]:
    """Write the optical series between two dates and yield its items, as Earth Search has them.

    From ``raw_from`` on they are what a reprocessing to baseline 05.00 delivers: DN + 1000.
    """
    fine, coarse = _open(shared, "S2_L2A_10m"), _open(shared, "S2_L2A_20m")
    for number, seconds in enumerate(coarse["timestamp"][:]):
        time = START + dt.timedelta(seconds=int(seconds))
        if not first <= time.date() <= last:
            continue
        name, raw = f"S2A_31UDS_{time:%Y%m%d}_0_L2A", time.date() >= raw_from
        assets = {}
        for band, key in EARTH_SEARCH.items():
            file, metres = (fine, 10) if band in fine else (coarse, 20)
            data = file[band][number]
            if raw and band != "SCL":
                data = np.where(data > 0, data + 1000, 0).astype(data.dtype)
            write_cog(root / name / f"{key}.tif", data, _transform(file, metres), CEREAL_CRS)
            assets[key] = f"{url}/{name}/{key}.tif"
        yield make_item(
            name,
            "sentinel-2-l2a",
            time,
            assets,
            crs=CEREAL_CRS,
            transform=_transform(fine, 10),
            shape=(64, 64),
            platform="sentinel-2a",
            **{
                "grid:code": "MGRS-31UDS",
                "eo:cloud_cover": 50.0,  # of the tile: must not be what decides
                "s2:processing_baseline": "05.00" if raw else "02.08",
                "earthsearch:boa_offset_applied": False,
            },
        )


def worldcereal_radar(
    shared: Path, root: Path, url: str, first: dt.date, last: dt.date
) -> Iterator[dict]:
    """Write the radar series as linear power and yield its items, as the Planetary Computer."""
    file = _open(shared, "S1_GRD-ASCENDING_20m")
    start = dt.datetime.fromisoformat(
        file["timestamp"].attrs["units"].removeprefix("seconds since ")
    )
    for number, seconds in enumerate(file["timestamp"][:]):
        time = start + dt.timedelta(seconds=int(seconds))
        if not first <= time.date() <= last:
            continue
        name, assets = f"S1A_IW_GRDH_1SDV_{time:%Y%m%dT%H%M%S}_rtc", {}
        for band in ("VV", "VH"):
            stored = file[band][number]
            power = np.where(stored == 0, np.nan, 10 ** (stored * 1e-4 / 10)).astype(np.float32)
            write_cog(
                root / name / f"{band.lower()}.tif",
                power,
                _transform(file, 20),
                CEREAL_CRS,
                nodata=np.nan,
            )
            assets[band.lower()] = f"{url}/{name}/{band.lower()}.tif"
        yield make_item(
            name,
            "sentinel-1-rtc",
            time,
            assets,
            crs=CEREAL_CRS,
            transform=_transform(file, 20),
            shape=(32, 32),
            platform="SENTINEL-1A",
            **{
                "sar:instrument_mode": "IW",
                "sar:polarizations": ["VV", "VH"],
                "sat:orbit_state": "ascending",
                # Two ascending orbits see the place, eight minutes apart in the afternoon.
                "sat:relative_orbit": 59 if time.minute > 36 else 161,
            },
        )


def worldcereal_dn(shared: Path, date: str, band: str) -> np.ndarray:
    """Return the DN of one date as the dataset has them, ``(H, W)``."""
    file = _open(shared, "S2_L2A_10m" if band in ("B02", "B03", "B04", "B08") else "S2_L2A_20m")
    times = [START + dt.timedelta(seconds=int(s)) for s in file["timestamp"][:]]
    return file[band][[f"{t:%Y-%m-%d}" for t in times].index(date)]


# --- mapchete_eo ------------------------------------------------------------------------

MAPCHETE_CRS = "EPSG:32633"
MAPCHETE_TRANSFORM = from_origin(499_980, 5_100_000, 120, 120)


def mapchete(shared: Path, root: Path, url: str) -> Iterator[dict]:
    """Write five dates of tile 33TWL, decimated to 120 m, and yield their items."""
    files = sorted((shared / "data" / "mapchete_eo").glob("*_SCL.tif"))
    for path in files:
        product = path.name.removesuffix("_SCL.tif")
        day = dt.datetime.strptime(product.split("_")[2], "%Y%m%d").replace(hour=10)
        assets = {}
        for band in ("B02", "B03", "B04", "B08", "SCL"):
            with rasterio.open(path.with_name(f"{product}_{band}.tif")) as dataset:
                data = dataset.read(1)
            if band == "SCL":  # lossy compression has left a few pixels of no class
                data = np.where(data > 11, 0, data).astype(np.uint8)
            key = EARTH_SEARCH[band]
            write_cog(
                root / product / f"{key}.tif", data, MAPCHETE_TRANSFORM, MAPCHETE_CRS, blocksize=128
            )
            assets[key] = f"{url}/{product}/{key}.tif"
        yield make_item(
            product,
            "sentinel-2-l2a",
            day,
            assets,
            crs=MAPCHETE_CRS,
            transform=MAPCHETE_TRANSFORM,
            shape=(915, 915),
            platform=f"sentinel-2{product[2].lower()}",
            **{
                "grid:code": "MGRS-33TWL",
                "s2:processing_baseline": "05.09",
                "earthsearch:boa_offset_applied": True,
            },
        )


NOISY_CRS, NOISY_PX = "EPSG:32631", 640


def noisy_series(root: Path, url: str) -> list[dict]:
    """Write four dates of an even surface with noise, which does not compress."""
    rng, items = np.random.default_rng(3), []
    transform = from_origin(499_980, 5_600_040, 10, 10)
    surface = 1500 + 600 * gaussian_filter(rng.normal(0, 1, (NOISY_PX, NOISY_PX)), 4)
    for day in (1, 6, 11, 16):
        name = f"S2A_31UDS_202006{day:02d}_0_L2A"
        images = {
            key: (surface + rng.normal(0, 400, surface.shape)).clip(1).astype(np.uint16)
            for key in ("blue", "green", "red", "nir")
        }
        scl = np.full((NOISY_PX, NOISY_PX), 4, np.uint8)
        scl[: NOISY_PX // 2] = 9 if day == 6 else 4
        for key, data in {**images, "scl": scl}.items():
            write_cog(root / name / f"{key}.tif", data, transform, NOISY_CRS, blocksize=256)
        items.append(
            make_item(
                name,
                "sentinel-2-l2a",
                dt.datetime(2020, 6, day, 10),
                {key: f"{url}/{name}/{key}.tif" for key in (*images, "scl")},
                crs=NOISY_CRS,
                transform=transform,
                shape=(NOISY_PX, NOISY_PX),
                platform="sentinel-2a",
                **{"grid:code": "MGRS-31UDS", "s2:processing_baseline": "02.14"},
            )
        )
    return items
