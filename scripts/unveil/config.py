"""Reading and checking config, scene table and model table; errors that say what to do.

Schemas live in ``config/schemas``; every key is described there, and defaults are
filled in from there, so that a user's file may hold only what differs.
"""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from unveil.errors import InputError
from unveil.inputs import reading_input

SCHEMAS = Path(__file__).resolve().parents[2] / "config" / "schemas"
DEFAULT_CONTEXT = 12
SERIES_SOURCES = ("safe", "sen12mscrts", "allclear")
"""Sources of real clouds whose target and truth can be chosen among their dates."""
SPLIT_SOURCES = ("sen12mscr", "sen12mscrts", "allclear")
DEPTH_LIMIT, VALUES_LIMIT = 32, 1_000_000
"""Deepest nesting and most values of a file of settings."""


@dataclass(frozen=True)
class SceneRow:
    """One row of the scene table; the columns are described in ``scenes.schema.yaml``."""

    scene: str
    source: str
    path: str
    target_date: str
    protocol: str
    place: str = ""
    name: str = ""
    reference_date: str = ""
    cloud_date: str = ""
    cloud_level: float | None = None
    n_context: int = DEFAULT_CONTEXT
    n_targets: int = 1
    cloud_levels: str = ""
    area: str = ""
    split: str = ""
    n_patches: int = 0


def load_schema(name: str) -> dict[str, Any]:
    """Return the schema ``config/schemas/NAME.schema.yaml``."""
    return _load_schema(name)


@cache
def _load_schema(name: str) -> dict[str, Any]:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_load_schema(name))


def check(instance: Any, schema: str, *, file: str | Path, where: str = "") -> None:
    """Validate ``instance`` against a schema.

    Raises:
        InputError: naming the file, the key, the value, and the allowed or nearest name.
    """
    _refuse_endless(instance, file)
    error = jsonschema.exceptions.best_match(_validator(schema).iter_errors(instance))
    if error is None:
        return
    key = ".".join(str(part) for part in (where, *error.absolute_path) if part != "")
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in known]
        raise InputError(
            f"unknown key {unknown[0]!r}",
            file=file,
            field=".".join(filter(None, [key, str(unknown[0])])),
            remedy=_nearest(str(unknown[0]), known),
        )
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        raise InputError(
            f"{missing[0]!r} is missing",
            file=file,
            field=".".join(filter(None, [key, missing[0]])),
            remedy="add it",
        )
    raise InputError(
        error.message,
        file=file,
        field=key or "(top level)",
        remedy=error.schema.get("description", "see config/README.md").strip().rstrip("."),
    )


def _refuse_endless(instance: Any, file: str | Path) -> None:
    """Refuse aliases of YAML that hold themselves, or multiply a few lines to millions."""
    stack, seen = [(instance, 0)], 0
    while stack:
        value, depth = stack.pop()
        seen += 1
        if depth > DEPTH_LIMIT or seen > VALUES_LIMIT:
            raise InputError(
                "nested too deeply, or with too many values",
                file=file,
                remedy="write it without aliases (&name, *name)",
            )
        if isinstance(value, dict):
            _refuse_untextual(value, file)
        if isinstance(value, dict | list):
            items = value.values() if isinstance(value, dict) else value
            stack.extend((item, depth + 1) for item in items)


def _refuse_untextual(mapping: dict[Any, Any], file: str | Path) -> None:
    """Refuse names that YAML reads as something else: ``001`` is the number 1, ``on`` is true."""
    for name in mapping:
        if not isinstance(name, str):
            raise InputError(
                f"YAML reads a name here as {type(name).__name__} {name!r}, not as text",
                file=file,
                field=str(name),
                remedy='put the name in quotes, as in "001":',
            )


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}"
    return f"remove it, or use one of {', '.join(known)}"


