"""What every job of the workflow shares: its log, its errors, its threads."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import logging
import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from unveil.errors import InputError, ModelError
from unveil.redaction import redact

LOG = logging.getLogger(__name__)
FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SILENCE_SECONDS = 30
"""Between two lines of progress of a job in the terminal."""
BLOCK_CACHE_MB = 512
"""Room for three rows of blocks of a frame of a whole tile: windows with a halo overlap them."""
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
    """Log to a file, and the gist to standard error; bad input ends in one clear line.

    The file has every line and the traces of errors. Standard error, which all jobs share, has
    progress now and then, one line of each kind of warning, and each error once.

    Args:
        log: the rule's log file.
    """
    # GDAL would take 5 % of the machine's memory, however large, for blocks that it read.
    os.environ.setdefault("GDAL_CACHEMAX", str(BLOCK_CACHE_MB))
    terminal = Terminal(log)
    handlers: list[logging.Handler] = [terminal]
    with contextlib.suppress(OSError):  # what the job writes next tells why
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="w", encoding="utf-8"))
        handlers[-1].setFormatter(_Redacting(FORM))
    logging.raiseExceptions = False  # a log on a full disk must not bury the reason
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    for noisy in ("rasterio", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logger = logging.getLogger("unveil")
    try:
        yield logger
    except InputError as error:
        if not error.said:
            logger.error("%s", error, exc_info=_trace(error))
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            where = error.filename or "a file of this job"
            remedy = f"{DISK_TROUBLE[error.errno]}; then run again, nothing is left half-written"
            logger.error("%s: %s. Remedy: %s.", where, error.strerror, remedy)
            sys.exit(1)
        logger.exception(
            "unexpected error, %s: %s; please report it with %s", type(error).__name__, error, log
        )
        sys.exit(1)
    finally:
        terminal.sum_up()


def _trace(error: InputError) -> BaseException | None:
    """Return what to print the trace of: only who wrote a model can use one."""
    return error.__cause__ if isinstance(error, ModelError) else None


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Brief(_Redacting):
    """Leaves the traces of errors to the file."""

    def format(self, record: logging.LogRecord) -> str:
        brief = copy.copy(record)
        brief.exc_info = brief.exc_text = None
        return super().format(brief)


class Terminal(logging.StreamHandler):
    """Shows of a job's log what somebody wants to see who watches all jobs at once.

    Args:
        log: the file that has all.
    """

    def __init__(self, log: str | Path) -> None:
        super().__init__()
        self.log, self.last = log, -math.inf
        self.warned: Counter[tuple[str, str]] = Counter()
        self.setFormatter(_Brief(FORM))

    def filter(self, record: logging.LogRecord) -> bool:
        """Let errors pass, the first warning of each kind, and a line of progress at times."""
        if record.levelno >= logging.ERROR:
            return True
        if record.levelno >= logging.WARNING:
            kind = record.name, str(record.msg)
            self.warned[kind] += 1
            return self.warned[kind] == 1
        now = time.monotonic()
        if now < self.last + SILENCE_SECONDS:
            return False
        self.last = now
        return True

    def sum_up(self) -> None:
        """Say how many warnings were not shown, if any, in one line."""
        more = self.warned.total() - len(self.warned)
        if more:
            self.stream.write(f"{more} more warnings like these: {self.log}\n")


class Failures:
    """Lets a job finish all that it can although some of its input is bad; each is said once.

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
            LOG.error("%s %s: %s", self.noun, name, error, exc_info=_trace(error))
            error.said = True
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


_HELD: list[TextIO] = []
"""Files whose locks last as long as this process."""


def hold_results(folder: str | Path) -> None:
    """Keep other runs from writing the same results, until this process ends.

    Snakemake locks the working directory, but two of them may name one folder of results.

    Raises:
        InputError: if another run holds them.
    """
    path = Path(folder) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError:
        return  # the first job says what is wrong with the disk
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        raise InputError(
            f"another run is writing these results ({stream.read().strip()})",
            file=folder,
            field="results",
            remedy="wait until it ends, or give another folder",
        ) from None
    except OSError as error:
        LOG.info("no locks on this file system (%s); going on without", error)
    _HELD.append(stream)
    with contextlib.suppress(OSError):  # a full disk is told by the first job, too
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}, started in {Path.cwd()}\n")
        stream.flush()
