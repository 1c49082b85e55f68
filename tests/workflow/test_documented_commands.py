"""Every command that the documentation prints is executed.

A comment before each block of code says how: ``text`` (no command), ``file NAME`` (written into
the folder that the commands run in), ``run``, ``dry-run`` (the lines of snakemake, with
``--dry-run``), or the file that executes it where servers or minutes are needed. Commands in the
middle of a sentence and in the comments of configs are run with ``--dry-run``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_run import ROOT, write_place

from unveil import raster

PAGES = ["README.md", "config/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
ELSEWHERE = re.compile(r"--profile profiles/kubernetes|--report|--sdm|--list")
"""In sentences: kubernetes needs its executor (tests/services/test_storage.py), a report needs
results (.ci/run makes one), software environments need conda."""
MARK = re.compile(r"<!-- ([^>]+) -->")


def blocks(page):
    """Yield line, mark and text of every block of code of a page."""
    lines = (ROOT / page).read_text().splitlines()
    mark, number = "", 0
    while number < len(lines):
        line = lines[number]
        if found := MARK.fullmatch(line.strip()):
            mark = found[1]
        elif re.match(r" {4}|```", line) and not lines[number - 1].strip():
            start, fenced = number, line.startswith("```")
            number += 1
            while number < len(lines) and (
                not lines[number].startswith("```")
                if fenced
                else not lines[number].strip() or lines[number].startswith("    ")
            ):
                number += 1
            text = "\n".join(lines[start + fenced : number])
            indent = min(len(x) - len(x.lstrip()) for x in text.splitlines() if x.strip())
            text = "\n".join(x[indent:] for x in text.splitlines()).strip() + "\n"
            yield start + 1, mark, text
            mark = ""
            continue
        elif line.strip():
            mark = ""
        number += 1


ALL = [(page, *block) for page in PAGES for block in blocks(page)]


def commands(text):
    """Yield the commands of a block, lines that are continued in one, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if command := re.sub(r"\s+#.*", "", line).strip():
            yield command


def in_sentences():
    """Yield where a command of snakemake stands outside of a block, and the command."""
    for page in PAGES:
        for found in re.findall(r"`(snakemake [^`]*)`", (ROOT / page).read_text()):
            yield page, " ".join(found.split())
    for path in sorted((ROOT / "config").rglob("*.yaml")):
        for found in re.findall(r"^#.*?  +(snakemake [^#\n]*)", path.read_text(), re.MULTILINE):
            yield str(path.relative_to(ROOT)), found.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Lay out a checkout, with the files that the documentation speaks of."""
    return lay_out(tmp_path_factory.mktemp("docs"))


def lay_out(folder):
    """Fill a folder with a checkout and with the files of every page."""
    for path in ROOT.iterdir():
        if path.name not in ("results", ".snakemake", ".cache", ".git", ".venv", "tests"):
            (folder / path.name).symlink_to(path)
    write_place(folder / "mine")
    for part in ("frames", "masks"):  # the one that the table names, half under cloud
        (folder / f"mine/{part}/2020-08-11.tif").rename(folder / f"mine/{part}/2024-06-14.tif")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/mine").symlink_to(folder / "mine")
    place = {"type": "Point", "coordinates": [15.4, 47.0]}
    (folder / "mine.geojson").write_text(json.dumps(place))
    for _, _, mark, text in ALL:
        if mark.startswith("file "):
            for inside in (folder, folder / "elsewhere"):
                path = inside / mark.removeprefix("file ")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return folder


def run(command, folder, search=ROOT / "scripts"):
    """Run a command of the documentation in a shell; return what it says."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command.replace("PATH/", f"{ROOT}/")],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(search)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def planned(command):
    """Return the command as a dry run."""
    return command if "--dry-run" in command or "--unlock" in command else f"{command} --dry-run"


def test_every_block_of_code_says_how_it_is_tested():
    known = re.compile(r"text|run|dry-run|file \S+")
    bare = [f"{page}:{line}" for page, line, mark, _ in ALL if not mark]
    assert bare == [], "write <!-- text -->, <!-- run --> ... before them"
    elsewhere = {mark for *_, mark, _ in ALL if not known.fullmatch(mark)}
    assert [mark for mark in elsewhere if not (ROOT / mark).is_file()] == []


def test_what_is_called_text_holds_no_command():
    programs = r"^(snakemake|make|python|pytest|git|uv|docker|pip) "
    held = [
        (page, line)
        for page, line, mark, text in ALL
        if re.fullmatch(r"text|file .*", mark) and re.search(programs, text, re.MULTILINE)
    ]
    assert held == []


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            planned(command)
            for *_, mark, text in ALL
            if mark == "dry-run"
            for command in commands(text)
            if command.startswith("snakemake ")
        }
        | {
            planned(command if re.search("--cores|--profile", command) else f"{command} --cores 1")
            for _, command in in_sentences()
            if not ELSEWHERE.search(command)
        }
    ),
)
def test_a_documented_command_is_understood(folder, command):
    run(command, folder)


def test_documented_commands_run_and_the_readmes_own_scene_gets_its_image(folder):
    for *_, mark, text in ALL:
        if mark == "run":
            for command in commands(text):
                run(command, folder)
    for model in ("regressed", "damped"):
        assert raster.read(folder / f"results/predictions/{model}/mine.tif").shape == (6, 64, 80)
