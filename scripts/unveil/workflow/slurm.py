"""Ask Slurm at the start whether it takes jobs as a profile sends them.

Snakemake keeps to itself why a group of jobs was refused, so a wrong partition or account is
found before the first submission.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from unveil.errors import InputError

FLAGS = {"slurm_partition": "--partition", "slurm_account": "--account"}
PLAIN = re.compile(r"[\w.,-]+")
"""Anything else is an expression, which has no value before there is a job."""
SECONDS = 30


def check_slurm(resources: Iterable[Mapping[str, Any]]) -> None:
    """Refuse partitions and accounts that Slurm refuses.

    Args:
        resources: of each rule, by name; those of :data:`FLAGS` are looked at.

    Raises:
        InputError: with Slurm's own words.
    """
    for asked in sorted({_flags(of_rule) for of_rule in resources} - {()}):
        command = ["sbatch", "--test-only", "--ntasks=1", *asked, "--wrap=true"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return  # no Slurm here, or none that answers: the first submission tells
        if done.returncode:
            raise InputError(
                f"Slurm refuses {' '.join(asked)} ({' '.join(done.stderr.split())})",
                field="profile: slurm_partition, slurm_account",
                remedy="correct them in default-resources or set-resources of the profile",
            )


def _flags(of_rule: Mapping[str, Any]) -> tuple[str, ...]:
    given = {flag: getattr(of_rule.get(name), "raw", None) for name, flag in FLAGS.items()}
    plain = {f: str(raw).strip("'\"") for f, raw in given.items() if raw not in (None, "")}
    return tuple(f"{flag}={word}" for flag, word in plain.items() if PLAIN.fullmatch(word))
