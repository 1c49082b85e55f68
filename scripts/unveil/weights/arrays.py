"""Named arrays: what every reader of weights gives, and the format of weights trained here.

Weights trained here are plain NumPy archives (``.npz``), read with ``allow_pickle=False``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import ARRAYS_RATIO, is_web_page, read_npz, reading_input, require_plausible

SIZE_LIMIT = 4 * 2**30
"""Most bytes of weights read from one file; published networks stay far below 1 GiB."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"

RENEW = "train or download the weights again"
DOWNLOAD_AGAIN = (
    "download the weights again from the address in resources/published_weights.tsv and check "
    "the file's size"
)


@dataclass(frozen=True)
class NamedArrays:
    """Weights of one file.

    Attributes:
        arrays: name -> array, in the order of the network's layers; treat as read-only.
        path: the file they came from, for messages.
        sha256: checksum of that file.
    """

    arrays: Mapping[str, np.ndarray]
    path: Path
    sha256: str

    def under(self, prefix: str) -> NamedArrays:
        """Return the arrays whose names begin with ``prefix``, which is cut off.

        Raises:
            InputError: if there are none; the message lists the groups there are.
        """
        found = {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }
        if not found:
            groups = sorted({name.split("/")[0] for name in self.arrays})
            raise InputError(
                f"no arrays under {prefix!r}; the file has {', '.join(groups[:12]) or 'none'}",
                file=self.path,
                remedy="give the weights of the model that the table names",
            )
        return NamedArrays(found, self.path, self.sha256)


def describe_content(path: Path) -> str:
    """Say what a file is by its first bytes, for messages about a wrong file."""
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        return "an empty file"
    if is_web_page(path):
        return "an HTML page saved under the name of the weights"
    if head.startswith(HDF5_SIGNATURE):
        return "an HDF5 file"
    if head.startswith(ZIP_SIGNATURE):
        return "a zip archive"
    return f"a file that begins with {head[:8]!r}"


def require_file(path: str | Path) -> Path:
    """Return the path of a weights file.

    Raises:
        InputError: if it does not exist, is no file or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("weights file not found", file=path, remedy=DOWNLOAD_AGAIN)
    if not path.stat().st_size:
        raise InputError("the weights file is empty (0 bytes)", file=path, remedy=DOWNLOAD_AGAIN)
    return path


def require_size(bytes_found: int, path: Path) -> None:
    """Refuse a file that declares more weights than any network here has, or than it can hold.

    Raises:
        InputError: if ``bytes_found`` exceeds :data:`SIZE_LIMIT`.
    """
    require_plausible(bytes_found, path, ratio=ARRAYS_RATIO)
    if bytes_found > SIZE_LIMIT:
        raise InputError(
            f"declares {bytes_found / 2**30:.1f} GiB of weights, more than the limit of "
            f"{SIZE_LIMIT / 2**30:.0f} GiB",
            file=path,
            remedy=DOWNLOAD_AGAIN,
        )


def check_values(named: NamedArrays) -> None:
    """Check that weights are finite and that no kernel or matrix is all zero.

    Vectors may be zero (a bias that was never trained).

    Raises:
        InputError: naming the file and the first array at fault.
    """
    for name, array in named.arrays.items():
        if np.issubdtype(array.dtype, np.floating):
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                raise InputError(
                    f"{bad} of {array.size} values are not finite",
                    file=named.path,
                    field=name,
                    remedy=DOWNLOAD_AGAIN,
                )
        if array.ndim > 1 and not array.any():
            raise InputError(
                f"all {array.size} values are zero, the file holds no trained weights there",
                file=named.path,
                field=name,
                remedy=DOWNLOAD_AGAIN,
            )


def check_shapes(named: NamedArrays, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes against those of a network, strictly.

    Args:
        named: the weights found.
        expected: name -> shape of every array of the network.

    Raises:
        InputError: naming missing, unknown and misshapen arrays.
    """
    missing = [name for name in expected if name not in named.arrays]
    unknown = [name for name in named.arrays if name not in expected]
    wrong = [
        f"{name} {named.arrays[name].shape} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in named.arrays and named.arrays[name].shape != tuple(shape)
    ]
    found = [
        f"{len(names)} {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("misshapen", wrong),
        )
        if names
    ]
    if found:
        raise InputError(
            f"{len(named.arrays)} arrays for a network of {len(expected)}; {'; '.join(found)}",
            file=named.path,
            remedy="give the weights that belong to this configuration of the model",
        )


def read_arrays(path: str | Path) -> NamedArrays:
    """Read a ``.npz`` of named arrays, in the order they were written.

    Raises:
        InputError: if the file is missing, damaged, too large, or holds Python objects.
    """
    path = require_file(path)
    kind = f"a NumPy archive of plain arrays, it is {describe_content(path)}"
    with reading_input(path, kind, remedy=RENEW), zipfile.ZipFile(path) as archive:
        require_size(sum(entry.file_size for entry in archive.infolist()), path)
    arrays = read_npz(path, kind=kind, remedy=RENEW)
    if not arrays:
        raise InputError("holds no arrays", file=path, remedy=RENEW)
    return NamedArrays(arrays, path, raster.sha256(path))


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, atomically and reproducibly.

    The same arrays give the same bytes: NumPy stamps entries of an archive with a fixed date.

    Raises:
        ValueError: if an array holds Python objects.
    """
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("arrays of Python objects cannot be written as weights")
    entries: dict[str, Any] = dict(arrays)  # to a type checker any of them may be allow_pickle
    with raster.replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **entries)
