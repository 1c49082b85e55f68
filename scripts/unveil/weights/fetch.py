"""Download published weights so that no finished byte is lost and no wrong byte is trusted.

A download is a ``.part`` file beside a small note on which version of the server's file it
holds (entity tag or date). It is continued only as that version (RFC 9110, sections 13.1.5
and 14), and takes its final name only after size and checksum agree with the table. What
came is recorded beside it (``NAME.json``), so that a file without a published checksum is
known again, too.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import html
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3

from unveil import raster
from unveil.errors import InputError
from unveil.remote.http import (
    AGENT,
    LONGEST_WAIT,
    Progress,
    TryAgainError,
    is_passing,
    number,
    pause,
    retry_after,
    validator_of,
)
from unveil.weights.arrays import SIZE_LIMIT, describe_content
from unveil.weights.published import PublishedWeights
from unveil.workflow.stage import identify, kept, write_record

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Most bytes taken from the network at once."""
GAIN = 1 << 20
"""A try that brings this many new bytes does not count as a failure."""
DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")


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
        session: HTTP session, for its proxies and certificates; by default those of the
            environment.
        retries: failures in a row, without new bytes, after which to give up.
        timeout: seconds without any byte after which a connection is given up.
        sleep: waits a number of seconds.

    Raises:
        InputError: if there is no address, the server does not hand the file out, or what
            it hands out is not the file; the message says how to get it by hand.
    """
    path = Path(folder) / entry.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and _is_kept(entry, path):
        return path
    if not entry.url:
        raise InputError(
            f"no direct address is known for {entry.id}", file=path, remedy=_by_hand(entry, path)
        )
    session = session or requests.Session()
    with _only_writer(path) as stream:
        part = _Part(stream, path, entry)
        with Progress(entry.file, entry.size_bytes, part.size, logger=logger) as progress:
            download = _Download(entry, path, part, session, timeout, progress)
            _persist(download, retries=retries, sleep=sleep)
        _record(entry, path, _measure(part.path))
        os.replace(part.path, path)
        part.note.unlink(missing_ok=True)
    logger.info("%s: fetched and checked", path)
    return path


def is_damaged(entry: PublishedWeights, folder: str | Path) -> bool:
    """Return whether the file of ``entry`` is there, and not the one that it should be."""
    path = Path(folder) / entry.file
    return path.exists() and _problem(entry, path, sha256=_expected(entry, path)) is not None


def _expected(entry: PublishedWeights, path: Path) -> str:
    """Return the checksum that a file that is there must have, empty if nobody knows it."""
    return entry.sha256 or str(_read_json(record_path(path)).get("sha256", ""))


def _by_hand(entry: PublishedWeights, path: Path) -> str:
    return f"open {entry.page or entry.url} in a browser and save the file as {path}"


# --------------------------------------------------------------------- what a file must be


def _measure(path: Path) -> dict[str, Any]:
    return {"size_bytes": path.stat().st_size, "sha256": raster.sha256(path)}


def _problem(entry: PublishedWeights, path: Path, *, sha256: str) -> str | None:
    """Say what is wrong with a file, or nothing."""
    content, found = describe_content(path), _measure(path)
    if "HTML" in content or "empty" in content:
        return f"it is {content}"
    if entry.size_bytes is not None and found["size_bytes"] != entry.size_bytes:
        return f"it is {content} of {found['size_bytes']} bytes instead of {entry.size_bytes}"
    if sha256 and found["sha256"] != sha256:
        return f"it is {content} with SHA-256 {found['sha256']} instead of {sha256}"
    return None


def record_path(path: Path) -> Path:
    """Return where is written what came, and from where."""
    return path.with_name(f"{path.name}.json")


def _record(entry: PublishedWeights, path: Path, found: dict[str, Any]) -> None:
    """Write beside the weights what came and from where."""
    write_record(
        record_path(path),
        {**asdict(entry), **found, "checked": dt.datetime.now(dt.UTC).isoformat()},
        made_from=identify(entry=asdict(entry)),
        files={path.name: found["sha256"]},
    )


def _is_kept(entry: PublishedWeights, path: Path) -> bool:
    """Check a file that is there; a good one is recorded, a bad one without address refused."""
    known = kept(record_path(path), identify(entry=asdict(entry)))
    problem = None if known else _problem(entry, path, sha256=_expected(entry, path))
    if problem is None:
        found = {key: known[key] for key in ("size_bytes", "sha256")} if known else _measure(path)
        _record(entry, path, found)
        logger.info("%s: already there and checked; nothing is downloaded", path)
        return True
    if not entry.url:
        remedy = f"remove it and its .json; then {_by_hand(entry, path)}"
        raise InputError(problem, file=path, remedy=remedy)
    logger.warning("%s: %s; it is fetched again", path, problem)
    return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


# ------------------------------------------------------------------ the file on its way


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[BinaryIO]:
    """Open the ``.part`` file; runs that share a folder must not write it together."""
    part = path.with_name(f"{path.name}.part")
    busy = InputError(
        "another run is downloading it", file=part, remedy="wait until it ends, then run again"
    )
    with open(part, "ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError as error:
            logger.info("no locks on this file system (%s); going on without", error)
        # The other run may have ended, and renamed the file, just before the lock.
        if not part.exists() or not os.path.samestat(os.fstat(stream.fileno()), part.stat()):
            raise busy
        yield stream


class _Part:
    """The bytes so far, and which version of the server's file they belong to.

    Attributes:
        size: bytes so far.
        validator: the version's entity tag, or its date; empty if the server gives none.
        total: bytes that the server announced, if it did.
        joined: whether the bytes come from more than one answer.
    """

    def __init__(self, stream: BinaryIO, path: Path, entry: PublishedWeights) -> None:
        self._stream, self._url = stream, entry.url
        self.path = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        note = _read_json(self.note)
        self.validator = str(note.get("validator", ""))
        self.total: int | None = None
        self.joined = self.size > 0
        if note.get("url") != entry.url:
            self.restart()

    @property
    def size(self) -> int:
        return self._stream.tell()

    def restart(self, validator: str = "", total: int | None = None) -> None:
        """Throw the bytes away and begin with a version of the server's file."""
        self._stream.seek(0)
        self._stream.truncate()
        self.validator, self.total, self.joined = validator, total, False
        self.note.write_text(json.dumps({"url": self._url, "validator": validator}) + "\n")

    def append(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()  # what came outlives a killed job


# ------------------------------------------------------------------------- the download


@dataclass(frozen=True)
class _Download:
    """What the requests for one file share."""

    entry: PublishedWeights
    path: Path
    part: _Part
    session: requests.Session
    timeout: float
    progress: Progress

    @property
    def expected(self) -> int | None:
        """Bytes that the file must have: by the table, else as the server says."""
        return self.part.total if self.entry.size_bytes is None else self.entry.size_bytes

    def refuse(self, message: str) -> InputError:
        return InputError(message, file=self.path, remedy=_by_hand(self.entry, self.path))


def _persist(download: _Download, *, retries: int, sleep: Callable[[float], None]) -> None:
    """Request what is missing until the file is whole and right."""
    part, failures, farthest = download.part, 0, 0
    while True:
        try:
            if part.size == 0 or part.size != download.entry.size_bytes:
                _request(download)
            return _finish(download)
        except (TryAgainError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if part.size and part.size == download.entry.size_bytes:
                continue  # the server announced more than there is; all bytes are here
            failures = 0 if part.size >= farthest + GAIN else failures + 1
            farthest = max(farthest, part.size)
            if failures > retries:
                raise download.refuse(
                    f"{download.entry.url} failed {failures} times in a row, last: {error}; "
                    f"{part.size} bytes are kept and the next run goes on from there"
                ) from error
            asked = error.wait if isinstance(error, TryAgainError) else None
            wait = pause(failures, asked)
            logger.warning("%s: %s; again in %.0f s", download.entry.file, error, wait)
            sleep(wait)


def _request(download: _Download) -> None:
    """Ask for the missing bytes and take them."""
    part = download.part
    headers = {"Accept-Encoding": "identity", "User-Agent": AGENT}
    if not (part.validator or download.entry.sha256):
        part.restart()  # nothing would tell whether later bytes belong to the same file
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    with contextlib.closing(_answer(download, headers)) as response:
        if response.status_code == 200:
            part.restart(
                validator_of(response.headers), number(response.headers.get("Content-Length"))
            )
            _take(download, response)
        elif response.status_code == 206:
            _continue(response, part)
            _take(download, response)
        elif response.status_code == 416 and part.size:
            _require_end(response, part)
        else:
            _refuse_status(download, response)


def _answer(download: _Download, headers: dict[str, str]) -> requests.Response:
    """Send the request; Google Drive's question before a download is answered.

    Raises:
        InputError: if the answer is a page instead of a file.
    """
    response = _get(download, download.entry.url, headers)
    if _is_page(response) and urlsplit(response.url).hostname in DRIVE_HOSTS:
        page = _text(response)
        response.close()
        response = _get(download, _drive_address(download, page), headers)
    if _is_page(response):
        page = _text(response)
        response.close()
        raise download.refuse(
            f"{urlsplit(response.url).hostname} answers with a web page instead of the file"
            f"{_title(page)}"
        )
    return response


def _get(download: _Download, url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return download.session.get(url, headers=headers, stream=True, timeout=download.timeout)
    except ValueError as error:  # requests reports addresses that make no sense this way
        raise download.refuse(f"{url}: {error}") from error


def _is_page(response: requests.Response) -> bool:
    kind = response.headers.get("Content-Type", "").lower()
    return response.status_code in (200, 206) and kind.startswith("text/html")


def _text(response: requests.Response) -> str:
    return response.raw.read(CHUNK, decode_content=True).decode("utf-8", "replace")


def _title(page: str) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    title = " ".join(html.unescape(found[1]).split())[:120] if found else ""
    return f": {title!r}" if title else ""


def _drive_address(download: _Download, page: str) -> str:
    """Find the address behind Google Drive's "cannot scan for viruses" page."""
    try:
        from gdown.download import get_url_from_gdrive_confirmation
        from gdown.exceptions import FileURLRetrievalError
    except ImportError as error:
        raise download.refuse(
            "Google Drive asks for a confirmation, which needs the package gdown"
        ) from error
    try:
        return get_url_from_gdrive_confirmation(page)
    except FileURLRetrievalError as error:
        reason = " ".join(re.sub(r"<[^>]*>", " ", html.unescape(str(error))).split())
        raise download.refuse(
            f"Google Drive does not hand the file out{_title(page)}: {reason}"
        ) from error


def _require_end(response: requests.Response, part: _Part) -> None:
    """Read "range not satisfiable": either all bytes are here, or the file is another one."""
    total = number(response.headers.get("Content-Range", "").rpartition("/")[2])
    if total != part.size or validator_of(response.headers) not in ("", part.validator):
        part.restart()
        raise TryAgainError("the server's file is not the one that was begun")


def _continue(response: requests.Response, part: _Part) -> None:
    """Check that the answer goes on where the part ends, in the same version of the file."""
    place = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    same = not part.validator or validator_of(response.headers) in ("", part.validator)
    if not place or int(place[1]) != part.size or not same:
        part.restart()
        raise TryAgainError("the server's file changed, or it sent another range than asked")
    part.total, part.joined = number(place[2]), True


def _refuse_status(download: _Download, response: requests.Response) -> None:
    """Turn an error of the server into a pause or into a message."""
    problem = f"the server answers {response.status_code} {response.reason}"
    if is_passing(response.status_code):
        wait = retry_after(response.headers)
        if wait is not None and wait > LONGEST_WAIT:
            raise download.refuse(f"{problem} and asks to come back in {wait:.0f} s")
        raise TryAgainError(problem, wait=wait)
    raise download.refuse(f"{download.entry.url}: {problem}{_title(_text(response))}")


def _take(download: _Download, response: requests.Response) -> None:
    """Write the body to the part as it comes, byte by byte as far as the network gave it."""
    part = download.part
    limit = SIZE_LIMIT if download.entry.size_bytes is None else download.entry.size_bytes
    while data := response.raw.read1(CHUNK):
        part.append(data)
        download.progress.update(len(data), at=part.size, total=download.expected)
        if part.size > limit:
            part.restart()
            raise download.refuse(f"{download.entry.url} gives more than {limit} bytes")
    if part.size and "HTML" in describe_content(part.path):
        part.restart()
        raise download.refuse(f"{download.entry.url} gives a web page instead of the file")
    if download.expected is not None and part.size < download.expected:
        raise TryAgainError(f"the answer ended after {part.size} of {download.expected} bytes")


def _finish(download: _Download) -> None:
    """Check the whole file.

    Raises:
        InputError: if one undisturbed answer is not the file.
        TryAgainError: if joined answers are not; the file may have changed between them.
    """
    part, entry = download.part, download.entry
    problem = _problem(entry, part.path, sha256=entry.sha256)
    if problem is None:
        return
    joined = part.joined
    part.restart()
    if joined:
        raise TryAgainError(f"the pieces do not make the file: {problem}")
    raise download.refuse(f"{entry.url} does not give the file of the table: {problem}")
