"""Official splits of benchmark datasets (``resources/splits.yaml``), and names of patches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from unveil.config import SceneRow
from unveil.errors import InputError

SPLITS = Path(__file__).resolve().parents[3] / "resources" / "splits.yaml"


@cache
def _splits() -> dict[str, Any]:
    return yaml.safe_load(SPLITS.read_text(encoding="utf-8"))


def split_places(dataset: str, split: str, *, file: str) -> dict[str, list[int]]:
    """Return the places of a split, group (``ROIs1868`` ...) to numbers, sorted.

    Args:
        dataset: ``sen12mscr`` or ``sen12mscrts``.
        split: ``train``, ``val``, ``test`` or ``all``; for SEN12MS-CR-TS also of one region,
            ``test/africa``.
        file: named in errors.

    Raises:
        InputError: for another split.
    """
    name, _, region = split.partition("/")
    parts = _splits()[dataset]
    regions: list[dict[str, Any]] = [parts] if "train" in parts else list(parts.values())
    if region:
        regions = [parts[region]] if region in parts and "train" not in parts else []
    if not regions or name not in ("train", "val", "test", "all"):
        more = (
            "" if "train" in parts else f", alone or of a region ({', '.join(parts)}: test/africa)"
        )
        raise InputError(
            f"{split!r} is no split of {dataset}",
            file=file,
            field="split",
            remedy=f"use train, val, test or all{more}",
        )
    found: dict[str, list[int]] = {}
    for part in regions:
        for key in ("train", "val", "test") if name == "all" else (name,):
            for group, places in part[key].items():
                found.setdefault(group, []).extend(places)
    return {group: sorted(places) for group, places in sorted(found.items())}


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` items at even distances, all of them for 0 or fewer items than that."""
    if count <= 0 or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def match_patch(row: SceneRow, pattern: re.Pattern[str], *, like: str) -> re.Match[str]:
    """Return what the name of a patch is made of.

    Args:
        row: row of the scene table; its ``name``, or the scene's id, names the patch.
        pattern: of the dataset's names.
        like: an example of one.

    Raises:
        InputError: if the name is not of that form.
    """
    name = row.name or row.scene
    match = pattern.match(name)
    if not match:
        raise InputError(
            f"{name!r} names no patch",
            file=row.path,
            field=f"scene {row.scene}: name",
            remedy=f"write it like {like}",
        )
    return match
