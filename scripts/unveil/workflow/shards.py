"""Shards: scenes that one job serves, and how a job that died goes on where it was.

A job writes the scenes of its shard one after another and at the end a record, which is
what the workflow waits for. A scene's file is written after its rasters, with what it was
made from and their checksums; a later run of the job keeps it if both are the same.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from unveil.errors import InputError
from unveil.records import (
    again,
    content_of,
    harmed,
    kept,
    made_of,
    read_record,
    sums_of,
    write_record,
)
from unveil.scene import Scene, document_of, load_scene
from unveil.workflow.archives import pack
from unveil.workflow.job import Failures

LOG = logging.getLogger(__name__)

DOWNLOAD, MASKS, READY = "download.json", "masks.json", "scene.json"
"""The scene's file after each stage."""
RULES = {DOWNLOAD: "assemble_scene", MASKS: "mask_scene", READY: "coregister_scene"}
"""Who writes it; the file itself says so, too, unless it is broken."""


def cut_shards(
    sizes: Mapping[str, int], *, scenes: int, megabytes: int
) -> dict[str, tuple[str, ...]]:
    """Cut the table of scenes into shards, in its order.

    Args:
        sizes: scene id -> bytes of its input.
        scenes: most scenes of a shard.
        megabytes: most input of a shard, in 10^6 bytes; a scene of more is a shard alone.

    Returns:
        Shard id -> its scenes.
    """
    shards: list[list[str]] = []
    filled = 0
    for scene, size in sizes.items():
        if not shards or len(shards[-1]) == scenes or filled + size > megabytes * 10**6:
            shards.append([])
            filled = 0
        shards[-1].append(scene)
        filled += size
    return {f"shard-{number:04d}": tuple(ids) for number, ids in enumerate(shards)}


def make_scenes(
    scenes: Mapping[str, Any],
    make: Callable[[Any, Path], Scene],
    *,
    made_from: Callable[[Any], Mapping[str, str]],
    home: Path,
    file: str,
    folders: Iterable[str],
    record: Path,
    rule: str = "",
    at_once: int = 1,
    archives: Iterable[str | Path] = (),
) -> None:
    """Take all scenes of a shard through one stage and write the shard's record.

    Args:
        scenes: scene id -> what it is made from: a row of the table, or a scene.
        make: makes one scene in its folder.
        made_from: gives the identity of the result, everything that it depends on.
        home: folder of all scenes.
        file: name of the scene's file after this stage.
        folders: what the stage writes in a scene's folder; emptied before it is made again.
        record: the shard's record: of each scene the checksum of its content.
        rule: the rule whose job this is.
        at_once: scenes made at the same time, each in a thread: most of the work is in libraries
            that leave Python's lock to others.
        archives: what the stage made, for a store (:mod:`unveil.workflow.archives`).

    Raises:
        InputError: naming each scene that could not be made; all others are finished.
    """
    failures, folders = Failures("scene"), tuple(folders)

    def take(number: int, name: str) -> str:
        path, given = home / name / file, scenes[name]
        identity = made_from(given)
        document = kept(path, identity)
        if document is not None:
            LOG.info("%s (%d of %d): finished earlier", name, number, len(scenes))
            return content_of(document)
        LOG.info("%s (%d of %d): starting", name, number, len(scenes))
        path.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(path.parent / folder, ignore_errors=True)
        scene, files = _vouch(make(given, path.parent), path.parent, folders)
        document = document_of(scene, path.parent)
        return content_of(write_record(path, document, made_from=identity, files=files, rule=rule))

    contents: dict[str, str] = {}
    with ThreadPoolExecutor(at_once) as pool:
        taken = {name: pool.submit(take, number, name) for number, name in enumerate(scenes, 1)}
        try:
            for name, content in taken.items():
                with failures.collect(name):
                    contents[name] = content.result()
        finally:
            pool.shutdown(cancel_futures=True)
    failures.report()
    made = [path for name in contents for path in _made(home / name, file, folders)]
    pack(archives, made)
    write_record(record, {"scenes": contents}, rule=rule)


