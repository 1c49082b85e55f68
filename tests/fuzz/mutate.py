"""A seeded mutator of files: bytes, integers, text, and what lies inside archives.

Archives are opened and packed again with right checksums, so that what is mutated inside
reaches the reader behind them.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import zipfile

INTEGERS = (0, 1, 2, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
WORDS = (
    "../../../etc/passwd",
    "/etc/passwd",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "'",
    '"',
    "\\",
    "\x00",
    "\t",
    "\n",
    "{scene}",
    "{}",
    "null",
    "true",
    "[]",
    "NaN",
    "nan",
    "-inf",
    "1e999",
    "-1",
    "0",
    "9" * 5000,
    "A" * 70_000,
    "[" * 3000,
    "&a [*a]",
    "*a",
    "!!python/object/apply:os.system ['touch pwned']",
    "2020-13-45",
    "0000-00-00",
    "é",
    "\ud800",
    "١",
)
TEXT_SUFFIXES = (".yaml", ".json", ".geojson", ".tsv", ".csv", ".bib", ".xml", ".tfw")


def mutate(data: bytes, name: str, rng: random.Random) -> bytes:
    """Return a changed copy of a file's bytes.

    Args:
        data: the good file.
        name: its name, which tells text from bytes.
        rng: source of all choices.
    """
    inside = rng.random() < 0.75
    if inside and data.startswith(b"PK\x03\x04"):
        return _mutate_zip(data, rng)
    if inside and data.startswith(b"\x1f\x8b"):
        return gzip.compress(_mutate_bytes(gzip.decompress(data), rng), mtime=0)
    if inside and name.endswith(TEXT_SUFFIXES):
        return _mutate_text(data.decode(), rng).encode(errors="surrogatepass")
    return _mutate_bytes(data, rng)


def _times(rng: random.Random) -> range:
    return range(min(1 + int(rng.expovariate(0.5)), 12))


def _mutate_zip(data: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    victim = rng.randrange(len(entries))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, (entry, content) in enumerate(entries):
            kind = entry.compress_type
            name = entry.filename
            if number == victim:
                change = rng.randrange(12)
                if change == 0:
                    continue
                if change == 1:
                    name = rng.choice(("../x", "/x", name + "x", " ", "x/y/z"))
                elif change == 2:
                    kind = zipfile.ZIP_DEFLATED
                    content = content + bytes(40_000_000)
                else:
                    content = _mutate_bytes(content, rng)
            archive.writestr(name, content, kind)
    return packed.getvalue()


def _mutate_text(text: str, rng: random.Random) -> str:
    for _ in _times(rng):
        tokens = [m.span() for m in re.finditer(r"[\w.+-]+|[^\w\s]|\s", text)]
        if not tokens:
            return text
        start, stop = rng.choice(tokens)
        change = rng.randrange(6)
        if change == 0:
            text = text[:start] + text[stop:]
        elif change == 1:
            text = text[:start] + rng.choice(WORDS) + text[stop:]
        elif change == 2:
            other = rng.choice(tokens)
            text = text[:start] + text[slice(*other)] + text[stop:]
        elif change == 3:
            text = text[:stop] + text[start:stop] * rng.choice((1, 2, 50)) + text[stop:]
        elif change == 4:
            lines = text.splitlines(keepends=True)
            line = rng.randrange(len(lines))
            text = "".join(lines[:line] + lines[line : line + 1] * rng.randrange(3))
            text += "".join(lines[line + 1 :])
        else:
            text = text[:start] + str(rng.choice(INTEGERS)) + text[stop:]
    return text


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in _times(rng):
        if not changed:
            return rng.randbytes(8)
        # Headers decide more than pixels do.
        reach = len(changed) if rng.random() < 0.5 else min(len(changed), 512)
        at = rng.randrange(reach)
        change = rng.randrange(9)
        if change == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            changed[at] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif change in (2, 3, 4):
            size = rng.choice((2, 4, 8))
            value = rng.choice(INTEGERS) % 256**size
            changed[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif change == 5:
            del changed[at : at + rng.choice((1, 2, 8, 64, len(changed)))]
        elif change == 6:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif change == 7:
            size = rng.choice((1, 4, 16, 64))
            source = rng.randrange(len(changed))
            changed[at : at + size] = changed[source : source + size]
        else:
            changed[at : at + rng.choice((1, 8, 64))] = b""
    return bytes(changed)
