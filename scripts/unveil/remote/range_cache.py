"""Byte ranges of files on servers, kept on disk so that no finished byte is asked for twice.

Each version of a remote file (address without signature, size, entity tag or date) is a folder
with a sparse file ``data``, of which a ``journal`` lists the pieces that came: start, length
and BLAKE2b digest of each. A piece is written before it is listed, so that a killed job leaves
nothing that is trusted wrongly; digests are checked when a later job uses the bytes. Jobs that
share the cache wait for each other, file by file.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from unveil import raster
from unveil.errors import InputError
from unveil.redaction import redact
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

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOG = logging.getLogger(__name__)

HEADER = 32 << 10
"""Bytes asked for at least: the beginning of a file holds its directory."""
PIECE = 64 << 10
"""Bytes after which what came is listed in the journal."""
CHUNK = 1 << 20
"""Bytes of a piece at most where the cache hands its bytes out."""
GAP = 4 << 10
"""Unwanted bytes between two wanted ranges that are cheaper to take than to skip."""
SLOWEST = 1 << 10
"""Bytes a second below which a connection counts as stuck."""
GAIN = 256 << 10
"""A try that brings this many new bytes does not count as a failure."""

Span = tuple[int, int]
"""First byte, and the byte after the last."""


class RemoteChangedError(InputError):
    """The server's file is no longer the version that was asked for."""


class BadFileError(InputError):
    """A file of a catalogue is gone, damaged or hostile: others of the same search may do.

    Attributes:
        file: its address.
    """


@dataclass(frozen=True)
class Remote:
    """One version of a file on a server.

    Attributes:
        href: address without signature or credentials.
        size: bytes.
        validator: strong entity tag or date of this version; empty where the server has none.
    """

    href: str
    size: int
    validator: str

    @property
    def name(self) -> str:
        """The last part of the path, for messages."""
        return urlsplit(self.href).path.rpartition("/")[2] or self.href


@dataclass(frozen=True)
class Request:
    """What is sent for a file: address and headers with signature; never logged or kept."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


Sign = Callable[[str, bool], Request]
"""Signs an address; the flag asks for new credentials after a refusal."""


def unsigned(href: str, again: bool) -> Request:
    """Sign nothing."""
    return Request(href)


# --- what is there --------------------------------------------------------------------------


def merge(spans: Sequence[Span], *, gap: int = 0) -> list[Span]:
    """Return sorted spans, joined where no more than ``gap`` bytes lie between them."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def subtract(wanted: Sequence[Span], there: Sequence[Span]) -> list[Span]:
    """Return what of ``wanted`` is not in ``there``; both sorted and disjoint."""
    missing = []
    for start, end in wanted:
        for low, high in there:
            if high <= start or low >= end:
                continue
            if low > start:
                missing.append((start, low))
            start = max(start, high)
        if start < end:
            missing.append((start, end))
    return missing


def total(spans: Sequence[Span]) -> int:
    """Return the number of bytes of disjoint spans."""
    return sum(end - start for start, end in spans)


class _Store:
    """The bytes of one version of a file that are on disk; used by one thread at a time."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.folder, self._remote = folder, remote
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "about.json"
        if not about.exists():
            with raster.replacing(about) as temporary:
                temporary.write_text(json.dumps(vars(remote), indent=1) + "\n")
        self._data = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o644)
        self._journal = os.open(folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._read_to = 0
        self._good: list[Span] = []
        self._unchecked: dict[Span, str] = {}

    def close(self) -> None:
        os.close(self._data)
        os.close(self._journal)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs and threads from fetching the same file; what they fetched is read."""
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX)
        except OSError as error:
            LOG.info("no locks on this file system (%s); going on without", error)
            self.reload()
            yield
            return
        try:
            self.reload()
            yield
        finally:
            fcntl.flock(self._journal, fcntl.LOCK_UN)

    def reload(self) -> None:
        """Read what was added to the journal; a line that a killed job left torn is skipped."""
        size = os.fstat(self._journal).st_size
        text = os.pread(self._journal, size - self._read_to, self._read_to)
        whole = text.rfind(b"\n") + 1
        self._read_to += whole
        for line in text[:whole].split(b"\n"):
            match = re.fullmatch(rb"(\d+) (\d+) ([0-9a-f]{32})", line)
            if match:
                start, length = int(match[1]), int(match[2])
                self._unchecked[start, start + length] = match[3].decode()

    def missing(self, wanted: Sequence[Span]) -> list[Span]:
        """Return what is not there; listed pieces are checked before they count."""
        missing = subtract(wanted, self._good)
        if missing and self._unchecked:
            for span in list(self._unchecked):
                if any(span[0] < end and start < span[1] for start, end in missing):
                    self._check(span)
            missing = subtract(wanted, self._good)
        return missing

    def _check(self, span: Span) -> None:
        digest = self._unchecked.pop(span)
        if digest_of(self.read(*span)) == digest:
            self._good = merge([*self._good, span])
        else:
            LOG.warning("%s: a damaged piece of the cache is fetched again", self.folder)

    def write(self, start: int, data: bytes) -> None:
        """Keep a piece: first the bytes, then the line that says so."""
        _write_all(self._data, data, start)
        # The line break before it ends a line that a killed job left torn.
        os.write(self._journal, f"\n{start} {len(data)} {digest_of(data)}\n".encode())
        self._good = merge([*self._good, (start, start + len(data))])

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self._data, end - start, start)


