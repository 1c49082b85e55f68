"""Whether the images of a product are as their maker wrote them.

``manifest.safe`` of a product states a checksum of every file (MD5, since baseline 04.00 SHA3-256).
Where it states none, a JPEG 2000 itself tells two marks of a broken download: a codestream that
does not end with its marker (ISO/IEC 15444-1, A.4.4), and a run of zeros longer than the empty
packets of any of its tiles. Decoders pass over both without an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import NO_JSON

LOG = logging.getLogger(__name__)

ALGORITHMS = {
    "md5": "md5",
    "sha1": "sha1",
    "sha256": "sha256",
    "sha512": "sha512",
    "sha3256": "sha3_256",
    "sha3512": "sha3_512",
}
"""Python's names of what a manifest calls, say, ``SHA3-256``."""
CHUNK = 1 << 20
HOLE_BYTES = 512
"""Zeros in a row that are a hole in any image; fewer are where its head counts the packets."""
CHANCE_BYTES = 32
"""More zeros in a row than chance leaves in compressed data, beside those of empty packets."""
MAIN_HEADER = 4096
"""Bytes in which the parameters of an image stand."""
SIZE_MARK, CODING, TILE = b"\xff\x51", b"\xff\x52", b"\xff\x90"
CHANGES = (b"\xff\x53", b"\xff\x5f")
"""Markers of an image's size, of how it is coded, of its first tile, and of exceptions to that."""
END = b"\xff\xd9"
AT_ONCE = 4
Checksum = tuple[str, str]
"""Algorithm and hex digest."""


