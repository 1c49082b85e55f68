"""A finished small run, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.small_run import ROWS, snakemake, write_config, write_place

WITNESS = """
import atexit, os, pathlib, sys

def write():
    script = pathlib.Path(sys.argv[0]).name.split(".", 1)[-1]
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "unveil"]
    files = [module.__file__ for module in ours if module.__file__]
    path = pathlib.Path(__file__).parent / f"{script}-{os.getpid()}.txt"
    path.write_text("\\n".join(files))

atexit.register(write)
"""
"""Python runs it at the start of every job: it notes which modules were imported in the end."""


@pytest.fixture(scope="session")
def witness(tmp_path_factory) -> Path:
    """Folder where the jobs of the finished run noted the files that they imported."""
    folder = tmp_path_factory.mktemp("witness")
    (folder / "sitecustomize.py").write_text(WITNESS)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, witness) -> Path:
    """Working directory of a finished run of five scenes and four models."""
    folder = tmp_path_factory.mktemp("run")
    write_place(folder / "place")
    write_config(folder, ROWS)
    done = snakemake(folder, variables={"PYTHONPATH": str(witness)})
    assert done.returncode == 0, done.stderr[-4000:]
    return folder
