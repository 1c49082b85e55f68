"""`snakemake fetch_weights` against a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unveil.weights.published import COLUMNS

CONTENT = random.Random(3).randbytes(70_000)
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.fixture
def server(tmp_path):
    """Serve a folder that holds one good file and one page under the name of weights."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "good.bin").write_bytes(CONTENT)
    (folder / "page.bin").write_bytes(PAGE)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def project(root: Path, folder: Path, *files: str, url: str) -> None:
    """Lay out the project again with another table of published weights."""
    for path in root.iterdir():
        if path.name in ("Snakefile", "rules", "scripts", "envs", "config", "report"):
            (folder / path.name).symlink_to(path)
    resources = folder / "resources"
    resources.mkdir()
    for path in (root / "resources").iterdir():
        if path.name != "published_weights.tsv":
            (resources / path.name).symlink_to(path)
    digest = hashlib.sha256(CONTENT).hexdigest()
    rows = [
        [name, "dsen2cr", name, f"{url}/{name}", str(len(CONTENT)), digest, "none", "-", "-"]
        for name in files
    ]
    rows.append(["by-hand", "dsen2cr", "by-hand.bin", "", "", "", "none", "-", "https://x.test"])
    lines = ["\t".join(cells) for cells in (COLUMNS, *rows)]
    (resources / "published_weights.tsv").write_text("\n".join(lines) + "\n")


def fetch(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nocolor", "fetch_weights"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_all_weights_with_an_address_come_checked_and_again_only_when_damaged(
    root, tmp_path, server
):
    project(root, tmp_path, "good.bin", url=server)
    done = fetch(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / ".cache" / "unveil" / "weights"
    assert (folder / "good.bin").read_bytes() == CONTENT
    record = json.loads((folder / "good.bin.json").read_text())
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert not (folder / "by-hand.bin").exists()
    again = fetch(tmp_path)
    assert "Nothing to be done" in again.stderr
    (folder / "good.bin").write_bytes(CONTENT[:-1] + b"x")
    repaired = fetch(tmp_path)
    assert repaired.returncode == 0, repaired.stderr[-3000:]
    assert (folder / "good.bin").read_bytes() == CONTENT


def test_a_page_instead_of_weights_stops_the_job_with_the_reason(root, tmp_path, server):
    project(root, tmp_path, "page.bin", url=server)
    done = fetch(tmp_path)
    assert done.returncode != 0
    log = (tmp_path / "results" / "logs" / "fetch_one_weights" / "page.bin.log").read_text()
    assert "a web page instead of the file" in log
    assert "in a browser and save the file as" in log
    assert not (tmp_path / ".cache" / "unveil" / "weights" / "page.bin").exists()
