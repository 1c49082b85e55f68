"""Choosing frames for a scene as a benchmark should: pure functions over small records.

An *acquisition* is one product or STAC item of one tile. A *look* is what a satellite saw of
the place in one overpass: the acquisitions of one platform and relative orbit within minutes,
mosaicked. The rules:

1. Of one tile in one overpass, the highest processing baseline is used, then the latest
   processing time (:func:`newest_versions`). Parts of the tile in two datastrips are no
   versions of each other: both are used, the higher baseline on top. Strips that start within
   :data:`SAME_STRIP` are one strip, which two processings cut differently.
2. Of several looks on one date, the one that shows most of the place is used; where they differ
   by less than 1 % of it, the less cloudy one, then the earlier one (:func:`one_look_a_day`).
3. The target is the look nearest to the wanted date, in the window, whose cloud over the
   *place* is in the wanted range and which shows the place whole (:func:`choose_target`).
4. The truth is the nearest really clear look within a limit of days: hardly a cloud or shadow
   over the place, no haze; of two as near, the clearer (:func:`choose_truth`).
5. Context is the nearest dates, half before and half after (:func:`choose_context`).
6. Radar is the nearest pass, and the same relative orbit for all dates as long as it has a pass
   within the limit (:func:`choose_passes`).

Catalogues know the cloud of a tile; the cloud of the place comes from its own mask pixels.
"""

from __future__ import annotations

import datetime as dt
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unveil.bands import NODATA, REFLECTANCE_SCALE
from unveil.errors import InputError, SceneSkipped
from unveil.scene import cloud_cover, is_clear

OVERPASS = dt.timedelta(minutes=10)
"""A datatake of one overpass passes a place within this time."""
SAME_STRIP = dt.timedelta(seconds=20)
"""Two processings of a datastrip start it within this time; the next strip starts later."""
STRIP_TIME = re.compile(r"\d{8}T\d{6}")
HAZE_MARGIN = 0.01
"""Blue reflectance above the usual of the place's clear dates that is taken for haze."""
MIN_DATES_FOR_HAZE = 4
"""Fewest clear dates from which the usual blue reflectance of a place is known."""
OFFICIAL_CLEAR = 1e-3
"""Most cloudy fraction of an image that SEN12MS-CR-TS calls clear."""


@dataclass(frozen=True)
class Limits:
    """How frames are chosen; section ``sources.selection`` of the config.

    Attributes:
        window_days: most days from the wanted date to the target; 0 takes that date only.
        target_cloud: least and most occluded fraction of a target.
        truth_days: most days from the target to its truth.
        truth_cloud: most occluded fraction of a truth.
        place_share: least fraction of the place that target and truth show.
        radar_days: most days from an optical frame to its radar pass.
    """

    window_days: int
    target_cloud: tuple[float, float]
    truth_days: int
    truth_cloud: float
    place_share: float
    radar_days: float


@dataclass(frozen=True)
class Acquisition:
    """One product of one tile.

    Attributes:
        id: name of product or item.
        time: sensing time, UTC.
        platform: ``sentinel-2a`` ...
        tile: MGRS tile; empty for radar.
        datastrip: sensing start of the datastrip; empty when unknown.
        relative_orbit: relative orbit number; None when unknown.
        orbit_state: ``ascending`` or ``descending``; empty when unknown.
        baseline: processing baseline as numbers; None when unknown.
        processed: processing time, UTC ISO text; empty when unknown.
    """

    id: str
    time: dt.datetime
    platform: str = ""
    tile: str = ""
    datastrip: str = ""
    relative_orbit: int | None = None
    orbit_state: str = ""
    baseline: tuple[int, int] | None = None
    processed: str = ""


@dataclass(frozen=True)
class Look:
    """What one overpass shows of the place.

    Attributes:
        members: its acquisitions, one per tile and datastrip, sorted by tile.
        valid: fraction of the place with data.
        occluded: fraction of the valid pixels under cloud or shadow; None before the masks
            have been read.
        blue: median blue reflectance of clear pixels; None when unknown.
        clear: fraction of the place that is clear before cloud and shadow are grown; None when
            unknown.
    """

    members: tuple[Acquisition, ...]
    valid: float = 1.0
    occluded: float | None = None
    blue: float | None = None
    clear: float | None = None

    @property
    def time(self) -> dt.datetime:
        """Sensing time of the first member."""
        return min(member.time for member in self.members)

    @property
    def date(self) -> str:
        """UTC date, ``YYYY-MM-DD``."""
        return self.time.date().isoformat()

    @property
    def relative_orbit(self) -> int | None:
        """Relative orbit of the overpass."""
        return self.members[0].relative_orbit


