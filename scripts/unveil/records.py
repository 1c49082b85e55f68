"""Kept or made? One answer for every stage, and one check of what a stage reads.

A *record* is a JSON file that is written last, after the files that it vouches for. Its part
``made`` says by which rule and from what they were made, and gives their SHA-256 and its own. (A
scene's file, which is STAC, has that part below ``unveil``.) A table is what it is for others to
read; its checksum stands beside it, in the format of ``sha256sum``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import reading_input

LOG = logging.getLogger(__name__)
HASHED_AT_ONCE = 4
"""Files that are summed up at the same time; Python's lock is free meanwhile."""


def checksum(facts: Any) -> str:
    """Return the SHA-256 of JSON-able facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def identify(**parts: Any) -> dict[str, str]:
    """Return the identity of a result: a checksum of each part that it depends on.

    Args:
        parts: JSON-able facts, such as input, options and code.
    """
    return {name: checksum(part) for name, part in parts.items()}


# --- records -------------------------------------------------------------------------------


def write_record(
    path: Path,
    facts: Mapping[str, Any],
    *,
    made_from: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    rule: str = "",
) -> dict[str, Any]:
    """Write a record, whole or not at all, and return it.

    Args:
        path: the record.
        facts: what it says, JSON-able.
        made_from: the identity of what it vouches for (:func:`identify`).
        files: path from the record's folder -> SHA-256 of the files that it vouches for.
        rule: the rule that makes it again.
    """
    document = json.loads(json.dumps(facts))
    made = {"by": rule, "from": dict(made_from or {}), "files": dict(files or {})}
    document.get("unveil", document)["made"] = made
    made["sha256"] = _seal(document)
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    return document


def made_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of how it was made.

    Raises:
        KeyError: if it is no record.
    """
    return document.get("unveil", document)["made"]


def content_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a record says and vouches for, however it was made."""
    stripped = copy.deepcopy(dict(document))
    made = made_of(stripped)
    stripped.get("unveil", stripped)["made"] = {"files": made["files"]}
    return checksum(stripped)


def _seal(document: Mapping[str, Any]) -> str:
    """Return the checksum of a record without its own."""
    bare = copy.deepcopy(dict(document))
    made_of(bare).pop("sha256", None)
    return checksum(bare)


def kept(path: Path, made_from: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the record of an earlier run, if what it vouches for can be kept.

    Args:
        path: the record.
        made_from: the identity that the result has now.

    Returns:
        The record; None, to make the result anew, if there is none, if it was made from anything
        else, or if the record or a file is not as it was written. The log says which.
    """
    try:
        document = json.loads(path.read_text())
        made = made_of(document)
        if _seal(document) != made["sha256"]:
            raise ValueError("its checksum is another")
        before = made["from"]
        changed = [n for n in {**before, **made_from} if before.get(n) != made_from.get(n)]
        files = {path.parent / name: known for name, known in made["files"].items()}
        broken = [] if changed else harmed(files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        LOG.warning("%s: cannot be trusted (%s), and is made again", path, error)
        return None
    if changed:
        LOG.info("%s: is made again, for another %s", path, ", ".join(changed))
        return None
    if broken:
        LOG.warning("%s: is not as it was written, and is made again", broken[0])
        return None
    return document


def read_record(path: str | Path, *, kind: str, rule: str = "") -> dict[str, Any]:
    """Read a record of an earlier stage.

    Args:
        path: the record.
        kind: what it is, for the message.
        rule: the rule that makes it again, where the record cannot tell.

    Raises:
        InputError: if it is missing, damaged, or not as it was written, with the rule to run.
    """
    with reading_input(path, kind, remedy=again(rule)):
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        made = made_of(document)
        intact = _seal(document) == made["sha256"]
    if not intact:
        raise InputError(
            "is not as it was written", file=path, remedy=again(str(made.get("by")) or rule)
        )
    return document


def again(rule: str) -> str:
    """Return the remedy for what is not as a rule wrote it."""
    if not rule:
        return "delete it and run the workflow again"
    return f"run again with --forcerun {rule}: what is whole is kept"


# --- files ---------------------------------------------------------------------------------


def sums_of(files: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of files, several at a time.

    Raises:
        OSError: if one cannot be read.
    """
    files = list(files)
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return dict(zip(files, pool.map(raster.sha256, files), strict=True))


def harmed(files: Mapping[Path, str]) -> list[Path]:
    """List the files that are missing or have another SHA-256 than the one given."""

    def is_intact(path: Path) -> bool:
        try:
            return raster.sha256(path) == files[path]
        except OSError:
            return False

    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return [
            path for path, good in zip(files, pool.map(is_intact, files), strict=True) if not good
        ]


# --- tables --------------------------------------------------------------------------------


def record_checksums(path: str | Path, files: Iterable[str | Path], *, rule: str) -> None:
    """Write the checksums of tables beside them; ``sha256sum -c`` reads them, too.

    Args:
        path: where to.
        files: the tables, as they were just written.
        rule: the rule that makes them again.
    """
    sums = sums_of(map(Path, files))
    lines = [f"# by rule {rule}"]
    lines += [f"{known}  {_beside(file, path)}" for file, known in sums.items()]
    with raster.replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def require_recorded(path: str | Path, files: Iterable[str | Path]) -> None:
    """Refuse tables that are not as their job wrote them.

    Args:
        path: what :func:`record_checksums` wrote.
        files: tables that are about to be read.

    Raises:
        InputError: naming the first, and the rule to run.
    """
    with reading_input(path, "checksums of tables", remedy=again("")):
        first, *lines = Path(path).read_text().splitlines()
        known = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        rule = first.removeprefix("# by rule ")
    wanted = {Path(file): known.get(_beside(file, path), "") for file in files}
    for file in harmed(wanted):
        found = "is not as its job wrote it" if file.exists() else "file not found"
        raise InputError(found, file=file, remedy=again(rule))


def _beside(file: str | Path, path: str | Path) -> str:
    return Path(os.path.relpath(file, Path(path).parent)).as_posix()
