"""Options of a model: a row of the models table checked against a dataclass of defaults."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any, TypeVar

from unveil.errors import InputError
from unveil.models.base import ModelSpec

Options = TypeVar("Options")


def parse_options(options: type[Options], spec: ModelSpec) -> Options:
    """Return the options of a model, ``options(**spec.options)`` with names and types checked.

    Args:
        options: a dataclass whose fields all have defaults of type bool, int or float.
        spec: the row of the models table.

    Raises:
        InputError: naming the model, the option, what was found and what is allowed.
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name, value in spec.options.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1, cutoff=0.5)
            remedy = f"use {near[0]!r}" if near else f"use one of {', '.join(defaults)}"
            raise _error(spec, name, f"unknown option {name!r}", remedy)
        if not _fits(value, defaults[name]):
            kind = type(defaults[name]).__name__
            raise _error(spec, name, f"found {value!r}", f"give a value of type {kind}")
    return options(**spec.options)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def _error(spec: ModelSpec, name: str, message: str, remedy: str) -> InputError:
    return InputError(
        message, file="models table", field=f"{spec.id}.options.{name}", remedy=remedy
    )
