"""docs/add-a-detector.md is followed literally in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from tests.small_run import copy_checkout
from tests.workflow.test_documented_commands import blocks

MARK = "tests/unit/test_add_a_detector.py"


def follow(text, top):
    """Write the file of a block, or change the lines of the file that it names."""
    name, body = re.match(r"# (\S+)\n(.+)", text, re.DOTALL).groups()
    path = top / name
    if not body.startswith("-"):
        assert not path.exists()
        path.write_text(body)
        return
    whole = path.read_text()
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", body, re.MULTILINE):
        old, new = (re.sub(r"^[-+]", "", lines, flags=re.MULTILINE) for lines in (old, new))
        assert whole.count(old) == 1, old
        whole = whole.replace(old, new)
    path.write_text(whole)


@pytest.mark.slow
def test_a_detector_that_is_added_as_the_page_says_keeps_the_contract(root, tmp_path):
    copy_checkout(tmp_path)
    followed = [text for _, mark, text in blocks("docs/add-a-detector.md") if mark == MARK]
    for text in followed:
        follow(text, tmp_path)
    assert len(followed) == 4
    ignored = shutil.ignore_patterns("__pycache__", "data", "services")
    shutil.copytree(root / "tests", tmp_path / "tests", ignore=ignored)
    shutil.copy(root / "pyproject.toml", tmp_path)
    words = [sys.executable, "-m", "pytest", "-q", "tests/unit/test_detector_contract.py"]
    search = os.environ | {"PYTHONPATH": str(tmp_path / "scripts")}
    done = subprocess.run(
        [*words, "-k", "bright or config_knows", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=search,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 1
