"""Small SAFE products: real metadata of ESA, images of real pixels as JPEG 2000."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from unveil.raster import Grid
from unveil.sources.area import tile_grid

L1C_0301 = "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE"
L2A_0212 = "S2B_MSIL2A_20191228T210519_N0212_R071_T01CCV_20201003T104658.SAFE"
L2A_0400 = "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE"
L2A_0509 = "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE"
SIZE = 240


def real_pixels(shared: Path) -> dict[str, np.ndarray]:
    """Return 240 x 240 DN of the 13 L1C bands of a real clear patch, each as fine as its band."""
    from unveil.bands import BANDS, L1C13

    path = shared / "data/sen12mscr/ROIs1970_fall_s2/s2_139/ROIs1970_fall_s2_139_p839.tif"
    with rasterio.open(path) as dataset:
        data = dataset.read()[:, :SIZE, :SIZE]
    pixels = {}
    for name, band in zip(L1C13, data, strict=True):
        step = BANDS[name].resolution_m // 10
        pixels[name] = np.kron(band[::step, ::step], np.ones((step, step), np.uint16))
    return pixels


def real_scl(shared: Path, date: str, rows: slice, cols: slice) -> np.ndarray:
    """Return a part of a real SCL of tile 33TWL, decimated to 120 m."""
    (path,) = (shared / "data/mapchete_eo").glob(f"*_{date.replace('-', '')}_0_L2A_SCL.tif")
    with rasterio.open(path) as dataset:
        scl = dataset.read(1)[rows, cols]
    return np.where(scl > 11, 0, scl).astype(np.uint8)  # cubic decimation made a few 12


def write_product(
    folder: Path,
    template: Path,
    pixels: dict[str, np.ndarray],
    *,
    scl: np.ndarray | None = None,
    date: str = "",
    tile: str = "",
    baseline: str = "",
    corner: tuple[int, int] = (0, 0),
    every_resolution: bool = False,
    lists_offset: bool = True,
) -> Path:
    """Write one product and return its ``.SAFE`` folder.

    Args:
        folder: where it goes.
        template: real ``.SAFE`` folder with metadata.
        pixels: DN as stored on the 10 m grid, by band; each image of the metadata whose band
            is here is written, coarser ones by taking every second or sixth pixel.
        scl: scene classification on the 10 m grid.
        date: date instead of the template's.
        tile: tile instead of the template's.
        baseline: ``N0500`` instead of the template's; the metadata list its offset as ESA's do.
        lists_offset: False leaves that list out, which ESA never does.
        corner: rows and columns of the image's corner within the tile, 10 m pixels.
        every_resolution: write the coarser images of L2A too, not only the finest.
    """
    own_date, own_tile = template.name.split("_")[2][:8], template.name.split("_")[5][1:]
    own_baseline = template.name.split("_")[3]

    def renamed(text: str) -> str:
        if date:
            dashed = f"{own_date[:4]}-{own_date[4:6]}-{own_date[6:]}"
            text = text.replace(own_date, date.replace("-", "")).replace(dashed, date)
        if baseline:
            for form in ("N{0}{1}", "N{0}.{1}", ">{0}.{1}<"):
                old, new = own_baseline[1:], baseline[1:]
                text = text.replace(form.format(old[:2], old[2:]), form.format(new[:2], new[2:]))
        return text.replace(own_tile, tile or own_tile)

    root = folder / renamed(template.name)
    grid = tile_grid(tile or own_tile)
    for path in template.rglob("*.xml"):
        copy = root / renamed(path.relative_to(template).as_posix())
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(renamed(path.read_text()))
    main = next(root.glob("MTD_*.xml"))
    if lists_offset and "N0400" <= baseline < "N9900":
        main.write_text(with_offsets(main.read_text()))
    metadata = main.read_text()
    names = re.findall(r"<IMAGE_FILE>(.*?)</IMAGE_FILE>", metadata)
    written = set()
    for name in sorted(names, key=lambda n: n[-3:]):  # 10m, 20m, 60m
        found = re.search(r"_(B\d\d|B8A|SCL)(?:_(\d\d)m)?$", name)
        data = None if not found else scl if found[1] == "SCL" else pixels.get(found[1])
        if data is None or (found[1] in written and not every_resolution):
            continue
        written.add(found[1])
        step = int(found[2] or _native(found[1])) // 10
        write_jp2(root / f"{name}.jp2", data[::step, ::step], grid, corner, step)
    return root


def with_offsets(metadata: str) -> str:
    """Return product metadata with the offsets that ESA lists since baseline 04.00."""
    tag, holder, after = (
        ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST", "</QUANTIFICATION_VALUES_LIST>")
        if "Level-2A_User_Product" in metadata
        else ("RADIO_ADD_OFFSET", "Radiometric_Offset_List", "</QUANTIFICATION_VALUE>")
    )
    if f"<{tag} " in metadata:
        return metadata
    listed = "".join(f'<{tag} band_id="{number}">-1000</{tag}>' for number in range(13))
    return metadata.replace(after, f"{after}<{holder}>{listed}</{holder}>", 1)


def _native(band: str) -> int:
    from unveil.bands import BANDS

    return BANDS[band].resolution_m


def write_jp2(path: Path, data: np.ndarray, grid: Grid, corner: tuple[int, int], step: int) -> None:
    """Write one lossless JPEG 2000 image of a tile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top = grid.transform[2] + 10 * corner[1], grid.transform[5] - 10 * corner[0]
    profile = {
        "driver": "JP2OpenJPEG",
        "height": data.shape[0],
        "width": data.shape[1],
        "count": 1,
        "dtype": data.dtype.name,
        "crs": grid.crs,
        "transform": from_origin(left, top, 10 * step, 10 * step),
        "quality": 100,
        "reversible": "yes",
    }
    with rasterio.open(path, "w", **profile) as writer:
        writer.write(data, 1)


def write_manifest(product: Path, algorithm: str = "MD5") -> None:
    """Write the manifest of a product, with the checksum of every file as ESA writes it."""
    kind = {"MD5": "md5", "SHA3-256": "sha3_256"}[algorithm]
    objects = [
        f'<dataObject ID="f{number}"><byteStream mimeType="application/octet-stream" '
        f'size="{path.stat().st_size}"><fileLocation locatorType="URL" '
        f'href="./{path.relative_to(product).as_posix()}"/><checksum checksumName="{algorithm}">'
        f"{hashlib.new(kind, path.read_bytes()).hexdigest()}</checksum></byteStream></dataObject>"
        for number, path in enumerate(sorted(p for p in product.rglob("*") if p.is_file()))
    ]
    (product / "manifest.safe").write_text(
        '<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1"><dataObjectSection>'
        + "".join(objects)
        + "</dataObjectSection></xfdu:XFDU>"
    )


def zipped(product: Path, archive: Path) -> Path:
    """Pack a product as the data space delivers it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(product.rglob("*")):
            target.write(path, path.relative_to(product.parent))
    return archive
