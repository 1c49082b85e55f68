"""Do two versions of the code give the same results?

Run: ``python benchmarks/compare_results.py OLD NEW`` with two result folders of one config.

Rasters (predictions, their standard deviations, frames, truths and masks of the scenes) are
compared by pixels to the bit, grid, nodata and band names, not by bytes of the file; scores
and skips row by row to the last digit, in any order. The exit code is 1 when one of these
differs. Pooled tables (``statistics/``) are listed with their largest change, which alone
changes no exit code: pooling may be mended while every scene keeps its scores.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio

KEYS = {
    "metrics.csv": ("scene", "model", "protocol", "region", "band", "metric"),
    "skipped.csv": ("scene", "model", "stage"),
}
"""What names a row of the tables that hold one row per scene."""
POOLED_KEYS = {
    "comparison.csv": ("protocol", "level", "region", "metric", "first", "second"),
    "definitions.csv": ("definition",),
    "published.csv": ("model", "dataset", "definition"),
    "ranking.csv": ("protocol", "level", "region", "metric", "model"),
    "strata.csv": ("by", "protocol", "level", "region", "metric", "model"),
}
RASTERS = {"predictions": "predictions", "frames, truths and masks": "scenes"}
FACTS = ("crs", "transform", "shape", "dtypes", "nodatavals", "descriptions")
SHOWN = 20
"""Differences that are printed of each part."""

Row = dict[str, str]
Key = tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Compare two folders and print what differs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="folder of results")
    parser.add_argument("new", type=Path, help="folder of results to compare with it")
    args = parser.parse_args(arguments)
    for folder in (args.old, args.new):
        if not (folder / "predictions").is_dir():
            parser.error(f"{folder} holds no results: there is no {folder / 'predictions'}")
    same = True
    for title, part in RASTERS.items():
        same &= report(title, *compare_rasters(args.old, args.new, part))
    for name, keys in KEYS.items():
        same &= report(name, *compare_tables(args.old / name, args.new / name, keys))
    for name in sorted(pooled_tables(args.old) | pooled_tables(args.new)):
        tables = (folder / "statistics" / name for folder in (args.old, args.new))
        found, count = compare_tables(*tables, POOLED_KEYS.get(name, ()))
        report(f"statistics/{name} (pooled)", found, count, largest=largest_change(found))
    return 0 if same else 1


def report(title: str, found: list[Change], count: int, *, largest: str = "") -> bool:
    """Print one part; return whether it is the same in both folders."""
    verdict = f"DIFFERS {len(found)} times{largest}" if found else "equal"
    print(f"{title}: {count} compared, {verdict}")
    for change in found[:SHOWN]:
        print(f"  {change}")
    if len(found) > SHOWN:
        print(f"  and {len(found) - SHOWN} more")
    return not found


class Change(str):
    """One difference in words, and its size where it is one of numbers."""

    size: float

    def __new__(cls, words: str, *, size: float = 0.0) -> Change:
        """Make it of its words."""
        change = super().__new__(cls, words)
        change.size = size
        return change


def largest_change(found: list[Change]) -> str:
    """Say the largest change of a number, where there is one."""
    largest = max((change.size for change in found), default=0.0)
    return f", largest change {largest:.6g}" if largest else ""


def pooled_tables(folder: Path) -> set[str]:
    """Name the pooled tables of a folder."""
    return {path.name for path in (folder / "statistics").glob("*.csv")}


def compare_rasters(old: Path, new: Path, part: str) -> tuple[list[Change], int]:
    """Compare all GeoTIFFs below ``part``; return what differs and how many were compared."""
    names = [
        {path.relative_to(folder) for path in (folder / part).rglob("*.tif")}
        for folder in (old, new)
    ]
    found = [Change(f"{name}: only in {old}") for name in sorted(names[0] - names[1])]
    found += [Change(f"{name}: only in {new}") for name in sorted(names[1] - names[0])]
    both = sorted(names[0] & names[1])
    for name in both:
        if words := raster_difference(old / name, new / name):
            found.append(Change(f"{name}: {words}"))
    return found, len(both)


def raster_difference(old: Path, new: Path) -> str:
    """Describe how two rasters differ; empty when they hold the same.

    Pixels are compared by their bits, so that NaN equals NaN.
    """
    with rasterio.open(old) as first, rasterio.open(new) as second:
        for fact in FACTS:
            values = getattr(first, fact), getattr(second, fact)
            if repr(values[0]) != repr(values[1]):
                return f"{fact} {values[1]!r} instead of {values[0]!r}"
        pixels, largest, where = 0, 0.0, ""
        for _, window in first.block_windows(1):
            blocks = first.read(window=window), second.read(window=window)
            bits = [block.view(f"u{block.dtype.itemsize}") for block in blocks]
            changed = bits[0] != bits[1]
            if not changed.any():
                continue
            pixels += int(changed.any(axis=0).sum())
            sizes = np.abs(blocks[1][changed].astype(float) - blocks[0][changed].astype(float))
            largest = max(largest, float(np.nan_to_num(sizes, nan=np.inf).max()))
            if not where:
                band, row, col = np.argwhere(changed)[0]
                where = (
                    f"first {first.descriptions[band] or f'band {band + 1}'}, "
                    f"row {row + window.row_off}, column {col + window.col_off}"
                )
    return f"changed pixels {pixels}, max |difference| {largest:g}; {where}" if pixels else ""


def compare_tables(old: Path, new: Path, keys: Key) -> tuple[list[Change], int]:
    """Compare two CSV files as text, row by row; return what differs and the rows compared.

    Args:
        old: one table.
        new: the other.
        keys: columns that name a row; without them a row is named by all that it holds.
    """
    missing = [path for path in (old, new) if not path.is_file()]
    if missing:
        return [Change(f"there is no {path}") for path in missing], 0
    first, second = read_rows(old, keys), read_rows(new, keys)
    found = [Change(f"{named(key)}: row only in {old}") for key in first if key not in second]
    found += [Change(f"{named(key)}: row only in {new}") for key in second if key not in first]
    both = [key for key in first if key in second]
    for key in both:
        found.extend(row_differences(key, first[key], second[key]))
    return found, len(both)


def read_rows(path: Path, keys: Key) -> dict[Key, Row]:
    """Read rows by what names them; rows of one name are told apart by a number."""
    rows: dict[Key, Row] = {}
    seen: Counter[Key] = Counter()
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = tuple(row.get(column) or "" for column in keys or row)
            seen[key] += 1
            rows[(*key, f"#{seen[key]}") if seen[key] > 1 else key] = row
    return rows


def row_differences(key: Key, old: Row, new: Row) -> Iterator[Change]:
    """Yield each column in which two rows differ."""
    for column in dict.fromkeys((*old, *new)):
        before, after = old.get(column), new.get(column)
        if before == after:
            continue
        try:
            size = abs(float(after or "") - float(before or ""))
        except ValueError:
            size = 0.0
        yield Change(f"{named(key)}: {column} {after!r} instead of {before!r}", size=size)


def named(key: Key) -> str:
    """Name a row for people."""
    return ", ".join(part or "-" for part in key)


if __name__ == "__main__":
    sys.exit(main())
