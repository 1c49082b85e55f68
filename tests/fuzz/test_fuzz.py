"""Ten thousand hostile files: each ends in a result or in one clear error, soon and in bounds.

By default a slice of them. ``UNVEIL_FUZZ=10000`` says how many, ``UNVEIL_FUZZ_SEED`` which.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from tests.fuzz.readers import READERS
from tests.small_run import ROOT, environment

INPUTS = int(os.environ.get("UNVEIL_FUZZ", "600"))
SEED = os.environ.get("UNVEIL_FUZZ_SEED", "20260")
EACH = -(-INPUTS // len(READERS))
MOST_MIB = 1024
"""Most memory that one small file may cost beyond what was held before."""


@pytest.fixture(scope="module")
def ends() -> dict[str, list[dict]]:
    """Read all inputs in processes of their own and return how each ended, by reader."""
    words = [sys.executable, "-m", "tests.fuzz.worker", SEED]
    words += [f"{name}:0:{EACH + 1}" for name in READERS]
    # One thread each: forks and pools of threads do not mix.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment() | threads | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = defaultdict(list)
    for line in done.stdout.splitlines():
        end = json.loads(line)
        found[end["reader"]].append(end)
    return found


@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_file_ends_in_a_result_or_in_one_clear_error(ends, reader):
    found = ends[reader]
    assert [end["number"] for end in found] == list(range(EACH + 1))
    assert found[0]["end"] == "read", f"the good files are not read: {found[0]}"
    wrong = [end for end in found if end["end"] not in ("read", "skipped", "refused")]
    assert not wrong, "\n".join(map(str, wrong[:5]))
    assert max(end["mib"] for end in found) < MOST_MIB
    if EACH >= 100:  # the mutator reaches the reader, and is not refused at the door
        assert len(Counter(end["end"] for end in found)) > 1 or reader == "weights-record"