def fill_defaults(instance: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``instance`` with the schema's defaults for the keys it does not have."""
    filled = dict(instance)
    for key, rule in schema.get("properties", {}).items():
        if key not in filled and "default" in rule:
            filled[key] = rule["default"]
        if rule.get("type") == "object" and isinstance(filled.get(key), dict):
            filled[key] = fill_defaults(filled[key], rule)
    return filled


def load_config(config: dict[str, Any], *, file: str | Path = "config/config.yaml") -> dict:
    """Check the configuration and fill in defaults.

    Args:
        config: what Snakemake merged from the config files and ``--config``.
        file: the name that errors give it.

    Raises:
        InputError: for an unknown key (with the nearest valid name) or a bad value.
    """
    check(config, "config", file=file)
    whole = fill_defaults(config, load_schema("config"))
    for section, key in (("selection", "target_cloud"), ("sen12mscrts", "input_cloud")):
        low, high = whole["sources"][section][key]
        if low > high:
            raise InputError(
                f"{low} to {high} is no range",
                file=file,
                field=f"sources.{section}.{key}",
                remedy="write the smaller number first",
            )
    return whole


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: if the file is missing, no YAML, or no mapping.
    """
    path = Path(path)
    with reading_input(path, "YAML", remedy="correct it"):
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    if not isinstance(data, dict):
        raise InputError(
            f"holds {type(data).__name__} instead of a mapping",
            file=path,
            remedy="write it as 'key: value' lines",
        )
    return data


def read_models(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read and check the model table, id -> row.

    Raises:
        InputError: for a bad id, an unknown key, or a missing kind.
    """
    models = read_yaml(path)
    for model, row in models.items():
        if isinstance(row, dict):
            check({model: row}, "models", file=path)
    check(models, "models", file=path)
    return models


def read_training(path: str | Path) -> dict[str, Any]:
    """Read and check the description of training runs.

    Raises:
        InputError: for an unknown key or a bad value, or a run without its images.
    """
    training = read_yaml(path)
    check(training, "training", file=path)
    for name in training["run"]:
        if name not in training["runs"]:
            raise InputError(
                f"{name!r} is not among 'runs'",
                file=path,
                field="run",
                remedy=_nearest(name, list(training["runs"])),
            )
    for name, run in training["runs"].items():
        known = {"images": training["images"] | training["series"]}
        for field in ("images", "series", "held_out"):
            group = known.get(field, training["series"])
            for item in run.get(field, []):
                if item not in group:
                    raise InputError(
                        f"{item!r} is not among "
                        + ("'images' and 'series'" if field in known else "'series'"),
                        file=path,
                        field=f"runs.{name}.{field}",
                        remedy=_nearest(item, list(group)),
                    )
    return training


def select_models(
    models: dict[str, dict[str, Any]], wanted: list[str], *, file: str | Path
) -> dict[str, dict[str, Any]]:
    """Return the wanted rows in order.

    Raises:
        InputError: if an id is not in the table, with the nearest one that is.
    """
    for model in wanted:
        if model not in models:
            raise InputError(
                f"model {model!r} is not in the table",
                file=file,
                field="run_models",
                remedy=_nearest(model, list(models)),
            )
    return {model: models[model] for model in wanted}


def read_scenes(path: str | Path) -> list[SceneRow]:
    """Read and check the scene table.

    Accepts what spreadsheet programs write: a byte order mark, CRLF, quoted cells,
    trailing empty columns and lines.

    Raises:
        InputError: naming the line and the column.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            "file not found", file=path, field="scenes", remedy="set 'scenes' in the config"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start})",
            file=path,
            remedy="save the table as tab-separated text in UTF-8",
        ) from error
    with reading_input(path, "a table", remedy="save it as tab-separated text"):
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    rows = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(records, 1)
        if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
    ]
    if not rows:
        raise InputError(
            "the table is empty", file=path, remedy="add a header line and a row a scene"
        )
    header = _header(rows[0][1], path)
    if len(rows) == 1:
        raise InputError("the table has no scenes", file=path, remedy="add a row a scene")
    scenes = [_row(cells, header, file=path, line=number) for number, cells in rows[1:]]
    _refuse_duplicates(scenes, path)
    return scenes


def _header(cells: list[str], path: Path) -> list[str]:
    header = [cell for cell in cells if cell]
    if len(header) == 1 and any(mark in header[0] for mark in ",;"):
        raise InputError(
            "columns are separated by commas or semicolons",
            file=path,
            field="header",
            remedy="save the table as tab-separated text",
        )
    known = list(load_schema("scenes")["properties"])
    for name in header:
        if name not in known:
            raise InputError(
                f"unknown column {name!r}", file=path, field=name, remedy=_nearest(name, known)
            )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError("column given twice", file=path, field=twice, remedy="keep one")
    missing = [n for n in load_schema("scenes")["required"] if n not in header]
    if missing:
        raise InputError(
            f"column {missing[0]!r} is missing",
            file=path,
            field=missing[0],
            remedy=f"the header needs {', '.join(load_schema('scenes')['required'])}",
        )
    return header


def _row(cells: list[str], header: list[str], *, file: Path, line: int) -> SceneRow:
    if any(cells[len(header) :]):
        raise InputError(
            f"line {line} has {len(cells)} cells, the header has {len(header)}",
            file=file,
            field=f"line {line}",
            remedy="give every row the columns of the header",
        )
    rules = load_schema("scenes")["properties"]
    record: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        if cell:
            record[name] = _number(cell, rules[name].get("type"))
    check(record, "scenes", file=file, where=f"line {line}")
    row = SceneRow(**record)
    _check_row(row, file=file, line=line)
    return row


def _number(cell: str, kind: str | None) -> Any:
    convert = {"integer": int, "number": float}.get(kind or "")
    if convert is None:
        return cell
    try:
        return convert(cell)
    except ValueError:
        return cell  # the schema check reports it with its line and column


def _check_row(row: SceneRow, *, file: Path, line: int) -> None:
    for name in ("target_date", "reference_date", "cloud_date"):
        value = getattr(row, name)
        if value and value != "auto":
            try:
                dt.date.fromisoformat(value)
            except ValueError as error:
                raise InputError(
                    f"{value!r} is no date",
                    file=file,
                    field=f"line {line}.{name}",
                    remedy="write YYYY-MM-DD",
                ) from error
    if row.cloud_level is not None and not math.isfinite(row.cloud_level):
        raise InputError(
            f"{row.cloud_level} is no fraction",
            file=file,
            field=f"line {line}.cloud_level",
            remedy="give a number between 0 and 1",
        )
    planned = (row.protocol, row.source) == ("transplant", "local")
    chosen = row.protocol in ("paired", "none") and row.source in SERIES_SOURCES
    if row.target_date == "auto" and not (planned or chosen):
        raise InputError(
            f"'auto' with source {row.source} and protocol {row.protocol}",
            file=file,
            field=f"line {line}.target_date",
            remedy="give a date; auto is for source local with protocol transplant, and for "
            f"{', '.join(SERIES_SOURCES)} with paired or none",
        )
    if row.reference_date == "auto" and row.protocol != "paired":
        raise InputError(
            f"'auto' with protocol {row.protocol}",
            file=file,
            field=f"line {line}.reference_date",
            remedy="leave it empty; only protocol paired has the truth of another date",
        )
    if row.split and row.source not in SPLIT_SOURCES:
        raise InputError(
            f"{row.split!r} with source {row.source}",
            file=file,
            field=f"line {line}.split",
            remedy=f"leave it empty; {', '.join(SPLIT_SOURCES)} have splits",
        )
    if row.source == "allclear" and not row.split:
        raise InputError(
            "source allclear without a split",
            file=file,
            field=f"line {line}.split",
            remedy="name a dataset file of its metadata, e.g. test_tx3_s2-s1_100pct_1proi",
        )
    if row.protocol == "simulate" and row.cloud_level is None:
        raise InputError(
            "protocol simulate without a cloud level",
            file=file,
            field=f"line {line}.cloud_level",
            remedy="give the fraction of pixels to hide, e.g. 0.5",
        )
    if row.protocol == "transplant" and row.target_date != "auto":
        if not row.cloud_date and row.cloud_level is None:
            raise InputError(
                "protocol transplant without cloud_date or cloud_level",
                file=file,
                field=f"line {line}.cloud_date",
                remedy="name the date that lends its clouds, or a cloud level",
            )


def _refuse_duplicates(scenes: list[SceneRow], path: Path) -> None:
    seen: set[str] = set()
    for row in scenes:
        if row.scene in seen:
            raise InputError(
                f"scene id {row.scene!r} stands twice",
                file=path,
                field="scene",
                remedy="give every scene its own id",
            )
        seen.add(row.scene)