def parse_time(text: str) -> dt.datetime:
    """Return an ISO 8601 time as UTC.

    Raises:
        InputError: if ``text`` is no time.
    """
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no time", field="datetime", remedy="give an ISO 8601 time"
        ) from error
    return time.replace(tzinfo=time.tzinfo or dt.UTC).astimezone(dt.UTC)


# --- from acquisitions to looks ---------------------------------------------------------


def newest_versions(acquisitions: Iterable[Acquisition]) -> list[Acquisition]:
    """Keep one version of every tile of every overpass (rule 1), sorted by time and tile."""
    kept: list[Acquisition] = []
    ordered = sorted(acquisitions, key=lambda a: (a.platform, _tile(a), a.datastrip, a.time, a.id))
    for item in ordered:
        last = kept[-1] if kept else None
        if last and _same_overpass(last, item) and _same_part(last, item):
            kept[-1] = max(last, item, key=_version)
        else:
            kept.append(item)
    return sorted(kept, key=lambda a: (a.time, a.tile, a.id))


def _tile(item: Acquisition) -> str:
    """Return what of an overpass an acquisition shows; radar frames have no tile."""
    return item.tile or item.id


def _same_part(first: Acquisition, second: Acquisition) -> bool:
    """Whether two acquisitions of one overpass show the same part of the same tile."""
    if _tile(first) != _tile(second):
        return False
    if first.datastrip == second.datastrip:
        return True
    strips = (first.datastrip, second.datastrip)
    if not all(STRIP_TIME.fullmatch(strip) for strip in strips):
        return False
    starts = [parse_time(strip) for strip in strips]
    return abs(starts[1] - starts[0]) <= SAME_STRIP


def _version(item: Acquisition) -> tuple[tuple[int, int], str, str]:
    return item.baseline or (-1, -1), item.processed, item.id


def _same_overpass(first: Acquisition, second: Acquisition) -> bool:
    orbits = (first.relative_orbit, second.relative_orbit)
    return (
        first.platform == second.platform
        and (None in orbits or orbits[0] == orbits[1])
        and abs(second.time - first.time) <= OVERPASS
    )


def group_looks(acquisitions: Iterable[Acquisition]) -> list[Look]:
    """Join the tiles of each overpass, newest versions only; looks sorted by time."""
    groups: list[list[Acquisition]] = []
    for item in newest_versions(acquisitions):
        for group in groups:
            if _same_overpass(group[0], item):
                group.append(item)
                break
        else:
            groups.append([item])
    return [Look(tuple(sorted(group, key=_layer))) for group in groups]


def _layer(item: Acquisition) -> tuple[str, int, int, dt.datetime]:
    """Order the parts of a look as they are laid over each other: of a tile the newest first."""
    major, minor = item.baseline or (-1, -1)
    return item.tile, -major, -minor, item.time


def one_look_a_day(looks: Iterable[Look]) -> list[Look]:
    """Keep one look per date (rule 2), sorted by date."""
    best: dict[str, Look] = {}
    for look in sorted(looks, key=_rank):
        best.setdefault(look.date, look)
    return [best[date] for date in sorted(best)]


def _rank(look: Look) -> tuple[float, float, dt.datetime]:
    occluded = look.occluded if look.occluded is not None else 1.0
    return -round(look.valid, 2), occluded, look.time


def measured(
    look: Look,
    classes: np.ndarray,
    blue: np.ndarray | None = None,
    *,
    clear: float | None = None,
) -> Look:
    """Return a look with what its pixels over the place tell.

    Args:
        look: the look.
        classes: ``(H, W)`` uint8 classes of the place, grown as the masks stage grows them.
        blue: ``(H, W)`` DN x 10000 of B02, 0 where nodata; None when there is none.
        clear: fraction of the place that is clear before they are grown.
    """
    usual = None
    if blue is not None:
        shown = blue[is_clear(classes) & (blue > 0)]
        usual = float(np.median(shown)) / REFLECTANCE_SCALE if shown.size else None
    return replace(
        look,
        valid=float(np.mean(classes != NODATA)),
        occluded=cloud_cover(classes),
        blue=usual,
        clear=clear,
    )


# --- choosing frames --------------------------------------------------------------------


