"""Do protocols agree? Models side by side, and the correlation of their ranks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unveil.metrics.registry import print_value
from unveil.protocols import PROTOCOLS
from unveil.report.context.answer import pooled_errors
from unveil.report.findings import Findings
from unveil.report.order import REAL, order_by

LEAST_MODELS = 4
"""Fewest models whose ranks are correlated: three agree by chance once in six."""


def agreement_context(findings: Findings) -> dict[str, Any] | None:
    """Return the errors of every model by protocol, and how far each ranks as real pairs do.

    Models that give the same pixels are one, and the cloudy input is none.

    Returns:
        ``protocols`` in order of trust, ``rows`` of models with a cell a protocol (error, rank,
        number of scenes and places; None where the model is not ranked), and ``agreement``:
        protocol -> Spearman's correlation with real pairs and number of models. None with a
        single protocol.
    """
    ranked = {}
    for protocol in order_by(findings.statistics.pooled["protocol"].unique(), PROTOCOLS):
        errors = _ranked(findings, protocol)
        if len(errors) > 1:
            ranked[protocol] = errors
    if len(ranked) < 2:
        return None
    models = dict.fromkeys(model for errors in ranked.values() for model in errors.index)
    return {
        "protocols": list(ranked),
        "rows": [
            {
                "title": findings.methods[model].title,
                "cells": [_cell(errors, model) for errors in ranked.values()],
            }
            for model in models
        ],
        "agreement": {
            protocol: correlate(ranked[REAL]["value"], errors["value"])
            for protocol, errors in ranked.items()
            if REAL in ranked and protocol != REAL
        },
    }


def _ranked(findings: Findings, protocol: str) -> pd.DataFrame:
    """Return the pooled errors of ranked models, one row for those of equal pixels."""
    errors = pooled_errors(findings, protocol=protocol)
    errors = errors[(errors["ranked"] == 1) & errors["value"].notna()]
    twins = findings.twins
    alone = [not findings.methods[m].is_baseline and m not in twins for m in errors.index]
    errors = errors[alone].sort_values("value", kind="stable")
    return errors.assign(place=errors["value"].rank(method="min").astype(int))


def _cell(errors: pd.DataFrame, model: str) -> dict[str, Any] | None:
    if model not in errors.index:
        return None
    row = errors.loc[model]
    return {
        "value": float(row["value"]),
        "text": print_value(row["value"], "MAE"),
        "rank": int(row["place"]),
    }


def correlate(one: pd.Series, other: pd.Series) -> dict[str, Any]:
    """Return Spearman's correlation of two rankings over the models of both, None below four."""
    both = pd.concat([one, other], axis=1, join="inner")
    ranks = both.rank()
    enough = len(both) >= LEAST_MODELS
    rho = float(ranks.iloc[:, 0].corr(ranks.iloc[:, 1])) if enough else None
    return {"rho": rho, "n": len(both)}
