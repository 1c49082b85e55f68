"""What a scene asks of a catalogue, and the lock that answers it.

Light enough to be read whenever the workflow starts; nothing here needs a network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.bands import sort_bands
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.guarded import NO_JSON
from unveil.sources.area import area_box, box_pixels
from unveil.sources.pairs import asks_for_pairs, wish_of
from unveil.sources.stac.preset import MASK, get_preset

LOCK_VERSION = 1


def make_request(row: SceneRow, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scene asks of a search, as plain values; a lock is good for one request.

    Args:
        row: row of the scene table.
        settings: section ``sources.stac`` of the config, and ``selection`` beside it.

    Raises:
        InputError: if the place or a preset makes no sense.
    """
    optical = get_preset(row.path, settings["presets"], kind="optical", field="path")
    if settings["radar"]:
        get_preset(settings["radar"], settings["presets"], kind="radar", field="sources.stac.radar")
    known = [band for band in optical.assets if band != MASK]
    unknown = [band for band in settings["bands"] if band not in known]
    if unknown:
        raise InputError(
            f"{optical.id} has no {', '.join(unknown)}",
            field="sources.stac.bands",
            remedy=f"use some of {', '.join(known)}",
        )
    return {
        "area": row.area,
        "box": list(area_box(row.area)),
        "optical": optical.id,
        "target_date": "" if row.product else row.target_date,
        "protocol": row.protocol,
        "reference_date": "" if row.reference_date == "auto" else row.reference_date,
        "cloud_date": row.cloud_date,
        "cloud_level": row.cloud_level,
        "n_context": row.n_context,
        **{key: settings[key] for key in ("radar", "resolution_m", "days", "leave_out")},
        "selection": settings["selection"],
        "bands": list(sort_bands(settings["bands"] or known)),
        **_pairs_asked(row),
        **({"dates": [row.start, row.end]} if row.product else {}),
    }


def _pairs_asked(row: SceneRow) -> dict[str, Any]:
    """Return what a row asks of pairs that are to be chosen; nothing where it names its target."""
    if not asks_for_pairs(row):
        return {}
    return {"pairs": asdict(wish_of(row)), "pair": max(row.pair, 1)}


def stac_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of source ``stac``: its section of the config and what it shares."""
    return config["sources"]["stac"] | {
        "cache": config["cache"],
        "selection": config["sources"]["selection"],
    }


def ranges_folder(settings: Mapping[str, Any]) -> Path:
    """Return where bytes of files on servers are kept."""
    return Path(settings["cache"]) / "ranges"


def request_pixels(request: Mapping[str, Any]) -> int:
    """Return about how many pixels the grid of a request has; it is not searched for that."""
    return box_pixels(request["box"], request["resolution_m"])


def request_bytes(request: Mapping[str, Any]) -> int:
    """Return about how many bytes of pixels a request asks for."""
    return request_pixels(request) * (request["n_context"] + 2) * len(request["bands"]) * 2


def lock_of(row: SceneRow, settings: Mapping[str, Any]) -> Path:
    """Return where the lock of a row is kept; the dates of one product share theirs."""
    return lock_path(row.product or row.scene, settings)


def locked_dates(row: SceneRow, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the dates that the lock of a product lists; None before there is one.

    Raises:
        InputError: if the lock is damaged or of another request.
    """
    path = lock_of(row, settings)
    if not path.exists():
        return None
    return tuple(sorted(read_lock(path, make_request(row, settings))["cover"]))


def lock_path(scene: str, settings: Mapping[str, Any]) -> Path:
    """Return where the lock of a scene is kept."""
    return Path(settings["locks"]) / f"{scene}.json"


def write_lock(path: Path, lock: Mapping[str, Any]) -> None:
    """Write a lock, sorted, so that two searches can be compared line by line."""
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_lock(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read the lock of a request.

    Raises:
        InputError: if there is none, it is damaged, or was made for another request.
    """
    again = "search again: snakemake --forcerun search_scene -- search"
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        version, asked = lock["unveil_lock"], lock["request"]
    except FileNotFoundError as error:
        raise InputError("there is no lock", file=path, remedy="snakemake search") from error
    except (KeyError, TypeError, *NO_JSON) as error:
        raise InputError(f"not a lock ({error!r})", file=path, remedy=again) from error
    request = json.loads(json.dumps(request))
    other = sorted(key for key in {*request, *asked} if request.get(key) != asked.get(key))
    if version != LOCK_VERSION or other:
        raise InputError(
            f"the lock was made for another {', '.join(other) or 'version'}",
            file=path,
            field=other[0] if other else "unveil_lock",
            remedy=f"{again}; or restore what was changed",
        )
    return lock
