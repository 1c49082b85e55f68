"""The two kinds of trouble: bad input (stop, say what to do) and facts about a scene."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from unveil.redaction import redact

LONGEST = 600
"""Most characters of a message: what was found may be a whole file."""


class InputError(ValueError):
    """Bad input from the user: names the file, the field, what was found and the remedy.

    Args:
        message: what is wrong, with the value found.
        file: the file at fault.
        field: the key, column or band at fault.
        remedy: what to do about it.

    Attributes:
        fault: the message without the remedy.
        said: whether it stands in the log already.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.file, self.field, self.remedy = file, field, remedy
        self.said = False
        where = ", ".join(
            part
            for part in (str(file) if file else "", f"field '{field}'" if field else "")
            if part
        )
        text = one_line(redact(f"{where}: {message}" if where else message))
        self.fault = text
        super().__init__(f"{text}. Remedy: {one_line(redact(remedy))}." if remedy else text)


class ModelError(InputError):
    """What the code of a model did wrong; the trace of the cause is for who wrote it."""


def one_line(text: str) -> str:
    """Return a text as one printable line of bounded length, whatever it quotes."""
    text = " ".join(text.split())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def did_you_mean(name: str, known: Sequence[str], *, otherwise: str = "use one of") -> str:
    """Return the remedy of an unknown name: the one that looks like it, or all that there are.

    Args:
        name: what was found.
        known: what there is.
        otherwise: what to do where nothing looks like it, before the list of all.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"use {near[0]!r}" if near else f"{otherwise} {', '.join(known)}"


class SceneSkipped(Exception):  # noqa: N818 - a fact, not an error
    """A fact about a scene that makes a step impossible; recorded, never a crash."""
