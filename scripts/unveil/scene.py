"""Scene: the one data contract between the stages.

A scene is one place and one target date. On disk it is a folder with a STAC
ItemCollection (``download.json`` after assembly, ``scene.json`` when ready for
analysis) and Cloud-Optimised GeoTIFFs:

===============  =====================  ==================================================
part             file                   content
===============  =====================  ==================================================
target, context  ``frames/DATE.tif``    uint16, reflectance x 10000, nodata 0, ESA names
masks            ``masks/DATE.tif``     uint8, bands CLASS and CLOUD_PROBABILITY (percent)
veils            ``veils/DATE.tif``     uint16, excess over the ground x 10000 + 10000, nodata 0
radar            ``sar/DATE.tif``       float32 dB, bands VV and VH, nodata NaN
reference        ``truth/reference.tif``  as a frame; never visible to a model
occlusion        ``truth/occlusion.tif``  uint8 CLASS: what is scored as hidden; 255 no truth
===============  =====================  ==================================================

Frames of role ``context`` are sorted by date. Arrays are ``(T, B, H, W)``.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from unveil import raster
from unveil.bands import (
    NODATA,
    OCCLUDED_CLASSES,
    REFLECTANCE_SCALE,
    SAR2,
    UNKNOWN_PROBABILITY,
    band_positions,
)
from unveil.distance import distance_from
from unveil.errors import InputError
from unveil.excess import EXCESS_OFFSET, TRUSTED_PX, excess_of_dn
from unveil.guarded import reading_input
from unveil.protocols import PROTOCOLS
from unveil.raster import Grid

ROLES = ("target", "context", "radar", "reference", "occlusion")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What the id of a scene looks like: a plain file name."""
DECLARED_CLEAR = "unveil:declared_clear"
"""Fact of a frame: who says that it is clear, where nothing has judged it."""
NO_ACQUISITION = "unveil:no_acquisition"
"""Fact of a target: why there is no image of its date; all of it is hidden, and shows nothing."""
HIDDEN_AROUND = "unveil:hidden_around_px"
"""Fact of a target: pixels around its clouds that models must not take for clear, whose haze and
rims would stay in the image."""
JUDGED = "unveil:judged"
"""Fact of the scored set: roles whose clouds were found by detectors, as no mask is delivered."""
TRUTH_ROLES = ("reference", "occlusion")
RadarDates = Literal["target", "paired", "all"]
"""Radar dates that a model wants: the one nearest to the target, those nearest to any of the
optical frames, or all."""
SHA256 = "1220"
"""How STAC's multihash says that 32 bytes of SHA-256 follow."""


@dataclass(frozen=True)
class Frame:
    """One raster of a scene.

    Attributes:
        date: acquisition date, ``YYYY-MM-DD``.
        role: one of ``target context radar reference occlusion``.
        path: the raster.
        bands: names of its bands, in file order.
        mask: its class raster, once the masks stage has run.
        veil: its excess over the ground, from that stage on, where other dates tell the ground.
        facts: level, platform, processing baseline, offset applied, source href ...
        checksum: SHA-256 of the raster.
        mask_checksum: SHA-256 of the class raster.
        veil_checksum: SHA-256 of the excess.
    """

    date: str
    role: str
    path: Path
    bands: tuple[str, ...]
    mask: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    checksum: str = ""
    mask_checksum: str = ""
    veil: Path | None = None
    veil_checksum: str = ""

    @property
    def rasters(self) -> tuple[tuple[Path, str], ...]:
        """Its rasters, each with the checksum that is recorded of it, empty where none is."""
        pairs = (
            (self.path, self.checksum),
            (self.mask, self.mask_checksum),
            (self.veil, self.veil_checksum),
        )
        return tuple((path, checksum) for path, checksum in pairs if path is not None)

    @property
    def day(self) -> dt.date:
        """The acquisition date."""
        return dt.date.fromisoformat(self.date)


