r"""The distribution that a model states for its error: normal, or Student's t.

A model gives a standard deviation :math:`\sigma` of each value. Under Student's t with
:math:`\nu` degrees of freedom the scale is :math:`\sigma \sqrt{(\nu - 2) / \nu}`. The raster of
standard deviations carries the tags ``DISTRIBUTION`` (``normal`` or ``student_t``) and
``DEGREES_OF_FREEDOM``; without tags it is normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unveil import raster
from unveil.errors import InputError

NAME_TAG, DEGREES_TAG = "DISTRIBUTION", "DEGREES_OF_FREEDOM"


@dataclass(frozen=True)
class Distribution:
    """How errors are spread about 0, in units of their standard deviation.

    Attributes:
        degrees_of_freedom: of Student's t, above 2, for below it has no standard deviation;
            infinite is the normal distribution.
    """

    degrees_of_freedom: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what has no standard deviation.

        Raises:
            ValueError: if the degrees of freedom are not above 2.
        """
        if not self.degrees_of_freedom > 2:
            raise ValueError(f"{self.degrees_of_freedom} degrees of freedom; above 2 are needed")

    @property
    def is_normal(self) -> bool:
        """True for the normal distribution."""
        return math.isinf(self.degrees_of_freedom)

    @property
    def title(self) -> str:
        """Its printed name."""
        return "normal" if self.is_normal else f"Student t, {self.degrees_of_freedom:g} degrees"

    @property
    def tags(self) -> dict[str, str]:
        """What the raster of standard deviations says of it; nothing for the normal one."""
        if self.is_normal:
            return {}
        return {NAME_TAG: "student_t", DEGREES_TAG: f"{self.degrees_of_freedom:g}"}

    def central(self, z: np.ndarray) -> np.ndarray:
        """Return the probability of the central interval that ends at ``z`` deviations."""
        from scipy.special import erf, stdtr  # planning a run needs none

        if self.is_normal:
            return erf(z / np.sqrt(2))
        return 2 * stdtr(self.degrees_of_freedom, z / self._scale) - 1

    def surprise(self, z: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Return the negative logarithm of the density at ``z`` deviations of ``std``, nat."""
        if self.is_normal:
            return 0.5 * z * z + np.log(std) + 0.5 * np.log(2 * np.pi)
        nu = self.degrees_of_freedom
        constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi)
        spread = (nu + 1) / 2 * np.log1p((z / self._scale) ** 2 / nu)
        return spread + np.log(std) + constant + math.log(self._scale)

    @property
    def _scale(self) -> float:
        return math.sqrt((self.degrees_of_freedom - 2) / self.degrees_of_freedom)


NORMAL = Distribution()


def read_distribution(path: str | Path) -> Distribution:
    """Return what a raster of standard deviations says of its distribution.

    Raises:
        InputError: if the raster is damaged or its tags name no known distribution.
    """
    with raster.open_raster(path) as dataset:
        return _from_tags(dataset.tags(), path)


def _from_tags(tags: Mapping[str, str], path: str | Path) -> Distribution:
    name = tags.get(NAME_TAG, "normal")
    if name == "normal":
        return NORMAL
    degrees = tags.get(DEGREES_TAG, "")
    try:
        if name == "student_t":
            return Distribution(float(degrees))
    except ValueError:
        pass
    raise InputError(
        f"tags {NAME_TAG}={name}, {DEGREES_TAG}={degrees or 'missing'}",
        file=path,
        field=NAME_TAG,
        remedy=f"write {NAME_TAG}=student_t with {DEGREES_TAG} above 2, or no tags (normal)",
    )
