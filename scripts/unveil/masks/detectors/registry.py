"""The registry: every detector that ``masks.detectors`` of the config may name."""

from __future__ import annotations

from unveil.masks.detectors.base import Detector
from unveil.masks.detectors.s2cloudless import S2Cloudless
from unveil.masks.detectors.source import DeliveredMask
from unveil.masks.detectors.thresholds import Thresholds
from unveil.masks.detectors.ukis import Ukis

DETECTORS: dict[str, type[Detector]] = {
    detector.name: detector for detector in (DeliveredMask, S2Cloudless, Ukis, Thresholds)
}
"""In the order in which they are asked for what several can tell."""
