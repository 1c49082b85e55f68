"""Tables read back from disk: text is text, whatever it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.metrics.registry import METRICS
from unveil.metrics.tables import COLUMNS, TABLES, check_header

WORDS = ("protocol", "region", "band", "metric", "unit")
"""Columns of words of ours. Read as categories, "001" of other columns would be the number 1."""

SCORES: dict[str, type | str] = (
    dict.fromkeys(COLUMNS, str)
    | dict.fromkeys(WORDS, "category")
    | {
        "cloud_cover": float,
        "value": float,
        "n_pixels": np.int64,
    }
)


def read_table(path: str | Path, columns: Mapping[str, type | str], *, remedy: str) -> pd.DataFrame:
    """Read the named columns of a CSV table.

    A scene may be called ``001``, a model ``NA``: only columns of numbers are numbers, and
    only there an empty cell is a missing value.

    Args:
        path: the table.
        columns: name -> type (``str``, ``float``, ``bool`` ...), or ``category`` for text that
            repeats in millions of rows.
        remedy: what to do about a bad one.

    Raises:
        InputError: if the file is missing, no such table, or lacks a column.
    """
    empty = {name: [""] for name, kind in columns.items() if kind is float}
    with reading_input(path, "the table that it should be", remedy=remedy):
        table = pd.read_csv(
            path,
            dtype=dict(columns),
            keep_default_na=False,
            na_values=empty,
            encoding="utf-8-sig",
        )
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}", file=path, field=missing[0], remedy=remedy
        )
    return table[list(columns)]


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a metrics table; text columns as categories of text, empty values as NaN.

    Raises:
        InputError: if the file is missing, its columns are not those of
            :data:`unveil.metrics.tables.COLUMNS`, or a metric is not registered.
    """
    if not Path(path).exists():
        raise InputError("file not found", file=path, remedy="run the workflow up to metrics")
    remedy = "run the metrics rule again"
    with reading_input(path, "a table of metrics", remedy=remedy):
        with open(path, encoding="utf-8-sig") as stream:
            check_header(stream.readline(), path, COLUMNS)
    table = read_table(path, SCORES, remedy=remedy)
    unknown = sorted(set(table["metric"].cat.categories) - set(METRICS))
    if unknown:
        raise InputError(f"metric {unknown[0]!r} is not known", file=path, remedy=remedy)
    # Categories save memory in millions of rows.
    text = [name for name, kind in SCORES.items() if kind is str]
    return table.astype(dict.fromkeys(text, "category"))


def read_statistics(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of the statistics, :data:`unveil.metrics.tables.TABLES`, by name.

    Raises:
        InputError: if one is missing or lacks a column.
    """
    remedy = "delete it and run the workflow again"
    return {
        name: read_table(folder / f"{name}.csv", columns, remedy=remedy)
        for name, columns in TABLES.items()
    }
