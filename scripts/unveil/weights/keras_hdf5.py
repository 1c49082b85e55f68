"""Weights of legacy Keras models (2.x, HDF5), read as plain arrays.

Such a file has one group per layer and the attribute ``layer_names`` with the order of the
layers; each group has the attribute ``weight_names``. A whole-model file keeps the same
below ``model_weights``, beside a model description whose Lambda layers hold marshalled
Python code. Only numeric datasets are read here: no description, no code.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.hdf5 import open_hdf5
from unveil.weights.arrays import (
    DOWNLOAD_AGAIN,
    HDF5_SIGNATURE,
    NamedArrays,
    describe_content,
    require_file,
    require_size,
)

WHOLE_MODEL_GROUP = "model_weights"


def read_keras_hdf5(path: str | Path) -> NamedArrays:
    """Read the weights of a Keras 2 HDF5 file in the order of its layers.

    Layers are taken in the order of ``layer_names``, never by the numbers in their names,
    so files of the second model of a process or with reordered groups read alike. Layers
    without weights (inputs, activations, Lambdas of a training head) and optimizer moments
    are passed over.

    Returns:
        Arrays named ``LAYER/kernel:0`` as in the file, in the file's dtypes.

    Raises:
        InputError: if the file is missing, empty, truncated, no HDF5, no Keras file, or names
            other files.
    """
    path = require_file(path)
    with open(path, "rb") as stream:
        if stream.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
            raise InputError(
                f"not an HDF5 file; found {describe_content(path)}",
                file=path,
                remedy=DOWNLOAD_AGAIN,
            )
    kind = f"HDF5, it is damaged or truncated at {path.stat().st_size:,} bytes"
    with reading_input(path, kind, remedy=DOWNLOAD_AGAIN), open_hdf5(path) as file:
        arrays = _read_layers(_weights_group(file, path), path)
    return NamedArrays(arrays, path, raster.sha256(path))


def _weights_group(file: h5py.File, path: Path) -> h5py.Group:
    group = file.get(WHOLE_MODEL_GROUP, file)
    if "layer_names" not in group.attrs and "layer_names0" not in group.attrs:
        raise InputError(
            f"no attribute 'layer_names'; the file has {', '.join(list(file)[:8]) or 'nothing'}",
            file=path,
            remedy="give weights saved by Keras 2 as HDF5 (save_weights or save)",
        )
    return group


def _read_layers(group: h5py.Group, path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    total = 0
    for layer in _names(group.attrs, "layer_names"):
        if layer not in group:
            raise InputError(
                "listed in 'layer_names', but its group is absent",
                file=path,
                field=layer,
                remedy=DOWNLOAD_AGAIN,
            )
        for name in _names(group[layer].attrs, "weight_names"):
            dataset = _numeric_dataset(group[layer], name, path)
            total += dataset.size * dataset.dtype.itemsize
            require_size(total, path)
            arrays[name if name not in arrays else f"{layer}/{name}"] = dataset[()]
    return arrays


def _numeric_dataset(layer: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    dataset = layer.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        found = "absent" if dataset is None else "not an array of numbers"
        raise InputError(
            f"listed in 'weight_names', but {found}",
            file=path,
            field=name,
            remedy=DOWNLOAD_AGAIN,
        )
    return dataset


def _names(attributes: h5py.AttributeManager, key: str) -> list[str]:
    """Return a list of names, which Keras splits over KEY0, KEY1 ... when it is long."""
    if key in attributes:
        parts = [attributes[key]]
    else:
        parts = []
        while f"{key}{len(parts)}" in attributes:
            parts.append(attributes[f"{key}{len(parts)}"])
    # Fixed-length attributes come as bytes, variable-length ones as str.
    return [
        name.decode("utf-8") if isinstance(name, bytes) else str(name)
        for part in parts
        for name in part
    ]
