"""A user's own models: a class in a file of his own, or in a package that is installed.

``kind: my_models/mine.py:Mine`` is a path from the working directory. ``kind: package.module:Mine``
is a class that an installed package names in the entry-point group :data:`GROUP`. The file, with
what it imports of its own folder (``from . import network``), is part of its results' identity.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args

from unveil.bands import BANDS
from unveil.config import locate
from unveil.errors import InputError, did_you_mean
from unveil.models.base import Facts, Model, ModelSpec, Needs, Origin
from unveil.scene import RadarDates

GROUP = "unveil.models"
INSTALL = (
    "install it where Unveil runs, import it inside the method 'load', or give this row of the "
    "models table an environment of its own (conda: FILE, or container: IMAGE)"
)
Test = Callable[[Any], bool]
FIELDS: dict[str, tuple[Test, str]] = {
    "citation": (lambda value: isinstance(value, str), "a line of text: authors, year, title"),
    "network": (lambda value: isinstance(value, bool), "True or False"),
    "backend": (lambda value: isinstance(value, str), "the name of the library that computes"),
    "origin": (lambda value: value in get_args(Origin), f"one of {', '.join(get_args(Origin))}"),
    "radar_dates": (
        lambda value: value in get_args(RadarDates),
        f"one of {', '.join(get_args(RadarDates))}",
    ),
    "receptive_field": (
        lambda value: value is None or _is_count(value, 0),
        "the pixels that it looks at on each side, a whole number, or None for the whole scene",
    ),
    "patch_px": (lambda value: value is None or _is_count(value, 1), "a whole number or None"),
    "precisions": (
        lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
        'a tuple such as ("float32",)',
    ),
    "needs": (lambda value: isinstance(value, Needs), "a Needs(...)"),
    "needs.bands": (
        lambda value: isinstance(value, tuple) and set(value) <= set(BANDS),
        'a tuple of ESA names, as in ("B02", "B8A")',
    ),
    "needs.radar": (
        lambda value: value in ("required", "optional", "unused"),
        "required, optional or unused",
    ),
    "needs.min_context": (lambda value: _is_count(value, 0), "a whole number"),
    "needs.max_context": (
        lambda value: value is None or _is_count(value, 0),
        "a whole number, or None for all",
    ),
}
"""What an own model may say of itself, and what is to be given."""


class NotHereError(InputError):
    """A model whose packages are not installed where this process runs."""


def load_class(kind: str) -> type[Model]:
    """Import and return the class of an own kind.

    Raises:
        NotHereError: if it, or what it imports, is not installed.
        InputError: if there is no such file or class, or it is no model; the message names the
            file and the class.
    """
    place, name = split_kind(kind)
    module = _import_file(kind) if is_file(kind) else _import_package(kind)
    found = getattr(module, name, None)
    if found is None:
        models = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Model)]
        raise _missing_class(kind, [model for model in models if model != Model.__name__])
    if not (inspect.isclass(found) and issubclass(found, Model)):
        raise InputError(
            f"{name} is no model",
            file=place,
            field=name,
            remedy=f"write 'class {name}(Model)', with 'from unveil.models.base import Model'",
        )
    if lacking := sorted(found.__abstractmethods__):
        raise _lacking(kind, lacking)
    found.citation = getattr(found, "citation", "") or f"Own method, {kind}"
    return found


def create_own(spec: ModelSpec) -> Model:
    """Return the model of a row of the models table, and check what it says of itself.

    Raises:
        NotHereError: as :func:`load_class`.
        InputError: as there, and if an option or an attribute will not do.
    """
    implementation = load_class(spec.kind)
    with _telling(spec.kind, "__init__"):
        model = implementation(spec)
        values = {name: _value_of(model, name) for name in FIELDS if "." not in name}
    for name, (fits, wanted) in FIELDS.items():
        value = values.get(name) if "." not in name else _value_of(model, name)
        if not fits(value):
            raise _error(spec.kind, f"found {value!r}", name, f"give {wanted}")
    needs = model.needs
    if needs.max_context is not None and needs.max_context < needs.min_context:
        found = f"min_context {needs.min_context} and max_context {needs.max_context}"
        raise _error(spec.kind, f"found {found}", "needs", "give the smaller one as min_context")
    return model


def facts_of_own(spec: ModelSpec) -> Facts:
    """Return what is known of an own model before it runs.

    One that has an environment of its own may import what is not installed here; then its file is
    read, not run: what stands there as a plain value is known.

    Raises:
        InputError: as :func:`create_own`.
    """
    try:
        return create_own(spec).facts
    except NotHereError:
        if not spec.environment:
            raise
        return _read_facts(spec)


def own_files(kind: str) -> list[Path]:
    """Return the file of an own kind and those of its folder that it imports, sorted.

    Empty for a kind that is no file.

    Raises:
        InputError: if there is no such file, or it is no Python.
    """
    if not is_file(kind):
        return []
    todo, found = [_path_of(kind)], set[Path]()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [p for p in _siblings(path) if p.is_file()]
    return sorted(found)


def split_kind(kind: str) -> tuple[str, str]:
    """Return file or module, and class, of an own kind."""
    place, _, name = kind.rpartition(":")
    return place, name


def is_file(kind: str) -> bool:
    """Whether an own kind is a file, not an installed package."""
    return split_kind(kind)[0].endswith(".py")


# --- a file ------------------------------------------------------------------------------


def _path_of(kind: str) -> Path:
    path = Path(locate(split_kind(kind)[0]))
    if not path.is_file():
        raise InputError(
            "file not found",
            file=path,
            field="kind",
            remedy=f"give its path from the working directory, which is {Path.cwd()}",
        )
    return path


def _siblings(path: Path) -> Iterator[Path]:
    """Yield the files of its own folder that a file may import."""
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                place = path.parent.joinpath(*name.split("."))
                yield from (place.with_suffix(".py"), place / "__init__.py")


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            f"is no Python: {getattr(error, 'msg', error)}",
            file=path,
            field=f"line {line}" if line else None,
            remedy=f"correct it; 'python {path}' shows the place",
        ) from error


def _import_file(kind: str) -> types.ModuleType:
    """Import the file as a module of a package that is its folder, anew after each edit."""
    path = _path_of(kind)
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in own_files(kind):
        digest.update(file.read_bytes())
    package = f"unveil_own_{digest.hexdigest()[:16]}"
    name = f"{package}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    holder = types.ModuleType(package)
    holder.__path__ = [str(path.resolve().parent)]
    sys.modules[package] = holder
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # stale within a second
    try:
        with _telling(kind):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = kept
    return module


# --- an installed package ---------------------------------------------------------------


def _entry_point(kind: str) -> EntryPoint:
    points = {f"{point.module}:{point.attr}": point for point in entry_points(group=GROUP)}
    if kind not in points:
        raise NotHereError(
            f"no installed package names {kind!r} among its entry points {GROUP!r}",
            file="models table",
            field="kind",
            remedy=did_you_mean(kind, list(points))
            if points
            else "install the package, or name a file as in my_models/mine.py:Mine",
        )
    return points[kind]


def _import_package(kind: str) -> types.ModuleType:
    point = _entry_point(kind)
    with _telling(kind):
        return importlib.import_module(point.module)


# --- what is known without running it ------------------------------------------------------


def _read_facts(spec: ModelSpec) -> Facts:
    """Read what a class says of itself as plain values; of a package that is not here, nothing."""
    network = spec.weights is not None
    default = Facts(network, f"Own method, {spec.kind}", "none", here=False)
    if not is_file(spec.kind):
        return default
    place, name = split_kind(spec.kind)
    classes = [n for n in _parse(_path_of(spec.kind)).body if isinstance(n, ast.ClassDef)]
    mine = next((node for node in classes if node.name == name), None)
    if mine is None:
        raise _missing_class(spec.kind, [node.name for node in classes])
    defined = {node.name for node in mine.body if isinstance(node, ast.FunctionDef)}
    ours = ("Model", "base.Model", "unveil.models.base.Model")
    inherits = not any(ast.unparse(base) in ours for base in mine.bases)
    if not inherits and (lacking := sorted({"needs", "predict"} - defined)):
        raise _lacking(spec.kind, lacking)
    values: dict[str, Any] = {"network": False} if not inherits else {}
    for node in mine.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Constant):
                values[node.targets[0].id] = node.value.value
    known = {field: values[field] for field in ("network", "citation", "origin") if field in values}
    for field, value in known.items():
        fits, wanted = FIELDS[field]
        if not fits(value):
            raise _error(spec.kind, f"found {value!r}", field, f"give {wanted}")
    return replace(default, **known)


# --- errors -----------------------------------------------------------------------------


@contextlib.contextmanager
def _telling(kind: str, method: str = "") -> Iterator[None]:
    """Say of what a user's code raises which file, class and line it is."""
    try:
        yield
    except InputError:
        raise
    except ModuleNotFoundError as error:
        message = f"imports {error.name!r}, which is not installed"
        raise _error(kind, message, method, INSTALL, NotHereError) from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        message = f"{type(error).__name__}: {error} ({where})"
        raise _error(kind, message, method, "correct it there") from error


def _error(
    kind: str, message: str, member: str, remedy: str, error: type[InputError] = InputError
) -> InputError:
    place, name = split_kind(kind)
    field = f"{name}.{member}" if member else name
    return error(message, file=place, field=field, remedy=remedy)


def _missing_class(kind: str, there: list[str]) -> InputError:
    place, name = split_kind(kind)
    remedy = did_you_mean(name, there) if there else f"write 'class {name}(Model)' in it"
    return InputError(f"has no class {name!r}", file=place, field="kind", remedy=remedy)


def _lacking(kind: str, members: list[str]) -> InputError:
    first = members[0]
    how = "a property that returns Needs(...)" if first == "needs" else "def predict(self, inputs)"
    return _error(kind, "is missing", first, f"write it: {how}")


def _value_of(model: Model, name: str) -> Any:
    value: Any = model
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
