"""How the samples of a training are varied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SampleOptions:
    """How samples are varied; each can be switched off to see what it is worth.

    Attributes:
        synthetic: share of samples whose parcels follow another place's changes.
        missed: share of samples with context cloud that the mask missed.
        gaps: share of samples whose context gets further gaps.
        overcast: share of samples whose target has no clear pixel.
        borrowed: share of cloud shapes that are real ones of any place.
        radar: share of samples that see radar, of those where there is some.
        radiometry: vary the brightness of bands.
        dropped: leave dates out at random; else the six usable ones before and after are given.
    """

    synthetic: float = 0.4
    missed: float = 0.35
    gaps: float = 0.5
    overcast: float = 0.08
    borrowed: float = 0.3
    radar: float = 0.5
    radiometry: bool = True
    dropped: bool = True
