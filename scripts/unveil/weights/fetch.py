"""Published weights: downloaded, checked, and recorded.

What came is recorded beside it (``NAME.json``), so that a file without a published checksum is
known again, too.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import requests

from unveil import raster
from unveil.errors import InputError
from unveil.records import identify, kept, write_record
from unveil.redaction import public_address
from unveil.remote.download import Wanted, content_problem, download, read_note
from unveil.weights.arrays import SIZE_LIMIT
from unveil.weights.published import PublishedWeights

logger = logging.getLogger(__name__)


def fetch(
    entry: PublishedWeights,
    folder: str | Path,
    *,
    session: requests.Session | None = None,
    retries: int = 5,
    timeout: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Return the file of ``entry`` in ``folder``, downloaded if it is not there already.

    A file that is there, put by hand or fetched before, is checked and kept; one that is
    damaged is fetched again.

    Args:
        entry: a row of the table of published weights.
        folder: where the file is kept.
        session: see :func:`unveil.remote.download.download`, as for the other arguments.
        retries: failures in a row after which to give up.
        timeout: seconds without any byte after which a connection is given up.
        sleep: waits a number of seconds.

    Raises:
        InputError: if there is no address, the server does not hand the file out, or what
            it hands out is not the file; the message says how to get it by hand.
    """
    path = Path(folder) / entry.file
    if path.exists() and _is_kept(entry, path):
        return path
    by_hand = _by_hand(entry, path)
    if not entry.url:
        raise InputError(f"no direct address is known for {entry.id}", file=path, remedy=by_hand)
    wanted = Wanted(entry.url, entry.size_bytes, entry.sha256, SIZE_LIMIT, by_hand)
    download(wanted, path, session=session, retries=retries, timeout=timeout, sleep=sleep)
    _record(entry, path)
    logger.info("%s: fetched and checked", path)
    return path


def is_damaged(entry: PublishedWeights, folder: str | Path) -> bool:
    """Return whether the file of ``entry`` is there, and not the one that it should be."""
    path = Path(folder) / entry.file
    return path.exists() and _problem(entry, path) is not None


def record_path(path: Path) -> Path:
    """Return where is written what came, and from where."""
    return path.with_name(f"{path.name}.json")


def _by_hand(entry: PublishedWeights, path: Path) -> str:
    return f"open {entry.page or entry.url} in a browser and save the file as {path}"


def _problem(entry: PublishedWeights, path: Path) -> str | None:
    """Say what is wrong with a file that is there; its record may know more than the table."""
    sha256 = entry.sha256 or str(read_note(record_path(path)).get("sha256", ""))
    return content_problem(path, size_bytes=entry.size_bytes, sha256=sha256)


def _record(entry: PublishedWeights, path: Path) -> None:
    """Write beside the weights what came and from where."""
    sha256 = raster.sha256(path)
    record = {
        **asdict(entry),
        "url": public_address(entry.url),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
        "checked": dt.datetime.now(dt.UTC).isoformat(),
    }
    write_record(
        record_path(path),
        record,
        made_from=identify(entry=asdict(entry)),
        files={path.name: sha256},
    )


def _is_kept(entry: PublishedWeights, path: Path) -> bool:
    """Check a file that is there; a good one is recorded, a bad one without address refused."""
    known = kept(record_path(path), identify(entry=asdict(entry)))
    problem = None if known else _problem(entry, path)
    if problem is None:
        if not known:
            _record(entry, path)
        logger.info("%s: already there and checked; nothing is downloaded", path)
        return True
    if not entry.url:
        remedy = f"remove it and its .json; then {_by_hand(entry, path)}"
        raise InputError(problem, file=path, remedy=remedy)
    logger.warning("%s: %s; it is fetched again", path, problem)
    return False
