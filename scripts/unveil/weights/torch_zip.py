"""PyTorch checkpoints (zip format, PyTorch 1.6 and later) read without PyTorch.

Such a file is a zip archive of stored entries: ``NAME/data.pkl``, a pickle of the saved
containers in which each tensor refers to a storage by key, and ``NAME/data/KEY`` with the
raw numbers. The pickle is read by an unpickler that knows tensors, plain containers and
scalars; anything else it names is refused before it is imported, so a checkpoint cannot
run code. Nothing is extracted to disk.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unveil import raster
from unveil.errors import InputError
from unveil.weights.arrays import (
    DOWNLOAD_AGAIN,
    NamedArrays,
    describe_content,
    require_file,
    require_size,
)

PICKLE_LIMIT = 64 * 2**20
"""Most bytes of ``data.pkl``, which holds names and shapes but no weights."""

VALUES_LIMIT = 1_000_000
"""Most leaves of the saved containers."""

DEPTH_LIMIT = 32
"""Deepest nesting of the saved containers; a container inside itself ends here."""

_BFLOAT16 = "bfloat16"
_STORAGE_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _RefusedError(Exception):
    """Something in the pickle that a checkpoint of plain tensors does not hold."""


class _Mapping(OrderedDict):
    """Stands for any dict class of a checkpoint; drops attributes set on the instance."""

    def __setstate__(self, state: object) -> None:
        """Ignore what PyTorch hangs on a state dict (``_metadata``)."""


class _Fixed:
    """Something the reader lends to the pickle, which the pickle must not alter.

    Frozen dataclasses with slots are not enough: they accept a state when unpickled.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Refuse the state that a BUILD instruction brings."""
        raise _RefusedError(f"an attempt to alter {type(self).__name__}")


@dataclass(frozen=True)
class _Constructor(_Fixed):
    """A function that the pickle may call."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)


@dataclass(frozen=True)
class _StorageType(_Fixed):
    """Element type of a storage, named by the pickle."""

    dtype: str


