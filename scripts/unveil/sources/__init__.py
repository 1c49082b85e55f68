"""Sources of imagery: one file a source, one function to open any of them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources import allclear, sen12mscr, sen12mscrts
from unveil.sources.base import SourceSeries
from unveil.sources.local import open_local
from unveil.sources.npz import open_npz
from unveil.sources.safe import open_safe


def _open_stac(row: SceneRow, settings: dict[str, Any]) -> SourceSeries:
    from unveil.sources.stac.read import open_stac  # its libraries take seconds to load

    return open_stac(row, settings["stac"])


_OPENERS = {
    "local": open_local,
    "npz": open_npz,
    "safe": open_safe,
    "stac": _open_stac,
    "sen12mscr": sen12mscr.open_sen12mscr,
    "sen12mscrts": sen12mscrts.open_sen12mscrts,
    "allclear": allclear.open_allclear,
}
PATCH_SOURCES = {"sen12mscr": sen12mscr, "sen12mscrts": sen12mscrts, "allclear": allclear}
"""Benchmark datasets: thousands of small patches in official splits, a shard a job."""


def open_source(row: SceneRow, settings: dict[str, Any]) -> SourceSeries:
    """Open the input of one scene.

    Args:
        row: row of the scene table.
        settings: section ``sources`` of the config.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    return _OPENERS[row.source](row, settings)


@cache
def _files_below(folder: str) -> tuple[str, ...]:
    if os.path.isfile(folder):
        return (folder,)
    paths = (
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    return tuple(sorted(path for path in paths if os.path.isfile(path)))


def require_folder(row: SceneRow) -> Path:
    """Return the folder of a scene's input.

    Raises:
        InputError: if it does not exist.
    """
    folder = Path(row.path)
    archive = row.source == "safe" and folder.suffix.lower() == ".zip" and folder.is_file()
    if not folder.is_dir() and not archive:
        raise InputError(
            "folder not found",
            file=row.path,
            field=f"scene {row.scene}: path",
            remedy="give the path relative to the working directory",
        )
    return folder


def input_files(row: SceneRow) -> list[str]:
    """List the local files that a scene is made of, for the workflow to watch.

    Raises:
        InputError: if the folder does not exist.
    """
    if row.source == "stac":
        return []  # its lock, which a rule writes
    folder = require_folder(row)
    if row.source == "local":
        return list(_files_below(row.path))
    if row.source == "safe":
        kept = (".jp2", ".tif", ".tiff", ".xml", ".zip")
        return [path for path in _files_below(row.path) if path.lower().endswith(kept)]
    if row.source == "allclear":
        return allclear.sample_files(row)
    if row.source == "sen12mscrts":
        return [str(path) for paths in sen12mscrts.patch_files(row).values() for path in paths]
    if row.source == "npz":
        name = row.name or row.scene
        paths = (folder / part / f"{name}.npz" for part in ("cloudy", "s1", "reference"))
        return [str(path) for path in paths if path.exists()]
    return [str(path) for path in sen12mscr.patch_paths(row).values() if path.exists()]


@cache
def input_stamps(row: SceneRow) -> tuple[tuple[str, int, int], ...]:
    """Return path, bytes and time of change (ns) of every file that a scene is made of.

    Raises:
        InputError: if the folder does not exist.
    """
    facts = ((path, os.stat(path)) for path in input_files(row))
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in facts)
