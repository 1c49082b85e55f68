"""Chronos without its network: the closed-form answer of the scene that the network corrects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.chronos.experts import LONGEST, REACH_PX, SceneFit, estimate, fit_scene
from unveil.models.classical import keep_clear
from unveil.scene import Inputs, Scene


class ClosedForm(Model):
    """The regression of ``chronos`` with its residuals spread, no network and no weights.

    Both see the same frames, so that the difference between them is what the network adds.
    """

    kind = "closed_form"
    citation = (
        "Unveil's own closed form under chronos; ridge regression on clear pixels, its penalty "
        "chosen by blocks in space (Roberts et al. 2017, doi:10.1111/ecog.02881)."
    )
    receptive_field = REACH_PX

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._fit: SceneFit | None = None

    @property
    def needs(self) -> Needs:
        """Those of ``chronos``."""
        return Needs(radar="optional", min_context=1, max_context=LONGEST, target=False)

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Fit the closed forms of the scene."""
        self._fit = fit_scene(tiles, pixels=scene.grid.pixels)

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the target where it is clear and the closed form elsewhere, NaN at nodata."""
        assert self._fit is not None, "prepare comes first"
        evidence = estimate(inputs, self._fit)
        answer = evidence.experts[0] + evidence.residuals.sum(axis=0)
        return Prediction(keep_clear(inputs, np.clip(answer, 0, None)))
