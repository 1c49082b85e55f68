"""Assemble scenes of locks in processes of their own, to be killed by the tests.

The libraries are loaded once; every job is a fork. A line ``start JOB.json`` is answered with the
process id, ``wait PID`` with the exit code. The file holds the row, the sources and the folder.
"""

import json
import os
import sys
from pathlib import Path

import unveil.sources.stac.read  # noqa: F401 - loaded here, so that kills fall on the work itself
from unveil.assembly.assemble import assemble_row
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.config import SceneRow
from unveil.masks.mask_scene import judge_frame, why_unjudged
from unveil.scene import save_scene


def assemble(path: str) -> None:
    """Do one job."""
    job = json.loads(Path(path).read_text())
    folder, settings = Path(job["folder"]), ProtocolSettings(1)
    scene = assemble_row(
        SceneRow(**job["row"]),
        job["sources"],
        folder,
        settings,
        detect=None,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    save_scene(scene, folder / "download.json")


def start(path: str) -> int:
    """Fork a process for a job and return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assemble(path)
            code = 0
        finally:
            os._exit(code)
    return child


def wait(pid: str) -> int:
    """Return the exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(int(pid), 0)[1])


for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    answer = {"start": start, "wait": wait}[command](argument)
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()