def choose_target(
    looks: Sequence[Look],
    date: str,
    *,
    window_days: int,
    cloud: tuple[float, float],
    min_valid: float = 0.99,
) -> Look:
    """Return the target (rule 3); of two as near, the earlier.

    Args:
        looks: one per date, with cover over the place.
        date: wanted date.
        window_days: most days from it.
        cloud: least and most occluded fraction of the place.
        min_valid: least fraction of the place with data.

    Raises:
        SceneSkipped: if no look fits; the message lists the cover of those in the window.
    """
    near = [look for look in looks if days_between(look.date, date) <= window_days]
    low, high = cloud
    fit = [
        look
        for look in near
        if look.valid >= min_valid and look.occluded is not None and low <= look.occluded <= high
    ]
    if not fit:
        seen = ", ".join(_cover_text(look) for look in near) or "no look at all"
        raise SceneSkipped(
            f"no date within {window_days} days of {date} has {low:.0%} to {high:.0%} cloud "
            f"over the place and shows it whole: {seen}"
        )
    return min(fit, key=lambda look: (days_between(look.date, date), look.date))


def choose_truth(
    looks: Sequence[Look],
    target: str,
    *,
    max_days: int,
    max_occluded: float = 0.01,
    min_valid: float = 0.99,
) -> Look:
    """Return the truth of a target date (rule 4).

    Args:
        looks: one per date, with cover over the place.
        target: target date.
        max_days: most days from it.
        max_occluded: most occluded fraction of a really clear look.
        min_valid: least fraction of the place with data.

    Raises:
        SceneSkipped: if no look is clear enough; the message names the clearest.
    """
    others = [look for look in looks if look.date != target and look.occluded is not None]
    clear = [
        look
        for look in others
        if look.occluded is not None and look.occluded <= max_occluded and look.valid >= min_valid
    ]
    limit = haze_limit(look.blue for look in clear)
    near = [
        look
        for look in clear
        if days_between(look.date, target) <= max_days
        and (limit is None or look.blue is None or look.blue <= limit)
    ]
    if near:
        return min(near, key=lambda k: (days_between(k.date, target), k.occluded, k.date))
    within = [look for look in others if days_between(look.date, target) <= max_days]
    best = min(within, key=lambda k: (k.valid < min_valid, k.occluded), default=None)
    seen = f"the clearest is {_cover_text(best)}" if best else "there is no other look"
    raise SceneSkipped(
        f"no really clear date (at most {max_occluded:.0%} occluded, no haze) within {max_days} "
        f"days of {target}: {seen}"
    )


def truth_within(looks: Sequence[Look], target: str, limits: Limits) -> Look:
    """Return the truth of a target date as the config limits it.

    Raises:
        SceneSkipped: if no look is clear enough; the message names the clearest.
    """
    return choose_truth(
        looks,
        target,
        max_days=limits.truth_days,
        max_occluded=limits.truth_cloud,
        min_valid=limits.place_share,
    )


def first_target(looks: Iterable[Look], limits: Limits) -> Look:
    """Return the first look that is cloudy enough for a target and has a truth.

    Raises:
        SceneSkipped: if there is none.
    """
    looks, (low, high) = list(looks), limits.target_cloud
    for look in looks:
        cloudy = look.occluded is not None and low <= look.occluded <= high
        if cloudy and look.valid >= limits.place_share:
            try:
                truth_within(looks, look.date, limits)
            except SceneSkipped:
                continue
            return look
    raise SceneSkipped(
        f"no date has {low:.0%} to {high:.0%} cloud over the place and a really clear date "
        f"within {limits.truth_days} days"
    )


def sample_official(
    covers: Sequence[float], n_inputs: int, cloud: tuple[float, float]
) -> tuple[list[int], int, bool]:
    """Choose inputs and truth of a patch as SEN12MS-CR-TS does for its tests.

    The truth is the least cloudy image, the first of several. The inputs are the first others
    whose cover lies in the range; where these are too few, the first others of any cover. This
    is the sampler that the dataset's own loader and that of UnCRtainTS test with (Ebel et al.
    2022, IEEE TGRS 60, doi:10.1109/TGRS.2022.3146246; Ebel et al. 2023, CVPRW), but for one
    thing: theirs takes the truth for an input too where its cover lies in the range.

    Args:
        covers: cloudy fraction of every image of the patch, in their order.
        n_inputs: how many inputs are wanted.
        cloud: least and most cloudy fraction of an input.

    Returns:
        Positions of the inputs, position of the truth, and whether enough inputs lie in the
        range and the truth is clear (:data:`OFFICIAL_CLEAR`).
    """
    low, high = cloud
    truth = min(range(len(covers)), key=covers.__getitem__)
    others = [number for number in range(len(covers)) if number != truth]
    fit = [number for number in others if low <= covers[number] <= high][:n_inputs]
    enough = len(fit) == n_inputs
    return fit if enough else others[:n_inputs], truth, enough and covers[truth] <= OFFICIAL_CLEAR


