"""Reading the scene table: its form, and what source and protocol ask of each row."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from unveil.assembly.product_dates import is_series
from unveil.assembly.protocols.base import BadCell
from unveil.assembly.protocols.registry import maker_of
from unveil.config import SceneRow, check, is_valid, load_schema, locate, require_distinct
from unveil.errors import InputError, did_you_mean
from unveil.guarded import reading_input
from unveil.protocols import PROTOCOLS
from unveil.sources.pairs import asks_for_pairs, wish_of
from unveil.sources.registry import SOURCES, source_of


def read_scenes(path: str | Path) -> list[SceneRow]:
    """Read and check the scene table.

    Accepts what spreadsheet programs write: a byte order mark, CRLF, quoted cells,
    trailing empty columns and lines.

    Raises:
        InputError: naming the line and the column.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            "file not found", file=path, field="scenes", remedy="set 'scenes' in the config"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start})",
            file=path,
            remedy="save the table as tab-separated text in UTF-8",
        ) from error
    with reading_input(path, "a table", remedy="save it as tab-separated text"):
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    rows = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(records, 1)
        if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
    ]
    if not rows:
        raise InputError(
            "the table is empty", file=path, remedy="add a header line and one row per scene"
        )
    header = _header(rows[0][1], path)
    if len(rows) == 1:
        raise InputError("the table has no scenes", file=path, remedy="add one row per scene")
    scenes = [_row(cells, header, file=path, line=number) for number, cells in rows[1:]]
    require_distinct((row.scene for row in scenes), file=path, field="scene")
    return scenes


def _header(cells: list[str], path: Path) -> list[str]:
    header = [cell for cell in cells if cell]
    if len(header) == 1 and any(mark in header[0] for mark in ",;"):
        raise InputError(
            "columns are separated by commas or semicolons",
            file=path,
            field="header",
            remedy="save the table as tab-separated text",
        )
    known = list(load_schema("scenes")["properties"])
    for name in header:
        if name not in known:
            raise InputError(
                f"unknown column {name!r}",
                file=path,
                field=name,
                remedy=did_you_mean(name, known, otherwise="remove it, or use one of"),
            )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError("column given twice", file=path, field=twice, remedy="keep one")
    missing = [n for n in load_schema("scenes")["required"] if n not in header]
    if missing:
        raise InputError(
            f"column {missing[0]!r} is missing",
            file=path,
            field=missing[0],
            remedy=f"the header needs {', '.join(load_schema('scenes')['required'])}",
        )
    return header