def _made(folder: Path, file: str, parts: Iterable[str]) -> Iterator[Path]:
    """Yield the files that a stage wrote for one scene."""
    yield folder / file
    for part in parts:
        yield from sorted(path for path in (folder / part).rglob("*") if path.is_file())


def _vouch(scene: Scene, folder: Path, parts: Iterable[str]) -> tuple[Scene, dict[str, str]]:
    """Return a scene that knows its checksums, and those of the files that a stage wrote."""
    made = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    known = {frame.path: frame.checksum for frame in scene.frames if frame.checksum}
    sums = {path: known[path] for path in made if path in known}
    sums |= sums_of(path for path in made if path not in known)
    frames = (
        replace(
            frame,
            checksum=frame.checksum or sums.get(frame.path, ""),
            mask_checksum=sums.get(frame.mask, frame.mask_checksum) if frame.mask else "",
            veil_checksum=sums.get(frame.veil, frame.veil_checksum) if frame.veil else "",
        )
        for frame in scene.frames
    )
    files = {path.relative_to(folder).as_posix(): sums[path] for path in sorted(sums)}
    return replace(scene, frames=tuple(frames)), files


def recorded_scenes(record: str | Path) -> dict[str, str]:
    """Return the scenes of a shard's record, each with the checksum of its content.

    Raises:
        InputError: if the record is damaged or not as its job wrote it.
    """
    rule = RULES.get(Path(record).name, "")
    return read_record(record, kind="a record of a shard", rule=rule)["scenes"]


def read_shard(record: str | Path, home: str | Path, file: str = READY) -> dict[str, Scene]:
    """Return the scenes that a shard's record names; every raster of theirs is checked.

    Raises:
        InputError: if a scene's file or a raster is missing, or not as it was recorded; the
            message names the rule that makes it again.
    """
    scenes = {path.parent.name: load_scene(path) for path in _scene_files(record, home, file)}
    require_rasters(scenes.values())
    return scenes


def require_rasters(scenes: Iterable[Scene]) -> None:
    """Refuse scenes with a raster that is not as it was recorded; each is read once.

    Raises:
        InputError: naming the first, and the rule that makes it again.
    """
    wanted = {
        path: known
        for scene in scenes
        for frame in scene.frames
        for path, known in frame.rasters
        if known
    }
    for path in harmed(wanted):
        raise InputError(
            "is not as it was written" if path.exists() else "file not found",
            file=path,
            remedy=again(_rule_of(path)),
        )


def _rule_of(path: Path) -> str:
    """Return the rule that wrote a raster: the one whose scene's file vouches for it."""
    folder = next(p for p in path.parents if any((p / file).exists() for file in RULES))
    name = path.relative_to(folder).as_posix()
    for file, rule in RULES.items():
        if (folder / file).exists():
            made = made_of(read_record(folder / file, kind="a scene", rule=rule))
            if name in made["files"]:
                return made["by"] or rule
    return RULES[DOWNLOAD]


def scene_files(records: Iterable[str | Path], home: str | Path) -> Iterator[Path]:
    """Yield the file of every scene that the shards' records name, checked.

    Raises:
        InputError: if one is missing, or is not the one that was recorded.
    """
    for record in records:
        yield from _scene_files(record, home, READY)


def _scene_files(record: str | Path, home: str | Path, file: str) -> Iterator[Path]:
    for name, content in recorded_scenes(record).items():
        path = Path(home) / name / file
        document = read_record(path, kind="a scene of this package", rule=RULES[file])
        if content_of(document) != content:
            raise InputError(
                "is not the scene that was recorded",
                file=path,
                remedy=again(made_of(document)["by"] or RULES[file]),
            )
        yield path
