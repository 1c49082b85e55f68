"""Options of a model: a row of the models table checked against a dataclass of defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from unveil.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from unveil.models.base import ModelSpec

Options = TypeVar("Options", bound="DataclassInstance")
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    tuple: "a list",
}


@dataclass(frozen=True)
class NoOptions:
    """Of a model that has none."""


def parse_options(options: type[Options], spec: ModelSpec) -> Options:
    """Return the options of a model, ``options(**spec.options)`` with names and types checked.

    Args:
        options: a dataclass whose fields all have defaults of a type of :data:`KINDS`.
        spec: the row of the models table.

    Raises:
        InputError: naming the model, the option, what was found and what is allowed.
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name, value in spec.options.items():
        if name not in defaults:
            raise _error(spec, name, f"unknown option {name!r}", _remedy(name, tuple(defaults)))
        if not _fits(value, defaults[name]):
            raise option_error(spec, name, f"give {KINDS[type(defaults[name])]}")
    return options(**spec.options)


def check_choice(spec: ModelSpec, name: str, value: str, allowed: Sequence[str]) -> None:
    """Check an option that is one of a few words.

    Raises:
        InputError: naming the model, the option, what was found and what is allowed.
    """
    if value not in allowed:
        raise option_error(spec, name, f"use one of {', '.join(allowed)}")


def option_error(spec: ModelSpec, name: str, remedy: str) -> InputError:
    """Return the error of an option whose value will not do."""
    return _error(spec, name, f"found {spec.options[name]!r}", remedy)


def _remedy(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return "take it out, there are none"
    return did_you_mean(name, known)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def _error(spec: ModelSpec, name: str, message: str, remedy: str) -> InputError:
    return InputError(
        message, file="models table", field=f"{spec.id}.options.{name}", remedy=remedy
    )
