"""Assemble the scene of a lock in a process of its own, to be killed by the tests.

Usage: python fetch_scene.py JOB.json; the file holds the row, the sources and the folder.
"""

import json
import sys
from pathlib import Path

import odc.stac  # noqa: F401 - loaded before "ready", so that kills fall on the work itself

from unveil.config import SceneRow
from unveil.planning import assemble_row
from unveil.protocols import ProtocolSettings
from unveil.scene import save_scene

job = json.loads(Path(sys.argv[1]).read_text())
sys.stdout.write("ready\n")
sys.stdout.flush()
folder = Path(job["folder"])
scene = assemble_row(
    SceneRow(**job["row"]), job["sources"], folder, ProtocolSettings(1, 2), detect=None
)
save_scene(scene, folder / "download.json")