@dataclass(frozen=True)
class Image:
    """One image of a product.

    Attributes:
        name: its path in the product.
        open: opens it for reading bytes.
        stamp: size and time of change (ns) of the file, or of the archive that holds it.
        stated: the checksum that the manifest states; None without one.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    stamp: tuple[int, int]
    stated: Checksum | None


def read_manifest(root: Element) -> dict[str, Checksum]:
    """Return the checksums that a manifest states, by path in the product."""
    found = {}
    for stream in root.iter():
        if stream.tag.rpartition("}")[2] != "byteStream":
            continue
        parts = {node.tag.rpartition("}")[2]: node for node in stream}
        place, digest = parts.get("fileLocation"), parts.get("checksum")
        if place is None or digest is None:
            continue
        kind = "".join(c for c in digest.get("checksumName", "").lower() if c.isalnum())
        if kind in ALGORITHMS and digest.text:
            name = place.get("href", "").replace("\\", "/").removeprefix("./")
            found[name] = (ALGORITHMS[kind], digest.text.strip().lower())
    return found


def first_fault(images: list[Image], memory: Path | None) -> str:
    """Return what is wrong with the first image that is not whole; empty when all are.

    Args:
        images: of one product.
        memory: JSON file in which it is remembered what was read already, with which result;
            None to remember nothing.
    """
    known = _recall(memory)
    new = [image for image in images if _recalled(image, known) is None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for image, fault in zip(new, pool.map(fault_of, new), strict=True):
            known[image.name] = {"of": _mark(image), "fault": fault}
    if new and memory:
        with raster.replacing(memory) as temporary:
            temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    faults = ((image.name, known[image.name]["fault"]) for image in images)
    return next((f"{Path(name).name} {fault}" for name, fault in faults if fault), "")


def fault_of(image: Image) -> str:
    """Read an image whole and return what is wrong with it; empty when nothing is."""
    try:
        with image.open() as stream:
            return _digest_fault(stream, image.stated) if image.stated else jpeg2000_fault(stream)
    except InputError as error:  # an archive has checksums of its own
        return error.fault.partition(": ")[2]


def _digest_fault(stream: IO[bytes], stated: Checksum) -> str:
    kind, expected = stated
    digest = hashlib.new(kind, usedforsecurity=False)
    while data := stream.read(CHUNK):
        digest.update(data)
    if digest.hexdigest() == expected:
        return ""
    return f"has the {kind} {digest.hexdigest()}, manifest.safe states {expected}"


def jpeg2000_fault(stream: IO[bytes]) -> str:
    """Return the mark of a broken download in a JPEG 2000; empty without one, or of other files."""
    head = stream.read(8)
    if head[:4] == b"\xff\x4f\xff\x51":
        return _codestream_fault(stream, None, begun=head)
    if head[4:] != b"jP  ":
        return ""
    while len(head) == 8:
        length, kind = struct.unpack(">I4s", head)
        if length == 1:
            length = struct.unpack(">Q", stream.read(8).rjust(8, b"\0"))[0] - 8
        rest = None if length == 0 else max(0, length - 8)
        if kind == b"jp2c":
            return _codestream_fault(stream, rest)
        if rest is None or len(stream.read(min(rest, CHUNK))) < rest:
            break
        head = stream.read(8)
    return "has no image in it"


def _codestream_fault(stream: IO[bytes], length: int | None, *, begun: bytes = b"") -> str:
    """Look for a hole and the end of a codestream.

    Args:
        stream: stands behind what was read.
        length: bytes that are left; None is all there are.
        begun: what was read of it before.
    """
    hole, seen, tail = b"", 0, begun
    while length is None or seen < length:
        data = stream.read(CHUNK if length is None else min(CHUNK, length - seen))
        if not data:
            break
        hole = hole or bytes(min(HOLE_BYTES, most_packets(tail + data) + CHANCE_BYTES))
        seen += len(data)
        if hole in tail + data:
            return f"has a hole of zeros before byte {seen} of its image"
        tail = (tail + data)[-HOLE_BYTES + 1 :]
    whole = (length is None or seen == length) and tail.endswith(END)
    return "" if whole else f"ends after {seen} bytes, before the end of its image"


def most_packets(codestream: bytes) -> int:
    """Return the most packets of a tile; an empty one is a single byte 0 (ISO/IEC 15444-1, B.10.3).

    Args:
        codestream: its beginning.

    Returns:
        :data:`HOLE_BYTES` where its head does not tell.
    """
    parts = dict(_main_header(codestream[:MAIN_HEADER]))
    try:
        size = struct.unpack(">2x8IH", parts[SIZE_MARK][:36])
        style, layers, levels = struct.unpack(">BxHxB", parts[CODING][:6])
    except (KeyError, struct.error):
        return HOLE_BYTES
    if any(size[6:8]) or not all(size[4:6]) or any(marker in parts for marker in CHANGES):
        return HOLE_BYTES
    precincts = parts[CODING][10:] if style & 1 else b"\xff" * (levels + 1)
    found = sum(
        _along(size[4], exponents & 15, levels - level)
        * _along(size[5], exponents >> 4, levels - level)
        for level, exponents in enumerate(precincts[: levels + 1])
    )
    return layers * size[8] * found or HOLE_BYTES


def _along(side: int, exponent: int, halvings: int) -> int:
    """Return the most precincts of a resolution along one side of a tile."""
    step = 1 << (exponent + halvings)
    if side % step == 0 or step % side == 0:  # tiles are cut where precincts are
        return max(1, side // step)
    return side // step + 2


def _main_header(codestream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield markers and contents of a codestream's main header."""
    at = 2
    while at + 4 <= len(codestream) and codestream[at : at + 2] != TILE:
        marker, length = struct.unpack(">2sH", codestream[at : at + 4])
        yield marker, codestream[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


# --- what was read already ------------------------------------------------------------------


def _mark(image: Image) -> list[object]:
    return [*image.stamp, *(image.stated or ())]


def _recalled(image: Image, known: Mapping[str, Mapping[str, object]]) -> str | None:
    entry = known.get(image.name, {})
    return str(entry["fault"]) if entry.get("of") == _mark(image) else None


def _recall(memory: Path | None) -> dict[str, dict[str, object]]:
    """Read what is remembered; nothing without a file, or from a damaged one."""
    try:
        known = json.loads(memory.read_text()) if memory else {}
        usable = isinstance(known, dict) and all("fault" in entry for entry in known.values())
        return known if usable else {}
    except (OSError, TypeError, *NO_JSON) as error:
        if not isinstance(error, FileNotFoundError):
            LOG.warning("%s: cannot be read (%s); images are checked again", memory, error)
        return {}
