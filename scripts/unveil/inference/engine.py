"""Inference engine: runs a model on a shard of scenes, with progress and records.

It knows no model by name. A scene is read, computed and written window by window, each in
a thread of its own, so memory does not grow with the scene and the model rarely waits. A
scene's files are finished, and the next small scene is read, while another is computed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import rasterio
from rasterio.windows import Window
from tqdm import tqdm

from unveil import raster
from unveil.errors import SceneSkipped
from unveil.inference.blame import blaming, is_out_of_memory, require_prediction
from unveil.inference.devices import (
    BACKENDS,
    CPU,
    Device,
    choose_backend,
    choose_precision,
    claim_device,
)
from unveil.inference.output import Finisher, Writer
from unveil.inference.tiles import Tile, cut, even_tile
from unveil.machine import versions
from unveil.models.base import Model
from unveil.predictions import discard_prediction, record_path, write_prediction_record
from unveil.records import identify, kept
from unveil.scene import Inputs, Scene, read_inputs
from unveil.weights.published import require_known

LOG = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
SMALLEST_TILE_PX = 64
USUAL_TILE_PX = 1024
SMALL_SCENE_PIXELS = 2**20
"""Scenes up to this size are read while the one before is computed; more would cost memory."""
SILENCE_SECONDS = 10
"""Between two lines of progress in the log."""
BLOCK_CACHE_BYTES = 256 * 2**20
"""GDAL's own default is 5 % of the machine's memory, which large scenes fill."""


@dataclass(frozen=True)
class InferenceOptions:
    """How models are run.

    Attributes:
        tile_px: edge of a tile without its halo; ``auto`` is the largest that ``memory_mb``
            allows for models that know what a pixel costs, :data:`USUAL_TILE_PX` for others.
        memory_mb: most memory of the whole process on a CPU, in units of 10^6 bytes.
        gpu: ``required``, ``preferred`` or ``never``.
        backend: one of :data:`unveil.inference.devices.BACKENDS`.
        precision: one of :data:`unveil.inference.devices.PRECISIONS`.
    """

    tile_px: int | Literal["auto"] = "auto"
    memory_mb: int = 8000
    gpu: str = "preferred"
    backend: str = "auto"
    precision: str = "auto"


def limit_context(scene: Scene, count: int | None) -> Scene:
    """Keep the ``count`` context frames nearest in time (ties to the past), sorted."""
    if count is None or len(scene.context) <= count:
        return scene
    day = scene.target.day
    ranked = sorted(scene.context, key=lambda f: (abs((f.day - day).days), f.day > day, f.date))
    dropped = set(f.path for f in ranked[count:])
    return replace(scene, frames=tuple(f for f in scene.frames if f.path not in dropped))


def run_shard(
    model: Model,
    scenes: Sequence[Scene],
    folder: Path,
    options: InferenceOptions,
    *,
    code: str,
    rule: str = "",
) -> list[dict[str, Any]]:
    """Run one model on many scenes; it is loaded once.

    Args:
        model: the model, not yet loaded.
        scenes: scenes ready for analysis; their truth is taken away here.
        folder: ``results/predictions/MODEL``.
        options: tiles and device.
        code: checksum of the code behind the model, part of a result's identity.
        rule: the rule whose job this is.

    Returns:
        One record per scene: ``status`` predicted or skipped, with the reason.
    """
    records: list[dict[str, Any] | Future] = []
    scenes = [limit_context(scene.without_truth(), model.needs.max_context) for scene in scenes]
    reasons = [_reason_to_skip(model, scene) for scene in scenes]
    possible = [scene for scene, reason in zip(scenes, reasons, strict=True) if not reason]

    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE_BYTES))
        finisher = stack.enter_context(Finisher())
        device, largest = CPU, USUAL_TILE_PX
        if possible:
            device = start(model, options)
            largest = largest_tile(model, options, device, resident=resident_bytes())
        look_up = partial(
            _look_up,
            model,
            folder,
            options,
            largest,
            partial(identity_of, code=code, device=device),
        )
        tasks = stack.enter_context(contextlib.closing(one_ahead(look_up, possible)))
        for number, (scene, reason) in enumerate(zip(scenes, reasons, strict=True), 1):
            place = f"{model.spec.id}, {scene.id} ({number} of {len(scenes)})"
            if reason:
                LOG.info("%s: skipped, %s", place, reason)
                records.append(skipped(scene, reason, folder))
                continue
            task = next(tasks)
            LOG.info("%s: %s", place, "finished earlier" if task.record else "starting")
            records.append(
                task.record
                or run_scene(model, task, folder, device=device.name, finisher=finisher, rule=rule)
            )
        return [item.result() if isinstance(item, Future) else item for item in records]


def unanswered(scenes: Sequence[Scene], records: Sequence[Mapping[str, Any]]) -> list[Scene]:
    """Return the scenes that a model's records do not answer, for the next model to do so."""
    done = {record["scene"] for record in records if record["status"] == "predicted"}
    return [scene for scene in scenes if scene.id not in done]


