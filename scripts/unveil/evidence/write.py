"""What the page of evidence says: real pairs first, then transplants, then who knew what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unveil.evidence.cells import count, named, number, with_interval
from unveil.evidence.document import Block, Heading, Paragraph, Table
from unveil.evidence.knowledge import UNKNOWN
from unveil.evidence.scores import (
    LEAST_DATES,
    Evidence,
    agreement,
    best_of,
    gaps,
    geometric_means,
    over_dates,
    over_places,
    ratios,
    summarise,
)
from unveil.metrics.intervals import Interval
from unveil.metrics.reading import read_table
from unveil.metrics.tables import SKIPPED_COLUMNS
from unveil.places.table import Place

TITLE = "Evidence from public places"
COMMAND = "snakemake evidence --configfile config/evidence.yaml"
TITLES = {
    "paired": "Real pairs",
    "transplant": "Veiled transplants",
    "transplant_clean": "Clean transplants",
}
"""Protocols in order of trust."""
EXPLANATIONS = {
    "paired": "A really cloudy date; the truth is a clear date at most five days away. What "
    "changed in between counts as error of every method alike: the floor.",
    "transplant": "A clear date under the whole sky of another date of the place: cloud, shadow, "
    "and the haze that its mask calls clear. The truth is exact.",
    "transplant_clean": "The same without the haze: a clean rim, which flatters methods that "
    "learn from the clear pixels of the target. Here to be compared, not to choose by.",
}
BINS = ((0.0, 0.35), (0.35, 0.65), (0.65, 0.9), (0.9, 1.0))
"""Covers of real pairs that are taken together."""
FAMILIES = {
    "baseline": "leaves the clouds in",
    "date": "another date as it is",
    "simple": "simple, of the series",
    "image": "of one image, without weights",
    "image network": "network of one image",
    "series network": "network of the series",
}
"""Family -> how it is called."""
WHOLE = 0.995
"""Share of the hidden pixels below which an answer is called partial."""
NO_WEIGHTS = "weights not fetched"
"""What the reason of a row without its weights begins with."""


SILENT = "gave no hidden pixel a value: nothing of the target, or of its dates, that it learns from"
"""Reason of scenes where a method ran in vain, as those that learn from clear pixels at 100 %."""


@dataclass(frozen=True)
class Method:
    """What the page says of a method.

    Attributes:
        id: its row of the models table.
        family: key of :data:`FAMILIES`.
        knew: places that it was made on, or why that is not known.
    """

    id: str
    family: str
    knew: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """All that the page is made of.

    Attributes:
        evidence: scores of scenes.
        methods: in the order of the run.
        places: the public places, those without scenes as well.
        skipped: columns ``scene``, ``model``, ``stage``, ``reason``.
        title: of the page.
        command: what makes it.
    """

    evidence: Evidence
    methods: Sequence[Method]
    places: Sequence[Place]
    skipped: pd.DataFrame
    title: str = TITLE
    command: str = COMMAND

    def rows(self, protocol: str) -> pd.DataFrame:
        """Return the scores of a protocol."""
        return self.answered[self.answered["protocol"] == protocol]

    @property
    def answered(self) -> pd.DataFrame:
        """The scores of scenes where a method gave any hidden pixel a value."""
        return self.evidence.table.dropna(subset=["MAE"])

    @property
    def best_simple(self) -> str:
        """The simple method of least mean error on real pairs, chosen over all of them."""
        simple = [method.id for method in self.methods if method.family == "simple"]
        return best_of(summarise(self.rows("paired"), "MAE"), simple)


def write_blocks(context: Context) -> list[Block]:
    """Return the whole document."""
    blocks: list[Block] = [Heading(context.title, 1), *_introduction(context)]
    for protocol in TITLES:
        if len(context.rows(protocol)):
            blocks += _protocol(context, protocol)
    return [*blocks, *_judging(context), *_agreement(context), *_places(context), *_skips(context)]


def read_skipped(path: Path) -> pd.DataFrame:
    """Read the table of what has no scores.

    Raises:
        InputError: if it is missing or lacks a column.
    """
    return read_table(path, dict.fromkeys(SKIPPED_COLUMNS, str), remedy="run the metrics again")


def _introduction(context: Context) -> Iterator[Block]:
    table = context.answered
    yield Paragraph(
        f"Made by `{context.command}`: {table['scene'].nunique()} scenes of "
        f"{table['place'].nunique()} public places, {table['model'].nunique()} methods with "
        "results. Numbers are mean "
        "absolute errors of hidden pixels in reflectance over the bands that a method gives: mean "
        "over the scenes of a place, then over places, of which a hard one may weigh more than all "
        "others; so each place stands beside. In brackets the 95 % interval over places "
        "([statistics.md](statistics.md)). The place is the unit: with so few, intervals are wide, "
        "and methods whose intervals overlap may still differ. Two columns compare methods on the "
        "same scenes and bands: **minus** is the difference, mean over places, and **times** the "
        "ratio, in which every place counts alike (geometric mean over places). **answered** is "
        "the share of the hidden pixels that have a value at all."
    )
    best = context.best_simple
    if best:
        yield Paragraph(
            f"The best simple method, by its mean over all real pairs, is `{best}`. It is chosen "
            "once, over all of them, and stands in bold in every table."
        )


def _protocol(context: Context, protocol: str) -> Iterator[Block]:
    rows = context.rows(protocol)
    yield Heading(TITLES[protocol])
    yield Paragraph(f"{EXPLANATIONS[protocol]} {_size(rows)}.")
    if protocol == "paired":
        yield Paragraph(_floor_text(context.evidence.floors))
    yield _overall_table(context, rows, protocol)
    dates = f"; with {LEAST_DATES} dates or more with the 95 % interval over dates"
    yield Paragraph(f"By place, mean over its scenes{dates if protocol == 'paired' else ''}:")
    yield _place_table(context, rows, protocol)
    yield Paragraph("By cover, mean over places with its interval:")
    yield _cover_table(context, rows, protocol)


def _floor_text(floors: pd.DataFrame) -> str:
    known = floors.dropna(subset=["floor"])
    if known.empty:
        return "No pair has enough certainly clear pixels for a floor."
    by_place = known.groupby("place")[["floor", "floor_after_line"]].mean()
    each = ", ".join(f"{place} {value:.4f}" for place, value in by_place["floor"].items())
    plain, line = by_place.mean()
    return (
        f"**The floor**: where both dates are certainly clear, they differ by {plain:.4f} (mean "
        f"of {count(len(by_place), 'place')}, {count(len(known), 'pair')}; {each}), and by "
        f"{line:.4f} once the level of each band is led to the other's by a line."
    )


def _overall_table(context: Context, rows: pd.DataFrame, protocol: str) -> Table:
    best = context.best_simple
    means = summarise(rows, "MAE")
    levelled = summarise(rows, "MAE_level_removed")
    bands = context.evidence.bands
    bands = bands[bands["protocol"] == protocol]
    against, times = (work(bands, best) if best else {} for work in (gaps, ratios))
    head = ["method", "family", "MAE", "answered", "places", "scenes"]
    head += [f"{word} `{best}`" if best else word for word in ("minus", "times")]
    head += ["without the scene's level", "knew", "MAE at other places"]
    lines = []
    for method in sorted_by_mean(context.methods, means):
        own = rows[rows["model"] == method.id]
        unknown = own[~own["place"].isin(method.knew)]
        alike = len(unknown) == len(own)
        lines.append(
            [
                named(method.id, best),
                FAMILIES[method.family],
                with_interval(means[method.id]),
                _answered(own),
                str(means[method.id].n_places),
                str(len(own)),
                with_interval(against.get(method.id), sign=True),
                with_interval(times.get(method.id), decimals=2),
                with_interval(levelled.get(method.id)),
                _knew(method, set(own["place"])),
                "the same" if alike else with_interval(summarise(unknown, "MAE").get(method.id)),
            ]
        )
    return Table(head, lines)


def sorted_by_mean(methods: Sequence[Method], means: Mapping[str, Interval]) -> list[Method]:
    """Return the methods that have a mean: those on all places first, the least first."""
    most = max((mean.n_places for mean in means.values()), default=0)
    some = (method for method in methods if method.id in means)
    return sorted(some, key=lambda m: (means[m.id].n_places < most, means[m.id].mean))


def _place_table(context: Context, rows: pd.DataFrame, protocol: str) -> Table:
    scenes = rows.groupby("place")["scene"].nunique()
    heads = [f"{place} ({count(int(n), 'scene')})" for place, n in scenes.items()]
    found = _over_dates(rows, protocol)
    lines = [
        [
            named(method.id, context.best_simple),
            *(with_interval(found.get((method.id, place))) for place in scenes.index),
        ]
        for method in sorted_by_mean(context.methods, summarise(rows, "MAE"))
    ]
    return Table(["method", *heads], lines)


def _over_dates(rows: pd.DataFrame, protocol: str) -> dict[tuple[str, str], Interval]:
    """Method and place -> mean over scenes, over the dates of real pairs with its interval."""
    grouped = rows.groupby(["model", "place"])
    if protocol == "paired":
        return {key: over_dates(own) for key, own in grouped}
    means = grouped["MAE"].mean()
    return {key: Interval(float(mean), np.nan, np.nan, 1) for key, mean in means.items()}


def _cover_table(context: Context, rows: pd.DataFrame, protocol: str) -> Table:
    best = context.best_simple
    parts = by_cover(rows, protocol)
    found = {name: summarise(part, "MAE") for name, part in parts.items()}
    heads = [f"{name} ({_size(part)})" for name, part in parts.items()]
    lines = []
    for method in sorted_by_mean(context.methods, summarise(rows, "MAE")):
        cells = []
        for name, part in parts.items():
            mean = found[name].get(method.id)
            some = mean and mean.n_places < part["place"].nunique()
            fewer = f", {count(mean.n_places, 'place')}" if mean and some else ""
            cells.append(with_interval(mean) + fewer)
        lines.append([named(method.id, best), *cells])
    return Table(["method", *heads], lines)


def by_cover(rows: pd.DataFrame, protocol: str) -> dict[str, pd.DataFrame]:
    """Return the rows by cover: as asked for in transplants, in bins of real pairs."""
    if protocol != "paired":
        return {f"{level:.0%}".replace("%", " %"): part for level, part in rows.groupby("level")}
    found = {}
    for low, high in BINS:
        inside = (rows["level"] > low) & (rows["level"] <= high)
        if inside.any():
            found[f"{100 * low:.0f}–{100 * high:.0f} %"] = rows[inside]
    return found


def _judging(context: Context) -> Iterator[Block]:
    judges = [place for place in context.places if place.role == "judges" and place.size]
    names = {place.id for place in judges}
    table = context.answered[context.answered["place"].isin(names)]
    if table.empty:
        return
    yield Heading("Places that judge")
    yield Paragraph(
        "Nothing was ever trained, tuned or chosen on these: "
        + "; ".join(f"{place.id} ({place.title})" for place in judges)
        + ". They are too few for an interval over places; behind each mean stand its scenes, and "
        f"with {LEAST_DATES} dates or more the 95 % interval over dates, which says how sure the "
        "mean of this place is."
    )
    groups = [
        (protocol, name)
        for protocol in TITLES
        for name in sorted(names)
        if len(table[(table["protocol"] == protocol) & (table["place"] == name)])
    ]
    found = {
        group: _judged(table[(table["protocol"] == group[0]) & (table["place"] == group[1])])
        for group in groups
    }
    first = found[groups[0]]
    lines = []
    for method in sorted(
        context.methods, key=lambda m: first[m.id][0].mean if m.id in first else np.inf
    ):
        if any(method.id in group for group in found.values()):
            cells = [_mean_and_count(group.get(method.id)) for group in found.values()]
            lines.append([named(method.id, context.best_simple), *cells])
    heads = [f"{name}, {TITLES[protocol].lower()}" for protocol, name in groups]
    yield Table(["method", *heads], lines)


def _agreement(context: Context) -> Iterator[Block]:
    inputs = [method.id for method in context.methods if method.family == "baseline"]
    table = context.answered[~context.answered["model"].isin(inputs)]
    protocols = {p: rows for p in TITLES if len(rows := table[table["protocol"] == p])}
    others = {p: rows for p, rows in protocols.items() if p != "paired"}
    if "paired" not in protocols or not others:
        return
    pairs = protocols["paired"]
    yield Heading("Do the protocols agree?")
    yield Paragraph(
        "Ranks of the methods, 1 is best, without the cloudy input, by the geometric mean over the "
        "places that have every protocol, so that each counts alike, all covers together. Below, "
        "how alike transplants and real pairs rank: Spearman's rank correlation, 1 where the order "
        "is the same, −1 where it is turned around; in brackets the number of methods with both."
    )
    yield _rank_table(context, protocols)
    lines = []
    for place in ("", *sorted(pairs["place"].unique())):
        one = pairs[pairs["place"] == place] if place else pairs
        cells = []
        for rows in others.values():
            own = rows[rows["place"] == place] if place else rows
            cells.append(_agreed(agreement(one, own)))
        lines.append([place or "**all places**", *cells])
    yield Table(["place", *(TITLES[protocol] for protocol in others)], lines)


def _rank_table(context: Context, protocols: Mapping[str, pd.DataFrame]) -> Table:
    tables = [over_places(rows, "MAE") for rows in protocols.values()]
    places = sorted(set.intersection(*(set(table.index) for table in tables)))
    means = geometric_means([table.loc[places] for table in tables])
    ranks = means.rank(method="min").astype(int).sort_values(0, kind="stable")
    head = [
        "method",
        *(f"{TITLES[protocol]}, {count(len(places), 'place')}" for protocol in protocols),
    ]
    lines = [
        [
            named(name, context.best_simple),
            *(
                f"{rank} ({number(mean)})"
                for rank, mean in zip(ranks.loc[name], means.loc[name], strict=True)
            ),
        ]
        for name in ranks.index
    ]
    return Table(head, lines)


def _places(context: Context) -> Iterator[Block]:
    yield Heading("The places and their roles")
    yield Paragraph(
        "Every place has one role: it *trains* networks and constants, *validates* training, "
        "*develops* (constants of the pipeline were looked at on it) or *judges*. Files and "
        "checksums: [resources/places.yaml](../resources/places.yaml)."
    )
    table = context.evidence.table
    lines = []
    for place in context.places:
        own = table[table["place"] == place.id]
        scored = own.groupby("protocol")["scene"].nunique() if len(own) else {}
        lines.append(
            [
                place.id,
                place.title,
                place.role,
                f"{place.level}{f' ({place.notes})' if place.notes else ''}",
                f"{len(place.bands)} of {place.pixel_m} m" if place.size else str(len(place.bands)),
                f"{place.radar_dates} dates" if place.radar_dates else "none",
                str(place.dates),
                f"{place.pairs} ({scored.get('paired', 0)})" if place.size else "–",
                str(sum(scored.get(p, 0) for p in ("transplant", "transplant_clean")))
                if place.size
                else f"none: {place.why}",
                f"{place.origin}; {place.licence}",
            ]
        )
    head = ["place", "where", "role", "level", "bands", "radar", "dates"]
    yield Table([*head, "real pairs (scored)", "transplants scored", "source, licence"], lines)


def _skips(context: Context) -> Iterator[Block]:
    table = context.evidence.table
    silent = table[table["MAE"].isna()]
    skipped = context.skipped
    if skipped.empty and silent.empty:
        return
    yield Heading("What did not run")
    missing = skipped[skipped["reason"].str.startswith(NO_WEIGHTS)]
    absent = sorted(set(missing["model"]))
    if absent:
        yield Paragraph(
            "Rows of config/models.yaml without their weights, which were not judged: "
            + ", ".join(f"`{name}`" for name in absent)
            + "."
        )
    other = skipped.drop(missing.index)
    counts = Counter(zip(other["model"], other["reason"], strict=True))
    counts.update((model, SILENT) for model in silent["model"])
    lines = [[f"`{model}`", reason, str(n)] for (model, reason), n in sorted(counts.items())]
    if lines:
        yield Table(["method", "reason", "scenes"], lines)


def _knew(method: Method, places: set[str]) -> str:
    return ", ".join(name for name in method.knew if name in {*places, UNKNOWN}) or "–"


def _answered(own: pd.DataFrame) -> str:
    share = float(own["answered"].mean()) if "answered" in own else 1.0
    return "all" if share >= WHOLE or np.isnan(share) else f"{100 * share:.0f} %"


def _judged(rows: pd.DataFrame) -> dict[str, tuple[Interval, int]]:
    """Method -> mean at one place by one protocol, and the number of its scenes."""
    protocols = rows["protocol"].unique()
    protocol = str(protocols[0]) if len(protocols) else ""
    means = _over_dates(rows, protocol)
    sizes = rows.groupby("model")["scene"].nunique()
    return {model: (mean, int(sizes[model])) for (model, _), mean in means.items()}


def _mean_and_count(found: tuple[Interval, int] | None) -> str:
    return f"{with_interval(found[0])}; {found[1]}" if found else "–"


def _size(rows: pd.DataFrame) -> str:
    scenes, places = (count(rows[what].nunique(), what) for what in ("scene", "place"))
    return f"{scenes}, {places}"


def _agreed(found: tuple[float, int]) -> str:
    rho, methods = found
    return "–" if np.isnan(rho) else f"{rho:.2f} ({methods})".replace("-", "−")


def numbers(context: Context) -> pd.DataFrame:
    """Return every mean over places: protocol, cover, metric, method, interval and counts."""
    lines = []
    for protocol in TITLES:
        rows = context.rows(protocol)
        for cover, part in {"all": rows, **by_cover(rows, protocol)}.items():
            for metric in ("MAE", "MAE_level_removed"):
                for model, mean in summarise(part, metric).items():
                    own = part[part["model"] == model].dropna(subset=[metric])
                    lines.append(
                        {"protocol": protocol, "cover": cover, "metric": metric, "model": model}
                        | {"mean": mean.mean, "low": mean.low, "high": mean.high}
                        | {"n_places": mean.n_places, "n_scenes": len(own)}
                    )
    return pd.DataFrame(lines)
