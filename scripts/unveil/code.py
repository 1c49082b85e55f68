"""The code that a result depends on, as one checksum over all that its stage imports.

The graph of imports is read from the files (:mod:`ast`): nobody keeps a list. Imports within
functions count, and so do classes that a registry names as ``"unveil.module:Class"``. To a
package belong the other files of its folder (templates, scripts of the page), to a module the
files of ``resources/`` that it names.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
"""Folder of the rules' scripts and of the package."""
PACKAGE = "unveil"
CLASS = re.compile(rf'"({PACKAGE}(?:\.\w+)+):\w+"')
"""How a registry names a class that it imports when it is asked for."""
IMPORT = re.compile(
    r"(?:^|[:;])[ \t\f]*((?:from\b[^\n#;]*?)?\bimport\b *(?:\([^)]*\)|.*))", re.MULTILINE
)
"""What begins like an import; a sentence of a docstring may, too."""


@dataclass(frozen=True)
class _Source:
    """What one file of Python refers to.

    Attributes:
        imports: names that may be modules of the package.
        classes: ``module:Class`` of the package that it names as text.
    """

    imports: frozenset[str]
    classes: frozenset[str]


def code_of(root: str, *classes: str, scripts: Path = SCRIPTS) -> str:
    """Return the SHA-256 of all code that a stage runs.

    Args:
        root: where it starts: a script of a rule, without ``.py``, or a module of the package.
        classes: the only ones that a stage uses of the registry that names them, each
            ``module:Class``, so that another class of it changes nothing; none are all.
        scripts: folder of the scripts and the package.

    Raises:
        FileNotFoundError: if there is no such script or module.
    """
    digest = hashlib.sha256()
    for path, data in sorted(code_files(root, *classes, scripts=scripts).items()):
        digest.update(f"{path.relative_to(scripts.parent).as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def code_files(root: str, *classes: str, scripts: Path = SCRIPTS) -> dict[Path, bytes]:
    """Return the files that :func:`code_of` sums up, and what of each counts."""
    modules = _modules(scripts)
    resources = _resources(scripts.parent / "resources")
    found: dict[Path, bytes] = {}
    todo = [modules.get(root) or scripts / f"{root}.py"]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        text = path.read_bytes()
        source = _parse(text, path.parent.relative_to(scripts).parts)
        named = source.classes
        if named.intersection(classes):
            text = _without(text, named.difference(classes))
            named = named.intersection(classes)
        found[path] = text
        used = {*source.imports, *(name.partition(":")[0] for name in named)}
        todo += [modules[part] for name in used for part in _packages(name) if part in modules]
        data = [file for name, file in resources.items() if f'"{name}"'.encode() in text]
        found |= {file: file.read_bytes() for file in data}
    for folder in {path.parent for path in found if path.suffix == ".py"} - {scripts}:
        found |= {file: file.read_bytes() for file in _data_of(folder)}
    return found


def _modules(scripts: Path) -> dict[str, Path]:
    """Give the files of the package's modules by name; of a package its ``__init__.py``."""
    found = {}
    for path in (scripts / PACKAGE).rglob("*.py"):
        parts = path.relative_to(scripts).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _packages(name: str) -> list[str]:
    """List a module and the packages that hold it."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


@cache
def _parse(text: bytes, package: tuple[str, ...]) -> _Source:
    imports: set[str] = set()
    for node in _statements(_parse_imports(text.decode())):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            imports |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    ours = {name for name in imports if name.partition(".")[0] == PACKAGE}
    named = {match[0].strip('"') for match in CLASS.finditer(text.decode())}
    return _Source(frozenset(ours), frozenset(named))


def _parse_imports(text: str) -> ast.Module:
    """Parse the imports of a file, as all of it takes ten times as long.

    All of it is parsed where they cannot be cut out of it.
    """
    if "\\\n" not in text:
        with suppress(SyntaxError):
            return ast.parse("\n".join(found[1] for found in IMPORT.finditer(text)))
    return ast.parse(text)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement, also within others; expressions import nothing."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            todo += getattr(node, part, ())


def _without(text: bytes, classes: frozenset[str]) -> bytes:
    """Leave out the lines of a registry that name classes which are not used."""
    others = [f'"{name}"'.encode() for name in classes]
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(other in line for other in others))


def _data_of(folder: Path) -> list[Path]:
    """List the files beside modules that are no Python, with folders that hold no module."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            is_data = path.name != "__pycache__" and not any(path.rglob("*.py"))
            found += _data_of(path) if is_data else []
        elif path.suffix not in (".py", ".pyc"):
            found.append(path)
    return found


def _resources(folder: Path) -> dict[str, Path]:
    """Give the tables beside the package by name; folders hold input of users, not of code."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {path.name: path for path in files if path.is_file() and path.suffix != ".py"}