def digest_of(data: bytes) -> str:
    """Return the BLAKE2b digest of a piece."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _write_all(handle: int, data: bytes, start: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], start + done)


# --- fetching -------------------------------------------------------------------------------


class RangeCache:
    """Files on servers as if they were here; what is read is kept.

    Args:
        folder: where ranges are kept.
        sign: turns an address into what is sent.
        connections: most connections to one host, over all jobs that share the cache.
        retries: failures in a row, without new bytes, after which to give up.
        timeout: seconds without an answer, or with less than 1 KiB a second, after which a
            connection is given up.
        sleep: waits a number of seconds.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        sign: Sign = unsigned,
        connections: int = 4,
        retries: int = 5,
        timeout: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = Path(folder)
        self.connections = connections
        self._sign, self._retries, self._timeout, self._sleep = sign, retries, timeout, sleep
        self._idle: deque[requests.Session] = deque()
        self._not_before: dict[str, float] = {}
        self._used: dict[Remote, list[Span]] = {}
        self._noting = threading.Lock()

    # ---- what users of the cache call

    def describe(self, href: str) -> Remote:
        """Ask a server for size and version of a file; its first bytes are kept.

        A file that was described before is asked for only in case it has changed.

        Raises:
            InputError: if the file cannot be had.
        """
        key = hashlib.sha256(href.encode()).hexdigest()[:40]
        note = self.folder / "known" / f"{key}.json"
        known = Remote(**json.loads(note.read_text())) if note.exists() else None
        if known and (not known.validator or self.missing(known, [(0, min(HEADER, known.size))])):
            known = None
        found = _Answer(self, Remote(href, -1, ""), 0, HEADER, known=known)
        self._persist(found)
        if found.remote != known:
            with raster.replacing(note) as temporary:
                temporary.write_text(json.dumps(vars(found.remote)) + "\n")
        return found.remote

    def open(self, remote: Remote, *, silent: bool = False) -> RemoteFile:
        """Open a file for reading; what is missing is fetched when it is read."""
        return RemoteFile(self, remote, silent=silent)

    def missing(self, remote: Remote, wanted: Sequence[Span]) -> list[Span]:
        """Return the bytes of a file that would have to be fetched."""
        with self._store(remote) as store, store.locked():
            return store.missing(merge(wanted))

    def fetch(self, wanted: Mapping[Remote, Sequence[Span]], *, name: str) -> int:
        """Fetch ranges of many files at once; return the bytes that came.

        Args:
            wanted: spans by file.
            name: what progress is called.

        Raises:
            InputError: if the disk has too little space, or a file cannot be had.
        """
        jobs = {}
        for remote, spans in wanted.items():
            _require_within(remote, spans)
            self.note(remote, spans)
            missing = self.missing(remote, spans)
            if missing:
                jobs[remote] = missing
        volume = sum(map(total, jobs.values()))
        if not volume:
            return 0
        require_space(self.folder, volume, field="cache")
        LOG.info("%s: %.2f MB of %d files to fetch", name, volume / 1e6, len(jobs))
        with Progress(name, volume, logger=LOG) as progress:
            run_parallel(
                lambda job: self.ensure(job[0], job[1], progress=progress),
                list(jobs.items()),
                workers=self.connections,
            )
        return volume

    def ensure(
        self, remote: Remote, wanted: Sequence[Span], *, progress: Progress | None = None
    ) -> None:
        """Fetch what is missing of some ranges of one file."""
        _require_within(remote, wanted)
        self.note(remote, wanted)
        with self._store(remote) as store, store.locked():
            # Bytes in a small gap are taken along, but never twice.
            for start, end in store.missing(merge(wanted, gap=GAP)):
                self._persist(_Answer(self, remote, start, end, store, progress))

    def note(self, remote: Remote, spans: Sequence[Span]) -> None:
        """Remember that bytes were asked for through this object."""
        with self._noting:
            self._used[remote] = merge([*self._used.get(remote, ()), *spans])

    def used(self) -> Iterator[tuple[Remote, Iterator[tuple[int, bytes]]]]:
        """Give what was asked for through this object and is here, file by file.

        Yields:
            the file, and its bytes in pieces of at most :data:`CHUNK`, each with its start.
        """
        for remote, spans in sorted(self._used.items(), key=lambda item: item[0].href):
            yield remote, self._pieces(remote, spans)

    def _pieces(self, remote: Remote, spans: Sequence[Span]) -> Iterator[tuple[int, bytes]]:
        with self._store(remote) as store, store.locked():
            for start, end in subtract(spans, store.missing(spans)):
                for at in range(start, end, CHUNK):
                    yield at, store.read(at, min(end, at + CHUNK))

    def keep(self, remote: Remote, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Keep bytes of a file that came another way than from its server."""
        with self._store(remote) as store, store.locked():
            for start, data in pieces:
                span = (start, start + len(data))
                if store.missing([span]):
                    store.write(start, data)

    # ---- how

    def _store(self, remote: Remote) -> contextlib.closing[_Store]:
        return contextlib.closing(self._open_store(remote))

    def _open_store(self, remote: Remote) -> _Store:
        key = hashlib.sha256(
            f"{remote.href}\n{remote.size}\n{remote.validator}".encode()
        ).hexdigest()[:40]
        return _Store(self.folder / key[:2] / key, remote)

    def _persist(self, answer: _Answer) -> None:
        failures, farthest = 0, answer.at
        while not answer.done:
            try:
                with self._slot(answer.host), self._session() as session:
                    answer.request(session, self._timeout)
            except OSError as error:  # includes requests' and urllib3's errors of connections
                if not isinstance(error, requests.RequestException):
                    raise self._disk_error(error) from error
                failures = self._failed(answer, error, failures, farthest)
            except (TryAgainError, urllib3.exceptions.HTTPError) as error:
                failures = self._failed(answer, error, failures, farthest)
            farthest = max(farthest, answer.at)

    def _failed(self, answer: _Answer, error: Exception, failures: int, farthest: int) -> int:
        failures = 0 if answer.at >= farthest + GAIN else failures + 1
        reason = redact(str(error))
        if failures > self._retries:
            raise InputError(
                f"{answer.remote.href} failed {failures} times in a row, last: {reason}; "
                "what came is kept, and the next run goes on from there",
                field="sources.stac",
                remedy="check the network and the server, then run again",
            ) from error
        asked = error.wait if isinstance(error, TryAgainError) else None
        wait = pause(failures, asked)
        LOG.warning("%s: %s; again in %.1f s", answer.remote.name, reason, wait)
        if asked is not None:  # the whole host asked for a pause, not this file
            self._not_before[answer.host] = time.monotonic() + wait
        self._sleep(wait)
        return failures

    def _disk_error(self, error: OSError) -> InputError:
        return InputError(
            f"cannot keep what was fetched ({error.strerror or error})",
            file=self.folder,
            field="cache",
            remedy="free some space, or set 'cache' in the config to another disk; "
            "what came is kept, and the next run goes on from there",
        )

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """Lend a session to one thread at a time: its connections stay open for the next."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = requests.Session()
            session.trust_env = True
            session.auth = _no_auth  # ~/.netrc must not replace a signature
        yield session  # one that failed is not lent again
        self._idle.append(session)

    @contextlib.contextmanager
    def _slot(self, host: str) -> Iterator[None]:
        """Take one of the connections to a host; locks on files count those of other jobs."""
        self._sleep(max(0.0, self._not_before.get(host, 0.0) - time.monotonic()))
        folder = self.folder / "hosts"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9.-]", "_", host)
        while True:
            for place in range(self.connections):
                with open(folder / f"{name}.{place}", "a") as stream:
                    try:
                        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    except OSError:
                        pass  # no locks on this file system; the threads are few enough
                    yield
                    return
            time.sleep(0.01)


