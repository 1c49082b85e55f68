"""Scores of one prediction, kept beside the tables so that a job that died goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.errors import InputError, SceneSkipped
from unveil.metrics.scoring import refuse_trained_places, score_scene
from unveil.metrics.strata import LandCover
from unveil.metrics.tables import COLUMNS
from unveil.provenance import intact, std_path
from unveil.scene import Scene
from unveil.shards import checksum

Skip = tuple[str, str, str, str]
"""Scene, model, stage and reason."""


def score_record(
    scene: Scene,
    record: dict[str, Any],
    *,
    model: str,
    predictions: Path,
    scores: Path,
    weights: str | None,
    land_cover: LandCover | None,
    made_from: Any,
) -> tuple[list[dict[str, Any]], Skip | None]:
    """Score what an inference record says of a scene, or take the scores of an earlier run.

    Args:
        scene: the scene, with its truth.
        record: the scene's record of the model.
        model: id of the model.
        predictions: folder of the model's predictions.
        scores: folder where the model's scores are kept, a file a scene.
        weights: weights of the model, whose card names the places of training.
        land_cover: classes to sort occluded pixels by, instead of spectral ones.
        made_from: what else the scores depend on (content of the scene, code), JSON-able.

    Returns:
        Rows of the metrics table, and why there are none.

    Raises:
        InputError: if the prediction is missing or not the recorded one, or as
            :func:`unveil.metrics.scoring.score_scene`.
    """
    if record["status"] == "skipped":
        return [], (scene.id, model, "inference", record["reason"])
    path = predictions / record["file"]
    if not intact(record, predictions):
        raise InputError(
            "it, or its standard deviations, is missing or not as the model wrote it",
            file=path,
            remedy="run again with --forcerun infer: whole predictions are kept",
        )
    refuse_trained_places(scene, weights)
    identity = checksum([record["sha256"], record["identity"], made_from])
    kept = scores / f"{scene.id}.json"
    found = _read(kept, identity)
    if found is None:
        std = std_path(predictions, scene.id) if record["std_sha256"] else None
        found = _score(scene, path, model=model, std=std, land_cover=land_cover)
        with raster.replacing(kept) as temporary:
            temporary.write_text(json.dumps({"identity": identity, **found}))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in found["rows"]]
    reason = found["skipped"]
    return rows, (scene.id, model, "metrics", reason) if reason else None


def _score(scene: Scene, path: Path, **options: Any) -> dict[str, Any]:
    try:
        rows = score_scene(scene, path, **options)
    except SceneSkipped as fact:
        return {"rows": [], "skipped": str(fact)}
    return {"rows": [[row[name] for name in COLUMNS] for row in rows], "skipped": ""}


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
        return found if found["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