@dataclass(frozen=True)
class Scene:
    """One place and one target date, with everything known about it.

    Attributes:
        id: scene id, unique in a run.
        protocol: where the truth comes from, an id of :data:`unveil.protocols.PROTOCOLS`.
        place: place id; scenes of one place are not independent samples.
        grid: the grid that every raster of the scene lies on.
        frames: all rasters, target first.
        facts: source, level, licence, seeds, notes.
    """

    id: str
    protocol: str
    place: str
    grid: Grid
    frames: tuple[Frame, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def with_role(self, role: str) -> tuple[Frame, ...]:
        """Return the frames of one role, sorted by date."""
        return tuple(sorted((f for f in self.frames if f.role == role), key=lambda f: f.date))

    @property
    def target(self) -> Frame:
        """The cloudy frame that models must clear."""
        return self.with_role("target")[0]

    @property
    def context(self) -> tuple[Frame, ...]:
        """The other dates a model may see, sorted by date."""
        return self.with_role("context")

    @property
    def radar(self) -> Frame | None:
        """The radar frame nearest to the target in time, if there is any."""
        return self.radar_nearest(self.target.day)

    def radar_nearest(self, day: dt.date) -> Frame | None:
        """Return the radar frame nearest to a day, of two as near the earlier, if there is any."""
        frames = self.with_role("radar")
        return min(frames, key=lambda f: abs((f.day - day).days)) if frames else None

    def radar_of(self, dates: RadarDates) -> tuple[Frame, ...]:
        """Return the radar frames of the dates that a model wants, sorted by date."""
        frames = self.with_role("radar")
        if dates == "all":
            return frames
        optical = (self.target, *(self.context if dates == "paired" else ()))
        wanted = [self.radar_nearest(frame.day) for frame in optical]
        return tuple(frame for frame in frames if frame in wanted)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the target."""
        return self.target.bands

    @property
    def level(self) -> str:
        """Processing level of the optical frames, ``L1C`` or ``L2A``."""
        return str(self.facts.get("level", ""))

    def without_truth(self) -> Scene:
        """Return the scene as models see it: no reference and no occlusion raster."""
        return replace(self, frames=tuple(f for f in self.frames if f.role not in TRUTH_ROLES))


@dataclass(frozen=True)
class Inputs:
    """What a model is given: one window of a scene as arrays.

    Attributes:
        bands: names of the optical bands, B of them.
        target: ``(B, H, W)`` float32 reflectance, NaN where nodata.
        target_class: ``(H, W)`` uint8 classes of :mod:`unveil.bands`.
        target_probability: ``(H, W)`` float32 cloud probability 0...1, NaN if unknown.
        context: ``(T, B, H, W)`` float32 reflectance, NaN where nodata.
        context_class: ``(T, H, W)`` uint8 classes.
        days: ``(T,)`` float32, days from the target (negative: before).
        sar: ``(2, H, W)`` float32 dB, VV then VH; None without radar.
        target_date: ``YYYY-MM-DD``.
        level: ``L1C`` or ``L2A``.
        origin: row and column of the window's upper left pixel in the scene.
        sar_series: ``(T_sar, 2, H, W)`` float32 dB of the radar dates that were asked for,
            sorted by date, VV then VH, NaN where nodata; None without radar.
        sar_days: ``(T_sar,)`` float32, days of the radar dates from the target.
        target_veil: ``(H, W)`` float32 reflectance, estimated excess of the shortest band over the
            ground, smooth, of every pixel: what haze adds where it is clear, what cloud adds where
            it is hidden; negative in shadow; NaN where no other date tells the ground. As all that
            follows it is None for models that do not ask for it (``Model.sees_veil``).
        context_veil: ``(T, H, W)`` float32, the same of the context.
        target_distance: ``(H, W)`` float32 pixels to the nearest cloud or shadow of the target,
            0 in it, at most :data:`unveil.excess.TRUSTED_PX`.
        context_distance: ``(T, H, W)`` float32, the same of the context, each to its own.
    """

    bands: tuple[str, ...]
    target: np.ndarray
    target_class: np.ndarray
    target_probability: np.ndarray
    context: np.ndarray
    context_class: np.ndarray
    days: np.ndarray
    sar: np.ndarray | None
    target_date: str
    level: str
    origin: tuple[int, int] = (0, 0)
    sar_series: np.ndarray | None = None
    sar_days: np.ndarray | None = None
    target_veil: np.ndarray | None = None
    context_veil: np.ndarray | None = None
    target_distance: np.ndarray | None = None
    context_distance: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return self.target_class.shape

    @property
    def target_clear(self) -> np.ndarray:
        """``(H, W)`` bool: target pixels with data, neither cloud nor shadow."""
        return is_clear(self.target_class) & np.isfinite(self.target).all(axis=0)

    @property
    def context_clear(self) -> np.ndarray:
        """``(T, H, W)`` bool: context pixels with data, neither cloud nor shadow."""
        return is_clear(self.context_class) & np.isfinite(self.context).all(axis=1)

    def crop(self, rows: slice, cols: slice) -> Inputs:
        """Return some rows and columns of the window, of all its dates, as views."""

        def part(image: np.ndarray | None) -> np.ndarray | None:
            return None if image is None else image[..., rows, cols]

        row, col = rows.indices(self.shape[0])[0], cols.indices(self.shape[1])[0]
        return replace(
            self,
            target=self.target[:, rows, cols],
            target_class=self.target_class[rows, cols],
            target_probability=self.target_probability[rows, cols],
            context=self.context[:, :, rows, cols],
            context_class=self.context_class[:, rows, cols],
            origin=(self.origin[0] + row, self.origin[1] + col),
            sar=part(self.sar),
            sar_series=part(self.sar_series),
            target_veil=part(self.target_veil),
            context_veil=part(self.context_veil),
            target_distance=part(self.target_distance),
            context_distance=part(self.context_distance),
        )


def is_clear(classes: np.ndarray) -> np.ndarray:
    """Return where a class raster shows the surface (clear or snow)."""
    return ~np.isin(classes, (*OCCLUDED_CLASSES, NODATA))


def is_occluded(classes: np.ndarray) -> np.ndarray:
    """Return where a class raster shows cloud or cloud shadow."""
    return np.isin(classes, OCCLUDED_CLASSES)


def cloud_cover(classes: np.ndarray) -> float:
    """Return the fraction of valid pixels under cloud or shadow; 0 without valid pixels."""
    valid = int(np.count_nonzero(classes != NODATA))
    return float(np.count_nonzero(is_occluded(classes))) / valid if valid else 0.0


def read_inputs(
    scene: Scene,
    *,
    bands: Sequence[str] | None = None,
    window: Window | None = None,
    radar: RadarDates = "target",
    veil: bool = False,
) -> Inputs:
    """Read one window of a scene for a model; the truth is out of reach here.

    Args:
        scene: a scene whose masks stage has run.
        bands: bands to read, default all bands of the target.
        window: pixels to read, default the whole scene.
        radar: radar dates to read into ``sar_series``.
        veil: whether to read the excess over the ground and the distances from cloud, too.

    Raises:
        InputError: if a file is missing or damaged, or lacks a wanted band.
    """
    wanted = tuple(bands or scene.bands)
    size = (int(window.height), int(window.width)) if window else scene.grid.shape
    target = read_reflectance(scene.target, wanted, window)
    classes, probability = read_mask(scene.target, window)
    context = [read_reflectance(frame, wanted, window) for frame in scene.context]
    masks = [read_mask(frame, window)[0] for frame in scene.context]
    day = scene.target.day
    frames = scene.radar_of(radar)
    series = (
        np.stack([read_bands(frame, SAR2, window).astype(np.float32) for frame in frames])
        if frames
        else None
    )
    inputs = Inputs(
        bands=wanted,
        target=target,
        target_class=classes,
        target_probability=probability,
        context=np.stack(context) if context else np.empty((0, len(wanted), *size), np.float32),
        context_class=np.stack(masks) if masks else np.empty((0, *size), np.uint8),
        days=np.array([(frame.day - day).days for frame in scene.context], np.float32),
        sar=None if series is None else series[frames.index(scene.radar)],
        target_date=scene.target.date,
        level=scene.level,
        origin=(int(window.row_off), int(window.col_off)) if window else (0, 0),
        sar_series=series,
        sar_days=np.array([(f.day - day).days for f in frames], np.float32) if frames else None,
    )
    return _with_veil(inputs, scene, window) if veil else inputs


def _with_veil(inputs: Inputs, scene: Scene, window: Window | None) -> Inputs:
    """Return inputs with the excess and the distances from cloud of all their frames."""
    here = window or Window(0, 0, scene.grid.width, scene.grid.height)
    frames = (scene.target, *scene.context)
    veils = np.stack([read_veil(frame, here) for frame in frames])
    distances = np.stack([read_distance(frame, here, scene.grid) for frame in frames])
    return replace(
        inputs,
        target_veil=veils[0],
        context_veil=veils[1:],
        target_distance=distances[0],
        context_distance=distances[1:],
    )


def read_bands(frame: Frame, bands: Sequence[str], window: Window | None = None) -> np.ndarray:
    """Read the named bands of a frame, ``(B, H, W)`` in the file's dtype.

    Raises:
        InputError: if the file is missing or damaged, or lacks one of them.
    """
    try:
        positions = band_positions(bands, frame.bands)
    except KeyError as error:
        raise InputError(
            str(error.args[0]),
            file=frame.path,
            field="bands",
            remedy="give all frames of a scene the bands of its target",
        ) from error
    with raster.open_raster(frame.path) as dataset:
        if dataset.count != len(frame.bands):
            raise InputError(
                f"{dataset.count} bands, its scene names {', '.join(frame.bands)}",
                file=frame.path,
                field="bands",
                remedy="the file is not as it was written; delete its scene's folder and run again",
            )
        return dataset.read([p + 1 for p in positions], window=window)


def read_reflectance(
    frame: Frame, bands: Sequence[str], window: Window | None = None
) -> np.ndarray:
    """Read the named bands as float32 reflectance, NaN where nodata, ``(B, H, W)``."""
    return raster.to_reflectance(read_bands(frame, bands, window))


def require_mask(frame: Frame) -> Path:
    """Return where the mask of a frame is; without one, nothing tells its clouds.

    Raises:
        InputError: if it has none.
    """
    if frame.mask is None:
        raise InputError(
            "has no mask, so nothing tells its clouds",
            file=frame.path,
            field=frame.role,
            remedy="run the masks stage first",
        )
    return frame.mask


def read_mask(frame: Frame, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read classes (uint8) and cloud probability (float32 0...1, NaN unknown), ``(H, W)``.

    Raises:
        InputError: if the frame has no mask, or a damaged one.
    """
    data = raster.read(require_mask(frame), window=window)
    if data.shape[0] == 1:
        return data[0], np.full(data.shape[1:], np.nan, np.float32)
    percent = data[1].astype(np.float32)
    return data[0], np.where(data[1] == UNKNOWN_PROBABILITY, np.nan, percent / 100)


def read_veil(frame: Frame, window: Window) -> np.ndarray:
    """Read the excess of a frame over the ground, ``(H, W)`` float32, NaN where it is unknown.

    Raises:
        InputError: if its raster is damaged.
    """
    if frame.veil is None:
        return np.full((int(window.height), int(window.width)), np.nan, np.float32)
    return excess_of_dn(raster.read(frame.veil, window=window)[0])


def read_distance(frame: Frame, window: Window, grid: Grid) -> np.ndarray:
    """Read the distance of pixels from a frame's cloud and shadow, ``(H, W)`` float32 pixels.

    It is 0 in these, and at most :data:`unveil.excess.TRUSTED_PX`: what lies outside of the window
    counts as far as that.

    Raises:
        InputError: if the frame has no mask, or a damaged one.
    """
    outer = grid.with_halo(window, TRUSTED_PX)
    hidden = is_occluded(read_mask(frame, outer)[0])
    return distance_from(hidden, reach=TRUSTED_PX)[raster.within(window, outer)]


def require_occlusion(scene: Scene) -> Frame:
    """Return the frame of the scored set.

    Raises:
        InputError: if the scene has none.
    """
    frames = scene.with_role("occlusion")
    if not frames:
        raise InputError(
            "has a truth, but nothing says which of its pixels are scored",
            file=scene.target.path,
            field=f"scene {scene.id}: occlusion",
            remedy="assemble the scene again (snakemake scenes --forcerun assemble_scene)",
        )
    return frames[0]


def read_occlusion(scene: Scene, window: Window | None = None) -> np.ndarray:
    """Read the scored set: what is hidden, and 255 where the truth is not known, ``(H, W)``.

    Raises:
        InputError: if the scene has none, or a damaged one.
    """
    return raster.read(require_occlusion(scene).path, window=window)[0]


def save_scene(scene: Scene, path: str | Path) -> None:
    """Write the scene as a STAC 1.1 ItemCollection with hrefs relative to ``path``."""
    path = Path(path)
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(document_of(scene, path.parent), indent=1) + "\n")