def _reason_to_skip(model: Model, scene: Scene) -> str | None:
    with blaming(model, scene):
        return model.skip(scene)


@dataclass(frozen=True)
class _Task:
    """A scene, what an earlier run left of it, and its inputs if it is small."""

    scene: Scene
    identity: dict[str, str]
    record: dict[str, Any] | None
    tile_px: int
    inputs: Inputs | None


def _look_up(
    model: Model,
    folder: Path,
    options: InferenceOptions,
    largest: int,
    identify_result: Callable[[Scene, Model], dict[str, str]],
    scene: Scene,
) -> _Task:
    """Find what an earlier run left of a scene and how to cut it; read it if it is small."""
    identity = identify_result(scene, model)
    record = kept(record_path(folder, scene.id), identity)
    tile_px = even_tile(scene.grid, largest) if options.tile_px == "auto" else largest
    tiles = cut(scene.grid, model, tile_px)
    small = len(tiles) == 1 and scene.grid.pixels <= SMALL_SCENE_PIXELS
    inputs = read(model, scene, tiles[0].outer) if small and not record else None
    return _Task(scene, identity, record, tile_px, inputs)


def one_ahead(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` of every item; the next one runs while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Result] | None = None
        for item in items:
            last, coming = coming, pool.submit(function, item)
            if last:
                yield last.result()
        if coming:
            yield coming.result()


def start(model: Model, options: InferenceOptions) -> Device:
    """Claim a device for as long as the process lives, and load the model on it."""
    device, ours = CPU, False
    if model.network:
        ours = model.backend in BACKENDS  # not the library of a user's own model
        device = claim_device(options.gpu, "tensorflow" if ours else model.backend)
    if model.network and ours:
        model.backend, reason = choose_backend(
            options.backend,
            precision=options.precision,
            supported=model.openvino_precisions,
            device=device,
        )
        if reason and options.backend != "auto":
            LOG.warning("%s: TensorFlow instead of OpenVINO, %s", model.spec.id, reason)
    able = model.openvino_precisions if model.backend == "openvino" else model.precisions
    model.precision = choose_precision(options.precision, able, device)
    if model.network and options.precision not in ("auto", model.precision):
        model.precision_note = f"{options.precision} is not to be had with {model.backend}"
        LOG.warning("%s: %s", model.spec.id, model.precision_note)
    place = f"{device.name}, {model.backend}, {model.precision}"
    LOG.info("running %s on %s", model.spec.id, place)
    with blaming(model):
        model.load()
    if model.spec.weights and model.spec.weights.is_file():
        # Only a user's own class may not have looked at it.
        model.weights_checksum = model.weights_checksum or raster.sha256(model.spec.weights)
        require_known(model.spec.weights, model.weights_checksum)
    return device


def largest_tile(model: Model, options: InferenceOptions, device: Device, *, resident: int) -> int:
    """Return the edge of the largest tile that fits the memory.

    Args:
        model: loaded.
        options: what the user allows.
        device: what the model runs on.
        resident: bytes that the process holds without a tile.
    """
    if options.tile_px != "auto":
        return options.tile_px
    if model.bytes_per_px is None or model.receptive_field is None or device.kind == "GPU":
        return USUAL_TILE_PX
    left = options.memory_mb * 10**6 - BLOCK_CACHE_BYTES - resident
    edge = math.isqrt(max(left, 0) // model.bytes_per_px) - 2 * model.receptive_field
    return max(edge, SMALLEST_TILE_PX)


def resident_bytes() -> int:
    """Return the memory that this process holds now, or has held at most where unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def skipped(scene: Scene, reason: str, folder: Path) -> dict[str, Any]:
    """Return the record of a scene that a model cannot do, and remove what it answered before."""
    discard_prediction(folder, scene.id)
    return {"scene": scene.id, "status": "skipped", "reason": reason}


def run_scene(
    model: Model,
    task: _Task,
    folder: Path,
    *,
    device: str,
    finisher: Finisher,
    rule: str,
) -> dict[str, Any] | Future:
    """Predict one scene; out of memory, halve the tile.

    Returns:
        The record of a skipped scene, else its future: the COG and the record are written
        by ``finisher``.
    """
    begin = time.monotonic()
    scene, tile_px = task.scene, task.tile_px
    discard_prediction(folder, scene.id)
    while True:
        tiles = cut(scene.grid, model, tile_px)
        model.notes = tuple[str, ...]()
        try:
            seconds, close = _predict_tiles(model, scene, tiles, folder, task.inputs)
            break
        except SceneSkipped as fact:
            LOG.info("%s: skipped, %s", scene.id, fact)
            return skipped(scene, str(fact), folder)
        except Exception as error:
            smaller = tile_px // 2
            fixed = cut(scene.grid, model, smaller) == tiles
            if not is_out_of_memory(error) or smaller < SMALLEST_TILE_PX or fixed:
                raise
            LOG.warning("%s: out of memory with tiles of %d, trying %d", scene.id, tile_px, smaller)
            tile_px = smaller
    for note in model.notes:
        LOG.warning("%s, %s: %s", scene.id, model.spec.id, note)
    known = {
        "scene": scene.id,
        "model": model.spec.id,
        "status": "predicted",
        "device": device,
        "backend": model.backend,
        "precision": model.precision,
        "precision_note": model.precision_note,
        "notes": list(model.notes),
        "tile_px": tile_px,
        "tiles": len(tiles),
        "pixels": scene.grid.pixels,
        "model_seconds": round(seconds, 3),
    }

    def finish() -> dict[str, Any]:
        close()
        facts = known | {"wall_seconds": round(finisher.cost_since(begin), 3)} | _spent()
        return write_prediction_record(folder, facts, made_from=task.identity, rule=rule)

    return finisher.submit(finish)


def _spent() -> dict[str, Any]:
    """Return what a prediction was computed with: memory so far, versions and machine."""
    return {
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": _versions(),
        "host": {"machine": platform.machine(), "cpus": len(os.sched_getaffinity(0))},
    }


_versions = cache(versions)


def _predict_tiles(
    model: Model, scene: Scene, tiles: list[Tile], folder: Path, only: Inputs | None
) -> tuple[float, Callable[[], None]]:
    """Read, compute and write all tiles, the three overlapping.

    Returns:
        Seconds in the model, and what to call to put the finished files in place.
    """
    seconds = 0.0
    reading = contextlib.closing(_read_ahead(model, scene, tiles, only))
    with reading as coming, contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(scene, folder, tiles))
        writing: Future | None = None
        for tile, inputs in progress(coming, len(tiles), scene):
            begin = time.monotonic()
            with blaming(model, scene):
                prediction = model.predict(inputs)
            require_prediction(prediction, inputs, model, scene)
            seconds += time.monotonic() - begin
            if writing:
                writing.result()
            writing = writer.submit(prediction, tile)
        done = stack.pop_all()

    def close() -> None:
        with done:
            if writing:
                writing.result()

    return seconds, close


def read(model: Model, scene: Scene, window: Window | None = None) -> Inputs:
    """Read what a model is given for one window, or for the whole scene."""
    return read_inputs(scene, window=window, radar=model.radar_dates, veil=model.sees_veil)


def _read_ahead(
    model: Model, scene: Scene, tiles: list[Tile], only: Inputs | None
) -> Generator[tuple[Tile, Inputs], None, None]:
    """Prepare the model, then yield tiles; the next is read while the last is computed.

    The only tile of a scene is read once for both; of a small scene, it was read before.
    """
    if len(tiles) == 1:
        only = only or read(model, scene, tiles[0].outer)
        with blaming(model, scene):
            model.prepare(scene, [only])
        yield tiles[0], only
        return
    with blaming(model, scene):
        model.prepare(scene, _Cores(scene, tiles, model.sees_veil))
    windows = [tile.outer for tile in tiles]
    yield from zip(tiles, one_ahead(partial(read, model, scene), windows), strict=True)


@dataclass
class _Cores(Sequence[Inputs]):
    """The windows of a scene without overlap, read anew each time that one is asked for."""

    scene: Scene
    tiles: list[Tile]
    veil: bool = False
    said: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.tiles)

    @overload
    def __getitem__(self, number: int) -> Inputs: ...

    @overload
    def __getitem__(self, number: slice) -> list[Inputs]: ...

    def __getitem__(self, number: int | slice) -> Inputs | list[Inputs]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        window = self.tiles[number].core
        if time.monotonic() > self.said + SILENCE_SECONDS:
            LOG.info("%s: preparing, window %d of %d", self.scene.id, number + 1, len(self))
            self.said = time.monotonic()
        return read_inputs(self.scene, window=window, veil=self.veil)


def progress(
    items: Iterator[tuple[Tile, Inputs]], total: int, scene: Scene
) -> Iterator[tuple[Tile, Inputs]]:
    """Yield items, with a bar in a terminal and log lines with Mpx/s and ETA elsewhere."""
    begin = last = time.monotonic()
    done = 0
    bar = tqdm(
        items,
        total=total,
        desc=scene.id,
        unit="tile",
        delay=SILENCE_SECONDS,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    for number, item in enumerate(bar, 1):
        yield item
        done += int(item[0].core.width * item[0].core.height)
        now = time.monotonic()
        if now - last > SILENCE_SECONDS or number == total:
            rate = done / max(now - begin, 1e-9)
            left = (scene.grid.pixels - done) / rate
            text = "%s: tile %d of %d, %.2f Mpx/s, %.0f s left"
            LOG.info(text, scene.id, number, total, rate / 1e6, left)
            last = now


def identity_of(scene: Scene, model: Model, *, code: str, device: Device) -> dict[str, str]:
    """Return the identity of a prediction: all that decides its pixels.

    Memory, tiles and the number of a GPU decide none; a GPU's arithmetic differs from a CPU's.

    Args:
        scene: as the model sees it.
        model: loaded.
        code: checksum of the code behind the model (:mod:`unveil.code`).
        device: what it runs on.
    """
    seen = [
        (f.role, f.date, f.bands, f.checksum, f.mask_checksum, f.veil_checksum * model.sees_veil)
        for f in scene.frames
    ]
    beside = model.files_beside(scene)
    return identify(
        scene=[scene.id, scene.level, seen],
        options=[model.spec.kind, model.spec.options],
        weights=model.weights_checksum,
        files=[(path.name, raster.sha256(path)) for path in beside],
        computed=[model.backend, model.precision, device.kind],
        code=code,
    )
