"""Results in a store: imagery travels in archives, and back.

Snakemake keeps in a store, and hands to a job, the files that rules declare. Imagery is not
declared, as it is too much for the graph; with a store it travels in archives, one per shard, stage
and batch of models, which are declared there alone. An archive holds what its job added.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import reading_input


def pack(archives: Iterable[str | Path], files: Iterable[str | Path]) -> None:
    """Write archives of files, by their paths from the working directory.

    Args:
        archives: where to; none where no store keeps them.
        files: the files.

    Raises:
        InputError: if a file lies outside the working directory.
    """
    for archive in archives:
        with raster.replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
            for file in files:
                name = os.path.relpath(file)
                if name.startswith(".."):
                    raise InputError(
                        "lies outside the working directory and cannot be sent to other machines",
                        file=file,
                        remedy="move it into the working directory, or give the absolute path of "
                        "a volume that every machine mounts",
                    )
                tar.add(os.path.realpath(file), name, recursive=False)


def unpack(archives: Iterable[str | Path], into: Iterable[str | Path]) -> None:
    """Put the files of archives where the job expects them, each whole or not at all.

    A file that is there, of the same size and time, is left alone. Jobs of one machine may unpack
    the same archive at the same time.

    Args:
        archives: the archives.
        into: files, and folders with all below them, that they may write; a store may hold what
            others put there.

    Raises:
        InputError: if an archive is damaged, or holds anything but plain files at these places.
    """
    allowed = [PurePosixPath(os.path.relpath(place)) for place in into]
    remedy = "delete it and run the workflow again"
    for archive in archives:
        with reading_input(archive, "an archive of files", remedy=remedy):
            with tarfile.open(archive) as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    stream = tar.extractfile(member) if member.isfile() else None
                    if stream is None or path.is_absolute() or ".." in path.parts:
                        raise ValueError(f"{member.name!r} is no plain file of this project")
                    if not any(path.is_relative_to(place) for place in allowed):
                        raise ValueError(f"{member.name!r} is not what this job expects")
                    if _is_there(Path(path), member):
                        continue
                    with raster.replacing(Path(path)) as temporary:
                        with temporary.open("wb") as out:
                            shutil.copyfileobj(stream, out)
                        os.utime(temporary, (member.mtime, member.mtime))


def weights_files(models: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """List the weights of rows of the model table, with their cards."""
    weights = [Path(row["weights"]) for row in models.values() if row.get("weights")]
    return [*weights, *(path.with_suffix(".json") for path in weights)]


def _is_there(path: Path, member: tarfile.TarInfo) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == member.size and abs(found.st_mtime - member.mtime) < 1e-3
