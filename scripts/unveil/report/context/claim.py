"""One image or a series? The best method of each kind on the same scenes, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unveil.metrics.levels import ALL, level_names
from unveil.protocols import PROTOCOLS
from unveil.report.context.answer import Paired, against, pooled_errors
from unveil.report.context.picture import Picture
from unveil.report.context.scores import ALL_LEVELS
from unveil.report.findings import Findings, Method, ReportOptions
from unveil.report.images import CLOUDY, SAR, TRUTH, Row
from unveil.report.order import REAL, order_by
from unveil.report.words import scene_title

FILLINGS = ("clear_mean", "inpaint")
"""Kinds that fill in from the image's own clear pixels, without weights."""
SHOWN_ROWS = 3
"""Levels of cover in the picture."""


@dataclass(frozen=True)
class Claim:
    """The best single-image method against the best series method, of one protocol.

    Which method is the best of its kind is read from all scenes of the protocol once, never
    scene by scene.

    Attributes:
        protocol: where the truth comes from.
        single: id of the method that looks at the target alone.
        series: id of the method that looks at other dates, too.
        levels: label of a cloud level -> the first minus the second on the scenes of both;
            the last is over all levels.
    """

    protocol: str
    single: str
    series: str
    levels: dict[str, Paired]


def claims(findings: Findings, options: ReportOptions) -> list[Claim]:
    """Return the claim of each protocol that has a method of both kinds, real pairs first."""
    found = []
    for protocol in order_by(findings.statistics.pooled["protocol"].unique(), PROTOCOLS):
        single, series = (best_of_kind(findings, protocol, series=kind) for kind in (False, True))
        if not single or not series:
            continue
        levels = {}
        for level in (*level_names(options.cloud_levels), ALL):
            pairs = against(findings, series, protocol=protocol, level=level)
            pair = next((pair for pair in pairs if pair.model == single), None)
            if pair:
                levels[ALL_LEVELS if level == ALL else level] = pair
        if levels:
            found.append(Claim(protocol, single, series, levels))
    return found


def best_of_kind(findings: Findings, protocol: str, *, series: bool) -> str:
    """Return the method of a kind with the lowest error under cloud, ranked ones before others.

    Empty where no method of that kind has a score.
    """
    errors = pooled_errors(findings, protocol=protocol).dropna(subset=["value"])
    methods = [findings.methods[model] for model in errors.index]
    kind = [m.series is series and not m.is_baseline for m in methods]
    ordered = errors[kind].sort_values(["ranked", "value"], ascending=[False, True], kind="stable")
    return str(ordered.index[0]) if len(ordered) else ""


def networks_and_fillings(findings: Findings, protocol: str) -> list[tuple[str, Paired]]:
    """Return each DSen2-CR against the better way to fill in from clear pixels.

    Which filling is the better one is read from all scenes of the protocol once.

    Returns:
        The filling's id, and the network minus the filling on the scenes of both; empty where
        one or the other has no score.
    """
    errors = pooled_errors(findings, protocol=protocol).dropna(subset=["value"])["value"]
    kinds = {model: findings.methods[model].kind for model in errors.index}
    fillings = errors[[kinds[model] in FILLINGS for model in errors.index]]
    if fillings.empty:
        return []
    filling = str(fillings.idxmin())
    pairs = against(findings, filling, protocol=protocol)
    return [(filling, pair) for pair in pairs if kinds.get(pair.model) == "dsen2cr"]


def claim_picture(
    findings: Findings, found: Sequence[Claim], picture: Picture, shown: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the original picture: cloudy, radar, DSen2-CR, a series method, truth.

    Rows are real pairs with radar at three covers, where there are such; else what comes
    nearest, which ``real`` and ``radar`` tell.

    Args:
        findings: scenes and methods.
        found: the claims, which name the series method.
        picture: the large picture, whose scenes and images are used.
        shown: its context, with the images encoded.

    Returns:
        Columns and rows for the template; None without a claim or a scene for it.
    """
    if not found:
        return None
    claim = found[0]
    network = find_network(findings, picture, claim)
    wanted = [m for m in (network, claim.series) if m]
    rows = spread_over_cover(findings, pick_rows(findings, picture.rows, wanted))
    if not rows:
        return None
    cells = {row["scene"].id: {c["key"]: c for c in row["cells"]} for row in shown["rows"]}
    keys = [CLOUDY, SAR, *wanted, TRUTH]
    of_row = [cells[row.scene] for row in rows]
    keys = [key for key in keys if any(key in row and row[key]["uri"] for row in of_row)]
    titles = {m.id: m.title for m in findings.methods.values()}
    return {
        "columns": [titles.get(key, key) for key in keys],
        "real": all(findings.scenes[row.scene].protocol == REAL for row in rows),
        "radar": SAR in keys,
        "network": findings.methods[network] if network else None,
        "rows": [
            {
                "id": row.scene,
                "title": scene_title(findings.scenes[row.scene]),
                "scene": findings.scenes[row.scene],
                "cover": findings.cover[row.scene],
                "cells": [cells[row.scene].get(key) for key in keys],
            }
            for row in rows
        ],
    }


def find_network(findings: Findings, picture: Picture, claim: Claim) -> str:
    """Return the DSen2-CR to show: official weights before ours, with radar before without."""
    columns = [key for key, _ in picture.columns]
    networks = [m for m in findings.methods.values() if m.kind == "dsen2cr" and m.id in columns]

    def trust(method: Method) -> tuple[bool, int]:
        drawn = sum(method.id in row.images.get("true", {}) for row in picture.rows)
        return method.origin != "published", -drawn

    return min(networks, key=trust).id if networks else claim.single


def pick_rows(findings: Findings, rows: Sequence[Row], models: Sequence[str]) -> list[Row]:
    """Return the rows nearest to real pairs with radar and every model: the best kind there is."""

    def worth(row: Row) -> tuple[int, bool, bool]:
        scene = findings.scenes[row.scene]
        answered = set().union(*row.images.values()) if row.images else set()
        return (
            sum(model in answered for model in models),
            scene.protocol == REAL,
            scene.radar is not None,
        )

    if not rows:
        return []
    best = max(map(worth, rows))
    return [row for row in rows if worth(row) == best]


def spread_over_cover(findings: Findings, rows: Sequence[Row]) -> list[Row]:
    """Return three rows, from the least to the most cover."""
    left = sorted(rows, key=lambda row: findings.cover[row.scene])
    covers = [findings.cover[row.scene] for row in left]
    chosen = []
    for cover in np.linspace(min(covers, default=0), max(covers, default=0), SHOWN_ROWS):
        if left:
            nearest = min(left, key=lambda row: abs(findings.cover[row.scene] - cover))
            left.remove(nearest)
            chosen.append(nearest)
    return sorted(chosen, key=lambda row: findings.cover[row.scene])
