"""The conda environments: they parse strictly and name the same versions as the lock."""

from __future__ import annotations

import tomllib

import pytest
import yaml
from rattler import MatchSpec

ENVS = [
    "scenes",
    "weights",
    "masks",
    "coregistration",
    "inference",
    "metrics",
    "report",
    "training",
]


@pytest.fixture(scope="module")
def locked(root) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    with open(root / "uv.lock", "rb") as stream:
        for package in tomllib.load(stream)["package"]:
            versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


def dependencies(root, env):
    document = yaml.safe_load((root / "envs" / f"{env}.yaml").read_text())
    assert document["channels"] == ["conda-forge", "nodefaults"]
    return document["dependencies"]


def test_every_environment_of_the_rules_is_tested(root):
    assert {path.stem for path in (root / "envs").glob("*.yaml")} == set(ENVS)


@pytest.mark.parametrize("env", ENVS)
def test_an_environment_parses_strictly_and_agrees_with_the_lock(root, env, locked):
    lines = dependencies(root, env)
    from_pypi = [line for part in lines if isinstance(part, dict) for line in part["pip"]]
    for name, version in (line.split("==") for line in from_pypi):
        assert version in locked[name], f"{name}: the lock has {locked[name]}"
    assert not from_pypi or "pip" in lines
    for line in (part for part in lines if isinstance(part, str)):
        spec = MatchSpec(line, strict=True)
        name = spec.name.normalized
        if name in ("python", "pip"):
            continue
        version = str(spec.version)
        assert version.startswith("=="), f"{line} is not an exact pin"
        assert version[2:] in locked[name], f"{line}: the lock has {locked[name]}"
