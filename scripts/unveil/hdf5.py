"""HDF5 files of strangers: opened only where all that they hold lies in them.

External links, external storage and virtual datasets name other files, which HDF5 reads when
the object is touched (HDF5 User's Guide, chapters on groups and on datasets).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py

MOST_OBJECTS = 100_000


@contextlib.contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises:
        ValueError: if it names other files, or holds objects without end.
        OSError: if it is no HDF5 or damaged.
    """
    with h5py.File(path, "r") as file:
        _require_own(file)
        yield file


def _require_own(file: h5py.File) -> None:
    waiting: list[h5py.Group] = [file]
    seen: set[int] = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link, which may lead to another file")
            held = group[name]
            address = h5py.h5o.get_info(held.id).addr
            if isinstance(held, h5py.Dataset) and (held.external or held.is_virtual):
                raise ValueError(f"the data of {name!r} lie in another file")
            if isinstance(held, h5py.Group) and address not in seen:
                waiting.append(held)
            seen.add(address)
            if len(seen) > MOST_OBJECTS:
                raise ValueError(f"holds more than {MOST_OBJECTS:,} objects")
