"""What jobs that share no file system cannot find out: the plan.

Such a job reads the tables again to find out what it is, and cannot see the input files. What was
learnt from them where the workflow was started goes with the workflow's own files.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from unveil import raster
from unveil.config import SceneRow

PLAN = Path(".snakemake/unveil-plan.json.gz")
"""In the working directory, on both machines."""


def write_plan(
    scenes: Mapping[str, SceneRow],
    sizes: Mapping[str, int],
    weights: Mapping[str, int],
    command: str,
) -> None:
    """Write down what jobs elsewhere cannot find out.

    Args:
        scenes: scene id -> row, planned.
        sizes: scene id -> bytes of its input.
        weights: weights that are there -> bytes.
        command: the command line of the workflow.
    """
    document = {
        "scenes": [asdict(row) for row in scenes.values()],
        "sizes": dict(sizes),
        "weights": dict(weights),
        "command": command,
    }
    with raster.replacing(PLAN) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))


def read_plan() -> tuple[dict[str, SceneRow], dict[str, int], dict[str, int], str]:
    """Return what :func:`write_plan` was given."""
    document = json.loads(gzip.decompress(PLAN.read_bytes()))
    scenes = {row["scene"]: SceneRow(**row) for row in document["scenes"]}
    return scenes, document["sizes"], document["weights"], document["command"]