def document_of(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return the scene as a STAC 1.1 ItemCollection, its keys sorted.

    Args:
        scene: the scene.
        folder: where the file will be; hrefs are relative to it.
    """
    document = {
        "type": "FeatureCollection",
        "unveil": {
            "scene": scene.id,
            "protocol": scene.protocol,
            "place": scene.place,
            "grid": {
                "crs": scene.grid.crs,
                "transform": list(scene.grid.transform),
                "shape": list(scene.grid.shape),
            },
            "facts": scene.facts,
        },
        "features": [_frame_to_item(scene, frame, folder) for frame in scene.frames],
    }
    return json.loads(json.dumps(document, sort_keys=True))


def load_scene(path: str | Path) -> Scene:
    """Read a scene written by :func:`save_scene`.

    Raises:
        InputError: if the file is missing, no JSON, or not such a scene; a scene names files
            in its own folder only.
    """
    path = Path(path)
    remedy = "delete the file and run the workflow again"
    with reading_input(path, "a scene of this package", remedy=remedy):
        document = json.loads(path.read_text())
        head = document["unveil"]
        grid = Grid(head["grid"]["crs"], tuple(head["grid"]["transform"]), *head["grid"]["shape"])
        frames = tuple(_item_to_frame(item, path.parent) for item in document["features"])
        scene = Scene(head["scene"], head["protocol"], head["place"], grid, frames, head["facts"])
        _require_sound(scene)
    return scene


def _require_sound(scene: Scene) -> None:
    """Refuse what would become a file name or an array shape and is neither.

    Raises:
        ValueError: naming it.
    """
    if not IDENTIFIER.fullmatch(scene.id):
        raise ValueError(f"{scene.id!r} is no id")
    if not scene.place.isprintable() or scene.place in (".", "..") or "/" in scene.place:
        raise ValueError(f"{scene.place!r} is no name of a place")
    if scene.protocol not in PROTOCOLS:
        raise ValueError(f"protocol {scene.protocol!r}")
    grid = scene.grid
    if len(grid.transform) != 6 or not all(map(math.isfinite, grid.transform)):
        raise ValueError(f"transform {grid.transform}")
    if not all(isinstance(side, int) and side > 0 for side in grid.shape):
        raise ValueError(f"shape {grid.shape}")
    roles = [frame.role for frame in scene.frames]
    if roles.count("target") != 1 or not set(roles) <= set(ROLES):
        raise ValueError(f"roles {sorted(set(roles))}, one of them a target")
    if not isinstance(scene.facts, dict):
        raise ValueError("facts that are no mapping")


def _inside(folder: Path, href: str) -> Path:
    """Return a file of a scene's folder."""
    if Path(href).is_absolute() or ".." in Path(href).parts or "\0" in href:
        raise ValueError(f"{href!r} lies outside the scene's folder")
    return folder / href


def _frame_to_item(scene: Scene, frame: Frame, folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = {
        "href": _relative(frame.path, folder),
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "bands": [{"name": name} for name in frame.bands],
    }
    if frame.role in ("target", "context", "reference"):
        data |= {"raster:scale": 1 / REFLECTANCE_SCALE, "nodata": 0, "data_type": "uint16"}
    if frame.checksum:
        data["file:checksum"] = SHA256 + frame.checksum
    assets = {"data": data}
    if frame.mask:
        assets["mask"] = {
            "href": _relative(frame.mask, folder),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["cloud", "cloud-shadow"],
        }
        if frame.mask_checksum:
            assets["mask"]["file:checksum"] = SHA256 + frame.mask_checksum
    if frame.veil:
        assets["veil"] = {
            "href": _relative(frame.veil, folder),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["veil"],
            "raster:scale": 1 / REFLECTANCE_SCALE,
            "raster:offset": EXCESS_OFFSET,
            "nodata": 0,
            "data_type": "uint16",
        }
        if frame.veil_checksum:
            assets["veil"]["file:checksum"] = SHA256 + frame.veil_checksum
    box = bbox(scene.grid)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
            "https://stac-extensions.github.io/file/v2.1.0/schema.json",
            "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
        ],
        "id": f"{scene.id}_{frame.role}_{frame.date}",
        "geometry": polygon(box) if box else None,
        "properties": {
            "datetime": f"{frame.date}T00:00:00Z",
            "proj:code": scene.grid.crs or None,
            "proj:shape": list(scene.grid.shape),
            "proj:transform": list(scene.grid.transform),
            "unveil:role": frame.role,
            **frame.facts,
        },
        "links": [],
        "assets": assets,
    }
    if box:
        item["bbox"] = box
    return item


