"""The code behind a kind of model, as one checksum: one of ours, or a user's own."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unveil.code import SCRIPTS, code_of
from unveil.models.own import is_file, own_files, split_kind
from unveil.models.registry import class_path, is_own

LOADER = "unveil.models.own:load_class"
"""What the registry names for kinds that are none of its own."""


def code_of_row(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the code behind a row of the models table; that of others is no part.

    An environment of its own is part of it: a file by its content, an image by its name.

    Raises:
        InputError: if the kind is unknown, or its file is not there.
    """
    kind = row["kind"]
    code = code_of_own(kind) if is_own(kind) else code_of("infer", class_path(kind))
    if "conda" in row:
        code += f" {hashlib.sha256(Path(row['conda']).read_bytes()).hexdigest()}"
    return f"{code} {row['container']}" if "container" in row else code


def files_to_send(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the files of own models and environments that machines elsewhere lack.

    Absolute paths are of a volume that every machine mounts.
    """
    rows = models.values()
    kinds = [row["kind"] for row in rows if is_own(row["kind"])]
    files = [path for kind in kinds for path in own_files(kind)]
    files += [Path(row["conda"]) for row in rows if "conda" in row]
    return sorted({str(path) for path in files if not path.is_absolute()})


def code_of_own(kind: str) -> str:
    """Return the SHA-256 of the code behind an own kind: its files, and what they import of ours.

    Of an installed package every module counts, as far as it is installed where this runs.
    """
    digest = hashlib.sha256(code_of("infer", LOADER).encode())
    modules: set[str] = set()
    for path in own_files(kind) if is_file(kind) else _package_files(kind):
        text = path.read_bytes()
        digest.update(f"{path.name} {len(text)}\n".encode() + text)
        modules |= _ours(text)
    for module in sorted(modules):
        digest.update(f"{module} {code_of(module)}\n".encode())
    return digest.hexdigest()


def _package_files(kind: str) -> list[Path]:
    """Return every module of the package of an own kind that is installed, sorted."""
    top = split_kind(kind)[0].partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        return []
    folders = list(spec.submodule_search_locations or ())
    files = [path for folder in folders for path in Path(folder).rglob("*.py")]
    return sorted(files) if folders else [Path(spec.origin or "")]


def _ours(text: bytes) -> set[str]:
    """Return the modules of this package that a file imports, by whatever name it takes them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in found if name.partition(".")[0] == "unveil"}
    return {name for name in ours if _is_module(SCRIPTS.joinpath(*name.split(".")))}


def _is_module(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
