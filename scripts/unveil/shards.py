"""Shards: scenes that one job serves, and how a job that died goes on where it was.

A job writes the scenes of its shard one after another and at the end a record, which is
what the workflow waits for. A scene's file is written after its rasters, with what it was
made from and their checksums; a later run of the job keeps it if both are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.errors import InputError
from unveil.jobs import Failures
from unveil.scene import Scene, load_scene, save_scene
from unveil.workflow.archives import pack

LOG = logging.getLogger(__name__)

DOWNLOAD, MASKS, READY = "download.json", "masks.json", "scene.json"
"""The scene's file after each stage."""


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
    made_from: Callable[[Any], Any],
    home: Path,
    file: str,
    folders: Iterable[str],
    record: Path,
    at_once: int = 1,
    archives: Iterable[str | Path] = (),
) -> None:
    """Take all scenes of a shard through one stage and write the shard's record.

    Args:
        scenes: scene id -> what it is made from: a row of the table, or a scene.
        make: makes one scene in its folder.
        made_from: gives everything that the result depends on, JSON-able.
        home: folder of all scenes.
        file: name of the scene's file after this stage.
        folders: what the stage writes in a scene's folder; emptied before it is made again.
        record: the shard's record, scene id -> checksum of the scene's content.
        at_once: scenes made at the same time, each in a thread: most of the work is in libraries
            that leave Python's lock to others.
        archives: what the stage made, for a store (:mod:`unveil.workflow.archives`).

    Raises:
        InputError: naming each scene that could not be made; all others are finished.
    """
    failures, folders = Failures("scene"), tuple(folders)

    def take(number: int, name: str) -> str:
        path, given = home / name / file, scenes[name]
        identity = checksum(made_from(given))
        if is_finished(path, identity):
            LOG.info("%s (%d of %d): finished earlier", name, number, len(scenes))
            return content_of(path)
        LOG.info("%s (%d of %d): starting", name, number, len(scenes))
        path.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(path.parent / folder, ignore_errors=True)
        scene = make(given, path.parent)
        made = {"from": identity, "files": checksums_of(scene, path.parent)}
        save_scene(scene, path, made=made)
        return content_of(path)

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
    with raster.replacing(record) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n")


def _made(folder: Path, file: str, parts: Iterable[str]) -> Iterator[Path]:
    """Yield the files that a stage wrote for one scene."""
    yield folder / file
    for part in parts:
        yield from sorted(path for path in (folder / part).rglob("*") if path.is_file())


def is_finished(path: Path, identity: str) -> bool:
    """Return whether a scene's file was made from the same and its rasters are intact."""
    try:
        made = json.loads(path.read_text())["unveil"]["made"]
        return made["from"] == identity and all(
            raster.sha256(path.parent / name) == known for name, known in made["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_shard(record: str | Path, home: str | Path, file: str = READY) -> dict[str, Scene]:
    """Return the scenes that a shard's record names.

    Raises:
        InputError: if a scene's file is missing, or is not the one that was recorded.
    """
    scenes = {}
    for name, content in json.loads(Path(record).read_text()).items():
        path = Path(home) / name / file
        scenes[name] = load_scene(path)
        if content_of(path) != content:
            raise InputError(
                "is not the scene that was recorded",
                file=path,
                remedy=f"delete {record} and run again",
            )
    return scenes


def scene_files(records: Iterable[str | Path], home: str | Path) -> Iterator[Path]:
    """Yield the file of every scene that the shards' records name."""
    for record in records:
        for name in json.loads(Path(record).read_text()):
            yield Path(home) / name / READY


def checksum(facts: Any) -> str:
    """Return the SHA-256 of JSON-able facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def content_of(path: Path) -> str:
    """Return the SHA-256 of what a scene's file says and of its rasters' checksums."""
    document = json.loads(path.read_text())
    document["unveil"].get("made", {}).pop("from", None)
    return checksum(document)


def checksums_of(scene: Scene, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every raster of a scene, by its path from the scene's folder."""
    known = {frame.path: frame.checksum or raster.sha256(frame.path) for frame in scene.frames}
    known |= {frame.mask: raster.sha256(frame.mask) for frame in scene.frames if frame.mask}
    return {path.relative_to(folder).as_posix(): known[path] for path in sorted(known)}
