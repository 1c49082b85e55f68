"""The tables of the stage as files: their columns and words, and how jobs write and join them.

With :mod:`~unveil.metrics.registry`, :mod:`~unveil.metrics.levels` and
:mod:`~unveil.metrics.reading` this is all that the report knows of the metrics.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import reading_input

COLUMNS = (
    "scene",
    "model",
    "protocol",
    "cloud_cover",
    "region",
    "band",
    "metric",
    "value",
    "unit",
    "n_pixels",
)
SKIPPED_COLUMNS = ("scene", "model", "stage", "reason")

PAPERS = "as_published:"
"""What the regions of scores by a paper's definition begin with."""

BASELINE = "cloudy"
"""The kind of model that leaves the clouds in: it runs everywhere, so it sets no measure."""

BETTER, WORSE = "better", "worse"
UNDECIDED, TOO_FEW = "not distinguishable", "too few places"
NOT_RANKED = "not ranked"
"""Verdict on a pair that is described only, because one of the two lacks too many scenes."""

KEYS = ("protocol", "level", "region", "metric")
"""What a comparison or a ranking is about."""

POOLED: Mapping[str, type] = {
    "protocol": str,
    "level": str,
    "region": str,
    "band": str,
    "metric": str,
    "unit": str,
    "model": str,
    "value": float,
    "n_scenes": int,
    "n_places": int,
    "ranked": int,
    "rank": float,
    "stratum_scenes": int,
    "shared_bands": str,
}
"""Columns of ``pooled.csv``, with their types."""

COMPARISON: Mapping[str, type] = {
    **dict.fromkeys(KEYS, str),
    "first": str,
    "second": str,
    "difference": float,
    "low": float,
    "high": float,
    "n_places": int,
    "p": float,
    "p_holm": float,
    "win_rate": float,
    "verdict": str,
    "n_scenes": int,
    "first_mean": float,
    "second_mean": float,
}
"""Columns of ``comparison.csv`` with their types; the difference is first minus second."""

RANKING: Mapping[str, type] = {
    **dict.fromkeys(KEYS, str),
    "model": str,
    "mean": float,
    "low": float,
    "high": float,
    "n_places": int,
    "mean_rank": float,
    "n_ranked": int,
    "friedman_p": float,
    "critical_difference": float,
    "cliques": str,
}
"""Columns of ``ranking.csv`` with their types."""

PUBLISHED: Mapping[str, type] = {
    **dict.fromkeys(("model", "dataset", "definition", "source"), str),
    "second_hand": bool,
    **dict.fromkeys(("mae", "rmse", "psnr", "ssim", "sam"), float),
}
"""Columns of ``published.csv`` with their types."""

TABLES: Mapping[str, Mapping[str, type]] = {
    "pooled": POOLED,
    "comparison": COMPARISON,
    "ranking": RANKING,
    "strata": {**RANKING, "by": str, "position": float},
    "published": PUBLISHED,
    "definitions": {"definition": str, "text": str},
}
"""The tables of the statistics, ``NAME.csv``: columns with their types."""


def write_rows(rows: Iterable[dict], path: str | Path) -> None:
    """Write score rows as CSV, atomically; None becomes an empty field."""
    with raster.replacing(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_skipped(rows: Iterable[Sequence[str]], path: str | Path) -> None:
    """Write scene, model, stage and reason of what has no scores as CSV, atomically."""
    with raster.replacing(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(SKIPPED_COLUMNS)
        writer.writerows([harmless(str(text)) for text in row] for row in rows)


def harmless(text: str) -> str:
    """Return a text that no spreadsheet runs as a formula; numbers stay as they are."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def collect(
    shards: Iterable[str | Path], path: str | Path, columns: Sequence[str] = COLUMNS
) -> None:
    """Join the tables of all jobs, in the order given; one table in memory at a time.

    Args:
        shards: tables of the jobs.
        path: the joined table.
        columns: their columns.

    Raises:
        InputError: if a file is missing or has other columns.
    """
    with raster.replacing(path) as temporary, open(temporary, "w") as out:
        out.write(",".join(columns) + "\n")
        for shard in shards:
            if not Path(shard).exists():
                raise InputError(
                    "file not found", file=shard, remedy="run the metrics rule for this job"
                )
            kind, remedy = "a table of one job", "run the rule of this job again"
            with reading_input(shard, kind, remedy=remedy), open(shard) as stream:
                check_header(stream.readline(), shard, columns)
                lines = [line.rstrip("\r\n") + "\n" for line in stream if line.strip()]
            out.writelines(lines)


def check_header(line: str, path: str | Path, columns: Sequence[str]) -> None:
    """Refuse a table whose first line names other columns.

    Raises:
        InputError: naming them.
    """
    found = tuple(line.rstrip("\r\n").split(","))
    if found != tuple(columns):
        raise InputError(
            f"columns are {', '.join(found)}",
            file=path,
            field="header",
            remedy=f"the columns must be {', '.join(columns)}; run the metrics rule again",
        )
