"""Reading and checking config and model table; errors that say what to do.

Schemas live in ``config/schemas``; every key is described there, and defaults are
filled in from there, so that a user's file may hold only what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from unveil.errors import InputError, did_you_mean
from unveil.guarded import read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = REPOSITORY / "config" / "schemas"
SHIPPED = ("config", "resources")
"""Folders of the repository whose files are found from any working directory."""
DEFAULT_CONTEXT = 12
DEPTH_LIMIT, VALUES_LIMIT = 32, 1_000_000
"""Deepest nesting and most values of a file of settings."""
RISING = (
    "sources.selection.target_cloud",
    "sources.sen12mscrts.input_cloud",
    "coregistration.min_shift_px<max_shift_px",
    "metrics.cloud_levels",
    "report.stretch_percentiles",
)
"""Numbers of the config that must be in order: lists, and keys whose values limit each other."""
MAY_BE_EQUAL = RISING[:3]
RENAMED = {
    "masks.dilate_px": "give masks.target_growth_m and masks.context_growth_m, in metres: a pixel "
    "of 10 m more is 10",
}
"""Keys of earlier versions, and what to give instead."""


@dataclass(frozen=True)
class SceneRow:
    """One row of the scene table; the columns are described in ``scenes.schema.yaml``.

    ``pair``, ``passed_over`` and ``product`` are no columns: planning numbers the real pairs of a
    row from 1 on, says which dates of its place were not considered, and why, and names the row of
    several dates that a scene is one date of.
    """

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
    veil: bool = True
    area: str = ""
    split: str = ""
    n_patches: int = 0
    truth_days: int = 0
    period: str = ""
    pair: int = 0
    passed_over: str = ""
    start: str = ""
    end: str = ""
    product: str = ""


def locate(path: str) -> str:
    """Return where a path of the config or of a table leads.

    It is relative to the working directory; a file that ships with the workflow (below
    :data:`SHIPPED`) and is not there is the one beside the workflow.
    """
    if not path.lstrip("./").startswith(SHIPPED):
        return path
    if Path(path).parts[:1] and Path(path).parts[0] in SHIPPED and not Path(path).exists():
        beside = REPOSITORY / path
        return str(beside) if beside.exists() else path
    return path


def load_schema(name: str) -> dict[str, Any]:
    """Return the schema ``config/schemas/NAME.schema.yaml``."""
    return _load_schema(name)


@cache
def _load_schema(name: str) -> dict[str, Any]:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_load_schema(name))


def is_valid(value: Any, schema: str, key: str) -> bool:
    """Whether a value may stand under a key of a schema; :func:`check` says why it may not."""
    return _validator_of(schema, key).is_valid(value)


@cache
def _validator_of(schema: str, key: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_load_schema(schema)["properties"][key])


def check(instance: Any, schema: str, *, file: str | Path, where: str = "") -> None:
    """Validate ``instance`` against a schema.

    Raises:
        InputError: naming the file, the key, the value, and the allowed or nearest name.
    """
    _refuse_endless(instance, file)
    _refuse_infinite(instance, file=file, where=(where,))
    error = jsonschema.exceptions.best_match(_validator(schema).iter_errors(instance))
    if error is None:
        return
    key = ".".join(str(part) for part in (where, *error.absolute_path) if part != "")
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in known]
        field = ".".join(filter(None, [key, str(unknown[0])]))
        remedy = did_you_mean(str(unknown[0]), known, otherwise="remove it, or use one of")
        raise InputError(
            f"unknown key {unknown[0]!r}",
            file=file,
            field=field,
            remedy=RENAMED.get(field, remedy),
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


def _refuse_infinite(instance: Any, *, file: str | Path, where: tuple[str, ...]) -> None:
    """Refuse ``.nan`` and ``.inf``, which pass every comparison with a limit, or fail all."""
    if isinstance(instance, dict | list):
        items = instance.items() if isinstance(instance, dict) else enumerate(instance)
        for key, value in items:
            _refuse_infinite(value, file=file, where=(*where, str(key)))
    elif isinstance(instance, float) and not math.isfinite(instance):
        raise InputError(
            f"found {instance}",
            file=file,
            field=".".join(filter(None, where)),
            remedy="write a finite number, or leave the key out for its default",
        )


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
    for key in RISING:
        _require_rising(whole, key, file=file)
    _require_own_codes(whole["metrics"]["land_cover_classes"], file=file)
    return whole


def _require_rising(whole: dict[str, Any], key: str, *, file: str | Path) -> None:
    """Refuse numbers that are not in order, whether they stand in a list or under two keys."""
    section, _, last = key.rpartition(".")
    values: Any = whole
    for part in section.split("."):
        values = values[part]
    names = last.split("<")
    numbers = values[last] if len(names) == 1 else [values[name] for name in names]
    equal = key in MAY_BE_EQUAL
    for low, high in pairwise(numbers):
        if low > high or (low == high and not equal):
            raise InputError(
                f"{low} to {high} is no range",
                file=file,
                field=f"{section}.{names[0]}",
                remedy="write the smaller number first"
                + (f" ({' below '.join(names)})" if len(names) > 1 else ""),
            )


def _require_own_codes(codes: dict[str, int], *, file: str | Path) -> None:
    """Refuse two classes of land cover with one code."""
    names: dict[int, str] = {}
    for name, code in codes.items():
        if code in names:
            raise InputError(
                f"{names[code]} and {name} have the code {code}",
                file=file,
                field=f"metrics.land_cover_classes.{name}",
                remedy="give each class the code that it has in the raster",
            )
        names[code] = name


def require_yaml(paths: Iterable[str | Path]) -> None:
    """Refuse config files that are no YAML, or have a key twice, of which Snakemake says less.

    Args:
        paths: what Snakemake reads or has read; files of other kinds and absent ones are its own
            matter.

    Raises:
        InputError: naming the file and the line.
    """
    for path in map(Path, paths):
        if path.suffix.lower() in (".yaml", ".yml") and path.is_file() and path.stat().st_size:
            read_yaml(path)


def require_distinct(names: Iterable[str], *, file: str | Path, field: str) -> None:
    """Refuse ids that are the same, or are one file name where capitals do not count.

    Raises:
        InputError: naming both.
    """
    for first, second in _alike(names):
        twice = "stands twice" if first == second else f"differs from {first!r} in capitals only"
        raise InputError(
            f"{field} id {second!r} {twice}",
            file=file,
            field=field,
            remedy=f"give every {field} an id of its own; ids become names of files, and many "
            "file systems do not tell capitals apart",
        )


def _alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            yield seen[name.casefold()], name
        seen[name.casefold()] = name


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
    require_distinct(models, file=path, field="model")
    for model, row in models.items():
        if "conda" in row and "container" in row:
            raise InputError(
                "has both 'conda' and 'container'",
                file=path,
                field=model,
                remedy="keep the one that its job is to run in",
            )
    return models


def read_training(path: str | Path) -> dict[str, Any]:
    """Read and check the description of training runs.

    Raises:
        InputError: for an unknown key or a bad value, or a run without its images.
    """
    training = read_yaml(path)
    check(training, "training", file=path)
    require_distinct([*training["images"], *training["series"]], file=path, field="series")
    require_distinct(training["runs"], file=path, field="runs")
    for name in training["run"]:
        if name not in training["runs"]:
            raise InputError(
                f"{name!r} is not among 'runs'",
                file=path,
                field="run",
                remedy=did_you_mean(name, list(training["runs"])),
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
                        remedy=did_you_mean(item, list(group)),
                    )
    return training


def select_models(
    models: dict[str, dict[str, Any]],
    wanted: list[str],
    *,
    file: str | Path,
    field: str = "run_models",
) -> dict[str, dict[str, Any]]:
    """Return the wanted rows in order, their files where they are found (:func:`locate`).

    Raises:
        InputError: if an id is not in the table, with the nearest one that is.
    """
    for model in wanted:
        if model not in models:
            raise InputError(
                f"model {model!r} is not in the table",
                file=file,
                field=field,
                remedy=did_you_mean(model, list(models)),
            )
    return {model: _with_files(models[model]) for model in wanted}


def _with_files(row: dict[str, Any]) -> dict[str, Any]:
    return row | {key: locate(row[key]) for key in ("weights", "conda") if key in row}
