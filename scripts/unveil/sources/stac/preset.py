"""Presets: what is known of one collection of one catalogue.

They ship in ``resources/stac_presets.yaml``; a user's file adds some, or changes keys of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cache
from pathlib import Path
from typing import Any

from unveil.config import check
from unveil.errors import InputError
from unveil.guarded import read_yaml
from unveil.sources.radiometry import Harmonisation

PRESETS = Path(__file__).resolve().parents[4] / "resources" / "stac_presets.yaml"
MASK = "SCL"


@dataclass(frozen=True)
class Preset:
    """One collection of one catalogue; the keys are described in ``stac_presets.schema.yaml``."""

    id: str
    title: str
    api: str
    collections: tuple[str, ...]
    kind: str
    assets: Mapping[str, Sequence[str]]
    licence: str
    attribution: str
    level: str = ""
    masks_from: str = ""
    offset: Harmonisation = dataclass_field(default_factory=Harmonisation)
    pixels: str = ""
    calibration: str = ""
    sign: Mapping[str, Any] = dataclass_field(default_factory=dict)


def load_presets(own: str = "") -> dict[str, Preset]:
    """Read the presets, with those of the user on top.

    Args:
        own: path of a YAML file that adds presets or changes keys of them; empty for none.

    Raises:
        InputError: for an unknown key or a bad value.
    """
    return dict(_load_presets(own))


@cache
def _load_presets(own: str) -> dict[str, Preset]:
    known = read_yaml(PRESETS)
    for name, changes in (read_yaml(own) if own else {}).items():
        known[name] = _overlay(known.get(name, {}), changes or {})
    check(known, "stac_presets", file=own or PRESETS)
    presets = {}
    for name, row in known.items():
        facts = {**row, "collections": tuple(row["collections"])}
        facts["offset"] = Harmonisation(**row.get("offset", {}))
        presets[name] = Preset(name, **facts)
    return presets


def _overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if nested else value
    return merged


def get_preset(name: str, own: str, *, kind: str, field: str = "preset") -> Preset:
    """Return a preset of a kind, ``optical`` or ``radar``; ``field`` asked for it.

    Raises:
        InputError: if there is none of that name or kind.
    """
    fitting = {key: p for key, p in load_presets(own).items() if p.kind == kind}
    if name not in fitting:
        raise InputError(
            f"{name!r} is no {kind} preset",
            file=own or PRESETS,
            field=field,
            remedy=f"use one of {', '.join(fitting)}",
        )
    return fitting[name]