def haze_limit(blues: Iterable[float | None]) -> float | None:
    """Return the blue reflectance above which a clear date is hazy; None when unknown.

    Masks miss haze. It brightens blue light over the usual of the place's clear dates.
    """
    known = [blue for blue in blues if blue is not None]
    return statistics.median(known) + HAZE_MARGIN if len(known) >= MIN_DATES_FOR_HAZE else None


def choose_donor(
    covers: dict[str, float], level: float, rng: np.random.Generator, *, tolerance: float = 0.05
) -> str:
    """Return a date whose cover is within ``tolerance`` of ``level``, by chance; else the nearest.

    Raises:
        InputError: without any candidate.
    """
    if not covers:
        raise InputError(
            "no date with a mask could lend its clouds",
            field="cloud_date",
            remedy="add cloudy frames with masks, or use protocol simulate",
        )
    near = sorted(date for date, cover in covers.items() if abs(cover - level) <= tolerance)
    if near:
        return str(rng.choice(near))
    return min(covers, key=lambda date: (abs(covers[date] - level), date))


def usual_bands(frames: Sequence[Iterable[str]]) -> set[str]:
    """Return the bands that at least half of some frames have."""
    counts = Counter(name for bands in frames for name in bands)
    return {name for name, count in counts.items() if 2 * count >= len(frames)}


def choose_context(dates: Sequence[str], target: str, count: int, excluded: set[str]) -> list[str]:
    """Return the nearest dates, half before and half after the target, sorted (rule 5).

    Where one side has too few, the other side fills up.
    """
    before = [d for d in sorted(dates, reverse=True) if d < target and d not in excluded]
    after = [d for d in sorted(dates) if d > target and d not in excluded]
    half = count // 2
    take_after = min(len(after), max(count - half, count - len(before)))
    take_before = min(len(before), count - take_after)
    return sorted(before[:take_before] + after[:take_after])


def choose_radar(dates: Sequence[str], target: str, context: Sequence[str]) -> list[str]:
    """Return the radar dates from the first to the last optical date, and the nearest one.

    Networks on one image take the nearest to the target, networks on radar series all.
    """
    ranked = sorted(dates, key=lambda d: (days_between(d, target), d))
    first, last = min([target, *context]), max([target, *context])
    return sorted({*ranked[:1], *(date for date in dates if first <= date <= last)})


def choose_passes(
    passes: Sequence[Look], target: dt.datetime, others: Sequence[dt.datetime], *, max_days: float
) -> list[Look]:
    """Return the radar pass of every optical time (rule 6), each once, sorted by time.

    The orbit of the pass nearest to the target is kept: backscatter depends on the angle of
    incidence and the side that is looked from. A time without a pass of that orbit within the
    limit takes the nearest of any orbit; without any, none.

    Args:
        passes: radar looks that show the place.
        target: time of the target.
        others: times of the context.
        max_days: most days between an optical frame and its pass.
    """
    limit = dt.timedelta(days=max_days)

    def nearest(candidates: Sequence[Look], time: dt.datetime) -> Look | None:
        within = [p for p in candidates if abs(p.time - time) <= limit]
        return min(within, key=lambda p: (abs(p.time - time), p.time), default=None)

    first = nearest(passes, target)
    if first is None:
        return []
    same = [p for p in passes if p.relative_orbit == first.relative_orbit]
    chosen = [first, *(nearest(same, time) or nearest(passes, time) for time in others)]
    return sorted({p.time: p for p in chosen if p}.values(), key=lambda p: p.time)


def days_between(first: str, second: str) -> int:
    """Return the days between two ISO dates, not negative."""
    return abs((dt.date.fromisoformat(first) - dt.date.fromisoformat(second)).days)


def _cover_text(look: Look) -> str:
    cover = "unknown" if look.occluded is None else f"{look.occluded:.0%}"
    partial = "" if look.valid >= 0.99 else f" of the {look.valid:.0%} seen"
    return f"{look.date} ({cover}{partial})"
