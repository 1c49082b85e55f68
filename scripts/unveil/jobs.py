"""What every job of the workflow shares: its log, its errors, its threads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from unveil.errors import InputError

LOG = logging.getLogger(__name__)
BLOCK_CACHE_MB = 512
"""Room for three rows of blocks of a frame of a whole tile: windows with a halo overlap them."""


@contextlib.contextmanager
def job(log: str | Path) -> Iterator[logging.Logger]:
    """Log to a file and to standard error; bad input ends the job with one clear line.

    Args:
        log: the rule's log file.
    """
    # GDAL would take 5 % of the machine's memory, however large, for blocks that it read.
    os.environ.setdefault("GDAL_CACHEMAX", str(BLOCK_CACHE_MB))
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


class Failures:
    """Lets a job finish all that it can although some of its input is bad.

    Args:
        noun: what the job has many of, for the message.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.found: dict[str, InputError] = {}

    @contextlib.contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Log bad input of one of them and go on."""
        try:
            yield
        except InputError as error:
            LOG.error("%s %s: %s", self.noun, name, error)
            self.found[name] = error

    def report(self) -> None:
        """Say which failed.

        Raises:
            InputError: if any did.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise next(iter(self.found.values()))
        raise InputError(
            f"{len(self.found)} of them failed: {', '.join(self.found)}",
            field=self.noun,
            remedy="see above for each; what is finished is kept",
        )
