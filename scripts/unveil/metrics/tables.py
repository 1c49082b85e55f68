"""The tables of scores as files: written by jobs, joined for a run; pandas is not needed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from unveil import raster
from unveil.errors import InputError
from unveil.inputs import reading_input

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
