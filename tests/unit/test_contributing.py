"""What CONTRIBUTING.md, CITATION.cff and the files for GitHub say is so."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import yaml

PLACE = re.compile(
    r"`((?:scripts|tests|rules|config|resources|report|profiles|benchmarks|envs|docs)/[\w./-]*"
    r"|INTERFACE\.yaml|CHANGELOG\.md|\.ci/run)`"
)
CHANGES = 16


def test_contributing_names_sixteen_changes(root):
    rows = re.findall(r"^\| (?:add|change) [^|]+\|", (root / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) == CHANGES


def test_every_place_that_contributing_names_exists(root):
    places = set(PLACE.findall((root / "CONTRIBUTING.md").read_text()))
    assert len(places) > 2 * CHANGES
    missing = sorted(place for place in places if not (root / place).exists())
    assert not missing


def test_contributing_names_targets_of_make(root):
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.M))
    said = set(re.findall(r"`?make (\w+)", (root / "CONTRIBUTING.md").read_text()))
    assert said and said <= targets


def test_every_work_that_the_report_cites_is_cited(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    bibliography = (root / "resources/citations.bib").read_text()
    dois = set(re.findall(r"doi\s*=\s*\{(.+?)\}", bibliography))
    assert {work["doi"] for work in citation["references"]} == dois


def test_the_citation_is_of_this_version(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    with open(root / "pyproject.toml", "rb") as stream:
        project = tomllib.load(stream)["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_github_tests_every_python_that_the_project_allows(root):
    with open(root / "pyproject.toml", "rb") as stream:
        allowed = tomllib.load(stream)["project"]["requires-python"]
    workflow = yaml.safe_load((root / ".github/workflows/check.yaml").read_text())
    first, after = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", allowed).groups()
    versions = [f"3.{minor}" for minor in range(int(first), int(after))]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == versions


def test_hooks_run_what_make_runs(root):
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    programs = {re.match(r"\.venv/bin/(\w+)", hook["entry"])[1] for hook in hooks}
    made = set(re.findall(r"^\t@(\w+)", (root / "Makefile").read_text(), re.M))
    assert programs == {"ruff", "snakefmt", "codespell", "mypy"} <= made


def test_no_benchmark_takes_the_name_of_a_module_that_others_import(root):
    """A benchmark's folder comes first among those that it imports from."""
    names = {path.stem for path in (root / "benchmarks").glob("*.py")} - {"__init__"}
    assert names & {*packages_distributions(), *sys.stdlib_module_names} == set()
