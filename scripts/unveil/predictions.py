"""Predictions on the disk: the image, its standard deviation, and the record beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.errors import InputError
from unveil.records import again, harmed, made_of, read_record, sums_of, write_record

KIND = "a record of a prediction"


def image_path(folder: Path, scene: str) -> Path:
    """Return where a model's answer for a scene is.

    Args:
        folder: ``results/predictions/MODEL``.
        scene: id of the scene.
    """
    return folder / f"{scene}.tif"


def std_path(folder: Path, scene: str) -> Path:
    """Return where the standard deviations of an answer are, if the model gives any."""
    return folder / f"{scene}_std.tif"


def record_path(folder: Path, scene: str) -> Path:
    """Return where the record of an answer is, which vouches for both."""
    return folder / f"{scene}.json"


def discard_prediction(folder: Path, scene: str) -> None:
    """Remove what an earlier run answered for a scene, its record first.

    Args:
        folder: ``results/predictions/MODEL``.
        scene: id of the scene.
    """
    record_path(folder, scene).unlink(missing_ok=True)
    for path in (image_path(folder, scene), std_path(folder, scene)):
        raster.discard_leftovers(path)
        path.unlink(missing_ok=True)


def write_prediction_record(
    folder: Path,
    facts: Mapping[str, Any],
    *,
    made_from: Mapping[str, str] | None = None,
    rule: str = "",
) -> dict[str, Any]:
    """Write the record of a prediction whose files are in place, and return it.

    Args:
        folder: ``results/predictions/MODEL``.
        facts: what is known of the prediction, its ``scene`` among it.
        made_from: its identity.
        rule: the rule that makes it again.
    """
    image, std = image_path(folder, facts["scene"]), std_path(folder, facts["scene"])
    sums = sums_of([image, std] if std.exists() else [image])
    return write_record(
        record_path(folder, facts["scene"]),
        {**facts, "file": image.name, "bytes": image.stat().st_size},
        made_from=made_from,
        files={path.name: known for path, known in sums.items()},
        rule=rule,
    )


def vouched_files(record: Mapping[str, Any], folder: Path) -> dict[Path, str]:
    """Return the images that a record vouches for, with their SHA-256."""
    return {folder / name: known for name, known in made_of(record)["files"].items()}


def require_intact(record: Mapping[str, Any], folder: Path, *, rule: str) -> None:
    """Refuse a prediction that is missing or not as the model wrote it.

    Args:
        record: of the prediction.
        folder: ``results/predictions/MODEL``.
        rule: the rule that makes it again.

    Raises:
        InputError: naming the file.
    """
    for path in harmed(vouched_files(record, folder)):
        raise InputError("is missing or not as the model wrote it", file=path, remedy=again(rule))


def find_images(predictions: Path, models: Iterable[str], scene: str) -> dict[str, Path]:
    """Return the image of every model that answers for a scene, each checked.

    Args:
        predictions: ``results/predictions``.
        models: ids of models.
        scene: id of the scene.

    Raises:
        InputError: if an image is not as the model wrote it.
    """
    found = {}
    for model in models:
        folder = predictions / model
        if record_path(folder, scene).exists():
            record = read_record(record_path(folder, scene), kind=KIND)
            require_intact(record, folder, rule=made_of(record)["by"])
            found[model] = image_path(folder, scene)
    return found


def files_of_records(
    records: Mapping[str, Sequence[Mapping[str, Any]]], predictions: Path
) -> list[Path]:
    """List the files of all predictions, their records included.

    Args:
        records: model id -> its records, one per scene.
        predictions: ``results/predictions``.
    """
    return [
        path
        for model, rows in records.items()
        for row in rows
        if row["status"] == "predicted"
        for path in (
            *vouched_files(row, predictions / model),
            record_path(predictions / model, row["scene"]),
        )
    ]