def require_space(folder: Path, volume: int, *, field: str) -> None:
    """Check that the disk of a folder can take ``volume`` more bytes.

    Raises:
        InputError: if it cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < volume:
        raise InputError(
            f"{volume / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free",
            file=folder,
            field=field,
            remedy=f"free some space, or set {field!r} to a folder on a larger disk",
        )


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _require_within(remote: Remote, spans: Sequence[Span]) -> None:
    end = max((end for _, end in spans), default=0)
    if end > remote.size:
        raise BadFileError(
            f"needs bytes up to {end}, the server's file has {remote.size}: it is truncated",
            file=remote.href,
            remedy="leave the item out (sources.stac.leave_out), or tell the catalogue's keeper",
        )


def run_parallel(work: Callable, items: Sequence, *, workers: int) -> list:
    """Return ``work`` of every item, in order; the first error stops what has not begun.

    Raises:
        Exception: the first error.
    """
    with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Answer:
    """One range of one file on its way, over as many requests as it takes.

    Attributes:
        remote: the file; size and version become known with the first answer.
        at: the next byte that is missing.
    """

    def __init__(
        self,
        cache: RangeCache,
        remote: Remote,
        start: int,
        end: int,
        store: _Store | None = None,
        progress: Progress | None = None,
        known: Remote | None = None,
    ) -> None:
        self._cache, self.remote, self._store, self._progress = cache, remote, store, progress
        self.at, self._end, self._known = start, end, known
        self._renew, self._renewed, self._whole = False, False, False

    @property
    def host(self) -> str:
        return urlsplit(self.remote.href).netloc

    @property
    def done(self) -> bool:
        return self.remote.size >= 0 and self.at >= min(self._end, self.remote.size)

    def request(self, session: requests.Session, timeout: float) -> None:
        """Send one request and keep what comes."""
        signed = self._cache._sign(self.remote.href, self._renew)
        self._renew = False
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": AGENT,
            **signed.headers,
            "Range": f"bytes={self.at}-{self._end - 1}",
        }
        if self.remote.validator.startswith('"'):
            headers["If-Match"] = self.remote.validator
        if self._known:
            tag = self._known.validator
            headers["If-None-Match" if tag.startswith('"') else "If-Modified-Since"] = tag
        try:
            response = send(session, "GET", signed.url, headers=headers, timeout=timeout)
        except ValueError as error:  # requests reports addresses that make no sense this way
            raise BadFileError(
                redact(str(error)),
                file=self.remote.href,
                field="href",
                remedy="the catalogue's item is wrong; leave it out (sources.stac.leave_out)",
            ) from error
        with contextlib.closing(response):
            if response.status_code == 304 and self._known:
                self.remote, self.at = self._known, self._end
                return
            self._take(response, self._position(response), timeout)

    def _position(self, response: requests.Response) -> int:
        """Return the first byte that an answer holds; its version is checked or learnt."""
        status = response.status_code
        if status == 206:
            text = response.headers.get("Content-Range", "").strip()
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text)
            if not match or int(match[1]) != self.at:
                raise TryAgainError(f"sent the range {text!r}, asked were bytes from {self.at}")
            self._know(int(match[2]), validator_of(response.headers))
            return self.at
        if status == 200:
            size = number(response.headers.get("Content-Length"))
            if size is None:
                raise InputError(
                    "the server says neither size nor range",
                    file=self.remote.href,
                    remedy="use a server that answers range requests",
                )
            self._know(size, validator_of(response.headers))
            if not self._whole:  # a server without ranges: all of the file is kept
                self._whole, self.at, self._end = True, 0, size
            return 0
        self._refuse(response)
        raise AssertionError("unreachable")

    def _know(self, size: int, validator: str) -> None:
        before = self.remote
        if before.size < 0:
            self.remote = Remote(before.href, size, validator)
        elif size != before.size or (before.validator and validator != before.validator):
            found = f"{size} bytes, version {validator or 'unknown'}"
            self._changed(f"has {found} instead of {before.size}, {before.validator or 'unknown'}")

    def _changed(self, how: str) -> None:
        raise RemoteChangedError(
            f"the server's file is not the one that was searched: it {how}",
            file=self.remote.href,
            remedy="search again: snakemake --forcerun search_scene -- search",
        )

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        problem = f"the server answers {status} {response.reason}"
        if is_passing(status):
            wait = retry_after(response.headers)
            if wait is None or wait <= LONGEST_WAIT:
                raise TryAgainError(problem, wait=wait)
            problem = f"{problem} and asks to come back in {wait:.0f} s"
        if status in (401, 403) and not self._renewed:
            self._renew = self._renewed = True
            raise TryAgainError(f"{problem}; signing again", wait=0.0)
        if status in (412, 416) and self.remote.size >= 0:
            self._changed(f"is answered with {status} {response.reason}")
        gone = status in (404, 410)
        raise (BadFileError if gone else InputError)(
            problem,
            file=self.remote.href,
            remedy={
                401: "give credentials, see config/README.md",
                403: "give credentials that may read it, see config/README.md",
                404: "search again: snakemake --forcerun search_scene -- search",
            }.get(status, "try later, or leave the item out (sources.stac.leave_out)"),
        )

    def _take(self, response: requests.Response, position: int, timeout: float) -> None:
        """Keep the body piece by piece, as far as the network gave it."""
        with contextlib.ExitStack() as stack:
            store = self._store
            if store is None:
                store = stack.enter_context(self._cache._store(self.remote))
            self._stream(response, store, position, timeout)
        if not self.done:
            raise TryAgainError(
                f"the answer ended {min(self._end, self.remote.size) - self.at} bytes early"
            )

    def _stream(
        self, response: requests.Response, store: _Store, position: int, timeout: float
    ) -> None:
        piece, since, watched = bytearray(), time.monotonic(), [time.monotonic(), 0]
        skip = self.at - position  # sent again by a server without ranges

        def keep() -> None:
            nonlocal piece, since
            data, piece, since = bytes(piece), bytearray(), time.monotonic()
            if data:
                store.write(self.at, data)
                self.at += len(data)
                if self._progress:
                    self._progress.add(len(data))

        try:
            while self.at + len(piece) < min(self._end, self.remote.size):
                data = response.raw.read1(PIECE)
                if not data:
                    break
                _watch(watched, len(data), timeout)
                piece += data[skip:]
                skip = max(0, skip - len(data))
                room = min(self._end, self.remote.size) - self.at
                del piece[room:]
                if len(piece) >= PIECE or time.monotonic() - since > 0.5:
                    keep()
        finally:
            keep()


def _watch(watched: list, gained: int, timeout: float) -> None:
    """Give up a connection that drips: each byte alone would keep it alive for ever."""
    watched[1] += gained
    elapsed = time.monotonic() - watched[0]
    if elapsed >= timeout:
        if watched[1] < SLOWEST * elapsed:
            raise TryAgainError(f"{watched[1]} bytes in {elapsed:.0f} s: the connection is stuck")
        watched[:] = [time.monotonic(), 0]


class RemoteFile(io.RawIOBase):
    """A file on a server as Python reads files; GDAL reads through it, too.

    Attributes:
        remote: the file.
        error: what went wrong, where the file is silent: an exception must not pass through
            GDAL, so that a silent file just ends early.
    """

    def __init__(self, cache: RangeCache, remote: Remote, *, silent: bool = False) -> None:
        super().__init__()
        self._silent = silent
        self._cache, self.remote, self._at = cache, remote, 0
        self.error: Exception | None = None
        self._store = cache._open_store(remote)
        self.name = remote.href

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.remote.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:  # noqa: D102
        end = self.remote.size if size < 0 else min(self._at + size, self.remote.size)
        if end <= self._at:
            return b""
        try:
            self._require(self._at, end)
        except Exception as error:
            if not self._silent:
                raise
            self.error = error
            return b""
        self._cache.note(self.remote, [(self._at, end)])
        data = self._store.read(self._at, end)
        self._at = end
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:  # noqa: D102
        into = memoryview(buffer).cast("B")
        data = self.read(len(into))
        into[: len(data)] = data
        return len(data)

    def _require(self, start: int, end: int) -> None:
        if not self._store.missing([(start, end)]):
            return
        self._store.reload()  # others may have fetched it
        if not self._store.missing([(start, end)]):
            return
        whole = (start // HEADER * HEADER, min(-(-end // HEADER) * HEADER, self.remote.size))
        self._cache.ensure(self.remote, [whole])
        self._store.reload()
        if self._store.missing([(start, end)]):
            raise InputError(
                f"bytes {start} to {end} cannot be kept", file=self._store.folder, remedy="check it"
            )

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            self._store.close()
        super().close()
