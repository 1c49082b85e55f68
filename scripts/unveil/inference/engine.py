"""Inference engine: tiles, halo, blending, devices, progress, records.

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
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import rasterio
from rasterio.windows import Window
from tqdm import tqdm

from unveil import raster
from unveil.errors import SceneSkipped
from unveil.inference.devices import CPU, Device, choose_backend, choose_precision, claim_device
from unveil.models.base import Model, Prediction
from unveil.predictions import image_path, record_path, std_path, write_prediction_record
from unveil.raster import Grid
from unveil.scene import Inputs, Scene, read_inputs
from unveil.weights.published import require_known
from unveil.workflow.machine import versions
from unveil.workflow.stage import identify, kept

LOG = logging.getLogger(__name__)
Item, Result = TypeVar("Item"), TypeVar("Result")
SMALLEST_TILE_PX = 64
USUAL_TILE_PX = 1024
ALIGNMENT_PX = 256
"""Tiles of whole blocks are written faster."""
SMALL_SCENE_PIXELS = 2**20
"""Scenes up to this size are read while the one before is computed; more would cost memory."""
SILENCE_SECONDS = 10
"""Between two lines of progress in the log."""
FINISHED_AT_ONCE = 2
"""Compressing a small scene on a core that the network uses, too, takes longer than the network."""
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


@dataclass(frozen=True)
class Tile:
    """A tile and the larger window that is read for it.

    Attributes:
        core: pixels that it is responsible for; the cores cover every pixel once.
        outer: pixels that are read: the core and its halo, clipped to the image.
        blended: whether all of it counts where it overlaps others, not its core alone.
    """

    core: Window
    outer: Window
    blended: bool = False

    @property
    def inside(self) -> tuple[slice, slice]:
        """The core within the outer window."""
        return raster.within(self.core, self.outer)


def tiles_of(grid: Grid, *, tile_px: int, halo: int | None) -> list[Tile]:
    """Cut a grid into tiles; with ``halo`` None the whole image is one tile."""
    if halo is None:
        whole = Window(0, 0, grid.width, grid.height)
        return [Tile(whole, whole)]
    return [Tile(core, grid.with_halo(core, halo)) for core in grid.windows(tile_px)]


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
        One record a scene: ``status`` predicted or skipped, with the reason.
    """
    records: list[dict[str, Any] | Future] = []
    scenes = [limit_context(scene.without_truth(), model.needs.max_context) for scene in scenes]
    reasons = [model.skip(scene) for scene in scenes]
    possible = [scene for scene, reason in zip(scenes, reasons, strict=True) if not reason]

    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE_BYTES))
        finisher = stack.enter_context(_Finisher())
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
            place = f"{scene.id} ({number} of {len(scenes)})"
            if reason:
                LOG.info("%s: skipped, %s", place, reason)
                records.append(skipped(scene, reason))
                continue
            task = next(tasks)
            LOG.info("%s: %s", place, "finished earlier" if task.record else "starting")
            records.append(
                task.record
                or run_scene(model, task, folder, device=device.name, finisher=finisher, rule=rule)
            )
        return [item.result() if isinstance(item, Future) else item for item in records]


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
    inputs = read(model, scene, tiles[0]) if small and not record else None
    return _Task(scene, identity, record, tile_px, inputs)


