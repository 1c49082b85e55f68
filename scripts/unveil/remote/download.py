"""Download whole files so that no finished byte is lost and no wrong byte is trusted.

A download is a ``.part`` file beside a small note on which version of the server's file it
holds (entity tag or date). It is continued only as that version (RFC 9110, sections 13.1.5
and 14), and takes its final name only after size and checksum agree with what is wanted.
"""

from __future__ import annotations

import contextlib
import fcntl
import html
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import NO_JSON, is_web_page
from unveil.redaction import public_address, redact
from unveil.remote.http import (
    AGENT,
    LONGEST_WAIT,
    Progress,
    TryAgainError,
    is_passing,
    number,
    pause,
    retry_after,
    send,
    validator_of,
)

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Most bytes taken from the network at once."""
GAIN = 1 << 20
"""A try that brings this many new bytes does not count as a failure."""
DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")


@dataclass(frozen=True)
class Wanted:
    """A file on a server, and what it must be.

    Attributes:
        url: its address.
        size_bytes: its size, if it is known.
        sha256: its checksum, empty if it is unknown.
        most_bytes: where to stop if the size is unknown.
        remedy: how to get it without this download.
    """

    url: str
    size_bytes: int | None
    sha256: str
    most_bytes: int
    remedy: str


def download(
    wanted: Wanted,
    path: str | Path,
    *,
    session: requests.Session | None = None,
    retries: int = 5,
    timeout: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download a file; what came before it was cut off is kept and continued.

    Args:
        wanted: the file.
        path: where it is kept.
        session: HTTP session, for its proxies and certificates; by default those of the
            environment.
        retries: failures in a row, without new bytes, after which to give up.
        timeout: seconds without any byte after which a connection is given up.
        sleep: waits a number of seconds.

    Raises:
        InputError: if the server does not hand the file out, or what it hands out is not the
            file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(path) as stream:
        part = _Part(stream, path, wanted)
        with Progress(path.name, wanted.size_bytes, part.size, logger=logger) as progress:
            job = _Download(wanted, path, part, session or requests.Session(), timeout, progress)
            _persist(job, retries=retries, sleep=sleep)
        os.replace(part.path, path)
        part.note.unlink(missing_ok=True)


# --------------------------------------------------------------------- what a file must be


def content_problem(path: Path, *, size_bytes: int | None, sha256: str) -> str | None:
    """Say what is wrong with a file, or nothing."""
    if is_web_page(path):
        return "it is an HTML page saved under the name of the file"
    size = path.stat().st_size
    if not size:
        return "it is an empty file"
    if size_bytes is not None and size != size_bytes:
        return f"it has {size} bytes instead of {size_bytes}"
    found = raster.sha256(path) if sha256 else ""
    return f"it has SHA-256 {found} instead of {sha256}" if found != sha256 else None


def read_note(path: Path) -> dict[str, Any]:
    """Read a small JSON object of this module's kind; empty if there is none, or it is torn."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
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

    def __init__(self, stream: BinaryIO, path: Path, wanted: Wanted) -> None:
        self._stream, self._url = stream, public_address(wanted.url)
        self.path = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        note = read_note(self.note)
        self.validator = str(note.get("validator", ""))
        self.total: int | None = None
        self.joined = self.size > 0
        if note.get("url") != self._url:
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

    wanted: Wanted
    path: Path
    part: _Part
    session: requests.Session
    timeout: float
    progress: Progress

    @property
    def expected(self) -> int | None:
        """Bytes that the file must have: by the table, else as the server says."""
        return self.part.total if self.wanted.size_bytes is None else self.wanted.size_bytes

    def refuse(self, message: str) -> InputError:
        return InputError(message, file=self.path, remedy=self.wanted.remedy)


def _persist(download: _Download, *, retries: int, sleep: Callable[[float], None]) -> None:
    """Request what is missing until the file is whole and right."""
    part, failures, farthest = download.part, 0, 0
    while True:
        try:
            if part.size == 0 or part.size != download.wanted.size_bytes:
                _request(download)
            return _finish(download)
        except (TryAgainError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if part.size and part.size == download.wanted.size_bytes:
                continue  # the server announced more than there is; all bytes are here
            failures = 0 if part.size >= farthest + GAIN else failures + 1
            farthest = max(farthest, part.size)
            if failures > retries:
                raise download.refuse(
                    f"{download.wanted.url} failed {failures} times in a row, last: {error}; "
                    f"{part.size} bytes are kept and the next run goes on from there"
                ) from error
            asked = error.wait if isinstance(error, TryAgainError) else None
            wait = pause(failures, asked)
            logger.warning("%s: %s; again in %.0f s", download.path.name, redact(str(error)), wait)
            sleep(wait)


def _request(download: _Download) -> None:
    """Ask for the missing bytes and take them."""
    part = download.part
    headers = {"Accept-Encoding": "identity", "User-Agent": AGENT}
    if not (part.validator or download.wanted.sha256):
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
    response = _get(download, download.wanted.url, headers)
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
        return send(download.session, "GET", url, headers=headers, timeout=download.timeout)
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
    raise download.refuse(f"{download.wanted.url}: {problem}{_title(_text(response))}")


def _take(download: _Download, response: requests.Response) -> None:
    """Write the body to the part as it comes, byte by byte as far as the network gave it."""
    part = download.part
    wanted = download.wanted
    limit = wanted.most_bytes if wanted.size_bytes is None else wanted.size_bytes
    while data := response.raw.read1(CHUNK):
        part.append(data)
        download.progress.update(len(data), at=part.size, total=download.expected)
        if part.size > limit:
            part.restart()
            raise download.refuse(f"{download.wanted.url} gives more than {limit} bytes")
    if part.size and is_web_page(part.path):
        part.restart()
        raise download.refuse(f"{download.wanted.url} gives a web page instead of the file")
    if download.expected is not None and part.size < download.expected:
        raise TryAgainError(f"the answer ended after {part.size} of {download.expected} bytes")


def _finish(download: _Download) -> None:
    """Check the whole file.

    Raises:
        InputError: if one undisturbed answer is not the file.
        TryAgainError: if joined answers are not; the file may have changed between them.
    """
    part, wanted = download.part, download.wanted
    problem = content_problem(part.path, size_bytes=wanted.size_bytes, sha256=wanted.sha256)
    if problem is None:
        return
    joined = part.joined
    part.restart()
    if joined:
        raise TryAgainError(f"the pieces do not make the file: {problem}")
    raise download.refuse(f"{wanted.url} does not give the file that is wanted: {problem}")
