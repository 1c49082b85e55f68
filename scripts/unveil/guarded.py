"""Reading files that others wrote: whatever is in them ends in a result or in one clear error.

Parsers of foreign formats raise errors of many kinds on damaged or hostile files, and a few
bytes can declare more data than a machine has memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import zipfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import yaml

from unveil.errors import InputError, SceneSkipped

ALWAYS_PLAUSIBLE = 256 * 2**20
"""Bytes that a file of any size may declare: more than a mask of a Sentinel-2 tile has."""
ARRAYS_RATIO = 200
"""Most bytes of arrays a byte of file: images and weights stay below ten, zeros reach 1,032."""
RASTER_RATIO = 20_000
"""Most bytes of pixels a byte of file: a raster of one value, in blocks of 512, has 7,000."""

NO_JSON = (ValueError, RecursionError)
"""What reading JSON raises of text that is none, or is nested without end."""
MERGE = "tag:yaml.org,2002:merge"
"""What YAML calls the key ``<<``."""


@contextlib.contextmanager
def reading_input(path: str | Path, kind: str, *, remedy: str) -> Iterator[None]:
    """Turn every error of a block that only reads ``path`` into one that names it.

    Args:
        path: the file.
        kind: what it should be, as in "cannot be read as KIND".
        remedy: what to do about it.

    Raises:
        InputError: for every error of the block.
    """
    try:
        yield
    except (InputError, SceneSkipped):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # of the disk that something is unpacked to
        if isinstance(error, FileNotFoundError):
            raise InputError(
                "file not found", file=path, remedy="check the path, or restore the file"
            ) from error
        raise _unreadable(error, path, kind, remedy) from error
    except Exception as error:
        raise _unreadable(error, path, kind, remedy) from error


def _unreadable(error: Exception, path: str | Path, kind: str, remedy: str) -> InputError:
    reason = f"{type(error).__name__}: {error}"
    return InputError(f"cannot be read as {kind} ({reason})", file=path, remedy=remedy)


def require_plausible(
    declared: int, path: str | Path, *, ratio: int, size: int | None = None
) -> None:
    """Refuse a file that declares far more data than it can hold, before memory is taken.

    Args:
        declared: bytes of the data once read.
        path: the file.
        ratio: most bytes of data that a byte of such a file can stand for.
        size: bytes of the file, where it is no local one.

    Raises:
        InputError: if it declares more.
    """
    size = Path(path).stat().st_size if size is None else size
    if declared > max(ALWAYS_PLAUSIBLE, ratio * size):
        raise InputError(
            f"declares {declared / 2**30:,.1f} GiB of data in {size:,} bytes",
            file=path,
            remedy="the file is empty, damaged or hostile; leave it out or get it again",
        )


def is_web_page(path: Path) -> bool:
    """Tell by its first bytes whether a file is a web page."""
    with open(path, "rb") as stream:
        text = stream.read(512).lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in text


def read_npz(path: str | Path, *, kind: str, remedy: str) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz``, in the order of the file, without pickle.

    Raises:
        InputError: if the file is missing, damaged, hostile, or holds Python objects.
    """
    with reading_input(path, kind, remedy=remedy):
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        require_plausible(declared, path, ratio=ARRAYS_RATIO)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        other = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if other:
            raise TypeError(f"{other[0]!r} is no array")
    return arrays


def read_xml(data: bytes, *, file: str | Path, remedy: str) -> ElementTree.Element:
    """Read an XML document without any declaration of entities, in any encoding.

    Entities stand for other entities, and so for gigabytes, or for other files.

    Args:
        data: its bytes.
        file: what errors call it.
        remedy: what to do about a damaged one.

    Raises:
        InputError: if it is damaged, or has a document type.
    """
    with reading_input(file, "XML", remedy=remedy):
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.Parse(data, True)
        return ElementTree.fromstring(data)


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, which no such file does")


def read_json(path: str | Path, *, kind: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: if the file is missing, no JSON, or no object.
    """
    with reading_input(path, kind, remedy=remedy):
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise TypeError(f"it holds {type(document).__name__} instead of an object")
    return document


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True) if key.tag != MERGE else None
            if isinstance(name, Hashable) and name is not None and name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands twice", key.start_mark
                )
            seen.add(name if isinstance(name, Hashable) else None)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: if the file is missing, no YAML (with the line), has a key twice, or is no
            mapping.
    """
    path = Path(path)
    with reading_input(path, "YAML", remedy="correct it"):
        text = path.read_text(encoding="utf-8-sig")
        try:
            data = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
        except yaml.MarkedYAMLError as error:
            raise _no_yaml(error, path) from error
    if not isinstance(data, dict):
        raise InputError(
            f"holds {type(data).__name__} instead of a mapping",
            file=path,
            remedy="write it as 'key: value' lines",
        )
    return data


def _no_yaml(error: yaml.MarkedYAMLError, path: Path) -> InputError:
    mark = error.problem_mark or error.context_mark
    field = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
    what = ", ".join(filter(None, (error.context, error.problem)))
    begun = error.context_mark
    if begun and mark and begun.line < mark.line:
        what = f"{what} (begun in line {begun.line + 1})"
    return InputError(
        f"no YAML here: {what}",
        file=path,
        field=field,
        remedy="correct that line or the one before it (indent with spaces, close brackets and "
        "quotes, a space after each colon, each key once)",
    )
