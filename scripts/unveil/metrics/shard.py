"""Scores of one prediction, kept beside the tables so that a job that died goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unveil.errors import SceneSkipped
from unveil.metrics.scoring import CopiedTruthError, score_scene, why_known
from unveil.metrics.strata import LandCover
from unveil.metrics.tables import COLUMNS
from unveil.predictions import image_path, require_intact, std_path, vouched_files
from unveil.records import identify, kept, made_of, write_record
from unveil.scene import Scene

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
    made_from: dict[str, Any],
    predicted_by: str = "",
) -> tuple[list[dict[str, Any]], Skip | None]:
    """Score what an inference record says of a scene, or take the scores of an earlier run.

    Args:
        scene: the scene, with its truth.
        record: the scene's record of the model.
        model: id of the model.
        predictions: folder of the model's predictions.
        scores: folder where the model's scores are kept, one file per scene.
        weights: weights of the model, whose card names the places of training.
        land_cover: classes to sort occluded pixels by, instead of spectral ones.
        made_from: what else the scores depend on (content of the scene, code), by name, each
            JSON-able.
        predicted_by: the rule that makes the prediction again.

    Returns:
        Rows of the metrics table, and why there are none.

    Raises:
        InputError: if the prediction is missing or not the recorded one, or as
            :func:`unveil.metrics.scoring.score_scene`.
    """
    if record["status"] == "skipped":
        return [], (scene.id, model, "inference", record["reason"])
    require_intact(record, predictions, rule=predicted_by)
    known = why_known(scene, weights)
    if known:
        return [], (scene.id, model, "metrics", known)
    images = vouched_files(record, predictions)
    seen = {path.name: known for path, known in images.items()}
    identity = identify(prediction=[seen, made_of(record)["from"]], **made_from)
    found = kept(scores / f"{scene.id}.json", identity)
    if found is None:
        path, spread = image_path(predictions, scene.id), std_path(predictions, scene.id)
        std = spread if spread in images else None
        found = _score(scene, path, model=model, std=std, land_cover=land_cover)
        write_record(scores / f"{scene.id}.json", found, made_from=identity)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in found["rows"]]
    reason = found["skipped"]
    return rows, (scene.id, model, "metrics", reason) if reason else None


def _score(scene: Scene, path: Path, **options: Any) -> dict[str, Any]:
    try:
        rows = score_scene(scene, path, **options)
    except (SceneSkipped, CopiedTruthError) as fact:
        return {"rows": [], "skipped": str(fact)}
    return {"rows": [[row[name] for name in COLUMNS] for row in rows], "skipped": ""}