def _row(cells: list[str], header: list[str], *, file: Path, line: int) -> SceneRow:
    if any(cells[len(header) :]):
        raise InputError(
            f"line {line} has {len(cells)} cells, the header has {len(header)}",
            file=file,
            field=f"line {line}",
            remedy="give every row the columns of the header",
        )
    rules = load_schema("scenes")["properties"]
    record: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        if cell:
            record[name] = _number(cell, rules[name].get("type"))
    if not _is_sound(record):
        check(record, "scenes", file=file, where=f"line {line}")  # says what is wrong
    row = SceneRow(**record | {c: locate(record[c]) for c in ("path", "area") if c in record})
    _check_row(row, file=file, line=line)
    return row


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Whether a record is as the schema says: cell by cell, as rows repeat what others hold."""
    required = load_schema("scenes")["required"]
    return all(name in record for name in required) and all(_fits(*cell) for cell in record.items())


@lru_cache(maxsize=4096, typed=True)
def _fits(column: str, value: Any) -> bool:
    infinite = isinstance(value, float) and not math.isfinite(value)
    return not infinite and is_valid(value, "scenes", column)


def _number(cell: str, kind: str | None) -> Any:
    converters: dict[str, Callable[[str], Any]] = {
        "integer": int,
        "number": float,
        "boolean": _truth_value,
    }
    convert = converters.get(kind or "")
    if convert is None:
        return cell
    try:
        return convert(cell)
    except ValueError:
        return cell  # the schema check reports it with its line and column


def _truth_value(cell: str) -> bool:
    words = {"true": True, "false": False}  # in capitals where a spreadsheet program wrote them
    if cell.lower() not in words:
        raise ValueError(cell)
    return words[cell.lower()]


def _check_row(row: SceneRow, *, file: Path, line: int) -> None:
    for name in ("target_date", "reference_date", "cloud_date", "start", "end"):
        value = getattr(row, name)
        if value and value != "auto" and not (name == "target_date" and is_series(row)):
            try:
                dt.date.fromisoformat(value)
            except ValueError as error:
                raise InputError(
                    f"{value!r} is no date",
                    file=file,
                    field=f"line {line}.{name}",
                    remedy="write YYYY-MM-DD",
                ) from error
    _check_period(row, file=file, line=line)
    bad = _complaint(row)
    if bad:
        raise InputError(
            bad.message, file=file, field=f"line {line}.{bad.column}", remedy=bad.remedy
        )


def _check_period(row: SceneRow, *, file: Path, line: int) -> None:
    if not row.period:
        return
    try:
        first, last = (dt.date.fromisoformat(date) for date in row.period.split("/"))
        if first > last:
            raise ValueError("the first date lies behind the last")
    except ValueError as error:
        raise InputError(
            f"{row.period!r} is no period ({error})",
            file=file,
            field=f"line {line}.period",
            remedy="write YYYY-MM-DD/YYYY-MM-DD, the earlier date first",
        ) from error


def _complaint(row: SceneRow) -> BadCell | None:
    """Return what source and protocol of a row find wrong with it."""
    source, protocol = source_of(row), PROTOCOLS[row.protocol]
    if row.target_date == "auto" and protocol.id not in source.target_auto:
        return BadCell(
            "target_date",
            f"'auto' with source {source.kind} and protocol {protocol.id}",
            f"give a date; auto is for {_target_auto()}",
        )
    bad = _complaint_of_pairs(row) or _complaint_of_dates(row)
    if bad:
        return bad
    if row.reference_date == "auto" and protocol.truth != "another date":
        return BadCell(
            "reference_date",
            f"'auto' with protocol {protocol.id}",
            f"leave it empty; only protocol {_listed(_OTHER_TRUTH)} has the truth of another date",
        )
    if row.split and not source.splits:
        splitting = [other.kind for other in SOURCES.values() if other.splits]
        return BadCell(
            "split",
            f"{row.split!r} with source {source.kind}",
            f"leave it empty; {_listed(splitting)} have splits",
        )
    for column, remedy in source.required.items():
        if not getattr(row, column):
            return BadCell(column, f"source {source.kind} without {column}", remedy)
    return maker_of(row).complaint(row)


def _complaint_of_pairs(row: SceneRow) -> BadCell | None:
    """Return what is wrong with what a row asks of pairs that are to be chosen."""
    source, wish = source_of(row), wish_of(row)
    if not asks_for_pairs(row):
        return None
    if not source.pair_days and (wish.total > 1 or row.truth_days):
        return BadCell(
            "n_targets" if wish.total > 1 else "truth_days",
            f"pairs to choose, but source {source.kind} names target and truth itself",
            "leave n_targets, cloud_levels and truth_days empty",
        )
    if source.searched and not row.period:
        return BadCell(
            "period",
            f"target_date 'auto' with source {source.kind} without a period",
            "write the first and the last date of a target, e.g. 2023-04-01/2023-09-30",
        )
    return None


def _complaint_of_dates(row: SceneRow) -> BadCell | None:
    """Return what is wrong with a row of many dates."""
    if not is_series(row):
        if row.start or row.end:
            return BadCell(
                "start" if row.start else "end",
                f"{row.start or row.end!r} with target_date {row.target_date!r}",
                "leave it empty; start and end are for every, monthly and steps such as 10D",
            )
        return None
    if PROTOCOLS[row.protocol].truth != "none":
        return BadCell(
            "target_date",
            f"{row.target_date!r} with protocol {row.protocol}",
            "write protocol none, whose images are made by `snakemake cloudfree`; or name a date",
        )
    if row.start and row.end and row.start > row.end:
        return BadCell(
            "end", f"{row.end!r} before start {row.start}", "write the earlier date first"
        )
    return None


_OTHER_TRUTH = [p.id for p in PROTOCOLS.values() if p.truth == "another date"]


def _target_auto() -> str:
    """Name the sources that choose a target, by the protocols that they choose it for."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for source in SOURCES.values():
        if source.target_auto:
            groups.setdefault(source.target_auto, []).append(source.kind)
    return ", and for ".join(
        f"source {_listed(kinds)} with protocol {_listed(protocols, 'or')}"
        for protocols, kinds in groups.items()
    )


def _listed(names: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
