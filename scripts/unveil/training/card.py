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
from unveil.training.loop import Progress, Scores, TrainingPlan
from unveil.weights.arrays import write_arrays

_PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras", "rasterio", "unveil")


def write_weights(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, in order, float32."""
    write_arrays(path, {name: array.astype(np.float32) for name, array in arrays.items()})


def write_card(
    path: Path,
    *,
    weights: Path,
    run: Mapping[str, Any],
    architecture: Mapping[str, Any],
    places: Sequence[Mapping[str, Any]],
    plan: TrainingPlan,
    how: Mapping[str, Any],
    progress: Progress,
    validation: Mapping[str, Any],
    command: str,
) -> None:
    """Write the model card of a weights file as JSON.

    Args:
        path: the card.
        weights: the weights file that it describes.
        run: the run's section of the config (title, limits).
        architecture: name and sizes of the network.
        places: what was seen, each with ``id`` and ``bbox``; evaluations there are no evidence.
        plan: how it was trained.
        how: further facts: loss, clouds.
        progress: what was reached.
        validation: ``what`` was measured, and ``scores``.
        command: what repeats the run.
    """
    card = {
        "title": run["title"],
        "weights": {"file": weights.name, "sha256": raster.sha256(weights)},
        "architecture": dict(architecture),
        "places": [dict(place) for place in places],
        "training": asdict(plan)
        | dict(how)
        | {
            "steps_done": progress.step,
            "best_step": progress.best_step,
            "minutes": round(progress.seconds / 60, 1),
        },
        "validation": dict(validation),
        "limits": list(run["limits"]),
        "command": command,
        "versions": _versions(),
        "hardware": f"{platform.machine()}, {platform.system()}",
    }
    with raster.replacing(path) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n")


def rounded(scores: Scores) -> Scores:
    """Return scores with five digits."""
    return {name: round(value, 5) for name, value in scores.items()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
