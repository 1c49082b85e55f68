"""The run manifest: what ran, on what, with which weights and data."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.inputs import read_json, reading_input
from unveil.redaction import redact, redact_tree
from unveil.scene import Scene

PACKAGES = (
    "gdal",
    "h5py",
    "keras",
    "numpy",
    "openvino",
    "pandas",
    "rasterio",
    "s2cloudless",
    "scikit-image",
    "scipy",
    "seaborn",
    "snakemake",
    "tensorflow",
    "tensorflow-cpu",
    "unveil",
)


NO_PARAMETERS = ("optimizer", "running_", "moving_", "num_batches_tracked")


def versions() -> dict[str, str]:
    """Return the versions of Python, GDAL and the installed packages that results depend on."""
    import rasterio

    found = {"python": platform.python_version(), "libgdal": rasterio.__gdal_version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """Return machine, processor, cores this process may use, and memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0),
        "memory": f"{memory:.1f} GiB",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_model(row: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return title, kind, citation, origin and weights of one row of the model table."""
    from unveil.models.base import ModelSpec
    from unveil.models.registry import create

    spec = ModelSpec.from_row(model, row)
    created = create(spec)
    exists = spec.weights is not None and spec.weights.exists()
    return {
        "title": spec.title,
        "kind": spec.kind,
        "citation": created.citation,
        "origin": created.origin,
        "weights": str(spec.weights or ""),
        "weights_sha256": raster.sha256(spec.weights) if exists else "",
        "parameters": count_parameters(spec.weights) if exists else None,
    }


def count_parameters(path: Path) -> int:
    """Return how many numbers a network has learned, from its card or the weights themselves.

    The state of an optimiser and running statistics of a normalisation are no parameters.

    Raises:
        InputError: if the file is damaged.
    """
    from unveil.weights.arrays import HDF5_SIGNATURE, read_arrays
    from unveil.weights.keras_hdf5 import read_keras_hdf5
    from unveil.weights.torch_zip import read_torch_zip

    card = path.with_suffix(".json")
    if card.exists():
        return int(json.loads(card.read_text())["architecture"]["parameters"])
    if path.suffix == ".npz":
        read = read_arrays
    else:
        with open(path, "rb") as stream:
            is_keras = stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
        read = read_keras_hdf5 if is_keras else read_torch_zip
    learned = {
        name: array
        for name, array in read(path).arrays.items()
        if not any(word in name for word in NO_PARAMETERS)
    }
    return sum(array.size for array in learned.values())


def describe_scene(scene: Scene) -> dict[str, Any]:
    """Return protocol, place, licence and what else the report says of a scene."""
    return {"protocol": scene.protocol, "place": scene.place, **scene.facts}


def write_manifest(
    path: str | Path,
    *,
    config: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    scenes: Sequence[Scene],
    records: Sequence[Path],
    command: str,
) -> None:
    """Write ``manifest.json``.

    Args:
        path: the file.
        config: the whole configuration, defaults filled in.
        models: rows of the model table that ran.
        scenes: scenes ready for analysis.
        records: the inference records; their costs are summed a model.
        command: the command line of the workflow.
    """
    document = {
        "command": redact(command),
        "versions": versions(),
        "hardware": hardware(),
        "config": redact_tree(config),
        "models": {model: describe_model(row, model) for model, row in models.items()},
        "costs": costs(records),
        "scenes": {scene.id: describe_scene(scene) for scene in scenes},
    }
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def std_path(folder: Path, scene: str) -> Path:
    """Return where the standard deviations of a scene are, if the model gives any."""
    return folder / f"{scene}_std.tif"


def prediction_files(
    records: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path
) -> list[Path]:
    """List the files of all predictions, with their standard deviations and manifests.

    Args:
        records: model id -> its inference records.
        folder: ``results/predictions``.
    """
    made = [
        path
        for model, rows in records.items()
        for row in rows
        if row["status"] == "predicted"
        for path in (
            folder / model / row["file"],
            std_path(folder / model, row["scene"]),
            folder / model / f"{row['scene']}.json",
        )
    ]
    return [path for path in made if path.exists()]


def intact(record: dict[str, Any], folder: Path) -> bool:
    """Return whether the files of a record are those that the model wrote."""
    path, std = folder / record["file"], std_path(folder, record["scene"])
    if not path.exists() or raster.sha256(path) != record["sha256"]:
        return False
    wanted = record["std_sha256"]
    return not wanted or (std.exists() and raster.sha256(std) == wanted)


def costs(records: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Sum pixels and seconds of all predictions of each model; list what they ran on."""
    total: dict[str, dict[str, Any]] = {}
    remedy = "delete it and run the workflow again"
    for path in records:
        document = read_json(path, kind="an inference record", remedy=remedy)
        with reading_input(path, "an inference record", remedy=remedy):
            for model, rows in document["models"].items():
                for record in rows:
                    if record["status"] == "predicted":
                        _add_cost(total, model, record)
    return total


def _add_cost(total: dict[str, dict[str, Any]], model: str, record: Mapping[str, Any]) -> None:
    empty = {"pixels": 0, "wall_seconds": 0.0, "model_seconds": 0.0, "devices": []}
    cost = total.setdefault(model, empty)
    cost["pixels"] += record["pixels"]
    cost["wall_seconds"] = round(cost["wall_seconds"] + record["wall_seconds"], 3)
    cost["model_seconds"] = round(cost["model_seconds"] + record["model_seconds"], 3)
    place = record["device"]
    if record["backend"] != "numpy":
        place += f" in {record['precision']} ({record['backend']})"
    if place not in cost["devices"]:
        cost["devices"].append(place)
