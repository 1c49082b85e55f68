"""Mean of the image's own clear pixels: what a single image alone says without any structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unveil.models.base import Prediction
from unveil.models.classical import TargetOnly, keep_clear
from unveil.scene import Inputs, Scene

NOTHING_CLEAR = "no answer: the target has no clear pixel"


class ClearMean(TargetOnly):
    """Each band's mean over the clear pixels of the target, at every hidden pixel."""

    kind = "clear_mean"
    citation = "Baseline; mean of the target's own clear pixels, see docs/models.md."

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Sum the clear pixels of the scene; without one there is no answer."""
        total, count = np.zeros(len(scene.bands)), 0
        for tile in tiles:
            clear = tile.target_clear
            total += tile.target[:, clear].sum(axis=1, dtype=np.float64)
            count += int(np.count_nonzero(clear))
        self._mean = total / count if count else np.full(total.shape, np.nan)
        if not count:
            self.notes = (NOTHING_CLEAR,)

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the target where it is clear and the mean elsewhere, NaN at nodata."""
        return Prediction(keep_clear(inputs, self._mean[:, None, None]))
