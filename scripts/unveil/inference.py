"""Inference engine: tiles, halo, device, progress, records. Knows no model by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from unveil import raster
from unveil.errors import InputError, SceneSkipped
from unveil.models.base import Model, Prediction
from unveil.provenance import versions
from unveil.raster import Grid
from unveil.scene import Inputs, Scene, read_inputs

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceOptions:
    """How models are run.

    Attributes:
        tile_px: edge of a tile without its halo.
        gpu: ``required``, ``preferred`` or ``never``.
    """

    tile_px: int = 1024
    gpu: str = "preferred"


@dataclass(frozen=True)
class Tile:
    """A tile and the larger window that is read for it.

    Attributes:
        core: pixels that are written.
        outer: pixels that are read: the core and its halo, clipped to the image.
    """

    core: Window
    outer: Window

    @property
    def inside(self) -> tuple[slice, slice]:
        """The core within the outer window."""
        row = int(self.core.row_off - self.outer.row_off)
        col = int(self.core.col_off - self.outer.col_off)
        return slice(row, row + int(self.core.height)), slice(col, col + int(self.core.width))


def tiles_of(grid: Grid, *, tile_px: int, halo: int | None) -> list[Tile]:
    """Cut a grid into tiles; with ``halo`` None the whole image is one tile."""
    if halo is None:
        whole = Window(0, 0, grid.width, grid.height)
        return [Tile(whole, whole)]
    return [Tile(core, _grown(core, halo, grid)) for core in grid.windows(tile_px)]


def _grown(core: Window, halo: int, grid: Grid) -> Window:
    row, col = max(0, int(core.row_off) - halo), max(0, int(core.col_off) - halo)
    bottom = min(grid.height, int(core.row_off + core.height) + halo)
    right = min(grid.width, int(core.col_off + core.width) + halo)
    return Window(col, row, right - col, bottom - row)


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
    config_hash: str,
) -> list[dict[str, Any]]:
    """Run one model on many scenes; it is loaded once.

    Args:
        model: the model, not yet loaded.
        scenes: scenes ready for analysis; their truth is taken away here.
        folder: ``results/predictions/MODEL``.
        options: tiles and device.
        config_hash: part of a result's identity.

    Returns:
        One record a scene: ``status`` predicted or skipped, with the reason.
    """
    device = None
    records = []
    for number, full in enumerate(scenes, 1):
        scene = limit_context(full.without_truth(), model.needs.max_context)
        reason = model.skip(scene)
        if reason:
            LOG.info("%s (%d of %d): skipped, %s", scene.id, number, len(scenes), reason)
            records.append({"scene": scene.id, "status": "skipped", "reason": reason})
            continue
        if device is None:
            device = choose_device(model, options.gpu)
            model.load()
        identity = identity_of(scene, model, config_hash)
        record = finished(folder / f"{scene.id}.json", identity)
        if record:
            LOG.info("%s (%d of %d): finished earlier", scene.id, number, len(scenes))
        else:
            LOG.info("%s (%d of %d): starting", scene.id, number, len(scenes))
            record = run_scene(model, scene, folder, options, identity=identity, device=device)
        records.append(record)
    return records


def run_scene(
    model: Model,
    scene: Scene,
    folder: Path,
    options: InferenceOptions,
    *,
    identity: dict[str, str],
    device: str,
) -> dict[str, Any]:
    """Predict one scene tile by tile, write the COG and the record of the run."""
    start = time.monotonic()
    tiles = tiles_of(scene.grid, tile_px=options.tile_px, halo=model.receptive_field)
    try:
        model.prepare(scene, (read_inputs(scene, window=tile.core) for tile in tiles))
        computing = _predict_tiles(model, scene, tiles, folder)
    except SceneSkipped as fact:
        LOG.info("%s: skipped, %s", scene.id, fact)
        return {"scene": scene.id, "status": "skipped", "reason": str(fact)}
    path = folder / f"{scene.id}.tif"
    record = {
        "scene": scene.id,
        "model": model.spec.id,
        "status": "predicted",
        "identity": identity,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": raster.sha256(path),
        "device": device,
        "tiles": len(tiles),
        "pixels": scene.grid.pixels,
        "wall_seconds": round(time.monotonic() - start, 3),
        "model_seconds": round(computing, 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": versions(),
        "host": {"machine": platform.machine(), "cpus": len(os.sched_getaffinity(0))},
    }
    with raster.replacing(folder / f"{scene.id}.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _predict_tiles(model: Model, scene: Scene, tiles: list[Tile], folder: Path) -> float:
    computing = 0.0
    with contextlib.ExitStack() as stack:
        writers: dict[str, Any] = {}
        for tile, inputs in progress(_read_tiles(scene, tiles), len(tiles), scene):
            begin = time.monotonic()
            prediction = model.predict(inputs)
            computing += time.monotonic() - begin
            if not writers:
                writers = _open_writers(stack, scene, prediction, folder)
            _write_tile(writers, prediction, tile)
    return computing


def _read_tiles(scene: Scene, tiles: list[Tile]) -> Iterator[tuple[Tile, Inputs]]:
    for tile in tiles:
        yield tile, read_inputs(scene, window=tile.outer)


def _open_writers(
    stack: contextlib.ExitStack, scene: Scene, prediction: Prediction, folder: Path
) -> dict[str, Any]:
    bands = prediction.bands or scene.bands
    names = {"reflectance": f"{scene.id}.tif"}
    if prediction.std is not None:
        names["std"] = f"{scene.id}_std.tif"
    return {
        part: stack.enter_context(
            raster.cog_writer(
                folder / name, scene.grid, dtype="uint16", descriptions=bands, nodata=0
            )
        )
        for part, name in names.items()
    }


def _write_tile(writers: dict[str, Any], prediction: Prediction, tile: Tile) -> None:
    for part, writer in writers.items():
        values = getattr(prediction, part)[(slice(None), *tile.inside)]
        writer.write(raster.to_dn(values), window=tile.core)


def progress(
    items: Iterator[tuple[Tile, Inputs]], total: int, scene: Scene
) -> Iterator[tuple[Tile, Inputs]]:
    """Yield items, with a bar in a terminal and log lines with Mpx/s and ETA elsewhere."""
    from tqdm import tqdm

    start = last = time.monotonic()
    done = 0
    bar = tqdm(items, total=total, desc=scene.id, unit="tile", disable=not sys.stderr.isatty())
    for number, item in enumerate(bar, 1):
        yield item
        core = item[0].core
        done += int(core.width * core.height)
        now = time.monotonic()
        if now - last > 10 or number == total:
            rate = done / max(now - start, 1e-9)
            left = (scene.grid.pixels - done) / rate
            LOG.info(
                "%s: tile %d of %d, %.2f Mpx/s, %.0f s left",
                scene.id,
                number,
                total,
                rate / 1e6,
                left,
            )
            last = now


def choose_device(model: Model, gpu: str) -> str:
    """Say what a model runs on; refuse when a GPU is required and none is visible.

    Raises:
        InputError: with the remedy.
    """
    if not model.network:
        return "CPU"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if gpu == "never":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU") if gpu != "never" else []
    if gpu == "required" and not devices:
        raise InputError(
            "a GPU is required and TensorFlow sees none",
            file="config",
            field="inference.gpu",
            remedy="set it to preferred, or check the driver, CUDA_VISIBLE_DEVICES and that "
            "tensorflow (not tensorflow-cpu) is installed",
        )
    for device in devices:
        tf.config.experimental.set_memory_growth(device, True)
    name = f"GPU ({devices[0].name})" if devices else "CPU"
    LOG.info("running %s on %s", model.spec.id, name)
    return name


def identity_of(scene: Scene, model: Model, config_hash: str) -> dict[str, str]:
    """Return what makes a result the same: scene, model, weights, config."""
    facts = [
        (f.role, f.date, f.checksum, raster.sha256(f.mask) if f.mask else "") for f in scene.frames
    ]
    content = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    spec = asdict(model.spec) | {"weights": str(model.spec.weights or "")}
    return {
        "scene": scene.id,
        "scene_content": content,
        "model": hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(),
        "weights": model.weights_checksum,
        "config": config_hash,
        "code": code_checksum(),
    }


@cache
def code_checksum() -> str:
    """Return one SHA-256 over the package's files that a prediction depends on."""
    package = Path(__file__).parent
    names = ("bands.py", "scene.py", "raster.py", "inference.py")
    files = [*(package / name for name in names), *sorted((package / "models").glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def finished(record_path: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """Return the record of an earlier run of the same identity whose file is intact."""
    try:
        record = json.loads(record_path.read_text())
        if record["identity"] != identity:
            return None
        path = record_path.with_name(record["file"])
        return record if raster.sha256(path) == record["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
