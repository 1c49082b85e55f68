"""Source ``safe``: Sentinel-2 products as ESA delivers them, in folders or zip archives.

``PATH`` holds any number of products of a place, at any depth: ``*.SAFE`` folders, zip
archives with one, or a mirror of Google's public layout (``tiles/33/T/WL/*.SAFE``). Both
forms of names are understood: one tile per product (since baseline 02.04, ``MTD_MSIL1C.xml``,
``T33TWL_20170105T013442_B02.jp2``) and many granules a product before
(``S2A_OPER_MTD_SAFL1C_*.xml``, ``S2A_OPER_MSI_L1C_TL_*_T33TWL_B02.jp2``), and L2A with its
folders a resolution (ESA, Sentinel-2 Products Specification Document, issues 13 to 14.9).

Archives are read in place and never unpacked; members that would leave the product, by
``..`` or by a link, are refused. Images are read through windows, warped onto the grid of the
place and mosaicked; each product is harmonised with its own offset before. Products whose images
are not whole (:mod:`unveil.sources.integrity`) are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree.ElementTree import Element

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import sort_bands
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.guarded import read_xml, reading_input
from unveil.raster import Grid
from unveil.sources import integrity, radiometry, selection
from unveil.sources.area import TILE, Box, area_box, area_grid, box_pixels, overlap
from unveil.sources.base import (
    Size,
    Source,
    SourceRaster,
    SourceSeries,
    Unusable,
    files_below,
    of_radar,
    open_dates,
)
from unveil.sources.clear import read_declared
from unveil.sources.local import dated_files, open_radar
from unveil.sources.pairs import PAIR_DAYS
from unveil.sources.radiometry import Offset
from unveil.sources.selection import Acquisition, Look

LOG = logging.getLogger(__name__)

METADATA = re.compile(r"(MTD_MSIL(1C|2A)|S2[A-D]_(OPER|USER)_MTD_(SAFL1C|SAFL2A)_\w+)\.xml")
IMAGE = re.compile(r"_(?P<band>B\d\d|B8A|SCL)(?:_(?P<metres>10|20|60)m)?\.(jp2|tiff?)$")
SENSED = re.compile(r"_MSIL(?:1C|2A)_(?P<day>\d{8})T\d{6}_N\d{4}_R\d{3}_T(?P<tile>\w{5})_")
"""Day and tile in the name of a product since baseline 02.04."""
TILE_IN_NAME = re.compile(r"_T(\d\d[A-Z]{3})_")
DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_N")
PACKINGS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}
"""Names of what zip archives may be packed with and GDAL cannot read (APPNOTE 4.4.5)."""
ENCRYPTED = 0x1
MOST_METADATA_BYTES = 64 * 2**20
CHECKED_BANDS = ("B02", "B04", "B8A", "B10", "B12")
"""Bands whose darkest pixels are held against the offset."""
SAMPLE_PX = 256
TILE_PIXELS = 10_980**2
"""Of products without a smaller place in them."""
WATCHED = (".jp2", ".tif", ".tiff", ".xml", ".zip", "manifest.safe", "scene.yaml")
OPEN_IMAGES = 48
AGAIN = "download the product again"


@dataclass(frozen=True)
class Product:
    """One tile of one product.

    Attributes:
        path: the ``.SAFE`` folder or the archive.
        level: ``L1C`` or ``L2A``.
        acquisition: time, orbit, tile, baseline.
        offset: what its own metadata say about the offset.
        images: ESA band name (and ``SCL``) to the GDAL name of the finest image.
        cloud_cover: cloud over the product as ESA states it, percent; None when unknown.
        members: ESA band name to the image's path in the product.
        checksums: what ``manifest.safe`` states, by path in the product.
    """

    path: Path
    level: str
    acquisition: Acquisition
    offset: Offset
    images: dict[str, str]
    cloud_cover: float | None = None
    members: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, integrity.Checksum] = field(default_factory=dict)

    @property
    def date(self) -> str:
        """UTC date, ``YYYY-MM-DD``."""
        return self.acquisition.time.date().isoformat()


class Safe(Source):
    """Products as ESA delivers them: all dates of a place, one frame per date."""

    kind = "safe"
    pair_days = PAIR_DAYS
    target_auto = ("paired", "none")

    def files(self, row: SceneRow) -> list[str]:
        """List images, metadata and archives of the folder."""
        self.require_input(row)
        return [path for path in files_below(row.path) if path.lower().endswith(WATCHED)]

    def require_input(self, row: SceneRow) -> None:
        """Refuse a row whose folder, or the archive of one product, is not there.

        Raises:
            InputError: if it does not exist.
        """
        path = Path(row.path)
        if not (path.suffix.lower() == ".zip" and path.is_file()):
            super().require_input(row)
        if row.area:
            _require_near(area_box(row.area), row)

    def known_dates(self, row: SceneRow) -> tuple[str, ...] | None:
        """List the dates of the products, where the names of all tell them."""
        found = [SENSED.search(path.name) for path in _paths_at(row.path)]
        if not found or not all(found):
            return None
        days = sorted({match["day"] for match in found if match})
        return tuple(f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days)

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size of the row's place, or of a tile."""
        pixels = box_pixels(area_box(row.area), 10) if row.area else TILE_PIXELS
        return Size(pixels, row.n_context + 1)

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open the products of a place: one frame per date, masks from SCL where there is one.

        Args:
            row: row of the scene table; ``area`` is the place (empty: the products' one tile).
            settings: section ``sources`` of the config, of which ``safe_level`` is used, and
                ``cache``, where it is remembered which images are whole.

        Raises:
            InputError: for damaged or hostile products, levels that mix, or an area that no
                product covers.
        """
        products = _of_one_level(find_products(Path(row.path)), settings["safe_level"], row)
        readable, faults = _divide(products, _opening_fault)
        grid = _grid_of(row, readable or products)
        covering = [p for p in readable if _covers(p, grid)]
        if not covering:
            raise InputError(
                f"none of {len(products)} products covers {row.area!r}",
                file=row.path,
                field=f"scene {row.scene}: area",
                remedy="give an area within the products' tiles",
            )
        covering, broken = _divide(covering, partial(_image_fault, cache=settings.get("cache")))
        faults |= broken
        if not covering:
            raise InputError(
                f"no product is whole: {next(iter(broken.values()))}",
                file=row.path,
                field=f"scene {row.scene}: path",
                remedy=AGAIN,
            )
        by_id = {p.acquisition.id: p for p in covering}
        looks = _one_look_a_day(selection.group_looks(p.acquisition for p in covering), by_id, grid)
        left_out = _damaged(products, faults, looks)
        optical, masks = {}, {}
        for look in looks:
            parts = [_checked_offset(by_id[m.id], grid) for m in look.members]
            bands = _common_bands(parts)
            optical[look.date] = SourceRaster(
                bands,
                _reader(parts, bands, grid),
                _facts(parts, look, _faults_of(look.date, products, faults)),
                _zeros_reader(parts, bands, grid),
            )
            if all("SCL" in part.images for part in parts):
                masks[look.date] = SourceRaster(
                    ("SCL",), _mask_reader(parts, grid), {"unveil:source": "SCL"}
                )
        radar, deaf = open_dates(
            dated_files(Path(row.path) / "sar"), lambda _, path: open_radar(path, grid)
        )
        return SourceSeries(
            grid=grid,
            place=row.place or products[0].acquisition.tile,
            optical=optical,
            masks=masks,
            radar=radar,
            facts={
                "level": products[0].level,
                "licence": "Copernicus Sentinel Data Terms and Conditions",
                "attribution": "Contains modified Copernicus Sentinel data",
            },
            declared_clear=read_declared(Path(row.path), {*optical, *left_out}),
            declarable=True,
            left_out=left_out | {of_radar(date): why for date, why in deaf.items()},
        )


# --- finding and reading products ---------------------------------------------------------


@lru_cache(maxsize=32)
def find_products(folder: Path) -> tuple[Product, ...]:
    """Return the products in or at a folder, a tile each, sorted by time and tile.

    Raises:
        InputError: if there are none, or all are damaged or hostile; one that is, among others,
            is left out and said.
    """
    found: list[Product] = []
    bad: list[InputError] = []
    for path in product_paths(folder):
        try:
            found += read_product(path)
        except InputError as error:
            bad.append(error)
    if bad and not found:
        raise bad[0]
    for reason in bad:
        LOG.warning("left out, the other products go on: %s", reason)
    if not found:
        raise InputError(
            "no Sentinel-2 products",
            file=folder,
            field="path",
            remedy="give the folder that holds *.SAFE folders or zip archives",
        )
    unique = {product.acquisition.id: product for product in found}  # unpacked and zipped
    return tuple(sorted(unique.values(), key=lambda p: (p.acquisition.time, p.acquisition.id)))


def product_paths(folder: Path) -> list[Path]:
    """List ``.SAFE`` folders and zip archives at or below a folder, links not followed."""
    if folder.suffix.upper() in (".SAFE", ".ZIP"):
        return [folder]
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_companion(name)]
        inside = [name for name in folders if name.upper().endswith(".SAFE")]
        folders[:] = sorted(set(folders) - set(inside))
        archives = [
            name for name in files if name.lower().endswith(".zip") and not is_companion(name)
        ]
        found += [Path(parent) / name for name in (*inside, *archives)]
    return sorted(found)


@cache
def _paths_at(folder: str) -> tuple[Path, ...]:
    return tuple(product_paths(Path(folder)))


def _require_near(box: Box, row: SceneRow) -> None:
    """Refuse an area that lies on none of the tiles, where the names of all products tell them.

    Raises:
        InputError: with the remedy for latitude and longitude exchanged, if they are.
    """
    found = [SENSED.search(path.name) for path in _paths_at(row.path)]
    tiles = sorted({match["tile"] for match in found if match})
    if not found or not all(found) or any(overlap(box, area_box(tile)) for tile in tiles):
        return
    west, south, east, north = box
    swapped = any(overlap((south, west, north, east), area_box(tile)) for tile in tiles)
    raise InputError(
        f"{row.area!r} ({west:g} to {east:g} E, {south:g} to {north:g} N) lies on none of the "
        f"tiles of the products, {', '.join(tiles[:5])}",
        file=row.path,
        field=f"scene {row.scene}: area",
        remedy="latitude and longitude are exchanged; write the longitude first"
        if swapped
        else "give an area within the products' tiles, or leave it empty",
    )


def read_product(path: Path) -> list[Product]:
    """Read the metadata of one product, one record per tile.

    Raises:
        InputError: if it is damaged, hostile, or not a Sentinel-2 product of L1C or L2A.
    """
    files = _list_archive(path) if path.suffix.lower() == ".zip" else _list_folder(path)
    files = [name for name in files if not any(map(is_companion, PurePosixPath(name).parts))]
    metadata = [name for name in files if METADATA.fullmatch(PurePosixPath(name).name)]
    metadata = [name for name in metadata if "GRANULE" not in PurePosixPath(name).parts]
    inner = [name for name in files if name.lower().endswith(".zip")]
    if not metadata and inner:
        raise InputError(
            f"an archive of archives ({PurePosixPath(inner[0]).name} ...)",
            file=path,
            remedy="unpack it once; the archives in it are read as they are",
        )
    if len(metadata) != 1:
        raise InputError(
            f"{len(metadata)} product metadata files (MTD_MSIL1C.xml or MTD_MSIL2A.xml)",
            file=path,
            remedy="download the product again, whole",
        )
    root = read_xml(_read_bytes(path, metadata[0]), file=path / metadata[0], remedy=AGAIN)
    facts = _product_facts(root, path)
    checksums = _read_manifest(path, files)
    granules: dict[str, dict[str, tuple[int, str]]] = {}
    for name in files:
        parts, match = PurePosixPath(name).parts, IMAGE.search(name)
        if match and "IMG_DATA" in parts and "GRANULE" in parts:
            granule = parts[parts.index("GRANULE") + 1]
            band, metres = match["band"], int(match["metres"] or 0)
            kept = granules.setdefault(granule, {}).get(band)
            if kept is None or metres < kept[0]:
                granules[granule][band] = (metres, name)
    if not granules:
        raise InputError(
            "no images in GRANULE/*/IMG_DATA",
            file=path,
            remedy="download the product again, whole",
        )
    return [
        replace(_product(path, facts, granule, images), checksums=checksums)
        for granule, images in granules.items()
    ]


def _read_manifest(path: Path, files: Sequence[str]) -> dict[str, integrity.Checksum]:
    """Return the checksums of a product's manifest by the names of its files; none without it."""
    manifests = [name for name in files if PurePosixPath(name).name == "manifest.safe"]
    if not manifests:
        return {}
    name = min(manifests, key=len)
    root = read_xml(_read_bytes(path, name), file=path / name, remedy=AGAIN)
    home = PurePosixPath(name).parent
    return {(home / key).as_posix(): value for key, value in integrity.read_manifest(root).items()}


def _product(
    path: Path, facts: dict[str, Any], granule: str, images: dict[str, tuple[int, str]]
) -> Product:
    names = {band: _gdal_name(path, name) for band, (_, name) in images.items()}
    first = next(name for _, name in images.values())
    tile = TILE_IN_NAME.search(first)
    if not tile:
        raise InputError(
            f"image {first} names no tile",
            file=path,
            remedy="keep the names of the product's files",
        )
    strips = facts["datastrips"]
    strip = strips.get(granule) or (next(iter(strips.values())) if len(strips) == 1 else "")
    acquisition = Acquisition(
        id=f"{facts['name']}/{granule}",
        time=facts["time"],
        platform=facts["platform"],
        tile=tile[1],
        datastrip=strip,
        relative_orbit=facts["orbit"],
        orbit_state=facts["orbit_state"],
        baseline=radiometry.parse_baseline(facts["baseline"]),
        processed=facts["processed"],
    )
    offset = radiometry.offset_of_product(facts)
    members = {band: name for band, (_, name) in images.items()}
    return Product(path, facts["level"], acquisition, offset, names, facts["cloud_cover"], members)


def _product_facts(root: Element, path: Path) -> dict[str, Any]:
    """Read what the product metadata state; tags differ between versions in prefixes only."""
    texts: dict[str, str] = {}
    offsets: dict[str, int] = {}
    strips: dict[str, str] = {}
    offset_name = ""
    for node in root.iter():
        tag, text = node.tag.rpartition("}")[2], (node.text or "").strip()
        if tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
            offset_name = tag
            offsets[radiometry.band_of_id(node.attrib["band_id"])] = round(float(text))
        elif tag in ("Granule", "Granules"):
            strip = DATASTRIP.search(node.get("datastripIdentifier", ""))
            key = _granule_folder(node) or node.get("granuleIdentifier", "")
            strips[key] = strip[1] if strip else ""
        elif text:
            texts.setdefault(tag.removesuffix("_2A"), text)

    def need(*tags: str) -> str:
        for tag in tags:
            if tag in texts:
                return texts[tag]
        raise InputError(
            f"{tags[0]} is missing in the product metadata",
            file=path,
            field=tags[0],
            remedy=AGAIN,
        )

    level = {"1C": "L1C", "2A": "L2A", "2Ap": "L2A"}.get(
        need("PROCESSING_LEVEL").removeprefix("Level-")
    )
    if level is None:
        raise InputError(
            f"processing level {texts['PROCESSING_LEVEL']}",
            file=path,
            field="PROCESSING_LEVEL",
            remedy="use products of Level-1C or Level-2A",
        )
    cover = texts.get("Cloud_Coverage_Assessment")
    return {
        "level": level,
        "name": need("PRODUCT_URI").removesuffix(".SAFE"),
        "time": selection.parse_time(need("PRODUCT_START_TIME")),
        "platform": texts.get("SPACECRAFT_NAME", "").lower(),
        "orbit": int(texts["SENSING_ORBIT_NUMBER"]) if "SENSING_ORBIT_NUMBER" in texts else None,
        "orbit_state": texts.get("SENSING_ORBIT_DIRECTION", "").lower(),
        "baseline": need("PROCESSING_BASELINE"),
        "processed": texts.get("GENERATION_TIME", ""),
        "quantification": round(
            float(
                need(
                    "QUANTIFICATION_VALUE",
                    "BOA_QUANTIFICATION_VALUE",
                    "L2A_BOA_QUANTIFICATION_VALUE",
                    "L1C_TOA_QUANTIFICATION_VALUE",
                )
            )
        ),
        "offset_name": offset_name,
        "offsets": offsets,
        "datastrips": strips,
        "cloud_cover": float(cover) if cover else None,
    }


def _granule_folder(node: Element) -> str:
    """Return the granule's folder from the path of its first image; empty in old products."""
    for child in node:
        parts = PurePosixPath((child.text or "").strip()).parts
        if "GRANULE" in parts[:-1]:
            return parts[parts.index("GRANULE") + 1]
    return ""


# --- files: folders and archives, nothing outside them ------------------------------------


def is_companion(name: str) -> bool:
    """Tell whether a file or folder is what macOS leaves beside others."""
    return name.startswith("._") or name == "__MACOSX"


def _list_folder(path: Path) -> list[str]:
    root = path.resolve()
    found = []
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            member = Path(parent) / name
            if member.is_symlink() and not member.resolve().is_relative_to(root):
                raise InputError(
                    f"{member.relative_to(path)} is a link out of the product",
                    file=path,
                    remedy="download the product again, or copy the files into it",
                )
        found += [(Path(parent) / name).relative_to(path).as_posix() for name in files]
    return sorted(found)


def _list_archive(path: Path) -> list[str]:
    with _archive(path) as archive:
        members = archive.infolist()
    for member in members:
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        link = stat.S_ISLNK(member.external_attr >> 16)
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name or link:
            raise InputError(
                f"the archive holds {name!r}, {'a link' if link else 'a path out of it'}",
                file=path,
                remedy="do not use this archive; download the product from a source you trust",
            )
    files = [member for member in members if not member.is_dir()]
    _require_unpackable(path, files)
    return sorted(member.filename for member in files)


def _require_unpackable(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    by_hand = "unpack it (7-Zip, unzip) and give the folder in its place"
    for member in members:
        kind = PACKINGS.get(member.compress_type, f"method {member.compress_type}")
        if member.flag_bits & ENCRYPTED:
            raise InputError("is encrypted", file=path, remedy=by_hand)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"is packed with {kind}", file=path, remedy=by_hand)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with reading_input(path, "a zip archive", remedy=AGAIN), zipfile.ZipFile(path) as archive:
        yield archive


def _read_bytes(path: Path, name: str) -> bytes:
    if path.suffix.lower() != ".zip":
        file = path / name
        size, read = file.stat().st_size, file.read_bytes
    else:
        with _archive(path) as archive:
            size = archive.getinfo(name).file_size

        def read() -> bytes:
            with _archive(path) as archive:
                return archive.read(name)

    if size > MOST_METADATA_BYTES:
        raise InputError(
            f"{name} has {size / 2**20:.0f} MB",
            file=path,
            remedy="metadata are far smaller; download the product again",
        )
    return read()


def _gdal_name(path: Path, name: str) -> str:
    return raster.name_in_zip(path, name) if path.suffix.lower() == ".zip" else str(path / name)


# --- choosing and reading ------------------------------------------------------------------


def _of_one_level(products: Sequence[Product], wanted: str, row: SceneRow) -> list[Product]:
    levels = Counter(product.level for product in products)
    if wanted == "auto" and len(levels) > 1:
        raise InputError(
            "the folder holds products of L1C and of L2A",
            file=row.path,
            field="sources.safe_level",
            remedy="set it to L1C or L2A",
        )
    level = next(iter(levels)) if wanted == "auto" else wanted
    kept = [product for product in products if product.level == level]
    if not kept:
        raise InputError(
            f"no products of {level}",
            file=row.path,
            field="sources.safe_level",
            remedy=f"set it to {next(iter(levels))}, or auto",
        )
    return kept


def _grid_of(row: SceneRow, products: Sequence[Product]) -> Grid:
    """Return the grid of the place, in the zone of most products unless a tile is named."""
    tiles = Counter(product.acquisition.tile for product in products)
    usual = next(p for p in products if p.acquisition.tile == tiles.most_common(1)[0][0])
    if not row.area and len(tiles) > 1:
        raise InputError(
            f"products of the tiles {', '.join(sorted(tiles))} and no area",
            file=row.path,
            field=f"scene {row.scene}: area",
            remedy="name a tile, a box west,south,east,north, or a GeoJSON file",
        )
    own = _image_grid(_ten_metres(usual))
    if not row.area or (TILE.fullmatch(row.area) and row.area == usual.acquisition.tile):
        return own
    return area_grid(row.area, crs="" if TILE.fullmatch(row.area) else own.crs)


def _ten_metres(product: Product) -> str:
    return product.images.get("B02") or next(iter(product.images.values()))


@lru_cache(maxsize=1024)
def _image_grid(name: str) -> Grid:
    with _open_image(name) as dataset:
        return raster.grid_of(dataset)


@contextlib.contextmanager
def _open_image(name: str) -> Iterator[rasterio.DatasetReader]:
    with reading_input(name, "an image", remedy=AGAIN):
        with raster.open_dataset(name) as dataset:
            yield dataset


# --- whole products -----------------------------------------------------------------------


def _divide(
    products: Sequence[Product], fault_of: Callable[[Product], str]
) -> tuple[list[Product], dict[str, str]]:
    """Return the products without a fault, and the faults of the others by acquisition."""
    faults = {product.acquisition.id: fault_of(product) for product in products}
    sound = [product for product in products if not faults[product.acquisition.id]]
    return sound, {name: fault for name, fault in faults.items() if fault}


def _opening_fault(product: Product) -> str:
    try:
        _image_grid(_ten_metres(product))
    except InputError as error:
        return error.fault
    return ""


def _image_fault(product: Product, *, cache: str | None) -> str:
    """Read all images of a product once, and remember that in the cache."""
    memory = None
    if cache:
        name = hashlib.sha256(str(product.path.resolve()).encode()).hexdigest()[:24]
        memory = Path(cache) / "products" / f"{name}.json"
    zipped = product.path.suffix.lower() == ".zip"
    images = []
    for name in product.members.values():
        at = (product.path if zipped else product.path / name).stat()
        stated = product.checksums.get(name)
        opened = partial(_open_member, product.path, name)
        images.append(integrity.Image(name, opened, (at.st_size, at.st_mtime_ns), stated))
    fault = integrity.first_fault(images, memory)
    if fault:
        LOG.warning("%s: left out, %s", product.acquisition.id, fault)
    return fault


@contextlib.contextmanager
def _open_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with reading_input(path / name, "an image", remedy=AGAIN):
        if path.suffix.lower() != ".zip":
            with open(path / name, "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
                yield stream


def _damaged(
    products: Sequence[Product], faults: Mapping[str, str], looks: Sequence[Look]
) -> dict[str, Unusable]:
    """Return the dates that no whole product shows, with the fault of one that does."""
    seen = {look.date for look in looks}
    dates = {product.date for product in products if product.acquisition.id in faults} - seen
    return {
        date: Unusable("; ".join(_faults_of(date, products, faults)), AGAIN)
        for date in sorted(dates)
    }


def _faults_of(date: str, products: Sequence[Product], faults: Mapping[str, str]) -> list[str]:
    """Say what is wrong with the products of a date that are left out."""
    return [
        f"{product.acquisition.id} is damaged: {faults[product.acquisition.id]}"
        for product in products
        if product.date == date and product.acquisition.id in faults
    ]


def _covers(product: Product, grid: Grid) -> bool:
    own = _image_grid(_ten_metres(product))
    left, bottom, right, top = rasterio.transform.array_bounds(*own.shape, own.affine)
    if own.crs != grid.crs:
        left, bottom, right, top = transform_bounds(own.crs, grid.crs, left, bottom, right, top)
    west, south, east, north = rasterio.transform.array_bounds(*grid.shape, grid.affine)
    return left < east and west < right and bottom < north and south < top


def _common_bands(products: Sequence[Product]) -> tuple[str, ...]:
    common = set.intersection(*(set(product.images) for product in products)) - {"SCL"}
    if not common:
        raise InputError(
            "the products have no band in common",
            file=products[0].path,
            remedy="keep the same images of every product",
        )
    return sort_bands(common)


def _one_look_a_day(looks: list[Look], products: dict[str, Product], grid: Grid) -> list[Look]:
    """Measure the looks of dates that have several, and keep one per date."""
    dates = Counter(look.date for look in looks)
    known = []
    for look in looks:
        if dates[look.date] > 1:
            parts = [products[member.id] for member in look.members]
            look = _measured(look, parts, grid)
        known.append(look)
    kept = selection.one_look_a_day(known)
    for look in known:
        if look not in kept:
            LOG.info("%s: another look of the day is fuller or clearer", look.members[0].id)
    return kept


def _measured(look: Look, parts: Sequence[Product], grid: Grid) -> Look:
    whole = Window(0, 0, grid.width, grid.height)
    if all("SCL" in part.images for part in parts):
        scl = _mask_reader(parts, grid)(whole)[0]
        return selection.measured(look, classmap.from_delivered(scl, "SCL"))
    seen = raster.first_with_data(
        [_read_image(_ten_metres(part), grid, whole, mask=True) for part in parts]
    )
    return replace(look, valid=float(np.mean(seen > 0)))


def _checked_offset(product: Product, grid: Grid) -> Product:
    bands = [band for band in product.images if band != "SCL"]
    step = max(1, -(-max(grid.shape) // SAMPLE_PX))
    shape = (-(-grid.height // step), -(-grid.width // step))
    sample = [_read_image(product.images[band], grid, None, shape=shape) for band in bands]
    if not sample:
        return product
    dn = np.stack(sample)
    levels = radiometry.dark_levels(dn, bands)
    asked = {band: level for band, level in levels.items() if band in CHECKED_BANDS}
    offset = radiometry.cross_check(product.offset, asked)
    offset = radiometry.check_brightness(offset, radiometry.median_levels(dn, bands))
    for warning in offset.warnings:
        LOG.warning("%s: %s", product.acquisition.id, warning)
    return replace(product, offset=offset)


def _facts(parts: Sequence[Product], look: Look, faults: Sequence[str]) -> dict[str, Any]:
    first = parts[0]
    warnings = dict.fromkeys([*(w for part in parts for w in part.offset.warnings), *faults])
    offsets = sorted({part.offset.value for part in parts})
    facts = {
        **first.offset.facts(),
        "unveil:offset_applied": offsets if len(offsets) > 1 else offsets[0],
        "unveil:source": ", ".join(part.acquisition.id for part in parts),
        "unveil:sensing_time": look.time.isoformat(),
        "unveil:resampling": RESAMPLING_NOTE,
        "platform": first.acquisition.platform,
        "sat:relative_orbit": first.acquisition.relative_orbit,
        "sat:orbit_state": first.acquisition.orbit_state,
    }
    return facts | ({"unveil:warnings": list(warnings)} if warnings else {})


RESAMPLING_NOTE = (
    "nearest within the UTM zone (a 10 m pixel takes the coarser pixel that it lies in), "
    "bilinear from other zones"
)


def _reader(parts: Sequence[Product], bands: tuple[str, ...], grid: Grid):
    def read(window: Window) -> np.ndarray:
        harmonised = []
        for part in parts:
            dn = np.stack([_read_image(part.images[band], grid, window) for band in bands])
            harmonised.append(radiometry.harmonise(dn, bands, part.offset))
        return raster.first_with_data(harmonised)

    return read


def _zeros_reader(parts: Sequence[Product], bands: tuple[str, ...], grid: Grid):
    def read(window: Window) -> np.ndarray:
        stored = [[_read_image(part.images[b], grid, window) for b in bands] for part in parts]
        return (np.array(stored) == radiometry.DN_NODATA).all(axis=0)

    return read


def _mask_reader(parts: Sequence[Product], grid: Grid):
    def read(window: Window) -> np.ndarray:
        images = [_read_image(part.images["SCL"], grid, window, mask=True) for part in parts]
        return raster.first_with_data(images)[None].astype(np.uint8)

    return read


def _read_image(
    name: str,
    grid: Grid,
    window: Window | None,
    *,
    mask: bool = False,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read one image on a grid, ``(H, W)``, 0 beyond it; ``mask`` forbids interpolation."""
    with reading_input(name, "an image", remedy=AGAIN):
        return _warped(name, grid, mask).read(1, window=window, out_shape=shape)


@lru_cache(maxsize=OPEN_IMAGES)
def _warped(name: str, grid: Grid, mask: bool) -> WarpedVRT:
    """Keep an image open, so that its decoded JPEG 2000 tiles serve the next window."""
    dataset = raster.open_dataset(name)
    if not dataset.crs:
        raise InputError("it has no coordinate reference system", file=name, remedy=AGAIN)
    same = mask or raster.grid_of(dataset).crs == grid.crs
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.affine,
        width=grid.width,
        height=grid.height,
        src_nodata=0 if dataset.nodata is None else dataset.nodata,
        nodata=0,
        resampling=Resampling.nearest if same else Resampling.bilinear,
    )
