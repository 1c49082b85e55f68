"""What ``cloudfree`` recommends by: errors on real pairs of places on which nothing was trained."""

from __future__ import annotations

import pandas as pd

from unveil.evidence.write import COMMAND, Context

ROLES = ("judges", "validates")
FAMILIES = ("simple", "series network")
"""Families that make images: of one image alone, or of another date as it is, none is made."""
COLUMNS = ("model", "place", "pairs", "mae")


def rank(context: Context) -> pd.DataFrame:
    """Return the mean absolute error of hidden pixels of each candidate, place by place.

    A candidate has a value on every real pair of these places, so that all meet on the same.

    Returns:
        The columns :data:`COLUMNS`, sorted; ``mae`` in reflectance, mean over the pairs.
    """
    places = {place.id for place in context.places if place.role in ROLES}
    models = {method.id for method in context.methods if method.family in FAMILIES}
    rows = context.rows("paired")
    rows = rows[rows["place"].isin(places)]
    wanted = rows["scene"].nunique()
    rows = rows[rows["model"].isin(models)]
    whole = rows.groupby("model")["scene"].transform("nunique") == wanted
    grouped = rows[whole].groupby(["model", "place"])["MAE"]
    table = grouped.agg(["count", "mean"]).reset_index()
    return table.set_axis(COLUMNS, axis=1)


def to_tsv(table: pd.DataFrame) -> str:
    """Return the table as text, what it is first."""
    return (
        "# Mean absolute errors of hidden pixels on real pairs of public places on which\n"
        "# no network was trained and no constant chosen (roles judges and validates),\n"
        f"# of methods that make an image of each of these dates. Made by: {COMMAND}\n"
        + table.to_csv(sep="\t", index=False, float_format="%.4f", lineterminator="\n")
    )