def one_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` of every item; the next one runs while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Result] | None = None
        for item in items:
            last, coming = coming, pool.submit(function, item)
            if last:
                yield last.result()
        if coming:
            yield coming.result()


class _Finisher:
    """Finishes scenes in the background while others are computed, few at a time."""

    def __init__(self) -> None:
        self.pool, self.lock = ThreadPoolExecutor(FINISHED_AT_ONCE), threading.Lock()
        self.pending: deque[Future] = deque()
        self.ended = 0.0

    def __enter__(self) -> _Finisher:
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool.shutdown()

    def submit(self, finish: Callable[[], dict[str, Any]]) -> Future:
        """Call ``finish`` when there is room; wait for an earlier scene if there is none.

        Raises:
            Exception: what that scene failed with; this one is finished all the same.
        """
        future = self.pool.submit(finish)
        self.pending.append(future)
        if len(self.pending) > FINISHED_AT_ONCE:
            self.pending.popleft().result()
        return future

    def cost_since(self, begin: float) -> float:
        """Return the seconds since ``begin`` that no scene before has been charged with.

        So the costs of all scenes add up to the cost of the shard.
        """
        with self.lock:
            begin, self.ended = max(begin, self.ended), time.monotonic()
            return self.ended - begin


def start(model: Model, options: InferenceOptions) -> Device:
    """Claim a device for as long as the process lives, and load the model on it."""
    device = CPU
    if model.network:
        device = claim_device(options.gpu)
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
    model.load()
    if model.spec.weights and model.weights_checksum:
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


def even_tile(grid: Grid, largest: int) -> int:
    """Return the smallest edge that cuts a grid in no more tiles than ``largest`` does."""
    length = max(grid.shape)
    edge = -(-length // -(-length // largest))
    aligned = -(-edge // ALIGNMENT_PX) * ALIGNMENT_PX
    return aligned if aligned <= largest else edge


def resident_bytes() -> int:
    """Return the memory that this process holds now, or has held at most where unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def skipped(scene: Scene, reason: str) -> dict[str, Any]:
    """Return the record of a scene that a model cannot do."""
    return {"scene": scene.id, "status": "skipped", "reason": reason}


def run_scene(
    model: Model,
    task: _Task,
    folder: Path,
    *,
    device: str,
    finisher: _Finisher,
    rule: str,
) -> dict[str, Any] | Future:
    """Predict one scene; out of memory, halve the tile.

    Returns:
        The record of a skipped scene, else its future: the COG and the record are written
        by ``finisher``.
    """
    begin = time.monotonic()
    scene, tile_px = task.scene, task.tile_px
    record_path(folder, scene.id).unlink(missing_ok=True)
    raster.discard_leftovers(image_path(folder, scene.id))
    raster.discard_leftovers(std_path(folder, scene.id))
    std_path(folder, scene.id).unlink(missing_ok=True)  # of an earlier run; not all models have one
    while True:
        tiles = cut(scene.grid, model, tile_px)
        try:
            seconds, close = _predict_tiles(model, scene, tiles, folder, task.inputs)
            break
        except SceneSkipped as fact:
            LOG.info("%s: skipped, %s", scene.id, fact)
            return skipped(scene, str(fact))
        except Exception as error:
            smaller = tile_px // 2
            fixed = cut(scene.grid, model, smaller) == tiles
            if not is_out_of_memory(error) or smaller < SMALLEST_TILE_PX or fixed:
                raise
            LOG.warning("%s: out of memory with tiles of %d, trying %d", scene.id, tile_px, smaller)
            tile_px = smaller
    known = {
        "scene": scene.id,
        "model": model.spec.id,
        "status": "predicted",
        "device": device,
        "backend": model.backend,
        "precision": model.precision,
        "precision_note": model.precision_note,
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


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return isinstance(error, RuntimeError) and "Failed to allocate" in str(error)  # OpenVINO


def cut(grid: Grid, model: Model, tile_px: int) -> list[Tile]:
    """Cut a grid the way a model needs it: whole, in tiles with a halo, or in patches."""
    if model.patch_px is not None:
        return patches_of(grid, patch_px=model.patch_px)
    return tiles_of(grid, tile_px=tile_px, halo=model.receptive_field)


def patches_of(grid: Grid, *, patch_px: int) -> list[Tile]:
    """Cut a grid in patches of one size that overlap by at least a quarter and are blended."""
    rows, cols = (_starts(length, patch_px) for length in grid.shape)
    tiles = []
    for row, row_core in _with_cores(rows, grid.height, patch_px):
        for col, col_core in _with_cores(cols, grid.width, patch_px):
            outer = Window(col, row, min(patch_px, grid.width), min(patch_px, grid.height))
            core = Window(col_core[0], row_core[0], col_core[1], row_core[1])
            tiles.append(Tile(core, outer, blended=True))
    return tiles


def _starts(length: int, patch: int) -> list[int]:
    if length <= patch:
        return [0]
    count = -(-(length - patch) // (patch * 3 // 4)) + 1
    return [round(i * (length - patch) / (count - 1)) for i in range(count)]


def _with_cores(
    starts: list[int], length: int, patch: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield each start with its core (offset, size), cut in the middle of the overlaps."""
    cuts = [0]
    cuts += [(a + patch + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    cuts.append(length)
    for start_at, low, high in zip(starts, cuts, cuts[1:], strict=False):
        yield start_at, (low, high - low)


class Joint:
    """Joins what tiles give to one image, piece by piece.

    Cores lie side by side. Blended patches are weighted by the distance to their nearest
    border inside the image, along rows times along columns: from one patch to the next the
    result changes linearly, without a seam, and what one leaves empty (NaN) another fills.
    Only the pieces that later patches overlap are held.

    Args:
        tiles: all tiles of an image, row by row.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        slices = [tile.outer.toslices() for tile in tiles]
        self._rows, self._cols = (_Overlaps(axis) for axis in zip(*slices, strict=True))
        self._held: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, values: np.ndarray, tile: Tile) -> Iterator[tuple[Window, np.ndarray]]:
        """Take the next tile and yield what is complete, window by window.

        Args:
            values: ``(B, H, W)`` float32 of the tile's outer window, NaN where it has no answer.
            tile: one of the tiles, in their order.
        """
        if not tile.blended:
            yield tile.core, values[(slice(None), *tile.inside)]
            return
        height, width = tile.outer.toslices()
        weight = np.outer(self._rows.weights(height), self._cols.weights(width))
        weighted, weight = _weighted(values, weight.astype(np.float32))
        for rows, last_row in self._rows.pieces(height):
            for cols, last_col in self._cols.pieces(width):
                inside = (slice(None), _shifted(rows, height.start), _shifted(cols, width.start))
                key = rows.start, cols.start
                earlier, earlier_weight = self._held.pop(key, (0, 0))
                total, total_weight = earlier + weighted[inside], earlier_weight + weight[inside]
                if last_row and last_col:
                    none = np.full_like(total, np.nan)
                    mean = np.divide(total, total_weight, out=none, where=total_weight > 0)
                    yield Window.from_slices(rows, cols), mean
                else:
                    self._held[key] = total, total_weight


def _weighted(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = np.isfinite(values)
    return np.where(seen, values * weight, 0), seen * weight


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


class _Overlaps:
    """How patches overlap along one axis."""

    def __init__(self, patches: Sequence[slice]) -> None:
        self._starts = sorted({patch.start for patch in patches})
        self._stops = sorted({patch.stop for patch in patches})

    def weights(self, patch: slice) -> np.ndarray:
        """Return the distance of each pixel's centre to the nearest border inside the image."""
        centres = np.arange(patch.start, patch.stop) + 0.5
        distance = np.full(len(centres), np.inf)
        if patch.start > self._starts[0]:
            distance = centres - patch.start
        if patch.stop < self._stops[-1]:
            distance = np.minimum(distance, patch.stop - centres)
        return np.where(np.isinf(distance), 1.0, distance)

    def pieces(self, patch: slice) -> Iterator[tuple[slice, bool]]:
        """Yield the parts of a patch between all borders, and whether it is their last one."""
        borders = sorted(n for n in {*self._starts, *self._stops} if patch.start <= n <= patch.stop)
        following = next((n for n in self._starts if n > patch.start), patch.stop)
        for start_at, stop_at in pairwise(borders):
            yield slice(start_at, stop_at), stop_at <= following


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
        writer = stack.enter_context(_Writer(scene, folder, tiles))
        writing: Future | None = None
        for tile, inputs in progress(coming, len(tiles), scene):
            begin = time.monotonic()
            prediction = model.predict(inputs)
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


def read(model: Model, scene: Scene, tile: Tile) -> Inputs:
    """Read what a model is given for one tile."""
    return read_inputs(scene, window=tile.outer, radar=model.radar_dates)


def _read_ahead(
    model: Model, scene: Scene, tiles: list[Tile], only: Inputs | None
) -> Iterator[tuple[Tile, Inputs]]:
    """Prepare the model, then yield tiles; the next is read while the last is computed.

    The only tile of a scene is read once for both; of a small scene, it was read before.
    """
    if len(tiles) == 1:
        only = only or read(model, scene, tiles[0])
        model.prepare(scene, [only])
        yield tiles[0], only
        return
    model.prepare(scene, _Cores(scene, tiles))
    yield from zip(tiles, one_ahead(partial(read, model, scene), tiles), strict=True)


@dataclass
class _Cores(Sequence[Inputs]):
    """The windows of a scene without overlap, read anew each time that one is asked for."""

    scene: Scene
    tiles: list[Tile]
    said: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, number: int) -> Inputs:
        window = self.tiles[number].core
        if time.monotonic() > self.said + SILENCE_SECONDS:
            LOG.info("%s: preparing, window %d of %d", self.scene.id, number + 1, len(self))
            self.said = time.monotonic()
        return read_inputs(self.scene, window=window)


class _Writer:
    """Writes predictions in a thread; files appear when all went well."""

    def __init__(self, scene: Scene, folder: Path, tiles: Sequence[Tile]) -> None:
        self.scene, self.folder, self.tiles = scene, folder, tiles
        self.files: dict[str, tuple[Any, Joint]] = {}

    def __enter__(self) -> _Writer:
        self.pool, self.stack = ThreadPoolExecutor(1), contextlib.ExitStack()
        return self

    def __exit__(self, *error: Any) -> None:
        # GDAL's environment belongs to the thread that opened the files.
        try:
            self.pool.submit(self.stack.__exit__, *error).result()
        finally:
            self.pool.shutdown()

    def submit(self, prediction: Prediction, tile: Tile) -> Future:
        """Write one tile, the first one creating the files."""
        return self.pool.submit(self._write, prediction, tile)

    def _write(self, prediction: Prediction, tile: Tile) -> None:
        if not self.files:
            self._open(prediction)
        for part, (file, joint) in self.files.items():
            for window, values in joint.add(getattr(prediction, part), tile):
                file.write(raster.to_dn(values), window=window)

    def _open(self, prediction: Prediction) -> None:
        names = {"reflectance": image_path(self.folder, self.scene.id).name}
        if prediction.std is not None:
            names["std"] = std_path(self.folder, self.scene.id).name
        for part, name in names.items():
            file = self.stack.enter_context(
                raster.cog_writer(
                    self.folder / name,
                    self.scene.grid,
                    dtype="uint16",
                    descriptions=prediction.bands or self.scene.bands,
                    nodata=0,
                    compress="deflate",
                )
            )
            self.files[part] = file, Joint(self.tiles)


def progress(
    items: Iterator[tuple[Tile, Inputs]], total: int, scene: Scene
) -> Iterator[tuple[Tile, Inputs]]:
    """Yield items, with a bar in a terminal and log lines with Mpx/s and ETA elsewhere."""
    begin = last = time.monotonic()
    done = 0
    bar = tqdm(items, total=total, desc=scene.id, unit="tile", disable=not sys.stderr.isatty())
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
        code: checksum of the code behind the model (:mod:`unveil.workflow.code`).
        device: what it runs on.
    """
    seen = [(f.role, f.date, f.bands, f.checksum, f.mask_checksum) for f in scene.frames]
    beside = model.files_beside(scene)
    return identify(
        scene=[scene.id, scene.level, seen],
        options=[model.spec.kind, model.spec.options],
        weights=model.weights_checksum,
        files=[(path.name, raster.sha256(path)) for path in beside],
        computed=[model.backend, model.precision, device.kind],
        code=code,
    )
