"""The weights of a network, in whichever format their file has.

The format is told by the file's content: users rename what they download.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from unveil.errors import InputError
from unveil.weights.arrays import (
    DOWNLOAD_AGAIN,
    HDF5_SIGNATURE,
    ZIP_SIGNATURE,
    NamedArrays,
    check_shapes,
    check_values,
    describe_content,
    read_arrays,
    require_file,
)
from unveil.weights.keras_hdf5 import read_keras_hdf5
from unveil.weights.torch_zip import read_torch_zip

Format = Literal["keras", "numpy", "torch"]
READERS: dict[Format, Callable[[Path], NamedArrays]] = {
    "keras": read_keras_hdf5,
    "numpy": read_arrays,
    "torch": read_torch_zip,
}
_HEAD_BYTES = 512
"""They hold the name of a zip archive's first entry."""


def format_of(path: str | Path) -> Format:
    """Return the format of a weights file: legacy Keras HDF5, ``.npz`` or PyTorch zip.

    Raises:
        InputError: if the file is missing, empty or none of the three.
    """
    path = require_file(path)
    with open(path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(HDF5_SIGNATURE):
        return "keras"
    if head.startswith(ZIP_SIGNATURE):
        return "numpy" if b".npy" in head else "torch"
    raise InputError(
        f"neither HDF5 nor .npz nor a PyTorch zip checkpoint; found {describe_content(path)}",
        file=path,
        remedy=f"{DOWNLOAD_AGAIN}; a file from before PyTorch 1.6 must be saved anew",
    )


def read_weights(path: str | Path) -> NamedArrays:
    """Read the weights of a network from any of the formats.

    Raises:
        InputError: if the file is missing, damaged or none of the formats.
    """
    return READERS[format_of(path)](Path(path))


def read_state(
    path: str | Path, group: str, expected: Mapping[str, tuple[int, ...]]
) -> NamedArrays:
    """Read a network's weights from a PyTorch checkpoint or from a ``.npz`` of the same names.

    Args:
        path: the file.
        group: key of the state dict within the checkpoint; empty for a bare state dict.
        expected: name -> shape of every weight; counters of training steps are passed over.

    Raises:
        InputError: if the file is missing, damaged, or of another configuration.
    """
    named = read_weights(path)
    if group and format_of(path) == "torch":
        named = named.under(f"{group}/")
    weights = {name: array for name, array in named.arrays.items() if not name.endswith("_tracked")}
    state = NamedArrays(weights, named.path, named.sha256)
    check_shapes(state, expected)
    check_values(state)
    return state
