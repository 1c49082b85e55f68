"""What every model keeps, held by running it on a place that is drawn: shipped or a user's own."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from unveil import raster
from unveil.bands import CLOUD, L1C13, L2A12, UNKNOWN_PROBABILITY
from unveil.errors import InputError, SceneSkipped
from unveil.excess import excess_to_dn
from unveil.inference.blame import blaming, require_prediction
from unveil.inference.engine import InferenceOptions, limit_context, read, run_shard, start
from unveil.inference.tiles import Joint, cut
from unveil.models.base import Model, ModelSpec, Needs
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Frame, Scene

SHAPE = (40, 40)
TIMED_SHAPE = (320, 320)
TARGET = dt.date(2020, 6, 15)
OTHER_DAYS = (-106, -66, -26, 25, 47)
"""Days from the target to the other dates; more go back in steps of ten from the first."""
WHOLE = 4096
"""Edge of a tile that holds any drawn place."""
SMALL_TILE = 24
TILE_TOLERANCE = 2e-5
"""Most that an answer may differ between tiles: float32 sums in another order."""
SEEN = 0.95
"""Least share of a drawn place that has an answer: each pixel is seen clearly by some frame."""


class BrokenError(Exception):
    """A model does not keep the contract; the message says how."""


@dataclass(frozen=True)
class Case:
    """A model and the place that it is tried on.

    Attributes:
        spec: its row of the models table.
        scene: of :func:`draw_scene`.
        options: device, backend and precision; None is where and how it loads by itself.
    """

    spec: ModelSpec
    scene: Scene
    options: InferenceOptions | None = None

    @cached_property
    def answer(self) -> np.ndarray:
        """What a fresh model answers in one tile, ``(B, H, W)`` float32; computed once."""
        return answer(self.spec, self.scene, options=self.options)


def draw_scene(
    folder: Path, *, level: str, shape: tuple[int, int] = SHAPE, context: int = len(OTHER_DAYS)
) -> Scene:
    """Write a textured place with its seasons, moving clouds and monthly radar.

    Args:
        folder: where its rasters go.
        level: ``L1C`` or ``L2A``, with all bands of it.
        shape: rows and columns, pixels of 10 m.
        context: other dates than the target.
    """
    bands = L1C13 if level == "L1C" else L2A12
    grid = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), *shape)
    rng = np.random.default_rng(11)
    surface = 0.15 + 0.04 * gaussian_filter(rng.normal(0, 3, (len(bands), *shape)), (0, 2, 2))
    earlier = range(min(OTHER_DAYS) - 10, min(OTHER_DAYS) - 10 * (context - 4), -10)
    offsets = sorted([0, *OTHER_DAYS[:context], *earlier])
    frames = []
    for number, offset in enumerate(offsets):
        data = surface * (1 + 0.1 * np.sin(number)) + rng.normal(0, 0.002, surface.shape)
        classes = np.zeros(shape, np.uint8)
        low = number % 6 * shape[0] // 8
        classes[low : low + 3 * shape[0] // 8] = CLOUD
        data[:, classes == CLOUD] = 0.7
        date = (TARGET + dt.timedelta(offset)).isoformat()
        path = folder / f"{date}.tif"
        mask, veil = (folder / part / f"{date}.tif" for part in ("masks", "veils"))
        raster.write_cog(
            path, raster.to_dn(np.clip(data, 0.01, 1)), grid, descriptions=bands, nodata=0
        )
        stack = np.stack([classes, np.full(shape, UNKNOWN_PROBABILITY, np.uint8)])
        names = ["CLASS", "CLOUD_PROBABILITY"]
        raster.write_cog(mask, stack, grid, descriptions=names, nodata=None)
        excess = excess_to_dn(data[0] - surface[0])[None]
        raster.write_cog(veil, excess, grid, descriptions=["EXCESS"], nodata=0)
        role = "context" if offset else "target"
        frames.append(Frame(date, role, path, bands, mask, {}, raster.sha256(path), veil=veil))
    frames += [_draw_radar(folder, f"2020-{m:02d}-05", grid, rng) for m in range(3, 9)]
    truth = folder / "truth.tif"
    raster.write_cog(truth, raster.to_dn(surface), grid, descriptions=bands, nodata=0)
    frames.append(Frame("2020-06-16", "reference", truth, bands))
    return Scene("s", "paired", "p", grid, tuple(frames), {"level": level})


def _draw_radar(folder: Path, date: str, grid: Grid, rng: np.random.Generator) -> Frame:
    path = folder / "sar" / f"{date}.tif"
    decibel = np.stack([rng.normal(-11, 2, grid.shape), rng.normal(-18, 2, grid.shape)])
    raster.write_cog(
        path, decibel.astype(np.float32), grid, descriptions=["VV", "VH"], nodata=np.nan
    )
    return Frame(date, "radar", path, ("VV", "VH"))


def draw_scene_for(needs: Needs, folder: Path, *, shape: tuple[int, int] = SHAPE) -> Scene:
    """Draw a place that has what a model needs."""
    level = needs.levels[0] if needs.levels else "L1C"
    return draw_scene(
        folder, level=level, shape=shape, context=max(len(OTHER_DAYS), needs.min_context)
    )


def answer(
    spec: ModelSpec,
    scene: Scene,
    *,
    tile_px: int = WHOLE,
    model: Model | None = None,
    options: InferenceOptions | None = None,
) -> np.ndarray:
    """Predict a scene in memory, tile by tile, as the engine does; ``(B, H, W)`` float32.

    Args:
        spec: row of the models table.
        scene: the scene; its truth is taken away here.
        tile_px: edge of a tile.
        model: one that answered before, instead of a new one.
        options: device, backend and precision; None loads it where it is.

    Raises:
        BrokenError: if it has a reason to skip the scene.
    """
    model = model or create(spec)
    scene = limit_context(scene.without_truth(), model.needs.max_context)
    with blaming(model, scene):
        reason = model.skip(scene)
    if reason:
        raise BrokenError(f"it skips a scene that has all it needs: {reason}")
    _load(model, options)
    tiles = cut(scene.grid, model, tile_px)

    result, joint = None, Joint(tiles)
    with blaming(model, scene):
        model.prepare(scene, [read(model, scene, tile.core) for tile in tiles])
    for tile in tiles:
        inputs = read(model, scene, tile.outer)
        with blaming(model, scene):
            prediction = model.predict(inputs)
        require_prediction(prediction, inputs, model, scene)
        reflectance = prediction.reflectance
        if result is None:
            result = np.full((len(reflectance), *scene.grid.shape), np.nan, np.float32)
        for window, values in joint.add(reflectance, tile):
            result[(slice(None), *window.toslices())] = values
    assert result is not None
    return result


# --- the checks: each returns what it found, or raises -----------------------------------------


def check_reflectance(case: Case) -> str:
    """It gives finite float32 reflectance of its bands, for every pixel that is seen."""
    found = case.answer
    seen = np.isfinite(found).mean()
    if seen < SEEN:
        raise BrokenError(f"{1 - seen:.0%} of the pixels have no finite answer")
    low, high = np.nanpercentile(found, [1, 99])
    if not (-0.5 < low and high < 2):
        raise BrokenError(f"values from {low:.3g} to {high:.3g} are no reflectance (0 to 1)")
    return f"{len(found)} bands, {low:.3f} to {high:.3f}, {seen:.1%} of the pixels answered"


def check_repeats(case: Case) -> str:
    """It answers the same when it is asked again."""
    _require_equal(case.answer, answer(case.spec, case.scene, options=case.options))
    return "the same to the bit"


def check_tiles(case: Case) -> str:
    """Its answer does not depend on how the scene is cut in tiles."""
    tiled = answer(case.spec, case.scene, tile_px=SMALL_TILE, options=case.options)
    difference = _difference(tiled, case.answer)
    if difference > TILE_TOLERANCE:
        raise BrokenError(
            f"tiles of {SMALL_TILE} px change the answer by up to {difference:.2g}: it looks "
            "further than its receptive_field says; None has the whole scene in one tile"
        )
    return f"at most {difference:.2g} apart with tiles of {SMALL_TILE} px"


def check_memory_of_scenes(case: Case) -> str:
    """It carries nothing from one scene to the next."""
    model = create(case.spec)
    turned = replace(case.scene, frames=tuple(_darkened(frame) for frame in case.scene.frames))
    answer(case.spec, turned, model=model, options=case.options)
    _require_equal(case.answer, answer(case.spec, case.scene, model=model, options=case.options))
    return "the same after another scene"


def check_inputs_untouched(case: Case) -> str:
    """It leaves what it is given as it is."""
    model = create(case.spec)
    scene = limit_context(case.scene.without_truth(), model.needs.max_context)
    _load(model, case.options)
    given, kept = (read(model, scene) for _ in range(2))
    with blaming(model, scene):
        model.prepare(scene, [given])
        model.predict(given)
    for name, value in vars(kept).items():
        if isinstance(value, np.ndarray) and not np.array_equal(
            value, getattr(given, name), equal_nan=value.dtype.kind == "f"
        ):
            raise BrokenError(f"predict or prepare writes into inputs.{name}: copy it first")
    return "none of the arrays is written to"


def check_skips(case: Case) -> str:
    """It skips a scene that lacks what it needs, with a reason, and no other."""
    model = create(case.spec)
    scene = case.scene.without_truth()
    bare = replace(scene, frames=(scene.target,))
    poor = bool(model.needs.min_context or model.needs.radar == "required")
    reason = model.skip(bare)
    if bool(reason) != poor:
        said = f"skips it: {reason}" if reason else "does not skip it"
        raise BrokenError(f"of a scene with nothing but its target it {said}; needs says otherwise")
    return reason or "it needs nothing but the target"


def check_options(case: Case) -> str:
    """It refuses an option that it does not have, by name."""
    options = case.spec.options | {"nonsense": 1}
    try:
        create(replace(case.spec, options=options))
    except InputError as error:
        if "nonsense" in str(error) and case.spec.id in str(error):
            return "an unknown option is refused by name"
        raise BrokenError(f"refused without its name: {error}") from error
    raise BrokenError(
        "an unknown option is taken: name a dataclass as options_type, and call "
        "super().__init__(spec)"
    )


def check_words(case: Case) -> str:
    """It says what it is: what to cite."""
    citation = create(case.spec).citation
    if len(citation) < 20:
        raise BrokenError(f"citation is {citation!r}: write authors, year, title and DOI")
    return citation


CHECKS: dict[str, Callable[[Case], str]] = {
    "reflectance": check_reflectance,
    "repeats": check_repeats,
    "tiles": check_tiles,
    "scenes": check_memory_of_scenes,
    "inputs": check_inputs_untouched,
    "skips": check_skips,
    "options": check_options,
    "words": check_words,
}
"""By name, in the order of the page; the first line of each says what is held."""


def run_checks(case: Case) -> list[dict[str, Any]]:
    """Run all checks on a model: ``check``, ``holds`` (what), ``passed`` and ``found``."""
    results = []
    for name, check in CHECKS.items():
        try:
            found, passed = check(case), True
        except (BrokenError, InputError, SceneSkipped) as error:
            found, passed = str(error), False
        holds = (check.__doc__ or "").strip()
        results.append({"check": name, "holds": holds, "passed": passed, "found": found})
    return results


def measure(
    spec: ModelSpec, folder: Path, options: InferenceOptions, *, code: str
) -> tuple[dict[str, Any], Scene]:
    """Run a model as a job does on a drawn place of :data:`TIMED_SHAPE`; return record and scene.

    Args:
        spec: row of the models table.
        folder: for the place and the prediction.
        options: device and tiles.
        code: checksum of the code behind the model.

    Raises:
        InputError: whatever the model does wrong.
    """
    model = create(spec)
    scene = draw_scene_for(model.needs, folder / "timed", shape=TIMED_SHAPE)
    begin = time.monotonic()
    [record] = run_shard(model, [scene], folder / "predictions", options, code=code)
    return record | {"whole_seconds": round(time.monotonic() - begin, 3)}, scene


def _load(model: Model, options: InferenceOptions | None) -> None:
    if options:
        start(model, options)
    else:
        model.load()


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        raise BrokenError(f"shape {one.shape} instead of {other.shape}")
    if (np.isfinite(one) != np.isfinite(other)).any():
        raise BrokenError("other pixels have no answer")
    return float(np.nanmax(np.abs(one - other), initial=0))


def _require_equal(first: np.ndarray, second: np.ndarray) -> None:
    if (difference := _difference(second, first)) > 0:
        raise BrokenError(
            f"up to {difference:.2g} of reflectance apart; draw by a fixed seed, if any"
        )


def _darkened(frame: Frame) -> Frame:
    """Return the frame of another scene: the same raster at half its brightness."""
    if frame.role not in ("target", "context"):
        return frame
    path = frame.path.with_name(f"dark-{frame.path.name}")
    if not path.exists():
        with raster.open_raster(frame.path) as dataset:
            grid = raster.grid_of(dataset)
        data = raster.to_reflectance(raster.read(frame.path)) / 2
        raster.write_cog(path, raster.to_dn(data), grid, descriptions=frame.bands, nodata=0)
    return replace(frame, path=path)