def read_torch_zip(path: str | Path) -> NamedArrays:
    """Read every tensor of a PyTorch zip checkpoint.

    Names are the keys on the way to the tensor, joined by ``/`` (a checkpoint with
    ``state_dict`` gives ``state_dict/conv.weight``; a bare state dict gives
    ``conv.weight``). Scalars and text are passed over. Tensors that share a storage
    share memory here too. bfloat16 becomes float32, exactly.

    Returns:
        Read-only arrays in the order of the file.

    Raises:
        InputError: if the file is missing, damaged, in the format before PyTorch 1.6,
            or if its pickle holds anything but tensors, plain containers and scalars.
    """
    path = require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            root = _load(archive, path)
        tensors = {name: value for name, value in _leaves(root) if isinstance(value, np.ndarray)}
    except InputError:
        raise
    except _RefusedError as error:
        raise InputError(
            f"refused, because it holds more than plain tensors: {error}",
            file=path,
            remedy="do not trust this file; give a checkpoint that holds only a state dict",
        ) from error
    except zipfile.BadZipFile as error:
        raise InputError(
            f"not a complete PyTorch zip checkpoint ({error}); found {describe_content(path)}",
            file=path,
            remedy=f"{DOWNLOAD_AGAIN}; a file from before PyTorch 1.6 must be saved anew",
        ) from error
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(
            f"a damaged PyTorch checkpoint ({type(error).__name__}: {error})",
            file=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error
    if not tensors:
        raise InputError("holds no tensors", file=path, remedy=DOWNLOAD_AGAIN)
    return NamedArrays(tensors, path, raster.sha256(path))


def _load(archive: zipfile.ZipFile, path: Path) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(
            f"a zip archive, but no PyTorch checkpoint: {len(pickles)} entries NAME/data.pkl",
            file=path,
            remedy=DOWNLOAD_AGAIN,
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        # PyTorch stores its entries; this also rules out archives that swell when read.
        raise _RefusedError("compressed entries, which PyTorch does not write")
    require_size(sum(entry.file_size for entry in entries.values()), path)
    if entries[pickles[0]].file_size > PICKLE_LIMIT:
        raise _RefusedError(f"a pickle of more than {PICKLE_LIMIT} bytes")
    program = archive.read(pickles[0])
    _check_memo(program)
    return _TensorUnpickler(program, archive, folder=pickles[0].removesuffix("data.pkl")).load()


def _check_memo(program: bytes) -> None:
    """Refuse memo indices beyond the program's length, which only serve to fill memory."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(program):
            raise _RefusedError(f"a memo index of {argument}")


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler of tensors (as NumPy arrays), plain containers and scalars."""

    def __init__(self, program: bytes, archive: zipfile.ZipFile, *, folder: str) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._archive, self._folder = archive, folder
        self._storages: dict[str, np.ndarray] = {}
        order = f"{folder}byteorder"
        big = order in archive.namelist() and archive.read(order).strip() == b"big"
        self._byte_order: Literal["<", ">"] = ">" if big else "<"

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global that the pickle names.

        Raises:
            _RefusedError: for every name that is not listed here.
        """
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise _RefusedError(f"the pickle names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the storage that a tensor refers to, ``(numel,)``, read once."""
        kind, storage_type, key, _location, numel = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise _RefusedError(f"a reference to {kind!r}, which is no storage")
        identity = f"{key}:{storage_type.dtype}"
        if identity not in self._storages:
            self._storages[identity] = self._read_storage(key, storage_type.dtype)
        storage = self._storages[identity]
        if storage.size < numel:
            raise ValueError(f"storage {key} has {storage.size} of {numel} elements")
        return storage[:numel]

    def _read_storage(self, key: str, dtype: str) -> np.ndarray:
        data = self._archive.read(f"{self._folder}data/{key}")
        if dtype == _BFLOAT16:
            # The upper half of a float32.
            upper = np.frombuffer(data, f"{self._byte_order}u2").astype(np.uint32)
            storage = (upper << 16).view(np.float32)
        else:
            raw = np.frombuffer(data, np.dtype(dtype).newbyteorder(self._byte_order))
            storage = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        storage.flags.writeable = False
        return storage


def _tensor(storage: np.ndarray, offset: int, size: Any, stride: Any, *_ignored: Any) -> np.ndarray:
    """Return a view of a storage; offset and strides count elements, as in PyTorch."""
    if not isinstance(storage, np.ndarray):
        raise _RefusedError("a tensor without storage")
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError(f"impossible tensor: offset {offset}, size {size}, stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.size:
        raise ValueError(f"tensor of size {size} reaches beyond its storage of {storage.size}")
    # A stride of 0 may repeat elements (expanded tensors), but not without bound.
    if math.prod(size) > max(storage.size, VALUES_LIMIT):
        raise _RefusedError(f"a tensor of size {size} over a storage of {storage.size} elements")
    if 0 in size:
        return np.empty(size, storage.dtype)
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        size,
        tuple(step * storage.itemsize for step in stride),
        writeable=False,
    )


def _parameter(tensor: np.ndarray, *_ignored: Any) -> np.ndarray:
    return tensor


_GLOBALS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _Constructor(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Constructor(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Constructor(_parameter),
    ("torch", "Size"): _Constructor(tuple),
    ("collections", "OrderedDict"): _Mapping,
    ("collections", "Counter"): _Mapping,
    # Sets are pickled as calls of these in protocol 2.
    ("__builtin__", "set"): _Constructor(set),
    ("builtins", "set"): _Constructor(set),
}


def _leaves(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield ``(name, value)`` of everything in nested dicts, lists and tuples.

    Raises:
        _RefusedError: if containers are nested too deeply or hold too many values.
    """
    stack: list[tuple[tuple[str, ...], Any]] = [((), root)]
    seen = 0
    while stack:
        path, value = stack.pop()
        seen += 1
        if len(path) > DEPTH_LIMIT or seen > VALUES_LIMIT:
            raise _RefusedError("containers nested too deeply or with too many values")
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        else:
            yield "/".join(path), value
            continue
        stack.extend(((*path, str(key)), item) for key, item in reversed(items))