def _item_to_frame(item: dict[str, Any], folder: Path) -> Frame:
    properties = dict(item["properties"])
    for key in ("proj:code", "proj:shape", "proj:transform"):
        properties.pop(key, None)
    data = item["assets"]["data"]
    mask, veil = (item["assets"].get(name) for name in ("mask", "veil"))
    return Frame(
        date=dt.date.fromisoformat(properties.pop("datetime")[:10]).isoformat(),
        role=properties.pop("unveil:role"),
        path=_inside(folder, data["href"]),
        bands=tuple(band["name"] for band in data["bands"]),
        mask=_inside(folder, mask["href"]) if mask else None,
        facts=properties,
        checksum=data.get("file:checksum", "").removeprefix(SHA256),
        mask_checksum=(mask or {}).get("file:checksum", "").removeprefix(SHA256),
        veil=_inside(folder, veil["href"]) if veil else None,
        veil_checksum=(veil or {}).get("file:checksum", "").removeprefix(SHA256),
    )


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def bbox(grid: Grid) -> list[float] | None:
    """Return west, south, east, north of a grid in degrees; None without a CRS."""
    if not grid.crs:
        return None
    bounds = array_bounds(grid.height, grid.width, grid.affine)
    return [round(value, 7) for value in transform_bounds(grid.crs, "EPSG:4326", *bounds)]


def polygon(box: list[float]) -> dict[str, Any]:
    """Return west, south, east, north as a GeoJSON polygon."""
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
