"""What ``cloudfree`` recommends by: errors on real pairs of places that nothing learnt from."""

from __future__ import annotations

import pandas as pd

from unveil.evidence.write import COMMAND, Context

ROLES = ("judges", "validates")
FAMILIES = ("simple", "series network")
"""Families that make images: of one image alone, or of another date as it is, none is made."""
MOST = 0.75
"""Share of the candidates that answer a pair which counts: some have no clear look of any pixel."""
COLUMNS = ("model", "place", "pairs", "mae")


def rank(context: Context) -> pd.DataFrame:
    """Return the mean absolute error of hidden pixels of each candidate, place by place.

    The pairs are those that :data:`MOST` of the candidates answer; a candidate answers all of
    them, so that all meet on the same.

    Returns:
        The columns :data:`COLUMNS`, sorted; ``mae`` in reflectance, mean over the pairs.
    """
    places = {place.id for place in context.places if place.role in ROLES}
    models = {method.id for method in context.methods if method.family in FAMILIES}
    rows = context.rows("paired")
    rows = rows[rows["place"].isin(places) & rows["model"].isin(models)]
    answers = rows.groupby("scene")["model"].transform("nunique")
    rows = rows[answers >= MOST * rows["model"].nunique()]
    whole = rows.groupby("model")["scene"].transform("nunique") == rows["scene"].nunique()
    grouped = rows[whole].groupby(["model", "place"])["MAE"]
    table = grouped.agg(["count", "mean"]).reset_index()
    return table.set_axis(COLUMNS, axis=1)


def to_tsv(table: pd.DataFrame) -> str:
    """Return the table as text, what it is first."""
    return (
        "# Mean absolute errors of hidden pixels on real pairs of public places on which\n"
        "# no network was trained and no constant chosen (roles judges and validates; on the\n"
        "# latter it was seen when the training of our own network should stop),\n"
        f"# of methods that answer each pair that most of them answer. Made by: {COMMAND}\n"
        + table.to_csv(sep="\t", index=False, float_format="%.4f", lineterminator="\n")
    )
