"""What every download shares: requests and redirects, versions of files, pauses, progress.

RFC 9110: entity tags and ``If-Range``/``If-Match`` (sections 8.8 and 13.1), ranges (14),
``Retry-After`` (10.2.3).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import logging
import random
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm

AGENT = "Mozilla/5.0 (compatible; unveil)"
LONGEST_WAIT = 600.0
"""Seconds; a server that asks for a longer pause is not waited for."""
REDIRECTS = 10
"""Most redirects that one request follows."""
FOR_ANYBODY = (
    *("accept", "accept-encoding", "content-type", "user-agent"),
    *("range", "if-match", "if-none-match", "if-modified-since", "if-range"),
)
"""Headers that may go to a host that another host named; any other may be a credential."""
LOG_EVERY = 5.0
"""Seconds between two lines of progress."""


class TryAgainError(Exception):
    """Trouble that another request may cure, ``wait`` seconds later if the server says so."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def send(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout: float,
    json: Any = None,
) -> requests.Response:
    """Send a request and return the answer, whose body is still to be read.

    Redirects are followed here: what is meant for one host (signatures, keys) goes to no other.

    Raises:
        requests.RequestException: if no answer comes, or only redirects do.
        ValueError: if an address makes no sense, or leads away from the web.
    """
    for _ in range(REDIRECTS + 1):
        response = session.request(
            method,
            url,
            headers=dict(headers),
            json=json,
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        )
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(url, response.headers["Location"])
        if urlsplit(target).scheme not in ("http", "https"):
            raise requests.exceptions.InvalidSchema(f"{url} redirects to {target}")
        if _origin(target) != _origin(url):
            headers = {k: v for k, v in headers.items() if k.lower() in FOR_ANYBODY}
        if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
            method, json = "GET", None  # as browsers do (RFC 9110, 15.4)
        url = target
    raise requests.TooManyRedirects(f"more than {REDIRECTS} redirects")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def read_bounded(response: requests.Response, most: int) -> bytes:
    """Return the body of an answer, unpacked.

    Raises:
        ValueError: if it has more than ``most`` bytes, however few were sent.
    """
    body = bytearray()
    while data := response.raw.read(1 << 16, decode_content=True):
        body += data
        if len(body) > most:
            raise ValueError(f"the answer has more than {most / 2**20:.0f} MB")
    return bytes(body)


def validator_of(headers: Mapping[str, str]) -> str:
    """Return what names the version of a file in a condition: a weak tag may not."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def number(text: str | None) -> int | None:
    """Return a header's decimal number, None where it is none."""
    return int(text) if text and text.strip().isdecimal() else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the pause that a server asks for, in seconds."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        moment = email.utils.parsedate_to_datetime(text)
        return max((moment - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
    return None


def is_passing(status: int) -> bool:
    """Tell whether an error of a server may pass."""
    return status in (408, 425, 429) or status >= 500


def pause(failures: int, asked: float | None) -> float:
    """Return the seconds to wait after ``failures`` in a row, with jitter; as asked, if asked."""
    return min(60.0, 2.0**failures) * random.uniform(0.5, 1.0) if asked is None else asked


class Progress:
    """Tells a person how far a download is: a bar in a terminal, lines in a log.

    Args:
        name: what is downloaded.
        total: its bytes, if known.
        start: bytes that are there already.
        logger: gets a line every few seconds where there is no terminal.
    """

    def __init__(
        self, name: str, total: int | None, start: int = 0, *, logger: logging.Logger
    ) -> None:
        self._name, self._total, self._logger = name, total, logger
        self._began = self._logged = time.monotonic()
        self._bytes, self._lock = 0, threading.Lock()
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=name,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        )
        self._at = start

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    def add(self, gained: int) -> None:
        """Take note of ``gained`` new bytes."""
        with self._lock:
            self._note(gained, at=self._at + gained)

    def update(self, gained: int, *, at: int, total: int | None) -> None:
        """Take note of ``gained`` new bytes, ``at`` of ``total`` all in all."""
        with self._lock:
            self._total = self._total or total
            self._note(gained, at=at)

    def _note(self, gained: int, *, at: int) -> None:
        self._bytes += gained
        self._at = self._bar.n = at
        self._bar.total = self._total
        self._bar.update(0)
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= LOG_EVERY:
            self._logged = now
            rate = max(self._bytes / (now - self._began), 1.0)
            left = (
                f"{max(self._total - at, 0) / rate:.0f} s left" if self._total else "size unknown"
            )
            self._logger.info("%s: %.1f MB, %.2f MB/s, %s", self._name, at / 1e6, rate / 1e6, left)
