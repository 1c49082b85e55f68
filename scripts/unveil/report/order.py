"""In which order the report names models, protocols and regions."""

from __future__ import annotations

from collections.abc import Iterable

from unveil.metrics.levels import ALL
from unveil.protocols import PROTOCOLS
from unveil.report.findings import Findings, select

REAL = "paired"
"""The protocol of real pairs, which is believed most."""


def best_first(findings: Findings, protocol: str = "") -> list[str]:
    """Return the models in the order of their error under cloud, best first.

    The order is that of ``protocol``, then of real pairs, then of the protocol that compares most
    models, and so on for those that have no score there. Models without any score come last; the
    cloudy input itself comes first of all, because it is what the others start from.
    """
    wanted = {"level": ALL, "region": "occluded", "band": "all", "metric": "MAE"}
    rows = select(findings.statistics.pooled, **wanted).dropna(subset=["value"])
    means = rows.set_index(["protocol", "model"])["value"]
    sizes = means.groupby(level="protocol").size()
    names = sorted(sizes.index, key=lambda name: (name != protocol, name != REAL, -sizes[name]))
    order = [model for name in names for model in means[name].sort_values(kind="stable").index]
    place = {model: number for number, model in enumerate(dict.fromkeys(order))}
    return sorted(
        findings.methods,
        key=lambda m: (not findings.methods[m].is_baseline, place.get(m, len(place))),
    )


def best_of_each(findings: Findings) -> list[str]:
    """Return the models so that the best of every protocol come first, then the seconds ...

    The cloudy input itself is not among them.
    """
    rows = findings.scores
    found: list[str] = []
    orders = []
    for protocol in order_by(rows["protocol"].unique(), PROTOCOLS):
        scored = set(rows.loc[rows["protocol"] == protocol, "model"].unique())
        orders.append([m for m in best_first(findings, protocol) if m in scored])
    for place in range(len(findings.methods)):
        found += [order[place] for order in orders if place < len(order)]
    return [m for m in dict.fromkeys(found) if not findings.methods[m].is_baseline]


def order_by(names: Iterable[str], order: Iterable[str]) -> list[str]:
    """Return ``names`` in a given order, unknown ones last and alphabetical."""
    known = list(order)
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n))
