"""Sources of imagery: one file a source, one function to open any of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.base import SourceSeries
from unveil.sources.local import open_local
from unveil.sources.npz import open_npz
from unveil.sources.sen12mscr import open_sen12mscr, patch_paths

_OPENERS = {"local": open_local, "npz": open_npz, "sen12mscr": open_sen12mscr}


def settle(row: SceneRow, settings: dict[str, Any]) -> SceneRow:
    """Return a row with the dates that a search chose; others are settled already."""
    if row.source != "stac":
        return row
    from unveil.sources.stac import settled

    return settled(row, settings["stac"])


def open_source(row: SceneRow, settings: dict[str, Any]) -> SourceSeries:
    """Open the input of one scene.

    Args:
        row: row of the scene table.
        settings: section ``sources`` of the config.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    if row.source == "stac":
        from unveil.sources.stac import open_stac  # its libraries take a second to load

        return open_stac(row, settings["stac"])
    return _OPENERS[row.source](row, settings)


@cache
def _files_below(folder: str) -> tuple[str, ...]:
    root = Path(folder)
    files = [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return tuple(str(path) for path in sorted(files))


def require_folder(row: SceneRow) -> Path:
    """Return the folder of a scene's input.

    Raises:
        InputError: if it does not exist.
    """
    folder = Path(row.path)
    if not folder.is_dir():
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
    folder = require_folder(row)
    if row.source == "local":
        return list(_files_below(row.path))
    if row.source == "npz":
        name = row.name or row.scene
        paths = (folder / part / f"{name}.npz" for part in ("cloudy", "s1", "reference"))
        return [str(path) for path in paths if path.exists()]
    return [str(path) for path in patch_paths(row).values() if path.exists()]
