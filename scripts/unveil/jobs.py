"""What every job of the workflow shares: its log, its errors, its threads."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from unveil.errors import InputError

DISK_TROUBLE = {
    errno.EACCES: "give this user the right to write there",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EIO: "check the disk",
    errno.ENOSPC: "free space, or put 'results' and 'cache' on a larger disk",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "mount it writable, or put 'results' and 'cache' elsewhere",
}
"""Errors of the disk, none of the input or of the code, and what to do about them."""


@contextlib.contextmanager
def job(log: str | Path) -> Iterator[logging.Logger]:
    """Log to a file and to standard error; bad input or a full disk ends in one clear line.

    Args:
        log: the rule's log file.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    with contextlib.suppress(OSError):  # what the job writes next tells why
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="w", encoding="utf-8"))
    logging.raiseExceptions = False  # a log on a full disk must not bury the reason
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
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            where = error.filename or "a file of this job"
            remedy = f"{DISK_TROUBLE[error.errno]}; then run again, nothing is left half-written"
            logger.error("%s: %s. Remedy: %s.", where, error.strerror, remedy)
            sys.exit(1)
        logger.exception("unexpected error; please report it with this log")
        sys.exit(1)
