"""Fetched bytes of a scene in one archive, so that a store can keep them between jobs.

The range cache is a folder of sparse files, which hold what other scenes of the same tile need,
too. An archive is a tar of what one scene asked for: for each version of a file
``N/about.json``, followed by its pieces, ``N/START-DIGEST``. It is a cache: a piece that does not
fit its digest is left out, and fetched from the server when it is needed.
"""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.remote.range_cache import CHUNK, RangeCache, Remote, digest_of, require_space

LOG = logging.getLogger(__name__)

AGAIN = "none is needed, what is missing is fetched again"
LARGEST = 64 << 10
"""Bytes that a description may have."""


def pack_fetched(archive: Path, caches: Iterable[RangeCache]) -> None:
    """Write all bytes that were asked for through some caches into an archive."""
    files = moved = 0
    with raster.replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for cache in caches:
            for remote, pieces in cache.used():
                files += 1
                _add(tar, f"{files}/about.json", json.dumps(vars(remote)).encode())
                for start, data in pieces:
                    _add(tar, f"{files}/{start}-{digest_of(data)}", data)
                    moved += len(data)
    LOG.info("%s: %.2f MB of %d files packed", archive.name, moved / 1e6, files)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def take_fetched(archive: Path, folder: Path) -> None:
    """Put the bytes of an archive into the cache of a folder; what is damaged is left out.

    Raises:
        InputError: if the disk has too little space.
    """
    cache = RangeCache(folder)
    require_space(folder, archive.stat().st_size, field="cache")
    try:
        with reading_input(archive, "an archive of fetched bytes", remedy=AGAIN):
            with tarfile.open(archive) as tar:
                for _, members in groupby(tar, lambda member: member.name.partition("/")[0]):
                    _keep(cache, tar, members, archive)
    except InputError as error:
        LOG.warning("%s", error)


def _keep(
    cache: RangeCache, tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], archive: Path
) -> None:
    remote = _describe(_content(tar, next(members), LARGEST))
    cache.keep(remote, _pieces(remote, tar, members, archive))


def _pieces(
    remote: Remote, tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], archive: Path
) -> Iterator[tuple[int, bytes]]:
    for member in members:
        named = re.fullmatch(r"\d+/(\d{1,18})-([0-9a-f]{32})", member.name)
        if named is None:
            raise ValueError(f"{member.name!r} is no piece of a file")
        start, digest = named.groups()
        data = _content(tar, member, CHUNK)
        if int(start) + len(data) > remote.size:
            raise ValueError(f"{member.name!r} lies beyond the end of its file")
        if digest_of(data) == digest:
            yield int(start), data
        else:
            LOG.warning("%s: a piece is damaged; %s", archive, AGAIN)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or member.size > most:
        raise ValueError(f"{member.name!r} is no piece of a file")
    data = stream.read()
    if len(data) != member.size:
        raise ValueError(f"{member.name!r} is cut off")
    return data


def _describe(text: bytes) -> Remote:
    remote = Remote(**json.loads(text))
    if not (isinstance(remote.href, str) and isinstance(remote.validator, str)):
        raise TypeError("address and version must be text")
    if not 0 <= int(remote.size) < 2**50:
        raise ValueError(f"a file of {remote.size} bytes")
    return remote
