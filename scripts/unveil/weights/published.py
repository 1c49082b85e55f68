"""The table of published weights: where each file is, and how to know that it is the right one."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from unveil.errors import InputError
from unveil.guarded import read_json, reading_input


@dataclass(frozen=True)
class PublishedWeights:
    """One row of ``resources/published_weights.tsv``; an empty cell is not known.

    Attributes:
        id: name of the weights, unique.
        model: kind of model that reads them.
        file: name of the file in the folder of weights.
        url: direct address (http or https); empty where the publisher gives none.
        size_bytes: size of the file.
        sha256: its checksum, hexadecimal.
        licence: licence of the weights, as the publisher states it.
        reference: the paper.
        page: the publisher's page, where a person finds the file.
    """

    id: str
    model: str
    file: str
    url: str = ""
    size_bytes: int | None = None
    sha256: str = ""
    licence: str = ""
    reference: str = ""
    page: str = ""


TABLE = Path(__file__).resolve().parents[3] / "resources" / "published_weights.tsv"
COLUMNS = tuple(field.name for field in fields(PublishedWeights))


def read_published(path: str | Path) -> dict[str, PublishedWeights]:
    """Read the table, file name -> row.

    Raises:
        InputError: naming the line and the column of a bad cell, or a name given twice.
    """
    path = Path(path)
    remedy = "take it from the project again"
    with (
        reading_input(path, "the table of weights", remedy=remedy),
        open(path, encoding="utf-8-sig", newline="") as stream,
    ):
        table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise InputError(
                f"the header has {', '.join(table.fieldnames or ()) or 'nothing'}",
                file=path,
                field="header",
                remedy=f"use the columns {', '.join(COLUMNS)}, separated by tabs",
            )
        rows = [_row(cells, path=path, line=number) for number, cells in enumerate(table, 2)]
    for column in ("id", "file"):
        names = [getattr(row, column) for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"{name!r} stands twice", file=path, field=column, remedy="keep one row"
                )
    return {row.file: row for row in rows}


def require_known(path: Path, sha256: str) -> None:
    """Refuse weights that are other ones than those that are written down about them.

    That is the record of their download (``NAME.json`` beside ``NAME``), the card of weights
    trained here, and the table of published weights. Without any of them nothing is known.

    Args:
        path: the weights.
        sha256: their checksum as read.

    Raises:
        InputError: naming the file that says otherwise.
    """
    remedy = "remove the weights and this file, and get both again"
    record, card = path.with_name(f"{path.name}.json"), path.with_suffix(".json")
    known = {}
    if record.exists():
        known[record] = read_json(record, kind="a record of weights", remedy=remedy).get("sha256")
    if card.exists():
        weights = read_json(card, kind="the card of weights", remedy=remedy).get("weights")
        known[card] = weights.get("sha256") if isinstance(weights, dict) else None
    if TABLE.exists() and (row := read_published(TABLE).get(path.name)):
        known[TABLE] = row.sha256
    for source, expected in known.items():
        if expected and expected != sha256:
            raise InputError(
                f"has SHA-256 {sha256}, but {source} says {expected}: it was damaged or exchanged",
                file=path,
                field="sha256",
                remedy="remove it and fetch it again; for weights of your own choose a name that "
                "is not taken",
            )


def _row(cells: dict[str, str | None], *, path: Path, line: int) -> PublishedWeights:
    texts = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    allowed = {
        "id": (r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, dots and dashes"),
        "model": (r"\w+", "the kind of a model"),
        "file": (r"[A-Za-z0-9][A-Za-z0-9._-]*", "a plain file name"),
        "size_bytes": (r"([1-9]\d*)?", "a number of bytes, or nothing"),
        "sha256": (r"([0-9a-f]{64})?", "64 hexadecimal digits, or nothing"),
    }
    for name, (pattern, meaning) in allowed.items():
        if not re.fullmatch(pattern, texts[name]):
            raise InputError(
                f"{texts[name]!r} is not {meaning}",
                file=path,
                field=f"line {line}.{name}",
                remedy=f"write {meaning}",
            )
    if texts["url"] and urlsplit(texts["url"]).scheme not in ("http", "https"):
        raise InputError(
            f"{texts['url']!r} is no web address",
            file=path,
            field=f"line {line}.url",
            remedy="begin it with https://",
        )
    size = int(texts["size_bytes"]) if texts["size_bytes"] else None
    others = {name: text for name, text in texts.items() if name != "size_bytes"}
    return PublishedWeights(**others, size_bytes=size)
