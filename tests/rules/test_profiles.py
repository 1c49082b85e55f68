"""The profiles: whoever copies one finds the reason of every key beside it."""

from __future__ import annotations

import pytest
import yaml

PROFILES = ["default", "slurm", "slurm-gres", "kubernetes", "google-batch"]


def test_every_profile_is_tested(root):
    assert {path.name for path in (root / "profiles").iterdir()} == set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_every_key_of_a_profile_is_commented(root, name):
    text = (root / "profiles" / name / "profile.yaml").read_text()
    lines = {line.split(":")[0]: line for line in text.splitlines() if line[0] not in " #"}
    assert set(lines) == set(yaml.safe_load(text))
    bare = [key for key, line in lines.items() if " # " not in line]
    assert not bare


@pytest.mark.parametrize("name", ["slurm", "kubernetes", "google-batch"])
def test_one_gpu_at_a_time_is_a_limit_of_one_machine(root, name):
    """Snakemake reads the default profile beside any other, its limit included."""
    profile = yaml.safe_load((root / "profiles" / name / "profile.yaml").read_text())
    assert "gpu=local" in profile["set-resource-scopes"]
