"""Levels of cloud cover: one set of names and limits for tables, figures and page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from unveil.errors import InputError

ALL = "all"
"""The level of every scene, whatever its cover."""


def check_bounds(bounds: Sequence[float]) -> None:
    """Refuse bounds between which no level lies.

    Args:
        bounds: cloud cover at which one level ends and the next begins, fractions.

    Raises:
        InputError: if they do not rise between 0 and 1.
    """
    if any(low >= high for low, high in pairwise((0.0, *bounds, 1.0))):
        raise InputError(
            f"{list(bounds)} are no cloud levels",
            field="metrics.cloud_levels",
            remedy="give fractions that rise between 0 and 1, for example [0.35, 0.65]",
        )


def level_names(bounds: Sequence[float]) -> list[str]:
    """Return the names of the levels between ``bounds``, from clear to cloudy: ``0–35 %`` ..."""
    percent = [f"{100 * bound:g}" for bound in (0, *bounds, 1)]
    return [f"{low}–{high} %" for low, high in pairwise(percent)]


def level_of(cover: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """Return the name of each cover's level; a bound belongs to the level above it."""
    position = np.searchsorted(np.asarray(bounds), cover, side="right")
    return np.array(level_names(bounds), object)[position]
