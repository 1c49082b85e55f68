"""Writing predictions beside the computing: tile by tile, whole scenes in the background."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.inference.tiles import Joint, Tile
from unveil.models.base import Prediction
from unveil.predictions import image_path, std_path
from unveil.scene import Scene

FINISHED_AT_ONCE = 2
"""Compressing a small scene on a core that the network uses, too, takes longer than the network."""


class Finisher:
    """Finishes scenes in the background while others are computed, few at a time."""

    def __init__(self) -> None:
        self.pool, self.lock = ThreadPoolExecutor(FINISHED_AT_ONCE), threading.Lock()
        self.pending: deque[Future] = deque()
        self.ended = 0.0

    def __enter__(self) -> Finisher:
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


class Writer:
    """Writes predictions in a thread; files appear when all went well."""

    def __init__(self, scene: Scene, folder: Path, tiles: Sequence[Tile]) -> None:
        self.scene, self.folder, self.tiles = scene, folder, tiles
        self.files: dict[str, tuple[Any, Joint]] = {}

    def __enter__(self) -> Writer:
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
        tags = {"std": prediction.distribution.tags}
        for part, name in names.items():
            file = self.stack.enter_context(
                raster.cog_writer(
                    self.folder / name,
                    self.scene.grid,
                    dtype="uint16",
                    descriptions=prediction.bands or self.scene.bands,
                    nodata=0,
                    tags=tags.get(part),
                    compress="deflate",
                )
            )
            self.files[part] = file, Joint(self.tiles)
