"""Handing scenes over to somebody else's system: all that a model sees, and no truth.

::

    handover/README.md                 what is asked for, in words
    handover/requests.json             one request a scene: grid, bands, dates, files, answer
    handover/SHA256SUMS                of all files below, for ``sha256sum -c``
    handover/self_check.py             checks the answers; Python's own library is enough
    handover/scenes/SCENE/target.tif   the cloudy image, target_mask.tif its classes
    handover/scenes/SCENE/DATE.tif     other dates with DATE_mask.tif, and DATE_sar.tif
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.scene import Frame, Scene

REQUESTS, SUMS = "requests.json", "SHA256SUMS"
HERE = Path(__file__).parent
VERSION = 1


def write_handover(scenes: Iterable[Scene], folder: Path) -> None:
    """Write everything that a system needs to answer, in one folder.

    Args:
        scenes: ready for models; what they hold of a truth is left out.
        folder: that is handed over; scenes that were there go first, and answers stay.
    """
    shutil.rmtree(folder / "scenes", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    requests = [hand_over(scene, folder) for scene in scenes]
    document = {"version": VERSION, "scenes": requests}
    (folder / REQUESTS).write_text(json.dumps(document, indent=1) + "\n")
    shutil.copyfile(HERE / "self_check.py", folder / "self_check.py")
    shutil.copyfile(HERE / "specification.md", folder / "README.md")
    own = [folder / name for name in (REQUESTS, "self_check.py", "README.md")]
    files = [*own, *sorted(path for path in (folder / "scenes").rglob("*") if path.is_file())]
    lines = [f"{raster.sha256(path)}  {path.relative_to(folder)}" for path in files]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


def hand_over(scene: Scene, folder: Path) -> dict[str, Any]:
    """Copy the inputs of one scene, and return what is asked for.

    The truth and what tells of it, its date included, are no part of it.
    """
    seen = scene.without_truth()
    place = folder / "scenes" / scene.id
    place.mkdir(parents=True)

    def copied(frame: Frame, name: str) -> dict[str, str]:
        files = {"date": frame.date, "image": f"{name}.tif"}
        shutil.copyfile(frame.path, place / files["image"])
        if frame.mask is not None:
            files["mask"] = f"{name}_mask.tif"
            shutil.copyfile(frame.mask, place / files["mask"])
        return files

    grid = scene.grid
    return {
        "scene": scene.id,
        "answer": f"{scene.id}.tif",
        "level": scene.level,
        "bands": list(scene.bands),
        "grid": {
            "crs": grid.crs,
            "transform": list(grid.transform),
            "width": grid.width,
            "height": grid.height,
        },
        "folder": f"scenes/{scene.id}",
        "target": copied(seen.target, "target"),
        "context": [copied(frame, frame.date) for frame in seen.context],
        "radar": [copied(frame, f"{frame.date}_sar") for frame in seen.with_role("radar")],
    }
