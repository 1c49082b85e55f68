"""A finished small run, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.small_run import ROWS, snakemake, write_config, write_place


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Working directory of a finished run of five scenes and four models."""
    folder = tmp_path_factory.mktemp("run")
    write_place(folder / "place")
    write_config(folder, ROWS)
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder
