"""What leaves a training run: a weights file and the card that says what it is."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unveil import raster
from unveil.training.datasets import TrainingImage
from unveil.training.loop import Progress, Scores, TrainingPlan

_PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras", "rasterio", "unveil")
_SOURCE_FACTS = ("date", "level", "licence", "package", "version", "sha256")


def write_weights(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, in order, float32."""
    with raster.replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **{k: v.astype(np.float32) for k, v in arrays.items()})


def write_card(
    path: Path,
    *,
    weights: Path,
    run: Mapping[str, Any],
    images: Sequence[TrainingImage],
    sources: Mapping[str, Mapping[str, Any]],
    plan: TrainingPlan,
    progress: Progress,
    validation: Mapping[str, Mapping[float, Scores]],
    command: str,
) -> None:
    """Write the model card of a weights file as JSON.

    Args:
        path: the card.
        weights: the weights file that it describes.
        run: the run's section of the config (title, architecture, limits).
        images: what was trained on.
        sources: facts of each image by id: package, version, sha256, level, date, licence.
        plan: how it was trained.
        progress: what was reached.
        validation: scores on the held-out blocks by predictor and cover.
        command: what repeats the run.
    """
    card = {
        "title": run["title"],
        "weights": {"file": weights.name, "sha256": raster.sha256(weights)},
        "architecture": {"name": "DSen2-CR", "radar": False, **run["network"]},
        "places": [_place(image, sources[image.id]) for image in images],
        "training": asdict(plan)
        | {
            "loss": "cloud-adaptive regularised L1 of DSen2-CR, lambda 1",
            "clouds": "simulated (unveil.clouds)",
            "steps_done": progress.step,
            "best_step": progress.best_step,
            "minutes": round(progress.seconds / 60, 1),
        },
        "validation": {
            "what": "mean absolute error in reflectance on the held-out blocks, simulated clouds",
            "scores": {
                name: {f"{cover:g}": _rounded(scores) for cover, scores in by_cover.items()}
                for name, by_cover in validation.items()
            },
        },
        "limits": list(run["limits"]),
        "command": command,
        "versions": _versions(),
        "hardware": f"{platform.machine()}, {platform.system()}",
    }
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n")


def _place(image: TrainingImage, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": image.id,
        "bbox": image.bbox(),
        "held_out_bbox": image.bbox(image.holdout),
        "buffer_px": image.buffer,
        **{key: source[key] for key in _SOURCE_FACTS if key in source},
    }


def _rounded(scores: Scores) -> Scores:
    return {name: round(value, 5) for name, value in scores.items()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
