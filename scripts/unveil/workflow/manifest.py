"""The run manifest: what ran, on what, with which weights and data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.guarded import reading_input
from unveil.machine import hardware, versions
from unveil.records import again, read_record, write_record
from unveil.redaction import redact, redact_tree
from unveil.scene import Scene

NO_PARAMETERS = ("optimizer", "running_", "moving_", "num_batches_tracked")


def describe_model(row: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return title, kind, citation, origin and weights of one row of the model table."""
    from unveil.models.base import ModelSpec
    from unveil.models.registry import facts_of, is_own

    spec = ModelSpec.from_row(model, row)
    facts = facts_of(spec)
    weights = spec.weights if spec.weights and spec.weights.exists() else None
    return {
        "title": spec.title,
        "kind": spec.kind,
        "citation": facts.citation,
        "origin": facts.origin,
        "series": facts.series,
        "weights": str(spec.weights or ""),
        "weights_sha256": raster.sha256(weights) if weights else "",
        # of a format that only its own code can read
        "parameters": count_parameters(weights) if weights and not is_own(spec.kind) else None,
    }


def count_parameters(path: Path) -> int:
    """Return how many numbers a network has learned, from its card or the weights themselves.

    The state of an optimiser and running statistics of a normalisation are no parameters.

    Raises:
        InputError: if the file is damaged.
    """
    from unveil.weights.read import read_weights

    card = path.with_suffix(".json")
    if card.exists():
        return int(json.loads(card.read_text())["architecture"]["parameters"])
    learned = {
        name: array
        for name, array in read_weights(path).arrays.items()
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
    rule: str = "",
) -> None:
    """Write ``manifest.json``.

    Args:
        path: the file.
        config: the whole configuration, defaults filled in.
        models: rows of the model table that ran.
        scenes: scenes ready for analysis.
        records: the inference records; their costs are summed a model, their notes listed.
        command: the command line of the workflow.
        rule: the rule whose job this is.
    """
    document = {
        "command": redact(command),
        "versions": versions(),
        "hardware": hardware(),
        "config": redact_tree(config),
        "models": {model: describe_model(row, model) for model, row in models.items()},
        "costs": costs(records),
        "notes": notes(records),
        "scenes": {scene.id: describe_scene(scene) for scene in scenes},
    }
    write_record(Path(path), document, rule=rule)


def costs(records: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Sum pixels and seconds of all predictions of each model; list what they ran on."""
    total: dict[str, dict[str, Any]] = {}
    for path, model, record in _predictions(records):
        with reading_input(path, "an inference record", remedy=again("")):
            _add_cost(total, model, record)
    return total


def notes(records: Sequence[Path]) -> list[dict[str, str]]:
    """List what models had to say of their answers: ``model``, ``scene`` and ``text``."""
    return [
        {"model": model, "scene": record["scene"], "text": text}
        for _, model, record in _predictions(records)
        for text in record.get("notes", [])
    ]


def _predictions(records: Sequence[Path]) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield file, model and record of every scene that was predicted."""
    for path in records:
        document = read_record(path, kind="an inference record")
        with reading_input(path, "an inference record", remedy=again("")):
            found = [
                (path, model, record)
                for model, rows in document["models"].items()
                for record in rows
                if record["status"] == "predicted"
            ]
        yield from found


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
