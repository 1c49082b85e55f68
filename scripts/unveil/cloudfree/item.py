"""STAC: the Item of a cloud-free date, and the Collection of a product."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.transform import array_bounds

from unveil import raster
from unveil.bands import BANDS, REFLECTANCE_SCALE
from unveil.cloudfree import provenance
from unveil.cloudfree.images import Written
from unveil.cloudfree.quality import Quality
from unveil.machine import versions
from unveil.scene import NO_ACQUISITION, SHA256, Frame, Scene, bbox, polygon

STAC_VERSION = "1.1.0"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
SENSED = ("unveil:sensing_time", "unveil:time")
EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "projection/v2.0.0",
        "raster/v2.0.0",
        "eo/v2.0.0",
        "file/v2.1.0",
        "processing/v1.2.0",
        "classification/v2.0.0",
    )
]
LICENCE = "other"
"""STAC's word for a licence that is no SPDX identifier; the item says which."""


@dataclass(frozen=True)
class Answer:
    """What made an image.

    Attributes:
        model: id of the model.
        title: its printed name.
        kind: its implementation.
        record: the record of its prediction.
        passed_over: model -> why it did not answer, of those that were asked before.
    """

    model: str
    title: str
    kind: str
    record: Mapping[str, Any]
    passed_over: Mapping[str, str]


def item_of(
    scene: Scene,
    written: Written,
    answer: Answer,
    quality: Quality,
    *,
    product: str,
    folder: Path,
    now: dt.datetime,
) -> dict[str, Any]:
    """Return the Item of a date.

    Args:
        scene: the scene, ready for models.
        written: its rasters.
        answer: what made them.
        quality: what is known of their error.
        product: id of the row of the scene table.
        folder: of the date; hrefs are relative to it.
        now: time of processing.
    """
    date, box = scene.target.date, bbox(scene.grid)
    properties = {
        **_times(scene.target),
        "title": f"{product}, {date}, cloud-free",
        "license": LICENCE,
        "gsd": abs(scene.grid.transform[0]),
        "constellation": "sentinel-2",
        **_projection(scene),
        **_cover(scene.target),
        "processing:software": {"unveil": versions().get("unveil", "unknown")},
        "processing:lineage": _lineage(scene, answer),
        "processing:datetime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "mlm:model": {
            "name": answer.model,
            "title": answer.title,
            "kind": answer.kind,
            "backend": answer.record.get("backend", ""),
            "precision": answer.record.get("precision", ""),
        },
        "unveil:place": scene.place,
        "unveil:shares": written.shares,
        "unveil:quality": quality.facts,
        "unveil:passed_over": dict(answer.passed_over),
        "unveil:notes": list(answer.record.get("notes", [])),
        **{
            f"unveil:{key}": scene.facts[key]
            for key in ("licence", "attribution")
            if key in scene.facts
        },
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": EXTENSIONS,
        "id": f"{product}-{date}",
        "collection": product,
        "geometry": polygon(box) if box else None,
        **({"bbox": box} if box else {}),
        "properties": properties,
        "links": [
            {"rel": rel, "href": "../collection.json", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ]
        + [
            _derived_from(frame, folder)
            for frame in (scene.target, *scene.context)
            if NO_ACQUISITION not in frame.facts
        ],
        "assets": _assets(written, folder),
        "unveil": {"shares": written.shares, "spread": written.spread},
    }


def _times(target: Frame) -> dict[str, Any]:
    """Return when the target was acquired; its day where nothing tells the time."""
    sensed = next((target.facts[key] for key in SENSED if key in target.facts), "")
    if sensed:
        time = dt.datetime.fromisoformat(sensed).astimezone(dt.UTC)
        return {"datetime": time.isoformat().replace("+00:00", "Z")}
    return {
        "datetime": None,
        "start_datetime": f"{target.date}T00:00:00Z",
        "end_datetime": f"{target.date}T23:59:59Z",
    }


def _projection(scene: Scene) -> dict[str, Any]:
    grid = scene.grid
    return {
        "proj:code": grid.crs if grid.crs.upper().startswith("EPSG:") else None,
        **({} if grid.crs.upper().startswith("EPSG:") else {"proj:wkt2": grid.crs or None}),
        "proj:shape": list(grid.shape),
        "proj:transform": [*grid.transform, 0, 0, 1],
        "proj:bbox": list(array_bounds(grid.height, grid.width, grid.affine)),
    }


def _cover(target: Frame) -> dict[str, Any]:
    """Return the cloud of the acquisition; a date without one has none to tell."""
    if NO_ACQUISITION in target.facts:
        return {NO_ACQUISITION: target.facts[NO_ACQUISITION]}
    return {key: target.facts[key] for key in ("eo:cloud_cover",) if key in target.facts}


