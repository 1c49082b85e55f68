"""What a user's own model was measured to cost, kept beside the results for later requests.

Nobody can look it up in a table, so the first job asks as much as the largest network takes, and
later ones what the jobs before them took.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.scene import Scene
from unveil.sources.base import Size
from unveil.workflow.resources import HELD_PIXELS, UNMEASURED, Cost

PYTHON_MB = 150
"""What a job holds with its libraries, before a model."""
TELLING_PIXELS = 100_000
"""Scenes from this size on tell how cost grows with pixels; smaller ones, what a start takes."""


def cost_of(record: Mapping[str, Any], size: Size) -> Cost:
    """Return what a kind of model costs, by the record of one prediction.

    Args:
        record: with ``peak_memory_mib`` and ``wall_seconds``.
        size: of its scene.
    """
    peak, seconds = record["peak_memory_mib"] * 1.048576, record["wall_seconds"]
    if size.pixels < TELLING_PIXELS:
        return Cost(
            mb=peak,
            mb_per_mpx=UNMEASURED.mb_per_mpx,
            mb_per_mpx_frame=UNMEASURED.mb_per_mpx_frame,
            seconds=seconds,
            seconds_per_mpx=UNMEASURED.seconds_per_mpx,
            seconds_per_mpx_frame=UNMEASURED.seconds_per_mpx_frame,
        )
    held = min(size.pixels, HELD_PIXELS) / 1e6 * size.frames
    return Cost(
        mb=PYTHON_MB,
        mb_per_mpx_frame=max(peak - PYTHON_MB, 0) / held,
        seconds_per_mpx_frame=seconds / (size.pixels / 1e6 * size.frames),
    )


def keep_cost(
    folder: Path,
    model: str,
    records: Iterable[Mapping[str, Any]],
    scenes: Iterable[Scene],
    code: str,
) -> None:
    """Write down what a model cost, the most of all jobs with the same code.

    Args:
        folder: ``results/costs``.
        model: its id.
        records: what its job returned of each scene.
        scenes: the scenes.
        code: checksum of the code behind the model.
    """
    sizes = {s.id: Size(s.grid.pixels, 1 + len(s.context)) for s in scenes}
    measured = [(r, sizes[r["scene"]]) for r in records if r["status"] == "predicted"]
    if not measured:
        return
    largest = max(measured, key=lambda pair: pair[1].pixels * pair[1].frames)
    costs = [cost_of(*pair) for pair in measured if pair[1].pixels >= TELLING_PIXELS]
    costs += [] if costs else [cost_of(*largest)]
    if (before := _read(folder, model)) and before["code"] == code:
        costs.append(Cost(**before["cost"]))
    # One that was measured on larger scenes knows more than any that was not.
    telling = [cost for cost in costs if cost.mb_per_mpx == 0] or costs
    most = {key: max(asdict(cost)[key] for cost in telling) for key in asdict(telling[0])}
    folder.mkdir(parents=True, exist_ok=True)
    with raster.replacing(folder / f"{model}.json") as temporary:
        temporary.write_text(json.dumps({"code": code, "cost": most}, indent=1) + "\n")


def kept_cost(folder: Path, model: str) -> Cost | None:
    """Return what a model was measured to cost, or None where it never ran."""
    found = _read(folder, model)
    return Cost(**found["cost"]) if found else None


def _read(folder: Path, model: str) -> dict[str, Any] | None:
    """Read what was kept; a damaged file is as good as none, it is written again."""
    try:
        found = json.loads((folder / f"{model}.json").read_text())
        Cost(**found["cost"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found
