"""What is known of the error of an image, by scores of the place itself or of others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVEL = 0.95
"""Of the intervals."""
FEWEST = 3
"""Scores from which an interval is given."""
HALF = 0.5
"""Cover from which a date counts as mostly hidden."""
SEASONS = {12: "winter", 1: "winter", 2: "winter", 3: "spring", 4: "spring", 5: "spring"}
SEASONS |= {6: "summer", 7: "summer", 8: "summer", 9: "autumn", 10: "autumn", 11: "autumn"}
"""Of the northern hemisphere, by month; the other's are the same with their names exchanged."""


@dataclass(frozen=True)
class Score:
    """The error of a model where the truth is known.

    Attributes:
        model: id of the model.
        where: the place.
        protocol: where the truth comes from.
        date: of the target; empty for a mean over dates.
        cover: share of hidden pixels; None for a mean over dates.
        mae: mean absolute error of hidden pixels, reflectance.
    """

    model: str
    where: str
    protocol: str
    date: str
    cover: float | None
    mae: float


@dataclass(frozen=True)
class Quality:
    """Expected error of filled pixels.

    Attributes:
        error: mean absolute error, reflectance; None where nothing is known.
        low: lower end of its interval, None where nothing is known.
        high: upper end.
        basis: what it rests on, in words.
        scores: number of scores behind it.
    """

    error: float | None
    low: float | None
    high: float | None
    basis: str
    scores: int

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self) | {"level": LEVEL}


def season_of(date: str) -> str:
    """Return the season of a date ``YYYY-MM-DD``."""
    return SEASONS[int(date[5:7])]


def expected(
    model: str, date: str, cover: float, own: Sequence[Score], others: Sequence[Score]
) -> Quality:
    """Return the error to expect of a model on a date.

    The nearest evidence that suffices: this place in this season under as much cloud, this place
    in this season, this place, other places.

    Args:
        model: id of the model.
        date: of the image.
        cover: share of the place that is hidden on it.
        own: scores of the place itself.
        others: scores of other places, one per model and place.
    """
    mine = [score for score in own if score.model == model]
    season = [score for score in mine if season_of(score.date) == season_of(date)]
    alike = [s for s in season if s.cover is not None and (s.cover >= HALF) == (cover >= HALF)]
    elsewhere = [score for score in others if score.model == model]
    share = "mostly hidden" if cover >= HALF else "partly hidden"
    for scores, basis in (
        (alike, f"this place, {season_of(date)}, {share} dates"),
        (season, f"this place, {season_of(date)}, any cover"),
        (mine, "this place, any season and cover"),
        (elsewhere, "real pairs of other places; this place may differ"),
    ):
        if len(scores) >= FEWEST:
            return _of([score.mae for score in scores], basis)
    return Quality(None, None, None, "nothing is known of this model's error here", 0)


def _of(errors: Sequence[float], basis: str) -> Quality:
    from scipy.stats import t  # lazy: a dry run measures nothing

    mean = statistics.fmean(errors)
    half = float(t.ppf((1 + LEVEL) / 2, len(errors) - 1)) * statistics.stdev(errors)
    half /= math.sqrt(len(errors))
    low, high = max(0.0, mean - half), mean + half
    return Quality(round(mean, 5), round(low, 5), round(high, 5), basis, len(errors))


def mean_by_model(scores: Sequence[Score]) -> Mapping[str, float]:
    """Return the mean error of every model over the scores that all models have, best first.

    Only scenes (or places) that every model has answered count, so that none is judged by others'
    hard cases; models without any score that is shared are left out.
    """
    keys = {(score.where, score.protocol, score.date) for score in scores}
    by_model: dict[str, dict[tuple[str, str, str], float]] = {}
    for s in scores:
        by_model.setdefault(s.model, {})[(s.where, s.protocol, s.date)] = s.mae
    full = {m: found for m, found in by_model.items() if found.keys() == keys}
    means = {model: statistics.fmean(found.values()) for model, found in full.items()}
    return dict(sorted(means.items(), key=lambda pair: (pair[1], pair[0])))