def _lineage(scene: Scene, answer: Answer) -> str:
    looks = ", ".join(frame.date for frame in scene.context) or "none"
    seen = (
        "" if NO_ACQUISITION in scene.target.facts else f"the acquisition of {scene.target.date}, "
    )
    return (
        f"Clouds removed by {answer.title} ({answer.kind}) from {seen}and other looks: {looks}; "
        "masked, coregistered and put on one grid by Unveil."
    )


def _derived_from(frame: Frame, folder: Path) -> dict[str, str]:
    source = str(frame.facts.get("unveil:source", frame.path.name))
    return {
        "rel": "derived_from",
        "href": Path(os.path.relpath(frame.path, folder)).as_posix(),
        "type": COG,
        "title": f"{frame.role} of {frame.date}: {source}",
    }


def _assets(written: Written, folder: Path) -> dict[str, Any]:
    bands = [_band(name, found) for name, found in written.statistics.items()]
    known = {
        "bands": {"title": "Cloud-free surface", "roles": ["data", "reflectance"], "bands": bands},
        "std": {
            "title": "Standard deviation of the reflectance",
            "roles": ["uncertainty"],
            "bands": [{k: v for k, v in band.items() if k != "statistics"} for band in bands],
        },
        "provenance": {
            "title": "Seen on this date, filled from others, or never seen",
            "roles": ["metadata", "quality"],
            "bands": _provenance_bands(),
        },
    }
    assets = {}
    for name, path in written.files.items():
        about = known.get(name, {"title": "Preview", "roles": ["overview", "thumbnail"]})
        data = {} if name not in known else _raster_facts(name)
        assets[name] = {
            "href": f"./{path.relative_to(folder).as_posix()}",
            "type": COG if path.suffix == ".tif" else "image/png",
            **about,
            **data,
            "file:checksum": SHA256 + raster.sha256(path),
            "file:size": path.stat().st_size,
        }
    return assets


def _raster_facts(name: str) -> dict[str, Any]:
    if name == "provenance":
        return {"data_type": "int16", "nodata": provenance.NODATA}
    scale = {"raster:scale": 1 / REFLECTANCE_SCALE, "raster:offset": 0.0}
    return {"data_type": "uint16", "nodata": 0, "unit": "1", **scale}


def _band(name: str, statistics: Mapping[str, float]) -> dict[str, Any]:
    """Describe a band; those that are none of Sentinel-2's have a name alone."""
    band: dict[str, Any] = {"name": name}
    if name in BANDS:
        band["eo:common_name"] = BANDS[name].common_name
        band["eo:center_wavelength"] = round(BANDS[name].wavelength_nm / 1000, 4)
    if statistics:
        band["statistics"] = dict(statistics)
    return band


def _provenance_bands() -> list[dict[str, Any]]:
    classes = [
        {"value": code, "name": name, "description": meaning}
        for code, (name, meaning) in provenance.CLASSES.items()
    ]
    about = (
        "where the pixel comes from",
        "days to the nearest clear look",
        "number of clear looks",
    )
    return [
        {
            "name": name,
            "description": text,
            **({"classification:classes": classes} if not n else {}),
        }
        for n, (name, text) in enumerate(zip(provenance.BANDS, about, strict=True))
    ]


def collection_of(
    product: str,
    items: Sequence[Mapping[str, Any]],
    *,
    place: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the Collection of a product.

    Args:
        product: id of the row of the scene table.
        items: the Items of its dates that have an image, sorted by date.
        place: id of the place.
        facts: what else is said below ``unveil``: dates without an image, how models were chosen.
    """
    boxes = [item["bbox"] for item in items if "bbox" in item] or [[-180.0, -90.0, 180.0, 90.0]]
    corners = [min(b[0] for b in boxes), min(b[1] for b in boxes)]
    corners += [max(b[2] for b in boxes), max(b[3] for b in boxes)]
    times = sorted(_time_of(item) for item in items)
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": product,
        "title": f"Cloud-free images of {place}",
        "description": f"One cloud-free Sentinel-2 image of {place} per date, made by Unveil.",
        "license": LICENCE,
        "keywords": ["Sentinel-2", "cloud removal", "cloud-free"],
        "extent": {
            "spatial": {"bbox": [corners]},
            "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
        },
        "summaries": {"constellation": ["sentinel-2"]},
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            {"rel": "alternate", "href": "./index.html", "type": "text/html", "title": "Page"},
        ]
        + [
            {
                "rel": "item",
                "href": f"./{date_of(item)}/{date_of(item)}.json",
                "type": "application/geo+json",
                "title": date_of(item),
            }
            for item in items
        ],
        "unveil": dict(facts),
    }


def date_of(item: Mapping[str, Any]) -> str:
    """Return the date of an Item, ``YYYY-MM-DD``."""
    return _time_of(item)[:10]


def _time_of(item: Mapping[str, Any]) -> str:
    properties = item["properties"]
    return str(properties["datetime"] or properties["start_datetime"])
