"""Real pairs of a series: a cloudy date, and the nearest one that is clear over the place.

Which dates become targets and truths is decided by what masks say of the place, never by pixels of
a truth, and the same dates are found again: nothing is random.

1. A truth has at least :data:`CLEAR_SHARE` of the place clear in its delivered mask, and a blue
   band no brighter than usual on such dates (masks miss haze). What is not clear is not scored.
2. A target shows the place, with a cover within ``sources.selection.target_cloud``, or any cover
   where the row gives ``cloud_levels``; in the row's ``period``, if it has one.
3. The truth of a target is the nearest one, at most ``truth_days`` away; of two as near, the
   clearer.
4. Of the pairs that there are, one is the first in time; several are spread evenly over the order
   of their covers; with ``cloud_levels``, those nearest to each level, none twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.sources.selection import Limits, Look, days_between, haze_limit

CLEAR_SHARE = 0.97
"""Share of clear pixels of the place from which a date may be the truth."""
PAIR_DAYS = 5
"""Most days from a target to its truth, unless row or source say otherwise."""


@dataclass(frozen=True)
class Wish:
    """Which pairs a row asks for.

    Attributes:
        count: how many; of each level, if there are levels.
        levels: covers that targets should come near to; empty for any.
        days: most days from a target to its truth.
        period: first and last date of a target; empty for any.
    """

    count: int = 1
    levels: tuple[float, ...] = ()
    days: int = PAIR_DAYS
    period: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many pairs in all."""
        return self.count * max(1, len(self.levels))


def asks_for_pairs(row: SceneRow) -> bool:
    """Whether target and truth of a row are to be chosen together."""
    other = PROTOCOLS[row.protocol].truth == "another date"
    return other and row.target_date == "auto" and row.reference_date in ("", "auto")


def wish_of(row: SceneRow, usual_days: int = PAIR_DAYS) -> Wish:
    """Return what a row asks for; ``usual_days`` is its source's own limit."""
    return Wish(
        count=row.n_targets,
        levels=tuple(float(text) for text in row.cloud_levels.split(",") if text),
        days=row.truth_days or usual_days,
        period=tuple(row.period.split("/")) if row.period else (),
    )


def find_pairs(looks: Sequence[Look], wish: Wish, limits: Limits) -> list[tuple[Look, Look]]:
    """Return every target with its truth, sorted by date of the target.

    Args:
        looks: one per date, measured over the place.
        wish: what is asked for.
        limits: how cloudy a target is, and how much of the place it shows.
    """
    truths = _truths(looks)
    low, high = (0.0, 1.0) if wish.levels else limits.target_cloud
    found = []
    for look in sorted(looks, key=lambda k: k.date):
        cloudy = look.occluded is not None and low <= look.occluded <= high and look.occluded > 0
        if not cloudy or look.valid < limits.place_share or not _within(look.date, wish.period):
            continue
        near = [
            t
            for t in truths
            if t.date != look.date and days_between(t.date, look.date) <= wish.days
        ]
        if near:
            found.append((look, min(near, key=lambda t: _distance(t, look.date))))
    return found


def choose_pairs(looks: Sequence[Look], wish: Wish, limits: Limits) -> list[tuple[Look, Look]]:
    """Return the pairs that are asked for, as many as there are (rule 4).

    Args:
        looks: one per date, measured over the place.
        wish: what is asked for.
        limits: how cloudy a target is, and how much of the place it shows.
    """
    pairs = find_pairs(looks, wish, limits)
    if not wish.levels:
        return pairs[:1] if wish.count == 1 else _spread(pairs, wish.count)
    chosen: list[tuple[Look, Look]] = []
    for level in wish.levels:
        left = [pair for pair in pairs if pair not in chosen]
        left.sort(key=lambda pair: (abs((pair[0].occluded or 0) - level), pair[0].date))
        chosen += left[: wish.count]
    return chosen


def require_pairs(
    looks: Sequence[Look], wish: Wish, limits: Limits, *, row: SceneRow
) -> list[tuple[Look, Look]]:
    """Return the pairs that a row asks for.

    Raises:
        InputError: if there are fewer.
    """
    pairs = choose_pairs(looks, wish, limits)
    if len(pairs) < wish.total:
        raise too_few(len(pairs), wish, limits, file=row.path, scene=row.scene)
    return pairs


def too_few(found: int, wish: Wish, limits: Limits, *, file: str, scene: str) -> InputError:
    """Return the error of a place with fewer pairs than are asked for."""
    low, high = limits.target_cloud
    cover = "cloud" if wish.levels else f"{low:.0%} to {high:.0%} cloud"
    when = f" from {wish.period[0]} to {wish.period[1]}" if wish.period else ""
    there = "pair is" if found == 1 else "pairs are"
    return InputError(
        f"{found} real {there} there{when}, {wish.total} wanted: a "
        f"date with {cover} over the place, and at most {wish.days} days from it one that is at "
        f"least {CLEAR_SHARE:.0%} clear and without haze",
        file=file,
        field=f"scene {scene}: n_targets",
        remedy="ask for fewer (n_targets, cloud_levels), or allow more days (truth_days)",
    )


def _truths(looks: Sequence[Look]) -> list[Look]:
    clear = [look for look in looks if look.clear is not None and look.clear >= CLEAR_SHARE]
    limit = haze_limit(look.blue for look in clear)
    return [k for k in clear if limit is None or k.blue is None or k.blue <= limit]


def _within(date: str, period: tuple[str, ...]) -> bool:
    return not period or period[0] <= date <= period[1]


def _distance(truth: Look, date: str) -> tuple[int, float, str]:
    return days_between(truth.date, date), 1 - (truth.clear or 0), truth.date


def _spread(pairs: Sequence[tuple[Look, Look]], count: int) -> list[tuple[Look, Look]]:
    """Return pairs at even distances in the order of their covers."""
    ordered = sorted(pairs, key=lambda pair: (pair[0].occluded, pair[0].date))
    if len(ordered) <= count:
        return ordered
    return [ordered[(2 * k + 1) * len(ordered) // (2 * count)] for k in range(count)]
