"""What every job of the workflow shares: its log, its errors, its threads."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unveil.errors import InputError


@contextlib.contextmanager
def job(log: str | Path) -> Iterator[logging.Logger]:
    """Log to a file and to standard error; bad input ends the job with one clear line.

    Args:
        log: the rule's log file.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(log, mode="w", encoding="utf-8"), logging.StreamHandler()]
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.captureWarnings(True)
    for noisy in ("rasterio", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logger = logging.getLogger("unveil")
    try:
        yield logger
    except InputError as error:
        logger.error("%s", error)
        sys.exit(1)
    except Exception:
        logger.exception("unexpected error; please report it with this log")
        sys.exit(1)


def as_list(files: str | Sequence[str]) -> list[str]:
    """Return the files of a named input or output, which is a text when it is one."""
    return [files] if isinstance(files, str) else list(files)
