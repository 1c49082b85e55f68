"""Settings of the masks stage, section ``masks`` of the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskOptions:
    """How clouds, shadows and snow are found.

    Attributes:
        detectors: names of the detectors that may be used
            (:mod:`unveil.masks.detectors.registry`), each where it applies.
        combine: what counts where several can tell: by ``consensus`` a pixel is cloud, or shadow,
            where at least half of them say so; by ``first`` it is what the first of them says,
            and a delivered mask is asked alone.
        cloud_probability: s2cloudless probability from which a pixel is cloud.
        average_over: radius in pixels over which s2cloudless probabilities are averaged
            before the threshold.
        s2cloudless_m: pixel size in metres that s2cloudless sees, where a scene has smaller
            ones; ``auto`` is the scene's own up to
            :data:`unveil.masks.detectors.s2cloudless.FULL_DETAIL_PIXELS`, and
            :data:`unveil.masks.detectors.s2cloudless.COARSE_M` beyond.
        target_growth_m: metres by which cloud and shadow of the target are grown, in whole pixels
            and at least two; 0 for none.
        context_growth_m: metres by which those of all other frames are.
    """

    detectors: tuple[str, ...] = ("source", "s2cloudless", "ukis", "thresholds")
    combine: Literal["consensus", "first"] = "consensus"
    cloud_probability: float = 0.4
    average_over: int = 4
    s2cloudless_m: float | Literal["auto"] = "auto"
    target_growth_m: float = 20.0
    context_growth_m: float = 20.0

    def growth_m(self, role: str) -> float:
        """Return the metres by which cloud and shadow of a frame of a role are grown."""
        return self.target_growth_m if role == "target" else self.context_growth_m
