"""Every metric once: unit, better side, decimals, where it applies, where its formula stands.

A metric that is not here cannot be scored, pooled or printed; whoever adds one adds its
function and one line of :data:`METRICS`. Their order is the order in print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Side = Literal["low", "high", "zero", "none"]
Use = Literal["score", "curve", "fact"]
COVERAGES = (10, 20, 30, 40, 50, 60, 68, 70, 80, 90, 95)
"""Central intervals, percent, in which the share of truths is counted."""
KEPT = (90, 75, 50, 25)
"""Shares of pixels, percent, that the discard curve keeps."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as in the tables.
        unit: ``1`` for a pure number.
        better: the better side: ``low``, ``high``, nearer to ``zero``, or ``none``.
        decimals: in print.
        source: the module's function or class that defines it, below ``unveil.metrics``.
        use: a ``score`` compares models, a ``curve`` is drawn, a ``fact`` describes a scene.
        by_band: it is also scored band by band.
        compared: models are tested and ranked by it, on hidden pixels.
        in_papers: the papers print it.
        explored: the page's chart of single scenes has it.
        logarithmic: its axis is.
        signed: it may be below 0 though ``low`` is better.
    """

    name: str
    unit: str
    better: Side
    decimals: int
    source: str
    use: Use = "score"
    by_band: bool = False
    compared: bool = False
    in_papers: bool = False
    explored: bool = False
    logarithmic: bool = False
    signed: bool = False

    @property
    def is_error(self) -> bool:
        """Whether it is never below 0, and 0 where nothing is wrong."""
        return self.better == "low" and not self.signed

    @property
    def head(self) -> str:
        """Its printed name with the unit."""
        name = self.name.replace("R2", "R²").replace("_", " ")
        return f"{name} ({self.printed_unit})" if self.printed_unit else name

    @property
    def printed_unit(self) -> str:
        """The unit, empty for a pure number."""
        return "" if self.unit == "1" else self.unit


_DISCARD = [
    Metric(f"MAE_keep_{kept}", "reflectance", "low", 3, "uncertainty.Calibration.discard")
    for kept in sorted(KEPT)
]
_COVERAGE = [
    Metric(f"coverage_{q}", "fraction", "none", 3, "uncertainty.Calibration.covered", use="curve")
    for q in COVERAGES
]

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("MAE", "reflectance", "low", 4, "definitions.mae",
               compared=True, in_papers=True, explored=True, by_band=True, logarithmic=True),
        Metric("MAE_level_removed", "reflectance", "low", 4, "definitions.mae_level_removed",
               explored=True, by_band=True, logarithmic=True),
        Metric("RMSE", "reflectance", "low", 4, "definitions.rmse",
               in_papers=True, explored=True, by_band=True, logarithmic=True),
        Metric("PSNR", "dB", "high", 2, "definitions.psnr",
               compared=True, in_papers=True, explored=True, by_band=True),
        Metric("SSIM", "1", "high", 3, "definitions.ssim",
               compared=True, in_papers=True, explored=True, by_band=True),
        Metric("SAM", "degree", "low", 2, "definitions.sam",
               compared=True, in_papers=True, explored=True, logarithmic=True),
        Metric("bias", "reflectance", "zero", 4, "definitions.bias", by_band=True, explored=True),
        Metric("R2", "1", "high", 3, "definitions.r2", by_band=True),
        Metric(
            "gradient_correlation", "1", "high", 3, "definitions.gradient_correlation", by_band=True
        ),
        Metric("AUCE", "fraction", "low", 3, "uncertainty.Calibration.auce"),
        *_DISCARD,
        Metric("NDVI_MAE", "1", "low", 4, "definitions.ndvi"),
        Metric("NDWI_MAE", "1", "low", 4, "definitions.ndwi"),
        Metric("NLL", "nat", "low", 3, "uncertainty.Calibration.likelihood", signed=True),
        Metric("UCE", "reflectance", "low", 3, "uncertainty.Calibration.uce"),
        Metric("answered", "fraction", "high", 3, "scoring.Census"),
        Metric("seam", "reflectance", "zero", 4, "definitions.seam", by_band=True),
        *_COVERAGE,
        Metric("never_seen_fraction", "fraction", "none", 3, "scoring.Census", use="fact"),
        Metric("days_to_clear_look", "day", "none", 0, "scoring.Census", use="fact"),
        Metric("n_bands", "band", "none", 0, "scoring.score_scene", use="fact"),
    )
}  # fmt: skip
"""Name -> metric, in print order."""

IN_PAPERS = tuple(name for name, metric in METRICS.items() if metric.in_papers)


def in_print_order(names: Iterable[str]) -> list[str]:
    """Return metrics in print order."""
    wanted = set(names)
    return [name for name in METRICS if name in wanted]


def best_first(values: Mapping[str, float], metric: str) -> list[str]:
    """Return the keys from best to worst, ties as they stand; empty where no side is better.

    Args:
        values: what is compared -> its value of the metric, no NaN.
        metric: name of the metric.
    """
    gain = {"low": float.__neg__, "high": float.__pos__, "zero": lambda value: -abs(value)}
    better = METRICS[metric].better
    if better == "none":
        return []
    return sorted(values, key=lambda name: -gain[better](float(values[name])))


def print_value(value: float, metric: str) -> str:
    """Return a value with the decimals of its metric; a dash when there is none."""
    if value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    text = f"{value:z.{METRICS[metric].decimals}f}"  # z: a zero has no sign
    return text.replace("-", "−")
